"""What a majority of independent members reaches: Condorcet's jury theorem (Essai sur l'application de
l'analyse, 1785).

Each member is right with a probability of its own and without regard to the others; the committee is right where more
than half of them are. Where exactly half are, which takes an even number, a coin decides, so that ties count one half.
With two classes this is majority vote itself. With more, wrong votes may scatter, and the largest group may be right
though it is less than half: there these figures are a lower bound.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from numbers import Integral
from pathlib import Path

import numpy as np
from scipy.stats import binom

from cnnzoo import figures
from cnnzoo.errors import InputError, quoted
from cnnzoo.shown import Drawn, Table

MOST = 10_000  # members
TOLD = 1e-10  # a less probable outcome is not worth a line
CURVES = (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9)  # accuracies of members in the picture


@dataclass(frozen=True)
class Odds(Drawn):
    """How often how many of n independent members are right. `str()` is a table."""

    accuracies: tuple[float, ...]  # (n,) of the members
    chances: tuple[float, ...]  # (n + 1,): that exactly 0, 1, … n of them are right

    @property
    def size(self) -> int:
        return len(self.accuracies)

    @property
    def tie(self) -> float:
        """The probability that exactly half of the members are right."""
        return 0.0 if self.size % 2 else self.chances[self.size // 2]

    @property
    def accuracy(self) -> float:
        """The committee's: the probability of a majority of right members, and half that of a tie."""
        reached = math.fsum(self.chances[self.size // 2 + 1 :]) + self.tie / 2
        return min(reached, 1.0)  # each chance is rounded

    @property
    def title(self) -> str:
        low, high = min(self.accuracies), max(self.accuracies)
        right = f"right with probability {low:g}" if low == high else f"right with probabilities {low:g} to {high:g}"
        return f"{self.size:,} independent members, each {right}" if self.size > 1 else f"one member, {right}"

    def simulate(self, votes: int = 100_000, seed: int = 0) -> float:
        """The committee's accuracy over so many votes, in each of which every member draws whether it is right."""
        rng = np.random.default_rng(seed)
        right = np.zeros(votes, np.int64)
        for p, many in Counter(self.accuracies).items():
            right += rng.binomial(many, p, votes)
        return float(np.mean((np.sign(2 * right - self.size) + 1) / 2))

    def _table(self) -> Table:
        told = [right for right in range(self.size, (self.size - 1) // 2, -1) if self.chances[right] >= TOLD]
        rows = []
        for right in told:
            tie = "a tie: half of it counts" if 2 * right == self.size else ""
            rows.append((f"{right}", f"{self.chances[right]:.10g}", "; ".join(filter(None, (self._how(right), tie)))))
        if hidden := self.size // 2 + 1 - len(told):
            rows.append(("", f"{hidden} more below {TOLD:g}", ""))
        rows.append(("sum", f"{self.accuracy:.10g}", "the committee is right"))
        return Table(heads := ("right", "probability", ""), rows, heads[1:], title=self.title)

    def figure(self):
        """The committee's accuracy over its size, a curve for each accuracy of the members: a matplotlib Figure."""
        from matplotlib import colormaps  # here, since matplotlib takes a while to import
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullLocator

        own = self.accuracies[:1] if len(set(self.accuracies)) == 1 else ()
        curves = sorted({*CURVES, *own})
        sizes = np.unique(np.geomspace(1, max(101, self.size), 200).astype(int) // 2 * 2 + 1)  # odd ones, with no ties
        figure = Figure((8, 6), dpi=130, layout="constrained")
        axes = figure.subplots()
        for p in curves:
            style = {"color": "black", "linewidth": 2.5} if p in own else {"color": colormaps["cividis"](p)}
            axes.plot(sizes, binom.sf(sizes // 2, sizes, p), **style)
        axes.plot(self.size, self.accuracy, "o", color="black", clip_on=False)
        axes.set_title(f"the dot: {self.title}: {self.accuracy:.6g}", fontsize="medium", wrap=True)
        axes.axhspan(0, 0.5, color="black", alpha=0.06, linewidth=0)
        axes.text(1.1, 0.03, "right less than half the time:\nthe more of them, the worse")
        axes.set(xscale="log", xlim=(1, sizes[-1]), ylim=(0, 1.01))
        axes.set(xlabel="independent members", ylabel="accuracy of their majority; each curve begins at a member's own")
        marks = [size for size in (1, 3, 5, 11, 21, 51, 101, 1001) if size <= sizes[-1]]
        axes.set_xticks(marks, [f"{size:,}" for size in marks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_yticks([0, *curves, 1], [f"{p:g}" for p in (0, *curves, 1)])
        axes.grid(alpha=0.25)
        return figure

    def _how(self, right: int) -> str:
        """The binomial term as a product, where members are alike and it can be read."""
        p, ways = self.accuracies[0], math.comb(self.size, right)
        if len(set(self.accuracies)) > 1 or ways >= 10**12:
            return ""
        return " x ".join([f"{ways:,}", *_power(p, right), *_power(1 - p, self.size - right)])

    def to_dict(self) -> dict:
        return {
            "accuracies": list(self.accuracies),
            "chances": list(self.chances),
            "tie": self.tie,
            "accuracy": self.accuracy,
        }


def _power(base: float, exponent: int) -> list[str]:
    return [f"{base:g}" if exponent == 1 else f"{base:g}^{exponent}"] if exponent else []


def vote_odds(p: float | Sequence[float] = 0.7, n: int | None = None, *, out: str | Path | None = None) -> Odds:
    """What independent members reach by majority.

    Args:
        p: the probability with which each member is right; or those of members that differ.
        n: how many members; None is 3 where `p` is one number.
        out: a file for the picture of the committee's accuracy over its size, its kind by its suffix; None draws none.

    Raises:
        InputError: if a probability is outside 0 to 1, for a size outside 1 to 10,000 or other than that of `p`, and
            for a kind of picture nobody knows.
    """
    try:
        accuracies = (float(p),) if np.ndim(p) == 0 else tuple(map(float, p))
    except (TypeError, ValueError):
        raise InputError(f"p is {quoted(p)}, but must be a probability, or one for each member") from None
    if np.ndim(p) == 0:
        accuracies *= _size(3 if n is None else n)
    elif n not in (None, _size(len(accuracies))):
        raise InputError(f"p holds {len(accuracies)} probabilities, but n is {n}; leave n out, or give one p")
    if strangers := [f"{p:g}" for p in accuracies if not 0 <= p <= 1]:
        raise InputError(f"p is {strangers[0]}, but a probability lies between 0 and 1")
    if out is not None:
        figures.check(out)
    odds = of(accuracies)
    if out is not None:
        figures.save(odds.figure(), out)
    return odds


def _size(n: int) -> int:
    if not isinstance(n, Integral) or not 1 <= n <= MOST:
        raise InputError(f"n is {n}, but a committee has a whole number of members, from 1 to {MOST:,}")
    return int(n)


def of(accuracies: Sequence[float]) -> Odds:
    """The odds of independent members: binomial where they are alike, else Poisson binomial."""
    n, one = len(accuracies), accuracies[0]
    chances = binom.pmf(np.arange(n + 1), n, one) if len(set(accuracies)) == 1 else poisson_binomial(accuracies)
    return Odds(tuple(map(float, accuracies)), tuple(chances.tolist()))


def poisson_binomial(accuracies: Sequence[float]) -> np.ndarray:
    """`(n + 1,)`: the probability that exactly 0, 1, … n of n members are right, each of an accuracy of its own.

    Each member in turn leaves the number of right ones as it is, or raises it by one: a convolution.
    """
    return reduce(np.convolve, ((1 - p, p) for p in accuracies), np.ones(1))
