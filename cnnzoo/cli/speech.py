"""What commands say and hear: lines for a person, numbers between commas, signals."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from shlex import quote
from typing import NoReturn

from cnnzoo.checkpoint import Run
from cnnzoo.errors import InputError


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


def go_on_with(run, say: Callable[[str], None] = tell) -> None:
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


def stopped(number: signal.Signals, run: Run, again: str) -> NoReturn:
    """End the command, with a word on how to go on."""
    if run.state_file.exists():
        tell(f"stopped by {number.name} and saved; go on by: {again}")
    else:
        tell(f"stopped by {number.name} before the first step was saved; the same command begins anew")
    sys.exit(128 + number)


@contextmanager
def stop_on_signals() -> Iterator[list[signal.Signals]]:
    """The list that Ctrl-C and SIGTERM put themselves into, for the loop to see; a second one stops at once."""
    caught: list[signal.Signals] = []

    def catch(number: int, frame: object) -> None:
        caught.append(signal.Signals(number))
        signal.signal(number, before[number])

    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
