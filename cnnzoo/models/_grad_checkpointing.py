"""Gradient checkpointing: what the blocks of a net compute in training is not kept for the backward pass, but computed
again there (Chen, Xu, Zhang, Guestrin: Training Deep Nets with Sublinear Memory Cost, 2016, arXiv 1604.06174).
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.pooling import _AvgPoolNd, _MaxPoolNd
from torch.utils.checkpoint import checkpoint

from cnnzoo.errors import InputError

# Before torch 2.9, a compiled graph updates the statistics of what it computes twice as often.
SOUND_WHEN_COMPILED = torch.__version__ >= (2, 9)


def set_grad_checkpointing(net: nn.Module, enable: bool = True) -> None:
    """Let the blocks of any net be computed twice in a training step, or once again as usual.

    A step takes less memory and up to a forward pass longer; gradients and BatchNorm's statistics are the same, bit by
    bit. A block is the outermost module that holds several layers with weights, torch's containers aside: a residual
    block, an Inception module, a layer of DenseNet. A plain nn.Sequential of single layers is one, too, and is computed
    from pooling to pooling.

    Raises InputError for a net without blocks.
    """
    if not sum(_set(child, enable) for child in net.children()) and enable:
        raise InputError(f"{type(net).__name__} has no blocks of layers to compute again, so it takes no less memory")


def _set(module: nn.Module, enable: bool) -> int:
    """The same for a part of a net; returns how many blocks there are in it."""
    if sum(getattr(part, "weight", None) is not None and part.weight.ndim > 1 for part in module.modules()) < 2:
        return 0
    own = type(module).forward
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        many = sum(_set(child, enable) for child in module.children())
        if many or own is nn.Module.forward:
            return many
    vars(module).pop("forward", None)
    if enable:
        module.forward = partial(_from_pool_to_pool if own is nn.Sequential.forward else _as_a_whole, module)
    return 1


def _as_a_whole(block: nn.Module, *inputs, **options):
    forward = partial(type(block).forward, block, **options)
    return _recomputed(forward, [block], *inputs) if block.training else forward(*inputs)


def _from_pool_to_pool(layers: nn.Sequential, x: Tensor) -> Tensor:
    if not layers.training:
        return nn.Sequential.forward(layers, x)
    stretch: list[nn.Module] = []
    for number, layer in enumerate(layers, start=1):
        stretch.append(layer)
        if number == len(layers) or isinstance(layer, _AvgPoolNd | _MaxPoolNd):
            x = _recomputed(partial(_through, stretch), stretch, x)
            stretch = []
    return x


def _through(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _recomputed(function: Callable, modules: Sequence[nn.Module], *inputs):
    """`function(*inputs)`, of which only the inputs are kept for the backward pass. It runs these `modules`."""
    compiled = torch.compiler.is_compiling()
    if not torch.is_grad_enabled() or (compiled and not SOUND_WHEN_COMPILED):
        return function(*inputs)
    # A compiled graph updates the statistics once by itself.
    once = {} if compiled else {"context_fn": lambda: (nullcontext(), _Untracked(modules))}
    return checkpoint(function, *inputs, use_reentrant=False, **once)


class _Untracked:
    """While this is entered, as often as that may be, the BatchNorms of modules in train mode leave their running
    statistics alone.
    """

    def __init__(self, modules: Sequence[nn.Module]):
        self.norms = [part for module in modules for part in module.modules() if isinstance(part, _BatchNorm)]

    def __enter__(self) -> None:
        self.kept = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]
        for norm in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None

    def __exit__(self, *error: object) -> None:
        for norm, (momentum, tracked) in zip(self.norms, self.kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
