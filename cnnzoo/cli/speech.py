"""What commands say and hear: lines for a person, numbers between commas, how a stopped one ends."""

import errno
import os
import signal
import sys
from typing import NoReturn, TextIO

from cnnzoo.checkpoint import Run
from cnnzoo.errors import InputError, Interrupted
from cnnzoo.signals import StopSignals
from cnnzoo.telling import Tell, as_typed


def rank() -> str:
    """The number of this process among those that torchrun started; 0 of the only one, whoever else may set RANK."""
    return os.environ.get("RANK", "0") if os.environ.get("WORLD_SIZE", "1") != "1" else "0"


def is_first() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one."""
    return rank() == "0"


def tell(line: str) -> None:
    """A line for a person, at once, by the first of a team's processes."""
    if is_first():
        _say(line, sys.stdout)


def aside(line: str) -> None:
    """A line for a person, beside what the command gives."""
    _say(line, sys.stderr)


def _say(line: str, stream: TextIO) -> None:
    """Nothing that is said may end what is being done: the reader or the terminal may be gone, or the disk full."""
    try:
        print(line, file=stream, flush=True)
    except OSError as error:
        if error.errno != errno.ENOSPC:  # there may be room again
            hush(stream)


def hush(stream: TextIO) -> None:
    """Whatever else is said there, nobody reads it any more."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def csv_of(result) -> str:
    """A result's CSV to be printed. Where CSV has its own ends of lines, Windows would end them once more."""
    return result.to_csv().replace("\r\n", "\n").removesuffix("\n")


def one_form(**asked: bool) -> None:
    """Raises InputError where a result is to be printed in more than one form."""
    forms = [f"--{form}" for form, is_asked in asked.items() if is_asked]
    if len(forms) > 1:
        raise InputError(f"{' and '.join(forms)} are different forms of what is printed; give one of them")


def go_on_with(run, say: Tell = tell) -> None:
    """What a finished run is good for."""
    path = as_typed(run.path)
    uses = (f"predict {path} PHOTOS", f"evaluate {path}", f"export {path} --out FILE")
    say(f"go on with: {', '.join(f'cnnzoo {use}' for use in uses)}")


def numbers(option: str, text: str, kind: type = float) -> list:
    """What an option gives between commas."""
    try:
        return [kind(number) for number in text.split(",")]
    except ValueError:
        what = "whole numbers between commas, such as 2,4" if kind is int else "a number, or several between commas"
        raise InputError(f"{option} is {text}, but must be {what}") from None


def stopped(signals: StopSignals, interrupted: Interrupted, again: str) -> NoReturn:
    """End the command, and tell how to go on: by `again`, where a state was saved."""
    number = signals.caught or signal.SIGTERM  # which another process of the team caught
    folder = interrupted.folder
    if folder is None or not Run(folder).state_file.exists():
        tell(f"stopped by {number.name} before the first step; give the same command again")
    elif interrupted.unsaved:
        older = f"what was saved before is kept; when there is room again, go on by: {again}"
        tell(f"stopped by {number.name}; the latest steps could not be saved ({interrupted.unsaved}), {older}")
    else:
        tell(f"stopped by {number.name} and saved; go on by: {again}")
    sys.exit(128 + number)
