"""Which images belong together (a burst, a patient, a video), and how to divide them with no group on both sides.

A leaf: names and numbers in, numbers out.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from cnnzoo.errors import InputError, composed, counted, printable

DRAWS = 20  # divisions that are tried, of which the most even is taken; fewer where there are very many groups
MANY = 50_000  # groups that are gone through in all those tries, about: half a second
EVEN = 0.01  # how far classes may be off the share to hold out (root mean square) for a division to do


def numbered(paths: Sequence[str | None], pattern: str, source: str) -> np.ndarray:
    """Which images belong together, by their paths within a source; None for one that has none.

    Returns:
        `(N,)` int64: the same number, from 0, for images in whose paths the regular expression finds the same text (of
        its first capture group, or all of it); a negative one of its own for each in which it finds nothing.

    Raises:
        InputError: if no image has a path, or nothing is found in any.
    """
    named = next(filter(None, paths), None)
    if named is None:
        raise InputError(f"data.groups finds groups by names of files, and the images of {source} have none")
    search = re.compile(pattern).search
    matches = (search(composed(path or "")) for path in paths)
    texts = [(match and match[min(match.re.groups, 1)]) or None for match in matches]
    if not any(texts):
        such = printable(named)
        raise InputError(f"data.groups '{pattern}' finds nothing in any image's name in {source}, such as {such}")
    return of_values(texts)


def of_values(values: Iterable) -> np.ndarray:
    """The same of values that tell what each image belongs to, as text or numbers; None or NaN for one that stands
    alone. Raises InputError for those that are neither.
    """
    numbers, known = [], {}
    for place, value in enumerate(values):
        try:
            value = value.item() if hasattr(value, "item") else value
            alone = value is None or (value == value) is not True  # NaN is not itself, and pandas' NA says NA of it
            numbers.append(-1 - place if alone else known.setdefault(value, len(known)))
        except (TypeError, ValueError):
            raise InputError(f"groups hold {value!r:.50}; give text or a number for each image") from None
    return np.array(numbers, dtype=np.int64)


def tell(groups: np.ndarray, others: np.ndarray) -> str:
    """A line on the groups of the images to train on and of those held out."""
    shared = len(np.intersect1d(groups, others))
    overstated = (
        f"{shared:,} of which {'is' if shared == 1 else 'are'} both trained and judged on: accuracy is overstated"
    )
    more = f", {overstated if shared else 'none of which is divided'}"
    return describe(np.concatenate([groups, others]), "image", more)


def describe(groups: np.ndarray, thing: str, more: str = "") -> str:
    """How many things are in how many groups, with `more` on these, and how many stand alone."""
    grouped = groups[groups >= 0]
    alone = len(groups) - len(grouped)
    others = f"; {counted(alone, 'other')} {'stands' if alone == 1 else 'stand'} alone" if alone else ""
    return f"{counted(len(grouped), thing)} in {counted(len(np.unique(grouped)), 'group')}{more}{others}"


def groups_of_classes(labels: np.ndarray, groups: np.ndarray, classes: int) -> np.ndarray:
    """`(classes,)`: in how many groups the images of each class are."""
    _, group = np.unique(groups, return_inverse=True)
    return np.bincount(np.unique(group * classes + labels) % classes, minlength=classes)


def share(labels: np.ndarray, groups: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """`(N,)` bool: whole groups to hold out, so that of each class about that fraction is, something and not all.

    The most even of some draws. (Of StratifiedGroupKFold's equal parts, one often lacks a class of few groups.)
    """
    _, group = np.unique(groups, return_inverse=True)
    total = np.bincount(labels)
    pairs, images = np.unique(group * len(total) + labels, return_counts=True)
    starts = np.flatnonzero(np.diff(pairs // len(total), prepend=0))
    own = list(zip(np.split(pairs % len(total), starts), np.split(images, starts), strict=True))
    best, least = np.zeros(len(own), dtype=bool), (np.inf, np.inf)
    for _ in range(min(DRAWS, 1 + MANY // len(own))):
        out = _draw(own, total, fraction, rng)
        shares = np.bincount(labels[out[group]], minlength=len(total))[total > 0] / total[total > 0]
        off = int((shares == 0).sum()), float(np.sqrt(np.mean((shares - fraction) ** 2)))
        if off < least:
            best, least = out, off
        if least <= (0, EVEN):
            break
    return best[group]


def _draw(
    own: Sequence[tuple[np.ndarray, np.ndarray]], total: np.ndarray, fraction: float, rng: np.random.Generator
) -> np.ndarray:
    """`(G,)` bool: of groups in random order those by which the shares of their classes come nearer to the fraction (by
    the sum of squares), then one for each class of which there is none; never the last of a class.

    `own` has each group's classes and how many images of each, `total` `(K,)` how many there are.
    """
    held, out = np.zeros(len(total), dtype=np.int64), np.zeros(len(own), dtype=bool)

    def strays(group: int) -> float:
        classes, images = own[group]
        before = held[classes] / total[classes] - fraction
        return float(((before + images / total[classes]) ** 2 - before**2).sum())

    def may(group: int) -> bool:
        classes, images = own[group]
        return bool((held[classes] + images < total[classes]).all())

    def hold_out(group: int) -> None:
        classes, images = own[group]
        held[classes] += images
        out[group] = True

    order = rng.permutation(len(own))
    for group in order:
        if strays(group) < 0 and may(group):
            hold_out(group)
    for label in np.flatnonzero((held == 0) & (total > 0)):
        able = [] if held[label] else [group for group in order if label in own[group][0] and may(group)]
        if able:
            hold_out(min(able, key=strays))
    return out


def folds(labels: np.ndarray, groups: np.ndarray, many: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places of the images to train on and of those held out, of each fold: whole groups, classes as even as can be."""
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second to import

    splitter = StratifiedGroupKFold(many, shuffle=True, random_state=seed % 2**32)
    return list(splitter.split(labels, labels, groups))
