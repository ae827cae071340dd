"""The training loop, on one page. It sees modules, tensors and numbers, never an architecture's name.

    fit -> _train_epoch -> step

What changes the arithmetic of a step is a visible line in `step`; the one extension point is `on_epoch`.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from cnnzoo import bars, machine
from cnnzoo.config import PhaseConfig
from cnnzoo.device import autocast, device_of, is_out_of_memory
from cnnzoo.errors import InputError, Interrupted, counted
from cnnzoo.telling import Tell, silent
from cnnzoo.train import phases as phases_
from cnnzoo.train.buffers import SavedBuffers
from cnnzoo.train.distributed import Team, gathers_gradients
from cnnzoo.train.divergence import Diverged, LastGood, not_finite
from cnnzoo.train.ema import EMA, fitted_decay
from cnnzoo.train.pace import Pace
from cnnzoo.train.schedule import Schedule
from cnnzoo.train.validation import evaluate

LEAST_SCALE = 1e-4  # of fp16's losses, halved at each step whose gradient is not finite; fairseq gives up there


@dataclass(frozen=True)
class EpochReport:
    """One line of metrics.jsonl."""

    epoch: int  # from 1; 0 is what the head knew before the first step, where a probe found it
    train_loss: float  # mean over the epoch's batches, with label smoothing and auxiliary heads as trained
    val_loss: float  # plain cross-entropy, exact mean over all validation images
    val_top1: float  # as a fraction
    lr: float  # the highest learning rate in the epoch's last step
    seconds: float  # of training, without the validation
    images_per_second: float
    waiting: float = 0.0  # share of those seconds in which there was no batch yet


class Batches(Protocol):
    """What epochs are made of."""

    batch_size: int

    def __len__(self) -> int: ...  # steps in an epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The epoch's images `(B, C, H, W)`, or features `(B, D)`, and targets, from step `start` on."""
        ...


@dataclass(frozen=True)
class Feed:
    """What a phase trains on."""

    batches: Batches
    val_batches: Iterable[tuple[Tensor, Tensor]]  # each validation image once
    forward: Callable[[Tensor], Tensor]  # images to outputs in training
    judged: nn.Module  # images to logits in validation


@dataclass
class Progress:
    """What must survive an interruption, beside the weights and the optimiser's state."""

    epoch: int = 0  # epochs finished
    step: int = 0  # steps finished in the epoch under way
    loss_sum: float = 0.0  # over those steps
    seconds: float = 0.0  # spent on those steps
    waiting: float = 0.0  # seconds of these in which there was no batch yet
    history: list[dict] = field(default_factory=list)  # an EpochReport for each finished epoch
    lengths: list[int] = field(default_factory=list)  # of the phases, in epochs, which an early stop shortens
    rate: float = 1.0  # factor on every rate; halved whenever the run had to go back
    spent: float = 0.0  # seconds of training and validation, until this was saved

    @property
    def best(self) -> dict | None:
        """The report of the epoch with the highest accuracy; of equals, the first."""
        return max(self.history, key=lambda report: report["val_top1"], default=None)


