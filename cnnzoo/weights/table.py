"""Rows of trained weights, outside the models. What torchvision knows is read from its own enums, not typed again."""

from dataclasses import dataclass
from functools import lru_cache

from cnnzoo import registry


@dataclass(frozen=True)
class Weights:
    """One file of trained weights."""

    model: str  # the architecture's name in the registry
    tag: str  # tv_in1k and tv2_in1k: torchvision's first and second ImageNet weights, as timm calls them
    url: str
    top1: float  # ImageNet validation accuracy in percent, one crop, as published
    top5: float
    size: int  # pixels, at which those hold
    preprocess: dict  # of data.preprocess.Preprocess
    classes: tuple[str, ...]

    @property
    def file(self) -> str:
        """The file's name, which ends in the beginning of its SHA-256."""
        return self.url.rpartition("/")[2]


_TAGS = {"IMAGENET1K_V1": "tv_in1k", "IMAGENET1K_V2": "tv2_in1k"}


def rows(model: str) -> tuple[Weights, ...]:
    """All weights for a net, the most accurate first. A user's own net has none, whatever its name."""
    ours = registry.home(registry.lookup(model).build).startswith("cnnzoo.models.")
    return _torchvision_rows(model) if ours else ()


@lru_cache
def _torchvision_rows(model: str) -> tuple[Weights, ...]:
    from torchvision import models as torchvision_models

    if model not in torchvision_models.list_models(module=torchvision_models):
        return ()
    found = []
    for weights in torchvision_models.get_model_weights(model):
        if weights.name not in _TAGS:
            continue
        preset = weights.transforms()
        preprocess = {
            "size": preset.crop_size[0],
            "resize": preset.resize_size[0],
            "mean": tuple(preset.mean),
            "std": tuple(preset.std),
            "interpolation": preset.interpolation.value,
        }
        top1, top5 = (weights.meta["_metrics"]["ImageNet-1K"][key] for key in ("acc@1", "acc@5"))
        classes = tuple(weights.meta["categories"])
        found.append(
            Weights(model, _TAGS[weights.name], weights.url, top1, top5, preprocess["size"], preprocess, classes)
        )
    return tuple(sorted(found, key=lambda row: -row.top1))


def list_weights(pattern: str = "*") -> list[Weights]:
    """The rows of every net that matches the wildcard pattern."""
    return [row for name in registry.names(pattern) for row in rows(name)]
