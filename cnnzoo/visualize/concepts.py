"""Which units of a layer answer to which class, or to any property that folders of images stand for.

Network dissection (Bau, Zhou, Khosla, Oliva, Torralba, CVPR 2017, arXiv 1704.05796) asks that of every unit, with
images whose pixels are labelled; here labels of whole images do. A unit's answer to an image is its greatest activation
in it, and how well that tells images of a class from the others is the area under the ROC curve: 0.5 by chance, 1 where
every image of the class excites the unit more than any other image. Among thousands of units some look good by chance,
so each is judged by the best one of all, as labels are dealt out anew (Westfall, Young: Resampling-based multiple
testing, 1993; their maxT).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.stats import rankdata

from cnnzoo import bars, tables
from cnnzoo.errors import InputError, at_least
from cnnzoo.telling import Tell
from cnnzoo.visualize import collection, drawing
from cnnzoo.visualize.collection import Collection
from cnnzoo.visualize.hooks import untouched, watching
from cnnzoo.visualize.subject import Model, Pretrained, Subject

BATCH = 32
DEALS = 500  # permutations of the labels, for p-values
CHANCE = 0.05  # p-value from which on an answer passes for chance
MANY = 500  # images that are drawn, where these are LEAST of each class
LEAST = 5  # images of a class
TOP = 5  # images drawn of a unit
ROWS = 8  # units drawn at most


@dataclass(frozen=True)
class Best:
    """The unit that answers best to a class."""

    unit: int
    auc: float
    p: float  # how often the best of all units answers so well to labels dealt out by chance
    top: np.ndarray  # (TOP,) the images that excite it most
    maps: np.ndarray  # (TOP, h, w) float32: where in them; (TOP, 1, 1) past the flattening


@dataclass(frozen=True)
class Concepts(drawing.Result):
    """How U units answer to C classes, over N images."""

    net: str
    layer: str
    of: Collection
    answers: np.ndarray  # (N, U) float32: each unit's greatest activation in each image
    auc: np.ndarray  # (C, U) float64
    p: np.ndarray  # (C, U) float64
    best: tuple[Best, ...]  # for each class

    def __str__(self) -> str:
        units = self.auc.shape[1]
        some = int((self.p < CHANCE).any(0).sum())
        return (
            f"layer {self.layer} of {self.net}: {some:,} of {units:,} units answer to a class of {self.of.source} "
            f"(p < {CHANCE:g} over all units and classes, {len(self.of):,} images)"
        )

    def to_csv(self) -> str:
        """A row for each class and unit: class, unit, auc, p."""
        rows = (
            {"class": name, "unit": unit, "auc": float(self.auc[place, unit]), "p": float(self.p[place, unit])}
            for place, name in enumerate(self.of.classes)
            for unit in range(self.auc.shape[1])
        )
        return tables.to_csv(rows, {"class": str, "unit": int, "auc": float, "p": float})

    def figure(self):
        """For each class, clearest first, the images that excite its best unit most, and where; all a matplotlib
        Figure.
        """
        rows, titles = [], []
        for place in sorted(range(len(self.best)), key=lambda place: -self.best[place].auc)[:ROWS]:
            best = self.best[place]
            rows.append(_lit(self.of.images.take(best.top), best.maps))
            about = f"unit {best.unit} for\n{self.of.classes[place]}", f"AUC {best.auc:.2f}\np {best.p:.2g}"
            above = [*about, *["\n"] * (len(best.top) - len(about))]
            titles.append([f"{line}\n{self.of.class_of(image)}" for line, image in zip(above, best.top, strict=True)])
        return drawing.page(rows, titles, side=1.6)


def _lit(images: np.ndarray, maps: np.ndarray) -> list[np.ndarray]:
    """Images `(T, H, W, C)`; where a unit has maps `(T, h, w)`, its excitation is laid over them."""
    if maps[0].size == 1:
        return list(images)
    return [drawing.heat(image, map) for image, map in zip(images, maps.clip(min=0), strict=True)]


def concepts(
    model_or_run: Model,
    data: str | None = None,
    layer: str | None = None,
    *,
    pretrained: Pretrained = False,
    many: int | None = None,
    seed: int = 0,
    root: str | None = None,
    device: str = "auto",
    tell: Tell = print,
) -> Concepts:
    """Find the units of a layer that answer to a class, or to a property.

    Args:
        model_or_run: a net, a run or its folder, or a net's name.
        data: a data set's name, or a folder of folders, each of images of a class or with a property in common, as
            striped/ and plain/; None takes the run's own. Images held out are taken where there are some.
        layer: a stage's name or a module's path; None is the last stage that gives maps.
        pretrained: weights for a net's name: True (the best known), a tag, a file or a run folder.
        many: images at most, drawn by `seed`, equally many of each class; None is 500, or five of each class.
        seed: of that and of the labels dealt out anew.
        root: where named data sets lie.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
        tell: is given a line on what was passed over, such as classes of fewer than five images.

    Raises:
        InputError: for a layer that is not there; an empty folder; one class alone, or only one of five images; `many`
            of fewer than five for each class; a net that is no run, without data.
    """
    at_least("seed", seed, 0)
    subject = Subject.open(model_or_run, pretrained, device)
    layer = subject.layer(layer)
    among, held_out = collection.opened(subject, data, root, tell)
    shown = _drawn(held_out or among, many, seed, tell)
    found = _outputs(subject, layer, shown, _maxima)
    auc, p = judged(found, shown.labels, len(shown.classes), seed)
    units = auc.argmax(1)
    tops = [np.argsort(-found[:, unit], kind="stable")[:TOP] for unit in units]
    seen, asked = np.unique(tops), np.unique(units)
    maps = _outputs(subject, layer, shown.choose(seen), lambda maps: maps[:, asked])
    best = []
    for place, (unit, top) in enumerate(zip(units.tolist(), tops, strict=True)):
        own = maps[np.searchsorted(seen, top), np.searchsorted(asked, unit)]
        own = own.reshape(len(top), *(own.shape[1:] or (1, 1)))
        best.append(Best(unit, float(auc[place, unit]), float(p[place, unit]), top, own))
    return Concepts(subject.name, layer, shown, found, auc, p, tuple(best))


def _drawn(shown: Collection, many: int | None, seed: int, tell: Tell) -> Collection:
    """Equally many images of each class, but for classes that have too few, which are told."""
    if len(shown.classes) < 2:
        raise InputError(f"{shown.source} holds {shown.classes[0]} only; put images of something else beside it")
    enough = np.bincount(shown.labels, minlength=len(shown.classes)) >= LEAST
    rare = [name for name, kept in zip(shown.classes, enough, strict=True) if not kept]
    if len(shown.classes) - len(rare) < 2:
        raise InputError(f"too few images in {shown.source}; there must be {LEAST} of each of two classes")
    if rare:
        named = ", ".join(rare[:10]) + f" and {len(rare) - 10:,} more" * (len(rare) > 10)
        tell(f"fewer than {LEAST} images of {named} in {shown.source}: left out")
    least = LEAST * int(enough.sum())
    many = max(MANY, least) if many is None else many
    if many < least:
        raise InputError(f"{many} images are too few for {least // LEAST} classes; ask for {least}, {LEAST} of each")
    return shown.of_classes(enough).evenly(many, seed)


def _outputs(subject: Subject, layer: str, shown: Collection, keep: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What `keep` leaves of the layer's output for each image, which is `(B, U, h, w)` float32 for a batch, or `(B, U)`
    past the flattening.
    """
    kept = []
    with untouched(subject.net) as net, torch.no_grad(), watching(net, layer) as outputs:
        for start in bars.show(range(0, len(shown), BATCH), desc=f"layer {layer}", unit="batch"):
            pixels = shown.images.take(np.arange(start, min(start + BATCH, len(shown))))
            net(subject.normalised(pixels))
            kept.append(keep(outputs[layer].cpu().numpy()))
    return np.concatenate(kept)


