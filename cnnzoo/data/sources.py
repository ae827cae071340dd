"""A source's name to images, labels and class names, split into training and validation images.

A source is a set by name (`named`), a folder of photos (`folders`), tar shards (`shards`) or a data set of Hugging
Face's (`hugging_face`).
"""

import hashlib
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_high

import numpy as np
from PIL import Image

from cnnzoo.config import AugmentConfig, DataConfig
from cnnzoo.data import folders, hugging_face, shards
from cnnzoo.data.arrays import IN_MEMORY, ArrayImages, File, FittedImages, Images, choose
from cnnzoo.data.crops import Crops
from cnnzoo.data.decoded import cache_folder, decode_files, stamps
from cnnzoo.data.decoding import as_image, opened
from cnnzoo.data.found import Found, Part, at_hand, photo_resize
from cnnzoo.data.named import NAMED
from cnnzoo.data.preprocess import Geometry, Preprocess, Sheet, centre
from cnnzoo.errors import InputError, counted, did_you_mean, faults
from cnnzoo.resampling import bootstrap

LOOKED_AT = 50  # photos, for their size
PARTS = ("resized", "jittered")  # crops that are parts of more than what evaluation sees


@dataclass(frozen=True)
class Split:
    images: Images
    labels: np.ndarray  # (N,) int64
    names: tuple[str, ...]  # each image's file, or its place in a named set
    weights: np.ndarray | None = None  # (N,) how often each is drawn beside the others; None: each once an epoch

    def __len__(self) -> int:
        return len(self.labels)

    def choose(self, places: np.ndarray) -> "Split":
        """The images at `places`, each perhaps several times."""
        return Split(choose(self.images, places), self.labels[places], tuple(self.names[i] for i in places))


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

    def split(self) -> dict[str, list[str]]:
        """Which images are in which part."""
        return {"train": list(self.train.names), "val": list(self.val.names)}


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


def folder_of(source: str) -> Path | None:
    """The folder of photos that a source is; None for named sets, shards and data sets of Hugging Face's."""
    folder = Path(source).expanduser()
    return folder if folder.is_dir() and not _is_other_than_folder(source) else None


def _is_other_than_folder(source: str) -> bool:
    """Whether a source is a named set, shards or a data set of Hugging Face's."""
    return source in NAMED or any(kind.is_source(source) for kind in (hugging_face, shards))


def check(config: DataConfig) -> None:
    """Raise InputError where no image need be read to see that `load` will."""
    _check_classes(_found_and_split(config).classes, config)


def _found_and_split(config: DataConfig) -> Found:
    found = _find(config)
    if found.val is None:
        return _split(found, config)
    if config.folds:
        raise InputError(f"{config.source} has validation images of its own, so data.folds has nothing to divide")
    return found


