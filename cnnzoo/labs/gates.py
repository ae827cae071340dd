"""How far the gates of a highway net open, by depth and by class.

Each of the net's layers has fifty units, and each unit a gate T between 0 and 1: how much of what the layer makes of
its input goes on, the rest being the input itself. The net learns scikit-learn's digits; then T is looked at for the
images that were held out.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

import cnnzoo
from cnnzoo.labs._lab import Seen, held_out, sheet, show, trained

CLAIM = (
    "A trained highway net passes most of what it gets on unchanged (its gates are open by less than half), and which "
    "gates open depends on the class, more so than before training."
)
SOURCE = "Srivastava, Greff, Schmidhuber: Training Very Deep Networks, NIPS 2015, arXiv 1507.06228, section 4.1"

EPOCHS = 20
QUICK_EPOCHS = 8


def gates(net: nn.Module, images: Tensor) -> np.ndarray:
    """T of each unit for images `(B, C, H, W)`: `(B, layers, units)`, layers in the order in which they run."""
    return torch.stack([*net.gates(images).values()], 1).numpy()


def by_class(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean over the images of each class: `(10, layers, units)`."""
    return np.stack([values[labels == label].mean(0) for label in range(10)])


def explained(values: np.ndarray, labels: np.ndarray) -> float:
    """The share of the gates' variance over images that lies between classes."""
    return float(by_class(values, labels)[labels].var(0).sum() / values.var(0).sum())


def run(seed: int, quick: bool) -> Seen:
    name = "highway_fc10" if quick else "highway_fc50"
    with trained(config(name, seed, QUICK_EPOCHS if quick else EPOCHS)) as done:
        images, labels = held_out(done)
        trained_gates = gates(cnnzoo.load(done), images)
        top1 = max(epoch["val_top1"] for epoch in done.metrics)  # of the weights that are loaded
    before, after = explained(gates(cnnzoo.create(name).eval(), images), labels), explained(trained_gates, labels)
    mean, open_ = trained_gates.mean(), (trained_gates > 0.5).mean()
    return Seen(
        held=mean < 0.5 and after > before,
        told=f"{name} reads {top1:.1%} and opens its gates by {mean:.2f} on average ({open_:.1%} by more than half); "
        f"the class explains {after:.0%} of how they differ from image to image, before training {before:.0%}",
        figures={"net": name, "top1": top1, "mean": float(mean), "explained": after, "explained before": before}
        | {"by depth": trained_gates.mean((0, 2)).tolist()},
        pictures={"by class": by_class(trained_gates, labels)},
    )


def config(name: str, seed: int, epochs: int) -> dict:
    return {
        "model": {"name": name},
        "data": {"source": "digits"},
        "optim": {"name": "adam", "lr": 3e-3},
        "train": {"epochs": epochs, "batch_size": 64, "seed": seed},
    }


def draw(seen: Sequence[Seen]):
    by_class = seen[0].pictures["by class"]  # (10, layers, units)
    figure, (axes,) = sheet(1, 3, 4.5, 4)
    for each in seen:
        axes[0].plot(range(1, by_class.shape[1] + 1), each.figures["by depth"], "o-", markersize=3)
    axes[0].set(xlabel="layer", ylabel="mean opening, a line for each seed", ylim=(0, 1))
    apart = (by_class - by_class.mean(0)).mean(2)
    scale = {"cmap": "RdBu_r", "vmin": -abs(apart).max(), "vmax": abs(apart).max()}
    opening = show(axes[1], apart, "opening by class, less the mean", aspect="auto", **scale)
    axes[1].set(xlabel="layer", ylabel="digit", yticks=range(10))
    most = by_class.var(0).mean(1).argmax()
    scale = {"cmap": "magma", "vmin": 0, "vmax": 1}
    gates = show(axes[2], by_class[:, most], f"the gates of layer {most + 1}, by class", aspect="auto", **scale)
    axes[2].set(xlabel="gate", ylabel="digit", yticks=range(10))
    for panel, image in zip(axes[1:], (opening, gates), strict=True):
        figure.colorbar(image, ax=panel)
    return figure
