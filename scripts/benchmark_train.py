"""Training speed beside the loop everyone starts with: in one run, in turn, the same net, batch and threads.

    python scripts/benchmark_train.py                 # all of it, about ten minutes on two cores
    python scripts/benchmark_train.py speed feed      # some of it

    speed      images a second, lenet5 on MNIST: our trainer against DataLoader, ToTensor, Normalize, SGD
    accuracy   seconds of training until 99 % of the test images are right, the same two
    feed       32x32 images a second with padded crop and flip, uint8 and float out, against DataLoader with PIL
    overhead   our trainer against a hand-written loop over the very same batches, at a step of about 5 ms
    import     import cnnzoo against import torch; what cnnzoo list imports

MNIST is read from $CNNZOO_DATA. Only ratios are worth quoting; medians of rounds in turn, with minimum and maximum.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

from cnnzoo import config as config_
from cnnzoo import registry, zoo
from cnnzoo.config import AugmentConfig, Config, LossConfig, OptimConfig, ScheduleConfig
from cnnzoo.data import sources
from cnnzoo.data.arrays import ArrayImages
from cnnzoo.data.augment import Augment
from cnnzoo.data.batches import EvalBatches, TrainBatches
from cnnzoo.train import losses, optim
from cnnzoo.train.phases import Phase
from cnnzoo.train.schedule import Schedule
from cnnzoo.train.trainer import Trainer

CONFIGS = Path(__file__).parent.parent / "configs"
BATCH = 128


def ratios(name: str, ours: list[float], peers: list[float], unit: str) -> dict:
    """Pair by pair, ours over the peer's; higher is better."""
    pairs = [a / b for a, b in zip(ours, peers, strict=True)]
    row = {
        "what": name,
        "ours": statistics.median(ours),
        "peer": statistics.median(peers),
        "unit": unit,
        "ratio": statistics.median(pairs),
        "min": min(pairs),
        "max": max(pairs),
        "rounds": len(pairs),
    }
    print(
        f"{name:<44} ours {row['ours']:>12,.1f}  peer {row['peer']:>12,.1f} {unit:<9} "
        f"ratio {row['ratio']:.2f} ({row['min']:.2f} to {row['max']:.2f}, {row['rounds']} rounds)",
        flush=True,
    )
    return row


def lenet() -> nn.Module:
    torch.manual_seed(0)
    return zoo.create("lenet5")


# ---- the loop everyone starts with


