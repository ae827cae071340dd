"""What one run says of images: from its folder where that is there, else made once and kept."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from cnnzoo import config
from cnnzoo.checkpoint import Run
from cnnzoo.data import sources
from cnnzoo.data.decoded import real_paths
from cnnzoo.errors import InputError
from cnnzoo.evaluate import judge
from cnnzoo.files import read_arrays, write_arrays
from cnnzoo.telling import Tell, silent


@dataclass(frozen=True)
class RunPredictions:
    """What one run says of images."""

    classes: tuple[str, ...]
    logits: np.ndarray  # (N, at least K)
    targets: np.ndarray  # (N,), places in classes
    images: tuple[str, ...]

    def aligned(self, classes: tuple[str, ...], images: tuple[str, ...]) -> "RunPredictions":
        """The same in another order of classes and images."""
        rows = [*range(len(images))]
        if images != self.images:
            place = {file: i for i, file in enumerate(real_paths(self.images))}
            rows = [place[file] for file in real_paths(images)]
        columns = [self.classes.index(name) for name in classes]
        of_class = np.array([classes.index(name) for name in self.classes], dtype=np.int64)
        return RunPredictions(classes, self.logits[rows][:, columns], of_class[self.targets[rows]], images)


def predictions(
    run: Run, data: str | None, key: str | None, root: str | None, device: str, tell: Tell
) -> RunPredictions:
    """A run's predictions of what it held out, or of `data`, whose fingerprint is `key`; `tell` is given a line where
    they must be made.
    """
    classes = tuple(run.card["classes"])
    if data is None and run.predictions_file.exists():
        logits, targets = run.predictions
        return RunPredictions(classes, logits, targets, tuple(run.split["val"]))
    key = key or sources.fingerprint(config.read(run.config_file).data)
    weights = hashlib.sha256(run.model_file.read_bytes()).hexdigest()
    file = run.path / f"predictions-{hashlib.sha256(f'{weights} {key}'.encode()).hexdigest()[:16]}.npz"
    with suppress(FileNotFoundError, InputError):  # damaged, they are made anew
        classes, logits, targets, images = read_arrays(file, "classes", "logits", "targets", "images")
        return RunPredictions(tuple(classes.tolist()), logits, targets, tuple(images.tolist()))
    tell(f"{run.path} has no predictions {f'of {data} ' if data else ''}yet, so they are made")
    judged = judge(run.path, data, root=root, device=device, tell=silent)
    made = RunPredictions(judged.classes, judged.outputs, judged.targets, judged.images)
    with suppress(OSError):  # a folder that may only be read: they are made again next time
        names = {"classes": np.array(made.classes), "images": np.array(made.images)}
        write_arrays(file, logits=made.logits.astype(np.float32), targets=made.targets, **names)
    return made
