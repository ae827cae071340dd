"""Experiments that a lecture tells of, to run: one experiment, one file, found by folder, so that a new one is exactly
one new file.

A lab's file says what is claimed (`CLAIM`, one sentence, and `SOURCE`, who says so), has the run (`run(seed, quick)`,
which gives what was `Seen` and whether the claim held) and the picture (`draw(seen)`). It knows of cnnzoo only what any
user does.
"""

import importlib
import json
import pkgutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from cnnzoo import atomic, figures
from cnnzoo.errors import at_least, unknown
from cnnzoo.labs._lab import Seen
from cnnzoo.shown import Drawn, Table
from cnnzoo.telling import Tell


@dataclass(frozen=True)
class Lab:
    """An experiment."""

    name: str
    claim: str
    source: str
    run: Callable[[int, bool], Seen]  # of a seed, and whether to be quick
    draw: Callable  # of what several seeds saw, to a matplotlib Figure


@dataclass(frozen=True)
class Outcome(Drawn):
    """What became of a lab's claim. `str()` tells it."""

    lab: Lab
    quick: bool
    seen: tuple[Seen, ...]  # by seeds 0, 1, …
    seconds: float

    @property
    def held(self) -> bool:
        """Whether the claim held with every seed."""
        return all(seen.held for seen in self.seen)

    def __str__(self) -> str:
        held, many = sum(seen.held for seen in self.seen), len(self.seen)
        return f"the claim {'held' if self.held else 'did not hold'}: {held} of {many} seeds, {self.seconds:.0f} s"

    def _table(self) -> Table:
        rows = [(str(seed), "held" if seen.held else "did not hold", seen.told) for seed, seen in enumerate(self.seen)]
        about = (f"{self.lab.claim} ({self.lab.source})", str(self))
        return Table(("seed", "", "seen"), rows, ("", "seen"), title=self.lab.name, notes=about)

    def to_dict(self) -> dict:
        runs = [{"seed": seed, "held": seen.held, **seen.figures} for seed, seen in enumerate(self.seen)]
        lab = {"lab": self.lab.name, "claim": self.lab.claim, "source": self.lab.source}
        return lab | {"held": self.held, "quick": self.quick, "seconds": round(self.seconds, 1), "runs": runs}

    def figure(self):
        """The picture, a matplotlib Figure."""
        return self.lab.draw(self.seen)

    def save(self, folder: str | Path) -> tuple[Path, Path]:
        """Write NAME.json and NAME.png into a folder, each whole or not at all, in place of those of another run."""
        told, picture = (Path(folder, f"{self.lab.name}.{kind}") for kind in ("json", "png"))
        atomic.write(told, json.dumps(self.to_dict(), indent=2).encode())
        figures.save(self.figure(), picture)
        return told, picture


def names() -> list[str]:
    """The labs there are, as the command line calls them."""
    files = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [file.replace("_", "-") for file in files if not file.startswith("_")]


def find(name: str) -> Lab:
    """The lab called `name`. Raises InputError that offers the near names."""
    if name not in names():
        raise unknown("lab", name, names())
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    return Lab(name, module.CLAIM, module.SOURCE, module.run, module.draw)


def run(name: str, *, seeds: int = 3, quick: bool = False, tell: Tell = print) -> Outcome:
    """Try out what a lab claims.

    Args:
        name: of the lab, see `names`.
        seeds: how many times, each with random numbers of its own.
        quick: smaller, as tests have it; the claim may then hold less clearly.
        tell: is given a line for each seed.

    Raises:
        InputError: for a name that nobody knows, and for less than one seed.
    """
    lab = find(name)
    at_least("seeds", seeds)
    began = time.perf_counter()
    seen = tuple(_seen(lab, seed, quick, tell) for seed in range(seeds))
    return Outcome(lab, quick, seen, time.perf_counter() - began)


def _seen(lab: Lab, seed: int, quick: bool, tell: Tell) -> Seen:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        seen = lab.run(seed, quick)
    tell(f"seed {seed}: {'held' if seen.held else 'did not hold'}: {seen.told}")
    return seen


def claims() -> dict[str, str]:
    """What each lab claims."""
    return {name: find(name).claim for name in names()}


def overview() -> str:
    """The same in lines."""
    width = max(map(len, names()))
    return "\n".join(f"{name:<{width}}  {claim}" for name, claim in claims().items())
