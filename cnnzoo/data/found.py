"""What a source holds, before any decoding or scaling."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cnnzoo.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = 64  # pixels of a side, up to which a picture is taken whole
TRAIN = ("train", "training")  # names of the folder to train on, in any case
HELD_OUT = ("val", "valid", "validation", "test", "testing")  # of what lies beside it, the first found counting


@dataclass(frozen=True)
class Part:
    images: np.ndarray | Sequence  # (N, H, W, C) uint8, or files, or pictures of any kinds and sizes
    labels: np.ndarray
    names: tuple[str, ...]

    def choose(self, indices: np.ndarray) -> "Part":
        images = self.images[indices] if isinstance(self.images, np.ndarray) else [self.images[i] for i in indices]
        return Part(images, self.labels[indices], tuple(self.names[i] for i in indices))

    def joined(self, other: "Part") -> "Part":
        """The images of both, these first."""
        arrays = isinstance(self.images, np.ndarray)
        images = np.concatenate([self.images, other.images]) if arrays else [*self.images, *other.images]
        return Part(images, np.concatenate([self.labels, other.labels]), self.names + other.names)

    def among(self, own: Sequence[str], classes: Sequence[str], wrong: str) -> "Part":
        """With labels that are places in `classes`, where they were places in `own`. Raises InputError with `wrong` and
        the classes that are missing.
        """
        if missing := sorted(set(own) - set(classes)):
            raise InputError(f"{wrong}: {', '.join(missing)}")
        places = np.array([classes.index(name) for name in own])
        return replace(self, labels=places[self.labels])


@dataclass(frozen=True)
class Found:
    classes: tuple[str, ...]
    train: Part
    val: Part | None  # None: to be split off
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()
    home: Path | None = None  # of the files, if it is files


def photo_resize(size: int) -> int:
    """The side that photos are resized to: the net sees their centre 7/8, or small ones whole."""
    return round(size * 8 / 7) if size > SMALL else size


def photos(
    classes: Sequence[str], train: Part, val: Part | None, home: Path | None, notes: tuple[str, ...] = ()
) -> Found:
    """Colour photos in files of any size."""
    return Found(tuple(classes), train, val, 3, IMAGENET_MEAN, IMAGENET_STD, notes, home)
