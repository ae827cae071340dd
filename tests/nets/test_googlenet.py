"""GoogLeNet as torchvision has it."""

import pytest
import torch
from torch import nn

import cnnzoo

# Parameters of each row of Table 1, with BatchNorm and 3x3 for 5x5.
LAYERS = {
    "conv1": 9_536,
    "conv2": 4_224,
    "conv3": 110_976,
    "inception3a": 155_872,
    "inception3b": 340_224,
    "inception4a": 364_512,
    "inception4b": 425_232,
    "inception4c": 486_192,
    "inception4d": 573_312,
    "inception4e": 803_840,
    "inception5a": 978_944,
    "inception5b": 1_347_040,
    "fc": 1_025_000,
    "aux1": 3_188_968,
    "aux2": 3_191_016,
}


@pytest.fixture
def net():
    with torch.device("meta"):
        return cnnzoo.create("googlenet")


def images(side=224):
    return torch.empty(2, 3, side, side, device="meta")


@pytest.mark.parametrize("layer", LAYERS)
def test_parameters_of_a_layer(net, layer):
    assert sum(p.numel() for p in net.get_submodule(layer).parameters()) == LAYERS[layer]


def test_57_convolutions_classify(net):
    net.aux1 = net.aux2 = None
    assert sum(isinstance(module, nn.Conv2d) for module in net.modules()) == 57


@pytest.mark.parametrize("name", ["googlenet", "googlenet_2014"])
def test_auxiliary_heads_see_4a_and_4d_and_answer_in_that_order(name):
    with torch.device("meta"):
        net = cnnzoo.create(name)
    seen = {}
    for module in ("aux1", "aux2"):
        net.get_submodule(module).register_forward_hook(
            lambda _, args, output, module=module: seen.update({module: (args[0], output)})
        )
    for module in ("inception4a", "inception4d"):
        net.get_submodule(module).register_forward_hook(lambda _, args, output, m=module: seen.update({m: output}))
    logits, aux1, aux2 = net(images())
    assert [t.shape for t in (logits, aux1, aux2)] == [(2, 1000)] * 3
    assert seen["aux1"][0] is seen["inception4a"]
    assert seen["aux2"][0] is seen["inception4d"]
    assert seen["aux1"][1] is aux1
    assert seen["aux2"][1] is aux2


@pytest.mark.parametrize("name", ["googlenet", "googlenet_2014"])
def test_one_output_in_eval_mode_and_without_auxiliary_heads(name):
    with torch.device("meta"):
        net, bare = cnnzoo.create(name), cnnzoo.create(name, aux_logits=False)
    assert net.eval()(images()).shape == (2, 1000)
    assert bare.train()(images()).shape == (2, 1000)
    assert [key for key in bare.state_dict() if key.startswith("aux")] == []


@pytest.mark.parametrize("name", ["googlenet", "googlenet_2014"])
@pytest.mark.parametrize("side", [33, 64, 200, 320])
def test_auxiliary_heads_train_on_any_size(name, side):
    with torch.device("meta"):
        net = cnnzoo.create(name)
    assert [output.shape for output in net(images(side))] == [(2, 1000)] * 3


def test_auxiliary_heads_change_their_classes_with_the_head(net):
    net.reset_classifier(7)
    assert [output.shape for output in net(images())] == [(2, 7)] * 3
    net.reset_classifier(0)
    assert net(images()).shape == (2, 1024)


def test_rates_of_dropout(net):
    assert (net.dropout.p, net.aux1.dropout.p, net.aux2.dropout.p) == (0.2, 0.7, 0.7)
