"""Shallow classifiers on frozen features: the first of the two ways that lectures teach.

Each is scikit-learn's; its setting, and which of them is best, is chosen by cross-validation over the training images
alone, so that the validation images still tell the truth. A fitted one becomes a head for the net.
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import pairwise_distances_argmin
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from cnnzoo import machine
from cnnzoo.errors import InputError
from cnnzoo.models import _heads
from cnnzoo.shown import Shown, Table
from cnnzoo.telling import Tell, silent


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

    def _table(self) -> Table:
        rows = []
        for s in self.scores:
            cv = "-" if s.cv_top1 is None else f"{s.cv_top1:.2%}"
            rows.append((s.classifier, s.setting, cv, f"{s.val_top1:.2%}", f"{s.seconds:.1f}"))
        heads = ("classifier", "setting", "cross-validated", "validation", "seconds")
        return Table(heads, rows, heads[:2], notes=self._why())

    def _why(self) -> list[str]:
        """Why the first is taken, where others were tried."""
        taken, *others = self.scores
        if not others or taken.cv_top1 is None:
            return []
        best = taken.cv_top1 >= max(other.cv_top1 or 0.0 for other in others)
        why = ", the best by cross-validation" if best else ": the simplest within a standard error of the best"
        return [f"{taken.classifier} is taken{why}"]

    def to_dict(self) -> dict:
        return {"scores": [asdict(score) for score in self.scores], "head": _heads.describe(self.head)}


@dataclass(frozen=True)
class Data:
    """Features of N training images in V views, and what one scale and shift make of them.

    All dimensions share one scale: those that hardly move in the training images stay small.
    """

    vectors: np.ndarray  # (N, V, D) float32
    labels: np.ndarray  # (N,)
    classes: int
    mean: np.ndarray  # (D,)
    std: float

    @classmethod
    def of(cls, vectors: np.ndarray, labels: np.ndarray, classes: int) -> "Data":
        flat = vectors.reshape(-1, vectors.shape[-1])
        mean = flat.mean(axis=0, dtype=np.float64).astype(np.float32)
        return cls(vectors, labels, classes, mean, float(np.sqrt(np.mean((flat - mean) ** 2))) or 1.0)

    def rows(self, images: np.ndarray, views: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Vectors and labels of some images, in all views or the first few."""
        chosen = self.vectors[images, :views]
        return chosen.reshape(-1, chosen.shape[-1]), np.repeat(self.labels[images], chosen.shape[1])

    def scaled(self, vectors: np.ndarray) -> np.ndarray:
        return (vectors - self.mean) / self.std


@dataclass(frozen=True)
class Kind:
    """A classifier, what it wants of the vectors, and how it becomes a head."""

    settings: Mapping[str, ClassifierMixin]  # the simplest first
    prepare: Callable[[Data, np.ndarray], np.ndarray]
    weld: Callable[[ClassifierMixin, Data], nn.Module]


@machine.one_blas_thread()
def fit(
    vectors: np.ndarray,
    labels: np.ndarray,
    val_vectors: np.ndarray,
    val_labels: np.ndarray,
    classes: int,
    *,
    classifier: str = "auto",
    learns: bool = False,
    folds: int = 5,
    seed: int = 0,
    tell: Tell = silent,
) -> Probe:
    """Fit one kind of classifier, or with `auto` all of them, and take the best.

    Args:
        vectors: `(N, V, D)` float32, of the training images in V views; an image's views stay in one fold.
        labels: `(N,)` int64, each class at least once.
        val_vectors: `(M, D)`.
        val_labels: `(M,)`; they choose nothing.
        classes: K; the head has so many outputs.
        classifier: auto, logistic, knn, svm, centroid, ridge or mlp.
        learns: whether the head is to learn on, so that `auto` leaves out knn, which has nothing to learn by.
        folds: of the cross-validation; fewer where a class has fewer images.
        seed: of the folds, and of what is random in a classifier.
        tell: is given the name of each classifier before it is fitted.

    Raises:
        InputError: where a class has no training image.
    """
    data = Data.of(vectors, labels, classes)
    if missing := set(range(classes)) - set(labels.tolist()):
        raise InputError(f"{len(missing)} of {classes} classes have no training image")
    known = kinds(len(labels), seed)
    fewest = int(np.bincount(labels).min())
    splits: list[tuple[np.ndarray, np.ndarray]] = []
    if fewest > 1:
        splitter = StratifiedKFold(min(folds, fewest), shuffle=True, random_state=seed)
        splits = list(splitter.split(np.zeros(len(labels)), labels))
    found = []
    able = [name for name in known if not (learns and name == "knn")]
    for name in able if classifier == "auto" else [classifier]:
        tell(name)
        started = time.perf_counter()
        setting, cv_top1, fitted = _best(known[name], data, splits)
        seconds = time.perf_counter() - started
        head = known[name].weld(fitted, data).eval()
        val_top1 = float((predict(head, val_vectors).argmax(1).numpy() == val_labels).mean())
        found.append((Score(name, setting, cv_top1, val_top1, seconds), head))
        if not splits and classifier == "auto":
            break  # nothing to choose by, so the first of them, which is the usual one
    first = min(found, key=lambda one: not _is_among_the_best(one[0], [score for score, _ in found], len(labels)))
    others = sorted((score for score, _ in found if score is not first[0]), key=lambda score: -(score.cv_top1 or 0.0))
    return Probe((first[0], *others), first[1])


