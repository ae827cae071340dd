"""The main job, start to end: train lenet5 on digits, then predict some held-out ones by the public command.

make demo
"""

import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from cnnzoo.checkpoint import Run
from cnnzoo.cli import main
from cnnzoo.telling import as_typed

RUN = Path("runs/demo")
PICTURES = Path("runs/demo_pictures")


def command(*arguments: str) -> None:
    """Show a command and run it."""
    print(f"\n$ cnnzoo {as_typed(*arguments)}", flush=True)
    if code := main(arguments):
        sys.exit(code)


def save_held_out(many: int) -> list[str]:
    """The first held-out digits as files whose names tell what they are."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    files = []
    for name in Run.open(RUN).split["val"][:many]:
        place = int(name.rpartition("/")[2])
        pixels = (digits.images[place] * (255 / 16)).round().astype(np.uint8)
        files.append(str(PICTURES / f"{place:04}_is_{digits.target[place]}.png"))
        Image.fromarray(pixels).save(files[-1])
    return files


if __name__ == "__main__":
    os.chdir(Path(__file__).parent.parent)
    if (RUN / "config.yaml").exists():  # an earlier demo: go on with it, which is quick when it is finished
        command("train", "--resume", str(RUN))
    else:
        command("train", "--config", "configs/lenet5_digits.yaml", "--run", str(RUN))
    command("predict", str(RUN), *save_held_out(10), "--top", "3")
    print(f"\nThe report, curves and mistakes included: {(RUN / 'report.html').resolve()}")
