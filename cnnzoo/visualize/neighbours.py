"""What a net finds alike, beside what is alike pixel by pixel: the nearest images of a collection in either sense.

Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012, section 6.1
and figure 4: two images are alike to the net where what its last hidden layer says of them lies close by, in Euclidean
distance, and then their pixels may be anything but close, as those of an elephant in another pose.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cnnzoo import bars, tables
from cnnzoo.data.arrays import ArrayImages, Images
from cnnzoo.data.named import NAMED
from cnnzoo.data.preprocess import centre
from cnnzoo.errors import InputError, counted
from cnnzoo.inference.outputs import Features
from cnnzoo.telling import Tell
from cnnzoo.transfer.features import Backbone
from cnnzoo.visualize import collection, drawing
from cnnzoo.visualize.collection import UNKNOWN, Collection
from cnnzoo.visualize.hooks import untouched
from cnnzoo.visualize.subject import Model, Pretrained, Subject

QUERIES = 100  # asked for where nobody says which
DRAWN = 6  # queries on the page
BLOCK = 64  # images whose pixels are compared with as many others at a time: 75 MB of 224x224 each


@dataclass(frozen=True)
class Nearest:
    """The K nearest of each of Q queries, nearest first."""

    places: np.ndarray  # (Q, K) int64, in the collection
    distances: np.ndarray  # (Q, K) float64, Euclidean


@dataclass(frozen=True)
class Neighbours(drawing.Result):
    """The K images nearest to each of Q queries, by features and by pixels."""

    net: str
    queries: Collection
    among: Collection
    features: Nearest  # in what the net's head sees
    pixels: Nearest  # in the image as the net sees it, each pixel between 0 and 1

    def share(self, nearest: Nearest) -> float | None:
        """The share of `nearest` that are of their query's class; None where no query's class is known."""
        known = self.queries.labels != UNKNOWN
        if not known.any():
            return None
        return float((self.among.labels[nearest.places] == self.queries.labels[:, None])[known].mean())

    def __str__(self) -> str:
        queries, many = counted(len(self.queries), "query", "queries"), self.features.places.shape[1]
        line = f"{queries} and the {many} nearest of {len(self.among):,} images ({self.among.source})"
        shares = [self.share(self.features), self.share(self.pixels)]
        if None in shares:
            return f"{line}, in features of {self.net} and in pixels"
        found, in_pixels = (f"{share:.1%}" for share in shares)
        return f"{line}: {found} are of the query's class in features of {self.net}, {in_pixels} in pixels"

    def rows(self) -> list[dict]:
        """A row for each neighbour: query, its class, space, rank, neighbour, the neighbour's class, distance."""
        return [
            {
                "query": self.queries.names[query],
                "query_class": self.queries.class_of(query) or None,
                "space": space,
                "rank": rank + 1,
                "neighbour": self.among.names[place],
                "class": self.among.class_of(place) or None,
                "distance": float(nearest.distances[query, rank]),
            }
            for query in range(len(self.queries))
            for space, nearest in (("features", self.features), ("pixels", self.pixels))
            for rank, place in enumerate(nearest.places[query])
        ]

    def to_csv(self) -> str:
        kinds = {"query": str, "query_class": str, "space": str, "rank": int, "neighbour": str, "class": str}
        return tables.to_csv(self.rows(), kinds | {"distance": float})

    def figure(self):
        """A row for each of some queries: itself, the nearest by features, the nearest by pixels; all a matplotlib
        Figure.
        """
        rows, titles = [], []
        for query in np.linspace(0, len(self.queries) - 1, min(DRAWN, len(self.queries))).round().astype(int):
            row = list(self.queries.images.take(query[None]))
            said = [f"query\n{self.queries.class_of(query) or Path(self.queries.names[query]).name}"]
            for space, nearest in (("features", self.features), ("pixels", self.pixels)):
                row += list(self.among.images.take(nearest.places[query]))
                about = zip(nearest.places[query], nearest.distances[query], strict=True)
                said += [
                    f"{space} {drawing.brief(distance)}\n{self.among.class_of(place)}" for place, distance in about
                ]
            rows.append(row)
            titles.append(said)
        return drawing.page(rows, titles, side=1.2)


