"""THE PAGE: config -> data -> model -> trainer -> run folder -> report. Read `train`, `carry_out`, `_learn`."""

import copy
import gc
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from cnnzoo import assemble, environment, machine, opening, probing, recording, whereabouts, zoo
from cnnzoo import config as config_
from cnnzoo.checkpoint import Run, Writer
from cnnzoo.config import Config, Overrides
from cnnzoo.data import sources
from cnnzoo.data.sources import Dataset
from cnnzoo.device import autocast, is_out_of_memory
from cnnzoo.errors import InputError, Interrupted, counted, quoted
from cnnzoo.familiar import Familiarity
from cnnzoo.signals import heard
from cnnzoo.telling import Tell, as_typed, silent
from cnnzoo.train import distributed
from cnnzoo.train.distributed import Team
from cnnzoo.train.validation import logits


def train(
    config: Config | Mapping | str | Path | None = None,
    *,
    overrides: Overrides = (),
    resume: str | Path | Run | None = None,
    data: Dataset | None = None,
    split: whereabouts.Names | None = None,
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
        split: the names of the images to train on ("train") and to judge by ("val") in a run that begins, as in a
            run's split.json; else the config divides what its source holds.
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
    run, config, state = opening.open_(config, resume, tell, has_images=data is not None)
    if run.is_finished:
        if distributed.size() > 1:  # others, with a disk of their own, may find nothing there
            with distributed.joined(config.train.device) as (team, _):
                team.expect_alike({opening.CHECKPOINT: "of a finished run"})
        _ = run.card  # complains if its weights are damaged
        lacks = with_report and config.ensemble is None and not run.report_file.exists()  # killed as it was drawn, say
        follows = distributed.size() == 1 and whereabouts.follow(run, config.data, tell)
        stays = "otherwise stays" if follows else "stays"
        way = f"; it lacks its report, which cnnzoo report {as_typed(run.path)} makes" if lacks else ""
        tell(f"{run.path} is finished, and {stays} as it is{way}")
        return run
    if config.ensemble is not None:
        raise InputError("this is the config of a committee, which cnnzoo.combine makes, or cnnzoo ensemble")
    options = {"with_report": with_report, "tell": tell, "should_stop": should_stop}
    carry_out(run, config, state, data=data, split=split, **options)
    return run


def carry_out(
    run: Run,
    config: Config,
    state: dict | None = None,
    *,
    data: Dataset | None = None,
    split: whereabouts.Names | None = None,
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
            team.expect_alike(opening.alike(config, state))
            data = _load_data(job, split) if data is None else data
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


def _load_data(job: _Job, split: whereabouts.Names | None = None) -> Dataset:
    """The images, split as before in a run that goes on; in a new one as given, else by the config, and what looks
    doubtful about them is told.
    """
    run, config = job.run, job.config
    if job.is_resumed:
        split = whereabouts.renamed(run, config_.read(run.config_file).data, config.data) or run.split
        if split != run.split:
            job.tell(f"{config.data.source} holds the images of {run.path}: it goes on with them")
    with job.team.one_after_another():
        assemble.make_weights_ready(config)
        if split is None or job.is_resumed:
            data = assemble.load_data(config, split)
        else:  # which is not drawn yet
            undrawn = replace(config, data=replace(config.data, bag=None, weights=None))
            data = sources.drawn(assemble.load_data(undrawn, split), config.data)
    if job.team.is_first and not job.is_resumed:
        for line in assemble.doubts(config.data.source):
            job.tell(line)
    return data


def _learn(job: _Job, data: Dataset, probed: probing.Probed | None = None) -> probing.Probed | None:
    """Train to the end of the last epoch. Returns what a probe has found out, where the net is still as it was then."""
    run, config, team, device, tell = job.run, job.config, job.team, job.device, job.tell
    model = assemble.build_model(config, data).to(device)
    for line in (*recording.header(config, model, data, device, team), *data.notes):
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
    for line in recording.plan(trainer, config):
        tell(line)
    recorder = recording.Recorder(run, config, data, trainer, writer, tell)
    trainer.on_epoch = recorder.end_epoch
    if trainer.phases and not job.is_resumed:
        recorder.time_the_loader()
    if probed:
        recorder.end_epoch(probed.report, is_best=True, temperature=_temperature(probed.outputs, data))
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
        whereabouts.write_place(run, job.config.data, data.split())
    else:
        run.write("config.yaml", config_.dump(job.config))  # first, since it makes the folder one to resume
        whereabouts.remember(run, data.split(), data.homes)
    run.write("environment.json", json.dumps(ran_on, indent=2))
    if probed:
        run.write("probe.json", json.dumps(probed.probe.to_dict(), indent=2))


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
    temperature = _temperature(outputs, data)
    if run.card.get("temperature") != temperature:  # else all weights would be written once more
        run.amend_card(temperature=temperature)
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


def _temperature(outputs: torch.Tensor, data: Dataset) -> float:
    """That which makes the probabilities of the validation images honest."""
    from cnnzoo import calibrate  # SciPy takes half a second to import, which the first epoch need not wait for

    return calibrate.fit_temperature(outputs.numpy(), data.val.labels)


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

    insight = Insight(run, data, config.train.precision)
    run.write("report.html", page.render(run, config, data.classes, data.val, insight))
    return run.report_file
