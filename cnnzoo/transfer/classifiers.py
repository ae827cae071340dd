"""The shallow classifiers: scikit-learn's, in their settings, and how a fitted one becomes a head."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import pairwise_distances_argmin
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import LinearSVC
from sklearn.utils.validation import has_fit_parameter
from torch import nn

from cnnzoo.models import _heads


@dataclass(frozen=True)
class Data:
    """Features of N training images in V views, to fit to, and of M images held out, to judge by.

    One scale and one shift are those of the training images, for all dimensions the same scale: those that hardly move
    stay small.
    """

    vectors: np.ndarray  # (N, V, D) float32
    labels: np.ndarray  # (N,) int64
    val_vectors: np.ndarray  # (M, D) float32
    val_labels: np.ndarray  # (M,) int64; they choose nothing
    classes: int  # K
    mean: np.ndarray  # (D,)
    std: float
    groups: np.ndarray | None  # (N,) int64, the same for images that belong together; None: each stands alone
    weights: np.ndarray | None  # (K,), what an image of each class counts; None: all the same

    @classmethod
    def of(
        cls,
        vectors: np.ndarray,
        labels: np.ndarray,
        val_vectors: np.ndarray,
        val_labels: np.ndarray,
        classes: int,
        *,
        groups: np.ndarray | None = None,
        balance: bool = False,
    ) -> "Data":
        """With the scale and shift of these vectors; with `balance` all images of a class together count the same."""
        flat = vectors.reshape(-1, vectors.shape[-1])
        mean = flat.mean(axis=0, dtype=np.float64).astype(np.float32)
        std = float(np.sqrt(np.mean((flat - mean) ** 2))) or 1.0
        weights = len(labels) / (classes * np.bincount(labels, minlength=classes).clip(1)) if balance else None
        return cls(vectors, labels, val_vectors, val_labels, classes, mean, std, groups, weights)

    def weights_of(self, labels: np.ndarray) -> np.ndarray | None:
        """What images of these classes count."""
        return None if self.weights is None else self.weights[labels]

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

    @property
    def weighs(self) -> bool:
        """Whether some images may count more than others."""
        return has_fit_parameter(next(iter(self.settings.values())), "sample_weight")


def kinds(images: int, seed: int) -> dict[str, Kind]:
    """Every kind by name, the simplest first, for so many images to fit to at least; of all, logistic regression is
    usual.
    """
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


# ---- a fitted one as a head


def _linear(fitted: LogisticRegression | RidgeClassifier | LinearSVC, data: Data) -> nn.Module:
    return _unscaled(*_two_rows(fitted.coef_, fitted.intercept_), data)


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
    """A row for each class, as a head has them: of two classes scikit-learn keeps one row, whose sign decides."""
    weight, bias = np.atleast_2d(weight), np.atleast_1d(bias)
    if len(weight) > 1:
        return weight, bias
    return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2


def _unscaled(weight: np.ndarray, bias: np.ndarray, data: Data) -> nn.Linear:
    """The same for vectors as the net gives them."""
    weight = weight.astype(np.float64) / data.std
    return _layer(weight, bias - weight @ data.mean)


def _layer(weight: np.ndarray, bias: np.ndarray) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float32)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer


def linear_layer(fitted: LogisticRegression | RidgeClassifier | LinearSVC) -> nn.Linear:
    """A linear classifier, fitted on vectors as they are, as a layer that gives its decision values `(B, K)`."""
    return _layer(*_two_rows(fitted.coef_, fitted.intercept_))
