"""Commands told to be copied, and those given as a text, as the shell of the machine has them."""

import pytest

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
