"""Images at hand as a data source: arrays, pictures, data sets of torch's."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import Dataset

import cnnzoo
from cnnzoo.config import AugmentConfig, DataConfig
from cnnzoo.data import sources
from cnnzoo.data.named import NAMED
from cnnzoo.errors import InputError

DIGITS = load_digits()
PIXELS, LABELS = (DIGITS.images * (255 / 16)).round().astype(np.uint8), DIGITS.target


class Pairs(Dataset):
    """A data set as torchvision's are: pictures, labels and the classes' names."""

    classes = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

    def __len__(self) -> int:
        return 300

    def __getitem__(self, place: int) -> tuple[Image.Image, int]:
        return Image.fromarray(PIXELS[place]), int(LABELS[place])


class NA:
    """As pandas' is, which says of itself neither that it is the same nor that it is not."""

    def __eq__(self, other: object) -> "NA":
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


@pytest.fixture
def name():
    yield "mine"
    NAMED.pop("mine", None)


def loaded(name: str) -> sources.Dataset:
    return sources.load(DataConfig(source=name, size=8), AugmentConfig(), 8)


def test_what_is_registered_trains_and_judges_as_the_same_images_of_a_set_do(name, tmp_path):
    cnnzoo.register_data(name, PIXELS, LABELS)
    short = {"model": {"name": "lenet5"}, "train": {"epochs": 1}}
    mine, theirs = (
        cnnzoo.train({"run": str(tmp_path / source), "data": {"source": source, "mean": [0.3], "std": [0.4]}, **short})
        for source in (name, "digits")
    )
    assert np.array_equal(mine.predictions[0], theirs.predictions[0])
    assert mine.metrics[-1]["val_top1"] == pytest.approx(cnnzoo.evaluate(mine).top1)
    assert mine.report_file.exists()


def test_images_that_stand_are_scaled_as_the_same_that_lie(name):
    seen = []
    for pixels in (PIXELS[:, :, :7], PIXELS[:, :, :7].swapaxes(1, 2)):
        cnnzoo.register_data(name, pixels, LABELS)
        seen.append(loaded(name).train.images.take(np.arange(9))[..., 0])
    np.testing.assert_array_equal(seen[0], seen[1].swapaxes(1, 2))


@pytest.mark.parametrize(
    "images",
    [
        PIXELS,
        PIXELS[..., None],
        torch.from_numpy(PIXELS),
        torch.from_numpy(PIXELS)[:, None],
        list(PIXELS),
        [Image.fromarray(each) for each in PIXELS],
    ],
    ids=["array", "with channels", "tensor", "tensor with channels", "arrays", "pictures"],
)
def test_images_come_in_every_form(name, images):
    cnnzoo.register_data(name, images, LABELS)
    data = loaded(name)
    assert data.classes == tuple("0123456789")
    assert data.train.images.shape[1:] == (8, 8, 1)
    places = [int(each.rpartition("/")[2]) for each in data.train.names]
    assert np.array_equal(data.train.images.take(np.arange(len(places)))[..., 0], PIXELS[places])
    assert np.array_equal(data.train.labels, LABELS[places])


def test_files_and_colours_of_any_size(name, tmp_path):
    files = [tmp_path / f"{place}.png" for place in range(12)]
    for place, file in enumerate(files):
        Image.new("RGB", (9 + place, 8), (10 * place, 0, 0)).save(file)
    cnnzoo.register_data(name, files, ["ant", "bee"] * 6)
    data = loaded(name)
    assert data.classes == ("ant", "bee")
    assert data.train.images.shape[1:] == (8, 8, 3)


@pytest.mark.parametrize("form", ["array", "pictures", "files"])
def test_a_fingerprint_changes_with_any_image_and_any_label(name, form, tmp_path):
    def fingerprint(pixels, labels):
        images = pixels if form == "array" else [Image.fromarray(each) for each in pixels]
        if form == "files":
            files = [tmp_path / f"{place}.png" for place in range(len(images))]
            for file, image in zip(files, images, strict=True):
                if not file.exists() or not np.array_equal(Image.open(file), image):  # those that change, alone
                    image.save(file)
            images = files
        cnnzoo.register_data(name, images, labels)
        return sources.fingerprint(DataConfig(name))

    pixels, labels = PIXELS[:20].copy(), LABELS[:20].copy()
    first = fingerprint(pixels, labels)
    assert fingerprint(pixels, labels) == first
    assert fingerprint(pixels, np.roll(labels, 1)) != first
    pixels[-1] = 255 - pixels[-1]
    assert fingerprint(pixels, labels) != first


@pytest.mark.parametrize("dtype", [str, object])
def test_files_come_as_a_column_of_a_table(name, dtype, tmp_path):
    files = [str(tmp_path / f"{place}.png") for place in range(4)]
    for file in files:
        Image.new("RGB", (8, 8)).save(file)
    cnnzoo.register_data(name, np.array(files, dtype), np.array(["ant", "bee"] * 2, dtype))
    assert loaded(name).classes == ("ant", "bee")


def test_a_data_set_brings_its_labels_and_classes_and_another_to_validate_on(name):
    cnnzoo.register_data(name, Pairs(), val=Pairs())
    data = loaded(name)
    assert data.classes == Pairs.classes
    assert len(data.train) == len(data.val) == 300
    cnnzoo.register_data(name, PIXELS, LABELS, val=(PIXELS[:50], LABELS[:50]))  # a cell run twice
    data = loaded(name)
    assert (len(data.train), len(data.val)) == (1797, 50)


