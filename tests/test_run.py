"""From the command line to a prediction: the run folder, resuming, and what happens when things go wrong."""

import contextlib
import copy
import csv
import errno
import functools
import html
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import photos
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import cnnzoo
from cnnzoo import assemble, config, files
from cnnzoo.checkpoint import Run
from cnnzoo.cli import speech
from cnnzoo.data import sources
from cnnzoo.errors import InputError, Interrupted
from cnnzoo.registry import unregister
from cnnzoo.signals import StopSignals, stop_on_signals
from cnnzoo.train import forms, rehearsal
from cnnzoo.train.trainer import Trainer

SHORT = {"model": {"name": "lenet5"}, "train": {"epochs": 2, "batch_size": 128}}


def short(folder, **sections) -> dict:
    return {"run": str(folder), **SHORT, **sections}


def train(*given, **options) -> Run:
    """What is trained for its weights or figures, to which a report would add a second."""
    return cnnzoo.train(*given, with_report=False, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    """lenet5 after three epochs on digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    return cnnzoo.train(short(folder, train={"epochs": 3, "batch_size": 32}))


def weights(folder) -> dict[str, torch.Tensor]:
    return files.read_torch(Run(folder).state_file)["model"]


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- the run folder


def test_a_run_folder_holds_what_the_house_names(finished):
    assert sorted(file.name for file in finished.path.iterdir()) == [
        "config.yaml",
        "environment.json",
        "familiar.npz",
        "last.prev.pt",
        "last.pt",
        "metrics.jsonl",
        "model.safetensors",
        "predictions.npz",
        "report.html",
        "split.json",
    ]


def test_metrics_have_a_line_an_epoch(finished):
    lines = [json.loads(line) for line in finished.metrics_file.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert all({"train_loss", "val_loss", "val_top1"} <= line.keys() and 0 <= line["val_top1"] <= 1 for line in lines)


def test_the_stored_config_is_complete_and_reruns_the_run(finished, tmp_path):
    again = config.read(finished.config_file, [f"--run={tmp_path / 'again'}"])
    sections = "run model data augment loss optim schedule train probe ensemble"
    assert set(vars(again)) == set(sections.split())
    train(again)
    assert equal(weights(finished.path), weights(tmp_path / "again"))


def test_predictions_are_the_best_weights_on_the_validation_images(finished):
    logits, targets = finished.predictions
    assert (logits.dtype, logits.shape, targets.dtype, targets.shape) == (np.float32, (359, 10), np.int64, (359,))
    best = max(line["val_top1"] for line in finished.metrics)
    assert (logits.argmax(1) == targets).mean() == pytest.approx(best)
    assert cnnzoo.evaluate(finished.path).top1 == pytest.approx(best)


def test_the_weights_file_alone_rebuilds_the_net(finished, tmp_path):
    alone = tmp_path / "taken.safetensors"
    shutil.copy(finished.model_file, alone)
    net = cnnzoo.load(alone)
    assert not net.training
    assert net.classes == tuple("0123456789")
    assert net.preprocessing == cnnzoo.load(finished.path).preprocessing
    with safe_open(alone, "pt") as file:
        card = json.loads(file.metadata()["cnnzoo"])
    assert card["name"] == "lenet5"


def test_create_takes_a_run_folder_as_pretrained(finished):
    net = cnnzoo.create("lenet5", pretrained=finished.path, num_classes=3)
    assert net.num_classes == 3
    assert torch.equal(net.c1.weight, cnnzoo.load(finished.path).c1.weight)


def test_the_split_is_stored_and_holds_every_image_once(finished):
    split = finished.split
    assert len(split["train"]) == 1438
    assert len(set(split["train"]) | set(split["val"])) == 1797


def test_the_report_is_one_page_without_the_network(finished):
    page = finished.report_file.read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    for part in (
        "Curves",
        "Confusion matrix",
        "Most confident mistakes",
        "Config",
        "Environment",
        "cnnzoo train --config",
    ):
        assert part in page
    assert f"{cnnzoo.evaluate(finished.path).top1:.2%}" in page


def test_report_is_made_anew(finished, cli):
    before = finished.report_file.read_text()
    finished.report_file.unlink()
    done = cli("report", finished.path)
    assert done.code == 0
    assert finished.report_file.read_text() == before


def test_classes_may_be_called_anything(tmp_path):
    """Between two dollars Matplotlib would read mathematics."""
    source = photos.folder(tmp_path / "prices", each=5, kinds=("a $5_$10", "<b> & 'c'", "ünder\n$" * 20))
    run = cnnzoo.train(short(tmp_path / "run", data={"source": str(source), "size": 32}))
    assert "<td>a $5_$10</td>" in run.report_file.read_text()
    assert "<td>&lt;b&gt; &amp; " in run.report_file.read_text()


def test_of_many_classes_the_table_has_the_numbers_that_the_matrix_shows(tmp_path):
    source = tmp_path / "data"
    for kind in range(41):
        (source / f"kind{kind:02}").mkdir(parents=True)
        for number in range(2):
            photos.picture(kind % 3, number).save(source / f"kind{kind:02}" / f"{number}.png")
    data = {"source": str(source), "size": 32, "val_fraction": 0.5}
    run = cnnzoo.train(short(tmp_path / "run", data=data, train={"epochs": 1}))
    assert "<th>number</th>" in run.report_file.read_text()
    assert "<td>kind40</td><td>40</td><td>1</td>" in run.report_file.read_text()


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(tmp_path):
    (tmp_path / "note").mkdir()
    with pytest.raises(IsADirectoryError) as told:
        Run(tmp_path).write("note", "text")
    assert told.value.filename == str(tmp_path / "note")
    assert [file.name for file in tmp_path.iterdir()] == ["note"]


def test_the_report_says_which_files_are_mistaken(tmp_path):
    source = photos.folder(tmp_path / "data", each=6, kinds=("<b> 'c'", "d", "e"))
    run = cnnzoo.train(short(tmp_path / "run", data={"source": str(source), "size": 32, "val_fraction": 0.5}))
    logits, targets = run.predictions
    wrong = [name for name, right in zip(run.split["val"], logits.argmax(1) == targets, strict=True) if not right]
    assert wrong
    page = run.report_file.read_text()
    for name in wrong:
        told = html.escape(os.path.relpath(name, source))
        assert re.search(rf'title="{re.escape(told)}: [^"]* is [^"]*"', page)
        assert f"<figcaption>{told}: " in page


def test_the_report_begins_with_what_it_is_about(finished):
    page = finished.report_file.read_text()
    assert "<p>lenet5 on digits: 1,438 images to train on, 359 images held out, 10 classes.</p>" in page
    assert ">top-5<" in page
    assert ">best epoch<" in page


class Viewing(torch.nn.Module):
    """A user's net, with the line of PyTorch's first tutorial that images lying channels-last make fail."""

    def __init__(self, num_classes: int = 3, in_chans: int = 3):
        super().__init__()
        self.conv = torch.nn.Conv2d(in_chans, 4, 3)
        self.fc = torch.nn.Linear(4 * 30 * 30, num_classes)
        self.num_classes = num_classes

    def forward(self, x):
        x = self.conv(x)
        return self.fc(x.view(x.size(0), -1))


@pytest.mark.parametrize("in_chans", [3, 1])
def test_a_net_that_views_images_trains_predicts_and_is_judged(tmp_path, in_chans):
    source = photos.folder(tmp_path / "photos", each=40)
    cnnzoo.register("viewing", input_size=(3, 32, 32), num_classes=3, head="fc", first_conv="conv")(Viewing)
    try:
        run = cnnzoo.train(
            {
                "run": str(tmp_path / "run"),
                "model": {"name": "viewing", "in_chans": in_chans},
                "data": {"source": str(source)},
                "train": {"epochs": 2, "batch_size": 16},
            }
        )
        assert len(cnnzoo.predict(run, source)) == 120
        assert len(cnnzoo.predict(run, source / "red")) == 40  # so few go through the net as it is
        assert cnnzoo.evaluate(run.path).count == 24
    finally:
        unregister("viewing")


def test_reading_a_config_moves_nobody(finished, monkeypatch):
    """jsonargparse would change the process's folder, for other threads too, while it reads a file."""
    monkeypatch.setattr(os, "chdir", lambda folder: pytest.fail(f"moved to {folder}"))
    assert config.read(finished.config_file, ["--optim.lr=0.5"]).optim.lr == 0.5


def test_pretrained_weights_bring_their_preprocessing_along(finished, tmp_path):
    run = train(short(tmp_path / "b", model={"name": "lenet5", "pretrained": str(finished.path)}, train={"epochs": 1}))
    assert cnnzoo.load(run).preprocessing == cnnzoo.load(finished).preprocessing
    assert run.metrics[0]["val_top1"] > 0.9


def test_a_net_that_keeps_its_statistics_trains_on_single_images_of_a_single_place(tmp_path):
    cnnzoo.register_data("tiny", np.random.default_rng(0).integers(0, 255, (8, 4, 4, 3), np.uint8), [0, 1] * 4)
    config = {"model": "resnet20", "data": {"source": "tiny", "size": 4}, "run": str(tmp_path / "run")}
    config["train"] = {"epochs": 1, "batch_size": 1, "batch_norm": "keep", "device": "cpu"}
    assert cnnzoo.train(config, with_report=False).is_finished


def test_phases_from_a_config(finished, tmp_path):
    phases = [{"epochs": 1, "trainable": ["head"]}, {"epochs": 1, "rates": {"head": 1, "*": 0.1}}]
    sections = {"model": {"name": "lenet5", "pretrained": str(finished.path)}, "train": {"phases": phases}}
    run = train(short(tmp_path / "c", **sections))
    assert [line["epoch"] for line in run.metrics] == [1, 2]


def test_the_paper_net_trains_with_its_own_loss(tmp_path):
    data = {"source": "digits", "mean": [0.0784], "std": [0.7843]}
    optim = {"lr": 0.02, "clip_norm": 5.0}
    run = train(
        short(
            tmp_path / "d", model={"name": "lenet5_1998"}, data=data, optim=optim, train={"epochs": 6, "batch_size": 32}
        )
    )
    assert run.metrics[-1]["val_top1"] > 0.85


def test_mnist_from_the_real_files(data_root, tmp_path):
    sections = {"model": {"name": "mlp"}, "data": {"source": "mnist", "root": str(data_root)}}
    run = train(short(tmp_path / "m", **sections, train={"epochs": 1, "batch_size": 256}))
    assert run.metrics[0]["val_top1"] > 0.95
    assert len(run.predictions[1]) == 10_000


def test_photos_in_folders(data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("CNNZOO_CACHE", str(tmp_path / "cache"))
    data = {"source": str(data_root / "hymenoptera"), "size": 32}
    run = cnnzoo.train(
        short(
            tmp_path / "p",
            model={"name": "resnet20"},
            data=data,
            train={"epochs": 1, "batch_size": 32},
            augment={"flip": True, "crop": "resized"},
        )
    )
    assert cnnzoo.load(run).classes == ("ants", "bees")
    assert len(run.predictions[1]) == 153


class Careful(nn.Module):
    """Has a filter of its own that stays as it is, and leaves a layer out of some steps."""

    def __init__(self, num_classes: int = 10, in_chans: int = 1):
        super().__init__()
        self.num_classes = num_classes
        self.gabor, self.extra = nn.Conv2d(in_chans, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, num_classes)
        self.gabor.requires_grad_(False).weight.fill_(0.1)
        nn.init.zeros_(self.extra.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.gabor(x).relu()
        if not self.training or torch.rand(()) < 0.5:
            x = x + self.extra(x)
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def careful():
    cnnzoo.register("careful", input_size=(1, 8, 8), num_classes=10, head="fc")(Careful)
    yield "careful"
    unregister("careful")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_net_may_freeze_layers_of_its_own_and_leave_others_out_of_some_steps(careful, tmp_path, optimizer):
    run = cnnzoo.train(short(tmp_path / "r", model={"name": careful}, optim={"name": optimizer, "lr": 0.01}))
    trained = weights(run.path)
    assert trained["gabor.weight"].eq(0.1).all()
    assert not trained["extra.weight"].eq(0).all()


def test_a_net_that_answers_by_no_numbers_is_told_and_not_called_finished(careful, tmp_path, monkeypatch):
    plain = Careful.forward
    monkeypatch.setattr(Careful, "forward", lambda net, x: plain(net, x) / net.training)
    with pytest.raises(InputError, match=r"to 359 held-out images the best net of .* answers by no finite numbers"):
        cnnzoo.train(short(tmp_path / "r", model={"name": careful}, optim={"lr": 0.01}))
    run = Run(tmp_path / "r")
    assert not run.is_finished
    assert run.metrics[-1]["val_top1"] == 0


# ---- resuming

UNTIMED = {"seconds": 0, "images_per_second": 0, "waiting": 0}


def stopped(folder, after: int, **sections) -> Run:
    """A run interrupted after so many steps; before the first it is asked once."""
    steps = iter(range(10_000))
    with pytest.raises(Interrupted):
        cnnzoo.train(short(folder, **sections), should_stop=lambda: next(steps) >= after)
    return Run(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    """What a run comes to that nothing interrupts."""
    return train(short(tmp_path_factory.mktemp("runs") / "whole", **BY_CHANCE))


BY_CHANCE = {"augment": {"rotation": 10, "shift": 0.1, "cutout": 4}, "model": {"name": "lenet5", "drop_rate": 0.3}}


@pytest.mark.parametrize("after", [3, 11, 14])
def test_a_stopped_run_resumes_to_the_weights_it_would_have_had(tmp_path, after, whole):
    run = stopped(tmp_path / "parts", after, **BY_CHANCE)
    train(resume=run.path)
    assert equal(weights(whole.path), weights(run.path))
    assert [{**line, **UNTIMED} for line in whole.metrics] == [{**line, **UNTIMED} for line in run.metrics]


def test_killed_at_any_moment_it_resumes_bit_for_bit(tmp_path, elsewhere):
    """SIGKILL, with a save at every step, mid-epoch or mid-write as it happens; scripts/kill_trials.py makes twenty."""
    sections = {"augment": {"shift": 0.1}, "train": {"epochs": 8, "batch_size": 128}}
    whole = train(short(tmp_path / "whole", **sections))
    killed = Run(tmp_path / "killed")
    saving = config.read(short(killed.path, **sections), ["--train.checkpoint_minutes=0"])
    (tmp_path / "config.yaml").write_text(config.dump(saving))
    process = elsewhere("train", "--config", tmp_path / "config.yaml")
    while not killed.state_file.exists() and process.is_alive():
        time.sleep(0.01)
    time.sleep(random.uniform(0, 1))
    process.kill()
    process.join()
    train(resume=killed.path)
    assert equal(weights(whole.path), weights(killed.path))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("batch", [32, 2000], ids=["many steps", "one step an epoch"])
def test_a_signal_finishes_the_step_saves_and_tells_how_to_go_on(tmp_path, elsewhere, number, code, batch):
    folder, out, err = tmp_path / "my run", tmp_path / "out", tmp_path / "err"
    process = elsewhere("train", "--run", folder, "--train.epochs", 500, "--train.batch_size", batch)
    while not (out.exists() and "\nepoch" in out.read_text()) and process.is_alive():
        time.sleep(0.05)
    os.kill(process.pid, number)
    process.join(120)
    assert process.exitcode == code
    out, err = out.read_text(), err.read_text()
    assert f"cnnzoo train --resume '{folder}'" in out
    assert "go on with" not in out
    assert "Traceback" not in err
    assert Run(folder).load_state()[1] is None


def test_two_worker_counts_give_the_same_weights(tmp_path):
    source, results = photos.folder(tmp_path / "photos", each=24), []
    for workers in (1, 4):
        data = {"source": str(source), "size": 32, "cache": "none", "workers": workers}
        augment = {"flip": True, "crop": "resized"}
        run = train(short(tmp_path / str(workers), data=data, augment=augment, train={"epochs": 2, "batch_size": 8}))
        results.append(weights(run.path))
    assert equal(*results)


def test_resume_auto_starts_or_goes_on(tmp_path):
    train(short(tmp_path / "r"), resume="auto")
    before = weights(tmp_path / "r")
    train(short(tmp_path / "r"), resume="auto")
    assert equal(before, weights(tmp_path / "r"))


@pytest.fixture(scope="module", params=["training", "probe"])
def ended(request, tmp_path_factory) -> dict:
    """The config of a run that has come to its end."""
    learns = {"train": {"epochs": 1}} if request.param == "training" else {"train": {"epochs": 0}}
    head = {"name": "lenet5", "head": "own" if request.param == "training" else "probe"}
    config = short(tmp_path_factory.mktemp("runs") / "r", **learns, model=head)
    cnnzoo.train(config)
    return config


@pytest.mark.parametrize("how", ["folder", "auto", "command"])
def test_a_finished_run_that_is_resumed_says_so_and_stays_as_it_is(ended, cli, how):
    run = Run(ended["run"])
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in run.path.iterdir()}
    told = []
    if how == "command":
        done = cli("train", "--resume", run.path)
        assert done.code == 0
        told = done.out.splitlines()
    else:
        again = cnnzoo.train(
            *([ended] if how == "auto" else []), resume="auto" if how == "auto" else run, tell=told.append
        )
        assert again.path == run.path
    assert told[0] == f"{run.path} is finished, and stays as it is"
    assert [line.partition(":")[0] for line in told[1:]] == ["go on with"] * (how == "command")
    assert before == {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in run.path.iterdir()}
    with pytest.raises(InputError, match="was begun with another config"):
        cnnzoo.train({**ended, "optim": {"lr": 0.2}}, resume="auto")


def test_a_run_that_was_killed_as_its_report_was_drawn_says_how_to_make_it(tmp_path):
    run = train(short(tmp_path / "run", train={"epochs": 1}))
    told = []
    cnnzoo.train(resume=run, tell=told.append)
    assert told == [
        f"{run.path} is finished, and stays as it is; it lacks its report, which cnnzoo report {run.path} makes"
    ]


def test_what_is_there_already_says_how_to_go_on_where_that_is_possible(tmp_path, finished):
    run = stopped(tmp_path / "r", 3)
    with pytest.raises(InputError, match=rf"exists already; go on with it by cnnzoo train --resume {run.path}, or"):
        cnnzoo.probe("digits", "lenet5", finished, run=run)
    with run.locked(), pytest.raises(InputError, match=f"another process is training in {run.path}; choose another"):
        cnnzoo.train(short(run.path))
    with pytest.raises(InputError, match=r"exists already and is finished; choose another folder by run=…$"):
        cnnzoo.train(short(finished.path))


def test_a_finished_run_whose_weights_are_damaged_says_so(tmp_path, finished):
    run = Run(shutil.copytree(finished.path, tmp_path / "r"))
    whole = run.model_file.read_bytes()
    run.model_file.write_bytes(whole[:20_000])
    with pytest.raises(InputError, match=r"model\.safetensors is damaged or cut short"):
        cnnzoo.train(resume=run)
    run.model_file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # a bit of a weight
    with pytest.raises(InputError, match=r"model\.safetensors is damaged .* checksum does not match"):
        cnnzoo.load(run)
    save_file(finished.weights, run.model_file)  # as who edits them may, without the header
    for ask in (cnnzoo.load, cnnzoo.report, lambda run: cnnzoo.train(resume=run), lambda run: run.predictions):
        with pytest.raises(InputError, match=r"model\.safetensors does not say which net it is; restore it"):
            ask(run)
    assert str(run).startswith(f"Run('{run.path}'); ")


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (lambda file: files.write_model(file, {"a": torch.ones(3)}, {"name": "lenet5"}), files.read_card),
        (lambda file: files.write_model(file, {"a": torch.ones(3)}, {"name": "lenet5"}), files.read_safetensors),
        (lambda file: files.write_arrays(file, a=np.ones(3)), lambda file: files.read_arrays(file, "a")),
        (lambda file: torch.save({"a": torch.ones(3), "b": 1}, file), files.read_torch),
    ],
)
def test_whichever_byte_of_a_file_is_damaged_that_is_told_if_anything(tmp_path, write, read):
    write(tmp_path / "file")
    whole = (tmp_path / "file").read_bytes()
    for place in range(min(len(whole), 320)):  # of torch's file the pickle, of the others all
        for bit in (1, 128):
            (tmp_path / "file").write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            with contextlib.suppress(InputError):
                read(tmp_path / "file")


def test_a_checkpoint_for_which_memory_does_not_suffice_is_not_called_damaged(tmp_path, whole, monkeypatch):
    """The one before it would be taken in its stead."""
    run = Run(shutil.copytree(whole.path, tmp_path / "r"))
    full = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to …"

    def load(*_, **__):
        raise RuntimeError(full)

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        run.load_state()


def test_a_finished_run_whose_weights_are_gone_says_so_whatever_is_asked_of_it(tmp_path, finished):
    run = Run(shutil.copytree(finished.path, tmp_path / "r"))
    run.model_file.unlink()
    for ask in (cnnzoo.load, cnnzoo.report, lambda run: cnnzoo.train(resume=run)):
        with pytest.raises(
            InputError, match=r"model\.safetensors is missing: restore it, or run its config\.yaml again"
        ):
            ask(run)


@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"train": 3, "val": 3}', '{"epoch": "1"}'])
@pytest.mark.parametrize("name", ["environment", "split", "metrics", "probe", "soup", "committee"])
def test_a_file_of_a_run_that_lacks_what_it_should_say_is_damaged(tmp_path, finished, name, text):
    run = Run(shutil.copytree(finished.path, tmp_path / "r"))
    file = run.path / f"{name}.json{'l' if name == 'metrics' else ''}"
    file.write_text(text)
    with pytest.raises(InputError, match=rf"{re.escape(str(file))} is damaged or cut short"):
        getattr(run, name)


