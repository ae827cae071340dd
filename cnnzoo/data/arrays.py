"""Where pixels come from: decoded once and kept as uint8, in memory or in a memory map; or decoded anew each time.

Both kinds of `Images` give the same `(B, H, W, C)` uint8 batches for the same indices. Random parts are cut from what
there is: of decoded images from the square that was kept, of files from the whole photo.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import numpy as np
from filelock import FileLock

from cnnzoo import atomic, bars
from cnnzoo.data.decoding import Stored, Unreached, read
from cnnzoo.data.parts import Parts
from cnnzoo.data.preprocess import Geometry
from cnnzoo.errors import InputError

File = Path | Stored

IN_MEMORY = 1 << 30  # bytes up to which pixels are read into memory; above, the file is mapped


class Images(Protocol):
    """N images of one size."""

    shape: tuple[int, int, int, int]  # (N, H, W, C)

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`, `(B, H, W, C)` uint8. Raises Unreadable, once all others are read."""
        ...

    def take_parts(self, indices: np.ndarray, parts: Parts) -> np.ndarray:
        """Of the image at `indices[i]` the i-th of `parts`, `(B, parts.size, parts.size, C)` uint8, likewise."""
        ...


class Unreadable(InputError):
    """Some images of a batch were readable once and are no longer: a file vanished, a disk broke.

    Args:
        pixels: of the batch, black where there is nothing.
        problems: what is wrong, by place in the batch.
    """

    def __init__(self, pixels: np.ndarray, problems: dict[int, str]):
        self.pixels, self.problems = pixels, problems
        self.good = [place for place in range(len(pixels)) if place not in problems]
        super().__init__("; ".join(problems.values()))


class ArrayImages:
    """Images that are decoded already: a uint8 array `(N, H, W, C)`, which may be a memory map."""

    def __init__(self, pixels: np.ndarray):
        self.pixels = pixels
        self.shape = pixels.shape

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: np.ndarray) -> np.ndarray:
        return self.pixels[indices]

    def take_parts(self, indices: np.ndarray, parts: Parts) -> np.ndarray:
        batch = np.empty((len(indices), parts.size, parts.size, self.shape[3]), np.uint8)
        for place, index in enumerate(indices):
            parts.cut(place, self.pixels[index], batch[place])
        return batch


class FittedImages:
    """Images of an array `(N, h, w, c)` uint8, which `fit` brings to the size of `shape` `(N, H, W, C)` whenever they
    are asked for: together they would be more than memory should hold.
    """

    def __init__(self, pixels: np.ndarray, fit: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]):
        self.before, self.fit, self.shape = pixels, fit, shape
        self._pool = ThreadPoolExecutor()

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, indices: np.ndarray) -> np.ndarray:
        return np.stack(list(self._pool.map(self.fit, self.before[indices])))

    def take_parts(self, indices: np.ndarray, parts: Parts) -> np.ndarray:
        return ArrayImages(self.take(indices)).take_parts(np.arange(len(indices)), parts)


class Chosen:
    """Some of other images, each perhaps several times."""

    def __init__(self, images: Images, places: np.ndarray):
        self.images, self.places = images, places
        self.shape = (len(places), *images.shape[1:])

    def __len__(self) -> int:
        return len(self.places)

    def take(self, indices: np.ndarray) -> np.ndarray:
        return self.images.take(self.places[indices])

    def take_parts(self, indices: np.ndarray, parts: Parts) -> np.ndarray:
        return self.images.take_parts(self.places[indices], parts)


def choose(images: Images, places: np.ndarray) -> Images:
    """The images at `places`: a copy of those that are in memory, which later need no looking up."""
    if isinstance(images, ArrayImages) and not isinstance(images.pixels, np.memmap):
        return ArrayImages(images.pixels[places])
    return Chosen(images, places)


