"""A net in its fast form for the images at hand, in the precision asked for; int8 finds images to calibrate on."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from cnnzoo import config, whereabouts
from cnnzoo.checkpoint import run_of
from cnnzoo.data import sources
from cnnzoo.data.preprocess import Preprocess, Sheet, normalise
from cnnzoo.errors import InputError
from cnnzoo.inference import optimized
from cnnzoo.telling import Tell, silent

MANY = 256  # images that int8 is calibrated on, where there are so many

Sample = tuple[np.ndarray, str]  # pixels (N, size, size, C) uint8 as evaluation sees them, and what they are


def fast_form(
    net: nn.Module,
    preprocess: Preprocess | Sheet,
    many: int,
    precision: str,
    fallback: Callable[[], Sample],
    root: str | None = None,
    tell: Tell = silent,
) -> nn.Module:
    """The fast form of a net, or the net as it is where so few images do not pay for another.

    int8 is calibrated on images that the net was trained on, where it comes from a run whose images are still there.

    Args:
        net: on its device; it is put into eval mode.
        preprocess: the net's own.
        many: images to come, each crop or mirror image counted.
        precision: auto, fp32, bf16, fp16 or int8, see `optimized.optimize`.
        fallback: gives images to calibrate int8 on where those of the run cannot be had.
        root: where named sets lie, if elsewhere than the run says.
        tell: is given a line on what int8 was calibrated on, and how often it names the plain net's class there.

    Raises:
        InputError: for what `optimize` refuses, and for another precision of a net that it made.
    """
    if isinstance(net, optimized.Optimized):
        return optimized.optimize(net, precision)
    if not many or (
        precision in ("auto", "fp32") and (many < optimized.FEW or not any(True for _ in net.parameters()))
    ):
        return net
    if precision != "int8":
        fast = optimized.optimize(net, precision)
        fast.to_come = many
        return fast
    pixels, what = _trained_on(net, preprocess, root) or fallback()
    if not len(pixels):
        raise InputError("int8 is calibrated on images, and none of those at hand can be read; take precision fp32")
    images = normalise(torch.from_numpy(pixels), preprocess.mean, preprocess.std)
    fast = optimized.optimize(net, "int8", calibration=images)
    tell(f"int8, calibrated on {len(pixels)} {what}: there it names fp32's class for {fast.agreement:.1%}")
    return fast


def _trained_on(net: nn.Module, preprocess: Preprocess | Sheet, root: str | None) -> Sample | None:
    """Some of the images that the net's run trained on, none that it was validated on; None where there are none."""
    run = run_of(net)
    if run is None:
        return None
    try:
        data, split = whereabouts.find(run, config.read(run.config_file).data, None, str(run.path))
        pixels = sources.sample(replace(data, root=root or data.root), preprocess, MANY, names=split["train"])
    except (InputError, OSError):  # another machine than the one it was trained on
        return None
    return (pixels, f"training images of {run.path}") if len(pixels) else None
