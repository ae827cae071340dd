"""Data sets that have a name: scikit-learn's digits, torchvision's and ImageNet.

Torchvision's come through its own classes, which use the files already in place and fetch missing ones.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cnnzoo.config import DataConfig
from cnnzoo.data import folders
from cnnzoo.data.found import Found, Part
from cnnzoo.errors import InputError
from cnnzoo.paths import expanded


def _digits(config: DataConfig) -> Found:
    """1,797 digits of 8x8 from 43 people (UCI, Alpaydin and Kaynak 1998), which scikit-learn carries."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)[:, :, :, None]
    part = Part(pixels, digits.target.astype(np.int64), _numbered("digits", len(pixels)))
    return Found(tuple(map(str, range(10))), part, None, 1, (0.3053,), (0.3760,))


def _torchvision(kind: str, mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[DataConfig], Found]:
    def find(config: DataConfig) -> Found:
        from torchvision import datasets

        root = _root(config)
        parts = []
        for train in (True, False):
            try:
                data = getattr(datasets, kind)(root, train=train, download=True)
            except (OSError, RuntimeError, ValueError, AssertionError, EOFError) as error:  # what it says of damage
                why = " ".join(str(error).split())
                raise InputError(
                    f"{config.source} is not complete under {root} and could not be fetched ({why}); "
                    f"put torchvision's {kind} files there, or name their folder with data.root or $CNNZOO_DATA"
                ) from None
            pixels = np.asarray(data.data)
            pixels = pixels[:, :, :, None] if pixels.ndim == 3 else pixels
            name = f"{config.source}/{'train' if train else 'test'}"
            parts.append(Part(pixels, np.asarray(data.targets, dtype=np.int64), _numbered(name, len(pixels))))
        classes = tuple(str(name).split(" - ")[0] for name in data.classes)  # MNIST's are "0 - zero"
        return Found(classes, parts[0], parts[1], len(mean), mean, std)

    return find


def _imagenet(config: DataConfig) -> Found:
    """ILSVRC-2012 as folders train/ and val/ of 1,000 class folders each, which everyone has to fetch by themselves."""
    folder = _root(config) / "imagenet"
    if not (folder / "train").is_dir():
        raise InputError(
            f"imagenet is not at {folder}; put its train/ and val/ folders of class folders there, "
            f"or name the folder that holds them by data.source"
        )
    return folders.find(folder)


def _root(config: DataConfig) -> Path:
    chosen = config.root or os.environ.get("CNNZOO_DATA") or "~/.cache/cnnzoo/data"
    return expanded(chosen)


def _numbered(name: str, many: int) -> tuple[str, ...]:
    return tuple(f"{name}/{i}" for i in range(many))


REGISTERED: set[str] = set()  # those that a user has added, see `given`
NAMED: dict[str, Callable[[DataConfig], Found]] = {
    "digits": _digits,
    "mnist": _torchvision("MNIST", (0.1307,), (0.3081,)),
    "fashion_mnist": _torchvision("FashionMNIST", (0.2860,), (0.3530,)),
    "cifar10": _torchvision("CIFAR10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": _torchvision("CIFAR100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet": _imagenet,
}
