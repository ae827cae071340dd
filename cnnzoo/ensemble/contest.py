"""Several ways of combining the same members, side by side."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cnnzoo.calibrate import accuracy_interval
from cnnzoo.ensemble.combine import METHODS, Combination, combine, log_loss
from cnnzoo.ensemble.members import Panel
from cnnzoo.errors import InputError, counted
from cnnzoo.shown import Shown, Table

COLUMNS = ("name", "kind", "top1", "cross_top1", "low", "high", "loss")


@dataclass(frozen=True)
class Contest(Shown):
    """What members reach alone, and together by each method. `str()` is a table."""

    panel: Panel
    combinations: tuple[Combination, ...]
    missing: dict[str, str] = field(default_factory=dict)  # methods that could not be fitted, and why

    @property
    def best(self) -> Combination:
        """The most accurate method, of those that learn as cross-fitted, of equals the one of least log-loss.

        Being chosen by these images flatters it a little: new ones say more.
        """
        return max(self.combinations, key=lambda one: (one.honest_top1, -one.loss))

    @property
    def cross_fitted(self) -> bool:
        """Whether the best method, or a member, learnt from these images, so that only as cross-fitted it is judged."""
        return self.best.cross_fitted is not None or any(self.panel.fitted)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """For each member and method, by `COLUMNS`: accuracy as a fraction, that of cross-fitting where a method learns
        from the targets (else None), the 95 % interval (Wilson's) of the latter where there is one, and the log-loss
        (see `combine.log_loss`).
        """
        panel = self.panel
        members = zip(panel.names, panel.top1.tolist(), panel.log_probabilities, panel.right, strict=True)
        told = [(name, "member", top1, None, log_loss(said, panel.targets), own) for name, top1, said, own in members]
        for one in self.combinations:
            crossed = None if one.cross_fitted is None else one.honest_top1
            right = one.honest.argmax(1) == panel.targets
            told.append((one.method, "method", one.top1, crossed, one.loss, right))
        rows = []
        for name, kind, top1, crossed, loss, right in told:
            interval = accuracy_interval(right, panel.groups)
            rows.append(dict(zip(COLUMNS, (name, kind, top1, crossed, *interval, loss), strict=True)))
        return rows

    @property
    def notes(self) -> list[str]:
        """A line for each thing that a person should know of a member or a method."""
        told = [f"{one.method}: {note}" for one in self.combinations for note in one.notes]
        return self.panel.notes + told + [f"{method} is missing: {why}" for method, why in self.missing.items()]

    def _table(self) -> Table:
        rows = []
        for row in self.rows:
            crossed = "" if row["cross_top1"] is None else f"{row['cross_top1']:.2%}"
            interval = f"{row['low']:.1%} to {row['high']:.1%}"
            rows.append((row["name"], f"{row['top1']:.2%}", crossed, interval, f"{row['loss']:.4f}"))
        unseen = "" if self.panel.notes else ", none of which a member was trained on"
        judged = f"{counted(len(self.panel.targets), 'image')}{unseen}"
        heads = ("", "top-1", "cross-fitted", "95% interval", "log-loss")
        return Table(heads, rows, ("", "95% interval"), notes=(judged, *self.notes))

    def to_dict(self) -> dict:
        return {
            "images": len(self.panel.targets),
            "rows": self.rows,
            "weights": {one.method: one.weights for one in self.combinations},
            "best": self.best.method,
            "cross_fitted": self.cross_fitted,
            "notes": self.notes,
        }


def contest(
    panel: Panel, methods: Iterable[str] = METHODS, weights: Sequence[float] | None = None, seed: int = 0
) -> Contest:
    """Combine a panel by several methods, or by one; see `combine` for `weights` and `seed`.

    Raises:
        InputError: as `combine` does; of several methods those that cannot be fitted are merely missing.
    """
    methods = list(methods)
    if weights is not None and len(methods) > 1:
        raise InputError("weights go with one method that takes them, not with all")
    found, missing = [], {}
    for method in methods:
        try:
            found.append(combine(panel, method, weights, seed))
        except InputError as error:
            if len(methods) == 1:
                raise
            missing[method] = str(error)
    return Contest(panel, tuple(found), missing)
