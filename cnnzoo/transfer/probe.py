"""Shallow classifiers on frozen features: the first of the two ways that lectures teach.

Each is scikit-learn's; its setting, and which of them is best, is chosen by cross-validation over the training images
alone, so that the validation images still tell the truth. A fitted one becomes a head for the net.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from torch import Tensor, nn

from cnnzoo import calibrate, machine
from cnnzoo.data import groups as groups_
from cnnzoo.device import autocast, device_of
from cnnzoo.errors import InputError
from cnnzoo.models import _heads
from cnnzoo.shown import Shown, Table
from cnnzoo.telling import Tell, silent
from cnnzoo.transfer.classifiers import Data, Kind, fit_one, kinds

PARTS = (8, 4, 2)  # of the training images, for a learning curve: an eighth, a quarter, half
DRAWS = 3  # of each part
LEAST = 64  # images, from which on a part tells something
SVMS_MOST = 2_000_000  # images times classes up to which auto tries LIBLINEAR, which takes a class at a time


@dataclass(frozen=True)
class Score:
    """What a classifier reached, with the best of its settings."""

    classifier: str
    setting: str
    cv_top1: float | None  # mean over the folds of the training images, as a fraction; None: too few images for folds
    val_top1: float
    seconds: float  # of choosing the setting and fitting


@dataclass(frozen=True)
class Probe(Shown):
    """The scores, and the best classifier as a head."""

    scores: tuple[Score, ...]  # the chosen one's first, the others by accuracy
    head: nn.Module  # (B, D) float32 -> logits (B, K)
    # So many training images, and the validation top-1 that they lead to; empty where that was not looked for.
    curve: tuple[tuple[int, float], ...] = field(default=(), kw_only=True)

    def _table(self) -> Table:
        rows = []
        for s in self.scores:
            cv = "-" if s.cv_top1 is None else f"{s.cv_top1:.2%}"
            rows.append((s.classifier, s.setting, cv, f"{s.val_top1:.2%}", f"{s.seconds:.1f}"))
        heads = ("classifier", "setting", "cross-validated", "validation", "seconds")
        return Table(heads, rows, heads[:2], notes=[*self._why(), *self._learning_curve()])

    def _why(self) -> list[str]:
        """Why the first is taken, where others were tried."""
        taken, *others = self.scores
        if not others or taken.cv_top1 is None:
            return []
        best = taken.cv_top1 >= max(other.cv_top1 or 0.0 for other in others)
        why = ", the best by cross-validation" if best else ": the simplest within a standard error of the best"
        return [f"{taken.classifier} is taken{why}"]

    def _learning_curve(self) -> list[str]:
        said = ", ".join(f"{top1:.1%} with {many:,}" for many, top1 in self.curve)
        return [f"learning curve, by training images: {said}"] if said else []

    def judged(self, outputs: Tensor, labels: np.ndarray) -> "Probe":
        """The same, by other logits `(M, K)` of the head to the images held out."""
        first, *others = self.scores
        return replace(self, scores=(replace(first, val_top1=_top1(outputs, labels)), *others))

    def to_dict(self) -> dict:
        scores = [asdict(score) for score in self.scores]
        return {"scores": scores, "head": _heads.describe(self.head), "curve": self.curve}


@machine.one_blas_thread()
def fit(
    data: Data,
    *,
    classifier: str = "auto",
    learns: bool = False,
    folds: int = 5,
    seed: int = 0,
    tell: Tell = silent,
) -> Probe:
    """Fit one kind of classifier, or with `auto` all of them, and take the best.

    Args:
        data: each class at least once among the training images; views of one image, and images of one group, stay in
            one fold. If its images weigh by class, they do so also where classifiers are compared, and `auto` leaves
            out those that cannot weigh.
        classifier: auto, logistic, knn, svm, centroid, ridge or mlp. auto leaves out svm where it would take very long
            (of a thousand classes, from 2,000 images on).
        learns: whether the head is to learn on, so that `auto` leaves out knn, which has nothing to learn by.
        folds: of the cross-validation; fewer where a class has fewer images, or groups of them. One of a single image
            or group is always fitted to.
        seed: of the folds, and of what is random in a classifier.
        tell: is given the name of each classifier before it is fitted.

    Raises:
        InputError: if a class has no training image, and for a classifier that is to weigh images and cannot.
    """
    if missing := set(range(data.classes)) - set(data.labels.tolist()):
        raise InputError(f"{len(missing)} of {data.classes} classes have no training image")
    seed %= 2**32  # scikit-learn takes no larger one
    splits = folds_of(data.labels, data.groups, folds, seed)
    # Of which one may fit to few: a group as large as half of the images is judged on by itself.
    known = kinds(min((len(fitted) for fitted, _ in splits), default=len(data.labels)), seed)
    able = [name for name, kind in known.items() if data.weights is None or kind.weighs]
    left_out = {"knn": learns, "svm": len(data.labels) * data.classes > SVMS_MOST}
    usual = [name for name in able if not left_out.get(name)]
    if classifier not in ("auto", *able):
        raise InputError(f"{classifier} cannot weigh classes; take balance none, or classifier {' or '.join(usual)}")
    found = []
    for name in usual if classifier == "auto" else [classifier]:
        tell(name)
        started = time.perf_counter()
        setting, cv_top1, error, fitted = _best(known[name], data, splits)
        seconds = time.perf_counter() - started
        head = known[name].weld(fitted, data).eval()
        val_top1 = _top1(predict(head, data.val_vectors), data.val_labels)
        found.append((Score(name, setting, cv_top1, val_top1, seconds), head, error))
        if not splits and classifier == "auto":
            break  # nothing to choose by, so the first of them, which is the usual one
    ranked = sorted(found, key=lambda one: one[0].cv_top1 or 0.0, reverse=True)  # None: without folds it is alone
    best, _, error = ranked[0]
    # The simplest within a standard error of the best is taken (Breiman, Friedman, Olshen, Stone 1984, section 3.4.3).
    first, head, _ = next(one for one in found if one[0] is best or one[0].cv_top1 >= best.cv_top1 - error)
    return Probe((first, *(score for score, *_ in ranked if score is not first)), head)


def folds_of(
    labels: np.ndarray, groups: np.ndarray | None, folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places of the images to fit to and of those to judge on, of each fold. A class of one image, or all in one group,
    is fitted to in each; there are no folds where fewer than two classes are others.
    """
    units = np.bincount(labels) if groups is None else groups_.groups_of_classes(labels, groups, labels.max() + 1)
    divided, many = units > 1, int(units[units > 1].min(initial=folds))
    alone, others = (np.flatnonzero(which) for which in (~divided[labels], divided[labels]))
    if many < 2 or divided.sum() < 2:
        return []
    if groups is None:
        made = StratifiedKFold(many, shuffle=True, random_state=seed).split(others, labels[others])
    else:  # of which one may lack a class that few large groups have
        made = groups_.folds(labels[others], groups[others], many, seed)
    parts = [(np.union1d(others[fitted], alone), others[judged]) for fitted, judged in made]
    return [(fitted, judged) for fitted, judged in parts if len(judged) and len(set(labels[fitted])) == len(units)]


