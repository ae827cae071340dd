"""What holds on a GPU besides: no step makes the processor wait, nets see and answer what they do on a CPU, and every
way of use goes there from end to end.
"""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import photos
import pytest
import torch
from conftest import GPU, VISIBLE

import cnnzoo
from cnnzoo import benchmark, machine, registry, visualize, zoo
from cnnzoo.benchmark.loops import trainer_of
from cnnzoo.benchmark.overhead import recorded_step
from cnnzoo.checkpoint import Run
from cnnzoo.config import AugmentConfig
from cnnzoo.data.arrays import ArrayImages
from cnnzoo.data.augment import Augment
from cnnzoo.data.batches import EvalBatches, TrainBatches
from cnnzoo.errors import Interrupted
from cnnzoo.inference.cuda_graphs import Replayed
from cnnzoo.inference.optimized import TF32, TOLERANCE, optimize
from cnnzoo.train.anatomy import Stepper

pytestmark = pytest.mark.skipif(not GPU, reason="there is no GPU")


@pytest.fixture(autouse=True, scope="module")
def gpu():
    """Here it is there again, see conftest.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if VISIBLE is not None:
            patch.setenv("CUDA_VISIBLE_DEVICES", VISIBLE)
        yield


GREY = (0.5,) * 3, (0.25,) * 3
PIXELS = np.random.default_rng(0).integers(0, 256, (512, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(512) % 10
AUGMENTS = {
    "flip and padded crop": {"flip": True, "crop": "padded"},
    "resampling": {"rotation": 15, "shift": 0.1, "brightness": 0.2, "saturation": 0.2, "cutout": 8, "mixup": 0.2},
    "turns": {"flip_vertical": True, "quarter_turns": True, "contrast": 0.2},
    "smaller images": {"flip": True, "grows_from": 0.5},
    "resized crop": {"crop": "resized", "erasing": 0.5, "cutmix": 1.0},
    "RandAugment": {"policy": "randaugment"},
    "TrivialAugment": {"policy": "trivialaugment", "flip": True, "repeats": 2},
}


def batches(augment: dict, device: str) -> TrainBatches:
    shown = Augment(AugmentConfig(**augment), 32, *GREY)
    return TrainBatches(ArrayImages(PIXELS), LABELS, 64, shown, seed=0, device=device, classes=10)


@pytest.fixture
def no_waiting():
    """Called, it makes whatever waits for the GPU an error, to the end of the test."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
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


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_gradient_checkpointing_takes_less_memory_waits_for_nothing_and_changes_nothing(no_waiting):
    torch.manual_seed(0)
    net = zoo.create("resnet20").cuda()
    other = copy.deepcopy(net)
    other.set_grad_checkpointing()
    images = torch.randn(256, 3, 32, 32, device="cuda")
    peaks = []
    for each in (net, other):
        each(images).square().mean().backward()
        each.zero_grad()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        no_waiting()
        each(images).square().mean().backward()
        torch.cuda.set_sync_debug_mode("default")
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < 0.7 * peaks[0]
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-3, atol=1e-5)
    for one, two in zip(net.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(two, one)


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


# ---- graphs


def test_streams_of_their_own_take_turns_with_a_net():
    net = optimize(zoo.create("resnet20").eval().cuda(), "fp32")
    batches = [torch.randn(8, 3, 32, 32, device="cuda") for _ in range(4)]
    wanted = [net(x) for x in batches]
    torch.cuda.synchronize()

    def answer(place: int) -> torch.Tensor:
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(20):
                answers = net(batches[place])
            return answers.cpu()

    with ThreadPoolExecutor(4) as pool:
        for given, answers in zip(pool.map(answer, range(4)), wanted, strict=True):
            torch.testing.assert_close(given, answers.cpu())


def test_nets_are_recorded_in_several_threads_at_once():
    nets, x = [zoo.create("resnet20").eval().cuda() for _ in range(4)], torch.randn(1, 3, 32, 32, device="cuda")
    with torch.no_grad():
        wanted = [net(x) for net in nets]
    ways = [Replayed(lambda x, net=net: [net(x)]) for net in nets]
    together = threading.Barrier(4)

    @torch.inference_mode()
    def answer(place: int) -> torch.Tensor:
        together.wait()
        return ways[place](x)[0]

    with ThreadPoolExecutor(4) as pool:
        for given, answers in zip(pool.map(answer, range(4)), wanted, strict=True):
            torch.testing.assert_close(given, answers, rtol=1e-3, atol=1e-3)
    assert [len(way.graphs) for way in ways] == [1] * 4


def test_what_cannot_be_recorded_is_run_and_leaves_the_stream_as_it_was():
    way, x, before = Replayed(lambda x: [x * x.sum().item()]), torch.ones(3, device="cuda"), torch.cuda.current_stream()
    for _ in range(2):
        assert way(x)[0].tolist() == [3, 3, 3]
    assert torch.cuda.current_stream() == before
    assert way.most == 0
    torch.cuda.empty_cache()  # which a recording that broke off would have ended, and so random numbers
    assert torch.rand(1, device="cuda").item() < 1


def test_a_recorded_step_of_training_writes_over_nothing_of_others():
    net = zoo.create("resnet20").cuda()
    images, targets = torch.randn(8, 3, 32, 32, device="cuda"), torch.zeros(8, dtype=torch.int64, device="cuda")
    replay, before = recorded_step(net, images, targets), net.fc.weight.clone()
    del images, targets
    torch.cuda.empty_cache()
    others = [torch.zeros(size, device="cuda") for size in (2**4, 2**10, 2**16, 2**22) for _ in range(16)]
    for _ in range(5):
        replay()
    assert not any(other.any() for other in others)
    assert not net.fc.weight.equal(before)
    assert net.fc.weight.isfinite().all()


def test_the_benchmark_finds_no_waiting_in_a_step():
    assert benchmark.run(["G9"]).notes["G9"].startswith("0 host synchronisations a step in ours")


# ---- from end to end

EVERYTHING = {
    "model": {"name": "resnet20"},
    "augment": {"flip": True, "crop": "padded", "mixup": 0.2, "cutmix": 1.0, "rotation": 5, "erasing": 0.2},
    "loss": {"label_smoothing": 0.1},
    "optim": {"lr": 0.02, "clip_norm": 1.0},
    "train": {"epochs": 3, "batch_size": 12, "ema": "auto", "device": "cuda"},
}


def trained(folder, source, **options) -> Run:
    config = EVERYTHING | {"run": str(folder), "data": {"source": str(source), "size": 32, "val_fraction": 0.3}}
    return cnnzoo.train(config, with_report=False, **options)


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory) -> Run:
    """A net for three kinds of pictures, trained on the GPU with all that changes a step."""
    return trained(tmp_path_factory.mktemp("runs") / "first", pictures)


