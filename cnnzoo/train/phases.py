"""Which stages move, when, and at which rate.

A phase's number follows from the epoch, so resuming is no special case.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from cnnzoo.errors import unknown


@dataclass(frozen=True)
class Phase:
    """`epochs` in which the stages that match a pattern of `trainable` move, at the base rate times their factor in
    `rates`.
    """

    epochs: int
    trainable: tuple[str, ...] = ("*",)
    rates: Mapping[str, float] = field(default_factory=dict)

    def moves(self, stage: str) -> bool:
        return any(fnmatch.fnmatchcase(stage, pattern) for pattern in self.trainable)

    def rate(self, stage: str) -> float:
        return next((factor for pattern, factor in self.rates.items() if fnmatch.fnmatchcase(stage, pattern)), 1.0)


def check(phases: Sequence[Phase], stages: Sequence[str]) -> None:
    """Raises InputError for a pattern that no stage matches."""
    for phase in phases:
        for pattern in (*phase.trainable, *phase.rates):
            if not fnmatch.filter(stages, pattern):
                raise unknown("stage in train.phases", pattern, stages)


def at(phases: Sequence[Phase], epoch: int) -> tuple[Phase, int]:
    """The phase that `epoch` (from 0) belongs to, and the epoch at which that phase starts."""
    start = 0
    for phase in phases:
        if epoch < start + phase.epochs:
            return phase, start
        start += phase.epochs
    raise IndexError(f"epoch {epoch} is past the last phase")


def enter(
    phase: Phase, model: nn.Module, stages: Mapping[str, Sequence[str]], optimizer: torch.optim.Optimizer, lr: float
) -> list[nn.Module]:
    """Freeze and thaw parameters, set each group's rate, and return the frozen modules, which stay in eval mode
    meanwhile.

    `stages` maps each stage's name to its parameters' names; modules that hold only frozen parameters keep their
    statistics.
    """
    parameters = dict(model.named_parameters())
    for stage, names in stages.items():
        for name in names:
            parameters[name].requires_grad_(phase.moves(stage))
    for group in optimizer.param_groups:
        group["lr"] = lr * phase.rate(group["stage"])
        group.pop("initial_lr", None)  # torch's schedules would start from the last phase's
    optimizer.zero_grad(set_to_none=True)  # or momentum would go on moving what is now frozen
    return [m for m in model.modules() if list(m.parameters()) and not any(p.requires_grad for p in m.parameters())]
