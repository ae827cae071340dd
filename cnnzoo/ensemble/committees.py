"""Committees made by training: many runs of one config that differ in one thing, and the run that they are together.

bag    each run has a bootstrap sample of the training images (L. Breiman, "Bagging Predictors", 1996)
seeds  each run has another seed
boost  each run draws images the more often, the more often those before it were wrong on them (SAMME, see `resampling`;
       drawn anew in each epoch, which H. Schwenk and Y. Bengio, "Boosting Neural Networks", Neural Computation 12,
       2000, found better for nets than one draw for all epochs)
"""

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cnnzoo import assemble, atomic, bars, calibrate, whereabouts, zoo
from cnnzoo import config as config_
from cnnzoo.checkpoint import Run
from cnnzoo.config import AugmentConfig, Config, Overrides
from cnnzoo.data import kinds, sources
from cnnzoo.data.batches import EvalBatches
from cnnzoo.data.sources import Dataset
from cnnzoo.device import pick_device
from cnnzoo.ensemble.runs import combine
from cnnzoo.errors import InputError, counted, unknown
from cnnzoo.folds import top1_of
from cnnzoo.opening import begin
from cnnzoo.resampling import Round, out_of_bag, samme, unseen
from cnnzoo.run import train
from cnnzoo.shown import Shown
from cnnzoo.telling import Tell
from cnnzoo.train.validation import logits


@dataclass(frozen=True)
class RunCommittee(Shown):
    """Runs of one config, and the run that they are together."""

    kind: str  # bag, seeds, boost or snapshots
    members: tuple[Run, ...]
    run: Run
    top1: tuple[float, ...]  # of each member, on the validation images, as a fraction
    together: float
    notes: tuple[str, ...] = ()  # what else there is to say of this kind

    def __str__(self) -> str:
        worst, best = min(self.top1), max(self.top1)
        line = (
            f"{self.kind}, {counted(len(self.members), 'member')}: each alone {worst:.2%} to {best:.2%} top-1, "
            f"together {self.together:.2%}, in {self.run.path}"
        )
        return "\n".join([line, *self.notes])


def train_committee(
    config: Config | Mapping | str | Path | None,
    kind: str,
    many: int,
    *,
    overrides: Overrides = (),
    resume: bool = False,
    with_report: bool = True,
    tell: Tell = print,
    should_stop: Callable[[], bool] | None = None,
) -> RunCommittee:
    """Train a committee: its members in bag0, bag1 … (seed0 …, boost0 …) of the config's run folder, itself in
    committee there.

    Args:
        config, overrides, with_report, tell, should_stop: as `train` takes them.
        kind: bag, seeds or boost.
        many: members, 2 at least; boosting may end before with one that is right on every training image.
        resume: keep members that are finished, and go on with the one that is not.

    Raises:
        InputError: for whatever is wrong with the config, and where boosting has no second member to train.
        Interrupted: after `should_stop` said so; `resume` goes on from there.
    """
    if kind not in _KINDS:
        raise unknown("kind of committee", kind, _KINDS)
    if many < 2:
        raise InputError(f"{kind} is {many}, but a committee has at least 2 members")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError(f"{kind} trains its members by one process; start it without torchrun")
    whole = config_.read(config, overrides)
    if kind != "seeds" and (whole.data.bag is not None or whole.data.weights is not None):
        raise InputError(f"data.bag and data.weights are what {kind} sets for each member; leave them null")
    if resume:
        _check_size(Run(whole.folder / "committee"), kind, many)
    else:
        begin(whole)  # complains now rather than after hours
    images = _Images(whole, resume, tell)
    return _KINDS[kind](images, many, resume, with_report=with_report, tell=tell, should_stop=should_stop)


