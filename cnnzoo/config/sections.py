"""The sections of a config: frozen dataclasses, one per concern, whose docstrings are the help of the command line.

Messages name the key to change, as it is written in a file or after `--`.
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from cnnzoo.errors import InputError, composed, expect
from cnnzoo.paths import expanded


def _check(key: str, value: object, holds: bool, want: str) -> None:
    if not holds:
        raise InputError(f"{key} is {list(value) if isinstance(value, tuple) else value}, but must be {want}")


@dataclass(frozen=True)
class _Section:
    """What sections have in common: their name in a file. jsonargparse wants dataclasses whose bases are some, too."""

    def __init_subclass__(cls, name: str):
        cls._name = name

    def _check(self, key: str, holds: bool, want: str) -> None:
        _check(f"{self._name}.{key}", getattr(self, key), holds, want)


def tagged(name: str, pretrained: Any) -> tuple[str, Any]:
    """A net's name and its weights, where NET.TAG with `pretrained` true names both, as timm has it."""
    net, _, tag = name.partition(".") if isinstance(name, str) and "/" not in name else (name, "", "")
    return (net, tag) if tag and (pretrained is True or pretrained == tag) else (name, pretrained)


@dataclass(frozen=True)
class ModelConfig(_Section, name="model"):
    """Which net.

    Args:
        name: its name in the registry, see `cnnzoo list`; or NET.TAG, with pretrained true.
        pretrained: false, true (the best known weights), a tag of the weights table, a file, or a run folder.
        num_classes: classes of the head; null takes the data's. Those that the data lacks are called by their numbers.
        in_chans: channels of an image; null takes the data's.
        drop_rate: dropout probability; null keeps the net's own.
        head: own (the net's, with random values unless the weights have it), linear (a linear map of the pooled
            features, random), or probe (the best shallow classifier on the frozen features, see probe).
        args: further arguments of the net's builder, such as {image_size: 32} for mlp.
    """

    name: str = "lenet5"
    pretrained: bool | str = False
    num_classes: int | None = None
    in_chans: int | None = None
    drop_rate: float | None = None
    head: Literal["own", "linear", "probe"] = "own"
    args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        for key, value in zip(("name", "pretrained"), tagged(self.name, self.pretrained), strict=True):
            object.__setattr__(self, key, value)
        self._check("in_chans", self.in_chans is None or self.in_chans >= 1, "null or at least 1")
        self._check("drop_rate", self.drop_rate is None or 0 <= self.drop_rate < 1, "at least 0 and below 1")
        for key in ("name", "pretrained", "num_classes", "in_chans", "drop_rate"):
            self._check("args", key not in self.args, f"without {key}, which model.{key} says")
        for key in ("features_only", "out_indices"):
            self._check("args", key not in self.args, f"without {key}, with which a net gives no answer")


