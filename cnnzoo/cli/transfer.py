"""Commands that carry a trained net to a folder of photos."""

import sys
from collections.abc import Callable, Sequence
from json import dumps

from cnnzoo import atomic
from cnnzoo.checkpoint import Run
from cnnzoo.cli.speech import aside, go_on_with, numbers, stopped, tell
from cnnzoo.cli.training import conclude
from cnnzoo.errors import InputError, Interrupted
from cnnzoo.signals import stop_on_signals
from cnnzoo.telling import as_typed


def check(
    folder: str,
    *,
    model: str | None = None,
    pretrained: bool | str = True,
    groups: str | None = None,
    near: float = 0.95,
    fix: str | None = None,
    out: str | None = None,
    workers: int = 0,
    device: str = "auto",
    json: bool = False,
) -> int:
    """Tell whether a folder of photos is fit to learn from: damaged and odd files, duplicates, leaks, doubtful labels.

    The exit code is 1 where there are errors; with --fix, where there are some that copying could not mend.

    Args:
        folder: a folder of class folders, perhaps in train/ and val/, or a table (.csv, .tsv) that lists photos.
        model: a net or a run folder, to tell which labels its features contradict, and which photos are small for it.
        groups: a regular expression for what a photo belongs to, such as patient(\\d+), or a table's column, see
            data.groups: it is an error where photos to judge on belong to others that are trained on.
        near: how like each other two photos must be to count as one, up to 1.
        fix: copy the good photos into this new folder, and name there in left_out.csv what was left out.
        out: write every finding into this table (.csv, .json, .parquet).
        workers: threads that open files; 0 is one for each core.
        device: of the model: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
    """
    from cnnzoo import tables
    from cnnzoo.transfer import copies, doctor

    if out:
        tables.check(out)
    if fix:
        atomic.room(fix, folder)
    options = {"model": model, "pretrained": pretrained, "groups": groups, "near": near, "workers": workers}
    options |= {"device": device}
    checkup = doctor.check(folder, **options, tell=aside)
    if out:
        checkup.write(out)
    fixed = copies.fix(checkup, fix) if fix else None
    if json:
        print(dumps(checkup.to_dict() | ({"fixed": fixed.to_dict()} if fixed else {})))
    else:
        print(checkup)
        if fixed:
            print(f"\n{fixed}")
        if onward := _after(checkup, fixed, groups):
            print(f"go on with: {onward}")
    return int(bool(fixed.remaining) if fixed else not checkup.sound)


def _after(checkup, fixed, groups) -> str:
    """What to do once a folder has been checked, and perhaps copied; "" where a person is to mend it by hand first."""
    with_groups = ("--data.groups", groups) if groups else ()
    if fixed:
        return "" if fixed.remaining else as_typed("cnnzoo", "probe", fixed.folder, *with_groups)
    if checkup.sound:
        return ", ".join(as_typed("cnnzoo", what, checkup.folder, *with_groups) for what in ("probe", "finetune"))
    with_groups = ("--groups", groups) if groups else ()
    return as_typed("cnnzoo", "check", checkup.folder, *with_groups, "--fix", "GOOD") if checkup.mendable else ""


