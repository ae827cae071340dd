"""From what a source holds to pixels of one size, as a net is trained on them and as evaluation sees them."""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_high

import numpy as np

from cnnzoo.config import AugmentConfig, DataConfig
from cnnzoo.data.arrays import IN_MEMORY, ArrayImages, File, FittedImages, Images, choose
from cnnzoo.data.crops import Crops
from cnnzoo.data.decoded import decode_files
from cnnzoo.data.decoding import as_image, opened
from cnnzoo.data.found import Found, Part, photo_resize
from cnnzoo.data.preprocess import Geometry, Preprocess, Sheet, centre
from cnnzoo.errors import InputError

LOOKED_AT = 50  # photos of a part whose size is looked at


@dataclass(frozen=True)
class Split:
    """Images to train or to validate on, with all that is known of them."""

    images: Images
    labels: np.ndarray  # (N,) int64
    names: tuple[str, ...]  # each image's file, or its place in a named set
    weights: np.ndarray | None = None  # (N,) how often each is drawn beside the others; None: each once an epoch
    groups: np.ndarray | None = None  # (N,) int64, the same for images that belong together; None: nobody has said so

    def __len__(self) -> int:
        return len(self.labels)

    def choose(self, places: np.ndarray) -> "Split":
        """The images at `places`, each perhaps several times."""
        names, groups = tuple(self.names[i] for i in places), None if self.groups is None else self.groups[places]
        return Split(choose(self.images, places), self.labels[places], names, groups=groups)


def read(
    part: Part, geometry: Geometry | Crops | Sheet, config: DataConfig, source: str, folder: Path, what: str
) -> tuple[Split, dict[File, str], list[str]]:
    """The images of a part, each as `geometry` makes it; what is wrong with files among them, which are left out; and
    what a person should know.

    Pixels of files are kept in `folder` under the name of the `source`, see `decode_files`; `what` is said beside the
    progress bar.
    """
    if isinstance(part.images, np.ndarray):
        return Split(_scaled(part.images, geometry), part.labels, part.names, groups=part.groups), {}, []
    if not all(isinstance(image, File) for image in part.images):
        return Split(ArrayImages(_fit_each(part, geometry)), part.labels, part.names, groups=part.groups), {}, []
    keep = config.cache == "auto"
    images, bad, notes = decode_files(part.images, geometry, source, folder, keep, config.workers, what)
    good = np.array([i for i, file in enumerate(part.images) if file not in bad], dtype=int)
    groups = None if part.groups is None else part.groups[good]
    return Split(images, part.labels[good], tuple(part.names[i] for i in good), groups=groups), bad, notes


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


# ---- which geometry


def preprocessing(
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


def note_if_otherwise(preprocess: Preprocess, trained: Preprocess | None) -> Iterator[str]:
    """A line where images are normalised or resized otherwise than those that the weights were trained on."""
    if trained is None:
        return
    usual = trained.with_channels(preprocess.channels)
    for key in ("mean", "std", "interpolation"):
        if (own := getattr(preprocess, key)) != (theirs := getattr(usual, key)):
            own, theirs = ([*each] if isinstance(each, tuple) else each for each in (own, theirs))
            yield f"data.{key} is {own}, but the weights were trained with {theirs}, which leaving it out takes"


def _usual_resize(found: Found, size: int) -> int:
    """Photos: see `photo_resize`. Arrays: whole, or with a margin where they lack at most 1/8 (MNIST's 28 in LeNet's
    32).
    """
    side = min(found.train.images.shape[1:3]) if isinstance(found.train.images, np.ndarray) else None
    if side and size * 7 / 8 <= side <= size:
        return side
    return photo_resize(size) if side is None else size


def training_geometry(preprocess: Preprocess, augment: AugmentConfig, exactly: bool) -> Geometry:
    """What is kept of a training image: all that random parts are cut from, whose pixels need not be evaluation's
    unless they are to be `exactly`; without random parts, what evaluation sees.
    """
    seen = preprocess.geometry
    if augment.crop == "resized":
        return replace(seen, size=max(seen.resize, seen.size), exactly=exactly)
    if augment.crop == "jittered":
        largest = math.ceil(augment.shorter_side[1])
        return replace(seen, resize=largest, size=largest, exactly=exactly)
    return seen


def note_if_small(part: Part, size: int) -> Iterator[str]:
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