@dataclass(frozen=True)
class DataConfig(_Section, name="data"):
    """Which images.

    Args:
        source: digits, mnist, fashion_mnist, cifar10, cifar100, imagenet, a folder of class folders, a table (.csv or
            .tsv) with a row for each photo (file, class, perhaps split), tar shards such as
            shards/train-{000000..000012}.tar (WebDataset's: images and .cls), or hf:NAME, a data set of Hugging Face's.
        val_source: the same for validation images, where they lie elsewhere; null takes source's own, or a share of it.
        root: where named sets lie or are fetched to; null is $CNNZOO_DATA, else ~/.cache/cnnzoo/data.
        size: side of the square the net sees, in pixels; null takes the net's own.
        train_size: that of training images; null is size. Smaller ones train faster, and a net is often more accurate
            when it is judged at a size about a seventh larger than the one it was trained at (Touvron, Vedaldi, Douze,
            Jegou 2019, arXiv 1906.06423).
        resize: the image's shorter side before the centre is cut out (or set in a margin); null chooses by size.
        mean: of each channel on the scale 0 to 1; null takes the weights' or the data set's own.
        std: of each channel on the scale 0 to 1; null takes the weights' or the data set's own.
        interpolation: of every resizing; null takes the weights' own, else bilinear.
        val_fraction: share held out, class by class, where the source has no validation images of its own.
        split_seed: chooses that share.
        groups: a regular expression (Python's) for what an image belongs to, such as a patient or a video, so that no
            group is both trained and judged on: patient(\\d+) or ^(.*)_frame. It is searched for in a photo's path from
            its class folder on (cat/video7_frame3.jpg); its first capture group counts, or all that it finds; where it
            finds nothing, an image stands alone. Of a table it may be a column's name. null: each stands alone.
        folds: instead of that share, hold out one of so many equal parts, as cross-validation does.
        fold: which one, from 0.
        bag: train on a bootstrap sample of the training images, drawn class by class; the number (from 0) says which of
            those that split_seed gives; null trains on each image. Images in groups are drawn group by group.
        weights: a JSON file with a number for each training image's name, in full or from its source's folder on: how
            often, beside the others, it is drawn in an epoch; null draws each once.
        bad_files: what to do with files that cannot be read: stop and name them all, or go on without them.
        cache: keep decoded photos in memory or a memory-mapped file (auto), or decode them anew each time (none).
            The file lies in .cnnzoo in the folder of photos, or in $CNNZOO_CACHE, and may be deleted. Random parts are
            cut from what is kept, the central square, or else from the whole photo.
        workers: threads that decode; 0 is one per core. The result does not depend on it.
    """

    source: str = "digits"
    val_source: str | None = None
    root: str | None = None
    size: int | None = None
    train_size: int | None = None
    resize: int | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None
    val_fraction: float = 0.2
    split_seed: int = 0
    groups: str | None = None
    folds: int | None = None
    fold: int = 0
    bag: int | None = None
    weights: str | None = None
    bad_files: Literal["error", "skip"] = "error"
    cache: Literal["auto", "none"] = "auto"
    workers: int = 0

    def __post_init__(self):
        for key in ("source", "val_source", "root"):  # given in Python, they may be a Path
            object.__setattr__(self, key, plain(getattr(self, key)))
        _check("data.source", repr(self.source), self.source, "a name or a folder")
        wanted = "above 0 and below 1, for some images are held out; val_source names others"
        self._check("val_fraction", 0 < self.val_fraction < 1, wanted)
        if self.groups is not None:
            try:
                re.compile(self.groups)
            except re.error as error:
                self._check("groups", False, f"a regular expression, which this is not: {error}")
        self._check("folds", self.folds is None or self.folds >= 2, "null or at least 2")
        self._check("fold", 0 <= self.fold < (self.folds or 1), "at least 0 and below data.folds")
        self._check("bag", self.bag is None or self.bag >= 0, "null or at least 0")
        self._check("weights", self.bag is None or self.weights is None, "null with data.bag")
        self._check("size", self.size is None or self.size > 0, "at least 1")
        self._check("train_size", self.train_size is None or self.train_size > 0, "at least 1")
        self._check("resize", self.resize is None or self.resize > 0, "at least 1")
        self._check("std", all(deviation > 0 for deviation in self.std or ()), "above 0, each")
        self._check("workers", self.workers >= 0, "at least 0")
        self._check("split_seed", self.split_seed >= 0, "at least 0")


