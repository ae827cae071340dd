"""What a forward pass changes of a net, saved before it, so that one that runs out of memory leaves nothing behind."""

from itertools import groupby

import torch
from torch import nn


class SavedBuffers:
    """A model's buffers, BatchNorm's running statistics above all, as they were at the latest `save`."""

    def __init__(self, model: nn.Module):
        # One dtype at a time, or PyTorch copies tensor by tensor on a GPU.
        buffers = sorted(model.buffers(), key=lambda buffer: str(buffer.dtype))
        alike = [list(group) for _, group in groupby(buffers, key=lambda buffer: buffer.dtype)]
        self._pairs = [(own, [buffer.clone() for buffer in own]) for own in alike]

    def save(self) -> None:
        for own, saved in self._pairs:
            torch._foreach_copy_(saved, own)

    def restore(self) -> None:
        for own, saved in self._pairs:
            torch._foreach_copy_(own, saved)
