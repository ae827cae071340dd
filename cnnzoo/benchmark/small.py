"""Training on small images, of 28 and 32 pixels: ours beside DataLoader with PIL and the loop everybody starts with."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cnnzoo import config as config_
from cnnzoo import zoo
from cnnzoo.benchmark.harness import Bench, Row, Side, data_root
from cnnzoo.benchmark.loops import as_in_fit, batch, plain_steps, train, trainer_of
from cnnzoo.config import AugmentConfig, Config
from cnnzoo.data import sources
from cnnzoo.data.arrays import ArrayImages
from cnnzoo.data.augment import Augment, Windows
from cnnzoo.data.batches import EvalBatches, TrainBatches, shuffled
from cnnzoo.data.draws import Draws
from cnnzoo.train import forms
from cnnzoo.train.trainer import EpochReport

CIFAR = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR_BATCH = 128
MOST_EPOCHS = 40  # of the plain loop on MNIST

MNIST = {  # configs/lenet5_mnist_fast.yaml
    "run": "runs/lenet5_mnist_fast",
    "model": {"name": "lenet5"},
    "data": {"source": "mnist"},
    "optim": {"name": "sgd", "lr": 0.2, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    "schedule": {"name": "one_cycle"},
    "train": {"epochs": 5, "batch_size": 128},
}


class Pictures(Dataset):
    """Arrays as PIL images, as torchvision's sets give them."""

    def __init__(self, pixels: np.ndarray, transform: Callable):
        self.pixels, self.transform = pixels, transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[place])), place % 10


def cifar_loader(pixels: np.ndarray, batch_size: int) -> DataLoader:
    """Without workers, which on two cores were no faster."""
    from torchvision import transforms

    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor(), transforms.Normalize(*CIFAR)]
    pictures = Pictures(pixels, transforms.Compose(steps))
    return DataLoader(pictures, batch_size, shuffle=True, drop_last=True)


def cifar_batches(pixels: np.ndarray, batch_size: int, device: torch.device) -> TrainBatches:
    augment = Augment(AugmentConfig(flip=True, crop="padded"), 32, *CIFAR)
    labels = np.arange(len(pixels)) % 10
    return TrainBatches(ArrayImages(pixels), labels, batch_size, augment, seed=0, device=device)


def cut(windows: Windows, batch_size: int) -> Iterator[np.ndarray]:
    """An epoch's crops as they go to a GPU, which makes floats of them."""
    for step, indices in enumerate(shuffled(windows.shape[0], 0, 0).reshape(-1, batch_size)):
        yield windows.take(indices, Draws(np.random.default_rng(step), len(indices)))


def noise(many: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (many, 32, 32, 3), dtype=np.uint8)


def feed(bench: Bench) -> Iterator[Row]:
    """C5: 32x32 images with padded crop and flip, uint8 and float out, beside DataLoader with PIL."""
    pixels = noise(5_000)
    batches, loader = cifar_batches(pixels, 500, bench.device), cifar_loader(pixels, 500)
    windows = Windows(pixels, AugmentConfig().padding, flip=True)
    sides = {"uint8": (lambda: cut(windows, 500), 100), "float": (lambda: batches.epoch(0), 20)}
    for kind, (epoch, least) in sides.items():
        yield from bench.contest(
            f"feeding 32x32, {kind} out",
            lambda epoch=epoch: _exhaust(epoch()),
            {"DataLoader with PIL": lambda: _exhaust(loader)},
            work=len(pixels),
            wanted={"DataLoader with PIL": least},
        )


def _exhaust(batches) -> None:
    for _ in batches:
        pass


def cifar(bench: Bench) -> Iterator[Row]:
    """C5b: resnet20 on 32x32 images with crop and flip, beside a plain DataLoader loop on the same net.

    Ours in the precision that the trainer chooses here.
    """
    images, _ = batch(CIFAR_BATCH, 32, bench.device)
    precision, why = forms.precision("auto", zoo.create("resnet20").to(bench.device), images, steps=10_000)
    bench.note(f"resnet20 in {precision}: {why}")
    yield from bench.contest(
        f"training resnet20 on 32x32, {precision}, batches of {CIFAR_BATCH}",
        bench.side(_our_cifar, precision),
        {"DataLoader with PIL": bench.side(_plain_cifar)},
        work=8 * CIFAR_BATCH,
        wanted={"DataLoader with PIL": 2.5},
    )


def _our_cifar(device: torch.device, precision: str) -> Side:
    net, batches = zoo.create("resnet20").to(device), cifar_batches(noise(8 * CIFAR_BATCH), CIFAR_BATCH, device)
    stepper = as_in_fit(trainer_of(net, batches, [], precision=precision))
    ours = stepper.batches()
    return lambda: train(stepper, ours, len(batches))


