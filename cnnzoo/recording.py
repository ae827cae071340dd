"""What is said, written and logged of a run under way."""

from dataclasses import asdict

import torch
from torch import nn

from cnnzoo import assemble, loggers
from cnnzoo.checkpoint import Run, Writer
from cnnzoo.config import Config
from cnnzoo.data.sources import Dataset
from cnnzoo.errors import counted
from cnnzoo.telling import Tell
from cnnzoo.train import rehearsal
from cnnzoo.train.distributed import Team
from cnnzoo.train.trainer import EpochReport, Trainer

SHOWN = 10  # files that cannot be read, of an epoch


def header(config: Config, model: nn.Module, data: Dataset, device: torch.device, team: Team) -> list[str]:
    channels, size = data.preprocess.channels, data.preprocess.size
    layout = "channels last" if assemble.lies_channels_last(config, model) else "channels first"
    trains = config.train.phases or config.train.epochs
    batch = assemble.shared_batch(config, data, team)
    how = f"{layout}; {config.optim.name}, {config.schedule.name}, batches of {batch}"
    where = f"{team.size} processes, the first on {device}" if team.size > 1 else f"{device}"
    return [
        f"{model.entry.name} on {data.name}: {counted(len(data.train), 'image')} to train on, "
        f"{len(data.val):,} held out, {channels}x{size}x{size}, {len(data.classes)} classes",
        f"{where}, {how if trains else 'nothing moves but the head'}, seed {config.train.seed}",
    ]


def plan(trainer: Trainer, config: Config) -> list[str]:
    """A line for each phase, where there are several or a part is frozen: what moves, and at which rates."""
    lines = []
    sizes = {name: parameter.numel() for name, parameter in trainer.model.named_parameters()}
    for number, phase in enumerate(trainer.phases, 1):
        moving = [stage for stage in trainer.stages if phase.moves(stage)]
        many = sum(sizes[name] for stage in moving for name in trainer.stages[stage])
        rates = ", ".join(f"{stage} {config.optim.lr * phase.rate(stage):.2g}" for stage in moving)
        norm = "BatchNorm keeps its statistics" if config.train.batch_norm == "keep" else ""
        more = "from cached features" if trainer.takes_features(number - 1) else norm
        lines.append(
            f"phase {number} of {len(trainer.phases)}, {counted(phase.epochs, 'epoch')}: "
            f"{many:,} of {sum(sizes.values()):,} parameters move; rates {rates}{f'; {more}' if more else ''}"
        )
    told = lines if len(lines) > 1 or config.train.phases else []
    warmup, shortest = config.schedule.warmup_epochs, min((phase.epochs for phase in trainer.phases), default=0)
    if warmup and warmup >= shortest:
        told.append(f"schedule.warmup_epochs {warmup:g} leaves nothing of {shortest} for the rest of the schedule")
    return told


class Recorder:
    """What is said, written and logged as epochs end, by the first of a team's processes (which has a `writer`)."""

    def __init__(self, run: Run, config: Config, data: Dataset, trainer: Trainer, writer: Writer | None, tell: Tell):
        self.run, self.config, self.data, self.trainer = run, config, data, trainer
        self.writer, self.tell = writer, tell
        self.log = loggers.open_(config.train.loggers if writer else (), run.path, asdict(config), tell)
        self._loader_rate = 0.0  # images a second that it alone brings to all processes; 0 where that is not known
        self._told: set[str] = set()  # of images that could not be read any more

    def time_the_loader(self) -> None:
        self._loader_rate = rehearsal.loader_rate(self.trainer.image_feed.batches) * self.trainer.team.size

    def end_epoch(self, report: EpochReport, is_best: bool, **facts: object) -> None:
        """What `Trainer` calls after each validation: keep the best weights, write, log and tell the figures. `facts`
        are what else their card says.
        """
        new = [line for line in self.trainer.problems if line not in self._told]
        self._told.update(new)
        problems = self.trainer.team.gather_lines(new)  # of which each process meets its own
        if self.writer is None:
            return
        model, history = self.trainer.model, self.trainer.progress.history
        if is_best:
            self.writer.keep_model(model.state_dict(), self._card(report) | facts)
        if report.epoch in self.config.cycle_ends:
            snapshot = self.run.snapshot(self.config.cycle_ends.index(report.epoch) + 1)
            self.writer.keep_model(model.state_dict(), self._card(report), snapshot)
        self.writer.write_metrics(history)
        self.log.log(history)
        self.tell(describe(report, self.trainer.epochs))
        if report.epoch == 1 and self._loader_rate and self.trainer.feed is self.trainer.image_feed:
            self.tell(_pace(report, self._loader_rate, self.config))
        for line in problems[:SHOWN]:
            self.tell(line)
        if len(problems) > SHOWN:
            self.tell(f"… and {len(problems) - SHOWN:,} more images that can no longer be read")

    def _card(self, report: EpochReport) -> dict:
        return assemble.card(self.config, self.data, self.trainer.model, report)


def _pace(report: EpochReport, loader: float, config: Config) -> str:
    """Which is the bottleneck, data or net, and what to change where it is the data."""
    net = report.images_per_second / max(1 - report.waiting, 0.01)
    rates = f"the data alone comes at {loader:,.0f} images/s, the net alone takes {net:,.0f}"
    if report.waiting < rehearsal.BOTTLENECK:
        return f"{rates}: the net sets the pace"
    waited = f"it waited for data {report.waiting:.0%} of the time"
    if loader > net:  # which no advice about data would change
        return f"{rates}, and yet {waited}, as happens where the two, or other programs, share the cores"
    return f"{rates}: {waited}: {rehearsal.loader_advice(config.data)}"


def describe(report: EpochReport, epochs: int) -> str:
    """A finished epoch in a line that can be read aloud."""
    if report.epoch == 0:
        return f"start  val loss {report.val_loss:.4f}  val top-1 {report.val_top1:.2%}  {report.seconds:.1f} s"
    return (
        f"epoch {report.epoch:>{len(str(epochs))}}/{epochs}  train loss {report.train_loss:.4f}  "
        f"val loss {report.val_loss:.4f}  val top-1 {report.val_top1:.2%}  "
        f"{report.images_per_second:,.0f} images/s  {report.seconds:.1f} s"
    )
