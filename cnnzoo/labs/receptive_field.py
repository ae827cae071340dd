"""How much of the image a unit could see, and how much it does see.

The theoretical receptive field follows from kernels and strides and grows evenly with depth. The effective one is
where the gradient of the unit by the image is not next to nothing: the pixels in which its root mean square over images
exceeds 4.55 % of the largest, and its side is the root of their number (section 3 of the paper). Since central pixels
reach the unit along many more paths, it is like a Gaussian, and in nets of random weights it grows like the root of
depth.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

import cnnzoo
from cnnzoo.labs._lab import Seen, sheet, show

CLAIM = "The effective receptive field is a part of the theoretical one, and a smaller and smaller part as nets deepen."
SOURCE = (
    "Luo, Li, Urtasun, Zemel: Understanding the Effective Receptive Field in Deep Convolutional Neural Networks, "
    "NIPS 2016, arXiv 1701.04128"
)

DEPTHS = (5, 10, 20, 40)
QUICK_DEPTHS = (5, 10, 20)
# Nets of random weights, left out by --quick, and the side of an image that holds all that their middle unit could see.
NETS = {"alexnet": 256, "vgg11": 160, "resnet18": 448}
FAINT = 1 - 0.9545  # of the largest gradient
IMAGES = 16  # over two, chance makes the largest gradient larger, and resnet18's field seem a tenth smaller
AT_ONCE = 4


def plain(depth: int, channels: int = 8) -> nn.Sequential:
    """3x3 convolutions and ReLU, of He's random weights."""
    layers = []
    for number in range(depth):
        layer = nn.Conv2d(channels if number else 1, channels, 3, padding=1)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers)


def sensitivity(features: nn.Module, images: Tensor) -> np.ndarray:
    """`(H, W)`: the gradient of the unit in the middle by each pixel, as its root mean square over channels and images
    `(B, C, H, W)`; each image has another random mixture of the unit's channels.
    """
    squares = []
    for part in images.split(AT_ONCE):
        maps = features(part.requires_grad_())
        middle = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]
        (gradient,) = torch.autograd.grad((middle * torch.randn_like(middle)).sum(), part)
        squares.append(gradient.square().mean(1))
    return torch.cat(squares).mean(0).sqrt().numpy()


def effective(sensitivity: np.ndarray) -> float:
    """The side of the effective receptive field, in pixels."""
    return float(np.sqrt((sensitivity > FAINT * sensitivity.max()).sum()))


def theoretical(net: nn.Module, size: tuple[int, int, int]) -> int:
    """The side of the receptive field of the last layer that does not see the whole image."""
    return max(row.receptive_field or 0 for row in cnnzoo.summary(net, size).rows)


def run(seed: int, quick: bool) -> Seen:
    fields, pictures = {}, {}
    for depth in QUICK_DEPTHS if quick else DEPTHS:
        net, side = plain(depth), 2 * depth + 1
        pictures[f"{depth} layers"] = sensitivity(net, torch.randn(IMAGES, 1, side, side))
        fields[f"{depth} layers"] = (theoretical(net, (1, side, side)), effective(pictures[f"{depth} layers"]))
    shares = [seen / could for could, seen in fields.values()]
    for name, side in ({} if quick else NETS).items():
        net = cnnzoo.create(name).eval()
        pictures[name] = sensitivity(net.forward_features, torch.randn(IMAGES, 3, side, side))
        fields[name] = (theoretical(net, (3, side, side)), effective(pictures[name]))
    smaller = all(seen <= could for could, seen in fields.values())
    return Seen(
        held=smaller and all(deeper < shallower for shallower, deeper in pairwise(shares)),
        told=", ".join(f"{name} {seen:.0f} of {could}" for name, (could, seen) in fields.items()) + " pixels",
        figures={name: {"theoretical": could, "effective": seen} for name, (could, seen) in fields.items()},
        pictures=pictures,
    )


def draw(seen: Sequence[Seen]):
    pictures = seen[0].pictures
    figure, grid = sheet(2, math.ceil((len(pictures) + 1) / 2))
    axes = grid.flatten()
    for panel, (name, picture) in zip(axes, pictures.items(), strict=False):
        field = seen[0].figures[name]
        show(panel, picture, f"{name}: {field['effective']:.0f} of {field['theoretical']} pixels", cmap="magma")
    plain = [name for name in pictures if name.endswith("layers")]
    depths = [int(name.split()[0]) for name in plain]
    for kind in ("theoretical", "effective"):
        axes[-1].plot(
            depths, [np.mean([each.figures[name][kind] for each in seen]) for name in plain], "o-", label=kind
        )
    axes[-1].set(xlabel="3x3 convolutions", ylabel="side in pixels")
    axes[-1].legend(fontsize="small")
    return figure
