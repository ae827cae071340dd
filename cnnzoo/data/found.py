"""What a source holds, before any decoding or scaling, and how it is divided into training and validation images."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from cnnzoo.config import DataConfig
from cnnzoo.data import groups
from cnnzoo.errors import InputError, counted, near
from cnnzoo.paths import expanded

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = 64  # pixels of a side, up to which a picture is taken whole
TRAIN = ("train", "training")  # what a part to train on may be called, in any case
HELD_OUT = ("val", "valid", "validation", "test", "testing")  # and one to judge by, the first that is there counting
MANY_MISSING = 0.1  # share of its images that a run which goes on may lack


@dataclass(frozen=True)
class Part:
    """Some of a source's images, as they were found."""

    images: np.ndarray | Sequence  # (N, H, W, C) uint8, or files, or pictures of any kinds and sizes
    labels: np.ndarray
    names: tuple[str, ...]
    groups: np.ndarray | None = None  # (N,) int64, see `groups.numbered`; None: no groups given

    def choose(self, indices: np.ndarray) -> "Part":
        images = self.images[indices] if isinstance(self.images, np.ndarray) else [self.images[i] for i in indices]
        own = None if self.groups is None else self.groups[indices]
        return Part(images, self.labels[indices], tuple(self.names[i] for i in indices), own)

    def joined(self, other: "Part") -> "Part":
        """The images of both, these first; in one array where both are and in one size."""
        shapes = [part.images.shape[1:] if isinstance(part.images, np.ndarray) else None for part in (self, other)]
        alike = None not in shapes and shapes[0] == shapes[1]
        images = np.concatenate([self.images, other.images]) if alike else [*self.images, *other.images]
        own = None if self.groups is None else np.concatenate([self.groups, other.groups])
        return Part(images, np.concatenate([self.labels, other.labels]), self.names + other.names, own)

    def among(self, own: Sequence[str], classes: Sequence[str], wrong: str, remedy: str = "") -> "Part":
        """The same images, labelled by places in `classes` where they were labelled by places in `own`.

        Raises InputError with `wrong`, the classes that are missing, and the command that goes on without them.
        """
        if missing := sorted(set(own) - set(classes)):
            meant = {name: " or ".join(near(name, classes)) for name in missing}
            told = [f"{name} (did you mean {like}?)" if like else name for name, like in meant.items()]
            without = f"; or go on without them in a copy: {remedy}" if remedy else ""
            raise InputError(f"{wrong}: {', '.join(told)}{without}")
        places = np.array([classes.index(name) for name in own], dtype=np.int64)
        return replace(self, labels=places[self.labels])


