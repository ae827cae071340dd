"""Inception v3."""

import pytest
import torch
from torch import nn

import cnnzoo


def on_meta(**options):
    with torch.device("meta"):
        return cnnzoo.create("inception_v3", **options)


def images(side):
    return torch.empty(2, 3, side, side, device="meta")


def test_94_convolutions_classify():
    net = on_meta(aux_logits=False)
    assert sum(isinstance(module, nn.Conv2d) for module in net.modules()) == 94


def test_auxiliary_head_sees_the_last_17x17_maps():
    net, seen = on_meta(), []
    net.Mixed_6e.register_forward_hook(lambda _, args, output: seen.append(output))
    net.AuxLogits.register_forward_hook(lambda _, args, output: seen.extend([args[0], output]))
    logits, aux = net(images(299))
    assert logits.shape == aux.shape == (2, 1000)
    assert seen[0] is seen[1]
    assert seen[0].shape == (2, 768, 17, 17)
    assert seen[2] is aux


@pytest.mark.parametrize("side", [75, 224, 298, 400])
def test_auxiliary_head_trains_on_any_size(side):
    assert [output.shape for output in on_meta()(images(side))] == [(2, 1000)] * 2


def test_auxiliary_head_averages_windows_of_5_that_are_3_apart():
    x = torch.rand(2, 3, 17, 17, generator=torch.Generator().manual_seed(0))
    at = (0, 3, 6, 9, 12)
    by_hand = torch.stack([x[:, :, i : i + 5, j : j + 5].mean((2, 3)) for i in at for j in at], 2)
    assert torch.allclose(on_meta().AuxLogits.pool(x).flatten(2), by_hand, atol=1e-6)


def test_auxiliary_head_averages_smaller_maps_evenly():
    x = torch.rand(2, 3, 10, 15, generator=torch.Generator().manual_seed(0))
    by_hand = x.reshape(2, 3, 5, 2, 5, 3).mean((3, 5))
    assert torch.allclose(on_meta().AuxLogits.pool(x), by_hand, atol=1e-6)


def test_one_output_in_eval_mode_and_without_the_auxiliary_head():
    assert on_meta().eval()(images(96)).shape == (2, 1000)
    assert on_meta(aux_logits=False)(images(96)).shape == (2, 1000)


def test_auxiliary_head_changes_its_classes_with_the_head():
    net = on_meta()
    net.reset_classifier(7)
    assert [output.shape for output in net(images(96))] == [(2, 7)] * 2
    net.reset_classifier(0)
    assert net(images(96)).shape == (2, 2048)


@pytest.mark.parametrize("block", ["Mixed_5b", "Mixed_5d", "Mixed_6b", "Mixed_6e", "Mixed_7b", "Mixed_7c"])
def test_average_pooling_counts_the_padding(block):
    pooled = on_meta().get_submodule(block).pool(torch.ones(1, 1, 3, 3))
    expected = torch.tensor([[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]) / 9
    assert torch.allclose(pooled[0, 0], expected)


def test_first_weights_are_smaller_in_the_auxiliary_head():
    torch.manual_seed(0)
    net = cnnzoo.create("inception_v3")
    small = {"AuxLogits.conv1.conv": 0.01, "AuxLogits.fc": 0.001}
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.weight.std().item() == pytest.approx(small.get(name, 0.1), rel=0.1)
