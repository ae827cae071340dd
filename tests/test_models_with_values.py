"""The contract every net keeps, with values: the smallest net of each file, and what differs from it in kind."""

import os

import pytest
import torch
from torch import nn
from zoo_cases import AUX, FAMILIES, SMALL, on_meta, takes

import cnnzoo
from cnnzoo.config import LossConfig
from cnnzoo.train import losses


# vgg11's 133 million values take 20 s and show nothing that AlexNet's do not; test_parity compares them with others'.
@pytest.fixture(scope="module", params=[name for name in SMALL if name != "vgg11"])
def net(request):
    torch.manual_seed(0)
    return cnnzoo.create(request.param, **without_chance(request.param))


def without_chance(name):
    return {key: 0.0 for key in ("drop_rate", "drop_path_rate") if takes(name, key)}


@pytest.fixture
def images(net):
    channels, height, _ = net.entry.input_size
    side = height if height <= 32 else max(net.entry.min_size, 96)
    return torch.randn(4, channels, side, side, generator=torch.Generator().manual_seed(1))


def the_same(net, **options):
    """The same net on the same weights, built with other options."""
    other = on_meta(net.entry.name, **{**without_chance(net.entry.name), **options})
    other.load_state_dict(net.state_dict(), assign=True)
    return other


def first(outputs):
    return outputs if isinstance(outputs, torch.Tensor) else outputs[0]


@torch.no_grad()
def test_eval_is_deterministic_and_gives_one_tensor(net, images):
    net.eval()
    logits = net(images)
    assert type(logits) is torch.Tensor
    assert logits.shape == (4, net.num_classes)
    assert logits.isfinite().all()
    assert torch.equal(logits, net(images))


@torch.no_grad()
def test_forward_is_head_of_features(net, images):
    net.eval()
    maps, logits = net.forward_features(images), net(images)
    assert torch.equal(logits, net.forward_head(maps))
    if isinstance(net.get_classifier(), nn.Linear):  # a convolution as a head stands before the pooling
        assert torch.equal(logits, net.get_classifier()(net.forward_head(maps, pre_logits=True)))


@torch.no_grad()
@pytest.mark.parametrize("rate", ["drop_rate", "drop_path_rate"])
def test_drop_rates_act_in_train_mode_only(net, images, rate):
    if not takes(net.entry.name, rate) or (net.entry.name.startswith("plain") and rate == "drop_path_rate"):
        pytest.skip(f"{net.entry.name} has no {rate}")
    dropping = the_same(net, **{rate: 0.5})
    assert torch.equal(dropping.eval()(images), net.eval()(images))
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    torch.manual_seed(2)
    kept = first(net.train()(images))
    net.load_state_dict(state)  # the statistics are as before
    torch.manual_seed(2)
    assert not torch.equal(first(dropping.train()(images)), kept)


def test_one_step_lowers_the_nets_own_loss_and_every_parameter_has_a_gradient(net, images):
    if (
        images.shape[-1] < 128 <= net.entry.input_size[1]
    ):  # or the last maps are a place or two: nothing to normalise by
        images = torch.randn(4, images.shape[1], 160, 160, generator=torch.Generator().manual_seed(1))
    if net.entry.aux:  # whose heads want larger maps
        images = torch.randn(4, *net.entry.input_size, generator=torch.Generator().manual_seed(1))
    net.train()
    loss = losses.build(LossConfig(), own=net.entry.loss)
    targets = torch.arange(4)
    before = loss(net(images), targets)
    before.backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    gradients = [p.grad.norm() for p in net.parameters()]
    step = 1e-3 / max(1.0, torch.stack(gradients).norm().item())
    torch.optim.SGD(net.parameters(), lr=step).step()
    with torch.no_grad():
        after = loss(net(images), targets)
    net.zero_grad()
    assert after < before


def skip_if_long_to_trace(net):
    is_deep = sum(1 for _ in net.modules()) > 150
    if (is_deep or net.entry.name not in FAMILIES) and "CNNZOO_SLOW" not in os.environ:
        pytest.skip("many layers take long to trace, and one net of a family is enough; CNNZOO_SLOW=1 does all")


def test_torch_export_takes_it(net, images):
    skip_if_long_to_trace(net)
    net.eval()
    program = torch.export.export(net, (images,))
    with torch.no_grad():
        assert torch.equal(program.module()(images), net(images))


@torch.no_grad()
def test_torch_compile_takes_it_whole(net, images):
    skip_if_long_to_trace(net)
    net.eval()
    torch.compiler.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.equal(compiled(images), net(images))


def test_a_seed_decides_every_first_value(net):
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        states.append(cnnzoo.create(net.entry.name).state_dict())
    assert all(tensor.isfinite().all() for tensor in states[0].values())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


@torch.no_grad()
def test_weights_of_colour_see_a_grey_image_alike_through_one_channel(net, images, tmp_path):
    channels, entry = net.entry.input_size[0], net.entry
    if channels == 1:
        pytest.skip("its own weights are of one channel")
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    other = cnnzoo.create(entry.name, tmp_path / "weights.pth", in_chans=1).eval()
    assert f"{entry.first_conv}.weight" in other.load_report.adapted
    grey = images[:, :1]
    expected = net.eval()(grey.expand(-1, channels, -1, -1))
    assert ((other(grey) - expected).abs().max() / expected.abs().max()).item() < 1e-3


@torch.no_grad()
def test_weights_of_three_channels_repeat_in_more_at_the_same_strength(net, images, tmp_path):
    given, in_chans = net.entry.input_size[0], 13
    kernel = net.get_submodule(net.entry.first_conv).weight
    if kernel.ndim < 4:
        pytest.skip("no convolution sees the image")
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    other = cnnzoo.create(net.entry.name, tmp_path / "weights.pth", in_chans=in_chans).eval()
    adapted = other.get_submodule(net.entry.first_conv).weight
    expected = torch.stack([kernel[:, c % given] for c in range(in_chans)], dim=1) * (given / in_chans)
    torch.testing.assert_close(adapted, expected)
    assert other(images[:, :1].expand(-1, in_chans, -1, -1)).isfinite().all()


@pytest.mark.parametrize("name", AUX)
@pytest.mark.parametrize("saved_with", [True, False])
@pytest.mark.parametrize("built_with", [True, False])
@pytest.mark.parametrize("num_classes", [None, 5])
def test_any_weights_go_with_any_auxiliary_heads_and_classes(name, saved_with, built_with, num_classes, tmp_path):
    saved = cnnzoo.create(name, aux_logits=saved_with)
    torch.save(saved.state_dict(), tmp_path / "weights.pth")
    net = cnnzoo.create(name, tmp_path / "weights.pth", aux_logits=built_with, num_classes=num_classes)
    report, aux = net.load_report, tuple(cnnzoo.info(name).aux)
    assert torch.equal(net.get_submodule(net.entry.first_conv).weight, saved.get_submodule(net.entry.first_conv).weight)
    assert bool(report.unused) == (saved_with and not built_with)
    assert any(key.startswith(aux) for key in report.initialised) == (
        built_with and not (saved_with and not num_classes)
    )
    assert any(key.startswith("fc.") for key in report.initialised) == bool(num_classes)
    assert all(tensor.isfinite().all() for tensor in net.state_dict().values())
