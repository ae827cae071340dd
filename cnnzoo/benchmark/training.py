"""Training: our trainer beside the loops of timm's and torchvision's scripts and the one everybody starts with."""

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice, repeat

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cnnzoo import config as config_
from cnnzoo import zoo
from cnnzoo.benchmark import peers
from cnnzoo.benchmark.harness import Bench, Row, Side, check_equal, data_root
from cnnzoo.config import AugmentConfig, Config, OptimConfig, PhaseConfig, ScheduleConfig, TrainConfig
from cnnzoo.data import sources
from cnnzoo.data.arrays import ArrayImages
from cnnzoo.data.augment import Augment
from cnnzoo.data.batches import EvalBatches, TrainBatches
from cnnzoo.machine import tuned
from cnnzoo.train import forms, losses, optim
from cnnzoo.train.anatomy import Stepper
from cnnzoo.train.schedule import Schedule
from cnnzoo.train.trainer import EpochReport, Trainer

CIFAR = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CPU_BATCHES = {"resnet18": 16, "resnet50": 4}
CIFAR_BATCH = 128

MNIST = {  # configs/lenet5_mnist_fast.yaml
    "run": "runs/lenet5_mnist_fast",
    "model": {"name": "lenet5"},
    "data": {"source": "mnist"},
    "optim": {"name": "sgd", "lr": 0.2, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    "schedule": {"name": "one_cycle"},
    "train": {"epochs": 5, "batch_size": 128},
}


# ---- ours


class Kept:
    """The same batch again and again, as resident data would be."""

    def __init__(self, images: Tensor, targets: Tensor, steps: int):
        self.batch, self.steps, self.batch_size = (images, targets), steps, len(images)

    def __len__(self) -> int:
        return self.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.batch for _ in range(start, self.steps))


PLAIN = Config(optim=OptimConfig(lr=0.01, momentum=0.9), schedule=ScheduleConfig(name="constant"))  # as peers here


def trainer_of(net: nn.Module, batches, val, config: Config = PLAIN, **options) -> Trainer:
    """A trainer of `config`'s optimiser and schedule."""
    names = [name for name, _ in net.named_parameters()]
    stages = net.entry.parameters(names) if hasattr(net, "entry") else {"all": names}
    return Trainer(
        net,
        losses.build(config.loss),
        optim.build(config.optim, net, stages),
        batches,
        val,
        phases=[PhaseConfig(config.train.epochs)],
        stages=stages,
        make_schedule=lambda optimizer, epochs, steps: Schedule(config.schedule, optimizer, epochs, steps),
        lr=config.optim.lr,
        show_progress=False,
        **{"channels_last": True, **options},
    )


_for_good = ExitStack()  # what lasts as long as the process


def as_in_fit(trainer: Trainer) -> Stepper:
    """The trainer's steps, with the machine set for them as `Trainer.fit` sets it: to the end of this process, as there
    to the end of the training.
    """
    _for_good.enter_context(tuned(trainer.device))
    return Stepper(trainer)


def train(stepper: Stepper, batches: Iterator[tuple[Tensor, Tensor]], steps: int) -> None:
    """So many of its steps, on the next batches."""
    for images, targets in islice(batches, steps):
        stepper.step(images, targets)


# ---- the loop that scripts have