def _check_classes(classes: Sequence[str], config: DataConfig) -> None:
    """Raises InputError for fewer than two."""
    if len(classes) < 2:
        raise InputError(f"{config.source} holds one class only ({classes[0]}); a classifier needs two or more")


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
) -> Dataset:
    """What `load` makes of a source, of images at hand; `config.source` is merely their name.

    `images` are a uint8 array `(N, H, W)` or `(N, H, W, C)`, or N files, PIL images and uint8 arrays of any sizes;
    `labels` `(N,)` int64 are places in `classes`. A class of one image keeps it for training. The pixels of files are
    kept in the folder `decoded`, which must last as long as the data set.
    """
    found = _split(at_hand(images, labels, classes, config.source), config, keep_lone=True)
    if not len(found.val.labels):
        raise InputError(f"each class of {config.source} has one image only, so there is none to validate on")
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
    preprocess = _preprocess(config, found, input_size, channels, preprocess)
    to_train_on = replace(_training_geometry(preprocess, augment), exactly=exactly or augment.crop not in PARTS)
    notes = [*found.notes, *_note_if_small(found.train, preprocess.size)]
    train, train_bad, train_notes = _read(found.train, decoded, config, to_train_on, "reading training images")
    val, val_bad, val_notes = _read(found.val, decoded, config, preprocess.geometry, "reading validation images")
    notes = (*notes, *dict.fromkeys([*train_notes, *val_notes]))
    if bad := {**train_bad, **val_bad}:
        notes += (_tell_bad(bad, config),)
    for part, name in ((train, "train"), (val, "validation")):
        if not len(part):
            raise InputError(f"{config.source} has no {name} images that can be read")
    if config.bag is not None:
        drawn = bootstrap(train.labels, (config.split_seed, config.bag))
        many, of = len(np.unique(drawn)), len(train)
        notes += (f"bootstrap sample {config.bag}: {many:,} of the {of:,} images to train on are in it, some repeated",)
        train = train.choose(drawn)
    if config.weights is not None:
        train = replace(train, weights=_weights(Path(config.weights).expanduser(), train.names))
    return Dataset(config.source, found.classes, train, val, preprocess, notes, cache_folder(found.home))


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
    several `crops` an image is `(crops, size, size, C)`, made anew each time.
    """
    found = _find(config)
    if names is not None:
        found = _holding_out(found, names, config.source)
    elif found.val is None and split:
        found = _split(found, config)
    if crops > 1 and isinstance(preprocess, Sheet):
        raise InputError(f"a committee whose members see images in different sizes is judged on 1 crop, not on {crops}")
    geometry = preprocess.geometry if crops == 1 else Crops(preprocess, crops)
    config = config if crops == 1 else replace(config, cache="none")
    part, bad, notes = _read(found.val or found.train, cache_folder(found.home), config, geometry, "reading images")
    notes += [_tell_bad(bad, config, "bad_files='skip'")] if bad else []
    return part, found.classes, (*found.notes, *notes)


def _note_if_small(part: Part, size: int) -> Iterator[str]:
    """A line where most photos, by a look at some, have fewer pixels than a net takes."""
    files = [image for image in part.images if isinstance(image, Path)] if isinstance(part.images, list) else []
    sides = []
    for file in files[:: -(-len(files) // LOOKED_AT) or 1]:
        with suppress(InputError), opened(file) as image:
            sides.append(min(image.size))
    if sides and (usual := median_high(sides)) < size:
        yield (
            f"the net takes {size}x{size} pixels, and most photos have less ({usual} on the shorter side): they are "
            f"enlarged; a data.size nearer to that is faster"
        )


def _holding_out(found: Found, names: Collection[str], source: str) -> Found:
    """With the images of these names to validate on."""
    wanted = set(names)
    parts = [part for part in (found.val, found.train) if part is not None]
    chosen = [part.choose(np.flatnonzero([name in wanted for name in part.names])) for part in parts]
    chosen = [part for part in chosen if part.names]
    if not chosen:
        raise InputError(f"{source} no longer holds any of the {counted(len(wanted), 'image')} that were held out")
    val = chosen[0] if len(chosen) == 1 else chosen[0].joined(chosen[1])
    gone = len(wanted) - len(val.names)
    note = f"{gone:,} of the {counted(len(wanted), 'image')} that were held out are no longer in {source}"
    return replace(found, val=val, notes=(*found.notes, note) if gone else found.notes)


def is_there(source: str) -> bool:
    """Whether a name stands for a source, and where it is a folder, for one that exists."""
    return _is_other_than_folder(source) or Path(source).expanduser().is_dir()


def has_held_out(config: DataConfig) -> bool:
    """Whether a source has validation images of its own."""
    return _find(config).val is not None


def fingerprint(config: DataConfig) -> str:
    """Changes with any image of a source and any label, and with what is held out."""
    found = _find(config)
    split = (config.val_fraction, config.split_seed, config.folds, config.fold)
    digest = hashlib.sha256(repr((config.source, found.classes, split)).encode())
    for part in filter(None, (found.train, found.val)):
        digest.update(np.ascontiguousarray(part.labels))
        images = [part.images] if isinstance(part.images, np.ndarray) else part.images
        told = stamps([image for image in images if isinstance(image, File)])
        for image in images:
            digest.update(os.fsencode(next(told)) if isinstance(image, File) else np.ascontiguousarray(image))
    return digest.hexdigest()


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


def refuse_within(config: DataConfig, folder: Path) -> None:
    """Raise InputError where a folder to come would lie among a source's class folders, and be taken for one."""
    for source in filter(None, (config.source, config.val_source)):
        home = folder_of(source)
        if home and any(folder.resolve().is_relative_to(part.resolve()) for part in folders.parts(home).values()):
            raise InputError(f"{folder} would lie among the photos of {source}; choose a folder elsewhere by run=…")


