"""How good a trained net is on images it has not seen, how sure that is, and whether another is better."""

import filecmp
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cnnzoo import bars, calibrate, tables, whereabouts, zoo
from cnnzoo.checkpoint import Run, run_of
from cnnzoo.config import DataConfig
from cnnzoo.data import kinds, sources
from cnnzoo.data.batches import EvalBatches
from cnnzoo.data.crops import COUNTS
from cnnzoo.data.decoded import real_paths
from cnnzoo.data.decoding import EXTENSIONS
from cnnzoo.data.groups import describe
from cnnzoo.data.preprocess import Preprocess, Sheet
from cnnzoo.data.reading import Split
from cnnzoo.device import in_halves, pick_device
from cnnzoo.errors import InputError, at_least, counted, expect, printable
from cnnzoo.inference.fast import MANY, Sample, fast_form
from cnnzoo.measures import Evaluation, RunComparison, measure
from cnnzoo.naming import class_names, outputs_of
from cnnzoo.shown import Shown, Table
from cnnzoo.telling import Tell
from cnnzoo.train.validation import logits

SHOWN = 20  # images of those judged, where a person looks at them
BAD_FILES = ("error", "skip")
ANSWERS = {"file": str, "truth": str, "answer": str, "probability": float, "right": bool}  # of an image


def evaluate(
    run_or_model: nn.Module | Run | str | Path,
    data: str | Path | None = None,
    *,
    pretrained: bool | str | Path | Run = False,
    root: str | None = None,
    crops: int = 1,
    batch_size: int = 256,
    precision: str = "fp32",
    device: str = "auto",
    bad_files: str | None = None,
    tell: Tell = print,
) -> Evaluation:
    """How good a run, a net, or a name of the registry with `pretrained` weights is on images it was not trained on.

    Arguments and errors are those of `cnnzoo.judge`, which gives the answers, image by image.
    """
    options = {"pretrained": pretrained, "root": root, "crops": crops, "batch_size": batch_size, "tell": tell}
    options |= {"precision": precision, "device": device, "bad_files": bad_files}
    return judge(run_or_model, data, **options).measure()


def compare_runs(
    first: nn.Module | Run | str | Path,
    second: nn.Module | Run | str | Path,
    data: str | Path | None = None,
    **options: Any,
) -> RunComparison:
    """Whether one net is better than another or just luckier, on images that neither was trained on.

    Arguments and `options` are as those of `cnnzoo.judge`; `pretrained` goes for those that are names of nets.

    Raises InputError as it does, and where the two are judged on different images, or know different classes.
    """
    names = (zoo.called(first), zoo.called(second))
    ours = [zoo.has_weights(each) for each in (first, second)]
    judged = [
        judge(each, data, **options | ({"pretrained": False} if own and not all(ours) else {}))
        for each, own in zip((first, second), ours, strict=True)
    ]
    images = [real_paths(one.images) for one in judged]
    if set(images[0]) != set(images[1]):
        sizes, shared = [f"{len(each):,}" for each in images], len({*images[0]} & {*images[1]})
        raise InputError(
            f"{names[0]} is judged on {sizes[0]} images and {names[1]} on {sizes[1]}, of which {shared:,} are the "
            f"same, and only on the same ones do they compare; name some that neither was trained on by data=…"
        )
    if strangers := sorted(set(judged[0].classes) ^ set(judged[1].classes)):
        raise InputError(
            f"{' and '.join(names)} do not know the same classes, so they do not compare: {', '.join(strangers[:10])}"
        )
    right = [one.outputs.argmax(axis=1) == one.targets for one in judged]
    place = {name: i for i, name in enumerate(images[1])}
    order = [place[name] for name in images[0]]
    right[1], groups = right[1][order], judged[0].groups
    if groups is None and judged[1].groups is not None:  # images belong together whichever run knows of it
        groups = judged[1].groups[order]
    return RunComparison(
        names,
        tuple(one.measure() for one in judged),
        only_first=int((right[0] & ~right[1]).sum()),
        only_second=int((right[1] & ~right[0]).sum()),
        interval=calibrate.paired_interval(*right, groups),
        p=calibrate.mcnemar(*right, groups),
    )


