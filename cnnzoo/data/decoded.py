"""Photos decoded once: their pixels in one file that all runs, splits and processes of a data set share.

The file only grows: a new or a changed photo costs its own row, another split costs nothing, and a process that is
killed loses what it has decoded in its last seconds.
"""

import functools
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock

from cnnzoo import bars
from cnnzoo.data.arrays import IN_MEMORY, ArrayImages, File, FileImages, Images
from cnnzoo.data.crops import Crops
from cnnzoo.data.decoding import Stored, Unreached
from cnnzoo.data.preprocess import Geometry, Sheet
from cnnzoo.errors import InputError
from cnnzoo.paths import expanded

PAUSE = 10  # seconds of decoding after which it is written to the disk
KEY = 16  # bytes


def decode_files(
    files: Sequence[File],
    geometry: Geometry | Crops | Sheet,
    source: str,
    folder: Path,
    keep: bool,
    workers: int,
    what: str,
) -> tuple[Images, dict[File, str], list[str]]:
    """Read every file once, with a progress bar; what is found out lies in `folder`, where later runs find it.

    With `keep` the pixels lie there too; without, or where the disk has no room for them, they are decoded whenever
    asked for. `source` names the data set that the files are of.

    Returns the images that could be read, in order; what is wrong with each other file; and what a person should know
    of the cache.
    """
    anew = "each is decoded anew, and random parts are cut from whole photos"
    keys = [hashlib.blake2b(os.fsencode(told), digest_size=KEY).hexdigest() for told in stamps(files)]
    with _Rows(folder, f"{source} {geometry}", geometry.shape if keep else None) as store:
        missing = {key: file for key, file in zip(keys, files, strict=True) if key not in store.known}
        if lack := store.lack_of_room(len(missing)):
            images, bad, notes = decode_files(files, geometry, source, folder, False, workers, what)
            return images, bad, [*notes, f"decoded photos are not kept ({lack}), so {anew}"]
        with bars.show(total=len(files), initial=len(files) - len(missing), desc=what, unit="image") as bar:
            for key, pixels in zip(missing, _read_all(list(missing.values()), geometry, workers), strict=True):
                store.add(key, pixels)
                bar.update()
        store.write()
        found = [store.known[key] for key in keys]
        bad = {file: wrong for file, wrong in zip(files, found, strict=True) if isinstance(wrong, str)}
        lost = f"the cache of decoded photos in {folder} was {store.damage}, so what it lost was decoded anew"
        notes = [lost] if store.damage else []
        if keep and not (missing and store.problem):
            rows = np.array([row for row in found if not isinstance(row, str)], dtype=int)
            return store.images(rows), bad, notes
    if keep:
        notes.append(f"decoded photos cannot be kept ({store.problem}), so {anew}")
    return FileImages([file for file in files if file not in bad], geometry, workers), bad, notes