@dataclass(frozen=True)
class AugmentConfig(_Section, name="augment"):
    """Random changes of the training images, one draw for every image. Zero or null switches a change off.

    Args:
        flip: mirror left and right, for every second image.
        flip_vertical: mirror top and bottom, for every second image: for photos without an upright side, such as
            aerial ones or those of a microscope.
        quarter_turns: turn by a random multiple of 90 degrees, for the same; with `flip` all eight symmetries of a
            square.
        crop: padded (a margin of `padding`, then a random window), resized (a random part of the image at the size:
            GoogLeNet's) or jittered (the image scaled to a random `shorter_side`, then a random window: VGG's).
        padding: margin in pixels for crop: padded.
        scale: share of the area for crop: resized.
        ratio: width over height for crop: resized.
        shorter_side: in pixels for crop: jittered, drawn between these two.
        rotation: largest angle in degrees, either way.
        shift: up to this share of the side, in both directions.
        shear: largest angle in degrees, either way.
        zoom: scale by a factor within 1 - zoom and 1 + zoom.
        brightness: multiply by a factor within 1 - brightness and 1 + brightness.
        contrast: scale the distance to the image's mean grey by a factor within 1 - contrast and 1 + contrast.
        saturation: scale the distance to each pixel's grey likewise.
        channel_shift: add up to this much, on the scale 0 to 1, to each channel by itself.
        pca_noise: deviation of AlexNet's colour noise along the principal components of ImageNet's colours (0.1 there).
        cutout: side in pixels of a square set to the mean.
        mixup: alpha of the Beta distribution of which each batch draws the share of another image, and of its label,
            that is mixed into an image (Zhang, Cisse, Dauphin, Lopez-Paz 2018, arXiv 1710.09412).
        cutmix: the same for the area of a window that is pasted from another image (Yun et al. 2019, arXiv 1905.04899);
            with mixup too, each batch draws which one it gets.
        policy: randaugment (`policy_changes` drawn changes one after the other, each of `policy_strength`: Cubuk, Zoph,
            Shlens, Le 2019, arXiv 1909.13719) or trivialaugment (one change of drawn strength: Mueller, Hutter 2021,
            arXiv 2103.10158).
        policy_changes: of randaugment, to each image.
        policy_strength: of randaugment, 0 to 30.
        erasing: probability that a window of the image is set to the mean (Zhong et al. 2017, arXiv 1708.04896).
        repeats: times that each image of a batch is in it, augmented anew (Hoffer et al. 2020, arXiv 1901.09335).
        grows_from: share of the size that the first epoch sees; it grows evenly (progressive resizing).
        grown_at: share of the epochs after which the size is whole.
    """

    flip: bool = False
    flip_vertical: bool = False
    quarter_turns: bool = False
    crop: Literal["padded", "resized", "jittered"] | None = None
    padding: int = 4
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    shorter_side: tuple[float, float] = (256, 512)
    rotation: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    channel_shift: float = 0.0
    pca_noise: float = 0.0
    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    policy: Literal["randaugment", "trivialaugment"] | None = None
    policy_changes: int = 2
    policy_strength: float = 9.0
    erasing: float = 0.0
    repeats: int = 1
    grows_from: float = 1.0
    grown_at: float = 0.8

    def __post_init__(self):
        amounts = ("padding", "rotation", "shift", "shear", "brightness", "contrast", "saturation", "channel_shift")
        for key in (*amounts, "pca_noise", "cutout", "mixup", "cutmix"):
            self._check(key, getattr(self, key) >= 0, "at least 0")
        self._check("policy_changes", self.policy_changes >= 1, "at least 1")
        self._check("policy_strength", 0 <= self.policy_strength <= 30, "between 0 and 30")
        self._check("erasing", 0 <= self.erasing <= 1, "between 0 and 1")
        self._check("repeats", self.repeats >= 1, "at least 1")
        self._check("grows_from", 0 < self.grows_from <= 1, "above 0 and at most 1")
        self._check("grown_at", 0 < self.grown_at <= 1, "above 0 and at most 1")
        self._check("zoom", 0 <= self.zoom < 1, "at least 0 and below 1")
        self._check("shear", self.shear < 90, "below 90")
        self._check("scale", 0 < self.scale[0] <= self.scale[1], "two rising numbers above 0")
        for key in ("ratio", "shorter_side"):
            low, high = getattr(self, key)
            self._check(key, 0 < low <= high, "two rising numbers above 0")

    @property
    def changes(self) -> bool:
        """Whether an image looks different from epoch to epoch."""
        turned = self.flip, self.flip_vertical, self.quarter_turns
        moved = self.crop, self.rotation, self.shift, self.shear, self.zoom, self.grows_from < 1
        coloured = self.brightness, self.contrast, self.saturation, self.channel_shift, self.pca_noise
        return any((*turned, *moved, *coloured, self.cutout, self.erasing, self.policy, self.mixes, self.repeats > 1))

    @property
    def mixes(self) -> bool:
        """Whether images get parts of others, and of their labels."""
        return bool(self.mixup or self.cutmix)


