"""From image files to class names: a bad file keeps its row and says why."""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from cnnzoo import zoo
from cnnzoo.checkpoint import Run
from cnnzoo.data.preprocess import EXTENSIONS, Preprocess, normalise
from cnnzoo.device import pick_device
from cnnzoo.errors import InputError


@dataclass(frozen=True)
class Predictions:
    """A row for each image, in the order asked for."""

    files: tuple[str, ...]
    probabilities: np.ndarray  # (N, K) float32; rows of images that could not be read are NaN
    errors: tuple[str, ...]  # what is wrong with an image, "" where nothing is
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def top(self, many: int) -> list[list[tuple[str, float]]]:
        """For each image its most likely classes with their probabilities, most likely first; empty where there is an
        error.
        """
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :many]
        rows = zip(order, self.probabilities, self.errors, strict=True)
        return [[] if error else [(self.classes[k], float(p[k])) for k in best] for best, p, error in rows]

    def to_csv(self, many: int = 5) -> str:
        """Columns file, top1 …, prob1 …, error."""
        many = min(many, len(self.classes))
        text = io.StringIO()
        writer = csv.writer(text)
        numbers = range(1, many + 1)
        writer.writerow(["file", *(f"top{n}" for n in numbers), *(f"prob{n}" for n in numbers), "error"])
        for file, best, error in zip(self.files, self.top(many), self.errors, strict=True):
            best = best or [("", None)] * many
            probabilities = ("" if p is None else f"{p:.6f}" for _, p in best)
            writer.writerow([file, *(name for name, _ in best), *probabilities, error])
        return text.getvalue()


def predict(
    model_or_run: nn.Module | Run | str | Path,
    images: Sequence[str | Path | np.ndarray],
    *,
    batch_size: int = 64,
    device: str | None = None,
) -> Predictions:
    """Class probabilities for files, folders of files, PIL images or uint8 arrays.

    A file that cannot be read keeps its row, with the reason in `errors`. Images stream, so thousands fit. A module
    stays on its device unless `device` names another; a run goes to the best one there is.
    """
    net = model_or_run if isinstance(model_or_run, nn.Module) else zoo.load(model_or_run)
    preprocess = zoo.preprocessing(net)
    classes = getattr(net, "classes", None) or tuple(map(str, range(net.num_classes)))
    items = list(_expand(images))
    probabilities = np.full((len(items), len(classes)), np.nan, np.float32)
    errors = [""] * len(items)
    if net is not model_or_run or device is not None:
        net = net.to(pick_device(device or "auto"))
    where = next(net.parameters()).device
    training = net.training
    net.eval()
    try:
        with (
            torch.inference_mode(),
            tqdm(total=len(items), desc="predicting", unit="image", leave=False, disable=None) as bar,
        ):
            for start, pixels in _batches(items, preprocess, batch_size):
                good = []
                for place, image in enumerate(pixels, start):
                    if isinstance(image, str):
                        errors[place] = image
                    else:
                        good.append(place)
                if good:
                    batch = torch.from_numpy(np.stack([pixels[place - start] for place in good])).to(where)
                    probabilities[good] = (
                        net(normalise(batch, preprocess.mean, preprocess.std)).float().softmax(1).cpu().numpy()
                    )
                bar.update(len(pixels))
    finally:
        net.train(training)
    names = tuple(str(item) if isinstance(item, str | Path) else f"image {i}" for i, item in enumerate(items))
    return Predictions(names, probabilities, tuple(errors), tuple(classes))


def _expand(images: Sequence) -> Iterator:
    """Folders become the image files in them."""
    for item in images:
        if isinstance(item, str | Path) and Path(item).is_dir():
            inside = sorted(
                file for file in Path(item).rglob("*") if file.suffix.lower() in EXTENSIONS and file.is_file()
            )
            if not inside:
                raise InputError(f"{item} holds no images")
            yield from inside
        else:
            yield item


def _batches(items: list, preprocess: Preprocess, batch_size: int) -> Iterator[tuple[int, list[np.ndarray | str]]]:
    """The place of each batch's first item, and for each item its pixels or what is wrong with it; one batch is read
    ahead.
    """

    def read(item) -> np.ndarray | str:
        try:
            return preprocess.pixels(item)
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ahead = None
        for start in range(0, len(items), batch_size):
            futures = [pool.submit(read, item) for item in items[start : start + batch_size]]
            if ahead:
                yield ahead[0], [future.result() for future in ahead[1]]
            ahead = start, futures
        if ahead:
            yield ahead[0], [future.result() for future in ahead[1]]