class _Rows:
    """The pixels of images in rows, and a line for each image: its key, and for one that cannot be read, why. Both are
    in the order in which images were decoded. One process, and one thread, at a time.

    What cannot be written (a full disk, a folder that may only be read) is the `problem`: the files are left as they
    were then.

    Args:
        folder: where they lie.
        name: of what they are the pixels.
        shape: of one image; None: no pixels are kept, only which images can be read.
    """

    def __init__(self, folder: Path, name: str, shape: tuple[int, ...] | None):
        place = folder / hashlib.sha256(f"{name} {shape}".encode(errors="surrogatepass")).hexdigest()[:24]
        self.places = (place.with_suffix(".u8"), place.with_suffix(".rows"))
        self.lock = FileLock(place.with_suffix(".lock"))
        self.shape, self.bytes = shape, math.prod(shape or [0])
        self.known: dict[str, int | str] = {}  # by key the row, or what is wrong with the image
        self.many = 0  # rows
        self.sizes = [0, 0]  # of both files, as far as they are whole
        self.new: list[str] = []  # lines that are not written yet
        self.files: list[BinaryIO] = []
        self.problem = self.damage = ""

    def __enter__(self) -> "_Rows":
        self._attempt(self._lock)
        with suppress(OSError):  # none yet
            self._load()
        self._attempt(self._open)
        self.written = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        self.write()
        for file, size in zip(self.files, self.sizes, strict=False):
            with suppress(OSError):  # what could not be written fails again
                file.close()
            if self.problem:  # a full disk should not stay so
                with suppress(OSError):
                    os.truncate(file.name, size)
        self.lock.release()

    def lack_of_room(self, many: int) -> str:
        """Why the disk would be full before the pixels of so many more images are on it; "" where it would not."""
        if self.problem:
            return ""
        takes, free = many * self.bytes, shutil.disk_usage(self.places[0].parent).free
        told = f"they take {takes / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free in {self.places[0].parent}"
        return f"{told}; CNNZOO_CACHE names another folder" if takes > free else ""

    def add(self, key: str, pixels: np.ndarray | InputError) -> None:
        """The pixels of an image that is not here yet, or what is wrong with it."""
        wrong = str(pixels) if isinstance(pixels, InputError) else ""
        if self.shape and not wrong:
            self._attempt(lambda: self.files[0].write(pixels))
        self.known[key] = wrong or self.many
        self.many += not wrong
        if not isinstance(pixels, Unreached):  # which may be reached another time
            self.new.append(f"{key} {json.dumps(wrong)}\n" if wrong else f"{key}\n")
        if time.monotonic() > self.written + PAUSE:
            self.write()

    def write(self) -> None:
        """See to it that all of this is on the disk."""
        self._attempt(self._write)
        self.written = time.monotonic()

    def images(self, rows: np.ndarray) -> ArrayImages:
        """Those in `rows`, in that order."""
        if not len(rows):
            return ArrayImages(np.empty((0, *self.shape), np.uint8))
        pixels = np.memmap(self.places[0], np.uint8, "r", shape=(self.many, *self.shape))
        few = len(rows) * self.bytes <= IN_MEMORY
        return ArrayImages(pixels[rows]) if few else ArrayImages(pixels, rows)

    def _attempt(self, action: Callable[[], object]) -> None:
        """Do it, unless something failed before."""
        try:
            if not self.problem:
                action()
        except (OSError, NotImplementedError) as error:  # the latter where a file system has no locks
            self.problem = f"{getattr(error, 'strerror', None) or error}: {self.places[0].parent}"

    def _lock(self) -> None:
        self.places[0].parent.mkdir(parents=True, exist_ok=True)
        bars.take(self.lock, "decoded photos")

    def _load(self) -> None:
        """The lines, up to a damaged one. The last without an end was being written when a process was killed."""
        held = self.places[0].stat().st_size // self.bytes if self.shape else math.inf
        for line in self.places[1].read_bytes().split(b"\n")[:-1]:
            key, _, wrong = line.decode("ascii", "replace").partition(" ")
            try:
                wrong = str(json.loads(wrong)) if wrong else ""
            except ValueError:
                key = ""
            if len(key) != 2 * KEY:
                self.damage = "damaged"
                return
            if key not in self.known:  # written twice, where Ctrl-C came in between
                if not wrong and self.many == held:
                    self.damage = "cut short"
                    return
                self.known[key] = wrong or self.many
                self.many += not wrong
            self.sizes = [self.many * self.bytes, self.sizes[1] + len(line) + 1]

    def _open(self) -> None:
        for place, size in zip(self.places, self.sizes, strict=True):
            self.files.append(open(place, "ab"))  # noqa: SIM115 (closed on leaving)
            self.files[-1].truncate(size)

    def _write(self) -> None:
        if self.new:
            self.files[1].write("".join(self.new).encode())
            for file in self.files:
                file.flush()
                os.fsync(file.fileno())
            self.new = []


def _read_all(
    files: Sequence[File], geometry: Geometry | Crops | Sheet, workers: int
) -> Iterator[np.ndarray | InputError]:
    """For each file in order its pixels, or what is wrong with it."""

    def attempt(file: File) -> np.ndarray | InputError:
        try:
            return np.ascontiguousarray(geometry.read(file))
        except InputError as error:
            return error

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for start in range(0, len(files), 256):  # no more than these wait in memory
            yield from pool.map(attempt, files[start : start + 256])


def stamps(files: Sequence[File]) -> Iterator[str]:
    """For each file a text that changes whenever the file or its permissions may have: it tells the time of the last
    such change, which no program can set back.
    """
    real = iter(real_paths(os.fspath(file) for file in files if not isinstance(file, Stored)))
    for file in files:
        if isinstance(file, Stored):
            yield file.stamp()
        else:
            try:
                stat = os.stat(name := next(real))
                yield f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}"
            except OSError as error:  # it is gone, or out of reach, as will be told where it is read
                yield f"{name}\0{error.strerror}"


def real_paths(names: Iterable[str]) -> list[str]:
    """Names of images with no links in them, by which two are told to be the same file. Each folder is looked up once,
    which takes a tenth of the time.
    """
    folder = functools.cache(os.path.realpath)
    parts = ((name, *os.path.split(name)) for name in names)
    return [os.path.realpath(n) if os.path.islink(n) else os.path.join(folder(home), file) for n, home, file in parts]


def cache_folder(beside: Path | None) -> Path:
    """$CNNZOO_CACHE, else a hidden folder within the data set, else (where that cannot be written, or there is no such
    folder) ~/.cache/cnnzoo.
    """
    if chosen := os.environ.get("CNNZOO_CACHE"):
        return expanded(chosen)
    inside = beside / ".cnnzoo" if beside else Path()
    place = inside if inside.exists() else beside
    # root may write anywhere, but was not asked to
    if beside and os.access(place, os.W_OK) and place.stat().st_mode & 0o222:
        return inside
    return Path.home() / ".cache" / "cnnzoo" / "decoded"
