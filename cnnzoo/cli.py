"""The command line: commands, printing and exit codes, all here and only here.

Commands are typed functions: what stands before `*` is given by place, what stands after it by `--name`.
Exit codes: 0 done; 1 checked, with errors found; 2 wrong input, told in one line; 130 and 143 Ctrl-C and SIGTERM, after
saving.
"""

import argparse
import dataclasses
import inspect
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from json import dumps
from pathlib import Path
from typing import get_origin

import docstring_parser

from cnnzoo import __version__
from cnnzoo import config as config_
from cnnzoo.config import Parser
from cnnzoo.errors import InputError, Interrupted, unknown


def list_(pattern: str = "*", *, pretrained: bool = False, json: bool = False) -> None:
    """Name the nets.

    Args:
        pattern: a wildcard pattern, such as 'resnet*'.
        pretrained: only those for which the world has trained weights.
        json: print JSON.
    """
    from cnnzoo import zoo

    names = zoo.list_models(pattern, pretrained=pretrained)
    if not names:
        raise InputError(f"no model matches {pattern!r}; cnnzoo list names all {len(zoo.list_models())}")
    print(dumps(names) if json else "\n".join(names))


def info(name: str, *, json: bool = False) -> None:
    """Tell what is known of a net: paper, size, cost, stages, the paper's figures beside ours, differences from it.

    Args:
        name: the net, see cnnzoo list.
        json: print JSON.
    """
    from cnnzoo import claims, zoo

    entry = zoo.info(name)
    figures = claims.beside(name)
    if json:
        facts = {key: value for key, value in vars(entry).items() if key != "build"} | {"claims": figures}
        print(dumps(facts, indent=2, default=dataclasses.asdict))
        return
    print(entry.name)
    print(f"  paper       {entry.paper or 'not said'}")
    print(
        f"  input       {_times(entry.input_size)}, at least {entry.min_size}x{entry.min_size}; "
        f"{entry.num_classes:,} classes"
    )
    if entry.params is not None:
        print(f"  parameters  {entry.params:,}")
        print(f"  mult-adds   {entry.macs:,}")
    if entry.aux:
        heads = f"{len(entry.aux)} auxiliary head{'s' if len(entry.aux) > 1 else ''}, {', '.join(entry.aux)}"
        print(f"  in training {entry.aux_params:,} parameters more: {heads}")
    for stage in entry.stages:
        ends = dict.fromkeys((stage.modules[0], stage.modules[-1]))
        print(f"  {stage.name:<10}  {_times(stage.shape):<12}  {' … '.join(ends)}")
    print(f"  {'head':<10}  {entry.num_classes:<12}  {entry.head}")
    if figures:
        table = [("the paper's figures", "paper", "here"), *((f.what, f.figure, f.ours) for f in figures)]
        what_width, figure_width = (max(map(len, column)) for column in list(zip(*table, strict=True))[:2])
        for what, figure, ours in table:
            print(f"  {what:<{what_width}}  {figure:<{figure_width}}  {ours}")
    print(f"  differences from the paper: {'' if entry.differences else 'none known'}")
    for number, difference in enumerate(entry.differences, start=1):
        print(f"    {number}. {difference}")
    for note in entry.notes:
        print(f"  note: {note}")


def summary(
    name: str, *, input: str | None = None, compact: bool = False, csv: bool = False, markdown: bool = False
) -> None:
    """Print the layer table of a net: output shapes, parameters, multiply-adds, activations, receptive fields.

    Args:
        name: the net, see cnnzoo list.
        input: an image's channels, height and width, such as 3,224,224; the net's own by default.
        compact: print it as papers do, with the image, and one row for a layer with its BatchNorm and activation.
        csv: print CSV.
        markdown: print Markdown.
    """
    import cnnzoo

    try:
        size = tuple(int(number) for number in input.split(",")) if input else None
    except ValueError:
        size = ()
    if size is not None and (len(size) != 3 or min(size) < 1):
        raise InputError(f"--input is {input}, but must be three whole numbers such as 3,224,224")
    table = cnnzoo.summary(name, size)
    if compact:
        table = table.compact()
    print(table.to_csv() if csv else table.to_markdown() if markdown else table, end="" if csv else "\n")


