"""`python -m cnnzoo` is `cnnzoo`."""

import sys
from collections.abc import Sequence


def run(arguments: Sequence[str] | None = None) -> int:
    """What `cli.main` does; Ctrl-C while it is still being imported, which takes seconds, also ends in one line."""
    try:
        from cnnzoo.cli import main

        return main(arguments)
    except KeyboardInterrupt:
        print("cnnzoo: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
