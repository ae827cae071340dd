"""Sides take turns, are checked to give the same, and only their ratios are told."""

import contextlib
import json
import math
import multiprocessing
import os
import time
import warnings
from functools import partial
from pathlib import Path
from unittest.mock import MagicMock

import photos
import pytest
import torch
from conftest import PRELOADED
from PIL import Image

from cnnzoo import benchmark, config
from cnnzoo.benchmark import cifar, decoding, harness, inference, overhead, peers, small, steps
from cnnzoo.benchmark import photos as training_photos
from cnnzoo.benchmark.apart import Apart
from cnnzoo.benchmark.harness import Bench, Results, TimeUp, Unequal
from cnnzoo.errors import InputError

CPU = torch.device("cpu")


def test_sides_take_turns_and_warm_up_first():
    calls = []
    sides = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    rows = list(Bench("X", CPU, rounds=3).contest("what", lambda: calls.append("ours"), sides, work=10))
    assert calls == ["ours", "a", "b"] * 4
    assert [(row.peer, row.rounds) for row in rows] == [("a", 3), ("b", 3)]


def test_rounds_beyond_the_time_there_is_are_left_out_but_for_one():
    slow = partial(time.sleep, 0.01)
    (row,) = Bench("X", CPU, rounds=5, until=time.monotonic() + 0.03).contest("what", slow, {"a": slow}, work=1)
    assert row.rounds == 1
    with pytest.raises(TimeUp, match="no time was left for what"):
        next(Bench("X", CPU, until=time.monotonic()).contest("what", slow, {"a": slow}, work=1))


def test_no_contest_on_a_gpu_is_compiled_for_the_sizes_of_another(monkeypatch):
    did = []
    monkeypatch.setattr(harness, "wait", lambda device: None)
    monkeypatch.setattr(torch.compiler, "reset", lambda: did.append("reset"))
    list(Bench("X", torch.device("cuda"), rounds=1, warm_ups=0).contest("what", lambda: did.append("ran"), {}, work=1))
    assert did == ["reset", "ran"]


def test_the_ratio_is_the_median_over_rounds_not_that_of_the_medians():
    row = Bench("X", CPU).row("what", "peer", [1.0, 2.0, 4.0], [2.0, 2.0, 12.0], work=10)
    assert (row.ratio, row.lowest, row.highest) == (2.0, 1.0, 3.0)
    assert (row.ours, row.theirs) == (5.0, 5.0)


def test_sides_that_differ_are_not_timed():
    calls = []

    def peer():
        calls.append(1)
        return torch.tensor([1.0, 2.1])

    contest = Bench("X", CPU).contest("net", lambda: torch.tensor([1.0, 2.0]), {"peer": peer}, 1, agree=1e-3)
    with pytest.raises(Unequal, match=r"net, peer: outputs differ by 4\.8e-02 of the largest, where 1e-03 is allowed"):
        next(contest)
    assert calls == [1]


def test_results_are_a_table_for_people_and_for_programs(tmp_path):
    row = Bench("X", CPU).row("what", "peer", [1.0], [2.5], work=1000, unit="images/s", wanted=2.0, note="a note")
    results = Results({"processor": "some", "torch": "2"}, [row], {"Y": "not run: there is no GPU"})
    folder = results.write(tmp_path / "out")
    assert json.loads((folder / "benchmark.json").read_text()) == results.to_dict()
    lines = (folder / "benchmark.md").read_text().splitlines()
    assert lines[0] == "processor some, torch 2"
    assert lines[4] == "| X | what | peer | **2.50** | 2.50 to 2.50 | 2 | 1,000 | 400 images/s | a note |"
    assert lines[5].endswith("| not run: there is no GPU |")
    assert {line.count("|") for line in lines[2:]} == {10}
    assert str(row).startswith("X    what | peer: 2.50 times (2.50 to 2.50 in 1 rounds, asked 2); 1,000 against 400")


def test_every_benchmark_says_what_it_measures():
    for each in benchmark.SUITE.values():
        named, _, about = each.run.__doc__.partition(": ")
        assert each.name in named.split(" and ")
        assert each.about == about.splitlines()[0].strip()
        assert each.about.endswith(".")  # and not amid a sentence


