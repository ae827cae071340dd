"""What somebody at a notebook sees: bars, lines, reprs, tables, pictures, and what TAB offers."""

import io
import sys

import pytest

import cnnzoo
from cnnzoo import bars


class Kernel(io.StringIO):
    """A stream such as a Jupyter kernel has: no terminal, but somebody looks on."""

    __module__ = "ipykernel.iostream"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "shows"), [(Kernel, True), (Terminal, True), (io.StringIO, False)])
def test_bars_show_on_a_terminal_and_in_a_notebook_and_leave_nothing(monkeypatch, stream, shows):
    monkeypatch.setattr(sys, "stderr", out := stream())
    assert [*bars.show(range(3), "counting")] == [0, 1, 2]
    assert [*bars.show(range(3), "counting", hidden=True)] == [0, 1, 2]
    assert out.getvalue().count("counting:   0%") == int(shows)
    assert out.getvalue().rpartition("\r")[2] == ""


def test_predicting_shows_its_bar_in_a_notebook(monkeypatch):
    import numpy as np

    monkeypatch.setattr(sys, "stderr", out := Kernel())
    cnnzoo.predict(cnnzoo.create("lenet5"), [np.zeros((32, 32), np.uint8)])
    assert "predicting" in out.getvalue()
