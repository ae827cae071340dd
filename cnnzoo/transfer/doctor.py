"""The data doctor: is this folder of photos fit to learn from?

Threads look at every file, and keep no more than 10 KB of it. No file of the folder is ever changed: the good ones can
be copied, see copies.py. (A net's features are cached where all of cnnzoo caches, perhaps in the folder's .cnnzoo.)

Doubtful labels are found by confident learning (Northcutt, Jiang, Chuang: Confident Learning: Estimating Uncertainty in
Dataset Labels, 2021, arXiv 1911.00068, section 3.1): classifiers that have not seen a photo give another class at least
the probability that photos of that class usually get. To be told, a doubt needs two of them that agree. With 3 % of the
labels of ants, bees and flowers swapped, features of SqueezeNet and GoogLeNet told of 71 photos, 42 of the swapped ones
among them; of the labels as they are, 0.6 %.
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from cnnzoo import bars, errors, machine, tables, zoo
from cnnzoo.checkpoint import Run
from cnnzoo.data import folders
from cnnzoo.data.arrays import FileImages
from cnnzoo.data.decoded import cache_folder
from cnnzoo.data.decoding import (
    ENDINGS,
    EXTENSIONS,
    LARGEST,
    BadImage,
    as_image,
    exif_orientation,
    has_alpha,
    opened,
    upright,
)
from cnnzoo.data.pictures import AT_ONCE, THREADS, Room, is_hidden
from cnnzoo.device import pick_device
from cnnzoo.errors import InputError, counted, printable
from cnnzoo.shown import Shown
from cnnzoo.telling import Tell
from cnnzoo.transfer import duplicates
from cnnzoo.transfer.features import Backbone

NEAR = 0.95  # correlation from which on two photos are one
LEAST = 32  # pixels of a shorter side below which a photo shows little, where no net says what it takes
HUGE = 50_000_000  # pixels that are slow to decode
FEW = 10  # photos of a class from which on its figures mean something
LOPSIDED = 10  # times the photos of the smallest class in the largest
SURE = 0.7  # probability by which another class must lead

BLOCK = 256  # photos that wait in memory
MANIFEST = "left_out.csv"  # of a copy that `copies.fix` has made


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
    "leak": Kind("error", "one photo to train and to judge on, so accuracy is overstated", True),
    "empty class": Kind("error", "no photo that can be read", True),
    "one class": Kind("error", "a classifier needs two or more"),
    "one photo": Kind("error", "a class needs two, one to train and one to judge on"),
    "unknown class": Kind("error", "a class to judge on that is not trained", True),
    "same name": Kind("error", "class names that differ by case only, so two folders of one class or a slip"),
    "doubtful label": Kind("warning", "photos like it have another label; the most doubtful first"),
    "duplicate": Kind("warning", "the same file twice in a class", True),
    "near duplicate": Kind("warning", "the same photo twice in a class, saved anew or a moment later"),
    "not judged": Kind("warning", "a class to train on of which there is no photo to judge by"),
    "few photos": Kind("warning", f"a class of fewer than {FEW}, whose figures mean little"),
    "imbalance": Kind("warning", f"one class over {LOPSIDED} times as large as another; see balance"),
    "wrong ending": Kind("warning", "read all the same here, but perhaps not by other programs"),
    "animated": Kind("warning", "only its first picture is used"),
    "tiny": Kind("warning", "enlarged to what a net takes, it shows little"),
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
        return printable(f"{self.file}{f' = {self.other}' if self.other else ''}{detail}")

    def to_dict(self) -> dict[str, str]:
        return {"severity": self.severity, **{key: printable(value) for key, value in vars(self).items()}}


@dataclass(frozen=True)
class Checkup(Shown):
    """What was found in a folder, the gravest first. `str()` is a summary with the first files of each kind."""

    folder: Path
    photos: tuple[Photo, ...]
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Nothing will stop or spoil training."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def mendable(self) -> bool:
        """`copies.fix` leaves errors out."""
        return any(finding.severity == "error" and KINDS[finding.kind].left_out for finding in self.findings)

    def __str__(self) -> str:
        counts = Counter((photo.part, photo.label) for photo in self.photos)
        lines = []
        for part in dict.fromkeys(part for part, _ in counts):
            own = {label: count for (where, label), count in counts.items() if where == part}
            shown = ", ".join(f"{label} {count:,}" for label, count in list(own.items())[:6])
            more = ", …" if len(own) > 6 else ""
            lines.append(f"{self.folder / part}: {counted(sum(own.values()), 'photo')} ({shown}{more})")
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
        return {"folder": str(self.folder), "photos": len(self.photos), "findings": list(self._rows())}

    def _rows(self) -> Iterator[dict[str, str]]:
        return (finding.to_dict() for finding in self.findings)


COLUMNS = dict.fromkeys(("severity", "kind", "file", "detail", "other"), str)


def check(
    folder: str | Path,
    *,
    model: nn.Module | Run | str | Path | None = None,
    pretrained: bool | str | Path | Run = True,
    near: float = NEAR,
    workers: int = 0,
    tell: Tell = print,
) -> Checkup:
    """Look at every file of a folder of class folders, perhaps in train/ and val/ (valid, validation, test).

    Args:
        folder: as data.source takes it.
        model: a net, its name, or a run folder: photos smaller than its input are tiny then, and labels that its
            features contradict are doubtful.
        pretrained: weights for a net's name: True (the best known), a tag, a file or a run folder.
        near: the correlation of thumbnails from which on two photos are one, up to 1.
        workers: threads that open files; 0 is one for each core.
        tell: is given a line where features cannot be cached.

    Raises:
        InputError: where there is no folder of class folders, or no such net.
    """
    folder = _existing(folder)
    if workers < 0:
        raise InputError(f"workers is {workers}, but must be at least 0")
    if not 0 < near <= 1:
        raise InputError(f"near is {near}, but must be above 0 and at most 1")
    takes, backbone = (LEAST, ""), None
    if model:
        net = zoo.open_net(model, pretrained)[0].to(pick_device("auto"))
        backbone = Backbone(net, zoo.preprocessing(net), cache_folder(folder), tell)
        takes = (backbone.preprocess.size, f"{zoo.called(model)} takes")
    photos, classes = _photos(folder)
    looks = _look_at(photos, takes, workers)
    good = [place for place, look in enumerate(looks) if look.thumbnail is not None]
    readable = [photos[place] for place in good]
    repeated = duplicates.alike(np.array([looks[place].thumbnail for place in good]), _same_files(readable), near)
    found = [finding for look in looks for finding in look.findings]
    found += _repeats(readable, repeated)
    found += of_classes(classes | tally(readable))
    found += _doubts(readable, backbone, workers) if backbone else ()
    found += _passed_over(folder, photos)
    return Checkup(folder, tuple(photos), _sorted(found))


def quick(folder: str | Path) -> tuple[Finding, ...]:
    """What can be found without decoding a photo: files that are there twice, and what is wrong with the classes.

    Only files of the same size are read, to the last 4 KB unless these agree too. Raises InputError as `check` does.
    """
    photos, classes = _photos(_existing(folder))
    return _sorted([*_repeats(photos, _same_files(photos)), *of_classes(classes | tally(photos))])


def _existing(folder: str | Path) -> Path:
    errors.expect(folder, (str, os.PathLike), "a folder of class folders is wanted")
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(folders.no_folder(folder))
    return folder


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    order = {kind: place for place, kind in enumerate(KINDS)}
    return tuple(sorted(findings, key=lambda finding: order[finding.kind]))


# ---- what lies in the folder

Tally = dict[tuple[str, str], int]  # photos of each class of each part, in order


def _photos(folder: Path) -> tuple[list[Photo], Tally]:
    """What will be learnt from, training photos first; and all classes, with 0 each."""
    photos, classes = [], {}
    for part, home in folders.parts(folder).items():
        for class_folder in folders.class_folders(home):
            label = folders.class_name(class_folder)
            classes[part, label] = 0
            images, _ = folders.class_files(class_folder)
            photos += [Photo(file, _name(file, folder), part, label) for file in images]
    return photos, classes


def tally(photos: Sequence[Photo]) -> Tally:
    return dict(Counter((photo.part, photo.label) for photo in photos))


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
    return file.relative_to(folder).as_posix()


# ---- each photo by itself


@dataclass(frozen=True)
class _Look:
    findings: tuple[Finding, ...]
    thumbnail: np.ndarray | None  # (duplicates.SIDE, duplicates.SIDE, 3) uint8; None of a file that cannot be read


def _look_at(photos: Sequence[Photo], takes: tuple[int, str], workers: int) -> list[_Look]:
    """Open every file. Large ones wait for each other, so that memory does not depend on their size."""
    room, looks = Room(AT_ONCE), []

    def look(photo: Photo) -> _Look:
        try:
            with opened(photo.file) as image:
                findings = list(_oddities(photo, image, takes))
            with opened(photo.file, 2 * duplicates.SIDE) as image, room.taken(image.width * image.height):
                small = as_image(upright(image), 3).resize((duplicates.SIDE, duplicates.SIDE), Image.Resampling.BOX)
                if exif_orientation(image) in range(2, 9):  # which may lie behind a PNG's pixels
                    findings.append(Finding("EXIF-rotated", photo.name))
        except BadImage as error:
            return _Look((Finding(error.fault, photo.name, str(error)),), None)
        return _Look(tuple(findings), np.asarray(small))

    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(workers or min(os.cpu_count() or 1, THREADS)) as pool,
        bars.show(total=len(photos), desc="looking at photos", unit="image") as bar,
    ):
        warnings.simplefilter("ignore")  # PIL's, of odd metadata
        for start in range(0, len(photos), BLOCK):
            for seen in pool.map(look, photos[start : start + BLOCK]):
                looks.append(seen)
                bar.update()
    return looks


def _oddities(photo: Photo, image: Image.Image, takes: tuple[int, str]) -> Iterator[Finding]:
    """Of a photo whose header has been read."""
    (width, height), (least, who) = image.size, takes
    size, ending = f"{width}x{height}", photo.file.suffix.lower()
    if ending not in ENDINGS.get(image.format, ()):
        yield Finding("wrong ending", photo.name, f"it is {image.format}")
    if min(width, height) < least:
        yield Finding("tiny", photo.name, f"{size}, while {who} {least}x{least}" if who else size)
    if width * height > HUGE:
        yield Finding("huge", photo.name, size)
    if image.mode == "CMYK":
        yield Finding("CMYK", photo.name)
    if image.mode.startswith(("I", "F")) or any(";16" in str(tile[3]) for tile in image.tile):
        yield Finding("16 bit", photo.name)
    if has_alpha(image):
        yield Finding("alpha", photo.name)
    if image.mode in ("P", "PA"):
        yield Finding("palette", photo.name)
    if _is_animated(image):
        yield Finding("animated", photo.name)


def _is_animated(image: Image.Image) -> bool:
    try:
        return image.format != "MPO" and getattr(image, "is_animated", False)
    except (OSError, SyntaxError, ValueError, EOFError):
        return False  # what follows the first picture is damaged, but not used either


# ---- photos that are there twice, and classes


def _same_files(photos: Sequence[Photo]) -> duplicates.Repeated:
    return duplicates.identical([photo.file for photo in photos])


def _repeats(photos: Sequence[Photo], repeated: duplicates.Repeated) -> Iterator[Finding]:
    for place, (first, likeness) in sorted(repeated.items()):
        one, again = photos[first], photos[place]
        if one.label != again.label:
            kind = "contradiction"
        elif one.part != again.part:
            kind = "leak"
        else:
            kind = "duplicate" if likeness == 1 else "near duplicate"
        yield Finding(kind, again.name, "" if likeness == 1 else f"likeness {likeness:.3f}", one.name)


def of_classes(counts: Tally) -> Iterator[Finding]:
    """What is wrong with the classes, given how many photos of each can be read."""
    first = next(iter(counts))[0]  # what is trained on: train/, or everything
    trained = {label: count for (part, label), count in counts.items() if part == first}
    beside = dict.fromkeys(part for part, _ in counts if part != first)
    yield from (Finding("empty class", _home(*key)) for key, count in counts.items() if not count)
    if len(trained) < 2:
        yield Finding("one class", _home(first, *trained))
    known = set(counts)
    for part, label in counts:
        if label not in trained:
            meant = errors.near(label, trained, 1)
            known |= {(part, name) for name in meant}
            yield Finding("unknown class", _home(part, label), f"did you mean {meant[0]}?" if meant else "")
    for part in beside:
        missing = (label for label, count in trained.items() if count and (part, label) not in known)
        yield from (Finding("not judged", _home(part, label)) for label in missing)
    folded = {}
    for label in trained:
        if (twin := folded.setdefault(label.casefold(), label)) != label:
            yield Finding("same name", _home(first, label), "", _home(first, twin))
    for label, count in trained.items():
        if count == 1 and not beside:
            yield Finding("one photo", _home(first, label))
        elif 0 < count < FEW:
            yield Finding("few photos", _home(first, label), counted(count, "photo"))
    filled = {count: label for label, count in trained.items() if count}
    if filled and max(filled) > LOPSIDED * min(filled):
        small, large = min(filled), max(filled)
        detail = f"{counted(small, 'photo')}, while {filled[large]} has {large:,}"
        yield Finding("imbalance", _home(first, filled[small]), detail)


def _home(part: str, label: str) -> str:
    return f"{part}/{label}" if part else label


# ---- labels


def _doubts(photos: Sequence[Photo], backbone: Backbone, workers: int) -> list[Finding]:
    """Labels that a net's features contradict, the most doubtful first."""
    counts = Counter(photo.label for photo in photos)
    judged = [photo for photo in photos if counts[photo.label] >= FEW]
    classes, labels = np.unique([photo.label for photo in judged], return_inverse=True)
    if len(classes) < 2:
        return []
    images = FileImages([photo.file for photo in judged], backbone.preprocess.geometry, workers)
    vectors = backbone.extract(images).plain
    meant, lead = _votes(vectors, labels)
    order = [place for place in np.argsort(-lead, kind="stable") if lead[place] >= SURE]
    return [
        Finding("doubtful label", judged[place].name, f"rather {classes[meant[place]]}, by {lead[place]:.2f}")
        for place in order
    ]


@machine.one_blas_thread()
def _votes(vectors: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From features `(N, D)` and labels `(N,)`, for each photo another class and by how much probability it leads; 0
    where two kinds of classifiers, fitted to other photos, are not confident of the same one.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer, StandardScaler

    folds, everyone = StratifiedKFold(5, shuffle=True, random_state=0), np.arange(len(labels))
    named, leads = [], []
    for judge in ((LogisticRegression(C=10 / len(labels), max_iter=200),), (Normalizer(), KNeighborsClassifier(FEW))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # near enough, for a vote
            model = make_pipeline(StandardScaler(), *judge)
            chances = cross_val_predict(model, vectors, labels, cv=folds, method="predict_proba")
        usual = np.array([chances[labels == label, label].mean() for label in range(chances.shape[1])])
        confident = np.where(chances >= usual, chances, 0)
        named.append(confident.argmax(1))
        leads.append(confident.max(1) - chances[everyone, labels])
    agreed = (named[0] == named[1]) & (named[0] != labels)
    return named[0], np.where(agreed, np.minimum(*leads), 0)