def plain_loader(train: bool) -> DataLoader:
    root = os.environ["CNNZOO_DATA"]
    steps = transforms.Compose([transforms.Pad(2), transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    return DataLoader(datasets.MNIST(root, train=train, transform=steps), batch_size=BATCH, shuffle=train)


def plain_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader, steps: int | None = None
) -> int:
    """Returns the images seen."""
    model.train()
    seen = 0
    for step, (images, targets) in enumerate(loader):
        if step == steps:
            break
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()
        loss.item()
        seen += len(images)
    return seen


def plain_accuracy(model: nn.Module, loader: DataLoader) -> float:
    model.eval()
    with torch.no_grad():
        right = sum((model(images).argmax(1) == targets).sum().item() for images, targets in loader)
    return right / len(loader.dataset)


# ---- ours


def our_trainer(model: nn.Module, batches, val, config: Config, epochs: int, **options) -> Trainer:
    stages = registry.lookup(config.model.name).parameters(name for name, _ in model.named_parameters())
    return Trainer(
        model,
        losses.build(LossConfig()),
        optim.build(config.optim, model, stages),
        batches,
        val,
        phases=[Phase(epochs)],
        stages=stages,
        make_schedule=lambda optimizer, epochs, steps: Schedule(config.schedule, optimizer, epochs, steps),
        lr=config.optim.lr,
        channels_last=True,
        show_progress=False,
        **options,
    )


def mnist(config: Config):
    data = sources.load(config.data, config.augment, 32)
    augment = Augment(config.augment, 32, data.preprocess.mean, data.preprocess.std)
    batches = TrainBatches(data.train.images, data.train.labels, config.train.batch_size, augment, seed=0)
    val = EvalBatches(data.val.images, data.val.labels, 256, data.preprocess.mean, data.preprocess.std)
    return batches, val


# ---- the measurements


def speed(rounds: int = 5, steps: int = 120) -> list[dict]:
    config = config_.read(CONFIGS / "lenet5_mnist.yaml", [f"--train.batch_size={BATCH}"])
    batches, _ = mnist(config)
    loader = plain_loader(train=True)
    model, peer = lenet(), lenet()
    optimizer = torch.optim.SGD(peer.parameters(), lr=0.01, momentum=0.9)
    first = Head(batches, steps)
    ours, peers = [], []
    for round_ in range(rounds + 1):  # the first is the warm-up
        trainer = our_trainer(model, first, [(torch.zeros(1, 1, 32, 32), torch.zeros(1, dtype=torch.long))], config, 1)
        started = time.perf_counter()
        trainer.fit()
        a = steps * BATCH / (time.perf_counter() - started)
        started = time.perf_counter()
        b = plain_epoch(peer, optimizer, loader, steps) / (time.perf_counter() - started)
        if round_:
            ours.append(a)
            peers.append(b)
    return [ratios("training, lenet5 on MNIST", ours, peers, "images/s")]


class Head:
    """The first steps of an epoch."""

    def __init__(self, batches: TrainBatches, steps: int):
        self.batches, self.steps, self.batch_size = batches, steps, batches.batch_size

    def __len__(self) -> int:
        return self.steps

    def epoch(self, epoch: int, start: int = 0):
        return islice(self.batches.epoch(epoch, start), self.steps - start)


def accuracy(target: float = 0.99, most: int = 40) -> list[dict]:
    """Seconds of training only; neither side's validation counts. The plain loop: SGD 0.05, momentum 0.9, constant."""
    config = config_.read(CONFIGS / "lenet5_mnist_fast.yaml")
    batches, val = mnist(config)
    reports = []
    trainer = our_trainer(
        lenet(), batches, val, config, config.train.epochs, on_epoch=lambda report, is_best: reports.append(report)
    )
    trainer.fit()
    reached = next((i for i, report in enumerate(reports) if report.val_top1 >= target), None)
    if reached is None:
        sys.exit(f"ours did not reach {target:.0%}: {max(report.val_top1 for report in reports):.2%}")
    ours = sum(report.seconds for report in reports[: reached + 1])

    loader, test = plain_loader(train=True), plain_loader(train=False)
    peer = lenet()
    optimizer = torch.optim.SGD(peer.parameters(), lr=0.05, momentum=0.9)
    seconds, epochs, best = 0.0, 0, 0.0
    while best < target and epochs < most:
        started = time.perf_counter()
        plain_epoch(peer, optimizer, loader)
        seconds += time.perf_counter() - started
        epochs += 1
        best = max(best, plain_accuracy(peer, test))
    print(f"ours {reports[reached].val_top1:.2%} after {reached + 1} epochs, plain loop {best:.2%} after {epochs}")
    return [ratios(f"1 / seconds to {target:.0%}, lenet5 on MNIST", [1 / ours], [1 / seconds], "1/s")]


class Pictures(Dataset):
    def __init__(self, pixels: np.ndarray, transform: Callable):
        self.pixels, self.transform = pixels, transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, place: int):
        return self.transform(Image.fromarray(self.pixels[place])), 0


