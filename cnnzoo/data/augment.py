"""Augmentation of whole uint8 batches, on the device, with a draw for every image.

Flip and padded crop are one copy out of a strided view and never touch a pixel's value; everything that interpolates
composes into one resampling.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from cnnzoo.config import AugmentConfig
from cnnzoo.data.draws import TRIES, Draws
from cnnzoo.data.lookup import look_up
from cnnzoo.data.policies import Policy, change
from cnnzoo.data.preprocess import normalise
from cnnzoo.data.to_device import to_device
from cnnzoo.device import layout_on
from cnnzoo.errors import InputError


class Windows:
    """Random windows of padded images, and of their mirror images if `flip`, gathered in one indexed copy."""

    def __init__(self, pixels: np.ndarray, padding: int, flip: bool):
        self.shape = _count, height, width, channels = pixels.shape
        self.padding, self.flip = padding, flip
        if padding:
            pixels = np.pad(pixels, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        if flip:
            pixels = np.concatenate([pixels, pixels[:, :, ::-1]])
        pixels = np.ascontiguousarray(pixels)
        image, row, pixel, _ = pixels.strides
        corners = 2 * padding + 1
        # [image, top, left] is a whole window, and a row of it one element, which is copied at once.
        shape, whole_row = (len(pixels), corners, corners, height), np.dtype((np.void, width * channels))
        self.windows = np.ndarray(shape, whole_row, buffer=pixels, strides=(image, row, pixel, row))

    def take(self, indices: np.ndarray, draws: Draws) -> np.ndarray:
        """`(B, H, W, C)` uint8."""
        corners = 2 * self.padding + 1
        if self.flip:
            indices = indices + self.shape[0] * draws.integers(2)
        top, left = draws.integers(corners), draws.integers(corners)
        return self.windows[indices, top, left].view(np.uint8).reshape(len(indices), *self.shape[1:])


class Augment:
    """From gathered pixels to what the net sees: the resampling, turns, colours, normalisation, cutout."""

    def __init__(
        self, config: AugmentConfig, size: int, mean: tuple[float, ...], std: tuple[float, ...], epochs: int = 1
    ):
        self.config = config
        self.size, self.mean, self.std, self.epochs = size, mean, std, epochs
        self.padding = config.padding if config.crop == "padded" else 0  # of the windows that are cut out before
        self.policy = Policy(config) if config.policy else None
        jitter = {"brightness": config.brightness, "contrast": config.contrast, "color": config.saturation}
        self.jitter = {name: most for name, most in jitter.items() if most}
        self.moves = any((config.rotation, config.shift, config.shear, config.zoom))
        self.resamples = config.crop in ("resized", "jittered") or self.moves
        if config.crop == "jittered" and config.shorter_side[0] < size:
            least = f"at least {size}, the side of what the net sees"
            raise InputError(f"augment.shorter_side begins at {config.shorter_side[0]:g}, but must be {least}")
        if config.pca_noise and len(mean) != 3:
            raise InputError(f"augment.pca_noise is for colour images, not for images of {len(mean)} channel(s)")

    def after_crop(self) -> "Augment":
        """What is left to do with parts that are cut out already."""
        rest = copy.copy(self)
        rest.config, rest.resamples = replace(self.config, crop=None), self.moves
        return rest

    def __call__(self, pixels: Tensor, draws: Draws | np.random.Generator) -> Tensor:
        """`(B, H, W, C)` uint8 to `(B, C, size, size)` float32."""
        config = self.config
        if not isinstance(draws, Draws):
            draws = Draws(draws, len(pixels))
        if self.resamples:
            pixels = self._resample(pixels, draws)
        elif pixels.shape[1] != self.size:
            pixels = self._shrink(pixels)
        if config.flip_vertical:
            pixels = _some(pixels, draws.integers(2) == 1, lambda images: images.flip(1))
        if config.quarter_turns:
            turns = draws.integers(4)
            for many in (1, 2, 3):
                pixels = _some(pixels, turns == many, lambda images, many=many: images.rot90(many, (1, 2)))
        if self.policy:
            pixels = self.policy(pixels, draws)
        if self.jitter:
            images = pixels.permute(0, 3, 1, 2) / 255
            for name, most in self.jitter.items():
                images = change(name, images, _tensor(draws.uniform(-most, most), pixels.device))
            pixels = 255 * images.permute(0, 2, 3, 1)
        if config.channel_shift:
            amount = 255 * config.channel_shift
            shift = _tensor(draws.uniform(-amount, amount, 1, 1, pixels.shape[3]), pixels.device)
            pixels = (pixels + shift).clamp_(0, 255)
        if config.pca_noise:
            pixels = pixels + 255 * _tensor(_colours(config.pca_noise, draws), pixels.device)
        batch = normalise(pixels, self.mean, self.std)
        if config.cutout:
            batch = self._cut_out(batch, draws)
        if config.erasing:
            batch = self._erase(batch, draws)
        return batch

    def at(self, epoch: int) -> "Augment":
        """What it is in that epoch (from 0), whose images may be smaller."""
        share = min(epoch / (self.config.grown_at * max(self.epochs, 1)), 1.0)
        if share == 1 or self.config.grows_from == 1:
            return self
        side = self.size * (self.config.grows_from + (1 - self.config.grows_from) * share)
        unit = 32 if self.size >= 128 else 4  # sizes that nets halve without a rest
        then = copy.copy(self)
        then.size = min(max(round(side / unit) * unit, unit), self.size)
        return then

    def _shrink(self, pixels: Tensor) -> Tensor:
        images = pixels.permute(0, 3, 1, 2)
        images = images if images.device.type == "cpu" else images.float()  # no GPU has a kernel for uint8
        scaled = nn.functional.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        return scaled.permute(0, 2, 3, 1)

    def _resample(self, pixels: Tensor, draws: Draws) -> Tensor:
        """One bilinear look-up through one affine map per image; what lies outside is black.

        A crop alone never reaches outside, so there the outermost half pixel is spared the black.
        """
        images = pixels.permute(0, 3, 1, 2).to(torch.float32)
        outside = "zeros" if self.moves else "border"
        size = (self.size, self.size)
        return look_up(images, _tensor(self._affine(draws), pixels.device), size, outside).permute(0, 2, 3, 1)

    def _affine(self, draws: Draws) -> np.ndarray:
        """`(B, 2, 3)`: where in the image, on the scale -1 to 1, each place of the result is looked up."""
        config = self.config

        def within(limit: float) -> np.ndarray:
            return draws.uniform(-limit, limit) if limit else np.zeros(draws.many)

        angle, shear = np.radians(within(config.rotation)), np.tan(np.radians(within(config.shear)))
        zoom = 1 / (1 + within(config.zoom))
        # rotation x shear, seen from the result
        a, b = np.cos(angle), np.cos(angle) * shear - np.sin(angle)
        c, d = np.sin(angle), np.sin(angle) * shear + np.cos(angle)
        linear = np.stack([np.stack([a, b], -1), np.stack([c, d], -1)], -2) * zoom[:, None, None]
        offset = 2 * np.stack([within(config.shift), within(config.shift)], -1)
        if config.crop in ("resized", "jittered"):
            part, place = self._parts(draws)
            linear = part[:, :, None] * linear
            offset = part * offset + place
        return np.concatenate([linear, offset[:, :, None]], -1)

    def _parts(self, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        """Sides of a random part of the image as shares, and its centre, `(B, 2)` each.

        resized: GoogLeNet, section 6. jittered: the image is scaled to a random shorter side (VGG, section 3.1).
        """
        if self.config.crop == "jittered":
            side = self.size / draws.uniform(*self.config.shorter_side)
            return side[:, None].repeat(2, 1), (1 - side[:, None]) * draws.uniform(-1, 1, 2)
        shapes = draws.sides(self.config.scale, self.config.ratio, TRIES)  # (B, TRIES, 2)
        within = (shapes <= 1).all(2)
        first = shapes[np.arange(len(shapes)), within.argmax(1)]  # of those that lie within the image
        narrowest, widest = self.config.ratio
        part = np.where(within.any(1)[:, None], first, (min(widest, 1.0), min(1 / narrowest, 1.0)))
        return part, (1 - part) * draws.uniform(-1, 1, 2)

    def _cut_out(self, batch: Tensor, draws: Draws) -> Tensor:
        """A square around a random centre set to the mean (DeVries, Taylor 2017, arXiv 1708.04552)."""
        half = self.config.cutout / 2
        places = torch.arange(self.size, device=batch.device) + 0.5
        centres = _tensor(draws.uniform(0, self.size, 2, 1), batch.device)
        inside = (places - centres).abs() < half  # (B, 2, size)
        return batch.masked_fill_(inside[:, :1, :, None] & inside[:, 1:, None, :], 0.0)

    def _erase(self, batch: Tensor, draws: Draws) -> Tensor:
        """Set a window of some images to the mean (Zhong et al. 2017, arXiv 1708.04896, section 3.2: a 50th to a third
        of the area, 0.3 to 3.3 times as high as wide).
        """
        sides = self.size * draws.sides((0.02, 1 / 3), (0.3, 1 / 0.3)).clip(max=1.0)
        sides *= draws.uniform(0, 1, 1) < self.config.erasing
        first = draws.uniform(0, 1, 2) * (self.size - sides)
        places = torch.arange(self.size, device=batch.device) + 0.5
        low, high = (_tensor(edge[:, :, None], batch.device) for edge in (first, first + sides))
        inside = (places >= low) & (places < high)  # (B, 2, size)
        return batch.masked_fill_(inside[:, :1, :, None] & inside[:, 1:, None, :], 0.0)


class Mix:
    """Mixup and cutmix: each image gets a part of its neighbour in the shuffled batch, and of its label.

    Neighbours are the first and second, third and fourth, and so on, so that a process with an even share of a batch
    has them all; an odd one out stays as it is. With both, each batch draws which one it gets, as timm's does.
    """

    def __init__(self, classes: int, mixup: float = 0.0, cutmix: float = 0.0):
        self.classes, self.mixup, self.cutmix = classes, mixup, cutmix

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def __call__(self, images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """`(B, C, H, W)` and `(B,)` int64 to mixed images and their labels' shares `(B, classes)`."""
        cuts = self.cutmix and not (self.mixup and draws.common(lambda rng: rng.random()) < 0.5)
        alpha = self.cutmix if cuts else self.mixup
        share = float(draws.common(lambda rng: rng.beta(alpha, alpha)))
        paired = torch.arange(len(images), device=images.device) ^ 1
        paired[-1].clamp_(max=len(images) - 1)
        targets = nn.functional.one_hot(labels, self.classes).float()
        if not cuts:
            images = torch.lerp(images[paired], images, share).contiguous(memory_format=layout_on(images.device))
        else:
            images, share = self._paste(images, paired, share, draws)
        return images, torch.lerp(targets[paired], targets, share)

    def _paste(self, images: Tensor, paired: Tensor, share: float, draws: Draws) -> tuple[Tensor, float]:
        """Into every image one and the same window of its neighbour, and the share of the image that is left (Yun et
        al. 2019, arXiv 1905.04899, section 3.1)."""
        height, width = images.shape[2:]
        middle = draws.common(lambda rng: rng.random(2))
        rows, columns = (
            slice(*(round(min(max(side * (centre + sign * math.sqrt(1 - share) / 2), 0), side)) for sign in (-1, 1)))
            for side, centre in zip((height, width), middle, strict=True)
        )
        pasted = images.clone(memory_format=torch.preserve_format)
        pasted[:, :, rows, columns] = images[paired][:, :, rows, columns]
        return pasted, 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)


# Principal components of ImageNet's colours on the scale 0 to 1, as fb.resnet.torch and many after it have them:
# eigenvalues, and eigenvectors in columns over red, green, blue.
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_COMPONENTS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


def _colours(deviation: float, draws: Draws) -> np.ndarray:
    """`(B, 1, 1, 3)` to add to every pixel of an image: each principal component times its eigenvalue and a normal draw
    (Krizhevsky, Sutskever, Hinton 2012, section 4.1).
    """
    amounts = draws.normal(deviation, 3) * _EIGENVALUES
    return (amounts @ _COMPONENTS.T)[:, None, None]


def _some(images: Tensor, chosen: np.ndarray, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The images with those that are `chosen` (B,) changed."""
    where = to_device(np.flatnonzero(chosen), images.device)
    return images.index_copy(0, where, change(images[where]))


def _tensor(values: np.ndarray, device: torch.device) -> Tensor:
    return to_device(values.astype(np.float32), device)
