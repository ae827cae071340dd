"""In which form a net trains fastest: decided by a short measurement on this net, batch and machine."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from cnnzoo import machine
from cnnzoo.device import BF16_GAIN, autocast, is_out_of_memory, pick_precision, wait

SHORT = 300.0  # seconds of a run below which a minute of compiling cannot pay
STEPS = 10  # timed of each form, after WARM_UPS
WARM_UPS = 3
GAIN = 1.05  # that compiling must bring
PIXELS = 16 * 224 * 224  # of the images on which precisions are tried: small ones need many to show what bf16 gains
BRIEF = 10.0  # seconds of a run on a CPU below which no precision but fp32 is tried
ROUNDS = (2, 30)  # in which precisions take turns: more than the least while LOOK seconds are not over
LOOK = 1.0


def precision(name: str, model: nn.Module, images: Tensor, steps: int) -> tuple[str, str]:
    """fp32, bf16 or fp16 for a run of `steps` steps on batches like `images`, and why.

    Where a CPU could compute in bf16, both are tried on a copy and a few images, in turns, and the least time of each
    counts, since others may hold the processor for a while. A run of seconds takes fp32 untried: it has little to gain,
    and steps that short are timed too roughly for a run to choose alike each time.
    """
    chosen = pick_precision(name, images.device)
    if name != "auto":
        return chosen, "as set"
    if chosen == "fp32" or images.device.type != "cpu":
        return chosen, "the device computes in it" if chosen == "bf16" else "the device has no bf16"
    trial, few = copy.deepcopy(model).train(), images[: max(PIXELS // images[0, 0].numel(), 2)]
    took: dict[str, list[float]] = {"fp32": [], "bf16": []}

    def take(kind: str, warm_ups: int = 0) -> None:
        took[kind].append(_seconds(trial, trial, few, kind, 1, warm_ups))

    try:
        with machine.tuned(images.device):  # as the run will be
            take("fp32", warm_ups=1)
            take("fp32")
            if (whole := min(took["fp32"]) * steps * len(images) / len(few)) < BRIEF:
                return "fp32", f"the run takes about {whole:.0f} s as it is"
            take("bf16", warm_ups=1)
            until = time.perf_counter() + LOOK
            for number in range(ROUNDS[1]):
                if number >= ROUNDS[0] and time.perf_counter() > until:
                    break
                take("fp32")
                take("bf16")
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return "fp32", "there is no memory to try bf16 on a whole batch"
    gain = min(took["fp32"]) / min(took["bf16"])
    if gain < BF16_GAIN:
        return "fp32", f"bf16 is {gain:.2f} times as fast a step here, which is not enough"
    return "bf16", f"{gain:.2f} times as fast a step here"


@dataclass(frozen=True)
class Form:
    """The function that runs a net in training, and why it is this one."""

    forward: Callable
    why: str


def compiled(model: nn.Module, graphs: bool = False, grows: bool = False) -> Callable:
    """The net through torch.compile; `graphs` records its kernels as CUDA graphs, which spares small nets launches.

    Each size of images is compiled for itself. Left to choose, torch would compile for any size once it has met two,
    and it counts those of all nets that share a `forward`, as the zoo's do: a process's second net would be slower. Of
    images that the run `grows` there may be a dozen sizes, and after eight torch compiles no more: there it chooses.
    """
    return torch.compile(model, mode="reduce-overhead" if graphs else None, dynamic=None if grows else False)


def choose(
    model: nn.Module,
    images: Tensor,
    precision: str,
    steps: int,
    forms: dict[str, Callable[[nn.Module], Callable]] | None = None,
    *,
    setting: str | bool = "auto",
    grows: bool = False,
) -> Form:
    """The form that `train.compile` sets, or with auto the fastest of the plain net and its compiled forms for a run of
    `steps` steps on batches like `images`, whose size is the largest where the run `grows` them.

    They are tried on a copy. A form must save more than it took to compile; one that fails is passed over. On a CPU the
    plain net is taken at once: compiling was slower for each net that was measured (torch 2.6 to 2.15).
    """
    if setting is False:
        return Form(model, "not compiled, as set")
    if setting != "auto":
        return Form(compiled(model, setting == "graphs", grows), "compiled, as set")
    if forms is None and images.device.type != "cuda":
        return Form(
            model, "not compiled: that does not pay on a CPU" if images.device.type == "cpu" else "not compiled"
        )
    kinds = {"compiled": False, "compiled, as CUDA graphs": True}
    forms = forms or {kind: partial(compiled, graphs=graphs, grows=grows) for kind, graphs in kinds.items()}
    trial = copy.deepcopy(model).train()
    try:
        plain = _seconds(trial, trial, images, precision)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return Form(model, "not compiled: there is no memory to try it on a whole batch")
    if plain * steps < SHORT:
        return Form(model, f"not compiled: the run takes about {plain * steps:.0f} s as it is")
    best, saved = Form(model, "not compiled: that does not pay here"), 0.0
    for name, make in forms.items():
        started = time.perf_counter()
        try:
            step = _seconds(trial, make(trial), images, precision)
        except Exception as error:  # of any kind: a compiler stands behind it
            best = Form(best.forward, f"{best.why} ({name}: {type(error).__name__})")
            continue
        gain = (plain - step) * steps - (time.perf_counter() - started)
        if plain > GAIN * step and gain > saved:
            best, saved = Form(make(model), f"{name}: {plain / step:.2f} times as fast a step here"), gain
    return best


def _seconds(
    model: nn.Module, forward: Callable, images: Tensor, precision: str, steps: int = STEPS, warm_ups: int = WARM_UPS
) -> float:
    """What a forward and a backward pass take."""
    for number in range(warm_ups + steps):
        if number == warm_ups:
            wait(images.device)
            started = time.perf_counter()
        with autocast(images.device, precision):
            outputs = forward(images)
            logits = outputs if isinstance(outputs, Tensor) else sum(outputs)
        logits.float().square().mean().backward()
        model.zero_grad(set_to_none=True)
    wait(images.device)
    return (time.perf_counter() - started) / steps