def compare(names: list[str] = (), *, out: str | None = None, csv: bool = False, json: bool = False) -> None:
    """Compare nets by their best weights: accuracy against multiply-adds, with parameters as area.

    Args:
        names: nets, or wildcard patterns; every net that has weights by default.
        out: draw the picture into this file.
        csv: print CSV.
        json: print JSON.
    """
    import cnnzoo

    result = cnnzoo.compare(names, out)
    if json:
        print(dumps(result.to_dict()))
    elif csv:
        print(result.to_csv(), end="")
    else:
        print(result)
        if out:
            print(f"{len(result.points)} net{'s' * (len(result.points) > 1)} in {out}")
    if result.without:
        print(f"without weights of known accuracy: {', '.join(result.without)}", file=sys.stderr)


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

        _go_on_with(runs.again(config, tell))
        return
    with stop_on_signals() as caught:
        hooks = {"tell": tell, "should_stop": lambda: bool(caught)}
        try:
            if kind is None:
                _combine_snapshots(run.train(config, resume=resume, **hooks))
            else:
                _train_many(kind, getattr(arguments, kind), config, resume is not None, hooks)
        except Interrupted:
            folder = config.folder if resume in (None, "auto") else resume
            number = caught[0] if caught else signal.SIGTERM  # which another process of the team caught
            again = f"--resume {folder}" if kind is None else "the same command and --resume auto"
            tell(f"stopped by {number.name} and saved; go on by: cnnzoo train {again}")
            sys.exit(128 + number)


MANY = {  # what cnnzoo train makes of one config with several runs
    "folds": "cross-validate: train N runs, each judged on another N-th of the images",
    "bag": "a committee of N runs, each trained on a bootstrap sample of the training images",
    "seeds": "a committee of N runs, each with another seed",
    "boost": "a committee of up to N runs, each trained for the mistakes of those before it",
}


def _train_many(kind: str, many: int, config: config_.Config, resume: bool, hooks: Mapping) -> None:
    if kind == "folds":
        from cnnzoo import folds

        tell(str(folds.cross_validate(config, many, resume=resume, **hooks)))
        return
    from cnnzoo.ensemble import committees

    made = committees.train_committee(config, kind, many, resume=resume, **hooks)
    tell(str(made))
    _go_on_with(made.run)


def _combine_snapshots(run) -> None:
    """Make the committee of a run's snapshots, where its schedule has left some."""
    if config_.read(run.config_file).cycle_ends and os.environ.get("RANK", "0") == "0":
        from cnnzoo.ensemble import committees

        tell(str(committees.of_snapshots(run, tell=tell)))


def check(
    folder: str,
    *,
    model: str | None = None,
    pretrained: bool | str = True,
    near: float = 0.95,
    fix: str | None = None,
    out: str | None = None,
    workers: int = 0,
    json: bool = False,
) -> int:
    """Tell whether a folder of photos is fit to learn from: damaged and odd files, duplicates, leaks, doubtful labels.

    The exit code is 1 where there are errors; with --fix, where there are some that copying could not mend.

    Args:
        folder: a folder of class folders, perhaps in train/ and val/.
        model: a net or a run folder, to tell which labels its features contradict, and which photos are small for it.
        pretrained: weights for a net's name: nothing (the best known), a tag, a file or a run folder.
        near: how like each other two photos must be to count as one, up to 1.
        fix: copy the good photos into this new folder, and name there in left_out.csv what was left out.
        out: write every finding into this table (.csv, .json, .parquet).
        workers: threads that open files; 0 is one for each core.
        json: print JSON.
    """
    from cnnzoo import tables
    from cnnzoo.transfer import doctor

    if out:
        tables.check(out)
    if fix:
        doctor.room_for_copies(folder, fix)
    options = {"model": model, "pretrained": pretrained, "near": near, "workers": workers}
    checkup = doctor.check(folder, **options, tell=lambda line: print(line, file=sys.stderr))
    if out:
        checkup.write(out)
    fixed = doctor.fix(checkup, fix) if fix else None
    if json:
        print(dumps(checkup.to_dict() | ({"fixed": fixed.to_dict()} if fixed else {})))
    else:
        print(checkup)
        if fixed:
            print(f"\n{fixed}")
    return int(bool(fixed.remaining) if fixed else not checkup.sound)


