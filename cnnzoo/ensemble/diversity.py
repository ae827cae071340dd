"""Why a committee is better than its members, or is not: how far they err on the same images.

The measures of pairs are those of Kuncheva and Whitaker, "Measures of diversity in classifier ensembles and their
relationship with the ensemble accuracy", Machine Learning 51 (2003), section 2.1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from cnnzoo import bars, calibrate
from cnnzoo.ensemble import odds
from cnnzoo.ensemble.combine import accuracy
from cnnzoo.ensemble.members import Panel
from cnnzoo.errors import counted
from cnnzoo.shown import Shown

EVERY = 10  # members up to which all sub-committees are judged: of ten there are 1,023

MEASURES = {  # of two members, and what they tell
    "disagreement": "share of images on which just one of the two is right",
    "double_fault": "share of images on which both are wrong",
    "q_statistic": "Yule's, of being right: 0 for independent members, 1 where one errs only if the other does",
    "correlation": "of being right, which is that of errors: 0 for independent members, 1 for the same errors",
}


@dataclass(frozen=True)
class Pairs:
    """The measures of each two of M members: symmetric `(M, M)`, nan where one is not defined."""

    disagreement: np.ndarray
    double_fault: np.ndarray
    q_statistic: np.ndarray
    correlation: np.ndarray

    @classmethod
    def of(cls, right: np.ndarray) -> "Pairs":
        """From whether each member is right on each image, `(M, N)` bool."""
        hit, miss, count = right.astype(float), (~right).astype(float), right.shape[1]
        both, neither, only = hit @ hit.T, miss @ miss.T, hit @ miss.T  # (M, M): numbers of images
        like, unlike = both * neither, only * only.T
        spread = np.outer(hit.sum(1) * miss.sum(1), hit.sum(1) * miss.sum(1))
        with np.errstate(invalid="ignore"):  # 0 / 0, where a member is right on all images or on none
            q, correlation = (like - unlike) / (like + unlike), (like - unlike) / np.sqrt(spread)
        return cls((only + only.T) / count, neither / count, q, correlation)


@dataclass(frozen=True)
class Subcommittee:
    """Some of the members, whose mean probabilities decide."""

    members: tuple[int, ...]  # their places
    cost: int  # multiply-adds for an image
    top1: float


@dataclass(frozen=True)
class Verdict:
    """What was said of an image on which just one of committee and best member is right."""

    image: str
    truth: str
    committee: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Diversity(Shown):
    """M members and their committee on N images. `str()` is a set of tables."""

    names: tuple[str, ...]  # (M,) of the members
    method: str  # by which the committee decides
    count: int  # N
    top1: tuple[float, ...]  # (M,) fractions
    intervals: tuple[tuple[float, float], ...]  # (M,) of these: 95 %, Wilson's
    costs: tuple[int, ...]  # (M,) multiply-adds for an image
    committee_top1: float
    committee_interval: tuple[float, float]
    p: float  # of McNemar's exact test of committee and best member: how often equals differ this much
    majority: float  # share of images on which more than half of the members are right; an even split counts one half
    independent: float  # what that share would be if members of these accuracies were independent
    pairs: Pairs
    subcommittees: tuple[Subcommittee, ...]  # the cheapest first
    rescued: tuple[Verdict, ...]  # the committee is right where the best member is wrong
    lost: tuple[Verdict, ...]  # the committee is wrong where the best member is right

    @property
    def best(self) -> int:
        """The place of the most accurate member."""
        return int(np.argmax(self.top1))

    @property
    def front(self) -> tuple[Subcommittee, ...]:
        """The sub-committees that no other matches for as few multiply-adds, the cheapest first."""
        found: list[Subcommittee] = []
        for one in self.subcommittees:
            if not found or one.top1 > found[-1].top1:
                found.append(one)
        return tuple(found)

    def __str__(self) -> str:
        return "\n\n".join([self._accuracies(), *self._matrices(), self._front(), self._changes()])

    def _accuracies(self) -> str:
        members = zip(self.names, self.top1, self.intervals, self.costs, strict=True)
        rows = [(f"{number} {name}", *row) for number, (name, *row) in enumerate(members, 1)]
        rows.append((f"committee, {self.method}", self.committee_top1, self.committee_interval, sum(self.costs)))
        width = max(len(row[0]) for row in rows)
        lines = [f"{'member':<{width}}    top-1  95% interval      multiply-adds"]
        for name, top1, (low, high), cost in rows:
            lines.append(f"{name:<{width}}  {top1:>7.2%}  {f'{low:.1%} to {high:.1%}':<16}  {cost:>13,}")
        majority = f"most members are right on {self.majority:.2%} of the {self.count:,} images"
        return "\n".join([*lines, f"{majority}; independent ones would be on {self.independent:.2%}"])

    def _matrices(self) -> Iterator[str]:
        many = len(self.names)
        for measure, meaning in MEASURES.items():
            values = getattr(self.pairs, measure)
            head = "".join(f"{number:>7}" for number in range(2, many + 1))
            rows = (
                f"{row + 1:>3}{'':{7 * row}}{''.join(f'{_told(value):>7}' for value in values[row, row + 1 :])}"
                for row in range(many - 1)
            )
            yield "\n".join([f"{measure.replace('_', ' ')}: {meaning}", f"   {head}", *rows])

    def _front(self) -> str:
        lines = ["sub-committees, by the mean of probabilities: what so many multiply-adds reach"]
        for one in self.front:
            who = " + ".join(str(member + 1) for member in one.members)
            lines.append(f"{one.top1:>7.2%}  {one.cost:>13,}  {who}")
        return "\n".join(lines)

    def _changes(self) -> str:
        return (
            f"the committee rescues {counted(len(self.rescued), 'image')} that the best member, "
            f"{self.names[self.best]}, gets wrong, and loses {len(self.lost):,} that it gets right "
            f"(p = {self.p:.2g} by McNemar's test)"
        )

    def to_dict(self) -> dict:
        """For JSON: None where a measure is not defined."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        matrices = {key: np.where(np.isnan(m), None, m).tolist() for key, m in vars(self.pairs).items()}
        lists = {key: [asdict(one) for one in values[key]] for key in ("subcommittees", "rescued", "lost")}
        return values | lists | {"pairs": matrices}


