"""What commands say and hear: lines for a person, numbers between commas, signals."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from shlex import quote
from typing import NoReturn

from cnnzoo.checkpoint import Run
from cnnzoo.errors import InputError, Interrupted
from cnnzoo.telling import Tell


def is_first() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def tell(line: str) -> None:
    """A line for a person, at once, by the first of a team's processes."""
    if is_first():
        print(line, flush=True)


def aside(line: str) -> None:
    """A line for a person, beside what the command gives."""
    print(line, file=sys.stderr, flush=True)


def go_on_with(run, say: Tell = tell) -> None:
    """What a finished run is good for."""
    path = quote(str(run.path))
    uses = (f"predict {path} PHOTOS", f"evaluate {path}", f"export {path} --out FILE")
    say(f"go on with: {', '.join(f'cnnzoo {use}' for use in uses)}")


def numbers(option: str, text: str, kind: type = float) -> list:
    """What an option gives between commas."""
    try:
        return [kind(number) for number in text.split(",")]
    except ValueError:
        what = "whole numbers between commas, such as 2,4" if kind is int else "a number, or several between commas"
        raise InputError(f"{option} is {text}, but must be {what}") from None


class StopSignals:
    """Ctrl-C and SIGTERM. Once training asks whether to stop, it ends its step and saves; before that, while photos are
    decoded, say, there is nothing to save, and Interrupted is raised at once. A second signal stops in any case.
    """

    def __init__(self):
        self.caught: signal.Signals | None = None
        self._is_asked = False

    def should_stop(self) -> bool:
        self._is_asked = True
        return self.caught is not None

    def catch(self, number: int, frame: object) -> None:
        self.caught = signal.Signals(number)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if not self._is_asked:
            raise Interrupted


@contextmanager
def stop_on_signals() -> Iterator[StopSignals]:
    """What signals say meanwhile."""
    signals = StopSignals()
    before = {number: signal.signal(number, signals.catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped(signals: StopSignals, interrupted: Interrupted, again: str) -> NoReturn:
    """End the command, and tell how to go on: by `again`, where a state was saved."""
    number = signals.caught or signal.SIGTERM  # which another process of the team caught
    folder = interrupted.folder
    if folder is None or not Run(folder).state_file.exists():
        tell(f"stopped by {number.name} before the first step; the same command begins anew")
    elif interrupted.unsaved:
        older = f"what was saved before is kept; when there is room again, go on by: {again}"
        tell(f"stopped by {number.name}; the latest steps could not be saved ({interrupted.unsaved}), {older}")
    else:
        tell(f"stopped by {number.name} and saved; go on by: {again}")
    sys.exit(128 + number)
