"""A trained net as one file that runs without cnnzoo: preprocessing inside, class names beside.

It is checked against the net before it is written.
"""

import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cnnzoo import atomic, zoo
from cnnzoo.checkpoint import Run
from cnnzoo.data.preprocess_graph import graph_of
from cnnzoo.device import autocast
from cnnzoo.errors import InputError, expect, unknown
from cnnzoo.inference.values import decides_by_values
from cnnzoo.models._lrn import LocalResponseNorm
from cnnzoo.naming import output_names
from cnnzoo.paths import expanded
from cnnzoo.quiet import quiet
from cnnzoo.shown import Shown

BATCHES = (1, 2, 7)  # at which a graph is checked; a batch baked in at export is wrong at two of them
TOLERANCE = 1e-4  # of the largest logit, or of 1 where that is less, to which graph and net must agree
LEAST = 1e-35  # smaller probabilities are compared as if they were this
OPSET = 20  # of ONNX; before 19 mean pooling with ceil_mode counts pixels that are not there
ONE_FILE = 2**31  # bytes, the most that a protobuf, and so an ONNX file, can hold


@dataclass(frozen=True)
class Exported(Shown):
    """What was written, and how well it agrees with the net."""

    file: Path
    bytes: int
    input: str
    output: str
    classes: tuple[str, ...]
    differences: dict[int, float]  # by batch: of logits from the net's, as a share of the largest

    def __str__(self) -> str:
        checks = ", ".join(f"{batch} ({difference:.0e})" for batch, difference in self.differences.items())
        return (
            f"{self.file}  {self.bytes / 1e6:,.1f} MB, {len(self.classes):,} classes\n"
            f"  in      {self.input}\n"
            f"  out     {self.output}\n"
            f"  agrees with the net at batches of {checks}"
        )


def export(
    run_or_model: nn.Module | Run | str | Path,
    out: str | Path,
    *,
    format: str = "onnx",
    preprocess: bool = True,
    pretrained: bool | str | Path | Run = False,
) -> Exported:
    """Write a net as an ONNX file, or as a program of torch.export, for batches of any size.

    With `preprocess` the graph takes images `(B, H, W, C)` uint8 of any one height and width, as numpy has a decoded
    photo, upright and in the net's colours (RGB, or grey with C = 1). Inside are the resizing, antialiased as PIL does
    it, the crop, the normalisation, the net, its calibration's temperature and the softmax; out come probabilities
    `(B, K)` float32. What stays outside is decoding. Without, it takes `(B, C, size, size)` float32 that have been
    preprocessed, and gives logits `(B, K)`.

    Class names, preprocessing and temperature travel along as JSON: in ONNX under the metadata key "cnnzoo", in torch
    as the extra file "cnnzoo.json". A file of torch is for this version of torch and later ones.

    The graph is opened and compared with the net, preprocessed by PIL, on batches of 1, 2 and 7 random images. Only one
    that agrees is written, in place of an older file, whole or not at all.

    Args:
        run_or_model: a net, which stays as it is; a run; a run folder; a model.safetensors; a net's name.
        out: the file.
        format: "onnx" or "torch".
        preprocess: whether preprocessing and softmax are part of the graph.
        pretrained: the weights for a net's name: True (the best known), a tag, a file or a run folder.

    Raises:
        InputError: for a wrong argument, a net that cannot be exported or comes out different, packages that are
            missing. OSError where the file cannot be written.
    """
    if format not in _FORMATS:
        raise unknown("format", format, _FORMATS)
    expect(out, (str, os.PathLike), "out is the file to write")
    out = expanded(out)
    meant = _ENDINGS.get(out.suffix.lower(), format)
    if meant != format:
        raise InputError(f"{out} ends as a file of format {meant}, but the format is {format}; change one of them")
    if out.is_dir():
        raise InputError(f"{out} is a folder; name the file to write")
    atomic.check_writable(out)
    if format == "onnx":
        _need_onnx()
    net = _open(run_or_model, pretrained)
    classes = output_names(net)
    graph = _Probabilities(net) if preprocess else _Logits(net)
    card = {
        "name": net.entry.name,
        "classes": classes,
        "input": graph.input,
        "output": graph.output,
        "preprocess": graph.preprocessing.to_dict(),
        "temperature": graph.temperature,
    }
    write, read = _FORMATS[format]
    with quiet(), torch.no_grad(), autocast(torch.device("cpu"), "fp32"):
        try:
            content = write(graph, card)
            differences = _compare(read(content), graph)
        except InputError as error:
            raise InputError(f"{out} was not written: {error}") from None
        except Exception as error:  # a net of the user's own may do anything
            why = f"{net.entry.name} cannot be exported ({_first_line(error)})"
            raise InputError(f"{out} was not written: {why}") from error
    atomic.write(out, content)
    return Exported(out, len(content), graph.input, graph.output, classes, differences)


