"""Rows of trained weights, outside the models: table.csv, read.

`published` has written what torchvision and timm know of theirs; the other rows are for files that neither knows.
"""

import csv
import fnmatch
import os
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

import cnnzoo.models  # noqa: F401  (registers every net)
from cnnzoo import registry
from cnnzoo.errors import InputError, expect
from cnnzoo.habits import BEST, TAGS
from cnnzoo.shown import Shown, Table

HERE = files("cnnzoo.weights")


@dataclass(frozen=True)
class Weights(Shown):
    """One file of trained weights."""

    model: str  # the architecture's name in the registry
    tag: str  # as timm says it; tv_in1k and tv2_in1k are torchvision's first and second ImageNet weights
    file: str  # the file's name, in torch hub's folder or wherever else it lies
    url: str | None  # where that file is; None: only in the hub's repository, or nowhere
    hub: str | None  # a Hugging Face repository that holds the same weights
    sha256: str  # the beginning of the file's SHA-256, or the whole; "" where it is not known
    mib: float | None  # its size
    licence: str  # as SPDX writes it; "unknown" where its publisher does not say
    top1: float | None  # accuracy in percent, one crop, as published: ImageNet's validation, else what `note` says
    top5: float | None
    size: int  # pixels of a side, at which those hold
    preprocess: dict  # of data.preprocess.Preprocess
    num_classes: int
    classes: tuple[str, ...] = field(repr=False)  # their names, where they are known
    note: str = ""
    bgr: bool = False  # the net was trained on images whose first channel is blue
    lacks: str = ""  # the module whose tensors in the file are no numbers

    def __str__(self) -> str:
        figures = [f"top-1 {self.top1:.2f} at {self.size}"] if self.top1 else []
        size = [f"{self.mib:.1f} MiB"] if self.mib else []
        return f"{self.model}.{self.tag}: {', '.join([*figures, *size, self.licence, *filter(None, [self.note])])}"

    @property
    def free(self) -> bool:
        """Not for non-commercial use only."""
        return "-nc" not in self.licence


class Rows(Shown, list):
    """A list of Weights, of which a person sees a table: accuracy in percent, and whether the file is here."""

    def _table(self) -> Table:
        from cnnzoo.weights import fetch  # here, since it looks rows up

        lines = []
        for row in self:
            figures = (f"{figure:.2f}" if figure else "-" for figure in (row.top1, row.top5))
            mib = f"{row.mib:.1f}" if row.mib else "-"
            here = "here" if fetch.find(row) else ""
            lines.append((row.model, row.tag, *figures, str(row.size), mib, row.licence, here, row.note))
        heads = ("net", "tag", "top-1", "top-5", "at", "MiB", "licence", "", "note")
        return Table(heads, lines, ("net", "tag", "licence", "", "note"))


def rows(model: str) -> tuple[Weights, ...]:
    """All weights for a net, the most accurate first; those for non-commercial use only come last.

    A user's own net has none, whatever its name.
    """
    ours = registry.home(registry.lookup(model).build).startswith("cnnzoo.models.")
    return _rows(model) if ours else ()


def row(model: str, tag: str | None = None) -> Weights:
    """The row of a tag, or the best that `CNNZOO_EXCLUDE_LICENCES` leaves.

    Weights for non-commercial use only are never the best: they must be asked for by their tag.

    Raises InputError that lists the tags, or names the licence that is excluded.
    """
    all_ = rows(model)
    if tag is not None:
        chosen = next((row for row in all_ if row.tag == tag), None)
        if chosen is None:
            tags = [row.tag for row in all_]
            known = f"its tags are {', '.join(tags)}" if all_ else "the weights table has none for it"
            known = f"here it is {TAGS[tag]}" if TAGS.get(tag) in tags else known
            known = f"True takes the best known; {known}" if tag in BEST and all_ else known
            raise InputError(f"{model} has no weights {tag!r}, nor is that a file or a run folder; {known}")
        refuse_excluded(chosen)
        return chosen
    for candidate in all_:
        if candidate.free and not excluded(candidate):
            return candidate
    if not all_:
        raise InputError(f"the weights table has none for {model}; name a file of trained weights")
    why = ", ".join(f"{row.tag}: {row.licence}" for row in all_)
    raise InputError(f"{model} has only weights whose licence is excluded or not for every use ({why}); name a tag")


def excluded(row: Weights) -> bool:
    """Whether $CNNZOO_EXCLUDE_LICENCES (wildcard patterns between commas, as "cc-by-nc*,unknown") names its licence."""
    patterns = os.environ.get("CNNZOO_EXCLUDE_LICENCES", "").lower().replace(",", " ").split()
    return any(fnmatch.fnmatchcase(row.licence, pattern) for pattern in patterns)


def refuse_excluded(row: Weights) -> None:
    """Raises InputError for a row whose licence the user excludes."""
    if excluded(row):
        raise InputError(f"{row.model} {row.tag} is under {row.licence}, which CNNZOO_EXCLUDE_LICENCES excludes")


def list_weights(pattern: str = "*") -> list[Weights]:
    """The rows of every net that matches the wildcard pattern, or NAME.TAG of two patterns, as "resnet50.a1*".

    Raises InputError for a pattern that is no text.
    """
    expect(pattern, str, "a pattern is a text such as resnet50.a1*")
    name, dot, tag = pattern.partition(".")
    return Rows(
        row for model in registry.names(name) for row in rows(model) if not dot or fnmatch.fnmatch(row.tag, tag)
    )


@cache
def _rows(model: str) -> tuple[Weights, ...]:
    return tuple(sorted(_table().get(model, ()), key=lambda row: (not row.free, -(row.top1 or 0))))


@cache
def _table() -> dict[str, list[Weights]]:
    found = defaultdict(list)
    with (HERE / "table.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            found[line["model"]].append(_read(line))
    return dict(found)


def _read(line: dict[str, str]) -> Weights:
    preprocess = {
        "size": int(line["size"]),
        "resize": int(line["resize"]),
        "mean": tuple(map(float, line["mean"].split())),
        "std": tuple(map(float, line["std"].split())),
        "interpolation": line["interpolation"],
        "squash": bool(line["squash"]),
    }
    return Weights(
        *(line[name] for name in ("model", "tag", "file")),
        *(line[name] or None for name in ("url", "hub")),
        line["sha256"],
        float(line["mib"]) if line["mib"] else None,
        line["licence"],
        *(float(line[name]) if line[name] else None for name in ("top1", "top5")),
        preprocess["size"],
        preprocess,
        int(line["num_classes"]),
        class_names(line["classes"]),
        line["note"],
        bool(line["bgr"]),
        line["lacks"],
    )


@cache
def class_names(of: str) -> tuple[str, ...]:
    """Those of a data set, in the order of a net's outputs; none for ""."""
    return tuple((HERE / f"{of}_classes.txt").read_text(encoding="utf-8").splitlines()) if of else ()
