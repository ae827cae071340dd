"""Files, folders and patterns to pixels, any number of them in little memory: found by name, then decoded ahead."""

import glob
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from cnnzoo.data.decoding import EXTENSIONS, as_image, opened, upright
from cnnzoo.data.preprocess import Preprocess, Sheet, enough
from cnnzoo.errors import InputError, expect

THREADS = 8  # that decode, at most: more wait for Python, and each keeps memory for the largest image it has seen
AT_ONCE = 48_000_000  # pixels that are being decoded at any time; the costliest, with transparency, take 12 bytes each


class Pictures:
    """Names of pictures, found anew each time they are gone through, so that a million take no memory.

    Args:
        images: files; folders, with all the folders in them that are not hidden; patterns such as "photos/**/*.jpg";
            an image file's content as bytes, or as a file that is open; PIL images, which are turned as their EXIF tag
            says, like files; uint8 arrays `(H, W)` or `(H, W, C)`, or tensors, which may also be `(C, H, W)`. One, or
            several of them, also as one array with an axis more; three axes are one picture where it would have 1, 3 or
            4 channels.

    Raises InputError for a folder without images, for a pattern that matches nothing, and for a table or mapping.
    """

    def __init__(self, images: str | bytes | Path | Image.Image | Iterable):
        if isinstance(images, Mapping) or hasattr(images, "columns"):  # going through them gives keys, not images
            raise InputError(f"images are in a {type(images).__name__}; give the column that holds them: images[NAME]")
        many = isinstance(images, Iterable) and getattr(images, "ndim", 1)  # one number as an array has no length
        if not (_is_one(images) or many):
            raise InputError(f"images are {images!r}, but must be files, folders, patterns, PIL images or uint8 arrays")
        given = [images] if _is_one(images) else list(images)
        self._given = [_content(item) for item in given]
        self._count = self.passed_over = 0  # the latter: files in folders, of other endings than an image's
        for item in self._given:
            found = Counter(is_image for _, is_image in _found(item))
            if not found[True]:
                endings = f"known endings: {' '.join(sorted(EXTENSIONS))}"
                is_folder = os.path.isdir(os.path.expanduser(item))
                raise InputError(f"{item} holds no images; {endings}" if is_folder else _no_match(item))
            self._count += found[True]
            self.passed_over += found[False]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str | bytes | Image.Image | np.ndarray]:
        return (file for item in self._given for file, is_image in _found(item) if is_image)


def _content(item: Any) -> Any:
    """Bytes, of a file that is open and of what holds them; text, of what is a path; all else as it is."""
    if hasattr(item, "read"):
        item = item.read()
        expect(item, bytes, "an open file of an image holds bytes, as open(file, 'rb') gives them")
    if isinstance(item, os.PathLike):
        return os.fspath(item)
    return bytes(item) if isinstance(item, bytearray | memoryview) else item


def _is_one(images: Any) -> bool:
    if isinstance(images, np.ndarray | Tensor):
        channels = images.shape[2:] if isinstance(images, np.ndarray) else images.shape[::2]
        return images.ndim == 2 or (images.ndim == 3 and not {1, 3, 4}.isdisjoint(channels))
    kinds = str | bytes | bytearray | memoryview | os.PathLike | Image.Image
    return isinstance(images, kinds) or hasattr(images, "read")


def _found(item: Any) -> Iterator[tuple[Any, bool]]:
    """What an item stands for, and whether that is to be read as an image: in folders, other files are not."""
    if not isinstance(item, str):
        yield item, True
        return
    name = os.path.expanduser(item)
    if os.path.isdir(name):
        yield from ((file, _is_image(file)) for file in files_in(name, refuse))
    elif os.path.exists(name) or glob.escape(name) == name:
        yield name, True
    else:
        yield from ((file, True) for file in sorted(glob.iglob(name, recursive=True)) if not os.path.isdir(file))


