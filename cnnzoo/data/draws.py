"""Random numbers for a process's share of a batch, the same however many processes share it."""

import math
from dataclasses import dataclass

import numpy as np

TRIES = 10  # of torchvision's RandomResizedCrop, for a part that lies within the image


@dataclass(frozen=True)
class Share:
    """Which part of every batch is whose: the `place`-th (from 0) of `of` parts of one size."""

    place: int = 0
    of: int = 1

    def own(self, whole: np.ndarray) -> np.ndarray:
        """The rows that are its own, of those of a whole batch."""
        size = len(whole) // self.of
        return whole[self.place * size : (self.place + 1) * size]

    def of_all(self, whole: np.ndarray) -> np.ndarray:
        """Its rows where every row counts, and so parts may differ by one."""
        return np.array_split(whole, self.of)[self.place]


class Draws:
    """A draw for each of `many` images, which are a share of a batch.

    The numbers of the whole batch are drawn, and those of other processes dropped, so that an image's numbers depend on
    its place in the batch alone.
    """

    def __init__(self, rng: np.random.Generator, many: int, share: Share | None = None):
        self.rng, self.many, self.share = rng, many, share or Share()

    def _own(self, draw, *shape: int) -> np.ndarray:
        return self.share.own(draw((self.many * self.share.of, *shape)))

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """`(many, *shape)`"""
        return self._own(lambda size: self.rng.uniform(low, high, size), *shape)

    def normal(self, deviation: float, *shape: int) -> np.ndarray:
        """`(many, *shape)` with mean zero."""
        return self._own(lambda size: self.rng.normal(0, deviation, size), *shape)

    def integers(self, stop: int, *shape: int) -> np.ndarray:
        """`(many, *shape)` from 0 to below `stop`."""
        return self._own(lambda size: self.rng.integers(0, stop, size), *shape)

    def sides(self, area: tuple[float, float], ratio: tuple[float, float], *shape: int) -> np.ndarray:
        """`(many, *shape, 2)`: sides of windows with an area in one range, and a ratio of the first side to the second
        in another, even on a logarithmic scale.
        """
        areas = self.uniform(*area, *shape)
        ratios = np.exp(self.uniform(*map(math.log, ratio), *shape))
        return np.stack([np.sqrt(areas * ratios), np.sqrt(areas / ratios)], -1)

    def common(self, draw):
        """What `draw(rng)` gives, one for all images of the batch."""
        return draw(self.rng)
