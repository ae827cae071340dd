"""Where pixels come from: decoded once and kept as uint8, in memory or in a memory map; or decoded anew each time.

Both kinds of `Images` give the same `(B, H, W, C)` uint8 batches for the same indices. Random parts are cut from what
there is: of decoded images from the square that was kept, of files from the whole photo.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from cnnzoo.data.decoding import Stored, read
from cnnzoo.data.parts import Parts
from cnnzoo.data.preprocess import Geometry
from cnnzoo.errors import InputError

File = Path | Stored

IN_MEMORY = 1 << 30  # bytes up to which pixels are read into memory; above, the file is mapped


class Images(Protocol):
    """N images of one size."""

    shape: tuple[int, int, int, int]  # (N, H, W, C)

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`, `(B, H, W, C)` uint8. Raises Unreadable, once all others are read."""
        ...

    def take_parts(self, indices: np.ndarray, parts: Parts) -> np.ndarray:
        """The i-th of `parts` of the image at `indices[i]`, for each i: `(B, parts.size, parts.size, C)` uint8. Raises
        as `take` does.
        """
        ...


class Unreadable(InputError):
    """Some images of a batch were readable once and are no longer: a file vanished, a disk broke.

    Args:
        pixels: of the batch, black where there is nothing.
        problems: what is wrong, by place in the batch.
    """

    def __init__(self, pixels: np.ndarray, problems: dict[int, str]):
        self.pixels, self.problems = pixels, problems
        self.good = [place for place in range(len(pixels)) if place not in problems]
        super().__init__("; ".join(problems.values()))


class ArrayImages:
    """Images that are decoded already: a uint8 array `(N, H, W, C)`, which may be a memory map, or its `rows` alone."""

    def __init__(self, pixels: np.ndarray, rows: np.ndarray | None = None):
        self.pixels, self.rows = pixels, rows
        self.shape = (len(pixels if rows is None else rows), *pixels.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, indices: np.ndarray) -> np.ndarray:
        return self.pixels[indices if self.rows is None else self.rows[indices]]

    def take_parts(self, indices: np.ndarray, parts: Parts) -> np.ndarray:
        batch = np.empty((len(indices), parts.size, parts.size, self.shape[3]), np.uint8)
        for place, index in enumerate(indices if self.rows is None else self.rows[indices]):
            parts.cut(place, self.pixels[index], batch[place])
        return batch

    def whole(self) -> np.ndarray:
        """`(N, H, W, C)`"""
        return self.pixels if self.rows is None else self.pixels[self.rows]


class FittedImages:
    """Images of an array `(N, h, w, c)` uint8, which `fit` brings to the size of `shape` `(N, H, W, C)` whenever they
    are asked for: together they would be more than memory should hold.
    """

    def __init__(self, pixels: np.ndarray, fit: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]):
        self.before, self.fit, self.shape = pixels, fit, shape
        self._pool = ThreadPoolExecutor()

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, indices: np.ndarray) -> np.ndarray:
        return np.stack(list(self._pool.map(self.fit, self.before[indices])))

    def take_parts(self, indices: np.ndarray, parts: Parts) -> np.ndarray:
        return ArrayImages(self.take(indices)).take_parts(np.arange(len(indices)), parts)


class Chosen:
    """Some of other images, each perhaps several times."""

    def __init__(self, images: Images, places: np.ndarray):
        self.images, self.places = images, places
        self.shape = (len(places), *images.shape[1:])

    def __len__(self) -> int:
        return len(self.places)

    def take(self, indices: np.ndarray) -> np.ndarray:
        return self.images.take(self.places[indices])

    def take_parts(self, indices: np.ndarray, parts: Parts) -> np.ndarray:
        return self.images.take_parts(self.places[indices], parts)


def choose(images: Images, places: np.ndarray) -> Images:
    """The images at `places`: a copy of those that are in memory, which later need no looking up."""
    if not isinstance(images, ArrayImages):
        return Chosen(images, places)
    if isinstance(images.pixels, np.memmap):
        return ArrayImages(images.pixels, places if images.rows is None else images.rows[places])
    return ArrayImages(images.take(places))


class FileImages:
    """Images decoded from their files whenever they are asked for, by `workers` threads (0: one per core)."""

    def __init__(self, files: Sequence[File], geometry: Geometry, workers: int = 0):
        self.files = list(files)
        self.geometry = geometry
        self.shape = (len(files), *geometry.shape)
        self._workers = workers or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._workers)

    def __len__(self) -> int:
        return len(self.files)

    def take(self, indices: np.ndarray) -> np.ndarray:
        def fit(place: int, file: File, out: np.ndarray) -> None:
            out[:] = self.geometry.read(file)

        return self._each(indices, self.geometry.shape, fit)

    def take_parts(self, indices: np.ndarray, parts: Parts) -> np.ndarray:
        def cut(place: int, file: File, out: np.ndarray) -> None:
            if self.geometry.squash:  # as the weights were trained: on squares
                parts.cut(place, self.geometry.read(file), out)
            else:
                parts.cut_file(place, read(file), out)

        return self._each(indices, (parts.size, parts.size, self.geometry.channels), cut)

    def _each(
        self, indices: np.ndarray, shape: tuple[int, ...], make: Callable[[int, File, np.ndarray], None]
    ) -> np.ndarray:
        batch, problems = np.empty((len(indices), *shape), np.uint8), {}
        places = iter(range(len(indices)))  # of which each thread takes the next one when it has done one

        def work() -> None:
            for place in places:
                file = self.files[indices[place]]
                try:
                    make(place, file, batch[place])
                except InputError as error:
                    batch[place], problems[place] = 0, f"{file}: {error}"

        for thread in [self._pool.submit(work) for _ in range(self._workers)]:
            thread.result()
        if problems:
            raise Unreadable(batch, dict(sorted(problems.items())))
        return batch
