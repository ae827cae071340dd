"""Figures of matplotlib, and how they become files. A leaf."""

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cnnzoo import atomic
from cnnzoo.errors import InputError, expect, printable
from cnnzoo.paths import expanded

UNSEEN = {"pgf", "raw", "rgba"}  # what matplotlib writes for TeX, or with neither size nor depth


def check(out: str | Path) -> None:
    """Raises InputError unless `save` can write a picture of this ending here, so that one knows before any work."""
    from matplotlib.backend_bases import FigureCanvasBase  # here, since matplotlib takes a while to import

    expect(out, (str, os.PathLike), "the picture is to be a file")
    out, known = expanded(out), {*FigureCanvasBase.get_supported_filetypes()} - UNSEEN
    if _kind(out) not in known:
        raise InputError(f"the picture is to be {out}, but its suffix must be one of {', '.join(sorted(known))}")
    if out.is_dir():
        raise InputError(f"the picture is to be {out}, but that is a folder; name a file")
    atomic.check_writable(out)


def _kind(out: str | Path) -> str:
    return Path(out).suffix.lower().removeprefix(".")


def plain(text: str) -> str:
    """A name as it is, whoever gave it: between two dollars matplotlib would read mathematics, and may fail to."""
    return printable(text).replace("$", r"\$")


def width(line: str, size: float) -> float:
    """Inches that a line of text takes in letters of so many points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    with _any_letters():
        return text_to_path.get_text_width_height_descent(printable(line), FontProperties(size=size), False)[0] / 72


def curves(metrics: Sequence[dict]):
    """What a run's epochs reached, and at which rates, lines of metrics.jsonl, as a matplotlib Figure."""
    from matplotlib.figure import Figure

    epochs = [report["epoch"] for report in metrics]
    trained = [report for report in metrics if report["epoch"]]  # not what a probe's head knew before
    figure = Figure(figsize=(12 if trained else 9, 3.2), layout="constrained")
    left, right, *last = panels = figure.subplots(1, 3 if trained else 2)
    marker = "o" if len(epochs) < 3 else None  # a line needs two points
    left.plot(epochs, [report["train_loss"] for report in metrics], label="training", marker=marker)
    left.plot(epochs, [report["val_loss"] for report in metrics], label="validation", marker=marker)
    left.set(xlabel="epoch", ylabel="loss", yscale="log" if min(r["val_loss"] for r in metrics) > 0 else "linear")
    left.legend()
    right.plot(epochs, [100 * report["val_top1"] for report in metrics], marker=marker, color="tab:green")
    right.set(xlabel="epoch", ylabel="validation top-1, %")
    for axes in last:
        axes.plot([r["epoch"] for r in trained], [r["lr"] for r in trained], marker=marker, color="tab:grey")
        axes.set(xlabel="epoch", ylabel="learning rate at its end")
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)  # of one epoch, too
    return figure


def save(figure, out: str | Path) -> None:
    """Write a matplotlib figure, whole or not at all. Raises InputError as `check` does."""
    check(out)
    file = io.BytesIO()
    with _any_letters():
        figure.savefig(file, format=_kind(out))
    atomic.write(expanded(out), file.getvalue())


def png(figure) -> bytes:
    """A matplotlib figure as it lies in a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    file = io.BytesIO()
    figure.set_dpi(110)
    with _any_letters():
        FigureCanvasAgg(figure).print_png(file)  # savefig would draw it twice
    return file.getvalue()


@contextmanager
def _any_letters() -> Iterator[None]:
    """Letters that no font here has are drawn as boxes; matplotlib would warn of each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s)Glyph .* missing")  # also of a line's end
        yield
