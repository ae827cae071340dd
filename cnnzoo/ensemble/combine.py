"""The ways of making one answer of several, each a rule of `models._rules` fitted on what the members say.

What learns from the targets is judged twice: on the images that it was fitted on, and cross-fitted, each part of the
images by what was fitted on the others. Only the latter says what to expect of new images.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold
from torch import nn

from cnnzoo import calibrate, machine
from cnnzoo.data import groups as groups_
from cnnzoo.ensemble.members import Panel
from cnnzoo.errors import InputError, unknown
from cnnzoo.models._rules import Mean, Stack, Vote
from cnnzoo.transfer.classifiers import fit_one, linear_layer

FOLDS = 5
ROUNDS = 20  # of greedy selection after its start
SETTINGS = (1, 10, 100)  # of the stacked classifier: scikit-learn's C times the number of images
LEAST = 1e-12  # probability of which a logarithm is taken


@dataclass(frozen=True)
class Combination:
    """A committee's rule, and what it says of the panel's N images of K classes."""

    method: str
    rule: nn.Module  # (M, B, K) log-probabilities to (B, K)
    panel: Panel
    log_probabilities: np.ndarray  # (N, K) float32, by the rule itself
    cross_fitted: np.ndarray | None  # (N, K) of each part by what was fitted on the others; None: nothing is fitted
    weights: list[float] | None  # of the members, as shares; None where the rule has none
    notes: tuple[str, ...] = ()  # what a person should know: ties, weights, what was not done and why

    @property
    def top1(self) -> float:
        """Accuracy on the panel, as a fraction."""
        return accuracy(self.log_probabilities, self.panel.targets)

    @property
    def honest(self) -> np.ndarray:
        """`(N, K)` log-probabilities by rules that have not seen an image's target."""
        return self.log_probabilities if self.cross_fitted is None else self.cross_fitted

    @property
    def honest_top1(self) -> float:
        """The accuracy that new images may be expected to show."""
        return accuracy(self.honest, self.panel.targets)

    @cached_property
    def loss(self) -> float:
        """Mean log-loss of `honest`, see `log_loss`."""
        return log_loss(self.honest, self.panel.targets)


def combine(panel: Panel, method: str, weights: Sequence[float] | None = None, seed: int = 0) -> Combination:
    """Fit a way of combining on what members say of a panel's images.

    Args:
        panel: what they say.
        method: one of `METHODS`.
        weights: of the members, not negative, together 1, for a method that fits none; None weighs all alike.
        seed: of the parts for cross-fitting.

    Raises:
        InputError: for an unknown method; for weights that are too few or many, negative or do not sum to 1, or that go
            with a method that finds its own; for too few images to fit on.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if method in _FITTED:
        if weights is not None:
            raise InputError(f"method {method} takes no weights; {', '.join(_GIVEN)} do")
        with machine.one_blas_thread():
            rule, cross_fitted, notes = _FITTED[method](panel, seed)
        own = getattr(rule, "weights", None)
    else:
        own = _checked(weights, len(panel))
        rule = _GIVEN[method](panel, own)
        cross_fitted, notes = None, _ties(panel, rule) if method == "vote" else ()
    shares = None if own is None else (own / own.sum()).tolist()
    return Combination(method, rule, panel, _applied(rule, panel), cross_fitted, shares, notes)


def log_loss(log_probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean log-loss of `(N, K)` at the temperature that suits them, each half of the images at the other half's.

    So methods compare whose numbers are not meant as probabilities, as votes are not.
    """
    probabilities = calibrate.cross_fitted(log_probabilities, targets)
    return float(-np.log(probabilities[np.arange(len(targets)), targets].clip(min=LEAST)).mean())


def accuracy(scores: np.ndarray, targets: np.ndarray) -> float:
    """The share of rows `(N, K)` whose largest score is that of the target, `(N,)` int64."""
    return float((scores.argmax(axis=1) == targets).mean())


@torch.inference_mode()
def _applied(rule: nn.Module, panel: Panel) -> np.ndarray:
    return rule(torch.from_numpy(panel.log_probabilities)).numpy()


def _checked(weights: Sequence[float] | None, members: int) -> np.ndarray:
    """`(M,)`. Raises InputError unless they are weights of so many members."""
    if weights is None:
        return np.ones(members)
    weights = np.array(weights, dtype=np.float64)
    said = ", ".join(f"{weight:g}" for weight in weights)
    if len(weights) != members:
        raise InputError(f"the weights {said} are {len(weights)}, but there are {members} members")
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise InputError(f"the weights {said} must be numbers, none of them negative")
    if abs(weights.sum() - 1) > 1e-6:
        raise InputError(f"the weights {said} sum to {weights.sum():g}, but must sum to 1")
    return weights


