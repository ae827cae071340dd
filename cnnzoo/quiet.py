"""Libraries that tell their developers a lot, silenced. A leaf."""

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile

_lock = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """This thread neither logs nor warns. What is printed meanwhile, by whichever thread, comes afterwards; if the
    block fails, it is lost: torch's C++ prints the whole graph of a net that it cannot export.

    One thread at a time, since torch's exporters cannot be entered twice.
    """
    with _lock, warnings.catch_warnings(), _unlogged(), _held(1), _held(2):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _held(descriptor: int) -> Iterator[None]:
    """What is written there meanwhile comes afterwards, unless the block fails."""
    if sys.stdout is not None:  # as it is where a process has no console, on Windows, or has closed it
        sys.stdout.flush()
    has_failed = True
    with TemporaryFile() as text:
        copy = None
        with suppress(OSError):  # it is closed
            copy = os.dup(descriptor)
            os.dup2(text.fileno(), descriptor)
        try:
            yield
            has_failed = False
        finally:
            if copy is not None:
                os.dup2(copy, descriptor)
                os.close(copy)
                text.seek(0)
                with suppress(OSError), open(descriptor, "wb", closefd=False) as there:
                    there.write(b"" if has_failed else text.read())


@contextmanager
def _unlogged() -> Iterator[None]:
    """No handler hears this thread."""
    here = threading.get_ident()
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = [h for logger in loggers if isinstance(logger, logging.Logger) for h in logger.handlers]
    handlers += filter(None, [logging.lastResort])

    def is_another(record: logging.LogRecord) -> bool:
        return record.thread != here

    for handler in handlers:
        handler.addFilter(is_another)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_another)
