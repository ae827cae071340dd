"""The data doctor: is this folder of photos, or what a table lists, fit to learn from?

Threads look at every file, and keep no more than 10 KB of it. No file of the folder is ever changed: the good ones can
be copied, see copies.py. (A net's features are cached where all of cnnzoo caches, perhaps in the folder's .cnnzoo.)
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from numbers import Real
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from cnnzoo import bars, errors, zoo
from cnnzoo.checkpoint import Run
from cnnzoo.data import groups as groups_
from cnnzoo.data.arrays import FileImages
from cnnzoo.data.decoded import cache_folder
from cnnzoo.data.decoding import (
    ENDINGS,
    BadImage,
    as_image,
    exif_orientation,
    has_alpha,
    opened,
    upright,
)
from cnnzoo.data.pictures import AT_ONCE, THREADS, Room
from cnnzoo.device import pick_device
from cnnzoo.errors import InputError, counted
from cnnzoo.telling import Tell
from cnnzoo.transfer import duplicates
from cnnzoo.transfer.confident_learning import doubts
from cnnzoo.transfer.features import Backbone
from cnnzoo.transfer.findings import FEW, KINDS, LOPSIDED, Checkup, Finding, Photo
from cnnzoo.transfer.survey import Survey, Tally, tally

NEAR = 0.95  # correlation from which on two photos are one
LEAST = 32  # pixels of a shorter side below which a photo shows little, where no net says what it takes
PLAIN = 2  # levels of 256, the deviation of a thumbnail's pixels below which a photo shows nothing
HUGE = 50_000_000  # pixels that are slow to decode
SURE = 0.7  # probability by which another class must lead

BLOCK = 256  # photos that wait in memory


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
        InputError: if there is no folder of class folders, or no such net, for weights or a device of none, and for
            groups that find nothing.
    """
    errors.at_least("workers", workers, 0)
    if not (isinstance(near, Real) and 0 < near <= 1):
        raise InputError(f"near is {near}, but must be above 0 and at most 1")
    for option, given, left_out in (("pretrained", pretrained, True), ("device", device, "auto")):
        if not model and given != left_out:
            raise InputError(f"{option} is {given}, but there is no net to look with; name one by model=…")
    survey = Survey.of(folder, groups)
    photos, numbers = survey.photos, survey.groups
    takes, backbone = (LEAST, ""), None
    if model:
        own = pretrained is True and zoo.has_weights(model)
        net = zoo.open_net(model, not own and pretrained)[0].to(pick_device(device))
        backbone = Backbone(net, zoo.preprocessing(net), cache_folder(survey.home), tell)
        takes = (backbone.preprocess.size, f"{zoo.called(model)} takes")
    found, good, thumbnails = _look_at(photos, takes, workers)
    readable = [photos[place] for place in good]
    repeated = duplicates.alike(thumbnails, _same_files(readable), near)
    found += _repeats(readable, repeated)
    turned = duplicates.alike(thumbnails, repeated, near, turned=True)
    found += _repeats(readable, {place: turned[place] for place in turned.keys() - repeated.keys()}, is_turned=True)
    found += () if numbers is None else _divided(readable, numbers[good])
    found += of_classes(survey.classes | tally(readable))
    found += _doubts(readable, None if numbers is None else numbers[good], backbone, workers) if backbone else ()
    found += survey.passed_over
    grouped = "" if numbers is None else groups_.describe(numbers, "photo")
    return Checkup(survey.source, photos, _sorted(found), grouped, survey.by_column)


def quick(folder: str | Path) -> tuple[Finding, ...]:
    """What can be found without decoding a photo: files that are there twice, and what is wrong with the classes.

    Only files of the same size are read, to the last 4 KB unless these agree too. Raises InputError as `check` does.
    """
    survey = Survey.of(folder)
    photos = survey.photos
    return _sorted([*_repeats(photos, _same_files(photos)), *of_classes(survey.classes | tally(photos))])


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    order = {kind: place for place, kind in enumerate(KINDS)}
    return tuple(sorted(findings, key=lambda finding: order[finding.kind]))


# ---- each photo by itself


def _look_at(
    photos: Sequence[Photo], takes: tuple[int, str], workers: int
) -> tuple[list[Finding], list[int], np.ndarray]:
    """Open every file. Large ones wait for each other, so that memory does not depend on their size.

    Returns what was found, the places of the files that can be read, and their thumbnails `(N, duplicates.SIDE,
    duplicates.SIDE, 3)` uint8.
    """
    room, found, good = Room(AT_ONCE), [], []
    thumbnails = np.empty((len(photos), duplicates.SIDE, duplicates.SIDE, 3), np.uint8)  # 4 GB of 1.3 million

    def look(photo: Photo) -> tuple[list[Finding], np.ndarray | None]:
        try:
            with opened(photo.file) as image:
                findings = list(_oddities(photo, image, takes))
            with opened(photo.file, 2 * duplicates.SIDE) as image, room.taken(image.width * image.height):
                small = as_image(upright(image), 3).resize((duplicates.SIDE, duplicates.SIDE), Image.Resampling.BOX)
                if exif_orientation(image) in range(2, 9):  # which may lie behind a PNG's pixels
                    findings.append(Finding("EXIF-rotated", photo.name))
                if np.std(small, axis=(0, 1)).max() < PLAIN:
                    findings.append(Finding("blank", photo.name))
        except BadImage as error:
            return [Finding(error.fault, photo.name, str(error))], None
        return findings, np.asarray(small)

    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(workers or min(os.cpu_count() or 1, THREADS)) as pool,
        bars.show(total=len(photos), desc="looking at photos", unit="image") as bar,
    ):
        warnings.simplefilter("ignore")  # PIL's, of odd metadata
        for start in range(0, len(photos), BLOCK):
            for place, (findings, small) in enumerate(pool.map(look, photos[start : start + BLOCK]), start):
                found += findings
                if small is not None:
                    thumbnails[len(good)] = small
                    good.append(place)
                bar.update()
    return found, good, thumbnails[: len(good)]


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


def _repeats(photos: Sequence[Photo], repeated: duplicates.Repeated, is_turned: bool = False) -> Iterator[Finding]:
    for place, (first, likeness) in sorted(repeated.items()):
        one, again = photos[first], photos[place]
        if one.label != again.label:
            kind = "mirrored" if is_turned else "contradiction"
        elif one.part != again.part:
            kind = "leak"
        else:
            kind = "duplicate" if likeness == 1 else "near duplicate"
        how = "mirrored or turned, " if is_turned else ""
        yield Finding(kind, again.name, "" if likeness == 1 else f"{how}likeness {likeness:.3f}", one.name)


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
        if (twin := folded.setdefault(label.strip().casefold(), label)) != label:
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
    places = [place for place, photo in enumerate(photos) if counts[photo.label] >= FEW]
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
