"""What to say when the input is wrong, and how words are chosen for it. A leaf that every room may import."""

import difflib
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from numbers import Integral
from pathlib import Path


class InputError(ValueError):
    """The user's input is wrong, and the message says what, where and what to do.

    The command line prints it in one line. Options are spelt as in Python, `run=…` or `mode='head'`, which it
    turns into --run and --mode head.
    """


class Interrupted(BaseException):
    """The run was asked to stop (Ctrl-C, SIGTERM, SIGHUP).

    Its state is saved in the run folder, unless `unsaved` says why it could not be; before there is a run, `folder` is
    None. Like KeyboardInterrupt it is no Exception, so that nothing takes it for a failure to go on after, as a
    cross-validation does.
    """

    def __init__(self, folder: Path | None = None, unsaved: str = ""):
        super().__init__(folder, unsaved)
        self.folder, self.unsaved = folder, unsaved

    def __str__(self) -> str:
        if self.folder is None:
            return "stopped before the first step, so that nothing is lost"
        kept = f"the latest steps could not be saved ({self.unsaved})" if self.unsaved else "saved"
        return f"stopped; {kept}; go on by cnnzoo.train(resume={str(self.folder)!r})"


def counted(many: int, thing: str, things: str = "") -> str:
    """As a person says it: 1 photo, 2,000 photos; `things` is the plural where adding an s does not form it."""
    return f"{many:,} {thing if many == 1 else things or f'{thing}s'}"


def dimensions(shape: Iterable[int]) -> str:
    """As a person writes a size: 3x224x224."""
    return "x".join(map(str, shape))


def printable(name: str) -> str:
    """A file's name, with what the locale left undecoded read as UTF-8, and replaced where it is none, so that it can
    be printed.
    """
    return name.encode("utf-8", sys.getfilesystemencodeerrors()).decode(errors="replace")


def composed(text: str) -> str:
    """The same text wherever it was written: macOS spells an umlaut with two code points, which here become one."""
    return unicodedata.normalize("NFC", text)


def one_line(text: str) -> str:
    """A text that is `printable`, whose control characters, such as ends of lines and a terminal's commands, are spelt
    out: a file's name may have any.
    """
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda sign: repr(sign[0])[1:-1], printable(text))


def faults(bad: Mapping[object, str]) -> str:
    """What is wrong with which files, those with the same fault together; the first ten of each, and ten faults."""
    by_fault: dict[str, list[str]] = {}
    for file, fault in bad.items():
        by_fault.setdefault(fault, []).append(str(file))
    told = []
    for fault, files in by_fault.items():
        more = f" and {len(files) - 10:,} more" if len(files) > 10 else ""
        told.append(f"{', '.join(files[:10])}{more}: {fault}")
    others = f"; and {counted(len(told) - 10, 'other fault')}" if len(told) > 10 else ""
    return f"{'; '.join(told[:10])}{others}"


def near(word: str, known: Iterable[str], many: int = 2) -> list[str]:
    """The names among `known` that `word` most likely meant, best first."""
    by_folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_folded, n=many, cutoff=0.65)  # of three letters one may be wrong
    return [by_folded[match] for match in close]


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """How a message on an unknown word ends: in "; did you mean resnet18 or resnet34?", or where nothing is near, in
    "; " and what is said `otherwise`.
    """
    matches = near(word, known)
    hint = f"did you mean {' or '.join(matches)}?" if matches else otherwise
    return f"; {hint}" if hint else ""


def unknown(kind: str, word: object, known: Iterable[str]) -> InputError:
    """An error for a name nobody knows, or what is no name, offering the near ones, or all when they are few."""
    known = list(known)
    told = f"known: {', '.join(known)}" if known else "there is none"
    otherwise = told if len(known) <= 16 else f"there are {len(known)}, none like it"
    return InputError(f"unknown {kind} {quoted(word)}{did_you_mean(str(word), known, otherwise)}")


def quoted(value: object) -> str:
    """A value as messages quote it: what is long, such as a net, by its kind alone."""
    text = repr(value)
    return text if len(text) <= 80 and "\n" not in text else f"an object of class {type(value).__name__}"


def expect(value: object, kinds: type | tuple[type, ...], wanted: str) -> None:
    """Raises InputError that says what is wanted, where a value is of none of the kinds."""
    if not isinstance(value, kinds):
        raise InputError(f"{wanted}, not {quoted(value)}")


def at_least(key: str, value: object, least: int = 1) -> None:
    """Raises InputError if an option is no whole number, or below the least."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise InputError(f"{key} is {quoted(value)}, but must be a whole number of at least {least}")