@pytest.mark.parametrize("name", ["googlenet", "xception", "resnet18"])
def test_peers_have_our_values(name):
    net, peer, library = peers.pair(name, CPU, **({"aux_logits": False} if name == "googlenet" else {}))
    assert library == ("timm" if name == "xception" else "torchvision")
    with torch.inference_mode():
        images = torch.randn(1, 3, 96, 96)
        torch.testing.assert_close(net.eval()(images), peer.eval()(images), rtol=1e-4, atol=1e-5)


def test_inference_is_measured_beside_its_peers(monkeypatch):
    monkeypatch.setattr(peers, "SEVEN", ("googlenet",))
    monkeypatch.setitem(inference.BATCHES, "googlenet", 1)
    told = []
    results = benchmark.run(["C1b"], rounds=1, tell=told.append)
    assert [row.peer for row in results.rows] == ["torchvision, eager fp32", "torchvision, eager fp32, channels-last"]
    assert told == list(map(str, results.rows))
    assert results.machine["torch"] == torch.__version__.partition("+")[0]


def test_training_is_measured_beside_its_peers(monkeypatch):
    monkeypatch.setattr(steps, "CPU_BATCHES", {"resnet18": 1})
    monkeypatch.setattr(peers, "size_of", lambda name: 64)
    monkeypatch.setattr(Bench, "side", lambda bench, make, *args: make(bench.device, *args))  # spares four processes
    rows = benchmark.run(["C2"], rounds=1).rows
    assert [row.peer for row in rows] == [
        "torchvision, defaults (fp32)",
        "timm, defaults (fp32)",
        "torchvision, best flags",
    ]


def test_a_side_may_have_a_process_of_its_own():
    side = Apart(partial, time.sleep, 0.0)
    assert list(Bench("X", CPU, rounds=2).contest("what", side, {"here": lambda: None}, work=1))
    with pytest.raises(OSError, match="closed"):
        side()  # the contest has ended it


def test_what_goes_wrong_in_the_other_process_is_told(monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: PRELOADED)  # spares an import of torch
    with pytest.raises(RuntimeError, match=r"^TypeError: math.sqrt\(\) takes exactly one argument"):
        Apart(partial, math.sqrt, 1, 2)()


def test_the_trainers_overhead_is_measured_step_by_step():
    rows = list(overhead.overhead(Bench("C8", CPU), steps=20))
    assert [row.rounds for row in rows] == [18, 18]


