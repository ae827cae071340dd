"""Photos in tar files, as WebDataset has them: shards/train-{000000..000012}.tar, or shards/train-*.tar.

A sample is what follows each other in a tar with one name before the first dot: an image (000017.jpg) and its class
(000017.cls), a number or a name. classes.txt beside the tars, if there is one, has the names of the numbers, a line
each. Where everything lies is found out once; from then on an image is read from its place, in any order, as if it were
a file. So no library is needed, but tars that are not compressed, which gains nothing with photos anyway.
"""

import hashlib
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from glob import glob
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnzoo import atomic, bars
from cnnzoo.data.decoded import cache_folder, stamps
from cnnzoo.data.decoding import EXTENSIONS, Stored
from cnnzoo.data.found import Found, Part, photos
from cnnzoo.errors import InputError, composed
from cnnzoo.files import read_arrays

_ENDINGS = (".tar", ".tar.gz", ".tgz")
_MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)")  # name, ending; with WebDataset, hidden files are no members
_ODD = "surrogateescape"  # for a name that is no UTF-8
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def is_source(source: str) -> bool:
    return source.endswith(_ENDINGS)


def find(source: str) -> Found:
    """The samples of the tars that a pattern stands for. Raises InputError for missing, damaged and compressed ones."""
    files = _files(source)
    samples, bare = _index(files)
    if not samples:
        raise InputError(f"{source} holds no image with its class, such as 000017.jpg and 000017.cls")
    stamped = dict(zip(files, stamps(files), strict=True))
    images = [_Member(files[s.shard], s.name, s.offset, s.size, stamped[files[s.shard]]) for s in samples]
    classes, labels = _classes([sample.label for sample in samples], files[0].with_name("classes.txt"))
    names = tuple(map(str, images))
    if len(set(names)) < len(names):
        twice, _ = Counter(names).most_common(1)[0]
        raise InputError(f"{twice} is there twice; give each sample of a shard a name of its own")
    part = Part(images, labels, names)
    notes = (f"{bare} of {len(samples) + bare} samples in {source} passed over for want of an image or a class",)
    return photos(classes, part, None, files[0].parent, notes if bare else ())


@dataclass(frozen=True)
class _Member(Stored):
    shard: Path
    name: str
    offset: int
    size: int
    shard_stamp: str

    def __str__(self) -> str:
        return f"{self.shard.as_posix()}/{self.name}"

    def read_bytes(self) -> bytes:
        with open(self.shard, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    @property
    def path(self) -> str:
        return self.name

    def stamp(self) -> str:
        return f"{self.shard_stamp}\0{self.offset}\0{self.size}"


def _files(source: str) -> list[Path]:
    # Each once, though {0..12}* has train-10.tar as train-1* and as train-10*.
    names = _expanded(os.path.expanduser(source))
    files = [Path(file) for file in dict.fromkeys(file for name in names for file in sorted(glob(name)) or [name])]
    if not files:
        raise InputError(f"data.source {source}: its range holds no number; write the smaller one first")
    if missing := [file for file in files if not file.is_file()]:
        many = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"data.source {source}: there is no file {missing[0]}{many}")
    return files


def _expanded(pattern: str) -> Iterator[str]:
    """What ranges such as {000..012} stand for."""
    match = _RANGE.search(pattern)
    if match is None:
        yield pattern
        return
    first, last = match.groups()
    for number in range(int(first), int(last) + 1):
        yield from _expanded(f"{pattern[: match.start()]}{number:0{len(first)}}{pattern[match.end() :]}")


