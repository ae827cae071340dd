"""Photos that are in a folder twice: the same file, or the same picture.

Near duplicates are found by the slopes of brightness (what a difference hash takes the signs of), in two steps: a pair
whose 16x16 grey thumbnails agree is looked at again in 32x32 colours, and both correlations must reach `near`. At 0.95,
of 5 altered copies (half and 3/4 the size, JPEG quality 40, brighter, darker) of 1,477 photos of bees, ants and flowers
0.2 % were missed, and every one of the 17 pairs found among 4,317 photos of flowers was one by eye.

A photo's mirror images, and what quarter turns make of them, are found in the same way, once each is turned so that its
light falls from where all others' does. Of the 7 of each of 300 photos of bees, ants and flowers, at 3/4 the size and
JPEG quality 60, 0.3 to 1.2 % were missed. Among CIFAR-10's 60,000 images there are 6 such pairs, all by eye, four of
them of an image to train on and one to test.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import numpy as np

from cnnzoo import bars

SIDE = 32  # pixels of a thumbnail
BLOCK = 256  # photos compared with the others at a time
AXES = 31  # of 450, on which thumbnails are compared first: of CIFAR-10's photos they tell 59 % of what differs
ROUNDING = 1e-4  # of products in float32

Repeated = dict[int, tuple[int, float]]  # place of a photo -> of the first like it, and how like; 1: the same file


def identical(files: Sequence[Path]) -> Repeated:
    """Files of the same content, told apart by their sizes, else by their ends, and only else by all of it."""
    groups: list[Sequence[int]] = [range(len(files))]
    for trait in (_size, _end, _content):
        alike, many = defaultdict(list), sum(map(len, groups))
        with bars.show(total=many, desc="comparing files", unit="file") as bar:
            for number, place in ((number, place) for number, group in enumerate(groups) for place in group):
                bar.update()
                if (value := _unless_unreadable(trait, files[place])) is not None:
                    alike[number, value].append(place)
        groups = [group for group in alike.values() if len(group) > 1]
    return {place: (group[0], 1.0) for group in groups for place in group[1:]}


def _unless_unreadable(trait: Callable[[Path], Hashable], file: Path) -> Hashable | None:
    try:
        return trait(file)
    except OSError:
        return None


def _size(file: Path) -> int | None:
    return os.path.getsize(file) or None  # empty ones are no photos


def _end(file: Path) -> bytes:
    with open(file, "rb", buffering=0) as content:
        content.seek(-min(4096, os.path.getsize(content.fileno())), os.SEEK_END)
        return content.read()


def _content(file: Path) -> bytes:
    digest = hashlib.sha256()
    with open(file, "rb") as content:
        while part := content.read(1 << 20):
            digest.update(part)
    return digest.digest()


def alike(thumbnails: np.ndarray, repeated: Repeated, near: float, turned: bool = False) -> Repeated:
    """Those `repeated`, and of the others each with the first before it that looks the same; `turned`: perhaps mirrored
    or turned by quarters.

    `thumbnails` are `(N, SIDE, SIDE, 3)` uint8. Comparing N photos takes N²/2 products of 32 numbers, in blocks, and
    few of 450: of 40,000 photos of noise they took 2.6 s of a CPU, where all products of 450 took 11 s.
    """
    near -= ROUNDING  # else of two pictures of the same pixels chance says whether they correlate by 1
    seen, what = (_as_the_light_falls, "mirrored photos") if turned else (np.asarray, "photos")
    places = np.array([place for place in range(len(thumbnails)) if place not in repeated], int)
    coarse, found = np.empty((len(places), 450), np.float32), dict(repeated)
    for start in bars.show(range(0, len(places), BLOCK), desc=f"reducing {what}"):
        coarse[start : start + BLOCK] = _coarse(seen(thumbnails[places[start : start + BLOCK]]))
    short = _shortened(coarse)
    for start in bars.show(range(0, len(places), BLOCK), desc=f"comparing {what}"):
        stop = min(start + BLOCK, len(places))
        near_ones = np.flatnonzero(short[start:stop] @ short[:stop].T >= near)
        rows, columns = np.divmod(near_ones, stop)
        for row in np.unique(rows):
            before = columns[rows == row]
            before = before[before < start + row]
            for column in before[coarse[before] @ coarse[start + row] >= near]:
                one, again = places[column], places[start + row]
                likeness = float(np.dot(*_slopes(seen(thumbnails[[one, again]]).astype(np.float32))))
                if likeness >= near:
                    found[int(again)] = int(one), min(likeness, 0.999)  # 1 is the same file
                    break
    return found


def _shortened(vectors: np.ndarray) -> np.ndarray:
    """`(N, D)` to `(N, AXES + 1)`, whose products are never below those of the vectors: their parts along the axes on
    which they differ most, and the length of what is left, by the Cauchy-Schwarz inequality.
    """
    some = vectors[:: -(-len(vectors) // 10_000) or 1]
    axes = np.linalg.eigh(some.T @ some)[1][:, -AXES:]
    parts = vectors @ axes
    left = np.einsum("nd,nd->n", vectors, vectors) - np.einsum("nd,nd->n", parts, parts)
    return np.column_stack([parts, np.sqrt(left.clip(0))])


def _as_the_light_falls(thumbnails: np.ndarray) -> np.ndarray:
    """The same, mirrored and turned so that they get brighter to the right and to the bottom, and more so to the right:
    whichever of its eight mirror images and turns a photo was, it is the same one then.
    """
    grey, place = _grey(thumbnails), np.linspace(-1, 1, SIDE, dtype=np.float32)
    grey -= grey.mean((1, 2), keepdims=True)
    right, down = (grey * place).sum((1, 2)), (grey * place[:, None]).sum((1, 2))
    mirrored = np.where((right < 0)[:, None, None, None], thumbnails[:, :, ::-1], thumbnails)
    upright = np.where((down < 0)[:, None, None, None], mirrored[:, ::-1], mirrored)
    return np.where((abs(down) > abs(right))[:, None, None, None], upright.swapaxes(1, 2), upright)


def _grey(thumbnails: np.ndarray) -> np.ndarray:
    return thumbnails @ np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def _coarse(thumbnails: np.ndarray) -> np.ndarray:
    """Slopes `(N, 450)` of half as large grey ones."""
    grey = _grey(thumbnails)
    return _slopes(grey.reshape(len(grey), SIDE // 2, 2, SIDE // 2, 2).mean((2, 4))[:, :, :, None])


def _slopes(images: np.ndarray) -> np.ndarray:
    """`(N, S, S, C)` to `(N, 2 C (S - 1)²)`, of length 1, so that products are correlations.

    A photo's brightness counts for nothing here, nor its contrast, nor light that falls off evenly. A plain one is 0.
    """
    across, down = np.diff(images, axis=2)[:, :-1], np.diff(images, axis=1)[:, :, :-1]
    slopes = np.concatenate([across, down], axis=-1)
    slopes -= slopes.mean((1, 2), keepdims=True)
    slopes = slopes.reshape(len(slopes), -1)
    return slopes / np.maximum(np.linalg.norm(slopes, axis=1, keepdims=True), 1e-6)
