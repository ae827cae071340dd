"""Names to finished nets: the zoo's front door."""

import copy
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnnzoo import config, registry
from cnnzoo.building import build, materialise
from cnnzoo.checkpoint import Run, run_of
from cnnzoo.config import DataConfig
from cnnzoo.data.found import IMAGENET_MEAN, IMAGENET_STD, photo_resize
from cnnzoo.data.preprocess import Preprocess, Sheet, together
from cnnzoo.errors import InputError, counted, did_you_mean, expect, quoted
from cnnzoo.files import read_card, read_safetensors, read_torch
from cnnzoo.models import _rules
from cnnzoo.models._committee import CommitteeNet, Seat
from cnnzoo.models._feature_maps import FeatureMaps
from cnnzoo.paths import expanded
from cnnzoo.registry import Entry, register, unregister  # noqa: F401  (after our own nets)
from cnnzoo.weights import fetch, table
from cnnzoo.weights.load import beside_the_net, load_into, sizes, to_our_names, unwrap


def create(
    name: str,
    pretrained: bool | str | Path | Run | table.Weights = False,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    drop_rate: float | None = None,
    features_only: bool = False,
    out_indices: Sequence[int | str] | None = None,
    **arch: Any,
) -> nn.Module:
    """Build a net of the registry.

    Args:
        name: see `list_models`; or NET.TAG, with pretrained=True.
        pretrained: False; True (the most accurate row of the weights table); a row, or its tag; a .pth, .pt or
            .safetensors file; a run folder.
        num_classes: None is the weights' own, or without weights the net's (1,000, or 10); 0 takes the head off.
        in_chans: channels of an image; None likewise.
        drop_rate: dropout probability; None is the net's own.
        features_only: a net that returns the stages' feature maps, see `FeatureMaps`.
        out_indices: which of them, by number or name, with features_only; or layers, such as "conv4_3"; None is all
            stages.
        **arch: further arguments of the net's builder.

    Returns:
        The net in train mode. With trained weights it has `.load_report`, which tells what became of the file's
        tensors, and where the file or row says so `.preprocessing` and `.classes`.

    Raises:
        InputError: for a name, argument, tag or file that does not fit, saying which would.
    """
    if pretrained == "":
        raise InputError(f"pretrained is empty, but must be False, True, or a tag, a file or a run folder for {name}")
    name, pretrained = config.tagged(name, pretrained)
    entry = registry.lookup(name)
    named = {"num_classes": num_classes, "in_chans": in_chans, "drop_rate": drop_rate}
    options = {key: value for key, value in named.items() if value is not None} | arch
    net = _with_weights(entry, options, _find(entry, pretrained)) if pretrained else build(entry, options)
    materialise(net)
    if features_only:
        if isinstance(out_indices, int | str):
            raise InputError(f"out_indices is {out_indices!r}, but must be a sequence such as ({out_indices!r},)")
        maps = FeatureMaps(net, out_indices)
        maps.preprocessing = preprocessing(net)
        if hasattr(net, "load_report"):
            maps.load_report = net.load_report
        return maps
    if out_indices is not None:
        raise InputError("out_indices goes with features_only=True")
    return net


@dataclass(frozen=True)
class _Source:
    """Weights that have been located, but not read yet."""

    name: str  # for messages
    read: Callable[[], dict[str, Tensor]]
    card: dict  # what is known about them: the net's name, preprocess, classes
    row: table.Weights | None = None


