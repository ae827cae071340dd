"""Optimisers: torch's and timm's, over parameter groups that phases can steer."""

from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import nn

from cnnzoo.config import OptimConfig
from cnnzoo.errors import InputError


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
    device = next(iter(parameters.values())).device.type
    return _BUILDERS[config.name](config, groups, fused=device in ("cuda", "cpu"))


def _sgd(config: OptimConfig, groups: list[dict], fused: bool) -> torch.optim.Optimizer:
    sgd = torch.optim.SGD(groups, config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused)
    if fused and config.momentum:
        sgd.register_step_pre_hook(_start_momentum)
    return sgd


def _start_momentum(sgd: torch.optim.SGD, *_: object) -> None:
    """At zero, which makes the first step what it would be without. torch's fused kernel breaks where some weights have
    a momentum already and others, which a net left out of the steps before, have none.
    """
    weights = [weight for group in sgd.param_groups for weight in group["params"]]
    if len(sgd.state) < len(weights):
        for weight in weights:
            if weight.grad is not None and weight not in sgd.state:
                sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)


def _adam(config: OptimConfig, groups: list[dict], fused: bool, kind: type = torch.optim.Adam) -> torch.optim.Optimizer:
    return kind(groups, lr=config.lr, betas=config.betas, fused=fused, **_eps(config))


def _rmsprop(config: OptimConfig, groups: list[dict], fused: bool) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(groups, lr=config.lr, alpha=config.alpha, momentum=config.momentum, **_eps(config))


def _rmsprop_tf(config: OptimConfig, groups: list[dict], fused: bool) -> torch.optim.Optimizer:
    """TensorFlow's form: epsilon under the root, the mean square starting at one. Inception's recipes rest on it."""
    from timm.optim import RMSpropTF

    return RMSpropTF(groups, lr=config.lr, alpha=config.alpha, momentum=config.momentum, **_eps(config))


def _lamb(config: OptimConfig, groups: list[dict], fused: bool) -> torch.optim.Optimizer:
    from timm.optim import Lamb

    return Lamb(groups, lr=config.lr, betas=config.betas, **_eps(config))


def _lars(config: OptimConfig, groups: list[dict], fused: bool) -> torch.optim.Optimizer:
    from timm.optim import Lars

    return Lars(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


def _muon(config: OptimConfig, groups: list[dict], fused: bool) -> torch.optim.Optimizer:
    """For weights of two and more dimensions; timm's moves the others by AdamW at the same rate."""
    try:
        from timm.optim import Muon
    except ImportError:
        raise InputError("optim.name muon needs a newer timm: pip install -U timm") from None
    return Muon(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


def _eps(config: OptimConfig) -> dict[str, float]:
    return {} if config.eps is None else {"eps": config.eps}


_BUILDERS = {  # fused: one kernel for all weights, not one for each
    "sgd": _sgd,
    "adam": _adam,
    "adamw": partial(_adam, kind=torch.optim.AdamW),
    "rmsprop": _rmsprop,
    "rmsprop_tf": _rmsprop_tf,
    "lamb": _lamb,
    "lars": _lars,
    "muon": _muon,
}
