"""Optimisers: torch's and timm's, over parameter groups that phases can steer."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from cnnzoo.config import OptimConfig


def build(config: OptimConfig, model: nn.Module, stages: Mapping[str, Iterable[str]]) -> torch.optim.Optimizer:
    """An optimiser with one group for each stage (two where biases and norms do not decay).

    `stages` maps each stage's name to its parameters' names. A group's key "stage" tells whose it is.
    """
    parameters = dict(model.named_parameters())
    groups = []
    for stage, names in stages.items():
        own = [parameters[name] for name in names]
        spared = [p for p in own if p.ndim < 2 and not config.decay_norms_and_biases]
        spared_ids = set(map(id, spared))
        for params, decay in (([p for p in own if id(p) not in spared_ids], config.weight_decay), (spared, 0.0)):
            if params:
                groups.append({"params": params, "weight_decay": decay, "stage": stage})
    return _BUILDERS[config.name](config, groups)


def _sgd(config: OptimConfig, groups: list[dict]) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


def _adam(config: OptimConfig, groups: list[dict]) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=config.lr, betas=config.betas, eps=config.eps or 1e-8)


def _adamw(config: OptimConfig, groups: list[dict]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps or 1e-8)


def _rmsprop(config: OptimConfig, groups: list[dict]) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(
        groups, lr=config.lr, alpha=config.alpha, eps=config.eps or 1e-8, momentum=config.momentum
    )


def _rmsprop_tf(config: OptimConfig, groups: list[dict]) -> torch.optim.Optimizer:
    """TensorFlow's form: epsilon under the root, the mean square starting at one. Inception's recipes rest on it."""
    from timm.optim import RMSpropTF

    return RMSpropTF(groups, lr=config.lr, alpha=config.alpha, eps=config.eps or 1e-10, momentum=config.momentum)


_BUILDERS = {"sgd": _sgd, "adam": _adam, "adamw": _adamw, "rmsprop": _rmsprop, "rmsprop_tf": _rmsprop_tf}