@machine.one_blas_thread()
def with_learning_curve(found: Probe, data: Data, *, seed: int = 0) -> Probe:
    """The same, with what its classifier reaches with fewer training images: whether more photos would help.

    The data are those that `fit` had. Each part of the training images is drawn `DRAWS` times, class by class, of
    images in groups whole groups; the mean counts.
    """
    labels, groups, score, seed = data.labels, data.groups, found.scores[0], seed % 2**32
    kind = kinds(len(labels), seed)[score.classifier]
    judged, points = kind.prepare(data, data.val_vectors), []
    units = np.bincount(labels) if groups is None else groups_.groups_of_classes(labels, groups, data.classes)
    for part in PARTS:
        if units.min() < 2 * part:
            continue
        drawn = [*_drawn(labels, groups, part, seed)]
        if min(map(len, drawn)) < LEAST:  # where a few groups are large, a part may be what lies beside them
            continue
        many, top1 = [], []
        for places in drawn:
            rows, own = data.rows(places)
            fitted = fit_one(kind.settings[score.setting], kind.prepare(data, rows), own, weights=data.weights_of(own))
            many.append(len(places))
            top1.append((fitted.predict(judged) == data.val_labels).mean())
        points.append((round(np.mean(many)), float(np.mean(top1))))
    return replace(found, curve=(*points, (len(labels), score.val_top1)) if points else ())


