"""Images at hand, as arrays, pictures or a data set of torch's, as a source with a name like any other."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from cnnzoo.data import kinds
from cnnzoo.data.found import at_hand
from cnnzoo.data.named import NAMED, REGISTERED
from cnnzoo.errors import InputError, counted, did_you_mean, expect

WANTED = (
    "give a uint8 array (N, H, W) or (N, H, W, C), a list of files, PIL images and uint8 arrays, or a data set of "
    "torch's of such images and their labels, without a transform: what a net wants of them is done later"
)


def register_data(
    name: str,
    images: Any,
    labels: Iterable | None = None,
    *,
    classes: Sequence[str] | None = None,
    groups: Iterable | None = None,
    val: Any = None,
) -> str:
    """Make images at hand a data source: whatever takes one in this process, as `digits` is one, then takes `name`.

    Args:
        name: of the source. Registered once more, it stands for the newer images.
        images: a uint8 array or tensor `(N, H, W)` or `(N, H, W, C)`, C being 1 or 3; or N files, PIL images or uint8
            arrays `(H, W)` or `(H, W, C)` of any sizes; or a map-style data set of torch's of such images and labels.
        labels: `(N,)`: the classes' names, or with `classes` places in these; None for a data set, which has them.
        classes: the classes' names in order; None: those of the data set, else of the labels, sorted.
        groups: `(N,)`: what each image belongs to, such as a patient or a video, so that no group is both trained and
            judged on, as text or numbers; None: each stands alone, as one does whose value is None or NaN.
        val: the images to validate on, as `(images, labels)` or a data set; None holds out `data.val_fraction`.

    Returns:
        The name.

    Raises:
        InputError: for a name that stands for something else, and for images and labels that will not do.
    """
    expect(name, str, "a source is named by a text")
    expect(labels, Iterable | None, "labels are the class of each image")
    expect(classes, Iterable | None, "classes are names, in order")
    if name not in REGISTERED and kinds.is_there(name):
        raise InputError(f"{name!r} stands for other images; choose another name")
    images, labels, classes = _pairs(images, labels, classes)
    if not isinstance(groups, Iterable | None):
        raise InputError(f"groups is {groups!r:.50}, but must tell of each image what it belongs to")
    groups = None if groups is None else list(groups)
    if groups is not None and len(groups) != len(images):
        raise InputError(f"there are {counted(len(images), 'image')} and {counted(len(groups), 'group')}, one for each")
    if groups is not None and val is not None:
        raise InputError("groups tell which images may be held out, and val is held out already; give one of them")
    found = at_hand(images, labels, classes, name, groups)
    if val is not None:
        images, labels, _ = _pairs(*(val if isinstance(val, tuple) else (val, None)), classes)
        found = replace(found, val=at_hand(images, labels, classes, f"{name}/val").train)
    NAMED[name] = lambda config: found
    REGISTERED.add(name)
    return name


def _pairs(
    images: Any, labels: Iterable | None, classes: Sequence[str] | None
) -> tuple[np.ndarray | list, np.ndarray, list[str]]:
    """Images, the places of their labels in the classes, and these."""
    if labels is None:
        classes = getattr(images, "classes", None) if classes is None else classes
        images, labels = _unzipped(images)
    classes = None if classes is None else [str(name) for name in classes]
    if twice := [name for name, many in Counter(classes or ()).items() if many > 1]:
        raise InputError(f"the class {twice[0]!r} is named twice; give each a name of its own")
    images, labels = _images(images), _labels(labels)
    if len(labels) != len(images) or not len(images):
        raise InputError(f"there are {counted(len(images), 'image')} and {counted(len(labels), 'label')}")
    return images, *_places(labels, classes)


def _unzipped(dataset: Any) -> tuple[list, list]:
    """The images and the labels of anything that gives a pair for each place, as PyTorch's data sets do."""
    try:
        pairs = [dataset[place] for place in range(len(dataset))]
        if any(isinstance(pair, Mapping) for pair in pairs):  # whose keys would be taken for a pair
            raise TypeError
        images, labels = map(list, zip(*pairs, strict=True))
        return images, labels
    except (TypeError, ValueError, AttributeError, KeyError):  # the last of a table
        raise InputError(f"{type(dataset).__name__} holds no pairs of an image and its label; {WANTED}") from None


def _images(images: Any) -> np.ndarray | list:
    """One uint8 array, or a list of files, PIL images and uint8 arrays."""
    if isinstance(images, Tensor) or (isinstance(images, np.ndarray) and images.dtype.kind not in "OU"):
        images = _pixels(images)
        if images.ndim < 3 or images.shape[3:] not in ((), (1,), (3,)):
            raise InputError(f"an array of shape {images.shape} is none of images; {WANTED}")
        return images
    images = [_pixels(image) if isinstance(image, np.ndarray | Tensor) else image for image in images]
    for image in images:
        if not isinstance(image, str | Path | Image.Image | np.ndarray):
            raise InputError(f"{image!r:.50} is no image; {WANTED}")
    return images


def _labels(labels: Iterable) -> np.ndarray:
    """`(N,)`, all text or all whole numbers."""
    labels = [label.item() if isinstance(label, Tensor) else label for label in labels]
    given = np.asarray(labels)
    if len(given) and (given.ndim != 1 or given.dtype.kind not in "iuUb"):
        what = f"{given.dtype} of shape {given.shape}"
        raise InputError(f"labels are {what}; give the class of each image, as text or a whole number")
    if strange := [label for label in labels if given.dtype.kind == "U" and not isinstance(label, str)]:
        raise InputError(f"among the labels, which are text, is {strange[0]!r:.50}; give the class of each image")
    return given


def _places(labels: np.ndarray, classes: list[str] | None) -> tuple[np.ndarray, list[str]]:
    """`(N,)` int64, each label's place in the classes, and these: None takes the labels that there are, in order."""
    if classes is not None and labels.dtype.kind != "U":
        if labels.min() < 0 or labels.max() >= len(classes):
            wrong = labels[(labels < 0) | (labels >= len(classes))][0]
            raise InputError(f"the label {wrong} is no place in {counted(len(classes), 'class', 'classes')}, from 0")
        return labels.astype(np.int64), classes
    found, places = np.unique(labels, return_inverse=True)
    names = [str(name) for name in found]
    if classes is None:
        return places, names
    if unknown := [name for name in names if name not in classes]:
        raise InputError(f"the label {unknown[0]!r} is none of the classes{did_you_mean(unknown[0], classes)}")
    return np.array([classes.index(name) for name in names], dtype=np.int64)[places], classes


def _pixels(image: np.ndarray | Tensor) -> np.ndarray:
    """uint8, with channels last, where a tensor has them first."""
    if isinstance(image, Tensor):
        first = image.ndim > 2 and image.shape[-3] in (1, 3) and image.shape[-1] not in (1, 3)
        image = (image.movedim(-3, -1) if first else image).cpu().numpy()
    if image.dtype != np.uint8:
        raise InputError(f"an image is of {image.dtype}; {WANTED}")
    return image
