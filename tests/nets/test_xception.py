"""Xception."""

import pytest
import torch
from torch import nn
from zoo_cases import count, on_meta

import cnnzoo


@pytest.fixture
def net():
    return on_meta("xception")


def test_34_separable_convolutions_2_plain_ones_and_4_in_shortcuts(net):
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 2 * 34 + 2 + 4
    assert sum(conv.groups > 1 for conv in convolutions) == 34


def test_batchnorms_make_keras_total(net):
    channels = [module.num_features for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert (len(channels), sum(channels)) == (40, 27_264)
    assert count(net) + 2 * sum(channels) == 22_910_480


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
    net = on_meta("xception", drop_path_rate=0.3)
    rates = [net.get_submodule(f"block{number}").drop_path.rate for number in range(1, 13)]
    assert rates == pytest.approx([0.3 * number / 12 for number in range(1, 13)])