@dataclass(frozen=True)
class Found:
    """What a source holds, or the images that somebody has at hand."""

    classes: tuple[str, ...]
    train: Part
    val: Part | None  # None: to be split off
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()
    home: Path | None = None  # of the files, if it is files

    def divided(self, config: DataConfig, keep_lone: bool = False) -> "Found":
        """The same images, `val_fraction` of each class held out, or a fold of it; of images in groups whole groups.

        With `keep_lone` nothing is held out of a class of one image or one group, for which else InputError is raised.
        """
        self._check_divisible(config, keep_lone)
        part = self.train
        held_out = self._held_out(config) if part.groups is None else self._held_out_groups(config, keep_lone)
        return replace(self, train=part.choose(np.flatnonzero(~held_out)), val=part.choose(np.flatnonzero(held_out)))

    def _check_divisible(self, config: DataConfig, keep_lone: bool) -> None:
        """Raises InputError for a class of too few images, or groups of them."""
        part, source = self.train, config.source
        images = np.bincount(part.labels, minlength=len(self.classes))
        units, unit = images, "image"
        if part.groups is not None:
            units, unit = groups.groups_of_classes(part.labels, part.groups, len(self.classes)), "group"
        for name, many, own in zip(self.classes, images, units, strict=True):
            if many < 2 and not keep_lone:
                has = f"class {name!r} of {source} has {'one image only' if many else 'no image'}"
                raise InputError(f"{has}; it needs two, one to train and one to validate on")
            if own < 2 and not keep_lone:
                raise InputError(
                    f"class {name!r} of {source} has all its {many:,} images in one group of data.groups, so none can "
                    f"be held out; it needs two groups, one to train and one to validate on"
                )
            if own < (config.folds or 0):
                has = counted(own, unit)
                raise InputError(f"class {name!r} of {source} has {has}, too few for {config.folds} folds")

    def _held_out(self, config: DataConfig) -> np.ndarray:
        """`(N,)` bool: the images to hold out."""
        part, rng = self.train, np.random.default_rng(config.split_seed)
        val: list[int] = []
        for label in range(len(self.classes)):
            own = np.flatnonzero(part.labels == label)
            many = min(max(round(config.val_fraction * len(own)), 1), len(own) - 1)
            mixed = rng.permutation(own)
            val += (mixed if config.folds else mixed[:many]).tolist()
        if config.folds:  # dealt out in turn through all classes, so that folds are as equal as classes are within them
            val = val[config.fold :: config.folds]
        held_out = np.zeros(len(part.labels), dtype=bool)
        held_out[val] = True
        return held_out

    def _held_out_groups(self, config: DataConfig, keep_lone: bool) -> np.ndarray:
        """`(N,)` bool: the images to hold out, of each group all or none."""
        labels, own = self.train.labels, self.train.groups
        if config.folds:
            held_out = np.zeros(len(labels), dtype=bool)
            held_out[groups.folds(labels, own, config.folds, config.split_seed)[config.fold][1]] = True
        else:
            rng = np.random.default_rng(config.split_seed)
            held_out = groups.share(labels, own, config.val_fraction, rng)
        every, trained, judged = (set(each.tolist()) for each in (labels, labels[~held_out], labels[held_out]))
        if lacking := every - trained if keep_lone or (config.folds and judged) else every - (trained & judged):
            raise InputError(
                f"the groups that data.groups finds in {config.source} cannot be divided so that class "
                f"{self.classes[min(lacking)]!r} is both trained and judged on; take smaller groups, another "
                f"data.split_seed or fewer data.folds"
            )
        return held_out

    def holding_out(self, names: Collection[str], source: str) -> "Found":
        """The same, with the images of these names to validate on. Raises InputError if there are none of them."""
        wanted = set(names)
        parts = [part for part in (self.val, self.train) if part is not None]
        chosen = [part.choose(np.flatnonzero([name in wanted for name in part.names])) for part in parts]
        chosen = [part for part in chosen if part.names]
        if not chosen:
            raise InputError(f"{source} no longer holds any of the {counted(len(wanted), 'image')} that were held out")
        val = chosen[0] if len(chosen) == 1 else chosen[0].joined(chosen[1])
        gone = len(wanted) - len(val.names)
        note = f"{gone:,} of the {counted(len(wanted), 'image')} that were held out are no longer in {source}"
        return replace(self, val=val, notes=(*self.notes, note) if gone else self.notes)

    def divided_as(self, split: Mapping[str, Sequence[str]], source: str) -> "Found":
        """The images of an earlier split, by their names in "train" and "val", whatever has come and gone since.

        New images are left out, and classes that have no others. For a missing one to train on another stands in, of
        its class where its folder tells that, under its name, so that a run goes on in the same order; of those held
        out the others are left.

        Raises InputError if too many are missing.
        """
        if self.val is not None and (self.train.names, self.val.names) == (tuple(split["train"]), tuple(split["val"])):
            return self
        whole = self.train if self.val is None else self.train.joined(self.val)
        places = {name: place for place, name in enumerate(whole.names)}
        wanted = dict.fromkeys((*split["train"], *split["val"]))
        missing = [name for name in wanted if name not in places]
        train = _with_stand_ins(whole, places, split["train"])
        lone = [name for name, place in zip(split["train"], train, strict=True) if place is None]
        held_out = [places[name] for name in split["val"] if name in places]
        if lone or not held_out or len(missing) > MANY_MISSING * len(wanted):
            raise InputError(
                f"{source} no longer holds {len(missing):,} of the {len(wanted):,} images that the run was begun with, "
                f"such as {(lone or missing)[0]}; put them back, or begin a new run"
            )
        notes = self.notes
        if missing:
            such = "" if len(missing) == 1 else f" and {len(missing) - 1:,} more"
            notes += (f"missing since the run was begun: {missing[0]}{such}; it goes on with others in their place",)
        if new := len(places.keys() - wanted):
            notes += (f"left out: {counted(new, 'image')} of {source} that the run was not begun with",)
        old = whole.labels[[place for name, place in places.items() if name in wanted]]
        stays = ~np.isin(np.arange(len(self.classes)), np.setdiff1d(whole.labels, old))
        whole = replace(whole, labels=(np.cumsum(stays) - 1)[whole.labels])
        return replace(
            self,
            classes=tuple(name for name, kept in zip(self.classes, stays, strict=True) if kept),
            train=replace(_chosen(whole, train, self.train), names=tuple(split["train"])),
            val=_chosen(whole, held_out, self.val or self.train),
            notes=notes,
        )


