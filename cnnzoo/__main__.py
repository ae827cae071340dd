"""`python -m cnnzoo` is `cnnzoo`."""

import gc
import sys
from collections.abc import Sequence

SELDOM = 50_000, 20, 20  # of new objects until Python looks for garbage; 700, 10, 10 by default


def run(arguments: Sequence[str] | None = None) -> int:
    """What `cli.main` does; Ctrl-C while it is still being imported, which takes seconds, also ends in one line.

    Libraries bring a million objects, none of which is garbage, and Python would look at them again and again.
    """
    gc.set_threshold(*SELDOM)
    try:
        from cnnzoo.cli import main

        return main(arguments)
    except KeyboardInterrupt:
        print("cnnzoo: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