class FileImages:
    """Images decoded from their files whenever they are asked for, by `workers` threads (0: one per core)."""

    def __init__(self, files: Sequence[File], geometry: Geometry, workers: int = 0):
        self.files = list(files)
        self.geometry = geometry
        self.shape = (len(files), *geometry.shape)
        self._workers = workers or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._workers)

    def __len__(self) -> int:
        return len(self.files)

    def take(self, indices: np.ndarray) -> np.ndarray:
        def fit(place: int, file: File, out: np.ndarray) -> None:
            out[:] = self.geometry.read(file)

        return self._each(indices, self.geometry.shape, fit)

    def take_parts(self, indices: np.ndarray, parts: Parts) -> np.ndarray:
        def cut(place: int, file: File, out: np.ndarray) -> None:
            if self.geometry.squash:  # as the weights were trained: on squares
                parts.cut(place, self.geometry.read(file), out)
            else:
                parts.cut_file(place, read(file), out)

        return self._each(indices, (parts.size, parts.size, self.geometry.channels), cut)

    def _each(
        self, indices: np.ndarray, shape: tuple[int, ...], make: Callable[[int, File, np.ndarray], None]
    ) -> np.ndarray:
        batch, problems = np.empty((len(indices), *shape), np.uint8), {}
        places = iter(range(len(indices)))  # of which each thread takes the next one when it has done one

        def work() -> None:
            for place in places:
                file = self.files[indices[place]]
                try:
                    make(place, file, batch[place])
                except InputError as error:
                    batch[place], problems[place] = 0, f"{file}: {error}"

        for thread in [self._pool.submit(work) for _ in range(self._workers)]:
            thread.result()
        if problems:
            raise Unreadable(batch, dict(sorted(problems.items())))
        return batch


def decode_files(
    files: Sequence[File], geometry: Geometry, cache: Path, keep: bool, workers: int, what: str
) -> tuple[Images, dict[File, str], list[str]]:
    """Read every file once, with a progress bar; what is found out lies in `cache`, where later runs find it.

    With `keep` the pixels lie there too, as one file that runs and processes share; without, or where the disk has no
    room for them, they are decoded whenever asked for. Returns the images that could be read, in order; what is wrong
    with each other file; and what a person should know of the cache.
    """
    kept = _Kept(cache / _fingerprint(files, geometry), (geometry.shape if keep else None))
    notes, problem = [], ""
    found, _ = kept.found(len(files))
    if found is None:
        with kept.alone():  # while another process builds it, this one waits
            found, wrong = kept.found(len(files))
            if wrong:
                notes.append(f"the cache of decoded photos in {cache} was {wrong}, so it was built anew")
            if found is None:
                found, problem = _read_once(files, geometry, kept, workers, what)
            if problem:
                notes.append(f"decoded photos cannot be kept ({problem}), so {_ANEW}")
    bad = {files[place]: reason for place, reason in found.items()}
    good = [file for file in files if file not in bad]
    if not keep or problem:
        return FileImages(good, geometry, workers), bad, notes
    shape = (len(good), *geometry.shape)
    pixels = np.memmap(kept.store, np.uint8, "r", shape=shape) if good else np.empty(shape, np.uint8)
    return ArrayImages(np.array(pixels) if pixels.nbytes <= IN_MEMORY else pixels), bad, notes


_ANEW = "each is decoded anew, and random parts are cut from whole photos"


