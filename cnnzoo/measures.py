"""Figures of how good a net is, from its logits: of one net, and of two on the same images."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import precision_recall_fscore_support
from torch import nn

from cnnzoo import calibrate
from cnnzoo.errors import counted
from cnnzoo.shown import Shown, Table

FEW_CLASSES = 12  # up to which a confusion matrix can be read
CHANCE = 0.05  # p-value from which on a difference passes for chance


@dataclass(frozen=True)
class Evaluation(Shown):
    """Figures over N images of K classes."""

    classes: tuple[str, ...]
    count: int
    top1: float  # fractions
    top5: float
    interval: tuple[float, float]  # of top1: 95 %, Wilson's, which allows for images that belong together
    loss: float  # mean cross-entropy
    confusion: np.ndarray  # (K, K): row the true class, column the predicted one
    precision: np.ndarray  # (K,); NaN of a class that is never named
    recall: np.ndarray  # (K,); NaN of a class that none of the images is of
    f1: np.ndarray  # (K,); their harmonic mean, NaN as recall is
    calibration_error: float  # of softmax(logits), over 15 bins
    calibrated_error: float  # of softmax(logits / temperature)
    temperature: float | None  # None: each half of the images has the one that suits the other half

    @property
    def top5_tells(self) -> bool:
        """Whether top-5 tells anything: of five classes or fewer, each image's is among the five."""
        return len(self.classes) > 5

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall: what top1 were, had each class as many images."""
        return float(np.nanmean(self.recall))

    def _table(self) -> Table:
        low, high = self.interval
        many = self.confusion.sum(1)
        balanced = f"balanced {self.balanced_accuracy:.2%}   " if many.max() > 2 * many.min() else ""
        top5 = f"top-5 {self.top5:.2%}   " if self.top5_tells else ""
        title = (
            f"top-1 {self.top1:.2%} (95% interval {low:.1%} to {high:.1%})   {balanced}{top5}"
            f"loss {self.loss:.4f}   {counted(self.count, 'image')}\n{self._calibration()}"
        )
        few = len(self.classes) <= FEW_CLASSES
        named = [shortened(name, 10) for name in self.classes] if few else []
        rows, idle = [], 0
        of_class = (self.classes, self.confusion, self.confusion.sum(0), self.precision, self.recall, self.f1)
        for name, counts, named_so, *shares in zip(*of_class, strict=True):
            if not (few or counts.any() or named_so):
                idle += 1
                continue
            taken_for = ["", *map(str, counts)] if few else []
            rows.append((shortened(name), f"{counts.sum()}", *map(percent, shares), *taken_for))
        heads = ("class", "images", "precision", "recall", "F1", *(["taken for", *named] if few else []))
        others = f"{counted(idle, 'further class', 'further classes')}, without an image and never named"
        return Table(heads, rows, title=title, notes=[others] if idle else [])

    def _calibration(self) -> str:
        before = f"calibration error {self.calibration_error:.2%}"
        if self.temperature is None:
            return (
                f"{before}, with a temperature {self.calibrated_error:.2%} "
                f"(fitted on one half of these images and judged on the other)"
            )
        if self.temperature == 1:
            return before
        return f"{before}, at the run's temperature of {self.temperature:.3g} {self.calibrated_error:.2%}"

    def to_dict(self) -> dict:
        values = {
            "top1": self.top1,
            "interval": list(self.interval),
            "balanced_accuracy": self.balanced_accuracy,
            "top5": self.top5,
            "loss": self.loss,
            "images": self.count,
            "calibration_error": self.calibration_error,
            "calibrated_error": self.calibrated_error,
            "temperature": self.temperature,
            "classes": list(self.classes),
        }
        shares = {
            key: [None if math.isnan(share) else share for share in getattr(self, key).tolist()]
            for key in ("precision", "recall", "f1")
        }
        return values | shares | {"confusion": self.confusion.tolist()}


def percent(share: float) -> str:
    """A share for a person to read; a dash for NaN, which is a share of nothing."""
    return "-" if math.isnan(share) else f"{share:.1%}"


def measure(
    outputs: np.ndarray,
    targets: np.ndarray,
    classes: tuple[str, ...],
    temperature: float | None = None,
    groups: np.ndarray | None = None,
) -> Evaluation:
    """Figures from logits `(N, K)` and targets `(N,)`, of images of which some may belong together: `groups` `(N,)`.

    Without a `temperature` these are the images on which it is fitted, so that each half of them is judged at the
    temperature that suits the other half.
    """
    scores, truth = torch.from_numpy(outputs), torch.from_numpy(targets)
    own, places = scores.gather(1, truth[:, None]), torch.arange(scores.shape[1], device=scores.device)
    # How many classes come before the true one. Of equal logits the first class does, as everywhere (topk takes any of
    # them), and so does NaN, by which nothing is right: hence not (a < b) rather than a >= b.
    ahead = torch.where(places < truth[:, None], ~(scores < own), ~(scores <= own)).sum(1)
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    predicted = outputs.argmax(axis=1)
    right = predicted == targets
    known = predicted < len(classes)  # a head may have more outputs than the data has classes
    np.add.at(confusion, (targets[known], predicted[known]), 1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        targets, predicted, labels=np.arange(len(classes)), zero_division=0.0
    )
    absent = np.bincount(targets, minlength=len(classes)) == 0
    recall[absent] = f1[absent] = math.nan
    precision[confusion.sum(0) == 0] = math.nan
    calibrated = (
        calibrate.cross_fitted(outputs, targets) if temperature is None else calibrate.softmax(outputs, temperature)
    )
    return Evaluation(
        classes,
        count=len(targets),
        top1=float(right.mean()),
        top5=(ahead < 5).double().mean().item(),
        interval=calibrate.accuracy_interval(right, groups),
        loss=nn.functional.cross_entropy(scores.double(), truth).item(),
        confusion=confusion,
        precision=precision,
        recall=recall,
        f1=f1,
        calibration_error=calibrate.calibration_error(calibrate.softmax(outputs), targets),
        calibrated_error=calibrate.calibration_error(calibrated, targets),
        temperature=temperature,
    )


@dataclass(frozen=True)
class RunComparison(Shown):
    """Two nets, judged on the same N images."""

    names: tuple[str, str]
    evaluations: tuple[Evaluation, Evaluation]
    only_first: int  # images on which the first net alone is right
    only_second: int
    interval: tuple[float, float]  # of the difference: 95 %, Agresti and Min's, which allows for groups of images
    p: float  # of McNemar's exact test, likewise: how often equals differ this much

    @property
    def difference(self) -> float:
        """The first accuracy minus the second, as a fraction."""
        return (self.only_first - self.only_second) / self.evaluations[0].count

    def __str__(self) -> str:
        width = max(len("difference"), *map(len, self.names))
        lines = [f"{'':<{width}}    top-1  95% interval"]
        for name, result in zip(self.names, self.evaluations, strict=True):
            low, high = result.interval
            lines.append(f"{name:<{width}}  {result.top1:>7.2%}  {low:.1%} to {high:.1%}")
        low, high = self.interval
        points = [f"{100 * share:+.1f}" for share in (low, high)]
        lines.append(f"{'difference':<{width}}  {100 * self.difference:>+6.2f}   {' to '.join(points)} points")
        first, second = self.names
        lines.append(
            f"{first} alone is right on {counted(self.only_first, 'image')}, {second} alone on {self.only_second:,}"
        )
        points, count = 100 * abs(self.difference), self.evaluations[0].count
        verdict = "can well be chance" if self.p >= CHANCE else "is unlikely to be chance"
        lines.append(
            f"the difference of {points:.1f} points over {counted(count, 'image')} {verdict} (p = {self.p:.2g})"
        )
        return "\n".join(lines)

    def to_dict(self) -> dict:
        return {
            "runs": [{"name": n} | e.to_dict() for n, e in zip(self.names, self.evaluations, strict=True)],
            "difference": self.difference,
            "interval": list(self.interval),
            "p": self.p,
            "only_first": self.only_first,
            "only_second": self.only_second,
        }


def shortened(name: str, width: int = 40) -> str:
    """A name that leaves its line or picture room for more."""
    return name if len(name) <= width else f"{name[: width - 1]}…"