def pick(
    folder: str,
    *,
    models: str | None = None,
    budget: str = "10m",
    groups: str | None = None,
    seed: int = 0,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Probe several nets on a folder of photos and rank them by accuracy, speed and size.

    Args:
        folder: a folder of class folders (perhaps in train/ and val/), a table (.csv, .tsv) that lists photos, or a
            data set's name.
        models: nets, NET.TAG or wildcard patterns between commas; by default a selection of small and large ones.
        budget: how long it may take, such as 90s, 10m or 2h.
        groups: a regular expression for what a photo belongs to, such as patient(\\d+), or a table's column, see
            data.groups.
        seed: of the folds.
    """
    from cnnzoo.transfer import ranking

    say = aside if json else tell
    options = {"budget": budget, "groups": groups, "seed": seed, "device": device}
    found = ranking.pick(folder, models or (), **options, tell=say)
    if json:
        print(dumps(found.to_dict()))
        return
    print(found)
    for name, why in found.missing.items():
        print(f"{name}: {why}", file=sys.stderr)
    best = found.candidates[0]
    again = as_typed("cnnzoo", "finetune", folder, "--model", best.model, "--pretrained", best.tag)
    again += f" {as_typed('--data.groups', groups)}" if groups else ""
    print(f"go on with: {again}")


def probe(
    folder: str,
    *,
    model: str | None = None,
    pretrained: bool | str = True,
    classifier: str = "auto",
    views: int = 1,
    bag: int | None = None,
    boost: int | None = None,
    balance: str = "none",
    seed: int = 0,
    run: str | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Fit shallow classifiers on a frozen net's features, in seconds; the best becomes the head of a run's net.

    Args:
        folder: a folder of class folders (perhaps in train/ and val/), a table (.csv, .tsv) that lists photos, or a
            data set's name.
        model: the net, see cnnzoo list; by default resnet50 where there is a GPU, else resnet18.
        pretrained: its weights: nothing (the best known), a tag, a file or a run folder.
        classifier: logistic, knn, svm, centroid, ridge, mlp, or auto, the best of them by cross-validation.
        views: of each training image: one as evaluation sees it, the others mirrored and cropped at random.
        bag: this many copies of the best classifier, each fitted to its own bootstrap sample, form one head.
        boost: this many copies of a weak classifier, each fitted for the mistakes of those before it, form one head.
        balance: none; loss or sampler, by which each class weighs the same, however many photos it has.
        seed: of the folds, the views and the bootstrap samples.
        run: the run folder; by default runs/MODEL_FOLDER_probe.
        overrides: any key of the config, as --data.val_fraction 0.3; see cnnzoo train --help.
    """
    from cnnzoo import learn

    options = {"classifier": classifier, "views": views, "bag": bag, "boost": boost, "seed": seed, "run": run}
    options |= {"balance": balance}
    go_on_with(_stoppable(learn.probe, folder, model, pretrained, **options, overrides=overrides))


def finetune(
    folder: str,
    *,
    model: str | None = None,
    pretrained: bool | str = True,
    mode: str = "staged",
    epochs: str | None = None,
    budget: str | None = None,
    lr: str | None = None,
    batch_size: int | None = None,
    balance: str = "none",
    views: int | None = None,
    seed: int = 0,
    run: str | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Carry a pretrained net to the classes of a folder: a probe's head first, then more and more of the net.

    Args:
        folder: a folder of class folders (perhaps in train/ and val/), a table (.csv, .tsv) that lists photos, or a
            data set's name.
        model: the net, see cnnzoo list; by default resnet50 where there is a GPU, else resnet18.
        pretrained: its weights: nothing (the best known), a tag, a file or a run folder.
        mode: probe (nothing of the net moves), head (the head alone), staged (the last stage, then all) or full.
        epochs: of each phase: one number for head and full, two such as 2,4 for staged.
        budget: how long everything may take, such as 90s, 10m or 2h; the epochs follow from it.
        lr: the rate of the head, the stages before it taking smaller ones; find tries rates out first, on a copy.
        batch_size: images to a step; by default 32.
        balance: none; loss (each class weighs the same) or sampler (each class is drawn equally often).
        views: of each training image that the probe sees, one of them plain, the others mirrored and cropped at random;
            by default one in mode probe, else three where there are at most 5,000 images.
        seed: of everything random.
        run: the run folder; by default runs/MODEL_FOLDER_MODE.
        overrides: any key of the config, as --augment.mixup 0; see cnnzoo train --help.
    """
    from cnnzoo import learn

    options = {"mode": mode, "batch_size": batch_size, "balance": balance, "views": views, "seed": seed, "run": run}
    options |= {"epochs": epochs and numbers("--epochs", epochs, int), "budget": budget, "lr": _rate(lr)}
    conclude(_stoppable(learn.finetune, folder, model, pretrained, **options, overrides=overrides))


def _stoppable(learn: Callable[..., Run], *given: object, **options: object) -> Run:
    """The run that is learnt, unless a signal ends the command."""
    with stop_on_signals() as signals:
        try:
            return learn(*given, **options, tell=tell, should_stop=signals.should_stop)
        except Interrupted as interrupted:
            stopped(signals, interrupted, as_typed("cnnzoo", "train", "--resume", interrupted.folder))


def _rate(text: str | None) -> float | str | None:
    if text in (None, "find"):
        return text
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--lr is {text}, but must be a number or find") from None
