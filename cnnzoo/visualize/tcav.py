"""How much a concept that somebody shows by examples counts for a net's answer.

Testing with concept activation vectors (Kim, Wattenberg, Gilmer, Cai, Wexler, Viegas, Sayres, ICML 2018, arXiv
1711.11279): in what a layer says, the direction from random images to those of a concept is found by a linear
classifier. The score is the share of a class's images for which the class becomes likelier along it. Any direction
gives some score, so those of random images against other random ones are set beside it.

Three things are not as in the paper. What rises or falls are the class's log-odds against all others, not its logit,
since many directions raise all logits at once: by logits, drawn digits speak for a bee almost as much as tulips. (The
authors' own code takes the cross-entropy, whose sign is the same.) The classifier is ridge regression, in closed form.
And what chance can do is found by dealing the pictures out anew, to a concept and random sets of the same sizes, rather
than by a t-test of the scores. A concept's scores share its pictures, so that a t-test, or a permutation of scores,
takes a few pictures for much evidence: by SqueezeNet's stage3 and bees, 18 of 60 sets of ten random photos passed for a
concept at 5 %.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import cross_val_score
from torch import Tensor

from cnnzoo import bars, figures, tables
from cnnzoo.data.pictures import Pictures, is_hidden
from cnnzoo.errors import InputError, at_least
from cnnzoo.paths import expanded
from cnnzoo.telling import Tell
from cnnzoo.visualize import drawing
from cnnzoo.visualize.hooks import untouched, watching
from cnnzoo.visualize.subject import Model, Pretrained, Subject

BATCH = 32
CHANCE = 0.05
LEAST = 10  # pictures of a concept, and of a random set
MOST = 100  # pictures of a concept, and at random
FEWEST_SETS, SETS = 4, 10  # of random pictures
DEALS = 200  # of all pictures to a concept and random sets, at least


@dataclass(frozen=True)
class Tested:
    """One concept."""

    name: str
    scores: np.ndarray  # (R,): against each random set, the share of images whose class it makes likelier
    accuracy: float  # of telling its pictures from random ones, cross-validated; by chance 0.5
    p: float  # of a mean score so far from the usual one, by chance; times the number of concepts


@dataclass(frozen=True)
class Tcav(drawing.Result):
    """Concepts, and what they count for one class."""

    net: str
    layer: str
    class_name: str
    images: int  # of the class
    concepts: tuple[Tested, ...]
    random: np.ndarray  # (R,): the scores of random pictures against others

    def __str__(self) -> str:
        told = [
            f"{each.name} {each.scores.mean():.2f} (p = {each.p:.2g}{'' if each.p < CHANCE else ', as by chance'})"
            for each in self.concepts
        ]
        return (
            f"TCAV of {self.class_name} in layer {self.layer} of {self.net} over {self.images} images: "
            f"{', '.join(told)}; random {self.random.mean():.2f}"
        )

    def to_csv(self) -> str:
        """A row for each concept: concept, score, deviation, accuracy, p; and one for the random pictures."""
        rows = [
            {
                "concept": each.name,
                "score": float(each.scores.mean()),
                "deviation": float(each.scores.std()),
                "accuracy": each.accuracy,
                "p": each.p,
            }
            for each in self.concepts
        ]
        random = {"concept": "random", "score": float(self.random.mean()), "deviation": float(self.random.std())}
        rows.append(random | {"accuracy": None, "p": None})
        return tables.to_csv(rows, {"concept": str, "score": float, "deviation": float, "accuracy": float, "p": float})

    def figure(self):
        """A bar for each concept, with the deviation over the random sets; grey where it is as by chance."""
        from matplotlib.figure import Figure  # here, since matplotlib takes a while to import

        figure = Figure((2 + 1.2 * (len(self.concepts) + 1), 4), layout="constrained")
        axes = figure.subplots()
        names = [*(figures.plain(each.name) for each in self.concepts), "random"]
        scores = [*(each.scores for each in self.concepts), self.random]
        colours = [*("tab:blue" if each.p < CHANCE else "lightgrey" for each in self.concepts), "lightgrey"]
        heights, deviations = [each.mean() for each in scores], [each.std() for each in scores]
        axes.bar(names, heights, yerr=deviations, color=colours, capsize=4)
        axes.axhline(0.5, color="grey", linewidth=1)
        title = figures.plain(f"{self.class_name}, layer {self.layer} of {self.net}")
        axes.set(ylim=(0, 1.05), ylabel="TCAV score", title=title)
        return figure


def tcav(
    model_or_run: Model,
    images: str | Path | Sequence,
    concepts: str | Path,
    random: str | Path,
    layer: str | None = None,
    class_: str | int | None = None,
    *,
    pretrained: Pretrained = False,
    seed: int = 0,
    device: str = "auto",
    tell: Tell = print,
) -> Tcav:
    """Test what concepts count for a class.

    Args:
        model_or_run: a net, a run or its folder, or a net's name.
        images: of the class: files, folders, patterns, PIL images or uint8 arrays.
        concepts: a folder with a folder of pictures for each concept, as striped/ and dotted/: ten or more, of which at
            most 100 are drawn.
        random: a folder of pictures of anything, forty or more, of which at most 100 are dealt out to ten sets, or to
            fewer of ten each.
        layer: a stage's name or a module's path; None is the last stage that gives maps.
        class_: the class, by name or number; None is the one that most of the images are taken for.
        pretrained: weights for a net's name: True (the best known), a tag, a file or a run folder.
        seed: of the pictures drawn, and of how they are dealt out.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
        tell: is given a line on pictures that cannot be read, which are left out.

    Raises:
        InputError: for a layer or a class that is not there; a concept of fewer than ten pictures; too few random
            ones; a folder in which none can be read.
    """
    at_least("seed", seed, 0)
    subject = Subject.open(model_or_run, pretrained, device)
    layer = subject.layer(layer)
    number = None if class_ is None else subject.class_number(class_)
    folders = _folders(expanded(concepts))
    shown = {folder.name: subject.look(_drawn(folder, MOST, seed), tell=tell).x for folder in folders}
    for name, pictures in shown.items():
        if len(pictures) < LEAST:
            raise InputError(f"concept {name} has {len(pictures)} pictures, but {LEAST} at least are needed")
    anything = subject.look(_drawn(random, MOST, seed), tell=tell).x
    many = min(SETS, len(anything) // LEAST)
    if many < FEWEST_SETS:
        raise InputError(
            f"{random} has {len(anything)} pictures, but {FEWEST_SETS * LEAST} at least are needed at random"
        )
    anything = anything[: len(anything) // many * many]  # which are in no order, for sets of one size
    slopes, number = _slopes(subject, layer, subject.look(images, tell=tell).x, number)
    beside = _said(subject, layer, anything)
    if not np.ptp(beside, axis=0).any():
        raise InputError(f"layer {layer} of {subject.name} says the same of all pictures, so it knows no concepts")
    tested = tuple(
        _tested(name, _said(subject, layer, pictures), beside, many, slopes, len(shown), seed)
        for name, pictures in shown.items()
    )
    sets, by_chance = np.arange(len(beside)).reshape(many, -1), _Directions(beside, slopes)
    others = np.roll(sets, -1, axis=0)
    scores = [by_chance.scores(one, other[None])[0] for one, other in zip(sets, others, strict=True)]
    return Tcav(subject.name, layer, subject.classes[number], len(slopes), tested, np.array(scores))


def _folders(concepts: Path) -> list[Path]:
    """One for each concept, in order."""
    if not concepts.is_dir():
        raise InputError(f"there is no folder {concepts}")
    folders = sorted(entry for entry in concepts.iterdir() if entry.is_dir() and not is_hidden(entry.name))
    if not folders:
        raise InputError(
            f"{concepts} holds no folders; put the pictures of each concept into one of the concept's name"
        )
    return folders


def _drawn(folder: str | Path, many: int, seed: int) -> list[str]:
    """At most so many of a folder's files, drawn at random."""
    files = list(Pictures(folder))
    return [files[place] for place in np.random.default_rng(seed).permutation(len(files))[:many]]


