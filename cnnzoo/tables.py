"""Rows that stream by, into a file that is whole or absent: CSV, JSON or Parquet, by its ending. A leaf."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from cnnzoo import atomic
from cnnzoo.errors import InputError
from cnnzoo.paths import expanded

Rows = Iterable[Mapping[str, Any]]  # texts, numbers, booleans; None where there is nothing to say

KINDS = {str: "string", float: "float64", int: "int64", bool: "bool"}  # of columns, and what Parquet calls them


def check(path: str | Path) -> None:
    """Raises InputError unless `write` can make a file of this ending here, so that one knows before any work."""
    path = expanded(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path} must end in one of {', '.join(FORMATS)}, to be written as such a table")
    if path.is_dir():
        raise InputError(f"{path} is a folder")
    atomic.check_writable(path)
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise InputError(
                f'{path}: Parquet needs pyarrow, which pip install "cnnzoo[parquet]" brings; or write .csv or .json'
            ) from None


def write(path: str | Path, rows: Rows, columns: Mapping[str, type]) -> None:
    """Put rows into a file, a few at a time; it replaces another of that name when it is complete.

    Args:
        path: ends in .csv, .json (a list of objects) or .parquet; its folder is made.
        rows: have the keys of `columns`, in that order.
        columns: their names, and str, float, int or bool.

    Raises:
        InputError: as `check` does.
    """
    check(path)
    path = expanded(path)
    with atomic.replacing(path) as part, open(part, "wb") as file:
        FORMATS[path.suffix.lower()](file, rows, columns)


def to_csv(rows: Rows, columns: Mapping[str, type]) -> str:
    """What `write` puts into a .csv file: true and false in words, numbers with six places, nothing for None."""
    file = io.BytesIO()
    _csv(file, rows, columns)
    return file.getvalue().decode()


def _csv(file: BinaryIO, rows: Rows, columns: Mapping[str, type]) -> None:
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row.values()] for row in rows)
    text.detach()  # writes what is left, and leaves the file open


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6f}" if isinstance(value, float) else value


def _json(file: BinaryIO, rows: Rows, columns: Mapping[str, type]) -> None:
    between = b"["
    for row in rows:
        file.write(between + b"\n" + json.dumps(row).encode())
        between = b","
    file.write(b"\n]\n" if between == b"," else b"[]\n")


def _parquet(file: BinaryIO, rows: Rows, columns: Mapping[str, type]) -> None:
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([(name, pyarrow.type_for_alias(KINDS[kind])) for name, kind in columns.items()])
    rows = iter(rows)
    with parquet.ParquetWriter(file, schema) as writer:
        while some := list(islice(rows, 10_000)):
            writer.write_table(pyarrow.Table.from_pylist(some, schema))


FORMATS: dict[str, Callable[[BinaryIO, Rows, Mapping[str, type]], None]] = {
    ".csv": _csv,
    ".json": _json,
    ".parquet": _parquet,
}
