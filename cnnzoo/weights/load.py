"""One loader for any file of weights: unwrap, rename, fit to the net, report."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from cnnzoo.errors import InputError
from cnnzoo.registry import Entry
from cnnzoo.shown import Shown
from cnnzoo.weights.layouts import RULES, State

# What training scripts put a state dict into: averaged weights before plain ones, since they are the better.
_WRAPPERS = (
    *("state_dict_ema", "model_ema", "ema", "params_ema"),
    *("state_dict", "model", "model_state_dict", "net", "weights", "params"),
)
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
_HEADS = ("fc", "linear", "classifier", "head", "last_linear", "head.fc", "classif", "output")  # as files call it


@dataclass(frozen=True)
class LoadReport(Shown):
    """What became of a file's tensors, by the net's own names."""

    loaded: tuple[str, ...]  # as they were, but perhaps for a name
    renamed: tuple[tuple[str, str], ...]  # the file's name (without wrappers) and ours
    reshaped: tuple[str, ...]  # the same numbers in another shape
    adapted: tuple[str, ...]  # the convolutions that see the image, to another number of channels
    initialised: tuple[str, ...]  # head and auxiliary heads that the file lacks, or has for other classes
    unused: tuple[str, ...]  # the file's head and auxiliary heads where the net has none, and what lies beside the net

    def __str__(self) -> str:
        """In one line."""
        text = f"{len(self.loaded)} tensors loaded"
        if self.renamed:
            text += f", {len(self.renamed)} renamed"
        if self.reshaped:
            text += f", {', '.join(self.reshaped)} reshaped"
        if self.adapted:
            text += f", {', '.join(self.adapted)} adapted to the number of channels"
        if self.initialised:
            text += f", {', '.join(_modules(self.initialised))} left at random"
        if self.unused:
            text += f", {', '.join(_modules(self.unused))} of the file not used"
        return text


def unwrap(content: object, source: object) -> dict[str, Tensor]:
    """The state dict inside a checkpoint. Raises InputError if there is none."""
    if (state := _state_in(content)) is None:
        raise InputError(f"{source} holds no state dict, or several that may be meant; save the net's alone")
    return state


def _state_in(content: object) -> dict[str, Tensor] | None:
    """What lies under the first wrapper's name that has a state dict, or is one."""
    if not isinstance(content, Mapping):
        return None
    if found := next(filter(None, (_state_in(content.get(wrapper)) for wrapper in _WRAPPERS)), None):
        return found
    if state := _tensors(content):
        return state
    others = [*filter(None, map(_tensors, content.values()))]  # under a name of the script's own
    return others[0] if len(others) == 1 else None


def _tensors(content: object) -> dict[str, Tensor] | None:
    """What is nothing but named tensors."""
    if not isinstance(content, Mapping):
        return None
    state = {name: tensor for name, tensor in content.items() if name != "n_averaged"}  # torch's AveragedModel counts
    named = all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    return state if state and named else None


def beside_the_net(state: Mapping[str, Tensor], entry: Entry, own: Sequence[str]) -> list[str]:
    """The names of tensors that are other modules', such as a loss's, in a file of a module that holds the net, too.

    `own` are the names in the net's state dict. None are given unless all of the net, its heads aside, lies under one
    prefix.
    """
    heads = tuple(f"{head}." for head in (entry.head, *entry.aux) if head)
    body = [name for name in own if not name.startswith(heads) and not name.endswith("num_batches_tracked")]
    starts = [name.removesuffix(body[0]) for name in state if name.endswith(f".{body[0]}")] if body else []
    starts = [start for start in starts if all(f"{start}{name}" in state for name in body)]
    if len(starts) != 1:
        return []
    around = (starts[0], *heads, *(f"{head}." for head in _HEADS))  # a head may be elsewhere
    return [name for name in state if not name.startswith(around)]