def _said(subject: Subject, layer: str, pictures: Tensor) -> np.ndarray:
    """What the layer says of pictures `(n, C, H, W)`: `(n, D)` float32, all its places in a row."""
    said = []
    with untouched(subject.net) as net, torch.no_grad(), watching(net, layer) as outputs:
        for part in _parts(pictures, layer):
            net(part)
            said.append(outputs[layer].flatten(1).cpu().numpy())
    return np.concatenate(said)


def _slopes(subject: Subject, layer: str, pictures: Tensor, number: int | None) -> tuple[np.ndarray, int]:
    """How the evidence for a class changes with what the layer says, `(n, D)` float32, and the class, which for None is
    the one that most of the pictures are taken for.
    """
    slopes = []
    with untouched(subject.net) as net:
        if number is None:
            with torch.no_grad():
                taken_for = torch.cat([net(part).argmax(1) for part in pictures.split(BATCH)])
            number = int(taken_for.mode().values)
        with torch.enable_grad(), watching(net, layer) as outputs:
            for part in _parts(pictures, layer):
                odds = _log_odds(net(part), number).sum()
                slopes.append(torch.autograd.grad(odds, outputs[layer])[0].flatten(1).cpu().numpy())
    return np.concatenate(slopes), number


def _log_odds(logits: Tensor, number: int) -> Tensor:
    """`(n,)`, of a class against all others, from logits `(n, K)`, K at least 2."""
    is_own = torch.arange(logits.shape[1], device=logits.device) == number
    return logits[:, number] - logits.masked_fill(is_own, -torch.inf).logsumexp(1)


