"""Wide ResNet: widths, convolutions, dropout inside the blocks."""

from collections import Counter

import pytest
import torch
from torch import nn
from zoo_cases import count, on_meta

import cnnzoo
from cnnzoo.models.wide_resnet import WideBlock, WideResNet


@pytest.mark.parametrize(
    ("depth", "k", "params"),
    [(16, 4, 2_748_890), (16, 8, 10_961_370), (22, 8, 17_158_106), (28, 12, 52_517_850), (40, 10, 55_841_754)],
)
def test_depth_is_6n_plus_4(depth, k, params):
    with torch.device("meta"):
        assert count(WideResNet(n=(depth - 4) // 6, k=k)) == params


def test_wrn_28_has_28_convolutions_three_of_them_shortcuts():
    net = on_meta("wrn_28_10")
    kernels = Counter(module.kernel_size for module in net.modules() if isinstance(module, nn.Conv2d))
    assert kernels == {(3, 3): 25, (1, 1): 3}


def test_the_3x3_of_an_imagenet_block_is_twice_as_wide_and_its_output_is_not():
    block, plain = (on_meta(name).layer2[0] for name in ("wide_resnet50_2", "resnet50"))
    assert block.conv2.weight.shape == (256, 256, 3, 3)
    assert block.conv3.out_channels == plain.conv3.out_channels == 512


@torch.no_grad()
def test_dropout_stands_before_the_second_convolution_only():
    torch.manual_seed(0)
    net = cnnzoo.create("wrn_16_4", drop_rate=0.3)
    dropouts = [name for name, module in net.named_modules() if isinstance(module, nn.Dropout)]
    assert dropouts == [f"layer{stage}.{block}.dropout" for stage in (1, 2, 3) for block in (0, 1)]
    block, seen = net.layer1[1], {}
    for name in ("relu2", "conv2"):
        module = block.get_submodule(name)
        module.register_forward_hook(lambda module, args, out, name=name: seen.update({name: (args[0], out)}))
    block.train()(torch.randn(8, 64, 8, 8))
    before, after = seen["relu2"][1], seen["conv2"][0]
    dropped = (after == 0) & (before > 0)
    assert 0.25 < dropped.sum() / (before > 0).sum() < 0.35
    assert torch.allclose(after[~dropped], before[~dropped] / 0.7)


@torch.no_grad()
def test_shortcut_is_a_bare_convolution_of_the_activated_input_where_the_shape_changes():
    torch.manual_seed(0)
    x = torch.randn(2, 16, 8, 8)
    for width, stride in ((16, 1), (32, 1), (16, 2)):
        block = WideBlock(16, width, stride, drop_rate=0.0, drop_path=0.0).eval()
        nn.init.zeros_(block.conv2.weight)
        expected = x if (width, stride) == (16, 1) else block.shortcut(block.relu1(block.norm1(x)))
        assert torch.equal(block(x), expected)
    assert block.shortcut.bias is None


def test_drop_path_deepens_to_its_rate():
    net = on_meta("wrn_16_4", drop_path_rate=0.6)
    rates = [block.drop_path.rate for layer in (net.layer1, net.layer2, net.layer3) for block in layer]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