def to_our_names(state: Mapping[str, Tensor], entry: Entry, own: Sequence[str]) -> dict[str, tuple[str, Tensor]]:
    """Our name of each tensor: the file's name, without the prefixes of wrappers, and the tensor.

    `own` are the names in the net's state dict.
    """
    own = set(own)
    shared = _shared(list(state), own)
    stripped = {_strip(name.removeprefix(shared), own): tensor for name, tensor in state.items()}
    state = stripped if len(stripped) == len(state) else dict(state)  # or two names have become one
    theirs = list(state)
    for rule in RULES:
        if not own >= state.keys() and (renamed := rule(state)) is not None:
            state = renamed
    if entry.head and f"{entry.head}.weight" not in state:
        called = "|".join(map(re.escape, (entry.head, *_HEADS)))  # or within nn.Sequential(Dropout, Linear), "fc.1"
        weights = [name for name in state if re.fullmatch(rf"({called})(\.\d+)?\.weight", name) and name not in own]
        if len(weights) == 1:
            head = weights[0].removesuffix("weight")
            state = {re.sub(rf"^{re.escape(head)}", f"{entry.head}.", name): t for name, t in state.items()}
    return {ours: (name, tensor) for name, (ours, tensor) in zip(theirs, state.items(), strict=True)}


def _shared(names: Sequence[str], own: set[str]) -> str:
    """What stands before the net's own names in all of a file's: what a module of the user's calls the net, as net."""
    for dot in re.finditer(r"^|\.", names[0]):
        start = names[0][: dot.end()]
        if all(name.startswith(start) for name in names) and any(name.removeprefix(start) in own for name in names):
            return start
    return ""


def _strip(name: str, own: set[str]) -> str:
    while name not in own and (prefix := next((p for p in _PREFIXES if name.startswith(p)), None)):
        name = name.removeprefix(prefix)
    return name


def sizes(state: Mapping[str, tuple[str, Tensor]], entry: Entry) -> dict[str, int]:
    """The number of classes and channels that a file's weights are for, where they show it."""
    found = {}
    head, first = (state.get(f"{module}.weight") for module in (entry.head, entry.first_conv))
    if head is not None:
        found["num_classes"] = head[1].shape[0]
    if first is not None and first[1].ndim == 4:
        found["in_chans"] = first[1].shape[1]
    return found


def load_into(
    net: nn.Module,
    entry: Entry,
    state: Mapping[str, tuple[str, Tensor]],
    source: object,
    bgr: bool = False,
    lacks: str = "",
) -> LoadReport:
    """Put a file's tensors, as `to_our_names` gives them, into a net, without copying those that fit, unless the net
    has parameters in several places.

    The head and auxiliary heads may be missing or of other classes, the first convolution of other channels; all else
    must match. With `bgr` the file's first convolution wants blue first; of the module that it `lacks` nothing is
    taken. What gets no value keeps the one it has.

    Raises InputError that shows both sides, sorted, where they do not match.
    """
    if lazy := [name for name, parameter in net.named_parameters() if is_lazy(parameter)]:
        raise InputError(f"{entry.name} does not know the size of {', '.join(lazy)} before it has seen an image")
    own = net.state_dict()
    theirs = {name: file_name for name, (file_name, _) in state.items()}
    tensors = {n: tensor for n, (_, tensor) in state.items() if not (lacks and n.startswith(f"{lacks}."))}
    heads = tuple(f"{head}." for head in (entry.head, *entry.aux, lacks) if head)
    first = f"{entry.first_conv}.weight"
    if bgr and first in tensors:
        tensors[first] = tensors[first].flip(1)

    unused = [name for name in tensors if name not in own and name.startswith(heads)]
    for name in unused:
        del tensors[name]
    reshaped = _reshape(tensors, own)
    adapted = _adapt(tensors, own, first)
    for name in own:
        if name.endswith("num_batches_tracked") and name not in tensors:  # files from before PyTorch 0.4.1 lack them
            tensors[name] = torch.zeros((), dtype=torch.int64)
    initialised = _without_value(tensors, own, heads)
    for name in initialised:
        tensors.pop(name, None)
    _refuse_mismatch(own, tensors, initialised, theirs, f"{source} does not hold weights of {entry.name}")
    _put_into(net, tensors, own)
    changed = {*adapted, *reshaped, *initialised}
    return LoadReport(
        tuple(name for name in own if name not in changed),
        tuple((theirs[name], name) for name in own if theirs.get(name, name) != name and name not in initialised),
        tuple(reshaped),
        tuple(adapted),
        tuple(initialised),
        tuple(theirs[name] for name in unused),
    )