def of_snapshots(run: Run, tell: Tell = print) -> RunCommittee:
    """The mean of the nets in which the cycles of a run's schedule ended, in committee of its folder: G. Huang et al.,
    "Snapshot Ensembles: Train 1, get M for free", ICLR 2017, arXiv 1704.00109, section 3.
    """
    cycles = len(config_.read(run.config_file).cycle_ends)
    members = [run.snapshot(number) for number in range(1, cycles + 1)]
    return _together("snapshots", run.path, members, True, {"tell": tell})


class _Images:
    """The images of a committee, which are divided once, so that whatever comes or vanishes while it is trained, all
    its members are judged on the same. Its folder's split.json tells how, for when it goes on.
    """

    def __init__(self, whole: Config, resume: bool, tell: Tell):
        self.whole, self.tell, self._folder = whole, tell, Run(whole.folder)
        self._is_begun = resume and (self._folder.path / "split.json").exists()

    def drawn(self, config: Config) -> Dataset:
        """Those that a member's config draws."""
        return sources.drawn(self._undrawn, config.data)

    @functools.cached_property
    def split(self) -> whereabouts.Names:
        """What they are called where they lie now. Raises InputError where other images lie there."""
        if not self._is_begun:
            return self._undrawn.split()
        whereabouts.expect_own(self._folder, self.whole.data)
        return whereabouts.renamed(self._folder, self.whole.data, self.whole.data) or self._folder.split

    @functools.cached_property
    def _undrawn(self) -> Dataset:
        undrawn = replace(self.whole, data=replace(self.whole.data, bag=None, weights=None))
        assemble.make_weights_ready(undrawn)
        data = assemble.load_data(undrawn, self.split if self._is_begun else None)
        if not self._is_begun:
            for line in assemble.doubts(self.whole.data.source):
                self.tell(line)
            whereabouts.remember(self._folder, data.split(), data.homes)
        return data


def _bag(images: _Images, many: int, resume: bool, **hooks) -> RunCommittee:
    whole = images.whole
    runs = [_member(images, f"bag{i}", resume, hooks, data=replace(whole.data, bag=i)) for i in range(many)]
    judge = _Judge(images)
    shares = np.stack([calibrate.softmax(judge.logits(run)) for run in runs])  # (M, N, K)
    names, groups = judge.images.names, judge.images.groups
    owns = [config_.read(run.config_file).data for run in runs]  # which say another place where they may only be read
    splits = [whereabouts.renamed(run, own, whole.data) or run.split for run, own in zip(runs, owns, strict=True)]
    drawn = [np.flatnonzero(np.isin(names, split["train"])) for split in splits]
    out = np.array([unseen(places, len(names), groups) for places in drawn])
    top1, many_judged = out_of_bag(shares, out, judge.images.labels)
    note = "every member has seen every image" if top1 is None else f"out of bag {top1:.2%} of {many_judged:,} images"
    return _together("bag", whole.folder, runs, resume, hooks, notes=(note,))


def _seeds(images: _Images, many: int, resume: bool, **hooks) -> RunCommittee:
    whole = images.whole
    seeds = [whole.train.seed + number for number in range(many)]
    runs = [_member(images, f"seed{s}", resume, hooks, train=replace(whole.train, seed=s)) for s in seeds]
    return _together("seeds", whole.folder, runs, resume, hooks)


def _boost(images: _Images, many: int, resume: bool, **hooks) -> RunCommittee:
    whole, judge = images.whole, _Judge(images)
    weights, data = np.full(len(judge.images), 1 / len(judge.images)), whole.data
    runs: list[Run] = []
    rounds: list[Round] = []
    ended: tuple[str, ...] = ()
    for number in range(many):
        run = _member(images, f"boost{number}", resume, hooks, data=data)
        done = samme(weights, judge.logits(run).argmax(axis=1) == judge.images.labels, judge.classes)
        if done.usable:
            runs.append(run)
            rounds.append(done)
        if not done.goes_on:
            why = "right on every training image" if done.usable else f"no better than chance ({done.error:.1%} wrong)"
            ended = (f"boosting ended with {run.path}, which is {why}",)
            break
        weights, file = done.weights, whole.folder / f"weights{number + 1}.json"
        each = dict(zip(judge.names, (weights * len(weights)).tolist(), strict=True))
        atomic.write(file, json.dumps(each).encode())
        data = replace(data, weights=str(file))
    if len(runs) < 2:
        raise InputError(f"{ended[0]}, so there is no committee; train a smaller net, or less, or take bag=…")
    votes = np.array([done.alpha for done in rounds])
    errors = ", ".join(f"{done.error:.1%}" for done in rounds)
    notes = (*ended, f"weighted errors on the training images: {errors}")
    return _together("boost", whole.folder, runs, resume, hooks, "vote", (votes / votes.sum()).tolist(), notes)


