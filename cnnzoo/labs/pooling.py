"""Three ways to make maps smaller: the largest value of each window, the mean of it, or one value out of it.

The maps are edges of a photo, behind ReLU as in a net. Asked is what the smaller maps still say: how strong the
strongest answers are (the top hundredth, over that of the whole maps), and how much of it changes as the photo moves by
a pixel. One value out of each window, which is what strides give, is as strong but flickers; the mean is steady but
dilutes.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d, pad, relu

from cnnzoo.labs._lab import Seen, photo, sheet, show

CLAIM = (
    "Max pooling keeps the strongest answers, which the mean dilutes, and changes less than one value of each window "
    "does when the image moves by a pixel."
)
SOURCE = (
    "Scherer, Müller, Behnke: Evaluation of Pooling Operations in Convolutional Architectures for Object Recognition, "
    "ICANN 2010; Zhang: Making Convolutional Networks Shift-Invariant Again, ICML 2019, arXiv 1904.11486"
)

WINDOWS = (2, 4)
WAYS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "largest": max_pool2d,
    "mean": avg_pool2d,
    "one": lambda maps, window: maps[:, ::window, ::window],
}
STRONGEST = 0.01  # share of values
SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])


def edges(image: Tensor) -> Tensor:
    """Of an image `(H, W)`, which goes on at its opposite side: maps `(4, H, W)` of edges bright to each side."""
    filters = torch.stack([SOBEL.rot90(quarter) for quarter in range(4)])[:, None]
    return relu(conv2d(pad(image[None, None], (1,) * 4, mode="circular"), filters))[0]


def strength(maps: Tensor) -> float:
    """The mean of the strongest answers."""
    many = max(round(STRONGEST * maps.numel()), 1)
    return maps.flatten().topk(many).values.mean().item()


def run(seed: int, quick: bool) -> Seen:
    image = photo(seed, 128 if quick else 384)
    before, after = edges(image), edges(image.roll(1, 1))
    kept: dict[str, list[float]] = {way: [] for way in WAYS}
    changed: dict[str, list[float]] = {way: [] for way in WAYS}
    for window in WINDOWS:
        for way, pool in WAYS.items():
            small = pool(before, window)
            kept[way].append(strength(small) / strength(before))
            changed[way].append(((pool(after, window) - small).norm() / (small - small.mean()).norm()).item())
    keeps = all(mean < 1 <= largest for mean, largest in zip(kept["mean"], kept["largest"], strict=True))
    steadier = all(largest < one for largest, one in zip(changed["largest"], changed["one"], strict=True))
    return Seen(
        held=keeps and steadier,
        told="; ".join(
            f"{window}x{window}: "
            + ", ".join(f"{way} keeps {kept[way][i]:.2f}, changes {changed[way][i]:.2f}" for way in WAYS)
            for i, window in enumerate(WINDOWS)
        ),
        figures={"windows": list(WINDOWS), "kept": kept, "changed": changed},
        pictures={"image": image.numpy(), "edges": before[0].numpy()}
        | {way: pool(before, WINDOWS[-1])[0].numpy() for way, pool in WAYS.items()},
    )


def draw(seen: Sequence[Seen]):
    pictures = seen[0].pictures
    figure, (axes,) = sheet(1, len(pictures) + 2)
    brightest = pictures["edges"].max()
    for panel, (name, picture) in zip(axes, pictures.items(), strict=False):
        title = f"{name} of {WINDOWS[-1]}x{WINDOWS[-1]}" if name in WAYS else name
        show(panel, picture, title, vmin=0, vmax=1 if name == "image" else brightest)
    for panel, what in zip(axes[-2:], ("kept", "changed"), strict=True):
        for place, way in enumerate(WAYS):
            figures = np.mean([each.figures[what][way] for each in seen], 0)
            panel.bar(np.arange(len(WINDOWS)) + place / 4, figures, 0.22, label=way)
        panel.set_xticks(np.arange(len(WINDOWS)) + 1 / 4, [f"{window}x{window}" for window in WINDOWS])
        panel.set_xlabel("window")
    axes[-2].set_title("strength of the strongest, whole maps: 1", fontsize="small")
    axes[-1].set_title("change as the image moves by a pixel", fontsize="small")
    axes[-1].set_ylim(0, 1.2)  # which leaves room for the legend
    axes[-1].legend(fontsize="small", ncols=len(WAYS), loc="upper center")
    return figure
