"""Several processes that train one net together, as torchrun starts them: here by gloo, on the CPU."""

import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PRELOADED
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import cnnzoo
from cnnzoo import assemble
from cnnzoo import config as config_
from cnnzoo.checkpoint import Run
from cnnzoo.cli import main
from cnnzoo.errors import InputError, Interrupted
from cnnzoo.files import read_torch
from cnnzoo.train import distributed, rehearsal
from cnnzoo.train.distributed import Team

SCRIPT = Path(__file__).parent.parent / "scripts" / "train.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
SHORT = {
    "model.name": "lenet5",
    "data.source": "digits",
    "augment.rotation": 10,
    "augment.flip": "true",
    "augment.cutmix": 1.0,
    "optim.lr": 0.05,
    "train.epochs": 2,
    "train.batch_size": 64,
    "train.ema": "auto",
    "train.device": "cpu",
}

NUMBERS = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": "1"}


def keys(folder: Path, **changes) -> list[str]:
    return [f"--run={folder}", *(f"--{key}={value}" for key, value in (SHORT | changes).items())]


@dataclass(frozen=True)
class Said:
    """What the processes of a team said, and whether all of them came to their end."""

    succeeded: bool
    stdout: str
    stderr: str


def member(arguments: list[str], nets: str) -> None:
    """What each process of a team does."""
    os.environ["CNNZOO_NETS"] = nets
    torch.set_num_threads(1)
    sys.exit(main(["train", *arguments]))


@pytest.fixture
def team(tmp_path, monkeypatch):
    """Train by so many processes, which torchrun's own agent starts here and now."""

    def train(processes: int, *arguments: str, nets: Path | str = "") -> Said:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # or it warns
        logs = tmp_path / "logs"
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            run_id="mine",
            max_restarts=0,
            start_method=PRELOADED.get_start_method(),
            logs_specs=DefaultLogsSpecs(log_dir=str(logs), redirects=Std.ALL),
        )
        handlers = {number: signal.getsignal(number) for number in signal.Signals if number not in (9, 19)}
        try:
            elastic_launch(config, member)(list(arguments), str(nets))
            succeeded = True
        except ChildFailedError:
            succeeded = False
        finally:
            for number, handler in handlers.items():
                if signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
        said = ("".join(file.read_text() for file in sorted(logs.rglob(name))) for name in ("stdout.log", "stderr.log"))
        return Said(succeeded, *said)

    return train


def alone(folder: Path, resume: str | None = None, **changes) -> None:
    """The same training by this one process."""
    cnnzoo.train(config_.read({}, keys(folder, **changes)), resume=resume)


