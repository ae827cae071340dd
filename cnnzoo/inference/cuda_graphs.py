"""What a net computes for a few images, recorded as a CUDA graph and replayed: kernels are launched all at once."""

import threading
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MOST = 32  # images to a batch that is recorded; more are computed no sooner than kernels are launched
Forward = Callable[[Tensor], list[Tensor]]  # images to one answer or several, all float32

_recording = threading.Lock()  # since CUDA records one graph at a time in a process


class Replayed:
    """A function of images on CUDA, recorded once for each small batch's shape as a CUDA graph and then replayed, since
    a few images are computed sooner than their kernels are launched one by one. What cannot be recorded is run.

    A graph has one place for images and one for answers, and all graphs share their memory, so that threads and streams
    take turns.
    """

    def __init__(self, run: Forward):
        self.run, self._lock = run, threading.Lock()
        self.most = MOST  # 0 once something could not be recorded
        self.graphs: dict[tuple[int, ...], tuple[torch.cuda.CUDAGraph, Tensor, list[Tensor]]] = {}
        self._streams: list[torch.cuda.Stream] = []  # on which kernels are prepared, and on which all are recorded
        self._done = torch.cuda.Event()  # the latest turn

    def __call__(self, x: Tensor) -> list[Tensor]:
        if len(x) > self.most:
            return self.run(x)
        with self._lock, torch.cuda.device(x.device):
            if x.shape not in self.graphs:
                try:
                    self.graphs[x.shape] = self._record(x)
                except RuntimeError:
                    self.most = 0
                    self.graphs.clear()
                    return self.run(x)
            graph, given, answers = self.graphs[x.shape]
            self._done.wait()
            given.copy_(x)
            graph.replay()
            answers = [answer.clone() for answer in answers]
            self._done.record()
            return answers

    def _record(self, x: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, list[Tensor]]:
        given, graph, current = x.clone(), torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        # torch's own stream for recording is one of the GPU that came first: on another's nothing would be recorded.
        # There are two, since torch keeps memory for cuBLAS by stream, and gives it back where torch.compile records:
        # taken within a recording, it stays the graph's.
        self._streams = self._streams or [torch.cuda.Stream(), torch.cuda.Stream()]
        aside, on = self._streams
        options = {"stream": on, "capture_error_mode": "thread_local"}  # others may go on using the GPU
        if self.graphs:
            options["pool"] = next(iter(self.graphs.values()))[0].pool()
        aside.wait_stream(current)
        with _recording:
            with torch.cuda.stream(aside):
                for _ in range(2):  # libraries choose and prepare their kernels first
                    self.run(given)
                with _Recordable():
                    self.run(given)
            # The stream is left by this one where recording fails, too.
            with torch.cuda.stream(on), torch.cuda.graph(graph, **options):
                answers = self.run(given)
        current.wait_stream(aside)
        return graph, given, answers


class _Recordable(TorchDispatchMode):
    """Raises RuntimeError where a value is read, or goes elsewhere, which no graph can record. A recording that breaks
    off may leave its process without torch.cuda.empty_cache and random numbers on the GPU (pytorch/pytorch#180395).
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with self:  # in inference mode what consists of other functions comes here whole
            answer = function.decompose(*args, **kwargs)
        if answer is not NotImplemented:
            return answer
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if function is torch.ops.aten.index.Tensor:
            reads = any(tensor.dtype in (torch.bool, torch.uint8) for tensor in given[1:])
        else:
            reads = bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & {*function.tags})
        answer = function(*args, **kwargs)
        if function in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            reads = len({tensor.device for tensor in (*given, answer)}) > 1
        if reads:
            raise RuntimeError(f"{function} cannot be recorded")
        return answer
