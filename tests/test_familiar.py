"""Whether an image is like those that a net learnt from: a net names one of its classes whatever it is shown."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import photos
import pytest
import torch

import cnnzoo
from cnnzoo.errors import InputError
from cnnzoo.familiar import ENOUGH, STRANGE, Familiarity
from cnnzoo.registry import unregister
from cnnzoo.telling import silent

rng = np.random.default_rng(0)


def like(centre: int, many: int) -> np.ndarray:
    """Vectors around one of the axes."""
    return np.eye(8)[centre] + 0.2 * rng.normal(size=(many, 8))


def test_of_images_like_the_known_ones_one_in_twenty_is_called_strange():
    familiarity = Familiarity.learn(like(0, 300), like(0, 400))
    assert np.mean(familiarity.of(like(0, 4000)) < STRANGE) == pytest.approx(STRANGE, abs=0.025)
    assert np.mean(familiarity.of(like(1, 100)) < STRANGE) == 1


def test_it_is_the_share_of_held_out_images_that_are_as_far_off_or_farther():
    known, held_out = like(0, 30), like(0, 20)
    familiarity = Familiarity.learn(known, held_out)

    def distance(vector):
        cosines = known @ vector / np.linalg.norm(known, axis=1) / np.linalg.norm(vector)
        return 1 - cosines.max()

    far = np.array([distance(vector) for vector in held_out])
    new = like(0, 50)
    expected = [(1 + np.sum(far >= distance(vector))) / 21 for vector in new]
    assert familiarity.of(new) == pytest.approx(expected, abs=0.051)  # a place, where half floats tell no difference
    assert np.mean(familiarity.of(new) == np.float32(expected)) > 0.8
    assert familiarity.of(3 * new).tolist() == familiarity.of(new).tolist()


def test_what_is_too_small_for_16_bits_is_nought_also_where_numpy_is_told_to_raise():
    with np.errstate(all="raise"):
        assert Familiarity.learn(np.array([[1, 1e-9]]), np.array([[1, 0]])).known.tolist() == [[1, 0]]


def test_it_is_small_however_much_was_learnt_from():
    familiarity = Familiarity.learn(like(0, 5000), like(0, 3000))
    assert len(familiarity.known) == len(familiarity.distances) == ENOUGH


@pytest.fixture(scope="module")
def run(data_root, tmp_path_factory):
    """A probe that tells ants from bees, by sixty photos of each."""
    if not os.environ.get("CNNZOO_WEIGHTS"):
        pytest.skip("CNNZOO_WEIGHTS does not say where the real weights lie")
    there = tmp_path_factory.mktemp("insects")
    for kind in ("ants", "bees"):
        (there / "photos" / kind).mkdir(parents=True)
        for file in sorted((data_root / "hymenoptera" / "train" / kind).glob("*.jpg"))[:60]:
            shutil.copy(file, there / "photos" / kind)
    options = {"run": there / "run", "classifier": "ridge", "overrides": {"data.val_fraction": 0.4}, "tell": silent}
    return cnnzoo.probe(there / "photos", "squeezenet1_1", "caffe_in1k", **options)


@pytest.fixture(scope="module")
def others(data_root) -> list[Path]:
    """Photos of other things."""
    return sorted((data_root / "imagenet_samples").glob("*.jpg"))[::25]


def test_a_probe_for_insects_is_sure_of_other_things_and_knows_them_for_strangers(run, others, data_root):
    insects = sorted((data_root / "hymenoptera" / "val").rglob("*.jpg"))[::6]
    strange, own = cnnzoo.predict(run, others), cnnzoo.predict(run, insects)
    assert np.mean(own.familiarity < STRANGE) < 0.2
    assert np.mean(strange.familiarity < STRANGE) > 0.5
    assert np.mean(strange.probabilities.max(axis=1) > 0.7) > 0.5


def test_strangers_get_no_answer_where_that_is_asked_for(run, others, cli, tmp_path):
    plain = cnnzoo.predict(run, others)
    assert not plain.abstain.any()
    least = STRANGE
    asked = cnnzoo.predict(run, others, min_familiarity=least)
    assert asked.abstain.tolist() == (plain.familiarity < least).tolist()
    assert 0 < asked.abstain.sum() < len(others)
    done = cli("predict", run.path, *others, "--min-familiarity", least, "--out", "out.csv")
    assert done.code == 0, done.err
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [row["abstain"] == "true" for row in rows] == asked.abstain.tolist()
    assert f"{asked.abstain.sum()} of {len(others)} images are unsure: not familiar enough" in done.err
    assert [float(row["familiarity"]) for row in rows] == pytest.approx(plain.familiarity, abs=1e-4)


def test_a_person_is_told(run, others, cli):
    told = cnnzoo.predict(run, others)
    strange = told.familiarity < STRANGE
    assert strange.any()
    done = cli("predict", run.path, *others)
    assert [" unlike the training images: " in line for line in done.out.splitlines()] == strange.tolist()
    assert f"{strange.sum()} of {len(others)} images seem unlike the training images; of images like those, 5% do" in (
        done.err
    )
    place = int(np.flatnonzero(strange)[0])
    assert "unlike the training images: " in str(told[place])
    assert told[place].familiarity == pytest.approx(told.familiarity[place])
    assert "unlike the training images" in told[place : place + 1]._repr_html_()


def test_probabilities_are_the_same_with_and_without(run, others):
    net = cnnzoo.load(run)
    with_it = cnnzoo.predict(net, others)
    net.run = None
    without = cnnzoo.predict(net, others)
    np.testing.assert_allclose(with_it.probabilities, without.probabilities, atol=1e-6)
    assert np.isnan(without.familiarity).all()
    assert without[0].familiarity is None
    mirrored = cnnzoo.predict(run, others, mirror=True)
    assert mirrored.familiarity == pytest.approx(with_it.familiarity)


def test_a_net_that_has_moved_judges_by_what_it_sees_now(pictures, weights, tmp_path):
    """The features of a fine-tuned net are others than those its probe began from."""
    run = cnnzoo.finetune(pictures, "resnet20", weights, epochs=(1, 1), run=tmp_path / "run", tell=silent)
    net = cnnzoo.load(run)
    shown = torch.stack([net.preprocessing(pictures / name) for name in run.split["train"]])
    with torch.no_grad():
        vectors = net.forward_head(net.forward_features(shown), pre_logits=True)
    expected = torch.nn.functional.normalize(vectors).numpy()
    np.testing.assert_allclose(run.familiarity.known, expected, atol=2e-3)
    assert len(run.familiarity.distances) == len(run.split["val"])


def test_what_cannot_tell_it_says_so(run, others, tmp_path):
    for wrong, options, why in (
        (cnnzoo.create("resnet20", num_classes=2), {}, "but resnet20 does not tell it; a run of its own would"),
        (run, {"precision": "int8"}, "needs features, which int8 does not give; take another"),
    ):
        with pytest.raises(InputError, match=why):
            cnnzoo.predict(wrong, others, min_familiarity=0.05, **options)
    with pytest.raises(InputError, match=r"min_familiarity is 5, but must be between 0 and 1"):
        cnnzoo.predict(run, others, min_familiarity=5)


@pytest.mark.parametrize(
    "change",
    [
        lambda known, distances: (known.ravel(), distances),
        lambda known, distances: (known[:0], distances),
        lambda known, distances: (known * np.nan, distances),
        lambda known, distances: (known, distances.astype(str)),
        lambda known, distances: (known, distances[:, None]),
        lambda known, distances: (known[:, :5], distances),
    ],
)
def test_a_file_with_arrays_of_something_else_is_told(run, others, tmp_path, change):
    odd = shutil.copytree(run, tmp_path / "odd")
    known, distances = change(cnnzoo.Run(run).familiarity.known, cnnzoo.Run(run).familiarity.distances)
    np.savez(odd / "familiar.npz", known=known, distances=distances)
    with pytest.raises(InputError, match=r"familiar.npz is .*; remove it, and predictions come without familiarity"):
        cnnzoo.predict(odd, others)


def test_an_older_run_answers_without_and_a_damaged_file_is_told(run, others, tmp_path):
    old = shutil.copytree(run, tmp_path / "old")
    file = old / "familiar.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        InputError, match=r"familiar.npz is damaged or cut short; remove it, and predictions come without"
    ):
        cnnzoo.predict(old, others)
    assert cnnzoo.evaluate(old).top1 == cnnzoo.evaluate(run).top1  # which does without it
    file.unlink()
    assert np.isnan(cnnzoo.predict(old, others[:2]).familiarity).all()


def test_a_run_from_scratch_has_it_too(tmp_path):
    photos.folder(tmp_path / "photos")
    config = {"model": "lenet5", "data": {"source": tmp_path / "photos", "size": 32}, "train": {"epochs": 1}}
    run = cnnzoo.train({**config, "run": tmp_path / "run"}, tell=silent)
    assert run.familiarity.known.shape == (len(run.split["train"]), 84)


def test_a_photo_that_vanishes_in_training_has_no_part_in_it(tmp_path):
    photos.folder(tmp_path / "photos")
    gone, split = [], tmp_path / "run" / "split.json"

    def vanish() -> bool:
        if not gone and split.exists():
            gone.extend(json.loads(split.read_text())[part][0] for part in ("train", "val"))
            for file in gone:
                os.unlink(file)
        return False

    data = {"source": tmp_path / "photos", "size": 32, "cache": "none"}
    config = {"model": "lenet5", "data": data, "train": {"epochs": 1}, "run": tmp_path / "run"}
    run = cnnzoo.train(config, with_report=False, tell=silent, should_stop=vanish)
    assert len(gone) == 2
    assert len(run.familiarity.known) == len(run.split["train"]) - 1
    assert len(run.familiarity.distances) == len(run.split["val"]) - 1


class Stranger(torch.nn.Module):
    """A net of a user's, whose answers are not those of its head to its features, or which has no features."""

    def __init__(self, num_classes=3, in_chans=3, features=True):
        super().__init__()
        self.conv, self.fc = torch.nn.Conv2d(in_chans, 4, 3), torch.nn.Linear(4, num_classes)
        if features:
            self.forward_features, self.forward_head = self.conv, self._head

    def _head(self, maps, pre_logits=False):
        return maps.mean((2, 3)) if pre_logits else self.fc(maps.mean((2, 3)))

    def forward(self, x):
        return 2 * self._head(self.conv(x)) + 1


@pytest.mark.parametrize("features", [True, False])
def test_of_a_net_that_does_otherwise_nothing_is_told(features, pictures, tmp_path):
    cnnzoo.register("stranger", input_size=(3, 32, 32), num_classes=3)(Stranger)
    try:
        config = {"model": {"name": "stranger", "args": {"features": features}}, "data": {"source": pictures}}
        run = cnnzoo.train({**config, "train": {"epochs": 1}, "run": tmp_path / "run"}, tell=silent)
        assert run.familiarity is None
        assert np.isnan(cnnzoo.predict(run, pictures).familiarity).all()
    finally:
        unregister("stranger")