def test_small_images_are_fed_as_bytes_and_as_floats():
    rows = small.feed(Bench("C5", CPU, rounds=1))
    assert [row.what for row in rows] == ["feeding 32x32, uint8 out", "feeding 32x32, float out"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_needs_a_gpu_says_so(cli, tmp_path):
    code, out, _ = cli("benchmark", "G1", "G9", "--out", tmp_path / "b", "--quick")
    assert code == 0
    assert out.splitlines() == [
        "G1   not run: there is no GPU",
        "G9   not run: there is no GPU",
        f"tables: {tmp_path / 'b'}",
    ]


def test_the_command_lists_the_suite(cli):
    code, out, _ = cli("benchmark", "list")
    assert code == 0
    assert len(out.splitlines()) == len(benchmark.SUITE)


def test_an_unknown_benchmark_is_told_before_any_is_run():
    with pytest.raises(InputError, match="unknown benchmark 'C1bb'; did you mean C1b"):
        benchmark.run(["C9", "C1bb"])


# ---- G3, G5 and G6, as small as a CPU can bear

# What airbench94's script reads, and what it prints; its trainings take no time here.
READS = """
import torch
parts = {name: torch.load(f"cifar10/{name}.pt") for name in ("train", "test")}
images, labels = parts["test"]["images"], parts["test"]["labels"]
assert images.dtype == torch.uint8 and images.shape[1:] == (32, 32, 3) and len(parts["train"]["classes"]) == 3
assert labels.bincount().tolist() == [4, 4, 4]
"""
PRINTS = """
print("|  run     |  epoch  |  train_acc  |  val_acc  |  tta_val_acc  |  time_seconds  |")
for run in range(1000):
    print(f"|  {run:>6}  |      0  |     0.9000  |   0.9000  |               |        0.1000  |")
    print(f"|          |   eval  |     1.0000  |   0.9500  |       {GOAL:.4f}  |        {8 + run:.4f}  |")
"""


@pytest.fixture(scope="module")
def small_cifar(tmp_path_factory):
    """Pictures of three kinds, laid out as cifar10_jpeg is, and a recipe for them."""
    root = tmp_path_factory.mktemp("data")
    for part, each in (("train", 16), ("test", 4)):
        photos.folder(root / "cifar10_jpeg" / part, each)
    recipe = cifar.RECIPE | {
        "model": {"name": "lenet5"},
        "augment": {},
        "optim": {"lr": 0.05, "momentum": 0.9},
        "train": {"epochs": 6, "batch_size": 16},
    }
    return root, recipe


def script_of(folder, goal: float, reads: str = "") -> str:
    (folder / "airbench.py").write_text(reads + PRINTS.replace("GOAL", str(goal)))
    return str(folder / "airbench.py")


@pytest.fixture
def g3(small_cifar, monkeypatch):
    """Run G3 on the small set; returns its rows and notes."""
    root, recipe = small_cifar
    monkeypatch.setenv("CNNZOO_DATA", str(root))
    monkeypatch.setattr(cifar, "RECIPE", recipe)
    monkeypatch.setattr(cifar, "SEEDS", 3)

    def run(script: str | None):
        monkeypatch.delenv("CNNZOO_AIRBENCH", raising=False)
        if script:
            monkeypatch.setenv("CNNZOO_AIRBENCH", script)
        bench = Bench("G3", CPU, rounds=1)
        return list(cifar.until_94(bench)), bench.notes

    return run


def test_airbench_sets_the_goal_on_the_same_pixels(g3, tmp_path):
    (row,), notes = g3(script_of(tmp_path, 0.5, READS))
    assert row.what == "lenet5 on cifar10_jpeg until 50.00%"
    assert row.rounds == 3
    assert row.theirs == pytest.approx(1 / 10)  # of 9, 10 and 11 seconds; its first training warms up
    assert row.note.endswith("3 seeds; airbench94: 50.00% (deviation 0.00%)")
    assert not notes


def test_who_does_not_come_to_the_goal_is_not_timed(g3, tmp_path):
    rows, (note,) = g3(script_of(tmp_path, 1.01))
    assert not rows
    assert note.startswith("lenet5 on cifar10_jpeg: ")
    assert note.endswith("; 101.00% was not reached")


def test_without_airbench_ours_runs_alone_and_says_so(g3):
    rows, (alone, note) = g3(None)
    assert not rows
    assert alone == "alone: $CNNZOO_AIRBENCH names no script, such as airbench94_muon.py"
    assert "after 6 epochs and " in note
    assert "3 seeds; 94.00% " in note


def test_an_airbench_that_fails_is_quoted(g3, tmp_path):
    (tmp_path / "airbench.py").write_text("raise SystemExit('no CUDA here')")
    rows, (failed, _) = g3(str(tmp_path / "airbench.py"))
    assert not rows
    assert failed == f"airbench94 did not run: {tmp_path / 'airbench.py'}: no CUDA here"


@pytest.mark.parametrize(
    ("recipe", "file"),
    [(cifar.RECIPE, "wrn_16_4_cifar10_94.yaml"), (small.MNIST, "lenet5_mnist_fast.yaml")],
    ids=["G3", "C7"],
)
def test_a_benchmark_trains_what_the_config_says(recipe, file):
    assert config.read(recipe) == config.read(Path(__file__).parent.parent / "configs" / file)


@pytest.fixture
def real_photos(data_root):
    if not (data_root / "imagenet_samples").is_dir():
        pytest.skip("CNNZOO_DATA has no imagenet_samples")


SMALL = training_photos.Size(photos=20, held_out=10, side=32, batch=10, workers=0, epochs=(2, 1))


def test_photos_are_made_of_real_ones_and_all_differ(tmp_path):
    photos.folder(tmp_path / "real", each=1)
    training_photos.make_photos(tmp_path / "made", sorted((tmp_path / "real").rglob("*.png")), range(20))
    files = sorted((tmp_path / "made").rglob("*.jpg"))
    assert [file.parent.name for file in files] == [kind for kind in "0123456789" for _ in range(2)]
    assert len({file.read_bytes() for file in files}) == 20
    for file in files:
        with Image.open(file) as photo:
            assert photo.size == (500, 375)


@pytest.mark.parametrize(
    ("measure", "beside"),
    [
        (decoding.crops, ["torchvision", "timm without colours", "torchvision", "timm"]),
        (decoding.evaluated, ["torchvision", "timm"]),
        (decoding.decoders, ["PIL", "OpenCV", "torchvision.io"]),
        (decoding.cached, ["torchvision"]),
    ],
)
def test_decoding_is_measured_on_two_kinds_of_photos(real_photos, monkeypatch, measure, beside):
    monkeypatch.setattr(decoding, "COUNT", 4)
    monkeypatch.setattr(Bench, "side", lambda bench, make, *args: make(bench.device, *args))
    monkeypatch.setattr(decoding, "_on_one_core", lambda: None)
    rows = list(measure(Bench("C3", CPU, rounds=1)))
    assert [row.peer for row in rows] == beside * 2
    assert [row.what for row in rows if "sharp" in row.what] == [row.what for row in rows[len(beside) :]]


def test_crops_that_are_not_torchvisions_are_not_timed(real_photos, monkeypatch):
    monkeypatch.setattr(decoding, "COUNT", 4)
    monkeypatch.setattr(decoding, "LEVELS", 0)
    with pytest.raises(Unequal, match=r"a crop differs by [12] levels, where 0 are allowed"):
        list(decoding.crops(Bench("C3", CPU, rounds=1)))


def test_what_the_first_training_waits_for_is_not_among_the_seconds_of_ours(monkeypatch):
    trained = []

    def trainer_of(net, batches, val, config, on_epoch):
        trained.append(config.train.epochs)
        return MagicMock(fit=lambda: on_epoch(MagicMock(val_top1=0.99, seconds=60.0 / len(trained)), True))

    stand_ins = {"_has_mnist": lambda bench: True, "_mnist": lambda *_: (None, None), "trainer_of": trainer_of}
    for name, stand_in in (stand_ins | {"_plain_seconds": lambda bench: 90.0}).items():
        monkeypatch.setattr(small, name, stand_in)
    assert [row.ratio for row in small.mnist(Bench("G4", CPU))] == [3.0]
    assert trained == [1, 5]


def test_epochs_over_photos_are_measured_cold_and_warm(real_photos):
    rows = list(training_photos.epochs(Bench("G5", CPU, rounds=1, warm_ups=0), SMALL, {"resnet18": 4.0}))
    assert [(row.what.rpartition(", ")[2], row.peer, row.wanted) for row in rows] == [
        ("first epoch", "torchvision, defaults (fp32)", None),
        ("first epoch", "torchvision, best flags", 1.8),
        ("later epochs", "torchvision, defaults (fp32)", None),
        ("later epochs", "torchvision, best flags", 4.0),
    ]


def test_transfer_is_measured_as_whole_runs(real_photos):
    cache = os.environ["CNNZOO_CACHE"]
    rows = list(training_photos.transfer(Bench("G6", CPU, rounds=1, warm_ups=0), SMALL, "resnet18"))
    assert [(row.what.split(", ")[1], row.peer, row.wanted) for row in rows] == [
        ("linear probe", "plain loop, torchvision, defaults (fp32)", 25.0),
        ("linear probe", "plain loop, torchvision, best flags", None),
        ("fine-tuning", "plain loop, torchvision, defaults (fp32)", 1.4),
        ("fine-tuning", "plain loop, torchvision, best flags", None),
    ]
    assert os.environ["CNNZOO_CACHE"] == cache


@pytest.mark.parametrize(
    ("measure", "lacking"),
    [
        (cifar.until_94, "neither CIFAR-10 (cifar-10-batches-py) nor cifar10_jpeg"),
        (decoding.crops, "no imagenet_samples"),
        (training_photos.epochs, "no imagenet_samples"),
        (training_photos.transfer, "no imagenet_samples"),
    ],
)
def test_without_real_images_there_is_nothing_to_measure(measure, lacking, tmp_path, monkeypatch):
    monkeypatch.setenv("CNNZOO_DATA", str(tmp_path))
    bench = Bench("G", CPU, rounds=1)
    assert list(measure(bench)) == []
    assert bench.notes == [f"not run: $CNNZOO_DATA has {lacking}"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InputError("the loss is nan"), "the loss is nan"),
        (RuntimeError("no kernel\n  for this"), "no kernel for this"),
        (OSError("image file is truncated"), "image file is truncated"),
    ],
    ids=["ours", "a peer's", "a file's"],
)
def test_a_benchmark_that_cannot_run_does_not_keep_others_from_it(monkeypatch, error, told):
    def broken(bench):
        """X: never."""
        raise error
        yield

    monkeypatch.setitem(benchmark.SUITE, "X", benchmark.Benchmark("X", broken))
    results = benchmark.run(["X"], rounds=1)
    assert (results.rows, results.notes) == ([], {"X": f"not timed: {told}"})


