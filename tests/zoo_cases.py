"""Which nets the contract is tested with."""

import inspect
from collections import defaultdict

import torch

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
    """A net with few classes, and a small image."""
    torch.manual_seed(0)
    net = cnnzoo.create(name, num_classes=5)
    side = side_of(net.entry, 48)
    return net, torch.rand(1, net.in_chans, side, side) * 4 - 2


def on_meta(name, **options):
    """A net without values, in eval mode."""
    with torch.device("meta"):
        return cnnzoo.create(name, **options).eval()
