"""Which run a config begins, or goes on with, and from which state."""

import os
import sys
from collections.abc import Mapping, Set
from dataclasses import asdict
from pathlib import Path

import torch

from cnnzoo import __version__, environment, whereabouts
from cnnzoo import config as config_
from cnnzoo.checkpoint import Run
from cnnzoo.config import Config, DataConfig
from cnnzoo.data import kinds, sources
from cnnzoo.errors import InputError, printable
from cnnzoo.telling import Tell, as_typed

CHECKPOINT = "its checkpoint"  # what processes of a team compare first
PLACES = {"data.source", "data.val_source", "data.weights", "loss.teacher", "model.pretrained"}  # which may have moved


def begin(config: Config) -> Run:
    """A config's run to come. Raises InputError if there is something already, and among the photos to learn from,
    which it would not leave as they are; and for folders that no config.yaml can name.
    """
    for key, name in (("run", str(config.folder)), ("data.source", config.data.source)):
        if any("\ud800" <= letter <= "\udfff" for letter in name):  # what Python makes of bytes that it cannot decode
            known = sys.getfilesystemencoding()
            raise InputError(f"{key} is {printable(name)}, whose name is no {known}; rename it, or set PYTHONUTF8=1")
    sources.refuse_within(config.data, config.folder)
    return Run.new(config.folder)


def open_(
    config: Config | Mapping | str | Path | None, resume: str | Path | Run | None, tell: Tell, has_images: bool = False
) -> tuple[Run, Config, dict | None]:
    """The folder, the complete config, and the state to go on from, where the run is not finished. `has_images`:
    these are in memory, so that none need lie where the config says.
    """
    given = None if config is None else config_.read(config)
    if resume == "auto":
        folder = (given or Config()).folder
        resume = folder if (folder / "config.yaml").exists() else None
    if resume is None:
        given = given or Config()
        return begin(given), given, None
    run = Run.open(resume)
    own = config_.read(run.config_file)
    if given is not None and (changed := _differences(given, own, _moved(run, own.data, given.data))):
        raise InputError(
            f"{run.path} was begun with another config: {changed}; resume it as it was, or start a new run "
            f"by run=…, from these weights with model.pretrained {as_typed(run.path)}"
        )
    if run.is_finished:
        return run, given or own, None
    if not has_images:
        _check_there(run, (given or own).data)
    if not run.state_file.exists() and not run.state_before.exists():
        tell(f"{run.path} holds no checkpoint yet, so it starts from the beginning")
        return run, given or own, None
    if not has_images:
        whereabouts.expect_own(run, (given or own).data)
    state, wrong = run.load_state()
    if wrong:
        tell(wrong)
    if changed := _differences(own, config_.read(state["config"]), PLACES):
        raise InputError(
            f"{run.config_file} was changed since the run was begun: {changed}; change it back, or start a new run "
            f"by run=…, from these weights with model.pretrained {as_typed(run.path)}"
        )
    return run, given or own, state


def was_restarted(folder: Path) -> bool:
    """Whether torchrun started this process anew, after one of its team was lost or came back: then the run that its
    job had begun in the folder goes on by itself. A run of another job does not.

    Each machine counts only those restarts that its own processes made necessary, so that a job is known by its id.
    """
    job, there = environment.job(), Run(folder)
    if (there.path / "environment.json").exists():
        is_named = job not in ("", "none")  # as torch calls all jobs that were given no id
        return job is not None and there.environment.get("job") == job and (is_named or _restarts() > 0)
    return _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def alike(config: Config, state: dict | None) -> dict[str, object]:
    """What all processes of a team must have alike before they look at their images."""
    at = state and state["progress"]
    return {
        CHECKPOINT: f"of epoch {at['epoch']}, step {at['step']}" if at else "missing",
        "cnnzoo": __version__,
        "torch": torch.__version__,
        **_keys(config, PLACES | {"data.root", "data.workers"}),
    }


def _moved(run: Run, own: DataConfig, given: DataConfig) -> Set[str]:
    """The keys that tell where a run's images lie, if they lie elsewhere now: where the config that is given says.
    Raises InputError where that is nowhere.
    """
    if (own.source, own.val_source) == (given.source, given.val_source):
        return frozenset()
    if not kinds.is_there(given.source):
        sources.check(given)  # which says so, and what is beside it
    _check_there(run, given)
    plans = (run.path / "split.json", run.state_file, run.state_before)  # none, where it was killed as it wrote these
    is_free = not any(file.exists() for file in plans) or whereabouts.renamed(run, own, given)
    return {"data.source", "data.val_source"} if is_free else frozenset()


def _check_there(run: Run, data: DataConfig) -> None:
    """Raises InputError where a folder or a table to learn from, or to judge by, is not there."""
    for key, source in (("source", data.source), ("val_source", data.val_source)):
        if source and not kinds.is_there(source):
            where = f"say where these lie now by data.{key}=…"
            raise InputError(f"{source}, with whose images {run.path} was begun, is not here; {where}")


def _differences(given: Config, own: Config, free: Set[str] = frozenset()) -> str:
    """The keys that make a run another one and in which two configs differ, but for those that are `free` to."""
    free = {"data.root", "data.workers", "data.bad_files"} | free
    own_affair = ("device", "checkpoint_minutes", "accumulate", "loggers", "on_divergence", "find_unused_parameters")
    free |= {f"train.{key}" for key in own_affair}
    here, there = _keys(given, free), _keys(own, free)
    return ", ".join(
        f"{key} is {there.get(key)} there and {here.get(key)} here"
        for key in here | there
        if here.get(key) != there.get(key)
    )


def _keys(config: Config, free: Set[str]) -> dict[str, object]:
    """A config's values by their keys, but for `run` and those that are `free` to differ."""
    sections = {name: values or {} for name, values in asdict(config).items() if name != "run"}
    keys = {f"{name}.{key}": value for name, values in sections.items() for key, value in values.items()}
    return {key: value for key, value in keys.items() if key not in free}
