"""What several labs share: the shape of an answer, a photo, a run that leaves nothing, a sheet to draw on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import cnnzoo


@dataclass(frozen=True)
class Seen:
    """What an experiment saw with one seed."""

    held: bool  # whether it was as claimed
    told: str  # the figures, in one line for a person
    figures: dict  # the same for programs: texts, numbers, and lists and dictionaries of them
    pictures: dict[str, np.ndarray] = field(default_factory=dict)  # what the drawing shows beside the figures


def photo(seed: int, side: int) -> Tensor:
    """A window `(side, side)` float32, 0 to 1, of the grey form of the photo of a temple that scikit-learn carries;
    the seed says where it lies. `side` is at most 427.
    """
    from sklearn.datasets import load_sample_image  # here, since scikit-learn takes a while to import

    grey = load_sample_image("china.jpg") @ np.array([0.299, 0.587, 0.114]) / 255  # luma as in ITU-R BT.601
    rng = np.random.default_rng(seed)
    top, left = (rng.integers(length - side + 1) for length in grey.shape)
    return torch.from_numpy(grey[top : top + side, left : left + side]).float()


@contextmanager
def trained(config: dict) -> Iterator[cnnzoo.Run]:
    """The run that `cnnzoo.train` makes of a config, in a folder that is gone afterwards; so Ctrl-C saves nothing."""
    with TemporaryDirectory(prefix="cnnzoo-lab-") as folder:
        whole = {**config, "run": f"{folder}/run"}
        yield cnnzoo.train(whole, with_report=False, tell=lambda line: None, should_stop=lambda: False)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 1,797 digits, `(N, 8, 8)` uint8, and which they are, `(N,)` int64."""
    from sklearn.datasets import load_digits  # here, since scikit-learn takes a while to import

    found = load_digits()
    return (found.images * (255 / 16)).round().astype(np.uint8), found.target


def held_out(run: cnnzoo.Run, part: str = "val") -> tuple[Tensor, np.ndarray]:
    """The digits that a run of `data.source: digits` held out (or with "train" learnt from), `(B, C, H, W)` as its net
    sees them, and the labels.
    """
    (images, labels), preprocess = digits(), cnnzoo.load(run).preprocessing
    places = [int(name.rpartition("/")[2]) for name in run.split[part]]
    return torch.stack([preprocess(Image.fromarray(image)) for image in images[places]]), labels[places]


def sheet(rows: int, columns: int, width: float = 3.0, height: float = 3.0, **options):
    """A matplotlib Figure and its axes `(rows, columns)`, each so many inches; `options` are those of `subplots`."""
    from matplotlib.figure import Figure  # here, since matplotlib takes a while to import

    figure = Figure((width * columns, height * rows), dpi=110, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def show(axes, image: np.ndarray, title: str = "", **options):
    """An image `(H, W)` in grey, without ticks; `options` are those of `imshow`, which gives what is returned."""
    shown = axes.imshow(image, **{"cmap": "gray", "interpolation": "nearest", **options})
    axes.set_title(title, fontsize="small")
    axes.set_xticks([])
    axes.set_yticks([])
    return shown
