"""The training loop, on one page. It sees modules, tensors and numbers, never an architecture's name.

    fit -> _train_epoch -> _step

What changes the arithmetic of a step is a visible line in `_step`; the one extension point is `on_epoch`.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cnnzoo.errors import InputError, Interrupted
from cnnzoo.train import phases as phases_
from cnnzoo.train.schedule import Schedule
from cnnzoo.train.validation import autocast, evaluate


@dataclass(frozen=True)
class EpochReport:
    """One line of metrics.jsonl."""

    epoch: int  # from 1; 0 is what the head knew before the first step, where a probe found it
    train_loss: float  # mean over the epoch's batches, with label smoothing and auxiliary heads as trained
    val_loss: float  # plain cross-entropy, exact mean over all validation images
    val_top1: float  # as a fraction
    lr: float  # the rate of the epoch's last step, of the fastest group
    seconds: float  # of training, without the validation
    images_per_second: float


@dataclass(frozen=True)
class Feed:
    """What a phase trains on."""

    batches: object  # has `len()` in steps, `batch_size`, and `epoch(number, start) -> iterator of (images, targets)`
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
    history: list[dict] = field(default_factory=list)  # an EpochReport for each finished epoch
    lengths: list[int] = field(default_factory=list)  # of the phases, in epochs; early stopping shortens them

    @property
    def best(self) -> dict | None:
        """The report of the epoch with the highest accuracy; of equals, the first."""
        return max(self.history, key=lambda report: report["val_top1"], default=None)


class Trainer:
    """Trains a model. Everything it needs is handed to it, finished.

    Args:
        model: the net, on its device.
        loss: `(outputs, targets) -> scalar`.
        optimizer: with groups that bear the key "stage".
        batches: has `len()` in steps, `batch_size`, and `epoch(number, start) -> iterator of (images, targets)`.
        val_batches: iterable of (images, targets), each validation image once.
        phases: what moves when, see phases.py.
        stages: stage name -> names of its parameters, input to output.
        make_schedule: `(optimizer, epochs, steps_per_epoch) -> Schedule`, called at the start of each phase.
        lr: the highest rate.
        precision: fp32, bf16 or fp16.
        channels_last: memory format of images and weights.
        accumulate: parts into which a batch is split.
        clip_norm: largest norm of the gradient, or None.
        seed: of dropout.
        compiled: the function that runs the model in training; None is the model itself.
        make_head_feed: `() -> Feed`, called at the start of a phase in which the head alone moves, for what it trains
            on; None is what all phases do.
        start: what the model knows already, as epoch 0.
        keep_statistics: BatchNorm keeps its statistics, also in stages that move.
        patience: epochs of a phase without a better accuracy after which it ends; None never.
        save: `(state) -> None`, called at the end of each epoch, every `save_minutes` within one, and before stopping.
        on_epoch: `(report, is_best) -> None`, called after each epoch's validation and before its save.
        should_stop: asked after each step.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches,
        val_batches: Iterable[tuple[Tensor, Tensor]],
        *,
        phases: Sequence[phases_.Phase],
        stages: dict[str, list[str]],
        make_schedule: Callable[[torch.optim.Optimizer, int, int], Schedule],
        lr: float,
        precision: str = "fp32",
        channels_last: bool = False,
        accumulate: int = 1,
        clip_norm: float | None = None,
        seed: int = 0,
        compiled: Callable | None = None,
        make_head_feed: Callable[[], Feed] | None = None,
        start: EpochReport | None = None,
        keep_statistics: bool = False,
        patience: int | None = None,
        save: Callable[[dict], None] = lambda state: None,
        save_minutes: float = 5.0,
        on_epoch: Callable[[EpochReport, bool], None] = lambda report, is_best: None,
        should_stop: Callable[[], bool] = lambda: False,
        show_progress: bool = True,
    ):
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.phases, self.stages, self.make_schedule, self.lr = list(phases), stages, make_schedule, lr
        self.device = next(model.parameters()).device
        self.precision, self.channels_last = precision, channels_last
        self.accumulate, self.clip_norm, self.seed = accumulate, clip_norm, seed
        self.feed = self.image_feed = Feed(batches, val_batches, compiled or model, model)
        self.make_head_feed, self.keep_statistics, self.patience = make_head_feed, keep_statistics, patience
        self.save, self.save_minutes = save, save_minutes
        self.on_epoch, self.should_stop, self.show_progress = on_epoch, should_stop, show_progress
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.progress = Progress(history=[asdict(start)] if start else [])
        self.schedule: Schedule | None = None
        self.frozen: list[nn.Module] = []
        if channels_last:
            model.to(memory_format=torch.channels_last)

    def fit(self, state: dict | None = None) -> Progress:
        """Train from the start, or from a state that `save` was given, to the end of the last phase.

        Raises Interrupted after saving when `should_stop` says so, and InputError at a non-finite loss.
        """
        if state is not None:
            self._load(state)
        while self.progress.epoch < sum(phase.epochs for phase in self.phases):
            self._enter_phase(state)
            state = None
            report = self._train_epoch()
            self.schedule.end_epoch(report.val_loss)
            self.progress.history.append(asdict(report))
            self.progress.epoch += 1
            self.progress.step, self.progress.loss_sum, self.progress.seconds = 0, 0.0, 0.0
            self._end_phase_early()
            self.on_epoch(report, self.progress.best["epoch"] == report.epoch)
            self.save(self.state())
        return self.progress

    def _end_phase_early(self) -> None:
        """Where `patience` epochs of this phase brought no better accuracy than the best before them."""
        number, start = phases_.number_at(self.phases, self.progress.epoch - 1)
        own = [report["val_top1"] for report in self.progress.history if report["epoch"] > start]
        if self.patience and len(own) > self.patience and max(own[-self.patience :]) <= max(own[: -self.patience]):
            self.phases[number] = replace(self.phases[number], epochs=len(own))

    def _enter_phase(self, state: dict | None) -> None:
        """At the first epoch of a phase, and after resuming within one, freeze, thaw, and set up the schedule."""
        phase, start = phases_.at(self.phases, self.progress.epoch)
        if self.schedule is not None and self.progress.epoch > start:
            return
        resumed = [group["lr"] for group in self.optimizer.param_groups]
        self.frozen = phases_.enter(phase, self.model, self.stages, self.optimizer, self.lr, self.keep_statistics)
        head_alone = phases_.moves_head_alone(phase, self.stages)
        self.feed = self.make_head_feed() if self.make_head_feed and head_alone else self.image_feed
        self.schedule = self.make_schedule(self.optimizer, phase.epochs, len(self.feed.batches))
        if state is not None and (self.progress.epoch > start or self.progress.step > 0):
            self.schedule.load_state_dict(state["schedule"])
            for group, lr in zip(self.optimizer.param_groups, resumed, strict=True):
                group["lr"] = lr

    def _train_epoch(self) -> EpochReport:
        progress, feed, steps = self.progress, self.feed, len(self.feed.batches)
        self.model.train()
        for module in self.frozen:
            module.eval()
        unread: list[Tensor] = []  # losses still on the device, where reading one waits for its step
        loss_sum, seconds, started = progress.loss_sum, progress.seconds, time.perf_counter()
        saved = shown = time.monotonic()
        total = sum(phase.epochs for phase in self.phases)
        title = f"epoch {progress.epoch + 1}/{total}"
        hide = None if self.show_progress else True  # None: unless it is a terminal
        with tqdm(total=steps, initial=progress.step, desc=title, leave=False, disable=hide) as bar:
            for images, targets in feed.batches.epoch(progress.epoch, progress.step):
                unread.append(self._step(images, targets))
                progress.step += 1
                now, stop = time.monotonic(), self.should_stop()
                save = now - saved >= 60 * self.save_minutes
                if now - shown >= 0.25 or stop or save or progress.step == steps:
                    loss_sum += self._read(unread)
                    bar.set_postfix(loss=f"{loss_sum / progress.step:.4f}", refresh=False)
                    bar.update(len(unread))
                    unread.clear()
                    shown = now
                if (stop or save) and progress.step < steps:
                    progress.loss_sum, progress.seconds = loss_sum, seconds + time.perf_counter() - started
                    self.save(self.state())
                    saved = now
                    if stop:
                        raise Interrupted
        seconds += time.perf_counter() - started
        val_loss, val_top1 = evaluate(feed.judged, feed.val_batches, self.precision, self.channels_last)
        return EpochReport(
            epoch=progress.epoch + 1,
            train_loss=loss_sum / steps,
            val_loss=val_loss,
            val_top1=val_top1,
            lr=max(group["lr"] for group in self.optimizer.param_groups),
            seconds=seconds,
            images_per_second=steps * feed.batches.batch_size / seconds,
        )

    def _step(self, images: Tensor, targets: Tensor) -> Tensor:
        """One step of the optimiser; returns the batch's mean loss, on the device."""
        self._seed_dropout(hash((self.seed, self.progress.epoch, self.progress.step)) % 2**63)
        if self.channels_last and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        total = 0.0
        for part, part_targets in zip(images.chunk(self.accumulate), targets.chunk(self.accumulate), strict=True):
            with autocast(self.device, self.precision):
                outputs = self.feed.forward(part)
            loss = self.loss(outputs, part_targets)
            if self.accumulate > 1:
                loss = loss * (len(part) / len(images))
            self.scaler.scale(loss).backward()
            total = total + loss.detach()
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def _seed_dropout(self, seed: int) -> None:
        """For this step alone. torch.manual_seed would do, but formats three stack traces where there is no GPU."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def _read(self, unread: list[Tensor]) -> float:
        """The sum of the latest steps' losses, or InputError at the first that is not finite."""
        losses = torch.stack(unread).cpu()
        total = losses.double().sum().item()
        if not math.isfinite(total):
            first = int((~torch.isfinite(losses)).nonzero()[0])
            step = self.progress.step - len(unread) + first + 1
            rate = max(group["lr"] for group in self.optimizer.param_groups)
            raise InputError(
                f"the loss is {losses[first].item()} at epoch {self.progress.epoch + 1}, step {step}, rate {rate:.3g}; "
                f"the last good state is kept; "
                f"try a lower optim.lr (a quarter, say), schedule.warmup_epochs or optim.clip_norm"
            )
        return total

    def state(self) -> dict:
        """Everything that resuming needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress) | {"lengths": [phase.epochs for phase in self.phases]},
        }

    def _load(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        lengths = self.progress.lengths or [phase.epochs for phase in self.phases]  # older states do not tell
        self.phases = [replace(phase, epochs=epochs) for phase, epochs in zip(self.phases, lengths, strict=True)]
