"""Optimisers: torch's and timm's, over parameter groups that phases can steer."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cnnzoo.config import OptimConfig
from cnnzoo.errors import InputError

LARGE = 2**16  # numbers in a weight from which on a copy takes longer than to avoid it


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
        sgd = _SGD(groups, lr=lr, fused=fused, **nesterov)
        if fused and config.momentum:
            sgd.register_step_pre_hook(_start_momentum)
        return sgd
    if name in ("adam", "adamw"):
        kind = _Adam if name == "adam" else _AdamW
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


@contextmanager
def _as_vectors(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within it large weights on a CPU that lie channels-last are vectors, views of the same memory, and so are their
    gradients and what is kept of them. torch's fused kernels copy each such gradient as it lies otherwise, and use
    nothing of the copy: that takes as long as the step.
    """
    weights = (weight for group in optimizer.param_groups for weight in group["params"])
    shown = []
    for weight in [weight for weight in weights if weight.grad is not None and _is_copied(weight)]:
        kept, data, gradient = optimizer.state.get(weight, {}), weight.data, weight.grad
        own = {key: value for key, value in kept.items() if value.shape == data.shape}
        shown.append((weight, data, gradient))
        _show(weight, _vector(data), _vector(gradient))
        kept.update({key: _vector(value) for key, value in own.items()})
    try:
        yield
    finally:
        for weight, data, gradient in shown:
            kept = optimizer.state.get(weight, {})
            own = {key: value for key, value in kept.items() if value.shape == weight.shape}
            kept.update({key: value.as_strided(data.shape, data.stride()) for key, value in own.items()})
            _show(weight, data, gradient)


def _is_copied(weight: Tensor) -> bool:
    if weight.numel() < LARGE or weight.device.type != "cpu" or weight.is_contiguous():
        return False
    return weight.is_contiguous(memory_format=torch.channels_last)


def _vector(tensor: Tensor) -> Tensor:
    return tensor.as_strided((tensor.numel(),), (1,))


def _show(weight: Tensor, data: Tensor, gradient: Tensor) -> None:
    weight.grad = None  # which must have the weight's shape at any time
    weight.data, weight.grad = data, gradient


def _merged(groups: Iterable[dict]) -> list[dict]:
    """Groups that a step treats alike as one, whatever stage they are of: each takes a kernel of its own."""
    alike: dict[tuple, list[Tensor]] = {}
    for group in groups:
        settings = tuple((key, value) for key, value in group.items() if key not in ("params", "stage"))
        alike.setdefault(settings, []).extend(group["params"])
    return [{"params": params, **dict(settings)} for settings, params in alike.items()]


class _Fused:
    """What the optimisers have in common that torch has fused kernels for."""

    def step(self, closure: None = None) -> None:
        own, self.param_groups = self.param_groups, _merged(self.param_groups)
        try:
            with _as_vectors(self):
                super().step(closure)
        finally:
            self.param_groups = own


class _SGD(_Fused, torch.optim.SGD):
    pass


class _Adam(_Fused, torch.optim.Adam):
    pass


class _AdamW(_Fused, torch.optim.AdamW):
    pass
