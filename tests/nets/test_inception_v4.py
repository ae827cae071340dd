"""Inception v4."""

import pytest
import torch
from torch import nn
from zoo_cases import count, on_meta

FEATURES = [
    *(928, 9_280, 18_560, 55_488, 189_312, 332_160),
    *([317_632] * 4),
    2_306_112,
    *([2_936_256] * 7),
    2_747_392,
    *([4_553_088] * 3),
]


@pytest.fixture
def net():
    return on_meta("inception_v4")


def test_parameters_of_the_layers(net):
    assert [count(layer) for layer in net.features] == FEATURES
    assert count(net.last_linear) == 1_537_000


def test_149_convolutions(net):
    assert sum(isinstance(module, nn.Conv2d) for module in net.modules()) == 149


@pytest.mark.parametrize("index", [*range(6, 10), *range(11, 18), *range(19, 22)])
def test_average_pooling_leaves_the_padding_out(net, index):
    ones = torch.ones(1, 2, 5, 5)
    assert torch.equal(net.features[index].branch3[0](ones), ones)
