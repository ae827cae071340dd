"""Nets side by side: accuracy against operations, with parameters as area, as in Figure 2 of Canziani, Paszke,
Culurciello: An Analysis of Deep Neural Network Models for Practical Applications, 2016, arXiv 1605.07678.
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from itertools import groupby
from pathlib import Path

from cnnzoo import figures, zoo
from cnnzoo.claims import JUDGED_ON, best
from cnnzoo.errors import InputError, expect
from cnnzoo.shown import Drawn, Table
from cnnzoo.summary import summary
from cnnzoo.weights.table import Weights, list_weights


@dataclass(frozen=True)
class Point:
    """A net with its best weights."""

    model: str
    tag: str  # of the weights
    top1: float  # accuracy in percent, as published
    top5: float | None
    size: int  # pixels of an image's side, at which accuracy and multiply-adds hold
    macs: int
    params: int
    year: int
    judged_on: str  # the images of the accuracies


@dataclass(frozen=True)
class NetComparison(Drawn):
    """Points, the most accurate first for each kind of images. `str()` is a table."""

    points: tuple[Point, ...]
    without: tuple[str, ...]  # nets that were asked for, and have no weights of known accuracy

    def _table(self) -> Table:
        rows = []
        for p in self.points:
            top5 = "" if p.top5 is None else f"{p.top5:.2f}"
            counts = (f"{p.macs:,}", f"{p.params:,}")
            rows.append((p.model, p.tag, f"{p.top1:.2f}", top5, str(p.size), *counts, str(p.year), p.judged_on))
        words = [field.name for field in fields(Point) if field.type is str]
        return Table([field.name for field in fields(Point)], rows, words)

    def figure(self):
        """Accuracy against multiply-adds, a panel for each kind of images: a matplotlib Figure."""
        return draw(self)

    def to_csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(field.name for field in fields(Point))
        writer.writerows(map(astuple, self.points))
        return text.getvalue()

    def to_dict(self) -> dict:
        return asdict(self)


def compare(names: str | Sequence[str] | None = None, out: str | Path | None = None) -> NetComparison:
    """Compare nets by the best weights that the weights table has for each, or by those that NET.TAG names. Part of
    what tells two nets apart is how they were trained; "*.tv_in1k" were so much alike, but for resnext101_64x4d's.

    Args:
        names: of nets, or NET.TAG, or wildcard patterns of either; None is every net that has weights.
        out: a file for the picture, its kind by its suffix (.png, .svg, .pdf …); None draws nothing.

    Raises:
        InputError: for a name that nobody knows, where no net has weights, or for a kind of picture nobody knows.
    """
    if out is not None:
        figures.check(out)
    asked = [names] if isinstance(names, str) else names or ()
    expect(asked, Iterable, "names are a text such as resnet*, or several")
    found = [pair for pattern in asked or ["*"] for pair in _matching(pattern)]
    points = [_point(row) for row in {(row.model, row.tag): row for _, row in found if row}.values()]
    without = tuple(dict.fromkeys(name for name, row in found if not row)) if asked else ()
    if not points:
        told = ", ".join(without)
        raise InputError(f"there are no weights of known accuracy for {told}; see cnnzoo list --pretrained")
    points.sort(key=lambda point: (point.judged_on != JUDGED_ON[1000], point.judged_on, -point.top1))
    comparison = NetComparison(tuple(points), without)
    if out is not None:
        figures.save(draw(comparison), out)
    return comparison


def _matching(pattern: str) -> list[tuple[str, Weights | None]]:
    """Nets with their best weights, or what matches NET.TAG."""
    name, dot, _ = pattern.partition(".") if isinstance(pattern, str) else (pattern, "", "")
    names = zoo.list_models(name) or [zoo.info(name).name]  # which says what is near
    if not dot:
        return [(name, best(name)) for name in names]
    return [(row.model, row) for row in list_weights(pattern) if row.top1 is not None] or [(pattern, None)]


def _point(row: Weights) -> Point:
    name = row.model
    entry = zoo.info(name)
    channels, side, _ = entry.input_size
    macs = entry.macs if row.size == side else summary(name, (channels, row.size, row.size)).total.macs
    judged_on = JUDGED_ON.get(entry.num_classes, f"{entry.num_classes} classes")
    return Point(name, row.tag, row.top1, row.top5, row.size, macs, entry.params, entry.year, judged_on)


# ---- the picture

LARGEST = 1700  # square points: the area of the dot with the most parameters
EDGE = {"edgecolors": "black", "linewidths": 0.6}


def draw(comparison: NetComparison):
    """The comparison as a figure, with a panel for each kind of images."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here, since matplotlib takes a while to import
    from matplotlib.figure import Figure

    panels = [tuple(points) for _, points in groupby(comparison.points, key=lambda point: point.judged_on)]
    years = [point.year for point in comparison.points]
    figure = Figure((11 * len(panels), 8), dpi=130, layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, points in zip(row, panels, strict=True):
        dots = _dots(axes, points, (min(years) - 0.5, max(years) + 0.5))
    figure.colorbar(dots, ax=list(row), label="year of the paper", ticks=sorted(set(years)), shrink=0.6)
    FigureCanvasAgg(figure).draw()  # gives every part its place
    figure.set_layout_engine("none")
    for axes, points in zip(row, panels, strict=True):
        _names(axes, points)
    return figure


def _dots(axes, points: Sequence[Point], years: tuple[float, float]):
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set(xscale="log", xlabel="multiply-adds for an image, G", ylabel=f"top-1 accuracy, %, {points[0].judged_on}")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.margins(0.12)
    x, y = zip(*map(_place, points), strict=True)
    most = max(point.params for point in points)
    first = 10 ** math.floor(math.log10(most))  # the legend's areas are of round numbers
    for params in (first / 10, first / 2, first):
        area = LARGEST * params / most
        axes.scatter([], [], area, color="lightgrey", label=f"{params / 1e6:g} M", **EDGE)
    axes.legend(title="parameters", loc="best", labelspacing=2, handletextpad=2, borderpad=1.2)
    # cividis is told apart by colour-blind readers, and in grey
    colour = {"c": [point.year for point in points], "cmap": "cividis", "vmin": years[0], "vmax": years[1]}
    return axes.scatter(x, y, [LARGEST * point.params / most for point in points], alpha=0.75, **colour, **EDGE)


def _place(point: Point) -> tuple[float, float]:
    return point.macs / 1e9, point.top1


Box = tuple[float, float, float, float]  # left, bottom, right, top in the picture's pixels


def _names(axes, points: Sequence[Point]) -> None:
    """Names where they cover each other least, with a line to the dot where they stand apart from it."""
    figure, most = axes.get_figure(), max(point.params for point in points)
    centres = axes.transData.transform([_place(point) for point in points])
    radii = [math.sqrt(LARGEST * point.params / most / math.pi) * figure.dpi / 72 for point in points]
    dots = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(centres, radii, strict=True)]
    frame, legend = axes.get_window_extent().padded(-5).extents, axes.get_legend().get_window_extent().extents
    many = Counter(point.model for point in points)
    labels = [point.model if many[point.model] == 1 else f"{point.model}.{point.tag}" for point in points]
    texts = [
        axes.text(*_place(point), label, fontsize=8, va="bottom") for point, label in zip(points, labels, strict=True)
    ]
    sizes = [(extent.width, extent.height) for extent in (text.get_window_extent() for text in texts)]
    boxes: list[Box] = dots.copy()

    def cost(place: int, box: Box, apart: float) -> float:
        others = [*boxes[:place], *boxes[place + 1 :]]
        names = sum(_shared(box, other) for other in (*others, legend))
        outside = (box[2] - box[0]) * (box[3] - box[1]) - _shared(box, frame)
        return 20 * names + 50 * outside + sum(_shared(box, dot) for dot in dots) + 3 * apart

    for _ in range(4):  # each finds its best place among the others' places, until they have settled
        for place, ((x, y), radius, size) in enumerate(zip(centres, radii, sizes, strict=True)):
            around = _around(x, y, radius, size)
            boxes[place], _ = min(around, key=lambda found, place=place: cost(place, *found))
    for (x, y), radius, text, (left, bottom, right, top) in zip(centres, radii, texts, boxes, strict=True):
        text.set_position(axes.transData.inverted().transform((left, bottom)))
        edge = (min(max(x, left), right), min(max(y, bottom), top))
        if math.dist((x, y), edge) > radius + 8:
            line = axes.transData.inverted().transform([(x, y), edge])
            axes.plot(*line.T, color="black", linewidth=0.5, alpha=0.6, scalex=False, scaley=False)


def _around(x: float, y: float, radius: float, size: tuple[float, float]) -> Iterator[tuple[Box, float]]:
    """Places for a box of this size around a dot, each with its distance from the dot."""
    width, height = size
    for apart in (2, 8, 16, 26, 40, 60):
        for turn in range(16):
            across, up = math.cos(turn * math.pi / 8), math.sin(turn * math.pi / 8)
            left = x + across * (radius + apart) + (across - 1) / 2 * width
            bottom = y + up * (radius + apart) + (up - 1) / 2 * height
            yield (left, bottom, left + width, bottom + height), apart


def _shared(one: Box, other: Box) -> float:
    """The area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)
