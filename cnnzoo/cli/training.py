"""The command that trains, one run or several of one config, and the one that shows on what."""

from collections.abc import Mapping, Sequence

from cnnzoo import config as config_
from cnnzoo.cli.speech import go_on_with, is_first, stopped, tell
from cnnzoo.errors import InputError, Interrupted
from cnnzoo.signals import stop_on_signals
from cnnzoo.telling import as_typed


def train(
    *,
    config: str | None = None,
    resume: str | None = None,
    folds: int | None = None,
    bag: int | None = None,
    seeds: int | None = None,
    boost: int | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Train a net and leave a run folder.

    Args:
        config: a YAML file with any of the keys below, which override it.
        resume: a run folder to go on with, or auto: the config's own folder where it holds a run.
        folds: cross-validate: train N runs, each judged on another N-th of the images.
        bag: a committee of N runs, each trained on a bootstrap sample of the training images.
        seeds: a committee of N runs, each with another seed.
        boost: a committee of up to N runs, each trained for the mistakes of those before it.
        overrides: any key of the config.
    """
    from cnnzoo import opening, run

    asked = {"folds": folds, "bag": bag, "seeds": seeds, "boost": boost}
    kinds = [kind for kind, many in asked.items() if many is not None]
    if len(kinds) > 1:
        raise InputError(f"--{kinds[0]} and --{kinds[1]} are two ways to make several runs; take one of them")
    kind = kinds[0] if kinds else None
    if config is None and resume not in (None, "auto"):
        config = run.Run.open(resume).config_file
    config = config_.read(config, overrides)
    begun = config.folder / "fold0" if kind == "folds" else config.folder
    if resume is None and opening.was_restarted(begun):
        resume = "auto"
    if config.ensemble is not None:
        from cnnzoo.ensemble import runs

        there = run.Run(config.folder if resume in (None, "auto") else resume)
        kept = resume is not None and there.is_finished
        go_on_with(run.train(config, resume=there, tell=tell) if kept else runs.again(config, tell))
        return
    with stop_on_signals() as signals:
        hooks = {"tell": tell, "should_stop": signals.should_stop}
        try:
            if kind is None:
                done = run.train(config, resume=resume, **hooks)
            else:
                _train_many(kind, asked[kind], config, resume is not None, hooks)
        except Interrupted as interrupted:
            one = as_typed("cnnzoo", "train", "--resume", interrupted.folder)
            stopped(signals, interrupted, one if kind is None else "the same command with --resume auto")
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


def browse(
    *,
    config: str | None = None,
    epoch: int = 1,
    many: int = 24,
    out: str = "batch.png",
    overrides: Sequence[str] = (),
) -> None:
    """Draw the images that a training begins an epoch with, as the net gets to see them: cut, turned, mixed, erased.

    Args:
        config: a YAML file, as for cnnzoo train; a run has one as config.yaml.
        epoch: from 1; with augment.grows_from images grow from epoch to epoch.
        many: of the batch's images, at most.
        out: the picture's file.
        overrides: any key of the config, as --augment.cutmix 1.0; see cnnzoo train --help.
    """
    from cnnzoo import browsing, figures

    figures.check(out)
    batch = browsing.browse(config_.read(config, overrides), epoch=epoch, many=many, tell=tell)
    batch.save(out)
    tell(f"{batch}: {out}")


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
