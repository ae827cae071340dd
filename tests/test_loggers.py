"""Loggers hold each epoch once, whatever happened to the run, and never end it."""

import csv
import errno
import sys
from unittest.mock import Mock

import pytest

from cnnzoo import loggers
from cnnzoo.errors import InputError


def history(epochs, loss=1.0):
    return [{"epoch": epoch, "train_loss": loss / epoch, "val_top1": 1 - 1 / epoch} for epoch in range(1, epochs + 1)]


def log(names, folder, *histories, tell=print):
    log = loggers.open_(names, folder, {"optim": {"lr": 0.1}}, tell)
    for each in histories:
        log.log(each)
    log.close()


def test_csv_is_a_table_of_all_epochs(tmp_path):
    log(["csv"], tmp_path, history(1), history(2))
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["train_loss"]) == 0.5


def test_a_figure_that_comes_later_gets_its_column(tmp_path):
    log(["csv"], tmp_path, [*history(1), {"epoch": 2, "ema_top1": 0.5}])
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "epoch,train_loss,val_top1,ema_top1"
    assert lines[2] == "2,,,0.5"


def test_a_resumed_run_leaves_no_epoch_twice(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log(["csv", "tensorboard"], tmp_path, history(1), history(2), history(3))  # killed before epoch 3 was saved
    again = [*history(2), *history(4, loss=6.0)[2:]]
    log(["csv", "tensorboard"], tmp_path, again[:3], again)
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 1 + 4
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["scalars"] == ["train_loss", "val_top1"]
    assert [(event.step, event.value) for event in events.Scalars("train_loss")] == [(1, 1), (2, 0.5), (3, 2), (4, 1.5)]


def test_a_logger_that_a_run_did_not_begin_with_hears_all_epochs(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log(["tensorboard"], tmp_path, history(3), history(4))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train_loss")] == [1, 2, 3, 4]


def test_wandb_goes_on_with_the_same_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "run"
    folder.mkdir()
    log(["wandb"], folder, history(1))
    log(["wandb"], folder, history(2))
    known = (folder / "wandb" / "id").read_text()
    assert len(list((folder / "wandb").glob(f"offline-run-*-{known}/run-{known}.wandb"))) == 2


def test_nothing_is_written_before_the_first_epoch(tmp_path):
    log(["csv"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_logger_that_fails_is_told_of_once_and_the_others_go_on(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("a file where its folder should be")
    told = []
    log(["tensorboard", "csv"], tmp_path, history(1), history(2), tell=told.append)
    assert len(told) == 1
    assert told[0].startswith("the tensorboard logger could not write (")
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 1 + 2


def test_a_logger_whose_disk_was_full_for_a_while_is_told_of_once_and_tried_again(tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(loggers.Csv, "log", Mock(side_effect=[full, full, None]))
    told = []
    log(["csv"], tmp_path, history(1), history(2), history(3), tell=told.append)
    assert told == ["the csv logger could not write ([Errno 28] No space left on device); it tries again"]
    assert loggers.Csv.log.call_count == 3


def test_a_logger_that_breaks_is_let_go(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers.Csv, "log", Mock(side_effect=RuntimeError("broken")))
    told = []
    log(["csv"], tmp_path, history(1), history(2), tell=told.append)
    assert told == ["the csv logger stopped (broken); the run goes on without it"]


def test_a_missing_library_is_told_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(InputError, match=r'has wandb, which is not installed; pip install "cnnzoo\[wandb\]"'):
        loggers.open_(["wandb"], tmp_path, {})


def test_an_unknown_logger_is_told_with_the_near_one(tmp_path):
    with pytest.raises(InputError, match=r"unknown logger in train\.loggers 'tensorbord'; did you mean tensorboard"):
        loggers.open_(["tensorbord"], tmp_path, {})
