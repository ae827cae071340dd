"""What holds on a GPU besides: no step makes the processor wait, and nets see and answer what they do on a CPU."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from cnnzoo import registry, zoo
from cnnzoo.benchmark.loops import trainer_of
from cnnzoo.config import AugmentConfig
from cnnzoo.data.arrays import ArrayImages
from cnnzoo.data.augment import Augment
from cnnzoo.data.batches import EvalBatches, TrainBatches
from cnnzoo.inference import TF32, TOLERANCE, optimize
from cnnzoo.train.anatomy import Stepper

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

GREY = (0.5,) * 3, (0.25,) * 3
PIXELS = np.random.default_rng(0).integers(0, 256, (512, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(512) % 10
AUGMENTS = {
    "flip and padded crop": {"flip": True, "crop": "padded"},
    "resampling": {"rotation": 15, "shift": 0.1, "brightness": 0.2, "cutout": 8, "mixup": 0.2},
    "smaller images": {"flip": True, "grows_from": 0.5},
    "resized crop": {"crop": "resized", "erasing": 0.5, "cutmix": 1.0},
}


def batches(augment: dict, device: str) -> TrainBatches:
    shown = Augment(AugmentConfig(**augment), 32, *GREY)
    return TrainBatches(ArrayImages(PIXELS), LABELS, 64, shown, seed=0, device=device, classes=10)


@pytest.fixture
def no_waiting():
    """Called, it makes whatever waits for the GPU an error, to the end of the test."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS)
def test_no_step_waits_for_the_gpu(augment, no_waiting):
    net = zoo.create("resnet20").cuda()
    stepper = Stepper(trainer_of(net, batches(augment, "cuda"), [], precision="bf16"))
    losses = []
    for number, batch in enumerate(stepper.feed.batches.epoch(0)):
        if number == 2:  # by now memory is there to be used again
            no_waiting()
        losses.append(stepper.step(*batch))
    torch.cuda.set_sync_debug_mode("default")
    assert len(losses) == 8
    assert torch.stack(losses).isfinite().all()


@pytest.mark.parametrize("augment", list(AUGMENTS.values())[:2], ids=list(AUGMENTS)[:2])
def test_training_batches_are_those_of_a_cpu(augment):
    for ours, theirs in zip(batches(augment, "cuda").epoch(3), batches(augment, "cpu").epoch(3), strict=True):
        torch.testing.assert_close(ours[0].cpu(), theirs[0], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(ours[1].cpu(), theirs[1])


def test_evaluation_batches_are_those_of_a_cpu():
    sides = [EvalBatches(ArrayImages(PIXELS), LABELS, 100, *GREY, device) for device in ("cuda", "cpu")]
    for ours, theirs in zip(*sides, strict=True):
        torch.testing.assert_close(ours[0].cpu(), theirs[0])
        torch.testing.assert_close(ours[1].cpu(), theirs[1])


def test_every_net_computes_on_a_gpu():
    for name in registry.names("*"):
        entry = registry.lookup(name)
        if entry.macs and entry.macs < 2e9:
            net = zoo.create(name).eval()
            x = torch.randn(2, *entry.input_size)
            with torch.inference_mode():
                expected = net(x)
                apart = (net.cuda()(x.cuda()).cpu() - expected).abs().max()
            assert apart < 0.05 * expected.std(), name  # convolutions there keep 10 bits of the mantissa (TF32)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_optimised_net_answers_as_the_plain_one_from_several_threads_and_in_a_copy(precision):
    net = zoo.create("resnet20").eval()
    batches = [torch.randn(size, 3, 32, 32, generator=torch.Generator().manual_seed(size)) for size in (1, 7, 32, 64)]
    with torch.no_grad():
        wanted = [net(x) for x in batches]
    fast = optimize(net.cuda(), precision)
    share = TF32 if precision == "fp32" else TOLERANCE[precision]
    for one in (fast, copy.deepcopy(fast)):
        with ThreadPoolExecutor(4) as pool:  # each batch again and again, so that recorded graphs are replayed
            given = list(pool.map(lambda place, one=one: one(batches[place % 4].cuda()).cpu(), range(32)))
        for place, answers in enumerate(given):
            most = wanted[place % 4].abs().max().clamp(min=1.0).item()
            torch.testing.assert_close(answers, wanted[place % 4], rtol=0, atol=share * most)
