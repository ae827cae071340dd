"""THE PAGE: config -> data -> model -> trainer -> run folder -> report. Read `train` from top to bottom."""

import copy
import gc
import json
import os
import sys
from collections.abc import Callable, Mapping, Set
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from cnnzoo import __version__, assemble, environment, loggers, machine, probing, whereabouts, zoo
from cnnzoo import config as config_
from cnnzoo.checkpoint import Run, Writer
from cnnzoo.config import Config, DataConfig, Overrides
from cnnzoo.data import sources
from cnnzoo.data.sources import Dataset
from cnnzoo.device import autocast, is_out_of_memory
from cnnzoo.errors import InputError, Interrupted, counted, printable, quoted
from cnnzoo.familiar import Familiarity
from cnnzoo.signals import heard
from cnnzoo.telling import Tell, as_typed, silent
from cnnzoo.train import distributed, rehearsal
from cnnzoo.train.distributed import Team
from cnnzoo.train.trainer import EpochReport, Trainer
from cnnzoo.train.validation import logits

CHECKPOINT = "its checkpoint"  # what processes of a team compare first
SHOWN = 10  # files that cannot be read, of an epoch
PLACES = {"data.source", "data.val_source", "data.weights", "loss.teacher", "model.pretrained"}  # which may have moved


def train(
    config: Config | Mapping | str | Path | None = None,
    *,
    overrides: Overrides = (),
    resume: str | Path | Run | None = None,
    data: Dataset | None = None,
    with_report: bool = True,
    tell: Tell = print,
    should_stop: Callable[[], bool] | None = None,
) -> Run:
    """Train a net and leave a run folder.

    Args:
        config: a `Config`, a mapping like the YAML, or a YAML file; None takes the resumed run's, else the defaults.
        overrides: keys of the config with other values: {"optim.lr": 0.01}, or words as on the command line.
        resume: a run folder to go on with, or "auto": the config's own folder if it holds a run. One that is finished
            stays as it is.
        data: the images, where they are decoded already; else those of the config. Images of your own get a name for
            `data.source` by `cnnzoo.register_data`.
        with_report: whether report.html is drawn at the end.
        tell: is given each line meant for a person.
        should_stop: asked before the first step and after each one; True saves and raises Interrupted. None: Ctrl-C
            and SIGTERM say so.

    Returns:
        The run, finished.

    Raises:
        InputError: for anything wrong with the config, the data or the folder, and at a non-finite loss.
        Interrupted: after `should_stop` said so; the run resumes from there.
    """
    sources.expect_decoded(data)
    if overrides:
        own = config is None and resume not in (None, "auto")
        config = config_.read(Run.open(resume).config_file if own else config, overrides)
    run, config, state = _open(config, resume, tell)
    if run.is_finished:
        if distributed.size() > 1:  # others, with a disk of their own, may find nothing there
            with distributed.joined(config.train.device) as (team, _):
                team.expect_alike({CHECKPOINT: "of a finished run"})
        _ = run.card  # complains if its weights are damaged
        lacks = with_report and config.ensemble is None and not run.report_file.exists()  # killed as it was drawn, say
        way = f"; it lacks its report, which cnnzoo report {as_typed(run.path)} makes" if lacks else ""
        tell(f"{run.path} is finished, and stays as it is{way}")
        return run
    if config.ensemble is not None:
        raise InputError("this is the config of a committee, which cnnzoo.combine makes, or cnnzoo ensemble")
    carry_out(run, config, state, data=data, with_report=with_report, tell=tell, should_stop=should_stop)
    return run


def carry_out(
    run: Run,
    config: Config,
    state: dict | None = None,
    *,
    data: Dataset | None = None,
    probed: probing.Probed | None = None,
    with_report: bool = True,
    tell: Tell = print,
    should_stop: Callable[[], bool] | None = None,
) -> None:
    """Do all that a config says, or what is left of it after a `state`; `probed` is what a probe has found out about
    the data already. The other arguments are `train`'s.
    """
    with distributed.joined(config.train.device) as (team, device):
        tell = tell if team.is_first else silent
        with (
            run.locked() if team.is_first else nullcontext(),
            heard(should_stop) as should_stop,
            torch.inference_mode(False),
            torch.enable_grad(),
            autocast(device, "fp32"),
        ):
            job = _Job(run, config, state, team, device, tell, should_stop)
            team.expect_alike(_beginning(config, state))
            data = _load_data(job) if data is None else data
            team.expect_alike({"its list of images": data.digest})
            known = _learn(job, data, probed)
            if known is None:  # what training held
                gc.collect()
                machine.give_back(device)
            if team.is_first:
                for number, epoch in enumerate(config.cycle_ends, 1):
                    finish_snapshot(run, number, epoch, config, data, device)
                found = (known.outputs, known.familiarity) if known else (None, None)
                finish(run, config, data, device, tell, *found, with_report)
            team.wait()


