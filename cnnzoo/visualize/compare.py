"""Several methods on one image, side by side, with figures for how faithful each is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cnnzoo import bars, tables
from cnnzoo.errors import InputError
from cnnzoo.shown import Table
from cnnzoo.visualize import cams, drawing, gradients
from cnnzoo.visualize.faithfulness import Curves, deletion_insertion
from cnnzoo.visualize.hooks import several, untouched
from cnnzoo.visualize.methods import FINE, METHODS, check, maps_of
from cnnzoo.visualize.subject import Model, Pretrained, Subject, probabilities

ACROSS = 4  # methods beside each other


@dataclass(frozen=True)
class MethodComparison(drawing.Result):
    """M methods on one image, with what deletion and insertion say of each, see `faithfulness`."""

    net: str
    name: str
    layer: str  # of the methods that ask for one
    pixels: np.ndarray  # (H, W, C) uint8, the image as the net sees it
    class_: str
    probability: float  # what the net gives the class
    methods: tuple[str, ...]
    maps: np.ndarray  # (M, H, W) float32
    curves: tuple[Curves, ...]  # of each method
    chance: Curves  # of pixels in random order, which a method should do better than

    def __str__(self) -> str:
        best = max(zip(self.methods, self.curves, strict=True), key=lambda pair: pair[1].inserted - pair[1].deleted)[0]
        at = f" at {self.layer}" if self.layer else ""
        most = METHODS[best].title
        return f"{len(self.methods)} methods on {self.net}{at} for class {self.class_}, most faithful: {most}"

    def rows(self) -> list[dict]:
        """What was measured, a row for each method and one for chance."""
        titles = [METHODS[method].title for method in self.methods]
        named = [*zip(titles, self.curves, strict=True), ("random order", self.chance)]
        return [{"method": name, "deletion": c.deleted, "insertion": c.inserted} for name, c in named]

    def table(self) -> str:
        """The same for a person: a faithful map has a low figure for deletion and a high one for insertion."""
        return str(self._table())

    def _table(self) -> Table:
        figures = [(row["method"], f"{row['deletion']:.3f}", f"{row['insertion']:.3f}") for row in self.rows()]
        return Table(("", "deletion", "insertion"), figures)

    def to_dict(self) -> dict:
        asked = {"net": self.net, "image": self.name, "layer": self.layer, "class": self.class_}
        return asked | {"probability": self.probability, "methods": self.rows()}

    def to_csv(self) -> str:
        return tables.to_csv(self.rows(), {"method": str, "deletion": float, "insertion": float})

    def figure(self):
        """The image with the figures of chance, then each method with its own: a fine map by itself, a coarse one over
        the image.
        """
        *rows, chance = self.rows()
        images, titles = [self.pixels], [f"{self.class_}: {self.probability:.1%}\nby chance {_figures(chance)}"]
        for method, seen, row in zip(self.methods, map(drawing.capped, self.maps), rows, strict=True):
            images.append(drawing.tinted(seen) if METHODS[method].family in FINE else drawing.heat(self.pixels, seen))
            titles.append(f"{row['method']}\n{_figures(row)}")
        parts = range(0, len(images), ACROSS)
        return drawing.page(*([row[i : i + ACROSS] for i in parts] for row in (images, titles)))


def compare(
    model_or_run: Model,
    image: str | Path | Image.Image | np.ndarray,
    *,
    methods: str | Sequence[str] = (),
    layer: str | None = None,
    class_: str | int | None = None,
    pretrained: Pretrained = False,
    size: int | None = None,
    device: str = "auto",
) -> MethodComparison:
    """Several methods on one image and class, and how faithful each is; further arguments as of `gradcam`.

    Args:
        image: one, as `Pictures` takes it.
        methods: one or several of `METHODS`; by default all that the net takes (guided needs ReLU or tanh, others need
            maps) but Score-CAM, which asks for as many passes as the layer has maps.

    Raises:
        InputError: as `saliency` and `gradcam` do, and for several images.
    """
    subject = Subject.open(model_or_run, pretrained, device)
    methods = several(methods)
    for method in methods:
        check(method)
    looked = subject.look([image], size)
    if len(looked) > 1:
        raise InputError(f"methods are compared on one image, but {image} holds {len(looked)}")
    with untouched(subject.net) as net:
        methods, layer = _comparable(net, looked.x, methods, layer)
        with torch.no_grad():
            logits = net(looked.x)
        target = subject.class_index(class_, logits)
        trial = partial(deletion_insertion, net, looked.x[0], int(target))
        chance = trial(np.random.default_rng(0).random(looked.x.shape[2:]))
        maps, curves = [], []
        for method in bars.show(methods, "comparing", unit="method"):
            maps.append(maps_of(net, looked.x, target, method, layer)[0].cpu().numpy())
            curves.append(trial(maps[-1]))
    probability = probabilities(subject.net, logits)[0, target].item()
    about = subject.name, looked.names[0], layer, looked.pixels[0], subject.classes[int(target)], probability
    return MethodComparison(*about, tuple(methods), np.stack(maps), tuple(curves), chance)


def _comparable(net: nn.Module, x: Tensor, methods: Sequence[str], layer: str | None) -> tuple[Sequence[str], str]:
    """The methods to compare, and the layer of those that ask for one; "" where none does."""
    if methods and not any(METHODS[method].by_layer for method in methods):
        return methods, ""
    by_pixels = [method for method, one in METHODS.items() if not one.by_layer]
    if not gradients.can_guide(net, x):
        by_pixels.remove("guided")
    by_layer = [method for method, one in METHODS.items() if one.weigh]
    try:
        return methods or by_pixels + by_layer, cams.map_layer(net, x, layer)
    except InputError:
        if methods or layer:
            raise
        return by_pixels, ""


def _figures(row: dict) -> str:
    return f"deletion {row['deletion']:.2f}, insertion {row['insertion']:.2f}"
