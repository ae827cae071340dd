"""Highway networks: their gates."""

import math

import pytest
import torch
from torch import nn
from zoo_cases import count, on_meta

import cnnzoo
from cnnzoo.models.highway import Highway

GATE_BIAS = {"highway_mnist": -1.0, "highway_cifar": -2.0, "highway_fc10": -2.0, "highway_fc100": -2.0}
LAYERS = {"highway_mnist": 8, "highway_cifar": 14, "highway_fc10": 9, "highway_fc100": 99}


@pytest.fixture(scope="module", params=GATE_BIAS)
def net(request):
    torch.manual_seed(0)
    return cnnzoo.create(request.param).eval()


@pytest.fixture
def images(net):
    return torch.randn(4, *net.entry.input_size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "params"), [("highway_mnist", 18_496), ("highway_fc50", 5_100)])
def test_parameters_of_a_highway_layer(name, params):
    layer = next(module for module in on_meta(name).modules() if isinstance(module, Highway))
    assert count(layer) == params


def test_gates_start_with_a_negative_bias_and_all_others_at_0(net):
    biases = {name: p for name, p in net.named_parameters() if name.endswith("bias")}
    gates = [biases.pop(name) for name in list(biases) if name.endswith("gate.bias")]
    assert len(gates) == LAYERS[net.entry.name]
    assert torch.cat(gates).unique().tolist() == [GATE_BIAS[net.entry.name]]
    assert torch.cat(list(biases.values())).unique().tolist() == [0.0]


@torch.no_grad()
@pytest.mark.parametrize(("bias", "source"), [(-1e4, "x"), (1e4, "h")])
def test_closed_gate_passes_the_input_and_open_gate_the_layer(bias, source):
    layer = Highway(lambda: nn.Linear(3, 3))
    nn.init.constant_(layer.gate.bias, bias)
    x = torch.randn(5, 3)
    assert torch.equal(layer(x), {"x": x, "h": layer.relu(layer.plain(x))}[source])


def test_openness_is_near_the_sigmoid_of_the_bias_at_the_start(net, images):
    openness = net.openness(images)
    expected = 1 / (1 + math.exp(-GATE_BIAS[net.entry.name]))
    assert openness == pytest.approx(dict.fromkeys(openness, expected), abs=0.05)


@torch.no_grad()
def test_openness_is_the_mean_of_each_gate_in_the_order_of_the_layers(net, images):
    layers = [name for name, module in net.named_modules() if isinstance(module, Highway)]
    for number, name in enumerate(layers):
        nn.init.zeros_(net.get_submodule(name).gate.weight)
        nn.init.constant_(net.get_submodule(name).gate.bias, number / len(layers))
    openness = net.openness(images)
    assert list(openness) == layers
    by_hand = [1 / (1 + math.exp(-number / len(layers))) for number in range(len(layers))]
    assert list(openness.values()) == pytest.approx(by_hand)
    assert not any(module._forward_hooks for module in net.modules())


def test_openness_differs_between_the_images_it_is_asked_for():
    net = cnnzoo.create("highway_fc10").eval()
    one, other = net.openness(torch.zeros(1, 1, 28, 28)), net.openness(torch.ones(1, 1, 28, 28))
    assert one["highway.0"] == pytest.approx(1 / (1 + math.exp(2)))  # nothing comes in but the bias
    assert one["highway.0"] != other["highway.0"]


@pytest.mark.parametrize(
    ("name", "rates"), [("highway_mnist", [0.2, 0.3, 0.4, 0.5]), ("highway_cifar", [0.2, 0.2, 0.2, 0.2])]
)
def test_dropout_rates_are_the_authors(name, rates):
    assert [module.p for module in on_meta(name).modules() if isinstance(module, nn.Dropout)] == pytest.approx(rates)


def test_fully_connected_net_refuses_another_size():
    with pytest.raises(cnnzoo.InputError, match=r"images of 28x28, not 32x28; build it with image_size 32"):
        cnnzoo.create("highway_fc10")(torch.zeros(1, 1, 32, 28))
