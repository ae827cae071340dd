"""What several tests share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


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
