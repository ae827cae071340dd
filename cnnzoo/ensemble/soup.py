"""Model soups: the mean of several nets' weights, which is one net, and as fast as any of them.

M. Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", ICML 2022, arXiv 2203.05482: section 2, and recipe 1 for the greedy soup. It works among nets that were
fine-tuned from the same weights, and so lie in one basin of the loss.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from cnnzoo import assemble, bars, environment, opening, whereabouts, zoo
from cnnzoo import config as config_
from cnnzoo import run as run_
from cnnzoo.checkpoint import Run
from cnnzoo.config import EnsembleConfig
from cnnzoo.device import pick_device
from cnnzoo.ensemble.members import panel
from cnnzoo.errors import InputError, unknown
from cnnzoo.shown import Shown, Table
from cnnzoo.telling import Tell
from cnnzoo.train.validation import logits

METHODS = ("greedy", "uniform")
BARRIER = 0.02  # of accuracy; J. Frankle, G. Dziugaite, D. Roy, M. Carbin 2020, arXiv 1912.05671, section 2
ALIKE = {  # of the members' cards, in words
    "name": "net",
    "args": "model.args",
    "in_chans": "number of channels",
    "head": "kind of head",
    "preprocess": "preprocessing",
}

State = dict[str, Tensor]


@dataclass(frozen=True)
class Ingredient:
    """A member, and what became of it."""

    run: str
    top1: float  # alone, on the validation images
    barrier: float | None  # by how much accuracy is below the mean of its own and the best member's, halfway between
    taken: bool


@dataclass(frozen=True)
class Soup(Shown):
    """What was averaged, and what came of it."""

    method: str
    ingredients: tuple[Ingredient, ...]  # the best first
    top1: float  # on the validation images
    statistics: bool  # whether BatchNorm's were computed anew

    def _table(self) -> Table:
        rows = []
        for each in self.ingredients:
            halfway = "-" if each.barrier is None else f"{-each.barrier:+.2%}"
            rows.append((each.run, f"{each.top1:.2%}", halfway, "yes" if each.taken else "no"))
        many = sum(each.taken for each in self.ingredients)
        again = "; BatchNorm's statistics were computed anew" if self.statistics else ""
        made = f"{self.method} soup of {many}: validation {self.top1:.2%}{again}"
        return Table(("member", "validation", "halfway to the best", "in the soup"), rows, notes=(made,))


def soup(
    runs: Sequence[str | Path | Run],
    method: str = "greedy",
    *,
    run: str | Path | None = None,
    device: str = "auto",
    tell: Tell = print,
) -> Run:
    """Average the weights of runs of one net into a run of their own.

    Args:
        runs: two or more run folders of the same net, classes, preprocessing and split, fine-tuned from the same
            weights. Where their statistics of BatchNorm differ, these are computed anew from the first one's training
            images, as it was shown them in the end.
        method: greedy (from the best member on, each is taken that does not lower the accuracy on the validation
            images, so that the soup is never below its best member there; being chosen by them flatters it a little)
            or uniform (all).
        run: the run folder; None makes runs/soup.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
        tell: is given each line meant for a person.

    Returns:
        The run. Its weights load into the plain net; soup.json tells what was averaged.

    Raises:
        InputError: for a method that is not known, and for runs whose weights cannot be averaged, saying why.
    """
    if method not in METHODS:
        raise unknown("method of a soup", method, METHODS)
    started, target = time.perf_counter(), Run.new(run or "runs/soup")
    members = panel(runs, device=device, tell=tell)
    for note in members.notes:
        tell(note)
    order = np.argsort(-members.top1, kind="stable")
    opened = [Run(members.names[place]) for place in order]
    _check_alike(opened)
    averager = _Averager(opened, pick_device(device))
    opening.begin(replace(averager.config, run=str(target.path)))
    barriers = averager.barriers()
    for other, barrier in zip(opened[1:], barriers, strict=True):
        if barrier > BARRIER:
            tell(
                f"{other.path} and {opened[0].path} do not seem to come from the same weights: halfway between them "
                f"accuracy is {barrier:.1%} below their mean"
            )
    taken = averager.greedy() if method == "greedy" else [*range(len(opened))]
    state, outputs = averager.average(taken)
    top1 = averager.top1(outputs)
    ingredients = [
        Ingredient(str(each.path), averager.accuracy([number]), barrier, number in taken)
        for number, (each, barrier) in enumerate(zip(opened, (None, *barriers), strict=True))
    ]
    made = Soup(method, tuple(ingredients), top1, averager.statistics_differ and len(taken) > 1)
    for line in str(made).splitlines():
        tell(line)
    with target.locked():
        averager.write(target, state, outputs, made, time.perf_counter() - started, tell)
    return target


def _check_alike(runs: Sequence[Run]) -> None:
    """Raises InputError if weights stand for different things."""
    best, *cards = [run.card for run in runs]
    for run, card in zip(runs, (best, *cards), strict=True):
        wrong = [f"another {what}" for key, what in ALIKE.items() if card.get(key) != best.get(key)]
        if card["classes"] != best["classes"]:
            wrong.append("its classes in another order")
        if "members" in card:
            raise InputError(f"{run.path} is a committee, which has no weights of its own to average; name its members")
        if wrong:
            raise InputError(f"{run.path} cannot be averaged with {runs[0].path}: it has {' and '.join(wrong)}")


class _Averager:
    """Averages members' weights and judges what comes of it. The first member is the best."""

    def __init__(self, runs: Sequence[Run], device: torch.device):
        self.runs, self.device = runs, device
        own = config_.read(runs[0].config_file)
        found, split = whereabouts.find(runs[0], own.data, None, str(runs[0].path))
        self.config = replace(own, data=found)
        self.data = assemble.load_data(self.config, split)
        if list(self.data.val.names) != split["val"]:
            raise InputError(f"{self.data.name} no longer holds the images that {runs[0].path} was validated on")
        self.net = zoo.load(runs[0]).to(device)
        self.states = [run.weights for run in runs]
        self._check_states()
        self.statistics_differ = any(self._differ(name) for name in self._statistics())
        self._accuracies: dict[tuple[int, ...], float] = {}

    def _check_states(self) -> None:
        """Raises InputError for tensors that another member has not, or has otherwise."""
        first = {name: tensor.shape for name, tensor in self.states[0].items()}
        for run, state in zip(self.runs, self.states, strict=True):
            if {name: tensor.shape for name, tensor in state.items()} != first:
                raise InputError(f"{run.path} has tensors of other names or shapes than {self.runs[0].path}")
        for name, tensor in self.states[0].items():
            if not tensor.is_floating_point() and not name.endswith("num_batches_tracked") and self._differ(name):
                raise InputError(f"the members differ in {name}, which is made of whole numbers and so has no mean")

    def _differ(self, name: str) -> bool:
        return any(not torch.equal(state[name], self.states[0][name]) for state in self.states)

    def _statistics(self) -> Iterator[str]:
        for name, module in self.net.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
                yield from (f"{name}.running_mean", f"{name}.running_var")

    def average(self, taken: Sequence[int]) -> tuple[State, Tensor]:
        """The mean of some members' weights, and its logits `(N, K)` of the validation images.

        Statistics of BatchNorm that the members share, as they do where fine-tuning kept them, are theirs still.
        """
        self.net.load_state_dict({name: self._mean(name, taken) for name in self.states[0]})
        if len(taken) > 1 and self.statistics_differ:
            self._update_statistics()
        batches = assemble.val_batches(self.data, self.device, 256)
        outputs, _ = logits(self.net, bars.show(batches, desc=f"judging {len(taken)}"))
        return {name: tensor.detach().cpu().clone() for name, tensor in self.net.state_dict().items()}, outputs

    def _mean(self, name: str, taken: Sequence[int]) -> Tensor:
        first = self.states[taken[0]][name]
        if not first.is_floating_point():
            return first
        return (sum(self.states[place][name].double() for place in taken) / len(taken)).to(first.dtype)

    def _update_statistics(self) -> None:
        train = self.config.train
        batch = min(train.batch_size, len(self.data.train))
        batches = assemble.train_batches(self.config, self.data, self.device, batch, self.net.num_classes)
        after = sum(self.config.phase_lengths)  # all its epochs, so that growing images have grown
        bar = bars.show(batches.epoch(after), total=len(batches), desc="statistics")
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(train.seed)  # of dropout
            update_bn(bar, self.net)

    def top1(self, outputs: Tensor) -> float:
        return float((outputs.argmax(1).numpy() == self.data.val.labels).mean())

    def accuracy(self, taken: Sequence[int]) -> float:
        """Accuracy on the validation images."""
        key = tuple(taken)
        if key not in self._accuracies:
            self._accuracies[key] = self.top1(self.average(taken)[1])
        return self._accuracies[key]

    def barriers(self) -> list[float]:
        """By how much accuracy halfway between the best member and each other is below the mean of the two."""
        others = range(1, len(self.runs))
        return [(self.accuracy([0]) + self.accuracy([other])) / 2 - self.accuracy([0, other]) for other in others]

    def greedy(self) -> list[int]:
        """Recipe 1: who is in the soup."""
        taken = [0]
        for other in range(1, len(self.runs)):
            if self.accuracy([*taken, other]) >= self.accuracy(taken):
                taken.append(other)
        return taken

    def write(self, target: Run, state: State, outputs: Tensor, made: Soup, seconds: float, tell: Tell) -> None:
        """The run folder. Its config makes the soup again."""
        members = EnsembleConfig([str(run.path) for run in self.runs], f"{made.method}_soup")
        config = replace(self.config, run=str(target.path), ensemble=members)
        target.write("config.yaml", config_.dump(config))
        whereabouts.remember(target, self.data.split(), self.data.homes)
        target.write("environment.json", json.dumps(environment.describe(self.device, "fp32"), indent=2))
        target.write("soup.json", json.dumps(asdict(made), indent=2))
        loss = nn.functional.cross_entropy(outputs.double(), torch.from_numpy(self.data.val.labels)).item()
        target.write_metrics([{"epoch": 0, "val_loss": loss, "val_top1": made.top1, "seconds": seconds}])
        target.save_model(state, {**self.runs[0].card, "epoch": 0, "val_top1": made.top1})
        run_.finish(target, config, self.data, self.device, tell, outputs)
