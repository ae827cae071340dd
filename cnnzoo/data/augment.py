"""Augmentation of whole uint8 batches, on the device, with a draw for every image.

Flip and padded crop are one copy out of a strided view and never touch a pixel's value; everything that interpolates
composes into one resampling.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from cnnzoo.config import AugmentConfig
from cnnzoo.data.preprocess import normalise
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
        image, row, pixel, _ = pixels.strides
        corners = 2 * padding + 1
        shape = (len(pixels), corners, corners, height, width * channels)
        # [image, top, left] is a whole window: indexing copies its rows as they lie in memory.
        self.windows = np.lib.stride_tricks.as_strided(pixels, shape, (image, row, pixel, row, 1), writeable=False)

    def take(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """`(B, H, W, C)` uint8."""
        many, corners = len(indices), 2 * self.padding + 1
        if self.flip:
            indices = indices + self.shape[0] * rng.integers(0, 2, many)
        top, left = rng.integers(0, corners, (2, many))
        return self.windows[indices, top, left].reshape(many, *self.shape[1:])


class Augment:
    """From gathered pixels to what the net sees: the resampling, colours, normalisation, cutout."""

    def __init__(self, config: AugmentConfig, size: int, mean: tuple[float, ...], std: tuple[float, ...]):
        self.config = config
        self.size, self.mean, self.std = size, mean, std
        self.moves = any((config.rotation, config.shift, config.shear, config.zoom))
        self.resamples = config.crop in ("resized", "jittered") or self.moves
        if config.crop == "jittered" and config.shorter_side[0] < size:
            least = f"at least {size}, the side of what the net sees"
            raise InputError(f"augment.shorter_side begins at {config.shorter_side[0]:g}, but must be {least}")
        if config.pca_noise and len(mean) != 3:
            raise InputError(f"augment.pca_noise is for colour images, not for images of {len(mean)} channel(s)")

    def __call__(self, pixels: Tensor, rng: np.random.Generator) -> Tensor:
        """`(B, H, W, C)` uint8 to `(B, C, size, size)` float32."""
        config, many = self.config, len(pixels)
        if self.resamples:
            pixels = self._resample(pixels, rng)
        if config.brightness:
            factor = _tensor(rng.uniform(1 - config.brightness, 1 + config.brightness, (many, 1, 1, 1)), pixels.device)
            pixels = (pixels * factor).clamp_(0, 255)
        if config.channel_shift:
            amount = 255 * config.channel_shift
            pixels = (
                pixels + _tensor(rng.uniform(-amount, amount, (many, 1, 1, pixels.shape[3])), pixels.device)
            ).clamp_(0, 255)
        if config.pca_noise:
            pixels = pixels + 255 * _tensor(_colours(many, config.pca_noise, rng), pixels.device)
        batch = normalise(pixels, self.mean, self.std)
        if config.cutout:
            batch = self._cut_out(batch, rng)
        return batch

    def _resample(self, pixels: Tensor, rng: np.random.Generator) -> Tensor:
        """One bilinear look-up through one affine map per image; what lies outside is black.

        A crop alone never reaches outside, so there the outermost half pixel is spared the black.
        """
        theta = _tensor(self._affine(len(pixels), rng), pixels.device)
        grid = nn.functional.affine_grid(
            theta, [len(pixels), pixels.shape[3], self.size, self.size], align_corners=False
        )
        images = pixels.permute(0, 3, 1, 2).to(torch.float32)
        outside = "zeros" if self.moves else "border"
        return nn.functional.grid_sample(images, grid, padding_mode=outside, align_corners=False).permute(0, 2, 3, 1)

    def _affine(self, many: int, rng: np.random.Generator) -> np.ndarray:
        """`(B, 2, 3)`: where in the image, on the scale -1 to 1, each place of the result is looked up."""
        config = self.config

        def within(limit: float) -> np.ndarray:
            return rng.uniform(-limit, limit, many) if limit else np.zeros(many)

        angle, shear = np.radians(within(config.rotation)), np.tan(np.radians(within(config.shear)))
        zoom = 1 / (1 + within(config.zoom))
        # rotation x shear, seen from the result
        a, b = np.cos(angle), np.cos(angle) * shear - np.sin(angle)
        c, d = np.sin(angle), np.sin(angle) * shear + np.cos(angle)
        linear = np.stack([np.stack([a, b], -1), np.stack([c, d], -1)], -2) * zoom[:, None, None]
        offset = 2 * np.stack([within(config.shift), within(config.shift)], -1)
        if config.crop in ("resized", "jittered"):
            part, place = self._parts(many, rng)
            linear = part[:, :, None] * linear
            offset = part * offset + place
        return np.concatenate([linear, offset[:, :, None]], -1)

    def _parts(self, many: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Sides of a random part of the image as shares, and its centre, `(B, 2)` each.

        resized: GoogLeNet, section 6. jittered: the image is scaled to a random shorter side (VGG, section 3.1).
        """
        if self.config.crop == "jittered":
            side = self.size / rng.uniform(*self.config.shorter_side, many)
            return side[:, None].repeat(2, 1), (1 - side[:, None]) * rng.uniform(-1, 1, (many, 2))
        area = rng.uniform(*self.config.scale, many)
        ratio = np.exp(rng.uniform(*(math.log(limit) for limit in self.config.ratio), many))
        part = np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], -1).clip(max=1.0)
        return part, (1 - part) * rng.uniform(-1, 1, (many, 2))

    def _cut_out(self, batch: Tensor, rng: np.random.Generator) -> Tensor:
        """A square around a random centre set to the mean (DeVries, Taylor 2017, arXiv 1708.04552)."""
        half = self.config.cutout / 2
        places = torch.arange(self.size, device=batch.device) + 0.5
        centres = _tensor(rng.uniform(0, self.size, (2, len(batch), 1)), batch.device)
        inside = (places - centres).abs() < half  # (2, B, size)
        return batch.masked_fill_(inside[0][:, None, :, None] & inside[1][:, None, None, :], 0.0)


def mix(images: Tensor, labels: Tensor, classes: int, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang, Cisse, Dauphin, Lopez-Paz 2018, section 2): `(B, C, H, W)` and `(B,)` to images of which each has
    a share of another, and their labels' shares `(B, classes)`.
    """
    share = float(rng.beta(alpha, alpha))
    others = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    targets = nn.functional.one_hot(labels, classes).float()
    mixed = torch.lerp(images[others], images, share)
    return mixed.contiguous(memory_format=torch.channels_last), torch.lerp(targets[others], targets, share)


# Principal components of ImageNet's colours on the scale 0 to 1, as fb.resnet.torch and many after it have them: square
# roots of the eigenvalues, and eigenvectors in columns over red, green, blue.
_DEVIATIONS = np.array([0.2175, 0.0188, 0.0045])
_COMPONENTS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


def _colours(many: int, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """`(B, 1, 1, 3)` to add to every pixel of an image: each principal component times its eigenvalue and a normal draw
    (Krizhevsky, Sutskever, Hinton 2012, section 4.1).
    """
    draws = rng.normal(0, deviation, (many, 3)) * _DEVIATIONS
    return (draws @ _COMPONENTS.T)[:, None, None]


def _tensor(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device, non_blocking=True)