def _open(run_or_model: nn.Module | Run | str | Path, pretrained: bool | str | Path | Run) -> nn.Module:
    """The net in eval mode, in float32 on the CPU, asking for no gradients, which a file of torch would do for ever."""
    net = zoo.open_net(run_or_model, pretrained)[0].cpu().requires_grad_(False)
    if not hasattr(net, "entry") or not net.num_classes:
        raise InputError(
            f"this {type(net).__name__} cannot be exported: it must be a net of cnnzoo.create, with a head"
        )
    for each in [module for module in net.modules() if hasattr(module, "entry")]:  # itself, or a committee's members
        for head in each.entry.aux:  # of use in training only
            setattr(each, head.partition(".")[0], None)
    return net


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise InputError('ONNX needs the package onnx, which is not here: pip install "cnnzoo[export]"') from None


class _Logits(nn.Module):
    """The net alone, and what it is checked with."""

    axes = ("batch",)  # which may have any length, from the first on

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        self.preprocessing = zoo.preprocessing(net)
        self.temperature = float(getattr(net, "temperature", 1.0))
        height, width, channels = self.preprocessing.shape
        self.shape = (channels, height, width)
        self.input = f"images (B, {', '.join(map(str, self.shape))}) float32, preprocessed"
        self.output = f"logits (B, {net.num_classes}) float32"
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def images(self, batch: int) -> np.ndarray:
        """Random ones."""
        return np.random.default_rng(batch).standard_normal((batch, *self.shape), dtype=np.float32)

    def example(self) -> Tensor:
        """Images to trace the graph with. No axis that varies has length 1, which a tracer may take for fixed."""
        return torch.from_numpy(self.images(2))

    def logits(self, images: np.ndarray) -> Tensor:
        """What the net itself makes of them."""
        return self.net(torch.from_numpy(images))

    def apart(self, outputs: np.ndarray, logits: Tensor) -> float:
        """The largest difference between the graph's logits and the net's."""
        return float(np.abs(outputs - logits.numpy()).max())


