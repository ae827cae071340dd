"""The net to look into, and the pictures that it is shown."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cnnzoo import zoo
from cnnzoo.checkpoint import Run
from cnnzoo.data.pictures import Picture, Pictures, read_ahead
from cnnzoo.data.preprocess import Preprocess, Sheet, normalise
from cnnzoo.device import device_of, pick_device
from cnnzoo.errors import InputError, counted, expect, faults, one_line, printable, unknown
from cnnzoo.inference.optimized import Optimized
from cnnzoo.models._feature_maps import FeatureMaps
from cnnzoo.naming import output_names
from cnnzoo.telling import Tell
from cnnzoo.visualize.hooks import layer_of, untouched

Model = nn.Module | Run | str | Path  # what can be looked into, see `Subject.open`
Pretrained = bool | str | Path | Run  # weights for the name of a net: True (the best known), a tag, a file, a run


@dataclass(frozen=True)
class Looked:
    """B pictures as the net sees them."""

    names: tuple[str, ...]
    pixels: np.ndarray  # (B, H, W, C) uint8
    x: Tensor  # (B, C, H, W) float32, normalised, on the net's device

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Subject:
    """A net with all that is needed to show it pictures and to name what it says."""

    net: nn.Module
    name: str  # for titles; says so where the weights are random
    classes: tuple[str, ...]  # numbers as text where the net knows no names
    preprocess: Preprocess | Sheet

    @classmethod
    def open(
        cls,
        model_or_run: Model,
        pretrained: Pretrained = False,
        device: str = "auto",
    ) -> "Subject":
        """A net, a run, a run's folder or model.safetensors, or the name of a net.

        A name without `pretrained` weights gives random ones, always the same, and `name` says so. A net stays where it
        is if `device` is auto, and is never changed: look at it within `untouched`. Else auto is the best device. A net
        that is not of the registry must have the attributes `preprocessing`, a `Preprocess`, and `num_classes`.

        Raises InputError if there is no such run, net or device, and for a net without weights or layers to look at.
        """
        zoo.check_named(model_or_run, pretrained)
        if isinstance(model_or_run, nn.Module):
            net, name = model_or_run, zoo.called(model_or_run)
            if isinstance(net, Optimized):
                raise InputError(f"{name} is a net's fast form, which has no layers to look at; take the net itself")
            if isinstance(net, FeatureMaps):
                raise InputError(f"{name} gives maps alone, no answer to look into; take the net itself")
            for lacks in ("preprocessing", "num_classes"):
                if not (hasattr(net, lacks) or hasattr(net, "entry")):
                    raise InputError(f"a net of class {name} is not of the registry: set its .{lacks}")
        elif not pretrained and zoo.find_run(model_or_run) is None and model_or_run in zoo.list_models():
            net, name = _random(model_or_run), f"{model_or_run} with random weights"
        else:
            net, path = zoo.open_net(model_or_run, pretrained)[0], Path(os.path.abspath(model_or_run))
            run = Run(path.parent)
            name = run.path.name if path == run.model_file and run.config_file.exists() else path.name
        if net is not model_or_run or device != "auto":
            net = net.to(pick_device(device))
        if any(parameter.is_meta for parameter in net.parameters()):
            raise InputError(f"{name} is on the meta device, where nets have no weights; create it on another")
        preprocess = zoo.preprocessing(net)
        if not isinstance(preprocess, Preprocess | Sheet):
            raise InputError(f".preprocessing of {name} must be a Preprocess, but is {type(preprocess).__name__}")
        return cls(net, name, output_names(net), preprocess)

    @property
    def device(self) -> torch.device:
        return device_of(self.net)

    @torch.inference_mode(False)  # of tensors made in it no gradient can be taken
    def look(self, pictures: str | Path | Sequence, size: int | None = None, tell: Tell | None = None) -> Looked:
        """Files, folders, patterns, PIL images or uint8 arrays, as `Pictures` takes them, through the net's own
        preprocessing, or the same at `size` x `size` pixels. `tell` is given a line on those that cannot be read, which
        are left out.

        Raises InputError where none can be read, or without `tell` not all, and for a size that the net cannot take.
        """
        preprocess = self.sized(size)
        found = Pictures(pictures)
        read = [picture for batch in read_ahead(found, preprocess, max(len(found), 1)) for picture in batch]
        if not read:
            raise InputError("there is no picture to look at; give some")
        leave_out([picture for picture in read if picture.error], len(read), tell)
        good = [picture for picture in read if not picture.error]
        pixels = np.stack([picture.pixels for picture in good])
        return Looked(tuple(printable(picture.name) for picture in good), pixels, self.normalised(pixels).contiguous())

    def normalised(self, pixels: np.ndarray) -> Tensor:
        """Images `(B, H, W, C)` uint8 as the net takes them: `(B, C, H, W)` float32, on its device."""
        return normalise(torch.from_numpy(pixels).to(self.device), self.preprocess.mean, self.preprocess.std)

    def blank(self, size: int | None = None) -> Tensor:
        """One image of the mean colour as the net takes it, `(1, C, H, W)` float32 zeros; `size` as in `sized`."""
        height, width, channels = self.sized(size).shape
        return torch.zeros(1, channels, height, width, dtype=torch.float32, device=self.device)

    def layer(self, name: str | None = None) -> str:
        """The name of a layer, once it is known to be there; None is the default of `layer_of` for images of the size
        that the net takes.

        Raises InputError as `layer_of` does.
        """
        with untouched(self.net) as net:
            return layer_of(net, name, self.blank()).name

    def sized(self, size: int | None) -> Preprocess | Sheet:
        """The net's preprocessing to images of `size` x `size` pixels; None is its own size.

        Raises InputError for a size that the net cannot take, and for a net of several sizes.
        """
        if size is None:
            return self.preprocess
        expect(size, Integral, "size is a whole number, the side of a square")
        least = getattr(self.net, "min_size", 1)
        if size < least:
            raise InputError(f"the size is {size}, but {self.name} needs images of at least {least}x{least}")
        if not isinstance(self.preprocess, Preprocess):
            raise InputError(f"{self.name} consists of several nets, which see each image at sizes of their own")
        return replace(self.preprocess, size=size, resize=round(self.preprocess.resize * size / self.preprocess.size))

    def class_index(self, which: str | int | None, logits: Tensor) -> Tensor:
        """`(B,)` int64, for each row of `logits` (B, K): the class of that name or number, or for None the one that is
        predicted.

        Raises InputError for a class that the net does not know, with the near names, and for a net without classes.
        """
        if not self.classes:
            raise InputError(f"{self.name} has no classes to ask for, as it was made with num_classes=0")
        if which is None:
            return logits.argmax(1)
        return torch.full((len(logits),), self.class_number(which), device=logits.device)

    def class_number(self, which: str | int) -> int:
        """The place of a class among the net's outputs, by its name, else by that number.

        Raises InputError for one that the net does not know, with the near names.
        """
        expect(which, (str, Integral), "a class is named or numbered, one for all images")
        if which in self.classes:
            return self.classes.index(which)
        try:
            number = int(which)
        except ValueError:
            raise unknown("class", str(which), self.classes) from None
        if not 0 <= number < len(self.classes):
            raise InputError(f"class {number} is out of range: {self.name} knows {len(self.classes)}, counted from 0")
        return number


def leave_out(bad: Sequence[Picture], of: int, tell: Tell | None) -> None:
    """Tell of pictures that cannot be read. Raises InputError if these are all, or there is nobody to tell it to."""
    if not bad:
        return
    wrong = faults({one_line(picture.name): picture.error for picture in bad})
    if len(bad) == of or tell is None:
        raise InputError(wrong if len(bad) < of or of == 1 else f"none of {of:,} images can be read; {wrong}")
    tell(f"{counted(len(bad), 'image')} left out that cannot be read; {wrong}")


def probabilities(net: nn.Module, logits: Tensor) -> Tensor:
    """The probabilities `(B, K)` of logits `(B, K)`, as `cnnzoo.predict` gives them."""
    return (logits.float() / getattr(net, "temperature", 1.0)).softmax(1)


def _random(name: str) -> nn.Module:
    """The net as its constructor makes it, by a seed of its own, so that a picture can be made again."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return zoo.create(name).eval()