def _maxima(maps: np.ndarray) -> np.ndarray:
    """`(B, U, …)` to `(B, U)`."""
    return maps.reshape(*maps.shape[:2], -1).max(2)


def judged(answers: np.ndarray, labels: np.ndarray, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """How well each unit tells each class from the others: the area under the ROC curve, and its p, both `(C, U)`.

    `answers` are `(N, U)`, `labels` `(N,)` below `classes`. The area is Mann and Whitney's statistic over the number of
    pairs; p is the share of DEALS permutations of the labels in which the best unit of all does as well for any class,
    areas being compared in units of their deviation, which differs with the size of a class.
    """
    count = len(answers)
    ranks = rankdata(answers, axis=0) - (count + 1) / 2
    rng = np.random.default_rng(seed)
    own = np.bincount(labels, minlength=classes)[:, None]
    pairs = own * (count - own)
    deviation = np.sqrt(pairs * (count + 1) / 12)
    sums = _by_class(ranks, labels, classes)
    dealt = (_by_class(ranks, labels[rng.permutation(count)], classes) for _ in range(DEALS))
    highest = np.array([(each / deviation).max() for each in dealt])
    as_good = DEALS - np.searchsorted(np.sort(highest), sums / deviation - 1e-9)
    return 0.5 + sums / pairs, (1 + as_good) / (1 + DEALS)


def _by_class(ranks: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """The sums `(C, U)` of rows `(N, U)`; sparse, as a thousand classes of a thousand units would take hours else."""
    count = len(labels)
    return csr_array((np.ones(count), (labels, np.arange(count))), shape=(classes, count)) @ ranks
