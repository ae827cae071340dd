"""Libraries that tell their developers a lot, silenced. A leaf."""

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_lock = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is printed (torch's C++ prints the whole graph of a net that it cannot export), logged or warned of.

    One thread at a time: where output goes is the process's, and torch's exporters cannot be entered twice.
    """
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        kept = {}
        if sys.stdout is not None:  # as it is where a process has no console, on Windows, or has closed it
            sys.stdout.flush()
        for descriptor in (1, 2):
            with suppress(OSError):
                kept[descriptor] = os.dup(descriptor)
        try:
            with open(os.devnull, "wb") as nowhere:
                for descriptor in kept:
                    os.dup2(nowhere.fileno(), descriptor)
            yield
        finally:
            for descriptor, copy in kept.items():
                os.dup2(copy, descriptor)
                os.close(copy)
            logging.disable(level)
