"""What a net sees of an image: evaluation's resize and crop, normalisation.

A `Preprocess` is bound to weights: it travels with them in the run folder, and evaluation and prediction use nothing
else.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from cnnzoo.data.decoding import Stored, as_image, decode, decode_content, read
from cnnzoo.data.to_device import to_device
from cnnzoo.device import layout_on

# How long a large photo's shorter side stays where it is decoded reduced: at least so many times the length that it is
# resized to, and at least so many pixels. A quarter of 4032x3024, which is most phones' size, is 2.95 times 256.
_SPARE, _ENOUGH = 2.9, 512

_HUGE = 50_000_000  # pixels of a resized image that is too large to be made, only for its ends to be cut off


@dataclass(frozen=True)
class Geometry:
    """How an image becomes a square: shorter side (with `squash` both) to `resize`, antialiased, then the central
    `size` x `size`, or all in a black margin.

    These are the pixels of PIL's resize, `exactly` or as `scaled` has them: what random parts are cut from need not be
    exact, and is ready sooner.
    """

    channels: int
    resize: int
    size: int
    interpolation: str
    squash: bool = False
    exactly: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.size, self.size, self.channels)

    def fit(self, image: Image.Image) -> np.ndarray:
        """`(size, size, channels)` uint8 of an image of so many channels."""
        resize = self.resize
        width, height = image.size
        if self.squash:
            width = height = resize
        elif resize * resize * max(width, height) / min(width, height) > _HUGE:  # a strip, whose middle is wanted
            reach = math.ceil(4 * min(width, height) * max(self.size / resize, 1))
            left, top = max(width - reach, 0) // 2, max(height - reach, 0) // 2
            image = image.crop((left, top, left + min(width, reach), top + min(height, reach)))
            width, height = image.size
        if width <= height:  # torchvision truncates the longer side in the same way
            width, height = resize, resize * height // width
        else:
            width, height = resize * width // height, resize
        if image.size == (width, height):
            pixels = np.asarray(image)
        elif self.exactly or self.interpolation not in ("bilinear", "bicubic"):
            pixels = np.asarray(image.resize((width, height), Image.Resampling[self.interpolation.upper()]))
        else:
            pixels = np.array(image)
            pixels = scaled(pixels[:, :, None] if pixels.ndim == 2 else pixels, height, width, self.interpolation)
        return centre(pixels[:, :, None] if pixels.ndim == 2 else pixels, self.size)

    def read(self, file: str | Path | Stored) -> np.ndarray:
        """`(size, size, channels)` uint8. Raises InputError if the file cannot be read."""
        return self.fit(decode(file, self.channels, enough(self.resize)))


@dataclass(frozen=True)
class Preprocess:
    """Shorter side to `resize`, the centre `size` x `size` cut out (a black margin where there is less), normalised.

    With `squash` both sides become `resize`, whatever the image's shape, as Caffe's nets were trained and judged.
    """

    size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    squash: bool = False

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of `pixels`: height, width, channels."""
        return (self.size, self.size, self.channels)

    @property
    def geometry(self) -> Geometry:
        """The same without the normalisation."""
        return Geometry(self.channels, self.resize, self.size, self.interpolation, self.squash)

    @property
    def least(self) -> int:
        """The shorter side of the smallest image that has all the pixels that the net takes."""
        return min(self.size, self.resize)

    def __call__(self, image: Image.Image | str | Path | np.ndarray | Tensor) -> Tensor:
        """A PIL image, a file or its content, or a uint8 array (H, W), (H, W, C) or tensor (C, H, W), to
        `(C, size, size)` float32.
        """
        return normalise(torch.tensor(self.pixels(image))[None], self.mean, self.std)[0]

    def pixels(self, image: Image.Image | str | Path | np.ndarray | Tensor) -> np.ndarray:
        """The same without the normalisation: `(size, size, C)` uint8."""
        return self.geometry.fit(as_image(image, self.channels, enough(self.resize)))

    def mirrored(self, batch: Tensor) -> Tensor:
        """What the mirror images would give: `(B, C, H, W)` to the same."""
        return batch.flip(3)

    def bare(self) -> "Preprocess":
        """The same without normalisation, but for the scale 0..1."""
        return replace(self, mean=(0.0,) * self.channels, std=(1.0,) * self.channels)

    def with_channels(self, channels: int) -> "Preprocess":
        """The same for images of so many channels: grey ones get the mean of the colours' figures."""
        if channels == self.channels:
            return self
        mean, std = (sum(values) / self.channels for values in (self.mean, self.std))
        return replace(self, mean=(mean,) * channels, std=(std,) * channels)

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Preprocess":
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