def _is_among_the_best(score: Score, scores: Sequence[Score], images: int) -> bool:
    """Within a standard error of the best (Breiman, Friedman, Olshen, Stone 1984, section 3.4.3): of such, the simplest
    is taken.
    """
    best = max(score.cv_top1 or 0.0 for score in scores)
    return (score.cv_top1 or 0.0) >= best - np.sqrt(best * (1 - best) / images)


@torch.inference_mode()
def predict(head: nn.Module, vectors: np.ndarray) -> Tensor:
    """Logits `(N, K)` float32 of vectors `(N, D)`."""
    device = next((tensor.device for tensor in (*head.parameters(), *head.buffers())), "cpu")
    parts = (vectors[start : start + 1024] for start in range(0, len(vectors), 1024))
    return torch.cat([head(torch.from_numpy(np.ascontiguousarray(part)).to(device)).cpu() for part in parts])


def _best(kind: Kind, data: Data, splits: Sequence) -> tuple[str, float | None, ClassifierMixin]:
    """The best setting's name, its accuracy over the folds, and the classifier fitted to all images with it."""
    settings = list(kind.settings)
    chosen, top1 = len(settings) // 2, None
    if splits:
        scores, right = np.array([_over_fold(kind, data, train, held_out) for train, held_out in splits]).mean(axis=0).T
        chosen = int(scores.argmax())
        top1 = float(right[chosen])
    everything, labels = data.rows(np.arange(len(data.labels)))
    return settings[chosen], top1, fit_one(kind.settings[settings[chosen]], kind.prepare(data, everything), labels)


def _over_fold(kind: Kind, data: Data, train: np.ndarray, held_out: np.ndarray) -> list[tuple[float, float]]:
    """For each setting, on a fold's images: what to choose by (log-likelihood where there is one), and the accuracy."""
    vectors, labels = data.rows(train)
    judged, truth = data.rows(held_out, views=1)
    vectors, judged = kind.prepare(data, vectors), kind.prepare(data, judged)
    scores, fitted = [], None
    for setting in kind.settings.values():
        fitted = fit_one(setting, vectors, labels, fitted)
        right = float((fitted.predict(judged) == truth).mean())
        score = right
        if isinstance(fitted, LogisticRegression):  # every fold holds all classes, so a label is a column
            sure = fitted.predict_proba(judged)[np.arange(len(truth)), truth]
            score = float(np.log(sure.clip(min=np.finfo(sure.dtype).eps)).mean())
        scores.append((score, right))
    return scores


def fit_one(
    setting: ClassifierMixin,
    vectors: np.ndarray,
    labels: np.ndarray,
    before: ClassifierMixin | None = None,
    weights: np.ndarray | None = None,
) -> ClassifierMixin:
    """The classifier fitted; a logistic regression sets out from what it was `before`, with the next setting.

    `weights` `(N,)` are what each vector counts, 1 on average.
    """
    fitted = clone(setting)
    if isinstance(before, LogisticRegression):
        fitted.set_params(warm_start=True)
        fitted.coef_, fitted.intercept_, fitted.classes_ = before.coef_, before.intercept_, before.classes_
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough, as cross-validation shows
        return fitted.fit(vectors, labels, **({} if weights is None else {"sample_weight": weights}))


# ---- the classifiers


