"""What somebody at a notebook sees: bars, lines, reprs, tables, pictures, and what TAB offers."""

import ast
import copy
import dataclasses
import importlib
import io
import pickle
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

import cnnzoo
from cnnzoo import bars, figures
from cnnzoo.shown import MOST, Shown, Table

PACKAGE = Path(cnnzoo.__file__).parent
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a quick net."""
    folder = tmp_path_factory.mktemp("runs") / "m"
    config = {"model": "mlp", "data": "digits", "train": {"epochs": 2}, "run": str(folder)}
    return cnnzoo.train(config, with_report=False, tell=lambda line: None)


# ---- bars and lines


class Kernel(io.StringIO):
    """A stream such as a Jupyter kernel has: no terminal, but somebody looks on."""

    __module__ = "ipykernel.iostream"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "shows"), [(Kernel, True), (Terminal, True), (io.StringIO, False)])
def test_bars_show_on_a_terminal_and_in_a_notebook_and_leave_nothing(monkeypatch, stream, shows):
    out = stream()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, out)
    assert [*bars.show(range(3), "counting")] == [0, 1, 2]
    assert [*bars.show(range(3), "counting", hidden=True)] == [0, 1, 2]
    assert out.getvalue().count("counting:   0%") == int(shows)
    assert out.getvalue().rpartition("\r")[2] == ""


def test_who_waits_for_another_process_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stderr", out := Terminal())
    held, own = (FileLock(tmp_path / "lock", thread_local=False) for _ in range(2))
    held.acquire()
    threading.Timer(1.5, held.release).start()
    with bars.take(own, "features"):
        assert own.is_locked
    assert not own.is_locked
    assert "features: waiting for another process (00:0" in out.getvalue()


def test_predicting_shows_its_bar_in_a_notebook(monkeypatch):
    monkeypatch.setattr(sys, "stdout", out := Kernel())
    cnnzoo.predict(cnnzoo.create("lenet5"), [np.zeros((32, 32), np.uint8)])
    assert "predicting" in out.getvalue()


def test_training_tells_how_it_goes_unless_it_is_told_to_whom(capsys, tmp_path):
    config = {"model": "mlp", "data": "digits", "train": {"epochs": 1}}
    cnnzoo.train({**config, "run": str(tmp_path / "a")}, with_report=False)
    assert "epoch 1/1" in capsys.readouterr().out
    told = []
    cnnzoo.train({**config, "run": str(tmp_path / "b")}, with_report=False, tell=told.append)
    assert told
    assert not capsys.readouterr().out
    cnnzoo.soup([tmp_path / "a", tmp_path / "b"], "uniform", run=tmp_path / "s")
    assert "uniform soup of 2" in capsys.readouterr().out


def test_an_estimator_says_nothing(capsys):
    images, labels = np.random.default_rng(0).integers(0, 256, (20, 32, 32), dtype=np.uint8), [*"ab"] * 10
    found = cnnzoo.CNNClassifier("lenet5", pretrained=False, mode="probe", classifier="centroid").fit(images, labels)
    assert len(found.predict(images)) == 20
    assert capsys.readouterr().out == ""


# ---- reprs, tables, pictures


@pytest.fixture(scope="module")
def results(run) -> dict:
    """Several of what the public functions give."""
    twin = shutil.copytree(run.path, run.path.with_name("twin"))
    return {
        "info": cnnzoo.info("lenet5"),
        "summary": cnnzoo.summary("lenet5"),
        "compare": cnnzoo.compare("vgg*"),
        "list_weights": cnnzoo.list_weights("vgg16"),
        "weights": cnnzoo.list_weights("vgg16")[0],
        "odds": cnnzoo.vote_odds(0.7, 3),
        "evaluation": cnnzoo.evaluate(run),
        "compare_runs": cnnzoo.compare_runs(run, twin),
        "predictions": cnnzoo.predict(run, [np.zeros((8, 8), np.uint8)]),
        "ensemble": cnnzoo.Ensemble([run, twin]),
        "diversity": cnnzoo.diversity([run, twin]),
        "filters": cnnzoo.visualize.filters("lenet5"),
        "outcome": cnnzoo.labs.run("kirsch", seeds=1, quick=True),
        "run": run,
    }


def test_a_repr_is_what_str_says(results):
    for name, result in results.items():
        assert repr(result) == str(result), name
        assert not any(noise in repr(result) for noise in ("array(", "<class", "object at 0x")), name


def test_a_notebook_shows_tables_and_pictures(results):
    tables = {name for name, result in results.items() if result._repr_html_()}
    assert tables == {*results} - {"info", "weights", "compare_runs", "diversity", "filters"}
    drawn = {name for name, result in results.items() if getattr(result, "_repr_png_", lambda: None)()}
    assert drawn == {"compare", "odds", "filters", "outcome", "run"}
    for name in drawn:
        assert results[name]._repr_png_().startswith(PNG)
    assert all("data:image/png;base64," in results[name]._repr_html_() for name in drawn & tables)


def test_a_picture_is_drawn_when_it_is_shown_and_once(monkeypatch):
    odds, drawn, png = cnnzoo.vote_odds(0.7, 3), [], figures.png
    monkeypatch.setattr(figures, "png", lambda figure: drawn.append(figure) or png(figure))
    assert repr(odds)
    assert not drawn
    assert odds._repr_png_() == odds._repr_png_()
    assert odds._repr_html_()
    assert len(drawn) == 1


def test_what_cannot_be_drawn_is_shown_without_a_picture(monkeypatch):
    def fail(*given):
        raise ZeroDivisionError

    monkeypatch.setattr("cnnzoo.ensemble.odds.binom.sf", fail)
    odds = cnnzoo.vote_odds(0.6, 3)
    assert odds._repr_png_() is None
    assert "<img" not in odds._repr_html_()
    with pytest.raises(ZeroDivisionError):
        odds.figure()


def test_a_picture_does_not_travel_with_its_equals():
    odds = cnnzoo.vote_odds(0.7, 3)
    odds._repr_png_()
    assert pickle.loads(pickle.dumps(odds)) == cnnzoo.vote_odds(0.7, 3)


def test_results_are_equal_where_they_say_the_same(results, run):
    for name in ("evaluation", "predictions", "compare_runs", "diversity", "filters", "outcome", "list_weights"):
        assert copy.deepcopy(results[name]) == results[name], name
    own, other = results["evaluation"], results["evaluation"].recall * 0.5
    assert own != dataclasses.replace(own, recall=other)
    assert own != results["predictions"]
    assert cnnzoo.judge(run) == cnnzoo.judge(run) != cnnzoo.judge(run, "digits", crops=2)
    assert {run: 1}[run] == 1
    assert run != results["weights"]


def test_what_is_long_is_shown_in_short():
    class Long(Shown):
        def _table(self):
            return Table(("n",), [(str(n),) for n in range(1000)])

    assert len(str(Long()).splitlines()) == 1001
    assert repr(Long()).splitlines()[-2:] == [str(MOST - 2), f"… and {1001 - MOST} lines more, which print() shows"]
    assert Long()._repr_html_().count("<tr>") == MOST + 1


def test_every_result_that_says_something_is_shown():
    """So that none prints arrays again: whatever has a `__str__` and a generated `__repr__`."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            says = isinstance(node, ast.ClassDef) and "__str__" in {getattr(each, "name", "") for each in node.body}
            if says and not node.name.startswith("_") and file.stem != "shown":
                module = importlib.import_module(".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts))
                assert issubclass(getattr(module, node.name), (Shown, Table, BaseException)), f"{file}: {node.name}"


# ---- predictions, row by row


def test_predictions_are_a_sequence_of_rows(run):
    found = cnnzoo.predict(run, [np.zeros((8, 8), np.uint8), "none.png", np.full((8, 8), 255, np.uint8)])
    first, bad, last = found
    assert first.file == found.files[0]
    assert [*first.top[:3]] == found.top(3)[0]
    assert len(first.top) == 10
    assert (first.error, first.abstain) == ("", False)
    assert (bad.top, bad.abstain, bad.error) == ((), True, found.errors[1])
    assert found[-1] == found[2] == last
    assert [repr(row) for row in found[:1]] == found[:1].lines()
    assert (len(found[1:]), found[1:].errors) == (2, found.errors[1:])
    with pytest.raises(IndexError):
        found[3]


def test_many_predictions_are_shown_in_short(run):
    found = cnnzoo.predict(run, [np.zeros((8, 8), np.uint8)] * 50)
    assert len(str(found).splitlines()) == 50
    assert repr(found).splitlines() == [*found[:20].lines(), "… and 30 images more, which print() shows"]
    assert found._repr_html_().count("<tr>") == 21


# ---- a run


def test_a_run_says_what_it_reached_and_what_to_do_next(run, tmp_path):
    best = max(run.metrics, key=lambda report: report["val_top1"])
    assert f"mlp, best validation top-1 {best['val_top1']:.2%} in epoch {best['epoch']} of 2" in repr(run)
    assert "cnnzoo.predict(run, photos)" in repr(run)
    assert repr(cnnzoo.Run(tmp_path / "none")).endswith("there is no run yet")
    assert cnnzoo.Run(tmp_path / "none")._repr_png_() is None
    (tmp_path / "config.yaml").touch()
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    assert repr(cnnzoo.Run(tmp_path)) == f"Run('{tmp_path}'); go on with cnnzoo.train(resume='{tmp_path}')"


def test_a_run_draws_the_curves_that_its_report_has(run):
    left, right, last = run.figure().axes
    assert [*left.lines[1].get_ydata()] == [report["val_loss"] for report in run.metrics]
    assert [*right.lines[0].get_ydata()] == [100 * report["val_top1"] for report in run.metrics]
    assert [*last.lines[0].get_ydata()] == [report["lr"] for report in run.metrics]


def test_of_a_run_that_never_trained_no_rate_is_drawn():
    start = {"epoch": 0, "train_loss": 1.0, "val_loss": 1.0, "val_top1": 0.5, "lr": 0.0}
    assert len(figures.curves([start]).axes) == 2
    _, accuracy, rate = figures.curves([start, start | {"epoch": 1, "lr": 0.1}]).axes
    assert [[*axes.lines[0].get_xdata()] for axes in (accuracy, rate)] == [[0, 1], [1]]


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_epochs_are_counted_in_whole_numbers(epochs):
    report = {"train_loss": 1.0, "val_loss": 1.0, "val_top1": 0.5, "lr": 0.1}
    for axes in figures.curves([report | {"epoch": epoch} for epoch in range(1, epochs + 1)]).axes:
        low, high = axes.get_xlim()
        shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert shown
        assert all(tick == round(tick) for tick in shown)


def test_the_report_of_a_run_is_written_from_python(run):
    assert cnnzoo.report(run) == cnnzoo.report(str(run.path)) == run.report_file
    assert "Confusion matrix" in run.report_file.read_text()
    with pytest.raises(cnnzoo.InputError, match="no run folder"):
        cnnzoo.report("nowhere")


def test_a_run_whose_metrics_are_gone_is_shown_and_reported_without(run, tmp_path):
    bare = cnnzoo.Run(shutil.copytree(run.path, tmp_path / "bare"))
    bare.metrics_file.unlink()
    assert repr(bare).startswith(f"Run('{bare.path}'): mlp; go on with")
    page = cnnzoo.report(bare).read_text()
    assert "Confusion matrix" in page
    assert "best epoch" not in page


# ---- what TAB and type checkers see


@pytest.mark.parametrize("room", [cnnzoo, cnnzoo.visualize], ids=["cnnzoo", "visualize"])
def test_what_is_listed_is_there_and_nothing_else(room):
    assert [name for name in dir(room) if not name.startswith("__")] == room.__all__
    assert all(getattr(room, name) for name in room.__all__)
    assert {"__doc__", "__file__", "__name__"} < {*dir(room)}


def test_the_docstring_names_all():
    words = {*cnnzoo.__doc__.replace(",", " ").replace(";", " ").split()}
    assert {*cnnzoo.__all__} <= words


def test_type_checkers_are_told_to_look():
    """Each public name is imported as itself in a block that only they read."""
    assert (PACKAGE / "py.typed").exists()
    block = next(node for node in ast.parse((PACKAGE / "__init__.py").read_text()).body if isinstance(node, ast.If))
    assert block.test.id == "TYPE_CHECKING"
    assert sorted(name.asname for line in block.body for name in line.names) == cnnzoo.__all__