def test_a_split_of_no_images_is_told(tmp_path, finished, fails):
    run = Run(shutil.copytree(finished.path, tmp_path / "r"))
    (run.path / "split.json").write_text('{"train": [], "val": []}')
    for words in (["report", run.path], ["evaluate", run.path]):
        wanted = f"{run.path / 'split.json'} names no images; restore it, or run its config.yaml again"
        assert fails(*words) == wanted


@pytest.mark.parametrize(
    "change",
    [
        lambda logits, targets: (logits[:5], targets[:5]),
        lambda logits, targets: (logits[:, :3], targets),
        lambda logits, targets: (logits.ravel(), targets),
        lambda logits, targets: (logits * np.nan, targets),
        lambda logits, targets: (logits, targets + 10),
        lambda logits, targets: (logits, targets - 10),
        lambda logits, targets: (logits, targets.astype(str)),
        lambda logits, targets: (logits, targets[:5]),
    ],
)
def test_predictions_that_are_not_the_runs_are_told_and_can_be_made_anew(tmp_path, finished, change):
    run = Run(shutil.copytree(finished.path, tmp_path / "r"))
    logits, targets = run.predictions
    other = dict(zip(("logits", "targets"), change(logits, targets), strict=True))
    np.savez(run.predictions_file, **other)
    way = rf"remove it, and cnnzoo train --resume {run.path} makes it anew"
    with pytest.raises(InputError, match=rf"predictions\.npz is damaged, or another run's; {way}"):
        cnnzoo.report(run)
    run.predictions_file.unlink()
    cnnzoo.train(resume=run)
    assert run.predictions[0] == pytest.approx(logits, abs=1e-5)


