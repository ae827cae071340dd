"""Shallow classifiers on frozen features, and the run folder that the best of them leaves."""

import json
import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import photos
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

import cnnzoo
from cnnzoo import config
from cnnzoo.checkpoint import Run
from cnnzoo.errors import InputError
from cnnzoo.models import _heads
from cnnzoo.transfer import probe
from cnnzoo.transfer.classifiers import Data, fit_one, kinds
from cnnzoo.transfer.features import Backbone

CLASSIFIERS = ("logistic", "ridge", "svm", "centroid", "knn", "mlp")


def blobs(classes: int, each: int = 30, length: int = 16, seed: int = 0, apart: float = 1.0):
    """Points around a centre for each class, as features are: no number below 0, one dimension never used."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(classes, length)) * apart
    labels = np.repeat(np.arange(classes), each)
    points = np.random.default_rng(seed + 1).normal(size=(len(labels), length)) + centres[labels]
    points = points.clip(0)
    points[:, -1] = 0
    return points.astype(np.float32), labels


def data_of_blobs(classes: int, each: int = 30, each_held_out: int = 10, apart: float = 1.0) -> Data:
    (x, y), (z, t) = blobs(classes, each, apart=apart), blobs(classes, each_held_out, seed=5, apart=apart)
    return Data.of(x[:, None], y, z, t, classes)


def fit(classes, **options) -> probe.Probe:
    return probe.fit(data_of_blobs(classes), **options)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_each_classifier_becomes_a_head_that_answers_as_its_score_says(classifier, classes):
    found = fit(classes, classifier=classifier)
    z, t = blobs(classes, each=10, seed=5)
    logits = probe.predict(found.head, z)
    assert logits.shape == (len(z), classes)
    assert found.scores[0].val_top1 == pytest.approx((logits.argmax(1).numpy() == t).mean())
    assert found.scores[0].val_top1 > 0.8
    again = _heads.build(_heads.describe(found.head), z.shape[1])
    again.load_state_dict(found.head.state_dict())
    torch.testing.assert_close(probe.predict(again, z), logits)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_a_head_decides_as_the_classifier_that_it_was(classifier, classes):
    (x, y), (z, t) = blobs(classes), blobs(classes, each=10, seed=5)
    x, y = x[22:], y[22:]  # one class is rare, so that the decision is shifted
    data, kind = Data.of(x[:, None], y, z, t, classes), kinds(len(y), 0)[classifier]
    for setting in kind.settings.values():
        fitted = fit_one(setting, kind.prepare(data, x), y)
        answers = probe.predict(kind.weld(fitted, data), z).argmax(1)
        np.testing.assert_array_equal(answers, fitted.predict(kind.prepare(data, z)))


@pytest.mark.parametrize("classifier", ["logistic", "ridge", "svm"])
def test_with_balance_a_rare_class_is_found_as_often_as_others(classifier):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [380, 20])
    x = (rng.normal(size=(400, 4)) + 1.2 * y[:, None]).astype(np.float32)
    t = np.repeat([0, 1], 200)
    z = (rng.normal(size=(400, 4)) + 1.2 * t[:, None]).astype(np.float32)
    recall = {}
    for balance in (False, True):
        found = probe.fit(Data.of(x[:, None], y, z, t, 2, balance=balance), classifier=classifier)
        right = probe.predict(found.head, z).argmax(1).numpy() == t
        recall[balance] = right[t == 1].mean()
    assert recall[False] < 0.75 < recall[True]


def test_with_balance_what_cannot_weigh_is_left_out():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 3
    data = Data.of(x[:, None], y, x, y, 3, balance=True)
    found = probe.fit(data)
    assert "knn" not in {score.classifier for score in found.scores}
    with pytest.raises(InputError, match="knn cannot weigh classes; take balance none, or classifier logistic or"):
        probe.fit(data, classifier="knn")


@pytest.mark.parametrize("classifier", ["logistic", "centroid", "knn"])
def test_a_learning_curve_tells_what_fewer_images_lead_to(classifier):
    data = data_of_blobs(3, each=120, each_held_out=100, apart=0.4)
    found = probe.fit(data, classifier=classifier)
    curve = probe.with_learning_curve(found, data).curve
    assert [many for many, _ in curve] == [90, 180, 360]
    assert curve[-1][1] == found.scores[0].val_top1
    assert curve[0][1] < curve[-1][1] + 0.02
    assert probe.with_learning_curve(found, data, seed=2**32).curve == curve  # scikit-learn takes no larger one
    told = str(probe.with_learning_curve(found, data)).splitlines()[-1]
    assert told.startswith(f"learning curve, by training images: {curve[0][1]:.1%} with 90, ")


def test_the_run_keeps_its_learning_curve_and_the_report_shows_it(tmp_path):
    options = {"model": {"name": "lenet5", "head": "probe"}, "probe": {"classifier": "ridge"}, "train": {"epochs": 0}}
    run = cnnzoo.train({**options, "run": tmp_path / "run"}, tell=lambda line: None)
    many, top1 = run.probe["curve"][0]
    assert (many, len(run.probe["curve"])) == (1438 // 8, 4)
    assert f"<td>{many}</td><td>{top1:.1%}</td>" in run.report_file.read_text(encoding="utf-8")


def test_few_images_have_no_learning_curve():
    data = data_of_blobs(2, each=40)
    assert probe.with_learning_curve(probe.fit(data, classifier="ridge"), data).curve == ()


@pytest.mark.parametrize("classifier", ["knn", "mlp"])
def test_a_part_that_is_but_what_lies_beside_large_groups_tells_nothing(classifier):
    """A quarter of these is 12 images, of which none has 20 neighbours."""
    y, groups = np.repeat([0, 1], 206), np.concatenate([np.r_[[n] * 100, [n + 1] * 100, n + 2 : n + 8] for n in (0, 8)])
    x = (np.random.default_rng(0).normal(size=(412, 3)) + 1.5 * np.eye(2, 3)[y]).astype(np.float32)
    data = Data.of(x[:, None], y, x, y, 2, groups=groups)
    curve = probe.with_learning_curve(probe.fit(data, classifier=classifier), data).curve
    assert [many for many, _ in curve] == [207, 412]


@pytest.mark.parametrize("classes", [2, 5])
def test_the_logistic_head_is_scikit_learns_regression(classes):
    data = data_of_blobs(classes)
    found = probe.fit(data, classifier="logistic")
    c = float(found.scores[0].setting.removeprefix("C="))
    theirs = LogisticRegression(C=c, tol=1e-3, max_iter=300).fit(data.scaled(data.vectors[:, 0]), data.labels)
    given = probe.predict(found.head, data.val_vectors).softmax(1)
    np.testing.assert_allclose(given, theirs.predict_proba(data.scaled(data.val_vectors)), atol=1e-5)


def test_the_neighbours_head_votes_as_scikit_learns():
    found = fit(5, classifier="knn")
    (x, y), (z, _) = blobs(5), blobs(5, each=10, seed=5)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, z)]
    k = int(found.scores[0].setting.removeprefix("k="))
    theirs = KNeighborsClassifier(k, weights="distance").fit(unit[0], y).predict_proba(unit[1])
    np.testing.assert_allclose(probe.predict(found.head, z).exp(), theirs.clip(1e-3), atol=1e-4)


def test_auto_tries_all_and_takes_the_simplest_of_the_best():
    found = fit(5)
    assert {score.classifier for score in found.scores} == set(CLASSIFIERS)
    chosen, best = found.scores[0], max(score.cv_top1 for score in found.scores)
    assert chosen.cv_top1 >= best - np.sqrt(best * (1 - best) / 150)
    assert chosen.classifier == "logistic"
    assert str(found).splitlines()[1].startswith("logistic")
    rule = (
        "the best by cross-validation" if chosen.cv_top1 == best else "the simplest within a standard error of the best"
    )
    assert re.sub("[:,] ", " ", str(found).splitlines()[-1]) == f"logistic is taken {rule}"


def test_photos_that_belong_together_do_not_make_the_best_look_surer():
    matters = []
    for seed in (1, 2, 3):
        x, y = blobs(3, each=20, seed=seed, apart=0.5)
        bursts, labels, groups = (np.repeat(each, 6, axis=0) for each in (x, y, np.arange(60)))
        found = probe.fit(Data.of(bursts[:, None], labels, x, y, 3, groups=groups), folds=3)
        reached = {score.classifier: score.cv_top1 for score in found.scores}
        best, chosen = max(reached.values()), found.scores[0]
        by_images, by_groups = (best - np.sqrt(best * (1 - best) / count) for count in (360, 60))
        assert chosen.classifier == next(name for name in CLASSIFIERS if reached[name] >= by_groups)
        matters.append(chosen.cv_top1 < by_images)
    assert any(matters)


def test_auto_leaves_out_what_would_take_hours(monkeypatch):
    monkeypatch.setattr(probe, "SVMS_MOST", 50)
    assert {score.classifier for score in fit(2).scores} == {*CLASSIFIERS} - {"svm"}
    assert fit(2, classifier="svm").scores[0].classifier == "svm"


def test_the_table_says_why_a_classifier_is_taken():
    def told(*shares):
        scores = (probe.Score(name, "", share, 0.5, 1.0) for name, share in zip(CLASSIFIERS, shares, strict=False))
        return str(probe.Probe(tuple(scores), nn.Identity())).splitlines()[1 + len(shares) :]

    first = CLASSIFIERS[0]
    assert told(0.8, 0.82) == [f"{first} is taken: the simplest within a standard error of the best"]
    assert told(0.8, 0.7) == [f"{first} is taken, the best by cross-validation"]
    assert told(0.8) == told(None, 0.8) == told(None) == []


def test_a_seed_may_be_larger_than_scikit_learn_takes():
    assert fit(3, classifier="centroid", seed=2**40).scores[0].val_top1 > 0.8


def test_validation_images_choose_nothing():
    data = data_of_blobs(3)
    honest, shuffled = (probe.fit(replace(data, val_labels=np.roll(data.val_labels, by))) for by in (0, 7))
    answers = [probe.predict(found.head, data.val_vectors) for found in (honest, shuffled)]
    torch.testing.assert_close(*answers)


def test_views_of_an_image_stay_in_one_fold():
    """Labels by chance: were an image's copy in another fold, its neighbour would know the answer."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 8)).astype(np.float32), np.repeat([0, 1, 2], 20)
    found = probe.fit(Data.of(np.stack([x, x], axis=1), y, x[:6], y[:6], 3), classifier="knn")
    assert found.scores[0].cv_top1 < 0.6


