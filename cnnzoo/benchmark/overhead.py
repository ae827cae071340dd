"""What the trainer adds to a bare step: time, launches, waiting for the GPU."""

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor, nn

from cnnzoo import zoo
from cnnzoo.benchmark.harness import Bench, Row
from cnnzoo.benchmark.loops import PLAIN, Kept, as_in_fit, batch, plain_steps, trainer_of
from cnnzoo.config import TrainConfig
from cnnzoo.machine import tuned
from cnnzoo.train import forms
from cnnzoo.train.anatomy import Stepper

STEP = 5e-3  # seconds that a plain step is to take, whatever the processor
WATCHED = 20  # steps whose synchronisations are counted


def overhead(bench: Bench, steps: int = 1500) -> Iterator[Row]:
    """C8: the trainer beside a hand-written loop over the same batches, step by step in turn, at a step of 5 ms.

    The plain step is there twice: the difference between its two figures tells how much of ours is noise.
    """
    images, targets = _lasting(bench, torch.randn(9, 16, 16, 16), torch.randint(0, 10, (9,)))
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


def _lasting(bench: Bench, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """So many copies of a batch that a plain step takes `STEP` seconds."""
    step, many, seconds = plain_steps(_small(), 1), 0, 0.0
    with tuned(bench.device):  # as it is while ours trains, which makes these steps faster, too
        while seconds < STEP:
            many += 1
            copies = images.repeat(many, 1, 1, 1), targets.repeat(many)
            seconds = statistics.median(bench.seconds(lambda copies=copies: step(*copies)) for _ in range(30))
    return copies


def _small() -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).train()


def against_a_graph(bench: Bench) -> Iterator[Row]:
    """G8: steps of lenet5 and resnet20 beside a CUDA graph of the bare step, which nothing can be faster than.

    Once with the plain net, and once through torch.compile with CUDA graphs, as the trainer tries it for long runs.
    """
    for graphs, name in product((False, True), ("lenet5", "resnet20")):
        many, (channels, size, _) = 512, zoo.info(name).input_size
        images, targets = batch(many, size, bench.device, channels)
        torch.manual_seed(0)
        net, peer = (zoo.create(name).to(bench.device, memory_format=torch.channels_last).train() for _ in range(2))
        form = {"compiled": forms.compiled(net, graphs=True)} if graphs else {}
        stepper = as_in_fit(trainer_of(net, Kept(images, targets, 50), [], precision="bf16", **form))
        replay = recorded_step(peer, images.contiguous(memory_format=torch.channels_last), targets)
        yield from bench.contest(
            f"trainer, {name}, bf16, batches of {many}{', train.compile graphs' if graphs else ''}",
            lambda stepper=stepper, images=images, targets=targets: [stepper.step(images, targets) for _ in range(50)],
            {"bare CUDA graph": lambda replay=replay: [replay() for _ in range(50)]},
            work=50,
            unit="steps/s",
            wanted={"bare CUDA graph": 0.97},
        )


def recorded_step(net: nn.Module, images: Tensor, targets: Tensor) -> Callable[[], None]:
    """A bare step of training, as a CUDA graph."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            loss = nn.functional.cross_entropy(net(images), targets)
        loss.backward()
        optimizer.step()

    aside, on, graph = torch.cuda.Stream(), torch.cuda.Stream(), torch.cuda.CUDAGraph()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    with torch.cuda.stream(on), torch.cuda.graph(graph, stream=on):  # another, as in cuda_graphs.py
        step()

    def replay(_kept: Callable = step) -> None:  # for a graph keeps nothing alive of what it reads and writes
        graph.replay()

    return replay


def host_syncs(bench: Bench) -> Iterator[Row]:
    """G9: how often a step makes the processor wait for the GPU."""
    images, targets = batch(64, 32, bench.device)
    net, peer = (zoo.create("resnet20").to(bench.device) for _ in range(2))
    stepper = Stepper(trainer_of(net, Kept(images, targets, WATCHED), [], precision="bf16"))
    plain = plain_steps(peer, 1)
    counts = [_syncs(lambda: stepper.step(images, targets)), _syncs(lambda: plain(images, targets))]
    bench.note(
        f"{counts[0]:g} host synchronisations a step in ours, {counts[1]:g} in the plain loop, which reads the loss"
    )
    yield from ()


def _syncs(step: Callable[[], object]) -> float:
    """Host synchronisations a step."""
    step()  # what is only set up once
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in range(WATCHED):
                step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    # Others are that the mode is a prototype, say, which torch warns of once.
    return sum("called a synchronizing" in str(warning.message) for warning in found) / WATCHED