def test_a_run_with_damaged_predictions_and_no_state_is_not_told_to_begin_over_its_weights(tmp_path, finished):
    run = Run(shutil.copytree(finished.path, tmp_path / "r"))
    for file in (run.predictions_file, run.state_file, run.state_before):
        file.unlink(missing_ok=True)
    run.predictions_file.write_bytes(b"half")
    way = rf"make the run anew by cnnzoo train --config {run.config_file} --run NEW"
    with pytest.raises(InputError, match=rf"predictions\.npz is damaged, or another run's; {way}"):
        cnnzoo.report(run)


def test_a_run_folder_does_not_lie_among_the_photos(tmp_path, cli, fails, finished):
    source = photos.folder(tmp_path / "photos", each=5)
    (tmp_path / "whole").mkdir()
    for part in ("train", "val"):
        shutil.copytree(source, tmp_path / "whole" / part)
    lenet = ["--model", "lenet5", "--pretrained", finished.path]
    for words in (
        ["probe", source, *lenet],
        ["finetune", source, *lenet, "--lr", "find"],
        ["train", "--data.source", source],
        ["train", "--data.source", source, "--bag", 2],
        ["train", "--data.source", tmp_path / "whole", "--data.val_source", source],
        ["probe", tmp_path / "whole", *lenet],
    ):
        folder = source / "runs" / "x" if words[1] != tmp_path / "whole" else tmp_path / "whole" / "val" / "x"
        why = fails(*words, "--run", folder)
        assert "would lie among the photos of" in why
        assert "choose a folder elsewhere by --run" in why
    for home in (source, tmp_path / "whole" / "val"):
        assert sorted(entry.name for entry in home.iterdir()) == sorted(photos.KINDS)
    cli("probe", tmp_path / "whole", *lenet, "--run", tmp_path / "whole" / "runs" / "x")  # beside train/ and val/
    assert Run(tmp_path / "whole" / "runs" / "x").is_finished


