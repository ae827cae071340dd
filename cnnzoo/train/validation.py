"""What a net says to images it is not trained on, and how often it is right."""

from collections.abc import Iterable
from contextlib import nullcontext

import torch
from torch import Tensor, nn


def autocast(device: torch.device, precision: str):
    """The context in which a forward pass runs in 16 bits, or in none."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])


@torch.inference_mode()
def logits(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], precision: str = "fp32", channels_last: bool = False
) -> tuple[Tensor, Tensor]:
    """Logits `(N, K)` float32 and targets `(N,)` of every image, on the CPU. The model's mode is restored."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    all_logits, all_targets = [], []
    try:
        for images, targets in batches:
            if channels_last and images.ndim == 4:
                images = images.contiguous(memory_format=torch.channels_last)
            with autocast(device, precision):
                all_logits.append(model(images).float())
            all_targets.append(targets)
    finally:
        model.train(training)
    return torch.cat(all_logits).cpu(), torch.cat(all_targets).cpu()


def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], precision: str = "fp32", channels_last: bool = False
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy (as a fraction), exact over all images, whatever the loss in training was."""
    outputs, targets = logits(model, batches, precision, channels_last)
    loss = nn.functional.cross_entropy(outputs.double(), targets)
    return loss.item(), (outputs.argmax(dim=1) == targets).double().mean().item()
