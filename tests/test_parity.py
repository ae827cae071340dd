"""torchvision's and timm's nets and ours are the same: state dicts travel both ways, and numbers agree to the last bit,
those of auxiliary heads too.
"""

import copy
from functools import cache
from types import SimpleNamespace

import pytest
import timm
import torch
import torchvision
from torch import nn

import cnnzoo

ALEXNET_VGG = ["alexnet", *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn"))]
RESNET = [f"resnet{depth}" for depth in (18, 34, 50, 101, 152)]
RESNET_LIKE = [
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
]
DENSENET = [f"densenet{depth}" for depth in (121, 161, 169, 201)]

# ours: how theirs is made, and an image's side
TORCHVISION = {
    **dict.fromkeys([*ALEXNET_VGG, *RESNET, *RESNET_LIKE, *DENSENET, "squeezenet1_0", "squeezenet1_1"], 64),
    "googlenet": 64,
    "inception_v3": 96,
}
TIMM = {
    "inception_v4": ("inception_v4", 96),
    "inception_resnet_v2": ("inception_resnet_v2", 96),
    "xception": ("legacy_xception", 96),
    **{f"resnetv2_{depth}": (f"resnetv2_{depth}", 64) for depth in (50, 101, 152)},
}
IN_TRAINING = {"inception_v3": 299}  # the least size that its auxiliary head takes
# The smallest of each paper: what takes a backward pass.
SMALL = [
    *("alexnet", "vgg11", "squeezenet1_1", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"),
    *("densenet121", "googlenet", "inception_v3", "inception_v4", "inception_resnet_v2", "xception", "resnetv2_50"),
]


def theirs_called(name):
    """The other library's net, without values."""
    with torch.device("meta"):
        if name in TIMM:
            return timm.create_model(TIMM[name][0])
        options = {"init_weights": False} if name.startswith(("vgg", "googlenet", "inception")) else {}  # or it warns
        return torchvision.models.get_model(name, **options)


@cache
def noise():
    return torch.randn(2**21, generator=torch.Generator().manual_seed(0))


def fill(weight, std):
    """Fill with a piece of the noise, over and over: drawing as much anew would be most of what these tests take."""
    start = torch.randint(len(noise()) // 2, ()).item()
    for part in weight.view(-1).split(len(noise()) // 2):
        torch.mul(noise()[start : start + len(part)], std, out=part)


def disturbed(name):
    """Theirs, with random weights that keep the signal alive, and BatchNorms that are not the identity."""
    torch.manual_seed(0)
    net = theirs_called(name).to_empty(device="cpu")
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.num_batches_tracked.zero_()
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.1)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                fill(module.weight, std=(2 / module.weight[0].numel()) ** 0.5)
                if module.bias is not None:
                    module.bias.normal_(std=0.01)
    return net.eval()


def on_weights_of(other, build):
    """What `build` makes, on the very tensors of another net; every name and shape must match, either way."""
    with torch.device("meta"):
        net = build()
    net.load_state_dict(other.state_dict(), strict=True, assign=True)
    given, taken = ([(name, tensor.data_ptr()) for name, tensor in each.state_dict().items()] for each in (other, net))
    assert given == taken
    return net.train(other.training)


def images_for(name, side=None):
    side = side or (TIMM[name][1] if name in TIMM else TORCHVISION[name])
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def outputs(net, images):
    """Logits and auxiliary outputs, nearest the image first, in ours and theirs alike."""
    given = net(images)
    if isinstance(given, torch.Tensor):
        return [given]
    logits, *aux = given
    return [logits, *(aux if type(given) is tuple else aux[::-1])]  # torchvision's GoogLeNet tells them backwards


def difference(one, other):
    return max((a - b).abs().max().item() for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module", params=[*TORCHVISION, *TIMM])
def pair(request):
    name = request.param
    theirs, images = disturbed(name), images_for(name)
    ours = on_weights_of(theirs, lambda: cnnzoo.create(name))
    with torch.no_grad():
        return SimpleNamespace(name=name, ours=ours, theirs=theirs, images=images, logits=theirs(images))


@torch.no_grad()
def test_their_weights_give_their_logits(pair):
    assert pair.logits.isfinite().all()
    assert not torch.equal(pair.logits[0], pair.logits[1])
    assert (pair.ours(pair.images) - pair.logits).abs().max().item() == 0.0


def gradients(net, images):
    """Of the loss of all outputs, and the outputs themselves."""
    torch.manual_seed(3)
    given = outputs(net, images)
    loss = sum(nn.functional.cross_entropy(logits, torch.tensor([1, 2])) for logits in given)
    used = {name: p for name, p in net.named_parameters() if net.training or not name.lower().startswith("aux")}
    return dict(zip(used, torch.autograd.grad(loss, list(used.values())), strict=True)), given


@pytest.mark.parametrize("name", SMALL)
def test_training_agrees_exactly(name):
    images = images_for(name, IN_TRAINING.get(name))
    theirs = disturbed(name).train()
    ours = on_weights_of(copy.deepcopy(theirs), lambda: cnnzoo.create(name))
    (expected, their_outputs), (got, our_outputs) = gradients(theirs, images), gradients(ours, images)
    assert difference(our_outputs, their_outputs) == 0.0
    assert {own: (got[own] - expected[own]).abs().max().item() for own in got} == dict.fromkeys(got, 0.0)
    statistics = dict(theirs.named_buffers())
    assert all(torch.equal(buffer, statistics[own]) for own, buffer in ours.named_buffers())
