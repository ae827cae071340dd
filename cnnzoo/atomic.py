"""Files that appear whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cnnzoo.errors import InputError


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
        os.replace(part, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(part)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """See to it that what was written to a file is on the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def write(path: Path, content: bytes | memoryview) -> None:
    """Replace a file by `content`, whole or not at all. Raises OSError that names it."""
    with replacing(path) as part:
        part.write_bytes(content)


def check_writable(path: Path) -> None:
    """Raises InputError where no file can be written at `path`, whose folder need not be there yet."""
    folder = next(each for each in path.absolute().parents if each.exists())
    probe = beside(folder / path.name)
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
