"""Optimisers: torch's and timm's, over parameter groups that phases can steer."""

from collections.abc import Iterable, Mapping

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
    return _optimizer(config, groups, fused=device in ("cuda", "cpu"))


def _optimizer(config: OptimConfig, groups: list[dict], fused: bool) -> torch.optim.Optimizer:
    """`fused`: by one kernel for all weights, not one for each, where torch has one."""
    name, lr = config.name, config.lr
    momentum = {"momentum": config.momentum}
    nesterov = momentum | {"nesterov": config.nesterov}
    eps = {} if config.eps is None else {"eps": config.eps}
    if name == "sgd":
        sgd = torch.optim.SGD(groups, lr=lr, fused=fused, **nesterov)
        if fused and config.momentum:
            sgd.register_step_pre_hook(_start_momentum)
        return sgd
    if name in ("adam", "adamw"):
        kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
        return kind(groups, lr=lr, betas=config.betas, fused=fused, **eps)
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=lr, alpha=config.alpha, **momentum, **eps)
    from timm import optim  # here, since timm takes a while to import

    if name == "rmsprop_tf":  # epsilon under the root, the mean square starting at one: Inception's recipes rest on it
        return optim.RMSpropTF(groups, lr=lr, alpha=config.alpha, **momentum, **eps)
    if name == "lamb":
        return optim.Lamb(groups, lr=lr, betas=config.betas, **eps)
    if name == "lars":
        return optim.Lars(groups, lr=lr, **nesterov)
    if not hasattr(optim, "Muon"):
        raise InputError("optim.name muon needs a newer timm: pip install -U timm")
    return optim.Muon(groups, lr=lr, **nesterov)  # which moves what has fewer than two dimensions by AdamW


def _start_momentum(sgd: torch.optim.SGD, *_: object) -> None:
    """Let momentum start at zero, which makes the first step what it would be without. torch's fused kernel breaks
    where some weights have a momentum already and others, which a net left out of the steps before, have none.
    """
    weights = [weight for group in sgd.param_groups for weight in group["params"]]
    if len(sgd.state) < len(weights):
        for weight in weights:
            if weight.grad is not None and weight not in sgd.state:
                sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
