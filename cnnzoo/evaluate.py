"""How good a trained net is on images it has not seen."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import precision_recall_fscore_support
from tqdm import tqdm

from cnnzoo import zoo
from cnnzoo.config import DataConfig
from cnnzoo.data import sources
from cnnzoo.data.batches import EvalBatches
from cnnzoo.data.crops import COUNTS
from cnnzoo.device import pick_device
from cnnzoo.errors import InputError
from cnnzoo.train.validation import logits


@dataclass(frozen=True)
class Evaluation:
    """Figures over N images of K classes."""

    classes: tuple[str, ...]
    count: int
    top1: float  # fractions
    top5: float
    loss: float  # mean cross-entropy
    confusion: np.ndarray  # (K, K): row the true class, column the predicted one
    precision: np.ndarray  # (K,)
    recall: np.ndarray  # (K,)

    def __str__(self) -> str:
        lines = [f"top-1 {self.top1:.2%}   top-5 {self.top5:.2%}   loss {self.loss:.4f}   {self.count:,} images"]
        width = max(len("class"), *map(len, self.classes))
        lines.append(f"{'class':<{width}}  images  precision  recall")
        for row in zip(self.classes, self.confusion.sum(axis=1), self.precision, self.recall, strict=True):
            lines.append(f"{row[0]:<{width}}  {row[1]:>6}  {row[2]:>9.1%}  {row[3]:>6.1%}")
        return "\n".join(lines)

    def to_dict(self) -> dict:
        values = {
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "images": self.count,
            "classes": list(self.classes),
        }
        return values | {key: getattr(self, key).tolist() for key in ("precision", "recall", "confusion")}


def measure(outputs: np.ndarray, targets: np.ndarray, classes: tuple[str, ...]) -> Evaluation:
    """Figures from logits `(N, K)` and targets `(N,)`."""
    scores, truth = torch.from_numpy(outputs), torch.from_numpy(targets)
    best = scores.topk(min(5, scores.shape[1])).indices
    hits = best == truth[:, None]
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    predicted = best[:, 0].numpy()
    known = predicted < len(classes)  # a head may have more outputs than the data has classes
    np.add.at(confusion, (targets[known], predicted[known]), 1)
    precision, recall, _, _ = precision_recall_fscore_support(
        targets, predicted, labels=np.arange(len(classes)), zero_division=0.0
    )
    loss = torch.nn.functional.cross_entropy(scores.double(), truth).item()
    top1, top5 = hits[:, 0].double().mean().item(), hits.any(1).double().mean().item()
    return Evaluation(classes, len(targets), top1, top5, loss, confusion, precision, recall)


def evaluate(
    run_or_model: str | Path,
    data: str | None = None,
    *,
    pretrained: bool | str = False,
    root: str | None = None,
    crops: int = 1,
    batch_size: int = 256,
    device: str = "auto",
) -> Evaluation:
    """A run, or a net of the registry with `pretrained` weights, on images it was not trained on.

    `data` is a source's name or a folder; None is what the run was validated on. Of a source without validation images
    of its own, a run is judged on the share that it held out, and every image of any other source counts. Classes are
    matched by name. With 10 or 144 `crops` (see data.crops) an image's probabilities are the mean of theirs.

    Raises InputError where there is nothing to judge, or where the data has classes that the net does not know.
    """
    if crops not in COUNTS:
        raise InputError(f"crops is {crops}, but must be one of {', '.join(map(str, COUNTS))}")
    net, own = zoo.open_net(run_or_model, pretrained)
    if data is None and own is None:
        raise InputError("which images? name a data set or a folder by --data")
    is_own = own is not None and data in (None, own.source)
    chosen = own if is_own else DataConfig(source=data)
    if root is not None:
        chosen = replace(chosen, root=root)
    preprocess = zoo.preprocessing(net)
    part, classes, _ = sources.held_out(chosen, preprocess, is_own, crops)
    names, labels = _align(getattr(net, "classes", None), net.num_classes, classes, part.labels, chosen.source)
    where = pick_device(device)
    batches = EvalBatches(part.images, labels, max(batch_size // crops, 1), preprocess.mean, preprocess.std, where)
    judged = net if crops == 1 else MeanOfCrops(net, crops)
    outputs, targets = logits(
        judged.to(where), tqdm(batches, desc="evaluating", unit="batch", leave=False, disable=None)
    )
    return measure(outputs.numpy(), targets.numpy(), names)


class MeanOfCrops(torch.nn.Module):
    """Images `(B * crops, C, H, W)` to the logarithms `(B, K)` of each image's mean probabilities."""

    def __init__(self, net: torch.nn.Module, crops: int):
        super().__init__()
        self.net, self.crops = net, crops

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).float().softmax(1).unflatten(0, (-1, self.crops)).mean(1).log()


def _align(
    known: tuple[str, ...] | None, outputs: int, classes: tuple[str, ...], labels: np.ndarray, source: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """The net's class names, and the labels as its outputs count them.

    Where a net knows ImageNet's thousand, classes may be called by their WordNet ids, as ImageNet's folders are.
    """
    if known is None:
        if outputs != len(classes):
            raise InputError(f"{source} has {len(classes)} classes, but the net has {outputs} outputs without names")
        return classes, labels
    outputs_of = {name: place for place, name in reversed([*enumerate(known)])}
    if len(known) == 1000 and all(re.fullmatch(r"n\d{8}", name) for name in classes):
        from timm.data import ImageNetInfo

        outputs_of = {wordnet_id: place for place, wordnet_id in enumerate(ImageNetInfo().label_names())}
    if strangers := [name for name in classes if name not in outputs_of]:
        raise InputError(
            f"{source} has classes that the net does not know: {', '.join(strangers[:10])}; "
            f"it knows {', '.join(known[:10])}"
        )
    return known, np.array([outputs_of[name] for name in classes])[labels]
