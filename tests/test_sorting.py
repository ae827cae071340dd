"""Photos sorted into a folder for each class that a net names."""

import errno
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import photos
import pytest

import cnnzoo
from cnnzoo.errors import InputError
from cnnzoo.sorting import sort


@pytest.fixture
def folder(tmp_path) -> Path:
    return photos.folder(tmp_path / "photos", each=2)


@pytest.fixture(scope="module")
def net():
    net = cnnzoo.create("resnet20", num_classes=3).eval()
    net.classes = photos.KINDS
    return net


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_each_photo_is_copied_to_its_class_and_stays_where_it_is(tmp_path):
    given = [tmp_path / "a" / "x.jpg", tmp_path / "b" / "x.jpg", tmp_path / "c" / "X.JPG"]
    for file in given:
        file.parent.mkdir()
        file.write_text(file.parent.name)
    told = sort(
        [*((str(file), "ant") for file in given), (str(given[0]), "bee"), (str(given[0]), None)], tmp_path / "new"
    )
    assert files(tmp_path / "new") == ["ant/X_3.JPG", "ant/x.jpg", "ant/x_2.jpg", "bee/x.jpg"]
    copies = [tmp_path / "new" / "ant" / name for name in ("x.jpg", "x_2.jpg", "X_3.JPG")]
    assert [copy.read_text() for copy in copies] == ["a", "b", "c"]
    assert all(file.exists() for file in given)
    assert (told.copied, told.left_out) == ({"ant": 3, "bee": 1}, 1)
    assert str(told) == (f"4 photos copied to {tmp_path / 'new'} (ant 3, bee 1); 1 left out: unsure, or not to be read")


@pytest.mark.parametrize(("many", "told"), [(12, ", ".join(f"c{n} 1" for n in range(12))), (13, "13 classes")])
def test_so_many_classes_are_named_as_a_line_can_take(tmp_path, many, told):
    (tmp_path / "x.jpg").touch()
    done = sort([(str(tmp_path / "x.jpg"), f"c{n}") for n in range(many)], tmp_path / "new")
    assert str(done) == f"{many} photos copied to {tmp_path / 'new'} ({told})"


def test_a_link_to_an_empty_folder_stays_one_and_the_folder_is_filled(tmp_path):
    (tmp_path / "x.jpg").touch()
    (tmp_path / "disk").mkdir()
    (tmp_path / "new").symlink_to(tmp_path / "disk")
    sort([(str(tmp_path / "x.jpg"), "ant")], tmp_path / "new")
    assert (tmp_path / "new").is_symlink()
    assert files(tmp_path / "disk") == ["ant/x.jpg"]


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("ant/bee", "ant_bee"),
        ("..", "_"),
        (".hidden", "hidden"),
        ('a:"b"?', "a__b__"),
        ("ant.", "ant"),
        ("Con", "Con_"),
        ("\n", "_"),
    ],
)
def test_a_class_has_a_folder_that_every_system_can_have_and_none_passes_over(name, called, tmp_path):
    photos.picture(0, 0).save(tmp_path / "x.png")
    sort([(str(tmp_path / "x.png"), name)], tmp_path / "new")
    assert files(tmp_path / "new") == [f"{called}/x.png"]


def test_classes_that_differ_by_less_than_a_folders_name_stay_apart(tmp_path):
    photos.picture(0, 0).save(tmp_path / "x.png")
    sort([(str(tmp_path / "x.png"), name) for name in ("a/b", "a_b", "A_B")], tmp_path / "new")
    assert files(tmp_path / "new") == ["A_B/x.png", "a_b_2/x.png", "a_b_3/x.png"]


def test_answers_are_sorted_as_they_are_named(net, folder, tmp_path):
    (folder / "red" / "broken.png").write_text("no picture")
    answers = cnnzoo.predict(net, folder)
    told = answers.sort(tmp_path / "new")
    assert told.left_out == 1
    names = [name for name in answers.named if name]
    assert told.copied == {name: names.count(name) for name in set(names)}
    assert len(files(tmp_path / "new")) == 6
    assert cnnzoo.predict(net, folder, min_confidence=1.0).named == [None] * 7


def test_the_command_sorts_and_leaves_a_folder_to_train_on(cli, net, folder, tmp_path):
    weights = photos.weights(tmp_path / "net.pth")
    code, out, _ = cli("predict", "resnet20", folder, "--pretrained", weights, "--sort", tmp_path / "new")
    named = cnnzoo.predict("resnet20", folder, pretrained=weights).named
    assert code == 0
    assert out.startswith(f"6 photos copied to {tmp_path / 'new'} (")
    assert len(out.splitlines()) == 1
    assert {file.partition("/")[0] for file in files(tmp_path / "new")} == set(named)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are texts")
def test_any_bytes_may_be_a_photos_name(cli, folder, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    photos.picture(0, 0).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(folder / name)
    weights = photos.weights(tmp_path / "net.pth")
    code, out, _ = cli("predict", "resnet20", folder, "--pretrained", weights, "--sort", tmp_path / "new")
    assert (code, out[:8]) == (0, "7 photos")
    assert [copy.name for copy in (tmp_path / "new").rglob("caf*")] == [name]


@pytest.mark.parametrize(
    ("dest", "words"),
    [
        ("photos/sorted", "lies within"),
        ("photos/red", "lies within"),
        ("full", "full exists already; copies need a new folder"),
        ("file.txt", "file.txt exists already"),
    ],
)
def test_where_there_is_no_room_is_told_before_any_work(dest, words, fails, folder, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "file.txt").touch()
    line = fails("predict", "resnet20", folder, "--pretrained", tmp_path / "none.pth", "--sort", tmp_path / dest)
    assert words in line
    assert (tmp_path / "full" / "mine.txt").exists()


def test_what_cannot_be_sorted_is_told(net, folder, tmp_path):
    with pytest.raises(InputError, match="no photo has an answer to rely on, so there is nothing to copy"):
        cnnzoo.predict(net, folder, min_confidence=1.0).sort(tmp_path / "new")
    with pytest.raises(InputError, match="is no file, so it cannot be copied"):
        cnnzoo.predict(net, np.zeros((32, 32, 3), np.uint8)).sort(tmp_path / "new")
    with pytest.raises(InputError, match="copies are made in a folder, not 3"):
        cnnzoo.predict(net, folder).sort(3)
    assert not (tmp_path / "new").exists()


def test_a_disk_that_fills_leaves_nothing_half_sorted(net, folder, tmp_path, monkeypatch):
    answers = cnnzoo.predict(net, folder)

    def copy(source: str, dest: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(dest))

    monkeypatch.setattr(shutil, "copy2", copy)
    with pytest.raises(InputError, match="could not be filled and was not made: No space left on device"):
        answers.sort(tmp_path / "new")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["photos"]