def test_a_run_on_images_in_memory_goes_on_with_them(tmp_path):
    given = config.read(short(tmp_path / "r", data={"source": "mine", "size": 32}, train={"epochs": 2}))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)
    at_hand = pixels, np.arange(40) % 2, ["a", "b"], given.data, given.augment, 32
    data, steps = sources.from_images(*at_hand, decoded=tmp_path), iter(range(100))
    with pytest.raises(Interrupted):
        train(given, data=data, should_stop=lambda: next(steps) > 0)
    assert train(resume=tmp_path / "r", data=data).is_finished


def test_resuming_with_another_config_names_the_difference(tmp_path):
    run = stopped(tmp_path / "r", 3)
    with pytest.raises(InputError, match=r"optim\.lr is 0\.1 there and 0\.2 here"):
        cnnzoo.train(short(run.path, optim={"lr": 0.2}), resume=run.path)


def test_a_run_may_go_on_with_what_does_not_make_it_another_one(tmp_path):
    run = stopped(tmp_path / "r", 3)
    own_affairs = {
        "train.device": "cpu",
        "train.checkpoint_minutes": 5,
        "train.accumulate": 2,
        "train.loggers": ["csv"],
        "train.on_divergence": "rollback",
        "train.find_unused_parameters": True,
        "data.root": str(tmp_path),
        "data.workers": 1,
        "data.bad_files": "skip",
    }
    assert train(resume=run, overrides=own_affairs).is_finished
    assert (run.path / "metrics.csv").exists()


@pytest.mark.parametrize(
    ("line", "edited", "words"),
    [
        ("epochs: 2", "epochs: 9", r"train\.epochs is 2 there and 9 here"),
        ("  seed: 0", "  seed: 1", r"train\.seed is 0 there and 1 here"),
        ("batch_size: 128", "batch_size: 64", r"train\.batch_size is 128 there and 64 here"),
        ("name: lenet5", "name: mlp", r"model\.name is lenet5 there and mlp here"),
        ("name: sgd", "name: adamw", r"optim\.name is sgd there and adamw here"),
        ("name: one_cycle", "name: plateau", r"schedule\.name is one_cycle there and plateau here"),
        ("ema: null", "ema: 0.9", r"train\.ema is None there and 0\.9 here"),
    ],
)
def test_a_run_whose_own_config_was_changed_says_in_what(tmp_path, line, edited, words):
    run = stopped(tmp_path / "r", 15)
    text = run.config_file.read_text()
    assert line in text
    run.config_file.write_text(text.replace(line, edited, 1))
    with pytest.raises(InputError, match=rf"config\.yaml was changed since the run was begun: {words}; change it back"):
        train(resume=run)


def test_a_run_whose_config_names_where_its_teacher_has_moved_goes_on(tmp_path, finished):
    shutil.copytree(finished.path, tmp_path / "teacher")
    run = stopped(tmp_path / "r", 3, loss={"teacher": str(tmp_path / "teacher"), "teacher_weight": 0.5})
    (tmp_path / "teacher").rename(tmp_path / "moved")
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace(str(tmp_path / "teacher"), str(tmp_path / "moved")))
    assert train(resume=run).is_finished


