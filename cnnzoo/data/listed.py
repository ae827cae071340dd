"""Photos listed in a table: a .csv or .tsv file with a row for each photo, as competitions and spreadsheets have them.

    file,class,split,patient
    scans/0017.png,benign,train,p3

Columns are known by their names, whatever their order; only the photo and its class are needed. Where no row says
otherwise, photos lie beside the table or in a folder beside it, and the ending of a photo's name may be missing.
"""

import csv
import hashlib
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnzoo.data.decoding import EXTENSIONS, TABLES
from cnnzoo.data.found import HELD_OUT, TRAIN, Found, Part, photos
from cnnzoo.data.pictures import is_hidden
from cnnzoo.errors import InputError, composed, counted, did_you_mean, printable
from cnnzoo.paths import expanded

_COLUMNS = {  # what is known under which names, written together and in any case; the first one found counts
    "photo": (
        *("file", "filename", "filepath", "path", "image", "imagename", "imagepath", "imageid"),
        *("photo", "name", "id"),
    ),
    "class": ("class", "classname", "label", "labels", "category", "target", "species", "diagnosis"),
    "split": ("split", "subset", "partition", "set", "isvalid"),
}
PARTS = ("", "train", "val", "test")  # of a row; "" where the table does not divide its photos
_SAID_OF = {"yes": "val", "true": "val", "1": "val", "no": "train", "false": "train", "0": "train"}  # of isvalid
_MANY_FOLDERS = 50  # beside a table, that are searched for its photos at most
_END = "\x04"  # behind a table, a line of its own unless a quotation mark before it is not closed


def is_source(source: str) -> bool:
    return source.lower().endswith(TABLES) and not os.path.isdir(os.path.expanduser(source))


@dataclass(frozen=True)
class Row:
    """A photo that a table lists."""

    file: Path
    label: str
    part: str  # one of PARTS
    group: str | None  # what it belongs to, where that was asked of a column; "" where the cell is empty

    @property
    def number(self) -> int:
        """The same for photos of one group, in any table, and negative for one that stands alone."""
        digest = hashlib.sha256((self.group or self.file.as_posix()).encode(errors="surrogateescape")).digest()
        number = int.from_bytes(digest[:8], "big") >> 1
        return number if self.group else -1 - number


def find(source: str, groups: str | None = None) -> Found:
    """The photos that a table lists; those that it holds out, if it says which, are to validate on.

    `groups` may be a column's name: photos with the same value there belong together.
    """
    rows, notes = read(source, groups)
    first = next((part for part in PARTS[2:] if any(row.part == part for row in rows)), None)
    train = [row for row in rows if row.part in ("", "train")]
    if not train:
        raise InputError(f"{source} has no photo to train on, only such to judge on")
    classes, part = _part(train)
    if first is None:
        return photos(classes, part, None, home_of(source), notes)
    own, val = _part([row for row in rows if row.part == first])
    val = val.among(own, classes, f"{source} has classes in its {first} rows that its train rows lack")
    return photos(classes, part, val, home_of(source), notes)


def home_of(source: str | Path) -> Path:
    """The folder that a table lies in."""
    return expanded(source).parent


def beside(path: Path) -> list[str]:
    """The tables in a path's folder."""
    return [str(entry) for entry in path.parent.glob("*") if is_source(entry.name)]


def read(source: str | Path, groups: str | None = None) -> tuple[list[Row], tuple[str, ...]]:
    """A table's photos, in order, and what was passed over. Raises InputError that says what is wrong with it."""
    header, lines = _lines(expanded(source))
    columns, places = _columns(header, source), _Places(home_of(source))
    grouped = header.index(groups) if groups in header else None
    if grouped is None and groups and re.fullmatch(r"[\w -]+", groups) and (like := did_you_mean(groups, header)):
        raise InputError(f"{source} has no column {groups!r} (data.groups){like}")
    rows: dict[str, Row] = {}  # by where the photo lies, however the table writes that
    passed: Counter[str] = Counter()
    for number, line in lines:
        cells = {what: line[column].strip() if column < len(line) else "" for what, column in columns.items()}
        if any("\n" in cell for cell in cells.values()):  # it has swallowed rows up to the next mark
            raise InputError(f"{source}: in the row that ends in line {number} a quotation mark is not closed")
        if not cells["photo"] or not cells["class"]:
            passed["without a photo or a class"] += 1
            continue
        where = f"{source}, line {number}"
        part = _part_of(cells["split"], header[columns["split"]], where) if "split" in cells else ""
        group = None if grouped is None else line[grouped].strip() if grouped < len(line) else ""
        row = Row(places.of(cells["photo"], where), composed(cells["class"]), part, group)
        if (before := rows.setdefault(os.path.abspath(row.file), row)) is not row:
            if before.label != row.label:
                what = f"as {printable(before.label)} and as {printable(row.label)}; a photo has one class here"
                raise InputError(f"{where}: {cells['photo']} is listed twice, {what}")
            passed["with a photo that was listed before"] += 1
    if not rows:
        raise InputError(f"{source} lists no photo with its class")
    if grouped is not None and not any(row.group for row in rows.values()):
        raise InputError(f"{source} says nothing in its column {groups!r} (data.groups)")
    notes = (f"{counted(many, 'row')} of {source} {why} passed over" for why, many in passed.items())
    return list(rows.values()), tuple(notes)


