"""Pictures that a net cannot tell from a given one: what its layers keep of an image."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnnzoo import bars
from cnnzoo.errors import InputError, at_least
from cnnzoo.telling import Tell
from cnnzoo.visualize import drawing
from cnnzoo.visualize.fourier import AT_ONCE, Draw, from_pixels, normalised, to_pixels, variation
from cnnzoo.visualize.hooks import Layer, layer_of, several, stages_of, untouched
from cnnzoo.visualize.partway import output_of
from cnnzoo.visualize.subject import Model, Pretrained, Subject

ALPHA, BETA = 6, 2  # the paper's
IN_RANGE, NATURAL = 0.03, 4.0  # what the alpha-norm and the total variation count, against an error of the code of 1
STEP = 0.2  # of Adam, which comes to rest along a cosine


@dataclass(frozen=True)
class Inverted(drawing.Result):
    """N images, and for each of L layers the pictures that were made from what the layer says of them."""

    name: str  # the net's
    layers: tuple[str, ...]
    pictures: tuple[str, ...]  # the images' names
    pixels: np.ndarray  # (N, H, W, C) uint8, the images as the net sees them
    made: np.ndarray  # (L, N, H, W, C) uint8
    code_errors: np.ndarray  # (L, N) float32: |code of what was made - code of the image| / |code of the image|
    errors: np.ndarray  # (L, N) float32: the same of the pixels, where mid-grey is 0
    psnr: np.ndarray  # (L, N) float32: decibels; infinite where they are the same

    def __str__(self) -> str:
        kept = ", ".join(f"{name} {psnr:.1f} dB" for name, psnr in zip(self.layers, self.psnr.mean(1), strict=True))
        many = len(self.pictures)
        pictures = self.pictures[0] if many == 1 else f"{drawing.some(many, 'picture')}, on average"
        return f"what layers keep of {pictures}: {kept}, of {self.name}"

    def figure(self):
        """A strip for each of the first images."""
        both = list(zip(self.pixels, self.made.swapaxes(0, 1), strict=True))
        rows = [[image, *made] for image, made in both[: drawing.DRAWN]]
        titles = [
            ["the image", *(self._title(layer, row) for layer in range(len(self.layers)))] for row in range(len(rows))
        ]
        figure = drawing.page(rows, titles)
        figure.suptitle(f"{self.name}: an image, made again from what each layer says of it", fontsize=9, wrap=True)
        return figure

    def _title(self, layer: int, image: int) -> str:
        psnr, error = self.psnr[layer, image], self.code_errors[layer, image]
        return f"{self.layers[layer]}: {psnr:.1f} dB, code off by {error:.1%}"


def invert(
    model_or_run: Model,
    images: str | Path | Iterable,
    layers: str | Sequence[str] | None = None,
    *,
    pretrained: Pretrained = False,
    steps: int = 200,
    size: int | None = None,
    seed: int = 0,
    device: str = "auto",
    tell: Tell = print,
) -> Inverted:
    """Images from their codes: pictures of which layers say the same.

    Mahendran, Vedaldi: Understanding deep image representations by inverting them, 2014, arXiv 1412.0035, section 3.
    From noise, the squared relative error of the code is made small, together with the alpha-norm of the pixels, which
    keeps them from the ends of their range, and their total variation. (Instead of gradient descent with momentum on
    pixels it is Adam on Fourier coefficients, as in `maximise`; the total variation weighs the same for all layers.)

    Args:
        model_or_run: a net, a run, or a net's name; see `Subject.open`.
        images: files, folders, patterns, PIL images or uint8 arrays; see `Subject.look`.
        layers: one or several, by stages or modules' paths; None is every stage.
        pretrained: weights for a net's name.
        steps: of Adam, for each layer.
        size: the images' side; None is that which the net takes.
        seed: of the noise.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
        tell: is given a line on images that cannot be read, which are left out.

    Raises:
        InputError: for a layer that is not there or says nothing of an image (zeros only), and where no image can be
            read.
    """
    at_least("steps", steps)
    at_least("seed", seed, 0)
    subject = Subject.open(model_or_run, pretrained, device)
    looked = subject.look(images, size, tell)
    with untouched(subject.net) as net:
        subject = replace(subject, net=net)
        ends = [layer_of(net, name, looked.x) for name in several(layers or stages_of(net) or None)]
        batches = looked.x.split(AT_ONCE)
        total = steps * len(ends) * len(batches)
        with bars.show(total=total, desc="inverting", unit="step") as bar:
            parts = [_inverted(subject, end, batches, steps, seed, bar.update) for end in ends]
    made, code_errors = (np.stack(each) for each in zip(*parts, strict=True))
    off = (made.astype(np.float32) - looked.pixels) / 255
    with np.errstate(divide="ignore"):
        psnr = -10 * np.log10((off**2).mean((2, 3, 4)))  # of images in 0..1
    errors = _norm(off, 2) / _norm(looked.pixels / np.float32(255) - 0.5, 1)
    layers = tuple(layer.name for layer in ends)
    return Inverted(subject.name, layers, looked.names, looked.pixels, made, code_errors, errors, psnr)


def _norm(values: np.ndarray, axis: int) -> np.ndarray:
    return np.sqrt((values**2).sum(tuple(range(axis, values.ndim))))


def _inverted(
    subject: Subject, layer: Layer, batches: Sequence[Tensor], steps: int, seed: int, stepped: Callable[[], object]
) -> tuple[np.ndarray, np.ndarray]:
    """What `_descend` makes, of all images."""
    random = torch.Generator().manual_seed(seed)
    parts = [_descend(subject, layer, x, steps, random, stepped) for x in batches]
    pixels, errors = (np.concatenate(each) for each in zip(*parts, strict=True))
    return pixels, errors


def _descend(
    subject: Subject, layer: Layer, x: Tensor, steps: int, random: torch.Generator, stepped: Callable[[], object]
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures `(B, H, W, C)` uint8 and the relative errors of their codes `(B,)`."""

    def code_of(x: Tensor) -> Tensor:
        return output_of(subject.net, layer, x).flatten(1)

    with torch.no_grad():
        code = code_of(x)
    length = code.norm(dim=1)
    if not length.all():
        raise InputError(f"{layer.name} says nothing of an image (zeros only), from which nothing can be made")

    def error(pictures: Tensor) -> Tensor:
        return (code_of(normalised(pictures, subject.preprocess)) - code).norm(dim=1) / length

    draw = Draw(len(x), x.shape[1:], x.device, random)
    optimizer = torch.optim.Adam([draw.coefficients], lr=STEP)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        with torch.enable_grad():
            pictures = draw.pictures()
            in_range = (2 * pictures - 1).pow(ALPHA).mean((1, 2, 3))
            loss = error(pictures).square() + IN_RANGE * in_range + NATURAL * variation(pictures, BETA)
            draw.coefficients.grad = torch.autograd.grad(loss.sum(), draw.coefficients)[0]
        optimizer.step()
        schedule.step()
        stepped()
    with torch.no_grad():
        pixels = to_pixels(draw.pictures())
        return pixels, error(from_pixels(pixels, x.device)).cpu().numpy()
