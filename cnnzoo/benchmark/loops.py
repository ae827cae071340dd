"""The loops that benchmarks of training let take turns: our trainer's, and the one that scripts have."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn

from cnnzoo.config import Config, OptimConfig, PhaseConfig, ScheduleConfig
from cnnzoo.machine import tuned
from cnnzoo.train import losses, optim
from cnnzoo.train.anatomy import Stepper
from cnnzoo.train.schedule import Schedule
from cnnzoo.train.trainer import Trainer


class Kept:
    """The same batch again and again, as resident data would be."""

    def __init__(self, images: Tensor, targets: Tensor, steps: int):
        self.batch, self.steps, self.batch_size = (images, targets), steps, len(images)

    def __len__(self) -> int:
        return self.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.batch for _ in range(start, self.steps))


PLAIN = Config(optim=OptimConfig(lr=0.01, momentum=0.9), schedule=ScheduleConfig(name="constant"))  # as peers here


def trainer_of(net: nn.Module, batches, val, config: Config = PLAIN, **options) -> Trainer:
    """A trainer of `config`'s optimiser and schedule."""
    names = [name for name, _ in net.named_parameters()]
    stages = net.entry.parameters(names) if hasattr(net, "entry") else {"all": names}
    return Trainer(
        net,
        losses.build(config.loss),
        optim.build(config.optim, net, stages),
        batches,
        val,
        phases=[PhaseConfig(config.train.epochs)],
        stages=stages,
        make_schedule=partial(Schedule, config.schedule, config.optim.lr),
        lr=config.optim.lr,
        show_progress=False,
        **{"channels_last": True, **options},
    )


_for_good = ExitStack()  # what lasts as long as the process


def as_in_fit(trainer: Trainer) -> Stepper:
    """The trainer's steps, with the machine set for them as `Trainer.fit` sets it: to the end of this process, as there
    to the end of the training.
    """
    _for_good.enter_context(tuned(trainer.device))
    return Stepper(trainer)


def train(stepper: Stepper, batches: Iterator[tuple[Tensor, Tensor]], steps: int) -> None:
    """So many of its steps, on the next batches."""
    for images, targets in islice(batches, steps):
        stepper.step(images, targets)


def plain_steps(
    net: nn.Module, steps: int, precision: str = "fp32", channels_last: bool = False, lr: float = 0.01
) -> Callable:
    """`(images, targets) -> loss`, `steps` steps on the batch as timm's and torchvision's scripts do them, which read
    the loss after each.
    """
    optimizer = torch.optim.SGD(net.parameters(), lr, momentum=0.9)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net.to(memory_format=layout).train()

    def run(images: Tensor, targets: Tensor) -> float:
        for _ in range(steps):
            with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
                outputs = net(images.contiguous(memory_format=layout))
                loss = nn.functional.cross_entropy(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            value = loss.item()
        return value

    return run


def batch(many: int, size: int, device: torch.device, channels: int = 3) -> tuple[Tensor, Tensor]:
    """Images of noise `(many, channels, size, size)` and their classes, of ten."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(many, channels, size, size, generator=generator)
    return images.to(device), torch.randint(10, (many,), generator=generator).to(device)