@dataclass(frozen=True)
class LossConfig(_Section, name="loss"):
    """What is minimised.

    Args:
        name: cross_entropy, bce (each class a yes or no of its own: Wightman, Touvron, Jegou 2021, arXiv 2110.00476),
            map (equation 9 of the LeNet-5 paper), or auto, the net's own.
        label_smoothing: share of the target spread over all classes.
        aux_weight: weight of each auxiliary head's loss.
        rubbish: the constant j of map: how readily everything may be called rubbish.
        teacher: a net whose outputs are learnt too (Hinton, Vinyals, Dean 2015, arXiv 1503.02531): a run folder, a
            file, or NET.TAG of the weights table.
        teacher_weight: of its answers, the labels having the rest.
        temperature: at which its answers and the net's are compared.
    """

    name: Literal["auto", "cross_entropy", "bce", "map"] = "auto"
    label_smoothing: float = 0.0
    aux_weight: float = 0.3
    rubbish: float = 0.1
    teacher: str | None = None
    teacher_weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self):
        self._check("teacher_weight", 0 < self.teacher_weight <= 1, "above 0 and at most 1")
        self._check("temperature", self.temperature > 0, "above 0")
        self._check("aux_weight", self.aux_weight >= 0, "at least 0")
        self._check("label_smoothing", 0 <= self.label_smoothing < 1, "at least 0 and below 1")


