"""Where a step's time goes, found on the config's own trainer, which leaves nothing behind but the trace."""

import json
import time
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from cnnzoo import assemble, config, profiling
from cnnzoo.errors import InputError
from cnnzoo.train import anatomy, rehearsal
from cnnzoo.train.anatomy import PARTS, Anatomy

SMALL = {"model": {"name": "lenet5"}, "train": {"batch_size": 32, "epochs": 1, "device": "cpu", "ema": 0.9}}


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return profiling.profile(SMALL, steps=3, out=tmp_path_factory.mktemp("profile"))


def test_the_parts_make_up_the_step(profile):
    seconds = profile.anatomy.seconds
    assert tuple(seconds) == PARTS
    assert all(took > 0 for took in seconds.values())
    assert seconds["forward"] + seconds["backward"] > seconds["optimiser"]


def test_the_loader_and_the_net_are_also_timed_alone(profile):
    assert profile.anatomy.batch_size == 32
    step = sum(profile.anatomy.seconds.values())
    assert profile.anatomy.loader > 0.2 * 32 / step
    assert profile.anatomy.model > 0.2 * 32 / step


def test_the_trace_is_chromes_and_marks_the_parts(profile):
    events = json.loads((profile.folder / "trace.json").read_text())["traceEvents"]
    names = {event.get("name") for event in events}
    assert {"forward", "backward", "optimiser", "aten::mkldnn_convolution"} <= names
    assert sorted(file.name for file in profile.folder.iterdir()) == ["profile.json", "trace.json"]


def test_operators_are_told_the_costliest_first(profile):
    took = [operator.seconds for operator in profile.operators]
    assert took == sorted(took, reverse=True)
    assert any("convolution" in operator.name for operator in profile.operators[:5])
    assert not set(PARTS) & {operator.name for operator in profile.operators}


def test_a_gpus_kernels_are_told_as_the_operators_that_launch_them(tmp_path, monkeypatch):
    kernel = SimpleNamespace(key="sgemm", device_type=DeviceType.CUDA, count=1, self_cpu_time_total=1e9)
    averages = torch.profiler.profile.key_averages
    monkeypatch.setattr(torch.profiler.profile, "key_averages", lambda profiler: [*averages(profiler), kernel])
    found = profiling.profile(SMALL, steps=1, out=tmp_path)
    assert "sgemm" not in {operator.name for operator in found.operators}


def test_a_person_sees_a_table_and_one_piece_of_advice(profile):
    lines = str(profile).splitlines()
    assert lines[0] == "lenet5 on digits, cpu, fp32, batches of 32, 3 steps"
    assert sum(line.startswith("  forward ") for line in lines) == 1
    assert lines[-2] == profile.advice
    assert lines[-1] == f"trace: {profile.folder / 'trace.json'}"
    assert json.loads((profile.folder / "profile.json").read_text())["advice"] == profile.advice


@pytest.fixture
def ticking(monkeypatch):
    """A trainer, whose losses are counted, before clocks that move on by a second whenever one looks at them."""
    for module in (anatomy, rehearsal):
        ticks = count()
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda ticks=ticks: next(ticks)))
    read = config.read(SMALL, {"augment.flip_vertical": True})
    data = assemble.load_data(read)
    trainer = assemble.make_trainer(read, data, assemble.build_model(read, data), lambda line: None)
    losses, step = [], trainer.step
    trainer.step = lambda *batch: losses.append(step(*batch)) or losses[-1]
    return trainer, losses


def test_warm_steps_are_counted_and_of_parts_within_parts_the_inner_one_is_charged(ticking):
    trainer, losses = ticking
    backward = torch.Tensor.backward
    found = anatomy.dissect(trainer, 3)
    assert torch.Tensor.backward is backward  # and no longer watched
    assert found.seconds == dict.fromkeys(PARTS, 1) | {"waiting for data": 2, "the rest": 6}
    assert (found.model, found.loader) == (3 * 32, 3 * 32)
    assert len(losses) == 2 * (anatomy.WARM_UPS + 3)


def test_an_epoch_is_reckoned_from_a_few_steps_and_one_judged_batch(ticking):
    trainer, losses = ticking
    judged = []
    trainer.model.register_forward_hook(lambda net, *_: None if net.training else judged.append(net))
    seconds = rehearsal.seconds_an_epoch(trainer, 0)
    assert seconds == len(trainer.feed.batches) + len(trainer.feed.val_batches)
    assert (len(losses), len(judged)) == (1 + rehearsal.STEPS, 1)
    assert rehearsal.loader_rate(trainer.feed.batches, seconds=4) == 5 * 32 / 6