def _no_match(pattern: str | Path) -> str:
    """What to say of a pattern that finds no file."""
    folder = min(glob.iglob(os.path.expanduser(pattern), recursive=True), default=None)
    if folder is None:
        return f"{pattern} matches no file"
    return f"{pattern} matches folders only, such as {folder}; {os.path.join(pattern, '*')} matches what is in them"


def _is_image(file: str) -> bool:
    """Whether a file's ending is an image's; a pipe, which might be waited for in vain, is none. A link that leads
    nowhere is told when read.
    """
    ending = os.path.splitext(file)[1].lower()
    return ending in EXTENSIONS and (os.path.isfile(file) or not os.path.exists(file))


def refuse(error: OSError) -> None:
    """For `files_in`: a folder that cannot be read is an InputError."""
    raise InputError(f"{error.filename} cannot be read: {error.strerror}")


def files_in(folder: str, onerror: Callable[[OSError], None] | None = None) -> Iterator[str]:
    """All files in a folder and its folders in order, linked ones too, hidden ones not. `onerror` is told of folders
    that cannot be read, which else are passed over.
    """
    seen = set()
    for home, inside, files in os.walk(folder, onerror=onerror, followlinks=True):
        here = os.path.realpath(home)
        if here in seen:  # a link led back
            inside.clear()
            continue
        seen.add(here)
        inside[:] = sorted(name for name in inside if not is_hidden(name))
        yield from (os.path.join(home, name) for name in sorted(files) if not is_hidden(name))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is none of the user's own: macOS leaves __MACOSX in its archives."""
    return name.startswith(".") or name == "__MACOSX"


@dataclass(frozen=True)
class Picture:
    """What became of one image."""

    name: str  # a file's as the file system has it, see `errors.printable`
    pixels: np.ndarray | None = None  # (H, W, C) uint8, as the net's preprocessing has them
    error: str = ""  # what is wrong with it, and then there are no pixels
    upscaled: bool = False  # it has fewer pixels than the net takes


def read_ahead(pictures: Pictures, preprocess: Preprocess | Sheet, batch_size: int) -> Iterator[list[Picture]]:
    """Every picture in order, `batch_size` at a time, and one empty list where there is none.

    Threads decode the next batch while the caller works on this one. Only the crops are kept, and large images wait for
    each other, so that memory depends on neither the number of images nor that of cores.

    Raises InputError for an array that is no picture; of a file its Picture says what is wrong.
    """
    reader, numbered = _Reader(preprocess), enumerate(pictures)
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, THREADS))
    try:
        ahead = []
        while batch := list(islice(numbered, batch_size)):
            now, ahead = ahead, [pool.submit(reader.read, *item) for item in batch]
            if now:
                yield [future.result() for future in now]
        yield [future.result() for future in ahead]
    finally:
        pool.shutdown(cancel_futures=True)


class _Reader:
    """From a picture to what the net sees of it."""

    def __init__(self, preprocess: Preprocess | Sheet):
        self.preprocess = preprocess
        self.at_least = enough(preprocess.resize)
        self.room = Room(AT_ONCE)

    def read(self, place: int, item: str | bytes | Image.Image | np.ndarray) -> Picture:
        if not isinstance(item, str | bytes):
            try:
                return self._fitted(f"image {place}", as_image(item, self.preprocess.channels))
            except InputError as error:
                raise InputError(f"image {place}: {error}") from None
        name = item if isinstance(item, str) else f"image {place}"
        try:
            with opened(item, self.at_least) as image, self.room.taken(image.width * image.height):
                return self._fitted(name, upright(image))
        except InputError as error:
            return Picture(name, error=str(error))

    def _fitted(self, name: str, image: Image.Image) -> Picture:
        return Picture(name, self.preprocess.pixels(image), upscaled=min(image.size) < self.preprocess.least)


class Room:
    """Room for so many pixels. Who finds too little left waits, but whoever would be alone gets in."""

    def __init__(self, pixels: int):
        self._left, self._all, self._changed = pixels, pixels, threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: pixels <= self._left or self._left == self._all)
            self._left -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._left += pixels
                self._changed.notify_all()
