"""From images to class names: a bad file keeps its row and says why."""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnzoo import bars, sorting, tables, zoo
from cnnzoo.checkpoint import Run, run_of
from cnnzoo.data.pictures import Pictures, read_ahead
from cnnzoo.data.preprocess import Preprocess, Sheet, normalise
from cnnzoo.device import batch_on, device_of, in_halves, pick_device
from cnnzoo.errors import InputError, at_least, counted, one_line, printable
from cnnzoo.familiar import STRANGE, Familiarity
from cnnzoo.inference.fast import MANY, Sample, fast_form
from cnnzoo.inference.outputs import WithFeatures
from cnnzoo.naming import output_names
from cnnzoo.shown import Shown, Table
from cnnzoo.telling import Tell, silent

_OF_EACH_IMAGE = ("files", "probabilities", "errors", "upscaled", "familiarity")  # fields of Predictions

SHOWN = 20  # images, where a person looks at what was said of many
TOP = 5  # most likely classes that are told
NO_NUMBER = "the net's answer is no number (NaN): its weights are damaged, or too large for the precision"


@dataclass(frozen=True)
class Prediction(Shown):
    """What is said of one image."""

    file: str  # opens it, even where its bytes are no text that can be printed
    top: tuple[tuple[str, float], ...]  # classes and probabilities, most likely first; none with an error
    abstain: bool  # no class is likely enough, the image is not familiar enough, or there is an error
    familiarity: float | None  # see Predictions; None where the net does not tell
    error: str  # what is wrong with the image, "" where nothing is

    def __str__(self) -> str:
        return f"{one_line(self.file)}  {_said(self.top[:TOP], _doubts(self.abstain, self.familiarity), self.error)}"


def _doubts(abstain: bool, familiarity: float | None) -> str:
    """Why an answer is to be taken with care."""
    is_strange = familiarity is not None and familiarity < STRANGE
    return ", ".join(["unsure"] * abstain + ["unlike the training images"] * is_strange)


def _said(best: Sequence[tuple[str, float]], doubts: str, error: str) -> str:
    return error or f"{doubts and f'{doubts}: '}{'  '.join(f'{one_line(name)} {p:.1%}' for name, p in best)}"


