"""What a net is shown of one photo when its training images are augmented, and what that is good for.

The changes are those that Keras made popular, and some that came after. To draw exactly what training sees, a net that
keeps its images is trained on copies of one photo, once with each change. Then LeNet-5 learns scikit-learn's digits
with and without shifts, and is asked for held-out ones that stand elsewhere.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import cnnzoo
from cnnzoo import bars
from cnnzoo.labs._lab import Seen, held_out, sheet, show, trained

CLAIM = (
    "Each change shows an image in several forms, and a net that has learned from shifted digits errs less on new ones "
    "that stand elsewhere."
)
SOURCE = (
    "Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012, "
    "section 4.1; the list is that of Keras's ImageDataGenerator (Chollet and others, 2015)"
)

CHANGES = {
    "none": {},
    "flip": {"flip": True},
    "rotation 30": {"rotation": 30},
    "shift 0.2": {"shift": 0.2},
    "shear 30": {"shear": 30},
    "zoom 0.4": {"zoom": 0.4},
    "brightness 0.5": {"brightness": 0.5},
    "channel_shift 0.3": {"channel_shift": 0.3},
    "crop padded": {"crop": "padded", "padding": 12},
    "crop resized": {"crop": "resized", "scale": [0.2, 1.0]},
    "cutout 32": {"cutout": 32},
    "randaugment": {"policy": "randaugment"},
}
COPIES = 6
SIDE = 96
DIGITS = {"plain": {}, "shifted": {"shift": 0.15}}  # how they are learned
PLACES = [(down, right) for down in (-4, 0, 4) for right in (-4, 0, 4)]  # where new ones stand, in pixels of 32


class Camera(nn.Module):
    """A net that keeps what it is shown in training."""

    def __init__(self, film: list[Tensor], num_classes: int = 2, in_chans: int = 3):
        super().__init__()
        self.film, self.num_classes, self.in_chans = film, num_classes, in_chans
        self.fc = nn.Linear(in_chans, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.film.append(x.detach().cpu())
        return self.fc(x.mean((2, 3)))


@contextmanager
def camera(film: list[Tensor]) -> Iterator[str]:
    """The name of such a net, known to cnnzoo meanwhile."""
    name = "labs_camera"

    def build(**options) -> Camera:
        return Camera(film, **options)

    cnnzoo.register(name, input_size=(3, SIDE, SIDE), num_classes=2, head="fc")(build)
    try:
        yield name
    finally:
        cnnzoo.unregister(name)


def shown(photo: Image.Image, change: dict, seed: int) -> np.ndarray:
    """Copies of a photo `(2 * COPIES, SIDE, SIDE, 3)`, 0 to 1, as a net sees them in its first step."""
    film: list[Tensor] = []
    with TemporaryDirectory(prefix="cnnzoo-lab-") as folder, camera(film) as name:
        for number in range(4 * COPIES):  # two classes of them, half held out: less is no data set
            file = Path(folder, str(number % 2), f"{number}.png")
            file.parent.mkdir(exist_ok=True)
            photo.save(file)
        config = {
            "model": {"name": name},
            "data": {"source": folder, "val_fraction": 0.5, "mean": [0.0] * 3, "std": [1.0] * 3},
            "augment": change,
            "train": {"epochs": 1, "batch_size": 2 * COPIES, "seed": seed, "precision": "fp32", "compile": False},
        }
        with trained(config):
            return film[-1].permute(0, 2, 3, 1).numpy()


def run(seed: int, quick: bool) -> Seen:
    from sklearn.datasets import load_sample_image

    photo = Image.fromarray(load_sample_image("china.jpg")).crop((0, 0, 427, 427)).resize((SIDE, SIDE))
    changes = bars.show([*CHANGES.items()][: 2 if quick else None], "augmentation")
    pictures = {name: shown(photo, change, seed) for name, change in changes}
    forms = {name: len(np.unique(images.round(4), axis=0)) for name, images in pictures.items()}
    top1 = {}
    for name, change in DIGITS.items():
        with trained(of_digits(change, seed, epochs=3 if quick else 5)) as done:
            top1[name] = elsewhere(cnnzoo.load(done), *held_out(done))
    varied = all(many > 1 for name, many in forms.items() if name != "none")
    return Seen(
        held=forms["none"] == 1 and varied and top1["shifted"] > top1["plain"],
        told=f"{2 * COPIES} copies of a photo are shown in "
        + ", ".join(f"{many} forms ({name})" for name, many in forms.items())
        + f"; digits that stand elsewhere: {top1['plain']:.1%} right, with shifts in training {top1['shifted']:.1%}",
        figures={"forms": forms, "top1": top1},
        pictures=pictures,
    )


def elsewhere(net: nn.Module, images: Tensor, labels: np.ndarray) -> float:
    """The accuracy over images `(B, C, H, W)`, each at all PLACES; what leaves at a side enters at the other."""
    with torch.no_grad():
        answers = torch.stack([net(images.roll(place, (2, 3))).argmax(1) for place in PLACES])
    return float((answers.numpy() == labels).mean())


def of_digits(change: dict, seed: int, epochs: int) -> dict:
    return {
        "model": {"name": "lenet5"},
        "data": {"source": "digits", "split_seed": seed},
        "augment": change,
        "optim": {"lr": 0.05, "weight_decay": 5e-4},
        "train": {"epochs": epochs, "batch_size": 32, "seed": seed},
    }


def draw(seen: Sequence[Seen]):
    figure, axes = sheet((len(seen[0].pictures) + 1) // 2, 2 * COPIES - 2, 1.4, 1.5)
    for place, (name, images) in enumerate(seen[0].pictures.items()):
        row, half = divmod(place, 2)
        panels = axes[row, half * (COPIES - 1) : (half + 1) * (COPIES - 1)]
        for number, (panel, image) in enumerate(zip(panels, images, strict=False)):
            show(panel, image.clip(0, 1), name if not number else "")
    return figure
