"""Seconds until CIFAR-10 is known: our trainer and recipe beside airbench94, which runs as a process of its own.

airbench94 (Jordan: 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024, arXiv 2404.00498) is no part of cnnzoo:
$CNNZOO_AIRBENCH names its script, airbench94_muon.py of github.com/KellerJordan/cifar10-airbench.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from torch import nn

from cnnzoo import bars, zoo
from cnnzoo import config as config_
from cnnzoo.benchmark.harness import Bench, Row, data_root
from cnnzoo.benchmark.loops import trainer_of
from cnnzoo.config import Config
from cnnzoo.data import sources
from cnnzoo.data.augment import Augment
from cnnzoo.data.batches import EvalBatches, TrainBatches
from cnnzoo.data.sources import Dataset
from cnnzoo.errors import counted
from cnnzoo.paths import expanded
from cnnzoo.train import forms
from cnnzoo.train.trainer import EpochReport

SEEDS = 4  # to a round, so that five rounds make twenty
GOAL = 0.94  # of CIFAR-10's own pixels, where airbench does not set it

RECIPE = {  # of configs/wrn_16_4_cifar10_94.yaml, which tells where it is from
    "run": "runs/wrn_16_4_cifar10_94",
    "model": {"name": "wrn_16_4"},
    "data": {"source": "cifar10", "mean": [0.4914, 0.4822, 0.4465], "std": [0.2470, 0.2435, 0.2616]},
    "augment": {"flip": True, "crop": "padded", "padding": 4, "cutout": 8},
    "loss": {"label_smoothing": 0.1},
    "optim": {"name": "sgd", "lr": 0.4, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    "schedule": {"name": "one_cycle", "rise": 0.2},
    "train": {"epochs": 30, "batch_size": 512},
}


def until_94(bench: Bench) -> Iterator[Row]:
    """G3: seconds of training until CIFAR-10 is known as well as airbench94 knows it, beside that script, 20 seeds."""
    root = data_root()
    known = {"cifar10": root / "cifar-10-batches-py", str(root / "cifar10_jpeg"): root / "cifar10_jpeg"}
    source = next((name for name, folder in known.items() if folder.is_dir()), None)
    if source is None:
        bench.note("not run: $CNNZOO_DATA has neither CIFAR-10 (cifar-10-batches-py) nor cifar10_jpeg")
        return
    config = config_.read(RECIPE)
    config = replace(config, data=replace(config.data, source=source))
    yield from until_known(bench, config, os.environ.get("CNNZOO_AIRBENCH"), SEEDS * bench.rounds)


def until_known(bench: Bench, config: Config, script: str | None, trials: int) -> Iterator[Row]:
    """A row for `config` beside airbench's `script`, or a note where there is none, it fails, or ours falls behind.

    Ours is judged on the plain test images, airbench on six views of each, which its seconds include.
    """
    data = sources.load(config.data, config.augment, 32)
    theirs: list[Trial] = []
    if script:
        try:
            theirs = airbench(Path(script), data, trials)
        except OSError as error:
            bench.note(f"airbench94 did not run: {error}")
    else:
        bench.note("alone: $CNNZOO_AIRBENCH names no script, such as airbench94_muon.py")
    goal = mean(trial.accuracy for trial in theirs) if theirs else GOAL
    runs = _ours(bench, config, data, trials)
    reached = _reached([[report.val_top1 for report in run] for run in runs], goal)
    whole, until = ([sum(report.seconds for report in run[:epochs]) for run in runs] for epochs in (None, reached))
    what = f"{config.model.name} on {Path(config.data.source).name}"
    told = (
        f"{_told([run[-1].val_top1 for run in runs])} after {config.train.epochs} epochs and {mean(whole):.3g} s of "
        f"training, {counted(len(runs), 'seed')}"
    )
    if theirs and reached:
        yield bench.row(
            f"{what} until {goal:.2%}",
            "airbench94's own script",
            until,
            [trial.seconds for trial in theirs[: len(runs)]],
            unit="runs/s",
            wanted=1.1,
            note=f"{told}; airbench94: {_told([trial.accuracy for trial in theirs])}",
        )
    else:
        where = f"after {reached} epochs and {mean(until):.3g} s" if reached else "was not reached"
        bench.note(f"{what}: {told}; {goal:.2%} {where}")


def _reached(accuracies: Sequence[Sequence[float]], goal: float) -> int | None:
    """The first epoch after which the mean over the trials is at the goal, counted from 1."""
    by_epoch = map(mean, zip(*accuracies, strict=True))
    return next((epoch for epoch, accuracy in enumerate(by_epoch, 1) if accuracy >= goal), None)


def _told(accuracies: Sequence[float]) -> str:
    spread = f" (deviation {stdev(accuracies):.2%})" if len(accuracies) > 1 else ""
    return f"{mean(accuracies):.2%}{spread}"


# ---- ours


def _ours(bench: Bench, config: Config, data: Dataset, trials: int) -> list[list[EpochReport]]:
    """The epochs of each trial, by seed, of as many as there is time for. As in airbench one net gets new values each
    time, and is warmed up first.
    """
    p = data.preprocess
    augment = Augment(config.augment, p.size, p.mean, p.std, config.train.epochs)
    batches = TrainBatches(
        *(data.train.images, data.train.labels, config.train.batch_size, augment), seed=0, device=bench.device
    )
    val = EvalBatches(data.val.images, data.val.labels, 2000, p.mean, p.std, bench.device)

    def fresh() -> nn.Module:
        return zoo.create(config.model.name, num_classes=len(data.classes), in_chans=p.channels)

    net = fresh().to(bench.device)
    forward = forms.compiled(net) if bench.device.type == "cuda" else net

    def trial(seed: int, config: Config) -> list[EpochReport]:
        torch.manual_seed(seed)
        net.load_state_dict(fresh().state_dict())
        batches.seed, reports = seed, []
        options = {"on_epoch": lambda report, is_best: reports.append(report), "seed": seed}
        trainer_of(net, batches, val, config, precision=bench.precision, compiled=forward, **options).fit()
        return reports

    trial(0, replace(config, train=replace(config.train, epochs=1)))
    runs: list[list[EpochReport]] = []
    for seed in bars.show(range(trials), config.model.name):
        started = time.monotonic()
        runs.append(trial(seed, config))
        if not bench.has_time(time.monotonic() - started):
            break
    return runs


# ---- airbench's


@dataclass(frozen=True)
class Trial:
    """What airbench says of one training."""

    accuracy: float  # of the mean over six views of each test image, as a fraction
    seconds: float  # of training, and of judging these views


def airbench(script: Path, data: Dataset, trials: int) -> list[Trial]:
    """The first `trials` trainings of airbench's script on `data`, in a folder where it finds that as CIFAR-10.

    Raises OSError if it ends before.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cifar10").mkdir()
        for part, name in ((data.train, "train"), (data.val, "test")):
            images, labels = map(torch.from_numpy, (part.images.take(np.arange(len(part))), part.labels))
            content = {"images": images, "labels": labels, "classes": list(data.classes)}
            torch.save(content, Path(folder) / "cifar10" / f"{name}.pt")
        with open(Path(folder) / "errors", "w+", encoding="utf-8") as errors:
            command = [sys.executable, "-u", str(expanded(script).resolve())]
            options = {"cwd": folder, "stdout": subprocess.PIPE, "stderr": errors, "encoding": "utf-8"}
            with subprocess.Popen(command, **options) as process:
                try:
                    found = _trials(process.stdout, 1 + trials)  # the first one warms up
                finally:
                    process.terminate()  # it would go on for 200
            if len(found) <= trials:
                errors.seek(0)
                said = " ".join(errors.read().strip().splitlines()[-1:]) or f"it ended with code {process.returncode}"
                raise OSError(f"{script}: {said}")
    return found[1:]


def _trials(lines: Iterator[str], many: int) -> list[Trial]:
    """In its table a training ends with `|  |  eval  |  train_acc  |  val_acc  |  tta_val_acc  |  seconds  |`."""
    cells = ([cell.strip() for cell in line.split("|")] for line in lines)
    ends = (Trial(float(row[-3]), float(row[-2])) for row in cells if "eval" in row)
    return [*bars.show(islice(ends, many), "airbench94", many)]
