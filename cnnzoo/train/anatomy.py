"""Where the time of a training step goes, on a trainer that is thrown away afterwards."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, record_function

from cnnzoo.device import wait
from cnnzoo.train.rehearsal import entered
from cnnzoo.train.trainer import Trainer

PARTS = (
    "waiting for data",
    "augmentation",
    "forward",
    "loss",
    "backward",
    "optimiser",
    "average of weights",
    "the rest",
)
WARM_UPS = 2  # steps that are not counted


@dataclass(frozen=True)
class Anatomy:
    """Where the time of a step on `batch_size` images goes."""

    batch_size: int
    seconds: dict[str, float]  # a step takes, by PARTS; each part with the device's work for it finished
    loader: float  # images a second of the batches alone, augmented and on the device
    model: float  # images a second of the step alone, on one batch again and again


@dataclass(frozen=True)
class Operator:
    """One of torch's, over all its calls in a step."""

    name: str
    calls: float  # a step
    seconds: float  # a step, itself, without what it calls: on the GPU where there is one


class Stepper:
    """A trainer's last phase, a step at a time and at constant rates."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.feed = entered(trainer, len(trainer.phases) - 1)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Epoch after epoch, without end, from the last one on, in which growing images have grown."""
        for epoch in count(self.trainer.epochs - 1):
            yield from self.feed.batches.epoch(epoch)

    def step(self, images: Tensor, targets: Tensor) -> Tensor:
        """Train on a batch; returns its loss, on the device."""
        loss = self.trainer.step(images, targets)
        self.trainer.progress.step += 1
        return loss


def dissect(trainer: Trainer, steps: int) -> Anatomy:
    """Time `steps` steps, part by part, and the loader and the model each alone."""
    stepper, device = Stepper(trainer), trainer.device
    batches, size = stepper.batches(), stepper.feed.batches.batch_size
    kept = next(batches)
    model = _rate(lambda: stepper.step(*kept), steps, device)
    watch = Watch(device)
    with watching(trainer, watch):
        _steps(stepper, batches, watch, WARM_UPS)
        watch.seconds.clear()
        _steps(stepper, batches, watch, steps)
    batches.close()
    alone = stepper.batches()  # last, since what it decodes ahead would take the steps' cores
    loader = _rate(lambda: next(alone), steps, device)
    alone.close()
    return Anatomy(size, {part: watch.seconds[part] / steps for part in PARTS}, loader * size, model * size)


def trace(trainer: Trainer, file: str, steps: int = 3) -> list[Operator]:
    """Write a Chrome trace of some steps, with the parts marked, and return torch's operators, the costliest first."""
    stepper, device = Stepper(trainer), trainer.device
    batches, watch = stepper.batches(), Watch(torch.device("cpu"))  # which does not wait for a GPU
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # or torch's profiler writes of GPUs that it looked for in vain
    cuda = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    with watching(trainer, watch):
        _steps(stepper, batches, watch, WARM_UPS)
        with torch.profiler.profile(activities=[ProfilerActivity.CPU, *cuda], acc_events=True) as profiler:
            _steps(stepper, batches, watch, steps)
            wait(device)
    batches.close()
    profiler.export_chrome_trace(file)
    own = "self_device_time_total" if cuda else "self_cpu_time_total"
    operators = [
        Operator(event.key, event.count / steps, getattr(event, own) / 1e6 / steps)
        for event in profiler.key_averages()
        if event.key not in PARTS and event.device_type.name == "CPU"  # a GPU's own events are these once more
    ]
    return sorted(operators, key=lambda operator: -operator.seconds)


class Watch:
    """Seconds by part. Of parts within parts the inner one is charged."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: Counter[str] = Counter()
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The time within it, or in each call of a function that it decorates, is the part's."""
        with record_function(name):
            self._charge()
            self._open.append(name)
            try:
                yield
            finally:
                self._charge()
                self._open.pop()

    def _charge(self) -> None:
        wait(self.device)
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


@contextmanager
def watching(trainer: Trainer, watch: Watch) -> Iterator[None]:
    """Charge the parts of the trainer's steps to the watch meanwhile."""
    batches = trainer.feed.batches
    spots = [(trainer, "forward", "forward"), (trainer, "loss", "loss"), (torch.Tensor, "backward", "backward")]
    spots += [(trainer.optimizer, "step", "optimiser"), (trainer.ema, "step", "average of weights")]
    workers = (getattr(batches, name, None) for name in ("augment", "mix"))
    spots += [(type(worker), "__call__", "augmentation") for worker in workers if worker is not None]
    with ExitStack() as undo:
        for owner, name, part in spots:
            function = getattr(owner, name, None)
            if function is not None:
                undo.callback(setattr, owner, name, function)
                setattr(owner, name, watch.part(part)(function))
        yield


def _steps(stepper: Stepper, batches: Iterator, watch: Watch, many: int) -> None:
    for _ in range(many):
        with watch.part("waiting for data"):
            batch = next(batches)
        with watch.part("the rest"):
            stepper.step(*batch)


def _rate(function: Callable, many: int, device: torch.device) -> float:
    """Calls a second."""
    for _ in range(WARM_UPS):
        function()
    wait(device)
    started = time.perf_counter()
    for _ in range(many):
        function()
    wait(device)
    return many / (time.perf_counter() - started)
