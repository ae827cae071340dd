"""The paper's GoogLeNet."""

import math

import pytest
import torch
from torch import nn

import cnnzoo


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return cnnzoo.create("googlenet_2014")


@pytest.mark.parametrize("block", ["3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"])
def test_third_branch_is_a_5x5(net, block):
    assert net.get_submodule(f"inception{block}.branch3.1.conv").kernel_size == (5, 5)


@torch.no_grad()
def test_first_layers_run_in_caffes_order(net):
    ran = []
    names = ("conv1", "maxpool1", "norm1", "conv2", "conv3", "norm2", "maxpool2", "inception3a")
    handles = [
        net.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name)) for name in names[::-1]
    ]
    net.eval()(torch.zeros(1, 3, 31, 31))
    for handle in handles:
        handle.remove()
    assert tuple(ran) == names


@torch.no_grad()
@pytest.mark.parametrize("norm", ["norm1", "norm2"])
def test_normalisation_divides_alpha_by_the_window(net, norm):
    a = 50 * torch.rand(1, 8, 2, 2, generator=torch.Generator().manual_seed(0))
    by_hand = torch.stack(
        [
            a[:, i] / (1 + 1e-4 / 5 * sum(a[:, j] ** 2 for j in range(max(0, i - 2), min(7, i + 2) + 1))) ** 0.75
            for i in range(8)
        ],
        dim=1,
    )
    assert torch.allclose(net.get_submodule(norm)(a), by_hand, rtol=1e-5)


def test_maxima_round_sizes_up(net):
    pools = [net.maxpool1, net.maxpool2, net.maxpool3, net.maxpool4]
    assert [pool(torch.zeros(1, 1, 14, 14)).shape[-1] for pool in pools] == [7] * 4
    assert [pool.kernel_size for pool in pools] == [3] * 4


@pytest.mark.parametrize("head", ["aux1", "aux2"])
def test_auxiliary_heads_average_windows_of_5_that_are_3_apart(net, head):
    x = torch.rand(2, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    pooled = net.get_submodule(head).avgpool(x)
    by_hand = torch.stack([x[:, :, i : i + 5, j : j + 5].mean((2, 3)) for i in (0, 3, 6, 9) for j in (0, 3, 6, 9)], 2)
    assert torch.allclose(pooled.flatten(2), by_hand, atol=1e-6)


@pytest.mark.parametrize("head", ["aux1", "aux2"])
def test_auxiliary_heads_average_other_sizes_to_4x4(net, head):
    x = torch.rand(2, 3, 20, 8, generator=torch.Generator().manual_seed(0))
    by_hand = x.reshape(2, 3, 4, 5, 4, 2).mean((3, 5))
    assert torch.allclose(net.get_submodule(head).avgpool(x), by_hand, atol=1e-6)


def test_first_weights_are_caffes(net):
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            assert module.weight.abs().max().item() <= math.sqrt(3 / fan_in)
            assert module.weight.var().item() == pytest.approx(1 / fan_in, rel=0.15)
            assert (module.bias == (0.2 if isinstance(module, nn.Conv2d) else 0.0)).all()


def test_rates_of_dropout(net):
    assert (net.dropout.p, net.aux1.dropout.p, net.aux2.dropout.p) == (0.4, 0.7, 0.7)
