"""Ctrl-C, SIGTERM and the end of a terminal, from which training goes on another day."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cnnzoo.errors import Interrupted


class StopSignals:
    """Ctrl-C, SIGTERM and SIGHUP. Once training asks whether to stop, it ends its step and saves; before that, while
    photos are decoded, say, there is nothing to save, and Interrupted is raised at once. A second signal stops in any
    case.
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


def _stopping() -> Iterator[signal.Signals]:
    yield from (signal.SIGINT, signal.SIGTERM)
    hangup = getattr(signal, "SIGHUP", None)  # the terminal is gone; Windows has none
    if hangup and signal.getsignal(hangup) == signal.SIG_DFL:  # else nohup, say, has it ignored
        yield hangup


@contextmanager
def stop_on_signals() -> Iterator[StopSignals]:
    """What signals say meanwhile."""
    signals = StopSignals()
    before = {number: signal.signal(number, signals.catch) for number in _stopping()}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def heard(should_stop: Callable[[], bool] | None) -> Iterator[Callable[[], bool]]:
    """What says whether to stop: `should_stop`; where it is None the signals, which a main thread alone can hear."""
    if should_stop is not None:
        yield should_stop
    elif threading.current_thread() is threading.main_thread():
        with stop_on_signals() as signals:
            yield signals.should_stop
    else:
        yield lambda: False
