"""Layers by name, what comes out of them, and a net that is afterwards as it was before."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cnnzoo.errors import InputError, unknown


@contextmanager
def untouched(net: nn.Module) -> Iterator[nn.Module]:
    """Within, the net is in eval mode, computes in float32 where its weights are of half precision, and its parameters
    ask for no gradients. Whatever else is done to it (hooks, modes, modules replaced, attributes, statistics that
    move), all is afterwards as before, bit for bit, also after an error.

    That holds since the net works with stand-ins meanwhile: parameters that share their values with the net's own, and
    copies of the buffers. So a parameter's values must not be changed in place; whoever does that takes a deepcopy.
    """
    modules = list(net.modules())
    before = [_contents(module) for module in modules]
    try:
        _put_stand_ins(modules)
        yield net.eval()
    finally:
        for module, contents in zip(modules, before, strict=True):
            _restore(module, contents)


def _contents(module: nn.Module) -> tuple[dict, dict[str, dict]]:
    """All that a module is: its attributes, and what is in those that are dictionaries (parameters, hooks, …)."""
    own = vars(module)
    return own.copy(), {name: value.copy() for name, value in own.items() if isinstance(value, dict)}


def _restore(module: nn.Module, contents: tuple[dict, dict[str, dict]]) -> None:
    attributes, inner = contents
    vars(module).clear()
    vars(module).update(attributes)
    for name, content in inner.items():  # into the same dictionaries: handles that remove hooks hold on to them
        attributes[name].clear()
        attributes[name].update(content)


def _put_stand_ins(modules: Iterable[nn.Module]) -> None:
    made: dict[Tensor, Tensor] = {}  # by the tensor itself, as some are shared between modules

    def stand_in(tensor: Tensor, make) -> Tensor:
        if tensor not in made:
            made[tensor] = make(_at_least_float32(tensor.detach()))
        return made[tensor]

    def parameter(values: Tensor) -> nn.Parameter:
        return nn.Parameter(values, requires_grad=False)

    for module in modules:
        for tensors, make in ((module._parameters, parameter), (module._buffers, torch.clone)):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = stand_in(tensor, make)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


@contextmanager
def watching(net: nn.Module, layers: str | Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """A dictionary that each forward pass fills with the outputs of `layers`, by the names given.

    They are `(B, C, H, W)`, or `(B, C)` past the flattening, and part of the graph: gradients can be taken of them,
    even where neither the input nor any parameter asks for some, and then nothing before the first of them is gone
    through backwards. A layer that is used several times gives its last output.

    Raises InputError for a layer that is not there, and when asked for one that the forward pass did not come by.
    """
    seen = _Seen()

    def keep(name: str):
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            if not isinstance(output, Tensor):
                raise InputError(
                    f"layer {name} gives no single tensor, but {type(output).__name__}; name one within it"
                )
            if torch.is_grad_enabled() and not output.requires_grad:
                output.requires_grad_()
            seen[name] = output

        return hook

    modules = {name: layer_of(net, name)[1] for name in ([layers] if isinstance(layers, str) else layers)}
    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


class _Seen(dict):
    def __missing__(self, name: str) -> Tensor:
        raise InputError(f"layer {name} takes no part in the net's answer")


def layer_of(net: nn.Module, name: str | None = None) -> tuple[str, nn.Module]:
    """A layer's name and module, by a stage's name (whose last module it is), "head", "first_conv" or a module's dotted
    path; None is the last stage that gives maps of more than one place, or the last of all where none does.

    A net without stages, as one from elsewhere, has its last convolution for None.

    Raises InputError for a name that is not there, with the near ones.
    """
    ends = _ends(net)
    if name is None:
        name = _last_with_maps(net)
    if name in ends:
        return name, net.get_submodule(ends[name])
    paths = dict(net.named_modules())
    if not name or name not in paths:
        raise unknown("layer", name, [*ends, *filter(None, paths)])
    return name, paths[name]


def paths_of(net: nn.Module, name: str) -> list[str]:
    """The dotted paths of the modules that a layer's name stands for: those of a whole stage, in order, or just one.

    Raises InputError as `layer_of` does.
    """
    for stage in _stages(net):
        if stage.name == name:
            return list(stage.modules)
    layer_of(net, name)
    return [_ends(net).get(name, name)]


def stages_of(net: nn.Module) -> list[str]:
    """The names of a net's stages from input to output; none for a net that is not of the registry."""
    return [stage.name for stage in _stages(net)]


def _stages(net: nn.Module) -> tuple:
    return getattr(getattr(net, "entry", None), "stages", ())


def _ends(net: nn.Module) -> dict[str, str]:
    """The path of the module whose output is that of a stage, the head or the first convolution, by their names."""
    ends = {stage.name: stage.modules[-1] for stage in _stages(net)}
    entry = getattr(net, "entry", None)
    for name in ("head", "first_conv"):
        if path := getattr(entry, name, ""):
            ends.setdefault(name, path)
    return ends


def _last_with_maps(net: nn.Module) -> str:
    stages = _stages(net)
    with_maps = [stage.name for stage in stages if len(stage.shape) == 3 and stage.shape[-1] > 1]
    convolutions = [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    for names in (with_maps, [stage.name for stage in stages], convolutions):
        if names:
            return names[-1]
    raise InputError("this net has neither stages nor a convolution; name a layer of it")
