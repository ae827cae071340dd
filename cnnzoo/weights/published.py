"""What torchvision and timm know of their weights, for the rows of table.csv. Nothing needs this but whoever renews it.

    python -m cnnzoo.weights.published                            # new rows, changed addresses; known accuracies stay
    python -m cnnzoo.weights.published results-imagenet.csv       # timm's accuracies too

timm's accuracies are not in its package, but in its repository's results/results-imagenet.csv; those in the table are
of commit aa4b5850, 2026-08-08. Rows that neither library knows stay as they are.
"""

import csv
import io
import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import timm
import torchvision.models

from cnnzoo import registry
from cnnzoo.habits import TAGS
from cnnzoo.weights import table
from cnnzoo.weights.table import Weights

# fmt: off
COLUMNS = (
    "model", "tag", "file", "url", "hub", "sha256", "mib", "licence", "top1", "top5", "size", "resize", "mean",
    "std", "interpolation", "squash", "num_classes", "classes", "note", "bgr", "lacks",
)
# fmt: on

_IN_TIMM = {"xception": "legacy_xception"}  # where it has another name

# The files of these were carried over from TensorFlow and want images on [-1, 1], which torchvision's nets compute from
# its usual normalisation by transform_input=True.
_FROM_TENSORFLOW = ("googlenet", "inception_v3")

Accuracies = Mapping[tuple[str, int], tuple[float, float]]  # by timm's NAME.TAG and an image's side


def rows(model: str, accuracies: Accuracies) -> list[Weights]:
    """A net's weights in both libraries. timm keeps copies of torchvision's files."""
    theirs, timms = _torchvision_rows(model), _timm_rows(model, accuracies)
    copies = {row.tag: row.hub for row in timms}
    known = {row.tag for row in theirs}
    return [*(replace(row, hub=copies.get(row.tag)) for row in theirs), *(row for row in timms if row.tag not in known)]


def _torchvision_rows(model: str) -> list[Weights]:
    if model not in torchvision.models.list_models(module=torchvision.models):
        return []
    return [_torchvision_row(model, weights) for weights in torchvision.models.get_model_weights(model)]


def _torchvision_row(model: str, weights: torchvision.models.WeightsEnum) -> Weights:
    preset, meta = weights.transforms(), weights.meta
    half = model in _FROM_TENSORFLOW
    # Of the VGG-16 trained on 0..255 only the convolutions are kept: its figures and its other tensors are NaN.
    figures = meta["_metrics"]["ImageNet-1K"]
    whole = not math.isnan(figures["acc@1"])
    return Weights(
        model=model,
        tag=TAGS[weights.name],
        file=weights.url.rpartition("/")[2],
        url=weights.url,
        hub=None,
        sha256=_hash_in(weights.url),
        mib=meta["_file_size"],
        licence="bsd-3-clause",  # of torchvision, which publishes them; it names no other
        top1=figures["acc@1"] if whole else None,
        top5=figures["acc@5"] if whole else None,
        size=preset.crop_size[0],
        preprocess=_preprocess(
            preset.crop_size[0],
            preset.resize_size[0],
            (0.5,) * 3 if half else preset.mean,
            (0.5,) * 3 if half else preset.std,
            preset.interpolation.value,
        ),
        num_classes=1000,
        classes=tuple(meta["categories"]) if whole else (),
        note="" if whole else "the convolutions only",
        lacks="" if whole else "classifier",
    )


def _timm_rows(model: str, accuracies: Accuracies) -> list[Weights]:
    name = _IN_TIMM.get(model, model)
    if not timm.is_model(name):
        return []
    return [
        _timm_row(model, full, timm.get_pretrained_cfg(full), accuracies) for full in timm.list_pretrained(f"{name}.*")
    ]


def _timm_row(model: str, full: str, config, accuracies: Accuracies) -> Weights:
    size = config.input_size[1]
    top1, top5 = accuracies.get((full, size), (None, None))
    file = config.url.rpartition("/")[2] if config.url else f"{full}.safetensors"
    is_imagenet = config.num_classes == 1000 and full.endswith("in1k")
    return Weights(
        model=model,
        tag=config.tag,
        file=file,
        url=config.url or None,
        hub=config.hf_hub_id,
        sha256=_hash_in(file),
        mib=None,
        licence=config.license or "unknown",
        top1=top1,
        top5=top5,
        size=size,
        preprocess=_preprocess(size, math.floor(size / config.crop_pct), config.mean, config.std, config.interpolation),
        num_classes=config.num_classes,
        classes=table.class_names("imagenet") if is_imagenet else (),
        note="" if config.num_classes else "without a head",
    )


def _preprocess(size: int, resize: int, mean: Iterable[float], std: Iterable[float], interpolation: str) -> dict:
    about = {"size": size, "resize": resize, "mean": tuple(mean), "std": tuple(std)}
    return about | {"interpolation": interpolation, "squash": False}


def _hash_in(file: str) -> str:
    """The beginning of a file's SHA-256, in which by torch hub's habit its name ends."""
    match = re.search(r"-([0-9a-f]{8,})\.", file)
    return match[1] if match else ""


def known_accuracies(known: Iterable[Weights]) -> dict[tuple[str, int], tuple[float, float]]:
    """Accuracies that the table has already, top-1 and top-5."""
    named = ((f"{_IN_TIMM.get(row.model, row.model)}.{row.tag}", row) for row in known)
    return {(name, row.size): (row.top1, row.top5) for name, row in named if row.top1 is not None}


def as_csv(known: Iterable[Weights]) -> str:
    """The text of table.csv."""
    kinds = {table.class_names(kind): kind for kind in ("", "imagenet", "cifar10")}
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in sorted(known, key=lambda row: (row.model, row.tag)):
        values = asdict(row) | row.preprocess | {"classes": kinds[row.classes]}
        values |= {name: " ".join(map(repr, row.preprocess[name])) for name in ("mean", "std")}
        values |= {name: "yes" if values[name] else "" for name in ("squash", "bgr")}
        writer.writerow({name: values[name] for name in COLUMNS})
    return out.getvalue()


def main(arguments: list[str]) -> None:
    known = table.list_weights()
    accuracies = known_accuracies(known)
    if arguments:
        with open(arguments[0], encoding="utf-8", newline="") as file:
            named = ((line["model"], int(line["img_size"]), line) for line in csv.DictReader(file))
            accuracies |= {(name, size): (float(line["top1"]), float(line["top5"])) for name, size, line in named}
    found = [row for model in registry.names() for row in rows(model, accuracies)]
    theirs = {(row.model, row.tag) for row in found}
    ours = [row for row in known if (row.model, row.tag) not in theirs]
    file = Path(__file__).with_name("table.csv")
    file.write_text(as_csv([*found, *ours]), encoding="utf-8")
    print(f"{len(found)} rows of torchvision and timm, {len(ours)} others in {file}")


if __name__ == "__main__":
    main(sys.argv[1:])
