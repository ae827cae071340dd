"""From a name or a folder to images, labels and class names, split and decoded once."""

import errno
import json
import os
import shutil
import socket
import time
import unicodedata
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import photos
import pytest
from PIL import Image

import cnnzoo
from cnnzoo.config import AugmentConfig, DataConfig
from cnnzoo.data import decoded as decoded_once
from cnnzoo.data import folders, preprocess, reading, sources
from cnnzoo.data.arrays import FittedImages
from cnnzoo.data.augment import Augment
from cnnzoo.data.batches import TrainBatches
from cnnzoo.data.decoding import Unreached
from cnnzoo.data.preprocess import Preprocess, centre
from cnnzoo.data.reading import Split
from cnnzoo.data.sources import Dataset
from cnnzoo.errors import InputError

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}  # a class is a colour
PLAIN = AugmentConfig()


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch) -> Path:
    """An empty home, and no cache chosen."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("CNNZOO_CACHE", raising=False)
    return home


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The files that are decoded from here on."""
    names, decode = [], preprocess.decode

    def noted(file, *options):
        names.append(Path(file).name)
        return decode(file, *options)

    monkeypatch.setattr(preprocess, "decode", noted)
    return names


@pytest.fixture
def no_network(monkeypatch) -> None:
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def paint(folder: Path, counts: dict[str, int]) -> Path:
    """`counts` images of various sizes in each class folder, in the colour that the class is named after."""
    for name, many in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(many):
            size = (10 + i % 3, 12 - i % 4)
            Image.new("RGB", size, COLOURS[Path(name).name]).save(folder / name / f"{i:03}.png")
    return folder


def load(source, input_size=8, augment=PLAIN, channels=None, preprocess=None, **config) -> Dataset:
    return sources.load(DataConfig(str(source), **config), augment, input_size, channels, preprocess)


def everything(split: Split) -> np.ndarray:
    return split.images.take(np.arange(len(split)))


def file_names(split: Split) -> list[str]:
    return ["/".join(Path(name).parts[-2:]) for name in split.names]


def assert_aligned(data: Dataset) -> None:
    """Each image has its class's colour, its label, and a name in its class's folder."""
    for split in (data.train, data.val):
        colours = np.array([COLOURS[data.classes[label]] for label in split.labels])
        np.testing.assert_array_equal(everything(split)[:, 4, 4], colours)
        assert [Path(name).parent.name for name in split.names] == [data.classes[label] for label in split.labels]
        assert len(split) == len(split.images) == len(split.labels) == len(split.names)
        assert split.labels.dtype == np.int64


# ---- digits


def test_digits_are_1797_in_10_classes():
    data = load("digits")
    assert data.name == "digits"
    assert data.classes == tuple("0123456789")
    assert len(data.train) + len(data.val) == 1_797
    assert (len(data.train), len(data.val)) == (1_438, 359)
    assert data.notes == ()


def test_no_digit_is_in_both_parts():
    split = load("digits").split()
    assert set(split) == {"train", "val"}
    assert sorted(split["train"] + split["val"]) == sorted(f"digits/{i}" for i in range(1_797))


def test_each_digit_is_held_out_in_the_same_share():
    data = load("digits")
    train, val = (np.bincount(split.labels, minlength=10) for split in (data.train, data.val))
    assert (np.abs(val - 0.2 * (train + val)) <= 1).all()


def test_split_is_a_function_of_its_seed_alone():
    first = load("digits").split()
    np.random.seed(7)  # noqa: NPY002
    assert load("digits", split_seed=0).split() == first
    assert load("digits", split_seed=1).split() != first


@pytest.mark.parametrize(("fraction", "held_out"), [(0.2, 359), (0.5, 898), (0.001, 10), (0.999, 1_787)])
def test_fraction_held_out(fraction, held_out):
    data = load("digits", val_fraction=fraction)
    assert len(data.val) == held_out
    assert set(data.val.labels) == set(data.train.labels) == set(range(10))


def test_digits_are_scikit_learns_pixels_on_the_scale_of_255():
    from sklearn.datasets import load_digits

    digits, data = load_digits(), load("digits", size=8)
    numbers = [int(name.removeprefix("digits/")) for name in data.train.names]
    expected = (digits.images[numbers] * 255 / 16).round()
    np.testing.assert_array_equal(everything(data.train)[:, :, :, 0], expected)
    np.testing.assert_array_equal(data.train.labels, digits.target[numbers])


@pytest.mark.parametrize("size", [8, 9, 16, 32])
def test_digits_take_any_size(size):
    data = load("digits", input_size=size)
    assert data.train.images.shape == (1_438, size, size, 1)
    assert data.val.images.shape == (359, size, size, 1)
    assert data.preprocess.size == size


def test_named_set_in_3_channels_is_grey_three_times():
    grey, colour = load("digits"), load("digits", channels=3)
    assert colour.train.images.shape == (1_438, 8, 8, 3)
    np.testing.assert_array_equal(everything(colour.train), everything(grey.train).repeat(3, axis=3))
    assert colour.preprocess.mean == grey.preprocess.mean * 3
    assert colour.preprocess.std == grey.preprocess.std * 3


def test_size_of_the_config_wins_over_the_nets():
    assert load("digits", input_size=32, size=16).train.images.shape == (1_438, 16, 16, 1)


def test_images_have_1_or_3_channels():
    with pytest.raises(InputError, match=r"images have 1 or 3 channels, but model\.in_chans is 4"):
        load("digits", channels=4)


# ---- MNIST and Fashion-MNIST, from the real files

real = pytest.mark.skipif(
    not os.environ.get("CNNZOO_DATA"), reason="CNNZOO_DATA does not say where the files of MNIST lie"
)
CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}
FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}


def raw(name: str, file: str, header: int) -> np.ndarray:
    return np.fromfile(Path(os.environ["CNNZOO_DATA"], FOLDERS[name], "raw", file), np.uint8, offset=header)


@real
@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", FOLDERS)
def test_mnist_is_60000_and_10000_with_a_margin_of_2(name):
    data = load(name, size=32)

    assert data.classes == CLASSES[name]
    assert data.train.images.shape == (60_000, 32, 32, 1)
    assert data.val.images.shape == (10_000, 32, 32, 1)
    for split, prefix in ((data.train, "train"), (data.val, "t10k")):
        labels = raw(name, f"{prefix}-labels-idx1-ubyte", 8)
        images = raw(name, f"{prefix}-images-idx3-ubyte", 16).reshape(-1, 28, 28)
        np.testing.assert_array_equal(split.labels, labels)
        pixels = everything(split)[:, :, :, 0]
        np.testing.assert_array_equal(pixels[:, 2:30, 2:30], images)
        assert pixels.sum(dtype=np.int64) == images.sum(dtype=np.int64)  # so the margin is black


@real
@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", FOLDERS)
def test_mnists_mean_and_std_are_its_training_pixels(name):
    preprocess = load(name, size=28).preprocess
    pixels = raw(name, "train-images-idx3-ubyte", 16) / 255
    assert preprocess.mean == pytest.approx((pixels.mean(),), abs=1e-4)
    assert preprocess.std == pytest.approx((pixels.std(),), abs=1e-4)


@real
@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(("size", "margin"), [(28, 0), (29, 0), (32, 2)])
def test_mnist_keeps_its_pixels_up_to_size_32(size, margin):
    data = load("mnist", size=size)
    first = raw("mnist", "t10k-images-idx3-ubyte", 16)[:784].reshape(28, 28)
    seen = data.val.images.take(np.array([0]))[0, margin : margin + 28, margin : margin + 28, 0]
    np.testing.assert_array_equal(seen, first)


