"""How far each layer's features serve other classes than those they were learnt on.

A net learns five digits, A; another learns the other five, B. Then the first layers of either are copied into a new
net, whose other layers start at random, and it learns B, with the copied layers frozen or not. Copied from B, frozen
layers tell what it costs to cut a net in two; what those from A cost beyond that, they cost by knowing A. The digits do
not all stand at the same place, which a net must learn to see past, whatever the digits.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cnnzoo import bars
from cnnzoo.labs._lab import Seen, digits, sheet

CLAIM = (
    "A net's first layers, frozen, serve other classes nearly as well as those they were learnt on, its last before "
    "the head far worse; left to learn on, all serve as well, and where images are few better than a new start."
)
SOURCE = (
    "Yosinski, Clune, Bengio, Lipson: How transferable are features in deep neural networks?, NIPS 2014, "
    "arXiv 1411.1792, sections 2 and 4, figure 2"
)

SIDE = 12  # of an image
CHANNELS = (16, 16, 32, 32)
LAYERS = tuple(range(1, len(CHANNELS) + 2))  # how many can be copied: all but the head
HALF = 5  # classes of A, and of B
MANY, FEW = 80, 10  # images of each class of B to learn from; those beyond MANY are held out
STEPS, QUICK_STEPS = 300, 150
BATCH, RATE = 32, 0.02
WAYS = ("frozen", "learning on")
FIRST = 3  # layers
LITTLE, MUCH = 0.05, 0.1  # of accuracy


def placed(seed: int) -> tuple[Tensor, np.ndarray]:
    """scikit-learn's 8x8 digits at random places of images `(N, 1, SIDE, SIDE)` float32, and which they are."""
    (small, labels), rng = digits(), np.random.default_rng(seed)
    images = np.zeros((len(small), 1, SIDE, SIDE), np.float32)
    for image, digit in zip(images[:, 0], small, strict=True):
        top, left = rng.integers(SIDE - len(digit) + 1, size=2)
        image[top : top + len(digit), left : left + len(digit)] = digit
    return torch.from_numpy((images - images.mean()) / images.std()), labels


def net() -> nn.Sequential:
    """For images `(B, 1, SIDE, SIDE)` of HALF classes: the LAYERS, and a head."""
    layers, inputs = [], 1
    for number, outputs in enumerate(CHANNELS):
        pool = [nn.MaxPool2d(2)] if number % 2 else []
        layers.append(nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), *pool))
        inputs = outputs
    layers.append(nn.Sequential(nn.Flatten(), nn.Linear(inputs * (SIDE // 4) ** 2, 64), nn.ReLU()))
    made = nn.Sequential(*layers, nn.Linear(64, HALF))
    for name, values in made.named_parameters():
        nn.init.zeros_(values) if name.endswith("bias") else nn.init.kaiming_normal_(values, nonlinearity="relu")
    return made


def learnt(
    images: Tensor, labels: Tensor, steps: int, source: nn.Sequential | None = None, copied: int = 0, frozen: int = 0
) -> nn.Sequential:
    """A net that learnt images, after its first layers were copied from another, of which so many stay as they are."""
    made = net()
    for number in range(copied):
        made[number] = copy.deepcopy(source[number])
    with torch.no_grad():
        maps = made[:frozen](images)
    moving = made[frozen:]
    sgd = torch.optim.SGD(moving.parameters(), RATE, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(sgd, RATE, total_steps=steps)
    for _ in range(steps):
        batch = torch.randint(len(maps), (BATCH,))
        loss = cross_entropy(moving(maps[batch]), labels[batch])
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        schedule.step()
    return made


def run(seed: int, quick: bool) -> Seen:
    images, truth = placed(seed)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(truth))
    a, b = rng.permutation(10).reshape(2, HALF)

    def of(classes: np.ndarray, start: int | None = None, stop: int | None = None) -> tuple[Tensor, Tensor]:
        """Images of classes, of each those from `start` to `stop`, and the number among `classes` of each."""
        places = [order[truth[order] == digit][start:stop] for digit in classes]
        return images[np.concatenate(places)], torch.arange(HALF).repeat_interleave(torch.tensor([*map(len, places)]))

    steps = QUICK_STEPS if quick else STEPS
    layers = dict(zip(WAYS, ((FIRST, LAYERS[-1]), LAYERS[-1:]) if quick else (LAYERS, LAYERS), strict=True))
    held_out, truly = of(b, MANY)

    def top1(net: nn.Sequential) -> float:
        with torch.no_grad():
            return float((net(held_out).argmax(1) == truly).double().mean())

    many, few = of(b, 0, MANY), of(b, 0, FEW)
    net_a, net_b, net_of_few = (learnt(*known, steps) for known in (of(a), many, few))
    found = {"anew": top1(net_b), "anew, few": top1(net_of_few)}
    parts = {"from A": (net_a, many), "from B": (net_b, many), "from A, few": (net_a, few)}
    for name in bars.show(parts, "transferability"):
        source, known = parts[name]
        for way in WAYS:
            nets = (learnt(*known, steps, source, n, n if way == "frozen" else 0) for n in layers[way])
            found[f"{name}, {way}"] = [top1(net) for net in nets]

    first = float(np.mean(found["from A, frozen"][: layers["frozen"].index(FIRST) + 1]))
    last, own, moved, moved_few = (
        found[f"from {name}"][-1] for name in ("A, frozen", "B, frozen", "A, learning on", "A, few, learning on")
    )
    return Seen(
        held=min(first, own, moved) > found["anew"] - LITTLE
        and last < found["anew"] - MUCH
        and moved_few > found["anew, few"],
        told=f"anew {found['anew']:.1%}; with the first {FIRST} layers of the other classes, frozen, {first:.1%}, with "
        f"{LAYERS[-1]} {last:.1%} (its own {own:.1%}), these learning on {moved:.1%}; on {FEW} images of a class anew "
        f"{found['anew, few']:.1%}, these learning on {moved_few:.1%}",
        figures={"A": a.tolist(), "B": b.tolist(), "layers": layers, "top1": found},
    )


def draw(seen: Sequence[Seen]):
    figure, (axes,) = sheet(1, 2, 4.8, 4)
    layers = seen[0].figures["layers"]

    def top1(what: str) -> np.ndarray:
        return 100 * np.mean([each.figures["top1"][what] for each in seen], 0)

    for panel, few, sources, images in zip(axes, ("", ", few"), ("AB", "A"), (MANY, FEW), strict=True):
        panel.axhline(top1(f"anew{few}"), color="grey", linestyle=":", label="anew")
        for source in sources:
            for way, style in zip(WAYS, ("o-", "s--"), strict=True):
                colour = "tab:orange" if source == "A" else "tab:blue"
                found = top1(f"from {source}{few}, {way}")
                panel.plot(layers[way], found, style, color=colour, label=f"from {source}, {way}")
        panel.set(xlabel="layers copied", ylabel="held out of B right, %")
        panel.set_title(f"{images} images of each class of B", fontsize="small")
        panel.set_xticks(LAYERS)
        panel.legend(fontsize="small", loc="lower left")
    return figure