@dataclass(frozen=True)
class Predictions(Shown):
    """A row for each image, in the order asked for: `p[0]`, `p[:10]`, `p[~p.abstain]`, `for row in p`."""

    files: tuple[str, ...]
    probabilities: np.ndarray  # (N, K) float32; rows of images that could not be read are NaN
    errors: tuple[str, ...]  # what is wrong with an image or with the net's answer to it, "" where nothing is
    classes: tuple[str, ...]
    upscaled: np.ndarray  # (N,) bool: the image has fewer pixels than the net takes
    familiarity: np.ndarray  # (N,) float32, from 0 to 1, see familiar.Familiarity; NaN where the net does not tell
    min_confidence: float = 0.0
    min_familiarity: float = 0.0

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: "int | slice | Sequence[int] | np.ndarray") -> "Prediction | Predictions":
        if not isinstance(place, int | np.integer):  # a slice, numbers of rows, or for each row whether it is wanted
            rows = np.arange(len(self))[place]
            if not rows.ndim:  # a number after all, in an array or a tensor
                return self[int(rows)]
            own = {name: getattr(self, name) for name in _OF_EACH_IMAGE}
            chosen = {
                k: v[rows] if isinstance(v, np.ndarray) else tuple(v[row] for row in rows) for k, v in own.items()
            }
            return replace(self, **chosen)
        place = range(len(self))[place]  # a negative one is counted from the end; raises IndexError
        one = self[place : place + 1]
        familiarity = None if np.isnan(one.familiarity[0]) else float(one.familiarity[0])
        best = tuple(one.top(len(self.classes))[0])
        return Prediction(one.files[0], best, bool(one.abstain[0]), familiarity, one.errors[0])

    def __iter__(self) -> Iterator[Prediction]:
        return (self[place] for place in range(len(self)))

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __repr__(self) -> str:
        return "\n".join([*self[:SHOWN].lines(), *self._more()]) or "no images"

    def _more(self) -> list[str]:
        left = len(self) - SHOWN
        return [f"… and {counted(left, 'image')} more, which print() shows"] if left > 0 else []

    def _table(self) -> Table:
        heads = ["file", *(f"top {number}" for number in range(1, min(TOP, len(self.classes)) + 1)), ""]
        rows = []
        for row in self[:SHOWN]:
            said = [f"{name} {p:.1%}" for name, p in row.top[:TOP]] or [""] * (len(heads) - 2)
            rows.append([printable(row.file), *said, row.error or _doubts(row.abstain, row.familiarity)])
        return Table(heads, rows, heads, notes=self._more())

    @property
    def abstain(self) -> np.ndarray:
        """`(N,)` bool: no answer to rely on, as no class reaches `min_confidence`, the image does not reach
        `min_familiarity`, or it could not be read.
        """
        return ~(self.probabilities.max(axis=1) >= self.min_confidence) | (self.familiarity < self.min_familiarity)

    @property
    def named(self) -> list[str | None]:
        """The most likely class of each image; None where it abstains."""
        return [None if out else best[0][0] for out, best in zip(self.abstain, self.top(1), strict=True)]

    def top(self, many: int) -> list[list[tuple[str, float]]]:
        """For each image its most likely classes with their probabilities, most likely first; empty where there is an
        error. Raises InputError for fewer than one.
        """
        at_least("top", many)
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :many]
        rows = zip(order, self.probabilities, self.errors, strict=True)
        return [[] if error else [(self.classes[k], float(p[k])) for k in best] for best, p, error in rows]

    def lines(self, many: int = TOP) -> list[str]:
        """For each image a line for a person: the file, and its most likely classes or what is wrong with it."""
        files = [*map(one_line, self.files)]
        width = max(map(len, files), default=0)
        doubts = map(_doubts, self.abstain.tolist(), self.familiarity.tolist())
        told = zip(files, self.top(many), doubts, self.errors, strict=True)
        return [f"{file:<{width}}  {_said(best, doubt, error)}" for file, best, doubt, error in told]

    def columns(self, many: int = TOP) -> dict[str, type]:
        """What a table of the `many` most likely classes consists of: file, top1 …, prob1 …, abstain, familiarity,
        error.
        """
        numbers = range(1, min(many, len(self.classes)) + 1)
        names, probabilities = ({f"{what}{n}": kind for n in numbers} for what, kind in (("top", str), ("prob", float)))
        return {"file": str, **names, **probabilities, "abstain": bool, "familiarity": float, "error": str}

    def rows(self, many: int = TOP) -> Iterator[dict[str, Any]]:
        """For each image the values of `columns`, by their names; None where there is nothing to say."""
        names = self.columns(many)
        nothing = [None] * (len(names) - 4)  # in all but file, abstain, familiarity and error
        familiar = (None if np.isnan(share) else round(share, 4) for share in self.familiarity.tolist())
        told = zip(self.files, self.top(many), self.abstain.tolist(), familiar, self.errors, strict=True)
        for file, best, abstain, share, error in told:
            said = [*(name for name, _ in best), *(round(p, 6) for _, p in best)] or nothing
            yield dict(zip(names, [printable(file), *said, abstain, share, error or None], strict=True))

    def to_csv(self, many: int = TOP) -> str:
        """A table of `columns`."""
        return tables.to_csv(self.rows(many), self.columns(many))

    def write(self, path: str | Path, many: int = TOP) -> None:
        """The same as a file, .csv, .json or .parquet. Raises InputError for another ending."""
        tables.write(path, self.rows(many), self.columns(many))

    def sort(self, dest: str | Path) -> sorting.Sorted:
        """Copy the files into a new folder, each into the folder of its most likely class; what it abstains from is
        left out. Raises InputError as `sorting.sort` does.
        """
        return sorting.sort([*zip(self.files, self.named, strict=True)], dest)


def predict(
    model_or_run: nn.Module | Run | str | Path,
    images: str | bytes | Path | Iterable,
    *,
    pretrained: bool | str | Path | Run = False,
    batch_size: int | None = None,
    min_confidence: float = 0.0,
    min_familiarity: float = 0.0,
    mirror: bool = False,
    precision: str = "auto",
    device: str | None = None,
    tell: Tell = print,
) -> Predictions:
    """Class probabilities for photos.

    Args:
        model_or_run: a net, a run, a run's folder or model.safetensors, or a net's name. A net stays on its device
            unless `device` names another; all else goes to the best one there is.
        images: files, folders, patterns, files' contents, PIL images, uint8 arrays: see `Pictures`.
        pretrained: weights for a net's name: True (the best known), a tag, a file or a run folder.
        batch_size: images to a forward pass; None is 4 to a thread on a CPU, 32 at most, else 128.
        min_confidence: if the most likely class is less likely than this, the image has no answer.
        min_familiarity: nor if its familiarity is less than this, such as 0.05. That is the share of held-out images
            which are at least as far from all training images as this one: a net is often sure of its answer to a
            picture of something else altogether. A run's net tells it, in all precisions but int8.
        mirror: whether probabilities are the mean over the image and its mirror image, at twice the time.
        precision: auto (bf16 where the device computes in it and there are many images, else fp32), fp32, bf16, fp16 or
            int8 (on a CPU), see `cnnzoo.optimize`. int8 is calibrated on images that the run trained on; for a bare
            net, or where these are not at hand, on a sample of the images given, which then should be of all kinds.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
        tell: is given a line on how far int8 agrees with fp32.

    Returns:
        Predictions. Their probabilities are calibrated by the temperature that the run found on its validation images.
        A file that cannot be read keeps its row, with the reason in `errors`, and so does one to which the net's
        answer is no number.

    Raises:
        InputError: for a folder without images, and a pattern that matches none (an empty list has no rows); for an
            array that is no picture; for a net that takes neither colour nor grey images; for a precision that device
            or net lack; for min_familiarity where the net does not tell it.
    """
    options = {"batch_size": batch_size, "min_confidence": min_confidence, "min_familiarity": min_familiarity}
    options |= {"mirror": mirror, "device": device, "pretrained": pretrained}
    return join(stream(model_or_run, images, **options, precision=precision, tell=tell))


