"""The contract every net keeps, with values: the smallest net of each file, and what differs from it in kind."""

import os

import pytest
import torch
from torch import nn
from zoo_cases import AUX, FAMILIES, SMALL, on_meta, side_of, takes

import cnnzoo
from cnnzoo.config import LossConfig
from cnnzoo.train import losses


# vgg11's 133 million values take 20 s and show nothing that AlexNet's do not; test_parity compares them with others'.
@pytest.fixture(scope="module", params=[name for name in SMALL if name != "vgg11"])
def net(request):
    """In eval mode; what changes a net asks for another on a copy of its weights."""
    torch.manual_seed(0)
    return cnnzoo.create(request.param, **without_chance(request.param)).eval()


def without_chance(name):
    return {key: 0.0 for key in ("drop_rate", "drop_path_rate") if takes(name, key)}


def noise(net, number, side):
    side = side_of(net.entry, side)
    return torch.randn(number, net.entry.input_size[0], side, side, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def images(net):
    return noise(net, 2, 64)


@pytest.fixture(scope="module")
def logits(net, images):
    with torch.no_grad():
        return net(images)


@pytest.fixture(scope="module")
def in_training(net, images):
    """What the net gives in train mode."""
    return trained_on(the_same(net), images)


@torch.no_grad()
def trained_on(net, images):
    torch.manual_seed(2)
    outputs = net.train()(images)
    return outputs if isinstance(outputs, torch.Tensor) else outputs[0]


@pytest.fixture(scope="module")
def saved(net, tmp_path_factory):
    """The file of its weights."""
    file = tmp_path_factory.mktemp("saved") / "weights.pth"
    torch.save(net.state_dict(), file)
    yield file
    file.unlink()


def the_same(net, **options):
    """The same net on a copy of the weights, built with other options."""
    other = on_meta(net.entry.name, **{**without_chance(net.entry.name), **options})
    other.load_state_dict({name: tensor.clone() for name, tensor in net.state_dict().items()}, assign=True)
    return other


@torch.no_grad()
def test_eval_is_deterministic_and_gives_one_tensor(net, images, logits):
    assert type(logits) is torch.Tensor
    assert logits.shape == (2, net.num_classes)
    assert logits.isfinite().all()
    assert torch.equal(logits, net(images))


@torch.no_grad()
def test_forward_is_head_of_features(net, images, logits):
    maps = net.forward_features(images)
    assert torch.equal(logits, net.forward_head(maps))
    if isinstance(net.get_classifier(), nn.Linear):  # a convolution as a head stands before the pooling
        assert torch.equal(logits, net.get_classifier()(net.forward_head(maps, pre_logits=True)))


@torch.no_grad()
@pytest.mark.parametrize("rate", ["drop_rate", "drop_path_rate"])
def test_drop_rates_act_in_train_mode_only(net, images, logits, in_training, rate):
    if not takes(net.entry.name, rate) or (net.entry.name.startswith("plain") and rate == "drop_path_rate"):
        pytest.skip(f"{net.entry.name} has no {rate}")
    dropping = the_same(net, **{rate: 0.5})
    assert torch.equal(dropping(images), logits)
    assert not torch.equal(trained_on(dropping, images), in_training)


def test_one_step_lowers_the_nets_own_loss_and_every_parameter_has_a_gradient(net):
    net = the_same(net).train()
    # Inceptions' last maps are otherwise a place or two: nothing to normalise by.
    images = noise(net, 4, 160 if net.entry.input_size[1] == 299 else 96)
    loss = losses.build(LossConfig(), own=net.entry.loss)
    targets = torch.arange(4)
    before = loss(net(images), targets)
    before.backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    gradients = [p.grad.norm() for p in net.parameters()]
    step = 1e-3 / max(1.0, torch.stack(gradients).norm().item())
    torch.optim.SGD(net.parameters(), lr=step).step()
    with torch.no_grad():
        assert loss(net(images), targets) < before


def skip_if_long_to_trace(net):
    is_deep = sum(1 for _ in net.modules()) > 150
    if (is_deep or net.entry.name not in FAMILIES) and "CNNZOO_SLOW" not in os.environ:
        pytest.skip("many layers take long to trace, and one net of a family is enough; CNNZOO_SLOW=1 does all")


@torch.no_grad()
def test_torch_export_takes_it(net, images, logits):
    skip_if_long_to_trace(net)
    assert torch.equal(torch.export.export(net, (images,)).module()(images), logits)


@torch.no_grad()
def test_torch_compile_takes_it_whole(net, images, logits):
    skip_if_long_to_trace(net)
    torch.compiler.reset()
    assert torch.equal(torch.compile(net, backend="eager", fullgraph=True)(images), logits)


def test_a_seed_decides_every_first_value(net):
    torch.manual_seed(0)
    again = cnnzoo.create(net.entry.name).state_dict()
    assert all(tensor.isfinite().all() for tensor in again.values())
    assert all(torch.equal(tensor, again[name]) for name, tensor in net.state_dict().items())


@torch.no_grad()
def test_weights_of_colour_see_a_grey_image_alike_through_one_channel(net, images, saved):
    channels, entry = net.entry.input_size[0], net.entry
    if channels == 1:
        pytest.skip("its own weights are of one channel")
    other = cnnzoo.create(entry.name, saved, in_chans=1).eval()
    assert f"{entry.first_conv}.weight" in other.load_report.adapted
    grey = images[:, :1]
    expected = net(grey.expand(-1, channels, -1, -1))
    assert ((other(grey) - expected).abs().max() / expected.abs().max()).item() < 1e-3


@torch.no_grad()
def test_weights_of_three_channels_repeat_in_more_at_the_same_strength(net, images, saved):
    given, in_chans = net.entry.input_size[0], 13
    kernel = net.get_submodule(net.entry.first_conv).weight
    if kernel.ndim < 4:
        pytest.skip("no convolution sees the image")
    other = cnnzoo.create(net.entry.name, saved, in_chans=in_chans).eval()
    adapted = other.get_submodule(net.entry.first_conv).weight
    expected = torch.stack([kernel[:, c % given] for c in range(in_chans)], dim=1) * (given / in_chans)
    torch.testing.assert_close(adapted, expected)
    assert other(images[:, :1].expand(-1, in_chans, -1, -1)).isfinite().all()


@pytest.fixture(scope="module", params=[(name, saved_with) for name in AUX for saved_with in (True, False)])
def with_or_without_heads(request, tmp_path_factory):
    """A net with or without its auxiliary heads, and the file of its weights."""
    name, saved_with = request.param
    net, file = cnnzoo.create(name, aux_logits=saved_with), tmp_path_factory.mktemp("saved") / "weights.pth"
    torch.save(net.state_dict(), file)
    yield net, file, saved_with
    file.unlink()


@pytest.mark.parametrize("built_with", [True, False])
@pytest.mark.parametrize("num_classes", [None, 5])
def test_any_weights_go_with_any_auxiliary_heads_and_classes(with_or_without_heads, built_with, num_classes):
    saved, file, saved_with = with_or_without_heads
    net = cnnzoo.create(saved.entry.name, file, aux_logits=built_with, num_classes=num_classes)
    report, aux = net.load_report, tuple(net.entry.aux)
    assert torch.equal(net.get_submodule(net.entry.first_conv).weight, saved.get_submodule(net.entry.first_conv).weight)
    assert bool(report.unused) == (saved_with and not built_with)
    assert any(key.startswith(aux) for key in report.initialised) == (
        built_with and not (saved_with and not num_classes)
    )
    assert any(key.startswith("fc.") for key in report.initialised) == bool(num_classes)
    assert all(tensor.isfinite().all() for tensor in net.state_dict().values())
