"""Pictures as Fourier coefficients, by which gradients draw more natural ones than by pixels (Olah, Mordvintsev,
Schubert: Feature visualization, Distill 2017, doi 10.23915/distill.00007).
"""

import numpy as np
import torch
from torch import Tensor

from cnnzoo.data.preprocess import Preprocess, Sheet

AT_ONCE = 8  # pictures to a forward pass

# The axes along which the colours of photos vary independently (brightness, blue against yellow, green against
# magenta), as columns of red, green and blue, each as long as colours vary along it, the first 1: eigenvectors of the
# covariance of the pixels of 500 photos, one for each of 500 classes of ImageNet, times the roots of the eigenvalues.
COLOURS = ((0.564, -0.201, 0.061), (0.577, -0.011, -0.116), (0.590, 0.203, 0.055))


class Draw:
    """B pictures as Fourier coefficients, of which a step of any size changes all frequencies as photos have them: the
    strength of a frequency falls with its height (D. Field: Relations between the statistics of natural images and the
    response properties of cortical cells, 1987).
    """

    def __init__(self, many: int, shape: tuple[int, int, int], device: torch.device, random: torch.Generator):
        channels, *self._sides = shape
        down, across = torch.fft.fftfreq(self._sides[0]), torch.fft.rfftfreq(self._sides[1])
        height = torch.hypot(*torch.meshgrid(down, across, indexing="ij"))  # (H, W // 2 + 1)
        self._strength = (1 / height.clamp(min=1 / max(self._sides))).to(device, torch.float32) / 4
        start = 0.01 * torch.randn(many, channels, *height.shape, 2, generator=random, dtype=torch.float32)
        self.coefficients = start.to(device).requires_grad_()

    def pictures(self) -> Tensor:
        """`(B, C, H, W)` in 0..1."""
        spectrum = torch.view_as_complex(self.coefficients) * self._strength
        x = torch.fft.irfft2(spectrum, s=self._sides, norm="ortho")
        if x.shape[1] == 3:
            x = torch.einsum("bahw,ca->bchw", x, torch.tensor(COLOURS).to(x))
        return x.sigmoid()


def variation(pictures: Tensor, power: float) -> Tensor:
    """Total variation of pictures `(B, C, H, W)`: `(B,)`, the mean over all pixels and channels of a power of the
    length of the step (right, down) to the next ones (equation 4 of Mahendran and Vedaldi, over the number of pixels).
    """
    across = (pictures[..., :-1, 1:] - pictures[..., :-1, :-1]).square()
    down = (pictures[..., 1:, :-1] - pictures[..., :-1, :-1]).square()
    return (across + down + 1e-12).pow(power / 2).mean((1, 2, 3))  # a root of 0 would have no slope


def normalised(pictures: Tensor, preprocess: Preprocess | Sheet) -> Tensor:
    """Images on the scale 0..1, as the net takes them."""
    mean, std = (torch.tensor(values).to(pictures)[:, None, None] for values in (preprocess.mean, preprocess.std))
    return (pictures - mean) / std


def to_pixels(pictures: Tensor) -> np.ndarray:
    """`(B, C, H, W)` around 0..1 to `(B, H, W, C)` uint8."""
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def from_pixels(pixels: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
