"""What an answer rests on, in pictures: saliency, guided backpropagation, Grad-CAM and its kin, occlusion."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cnnzoo import bars
from cnnzoo.device import batch_on
from cnnzoo.telling import Tell
from cnnzoo.visualize import cams, drawing
from cnnzoo.visualize.gradients import AT_ONCE
from cnnzoo.visualize.hooks import untouched
from cnnzoo.visualize.methods import METHODS, asked, check, maps_of
from cnnzoo.visualize.subject import Model, Pretrained, Subject, probabilities


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
            for image, seen in zip(self.pixels[:count], map(drawing.capped, self.maps[:count]), strict=True)
        ]
        method = METHODS[self.method].title + (f" at {self.layer}" if self.layer else "")
        told = zip(self.names, self.classes, self.probabilities, strict=True)
        titles = [[Path(name).name, method, f"{kind}: {p:.1%}"] for name, kind, p in list(told)[:count]]
        return drawing.page(rows, titles)


def saliency(
    model_or_run: Model,
    images: str | Path | Sequence,
    *,
    method: str = "gradient",
    class_: str | int | None = None,
    pretrained: Pretrained = False,
    size: int | None = None,
    device: str = "auto",
    tell: Tell = print,
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
        tell: is given a line on images that cannot be read, which are left out.

    Raises:
        InputError: for a method, a class or a net that is not there, a size that is too small, and where no image can
            be read.
    """
    check(method, "saliency")
    return _attribution(Subject.open(model_or_run, pretrained, device), images, method, class_, size, tell=tell)


def guided(
    model_or_run: Model,
    images: str | Path | Sequence,
    *,
    class_: str | int | None = None,
    pretrained: Pretrained = False,
    size: int | None = None,
    device: str = "auto",
    tell: Tell = print,
) -> Attribution:
    """The fine structure in an image that an answer depends on, by guided backpropagation; arguments as of `saliency`.

    It is sharp whatever the net has learned, see `faithfulness.sanity`.

    Raises InputError as that does, and for a net without ReLU and tanh.
    """
    return _attribution(Subject.open(model_or_run, pretrained, device), images, "guided", class_, size, tell=tell)


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
    tell: Tell = print,
) -> Attribution:
    """Where in an image a class is seen, by a layer's maps; further arguments as of `saliency`.

    Args:
        method: gradcam, gradcam++, hirescam, layercam, eigencam or scorecam, see `cams`.
        layer: a stage's name, or a module or its path; None is the last stage whose maps have more than one place.

    Raises:
        InputError: as that does, and for a layer that is not there or has no maps.
    """
    check(method, "gradcam")
    return _attribution(Subject.open(model_or_run, pretrained, device), images, method, class_, size, layer, tell=tell)


def occlusion(
    model_or_run: Model,
    images: str | Path | Sequence,
    *,
    class_: str | int | None = None,
    pretrained: Pretrained = False,
    size: int | None = None,
    device: str = "auto",
    tell: Tell = print,
) -> Attribution:
    """How far a class's logit falls where a part of the image is covered; arguments and errors as of `saliency`."""
    return _attribution(Subject.open(model_or_run, pretrained, device), images, "occlusion", class_, size, tell=tell)


def overlays(net: nn.Module, pixels: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, str]:
    """Grad-CAM of the classes `targets` (N,) over images `pixels` `(N, H, W, C)` uint8, as the net's preprocessing has
    them: uint8 `(N, H, W, 3)`, and the name of the layer.

    Raises InputError for a net without maps.
    """
    subject = Subject.open(net)
    x = subject.normalised(pixels)
    parts = zip(*(each.to(x.device).split(batch_on(x.device)) for each in (x, torch.from_numpy(targets))), strict=True)
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
    *,
    tell: Tell,
) -> Attribution:
    looked, parts = subject.look(images, size, tell), []
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
