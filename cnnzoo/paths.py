"""Where a path leads that a person wrote. A leaf that every room may import."""

import os
from pathlib import Path


def expanded(path: str | os.PathLike) -> Path:
    """The same path with ~ as the home folder. A ~name that nobody is called stays as it is, where Path.expanduser
    raises RuntimeError: a folder may be called so.
    """
    return Path(os.path.expanduser(path))
