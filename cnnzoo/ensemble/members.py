"""What several runs say of the same images: all that combining them needs, read from their folders.

Where a run has predictions already, no image goes through its net.
"""

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.special import log_softmax

from cnnzoo import config as config_
from cnnzoo import whereabouts
from cnnzoo.checkpoint import Run
from cnnzoo.config import DataConfig
from cnnzoo.data import sources
from cnnzoo.data.decoded import real_paths
from cnnzoo.ensemble.predictions import RunPredictions, predictions
from cnnzoo.errors import InputError, counted, expect
from cnnzoo.telling import Tell, silent

SHOWN = 10  # classes that a message names


@dataclass(frozen=True)
class Panel:
    """What M members say of N images of K classes, which none of them should have been trained on."""

    names: tuple[str, ...]  # of the members: their run folders
    classes: tuple[str, ...]
    logits: np.ndarray  # (M, N, K) float32, each member's divided by its temperature
    targets: np.ndarray  # (N,) int64
    images: tuple[str, ...]  # names
    temperatures: tuple[float, ...] | None = None  # by which the members' logits were divided; None: by none
    learnt: tuple[int, ...] = ()  # on how many of the images each member was trained, where that is known
    fitted: tuple[int, ...] = ()  # to how many each was fitted, as a committee may be; there it answers cross-fitted
    groups: np.ndarray | None = None  # (N,), the same for images that belong together; None: each stands alone

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def log_probabilities(self) -> np.ndarray:
        """`(M, N, K)` float32."""
        return log_softmax(self.logits, axis=2)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """`(M, N, K)` float32."""
        return np.exp(self.log_probabilities)

    @property
    def right(self) -> np.ndarray:
        """`(M, N)` bool: whether a member names an image's class."""
        return self.logits.argmax(axis=2) == self.targets

    @property
    def top1(self) -> np.ndarray:
        """`(M,)`: each member's accuracy, as a fraction."""
        return self.right.mean(axis=1)

    @property
    def notes(self) -> list[str]:
        """A line for each member that has learnt from some of the images."""
        many = f"of {counted(len(self.images), 'image')}"
        trained, fitted = (
            [(f"{count:,} {many}", name) for name, count in zip(self.names, counts, strict=False) if count]
            for counts in (self.learnt, self.fitted)  # which may be empty
        )
        told = [f"{these} are among those that {name} learnt from" for these, name in trained]
        told += [
            f"{these} are what {name} was fitted to, so it answers there as cross-fitted" for these, name in fitted
        ]
        return told

    def choose(self, places: np.ndarray) -> "Panel":
        """The panel of some of the images."""
        images = tuple(self.images[place] for place in places)
        groups = None if self.groups is None else self.groups[places]
        return replace(self, logits=self.logits[:, places], targets=self.targets[places], images=images, groups=groups)


def panel(
    runs: str | Sequence[str | Path | Run],
    data: str | None = None,
    *,
    root: str | None = None,
    device: str = "auto",
    tell: Tell = silent,
) -> Panel:
    """What runs say of the images that they held out, or of those of a source that none was trained on.

    Predictions that a run lacks are made, with a progress bar, and kept in its folder. All that a run has taken from
    the images that it held out are its best epoch and its temperature.

    Args:
        runs: two or more run folders, or patterns such as runs/lenet5_*; committees among them if need be. Their
            classes are matched by name.
        data: a source's name or a folder; None takes the validation images that all held out.
        root: where named sets lie, if elsewhere than the runs say.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …, for predictions that must be made.
        tell: is given a line where predictions are made.

    Raises:
        InputError: for fewer than two runs, for one that is named twice or still in training, and where runs were
            judged on different images, of which one has learnt what another held out, or know different classes.
    """
    expect(runs, (str, os.PathLike, Iterable), "two or more run folders are wanted")
    named = [runs] if isinstance(runs, str | os.PathLike) else [*runs]
    for run in named:
        expect(run, (str, os.PathLike), "a committee is made of run folders")
    opened = [Run.open(folder) for run in named for folder in _expanded(run)]
    _check(opened)
    key = sources.fingerprint(DataConfig(source=data, root=root)) if data else None
    said = [predictions(run, data, key, root, device, tell) for run in opened]
    first = said[0]
    for run, one in zip(opened[1:], said[1:], strict=True):
        _compare(opened[0], first, run, one)
    images = _shared(said, tell)
    aligned = [one.aligned(first.classes, images) for one in said]
    first = aligned[0]
    for run, one in zip(opened, aligned, strict=True):
        if many := int((one.targets != first.targets).sum()):
            raise InputError(f"{run.path} has other labels than {opened[0].path} for {many:,} of the same images")
    temperatures = tuple(float(run.card.get("temperature", 1.0)) for run in opened)
    logits = np.stack([one.logits / np.float32(t) for one, t in zip(aligned, temperatures, strict=True)])
    names = tuple(str(run.path) for run in opened)
    learnt = _among(first.images, [run.split["train"] for run in opened])
    fitted = _among(first.images, [run.split["val"] if run.is_cross_fitted else () for run in opened])
    judged_on = DataConfig(source=data, root=root) if data else config_.read(opened[0].config_file).data
    groups = sources.groups_of(judged_on, first.images)
    return Panel(names, first.classes, logits, first.targets, first.images, temperatures, learnt, fitted, groups)


