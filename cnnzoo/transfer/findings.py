"""What the data doctor can find in a folder of photos, and how it tells."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnzoo import tables
from cnnzoo.data.decoding import LARGEST
from cnnzoo.errors import counted, one_line, printable
from cnnzoo.shown import Shown

if TYPE_CHECKING:
    from cnnzoo.transfer.copies import Fixed

FEW = 10  # photos of a class from which on its figures mean something
LOPSIDED = 10  # times the photos of the smallest class in the largest


@dataclass(frozen=True)
class Kind:
    severity: str  # error: it stops or spoils training; warning: worth a look; note: handled
    meaning: str
    left_out: bool = False  # by `copies.fix`


KINDS = {
    "no permission": Kind("error", "cannot be read; change the permissions", True),
    "out of reach": Kind("error", "cannot be read now", True),
    "not read here": Kind("error", "a format for which something must be installed"),
    "empty file": Kind("error", "no bytes in it", True),
    "cut short": Kind("error", "the rest is missing", True),
    "damaged": Kind("error", "no image, or a damaged one", True),
    "too large": Kind("error", f"more than the {LARGEST:,} pixels that are decoded", True),
    "contradiction": Kind("error", "one photo in two classes", True),
    "leak": Kind("error", "one photo in two of train, val and test, so accuracy is overstated", True),
    "divided group": Kind(
        "error", "to judge on, while others of its group are trained on; accuracy is overstated", True
    ),
    "empty class": Kind("error", "no photo that can be read", True),
    "one class": Kind("error", "a classifier needs two or more"),
    "one photo": Kind("error", "a class needs two, one to train and one to judge on"),
    "unknown class": Kind("error", "a class to judge on that is not trained", True),
    "same name": Kind("error", "class names that differ by case or spaces only, so two folders of one class or a slip"),
    "doubtful label": Kind("warning", "photos like it have another label; the most doubtful first"),
    "duplicate": Kind("warning", "the same file twice in a class", True),
    "mirrored": Kind("warning", "one photo mirrored or turned in two classes, a slip unless these differ by that"),
    "near duplicate": Kind("warning", "the same photo twice in a class, saved anew, turned or a moment later"),
    "not judged": Kind("warning", "a class to train on of which there is no photo to judge by"),
    "few photos": Kind("warning", f"a class of fewer than {FEW}, whose figures mean little"),
    "imbalance": Kind("warning", f"one class over {LOPSIDED} times as large as another; balance evens that out"),
    "wrong ending": Kind("warning", "read all the same here, but perhaps not by other programs"),
    "animated": Kind("warning", "only its first picture is used"),
    "tiny": Kind("warning", "enlarged to what a net takes, it shows little"),
    "blank": Kind("warning", "one colour all over, as with the lens cap on"),
    "huge": Kind("warning", "slow to decode"),
    "EXIF-rotated": Kind("note", "turned upright here, but not by every program"),
    "CMYK": Kind("note", "read as RGB"),
    "16 bit": Kind("note", "read with 8 bits"),
    "alpha": Kind("note", "transparent pixels become white"),
    "palette": Kind("note", "read as RGB"),
    "hidden": Kind("note", "ignored", True),
    "stray": Kind("note", "ignored", True),
}


@dataclass(frozen=True)
class Photo:
    """A file with an image's ending in a class folder."""

    file: Path
    name: str  # its path within the folder
    part: str  # "train", "val" …; "" where the folder is not divided
    label: str  # its class


@dataclass(frozen=True)
class Finding(Shown):
    """Something that a person should know of a file or class."""

    kind: str  # a key of KINDS
    file: str  # path within the folder, of a class's folder where it is about a class
    detail: str = ""
    other: str = ""  # the file that this one repeats

    @property
    def severity(self) -> str:
        return KINDS[self.kind].severity

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return one_line(f"{self.file}{f' = {self.other}' if self.other else ''}{detail}")

    def to_dict(self) -> dict[str, str]:
        return {"severity": self.severity, **{key: printable(value) for key, value in vars(self).items()}}


@dataclass(frozen=True)
class Checkup(Shown):
    """What was found in a folder, the gravest first. `str()` is a summary with the first files of each kind."""

    folder: Path
    photos: tuple[Photo, ...]
    findings: tuple[Finding, ...]
    groups: str = ""  # how many photos are in how many groups, where it was asked which belong together
    by_column: bool = False  # a table's column tells that, which copies in class folders would lack

    def fix(self, dest: str | Path) -> "Fixed":
        """Copy the good photos into a new folder, and name there in left_out.csv what was left out; what can be put
        right, such as a wrong ending, is. Raises InputError if `dest` is not empty or lies within the folder, and where
        a table's column tells which photos belong together.
        """
        from cnnzoo.transfer import copies  # which are made of findings

        return copies.fix(self, dest)

    @property
    def sound(self) -> bool:
        """Nothing will stop or spoil training."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def mendable(self) -> bool:
        """`copies.fix` leaves errors out, and something stays."""
        if self.by_column:
            return False
        errors = [finding for finding in self.findings if finding.severity == "error"]
        stays = {photo.name for photo in self.photos} - {finding.file for finding in errors}
        return bool(stays) and any(KINDS[finding.kind].left_out for finding in errors)

    def __str__(self) -> str:
        counts = Counter((photo.part, photo.label) for photo in self.photos)
        lines = []
        for part in dict.fromkeys(part for part, _ in counts):
            own = {label: count for (where, label), count in counts.items() if where == part}
            shown = ", ".join(f"{one_line(label)} {count:,}" for label, count in list(own.items())[:6])
            more = ", …" if len(own) > 6 else ""
            lines.append(f"{self.folder / part}: {counted(sum(own.values()), 'photo')} ({shown}{more})")
        lines += [self.groups] if self.groups else []
        for kind, some in groupby(self.findings, key=lambda finding: finding.kind):
            found = list(some)
            lines += ["", f"{KINDS[kind].severity}: {kind}, {len(found):,} ({KINDS[kind].meaning})"]
            lines += [f"  {finding}" for finding in found[:3]]
            lines += [f"  … and {len(found) - 3:,} more; --out FILE lists them all"] if len(found) > 3 else []
        totals = Counter(finding.severity for finding in self.findings)
        told = ", ".join(counted(totals[severity], severity) for severity in ("error", "warning", "note"))
        return "\n".join([*lines, "", told])

    def to_csv(self) -> str:
        """A line for each finding: severity, kind, file, detail, other."""
        return tables.to_csv(self._rows(), COLUMNS)

    def write(self, path: str | Path) -> None:
        """The same as a file, .csv, .json or .parquet. Raises InputError for another ending."""
        tables.write(path, self._rows(), COLUMNS)

    def to_dict(self) -> dict[str, Any]:
        groups = {"groups": self.groups} if self.groups else {}
        return {"folder": str(self.folder), "photos": len(self.photos), **groups, "findings": list(self._rows())}

    def _rows(self) -> Iterator[dict[str, str]]:
        return (finding.to_dict() for finding in self.findings)


COLUMNS = dict.fromkeys(("severity", "kind", "file", "detail", "other"), str)
