"""What an answer rests on, in pictures: saliency, guided backpropagation, Grad-CAM and its kin, occlusion, and all of
them side by side with a figure for how faithful each is.
"""

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
from cnnzoo.visualize.gradients import AT_ONCE
from cnnzoo.visualize.hooks import several, untouched
from cnnzoo.visualize.methods import FINE, METHODS, asked, check, maps_of
from cnnzoo.visualize.subject import Model, Pretrained, Subject, probabilities

ACROSS = 4  # methods beside each other
FULL = 99  # percentile of a map's values that has the full colour: the few largest would leave the rest dark


@dataclass(frozen=True)
class Attribution(drawing.Result):
    """For each of N images, where the evidence for a class lies."""

    net: str
    method: str
    layer: str  # whose maps were weighted; "" where the method asks for none
    names: tuple[str, ...]
    pixels: np.ndarray  # (N, H, W, C) uint8, the images as the net sees them
    maps: np.ndarray  # (N, H, W) float32; negative is what speaks against the class, where the method tells
    targets: np.ndarray  # (N,) int64, the class asked for
    classes: tuple[str, ...]  # its name, for each image
    probabilities: np.ndarray  # (N,) float32, what the net gives it

    def __str__(self) -> str:
        kinds = list(dict.fromkeys(self.classes))
        of = f"class {kinds[0]}" if len(kinds) == 1 else f"{len(kinds)} classes"
        what = f"{METHODS[self.method].title} of {self.net}{f' at {self.layer}' if self.layer else ''} for {of}"
        return f"{what}, {drawing.some(len(self.names), 'image')}" if len(self.names) > 1 else what

    def figure(self):
        """A row for each of the first images: the image, the map, and the one over the other."""
        count = min(len(self.names), drawing.DRAWN)
        rows = [
            [image, drawing.tinted(seen), drawing.heat(image, seen)]
            for image, seen in zip(self.pixels[:count], map(_capped, self.maps[:count]), strict=True)
        ]
        method = METHODS[self.method].title + (f" at {self.layer}" if self.layer else "")
        told = zip(self.names, self.classes, self.probabilities, strict=True)
        titles = [[Path(name).name, method, f"{kind}: {p:.1%}"] for name, kind, p in list(told)[:count]]
        return drawing.page(rows, titles)


@dataclass(frozen=True)
class Comparison(drawing.Result):
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
        for method, seen, row in zip(self.methods, map(_capped, self.maps), rows, strict=True):
            images.append(drawing.tinted(seen) if METHODS[method].family in FINE else drawing.heat(self.pixels, seen))
            titles.append(f"{row['method']}\n{_figures(row)}")
        parts = range(0, len(images), ACROSS)
        return drawing.page(*([row[i : i + ACROSS] for i in parts] for row in (images, titles)))


def saliency(
    model_or_run: Model,
    images: str | Path | Sequence,
    *,
    method: str = "gradient",
    class_: str | int | None = None,
    pretrained: Pretrained = False,
    size: int | None = None,
    device: str = "auto",
) -> Attribution:
    """Which pixels an answer depends on, by the gradient of the class's logit.

    Args:
        model_or_run: a net, a run, a run's folder or model.safetensors, or a net's name.
        images: files, folders, patterns, PIL images, uint8 arrays: see `Pictures`.
        method: gradient (the plain one), smoothgrad, integrated or input_x_gradient, see `gradients`.
        class_: name or number of the class asked for; None is the one predicted, for each image.
        pretrained: weights for a net's name; False is random ones.
        size: the side of the images as the net sees them; None is its own.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …

    Raises:
        InputError: for a method, a class or a net that is not there, images that cannot be read or are too small.
    """
    check(method, "saliency")
    return _attribution(Subject.open(model_or_run, pretrained, device), images, method, class_, size)


def guided(
    model_or_run: Model,
    images: str | Path | Sequence,
    *,
    class_: str | int | None = None,
    pretrained: Pretrained = False,
    size: int | None = None,
    device: str = "auto",
) -> Attribution:
    """The fine structure in an image that an answer depends on, by guided backpropagation; arguments as of `saliency`.

    It is sharp whatever the net has learned, see `faithfulness.sanity`.

    Raises InputError as that does, and for a net without ReLU and tanh.
    """
    return _attribution(Subject.open(model_or_run, pretrained, device), images, "guided", class_, size)


