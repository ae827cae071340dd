"""From a folder of photos to a net that knows its classes: probing, fine-tuning, and which net to begin with."""

import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path

import torch
from torch import nn

from cnnzoo import assemble, registry, zoo
from cnnzoo import config as config_
from cnnzoo.checkpoint import Run
from cnnzoo.config import AugmentConfig, Config, DataConfig, Overrides
from cnnzoo.data import sources
from cnnzoo.data.preprocess import Preprocess
from cnnzoo.device import pick_device
from cnnzoo.errors import InputError, at_least, did_you_mean, expect
from cnnzoo.run import begin, train
from cnnzoo.shown import Shown, Table
from cnnzoo.telling import Tell, silent
from cnnzoo.train import rehearsal
from cnnzoo.train.trainer import Trainer
from cnnzoo.transfer import finetune as recipes
from cnnzoo.transfer import probe as probes
from cnnzoo.transfer.features import Backbone
from cnnzoo.weights import fetch, table


def default_model() -> str:
    """The net to begin with where nobody names one: what trains in minutes on the device that is here."""
    return "resnet50" if torch.cuda.is_available() else "resnet18"


def probe(
    folder: str | Path,
    model: str | None = None,
    pretrained: bool | str | Path | Run = True,
    *,
    classifier: str = "auto",
    views: int = 1,
    bag: int | None = None,
    boost: int | None = None,
    seed: int = 0,
    run: str | Path | Run | None = None,
    overrides: Overrides = (),
    tell: Tell = print,
) -> Run:
    """Fit shallow classifiers on a frozen net's features, and weld the best one onto the net.

    Args:
        folder: of class folders (perhaps in train/ and val/), or a data set's name.
        model: a net of the registry; None takes resnet50 where there is a GPU, else resnet18.
        pretrained: its weights: True (the best known), a tag, a file or a run folder.
        classifier: logistic, knn, svm, centroid, ridge, mlp, or auto: the best of them by cross-validation.
        views: of each training image: one as evaluation sees it, the others mirrored and cropped at random.
        bag: so many of the best classifier, each on a bootstrap sample of the training images, become one head, the
            mean of their probabilities; its out-of-bag accuracy is told.
        boost: so many of a weak classifier, each made for the mistakes of those before it, become one head by SAMME.
        seed: of the folds, the views and the bootstrap samples.
        run: the run folder; None makes runs/<model>_<folder>_probe, with bag or boost _probe_bag or _probe_boost.
        overrides: further keys of the config, as {"data.val_fraction": 0.3} or "--data.val_fraction 0.3".
        tell: is given each line meant for a person.

    Returns:
        The run: it predicts, evaluates and exports like any other.
    """
    model, options = model or default_model(), {"classifier": classifier, "views": views, "seed": seed, "run": run}
    mapping = recipes.recipe(folder, model, pretrained, mode="probe", **options)
    mapping["probe"] |= {"bag": bag, "boost": boost}
    if run is None:
        mapping["run"] += "_bag" if bag else "_boost" if boost else ""
    return train(config_.read(mapping, overrides), tell=tell)


def finetune(
    folder: str | Path,
    model: str | None = None,
    pretrained: bool | str | Path | Run = True,
    *,
    mode: str = "staged",
    epochs: int | Sequence[int] | None = None,
    budget: float | str | None = None,
    lr: float | str | None = None,
    batch_size: int = 32,
    balance: str = "none",
    views: int | None = None,
    seed: int = 0,
    run: str | Path | Run | None = None,
    overrides: Overrides = (),
    tell: Tell = print,
    should_stop: Callable[[], bool] | None = None,
) -> Run:
    """Carry a pretrained net to the classes of a folder: a probe's head first, then more and more of the net.

    Args:
        folder: of class folders (perhaps in train/ and val/), or a data set's name.
        model: a net of the registry; None takes resnet50 where there is a GPU, else resnet18.
        pretrained: its weights: True (the best known), a tag, a file or a run folder.
        mode: probe (nothing of the net moves), head (the head alone, on cached features), staged (the last stage with
            the head, then all) or full (all at once).
        epochs: of each phase: none for probe, one number for head and full, two for staged.
        budget: seconds that everything may take, or a text such as 90s, 10m or 2h; the epochs follow from it.
        lr: the rate of the head, the stages before it taking smaller ones; "find" tries rates out on a copy first.
        batch_size: images to a step.
        balance: none; loss (each class weighs the same) or sampler (each class is drawn equally often).
        views: of each training image that the probe sees, one of them plain, the others mirrored and cropped at random;
            None takes one in mode probe, else three where there are at most 5,000 images.
        seed: of everything random.
        run: the run folder; None makes runs/<model>_<folder>_<mode>.
        overrides: further keys of the config, as {"augment.mixup": 0} or "--augment.mixup 0".
        tell: is given each line meant for a person.
        should_stop: as for `train`.

    Returns:
        The run: it predicts, evaluates and exports like any other.

    Raises:
        InputError: for whatever is wrong with folder, net, weights or options.
    """
    if isinstance(lr, str) and lr != "find":
        raise InputError(f"lr is {lr!r}, but must be a number or find")
    if epochs is not None and budget is not None:
        raise InputError("epochs and budget both say how long it takes; give one of them")
    started, limit = time.perf_counter(), _seconds(budget)
    options = {"batch_size": batch_size, "balance": balance, "views": views, "seed": seed}

    def config(
        mode: str, epochs: int | Sequence[int] | None, lr: float | None, run: str | Path | Run | None, *more: str
    ) -> Config:
        where = (folder, model or default_model(), pretrained)
        recipe = recipes.recipe(*where, mode=mode, epochs=epochs, lr=lr, run=run, **options)
        return config_.read(config_.read(recipe, more), overrides)

    rate = None if isinstance(lr, str) else lr
    chosen = config(mode, epochs, rate, run)
    run = begin(chosen)  # complains now rather than after the measurements
    if lr == "find" and mode != "probe" and not any(chosen.phase_lengths):
        raise InputError("lr='find' looks for the rate of epochs, but epochs leaves none")
    if lr == "find" and mode != "probe":
        rate = rehearsal.find_rate(_rehearse(chosen))
        tell(f"the range test, on a copy, found the rate {rate:.2g}")
        chosen = config(mode, epochs, rate, run)
    if limit is not None and mode != "probe":
        epochs, seconds = _epochs_within(limit, started, chosen, tell)
        within = f"--train.minutes={seconds / 60:.3g}"  # should they take longer than measured
        chosen = config(mode, epochs, rate, run, within) if sum(epochs) else config("probe", (), rate, run)
    return train(chosen, tell=tell, should_stop=should_stop)


