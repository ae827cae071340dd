"""A config from a file, from the command line and as text."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import yaml
from jsonargparse import Namespace

from cnnzoo.config.parser import MAIN, Parser, no_section
from cnnzoo.config.sections import Config, plain
from cnnzoo.errors import InputError, did_you_mean


def dump(config: Config) -> str:
    """The complete config as YAML, in the order of the dataclasses."""
    return yaml.safe_dump(plain(dataclasses.asdict(config)), sort_keys=False)


@cache  # making it takes longer than reading a config
def parser() -> Parser:
    """The parser of a config: `--config FILE`, and `--section.key VALUE` for every key."""
    parser = Parser()
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Config)
    return parser


def read(source: str | Path | Mapping | None = None, overrides: Sequence[str] = ()) -> Config:
    """The config in a YAML file or a mapping like it (None: the defaults), overridden by `--optim.lr=1e-3` and such;
    `model` and `data` may be a name alone.

    Raises InputError for an unknown key, naming the nearest known one, and for a value of the wrong type or out of
    range.
    """
    overrides = _spelt_out(overrides)
    if source is None:
        return _build(lambda reader: reader.parse_args(overrides))
    if isinstance(source, Mapping):
        whole = {key: {MAIN[key]: value} if _names(key, value) else value for key, value in plain(source).items()}
        config = _build(lambda reader: reader.parse_object(whole))
        text = dump(config) if overrides else ""
    else:
        # As a text: a file that it is to open itself makes jsonargparse move the whole process to that file's folder.
        text = _text(Path(source))
        try:
            config = _build(lambda reader: reader.parse_string(text))
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
    return _build(lambda reader: reader.parse_args(["--config", text, *overrides])) if overrides else config


def _names(section: str, value: object) -> bool:
    return section in MAIN and isinstance(value, str) and not value.startswith("{")


def _spelt_out(words: Sequence[str]) -> list[str]:
    """Options, of which --model NAME is short for --model.name NAME, and --data SOURCE for --data.source SOURCE."""
    words = list(words)
    for place, word in enumerate(words):
        option, equals, value = word.partition("=")
        if _names(option[2:], value if equals else " ".join(words[place + 1 : place + 2])):
            words[place] = f"{option}.{MAIN[option[2:]]}{equals}{value}"
    return words


def _text(file: Path) -> str:
    if not file.is_file():
        meant = did_you_mean(str(file), map(str, file.parent.glob("*.y*ml")))
        raise InputError(f"there is no config file {file}{f'; {meant}' if meant else ''}")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{file} is no text") from None


def _build(parse: Callable[[Parser], Namespace]) -> Config:
    reader = parser()
    try:
        parsed = parse(reader)
        for key, value in vars(parsed).items():
            absent = value is None and key == "ensemble"
            if key not in ("config", "run") and not (absent or isinstance(value, Namespace)):
                raise InputError(no_section(key, "null" if value is None else value))
        values = reader.instantiate(parsed)
    except InputError:
        raise
    except ValueError as error:  # a list of dataclasses is only checked when it is built
        reader.error(str(error))
    return Config(**{name.name: getattr(values, name.name) for name in dataclasses.fields(Config)})