def _with_weights(entry: Entry, options: dict[str, Any], source: _Source) -> nn.Module:
    """The net with a file's values; classes, channels and further arguments are the file's where `options` do not
    say.
    """
    if source.card.get("name", entry.name) != entry.name:
        raise InputError(f"{source.name} holds weights of {source.card['name']}, not of {entry.name}")
    content = unwrap(source.read(), source.name)
    options = {**source.card.get("args", {}), **options}
    head = source.card.get("head")
    if head and options.get("num_classes", head["num_classes"]) == head["num_classes"]:
        options = {**options, "num_classes": head["num_classes"], "head": head}
    net = build(entry, options)
    own = list(net.state_dict())
    beside = beside_the_net(content, entry, own)
    state = to_our_names({name: content[name] for name in content if name not in beside}, entry, own)
    taken = inspect.signature(entry.build).parameters
    # Sizes that show in the file's tensors, and that nobody has named: a net of these is built where the first is not.
    implied = {key: size for key, size in sizes(state, entry).items() if key not in options and key in taken}
    if any(getattr(net, key, size) != size for key, size in implied.items()):
        net = build(entry, {**options, **implied})
    bgr, lacks = (source.row.bgr, source.row.lacks) if source.row else (False, "")
    report = load_into(net, entry, state, source.name, bgr, lacks)
    net.load_report = replace(report, unused=(*report.unused, *beside))
    if "preprocess" in source.card:
        preprocess = Preprocess.from_dict(source.card["preprocess"])
        net.preprocessing = preprocess.with_channels(getattr(net, "in_chans", preprocess.channels))
    has_own_head = not any(name.startswith(f"{net.entry.head}.") for name in net.load_report.initialised)
    if "classes" in source.card and has_own_head and net.num_classes == len(source.card["classes"]):
        net.classes = tuple(source.card["classes"])
    return net


def _named(pretrained: bool | str | Path | Run | table.Weights, entry: Entry) -> str | None:
    """The tag, file or folder that is meant; None for the best known weights."""
    if pretrained is True:
        return None
    if isinstance(pretrained, table.Weights) and pretrained.model == entry.name:
        return pretrained.tag
    if isinstance(pretrained, str | os.PathLike):
        return os.fspath(pretrained)
    wrong = f"weights of {pretrained.model}" if isinstance(pretrained, table.Weights) else quoted(pretrained)
    raise InputError(f"pretrained is {wrong}, but must be True, or a tag, a file or a run folder for {entry.name}")


def _find(entry: Entry, pretrained: bool | str | Path | Run | table.Weights) -> _Source:
    named = _named(pretrained, entry)
    path = named and expanded(named)
    if path and path.is_dir():
        path = Run.open(path).learnt
    if path and path.is_file():
        card = read_card(path) if path.suffix == ".safetensors" else None
        row = fetch.recognise(path, table.rows(entry.name)) if card is None else None
        if row:
            table.refuse_excluded(row)
        return _Source(str(path), lambda: _read(path), card or (_card(row) if row else {}), row)
    row = table.row(entry.name, named)
    return _Source(f"{row.model} {row.tag}", lambda: _read(fetch.fetch(row)), _card(row), row)


def _read(file: Path) -> dict:
    return read_safetensors(file) if file.suffix == ".safetensors" else read_torch(file)


def _card(row: table.Weights) -> dict:
    return {"preprocess": row.preprocess} | ({"classes": row.classes} if row.classes else {})


def trained_preprocessing(name: str, pretrained: bool | str | Path | Run) -> Preprocess | None:
    """The preprocessing that belongs to weights, without loading them; None where it is not known."""
    if not pretrained:
        return None
    card = _find(registry.lookup(name), pretrained).card
    return Preprocess.from_dict(card["preprocess"]) if "preprocess" in card else None


def fetching(name: str, pretrained: bool | str | Path | Run) -> Callable[[], object] | None:
    """A function that fetches weights, and raises InputError if they cannot be had; None if they are here already."""
    named = _named(pretrained, registry.lookup(name)) if pretrained else None
    if not pretrained or (named and expanded(named).exists()):
        return None
    row = table.row(name, named)
    return None if fetch.find(row) else partial(fetch.fetch, row)


def load(run_or_file: str | Path | Run) -> nn.Module:
    """The net of a run folder, or of a model.safetensors from one, in eval mode.

    It has `.classes`, `.preprocessing`, `.temperature` (softmax(logits / temperature) is calibrated; 1.0 where none was
    fitted) and `.run`, the folder's Run, or None for a file that lies elsewhere.

    Raises InputError if there is no such folder or file, where the run has not finished an epoch, or where the file
    does not say which net it is.
    """
    path = expanded(_spelt(run_or_file))
    if path.is_dir():
        run = Run.open(path)
        card, path = run.card, run.model_file
    elif path.exists():
        card = read_card(path) if path.suffix == ".safetensors" else None
    else:
        raise InputError(f"there is no run folder or file {path}")
    if card is None and (path.parent / "config.yaml").exists():
        raise InputError(f"{path} is a part of the run {path.parent}; name that folder, which knows its best weights")
    if card is None:
        raise InputError(
            f"{path} does not say which net it is; build that by cnnzoo.create(NAME, pretrained={str(path)!r})"
        )
    net = of_card(card, read_safetensors(path), str(path))
    net.run = Run(path.parent) if (path.parent / "split.json").exists() else None
    return net


