"""How any room says something to a person: through a function that it is given. A leaf that every room may import."""

import os
import re
import shlex
import subprocess
from collections.abc import Callable

Tell = Callable[[str], None]  # takes a line

ON_WINDOWS = os.name == "nt"


def silent(line: str) -> None:
    """A `Tell` for which nobody listens."""


def as_typed(*words: object, windows: bool = ON_WINDOWS) -> str:
    """Words of a command, quoted as this machine's shell takes them: on Windows single quotes mean nothing."""
    words = list(map(str, words))
    return " ".join(map(_for_windows, words)) if windows else shlex.join(words)


def _for_windows(word: str) -> str:
    quoted = subprocess.list2cmdline([word])  # as programs take words apart, not as shells do: R&D stays bare
    return quoted if quoted[0] == '"' or re.fullmatch(r"[\w\\/:.=+~-]+", word) else f'"{quoted}"'


def words_typed(text: str, windows: bool = ON_WINDOWS) -> list[str]:
    """The words of a text as a shell would take them; on Windows the backslashes of paths are themselves. Raises
    ValueError for a quote that does not end.
    """
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    if windows:
        lexer.escape = ""
    return list(lexer)
