"""Layers by name, what comes out of them, and a twin of a net to look into."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from cnnzoo.device import autocast, device_of
from cnnzoo.errors import InputError, near, quoted, unknown
from cnnzoo.models._committee import CommitteeNet

T = TypeVar("T")


class Layer(NamedTuple):
    """A layer of a net, and what it is called."""

    name: str
    module: nn.Module


@contextmanager
def untouched(net: nn.Module) -> Iterator[nn.Module]:
    """A twin of the net to look into: in eval mode, in float32 whatever the net's own weights are, with parameters that
    ask for no gradients. Whatever is done to it (hooks, modes, modules replaced, attributes, statistics that move), the
    net itself is never touched: no error, interrupt or other thread can leave a trace. Within, gradients can be taken,
    also where torch.inference_mode is on outside, and nothing is computed in 16 bits, even where torch.autocast is on.

    Parameters share their values with the net's own, where these are of float32; buffers are copies. So a parameter's
    values must not be changed in place; whoever does that takes a deepcopy.
    """
    device = device_of(net)
    with torch.inference_mode(False), autocast(device, "fp32"):
        made = {id(p): nn.Parameter(_in_float32(p), requires_grad=False) for p in net.parameters()}
        made |= {id(buffer): _in_float32(buffer).clone() for buffer in net.buffers()}
        plain = (value for module in net.modules() for value in vars(module).values() if isinstance(value, Tensor))
        made |= {id(tensor): _in_float32(tensor) for tensor in plain}  # part of a graph, deepcopy would refuse them
        twin = deepcopy(net, made).eval()
        twin.twin_of = {id(module): path for path, module in net.named_modules()}  # which a user may name a layer by
        yield twin


def _in_float32(tensor: Tensor) -> Tensor:
    """Its values, without a copy where that can be: of a tensor made in inference mode no gradient can be taken."""
    values = tensor.detach().clone() if tensor.is_inference() else tensor.detach()
    return values.float() if values.is_floating_point() else values


@contextmanager
def watching(net: nn.Module, layers: str | Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """A dictionary that each forward pass fills with the outputs of `layers`, by the names given.

    They are `(B, C, H, W)`, or `(B, C)` past the flattening, and part of the graph: gradients can be taken with respect
    to them, even where neither the input nor any parameter asks for some; a backward pass then ends at the first of
    them. A layer that is used several times gives its last output.

    Raises InputError for a layer that is not there, and when asked for one that the forward pass did not come by.
    """
    seen = _Seen()

    def keep(name: str):
        def hook(module: nn.Module, inputs: tuple, output: object) -> Tensor:
            output = single_tensor(output, name)
            if torch.is_grad_enabled() and not output.requires_grad:
                output.requires_grad_()
            seen[name] = output
            return output.clone()  # the net goes on with: what works in place, as many a ReLU, would change it

        return hook

    modules = {name: layer_of(net, name).module for name in several(layers)}
    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.enter_context(module.register_forward_hook(keep(name)))
        yield seen


class _Seen(dict):
    def __missing__(self, name: str) -> Tensor:
        raise takes_no_part(name)


def takes_no_part(layer: str) -> InputError:
    """The error for a layer that a forward pass did not reach."""
    return InputError(f"layer {layer} takes no part in the net's answer; name another")


def single_tensor(output: object, layer: str) -> Tensor:
    """A layer's output. Raises InputError if it is no tensor, but several or something else."""
    if not isinstance(output, Tensor):
        raise InputError(f"layer {layer} gives no single tensor, but {type(output).__name__}; name one within it")
    return output


def several(given: T | Iterable[T]) -> list[T]:
    """What was given as one or as several."""
    one = isinstance(given, str | nn.Module) or not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0
    return [given] if one else list(given)


def layer_of(net: nn.Module, name: str | nn.Module | None = None, x: Tensor | None = None) -> Layer:
    """A layer's name and module, by a stage's name (whose last module it is), "head", "first_conv", the name that the
    net's paper has for it, a module's dotted path or the module itself; None is the last stage that gives maps of more
    than one place, or the last of all where none does.

    Which stage that is depends on the images: 7x7 maps of 224x224 pixels have a single place in 32x32. Given `x`
    `(B, C, H, W)` of another size than the net was registered with, its first image is tried; else that size counts.

    A net without stages, as one from elsewhere, has its last convolution for None.

    Raises InputError for a name that is not there, with the near ones, and where a committee's layer is not named.
    """
    ends = _ends(net)
    if name is None:
        name = last_with_maps(net, x) or _last(net)
    paths = dict(net.named_modules())
    if isinstance(name, nn.Module):
        own = {id(module): path for path, module in paths.items()}
        name = {**own, **getattr(net, "twin_of", {})}.get(id(name), name)
    known = [*ends, *filter(None, paths)]
    if name not in known:
        if ends and not near(str(name), known):
            raise InputError(f"unknown layer {quoted(name)}; known: {', '.join(ends)}, and every module's path")
        raise unknown("layer", name, known)
    return Layer(name, net.get_submodule(ends.get(name, name)))


def last_with_maps(net: nn.Module, x: Tensor | None = None) -> str | None:
    """The name of the last stage whose maps have more than one place, or None; `x` as in `layer_of`. A net without
    stages is judged by its last convolution.
    """
    stages = _stages(net)
    if x is None or (stages and tuple(x.shape[1:]) == net.entry.input_size):
        shapes = {stage.name: stage.shape for stage in stages}
    else:
        names = [stage.name for stage in stages] or [_last(net)]
        with watching(net, names) as seen, torch.no_grad():
            net(x[:1])
        shapes = {name: seen[name].shape[1:] for name in names}
    return next((name for name, shape in reversed(shapes.items()) if is_wide(shape)), None)


def is_wide(shape: Sequence[int]) -> bool:
    """Whether a layer's output of this shape, without the batch, is maps of more than one place."""
    return len(shape) == 3 and math.prod(shape[1:]) > 1


def paths_of(net: nn.Module, name: str | nn.Module) -> list[str]:
    """The dotted paths of the modules that a layer's name stands for: those of a whole stage, in order, or just one.

    Raises InputError as `layer_of` does.
    """
    for stage in _stages(net):
        if stage.name == name:
            return list(stage.modules)
    name = layer_of(net, name).name
    return [_ends(net).get(name, name)]


def stages_of(net: nn.Module) -> list[str]:
    """The names of a net's stages from input to output; none for a net that is not of the registry."""
    return [stage.name for stage in _stages(net)]


def _stages(net: nn.Module) -> tuple:
    return getattr(getattr(net, "entry", None), "stages", ())


def _ends(net: nn.Module) -> dict[str, str]:
    """The path of the module whose output is that of a layer, by the names of the registry."""
    return net.entry.layers if hasattr(net, "entry") else {}


def _last(net: nn.Module) -> str:
    """The last stage, or the last convolution of a net without stages. Raises InputError where there is neither, and
    for a committee, of which that would be a layer of one member.
    """
    if isinstance(net, CommitteeNet):
        path, member = "members.0", net.members[0]
        while isinstance(member, CommitteeNet):
            path, member = f"{path}.members.0", member.members[0]
        name = last_with_maps(member) or _last(member)
        raise InputError(
            f"a committee has no layer of its own; look at the run of one of its members, or name a layer of a member, "
            f"such as {path}.{_ends(member).get(name, name)}"
        )
    convolutions = (name for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
    if names := stages_of(net) or list(convolutions):
        return names[-1]
    raise InputError("this net has neither stages nor a convolution; name a layer of it")
