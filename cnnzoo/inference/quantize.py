"""An ONNX graph of float32 to one of 8-bit integers, by onnxruntime's static quantisation. A leaf."""

import importlib.util
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from cnnzoo.errors import InputError
from cnnzoo.quiet import quiet

BATCH = 8  # images that a graph is calibrated on at a time


def quantized(graph: bytes, images: Tensor) -> bytes:
    """The same graph with convolutions and matrix products in 8 bits: weights by channel, each layer's inputs by the
    whole range that they take over `images` `(N, C, H, W)` float32, which the graph's one input "images" is given.

    Raises InputError if the onnx library is not installed, by which onnxruntime rewrites graphs.
    """
    if importlib.util.find_spec("onnx") is None:
        raise InputError('precision int8 needs onnx, which pip install "cnnzoo[export]" brings')
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batches(CalibrationDataReader):
        def __init__(self):
            self.rest = iter(images.split(BATCH))

        def get_next(self) -> dict | None:
            batch = next(self.rest, None)
            return None if batch is None else {"images": batch.contiguous().numpy()}

    with tempfile.TemporaryDirectory() as folder, quiet():
        plain, prepared, done = (Path(folder) / f"{name}.onnx" for name in ("plain", "prepared", "done"))
        plain.write_bytes(graph)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            done,
            Batches(),
            # Relu, so that it becomes the lower end of the range of what comes before it rather than a layer in fp32.
            # Not Add, by which no net is faster.
            op_types_to_quantize=["Conv", "Relu", "Gemm", "MatMul", "MaxPool", "Concat"],
            nodes_to_exclude=_sums_of_squares(onnx.load(prepared)),
            per_channel=True,
            # Products of 8 and 8 bits are added in pairs, which overflow 16 bits on processors without VNNI.
            reduce_range=not multiplies_bytes(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return done.read_bytes()


def _sums_of_squares(model) -> list[str]:
    """The convolutions of an ONNX model that add up squares, as response normalisation does: their range is too wide
    for 8 bits.
    """
    squares = {
        name for node in model.graph.node if node.op_type == "Mul" and len({*node.input}) == 1 for name in node.output
    }
    return [node.name for node in model.graph.node if node.op_type == "Conv" and node.input[0] in squares]


def multiplies_bytes() -> bool:
    """Whether this CPU multiplies and adds 8-bit integers in one instruction (VNNI), several times as fast as fp32."""
    names = ("_is_vnni_supported", "_is_avx512_vnni_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)
