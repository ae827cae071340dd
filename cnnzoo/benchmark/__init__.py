"""`cnnzoo benchmark`: ours beside the peers, in one run, in turn. Only ratios are worth quoting."""

import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from cnnzoo.benchmark import cifar, decoding, inference, overhead, photos, small, steps
from cnnzoo.benchmark.harness import Bench, Results, Row, TimeUp, at_most, machine
from cnnzoo.errors import InputError, unknown

WORDS = 300  # characters of an error that are told


def imports(bench: Bench) -> Iterator[Row]:
    """C9: import cnnzoo and list its nets, in a process of its own, beside import torch, and beside timm's list."""
    sides = {
        "import torch": "import torch",
        "import timm; timm.list_models()": "import timm; timm.list_models()",
    }

    def fresh(code: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    yield from bench.contest(
        "import cnnzoo; cnnzoo.list_models()",
        fresh("import cnnzoo; cnnzoo.list_models()"),
        {name: fresh(code) for name, code in sides.items()},
        work=1,
        unit="runs/s",
        wanted={"import torch": 0.9},
    )


@dataclass(frozen=True)
class Benchmark:
    """One of the suite."""

    name: str
    run: Callable[[Bench], Iterator[Row]]
    device: str = "cpu"

    @property
    def about(self) -> str:
        """The first line of its docstring, without the name it begins with."""
        return (self.run.__doc__ or "").partition("\n")[0].partition(": ")[2]


SUITE = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("C1", inference.own_precision),
        Benchmark("C1b", inference.fp32),
        Benchmark("C1d", inference.int8),
        Benchmark("C2", steps.steps_on_cpu),
        Benchmark("C3", decoding.crops),
        Benchmark("C3b", decoding.evaluated),
        Benchmark("C3c", decoding.decoders),
        Benchmark("C4", decoding.cached),
        Benchmark("C5", small.feed),
        Benchmark("C5b", small.cifar),
        Benchmark("C7", small.mnist),
        Benchmark("C7b", small.mnist_rate),
        Benchmark("C8", overhead.overhead),
        Benchmark("C9", imports),
        Benchmark("G1", steps.steps_on_gpu, "cuda"),
        Benchmark("G1b", steps.more_steps_on_gpu, "cuda"),
        Benchmark("G2", inference.on_gpu, "cuda"),
        Benchmark("G2b", inference.one_image, "cuda"),
        Benchmark("G3", cifar.until_94, "cuda"),
        Benchmark("G4", small.mnist, "cuda"),
        Benchmark("G5", photos.epochs, "cuda"),
        Benchmark("G6", photos.transfer, "cuda"),
        Benchmark("G7", steps.memory, "cuda"),
        Benchmark("G8", overhead.against_a_graph, "cuda"),
        Benchmark("G9", overhead.host_syncs, "cuda"),
    )
}


def run(
    names: Sequence[str] = (),
    rounds: int = 5,
    tell: Callable[[Row | str], None] = lambda line: None,
    keep: Callable[[Results], None] = lambda results: None,
    minutes: float | None = None,
) -> Results:
    """Measure benchmarks of the suite, by default all.

    Args:
        names: of `SUITE`.
        rounds: in which the sides take turns, after one that warms up.
        tell: is given each row as soon as it is there.
        keep: is given all that there is after each row, and after each benchmark.
        minutes: for all of them: each gets an even share of what the others before it have left, in which it runs as
            many rounds as fit, and is stopped when it has had twice that.

    Raises:
        InputError: for a benchmark nobody knows, and for minutes that are none.
    """
    if minutes is not None and not minutes > 0:
        raise InputError(f"minutes is {minutes}, but must be more than 0")
    for name in names:
        if name not in SUITE:
            raise unknown("benchmark", name, SUITE)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    about, rows, notes = machine(device), [], {}
    end = math.inf if minutes is None else time.monotonic() + 60 * minutes
    chosen = [SUITE[name] for name in names or SUITE]
    for place, benchmark in enumerate(chosen):
        left = end - (now := time.monotonic())
        share = left / (len(chosen) - place)
        bench = Bench(benchmark.name, torch.device(benchmark.device), rounds, until=now + share)
        try:
            if benchmark.device == "cuda" and device.type != "cuda":
                bench.note("not run: there is no GPU")
            else:
                with at_most(min(2 * share, left)):
                    for row in benchmark.run(bench):
                        tell(str(row))
                        rows.append(row)
                        keep(Results(about, rows, notes))
        except TimeUp as stopped:
            bench.note(str(stopped))
        except Exception as error:  # of any kind, such as a peer that does not compile: the others go on
            bench.note(f"not timed: {' '.join(str(error).split())[:WORDS] or type(error).__name__}")
        if bench.notes:
            notes[benchmark.name] = "; ".join(bench.notes)
            tell(f"{benchmark.name:<4} {notes[benchmark.name]}")
        keep(Results(about, rows, notes))
    return Results(about, rows, notes)
