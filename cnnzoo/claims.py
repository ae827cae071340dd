"""What a paper states of its net, beside what is so here; and all that is known of a net, on a page."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from torch import nn

from cnnzoo import zoo
from cnnzoo.checkpoint import Run
from cnnzoo.errors import counted, dimensions
from cnnzoo.registry import Claim, Entry
from cnnzoo.shown import Shown
from cnnzoo.summary import summary
from cnnzoo.weights.table import Weights, list_weights

# What the accuracies in the weights table were measured on, by the number of the net's own classes.
JUDGED_ON = {1000: "ILSVRC 2012 validation", 10: "CIFAR-10"}

# Weights by training recipes that are years younger than the papers (several times the epochs, stronger augmentation):
# torchvision's second, "ResNet strikes back" (arXiv 2110.00476), and later ones of timm's.
LATER = ("*.tv2_in1k", "*.a1_in1k", "*.a1h_in1k", "*.ra4_e3600_r224_in1k", "resnext101_64x4d.tv_in1k")


@dataclass(frozen=True)
class Beside:
    """A claim and our figure for it."""

    what: str
    figure: str  # the paper's
    ours: str  # "not run" where there is none


@dataclass(frozen=True)
class Page(Shown, Entry):
    """An entry that prints as a page, the paper's figures beside ours."""

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield self.name
        if self.paper:
            yield f"  paper       {self.paper}"
        least = f"at least {self.min_size}x{self.min_size}" if self.min_size else "no other"
        yield f"  input       {dimensions(self.input_size)}, {least}; {self.num_classes:,} classes"
        for what, figure in (("parameters", self.params), ("mult-adds", self.macs)):
            if figure is not None:
                yield f"  {what:<10}  {figure:,}"
        if self.aux:
            heads = f"{counted(len(self.aux), 'auxiliary head')}, {', '.join(self.aux)}"
            yield f"  in training {self.aux_params:,} parameters more: {heads}"
        for stage in self.stages:
            ends = dict.fromkeys((stage.modules[0], stage.modules[-1]))
            yield f"  {stage.name:<10}  {dimensions(stage.shape):<12}  {' … '.join(ends)}"
        if self.head:
            yield f"  {'head':<10}  {self.num_classes:<12}  {self.head}"
        if self.claims:
            figures = ((claim.what, claim.figure, _ours(claim, self)) for claim in self.claims)
            table = [("the paper's figures", "paper", "here"), *figures]
            what_width, figure_width = (max(map(len, column)) for column in list(zip(*table, strict=True))[:2])
            yield from (f"  {what:<{what_width}}  {figure:<{figure_width}}  {ours}" for what, figure, ours in table)
        if self.paper:
            yield f"  differences from the paper:{'' if self.differences else ' none known'}"
        yield from (f"    {number}. {difference}" for number, difference in enumerate(self.differences, start=1))
        yield from (f"  note: {note}" for note in self.notes)


def info(name: nn.Module | str | Path | Run) -> Page:
    """What is known of an architecture: paper, year, parameters, multiply-adds, stages, differences from the paper;
    `str()` is a page. `name` is a net's, or a net, or a run, its folder or model.safetensors, for the run's net.

    Raises InputError for an unknown name, offering the near ones.
    """
    return Page(**vars(zoo.info(name)))


def beside(name: str | Path | Run) -> tuple[Beside, ...]:
    """The claims of a net's paper. An error or accuracy stands beside that of the best weights that people have."""
    entry = zoo.info(name)
    return tuple(Beside(claim.what, claim.figure, _ours(claim, entry)) for claim in entry.claims)


def best(name: str, figure: str = "top1") -> Weights | None:
    """The most accurate weights of a net whose `figure` (top1 or top5) is known."""
    return next((row for row in list_weights(name) if getattr(row, figure) is not None), None)


def _ours(claim: Claim, entry: Entry) -> str:
    if claim.ours:
        return claim.ours
    what = claim.what
    for word, figure in (("parameters", entry.params), ("multiply-adds", entry.macs)):
        if what.startswith(word):
            return "not run" if figure is None else f"{figure:,}"
    if what.startswith("neurons"):  # the outputs of convolutions and fully connected layers
        return f"{sum(row.activations for row in summary(entry.name).rows if row.macs):,}"
    if ("error" in what or "accuracy" in what) and _is_of_one_net_on(JUDGED_ON.get(entry.num_classes), what):
        figure = "top5" if what.startswith("top-5") else "top1"
        if row := best(entry.name, figure):
            told = f"{_as_in(what, row, figure)}, {row.tag}" + (", one crop" if entry.num_classes == 1000 else "")
            return told + _by_which_recipe(what, row, figure)
    return "not run"


def _as_in(what: str, row: Weights, figure: str) -> str:
    """The accuracy of weights as the claim has it."""
    top = getattr(row, figure)
    return f"{top if 'accuracy' in what else 100 - top:.2f} %"


def _by_which_recipe(what: str, row: Weights, figure: str) -> str:
    """A clause where it is not the net alone that makes the difference to the paper's figure."""
    if not any(fnmatchcase(f"{row.model}.{row.tag}", pattern) for pattern in LATER):
        return ""
    older = [each for each in list_weights(f"{row.model}.tv_in1k") if each != row and getattr(each, figure) is not None]
    beside = "".join(f" ({each.tag}: {_as_in(what, each, figure)})" for each in older)
    return f", by a later training recipe{beside}"


def _is_of_one_net_on(judged_on: str | None, what: str) -> bool:
    return bool(judged_on and re.search(rf"{judged_on}\b", what) and not re.search(r"\d+ nets", what))