def of_card(card: dict, state: dict[str, Tensor], where: str) -> nn.Module:
    """The net that the header of a model.safetensors describes, with the values of its tensors, as `load` gives it.

    `where` they come from is said in messages.
    """
    if "members" in card:
        net = _committee(card, state, where)
    else:
        options = {key: card[key] for key in ("num_classes", "in_chans", "drop_rate") if card[key] is not None}
        source = _Source(where, lambda: state, card)
        net = _with_weights(registry.lookup(card["name"]), {**options, **card["args"]}, source)
        materialise(net)
    net.temperature = float(card.get("temperature", 1.0))
    return net.float().eval()  # as its values lie in files, whatever torch.set_default_dtype says


def _committee(card: dict, state: dict[str, Tensor], where: str) -> CommitteeNet:
    """Member i has the tensors "members.i.…", its rule "rule.…"."""

    def own(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}

    cards, classes = card["members"], tuple(card["classes"])
    nets = [of_card(each, own(f"members.{i}."), f"{where}, member {i}") for i, each in enumerate(cards)]
    seen = [preprocessing(net) for net in nets]
    sheet, tops = together(seen)
    outputs = [tuple(each["classes"].index(name) for name in classes) for each in cards]
    seats = [
        Seat(top, one.shape, one.mean, one.std, net.temperature, places)
        for top, one, net, places in zip(tops, seen, nets, outputs, strict=True)
    ]
    rule = _rules.build(card["rule"], len(nets), len(classes))
    rule.load_state_dict(own("rule."))
    height, width, channels = sheet.shape
    net = CommitteeNet(nets, seats, rule, (channels, height, width))
    net.preprocessing, net.classes = sheet, classes
    note = f"{counted(len(nets), 'member')}: {', '.join(map(called, nets))}"
    facts = {"input_size": net.image_shape, "num_classes": len(classes), "min_size": 0, "notes": (note,)}
    net.entry = Entry(card["name"], CommitteeNet, **facts)
    return net


def _spelt(run_or_model: str | Path | Run) -> str:
    """A name, folder or file as text. Raises InputError for what is none of these."""
    wanted = "a net's name, a run folder or its file is wanted"
    expect(run_or_model, (str, os.PathLike), wanted)
    if not (spelt := os.fspath(run_or_model)):  # which as a path were the folder that one is in
        raise InputError(f"{wanted}, not ''")
    return spelt


def find_run(run_or_model: str | Path | Run) -> Path | None:
    """Where the run folder or file is that is meant; None for a net's name, and for what is nowhere.

    Raises InputError for what is no text or path.
    """
    path = expanded(spelt := _spelt(run_or_model))
    is_name = spelt in list_models() and not Run(path).config_file.exists()
    return path if path.exists() and not is_name else None


def called(model_or_run: nn.Module | str | Path | Run) -> str:
    """The name shown in messages and tables."""
    if not isinstance(model_or_run, nn.Module):
        return _spelt(model_or_run)
    entry = getattr(model_or_run, "entry", None)
    return entry.name if entry else type(model_or_run).__name__


def has_weights(run_or_model: nn.Module | str | Path | Run) -> bool:
    """Whether it brings its own weights, as a net, a run and a file do, and a name does not."""
    return isinstance(run_or_model, nn.Module) or find_run(run_or_model) is not None


def check_named(run_or_model: nn.Module | str | Path | Run, pretrained: bool | str | Path | Run) -> None:
    """Raises InputError where `pretrained` weights are meant for what has its own."""
    if pretrained and has_weights(run_or_model):
        which = "" if pretrained is True else f" ({quoted(pretrained)} here)"
        raise InputError(f"{called(run_or_model)} has weights of its own; pretrained{which} goes with a net's name")


