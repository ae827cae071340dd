"""A net up to one of its layers, and not a step farther."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cnnzoo.errors import InputError, quoted
from cnnzoo.receptive_field import Field, Watch
from cnnzoo.visualize.hooks import Layer, single_tensor, takes_no_part


class _Arrived(Exception):
    def __init__(self, output: object):
        self.output = output


def output_of(net: nn.Module, layer: Layer, x: Tensor) -> Tensor:
    """What a layer, or the net itself, makes of images `(B, C, H, W)`; what lies behind it is not computed.

    Of a layer that is used several times it is the first output. Raises InputError for one that is not used, and for
    one that gives no single tensor.
    """

    def stop(module: nn.Module, inputs: tuple, output: object) -> None:
        raise _Arrived(output)

    with layer.module.register_forward_hook(stop):
        try:
            net(x)
        except _Arrived as arrived:
            return single_tensor(arrived.output, layer.name)
    raise takes_no_part(layer.name)


def as_maps(output: Tensor, layer: str) -> Tensor:
    """A layer's output as maps `(B, C, H, W)`, of one place past the flattening. Raises InputError for anything
    else.
    """
    if output.ndim == 2:
        output = output[:, :, None, None]
    if output.ndim != 4:
        raise InputError(f"layer {layer} gives {tuple(output.shape)}, which are no maps (B, C, H, W)")
    return output


def maps_of(net: nn.Module, layer: Layer, x: Tensor) -> Tensor:
    """`output_of` as maps, see `as_maps`."""
    return as_maps(output_of(net, layer, x), layer.name)


def breadth(net: nn.Module, layer: Layer, x: Tensor) -> int:
    """How many channels a layer has, for images like `x` (B, C, H, W)."""
    with torch.no_grad():
        return maps_of(net, layer, x[:1]).shape[1]


def chosen(channels: int | Sequence[int], many: int, layer: str) -> np.ndarray:
    """Channels of a layer that has so many, `(U,)` int64. Raises InputError for one that it has not."""
    given, channels = channels, np.atleast_1d(np.asarray(channels))
    if not channels.size:
        raise InputError("no channel is named; give some, or leave them out")
    if channels.ndim > 1 or channels.dtype.kind not in "iu":  # 1.7 is not channel 1, nor True
        raise InputError(f"channels are whole numbers, one or several, not {quoted(given)}")
    if len(wrong := channels[(channels < 0) | (channels >= many)]):
        raise InputError(f"channel {wrong[0]} is out of range: {layer} has {many}, counted from 0")
    return channels.astype(np.int64)


def field(net: nn.Module, layer: Layer, x: Tensor) -> Field:
    """What a place of a layer's maps sees of images like `x` (B, C, H, W)."""
    image = x[:1].detach()
    with torch.no_grad(), Watch(image) as watch:
        return watch.field(output_of(net, layer, image))


def windows(net: nn.Module, layer: Layer, x: Tensor, places: np.ndarray) -> np.ndarray:
    """What places `(…, 2)`, rows and columns, of a layer's maps see of images like `x` (B, C, H, W).

    Returns `(…, 4)` int64: top, left, bottom and right, all of one size, moved where they would reach over the edge.
    """
    seen, whole = field(net, layer, x), np.array(x.shape[-2:])
    size = np.minimum(seen.size, whole).astype(np.int64)  # an infinite one sees the whole image
    least = (np.array(seen.start) + places * np.array(seen.stride)).clip(0, whole - size)
    return np.concatenate([least, least + size], axis=-1)
