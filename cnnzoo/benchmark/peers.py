"""The same nets in the libraries people would use otherwise, with the same weights."""

import torch
from torch import nn

from cnnzoo import zoo

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


def size_of(name: str) -> int:
    """The side of the images on which a net was trained."""
    return zoo.info(name).input_size[-1]