def test_classes_with_one_image_each_have_no_folds():
    x, y = blobs(3)
    few = np.array([0, 31, 61])
    found = probe.fit(Data.of(x[few, None], y[few], x, y, 3))
    assert [(score.classifier, score.cv_top1) for score in found.scores] == [("logistic", None)]
    assert "-" in str(found)


@pytest.mark.parametrize("groups", [None, np.arange(51) // 2])
def test_a_class_of_one_image_leaves_the_others_their_folds(groups):
    x, y = blobs(3)
    few = np.array([*range(50), 61])  # 30, 20, and 1
    parts = probe.folds_of(y[few], groups, 5, 0)
    assert len(parts) == 5
    assert sorted(place for _, judged in parts for place in judged) == [*range(50)]
    assert all(50 in fitted and not set(fitted) & set(judged) for fitted, judged in parts)
    assert len(probe.fit(Data.of(x[few, None], y[few], x, y, 3, groups=groups)).scores) > 1


def test_a_class_without_images_is_told():
    x, y = blobs(3)
    with pytest.raises(InputError, match="1 of 4 classes have no training image"):
        probe.fit(Data.of(x[:, None], y, x, y, 4))


# ---- the run


@pytest.fixture(scope="module")
def probed(pictures, weights, tmp_path_factory):
    return cnnzoo.probe(pictures, "resnet20", str(weights), run=tmp_path_factory.mktemp("runs") / "probe")


def test_a_probe_leaves_a_run_like_any_other(probed, pictures):
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "split.json", "model.safetensors", "report.html"):
        assert (probed.path / name).exists()
    assert [line["epoch"] for line in probed.metrics] == [0]
    logits, targets = probed.predictions
    assert (logits.argmax(1) == targets).mean() == pytest.approx(probed.metrics[0]["val_top1"])
    assert json.loads((probed.path / "probe.json").read_text())["scores"][0]["classifier"] in CLASSIFIERS
    net = cnnzoo.load(probed)
    assert net.classes == photos.KINDS
    found = cnnzoo.predict(probed, [pictures / "red" / "01.png"])
    assert found.top(1)[0][0][0] == "red"
    assert cnnzoo.evaluate(probed.path).top1 == pytest.approx(probed.metrics[0]["val_top1"])


def test_its_report_tells_of_no_epochs(probed, pictures):
    page = probed.report_file.read_text()
    assert "best epoch" not in page
    assert ">training<" not in page
    assert f" on {pictures}: 30 images to train on, 6 images held out, 3 classes.</p>" in page


def test_images_that_are_all_computed_leave_no_others(pictures, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("CNNZOO_CACHE", str(tmp_path / "cache"))
    told = []
    cnnzoo.probe(pictures, "resnet20", str(weights), classifier="centroid", run=tmp_path / "run", tell=told.append)
    assert any(line.startswith("features of 36 images in ") and line.endswith(" s, 36 computed") for line in told)


def test_cached_logits_are_the_live_nets(probed):
    net = cnnzoo.load(probed)
    logits, _ = probed.predictions
    images = torch.stack([net.preprocessing(name) for name in probed.split["val"]])
    with torch.no_grad():
        assert (net(images) - torch.from_numpy(logits)).abs().max() <= 1e-5


@pytest.fixture(scope="module")
def other(pictures, weights, tmp_path_factory):
    """Another run on the same images."""
    folder = tmp_path_factory.mktemp("runs") / "other"
    return cnnzoo.probe(pictures, "resnet20", weights, classifier="ridge", run=folder)


TAKE_A_RUN = {
    "create": lambda run, **_: cnnzoo.create("resnet20", pretrained=run).load_report,
    "load": lambda run, **_: cnnzoo.load(run),
    "preprocessing": lambda run, **_: cnnzoo.preprocessing(run),
    "summary": lambda run, **_: cnnzoo.summary(run),
    "info": lambda run, **_: cnnzoo.info(run),
    "predict": lambda run, file, **_: cnnzoo.predict(run, [file]),
    "evaluate": lambda run, **_: cnnzoo.evaluate(run),
    "compare_runs": lambda run, other, **_: cnnzoo.compare_runs(run, other),
    "export": lambda run, out, **_: cnnzoo.export(run, out / "net.onnx"),
    "gradcam": lambda run, file, **_: cnnzoo.visualize.gradcam(run, [file]),
    "combine": lambda run, other, out, **_: cnnzoo.combine([run, other], run=out / "run"),
    "soup": lambda run, other, out, **_: cnnzoo.soup([run, other], run=out / "run"),
    "diversity": lambda run, other, **_: cnnzoo.diversity([run, other]),
    "train": lambda run, **_: cnnzoo.train(resume=run),
    "train by a config": lambda run, source, out, **_: cnnzoo.train(
        {
            "run": out / "run",
            "model": {"name": "resnet20", "pretrained": run, "head": "probe"},
            "data": {"source": source},
            "train": {"epochs": 0},
        }
    ),
    "probe": lambda run, source, out, **_: cnnzoo.probe(
        source, "resnet20", run, classifier="centroid", run=out / "run"
    ),
    "finetune": lambda run, source, out, **_: cnnzoo.finetune(
        source, "resnet20", run, mode="head", epochs=1, run=out / "run"
    ),
    "CNNClassifier": lambda run, file, **_: cnnzoo.CNNClassifier("resnet20", run, classifier="centroid").fit(
        4 * [file], [0, 1, 0, 1]
    ),
}


@pytest.mark.parametrize("kind", [str, Path, Run], ids=["str", "Path", "Run"])
@pytest.mark.parametrize("name", TAKE_A_RUN)
def test_a_run_goes_wherever_its_folder_goes(probed, other, pictures, tmp_path, name, kind):
    if name == "export":
        pytest.importorskip("onnx")
    file = pictures / "red" / "01.png"
    given = {"run": kind(probed.path), "other": kind(other.path), "file": file, "source": pictures, "out": tmp_path}
    assert TAKE_A_RUN[name](**given) is not None


def test_its_config_makes_the_same_run_again_without_the_backbone(probed, tmp_path):
    told = []
    again = cnnzoo.train(config.read(probed.config_file, [f"--run={tmp_path / 'again'}"]), tell=told.append)
    assert any(line.endswith(" 0 computed, the others from the cache") for line in told)
    assert re.fullmatch(r"\d+\.\d\d% of 6 held-out images right; report: .*", told[-1])
    np.testing.assert_array_equal(again.predictions[0], probed.predictions[0])


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_every_classifier_is_welded_on_and_loads(pictures, weights, tmp_path, classifier):
    run = cnnzoo.probe(pictures, "resnet20", str(weights), classifier=classifier, run=tmp_path / "run")
    net = cnnzoo.load(run)
    images = torch.stack([net.preprocessing(name) for name in run.split["val"]])
    with torch.no_grad():
        torch.testing.assert_close(net(images), torch.from_numpy(run.predictions[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("name", ["squeezenet1_1", "nin_cifar10"])
def test_a_net_whose_head_is_a_convolution_gets_one_on_pooled_features(pictures, tmp_path, name):
    file = photos.weights(tmp_path / "weights.pth", name)
    run = cnnzoo.probe(
        pictures, name, str(file), classifier="logistic", run=tmp_path / "run", overrides=("--data.size=32",)
    )
    net = cnnzoo.load(run)
    assert isinstance(net.get_classifier(), torch.nn.Linear)
    images = torch.stack([net.preprocessing(path) for path in run.split["val"]])
    with torch.no_grad():
        torch.testing.assert_close(net(images), torch.from_numpy(run.predictions[0]), rtol=1e-4, atol=1e-5)
    assert cnnzoo.create(name, run.path, num_classes=7).eval()(images).shape[1] == 7


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("classifier", ["knn", "mlp"])
def test_such_a_net_predicts_many_photos_by_its_fast_form(pictures, weights, tmp_path, classifier):
    run = cnnzoo.probe(pictures, "resnet20", str(weights), classifier=classifier, run=tmp_path / "run")
    files = sorted(pictures.rglob("*.png"))
    many = cnnzoo.predict(run, 3 * files, precision="fp32").probabilities[: len(files)]
    np.testing.assert_allclose(many, cnnzoo.predict(run, files).probabilities, atol=1e-4)


def test_a_probe_is_judged_in_fp32_where_16_bits_are_to_be_had(pictures, weights, tmp_path, monkeypatch):
    monkeypatch.setattr("cnnzoo.device.computes_in_bf16", lambda device: True)
    run = cnnzoo.probe(pictures, "resnet20", str(weights), classifier="ridge", run=tmp_path / "run")
    assert run.environment["precision"] == "fp32"


def test_features_in_16_bits_are_kept_apart(pictures, weights, tmp_path, monkeypatch, fails):
    monkeypatch.setenv("CNNZOO_CACHE", str(tmp_path / "cache"))
    asked = ["probe", pictures, "--model", "resnet20", "--pretrained", weights, "--run", tmp_path / "run"]
    assert "the precision is fp16, which CPUs cannot" in fails(*asked, "--train.precision", "fp16")
    assert not [*tmp_path.glob("cache/features-*")]  # none was computed before
    kept = []
    for there, precision in ((False, "auto"), (True, "fp32"), (False, "bf16"), (True, "auto")):
        monkeypatch.setattr("cnnzoo.device.computes_in_bf16", lambda device, there=there: there)
        options = {"overrides": {"train.precision": precision}, "run": tmp_path / f"{precision}{there}"}
        cnnzoo.probe(pictures, "resnet20", str(weights), classifier="ridge", **options)
        kept.append(sorted((file.stem for file in tmp_path.glob("cache/features-*.sqlite")), key=len))
    (plain,), (_, in_16_bits) = kept[0], kept[2]
    assert in_16_bits == f"{plain}-bf16"
    assert kept[:2] == [[plain]] * 2  # auto without bf16 is fp32
    assert kept[2:] == [[plain, in_16_bits]] * 2  # and with it bf16


def test_images_too_close_to_tell_in_16_bits_are_judged_in_fp32(pictures, weights, tmp_path, monkeypatch):
    """An accuracy is that which evaluate finds in fp32."""
    monkeypatch.setattr("cnnzoo.device.computes_in_bf16", lambda device: True)
    extract = Backbone.extract

    def coarse(self, images, **options):
        found = extract(self, images, **options)
        return replace(found, vectors=np.ones_like(found.vectors)) if "held out" in options.get("what", "") else found

    monkeypatch.setattr(Backbone, "extract", coarse)
    monkeypatch.setattr("cnnzoo.inference.forms.CLOSE", 10.0)  # so that all are
    options = {"run": tmp_path / "run", "overrides": {"data.val_fraction": 0.5}}
    for more, judged in (({}, "ridge "), ({"bag": 2}, "bagging, 2 members: validation ")):
        said = []
        run = cnnzoo.probe(pictures, "resnet20", str(weights), classifier="ridge", tell=said.append, **more, **options)
        found = cnnzoo.evaluate(run)
        assert run.metrics[-1]["val_top1"] == found.top1
        assert [score["classifier"] for score in run.probe["scores"]] == [*["2 x ridge"] * len(more), "ridge"]
        (line,) = (line.removeprefix(judged) for line in said if line.startswith(judged))
        assert f"{found.top1:.2%}" in line.split(",")[0]
        options["run"] = tmp_path / "bagged"


def test_a_photo_that_vanishes_once_its_features_are_known_is_judged_by_them(weights, tmp_path, monkeypatch):
    monkeypatch.setattr("cnnzoo.device.computes_in_bf16", lambda device: True)
    monkeypatch.setattr("cnnzoo.inference.forms.CLOSE", 10.0)  # so that all are to be judged in fp32, too
    extract, kept = Backbone.extract, []

    def vanish(self, images, **options):
        found = extract(self, images, **options)
        if "held out" in options.get("what", ""):
            kept.append(found.plain[1])
            images.files[1].unlink()
        return found

    monkeypatch.setattr(Backbone, "extract", vanish)
    options = {"run": tmp_path / "run", "overrides": {"data.cache": "none"}}
    run = cnnzoo.probe(photos.folder(tmp_path / "photos"), "resnet20", str(weights), classifier="ridge", **options)
    with torch.inference_mode():
        said = cnnzoo.load(run).get_classifier()(torch.from_numpy(kept[0])[None])
    np.testing.assert_allclose(run.predictions[0][1:2], said, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_that_are_no_numbers_are_told_and_no_row_is_kept(pictures, tmp_path, monkeypatch, fails, precision):
    monkeypatch.setenv("CNNZOO_CACHE", str(tmp_path / "cache"))
    net = cnnzoo.create("resnet20")
    torch.nn.init.constant_(next(net.parameters()), torch.nan)
    torch.save(net.state_dict(), tmp_path / "damaged.pth")
    options = ["--pretrained", tmp_path / "damaged.pth", "--run", tmp_path / "run", "--train.precision", precision]
    said = fails("probe", pictures, "--model", "resnet20", *options)
    assert "features of resnet20 are no finite numbers: its weights are damaged" in said
    assert ("try train.precision fp32" in said) == (precision == "bf16")
    (file,) = tmp_path.glob("cache/features-*.sqlite")
    assert sqlite3.connect(file).execute("SELECT count(*) FROM vectors").fetchone() == (0,)


def test_bad_input_is_one_line(pictures, weights, tmp_path, fails):
    one = photos.folder(tmp_path / "one", kinds=("blue",))
    lone = photos.folder(tmp_path / "lone", each=4)
    for number in range(1, 4):
        (lone / "red" / f"0{number}.png").unlink()
    known = ["--model", "resnet20", "--pretrained", weights]
    for words, said in (
        ([one, *known], "one class only"),
        ([lone, *known], "'red' of"),
        ([pictures, "--model", "resnet2"], "did you mean resnet32 or resnet20?"),
        ([pictures, *known, "--classifier", "forest"], "probe.classifier is forest, but must be auto or logistic"),
        ([pictures, *known, "--views", "0"], "probe.views is 0, but must be auto or at least 1"),
        ([pictures, *known, "--data.sise", "3"], "did you mean data.size"),
    ):
        assert said in fails("probe", *words, "--run", tmp_path / "bad")
        assert not (tmp_path / "bad").exists()