def kinds(images: int, seed: int) -> dict[str, Kind]:
    """Every kind by name, for so many training images, the simplest first; of all, logistic regression is usual."""
    logistic = {
        f"C={c:g}": LogisticRegression(C=c, tol=1e-3, max_iter=300) for c in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    }
    svm = {f"C={c:g}": LinearSVC(C=c, tol=1e-2, random_state=seed) for c in (1e-4, 1e-3, 1e-2)}
    ridge = {f"alpha={a:g}": RidgeClassifier(alpha=a, solver="cholesky") for a in (1e6, 1e5, 1e4, 1e3, 1e2, 1e1)}
    near = [k for k in (20, 10, 5, 3, 1) if k <= images // 2]
    neighbours = {f"k={k}": KNeighborsClassifier(k, weights="distance", algorithm="brute") for k in near}
    mlp = MLPClassifier(256, alpha=1e-3, batch_size=min(64, images // 2 or 1), max_iter=30, random_state=seed)
    return {
        "logistic": Kind(logistic, Data.scaled, _linear),
        "ridge": Kind(ridge, Data.scaled, _linear),
        "svm": Kind(svm, Data.scaled, _linear),
        "centroid": Kind({"": ClassMeans()}, Data.scaled, _centroid),
        "knn": Kind(neighbours, lambda data, vectors: _of_length_1(vectors), _neighbours),
        "mlp": Kind({"256 units": mlp}, Data.scaled, _mlp),
    }


def _linear(fitted: LogisticRegression | RidgeClassifier | LinearSVC, data: Data) -> nn.Module:
    return _unscaled(*_two_rows(fitted.coef_, fitted.intercept_), data)


class ClassMeans(ClassifierMixin, BaseEstimator):
    """The nearest of the classes' means. scikit-learn's NearestCentroid refuses features that do not vary in a class,
    which most of a net's do not in some.
    """

    def fit(self, vectors: np.ndarray, labels: np.ndarray, sample_weight: np.ndarray | None = None) -> "ClassMeans":
        self.classes_ = np.unique(labels)
        weights = np.ones(len(labels)) if sample_weight is None else sample_weight
        of_class = [labels == label for label in self.classes_]
        self.means_ = np.stack([np.average(vectors[own], axis=0, weights=weights[own]) for own in of_class])
        return self

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        return self.classes_[pairwise_distances_argmin(vectors, self.means_)]


def _centroid(fitted: ClassMeans, data: Data) -> nn.Module:
    """|z - c|^2 is |z|^2, the same for all classes, less 2 (z c - |c|^2 / 2)."""
    return _unscaled(fitted.means_, -(fitted.means_**2).sum(1) / 2, data)


def _mlp(fitted: MLPClassifier, data: Data) -> nn.Module:
    first, last = zip((weight.T for weight in fitted.coefs_), fitted.intercepts_, strict=True)
    head = _heads.MLP(data.vectors.shape[-1], data.classes, len(first[0]))
    head[0] = _unscaled(*first, data)
    head[2] = _layer(*_two_rows(*last))
    return head


def _neighbours(fitted: KNeighborsClassifier, data: Data) -> nn.Module:
    vectors, labels = data.rows(np.arange(len(data.labels)))
    head = _heads.Neighbours(vectors.shape[1], data.classes, len(vectors), fitted.n_neighbors)
    head.vectors.copy_(torch.from_numpy(_of_length_1(vectors)))
    head.labels.copy_(torch.from_numpy(labels))
    return head


def _of_length_1(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)


def _two_rows(weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of two classes scikit-learn keeps one row, whose sign decides; a head has one for each."""
    weight, bias = np.atleast_2d(weight), np.atleast_1d(bias)
    if len(weight) > 1:
        return weight, bias
    return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2


def _unscaled(weight: np.ndarray, bias: np.ndarray, data: Data) -> nn.Linear:
    """The same for vectors as the net gives them."""
    weight = weight.astype(np.float64) / data.std
    return _layer(weight, bias - weight @ data.mean)


def _layer(weight: np.ndarray, bias: np.ndarray) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer


def linear_layer(fitted: LogisticRegression | RidgeClassifier | LinearSVC) -> nn.Linear:
    """A linear classifier, fitted on vectors as they are, as a layer that gives its decision values `(B, K)`."""
    return _layer(*_two_rows(fitted.coef_, fitted.intercept_))