@real
def test_root_wins_over_the_environment(monkeypatch, no_network):
    there = os.environ["CNNZOO_DATA"]
    monkeypatch.setenv("CNNZOO_DATA", "/nowhere")
    assert len(load("mnist", input_size=28, root=there).val) == 10_000


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_missing_set_without_a_network_is_one_line_with_root_and_remedy(name, tmp_path):
    with pytest.raises(InputError) as caught:
        load(name, root=str(tmp_path / "sets"))
    message = str(caught.value)
    assert message.startswith(f"{name} is not complete under {tmp_path / 'sets'} and could not be fetched")
    assert "no network" in message
    assert "data.root or $CNNZOO_DATA" in message
    assert "\n" not in message


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("content", [b"", b"\x00\x00", b"no idx file, but long enough for a header"])
def test_damaged_set_is_one_line_with_root_and_remedy(content, tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / f"{part}-ubyte").write_bytes(content)
    with pytest.raises(InputError, match=f"^mnist .*{tmp_path}.*CNNZOO_DATA"):
        load("mnist", root=str(tmp_path))


# ---- ImageNet, which everyone fetches by themselves


def test_imagenet_is_train_and_val_under_root(tmp_path, monkeypatch):
    paint(tmp_path / "imagenet", {"train/red": 3, "train/blue": 2, "val/red": 1, "val/blue": 1})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    data = load("imagenet", root=str(tmp_path))
    assert data.name == "imagenet"
    assert (len(data.train), len(data.val)) == (5, 2)
    assert_aligned(data)
    assert (tmp_path / "imagenet" / ".cnnzoo").is_dir()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_missing_imagenet_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNZOO_DATA", str(tmp_path))
    with pytest.raises(InputError, match=rf"imagenet is not at {tmp_path}/imagenet; put its train/ and val/ folders"):
        load("imagenet")


# ---- folders


def test_class_folders_are_split_class_by_class(tmp_path):
    data = load(paint(tmp_path, {"red": 40, "blue": 20, "green": 8}), val_fraction=0.25)
    assert data.classes == ("blue", "green", "red")
    assert Counter(data.train.labels.tolist()) == {0: 15, 1: 6, 2: 30}
    assert Counter(data.val.labels.tolist()) == {0: 5, 1: 2, 2: 10}
    assert not set(data.train.names) & set(data.val.names)
    assert_aligned(data)


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 0.95])
def test_a_rare_class_is_in_both_parts(fraction, tmp_path):
    data = load(paint(tmp_path, {"red": 50, "blue": 2}), val_fraction=fraction)
    assert set(data.train.labels.tolist()) == {0, 1}
    assert set(data.val.labels.tolist()) == {0, 1}


@pytest.mark.parametrize("held_out", ["val", "valid", "validation", "test"])
def test_train_and_a_held_out_folder_are_kept_apart(held_out, tmp_path):
    paint(tmp_path, {"train/red": 4, "train/blue": 3, f"{held_out}/red": 2, f"{held_out}/blue": 1})
    data = load(tmp_path)
    assert data.classes == ("blue", "red")
    assert file_names(data.train) == [f"blue/{i:03}.png" for i in range(3)] + [f"red/{i:03}.png" for i in range(4)]
    assert file_names(data.val) == ["blue/000.png", "red/000.png", "red/001.png"]
    assert all(f"/{held_out}/" in name for name in data.val.names)
    assert_aligned(data)


def test_val_comes_before_test(tmp_path):
    paint(tmp_path, {f"{part}/{name}": 2 for part in ("train", "val", "test") for name in ("red", "blue")})
    assert all("/val/" in name for name in load(tmp_path).val.names)


def test_train_alone_is_split(tmp_path):
    data = load(paint(tmp_path, {"train/red": 10, "train/blue": 10}))
    assert (len(data.train), len(data.val)) == (16, 4)
    assert_aligned(data)


def test_val_may_lack_a_class(tmp_path):
    paint(tmp_path, {"train/red": 3, "train/green": 3, "train/blue": 3, "val/red": 2})
    data = load(tmp_path)
    assert data.classes == ("blue", "green", "red")
    assert data.val.labels.tolist() == [2, 2]
    assert_aligned(data)


def test_images_in_folders_within_a_class_belong_to_it(tmp_path):
    paint(tmp_path, {"red": 3, "blue": 3})
    shutil.copytree(tmp_path / "red", tmp_path / "red" / "2019" / "May")
    assert Counter(np.concatenate([split.labels for split in (load(tmp_path).train, load(tmp_path).val)])) == {
        0: 3,
        1: 6,
    }


def test_order_of_files_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    paint(tmp_path, {"red": 6, "blue": 6})
    expected = load(tmp_path).split()
    listed, walked = Path.iterdir, Path.rglob
    monkeypatch.setattr(Path, "iterdir", lambda folder: reversed(list(listed(folder))))
    monkeypatch.setattr(Path, "rglob", lambda folder, pattern: reversed(list(walked(folder, pattern))))
    assert load(tmp_path).split() == expected


def test_photos_are_rgb_scaled_and_cropped_as_preprocess_says(tmp_path):
    folder = paint(tmp_path / "set", {"red": 2, "blue": 2})
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    for file in folder.rglob("*.png"):
        Image.fromarray(noise).save(file)
    data = load(folder, size=64, resize=70)
    assert data.preprocess == Preprocess(64, 70, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for image in everything(data.val):
        np.testing.assert_array_equal(image, data.preprocess.pixels(noise))


@pytest.mark.parametrize(("size", "resize"), [(224, 256), (299, 342), (96, 110), (64, 64), (32, 32)])
def test_photos_are_resized_to_8_7ths_but_small_pictures_kept_whole(size, resize, tmp_path):
    assert load(paint(tmp_path, {"red": 2, "blue": 2}), size=size).preprocess.resize == resize


def test_grey_net_gets_grey_photos(tmp_path):
    data = load(paint(tmp_path, {"red": 4, "blue": 4}), channels=1)
    assert data.train.images.shape[3] == 1
    assert data.preprocess.mean == pytest.approx((0.449,))


# ---- folders that do not fit


def test_val_class_missing_in_train_is_named(tmp_path):
    paint(tmp_path, {"train/red": 2, "train/blue": 2, "val/red": 1, "val/green": 1})
    with pytest.raises(InputError, match=rf"{tmp_path}/val has classes that {tmp_path}/train lacks: green"):
        load(tmp_path)
    (tmp_path / "val" / "green").rename(tmp_path / "val" / "Reds")
    with pytest.raises(
        InputError, match=r"lacks: Reds \(did you mean red\?\); or go on without them in a copy: cnnzoo check"
    ):
        load(tmp_path)


@pytest.mark.parametrize("part", ["", "train/", "val/"])
def test_empty_class_folder_is_named(part, tmp_path):
    inside = ["train/", "val/"] if part else [""]
    paint(tmp_path, {f"{folder}{name}": 2 for folder in inside for name in ("red", "blue")})
    (tmp_path / part / "green").mkdir()
    empty, copying = tmp_path / part / "green", f"cnnzoo check {tmp_path} --fix GOOD"
    with pytest.raises(
        InputError, match=f"there is no image in {empty}; fill or remove it, or .* in a copy: {copying}"
    ):
        load(tmp_path)


COMPOSED, TWO_SIGNS = "K\u00e4fer", "Ka\u0308fer"  # as Windows and Linux write it, and as macOS does


def test_a_class_is_the_same_however_its_letters_are_composed(tmp_path, monkeypatch):
    monkeypatch.setitem(COLOURS, COMPOSED, COLOURS["red"])
    monkeypatch.setitem(COLOURS, TWO_SIGNS, COLOURS["red"])
    paint(tmp_path, {f"train/{COMPOSED}": 3, "train/blue": 3, f"val/{TWO_SIGNS}": 2, "val/blue": 2})
    data = load(tmp_path)
    assert data.classes == (COMPOSED, "blue")
    assert data.val.labels.tolist() == [0, 0, 1, 1]
    assert not {finding.kind for finding in cnnzoo.check(tmp_path).findings} & {"unknown class", "empty class"}
    paint(tmp_path, {f"train/{TWO_SIGNS}": 3})
    with pytest.raises(InputError, match=f"two folders named {COMPOSED}, spelt with different Unicode characters"):
        load(tmp_path)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_classes_and_images_come_in_one_order_wherever_the_folder_lies(tmp_path, form):
    """Sorted as they are spelt there, classes would have other numbers, and other images would be held out."""

    def spelt(name: str) -> str:
        return unicodedata.normalize(form, name)

    photos.folder(tmp_path, each=2, kinds=[spelt(name) for name in ("zebra", "über", "ant")])
    for folder in tmp_path.iterdir():
        (folder / "00.png").rename(folder / spelt("übt.png"))
        (folder / "01.png").rename(folder / "umso.png")
    found = folders.find(tmp_path)
    assert found.classes == ("ant", "zebra", "\u00fcber")
    assert [Path(name).name for name in found.train.names] == ["umso.png", spelt("übt.png")] * 3


def test_what_macos_leaves_in_archives_is_no_class(tmp_path):
    paint(tmp_path, {"red": 4, "blue": 4})
    (tmp_path / "__MACOSX" / "red").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "red" / "._000.png").write_bytes(b"no image")
    (tmp_path / "._000.png").write_bytes(b"no image")
    data = load(tmp_path)
    assert data.classes == ("blue", "red")
    assert data.notes == ()


def test_all_empty_class_folders_are_named(tmp_path):
    paint(tmp_path, {"red": 2})
    (tmp_path / "blue").mkdir()
    (tmp_path / "green").mkdir()
    with pytest.raises(InputError, match=f"{tmp_path / 'blue'}, {tmp_path / 'green'}; fill or remove them"):
        load(tmp_path)


def test_folder_without_images_names_the_endings(tmp_path):
    for name in ("red", "blue"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("")
    with pytest.raises(InputError, match=rf"{tmp_path} holds no images; known endings: .*\.jpg.*\.png"):
        load(tmp_path)


def test_empty_folder_lacks_class_folders(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path} holds no sub-folder for each class; put each class's images"):
        load(tmp_path)


def test_loose_images_need_class_folders(tmp_path):
    paint(tmp_path, {"red": 3})
    for file in (tmp_path / "red").iterdir():
        file.rename(tmp_path / file.name)
    (tmp_path / "red").rmdir()
    with pytest.raises(InputError, match=f"{tmp_path} holds 3 images, but no sub-folder for each class"):
        load(tmp_path)


def test_one_class_is_not_enough(tmp_path):
    with pytest.raises(InputError, match=rf"{tmp_path} holds one class only \(red\); a classifier needs two"):
        load(paint(tmp_path, {"red": 5}))


def test_class_of_one_image_cannot_be_split(tmp_path):
    with pytest.raises(InputError, match=r"class 'red' .* has one image only; it needs two"):
        load(paint(tmp_path, {"blue": 5, "red": 1}))


def test_class_of_one_image_is_enough_beside_val(tmp_path):
    data = load(paint(tmp_path, {"train/blue": 2, "train/red": 1, "val/blue": 1, "val/red": 1}))
    assert data.train.labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("source", "meant"),
    [("mnsit", "mnist"), ("MNIST", "mnist"), ("digit", "digits"), ("fashion-mnist", "fashion_mnist")],
)
def test_misspelt_set_offers_the_near_one(source, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"{source!r} is neither a known set nor a folder; did you mean {meant}"):
        load(source)


@pytest.mark.parametrize("source", ["flowrs", "sets/flowrs"])
def test_misspelt_folder_offers_the_near_one(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    meant = paint(tmp_path / source.replace("flowrs", "flowers"), {"red": 2}).relative_to(tmp_path)
    with pytest.raises(InputError, match=rf"did you mean {meant}\?"):
        load(source)
    with pytest.raises(InputError, match=rf"there is no folder {source}; did you mean {meant}\?"):
        cnnzoo.check(source)


def test_name_like_none_lists_the_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="sets by name: digits, mnist, fashion_mnist, cifar10, cifar100, imagenet"):
        load("holiday")


def test_missing_folder_is_missing(tmp_path):
    with pytest.raises(InputError, match=rf"data\.source: there is no folder {tmp_path}/photos"):
        load(tmp_path / "photos")


def test_file_is_no_folder(tmp_path):
    (tmp_path / "photos.zip").touch()
    with pytest.raises(InputError, match=rf"data\.source: {tmp_path}/photos\.zip is not a folder"):
        load(tmp_path / "photos.zip")
    (tmp_path / "labels.XLSX").touch()
    with pytest.raises(InputError, match=r"labels\.XLSX is a spreadsheet; save it as CSV in UTF-8"):
        load(tmp_path / "labels.XLSX")


# ---- what is passed over


def test_hidden_folders_are_ignored(tmp_path):
    paint(tmp_path, {"red": 4, "blue": 4})
    shutil.copytree(tmp_path / "red", tmp_path / ".ipynb_checkpoints")
    shutil.copytree(tmp_path / "blue", tmp_path / "red" / ".ipynb_checkpoints")
    data = load(tmp_path)
    assert data.classes == ("blue", "red")
    assert len(data.train) + len(data.val) == 8
    assert data.notes == ()
    assert_aligned(data)


def test_stray_files_are_told(tmp_path):
    paint(tmp_path, {"train/red": 4, "train/blue": 4, "val/red": 1, "val/blue": 1})
    (tmp_path / "train" / "red" / "Thumbs.db").touch()
    (tmp_path / "train" / "blue" / "notes.txt").touch()
    (tmp_path / "train" / "blue" / ".DS_Store").touch()
    (tmp_path / "val" / "blue" / "scores.csv").touch()
    data = load(tmp_path)
    assert len(data.notes) == 2
    assert data.notes[0].startswith(f"2 files in {tmp_path / 'train'} ")
    assert data.notes[1].startswith("1 file")
    assert f"{tmp_path / 'val'} " in data.notes[1]
    assert_aligned(data)


def test_images_that_are_both_trained_and_judged_on_are_told(tmp_path):
    folder, link = photos.folder(tmp_path / "set", each=3), tmp_path / "link"
    link.symlink_to(folder / "blue")
    shutil.copytree(folder / "red", tmp_path / "val" / "red")
    (tmp_path / "val" / "blue").symlink_to(link)
    (tmp_path / "val" / "red" / "link.png").symlink_to(next(file for file in (folder / "red").iterdir()))
    data = sources.load(DataConfig(source=str(folder), val_source=str(tmp_path / "val")), PLAIN, 32)
    told = f"4 of 7 images of {tmp_path / 'val'} are both trained and judged on: accuracy is overstated"
    assert told in data.notes


def test_another_source_is_judged_by_what_it_holds_out_itself_under_the_same_classes(tmp_path):
    source, other = tmp_path / "source", tmp_path / "other"
    paint(source, {"red": 4, "blue": 4, "green": 4})
    paint(other, {"train/red": 3, "train/green": 3, "val/red": 2, "val/green": 1})
    (other / "val" / "red" / "notes.txt").write_text("no image")
    data = load(source, val_source=str(other))
    held_out = [str(Path(name).relative_to(other)) for name in data.val.names]
    assert held_out == ["val/green/000.png", "val/red/000.png", "val/red/001.png"]
    assert data.classes == ("blue", "green", "red")
    assert len(data.train) == 12
    assert_aligned(data)
    assert data.notes == (f"1 file in {other / 'val'} passed over: not an image by its name, or a broken link",)


def test_a_run_on_a_set_by_name_that_is_judged_on_photos_goes_on_without_one_of_them(tmp_path):
    for number in range(10):
        (tmp_path / str(number)).mkdir()
        for file in ("a.png", "b.png"):
            Image.new("L", (9, 9), number).save(tmp_path / str(number) / file)
    begun = load("digits", 9, val_source=str(tmp_path))
    (tmp_path / "3" / "a.png").unlink()
    config = DataConfig("digits", val_source=str(tmp_path))
    data = sources.load(config, PLAIN, 9, split=begun.split())
    assert data.preprocess == begun.preprocess
    np.testing.assert_array_equal(everything(data.train), everything(begun.train))
    assert len(data.val) == 19
    np.testing.assert_array_equal(everything(data.val)[:, 4, 4, 0], data.val.labels)


def test_folds_have_nothing_to_divide_where_there_is_val(tmp_path):
    with pytest.raises(InputError, match=r"has validation images of its own, so data\.folds has nothing to divide"):
        load(paint(tmp_path, {"train/red": 3, "train/blue": 3, "val/red": 3}), folds=3)


def test_a_fingerprint_changes_with_what_is_held_out(tmp_path):
    paint(tmp_path, {"red": 4, "blue": 4})
    splits = [{}, {"val_fraction": 0.3}, {"split_seed": 1}, {"folds": 3}, {"folds": 3, "fold": 1}]
    prints = [sources.fingerprint(DataConfig(str(tmp_path), **split)) for split in splits]
    assert len(set(prints)) == len(splits)


def test_weights_are_known_by_the_images_names_within_their_source(tmp_path, home):
    paint(tmp_path, {"red": 4, "blue": 4})
    weights = {f"{name}/{i:03}.png": i for name in ("red", "blue") for i in range(4)}
    (home / "weights.json").write_text(json.dumps(weights))
    train = load(tmp_path, weights="~/weights.json").train
    assert train.weights.tolist() == [weights[name] for name in file_names(train)]


def test_a_folder_of_photos_beside_train_that_no_part_is_called_is_told(tmp_path):
    paint(tmp_path, {"train/red": 4, "train/blue": 4, "dev/red": 2, "Test/red": 2, "Test/blue": 1, ".old/red": 1})
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("no photo")
    data = load(tmp_path)
    assert len(data.val) == 3
    (note,) = data.notes
    assert note == f"{tmp_path / 'dev'} passed over: a part is called train, val, valid, validation, test, testing"


def test_linked_folders_are_followed_and_links_to_nowhere_are_told(tmp_path):
    paint(tmp_path / "set", {"red": 4, "blue": 4})
    paint(tmp_path / "elsewhere", {"red": 6})
    (tmp_path / "set" / "red" / "more").symlink_to(tmp_path / "elsewhere" / "red")
    (tmp_path / "set" / "red" / "round").symlink_to(tmp_path / "set" / "red")
    (tmp_path / "set" / "blue" / "gone.png").symlink_to(tmp_path / "gone.png")
    data = load(tmp_path / "set")
    assert len(data.train) + len(data.val) == 14
    assert data.notes == (f"1 file in {tmp_path / 'set'} passed over: not an image by its name, or a broken link",)


@pytest.mark.parametrize(("train", "val"), [("Train", "Test"), ("training", "testing"), ("TRAIN", "Val")])
def test_parts_are_known_in_any_case(train, val, tmp_path):
    paint(tmp_path, {f"{train}/red": 4, f"{train}/blue": 4, f"{val}/red": 1, f"{val}/blue": 2})
    data = load(tmp_path)
    assert data.classes == ("blue", "red")
    assert (len(data.train), len(data.val)) == (8, 3)
    assert_aligned(data)


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_a_files_name_may_be_any_bytes(tmp_path):
    paint(tmp_path, {"red": 4, "blue": 4})
    os.rename(tmp_path / "red" / "000.png", os.fsencode(tmp_path / "red") + b"/\xff.png")
    data = load(tmp_path)
    assert len(data.train) + len(data.val) == 8
    assert sources.fingerprint(DataConfig(str(tmp_path)))


def test_folds_are_equal_whatever_the_classes_leave_over(tmp_path):
    paint(tmp_path, {"red": 6, "green": 6, "blue": 7})
    held_out = [load(tmp_path, folds=5, fold=fold).val for fold in range(5)]
    assert sorted(map(len, held_out)) == [3, 4, 4, 4, 4]
    assert sorted(name for part in held_out for name in part.names) == sorted(map(str, tmp_path.glob("*/*.png")))
    for part in held_out:
        assert set(np.bincount(part.labels).tolist()) <= {1, 2}


@pytest.mark.parametrize("ending", ["JPG", "jpeg", "Png", "webp", "tiff", "gif", "bmp"])
def test_endings_of_images_in_any_case(ending, tmp_path):
    paint(tmp_path, {"red": 4, "blue": 4})
    Image.new("RGB", (12, 12), COLOURS["red"]).save(tmp_path / "red" / f"more.{ending}")
    data = load(tmp_path)
    assert len(data.train) + len(data.val) == 9
    assert data.notes == ()


# ---- files that cannot be read


@pytest.fixture
def spoilt(tmp_path) -> Path:
    """12 images of which three cannot be read: no image, empty, cut short."""
    paint(tmp_path, {"train/red": 4, "train/green": 2, "train/blue": 3, "val/red": 1, "val/blue": 2})
    (tmp_path / "train" / "blue" / "001.png").write_text("no image")
    (tmp_path / "train" / "red" / "000.png").write_bytes(b"")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / "noise.png")
    whole = (tmp_path / "noise.png").read_bytes()
    (tmp_path / "val" / "blue" / "000.png").write_bytes(whole[: len(whole) // 2])
    return tmp_path


@pytest.mark.parametrize("cache", ["auto", "none"])
def test_bad_training_files_stop_and_are_all_named_in_one_line(cache, spoilt):
    with pytest.raises(InputError) as caught:
        load(spoilt, cache=cache)
    message = str(caught.value)
    assert f"{spoilt}/train/blue/001.png: it is not an image" in message
    assert f"{spoilt}/train/red/000.png: the file is empty" in message
    assert f"{spoilt}/val/blue/000.png: it is cut short" in message
    assert message.startswith("3 files cannot be read")
    assert f"by data.bad_files='skip', or in a copy: cnnzoo check {spoilt} --fix GOOD" in message
    assert "\n" not in message


@pytest.mark.parametrize("cache", ["auto", "none"])
def test_bad_files_are_left_out_and_told(cache, spoilt):
    data = load(spoilt, bad_files="skip", cache=cache)
    assert file_names(data.train) == [
        "blue/000.png",
        "blue/002.png",
        "green/000.png",
        "green/001.png",
        "red/001.png",
        "red/002.png",
        "red/003.png",
    ]
    assert file_names(data.val) == ["blue/001.png", "red/000.png"]
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert_aligned(data)
    assert len(data.notes) == 1
    assert data.notes[0].startswith("3 files left out because they cannot be read: ")
    assert f"{spoilt}/val/blue/000.png: it is cut short" in data.notes[0]


def test_bad_files_are_told_every_time(spoilt):
    first, second = (load(spoilt, bad_files="skip") for _ in range(2))
    assert first.notes == second.notes
    with pytest.raises(InputError, match="3 files cannot be read"):
        load(spoilt)


@pytest.mark.parametrize("cache", ["auto", "none"])
def test_bad_files_are_known_by_any_path_to_the_folder(cache, spoilt, monkeypatch):
    monkeypatch.chdir(spoilt.parent)
    by_name = load(f"./{spoilt.name}", bad_files="skip", cache=cache)
    by_path = load(spoilt, bad_files="skip", cache=cache)
    assert len(by_name.train) == len(by_path.train) == 7
    assert_aligned(by_path)


def test_a_single_bad_file_is_one_file(tmp_path):
    paint(tmp_path, {"red": 4, "blue": 4})
    (tmp_path / "red" / "000.png").write_text("no image")
    with pytest.raises(InputError, match=r"^1 file cannot be read"):
        load(tmp_path)


def test_a_bad_file_that_is_the_last_is_no_damage_to_the_cache(tmp_path, decoded):
    paint(tmp_path, {"train/red": 2, "train/blue": 2, "val/red": 2})
    (tmp_path / "val" / "red" / "001.png").write_text("no image")
    first = load(tmp_path, bad_files="skip")
    decoded.clear()
    assert load(tmp_path, bad_files="skip").notes == first.notes
    assert decoded == []


def test_many_bad_files_are_told_by_what_is_wrong_and_counted_beyond_ten(tmp_path):
    paint(tmp_path, {"red": 40, "blue": 40})
    for i in range(14):
        (tmp_path / "red" / f"{i:03}.png").write_text("no image")
    with pytest.raises(InputError, match=r"^14 files cannot be read \(.*.png and 4 more: it is not an image\)"):
        load(tmp_path)


def test_nothing_readable_leaves_no_images(tmp_path):
    paint(tmp_path, {"train/red": 1, "train/blue": 1, "val/red": 1})
    for name in ("red", "blue"):
        (tmp_path / "train" / name / "000.png").write_text("no image")
    with pytest.raises(InputError, match=f"{tmp_path} has no train images that can be read"):
        load(tmp_path, bad_files="skip")


def test_file_mended_is_read_again(spoilt):
    load(spoilt, bad_files="skip")
    Image.new("RGB", (12, 12), COLOURS["blue"]).save(spoilt / "train" / "blue" / "001.png")
    data = load(spoilt, bad_files="skip")
    assert "blue/001.png" in file_names(data.train)
    assert_aligned(data)


def test_file_allowed_to_be_read_is_read_again(tmp_path, monkeypatch):
    paint(tmp_path, {"red": 4, "blue": 4})

    def forbid(file, *options):
        raise Unreached("no permission to read it")

    with monkeypatch.context() as patch:
        patch.setattr(preprocess, "decode", forbid)
        with pytest.raises(InputError, match="no permission"):
            load(tmp_path)
    assert_aligned(load(tmp_path))


def test_a_disk_that_fails_for_a_moment_is_not_remembered(tmp_path, monkeypatch):
    paint(tmp_path, {"red": 4, "blue": 4})
    read = Path.read_bytes

    def fail_once(file):
        if file.name == "002.png" and file.parent.name == "red":
            raise OSError(errno.EIO, "Input/output error")
        return read(file)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail_once)
        assert len(load(tmp_path, bad_files="skip").train) + 1 < 8
        with pytest.raises(InputError, match=r"red/002.png: it cannot be read now \(Input/output error\)"):
            load(tmp_path)
    data = load(tmp_path)
    assert len(data.train) + len(data.val) == 8


def test_file_that_goes_bad_later_is_named(tmp_path):
    data = load(paint(tmp_path, {"red": 4, "blue": 4}), cache="none")
    gone = Path(data.train.names[0])
    gone.unlink()
    with pytest.raises(InputError, match=f"{gone}.*no such file"):
        data.train.images.take(np.array([0]))


# ---- decoded once


def test_second_load_decodes_nothing(tmp_path, decoded):
    paint(tmp_path, {"red": 10, "blue": 10})
    first = load(tmp_path)
    assert len(decoded) == 20
    second = load(tmp_path)
    assert len(decoded) == 20
    np.testing.assert_array_equal(everything(first.train), everything(second.train))
    np.testing.assert_array_equal(everything(first.val), everything(second.val))


def test_changed_file_is_noticed(tmp_path):
    paint(tmp_path, {"train/red": 5, "train/blue": 5, "val/red": 5})
    load(tmp_path)
    Image.new("RGB", (30, 30), (1, 2, 3)).save(tmp_path / "val" / "red" / "003.png")
    colours = everything(load(tmp_path).val)[:, 4, 4].tolist()
    assert colours == [[255, 0, 0]] * 3 + [[1, 2, 3]] + [[255, 0, 0]]


def test_several_crops_are_not_kept(tmp_path):
    paint(tmp_path, {"red": 4, "blue": 4})
    preprocess = Preprocess(8, 8, (0.5,) * 3, (0.5,) * 3)
    for crops, kept in ((2, 0), (1, 8 * 8 * 8 * 3)):
        split, _, _ = sources.held_out(DataConfig(str(tmp_path)), preprocess, split=False, crops=crops)
        assert len(everything(split)) == 8
        assert sum(file.stat().st_size for file in tmp_path.rglob("*.u8")) == kept


def test_touched_file_is_noticed(tmp_path, decoded):
    paint(tmp_path, {"train/red": 5, "train/blue": 5, "val/red": 5})
    load(tmp_path)
    decoded.clear()
    os.utime(tmp_path / "val" / "red" / "000.png", ns=(1, 1))
    load(tmp_path)
    assert decoded == ["000.png"]


@pytest.mark.parametrize(
    "change", [{"size": 9}, {"resize": 10}, {"interpolation": "bicubic"}, {"channels": 1}], ids=lambda c: next(iter(c))
)
def test_another_geometry_is_decoded_anew(change, tmp_path, decoded):
    paint(tmp_path, {"train/red": 5, "train/blue": 5, "val/red": 5})
    load(tmp_path)
    load(tmp_path, **change)
    assert len(decoded) == 30


@pytest.mark.parametrize("change", [{"mean": [0.5, 0.5, 0.5]}, {"workers": 3}, {"bad_files": "skip"}])
def test_what_leaves_the_pixels_alone_decodes_nothing(change, tmp_path, decoded):
    paint(tmp_path, {"red": 10, "blue": 10})
    load(tmp_path)
    load(tmp_path, **change)
    assert len(decoded) == 20


def test_training_for_random_parts_keeps_all_that_the_resize_leaves(tmp_path):
    paint(tmp_path, {"red": 10, "blue": 10})
    data = load(tmp_path, augment=AugmentConfig(crop="resized"), size=8, resize=10)
    assert data.train.images.shape == (16, 10, 10, 3)
    assert data.val.images.shape == (4, 8, 8, 3)


@pytest.mark.parametrize("exactly", [True, False])
def test_what_random_parts_are_cut_from_is_the_photo_within_a_level(tmp_path, exactly):
    paint(tmp_path, {"red": 10, "blue": 10})
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    for file in tmp_path.rglob("*.png"):
        Image.fromarray(noise).save(file)
    config = DataConfig(str(tmp_path), size=66, resize=70)
    data = sources.load(config, AugmentConfig(crop="resized"), 66, exactly=exactly)
    seen = centre(data.train.images.take(np.arange(1)), 66)[0]
    difference = np.abs(seen.astype(int) - data.preprocess.pixels(noise)).max()
    assert difference == (0 if exactly else 1)


def test_images_at_hand_are_seen_exactly_as_evaluation_sees_them(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    config, labels = DataConfig("mine", size=66, resize=70), np.arange(4) % 2
    data = sources.from_images([noise] * 4, labels, "ab", config, AugmentConfig(crop="resized"), 66, decoded=tmp_path)
    seen = centre(data.train.images.take(np.arange(1)), 66)[0]
    np.testing.assert_array_equal(seen, data.preprocess.pixels(noise))


def test_pictures_at_hand_keep_their_groups_and_one_that_is_none_is_named(tmp_path):
    pictures = [np.full((8, 8 + i), i, np.uint8) for i in range(8)]
    config, labels, groups = DataConfig("mine"), np.arange(8) % 2, np.arange(8) // 2
    data = sources.from_images(pictures, labels, "ab", config, PLAIN, 8, decoded=tmp_path, groups=groups)
    for part in (data.train, data.val):
        assert part.groups.tolist() == [int(name.removeprefix("mine/")) // 2 for name in part.names]
    pictures[5] = np.zeros((8, 8, 7), np.uint8)
    with pytest.raises(InputError, match=r"^mine/5: "):
        sources.from_images(pictures, labels, "ab", config, PLAIN, 8, decoded=tmp_path)


@pytest.mark.parametrize("sides", [(8, 6), (6, 8), (8, 8), (8, 12), (12, 8)])
def test_images_in_one_array_are_scaled_as_each_alone_is(sides, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (4, *sides, 3), np.uint8)
    array, each = (
        sources.from_images(images, np.arange(4) % 2, "ab", DataConfig("mine"), PLAIN, 8, decoded=tmp_path)
        for images in (noise, list(noise))
    )
    np.testing.assert_array_equal(everything(array.train), everything(each.train))


def test_memory_map_gives_the_same(tmp_path, monkeypatch):
    paint(tmp_path, {"red": 10, "blue": 10})
    in_memory = load(tmp_path)
    monkeypatch.setattr(decoded_once, "IN_MEMORY", 0)
    mapped = load(tmp_path)
    assert isinstance(mapped.train.images.pixels, np.memmap)
    np.testing.assert_array_equal(everything(mapped.train), everything(in_memory.train))
    assert_aligned(mapped)


@pytest.mark.parametrize("augment", [PLAIN, AugmentConfig(flip=True, crop="padded", rotation=20, cutout=3)])
def test_without_a_cache_batches_are_the_same(augment, tmp_path):
    paint(tmp_path, {"red": 12, "blue": 12})
    for i, file in enumerate(sorted(tmp_path.rglob("*.png"))):
        noise = np.random.default_rng(i).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(noise).save(file)
    epochs = []
    for cache in ("auto", "none"):
        data = load(tmp_path, augment=augment, cache=cache)
        change = Augment(augment, 8, data.preprocess.mean, data.preprocess.std)
        batches = TrainBatches(data.train.images, data.train.labels, 5, change, seed=0)
        epochs.append([(images.numpy(), labels.numpy()) for images, labels in batches.epoch(0)])
    assert len(epochs[0]) == 4
    for (images, labels), (other_images, other_labels) in zip(*epochs, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


def test_without_a_cache_no_pixels_are_stored(tmp_path):
    paint(tmp_path, {"red": 40, "blue": 40})
    load(tmp_path, size=64, cache="none")
    stored = [file for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".png"]
    assert sum(file.stat().st_size for file in stored) < 64 * 64 * 3


def test_a_cache_that_the_disk_has_no_room_for_is_not_begun(tmp_path, monkeypatch, decoded):
    free = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    folder = paint(tmp_path / "set", {"red": 10, "blue": 10})
    data = load(folder)
    assert_aligned(data)
    assert any("they take 0.0 GB, and 0.0 GB are free in" in note for note in data.notes)
    assert not any(file.stat().st_size for file in (folder / ".cnnzoo").glob("*.u8"))
    many = len(decoded)
    assert load(folder).split() == data.split()
    assert len(decoded) == many  # which can be read is remembered


def test_without_a_cache_pixels_are_stored_when_asked_for_later(tmp_path, decoded):
    paint(tmp_path, {"red": 10, "blue": 10})
    load(tmp_path, cache="none")
    load(tmp_path, cache="auto")
    decoded.clear()
    assert_aligned(load(tmp_path, cache="auto"))
    assert decoded == []


@pytest.mark.parametrize("cache", ["auto", "none"])
def test_workers_do_not_change_the_pixels(cache, tmp_path, monkeypatch):
    paint(tmp_path / "set", {"red": 30, "blue": 30})
    splits = []
    for workers in (1, 4):
        monkeypatch.setenv("CNNZOO_CACHE", str(tmp_path / f"cache{workers}"))
        data = load(tmp_path / "set", cache=cache, workers=workers)
        assert_aligned(data)
        splits.append(data)
    for part in ("train", "val"):
        one, four = (getattr(data, part) for data in splits)
        assert one.names == four.names
        np.testing.assert_array_equal(everything(one), everything(four))


def test_more_files_than_wait_in_memory_stay_in_order(tmp_path):
    paint(tmp_path, {"red": 300, "blue": 300})
    data = load(tmp_path, workers=4)
    assert len(data.train) == 480
    assert_aligned(data)


# ---- where the cache lies


def test_cache_lies_hidden_in_the_set(tmp_path, home):
    paint(tmp_path, {"red": 10, "blue": 10})
    load(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".cnnzoo", "blue", "red"]
    kept = Counter(file.suffix for file in (tmp_path / ".cnnzoo").iterdir())
    assert kept == {".rows": 1, ".u8": 1, ".lock": 1}
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("chosen", ["cache", "~/cache"])
def test_chosen_cache_leaves_the_set_alone(chosen, tmp_path, monkeypatch, home, decoded):
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "set", {"red": 10, "blue": 10})
    monkeypatch.setenv("CNNZOO_CACHE", chosen)
    load(tmp_path / "set")
    load(tmp_path / "set")
    assert len(decoded) == 20
    assert sorted(entry.name for entry in (tmp_path / "set").iterdir()) == ["blue", "red"]
    assert ((home if "~" in chosen else tmp_path) / "cache").is_dir()


def test_read_only_set_is_cached_at_home(tmp_path, monkeypatch, home, decoded):
    paint(tmp_path, {"red": 10, "blue": 10})
    tmp_path.chmod(0o555)
    if os.access(tmp_path, os.W_OK):  # root may write anywhere
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK or not Path(path).is_relative_to(tmp_path))
    try:
        load(tmp_path)
        assert_aligned(load(tmp_path))
    finally:
        tmp_path.chmod(0o755)
    assert len(decoded) == 20
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["blue", "red"]
    assert (home / ".cache" / "cnnzoo").is_dir()
    assert load("digits").cache == home / ".cache" / "cnnzoo" / "decoded"


def test_a_cache_that_may_be_written_is_used_in_a_set_that_may_not(tmp_path, monkeypatch, decoded):
    paint(tmp_path, {"red": 4, "blue": 4})
    load(tmp_path)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode))
    decoded.clear()
    assert load(tmp_path).cache == tmp_path / ".cnnzoo"
    assert decoded == []


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "no permission"), NotImplementedError("no locks")])
def test_a_cache_that_cannot_be_locked_is_read_but_not_written(error, tmp_path, monkeypatch, decoded):
    paint(tmp_path, {"red": 4, "blue": 4})

    def refuse(*args):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(decoded_once.bars, "take", refuse)
        data = load(tmp_path)
    assert_aligned(data)
    (note,) = data.notes
    assert note.startswith(f"decoded photos cannot be kept (no {str(error).split()[-1]}: {tmp_path / '.cnnzoo'}), so ")
    load(tmp_path)
    decoded.clear()
    monkeypatch.setattr(decoded_once.bars, "take", refuse)
    data = load(tmp_path)
    assert_aligned(data)
    assert (decoded, data.notes) == ([], ())


@pytest.mark.parametrize("since", ["nothing", "more pixels", "part of a line", "lines again", "fewer pixels"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_reading_that_was_stopped_goes_on_where_it_was(stop, since, tmp_path, monkeypatch, decoded):
    """A killed process has perhaps written on since all was whole; a damaged disk has lost some."""
    paint(tmp_path, {"train/red": 10, "train/blue": 10, "val/red": 2})
    stop_after(8, stop, tmp_path, monkeypatch, decoded)
    (pixels,), (lines,) = (tmp_path / ".cnnzoo").glob("*.u8"), (tmp_path / ".cnnzoo").glob("*.rows")
    if since == "more pixels":
        pixels.write_bytes(pixels.read_bytes() + bytes(100))
    elif since == "part of a line":
        lines.write_bytes(lines.read_bytes() + b"0123")
    elif since == "lines again":  # it was stopped while the disk took them, and wrote them as it ended
        lines.write_bytes(lines.read_bytes() * 2)
    elif since == "fewer pixels":
        pixels.write_bytes(pixels.read_bytes()[:-1])
    decoded.clear()
    data = load(tmp_path)
    assert len(decoded) == (15 if since == "fewer pixels" else 14)
    assert any("so what it lost was decoded anew" in note for note in data.notes) == (since == "fewer pixels")
    assert_aligned(data)
    decoded.clear()
    assert_aligned(load(tmp_path))
    assert decoded == []


def test_reading_without_a_cache_that_was_stopped_goes_on_too(tmp_path, monkeypatch, decoded):
    paint(tmp_path, {"train/red": 10, "train/blue": 10, "val/red": 2})
    stop_after(8, KeyboardInterrupt, tmp_path, monkeypatch, decoded, cache="none")
    decoded.clear()
    load(tmp_path, cache="none")
    assert len(decoded) == 14


def stop_after(many: int, stop: type, folder: Path, monkeypatch, decoded: list[str], **config) -> None:
    """A load that ends in so many images."""
    decode = preprocess.decode

    def stopped(file, *options):
        if len(decoded) == many:
            raise stop
        return decode(file, *options)

    with monkeypatch.context() as patch:
        patch.setattr(preprocess, "decode", stopped)
        with pytest.raises(stop):
            load(folder, workers=1, **config)


def test_reading_is_written_down_every_few_seconds_so_that_a_kill_costs_no_more(tmp_path, monkeypatch):
    paint(tmp_path, {"red": 10, "blue": 10})
    monkeypatch.setattr(decoded_once, "PAUSE", 0)
    decode, names, lines = preprocess.decode, [], []

    def waits_for_lines(file, *options):
        names.append(file)
        for _ in range(1000 if len(names) == 3 else 0):
            lines.extend(b"".join(file.read_bytes() for file in (tmp_path / ".cnnzoo").glob("*.rows")).splitlines())
            if lines:
                break
            time.sleep(0.01)
        return decode(file, *options)

    monkeypatch.setattr(preprocess, "decode", waits_for_lines)
    load(tmp_path, workers=1)
    assert lines


@pytest.mark.parametrize("change", [{"val_fraction": 0.4}, {"split_seed": 1}, {"folds": 3}, {"fold": 2, "folds": 3}])
def test_another_split_decodes_nothing(change, tmp_path, decoded):
    paint(tmp_path, {"red": 10, "blue": 10})
    load(tmp_path)
    decoded.clear()
    assert_aligned(load(tmp_path, **change))
    assert decoded == []


def test_new_photos_are_decoded_alone(tmp_path, decoded):
    paint(tmp_path, {"red": 10, "blue": 10})
    load(tmp_path)
    paint(tmp_path, {"green": 3})
    decoded.clear()
    data = load(tmp_path)
    assert len(decoded) == 3
    assert_aligned(data)


def test_whoever_comes_second_waits_for_the_cache_that_the_first_one_builds(tmp_path, monkeypatch):
    """In containers all processes may have the same number, and threads have it always."""
    paint(tmp_path, {"red": 30, "blue": 30})
    decode, seen = preprocess.decode, []

    def slow(file, *options):
        seen.append(file)
        time.sleep(0.005)
        return decode(file, *options)

    monkeypatch.setattr(preprocess, "decode", slow)
    with ThreadPoolExecutor(3) as pool:
        sets = [found.result() for found in [pool.submit(load, tmp_path) for _ in range(3)]]
    assert len(seen) == 60
    for data in sets:
        assert_aligned(data)
    assert not list((tmp_path / ".cnnzoo").glob("*.part"))


def test_a_class_whose_name_is_no_unicode_has_one_that_can_be_printed_and_written(tmp_path):
    paint(tmp_path, {"red": 4, "blue": 4})
    os.rename(os.fsencode(tmp_path / "blue"), os.fsencode(tmp_path) + b"/bl\xffe")
    assert load(tmp_path).classes == ("bl\N{REPLACEMENT CHARACTER}e", "red")


def test_photos_in_a_folder_that_may_not_be_read_are_not_passed_over(tmp_path, monkeypatch):
    paint(tmp_path, {"red": 4, "blue": 4})
    walk = os.walk

    def locked(folder, onerror=None, **options):
        if str(folder).endswith("red"):
            onerror(PermissionError(errno.EACCES, "Permission denied", f"{folder}/more"))
        yield from walk(folder, onerror=onerror, **options)

    monkeypatch.setattr(os, "walk", locked)
    with pytest.raises(InputError, match="red/more cannot be read: Permission denied"):
        load(tmp_path)


def test_a_folder_that_may_not_be_seen_is_not_called_missing(tmp_path, monkeypatch):
    paint(tmp_path / "theirs" / "photos", {"red": 4, "blue": 4})
    stat = os.stat

    def locked(path, *given, **options):
        if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(str(tmp_path / "theirs" / "photos")):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return stat(path, *given, **options)

    monkeypatch.setattr(os, "stat", locked)
    for see in (load, cnnzoo.check):
        with pytest.raises(InputError, match="theirs/photos may not be looked at: Permission denied"):
            see(tmp_path / "theirs" / "photos")


@pytest.mark.parametrize("place", ["", "train", "val"])
def test_a_folder_that_may_not_be_listed_is_told_whoever_looks_into_it_first(tmp_path, monkeypatch, place):
    for part in ("train", "val"):
        paint(tmp_path / "theirs" / part, {"red": 4, "blue": 4})
    listed = Path.iterdir

    def locked(folder):
        if folder == tmp_path / "theirs" / place:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", locked)
    config = {"run": str(tmp_path / "run"), "model": {"name": "resnet20"}, "data": {"source": str(tmp_path / "theirs")}}
    for see in (load, cnnzoo.check, lambda _: cnnzoo.train(config)):
        with pytest.raises(InputError, match=f"theirs/?{place} cannot be read: Permission denied"):
            see(tmp_path / "theirs")


def test_photos_smaller_than_what_the_net_takes_are_told(tmp_path):
    paint(tmp_path, {"red": 4, "blue": 4})
    (note,) = load(tmp_path, input_size=224).notes
    assert note.startswith("the net takes 224x224 pixels, and most photos have less (")
    assert load(tmp_path, input_size=8).notes == ()


def test_pixels_are_kept_once_wherever_one_stands(tmp_path, monkeypatch, decoded):
    paint(tmp_path / "photos", {"red": 4, "blue": 4})
    monkeypatch.chdir(tmp_path)
    load("photos")
    monkeypatch.chdir(tmp_path / "photos" / "red")
    decoded.clear()
    load("..")
    judge("..", split=True)
    load(tmp_path / "photos")
    assert not decoded
    assert len([*(tmp_path / "photos" / ".cnnzoo").glob("*.rows")]) == 1


@pytest.mark.parametrize("damage", [lambda line: b"?" + line, lambda line: line[:-1] + b' "it\n'], ids=["key", "why"])
def test_a_damaged_cache_is_mended_and_told(damage, tmp_path, decoded):
    paint(tmp_path, {"red": 4, "blue": 4})
    load(tmp_path)
    (lines,) = (tmp_path / ".cnnzoo").glob("*.rows")
    whole = lines.read_bytes().splitlines(keepends=True)
    lines.write_bytes(b"".join([*whole[:5], damage(whole[5]), *whole[6:]]))
    decoded.clear()
    data = load(tmp_path)
    cache = tmp_path / ".cnnzoo"
    assert data.notes == (f"the cache of decoded photos in {cache} was damaged, so what it lost was decoded anew",)
    assert len(decoded) == 3
    assert_aligned(data)
    assert load(tmp_path).notes == ()


def test_a_file_rewritten_at_its_old_time_is_noticed(tmp_path):
    paint(tmp_path, {"red": 4, "blue": 4})
    for file in tmp_path.glob("*/*.png"):
        Image.new("RGB", (12, 12), COLOURS[file.parent.name]).save(file.with_suffix(".bmp"))
        file.unlink()
        os.utime(file.with_suffix(".bmp"), (0, 0))
    load(tmp_path)
    white = tmp_path / "red" / "000.bmp"
    Image.new("RGB", (12, 12), "white").save(white)
    os.utime(white, (0, 0))
    data = load(tmp_path)
    (part,) = [part for part in (data.train, data.val) if str(white) in part.names]
    assert part.images.take(np.array([part.names.index(str(white))])).min() == 255


def test_named_sets_that_would_fill_the_memory_are_scaled_when_asked_for(monkeypatch):
    kept = load("digits", size=64)
    monkeypatch.setattr(reading, "IN_MEMORY", 1000)
    data = load("digits", size=64)
    assert isinstance(data.train.images, FittedImages)
    assert data.train.images.shape == kept.train.images.shape
    places = np.array([5, 0, 700])
    assert np.array_equal(data.train.images.take(places), kept.train.images.take(places))


# ---- preprocessing: the weights' own, overridden by the config


TRAINED = Preprocess(224, 256, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), "bicubic")


def test_weights_bring_their_own_preprocessing(tmp_path):
    data = load(paint(tmp_path, {"red": 2, "blue": 2}), input_size=32, preprocess=TRAINED)
    assert data.preprocess == TRAINED


@pytest.mark.parametrize(
    ("key", "value", "changed"),
    [
        ("size", 112, {"size": 112, "resize": 128}),
        ("resize", 232, {"resize": 232}),
        ("mean", [0.1, 0.1, 0.1], {"mean": (0.1, 0.1, 0.1)}),
        ("std", [0.1, 0.1, 0.1], {"std": (0.1, 0.1, 0.1)}),
    ],
)
def test_config_overrides_the_weights(key, value, changed, tmp_path):
    trained = replace(TRAINED, interpolation="bilinear")
    data = load(paint(tmp_path, {"red": 2, "blue": 2}), preprocess=trained, **{key: value})
    assert data.preprocess == replace(trained, **changed)
    told = [note for note in data.notes if "the weights were trained with" in note]
    was = [*getattr(trained, key)] if key in ("mean", "std") else None
    line = f"data.{key} is {value}, but the weights were trained with {was}, which leaving it out takes"
    assert told == ([line] if was else [])  # sizes are one's own affair


def test_weights_decide_the_channels():
    assert load("digits", preprocess=replace(TRAINED, size=8, resize=8)).train.images.shape[3] == 3


@pytest.mark.parametrize(("mean", "std"), [([0.5], [0.1, 0.2, 0.3]), ([0.5, 0.5], [0.1, 0.1])])
def test_mean_and_std_have_one_number_for_each_channel(mean, std):
    with pytest.raises(InputError, match=rf"data\.mean and data\.std have {len(mean)} and {len(std)} numbers"):
        load("digits", channels=3, mean=mean, std=std)


# ---- the images to judge a trained net on


def judge(source: str | Path, split: bool, **config):
    return sources.held_out(DataConfig(str(source), **config), Preprocess(8, 8, (0.5,) * 3, (0.5,) * 3), split)


def test_held_out_is_the_share_that_training_held_out(tmp_path):
    paint(tmp_path, {"red": 10, "blue": 10})
    part, classes, notes = judge(tmp_path, split=True)
    trained_on = load(tmp_path)
    assert part.names == trained_on.val.names
    assert part.labels.tolist() == trained_on.val.labels.tolist()
    assert classes == ("blue", "red")
    assert notes == ()


def test_held_out_is_everything_where_nothing_is_to_be_split(tmp_path):
    part, _, _ = judge(paint(tmp_path, {"red": 10, "blue": 10}), split=False)
    assert len(part) == 20


@pytest.mark.parametrize("split", [True, False])
def test_held_out_is_val_where_there_is_one(split, tmp_path):
    part, _, _ = judge(paint(tmp_path, {"train/red": 3, "train/blue": 3, "val/red": 2}), split=split)
    assert file_names(part) == ["red/000.png", "red/001.png"]


def test_held_out_tells_of_bad_files(spoilt):
    part, _, notes = judge(spoilt, split=True, bad_files="skip")
    assert len(part) == 2
    assert notes == (f"1 file left out because it cannot be read: {spoilt}/val/blue/000.png: it is cut short",)
    with pytest.raises(InputError, match=r"^1 file cannot be read .* go on without it by bad_files='skip'"):
        judge(spoilt, split=True)


def test_a_sample_is_of_training_images_that_can_be_read_where_none_are_to_be_split_off(spoilt, tmp_path):
    preprocess = Preprocess(8, 8, (0.5,) * 3, (0.5,) * 3)
    assert sources.sample(DataConfig(str(spoilt)), preprocess, 100).shape == (7, 8, 8, 3)
    paint(tmp_path / "whole", {"red": 4, "blue": 4})
    assert sources.sample(DataConfig(str(tmp_path / "whole")), preprocess, 100).shape == (0, 8, 8, 3)


def test_a_folder_is_looked_up_once_for_all_its_files(tmp_path, monkeypatch):
    folder, asked, realpath = photos.folder(tmp_path / "photos", each=4), [], os.path.realpath
    (tmp_path / "link").symlink_to(folder)
    files = sorted(folder.glob("*/*.*"))
    linked = [tmp_path / "link" / file.relative_to(folder) for file in files]
    expected = [f"{file.resolve()}" for file in files]
    monkeypatch.setattr(os.path, "realpath", lambda name, **options: asked.append(name) or realpath(name, **options))
    for given in (files, linked):
        assert [told.partition("\0")[0] for told in decoded_once.stamps(given)] == expected
    assert len(asked) == 2 * len({file.parent for file in files}) < len(files)
