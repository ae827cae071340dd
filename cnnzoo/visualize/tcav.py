"""How much a concept that somebody shows by examples counts for a net's answer.

Testing with concept activation vectors (Kim, Wattenberg, Gilmer, Cai, Wexler, Viegas, Sayres, ICML 2018, arXiv
1711.11279): in what a layer says, the direction from random images to those of a concept is found by a linear
classifier. The score is the share of a class's images for which the class becomes likelier along it. Any direction
gives some score, so those of random images against other random ones are set beside it.

Two things are not as in the paper. What rises or falls are the class's log-odds against all others, not its logit,
since many directions raise all logits at once: by logits, drawn digits speak for a bee almost as much as tulips. (The
authors' own code takes the cross-entropy, whose sign is the same.) And a permutation test compares the scores rather
than a t-test, since scores that are all 1 or all 0 have no deviation to divide by.

Either test takes a concept's scores for independent, though all of them share its pictures. So p is too small where
these are few: of random photos in a concept's place, by SqueezeNet's stage3 and bees, p is below 5 % (before it is
multiplied by the number of concepts) for 14 of 160 sets of 40 photos, and for 18 of 60 sets of ten.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from torch import Tensor

from cnnzoo import bars, figures, tables
from cnnzoo.data.pictures import Pictures, is_hidden
from cnnzoo.errors import InputError, at_least
from cnnzoo.visualize import drawing
from cnnzoo.visualize.hooks import untouched, watching
from cnnzoo.visualize.subject import Model, Pretrained, Subject

BATCH = 32
CHANCE = 0.05
LEAST = 10  # pictures of a concept, and of a random set
MOST, MOST_RANDOM = 40, 100  # of a concept, and at random
SETS = 10  # of random pictures, at most
FEWEST_SETS = 4  # with fewer no p-value can fall below 5 %


@dataclass(frozen=True)
class Tested:
    """One concept."""

    name: str
    scores: np.ndarray  # (R,): against each random set, the share of images whose class it makes likelier
    accuracy: float  # of telling its pictures from random ones, cross-validated; by chance 0.5
    p: float  # of scores so different from those of random directions, by chance; times the number of concepts


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
) -> Tcav:
    """Test what concepts count for a class.

    Args:
        model_or_run: a net, a run or its folder, or a net's name.
        images: of the class: files, folders, patterns, PIL images or uint8 arrays.
        concepts: a folder with a folder of pictures for each concept, as striped/ and dotted/: ten or more, of which at
            most forty are drawn.
        random: a folder of pictures of anything, forty or more, of which at most 100 are dealt out to ten sets, or to
            fewer of ten each.
        layer: a stage's name or a module's path; None is the last stage that gives maps.
        class_: the class, by name or number; None is the one that most of the images are taken for.
        pretrained: weights for a net's name: True (the best known), a tag, a file or a run folder.
        seed: of the pictures drawn, and of the sets.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …

    Raises:
        InputError: for a layer or a class that is not there; a concept of fewer than ten pictures; too few random
            ones; a file that is no picture.
    """
    at_least("seed", seed, 0)
    subject = Subject.open(model_or_run, pretrained, device)
    layer = subject.layer(layer)
    number = None if class_ is None else subject.class_number(class_)
    folders = _folders(Path(os.path.expanduser(concepts)))
    shown = {folder.name: subject.look(_drawn(folder, MOST, seed)).x for folder in folders}
    for name, pictures in shown.items():
        if len(pictures) < LEAST:
            raise InputError(f"concept {name} has {len(pictures)} pictures, but {LEAST} at least are needed")
    sets = _sets(subject.look(_drawn(random, MOST_RANDOM, seed)).x, str(random))
    slopes, number = _slopes(subject, layer, subject.look(images).x, number)
    rows = [_said(subject, layer, pictures) for pictures in (*shown.values(), *sets)]

    # A direction that tells n pictures apart lies in what they span: there, n coordinates each are all that counts.
    basis, own = np.linalg.qr(np.concatenate(rows).T)  # (D, n), (n, n)
    slopes, scale = slopes @ basis, own.std()
    if scale == 0:
        raise InputError(f"layer {layer} of {subject.name} says nothing of any picture, so it knows no concepts")
    rows = np.split(own.T / scale, np.cumsum([len(each) for each in rows])[:-1])
    anything = rows[len(shown) :]
    by_chance = np.array([_score(a, b, slopes) for a, b in zip(anything, anything[1:] + anything[:1], strict=True)])
    tested = tuple(
        _tested(name, own, anything, slopes, by_chance, len(shown)) for name, own in zip(shown, rows, strict=False)
    )
    return Tcav(subject.name, layer, subject.classes[number], len(slopes), tested, by_chance)


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


def _sets(pictures: Tensor, source: str) -> list[Tensor]:
    """The pictures, which are in no order, dealt out to sets of one size."""
    many = min(SETS, len(pictures) // LEAST)
    if many < FEWEST_SETS:
        raise InputError(
            f"{source} has {len(pictures)} pictures, but {FEWEST_SETS * LEAST} at least are needed at random"
        )
    return list(pictures.split(len(pictures) // many)[:many])


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


def _classifier() -> LogisticRegression:
    return LogisticRegression(class_weight="balanced", max_iter=1000)


def _together(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as rows, and which of them are `a`."""
    return np.concatenate([a, b]), np.arange(len(a) + len(b)) < len(a)


def _score(examples: np.ndarray, others: np.ndarray, slopes: np.ndarray) -> float:
    """The share of images whose output rises along the direction from the others to the examples."""
    direction = _classifier().fit(*_together(examples, others)).coef_[0]
    return float((slopes @ direction > 0).mean())


def _tested(
    name: str, own: np.ndarray, anything: list[np.ndarray], slopes: np.ndarray, by_chance: np.ndarray, concepts: int
) -> Tested:
    scores = np.array([_score(own, other, slopes) for other in anything])
    rows, is_own = _together(own, np.concatenate(anything))
    accuracy = cross_val_score(_classifier(), rows, is_own, cv=3, scoring="balanced_accuracy").mean()
    return Tested(name, scores, float(accuracy), min(_p(scores, by_chance) * concepts, 1.0))


def _p(a: np.ndarray, b: np.ndarray) -> float:
    """Of all ways to deal the 2R scores out to two halves, the share in which they differ as much as `a` and `b`."""
    scores = np.concatenate([a, b])
    ways = combinations(range(len(scores)), len(a))
    halves = np.fromiter(chain.from_iterable(ways), int).reshape(-1, len(a))
    gaps = np.abs(scores[halves].sum(1) - scores.sum() / 2)
    return float((gaps >= abs(a.sum() - b.sum()) / 2 - 1e-9).mean())