def _chosen(whole: Part, places: Sequence[int], like: Part) -> Part:
    """The images at `places`, in one array as in `like`, though the whole be no array: a set judged on photos."""
    part = whole.choose(np.array(places))
    apart = isinstance(like.images, np.ndarray) and not isinstance(part.images, np.ndarray)
    return replace(part, images=np.stack(part.images)) if apart else part


def _with_stand_ins(whole: Part, places: Mapping[str, int], names: Sequence[str]) -> list[int | None]:
    """The places of the images to train on; in that of a missing photo the place of another of its class, as its folder
    tells, of any where that holds several (a table's photos), and None where there is no other.
    """
    labels, any_class = {}, -1
    for name, label in zip(whole.names, whole.labels.tolist(), strict=True):
        folder = os.path.dirname(name)
        labels[folder] = label if labels.setdefault(folder, label) == label else any_class
    of_class = defaultdict(list)  # photos that are there
    for place in (places[name] for name in dict.fromkeys(names) if name in places):
        if isinstance(whole.images[place], Path):
            of_class[int(whole.labels[place])].append(place)
            of_class[any_class].append(place)
    found = []
    for number, name in enumerate(names):
        others = () if name in places else of_class[labels.get(os.path.dirname(name))]
        found.append(places.get(name, others[number % len(others)] if others else None))
    return found


def photo_resize(size: int) -> int:
    """The side that photos are resized to: the net sees their centre 7/8, or small ones whole."""
    return round(size * 8 / 7) if size > SMALL else size


def photos(
    classes: Sequence[str], train: Part, val: Part | None, home: Path | None, notes: tuple[str, ...] = ()
) -> Found:
    """Colour photos in files of any size."""
    return Found(tuple(classes), train, val, 3, IMAGENET_MEAN, IMAGENET_STD, notes, home)


def at_hand(
    images: np.ndarray | Sequence[str | Path | Image.Image | np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    name: str,
    given: Iterable | None = None,
) -> Found:
    """Images that somebody has in memory, or files of theirs; `labels` `(N,)` are places in `classes`, and those with
    the same value in `given` `(N,)` belong together, see `groups.of_values`.
    """
    names = tuple(str(x) if isinstance(x, str | Path) else f"{name}/{i}" for i, x in enumerate(images))
    channels = 1 if all(map(_is_grey, images)) else 3
    if isinstance(images, np.ndarray):
        images = images.reshape(*images.shape[:3], -1)
    else:
        images = [expanded(image) if isinstance(image, str) else image for image in images]
    own = None if given is None else groups.of_values(given)
    return Found(tuple(classes), Part(images, labels, names, own), None, channels, IMAGENET_MEAN, IMAGENET_STD)


def _is_grey(image: str | Path | Image.Image | np.ndarray) -> bool:
    if isinstance(image, Image.Image):
        return Image.getmodebase(image.mode) == "L"
    return isinstance(image, np.ndarray) and image.shape[2:] in ((), (1,))
