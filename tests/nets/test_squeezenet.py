"""SqueezeNet: its fire modules and its start."""

import pytest
import torch
from zoo_cases import count, on_meta

import cnnzoo
from cnnzoo.models.squeezenet import Fire


@pytest.mark.parametrize(
    ("name", "params"),
    [  # Table 1 of the paper; the later version has the same modules
        ("squeezenet1_0", [11_920, 12_432, 45_344, 49_440, 104_880, 111_024, 188_992, 197_184]),
        ("squeezenet1_1", [11_408, 12_432, 45_344, 49_440, 104_880, 111_024, 188_992, 197_184]),
    ],
)
def test_parameters_of_the_fire_modules(name, params):
    assert [count(module) for module in on_meta(name).modules() if isinstance(module, Fire)] == params


@torch.no_grad()
def test_fire_expands_side_by_side():
    fire = Fire(8, width=2)
    x = torch.randn(1, 8, 5, 5)
    squeezed = fire.squeeze(x).relu()
    narrow, wide = fire(x).split(8, dim=1)
    assert torch.equal(narrow, fire.expand1x1(squeezed).relu())
    assert torch.equal(wide, fire.expand3x3(squeezed).relu())


def test_head_starts_narrow_and_all_other_weights_uniform():
    torch.manual_seed(0)
    net = cnnzoo.create("squeezenet1_1")
    assert net.get_classifier().weight.std().item() == pytest.approx(0.01, rel=0.01)
    for name, p in net.named_parameters():
        if name.endswith("bias"):
            assert not p.any()
        elif not name.startswith(net.head_name):
            bound = (6 / p[0].numel()) ** 0.5  # He: a variance of 2 / inputs
            assert 0.97 * bound < p.max() <= bound


@torch.no_grad()
def test_pre_logits_is_the_mean_of_the_heads_input():
    net = cnnzoo.create("squeezenet1_1").eval()
    f = net.forward_features(torch.randn(2, 3, 64, 64))
    assert torch.allclose(net.forward_head(f, pre_logits=True), f.mean(dim=(2, 3)), atol=1e-6)
