"""Random parts of photos, each cut out and resized once, antialiased: what a net is trained on.

A part is drawn as torchvision's RandomResizedCrop draws it; only where an image is too long for any draw, the place of
what stands in for it is random here, and the centre there. Its pixels are those of torchvision's resize of a uint8
image, within two levels. Such parts are GoogLeNet's (Szegedy et al. 2014, arXiv 1409.4842, section 6).
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from cnnzoo.config import AugmentConfig
from cnnzoo.data import jpeg
from cnnzoo.data.decoding import decode_content, jpeg_header, orientation
from cnnzoo.data.draws import TRIES, Draws
from cnnzoo.data.preprocess import scaled
from cnnzoo.machine import Scratch

try:
    import cv2
except ImportError:  # brought by cnnzoo[photos]
    cv2 = None

_decoded, _cut_out = Scratch(), Scratch()


class Box(NamedTuple):
    """A rectangle of whole pixels."""

    left: int
    top: int
    width: int
    height: int


class Parts:
    """A part of each image of a batch, whatever the image's size, and whether it is mirrored; drawn by `draws` alone.

    Args:
        config: its `crop` is resized (see `AugmentConfig`) or jittered; its `flip` mirrors every second part.
        size: side of the square that each part becomes.
    """

    def __init__(self, config: AugmentConfig, size: int, draws: Draws):
        self.config, self.size = config, size
        if config.crop == "resized":
            self._shapes = draws.sides(config.scale, config.ratio, TRIES).tolist()
        else:
            self._shares = (size / draws.uniform(*config.shorter_side)).tolist()
        self._places = draws.uniform(0, 1, 2).tolist()
        self.mirrored = draws.integers(2).astype(bool) if config.flip else np.zeros(draws.many, bool)

    def box(self, image: int, width: int, height: int) -> Box:
        """The part of the batch's `image`-th image, which has that size."""
        sides = self._sides(image, width, height)
        rooms = (width - sides[0], height - sides[1])
        left, top = (min(int(at * (room + 1)), room) for at, room in zip(self._places[image], rooms, strict=True))
        return Box(left, top, *sides)

    def _sides(self, image: int, width: int, height: int) -> tuple[int, int]:
        if self.config.crop == "jittered":
            side = max(round(min(width, height) * self._shares[image]), 1)
            return side, side
        middle = math.sqrt(width * height)
        for shape in self._shapes[image]:
            w, h = (round(middle * share) for share in shape)
            if 0 < w <= width and 0 < h <= height:
                return w, h
        narrowest, widest = self.config.ratio  # none lies within: as much of the image as the ratios allow
        return min(width, max(round(height * widest), 1)), min(height, max(round(width / narrowest), 1))

    def cut(self, image: int, pixels: np.ndarray, out: np.ndarray) -> None:
        """Puts the part of the batch's `image`-th image `(H, W, C)` uint8 into `out`, `(size, size, C)` uint8."""
        self._show(image, pixels, self.box(image, pixels.shape[1], pixels.shape[0]), out)

    def cut_file(self, image: int, content: bytes, out: np.ndarray) -> None:
        """The same of an image file. Raises InputError that says what is wrong with it.

        Of a JPEG only the rows down to the end of the part are decoded, which spares a tenth of an ordinary photo.
        A large JPEG is decoded at 1/2, 1/4 or 1/8, if that leaves the part twice the size it is resized to; the part
        then moves to the nearest pixel. In mosaics of small sharp photos, the hardest case, pixels differed by 0.7 of
        255 levels on average from those of the whole decoded; by 3 where nothing was left beyond the size.
        """
        channels, header = out.shape[2], jpeg_header(content)
        if header and orientation(content) == 1:
            box = self.box(image, header.width, header.height)
            enough = 2 * self.size
            reduced = next((scale for scale in (8, 4, 2) if min(box.width, box.height) >= scale * enough), 1)
            rows = box.top + box.height + reduced - 1  # what is rounded up, too
            if (pixels := jpeg.decode(content, channels, reduced, rows=rows, into=_decoded)) is not None:
                self._show(image, pixels, Box(*(round(number / reduced) for number in box)), out)
                return
        pixels = np.asarray(decode_content(content, channels))
        self.cut(image, pixels.reshape(*pixels.shape[:2], channels), out)

    def _show(self, image: int, pixels: np.ndarray, box: Box, out: np.ndarray) -> None:
        part = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
        resize(part, out, bool(self.mirrored[image]))


def resize(pixels: np.ndarray, out: np.ndarray, mirrored: bool = False) -> None:
    """Puts `(H, W, C)` uint8 into `out` of another height and width, by a triangle as wide as a pixel of the result, or
    of the image where that is the larger: PIL's and torchvision's antialiased bilinear resize, within two levels.
    """
    height, width = out.shape[:2]
    if cv2 is not None and pixels.shape[0] <= height and pixels.shape[1] <= width:
        resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)  # nothing shrinks: the same
    else:
        part = _cut_out.array(pixels.shape)
        part[:] = pixels
        resized = scaled(part, height, width)
    resized = resized.reshape(out.shape)
    if not mirrored:
        out[:] = resized
    elif cv2 is not None:
        cv2.flip(resized, 1, dst=out)
    else:
        out[:] = torch.from_numpy(resized).flip(1).numpy()  # in a fifth of NumPy's time