def _plain_cifar(device: torch.device) -> Side:
    loader = cifar_loader(noise(8 * CIFAR_BATCH), CIFAR_BATCH)
    return _plain_loop(zoo.create("resnet20").to(device), loader, len(loader), device)


def _plain_loop(net: nn.Module, loader: DataLoader, steps: int, device: torch.device) -> Side:
    step = plain_steps(net, 1)

    def run() -> None:
        for images, targets in islice(loader, steps):
            step(images.to(device), targets.to(device))

    return run


def mnist_rate(bench: Bench) -> Iterator[Row]:
    """C7b: lenet5 on MNIST, images a second, beside a plain DataLoader loop."""
    if not _has_mnist(bench):
        return
    yield from bench.contest(
        "training lenet5 on MNIST, batches of 128",
        bench.side(_our_mnist, 60),
        {"DataLoader with PIL": bench.side(_plain_mnist, 60)},
        work=60 * 128,
    )


def _our_mnist(device: torch.device, steps: int) -> Side:
    config = config_.read(MNIST)
    batches, _ = _mnist(config, device)
    stepper = as_in_fit(trainer_of(zoo.create("lenet5").to(device), batches, [], config))
    ours = stepper.batches()
    return lambda: train(stepper, ours, steps)


def _plain_mnist(device: torch.device, steps: int) -> Side:
    return _plain_loop(zoo.create("lenet5").to(device), _mnist_loaders()[0], steps, device)


def mnist(bench: Bench) -> Iterator[Row]:
    """C7 and G4: seconds of training until lenet5 knows 99 % of MNIST's test images, beside the plain loop.

    Neither side's validation counts. The plain loop: SGD at 0.05, momentum 0.9, constant, batches of 128.
    """
    if not _has_mnist(bench):
        return
    ours, theirs = _our_seconds(bench), _plain_seconds(bench)
    if None in (ours, theirs):
        bench.note(f"{'ours' if ours is None else 'the plain loop'} did not reach 99 %")
        return
    wanted = 4.0 if bench.device.type == "cpu" else 100.0
    note = "ours: one cycle of rates over 5 epochs; the loop: a constant rate"
    yield bench.row("lenet5 on MNIST until 99 %", "plain loop", [ours], [theirs], 1, "runs/s", wanted, note)


def _has_mnist(bench: Bench) -> bool:
    there = (data_root() / "MNIST").is_dir()
    if not there:
        bench.note("not run: $CNNZOO_DATA has no MNIST")
    return there


def _mnist(config: Config, device: torch.device) -> tuple[TrainBatches, EvalBatches]:
    data = sources.load(config.data, config.augment, 32)
    p = data.preprocess
    augment = Augment(config.augment, 32, p.mean, p.std)
    batch_size = config.train.batch_size
    return (
        TrainBatches(data.train.images, data.train.labels, batch_size, augment, seed=0, device=device),
        EvalBatches(data.val.images, data.val.labels, 256, p.mean, p.std, device),
    )


def _mnist_loaders() -> list[DataLoader]:
    """Batches of the training and of the test images, as tutorials have them."""
    from torchvision import datasets, transforms

    prepare = transforms.Compose([transforms.Pad(2), transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    sets = (datasets.MNIST(data_root(), part, prepare) for part in (True, False))
    return [DataLoader(images, 128, shuffle=images.train) for images in sets]


def _our_seconds(bench: Bench) -> float | None:
    config = config_.read(MNIST)
    batches, val = _mnist(config, bench.device)

    def trained(config: Config) -> list[EpochReport]:
        torch.manual_seed(0)
        reports: list[EpochReport] = []
        net = zoo.create("lenet5").to(bench.device)
        trainer_of(net, batches, val, config, on_epoch=lambda report, is_best: reports.append(report)).fit()
        return reports

    trained(replace(config, train=replace(config.train, epochs=1)))  # the first to use a GPU waits for its libraries
    reports = trained(config)
    good = next((number for number, report in enumerate(reports, 1) if report.val_top1 >= 0.99), None)
    return good and sum(report.seconds for report in reports[:good])


def _plain_seconds(bench: Bench) -> float | None:
    train, test = _mnist_loaders()
    torch.manual_seed(0)
    net = zoo.create("lenet5").to(bench.device)
    step, seconds = plain_steps(net, 1, lr=0.05), 0.0
    for _ in range(MOST_EPOCHS):
        net.train()
        started = time.perf_counter()
        for images, targets in train:
            step(images.to(bench.device), targets.to(bench.device))
        seconds += time.perf_counter() - started
        net.eval()
        with torch.inference_mode():
            right = sum((net(x.to(bench.device)).argmax(1).cpu() == y).sum().item() for x, y in test)
        if right >= 0.99 * len(test.dataset):
            return seconds
    return None
