"""Rows of trained weights, outside the models.

What torchvision's enums and timm's configs know is read from them. timm's accuracies are not in the package: they are
in timm_results.csv, taken from its results/results-imagenet.csv (commit aa4b5850, 2026-08-08). Our own rows are for
files that neither knows.
"""

import csv
import fnmatch
import math
import os
import re
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

import cnnzoo.models  # noqa: F401  (registers every net)
from cnnzoo import registry
from cnnzoo.errors import InputError


@dataclass(frozen=True)
class Weights:
    """One file of trained weights."""

    model: str  # the architecture's name in the registry
    tag: str  # as timm says it; tv_in1k and tv2_in1k are torchvision's first and second ImageNet weights
    file: str  # the file's name, in torch hub's folder or wherever else it lies
    url: str | None  # where that file is; None: only in the hub's repository, or nowhere
    hub: str | None  # a Hugging Face repository that holds the same weights
    sha256: str  # the beginning of the file's SHA-256, or the whole; "" where it is not known
    mib: float | None  # its size
    licence: str  # as SPDX writes it; "unknown" where its publisher does not say
    top1: float | None  # accuracy in percent, one crop, as published: ImageNet's validation, else what `note` says
    top5: float | None
    size: int  # pixels of a side, at which those hold
    preprocess: dict  # of data.preprocess.Preprocess
    num_classes: int
    classes: tuple[str, ...]  # their names, where they are known
    note: str = ""
    bgr: bool = False  # the net was trained on images whose first channel is blue
    lacks: str = ""  # the module whose tensors in the file are no numbers

    @property
    def free(self) -> bool:
        """Not for non-commercial use only."""
        return "-nc" not in self.licence


def rows(model: str) -> tuple[Weights, ...]:
    """All weights for a net, the most accurate first; those for non-commercial use only come last.

    A user's own net has none, whatever its name.
    """
    ours = registry.home(registry.lookup(model).build).startswith("cnnzoo.models.")
    return _rows(model) if ours else ()


def row(model: str, tag: str | None = None) -> Weights:
    """The row of a tag, or the best that `CNNZOO_EXCLUDE_LICENCES` leaves.

    Weights for non-commercial use only are never the best: they must be asked for by their tag.

    Raises InputError that lists the tags, or names the licence that is excluded.
    """
    all_ = rows(model)
    if tag is not None:
        chosen = next((row for row in all_ if row.tag == tag), None)
        if chosen is None:
            tags = ", ".join(row.tag for row in all_)
            known = f"its tags are {tags}" if all_ else "the weights table has none for it"
            raise InputError(f"{model} has no weights {tag!r}, nor is that a file or a run folder; {known}")
        refuse_excluded(chosen)
        return chosen
    for candidate in all_:
        if candidate.free and not excluded(candidate):
            return candidate
    if not all_:
        raise InputError(f"the weights table has none for {model}; name a file of trained weights")
    why = ", ".join(f"{row.tag}: {row.licence}" for row in all_)
    raise InputError(f"{model} has only weights whose licence is excluded or not for every use ({why}); name a tag")


def excluded(row: Weights) -> bool:
    """Whether $CNNZOO_EXCLUDE_LICENCES (wildcard patterns between commas, as "cc-by-nc*,unknown") names its licence."""
    patterns = os.environ.get("CNNZOO_EXCLUDE_LICENCES", "").lower().replace(",", " ").split()
    return any(fnmatch.fnmatchcase(row.licence, pattern) for pattern in patterns)


def refuse_excluded(row: Weights) -> None:
    """Raises InputError for a row whose licence the user excludes."""
    if excluded(row):
        raise InputError(f"{row.model} {row.tag} is under {row.licence}, which CNNZOO_EXCLUDE_LICENCES excludes")


def list_weights(pattern: str = "*") -> list[Weights]:
    """The rows of every net that matches the wildcard pattern, or NAME.TAG of two patterns, as "resnet50.a1*"."""
    name, dot, tag = pattern.partition(".")
    return [row for model in registry.names(name) for row in rows(model) if not dot or fnmatch.fnmatch(row.tag, tag)]


@cache
def _rows(model: str) -> tuple[Weights, ...]:
    torchvision, timm = _torchvision_rows(model), _timm_rows(model)
    copies = {row.tag: row.hub for row in timm}
    known = [replace(row, hub=copies.get(row.tag)) for row in torchvision]  # timm keeps copies of torchvision's files
    known += [row for row in timm if row.tag not in {row.tag for row in torchvision}]
    known += _own_rows(model)
    return tuple(sorted(known, key=lambda row: (not row.free, -(row.top1 or 0))))


# --- torchvision

_TAGS = {"IMAGENET1K_V1": "tv_in1k", "IMAGENET1K_V2": "tv2_in1k", "IMAGENET1K_FEATURES": "features_in1k"}

# The files of these were carried over from TensorFlow and want images on [-1, 1], which torchvision's nets compute from
# its usual normalisation by transform_input=True.
_FROM_TENSORFLOW = ("googlenet", "inception_v3")