def ordered(labels: Sequence[str]) -> tuple[str, ...]:
    """The classes, in order; numbers by their size, such as 1, 2.5 and 10.0."""
    numbers = all(re.fullmatch(r"-?\d+(\.\d+)?", label) for label in labels)
    return tuple(sorted(sorted(set(labels)), key=float if numbers else None))  # 1 and 01 always in the same order


def _part(rows: Sequence[Row]) -> tuple[tuple[str, ...], Part]:
    """Classes, and the photos with places among these."""
    classes = ordered([row.label for row in rows])
    places = {label: place for place, label in enumerate(classes)}
    labels = np.array([places[row.label] for row in rows], dtype=np.int64)
    groups = None if rows[0].group is None else np.array([row.number for row in rows], dtype=np.int64)
    return classes, Part([row.file for row in rows], labels, tuple(row.file.as_posix() for row in rows), groups)


# ---- what the table says


def _lines(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns, and the other lines with their numbers; empty ones are left out."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"there is no table {file}{did_you_mean(str(file), beside(file))}") from None
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8; save it as CSV in UTF-8") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    if "\0" in text:
        raise InputError(f"{file} holds bytes that no text has; save it as CSV in UTF-8")
    text = re.sub(r"\Asep=[,;\t]\n", "\n", text)  # a hint to Excel, no row
    first = text.lstrip("\n").partition("\n")[0]
    delimiter = max(",;\t", key=first.count)  # spreadsheets write semicolons in half of Europe
    ended = io.StringIO(f"{text}\n{_END}", newline="")
    reader = csv.reader(ended, delimiter=delimiter, skipinitialspace=True)
    try:
        *lines, (_, last) = [(reader.line_num, line) for line in reader if any(map(str.strip, line))]
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num}: {error}") from None
    if last != [_END]:
        raise InputError(f"{file}: after line {lines[-1][0] if lines else 0} a quotation mark is not closed")
    if not lines:
        raise InputError(f"{file} is empty")
    header = [cell.strip() for cell in lines[0][1]]
    if Path(header[0]).suffix.lower() in EXTENSIONS:  # it is a photo already
        return ["file", "class"], lines
    return header, lines[1:]


def _columns(header: Sequence[str], source: str | Path) -> dict[str, int]:
    """Where what a row says is to be found. Raises InputError where a photo or its class is not."""
    plain = [re.sub(r"[\W_]", "", name).casefold() for name in header]
    columns = {}
    for what, known in _COLUMNS.items():
        if name := next((name for name in known if name in plain), None):
            columns[what] = plain.index(name)
        elif what != "split":
            has = f"{source} has the columns {', '.join(map(printable, header))}"
            raise InputError(f"{has}, and none is called {known[0]}; call that one so which names each row's {what}")
    return columns


def _part_of(said: str, column: str, where: str) -> str:
    """What a row's split is called here."""
    said = said.casefold()
    if re.sub(r"[\W_]", "", column).casefold() == "isvalid":
        said = _SAID_OF.get(said, said)
    if said in TRAIN:
        return "train"
    if said in HELD_OUT:  # one part, even where rows from several hands spell it otherwise
        return "test" if said.startswith("test") else "val"
    raise InputError(
        f"{where}: {column} is {said!r}, but must be {', '.join((TRAIN[0], *HELD_OUT[:3]))} or {HELD_OUT[3]}"
    )


class _Places:
    """Where the photos of a table lie: beside it, or in a folder beside it; their names may lack the ending."""

    def __init__(self, home: Path):
        others = sorted(entry.name for entry in _within(home) if entry.is_dir() and not is_hidden(entry.name))
        self.home, self.known = home, {}
        self.tried = [home], [home / name for name in others[:_MANY_FOLDERS]]

    def of(self, name: str, where: str) -> Path:
        """The file that is meant; where there is none, the one beside the table. Raises InputError where it may be one
        of several, such as a photo and its mask.
        """
        inside, name = os.path.split(name.replace("\\", "/"))  # as Windows writes them
        for folders in self.tried:
            places = dict.fromkeys(os.path.normpath(folder / inside) for folder in folders)
            meant = [os.path.join(place, file) for place in places for file in self._called(name, place)]
            if len(meant) > 1:
                raise InputError(f"{where}: {name} may be {meant[0]} or {meant[1]}; write which, folder and ending")
            if meant:
                return Path(meant[0])
        return Path(os.path.normpath(self.home / inside / name))

    def _called(self, name: str, folder: str) -> list[str]:
        """The files in a folder that a name may stand for: the one that is called so, else those but for an ending."""
        if folder not in self.known:
            files = sorted(entry.name for entry in _within(folder) if entry.is_file())
            self.known[folder] = called = defaultdict(list)
            for file in files:
                stem, ending = os.path.splitext(file)
                if ending.lower() in EXTENSIONS:
                    called[composed(stem)].append(file)
            called |= {composed(file): [file] for file in files}
        return self.known[folder].get(composed(name), [])


def _within(folder: str | Path) -> list[os.DirEntry]:
    """What is in a folder; nothing where there is none, or it may not be looked into."""
    try:
        return [*os.scandir(folder)]
    except OSError:
        return []
