"""A net as a scikit-learn classifier: fit, predict, and everything that scikit-learn does with those who can."""

import pickle
import pickletools
import re
import signal

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import SkipTestWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

import cnnzoo
from cnnzoo import CNNClassifier
from cnnzoo.errors import InputError
from cnnzoo.train.trainer import Trainer

COLOURS = {"red": (220, 40, 30), "green": (40, 200, 60), "blue": (30, 60, 210)}


def small(**parameters) -> CNNClassifier:
    """Of random features, which tell digits apart well enough."""
    return CNNClassifier(**{"model": "mlp", "pretrained": False, "classifier": "ridge", **parameters})


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """300 images (8, 8) and their labels, which are texts."""
    data = load_digits()
    pixels = (data.images[:300] * (255 / 16)).round().astype(np.uint8)
    return pixels, np.array([f"digit {target}" for target in data.target[:300]])


@pytest.fixture(scope="module")
def fitted(digits) -> CNNClassifier:
    X, y = digits
    return small().fit(X[:200], y[:200])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of class folders with 6 noisy photos of different sizes each, the files, and their labels."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in sorted(COLOURS):
        (folder / name).mkdir()
        for i in range(6):
            noise = rng.integers(-30, 30, (30 + 4 * i, 40, 3))
            Image.fromarray((noise + COLOURS[name]).clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.png")
    files = sorted(folder.rglob("*.png"))
    return folder, files, [file.parent.name for file in files]


# ---- what fitting and predicting give


def test_it_learns_labels_of_any_kind(digits, fitted):
    X, y = digits
    assert fitted.classes_.tolist() == [f"digit {i}" for i in range(10)]
    assert fitted.score(X[200:], y[200:]) > 0.8
    assert fitted.validation_score_ > 0.8
    numbers = np.array([int(label[-1]) for label in y])
    predicted = small().fit(X[:200], numbers[:200]).predict(X[200:])
    assert predicted.tolist() == [int(label[-1]) for label in fitted.predict(X[200:])]
    is_even = small().fit(X[:200], numbers[:200] % 2 == 0)
    assert is_even.classes_.tolist() == [False, True]
    assert is_even.predict(X[200:]).dtype == bool


def test_probabilities_are_those_of_predict(digits, fitted):
    X, _ = digits
    probabilities = fitted.predict_proba(X[200:])
    assert probabilities.shape == (100, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    own = cnnzoo.predict(fitted.net_, X[200:]).probabilities  # perhaps by another of the net's fast forms
    np.testing.assert_allclose(probabilities, own, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(fitted.predict_log_proba(X[200:]), np.log(probabilities))
    assert (fitted.predict(X[200:]) == fitted.classes_[probabilities.argmax(axis=1)]).all()


def test_a_fit_is_a_probe_of_the_same_photos(photos, tmp_path):
    folder, files, labels = photos
    probe = cnnzoo.probe(folder, "lenet5", False, classifier="ridge", views=2, seed=3, run=tmp_path / "probe",
                         overrides=("--data.split_seed=3", "--model.in_chans=3"))  # fmt: skip
    estimator = small(model="lenet5", views=2, random_state=3, run=tmp_path / "fit").fit(files, labels)
    assert estimator.run_.split == probe.split
    np.testing.assert_array_equal(estimator.run_.predictions[0], probe.predictions[0])
    ours, theirs = estimator.net_.state_dict(), cnnzoo.load(probe).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_fine_tuning_moves_the_net(digits, tmp_path):
    X, y = digits
    tuned = small(classifier="auto", mode="full", epochs=np.int64(1), run=tmp_path / "tuned").fit(X[:100], y[:100])
    assert [report["epoch"] for report in tuned.run_.metrics] == [0, 1]
    assert tuned.validation_score_ == max(report["val_top1"] for report in tuned.run_.metrics)


def test_it_goes_on_from_a_run(digits, fitted, tmp_path):
    X, y = digits
    first = small(random_state=5, run=tmp_path / "first").fit(X[:60], y[:60])
    second = CNNClassifier("mlp", tmp_path / "first", classifier="ridge").fit(X[60:160], y[60:160])
    assert torch.equal(second.net_.fc1.weight, first.net_.fc1.weight)
    assert not torch.equal(second.net_.fc1.weight, fitted.net_.fc1.weight)


def test_the_run_stays_where_it_was_asked_for(digits, tmp_path):
    X, y = digits
    estimator = small(run=tmp_path / "run").fit(X[:60], y[:60])
    assert (tmp_path / "run" / "report.html").exists()
    assert estimator.run_.split["val"][0].startswith("X/")
    np.testing.assert_array_equal(
        cnnzoo.predict(tmp_path / "run", X[60:90]).probabilities, estimator.predict_proba(X[60:90])
    )
    with pytest.raises(InputError, match=r"exists already and is finished; choose another folder by run=…$"):
        estimator.fit(X[:60], y[:60])


def test_without_a_run_nothing_stays_but_the_net(digits, tmp_path, monkeypatch):
    X, y = digits
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    estimator = small().fit(X[:60], y[:60])
    assert estimator.run_ is None
    assert not list(tmp_path.iterdir())
    assert len(estimator.predict(X[60:])) == 240


def test_seeds(digits):
    X, y = digits

    def weights(random_state) -> torch.Tensor:
        return small(random_state=random_state).fit(X[:60], y[:60]).net_.fc1.weight

    first = weights(np.random.RandomState(1))
    assert torch.equal(first, weights(np.random.RandomState(1)))
    assert not torch.equal(first, weights(None))


def test_a_class_of_one_image_is_trained_on(digits, tmp_path):
    labels = ["the only one", *["one of many"] * 14, *["another"] * 15]
    estimator = small(val_fraction=0.4, run=tmp_path / "run").fit(digits[0][:30], labels)
    assert estimator.classes_.tolist() == ["another", "one of many", "the only one"]
    assert len(estimator.run_.split["val"]) == 12
    assert "X/0" in estimator.run_.split["train"]


def test_images_that_belong_together_are_not_divided(digits, tmp_path):
    X, y = digits
    writers = np.arange(len(X)) // 20
    held_out = [int(name.rpartition("/")[2]) for name in small(run=tmp_path / "a").fit(X, y, writers).run_.split["val"]]
    assert set(writers[held_out]).isdisjoint(np.delete(writers, held_out))
    assert small().fit(X, y, groups=np.arange(len(X))).validation_score_ > 0.6  # each stands alone
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        small().fit(X, y, groups=writers[1:])
    with pytest.raises(InputError, match="each class of X has one group only, so there is none to validate on"):
        small().fit(X, y, groups=np.zeros(len(X)))


# ---- what images may be


def test_files_pictures_and_arrays_are_the_same_images(photos):
    _, files, labels = photos
    pictures = [Image.open(file).convert("RGB") for file in files]
    kinds = {
        "paths": files,
        "an array of texts": np.array([str(file) for file in files]),
        "an array of paths": np.array(files, dtype=object),
        "pictures": pictures,
        "arrays": [np.asarray(picture) for picture in pictures],
        "a mixture": [str(files[0]), np.asarray(pictures[1]), *pictures[2:]],
    }
    estimator = small(model="lenet5").fit(files, labels)
    expected = estimator.predict_proba(files)
    assert estimator.predict(files).tolist() == labels
    for kind, X in kinds.items():
        np.testing.assert_array_equal(estimator.predict_proba(X), expected, err_msg=kind)
    for kind in ("an array of texts", "arrays", "a mixture"):
        found = small(model="lenet5").fit(kinds[kind], labels).predict_proba(files)
        np.testing.assert_array_equal(found, expected, err_msg=kind)


@pytest.mark.parametrize(
    ("shape", "channels"), [((28, 28), 1), ((28, 28, 1), 1), ((20, 30, 3), 3), ((28, 28, 4), 3)], ids=str
)
def test_one_array_of_images(shape, channels):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 100, (20, *shape), dtype=np.uint8)
    X[10:] += 100
    if shape[2:] == (4,):
        X[..., 3] = 255
    estimator = small().fit(X, [0] * 10 + [1] * 10)
    assert estimator.net_.in_chans == channels
    assert estimator.score(X, [0] * 10 + [1] * 10) == 1


def test_images_are_brought_to_the_only_channels_that_a_net_takes(digits):
    def in_colour(num_classes=10):
        return cnnzoo.create("mlp", num_classes=num_classes, in_chans=3)

    cnnzoo.register("in_colour", input_size=(3, 28, 28), num_classes=10, head="fc3")(in_colour)
    X, y = digits
    try:
        assert small(model="in_colour").fit(X[:100], y[:100]).net_.in_chans == 3
    finally:
        cnnzoo.unregister("in_colour")


@pytest.mark.parametrize(
    ("X", "why"),
    [
        (np.zeros((4, 8, 8)), "this is array of float64, of shape (4, 8, 8)"),
        (np.full((4, 8, 8), np.nan), "this is array of float64"),
        (np.zeros((4, 64), np.uint8), "this is array of uint8, of shape (4, 64)"),
        (np.zeros((4, 8, 8, 2), np.uint8), "this is array of uint8, of shape (4, 8, 8, 2)"),
        (np.zeros((4, 0, 8), np.uint8), "of shape (4, 0, 8)"),
        (np.zeros((8, 8, 3), np.uint8), "X is one image, of shape (8, 8, 3); put it into a list"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), "this is Tensor, of shape (4, 3, 8, 8)"),
        (np.array([["a.png"], ["b.png"]]), "of shape (2, 1)"),
        ("a.png", "this is str"),
        (None, "this is NoneType"),
        ([], "X holds no images"),
        (np.zeros((0, 8, 8), np.uint8), "X holds no images"),
        ([np.zeros((8, 8), np.uint8)] * 3 + [np.zeros((8, 8))], "X/3: a picture is a uint8 array of shape"),
        ([np.zeros((8, 8), np.uint8)] * 3 + [float("nan")], "X/3: not a picture: nan"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(X, why):
    with pytest.raises(ValueError, match=re.escape(why)) as error:
        small(val_fraction=0.5).fit(X, [0, 0, 1, 1])
    assert "\n" not in str(error.value)


def test_bad_files_are_named_all_at_once(photos, tmp_path):
    _, files, labels = photos
    estimator = small(model="lenet5").fit(files, labels)
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    damaged = [files[0], tmp_path / "empty.png", tmp_path / "text.png", *files[3:]]
    told = r"2 files cannot be read \(.*empty.png: the file is empty; .*text.png: it is not an image"
    with pytest.raises(ValueError, match=rf"{told}.* by data\.bad_files='skip'$"):
        small(model="lenet5").fit(damaged, labels)
    with pytest.raises(ValueError, match=told):
        estimator.predict(damaged)
    # neither a folder nor a pattern stands for several images
    absent = [files[0].parent, str(files[0].parent / "*.png"), tmp_path / "absent.png"]
    told = r"3 files cannot be read \(.*, .*\*.png, .*absent.png: there is no such file\)"
    with pytest.raises(ValueError, match=told):
        estimator.predict(absent)
    with pytest.raises(ValueError, match=told):
        small(model="lenet5").fit(absent, labels[:3])


# ---- what labels and parameters may be


@pytest.mark.parametrize(
    ("y", "why"),
    [
        (None, "requires y to be passed"),
        (["cat"] * 20, "y holds one class only ('cat')"),
        ([0, 1] * 9, "inconsistent numbers of samples: [20, 18]"),
        (list(range(20)), "each class of X has one image only"),
        ([0.0, 1.0] * 9 + [0.0, np.nan], "contains NaN"),
        ([0.5, 1.0] * 10, "Unknown label type"),
        (np.zeros((20, 2)), "y should be a 1d array"),
        (np.array([0, "a"] * 10, dtype=object), "label"),
    ],
)
def test_labels_that_will_not_do(digits, y, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        small().fit(digits[0][:20], y)


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"model": "resnet81"}, "did you mean resnet18"),
        ({"mode": "stage"}, "unknown mode 'stage'; did you mean staged?"),
        ({"classifier": "rigde"}, "probe.classifier is rigde"),
        ({"classifier": "knn", "mode": "head"}, "classifier is 'knn', but mode 'head' has none"),
        ({"mode": "head", "classifier": "auto", "epochs": (1, 2)}, "mode head has 1 phase, but epochs names 2"),
        ({"random_state": -1}, "random_state is -1, but must be at least 0"),
        ({"views": 0}, "probe.views is 0, but must be auto or at least 1"),
        ({"lr": "fast"}, "optim.lr is fast, but must be a number"),
        ({"val_fraction": 1.5}, "data.val_fraction is 1.5, but must be above 0 and below 1"),
        ({"pretrained": "best"}, "best"),
        ({"device": "abacus"}, "abacus"),
        ({"overrides": ("--data.sise=8",)}, "did you mean data.size"),
        (
            {"mode": "full", "classifier": "auto", "overrides": {"model.num_classes": 5, "model.head": "linear"}},
            "model.num_classes is 5, but y has 2 classes",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_parameters_are_judged_by_fit(digits, parameters, why):
    estimator = small(**parameters)
    with pytest.raises(ValueError, match=re.escape(why)) as error:
        estimator.fit(digits[0][:20], [0, 1] * 10)
    assert "--" not in str(error.value)  # no option of a command, which people who write Python have not


# ---- what scikit-learn does with it


class OfRows(CNNClassifier):
    """scikit-learn's checks are made for rows of numbers; here each becomes an image of grey stripes."""

    def fit(self, X, y):
        return super().fit(self._as_images(validate_data(self, X)), y)

    def predict_proba(self, X):
        check_is_fitted(self)
        return super().predict_proba(self._as_images(validate_data(self, X, reset=False)))

    @staticmethod
    def _as_images(rows: np.ndarray) -> np.ndarray:
        grey = (128 + 16 * rows) % 256
        return np.repeat(grey.astype(np.uint8)[:, :, None], 8, axis=2)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.one_d_array = tags.input_tags.three_d_array = tags.input_tags.string = False
        return tags


CHECKS = list(estimator_checks_generator(OfRows("mlp", pretrained=False, classifier="ridge")))


@pytest.mark.parametrize(("estimator", "check"), CHECKS, ids=[check.func.__name__ for _, check in CHECKS])
def test_scikit_learns_checks(estimator, check, monkeypatch):
    # To some checks scikit-learn gives 1e-7, which float32 lacks: a product of matrices rounds by where a row stands.
    monkeypatch.setattr("sklearn.utils.estimator_checks.assert_allclose_dense_sparse", near_for_float32)
    check(estimator)


def near_for_float32(ours, theirs, rtol=1e-4, atol=1e-6, err_msg=""):
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol, err_msg=err_msg)


def test_scikit_learn_knows_that_it_takes_no_rows():
    with pytest.warns(SkipTestWarning, match="one_d_array=True, two_d_array=False, three_d_array=True"):
        check_estimator(CNNClassifier())


def test_a_grid_search_asks_the_backbone_once_for_each_image(digits, capsys):
    X, y = digits
    estimator = small(model="lenet5", random_state=11, verbose=True)
    search = GridSearchCV(estimator, {"classifier": ["ridge", "svm"]}, cv=2, error_score="raise").fit(X[:80], y[:80])
    computed = [int(many) for many in re.findall(r"([\d,]+) computed", capsys.readouterr().out)]
    assert len(computed) == 5
    assert sum(computed) == 80
    assert search.best_estimator_.predict_proba(X[80:]).shape == (220, 10)


def test_cross_validation(digits):
    X, y = digits
    scores = cross_val_score(small(), X, y, cv=3, scoring="neg_log_loss", error_score="raise")
    assert (scores > -1.5).all()


def test_ctrl_c_ends_a_cross_validation_which_goes_on_after_failures(digits, monkeypatch):
    monkeypatch.setattr(Trainer, "step", lambda *given: signal.raise_signal(signal.SIGINT) or torch.zeros(()))
    with pytest.raises(cnnzoo.Interrupted):
        cross_val_score(small(mode="full", classifier="auto", epochs=1), *digits, cv=2)


def test_it_does_not_claim_to_weigh_images(digits):
    assert not has_fit_parameter(CNNClassifier(), "sample_weight")
    with pytest.raises(TypeError, match="sample_weight"):
        CNNClassifier().fit(*digits, sample_weight=None)


def test_pipeline(photos):
    folder, files, labels = photos
    names = [str(file.relative_to(folder)) for file in files]
    to_files = FunctionTransformer(lambda names: [folder / name for name in names])
    assert make_pipeline(to_files, small(model="lenet5")).fit(names, labels).score(names, labels) == 1


def test_clones_and_parameters():
    estimator = small(epochs=(1, 2), overrides=["--data.size=28"], run="somewhere")
    twin = clone(estimator)
    assert twin.get_params() == estimator.get_params()
    assert twin.set_params(views=3).views == 3
    assert estimator.views is None
    assert repr(estimator).startswith("CNNClassifier(")


def test_pickles_hold_values_and_no_code_of_nets(digits, fitted, tmp_path):
    X, _ = digits
    content = pickle.dumps(fitted)
    words = [str(argument) for _, argument, _ in pickletools.genops(content)]
    assert not [word for word in words if word.startswith("torch") or "models" in word]
    joblib.dump(fitted, tmp_path / "fitted.joblib")
    for twin in (pickle.loads(content), joblib.load(tmp_path / "fitted.joblib")):
        assert twin.net_.classes == fitted.net_.classes
        assert twin.get_params() == fitted.get_params()
        np.testing.assert_array_equal(twin.predict_proba(X[:50]), fitted.predict_proba(X[:50]))
        assert twin.validation_score_ == fitted.validation_score_
