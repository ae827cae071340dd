"""A side of a benchmark in a process of its own: on a CPU, how one side uses memory is then no other side's matter."""

import multiprocessing
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection


class Apart:
    """Called, it lets its process do the work of the side that `make(*args)` gave there, and waits for it.

    Raises RuntimeError with the other process's error where that failed.
    """

    def __init__(self, make: Callable[..., Callable[[], object]], *args):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, args))
        self._process.start()
        theirs.close()
        self._wait()  # until it is ready

    def __call__(self) -> None:
        self._pipe.send("work")
        self._wait()

    def _wait(self) -> None:
        try:
            trouble = self._pipe.recv()
        except EOFError:
            trouble = "the process of a side ended"
        if trouble:
            self.close()
            raise RuntimeError(trouble)

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, make: Callable[..., Callable[[], object]], args: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the process that asks
    try:
        side = make(*args)
        pipe.send("")
        while True:
            pipe.recv()
            side()
            pipe.send("")
    except EOFError:  # nobody asks any more
        pass
    except Exception as error:
        pipe.send("".join(traceback.format_exception_only(error)))
