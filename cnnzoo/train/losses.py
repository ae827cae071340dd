"""Losses. Only this file knows what to do with the outputs of auxiliary heads."""

import torch
from torch import Tensor, nn

from cnnzoo.config import LossConfig
from cnnzoo.errors import InputError


class Loss(nn.Module):
    """Mean loss of a batch: of the logits, plus `aux_weight` times that of each auxiliary head (GoogLeNet paper,
    section 5).
    """

    def __init__(self, criterion: nn.Module, aux_weight: float):
        super().__init__()
        self.criterion = criterion
        self.aux_weight = aux_weight

    def forward(self, outputs: Tensor | tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """`outputs` is logits `(B, K)`, or `(logits, *aux)`; `targets` is `(B,)` int64, or shares `(B, K)`."""
        if isinstance(outputs, Tensor):
            return self.criterion(outputs.float(), targets)
        logits, *aux = outputs
        return self.criterion(logits.float(), targets) + self.aux_weight * sum(
            self.criterion(a.float(), targets) for a in aux
        )


class MAP(nn.Module):
    """Equation 9 of LeCun et al. 1998: with logits -y, the mean of y_target + log(exp(-j) + sum_i exp(-y_i)).

    It is cross-entropy with one more class, the rubbish class, whose logit is the constant -j.
    """

    def __init__(self, j: float):
        super().__init__()
        self.j = j

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        rubbish = logits.new_full((len(logits), 1), -self.j)
        return nn.functional.cross_entropy(torch.cat([logits, rubbish], dim=1), targets)


def build(config: LossConfig, own: str = "cross_entropy", class_weights: Tensor | None = None) -> Loss:
    """The loss of a config; `own` is what `auto` stands for, `class_weights` `(K,)` is what each class's images count.

    Raises InputError for weights of a loss that takes none.
    """
    name = own if config.name == "auto" else config.name
    if class_weights is not None and name != "cross_entropy":
        raise InputError(f"train.balance loss goes with cross_entropy, not with {name}; take train.balance sampler")
    criterion = {
        "cross_entropy": lambda: nn.CrossEntropyLoss(class_weights, label_smoothing=config.label_smoothing),
        "map": lambda: MAP(config.rubbish),
    }[name]()
    return Loss(criterion, config.aux_weight)
