"""Which stages move, when, and at which rate.

A phase's number follows from the epoch, so resuming is no special case.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import filter as matching
from itertools import accumulate

import torch
from torch import nn

from cnnzoo.config import PhaseConfig
from cnnzoo.errors import InputError, unknown


def check(phases: Sequence[PhaseConfig], stages: Sequence[str]) -> None:
    """Raises InputError for a pattern that no stage matches."""
    for phase in phases:
        for pattern in (*phase.trainable, *phase.rates):
            if not matching(stages, pattern):
                raise unknown("stage in train.phases", pattern, stages)


def check_lengths(phases: Sequence[PhaseConfig], begun: Sequence[int], epoch: int) -> None:
    """Raises InputError where phases that are not over at `epoch` have another length than when the run was begun."""
    now = [phase.epochs for phase in phases]
    over = sum(end <= epoch for end in accumulate(begun))
    if len(begun) != len(now) or begun[over:] != now[over:]:
        was, is_ = (" + ".join(map(str, lengths)) for lengths in (begun, now))
        instead = "change that back, or begin a new run from its weights by model.pretrained"
        raise InputError(f"the run was begun with {was} epochs, and its config says {is_} by now; {instead}")


def number_at(lengths: Sequence[int], epoch: int) -> tuple[int, int]:
    """The place of the phase that `epoch` (from 0) belongs to, and the epoch at which that phase starts; `lengths` are
    those of the phases.
    """
    start = 0
    for number, length in enumerate(lengths):
        if epoch < start + length:
            return number, start
        start += length
    raise IndexError(f"epoch {epoch} is past the last phase")


def moves_head_alone(phase: PhaseConfig, stages: Iterable[str]) -> bool:
    """Whether all that comes before the head gives the same answers throughout the phase."""
    return phase.moves("head") and not any(phase.moves(stage) for stage in stages if stage != "head")


def enter(
    phase: PhaseConfig,
    model: nn.Module,
    stages: Mapping[str, Sequence[str]],
    optimizer: torch.optim.Optimizer,
    lr: float,
    keep_statistics: bool = False,
) -> list[nn.Module]:
    """Freeze and thaw parameters, set each group's rate, and return the modules that stay in eval mode meanwhile: those
    that hold only frozen parameters, which so keep their statistics, and with `keep_statistics` every BatchNorm.

    `stages` maps each stage's name to its parameters' names.
    """
    parameters = dict(model.named_parameters())
    for stage, names in stages.items():
        for name in names:
            parameters[name].requires_grad_(phase.moves(stage))
    for group in optimizer.param_groups:
        group["lr"] = lr * phase.rate(group["stage"])
        group.pop("initial_lr", None)  # torch's schedules would start from the last phase's

    def stays(module: nn.Module) -> bool:
        own = list(module.parameters())
        norm = isinstance(module, nn.modules.batchnorm._NormBase) and keep_statistics
        return norm or (bool(own) and not any(p.requires_grad for p in own))

    return [module for module in model.modules() if stays(module)]
