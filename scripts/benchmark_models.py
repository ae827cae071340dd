"""What single nets are said to save, measured: in one run, in turn, the same batch and threads.

    python scripts/benchmark_models.py                  # all of it
    python scripts/benchmark_models.py checkpointing    # some minutes on two cores

    checkpointing  a training step with gradient checkpointing against one without: peak memory and seconds, so that
                   less is better; peak memory is what the step adds to a fresh process, with CUDA to the device
    loading        vgg16 with the weights of a file, by cnnzoo.create against torchvision's vgg16 and load_state_dict:
                   seconds and peak memory, each in fresh processes
    construction   seconds that every net takes without weights, the slowest ones first

Only ratios are worth quoting; medians of rounds in turn, with minimum and maximum.
"""

import gc
import multiprocessing
import re
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from measure import main, ratios
from torch import nn

from cnnzoo import zoo
from cnnzoo.benchmark.harness import Bench

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
seconds = Bench("models", DEVICE).seconds  # of a call


CHECKPOINTED = ("densenet121", "resnet50", "xception", "inception_v3")


def training_step(name: str, batch: int, recomputes: bool) -> Callable[[], None]:
    """A step of SGD on random images, ready to be called."""
    torch.manual_seed(0)
    net = zoo.create(name).to(DEVICE)
    net.set_grad_checkpointing(recomputes)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(batch, *net.entry.input_size, device=DEVICE)
    targets = torch.randint(net.num_classes, (batch,), device=DEVICE)

    def step() -> None:
        optimizer.zero_grad()
        outputs = net(images)
        logits = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
        nn.functional.cross_entropy(logits, targets).backward()
        optimizer.step()

    return step


def added_memory(function: Callable[[], object]) -> float:
    """MiB at the peak above what this process (with CUDA: the device) held before. Linux forgets earlier peaks when
    told to; elsewhere the process's all-time peak has to serve.
    """
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before = peak(forget=True)
    function()
    return peak() - before


def peak(forget: bool = False) -> float:
    """MiB that this process has held at most; with `forget` since now."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts in bytes
    if forget:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))[1]) / 2**10


def peak_memory(name: str, batch: int, recomputes: bool) -> float:
    """MiB that a first training step adds to this process."""
    return added_memory(training_step(name, batch, recomputes))


def in_fresh_process(function: Callable, *arguments):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


# ---- the measurements


def checkpointing(rounds: int = 5, batch: int = 16) -> list[dict]:
    rows = []
    for name in CHECKPOINTED:
        with_, without = (in_fresh_process(peak_memory, name, batch, recomputes) for recomputes in (True, False))
        steps = [training_step(name, batch, recomputes) for recomputes in (True, False)]
        turns = [tuple(map(seconds, steps)) for _ in range(rounds + 1)][1:]  # the first is the warm-up
        what = f"checkpointing, {name}, batch {batch}"
        rows.append(ratios(f"{what}: memory", [with_], [without], "MiB"))
        rows.append(ratios(f"{what}: time", *map(list, zip(*turns, strict=True)), "s/step"))
    return rows


def load_ours(file: Path) -> None:
    zoo.create("vgg16", file)


def load_theirs(file: Path) -> None:
    net = torchvision.models.vgg16()
    net.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))


def cost_of(load: Callable[[Path], None], file: Path) -> tuple[float, float]:
    """Seconds, and MiB at the peak, of one load in this process."""
    zoo.create("lenet5"), zoo.preprocessing("vgg16")  # what is imported on first use is no part of it
    took = []
    memory = added_memory(lambda: took.append(seconds(lambda: load(file))))
    return took[0], memory


def loading(rounds: int = 5) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vgg16.pth"
        torch.save(zoo.create("vgg16").state_dict(), file)
        file.read_bytes()  # in the system's cache for both
        turns = [[in_fresh_process(cost_of, load, file) for load in (load_ours, load_theirs)] for _ in range(rounds)]
    ours, theirs = zip(*turns, strict=True)
    return [
        ratios(f"loading, vgg16: {what}", [cost[i] for cost in ours], [cost[i] for cost in theirs], unit)
        for i, (what, unit) in enumerate((("seconds", "s"), ("peak memory", "MiB")))
    ]


def construction() -> list[dict]:
    zoo.create("lenet5")
    took = {name: min(seconds(lambda name=name: zoo.create(name)) for _ in range(2)) for name in zoo.list_models()}
    slowest = sorted(took, key=took.get, reverse=True)
    print(f"construction of {len(took)} nets, the slowest:", ", ".join(f"{n} {took[n]:.2f} s" for n in slowest[:6]))
    return [{"what": f"construction, {name}", "seconds": took[name]} for name in slowest]


if __name__ == "__main__":
    main(__doc__, {part.__name__: part for part in (checkpointing, loading, construction)})
