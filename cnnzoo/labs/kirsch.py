"""Filters that nobody has learned: the eight compass filters, and what three layers of filters find.

A layer of eight 3x3 filters answers to edges of eight directions. A second layer on top of four of them finds corners
(a horizontal edge that ends where a vertical one begins), a third finds the place around which four corners lie as
those of a square do. Convolution, bias, ReLU, and nothing else: what a convolutional net would have to learn.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import conv2d, relu

from cnnzoo.labs._lab import Seen, photo, sheet, show

CLAIM = (
    "Of eight compass filters the one along an edge's slope, or the next to it, answers most, and two more layers on "
    "top of them find a square among other shapes."
)
SOURCE = (
    "Kirsch: Computer determination of the constituent structure of biological images, "
    "Computers and Biomedical Research 4, 1971"
)

COMPASS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")  # towards the bright side
RING = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))  # the places around the centre, clockwise
STRONG = 0.2  # share of a photo's places, those of the steepest slopes, that count as edges
WITHIN = 45  # degrees between slope and filter; by chance one of four places would have it so

SIDE = 15  # of the square that is looked for, odd
REACH = 6  # how far from a corner its two edges are looked at


def compass() -> Tensor:
    """The filters `(8, 1, 3, 3)`: 5 at three neighbours of the centre, -3 at the other five."""
    filters = torch.zeros(8, 1, 3, 3)
    for direction, filter_ in enumerate(filters[:, 0]):
        for place, (row, column) in enumerate(RING):
            filter_[row, column] = 5 if (place - direction) % 8 < 3 else -3
    return filters


def corners() -> Tensor:
    """Filters `(4, 4, k, k)` on the answers of N, E, S, W: an edge along a row and one along a column."""
    filters = torch.zeros(4, 4, 2 * REACH + 1, 2 * REACH + 1)
    along = torch.arange(2, REACH + 1)
    for filter_, (down, right) in zip(filters, INWARDS, strict=True):
        filter_[1 + down, REACH, REACH + right * along] = 1 / len(along)  # N is 0, S is 2
        filter_[2 - right, REACH + down * along, REACH] = 1 / len(along)  # E is 1, W is 3
    return filters


INWARDS = ((1, 1), (1, -1), (-1, 1), (-1, -1))  # from each corner of the square to its inside: down, right


def square() -> Tensor:
    """A filter `(1, 4, k, k)` on the answers of `corners`, as far from each other as those of the square."""
    half = (SIDE + 1) // 2
    filter_ = torch.zeros(1, 4, 2 * half + 1, 2 * half + 1)
    for corner, (down, right) in enumerate(INWARDS):
        filter_[0, corner, half - down * half, half - right * half] = 1 / 4
    return filter_


def find_square(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Edges `(4, H, W)`, corners `(4, H, W)` and the square's places `(H, W)` of an image `(H, W)`."""
    edges = relu(conv2d(image[None, None], compass()[::2] / 15, padding="same") - 0.5)  # half a full step
    found = relu(conv2d(edges, corners(), padding="same") - 0.7)  # more than one edge alone can give
    places = relu(conv2d(found, square(), padding="same") - 0.24)  # more than three of four corners can give
    return edges[0], found[0], places[0, 0]


def shapes(rng: np.random.Generator) -> tuple[Tensor, tuple[int, int]]:
    """An image `(120, 120)` of nine bright shapes, and the middle of the one that is the square."""
    y, x = np.mgrid[:40, :40] - 20
    half = SIDE // 2
    kinds = [
        np.maximum(abs(y), abs(x)) <= half,  # the square
        np.maximum(abs(y), abs(x)) <= half + 6,
        np.maximum(abs(y), abs(x)) <= half - 3,
        np.hypot(y, x) <= half,
        abs(y) + abs(x) <= half,
        (abs(y) <= half) & (abs(x) <= half + 6),
        (abs(y) <= 2) & (abs(x) <= half),
        (abs(x) <= 2) & (abs(y) <= half),
        (abs(y) <= half) & (abs(x) <= (y + half) / 2),
    ]
    image, cells = np.zeros((120, 120)), rng.permutation(9)
    for kind, cell in zip(kinds, cells, strict=True):
        top, left = 40 * np.array(divmod(cell, 3)) + rng.integers(-4, 5, 2)
        rows, columns = np.nonzero(kind)
        image[rows + top, columns + left] = 1
        if kind is kinds[0]:
            middle = int(top + 20), int(left + 20)
    return torch.from_numpy(image + rng.normal(0, 0.03, image.shape)).float(), middle


def run(seed: int, quick: bool) -> Seen:
    window = photo(seed, 160 if quick else 320)
    answers = conv2d(window[None, None], compass())[0]  # (8, H - 2, W - 2)
    agreement = _agreement(window.numpy(), answers.argmax(0).numpy())
    image, middle = shapes(np.random.default_rng(seed))
    edges, found, places = find_square(image)
    answered = places.nonzero()
    off = (answered - torch.tensor(middle)).abs().max().item() if len(answered) else float("inf")
    return Seen(
        held=agreement > 0.8 and off <= 1,
        told=f"the strongest filter lies within {WITHIN} degrees of the slope at {agreement:.1%} of edges; "
        + (f"the square is found, {off:.0f} pixels off" if off <= 1 else "the square is not found"),
        figures={"agreement": agreement, "middle": list(middle), "found": answered.tolist()},
        pictures={
            "photo": window.numpy(),
            "answers": answers.numpy(),
            "shapes": image.numpy(),
            "edges": edges.amax(0).numpy(),
            "corners": found.amax(0).numpy(),
            "square": places.numpy(),
        },
    )


def _agreement(image: np.ndarray, strongest: np.ndarray) -> float:
    """How often, where the image is steepest, the strongest filter's direction is that of Sobel's slope."""
    down, right = (ndimage.sobel(image, axis)[1:-1, 1:-1] for axis in (0, 1))
    steep = np.hypot(down, right)
    slope = np.degrees(np.arctan2(right, -down))  # clockwise from N
    apart = abs((slope - 45 * strongest + 180) % 360 - 180)
    return float((apart <= WITHIN)[steep >= np.quantile(steep, 1 - STRONG)].mean())


def draw(seen: Sequence[Seen]):
    pictures = seen[0].pictures
    figure, axes = sheet(3, 5, 2.6, 2.8)
    show(axes[0, 0], pictures["photo"], "photo")
    show(axes[1, 0], pictures["answers"].max(0), "the strongest answer")
    for i, name in enumerate(COMPASS):
        show(axes[i // 4, 1 + i % 4], np.maximum(pictures["answers"][i], 0), f"bright towards {name}")
    titles = ("shapes", "edges", "corners", "square")
    for panel, title in zip(axes[2], titles, strict=False):
        show(panel, pictures[title], title)
    show(axes[2, 4], pictures["shapes"], "found")
    for row, column in seen[0].figures["found"]:
        axes[2, 4].plot(column, row, "r+", markersize=12)
    return figure
