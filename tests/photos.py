"""Small pictures of three kinds, and a net for them: enough for every way of transfer learning."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import cnnzoo

KINDS = ("blue", "green", "red")


def picture(kind: int, number: int, side: int = 40) -> Image.Image:
    """Noise in which one colour prevails."""
    rng = np.random.default_rng((kind, number))
    pixels = rng.integers(0, 160, (side, side, 3))
    pixels[:, :, 2 - kind] += 60
    return Image.fromarray(pixels.astype(np.uint8))


def folder(path: Path, each: int = 12, kinds: tuple[str, ...] = KINDS) -> Path:
    """Class folders of so many pictures each."""
    for place, kind in enumerate(kinds):
        (path / kind).mkdir(parents=True)
        for number in range(each):
            picture(place, number).save(path / kind / f"{number:02}.png")
    return path


def weights(path: Path, name: str = "resnet20") -> Path:
    """A file of a net's random weights, whose features are still worth something."""
    torch.manual_seed(0)
    torch.save(cnnzoo.create(name, num_classes=10).state_dict(), path)
    return path
