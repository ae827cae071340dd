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

    several = loggers.open_(["tensorboard"], tmp_path, {})
    several.log(history(3))
    several.log(history(4))
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1  # to which the fourth was added
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train_loss")] == [1, 2, 3, 4]  # while the run goes on
    several.close()


def test_what_cannot_be_drawn_is_left_out(tmp_path):
    report = {"epoch": 1, "val_loss": 1.5, "steps": 3, "note": "slow", "ema_top1": None}
    assert loggers.figures(report) == {"val_loss": 1.5, "steps": 3}


def test_wandb_is_told_each_epoch_once_under_the_id_that_the_run_began_with(tmp_path, monkeypatch):
    wandb = Mock()  # which is not installed here
    run = wandb.init.return_value
    run.id = "abcd"
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    log(["wandb"], tmp_path / "mine", history(2), history(3))  # a run that had begun without it
    log(["wandb"], tmp_path / "mine", history(4))
    assert [(call.args[0], call.kwargs["step"]) for call in run.log.call_args_list] == [
        ({"train_loss": 1 / epoch, "val_top1": 1 - 1 / epoch}, epoch) for epoch in (1, 2, 3, 4)
    ]
    first, second = (call.kwargs for call in wandb.init.call_args_list)
    assert first["id"] != second["id"] == "abcd"
    for begun in (first, second):
        assert begun["resume"] == "allow"
        assert (begun["project"], begun["name"], begun["config"]) == ("cnnzoo", "mine", {"optim": {"lr": 0.1}})
    assert run.finish.call_count == 2


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


def test_a_logger_whose_disk_was_full_for_a_while_is_told_of_once_each_time_and_tried_again(tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(loggers.Csv, "log", Mock(side_effect=[full, full, None, full]))
    told = []
    log(["csv"], tmp_path, *map(history, (1, 2, 3, 4)), tell=told.append)
    assert told == 2 * ["the csv logger could not write ([Errno 28] No space left on device); it tries again"]
    assert loggers.Csv.log.call_count == 4


@pytest.mark.parametrize(("error", "why"), [(OverflowError("a\nb"), "a b"), (TypeError(), "TypeError")])
def test_a_logger_that_breaks_is_let_go(tmp_path, monkeypatch, error, why):
    monkeypatch.setattr(loggers.Csv, "log", Mock(side_effect=error))
    monkeypatch.setattr(loggers.Csv, "close", Mock())
    told = []
    log(["csv"], tmp_path, history(1), history(2), tell=told.append)
    assert told == [f"the csv logger stopped ({why}); the run goes on without it"]
    loggers.Csv.close.assert_called_once()
    told.clear()
    monkeypatch.setattr(loggers.Csv, "close", Mock(side_effect=error))
    log(["csv"], tmp_path, tell=told.append)
    assert told == [f"the csv logger could not finish ({why})"]


def test_a_missing_library_is_told_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(InputError, match=r'has wandb, which is not installed; pip install "cnnzoo\[wandb\]"'):
        loggers.open_(["wandb"], tmp_path, {})


def test_an_unknown_logger_is_told_with_the_near_one(tmp_path):
    with pytest.raises(InputError, match=r"unknown logger in train\.loggers 'tensorbord'; did you mean tensorboard"):
        loggers.open_(["tensorbord"], tmp_path, {})
