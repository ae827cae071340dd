"""What a run ran on, as its environment.json says it."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from cnnzoo import __version__
from cnnzoo.telling import as_typed


def describe(device: torch.device, precision: str, processes: int = 1) -> dict:
    """What a run ran on, and the command that started it."""
    return {
        "cnnzoo": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device} ({platform.processor() or platform.machine()})",
        "threads": torch.get_num_threads(),
        "processes": processes,
        "precision": precision,
        "job": job(),
        "command": as_typed(_program(), *sys.argv[1:]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def resumed(before: dict, now: dict) -> dict:
    """What a run runs on now, with how it was begun, and each time that it was resumed."""
    keys = "command", "started"
    again = {key: now[key] for key in keys}
    return {**now, **{key: before.get(key) for key in keys}, "resumed": [*before.get("resumed", []), again]}


def job() -> str | None:
    """The id that torchrun gave to the job that this process belongs to; None without torchrun."""
    return os.environ.get("TORCHELASTIC_RUN_ID")


def _program() -> str:
    """What was started, as it can be started again."""
    name = Path(sys.argv[0]).name
    return "cnnzoo" if name == "__main__.py" else name


def _commit(home: Path = Path(__file__).parent.parent) -> str | None:
    """The commit of the cnnzoo that runs, if it runs from a git checkout. Else git is not asked: it would tell of a
    checkout in which the environment lies, and on a Mac without developer tools offer to install them.
    """
    if not (home / ".git").exists():
        return None
    command = ["git", "-C", str(home), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
