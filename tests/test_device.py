"""Which device is taken, and what happens where its memory does not suffice."""

import pytest
import torch
from torch import nn

import cnnzoo
from cnnzoo import device
from cnnzoo.errors import InputError
from cnnzoo.evaluate import MeanOfCrops

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB"


class Hungry(nn.Module):
    """Takes `room` images at once, and not one more."""

    def __init__(self, net: nn.Module, room: int):
        super().__init__()
        self.net, self.room, self.seen = net, room, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError(FULL)
        self.seen.append(len(x))
        return self.net(x)


def test_a_gpu_that_this_torch_cannot_compute_on_is_told_at_once(monkeypatch):
    def no_kernel(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nand much more")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", no_kernel)
    with pytest.raises(InputError, match=r"^the device is cuda, which cannot .*\(CUDA error: no kernel.*\); take cpu$"):
        device.pick_device("auto")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (FULL, True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("GET was unable to find an engine to execute this computation", True),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes", True),
        ("CUDA error: device-side assert triggered", False),
        ("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", False),
    ],
)
def test_want_of_memory_is_known_by_its_words(said, meant):
    assert device.is_out_of_memory(RuntimeError(said)) is meant


def test_where_memory_does_not_suffice_for_a_batch_its_halves_are_computed():
    images = torch.randn(7, 3)
    net = Hungry(nn.Identity(), room=2)
    assert device.in_halves(net, images).equal(images)
    assert net.seen == [2, 2, 2, 1]
    twice = device.in_halves(lambda x: (net(x), net(-x)), images)  # as a net that gives its features, too
    assert [answers.tolist() for answers in twice] == [images.tolist(), (-images).tolist()]
    with pytest.raises(torch.OutOfMemoryError):
        device.in_halves(Hungry(nn.Identity(), room=0), images)
    with pytest.raises(RuntimeError, match="multiplied"):
        device.in_halves(nn.Linear(2, 2), images)


def test_an_images_crops_stay_together_where_memory_does_not_suffice_for_all():
    images = torch.randn(6, 4)
    assert MeanOfCrops(Hungry(nn.Identity(), room=2), 3)(images).equal(MeanOfCrops(nn.Identity(), 3)(images))


def test_predicting_goes_on_with_fewer_images_at_once(net, pictures):
    plain = cnnzoo.predict(net, pictures).probabilities
    hungry = Hungry(net, room=3)
    for name in ("preprocessing", "classes", "num_classes"):
        setattr(hungry, name, getattr(net, name, None) or cnnzoo.preprocessing(net))
    assert cnnzoo.predict(hungry, pictures).probabilities == pytest.approx(plain, abs=1e-6)


def test_a_command_that_runs_out_of_memory_says_so_in_a_line(fails, monkeypatch, pictures):
    def full(*_, **__):
        raise torch.OutOfMemoryError(FULL)

    monkeypatch.setattr("cnnzoo.visualize.occlusion", full)
    said = fails("visualize", "occlusion", "resnet20", pictures, "--out", "maps.png")
    how = "CUDA out of memory. Tried to allocate 2.00 GiB"
    assert said == f"memory does not suffice ({how}); take fewer or smaller images at once, or a smaller net"
