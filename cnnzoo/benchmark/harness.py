"""How a benchmark is measured: sides in turn, in one run, and only their ratios told.

What the other work on a machine costs falls on all sides alike when they take turns, and cancels in the ratio of one
round; the median over rounds leaves out the rounds in which it did not.
"""

import json
import math
import os
import platform
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from cnnzoo import atomic, bars
from cnnzoo.benchmark.apart import Apart
from cnnzoo.device import computes_in_bf16, pick_precision, wait
from cnnzoo.inference import quantize
from cnnzoo.paths import expanded
from cnnzoo.shown import Shown

Side = Callable[[], object]  # does the same amount of work each time it is called


@dataclass(frozen=True)
class Row(Shown):
    """Ours beside one peer."""

    benchmark: str  # its name in the suite
    what: str
    peer: str
    unit: str  # of ours and theirs; more is better
    ours: float  # medians over the rounds
    theirs: float
    ratio: float  # median over the rounds of ours / theirs
    lowest: float
    highest: float
    rounds: int
    wanted: float | None = None  # the least ratio asked for
    note: str = ""

    def __str__(self) -> str:
        asked = f", asked {self.wanted:g}" if self.wanted else ""
        return (
            f"{self.benchmark:<4} {self.what} | {self.peer}: {self.ratio:.2f} times "
            f"({self.lowest:.2f} to {self.highest:.2f} in {self.rounds} rounds{asked}); "
            f"{_short(self.ours)} against {_short(self.theirs)} {self.unit}{f'; {self.note}' if self.note else ''}"
        )


@dataclass(frozen=True)
class Results(Shown):
    """What the benchmarks gave, and where."""

    machine: Mapping[str, object]
    rows: Sequence[Row]
    notes: Mapping[str, str] = field(default_factory=dict)  # benchmark -> what else was found, or why it was not run

    def __str__(self) -> str:
        told = [*map(str, self.rows), *(f"{name:<4} {note}" for name, note in self.notes.items())]
        return "\n".join(told)

    def to_dict(self) -> dict:
        return {"machine": dict(self.machine), "rows": list(map(asdict, self.rows)), "notes": dict(self.notes)}

    def write(self, folder: str | Path) -> Path:
        """benchmark.json and benchmark.md; returns the folder, which is made."""
        folder = expanded(folder)
        atomic.write(folder / "benchmark.json", json.dumps(self.to_dict(), indent=2).encode())
        atomic.write(folder / "benchmark.md", self.to_markdown().encode())
        return folder

    def to_markdown(self) -> str:
        """The machine in a line, then a table."""
        lines = [
            ", ".join(f"{key} {value}" for key, value in self.machine.items()),
            "",
            "| | what | beside | times | lowest to highest | asked | ours | theirs | |",
            "|---|---|---|---:|---:|---:|---:|---:|---|",
        ]
        for row in self.rows:
            asked = f"{row.wanted:g}" if row.wanted else ""
            lines.append(
                f"| {row.benchmark} | {row.what} | {row.peer} | **{row.ratio:.2f}** | {row.lowest:.2f} to "
                f"{row.highest:.2f} | {asked} | {_short(row.ours)} | {_short(row.theirs)} {row.unit} | {row.note} |"
            )
        lines += [f"| {name} | | | | | | | | {note} |" for name, note in self.notes.items()]
        return "\n".join(lines) + "\n"