def _classes(found: Sequence[str], names: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names in order, and `(N,)` int64 places among them."""
    found = [composed(text) for text in found]
    numbers = all(text.isdecimal() for text in found)
    known = sorted(set(found), key=(lambda text: (int(text), text)) if numbers else None)
    places = {text: place for place, text in enumerate(known)}
    labels = np.array([places[text] for text in found], dtype=np.int64)
    if numbers and names.is_file():
        try:
            lines = names.read_text(encoding="utf-8-sig").rstrip().split("\n")  # Notepad begins a file with a mark
        except UnicodeDecodeError:
            raise InputError(f"{names} is not UTF-8; save it as text in UTF-8") from None
        if int(known[-1]) >= len(lines):
            raise InputError(f"{names} has {len(lines)} lines, but there is a class {known[-1]}")
        if empty := [text for text in known if not lines[int(text)].strip()]:
            raise InputError(f"{names} has an empty line for class {empty[0]}")
        known = [lines[int(text)].strip() for text in known]
        if twice := [name for name, many in Counter(known).items() if many > 1]:
            raise InputError(f"{names} has {twice[0]!r} for several classes")
    return tuple(known), labels


# ---- where everything lies


class _Sample(NamedTuple):
    shard: int
    name: str
    offset: int
    size: int
    label: str


def _index(files: Sequence[Path]) -> tuple[list[_Sample], int]:
    """All samples in order, and how many others lack an image or a class; kept beside the data, for later runs."""
    key = hashlib.sha256("\n".join(stamps(files)).encode(errors=_ODD)).hexdigest()[:24]
    kept = cache_folder(files[0].parent) / f"{key}.shards.npz"
    with suppress(OSError, InputError):  # there is none yet, or it is damaged, and made anew
        *columns, bare = read_arrays(kept, *_Sample._fields, "bare")
        columns = [c.tolist() if c.dtype.kind == "i" else map(_decoded, c.tolist()) for c in columns]
        return list(map(_Sample, *columns)), int(bare)
    samples, bare = [], 0
    for shard, file in enumerate(bars.show(files, desc="reading shards", unit="shard")):
        for sample in _samples(shard, file):
            if sample is None:
                bare += 1
            else:
                samples.append(sample)
    _keep(kept, samples, bare)
    return samples, bare


def _keep(place: Path, samples: Sequence[_Sample], bare: int) -> None:
    """Write the index, whole or not at all; where it cannot be kept, the next run reads the shards again."""
    arrays = {}
    for name in _Sample._fields:
        column = [getattr(sample, name) for sample in samples]
        arrays[name] = np.array([x.encode(errors=_ODD) if isinstance(x, str) else x for x in column])
    with suppress(OSError), atomic.replacing(place) as part, open(part, "wb") as file:
        np.savez(file, bare=bare, **arrays)


def _decoded(name: bytes) -> str:
    return name.decode(errors=_ODD)


def _samples(shard: int, file: Path) -> Iterator[_Sample | None]:
    """The samples of a tar; None for one without an image or a class."""
    try:
        with tarfile.open(file, "r:", encoding="utf-8", errors=_ODD) as tar:
            for _, members in groupby(_members(tar), lambda member: member[0]):
                image, label = None, None
                for _, ending, member in members:
                    if ending == "cls":
                        label = _label(tar.extractfile(member).read(), f"{file}/{member.name}")
                    elif f".{ending}" in EXTENSIONS and image is None:
                        image = member
                complete = image is not None and label
                yield _Sample(shard, image.name, image.offset_data, image.size, label) if complete else None
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(512) != bytes(512):  # tarfile takes whatever it cannot read for the end
                raise tarfile.ReadError("no end where its last member ends")
    except (tarfile.TarError, OSError, EOFError) as error:
        with open(file, "rb") as content:
            compressed = content.read(2) == b"\x1f\x8b"
        why = "it is compressed; unpack it by gunzip" if compressed else f"it is cut short or no tar ({error})"
        raise InputError(f"{file}: {why}") from None


def _label(content: bytes, member: str) -> str:
    try:
        return content.decode("utf-8-sig").strip()  # Notepad begins a file with a mark
    except UnicodeDecodeError:
        raise InputError(f"{member} is not UTF-8; save it as text in UTF-8") from None


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    for member in tar:
        if member.isreg() and (match := _MEMBER.fullmatch(member.name)):
            yield match[1], match[2].lower(), member
