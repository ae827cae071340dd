"""Which earlier maps a DenseNet's layers make use of.

In a dense block every layer sees the maps of all before it. A DenseNet learns scikit-learn's digits at 8x8; then the
absolute weights that each layer puts on the maps of each earlier one are averaged, as in figure 5 of the paper. And as
a test of whether early maps matter so much later, the net is asked again with each layer's weights on the older half of
what it sees cut.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

import cnnzoo
from cnnzoo.labs._lab import Seen, held_out, sheet, show, trained

CLAIM = (
    "The layers of a trained DenseNet spread their weights over the maps of all earlier layers of their block, early "
    "ones too, and the net relies on those."
)
SOURCE = (
    "Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks, CVPR 2017, arXiv 1608.06993, "
    "section 5 and figure 5"
)

NET = "densenet40"
SPREAD = 0.5  # of the sources that a layer sees, those that it makes use of
COST = 0.1  # of accuracy


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


def cut_older_half(net: nn.Module) -> None:
    """No layer of a block, from the second on, sees the older half of its sources any more."""
    for layers in blocks(net):
        for number in range(1, len(layers)):
            seen = sources(layers, number)
            older = sum(weights.shape[1] for weights in seen[: len(seen) // 2])
            nn.init.zeros_(layers[number].weight.data[:, :older])


def run(seed: int, quick: bool) -> Seen:
    with trained(config(seed, quick)) as done:
        images, labels = held_out(done)
        net = cnnzoo.load(done)
    tables = [use(layers) for layers in blocks(net)]
    spreads = [spread(table) for table in tables]
    whole = top1(net, images, labels)
    cut_older_half(net)
    cut = top1(net, images, labels)
    return Seen(
        held=min(spreads) > SPREAD and cut < whole - COST,
        told=f"in blocks 1 to {len(spreads)} layers make use of {', '.join(f'{share:.0%}' for share in spreads)} of "
        f"their sources; the net reads {whole:.1%}, with the older half of them cut {cut:.1%}",
        figures={"spread": spreads, "top1": whole, "top1, older half cut": cut},
        pictures={f"block {number}": table for number, table in enumerate(tables, 1)},
    )


def top1(net: nn.Module, images: Tensor, labels: np.ndarray) -> float:
    with torch.no_grad():
        return float((net(images).argmax(1).numpy() == labels).mean())


def config(seed: int, quick: bool) -> dict:
    return {
        "model": {"name": NET},
        "data": {"source": "digits", "size": 4 if quick else 8},
        "optim": {"lr": 0.1, "weight_decay": 1e-4},
        "train": {"epochs": 1 if quick else 3, "batch_size": 64, "seed": seed},
    }


def draw(seen: Sequence[Seen]):
    figure, (axes,) = sheet(1, 3, 4, 4)
    for panel, (name, table) in zip(axes, seen[0].pictures.items(), strict=True):
        show(panel, table, f"{name}: mean weight, largest 1", cmap="jet", vmin=0, vmax=1)
        panel.set(xlabel="layer", ylabel="source: 0 is the block's input")
        panel.set_xticks(range(len(table)), range(1, len(table) + 1), fontsize="x-small")
        panel.set_yticks(range(len(table)), range(len(table)), fontsize="x-small")
    return figure
