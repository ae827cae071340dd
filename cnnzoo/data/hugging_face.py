"""Data sets of Hugging Face's library: hf:NAME of the Hub, hf:FOLDER of photos, or a folder that save_to_disk has left.

Which column has the images and which the classes is told by their types.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnzoo.data.decoding import Stored
from cnnzoo.data.found import HELD_OUT, Found, Part, photos
from cnnzoo.errors import InputError
from cnnzoo.paths import expanded

PREFIX = "hf:"
STATE = "state.json"  # of what save_to_disk has written, by whose fingerprint it is known again


def is_source(source: str) -> bool:
    return source.startswith(PREFIX) or saved(source) is not None


def saved(source: str) -> Path | None:
    """The folder into which save_to_disk has written a source; None for all others."""
    folder = expanded(source.removeprefix(PREFIX))
    return folder if any(os.path.isfile(folder / name) for name in (STATE, "dataset_dict.json")) else None


def find(source: str) -> Found:
    """The images and classes of a data set. Raises InputError if it cannot be loaded or lacks them."""
    data = _load(source)
    splits = dict(data) if isinstance(data, dict) else {"train": data}
    if not splits:
        raise InputError(f"{source} holds nothing: it has no split")
    if "train" not in splits and len(splits) > 1:
        raise InputError(f"{source} has the splits {', '.join(splits)}, but none is called train")
    train_name = "train" if "train" in splits else next(iter(splits))
    folder = saved(source)
    called = folder.as_posix() if folder else source
    classes, train = _part(splits[train_name], f"{called}/{train_name}")
    if (train.labels < 0).any():
        raise InputError(f"{source}: {int((train.labels < 0).sum())} images of {train_name} have no class")
    home = expanded(source.removeprefix(PREFIX))
    home, val, notes = home if home.is_dir() else None, None, ()
    for name in HELD_OUT:
        if name in splits and name != train_name:
            val_classes, part = _part(splits[name], f"{called}/{name}")
            if (part.labels >= 0).all():
                val = part.among(val_classes, classes, f"{source} has classes in {name} that {train_name} lacks")
                break
            notes += (f"{name} of {source} passed over, since its classes are not told",)
    return photos(classes, train, val, home, notes)


@dataclass(frozen=True, eq=False)
class _Row(Stored):
    rows: Any  # a Dataset of nothing but encoded images
    column: str
    place: int
    name: str

    def __str__(self) -> str:
        return self.name

    def read_bytes(self) -> bytes:
        image = self.rows[self.place][self.column]
        if image is None:
            raise FileNotFoundError
        return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()

    def stamp(self) -> str:
        return f"{self.rows._fingerprint}\0{self.place}"


def _load(source: str) -> Any:
    try:
        import datasets
    except ImportError:
        wanted = 'pip install "cnnzoo[datasets]" brings'
        raise InputError(f"data.source {source} needs Hugging Face's datasets, which {wanted}") from None
    name = source.removeprefix(PREFIX)
    folder = expanded(name)
    try:
        if saved(source):
            return datasets.load_from_disk(str(folder))
        return datasets.load_dataset(str(folder) if folder.exists() else name)
    except (OSError, ValueError, RuntimeError, LookupError, datasets.exceptions.DatasetsError) as error:
        why = " ".join(str(error.__cause__ or error).split())  # the library's own words seldom name a file's trouble
        raise InputError(f"data.source {source} cannot be loaded by Hugging Face's datasets: {why}") from None


def _part(data: Any, name: str) -> tuple[tuple[str, ...], Part]:
    import datasets

    image = _column(data, datasets.Image, name, "images", "cast_column(…, Image())")
    label = _column(data, datasets.ClassLabel, name, "classes", "class_encode_column(…)")
    rows = data.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    labels = np.array([-1 if x is None else x for x in data[label]], dtype=np.int64)
    images = [_Row(rows, image, place, f"{name}/{place}") for place in range(len(labels))]
    return tuple(data.features[label].names), Part(images, labels, tuple(map(str, images)))


def _column(data: Any, kind: type, name: str, what: str, remedy: str) -> str:
    found = [column for column, feature in data.features.items() if isinstance(feature, kind)]
    if len(found) != 1:
        several = f"several columns of {what} ({', '.join(found)}); keep one by its select_columns"
        none = f"no column of {what} among {', '.join(data.features)}; make one by its {remedy}"
        raise InputError(f"{name} has {several if found else none}, and save it by save_to_disk")
    return found[0]
