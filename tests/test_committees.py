"""Committees that are made: bagging, boosting, seeds and snapshots, of heads on cached features and of whole nets."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import photos
import pytest
import torch
from sklearn.ensemble import AdaBoostClassifier
from test_probe import blobs, data_of_blobs

import cnnzoo
from cnnzoo import config, zoo
from cnnzoo.checkpoint import Run
from cnnzoo.data import sources
from cnnzoo.data.batches import shuffled
from cnnzoo.errors import InputError, Interrupted
from cnnzoo.models import _heads
from cnnzoo.resampling import bootstrap, samme
from cnnzoo.transfer import classifiers, committee, probe

# ---- what is drawn, and what a round of boosting does


def test_a_bootstrap_sample_keeps_every_class_at_its_size():
    labels = np.repeat([0, 1, 2], [1, 10, 1000])
    drawn = bootstrap(labels, (0, 1))
    assert (labels[drawn] == labels).all()
    assert drawn[0] == 0  # the only image of its class
    assert len(np.unique(drawn[11:])) == pytest.approx(1000 * (1 - 1 / np.e), abs=40)
    assert (drawn == bootstrap(labels, (0, 1))).all()
    assert (drawn != bootstrap(labels, (0, 2))).any()


def test_a_round_of_boosting_is_lines_2b_to_2e_of_samme():
    right = np.array([True, True, True, False])
    done = samme(np.array([0.1, 0.2, 0.3, 0.4]), right, classes=3)
    assert done.error == pytest.approx(0.4)
    assert done.alpha == pytest.approx(np.log(0.6 / 0.4) + np.log(2))
    raised = np.array([0.1, 0.2, 0.3, 0.4 * np.exp(done.alpha)])
    np.testing.assert_allclose(done.weights, raised / raised.sum())
    assert done.goes_on
    of_any_sum = samme(np.array([1, 2, 3, 4]), right, classes=3)
    assert of_any_sum.alpha == pytest.approx(done.alpha)
    assert samme(np.array([1e-30, 0.2, 0.4, 0.4]), right, classes=3).weights.min() > 1e-17  # no image vanishes


def test_boosting_ends_with_a_member_that_is_perfect_or_no_better_than_chance():
    even = np.full(4, 0.25)
    perfect = samme(even, np.ones(4, dtype=bool), classes=2)
    assert perfect.usable
    assert perfect.alpha == pytest.approx(np.log(7))  # as if it were wrong on half of an image
    assert not perfect.goes_on
    by_chance = np.array([True, False, False, False])
    assert not samme(even, by_chance, classes=4).usable
    assert samme(even, by_chance, classes=5).goes_on


# ---- heads on cached features


def gathered(classifier: str, classes: int = 5, apart: float = 1.0, **options) -> committee.Gathered:
    data = data_of_blobs(classes, apart=apart)
    return committee.gather(probe.fit(data, classifier=classifier), data, **options)


@pytest.mark.parametrize("classifier", ["logistic", "ridge", "svm", "centroid", "knn", "mlp"])
def test_a_bag_of_heads_is_one_head_that_its_description_rebuilds(classifier):
    found = gathered(classifier, bag=3)
    assert [score.classifier for score in found.scores] == [f"3 x {classifier}", classifier]
    z, t = blobs(5, each=10, seed=5)
    logits = probe.predict(found.head, z)
    assert found.scores[0].val_top1 == found.committee.val_top1
    assert found.committee.val_top1 == pytest.approx((logits.argmax(1).numpy() == t).mean())
    assert found.committee.val_top1 > 0.7
    again = _heads.build(json.loads(json.dumps(_heads.describe(found.head))), z.shape[1])
    again.load_state_dict(found.head.state_dict())
    torch.testing.assert_close(probe.predict(again, z), logits)


def test_a_bag_answers_by_the_mean_of_its_members_probabilities():
    found = gathered("logistic", bag=3)
    z, _ = blobs(5, each=10, seed=5)
    shares = [(probe.predict(head, z) / found.head.temperature).softmax(1) for head in found.head.heads]
    torch.testing.assert_close(probe.predict(found.head, z).exp(), sum(shares) / 3)


def test_out_of_bag_accuracy_asks_each_image_of_those_that_have_not_seen_it():
    found = gathered("logistic", bag=4, seed=3)
    x, y = blobs(5)
    samples = [set(bootstrap(y, (3, number)).tolist()) for number in range(4)]
    shares = [(probe.predict(h, x) / found.head.temperature).softmax(1).numpy() for h in found.head.heads]
    right = []
    for place, label in enumerate(y):
        said = [share[place] for share, sample in zip(shares, samples, strict=True) if place not in sample]
        right += [sum(said).argmax() == label] if said else []
    assert found.committee.out_of_bag == pytest.approx(np.mean(right))
    assert found.committee.out_of_bag_images == len(right)
    assert f"out of bag {np.mean(right):.2%} of {len(right)} training images" in str(found)


def test_out_of_bag_accuracy_is_no_better_than_chance_for_labels_by_chance():
    x, y = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32), np.tile([0, 1, 2], 100)
    data = classifiers.Data.of(x[:, None], y, x[:6], y[:6], 3)
    found = committee.gather(probe.fit(data, classifier="logistic"), data, bag=5)
    assert found.committee.out_of_bag < 0.45


def test_boosted_heads_are_scikit_learns():
    found = gathered("centroid", boost=8)
    data = data_of_blobs(5)
    x, z = (data.scaled(vectors) for vectors in (data.vectors[:, 0], data.val_vectors))
    theirs = AdaBoostClassifier(classifiers.ClassMeans(), n_estimators=8).fit(x, data.labels)
    np.testing.assert_allclose([m.weight for m in found.committee.members], theirs.estimator_weights_, rtol=1e-5)
    np.testing.assert_allclose([m.error for m in found.committee.members], theirs.estimator_errors_, rtol=1e-5)
    assert (probe.predict(found.head, data.val_vectors).argmax(1).numpy() == theirs.predict(z)).all()


def test_boosting_tells_why_it_ended_early():
    found = gathered("logistic", apart=5.0, boost=5)
    assert len(found.committee.members) == 1
    assert "boosting ended with member 1, which is right on every training image" in str(found)
    corners = np.array([[0, 0], [1, 1], [0, 1], [1, 0]], np.float32)  # exclusive or: the means of both classes coincide
    labels = np.array([0, 0, 1, 1])
    data = classifiers.Data.of(corners[:, None], labels, corners, labels, 2)
    with pytest.raises(InputError, match=r"better than chance; the first is wrong on 50\.0%"):
        committee.gather(probe.fit(data, classifier="centroid"), data, boost=5)


@pytest.mark.parametrize("how", [{"bag": 3, "classifier": "logistic"}, {"boost": 3}], ids=["bag", "boost"])
def test_a_probe_with_many_heads_leaves_a_run_like_any_other(pictures, weights, tmp_path, how):
    told = []
    run = cnnzoo.probe(pictures, "resnet20", weights, **how, run=tmp_path / "run", tell=told.append)
    assert any(re.search("members?: validation", line) for line in told)
    assert run.card["head"]["kind"] == "committee"
    outputs, targets = run.predictions
    net = cnnzoo.load(run)
    images = torch.stack([net.preprocessing(name) for name in run.split["val"]])
    with torch.no_grad():
        torch.testing.assert_close(net(images), torch.from_numpy(outputs), rtol=1e-4, atol=1e-4)
    assert cnnzoo.evaluate(run.path).top1 == pytest.approx((outputs.argmax(1) == targets).mean())
    files = sorted(pictures.rglob("*.png"))
    few, many = cnnzoo.predict(run, files[:3]), cnnzoo.predict(run, 3 * files, precision="fp32")
    np.testing.assert_allclose(many.probabilities[:3], few.probabilities, atol=1e-4)  # by the fast form of the net
    again = cnnzoo.train(config.read(run.config_file, [f"--run={tmp_path / 'again'}"]), with_report=False)
    np.testing.assert_array_equal(again.predictions[0], outputs)


def test_wrong_numbers_and_classifiers_are_told(pictures, weights, tmp_path, fails):
    known = [pictures, "--model", "resnet20", "--pretrained", weights, "--run", tmp_path / "bad"]
    for words, said in (
        (["--bag", 1], "probe.bag is 1, but must be null or at least 2"),
        (["--bag", 3, "--boost", 3], "probe.boost is 3, but must be null with probe.bag"),
        (["--boost", 3, "--classifier", "knn"], "probe.classifier is knn, but must be centroid, logistic, ridge"),
        (["--bag", 3, "--train.epochs", 2], "learns no further; set train.epochs 0"),
    ):
        assert said in fails("probe", *known, *words)
        assert not (tmp_path / "bad").exists()


# ---- what the trainer draws


def test_a_bag_trains_on_its_sample_and_is_judged_on_the_same_images():
    own, whole = (sources.load(config.DataConfig(bag=bag), config.AugmentConfig(), 8) for bag in (0, None))
    assert own.val.names == whole.val.names
    assert len(own.train) == len(whole.train)
    assert (own.train.labels == whole.train.labels).all()
    assert len(set(own.train.names)) == pytest.approx(len(whole.train) * (1 - 1 / np.e), rel=0.05)
    place = {name: i for i, name in enumerate(whole.train.names)}
    rows = np.array([place[name] for name in own.train.names])
    some = np.arange(20)
    np.testing.assert_array_equal(own.train.images.take(some), whole.train.images.take(rows[some]))
    assert "of the 1,438 images to train on are in it" in own.notes[-1]
    resumed = sources.load(config.DataConfig(bag=0), config.AugmentConfig(), 8, split=own.split())
    assert resumed.split() == own.split()


def test_images_of_files_are_drawn_without_a_copy(pictures):
    plain = config.DataConfig(source=str(pictures), cache="none")
    own, whole = (sources.load(c, config.AugmentConfig(), 32) for c in (replace(plain, bag=1), plain))
    place = whole.train.names.index(own.train.names[3])
    np.testing.assert_array_equal(own.train.images.take(np.array([3])), whole.train.images.take(np.array([place])))


def test_weights_say_how_often_an_image_is_drawn():
    weights = np.where(np.arange(1000) < 100, 9.0, 1.0)  # a tenth of the images has half of the weight
    drawn = np.concatenate([shuffled(1000, 0, epoch, weights) for epoch in range(20)])
    assert len(drawn) == 20_000
    assert (drawn < 100).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("cats", "no JSON of names and numbers"),
        ('{"digits/1": 1}', "has no number for digits/0"),
        (json.dumps({f"digits/{i}": [1, 2] for i in range(1797)}), "no JSON of names and numbers"),
        (json.dumps({f"digits/{i}": -1 for i in range(1797)}), "negative"),
        (json.dumps({f"digits/{i}": 0 for i in range(1797)}), "all 0"),
    ],
)
def test_a_file_of_weights_that_will_not_do_is_told(tmp_path, content, words):
    file = tmp_path / "weights.json"
    if content:
        file.write_text(content)
    with pytest.raises(InputError, match=words):
        sources.load(config.DataConfig(weights=str(file)), config.AugmentConfig(), 8)


def test_keys_that_contradict_each_other_are_told():
    for wrong, words in (
        ({"data": {"bag": 0, "weights": "w.json"}}, "data.weights is w.json, but must be null with data.bag"),
        ({"data": {"weights": "w.json"}, "train": {"balance": "sampler"}}, "take one of them"),
        ({"schedule": {"name": "cyclic", "cycles": 3}}, "train.epochs is 10, but must be a multiple of"),
        ({"schedule": {"name": "cyclic", "warmup_epochs": 1}}, "0 with cyclic, which begins each cycle"),
        ({"schedule": {"name": "cyclic"}, "train": {"patience": 2}}, "train.patience is 2, but must be null with"),
    ):
        with pytest.raises(InputError, match=words):
            config.read(wrong)


# ---- whole nets


def small(folder, epochs: int = 2, **sections) -> dict:
    """A net that learns the digits in a second."""
    return {
        "run": str(folder),
        "model": {"name": "mlp", "args": {"image_size": 8, "hidden": [24, 12]}},
        "data": {"size": 8},
        "optim": {"lr": 0.1},
        "train": {"epochs": epochs, "batch_size": 64, "compile": False, "precision": "fp32"},  # not by the clock
    } | sections


def top1(run: Run) -> float:
    outputs, targets = run.predictions
    return (outputs.argmax(1) == targets).mean()


def shares(run: Run) -> torch.Tensor:
    outputs, _ = run.predictions
    return (torch.from_numpy(outputs) / cnnzoo.load(run).temperature).softmax(1)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return cnnzoo.train_committee(small(tmp_path_factory.mktemp("seeds") / "s"), "seeds", 3, with_report=False)


def test_runs_of_several_seeds_become_a_committee(seeds):
    made = seeds
    assert [run.path.name for run in made.members] == ["seed0", "seed1", "seed2"]
    assert made.run.path == made.members[0].path.parent / "committee"
    assert made.top1 == tuple(map(top1, made.members))
    assert made.together == top1(made.run) > np.mean(made.top1)
    mean = sum(map(shares, made.members)) / 3
    torch.testing.assert_close(torch.from_numpy(made.run.predictions[0]).softmax(1), mean, rtol=1e-3, atol=1e-5)
    assert cnnzoo.evaluate(made.run.path).top1 == pytest.approx(made.together)


def test_a_bag_of_runs_tells_its_out_of_bag_accuracy(tmp_path):
    made = cnnzoo.train_committee(small(tmp_path / "b"), "bag", 2, with_report=False)
    samples = [set(run.split["train"]) for run in made.members]
    assert samples[0] != samples[1]
    whole = sources.load(config.DataConfig(size=8), config.AugmentConfig(), 8)
    said = []
    for run, sample in zip(made.members, samples, strict=True):
        net = cnnzoo.load(run)
        images = [image.squeeze(2) for image in whole.train.images.take(np.arange(len(whole.train)))]
        with torch.no_grad():
            outputs = net(torch.stack([net.preprocessing(image) for image in images])) / net.temperature
        out = torch.tensor([name not in sample for name in whole.train.names])
        said.append(outputs.softmax(1) * out[:, None])
    known = sum(said).sum(1) > 0
    right = (sum(said).argmax(1).numpy() == whole.train.labels)[known]
    assert f"out of bag {right.mean():.2%} of {len(right):,} images" in str(made)


def test_boosted_runs_draw_what_those_before_them_got_wrong(tmp_path):
    made = cnnzoo.train_committee(small(tmp_path / "x", epochs=2), "boost", 3, with_report=False)
    assert [run.path.name for run in made.members] == ["boost0", "boost1", "boost2"]
    told = json.loads((tmp_path / "x" / "weights1.json").read_text())
    net = cnnzoo.load(made.members[0])
    whole = sources.load(config.DataConfig(size=8), config.AugmentConfig(), 8)
    images = [image.squeeze(2) for image in whole.train.images.take(np.arange(len(whole.train)))]
    with torch.no_grad():
        right = net(torch.stack([net.preprocessing(image) for image in images])).argmax(1).numpy() == whole.train.labels
    done = samme(np.ones(len(right)), right, 10)
    np.testing.assert_allclose([told[name] for name in whole.train.names], done.weights * len(right), rtol=1e-6)
    assert config.read(made.members[1].config_file).data.weights == str(tmp_path / "x" / "weights1.json")
    assert sorted(tmp_path.glob("x/boost*")) == [run.path for run in made.members]  # as a shell finds them
    votes = config.read(made.run.config_file).ensemble.weights
    assert votes[0] == max(votes)  # of the images as they are the first knows most, so its error is least
    counted = sum(v * np.eye(10)[run.predictions[0].argmax(1)] for v, run in zip(votes, made.members, strict=True))
    np.testing.assert_array_equal(made.run.predictions[0].argmax(1), counted.argmax(1))


def test_a_photo_that_vanishes_before_members_are_judged_on_it_is_told_once(tmp_path, monkeypatch):
    source, told, load, last = photos.folder(tmp_path / "photos"), [], zoo.load, tmp_path / "b" / "bag1"
    gone = source / "red" / "00.png"

    def load_and_vanish(run: Run) -> torch.nn.Module:
        if Run(last).is_finished:
            gone.unlink(missing_ok=True)
        return load(run)

    monkeypatch.setattr(zoo, "load", load_and_vanish)
    data = {"source": str(source), "size": 32, "cache": "none", "split_seed": 1}
    config = small(tmp_path / "b", model={"name": "lenet5"}, data=data)
    cnnzoo.train_committee(config, "bag", 2, with_report=False, tell=told.append)
    assert told.count(f"{gone}: there is no such file; it was judged as a black image") == 1


def vanishing(file, when: str, told: list):
    """A listener that removes a file as it hears a line."""

    def tell(line: str) -> None:
        told.append(line)
        if line == when:
            file.unlink()

    return tell


def of_photos(folder, source) -> dict:
    """A net that learns some of the photos, and not all."""
    data = {"source": str(source), "size": 32, "cache": "none"}
    config = small(folder, epochs=3, model={"name": "lenet5"}, data=data, optim={"lr": 0.02})
    config["train"]["batch_size"] = 8
    return config


@pytest.mark.parametrize("kind", ["bag", "seeds", "boost"])
@pytest.mark.parametrize("part", ["train", "val"])
def test_members_are_divided_alike_though_a_photo_vanishes_between_them(kind, part, tmp_path):
    source, whole = photos.folder(tmp_path / "photos"), of_photos(tmp_path / "c", tmp_path / "photos")
    divided = sources.load(config.read(whole).data, config.AugmentConfig(), 32).split()
    second = "seed1" if kind == "seeds" else f"{kind}1"
    tell = vanishing(source.parent / divided[part][0], f"{second}:", told := [])
    made = cnnzoo.train_committee(whole, kind, 2, with_report=False, tell=tell)
    for run in made.members:
        assert run.split["val"] == divided["val"]
        assert {*run.split["train"]} <= {*divided["train"]}
    assert made.run.split["val"] == divided["val"]
    assert any("there is no such file" in line for line in told)  # as in any training


def test_a_committee_that_goes_on_without_a_held_out_photo_is_judged_on_those_that_all_held_out(tmp_path):
    photos.folder(tmp_path / "photos")
    whole, told = of_photos(tmp_path / "c", tmp_path / "photos"), []
    first = Run(tmp_path / "c" / "bag0")
    with pytest.raises(Interrupted):
        cnnzoo.train_committee(whole, "bag", 2, with_report=False, should_stop=lambda: first.is_finished)
    val = first.split["val"]
    os.remove(val[0])
    made = cnnzoo.train_committee(whole, "bag", 2, resume=True, with_report=False, tell=told.append)
    assert made.members[1].split["val"] == made.run.split["val"] == val[1:]
    many = len(val)
    assert f"judged on the {many - 1} images that all runs held out, of {many} that one did" in told
    assert any(line.startswith(f"missing since the run was begun: {val[0]}") for line in told)
    assert cnnzoo.evaluate(made.run).top1 == made.together


def test_boosting_that_has_not_ended_makes_no_larger_committee_of_a_finished_one(tmp_path):
    whole = small(tmp_path / "x")
    cnnzoo.train_committee(whole, "boost", 2, with_report=False)
    with pytest.raises(InputError, match="is a committee of 2, not of 3; remove it"):
        cnnzoo.train_committee(whole, "boost", 3, resume=True, with_report=False)
    assert not (tmp_path / "x" / "boost2").exists()


def test_boosting_without_a_second_member_says_so_and_keeps_the_first(tmp_path):
    slow = small(tmp_path / "x", epochs=1, optim={"lr": 1e-9})  # the same net twice, which is wrong where it was
    with pytest.raises(InputError, match=r"no better than chance \(\d\d\.\d% wrong\), so there is no committee"):
        cnnzoo.train_committee(slow, "boost", 3, with_report=False)
    assert (tmp_path / "x" / "boost0" / "predictions.npz").exists()
    assert not (tmp_path / "x" / "boost2").exists()


def test_a_stopped_committee_goes_on_and_keeps_finished_members(seeds, tmp_path):
    whole = small(tmp_path / "s")
    asked = iter(range(1000))
    with pytest.raises(Interrupted):
        cnnzoo.train_committee(whole, "seeds", 3, with_report=False, should_stop=lambda: next(asked) > 60)
    first = Run(tmp_path / "s" / "seed0").model_file
    before = os.stat(first).st_mtime_ns
    made = cnnzoo.train_committee(whole, "seeds", 3, resume=True, with_report=False)
    assert os.stat(first).st_mtime_ns == before
    np.testing.assert_array_equal(made.run.predictions[0], seeds.run.predictions[0])
    again = cnnzoo.train_committee(whole, "seeds", 3, resume=True)
    assert (again.together, again.run.path) == (made.together, made.run.path)
    for changed, many, words in (
        (small(tmp_path / "s", epochs=1), 3, r"begun with another config: train\.epochs is 2 there and 1 here"),
        (whole, 2, "is a committee of 3, not of 2; remove it"),
        (whole, 4, "is a committee of 3, not of 4; remove it"),
    ):
        with pytest.raises(InputError, match=words):
            cnnzoo.train_committee(changed, "seeds", many, resume=True)
    assert not (tmp_path / "s" / "seed3").exists()
    Run(tmp_path / "s" / "seed1").amend_card(temperature=9.0)
    with pytest.raises(InputError, match="is a committee of other members; remove it"):
        cnnzoo.train_committee(whole, "seeds", 3, resume=True)


def test_wrong_committees_are_told_before_any_training(tmp_path, fails):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for words, said in (
        (["--bag", "1"], "bag is 1, but a committee has at least 2 members"),
        (["--bag", "two"], "bag is two, but must be a whole number or null"),
        (["--bag", "3", "--seeds", "3"], "--bag and --seeds are two ways to make several runs"),
        (["--seeds", "3", "--run", "mine"], "mine exists already"),
    ):
        assert said in fails("train", *words)
    assert not (tmp_path / "runs").exists()


# ---- snapshots


def test_a_cyclic_schedule_leaves_a_net_for_each_cycle_and_a_committee_of_them(tmp_path, cli):
    words = ["--run", tmp_path / "r", "--train.precision", "fp32", "--train.epochs", 4]
    words += ["--schedule.name", "cyclic", "--schedule.cycles", 2]
    words += ["--model.name", "mlp", "--model.args", "{image_size: 8, hidden: [24, 12]}", "--data.size", 8]
    code, out, _ = cli("train", *words)
    assert code == 0
    said = out.splitlines()[-2]
    assert said.startswith("snapshots, 2 members: each alone")
    code, out, _ = cli("train", "--resume", tmp_path / "r")  # what is finished stays
    assert code == 0
    assert out.splitlines()[-2] == said
    run = Run(tmp_path / "r")
    snapshots = [Run.open(tmp_path / "r" / "snapshots" / str(number)) for number in (1, 2)]
    assert [line["epoch"] for snapshot in snapshots for line in snapshot.metrics] == [2, 4]
    assert [top1(s) for s in snapshots] == pytest.approx([run.metrics[epoch]["val_top1"] for epoch in (1, 3)])
    for snapshot in snapshots:
        assert cnnzoo.evaluate(snapshot.path).top1 == pytest.approx(top1(snapshot))
    page = cnnzoo.report(snapshots[1]).read_text()  # which does not pass one epoch's time off as that of its training
    assert ">4</b>epoch<" in page
    assert "</b>training<" not in page
    last = torch.load(run.state_file, weights_only=True)["model"]
    assert all(torch.equal(tensor, last[name]) for name, tensor in cnnzoo.load(snapshots[1]).state_dict().items())
    mean = sum(map(shares, snapshots)) / 2
    together = Run.open(tmp_path / "r" / "committee").predictions[0]
    torch.testing.assert_close(torch.from_numpy(together).softmax(1), mean, rtol=1e-3, atol=1e-5)


def test_snapshots_of_a_resumed_run_are_those_of_an_unbroken_one(tmp_path):
    cyclic = {"schedule": {"name": "cyclic", "cycles": 2}}
    whole = cnnzoo.train(small(tmp_path / "whole", **cyclic), with_report=False)
    asked = iter(range(1000))
    with pytest.raises(Interrupted):
        cnnzoo.train(small(tmp_path / "r", **cyclic), should_stop=lambda: next(asked) > 30)
    parts = cnnzoo.train(resume=tmp_path / "r", with_report=False)
    for number in (1, 2):
        own, theirs = (cnnzoo.load(run.snapshot(number)).state_dict() for run in (parts, whole))
        assert all(torch.equal(own[name], theirs[name]) for name in own)


# ---- a committee as a teacher


def test_one_net_learns_from_a_committee(seeds, tmp_path):
    teaching = {"teacher": str(seeds.run.path), "teacher_weight": 1.0, "temperature": 1.0}
    taught = small(tmp_path / "taught", loss=teaching)
    student = cnnzoo.train(taught, with_report=False)
    agree = (student.predictions[0].argmax(1) == seeds.run.predictions[0].argmax(1)).mean()
    assert agree > 0.8
    larger = taught | {"run": str(tmp_path / "bad"), "model": {"name": "lenet5"}, "data": {"size": 32}}
    with pytest.raises(InputError, match=r"takes images \(B, 1, 8, 8\), not \(1, 1, 32, 32\)"):
        cnnzoo.train(larger)
    with pytest.raises(InputError, match=r"not \(1, 1, 4, 4\), with which augment\.grows_from 0\.5 begins"):
        cnnzoo.train(larger | {"model": {"name": "resnet20"}, "data": {"size": 8}, "augment": {"grows_from": 0.5}})
