"""What a paper states of its net, beside what is so here."""

import re
from dataclasses import dataclass

from cnnzoo import zoo
from cnnzoo.registry import Claim, Entry
from cnnzoo.summary import summary
from cnnzoo.weights.table import Weights, list_weights

# What the accuracies in the weights table were measured on, by the number of the net's own classes.
JUDGED_ON = {1000: "ILSVRC 2012 validation", 10: "CIFAR-10"}


@dataclass(frozen=True)
class Beside:
    """A claim and our figure for it."""

    what: str
    figure: str  # the paper's
    ours: str  # "not run" where there is none


def beside(name: str) -> tuple[Beside, ...]:
    """The claims of a net's paper. An error or accuracy stands beside that of the best weights that people have."""
    entry = zoo.info(name)
    return tuple(Beside(claim.what, claim.figure, _ours(claim, entry)) for claim in entry.claims)


def best(name: str, figure: str = "top1") -> Weights | None:
    """The most accurate weights of a net whose `figure` (top1 or top5) is known."""
    return next((row for row in list_weights(name) if getattr(row, figure) is not None), None)


def _ours(claim: Claim, entry: Entry) -> str:
    what = claim.what
    if what.startswith("parameters"):
        return f"{entry.params:,}"
    if what.startswith("multiply-adds"):
        return f"{entry.macs:,}"
    if what.startswith("neurons"):  # the outputs of convolutions and fully connected layers
        return f"{sum(row.activations for row in summary(entry.name).rows if row.macs):,}"
    if ("error" in what or "accuracy" in what) and _is_of_one_net_on(JUDGED_ON.get(entry.num_classes), what):
        figure = "top5" if what.startswith("top-5") else "top1"
        if row := best(entry.name, figure):
            ours = getattr(row, figure) if "accuracy" in what else 100 - getattr(row, figure)
            return f"{ours:.2f} %, {row.tag}" + (", one crop" if entry.num_classes == 1000 else "")
    return "not run"


def _is_of_one_net_on(judged_on: str | None, what: str) -> bool:
    return bool(judged_on and re.search(rf"{judged_on}\b", what) and not re.search(r"\d+ nets", what))