def join(parts: Iterable[Predictions]) -> Predictions:
    """What `stream` yields, as one."""
    parts = list(parts)
    fields = {name: [getattr(part, name) for part in parts] for name in _OF_EACH_IMAGE}
    joined = {
        name: np.concatenate(own) if isinstance(own[0], np.ndarray) else tuple(chain.from_iterable(own))
        for name, own in fields.items()
    }
    return replace(parts[0], **joined)


def stream(
    model_or_run: nn.Module | Run | str | Path,
    images: str | bytes | Path | Iterable,
    *,
    pretrained: bool | str | Path | Run = False,
    batch_size: int | None = None,
    min_confidence: float = 0.0,
    min_familiarity: float = 0.0,
    mirror: bool = False,
    precision: str = "auto",
    device: str | None = None,
    tell: Tell = silent,
) -> Iterator[Predictions]:
    """`predict` for any number of images: batch by batch, and what is yielded is all that takes memory."""
    if batch_size is not None:
        at_least("batch_size", batch_size)
    for name, least in (("min_confidence", min_confidence), ("min_familiarity", min_familiarity)):
        if not isinstance(least, Real) or not 0 <= least <= 1:
            raise InputError(f"{name} is {least}, but must be between 0 and 1")
    pictures = images if isinstance(images, Pictures) else Pictures(images)
    zoo.check_named(model_or_run, pretrained)
    net = model_or_run if isinstance(model_or_run, nn.Module) else zoo.open_net(model_or_run, pretrained)[0]
    preprocess = zoo.preprocessing(net)
    if preprocess.channels not in (1, 3):
        raise InputError(f"the net takes images of {preprocess.channels} channels, but pictures have 3, or 1 if grey")
    if net is not model_or_run or device is not None:
        net = net.to(pick_device(device or "auto"))
    batch_size = batch_size or batch_on(device_of(net))
    run = run_of(net)
    familiarity = run.familiarity if run and precision != "int8" else None
    if familiarity and familiarity.known.shape[1] != net.num_features:
        raise InputError(f"{run.familiar_file} is another run's; remove it, and predictions come without familiarity")
    if min_familiarity and familiarity is None:
        if precision == "int8":
            raise InputError("min_familiarity needs features, which int8 does not give; take another precision")
        name = zoo.called(model_or_run)
        raise InputError(f"min_familiarity is {min_familiarity}, but {name} does not tell it; a run of its own would")
    thresholds = {"min_confidence": min_confidence, "min_familiarity": min_familiarity}
    return _stream(net, preprocess, pictures, batch_size, familiarity, thresholds, mirror, precision, tell)


def _stream(
    net: nn.Module,
    preprocess: Preprocess | Sheet,
    pictures: Pictures,
    batch_size: int,
    familiarity: Familiarity | None,
    thresholds: dict[str, float],
    mirror: bool,
    precision: str,
    tell: Tell,
) -> Iterator[Predictions]:
    temperature = getattr(net, "temperature", 1.0)
    device = device_of(net)
    is_float32 = all(value.dtype == torch.float32 for value in net.parameters())
    if not is_float32 or any(module.training for module in net.modules()):
        net = copy.deepcopy(net).float().eval()  # others may train the net, or predict with it in another thread
    classes = _classes(net, preprocess, device)
    answering = WithFeatures(net) if familiarity else net
    fallback = partial(_spread, pictures, preprocess, batch_size)
    with bars.show(total=len(pictures), desc="predicting", unit="image") as bar:
        fast = fast_form(answering, preprocess, len(pictures) * (2 if mirror else 1), precision, fallback, tell=tell)
        for batch in read_ahead(pictures, preprocess, batch_size):
            probabilities = np.full((len(batch), len(classes)), np.nan, np.float32)
            familiar = np.full(len(batch), np.nan, np.float32)
            good = [place for place, picture in enumerate(batch) if not picture.error]
            if good:
                pixels = torch.from_numpy(np.stack([batch[place].pixels for place in good])).to(device)
                images = normalise(pixels, preprocess.mean, preprocess.std)
                views = [images, preprocess.mirrored(images)] if mirror else [images]
                probabilities[good], familiar[good] = _answer(fast, views, temperature, familiarity)
            files, errors = tuple(picture.name for picture in batch), [picture.error for picture in batch]
            for place in good:
                if not np.isfinite(probabilities[place]).all():
                    probabilities[place], errors[place] = np.nan, NO_NUMBER
            upscaled = np.array([picture.upscaled for picture in batch], dtype=bool)
            yield Predictions(files, probabilities, tuple(errors), classes, upscaled, familiar, **thresholds)
            bar.update(len(batch))


