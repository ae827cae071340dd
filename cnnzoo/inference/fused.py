"""A net whose layers oneDNN's graph compiler has fused, which torch.jit leads to, for 16 bits on a CPU. A leaf."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cnnzoo.quiet import quiet

ONCE = 8  # times as many images as there are that are computed once, rather than to make a plan


class Fused:
    """A net as a function of images `(B, C, H, W)`, in the dtype and layout of its weights.

    A plan is made for each number of images, which takes some tenths of a second: images are filled up to a number that
    has one where that does not double them, and a number that comes for the first time even so, as the last images of
    many do. Threads may share it.
    """

    def __init__(self, net: nn.Module):
        self._net = net
        self._plans: dict[int, Callable[[Tensor], Tensor | Sequence[Tensor]]] = {}
        self._came: set[int] = set()

    @property
    def planned(self) -> set[int]:
        """The numbers of images that have a plan."""
        return {*tuple(self._plans)}  # to which another thread may add meanwhile

    def __call__(self, images: Tensor) -> Tensor | Sequence[Tensor]:
        many = len(images)
        most = 2 * many - 1 if many in self._came else ONCE * many
        self._came.add(many)
        room = min((number for number in self.planned if many <= number <= most), default=many)
        filled = nn.functional.pad(images, (0, 0, 0, 0, 0, 0, 0, room - many)) if room > many else images
        if plan := self._plans.get(room):
            answers = plan(filled)
        else:
            with quiet(), _fusing():  # one thread at a time
                # Traced anew for each number, which what a net does may depend on.
                plan = torch.jit.freeze(torch.jit.trace(self._net, filled, check_trace=False))
                plan(filled)  # looks at shapes, and the next compiles
                answers = plan(filled)
            self._plans[room] = plan
        return answers[:many] if isinstance(answers, Tensor) else [answer[:many] for answer in answers]


@contextmanager
def _fusing():
    """Within, torch.jit hands what it compiles to oneDNN."""
    before = torch.jit.onednn_fusion_enabled()
    torch.jit.enable_onednn_fusion(True)
    try:
        yield
    finally:
        torch.jit.enable_onednn_fusion(before)