def _misshapen(tensors: State, own: State) -> list[str]:
    return [name for name, tensor in tensors.items() if name in own and tensor.shape != own[name].shape]


def _reshape(tensors: State, own: State) -> list[str]:
    """Give tensors that hold as many numbers as ours our shape; returns their names."""
    found = [name for name in _misshapen(tensors, own) if _holds_as_many(tensors[name], own[name])]
    for name in found:
        tensors[name] = tensors[name].reshape(own[name].shape)
    return found


def _holds_as_many(tensor: Tensor, own: Tensor) -> bool:
    return tensor.numel() == own.numel() and tensor.shape[:1] == own.shape[:1]


def _adapt(tensors: State, own: State, first: str) -> list[str]:
    """Give the kernels that see the image our number of channels; returns their names."""
    if first not in tensors or first not in own:
        return []
    channels = tensors[first], own[first]
    found = [name for name in _misshapen(tensors, own) if _sees_image(tensors[name], own[name], *channels)]
    for name in found:
        tensors[name] = adapt_channels(tensors[name], own[name].shape[1])
    return found


def _sees_image(kernel: Tensor, own: Tensor, first: Tensor, own_first: Tensor) -> bool:
    """Whether two kernels differ in nothing but the image's channels, as the first convolution's do.

    Nets of several columns, such as FractalNet, have several of them.
    """
    if kernel.ndim != 4 or own.ndim != 4 or first.ndim != 4:
        return False
    channels = (kernel.shape[1], own.shape[1]) == (first.shape[1], own_first.shape[1])
    return channels and kernel[:, :1].shape == own[:, :1].shape


def _without_value(tensors: State, own: State, heads: tuple[str, ...]) -> list[str]:
    """What stays at random: of heads the layers that the file lacks, or has in another shape, whole."""
    fits = {name for name, tensor in tensors.items() if name in own and tensor.shape == own[name].shape}
    anew = {name.rpartition(".")[0] for name in own if name.startswith(heads) and name not in fits}
    return [name for name in own if name.rpartition(".")[0] in anew]


def _put_into(net: nn.Module, tensors: State, own: State) -> None:
    """Without a copy of what fits already, unless parameters are in several places."""
    device = torch.empty(0).device  # also within `with torch.device(…)`, before torch 2.7
    tensors = {name: tensor.to(device, own[name].dtype) for name, tensor in tensors.items()}
    tied = len([*net.named_parameters(remove_duplicate=False)]) > len([*net.parameters()])  # which copies alone stay
    net.load_state_dict(tensors, strict=False, assign=not tied)


def _refuse_mismatch(
    own: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    initialised: Sequence[str],
    theirs: Mapping[str, str],
    complaint: str,
) -> None:
    wrong = (own.keys() ^ tensors.keys()) - {*initialised}
    wrong |= {name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape}
    if wrong:
        wanted = [f"- {name} {tuple(own[name].shape)}" for name in sorted(wrong) if name in own]
        given = [f"+ {theirs.get(n, n)} {tuple(tensors[n].shape)}" for n in sorted(wrong) if n in tensors]
        shown = wanted[:4] + given[:4]
        more = len(wanted) + len(given) - len(shown)
        raise InputError(
            f"{complaint} (- wanted, + in the file): {', '.join(shown)}{f' and {more} more' if more else ''}"
        )


def adapt_channels(kernel: Tensor, channels: int) -> Tensor:
    """`(O, C, k, k)` to `(O, channels, k, k)`: summed for one channel, else repeated and scaled to the same overall
    strength.
    """
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    given = kernel.shape[1]
    return kernel.repeat(1, -(-channels // given), 1, 1)[:, :channels] * (given / channels)


def _modules(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[0] for name in names))
