"""`cnnzoo browse`: the images that a config trains on, as the net gets to see them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cnnzoo import assemble
from cnnzoo import config as config_
from cnnzoo.config import Config
from cnnzoo.data import sources
from cnnzoo.data.sources import Dataset
from cnnzoo.errors import InputError, at_least, counted
from cnnzoo.telling import Tell
from cnnzoo.train.distributed import Team
from cnnzoo.visualize import drawing

COLUMNS = 6
TOLD = 0.005  # share of a class in a target, from which on it is named


@dataclass(frozen=True, repr=False)
class Batch(drawing.Result):
    """The first images of an epoch's first batch, after all augmentation."""

    images: np.ndarray  # (N, H, W, C) uint8
    targets: np.ndarray  # (N, K) float32: each image's classes by their shares, a single 1 where none are mixed
    classes: tuple[str, ...]
    epoch: int  # from 1
    source: str

    def names(self) -> list[str]:
        """Of each image its class, or what it is mixed of."""
        told = []
        for shares in self.targets:
            mixed = [(shares[place], self.classes[place]) for place in np.argsort(-shares) if shares[place] > TOLD]
            told.append(mixed[0][1] if len(mixed) == 1 else " + ".join(f"{share:.0%} {name}" for share, name in mixed))
        return told

    def figure(self):
        names, many = self.names(), len(self.images)
        rows = [range(start, min(start + COLUMNS, many)) for start in range(0, many, COLUMNS)]
        pictures, titles = ([[part[place] for place in row] for row in rows] for part in (self.images, names))
        return drawing.page(pictures, titles, side=1.8)

    def __str__(self) -> str:
        many, height, width, _ = self.images.shape
        return f"{counted(many, 'image')} of {self.source} as epoch {self.epoch} begins with them, {height}x{width}"


def browse(
    config: Config | Mapping | str | Path | None = None,
    *,
    epoch: int = 1,
    many: int = 24,
    data: Dataset | None = None,
    tell: Tell = print,
) -> Batch:
    """The images that a config's training begins an epoch with: cut, turned, mixed and erased as the net sees them.

    Args:
        config: a `Config`, a mapping like the YAML, or a YAML file, as of a run; None takes the defaults.
        epoch: from 1; with `augment.grows_from` images grow from epoch to epoch.
        many: of the batch's images, at most.
        data: the images, where they are at hand already.
        tell: is given each line meant for a person.

    Raises:
        InputError: for anything wrong with the config or the data, and for an epoch that the config has not.
    """
    at_least("epoch", epoch, 1)
    at_least("many", many, 1)
    sources.expect_decoded(data)
    config = config_.read(config)
    epochs = max(sum(config.phase_lengths), 1)
    if epoch > epochs:
        raise InputError(f"epoch is {epoch}, but the config has {counted(epochs, 'epoch')}")
    data = data or assemble.load_data(config)
    for note in data.notes:
        tell(note)
    device, classes = torch.device("cpu"), len(data.classes)
    batches = assemble.train_batches(config, data, device, assemble.shared_batch(config, data, Team()), classes)
    images, targets = (part[:many] for part in next(batches.epoch(epoch - 1)))
    if targets.ndim == 1:
        targets = torch.nn.functional.one_hot(targets, classes).float()
    mean, std = (torch.tensor(values) for values in (data.preprocess.mean, data.preprocess.std))
    pixels = (images.permute(0, 2, 3, 1) * std + mean).mul(255).round().clamp(0, 255).to(torch.uint8)
    return Batch(pixels.numpy(), targets.numpy(), data.classes, epoch, data.name)
