"""Network in Network: layer by layer."""

import pytest
import torch
from torch import nn
from zoo_cases import count, on_meta

import cnnzoo


def convolutions(name):
    return [module for module in on_meta(name).modules() if isinstance(module, nn.Conv2d)]


def test_parameters_of_each_convolution_of_the_cifar_net():
    params = [count(conv) for conv in convolutions("nin_cifar10")]
    assert params == [14_592, 30_880, 15_456, 460_992, 37_056, 37_056, 331_968, 37_056, 1_930]


def test_kernels_and_widths_of_the_imagenet_net():
    assert [(conv.kernel_size[0], conv.out_channels) for conv in convolutions("nin")] == [
        *((11, 96), (1, 96), (1, 96)),
        *((5, 256), (1, 256), (1, 256)),
        *((3, 384), (1, 384), (1, 384)),
        *((3, 1024), (1, 1024), (1, 1000)),
    ]


@torch.no_grad()
def test_logit_is_the_mean_of_its_class_map_after_relu():
    torch.manual_seed(0)
    net = cnnzoo.create("nin_cifar10").eval()
    x = torch.randn(2, 3, 32, 32)
    maps = net.classifier(net.forward_features(x))
    assert maps.shape == (2, 10, 8, 8)
    assert maps.min() < 0
    assert torch.allclose(net(x), maps.clamp(min=0).mean(dim=(2, 3)))


@pytest.mark.parametrize(("name", "many"), [("nin", 1), ("nin_cifar10", 2)])
def test_dropout_stands_between_the_blocks(name, many):
    assert [module.p for module in on_meta(name).modules() if isinstance(module, nn.Dropout)] == [0.5] * many
