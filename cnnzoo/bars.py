"""Bars of progress. A leaf that every room may import."""

import sys
from collections.abc import Iterable

from tqdm import tqdm


def show(
    work: Iterable | None = None, desc: str | None = None, total: int | None = None, *, hidden: bool = False, **options
) -> tqdm:
    """A bar in text that leaves nothing behind: on a terminal and in a Jupyter kernel, nowhere else.

    Arguments are tqdm's, but for `hidden`: it is to show nowhere at all.
    """
    in_kernel = type(sys.stderr).__module__.startswith("ipykernel.")  # no terminal, but a person looks on
    disable = hidden or (False if in_kernel else None)  # None: unless it is a terminal
    return tqdm(work, desc, total, leave=False, disable=disable, **options)