@dataclass(frozen=True)
class _Job:
    """A run under way, in one of a team's processes, of which the first speaks and writes."""

    run: Run
    config: Config
    state: dict | None  # that it goes on from; None: from the beginning
    team: Team
    device: torch.device
    tell: Tell
    should_stop: Callable[[], bool]

    @property
    def is_resumed(self) -> bool:
        return self.state is not None


def _load_data(job: _Job) -> Dataset:
    """The images, split as before in a run that goes on; in a new one, what looks doubtful about them is told."""
    run, config, split = job.run, job.config, None
    if job.is_resumed:
        split = whereabouts.renamed(run, config_.read(run.config_file).data, config.data) or run.split
        if split != run.split:
            job.tell(f"{config.data.source} holds the images of {run.path}: it goes on with them")
    with job.team.one_after_another():
        assemble.make_weights_ready(config)
        data = assemble.load_data(config, split)
    if job.team.is_first and not job.is_resumed:
        for line in assemble.doubts(config.data.source):
            job.tell(line)
    return data


def _beginning(config: Config, state: dict | None) -> dict[str, object]:
    """What all processes of a team must have alike before they look at their images."""
    at = state and state["progress"]
    return {
        CHECKPOINT: f"of epoch {at['epoch']}, step {at['step']}" if at else "missing",
        "cnnzoo": __version__,
        "torch": torch.__version__,
        **_keys(config, PLACES | {"data.root", "data.workers"}),
    }


def _learn(job: _Job, data: Dataset, probed: probing.Probed | None = None) -> probing.Probed | None:
    """Train to the end of the last epoch. Returns what a probe has found out, where the net is still as it was then."""
    run, config, team, device, tell = job.run, job.config, job.team, job.device, job.tell
    model = assemble.build_model(config, data).to(device)
    for line in (*_header(config, model, data, device, team), *data.notes):
        tell(line)
    if probed:
        assemble.put_head(model, copy.deepcopy(probed.probe.head))
    else:
        probed = _start_head(job, data, model)
    if team.size == 1 and job.should_stop():
        raise Interrupted(run.path if job.is_resumed else None)
    writer = Writer(run, tell) if team.is_first else None
    trainer = assemble.make_trainer(
        config,
        data,
        model,
        tell,
        team,
        precision=run.environment["precision"] if job.is_resumed else None,
        start=probed and probed.report,
        save=(lambda state: writer.save_state({**state, "config": asdict(config)})) if writer else lambda state: None,
        should_stop=job.should_stop,
    )
    if writer:
        _write_plans(job, data, environment.describe(device, trainer.precision, team.size), probed)
    for line in _plan(trainer, config):
        tell(line)
    recorder = Recorder(run, config, data, trainer, writer, tell)
    trainer.on_epoch = recorder.end_epoch
    if trainer.phases and not job.is_resumed:
        recorder.time_the_loader()
    if probed:
        recorder.end_epoch(probed.report, is_best=True)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            trainer.fit(job.state)
        except Interrupted:
            raise Interrupted(run.path, writer.unsaved if writer else "") from None
        finally:
            recorder.log.close()
    if writer:
        writer.close()
    return None if trainer.progress.epoch else probed


def _start_head(job: _Job, data: Dataset, model: nn.Module) -> probing.Probed | None:
    """Put the head on the net that a probe finds, and tell what the net knows with it. A run that goes on gets the head
    that was found then, without its values, and None.
    """
    if job.config.model.head != "probe":
        return None
    if job.is_resumed:
        assemble.rebuild_head(model, job.run.card["head"])
        return None
    with job.team.one_after_another():
        return probing.start_by_probe(job.config, data, model, job.tell)


