"""Sources that outgrow a folder: WebDataset's tar shards and data sets of Hugging Face's."""

import gzip
import io
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnzoo.config import AugmentConfig, DataConfig
from cnnzoo.data import hugging_face, shards, sources
from cnnzoo.errors import InputError

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]  # of class 0, 1 and 2


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("CNNZOO_CACHE", raising=False)


def photo(label: int, ending: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 10), COLOURS[label]).save(buffer, {"jpg": "JPEG"}.get(ending, ending))
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def shard(file: Path, labels: list, ending: str = "png") -> Path:
    """A tar of a sample for each label; a text label has the colour of its length."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for number, label in enumerate(labels):
            add(tar, f"{number:04}.{ending}", photo(label if isinstance(label, int) else len(label) % 3, ending))
            add(tar, f"{number:04}.cls", str(label).encode())
    return file


def load(source: str | Path, **config) -> sources.Dataset:
    return sources.load(DataConfig(str(source), **config), AugmentConfig(), 8)


def assert_aligned(data: sources.Dataset) -> None:
    for split in (data.train, data.val):
        pixels = split.images.take(np.arange(len(split)))[:, 4, 4]
        np.testing.assert_allclose(pixels, [COLOURS[label] for label in split.labels], atol=3)


# ---- shards


def test_names_in_another_encoding_are_read_once_and_again(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as tar:
        for number in range(6):
            add(tar, f"\u00e9t\u00e9{number}.png", photo(number % 2))
            add(tar, f"\u00e9t\u00e9{number}.cls", str(number % 2).encode())
    first, again = (load(tmp_path / "a.tar") for _ in range(2))
    assert_aligned(again)
    assert first.train.names == again.train.names
    assert "t\udce9" in again.train.names[0]


def test_shards_are_known_as_the_same_wherever_they_lie(tmp_path, monkeypatch):
    for place in ("here", "there"):
        shard(tmp_path / place / "a.tar", [0, 1, 2] * 4)
    monkeypatch.chdir(tmp_path / "here")
    assert len({load(source).digest for source in ("*.tar", tmp_path / "here" / "*.tar", "../there/*.tar")}) == 1


@pytest.mark.parametrize("pattern", ["train-{000..002}.tar", "train-*.tar", "train-{0..2}.tar"])
def test_a_pattern_is_all_its_shards_in_order(pattern, tmp_path):
    digits = len("{000..002}") - 7 if "000" in pattern or "*" in pattern else 1
    for number in range(3):
        shard(tmp_path / f"train-{number:0{digits}}.tar", [0, 1, 2] * 4)
    data = load(tmp_path / pattern, val_fraction=0.25)
    assert data.classes == ("0", "1", "2")
    assert (len(data.train), len(data.val)) == (27, 9)
    assert_aligned(data)
    assert data.train.names[0].startswith(str(tmp_path / f"train-{0:0{digits}}.tar") + "/")
    assert data.train.names == tuple(sorted(data.train.names))


@pytest.mark.parametrize("cache", ["auto", "none"])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_shards_are_decoded_as_files_are(ending, cache, tmp_path):
    assert_aligned(load(shard(tmp_path / "a.tar", [0, 1, 2] * 4, ending), cache=cache))


def test_validation_images_from_other_shards(tmp_path):
    shard(tmp_path / "train.tar", [0, 1, 2] * 4)
    shard(tmp_path / "val.tar", [2, 0])
    data = load(tmp_path / "train.tar", val_source=str(tmp_path / "val.tar"))
    assert len(data.train) == 12
    assert data.val.labels.tolist() == [2, 0]
    assert_aligned(data)


def test_validation_classes_missing_in_training_are_named(tmp_path):
    shard(tmp_path / "train.tar", [0, 1] * 4)
    shard(tmp_path / "val.tar", [2, 0])
    with pytest.raises(InputError, match=r"data\.val_source .*val\.tar has classes that .*train\.tar lacks: 2"):
        load(tmp_path / "train.tar", val_source=str(tmp_path / "val.tar"))


def test_numbers_are_in_order_and_names_by_the_alphabet(tmp_path):
    assert load(shard(tmp_path / "a.tar", [2, 0, 1] * 2)).classes == ("0", "1", "2")
    padded = [f"{1:0{width}}" for width in range(6, 0, -1)]  # one number, but classes of their own, always in one order
    assert load(shard(tmp_path / "padded.tar", ["2", "10", *padded] * 2)).classes == (*sorted(padded), "2", "10")
    names = load(shard(tmp_path / "b.tar", ["tulip", "rose"] * 2))
    assert names.classes == ("rose", "tulip")


def test_classes_txt_names_the_numbers(tmp_path):
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    data = load(shard(tmp_path / "a.tar", [0, 2] * 4))
    assert data.classes == ("red", "blue")
    (tmp_path / "classes.txt").write_text("red\n\n")
    with pytest.raises(InputError, match=r"classes\.txt has 1 lines, but there is a class 2"):
        load(tmp_path / "a.tar")
    (tmp_path / "classes.txt").write_text("\ngreen\nblue\n")
    with pytest.raises(InputError, match=r"classes\.txt has an empty line for class 0"):
        load(tmp_path / "a.tar")


def test_a_class_is_one_however_its_umlaut_is_written(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number, label in enumerate(["gr\u00fcn", "gru\u0308n", "rot", "rot"]):
            add(tar, f"{number}.png", photo(number // 2))
            add(tar, f"{number}.cls", label.encode())
    assert load(tmp_path / "a.tar").classes == ("gr\u00fcn", "rot")


def test_classes_txt_may_come_from_notepad_and_is_told_where_it_is_not_utf8(tmp_path):
    names = tmp_path / "classes.txt"
    names.write_bytes("café\r\ntea\r\n".encode("utf-8-sig"))
    assert load(shard(tmp_path / "a.tar", [0, 1] * 4)).classes == ("café", "tea")
    names.write_bytes("café\ntea\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"classes\.txt is not UTF-8"):
        load(tmp_path / "a.tar")


def test_a_class_in_a_shard_may_come_from_notepad_and_is_told_where_it_is_not_utf8(tmp_path):
    for name, encoding in (("a", "utf-8-sig"), ("b", "latin-1")):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for number in range(4):
                add(tar, f"{number}.png", photo(number // 2))
                add(tar, f"{number}.cls", ("café", "thé")[number // 2].encode(encoding))
    assert load(tmp_path / "a.tar").classes == ("café", "thé")
    with pytest.raises(InputError, match=r"b\.tar/0\.cls is not UTF-8; save it as text in UTF-8$"):
        load(tmp_path / "b.tar")


def test_samples_without_image_or_class_are_passed_over_and_told(tmp_path):
    with tarfile.open(shard(tmp_path / "a.tar", [0, 1] * 4), "a") as tar:
        add(tar, "more/x.png", photo(0))
        add(tar, "more/y.cls", b"1")
        add(tar, "more/._z.png", b"of a Mac")
    load(tmp_path / "a.tar")
    data = load(tmp_path / "a.tar")  # by the index that the first has kept
    assert len(data.train) + len(data.val) == 8
    assert data.notes == (f"2 of 10 samples in {tmp_path / 'a.tar'} passed over for want of an image or a class",)


def test_classes_txt_is_of_numbers_alone_and_must_have_a_line_for_the_last(tmp_path):
    (tmp_path / "classes.txt").write_text("red\n")
    assert load(shard(tmp_path / "names.tar", ["cat", "horse"] * 4)).classes == ("cat", "horse")
    with pytest.raises(InputError, match=r"classes\.txt has 1 lines, but there is a class 1$"):
        load(shard(tmp_path / "numbers.tar", [0, 1] * 4))


def test_of_two_images_of_a_sample_the_first_is_its_photo(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(8):
            add(tar, f"{number}.png", photo(number % 2))
            add(tar, f"{number}.jpg", photo(2, "jpg"))  # what belongs to it, such as a mask
            add(tar, f"{number}.cls", str(number % 2).encode())
    assert_aligned(load(tmp_path / "a.tar"))


def test_shards_without_samples_say_what_one_is(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "0.txt", b"text")
    with pytest.raises(InputError, match=r"holds no image with its class, such as 000017\.jpg and 000017\.cls"):
        load(tmp_path / "a.tar")


def test_missing_shards_are_named(tmp_path):
    shard(tmp_path / "a-0.tar", [0, 1])
    with pytest.raises(InputError, match=rf"there is no file {tmp_path}/a-1\.tar and 1 more"):
        load(tmp_path / "a-{0..2}.tar")
    with pytest.raises(InputError, match=r"there is no file .*b-\*\.tar$"):
        load(tmp_path / "b-*.tar")


def test_a_shard_that_a_pattern_has_twice_is_read_once(tmp_path):
    for number in range(1, 13):
        shard(tmp_path / f"train-{number}.tar", [0, 1] * 3)
    data = load(tmp_path / "train-{1..12}*.tar")  # train-1* has train-12 too
    assert len({*data.train.names, *data.val.names}) == len(data.train) + len(data.val) == 12 * 6


def test_a_range_that_runs_backwards_is_told(tmp_path):
    with pytest.raises(InputError, match="its range holds no number; write the smaller one first"):
        load(tmp_path / "train-{5..2}.tar")


def test_two_samples_of_one_name_are_told(tmp_path):
    whole = shard(tmp_path / "a.tar", [0, 1] * 4)
    with tarfile.open(whole, "a") as tar:  # by which a run that goes on could not tell them apart
        add(tar, "0002.png", photo(1))
        add(tar, "0002.cls", b"1")
    with pytest.raises(InputError, match=r"a\.tar/0002\.png is there twice; give each sample of a shard a name of its"):
        load(whole)


def test_damaged_and_compressed_shards_are_named(tmp_path):
    whole = shard(tmp_path / "a.tar", [0, 1] * 4).read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[:1_500])
    (tmp_path / "c.tar.gz").write_bytes(gzip.compress(whole))
    (tmp_path / "d.tar").write_bytes(b"no tar at all" * 100)
    for name, why in (("b.tar", "cut short"), ("c.tar.gz", "it is compressed; unpack it"), ("d.tar", "no tar")):
        with pytest.raises(InputError, match=rf"{tmp_path}/{name}: .*{why}"):
            load(tmp_path / name)


def test_a_bad_image_in_a_shard_is_named(tmp_path):
    with tarfile.open(shard(tmp_path / "a.tar", [0, 1] * 4), "a") as tar:
        add(tar, "bad.jpg", b"no image")
        add(tar, "bad.cls", b"1")
    with pytest.raises(InputError, match=r"1 file cannot be read \(.*a\.tar/bad\.jpg: it is not an image"):
        load(tmp_path / "a.tar", val_fraction=0.5)
    data = load(tmp_path / "a.tar", bad_files="skip")
    assert len(data.train) + len(data.val) == 8
    assert_aligned(data)


def test_shards_are_indexed_once_and_anew_when_changed(tmp_path, monkeypatch):
    file, reads, read = shard(tmp_path / "a.tar", [0, 1] * 4), [], shards._samples
    monkeypatch.setattr(shards, "_samples", lambda *args: reads.append(args) or read(*args))
    first, second = load(file), load(file)
    assert len(reads) == 1
    assert first.split() == second.split()
    assert_aligned(second)
    shard(file, [1, 0, 2] * 4)
    assert len(load(file).train) == 9
    assert len(reads) == 2


def test_a_damaged_index_is_made_anew(tmp_path):
    file = shard(tmp_path / "a.tar", [0, 1] * 4)
    load(file)
    (index,) = tmp_path.glob(".cnnzoo/*.shards.npz")
    index.write_bytes(index.read_bytes()[:200])
    assert_aligned(load(file))
    assert index.stat().st_size > 200


def test_folders_of_members_are_part_of_a_samples_name(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for label in range(3):
            for number in range(2):
                add(tar, f"v1.0/{label}/{number}.cls", str(label).encode())
                add(tar, f"v1.0/{label}/{number}.PNG", photo(label))
    assert_aligned(load(tmp_path / "a.tar"))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # of theirs
def test_we_read_what_webdataset_writes_and_reads(tmp_path, monkeypatch):
    wds = pytest.importorskip("webdataset")
    monkeypatch.chdir(tmp_path)
    with wds.ShardWriter("train-%06d.tar", maxcount=5, verbose=0) as writer:
        for number in range(12):
            writer.write({"__key__": f"photo{number:03}", "jpg": photo(number % 3, "jpg"), "cls": number % 3})
    found = shards.find("train-{000000..000002}.tar")
    theirs = wds.WebDataset("train-{000000..000002}.tar", shardshuffle=False, empty_check=False)
    theirs = [(sample["jpg"], int(sample["cls"])) for sample in theirs]
    ours = [(image.read_bytes(), label) for image, label in zip(found.train.images, found.train.labels, strict=True)]
    assert ours == theirs


# ---- Hugging Face


@pytest.fixture
def hf():
    return pytest.importorskip("datasets")


def rows(hf, labels: list[int], **more) -> object:
    features = hf.Features(photo=hf.Image(), kind=hf.ClassLabel(names=["red", "green", "blue"]), **more)
    columns = {"photo": [{"bytes": photo(label or 0), "path": None} for label in labels], "kind": labels}
    columns |= dict.fromkeys(more, labels)
    return hf.Dataset.from_dict(columns, features=features)


@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_a_saved_data_set_is_split(prefix, hf, tmp_path):
    rows(hf, [0, 1, 2] * 4).save_to_disk(tmp_path / "set")
    data = load(f"{prefix}{tmp_path / 'set'}", val_fraction=0.25)
    assert data.classes == ("red", "green", "blue")
    assert (len(data.train), len(data.val)) == (9, 3)
    assert_aligned(data)


@pytest.mark.parametrize("held_out", ["validation", "test"])
def test_splits_are_kept_apart(held_out, hf, tmp_path):
    hf.DatasetDict({"train": rows(hf, [0, 1, 2] * 2), held_out: rows(hf, [2, 1])}).save_to_disk(tmp_path)
    data = load(tmp_path, cache="none")
    assert (len(data.train), data.val.labels.tolist()) == (6, [2, 1])
    assert data.val.names == (f"{tmp_path}/{held_out}/0", f"{tmp_path}/{held_out}/1")
    assert_aligned(data)


def test_a_split_whose_classes_are_secret_is_passed_over(hf, tmp_path):
    secret = rows(hf, [0, 0]).map(lambda row: {"kind": -1})
    hf.DatasetDict({"train": rows(hf, [0, 1, 2] * 4), "test": secret}).save_to_disk(tmp_path)
    data = load(tmp_path)
    assert len(data.train) + len(data.val) == 12
    assert data.notes == (f"test of {tmp_path} passed over, since its classes are not told",)


def test_a_split_whose_classes_are_none_is_passed_over(hf, tmp_path):
    hf.DatasetDict({"train": rows(hf, [0, 1, 2] * 4), "test": rows(hf, [None, None])}).save_to_disk(tmp_path)
    assert load(tmp_path).notes == (f"test of {tmp_path} passed over, since its classes are not told",)


def test_images_to_learn_from_need_a_class(hf, tmp_path):
    rows(hf, [0, 1, 2, None, None]).save_to_disk(tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path}: 2 images of train have no class"):
        load(tmp_path)


def test_what_is_judged_by_is_validation_where_there_is_a_test_too(hf, tmp_path):
    parts = {"test": [0], "validation": [2, 1], "train": [0, 1, 2] * 2}
    hf.DatasetDict({name: rows(hf, labels) for name, labels in parts.items()}).save_to_disk(tmp_path)
    assert load(tmp_path, cache="none").val.labels.tolist() == [2, 1]


def test_a_single_split_is_divided_whatever_it_is_called(hf, tmp_path):
    hf.DatasetDict({"test": rows(hf, [0, 1, 2] * 4)}).save_to_disk(tmp_path)
    data = load(tmp_path, val_fraction=0.25)
    assert (len(data.train), len(data.val)) == (9, 3)
    assert not {*data.train.names} & {*data.val.names}


def test_of_several_splits_one_must_be_called_train(hf, tmp_path):
    hf.DatasetDict({name: rows(hf, [0, 1, 2]) for name in ("some", "others")}).save_to_disk(tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path} has the splits some, others, but none is called train"):
        load(tmp_path)


def test_classes_of_another_order_are_matched_by_their_names(hf, tmp_path):
    other = rows(hf, [0, 1, 2]).cast_column("kind", hf.ClassLabel(names=["blue", "red", "green"]))
    hf.DatasetDict({"train": rows(hf, [0, 1, 2] * 2), "test": other}).save_to_disk(tmp_path)
    assert load(tmp_path, cache="none").val.labels.tolist() == [2, 0, 1]


def test_a_row_without_an_image_is_named(hf, tmp_path):
    data = rows(hf, [0, 1, 2] * 2).cast_column("photo", hf.Image(decode=False))
    data = data.map(lambda row, place: {"photo": None} if place == 2 else {}, with_indices=True)
    data.cast_column("photo", hf.Image()).save_to_disk(tmp_path)
    with pytest.raises(InputError, match=rf"1 file cannot be read \({tmp_path}/train/2: "):
        load(tmp_path, val_fraction=0.5)


def test_pixels_that_are_kept_are_not_those_of_another_data_set_in_the_same_place(hf, tmp_path, monkeypatch):
    monkeypatch.setenv("CNNZOO_CACHE", str(tmp_path / "cache"))
    for name, labels in (("first", [0] * 6), ("second", [1] * 6)):
        data = rows(hf, labels).remove_columns("kind").add_column("kind", [0, 1, 2] * 2)
        data.cast_column("kind", rows(hf, [0]).features["kind"]).save_to_disk(tmp_path / name)
    (tmp_path / "first").rename(tmp_path / "set")
    first = load(tmp_path / "set").train.images.take(np.arange(3))
    shutil.rmtree(tmp_path / "set")
    (tmp_path / "second").rename(tmp_path / "set")
    second = load(tmp_path / "set").train.images.take(np.arange(3))
    assert (first.argmax(-1) == 0).all()
    assert (second.argmax(-1) == 1).all()


def test_a_folder_of_photos_through_their_library(hf, tmp_path, monkeypatch):
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for name, label in (("red", 0), ("green", 1)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "set" / name / f"{number}.png").write_bytes(photo(label))
    data = load(f"hf:{tmp_path / 'set'}")
    assert data.classes == ("green", "red")
    assert len(data.train) + len(data.val) == 8


def test_columns_that_are_missing_or_too_many_are_named(hf, tmp_path):
    rows(hf, [0, 1]).remove_columns("kind").save_to_disk(tmp_path / "a")
    with pytest.raises(InputError, match=r"a/train has no column of classes among photo; make one by"):
        load(tmp_path / "a")
    rows(hf, [0, 1], colour=hf.ClassLabel(num_classes=3)).save_to_disk(tmp_path / "b")
    with pytest.raises(InputError, match=r"b/train has several columns of classes \(kind, colour\); keep one by"):
        load(tmp_path / "b")


def test_a_damaged_row_is_named(hf, tmp_path):
    data = rows(hf, [0, 1, 2] * 2).cast_column("photo", hf.Image(decode=False))
    data = data.map(
        lambda row, place: {"photo": {"bytes": b"bad", "path": None}} if place == 2 else {}, with_indices=True
    )
    data.cast_column("photo", hf.Image()).save_to_disk(tmp_path)
    with pytest.raises(InputError, match=rf"1 file cannot be read \({tmp_path}/train/2: it is not an image"):
        load(tmp_path, val_fraction=0.5)


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "state.json").touch()
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert hugging_face.is_source(str(tmp_path))
    with pytest.raises(
        InputError, match=r'needs Hugging Face.s datasets, which pip install "cnnzoo\[datasets\]" brings'
    ):
        load(tmp_path)


def test_a_data_set_that_cannot_be_loaded_is_one_line(hf, tmp_path):
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(
        InputError, match=rf"data\.source {tmp_path} cannot be loaded by Hugging Face's datasets: "
    ) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_among_others_is_one_line(hf, tmp_path, monkeypatch):
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    rows(hf, [0, 1, 2] * 2).to_parquet(tmp_path / "set" / "train-0.parquet")
    (tmp_path / "set" / "train-1.parquet").write_bytes(b"bad")
    with pytest.raises(InputError, match=r"cannot be loaded by Hugging Face's datasets: .*[Pp]arquet") as caught:
        load(f"hf:{tmp_path / 'set'}")
    assert "\n" not in str(caught.value)


def test_a_data_set_without_a_split_is_told(hf, tmp_path):
    hf.DatasetDict({}).save_to_disk(tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path} holds nothing: it has no split"):
        load(tmp_path)
