"""Committees of shallow classifiers on one frozen net, made in seconds and welded into one head.

Bagging (L. Breiman, "Bagging Predictors", Machine Learning 24, 1996): each member is fitted to a bootstrap sample, and
the mean of their probabilities decides. What a member has not seen judges it: L. Breiman, "Out-of-bag Estimation",
1996. Boosting by SAMME: each member is fitted to images that weigh the more, the more often those before it were wrong,
and votes count by how good a member is (see `resampling`).
"""

import time
from dataclasses import asdict, dataclass, replace

import numpy as np
from sklearn.base import ClassifierMixin
from torch import Tensor, nn

from cnnzoo import calibrate, machine
from cnnzoo.errors import InputError, counted
from cnnzoo.models import _heads
from cnnzoo.resampling import bootstrap, out_of_bag, samme, unseen
from cnnzoo.shown import Shown
from cnnzoo.telling import Tell, silent
from cnnzoo.transfer.classifiers import Data, Kind, fit_one, kinds
from cnnzoo.transfer.probe import Probe, Score, predict

WEAK = "centroid"  # boosted where nobody names a classifier: better ones are right on all training images at once


@dataclass(frozen=True)
class Member:
    """One classifier of a committee."""

    weight: float  # what its vote, or its probability, counts
    error: float  # of bagging, on the images out of its bag; of boosting, on all of them, as they were weighted
    val_top1: float


@dataclass(frozen=True)
class ProbeCommittee(Shown):
    """Several classifiers of one kind, and what they reach together."""

    made_by: str  # bagging or boosting
    members: tuple[Member, ...]
    val_top1: float
    out_of_bag: float | None = None  # accuracy on each training image of the members that have not seen it
    out_of_bag_images: int = 0  # that some member has not seen
    ended: str = ""  # why boosting ended before it had as many members as were asked for

    def __str__(self) -> str:
        alone = sorted(member.val_top1 for member in self.members)
        lines = [
            f"{self.made_by}, {counted(len(self.members), 'member')}: validation {self.val_top1:.2%}, "
            f"each alone {alone[0]:.2%} to {alone[-1]:.2%}"
        ]
        if self.out_of_bag is not None:
            lines.append(f"out of bag {self.out_of_bag:.2%} of {self.out_of_bag_images:,} training images")
        return "\n".join(lines + [self.ended] * bool(self.ended))


@dataclass(frozen=True)
class Gathered(Probe):
    """A probe whose head is a committee; its first score is the committee's, the second that of one such classifier."""

    committee: ProbeCommittee

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.committee}"

    def judged(self, outputs: Tensor, labels: np.ndarray) -> "Gathered":
        found = super().judged(outputs, labels)
        return replace(found, committee=replace(self.committee, val_top1=found.scores[0].val_top1))

    def to_dict(self) -> dict:
        return super().to_dict() | {"committee": asdict(self.committee)}


@machine.one_blas_thread()
def gather(
    found: Probe,
    data: Data,
    *,
    bag: int | None = None,
    boost: int | None = None,
    seed: int = 0,
    tell: Tell = silent,
) -> Gathered:
    """Put a committee of many in the place of the one classifier that a probe has taken.

    Args:
        found: what `probe.fit` found, whose first score names the classifier and its setting; boosting takes the first
            of its settings, which regularises most.
        data: what `probe.fit` had; a bootstrap sample has all views of an image, and all images of a group.
        bag: how many bootstrap samples.
        boost: or how many rounds of boosting.
        seed: of the samples.
        tell: is given a word before each member is fitted.

    Raises:
        InputError: if the first of the boosted is no better than chance.
    """
    started = time.perf_counter()
    name = found.scores[0].classifier
    kind = kinds(len(data.labels), seed)[name]
    setting = found.scores[0].setting if bag else next(iter(kind.settings))
    classifier = kind.settings[setting]
    made = _bag(kind, classifier, data, bag, seed, tell) if bag else _boost(kind, classifier, data, boost, tell)
    head = _weld(made, data)
    *alone, together = (float(_right(each, data.val_vectors, data.val_labels).mean()) for each in (*made.heads, head))
    members = tuple(map(Member, made.rule["weights"], made.errors, alone))
    committee = ProbeCommittee("bagging" if bag else "boosting", members, together, **made.facts)
    seconds = time.perf_counter() - started
    score = Score(f"{len(members)} x {name}", setting, None, together, seconds)
    return Gathered((score, *found.scores), head, committee)


