"""What this room draws with: arrays into grids, maps over images, pages of both."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cnnzoo import figures
from cnnzoo.errors import counted
from cnnzoo.shown import Drawn

LETTERS = 11  # pixels that a label is high
MARGIN = 0.1  # inches between the titles of two pictures beside each other
STRENGTH = 0.5  # of a map over an image
FULL = 99  # percentile of a map's values from which on the colour is full: the few largest would leave the rest dark
DRAWN = 24  # images on a page, at most


class Result(Drawn):
    """What every function of this room gives. `str` of it is one line: what was drawn, of which layer and class."""

    def save(self, file: str | Path) -> None:
        """Draw it into a file, whole or not at all. Raises InputError for an ending that is no picture's."""
        figures.check(file)
        figures.save(self.figure(), file)


def some(many: int, thing: str) -> str:
    """How many things there are, and which of them are on the page, where not all are."""
    return f"the first {DRAWN} of {counted(many, thing)}" if many > DRAWN else counted(many, thing)


def brief(number: float) -> str:
    """A number in three digits, or from 1,000 on in whole ones, without a power of ten."""
    return f"{number:,.0f}" if abs(number) >= 999.5 else f"{number:.3g}"


def scaled(array: np.ndarray) -> np.ndarray:
    """Any numbers to float32 in 0..1: 0 becomes 0.5, and what lies farthest from it 0 or 1."""
    array = np.asarray(array, np.float32)
    top = np.abs(array).max(initial=0) or np.float32(1)
    return (array + top) / (2 * top)


def grid(
    images: np.ndarray, columns: int | None = None, labels: Sequence[str] | None = None, padding: int = 1
) -> np.ndarray:
    """Images `(N, H, W, C)` or `(N, H, W)`, floats in 0..1 or uint8, beside and below each other: uint8 `(h, w, 3)`.

    By default as many columns as rows. White lines of `padding` pixels part them; a label stands above its image, cut
    to its width.
    """
    images = [colour(image) for image in images]
    columns = columns or math.ceil(math.sqrt(len(images)))
    height, width, _ = images[0].shape
    above = LETTERS + 3 if labels is not None else 0
    down, across = height + above + padding, width + padding
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * across + padding, rows * down + padding), "white")
    for place, image in enumerate(images):
        top, left = padding + place // columns * down, padding + place % columns * across
        if labels is not None:
            sheet.paste(_label(labels[place], width, above), (left, top))
        sheet.paste(Image.fromarray(image), (left, top + above))
    return np.asarray(sheet)


def _label(text: str, width: int, height: int) -> Image.Image:
    strip = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(strip).text((0, 0), text, fill="black", font=ImageFont.load_default(LETTERS))
    return strip


def colour(image: np.ndarray) -> np.ndarray:
    """`(H, W)` or `(H, W, C)`, floats in 0..1 or uint8, to uint8 `(H, W, 3)`.

    One channel is grey, two or more than three show their mean.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8:
        image = (image.clip(0, 1) * 255).round().astype(np.uint8)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape[2] not in (1, 3):
        image = image.mean(2, keepdims=True).round().astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def enlarged(image: np.ndarray, least: int) -> np.ndarray:
    """A small uint8 image by a whole factor, so that its shorter side has at least `least` pixels, each a square."""
    factor = math.ceil(least / min(image.shape[:2]))
    return image.repeat(factor, 0).repeat(factor, 1) if factor > 1 else image


def tinted(values: np.ndarray) -> np.ndarray:
    """Numbers `(H, W)` as colours, uint8 `(H, W, 3)`: from blue through white to red where some are negative, with 0
    white; else from dark to bright, with 0 dark. The largest in size has the full colour.
    """
    from matplotlib import colormaps

    values = np.asarray(values, np.float32)
    top = np.abs(values).max(initial=0) or 1
    shares = (values / top + 1) / 2 if values.min(initial=0) < 0 else values / top
    name = "RdBu_r" if values.min(initial=0) < 0 else "inferno"
    return (colormaps[name](shares)[..., :3] * 255).round().astype(np.uint8)


def heat(pixels: np.ndarray, map: np.ndarray) -> np.ndarray:
    """A map `(h, w)`, of any size, laid over an image `(H, W)` or `(H, W, C)`: uint8 `(H, W, 3)`, coloured as `tinted`
    says.
    """
    pixels = colour(pixels)
    height, width, _ = pixels.shape
    map = Image.fromarray(np.asarray(map, np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    over = tinted(np.asarray(map))
    return (pixels * (1 - STRENGTH) + over * STRENGTH).round().astype(np.uint8)


def capped(values: np.ndarray) -> np.ndarray:
    """A map for the eye (Smilkov et al. 2017, section 3.1); one that is nearly empty stays as it is."""
    top = np.percentile(np.abs(values), FULL)
    return values.clip(-top, top) if top else values


def fitted(text: str, width: float, size: float = 8) -> str:
    """A title as matplotlib takes it, each of its lines shortened in its middle so that a picture of `width` inches
    holds it in letters of `size` points: its beginning says what it is about, and its end is often a figure.
    """
    return figures.plain("\n".join(_shortened(line, width - MARGIN, size) for line in text.split("\n")))


def _shortened(line: str, width: float, size: float) -> str:
    short = line
    for left in range(len(line) - 1, 0, -1):
        if figures.width(short, size) <= width:
            break
        short = f"{line[: left - left // 2].rstrip()}…{line[len(line) - left // 2 :].lstrip()}"
    return short


def page(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[Sequence[str]] | None = None, *, side: float = 2.4):
    """Rows of images, each as `colour` takes it, as a matplotlib Figure; `titles` has a text for each image.

    Rows may be of different lengths; an image is `side` inches high and wide, and no title is wider.
    """
    from matplotlib.figure import Figure  # here, since matplotlib takes a while to import

    across = max(map(len, rows))
    figure = Figure((side * across, (side + 0.3) * len(rows)), dpi=110, layout="constrained")
    for row, line in enumerate(figure.subplots(len(rows), across, squeeze=False)):
        for column, axes in enumerate(line):
            axes.axis("off")
            if column < len(rows[row]):
                axes.imshow(colour(rows[row][column]), interpolation="nearest")
                if titles is not None:
                    axes.set_title(fitted(titles[row][column], side), fontsize=8)
    return figure


def picture(image: np.ndarray, title: str = ""):
    """One image, as `colour` takes it, as a matplotlib Figure, each of its pixels a pixel or several."""
    from matplotlib.figure import Figure

    image = enlarged(colour(image), 400)
    height, width, _ = image.shape
    head = 28 if title else 0
    figure = Figure((max(width, 320) / 100, (height + head) / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, height / (height + head)))
    axes.axis("off")
    axes.imshow(image, interpolation="nearest")
    if title:
        figure.text(0.5, 1 - 0.5 * head / (height + head), figures.plain(title), ha="center", va="center", fontsize=9)
    return figure
