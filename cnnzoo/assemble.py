"""From a config to its parts: data, model, trainer."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from cnnzoo import registry, zoo
from cnnzoo.building import only_channels
from cnnzoo.config import Config, PhaseConfig, TrainConfig
from cnnzoo.data import kinds, sources
from cnnzoo.data.augment import Augment
from cnnzoo.data.batches import EvalBatches, FeatureBatches, TrainBatches, balanced
from cnnzoo.data.draws import Share
from cnnzoo.data.preprocess import Preprocess
from cnnzoo.data.reading import Split
from cnnzoo.data.sources import Dataset
from cnnzoo.device import device_of, layout_on, pick_precision
from cnnzoo.errors import InputError, counted
from cnnzoo.familiar import Familiarity, spread
from cnnzoo.inference.forms import too_close
from cnnzoo.inference.outputs import Features, WithFeatures
from cnnzoo.models import _heads
from cnnzoo.models._committee import CommitteeNet
from cnnzoo.models._grad_checkpointing import set_grad_checkpointing
from cnnzoo.naming import outputs_of
from cnnzoo.telling import Tell, as_typed, silent
from cnnzoo.train import forms, losses, optim, phases, validation
from cnnzoo.train.distributed import Team
from cnnzoo.train.schedule import Schedule
from cnnzoo.train.trainer import EpochReport, Feed, Trainer
from cnnzoo.transfer import doctor
from cnnzoo.transfer.features import Backbone, Extracted

FEW = 5_000  # training images up to which a probe sees VIEWS of each, and tries what fewer of them would lead to
VIEWS = 3


def make_weights_ready(config: Config) -> None:
    """Fetch the weights to begin with before photos are decoded for them. Raises InputError if they cannot be had, and
    before that for a folder or a table that will not do.
    """
    fetch = zoo.fetching(config.model.name, config.model.pretrained)
    if fetch and kinds.is_of_photos(config.data.source):
        sources.check(config.data)
        fetch()


def load_data(config: Config, split: Mapping[str, Sequence[str]] | None = None) -> Dataset:
    """The images of a config, as its net wants them; `split` as in `sources.load`."""
    return sources.load(config.data, config.augment, *net_input(config), config.model.head == "probe", split)


def net_input(config: Config) -> tuple[int, int | None, Preprocess | None]:
    """What images a config's net takes: their side, their channels (None: of any number), and the preprocessing that
    its weights were trained with, where it is known.
    """
    entry = registry.lookup(config.model.name)
    channels = config.model.in_chans or only_channels(entry)
    return entry.input_size[1], channels, zoo.trained_preprocessing(entry.name, config.model.pretrained)


def doubts(source: str) -> list[str]:
    """A line for each kind of trouble that the data doctor sees at a glance in a folder of photos, or in a table's."""
    if not kinds.is_of_photos(source):
        return []
    found = [finding for finding in doctor.quick(source) if finding.severity != "note"]
    first = {finding.kind: finding for finding in reversed(found)}
    counts = Counter(finding.kind for finding in found)
    tells_all = as_typed("cnnzoo", "check", source)
    return [
        f"{first[kind].severity} of the data, {many:,} x {kind}: {first[kind]}; {tells_all} tells all"
        for kind, many in counts.items()
    ]


def build_model(config: Config, data: Dataset) -> nn.Module:
    """The net for the data's classes and channels, random weights by the seed, tried on an empty image of each size."""
    model, known, p = config.model, len(data.classes), data.preprocess
    classes = known if model.num_classes is None else model.num_classes
    if classes < known:
        raise InputError(f"model.num_classes is {classes}, but {data.name} has {known} classes")
    if model.head == "probe" and classes > known:
        raise InputError(f"model.num_classes is {classes}, but a probe only knows the {known} it saw")
    options = {"num_classes": classes, "in_chans": p.channels, "drop_rate": model.drop_rate, **model.args}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        net = zoo.create(model.name, model.pretrained, **options)
        if model.head == "linear":
            rebuild_head(net, {"kind": "linear", "num_classes": classes})
    net.float()  # as images are, whatever torch.set_default_dtype says
    _try_out(net.eval(), config, data, (p.size, _augment(config, data).at(0).size))  # judged, and trained on at first
    return net


def _try_out(net: nn.Module, config: Config, data: Dataset, sides: Sequence[int]) -> None:
    """Show a net an empty image of each side. Raises InputError for one that it cannot take."""
    for side in dict.fromkeys(sides):
        try:
            with torch.no_grad():
                net(torch.zeros(1, data.preprocess.channels, side, side, dtype=torch.float32))
        except InputError as error:
            raise InputError(f"{error}{'' if side == data.preprocess.size else _why_of_size(config)}") from None