def plain_steps(
    net: nn.Module, steps: int, precision: str = "fp32", channels_last: bool = False, lr: float = 0.01
) -> Callable:
    """`(images, targets) -> loss`, `steps` steps on the batch as timm's and torchvision's scripts do them, which read
    the loss after each.
    """
    optimizer = torch.optim.SGD(net.parameters(), lr, momentum=0.9)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net.to(memory_format=layout).train()

    def run(images: Tensor, targets: Tensor) -> float:
        for _ in range(steps):
            with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
                outputs = net(images.contiguous(memory_format=layout))
                loss = nn.functional.cross_entropy(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            value = loss.item()
        return value

    return run


# ---- a step


def steps_on_cpu(bench: Bench) -> Iterator[Row]:
    """C2: a training step of resnet18 and resnet50, beside timm's and torchvision's defaults and best flags.

    All in the precision that the trainer chooses here, but for the defaults.
    """
    least = {"resnet18": 2.4, "resnet50": 2.1}
    for name, many in CPU_BATCHES.items():
        net, _, _ = peers.pair(name, bench.device)
        images, _ = batch(many, peers.size_of(name), bench.device)
        precision, why = forms.precision("auto", net, images, steps=10_000)
        bench.note(f"{name} in {precision}: {why}")
        yield from _steps(bench, name, many, 4, precision, least[name] if precision == "bf16" else None, 1.05)


def steps_on_gpu(bench: Bench) -> Iterator[Row]:
    """G1: a training step on resident data, 256 images in bf16, beside timm's loop: defaults, best flags, compiled."""
    yield from _steps(bench, "resnet50", 256, 20, "bf16", 3.5, 1.3, compiled=1.15)


def more_steps_on_gpu(bench: Bench) -> Iterator[Row]:
    """G1b: the same of six more nets."""
    asked = {"vgg16": 1.15, "googlenet": 1.3, "inception_v3": 1.3, "densenet121": 1.5, "xception": 1.2, "resnet18": 1.2}
    for name, least in asked.items():
        yield from _steps(bench, name, 256, 10, "bf16", None, least, compiled=1.12)


def _steps(
    bench: Bench,
    name: str,
    many: int,
    steps: int,
    precision: str,
    least: float | None,
    best: float | None,
    compiled: float | None = None,
) -> Iterator[Row]:
    size = peers.size_of(name)
    net, peer, library = peers.pair(name, torch.device("cpu"), **_no_aux(name))
    images, _ = batch(2, size, torch.device("cpu"))
    with torch.inference_mode():
        check_equal(net.eval()(images), peer.eval()(images), 1e-3, name)
    load = name, many, steps
    sides = {f"{library}, defaults (fp32)": bench.side(_their_steps, *load)}
    wanted = {f"{library}, defaults (fp32)": least, f"{library}, best flags": best}
    if library != "timm" and name.startswith("resnet"):
        sides["timm, defaults (fp32)"] = bench.side(_their_steps, *load, "fp32", False, False, True)
        wanted["timm, defaults (fp32)"] = least
    sides[f"{library}, best flags"] = bench.side(_their_steps, *load, precision, True)
    if compiled:
        sides[f"{library}, best flags and compiled"] = bench.side(_their_steps, *load, precision, True, True)
        wanted[f"{library}, best flags and compiled"] = compiled
    yield from bench.contest(
        f"training step, {name}, {precision}, {many} x {size}x{size}",
        bench.side(_our_steps, *load, precision, compiled is not None),
        sides,
        work=many * steps,
        wanted={peer: figure for peer, figure in wanted.items() if figure},
    )


def _our_steps(device: torch.device, name: str, many: int, steps: int, precision: str, compiled: bool) -> Side:
    images, targets = batch(many, peers.size_of(name), device)
    net, _, _ = peers.pair(name, device, **_no_aux(name))
    fast = {"compiled": torch.compile(net)} if compiled else {}
    stepper = as_in_fit(trainer_of(net, Kept(images, targets, steps), [], precision=precision, **fast))
    return lambda: train(stepper, repeat((images, targets)), steps)


def _their_steps(
    device: torch.device,
    name: str,
    many: int,
    steps: int,
    precision: str = "fp32",
    channels_last: bool = False,
    compiled: bool = False,
    timm: bool = False,
) -> Side:
    images, targets = batch(many, peers.size_of(name), device)
    peer = peers.timm_net(name).to(device) if timm else peers.pair(name, device, **_no_aux(name))[1]
    run = plain_steps(torch.compile(peer) if compiled else peer, steps, precision, channels_last)
    return lambda: run(images, targets)


def _no_aux(name: str) -> dict:
    return {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}


def batch(many: int, size: int, device: torch.device, channels: int = 3, classes: int = 10) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(many, channels, size, size, generator=generator)
    return images.to(device), torch.randint(classes, (many,), generator=generator).to(device)


# ---- epochs


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


def noise(many: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (many, 32, 32, 3), dtype=np.uint8)


def feed(bench: Bench) -> Iterator[Row]:
    """C5: 32x32 images with padded crop and flip, uint8 and float out, beside DataLoader with PIL."""
    pixels = noise(5_000)
    batches, loader = cifar_batches(pixels, 500, bench.device), cifar_loader(pixels, 500)
    sides = {"uint8": (batches.pixels, 100), "float": (batches.epoch, 20)}
    for kind, (epoch, least) in sides.items():
        yield from bench.contest(
            f"feeding 32x32, {kind} out",
            lambda epoch=epoch: _exhaust(epoch(0)),
            {"DataLoader with PIL": lambda: _exhaust(loader)},
            work=len(pixels),
            wanted={"DataLoader with PIL": least},
        )


def _exhaust(batches) -> None:
    for _ in batches:
        pass


def cifar(bench: Bench) -> Iterator[Row]:
    """C5b: resnet20 on 32x32 images with crop and flip, beside a plain DataLoader loop on the same net."""
    yield from bench.contest(
        f"training resnet20 on 32x32, batches of {CIFAR_BATCH}",
        bench.side(_our_cifar),
        {"DataLoader with PIL": bench.side(_plain_cifar)},
        work=8 * CIFAR_BATCH,
        wanted={"DataLoader with PIL": 2.5},
    )


def _our_cifar(device: torch.device) -> Side:
    net, batches = zoo.create("resnet20").to(device), cifar_batches(noise(8 * CIFAR_BATCH), CIFAR_BATCH, device)
    stepper = as_in_fit(trainer_of(net, batches, []))
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
    """Of the training and of the test images, as tutorials have them."""
    from torchvision import datasets, transforms

    prepare = transforms.Compose([transforms.Pad(2), transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    sets = (datasets.MNIST(data_root(), part, prepare) for part in (True, False))
    return [DataLoader(images, 128, shuffle=images.train) for images in sets]


def _our_seconds(bench: Bench) -> float | None:
    config = config_.read(MNIST)
    batches, val = _mnist(config, bench.device)
    torch.manual_seed(0)
    reports: list[EpochReport] = []
    net = zoo.create("lenet5").to(bench.device)
    trainer_of(net, batches, val, config, on_epoch=lambda report, is_best: reports.append(report)).fit()
    good = next((number for number, report in enumerate(reports, 1) if report.val_top1 >= 0.99), None)
    return good and sum(report.seconds for report in reports[:good])


def _plain_seconds(bench: Bench, most: int = 40) -> float | None:
    train, test = _mnist_loaders()
    torch.manual_seed(0)
    net = zoo.create("lenet5").to(bench.device)
    step, seconds = plain_steps(net, 1, lr=0.05), 0.0
    for _ in range(most):
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


# ---- what the trainer adds


def overhead(bench: Bench, steps: int = 1500) -> Iterator[Row]:
    """C8: the trainer beside a hand-written loop over the same batches, step by step in turn, at a step of a few ms.

    The plain step is there twice: the difference between its two figures tells how much of ours is noise.
    """
    images, targets = torch.randn(9, 16, 16, 16), torch.randint(0, 10, (9,))
    peers_ = {"plain loop": plain_steps(_small(), 1), "plain again": plain_steps(_small(), 1)}
    seconds: dict[str, list[float]] = {"ours": [], **{name: [] for name in peers_}}

    class InTurn(Kept):
        """What the trainer does with a batch until it asks for the next is its step."""

        def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
            for _ in range(start, self.steps):
                started = time.perf_counter()
                yield self.batch
                seconds["ours"].append(time.perf_counter() - started)
                for name, step in peers_.items():
                    seconds[name].append(bench.seconds(lambda step=step: step(images, targets)))

    one = [(images, targets)]
    one_epoch = replace(PLAIN, train=TrainConfig(epochs=1))
    trainer_of(_small(), InTurn(images, targets, steps), one, one_epoch, channels_last=False).fit()
    warm = {name: column[steps // 10 :] for name, column in seconds.items()}
    what = f"trainer, a step of {1000 * statistics.median(warm['plain loop']):.1f} ms"
    yield bench.row(what, "plain loop", warm["ours"], warm["plain loop"], unit="steps/s", wanted=0.99)
    yield bench.row("the plain loop", "itself", warm["plain again"], warm["plain loop"], unit="steps/s")


def _small() -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).train()


def against_a_graph(bench: Bench) -> Iterator[Row]:
    """G8: steps of lenet5 and resnet20 beside a CUDA graph of the bare step, which nothing can be faster than."""
    for name, many in (("lenet5", 512), ("resnet20", 512)):
        channels, size, _ = zoo.info(name).input_size
        images, targets = batch(many, size, bench.device, channels)
        torch.manual_seed(0)
        net, peer = (zoo.create(name).to(bench.device, memory_format=torch.channels_last).train() for _ in range(2))
        stepper = Stepper(trainer_of(net, Kept(images, targets, 50), [], precision="bf16"))
        graph = _graph_of_a_step(peer, images.contiguous(memory_format=torch.channels_last), targets)
        yield from bench.contest(
            f"trainer, {name}, bf16, batches of {many}",
            lambda stepper=stepper, images=images, targets=targets: [stepper.step(images, targets) for _ in range(50)],
            {"bare CUDA graph": lambda graph=graph: [graph.replay() for _ in range(50)]},
            work=50,
            unit="steps/s",
            wanted={"bare CUDA graph": 0.97},
        )


def _graph_of_a_step(net: nn.Module, images: Tensor, targets: Tensor) -> torch.cuda.CUDAGraph:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            loss = nn.functional.cross_entropy(net(images), targets)
        loss.backward()
        optimizer.step()

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def host_syncs(bench: Bench, steps: int = 20) -> Iterator[Row]:
    """G9: how often a step makes the processor wait for the GPU."""
    images, targets = batch(64, 32, bench.device)
    net, peer = (zoo.create("resnet20").to(bench.device) for _ in range(2))
    stepper, plain = Stepper(trainer_of(net, Kept(images, targets, steps), [], precision="bf16")), plain_steps(peer, 1)
    counts = [_syncs(lambda: stepper.step(images, targets), steps), _syncs(lambda: plain(images, targets), steps)]
    bench.note(
        f"{counts[0]:g} host synchronisations a step in ours, {counts[1]:g} in the plain loop, which reads the loss"
    )
    yield from ()


def _syncs(step: Callable[[], object], steps: int) -> float:
    step()  # what is only set up once
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in range(steps):
                step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in found) / steps


def memory(bench: Bench) -> Iterator[Row]:
    """G7: a training step of densenet121 with memory_efficient beside torchvision's without: peak memory, and time."""
    images, targets = batch(256, 224, bench.device)
    net, peer, library = peers.pair("densenet121", bench.device)
    saving = zoo.create("densenet121", memory_efficient=True).to(bench.device)
    saving.load_state_dict(net.state_dict())
    sides = [plain_steps(side, 1, "bf16", channels_last=True) for side in (saving, peer)]
    costs = [_peak(bench, lambda side=side: side(images, targets)) for side in sides]
    yield bench.row(
        "densenet121, bf16, 256 images: peak memory", library, costs[:1], costs[1:], 2**30, "1/GiB", 1 / 0.35
    )
    ours, theirs = (lambda side=side: side(images, targets) for side in sides)
    yield from bench.contest("densenet121, the same: time", ours, {library: theirs}, 256, wanted={library: 1 / 1.2})


def _peak(bench: Bench, step: Callable[[], object]) -> float:
    """Bytes above what was held before, in a step that is not the first."""
    step()
    bench.wait()
    torch.cuda.reset_peak_memory_stats(bench.device)
    before = torch.cuda.memory_allocated(bench.device)
    step()
    bench.wait()
    return torch.cuda.max_memory_allocated(bench.device) - before