def _drawn(labels: np.ndarray, groups: np.ndarray | None, part: int, seed: int) -> Iterator[np.ndarray]:
    """The places of one in `part` of the images, drawn `DRAWS` times. Whole groups, for a few images of each burst show
    nearly what all of them do.
    """
    if groups is None:
        split = StratifiedShuffleSplit(DRAWS, train_size=len(labels) // part, random_state=seed).split(labels, labels)
        yield from (places for places, _ in split)
        return
    for draw in range(DRAWS):
        yield np.flatnonzero(groups_.share(labels, groups, 1 / part, np.random.default_rng((seed, part, draw))))


@torch.inference_mode()
def predict(head: nn.Module, vectors: np.ndarray) -> Tensor:
    """Logits `(N, K)` float32 of vectors `(N, D)`."""
    device = device_of(head)
    parts = (vectors[start : start + 1024] for start in range(0, len(vectors), 1024))
    with autocast(device, "fp32"):
        return torch.cat([head(torch.from_numpy(np.ascontiguousarray(part)).to(device)).cpu() for part in parts])


def _top1(outputs: Tensor, labels: np.ndarray) -> float:
    return float((outputs.argmax(1).numpy() == labels).mean())


def _best(kind: Kind, data: Data, splits: Sequence) -> tuple[str, float | None, float, ClassifierMixin]:
    """The best setting's name, its accuracy over the folds, the standard error of that (which of images in groups is
    larger), and the classifier fitted to all images with it.
    """
    settings = list(kind.settings)
    chosen, top1, error = len(settings) // 2, None, 0.0
    if splits:
        scores, top1s, right = zip(*(_over_fold(kind, data, *split) for split in splits), strict=True)
        chosen = int(np.mean(scores, axis=0).argmax())
        top1 = float(np.mean(top1s, axis=0)[chosen])
        right = np.concatenate([each[chosen] for each in right])
        own = None if data.groups is None else data.groups[np.concatenate([held_out for _, held_out in splits])]
        error = float(np.sqrt(top1 * (1 - top1) / calibrate.effective_count(right, own)))
    everything, labels = data.rows(np.arange(len(data.labels)))
    weights = data.weights_of(labels)
    fitted = fit_one(kind.settings[settings[chosen]], kind.prepare(data, everything), labels, weights=weights)
    return settings[chosen], top1, error, fitted


def _over_fold(kind: Kind, data: Data, train: np.ndarray, held_out: np.ndarray) -> tuple[list, list, list]:
    """For each setting, on a fold's images: what to choose by (log-likelihood where there is one), the accuracy, and
    which of them `(M,)` bool are right.
    """
    vectors, labels = data.rows(train)
    judged, truth = data.rows(held_out, views=1)
    vectors, judged = kind.prepare(data, vectors), kind.prepare(data, judged)
    scores, top1s, rights, fitted = [], [], [], None
    for setting in kind.settings.values():
        fitted = fit_one(setting, vectors, labels, fitted, data.weights_of(labels))
        weights = data.weights_of(truth)
        right = fitted.predict(judged) == truth
        top1 = score = float(np.average(right, weights=weights))
        if isinstance(fitted, LogisticRegression):  # every fold holds all classes, so a label is a column
            sure = fitted.predict_proba(judged)[np.arange(len(truth)), truth]
            score = float(np.average(np.log(sure.clip(min=np.finfo(sure.dtype).eps)), weights=weights))
        for each, own in zip((scores, top1s, rights), (score, top1, right), strict=True):
            each.append(own)
    return scores, top1s, rights