def _find(config: DataConfig) -> Found:
    found = _find_source(config)
    if config.val_source is None:
        return found
    val = _find_source(replace(config, source=config.val_source))
    wrong = f"data.val_source {config.val_source} has classes that {config.source} lacks"
    held_out = val.val or val.train  # what it has itself to judge by, else everything
    return replace(found, val=held_out.among(val.classes, found.classes, wrong), notes=found.notes + val.notes)


def _find_source(config: DataConfig) -> Found:
    if config.source in NAMED:
        return NAMED[config.source](config)
    folder = Path(config.source).expanduser()
    if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"data.source: {folder} cannot be read: Permission denied")
    for kind in (hugging_face, shards):
        if kind.is_source(config.source):
            return kind.find(config.source)
    if not folder.is_dir():
        if os.path.dirname(config.source) or folder.exists():
            raise InputError(f"data.source: {folders.no_folder(folder)}")
        known = [*NAMED, *folders.beside(folder)]
        hint = did_you_mean(config.source, known, f"sets by name: {', '.join(NAMED)}")
        raise InputError(f"data.source {config.source!r} is neither a known set nor a folder{hint}")
    return folders.find(folder)


# ---- from what was found to what is trained on


def _split(found: Found, config: DataConfig, keep_lone: bool = False) -> Found:
    """Hold out `val_fraction` of each class, or a fold of it; with `keep_lone` nothing of a class of one image."""
    part, rng = found.train, np.random.default_rng(config.split_seed)
    val: list[int] = []
    for label, name in enumerate(found.classes):
        own = np.flatnonzero(part.labels == label)
        if len(own) < 2 and not keep_lone:
            raise InputError(
                f"class {name!r} of {config.source} has one image only; "
                f"it needs two, one to train and one to validate on"
            )
        if len(own) < (config.folds or 0):
            raise InputError(
                f"class {name!r} of {config.source} has {counted(len(own), 'image')}, too few for {config.folds} folds"
            )
        many = min(max(round(config.val_fraction * len(own)), 1), len(own) - 1)
        mixed = rng.permutation(own)
        val += (mixed if config.folds else mixed[:many]).tolist()
    if config.folds:  # dealt out in turn through all classes, so that folds are as equal as classes are within them
        val = val[config.fold :: config.folds]
    held_out = np.zeros(len(part.labels), dtype=bool)
    held_out[val] = True
    return replace(found, train=part.choose(np.flatnonzero(~held_out)), val=part.choose(np.flatnonzero(held_out)))


