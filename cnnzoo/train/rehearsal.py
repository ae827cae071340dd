"""Trying a few steps before the run begins, on a trainer that is thrown away afterwards."""

import math
import time
from functools import partial
from statistics import median_high

from cnnzoo.config import DataConfig, ScheduleConfig
from cnnzoo.train.schedule import Schedule
from cnnzoo.train.trainer import Feed, Trainer
from cnnzoo.train.validation import logits

STEPS = 4  # timed, after one that warms up
RATES = 1e-6, 1.0  # the first and the last of a range test
TESTED = 80  # rates of a range test
SETTLED = 10  # of these, until the smoothed loss is that of more than a few batches
AS_GOOD = 1.2  # times the least loss, up to which a loss is about as good
BOTTLENECK = 0.15  # share of the time from which on a part other than the net counts as one


def seconds_an_epoch(trainer: Trainer, number: int) -> float:
    """What an epoch of the phase of that number (from 0) will take, its validation included; with images that grow one
    in which they have grown.
    """
    feed = entered(trainer, number)
    times = []
    for images, targets in feed.batches.epoch(trainer.epochs - 1):
        started = time.perf_counter()
        trainer.step(images, targets).item()
        times.append(time.perf_counter() - started)
        if len(times) > STEPS:
            break
    return median_high(times[1:] or times) * len(feed.batches) + seconds_to_judge(trainer, feed)


def seconds_to_judge(trainer: Trainer, feed: Feed) -> float:
    """What a feed's validation will take."""
    started, first = time.perf_counter(), next(iter(feed.val_batches))
    logits(feed.judged, [first], trainer.precision, trainer.channels_last)
    return (time.perf_counter() - started) * len(feed.val_batches)


def loader_rate(batches, seconds: float = 1.0) -> float:
    """Images a second of the batches of an epoch alone, looked at for so many seconds."""
    started, seen = time.perf_counter(), 0
    for images, _ in batches.epoch(0):
        seen += len(images)
        if time.perf_counter() - started > seconds:
            break
    return seen / (time.perf_counter() - started)


def loader_advice(data: DataConfig) -> str:
    """What to change where a net waits for its data."""
    if data.cache == "none":
        return "set data.cache auto, so that photos are decoded once"
    return "more cores, a smaller data.size, fewer augmentations, or photos resized on disk before training would help"


def find_rate(trainer: Trainer) -> float:
    """A rate for the last phase by a range test (Smith 2017, arXiv 1506.01186, section 3.3).

    The rate grows evenly on a logarithmic scale, a step at each, until the smoothed loss is four times its least. A
    tenth of the highest rate at which it was still about at its least is taken; where it was least of all (as fastai
    has it) is chance if the loss has little to fall, as that of a head from a probe has.
    """
    feed = entered(trainer, len(trainer.phases) - 1)
    share = {id(group): group["lr"] / trainer.lr for group in trainer.optimizer.param_groups}
    lowest, highest = RATES
    smooth, done, seen = 0.0, 0, []
    while True:
        for images, targets in feed.batches.epoch(done):
            rate = lowest * (highest / lowest) ** (done / (TESTED - 1))
            for group in trainer.optimizer.param_groups:
                group["lr"] = rate * share[id(group)]
            smooth = 0.8 * smooth + 0.2 * trainer.step(images, targets).item()
            done += 1
            loss = smooth / (1 - 0.8**done)
            if done > SETTLED:
                seen.append((loss, rate))
            least = min(seen)[0] if seen else math.inf
            if not loss < 4 * least or done == TESTED:
                return max((rate for loss, rate in seen if loss <= AS_GOOD * least), default=lowest) / 10


def entered(trainer: Trainer, number: int) -> Feed:
    """What the phase of that number trains on, once the trainer has frozen and thawed as it does, at constant rates."""
    trainer.progress.epoch = sum(before.epochs for before in trainer.phases[:number])
    trainer.make_schedule = partial(Schedule, ScheduleConfig(name="constant"), trainer.lr)
    trainer.enter_phase(number)
    trainer.to_train_mode()
    return trainer.feed