def gradcam(
    model_or_run: Model,
    images: str | Path | Sequence,
    *,
    method: str = "gradcam",
    layer: str | nn.Module | None = None,
    class_: str | int | None = None,
    pretrained: Pretrained = False,
    size: int | None = None,
    device: str = "auto",
) -> Attribution:
    """Where in an image a class is seen, by a layer's maps; further arguments as of `saliency`.

    Args:
        method: gradcam, gradcam++, hirescam, layercam or scorecam, see `cams`.
        layer: a stage's name, or a module or its path; None is the last stage whose maps have more than one place.

    Raises:
        InputError: as that does, and for a layer that is not there or has no maps.
    """
    check(method, "gradcam")
    return _attribution(Subject.open(model_or_run, pretrained, device), images, method, class_, size, layer)


def occlusion(
    model_or_run: Model,
    images: str | Path | Sequence,
    *,
    class_: str | int | None = None,
    pretrained: Pretrained = False,
    size: int | None = None,
    device: str = "auto",
) -> Attribution:
    """How far a class's logit falls where a part of the image is covered; arguments and errors as of `saliency`."""
    return _attribution(Subject.open(model_or_run, pretrained, device), images, "occlusion", class_, size)


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
) -> Comparison:
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
        logits = _logits(net, looked.x)
        target = subject.class_index(class_, logits)
        trial = partial(deletion_insertion, net, looked.x[0], int(target))
        chance = trial(np.random.default_rng(0).random(looked.x.shape[2:]))
        maps, curves = [], []
        for method in bars.show(methods, "comparing", unit="method"):
            maps.append(maps_of(net, looked.x, target, method, layer)[0].cpu().numpy())
            curves.append(trial(maps[-1]))
    probability = probabilities(subject.net, logits)[0, target].item()
    about = subject.name, looked.names[0], layer, looked.pixels[0], subject.classes[int(target)], probability
    return Comparison(*about, tuple(methods), np.stack(maps), tuple(curves), chance)


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


def overlays(net: nn.Module, pixels: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, str]:
    """Grad-CAM of the classes `targets` (N,) over images `pixels` `(N, H, W, C)` uint8, as the net's preprocessing has
    them: uint8 `(N, H, W, 3)`, and the name of the layer.

    Raises InputError for a net without maps.
    """
    subject = Subject.open(net)
    x = subject.normalised(pixels)
    parts = zip(x.split(AT_ONCE), torch.from_numpy(targets).to(x.device).split(AT_ONCE), strict=True)
    with untouched(net) as net:
        layer = cams.map_layer(net, x)
        maps = torch.cat([maps_of(net, *part, "gradcam", layer) for part in parts]).cpu().numpy()
    return np.stack([drawing.heat(*pair) for pair in zip(pixels, maps, strict=True)]), layer


def _attribution(
    subject: Subject,
    images: str | Path | Sequence,
    method: str,
    class_: str | int | None,
    size: int | None,
    layer: str | None = None,
) -> Attribution:
    looked, parts = subject.look(images, size), []
    choose = partial(subject.class_index, class_)
    bar = bars.show(total=len(looked), desc=METHODS[method].title, unit="image")
    with untouched(subject.net) as net, bar:
        layer = cams.map_layer(net, looked.x, layer) if METHODS[method].by_layer else ""
        for x in looked.x.split(AT_ONCE):
            maps, target, logits = asked(net, x, choose, method, layer)
            parts.append((maps, target, probabilities(net, logits).gather(1, target[:, None])[:, 0]))
            bar.update(len(x))
    maps, targets, likely = (torch.cat(each).cpu().numpy() for each in zip(*parts, strict=True))
    classes = tuple(subject.classes[target] for target in targets)
    return Attribution(subject.name, method, layer, looked.names, looked.pixels, maps, targets, classes, likely)


def _logits(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x)


def _figures(row: dict) -> str:
    return f"deletion {row['deletion']:.2f}, insertion {row['insertion']:.2f}"


def _capped(values: np.ndarray) -> np.ndarray:
    """A map for the eye (Smilkov et al. 2017, section 3.1); one that is nearly empty stays as it is."""
    top = np.percentile(np.abs(values), FULL)
    return values.clip(-top, top) if top else values
