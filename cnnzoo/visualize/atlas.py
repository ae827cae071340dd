"""A map of a data set on which images lie close by that a net finds alike, each drawn as itself.

t-SNE (van der Maaten, Hinton: Visualizing Data using t-SNE, JMLR 9, 2008) keeps neighbours, not distances: that two
groups lie far apart on the map says nothing of how far apart they are.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from cnnzoo import figures, tables
from cnnzoo.errors import InputError, at_least
from cnnzoo.telling import Tell
from cnnzoo.visualize import collection, drawing
from cnnzoo.visualize.collection import Collection
from cnnzoo.visualize.subject import Model, Pretrained, Subject

COMPONENTS = 50  # principal ones, which are all that t-SNE looks at: noise goes, and time
PERPLEXITY = 30.0  # how many neighbours count, about; less where there are few images
LEAST = 12  # images that make a map
NEAR = 5  # neighbours by which a map is judged
SHEET, FRAME, LARGEST = 1500, 3, 96  # pixels of the map's side, a frame, and a thumbnail at most
LEGEND = 20  # classes that colours can tell apart


@dataclass(frozen=True)
class Map(drawing.Result):
    """N images in the plane."""

    net: str
    of: Collection
    places: np.ndarray  # (N, 2) float32
    trustworthiness: float  # 1: neighbours on the map are neighbours in feature space; 0.5: as by chance
    same: tuple[float, float]  # share of an image's five nearest that are of its class, in feature space and on the map

    def __str__(self) -> str:
        found, drawn = self.same
        return (
            f"t-SNE map of {len(self.of):,} images ({self.of.source}) in features of {self.net}: {found:.1%} of the "
            f"{NEAR} nearest are of the same class, {drawn:.1%} on the map; trustworthiness {self.trustworthiness:.3f}"
        )

    def to_csv(self) -> str:
        """A row for each image: name, class, x, y."""
        rows = (
            {"image": name, "class": self.of.class_of(i), "x": float(x), "y": float(y)}
            for i, (name, (x, y)) in enumerate(zip(self.of.names, self.places, strict=True))
        )
        return tables.to_csv(rows, {"image": str, "class": str, "x": float, "y": float})

    def figure(self):
        """The images at their places, framed in their class's colour, as a matplotlib Figure."""
        from matplotlib.figure import Figure  # here, since matplotlib takes a while to import
        from matplotlib.patches import Patch

        colours = _colours(len(self.of.classes))
        figure = Figure((10, 10.4), dpi=150, layout="constrained")
        axes = figure.subplots()
        axes.axis("off")
        axes.imshow(self._sheet(colours))
        if len(colours) <= LEGEND:
            names = [figures.plain(name) for name in self.of.classes]
            patches = [Patch(color=tuple(c / 255), label=n) for c, n in zip(colours, names, strict=True)]
            figure.legend(handles=patches, loc="outside upper center", ncols=min(len(patches), 6), fontsize=8)
        return figure

    def _sheet(self, colours: np.ndarray) -> np.ndarray:
        """`(SHEET, SHEET, 3)` uint8."""
        inner = min(round(SHEET / (1.4 * len(self.of) ** 0.5)), LARGEST)
        side = inner + 2 * FRAME
        low, span = self.places.min(0), np.ptp(self.places, axis=0).clip(min=1e-12)
        corners = ((self.places - low) / span * (SHEET - side)).round().astype(int)
        sheet = Image.new("RGB", (SHEET, SHEET), "white")
        for place, (left, top) in enumerate(corners.tolist()):
            framed = Image.new("RGB", (side, side), tuple(colours[self.of.labels[place]].tolist()))
            pixels = drawing.colour(self.of.images.take(np.array([place]))[0])
            framed.paste(Image.fromarray(pixels).resize((inner, inner)), (FRAME, FRAME))
            sheet.paste(framed, (left, top))
        return np.asarray(sheet)


def map(
    model_or_run: Model,
    data: str | None = None,
    *,
    pretrained: Pretrained = False,
    many: int = 1000,
    seed: int = 0,
    root: str | None = None,
    device: str = "auto",
    tell: Tell = print,
) -> Map:
    """Lay a data set out in the plane by what a net sees in its images.

    Args:
        model_or_run: a net, a run or its folder, or a net's name.
        data: a data set's name or a folder of class folders; None takes the run's own. Images held out are taken where
            there are some.
        pretrained: weights for a net's name: True (the best known), a tag, a file or a run folder.
        many: images at most, drawn by `seed`.
        seed: of that and of t-SNE.
        root: where named data sets lie.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
        tell: is given a line on what was passed over.

    Raises:
        InputError: for an empty folder; a net that is no run, without data; fewer than twelve images; a net to which
            all are the same.
    """
    from sklearn.decomposition import PCA  # here, since scikit-learn takes a while to import
    from sklearn.manifold import TSNE, trustworthiness

    at_least("seed", seed, 0)
    subject = Subject.open(model_or_run, pretrained, device)
    collection.expect_features(subject)
    among, held_out = collection.opened(subject, data, root, tell)
    shown = (held_out or among).some(many, seed)
    if len(shown) < LEAST:
        raise InputError(f"a map takes at least {LEAST} images, but there are {len(shown)} in {shown.source}")
    (vectors,) = collection.features(subject, shown, tell=tell)
    if not np.ptp(vectors, axis=0).any():  # scikit-learn ends the process of such
        raise InputError(f"to {subject.name} all of {shown.source} is the same: there is no map")
    few = PCA(min(COMPONENTS, *vectors.shape), random_state=seed).fit_transform(vectors)
    perplexity = min(PERPLEXITY, (len(shown) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(few)
    same = tuple(_same_class(rows, shown.labels) for rows in (vectors, places))
    return Map(subject.name, shown, places, float(trustworthiness(vectors, places, n_neighbors=NEAR)), same)


def _same_class(rows: np.ndarray, labels: np.ndarray) -> float:
    """The share of each row's NEAR nearest others that have its label."""
    from sklearn.neighbors import NearestNeighbors

    others = NearestNeighbors(n_neighbors=NEAR).fit(rows).kneighbors(return_distance=False)
    return float((labels[others] == labels[:, None]).mean())


def _colours(many: int) -> np.ndarray:
    """`(many, 3)` uint8, as different as so many can be."""
    from matplotlib import colormaps

    names = {10: "tab10", 20: "tab20"}
    name = next((name for most, name in names.items() if many <= most), "hsv")
    shares = np.arange(many) if many <= LEGEND else np.arange(many) / many
    return (colormaps[name](shares)[:, :3] * 255).round().astype(np.uint8)
