"""Logits and accuracy on held-out images."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from cnnzoo.device import autocast, device_of, in_halves


@torch.inference_mode()
def logits(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], precision: str = "fp32", channels_last: bool = False
) -> tuple[Tensor, Tensor]:
    """Logits `(N, K)` float32 and targets `(N,)` of every image, on the CPU. Every module's mode is restored."""
    device, modes = device_of(model), {module: module.training for module in model.modules()}
    model.eval()
    all_logits, all_targets = [], []
    try:
        for images, targets in batches:
            if channels_last and images.ndim == 4:
                images = images.contiguous(memory_format=torch.channels_last)
            with autocast(device, precision):
                all_logits.append(in_halves(lambda part: model(part).float(), images))
            all_targets.append(targets)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return torch.cat(all_logits).cpu(), torch.cat(all_targets).cpu()


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    precision: str = "fp32",
    channels_last: bool = False,
    gather: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy (as a fraction), exact over all images, whatever the loss in training was. An
    image whose logits are no finite numbers is answered wrongly.

    `gather` puts the rows of several processes together, of which each has judged other images.
    """
    outputs, targets = map(gather, logits(model, batches, precision, channels_last))
    loss = nn.functional.cross_entropy(outputs.double(), targets)
    right = (outputs.argmax(dim=1) == targets) & outputs.isfinite().all(dim=1)
    return loss.item(), right.double().mean().item()
