"""What the libraries print of a net that is exported is nobody's business; what other threads say is."""

import logging
import os
import sys
import threading
import warnings

import pytest
import torch
from torch import nn

import cnnzoo
from cnnzoo.quiet import quiet

LOG = logging.getLogger("of a server")
BARE = logging.getLogger("of a script")


@pytest.fixture
def speaking(monkeypatch):
    """A thread of a server, that prints and logs a line whenever it is told to and tells when it has."""
    lines, turn, done = [], threading.Semaphore(0), threading.Semaphore(0)

    def serve() -> None:
        while turn.acquire() and (line := lines[-1]):
            print(line, flush=True)
            LOG.warning(line)
            done.release()

    def speak(line: str) -> None:
        lines.append(line)
        turn.release()
        if line:
            done.acquire()

    thread = threading.Thread(target=serve)
    thread.start()
    yield speak
    speak("")
    thread.join()


def test_other_threads_are_heard(speaking, capfd, caplog):
    with quiet():
        speaking("meanwhile")
        logging.getLogger("library").error("of the library")
        warnings.warn("of the library", stacklevel=1)
    assert "meanwhile" in capfd.readouterr().out
    assert [record.message for record in caplog.records] == ["meanwhile"]


@quiet()
def say(and_fail: bool) -> None:
    os.write(1, b"of the library\n")
    BARE.warning("logged")
    if and_fail:
        raise ValueError("it failed")


def test_what_is_said_comes_afterwards_unless_it_fails(capfd, monkeypatch):
    monkeypatch.setattr(BARE, "propagate", False)  # as where nobody has set up logging, and Python prints warnings
    with pytest.raises(ValueError, match="it failed"):
        say(and_fail=True)
    assert capfd.readouterr() == ("", "")
    say(and_fail=False)
    assert capfd.readouterr() == ("of the library\n", "")


def test_what_was_said_before_comes_before(capfd, monkeypatch):
    with open(1, "w", closefd=False) as stdout:  # as where it is a file, into which Python writes by the block
        monkeypatch.setattr(sys, "stdout", stdout)
        print("before")
        say(and_fail=False)
    assert capfd.readouterr().out == "before\nof the library\n"


class WithoutExport(nn.Module):
    """ONNX has no such operator, so torch's exporter prints the graph."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.linalg.matrix_exp(x[:, :, :3, :3].contiguous()).mean((2, 3)))


def test_a_net_that_cannot_be_exported_is_no_news(capfd):
    net = WithoutExport().eval()
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(cnnzoo.optimize(net, "fp32")(x), net(x))
    assert capfd.readouterr() == ("", "")
