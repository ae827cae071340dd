"""RandAugment and TrivialAugment for whole batches, on the device: every image has its own change and strength.

Images that drew the same change are changed together. Changes and their ranges are torchvision's, except that shears
turn around the middle, everything that moves pixels interpolates, and TrivialAugment's translations are a share of the
side (the paper's and torchvision's 32 pixels are that of 224, and would empty an image of 32).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from cnnzoo.config import AugmentConfig
from cnnzoo.data.draws import Draws
from cnnzoo.data.lookup import look_up
from cnnzoo.data.to_device import to_device

# The largest amount of each change: RandAugment's, and TrivialAugment's "wide" one (arXiv 2103.10158, table 1).
# Translations are shares of the side; posterize takes away bits; solarize goes from white down to black.
RANGES = {
    "identity": (0.0, 0.0),
    "shear_x": (0.3, 0.99),
    "shear_y": (0.3, 0.99),
    "translate_x": (150 / 331, 32 / 224),
    "translate_y": (150 / 331, 32 / 224),
    "rotate": (30.0, 135.0),
    "brightness": (0.9, 0.99),
    "color": (0.9, 0.99),
    "contrast": (0.9, 0.99),
    "sharpness": (0.9, 0.99),
    "posterize": (4.0, 6.0),
    "solarize": (1.0, 1.0),
    "autocontrast": (0.0, 0.0),
    "equalize": (0.0, 0.0),
}
UNSIGNED = {"posterize", "solarize"}


class Policy:
    """From `(B, H, W, C)` on the scale 0 to 255 to the same shape, float32."""

    def __init__(self, config: AugmentConfig):
        self.wide = config.policy == "trivialaugment"
        self.passes = 1 if self.wide else config.policy_changes
        self.strength = None if self.wide else config.policy_strength / 30  # None: drawn

    def __call__(self, pixels: Tensor, draws: Draws) -> Tensor:
        images = pixels.permute(0, 3, 1, 2).float() / 255
        for _ in range(self.passes):
            changes, signs = draws.integers(len(RANGES)), 2.0 * draws.integers(2) - 1
            strengths = draws.uniform(0, 1) if self.strength is None else np.full(draws.many, self.strength)
            for number, (name, ranges) in enumerate(RANGES.items()):
                places = np.flatnonzero(changes == number)
                if name == "identity" or not len(places):
                    continue
                amounts = strengths[places] * ranges[self.wide] * (1 if name in UNSIGNED else signs[places])
                where = to_device(places, images.device)
                amount = to_device(amounts.astype(np.float32), images.device)
                images[where] = change(name, images[where], amount)
        return 255 * images.permute(0, 2, 3, 1)


def change(name: str, images: Tensor, amount: Tensor) -> Tensor:
    """One change of RANGES to images `(B, C, H, W)` on the scale 0 to 1, each by its own amount `(B,)`."""
    from torchvision.transforms.v2 import functional

    if name in ("autocontrast", "equalize"):
        return getattr(functional, name)(images)
    if name in _MATRICES:
        return look_up(images, _MATRICES[name](amount))
    each = amount[:, None, None, None]
    if name == "posterize":
        step = 2 ** each.round()
        return ((255 * images).round() / step).floor() * step / 255
    if name == "solarize":
        return torch.where(images >= 1 - each, 1 - images, images)
    nothing_of = {
        "brightness": torch.zeros_like,
        "color": lambda x: functional.adjust_saturation(x, 0.0),
        "contrast": lambda x: functional.adjust_contrast(x, 0.0),
        "sharpness": _blurred,
    }
    return torch.lerp(nothing_of[name](images), images, 1 + each).clamp(0, 1)


def _blurred(images: Tensor) -> Tensor:
    """Each pixel but those at the edge with its eight neighbours, of which it weighs as much as five. torchvision's own
    copies these weights to the device each time, for which a processor waits.
    """
    if min(images.shape[2:]) < 3:
        return images
    blurred, middle = images.clone(), images[..., 1:-1, 1:-1]
    blurred[..., 1:-1, 1:-1] = (9 * nn.functional.avg_pool2d(images, 3, stride=1) + 4 * middle) / 13
    return blurred


def _matrix(a: Tensor, b: Tensor, x: Tensor, c: Tensor, d: Tensor, y: Tensor) -> Tensor:
    return torch.stack([torch.stack([a, b, x], 1), torch.stack([c, d, y], 1)], 1)


def _rotation(amount: Tensor) -> Tensor:
    cos, sin, none = amount.deg2rad().cos(), amount.deg2rad().sin(), torch.zeros_like(amount)
    return _matrix(cos, -sin, none, sin, cos, none)


# `(B, 2, 3)`: where in the image, on the scale -1 to 1, each place of the result is looked up
_MATRICES: dict[str, Callable[[Tensor], Tensor]] = {
    "shear_x": lambda m: _matrix(torch.ones_like(m), m, 0 * m, 0 * m, torch.ones_like(m), 0 * m),
    "shear_y": lambda m: _matrix(torch.ones_like(m), 0 * m, 0 * m, m, torch.ones_like(m), 0 * m),
    "translate_x": lambda m: _matrix(torch.ones_like(m), 0 * m, 2 * m, 0 * m, torch.ones_like(m), 0 * m),
    "translate_y": lambda m: _matrix(torch.ones_like(m), 0 * m, 0 * m, 0 * m, torch.ones_like(m), 2 * m),
    "rotate": _rotation,
}
