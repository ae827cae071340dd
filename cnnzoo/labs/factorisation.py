"""What papers put in the place of one large convolution: several small ones that see as far and cost less.

For each pair, on maps as its paper has them: the output's size, the weights, the multiply-adds, and how far a unit of
the output sees. The last is tried: it is where the unit's gradient by the input is not 0.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

import cnnzoo
from cnnzoo.labs._lab import Seen, sheet

CLAIM = (
    "Small convolutions in the place of a large one give maps of the same size and see as far, with three quarters of "
    "its weights and multiply-adds or less, down to a tenth."
)
SOURCE = (
    "Simonyan, Zisserman, arXiv 1409.1556, section 2.3 (VGG); Szegedy and others, arXiv 1409.4842, section 4 "
    "(GoogLeNet), and arXiv 1512.00567, section 3 (Inception v3); He and others, arXiv 1512.03385, figure 5 (ResNet); "
    "Chollet, arXiv 1610.02357 (Xception)"
)

MOST = 0.75  # of the large one's weights and multiply-adds
SIDE = 9  # of the maps on which it is tried how far a unit sees


def conv(inputs: int, outputs: int, kernel: tuple[int, int], groups: int = 1) -> nn.Conv2d:
    """Maps `(B, inputs, H, W)` to `(B, outputs, H, W)`, without a bias, as the papers count."""
    around = (kernel[0] // 2, kernel[1] // 2)
    return nn.Conv2d(inputs, outputs, kernel, padding=around, groups=groups, bias=False)


# what for what: the maps (C, H, W), the large convolution, the small ones
PAIRS: dict[str, tuple[tuple[int, int, int], Callable, Callable]] = {
    "VGG: three 3x3 for a 7x7": (
        (256, 56, 56),
        lambda: [conv(256, 256, (7, 7))],
        lambda: [conv(256, 256, (3, 3)) for _ in range(3)],
    ),
    "GoogLeNet, 3a: a 1x1 before the 5x5": (
        (192, 28, 28),
        lambda: [conv(192, 32, (5, 5))],
        lambda: [conv(192, 16, (1, 1)), conv(16, 32, (5, 5))],
    ),
    "Inception v3: two 3x3 for a 5x5": (
        (64, 35, 35),
        lambda: [conv(64, 64, (5, 5))],
        lambda: [conv(64, 64, (3, 3)), conv(64, 64, (3, 3))],
    ),
    "Inception v3: 1x7 and 7x1 for a 7x7": (
        (192, 17, 17),
        lambda: [conv(192, 192, (7, 7))],
        lambda: [conv(192, 192, (1, 7)), conv(192, 192, (7, 1))],
    ),
    "ResNet-50: the 3x3 between two 1x1": (
        (256, 56, 56),
        lambda: [conv(256, 256, (3, 3))],
        lambda: [conv(256, 64, (1, 1)), conv(64, 64, (3, 3)), conv(64, 256, (1, 1))],
    ),
    "Xception: a 3x3 for each channel, then a 1x1": (
        (728, 19, 19),
        lambda: [conv(728, 728, (3, 3))],
        lambda: [conv(728, 728, (3, 3), groups=728), conv(728, 728, (1, 1))],
    ),
}


def seen_by_a_unit(layers: nn.Sequential) -> tuple[int, int]:
    """The height and width of what a unit in the middle of the output depends on."""
    maps = torch.randn(1, layers[0].in_channels, SIDE, SIDE, requires_grad=True)
    (gradient,) = torch.autograd.grad(layers(maps)[0, :, SIDE // 2, SIDE // 2].sum(), maps)
    depends = gradient[0].any(0)
    return int(depends.any(1).sum()), int(depends.any(0).sum())


def run(seed: int, quick: bool) -> Seen:
    figures, held = {}, True
    for name, (size, large, small) in PAIRS.items():
        of = {}
        for kind, make in (("large", large), ("small", small)):
            with torch.device("meta"):
                total = cnnzoo.summary(nn.Sequential(*make()), size).total
            height, width = seen_by_a_unit(nn.Sequential(*make()))
            of[kind] = {
                "output": list(total.output),
                "params": total.params,
                "macs": total.macs,
                "sees": [height, width],
            }
        share = {count: of["small"][count] / of["large"][count] for count in ("params", "macs")}
        alike = all(of["small"][what] == of["large"][what] for what in ("output", "sees"))
        held = held and alike and max(share.values()) <= MOST
        figures[name] = of | {"share": share}
    return Seen(
        held=held,
        told="weights: " + "; ".join(f"{name} {of['share']['params']:.0%}" for name, of in figures.items()),
        figures=figures,
    )


LABEL = "weights (grey: the large one); beside them multiply-adds, and what a unit sees"


def draw(seen: Sequence[Seen]):
    figure, ((axes,),) = sheet(1, 1, 9, 4)
    for row, of in enumerate(seen[0].figures.values()):
        for place, kind, colour in ((row - 0.2, "large", "lightgrey"), (row + 0.2, "small", "tab:blue")):
            height, width = of[kind]["sees"]
            told = f"{of[kind]['macs'] / 1e6:,.0f} M, sees {height}x{width}"
            axes.barh(place, of[kind]["params"], 0.38, color=colour)
            axes.text(1.1 * of[kind]["params"], place, told, va="center", fontsize="x-small")
    axes.set_yticks(range(len(PAIRS)), PAIRS)
    axes.set(xscale="log", xlim=(1e4, 1e8), xlabel=LABEL)
    axes.invert_yaxis()
    return figure
