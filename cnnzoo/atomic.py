"""Files, and folders, that appear whole or not at all."""

import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cnnzoo.errors import InputError, expect
from cnnzoo.paths import expanded

_HELD = (5, 32)  # on Windows: access denied, sharing violation


def beside(path: Path, ending: str = "part") -> Path:
    """A hidden name next to `path`, to be filled and then renamed to it, that nobody else uses: neither another thread
    nor the process of the same number in another container.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.{ending}")


@contextmanager
def replacing(path: Path, ending: str = "part") -> Iterator[Path]:
    """A file to write, of that ending, which takes the place of `path` once it is whole and on the disk, and is gone
    where that fails. Raises OSError that names `path`.
    """
    part = beside(path, ending)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        sync(part)
        rename(part, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(part)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with suppress(OSError):  # it is gone, or never was
            part.unlink()


def rename(part: Path, path: Path) -> None:
    """Give a file the name of another, whose place it takes. On Windows that waits for a virus scanner, or what copies
    files to a cloud, to let go of a file that has just been written.
    """
    for pause in (0.05, 0.1, 0.2, 0.4, 0.8):
        try:
            return os.replace(part, path)
        except PermissionError as error:
            if getattr(error, "winerror", None) not in _HELD:
                raise
        time.sleep(pause)
    return os.replace(part, path)


def sync(path: Path) -> None:
    """See to it that what was written to a file is on the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def write(path: Path, content: bytes | memoryview) -> None:
    """Replace a file by `content`, whole or not at all. Raises OSError that names it."""
    with replacing(path) as part:
        part.write_bytes(content)


def check_writable(path: Path) -> None:
    """Raises InputError if no file can be written at `path`, whose folder need not be there yet."""
    folder = next(each for each in path.absolute().parents if each.exists())
    probe = beside(folder / path.name)
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror})") from None


def room(dest: str | Path, *outside: str | Path) -> Path:
    """The folder that copies are to make. Raises InputError if it holds something, or lies in one of the folders
    `outside` of which it is to be, so that one knows before any work.
    """
    expect(dest, (str, os.PathLike), "copies are made in a folder")
    dest = expanded(dest)
    for folder in outside:
        if dest.resolve().is_relative_to(expanded(folder).resolve()):
            raise InputError(f"{dest} lies within {folder}; copies need a folder elsewhere")
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise InputError(f"{dest} exists already; copies need a new folder")
    return dest


def free_name(stem: str, ending: str, taken: Counter) -> str:
    """A name that is not taken yet, by a number if need be, and is from now on; X.JPG and x.jpg are one on macOS and
    Windows. `taken` counts how often each was asked for, from where on a number may be free.
    """
    wanted = name = f"{stem}{ending}"
    while taken[name.casefold()]:
        taken[wanted.casefold()] += 1
        name = f"{stem}_{taken[wanted.casefold()]}{ending}"
    taken[name.casefold()] += 1
    return name


@contextmanager
def appearing(dest: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name of `dest`, where there is nothing, when it is full, and is gone where that
    fails. Raises InputError where that is for want of room, or rights.
    """
    whole = dest.resolve()  # a link stays one, and what it leads to is filled
    part = beside(whole)
    try:
        part.mkdir(parents=True)
        yield part
        if whole.exists():
            whole.rmdir()  # which was empty
        os.replace(part, whole)
    except OSError as error:
        raise InputError(f"{dest} could not be filled and was not made: {error.strerror or error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
