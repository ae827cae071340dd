"""What would hold on a GPU, seen where there is none: torch's fake tensors have a device and a shape but no values, so
that whatever reads a value, for which a processor would wait, or mixes devices is an error.
"""

import copy
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from conftest import GPU
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cnnzoo import zoo
from cnnzoo.benchmark.loops import trainer_of
from cnnzoo.benchmark.overhead import recorded_step
from cnnzoo.config import AugmentConfig
from cnnzoo.data import batches, to_device
from cnnzoo.data.arrays import ArrayImages
from cnnzoo.data.augment import Augment
from cnnzoo.inference.cuda_graphs import Replayed
from cnnzoo.train.anatomy import Stepper

pytestmark = pytest.mark.skipif(GPU, reason="test_cuda.py looks at the GPU itself")

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(32) % 10
COLOURS = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "channel_shift": 0.1, "pca_noise": 0.1}
TURNS = {"flip_vertical": True, "quarter_turns": True}
AUGMENTS = {
    "nothing": {},
    "flip and padded crop": {"flip": True, "crop": "padded"},
    "resampling": {"rotation": 15, "shift": 0.1, "shear": 5, "zoom": 0.1, "cutout": 8, "mixup": 0.2, **COLOURS},
    "smaller images": {"flip": True, "grows_from": 0.5},
    "turns": TURNS,
    "resized crop": {"crop": "resized", "erasing": 0.5, "cutmix": 1.0},
    "jittered crop": {"crop": "jittered", "shorter_side": [32, 40], "mixup": 0.5, "cutmix": 1.0},
    "RandAugment": {"policy": "randaugment"},
    "TrivialAugment": {"policy": "trivialaugment", "flip": True, "repeats": 2},
}
NET = zoo.create("resnet20")
OPTIONS = {"plain": {}, "averaged, clipped, in parts": {"ema": 0.9, "clip_norm": 1.0, "accumulate": 2}}


class ToTheProcessor(TorchDispatchMode):
    """Notes what brings values to the processor, and from it while it waits; spares optimisers' kernels, which have no
    fake form.
    """

    def __init__(self):
        super().__init__()
        self.noted: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if "_fused_" in str(function):
            assert {tensor.device.type for tensor in tensors} == {"cuda"}
            return None
        answer = function(*args, **(kwargs or {}))
        if isinstance(answer, Tensor):
            given, kinds = answer.device.type, {tensor.device.type for tensor in tensors}
            copies = function is torch.ops.aten._to_copy.default and not (kwargs or {}).get("non_blocking")
            if (given == "cpu" and "cuda" in kinds) or (given == "cuda" and "cpu" in kinds and copies):
                self.noted.append(str(function))
        return answer


def on_gpu(module: nn.Module) -> nn.Module:
    """The same layers with fake values on a GPU that is not there."""
    there = copy.copy(module)
    there._modules = {name: on_gpu(child) for name, child in module._modules.items()}
    there._buffers = {name: torch.empty_like(tensor, device="cuda") for name, tensor in module._buffers.items()}
    there._parameters = {
        name: None if tensor is None else nn.Parameter(torch.empty_like(tensor, device="cuda"))
        for name, tensor in module._parameters.items()
    }
    return there


@pytest.fixture
def gpu(monkeypatch) -> Iterator[ToTheProcessor]:
    """Streams, pinned memory and generators are a real GPU's alone, and so is the backward pass."""
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.cuda, "default_generators", (torch.Generator(),))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(to_device.SideStream, "send", send)
    monkeypatch.setattr(Tensor, "backward", lambda loss: None)
    with FakeTensorMode(allow_non_fake_inputs=True), ToTheProcessor() as watch:
        try:
            torch.empty(1).to("cuda", non_blocking=True)
        except RuntimeError:  # of torch 2.6
            pytest.skip("this torch has fake values on a GPU only where there is a driver")
        yield watch


def send(self: to_device.SideStream, *arrays: np.ndarray) -> to_device.Sent:
    return [to_device.to_device(array, self.device) for array in arrays], None


def train(augment: dict, **options) -> None:
    """An epoch's steps of resnet20."""
    net = on_gpu(NET)
    shown = Augment(AugmentConfig(**augment), 32, (0.5,) * 3, (0.25,) * 3)
    feed = batches.TrainBatches(ArrayImages(PIXELS), LABELS, 16, shown, seed=0, device="cuda", classes=10)
    stepper = Stepper(trainer_of(net, feed, [], channels_last=False, **options))
    for images, targets in stepper.feed.batches.epoch(0):
        for parameter in net.parameters():
            parameter.grad = torch.empty_like(parameter)
        assert images.device.type == targets.device.type == "cuda"
        assert stepper.step(images, targets).device.type == "cuda"


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS)
def test_a_step_reads_no_value_and_stays_on_the_gpu(gpu, augment, options):
    train(augment, **options)
    assert gpu.noted == []


def test_what_a_processor_waits_for_is_noticed(gpu):
    x = torch.ones(3, device="cuda")
    with pytest.raises(BaseException, match="_local_scalar_dense"):
        x.sum().item()
    x.cpu()
    torch.tensor([1.0], device="cuda")
    assert gpu.noted == ["aten._to_copy.default"] * 2


