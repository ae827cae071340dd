"""Losses. Only this file knows what to do with the outputs of auxiliary heads."""

import torch
from torch import Tensor, nn

from cnnzoo.config import LossConfig
from cnnzoo.errors import InputError


class Loss(nn.Module):
    """Mean loss of a batch: of the logits, plus `aux_weight` times that of each auxiliary head (GoogLeNet paper,
    section 5).
    """

    def __init__(self, criterion: nn.Module, aux_weight: float, teaching: "Teaching | None" = None):
        super().__init__()
        self.criterion = criterion
        self.aux_weight = aux_weight
        self.teaching = teaching

    def forward(self, outputs: Tensor | tuple[Tensor, ...], targets: Tensor, images: Tensor | None = None) -> Tensor:
        """`outputs` is logits `(B, K)`, or `(logits, *aux)`; `targets` is `(B,)` int64, or shares `(B, K)`; `images`
        `(B, C, H, W)` are what a teacher is shown.
        """
        logits, *aux = [outputs] if isinstance(outputs, Tensor) else outputs
        loss = self.criterion(logits.float(), targets)
        if aux:
            loss = loss + self.aux_weight * sum(self.criterion(a.float(), targets) for a in aux)
        return self.teaching(loss, logits.float(), images) if self.teaching else loss


class Teaching(nn.Module):
    """A trained net's answers as further targets (Hinton, Vinyals, Dean 2015, arXiv 1503.02531, section 2).

    The loss becomes `(1 - weight) * loss + weight * T^2 * KL(teacher || net)`, both softened by the temperature T.
    """

    def __init__(self, teacher: nn.Module, weight: float, temperature: float):
        super().__init__()
        self.teacher = teacher.eval().requires_grad_(False)
        self.weight, self.temperature = weight, temperature

    def train(self, mode: bool = True) -> "Teaching":
        return super().train(False)

    def forward(self, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = (self.teacher(images).float() / self.temperature).log_softmax(1)
        given = (logits / self.temperature).log_softmax(1)
        apart = nn.functional.kl_div(given, wanted, reduction="batchmean", log_target=True)
        return (1 - self.weight) * loss + self.weight * self.temperature**2 * apart


class CrossEntropy(nn.Module):
    """The mean over the images, weighted by class. Weights are 1 on average, so that a batch gives the same loss when
    it is split into parts or shared by several processes.
    """

    def __init__(self, class_weights: Tensor | None = None, label_smoothing: float = 0.0):
        super().__init__()
        self.class_weights, self.label_smoothing = class_weights, label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """`targets` is `(B,)` int64, or shares `(B, K)`."""
        options = {"weight": self.class_weights, "label_smoothing": self.label_smoothing}
        if self.class_weights is None:
            return nn.functional.cross_entropy(logits, targets, **options)
        return nn.functional.cross_entropy(logits, targets, **options, reduction="sum") / len(targets)


class BinaryCrossEntropy(nn.Module):
    """Each class a yes or no of its own, the mean over all (Wightman, Touvron, Jegou 2021, arXiv 2110.00476,
    section 3).
    """

    def __init__(self, label_smoothing: float = 0.0):
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """`targets` is `(B,)` int64, or shares `(B, K)`."""
        if targets.ndim == 1:
            targets = nn.functional.one_hot(targets, logits.shape[1])
        targets = targets.float() * (1 - self.label_smoothing) + self.label_smoothing / logits.shape[1]
        return nn.functional.binary_cross_entropy_with_logits(logits, targets)


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


def build(
    config: LossConfig,
    own: str = "cross_entropy",
    class_weights: Tensor | None = None,
    teacher: nn.Module | None = None,
    mixes: bool = False,
) -> Loss:
    """The loss of a config; `own` is what `auto` stands for, `class_weights` `(K,)` is what each class's images count.

    Raises InputError for weights, or smoothed or mixed labels (`mixes`), of a loss that takes none.
    """
    name = own if config.name == "auto" else config.name
    if name == "map" and (mixes or config.label_smoothing):
        what = "augment.mixup and cutmix go" if mixes else "loss.label_smoothing goes"
        raise InputError(f"{what} with loss.name cross_entropy or bce, not with map, which knows no shared labels")
    if class_weights is not None and name != "cross_entropy":
        raise InputError(f"train.balance loss goes with cross_entropy, not with {name}; take train.balance sampler")
    criterion = {
        "cross_entropy": lambda: CrossEntropy(class_weights, config.label_smoothing),
        "bce": lambda: BinaryCrossEntropy(config.label_smoothing),
        "map": lambda: MAP(config.rubbish),
    }[name]()
    teaching = None if teacher is None else Teaching(teacher, config.teacher_weight, config.temperature)
    return Loss(criterion, config.aux_weight, teaching)
