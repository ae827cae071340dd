"""Where in an image a class is seen: a layer's maps, weighted by what they do for the class's logit.

Grad-CAM and its kin need one forward pass, and a backward pass from the logits to the layer. The weighted sum is cut
off at 0, for it asks what speaks for the class, and is `(B, h, w)`, of the size of the layer's maps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cnnzoo import bars
from cnnzoo.errors import InputError
from cnnzoo.visualize.gradients import AT_ONCE
from cnnzoo.visualize.hooks import is_wide, last_with_maps, layer_of, watching


@dataclass(frozen=True)
class Pass:
    """One pass forward and back, of B images."""

    logits: Tensor  # (B, K)
    target: Tensor  # (B,) int64: the class that each image was asked for
    maps: Tensor  # (B, C, h, w): what the layer gave
    gradients: Tensor  # (B, C, h, w): of the targets' logits, with respect to the maps


def one_pass(net: nn.Module, x: Tensor, layer: str, choose: Callable[[Tensor], Tensor]) -> Pass:
    """Images `(B, C, H, W)` through a net as `untouched` has it; `choose` gives the classes `(B,)` asked for, when it
    is shown the logits.
    """
    with watching(net, layer) as seen, torch.enable_grad():
        logits = net(x)
        target = choose(logits.detach())
        gradients = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), seen[layer])[0]
    return Pass(logits.detach(), target, seen[layer].detach(), gradients)


def gradcam(seen: Pass) -> Tensor:
    """Each map's weight is its mean gradient (Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra: Grad-CAM, 2017, arXiv
    1610.02391, equations 1 and 2).
    """
    weights = seen.gradients.mean((2, 3), keepdim=True)
    return (weights * seen.maps).sum(1).relu()


def gradcam_plus_plus(seen: Pass) -> Tensor:
    """Each map's weight is a weighted sum of its positive gradients, so that a class seen in several places shows in
    all (Chattopadhyay, Sarkar, Howlader, Balasubramanian: Grad-CAM++, 2017, arXiv 1710.11063, with the weights of
    equation 19, for the exponential of the logit; its own value, a factor of the whole map, is left out).

    Equation 19 is for maps past a ReLU; where others are negative on the whole, they count as 0 in its denominator.
    """
    total = seen.maps.sum((2, 3), keepdim=True).clamp(min=0)
    positive = seen.gradients.relu()
    weights = (positive / (2 + total * positive)).sum((2, 3), keepdim=True)
    return (weights * seen.maps).sum(1).relu()


def hirescam(seen: Pass) -> Tensor:
    """Each place of a map has its own gradient for a weight, so that the map shows only places that the logit does rest
    on (Draelos, Carin: Use HiResCAM instead of Grad-CAM, 2020, arXiv 2011.08891).
    """
    return (seen.gradients * seen.maps).sum(1).relu()


def layercam(seen: Pass) -> Tensor:
    """The same with positive gradients alone, which makes early layers of use (Jiang, Zhang, Hou, Cheng, Wei: LayerCAM,
    IEEE Transactions on Image Processing, 2021).
    """
    return (seen.gradients.relu() * seen.maps).sum(1).relu()


def eigencam(seen: Pass) -> Tensor:
    """What the maps have in common, whatever the class: their first principal component (Muhammad, Yeasin: Eigen-CAM,
    2020, arXiv 2008.00299, section III), signed as most of the maps are. It shows what a map can look like without
    asking the net for any class.
    """
    flat = seen.maps.flatten(2).cpu()  # where every device's singular values are computed
    first = torch.linalg.svd(flat.nan_to_num(0, 0, 0), full_matrices=False).U[:, :, 0]  # LAPACK takes numbers only
    component = torch.einsum("bcp,bc->bp", flat, first)
    component = component * component.sum(1, keepdim=True).sign()
    return component.view(len(flat), *seen.maps.shape[2:]).relu().to(seen.maps.device)


def scorecam(net: nn.Module, x: Tensor, target: Tensor, layer: str) -> Tensor:
    """No gradients: each map's weight is the class's logit when all but what the map shows is taken from the image, as
    a softmax over the maps (Wang et al.: Score-CAM, 2019, arXiv 1910.01279, Algorithm 1). It takes as many forward
    passes as the layer has maps.

    Images `(B, C, H, W)`, classes `(B,)` int64.
    """
    with watching(net, layer) as seen, torch.no_grad():
        net(x)
    with torch.no_grad():
        return torch.stack([_scored(net, *image) for image in zip(x, target, seen[layer], strict=True)])


def _scored(net: nn.Module, image: Tensor, target: Tensor, maps: Tensor) -> Tensor:
    """Of one image `(C, H, W)` and its maps `(c, h, w)`; a map that is the same everywhere shows nothing."""
    uneven = maps.amax((1, 2)) > maps.amin((1, 2))
    if not uneven.any():
        return torch.zeros_like(maps[0])
    maps = maps[uneven]
    parts = bars.show(maps.split(AT_ONCE), "maps one by one", unit="batch")
    logits = [net(image * _mask(some, image))[:, target] for some in parts]
    return (torch.cat(logits).softmax(0)[:, None, None] * maps).sum(0).relu()


def _mask(maps: Tensor, image: Tensor) -> Tensor:
    """What maps `(c, h, w)` show of an image `(C, H, W)`: `(c, 1, H, W)`, each brought to its size, and only then to
    0..1, for peaks become flatter on the way.
    """
    large = interpolate(maps[:, None], image.shape[-2:], mode="bilinear")
    low, high = large.amin((2, 3), keepdim=True), large.amax((2, 3), keepdim=True)
    return (large - low) / (high - low).clamp(min=torch.finfo(large.dtype).tiny)


def map_layer(net: nn.Module, x: Tensor, name: str | None = None) -> str:
    """The name of the layer whose maps are to be weighted; None is the last stage with maps of more than one place.

    Raises InputError for a layer that is not there, and for one without maps.
    """
    size = "x".join(map(str, x.shape[-2:]))
    if name is None:
        if layer := last_with_maps(net, x):
            return layer
        raise InputError(f"no stage of this net has maps (H, W) of images of {size}; saliency works on any net")
    name = layer_of(net, name).name
    with watching(net, name) as seen, torch.no_grad():
        net(x[:1])
    shape = tuple(seen[name].shape[1:])
    if is_wide(shape):
        return name
    raise InputError(f"layer {name} has no maps (H, W), but gives {shape} of an image of {size}; take an earlier one")
