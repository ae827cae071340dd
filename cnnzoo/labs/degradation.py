"""Deeper plain nets train worse, residual ones do not.

plain20 and plain56 are resnet20 and resnet56 without their shortcuts, and have as many weights. Here they learn
scikit-learn's digits for a few epochs, at 8x8, which takes minutes rather than the paper's days; what is compared is
the training loss, for this is no matter of overfitting.
"""

from collections.abc import Sequence

import numpy as np

from cnnzoo import bars
from cnnzoo.labs._lab import Seen, sheet, trained

CLAIM = "Of plain nets the one of 56 layers has a higher training loss than that of 20; residual nets close that gap."
SOURCE = "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, arXiv 1512.03385, figure 6"

KINDS = ("plain", "resnet")
DEPTHS = (20, 56)


def run(seed: int, quick: bool) -> Seen:
    losses = {}
    for net in bars.show([f"{kind}{depth}" for kind in KINDS for depth in DEPTHS], "degradation"):
        with trained(config(net, seed, quick)) as done:
            losses[net] = [epoch["train_loss"] for epoch in done.metrics]
    gap = {kind: losses[f"{kind}56"][-1] - losses[f"{kind}20"][-1] for kind in KINDS}
    return Seen(
        held=gap["plain"] > 0 and gap["resnet"] < gap["plain"] / 2,
        told="training loss " + ", ".join(f"{net} {history[-1]:.3f}" for net, history in losses.items()),
        figures={"train_loss": losses, "gap": gap},
    )


def config(net: str, seed: int, quick: bool) -> dict:
    return {
        "model": {"name": net},
        "data": {"source": "digits", "size": 4 if quick else 8},
        "optim": {"lr": 0.05, "weight_decay": 1e-4},
        "train": {"epochs": 3 if quick else 12, "batch_size": 128, "seed": seed},
    }


def draw(seen: Sequence[Seen]):
    figure, (axes,) = sheet(1, 2, 4.5, 4, sharey=True)
    for panel, kind in zip(axes, KINDS, strict=True):
        for depth, style in zip(DEPTHS, ("-", "--"), strict=True):
            losses = np.mean([each.figures["train_loss"][f"{kind}{depth}"] for each in seen], 0)
            panel.plot(range(1, len(losses) + 1), losses, style, label=f"{kind}{depth}")
        panel.set(xlabel="epoch", ylabel="training loss", ylim=0)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.legend()
    return figure