@dataclass(frozen=True)
class _Made:
    """Heads that were fitted, before they are one, and before the validation images judge them."""

    heads: list[nn.Module]
    rule: dict  # by which they answer together, as `_rules.describe` describes it
    errors: list[float]
    temperature: float  # of their probabilities
    facts: dict  # what else a ProbeCommittee tells


def _bag(kind: Kind, classifier: ClassifierMixin, data: Data, many: int, seed: int, tell: Tell) -> _Made:
    heads, outputs, out = [], [], []
    for number in range(many):
        tell(f"bag {number + 1} of {many}")
        drawn = bootstrap(data.labels, (seed, number), data.groups)
        own = replace(data, vectors=data.vectors[drawn])  # in each place an image of the same class as before
        heads.append(_fitted(kind, classifier, own))
        outputs.append(predict(heads[-1], data.vectors[:, 0]).numpy())
        out.append(unseen(drawn, len(drawn), data.groups))
    said, out = np.stack(outputs), np.stack(out)  # (M, N, K), (M, N)
    wrong = (said.argmax(axis=2) != data.labels) & out
    errors = wrong.sum(axis=1) / out.sum(axis=1).clip(min=1)
    temperature = calibrate.fit_temperature(said[out], np.broadcast_to(data.labels, out.shape)[out])
    shares = calibrate.softmax(said.reshape(-1, data.classes), temperature).reshape(said.shape)
    top1, images = out_of_bag(shares, out, data.labels)
    rule = {"kind": "mean", "weights": [1 / many] * many}
    return _Made(heads, rule, errors.tolist(), temperature, {"out_of_bag": top1, "out_of_bag_images": images})


def _boost(kind: Kind, classifier: ClassifierMixin, data: Data, many: int, tell: Tell) -> _Made:
    count, views = data.vectors.shape[:2]
    weights = np.full(count, 1 / count)
    heads, rounds, ended = [], [], ""
    for number in range(1, many + 1):
        tell(f"round {number} of {many}")
        head = _fitted(kind, classifier, data, np.repeat(weights * count, views))
        done = samme(weights, _right(head, data.vectors[:, 0], data.labels), data.classes)
        if done.usable:
            heads.append(head)
            rounds.append(done)
        if not done.goes_on:
            why = "right on every training image" if done.usable else "no better than chance"
            ended = f"boosting ended with member {number}, which is {why}" if number < many else ""
            break
        weights = done.weights
    if not heads:
        raise InputError(f"boosting needs classifiers better than chance; the first is wrong on {done.error:.1%}")
    rule = {"kind": "vote", "weights": [done.alpha for done in rounds]}
    return _Made(heads, rule, [done.error for done in rounds], 1.0, {"ended": ended})


def _fitted(kind: Kind, classifier: ClassifierMixin, data: Data, weights: np.ndarray | None = None) -> nn.Module:
    """A head fitted to all images in all views; `weights` `(N * V,)` are what each counts, 1 on average."""
    vectors, labels = data.rows(np.arange(len(data.labels)))
    return kind.weld(fit_one(classifier, kind.prepare(data, vectors), labels, weights=weights), data).eval()


def _right(head: nn.Module, vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`(N,)` bool, whether a head names each vector rightly."""
    return predict(head, vectors).argmax(1).numpy() == labels


def _weld(made: _Made, data: Data) -> nn.Module:
    specs = [_heads.describe(head) for head in made.heads]
    welded = _heads.CommitteeHead(data.vectors.shape[-1], data.classes, specs, made.rule, made.temperature)
    for place, head in enumerate(made.heads):
        welded.heads[place] = head
    return welded.eval()
