"""The forms that a net can answer in, and how each is made: `Forward`s, from images to float32 answers."""

import copy
import functools
import io
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cnnzoo.device import device_of, layout_on
from cnnzoo.inference.cuda_graphs import Forward
from cnnzoo.inference.values import decides_by_values
from cnnzoo.quiet import quiet

CLOSE = 1 / 128  # of the largest logit: bf16 changed the difference of two logits by a hundredth of it at most
HEAVY = 2**27  # bytes of a graph, above which images are not shared out
SHARE = 2  # images that a thread takes at a time
_WEIGHTED = (nn.Conv2d, nn.Linear)


def plain(net: nn.Module) -> Forward:
    """The net as it is."""
    return lambda x: floats(net(x.contiguous(memory_format=layout_on(x.device))))


def too_close(logits: Tensor) -> Tensor:
    """`(B,)` bool: of which logits `(B, K)` 16 bits cannot tell the two likeliest classes apart."""
    first, second = logits.topk(2).values.unbind(1)
    return first - second < CLOSE * logits.abs().amax(1)


def settled(run: Forward, in_fp32: Forward) -> Forward:
    """What `run` answers in 16 bits, but where an image's two likeliest classes are too close to tell, in 32."""

    def answer(x: Tensor) -> list[Tensor]:
        answers = run(x)
        if answers[0].ndim != 2 or answers[0].shape[1] < 2:
            return answers
        close = too_close(answers[0])
        if close.any():
            for given, sure in zip(answers, in_fp32(x[close]), strict=True):
                given[close] = sure
        return answers

    return answer


def floats(answers: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """One answer or several, as float32."""
    return [answer.float() for answer in ([answers] if isinstance(answers, Tensor) else answers)]


def floats_of(net: Callable, dtype: torch.dtype, layout: torch.memory_format) -> Forward:
    """A net that takes images of this dtype, in this layout."""
    return lambda x: floats(net(x.to(dtype=dtype, memory_format=layout)))


def converted(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy with its weights in this dtype, once and for all, but for the layers that give logits, which stay in
    float32: of 8 bits, logits near 16 would be multiples of 1/8, and the likeliest classes often even.
    """
    fast = folded(net)
    last = _last(fast) if isinstance(fast, fx.GraphModule) else set()
    kept = {name: copy.deepcopy(fast.get_submodule(name)) for name in last}
    fast.to(dtype=dtype, memory_format=layout_on(device_of(net)))
    if not kept:
        return fast
    for name, layer in kept.items():
        fast.set_submodule(name, layer)
    for call in [call for call in _calls(fast) if call.target in kept]:
        with fast.graph.inserting_before(call):
            given = call.all_input_nodes[0]
            call.replace_input_with(given, fast.graph.call_method("float", (given,)))
    fast.recompile()
    return fast


def _last(net: fx.GraphModule) -> set[str]:
    """The layers with weights that no other follows, but for convolutions whose maps meet others, as in GoogLeNet's
    last block: one of those in float32 would turn all of them.
    """
    found, followed, met = set(), set(), set()  # `followed` leads to a layer with weights, `met` to where several meet
    for node in reversed(net.graph.nodes):
        given, apart = node.all_input_nodes, node.op == "output" or node.target is torch.stack
        layer = net.get_submodule(node.target) if node.op == "call_module" else None
        weighted = isinstance(layer, _WEIGHTED)
        if weighted and node not in followed and (node not in met or isinstance(layer, nn.Linear)):
            found.add(node.target)
        if weighted or node in followed:
            followed.update(given)
        if node in met or (len(given) > 1 and not apart):
            met.update(given)
    return found


def folded(net: nn.Module) -> nn.Module:
    """A copy of a net in eval mode whose convolutions have taken in the BatchNorm that follows them, where nothing else
    sees their outputs; as it is where torch.fx cannot follow the net.
    """
    try:
        traced = fx.symbolic_trace(copy.deepcopy(net))
        _fold(traced)
        return traced
    except Exception:  # of any kind: a net may do what torch.fx does not know
        return copy.deepcopy(net)


def _fold(net: fx.GraphModule) -> None:
    calls = [*_calls(net)]
    layers = {call: net.get_submodule(call.target) for call in calls}
    times = Counter(call.target for call in calls)
    for norm in calls:
        before = norm.args[0]
        if (type(layers[norm]), type(layers.get(before))) != (nn.BatchNorm2d, nn.Conv2d):
            continue
        if len(before.users) == times[before.target] == 1 and layers[norm].track_running_stats:
            net.set_submodule(before.target, fuse_conv_bn_eval(layers[before], layers[norm]))
            norm.replace_all_uses_with(before)
            net.graph.erase_node(norm)
    net.delete_all_unused_submodules()
    net.recompile()


def _calls(net: fx.GraphModule) -> Iterator[fx.Node]:
    return (node for node in net.graph.nodes if node.op == "call_module")


def exported(net: nn.Module, images: Tensor) -> bytes | None:
    """The net as ONNX, for any number of images of this size; None where it cannot be had."""
    file = io.BytesIO()
    try:
        if decides_by_values(net, images):
            return None
        with quiet():
            # TorchScript's exporter, since it takes a tenth of the time of the newer one.
            names = {"input_names": ["images"], "dynamic_axes": {"images": {0: "batch"}}}
            torch.onnx.export(net, (images,), file, dynamo=False, verbose=False, opset_version=20, **names)
    except Exception:  # of any kind: a net may do what no exporter knows
        return None
    return file.getvalue()


def session(graph: bytes, in_8_bits: bool = False) -> Forward:
    """An ONNX graph as a function, in onnxruntime. Images are shared out among the threads, each of which takes a few
    from end to end, so that none waits for others layer by layer; where there are too few, all work on each.

    So they do where a net has many weights for what it computes, which each thread would have to read: AlexNet on 8
    images took 1.13 times as long shared out and ResNet-18 in 8 bits on 4 1.2 times, where GoogLeNet took 0.93 and
    DenseNet-121 0.87 (2 cores). Two at a time, whose maps stay in a core's own cache, SqueezeNet takes 0.77 of what
    it takes on 16, GoogLeNet 0.88, DenseNet-121 0.89 and ResNet-50 as long.
    """
    threads = torch.get_num_threads()
    shares_out = threads > 1 and len(graph) < HEAVY and not in_8_bits
    alone, together = (functools.cache(functools.partial(_opened, graph, many)) for many in (1, threads))
    pool = ThreadPoolExecutor(threads)

    def run(x: Tensor) -> list[Tensor]:
        images = x.numpy()
        if not shares_out or len(images) < threads:
            return [*map(torch.from_numpy, together()(images))]
        shares = threads * max(len(images) // (SHARE * threads), 1)
        answers = zip(*pool.map(alone(), np.array_split(images, shares)), strict=True)
        return [torch.from_numpy(np.concatenate(parts)) for parts in answers]

    return run


def _opened(graph: bytes, threads: int) -> Callable[[np.ndarray], list[np.ndarray]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # or it takes the decoders' cores
    opened = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    # Laid out by NumPy: after torch's work its threads spin, and hold up these.
    return lambda images: opened.run(None, {"images": np.ascontiguousarray(images)})


def timed(run: Callable[[Tensor], Sequence[Tensor]], images: Tensor) -> float:
    """The seconds of the better of two runs, until the last answer is there."""
    times = []
    for _ in range(2):
        started = time.perf_counter()
        run(images)[-1].cpu()
        times.append(time.perf_counter() - started)
    return min(times)
