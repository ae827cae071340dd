"""`cnnzoo profile`: where the time of a config's training steps goes, and what to change."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cnnzoo import assemble, atomic
from cnnzoo import config as config_
from cnnzoo.config import Config
from cnnzoo.data import sources
from cnnzoo.data.sources import Dataset
from cnnzoo.device import pick_device
from cnnzoo.errors import InputError, at_least
from cnnzoo.paths import expanded
from cnnzoo.shown import Shown
from cnnzoo.telling import Tell
from cnnzoo.train import anatomy
from cnnzoo.train.anatomy import Anatomy, Operator
from cnnzoo.train.rehearsal import BOTTLENECK, loader_advice

SHOWN = 10  # operators


@dataclass(frozen=True)
class Profile(Shown):
    """What was found, and in which folder the trace lies."""

    about: str
    anatomy: Anatomy
    operators: list[Operator]  # the costliest first
    advice: str
    folder: Path

    def __str__(self) -> str:
        seconds = self.anatomy.seconds
        step = sum(seconds.values())
        lines = [self.about, f"{'a step':<22}{1000 * step:>9.1f} ms   share"]
        lines += [f"  {part:<20}{1000 * took:>9.1f}      {took / step:>6.1%}" for part, took in seconds.items() if took]
        width = max(len(operator.name) for operator in self.operators[:SHOWN])
        lines.append(f"{'operators':<{width}}   a step        ms   calls")
        lines += [
            f"  {operator.name:<{width}} {1000 * operator.seconds:>16.1f} {operator.calls:>7.0f}"
            for operator in self.operators[:SHOWN]
        ]
        rates = f"{self.anatomy.loader:,.0f} images/s from the loader alone, {self.anatomy.model:,.0f} through the net"
        return "\n".join([*lines, f"{rates} alone, on one batch", self.advice, f"trace: {self.folder / 'trace.json'}"])

    def to_dict(self) -> dict:
        return {**asdict(self), "folder": str(self.folder)}


def profile(
    config: Config | Mapping | str | Path | None = None,
    *,
    steps: int = 8,
    out: str | Path | None = None,
    data: Dataset | None = None,
    tell: Tell = print,
) -> Profile:
    """Run some steps of a config's trainer, of its last phase, and tell where their time goes.

    Args:
        config: a `Config`, a mapping like the YAML, or a YAML file; None takes the defaults.
        steps: how many are timed; three more are traced.
        out: the folder for trace.json, which chrome://tracing and ui.perfetto.dev show, and profile.json; by default
            profiles/ and the run folder's name. The run folder itself is neither read nor made.
        data: the images, where they are at hand already.
        tell: is given each line meant for a person while it runs.

    Raises:
        InputError: for anything wrong with the config or the data, and where nothing is trained.
    """
    at_least("steps", steps)
    sources.expect_decoded(data)
    config = config_.read(config)
    if not config.train.epochs and not config.train.phases:
        raise InputError("train.epochs is 0, so there is no step to profile")
    folder = expanded(out or Path("profiles") / config.folder.name)
    atomic.check_writable(folder / "profile.json")
    device = pick_device(config.train.device)
    data = data or assemble.load_data(config)
    model = assemble.build_model(config, data).to(device)
    trainer = assemble.make_trainer(config, data, model, tell)
    parts = anatomy.dissect(trainer, steps)
    with atomic.replacing(folder / "trace.json", "json") as part:
        operators = anatomy.trace(trainer, str(part))
    precision = trainer.precision
    about = f"{config.model.name} on {data.name}, {device}, {precision}, batches of {parts.batch_size}, {steps} steps"
    found = Profile(about, parts, operators, advice(parts, config, device.type, precision), folder)
    atomic.write(folder / "profile.json", json.dumps(found.to_dict(), indent=2).encode())
    return found


def advice(parts: Anatomy, config: Config, device: str, precision: str) -> str:
    """What the bottleneck is, and what to change, in a sentence."""
    step = sum(parts.seconds.values())
    share = {part: seconds / step for part, seconds in parts.seconds.items()}
    if (waiting := share["waiting for data"]) > BOTTLENECK:
        return f"the loader is the bottleneck ({waiting:.0%} of a step is waiting): {loader_advice(config.data)}"
    if share["augmentation"] > BOTTLENECK:
        return (
            f"augmentation takes {share['augmentation']:.0%} of a step: of augment's keys, those that resample "
            f"(rotation, shift, shear, zoom) cost most"
        )
    if config.loss.teacher and share["loss"] > BOTTLENECK:
        return f"the teacher takes {share['loss']:.0%} of a step: a smaller loss.teacher would make it faster"
    updates = share["optimiser"] + share["average of weights"]
    if updates > 0.2:
        return f"updates take {updates:.0%} of a step, whatever its batch: raise train.batch_size, and optim.lr with it"
    means = []
    if device != "cpu" and precision == "fp32":
        means.append("train.precision bf16")
    if not config.train.channels_last and device != "mps":
        means.append("train.channels_last true")
    if device == "cuda" and config.train.compile is False:
        means.append("train.compile true")
    ways = " and ".join(means or ["a smaller data.size or net"])
    return f"the net itself is the bottleneck, as it should be: {ways} would make it faster"