# ---- methods that fit nothing


def _of_logits(panel: Panel, weights: np.ndarray) -> nn.Module:
    """The mean of the logits as the nets give them, so that a net whose logits are larger has more of a say."""
    temperatures = np.ones(len(panel)) if panel.temperatures is None else np.array(panel.temperatures)
    return Mean(weights / weights.sum() * temperatures, "logit")


def _ties(panel: Panel, rule: Vote) -> tuple[str, ...]:
    """How often the members' votes were equal, and what became of it."""
    choices = torch.from_numpy(panel.logits.argmax(axis=2))
    votes = (nn.functional.one_hot(choices, len(panel.classes)) * rule.weights[:, None, None]).sum(0)
    first, second = votes.topk(2, dim=1).values.T
    tied = torch.isclose(first, second).numpy()
    right = (_applied(rule, panel).argmax(axis=1) == panel.targets)[tied]
    if not tied.any():
        return ("no votes were tied",)
    return (
        f"{tied.sum():,} of {len(tied):,} votes were tied and went to the class of the larger mean probability, "
        f"{right.sum():,} rightly",
    )


_GIVEN: dict[str, Callable[[Panel, np.ndarray], nn.Module]] = {
    "vote": lambda panel, weights: Vote(weights),
    "plurality": lambda panel, weights: Vote(weights, "confidence"),
    "mean": lambda panel, weights: Mean(weights),
    "logits": _of_logits,
    "geometric": lambda panel, weights: Mean(weights / weights.sum(), "logit"),
    "rank": lambda panel, weights: Mean(weights, "rank"),
}


# ---- methods that learn from the targets

Fitted = tuple[nn.Module, np.ndarray, tuple[str, ...]]  # rule, cross-fitted log-probabilities (N, K), notes
Weigh = Callable[[Panel], np.ndarray]  # the members' weights (M,)


def _weighing(weigh: Weigh, panel: Panel, seed: int) -> Fitted:
    """A weighted mean of probabilities that is never right on fewer of the panel's images than the best member."""
    weights, why = _never_worse(weigh, panel)
    notes = ("weights " + ", ".join(f"{weight:.3f}" for weight in weights), *why)
    judged = np.empty_like(panel.logits[0])
    for known, new in _parts(panel, seed):
        judged[new] = _applied(Mean(_never_worse(weigh, panel.choose(known))[0]), panel.choose(new))
    return Mean(weights), judged, notes


def _never_worse(weigh: Weigh, panel: Panel) -> tuple[np.ndarray, tuple[str, ...]]:
    """The weights, or those of the best member alone, and then why."""
    weights = weigh(panel)
    top1, best = accuracy(_applied(Mean(weights), panel), panel.targets), int(panel.top1.argmax())
    if top1 >= panel.top1[best]:
        return weights, ()
    why = f"what was fitted would be right on {top1:.2%}, {panel.names[best]} alone is on {panel.top1[best]:.2%}"
    return np.eye(len(panel))[best], (f"{why}, so it answers alone",)


def _of_least_loss(panel: Panel) -> np.ndarray:
    """The weights whose mean of probabilities has the least log-loss, which is convex in them."""
    of_target = panel.probabilities[:, np.arange(len(panel.targets)), panel.targets].astype(np.float64) + LEAST
    many = len(panel)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = weights @ of_target
        return -np.log(mixed).mean(), -(of_target / mixed).mean(axis=1)

    found = minimize(
        loss,
        np.full(many, 1 / many),
        jac=True,
        bounds=[(0, 1)] * many,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-9, "maxiter": 200},
    ).x
    weights = np.where(found < 1e-6, 0, found)
    return weights / weights.sum()