_KINDS = {"bag": _bag, "seeds": _seeds, "boost": _boost}


def _member(images: _Images, name: str, resume: bool, hooks: Mapping, **changes) -> Run:
    """A finished run in a folder of the whole's, of a config with some changes."""
    hooks.get("tell", print)(f"{name}:")
    own = replace(images.whole, run=str(images.whole.folder / name), **changes)
    data = None if resume and Run(own.run).is_finished else images.drawn(own)
    return train(own, resume="auto" if resume else None, data=data, **hooks)


def _together(
    kind: str,
    folder: Path,
    runs: Sequence[Run],
    resume: bool,
    hooks: Mapping,
    method: str = "mean",
    weights: Sequence[float] | None = None,
    notes: tuple[str, ...] = (),
) -> RunCommittee:
    """The runs and what they are together."""
    committee, tell = Run(folder / "committee"), hooks.get("tell", print)
    if resume and _is_made(committee, runs):
        whereabouts.follow(committee, config_.read(runs[0].config_file).data, tell)
    else:
        committee = combine(runs, method, run=committee.path, weights=weights, tell=tell)
    return RunCommittee(kind, tuple(runs), committee, tuple(map(top1_of, runs)), top1_of(committee), notes)


def _check_size(committee: Run, kind: str, many: int) -> None:
    """Raises InputError if there is a committee of another size, before members are trained that it has not."""
    if not committee.is_finished:
        return
    made = len(committee.card["members"])
    trained, weighted = (len([*committee.path.parent.glob(files)]) for files in ("boost*", "weights*.json"))
    has_ended = kind == "boost" and trained > weighted  # with a member for whose mistakes none could be made
    if made > many or (made < many and not has_ended):
        raise InputError(f"{committee.path} is a committee of {made}, not of {many}; remove it, and it is made anew")


def _is_made(committee: Run, runs: Sequence[Run]) -> bool:
    """Whether a committee of these runs is there. Raises InputError for one of others, or of what these were before."""
    if not committee.is_finished:
        return False
    if committee.card.get("members") != [run.card for run in runs]:
        raise InputError(f"{committee.path} is a committee of other members; remove it, and it is made anew")
    return True


class _Judge:
    """What runs of a config say of all its training images, as evaluation would see them. A line on each that can no
    longer be read is told.
    """

    def __init__(self, images: _Images):
        self.tell = functools.cache(images.tell)  # once, however many runs are asked
        found = assemble.load_data(replace(images.whole, augment=AugmentConfig()), images.split)
        self.images, self.preprocess, self.classes = found.train, found.preprocess, len(found.classes)
        self.names = kinds.names_within(found.train.names, found.homes.get("train"))  # wherever they lie
        self.device = pick_device(images.whole.train.device)

    def logits(self, run: Run) -> np.ndarray:
        """`(N, K)` float32, at the run's temperature."""
        net, p = zoo.load(run).to(self.device), self.preprocess
        batches = EvalBatches(self.images.images, self.images.labels, 256, p.mean, p.std, self.device)
        bar = bars.show(batches, desc=f"judging {run.path.name}")
        said = (logits(net, bar)[0] / net.temperature).numpy()
        for line in batches.problems:
            self.tell(line)
        return said
