"""Sides take turns, are checked to give the same, and only their ratios are told."""

import json

import pytest
import torch

from cnnzoo import benchmark
from cnnzoo.benchmark import inference, peers, training
from cnnzoo.benchmark.harness import Bench, Results, Unequal
from cnnzoo.cli import main
from cnnzoo.errors import InputError

CPU = torch.device("cpu")


def test_sides_take_turns_and_warm_up_first():
    calls = []
    sides = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    rows = list(Bench("X", CPU, rounds=3).contest("what", lambda: calls.append("ours"), sides, work=10))
    assert calls == ["ours", "a", "b"] * 4
    assert [(row.peer, row.rounds) for row in rows] == [("a", 3), ("b", 3)]


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


@pytest.mark.parametrize("name", ["googlenet", "xception", "resnet18"])
def test_peers_have_our_values(name):
    net, peer, library = peers.pair(name, CPU, **({"aux_logits": False} if name == "googlenet" else {}))
    assert library == ("timm" if name == "xception" else "torchvision")
    size = peers.size_of(name)
    with torch.inference_mode():
        images = torch.randn(1, 3, size, size)
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
    monkeypatch.setattr(training, "CPU_BATCHES", {"resnet18": 1})
    rows = benchmark.run(["C2"], rounds=1).rows
    assert [row.peer for row in rows] == [
        "torchvision, defaults (fp32)",
        "timm, defaults (fp32)",
        "torchvision, best flags",
    ]


def test_the_trainers_overhead_is_measured_step_by_step():
    rows = list(training.overhead(Bench("C8", CPU), steps=20))
    assert [row.rounds for row in rows] == [18, 18]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_needs_a_gpu_says_so(capsys, tmp_path):
    assert main(["benchmark", "G1", "G9", "--out", str(tmp_path / "b"), "--quick"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "G1   not run: there is no GPU",
        "G9   not run: there is no GPU",
        f"tables: {tmp_path / 'b'}",
    ]


def test_the_command_lists_the_suite(capsys):
    assert main(["benchmark", "list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(benchmark.SUITE)


def test_an_unknown_benchmark_is_told_before_any_is_run():
    with pytest.raises(InputError, match="unknown benchmark 'C1bb'; did you mean C1b"):
        benchmark.run(["C9", "C1bb"])