def test_a_run_on_a_gpu_is_one_that_a_cpu_can_use(run, pictures):
    assert run.environment["device"] == torch.cuda.get_device_name()
    sides = [cnnzoo.predict(run, pictures, device=device).probabilities for device in ("cuda", "cpu")]
    assert sides[0] == pytest.approx(sides[1], abs=0.02)
    judged = [cnnzoo.judge(run, device=device, crops=crops) for device in ("cuda", "cpu") for crops in (1, 10)]
    assert judged[0].outputs == pytest.approx(judged[2].outputs, abs=0.05)
    assert judged[1].outputs == pytest.approx(judged[3].outputs, abs=0.05)
    assert cnnzoo.evaluate(run).top1 == pytest.approx(run.metrics[-1]["val_top1"], abs=0.5)


def test_a_stopped_run_goes_on_to_weights_like_those_it_would_have_had(run, pictures, tmp_path):
    asked = iter(range(100))
    with pytest.raises(Interrupted):
        trained(tmp_path / "run", pictures, should_stop=lambda: next(asked) > 4)
    again = cnnzoo.train(resume=tmp_path / "run", with_report=False)
    whole, parts = (each.weights for each in (run, again))
    for name, values in whole.items():
        torch.testing.assert_close(parts[name].float(), values.float(), rtol=0.05, atol=0.05, msg=name)


WAYS = {"compile": "graphs"}, {"compile": "graphs", "accumulate": 2}, {"precision": "fp16"}, {"accumulate": 2}


@pytest.mark.filterwarnings("ignore")  # which torch's compiler has of its own, as that TF32 would be faster
@pytest.mark.parametrize("options", WAYS, ids=str)
def test_ways_of_training(pictures, tmp_path, options):
    config = {"run": str(tmp_path / "run"), "model": {"name": "lenet5", "in_chans": 3}}
    config |= {"data": {"source": str(pictures), "size": 32}, "train": {"epochs": 2, "batch_size": 10, **options}}
    assert np.isfinite([epoch["train_loss"] for epoch in cnnzoo.train(config, with_report=False).metrics]).all()


def test_transfer_learning_and_committees(pictures, weights, run, tmp_path):
    probed = cnnzoo.probe(pictures, "resnet20", weights, run=tmp_path / "probe")
    tuned = cnnzoo.finetune(pictures, "resnet20", weights, mode="staged", epochs=(1, 1), run=tmp_path / "tuned")
    for each in (probed, tuned):
        assert each.report_file.exists()
        assert each.metrics[-1]["val_top1"] > 0.4
    again = trained(tmp_path / "again", pictures)
    for method in ("mean", "stacking"):
        assert cnnzoo.combine([run, again], method, run=tmp_path / method).predictions[0].shape[1] == 3
    assert np.isfinite(cnnzoo.predict(tmp_path / "stacking", pictures).probabilities).all()
    assert cnnzoo.soup([run, again], run=tmp_path / "soup").is_finished
    found = cnnzoo.profile(tuned.config_file, steps=2, out=tmp_path / "profile")
    assert (found.folder / "trace.json").exists()


LOOKS = {
    **{name: {"images": 2} for name in ("saliency", "guided", "gradcam", "occlusion", "activations")},
    "deconv": {"images": 4, "top": 2, "channels": 1},
    "invert": {"images": 1, "steps": 3},
    "maximise": {"classes": "red", "steps": 3},
    "neighbours": {"many": 2},
    "filters": {},
    "sparsity": {"images": 2},
    "compare": {"image": 1},
    "walk": {"image": 1},
}


@pytest.mark.parametrize(("what", "options"), LOOKS.items(), ids=LOOKS)
def test_looking_inside(what, options, run):
    options = dict(options)
    if many := options.pop("images", options.pop("image", None)):
        shown = [photos.picture(number % 3, number) for number in range(many)]
        given = [shown if what not in ("compare", "walk") else shown[0]]
    assert getattr(visualize, what)(run, *(given if many else []), **options).figure() is not None


def test_where_a_gpus_memory_does_not_suffice_the_batch_is_split():
    torch.cuda.empty_cache()
    net = zoo.create("resnet56").cuda()
    images, targets = torch.randn(1024, 3, 32, 32, device="cuda"), torch.zeros(1024, dtype=torch.int64, device="cuda")
    told = []
    trainer = trainer_of(net, [None], [], tell=told.append)
    stepper = Stepper(trainer)
    room = torch.cuda.memory_reserved() + 2**30
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        with machine.tuned(torch.device("cuda")):
            assert torch.isfinite(stepper.step(images, targets))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert told[0] == "out of memory with 1,024 images at once: from here 512 at once; a step still sees 1,024"