def _write_plans(job: _Job, data: Dataset, ran_on: dict, probed: probing.Probed | None) -> None:
    """What the run folder holds before the first epoch; of one that goes on, where its images lie now."""
    run = job.run
    if job.is_resumed:
        ran_on = environment.resumed(run.environment, ran_on)
        own, now = config_.read(run.config_file), job.config.data
        moved = replace(own, data=replace(own.data, source=now.source, val_source=now.val_source))
        if moved != own:
            run.write("config.yaml", config_.dump(moved))
    else:
        run.write("config.yaml", config_.dump(job.config))  # first, since it makes the folder one to resume
    if not job.is_resumed or data.split() != run.split:
        whereabouts.remember(run, data.split(), data.homes)
    run.write("environment.json", json.dumps(ran_on, indent=2))
    if probed:
        run.write("probe.json", json.dumps(probed.probe.to_dict(), indent=2))


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

    def end_epoch(self, report: EpochReport, is_best: bool) -> None:
        """What `Trainer` calls after each validation: keep the best weights, write, log and tell the figures."""
        new = [line for line in self.trainer.problems if line not in self._told]
        self._told.update(new)
        problems = self.trainer.team.gather_lines(new)  # of which each process meets its own
        if self.writer is None:
            return
        model, history = self.trainer.model, self.trainer.progress.history
        if is_best:
            self.writer.keep_model(model.state_dict(), self._card(report))
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


