"""AlexNet as its paper has it."""

import pytest
import torch

import cnnzoo


@torch.no_grad()
def test_lrn_is_the_papers_formula():
    norm = cnnzoo.info("alexnet_2012").build(num_classes=1).norm1
    a = 50 * torch.rand(1, 96, 2, 2, generator=torch.Generator().manual_seed(0))
    by_hand = torch.stack(
        [
            a[:, i] / (2 + 1e-4 * sum(a[:, j] ** 2 for j in range(max(0, i - 2), min(95, i + 2) + 1))) ** 0.75
            for i in range(96)
        ],
        dim=1,
    )
    assert torch.allclose(norm(a), by_hand, rtol=1e-5)


@pytest.mark.parametrize("layer", ["conv2", "conv4", "conv5"])
def test_towers_are_two_groups(layer):
    assert cnnzoo.create("alexnet_2012").get_submodule(layer).groups == 2
    assert cnnzoo.create("alexnet_2012_single").get_submodule(layer).groups == 1
