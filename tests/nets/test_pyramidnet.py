"""PyramidNet: widths, one ReLU a unit, shortcuts without parameters."""

import pytest
import torch
from torch import nn
from zoo_cases import on_meta

import cnnzoo
from cnnzoo.models.pyramidnet import PyramidBlock, PyramidShortcut

NAMES = {f"pyramidnet110_a{alpha}": alpha for alpha in (48, 84, 270)}


def units(net):
    return [*net.layer1, *net.layer2, *net.layer3]


@pytest.mark.parametrize(("name", "alpha"), NAMES.items())
def test_widths_are_those_of_the_authors_running_sum(name, alpha):
    widths, running = [], 16.0
    for _ in range(54):
        running += alpha / 54
        widths.append(int(running + 0.5))
    assert [unit.conv1.out_channels for unit in units(on_meta(name))] == widths
    assert widths[-1] == 16 + alpha


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("pyramidnet110_a48", [32, 48, 64]),
        ("pyramidnet110_a84", [44, 72, 100]),
        ("pyramidnet110_a270", [106, 196, 286]),
    ],
)
def test_stages_end_in_the_papers_widths(name, widths):
    assert [stage.shape[0] for stage in cnnzoo.info(name).stages[1:]] == widths


def test_110_layers():
    layers = [module for module in on_meta("pyramidnet110_a48").modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 110


def test_a_unit_is_bn_conv_bn_relu_conv_bn():
    with torch.device("meta"):
        unit = PyramidBlock(16, 17, stride=1, drop_path=0.0)
    ran = []
    for name, module in unit.named_children():
        module.register_forward_hook(lambda module, args, output, name=name: ran.append(name))
    unit(torch.empty(2, 16, 8, 8, device="meta"))
    assert ran == ["shortcut", "bn1", "conv1", "bn2", "relu", "conv2", "bn3", "drop_path"]


@torch.no_grad()
def test_no_relu_behind_the_sum():
    torch.manual_seed(0)
    unit, x = PyramidBlock(16, 19, stride=1, drop_path=0.0).eval(), torch.randn(2, 16, 8, 8)
    nn.init.zeros_(unit.bn3.weight)
    y = unit(x)
    assert torch.equal(y[:, :16], x)
    assert torch.equal(y[:, 16:], torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("side", [8, 7])
def test_shortcut_averages_2x2_and_appends_zeros(side):
    shortcut, x = PyramidShortcut(new_channels=2, stride=2), torch.arange(side * side).view(1, 1, side, side).float()
    y = shortcut(x)
    assert y.shape == (1, 3, 4, 4)
    assert y[0, 0, 0, 0] == x[0, 0, :2, :2].mean()
    assert y[0, 0, 3, 3] == x[0, 0, 6:, 6:].mean()  # at an odd edge, of what is there
    assert torch.equal(y[:, 1:], torch.zeros(1, 2, 4, 4))
    assert list(shortcut.parameters()) == []


def test_drop_path_deepens_to_its_rate():
    rates = [unit.drop_path.rate for unit in units(on_meta("pyramidnet110_a48", drop_path_rate=0.54))]
    assert rates == pytest.approx([unit / 100 for unit in range(1, 55)])
