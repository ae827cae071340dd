"""ResNets: shortcuts and strides."""

import pytest
import torch
from torch import nn

import cnnzoo


@pytest.mark.parametrize(("layer", "channels"), [("layer2", 16), ("layer3", 32)])
def test_option_a_subsamples_and_appends_zeros(layer, channels):
    shortcut = cnnzoo.create("resnet20").get_submodule(layer)[0].downsample
    x = torch.randn(2, channels, 8, 8)
    y = shortcut(x)
    assert y.shape == (2, 2 * channels, 4, 4)
    assert torch.equal(y[:, :channels], x[:, :, ::2, ::2])
    assert torch.equal(y[:, channels:], torch.zeros(2, channels, 4, 4))
    assert list(shortcut.parameters()) == []


@pytest.mark.parametrize("layer", ["layer2", "layer3", "layer4"])
@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("resnet50", [(1, 1), (2, 2), (1, 1)]),
        ("resnet50_2015", [(2, 2), (1, 1), (1, 1)]),
        ("resnet101_2015", [(2, 2), (1, 1), (1, 1)]),
        ("resnet152_2015", [(2, 2), (1, 1), (1, 1)]),
    ],
)
def test_bottleneck_halves_the_size_where_its_paper_does(name, strides, layer):
    block = cnnzoo.create(name).get_submodule(layer)[0]
    assert [block.conv1.stride, block.conv2.stride, block.conv3.stride] == strides


@torch.no_grad()
def test_block_adds_its_input_and_plain_block_does_not():
    x = torch.rand(2, 16, 8, 8)
    residual = cnnzoo.create("resnet20").eval().layer1[0]
    plain = cnnzoo.create("plain20").eval().layer1[0]
    for block in (residual, plain):
        nn.init.zeros_(block.bn2.weight)
    assert torch.equal(residual(x), x)
    assert torch.equal(plain(x), torch.zeros_like(x))


def test_a_plain_net_has_no_path_to_drop():
    with pytest.raises(cnnzoo.InputError, match="a plain net has no shortcuts, so drop_path_rate must be 0"):
        cnnzoo.create("plain20", drop_path_rate=0.5)
