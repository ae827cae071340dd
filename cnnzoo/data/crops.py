"""Several crops of an image, over which papers average a net's probabilities when they judge it."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from cnnzoo.data.decoding import decode
from cnnzoo.data.preprocess import Preprocess, centre

COUNTS = (1, 2, 10, 144)
SCALES = (256, 288, 320, 352)  # shorter sides for crops of 224 (GoogLeNet, section 7)


@dataclass(frozen=True)
class Crops:
    """How an image file becomes `count` squares: 2, 10 or 144 of them, where `Geometry` makes one.

    2: what evaluation sees, and its mirror image.
    10: the corners and the centre of the central square of side `resize`, and their mirror images (Krizhevsky,
    Sutskever, Hinton 2012, section 4.1).
    144: at each of four scales, of the left, central and right (or top, central and bottom) square the corners, the
    centre and the whole shrunk, and their mirror images (Szegedy et al. 2014, arXiv 1409.4842, section 7).
    """

    preprocess: Preprocess
    count: int

    @property
    def size(self) -> int:
        return self.preprocess.size

    @property
    def channels(self) -> int:
        return self.preprocess.channels

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.count, self.size, self.size, self.channels)

    def fit(self, image: Image.Image) -> np.ndarray:
        """`(count, size, size, channels)` uint8."""
        p = self.preprocess
        if self.count == 2:
            crops = [p.geometry.fit(image)]
        elif self.count == 10:
            side = max(p.resize, p.size)
            crops = _corners_and_centre(replace(p.geometry, resize=side, size=side).fit(image), p.size)
        else:
            crops = [crop for square in self._squares(image) for crop in self._six(square)]
        return np.stack([*crops, *(crop[:, ::-1] for crop in crops)])

    def read(self, file: str | Path) -> np.ndarray:
        """The same of a file. Raises InputError if it cannot be read."""
        return self.fit(decode(file, self.channels))

    def _squares(self, image: Image.Image) -> list[Image.Image]:
        squares = []
        for scale in SCALES:
            shorter = round(scale * self.size / 224)
            factor = shorter / min(image.size)
            width, height = (max(round(side * factor), shorter) for side in image.size)
            scaled = image.resize((width, height), Image.Resampling[self.preprocess.interpolation.upper()])
            for place in (0, 0.5, 1):
                left, top = round((width - shorter) * place), round((height - shorter) * place)
                squares.append(scaled.crop((left, top, left + shorter, top + shorter)))
        return squares

    def _six(self, square: Image.Image) -> list[np.ndarray]:
        whole = square.resize((self.size, self.size), Image.Resampling[self.preprocess.interpolation.upper()])
        return [*_corners_and_centre(_array(square), self.size), _array(whole)]


def _corners_and_centre(square: np.ndarray, size: int) -> list[np.ndarray]:
    first, last = slice(None, size), slice(square.shape[0] - size, None)
    corners = [square[rows, columns] for rows in (first, last) for columns in (first, last)]
    return [*corners, centre(square, size)]


def _array(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