def _why_of_size(config: Config) -> str:
    """Why training images are at first of another side than those that are judged."""
    if config.augment.grows_from < 1:
        return f", with which augment.grows_from {config.augment.grows_from:g} begins"
    return ", which data.train_size says"


def card(config: Config, data: Dataset, model: nn.Module, report: EpochReport) -> dict:
    """What rebuilds the net, its classes and its preprocessing from its weights alone, and how good they are."""
    own = config.model.head == "own"
    return {
        "name": config.model.name,
        "num_classes": model.num_classes,
        "head": None if own else _heads.describe(model.get_classifier()),
        "in_chans": data.preprocess.channels,
        "drop_rate": config.model.drop_rate,
        "args": config.model.args,
        "classes": [*data.classes, *map(str, range(len(data.classes), model.num_classes))],  # outputs beyond by number
        "preprocess": data.preprocess.to_dict(),
        "epoch": report.epoch,
        "val_top1": report.val_top1,
    }


def _phases(config: TrainConfig, stages: Sequence[str], layer_decay: float) -> list[PhaseConfig]:
    plan = config.phases or ([PhaseConfig(config.epochs)] if config.epochs else [])
    phases.check(plan, stages)
    if layer_decay == 1:
        return plan
    depth = {stage: layer_decay**distance for distance, stage in enumerate(reversed(stages))}
    return [replace(phase, rates={stage: depth[stage] * phase.rate(stage) for stage in stages}) for phase in plan]


