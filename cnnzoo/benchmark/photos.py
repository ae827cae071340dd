"""From a folder of photos to a trained net: our whole path beside torchvision's data pipeline and tutorials' loops.

The photos are JPEGs of 500x375, as ImageNet's mostly are, each a part of one of $CNNZOO_DATA's imagenet_samples.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from cnnzoo import bars, learn
from cnnzoo.benchmark import peers
from cnnzoo.benchmark.harness import Bench, Row, cached_in, data_root
from cnnzoo.benchmark.loops import as_in_fit, plain_steps, train, trainer_of
from cnnzoo.config import AugmentConfig, DataConfig
from cnnzoo.data import sources
from cnnzoo.data.augment import Augment
from cnnzoo.data.batches import TrainBatches
from cnnzoo.telling import silent
from cnnzoo.train.anatomy import Stepper

CLASSES = 10
NONE = "not run: $CNNZOO_DATA has no imagenet_samples"


@dataclass(frozen=True)
class Size:
    """How much there is to do. What the suite runs by default is for a GPU."""

    photos: int = 5_000  # to train on
    held_out: int = 500
    side: int = 224  # of what the net sees
    batch: int = 256
    workers: int = os.cpu_count() or 1  # of the peers' DataLoader; ours has as many threads
    epochs: tuple[int, int] = (10, 5)  # of a linear probe and of fine-tuning


def epochs(bench: Bench, size: Size = Size(), asked: dict[str, float] | None = None) -> Iterator[Row]:
    """G5: epochs over a folder of JPEGs, resnet18 and resnet50, beside torchvision's pipeline of as many workers.

    Once with all that was decoded kept from the epoch before, and once with nothing kept, as in a run's first epoch.
    """
    with _folder(bench, size) as folder:
        for name, least in (asked or {"resnet18": 4.0, "resnet50": 1.4}).items() if folder else ():
            yield from _epochs(bench, folder, size, name, least)


def _epochs(bench: Bench, folder: Path, size: Size, name: str, least: float) -> Iterator[Row]:
    net, peer, library = peers.pair(name, bench.device)
    best = peers.pair(name, bench.device)[1]
    steps = {
        f"{library}, defaults (fp32)": plain_steps(peer, 1),
        f"{library}, best flags": plain_steps(best, 1, bench.precision, channels_last=True),
    }

    def stepper() -> Stepper:
        batches = _batches(folder, size, bench.device)
        return as_in_fit(trainer_of(net, batches, [], precision=bench.precision))

    def epoch(ours: Stepper, number: int) -> None:
        batches = ours.feed.batches
        train(ours, batches.epoch(number), len(batches))

    def first() -> None:
        _forget(folder)
        epoch(stepper(), 0)

    def plain(step: Callable, loader: Callable[[], DataLoader]) -> Callable[[], None]:
        def side() -> None:
            for images, targets in loader():
                step(*_moved(images, targets, bench.device))

        return side

    many = size.photos // size.batch * size.batch
    what, flags = f"{name}, {bench.precision}, {many:,} JPEGs", f"{library}, best flags"
    sides = {peer: plain(step, lambda: _loader(folder, size, bench.device)) for peer, step in steps.items()}
    yield from bench.contest(f"{what}, first epoch", first, sides, many, wanted={flags: 1.8})

    kept, numbers, loader = stepper(), count(), _loader(folder, size, bench.device)

    def later() -> None:
        epoch(kept, next(numbers))

    sides = {peer: plain(step, lambda: loader) for peer, step in steps.items()}
    yield from bench.contest(f"{what}, later epochs", later, sides, many, wanted={flags: least})


def transfer(bench: Bench, size: Size = Size(batch=64), name: str = "resnet50") -> Iterator[Row]:
    """G6: a linear probe and a fine-tuning of all of resnet50, whole runs, beside 10 and 5 epochs of the plain loop.

    Weights are random, which costs the same. The plain loop trains and validates in each epoch, as tutorials do: a new
    head on the frozen net, or all of it. Ours begins with an empty cache, and leaves a finished run.
    """
    with _folder(bench, size) as folder:
        if folder is None:
            return
        net, library = peers.pair(name, bench.device)[1:]
        weights = folder.parent / "weights.pth"
        torch.save(_with_statistics(net, size.side).state_dict(), weights)
        loaders = [_loader(folder, size, bench.device, part) for part in ("train", "val")]
        keys = (f"--data.size={size.side}", f"--train.device={bench.device}", "--train.patience=null")
        run = folder.parent / "run"
        probe_epochs, full_epochs = size.epochs
        full = {"mode": "full", "epochs": [full_epochs], "batch_size": size.batch}

        def ours(method: Callable, **more) -> Callable[[], None]:
            def side() -> None:
                _forget(folder)
                shutil.rmtree(run, ignore_errors=True)
                method(folder, name, str(weights), run=run, overrides=keys, tell=silent, **more)

            return side

        for what, side, epochs, frozen, asked in (
            ("linear probe", ours(learn.probe, classifier="logistic"), probe_epochs, True, 25.0),
            ("fine-tuning", ours(learn.finetune, **full), full_epochs, False, 1.4),
        ):
            flags = {"defaults (fp32)": ("fp32", False), "best flags": (bench.precision, True)}
            plain = {
                f"plain loop, {library}, {told}": _plain(bench, name, loaders, epochs, frozen, *flag)
                for told, flag in flags.items()
            }
            wanted = dict.fromkeys(list(plain)[:1], asked)
            told = f"{name}, {what}, {epochs} epochs over {size.photos:,} JPEGs"
            yield from bench.contest(told, side, plain, work=1, unit="runs/s", wanted=wanted)


def _plain(
    bench: Bench,
    name: str,
    loaders: Sequence[DataLoader],
    epochs: int,
    frozen: bool,
    precision: str,
    channels_last: bool,
) -> Callable[[], None]:
    """Transfer learning as in PyTorch's tutorial of that name, with workers."""
    net = peers.pair(name, bench.device)[1].requires_grad_(not frozen)
    net.fc = nn.Linear(net.fc.in_features, CLASSES, device=bench.device)
    step = plain_steps(net, 1, precision, channels_last)
    train, val = loaders

    def side() -> None:
        for _ in range(epochs):
            net.train()
            for images, targets in train:
                step(*_moved(images, targets, bench.device))
            net.eval()
            with torch.inference_mode(), torch.autocast(bench.device.type, torch.bfloat16, precision == "bf16"):
                for images, targets in val:
                    images, targets = _moved(images, targets, bench.device)
                    (net(images).argmax(1) == targets).sum().item()

    return side


