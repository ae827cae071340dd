"""The data doctor: is this folder of photos, or what a table lists, fit to learn from?

Threads look at every file, and keep no more than 10 KB of it. No file of the folder is ever changed: the good ones can
be copied, see copies.py. (A net's features are cached where all of cnnzoo caches, perhaps in the folder's .cnnzoo.)
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from itertools import count as counting
from numbers import Real
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from cnnzoo import bars, errors, zoo
from cnnzoo.checkpoint import Run
from cnnzoo.config import DataConfig
from cnnzoo.data import folders, listed
from cnnzoo.data import groups as groups_
from cnnzoo.data.arrays import FileImages
from cnnzoo.data.decoded import cache_folder
from cnnzoo.data.decoding import (
    ENDINGS,
    EXTENSIONS,
    BadImage,
    as_image,
    exif_orientation,
    has_alpha,
    opened,
    upright,
)
from cnnzoo.data.found import HELD_OUT
from cnnzoo.data.pictures import AT_ONCE, THREADS, Room, is_hidden
from cnnzoo.device import pick_device
from cnnzoo.errors import InputError, counted
from cnnzoo.telling import Tell
from cnnzoo.transfer import duplicates
from cnnzoo.transfer.confident_learning import doubts
from cnnzoo.transfer.features import Backbone
from cnnzoo.transfer.findings import FEW, KINDS, LOPSIDED, Checkup, Finding, Photo

NEAR = 0.95  # correlation from which on two photos are one
LEAST = 32  # pixels of a shorter side below which a photo shows little, where no net says what it takes
HUGE = 50_000_000  # pixels that are slow to decode
SURE = 0.7  # probability by which another class must lead

BLOCK = 256  # photos that wait in memory
MANIFEST = "left_out.csv"  # of a copy that `copies.fix` has made


def check(
    folder: str | Path,
    *,
    model: nn.Module | Run | str | Path | None = None,
    pretrained: bool | str | Path | Run = True,
    groups: str | None = None,
    near: float = NEAR,
    workers: int = 0,
    device: str = "auto",
    tell: Tell = print,
) -> Checkup:
    """Look at every file of a folder of class folders, perhaps in train/ and val/ (valid, validation, test), or of a
    table that lists photos.

    Args:
        folder: as data.source takes it. A table's photos are named as they would lie in such a folder.
        model: a net, its name, or a run folder: photos smaller than its input are tiny then, and labels that its
            features contradict are doubtful.
        pretrained: weights for a net's name: True (the best known), a tag, a file or a run folder.
        groups: a regular expression for what a photo belongs to, such as patient(\\d+), see data.groups: it is an error
            where photos to judge on belong to others that are trained on.
        near: the correlation of thumbnails from which on two photos are one, up to 1.
        workers: threads that open files; 0 is one for each core.
        device: of the net: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
        tell: is given a line where features cannot be cached.

    Raises:
        InputError: if there is no folder of class folders, or no such net, and for groups that find nothing.
    """
    folder = _existing(folder)
    errors.at_least("workers", workers, 0)
    if not (isinstance(near, Real) and 0 < near <= 1):
        raise InputError(f"near is {near}, but must be above 0 and at most 1")
    DataConfig(source=folder, groups=groups)  # complains of what is no regular expression
    takes, backbone = (LEAST, ""), None
    if model:
        net = zoo.open_net(model, pretrained)[0].to(pick_device(device))
        home = folder if folder.is_dir() else folder.parent
        backbone = Backbone(net, zoo.preprocessing(net), cache_folder(home), tell)
        takes = (backbone.preprocess.size, f"{zoo.called(model)} takes")
    photos, classes = _photos(folder)
    numbers, by_column = (None, False) if groups is None else _groups(folder, photos, groups)
    looks = _look_at(photos, takes, workers)
    good = [place for place, look in enumerate(looks) if look.thumbnail is not None]
    readable = [photos[place] for place in good]
    repeated = duplicates.alike(np.array([looks[place].thumbnail for place in good]), _same_files(readable), near)
    found = [finding for look in looks for finding in look.findings]
    found += _repeats(readable, repeated)
    found += () if numbers is None else _divided(readable, numbers[good])
    found += of_classes(classes | tally(readable))
    found += _doubts(readable, None if numbers is None else numbers[good], backbone, workers) if backbone else ()
    found += _passed_over(folder, photos)
    grouped = "" if numbers is None else groups_.describe(numbers, "photo")
    return Checkup(folder, tuple(photos), _sorted(found), grouped, by_column)


def quick(folder: str | Path) -> tuple[Finding, ...]:
    """What can be found without decoding a photo: files that are there twice, and what is wrong with the classes.

    Only files of the same size are read, to the last 4 KB unless these agree too. Raises InputError as `check` does.
    """
    photos, classes = _photos(_existing(folder))
    return _sorted([*_repeats(photos, _same_files(photos)), *of_classes(classes | tally(photos))])


def _existing(folder: str | Path) -> Path:
    errors.expect(folder, (str, os.PathLike), "a folder of class folders is wanted, or a table that lists photos")
    folder = Path(os.path.expanduser(folder))
    if not (folder.is_dir() or listed.is_source(str(folder))):
        raise InputError(folders.no_folder(folder))
    return folder


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    order = {kind: place for place, kind in enumerate(KINDS)}
    return tuple(sorted(findings, key=lambda finding: order[finding.kind]))


# ---- what lies in the folder

Tally = dict[tuple[str, str], int]  # photos of each class of each part, in order


def _photos(folder: Path) -> tuple[list[Photo], Tally]:
    """What will be learnt from, training photos first; and all classes, with 0 each."""
    if not folder.is_dir():
        photos = [photo for photo, _ in _listed(folder)]
        return photos, dict.fromkeys(tally(photos), 0)
    photos, classes = [], {}
    for part, home in folders.parts(folder).items():
        for class_folder in folders.class_folders(home):
            label = folders.class_name(class_folder)
            classes[part, label] = 0
            images, _ = folders.class_files(class_folder)
            photos += [Photo(file, _name(file, folder), part, label) for file in images]
    return photos, classes


def _listed(table: Path, groups: str | None = None) -> list[tuple[Photo, int]]:
    """The photos of a table, training photos first, class by class, and the number of each one's group if `groups` is a
    column.
    """
    rows, _ = listed.read(table, groups)
    parts, classes = ("", "train", *HELD_OUT), listed.ordered([row.label for row in rows])
    names, found = Counter(row.file.name for row in rows), []
    folders_taken, files_taken = set(), set()
    homes = {label: _unlike(_as_folder(label), folders_taken) for label in classes}
    for row in sorted(rows, key=lambda row: (parts.index(row.part), classes.index(row.label))):
        inside = row.file.name if names[row.file.name] == 1 else os.path.relpath(row.file, table.parent)
        path = (row.part, homes[row.label], *Path(inside).parts)
        name = "/".join(part for part in path if part not in ("", os.pardir))
        found.append((Photo(row.file, _unlike(name, files_taken), row.part, row.label), row.number))
    return found


def _as_folder(label: str) -> str:
    """What the folder of a class may be called."""
    name = label.replace("/", "_")
    return f"_{name}" if is_hidden(name) else name


def _unlike(name: str, taken: set[str]) -> str:
    """A name that is not taken, by a number if need be; from now on it is."""
    stem, ending = os.path.splitext(name)
    names = chain([name], (f"{stem}_{number}{ending}" for number in counting(2)))
    free = next(each for each in names if each.casefold() not in taken)  # on macOS X.JPG and x.jpg are one file
    taken.add(free.casefold())
    return free


def _groups(folder: Path, photos: Sequence[Photo], groups: str) -> tuple[np.ndarray, bool]:
    """`(N,)` int64: which photos belong together, see `groups.numbered`; and whether a table's column tells that."""
    if not folder.is_dir() and listed.has_column(folder, groups):
        return np.array([number for _, number in _listed(folder, groups)]), True
    return groups_.numbered(list(map(_within_part, photos)), groups, str(folder)), False


