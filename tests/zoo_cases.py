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


def on_meta(name, **options):
    """A net without values, in eval mode."""
    with torch.device("meta"):
        return cnnzoo.create(name, **options).eval()