def _torchvision_rows(model: str) -> list[Weights]:
    from torchvision import models as torchvision_models

    if model not in torchvision_models.list_models(module=torchvision_models):
        return []
    found = []
    for weights in torchvision_models.get_model_weights(model):
        preset, meta = weights.transforms(), weights.meta
        half = model in _FROM_TENSORFLOW
        preprocess = {
            "size": preset.crop_size[0],
            "resize": preset.resize_size[0],
            "mean": (0.5,) * 3 if half else tuple(preset.mean),
            "std": (0.5,) * 3 if half else tuple(preset.std),
            "interpolation": preset.interpolation.value,
        }
        figures = meta["_metrics"]["ImageNet-1K"]
        # Of the VGG-16 trained on 0..255 only the convolutions are kept: its figures and its other tensors are NaN.
        whole = not math.isnan(figures["acc@1"])
        found.append(
            Weights(
                model,
                _TAGS[weights.name],
                weights.url.rpartition("/")[2],
                weights.url,
                None,
                _hash_in(weights.url),
                meta["_file_size"],
                "bsd-3-clause",  # of torchvision, which publishes them; it names no other
                figures["acc@1"] if whole else None,
                figures["acc@5"] if whole else None,
                preprocess["size"],
                preprocess,
                1000,
                tuple(meta["categories"]) if whole else (),
                "" if whole else "the convolutions only",
                lacks="" if whole else "classifier",
            )
        )
    return found


# --- timm

_IN_TIMM = {"xception": "legacy_xception"}  # where it has another name


def _timm_rows(model: str) -> list[Weights]:
    import timm

    name = _IN_TIMM.get(model, model)
    if not timm.is_model(name):
        return []
    return [_timm_row(model, full, timm.get_pretrained_cfg(full)) for full in timm.list_pretrained(f"{name}.*")]


def _timm_row(model: str, full: str, config) -> Weights:
    size = config.input_size[1]
    top1, top5 = _timm_results().get((full, size), (None, None))
    preprocess = {
        "size": size,
        "resize": math.floor(size / config.crop_pct),
        "mean": tuple(config.mean),
        "std": tuple(config.std),
        "interpolation": config.interpolation,
    }
    is_imagenet = config.num_classes == 1000 and full.endswith("in1k")
    file = config.url.rpartition("/")[2] if config.url else f"{full}.safetensors"
    return Weights(
        model,
        config.tag,
        file,
        config.url or None,
        config.hf_hub_id,
        _hash_in(file),
        None,
        config.license or "unknown",
        top1,
        top5,
        size,
        preprocess,
        config.num_classes,
        _imagenet_classes() if is_imagenet else (),
        "" if config.num_classes else "without a head",
    )


@cache
def _timm_results() -> dict[tuple[str, int], tuple[float, float]]:
    with (files("cnnzoo.weights") / "timm_results.csv").open() as file:
        return {(r["name"], int(r["size"])): (float(r["top1"]), float(r["top5"])) for r in csv.DictReader(file)}


@cache
def _imagenet_classes() -> tuple[str, ...]:
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def _hash_in(file: str) -> str:
    """By torch hub's habit a file's name ends in the beginning of its SHA-256."""
    match = re.search(r"-([0-9a-f]{8,})\.", file)
    return match[1] if match else ""


# --- ours

_CAFFE = {  # RGB of 0..255 less the mean colour; images are squashed to 256x256
    "size": 224,
    "resize": 256,
    "mean": (123 / 255, 117 / 255, 104 / 255),
    "std": (1 / 255,) * 3,
    "squash": True,
}
_CIFAR = {"size": 32, "resize": 32, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_AKAMASTER = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"

# model: the end of its file's name, MiB, accuracy on CIFAR-10's test images as that repository's README has it
_CIFAR_RESNETS = {
    "resnet20": ("12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8", 1.048, 91.73),
    "resnet32": ("d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850", 1.803, 92.63),
    "resnet44": ("014dd6541728a1c700b1642ab640e211dc6eb8ed507d70697458dc8f8a0ae2e4", 2.557, 93.10),
    "resnet56": ("4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367", 3.311, 93.39),
    "resnet110": ("1d1ed7c2", None, 93.68),
}
# model: tag, file, SHA-256, MiB, licence, published top-1 and top-5, note
_CAFFE_NETS = {
    "googlenet_2014": (
        *("bvlc_in1k", "googlenet_bvlc_caffe.pth"),
        *("507c578eb2638a1e15a84ad436229ccf438488a04a779e126bbe5ac4427c40b3", 26.733),
        *("unrestricted", 68.7, 88.9, "BVLC's training of the paper's net, carried over from Caffe"),
    ),
    "squeezenet1_1": (
        *("caffe_in1k", "squeezenet1_1_caffe.pth"),
        *("6201b7c9966a26e020c40b051309d7c23927a9dea096f433c560055173f02034", 4.729),
        *("bsd-2-clause", None, 80.3, "the authors' own, carried over from Caffe"),
    ),
}


def _own_rows(model: str) -> list[Weights]:
    if model in _CIFAR_RESNETS:
        sha256, mib, top1 = _CIFAR_RESNETS[model]
        file = f"{model}-{sha256[:8]}.th"
        where = (f"{_AKAMASTER}{file}", None)
        return [
            Weights(
                *(model, "akamaster_cifar10", file, *where, sha256, mib, "bsd-2-clause", top1, None, 32, _CIFAR),
                *(10, _CIFAR10, "accuracy on CIFAR-10's test images"),
            )
        ]
    if model in _CAFFE_NETS:
        tag, file, sha256, mib, licence, top1, top5, note = _CAFFE_NETS[model]
        return [
            Weights(
                *(model, tag, file, None, None, sha256, mib, licence, top1, top5, 224, _CAFFE),
                *(1000, _imagenet_classes(), note, True),
            )
        ]
    return []
