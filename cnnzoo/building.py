"""From an entry of the registry and its options to a net, of ours without values."""

import inspect
from numbers import Real
from typing import Any

import torch
from torch import nn

import cnnzoo.models  # noqa: F401  (registers every net)
from cnnzoo import registry
from cnnzoo.errors import InputError, at_least, quoted, unknown
from cnnzoo.habits import INSTEAD
from cnnzoo.models import _heads
from cnnzoo.own import look_over
from cnnzoo.registry import Entry

_OURS = {name: registry.lookup(name) for name in registry.names()}  # whose `init_layer` gives layers all values
_OF_ANY_NET = ("num_classes", "in_chans", "drop_rate", "drop_path_rate", "aux_logits")  # which leave features alone
_OWN = ("pretrained", "features_only", "out_indices")  # options that create handles itself, for any net


def build(entry: Entry, options: dict[str, Any]) -> nn.Module:
    """The net; one of ours still on the meta device, without values, since trained weights would make drawing them a
    waste of time. What a user's constructor makes may lie in values, and is left to it.

    Beside the builder's own options, `head` describes one that takes the place of the net's own, see models._heads.
    """
    options = dict(options)
    head = options.pop("head", None)
    for key, least in (("num_classes", 0), ("in_chans", 1)):
        at_least(key, options.get(key, 1), least)
    for key in ("drop_rate", "drop_path_rate"):
        value = options.get(key, 0)
        if not isinstance(value, Real) or not 0 <= value < 1:
            raise InputError(f"{key} is {value!r}, but must be a number of at least 0 and below 1")
    headless = options.get("num_classes") == 0
    if headless:
        del options["num_classes"]
    options = _taken(entry, options)
    arch = {key: value for key, value in options.items() if key not in _OF_ANY_NET}
    if _OURS.get(entry.name) is entry:
        try:
            with torch.device("meta"):
                net = entry.build(**options)
        except InputError:
            raise
        except Exception as error:  # what a layer says of sizes that it cannot have
            given = ", ".join(f"{key} {quoted(value)}" for key, value in arch.items())
            raise InputError(f"{entry.name} cannot be built with {given}: {error}") from error
    else:
        net = entry.build(**options)
        known = inspect.signature(entry.build).parameters
        for key, fact in (("num_classes", entry.num_classes), ("in_chans", entry.input_size[0])):
            if not hasattr(net, key):
                setattr(net, key, options.get(key, known[key].default if key in known else fact))
        entry = look_over(net, entry, bool(arch))
    net.entry, net.arch = entry, arch
    if headless:
        _behead(net)
    if head:
        net.set_submodule(entry.head, _heads.build(head, net.num_features))
    return net


def _fixed(entry: Entry) -> dict[str, int]:
    """The classes and channels that an entry states, of those that its builder cannot be told."""
    facts = {"num_classes": entry.num_classes, "in_chans": entry.input_size[0]}
    return {key: fact for key, fact in facts.items() if not _takes(entry, key)}


def _takes(entry: Entry, option: str) -> bool:
    known = inspect.signature(entry.build).parameters
    return option in known or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())


def only_channels(entry: Entry) -> int | None:
    """How many channels images must have; None where the builder can be told."""
    return _fixed(entry).get("in_chans")


def _taken(entry: Entry, options: dict[str, Any]) -> dict[str, Any]:
    """The options, once the builder is known to take them; without classes and channels that it need not be told."""
    fixed = _fixed(entry)
    for key, value in options.items():
        if key in fixed and value != fixed[key]:
            says = {"num_classes": "num_classes", "in_chans": "input_size"}[key]
            why = f"its builder has no argument {key}, and its {says} says {fixed[key]}"
            raise InputError(f"{entry.name} cannot have {key} {value}: {why}")
        if key not in fixed and not _takes(entry, key):
            if key in INSTEAD:
                raise InputError(f"unknown argument of {entry.name} {key!r}; here it is {INSTEAD[key]}")
            raise unknown(f"argument of {entry.name}", key, (*inspect.signature(entry.build).parameters, *_OWN))
    return {key: value for key, value in options.items() if key not in fixed}


def _behead(net: nn.Module) -> None:
    if hasattr(net, "reset_classifier"):
        net.reset_classifier(0)
    elif net.entry.head:
        net.set_submodule(net.entry.head, nn.Identity())
        net.num_classes = 0
    else:
        raise InputError(f"{net.entry.name} is registered without its head, so that cannot be taken off; name it there")


def materialise(net: nn.Module) -> None:
    """Give a first value to whatever of a net of ours no file gave one, on the default device."""
    device = torch.empty(0).device  # which torch.get_default_device does not tell within a `with` before torch 2.7
    if device.type == "meta":
        return
    for name, module in net.named_modules():
        own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        if any(tensor.is_meta for tensor in own):
            module.to_empty(device=device, recurse=False)
            net.init_layer(name, module)
