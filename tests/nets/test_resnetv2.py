"""Pre-activation ResNet: where the shortcuts start, where the strides are, timm's head."""

import pytest
import torch
from torch import nn
from zoo_cases import on_meta

import cnnzoo
from cnnzoo.models.resnetv2 import Linear1x1, PreActBlock, bare_projection


@pytest.mark.parametrize(("name", "strides"), [("resnetv2_50", (1, 2, 1)), ("preresnet164", (2, 1, 1))])
def test_bottleneck_halves_the_size_where_its_source_does(name, strides):
    net = on_meta(name)
    block = net.stages[1].blocks[0] if name == "resnetv2_50" else net.layer2[0]
    assert tuple(conv.stride[0] for conv in (block.conv1, block.conv2, block.conv3)) == strides


def test_preresnet164_without_batch_norms_has_the_papers_parameters():
    layers = [module for module in on_meta("preresnet164").modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert sum(p.numel() for layer in layers for p in layer.parameters()) == 1_679_034


@torch.no_grad()
@pytest.mark.parametrize(("width", "stride", "changes"), [(16, 1, False), (32, 1, True), (16, 2, True)])
def test_shortcut_is_the_identity_or_a_bare_convolution_of_the_activated_input(width, stride, changes):
    torch.manual_seed(0)
    x = torch.randn(2, 16, 8, 8)
    block = PreActBlock(16, width, stride, bare_projection(16, width, stride)).eval()
    nn.init.zeros_(block.conv2.weight)
    expected = block.downsample.conv(block.relu1(block.norm1(x))) if changes else x
    assert torch.equal(block(x), expected)
    assert [name for name, _ in block.named_parameters() if "downsample" in name] == [
        "downsample.conv.weight"
    ] * changes


@torch.no_grad()
def test_first_unit_of_preresnet110_activates_before_the_paths_part():
    torch.manual_seed(0)
    net, x = cnnzoo.create("preresnet110").eval(), torch.randn(2, 16, 8, 8)
    first, second = net.layer1[0], net.layer1[1]
    for block in (first, second):
        nn.init.zeros_(block.conv2.weight)
    assert torch.equal(first(x), first.relu1(first.norm1(x)))
    assert torch.equal(second(x), x)


@torch.no_grad()
def test_option_a_subsamples_the_activated_input_and_appends_zeros():
    torch.manual_seed(0)
    block, x = cnnzoo.create("preresnet110").eval().layer2[0], torch.randn(2, 16, 8, 8)
    nn.init.zeros_(block.conv2.weight)
    y = block(x)
    assert torch.equal(y[:, :16], block.relu1(block.norm1(x))[:, :, ::2, ::2])
    assert torch.equal(y[:, 16:], torch.zeros(2, 16, 4, 4))


def test_head_is_stored_as_timms_1x1_convolution():
    net = on_meta("resnetv2_50", num_classes=7)
    assert cnnzoo.info("resnetv2_50").head == "head.fc"
    assert net.get_classifier() is net.head.fc
    assert net.head.fc.weight.shape == (7, 2048, 1, 1)
    net.reset_classifier(5)
    assert net.head.fc.weight.shape == (5, 2048, 1, 1)
    net.reset_classifier(0)
    assert isinstance(net.head.fc, nn.Identity)


@torch.no_grad()
def test_head_is_a_linear_layer():
    torch.manual_seed(0)
    ours, linear, x = Linear1x1(48, 10), nn.Linear(48, 10), torch.randn(4, 48)
    torch.manual_seed(1)
    ours.reset_parameters()
    torch.manual_seed(1)
    linear.reset_parameters()
    assert torch.equal(ours.weight.flatten(1), linear.weight)
    assert torch.equal(ours.bias, linear.bias)
    assert torch.allclose(ours(x), linear(x), atol=1e-6)


@pytest.mark.parametrize("name", ["resnetv2_50", "preresnet110"])
def test_drop_path_deepens_to_its_rate(name):
    rates = [
        module.drop_path.rate for module in on_meta(name, drop_path_rate=0.5).modules() if hasattr(module, "conv2")
    ]
    assert rates == pytest.approx([0.5 * block / len(rates) for block in range(1, len(rates) + 1)])