@pytest.mark.parametrize("name", ["split.json", "environment.json"])
def test_a_run_that_lacks_what_it_goes_on_by_says_what_to_do(tmp_path, name):
    run = stopped(tmp_path / "r", 3)
    (run.path / name).unlink()
    with pytest.raises(InputError, match=rf"r/{name} is missing; restore it, or run its config\.yaml again"):
        train(resume=run)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, whole):
    run = stopped(tmp_path / "r", 13, **BY_CHANCE)
    run.save_state(run.load_state()[0])  # two generations
    content = run.state_file.read_bytes()
    run.state_file.write_bytes(content[: len(content) // 2])
    told = []
    train(resume=run.path, tell=told.append)
    assert any("last.pt is damaged" in line and "going on from last.prev.pt" in line for line in told)
    assert equal(weights(whole.path), weights(run.path))


def test_what_another_program_has_put_in_a_checkpoints_place_is_damage_too(tmp_path):
    run = Run(tmp_path)
    run.save_state({"step": 1})
    run.save_state({"step": 2})
    torch.save(torch.zeros(3), run.state_file)
    state, wrong = run.load_state()
    assert state == {"step": 1}
    assert wrong.endswith("last.pt is damaged: its checksum does not match; going on from last.prev.pt")


def test_a_flipped_bit_is_noticed(tmp_path):
    run = stopped(tmp_path / "r", 3)
    content = bytearray(run.state_file.read_bytes())
    place = content.find(run.load_state()[0]["model"]["f6.weight"].numpy().tobytes()[:64])
    assert place > 0
    content[place] ^= 1
    run.state_file.write_bytes(content)
    run.state_before.unlink(missing_ok=True)
    with pytest.raises(InputError, match="damaged"):
        run.load_state()


def test_a_disk_that_fills_leaves_the_last_good_checkpoint(tmp_path, elsewhere):
    run = stopped(tmp_path / "r", 3)
    good = run.state_file.read_bytes()
    # Nothing larger than 100 kB can be written, as on a full disk.
    full = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100_000, 100_000))
    process = elsewhere("train", "--resume", run.path, first=full)
    process.join(120)
    assert process.exitcode == 2
    (line,) = (tmp_path / "err").read_text().splitlines()
    assert line.startswith("cnnzoo: error: ")
    assert run.state_file.read_bytes() == good
    assert not [file for file in run.path.iterdir() if file.name.endswith(".part")]
    train(resume=run.path)


def test_a_run_outlives_a_disk_that_is_full_for_a_while(tmp_path, whole):
    told, limits = [], resource.getrlimit(resource.RLIMIT_FSIZE)

    def tell(line: str) -> None:
        told.append(line)
        if "cannot be written" in line:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        run = cnnzoo.train(short(tmp_path / "r", **BY_CHANCE), tell=tell)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [line for line in told if "cannot be written" in line] == [
        f"File too large: {run.path} cannot be written; the run goes on, and tries again"
    ]
    assert equal(weights(whole.path), weights(run.path))
    assert len(run.metrics) == 2
    assert cnnzoo.load(run).classes == cnnzoo.load(whole).classes


def test_photos_that_vanish_in_the_middle_are_told_once_each_those_judged_too(tmp_path):
    source, told = photos.folder(tmp_path / "photos", each=12), []
    gone = []

    def vanish() -> bool:
        if not gone and (tmp_path / "run" / "split.json").exists():
            split = json.loads((tmp_path / "run" / "split.json").read_text())
            gone.extend([split["train"][0], split["val"][1]])
            for file in gone:
                os.unlink(file)
        return False

    data = {"source": str(source), "cache": "none", "size": 32}
    sections = {"data": data, "train": {"epochs": 3, "batch_size": 9}}
    cnnzoo.train(short(tmp_path / "run", **sections), tell=told.append, should_stop=vanish)
    assert sum(f"{gone[0]}: there is no such file; others of its batch stand in" in line for line in told) == 1
    assert sum(f"{gone[1]}: there is no such file; it was judged as a black image" in line for line in told) >= 1


def test_photos_that_vanished_while_a_run_was_trained_cost_it_no_report(tmp_path):
    source, split = photos.folder(tmp_path / "photos", each=6), tmp_path / "run" / "split.json"

    def vanish() -> bool:
        if split.exists():
            for file in map(Path, json.loads(split.read_text())["val"]):
                file.unlink(missing_ok=True)
        return False

    data = {"source": str(source), "cache": "none", "size": 32, "val_fraction": 0.5}
    run = cnnzoo.train(short(tmp_path / "run", data=data), tell=lambda line: None, should_stop=vanish)
    assert run.is_finished
    assert " of 9 are wrong." in run.report_file.read_text()  # all black, and of three classes


def test_a_run_goes_on_with_its_images_whatever_has_come_and_gone_since(tmp_path):
    source = photos.folder(tmp_path / "photos", each=12)
    sections = {"data": {"source": str(source), "size": 32}, "train": {"epochs": 2, "batch_size": 9}}
    run = stopped(tmp_path / "run", 4, **sections)
    split = run.split
    os.unlink(split["train"][0])
    os.unlink(split["val"][1])
    photos.picture(0, 99).save(source / "blue" / "new.png")
    told = []
    cnnzoo.train(resume=run.path, tell=told.append)
    first, others = split["train"][0], "it goes on with others in their place"
    assert f"missing since the run was begun: {first} and 1 more; {others}" in told
    assert f"left out: 1 image of {source} that the run was not begun with" in told
    assert run.split == {"train": split["train"], "val": [split["val"][0], *split["val"][2:]]}
    assert len(run.predictions[0]) == len(split["val"]) - 1
    assert len(run.metrics) == 2
    assert cnnzoo.evaluate(run).count == len(split["val"]) - 1


def test_a_run_goes_on_with_its_classes_where_others_have_come(tmp_path):
    source = photos.folder(tmp_path / "photos", each=12)
    sections = {"data": {"source": str(source), "size": 32}, "train": {"epochs": 2, "batch_size": 9}}
    train(short(tmp_path / "whole", **sections))
    run = stopped(tmp_path / "run", 4, **sections)
    classes = run.card["classes"]
    for name in ("aaa", "zzz"):  # before all others, and behind them
        shutil.copytree(source / classes[0], source / name)
    told = []
    train(resume=run, tell=told.append)
    assert f"left out: 24 images of {source} that the run was not begun with" in told
    assert run.card["classes"] == classes
    assert equal(weights(tmp_path / "whole"), weights(run))
    assert all(map(np.array_equal, run.predictions, Run(tmp_path / "whole").predictions))


def test_a_run_goes_on_without_a_photo_that_cannot_be_read_any_more_where_it_may(tmp_path):
    source = photos.folder(tmp_path / "photos", each=12)
    run = stopped(tmp_path / "run", 4, data={"source": str(source), "size": 32}, train={"epochs": 2, "batch_size": 9})
    name = run.split["train"][0]
    Path(name).write_bytes(b"no photo")
    with pytest.raises(InputError, match=r"cannot be read .* go on without it by data\.bad_files='skip'"):
        train(resume=run)
    told = []
    train(resume=run, overrides={"data.bad_files": "skip"}, tell=told.append)
    assert f"1 file left out because it cannot be read: {name}: it is not an image" in told
    assert run.is_finished