def _parts(pictures: Tensor, layer: str) -> Iterable[Tensor]:
    return bars.show(pictures.split(BATCH), desc=f"layer {layer}", unit="batch")


class _Directions:
    """The directions from some pictures to others, in what a layer says of them all, `(N, D)`, and whether a class's
    evidence, with `slopes` `(M, D)`, rises along them.

    Only products of pictures with each other and with slopes are kept, of which all directions can be had.
    """

    def __init__(self, said: np.ndarray, slopes: np.ndarray):
        said = said - said.mean(axis=0)
        self.gram, self.rises = (each.astype(np.float64) for each in (said @ said.T, slopes @ said.T))
        self.spread = self.gram.trace() / len(said)  # the mean squared distance from the mean

    def scores(self, examples: np.ndarray, others: np.ndarray) -> np.ndarray:
        """`(R,)`, of the examples, which lie at `(n,)`, against each set of others, at `(R, m)`: the share of the M
        images for which the class becomes likelier from the others to the examples.

        The direction is that of ridge regression to 1 and -1, where either side weighs half, and the penalty is the
        pictures' spread; in its dual form, since there are fewer pictures than numbers that the layer says.
        """
        places = np.concatenate([np.broadcast_to(examples, (len(others), len(examples))), others], axis=1)
        sides = np.repeat([1.0, -1.0], [len(examples), others.shape[1]])
        weights = np.repeat([0.5 / len(examples), 0.5 / others.shape[1]], [len(examples), others.shape[1]])
        gram = self.gram[places[:, :, None], places[:, None, :]]
        means = gram @ weights
        gram = gram - means[:, :, None] - means[:, None, :] + (means @ weights)[:, None, None]
        penalty = np.diag(self.spread / (weights * len(weights)))
        along = np.linalg.solve(gram + penalty, np.broadcast_to(sides, places.shape)[:, :, None])
        rises = self.rises[:, places].swapaxes(0, 1)  # (R, M, n + m)
        return ((rises - (rises @ weights)[:, :, None]) @ along > 0).mean(axis=(1, 2))


def _tested(
    name: str, own: np.ndarray, beside: np.ndarray, sets: int, slopes: np.ndarray, concepts: int, seed: int
) -> Tested:
    """A concept of which the layer says `own` `(n, D)`, and of random pictures, in so many sets, `beside`."""
    said, is_own = np.concatenate([own, beside]), np.arange(len(own) + len(beside)) < len(own)
    directions = _Directions(said, slopes)

    def scores(order: np.ndarray) -> np.ndarray:
        return directions.scores(order[: len(own)], order[len(own) :].reshape(sets, -1))

    rng, places = np.random.default_rng(seed), np.arange(len(said))
    deals = max(DEALS, round(2 * concepts / CHANCE))  # so that p can fall below CHANCE, whatever the number of concepts
    found, *dealt = (scores(order) for order in (places, *(rng.permutation(places) for _ in range(deals - 1))))
    means = np.array([found.mean(), *(each.mean() for each in dealt)])
    far = np.abs(means - means.mean())
    p = float((far >= far[0] - 1e-9).mean())
    classifier = RidgeClassifier(alpha=directions.spread, class_weight="balanced")
    accuracy = cross_val_score(classifier, said, is_own, cv=3, scoring="balanced_accuracy").mean()
    return Tested(name, found, float(accuracy), min(p * concepts, 1.0))