@dataclass(frozen=True)
class OptimConfig(_Section, name="optim"):
    """How weights move.

    Args:
        name: sgd, adam, adamw, rmsprop (torch's), rmsprop_tf (timm's, as Inception's recipes need), lamb, lars or muon
            (timm's).
        lr: the highest rate of the schedule.
        momentum: of sgd, rmsprop, lars and muon.
        nesterov: Nesterov's form of momentum, of sgd, lars and muon.
        betas: of adam, adamw and lamb.
        alpha: decay of the mean square of rmsprop.
        eps: of adam, adamw, rmsprop, rmsprop_tf and lamb; null keeps the optimiser's own.
        weight_decay: added to the gradient (adamw: to the step).
        decay_norms_and_biases: whether biases and normalisation layers decay too.
        clip_norm: largest norm of the whole gradient; null does not clip.
        layer_decay: factor on the rate from each stage to the one before it, beside those of phases.
    """

    name: Literal["sgd", "adam", "adamw", "rmsprop", "rmsprop_tf", "lamb", "lars", "muon"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    alpha: float = 0.9
    eps: float | None = None
    weight_decay: float = 0.0
    decay_norms_and_biases: bool = True
    clip_norm: float | None = None
    layer_decay: float = 1.0

    def __post_init__(self):
        self._check("layer_decay", 0 < self.layer_decay <= 1, "above 0 and at most 1")
        self._check("lr", self.lr > 0, "above 0")
        self._check("betas", all(0 <= beta < 1 for beta in self.betas), "at least 0 and below 1")
        self._check("alpha", 0 <= self.alpha < 1, "at least 0 and below 1")
        self._check("eps", self.eps is None or self.eps >= 0, "null or at least 0")
        self._check("momentum", 0 <= self.momentum < 1, "at least 0 and below 1")
        self._check("weight_decay", self.weight_decay >= 0, "at least 0")
        self._check("clip_norm", self.clip_norm is None or self.clip_norm > 0, "above 0")
        has_nesterov = self.name in ("sgd", "lars", "muon")
        self._check("nesterov", has_nesterov or not self.nesterov, f"false with optim.name {self.name}")
        self._check("momentum", not self.nesterov or self.momentum > 0, "above 0 with optim.nesterov")


@dataclass(frozen=True)
class ScheduleConfig(_Section, name="schedule"):
    """How the rate moves. All but plateau move at every step; each phase runs through the whole schedule.

    Args:
        name: constant, step, multi_step, cosine, polynomial, one_cycle, plateau or cyclic (cosine that sets out anew
            `cycles` times; the net that each cycle of the last phase ends in is kept, as a member of a committee: Huang
            et al., Snapshot Ensembles, 2017, arXiv 1704.00109, equation 2).
        warmup_epochs: epochs in which the rate first rises in a straight line; may be a fraction.
        warmup_start: where it rises from, as a share of the highest rate.
        milestones: epochs at which multi_step lowers the rate.
        every: epochs after which step lowers the rate.
        gamma: factor of step, multi_step and plateau.
        power: of polynomial.
        final: the rate at the end of cosine, and of each cycle; stages with lower rates end in proportion lower.
        rise: share of the epochs in which one_cycle rises.
        patience: epochs without a better validation loss after which plateau lowers the rate.
        cycles: of cyclic; the epochs of each phase are a multiple of them.
    """

    name: Literal["constant", "step", "multi_step", "cosine", "polynomial", "one_cycle", "plateau", "cyclic"] = (
        "one_cycle"
    )
    warmup_epochs: float = 0.0
    warmup_start: float = 0.01
    milestones: list[float] = field(default_factory=list)
    every: float = 30
    gamma: float = 0.1
    power: float = 1.0
    final: float = 0.0
    rise: float = 0.3
    patience: int = 5
    cycles: int = 5

    def __post_init__(self):
        self._check("cycles", self.cycles >= 2, "at least 2")
        self._check("warmup_epochs", self.warmup_epochs >= 0, "at least 0")
        self._check("warmup_start", 0 < self.warmup_start <= 1, "above 0 and at most 1")
        self._check("milestones", self.name != "multi_step" or self.milestones, "given for multi_step")
        self._check("every", self.every > 0, "above 0")
        self._check("milestones", all(at > 0 for at in self.milestones), "above 0, each")
        highest = 1 if self.name == "plateau" else math.inf
        self._check("gamma", 0 < self.gamma < highest, "above 0, and below 1 for plateau")
        self._check("rise", 0 < self.rise < 1, "between 0 and 1")
        for key in ("power", "final", "patience"):
            self._check(key, getattr(self, key) >= 0, "at least 0")
        own_start = {"one_cycle": "rises by itself", "cyclic": "begins each cycle at the highest rate"}.get(self.name)
        self._check("warmup_epochs", not (own_start and self.warmup_epochs), f"0 with {self.name}, which {own_start}")


@dataclass(frozen=True)
class PhaseConfig(_Section, name="train.phases"):
    """A stretch of training in which the same stages move.

    Args:
        epochs: its length.
        trainable: stage names or patterns (head, stage4, stage*, *); the rest is frozen, BatchNorm statistics included.
        rates: factor on the rate of stages that match a pattern, the first match counting: {head: 1, "*": 0.1}.
    """

    epochs: int
    trainable: list[str] = field(default_factory=lambda: ["*"])
    rates: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        self._check("epochs", self.epochs >= 1, "at least 1")
        self._check("trainable", self.trainable, "a list of at least one stage")
        self._check("rates", all(rate >= 0 for rate in self.rates.values()), "at least 0, each")

    def moves(self, stage: str) -> bool:
        """Whether a stage is trained."""
        return any(fnmatchcase(stage, pattern) for pattern in self.trainable)

    def rate(self, stage: str) -> float:
        """The factor on a stage's rate."""
        return next((factor for pattern, factor in self.rates.items() if fnmatchcase(stage, pattern)), 1.0)


@dataclass(frozen=True)
class ProbeConfig(_Section, name="probe"):
    """Shallow classifiers on what the frozen net says of each image.

    Args:
        classifier: auto (the best of all by cross-validation), logistic, knn, svm, centroid, ridge or mlp.
        views: of each training image: one as evaluation sees it, the others by `augment`; auto takes three of each
            where there are at most 5,000 images.
        folds: of the cross-validation that chooses.
        bag: this many copies of the best classifier, each fitted to its own bootstrap sample, form one head.
        boost: this many copies of a weak classifier (auto: centroid; logistic, ridge or svm as strongly regularised as
            they come), each fitted to images weighted by the mistakes of those before it, form one head.
    """

    classifier: Literal["auto", "logistic", "knn", "svm", "centroid", "ridge", "mlp"] = "auto"
    views: Literal["auto"] | int = 1
    folds: int = 5
    bag: int | None = None
    boost: int | None = None

    def __post_init__(self):
        self._check("views", self.views == "auto" or self.views >= 1, "auto or at least 1")
        self._check("folds", self.folds >= 2, "at least 2")
        self._check("bag", self.bag is None or self.bag >= 2, "null or at least 2")
        self._check("boost", self.boost is None or self.boost >= 2, "null or at least 2")
        self._check("boost", self.bag is None or self.boost is None, "null with probe.bag")
        takes_no_weights = self.boost is not None and self.classifier in ("knn", "mlp")
        wanted = "centroid, logistic, ridge or svm with probe.boost, which weights the images"
        self._check("classifier", not takes_no_weights, wanted)


@dataclass(frozen=True)
class TrainConfig(_Section, name="train"):
    """How long, how, and on what.

    Args:
        epochs: passes over the training images; with phases, their sum counts instead; 0 with model.head probe.
        batch_size: images to a step.
        accumulate: parts into which a batch is split to save memory; the step is the same.
        grad_checkpointing: compute what lies within the net's blocks again for the backward pass, rather than keep it:
            half to three quarters of the memory for a third more time; the step is the same.
        seed: of initial weights, order, augmentation and dropout.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda, cuda:1 …
        precision: auto (bfloat16 where the GPU has it, on a CPU where it proves clearly faster and the run is
            longer than seconds; else fp32), fp32, bf16 or fp16; also of features that are computed once.
        channels_last: keep images as (B, H, W, C) in memory, which most convolutions prefer; never on MPS, where
            they do not.
        compile: run the net through torch.compile, graphs as CUDA graphs too; auto tries both on a GPU before a long
            run and takes what is fastest.
        phases: null trains everything for `epochs`; a list freezes and thaws stages, see PhaseConfig.
        batch_norm: update or keep the statistics of BatchNorm in stages that move (frozen ones always keep theirs);
            sync computes those of each batch over all GPUs, which else each have their own, averaged as an epoch ends.
        find_unused_parameters: for a net that leaves layers out of some steps, trained by several processes, which else
            wait for each other's gradients of these.
        balance: none; loss (each class weighs the same in the loss) or sampler (each class is drawn equally often).
            With either, each class weighs the same in a probe.
        patience: epochs of a phase without a better validation accuracy after which the phase ends; null never.
        minutes: time after which no epoch begins that would go beyond it; null sets no limit.
        cache_features: whether a phase in which only the head moves trains it on features that are computed once, of
            probe.views of each image, with neither augmentation nor dropout before the head. auto does so where nothing
            is augmented or there are several views; not with a loss.teacher, which must see the images, or with mixup
            or cutmix.
        checkpoint_minutes: save inside an epoch after so many minutes; every epoch ends in a save anyway.
        ema: decay of a moving average of the weights, which is then what is validated and kept; auto looks back on a
            twentieth of the run; null keeps none.
        on_divergence: where a loss or a weight is no longer finite, stop, or rollback to the last state and go on at
            half the rate, five times at most.
        loggers: where the figures go beside metrics.jsonl: any of csv, tensorboard, wandb.
    """

    epochs: int = 10
    batch_size: int = 128
    accumulate: int = 1
    grad_checkpointing: bool = False
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    compile: Literal["auto", "graphs"] | bool = "auto"
    phases: list[PhaseConfig] | None = None
    batch_norm: Literal["update", "keep", "sync"] = "update"
    find_unused_parameters: bool = False
    balance: Literal["none", "loss", "sampler"] = "none"
    patience: int | None = None
    minutes: float | None = None
    cache_features: Literal["auto"] | bool = "auto"
    checkpoint_minutes: float = 0.5
    ema: Literal["auto"] | float | None = None
    on_divergence: Literal["stop", "rollback"] = "stop"
    loggers: list[Literal["csv", "tensorboard", "wandb"]] = field(default_factory=list)

    def __post_init__(self):
        self._check("epochs", self.epochs >= 0, "at least 0")
        self._check("seed", 0 <= self.seed < 2**32, "at least 0 and below 2**32")
        self._check("batch_size", self.batch_size >= 1, "at least 1")
        self._check("accumulate", 1 <= self.accumulate <= self.batch_size, "between 1 and train.batch_size")
        self._check("phases", self.phases is None or self.phases, "null or a list of at least one phase")
        self._check("minutes", self.minutes is None or self.minutes > 0, "null or above 0")
        self._check("patience", self.patience is None or self.patience >= 1, "null or at least 1")
        self._check("ema", not isinstance(self.ema, float | int) or 0 <= self.ema < 1, "at least 0 and below 1")
        self._check("checkpoint_minutes", self.checkpoint_minutes >= 0, "at least 0")


@dataclass(frozen=True)
class EnsembleConfig:
    """Which runs answer as one net, and how.

    Args:
        members: their run folders.
        method: vote, plurality, mean, logits, geometric, rank, weighted, greedy, stacking, or all, the best of them;
            greedy_soup and uniform_soup average the members' weights instead.
        data: the images to fit on and judge by; null takes those that the members held out.
        weights: of the members, for a method that finds none; null weighs all alike.
        seed: of the parts for cross-fitting.
    """

    members: list[str]
    method: str = "mean"
    data: str | None = None
    weights: list[float] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Config:
    """One reproducible run.

    Args:
        run: the run folder; null makes runs/<model>_<source>.
        ensemble: a committee of runs instead of a training; then only run and data count beside it.
    """

    run: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    ensemble: EnsembleConfig | None = None

    def __post_init__(self):
        for each in fields(self):
            if isinstance(kind := each.default_factory, type):
                section = getattr(self, each.name)
                expect(section, kind, f"{each.name} is a section, cnnzoo.config.{kind.__name__}(…)")
        idle = self.train.epochs == 0 and self.train.phases is None  # a probe's head is all that is learnt
        _check("train.epochs", 0, not idle or self.model.head == "probe", "at least 1 unless model.head is probe")
        if self.train.cache_features is True and self.model.head == "own":
            raise InputError("train.cache_features true needs model.head linear or probe, a head on pooled features")
        if self.schedule.name in ("cosine", "cyclic"):
            _check("schedule.final", self.schedule.final, self.schedule.final <= self.optim.lr, "at most optim.lr")
        if self.schedule.name == "cyclic":
            self._check_cycles()
        if self.data.weights and self.train.balance == "sampler":
            raise InputError("train.balance sampler and data.weights both say what is drawn; take one of them")
        if (self.probe.bag or self.probe.boost) and not idle:
            raise InputError("probe.bag and probe.boost make a head that learns no further; set train.epochs 0")
        if self.probe.classifier == "knn" and self.model.head == "probe" and not idle:
            raise InputError("probe.classifier knn makes a head that learns no further; take another, or no epochs")
        if (self.probe.bag or self.probe.boost) and self.train.balance != "none":
            raise InputError("probe.bag and probe.boost know no train.balance; set it to none")
        if self.data.weights and idle:
            raise InputError("a probe knows no data.weights; probe.boost weights the images by itself")
        if self.loss.teacher and self.train.cache_features is True:
            raise InputError("train.cache_features true goes without loss.teacher, who is to see the images")

    def _check_cycles(self) -> None:
        cycles, key = self.schedule.cycles, "train.phases.epochs" if self.train.phases else "train.epochs"
        for epochs in self.phase_lengths:
            _check(key, epochs, epochs and epochs % cycles == 0, f"a multiple of schedule.cycles, which is {cycles}")
        for key in ("patience", "minutes"):  # each cycle is to end
            value = getattr(self.train, key)
            _check(f"train.{key}", value, value is None, "null with schedule.name cyclic")

    @property
    def phase_lengths(self) -> list[int]:
        """The epochs of each phase."""
        return [phase.epochs for phase in self.train.phases] if self.train.phases else [self.train.epochs]

    @property
    def cycle_ends(self) -> list[int]:
        """The epochs (from 1) with which a cycle of the last phase ends; none unless the schedule is cyclic."""
        if self.schedule.name != "cyclic":
            return []
        *before, last = self.phase_lengths
        length = last // self.schedule.cycles
        return [sum(before) + length * cycle for cycle in range(1, self.schedule.cycles + 1)]

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        return expanded(self.run or f"runs/{self.model.name}_{short_name(self.data.source)}")


def short_name(source: str | Path) -> str:
    """What a source is called within the name of a run folder."""
    last = re.sub(r"\.[ct]sv$", "", os.path.basename(os.path.abspath(str(source))))  # also of "." and ".."
    return re.sub(r"[^\w.-]+", "_", composed(last))  # a pattern of shards has braces


def plain(value: object) -> object:
    """A value as YAML knows it."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, os.PathLike):  # a Path, a Run
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy's numbers and arrays, and torch's
        return value.tolist()
    if type(value).__name__ == "device":  # torch's
        return str(value)
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