def _greedily(panel: Panel) -> np.ndarray:
    """Members are added, each as often as it helps: R. Caruana, A. Niculescu-Mizil, G. Crew, A. Ksikes, Ensemble
    selection from libraries of models, ICML 2004, sections 2.1 (with replacement) and 2.2 (sorted start).

    It starts with the best member, then with the second best … until that no longer helps. Of all committees on the way
    the most accurate is taken, of equals the one of less log-loss, so that it is no worse than the best member.
    """
    probabilities = np.ascontiguousarray(panel.probabilities.transpose(2, 0, 1))  # (K, M, N)
    images = np.arange(len(panel.targets))

    def scores(sums: np.ndarray, many: int) -> list[tuple[float, float]]:
        """Accuracy and log-likelihood of each of the sums `(K, …, N)` of so many members' probabilities."""
        of_target = sums[panel.targets, :, images].T
        right = (of_target == sums.max(axis=0)).mean(axis=1)
        likelihood = np.log(of_target / many + LEAST).mean(axis=1)
        return list(zip(right.tolist(), likelihood.tolist(), strict=True))

    alone = scores(probabilities, 1)
    order = sorted(range(len(panel)), key=lambda member: alone[member], reverse=True)
    of_start = scores(probabilities[:, order].cumsum(axis=1), 1)  # the likelihood but for a constant each
    of_start = [(right, more - np.log(many)) for many, (right, more) in enumerate(of_start, 1)]
    best = max(of_start)
    taken = order[: of_start.index(best) + 1]
    chosen, total = list(taken), probabilities[:, taken].sum(axis=1, keepdims=True)
    for _ in range(ROUNDS):
        tried = scores(total + probabilities, len(taken) + 1)
        taken.append(tried.index(max(tried)))
        total = total + probabilities[:, taken[-1:]]
        if max(tried) > best:
            best, chosen = max(tried), list(taken)
    return np.bincount(chosen, minlength=len(panel)) / len(chosen)


def _stacked(panel: Panel, seed: int) -> Fitted:
    """Logistic regression on the members' log-probabilities side by side. Its penalty is chosen, and it is judged, by
    what it says of each part of the images after being fitted on the others.
    """
    _check_classes(panel)
    rows = panel.log_probabilities.transpose(1, 0, 2).reshape(len(panel.targets), -1)  # (N, M * K)
    judged = {setting: np.empty_like(panel.logits[0]) for setting in SETTINGS}
    for known, new in _parts(panel, seed):
        if len(left := np.unique(panel.targets[known])) < 2:
            raise InputError(
                f"stacking is fitted on two classes at least, and where a part of the groups is held out to judge by, "
                f"only images of {panel.classes[left[0]]} are left"
            )
        fitted = None
        for setting in SETTINGS:
            fitted = _logistic(setting, rows[known], panel.targets[known], fitted)
            judged[setting][new] = np.log(LEAST)  # stays for a class of which no image is among the known
            judged[setting][np.ix_(new, fitted.classes_)] = fitted.predict_log_proba(rows[new])
    chosen = min(SETTINGS, key=lambda setting: log_loss(judged[setting], panel.targets))
    fitted = _logistic(chosen, rows, panel.targets)
    return Stack(linear_layer(fitted)).eval(), judged[chosen], (f"logistic regression, C={fitted.C:.2g}",)


def _logistic(
    setting: float, rows: np.ndarray, targets: np.ndarray, before: LogisticRegression | None = None
) -> LogisticRegression:
    """Fitted; it sets out from what it was `before`, with another setting."""
    return fit_one(LogisticRegression(C=setting / len(rows), tol=1e-3, max_iter=1000), rows, targets, before)


def _check_classes(panel: Panel) -> None:
    """Raises InputError unless each class has two images, one to fit on and one to judge by."""
    counts = np.bincount(panel.targets, minlength=len(panel.classes))
    if few := [name for name, count in zip(panel.classes, counts, strict=True) if count < 2]:
        raise InputError(
            f"stacking is fitted on images of each class, two at least, and there are too few of {', '.join(few[:10])}"
        )


def _parts(panel: Panel, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Divide the images into parts, over which classes spread evenly where they can, and give for each part the places
    of all other images, and its own. No group is divided.
    """
    targets, groups, counts = panel.targets, panel.groups, np.bincount(panel.targets)
    fewest = int(counts[counts > 0].min())
    if groups is not None:
        if (many := min(FOLDS, len(np.unique(groups)))) < 2:
            raise InputError("all images are in one group; a method that learns needs two, one of them to judge by")
        if fewest > 1:
            parts = groups_.folds(targets, groups, min(many, fewest), seed)
        else:
            parts = GroupKFold(many, shuffle=True, random_state=seed).split(targets, groups=groups)
        yield from (part for part in parts if len(part[1]))
        return
    if fewest > 1:
        splitter = StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=seed)
    elif len(targets) > 1:
        splitter = KFold(min(FOLDS, len(targets)), shuffle=True, random_state=seed)
    else:
        raise InputError("there is one image only; a method that learns needs two, one to fit on and one to judge by")
    yield from splitter.split(np.zeros(len(targets)), targets)


_FITTED: dict[str, Callable[[Panel, int], Fitted]] = {
    "weighted": partial(_weighing, _of_least_loss),
    "greedy": partial(_weighing, _greedily),
    "stacking": _stacked,
}

METHODS = {**_GIVEN, **_FITTED}
