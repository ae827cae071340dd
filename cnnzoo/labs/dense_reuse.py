"""Which earlier maps a DenseNet's layers make use of.

In a dense block every layer sees the maps of all before it. A DenseNet learns scikit-learn's digits at 8x8; then the
absolute weights that each layer puts on the maps of each earlier one are averaged, as in figure 5 of the paper. After
so short a training they are still spread as they were at the start (the untrained net's figure stands beside), so what
tells is asking the net again with some of these weights cut: with each layer blind to the older half of the maps that
the block's layers made, to the newer half, or to all of them but the newest, as in a net that is not dense. All see the
block's input as before. Before each answer, that of the whole net too, BatchNorm's statistics are taken anew over
training images.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

import cnnzoo
from cnnzoo.labs._lab import Seen, held_out, sheet, show, trained

CLAIM = (
    "The layers of a trained DenseNet use the maps of all earlier layers of their block: the older half of these as "
    "much as the newer, and seeing the newest alone costs more than a twentieth of the answers."
)
SOURCE = (
    "Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks, CVPR 2017, arXiv 1608.06993, "
    "section 5 and figure 5"
)

NET = "densenet40"
COST = 0.05  # of accuracy, where each layer sees the newest maps alone
MARGIN = 0.02  # of accuracy, by which the older half may count less than the newer: of 360 digits, seven


def blocks(net: nn.Module) -> list[list[nn.Conv2d]]:
    """The convolutions of each dense block, which see the block's input and all maps before them."""
    return [[layer.conv1 for layer in block.values()] for block in net.features if isinstance(block, nn.ModuleDict)]


def sources(layers: list[nn.Conv2d], number: int) -> list[Tensor]:
    """The absolute weights of a block's layer on the block's input and on the maps of each layer before it."""
    added = [layer.out_channels for layer in layers[:number]]
    return list(layers[number].weight.detach().abs().split([layers[0].in_channels, *added], dim=1))


def use(layers: list[nn.Conv2d]) -> np.ndarray:
    """Mean absolute weights by source (rows) and layer (columns), each column's largest 1; nothing is NaN."""
    table = np.full((len(layers), len(layers)), np.nan)
    for number in range(len(layers)):
        means = [weights.mean().item() for weights in sources(layers, number)]
        table[: number + 1, number] = np.array(means) / max(means)
    return table


def spread(table: np.ndarray) -> float:
    """The number of sources that a layer makes use of (the exponential of the entropy) over those that it sees, a mean
    over the later half of the layers."""
    shares = []
    for number in range(len(table) // 2, len(table)):
        weights = table[: number + 1, number]
        share = weights / weights.sum()
        shares.append(np.exp(-(share * np.log(share)).sum()) / len(share))
    return float(np.mean(shares))


def cut(net: nn.Module, what: str) -> None:
    """Make the layers of each block blind to the "older" or the "newer" half of the maps that its layers before them
    made, or to all but the newest ("earlier").
    """
    for layers in blocks(net):
        for number in range(2, len(layers)):
            first, *made = (weights.shape[1] for weights in sources(layers, number))
            ends = np.cumsum([first, *made])
            half = number // 2
            start, stop = {"older": (0, half), "newer": (number - half, number), "earlier": (0, number - 1)}[what]
            nn.init.zeros_(layers[number].weight.data[:, ends[start] : ends[stop]])


@torch.no_grad()
def settle(net: nn.Module, images: Tensor) -> None:
    """Take the statistics of BatchNorm anew, as the mean over batches of these images."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    net.train()
    for batch in images.split(64):
        net(batch)
    net.eval()


def run(seed: int, quick: bool) -> Seen:
    with trained(config(seed, quick)) as done:
        images, labels = held_out(done)
        learnt_from = held_out(done, "train")[0][:: 3 if quick else 1]  # a third tells the statistics well enough
        net = cnnzoo.load(done)
    fresh = cnnzoo.create(NET, num_classes=10, in_chans=1)
    tables = [use(layers) for layers in blocks(net)]
    settle(net, learnt_from)
    whole, without = top1(net, images, labels), {}
    for what in ("older", "newer", "earlier"):
        blind = copy.deepcopy(net)
        cut(blind, what)
        settle(blind, learnt_from)
        without[what] = top1(blind, images, labels)
    return Seen(
        held=without["older"] < without["newer"] + MARGIN and without["earlier"] < whole - COST,
        told=f"the net reads {whole:.1%}; its layers blind to the older half of their block's maps "
        f"{without['older']:.1%}, to the newer half {without['newer']:.1%}, to all but the newest "
        f"{without['earlier']:.1%}",
        figures={
            "top1": whole,
            "top1, older half cut": without["older"],
            "top1, newer half cut": without["newer"],
            "top1, all but the newest cut": without["earlier"],
            "spread": [spread(table) for table in tables],
            "spread, untrained": [spread(use(layers)) for layers in blocks(fresh)],
        },
        pictures={f"block {number}": table for number, table in enumerate(tables, 1)},
    )


def top1(net: nn.Module, images: Tensor, labels: np.ndarray) -> float:
    with torch.no_grad():
        return float((net(images).argmax(1).numpy() == labels).mean())


def config(seed: int, quick: bool) -> dict:
    return {
        "model": {"name": NET},
        "data": {"source": "digits", "size": 4 if quick else 8, "val_fraction": 0.5 if quick else 0.2},
        "optim": {"lr": 0.1, "weight_decay": 1e-4},
        "train": {"epochs": 1 if quick else 3, "batch_size": 64, "seed": seed},
    }


def draw(seen: Sequence[Seen]):
    figure, (axes,) = sheet(1, 4, 3.6, 4.4)
    for panel, (name, table) in zip(axes, seen[0].pictures.items(), strict=False):
        weights = show(panel, table, f"{name}: mean weight, largest 1", cmap="viridis", vmin=0, vmax=1)
        panel.set(xlabel="layer", ylabel="source: 0 is the block's input")
        panel.set_xticks(range(len(table)), range(1, len(table) + 1), fontsize="x-small")
        panel.set_yticks(range(len(table)), range(len(table)), fontsize="x-small")
    figure.colorbar(weights, ax=axes[2], shrink=0.6)
    kinds = {"whole": "top1", **{f"{half} half cut": f"top1, {half} half cut" for half in ("older", "newer")}}
    kinds["newest alone"] = "top1, all but the newest cut"
    top1 = [100 * np.mean([each.figures[figure] for each in seen]) for figure in kinds.values()]
    axes[3].bar_label(axes[3].bar(list(kinds), top1), fmt="%.1f")
    axes[3].set(ylim=(0, 110), ylabel="held out right, %")
    axes[3].tick_params(axis="x", rotation=30)
    return figure
