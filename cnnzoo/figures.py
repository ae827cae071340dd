"""Figures of matplotlib into files. A leaf."""

import io
from pathlib import Path

from cnnzoo import checkpoint
from cnnzoo.errors import InputError


def kind(out: str | Path) -> str:
    """The kind of picture that a file's suffix asks for. Raises InputError for one that matplotlib cannot write."""
    from matplotlib.backend_bases import FigureCanvasBase  # here, since matplotlib takes a while to import

    suffix, known = Path(out).suffix.lower().removeprefix("."), FigureCanvasBase.get_supported_filetypes()
    if suffix not in known:
        raise InputError(f"the picture is to be {out}, but its suffix must be one of {', '.join(sorted(known))}")
    return suffix


def plain(text: str) -> str:
    """A name as it is, whoever gave it: between two dollars matplotlib would read mathematics, and may fail to."""
    return text.replace("$", r"\$")


def save(figure, out: str | Path) -> None:
    """Write a matplotlib figure, whole or not at all. Raises InputError as `kind` does."""
    file = io.BytesIO()
    figure.savefig(file, format=kind(out))
    checkpoint.write(Path(out), file.getvalue())