def _expanded(run: str | Path | Run) -> list[str]:
    """The folders that a pattern matches, as in a shell; else the one that is named."""
    name = os.fspath(Run(run))
    return [name] if os.path.exists(name) else sorted(glob.glob(name)) or [name]


def _check(runs: Sequence[Run]) -> None:
    """Raises InputError unless these are runs that a committee can be made of."""
    if len(runs) < 2:
        raise InputError("a committee needs two members at least; name further run folders")
    seen: dict[str, Run] = {}
    for run in runs:
        if first := seen.get(os.path.realpath(run.path)):
            raise InputError(f"{first.path} is named twice ({run.path}); weights=… says what counts more")
        seen[os.path.realpath(run.path)] = run
        if run.is_busy:
            raise InputError(f"{run.path} is still in training; wait until it has finished")
        _ = run.learnt  # complains if there is none


def _compare(first: Run, of_first: RunPredictions, second: Run, of_second: RunPredictions) -> None:
    """Raises InputError if two runs say something of different images, or of different classes."""
    if strangers := sorted(set(of_first.classes) ^ set(of_second.classes)):
        named = ", ".join(strangers[:SHOWN]) + (" …" if len(strangers) > SHOWN else "")
        raise InputError(f"{first.path} and {second.path} do not know the same classes: only one knows {named}")
    if of_first.images == of_second.images:
        return
    images = [set(real_paths(said.images)) for said in (of_first, of_second)]
    learnt = [set(real_paths(run.split["train"])) for run in (first, second)]
    many, shared = [f"{len(each):,}" for each in images], len(images[0] & images[1])
    if not shared or (images[0] - images[1]) & learnt[1] or (images[1] - images[0]) & learnt[0]:
        if not shared and (wrong := whereabouts.at_another_place(first, second)):
            raise InputError(wrong)
        raise InputError(
            f"{first.path} was judged on {many[0]} images and {second.path} on {many[1]}, of which {shared:,} are the "
            f"same, and what one held out the other has learnt; train them on one split (data.val_fraction, "
            f"data.split_seed), or name images that none was trained on by data=…"
        )


def _shared(said: Sequence[RunPredictions], tell: Tell) -> tuple[str, ...]:
    """The first one's images that all say something of; a line is told where those are not all that any does: a photo
    may have vanished before a later run was begun, or went on. Raises InputError if there are none.
    """
    files = [real_paths(one.images) for one in said]
    common, every = set(files[0]).intersection(*files), set().union(*files)
    if not common:
        raise InputError("there is no image that all runs held out; name images that none was trained on by data=…")
    if len(common) < len(every):
        tell(f"judged on the {counted(len(common), 'image')} that all runs held out, of {len(every):,} that one did")
    return tuple(name for name, file in zip(said[0].images, files[0], strict=True) if file in common)


def _among(images: Sequence[str], lists: Sequence[Iterable[str]]) -> tuple[int, ...]:
    """How many of the images each list names, whatever links lead to them."""
    every = list({name for names in lists for name in names})  # once: runs of one split name the same
    real, files = dict(zip(every, real_paths(every), strict=True)), real_paths(images)
    named = [{real[name] for name in names} for names in lists]
    return tuple(sum(file in own for file in files) for own in named)
