"""Where the images that a run learns from and is judged on lie now: they may have been moved, or copied, since."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cnnzoo import config as config_
from cnnzoo.checkpoint import Run
from cnnzoo.config import DataConfig
from cnnzoo.data import hugging_face, kinds
from cnnzoo.data.decoded import real_paths
from cnnzoo.data.named import NAMED
from cnnzoo.errors import InputError
from cnnzoo.telling import Tell, as_typed, silent

SOME = 8  # images of a part, by which it is known again
_LOOKED_AT = 2**20  # bytes of a file

Names = dict[str, list[str]]  # what images to train on ("train") and to judge by ("val") are called


def remember(run: Run, split: Mapping[str, Sequence[str]], homes: Mapping[str, str]) -> None:
    """Write a run's split.json: its images' names, what these begin with (`kinds.homes`) in which working directory,
    and marks of some files by which they are known again elsewhere.
    """
    marks = {part: dict(_marked(split[part])) for part in homes}
    run.write("split.json", json.dumps({**split, "homes": dict(homes), "cwd": os.getcwd(), "marks": marks}))


def _marked(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Some of the names, evenly spread, each with its file's mark."""
    for name in dict.fromkeys(names[place * len(names) // SOME] for place in range(SOME)):
        if mark := _mark(name):
            yield name, mark


def _mark(name: str) -> str | None:
    """What tells an image's file, or the shard or the saved data set that it lies in, from others; None where there is
    none.
    """
    path = Path(name)
    known_by = (file for place in (path, *path.parents) for file in (place, place / hugging_face.STATE))
    file = next(filter(os.path.isfile, known_by), None)
    if file is None:
        return None
    try:
        with open(file, "rb") as content:
            start = content.read(_LOOKED_AT)
        return hashlib.sha256(b"%d " % file.stat().st_size + start).hexdigest()[:16]
    except OSError:
        return None


def renamed(run: Run, own: DataConfig, now: DataConfig) -> Names | None:
    """The split of a run that was begun on its `own` data, with the names that its images have where these lie `now`.

    None unless they are the run's: more than half of those that have a mark are there, and have it still.
    """
    told, homes = run.images, kinds.homes(now)
    before, marks = (told.get(key) if isinstance(told.get(key), dict) else {} for key in ("homes", "marks"))
    split = {part: told[part] for part in ("train", "val")}
    if not homes or not homes.keys() == before.keys() == marks.keys() or _lists(own) != _lists(now):
        return None
    for part, home in homes.items():
        if home == before[part] and (Path(home).is_absolute() or _stands_as_before(told)):
            continue
        known = [_mark(_moved(name, before[part], home)) == mark for name, mark in marks[part].items()]
        if 2 * sum(known) <= len(known):
            return None
        split[part] = [_moved(name, before[part], home) for name in split[part]]
    return split


def follow(run: Run, now: DataConfig, tell: Tell) -> bool:
    """Let a finished run, and its snapshots, say where their images lie now, if that is another place that holds them,
    so that what is made of the run finds them. Returns whether the run did not say so before.
    """
    own = config_.read(run.config_file)
    for number in range(1, len(own.cycle_ends) + 1):
        if (snapshot := run.snapshot(number)).is_finished:
            follow(snapshot, now, silent)
    if (own.data.source, own.data.val_source) == (now.source, now.val_source):
        return False
    split = renamed(run, own.data, now)
    if split is None or split == run.split:
        return False
    try:
        write_place(run, now, split)
    except OSError:  # a folder that may only be read
        return False
    tell(f"{now.source} holds the images of {run.path}, which are looked for there from now on")
    return True


def write_place(run: Run, now: DataConfig, split: Names) -> None:
    """Let a run folder say where its images lie now, and what they are called there."""
    own = config_.read(run.config_file)
    moved = replace(own, data=replace(own.data, source=now.source, val_source=now.val_source))
    if moved != own:
        run.write("config.yaml", config_.dump(moved))
    if split != run.split:
        remember(run, split, kinds.homes(now))


def is_otherwise(run: Run, own: DataConfig) -> bool:
    """Whether the source that a run names holds other images here, as a relative name may in another working directory:
    where it was begun photos may have changed, and are the run's still.
    """
    is_relative = any(not Path(home).is_absolute() for home in kinds.homes(own).values())
    return is_relative and not _stands_as_before(run.images) and renamed(run, own, own) is None


def expect_own(run: Run, own: DataConfig) -> None:
    """Raises InputError where the source that a run names holds other images here than it was begun with."""
    if is_otherwise(run, own):
        where = "resume it where it was begun, or say where its own lie now by data.source=…"
        raise InputError(f"{own.source} holds other images here than {run.path} was begun with; {where}")


def at_another_place(first: Run, second: Run) -> str | None:
    """What is wrong where two runs hold out the same images, but one of them names these where they lay before, or were
    copied from; None otherwise.
    """
    data = [config_.read(run.config_file).data for run in (first, second)]
    for one, other, own, now in ((first, second, *data), (second, first, *reversed(data))):
        place = {"source": now.source, "val_source": now.val_source}
        split = renamed(one, own, replace(own, **place))
        if split and set(real_paths(split["val"])) == set(real_paths(other.split["val"])):
            keys = [word for key, at in place.items() if at for word in (f"--data.{key}", at)]
            way = as_typed("cnnzoo", "train", "--resume", one.path, *keys)
            return f"{one.path} names the images of {other.path} at another place; let it know these by {way}"
    return None


def _stands_as_before(told: Mapping) -> bool:
    return told.get("cwd", os.getcwd()) == os.getcwd()


def _moved(name: str, before: str, home: str) -> str:
    """What an image is called whose home was another; a table's photos may lie beside its folder, as in ../photos."""
    inside = name.removeprefix(before) if name.startswith(before) else Path(os.path.relpath(name, before)).as_posix()
    return Path(os.path.normpath(home + inside)).as_posix() if inside.startswith("../") else home + inside


def _lists(data: DataConfig) -> list[str]:
    """What tables or shards are called, of which another in the same folder holds other images."""
    return [Path(s).name for s in (data.source, data.val_source) if s and kinds.is_list(s)]


def find(run: Run, own: DataConfig, data: str | None, called: str) -> tuple[DataConfig, Names | None]:
    """The data named, or if None is, what the run was trained on; and where these are the run's `own` images, under the
    names that they have now, their split: else None.

    Raises InputError if none is named, and the run's own are neither where they were nor beside the run.
    """
    is_there = kinds.is_there(own.source) and not is_otherwise(run, own)
    if is_there and (data is None or _same(data, own.val_source or own.source)):
        return own, renamed(run, own, own) or run.split
    if data is not None:
        now = replace(own, **{"val_source" if own.val_source else "source": data})
        if not _same(data, own.source) and (split := renamed(run, own, now)):
            return (now if is_there else replace(now, source=data, val_source=None)), split
        return DataConfig(source=data), None
    for folder in run.path.resolve().parents:  # it may be named from where the run was begun, which its own lies within
        now = replace(own, source=str(folder / own.source), val_source=own.val_source and str(folder / own.val_source))
        if kinds.is_there(now.source) and (split := renamed(run, own, now)):
            return now, split
    way = as_typed("cnnzoo", "train", "--resume", run.path, "--data.source")
    raise InputError(
        f"{own.source}, on which {called} was trained, is not here; name images by data=…, or say once for all where "
        f"its own lie now by {way} …"
    )


def _same(data: str, source: str) -> bool:
    """Whether two names mean the same source: a folder or a file may be spelt in many ways."""
    if data == source or not NAMED.keys().isdisjoint((data, source)):
        return data == source
    a, b = os.path.expanduser(data), os.path.expanduser(source)
    return os.path.exists(a) and os.path.exists(b) and os.path.samefile(a, b)
