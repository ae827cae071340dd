"""The fast path of a trained net: the same answers, sooner. What it gives is checked against the plain net."""

import contextlib
import copy
import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from cnnzoo.device import pick_precision
from cnnzoo.errors import InputError

TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 1e-2}  # of the largest output, to which fast and plain must agree


class Features(nn.Module):
    """A net without its head: images `(B, C, H, W)` to the vectors `(B, num_features)` that the head sees."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.forward_head(self.net.forward_features(x), pre_logits=True)


class Optimized(nn.Module):
    """A net in eval mode that answers faster: `(B, C, H, W)` float32 in, `(B, K)` float32 out, no gradients.

    In fp32 on a CPU onnxruntime does the work, which fuses layers and lays weights out for the processor; elsewhere a
    copy in 16 bits, channels-last. The first images of each size are given to the plain net as well; it does the work
    where it is faster, or where the two do not agree.
    """

    def __init__(self, net: nn.Module, precision: str):
        super().__init__()
        self.net = net.eval()
        self.precision = precision
        self._by_size: dict[tuple[int, ...], Callable[[Tensor], Tensor]] = {}
        for name in ("preprocessing", "classes", "num_classes", "temperature", "entry"):
            if hasattr(net, name):
                setattr(self, name, getattr(net, name))

    def train(self, mode: bool = True) -> "Optimized":
        return super().train(False)

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        size = tuple(x.shape[1:])
        if size not in self._by_size:
            self._by_size[size] = self._chosen(x[:4])
        return self._by_size[size](x)

    def _chosen(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        """The faster of two functions for images of this size, if they agree; else the plain net."""

        def plain(x: Tensor) -> Tensor:
            return self.net(x.contiguous(memory_format=torch.channels_last)).float()

        if self.precision != "fp32":
            fast = _sixteen_bits(self.net, self.precision)
        else:
            fast = _onnx(self.net, images) if images.device.type == "cpu" else None
        if fast is None:
            return plain
        wanted, given = plain(images), fast(images)
        error, largest = (given - wanted).abs().max().item(), wanted.abs().max().item()
        if not error <= TOLERANCE[self.precision] * max(largest, 1.0):  # nor if it is no number
            return plain
        return min((fast, plain), key=lambda run: _seconds(run, images))


def optimize(model: nn.Module, precision: str = "auto") -> nn.Module:
    """The fast inference form of a net, on the net's own device.

    Args:
        model: a net that takes `(B, C, H, W)` float32; it is put into eval mode and otherwise left alone.
        precision: fp32, bf16, fp16, or auto: bf16 where the processor computes in it, else fp32. In fp32 outputs agree
            within 1e-4 of the largest one, in bf16 within 5e-2.

    Returns:
        A module for the same images and the same `(B, K)` float32 outputs, without gradients, with the net's
        `preprocessing`, `classes` and `num_classes`.
    """
    if precision not in ("auto", *TOLERANCE):
        raise InputError(f"precision is {precision!r}, but must be one of auto, {', '.join(TOLERANCE)}")
    device = next(model.parameters()).device
    if precision == "auto":
        native = device.type == "cpu" and computes_in_bf16()
        precision = "bf16" if native else pick_precision("auto", device)
    return Optimized(model, precision)


def computes_in_bf16() -> bool:
    """Whether this CPU multiplies in bfloat16 (AVX512-BF16 or AMX), which is twice as fast there."""
    flags = torch.backends.cpu.get_cpu_capability()
    if not flags.startswith("AVX512"):
        return False
    return any(
        getattr(torch.cpu, name, lambda: False)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def _sixteen_bits(net: nn.Module, precision: str) -> Callable[[Tensor], Tensor]:
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    fast = copy.deepcopy(net).to(dtype=dtype, memory_format=torch.channels_last)
    return lambda x: fast(x.to(dtype=dtype, memory_format=torch.channels_last)).float()


def _onnx(net: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor] | None:
    """The net in onnxruntime, for any number of images of this size; None where it cannot be had."""
    import onnxruntime

    file = io.BytesIO()
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            # TorchScript's exporter, since it takes a tenth of the time of the newer one.
            names = {"input_names": ["images"], "dynamic_axes": {"images": {0: "batch"}}}
            torch.onnx.export(net, (images,), file, dynamo=False, verbose=False, opset_version=20, **names)
    except Exception:  # of any kind: a net may do what no exporter knows
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # or it takes the decoders' cores
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"images": x.contiguous().numpy()})[0])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing reaches the terminal: torch's C++ prints the whole graph of a net that it cannot export."""
    sys.stdout.flush()
    kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    try:
        with open(os.devnull, "w") as nowhere:
            for descriptor in kept:
                os.dup2(nowhere.fileno(), descriptor)
        yield
    finally:
        for descriptor, copy_ in kept.items():
            os.dup2(copy_, descriptor)
            os.close(copy_)


def _seconds(run: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """Of the better of two runs."""
    times = []
    for _ in range(2):
        started = time.perf_counter()
        run(images).cpu()
        times.append(time.perf_counter() - started)
    return min(times)
