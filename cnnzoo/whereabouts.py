"""Where the images that a run learnt from and was judged on lie now: they may have been moved since."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cnnzoo import zoo
from cnnzoo.checkpoint import Run
from cnnzoo.config import DataConfig
from cnnzoo.data import listed, sources
from cnnzoo.data.found import MANY_MISSING
from cnnzoo.data.preprocess import normalise
from cnnzoo.errors import InputError
from cnnzoo.train.validation import logits

SOME = 8  # images by which a folder that was moved is known again

Names = dict[str, list[str]]  # what images to train on ("train") and to judge by ("val") are called


def find(run: Run, own: DataConfig, data: str | None, called: str) -> tuple[DataConfig, Names | None]:
    """The data named, or if None is, what the run was trained on; and where these are the run's `own` images, under the
    name that they have now, their split: else None.

    Raises InputError if none is named, and the run's own are neither where they were nor beside the run.
    """
    if sources.is_there(own.source):
        if data is None or _same(data, own.val_source or own.source):
            return own, run.split
        return DataConfig(source=data), None
    # It may have been moved since, or be named from where the run was begun: a folder that its own lies within.
    for place in [data] if data else [str(folder / own.source) for folder in run.path.resolve().parents]:
        if split := _moved(run, own, place):
            return replace(own, source=place), split
    if data is None:
        raise InputError(f"{own.source}, on which {called} was trained, is not here; name images by data=…")
    return DataConfig(source=data), None


def _same(data: str, source: str) -> bool:
    """Whether two names mean the same source: a folder or a file may be spelt in many ways."""
    if data == source or not sources.NAMED.keys().isdisjoint((data, source)):
        return data == source
    a, b = Path(os.path.expanduser(data)), Path(os.path.expanduser(source))
    return a.exists() and b.exists() and a.samefile(b)


def _moved(run: Run, own: DataConfig, place: str) -> Names | None:
    """What the images of a run's split are called in another folder, or beside another table; None unless these are
    the run's images: most of them are there by their names, and its net says the same of some as when it was trained.
    """
    if own.val_source or run.is_cross_fitted or not (run.is_finished and sources.is_there(place)):
        return None
    before, now = (
        listed.home_of(source) if listed.is_source(source) else Path(os.path.expanduser(source))
        for source in (own.source, place)
    )
    split = run.split
    try:
        moved = {name: now / Path(name).relative_to(before) for part in split.values() for name in part}
    except ValueError:  # they were none of a folder's
        return None
    if sum(not file.exists() for file in moved.values()) > MANY_MISSING * len(moved):
        return None
    now_called = {part: [str(moved[name]) for name in names] for part, names in split.items()}
    return now_called if _says_the_same(run, now_called["val"]) else None


def _says_the_same(run: Run, files: Sequence[str]) -> bool:
    """Whether the logits of the run's net for some of the files are those that it has kept of them all."""
    net = zoo.load(run)
    seen, places, pixels = zoo.preprocessing(net), [], []
    for place, file in enumerate(files):
        with suppress(InputError):  # it is gone, or cannot be read any more
            pixels.append(seen.pixels(file))
            places.append(place)
        if len(places) == SOME:
            break
    if not places:
        return False
    images = normalise(torch.from_numpy(np.stack(pixels)), seen.mean, seen.std)
    now, _ = logits(net, [(images, torch.zeros(len(places)))])
    then = torch.from_numpy(run.predictions[0][places])
    return torch.allclose(now, then, rtol=0.1, atol=0.1 * then.std().item())
