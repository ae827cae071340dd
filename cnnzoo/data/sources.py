"""A source's name to images, labels and class names, divided into training and validation images."""

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from cnnzoo.config import AugmentConfig, DataConfig
from cnnzoo.data import folders, groups, kinds, reading
from cnnzoo.data.arrays import File
from cnnzoo.data.crops import Crops
from cnnzoo.data.decoded import cache_folder, real_paths, stamps
from cnnzoo.data.decoding import Stored, as_image
from cnnzoo.data.found import Found, Part, at_hand
from cnnzoo.data.named import REGISTERED
from cnnzoo.data.preprocess import Preprocess, Sheet
from cnnzoo.data.reading import Split, read
from cnnzoo.errors import InputError, counted, faults
from cnnzoo.paths import expanded
from cnnzoo.resampling import bootstrap


@dataclass(frozen=True)
class Dataset:
    """`train` may be larger than the net's input, for random crops; `val` is as `preprocess` makes it."""

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    preprocess: Preprocess
    notes: tuple[str, ...] = ()  # what a person should know: files left out, folders ignored
    cache: Path = Path()  # where what is derived from the images may be kept
    homes: Mapping[str, str] = field(default_factory=dict)  # see `kinds.homes`

    def split(self) -> dict[str, list[str]]:
        """Which images are in which part."""
        return {"train": list(self.train.names), "val": list(self.val.names)}

    @property
    def digest(self) -> str:
        """How many images there are, and in a few letters which, in which order, of which classes; the same wherever
        they lie.
        """
        digest = hashlib.sha256(repr(self.classes).encode())
        for which, part in (("train", self.train), ("val", self.val)):
            home = self.homes.get(which, "")
            for name in part.names:
                digest.update(os.fsencode(name.removeprefix(home)) + b"\0")
            digest.update(part.labels.tobytes())
        return f"{len(self.train)} + {len(self.val)}, sha256 {digest.hexdigest()[:8]}"


def expect_decoded(data: object) -> None:
    """Raises InputError for what is given as a `Dataset` and is none: a user's own images."""
    if not isinstance(data, Dataset | None):
        raise InputError(
            f"data is a {type(data).__name__}; give images of your own a name by cnnzoo.register_data(name, images, "
            f"labels), and that name to data.source"
        )


def load(
    config: DataConfig,
    augment: AugmentConfig,
    input_size: int,
    channels: int | None = None,
    preprocess: Preprocess | None = None,
    exactly: bool = False,
    split: Mapping[str, Sequence[str]] | None = None,
) -> Dataset:
    """The data set of a config, ready for training.

    `input_size` is the side the net takes where the config names none, `channels` what its first layer takes (None: the
    data's own), `preprocess` what its weights were trained with, if they were. `exactly`: training images are also
    looked at as evaluation sees them, and must have the same pixels then. `split` is that of a run that goes on
    (`Dataset.split`), whatever has come and gone since, see `Found.divided_as`.
    """
    if split is None:
        found = _found_and_split(config)
    else:
        found, config = _find(config).divided_as(split, config.source), replace(config, bag=None)  # which is drawn
    return _ready(found, config, augment, input_size, channels, preprocess, cache_folder(found.home), exactly)


