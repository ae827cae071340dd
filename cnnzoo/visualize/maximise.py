"""Pictures made to excite a net: its channels, units or classes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from cnnzoo import bars
from cnnzoo.data.lookup import look_up
from cnnzoo.errors import InputError, at_least, counted
from cnnzoo.visualize import drawing
from cnnzoo.visualize.fourier import AT_ONCE, Draw, from_pixels, normalised, to_pixels, variation
from cnnzoo.visualize.hooks import Layer, layer_of, several, stages_of, untouched
from cnnzoo.visualize.partway import breadth, chosen, field, maps_of
from cnnzoo.visualize.rules import RELU, Rule, Ruled
from cnnzoo.visualize.subject import Model, Pretrained, Subject

MANY = 6  # pictures for a layer where nobody names channels, and to a row of a page
RATE = 0.1  # of Adam, on coefficients that start with a deviation of 0.01
FADE = 0.3  # weight decay of the coefficients: so colours do not saturate, where there is no slope
SHIFT, ZOOM, TURN = 1 / 16, 0.1, 10.0  # how far a picture is moved, at most: of its side, of its size, in degrees
SMOOTH = 3.0  # what the total variation counts, against an activation in deviations of its layer
LEAST = 32  # pixels of a picture's side, where the net takes larger ones


@dataclass(frozen=True)
class Maximised(drawing.Result):
    """N pictures, each made to excite one channel, unit or class."""

    name: str  # the net's
    what: str  # channel, unit or class
    layers: tuple[str, ...]  # of each picture
    channels: np.ndarray  # (N,) int64, or numbers of classes
    labels: tuple[str, ...]  # of each picture, for a person
    pixels: tuple[np.ndarray, ...]  # N of (H, W, C) uint8, those of a layer of one size
    activations: np.ndarray  # (N,) float32, of exactly these pixels
    at_first: np.ndarray  # (N,) float32, of the noise that they were made from

    def __str__(self) -> str:
        layers = ", ".join(dict.fromkeys(self.layers))
        what = counted(len(self.labels), self.what, "classes" if self.what == "class" else "")
        where = "" if self.what == "class" else f", layer {layers}"
        return f"pictures that excite {what}{where} of {self.name}"

    def figure(self):
        """A row for each layer, or several."""
        rows, titles = [], []
        for layer in dict.fromkeys(self.layers):
            own = [place for place, name in enumerate(self.layers) if name == layer]
            for start in range(0, len(own), MANY):
                line = own[start : start + MANY]
                rows.append([self.pixels[place] for place in line])
                of_layer = "" if self.what == "class" else f"{layer}, "
                titles.append(
                    [f"{of_layer}{self.labels[place]}: {drawing.brief(self.activations[place])}" for place in line]
                )
        figure = drawing.page(rows, titles)
        figure.suptitle(f"{self.name}: what excites a {self.what} most", fontsize=9, wrap=True)
        return figure


def maximise(
    model_or_run: Model,
    layer: str | None = None,
    channels: int | Sequence[int] | None = None,
    *,
    pretrained: Pretrained = False,
    classes: str | int | Sequence[str | int] | None = None,
    unit: bool = False,
    steps: int = 128,
    size: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Maximised:
    """Pictures that excite channels, units or classes, by gradient ascent from noise.

    Olah, Mordvintsev, Schubert: Feature visualization, Distill 2017, doi 10.23915/distill.00007. A picture consists of
    Fourier coefficients, scaled so that all frequencies are as strong as in photos, in colours that vary independently;
    each step sees it shifted, scaled and turned at random, and its total variation counts against it. (The movement
    becomes less and less, since a filter of 3x3 pixels cannot be served at several places at once.)

    Args:
        model_or_run: a net, a run, or a net's name; see `Subject.open`.
        layer: a stage or a module's path; None is every stage, or with `channels` the last with maps.
        channels: one or several of the layer; None is a few, evenly spread.
        pretrained: weights for a net's name.
        classes: one or several, by names or numbers, instead of layer and channels: their logits are raised.
        unit: raise the place at the centre of a channel's map, instead of the map's mean.
        steps: of Adam.
        size: the pictures' side; None is twice what a place of the layer sees, or the net's own for what sees so much:
            what excites an edge detector shows in a few pixels, and is hard to find among many.
        seed: of noise and movement; the same gives the same pictures on the same machine.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …

    Raises:
        InputError: for a layer, channel, class or size that cannot be.
    """
    at_least("steps", steps)
    at_least("seed", seed, 0)
    if classes is not None and (layer is not None or channels is not None or unit):
        raise InputError("classes are excited at the net's answer, so they go without layer, channels and unit")
    subject = Subject.open(model_or_run, pretrained, device)
    with untouched(subject.net) as net:
        subject = replace(subject, net=net)
        if classes is not None:
            goals = _for_classes(subject, classes, size)
        else:
            goals = _for_channels(subject, size, layer, channels, unit)
        goals = [part for goal in goals for part in goal.in_parts()]
        with bars.show(total=steps * len(goals), desc="maximising", unit="step") as bar:
            made = [_ascend(subject, goal, steps, seed, bar.update) for goal in goals]
    pixels, activations, at_first = zip(*made, strict=True)
    return Maximised(
        subject.name,
        "class" if classes is not None else "unit" if unit else "channel",
        tuple(goal.layer.name for goal in goals for _ in goal.channels),
        np.concatenate([goal.channels for goal in goals]),
        tuple(label for goal in goals for label in goal.labels),
        tuple(picture for part in pixels for picture in part),
        *(np.concatenate(activations), np.concatenate(at_first)),
    )


@dataclass(frozen=True)
class _Goal:
    """What a batch of pictures is to excite."""

    shape: tuple[int, int, int]  # of a picture: channels, height and width
    layer: Layer
    channels: np.ndarray  # (B,)
    labels: tuple[str, ...]
    unit: bool

    def activation(self, net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(B,)`, and the deviation of all that the layer says."""
        maps = maps_of(net, self.layer, x)
        own = maps[torch.arange(len(x)), torch.from_numpy(self.channels)]  # (B, h, w)
        return own[:, own.shape[1] // 2, own.shape[2] // 2] if self.unit else own.mean((1, 2)), maps.std(correction=0)

    def in_parts(self) -> list["_Goal"]:
        """The same for batches that a forward pass can take."""
        starts = range(0, len(self.channels), AT_ONCE)
        parts = [slice(start, start + AT_ONCE) for start in starts]
        return [replace(self, channels=self.channels[part], labels=self.labels[part]) for part in parts]


def _for_classes(subject: Subject, classes: str | int | Sequence[str | int], size: int | None) -> list[_Goal]:
    classes = several(classes)
    if not classes:
        raise InputError("no class is named; give some, or leave them out")
    numbers = np.array([subject.class_number(which) for which in classes], np.int64)
    labels = tuple(subject.classes[number] for number in numbers)
    return [_Goal(subject.blank(size).shape[1:], Layer("class", subject.net), numbers, labels, False)]


def _for_channels(
    subject: Subject, size: int | None, layer: str | None, channels: int | Sequence[int] | None, unit: bool
) -> list[_Goal]:
    """One for each layer."""
    whole = subject.blank(size)
    last_or_named = layer is not None or channels is not None
    goals = []
    for name in [layer] if last_or_named else stages_of(subject.net) or [None]:
        found = layer_of(subject.net, name, whole)
        many = breadth(subject.net, found, whole)
        spread = np.arange(min(many, MANY)) * many // min(many, MANY)
        own = chosen(spread if channels is None else channels, many, found.name)
        labels = tuple(f"{'unit' if unit else 'channel'} {channel}" for channel in own)
        shape = whole.shape[1:] if size else _enough(subject, found, whole)
        goals.append(_Goal(shape, found, own, labels, unit))
    return goals


def _enough(subject: Subject, layer: Layer, whole: Tensor) -> tuple[int, int, int]:
    """The shape of a picture of twice what a place of the layer sees, within that of a `whole` one."""
    channels, *sides = whole.shape[1:]
    least = max(LEAST, getattr(subject.net, "min_size", 1))
    seen = field(subject.net, layer, whole).size
    return channels, *(int(min(max(2 * own, least), side)) for own, side in zip(seen, sides, strict=True))


def _ascend(
    subject: Subject, goal: _Goal, steps: int, seed: int, stepped: Callable[[], object]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures `(B, H, W, C)` uint8, their activations and those at first, both `(B,)`."""

    def activation(pictures: Tensor) -> tuple[Tensor, Tensor]:
        return goal.activation(subject.net, normalised(pictures, subject.preprocess))

    random = torch.Generator().manual_seed(seed)
    draw = Draw(len(goal.channels), goal.shape, subject.device, random)
    optimizer = torch.optim.AdamW([draw.coefficients], lr=RATE, weight_decay=FADE)
    with torch.no_grad():
        at_first, deviation = activation(draw.pictures())
    deviation = deviation if deviation > 0 else torch.ones_like(deviation)
    raised = at_first
    for step in range(steps):
        with torch.enable_grad():
            pictures = draw.pictures()
            with Ruled({RELU: _reviving(raised == 0)}):
                raised, _ = activation(moved(pictures, random, 1 - step / steps))
            loss = SMOOTH * variation(pictures, 1) - raised / deviation
            draw.coefficients.grad = torch.autograd.grad(loss.sum(), draw.coefficients)[0]
        optimizer.step()
        stepped()
    with torch.no_grad():
        pixels = to_pixels(draw.pictures())
        reached, _ = activation(from_pixels(pixels, subject.device))
    return pixels, reached.cpu().numpy(), at_first.cpu().numpy()


def _reviving(silent: Tensor) -> Rule:
    """How a signal goes back through ReLU. What excites nothing has no gradient to go by: where the goal of a picture
    is `silent` (B,), the units that it consists of are raised as if there were no ReLU behind them.
    """
    waiting = silent.clone()  # for the last ReLU before the goal, which the signal comes to first

    def rule(signal: Tensor, x: Tensor) -> Tensor:
        raises = waiting.view(-1, *[1] * (x.ndim - 1)) & (signal < 0)  # the loss falls where the unit rises
        waiting.logical_and_(~signal.flatten(1).any(1))
        return torch.where((x > 0) | raises, signal, 0)

    return rule


def moved(pictures: Tensor, random: torch.Generator, far: float = 1.0) -> Tensor:
    """Each picture `(B, C, H, W)` shifted, scaled and turned by draws of its own, in one resampling; by at most a share
    `far` of the most.
    """
    shift_x, shift_y, zoom, turn = far * (2 * torch.rand(4, len(pictures), generator=random) - 1).double()
    angle, scale = torch.deg2rad(turn * TURN), 1 + zoom * ZOOM
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = ((cos, -sin, 2 * SHIFT * shift_x), (sin, cos, 2 * SHIFT * shift_y))  # whole sides are 2 wide
    matrices = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1).to(pictures)  # (B, 2, 3)
    return look_up(pictures, matrices, outside="reflection")
