"""How any room says something to a person: through a function that it is given. A leaf that every room may import."""

from collections.abc import Callable

Tell = Callable[[str], None]  # takes a line


def silent(line: str) -> None:
    """A `Tell` for which nobody listens."""