@dataclass(frozen=True)
class Judged(Shown):
    """What a net says of N images."""

    outputs: np.ndarray  # (N, K)
    targets: np.ndarray  # (N,)
    classes: tuple[str, ...]
    images: tuple[str, ...]  # names
    temperature: float  # at which their probabilities are those of predictions
    fitted_here: bool  # the temperature, on these images
    groups: np.ndarray | None = None  # (N,): which of them belong together

    def measure(self) -> Evaluation:
        """The figures of these answers, see `measures.measure`."""
        temperature = None if self.fitted_here else self.temperature
        return measure(self.outputs, self.targets, self.classes, temperature, self.groups)

    def rows(self) -> Iterator[dict[str, Any]]:
        """For each image the values of `ANSWERS`, by their names."""
        probabilities, answers = calibrate.softmax(self.outputs, self.temperature), self.outputs.argmax(axis=1)
        for place, (name, truth, answer) in enumerate(zip(self.images, self.targets, answers, strict=True)):
            sure, said = round(float(probabilities[place, answer]), 6), (self.classes[truth], self.classes[answer])
            yield dict(zip(ANSWERS, (printable(name), *said, sure, bool(truth == answer)), strict=True))

    def _table(self) -> Table:
        some = islice(self.rows(), SHOWN)
        rows = [[f"{cell:.1%}" if type(cell) is float else str(cell) for cell in row.values()] for row in some]
        left = len(self.images) - len(rows)
        more = [f"… and {counted(left, 'image')} more, which .rows() gives"] if left else []
        return Table([*ANSWERS], rows, [*ANSWERS], notes=more)

    def to_csv(self) -> str:
        """A line for each image: file, truth, answer, probability, right."""
        return tables.to_csv(self.rows(), ANSWERS)

    def write(self, path: str | Path) -> None:
        """The same as a file, .csv, .json or .parquet. Raises InputError for another ending."""
        tables.write(path, self.rows(), ANSWERS)