class Slow:
    """Images that are slow to read, as from a slow disk."""

    def __init__(self, images):
        self.images, self.shape = images, images.shape

    def __len__(self):
        return len(self.images)

    def take(self, indices):
        time.sleep(0.2)
        return self.images.take(indices)


def test_a_slow_loader_is_found_out(tmp_path):
    read = config.read(SMALL)
    data = assemble.load_data(read)
    object.__setattr__(data.train, "images", Slow(data.train.images))
    found = profiling.profile(read, steps=3, out=tmp_path, data=data)
    assert found.advice.startswith("the loader is the bottleneck")
    assert found.anatomy.loader < found.anatomy.model


def test_growing_images_are_timed_once_they_have_grown():
    read = config.read(SMALL, {"model.name": "resnet20", "augment.grows_from": 0.5, "train.epochs": 5})
    data, sides = assemble.load_data(read), set()
    trainer = assemble.make_trainer(read, data, assemble.build_model(read, data), lambda line: None)
    trainer.model.register_forward_pre_hook(lambda net, given: sides.add(given[0].shape[-1]))
    rehearsal.seconds_an_epoch(trainer, 0)
    anatomy.dissect(trainer, 1)
    assert sides == {32}


@pytest.mark.parametrize(
    ("part", "overrides", "words"),
    [
        ("waiting for data", ["--data.cache=none"], "set data.cache auto"),
        ("waiting for data", [], "photos resized on disk"),
        ("augmentation", [], "augmentation takes 50%"),
        ("optimiser", [], "raise train.batch_size"),
        ("average of weights", [], "raise train.batch_size"),
        ("loss", ["--loss.teacher=runs/a"], "the teacher takes 50% of a step: a smaller loss.teacher"),
        ("loss", [], "the net itself is the bottleneck"),
        ("forward", ["--loss.teacher=runs/a"], "the net itself is the bottleneck"),
        ("forward", ["--train.channels_last=false"], "train.channels_last true would make it faster"),
        ("forward", [], "a smaller data.size or net would make it faster"),
    ],
)
def test_advice_names_the_narrow_one_and_the_remedy(part, overrides, words):
    seconds = dict.fromkeys(PARTS, 0.0) | {"backward": 1.0, part: 1.0}
    parts = Anatomy(32, seconds, 100.0, 100.0)
    assert words in profiling.advice(parts, config.read(overrides=overrides), "cpu", "fp32")


@pytest.mark.parametrize(
    ("device", "precision", "ways"),
    [
        ("cuda", "fp32", "train.precision bf16 and train.channels_last true and train.compile true"),
        ("cuda", "bf16", "train.channels_last true and train.compile true"),
        ("mps", "fp32", "train.precision bf16"),
    ],
)
def test_advice_is_what_the_device_has_to_offer(device, precision, ways):
    parts = Anatomy(32, dict.fromkeys(PARTS, 0.0) | {"backward": 1.0}, 100.0, 100.0)
    slow = config.read(overrides=["--train.channels_last=false", "--train.compile=false"])
    assert f"as it should be: {ways} would make" in profiling.advice(parts, slow, device, precision)


def test_the_command_takes_a_file_and_keys_and_touches_no_run(tmp_path, cli):
    (tmp_path / "c.yaml").write_text("run: runs/mine\ntrain: {epochs: 1, batch_size: 16}")
    keys = ["--train.batch_size", "24", "--model", "mlp", "--run=runs/other"]
    code, out, _ = cli("profile", "--config", "c.yaml", "--steps", 1, *keys)
    assert code == 0
    assert "mlp on digits" in out
    assert "batches of 24, 1 steps" in out
    assert not (tmp_path / "runs").exists()
    assert (tmp_path / "profiles" / "other" / "trace.json").exists()


def test_a_run_without_steps_is_told():
    nothing = {"model": {"head": "probe"}, "train": {"epochs": 0}}
    with pytest.raises(InputError, match=r"train\.epochs is 0, so there is no step to profile"):
        profiling.profile(nothing)
    with pytest.raises(InputError, match="data is a list; give images of your own a name"):
        profiling.profile(SMALL, data=[])
    with pytest.raises(InputError, match="steps is 0, but must be a whole number of at least 1"):
        profiling.profile(SMALL, steps=0)


def test_where_no_trace_can_be_written_is_told_before_any_step(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(anatomy, "dissect", None)
    with pytest.raises(InputError, match=r"profile\.json cannot be written"):
        profiling.profile(SMALL, out=tmp_path / "file")
