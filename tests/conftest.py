"""What several tests share."""

import gc
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import photos
import pytest
import torch

import cnnzoo
from cnnzoo.cli import main
from cnnzoo.train import forms

ROOT = Path(__file__).parent.parent

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker for each core: more threads would only wait for each other
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # in the processes that tests start

# A GPU is for test_cuda.py, since the others know figures of the CPU to many digits. CNNZOO_TEST_DEVICE=auto gives it
# to all, which shows how far each of them is true there, too.
GPU, VISIBLE = torch.cuda.is_available(), os.environ.get("CUDA_VISIBLE_DEVICES")
if os.environ.get("CNNZOO_TEST_DEVICE") != "auto":
    torch.cuda.is_available = lambda: False
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # to the processes that tests start: this one has looked already

# Processes that begin with everything imported, which is most of what a short one takes.
PRELOADED = multiprocessing.get_context("forkserver")
PRELOADED.set_forkserver_preload(["torch._dynamo", "sklearn.datasets", "cnnzoo.report"])


def pytest_collection_finish() -> None:
    """The garbage collector need not look at all that was imported again and again, nor at the tests themselves."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Where the real data sets lie."""
    root = os.environ.get("CNNZOO_DATA")
    if not root:
        pytest.skip("CNNZOO_DATA does not say where the real data sets lie")
    return Path(root)


@pytest.fixture(autouse=True, scope="session")
def decoded_elsewhere(tmp_path_factory):
    """Nothing is written into anybody's data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNZOO_CACHE", str(tmp_path_factory.mktemp("decoded")))
        yield


BRIEF = 120.0  # seconds of a run below which no precision is tried here: on a busy machine a run of one takes many


@pytest.fixture(autouse=True, scope="session")
def as_on_a_quiet_machine():
    """Runs that are compared compute alike, however long each took."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "BRIEF", BRIEF)
        yield


@pytest.fixture
def net() -> torch.nn.Module:
    """Small, with BatchNorm, in train mode, of three kinds of pictures."""
    torch.manual_seed(0)
    net = cnnzoo.create("resnet20", num_classes=3)
    net.classes = photos.KINDS
    return net


@pytest.fixture
def x() -> torch.Tensor:
    """Two images as that net takes them."""
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder of class folders, twelve pictures in each."""
    return photos.folder(tmp_path_factory.mktemp("pictures") / "photos")


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A file of weights for resnet20."""
    return photos.weights(tmp_path_factory.mktemp("weights") / "resnet20.pth")


@pytest.fixture
def in_float64():
    """Whoever imports torch has told it to compute in float64, where nobody says otherwise."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def no_report(monkeypatch):
    """For tests that look at no report: to draw one takes longer than the whole of so small a run."""
    from cnnzoo.report import page  # here, since matplotlib takes a while to import

    monkeypatch.setattr(page, "render", lambda *_: "")


class Said(NamedTuple):
    """What a command gave back and said."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder; returns exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        return Said(main(list(map(str, arguments))), *capsys.readouterr())

    return run


@pytest.fixture
def fails(cli):
    """Run a command that must fail; returns the one line that says why."""

    def run(*arguments: object) -> str:
        code, _, err = cli(*arguments)
        assert code == 2
        assert err.startswith("cnnzoo: error: ")
        assert len(err.splitlines()) == 1
        return err.removeprefix("cnnzoo: error: ").strip()

    return run


@pytest.fixture
def elsewhere(tmp_path):
    """Start a command in a process of its own, which writes what it says into `out` and `err`."""

    started = []

    def start(*arguments: object, first: Callable | None = None):
        process = PRELOADED.Process(target=_speak, args=(list(map(str, arguments)), tmp_path, first))
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


def _speak(arguments: list[str], folder: Path, first: Callable | None) -> None:
    for number, name in ((1, "out"), (2, "err")):
        with open(folder / name, "w") as file:
            os.dup2(file.fileno(), number)
    forms.BRIEF = BRIEF
    if first:
        first()
    sys.exit(main(arguments))
