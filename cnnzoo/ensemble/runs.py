"""From run folders to a committee, which is a run folder like any other."""

import json
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from torch import Tensor, nn

from cnnzoo import assemble, calibrate, environment, opening, whereabouts, zoo
from cnnzoo import config as config_
from cnnzoo import run as run_
from cnnzoo.checkpoint import Run
from cnnzoo.config import Config, DataConfig, EnsembleConfig
from cnnzoo.data import kinds, sources
from cnnzoo.data.preprocess import Preprocess
from cnnzoo.device import pick_device
from cnnzoo.ensemble import why
from cnnzoo.ensemble.combine import METHODS
from cnnzoo.ensemble.contest import Contest, contest
from cnnzoo.ensemble.diversity import Diversity
from cnnzoo.ensemble.members import panel
from cnnzoo.ensemble.soup import soup
from cnnzoo.errors import InputError, counted, expect, printable
from cnnzoo.measures import Evaluation, measure
from cnnzoo.models import _rules
from cnnzoo.predict import Predictions, predict
from cnnzoo.report import page
from cnnzoo.shown import Shown, Table
from cnnzoo.telling import Tell, as_typed, silent


class Ensemble(Shown):
    """Several runs that answer as one net.

    Args:
        runs: two or more run folders, or patterns such as runs/lenet5_*; classes are matched by name, and nets may
            differ in all else.
        method: vote, plurality, mean, logits, geometric, rank, weighted, greedy, stacking; or all, which takes the best
            of them (see `Contest.best`).
        data: a source's name or a folder that none was trained on, to fit on and judge by; None takes the validation
            images that all runs held out.
        root: where named sets lie, if elsewhere than the runs say.
        weights: of the members, not negative, together 1, for a method that finds none.
        seed: of the parts for cross-fitting.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …, for predictions that must be made.
        tell: is given each line meant for a person.

    Attributes:
        contest: what the members reach alone and together; `str()` of it, and of the ensemble, is a table.
        combination: the method taken.

    Raises:
        InputError: for runs that make no committee (see `members.panel`), an unknown method, and weights that are none.
    """

    def __init__(
        self,
        runs: Sequence[str | Path | Run],
        method: str = "mean",
        *,
        data: str | None = None,
        root: str | None = None,
        weights: Sequence[float] | None = None,
        seed: int = 0,
        device: str = "auto",
        tell: Tell = print,
    ):
        self._started, self.tell = time.perf_counter(), tell
        self.panel = panel(runs, data, root=root, device=device, tell=tell)
        self.contest: Contest = contest(self.panel, METHODS if method == "all" else [method], weights, seed)
        self.combination = self.contest.best
        given = None if weights is None else [float(weight) for weight in weights]
        self._config = EnsembleConfig(list(self.panel.names), self.combination.method, data, given, seed)
        self._root = root

    def _table(self) -> Table:
        return self.contest._table()

    def predict(self, images: Any, **options: Any) -> Predictions:
        """Class probabilities for photos: `cnnzoo.predict` with the committee's net."""
        return predict(self.net, images, **options)

    def evaluate(self) -> Evaluation:
        """How good the committee is on the panel's images; by cross-fitting, where the method learns from them."""
        return measure(self.combination.honest, self.panel.targets, self.panel.classes, groups=self.panel.groups)

    def diversity(self, out: str | Path | None = None) -> Diversity:
        """What the committee has over its members, as `cnnzoo.diversity` tells it; `out` as there."""
        return why.explain(self.combination, self._config.data, self._root, out, self.tell)

    @cached_property
    def net(self) -> nn.Module:
        """The committee as one net, as `cnnzoo.load` gives it once it is saved."""
        return zoo.of_card(*self._packed(), "the committee")

    def save(self, run: str | Path | None = None) -> Run:
        """Leave a run folder that predicts, evaluates, exports and reports without the members' own.

        Members that have no weight are left out. `run` is the folder; None makes runs/committee_<source>_<method>.

        Raises InputError if there is something already.
        """
        data = self._judged_on()
        folder = run or f"runs/committee_{config_.short_name(data.source)}_{self.combination.method}"
        config = Config(run=str(Run(folder).path), data=data, ensemble=self._config)
        made = opening.begin(config)
        with made.locked():
            card, state = self._packed()
            made.save_model(state, card)  # the largest file first: where the disk is full, nothing is left behind
            made.write("config.yaml", _yaml(config))
            images = {"train": self._learnt(), "val": list(self.panel.images)}
            whereabouts.remember(made, images, kinds.homes(data))
            made.write("environment.json", json.dumps(environment.describe(pick_device("cpu"), "fp32"), indent=2))
            made.save_predictions(self.combination.honest, self.panel.targets)
            made.write("committee.json", json.dumps(self.contest.to_dict(), indent=2))
            made.write_metrics([self._report()])
            try:
                told = f"; report: {write_report(made, config, self.panel.images)}"
            except InputError as error:  # predictions are at hand, but the images no longer are
                told = f"; no report: {error}"
        self.tell(f"{self.combination.method} of {counted(len(card['members']), 'member')} in {made.path}{told}")
        return made

    def _report(self) -> dict:
        """The only line of metrics.jsonl: nothing was trained."""
        said, targets = self.combination.honest, self.panel.targets
        loss = -float(said[np.arange(len(targets)), targets].mean(dtype=np.float64))
        seconds = time.perf_counter() - self._started
        return {"epoch": 0, "val_loss": loss, "val_top1": self.combination.honest_top1, "seconds": seconds}

    @property
    def _first(self) -> Run:
        return Run(self.panel.names[0])

    def _learnt(self) -> list[str]:
        """The images that members have learnt from, but for those of the panel to which a committee was fitted."""
        runs, judged = [Run(name) for name in self.panel.names], set(self.panel.images)
        trained = [name for run in runs for name in run.split["train"]]
        fitted = [name for run in runs if run.is_cross_fitted for name in run.split["val"] if name not in judged]
        return [*dict.fromkeys(trained + fitted)]

    def _packed(self) -> tuple[dict, dict[str, Tensor]]:
        """The card and the tensors of the committee's model.safetensors."""
        rule, weights = self.combination.rule, self.combination.weights
        places = [i for i in range(len(self.panel)) if weights is None or weights[i] > 0]
        spec = _rules.describe(rule)
        if weights is not None:
            spec["weights"] = [spec["weights"][i] for i in places]
        members = [Run(self.panel.names[i]) for i in places]
        state = {f"rule.{name}": tensor for name, tensor in rule.state_dict().items()}
        for i, member in enumerate(members):
            state |= {f"members.{i}.{name}": tensor for name, tensor in member.weights.items()}
        card = {
            "name": "committee",
            "members": [member.card for member in members],
            "rule": spec,
            "classes": list(self.panel.classes),
            "num_classes": len(self.panel.classes),
            "temperature": calibrate.fit_temperature(self.combination.honest, self.panel.targets),
        }
        return card, state

    def _judged_on(self) -> DataConfig:
        """The data whose held-out images the panel's are."""
        own = config_.read(self._first.config_file).data
        own = replace(own, root=self._root or own.root, bag=None, weights=None)  # which are one member's
        if self._config.data is None or self.panel.images == tuple(self._first.split["val"]):
            return own
        chosen = DataConfig(source=self._config.data, root=self._root)
        if sources.has_held_out(chosen):
            return chosen
        return DataConfig(source=own.source, val_source=chosen.source, root=own.root)


