"""The labelled images that a net is shown one by one: those of a data source, or those that a run was made with."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cnnzoo import config, whereabouts
from cnnzoo.checkpoint import run_of
from cnnzoo.config import AugmentConfig, DataConfig
from cnnzoo.data import sources
from cnnzoo.data.arrays import ArrayImages, Images, choose
from cnnzoo.data.decoded import cache_folder
from cnnzoo.data.preprocess import Preprocess
from cnnzoo.data.reading import Split
from cnnzoo.data.sources import Dataset
from cnnzoo.errors import InputError
from cnnzoo.models._committee import CommitteeNet
from cnnzoo.paths import expanded
from cnnzoo.telling import Tell, silent
from cnnzoo.transfer.features import Backbone
from cnnzoo.visualize.hooks import untouched
from cnnzoo.visualize.subject import Looked, Subject

UNKNOWN = -1  # the label of an image whose class is not known


@dataclass(frozen=True)
class Collection:
    """N images with labels."""

    source: str  # where they are from, for a person
    images: Images  # (N, H, W, C) uint8, as the net sees them
    labels: np.ndarray  # (N,) int64: places in `classes`, or UNKNOWN
    names: tuple[str, ...]
    classes: tuple[str, ...]
    cache: Path = Path()  # where what is derived from the images may be kept

    def __len__(self) -> int:
        return len(self.labels)

    def choose(self, places: np.ndarray) -> "Collection":
        """The images at `places`."""
        names = tuple(self.names[place] for place in places)
        return replace(self, images=choose(self.images, places), labels=self.labels[places], names=names)

    def some(self, many: int, seed: int = 0) -> "Collection":
        """At most so many, drawn by `seed`, in the order they had. Raises InputError for none."""
        if many < 1:
            raise InputError(f"{many} images are asked for, but there must be at least 1")
        if len(self) <= many:
            return self
        return self.choose(np.sort(np.random.default_rng(seed).permutation(len(self))[:many]))

    def evenly(self, many: int, seed: int = 0) -> "Collection":
        """At most so many, drawn by `seed`, equally many of each class as far as it has them, in the order they had."""
        rng = np.random.default_rng(seed)
        turns = np.empty(len(self), np.int64)  # in which an image is drawn: of each class one in each
        for label in np.unique(self.labels):
            own = np.flatnonzero(self.labels == label)
            turns[own] = rng.permutation(len(own))
        return self.choose(np.sort(np.argsort(turns, kind="stable")[:many]))

    def of_classes(self, kept: np.ndarray) -> "Collection":
        """The images of the classes `kept`, bool `(C,)`."""
        numbers = np.where(kept, kept.cumsum() - 1, UNKNOWN)
        some = self.choose(np.flatnonzero(kept[self.labels]))
        classes = tuple(name for name, keep in zip(self.classes, kept, strict=True) if keep)
        return replace(some, labels=numbers[some.labels], classes=classes)

    def class_of(self, place: int) -> str:
        """The name of an image's class; "" where it is not known."""
        label = self.labels[place]
        return "" if label == UNKNOWN else self.classes[label]


def opened(
    subject: Subject, data: str | None = None, root: str | None = None, tell: Tell = silent
) -> tuple[Collection, Collection | None]:
    """The images to look among, and others of the same classes to ask for, where the source holds them apart.

    Without `data` these are what the run was trained and what it was validated on. Of a source with images held out,
    such as a folder with train/ and val/ or a data set's own test images, they are the two parts; of any other, every
    image is in the first. `root` is where named sets lie, and `tell` is given a line on what was passed over.

    Raises InputError if a net that is no run is given no data, where the run's images are no longer there, and for
    a source without images.
    """
    if not isinstance(subject.preprocess, Preprocess):
        raise InputError(
            f"{subject.name} sees each image at several sizes, one for each of its nets; take one of these"
        )
    if data is None:
        parts, notes = _of_run(subject, root)
    else:
        parts, notes = _of_source(subject, DataConfig(source=data, root=root))
    for note in notes:
        tell(note)
    return parts


def _of_run(subject: Subject, root: str | None) -> tuple[tuple[Collection, Collection], tuple[str, ...]]:
    run = run_of(subject.net)
    if run is None:
        raise InputError(
            f"among which images? {subject.name} is no run that has its own; name a folder or a set by data=…"
        )
    own, split = whereabouts.find(run, config.read(run.config_file).data, None, str(run.path))
    once = {part: [*dict.fromkeys(names)] for part, names in split.items()}  # a bootstrap sample repeats some
    loaded = _loaded(subject, replace(own, weights=None, root=root or own.root), once)
    return _both(loaded, f"the training images of {run.path}", f"the validation images of {run.path}"), loaded.notes


def _of_source(subject: Subject, given: DataConfig) -> tuple[tuple[Collection, Collection | None], tuple[str, ...]]:
    if sources.has_held_out(given):
        loaded = _loaded(subject, given)
        return _both(loaded, f"{given.source}, to train on", f"{given.source}, held out"), loaded.notes
    part, classes, notes = sources.held_out(given, subject.preprocess, split=False)
    folder = expanded(given.source)
    cache = cache_folder(folder if folder.is_dir() else None)
    return (_collection(given.source, part, classes, cache), None), notes


def _loaded(subject: Subject, given: DataConfig, split: whereabouts.Names | None = None) -> Dataset:
    """Both parts in the size in which the net is judged."""
    seen = subject.preprocess
    return sources.load(given, AugmentConfig(), seen.size, seen.channels, seen, split=split)


def _both(loaded: Dataset, train: str, val: str) -> tuple[Collection, Collection]:
    own = loaded.classes, loaded.cache
    return _collection(train, loaded.train, *own), _collection(val, loaded.val, *own)


def _collection(source: str, part: Split, classes: tuple[str, ...], cache: Path) -> Collection:
    return Collection(source, part.images, part.labels, part.names, classes, cache)


def of_pictures(looked: Looked, among: Collection) -> Collection:
    """Pictures that somebody gave. One that lies in a folder of a class's name is of that class."""
    labels = np.full(len(looked.names), UNKNOWN)
    for place, name in enumerate(looked.names):
        with suppress(ValueError):
            labels[place] = among.classes.index(Path(name).parent.name)
    return replace(
        among, source="the pictures given", images=ArrayImages(looked.pixels), labels=labels, names=looked.names
    )


def expect_features(subject: Subject) -> None:
    """Raises InputError for a committee, before images are read for it."""
    if isinstance(subject.net, CommitteeNet):
        run = run_of(subject.net)
        raise InputError(
            f"{run.path if run else subject.name} is a committee, which has no features of its own to compare images "
            f"by; take the run of one of its members"
        )


def features(subject: Subject, *collections: Collection, tell: Tell = silent) -> list[np.ndarray]:
    """For each collection `(N, D)` float32, what the head sees of its images. They are kept in the cache of the first
    collection: each image goes through a net once in its life.

    Raises InputError for a net without a head of its own that could be left out.
    """
    with untouched(subject.net) as net:
        backbone = Backbone(net, subject.preprocess, collections[0].cache, tell)
        return [backbone.extract(each.images, what=f"features of {each.source}").plain for each in collections]
