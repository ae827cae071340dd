"""README and docs name only what there is: commands, options, keys of a config, functions."""

import re
from functools import reduce
from importlib import import_module
from pathlib import Path

import pytest

import cnnzoo
from cnnzoo import config
from cnnzoo.cli import COMMANDS
from cnnzoo.cli.parsing import parser_of
from cnnzoo.cli.visualize import VISUALIZE
from cnnzoo.cli.weights import WEIGHTS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GROUPS = {"weights": WEIGHTS, "visualize": VISUALIZE}
KEYS = set(config.parser().keys())


def commands(text: str) -> list[str]:
    """What follows `cnnzoo` in code, on a line of a console or within backticks, up to a comment or what it printed."""
    code = re.findall(r"^(?:\$| {4}) ?cnnzoo (.*?)(?: {2,}.*)?$", text, re.MULTILINE)
    return [words.partition(" #")[0] for words in [*code, *re.findall(r"`cnnzoo ([^`]*)`", text)]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page):
    for words in map(str.split, commands(page.read_text())):
        if not words or words[0] not in COMMANDS:
            assert not words or not re.fullmatch(r"[a-z-]+", words[0]), words
            continue
        name, function = words[0], COMMANDS[words[0]]
        if name in GROUPS:
            if len(words) == 1 or words[1] not in GROUPS[name]:
                continue
            name, function = f"{name} {words[1]}", GROUPS[name][words[1]]
        known = {option for action in parser_of(name, function)._actions for option in action.option_strings}
        takes_keys = "overrides" in function.__annotations__ or hasattr(parser_of(name, function), "further")
        for option in re.findall(r"(?<=\s)--[\w.-]+", " ".join(words)):
            key = option.removeprefix("--").rstrip(".")
            is_key = takes_keys and (key in KEYS or any(known.startswith(f"{key}.") for known in KEYS))
            assert option in known or is_key, f"{page.name}: cnnzoo {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_keys_of_a_config_exist(page):
    sections = {key.partition(".")[0] for key in KEYS if "." in key}
    named = re.findall(rf"--((?:{'|'.join(sections)})\.[a-z_]+)", page.read_text())
    assert {key for key in named if key not in KEYS} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_functions_exist(page):
    for path in set(re.findall(r"\bcnnzoo\.((?:[a-z_]+\.)*[A-Za-z_]+)\(", page.read_text())):
        try:
            reduce(getattr, path.split("."), cnnzoo)
        except AttributeError:
            module, _, name = path.rpartition(".")
            assert hasattr(import_module(f"cnnzoo.{module}"), name), path
