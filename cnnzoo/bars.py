"""Bars of progress. A leaf that every room may import."""

import sys
from collections.abc import Iterable
from contextlib import suppress

from filelock import AcquireReturnProxy, BaseFileLock, Timeout
from tqdm import tqdm


def show(
    work: Iterable | None = None, desc: str | None = None, total: int | None = None, *, hidden: bool = False, **options
) -> tqdm:
    """A bar in text that leaves nothing behind: on a terminal and in a Jupyter kernel, nowhere else.

    Arguments are tqdm's, but for `hidden`: it is to show nowhere at all.
    """
    hidden = hidden or sys.stderr is None  # as where a process has no console, on Windows
    disable = hidden or None  # None: unless stderr is a terminal
    if type(sys.stdout).__module__.startswith("ipykernel."):  # no terminal, but a person looks on
        # A notebook marks what comes by stderr as if something was wrong, and keeps every stroke.
        options |= {"file": sys.stdout, "mininterval": 0.5}
        disable = hidden
    return tqdm(work, desc, total, leave=False, disable=disable, **options)


def take(lock: BaseFileLock, desc: str) -> AcquireReturnProxy:
    """Take a lock, to be given back as by `lock.acquire`; while another process holds it, a bar tells for how long."""
    with suppress(Timeout):
        return lock.acquire(timeout=1)
    with show(desc=f"{desc}: waiting for another process", bar_format="{desc} ({elapsed})") as bar:
        while True:
            bar.update()
            with suppress(Timeout):
                return lock.acquire(timeout=1)
