"""Which images of many excite each channel of a layer most, and where in them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cnnzoo import bars
from cnnzoo.config import DataConfig
from cnnzoo.data import sources
from cnnzoo.data.named import NAMED
from cnnzoo.data.pictures import Pictures, read_ahead
from cnnzoo.errors import InputError
from cnnzoo.telling import Tell, silent
from cnnzoo.visualize.hooks import Layer
from cnnzoo.visualize.partway import maps_of
from cnnzoo.visualize.subject import Subject, leave_out

BATCH = 32


class Album:
    """Images by their numbers: of a data set by its name those held out, or all where it holds none out; or pictures,
    folders and patterns. They are read when they are asked for, so that many take little memory.
    """

    def __init__(self, images: str | Path | Iterable, subject: Subject):
        self.subject = subject
        self._split = self._given = None
        if isinstance(images, str) and images in NAMED and not Path(images).exists():
            self._split, _, _ = sources.held_out(DataConfig(source=images), subject.preprocess, split=False)
            self.names = self._split.names
        else:
            self._given = list(Pictures(images))
            named = enumerate(self._given)
            self.names = tuple(str(x) if isinstance(x, str | Path) else f"image {place}" for place, x in named)
        if not self.names:
            raise InputError("there is no image to look through; give some")

    def read(self, numbers: Iterable[int], tell: Tell = silent) -> Iterator[tuple[list[int], np.ndarray]]:
        """Their numbers and `(B, H, W, C)` uint8, batch by batch; those that cannot be read are left out and told.

        Raises InputError if none can be read.
        """
        numbers, errors = list(numbers), []
        if self._split is not None:
            for start in range(0, len(numbers), BATCH):
                batch = numbers[start : start + BATCH]
                yield batch, self._split.images.take(np.array(batch))
            return
        waiting = iter(numbers)
        for batch in read_ahead(Pictures([self._given[n] for n in numbers]), self.subject.preprocess, BATCH):
            numbered = [(next(waiting), one) for one in batch]
            errors += [one for one in batch if one.error]
            if good := [(number, one.pixels) for number, one in numbered if not one.error]:
                yield [number for number, _ in good], np.stack([pixels for _, pixels in good])
        leave_out(errors, len(numbers), tell)

    def take(self, numbers: Iterable[int]) -> np.ndarray:
        """`(B, H, W, C)` uint8 of images that can be read."""
        return np.concatenate([pixels for _, pixels in self.read(numbers)])


@dataclass(frozen=True)
class Strongest:
    """Where each of a layer's C channels answers most strongly: K images, the strongest first."""

    activations: np.ndarray  # (C, K) float32
    images: np.ndarray  # (C, K) int64, by their numbers in the album
    places: np.ndarray  # (C, K, 2) int64, row and column in the map; 0, 0 past the flattening
    among: int  # so many images that could be read


def strongest(net: nn.Module, layer: Layer, album: Album, top: int, tell: Tell = silent) -> Strongest:
    """Go through an album for the `top` images that excite each channel of a layer most, each at its strongest place.

    The net is as `untouched` has it. Raises InputError if no image can be read.
    """
    kept: list[Tensor] = []  # activations, images and places, each (k, C)
    among = 0
    bar = bars.show(total=len(album.names), desc="looking through", unit="image")
    with bar, torch.no_grad():
        for numbers, pixels in album.read(range(len(album.names)), tell):
            maps = maps_of(net, layer, album.subject.normalised(pixels))
            activations, places = maps.flatten(2).max(2)  # (B, C)
            own = (activations.cpu(), torch.tensor(numbers)[:, None].expand_as(places), places.cpu())
            kept = [torch.cat(both) for both in zip(kept, own, strict=True)] if kept else list(own)
            best = kept[0].argsort(dim=0, descending=True, stable=True)[:top]
            kept = [values.gather(0, best) for values in kept]
            among += len(numbers)
            bar.update(len(numbers))
    activations, images, places = (values.T.numpy() for values in kept)
    width = maps.shape[3]
    return Strongest(activations, images, np.stack([places // width, places % width], axis=2), among)
