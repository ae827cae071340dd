"""LeNet-5 as its paper has it."""

import math

import pytest
import torch

import cnnzoo
from cnnzoo.config import LossConfig
from cnnzoo.train import losses


@pytest.fixture(scope="module")
def lenet():
    torch.manual_seed(0)
    return cnnzoo.create("lenet5_1998")


TABLE_I = [
    *({0, 1, 2}, {1, 2, 3}, {2, 3, 4}, {3, 4, 5}, {0, 4, 5}, {0, 1, 5}),
    *({0, 1, 2, 3}, {1, 2, 3, 4}, {2, 3, 4, 5}, {0, 3, 4, 5}, {0, 1, 4, 5}, {0, 1, 2, 5}),
    *({0, 1, 3, 4}, {1, 2, 4, 5}, {0, 2, 3, 5}),
    {0, 1, 2, 3, 4, 5},
]


@torch.no_grad()
def test_c3_is_connected_as_in_table_i(lenet):
    single = torch.eye(6)[:, :, None, None] * torch.ones(5, 5)
    change = lenet.c3(single) - lenet.c3(torch.zeros(1, 6, 5, 5))
    connected = change[:, :, 0, 0] != 0
    assert [set(connected[:, map_].nonzero().flatten().tolist()) for map_ in range(16)] == TABLE_I


@torch.no_grad()
def test_c3_has_60_connections_of_25_weights(lenet):
    assert sum(map(len, TABLE_I)) == 60
    assert lenet.c3.weight.shape == (60, 5, 5)


def test_c3_passes_every_weight_its_own_gradient(lenet):
    weight = lenet.c3.weight.detach().clone().requires_grad_()
    x = torch.randn(2, 6, 14, 14)
    torch.func.functional_call(lenet.c3, {"weight": weight}, x)[:, 15].sum().backward()
    assert weight.grad[:54].count_nonzero() == 0
    assert weight.grad[54:].count_nonzero() == 6 * 25


def test_squashing_maps_1_to_1(lenet):
    x = torch.tensor([-1.0, 0.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    by_hand = torch.tensor([1.7159 * math.tanh(2 * a / 3) for a in x.tolist()], dtype=torch.float64)
    assert lenet.tanh1(x).tolist() == pytest.approx(by_hand.tolist(), rel=1e-9)
    assert lenet.tanh1(x)[[0, 3]].tolist() == pytest.approx([-1, 1], abs=1e-4)


@torch.no_grad()
def test_subsampling_scales_the_sum_of_four(lenet):
    x = torch.randn(2, 6, 28, 28)
    total = x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]
    by_hand = total * lenet.s2.weight.view(6, 1, 1) + lenet.s2.bias.view(6, 1, 1)
    assert torch.allclose(lenet.s2(x), by_hand, atol=1e-6)


@torch.no_grad()
def test_logits_are_negated_squared_distances_to_the_drawings(lenet):
    f = lenet.eval().forward_features(torch.randn(3, 1, 32, 32))
    x, drawings = lenet.forward_head(f, pre_logits=True), lenet.output.weight
    by_hand = [[-sum((x[b, j] - drawings[i, j]) ** 2 for j in range(84)) for i in range(10)] for b in range(3)]
    assert torch.allclose(lenet.forward_head(f), torch.tensor(by_hand), rtol=1e-5)


def test_drawings_are_fixed_signs_and_all_differ(lenet):
    assert lenet.output.weight.shape == (10, 84)
    assert set(lenet.output.weight.flatten().tolist()) == {-1.0, 1.0}
    assert len(lenet.output.weight.unique(dim=0)) == 10
    assert list(lenet.output.parameters()) == []


def test_own_loss_is_equation_9():
    y = torch.tensor([[1.0, 4.0, 2.5], [3.0, 0.5, 7.0]])
    by_hand = [
        1.0 + math.log(math.exp(-0.1) + math.exp(-1.0) + math.exp(-4.0) + math.exp(-2.5)),
        7.0 + math.log(math.exp(-0.1) + math.exp(-3.0) + math.exp(-0.5) + math.exp(-7.0)),
    ]
    loss = losses.build(LossConfig(), own=cnnzoo.info("lenet5_1998").loss)
    assert loss(-y, torch.tensor([0, 2])).item() == pytest.approx(sum(by_hand) / 2, rel=1e-6)
