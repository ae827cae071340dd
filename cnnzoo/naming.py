"""What a net's outputs are called, and which of them the classes of a source are."""

import re
from collections.abc import Sequence

from torch import nn

from cnnzoo.errors import InputError


def class_names(net: nn.Module) -> tuple[str, ...] | None:
    """What a net's outputs are called; None where they have no names, or those of a head that it no longer has."""
    names = tuple(getattr(net, "classes", None) or ())
    return names if names and len(names) == net.num_classes else None


def output_names(net: nn.Module) -> tuple[str, ...]:
    """What a net's outputs are called, or their numbers where they have no names."""
    return class_names(net) or tuple(map(str, range(net.num_classes)))


def outputs_of(net: nn.Module, classes: Sequence[str], source: str) -> list[int]:
    """Which of a net's outputs belongs to each class of a source.

    Where a net knows ImageNet's thousand, classes may be called by their WordNet ids, as ImageNet's folders are.

    Raises InputError for classes that the net does not know.
    """
    known = class_names(net)
    if known is None:
        if net.num_classes != len(classes):
            outputs = f"{net.num_classes} outputs without names"
            raise InputError(f"{source} has {len(classes)} classes, but the net has {outputs}")
        return [*range(len(classes))]
    places = {name: place for place, name in reversed([*enumerate(known)])}
    if len(known) == 1000 and all(re.fullmatch(r"n\d{8}", name) for name in classes):
        from timm.data import ImageNetInfo

        places = {wordnet_id: place for place, wordnet_id in enumerate(ImageNetInfo().label_names())}
    if strangers := [name for name in classes if name not in places]:
        raise InputError(
            f"{source} has classes that the net does not know: {', '.join(strangers[:10])}; "
            f"it knows {', '.join(known[:10])}"
        )
    return [places[name] for name in classes]
