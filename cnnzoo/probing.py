"""The head that a probe finds for a config's net, with which a run begins."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from cnnzoo import assemble, bars
from cnnzoo.config import Config
from cnnzoo.data.arrays import choose
from cnnzoo.data.sources import Dataset
from cnnzoo.errors import counted
from cnnzoo.familiar import Familiarity
from cnnzoo.telling import Tell
from cnnzoo.train.trainer import EpochReport

if TYPE_CHECKING:
    from cnnzoo.transfer.probe import Probe


def seconds_a_view(config: Config, data: Dataset, model: nn.Module) -> float:
    """What the features of an image in one view take, as some training images tell; little, where the cache has
    them.
    """
    backbone = assemble.backbone(config, data, model)
    few = [np.arange(len(data.train))[part] for part in (slice(8), slice(8, 72))]
    for places in filter(len, few):  # the first also choose the net's fast form
        started = time.perf_counter()
        backbone.extract(choose(data.train.images, places), more=len(data.train))
        seconds = (time.perf_counter() - started) / len(places)
    return seconds


@dataclass(frozen=True)
class Probed:
    """What a net knows once a probe has given it its head."""

    probe: "Probe"
    report: EpochReport  # as epoch 0
    outputs: torch.Tensor  # logits (N, K) of the validation images
    familiarity: Familiarity


def start_by_probe(config: Config, data: Dataset, model: nn.Module, tell: Tell) -> Probed:
    """Make the best shallow classifier the net's head."""
    # scikit-learn takes a second, which only a probe need wait for
    from cnnzoo.transfer import committee, probe
    from cnnzoo.transfer.classifiers import Data

    started = time.perf_counter()
    frozen = assemble.backbone(config, data, model, tell)
    train, val = assemble.features(config, data, frozen)
    rows = sum(part.vectors.shape[0] * part.vectors.shape[1] for part in (train, val))
    computed = train.computed + val.computed
    seconds = time.perf_counter() - started
    others = ", the others from the cache" if computed < rows else ""
    tell(f"features of {counted(rows, 'image')} in {seconds:.1f} s, {computed:,} computed{others}")
    balance, groups = config.train.balance != "none", data.train.groups
    images = train.vectors, data.train.labels, val.plain, data.val.labels
    seen = Data.of(*images, model.num_classes, groups=groups, balance=balance)
    asked, classifier = config.probe, config.probe.classifier
    if asked.boost and classifier == "auto":
        classifier = committee.WEAK
    with bars.show(desc="classifiers") as bar:
        steps = {"seed": config.train.seed, "tell": lambda name: bar.update() or bar.set_postfix_str(name)}
        learns = bool(config.train.epochs or config.train.phases)
        found = probe.fit(seen, classifier=classifier, learns=learns, folds=asked.folds, **steps)
        if asked.bag or asked.boost:
            found = committee.gather(found, seen, bag=asked.bag, boost=asked.boost, **steps)
        assemble.put_head(model, found.head)
        outputs = probe.predict(found.head, val.plain)
        if not frozen.in_fp32:
            outputs = assemble.settled(outputs, data, model)
            found = found.judged(outputs, data.val.labels)
        if not (asked.bag or asked.boost or learns) and len(data.train) <= assemble.FEW:
            found = probe.with_learning_curve(found, seen, seed=config.train.seed)
    for line in str(found).splitlines():
        tell(line)
    if balance:
        tell("each class counted the same, where classifiers were fitted and where they were cross-validated")
    train_outputs = probe.predict(found.head, train.plain)
    train_loss, val_loss = (
        nn.functional.cross_entropy(given.double(), torch.from_numpy(part.labels)).item()
        for given, part in ((train_outputs, data.train), (outputs, data.val))
    )
    took = time.perf_counter() - started
    report = EpochReport(0, train_loss, val_loss, found.scores[0].val_top1, 0.0, took, rows / took)
    return Probed(found, report, outputs, Familiarity.learn(train.plain, val.plain))
