"""Arrays on their way to the device, for which nobody waits."""

import numpy as np
import torch
from torch import Tensor

Sent = tuple[list[Tensor], torch.cuda.Event | None]


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy an array to the device: to a GPU through pinned memory, from which it fetches while the processor goes on.
    With any other memory the processor would have to wait until the GPU has done all that it was told before.
    """
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class SideStream:
    """Copies arrays to a device, to a GPU of NVIDIA's on a stream of its own: beside what it computes, not in between.

    One thread may `send` what another will `receive`. On other devices the latter copies, for MPS aborts the process
    where two threads give it work at once.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def send(self, *arrays: np.ndarray) -> Sent:
        """Begin to copy."""
        if self._stream is None:
            return [torch.from_numpy(array) for array in arrays], None
        # The device is named, too, since a thread's own is the first GPU, which would be taken up on the way back.
        with torch.cuda.device(self._stream.device), torch.cuda.stream(self._stream):
            return [to_device(array, self.device) for array in arrays], self._stream.record_event()

    def receive(self, sent: Sent) -> list[Tensor]:
        """The tensors; whatever the GPU is told to do with them from now on waits for their arrival."""
        tensors, arrived = sent
        if arrived is None:
            return [tensor.to(self.device) for tensor in tensors]
        current = torch.cuda.current_stream(self.device)
        current.wait_event(arrived)
        for tensor in tensors:
            tensor.record_stream(current)  # or their memory might be used anew while it is being read
        return tensors