@contextmanager
def torchrun(processes: int, restarts: int, *arguments: str):
    line = [*TORCHRUN, str(processes), "--max-restarts", str(restarts), "--", str(SCRIPT), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def metrics(folder: Path) -> list[dict]:
    file = folder / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def apart(one: Path, other: Path) -> float:
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


def test_three_processes_end_in_the_weights_of_one_and_count_every_image_once(tmp_path, team):
    thirds = {"train.batch_size": 66}  # and 359 held-out digits in three unequal parts
    alone(tmp_path / "alone", **thirds)
    said = team(3, *keys(tmp_path / "run", **thirds, **{"train.accumulate": 2}))
    assert said.succeeded, said.stderr
    assert apart(tmp_path / "alone", tmp_path / "run") < 1e-5
    assert said.stdout.count("epoch 1/2") == 1  # one speaks for all
    with np.load(tmp_path / "run" / "predictions.npz") as arrays:  # by one process, from the weights that were kept
        right = arrays["logits"].argmax(1) == arrays["targets"]
    assert len(right) == 359
    assert right.mean() == pytest.approx(max(report["val_top1"] for report in metrics(tmp_path / "run")))


def wait_for(holds, process: subprocess.Popen, seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_a_killed_worker_is_replaced_and_a_stopped_team_goes_on_as_one_process_with_nothing_lost(tmp_path):
    folder, changes = tmp_path / "run", {"train.epochs": 10}
    alone(tmp_path / "whole", **changes)
    with torchrun(2, 1, *keys(folder, **changes)) as team:
        wait_for(lambda: len(metrics(folder)) >= 1, team)
        workers = subprocess.run(["pgrep", "-P", str(team.pid)], capture_output=True, text=True).stdout.split()
        os.kill(int(workers[-1]), signal.SIGKILL)
        reached = len(metrics(folder))
        wait_for(lambda: len(metrics(folder)) > reached, team)
        team.terminate()  # which stops all of them at one step
        team.communicate(timeout=120)
    assert 2 <= len(metrics(folder)) < 10
    alone(folder, resume="auto", **changes)
    assert [report["epoch"] for report in metrics(folder)] == [*range(1, 11)]
    assert apart(tmp_path / "whole", folder) < 1e-5


def be_one_of_two(rank: int, port: int) -> None:
    """What torchrun would tell a process."""
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    torch.set_num_threads(1)


def two(target, *arguments) -> None:
    """Let two processes do something, which must end well; each is given its rank and a port first."""
    with socket.create_server(("localhost", 0)) as found:
        port = found.getsockname()[1]
    both = [PRELOADED.Process(target=target, args=(rank, port, *arguments)) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]


def one_of_two(rank: int, port: int, arguments: list[str], stop_after: int, resume: str | None) -> None:
    """What each process does: train, and stop after so many steps."""
    be_one_of_two(rank, port)
    steps = count()
    with suppress(Interrupted):
        cnnzoo.train(config_.read({}, arguments), resume=resume, should_stop=lambda: next(steps) >= stop_after)


def test_a_team_with_batch_norm_stopped_within_an_epoch_goes_on_to_the_same_statistics(tmp_path):
    """Each process gathers statistics of its own share, of which a saved state has the mean."""

    def team(folder: Path, stop_after: int, resume: str | None = None) -> None:
        arguments = keys(folder, **{"model.name": "resnet20", "data.size": 8, "augment.cutmix": 0})
        two(one_of_two, arguments, stop_after, resume)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    team(whole, stop_after=1000)
    team(parts, stop_after=30)
    assert len(metrics(parts)) == 1
    assert 0 < read_torch(Run(parts).state_file)["progress"]["step"] < 22  # within the second epoch
    team(parts, stop_after=1000, resume="auto")
    assert len(metrics(parts)) == 2
    assert apart(whole, parts) < 1e-5
    losses = [[report["train_loss"] for report in metrics(folder)] for folder in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def unlike(rank: int, port: int, told: str, *each: list[str]) -> None:
    """What each process does: train by its own arguments, which cannot be."""
    be_one_of_two(rank, port)
    platform.node = lambda: f"machine{rank}"
    with pytest.raises(InputError, match=told):
        cnnzoo.train(config_.read({}, each[rank]), resume="auto")


def test_processes_that_do_not_begin_alike_are_told_rather_than_wait_for_each_other(tmp_path):
    where = "process 1, on machine1, differs from the first, on machine0"
    two(unlike, f"{where}: train.epochs is 3 there and 2 here", keys(tmp_path), keys(tmp_path, **{"train.epochs": 3}))
    two(unlike, "train.seed is 1 there and 0 here", keys(tmp_path), keys(tmp_path, **{"train.seed": 1}))
    assert not metrics(tmp_path)
    steps = count()
    with pytest.raises(Interrupted):
        cnnzoo.train(config_.read({}, keys(tmp_path / "own")), should_stop=lambda: next(steps) >= 5)
    told = "its checkpoint is missing there and of epoch 0, step 5 here"  # for the other has a disk of its own
    two(unlike, told, keys(tmp_path / "own"), keys(tmp_path / "elsewhere"))
    alone(tmp_path / "own", resume="auto")  # and to its end, after which the first would leave
    told = "its checkpoint is missing there and of a finished run here"
    two(unlike, told, keys(tmp_path / "own"), keys(tmp_path / "elsewhere"))


def with_its_own(rank: int, port: int, *each: list[str]) -> None:
    """What each process does: train by its own arguments."""
    be_one_of_two(rank, port)
    cnnzoo.train(config_.read({}, each[rank]))


def test_processes_may_have_the_same_images_in_different_places_and_are_told_where_these_are_others(tmp_path, pictures):
    sources = [tmp_path / "here", tmp_path / "there"]
    for source in sources:
        shutil.copytree(pictures, source)
    changes = {"model.name": "resnet20", "data.size": 8, "train.epochs": 1}
    each = [keys(tmp_path / "run", **changes, **{"data.source": source}) for source in sources]
    two(with_its_own, *each)
    assert Run(tmp_path / "run").is_finished
    next(sources[1].rglob("*.png")).unlink()
    each = [keys(tmp_path / "unlike", **changes, **{"data.source": source}) for source in sources]
    two(unlike, "its list of images is .* there and .* here", *each)


def test_a_photo_that_cannot_be_read_is_told_to_those_that_wait_for_the_first_to_decode_it(tmp_path, pictures):
    shutil.copytree(pictures, tmp_path / "photos")
    next((tmp_path / "photos").rglob("*.png")).write_bytes(b"no photo")
    line = keys(tmp_path / "run", **{"model.name": "resnet20", "data.size": 8, "data.source": tmp_path / "photos"})
    two(unlike, "1 file cannot be read", line, line)


def without_gpus(rank: int, port: int) -> None:
    """What each process does where there are no GPUs: all share the CPU, and agree."""
    be_one_of_two(rank, port)
    torch.cuda.device_count = lambda: 0
    with distributed.joined("auto") as (team, device):
        assert device.type == "cpu"
        assert team.any(rank == 0, rank == 1, False) == (True, True, False)
        assert team.gather_lines([f"said by {rank}"]) == ["said by 0", "said by 1"]


def test_processes_without_gpus_share_the_cpu_and_all_hear_what_any_says():
    two(without_gpus)


def tuned(rank: int, port: int, *where: str) -> None:
    """What each process does: fine-tune within a budget, the second one on what seems to be a slower machine."""
    be_one_of_two(rank, port)
    measured = rehearsal.seconds_an_epoch
    rehearsal.seconds_an_epoch = lambda *of: (1 + 19 * rank) * max(measured(*of), 0.2)
    source, weights, folder = where
    options = {"mode": "full", "budget": 120, "run": folder, "overrides": {"train.device": "cpu"}}
    cnnzoo.finetune(source, "resnet20", weights, **options)


def test_a_team_agrees_on_the_epochs_that_a_budget_has_time_for(pictures, weights, tmp_path):
    two(tuned, str(pictures), str(weights), str(tmp_path / "run"))
    assert 0 < config_.read(tmp_path / "run" / "config.yaml").train.epochs < 30


def restarted(rank: int, _: int, port: int, starts: int) -> None:
    """What each process does that was restarted so many times by its own machine's count: they meet."""
    be_one_of_two(rank, port)
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": str(rank * starts)}
    for _ in range(2):  # as folds do
        with distributed.joined("cpu") as (team, _):
            assert team.mean(rank) == 0.5


def test_processes_meet_whose_machines_have_counted_other_restarts():
    agent = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # which outlives teams
    for starts in (1, 1):  # the second time there is all that the team before has left
        two(restarted, agent.port, starts)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_whose_team_never_comes_together_gives_up(monkeypatch, rank):
    agent = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "")  # which be_one_of_two sets for good
    be_one_of_two(rank, agent.port)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setattr(distributed, "PATIENCE", timedelta(seconds=0.5))
    with pytest.raises(InputError, match="the 2 processes of the team did not meet"):
        distributed.joined("cpu").__enter__()


SKIPS = """
import cnnzoo
from torch import nn

@cnnzoo.register("skips", input_size=(1, 8, 8), num_classes=10, head="fc")
class Skips(nn.Module):
    def __init__(self, num_classes=10, in_chans=1):
        super().__init__()
        self.extra, self.fc = nn.Conv2d(in_chans, in_chans, 3, padding=1), nn.Linear(64 * in_chans, num_classes)
        self.steps = 0

    def forward(self, x):
        self.steps += self.training
        return self.fc((self.extra(x) if self.steps % 2 else x).flatten(1))
"""


@pytest.mark.parametrize("told", ["false", "true"])
def test_a_net_that_leaves_layers_out_of_some_steps_is_trained_by_a_team_that_is_told(tmp_path, team, told):
    (tmp_path / "nets.py").write_text(SKIPS)
    changes = {"model.name": "skips", "data.size": 8, "train.epochs": 1, "train.find_unused_parameters": told}
    said = team(2, *keys(tmp_path / "run", **changes), nets=tmp_path / "nets.py")
    assert said.succeeded == (told == "true"), said.stderr
    assert ("set train.find_unused_parameters true" in said.stderr) == (told == "false")


def test_a_team_cross_validates(tmp_path, team):
    line = *keys(tmp_path / "run", **{"train.epochs": 1}), "--folds=2"
    said = team(2, *line)
    assert said.succeeded, said.stderr
    assert said.stdout.count("2 folds: top-1") == 1
    again = team(2, *line)  # the same job, after another machine was lost, of which this one's count says nothing
    assert again.succeeded, again.stderr


def test_what_a_team_cannot_do_is_said_in_a_line_by_the_first_alone(tmp_path, team):
    said = team(2, *keys(tmp_path / "run", **{"train.batch_size": 63}))
    assert not said.succeeded
    (line,) = [line for line in said.stderr.splitlines() if line.startswith("cnnzoo: error:")]
    assert "train.batch_size is 63, which 2 processes cannot share evenly" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("device", "gpus", "told"),
    [
        ("cuda:1", 2, r"train\.device is cuda:1, but each of 2 processes needs a device of its own; say auto"),
        ("auto", 1, "2 processes on .* has 1 GPU; take --nproc-per-node 1, or --train.device cpu"),
        ("cuda", 0, "2 processes on .* has 0 GPUs; take --train.device cpu"),
    ],
)
def test_two_processes_do_not_share_a_gpu(tmp_path, monkeypatch, device, gpus, told):
    for name, value in (NUMBERS | {"MASTER_ADDR": "localhost"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    config = {"run": str(tmp_path / "run"), "data": {"source": "digits"}, "train": {"device": device}}
    with pytest.raises(InputError, match=told):
        cnnzoo.train(config)
    assert not (tmp_path / "run").exists()


class ChosenError(Exception):
    """Ends a process that has no GPU as soon as it has chosen one."""


def choose(device: torch.device) -> None:
    raise ChosenError(str(device))


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize(("rank", "local"), [(0, 0), (2, 0), (3, 1)])
def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch, device, rank, local):
    world = {"WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": local, "MASTER_PORT": 1}
    for name, value in {**world, "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", choose)
    with pytest.raises(ChosenError, match=f"^cuda:{local}$"):
        distributed.joined(device).__enter__()


@pytest.mark.parametrize(
    "world", [{"WORLD_SIZE": "2", "RANK": "0"}, {"WORLD_SIZE": "two"}, {"WORLD_SIZE": ""}, NUMBERS]
)
def test_a_world_that_torchrun_has_not_set_is_told(tmp_path, monkeypatch, fails, world):
    for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in world.items():
        monkeypatch.setenv(name, value)
    told = fails("train", *keys(tmp_path / "run"))
    assert told.startswith(f"WORLD_SIZE is {world['WORLD_SIZE']!r}, but")
    assert "start the processes by torchrun" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("world", [None, "1"])
def test_a_rank_without_a_world_silences_nobody(tmp_path, monkeypatch, cli, no_report, world):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if world:
        monkeypatch.setenv("WORLD_SIZE", world)
    monkeypatch.setenv("RANK", "7")
    assert "epoch 1/1" in cli("train", *keys(tmp_path / "run", **{"train.epochs": 1})).out


def test_statistics_are_synchronised_on_gpus_only():
    config = config_.read({"data": {"source": "digits"}, "train": {"batch_norm": "sync", "device": "cpu"}})
    data = assemble.load_data(config)
    with pytest.raises(InputError, match=r"train\.batch_norm sync needs GPUs"):
        assemble.make_trainer(config, data, assemble.build_model(config, data), print, Team(0, 2))
