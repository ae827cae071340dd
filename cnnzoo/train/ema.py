"""The moving average of a net's weights, which is often better than any of them (Polyak, Juditsky 1992)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SHARE = 0.05  # of a run's steps that the average looks back on, where nobody says


def fitted_decay(steps: int) -> float:
    """The decay with which the average looks back on a twentieth of `steps`."""
    return 1 - 1 / max(SHARE * steps, 1)


class EMA:
    """The average of parameters and buffers over the steps: `average = decay * average + (1 - decay) * value`.

    In the first steps the decay is at most (1 + n) / (10 + n), so that the random start is soon forgotten (TensorFlow's
    ExponentialMovingAverage). What is no floating-point number is copied.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self._current, self._others = _tensors(model)
        self._parameters = sum(p.is_floating_point() for p in model.parameters())  # which come first
        self._average = [tensor.detach().clone() for tensor in self._current]
        self._average_others = [tensor.clone() for tensor in self._others]

    @property
    def statistics(self) -> list[Tensor]:
        """The averages of buffers."""
        return self._average[self._parameters :]

    @torch.no_grad()
    def step(self) -> None:
        """Follow the weights, after every step of the optimiser: by a few kernels, whatever the number of tensors."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._average, self._current, 1 - decay)
        if self._others:
            torch._foreach_copy_(self._average_others, self._others)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within it the model has the averages; afterwards its own values, bit for bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for own, average in ((self._current, self._average), (self._others, self._average_others)):
            for a, b in zip(own, average, strict=True):
                kept = a.clone()
                a.copy_(b)
                b.copy_(kept)

    def state_dict(self) -> dict:
        return {"steps": self.steps, "average": self._average, "others": self._average_others}

    def load_state_dict(self, state: dict) -> None:
        self.steps = state["steps"]
        for own, saved in ((self._average, state["average"]), (self._average_others, state["others"])):
            for a, b in zip(own, saved, strict=True):
                a.copy_(b)


def _tensors(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters and buffers: those that can be averaged, and the others."""
    every = [*model.parameters(), *model.buffers()]
    return [t for t in every if t.is_floating_point()], [t for t in every if not t.is_floating_point()]
