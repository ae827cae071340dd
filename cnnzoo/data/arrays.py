"""Where pixels come from: decoded once and kept as uint8, in memory or in a memory map; or decoded anew each time.

Both kinds of `Images` give the same `(B, H, W, C)` uint8 batches for the same indices.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from cnnzoo.data.preprocess import decode, fit
from cnnzoo.errors import InputError

IN_MEMORY = 1 << 30  # bytes up to which pixels are read into memory; above, the file is mapped


class Images(Protocol):
    """N images of one size."""

    shape: tuple[int, int, int, int]  # (N, H, W, C)

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`, `(B, H, W, C)` uint8."""
        ...


class ArrayImages:
    """Images that are decoded already: a uint8 array `(N, H, W, C)`, which may be a memory map."""

    def __init__(self, pixels: np.ndarray):
        self.pixels = pixels
        self.shape = pixels.shape

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: np.ndarray) -> np.ndarray:
        return self.pixels[indices]


@dataclass(frozen=True)
class Geometry:
    """How an image file becomes a square: see `preprocess.fit`."""

    channels: int
    resize: int
    size: int
    interpolation: str
    squash: bool = False

    def fit(self, image: Image.Image) -> np.ndarray:
        """`(size, size, channels)` uint8 of an image of so many channels."""
        return fit(image, self.resize, self.size, self.interpolation, self.squash)

    def read(self, file: str | Path) -> np.ndarray:
        """`(size, size, channels)` uint8. Raises InputError if the file cannot be read."""
        return self.fit(decode(file, self.channels))


class FileImages:
    """Images decoded from their files whenever they are asked for, by `workers` threads (0: one per core)."""

    def __init__(self, files: Sequence[Path], geometry: Geometry, workers: int = 0):
        self.files = list(files)
        self.geometry = geometry
        self.shape = (len(files), geometry.size, geometry.size, geometry.channels)
        self._pool = ThreadPoolExecutor(workers or os.cpu_count())

    def __len__(self) -> int:
        return len(self.files)

    def take(self, indices: np.ndarray) -> np.ndarray:
        return np.stack(list(self._pool.map(self._read, (self.files[index] for index in indices))))

    def _read(self, file: Path) -> np.ndarray:
        try:
            return self.geometry.read(file)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None


def decode_files(
    files: Sequence[Path], geometry: Geometry, cache: Path, keep: bool, workers: int, what: str
) -> tuple[Images, dict[Path, str]]:
    """Read every file once, with a progress bar; what is found out lies in `cache`, where later runs find it.

    With `keep` the pixels lie there too, as one file that runs and processes share; without, they are decoded whenever
    asked for. Returns the images that could be read, in order, and what is wrong with each other file.
    """
    key = _fingerprint(files, geometry)
    report, store = cache / f"{key}.json", cache / f"{key}.u8"
    if report.exists() and (store.exists() or not keep):
        found = {int(place): reason for place, reason in json.loads(report.read_text()).items()}
    else:
        found = _read_once(files, geometry, report, store if keep else None, workers, what)
    bad = {files[place]: reason for place, reason in found.items()}
    good = [file for file in files if file not in bad]
    if not keep:
        return FileImages(good, geometry, workers), bad
    shape = (len(good), geometry.size, geometry.size, geometry.channels)
    pixels = np.memmap(store, np.uint8, "r", shape=shape) if good else np.empty(shape, np.uint8)
    return ArrayImages(np.array(pixels) if pixels.nbytes <= IN_MEMORY else pixels), bad


_MAY_PASS = {"no permission to read it", "there is no such file"}  # not remembered: no fault of the file's content


def _read_once(
    files: Sequence[Path], geometry: Geometry, report: Path, store: Path | None, workers: int, what: str
) -> dict[int, str]:
    """What is wrong with which file, by place. Writes it down and, unless None, the store, each whole or not at all."""
    report.parent.mkdir(parents=True, exist_ok=True)
    bad: dict[int, str] = {}
    part = report.with_name(f".{report.stem}.{os.getpid()}.part")
    try:
        with open(part, "wb") as out, tqdm(total=len(files), desc=what, unit="image", leave=False, disable=None) as bar:
            for place, pixels in enumerate(_read_all(files, geometry, workers)):
                bar.update()
                if isinstance(pixels, str):
                    bad[place] = pixels
                elif store:
                    out.write(pixels)
        if store:
            os.replace(part, store)
        if not _MAY_PASS & set(bad.values()):
            part.write_text(json.dumps(bad))
            os.replace(part, report)
    finally:
        part.unlink(missing_ok=True)
    return bad


def _read_all(files: Sequence[Path], geometry: Geometry, workers: int) -> Iterator[np.ndarray | str]:
    """For each file in order its pixels, or what is wrong with it."""

    def read(file: Path) -> np.ndarray | str:
        try:
            return np.ascontiguousarray(geometry.read(file))
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for start in range(0, len(files), 256):  # no more than these wait in memory
            yield from pool.map(read, files[start : start + 256])


def _fingerprint(files: Sequence[Path], geometry: Geometry) -> str:
    """Changes with the geometry and with every file's name, size, permissions and time of change."""
    digest = hashlib.sha256(repr(geometry).encode())
    for file in files:
        stat = file.stat()
        digest.update(f"{file.resolve()}\0{stat.st_size}\0{stat.st_mode}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]


def cache_folder(beside: Path) -> Path:
    """$CNNZOO_CACHE, else a hidden folder within the data set, else (where that cannot be written) ~/.cache/cnnzoo."""
    if chosen := os.environ.get("CNNZOO_CACHE"):
        return Path(chosen)
    inside = beside / ".cnnzoo"
    place = inside if inside.exists() else beside
    if os.access(place, os.W_OK) and place.stat().st_mode & 0o222:  # root may write anywhere, but was not asked to
        return inside
    return Path.home() / ".cache" / "cnnzoo" / "decoded"