class _Probabilities(_Logits):
    """The net between its preprocessing and softmax."""

    axes = ("batch", "height", "width")

    def __init__(self, net: nn.Module):
        super().__init__(net)
        self.preprocess = graph_of(self.preprocessing)
        channels = self.preprocessing.channels
        colours = {1: " grey", 3: " RGB"}.get(channels, "")
        self.input = f"images (B, H, W, {channels}) uint8{colours}, of any height and width"
        self.output = f"probabilities (B, {net.num_classes}) float32"

    def forward(self, images: Tensor) -> Tensor:
        return self._probabilities(self.net(self.preprocess(images)))

    def images(self, batch: int) -> np.ndarray:
        """Noise to be shrunk, left as it is, or enlarged; as wide as high at least, see `PreprocessGraph`."""
        side = self.preprocessing.resize
        height, width = {1: (2 * side, 3 * side), 7: (side, side)}.get(batch, (side // 2 + 1, side))
        shape = (batch, height, width, self.preprocessing.channels)
        return np.random.default_rng(batch).integers(0, 256, shape, dtype=np.uint8)

    def logits(self, images: np.ndarray) -> Tensor:
        return self.net(torch.stack([self.preprocessing(image) for image in images]))

    def apart(self, outputs: np.ndarray, logits: Tensor) -> float:
        given, expected = (np.log(np.maximum(each, LEAST)) for each in (outputs, self._probabilities(logits).numpy()))
        # Of a probability the logarithm is the logit over the temperature, but for a constant; below the least it has
        # vanished.
        return self.temperature * float(np.abs(given - expected).max())

    def _probabilities(self, logits: Tensor) -> Tensor:
        return (logits / self.temperature).softmax(1)


def _to_onnx(graph: _Logits, card: dict) -> bytes:
    import onnx

    if sum(tensor.nbytes for tensor in graph.state_dict().values()) > ONE_FILE:
        raise InputError("its weights are over 2 GB, more than an ONNX file can hold; export it by format='torch'")
    if decides_by_values(graph, graph.example()):
        raise InputError(
            "what the net does depends on the values it sees, by an if or a number taken out of a tensor, and ONNX "
            "would do the same for all images; compute it by torch.where and the like"
        )
    for name, module in list(graph.named_modules()):
        if type(module) is nn.LocalResponseNorm:  # in whose dozen of operations shapes get lost
            graph.set_submodule(name, LocalResponseNorm(module.size, module.alpha, module.beta, module.k))
    output, file = graph.output.split()[0], io.BytesIO()
    # TorchScript's exporter takes a tenth of the time of the newer one, which in torch 2.6 cannot do BatchNorm.
    torch.onnx.export(
        graph,
        (graph.example(),),
        file,
        dynamo=False,
        opset_version=OPSET,
        input_names=["images"],
        output_names=[output],
        dynamic_axes={"images": dict(enumerate(graph.axes)), output: {0: "batch"}},
    )
    model = onnx.load_from_string(file.getvalue())
    names = dict(enumerate(card["classes"]))  # where other programs look for them
    onnx.helper.set_model_props(model, {"cnnzoo": json.dumps(card), "names": repr(names)})
    return model.SerializeToString()


def _from_onnx(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is told by its exception
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def _to_torch(graph: _Logits, card: dict) -> bytes:
    # Without a largest length torch 2.6 takes x[:, ::2] for a condition on it.
    axes = {place: torch.export.Dim(name, min=1, max=2**31 - 1) for place, name in enumerate(graph.axes)}
    program = torch.export.export(graph, (graph.example(),), dynamic_shapes=(axes,), strict=False)
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"cnnzoo.json": json.dumps(card)})
    return file.getvalue()


def _from_torch(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    program = torch.export.load(io.BytesIO(content)).module()
    return lambda images: program(torch.from_numpy(images)).numpy()


_FORMATS = {"onnx": (_to_onnx, _from_onnx), "torch": (_to_torch, _from_torch)}
# The formats that these endings promise.
_ENDINGS = {".onnx": "onnx", **dict.fromkeys((".pt2", ".pt", ".pth"), "torch")}


def _compare(run: Callable[[np.ndarray], np.ndarray], graph: _Logits) -> dict[int, float]:
    """How far the exported graph is from the net, by the size of the batch. Raises InputError if that is too far."""
    differences = {}
    for batch in BATCHES:
        images = graph.images(batch)
        logits = graph.logits(images)
        if not logits.isfinite().all():
            raise InputError("the net's logits are no finite numbers; its weights are damaged, or training diverged")
        try:
            outputs = run(images)
        except Exception as error:  # of whatever runs the graph
            raise InputError(f"the graph fails at a batch of {batch} ({_first_line(error)})") from error
        differences[batch] = graph.apart(outputs, logits) / max(float(logits.abs().max()), 1.0)
        if not differences[batch] <= TOLERANCE:  # which NaN is not either
            raise InputError(
                f"at a batch of {batch} the graph's logits differ from the net's by {differences[batch]:.1e} of the "
                f"largest, more than {TOLERANCE:.0e}"
            )
    return differences


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
