"""Schedules of the rate, all torch's: built for a phase, moved every step, told the validation loss every epoch."""

import math

import torch
from torch.optim import lr_scheduler as torch_schedules

from cnnzoo.config import ScheduleConfig

FEW = 10  # steps below which one cycle has no room to rise, and only falls: its first and last rates are next to 0


class Schedule:
    """A torch schedule counted in steps; `plateau` alone counts epochs, and rises by itself while it warms up. `lr` is
    the highest rate, of which each group of the optimiser has its own share throughout.
    """

    def __init__(
        self, config: ScheduleConfig, lr: float, optimizer: torch.optim.Optimizer, epochs: int, steps_per_epoch: int
    ):
        optimizer._opt_called = True  # or torch warns where fp16 leaves out the first step
        total = epochs * steps_per_epoch
        warmup = min(round(config.warmup_epochs * steps_per_epoch), total - 1)
        self._plateau = None
        if config.name == "plateau":
            self._plateau = torch_schedules.ReduceLROnPlateau(optimizer, factor=config.gamma, patience=config.patience)
        self._main = _main(config, optimizer, total, warmup, steps_per_epoch, config.final / lr)
        self._warmup = torch_schedules.LinearLR(optimizer, config.warmup_start, 1.0, warmup) if warmup else None
        self._steps, self._warmup_steps = 0, warmup
        parts = {"main": self._main, "warmup": self._warmup, "plateau": self._plateau}
        self._parts = {name: part for name, part in parts.items() if part is not None}

    def step(self) -> None:
        """To be called after every step of the optimiser."""
        self._steps += 1
        if self._steps <= self._warmup_steps:
            self._warmup.step()
        elif self._main is not None:
            self._main.step()

    def end_epoch(self, val_loss: float) -> None:
        """To be called after every epoch."""
        if self._plateau is not None and self._steps >= self._warmup_steps:
            self._plateau.step(val_loss)

    def state_dict(self) -> dict:
        return {"steps": self._steps, **{name: part.state_dict() for name, part in self._parts.items()}}

    def load_state_dict(self, state: dict) -> None:
        """How far it has come. The rates it moves between stay those it was made with."""
        self._steps = state["steps"]
        for name, part in self._parts.items():
            part.load_state_dict({key: value for key, value in state[name].items() if key != "base_lrs"})


def _main(
    config: ScheduleConfig,
    optimizer: torch.optim.Optimizer,
    total: int,
    warmup: int,
    steps_per_epoch: int,
    final: float,
):
    """torch's schedule for the steps after the warm-up; None where steps change nothing. `final` is the share of every
    rate that is left at the end of cosine.
    """
    left = total - warmup
    if config.name in ("constant", "plateau"):
        return None
    if config.name in ("step", "multi_step"):
        every = max(round(config.every * steps_per_epoch), 1)
        given = (round(epoch * steps_per_epoch) for epoch in config.milestones)
        lowered = range(every, total, every) if config.name == "step" else given
        return torch_schedules.MultiStepLR(optimizer, [max(at - warmup, 1) for at in lowered], config.gamma)
    if config.name in ("cosine", "cyclic"):  # torch's own end in one rate, to which lower ones, 0 even, would rise
        length = left // (config.cycles if config.name == "cyclic" else 1)
        wave = [final + (1 - final) * (1 + math.cos(math.pi * step / length)) / 2 for step in range(length)]
        return torch_schedules.LambdaLR(optimizer, lambda step: wave[step % length])
    if config.name == "polynomial":
        return torch_schedules.PolynomialLR(optimizer, left, config.power)
    if total < FEW:
        return torch_schedules.CosineAnnealingLR(optimizer, total)
    rates = [group["lr"] for group in optimizer.param_groups]
    rise = config.rise * (1 + 1e-9) if config.rise * total == 1 else config.rise  # by one step torch divides by 0
    return torch_schedules.OneCycleLR(optimizer, rates, total, pct_start=rise, cycle_momentum=False)