@torch.inference_mode()
def _answer(
    net: nn.Module, views: Sequence[Tensor], temperature: float, familiarity: Familiarity | None
) -> tuple[np.ndarray, np.ndarray | float]:
    """Of views `(B, C, H, W)` of B images the mean probabilities `(B, K)`, and the familiarity `(B,)` of the first, for
    which the net gives its features, too; NaN without.
    """
    answers, familiar = [in_halves(net, view) for view in views], math.nan
    if familiarity:
        answers, features = zip(*answers, strict=True)
        familiar = familiarity.of(features[0].float().cpu().numpy())
    likely = sum((logits.float() / temperature).softmax(1) for logits in answers) / len(views)
    return likely.cpu().numpy(), familiar


def _classes(net: nn.Module, preprocess: Preprocess | Sheet, device: torch.device) -> tuple[str, ...]:
    """What the outputs are called; those of a net from elsewhere are counted from an answer."""
    if hasattr(net, "num_classes"):
        return output_names(net)
    height, width, channels = preprocess.shape
    with torch.inference_mode():
        count = net(torch.zeros(1, channels, height, width, dtype=torch.float32, device=device)).shape[1]
    names = tuple(getattr(net, "classes", ()))
    return names if len(names) == count else tuple(map(str, range(count)))


def _spread(pictures: Pictures, preprocess: Preprocess | Sheet, batch_size: int) -> Sample:
    """Some of the pictures, evenly spread, as the net sees them: int8 is calibrated on these for want of a run's."""
    some = Pictures(islice(pictures, 0, None, -(-len(pictures) // MANY)))
    pixels = [each.pixels for batch in read_ahead(some, preprocess, batch_size) for each in batch if not each.error]
    return np.stack(pixels) if pixels else np.empty(0), "of the images given"


def write(path: str | Path, parts: Iterator[Predictions], many: int = TOP) -> None:
    """Put what `stream` yields into a table of the `many` most likely classes, see `tables.write`, as it comes."""
    first = next(parts)
    tables.write(path, (row for part in chain([first], parts) for row in part.rows(many)), first.columns(many))


class Tally:
    """Counts what streams by, and tells what a person should know of it."""

    def __init__(self):
        self.images = self.unread = self.unsure = self.unfamiliar = self.strange = self.upscaled = 0
        self.examples: list[str] = []  # of what is wrong with files

    def watch(self, parts: Iterable[Predictions]) -> Iterator[Predictions]:
        """The same parts, counted."""
        for part in parts:
            told = zip(map(printable, part.files), part.errors, strict=True)
            wrong = [f"{file}: {error}" for file, error in told if error]
            self.examples = [*self.examples, *wrong][:3]
            self.images += len(part)
            self.unread += len(wrong)
            self.unsure += int((part.probabilities.max(axis=1) < part.min_confidence).sum())
            self.unfamiliar += int((part.familiarity < part.min_familiarity).sum())
            self.strange += int((part.familiarity < STRANGE).sum())
            self.upscaled += int(part.upscaled.sum())
            yield part

    def notes(self) -> list[str]:
        """A line for each thing that happened."""
        by_chance = STRANGE * self.images  # so many would seem strange if all were like the training images
        strange = self.strange if self.strange > 2 * by_chance else 0
        like_those = f"of images like those, {STRANGE:.0%} do"
        told = (
            (self.unread, "could not", "could not", "be read"),
            (self.unsure, "is", "are", "unsure: no class is likely enough"),
            (self.unfamiliar, "is", "are", "unsure: not familiar enough"),
            (strange, "seems", "seem", f"unlike the training images; {like_those}"),
            (self.upscaled, "has", "have", "fewer pixels than the net takes: scaled up"),
        )
        return [f"{n:,} of {self.images:,} images {one if n == 1 else more} {what}" for n, one, more, what in told if n]
