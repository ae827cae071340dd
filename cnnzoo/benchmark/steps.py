"""A step of training: our trainer beside the loops of timm's and torchvision's scripts."""

from collections.abc import Callable, Iterator
from itertools import repeat

import torch

from cnnzoo import zoo
from cnnzoo.benchmark import peers
from cnnzoo.benchmark.harness import Bench, Row, Side, check_equal
from cnnzoo.benchmark.loops import Kept, as_in_fit, batch, plain_steps, train, trainer_of
from cnnzoo.device import wait
from cnnzoo.train import forms

CPU_BATCHES = {"resnet18": 16, "resnet50": 4}


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
    fast = {"compiled": forms.compiled(net)} if compiled else {}
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


def memory(bench: Bench) -> Iterator[Row]:
    """G7: a training step of densenet121 with gradient checkpointing, torchvision's without: peak memory, and time."""
    images, targets = batch(256, 224, bench.device)
    net, peer, library = peers.pair("densenet121", bench.device)
    saving = zoo.create("densenet121").to(bench.device)
    saving.set_grad_checkpointing()
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
    wait(bench.device)
    torch.cuda.reset_peak_memory_stats(bench.device)
    before = torch.cuda.memory_allocated(bench.device)
    step()
    wait(bench.device)
    return torch.cuda.max_memory_allocated(bench.device) - before
