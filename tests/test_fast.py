"""Precision on request, where nets are used: int8 finds images to calibrate on, and tells how far it agrees."""

import shutil

import numpy as np
import photos
import pytest

import cnnzoo
from cnnzoo import config
from cnnzoo.checkpoint import Run
from cnnzoo.data import sources
from cnnzoo.errors import InputError
from cnnzoo.inference import forms

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return photos.folder(tmp_path_factory.mktemp("data") / "photos", each=8)


@pytest.fixture(scope="module")
def run(source, tmp_path_factory) -> Run:
    """A net for three kinds of pictures, trained on 18 of them and validated on 6."""
    recipe = {
        "run": str(tmp_path_factory.mktemp("runs") / "first"),
        "model": {"name": "lenet5", "in_chans": 3},
        "data": {"source": str(source), "val_fraction": 0.25},
        "train": {"epochs": 3, "batch_size": 6},
    }
    return cnnzoo.train(recipe, with_report=False)


@pytest.fixture
def orphan(run, tmp_path):
    """The same net, far from its run folder."""
    return shutil.copy(run.model_file, tmp_path / "model.safetensors")


@pytest.fixture
def told() -> list[str]:
    return []


# ---- predicting


def test_16_bits_are_tried_where_images_take_so_long_that_it_pays(orphan, source, monkeypatch):
    made, convert = [], forms.converted
    monkeypatch.setattr("cnnzoo.inference.forms.converted", lambda *given: made.append(given) or convert(*given))
    monkeypatch.setattr("cnnzoo.inference.forms.timed", lambda run, images: 0.01 * len(images))
    files = sorted(source.rglob("*.png"))
    for times, tried in ((8, 0), (9, 1)):  # 192 images, of 1.9 seconds, and 216, of 2.2
        plain, found = (cnnzoo.predict(orphan, times * files, precision=kind) for kind in ("fp32", "bf16"))
        assert found.probabilities == pytest.approx(plain.probabilities, abs=0.05)
        assert len(made) == tried


def test_a_run_is_calibrated_on_what_it_trained_on(run, source, told):
    plain = cnnzoo.predict(run, source)
    result = cnnzoo.predict(run, source, precision="int8", tell=told.append)
    assert told == [f"int8, calibrated on 18 training images of {run.path}: there it names fp32's class for 100.0%"]
    assert result.probabilities == pytest.approx(plain.probabilities, abs=0.05)
    assert not np.array_equal(result.probabilities, plain.probabilities)


def test_what_it_was_validated_on_is_never_among_them(run):
    data, preprocess = config.read(run.config_file).data, cnnzoo.load(run).preprocessing
    pixels = sources.sample(data, preprocess, 100, names=run.split["train"])
    assert np.array_equal(pixels, np.stack([preprocess.pixels(file) for file in run.split["train"]]))


def test_the_sample_is_drawn_by_its_seed(source):
    data, preprocess = config.DataConfig(source=str(source)), cnnzoo.preprocessing("resnet20")
    names = [str(file) for file in source.rglob("*.png")]
    draws = [sources.sample(data, preprocess, 5, names, seed) for seed in (0, 0, 1)]
    assert draws[0].shape == (5, 32, 32, 3)
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_where_the_training_images_are_gone_those_given_serve(run, source, tmp_path, told):
    moved = Run(shutil.copytree(run.path, tmp_path / "run"))
    text = moved.config_file.read_text().replace(str(source), str(tmp_path / "elsewhere"))
    moved.config_file.write_text(text)
    cnnzoo.predict(moved, source / "red", precision="int8", tell=told.append)
    assert told[0].startswith("int8, calibrated on 8 of the images given: ")


def test_the_training_images_are_found_where_they_were_moved_with_the_run(tmp_path, monkeypatch, told):
    monkeypatch.chdir(tmp_path)
    photos.folder(tmp_path / "before" / "photos", each=8)
    monkeypatch.chdir(tmp_path / "before")
    recipe = {"model": {"name": "lenet5", "in_chans": 3}, "train": {"epochs": 3, "batch_size": 6}, "run": "runs/x"}
    cnnzoo.train({**recipe, "data": {"source": "photos"}}, with_report=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "before").rename(tmp_path / "after")
    cnnzoo.predict("after/runs/x", "after/photos/red", precision="int8", tell=told.append)
    assert told[0].startswith("int8, calibrated on 18 training images of after/runs/x: ")


def test_a_bare_net_is_calibrated_on_a_sample_spread_over_all_images(orphan, told):
    pictures = [np.asarray(photos.picture(number % 3, number)) for number in range(600)]
    result = cnnzoo.predict(cnnzoo.load(orphan), pictures, precision="int8", tell=told.append)
    assert told[0].startswith("int8, calibrated on 200 of the images given: ")
    assert len(result) == 600


def test_where_nothing_can_be_read_there_is_nothing_to_calibrate_on(orphan, tmp_path):
    (tmp_path / "broken.png").write_text("no picture")
    with pytest.raises(InputError, match="int8 is calibrated on images, and none of those at hand can be read"):
        cnnzoo.predict(orphan, tmp_path / "broken.png", precision="int8")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_other_precisions_stay_near(run, source, precision):
    plain, result = cnnzoo.predict(run, source), cnnzoo.predict(run, source, precision=precision)
    assert result.probabilities == pytest.approx(plain.probabilities, abs=0.05)


def test_a_net_optimised_for_one_precision_is_not_for_another(run, source):
    fast = cnnzoo.optimize(cnnzoo.load(run), "fp32")
    assert len(cnnzoo.predict(fast, source, precision="fp32")) == 24
    with pytest.raises(InputError, match="the net was optimised for fp32; give the plain net for precision int8"):
        cnnzoo.predict(fast, source, precision="int8")


# ---- evaluating


def test_a_run_is_judged_in_int8(run, told):
    plain, result = cnnzoo.evaluate(run.path), cnnzoo.evaluate(run.path, precision="int8", tell=told.append)
    assert told[0].startswith(f"int8, calibrated on 18 training images of {run.path}: ")
    assert (result.count, result.top1) == (6, plain.top1)
    assert result.loss == pytest.approx(plain.loss, abs=0.05)
    assert result.loss != plain.loss


def test_two_runs_are_each_calibrated(run, told):
    assert cnnzoo.compare_runs(run.path, run.path, precision="int8", tell=told.append).difference == 0
    assert len(told) == 2


def test_other_data_calibrates_by_its_training_images_or_not_at_all(orphan, source, tmp_path, told):
    with pytest.raises(InputError, match=r"int8 is calibrated on images that are not judged: .* and there are none"):
        cnnzoo.evaluate(orphan, str(source), precision="int8")
    for part, kept in (("train", "0[0-4].png"), ("val", "0[5-7].png")):
        for file in source.glob(f"*/{kept}"):
            (tmp_path / "parts" / part / file.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, tmp_path / "parts" / part / file.parent.name)
    result = cnnzoo.evaluate(orphan, str(tmp_path / "parts"), precision="int8", tell=told.append)
    assert result.count == 9
    assert told[0].startswith(f"int8, calibrated on 15 training images of {tmp_path / 'parts'}: ")


# ---- the command line


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_commands_take_a_precision_and_tell_beside_their_output(run, source, command, cli, fails):
    images = [source / "red"] if command == "predict" else []
    code, out, err = cli(command, run.path, *images, "--precision", "int8")
    assert code == 0
    assert err.startswith("int8, calibrated on 18 training images of ")
    assert "calibrated on" not in out
    why = fails(command, run.path, *images, "--precision", "int4")
    assert why == "unknown precision 'int4'; did you mean int8?"
