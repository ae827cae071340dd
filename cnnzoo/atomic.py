"""Files that appear whole or not at all. A leaf."""

import secrets
from collections.abc import Iterator
from pathlib import Path


def beside(path: Path, ending: str = "part") -> Path:
    """A hidden name next to `path`, to be filled and then renamed to it, that nobody else uses: neither another thread
    nor the process of the same number in another container.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.{ending}")


def left_beside(path: Path) -> Iterator[Path]:
    """The names that `beside` gave for this path and that were neither renamed nor removed."""
    return path.parent.glob(f".{path.name}.*.part")