def _seconds(budget: float | str | None) -> float | None:
    """Of a number, or of a text such as 10m."""
    if budget is None:
        return None
    seconds = budget
    if isinstance(budget, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", budget.strip())
        seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not isinstance(seconds, Real) or not 0 < seconds < math.inf:
        raise InputError(f"budget is {budget}, but must be a duration such as 90s, 10m or 2h")
    return seconds


def _rehearse(config: Config) -> Trainer:
    """A trainer as the run will have it, with a net of its own."""
    device = pick_device(config.train.device)
    assemble.make_weights_ready(config)
    data = assemble.load_data(config)
    model = assemble.build_model(config, data).to(device)
    probed = assemble.start_by_probe(config, data, model, silent) if config.model.head == "probe" else None
    return assemble.make_trainer(config, data, model, silent, start=probed and probed.report)


def _epochs_within(budget: float, started: float, config: Config, tell: Tell) -> tuple[tuple[int, ...], float]:
    """Epochs of each phase that fit, and the seconds for all of them: two thirds of what is left are the last phase's,
    and a tenth stays in reserve.
    """
    trainer = _rehearse(config)
    costs = [rehearsal.seconds_an_epoch(trainer, number) for number in range(len(trainer.phases))]
    left = seconds = max(0.9 * (budget - (time.perf_counter() - started)), 0.0)
    epochs = [0] * len(costs)
    for number in reversed(range(len(costs))):
        share = left if number == 0 else 2 / 3 * left
        epochs[number] = max(0, min(int(share / costs[number]), recipes.MOST_EPOCHS))
        left -= epochs[number] * costs[number]
    told = ", ".join(f"{n} of {cost:.1f} s" for n, cost in zip(epochs, costs, strict=True))
    tell(f"within {budget:.0f} s there is time for epochs: {told}")
    return tuple(epochs), seconds


# ---- which net to begin with

# Small to large, one or two of each family: what a first look at a new data set should include.
CANDIDATES = (
    *("squeezenet1_1", "alexnet", "googlenet", "googlenet_2014", "resnet18", "resnet34", "densenet121", "resnet50"),
    *("inception_v3", "resnext50_32x4d", "wide_resnet50_2", "resnetv2_50", "xception", "densenet201", "vgg16_bn"),
)


@dataclass(frozen=True)
class Candidate:
    """What a backbone gives a data set."""

    model: str
    tag: str
    cv_top1: float | None  # of logistic regression on its features, over the folds of the training images
    val_top1: float
    images_per_second: float  # of the net alone, on this machine
    megabytes: float  # of its weights
    seconds: float  # that judging it took


@dataclass(frozen=True)
class Ranking(Shown):
    """Backbones, the most accurate first, and why others are missing."""

    candidates: tuple[Candidate, ...]
    missing: dict[str, str]

    def _table(self) -> Table:
        rows = []
        for c in self.candidates:
            cv = "-" if c.cv_top1 is None else f"{c.cv_top1:.2%}"
            cost = (f"{c.images_per_second:,.0f}", f"{c.megabytes:.1f}", f"{c.seconds:.1f}")
            rows.append((f"{c.model} {c.tag}", cv, f"{c.val_top1:.2%}", *cost))
        return Table(("net", "cross-validated", "validation", "images/s", "MB", "seconds"), rows)

    def to_dict(self) -> dict:
        return {"candidates": [asdict(candidate) for candidate in self.candidates], "missing": self.missing}


def pick(
    folder: str | Path,
    models: Sequence[str] = (),
    *,
    budget: float | str | None = 600,
    seed: int = 0,
    device: str = "auto",
    tell: Tell = print,
) -> Ranking:
    """Probe several backbones through the feature cache and rank them.

    Args:
        folder: of class folders, or a data set's name.
        models: nets, NET.TAG or wildcard patterns of either; by default a selection of small and large ones.
        budget: seconds, or a text such as 10m; nets that by their multiply-adds would not fit in what is left are not
            begun. None: no limit.
        seed: of the folds.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
        tell: is given a line for each net, and what is wrong with the data.

    Raises:
        InputError: for a name that is not known, and where no net's weights can be had.
    """
    expect(folder, (str, os.PathLike), "a folder or a data set's name is wanted")
    at_least("seed", seed, 0)
    started, limit, where = time.perf_counter(), _seconds(budget), pick_device(device)
    found: list[Candidate] = []
    missing: dict[str, str] = {}
    told: set[str] = set()
    rows = sorted(_rows(models), key=lambda row: registry.lookup(row.model).macs or 0)
    macs_per_second = 0.0
    for row in rows:
        name, macs = f"{row.model} {row.tag}", registry.lookup(row.model).macs or 0
        left = None if limit is None else limit - (time.perf_counter() - started)
        if left is not None and (left < 0 or (macs_per_second and macs / macs_per_second > left)):
            missing[name] = "no time left for it"
            continue
        try:
            net = zoo.create(row.model, row.tag)
        except fetch.OutOfReach:
            missing[name] = f"its weights are neither here nor in reach; see cnnzoo weights fetch {row.model}.{row.tag}"
            continue
        except InputError as error:  # a damaged file, say, which is no reason to lose the others
            missing[name] = str(error)
            continue
        candidate, data = _judge(os.fspath(folder), row, net.to(where), seed, tell)
        found.append(candidate)
        macs_per_second = max(macs_per_second, macs / candidate.seconds)
        for note in data.notes:
            if note not in told:
                told.add(note)
                tell(note)
        tell(f"{name}: {candidate.val_top1:.2%} of {len(data.val):,} held-out images, {candidate.seconds:.1f} s")
    if not found:
        raise InputError(f"no net could be tried ({'; '.join(f'{n}: {why}' for n, why in list(missing.items())[:2])})")
    found.sort(key=lambda c: (-(c.cv_top1 if c.cv_top1 is not None else c.val_top1), c.megabytes))
    return Ranking(tuple(found), missing)


def _rows(models: Sequence[str]) -> list[table.Weights]:
    """The weights to try: those named, or for a bare name the best that are here, else the best."""
    if isinstance(models, str):
        models = models.split(",")
    rows = []
    for pattern in [name.strip() for name in models if name.strip()] or CANDIDATES:
        named = table.list_weights(pattern) if any(sign in pattern for sign in ".*?[") else None
        if named is None:
            allowed = [row for row in table.rows(pattern) if row.free and not table.excluded(row)]
            named = [next((row for row in allowed if fetch.find(row)), None) or table.row(pattern)]
        if not named:
            known = [f"{row.model}.{row.tag}" for row in table.list_weights()]
            hint = did_you_mean(pattern, known, "cnnzoo weights list names all")
            raise InputError(f"there are no weights {pattern!r}{hint}")
        rows += [row for row in named if row not in rows]
    return rows


def _judge(source: str, row: table.Weights, net: nn.Module, seed: int, tell: Tell) -> tuple[Candidate, sources.Dataset]:
    """One backbone, on its device, and the data as it sees it."""
    started = time.perf_counter()
    model = net.eval()
    preprocess = Preprocess.from_dict(row.preprocess)
    config = DataConfig(source=source, bad_files="skip")
    data = sources.load(config, AugmentConfig(), preprocess.size, preprocess.channels, preprocess)
    backbone = Backbone(model, data.preprocess, data.cache, tell)
    train, val = (backbone.extract(part.images, what=row.model) for part in (data.train, data.val))
    images = (train.vectors, data.train.labels, val.plain, data.val.labels, len(data.classes))
    found = probes.fit(*images, classifier="logistic", folds=3, seed=seed)
    score, size = found.scores[0], sum(tensor.nbytes for tensor in model.state_dict().values()) / 1e6
    speed = _images_per_second(backbone, data)
    took = time.perf_counter() - started
    return Candidate(row.model, row.tag, score.cv_top1, score.val_top1, speed, size, took), data


def _images_per_second(backbone: Backbone, data: sources.Dataset, batch: int = 16) -> float:
    """Of the fast form of the net, the better of two batches."""
    size = (data.preprocess.channels, data.preprocess.size, data.preprocess.size)
    images = torch.zeros(batch, *size, device=backbone.device)
    backbone.fast(images)
    times = []
    for _ in range(2):
        started = time.perf_counter()
        backbone.fast(images).cpu()
        times.append(time.perf_counter() - started)
    return batch / min(times)
