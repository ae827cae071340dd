"""Architecture name -> builder, with the facts of the paper beside it. A leaf: it knows no net and no room."""

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields

from cnnzoo.errors import InputError, expect, near, unknown


@dataclass(frozen=True)
class Stage:
    """A stretch of a net between input and head."""

    name: str  # "stem", "stage1", …: the same words for every net
    modules: tuple[str, ...]  # its submodules in order; the last one's output is the stage's
    shape: tuple[int, ...]  # of that output, for one image of the entry's input size: (C, H, W), or (C,) once flat


@dataclass(frozen=True)
class Claim:
    """A figure that the paper states, as it states it."""

    what: str  # "parameters", "top-5 error, 10 crops", …
    figure: str  # "60 million", "18.2 %", …
    ours: str = ""  # our own measured figure, if any; what can be counted or looked up is


@dataclass(frozen=True)
class Entry:
    """What is known of an architecture. Every fact is proven by the tests, for every entry."""

    name: str
    build: Callable  # (**options) -> nn.Module
    paper: str = ""  # authors, title, where, arXiv id
    year: int | None = None
    input_size: tuple[int, int, int] = (3, 224, 224)  # (C, H, W) that the figures below are for
    num_classes: int = 1000
    params: int | None = None  # trainable, without those of auxiliary heads
    macs: int | None = None  # multiply-adds of convolutions and linear layers for one image, eval path
    stages: tuple[Stage, ...] = ()  # input to output; with the head they hold every parameter exactly once
    head: str = ""  # the submodule that maps features to classes
    aux: tuple[str, ...] = ()  # the auxiliary heads, where the net is built with them
    aux_params: int = 0  # trainable, of all auxiliary heads
    first_conv: str = ""  # the submodule that sees the image
    paper_names: Mapping[str, str] = field(default_factory=dict, hash=False)  # "conv5_3": "features.28", …
    min_size: int = 1  # the least height and width that works; 0: those of input_size alone
    loss: str = "cross_entropy"  # the paper's own, by its name in train/losses.py
    claims: tuple[Claim, ...] = ()  # what the paper states of this net
    differences: tuple[str, ...] = ()  # from the paper, numbered by their order
    notes: tuple[str, ...] = ()  # on figures that lectures give of this net, where they do not add up

    @property
    def layers(self) -> dict[str, str]:
        """Names of layers, and the submodule whose output is that layer's: of the stages, of the head, of the first
        convolution, and of what the paper calls otherwise.
        """
        paths = {stage.name: stage.modules[-1] for stage in self.stages}
        for name, path in {"head": self.head, "first_conv": self.first_conv, **self.paper_names}.items():
            if path:
                paths.setdefault(name, path)
        return paths

    def parameters(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Parameter names by stage, input to output, the head last.

        Auxiliary heads are "aux", and what nothing claims is "rest", both before the head.
        """
        owners = [(stage.name, module) for stage in self.stages for module in stage.modules]
        owners += [*(("aux", module) for module in self.aux), ("head", self.head)]
        groups: dict[str, list[str]] = {stage.name: [] for stage in self.stages} | {"rest": [], "aux": [], "head": []}
        for name in names:
            owner = next((owner for owner, module in owners if module and name.startswith(f"{module}.")), "rest")
            groups[owner].append(name)
        return {owner: own for owner, own in groups.items() if own}


_entries: dict[str, Entry] = {}


def register(name: str, **facts) -> Callable[[Callable], Callable]:
    """Decorator that makes `builder(**options) -> nn.Module` known as `name`; `facts` are fields of `Entry`.

    A subclass of `Net`, or a partial of one, need not repeat its head, auxiliary heads and least size.

    The same definition made anew, as by a cell of a notebook that is run twice, takes the place of the one before.
    Raises InputError for an unknown fact, and if another has the name, naming both modules.
    """
    known = [field.name for field in fields(Entry)[2:]]  # beside name and builder
    for fact in facts:
        if fact not in known:
            raise unknown(f"fact of {name}", fact, known)

    def decorator(builder: Callable) -> Callable:
        if name in _entries and not _is_anew(_entries[name].build, builder):
            first, second = home(_entries[name].build), home(builder)
            raise InputError(f"{name!r} is registered twice, in {first} and in {second}; give one of them another name")
        _entries[name] = Entry(name=name, build=builder, **{**_own_facts(builder), **facts})
        return builder

    return decorator


def unregister(name: str) -> None:
    """Forget `name`. Raises InputError for a name that is not known."""
    del _entries[lookup(name).name]


def lookup(name: str) -> Entry:
    """The entry called `name`. Raises InputError that offers the near names."""
    expect(name, str, "a net is named by a text such as resnet18")
    if name not in _entries:
        plain, _, tag = name.rpartition("/")[2].partition(".")  # hf-hub:timm/resnet18.a1_in1k
        if plain in _entries:
            raise InputError(f"unknown model {name!r}; its weights go with pretrained: {plain}, pretrained {tag}")
        if not near(name, _entries):
            own = "is known once its file is imported, or named by CNNZOO_NETS"
            raise InputError(
                f"unknown model {name!r}; there are {len(_entries)}, none like it, and one of your own {own}"
            )
        raise unknown("model", name, _entries)
    return _entries[name]


def names(pattern: str | Iterable[str] = "*") -> list[str]:
    """Known names that match the wildcard pattern, or one of several, in natural order: vgg11 before vgg16, resnet20
    before resnet110.
    """
    expect(pattern, Iterable, "a pattern is a text such as resnet*, or several")
    patterns = [pattern] if isinstance(pattern, str) else [*pattern]
    for each in patterns:
        expect(each, str, "a pattern is a text such as resnet*")
    return sorted({name for each in patterns for name in fnmatch.filter(_entries, each)}, key=_natural)


def home(builder: Callable) -> str:
    """The module that a builder stands in."""
    return _unwrapped(builder).__module__


def _is_anew(before: Callable, builder: Callable) -> bool:
    """Whether a definition was run again: in a notebook, whatever it is called by now, or by a module's reload."""
    old, new = _unwrapped(before), _unwrapped(builder)
    same = (old.__module__, old.__qualname__) == (new.__module__, new.__qualname__) and old is not new
    return same or old.__module__ == new.__module__ == "__main__"


def _own_facts(builder: Callable) -> dict:
    """The facts that a subclass of `Net` holds as class attributes."""
    kind = _unwrapped(builder)
    if not hasattr(kind, "head_name"):
        return {}
    aux = tuple(layer.partition(".")[0] for layer in kind.aux)  # of "aux1.fc2" the whole head
    return {"head": kind.head_name, "aux": aux, "min_size": kind.min_size}


def _unwrapped(builder: Callable) -> Callable:
    """The class or function of a partial."""
    return getattr(builder, "func", builder)


def _natural(name: str) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
