"""The same nets in the libraries people would use otherwise, with the same weights."""

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from cnnzoo import zoo
from cnnzoo.data.found import IMAGENET_MEAN, IMAGENET_STD

SEVEN = ("alexnet", "vgg16", "googlenet", "inception_v3", "resnet50", "densenet121", "xception")


def pair(name: str, device: torch.device, **options) -> tuple[nn.Module, nn.Module, str]:
    """A net of ours, torchvision's or else timm's with its very values, and whose that is.

    `options` are aux_logits and the like, for both.
    """
    torch.manual_seed(0)
    net, (peer, library) = zoo.create(name, **options), _build(name, options)
    net.load_state_dict(peer.state_dict())
    return net.to(device), peer.to(device), library


def _build(name: str, options: dict) -> tuple[nn.Module, str]:
    import torchvision

    if hasattr(torchvision.models, name):
        quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        return getattr(torchvision.models, name)(**quick, **options), "torchvision"
    return timm_net(name), "timm"


def timm_net(name: str) -> nn.Module:
    import timm

    return timm.create_model({"xception": "legacy_xception"}.get(name, name))


def transforms(
    size: int,
    resize: int | tuple[int, int],
    training: bool,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    *,
    as_uint8: bool = False,
) -> Callable[[Image.Image], Tensor]:
    """torchvision's transforms of a photo, as its scripts have them, to what a net takes or, `as_uint8`, up to there.

    In training a random crop of `size` x `size` and a flip; else its centre, after a `resize` as of torchvision's
    `Resize`.
    """
    from torchvision import transforms as t

    shape = [t.Resize(resize), t.CenterCrop(size)]
    if training:
        shape = [t.RandomResizedCrop(size), t.RandomHorizontalFlip()]
    return t.Compose([*shape, *([t.PILToTensor()] if as_uint8 else [t.ToTensor(), t.Normalize(mean, std)])])


def size_of(name: str) -> int:
    """The side of the images on which a net was trained."""
    return zoo.info(name).input_size[-1]
