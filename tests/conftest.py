"""What several tests share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker for each core: more threads would only wait for each other
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # in the processes that tests start


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


@pytest.fixture
def command(tmp_path):
    """Run the installed command line in a process of its own, in an empty folder."""

    def run(*arguments: object, **options) -> subprocess.CompletedProcess:
        line = [sys.executable, "-m", "cnnzoo", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
        return subprocess.run(
            line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, **options
        )

    return run