@dataclass(frozen=True)
class Sheet:
    """What several nets see of one image, in one array: their views below each other, each from the left edge on.

    A view of fewer channels than others has them all alike. Nothing is normalised, but for the scale 0..1: each net
    does that by itself. A sheet stands wherever a `Preprocess` does in prediction and evaluation.
    """

    views: "tuple[Preprocess | Sheet, ...]"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of `pixels`: height, width, channels."""
        heights, widths, channels = zip(*(view.shape for view in self.views), strict=True)
        return (sum(heights), max(widths), max(channels))

    @property
    def tops(self) -> list[int]:
        """The row in which each view begins."""
        return [sum(view.shape[0] for view in self.views[:place]) for place in range(len(self.views))]

    @property
    def channels(self) -> int:
        return self.shape[2]

    @property
    def mean(self) -> tuple[float, ...]:
        return (0.0,) * self.channels

    @property
    def std(self) -> tuple[float, ...]:
        return (1.0,) * self.channels

    @property
    def resize(self) -> int:
        """The longest of the views'."""
        return max(view.resize for view in self.views)

    @property
    def least(self) -> int:
        """The shorter side of the smallest image that has all the pixels that any view takes."""
        return max(view.least for view in self.views)

    def __call__(self, image: Image.Image | str | Path | np.ndarray | Tensor) -> Tensor:
        """A picture, as a `Preprocess` takes it, to `(C, H, W)` float32."""
        return normalise(torch.tensor(self.pixels(image))[None], self.mean, self.std)[0]

    def pixels(self, image: Image.Image | str | Path | np.ndarray | Tensor) -> np.ndarray:
        """The same without the scaling: `(H, W, C)` uint8."""
        return self._laid_out(lambda view: view.pixels(image))

    fit = pixels  # as `Geometry` calls it

    def read(self, file: str | Path | Stored) -> np.ndarray:
        """The same of a file. Raises InputError if it cannot be read."""
        content = read(Path(file) if isinstance(file, str) else file)
        return self._laid_out(lambda view: view.pixels(decode_content(content, view.channels, enough(view.resize))))

    def _laid_out(self, make: "Callable[[Preprocess | Sheet], np.ndarray]") -> np.ndarray:
        sheet = np.zeros(self.shape, np.uint8)
        for view, top in zip(self.views, self.tops, strict=True):
            height, width, _ = view.shape
            sheet[top : top + height, :width] = make(view)  # one channel spreads over all
        return sheet

    def mirrored(self, batch: Tensor) -> Tensor:
        """What the mirror images would give: `(B, C, H, W)` to the same."""
        mirrored = batch.clone()
        for view, top in zip(self.views, self.tops, strict=True):
            height, width, _ = view.shape
            place = (..., slice(top, top + height), slice(width))
            mirrored[place] = view.mirrored(batch[place])
        return mirrored

    @property
    def geometry(self) -> "Sheet":
        return self

    def bare(self) -> "Sheet":
        return self

    def to_dict(self) -> dict:
        return {"views": [view.to_dict() for view in self.views]}


def together(seen: Iterable[Preprocess | Sheet]) -> tuple[Preprocess | Sheet, list[int]]:
    """One preprocessing for nets that each want their own, and in which row of it each finds its view.

    Nets that want the same but for normalisation share a view; where all do, there is no need of a sheet.
    """
    bare = [each.bare() for each in seen]
    views = tuple(dict.fromkeys(bare))
    if len(views) == 1:
        return views[0], [0] * len(bare)
    sheet = Sheet(views)
    return sheet, [sheet.tops[views.index(each)] for each in bare]


def enough(resize: int) -> int:
    """How long a photo's shorter side must stay, where it is decoded reduced before it is resized to `resize` (see
    `decoding.opened`).
    """
    return max(math.ceil(_SPARE * resize), _ENOUGH)


def scaled(pixels: np.ndarray, height: int, width: int, interpolation: str = "bilinear") -> np.ndarray:
    """`(H, W, C)` uint8, contiguous, to another height and width, antialiased where that is less.

    PyTorch's kernels for uint8, which go back to Pillow-SIMD, take a sixth of PIL's time. In photos one pixel in 700 is
    off by one level then (bilinear), one in 300 by one or two (bicubic).
    """
    # With the axis of images first, or PyTorch does not see that channels come last, and takes longer.
    image = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    image = functional.interpolate(image, (height, width), mode=interpolation, antialias=True)
    return image[0].permute(1, 2, 0).numpy()


def centre(pixels: np.ndarray, size: int) -> np.ndarray:
    """The central `size` x `size` of `(..., H, W, C)`, with zeros where there is nothing."""
    for axis in (-3, -2):
        length = pixels.shape[axis]
        if length < size:
            before = (size - length) // 2
            margins = [(0, 0)] * pixels.ndim
            margins[axis] = (before, size - length - before)
            pixels = np.pad(pixels, margins)
        elif length > size:
            start = round((length - size) / 2)  # as torchvision rounds
            pixels = np.take(pixels, range(start, start + size), axis)
    return pixels


def normalise(batch: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """`(B, H, W, C)` uint8 or float on the scale 0..255 to `(B, C, H, W)` float32, in memory as the device's nets want
    it.
    """
    count, height, width, _ = batch.shape
    # A whole row at a time: broadcasting over 3 channels instead is six times slower on a CPU.
    figures = np.array([[1 / (255 * s), -m / s] for m, s in zip(mean, std, strict=True)], np.float32)
    figures = np.tile(figures, (width, 1)).T.copy()
    if batch.device.type == "cpu":
        # torch's threads would go on spinning for some milliseconds, and hold up onnxruntime's: a quarter of a pass
        # through squeezenet1_1.
        rows = batch.numpy().reshape(count, height, -1).astype(np.float32)
        rows *= figures[0]
        rows += figures[1]
        rows = torch.from_numpy(rows)
    else:
        scale, offset = to_device(figures, batch.device)
        rows = batch.reshape(count, height, -1).to(torch.float32, copy=True).mul_(scale).add_(offset)
    images = rows.view(batch.shape).permute(0, 3, 1, 2)
    return images.contiguous(memory_format=layout_on(images.device))  # nothing to do where channels come last
