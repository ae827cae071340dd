"""Files that appear whole or not at all."""

import os

import pytest

from cnnzoo import atomic


@pytest.fixture
def held(monkeypatch):
    """Renaming fails so many times, as on Windows while a virus scanner reads the file."""

    def fail(times: int, why: int) -> list[float]:
        replace, pauses = os.replace, []

        def refuse(part, path):
            if len(pauses) < times:
                error = PermissionError(13, "Permission denied")
                error.winerror = why
                raise error
            replace(part, path)

        monkeypatch.setattr(atomic.os, "replace", refuse)
        monkeypatch.setattr(atomic.time, "sleep", pauses.append)
        return pauses

    return fail


def test_who_holds_a_new_file_is_waited_for(tmp_path, held):
    pauses = held(3, 32)
    atomic.write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert pauses == [0.05, 0.1, 0.2]


def test_a_file_is_whole_on_the_disk_before_it_takes_anothers_place(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"old")
    synced, sync = [], os.fsync

    def watched(descriptor):
        sync(descriptor)
        synced.append((os.fstat(descriptor).st_size, (tmp_path / "file").read_bytes()))

    monkeypatch.setattr(os, "fsync", watched)
    atomic.write(tmp_path / "file", b"anew")
    assert synced == [(4, b"old")]


@pytest.mark.parametrize(("why", "waits"), [(32, 5), (None, 0)])
def test_a_file_that_cannot_be_replaced_is_named_and_stays(tmp_path, held, why, waits):
    (tmp_path / "file").write_bytes(b"old")
    pauses = held(100, why)
    with pytest.raises(PermissionError) as refused:
        atomic.write(tmp_path / "file", b"new")
    assert refused.value.filename == str(tmp_path / "file")
    assert len(pauses) == waits
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("file", b"old")]


@pytest.mark.parametrize("place", ["file/new", "file/folder/new"])
def test_where_a_file_is_in_the_way_it_is_named_rather_than_what_would_have_been_written(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises((FileExistsError, NotADirectoryError)) as refused:
        atomic.write(tmp_path / place, b"new")
    assert refused.value.filename == str((tmp_path / place).parent)
