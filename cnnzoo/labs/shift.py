"""What becomes of an image's features when the image moves.

A convolution's maps move along with the image (equivariance): filter, then shift is shift, then filter. With strides
that is so only for shifts by whole strides. What is pooled after it changes less and less the larger the windows are,
and the mean of a whole map does not change at all (invariance). The image is a photo that goes on at its opposite side,
so that shifting loses nothing, and the filters are random: nothing of this is learned.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, pad, relu

from cnnzoo.labs._lab import Seen, photo, sheet, show

CLAIM = (
    "A convolution's maps move with the image, with strides only by whole strides; and max-pooled, they change the "
    "less by a small shift, the larger the windows are."
)
SOURCE = (
    "Goodfellow, Bengio, Courville: Deep Learning, 2016, sections 9.2 and 9.3; on strides, Zhang: Making Convolutional "
    "Networks Shift-Invariant Again, ICML 2019, arXiv 1904.11486"
)

WINDOWS = (1, 2, 4, 8)  # sides of the pooling windows, 1 for none
SHIFTS = range(9)  # pixels to the right
EXACT = 1e-5  # of what is as large as 1, in single precision


def filtered(image: Tensor, filters: Tensor, stride: int = 1) -> Tensor:
    """ReLU of the convolution of an image `(H, W)`, which goes on at its opposite side: maps `(C, h, w)`."""
    around = filters.shape[-1] // 2
    return relu(conv2d(pad(image[None, None], (around,) * 4, mode="circular"), filters, stride=stride))[0]


def changed(before: Tensor, after: Tensor) -> float:
    """How far features are from what they were: the length of the difference over that of their own variation."""
    return ((after - before).norm() / (before - before.mean((1, 2), keepdim=True)).norm()).item()


def run(seed: int, quick: bool) -> Seen:
    image = photo(seed, 128 if quick else 256)
    filters = torch.randn(16, 1, 5, 5) / 5
    maps, halved = filtered(image, filters), filtered(image, filters, stride=2)

    apart = {}
    for name, before, stride, by in (
        ("stride 1", maps, 1, 1),
        ("stride 2, by 1", halved, 2, 1),
        ("by 2", halved, 2, 2),
    ):
        after = filtered(image.roll(by, 1), filters, stride)
        apart[name] = changed(before.roll(by // stride, 2), after)

    changes = {window: [] for window in WINDOWS}
    for by in SHIFTS:
        moved = filtered(image.roll(by, 1), filters)
        for window in WINDOWS:
            changes[window].append(changed(max_pool2d(maps, window), max_pool2d(moved, window)))
    at_one = [changes[window][1] for window in WINDOWS]
    falls = all(larger < smaller for smaller, larger in pairwise(at_one))
    means = (filtered(image.roll(1, 1), filters).mean((1, 2)) / maps.mean((1, 2)) - 1).abs().max().item()

    equivariant = apart["stride 1"] < EXACT and apart["by 2"] < EXACT < apart["stride 2, by 1"]
    told = ", ".join(f"{value:.2f}" for value in at_one)
    return Seen(
        held=equivariant and falls and means < EXACT,
        told=f"maps move along to within {apart['stride 1']:.1g} (stride 2: {apart['by 2']:.1g} by 2 pixels, "
        f"{apart['stride 2, by 1']:.2f} by 1); by 1 pixel, windows of {', '.join(map(str, WINDOWS))} change by {told}",
        figures={"not equivariant": apart, "changes": changes, "of the mean": means},
        pictures={
            "image": image.numpy(),
            "map": maps[0].numpy(),
            "moved": filtered(image.roll(32, 1), filters)[0].numpy(),
        },
    )


def draw(seen: Sequence[Seen]):
    figure, (axes,) = sheet(1, 4, 3.4)
    pictures = seen[0].pictures
    show(axes[0], pictures["image"], "image")
    brightest = pictures["map"].max() / 2  # few places are so bright
    show(axes[1], pictures["map"], "a map", vmax=brightest)
    show(axes[2], pictures["moved"], "the map of the image moved by 32 pixels", vmax=brightest)
    for window in WINDOWS:
        changes = np.mean([each.figures["changes"][window] for each in seen], 0)
        axes[3].plot(SHIFTS, changes, "o-", label=f"max {window}x{window}" if window > 1 else "not pooled")
    axes[3].set(xlabel="shift in pixels", ylabel="change of features", ylim=0)
    axes[3].legend(fontsize="small")
    return figure
