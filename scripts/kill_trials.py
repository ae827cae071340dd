"""Stop a run at random moments, go on with it, and compare its weights with those of an uninterrupted run.

    python scripts/kill_trials.py kill       # SIGKILL of the only process, then --resume
    python scripts/kill_trials.py term       # SIGTERM, then --resume
    python scripts/kill_trials.py worker     # SIGKILL of one of two processes under torchrun, which starts them anew

20 trials each take five to ten minutes on two cores. The run saves by the clock inside its epochs too, so that it is
stopped mid-epoch, mid-save and between the two. Its weights must be those of as many processes that nobody stopped, bit
for bit.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from cnnzoo.checkpoint import Run

OPTIONS = ("--augment.rotation", 10, "--augment.shift", 0.1, "--train.ema", "auto")
LENGTH = ("--train.epochs", 12, "--train.batch_size", 32, "--train.checkpoint_minutes", 0.005)
SCRIPT = Path(__file__).parent / "train.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "--max-restarts", 3, "--")


def start(*options: object, team: bool = False) -> subprocess.Popen:
    line = [sys.executable, *(TORCHRUN if team else ()), SCRIPT, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(list(map(str, line)), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    state, _ = Run(folder).load_state()
    return state["model"]


def apart(a: dict, b: dict) -> float:
    """The largest difference; infinite where the two do not hold the same."""
    return max((a[k] - b[k]).abs().max().item() for k in a) if a.keys() == b.keys() else float("inf")


def stop(process: subprocess.Popen, kind: str) -> None:
    if kind == "worker":
        workers = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, encoding="utf-8"
        ).stdout.split()
        if workers:
            os.kill(int(random.choice(workers)), signal.SIGKILL)
    else:
        process.send_signal(signal.SIGKILL if kind == "kill" else signal.SIGTERM)
    process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("kill", "term", "worker"), nargs="?", default="kill")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    team = arguments.kind == "worker"
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        started = time.monotonic()
        if start("--run", whole, *OPTIONS, *LENGTH, team=team).wait():
            sys.exit("the uninterrupted run failed")
        took = time.monotonic() - started
        expected, good = final_weights(whole), 0
        for trial in range(arguments.trials):
            run = Path(folder) / f"trial{trial}"
            process = start("--run", run, *OPTIONS, *LENGTH, team=team)
            while not (run / "config.yaml").exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(random.uniform(0, took / 2))
            ended = process.poll() is not None
            stop(process, arguments.kind)
            place = "before its first save"
            if team:
                place = f"torchrun ended with {process.returncode}"
            elif (run / "last.pt").exists() or (run / "last.prev.pt").exists():
                progress = Run(run).load_state()[0]["progress"]
                place = f"last saved after epoch {progress['epoch']}, step {progress['step']}"
            if not team:
                start("--resume", run).wait()
            difference = apart(expected, final_weights(run))
            good += difference == 0
            early = "had ended already" if ended else "stopped"
            same = "equal" if difference == 0 else f"DIFFERENT by up to {difference:.2g}"
            print(f"trial {trial + 1}: {early}, {place}; {same}", flush=True)
    print(f"{good} of {arguments.trials} ended in the weights they would have had")
    return good != arguments.trials


if __name__ == "__main__":
    sys.exit(main())