def feed(rounds: int = 5) -> list[dict]:
    pixels = np.random.default_rng(0).integers(0, 256, (10_000, 32, 32, 3), dtype=np.uint8)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    steps = [
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
    loader = DataLoader(Pictures(pixels, transforms.Compose(steps)), batch_size=500, shuffle=True)
    augment = Augment(AugmentConfig(flip=True, crop="padded"), 32, mean, std)
    batches = TrainBatches(ArrayImages(pixels), np.zeros(len(pixels), np.int64), 500, augment, seed=0)

    def rate(iterate: Callable) -> float:
        started = time.perf_counter()
        seen = sum(len(images) for images, _ in iterate())
        return seen / (time.perf_counter() - started)

    as_bytes, as_floats, peers = [], [], []
    for round_ in range(rounds + 1):
        figures = rate(lambda: batches.pixels(round_)), rate(lambda: batches.epoch(round_)), rate(lambda: loader)  # noqa: B023
        if round_:
            for figure, rows in zip(figures, (as_bytes, as_floats, peers), strict=True):
                rows.append(figure)
    return [
        ratios("feeding 32x32, uint8 out", as_bytes, peers, "images/s"),
        ratios("feeding 32x32, float out", as_floats, peers, "images/s"),
    ]


def overhead(steps: int = 3000, batch: int = 9) -> list[dict]:
    """What the trainer does with a batch until it asks for the next, beside a plain step on that batch, step by step
    in turn; the plain step twice, since the difference between its two figures says how much of ours is noise.
    """
    images, targets = torch.randn(batch, 16, 16, 16), torch.randint(0, 10, (batch,))

    def net() -> nn.Module:
        torch.manual_seed(0)
        body = [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).train()

    model, peers = net(), {"plain": net(), "plain again": net()}
    optimizers = {name: torch.optim.SGD(peer.parameters(), lr=0.01, momentum=0.9) for name, peer in peers.items()}
    seconds: dict[str, list[float]] = {"ours": [], "plain": [], "plain again": []}

    class InTurn:
        batch_size = batch

        def __len__(self) -> int:
            return steps

        def epoch(self, epoch: int, start: int = 0):
            for _ in range(start, steps):
                started = time.perf_counter()
                yield images, targets
                seconds["ours"].append(time.perf_counter() - started)
                for name, peer in peers.items():
                    started = time.perf_counter()
                    loss = nn.functional.cross_entropy(peer(images), targets)
                    loss.backward()
                    optimizers[name].step()
                    optimizers[name].zero_grad(set_to_none=True)
                    seconds[name].append(time.perf_counter() - started)

    stages = {"all": [name for name, _ in model.named_parameters()]}
    Trainer(
        model,
        losses.build(LossConfig()),
        optim.build(OptimConfig(lr=0.01), model, stages),
        InTurn(),
        [(images, targets)],
        phases=[Phase(1)],
        stages=stages,
        make_schedule=lambda *sizes: Schedule(ScheduleConfig(name="constant"), *sizes),
        lr=0.01,
        show_progress=False,
    ).fit()
    warm = {name: [1 / second for second in column[steps // 10 :]] for name, column in seconds.items()}
    step = 1000 / statistics.median(warm["plain"])
    return [
        ratios(f"trainer over plain loop, step of {step:.1f} ms", warm["ours"], warm["plain"], "steps/s"),
        ratios("the plain loop over itself", warm["plain again"], warm["plain"], "steps/s"),
    ]


def imports(rounds: int = 5) -> list[dict]:
    def seconds(statement: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        return time.perf_counter() - started

    seconds("import torch")
    pairs = [(1 / seconds("import cnnzoo"), 1 / seconds("import torch")) for _ in range(rounds)]
    check = (
        "import sys; from cnnzoo.cli import main; main(['list']); assert not {'torchvision', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL)
    print("cnnzoo list imports neither torchvision nor timm")
    return [ratios("1 / seconds of import, cnnzoo over torch", *map(list, zip(*pairs, strict=True)), "1/s")]


PARTS: dict[str, Callable[[], list[dict]]] = {
    "speed": speed,
    "accuracy": accuracy,
    "feed": feed,
    "overhead": overhead,
    "import": imports,
}


def main(about: str, known: dict[str, Callable[[], list[dict]]]) -> None:
    """Measure the parts that the command line names, of those known."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(known)}; all by default")
    parser.add_argument("--json", type=Path, help="write the rows and the machine there")
    arguments = parser.parse_args()
    parts = arguments.parts or list(known)
    if strangers := set(parts) - set(known):
        parser.error(f"unknown part {', '.join(sorted(strangers))}; known: {', '.join(known)}")
    if {speed, accuracy} & {known[part] for part in parts} and "CNNZOO_DATA" not in os.environ:
        parser.error("CNNZOO_DATA must say where MNIST lies")
    machine = {
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": platform.processor() or platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "load": os.getloadavg()[0],
    }
    print(" ".join(f"{key} {value}" for key, value in machine.items()))
    rows = [row for part in parts for row in known[part]()]
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2))


if __name__ == "__main__":
    main(__doc__, PARTS)