class Bench:
    """What a benchmark is handed: the device, how often to take turns, and the means to do so.

    Args:
        name: of the benchmark, for its rows.
        device: on which both sides run.
        rounds: that count; as many as `warm_ups` are run before them.
        until: of `time.monotonic`, after which no contest begins, and no second round that would go beyond it.
    """

    def __init__(self, name: str, device: torch.device, rounds: int = 5, warm_ups: int = 1, until: float = math.inf):
        self.name, self.device, self.rounds, self.warm_ups, self.until = name, device, rounds, warm_ups, until
        self.notes: list[str] = []

    @property
    def precision(self) -> str:
        """bf16 where the device computes in it, else fp32."""
        return pick_precision("auto", self.device)

    def has_time(self, seconds: float = 0.0) -> bool:
        """Whether so many seconds are left."""
        return time.monotonic() + seconds < self.until

    def note(self, text: str) -> None:
        """Say in the results what no ratio tells: what was not measured and why, or what else was found."""
        self.notes.append(text)

    def side(self, make: Callable[..., Side], *args) -> Side:
        """`make(device, *args)`, on a CPU in a process of its own, which `contest` ends."""
        return Apart(make, self.device, *args) if self.device.type == "cpu" else make(self.device, *args)

    def contest(
        self,
        what: str,
        ours: Side,
        peers: Mapping[str, Side],
        work: float,
        unit: str = "images/s",
        wanted: Mapping[str, float] | None = None,
        agree: float | None = None,
        note: str = "",
    ) -> Iterator[Row]:
        """Let the sides take turns. A row for each peer. Raises TimeUp if there is no time to begin.

        Args:
            what: is measured, for a reader.
            ours: our side.
            peers: the others, by what a reader should know of them.
            work: units that each side does when it is called.
            unit: of the rates, units of `work` in a time; more is better.
            wanted: the least ratio asked for, by peer.
            agree: if given, every side returns its outputs, and they are first checked to be ours within this share of
                the largest one.
            note: what else a reader should know of the rows.
        """
        wanted = dict(wanted or {})
        sides = {"": ours, **peers}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        took = 0.0  # the latest round that counts
        try:
            if not self.has_time():
                raise TimeUp(f"no time was left for {what}")
            if self.device.type == "cuda":  # or torch would compile for any size what it has met in two, as in no run
                torch.compiler.reset()
            if agree is not None:
                outputs = ours()
                for peer, side in peers.items():
                    check_equal(outputs, side(), agree, f"{what}, {peer}")
            for turn in bars.show(range(self.warm_ups + self.rounds), desc=f"{self.name} {what}"):
                if turn > self.warm_ups and not self.has_time(took):
                    break
                costs = {name: self.seconds(side) for name, side in sides.items()}
                if turn >= self.warm_ups:
                    took = sum(costs.values())
                    for name, cost in costs.items():
                        seconds[name].append(cost)
        finally:
            for side in sides.values():
                if isinstance(side, Apart):
                    side.close()
        for peer in peers:
            yield self.row(what, peer, seconds[""], seconds[peer], work, unit, wanted.get(peer), note)

    def row(
        self,
        what: str,
        peer: str,
        ours: Sequence[float],
        theirs: Sequence[float],
        work: float = 1.0,
        unit: str = "1/s",
        wanted: float | None = None,
        note: str = "",
    ) -> Row:
        """A row from the costs (seconds, or bytes) of the rounds, ours and theirs, each of `work` units."""
        ratios = [there / here for here, there in zip(ours, theirs, strict=True)]
        rates = (work / statistics.median(costs) for costs in (ours, theirs))
        spread = statistics.median(ratios), min(ratios), max(ratios)
        return Row(self.name, what, peer, unit, *rates, *spread, len(ratios), wanted, note)

    def seconds(self, side: Side) -> float:
        """What one call takes, until all that it started on the device is finished."""
        wait(self.device)
        started = time.perf_counter()
        side()
        wait(self.device)
        return time.perf_counter() - started


class TimeUp(BaseException):
    """A benchmark has had its share of the time. No Exception, which code that tries things out would take for one that
    failed.
    """


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Within, TimeUp is raised once so many seconds have passed; in the main thread of a POSIX system alone."""
    if math.isinf(seconds) or not hasattr(signal, "SIGALRM") or threading.current_thread() != threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeUp("stopped, since its time was up")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))  # of which 0 would be never
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Unequal(Exception):
    """Two sides that should give the same do not, so their speeds mean nothing."""


def check_equal(ours: Tensor, theirs: Tensor, share: float, what: str) -> None:
    """Raises Unequal unless outputs agree within this share of the largest one."""
    error = (ours.float() - theirs.float()).abs().max().item() / max(theirs.float().abs().max().item(), 1e-12)
    if not error <= share:
        raise Unequal(f"{what}: outputs differ by {error:.1e} of the largest, where {share:.0e} is allowed")


def data_root() -> Path:
    """Where the real images lie: $CNNZOO_DATA."""
    return expanded(os.environ.get("CNNZOO_DATA", "."))


@contextmanager
def cached_in(folder: Path) -> Iterator[None]:
    """Within, what cnnzoo keeps between runs is kept in this folder."""
    before = os.environ.get("CNNZOO_CACHE")
    os.environ["CNNZOO_CACHE"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("CNNZOO_CACHE")
        if before is not None:
            os.environ["CNNZOO_CACHE"] = before


def machine(device: torch.device) -> dict[str, object]:
    """What results depend on."""
    versions = {name: metadata.version(name) for name in ("torch", "torchvision", "timm", "onnxruntime")}
    about: dict[str, object] = {"date": time.strftime("%Y-%m-%d"), "processor": _processor()}
    about |= {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "SIMD": _simd()}
    if device.type == "cuda":
        about |= {"GPU": torch.cuda.get_device_name(device), "CUDA": torch.version.cuda}
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return about | {"load before": load, "python": platform.python_version()} | versions


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _simd() -> str:
    also = {"BF16": computes_in_bf16(torch.device("cpu")), "VNNI": quantize.multiplies_bytes()}
    known = torch.backends.cpu.get_cpu_capability()
    return f"{known} {' '.join(f'with {name}' if there else f'without {name}' for name, there in also.items())}"


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"