class _Kept:
    """The files of a cache: a report on which images cannot be read, and unless `shape` is None their pixels."""

    def __init__(self, place: Path, shape: tuple[int, int, int] | None):
        self.place, self.shape = place, shape
        self.report, self.store = place.with_suffix(".json"), place.with_suffix(".u8")

    def found(self, many: int) -> tuple[dict[int, str] | None, str]:
        """Of `many` files what is wrong with which, by place; None where that is not known, and what is wrong then."""
        try:
            bad = {int(place): reason for place, reason in json.loads(self.report.read_text()).items()}
            if (
                self.shape
                and many > len(bad)
                and self.store.stat().st_size != (many - len(bad)) * math.prod(self.shape)
            ):
                return None, "cut short"
        except OSError:
            return None, ""
        except (ValueError, AttributeError):
            return None, "damaged"
        return bad, ""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One process, and one thread, at a time; where no lock can be had, all at once."""
        lock = FileLock(self.place.with_suffix(".lock"))
        with suppress(OSError, NotImplementedError):
            self.place.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _read_once(
    files: Sequence[File], geometry: Geometry, kept: _Kept, workers: int, what: str
) -> tuple[dict[int, str], str]:
    """What is wrong with which file, by place. Writes it down and, where they are wanted, the pixels, each whole or not
    at all; where that cannot be, reads on all the same and says why.
    """
    bad: dict[int, str] = {}
    problem, out, for_good = "", None, True
    part = atomic.beside(kept.place)
    for left in atomic.left_beside(kept.place):  # by a process that was killed; this one is alone here
        with suppress(OSError):
            left.unlink()

    def attempt(action: Callable[[], object]) -> object:
        """Do it, unless something failed before."""
        nonlocal problem
        try:
            return None if problem else action()
        except OSError as error:  # a full disk, a folder that may only be read
            problem = f"{error.strerror or error}: {part.parent}"

    attempt(lambda: part.parent.mkdir(parents=True, exist_ok=True))
    out = attempt(lambda: open(part, "wb"))  # noqa: SIM115 (closed below, whatever happens)
    try:
        with bars.show(total=len(files), desc=what, unit="image") as bar:
            for place, pixels in enumerate(_read_all(files, geometry, workers)):
                bar.update()
                if isinstance(pixels, InputError):
                    bad[place] = str(pixels)
                    for_good &= not isinstance(pixels, Unreached)
                elif kept.shape:
                    attempt(lambda pixels=pixels: out.write(pixels))
        attempt(lambda: (out.flush(), os.fsync(out.fileno())))
        attempt(lambda: out.close())
        if kept.shape:
            attempt(lambda: os.replace(part, kept.store))
        if for_good:
            attempt(lambda: part.write_text(json.dumps(bad)))
            attempt(lambda: os.replace(part, kept.report))
    finally:
        with suppress(OSError):  # what could not be written fails again here
            if out:
                out.close()
        with suppress(OSError):
            part.unlink()
    return bad, problem if kept.shape else ""


def _read_all(files: Sequence[File], geometry: Geometry, workers: int) -> Iterator[np.ndarray | InputError]:
    """For each file in order its pixels, or what is wrong with it."""

    def attempt(file: File) -> np.ndarray | InputError:
        try:
            return np.ascontiguousarray(geometry.read(file))
        except InputError as error:
            return error

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for start in range(0, len(files), 256):  # no more than these wait in memory
            yield from pool.map(attempt, files[start : start + 256])


def _fingerprint(files: Sequence[File], geometry: Geometry) -> str:
    """Changes with the geometry and with every file's name, size and times of change."""
    digest = hashlib.sha256(repr(geometry).encode())
    for file in files:
        digest.update(os.fsencode(f"{stamp(file)}\n"))
    return digest.hexdigest()[:24]


def stamp(file: File) -> str:
    """Changes whenever a file or its permissions may have changed: no program can set back the time of that."""
    if isinstance(file, Stored):
        return file.stamp()
    stat = file.stat()
    return f"{file.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}"


def cache_folder(beside: Path | None) -> Path:
    """$CNNZOO_CACHE, else a hidden folder within the data set, else (where that cannot be written, or there is no such
    folder) ~/.cache/cnnzoo.
    """
    if chosen := os.environ.get("CNNZOO_CACHE"):
        return Path(chosen)
    inside = beside / ".cnnzoo" if beside else Path()
    place = inside if inside.exists() else beside
    # root may write anywhere, but was not asked to
    if beside and os.access(place, os.W_OK) and place.stat().st_mode & 0o222:
        return inside
    return Path.home() / ".cache" / "cnnzoo" / "decoded"
