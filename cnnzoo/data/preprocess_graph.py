"""Evaluation's preprocessing as arithmetic on tensors, for a graph that has to carry it.

What `Geometry.fit` has PIL do stands here as a product with a matrix along each side of the image. The entries follow
from the image's height and width, so that a graph traced once takes images of any size.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from cnnzoo.data.preprocess import Preprocess, Sheet
from cnnzoo.errors import InputError

_BITS = 22  # of a weight, as PIL rounds it for 8-bit images (libImaging/Resample.c)


class PreprocessGraph(nn.Module):
    """Images `(B, H, W, C)` uint8, of any height and width, to `(B, C, size, size)` float32 as `Preprocess` makes them.

    They are equal to the bit, with two exceptions. From version 13 on PIL scales some images that are taller than wide
    (most such, with `squash`) along the columns first, where here, as before, the rows come first: some pixels then
    differ by a level of 255. And of a strip hundreds of times as long as wide `fit` scales only the middle.

    Raises InputError for the interpolation "nearest": whose neighbour is nearest, PIL leaves to its rounding errors.
    """

    def __init__(self, preprocess: Preprocess):
        super().__init__()
        if preprocess.interpolation not in _KERNELS:
            raise InputError(
                f"preprocessing by interpolation {preprocess.interpolation} cannot be part of a graph, "
                f"only {', '.join(_KERNELS)} can"
            )
        self.size, self.resize, self.squash = preprocess.size, preprocess.resize, preprocess.squash
        self.kernel = _KERNELS[preprocess.interpolation]
        figures = [(1 / (255 * std), -mean / std) for mean, std in zip(preprocess.mean, preprocess.std, strict=True)]
        scale, offset = torch.tensor(figures, dtype=torch.float32).T[:, :, None, None]  # each (C, 1, 1)
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)

    def forward(self, images: Tensor) -> Tensor:
        _, height, width, _ = images.shape
        x = images.permute(0, 3, 1, 2).float()  # (B, C, H, W)
        x = _weigh(x, self._weights(width, height))  # (B, C, H, size)
        x = _weigh(x.transpose(2, 3), self._weights(height, width)).transpose(2, 3)  # (B, C, size, size)
        return x * self.scale + self.offset

    def _weights(self, length: int, other: int) -> Tensor:
        """`(size, length)`: how much of each pixel along one side goes into each pixel of the crop; 0 in the margin."""
        given, across = torch.full((), length), torch.full((), other)
        scaled = torch.full((), self.resize) if self.squash else self.resize * given // torch.minimum(given, across)
        over = scaled - self.size
        start = torch.where(over < 0, -(-over // 2), (over / 2).round().long())  # as `preprocess.centre` has it
        to = start + torch.arange(self.size)[:, None]
        of = torch.arange(length)
        apart = (2 * of + 1) * scaled - (2 * to + 1) * given  # the centres, in whole numbers, so without rounding
        weights = self.kernel(apart.abs().double() / (2 * torch.maximum(given, scaled)))
        weights = weights * ((to >= 0) & (to < scaled)).double()
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-9)
        return (weights * 2**_BITS + 0.5).floor() / 2**_BITS


class SheetGraph(nn.Module):
    """Images `(B, H, W, C)` uint8 to the views `(B, C, …, …)` float32 of a `Sheet`, each as `PreprocessGraph` has it.

    A grey view of colours is made as PIL makes it, to the bit.
    """

    def __init__(self, sheet: Sheet):
        super().__init__()
        _, self.width, self.channels = sheet.shape
        self.views = nn.ModuleList(graph_of(view.bare()) for view in sheet.views)
        self.is_grey = [view.channels < sheet.channels for view in sheet.views]

    def forward(self, images: Tensor) -> Tensor:
        views = []
        for graph, is_grey in zip(self.views, self.is_grey, strict=True):
            view = graph(_grey(images)).repeat(1, self.channels, 1, 1) if is_grey else graph(images)
            views.append(pad(view, (0, self.width - view.shape[3])))
        return torch.cat(views, 2)


def graph_of(preprocess: Preprocess | Sheet) -> nn.Module:
    """Raises InputError if the interpolation cannot be part of a graph."""
    return SheetGraph(preprocess) if isinstance(preprocess, Sheet) else PreprocessGraph(preprocess)


def _grey(images: Tensor) -> Tensor:
    """`(B, H, W, 3)` to `(B, H, W, 1)`, by PIL's whole numbers (libImaging/Convert.c), which a float32 holds."""
    red, green, blue = images.float().unbind(3)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536).floor()[:, :, :, None]


def _weigh(x: Tensor, weights: Tensor) -> Tensor:
    """`x @ weights.T` rounded to 0 … 255, of 8-bit values and 22-bit weights.

    The weights are taken in two halves, so that each sum fits the 24 bits of a float32.
    """
    coarse = (weights * 2**11).round() / 2**11
    sums = linear(x, coarse.float()) + 0.5
    whole = sums.floor()
    rest = sums - whole + linear(x, (weights - coarse).float())
    return (whole + rest.floor()).clamp(0, 255)


def _triangle(x: Tensor) -> Tensor:
    return (1 - x).clamp(min=0)


def _cubic(x: Tensor, a: float = -0.5) -> Tensor:
    """R. Keys: Cubic convolution interpolation for digital image processing, 1981, with PIL's `a`."""
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = a * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, inner, torch.where(x < 2, outer, 0.0))


def _lanczos(x: Tensor, lobes: int = 3) -> Tensor:
    return torch.where(x < lobes, _sinc(x) * _sinc(x / lobes), 0.0)


def _sinc(x: Tensor) -> Tensor:  # torch.sinc has no counterpart in ONNX
    x = math.pi * x
    return torch.where(x == 0, 1.0, x.sin() / x)


_KERNELS = {"bilinear": _triangle, "bicubic": _cubic, "lanczos": _lanczos}