def _weights(file: Path, names: Sequence[str]) -> np.ndarray:
    """`(N,)` float64 from a file that has a number for each image's name."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        weights = np.array([told[name] for name in names], dtype=np.float64)
    except (OSError, ValueError, TypeError) as error:
        why = getattr(error, "strerror", None) or "it is no JSON of names and numbers"
        raise InputError(f"data.weights {file} cannot be read: {why}") from None
    except KeyError as error:
        raise InputError(f"data.weights {file} has no number for {error.args[0]}, which is trained on") from None
    if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.sum() > 0):
        raise InputError(f"data.weights {file} has numbers that are negative, not finite, or all 0")
    return weights


def _preprocess(
    config: DataConfig, found: Found, input_size: int, channels: int, trained: Preprocess | None
) -> Preprocess:
    """The weights' own preprocessing where there is one, else the usual for the size; the config's keys override it."""
    size = config.size or (trained.size if trained else input_size)
    usual = trained or Preprocess(size, _usual_resize(found, size), found.mean, found.std)
    usual = usual.with_channels(channels)
    mean, std = tuple(config.mean or usual.mean), tuple(config.std or usual.std)
    if not len(mean) == len(std) == channels:
        raise InputError(
            f"data.mean and data.std have {len(mean)} and {len(std)} numbers for images of {channels} channels"
        )
    resize = config.resize or round(usual.resize * size / usual.size)
    return Preprocess(size, resize, mean, std, config.interpolation or usual.interpolation, usual.squash)


def _usual_resize(found: Found, size: int) -> int:
    """Photos: see `photo_resize`. Arrays: whole, or with a margin where they lack at most 1/8 (MNIST's 28 in LeNet's
    32).
    """
    side = found.train.images.shape[1] if isinstance(found.train.images, np.ndarray) else None
    if side and size * 7 / 8 <= side <= size:
        return side
    return photo_resize(size) if side is None else size


def _training_geometry(preprocess: Preprocess, augment: AugmentConfig) -> Geometry:
    """What is kept of a training image: all that random parts are cut from; else what evaluation sees."""
    seen = preprocess.geometry
    if augment.crop == "resized":
        return replace(seen, size=max(seen.resize, seen.size))
    if augment.crop == "jittered":
        largest = math.ceil(augment.shorter_side[1])
        return replace(seen, resize=largest, size=largest)
    return seen


def _read(
    part: Part, cache: Path, config: DataConfig, geometry: Geometry | Crops | Sheet, what: str
) -> tuple[Split, dict[File, str], list[str]]:
    """The images, what is wrong with files among them, and what a person should know."""
    if isinstance(part.images, np.ndarray):
        return Split(_scaled(part.images, geometry), part.labels, part.names), {}, []
    if not all(isinstance(image, File) for image in part.images):
        return Split(ArrayImages(_fit_each(part, geometry)), part.labels, part.names), {}, []
    folder, keep = folder_of(config.source), config.cache == "auto"
    source = str(folder.resolve()) if folder else config.source
    images, bad, notes = decode_files(part.images, geometry, source, cache, keep, config.workers, what)
    good = np.array([i for i, file in enumerate(part.images) if file not in bad], dtype=int)
    return Split(images, part.labels[good], tuple(part.names[i] for i in good)), bad, notes


def _scaled(pixels: np.ndarray, geometry: Geometry | Crops | Sheet) -> Images:
    """`(N, H, W, C)` of one size to what `geometry` makes of each, pixel for pixel as files of them would be read."""
    plain = isinstance(geometry, Geometry) and pixels.shape[3] == geometry.channels
    if plain and pixels.shape[1] == pixels.shape[2] == geometry.resize:
        return ArrayImages(np.ascontiguousarray(centre(pixels, geometry.size)))

    def fit(image: np.ndarray) -> np.ndarray:
        return geometry.fit(as_image(image, geometry.channels))

    shape = (len(pixels), *geometry.shape)
    if math.prod(shape) > IN_MEMORY:
        return FittedImages(pixels, fit, shape)
    fitted = np.empty(shape, np.uint8)
    for place, image in enumerate(pixels):
        fitted[place] = fit(image)
    return ArrayImages(fitted)


def _fit_each(part: Part, geometry: Geometry | Crops | Sheet) -> np.ndarray:
    """What `geometry` makes of pictures of any kinds and sizes."""
    pixels = []
    for image, name in zip(part.images, part.names, strict=True):
        try:
            pixels.append(geometry.fit(as_image(image, geometry.channels)))
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    return np.stack(pixels)


def _tell_bad(bad: dict[File, str], config: DataConfig, option: str = "data.bad_files='skip'") -> str:
    files, them = counted(len(bad), "file"), "it" if len(bad) == 1 else "them"
    if config.bad_files == "error":
        folder = folder_of(config.source)
        copied = f", or in a copy: {folders.copying(folder)}" if folder else ""
        without = f"go on without {them} by {option}{copied}"
        raise InputError(f"{files} cannot be read ({faults(bad)}); mend or remove {them}, or {without}")
    return f"{files} left out because {'it' if len(bad) == 1 else 'they'} cannot be read: {faults(bad)}"