# ---- CUDA graphs, of which the means are stood in for


class Means(threading.local):
    """What Replayed asks of torch.cuda: which stream is a thread's current one, and what was recorded on which."""

    def __init__(self):
        self.current = MagicMock()


@pytest.fixture
def recorded(monkeypatch) -> list[dict]:
    """The options of each recording, in order; two at once, or one on another stream than the current, is an error."""
    means, made, alone = Means(), [], threading.Lock()

    @contextmanager
    def stream(new):
        before, means.current = means.current, new
        try:
            yield
        finally:
            means.current = before

    @contextmanager
    def graph(recording, **options):
        assert alone.acquire(blocking=False)
        assert options["stream"] is means.current
        made.append(options)
        try:
            yield
            time.sleep(0.01)
        finally:
            alone.release()

    stand_ins = {"Stream": MagicMock, "Event": MagicMock, "CUDAGraph": MagicMock, "stream": stream, "graph": graph}
    stand_ins |= {"current_stream": lambda: means.current, "device": lambda _: nullcontext()}
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return made


def test_graphs_are_recorded_one_at_a_time_and_those_of_a_net_share_a_stream_and_memory(recorded):
    def answer(_: int) -> None:
        way, before = Replayed(lambda x: [x + 1]), torch.cuda.current_stream()
        for many in (1, 2, 1):
            assert way(torch.zeros(many, 3))[0].equal(torch.ones(many, 3))
        assert len(way.graphs) == 2
        assert torch.cuda.current_stream() is before

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(answer, range(4)))
    assert len(recorded) == 8
    assert len({id(options["stream"]) for options in recorded}) == 4
    assert sum("pool" in options for options in recorded) == 4


def test_kernels_are_prepared_on_another_stream_than_they_are_recorded_on(recorded):
    """Or what torch keeps for cuBLAS by stream would be no graph's own."""
    seen = []
    Replayed(lambda x: [seen.append(torch.cuda.current_stream()) or x])(torch.zeros(1, 3))
    assert seen[3] is recorded[0]["stream"]
    assert seen[:3] == [seen[0]] * 3
    assert seen[3] is not seen[0]


def test_what_cannot_be_recorded_is_run(recorded):
    calls = iter(range(100))

    def run(x: Tensor) -> list[Tensor]:
        if next(calls) == 3:  # after the three that warm up
            raise RuntimeError("operation not permitted when stream is capturing")
        return [x + 1]

    way = Replayed(run)
    assert way(torch.zeros(1, 3))[0].equal(torch.ones(1, 3))
    assert way(torch.zeros(1, 3))[0].equal(torch.ones(1, 3))
    assert not way.graphs


UNRECORDABLE = {
    "reads a value": lambda x: x * x.sum().item(),
    "branches": lambda x: x if x.sum() > 0 else -x,
    "picks by a mask": lambda x: x[x > 0],
    "brings values elsewhere": lambda x: x if x.to("meta").is_meta else -x,
}


@pytest.mark.parametrize("run", UNRECORDABLE.values(), ids=UNRECORDABLE)
@torch.inference_mode()
def test_what_would_break_off_a_recording_is_known_before(recorded, run):
    way, x = Replayed(lambda x: [run(x)]), torch.ones(1, 3)
    for _ in range(2):
        assert way(x)[0].equal(run(x))
    assert not recorded


@torch.inference_mode()
def test_nets_and_picking_by_numbers_are_recorded(recorded):
    net = copy.deepcopy(NET).eval()
    way = Replayed(lambda x: [net(x)[:, torch.tensor([2, 0])], net(x)[0]])
    assert [len(answers) for answers in way(torch.zeros(1, 3, 32, 32))] == [1, 10]
    assert len(recorded) == 1


def test_what_a_recorded_step_reads_and_writes_lives_as_long_as_it(recorded, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    net, images, targets = copy.deepcopy(NET), torch.zeros(2, 3, 32, 32), torch.tensor([0, 1])
    known = [weakref.ref(tensor) for tensor in (net.fc.weight, images, targets)]
    replay = recorded_step(net, images, targets)
    del net, images, targets
    gc.collect()
    assert all(tensor() is not None for tensor in known)
    replay()
    assert len(recorded) == 1


# ---- batches on their way


def test_images_go_to_their_gpu_on_one_stream_that_another_thread_fills(monkeypatch):
    """Of a second GPU, say: a thread begins on the first one, and is to leave that alone."""
    inside, used = threading.local(), []

    @contextmanager
    def device(which):
        inside.device = which
        yield
        del inside.device

    @contextmanager
    def stream(which):
        assert inside.device == which.device
        used.append((which, threading.get_ident()))
        yield

    made = MagicMock(side_effect=lambda device: MagicMock(device=device))
    for name, stand_in in {"device": device, "stream": stream, "Stream": made}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(to_device, "to_device", lambda array, device: MagicMock())
    side = to_device.SideStream(torch.device("cuda", 1))
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            _, arrived = pool.submit(side.send, PIXELS).result()
            assert arrived is used[-1][0].record_event.return_value
    assert made.call_count == 1
    assert {thread for _, thread in used}.isdisjoint({threading.get_ident()})
