"""What becomes of the training loss at learning rates from far too low to far too high, without and with BatchNorm.

A fully connected net with eight hidden layers learns scikit-learn's digits by plain stochastic gradient descent, at
each rate for as many steps and from the same weights (He's). A loss that is no longer a number counts as WORST.
"""

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cnnzoo.labs._lab import Seen, digits, sheet

CLAIM = (
    "At too low a learning rate a net learns little, at too high a one nothing; with BatchNorm it learns at rates "
    "several times as high."
)
SOURCE = (
    "Goodfellow, Bengio, Courville: Deep Learning, 2016, section 11.4.1 and figure 11.1; on BatchNorm, Ioffe, Szegedy: "
    "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift, ICML 2015, "
    "arXiv 1502.03167, section 3.3"
)

RATES = tuple(10 ** (power / 2) for power in range(-7, 4))
QUICK_RATES = (1e-3, 1e-1, 1e0, 1e1)
STEPS, QUICK_STEPS = 200, 100
BATCH = 64
PIXELS, DEPTH = 64, 8  # a layer is as wide as an image has pixels
GUESSING = math.log(10)  # the loss of giving all ten digits the same probability
LEARNT = 0.5  # training loss
WORST = 10.0


def net(batch_norm: bool) -> nn.Sequential:
    """A net for images `(B, PIXELS)` of ten classes."""
    layers: list[nn.Module] = []
    for _ in range(DEPTH):
        linear = nn.Linear(PIXELS, PIXELS)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        layers += [linear, nn.BatchNorm1d(PIXELS), nn.ReLU()] if batch_norm else [linear, nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(PIXELS, 10))


def learn(net: nn.Module, images: Tensor, labels: Tensor, rate: float, steps: int) -> list[float]:
    """The loss of each step's batch, at most WORST."""
    losses = []
    sgd = torch.optim.SGD(net.parameters(), rate)
    order = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = torch.randint(len(images), (BATCH,), generator=order)
        loss = cross_entropy(net(images[batch]), labels[batch])
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        losses.append(loss.item())
    return np.nan_to_num(losses, nan=WORST).clip(max=WORST).tolist()


def run(seed: int, quick: bool) -> Seen:
    pixels, truth = digits()
    images = torch.from_numpy(pixels).float().flatten(1)
    images, labels = (images - images.mean()) / images.std(), torch.from_numpy(truth)
    rates, steps = (QUICK_RATES, QUICK_STEPS) if quick else (RATES, STEPS)
    losses, ends, highest = {}, {}, {}
    for kind, batch_norm in (("plain", False), ("BatchNorm", True)):
        start = net(batch_norm)
        losses[kind] = [learn(copy.deepcopy(start), images, labels, rate, steps) for rate in rates]
        ends[kind] = [float(np.mean(history[-steps // 10 :])) for history in losses[kind]]
        highest[kind] = max((rate for rate, end in zip(rates, ends[kind], strict=True) if end < LEARNT), default=0.0)
    little = all(end[0] > GUESSING / 2 for end in ends.values())
    nothing = all(end[-1] > GUESSING / 2 for end in ends.values())
    return Seen(
        held=little and nothing and highest["BatchNorm"] > 5 * highest["plain"] > 0,
        told=f"the highest rate at which the loss falls below {LEARNT}: "
        + ", ".join(f"{kind} {rate:.2g}" for kind, rate in highest.items()),
        figures={"rates": list(rates), "last loss": ends, "losses": losses, "highest": highest},
    )


def draw(seen: Sequence[Seen]):
    rates = seen[0].figures["rates"]
    figure, (axes,) = sheet(1, 2, 5.5, 4)
    ends = np.mean([each.figures["last loss"]["plain"] for each in seen], 0)
    best = int(ends.argmin())
    for what, place in (("too low", 0), ("low", (best + 1) // 2), ("best", best), ("too high", best + 1)):
        curve = np.mean([each.figures["losses"]["plain"][place] for each in seen], 0)
        smooth = np.convolve(curve, np.full(10, 0.1), "valid")  # the mean of ten steps
        axes[0].plot(range(10, len(curve) + 1), smooth, label=f"{what}: {rates[place]:.2g}")
    axes[0].set(xlabel="step", ylabel="training loss, plain, mean of ten steps", ylim=(0, 1.2 * GUESSING))
    for kind, style in (("plain", "o-"), ("BatchNorm", "s-")):
        ends = np.mean([each.figures["last loss"][kind] for each in seen], 0)
        axes[1].semilogx(rates, ends, style, label=kind)
    axes[1].set(xlabel="learning rate", ylabel=f"training loss after {len(curve)} steps", ylim=(0, 1.2 * GUESSING))
    axes[1].axhline(GUESSING, color="grey", linestyle=":", label="guessing")
    for panel in axes:
        panel.legend(fontsize="small")
    return figure
