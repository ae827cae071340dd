"""How large the gradient is at each depth of a net that has not learned yet.

A net of fully connected layers, all of one width, is given digits, and the length of the loss's gradient by each
layer's output is measured, on the way from the last layer to the first. With the initialisation that was usual before
2010 each layer shrinks it, and where the layers are many, nothing arrives. Four remedies: weights as large as ReLU
needs, BatchNorm, and two kinds of ways around the layers. (BatchNorm before ReLU and the plain residual sum err on the
other side: with them the gradient grows by a fifth a layer.)
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cnnzoo.labs._lab import Seen, sheet

CLAIM = (
    "On its way back through 50 layers of sigmoid, tanh or ReLU, as they used to be initialised, the gradient "
    "vanishes; with He's initialisation, BatchNorm, residual or highway layers it does not."
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


# kind: one layer with what follows it; He's variance 2/n is six times that of the uniform weights
VANISHING: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": lambda: nn.Sequential(Layer(), nn.Sigmoid()),
    "tanh": lambda: nn.Sequential(Layer(), nn.Tanh()),
    "ReLU": lambda: nn.Sequential(Layer(), nn.ReLU()),
}
PRESERVING: dict[str, Callable[[], nn.Module]] = {
    "ReLU, He": lambda: nn.Sequential(Layer(gain=6**0.5), nn.ReLU()),
    "ReLU, BatchNorm": lambda: nn.Sequential(Layer(), nn.BatchNorm1d(WIDTH), nn.ReLU()),
    "residual": Residual,
    "highway": Highway,
}


def gradients(make: Callable[[], nn.Module], images: Tensor, labels: Tensor) -> list[float]:
    """The length of the gradient by each layer's output, from the first to the last; images are `(B, WIDTH)`."""
    outputs = [images]
    for _ in range(DEPTH):
        outputs.append(make()(outputs[-1]))
    loss = nn.functional.cross_entropy(nn.Linear(WIDTH, 10)(outputs[-1]), labels)
    return [gradient.double().norm().item() for gradient in torch.autograd.grad(loss, outputs[1:])]


def run(seed: int, quick: bool) -> Seen:
    from sklearn.datasets import load_digits  # here, since scikit-learn takes a while to import

    digits = load_digits()
    chosen = np.random.default_rng(seed).permutation(len(digits.data))[: 128 if quick else 1024]
    images = torch.from_numpy(digits.data[chosen]).float()
    images = (images - images.mean()) / images.std()  # 8x8 pixels: as many as the layers are wide
    labels = torch.from_numpy(digits.target[chosen])
    norms = {kind: gradients(make, images, labels) for kind, make in (VANISHING | PRESERVING).items()}
    ratios = {kind: first_to_last[0] / first_to_last[-1] for kind, first_to_last in norms.items()}
    return Seen(
        held=all(ratios[kind] < VANISHED for kind in VANISHING) and all(ratios[kind] > VANISHED for kind in PRESERVING),
        told="first layer's gradient over the last one's: "
        + ", ".join(f"{kind} {ratio:.0e}" for kind, ratio in ratios.items()),
        figures={"ratios": ratios, "norms": norms},
    )


def draw(seen: Sequence[Seen]):
    figure, ((axes,),) = sheet(1, 1, 8, 5)
    for kind in VANISHING | PRESERVING:
        norms = np.exp(np.mean([np.log(np.maximum(each.figures["norms"][kind], 1e-45)) for each in seen], 0))
        axes.semilogy(range(1, DEPTH + 1), norms, "--" if kind in VANISHING else "-", label=kind)
    axes.set(
        xlabel="layer", ylabel="length of the gradient by the layer's output, before any training", ylim=(1e-20, None)
    )
    axes.legend()
    return figure