def _told(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def study(panel: Panel, method: str, committee: np.ndarray, costs: Sequence[int]) -> Diversity:
    """Compare a committee with its members.

    Args:
        panel: what the members say.
        method: by which the committee decides.
        committee: `(N, K)`, what it makes of that: probabilities, or whatever grows with them.
        costs: `(M,)` multiply-adds of each member for an image.
    """
    right, said, targets = panel.right, committee.argmax(axis=1), panel.targets
    top1 = right.mean(axis=1)
    committee_right, best_right = said == targets, right[top1.argmax()]
    votes = right.sum(axis=0) * 2 - len(right)  # above 0 where most members are right
    words = panel.logits.argmax(axis=2)

    def verdicts(places: np.ndarray) -> tuple[Verdict, ...]:
        name = panel.classes.__getitem__
        return tuple(
            Verdict(panel.images[i], name(targets[i]), name(said[i]), tuple(map(name, words[:, i]))) for i in places
        )

    return Diversity(
        names=tuple(panel.names),
        method=method,
        count=len(targets),
        top1=tuple(top1.tolist()),
        intervals=tuple(calibrate.accuracy_interval(own, panel.groups) for own in right),
        costs=tuple(map(int, costs)),
        committee_top1=float(committee_right.mean()),
        committee_interval=calibrate.accuracy_interval(committee_right, panel.groups),
        p=calibrate.mcnemar(committee_right, best_right, panel.groups),
        majority=float(np.mean((np.sign(votes) + 1) / 2)),
        independent=odds.of(top1.tolist()).accuracy,
        pairs=Pairs.of(right),
        subcommittees=subcommittees(panel.probabilities, targets, costs),
        rescued=verdicts(np.flatnonzero(committee_right & ~best_right)),
        lost=verdicts(np.flatnonzero(best_right & ~committee_right)),
    )


# ---- sub-committees

Sum = tuple[tuple[int, ...], np.ndarray]  # some members, and the sum (N, K) of their probabilities


def subcommittees(probabilities: np.ndarray, targets: np.ndarray, costs: Sequence[int]) -> tuple[Subcommittee, ...]:
    """What the mean of probabilities reaches with some of the members: with all choices of up to ten, of more with the
    best one and whoever adds most to those before. The cheapest first, and the more accurate of equally cheap ones.

    Args:
        probabilities: `(M, N, K)`.
        targets: `(N,)`.
        costs: `(M,)` multiply-adds.
    """
    if (many := len(probabilities)) <= EVERY:
        sums, total = _every(probabilities, (), 0, 0), 2**many - 1
    else:
        sums, total = _grown(probabilities, targets), many
    found = [
        Subcommittee(members, int(sum(costs[member] for member in members)), accuracy(said, targets))
        for members, said in bars.show(sums, desc="sub-committees", total=total)
    ]
    return tuple(sorted(found, key=lambda one: (one.cost, -one.top1, one.members)))


def _every(probabilities: np.ndarray, members: tuple[int, ...], said: np.ndarray | int, start: int) -> Iterator[Sum]:
    """These members with each choice of those from `start` on; one sum at a time is kept for each member added."""
    for member in range(start, len(probabilities)):
        with_it = (*members, member), said + probabilities[member]
        yield with_it
        yield from _every(probabilities, *with_it, member + 1)


def _grown(probabilities: np.ndarray, targets: np.ndarray) -> Iterator[Sum]:
    """Each time with the member that adds most."""
    members, said, left = (), 0, list(range(len(probabilities)))
    while left:
        best = max(left, key=lambda member: accuracy(said + probabilities[member], targets))
        left.remove(best)
        members, said = (*members, best), said + probabilities[best]
        yield members, said
