"""Numbers that are no longer finite: how they are found, and the state to which a run goes back from them."""

import copy

import torch
from torch import nn

from cnnzoo.errors import InputError

ROLLBACKS = 5  # after which a run that diverges is given up
_ADVICE = "try a lower optim.lr (a quarter, say), schedule.warmup_epochs or optim.clip_norm"


class Diverged(Exception):
    """A loss, a weight, a running statistic or, at every scale, a gradient is no longer a finite number."""


@torch.no_grad()
def not_finite(model: nn.Module) -> str:
    """What of the model is no longer a number; "" where nothing is."""
    moving = [p for p in model.parameters() if p.requires_grad]
    statistics = [b for name, b in model.named_buffers() if name.rpartition(".")[2].startswith("running_")]
    for what, tensors in (("a weight", moving), ("a running statistic", statistics)):
        if tensors and not torch.stack(torch._foreach_norm(tensors)).isfinite().all():
            return what
    return ""


class LastGood:
    """The state that was saved last, where a run `goes_back` to it when it diverges."""

    def __init__(self, goes_back: bool):
        self._goes_back, self._state = goes_back, None
        self._has_saved = False

    def remember(self, state: dict, is_saved: bool = True) -> None:
        self._has_saved = self._has_saved or is_saved
        if self._goes_back:
            self._state = copy.deepcopy(state)

    def after(self, trouble: Diverged, rate: float) -> tuple[dict, float]:
        """The state to go on from, and what is to become of the factor on every rate, which was `rate`.

        Raises InputError if the run does not go back, or has done so in vain.
        """
        if self._state is None:
            kept = "; the last good state is kept" if self._has_saved else ""
            raise InputError(f"{trouble}{kept}; {_ADVICE}") from None
        if rate / 2 < 0.5**ROLLBACKS:
            raise InputError(f"{trouble}, once more after {ROLLBACKS} times half the rate; {_ADVICE}") from None
        return copy.deepcopy(self._state), rate / 2
