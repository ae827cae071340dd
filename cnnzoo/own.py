"""A user's own net, looked over when it is built: does it have what its entry says?"""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from cnnzoo.errors import InputError, unknown
from cnnzoo.registry import Entry


def look_over(net: nn.Module, entry: Entry, has_options: bool) -> Entry:
    """The entry, with the stages' shapes as they are where options of the builder's own may have changed them.

    An empty image is shown to the net. Layers that wait for one to know their sizes, such as `nn.LazyLinear`, know them
    then, and the net is given the channels-first images that it may need. What takes other images than its entry says
    is not judged.

    Raises InputError for a submodule that is not there, and for other shapes or classes than those registered.
    """
    names = [name for name, _ in net.named_modules(remove_duplicate=False) if name]
    facts = [(f"module of {stage.name}", module) for stage in entry.stages for module in stage.modules]
    for fact, module in (*facts, ("head", entry.head), ("first_conv", entry.first_conv)):
        if module and module not in names:
            raise unknown(f"{fact} of {entry.name}", module, names)
    try:
        classes, shapes = _seen(net, entry)
    except Exception:  # of any kind: the net is a stranger
        return entry
    if classes not in (None, net.num_classes):
        raise InputError(f"{entry.name} answers with {classes} classes, but its num_classes is {net.num_classes}")
    stages = tuple(replace(stage, shape=shapes.get(stage.name, stage.shape)) for stage in entry.stages)
    for stage, told in zip(stages, entry.stages, strict=True):
        if stage.shape != tuple(told.shape) and not has_options:
            raise InputError(
                f"{told.name} of {entry.name} has the shape {stage.shape}, but is registered with {told.shape}"
            )
    return replace(entry, stages=stages)


def _seen(net: nn.Module, entry: Entry) -> tuple[int | None, dict[str, tuple[int, ...]]]:
    """How many classes the net answers with, None where that is no vector; and the shape of each stage's output."""
    size = getattr(net, "image_size", None)
    images = torch.zeros(1, net.in_chans, *((size, size) if size else entry.input_size[1:]))
    tried, training = net if any(map(is_lazy, net.parameters())) else copy.deepcopy(net), net.training
    shapes: dict[str, tuple[int, ...]] = {}

    def note(stage: str) -> Callable:
        return lambda module, given, output: shapes.__setitem__(stage, tuple(output.shape[1:]))

    ends = [(stage.name, tried.get_submodule(stage.modules[-1])) for stage in entry.stages]
    hooks = [module.register_forward_hook(note(name)) for name, module in ends]
    try:
        with torch.no_grad():
            answer = tried.eval()(images.to(memory_format=torch.channels_last))
    except RuntimeError as error:
        if hasattr(net, "channels_first") or "view size is not compatible" not in str(error):
            raise
    else:
        is_vector = isinstance(answer, Tensor) and answer.ndim == 2
        return answer.shape[1] if is_vector else None, shapes
    finally:
        tried.train(training)
        for hook in hooks:
            hook.remove()
    # `x.view(len(x), -1)` cannot take images that lie channels-last in memory, as they do here.
    net.channels_first = True
    net.register_forward_pre_hook(_channels_first)
    return _seen(net, entry)


def _channels_first(net: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    # A copy, since images of one channel count as laid out both ways, and a convolution would answer in the wrong one.
    return tuple(images.clone(memory_format=torch.contiguous_format) for images in given)
