"""A fully connected and a convolutional net on the same digits, as they are and with their pixels in another order.

The digits do not all stand at the same place, as in life. The order is one and the same for all images, so that nothing
is lost but who is whose neighbour. A fully connected net knows no neighbours and does not care; a convolutional one
lives on them.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

import cnnzoo
from cnnzoo import bars
from cnnzoo.labs._lab import Seen, digits, sheet, show, trained

CLAIM = (
    "A convolutional net reads digits at varying places better than a fully connected one of several times its size; "
    "with all pixels in another order it reads them worse than that one, which hardly cares."
)
SOURCE = (
    "LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 86(11), 1998, "
    'section II.A: in fully connected nets "the topology of the input is entirely ignored"'
)

SIDE = 32
DIGIT = 24
NETS = {
    "mlp": {"name": "mlp", "in_chans": 1, "args": {"image_size": SIDE}},
    "lenet5": {"name": "lenet5", "in_chans": 1},
}
RATES = {"mlp": 0.02, "lenet5": 0.07}  # each net's best of 0.01 to 0.2: at the other's it learns less, or nothing
ORDERS = ("as they are", "shuffled")
MANY = 1000  # of the 1,797 digits


def placed(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The first of scikit-learn's 8x8 digits, enlarged to DIGIT and put at random places of images
    `(MANY, SIDE, SIDE)` uint8, and which they are.
    """
    (small, labels), rng = digits(), np.random.default_rng(seed)
    images = np.zeros((MANY, SIDE, SIDE), np.uint8)
    for image, digit in zip(images, small[:MANY], strict=True):
        top, left = rng.integers(SIDE - DIGIT + 1, size=2)
        enlarged = Image.fromarray(digit).resize((DIGIT, DIGIT), Image.Resampling.BILINEAR)
        image[top : top + DIGIT, left : left + DIGIT] = enlarged
    return images, labels[:MANY]


def write(images: np.ndarray, labels: np.ndarray, folder: Path) -> None:
    """A folder of class folders, as cnnzoo reads it."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{number:04}.png", compress_level=1)


def run(seed: int, quick: bool) -> Seen:
    images, labels = placed(seed)
    order = np.random.default_rng(seed).permutation(SIDE * SIDE)
    shuffled = images.reshape(len(images), -1)[:, order].reshape(images.shape)
    weights, top1 = {}, {}
    for name, pixels in zip(ORDERS, bars.show((images, shuffled), "mlp-vs-cnn"), strict=True):
        with TemporaryDirectory(prefix="cnnzoo-lab-") as folder:
            write(pixels, labels, Path(folder))
            for net, model in NETS.items():
                with trained(config(model, RATES[net], folder, seed, epochs=12)) as done:
                    top1[f"{net}, {name}"] = done.metrics[-1]["val_top1"]
                    weights[net] = sum(weight.numel() for weight in cnnzoo.load(done).parameters())
    mlp, cnn = ([top1[f"{net}, {name}"] for name in ORDERS] for net in NETS)
    cares_less = abs(mlp[0] - mlp[1]) < (cnn[0] - cnn[1]) / 3
    return Seen(
        held=cnn[0] > mlp[0] and cnn[1] < mlp[1] and cares_less and weights["mlp"] > 2 * weights["lenet5"],
        told=", ".join(f"{what} {accuracy:.1%}" for what, accuracy in top1.items())
        + f" ({weights['mlp']:,} and {weights['lenet5']:,} weights)",
        figures={"top1": top1, "weights": weights},
        pictures={"as they are": images[:4], "shuffled": shuffled[:4]},
    )


def config(model: dict, rate: float, folder: str, seed: int, epochs: int) -> dict:
    return {
        "model": model,
        "data": {"source": folder, "size": SIDE, "val_fraction": 0.5, "split_seed": seed},
        "optim": {"lr": rate, "weight_decay": 5e-4},
        "train": {"epochs": epochs, "batch_size": 32, "seed": seed},
    }


def draw(seen: Sequence[Seen]):
    figure, axes = sheet(2, 5, 2.4, 2.6)
    for row, name in zip(axes, ORDERS, strict=True):
        for panel, image in zip(row, seen[0].pictures[name], strict=False):
            show(panel, image, name)
        panel, nets = row[-1], list(NETS)
        accuracies = [np.mean([100 * each.figures["top1"][f"{net}, {name}"] for each in seen]) for net in nets]
        panel.bar_label(panel.bar(nets, accuracies), fmt="%.1f")
        panel.set(ylim=(0, 110), ylabel="held out right, %")
    return figure
