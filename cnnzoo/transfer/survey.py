"""What lies in a folder of photos, or is listed by a table, before a file is opened: what the data doctor looks at."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnzoo import atomic, bars
from cnnzoo.config import DataConfig
from cnnzoo.data import folders, groups, listed
from cnnzoo.data.decoding import EXTENSIONS
from cnnzoo.data.pictures import is_hidden
from cnnzoo.errors import InputError, expect
from cnnzoo.paths import expanded
from cnnzoo.transfer.findings import Finding, Photo

MANIFEST = "left_out.csv"  # of a copy that `copies.fix` has made

Tally = dict[tuple[str, str], int]  # photos of each class of each part, in order


@dataclass(frozen=True)
class Survey:
    """The photos that will be learnt from, and what lies beside them."""

    source: Path  # the folder, or the table
    home: Path  # the folder that all lies in
    photos: tuple[Photo, ...]  # training photos first
    classes: Tally  # all there are, with 0 each
    groups: np.ndarray | None  # (N,) int64: which photos belong together, see `groups.numbered`; None: nobody has asked
    by_column: bool  # a table's column tells that
    passed_over: Iterator[Finding]  # everything else, which is looked for when it is gone through, once

    @classmethod
    def of(cls, source: str | Path, pattern: str | None = None) -> "Survey":
        """The photos of a folder or a table, and with a `pattern`, as data.groups has it, which of them belong
        together. Raises InputError if there is neither, and for groups that find nothing.
        """
        expect(source, (str, os.PathLike), "a folder of class folders is wanted, or a table that lists photos")
        DataConfig(source=source, groups=pattern)  # complains of what is no regular expression
        place = expanded(source)
        if listed.is_source(str(place)):
            return _of_table(place, pattern)
        if not os.path.isdir(place):
            raise InputError(folders.no_folder(place))
        return _of_folder(place, pattern)


def tally(photos: Sequence[Photo]) -> Tally:
    """How many photos there are of each class in each part."""
    return dict(Counter((photo.part, photo.label) for photo in photos))


def _numbered(photos: Sequence[Photo], pattern: str | None, source: Path) -> np.ndarray | None:
    """Which photos belong together by their paths from the class folder on."""
    paths = [photo.name.removeprefix(f"{photo.part}/") for photo in photos]
    return None if pattern is None else groups.numbered(paths, pattern, str(source))


# ---- a folder


def _of_folder(folder: Path, pattern: str | None) -> Survey:
    photos, classes = [], {}
    for part, home in folders.parts(folder).items():
        for class_folder in bars.show(folders.class_folders(home), desc="listing photos", unit="class", delay=1):
            label = folders.class_name(class_folder)
            classes[part, label] = 0
            images, _ = folders.class_files(class_folder)
            photos += [Photo(file, _name(file, folder), part, label) for file in images]
    numbers, others = _numbered(photos, pattern, folder), _passed_over(folder, photos)
    return Survey(folder, folder, tuple(photos), classes, numbers, False, others)


def _passed_over(folder: Path, photos: Sequence[Photo]) -> Iterator[Finding]:
    """Everything else in the folder, and folders that may not be looked into."""
    known, locked = {photo.name for photo in photos}, []
    parts = set(folders.parts(folder)) - {""}  # the folders' own names
    for home, inside, files in os.walk(folder, onerror=locked.append):
        here = Path(home)
        passed = [name for name in inside if is_hidden(name) or (parts and here == folder and name not in parts)]
        inside[:] = sorted(set(inside) - set(passed))
        for name in sorted([*passed, *files]):
            entry = here / name
            if (told := _name(entry, folder)) in known or told in (".cnnzoo", MANIFEST):
                continue
            yield Finding("hidden" if is_hidden(name) else "stray", told, _why_passed_over(entry))
    yield from (Finding("no permission", _name(Path(error.filename), folder), "a folder") for error in locked)


def _why_passed_over(entry: Path) -> str:
    if entry.is_dir():
        return "a folder"
    if not entry.exists():
        return "a link that leads nowhere"
    if not entry.is_file():
        return "no file"
    if is_hidden(entry.name):
        return ""
    return "outside the class folders" if entry.suffix.lower() in EXTENSIONS else "no image by its ending"


def _name(file: Path, folder: Path) -> str:
    return file.as_posix().removeprefix(f"{folder.as_posix().rstrip('/')}/")  # relative_to takes ten times as long


# ---- a table


def _of_table(table: Path, pattern: str | None) -> Survey:
    """The photos are named as they would lie in class folders."""
    rows, notes = listed.read(table, pattern)
    labels = listed.ordered([row.label for row in rows])
    places = {label: place for place, label in enumerate(labels)}
    rows.sort(key=lambda row: (listed.PARTS.index(row.part), places[row.label]))
    called, photos = Counter(row.file.name for row in rows), []
    folders_taken, files_taken = Counter(), Counter()
    homes = {label: atomic.free_name(_as_folder(label), "", folders_taken) for label in labels}
    for row in rows:
        inside = row.file.name if called[row.file.name] == 1 else os.path.relpath(row.file, table.parent)
        path = (row.part, homes[row.label], *Path(inside).parts)
        name = "/".join(part for part in path if part not in ("", os.pardir))
        photos.append(Photo(row.file, atomic.free_name(*os.path.splitext(name), files_taken), row.part, row.label))
    by_column = rows[0].group is not None
    numbers = np.array([row.number for row in rows]) if by_column else _numbered(photos, pattern, table)
    others = (Finding("stray", table.name, note) for note in notes)
    return Survey(table, table.parent, tuple(photos), dict.fromkeys(tally(photos), 0), numbers, by_column, others)


def _as_folder(label: str) -> str:
    """What the folder of a class may be called."""
    name = label.replace("/", "_")
    return f"_{name}" if is_hidden(name) else name