def finish(
    run: Run,
    config: Config,
    data: Dataset,
    device: torch.device,
    tell: Tell,
    outputs: torch.Tensor | None = None,
    familiarity: Familiarity | None = None,
    with_report: bool = True,
) -> None:
    """What a finished run leaves behind beside its weights: the best weights' predictions, the temperature that makes
    their probabilities honest, what tells strange images, and the report.

    `outputs` are those predictions `(N, K)`, where they are known already, as `familiarity` may be. Raises InputError
    for predictions that are no finite numbers.
    """
    from cnnzoo import calibrate  # SciPy takes half a second to import, which the first epoch need not wait for

    targets = torch.from_numpy(data.val.labels)
    if outputs is None:
        batches = assemble.val_batches(data, device, 256)
        outputs, targets = logits(zoo.load(run).to(device), batches)
        for line in batches.problems:
            tell(line)
    if lost := int((~outputs.isfinite()).any(1).sum()):
        why = f"to {counted(lost, 'held-out image')} the best net of {run.path} answers by no finite numbers"
        raise InputError(f"{why}; try more epochs, a lower optim.lr (a quarter, say), or train.precision fp32")
    if familiarity := familiarity or assemble.familiarity(zoo.load(run).to(device), data):
        run.save_familiarity(familiarity)
    run.amend_card(temperature=calibrate.fit_temperature(outputs.numpy(), targets.numpy()))
    run.save_predictions(outputs.numpy(), targets.numpy())  # with which it counts as finished
    report = ""
    if with_report:
        try:
            report = f"; report: {write_report(run, config, data)}"
        except (ImportError, OSError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            report = f"; the report could not be made ({quoted(error)}): cnnzoo report {as_typed(run.path)} tries again"
    top1 = (outputs.argmax(1) == targets).double().mean().item()
    told, last = f"{top1:.2%} of {counted(len(targets), 'held-out image')} right", run.metrics[-1]
    tell(f"best {told}, last {last['val_top1']:.2%}{report}" if last["epoch"] else f"{told}{report}")


def finish_snapshot(run: Run, number: int, epoch: int, config: Config, data: Dataset, device: torch.device) -> None:
    """Put beside a snapshot's weights what makes it a run folder, so that it predicts and joins a committee."""
    snapshot = run.snapshot(number)
    snapshot.write("config.yaml", config_.dump(replace(config, run=str(snapshot.path))))
    for name in ("split.json", "environment.json"):
        snapshot.write(name, (run.path / name).read_bytes())
    snapshot.write_metrics(report for report in run.metrics if report["epoch"] == epoch)
    finish(snapshot, config, data, device, silent, with_report=False)


def write_report(run: Run, config: Config, data: Dataset) -> Path:
    """(Re)make report.html from what the run folder holds and, for the pictures, its data."""
    from cnnzoo.report import page  # Matplotlib and scikit-learn take two seconds
    from cnnzoo.report.insight import Insight

    run.write("report.html", page.render(run, config, data.classes, data.val, Insight(run, data)))
    return run.report_file


def was_restarted(folder: Path) -> bool:
    """Whether torchrun started this process anew, after one of its team was lost or came back: then the run that its
    job had begun in the folder goes on by itself. A run of another job does not.

    Each machine counts only those restarts that its own processes made necessary, so that a job is known by its id.
    """
    job, there = environment.job(), Run(folder)
    if (there.path / "environment.json").exists():
        is_named = job not in ("", "none")  # as torch calls all jobs that were given no id
        return job is not None and there.environment.get("job") == job and (is_named or _restarts() > 0)
    return _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def begin(config: Config) -> Run:
    """A config's run to come. Raises InputError if there is something already, and among the photos to learn from,
    which it would not leave as they are; and for folders that no config.yaml can name.
    """
    for key, name in (("run", str(config.folder)), ("data.source", config.data.source)):
        if any("\ud800" <= letter <= "\udfff" for letter in name):  # what Python makes of bytes that it cannot decode
            known = sys.getfilesystemencoding()
            raise InputError(f"{key} is {printable(name)}, whose name is no {known}; rename it, or set PYTHONUTF8=1")
    sources.refuse_within(config.data, config.folder)
    return Run.new(config.folder)


def _open(
    config: Config | Mapping | str | Path | None, resume: str | Path | Run | None, tell: Tell
) -> tuple[Run, Config, dict | None]:
    """The folder, the complete config, and the state to go on from, where the run is not finished."""
    given = None if config is None else config_.read(config)
    if resume == "auto":
        folder = (given or Config()).folder
        resume = folder if (folder / "config.yaml").exists() else None
    if resume is None:
        given = given or Config()
        return begin(given), given, None
    run = Run.open(resume)
    own = config_.read(run.config_file)
    if given is not None and (changed := _differences(given, own, _moved(run, own.data, given.data))):
        raise InputError(
            f"{run.path} was begun with another config: {changed}; resume it as it was, or start a new run "
            f"by run=…, from these weights with model.pretrained {as_typed(run.path)}"
        )
    if run.is_finished:
        return run, given or own, None
    if not run.state_file.exists() and not run.state_before.exists():
        tell(f"{run.path} holds no checkpoint yet, so it starts from the beginning")
        return run, given or own, None
    state, wrong = run.load_state()
    if wrong:
        tell(wrong)
    if changed := _differences(own, config_.read(state["config"]), PLACES):
        raise InputError(
            f"{run.config_file} was changed since the run was begun: {changed}; change it back, or start a new run "
            f"by run=…, from these weights with model.pretrained {as_typed(run.path)}"
        )
    return run, given or own, state


def _moved(run: Run, own: DataConfig, given: DataConfig) -> Set[str]:
    """The keys that tell where a run's images lie, if they lie elsewhere now: where the config that is given says."""
    if (own.source, own.val_source) != (given.source, given.val_source) and whereabouts.renamed(run, own, given):
        return {"data.source", "data.val_source"}
    return frozenset()


def _differences(given: Config, own: Config, free: Set[str] = frozenset()) -> str:
    """The keys that make a run another one and in which two configs differ, but for those that are `free` to."""
    free = {"data.root", "data.workers", "data.bad_files"} | free
    own_affair = ("device", "checkpoint_minutes", "accumulate", "loggers", "on_divergence", "find_unused_parameters")
    free |= {f"train.{key}" for key in own_affair}
    here, there = _keys(given, free), _keys(own, free)
    return ", ".join(
        f"{key} is {there.get(key)} there and {here.get(key)} here"
        for key in here | there
        if here.get(key) != there.get(key)
    )


def _keys(config: Config, free: Set[str]) -> dict[str, object]:
    """A config's values by their keys, but for `run` and those that are `free` to differ."""
    sections = {name: values or {} for name, values in asdict(config).items() if name != "run"}
    keys = {f"{name}.{key}": value for name, values in sections.items() for key, value in values.items()}
    return {key: value for key, value in keys.items() if key not in free}


def _header(config: Config, model: nn.Module, data: Dataset, device: torch.device, team: Team) -> list[str]:
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


def _plan(trainer: Trainer, config: Config) -> list[str]:
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


def _pace(report: EpochReport, loader: float, config: Config) -> str:
    """Which is the bottleneck, data or net, and what to change where it is the data."""
    net = report.images_per_second / max(1 - report.waiting, 0.01)
    rates = f"the data alone comes at {loader:,.0f} images/s, the net alone takes {net:,.0f}"
    if report.waiting < rehearsal.BOTTLENECK:
        return f"{rates}: the net sets the pace"
    return f"{rates}: it waited for data {report.waiting:.0%} of the time: {rehearsal.loader_advice(config.data)}"


def describe(report: EpochReport, epochs: int) -> str:
    """A finished epoch in a line that can be read aloud."""
    if report.epoch == 0:
        return f"start  val loss {report.val_loss:.4f}  val top-1 {report.val_top1:.2%}  {report.seconds:.1f} s"
    return (
        f"epoch {report.epoch:>{len(str(epochs))}}/{epochs}  train loss {report.train_loss:.4f}  "
        f"val loss {report.val_loss:.4f}  val top-1 {report.val_top1:.2%}  "
        f"{report.images_per_second:,.0f} images/s  {report.seconds:.1f} s"
    )
