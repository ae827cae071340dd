"""AlexNet as its paper has it."""

import pytest
import torch
from torch.nn import functional

import cnnzoo
from cnnzoo.models._lrn import local_response_norm


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


@pytest.mark.parametrize(("size", "beta"), [(5, 0.75), (4, 0.75), (3, 0.5), (1, 1.0)])
def test_lrn_is_pytorchs_with_its_gradient(size, beta):
    a = torch.randn(2, 7, 3, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    figures = (size, 0.1, beta, 1.5)
    outputs = [norm(a, *figures) for norm in (local_response_norm, functional.local_response_norm)]
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*(torch.autograd.grad(output.square().sum(), a)[0] for output in outputs))


@pytest.mark.parametrize("layer", ["conv2", "conv4", "conv5"])
def test_towers_are_two_groups(layer):
    assert cnnzoo.create("alexnet_2012").get_submodule(layer).groups == 2
    assert cnnzoo.create("alexnet_2012_single").get_submodule(layer).groups == 1