def neighbours(
    model_or_run: Model,
    images: str | Path | Sequence | None = None,
    data: str | None = None,
    *,
    pretrained: Pretrained = False,
    many: int = 6,
    root: str | None = None,
    device: str = "auto",
    tell: Tell = print,
) -> Neighbours:
    """The images nearest to some, in what a net sees in them and in their pixels; exactly, not nearly.

    Args:
        model_or_run: a net, a run or its folder, or a net's name.
        images: the queries: files, folders, patterns, PIL images or uint8 arrays. One that lies in a folder of a
            class's name counts as of that class. None takes a hundred of the images that are held out, or, where none
            are, of those that are looked among. No image is its own neighbour.
        data: what to look among: a data set's name or a folder of class folders; None takes the images that the run
            was trained on.
        pretrained: weights for a net's name: True (the best known), a tag, a file or a run folder.
        many: neighbours of each query, in each sense.
        root: where named data sets lie.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
        tell: is given a line on what was passed over, and on queries that cannot be read, which are left out.

    Raises:
        InputError: for an empty folder; queries of which none can be read; a net that is no run, without data; fewer
            images than neighbours.
    """
    if many < 1:
        raise InputError(f"{many} neighbours are asked for, but there must be at least 1")
    if isinstance(images, str) and images in NAMED and not Path(images).exists():
        raise InputError(f"images are {images}, but a data set is what to look among: data={images!r}")
    subject = Subject.open(model_or_run, pretrained, device)
    collection.expect_features(subject)
    among, held_out = collection.opened(subject, data, root, tell)
    if images is None:
        queries = (held_out or among).some(QUERIES)
    else:
        queries = collection.of_pictures(subject.look(images, tell=tell), among)
    same = _same(queries, among)
    if many > (left := len(among) - int(same.any())):
        raise InputError(f"{many} neighbours are asked for, but {among.source} has only {left} images to be one")
    vectors, known = collection.features(subject, queries, among, tell=tell)
    return Neighbours(
        subject.name,
        queries,
        among,
        nearest(squares(vectors, known), same, many),
        nearest(pixel_squares(queries.images, among.images), same, many),
    )


def alike(
    net: nn.Module, queries: np.ndarray, images: Images, many: int, cache: Path, precision: str = "auto"
) -> np.ndarray:
    """Of images, perhaps larger than the net takes, the places `(Q, many)` of those nearest by features to each query
    `(Q, H, W, C)` uint8 as the net sees it. Features that a probe in this precision has left in `cache` are used; no
    others are kept.

    Raises InputError for a net without a head of its own that could be left out.
    """
    subject = Subject.open(net)
    with untouched(net) as still:
        backbone = Backbone(still, subject.preprocess, cache, precision=precision)
        if backbone.file.exists():
            rows, asked = (backbone.extract(each).plain for each in (images, ArrayImages(queries)))
        else:
            rows, asked = (_features(still, subject, each) for each in (images, ArrayImages(queries)))
    return nearest(squares(asked, rows), np.zeros((len(asked), len(rows)), bool), many).places


@torch.inference_mode()
def _features(net: nn.Module, subject: Subject, images: Images) -> np.ndarray:
    """`(N, D)` float32: what the head of `net`, the subject's twin, sees of the images' centres."""
    headless, size, found = Features(net), subject.preprocess.size, []
    for places in _blocks(len(images)):
        found.append(headless(subject.normalised(centre(images.take(places), size))).cpu().numpy())
    return np.concatenate(found)


def _same(queries: Collection, among: Collection) -> np.ndarray:
    """`(Q, N)` bool: the two are one and the same image."""
    names, own = (np.array([str(Path(name).resolve()) for name in each.names]) for each in (queries, among))
    return names[:, None] == own


def nearest(squared: np.ndarray, without: np.ndarray, many: int) -> Nearest:
    """The `many` smallest in each row of squared distances `(Q, N)`, but for those that `without` (Q, N) strikes out;
    of equals the first.
    """
    squared = np.where(without, np.inf, squared)
    places = np.argsort(squared, axis=1, kind="stable")[:, :many]
    return Nearest(places, np.sqrt(np.take_along_axis(squared, places, axis=1)))


def squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances `(A, B)` float64 of rows `(A, D)` and `(B, D)`; of whole numbers, as uint8 pixels
    are, exact: float64 holds their sums.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    return ((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T).clip(min=0)


def pixel_squares(a: Images, b: Images) -> np.ndarray:
    """`squares` of the pixels, between 0 and 1, of two collections of any size, with a progress bar."""
    found = np.empty((len(a), len(b)))
    for down in bars.show(_blocks(len(b)), desc="pixels", unit="block"):
        theirs = b.take(down).reshape(len(down), -1)
        for across in _blocks(len(a)):
            found[np.ix_(across, down)] = squares(a.take(across).reshape(len(across), -1), theirs)
    return found / 255**2


def _blocks(many: int) -> list[np.ndarray]:
    return [np.arange(start, min(start + BLOCK, many)) for start in range(0, many, BLOCK)]
