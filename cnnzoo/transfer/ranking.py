"""Which net to begin with on a new data set: several are probed, and ranked."""

import functools
import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path

import torch
from torch import nn

from cnnzoo import registry, zoo
from cnnzoo.config import AugmentConfig, DataConfig
from cnnzoo.data import sources
from cnnzoo.data.preprocess import Preprocess
from cnnzoo.device import pick_device
from cnnzoo.errors import InputError, at_least, did_you_mean, expect
from cnnzoo.inference.forms import timed
from cnnzoo.shown import Shown, Table
from cnnzoo.telling import Tell
from cnnzoo.transfer import probe
from cnnzoo.transfer.classifiers import Data
from cnnzoo.transfer.features import Backbone
from cnnzoo.weights import fetch, table

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
    groups: str | None = None,
    seed: int = 0,
    device: str = "auto",
    tell: Tell = print,
) -> Ranking:
    """Probe several backbones through the feature cache and rank them.

    Args:
        folder: of class folders, a table (.csv, .tsv) that lists photos, or a data set's name.
        models: nets, NET.TAG or wildcard patterns of either; by default a selection of small and large ones.
        budget: seconds, or a text such as 10m; nets that by their multiply-adds would not fit in what is left are not
            begun. None: no limit.
        groups: a regular expression for what an image belongs to, such as patient(\\d+), see data.groups.
        seed: of the folds.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
        tell: is given a line for each net, and what is wrong with the data.

    Raises:
        InputError: for a name that is not known, for groups that are none, and where no net's weights can be had.
    """
    expect(folder, (str, os.PathLike), "a folder or a data set's name is wanted")
    at_least("seed", seed, 0)
    started, limit, where = time.perf_counter(), seconds_of(budget), pick_device(device)
    tell_once = functools.cache(tell)  # of the data, which each net is shown anew
    found: list[Candidate] = []
    missing: dict[str, str] = {}
    config = DataConfig(source=os.fspath(folder), groups=groups, bad_files="skip")
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
        candidate, data = _judge(config, row, net.to(where), seed, tell)
        found.append(candidate)
        macs_per_second = max(macs_per_second, macs / candidate.seconds)
        for note in data.notes:
            tell_once(note)
        tell(f"{name}: {candidate.val_top1:.2%} of {len(data.val):,} held-out images, {candidate.seconds:.1f} s")
    if not found:
        raise InputError(f"no net could be tried ({'; '.join(f'{n}: {why}' for n, why in list(missing.items())[:2])})")
    found.sort(key=lambda c: (-(c.cv_top1 if c.cv_top1 is not None else c.val_top1), c.megabytes))
    return Ranking(tuple(found), missing)


def seconds_of(budget: float | str | None) -> float | None:
    """A budget in seconds: a number of them, or a text such as 10m. Raises InputError for what is no duration."""
    if budget is None:
        return None
    found = budget
    if isinstance(budget, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", budget.strip())
        found = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not isinstance(found, Real) or not 0 < found < math.inf:
        raise InputError(f"budget is {budget}, but must be a duration such as 90s, 10m or 2h")
    return found


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


def _judge(
    config: DataConfig, row: table.Weights, net: nn.Module, seed: int, tell: Tell
) -> tuple[Candidate, sources.Dataset]:
    """One backbone, on its device, and the data as it sees it."""
    started = time.perf_counter()
    model = net.float().eval()
    preprocess = Preprocess.from_dict(row.preprocess)
    data = sources.load(config, AugmentConfig(), preprocess.size, preprocess.channels, preprocess)
    backbone = Backbone(model, data.preprocess, data.cache, tell)
    # As if many more were to come, so that each net is timed in its fastest form.
    train, val = (backbone.extract(part.images, what=row.model, more=math.inf) for part in (data.train, data.val))
    classes, groups = len(data.classes), data.train.groups
    seen = Data.of(train.vectors, data.train.labels, val.plain, data.val.labels, classes, groups=groups)
    found = probe.fit(seen, classifier="logistic", folds=3, seed=seed)
    score, size = found.scores[0], sum(tensor.nbytes for tensor in model.state_dict().values()) / 1e6
    speed = _images_per_second(backbone)
    took = time.perf_counter() - started
    return Candidate(row.model, row.tag, score.cv_top1, score.val_top1, speed, size, took), data


def _images_per_second(backbone: Backbone) -> float:
    """The rate of the net's fast form, by the better of two batches."""
    height, width, channels = backbone.preprocess.shape
    images = torch.zeros(16, channels, height, width, dtype=torch.float32, device=backbone.device)
    backbone.fast.to_come = math.inf
    backbone.fast(images)  # chooses its form, if the cache had all features
    return len(images) / timed(backbone.fast, images)
