"""Commands told to be copied, and those given as a text, as the shell of the machine has them."""

import sys

import photos
import pytest

import cnnzoo
from cnnzoo.config import AugmentConfig, DataConfig
from cnnzoo.data import sources
from cnnzoo.errors import InputError, printable
from cnnzoo.telling import as_typed, words_typed

WORDS = ["cnnzoo", "probe", r"C:\my photos", "it's 日本", "--fix", "R&D", ""]


@pytest.mark.parametrize("windows", [False, True])
def test_a_command_that_is_told_can_be_typed(windows):
    assert words_typed(as_typed(*WORDS, windows=windows), windows) == WORDS


def test_windows_knows_no_single_quotes_and_no_escapes():
    assert as_typed("cnnzoo", "probe", r"C:\my photos", windows=True) == r'cnnzoo probe "C:\my photos"'
    assert as_typed("R&D", r"C:\photos", windows=True) == r'"R&D" C:\photos'
    assert words_typed(r'--data.source "C:\my photos" --run C:\r', windows=True)[1::2] == [r"C:\my photos", r"C:\r"]
    assert words_typed(r"--data.source my\ photos", windows=False)[1:] == ["my photos"]


def test_a_name_that_the_locale_could_not_decode_is_told_as_utf8():
    """Twice, too: under LC_ALL=C a class name that had been read as UTF-8 could not be told once more."""
    undecoded = "日本".encode().decode("ascii", "surrogateescape")
    assert printable(undecoded) == printable(printable(undecoded)) == "日本"
    assert printable("caf\udce9") == "caf\ufffd"


@pytest.mark.parametrize(("key", "config"), [("run", {"run": "caf\udce9"}), ("data.source", {"data": "caf\udce9"})])
def test_what_no_config_can_name_is_told_in_one_line(tmp_path, monkeypatch, key, config):
    """A config.yaml with half of a letter could not be read again."""
    monkeypatch.chdir(tmp_path)
    photos.folder(tmp_path / "caf\udce9", each=2)
    message = f"^{key} is caf\ufffd, whose name is no {sys.getfilesystemencoding()}; rename it, or set PYTHONUTF8=1$"
    with pytest.raises(InputError, match=message):
        cnnzoo.train({"model": "resnet20", **config}, tell=len)


def test_photos_in_a_folder_of_such_a_name_are_decoded_once_all_the_same(tmp_path):
    photos.folder(tmp_path / "caf\udce9", each=2)
    config = DataConfig(str(tmp_path / "caf\udce9"))
    assert len(sources.load(config, AugmentConfig(crop=None), 8).train) == 3
