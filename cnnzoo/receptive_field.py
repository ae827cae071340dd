"""Receptive fields: how much of the image one place of a feature map sees, how far the next place is, and where the
first begins.

Along each axis the first two are 1 at the image, the third 0, and change at every window (where branches meet, the
greater of each counts, and of starts the lesser):

    size    size + dilation * (kernel - 1) * stride
    stride  stride * the window's stride
    start   start - padding * stride

They are found by watching every operation of a forward pass, whatever module or function it comes from. One that is no
window and keeps the number of places, such as a ReLU or a sum, keeps the field; one that changes it, such as the mean
of a map or a flattening, sees the whole image. Padding counts as image, so that a field may be the larger one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


@dataclass(frozen=True)
class Field:
    """Heights and widths, in pixels of the image."""

    size: tuple[float, float]  # of what one place sees; infinite: the whole image
    stride: tuple[int, int]  # from one place to the next
    start: tuple[int, int] = (0, 0)  # of what the first place sees; negative: in the padding

    def through(
        self,
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
    ) -> Field:
        """Behind a window."""
        axes = zip(self.size, self.stride, kernel, dilation, strict=True)
        return Field(
            tuple(size + d * (k - 1) * step for size, step, k, d in axes),
            tuple(step * s for step, s in zip(self.stride, stride, strict=True)),
            tuple(start - p * step for start, step, p in zip(self.start, self.stride, padding, strict=True)),
        )

    @property
    def whole(self) -> Field:
        """The field behind what mixes all places."""
        return Field((math.inf, math.inf), self.stride, self.start)


def meeting(fields: Iterable[Field]) -> Field:
    """What is seen where branches meet."""
    sizes, strides, starts = zip(*((field.size, field.stride, field.start) for field in fields), strict=True)
    return Field(_greatest(sizes), _greatest(strides), tuple(map(min, zip(*starts, strict=True))))


def _greatest(pairs: Iterable[Sequence]) -> tuple:
    return tuple(map(max, zip(*pairs, strict=True)))


def pair(value: int | Sequence[int]) -> Sequence[int]:
    """Height and width of what PyTorch takes as a number, or as one for each axis."""
    values = [value] if isinstance(value, int) else value
    return values[-2:] if len(values) > 1 else [*values, *values]


# The window of an operation, from its arguments: kernel, stride, dilation, padding; None where it is none after all.


def _convolution(image: Tensor, weight: Tensor, bias, stride, padding, dilation, transposed, *_):
    if transposed or image.ndim < 4:
        return None
    return weight.shape[-2:], *(pair(values) for values in (stride, dilation, padding))


def _max_pool(image: Tensor, kernel, stride=(), padding=0, dilation=1, *_):
    return pair(kernel), pair(stride or kernel), pair(dilation), pair(padding)


def _avg_pool(image: Tensor, kernel, stride=(), padding=0, *_):
    return pair(kernel), pair(stride or kernel), (1, 1), pair(padding)


def _adaptive_pool(image: Tensor, places: Sequence[int]):
    sizes = image.shape[-2:]
    if any(size % many or many == 1 < size for size, many in zip(sizes, places, strict=True)):
        return None
    kernel = [size // many for size, many in zip(sizes, places, strict=True)]
    return kernel, kernel


def _slice(image: Tensor, dim=0, start=None, end=None, step=1):
    steps, cut = [1] * image.ndim, [0] * image.ndim
    steps[dim], cut[dim] = step, -range(image.shape[dim])[start:].start
    return ((1, 1), steps[-2:], (1, 1), cut[-2:]) if image.ndim >= 4 else None


def _pad(image: Tensor, margins: Sequence[int], *_):
    left, _, top, *_ = (*margins, 0, 0)
    return ((1, 1), (1, 1), (1, 1), (top, left)) if image.ndim >= 4 else None


WINDOWS = {
    aten.convolution: _convolution,
    aten.max_pool2d_with_indices: _max_pool,
    aten.avg_pool2d: _avg_pool,
    aten.avg_pool3d: _avg_pool,  # across channels, in local response normalisation
    aten._adaptive_avg_pool2d: _adaptive_pool,
    aten.adaptive_max_pool2d: _adaptive_pool,
    aten.slice: _slice,
    aten.constant_pad_nd: _pad,
    aten.reflection_pad2d: _pad,
    aten.replication_pad2d: _pad,
}


class Watch(TorchDispatchMode):
    """Inside it, `field` knows the receptive field of every tensor that is computed from `image` (B, C, H, W), and
    `taken` the ids of all tensors that operations took.
    """

    def __init__(self, image: Tensor):
        super().__init__()
        # By id, since tensors compare number by number; with the tensor, so that no id is given twice.
        self._known = {id(image): (image, Field((1, 1), (1, 1)))}
        self.taken: set[int] = set()

    def field(self, tensor: Tensor) -> Field:
        """What a tensor sees of the image; of size 0 where it is not computed from it."""
        return self._known.get(id(tensor), (None, Field((0, 0), (0, 0))))[1]

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        results = operation(*args, **(kwargs or {}))
        taken = [*tensors(args)]
        self.taken.update(map(id, taken))
        seen = [tensor for tensor in taken if id(tensor) in self._known]
        if seen:
            for result in tensors([results]):
                self._known[id(result)] = (result, self._behind(operation.overloadpacket, args, seen, result))
        return results

    def _behind(self, operation, args: Sequence, seen: Sequence[Tensor], result: Tensor) -> Field:
        field = meeting(map(self.field, seen))
        if operation in WINDOWS and (window := WINDOWS[operation](*args)):
            return field.through(*window)
        if _places(result) == _greatest(map(_places, seen)):
            return field
        return field.whole


def _places(tensor: Tensor) -> tuple[int, ...]:
    """Height and width of maps; anything else is one place."""
    return tuple(tensor.shape[-2:]) if tensor.ndim >= 4 else (1, 1)


def tensors(values: Iterable) -> Iterator[Tensor]:
    """Those among the values, and within lists, tuples and dictionaries among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)
        elif isinstance(value, Mapping):
            yield from tensors(value.values())
