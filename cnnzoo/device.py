"""Which device, in which precision it computes, when it is done, and when its memory does not suffice. A leaf."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

from cnnzoo.errors import InputError

Answers = TypeVar("Answers", Tensor, Sequence[Tensor])

BF16_GAIN = 1.2  # that bf16 must bring on a CPU, where small nets lose more to conversions than they gain


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA, else MPS, else the CPU. Raises InputError for a device that is not there, or cannot be used: this
    torch may be too new or too old for it, or others may have all its memory.
    """
    instead = "cpu or auto"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        instead = "cpu"
    try:
        device = torch.device(name)
        if torch.ones(1, device=device).is_meta:  # for which the device has to compute
            raise RuntimeError("it holds no values")
    except (RuntimeError, AssertionError) as error:
        why = " ".join(str(error).splitlines()[0].split())
        raise InputError(f"the device is {name}, which cannot be used here ({why}); take {instead}") from None
    return device


def device_of(net: nn.Module) -> torch.device:
    """Where a net lies; the CPU for one without tensors, which lies nowhere."""
    return next(chain(net.parameters(), net.buffers()), torch.empty(0, device="cpu")).device


def pick_precision(name: str, device: torch.device) -> str:
    """`auto` is bf16 where the device computes in it, else fp32. Raises InputError for what the device lacks."""
    native = computes_in_bf16(device)
    if name == "auto":
        return "bf16" if native else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise InputError("the precision is fp16, which CPUs cannot train in; take fp32, or bf16")
    if name == "bf16" and device.type == "cuda" and not native:
        raise InputError(f"the precision is bf16, which {torch.cuda.get_device_name(device)} lacks; take fp16 or fp32")
    if device.type == "mps":
        _check_on_mps(name)
    return name


def _check_on_mps(precision: str) -> None:
    """Raises InputError if the system or torch are too old: there autocast would do nothing but warn, and the
    scaling of fp16 would fail.
    """
    if precision == "bf16" and not torch.backends.mps.is_macos_or_newer(14, 0):
        raise InputError("the precision is bf16, for which MPS needs macOS 14; take fp16 or fp32")
    if precision == "fp16" and torch.__version__ < (2, 8):
        raise InputError(f"the precision is fp16, for which MPS needs torch 2.8, and this is {torch.__version__}")


def batch_on(device: torch.device) -> int:
    """Images to a forward pass where nobody says: on a CPU four to a thread, of which caches hold more than of many,
    but no more than gigabytes of memory suffice for.
    """
    return min(4 * torch.get_num_threads(), 32) if device.type == "cpu" else 128


def layout_on(device: torch.device) -> torch.memory_format:
    """How images and weights lie in memory where nobody says. On MPS a convolution's gradient takes thirty times as
    long channels-last (pytorch/pytorch#193349), and BatchNorm and pooling have given wrong numbers (#174345).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def computes_in_bf16(device: torch.device) -> bool:
    """Whether a GPU multiplies in bfloat16, or a CPU (AVX512-BF16 or AMX), twice as fast on some as in fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """The context in which a forward pass runs in 16 bits, or in none, whatever a caller's own context says.

    Weights are cast anew each time: torch forgets what it has cast only as the outermost context ends, so within
    another one each step would compute with the weights of the first.
    """
    if precision == "fp32":
        within = torch.is_autocast_enabled(device.type)
        return torch.autocast(device.type, enabled=False) if within else nullcontext()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype, cache_enabled=False)


def wait(device: torch.device) -> None:
    """Wait until a GPU has done all that it was told, as whoever measures time has to."""
    if device.type == "mps":  # which torch.accelerator does not wait for before torch 2.7
        torch.mps.synchronize()
    elif device.type != "cpu":
        torch.accelerator.synchronize(device)


# CUDA has an exception for it, but not where cuDNN or cuBLAS meet it; on a CPU torch and oneDNN have their own words.
_OUT_OF_MEMORY = (
    *("out of memory", "STATUS_ALLOC_FAILED", "_ALLOCATION_FAILED"),  # the last is cuDNN 9's
    *("unable to find an engine", "Unable to find a valid cuDNN algorithm"),
    *("can't allocate memory", "bad_alloc", "could not create a"),
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of torch means that memory did not suffice."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in _OUT_OF_MEMORY)


def in_halves(run: Callable[[Tensor], Answers], images: Tensor) -> Answers:
    """What `run` gives for images `(B, …)`: a row for each, or several such tensors. Where memory does not suffice for
    all images, half of them are computed at once, and so on.
    """
    try:
        return run(images)
    except (RuntimeError, MemoryError) as error:
        if len(images) == 1 or not is_out_of_memory(error):
            raise
    both = [in_halves(run, half) for half in images.chunk(2)]
    return torch.cat(both) if isinstance(both[0], Tensor) else [torch.cat(pair) for pair in zip(*both, strict=True)]