def test_labels_are_names_or_places_in_the_classes(name):
    classes = ["odd", "even"]
    cnnzoo.register_data(name, PIXELS, (LABELS + 1) % 2, classes=classes)
    places = loaded(name)
    cnnzoo.register_data(name, PIXELS, [classes[(label + 1) % 2] for label in LABELS], classes=classes)
    named = loaded(name)
    assert places.classes == named.classes == ("odd", "even")
    assert np.array_equal(places.train.labels, named.train.labels)


def test_classes_that_are_no_list_of_texts(name):
    for classes in (np.array(["odd", "even"]), iter(["odd", "even"])):
        cnnzoo.register_data(name, PIXELS, (LABELS + 1) % 2, classes=classes)
        assert loaded(name).classes == ("odd", "even")
    cnnzoo.register_data(name, PIXELS, [str(label) for label in LABELS], classes=range(10))
    assert loaded(name).classes == tuple("0123456789")


def test_images_that_belong_together_are_not_divided(name):
    writers = [f"writer {place // 30}" for place in range(len(PIXELS))]
    data = loaded(cnnzoo.register_data(name, PIXELS, LABELS, groups=writers))
    train, val = ({int(each.rpartition("/")[2]) // 30 for each in part.names} for part in (data.train, data.val))
    assert not train & val
    assert len(train | val) == 60
    assert data.notes[-1] == "1,797 images in 60 groups, none of which is divided"
    known = sources.groups_of(DataConfig(name), data.val.names)  # as reports and ensembles ask, long after
    assert len(np.unique(known)) == len(val)


@pytest.mark.parametrize(
    "groups",
    [
        [(place // 30, "left") for place in range(len(PIXELS) - 1)],
        [*torch.arange(len(PIXELS) - 1) // 30],
        [place // 30 for place in range(len(PIXELS) - 1)],
    ],
    ids=["tuples", "tensors", "numbers"],
)
@pytest.mark.parametrize("none", [None, float("nan"), NA()])
def test_images_belong_together_by_any_value_and_stand_alone_without_one(name, groups, none):
    data = loaded(cnnzoo.register_data(name, PIXELS, LABELS, groups=[*groups, none]))
    assert data.notes[-1] == "1,796 images in 60 groups, none of which is divided; 1 other stands alone"


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (("digits", PIXELS, LABELS), {}, "'digits' stands for other images; choose another name"),
        (("mine", PIXELS / 255.0, LABELS), {}, "an image is of float64; give a uint8 array"),
        (("mine", PIXELS.reshape(-1, 64), LABELS), {}, r"an array of shape \(1797, 64\) is none of images; give"),
        (("mine", [1, 2], [0, 1]), {}, "1 is no image; give a uint8 array"),
        (("mine", {"file": ["a.png"], "class": ["a"]}), {}, "dict holds no pairs of an image and its label; give"),
        (("mine", 5), {}, "int holds no pairs of an image and its label; give"),
        (("mine", PIXELS, LABELS[:5]), {}, "there are 1,797 images and 5 labels"),
        (("mine", PIXELS, LABELS / 2), {}, r"labels are float64 of shape \(1797,\); give the class of each image"),
        (
            ("mine", PIXELS[:2], ["ant", float("nan")]),
            {},
            "among the labels, which are text, is nan; give the class of",
        ),
        (("mine", PIXELS[:2], [0, 1]), {"classes": ["ant", "ant"]}, "the class 'ant' is named twice; give each a name"),
        (("mine", [{"image": PIXELS[0], "label": 0}] * 2), {}, "list holds no pairs of an image and its label; give"),
        ((5, PIXELS, LABELS), {}, "a source is named by a text, not 5"),
        (("mine", PIXELS, 5), {}, "labels are the class of each image, not 5"),
        (("mine", PIXELS, LABELS), {"classes": 10}, "classes are names, in order, not 10"),
        (
            ("mine", PIXELS, LABELS),
            {"groups": np.zeros((1797, 2))},
            r"groups hold array\(.*; give text or a number for",
        ),
        (("mine", PIXELS, LABELS), {"classes": ["a", "b"]}, "the label 2 is no place in 2 classes, from 0"),
        (("mine", PIXELS[:2], ["ant", "bea"]), {"classes": ["ant", "bee"]}, "'bea' is none of .*; did you mean bee"),
        (("mine", PIXELS, LABELS), {"groups": "abc"}, "there are 1,797 images and 3 groups, one for each"),
        (("mine", PIXELS, LABELS), {"groups": 5}, "groups is 5, but must tell of each image what it belongs to"),
        (("mine", PIXELS[:1], LABELS[:1]), {"groups": [["a"]]}, r"groups hold \['a'\]; give text or a number for each"),
        (("mine", PIXELS, LABELS), {"groups": LABELS, "val": Pairs()}, "val is held out already; give one of them"),
        (("mine", PIXELS[:2], ["ant", "wasp"]), {"classes": ["ant", "bee"]}, "'wasp' is none of the classes$"),
    ],
)
def test_what_will_not_do_is_told(given, options, message):
    with pytest.raises(InputError, match=message):
        cnnzoo.register_data(*given, **options)


def test_images_handed_to_training_are_shown_the_way():
    with pytest.raises(InputError, match=r"data is a tuple; give images of your own a name by cnnzoo.register_data\("):
        cnnzoo.train({}, data=(PIXELS, LABELS))


def test_a_class_without_images_is_told(name):
    cnnzoo.register_data(name, PIXELS, LABELS, classes=[*map(str, range(11))])
    with pytest.raises(InputError, match="class '10' of mine has no image; it needs two"):
        loaded(name)