def open_net(
    run_or_model: nn.Module | str | Path | Run, pretrained: bool | str | Path | Run = False
) -> tuple[nn.Module, DataConfig | None]:
    """A trained net in eval mode and float32, and what it was trained on where that is known.

    `run_or_model` is a run, a run folder, a model.safetensors, a net's name together with `pretrained` weights, or a
    net, of which this is a copy. Raises InputError where there is none, and for `pretrained` weights that go with none.
    """
    check_named(run_or_model, pretrained)
    with torch.device("cpu"):  # whatever torch.set_default_device says: on the meta device it would know nothing
        if isinstance(run_or_model, nn.Module):
            net = copy.deepcopy(run_or_model).eval()
        elif path := find_run(run_or_model):
            net = load(path)
        else:
            net = _of_name(os.fspath(run_or_model), pretrained)
    run = run_of(net)
    return net.float(), config.read(run.config_file).data if run else None


def _of_name(name: str, pretrained: bool | str | Path | Run) -> nn.Module:
    """A net of the registry that has learnt something."""
    nets, named = list_models(), config.tagged(name, pretrained)
    name, pretrained = named if named[0] in nets else (name, pretrained)
    if name not in nets:
        net, _, tag = name.partition(".")
        if net in nets and any(row.tag == tag for row in table.rows(net)):
            registry.lookup(name)  # complains of a tag without pretrained
        known = [*nets, *map(str, expanded(name).parent.glob("*"))]
        none = f"there is no such folder or file, nor anything like it among the {len(nets)} nets of cnnzoo list"
        raise InputError(f"unknown run folder or model {name!r}{did_you_mean(name, known, none)}")
    if not pretrained:
        raise InputError(f"{name} without trained weights knows nothing; name some by pretrained=…")
    net = create(name, pretrained).eval()
    aux = tuple(f"{head.partition('.')[0]}." for head in net.entry.aux)  # which only training asks
    if anew := ", ".join(name for name in net.load_report.initialised if not name.startswith(aux)):
        file = _named(pretrained, net.entry) or "the best known file"
        raise InputError(f"{file} lacks a part of {name}: without {anew} it knows nothing")
    return net


def preprocessing(model_or_name: nn.Module | str | Path | Run) -> Preprocess | Sheet:
    """What turns a picture (PIL, file, uint8) into the `(C, H, W)` float32 that a net's weights were trained on.

    For a run, or its folder or model.safetensors: the run's. For a name: that of its best known weights; for a net
    without trained weights, the usual ImageNet one at its own input size.

    Raises InputError for an unknown name, and for a net that is not of the registry and has no `.preprocessing`.
    """
    if isinstance(model_or_name, nn.Module):
        if hasattr(model_or_name, "preprocessing"):
            return model_or_name.preprocessing
        if not hasattr(model_or_name, "entry"):
            raise InputError(f"a net of class {called(model_or_name)} is not of the registry: set its .preprocessing")
        channels, size, _ = model_or_name.entry.input_size
        channels = getattr(model_or_name, "in_chans", channels)
        size = getattr(model_or_name, "image_size", None) or size
    elif path := find_run(model_or_name):
        return load(path).preprocessing
    else:
        name, tag = config.tagged(os.fspath(model_or_name), True)
        entry = registry.lookup(name)
        if rows := [table.row(entry.name, tag)] if tag is not True else table.rows(entry.name):
            return Preprocess.from_dict(rows[0].preprocess)
        channels, size, _ = entry.input_size
    return Preprocess(size, photo_resize(size), IMAGENET_MEAN, IMAGENET_STD).with_channels(channels)


def list_models(pattern: str | Iterable[str] = "*", *, pretrained: bool = False) -> list[str]:
    """Names that match the wildcard pattern, or one of several, in natural order; with `pretrained` those that weights
    exist for. None match: an empty list. Raises InputError for a pattern that is no text.
    """
    return [name for name in registry.names(pattern) if not pretrained or table.rows(name)]


def info(name: nn.Module | str | Path | Run) -> Entry:
    """The entry of a net's name, of a run's net or of a net. Raises InputError for an unknown name, offering the near
    ones.
    """
    if isinstance(name, nn.Module) and hasattr(name, "entry"):
        return name.entry
    path = find_run(name)
    return load(path).entry if path else registry.lookup(os.fspath(name))
