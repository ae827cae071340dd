"""Photos sorted into a folder for each class that a net names: to look through, to correct, and to train on. A leaf."""

import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnzoo import atomic, bars
from cnnzoo.errors import InputError, counted, one_line
from cnnzoo.shown import Shown

MANY = 12  # classes that a line can name
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that are none for Windows


@dataclass(frozen=True)
class Sorted(Shown):
    """Which photos were copied where."""

    folder: Path
    copied: dict[str, int]  # how many, by class
    left_out: int  # for want of an answer to rely on

    def __str__(self) -> str:
        each = ", ".join(f"{one_line(name)} {many:,}" for name, many in self.copied.items())
        which = each if len(self.copied) <= MANY else counted(len(self.copied), "class", "classes")
        left = f"; {self.left_out:,} left out: unsure, or not to be read" if self.left_out else ""
        return f"{counted(sum(self.copied.values()), 'photo')} copied to {self.folder} ({which}){left}"


def sort(answers: Sequence[tuple[str, str | None]], dest: str | Path) -> Sorted:
    """Copy photos into a new folder, each into the folder of its class; the photos themselves stay where they are.

    The new folder appears when it is complete: where the disk is full, say, there is none. Of photos of one name and
    class the further ones get a number: x.jpg, x_2.jpg.

    Args:
        answers: for each photo its file and its class; None leaves it out.
        dest: the folder, which is not there yet, or is empty.

    Raises:
        InputError: if `dest` holds something, if no photo has a class, or one is no file, and where copying fails.
    """
    dest, sure = atomic.room(dest), [(file, name) for file, name in answers if name is not None]
    if not sure:
        raise InputError(f"no photo has an answer to rely on, so there is nothing to copy to {dest}")
    if stranger := next((file for file, _ in sure if not os.path.isfile(file)), None):
        raise InputError(f"{one_line(stranger)} is no file, so it cannot be copied to {dest}")
    copied = Counter(name for _, name in sure)
    folders, taken = _folders(copied), defaultdict(Counter)
    with atomic.appearing(dest) as part:
        for file, name in bars.show(sure, desc="copying", unit="image"):
            folder = part / folders[name]
            folder.mkdir(exist_ok=True)
            stem, ending = os.path.splitext(os.path.basename(file))
            shutil.copy2(file, folder / atomic.free_name(stem, ending, taken[name]))
    return Sorted(dest, dict(copied.most_common()), len(answers) - len(sure))


def _folders(classes: Iterable[str]) -> dict[str, str]:
    """What the folder of each class is called: as the class, but for what no folder may be, or is hidden by."""
    taken = Counter()
    plain = {name: re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name).strip(". ") or "_" for name in sorted(classes)}
    apart = {name: f"{folder}_" if _DEVICE.fullmatch(folder) else folder for name, folder in plain.items()}
    return {name: atomic.free_name(folder, "", taken) for name, folder in apart.items()}