def tally(photos: Sequence[Photo]) -> Tally:
    """How many photos there are of each class in each part."""
    return dict(Counter((photo.part, photo.label) for photo in photos))


def _passed_over(folder: Path, photos: Sequence[Photo]) -> Iterator[Finding]:
    """Everything else in the folder, and folders that may not be looked into; of a table, rows."""
    if not folder.is_dir():
        yield from (Finding("stray", folder.name, note) for note in listed.read(folder)[1])
        return
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
    """What is odd about a photo, as its header tells."""
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


def _within_part(photo: Photo) -> str:
    """A photo's path from its class folder on."""
    return photo.name.removeprefix(f"{photo.part}/")


def _divided(photos: Sequence[Photo], groups: np.ndarray) -> Iterator[Finding]:
    """Photos in another part than the first of their group, training photos coming first."""
    firsts: dict[int, Photo] = {}
    for photo, group in zip(photos, groups.tolist(), strict=True):
        first = firsts.setdefault(group, photo)
        if first.part != photo.part:
            yield Finding("divided group", photo.name, f"in one group with {first.name}")


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


def _doubts(photos: Sequence[Photo], groups: np.ndarray | None, backbone: Backbone, workers: int) -> list[Finding]:
    """Labels that a net's features contradict, the most doubtful first; of classes in one group alone, none."""
    counts = Counter(photo.label for photo in photos)
    alone = range(len(photos)) if groups is None else groups.tolist()
    units = Counter(label for label, _ in {(photo.label, group) for photo, group in zip(photos, alone, strict=True)})
    places = [place for place, p in enumerate(photos) if counts[p.label] >= FEW and units[p.label] > 1]
    judged = [photos[place] for place in places]
    classes, labels = np.unique([photo.label for photo in judged], return_inverse=True)
    if len(classes) < 2:
        return []
    images = FileImages([photo.file for photo in judged], backbone.preprocess.geometry, workers)
    vectors = backbone.extract(images).plain
    meant, lead = doubts(vectors, labels, None if groups is None else groups[places])
    order = [place for place in np.argsort(-lead, kind="stable") if lead[place] >= SURE]
    return [
        Finding("doubtful label", judged[place].name, f"rather {classes[meant[place]]}, by {lead[place]:.2f}")
        for place in order
    ]