def test_a_benchmark_that_takes_too_long_is_stopped_with_its_rows_kept_and_the_others_go_on(monkeypatch):
    def endless(bench):
        """X: never."""
        yield bench.row("what", "peer", [1.0], [2.0])
        while True:
            with contextlib.suppress(Exception):  # as code does that tries things out
                time.sleep(1)

    def brief(bench):
        """Y: at once."""
        yield bench.row("what", "peer", [1.0], [2.0])

    for name, function in {"X": endless, "Y": brief}.items():
        monkeypatch.setitem(benchmark.SUITE, name, benchmark.Benchmark(name, function))
    kept = []
    results = benchmark.run(["X", "Y"], keep=lambda found: kept.append(len(found.rows)), minutes=0.3 / 60)
    assert [row.benchmark for row in results.rows] == ["X", "Y"]
    assert results.notes == {"X": "stopped, since its time was up"}
    assert kept == [1, 1, 2, 2]
    with pytest.raises(InputError, match="minutes is 0, but must be more than 0"):
        benchmark.run(["Y"], minutes=0)


def test_only_waiting_for_the_gpu_is_counted_as_such(monkeypatch):
    """torch warns of its means to see that, once, in words much like those of what it sees."""
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: warnings.warn(SYNC_MODE, stacklevel=1))
    calls = iter(range(100))

    def waiting() -> None:
        if next(calls):  # the first one is not watched
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    assert overhead._syncs(lambda: None) == 0
    assert overhead._syncs(waiting) == 1


SYNC_MODE = "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations"


def test_what_is_measured_is_kept_though_the_rest_is_stopped(monkeypatch, tmp_path, cli):
    def stopped(bench):
        """X: never."""
        raise KeyboardInterrupt
        yield

    monkeypatch.setitem(benchmark.SUITE, "X", benchmark.Benchmark("X", stopped))
    first = "G1" if not torch.cuda.is_available() else "C9"
    assert cli("benchmark", first, "X", "--out", tmp_path / "b").code == 130
    kept = json.loads((tmp_path / "b" / "benchmark.json").read_text())
    assert kept["rows"] or kept["notes"]


def test_a_folder_that_cannot_be_is_told_before_anything_is_measured(monkeypatch, tmp_path, cli, fails):
    measured = []
    monkeypatch.setitem(benchmark.SUITE, "X", benchmark.Benchmark("X", lambda bench: measured.append(bench) or ()))
    assert cli("benchmark", "X", "--out", tmp_path / "folder").code == 0
    (tmp_path / "file").touch()
    fails("benchmark", "X", "--out", tmp_path / "file")
    assert len(measured) == 1