def combine(
    runs: Sequence[str | Path | Run], method: str = "mean", *, run: str | Path | None = None, **options: Any
) -> Run:
    """Make a committee of runs and leave a run folder.

    Arguments and errors as those of `Ensemble`; `run` as that of `Ensemble.save`.
    """
    if run is not None:
        Run.new(run)  # complains now rather than after the work
    return Ensemble(runs, method, **options).save(run)


def again(config: Config, tell: Tell = silent) -> Run:
    """Make the committee, or the soup, anew that a config describes."""
    said = config.ensemble
    method, _, is_soup = said.method.partition("_")
    if is_soup:
        return soup(said.members, method, run=config.run, tell=tell)
    options = {"data": said.data, "root": config.data.root, "weights": said.weights, "seed": said.seed}
    return combine(said.members, said.method, run=config.run, tell=tell, **options)


def report(run: str | Path | Run, data: str | Path | None = None) -> Path:
    """Write a run's or a committee's report.html anew: curves, confusion matrix, classes, most confident mistakes.

    `data` is where its images lie now, if they were moved. Returns the file. Raises InputError if there is no run, or
    where its data no longer holds the images that it was judged on.
    """
    opened = Run.open(run)
    config = config_.read(opened.config_file)
    if data is not None:
        expect(data, (str, os.PathLike), "data is a source's name or a folder")
        data = os.fspath(data)
    found, split = whereabouts.find(opened, config.data, data, str(opened.path))
    if config.data.val_source and not found.val_source and split and not opened.committee:
        way = as_typed("cnnzoo", "train", "--resume", opened.path, "--data.val_source", found.source, "--data.source")
        raise InputError(
            f"{config.data.source}, of which the report shows images, too, is not here; name it by {way} …"
        )
    config = replace(config, data=replace(found, bad_files="skip"))  # what it was judged on is asked for below
    if split is None:
        raise _lost(opened, config)
    if opened.committee:
        return write_report(opened, config, split["val"])
    own = replace(config.model, pretrained=str(opened.path))  # what it began from may be gone
    whole = assemble.load_data(replace(config, model=own), split)
    if list(whole.val.names) != split["val"]:
        raise _lost(opened, config, set(split["val"]) - {*whole.val.names})
    return run_.write_report(opened, config, whole)


def write_report(run: Run, config: Config, names: Sequence[str]) -> Path:
    """(Re)make the report.html of a committee that was judged on the images of these names; its pictures are as the
    first member sees them.

    Raises InputError if its data no longer holds them.
    """
    card = run.card
    member = card["members"][0]
    while "members" in member:
        member = member["members"][0]
    preprocess = Preprocess.from_dict(member["preprocess"])
    judged, _, _ = sources.held_out(config.data, preprocess, split=True, names=names)
    if [*judged.names] != [*names]:
        raise _lost(run, config, {*names} - {*judged.names})
    run.write("report.html", page.render(run, config, card["classes"], judged))
    return run.report_file


def _lost(run: Run, config: Config, gone: Collection[str] = ()) -> InputError:
    """What is wrong where of the images that a run was judged on some are `gone`, by name, or if none is named all."""
    source, judged = config.data.source, run.split["val"]
    if not 0 < len(gone) < len(judged):
        return InputError(f"{source} does not hold the images that {run.path} was judged on")
    told = f"{len(gone):,} of the {counted(len(judged), 'image')} that {run.path} was judged on"
    which = f"{printable(min(gone))}; restore it" if len(gone) == 1 else f"{printable(min(gone))} …; restore them"
    return InputError(f"{source} lacks {told}: {which}")


def _yaml(config: Config) -> str:
    """What a committee needs of a config."""
    whole = yaml.safe_load(config_.dump(config))
    return yaml.safe_dump({key: whole[key] for key in ("run", "ensemble", "data")}, sort_keys=False, allow_unicode=True)
