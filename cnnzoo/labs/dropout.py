"""A net with dropout is many nets in one.

A fully connected net learns a tenth of scikit-learn's digits with half of the units before its last layer left out at
random in each step, and is then asked for the others: whole, as dropout has it at the end; with units still left out,
which is one thinned net after another; and the mean of more and more of those.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

import cnnzoo
from cnnzoo.labs._lab import Seen, held_out, sheet, trained

CLAIM = (
    "A net that has learned with dropout errs less than one of the thinned nets in it, and no more than the mean of a "
    "hundred of them, at the price of one."
)
SOURCE = (
    "Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov: Dropout: A Simple Way to Prevent Neural Networks from "
    "Overfitting, JMLR 15, 2014, section 7.5 and figure 11"
)

MANY = 100  # thinned nets
ALIKE = 0.01  # accuracies that differ less count as the same


def thinned(net: nn.Module, images: Tensor) -> Tensor:
    """What thinned nets say of images `(B, C, H, W)`: probabilities `(MANY, B, K)`. The net is in eval mode again."""
    for module in net.modules():
        module.train(isinstance(module, nn.Dropout))
    with torch.no_grad():
        answers = torch.stack([net(images).softmax(1) for _ in range(MANY)])
    net.eval()
    return answers


def run(seed: int, quick: bool) -> Seen:
    with trained(config(seed, epochs=15 if quick else 50)) as done:
        net, (images, labels) = cnnzoo.load(done), held_out(done)
    truth = torch.from_numpy(labels)

    def top1(answers: Tensor) -> float:
        return (answers.argmax(-1) == truth).double().mean().item()

    answers = thinned(net, images)
    with torch.no_grad():
        whole, one = top1(net(images)), top1(answers)
    means = [top1(answers[:many].mean(0)) for many in range(1, MANY + 1)]
    return Seen(
        held=whole > one and whole > means[-1] - ALIKE,
        told=f"right: one thinned net {one:.1%}, the mean of {MANY} {means[-1]:.1%}, the whole net {whole:.1%}",
        figures={"thinned": one, "means of thinned": means, "whole": whole},
    )


def config(seed: int, epochs: int) -> dict:
    return {
        "model": {"name": "mlp", "drop_rate": 0.5, "args": {"image_size": 8, "hidden": [256, 256]}},
        "data": {"source": "digits", "size": 8, "val_fraction": 0.9, "split_seed": seed},
        "optim": {"lr": 0.1},
        "train": {"epochs": epochs, "batch_size": 32, "seed": seed},
    }


def draw(seen: Sequence[Seen]):
    figure, ((axes,),) = sheet(1, 1, 7, 4.5)
    means = 100 * np.mean([each.figures["means of thinned"] for each in seen], 0)
    axes.plot(range(1, MANY + 1), means, label="mean of so many thinned nets")
    axes.axhline(100 * np.mean([each.figures["whole"] for each in seen]), color="black", label="the whole net")
    axes.set(xlabel="thinned nets", ylabel="held out right, %", xscale="log")
    axes.legend()
    return figure
