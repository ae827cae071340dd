"""SIGKILL a run at random moments, resume it, and compare its weights with an uninterrupted run's, bit for bit.

    python scripts/kill_trials.py            # 20 trials: about five minutes on two cores

The run saves by the clock inside its epochs too, so that it is killed mid-epoch, mid-save and between the two.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from cnnzoo.checkpoint import Run

OPTIONS = ("--model.drop_rate", 0.2, "--augment.rotation", 10, "--augment.shift", 0.1)
LENGTH = ("--train.epochs", 12, "--train.batch_size", 32, "--train.checkpoint_minutes", 0.005)


def start(*options: object) -> subprocess.Popen:
    line = [sys.executable, "-m", "cnnzoo", "train", *map(str, options)]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    state, _ = Run(folder).load_state()
    return state["model"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        if start("--run", whole, *OPTIONS, *LENGTH).wait():
            sys.exit("the uninterrupted run failed")
        expected = final_weights(whole)
        equal = 0
        for trial in range(arguments.trials):
            run = Path(folder) / f"trial{trial}"
            process = start("--run", run, *OPTIONS, *LENGTH)
            while not (run / "config.yaml").exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 6))
            process.send_signal(signal.SIGKILL)
            process.wait()
            place = "before its first save"
            if (run / "last.pt").exists() or (run / "last.prev.pt").exists():
                progress = Run(run).load_state()[0]["progress"]
                place = f"last saved after epoch {progress['epoch']}, step {progress['step']}"
            start("--resume", run).wait()
            weights = final_weights(run)
            same = weights.keys() == expected.keys() and all(torch.equal(weights[k], expected[k]) for k in weights)
            equal += same
            print(f"trial {trial + 1}: killed, {place}; resumed: {'equal' if same else 'DIFFERENT'}", flush=True)
    print(f"{equal} of {arguments.trials} equal bit for bit")
    return equal != arguments.trials


if __name__ == "__main__":
    sys.exit(main())
