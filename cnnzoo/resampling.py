"""Which training images a member of a committee sees, and how much each counts. A leaf: numbers in, numbers out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDING = 1e-9  # of a weighted error: one that repeats the member before it is as good as chance, exactly


def bootstrap(labels: np.ndarray, seed: int | Sequence[int], groups: np.ndarray | None = None) -> np.ndarray:
    """A bootstrap sample of N images: each place has an image drawn, with replacement, from those of its own class.

    Breiman draws from all images alike ("Bagging Predictors", Machine Learning 24, 1996, section 1); class by class, no
    class vanishes, and each keeps its share. About 1/e of a large class's images are in no place: they are out of bag.

    Args:
        labels: `(N,)`.
        seed: of the draw.
        groups: `(N,)`, the same for images that belong together; these are drawn whole. None: each stands alone.

    Returns:
        `(N,)` int64, places of images; `labels[bootstrap(labels, seed)]` is `labels`.
    """
    rng = np.random.default_rng(seed)
    drawn = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        drawn[own] = rng.choice(own, len(own)) if groups is None else _whole_groups(own, groups[own], rng)
    return drawn


def _whole_groups(own: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many of a class's images, by groups drawn with replacement, of which the last gives what there is room for."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    members = np.split(own[np.argsort(group, kind="stable")], sizes.cumsum()[:-1])
    draws = rng.integers(len(members), size=len(own))
    enough = np.searchsorted(sizes[draws].cumsum(), len(own)) + 1
    return np.concatenate([members[draw] for draw in draws[:enough]])[: len(own)]


def unseen(drawn: np.ndarray, many: int, groups: np.ndarray | None = None) -> np.ndarray:
    """`(many,)` bool: whether an image is out of the bag of those `drawn`, and with `groups` all that it belongs to."""
    seen = np.zeros(many, dtype=bool)
    seen[drawn] = True
    return ~seen if groups is None else ~np.isin(groups, groups[seen])


def out_of_bag(probabilities: np.ndarray, unseen: np.ndarray, labels: np.ndarray) -> tuple[float | None, int]:
    """How good a bagged committee is on its training images, each judged by the mean of those members alone that have
    not seen it: L. Breiman, "Out-of-bag Estimation", 1996.

    Args:
        probabilities: `(M, N, K)`.
        unseen: `(M, N)` bool, whether an image is out of a member's bag.
        labels: `(N,)`.

    Returns:
        The accuracy, None where every member has seen every image, and how many images were judged.
    """
    judged = unseen.any(axis=0)
    right = (probabilities * unseen[:, :, None]).sum(axis=0).argmax(axis=1) == labels
    return (float(right[judged].mean()) if judged.any() else None), int(judged.sum())


@dataclass(frozen=True)
class Round:
    """What a round of boosting makes of a member's mistakes."""

    error: float  # the share that the images on which the member is wrong have of all weights
    alpha: float  # the weight of the member's vote
    weights: np.ndarray  # (N,) float64 of the images for the next member; they sum to 1
    usable: bool  # whether the member is better than chance, and so belongs to the committee

    @property
    def goes_on(self) -> bool:
        """Whether there is anything for another member to learn."""
        return self.usable and self.error > 0


def samme(weights: np.ndarray, right: np.ndarray, classes: int) -> Round:
    """A round of SAMME, lines 2 (b) to (e) of algorithm 2 in J. Zhu, H. Zou, S. Rosset, T. Hastie, "Multi-class
    AdaBoost", Statistics and Its Interface 2 (2009).

    For the vote an error counts as half an image's at least, or that of a member that is never wrong would be infinite:
    R. Schapire, Y. Singer, "Improved Boosting Algorithms Using Confidence-rated Predictions", 1999, section 4.2.

    Args:
        weights: `(N,)` of the images as the member was trained.
        right: `(N,)` bool, whether it names each of them rightly.
        classes: K; chance is an error of 1 - 1/K.
    """
    weights = weights / weights.sum()
    error = float(weights[~right].sum())
    counted = max(error, 0.5 / len(weights))
    alpha = float(np.log((1 - counted) / counted) + np.log(classes - 1)) if counted < 1 else -np.inf
    if error > 1 - 1 / classes - ROUNDING:
        return Round(error, alpha, weights, usable=False)
    heavier = np.where(right, weights, weights * np.exp(alpha))
    least = np.finfo(np.float64).eps  # or images, and with them a class, would vanish after many rounds
    return Round(error, alpha, (heavier / heavier.sum()).clip(min=least), usable=True)
