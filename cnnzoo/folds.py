"""Cross-validation: several runs, each judged on another part of the images, so that every image is held out once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cnnzoo import assemble, whereabouts
from cnnzoo import config as config_
from cnnzoo.checkpoint import Run
from cnnzoo.config import Config, Overrides
from cnnzoo.data import kinds, sources
from cnnzoo.errors import InputError, at_least
from cnnzoo.opening import begin
from cnnzoo.run import train
from cnnzoo.shown import Shown
from cnnzoo.telling import Tell


@dataclass(frozen=True)
class Folds(Shown):
    """Runs that were each judged on another part of the images."""

    runs: tuple[Run, ...]
    top1: tuple[float, ...]  # of each run's kept weights, as a fraction

    @property
    def mean(self) -> float:
        return float(np.mean(self.top1))

    @property
    def deviation(self) -> float:
        """The standard deviation of the folds' accuracies, with one degree of freedom taken off."""
        return float(np.std(self.top1, ddof=1))

    def __str__(self) -> str:
        each = ", ".join(f"{value:.2%}" for value in self.top1)
        return f"{len(self.runs)} folds: top-1 {self.mean:.2%}, standard deviation {self.deviation:.2%} ({each})"


def cross_validate(
    config: Config | Mapping | str | Path | None,
    folds: int,
    *,
    overrides: Overrides = (),
    resume: bool = False,
    with_report: bool = True,
    tell: Tell = print,
    should_stop: Callable[[], bool] | None = None,
) -> Folds:
    """Train a run for each fold, in fold0, fold1 … of the config's run folder, so that every image is held out once.

    Args:
        config, overrides, with_report, tell, should_stop: as `train` takes them.
        folds: their number, 2 at least.
        resume: keep folds that are finished, and go on with the one that is not; each image stays in its fold.

    Returns:
        The runs, and the accuracy of each.

    Raises:
        InputError: for fewer folds than two, for whatever is wrong with the config or the data, and without `resume`
            where the first fold is there already.
        Interrupted: after `should_stop` said so; `resume` goes on from there.
    """
    at_least("folds", folds, 2)
    whole = config_.read(config, overrides)
    hooks = {"with_report": with_report, "tell": tell, "should_stop": should_stop}
    first = whole.folder / "fold0"
    if not Run(first).config_file.exists():
        begin(replace(whole, run=str(first)))  # complains now, as the next line does, while nothing is written
        assemble.net_input(whole)
    elif not resume:
        raise InputError(
            f"{first} exists already; go on with its folds by resume='auto', or choose another folder by run=…"
        )
    splits = _splits(whole, folds, resume)
    runs, top1 = [], []
    for fold in range(folds):
        own = replace(whole, run=str(whole.folder / f"fold{fold}"), data=replace(whole.data, folds=folds, fold=fold))
        run = train(own, resume="auto" if resume else None, split=splits[fold], **hooks)
        runs.append(run)
        top1.append(top1_of(run))
    return Folds(tuple(runs), tuple(top1))


def _splits(whole: Config, folds: int, resume: bool) -> list[whereabouts.Names]:
    """What each fold trains on and is judged by. It is dealt out once, so that whatever comes or vanishes while folds
    are trained, none is held out twice; the folder's split.json tells how, for when it goes on.
    """
    kept = Run(whole.folder)
    if resume and (kept.path / "split.json").exists() and len({*kept.images.get("folds", ())}) == folds:
        whereabouts.expect_own(kept, whole.data)
        names = (whereabouts.renamed(kept, whole.data, whole.data) or kept.split)["val"]
        held_by = np.array(kept.images["folds"])
    else:
        names, held_by = sources.folds(whole.data, folds)
        all_of_it = {"train": names, "val": names, "folds": held_by.tolist()}
        whereabouts.remember(kept, all_of_it, kinds.homes(whole.data))

    def named(places: np.ndarray) -> list[str]:
        return [names[place] for place in np.flatnonzero(places)]

    return [{"train": named(held_by != fold), "val": named(held_by == fold)} for fold in range(folds)]


def top1_of(run: Run) -> float:
    """The accuracy of a run's kept weights on its validation images, as a fraction."""
    outputs, targets = run.predictions
    return float((outputs.argmax(1) == targets).mean())
