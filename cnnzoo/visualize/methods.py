"""The ways to draw where in an image the evidence for a class lies, by name.

What they compute is in `gradients` (of the pixels) and `cams` (of a layer's maps).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cnnzoo.errors import unknown
from cnnzoo.visualize import cams, gradients

FINE = ("saliency", "guided")  # families whose maps have a value for each pixel by itself

Maps = Callable[[nn.Module, Tensor, Tensor], Tensor]  # net, images (B, C, H, W) and classes (B,) to (B, H, W)
Choose = Callable[[Tensor], Tensor]  # logits (B, K) to the classes (B,) asked for


class Method(NamedTuple):
    """A way to draw a map."""

    title: str
    family: str  # the function of `visualize` that offers it: saliency, guided, occlusion or gradcam
    maps: Callable[[nn.Module, Tensor, Tensor, str], Tensor]  # net, images, classes, layer; see `maps_of`
    weigh: Callable[[cams.Pass], Tensor] | None = None  # of a pass that gives the logits as well

    @property
    def by_layer(self) -> bool:
        """Whether it asks for a layer, whose maps it weighs."""
        return self.family == "gradcam"


def _of_pixels(title: str, maps: Maps, family: str = "saliency") -> Method:
    return Method(title, family, lambda net, x, target, layer: maps(net, x, target))


def _of_pass(title: str, weigh: Callable[[cams.Pass], Tensor]) -> Method:
    def maps(net: nn.Module, x: Tensor, target: Tensor, layer: str) -> Tensor:
        return _upscaled(weigh(cams.one_pass(net, x, layer, lambda logits: target)), x)

    return Method(title, "gradcam", maps, weigh)


def _scorecam(net: nn.Module, x: Tensor, target: Tensor, layer: str) -> Tensor:
    return _upscaled(cams.scorecam(net, x, target, layer), x)


METHODS = {
    "gradient": _of_pixels("gradient", gradients.gradient),
    "smoothgrad": _of_pixels("SmoothGrad", gradients.smoothgrad),
    "integrated": _of_pixels("integrated gradients", gradients.integrated),
    "input_x_gradient": _of_pixels("input x gradient", gradients.input_x_gradient),
    "guided": _of_pixels("guided backpropagation", gradients.guided, "guided"),
    "occlusion": _of_pixels("occlusion", gradients.occlusion, "occlusion"),
    "gradcam": _of_pass("Grad-CAM", cams.gradcam),
    "gradcam++": _of_pass("Grad-CAM++", cams.gradcam_plus_plus),
    "hirescam": _of_pass("HiResCAM", cams.hirescam),
    "layercam": _of_pass("LayerCAM", cams.layercam),
    "eigencam": _of_pass("Eigen-CAM", cams.eigencam),
    "scorecam": Method("Score-CAM", "gradcam", _scorecam),
}


def check(method: str, family: str | None = None) -> None:
    """Raises InputError for a method that is not there, or not of this family."""
    known = [name for name, one in METHODS.items() if family in (None, one.family)]
    if method not in known:
        raise unknown("method", method, known)


def maps_of(net: nn.Module, x: Tensor, target: Tensor, method: str, layer: str = "") -> Tensor:
    """Maps `(B, H, W)` float32 of images `(B, C, H, W)` for classes `(B,)` int64, by one of `METHODS`; one that goes by
    a layer needs its name. The net is as `untouched` has it.
    """
    return METHODS[method].maps(net, x, target, layer)


def asked(net: nn.Module, x: Tensor, choose: Choose, method: str, layer: str) -> tuple[Tensor, Tensor, Tensor]:
    """`maps_of` the classes that `choose` gives when it is shown the logits; these classes; and the logits `(B, K)`.
    Grad-CAM and its kin take one pass for all of it.
    """
    if weigh := METHODS[method].weigh:
        seen = cams.one_pass(net, x, layer, choose)
        return _upscaled(weigh(seen), x), seen.target, seen.logits
    with torch.no_grad():
        logits = net(x)
    target = choose(logits)
    return maps_of(net, x, target, method, layer), target, logits


def by_name(method: str, net: nn.Module, x: Tensor) -> Maps:
    """A method for images like `x`; the layer of one that asks for it is chosen as `gradcam` chooses it.

    Raises InputError for a name that is not known, and for a net without maps where they are needed.
    """
    check(method)
    layer = cams.map_layer(net, x) if METHODS[method].by_layer else ""
    return partial(maps_of, method=method, layer=layer)


def _upscaled(maps: Tensor, x: Tensor) -> Tensor:
    """Maps `(B, h, w)` brought to the size of the images `(B, C, H, W)`."""
    return interpolate(maps[:, None], x.shape[-2:], mode="bilinear")[:, 0]