def test_a_run_whose_images_are_others_by_now_does_not_go_on(tmp_path):
    source = photos.folder(tmp_path / "photos", each=12)
    run = stopped(tmp_path / "run", 2, data={"source": str(source), "size": 32}, train={"epochs": 2, "batch_size": 9})
    names = [*run.split["train"], *run.split["val"]]
    for name in names[:5]:
        os.rename(name, f"{name[:-4]}_moved.png")
    with pytest.raises(InputError, match=rf"no longer holds 5 of the 36 images .*, such as {names[0]}; put them back"):
        cnnzoo.train(resume=run.path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", ["train", "probe", "finetune"])
def test_a_signal_before_the_first_step_stops_at_once(tmp_path, cli, monkeypatch, capsys, command, number):
    def decoding(*_: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)

    monkeypatch.setattr(assemble, "load_data", decoding)
    weights = photos.weights(tmp_path / "net.pt")
    given = ["digits", "--model", "resnet20", "--pretrained", weights] if command != "train" else []
    started = time.monotonic()
    with pytest.raises(SystemExit) as stop:
        cli(command, *given, "--run", tmp_path / "r")
    assert stop.value.code == 128 + number
    assert capsys.readouterr() == (
        f"stopped by {number.name} before the first step; give the same command again\n",
        "",
    )
    assert time.monotonic() - started < 30
    assert not (tmp_path / "r").exists()


def test_the_end_of_a_terminal_is_ignored_where_it_was_before():
    """As nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "default"), [("SIGINT", signal.default_int_handler), ("SIGTERM", signal.SIG_DFL)])
def test_a_second_signal_is_not_caught(number, default):
    number = getattr(signal, number)
    with stop_on_signals() as signals:
        assert not signals.should_stop()
        signal.raise_signal(number)
        assert signals.should_stop()
        assert signal.getsignal(number) == default


def test_a_stop_that_could_not_be_saved_says_so(tmp_path, monkeypatch, capsys):
    steps, saves, save = iter(range(100)), iter(range(100)), Run.save_state

    def save_once(run: Run, state: dict) -> None:
        if next(saves):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(run, state)

    monkeypatch.setattr(Run, "save_state", save_once)
    with pytest.raises(Interrupted) as interrupted:
        cnnzoo.train(short(tmp_path / "r"), should_stop=lambda: next(steps) > 13)  # within the second epoch
    capsys.readouterr()
    with pytest.raises(SystemExit):
        speech.stopped(StopSignals(), interrupted.value, "the same command")
    assert capsys.readouterr().out == (
        "stopped by SIGTERM; the latest steps could not be saved (No space left on device), what was saved before is "
        "kept; when there is room again, go on by: the same command\n"
    )


def test_a_file_is_overridden_by_a_mapping_or_by_words(tmp_path):
    (tmp_path / "c.yaml").write_text("model: {name: lenet5}\ntrain: {epochs: 3, batch_size: 128}\n")
    run = train(tmp_path / "c.yaml", overrides={"run": str(tmp_path / "a"), "train.epochs": 1})
    assert len(run.metrics) == 1
    run = train(tmp_path / "c.yaml", overrides=f"--run {tmp_path / 'b'} --train.epochs 1")
    assert len(run.metrics) == 1
    train(resume=run, overrides={"data.workers": 2})  # which a run may go on with
    with pytest.raises(InputError, match=r"begun with another config: train.seed is 0 there and 1 here"):
        train(resume=run, overrides={"train.seed": 1})


def test_ctrl_c_in_python_saves_and_tells_how_to_go_on(tmp_path, monkeypatch):
    whole, step, steps = train(short(tmp_path / "whole")), Trainer.step, iter(range(100))

    def interrupted(self: Trainer, *batch: torch.Tensor) -> torch.Tensor:
        if next(steps) == 9:
            signal.raise_signal(signal.SIGINT)
        return step(self, *batch)

    monkeypatch.setattr(Trainer, "step", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"^stopped; saved; go on by cnnzoo.train\(resume='.*r'\)$"):
        train(short(tmp_path / "r"))
    assert signal.getsignal(signal.SIGINT) is before
    assert equal(weights(train(resume=tmp_path / "r").path), weights(whole.path))


def test_a_run_in_a_thread_which_hears_no_signals_trains_all_the_same(tmp_path):
    with ThreadPoolExecutor() as pool:
        assert pool.submit(cnnzoo.train, short(tmp_path / "r")).result().is_finished


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_who_has_switched_gradients_off_can_train(tmp_path, mode):
    with mode():
        assert cnnzoo.train(short(tmp_path / "r")).is_finished


def test_each_step_in_16_bits_computes_with_the_weights_that_the_one_before_left(tmp_path, monkeypatch):
    right, step = [], Trainer.step

    def followed(self, images, targets):
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            expected = copy.deepcopy(self.model)(images)
        expected = torch.nn.functional.cross_entropy(expected.float(), targets)
        total = step(self, images, targets)
        right.append(torch.allclose(total, expected, atol=1e-6))
        return total

    monkeypatch.setattr(Trainer, "step", followed)
    train = {"epochs": 1, "batch_size": 256, "precision": "bf16", "device": "cpu"}
    config = {"run": str(tmp_path / "run"), "model": {"name": "lenet5"}, "data": {"source": "digits"}, "train": train}
    cnnzoo.train({**config, "loss": {"name": "cross_entropy"}}, with_report=False)
    assert len(right) > 3
    assert all(right)


def test_a_run_computes_in_its_own_precision_where_autocast_is_on(tmp_path):
    runs = [cnnzoo.train(short(tmp_path / "a"))]
    with torch.autocast("cpu"):
        runs.append(cnnzoo.train(short(tmp_path / "b")))
        cnnzoo.report(runs[1])
    assert np.array_equal(*(run.predictions[0] for run in runs))


@pytest.mark.usefixtures("in_float64")
def test_a_run_computes_in_float32_whatever_is_usual(tmp_path):
    run = cnnzoo.train(short(tmp_path / "r"))
    assert {value.dtype for value in run.weights.values() if value.is_floating_point()} == {torch.float32}
    assert cnnzoo.evaluate(run).top1 == run.metrics[-1]["val_top1"]
    cnnzoo.optimize(cnnzoo.load(run))


def test_a_run_answers_whatever_the_usual_device_is(finished):
    torch.set_default_device("meta")
    try:
        assert cnnzoo.evaluate(finished).top1 == finished.metrics[-1]["val_top1"]
        assert np.isfinite(cnnzoo.predict(finished, np.zeros((1, 8, 8), np.uint8)).probabilities).all()
    finally:
        torch.set_default_device(None)


def test_a_run_that_ended_before_it_learnt_anything_is_no_obstacle_to_the_next(tmp_path, monkeypatch):
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", fails)
        with pytest.raises(ZeroDivisionError):
            train(short(tmp_path / "r"))
    assert (tmp_path / "r" / "config.yaml").exists()
    assert train(short(tmp_path / "r", optim={"lr": 0.02})).is_finished


@pytest.mark.parametrize("kept", ["config.yaml", "notes.txt"])
def test_a_folder_of_ones_own_is_left_alone(tmp_path, kept):
    (tmp_path / kept).write_text("# mine\n")
    with pytest.raises(InputError, match="exists already"):
        cnnzoo.train(short(tmp_path))
    assert (tmp_path / kept).read_text() == "# mine\n"


@pytest.mark.parametrize(
    ("begun", "job", "restarts", "goes_on"),
    [
        ("mine", "mine", "1", True),
        ("mine", "another", "1", False),
        ("mine", "mine", "0", True),  # after another machine was lost, or came, which this one's count leaves out
        ("none", "none", "1", True),
        ("none", "none", "0", False),  # as torchrun calls each job that was given no id
    ],
)
def test_a_process_that_torchrun_restarted_goes_on_with_its_own_run_alone(
    tmp_path, cli, monkeypatch, begun, job, restarts, goes_on
):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", begun)
    run = stopped(tmp_path / "r", 3)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", job)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
    done = cli("train", "--config", run.config_file)
    assert (done.code == 0) == run.is_finished == goes_on
    assert ("exists already" in done.err) != goes_on


def test_a_run_knows_how_it_was_begun_and_how_it_went_on(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/cnnzoo/__main__.py", "train", "--run", "r"])
    run = stopped(tmp_path / "r", 3)
    begun = run.environment
    assert begun["command"] == "cnnzoo train --run r"
    for once_more in ("first", "second"):
        monkeypatch.setattr(sys, "argv", ["cnnzoo", "train", "--resume", once_more])
        steps = iter(range(100))
        with pytest.raises(Interrupted):
            cnnzoo.train(resume=run, should_stop=lambda: next(steps) >= 3)  # noqa: B023
    now = run.environment
    assert (now["command"], now["started"]) == (begun["command"], begun["started"])
    resumed = [f"cnnzoo train --resume {once_more}" for once_more in ("first", "second")]
    assert [again["command"] for again in now["resumed"]] == resumed


def test_a_folder_that_cannot_be_written_is_told_with_what_to_do(tmp_path, fails):
    (tmp_path / "file").write_text("")
    why = fails("train", "--run", tmp_path / "file" / "r")
    assert why == f"{tmp_path}/file/r/config.yaml cannot be written (Not a directory); choose another folder by --run"


@pytest.mark.parametrize("compile", [True, "graphs"])
def test_a_run_may_be_compiled(compile, tmp_path, monkeypatch):
    monkeypatch.setattr(forms, "compiled", lambda model, *how: torch.compile(model, backend="eager"))
    run = train(short(tmp_path / "run", train={"epochs": 1, "compile": compile}))
    assert run.metrics[0]["val_top1"] > 0.2


def test_what_a_killed_process_was_writing_is_cleared_away(tmp_path):
    run = stopped(tmp_path / "run", 3)
    (run.path / ".last.pt.0123456789ab.part").write_bytes(b"half")
    run.snapshot(1).path.mkdir(parents=True)
    (run.snapshot(1).path / ".model.safetensors.0123456789ab.part").write_bytes(b"half")
    train(resume=run.path)
    assert not [file for file in run.path.rglob("*") if file.name.endswith(".part")]


def test_a_folder_of_runs_is_told_from_a_run(finished, tmp_path):
    for name in ("fold1", "fold0"):
        shutil.copytree(finished.path, tmp_path / name)
    with pytest.raises(InputError, match=r"no run folder: .* it holds the runs fold0, fold1: name one of these"):
        Run.open(tmp_path)


def test_a_misspelt_run_or_config_is_told_the_near_one(finished, tmp_path):
    misspelt = finished.path.with_name("digit")
    with pytest.raises(InputError, match=f"there is no run folder {misspelt}; did you mean {finished.path}"):
        cnnzoo.train(resume=misspelt)
    (tmp_path / "lenet5.yaml").write_text("train: {epochs: 1}")
    with pytest.raises(InputError, match=r"there is no config file .*lenet\.yaml; did you mean .*lenet5\.yaml"):
        config.read(tmp_path / "lenet.yaml")
    with pytest.raises(InputError, match=r"is a folder, but a config file is wanted, such as .*config\.yaml$"):
        config.read(finished.path)


def test_two_runs_in_one_folder_are_refused(tmp_path):
    run = stopped(tmp_path / "r", 3)
    with run.locked(), pytest.raises(InputError, match=r"another process is training in .*r; wait for it"):
        train(resume=run.path)
    train(resume=run.path)


def test_a_start_that_fails_leaves_no_folder(tmp_path):
    with pytest.raises(InputError, match="did you mean digits"):
        cnnzoo.train(short(tmp_path / "r", data={"source": "digit"}))
    assert not (tmp_path / "r").exists()


def test_figures_that_are_not_finite_are_null_in_metrics_and_nan_when_read(tmp_path):
    def refuse(constant: str):
        raise ValueError(f"{constant} is no JSON")

    run = Run(tmp_path)
    run.write_metrics([{"epoch": 1, "val_loss": math.nan, "lr": math.inf, "val_top1": 0.5, "seconds": 1.0}])
    told = json.loads(run.metrics_file.read_text(), parse_constant=refuse)
    assert (told["val_loss"], told["lr"], told["val_top1"]) == (None, None, 0.5)
    (report,) = run.metrics
    assert math.isnan(report["val_loss"])
    assert report["epoch"] == 1


@pytest.mark.parametrize(
    ("rate", "least", "told"),
    [
        (1.0, 0.0, "of the time: more cores, a smaller data.size"),
        (1e9, 0.0, "of the time, as happens where the two, or other programs, share the cores"),
        (1e9, 1.1, ": the net sets the pace"),
    ],
)
def test_data_that_come_faster_than_the_net_takes_them_are_not_blamed(tmp_path, monkeypatch, rate, least, told):
    monkeypatch.setattr(rehearsal, "loader_rate", lambda batches: rate)
    monkeypatch.setattr(rehearsal, "BOTTLENECK", least)  # the share of the time that was waited for data
    said = []
    train(short(tmp_path / "r", train={"epochs": 1}), tell=said.append)
    (line,) = (line for line in said if line.startswith("the data alone comes at"))
    assert told in line


def test_folds_hold_every_image_out_once_and_finished_ones_are_kept(tmp_path, cli):
    options = ["--run", tmp_path / "k", "--train.epochs", 1, "--folds", 3]
    said = cli("train", *options).out
    runs = [Run(tmp_path / "k" / f"fold{i}") for i in range(3)]
    held_out = [name for run in runs for name in run.split["val"]]
    assert sorted(held_out) == sorted([*runs[0].split["val"], *runs[0].split["train"]])
    right = [run.metrics[-1]["val_top1"] for run in runs]
    assert said.splitlines()[-1].startswith(f"3 folds: top-1 {np.mean(right):.2%}, standard deviation ")
    shutil.rmtree(runs[1].path)
    before = runs[0].model_file.stat().st_mtime_ns
    told = cli("train", *options)
    assert told.code == 2
    assert f"{runs[0].path} exists already; go on with its folds by --resume auto, or choose" in told.err
    again = cli("train", *options, "--resume", "auto").out
    assert again.splitlines()[-1] == said.splitlines()[-1]
    assert runs[0].model_file.stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"data\.fold is 3, but must be at least 0 and below data\.folds"):
        config.read({"data": {"folds": 3, "fold": 3}})


def test_what_comes_or_vanishes_between_folds_changes_no_fold(tmp_path):
    source = photos.folder(tmp_path / "photos", each=8)

    def change(line: str) -> None:
        if line.startswith("best") and (source / "red" / "00.png").exists():
            (source / "red" / "00.png").unlink()
            photos.picture(1, 99).save(source / "green" / "-1.png")
            photos.folder(source / "more", each=4, kinds=("yellow",))

    asked = short(tmp_path / "k", data={"source": str(source), "size": 32}, train={"epochs": 1})
    options = {"with_report": False, "tell": change}
    folds = cnnzoo.cross_validate(asked, 3, **options)
    shutil.rmtree(folds.runs[2].path)
    folds = cnnzoo.cross_validate(asked, 3, resume=True, **options)
    every = {f"{source}/{kind}/{number:02}.png" for kind in photos.KINDS for number in range(8)}
    held_out = [name for run in folds.runs for name in run.split["val"]]
    assert len(held_out) == len({*held_out})
    assert every - {*held_out} <= {f"{source}/red/00.png"}
    assert {*held_out} <= every
    assert [run.card["classes"] for run in folds.runs] == [[*photos.KINDS]] * 3


def test_folds_that_cannot_begin_leave_nothing_behind(tmp_path, fails):
    source = photos.folder(tmp_path / "photos", each=2)
    for words, told in (
        (["--model.name", "nope", "--run", "k"], "nope"),
        (["--run", source / "k"], "would lie among the photos"),
        (["--run", "k"], "too few for 3 folds"),
    ):
        assert told in fails("train", "--data.source", source, "--folds", 3, *words)
        assert not (tmp_path / "k").exists()
    assert {entry.name for entry in source.iterdir()} == {*photos.KINDS}


def test_a_teacher_is_a_run_that_knows_the_same_classes(finished, tmp_path):
    taught = {"teacher": str(finished.path), "teacher_weight": 0.9}
    run = train(short(tmp_path / "taught", loss=taught))
    assert run.metrics[-1]["train_loss"] > 0
    (tmp_path / "two").mkdir()
    for name in ("a", "b"):
        (tmp_path / "two" / name).mkdir()
        for i in range(4):
            Image.new("L", (32, 32), 50 * i).save(tmp_path / "two" / name / f"{i}.png")
    with pytest.raises(InputError, match="knows other classes than"):
        train(short(tmp_path / "x", loss=taught, data={"source": str(tmp_path / "two")}, model={"name": "lenet5"}))


def test_a_teacher_is_found_by_its_name_beside_a_folder_that_is_called_so(tmp_path, monkeypatch):
    (tmp_path / "lenet5").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="the weights table has none for lenet5"):
        train(short("runs/taught", loss={"teacher": "lenet5", "teacher_weight": 0.9}))


def test_memory_that_does_not_suffice_costs_time_and_not_the_run(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "r")],
        capture_output=True,
        text=True,
        # Of several arenas glibc leaves the one that is full for good, with all that is freed in it: by chance, then.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "out of memory with 512 images at once: from here 256 at once; a step still sees 512" in done.stdout
    # What a pass that failed had freed is no obstacle to the next, which wants it in other pieces.
    assert done.stdout.count("out of memory") <= 3, done.stdout
    assert len(Run(tmp_path / "r").metrics) == 1


# A step of resnet20 on 512 images of 32x32 takes more than 1 GB, on half of them half of it.
LIMITED = """
import resource, sys, cnnzoo

def tell(line):
    print(line)
    if line.startswith("cpu,"):
        taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + 900_000_000, resource.RLIM_INFINITY))
    if line.startswith("epoch"):
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

