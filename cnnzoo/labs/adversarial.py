"""A net errs on images that it would read well, had not each pixel been changed a little in the worst direction.

LeNet-5 learns scikit-learn's digits. Then every pixel of the held-out ones becomes brighter or darker by the same step:
as the sign of the loss's gradient by that pixel says (the fast gradient sign method), or as a coin says.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cnnzoo
from cnnzoo.labs._lab import Seen, held_out, sheet, show, trained

CLAIM = (
    "A step of every pixel along the sign of the loss's gradient makes a net err on most images; steps as large in "
    "random directions do it no harm."
)
SOURCE = (
    "Goodfellow, Shlens, Szegedy: Explaining and Harnessing Adversarial Examples, ICLR 2015, arXiv 1412.6572, section "
    "4; first seen by Szegedy and others: Intriguing properties of neural networks, ICLR 2014, arXiv 1312.6199"
)

LEVELS = (0, 4, 8, 16, 24, 32, 48)  # how large a step is, of 255
WAYS = ("along the gradient", "at random")
HARMLESS = 0.03  # of accuracy
SHOWN = 4  # images


def directions(net: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """For each way a direction of every pixel, -1, 0 or 1, like `images` `(B, C, H, W)`."""
    pixels = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(net(pixels), labels), pixels)
    return dict(zip(WAYS, (gradient.sign(), torch.randn_like(images).sign()), strict=True))


def stepped(images: Tensor, direction: Tensor, levels: int) -> Tensor:
    """Images of 0 to 1 after a step of so many levels of 255."""
    return (images + levels / 255 * direction).clamp(0, 1)


def run(seed: int, quick: bool) -> Seen:
    with trained(config(seed, epochs=3 if quick else 5)) as done:
        net, (images, labels) = cnnzoo.load(done), held_out(done)
    truth = torch.from_numpy(labels)
    towards = directions(net, images, truth)
    with torch.no_grad():
        answers = {
            way: torch.stack([net(stepped(images, direction, levels)).argmax(1) for levels in LEVELS])
            for way, direction in towards.items()
        }
    top1 = {way: (given == truth).double().mean(1).tolist() for way, given in answers.items()}
    worst, chance = (answers[way] for way in WAYS)
    fooled = ((worst[0] == truth) & (worst[-1] != truth)).nonzero()[:SHOWN, 0]
    rows = {"as they are": images, **{way: stepped(images, towards[way], LEVELS[-1]) for way in WAYS}}
    read = dict(zip(rows, (worst[0], worst[-1], chance[-1]), strict=True))
    before, after, by_chance = top1[WAYS[0]][0], *(top1[way][-1] for way in WAYS)
    return Seen(
        held=after < 0.5 and by_chance > before - HARMLESS,
        told=f"right {before:.1%}; after a step of {LEVELS[-1]} levels of 255 along the gradient's sign {after:.1%}, "
        f"at random {by_chance:.1%}",
        figures={"levels": list(LEVELS), "top1": top1, "read": {row: read[row][fooled].tolist() for row in rows}},
        pictures={row: pixels[fooled, 0].numpy() for row, pixels in rows.items()},
    )


def config(seed: int, epochs: int) -> dict:
    return {
        "model": {"name": "lenet5"},
        "data": {"source": "digits", "split_seed": seed, "mean": [0.0], "std": [1.0]},
        "optim": {"lr": 0.05, "weight_decay": 5e-4},
        "train": {"epochs": epochs, "batch_size": 32, "seed": seed},
    }


def draw(seen: Sequence[Seen]):
    first = seen[0]
    figure, axes = sheet(3, SHOWN + 2, 1.7, 1.9)
    for row, (name, images) in zip(axes, first.pictures.items(), strict=True):
        row[0].set_ylabel(name, fontsize="small")
        for panel, image, digit in zip(row, images, first.figures["read"][name], strict=False):
            show(panel, image, f"read as {digit}", vmin=0, vmax=1)
    for panel in axes[:, SHOWN:].flat:
        panel.remove()
    panel = figure.add_subplot(axes[0, 0].get_gridspec()[:, SHOWN:])
    for way, style in zip(WAYS, ("o-", "s-"), strict=True):
        top1 = 100 * np.mean([each.figures["top1"][way] for each in seen], 0)
        panel.plot(LEVELS, top1, style, label=way)
    panel.set(xlabel="step of every pixel, levels of 255", ylabel="held out right, %", ylim=(0, 102))
    panel.legend(fontsize="small", loc="lower left")
    return figure