def make_trainer(
    config: Config,
    data: Dataset,
    model: nn.Module,
    tell: Tell,
    team: Team | None = None,
    precision: str | None = None,
    **hooks,
) -> Trainer:
    """The trainer of a config, everything handed to it finished.

    `precision` is what a run goes on in that is resumed; None chooses anew.
    """
    device, team = device_of(model), team or Team()
    stages = model.entry.parameters(name for name, p in model.named_parameters() if p.requires_grad)  # its own freezing
    plan = _phases(config.train, list(stages), config.optim.layer_decay)
    train, classes = data.train, model.num_classes
    weights = _class_weights(train.labels, classes).to(device) if config.train.balance == "loss" else None
    batch_size, seed = shared_batch(config, data, team), config.train.seed
    share = Share(team.rank, team.size)
    if config.train.batch_norm == "sync" and team.size > 1:
        if device.type != "cuda":
            raise InputError("train.batch_norm sync needs GPUs, since torch has no SyncBatchNorm for other devices")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if config.train.grad_checkpointing:
        set_grad_checkpointing(model)

    caches = _caches_features(config)
    through = [phase for phase in plan if not (caches and phases.moves_head_alone(phase, stages))]  # the net itself
    steps = sum(phase.epochs for phase in through) * (len(train) // batch_size)
    precision, compiled, why = _form(config, data, model, team, batch_size, steps, precision)
    if why:
        tell(why)

    def make_head_feed() -> Feed:
        """What a head alone is trained on: the features that the net gives at that moment."""
        frozen = backbone(config, data, model, tell)
        own, held_out = features(config, data, frozen, frozen.exact())  # by which the net is judged in the end, too
        drawn = _draw_weights(config, train)
        batches = FeatureBatches(own.vectors, train.labels, batch_size, seed, device, share, drawn)
        rows, labels = (torch.from_numpy(share.of_all(whole)).to(device) for whole in (held_out.plain, data.val.labels))
        head = model.get_classifier()
        return Feed(batches, [(rows, labels)], head, head)

    return Trainer(
        model,
        losses.build(config.loss, model.entry.loss, weights, _teacher(config, data, device), config.augment.mixes),
        optim.build(config.optim, model, stages) if plan else None,  # torch takes a second over the first one
        train_batches(config, data, device, batch_size, classes, share),
        val_batches(data, device, max(batch_size, 256), share),
        phases=plan,
        stages=stages,
        make_schedule=partial(Schedule, config.schedule, config.optim.lr),
        lr=config.optim.lr,
        precision=precision,
        channels_last=lies_channels_last(config, model),
        accumulate=config.train.accumulate,
        clip_norm=config.optim.clip_norm,
        ema=config.train.ema,
        rolls_back=config.train.on_divergence == "rollback",
        seed=seed,
        compiled=compiled,
        make_head_feed=make_head_feed if caches else None,
        keep_statistics=config.train.batch_norm == "keep",
        patience=config.train.patience,
        limit=None if config.train.minutes is None else 60 * config.train.minutes,
        save_minutes=config.train.checkpoint_minutes,
        team=team,
        find_unused=config.train.find_unused_parameters,
        tell=tell,
        **hooks,
    )


def lies_channels_last(config: Config, model: nn.Module) -> bool:
    """Whether images and weights are to lie channels-last in memory: as the config says, if net and device can take
    it.
    """
    if layout_on(device_of(model)) != torch.channels_last:
        return False
    return config.train.channels_last and not getattr(model, "channels_first", False)


def _form(
    config: Config, data: Dataset, model: nn.Module, team: Team, batch: int, steps: int, precision: str | None
) -> tuple[str, Callable, str]:
    """The precision, the function that runs the net, and a line on why it is these."""
    device, p = device_of(model), data.preprocess
    if not steps:  # of the net, at most of a head on cached features: 16 bits would spare nothing
        wanted = config.train.precision
        return precision or pick_precision("fp32" if wanted == "auto" else wanted, device), model, ""
    at_once = max(batch // team.size // config.train.accumulate, 2)  # of one, BatchNorm may have no statistics
    side = _train_size(config, data)
    layout = torch.channels_last if lies_channels_last(config, model) else torch.contiguous_format
    images = torch.zeros(at_once, p.channels, side, side, dtype=torch.float32, device=device)
    images = images.contiguous(memory_format=layout)
    kind, why = precision, "as the run began"
    if not kind:
        kind, why = forms.precision(config.train.precision, model, images, steps)
    if team.any(kind == "bf16")[0] and kind != "bf16":  # all compute alike
        kind, why = "bf16", "which another process found faster"
    grows = config.augment.grows_from < 1
    form = forms.choose(model, images, kind, steps, setting=config.train.compile, grows=grows)
    return kind, form.forward, f"{kind} ({why}); {form.why}"


def shared_batch(config: Config, data: Dataset, team: Team) -> int:
    """The batch of all processes together. Raises InputError if they cannot share it evenly."""
    batch, size = config.train.batch_size, team.size
    least = min(len(data.train), len(data.val))
    if least < size:
        raise InputError(f"{size} processes are too many for {least} images; start fewer")
    in_pairs = config.augment.mixes and size > 1
    unit = size * (2 if in_pairs else 1) * config.augment.repeats
    many = len(data.train)
    if many < unit and config.augment.repeats > 1:
        raise InputError(f"augment.repeats {config.augment.repeats} is too many for {counted(many, 'image')}")
    if config.model.head == "probe":  # few photos, usually: as many steps, of which the last one lacks no images
        batch = -(-many // -(-many // batch))
        batch -= batch % unit
    batch = min(batch, many - many % unit)
    if batch % unit or not batch:
        near = " or ".join(str(n) for n in (batch - batch % unit, batch - batch % unit + unit) if n)
        pairs = ", in pairs of images to mix" if in_pairs else ""
        who = f"{size} processes" if size > 1 else f"augment.repeats {config.augment.repeats}"
        raise InputError(
            f"train.batch_size is {config.train.batch_size}, which {who} cannot share evenly{pairs}; take {near}"
        )
    return batch


def _teacher(config: Config, data: Dataset, device: torch.device) -> nn.Module | None:
    """The net of loss.teacher. Raises InputError if it knows other classes, or wants other colours than the run."""
    if (said := config.loss.teacher) is None:
        return None
    net, _ = zoo.open_net(said, pretrained=not zoo.has_weights(said))
    classes = config.model.num_classes or len(data.classes)
    if net.num_classes != classes or outputs_of(net, data.classes, data.name) != [*range(len(data.classes))]:
        raise InputError(f"loss.teacher {said} knows other classes than {data.name}, or has them in another order")
    try:
        _try_out(net, config, data, (_train_size(config, data), _augment(config, data).at(0).size))
    except InputError as error:
        raise InputError(f"loss.teacher {said} cannot take the images trained on: {error}") from None
    wants, gets = zoo.preprocessing(net), data.preprocess
    if isinstance(net, CommitteeNet):  # whose members normalise by themselves
        return _OfPlainImages(net, gets.mean, gets.std).to(device)
    if (wants.mean, wants.std) != (gets.mean, gets.std):
        raise InputError(
            f"loss.teacher {said} was trained with data.mean {list(wants.mean)} and data.std {list(wants.std)}; "
            f"set these, instead of {list(gets.mean)} and {list(gets.std)}"
        )
    return net.to(device)


class _OfPlainImages(nn.Module):
    """A net that takes images between 0 and 1, for images that are normalised."""

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None])
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32)[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x * self.std + self.mean)


def _augment(config: Config, data: Dataset) -> Augment:
    p = data.preprocess
    return Augment(config.augment, _train_size(config, data), p.mean, p.std, sum(config.phase_lengths))


def _train_size(config: Config, data: Dataset) -> int:
    """The side of the images that the net is trained on."""
    return config.data.train_size or data.preprocess.size


