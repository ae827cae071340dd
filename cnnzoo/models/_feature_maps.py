"""The feature maps of a net's stages, without what comes after them."""

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral
from threading import get_ident

import torch
from torch import Tensor, fx, nn
from torch.fx.graph_module import reduce_graph_module

from cnnzoo.errors import InputError, did_you_mean
from cnnzoo.models._base import Net
from cnnzoo.registry import Stage


class FeatureInfo:
    """What timm's feature extractors tell of their maps, which code written for them asks: of the chosen layers, or by
    `idx`, a number or several, of any, all stages first. Reduction is how many pixels of the image's side come to one
    of the map's, but for what convolutions without padding cut off.
    """

    def __init__(self, stages: Sequence[Stage], chosen: Sequence[Stage], size: int):
        layers = [*stages, *(layer for layer in chosen if layer not in stages)]
        self.out_indices = [layers.index(layer) for layer in chosen]
        self.info, known = [], [(size, 1)]
        for index, layer in enumerate(layers):
            channels, side, _ = layer.shape
            # Rounded from one stage to the next, so that cut borders do not add up; some enlarge their maps, too.
            before, reduction = next((one for one in reversed(known) if one[0] >= side), (side, 1))
            reduction *= round(before / side)
            self.info.append({"num_chs": channels, "reduction": reduction, "module": layer.name, "index": index})
            known.append((side, reduction))

    def channels(self, idx: int | Sequence[int] | None = None) -> list[int] | int:
        return self.get("num_chs", idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> list[int] | int:
        return self.get("reduction", idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> list[str] | str:
        return self.get("module", idx)

    def get(self, key: str, idx: int | Sequence[int] | None = None) -> list | int | str:
        if isinstance(idx, Integral):
            return self.info[idx][key]
        return [self.info[index][key] for index in (self.out_indices if idx is None else idx)]

    def get_dicts(self, keys: Sequence[str] | None = None, idx: int | Sequence[int] | None = None) -> list[dict] | dict:
        if isinstance(idx, Integral):
            return {key: self.info[idx][key] for key in keys or self.info[idx]}
        return [self.get_dicts(keys, index) for index in (self.out_indices if idx is None else idx)]

    def __getitem__(self, index: int) -> dict:
        return self.info[index]

    def __len__(self) -> int:
        return len(self.info)


class FeatureMaps(fx.GraphModule):
    """A net cut off past the last of the chosen layers: `forward` returns their maps, each `(B, C, H, W)`, in the order
    they were chosen in. Neither heads nor later layers are kept, and what stays has the names it has in the net.

    Chosen are stages, by number or name, or single modules, by the paper's name or their path: conv4_3, features.22.
    `names`, `channels`, `shapes` (for one image of the net's own input size) and `feature_info` describe the maps. Of a
    user's net that torch.fx cannot follow, all is kept and computed, under the name `net`.
    """

    def __init__(self, net: nn.Module, out_indices: Sequence[int | str] | None):
        stages = [stage for stage in net.entry.stages if len(stage.shape) == 3]
        if not stages:
            raise InputError(f"{net.entry.name} has no stages with feature maps; create it without features_only")
        wanted = range(len(stages)) if out_indices is None else out_indices
        chosen = [_layer(net, stages, index) for index in wanted]
        super().__init__(*_cut(net, [layer.modules[-1] for layer in chosen]), "FeatureMaps")
        if not all(layer.shape for layer in chosen):
            chosen = self._measured(chosen, net)
        self.names = [layer.name for layer in chosen]
        self.channels = [layer.shape[0] for layer in chosen]
        self.shapes = [layer.shape for layer in chosen]
        self.feature_info = FeatureInfo(stages, chosen, net.entry.input_size[1])

    def _measured(self, chosen: Sequence[Stage], net: nn.Module) -> list[Stage]:
        """The chosen layers with the shapes of their outputs. Raises InputError for one whose outputs are no maps."""
        channels, height, width = net.entry.input_size
        twin = copy.deepcopy(self).to("meta").eval()
        with torch.no_grad():
            outputs = twin(torch.empty(1, getattr(net, "in_chans", channels), height, width, device="meta"))
        for layer, output in zip(chosen, outputs, strict=True):
            if not isinstance(output, Tensor) or output.ndim != 4:
                raise InputError(f"out_indices has {layer.name!r}, whose outputs are no maps (B, C, H, W)")
        return [replace(layer, shape=(*output.shape[1:],)) for layer, output in zip(chosen, outputs, strict=True)]

    def __deepcopy__(self, memo: dict) -> "FeatureMaps":
        twin = super().__deepcopy__(memo)
        type(twin).__name__ = "FeatureMaps"  # each has a class of its own
        vars(twin).update(copy.deepcopy(_lacking(twin, vars(self)), memo))
        return twin

    def __reduce__(self) -> tuple:
        return _unpickled, super().__reduce__()[1]


def _lacking(maps: FeatureMaps, facts: dict) -> dict:
    """Those attributes that a copy made by torch has not taken over."""
    return {name: fact for name, fact in facts.items() if name not in vars(maps) and name != "_graph"}


def _unpickled(body: dict, imports: str) -> FeatureMaps:
    facts, plain = dict(body), reduce_graph_module(body, imports)
    maps = FeatureMaps.__new__(FeatureMaps)
    fx.GraphModule.__init__(maps, plain, plain.graph, "FeatureMaps")
    vars(maps).update(_lacking(maps, facts))
    return maps


def _layer(net: nn.Module, stages: Sequence[Stage], index: int | str) -> Stage:
    """The stage that `out_indices` names, or the single layer, with its shape left open. Raises InputError."""
    hint, by_name = "", {stage.name: stage for stage in stages}
    if isinstance(index, Integral) and -len(stages) <= index < len(stages):
        return stages[index]
    if isinstance(index, str):
        if index in by_name:
            return by_name[index]
        modules, names = [name for name, _ in net.named_modules() if name], net.entry.layers
        if (path := names.get(index, index)) in modules:
            return Stage(index, (path,), ())
        hint = did_you_mean(index, [*names, *modules], "every module's path is known, too")
    raise InputError(f"out_indices has {index!r}, but there are {len(stages)} stages: {', '.join(by_name)}{hint}")


class _Coarse(fx.Tracer):
    """Follows a net's forward pass, but only into modules within which one of `ends` lies; `outputs` are the nodes of
    the modules that it came by.
    """

    def __init__(self, ends: Sequence[str] = ()):  # none where torch makes one for a copy
        super().__init__()
        self.ends, self.outputs = ends, {}

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return not any(end.startswith(f"{path}.") for end in self.ends)

    def call_module(self, module: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> object:
        output = super().call_module(module, forward, args, kwargs)
        self.outputs[self.path_of_module(module)] = getattr(output, "node", None)
        return output


def _cut(net: nn.Module, ends: Sequence[str]) -> tuple[nn.Module, fx.Graph]:
    """A module, and the part of its forward pass that leads to the outputs of the submodules `ends`, as a graph."""
    modes = {module: module.training for module in net.modules()}
    with torch.random.fork_rng(devices=[]):
        before = _random_states()
        try:
            # A hook on the net itself is not traced.
            graphs = [] if net._forward_pre_hooks else [_traced(net.train(mode), ends) for mode in (True, False)]
        except Exception:  # of any kind: a user's net may do what torch.fx does not know
            graphs = []
        drawn = _random_states() != before
    for module, mode in modes.items():
        module.training = mode
    # A branch that the mode or a random number chose would be in the graph for good.
    if len({graph.python_code("self").src for graph in graphs}) == 1 and not drawn:
        return net, graphs[0]
    whole = nn.Module()
    whole.net = _Watched(net, ends)
    graph = fx.Graph()
    graph.output(graph.call_module("net", (graph.placeholder("x"),)))
    return whole, graph


def _random_states() -> tuple:
    return torch.get_rng_state().numpy().tobytes(), random.getstate()


def _traced(net: nn.Module, ends: Sequence[str]) -> fx.Graph:
    tracer = _Coarse(ends)
    graph = tracer.trace(net)
    chosen = [tracer.outputs[end] for end in ends]
    end = next(iter(reversed(graph.nodes)))
    end.args, end.type = (chosen,), None  # it was the net's own
    past = True  # the last of them
    for node in reversed(graph.nodes):
        past = past and node not in chosen
        if not node.users and node.op not in ("placeholder", "output") and (past or not _works_in_place(node)):
            graph.erase_node(node)
    return graph


def _works_in_place(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else node.target.__name__
    return node.op != "call_module" and (name.endswith("_") or bool(node.kwargs.get("inplace")))


class _Watched(nn.Module):
    """A net as it is, from whose forward pass the outputs of the submodules `ends` are picked."""

    def __init__(self, net: nn.Module, ends: Sequence[str]):
        super().__init__()
        self.net, self.ends = net, ends

    def forward(self, x: Tensor) -> list[Tensor]:
        maps, mine = {}, get_ident()

        def keep(end: str):
            return lambda module, args, output: maps.__setitem__(end, output) if get_ident() == mine else None

        handles = [self.net.get_submodule(end).register_forward_hook(keep(end)) for end in self.ends]
        features = getattr(self.net, "forward_features", None)
        if features is None or self.net._forward_pre_hooks:
            features = self.net  # which may have but a forward, or a hook that changes the images
        elif isinstance(self.net, Net):
            x = self.net.check_images(x)
        try:
            features(x)
        finally:
            for handle in handles:
                handle.remove()
        if idle := [end for end in self.ends if end not in maps]:
            raise InputError(f"layer {idle[0]} takes no part in the net's answer; name another")
        return [maps[end] for end in self.ends]