class Trainer:
    """Trains a model. Everything it needs is handed to it, finished.

    Args:
        model: the net, on its device.
        loss: `(outputs, targets, images) -> scalar`.
        optimizer: with groups that bear the key "stage"; None where there are no phases.
        batches: to train on.
        val_batches: iterable of (images, targets), each validation image once.
        phases: what moves when, see phases.py.
        stages: stage name -> names of its parameters, input to output.
        make_schedule: `(optimizer, epochs, steps_per_epoch) -> Schedule`, called at the start of each phase.
        lr: the highest rate.
        precision: fp32, bf16 or fp16.
        channels_last: memory format of images and weights.
        accumulate: parts into which a batch is split; where memory does not suffice, twice as many are tried.
        clip_norm: largest norm of the gradient, or None.
        ema: decay of the average of the weights that is judged and kept; "auto" fits it to the run; None: none.
        rolls_back: whether a run that diverges goes back to its last state, at half the rate, rather than stopping.
        seed: of dropout.
        compiled: the function that runs the model in training; None is the model itself.
        make_head_feed: `() -> Feed`, called at the start of a phase in which the head alone moves; returns what that
            phase trains on. None: the same images as in all phases.
        start: what the model knows already, as epoch 0.
        keep_statistics: BatchNorm keeps its statistics, also in stages that move.
        patience: epochs of a phase without a better accuracy after which it ends; None never.
        limit: seconds, after which no epoch begins that would go beyond them; None: no limit.
        team: the processes that train together.
        find_unused: whether some steps leave parameters out, for whose gradients a team must not wait.
        save: `(state) -> None`, called at the end of each epoch, every `save_minutes` within one, and before stopping.
        on_epoch: `(report, is_best) -> None`, called after each epoch's validation and before its save, while the model
            has the weights that were judged.
        should_stop: asked after each step.
        tell: is given a line for a person where something had to change.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        batches: Batches,
        val_batches: Iterable[tuple[Tensor, Tensor]],
        *,
        phases: Sequence[PhaseConfig],
        stages: dict[str, list[str]],
        make_schedule: Callable[[torch.optim.Optimizer, int, int], Schedule],
        lr: float,
        precision: str = "fp32",
        channels_last: bool = False,
        accumulate: int = 1,
        clip_norm: float | None = None,
        ema: float | str | None = None,
        rolls_back: bool = False,
        seed: int = 0,
        compiled: Callable | None = None,
        make_head_feed: Callable[[], Feed] | None = None,
        start: EpochReport | None = None,
        keep_statistics: bool = False,
        patience: int | None = None,
        limit: float | None = None,
        team: Team | None = None,
        find_unused: bool = False,
        save: Callable[[dict], None] = lambda state: None,
        save_minutes: float = 1.0,
        on_epoch: Callable[[EpochReport, bool], None] = lambda report, is_best: None,
        should_stop: Callable[[], bool] = lambda: False,
        tell: Tell = silent,
        show_progress: bool = True,
    ):
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.phases, self.stages, self.make_schedule, self.lr = list(phases), stages, make_schedule, lr
        self.device = device_of(model)
        self.precision, self.channels_last = precision, channels_last
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.accumulate, self.clip_norm, self.seed = accumulate, clip_norm, seed
        self.feed = self.image_feed = Feed(batches, val_batches, model if compiled is None else compiled, model)
        self.make_head_feed, self.keep_statistics = make_head_feed, keep_statistics
        self.patience, self.limit = patience, limit
        self.team, self.find_unused = team or Team(), find_unused
        self.save, self.save_minutes = save, save_minutes
        self.on_epoch, self.should_stop, self.tell, self.show_progress = on_epoch, should_stop, tell, show_progress
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        lengths = [phase.epochs for phase in self.phases]
        self.progress = Progress(history=[asdict(start)] if start else [], lengths=lengths)
        self.schedule: Schedule | None = None
        self.rate = lr  # of the latest step, of the fastest group
        self.frozen: list[nn.Module] = []
        self.forward = self.feed.forward
        if channels_last:
            model.to(memory_format=torch.channels_last)
        steps = self.epochs * len(batches)
        self.ema = None if ema is None else EMA(model, fitted_decay(steps) if ema == "auto" else ema)
        self._saved_buffers = SavedBuffers(model)
        self._last_good = LastGood(rolls_back)

    @property
    def epochs(self) -> int:
        """The length of all phases together."""
        return sum(self.progress.lengths)

    def fit(self, state: dict | None = None) -> Progress:
        """Train from the start, or from a state that `save` was given, to the end of the last phase.

        Raises Interrupted after saving when `should_stop` says so, and InputError where the run diverges.
        """
        if not self.phases:
            return self.progress
        if state is not None:
            self._load(state)
        self._last_good.remember(state or self.state(), is_saved=state is not None)
        self._started = time.perf_counter() - self.progress.spent
        with machine.tuned(self.device):
            while self.progress.epoch < self.epochs:
                begun = time.perf_counter()
                self._go_on_in_phase(state)
                state = None
                try:
                    report = self._train_epoch()
                except Diverged as trouble:
                    state = self._go_back(trouble)
                    continue
                with self.ema.shown() if self.ema else nullcontext():
                    report = self._judge(report)
                    self.schedule.end_epoch(report.val_loss)
                    self.progress.history.append(asdict(report))
                    self.progress.epoch += 1
                    self._begin_epoch()
                    now = time.perf_counter()
                    self._end_early(spent=now - self._started, next_takes=max(now - begun, report.seconds))
                    self.on_epoch(report, self.progress.best["epoch"] == report.epoch)
                self._save()
                # An epoch may have ended before anyone asked within it.
                if self.progress.epoch < self.epochs and self.team.any(self.should_stop())[0]:
                    raise Interrupted
        return self.progress

    def _begin_epoch(self) -> None:
        progress = self.progress
        progress.step, progress.loss_sum, progress.seconds, progress.waiting = 0, 0.0, 0.0, 0.0

    def _end_early(self, spent: float, next_takes: float) -> None:
        """End the phase where its last `patience` epochs were no better than the best before them, and the whole run
        where another epoch would go beyond the `limit` of seconds.

        A phase is ended by making its length the epochs that it has had.
        """
        lengths, epoch = self.progress.lengths, self.progress.epoch
        number, start = phases_.number_at(lengths, epoch - 1)
        own = [report["val_top1"] for report in self.progress.history if report["epoch"] > start]
        if self.patience and len(own) > self.patience and max(own[-self.patience :]) <= max(own[: -self.patience]):
            if len(own) < lengths[number]:
                told = f"no better for {counted(self.patience, 'epoch')} (train.patience): "
                self.tell(f"{told}the phase ends after {len(own)} of {lengths[number]}")
            lengths[number] = len(own)
        late = self.limit is not None and spent + next_takes > self.limit
        if epoch < self.epochs and self.team.any(late)[0]:
            self.tell(f"another epoch would go beyond train.minutes: it ends after {epoch} of {self.epochs}")
            lengths[number:] = [epoch - start] + [0] * (len(lengths) - number - 1)

    def _go_on_in_phase(self, state: dict | None) -> None:
        """Enter the phase of the coming epoch, unless it is under way. `state` is what the run goes on from, if the
        epoch is the first after that was loaded.
        """
        number, start = phases_.number_at(self.progress.lengths, self.progress.epoch)
        if self.schedule is not None and self.progress.epoch > start and state is None:
            return
        saved = [group["lr"] for group in self.optimizer.param_groups]  # which entering sets to the phase's first ones
        self.enter_phase(number)
        if state is not None and (self.progress.epoch > start or self.progress.step > 0):
            self.schedule.load_state_dict(state["schedule"])
            slower = self.progress.rate / state["progress"]["rate"]  # 1/2 where it had to go back to the state
            for group, lr in zip(self.optimizer.param_groups, saved, strict=True):
                group["lr"] = lr * slower

    def enter_phase(self, number: int) -> None:
        """Freeze and thaw as the phase of that number (from 0) does, and set up what it trains on and its schedule."""
        phase, rate = self.phases[number], self.lr * self.progress.rate
        self.frozen = phases_.enter(phase, self.model, self.stages, self.optimizer, rate, self.keep_statistics)
        self.feed = self.make_head_feed() if self.takes_features(number) else self.image_feed
        self.forward = self.team.wrap(self.feed.judged, self.feed.forward, self.find_unused)
        self.schedule = self.make_schedule(self.optimizer, phase.epochs, len(self.feed.batches))

    def to_train_mode(self) -> None:
        """Put the net in train mode, but for what the phase has frozen, which keeps its statistics."""
        self.model.train()
        for module in self.frozen:
            module.eval()

    def takes_features(self, number: int) -> bool:
        """Whether the features that a phase's head learns from can be computed once, as nothing before the head moves.
        With a moving average nothing before it may have moved earlier either, for the average follows the weights
        for some time after they are frozen.
        """
        since = self.phases[0 if self.ema else number : number + 1]
        return bool(self.make_head_feed) and all(phases_.moves_head_alone(phase, self.stages) for phase in since)

    def _train_epoch(self) -> EpochReport:
        """An epoch's steps, or what is left of them. The report lacks the validation."""
        progress, feed, steps = self.progress, self.feed, len(self.feed.batches)
        self.to_train_mode()
        unread: list[tuple[Tensor, float]] = []  # losses still on the device, where reading one waits, and rates
        seconds, started, pace = progress.seconds, time.perf_counter(), Pace(self.team, self.save_minutes)
        title = f"epoch {progress.epoch + 1}/{self.epochs}"
        hidden = not (self.show_progress and self.team.is_first)
        with bars.show(total=steps, initial=progress.step, desc=title, hidden=hidden) as bar:
            for images, targets in self._timed(feed.batches.epoch(progress.epoch, progress.step)):
                unread.append((self.step(images, targets), self.rate))
                progress.step += 1
                stop, last = self.should_stop(), progress.step == steps
                due, save = pace.step(stop)
                if due or last:
                    stop, save = self._sync(unread, stop, save, last)
                    pace.sync()
                    bar.set_postfix(loss=f"{progress.loss_sum / progress.step:.4f}", refresh=False)
                    bar.update(progress.step - bar.n)
                    if (stop or save) and not last:
                        progress.seconds = seconds + time.perf_counter() - started
                        self._save()
                        pace.save()
                        if stop:
                            raise Interrupted
        progress.seconds = seconds + time.perf_counter() - started
        return EpochReport(
            epoch=progress.epoch + 1,
            train_loss=progress.loss_sum / steps,
            val_loss=math.nan,
            val_top1=math.nan,
            lr=self.rate,
            seconds=progress.seconds,
            images_per_second=steps * feed.batches.batch_size / progress.seconds,
            waiting=progress.waiting / progress.seconds,
        )

    def _judge(self, report: EpochReport) -> EpochReport:
        """The report with the validation."""
        feed = self.feed
        judged = evaluate(feed.judged, feed.val_batches, self.precision, self.channels_last, self.team.gather)
        return replace(report, val_loss=judged[0], val_top1=judged[1])

    def _timed(self, batches: Iterator) -> Iterator:
        """The batches, while the time that each is waited for is added to `progress.waiting`."""
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self.progress.waiting += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    def step(self, images: Tensor, targets: Tensor) -> Tensor:
        """One step of the optimiser on images `(B, C, H, W)`, or features `(B, D)`, and targets `(B,)` int64, or shares
        `(B, K)`; returns their mean loss, a scalar on the device.
        """
        if images.ndim == 4:
            images = images.contiguous(memory_format=self.layout)
        total = self._accumulate_gradients(images, targets)
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        try:
            self.scaler.step(self.optimizer)
        except (RuntimeError, MemoryError) as error:  # its state, which the first step makes, is half made
            if not is_out_of_memory(error):
                raise
            what = "out of memory for what the optimiser keeps of each weight"
            raise InputError(f"{what}; take a smaller net, or optim.name sgd") from None
        self.scaler.update()
        self.rate = self._fastest()
        self.schedule.step()
        if self.ema:
            self.ema.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def _accumulate_gradients(self, images: Tensor, targets: Tensor) -> Tensor:
        """Forward and backward, in as many parts as memory makes necessary; returns the mean loss."""
        self._saved_buffers.save()
        while True:
            self._seed_dropout()
            total = None
            try:
                parts, left = [(images, targets)], len(images)
                if self.accumulate > 1:
                    parts = zip(images.chunk(self.accumulate), targets.chunk(self.accumulate), strict=True)
                for part, part_targets in parts:
                    left -= len(part)
                    with gathers_gradients(self.forward, last=left == 0):
                        with autocast(self.device, self.precision):
                            outputs = self.forward(part)
                        loss = self.loss(outputs, part_targets, part)
                        if self.accumulate > 1:
                            loss = loss * (len(part) / len(images))
                        self.scaler.scale(loss).backward()
                    total = loss.detach() if total is None else total + loss.detach()
                    if left and self.feed.forward is not self.feed.judged:  # for a CUDA graph writes over its gradients
                        for weight in self.model.parameters():
                            weight.grad = None if weight.grad is None else weight.grad.clone()
                return total
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                what = f"BatchNorm is given a single number of each channel, of {counted(len(part), 'image')} at once"
                more = "a larger train.batch_size, a smaller train.accumulate, larger images"
                raise InputError(f"{what}; take {more}, or train.batch_norm keep") from None
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            outputs = loss = total = None  # or they would hold what is to be freed
            self._split_further(len(images))

    def _split_further(self, many: int) -> None:
        """Halve the images that go through the net at once, or raise InputError where that cannot be."""
        self.optimizer.zero_grad(set_to_none=True)
        self._saved_buffers.restore()  # which the layers that memory sufficed for have moved
        before = -(-many // self.accumulate)
        what = f"out of memory with {counted(before, 'image')} at once"
        if self.team.size > 1:  # the others are waiting for gradients by now
            raise InputError(f"{what}; set train.accumulate {2 * self.accumulate} and go on by resume='auto'")
        if before == 1:
            raise InputError(f"{what}; set train.grad_checkpointing true, or take a smaller net or smaller images")
        machine.give_back(self.device)
        self.accumulate = min(2 * self.accumulate, many)
        self.tell(f"{what}: from here {-(-many // self.accumulate):,} at once; a step still sees {many:,}")

    def _seed_dropout(self) -> None:
        """Seed dropout by the place of the step, so that no step depends on what ran before it. torch.manual_seed
        would do, but formats three stack traces where there is no GPU.
        """
        place = (self.seed, self.progress.epoch, self.progress.step)
        seed = hash((*place, self.team.rank) if self.team.rank else place) % 2**63
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def _sync(self, unread: list[tuple[Tensor, float]], stop: bool, save: bool, last: bool) -> tuple[bool, bool]:
        """Read the losses of the latest steps from the device, and agree with the team on whether to stop and to save.

        Raises Diverged if any process has found a number that is not finite.
        """
        losses, rates = torch.stack([loss for loss, _ in unread]).cpu(), [rate for _, rate in unread]
        unread.clear()
        self.team.average(self._own_statistics())
        total = losses.double().sum().item()
        lost = ""
        if not math.isfinite(total):
            first = int((~torch.isfinite(losses)).nonzero()[0])
            step = self.progress.step - len(losses) + first + 1
            lost = f"the loss is {losses[first].item()} at {self._place(step, rates[first])}"
        elif self.scaler.get_scale() < LEAST_SCALE:
            lost = f"in fp16 the gradient is finite at no scale, up to {self._place(self.progress.step, self.rate)}"
        elif (stop or save or last) and (what := not_finite(self.model)):
            lost = f"{what} is not finite after {self._place(self.progress.step, self.rate)}"
        stop, save, diverged = self.team.any(stop, save, bool(lost))
        if diverged:
            here = self._place(self.progress.step, self.rate)
            raise Diverged(lost or f"another process diverged before {here}")
        self.progress.loss_sum += self.team.mean(total)  # as each of them goes on from the state of the first
        return stop, save

    def _own_statistics(self) -> list[Tensor]:
        """What each process gathers from its own share: BatchNorm's statistics, and the average's."""
        own = [buffer for buffer in self.model.buffers() if buffer.is_floating_point()]
        return own + (self.ema.statistics if self.ema else [])

    def _place(self, step: int, rate: float) -> str:
        return f"epoch {self.progress.epoch + 1}, step {step}, rate {rate:.3g}"

    def _fastest(self) -> float:
        """The rate of the fastest group that moves."""
        moving = (group for group in self.optimizer.param_groups if any(p.requires_grad for p in group["params"]))
        return max(group["lr"] for group in moving)

    def _go_back(self, trouble: Diverged) -> dict:
        """The last good state, loaded, at half the rate. Raises InputError if that is not wished, or in vain."""
        state, rate = self._last_good.after(trouble, self.progress.rate)
        self._load(state)
        self.progress.rate = rate
        where = f"epoch {self.progress.epoch + 1}, step {self.progress.step}"
        self.tell(f"{trouble}; back to {where}, and on at {rate:g} times the rate")
        return state

    def _save(self) -> None:
        self.progress.spent = time.perf_counter() - self._started
        state = self.state()
        self.save(state)
        judged = self.progress.history[-1:]
        if all(math.isfinite(report["val_loss"]) for report in judged):  # else the weights, though numbers, overflow it
            self._last_good.remember(state)

    @property
    def problems(self) -> list[str]:
        """A line for each image, of training and validation, that could not be read any more."""
        feed = self.image_feed
        return [line for part in (feed.batches, feed.val_batches) for line in getattr(part, "problems", [])]

    def state(self) -> dict:
        """Everything that resuming needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else None,
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "progress": asdict(self.progress),
        }

    def _load(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for weight, own in self.optimizer.state.items():  # fused kernels go wrong where it lies otherwise in memory
            for key, value in own.items():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    own[key] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
        self.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        self.progress = Progress(**state["progress"])
        phases_.check_lengths(self.phases, self.progress.lengths, self.progress.epoch)
