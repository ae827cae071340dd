"""Inception-ResNet v1 and v2."""

import pytest
import torch
from torch import nn
from zoo_cases import count, on_meta

V1, V2 = "inception_resnet_v1", "inception_resnet_v2"

SCALES = {"repeat": 0.17, "repeat_1": 0.10, "repeat_2": 0.20}


def test_parameters_of_the_first_layers():
    layers = ("conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a", "conv2d_4b")
    assert sum(count(on_meta(V1).get_submodule(layer)) for layer in layers) == 615_552


def test_244_convolutions_of_which_40_widen_without_batchnorm():
    net = on_meta(V2)
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 244
    assert sum(conv.bias is not None for conv in convolutions) == 40
    assert sum(isinstance(module, nn.BatchNorm2d) for module in net.modules()) == 204


def alive(block):
    """The same block with values."""
    block = block.to_empty(device="cpu").eval()
    for module in block.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return block


@torch.no_grad()
@pytest.mark.parametrize("name", [V1, V2])
@pytest.mark.parametrize("part", SCALES)
def test_block_adds_its_scaled_branches_before_the_relu(name, part):
    block = alive(on_meta(name).get_submodule(part)[0])
    x = torch.randn(2, block.conv2d.out_channels, 3, 3, generator=torch.Generator().manual_seed(0))
    branches = [block.get_submodule(branch)(x) for branch in block.branches]
    by_hand = (x + SCALES[part] * block.conv2d(torch.cat(branches, dim=1))).clamp(min=0)
    assert torch.allclose(block(x), by_hand, atol=1e-6)


@torch.no_grad()
def test_last_block_of_v2_has_neither_scale_nor_relu():
    block = alive(on_meta(V2).block8)
    x = torch.randn(2, 2080, 3, 3, generator=torch.Generator().manual_seed(0))
    by_hand = x + block.conv2d(torch.cat([block.branch0(x), block.branch1(x)], dim=1))
    assert torch.allclose(block(x), by_hand, atol=1e-6)
    assert (block(x) < 0).any()


@pytest.mark.parametrize(("name", "depth"), [(V1, 20), (V2, 40)])
def test_drop_paths_deepen_from_block_to_block(name, depth):
    net = on_meta(name, drop_path_rate=0.4)
    rates = [module.rate for module in net.modules() if type(module).__name__ == "DropPath"]
    assert rates == pytest.approx([0.4 * block / depth for block in range(1, depth + 1)])


@torch.no_grad()
def test_dropped_branch_leaves_the_relu_of_the_input():
    block = alive(on_meta(V1, drop_path_rate=0.5).repeat[0]).train()
    block.drop_path.rate = 1 - 1e-9
    torch.manual_seed(0)
    x = torch.randn(2, 256, 3, 3)
    assert torch.equal(block(x), x.clamp(min=0))
