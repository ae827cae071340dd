"""The command that trains, one run or several of one config."""

import argparse
import signal
from collections.abc import Mapping, Sequence
from shlex import quote

from cnnzoo import config as config_
from cnnzoo.cli.speech import go_on_with, is_first, stop_on_signals, stopped, tell
from cnnzoo.errors import InputError, Interrupted

MANY = {  # what cnnzoo train makes of one config with several runs
    "folds": "cross-validate: train N runs, each judged on another N-th of the images",
    "bag": "a committee of N runs, each trained on a bootstrap sample of the training images",
    "seeds": "a committee of N runs, each with another seed",
    "boost": "a committee of up to N runs, each trained for the mistakes of those before it",
}


def train(options: Sequence[str]) -> None:
    """Train a net and leave a run folder. Options are those of the config, see --help."""
    from cnnzoo import run

    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config")
    first.add_argument("--resume")
    of_many = first.add_mutually_exclusive_group()
    for name in MANY:
        of_many.add_argument(f"--{name}", type=int)
    try:
        arguments, overrides = first.parse_known_args(options)
    except argparse.ArgumentError as error:
        raise InputError(str(error)) from None
    kind = next((name for name in MANY if getattr(arguments, name) is not None), None)
    resume = arguments.resume or ("auto" if run.was_restarted() else None)
    if "-h" in overrides or "--help" in overrides:
        parser = config_.parser()
        parser.add_argument(
            "--resume",
            metavar="RUN",
            help="a run folder to go on with, or auto: the config's own folder where it holds a run",
        )
        for name, about in MANY.items():
            parser.add_argument(f"--{name}", metavar="N", help=about)
        parser.parse_args(overrides)
    base = arguments.config
    if base is None and resume not in (None, "auto"):
        base = run.Run.open(resume).config_file
    config = config_.read(base, overrides)
    if config.ensemble is not None:
        from cnnzoo.ensemble import runs

        there = run.Run(config.folder if resume in (None, "auto") else resume)
        kept = resume is not None and there.is_finished
        go_on_with(run.train(config, resume=there, tell=tell) if kept else runs.again(config, tell))
        return
    with stop_on_signals() as caught:
        hooks = {"tell": tell, "should_stop": lambda: bool(caught)}
        try:
            if kind is None:
                done = run.train(config, resume=resume, **hooks)
            else:
                _train_many(kind, getattr(arguments, kind), config, resume is not None, hooks)
        except Interrupted as interrupted:
            folder = config.folder if resume in (None, "auto") else resume
            number = caught[0] if caught else signal.SIGTERM  # which another process of the team caught
            again = f"--resume {quote(str(folder))}" if kind is None else "the same command and --resume auto"
            stopped(number, run.Run(interrupted.args[0]), f"cnnzoo train {again}")
    if kind is None:
        conclude(done)


def _train_many(kind: str, many: int, config: config_.Config, resume: bool, hooks: Mapping) -> None:
    if kind == "folds":
        from cnnzoo import folds

        done = folds.cross_validate(config, many, resume=resume, **hooks)
        tell(str(done))
        return
    from cnnzoo.ensemble import committees

    made = committees.train_committee(config, kind, many, resume=resume, **hooks)
    tell(str(made))
    go_on_with(made.run)


def conclude(run) -> None:
    """After a run, by the first of a team's processes: the committee of its snapshots, where its schedule has left
    some, and what the run is good for.
    """
    if not is_first():
        return
    if config_.read(run.config_file).cycle_ends:
        from cnnzoo.ensemble import committees

        tell(str(committees.of_snapshots(run, tell=tell)))
    go_on_with(run)
