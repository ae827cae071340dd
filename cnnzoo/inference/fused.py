"""A net whose layers oneDNN's graph compiler has fused, which torch.jit leads to, for 16 bits on a CPU. A leaf."""

from collections.abc import Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cnnzoo.quiet import quiet


class Fused:
    """A net as a function of images `(B, C, H, W)`, in the dtype and layout of its weights.

    A plan is made for each number of images, which takes some tenths of a second: images are filled up to a number that
    has one where that does not double them. Threads may share it.
    """

    def __init__(self, net: nn.Module):
        self._net = net
        self.planned: set[int] = set()

    def __call__(self, images: Tensor) -> Tensor | Sequence[Tensor]:
        many = len(images)
        planned = tuple(self.planned)  # to which another thread may add meanwhile
        room = min((number for number in planned if many <= number < 2 * many), default=many)
        filled = nn.functional.pad(images, (0, 0, 0, 0, 0, 0, 0, room - many)) if room > many else images
        if room not in self.planned:
            with quiet(), _fusing():  # one thread at a time
                if not self.planned:
                    self._net = torch.jit.freeze(torch.jit.trace(self._net, filled, check_trace=False, strict=False))
                for _ in range(2):  # the first looks at shapes, the second compiles
                    self._net(filled)
                self.planned.add(room)
        answers = self._net(filled)
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