def judge(
    run_or_model: nn.Module | Run | str | Path,
    data: str | Path | None = None,
    *,
    pretrained: bool | str | Path | Run = False,
    root: str | None = None,
    crops: int = 1,
    batch_size: int = 256,
    precision: str = "fp32",
    device: str = "auto",
    bad_files: str | None = None,
    tell: Tell = print,
) -> Judged:
    """What a run, a net, or a name of the registry says of images that it was not trained on, one by one.

    A net that is given stays as it is. On its own source a run is judged on the images that it held out, whatever else
    lies there since; of another source its validation images count, or where it has none, every image. Classes are
    matched by name. Probabilities are calibrated as those of predictions; with several crops they are the plain mean of
    theirs.

    A committee that learnt how to combine its members is judged, on images that it learnt it from, by the cross-fitted
    predictions in its run, which are of one crop in fp32; `tell` is given a line on it.

    Args:
        data: a source's name or a folder; None is what the run was validated on, and a net of no run needs some.
        pretrained: weights for a net's name: True (the best known), a tag, a file or a run folder.
        root: where named sets lie, if elsewhere than the run says.
        crops: of an image, 1, or 2, 10 or 144, of whose probabilities the mean counts, see `data.crops`.
        batch_size: images to a forward pass.
        precision: fp32, bf16, fp16, int8 (on a CPU) or auto, see `cnnzoo.optimize`. int8 is calibrated on images that
            the run trained on, else on those that the data has in train/.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
        bad_files: error names all files that cannot be read, skip goes on without them; None is error, or what the run
            did for the images that it was validated on.
        tell: is given a line on what was left out, or can no longer be read when it is judged, on how far int8 agrees,
            and where images seem to be among those that the run was trained on.

    Raises:
        InputError: if there is nothing to judge, or for int8 to be calibrated on, where the data has classes that the
            net does not know, and where it answers by no finite numbers.
    """
    _check(bad_files, batch_size, crops)
    net, own = zoo.open_net(run_or_model, pretrained)
    called, preprocess, where = zoo.called(run_or_model), zoo.preprocessing(net), pick_device(device)
    chosen, split = _chosen(net, own, data, called, tell)
    chosen, is_own = _as_asked(chosen, root, bad_files), split is not None
    # By name, since dividing a folder anew would also hold out photos that have come since, and train on others.
    part, classes, notes = sources.held_out(chosen, preprocess, is_own, crops, split and split["val"])
    fitted = _cross_fitted(net, part.names, split)
    for note in (*notes, *_about(net, part, fitted, is_own, called)):
        tell(note)
    known = class_names(net) or classes
    labels = np.array(outputs_of(net, classes, chosen.source), dtype=np.int64)[part.labels]
    if len(fitted) == len(labels):
        return Judged(np.stack([*fitted.values()]), labels, known, part.names, net.temperature, True, part.groups)
    batches = EvalBatches(part.images, labels, max(batch_size // crops, 1), preprocess.mean, preprocess.std, where)
    fallback = partial(_to_calibrate_on, chosen, preprocess, split and split["train"], called)
    fast = fast_form(net.to(where), preprocess, len(part.images) * crops, precision, fallback, root, tell)
    judged = fast if crops == 1 else MeanOfCrops(fast, crops)
    outputs, _ = (each.numpy() for each in logits(judged, bars.show(batches, desc="evaluating", unit="batch")))
    for line in batches.problems:
        tell(line)
    for place, said in fitted.items():
        outputs[place] = said
    if lost := int((~(outputs < np.inf)).any(1).sum()):  # logarithms of crops' probabilities may be -inf
        why = "its weights are damaged, or too large for the precision; try precision fp32"
        raise InputError(f"to {counted(lost, 'image')} {called} answers by no finite numbers: {why}")
    temperature = getattr(net, "temperature", 1.0) if crops == 1 else 1.0
    return Judged(outputs, labels, known, part.names, temperature, is_own, part.groups)


def _check(bad_files: str | None, batch_size: int, crops: int) -> None:
    if bad_files not in (None, *BAD_FILES):
        raise InputError(f"bad_files is {bad_files!r}, but must be {' or '.join(BAD_FILES)}")
    at_least("batch_size", batch_size)
    if crops not in COUNTS:
        raise InputError(f"crops is {crops}, but must be one of {', '.join(map(str, COUNTS))}")


def _chosen(
    net: nn.Module, own: DataConfig | None, data: str | Path | None, called: str, tell: Tell
) -> tuple[DataConfig, whereabouts.Names | None]:
    """The data to judge on, and where these are a run's `own`, its split, as `whereabouts.find` has it."""
    if data is None and own is None:
        raise InputError("which images? name a data set or a folder by data=…")
    if data is not None:
        expect(data, (str, os.PathLike), "data is a source's name or a folder")
        data = os.fspath(data)
    if own is None:
        return DataConfig(source=data), None
    chosen, split = whereabouts.find(run_of(net), own, data, called)
    judged_on, began_on = (each.val_source or each.source for each in (chosen, own))
    if split is not None and judged_on != began_on:
        tell(f"{judged_on} holds the images of {called}'s {began_on}: it is judged on those that it held out")
    return chosen, split


def _as_asked(chosen: DataConfig, root: str | None, bad_files: str | None) -> DataConfig:
    """The data with what was asked for by hand."""
    if root is not None and kinds.is_of_photos(chosen.source):
        raise InputError(
            f"root is where named data sets lie, but {chosen.source} is none; leave it out, or name data=…"
        )
    given = {"root": root, "bad_files": bad_files}
    return replace(chosen, **{key: value for key, value in given.items() if value is not None})


def _about(net: nn.Module, part: Split, fitted: Mapping[int, np.ndarray], is_own: bool, called: str) -> Iterator[str]:
    """A line for each thing that a person should know of the images that a net is judged on. `fitted` are the places of
    those that it was fitted to.
    """
    if not is_own:
        yield from _seen_before(net, [name for place, name in enumerate(part.names) if place not in fitted], called)
    if part.groups is not None and len(np.unique(part.groups)) < len(part):
        yield f"{describe(part.groups, 'image')}: intervals allow for that"
    if fitted:
        which = "these" if len(fitted) == len(part) else f"{len(fitted):,} of these {len(part):,}"
        yield f"{called} was fitted to {which} images, so it is judged there as cross-fitted"


def _to_calibrate_on(
    chosen: DataConfig, preprocess: Preprocess | Sheet, learnt: Sequence[str] | None, called: str
) -> Sample:
    """Training images of the data, to calibrate int8 on: of a run's own those that it learnt from."""
    pixels = sources.sample(chosen, preprocess, MANY, names=learnt)
    if not len(pixels):
        raise InputError(
            f"int8 is calibrated on images that are not judged: those that a run trained on, or those that lie in "
            f"train/ beside val/, and there are none for {called} on {chosen.source}; take precision fp32"
        )
    return pixels, f"training images of {chosen.source}"


def _seen_before(net: nn.Module, names: Sequence[str], called: str) -> Iterator[str]:
    """A line where images to judge a run's net on are those that it learnt from, or was fitted to, copied or, by their
    names, moved.
    """
    if (run := run_of(net)) is None:
        return

    def short(name: str) -> tuple[str, ...]:
        """The last two parts of a file's path: its folder, which is its class, and its name."""
        path = Path(name)
        return path.parts[-2:] if path.suffix.lower() in EXTENSIONS else (name,)

    split, learnt = run.split, defaultdict(list)
    for name in split["train"] + (split["val"] if run.is_cross_fitted else []):
        learnt[short(name)].append(name)

    @cache  # or of folders in folders, which may all hold a file of that name, each would be compared with each
    def by_size(ending: tuple[str, ...]) -> dict[int | None, list[str]]:
        twins = defaultdict(list)
        for name in learnt.get(ending, ()):
            try:
                twins[os.path.getsize(name)].append(name)
            except OSError:  # it is no longer where it was, or no file
                twins[None].append(name)
        return twins

    def is_same(name: str) -> bool:
        twins = by_size(short(name))
        try:
            likely = [*twins.get(os.path.getsize(name), ()), *twins.get(None, ())]
            return any(filecmp.cmp(name, twin, shallow=False) for twin in likely)
        except OSError:
            return bool(twins)

    if same := sum(map(is_same, names)):
        yield f"{same:,} of these {counted(len(names), 'image')} seem to be among those that {called} was trained on"


def _cross_fitted(net: nn.Module, names: Sequence[str], split: whereabouts.Names | None) -> dict[int, np.ndarray]:
    """What a committee says of those images that it was fitted to, when it is fitted to the others: logits `(K,)` by
    the place of the image, as its run has them. Empty for any other net. `split` is what its images are called, if not
    as in the run.
    """
    run = run_of(net)
    if run is None or not run.is_cross_fitted:
        return {}
    said = dict(zip(real_paths((split or run.split)["val"]), run.predictions[0], strict=True))
    return {place: said[file] for place, file in enumerate(real_paths(names)) if file in said}


class MeanOfCrops(nn.Module):
    """Images `(B * crops, C, H, W)` to the logarithms `(B, K)` of each image's mean probabilities."""

    def __init__(self, net: nn.Module, crops: int):
        super().__init__()
        self.net, self.crops = net, crops

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        each = in_halves(self.net, x).float().log_softmax(1).unflatten(0, (-1, self.crops))
        return each.logsumexp(1) - math.log(self.crops)  # rather than of the mean, which may vanish