data = {"source": "digits", "size": 32, "val_fraction": 0.6}
train = {"epochs": 1, "batch_size": 512, "precision": "fp32"}  # bf16, which a busy machine chooses, would fit
config = {"run": sys.argv[1], "model": {"name": "resnet20"}, "data": data, "train": train}
cnnzoo.train(config, tell=tell, with_report=False)
"""


def test_a_checkpoint_that_would_run_code_does_not(tmp_path):
    import pickle

    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'sprung'}",)

    run = stopped(tmp_path / "r", 3)
    run.state_file.write_bytes(pickle.dumps(Trap()))
    run.state_before.unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"last\.pt"):
        cnnzoo.train(resume=run.path)
    assert not (tmp_path / "sprung").exists()


# ---- prediction and evaluation by the public commands


@pytest.fixture
def pictures(finished, tmp_path):
    """Three held-out digits as files, a text that calls itself a picture, and half a picture."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in finished.split["val"][:3]:
        place = int(name.rpartition("/")[2])
        pixels = (digits.images[place] * (255 / 16)).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{place}_is_{digits.target[place]}.png")
    (folder / "text.png").write_text("not a picture")
    whole = next(folder.glob("*_is_*.png")).read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    return folder


def test_predict_writes_a_row_for_every_file(finished, pictures, cli, tmp_path):
    places = [name.rpartition("/")[2] for name in finished.split["val"]]
    said = dict(zip(places, map(str, finished.predictions[0].argmax(1)), strict=True))
    done = cli("predict", finished.path, pictures, "--out", "out.csv", "--top", 2)
    assert done.code == 0, done.err
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert list(rows[0]) == ["file", "top1", "top2", "prob1", "prob2", "abstain", "familiarity", "error"]
    assert len(rows) == 5
    for row in rows:
        name = row["file"].rpartition("/")[2]
        if "_is_" in name:
            assert row["top1"] == said[name.partition("_")[0]]
            assert float(row["prob1"]) >= float(row["prob2"])
            assert row["error"] == ""
        else:
            assert row["top1"] == row["prob1"] == ""
            assert row["error"] in ("it is not an image", "it is cut short")


