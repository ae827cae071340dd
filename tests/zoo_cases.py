"""Which nets the contract is tested with."""

import inspect
from collections import defaultdict

import torch
from torch import nn

import cnnzoo
from cnnzoo import registry

ALL = cnnzoo.list_models()
SPATIAL = [name for name in ALL if any(len(stage.shape) == 3 for stage in cnnzoo.info(name).stages)]
AUX = [name for name in ALL if cnnzoo.info(name).aux]


def _smallest_of_each_file():
    files = defaultdict(list)
    for name in ALL:
        files[registry.home(cnnzoo.info(name).build)].append(name)
    return {min(names, key=lambda name: cnnzoo.info(name).macs) for names in files.values()}


# What takes options, or values: the smallest of each file, and what differs from it in kind.
SMALL = sorted(_smallest_of_each_file() | {"lenet5_1998", "resnet18", "resnet20", "resnet50", "resnetv2_50"})

# One of each family, for what takes long: without further ones of a file, and without a hundred and more layers.
FAMILIES = [name for name in SMALL if name not in ("resnet18", "resnet50", "resnetv2_50", "preresnet164")]


def takes(name, argument):
    """Whether a net's builder has such an argument."""
    return argument in inspect.signature(cnnzoo.info(name).build).parameters


def side_of(entry, least):
    """The side of an image that a net takes quickly: its own, or the least that is given and that its layers allow."""
    own = entry.input_size[1]
    return own if own <= 32 else max(entry.min_size, least)


def small(name):
    """A net with few classes and few hidden units, and a small image."""
    torch.manual_seed(0)
    with torch.device("meta"):
        net = cnnzoo.create(name, num_classes=5)
    narrow(net)
    net.to_empty(device="cpu").init_weights()
    side = side_of(net.entry, 48)
    return net, torch.rand(1, net.in_chans, side, side) * 4 - 2


def narrow(net):
    """Of the 4,096 units in AlexNet's and VGG's hidden layers, leave 64: most of the nets' values belong to them, and
    show no more than so few do.
    """
    for name, layer in [*net.named_modules()]:
        if isinstance(layer, nn.Linear) and 4096 in (layer.in_features, layer.out_features):
            sizes = (64 if size == 4096 else size for size in (layer.in_features, layer.out_features))
            net.set_submodule(name, nn.Linear(*sizes, device="meta"))


def count(module):
    """The parameters of a net, or of a part of it."""
    return sum(p.numel() for p in module.parameters())


def on_meta(name, **options):
    """A net without values, in eval mode."""
    with torch.device("meta"):
        return cnnzoo.create(name, **options).eval()