def train_batches(
    config: Config, data: Dataset, device: torch.device, batch_size: int, classes: int, share: Share | None = None
) -> TrainBatches:
    """Batches of the training images, augmented, of the size that all processes have together."""
    train, augment, seed = data.train, _augment(config, data), config.train.seed
    drawn = _draw_weights(config, train)
    return TrainBatches(train.images, train.labels, batch_size, augment, seed, device, classes, share, drawn)


def val_batches(data: Dataset, device: torch.device, batch_size: int, share: Share | None = None) -> EvalBatches:
    """Each validation image once, in order."""
    p = data.preprocess
    return EvalBatches(data.val.images, data.val.labels, batch_size, p.mean, p.std, device, share)


def _draw_weights(config: Config, train: Split) -> np.ndarray | None:
    """`(N,)`: how often each training image is drawn beside the others; None: each once an epoch."""
    return balanced(train.labels) if config.train.balance == "sampler" else train.weights


def _class_weights(labels: np.ndarray, classes: int) -> torch.Tensor:
    """`(classes,)`: with them, every class's images together count the same, and an image 1 on average."""
    counts = np.bincount(labels, minlength=classes)
    return torch.tensor(len(labels) / (np.count_nonzero(counts) * counts.clip(min=1)), dtype=torch.float32)


def _caches_features(config: Config) -> bool:
    """Whether phases in which the head alone moves take features from the cache."""
    if config.train.cache_features != "auto":
        return config.train.cache_features
    if config.model.head == "own" or config.loss.teacher:  # who is to see the images
        return False
    if config.augment.mixup or config.augment.cutmix:  # which is of a batch's images: a view has none of it
        return False
    return config.probe.views != 1 or not config.augment.changes


def views_of(config: Config, data: Dataset) -> int:
    """In how many views a probe sees each training image."""
    views = config.probe.views
    return views if views != "auto" else VIEWS if len(data.train) <= FEW else 1


def backbone(config: Config, data: Dataset, model: nn.Module, tell: Tell = silent) -> Backbone:
    """What gives a config's features. Raises InputError as Backbone does."""
    return Backbone(model, data.preprocess, data.cache, tell, config.train.precision)


def features(
    config: Config, data: Dataset, frozen: Backbone, judging: Backbone | None = None
) -> tuple[Extracted, Extracted]:
    """What the head sees of the training images, in every view, and of the validation images, by `judging` if given."""
    drawn = {"augment": _augment(config, data), "seed": config.train.seed}
    train = frozen.extract(data.train.images, views=views_of(config, data), more=len(data.val), **drawn)
    return train, (judging or frozen).extract(data.val.images, what="features, held out")


def settled(outputs: torch.Tensor, data: Dataset, model: nn.Module) -> torch.Tensor:
    """Logits of the validation images by features in 16 bits, but those of the net itself where these cannot tell the
    two likeliest classes apart, and the image can still be read.
    """
    close, outputs = too_close(outputs).nonzero()[:, 0], outputs.clone()
    if len(close):
        few = replace(data, val=data.val.choose(close.numpy()))
        batches = val_batches(few, device_of(model), 64)
        said, _ = validation.logits(model, batches)
        read = [row for row in range(len(close)) if row not in batches.lost]
        outputs[close[read]] = said[read]
    return outputs


def familiarity(net: nn.Module, data: Dataset) -> Familiarity | None:
    """What tells images like the training images, by features of the net in eval mode; None for a net that gives none,
    or whose answers are not those of its head to them. Images that can no longer be read have no part in it.
    """
    p, device = data.preprocess, device_of(net)
    chosen = [part.choose(spread(len(part))) for part in (data.train, data.val)]
    trained, held_out = (EvalBatches(s.images, s.labels, 64, p.mean, p.std, device, size=p.size) for s in chosen)
    try:
        with torch.inference_mode():
            images = next(iter(held_out))[0][:2]
            if not torch.allclose(net(images), WithFeatures(net)(images)[0], rtol=1e-2, atol=1e-2):
                return None
        vectors = [validation.logits(Features(net), batches)[0].numpy() for batches in (trained, held_out)]
        lost = ([*batches.lost] for batches in (trained, held_out))
        return Familiarity.learn(*map(partial(np.delete, axis=0), vectors, lost))
    except Exception:  # of any kind: what a user's net cannot do is to cost no run
        return None


def rebuild_head(model: nn.Module, spec: dict) -> None:
    """A head without values yet, such as a run's card describes."""
    put_head(model, _heads.build(spec, model.num_features))


def put_head(model: nn.Module, head: nn.Module) -> None:
    """Put a head in the place of the net's own, on the net's device."""
    model.set_submodule(model.entry.head, head.float().to(device_of(model)))
