"""The good photos of a folder that was checked, copied into a new one; the folder itself stays as it is."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cnnzoo import atomic, bars, tables
from cnnzoo.data.decoding import ENDINGS, opened
from cnnzoo.errors import InputError, counted, printable
from cnnzoo.shown import Shown
from cnnzoo.transfer.doctor import of_classes
from cnnzoo.transfer.findings import KINDS, Checkup, Finding, Photo
from cnnzoo.transfer.survey import MANIFEST, tally


@dataclass(frozen=True)
class Fixed(Shown):
    """What became of a folder's copy."""

    folder: Path
    copied: int
    renamed: int  # of these, to the right ending
    left_out: int  # as the manifest in the folder names them
    remaining: tuple[Finding, ...]  # errors that no leaving out mends

    def __str__(self) -> str:
        renamed = f", {self.renamed:,} with the right ending now" if self.renamed else ""
        lines = [f"{counted(self.copied, 'photo')} copied to {self.folder}{renamed}"]
        lines += [f"{self.left_out:,} left out, see {self.folder / MANIFEST}"] if self.left_out else []
        lines += [f"to be mended by hand: {finding.kind}: {finding}" for finding in self.remaining]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        remaining = [finding.to_dict() for finding in self.remaining]
        return {**vars(self), "folder": str(self.folder), "remaining": remaining}


def fix(checkup: Checkup, dest: str | Path) -> Fixed:
    """Copy what is good into a new folder of the same structure; the folder that was checked stays as it is.

    Left out are files with errors, of a file that is there twice the second, of a leak and of a divided group what is
    not in train/, of a contradiction both; a wrong ending becomes the right one. `left_out.csv` tells of each. The new
    folder appears when it is complete: where the disk is full, say, there is none.

    Raises:
        InputError: if `dest` holds something, or lies in the folder, or nothing would be left, or copying fails.
    """
    dest = atomic.room(dest, checkup.folder)
    if checkup.by_column:
        table = f"copies would lack the column of {checkup.folder} that tells which photos belong together"
        raise InputError(f"{table}; leave groups=… out, or mend the table itself")
    out = _left_out(checkup)
    kept = [photo for photo in checkup.photos if photo.name not in out]
    if not kept:
        raise InputError(f"no photo of {checkup.folder} is good, so there is nothing to copy")
    names = _right_names(kept, {finding.file for finding in checkup.findings if finding.kind == "wrong ending"})
    rows = [_manifest_row(finding) for finding in out.values()]
    rows += [_manifest_row(Finding("wrong ending", old), new) for old, new in names.items() if old != new]
    with atomic.appearing(dest) as part:
        for photo in bars.show(kept, desc="copying", unit="image"):
            copy = part / names[photo.name]
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(photo.file, copy)
        if rows:
            tables.write(part / MANIFEST, rows, dict.fromkeys(rows[0], str))
    remaining = [finding for finding in checkup.findings if finding.kind == "not read here"]
    remaining += [finding for finding in of_classes(tally(kept)) if finding.severity == "error"]
    renamed = sum(old != new for old, new in names.items())
    return Fixed(dest, len(kept), renamed, len(checkup.photos) - len(kept), tuple(remaining))


def _left_out(checkup: Checkup) -> dict[str, Finding]:
    """What is not copied, and why."""
    out = {}
    for finding in checkup.findings:
        if KINDS[finding.kind].left_out:
            out.setdefault(finding.file, finding)
        if finding.kind == "contradiction":
            out.setdefault(finding.other, replace(finding, file=finding.other, other=finding.file))
    spoilt = {name for name, finding in out.items() if finding.kind in ("contradiction", "leak")}
    for finding in checkup.findings:  # a third one that is nearly the same would lead to the same error again
        if finding.kind == "near duplicate" and finding.other in spoilt:
            out.setdefault(finding.file, finding)
            spoilt.add(finding.file)
    first = checkup.photos[0].part if checkup.photos else ""  # what is trained on comes first
    trained = {photo.label for photo in checkup.photos if photo.part == first and photo.name not in out}
    for photo in checkup.photos:
        if photo.label not in trained:
            out.setdefault(photo.name, Finding("unknown class", photo.name))
    return out


def _right_names(photos: Sequence[Photo], wrong: set[str]) -> dict[str, str]:
    """What each photo will be called: as before, but for endings that are wrong."""
    names = {photo.name: photo.name for photo in photos}
    taken = Counter({name.casefold() for name in names})
    for photo in photos:
        if photo.name not in wrong:
            continue
        with opened(photo.file) as image:
            format = image.format
        if format in ENDINGS:  # else any right ending would be passed over in a folder of photos
            stem = photo.name.removesuffix(photo.file.suffix)
            names[photo.name] = atomic.free_name(stem, ENDINGS[format][0], taken)
    return names


def _manifest_row(finding: Finding, copied_as: str = "") -> dict[str, str]:
    about = finding.to_dict()
    return {"file": about.pop("file"), "copied_as": printable(copied_as), **about}
