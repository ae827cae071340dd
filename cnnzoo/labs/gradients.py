"""How much of a signal is left at each depth of a net that has not learned yet, on its way forward and back.

A net of fully connected layers, all of one width, is given digits. On the way forward it is measured how much each
layer's outputs differ from image to image, on the way back how long the loss's gradient by them is. With the
initialisation that was usual before 2010 each layer shrinks both, and where the layers are many, nothing arrives. The
remedies: weights as large as tanh (Xavier Glorot) or ReLU (He) needs, BatchNorm, and two kinds of ways around the
layers. (BatchNorm before ReLU and the plain residual sum err on the other side: with them the gradient grows by a fifth
a layer.)
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cnnzoo.labs._lab import Seen, sheet

CLAIM = (
    "On its way back through 50 layers of sigmoid, tanh or ReLU, as they used to be initialised, the gradient "
    "vanishes; with Xavier's or He's initialisation, BatchNorm, residual or highway layers it does not."
)
SOURCE = (
    "Glorot, Bengio: Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010; the "
    "remedies: arXiv 1502.01852 (He), 1502.03167 (BatchNorm), 1512.03385 (residual), 1505.00387 (highway)"
)

DEPTH = 50
WIDTH = 64
VANISHED = 1e-6  # the first layer's gradient over the last one's


class Layer(nn.Linear):
    """As initialised before 2010: U(-1/sqrt(n), 1/sqrt(n)) (Glorot and Bengio, equation 1); `gain` times as large."""

    def __init__(self, gain: float = 1.0):
        super().__init__(WIDTH, WIDTH)
        nn.init.uniform_(self.weight, -gain / WIDTH**0.5, gain / WIDTH**0.5)
        nn.init.zeros_(self.bias)


class Residual(nn.Module):
    """x + relu(W x)."""

    def __init__(self):
        super().__init__()
        self.layer = Layer()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x).relu()


class Highway(nn.Module):
    """T relu(W x) + (1 - T) x, its gates at first nearly closed."""

    def __init__(self):
        super().__init__()
        self.layer, self.gate = Layer(), Layer()
        nn.init.constant_(self.gate.bias, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        opened = self.gate(x).sigmoid()
        return opened * self.layer(x).relu() + (1 - opened) * x


# kind: one layer with what follows it; the uniform weights have a variance of 1/3n, Xavier's of 1/n, He's of 2/n
VANISHING: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": lambda: nn.Sequential(Layer(), nn.Sigmoid()),
    "tanh": lambda: nn.Sequential(Layer(), nn.Tanh()),
    "ReLU": lambda: nn.Sequential(Layer(), nn.ReLU()),
}
PRESERVING: dict[str, Callable[[], nn.Module]] = {
    "tanh, Xavier": lambda: nn.Sequential(Layer(gain=3**0.5), nn.Tanh()),
    "ReLU, He": lambda: nn.Sequential(Layer(gain=6**0.5), nn.ReLU()),
    "ReLU, BatchNorm": lambda: nn.Sequential(Layer(), nn.BatchNorm1d(WIDTH), nn.ReLU()),
    "residual": Residual,
    "highway": Highway,
}


def forth_and_back(make: Callable[[], nn.Module], images: Tensor, labels: Tensor) -> tuple[list[float], list[float]]:
    """For each layer, from the first to the last: how much its outputs differ from image to image (the root mean square
    over units of their standard deviation), and the length of the gradient by them. Images are `(B, WIDTH)`.
    """
    outputs = [images]
    for _ in range(DEPTH):
        outputs.append(make()(outputs[-1]))
    loss = nn.functional.cross_entropy(nn.Linear(WIDTH, 10)(outputs[-1]), labels)
    gradients = torch.autograd.grad(loss, outputs[1:])
    differ = [output.detach().double().var(0).mean().sqrt().item() for output in outputs[1:]]
    return differ, [gradient.double().norm().item() for gradient in gradients]


def run(seed: int, quick: bool) -> Seen:
    from sklearn.datasets import load_digits  # here, since scikit-learn takes a while to import

    digits = load_digits()
    chosen = np.random.default_rng(seed).permutation(len(digits.data))[: 128 if quick else 1024]
    images = torch.from_numpy(digits.data[chosen]).float()
    images = (images - images.mean()) / images.std()  # 8x8 pixels: as many as the layers are wide
    labels = torch.from_numpy(digits.target[chosen])
    seen = {kind: forth_and_back(make, images, labels) for kind, make in (VANISHING | PRESERVING).items()}
    ratios = {kind: norms[0] / norms[-1] for kind, (_, norms) in seen.items()}
    return Seen(
        held=all(ratios[kind] < VANISHED for kind in VANISHING) and all(ratios[kind] > VANISHED for kind in PRESERVING),
        told="first layer's gradient over the last one's: "
        + "; ".join(f"{kind} {ratio:.0e}" for kind, ratio in ratios.items()),
        figures={"ratios": ratios}
        | {"outputs differ": {kind: differ for kind, (differ, _) in seen.items()}}
        | {"norms": {kind: norms for kind, (_, norms) in seen.items()}},
    )


def draw(seen: Sequence[Seen]):
    figure, (axes,) = sheet(1, 2, 6.5, 5)
    panels = {
        "outputs differ": "forward: how much outputs differ from image to image",
        "norms": "backward: length of the gradient by a layer's output",
    }
    for panel, (what, label) in zip(axes, panels.items(), strict=True):
        for kind in VANISHING | PRESERVING:
            many = np.mean([np.log(np.maximum(each.figures[what][kind], 1e-45)) for each in seen], 0)
            panel.semilogy(range(1, DEPTH + 1), np.exp(many), "--" if kind in VANISHING else "-", label=kind)
        panel.set(xlabel="layer", ylabel=label, ylim=(1e-20, None))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure
