"""Images that belong together are not divided between training and validation, nor between a probe's folds."""

import hashlib
import io
import json
import shutil
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import photos
import pytest
from PIL import Image

import cnnzoo
from cnnzoo.config import AugmentConfig, DataConfig
from cnnzoo.data import sources
from cnnzoo.data.groups import share
from cnnzoo.data.named import NAMED
from cnnzoo.ensemble.members import panel
from cnnzoo.errors import InputError
from cnnzoo.resampling import bootstrap, unseen
from cnnzoo.transfer import copies, doctor, probe
from cnnzoo.transfer.classifiers import Data

PATIENT = r"p(\d+)_"


def png() -> bytes:
    with io.BytesIO() as file:
        Image.new("RGB", (4, 4), "red").save(file, "png")
        return file.getvalue()


def fill(folder: Path, names: list[str]) -> Path:
    for name in names:
        file = folder / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png())
    return folder


def hospital(folder: Path, sick: int = 12, well: int = 20) -> Path:
    """Patients of 1 to 5 photos each; every fourth of the sick has one photo without a finding, too."""
    names = [f"sick/p{p}_{i}" for p in range(sick) for i in range(1 + p % 5)]
    names += [f"well/p{p}_{i}" for p in range(sick, sick + well) for i in range(1 + p * 3 % 5)]
    return fill(folder, names + [f"well/p{p}_a" for p in range(0, sick, 4)])


@pytest.fixture(scope="module")
def patients(tmp_path_factory) -> Path:
    return hospital(tmp_path_factory.mktemp("patients") / "photos")


def load(source: str | Path, groups: str | None = PATIENT, **config) -> sources.Dataset:
    return sources.load(DataConfig(str(source), groups=groups, **config), AugmentConfig(), 4)


def short(names: tuple[str, ...], folder: Path) -> list[str]:
    return [str(Path(name).relative_to(folder)) for name in names]


def of(names: tuple[str, ...]) -> set[str]:
    return {Path(name).stem.split("_")[0] for name in names}


# ---- the split


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_group_is_divided_and_of_each_class_about_the_share_is_held_out(fraction, seed, patients):
    data = load(patients, val_fraction=fraction, split_seed=seed)
    assert not of(data.train.names) & of(data.val.names)
    train, val = (np.bincount(part.labels, minlength=2) for part in (data.train, data.val))
    assert abs(val / (train + val) - fraction).max() < 0.05
    assert not set(data.train.groups) & set(data.val.groups)


def test_folds_hold_each_image_out_once_and_divide_no_group(patients):
    parts = [load(patients, folds=4, fold=fold) for fold in range(4)]
    assert sorted(name for data in parts for name in data.val.names) == sorted(map(str, patients.glob("*/*")))
    for data in parts:
        assert not of(data.train.names) & of(data.val.names)
        train, val = (np.bincount(part.labels, minlength=2) for part in (data.train, data.val))
        assert abs(val / (train + val) - 1 / 4).max() < 0.1  # scikit-learn before 1.8 is less even


@pytest.mark.parametrize("how", [{}, {"folds": 3}], ids=["share", "fold"])
def test_the_split_is_a_function_of_its_seed_wherever_the_folder_lies(how, patients, tmp_path):
    moved = hospital(tmp_path / "p7_elsewhere")
    first, again = (short(load(folder, **how).val.names, folder) for folder in (patients, moved))
    assert first == again
    assert first != short(load(patients, split_seed=1, **how).val.names, patients)


@pytest.mark.parametrize(
    ("how", "digest"),
    [
        ({}, "29fa8c924ba2edb3"),
        ({"split_seed": 3, "val_fraction": 0.3}, "9f1ab2773cc5cc51"),
        ({"folds": 5, "fold": 2}, "68afccfe3fc69f68"),
    ],
)
def test_without_groups_splits_are_what_they_were_before_there_were_any(how, digest):
    data = load("digits", None, **how)
    assert hashlib.sha256(json.dumps(data.split()).encode()).hexdigest().startswith(digest)
    assert data.train.groups is None


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_two_groups_has_one_on_either_side(seed, tmp_path):
    data = load(hospital(tmp_path, sick=2), split_seed=seed)
    assert 0 in data.train.labels
    assert 0 in data.val.labels


def test_no_class_is_held_out_whole_and_none_is_left_out_that_need_not_be():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        kinds = rng.integers(2, 6)
        labels, groups = np.arange(6 * kinds) % kinds, rng.integers(0, rng.integers(2, 3 * kinds), 6 * kinds)
        out = share(labels, groups, rng.choice([0.1, 0.5, 0.9]), rng)
        assert not set(groups[out]) & set(groups[~out])
        assert set(labels[~out]) == set(labels)
        for kind in set(labels) - set(labels[out]):  # with any of its groups another class would lose its last image
            for group in groups[labels == kind]:
                assert set(labels[~(out | (groups == group))]) < set(labels)


def test_a_bootstrap_sample_is_drawn_group_by_group(patients):
    whole, data = load(patients), load(patients, bag=0)
    assert not set(data.train.groups) & set(data.val.groups)
    assert np.bincount(data.train.labels).tolist() == np.bincount(whole.train.labels).tolist()
    left_out = set(whole.train.groups) - set(data.train.groups)
    assert len(left_out) > 3
    assert {len(set(data.train.groups[data.train.labels == label])) > 1 for label in (0, 1)} == {True}


def test_out_of_bag_is_an_image_of_whose_group_nothing_was_drawn():
    labels, groups = np.arange(60) % 2, np.arange(60) // 6  # each group has images of both classes
    drawn = bootstrap(labels, 0, groups)
    assert (labels[drawn] == labels).all()
    out = unseen(drawn, len(labels), groups)
    assert 0 < out.sum() < 60
    assert not set(groups[out]) & set(groups[drawn])


# ---- what the expression finds


def sizes(folder: Path, groups: str) -> list[int]:
    """Of the groups, those of one image among them."""
    data = load(folder, groups)
    return sorted(Counter([*data.train.groups.tolist(), *data.val.groups.tolist()]).values())


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (r"/(\w)", [2, 4]),  # the first capture group; files of two classes belong together
        (r"/\w", [2, 4]),  # or the whole match
        (r"^(.*)\d", [1, 1, 2, 2]),  # the class folder is seen
        (r"/(a)", [1, 1, 4]),  # the others stand alone
        (r"/(a)?", [1, 1, 4]),  # as they do where nothing is what is found
        (r"/(a*)", [1, 1, 4]),
    ],
)
def test_the_first_capture_group_or_the_whole_match_says_what_an_image_belongs_to(groups, expected, tmp_path):
    assert sizes(fill(tmp_path, ["x/a1", "x/a2", "y/a3", "y/a4", "x/b1", "y/b2"]), groups) == expected


def test_umlauts_are_the_same_in_either_form_of_unicode(tmp_path):
    forms = ("\N{LATIN SMALL LETTER A WITH DIAERESIS}", "a\N{COMBINING DIAERESIS}")
    fill(tmp_path, [f"x/b{a}r{i}" for i, a in enumerate(forms)] + ["x/c", "y/c", "y/d"])
    assert sizes(tmp_path, f"b{forms[0]}r") == [1, 1, 1, 2]


def test_a_sample_of_a_shard_has_its_name_whichever_shard_it_is_in(tmp_path):
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for name in ("cat/a_1", "cat/b_2", "dog/c_3", "dog/d_4"):
                for ending, content in (("png", png()), ("cls", name[:3].encode())):
                    member = tarfile.TarInfo(f"{name}{shard}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    assert sizes(tmp_path / "{0..1}.tar", "^(.*)_") == [2, 2, 2, 2]


def test_files_at_hand_have_their_paths(patients, tmp_path):
    files = sorted(patients.glob("*/*"))
    cnnzoo.register_data("hospital", files, [file.parent.name for file in files])
    data = load("hospital")
    assert not of(data.train.names) & of(data.val.names)
    cnnzoo.register_data("partly", [*files, Image.new("RGB", (4, 4))], [*(file.parent.name for file in files), "well"])
    data = load("partly")  # the picture, which has none, stands alone
    assert sum((part.groups < 0).sum() for part in (data.train, data.val)) == 1


def test_what_is_held_out_changes_with_the_groups(patients):
    prints = [sources.fingerprint(DataConfig(str(patients), groups=groups)) for groups in (None, PATIENT, r"(\d+)_")]
    assert len(set(prints)) == 3


def test_images_that_are_gone_belong_to_no_group_of_others(patients):
    names = [str(patients / "sick" / "p1_0.png"), "gone/1.png", str(patients / "sick" / "p1_1.png"), "gone/2.png"]
    first, gone, second, other = sources.groups_of(DataConfig(str(patients), groups=PATIENT), names)
    assert first == second >= 0
    assert len({first, gone, other}) == 3


def test_each_image_keeps_its_group_where_files_are_left_out_that_cannot_be_read(tmp_path):
    folder = hospital(tmp_path / "photos")
    (folder / "sick" / "p1_0.png").write_text("no image")
    data = load(folder, bad_files="skip")
    for part in (data.train, data.val):
        pairs = {(group, Path(name).stem.split("_")[0]) for group, name in zip(part.groups, part.names, strict=True)}
        assert len(pairs) == len(set(part.groups.tolist())) == len(of(part.names))


# ---- what is said


def test_a_line_tells_how_many_groups_there_are(patients, tmp_path):
    assert load(patients).notes == ("96 images in 32 groups, none of which is divided",)
    more = fill(tmp_path, ["x/p1_0", "x/p1_1", "x/p2_1", "y/p3_1", "y/p4_1", "y/other"])
    assert load(more).notes == ("5 images in 4 groups, none of which is divided; 1 other stands alone",)


@pytest.mark.parametrize("val", ["photos/val", None])
def test_groups_that_a_folder_itself_divides_are_told(val, tmp_path):
    names = ["train/x/p1_0", "train/x/p2_0", "train/y/p3_0", "val/x/p1_1", "val/y/p4_0"]
    folder = fill(tmp_path / "photos", names)
    whole = r"^[xy]/(p\d)_"  # where an image lies is told from its class folder on
    data = load(folder if val is None else folder / "train", whole, val_source=val and str(tmp_path / val))
    (note,) = data.notes
    assert note == "5 images in 4 groups, 1 of which is both trained and judged on: accuracy is overstated"


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ("p(", r"data\.groups is p\(, but must be a regular expression, which this is not: missing \)"),
        ("animal", r"data\.groups 'animal' finds nothing in any image's name in .*photos, such as sick/p0_0\.png"),
        ("photos", "finds nothing in any image's name"),  # the folder's own name does not count
        (r"^(\w+)", "class 'sick' of .* has all its 33 images in one group of data.groups, so none can be held out"),
        ("(sick|well/p1)", "class 'sick' of .* has all its 33 images in one group"),
    ],
)
def test_groups_that_will_not_do_are_told(groups, told, patients):
    with pytest.raises(InputError, match=told):
        load(patients, groups)


def test_more_folds_than_groups_are_told(patients):
    with pytest.raises(InputError, match=r"class 'sick' of .* has 12 groups, too few for 13 folds"):
        load(patients, folds=13)
    assert set(load(patients, folds=12).val.labels) == {0, 1}


@pytest.mark.parametrize("source", ["digits", "arrays"])
def test_images_that_are_no_files_have_no_groups(source):
    cnnzoo.register_data("arrays", np.zeros((4, 8, 8), np.uint8), [0, 0, 1, 1])
    with pytest.raises(InputError, match=f"by names of files, and the images of {source} have none"):
        load(source)


def test_groups_that_hang_together_too_much_are_told(tmp_path):
    """Whichever two groups are held out, one of the classes would keep nothing to train on."""
    fill(tmp_path, ["a/p1_", "a/p2_", "b/p1_", "b/p3_", "c/p2_", "c/p3_"])
    with pytest.raises(InputError, match=r"cannot be divided so that class '[abc]' is both trained and judged on"):
        load(tmp_path)


# ---- the probe


def test_classifiers_are_not_chosen_by_the_likeness_of_a_group():
    """Six photos of each of 20 animals, alike as photos of one animal are; what kind it is they do not show."""
    rng = np.random.default_rng(0)
    groups, labels = np.repeat(np.arange(20), 6), np.repeat(rng.permutation(np.arange(20) % 2), 6)
    vectors = (rng.normal(size=(20, 32))[groups] + 0.01 * rng.normal(size=(120, 32))).astype(np.float32)
    data = Data.of(vectors[:, None], labels, vectors, labels, 2)
    fooled, honest = (probe.fit(replace(data, groups=own), classifier="knn").scores[0] for own in (None, groups))
    assert fooled.cv_top1 == 1
    assert honest.cv_top1 < 0.7


def test_a_learning_curve_leaves_whole_groups_out():
    """An eighth of the photos of 64 animals, 16 of each, show all of them, or 8 animals."""
    rng = np.random.default_rng(0)
    kinds = np.arange(128) % 2
    animals = rng.normal(size=(128, 32)) + 0.4 * kinds[:, None]
    photos = (np.repeat(animals, 16, axis=0) + 0.01 * rng.normal(size=(2048, 32))).astype(np.float32)
    labels, groups = np.repeat(kinds, 16), np.repeat(np.arange(128), 16)
    data = Data.of(photos[:1024, None], labels[:1024], photos[1024:], labels[1024:], 2, groups=groups[:1024])
    found = probe.fit(data, classifier="logistic")
    flat, steep = (probe.with_learning_curve(found, each).curve for each in (replace(data, groups=None), data))
    assert [many for many, _ in flat] == [many for many, _ in steep] == [128, 256, 512, 1024]
    assert flat[0][1] > flat[-1][1] - 0.05
    assert steep[0][1] < steep[-1][1] - 0.1


def test_a_class_of_one_group_leaves_nothing_to_choose_by():
    rng = np.random.default_rng(0)
    labels, groups = np.repeat([0, 1], 10), np.r_[np.arange(10), [10] * 10]
    vectors = rng.normal(size=(20, 4)).astype(np.float32)
    found = probe.fit(Data.of(vectors[:, None], labels, vectors, labels, 2, groups=groups))
    assert [(score.classifier, score.cv_top1) for score in found.scores] == [("logistic", None)]


def test_one_group_may_hold_most_of_the_images():
    """One video of 36 frames through both classes, and 12 photos: what is fitted without the video has few images."""
    rng = np.random.default_rng(0)
    groups, labels = np.r_[[0] * 36, np.arange(1, 13)], np.arange(48) % 2
    vectors = (rng.normal(size=(48, 8)) + labels[:, None]).astype(np.float32)
    found = probe.fit(Data.of(vectors[:, None], labels, vectors, labels, 2, groups=groups))
    assert {score.classifier for score in found.scores} == {"logistic", "ridge", "svm", "centroid", "knn", "mlp"}


def test_a_probe_takes_groups_and_an_evaluation_tells_what_they_mean(tmp_path):
    folder = photos.folder(tmp_path / "photos", each=12, kinds=("blue", "red"))
    weights, told = photos.weights(tmp_path / "net.pt"), []
    last_digit = {"data.groups": r"(\d)\.png"}  # so that there are ten groups
    options = {"classifier": "centroid", "overrides": last_digit, "run": tmp_path / "run", "tell": told.append}
    run = cnnzoo.probe(folder, "resnet20", weights, **options)
    assert "24 images in 10 groups, none of which is divided" in told
    train, val = ({Path(name).stem[-1] for name in run.split[part]} for part in ("train", "val"))
    assert not train & val
    told.clear()
    cnnzoo.evaluate(run, tell=told.append)
    many, groups = len(run.split["val"]), len(val)
    assert told == [f"{many} images in {groups} groups: intervals allow for that"]
    alone = cnnzoo.judge(run, tell=told.append)
    assert len(np.unique(alone.groups)) == groups
    assert alone.measure().interval != replace(alone, groups=None).measure().interval


def test_a_committee_knows_the_groups_of_its_members_images(tmp_path):
    folder, weights = photos.folder(tmp_path / "photos"), photos.weights(tmp_path / "net.pt")
    options = {"overrides": {"data.groups": r"(\d)\.png"}, "tell": lambda line: None}
    runs = [
        cnnzoo.probe(folder, "resnet20", weights, classifier=name, run=tmp_path / name, **options)
        for name in ("centroid", "knn")
    ]
    known = panel(runs)
    digits = [Path(name).stem[-1] for name in known.images]
    assert len({*zip(known.groups.tolist(), digits, strict=True)}) == len(set(digits))
    files = sorted(photos.folder(tmp_path / "others").rglob("*.png"))
    kinds, bursts = [file.parent.name for file in files], [place // 4 for place in range(len(files))]
    others = panel(runs, cnnzoo.register_data("others", files, kinds, groups=bursts))
    NAMED.pop("others")
    together = {*zip(others.groups.tolist(), (bursts[files.index(Path(name))] for name in others.images), strict=True)}
    assert len(together) == len(set(bursts))
    shutil.rmtree(folder)
    assert panel(runs).groups is None  # there is nothing to tell by


# ---- the data doctor


def test_photos_to_judge_on_whose_group_is_trained_on_are_errors(tmp_path, cli):
    names = ["train/x/p1_0", "train/x/p2_0", "train/y/p3_0", "val/x/p1_1", "val/y/p4_0", "val/y/p1_2"]
    folder = tmp_path / "photos"
    for number, name in enumerate(names):
        file = folder / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        photos.picture(number % 3, number).save(file)
    checkup = doctor.check(folder, groups=PATIENT)
    assert "\n6 photos in 4 groups\n" in str(checkup)
    divided = [finding for finding in checkup.findings if finding.kind == "divided group"]
    assert [str(finding) for finding in divided] == [
        "val/x/p1_1.png (in one group with train/x/p1_0.png)",
        "val/y/p1_2.png (in one group with train/x/p1_0.png)",
    ]
    assert {finding.severity for finding in divided} == {"error"}
    assert not any(finding.kind == "divided group" for finding in doctor.check(folder).findings)
    copies.fix(checkup, tmp_path / "good")
    copied = {file.stem for file in (tmp_path / "good").rglob("*.png")}
    assert copied == {"p1_0", "p2_0", "p3_0", "p4_0"}
    code, out, _ = cli("check", folder, "--groups", PATIENT)
    assert code == 1
    assert out.endswith("--groups 'p(\\d+)_' --fix GOOD\n")