def from_images(
    images: np.ndarray | Sequence[str | Path | Image.Image | np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    config: DataConfig,
    augment: AugmentConfig,
    input_size: int,
    channels: int | None = None,
    preprocess: Preprocess | None = None,
    *,
    decoded: Path,
    groups: Sequence | None = None,
) -> Dataset:
    """What `load` makes of a source, of images at hand; `config.source` is merely their name.

    `images` are a uint8 array `(N, H, W)` or `(N, H, W, C)`, or N files, PIL images and uint8 arrays of any sizes;
    `labels` `(N,)` int64 are places in `classes`, and those with the same value in `groups` `(N,)` belong together. A
    class of one image, or of one group, keeps it for training. The pixels of files are kept in the folder `decoded`,
    which must last as long as the data set.
    """
    found = _grouped(at_hand(images, labels, classes, config.source, groups), config).divided(config, keep_lone=True)
    if not len(found.val.labels):
        one = "one image" if groups is None else "one group"
        raise InputError(f"each class of {config.source} has {one} only, so there is none to validate on")
    return _ready(found, config, augment, input_size, channels, preprocess, decoded, exactly=True)


def _ready(
    found: Found,
    config: DataConfig,
    augment: AugmentConfig,
    input_size: int,
    channels: int | None,
    preprocess: Preprocess | None,
    decoded: Path,
    exactly: bool,
) -> Dataset:
    """What was found and split, read and scaled; the pixels of files are kept in `decoded`."""
    channels = channels or (preprocess.channels if preprocess else found.channels)
    if channels not in (1, 3):
        raise InputError(f"images have 1 or 3 channels, but model.in_chans is {channels}")
    _check_classes(found.classes, config)
    trained, preprocess = preprocess, reading.preprocessing(config, found, input_size, channels, preprocess)
    kept, name = reading.training_geometry(preprocess, augment, exactly), kinds.in_full(config.source)
    train, train_bad, train_notes = read(found.train, kept, config, name, decoded, "reading training images")
    val, val_bad, val_notes = read(found.val, preprocess.geometry, config, name, decoded, "reading validation images")
    small = reading.note_if_small(found.train, preprocess.size)
    otherwise = reading.note_if_otherwise(preprocess, trained)
    notes = (*found.notes, *small, *otherwise, *dict.fromkeys([*train_notes, *val_notes]))
    if bad := {**train_bad, **val_bad}:
        notes += (_tell_bad(bad, config),)
    for part, which in ((train, "train"), (val, "validation")):
        if not len(part):
            raise InputError(f"{config.source} has no {which} images that can be read")
    if train.groups is not None:
        notes += (groups.tell(train.groups, val.groups),)
    cache = cache_folder(found.home)
    whole = Dataset(config.source, found.classes, train, val, preprocess, notes, cache, kinds.homes(config))
    return drawn(whole, config)


def drawn(data: Dataset, config: DataConfig) -> Dataset:
    """The same, with the bootstrap sample of the training images, or the weights, that `bag` and `weights` ask for."""
    train, notes = data.train, data.notes
    if config.bag is not None:
        sample = bootstrap(train.labels, (config.split_seed, config.bag), train.groups)
        many, of = len(np.unique(sample)), len(train)
        notes += (f"bootstrap sample {config.bag}: {many:,} of the {of:,} images to train on are in it, some repeated",)
        train = train.choose(sample)
    if config.weights is not None:
        file = expanded(config.weights)
        train = replace(train, weights=_weights(file, train.names, data.homes.get("train")))
    return replace(data, train=train, notes=notes)


def _tell_bad(bad: dict[File, str], config: DataConfig, option: str = "data.bad_files='skip'") -> str:
    files, them = counted(len(bad), "file"), "it" if len(bad) == 1 else "them"
    if config.bad_files == "error":
        folder = kinds.folder_of(config.source)
        copied = f", or in a copy: {folders.copying(folder)}" if folder else ""
        without = f"go on without {them} by {option}{copied}"
        raise InputError(f"{files} cannot be read ({faults(bad)}); mend or remove {them}, or {without}")
    return f"{files} left out because {'it' if len(bad) == 1 else 'they'} cannot be read: {faults(bad)}"


def _weights(file: Path, names: Sequence[str], home: str | None) -> np.ndarray:
    """`(N,)` float64 from a file that has a number for each image's name, in full or within its home."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        inside = zip(names, kinds.names_within(names, home), strict=True)
        weights = np.array([float(told[name if name in told else short]) for name, short in inside])
    except (OSError, ValueError, TypeError) as error:
        why = getattr(error, "strerror", None) or "it is no JSON of names and numbers"
        raise InputError(f"data.weights {file} cannot be read: {why}") from None
    except KeyError as error:
        raise InputError(f"data.weights {file} has no number for {error.args[0]}, which is trained on") from None
    if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.sum() > 0):
        raise InputError(f"data.weights {file} has numbers that are negative, not finite, or all 0")
    return weights


def held_out(
    config: DataConfig,
    preprocess: Preprocess | Sheet,
    split: bool,
    crops: int = 1,
    names: Collection[str] | None = None,
) -> tuple[Split, tuple[str, ...], tuple[str, ...]]:
    """The images to judge a trained net on, their classes, and notes.

    They are those of the `names` that the source still has, for which InputError is raised where these are none; else
    its own validation images; where it has none, the share that training holds out (`split`), or every image. With
    several `crops` an image is `(crops, size, size, C)`, made anew each time. Raises InputError, too, where none of
    them can be read.
    """
    found = _find(config)
    if names is not None:
        found = found.holding_out(names, config.source)
    elif found.val is None and split:
        found = found.divided(config)
    if crops > 1 and isinstance(preprocess, Sheet):
        raise InputError(f"a committee whose members see images in different sizes is judged on 1 crop, not on {crops}")
    geometry = preprocess.geometry if crops == 1 else Crops(preprocess, crops)
    config = config if crops == 1 else replace(config, cache="none")
    part, name, folder = found.val or found.train, kinds.in_full(config.source), cache_folder(found.home)
    read_part, bad, notes = read(part, geometry, config, name, folder, "reading images")
    notes += [_tell_bad(bad, config, "bad_files='skip'")] if bad else []
    if not len(read_part):
        raise InputError(f"{config.source} has no image that can be read: {faults(bad)}")
    classes = found.classes
    if names is not None:  # of which classes that have come since hold none
        there, labels = np.unique(read_part.labels, return_inverse=True)
        classes, read_part = tuple(classes[place] for place in there), replace(read_part, labels=labels)
    return read_part, classes, (*found.notes, *notes)


def sample(
    config: DataConfig, preprocess: Preprocess | Sheet, many: int, names: Collection[str] | None = None, seed: int = 0
) -> np.ndarray:
    """`many` training images (all where there are fewer), drawn by `seed`, as evaluation sees them: `(many, size, size,
    C)` uint8.

    They are among `names`; None: all that the source has beside validation images of its own, which is none where it
    has not. Files that cannot be read are passed over.
    """
    found = _find(config)
    if names is None:
        allowed = np.arange(0 if found.val is None else len(found.train.labels))
    else:
        names = set(names)
        allowed = np.flatnonzero([name in names for name in found.train.names])
    geometry, pixels = preprocess.geometry, []
    for place in np.sort(np.random.default_rng(seed).permutation(allowed)[:many]):
        image = found.train.images[place]
        with suppress(InputError):
            stored = isinstance(image, File)
            pixels.append(geometry.read(image) if stored else geometry.fit(as_image(image, geometry.channels)))
    return np.stack(pixels) if pixels else np.empty((0, *geometry.shape), np.uint8)


def groups_of(config: DataConfig, names: Sequence[str]) -> np.ndarray | None:
    """Which of the images named belong together, as `data.groups` has it, see `groups.numbered`, or as a user's own
    source does; None where neither tells, or the source is not here.
    """
    if (config.groups is None and config.source not in REGISTERED) or not kinds.is_there(config.source):
        return None
    found = _find(config)
    if found.train.groups is None:
        return None
    known = {
        name: group
        for part in filter(None, (found.train, found.val))
        for name, group in zip(part.names, part.groups.tolist(), strict=True)
    }
    return np.array([known.get(name, -1 - place) for place, name in enumerate(names)])


def check(config: DataConfig) -> None:
    """Raise InputError where no image need be read to see that `load` will."""
    _check_classes(_found_and_split(config).classes, config)


def folds(config: DataConfig, many: int) -> tuple[list[str], np.ndarray]:
    """The names of all images that are there, and which of so many folds holds each out, `(N,)` int64. Raises
    InputError as `load` does where the source cannot be divided so.
    """
    found = _find(config)
    parts = [_split(found, replace(config, folds=many, fold=fold)) for fold in range(many)]
    fold_of = {name: fold for fold, part in enumerate(parts) for name in part.val.names}
    return [*found.train.names], np.array([fold_of[name] for name in found.train.names])


def _found_and_split(config: DataConfig) -> Found:
    return _split(_find(config), config)


def _split(found: Found, config: DataConfig) -> Found:
    if found.val is None:
        return found.divided(config)
    if config.folds:
        raise InputError(f"{config.source} has validation images of its own, so data.folds has nothing to divide")
    return found


def _check_classes(classes: Sequence[str], config: DataConfig) -> None:
    """Raises InputError for fewer than two."""
    if len(classes) < 2:
        raise InputError(f"{config.source} holds one class only ({classes[0]}); a classifier needs two or more")


def has_held_out(config: DataConfig) -> bool:
    """Whether a source has validation images of its own."""
    return _find(config).val is not None


def fingerprint(config: DataConfig) -> str:
    """Changes with any image of a source and any label, and with what is held out."""
    found = _find(config)
    split = (config.val_fraction, config.split_seed, config.folds, config.fold)
    split += () if config.groups is None else (config.groups,)
    digest = hashlib.sha256(repr((config.source, found.classes, split)).encode())
    for part in filter(None, (found.train, found.val)):
        digest.update(np.ascontiguousarray(part.labels))
        images = [part.images] if isinstance(part.images, np.ndarray) else part.images
        told = stamps([image for image in images if isinstance(image, File)])
        for image in images:
            digest.update(os.fsencode(next(told)) if isinstance(image, File) else np.ascontiguousarray(image))
    return digest.hexdigest()


def refuse_within(config: DataConfig, folder: Path) -> None:
    """Raise InputError where a folder to come would lie among a source's class folders, and be taken for one."""
    for source in filter(None, (config.source, config.val_source)):
        home = kinds.folder_of(source)
        if home and any(folder.resolve().is_relative_to(part.resolve()) for part in folders.parts(home).values()):
            raise InputError(f"{folder} would lie among the photos of {source}; choose a folder elsewhere by run=…")


def _find(config: DataConfig) -> Found:
    found = kinds.find(config)
    if config.val_source is None:
        return _grouped(found, config, found.home)
    val = kinds.find(replace(config, source=config.val_source))
    wrong = f"data.val_source {config.val_source} has classes that {config.source} lacks"
    held_out = val.val or val.train  # what it has itself to judge by, else everything
    held_out = held_out.among(val.classes, found.classes, wrong)
    if (found.train.groups is None) != (held_out.groups is None):
        raise InputError(f"data.groups is a column of one of {config.source} and {config.val_source}, not of both")
    notes = found.notes + val.notes
    if shared := len({*real_paths(found.train.names)} & {*real_paths(held_out.names)}):
        are = "is both" if shared == 1 else "are both"
        notes += (
            f"{shared:,} of {counted(len(held_out.names), 'image')} of {config.val_source} {are} trained and "
            f"judged on: accuracy is overstated",
        )
    return _grouped(replace(found, val=held_out, notes=notes), config, found.home, val.home)


def _grouped(found: Found, config: DataConfig, *homes: Path | None) -> Found:
    """The same, with the groups that `data.groups` finds, if it is given, in files of these homes; a column of a table
    has told already. Raises InputError as `groups.numbered` does.
    """
    if config.groups is None or found.train.groups is not None:
        return found
    roots = [root for home in filter(None, homes) for root in (home, *folders.parts(home).values())]
    roots = sorted({f"{root.as_posix().rstrip('/')}/" for root in roots}, reverse=True)  # of two, the inner one first
    paths = [path for part in filter(None, (found.train, found.val)) for path in _paths(part, roots)]
    numbers, many = groups.numbered(paths, config.groups, config.source), len(found.train.names)
    val = found.val and replace(found.val, groups=numbers[many:])
    return replace(found, train=replace(found.train, groups=numbers[:many]), val=val)


def _paths(part: Part, roots: Sequence[str]) -> list[str | None]:
    """Where each image lies in the first of the roots that has it, or in its shard; None for what is no file."""
    paths = []
    for image, name in zip(part.images, part.names, strict=True):
        root = next((root for root in roots if name.startswith(root)), "")
        inside = image.path if isinstance(image, Stored) else None
        paths.append(name.removeprefix(root) if isinstance(image, Path) else inside)
    return paths