def _with_statistics(net: nn.Module, side: int) -> nn.Module:
    """The net with BatchNorm's statistics of some noise, without which a deep random net overflows."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.randn(16, 3, side, side, device=next(net.parameters()).device))
    return net


# ---- ours and theirs, from the same photos


def _batches(folder: Path, size: Size, device: torch.device) -> TrainBatches:
    """Batches as `cnnzoo train` has them with flip and crop: resized."""
    augment = AugmentConfig(flip=True, crop="resized")
    data = sources.load(DataConfig(source=str(folder), size=size.side), augment, size.side)
    p = data.preprocess
    batches = Augment(augment, p.size, p.mean, p.std)
    return TrainBatches(data.train.images, data.train.labels, size.batch, batches, seed=0, device=device)


def _loader(folder: Path, size: Size, device: torch.device, part: str = "train") -> DataLoader:
    """Batches as torchvision's training script has them."""
    from torchvision import datasets

    training = part == "train"
    transforms = peers.transforms(size.side, round(size.side * 8 / 7), training)
    photos = datasets.ImageFolder(folder / part, transforms)
    workers = {"num_workers": size.workers, "persistent_workers": size.workers > 0}
    on_gpu = device.type == "cuda"
    return DataLoader(photos, size.batch, shuffle=training, drop_last=training, pin_memory=on_gpu, **workers)


def _moved(images: torch.Tensor, targets: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return images.to(device, non_blocking=True), targets.to(device, non_blocking=True)


# ---- the photos


@contextmanager
def _folder(bench: Bench, size: Size) -> Iterator[Path | None]:
    """A folder with train/ and val/, and a cache of its own, for as long as it is needed; None without photos."""
    real = real_ones()
    if not real:
        bench.note(NONE)
        yield None
        return
    with tempfile.TemporaryDirectory() as place, cached_in(Path(place) / "cache"):
        folder = Path(place) / "photos"
        for part, many, first in (("train", size.photos, 0), ("val", size.held_out, size.photos)):
            make_photos(folder / part, real, range(first, first + many))
        yield folder


def _forget(folder: Path) -> None:
    """What was kept of the photos."""
    shutil.rmtree(folder.parent / "cache", ignore_errors=True)


def real_ones() -> list[Path]:
    return sorted((data_root() / "imagenet_samples").glob("*.jpg"))


def make_photos(folder: Path, real: Sequence[Path], numbers: range) -> None:
    """A JPEG of 500x375 for each number, in class folders: a part of a real photo, drawn by the number, enlarged."""
    for kind in range(CLASSES):
        (folder / str(kind)).mkdir(parents=True)

    def make(number: int) -> None:
        rng = np.random.default_rng(number)
        with Image.open(real[number % len(real)]) as file:
            photo = file.convert("RGB")
        width, height = (round(side * rng.uniform(0.7, 1)) for side in photo.size)
        left, top = rng.integers(photo.width - width + 1), rng.integers(photo.height - height + 1)
        part = photo.resize((500, 375), Image.Resampling.BICUBIC, (left, top, left + width, top + height))
        part.save(folder / str(number % CLASSES) / f"{number}.jpg", quality=92)

    with ThreadPoolExecutor() as pool:
        list(bars.show(pool.map(make, numbers), "photos", len(numbers)))
