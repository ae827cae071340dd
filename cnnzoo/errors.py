"""What to say when the input is wrong. A leaf that every room may import."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The user's input is wrong, and the message says what, where and what to do.

    The command line prints it in one line.
    """


class Interrupted(Exception):
    """The run was asked to stop (Ctrl-C, SIGTERM) and has saved its state in the run folder that the message names."""


def near(word: str, known: Iterable[str], many: int = 2) -> list[str]:
    """The names among `known` that `word` most likely meant, best first."""
    by_folded = {name.lower(): name for name in known}
    return [by_folded[match] for match in difflib.get_close_matches(word.lower(), by_folded, n=many, cutoff=0.7)]


def unknown(kind: str, word: str, known: Iterable[str]) -> InputError:
    """An error for a name nobody knows, offering the near ones, or all when they are few."""
    known = list(known)
    if matches := near(word, known):
        hint = f"did you mean {' or '.join(matches)}?"
    elif len(known) <= 12:
        hint = f"known: {', '.join(known)}"
    else:
        hint = f"there are {len(known)}, none like it"
    return InputError(f"unknown {kind} {word!r}; {hint}")
