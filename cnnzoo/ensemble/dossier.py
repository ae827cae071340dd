"""What explains a committee, as a folder of tables and pictures.

diversity.json      everything
members.csv         accuracies with intervals, and costs; the committee last
pairs.csv           the measures of each two members
subcommittees.csv   accuracy and cost of some of the members
images.csv          what everybody says of the images that the committee rescues or loses
pairs.png  cost.png  rescued.png  lost.png (the last two where there are such images, and they can be read)
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from cnnzoo import atomic, figures, tables
from cnnzoo.ensemble.diversity import MEASURES, Diversity, Verdict
from cnnzoo.errors import InputError
from cnnzoo.paths import expanded
from cnnzoo.telling import Tell

SHOWN = 24  # images in a picture, at most
ACROSS = 6  # of them side by side

Look = Callable[[Sequence[str]], np.ndarray]  # names of B images to their pixels (B, H, W, C) uint8
Row = dict[str, object]


def check(folder: str | Path) -> None:
    """Raises InputError if there is something already: nothing is overwritten."""
    folder = expanded(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, so nothing can be written into it; choose a folder")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty, and nothing in it is to be overwritten; choose another folder")


def write(diversity: Diversity, folder: str | Path, look: Look, tell: Tell = print) -> None:
    """All tables and pictures; `tell` is given a line if `look` finds no images. Raises InputError as `check` does."""
    check(folder)
    folder, shown = expanded(folder), (diversity.rescued[:SHOWN], diversity.lost[:SHOWN])
    try:
        seen = look([verdict.image for verdicts in shown for verdict in verdicts]) if any(shown) else ()
    except InputError as error:  # all else is told by what the members said, and needs no images
        tell(f"no pictures of images that are rescued or lost: {error}")
        seen, shown = (), ((), ())
    atomic.write(folder / "diversity.json", json.dumps(diversity.to_dict(), indent=1).encode())
    said = dict.fromkeys(("image", "change", "truth", "committee", *_numbered(diversity.names)), str)
    for name, rows, columns in (
        ("members", _members, {"member": str, "top1": float, "low": float, "high": float, "multiply_adds": int}),
        ("pairs", _pairs, {"first": str, "second": str, **dict.fromkeys(MEASURES, float)}),
        ("subcommittees", _subcommittees, {"members": str, "multiply_adds": int, "top1": float, "unmatched": bool}),
        ("images", _images, said),
    ):
        tables.write(folder / f"{name}.csv", rows(diversity), columns)
    figures.save(draw_pairs(diversity), folder / "pairs.png")
    figures.save(draw_cost(diversity), folder / "cost.png")
    rescued = len(shown[0])
    for name, verdicts, pixels in zip(("rescued", "lost"), shown, (seen[:rescued], seen[rescued:]), strict=True):
        if verdicts:
            figures.save(draw_images(verdicts, pixels, diversity.names), folder / f"{name}.png")


# ---- tables


def _members(diversity: Diversity) -> Iterator[Row]:
    names = (*diversity.names, f"committee, {diversity.method}")
    top1, costs = (*diversity.top1, diversity.committee_top1), (*diversity.costs, sum(diversity.costs))
    intervals = (*diversity.intervals, diversity.committee_interval)
    for name, share, (low, high), cost in zip(names, top1, intervals, costs, strict=True):
        yield {"member": name, "top1": share, "low": low, "high": high, "multiply_adds": cost}


def _pairs(diversity: Diversity) -> Iterator[Row]:
    for a, b in combinations(range(len(diversity.names)), 2):
        values = {measure: float(getattr(diversity.pairs, measure)[a, b]) for measure in MEASURES}
        told = {measure: None if math.isnan(value) else value for measure, value in values.items()}
        yield {"first": diversity.names[a], "second": diversity.names[b], **told}


def _subcommittees(diversity: Diversity) -> Iterator[Row]:
    unmatched = set(diversity.front)
    for one in diversity.subcommittees:
        names = " + ".join(diversity.names[member] for member in one.members)
        yield {"members": names, "multiply_adds": one.cost, "top1": one.top1, "unmatched": one in unmatched}


def _images(diversity: Diversity) -> Iterator[Row]:
    for change in ("rescued", "lost"):
        for verdict in getattr(diversity, change):
            row = {"image": verdict.image, "change": change, "truth": verdict.truth, "committee": verdict.committee}
            yield row | dict(zip(_numbered(diversity.names), verdict.members, strict=True))


# ---- pictures


def draw_pairs(diversity: Diversity):
    """The measures of each two members as matrices, a panel for each measure."""
    from matplotlib.figure import Figure  # here and below, since matplotlib takes a while to import

    many = len(diversity.names)
    side = 3 + 0.45 * many
    figure = Figure((2 * side, 1.7 * side), dpi=110, layout="constrained")
    for axes, measure in zip(figure.subplots(2, 2).flat, MEASURES, strict=True):
        values = np.array(getattr(diversity.pairs, measure))
        np.fill_diagonal(values, np.nan)  # a member with itself says nothing
        signed = measure in ("q_statistic", "correlation")
        colours = {"cmap": "PuOr", "vmin": -1, "vmax": 1} if signed else {"cmap": "cividis", "vmin": 0}
        shown = axes.imshow(values, **colours)
        figure.colorbar(shown, ax=axes, shrink=0.7)
        axes.set_title(measure.replace("_", " "))
        axes.set_xticks(range(many), range(1, many + 1))
        axes.set_yticks(range(many), map(figures.plain, _numbered(_short(diversity.names))))
        for row, column in np.argwhere(~np.isnan(values)) if many <= 12 else ():
            box = {"facecolor": "white", "alpha": 0.6, "linewidth": 0, "pad": 1}
            text = {"ha": "center", "va": "center", "fontsize": 7, "bbox": box}
            axes.text(column, row, f"{values[row, column]:.3f}", **text)
    return figure


def draw_cost(diversity: Diversity):
    """Accuracy of sub-committees against their multiply-adds, with a line through those that none matches."""
    from matplotlib.figure import Figure

    figure = Figure((9, 6), dpi=110, layout="constrained")
    axes = figure.subplots()
    sizes = [len(one.members) for one in diversity.subcommittees]
    costs, top1 = (np.array([getattr(one, key) for one in diversity.subcommittees]) for key in ("cost", "top1"))
    dots = axes.scatter(costs, 100 * top1, c=sizes, cmap="cividis", s=18)
    front = diversity.front
    axes.step([one.cost for one in front], [100 * one.top1 for one in front], where="post", color="black", linewidth=1)
    for one in front:
        who = "+".join(str(member + 1) for member in one.members)
        axes.annotate(
            who, (one.cost, 100 * one.top1), xytext=(-3, 4), textcoords="offset points", ha="right", fontsize=8
        )
    axes.margins(0.08)
    axes.set(xlabel="multiply-adds for an image", ylabel="top-1 of the mean of probabilities, %")
    axes.grid(alpha=0.25)
    figure.colorbar(dots, ax=axes, label="members", ticks=sorted({*sizes}))
    names = "\n".join(map(figures.plain, _numbered(diversity.names)))
    axes.text(0.98, 0.03, names, transform=axes.transAxes, ha="right", va="bottom", fontsize=8)
    return figure


def draw_images(verdicts: Sequence[Verdict], pixels: np.ndarray, names: Sequence[str]):
    """Images with their names, what they are, and what committee and members say: in red what is wrong.

    Args:
        verdicts: of the images.
        pixels: of them, `(B, H, W, C)` uint8.
        names: of the members.
    """
    from matplotlib.figure import Figure

    across, lines = min(ACROSS, len(verdicts)), len(names) + 3
    width, height = 2.0, 2.1 + 0.125 * lines  # inches of a cell: the image above, the lines below
    down = -(-len(verdicts) // across)
    figure = Figure((width * across, height * down), dpi=110)
    for place, (verdict, image) in enumerate(zip(verdicts, pixels, strict=True)):
        row, column = divmod(place, across)
        left, bottom = (column + 0.05) / across, 1 - (row * height + 1.9) / (height * down)
        axes = figure.add_axes((left, bottom, 0.9 / across, 1.8 / (height * down)))
        axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
        axes.axis("off")
        said = [("committee", verdict.committee), *zip(_short(names), verdict.members, strict=True)]
        texts = [(Path(verdict.image).name, "black"), (f"is {verdict.truth}", "black")]
        texts += [(f"{who}: {word}", "black" if word == verdict.truth else "firebrick") for who, word in said]
        for line, (text, colour) in enumerate(texts, 1):
            below = {"xy": (0, 0), "xycoords": "axes fraction", "xytext": (0, -9 * line), "textcoords": "offset points"}
            axes.annotate(figures.plain(text[:34]), **below, fontsize=6.5, color=colour)
    return figure


def _numbered(names: Sequence[str]) -> list[str]:
    """What the tables call members, whatever their folders are called."""
    return [f"{number} {name}" for number, name in enumerate(names, 1)]


def _short(names: Sequence[str]) -> list[str]:
    """The last parts of paths, where these tell them apart."""
    ends = [Path(name).name for name in names]
    return ends if len(set(ends)) == len(ends) else list(names)
