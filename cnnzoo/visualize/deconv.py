"""What excites a channel of a layer: the images that do so most, and what in their pixels does.

Zeiler, Fergus: Visualizing and understanding convolutional networks, 2013, arXiv 1311.2901, section 2.1. A deconvnet
carries one place's activation back to the pixels, all others set to zero: through the transposed filters, through
unpooling into the places where the maxima were (the switches), and rectified wherever the net rectifies.

That is how a gradient goes back, but for what happens at a ReLU (Simonyan, Vedaldi, Zisserman: Deep inside
convolutional networks, 2013, arXiv 1312.6034, section 4), so it is computed as one, with a deconvnet's rule there. In a
net that is a chain of layers this is the deconvnet itself. In others the signal goes back into each of the branches
that meet, and where one map is multiplied by another (a gate), that one counts as a fixed weight.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnzoo import bars
from cnnzoo.errors import at_least, counted
from cnnzoo.models._lrn import local_response_norm
from cnnzoo.telling import Tell
from cnnzoo.visualize import drawing
from cnnzoo.visualize.hooks import Layer, layer_of, untouched
from cnnzoo.visualize.partway import breadth, chosen, maps_of, windows
from cnnzoo.visualize.rules import RELU, TANH, Ruled
from cnnzoo.visualize.strongest import Album, strongest
from cnnzoo.visualize.subject import Model, Pretrained, Subject

CHANNELS = 6  # that are shown where nobody names any

# Contrast normalisation is left out, as in the paper. It has no rule for tanh: there, too, the net's own function keeps
# the signal in the range of what the layer below can be.
DECONVNET = {
    RELU: lambda signal, x: signal.relu(),
    TANH: lambda signal, x: signal.tanh(),
    (functional.local_response_norm, local_response_norm): lambda signal, x: signal,
}


@dataclass(frozen=True)
class Deconvolved(drawing.Result):
    """Of U channels the K images that excite each most, the strongest first, and what a deconvnet shows in them."""

    name: str  # the net's
    layer: str
    is_chain: bool  # up to this layer, so that this is the deconvnet itself
    images: int  # that were looked through
    channels: np.ndarray  # (U,) int64
    pictures: tuple[tuple[str, ...], ...]  # U x K, the images' names
    activations: np.ndarray  # (U, K) float32, at the place that answers most strongly
    windows: np.ndarray  # (U, K, 4) int64: top, left, bottom and right of what that place sees
    pixels: np.ndarray  # (U, K, H, W, C) uint8, the images as the net sees them
    reconstructions: np.ndarray  # (U, K, H, W, C) float32, in units of the net's normalised input

    def __str__(self) -> str:
        channels = f"channel{'s' * (len(self.channels) > 1)} {', '.join(map(str, self.channels))}"
        images = counted(self.images, "image")
        return f"what excites {channels} of layer {self.layer} of {self.name}, by {self.method}; {images}"

    @property
    def method(self) -> str:
        return "a deconvnet" if self.is_chain else "a deconvnet's rules, through branches"

    def patches(self, images: np.ndarray) -> np.ndarray:
        """Images `(U, K, H, W, C)`, the pixels or the reconstructions, cut to the windows."""
        return np.stack(
            [
                np.stack([one[top:bottom, left:right] for one, (top, left, bottom, right) in zip(own, at, strict=True)])
                for own, at in zip(images, self.windows, strict=True)
            ]
        )

    def figure(self):
        """For each channel the reconstructions, 0 in grey and each on a scale of its own, and beside them the same
        patches of the images, with the largest and the smallest of their activations.
        """
        cells, titles = [], []
        both = self.patches(self.reconstructions), self.patches(self.pixels)
        for channel, activations, signals, pixels in zip(self.channels, self.activations, *both, strict=True):
            cells += [drawing.grid([drawing.scaled(signal) for signal in signals]), drawing.grid(pixels)]
            most, least = (drawing.brief(activations[place]) for place in (0, -1))
            titles += [f"channel {channel}", f"activations {most} to {least}"]
        across = min(4, len(cells))
        rows, named = ([whole[i : i + across] for i in range(0, len(whole), across)] for whole in (cells, titles))
        figure = drawing.page(rows, named)
        figure.suptitle(f"{self.name}, {self.layer}: what excites a channel, by {self.method}", fontsize=9, wrap=True)
        return figure


def deconv(
    model_or_run: Model,
    images: str | Path | Iterable,
    layer: str | None = None,
    channels: int | Sequence[int] | None = None,
    *,
    pretrained: Pretrained = False,
    top: int = 9,
    device: str = "auto",
    tell: Tell = print,
) -> Deconvolved:
    """The images that excite channels of a layer most, and the activations carried back to their pixels.

    Args:
        model_or_run: a net, a run, or a net's name; see `Subject.open`.
        images: to look through: a data set by name, such as digits, or pictures, folders and patterns (see `Pictures`).
        layer: a stage or a module's path; None is the last stage with maps.
        channels: one or several of the layer; None is the few that are excited most.
        pretrained: weights for a net's name.
        top: images for each channel, at most.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
        tell: is given a line on images that cannot be read.

    Raises:
        InputError: for a layer or channel that is not there, and where no image can be read.
    """
    at_least("top", top)
    subject = Subject.open(model_or_run, pretrained, device)
    album, blank = Album(images, subject), subject.blank()
    with untouched(subject.net) as net:
        layer = layer_of(net, layer, blank)
        if channels is not None:  # complains before the work
            channels = chosen(channels, breadth(net, layer, blank), layer.name)
        found = strongest(net, layer, album, top, tell)
        if channels is None:
            channels = found.activations[:, 0].argsort()[::-1][:CHANNELS].copy()
        pixels, shown, is_chain = [], [], True
        for channel in bars.show(channels, desc="carrying back", unit="channel"):
            pixels.append(album.take(found.images[channel]))
            x = subject.normalised(pixels[-1])
            places = torch.from_numpy(found.places[channel])
            signal, is_chain = carried_back(net, layer, x, torch.full((len(x),), int(channel)), places)
            shown.append(signal.permute(0, 2, 3, 1).cpu().numpy())
        seen = windows(net, layer, x, found.places[channels])
    names = tuple(tuple(album.names[number] for number in found.images[channel]) for channel in channels)
    activations = found.activations[channels]
    return Deconvolved(
        *(subject.name, layer.name, is_chain, found.among, channels, names),
        *(activations, seen, np.stack(pixels), np.stack(shown)),
    )


def carried_back(net: nn.Module, layer: Layer, x: Tensor, channels: Tensor, places: Tensor) -> tuple[Tensor, bool]:
    """What a deconvnet makes of one activation in each image, and whether the net is a chain up to there.

    Args:
        net: as `untouched` has it.
        layer: whose activations.
        x: images `(B, C, H, W)`.
        channels: `(B,)` int64, of the layer.
        places: `(B, 2)` int64, row and column in its map; 0, 0 past the flattening.

    Returns:
        `(B, C, H, W)`, and a truth.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad(), Ruled(DECONVNET):
        maps = maps_of(net, layer, x)
        alone, unit = torch.zeros_like(maps), (torch.arange(len(x)), channels, *places.T)
        alone[unit] = maps[unit].detach()
        return torch.autograd.grad(maps, x, alone)[0], _is_chain(maps)


def _is_chain(output: Tensor) -> bool:
    """Whether no two branches meet on the way to it."""
    step = output.grad_fn
    while step is not None:
        behind = [one for one, _ in step.next_functions if one is not None]
        if len(behind) > 1:
            return False
        step = behind[0] if behind else None
    return True
