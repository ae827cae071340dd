"""What a person sees of a result: `repr` is what `str` says, and a notebook shows tables and pictures."""

import base64
import html
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property

import numpy as np

from cnnzoo import figures
from cnnzoo.errors import one_line

MOST = 200  # lines of a repr, and rows of a table in a notebook


@dataclass(frozen=True)
class Table:
    """Texts under heads. `str()` is a table for a terminal."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str] | None = None  # heads of columns that begin at the left; None: the first one's
    total: Sequence[str] | None = None  # a last row that stands apart
    title: str = ""
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [[*map(one_line, line)] for line in (self.heads, *self.rows, *filter(None, [self.total]))]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        sides = ["<" if is_word else ">" for is_word in self._are_words()]
        columns = [*zip(sides, widths, strict=True)]
        told = ["  ".join(f"{c:{side}{wide}}" for c, (side, wide) in zip(line, columns, strict=True)) for line in lines]
        head, *body = map(str.rstrip, told)
        if self.total:
            rule = "-" * (sum(widths) + 2 * len(widths) - 2)
            body = [rule, *body[:-1], rule, body[-1]]
        return "\n".join([*filter(None, [self.title]), head, *body, *self.notes])

    def to_markdown(self) -> str:
        rule = ["---" if is_word else "---:" for is_word in self._are_words()]
        lines = [f"| {' | '.join(cells)} |" for cells in (self.heads, rule, *self.rows, *filter(None, [self.total]))]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)])

    def to_html(self) -> str:
        sides = ["left" if is_word else "right" for is_word in self._are_words()]

        def line(cells: Sequence[str], tag: str = "td") -> str:
            marked = zip(sides, map(html.escape, cells), strict=True)
            columns = (f'<{tag} style="text-align: {side}">{cell}</{tag}>' for side, cell in marked)
            return f"<tr>{''.join(columns)}</tr>"

        body = "\n".join(map(line, self.rows[:MOST]))
        more = [f"… and {len(self.rows) - MOST:,} rows more"] if len(self.rows) > MOST else []
        caption = f"<caption>{html.escape(self.title)}</caption>\n" if self.title else ""
        foot = f"\n<tfoot>{line(self.total, 'th')}</tfoot>" if self.total else ""
        notes = "".join(f"\n<p>{html.escape(note)}</p>" for note in (*more, *self.notes))
        head = f"<thead>{line(self.heads, 'th')}</thead>"
        return f"<table>\n{caption}{head}\n<tbody>\n{body}\n</tbody>{foot}\n</table>{notes}"

    def _are_words(self) -> list[bool]:
        words = self.heads[:1] if self.words is None else self.words
        return [head in words for head in self.heads]


def _same(a: object, b: object) -> bool:
    """Whether two values are equal, arrays as wholes, in which NaN is NaN."""
    if is_dataclass(a) and type(a) is type(b):
        return all(_same(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b, equal_nan=a.dtype.kind == b.dtype.kind == "f")
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return a is b or bool(a == b)


class Shown:
    """A result whose `repr` is what `str` says, short where that is long; a notebook shows its `_table`, if it has one.
    Two are equal if they hold the same; of arrays, dataclasses' own `==` would ask for a truth value.

    A class has `__str__`, or `_table`, or both where the lines are to say it otherwise.
    """

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        cls.__repr__ = cls.__repr__  # a dataclass writes over those that it inherits, but not over its own
        cls.__eq__ = cls.__eq__

    def __eq__(self, other: object) -> bool:
        return _same(self, other) if is_dataclass(self) and type(other) is type(self) else super().__eq__(other)

    def __hash__(self) -> int:  # of what is no dataclass: those have their own
        return super().__hash__()

    def __str__(self) -> str:
        return str(self._table())

    def __repr__(self) -> str:
        lines = str(self).splitlines()
        more = [f"… and {len(lines) - MOST:,} lines more, which print() shows"] if len(lines) > MOST else []
        return "\n".join(lines[:MOST] + more)

    def _table(self) -> Table | None:
        """None: a notebook shows the lines."""

    def _repr_html_(self) -> str | None:
        table = self._table()
        return table and table.to_html()


class Drawn(Shown, ABC):
    """A result with a picture, which a notebook draws when it shows it, below the table if there is one."""

    @abstractmethod
    def figure(self):
        """A matplotlib Figure."""

    @cached_property
    def _png(self) -> bytes | None:
        return self._draw()

    def _draw(self) -> bytes | None:
        """None where it cannot be drawn: `figure` tells why, and what is shown goes without."""
        try:
            return figures.png(self.figure())
        except Exception:
            return None

    def _repr_png_(self) -> bytes | None:
        return self._png

    def _repr_html_(self) -> str | None:
        table, png = super()._repr_html_(), self._png
        image = png and f'\n<img src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        return table and f"{table}{image or ''}"
