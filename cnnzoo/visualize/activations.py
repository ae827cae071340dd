"""What the layers of a net make of pictures: their feature maps, and one picture's whole walk through them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cnnzoo.errors import InputError, dimensions
from cnnzoo.telling import Tell
from cnnzoo.visualize import drawing
from cnnzoo.visualize.gradients import AT_ONCE
from cnnzoo.visualize.hooks import layer_of, several, stages_of, untouched, watching
from cnnzoo.visualize.partway import as_maps
from cnnzoo.visualize.subject import Looked, Model, Pretrained, Subject, probabilities

SHOWN = 36  # maps of a layer
BRIEF = 9  # maps of a stage in a walk
TOP = 5  # classes in a walk
PANEL = 2.7  # inches that a stage of a walk is wide


@dataclass(frozen=True)
class Activations(drawing.Result):
    """What layers answer to B pictures."""

    maps: dict[str, np.ndarray]  # layer -> (B, C, H, W) float32; H = W = 1 past the flattening
    pixels: np.ndarray  # (B, h, w, c) uint8, the pictures as the net sees them
    pictures: tuple[str, ...]
    name: str  # the net's

    def __str__(self) -> str:
        layers = ", ".join(f"{layer} ({dimensions(maps.shape[1:])})" for layer, maps in self.maps.items())
        return f"the strongest maps of {drawing.some(len(self.pictures), 'picture')}, layers {layers} of {self.name}"

    def strongest(self, layer: str, picture: int = 0) -> np.ndarray:
        """The channels of a layer, `(C,)` int64, by the mean size of their activations, the strongest first."""
        return np.argsort(-np.abs(self.maps[layer][picture]).mean((1, 2)), kind="stable")

    def grid(self, layer: str, picture: int = 0, many: int = SHOWN) -> np.ndarray:
        """The strongest maps as one image, uint8 `(h, w, 3)`, each map on a scale of its own; of a layer past the
        flattening all units, in the net's order, on one scale.
        """
        maps = self.maps[layer][picture]
        if maps.shape[1:] == (1, 1):
            return drawing.tinted(_mosaic(maps.ravel()))
        best = self.strongest(layer, picture)[:many]
        return drawing.grid(np.stack([drawing.tinted(maps[channel]) for channel in best]))

    def figure(self):
        """A row for each of the first pictures."""
        pictures = range(len(self.pictures))[: drawing.DRAWN]
        rows = [[self.pixels[at], *(self.grid(layer, at) for layer in self.maps)] for at in pictures]
        titles = [[Path(self.pictures[at]).name, *(self._title(layer) for layer in self.maps)] for at in pictures]
        return drawing.page(rows, titles, side=3.2)

    def _title(self, layer: str) -> str:
        _, channels, height, width = self.maps[layer].shape
        shown = f"all {channels}" if (height, width) == (1, 1) else f"{min(channels, SHOWN)} of {channels}"
        return f"{layer}: {shown}, {height}x{width}"


def activations(
    model_or_run: Model,
    pictures: str | Path | Sequence,
    layers: str | nn.Module | Sequence[str | nn.Module] | None = None,
    *,
    pretrained: Pretrained = False,
    size: int | None = None,
    device: str = "auto",
    tell: Tell = print,
) -> Activations:
    """The feature maps of some layers.

    Args:
        model_or_run: a net, a run, or a net's name; see `Subject.open`.
        pictures: files, folders, PIL images or uint8 arrays; see `Subject.look`.
        layers: one or several, by stages, modules of the net or their paths; None is every stage, or the last
            convolution of a net without stages.
        pretrained: weights for a net's name.
        size: the height and width that pictures are brought to; None is the net's own.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
        tell: is given a line on pictures that cannot be read, which are left out.

    Raises:
        InputError: for a layer that is not there, or whose output is no map; where no picture can be read.
    """
    subject = Subject.open(model_or_run, pretrained, device)
    return _look(subject, subject.look(pictures, size, tell), layers)[0]


def _look(subject: Subject, looked: Looked, layers: str | Sequence[str] | None) -> tuple[Activations, Tensor]:
    """The maps, and the logits `(B, K)` beside them."""
    layers = [
        layer_of(subject.net, layer).name for layer in several(layers or stages_of(subject.net) or subject.layer())
    ]
    logits, parts = [], []
    with untouched(subject.net) as net, watching(net, layers) as seen, torch.no_grad():
        for x in looked.x.split(AT_ONCE):
            logits.append(net(x))
            parts.append([as_maps(seen[layer], layer).float().cpu().numpy() for layer in layers])
    maps = dict(zip(layers, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    return Activations(maps, looked.pixels, looked.names, subject.name), torch.cat(logits)


def _mosaic(values: np.ndarray) -> np.ndarray:
    """`(N,)` folded into a square, `(side, side)`, with zeros at the end."""
    side = math.ceil(math.sqrt(len(values)))
    return np.pad(values, (0, side * side - len(values))).reshape(side, side)


@dataclass(frozen=True)
class Walk(drawing.Result):
    """One picture through a whole net."""

    activations: Activations  # of the one picture, every stage
    classes: tuple[str, ...]
    probabilities: np.ndarray  # (K,) float32

    def __str__(self) -> str:
        stages, (best, share) = len(self.activations.maps), self.top[0]
        picture = Path(self.activations.pictures[0]).name
        return f"{picture} through {stages} stages of {self.activations.name}, taken for {best} ({share:.1%})"

    @property
    def top(self) -> list[tuple[str, float]]:
        """The most likely classes with their probabilities."""
        order = np.argsort(-self.probabilities, kind="stable")[:TOP]
        return [(self.classes[place], float(self.probabilities[place])) for place in order]

    def figure(self):
        from matplotlib.figure import Figure  # here, since matplotlib takes a while to import

        shown = self.activations
        panels = [(shown.pixels[0], Path(shown.pictures[0]).name)]
        for stage, maps in shown.maps.items():
            panels.append((shown.grid(stage, many=BRIEF), f"{stage}  {dimensions(maps.shape[1:])}"))
        down = math.ceil((len(panels) + 1) / 4)
        across = math.ceil((len(panels) + 1) / down)
        figure = Figure((PANEL * across, (PANEL + 0.3) * down), dpi=110, layout="constrained")
        figure.suptitle(shown.name, fontsize=11)
        places = figure.subplots(down, across, squeeze=False).ravel()
        for axes in places:
            axes.axis("off")
        for axes, (image, title) in zip(places, panels, strict=False):
            axes.imshow(drawing.colour(image), interpolation="nearest")
            axes.set_title(drawing.fitted(title, PANEL, 9), fontsize=9)
        self._draw_answer(places[len(panels)])
        return figure

    def _draw_answer(self, axes) -> None:
        axes.axis("on")
        for place, (name, share) in enumerate(self.top):
            axes.barh(place, share, color="tab:blue", alpha=0.5)
            text = drawing.fitted(f"{name}  {share:.1%}", PANEL, 8)
            axes.text(0.02, place, text, va="center", fontsize=8)
        axes.set(xlim=(0, 1), ylim=(TOP - 0.4, -0.6), xticks=[], yticks=[])
        axes.set_title("answer", fontsize=9)


def walk(
    model_or_run: Model,
    picture: str | Path | object,
    *,
    pretrained: Pretrained = False,
    size: int | None = None,
    device: str = "auto",
) -> Walk:
    """One picture through the whole net: the input, the strongest maps of every stage, and the answer.

    Args:
        model_or_run: a net, a run, or a net's name; see `Subject.open`.
        picture: a file, a PIL image or a uint8 array.
        pretrained: weights for a net's name.
        size: the height and width that the picture is brought to; None is the net's own.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …

    Returns:
        Walk; its probabilities are those of `cnnzoo.predict`.

    Raises:
        InputError: for a picture that cannot be read, for several, and for a net without stages or classes.
    """
    subject = Subject.open(model_or_run, pretrained, device)
    if not stages_of(subject.net):
        raise InputError(f"{subject.name} has no stages to walk through")
    if not subject.classes:
        raise InputError(f"{subject.name} was made with num_classes=0, so it has no answer; activations shows its maps")
    looked = subject.look(picture if isinstance(picture, str | Path | list | tuple) else [picture], size)
    if len(looked) > 1:
        raise InputError(f"a walk is for one picture, not for {len(looked)}; cnnzoo visualize activations takes many")
    shown, logits = _look(subject, looked, None)
    return Walk(shown, subject.classes, probabilities(subject.net, logits)[0].cpu().numpy())