def probe(
    folder: str,
    *,
    model: str | None = None,
    pretrained: bool | str = True,
    classifier: str = "auto",
    views: int = 1,
    bag: int | None = None,
    boost: int | None = None,
    seed: int = 0,
    run: str | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Fit shallow classifiers on a frozen net's features, in seconds; the best becomes the head of a run's net.

    Args:
        folder: a folder of class folders (perhaps in train/ and val/), or a data set's name.
        model: the net, see cnnzoo list; by default resnet50 where there is a GPU, else resnet18.
        pretrained: its weights: nothing (the best known), a tag, a file or a run folder.
        classifier: logistic, knn, svm, centroid, ridge, mlp, or auto, the best of them by cross-validation.
        views: of each training image: one as evaluation sees it, the others mirrored and cropped at random.
        bag: so many of the best classifier, each on a bootstrap sample of the training images, become one head.
        boost: so many of a weak classifier, each made for the mistakes of those before it, become one head.
        seed: of the folds, the views and the bootstrap samples.
        run: the run folder; by default runs/MODEL_FOLDER_probe.
        overrides: any key of the config, as --data.val_fraction 0.3; see cnnzoo train --help.
    """
    from cnnzoo import learn

    options = {"classifier": classifier, "views": views, "bag": bag, "boost": boost, "seed": seed, "run": run}
    options |= {"overrides": overrides}
    _go_on_with(learn.probe(folder, model, pretrained, **options, tell=tell))


def finetune(
    folder: str,
    *,
    model: str | None = None,
    pretrained: bool | str = True,
    mode: str = "staged",
    epochs: str | None = None,
    budget: str | None = None,
    lr: str | None = None,
    batch_size: int = 32,
    balance: str = "none",
    views: int = 1,
    seed: int = 0,
    run: str | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Carry a pretrained net to the classes of a folder: a probe's head first, then more and more of the net.

    Args:
        folder: a folder of class folders (perhaps in train/ and val/), or a data set's name.
        model: the net, see cnnzoo list; by default resnet50 where there is a GPU, else resnet18.
        pretrained: its weights: nothing (the best known), a tag, a file or a run folder.
        mode: probe (nothing of the net moves), head (the head alone), staged (the last stage, then all) or full.
        epochs: of each phase: one number for head and full, two such as 2,4 for staged.
        budget: how long everything may take, such as 90s, 10m or 2h; the epochs follow from it.
        lr: the rate of the head, the stages before it taking smaller ones; find tries rates out first, on a copy.
        batch_size: images to a step.
        balance: none; loss (each class weighs the same) or sampler (each class is drawn equally often).
        views: of each training image that features are taken of.
        seed: of everything random.
        run: the run folder; by default runs/MODEL_FOLDER_MODE.
        overrides: any key of the config, as --augment.mixup 0; see cnnzoo train --help.
    """
    from cnnzoo import learn

    options = {"mode": mode, "batch_size": batch_size, "balance": balance, "views": views, "seed": seed, "run": run}
    options |= {"epochs": epochs and _whole_numbers(epochs), "budget": budget and _seconds(budget), "lr": _rate(lr)}
    with stop_on_signals() as caught:
        try:
            done = learn.finetune(
                folder, model, pretrained, **options, overrides=overrides, tell=tell, should_stop=lambda: bool(caught)
            )
        except Interrupted as interrupted:
            tell(f"stopped by {caught[0].name} and saved; go on by: cnnzoo train --resume {interrupted}")
            sys.exit(128 + caught[0])
    _combine_snapshots(done)
    _go_on_with(done)


def soup(runs: list[str], *, method: str = "greedy", run: str | None = None, device: str = "auto") -> None:
    """Average the weights of runs that were fine-tuned from the same weights: one net, as fast as any of them.

    Args:
        runs: run folders of the same net, classes, preprocessing and split.
        method: greedy (from the best on, each that does not lower the validation accuracy) or uniform (all).
        run: the run folder; by default runs/soup.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
    """
    import cnnzoo

    _go_on_with(cnnzoo.soup(runs, method, run=run, device=device, tell=tell))


def _go_on_with(run, say: Callable[[str], None] | None = None) -> None:
    uses = (f"predict {run.path} PHOTOS", f"evaluate {run.path}", f"export {run.path} --out FILE")
    (say or tell)(f"go on with: {', '.join(f'cnnzoo {use}' for use in uses)}")


def pick(folder: str, *, models: str | None = None, budget: str = "10m", seed: int = 0, json: bool = False) -> None:
    """Probe several nets on a folder of photos and rank them by accuracy, speed and size.

    Args:
        folder: a folder of class folders (perhaps in train/ and val/), or a data set's name.
        models: nets, NET.TAG or wildcard patterns between commas; by default a selection of small and large ones.
        budget: how long it may take, such as 90s, 10m or 2h.
        seed: of the folds.
        json: print JSON.
    """
    from cnnzoo import learn

    names = models.split(",") if models else ()
    say = (lambda line: print(line, file=sys.stderr)) if json else tell
    ranking = learn.pick(folder, names, budget=_seconds(budget), seed=seed, tell=say)
    if json:
        print(dumps(ranking.to_dict()))
        return
    print(ranking)
    for name, why in ranking.missing.items():
        print(f"{name}: {why}", file=sys.stderr)
    best = ranking.candidates[0]
    print(f"go on with: cnnzoo finetune {folder} --model {best.model} --pretrained {best.tag}")


def _seconds(duration: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", duration.strip())
    if not match or not float(match[1]):
        raise InputError(f"--budget is {duration}, but must be a duration such as 90s, 10m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _whole_numbers(text: str) -> list[int]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise InputError(f"--epochs is {text}, but must be whole numbers between commas, such as 2,4")
    return [int(number) for number in text.split(",")]


def _rate(text: str | None) -> float | str | None:
    if text in (None, "find"):
        return text
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--lr is {text}, but must be a number or find") from None


def evaluate(
    run_or_model: str,
    *,
    data: str | None = None,
    against: str | None = None,
    pretrained: bool | str = False,
    root: str | None = None,
    crops: int = 1,
    precision: str = "fp32",
    device: str = "auto",
    json: bool = False,
) -> None:
    """Judge a trained net on images it was not trained on, or compare two: how good, how sure, and where it errs.

    Args:
        run_or_model: a run folder, a model.safetensors, or a net's name together with --pretrained.
        data: a data set's name or a folder; by default what the run was validated on.
        against: another of the kind of run_or_model; tells whether their difference may be chance.
        pretrained: weights for a net's name: nothing (the best known), a tag, a file or a run folder.
        root: where named data sets lie.
        crops: 1, or the mean over 2 (the image and its mirror image), 10 (AlexNet's) or 144 (GoogLeNet's).
        precision: fp32, bf16, fp16, int8 (on a CPU, calibrated on images the run trained on) or auto (bf16, else fp32).
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
        json: print JSON.
    """
    import cnnzoo

    options = {"pretrained": pretrained, "root": root, "crops": crops, "precision": precision, "device": device}
    options["tell"] = aside
    if against is None:
        result = cnnzoo.evaluate(run_or_model, data, **options)
    else:
        result = cnnzoo.compare_runs(run_or_model, against, data, **options)
    print(dumps(result.to_dict()) if json else result)


def predict(
    run_or_model: str,
    images: list[str],
    *,
    pretrained: bool | str = False,
    out: str | None = None,
    top: int = 5,
    min_confidence: float = 0.0,
    mirror: bool = False,
    batch_size: int | None = None,
    precision: str = "auto",
    device: str = "auto",
) -> None:
    """Name what is in images. A file that cannot be read keeps its row and says why.

    Args:
        run_or_model: a run folder, a model.safetensors, or a net's name together with --pretrained.
        images: files, folders with all in them, or patterns in quotes, such as 'photos/**/*.jpg'.
        pretrained: weights for a net's name: nothing (the best known), a tag, a file or a run folder.
        out: write a table (.csv, .json, .parquet) with the columns file, top1 …, prob1 …, abstain, error.
        top: how many classes to name.
        min_confidence: abstain from an answer where the most likely class is less likely than this, such as 0.6.
        mirror: take the mean over each image and its mirror image, at twice the time.
        batch_size: images to a forward pass; by default 16 on a CPU, else 128.
        precision: auto (bf16 for many images on a device that computes in it, else fp32), fp32, bf16, fp16 or int8 (on
            a CPU, calibrated on images the run trained on, else on some of those given).
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
    """
    from cnnzoo import tables, zoo
    from cnnzoo.predict import Pictures, Tally, join, stream, write

    if top < 1:
        raise InputError(f"--top is {top}, but must be at least 1")
    if out:
        tables.check(out)
    pictures = Pictures(images)
    net, _ = zoo.open_net(run_or_model, pretrained)
    options = {"batch_size": batch_size, "min_confidence": min_confidence, "mirror": mirror, "device": device}
    options |= {"precision": precision, "tell": aside}
    tally = Tally()
    parts = tally.watch(stream(net, pictures, **options))
    if out:
        write(out, parts, top)
        print(f"{tally.images:,} rows in {out}")
    else:
        print("\n".join(join(parts).lines(top)))
    if pictures.passed_over:
        print(f"{pictures.passed_over:,} other files passed over for want of an image's ending", file=sys.stderr)
    if tally.unread == tally.images:
        raise InputError(f"no image could be read ({'; '.join(tally.examples)})")
    for note in tally.notes():
        print(note, file=sys.stderr)


def export(
    run_or_model: str, *, out: str, format: str = "onnx", pretrained: bool | str = False, raw: bool = False
) -> None:
    """Write a trained net as one file that runs without cnnzoo: a uint8 image in, probabilities out.

    Args:
        run_or_model: a run folder, a model.safetensors, or a net's name together with --pretrained.
        out: the file to write.
        format: onnx, for onnxruntime and its like, or torch, for torch.export.load.
        pretrained: weights for a net's name: nothing (the best known), a tag, a file or a run folder.
        raw: leave preprocessing and softmax out: preprocessed float32 in, logits out.
    """
    import cnnzoo

    print(cnnzoo.export(run_or_model, out, format=format, preprocess=not raw, pretrained=pretrained))


def weights(options: Sequence[str]) -> None:
    """Trained weights: list, fetch, verify, bundle or import them. See cnnzoo weights --help."""
    _one_of(WEIGHTS, "weights", options)


def visualize(options: Sequence[str]) -> None:
    """Look inside a net: what its layers have learned, what an answer rests on. See cnnzoo visualize --help."""
    from cnnzoo.cli_visualize import VISUALIZE

    _one_of(VISUALIZE, "visualize", options)


def weights_list(pattern: str = "*", *, json: bool = False) -> None:
    """List trained weights: accuracy as published and at which size, licence, whether the file is here.

    Args:
        pattern: a wildcard pattern for nets, or NET.TAG, such as 'resnet50.a*'.
        json: print JSON.
    """
    from cnnzoo.weights import fetch

    rows = _weights_like([pattern])
    if json:
        keys = ("model", "tag", "file", "url", "hub", "sha256", "licence", "top1", "top5", "size", "preprocess", "note")
        print(dumps([{key: getattr(row, key) for key in keys} | {"here": bool(fetch.find(row))} for row in rows]))
        return
    cells = [("net", "tag", "top-1", "top-5", "at", "licence", "", "")]
    for row in rows:
        figures = (f"{figure:.2f}" if figure else "-" for figure in (row.top1, row.top5))
        cells.append((row.model, row.tag, *figures, str(row.size), row.licence, fetch.find(row) and "here", row.note))
    widths = [max(len(line[i] or "") for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        told = (
            c.rjust(w) if i in (2, 3, 4) else (c or "").ljust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(told).rstrip())


def weights_fetch(names: list[str]) -> None:
    """Fetch trained weights, so that they are here when there is no network.

    Args:
        names: nets (their best weights) or NET.TAG, with wildcards.
    """
    from cnnzoo.weights import fetch

    for row in _chosen_weights(names):
        print(f"{row.model}.{row.tag}  {fetch.fetch(row)}")


def weights_verify(pattern: str = "*") -> None:
    """Check the SHA-256 of the files of weights that are here.

    Args:
        pattern: a wildcard pattern for nets, or NET.TAG.
    """
    from cnnzoo.weights import fetch

    damaged = []
    for row in _weights_like([pattern]):
        if file := fetch.find(row):
            state = fetch.verify(row)
            print(f"{row.model}.{row.tag}  {state}  {file}")
            damaged += [file] if state == "damaged" else []
    if damaged:
        raise InputError(f"damaged, remove and fetch anew: {', '.join(map(str, damaged))}")


def weights_bundle(names: list[str], *, out: str) -> None:
    """Put the files of weights into one file, for a machine without a network.

    Args:
        names: nets (their best weights) or NET.TAG, with wildcards.
        out: the tar file to write.
    """
    from cnnzoo.weights import fetch

    rows = _chosen_weights(names)
    fetch.bundle(rows, Path(out))
    print(f"{len(rows)} files in {out}; there: cnnzoo weights import {Path(out).name}")


def weights_import(file: str) -> None:
    """Place the files of a bundle where cnnzoo finds them.

    Args:
        file: what cnnzoo weights bundle wrote.
    """
    from cnnzoo.weights import fetch

    for placed in fetch.unbundle(Path(file)):
        print(placed)


WEIGHTS: dict[str, Callable] = {
    "list": weights_list,
    "fetch": weights_fetch,
    "verify": weights_verify,
    "bundle": weights_bundle,
    "import": weights_import,
}


def _weights_like(patterns: Sequence[str]) -> list:
    """Rows that match, in the table's order. Raises InputError for a pattern that none does."""
    from cnnzoo import zoo
    from cnnzoo.weights import table

    found = []
    for pattern in patterns:
        rows = table.list_weights(pattern)
        if not rows:
            name = pattern.partition(".")[0]
            if not zoo.list_models(name):
                zoo.info(name)  # complains, and names the near ones
            raise InputError(f"there are no weights {pattern!r}; cnnzoo weights list names all")
        found += [row for row in rows if row not in found]
    return found


def _chosen_weights(names: Sequence[str]) -> list:
    """The best row for a name, all that match a pattern."""
    from cnnzoo.weights import table

    found = []
    for name in names:
        plain = "*" not in name and "?" not in name
        model, dot, tag = name.partition(".")
        rows = [table.row(model, tag if dot else None)] if plain else _weights_like([name])
        found += [row for row in rows if row not in found]
    return found


def profile(
    *,
    config: str | None = None,
    steps: int = 8,
    out: str | None = None,
    json: bool = False,
    overrides: Sequence[str] = (),
) -> None:
    """Tell where the time of a config's training steps goes, and write a trace; nothing is left of the training.

    Args:
        config: a YAML file, as for cnnzoo train.
        steps: how many are timed.
        out: the folder for trace.json and profile.json; by default profiles/ and the run folder's name.
        json: print JSON.
        overrides: any key of the config, as --train.batch_size 64; see cnnzoo train --help.
    """
    from cnnzoo import profiling

    read = config_.read(config, overrides)
    result = profiling.profile(read, steps=steps, out=out, tell=lambda line: print(line, file=sys.stderr))
    print(dumps(result.to_dict()) if json else result)


def benchmark(names: list[str] = (), *, quick: bool = False, out: str | None = None, json: bool = False) -> None:
    """Measure speed beside torchvision, timm and plain loops, in turn in one run; only the ratios are worth quoting.

    Args:
        names: of the suite, which cnnzoo benchmark list tells; by default all. Those that begin with G need a GPU.
        quick: two rounds rather than five.
        out: a folder for benchmark.json and benchmark.md.
        json: print JSON.
    """
    from cnnzoo import benchmark as suite

    if list(names) == ["list"]:
        print("\n".join(f"{each.name:<4} {each.about}" for each in suite.SUITE.values()))
        return
    say = (lambda line: print(line, file=sys.stderr)) if json else tell
    results = suite.run(names, rounds=2 if quick else 5, tell=say)
    if json:
        print(dumps(results.to_dict()))
    if out:
        say(f"tables: {results.write(out)}")


def ensemble(
    runs: list[str],
    *,
    method: str = "mean",
    weights: str | None = None,
    data: str | None = None,
    root: str | None = None,
    seed: int = 0,
    run: str | None = None,
    why: str | None = None,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Combine runs into a committee that predicts, evaluates, exports and reports like any run.

    Args:
        runs: two or more run folders; nets may differ in all but the names of their classes.
        method: vote, plurality, mean (of probabilities), logits, geometric, rank, weighted, greedy, stacking; or all: a
            table of them, and with --run a committee by the best.
        weights: of the members, such as 0.5,0.3,0.2, for a method that finds none by itself.
        data: images that no member was trained on, to fit on and judge by; by default those that all held out.
        root: where named data sets lie.
        seed: of the parts for cross-fitting.
        run: the run folder; by default runs/committee_DATA_METHOD.
        why: explain in this new folder, by tables and pictures, what the committee has over its members.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …, for predictions that must be made.
        json: print JSON.
    """
    import cnnzoo
    from cnnzoo.ensemble import dossier

    say, given = aside if json else tell, _numbers("--weights", weights) if weights else None
    if run:
        cnnzoo.Run.new(run)  # complains now rather than after the work
    if why:
        dossier.check(why)
    options = {"data": data, "root": root, "weights": given, "seed": seed, "device": device, "tell": say}
    made = cnnzoo.Ensemble(runs, method, **options)
    print(dumps(made.contest.to_dict()) if json else made)
    if why:
        say(str(cnnzoo.diversity(runs, made.combination.method, out=why, **options)))
    if run or method != "all":
        _go_on_with(made.save(run), say)


def vote_odds(*, p: str = "0.7", n: int | None = None, out: str | None = None, json: bool = False) -> None:
    """Tell what independent members reach by majority vote: the binomial formula, term by term, and a simulation.

    Args:
        p: the probability with which a member is right; or those of members that differ, such as 0.6,0.7,0.8.
        n: how many members, 3 by default.
        out: draw the committee's accuracy over its size into this file.
        json: print JSON.
    """
    import cnnzoo

    accuracies = _numbers("--p", p)
    odds = cnnzoo.vote_odds(accuracies if len(accuracies) > 1 else accuracies[0], n, out=out)
    simulated = odds.simulate(votes := 100_000)
    if json:
        print(dumps(odds.to_dict() | {"simulated": simulated}))
    else:
        print(f"{odds}\nsimulated: right in {simulated:.2%} of {votes:,} votes")


def lab(name: str, *, out: str | None = None, seeds: int = 3, quick: bool = False) -> int:
    """Try out what a lecture claims, and leave the figures (JSON) and a picture.

    The exit code is 1 where the claim did not hold.

    Args:
        name: of the lab; list tells which there are, and what each claims.
        out: the folder for NAME.json and NAME.png; by default labs/.
        seeds: how many times, each with random numbers of its own.
        quick: smaller, in seconds rather than minutes.
    """
    from cnnzoo import labs

    if name == "list":
        print(labs.overview())
        return 0
    found, folder = labs.find(name), Path(out or "labs")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose a folder by --out")
    tell(f"{found.claim}\n({found.source})")
    outcome = labs.run(name, seeds=seeds, quick=quick, tell=tell)
    told, picture = outcome.save(folder)
    tell(f"{outcome}; {told}, {picture}")
    return int(not outcome.held)


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise InputError(f"{option} is {text}, but must be a number, or several between commas") from None


def report(run: str) -> None:
    """Make a run's report.html anew.

    Args:
        run: the run folder.
    """
    from cnnzoo import run as run_

    opened = run_.Run.open(run)
    if opened.committee:
        from cnnzoo.ensemble.runs import write_report
    else:
        from cnnzoo.run import write_report
    print(write_report(opened))


COMMANDS: dict[str, Callable] = {
    "list": list_,
    "info": info,
    "summary": summary,
    "compare": compare,
    "train": train,
    "check": check,
    "pick": pick,
    "probe": probe,
    "finetune": finetune,
    "soup": soup,
    "evaluate": evaluate,
    "predict": predict,
    "export": export,
    "weights": weights,
    "visualize": visualize,
    "ensemble": ensemble,
    "vote-odds": vote_odds,
    "lab": lab,
    "report": report,
    "profile": profile,
    "benchmark": benchmark,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code, which is 0 where the command returns none."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    code = 0
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(_overview(COMMANDS, "cnnzoo"))
        elif arguments[0] == "--version":
            print(f"cnnzoo {__version__}")
        elif arguments[0] not in COMMANDS:
            raise unknown("command", arguments[0], COMMANDS)
        elif arguments[0] in ("train", "weights", "visualize"):  # which have options, or commands, of their own
            COMMANDS[arguments[0]](arguments[1:])
        else:
            function, given = COMMANDS[arguments[0]], arguments[1:]
            options = {}
            if "overrides" in inspect.signature(function).parameters:
                given, options["overrides"] = _keys_of_config(given)
            code = function(**vars(_parser(arguments[0], function).parse_args(given)), **options) or 0
        sys.stdout.flush()
    except (InputError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader has seen enough, as head does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if os.environ.get("CNNZOO_TRACEBACK"):
            raise
        rank = os.environ.get("RANK", "0")
        who = "" if rank == "0" else f" in process {rank}"
        print(f"cnnzoo: error{who}: {_one_line(error)}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print("cnnzoo: stopped", file=sys.stderr)
        return 130
    return code


def tell(line: str) -> None:
    """A line for a person, at once."""
    print(line, flush=True)


def aside(line: str) -> None:
    """A line for a person, beside what the command gives."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def stop_on_signals() -> Iterator[list[signal.Signals]]:
    """The list that Ctrl-C and SIGTERM put themselves into, for the loop to see; a second one stops at once."""
    caught: list[signal.Signals] = []

    def catch(number: int, frame: object) -> None:
        caught.append(signal.Signals(number))
        signal.signal(number, before[number])

    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _one_of(commands: Mapping[str, Callable], group: str, options: Sequence[str]) -> None:
    """Run one of the commands that `cnnzoo GROUP` has of its own."""
    if not options or options[0] in ("-h", "--help"):
        print(_overview(commands, f"cnnzoo {group}"))
    elif options[0] not in commands:
        raise unknown(f"command of cnnzoo {group}", options[0], commands)
    else:
        function = commands[options[0]]
        function(**vars(_parser(f"{group} {options[0]}", function).parse_args(options[1:])))


def _parser(name: str, function: Callable) -> Parser:
    """The parser of a command, from its signature and docstring."""
    doc = docstring_parser.parse(function.__doc__)
    help_of = {param.arg_name: param.description for param in doc.params}
    parser = Parser(prog=f"cnnzoo {name}", description=doc.short_description)
    for key, parameter in inspect.signature(function).parameters.items():
        if key == "overrides":  # which _keys_of_config has taken out
            continue
        kind, default = parameter.annotation, parameter.default
        about = {"help": help_of[key]}
        if parameter.kind is parameter.KEYWORD_ONLY:
            option = f"--{key.rstrip('_').replace('_', '-')}"  # class_ is --class
            about["dest"] = key
            if kind is bool:
                parser.add_argument(option, action="store_true", **about)
            elif kind == bool | str:
                parser.add_argument(
                    option, nargs="?", const=True, default=default, type=kind, metavar="WEIGHTS", **about
                )
            elif default is parameter.empty:
                parser.add_argument(option, type=kind, required=True, **about)
            else:
                parser.add_argument(option, type=kind, default=default, **about)
        elif get_origin(kind) is list:
            nargs = {"nargs": "+"} if default is parameter.empty else {"nargs": "*", "default": list(default)}
            parser.add_argument(key, type=kind.__args__[0], **nargs, **about)
        elif default is parameter.empty:
            parser.add_argument(key, type=kind, **about)
        else:
            parser.add_argument(key, type=kind, nargs="?", default=default, **about)
    return parser


def _keys_of_config(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command's own arguments, and those that set a key of the config: --section.key VALUE or --section.key=VALUE."""
    own, keys = [], []
    waiting = iter(arguments)
    for word in waiting:
        name, equals, _ = word.partition("=")
        if not (name.startswith("--") and "." in name):
            own.append(word)
        else:
            keys += [word] if equals else [word, *islice(waiting, 1)]
    return own, keys


def _overview(commands: Mapping[str, Callable], prefix: str) -> str:
    width = max(map(len, commands))
    lines = [
        f"  {name:<{width}}  {docstring_parser.parse(function.__doc__).short_description}"
        for name, function in commands.items()
    ]
    return "\n".join([f"usage: {prefix} COMMAND …        ({prefix} COMMAND --help tells more)", "", *lines])


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f': {error.filename}' if error.filename else ''}"
    return " ".join(str(error).split())


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
