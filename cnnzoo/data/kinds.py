"""What kind of source a name stands for, where its images lie, and who finds them."""

import os
from collections.abc import Sequence
from pathlib import Path

from cnnzoo.config import DataConfig
from cnnzoo.data import folders, hugging_face, listed, shards
from cnnzoo.data.found import Found
from cnnzoo.data.named import NAMED
from cnnzoo.errors import InputError, did_you_mean
from cnnzoo.paths import expanded

SET, HUGGING_FACE, SHARDS, TABLE, FOLDER = "set by name", "Hugging Face's", "shards", "table", "folder of photos"
_KNOWN_BY_THEIR_NAMES = {HUGGING_FACE: hugging_face, SHARDS: shards, TABLE: listed}


def kind_of(source: str) -> str:
    """One of the five; what is nothing else is a folder, whether it exists or not."""
    if source in NAMED:
        return SET
    return next((kind for kind, room in _KNOWN_BY_THEIR_NAMES.items() if room.is_source(source)), FOLDER)


def find(config: DataConfig) -> Found:
    """What `config.source` holds. Raises InputError where it is not there, may not be read, or holds nothing usable."""
    source, folder = config.source, _place(config.source)
    kind = kind_of(source)
    if kind == SET:
        return NAMED[source](config)
    if kind == TABLE:
        return listed.find(source, config.groups)
    if kind != FOLDER:
        return _KNOWN_BY_THEIR_NAMES[kind].find(source)
    if os.path.isdir(folder):
        return folders.find(folder)
    if os.path.dirname(source) or os.path.exists(folder):
        raise InputError(f"data.source: {folders.no_folder(folder)}")
    known = [*NAMED, *folders.beside(folder), *listed.beside(folder)]
    hint = did_you_mean(source, known, f"sets by name: {', '.join(NAMED)}")
    raise InputError(f"data.source {source!r} is neither a known set nor a folder{hint}")


def is_there(source: str) -> bool:
    """Whether a name stands for a source, and where it is a folder or a table, for one that exists and may be seen."""
    kind, place = kind_of(source), _place(source)
    return os.path.isfile(place) if kind == TABLE else os.path.isdir(place) if kind == FOLDER else True


def folder_of(source: str) -> Path | None:
    """The folder of photos that a source is; None for all others."""
    folder = _place(source)
    return folder if os.path.isdir(folder) and kind_of(source) == FOLDER else None


def is_of_photos(source: str) -> bool:
    """Whether a source is a folder of photos, or a table that lists some."""
    return folder_of(source) is not None or kind_of(source) == TABLE


def is_list(source: str) -> bool:
    """Whether a source is a table, or shards: files that hold images or name them, beside which others may lie."""
    return kind_of(source) in (TABLE, SHARDS)


def in_full(source: str) -> str:
    """A source's name, which of a folder or a table is the same wherever one stands."""
    return str(_place(source).resolve()) if is_of_photos(source) else source


def homes(config: DataConfig) -> dict[str, str]:
    """What the names of the images to train on ("train") and to judge by ("val") begin with where these are files:
    the folder that they were found in. Empty for other sources.
    """
    train, val = (_home(source) for source in (config.source, config.val_source or config.source))
    return {} if train is None or val is None else {"train": train, "val": val}


def names_within(names: Sequence[str], home: str | None) -> Sequence[str]:
    """What images are called as seen from their home, wherever that lies; those that have none as before."""
    return names if home is None else [Path(os.path.relpath(name, home)).as_posix() for name in names]


def _home(source: str) -> str | None:
    kind, place = kind_of(source), _place(source)
    if kind == HUGGING_FACE:
        place = hugging_face.saved(source)
    if kind == SET or place is None:
        return None
    if kind == TABLE:
        place = Path(os.path.normpath(place.parent))  # as the names of its photos are
    elif kind == SHARDS:
        place = place.parent
    return "" if place == Path() else f"{place.as_posix().rstrip('/')}/"


def _place(source: str) -> Path:
    return expanded(source)
