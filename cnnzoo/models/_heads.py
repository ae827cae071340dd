"""Heads that a net can be given in place of its own. Each maps `(B, num_features)` to logits `(B, num_classes)`."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from cnnzoo.errors import unknown
from cnnzoo.models import _rules


class MLP(nn.Sequential):
    """One hidden layer with ReLU."""

    def __init__(self, in_features: int, num_classes: int, hidden: int):
        super().__init__(nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))
        self.in_features, self.out_features = in_features, num_classes


class Neighbours(nn.Module):
    """The `k` nearest of the vectors it was given vote, nearer ones more: by 1 / distance between vectors of length 1.

    The logits are logarithms of the shares of the votes.
    """

    SMALLEST = 1e-3  # share of a class that nobody votes for
    CLOSEST = 1e-4  # squared distance, below which rounding would decide

    def __init__(self, in_features: int, num_classes: int, rows: int, k: int):
        super().__init__()
        self.in_features, self.out_features, self.k = in_features, num_classes, k
        self.register_buffer("vectors", torch.empty(rows, in_features, dtype=torch.float32))  # each of length 1
        self.register_buffer("labels", torch.empty(rows, dtype=torch.int64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if not self.vectors.is_meta:
            self.vectors.zero_()
            self.labels.zero_()

    def forward(self, x: Tensor) -> Tensor:
        similarity = nn.functional.normalize(x.float()) @ self.vectors.T
        nearest, rows = similarity.topk(self.k)
        votes = 1 / (2 - 2 * nearest).clamp(min=self.CLOSEST).sqrt()
        for_class = nn.functional.one_hot(self.labels[rows], self.out_features).float()  # (B, k, num_classes)
        shares = (votes[:, :, None] * for_class).sum(1) / votes.sum(1, keepdim=True)
        return shares.clamp(min=self.SMALLEST).log()


class CommitteeHead(nn.Module):
    """Several heads that see the same vector, and a rule (see `_rules`) that makes one answer of theirs.

    Args:
        in_features: length of the vector.
        num_classes: K.
        heads: M of them, as `describe` describes them.
        rule: as `_rules.describe` does.
        temperature: at which the heads' probabilities are calibrated.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        heads: Sequence[Mapping],
        rule: Mapping,
        temperature: float = 1.0,
    ):
        super().__init__()
        self.in_features, self.out_features, self.temperature = in_features, num_classes, temperature
        self.heads = nn.ModuleList(build(head, in_features) for head in heads)
        with torch.device("cpu"):  # what the rule knows lies in no file of weights, and so must be there at once
            self.rule = _rules.build(rule, len(heads), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        said = torch.stack([head(x).float() / self.temperature for head in self.heads])
        return self.rule(said.log_softmax(2))  # (M, B, K) to (B, K)


KINDS = {"linear": nn.Linear, "mlp": MLP, "neighbours": Neighbours, "committee": CommitteeHead}


def build(spec: Mapping, in_features: int) -> nn.Module:
    """A head from what a run's card says of it: its kind, `num_classes` and sizes.

    Raises InputError for a kind that is not known.
    """
    sizes = dict(spec)
    kind = sizes.pop("kind")
    if kind not in KINDS:
        raise unknown("kind of head", kind, KINDS)
    return KINDS[kind](in_features, sizes.pop("num_classes"), **sizes)


def describe(head: nn.Module) -> dict:
    """What `build` makes such a head of."""
    kind = next(kind for kind, made in KINDS.items() if type(head) is made)
    sizes = {
        "mlp": lambda: {"hidden": head[0].out_features},
        "neighbours": lambda: {"rows": len(head.labels), "k": head.k},
        "committee": lambda: {
            "heads": [describe(each) for each in head.heads],
            "rule": _rules.describe(head.rule),
            "temperature": head.temperature,
        },
    }
    return {"kind": kind, "num_classes": head.out_features, **sizes.get(kind, dict)()}
