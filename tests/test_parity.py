"""torchvision's nets and ours are the same: state dicts travel both ways, and numbers agree to the last bit."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

import cnnzoo

ALEXNET_VGG = ["alexnet", *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn"))]
RESNET = [f"resnet{depth}" for depth in (18, 34, 50, 101, 152)]


def disturbed(name):
    """A torchvision net with random weights that keep the signal alive, and BatchNorms that are not the identity."""
    torch.manual_seed(0)
    net = torchvision.models.get_model(name, **({"init_weights": False} if name.startswith("vgg") else {}))
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.1)
            elif isinstance(module, nn.Conv2d | nn.Linear) and name in ALEXNET_VGG:
                module.weight.mul_(6**0.5)  # PyTorch's uniform initialisation to He's variance
    return net.eval()


def on_weights_of(other, build):
    """What `build` makes, on the very tensors of another net; every name and shape must match."""
    with torch.device("meta"):
        net = build()
    assert list(net.state_dict()) == list(other.state_dict())
    net.load_state_dict(other.state_dict(), strict=True, assign=True)
    return net.train(other.training)


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=ALEXNET_VGG + RESNET)
def pair(request, images):
    theirs = disturbed(request.param)
    ours = on_weights_of(theirs, lambda: cnnzoo.create(request.param))
    with torch.no_grad():
        return SimpleNamespace(name=request.param, ours=ours, theirs=theirs, logits=theirs(images))


@torch.no_grad()
def test_their_weights_give_their_logits(pair, images):
    assert pair.logits.isfinite().all()
    assert not torch.equal(pair.logits[0], pair.logits[1])
    assert (pair.ours(images) - pair.logits).abs().max().item() == 0.0


@torch.no_grad()
def test_our_weights_give_the_same_logits_there(pair, images):
    theirs = on_weights_of(pair.ours, lambda: torchvision.models.get_model(pair.name))
    assert (theirs(images) - pair.logits).abs().max().item() == 0.0


def gradients(net, images):
    torch.manual_seed(3)
    loss = nn.functional.cross_entropy(net(images), torch.tensor([1, 2]))
    return dict(zip(dict(net.named_parameters()), torch.autograd.grad(loss, list(net.parameters())), strict=True))


@pytest.mark.parametrize("pair", ["alexnet", "vgg11", "vgg11_bn", "resnet18", "resnet50"], indirect=True)
def test_gradients_agree_exactly(pair, images):
    expected, got = gradients(pair.theirs, images), gradients(pair.ours, images)
    assert list(got) == list(expected)
    assert [name for name in got if not expected[name].any()] == []
    assert {name: (got[name] - expected[name]).abs().max().item() for name in got} == dict.fromkeys(got, 0.0)


@pytest.mark.parametrize("name", ["alexnet", "vgg11_bn", "resnet18"])
def test_training_agrees_exactly(name, images):
    theirs = disturbed(name).train()
    ours = on_weights_of(copy.deepcopy(theirs), lambda: cnnzoo.create(name))
    expected, got = gradients(theirs, images), gradients(ours, images)
    assert {own: (got[own] - expected[own]).abs().max().item() for own in got} == dict.fromkeys(got, 0.0)
    statistics = dict(theirs.named_buffers())
    assert all(torch.equal(buffer, statistics[own]) for own, buffer in ours.named_buffers())
