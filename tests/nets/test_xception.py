"""Xception."""

import pytest
import torch
from torch import nn

import cnnzoo

LAYERS = {
    "conv1": 864,
    "bn1": 64,
    "conv2": 18_432,
    "bn2": 128,
    "block1": 35_264,
    "block2": 136_064,
    "block3": 915_944,
    **{f"block{number}": 1_613_976 for number in range(4, 12)},
    "block12": 2_039_584,
    "conv3": 1_582_080,
    "bn3": 3_072,
    "conv4": 3_159_552,
    "bn4": 4_096,
    "fc": 2_049_000,
}


@pytest.fixture
def net():
    with torch.device("meta"):
        return cnnzoo.create("xception")


@pytest.mark.parametrize("layer", LAYERS)
def test_parameters_of_a_layer(net, layer):
    assert sum(p.numel() for p in net.get_submodule(layer).parameters()) == LAYERS[layer]


def test_34_separable_convolutions_2_plain_ones_and_4_in_shortcuts(net):
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 2 * 34 + 2 + 4
    assert sum(conv.groups > 1 for conv in convolutions) == 34


def test_batchnorms_make_keras_total(net):
    channels = [module.num_features for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert (len(channels), sum(channels)) == (40, 27_264)
    assert sum(p.numel() for p in net.parameters()) + 2 * sum(channels) == 22_910_480


@torch.no_grad()
def test_shortcut_carries_what_was_before_the_relu():
    torch.manual_seed(0)
    block = cnnzoo.create("xception", num_classes=2).block4
    nn.init.zeros_(block.rep[-1].weight)
    x = torch.randn(2, 728, 3, 3)
    before = x.clone()
    assert torch.equal(block(x), before)


def test_every_block_but_the_first_begins_with_a_relu(net):
    begins = [isinstance(net.get_submodule(f"block{number}").rep[0], nn.ReLU) for number in range(1, 13)]
    assert begins == [False] + [True] * 11


def test_drop_paths_deepen_from_block_to_block():
    with torch.device("meta"):
        net = cnnzoo.create("xception", drop_path_rate=0.3)
    rates = [net.get_submodule(f"block{number}").drop_path.rate for number in range(1, 13)]
    assert rates == pytest.approx([0.3 * number / 12 for number in range(1, 13)])
