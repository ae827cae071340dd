"""THE PAGE: config -> data -> model -> trainer -> run folder -> report. Read `train` from top to bottom."""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cnnzoo import config as config_
from cnnzoo import registry, zoo
from cnnzoo.checkpoint import Run
from cnnzoo.config import Config, TrainConfig
from cnnzoo.data import sources
from cnnzoo.data.augment import Augment
from cnnzoo.data.batches import EvalBatches, TrainBatches
from cnnzoo.data.sources import Dataset
from cnnzoo.device import pick_device, pick_precision
from cnnzoo.errors import InputError
from cnnzoo.report import page
from cnnzoo.train import losses, optim, phases
from cnnzoo.train.schedule import Schedule
from cnnzoo.train.trainer import EpochReport, Trainer
from cnnzoo.train.validation import logits

Tell = Callable[[str], None]


def train(
    config: Config | Mapping | str | Path | None = None,
    *,
    resume: str | Path | None = None,
    tell: Tell = lambda line: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Run:
    """Train a net and leave a run folder.

    Args:
        config: a `Config`, a mapping like the YAML, or a YAML file; None takes the resumed run's, else the defaults.
        resume: a run folder to go on with, or "auto": the config's own folder if it holds a run that can go on.
        tell: is given each line meant for a person.
        should_stop: asked after each step; True saves and raises Interrupted.

    Returns:
        The run, finished.

    Raises:
        InputError: for anything wrong with the config, the data or the folder, and at a non-finite loss.
        Interrupted: after `should_stop` said so; the run resumes from there.
    """
    run, config, state = _open(config, resume, tell)
    device = pick_device(config.train.device)
    precision = pick_precision(config.train.precision, device)

    entry = registry.lookup(config.model.name)
    data = _load_data(config, entry)
    model = _build_model(config, data).to(device)
    stages = entry.parameters(name for name, _ in model.named_parameters())

    plan = _phases(config.train)
    phases.check(plan, list(stages))
    augment = Augment(config.augment, data.preprocess.size, data.preprocess.mean, data.preprocess.std)
    val = EvalBatches(
        data.val.images,
        data.val.labels,
        max(config.train.batch_size, 256),
        data.preprocess.mean,
        data.preprocess.std,
        device,
    )
    card = _card(config, data)

    def on_epoch(report: EpochReport, is_best: bool) -> None:
        if is_best:
            run.save_model(model.state_dict(), {**card, "epoch": report.epoch, "val_top1": report.val_top1})
        run.write_metrics(trainer.progress.history)
        tell(describe(report, sum(phase.epochs for phase in plan)))

    trainer = Trainer(
        model,
        losses.build(config.loss, own=entry.loss),
        optim.build(config.optim, model, stages),
        TrainBatches(data.train.images, data.train.labels, config.train.batch_size, augment, config.train.seed, device),
        val,
        phases=plan,
        stages=stages,
        make_schedule=lambda optimizer, epochs, steps: Schedule(config.schedule, optimizer, epochs, steps),
        lr=config.optim.lr,
        precision=precision,
        channels_last=config.train.channels_last,
        accumulate=config.train.accumulate,
        clip_norm=config.optim.clip_norm,
        seed=config.train.seed,
        compiled=torch.compile(model) if config.train.compile is True else None,
        save=run.save_state,
        save_minutes=config.train.checkpoint_minutes,
        on_epoch=on_epoch,
        should_stop=should_stop,
    )

    if state is None:
        run.write("config.yaml", config_.dump(config))
        run.write("split.json", json.dumps(data.split()))
    elif data.split() != run.split:
        raise InputError(f"{config.data.source} no longer holds the images that {run.path} was begun with")
    run.write("environment.json", json.dumps(environment(device, precision), indent=2))
    for line in (*_header(config, entry, data, device, precision), *data.notes):
        tell(line)

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trainer.fit(state)
    finish(run, data, device, tell)
    return run


def finish(run: Run, data: Dataset, device: torch.device, tell: Tell) -> None:
    """What a finished run leaves behind beside its weights: the best weights' predictions, and the report."""
    best = zoo.load(run).to(device)
    val = EvalBatches(data.val.images, data.val.labels, 256, data.preprocess.mean, data.preprocess.std, device)
    outputs, targets = logits(best, val)
    run.save_predictions(outputs.numpy(), targets.numpy())
    write_report(run, data)
    top1 = (outputs.argmax(1) == targets).double().mean().item()
    last = run.metrics[-1]
    tell(
        f"best {top1:.2%} of {len(targets):,} held-out images right, last {last['val_top1']:.2%}; "
        f"report: {run.report_file}"
    )


def write_report(run: Run, data: Dataset | None = None) -> Path:
    """(Re)make report.html from what the run folder holds and, for the pictures, its data."""
    config = config_.read(run.config_file)
    if data is None:
        data = _load_data(config, registry.lookup(config.model.name))
        if list(data.val.names) != run.split["val"]:
            raise InputError(f"{config.data.source} no longer holds the images that {run.path} was validated on")
    run.write("report.html", page.render(run, data.classes, data.val.images))
    return run.report_file


def _open(
    config: Config | Mapping | str | Path | None, resume: str | Path | None, tell: Tell
) -> tuple[Run, Config, dict | None]:
    """The folder, the complete config, and the state to go on from."""
    given = config if config is None or isinstance(config, Config) else config_.read(config)
    if str(resume) == "auto":
        folder = (given or Config()).folder
        resume = folder if (folder / "config.yaml").exists() else None
    if resume is None:
        given = given or Config()
        return Run.new(given.folder), given, None
    run = Run.open(resume)
    own = config_.read(run.config_file)
    if given is not None and (changed := _differences(given, own)):
        raise InputError(
            f"{run.path} was begun with another config: {changed}; resume it as it was, or start a new run by --run"
        )
    if not run.state_file.exists() and not run.state_before.exists():
        tell(f"{run.path} holds no checkpoint yet, so it starts from the beginning")
        return run, given or own, None
    state, wrong = run.load_state()
    if wrong:
        tell(wrong)
    return run, given or own, state


def _differences(given: Config, own: Config) -> str:
    """The keys that make a run another one and in which two configs differ."""
    free = {"data.root", "data.workers", "data.cache", "train.device", "train.checkpoint_minutes"}
    here, there = (
        {
            f"{section}.{key}": value
            for section, values in asdict(c).items()
            if section != "run"
            for key, value in values.items()
        }
        for c in (given, own)
    )
    return ", ".join(
        f"{key} is {there[key]} there and {here[key]} here"
        for key in here
        if key not in free and here[key] != there[key]
    )


def _load_data(config: Config, entry: registry.Entry) -> Dataset:
    trained = zoo.trained_preprocessing(entry.name, config.model.pretrained)
    return sources.load(config.data, config.augment, entry.input_size[1], config.model.in_chans, trained)


def _build_model(config: Config, data: Dataset) -> nn.Module:
    """The net for the data's classes and channels, random weights by the seed, tried on one empty image."""
    model, size, channels = config.model, data.preprocess.size, data.preprocess.channels
    if model.num_classes is not None and model.num_classes < len(data.classes):
        raise InputError(f"model.num_classes is {model.num_classes}, but {data.name} has {len(data.classes)} classes")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        classes = model.num_classes or len(data.classes)
        net = zoo.create(
            model.name,
            model.pretrained,
            num_classes=classes,
            in_chans=channels,
            drop_rate=model.drop_rate,
            **model.args,
        )
    with torch.no_grad():
        net.eval()(torch.zeros(1, channels, size, size))
    return net


def _card(config: Config, data: Dataset) -> dict:
    """What rebuilds the net, its classes and its preprocessing from its weights alone."""
    return {
        "name": config.model.name,
        "num_classes": config.model.num_classes or len(data.classes),
        "in_chans": data.preprocess.channels,
        "drop_rate": config.model.drop_rate,
        "args": config.model.args,
        "classes": list(data.classes),
        "preprocess": data.preprocess.to_dict(),
    }


def _phases(config: TrainConfig) -> list[phases.Phase]:
    if config.phases is None:
        return [phases.Phase(config.epochs)]
    return [phases.Phase(phase.epochs, tuple(phase.trainable), phase.rates) for phase in config.phases]


def environment(device: torch.device, precision: str) -> dict:
    """What a run ran on, and the command that started it."""
    import cnnzoo

    return {
        "cnnzoo": cnnzoo.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device} ({platform.processor() or platform.machine()})",
        "threads": torch.get_num_threads(),
        "precision": precision,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _commit() -> str | None:
    """Of the cnnzoo that runs, if it runs from a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _header(config: Config, entry: registry.Entry, data: Dataset, device: torch.device, precision: str) -> list[str]:
    channels, size = data.preprocess.channels, data.preprocess.size
    layout = "channels last" if config.train.channels_last else "channels first"
    return [
        f"{entry.name} on {data.name}: {len(data.train):,} images to train on, {len(data.val):,} held out, "
        f"{channels}x{size}x{size}, {len(data.classes)} classes",
        f"{device}, {precision}, {layout}; {config.optim.name}, {config.schedule.name}, "
        f"batches of {config.train.batch_size}, seed {config.train.seed}",
    ]


def describe(report: EpochReport, epochs: int) -> str:
    """A finished epoch in a line that can be read aloud."""
    return (
        f"epoch {report.epoch:>{len(str(epochs))}}/{epochs}  train loss {report.train_loss:.4f}  "
        f"val loss {report.val_loss:.4f}  val top-1 {report.val_top1:.2%}  "
        f"{report.images_per_second:,.0f} images/s  {report.seconds:.1f} s"
    )
