"""The fast form of a net gives what the plain net gives."""

import pytest
import torch
from torch import nn

import cnnzoo
from cnnzoo.errors import InputError
from cnnzoo.inference import Features, Optimized

NETS = ("lenet5", "resnet20", "squeezenet1_1", "googlenet_2014", "densenet40", "highway_mnist", "nin_cifar10")


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_outputs_are_the_plain_nets(name, count):
    torch.manual_seed(0)
    net = cnnzoo.create(name).eval()
    channels, side, _ = net.entry.input_size
    images = torch.randn(count, channels, min(side, 64), min(side, 64))
    with torch.no_grad():
        expected = net(images)
    given = cnnzoo.optimize(net, "fp32")(images)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4 * max(1.0, expected.abs().max().item()))


def test_one_form_takes_any_number_of_images_of_several_sizes():
    net = cnnzoo.create("resnet20").eval()
    fast = cnnzoo.optimize(net, "fp32")
    for count, side in ((8, 32), (3, 32), (2, 48), (1, 32)):
        images = torch.randn(count, 3, side, side)
        with torch.no_grad():
            torch.testing.assert_close(fast(images), net(images), rtol=1e-4, atol=1e-4)


def test_it_keeps_what_belongs_to_the_net_and_leaves_the_net_alone():
    net = cnnzoo.create("resnet20")
    net.classes, before = tuple("abcdefghij"), {k: v.clone() for k, v in net.state_dict().items()}
    fast = cnnzoo.optimize(net, "fp32")
    fast(torch.randn(2, 3, 32, 32))
    assert (fast.classes, fast.num_classes) == (net.classes, 10)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not fast.train().training


def test_features_are_what_the_head_sees():
    net = cnnzoo.create("resnet20").eval()
    images = torch.randn(3, 3, 32, 32)
    vectors = cnnzoo.optimize(Features(net), "fp32")(images)
    with torch.no_grad():
        torch.testing.assert_close(net.get_classifier()(vectors), net(images), rtol=1e-4, atol=1e-4)


class Undecided(nn.Module):
    """No graph has its number of steps, which the images decide."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 2)

    def forward(self, x):
        x = x.flatten(1)
        for _ in range(int(x.abs().sum() * 10) % 7 + 1):
            x = x * 1.1
        return self.fc(x)


def test_a_net_that_its_graph_would_not_equal_runs_as_it_is():
    net = Undecided().eval()
    fast = Optimized(net, "fp32")
    torch.manual_seed(1)
    for _ in range(4):
        images = torch.randn(2, 3, 2, 2)
        fast._by_size.clear()
        with torch.no_grad():
            torch.testing.assert_close(fast(images), net(images))


def test_sixteen_bits_stay_near():
    torch.manual_seed(0)
    net = cnnzoo.create("resnet20").eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
    given = cnnzoo.optimize(net, "bf16")(images)
    assert given.dtype == torch.float32
    assert (given - expected).abs().max() <= 5e-2 * max(1.0, expected.abs().max().item())


def test_an_unknown_precision_is_told():
    with pytest.raises(InputError, match="precision is 'int8', but must be one of auto, fp32, bf16, fp16"):
        cnnzoo.optimize(cnnzoo.create("lenet5"), "int8")
