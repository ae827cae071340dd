"""A config from a file, from the command line and as text."""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from functools import cache
from pathlib import Path
from types import NoneType

import yaml
from jsonargparse import Namespace

from cnnzoo.config.parser import MAIN, Parser, no_section, refuse_giants
from cnnzoo.config.sections import Config, plain
from cnnzoo.errors import InputError, did_you_mean, expect, quoted
from cnnzoo.paths import expanded
from cnnzoo.telling import words_typed


class _Dumper(yaml.SafeDumper):
    """Quotes texts such as 1e5, a folder's name, say, which the parser would read as numbers."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[\d.]+e[-+]?\d+$", re.IGNORECASE), None)


def dump(config: Config) -> str:
    """The complete config as YAML, in the order of the dataclasses."""
    return yaml.dump(plain(dataclasses.asdict(config)), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


@cache  # making it takes longer than reading a config
def parser() -> Parser:
    """The parser of a config: `--config FILE`, and `--section.key VALUE` for every key."""
    parser = Parser()
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Config)
    return parser


Overrides = Mapping | str | Sequence[str]  # {"optim.lr": 1e-3}, "--optim.lr 1e-3" or ["--optim.lr", "1e-3"]


def read(source: Config | str | Path | Mapping | None = None, overrides: Overrides = ()) -> Config:
    """The config in a YAML file or a mapping like it (None: the defaults; a config: itself), overridden by another
    mapping, whose keys may be dotted, or by words as on a command line; `model` and `data` may be a name alone.

    Raises InputError for an unknown key, naming the nearest known one, and for a value of the wrong type or out of
    range.
    """
    expect(source, (Config, Mapping, str, os.PathLike, NoneType), "a config is a mapping of sections, or a YAML file")
    overrides = _spelt_out(_words(overrides or ()))
    if source is None:
        return _build(lambda reader: reader.parse_args(overrides))
    if isinstance(source, Config):
        if not overrides:
            return source
        source = dataclasses.asdict(source)
    if isinstance(source, Mapping):
        whole = {key: {MAIN[key]: value} if _names(key, value) else value for key, value in plain(source).items()}
        _refuse_images(whole.get("data"))
        config = _build(lambda reader: reader.parse_object(whole))
        text = dump(config) if overrides else ""
    else:
        # As a text: a file that it is to open itself makes jsonargparse move the whole process to that file's folder.
        text = _text(expanded(source))
        try:
            text = _with_sections(text)
            config = _build(lambda reader: reader.parse_string(text))
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
    return _build(lambda reader: reader.parse_args(["--config", text, *overrides])) if overrides else config


def _refuse_images(data: object) -> None:
    """Raises InputError for images, or a table of them, where their name is wanted."""
    images = data.get("source") if isinstance(data, Mapping) else data
    if isinstance(images, Sized) and not isinstance(images, str):
        way = "give images of your own a name by cnnzoo.register_data(name, images, labels)"
        raise InputError(f"data.source is {quoted(images)}, but must be text; {way}")


def _words(overrides: Overrides) -> list[str]:
    """Overrides as a command line has them. Raises InputError that shows the right form."""
    if isinstance(overrides, Mapping):
        leaves = _leaves(overrides)
        return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in leaves]
    wrong = f'overrides are {{"data.size": 128}}, "--data.size 128" or ["--data.size=128"], not {quoted(overrides)}'
    try:
        words = words_typed(overrides) if isinstance(overrides, str) else [*map(str, overrides)]
    except (TypeError, ValueError):  # no words, or a quote that does not end
        raise InputError(wrong) from None
    waiting = iter(words)
    for word in waiting:
        if not re.match(r"--[\w.]+\+?(=|$)", word):
            raise InputError(wrong)
        if "=" not in word:
            next(waiting, None)  # its value
    return words


def _leaves(values: Mapping, section: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys and their values, of a mapping whose sections may be mappings too."""
    for key, value in plain(values).items():
        if isinstance(value, Mapping) and not section and "." not in str(key):
            yield from _leaves(value, f"{key}.")
        else:
            yield f"{section}{key}", value


def _with_sections(text: str) -> str:
    """YAML in which `model: NAME` is written as a section. Raises InputError for a key that stands twice, of which YAML
    would silently take the last.
    """
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:
        return text  # which the parser complains of
    nodes = [root]
    for node in nodes:
        if isinstance(node, yaml.MappingNode):
            keys = [str(key.value) for key, _ in node.value]
            if twice := next((key for key in keys if keys.count(key) > 1), None):
                lines = [str(key.start_mark.line + 1) for key, _ in node.value if key.value == twice]
                raise InputError(f"{twice} stands {len(lines)} times, in lines {', '.join(lines)}; make one of them")
            nodes += [value for _, value in node.value if value not in nodes]
        elif isinstance(node, yaml.SequenceNode):
            nodes += [item for item in node.value if item not in nodes]
    if not isinstance(root, yaml.MappingNode):
        return text
    written = [(key, _section(key.value, value)) for key, value in root.value]
    if written == root.value:
        return text
    root.value = written
    return yaml.serialize(root)


def _section(key: str, value: yaml.Node) -> yaml.Node:
    if not (isinstance(value, yaml.ScalarNode) and value.tag.endswith(":str") and _names(key, value.value)):
        return value
    name = yaml.ScalarNode("tag:yaml.org,2002:str", MAIN[key])
    return yaml.MappingNode("tag:yaml.org,2002:map", [(name, value)])


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
        if file.is_dir():
            such = ", ".join(map(str, sorted(file.glob("*.y*ml"))[:3]))
            raise InputError(f"{file} is a folder, but a config file is wanted{f', such as {such}' if such else ''}")
        beside = map(str, file.parent.glob("*.y*ml"))
        raise InputError(f"there is no config file {file}{did_you_mean(str(file), beside)}")
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
        for key, value in parsed.items():
            may_be_null = key in ("config", "run") or key.startswith("ensemble")
            if value is None and not may_be_null and "null" not in (wanted := reader.wanted(key)):
                raise InputError(f"{key} is null, but must be {wanted}; leave it out for its default")
        values = reader.instantiate(parsed)
        refuse_giants(parsed)
    except InputError:
        raise
    except ValueError as error:  # a list of dataclasses is only checked when it is built
        reader.error(str(error))
    return Config(**{name.name: getattr(values, name.name) for name in dataclasses.fields(Config)})