def test_predicting_equals_validating(finished):
    """The path of files and the path of arrays agree."""
    from sklearn.datasets import load_digits

    images = (load_digits().images * (255 / 16)).round().astype(np.uint8)
    places = [int(name.rpartition("/")[2]) for name in finished.split["val"]]
    result = cnnzoo.predict(finished, [images[place] for place in places], precision="fp32")
    logits, _ = finished.predictions
    expected = (torch.from_numpy(logits) / cnnzoo.load(finished).temperature).softmax(1).numpy()
    assert np.allclose(result.probabilities, expected, atol=1e-4)  # the fast form of the net differs by as much


def test_predict_of_nothing_readable_is_an_error(finished, pictures, fails):
    assert "text.png: it is not an image" in fails("predict", finished.path, pictures / "text.png")


def test_evaluate_prints_every_class(finished, cli):
    done = cli("evaluate", finished.path)
    assert done.code == 0
    assert done.out.startswith("top-1 ")
    assert len(done.out.splitlines()) == 13
    figures = json.loads(cli("evaluate", finished.path, "--json").out)
    assert figures["images"] == 359


def test_evaluate_on_a_folder_matches_classes_by_name(finished, tmp_path):
    from sklearn.datasets import load_digits

    digits = load_digits()
    for place in range(60):
        folder = tmp_path / "data" / str(digits.target[place])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[place] * (255 / 16)).round().astype(np.uint8)).save(folder / f"{place}.png")
    shutil.rmtree(tmp_path / "data" / "0")  # so that places and names differ
    result = cnnzoo.evaluate(finished.path, str(tmp_path / "data"))
    assert result.top1 > 0.85
    (tmp_path / "data" / "1").rename(tmp_path / "data" / "one")
    with pytest.raises(InputError, match="does not know: one"):
        cnnzoo.evaluate(finished.path, str(tmp_path / "data"))


def test_scripts_train_does_what_the_command_does(finished, tmp_path):
    from conftest import ROOT

    line = [
        sys.executable,
        ROOT / "scripts" / "train.py",
        "--config",
        finished.config_file,
        "--run",
        tmp_path / "again",
    ]
    subprocess.run(list(map(str, line)), check=True, capture_output=True)
    assert equal(weights(finished.path), weights(tmp_path / "again"))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not tell what is mapped")
def test_weights_that_were_read_keep_no_hold_of_their_file(tmp_path):
    """On Windows, where a mapped file can be neither replaced nor removed, no run could be finished."""
    run = Run(tmp_path)
    run.save_model({"weight": torch.ones(10_000)}, {"name": "lenet5"})
    tensors = run.weights
    run.amend_card(temperature=2.0)
    again = run.weights
    assert str(tmp_path) not in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert torch.equal(tensors["weight"], again["weight"])
