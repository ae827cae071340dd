"""Rules by which a committee answers.

Each maps what M members say of B images, `(M, B, K)` log-probabilities, to one answer, `(B, K)` log-probabilities.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from cnnzoo.errors import unknown

LEAST = 1e-30  # stands for 0 where a logarithm is taken
TIE = 1e-4  # what the mean probability counts beside a vote, so that it decides between equal ones
SAME = 1 - 1e-6  # share of the most votes from which on it is as many, since sums of weights are rounded


class Mean(nn.Module):
    """The weighted mean of the members' probabilities, of their logits (which for log-probabilities is the geometric
    mean of the probabilities), or of their ranks: the least likely class has rank 1, the most likely K (J.-C. de Borda:
    Memoire sur les elections au scrutin, 1781). Between equal mean ranks the larger mean probability decides. Classes
    that a member finds equally likely get different ranks from it all the same, which one being left to chance.

    Only the proportions of the `weights`, one for each member and none negative, matter; but those of logits together
    are the sharpness of the answer.
    """

    OF = ("probability", "logit", "rank")

    def __init__(self, weights: Sequence[float], of: str = "probability"):
        super().__init__()
        if of not in self.OF:
            raise unknown("kind of mean", of, self.OF)
        self.of = of
        self.register_buffer("weights", torch.tensor(list(weights), dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.weights.float()[:, None, None]  # (M, 1, 1)
        if self.of == "probability":
            return (x + weights.clamp(min=LEAST).log()).logsumexp(0).log_softmax(1)
        if self.of == "logit":
            return (weights * x).sum(0).log_softmax(1)
        places = x.argsort(2, descending=True).argsort(2)  # 0 is the most likely
        return _counted((x.shape[2] - places).float() * weights, x, weights)


class Vote(nn.Module):
    """Each member votes for the class that it thinks most likely. Of equal votes the larger mean probability decides.

    By "choice" every vote counts its member's weight (the majority vote); by "confidence" it counts that times the
    probability which the member gives its choice.
    """

    BY = ("choice", "confidence")

    def __init__(self, weights: Sequence[float], by: str = "choice"):
        super().__init__()
        if by not in self.BY:
            raise unknown("kind of vote", by, self.BY)
        self.by = by
        self.register_buffer("weights", torch.tensor(list(weights), dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.weights.float()[:, None, None]  # (M, 1, 1)
        votes = nn.functional.one_hot(x.argmax(2), x.shape[2]).float()
        if self.by == "confidence":
            votes = votes * x.exp()
        return _counted(votes * weights, x, weights)


class Stack(nn.Module):
    """A linear classifier that was fitted on what the members say: stacking (D. Wolpert: Stacked generalization, 1992).

    `head` maps the members' log-probabilities side by side, `(B, M * K)`, to logits `(B, K)`.
    """

    def __init__(self, head: nn.Linear):
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        side_by_side = x.transpose(0, 1).flatten(1).to(self.head.weight.dtype)
        return self.head(side_by_side).float().log_softmax(1)


def _counted(votes: Tensor, x: Tensor, weights: Tensor) -> Tensor:
    """Log-probabilities in proportion to the votes `(M, B, K)`, and between equal ones by the mean probability."""
    mean, total = (weights * x.exp()).sum(0) / weights.sum(), votes.sum(0)
    foremost = torch.where(total >= SAME * total.amax(1, keepdim=True), mean, -1.0)  # of the classes with most votes
    first = foremost == foremost.amax(1, keepdim=True)  # raised by itself: beside many votes a mean is rounded off
    return ((total + TIE * mean).clamp(min=LEAST).log() + TIE * first).log_softmax(1)


def build(spec: Mapping, members: int, classes: int) -> nn.Module:
    """A rule from what a committee's card says of it. Raises InputError for a kind that is not known."""
    options = dict(spec)
    kind = options.pop("kind")
    if kind == "stack":
        return Stack(nn.Linear(members * classes, classes))
    kinds = {"mean": Mean, "vote": Vote}
    if kind not in kinds:
        raise unknown("rule of a committee", kind, (*kinds, "stack"))
    return kinds[kind](**options)


def describe(rule: nn.Module) -> dict:
    """What `build` makes such a rule of; the values of a stack's head lie with the weights."""
    if isinstance(rule, Stack):
        return {"kind": "stack"}
    weights = rule.weights.tolist()
    if isinstance(rule, Vote):
        return {"kind": "vote", "weights": weights, "by": rule.by}
    return {"kind": "mean", "weights": weights, "of": rule.of}
