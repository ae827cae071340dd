"""The library's parser, whose every complaint is one clear line."""

import math
import os
import re
from argparse import SUPPRESS
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from cnnzoo.errors import InputError, did_you_mean, near, quoted, unknown
from cnnzoo.habits import OPTIONS

MAIN = {"model": "name", "data": "source"}  # the key that is meant where a section is given as a word: model: NAME
FOREMOST = {**MAIN, "optim": "name", "schedule": "name", "loss": "name", "augment": "policy"}  # told as an example
USES = {  # of keys, by what a word is that was given without one
    "config": "a config file",
    "model": "a net",
    "data": "a folder of images or a data set",
    "against": "a run to compare with",
}


class Parser(ArgumentParser):
    """jsonargparse's parser, whose every complaint is one clear line.

    `further` gives keys that are set elsewhere, and that a misspelt one may have meant.
    """

    further: Callable[[], Sequence[str]] = staticmethod(tuple)

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)  # or half a key, which may mean another, would set something
        self._given: Sequence[str] = ()

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Namespace:
        self._given = args or ()
        parsed = super().parse_args(args, *more, **options)
        refuse_giants(parsed)
        return parsed

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(self._explain(message))

    def keys(self) -> list[str]:
        """Every key that a file or the command line may set."""
        options = [
            option[2:]
            for action in self._actions
            for option in action.option_strings
            if option.startswith("--") and action.help != SUPPRESS  # such as jsonargparse's own --print_shtab
        ]
        options = [option for option in options if not option.endswith(("help", "+"))]
        groups = {option.rpartition(".")[0] for option in options} - MAIN.keys()
        return [option for option in options if option not in groups]

    def _explain(self, message: str) -> str:
        for word in takewhile(lambda word: word != "--", self._given):
            if word.startswith("-") and word not in self._option_string_actions and os.path.exists(word):
                return f"{word} is taken for an option; as a file it is called {os.path.join('.', word)}"
        if "\n" in message and (
            inner := re.search(r"^.*(?:unknown key|but must be|are required).*$", message, re.MULTILINE)
        ):
            key = re.search(r"[Pp]arser key \"([\w.]+)\"", message)  # the dataclasses of a list speak first
            return f"in {key[1]}: {inner[0].strip(' -').replace(': --', ': ')}" if key else inner[0].strip(" -")
        if "Unexpected config" in message:
            return "it holds no sections with keys, such as train: {epochs: 5}"
        if match := re.search(r"Parser key \"(\w+)\":\s*Unable to load config \"(.*)\"", message):
            return no_section(*match.groups())
        if match := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
            return self._unknown_key(f"{match[1]}.{match[2]}")
        if match := re.search(r"[Pp]arser key \"([\w.]+)\".*?NestedArg\(key='([\w.]+)'", message, re.DOTALL):
            return self._unknown_key(f"{match[1]}.{match[2]}")
        if match := re.search(r"unrecognized arguments: (.*)", message, re.DOTALL):
            words = match[1].split()
            option = next((word for word in words if word.startswith("-")), None)
            return self._unknown_key(option) if option else self._unexpected(words[0])
        if match := re.search(r"argument (--[\w.-]+)\S*: expected (?:one|at least one) argument", message):
            return f"{match[1]} needs a value; --help tells which"
        if match := re.search(r"arguments are required: (.*)", message):
            options = self._option_string_actions
            missing = (f"--{name}" if f"--{name}" in options else name for name in match[1].split(", "))
            swallows = "; what follows --pretrained is taken for the weights, so put that last"
            hint = swallows if "--pretrained" in self._given else ""
            return f"the following arguments are required: {', '.join(missing)}{hint}"
        if match := re.search(r"(?:[Oo]ption|Key) '([\w.]+)' is not (?:accepted|expected)", message):
            inside = re.search(r"[Pp]arser key \"([\w.]+)\"", message)
            return self._unknown_key(f"{inside[1]}.{match[1]}" if inside else match[1])
        if match := re.search(r"[Pp]arser key \"([\w.]+)\":\s*(.*)", message, re.DOTALL):
            key, problem = match[1], match[2]
            value = re.search(r"(?:Got value|Given value): (.*?)(?:\n|$)", problem)
            if value:
                wanted = self.wanted(key, problem)
                return f"{key} is {value[1]}, but must be {wanted}{did_you_mean(value[1], wanted.split(' or '))}"
            return " ".join(problem.split())
        return " ".join(message.replace('in "<unicode string>", ', "").split())

    def _unknown_key(self, key: str) -> str:
        key = key.lstrip("-").partition("=")[0]
        section, _, name = key.rpartition(".")
        others = OPTIONS.get(name.replace("_", "-"), "").split(" or ")
        if meant := next((meant for meant in others if meant in {*self.keys(), *self.further()}), None):
            return f"unknown key {key!r}; here it is {meant}"
        for keys in (self.keys(), self.further()):
            last = [known.rpartition(".")[2] for known in keys]
            meant = [name] if name in last else [] if section else near(name, last, 1)
            if namesakes := [known for known, name in zip(keys, last, strict=True) if name in meant]:
                return f"unknown key {key!r}; did you mean {' or '.join(namesakes)}?"
        return str(unknown("key", key, [*self.keys(), *self.further()]))

    def _unexpected(self, word: str) -> str:
        """What to say of a word that no option takes."""
        keys = [*self.keys(), *MAIN.keys() & self.further()]
        known = [f"{what} is named by --{key}" for key, what in USES.items() if key in keys]
        if any(action.dest == "image" for action in self._actions):
            known.insert(0, f"{self.prog} takes one picture")
        return "; ".join([f"unexpected word {word!r}", *known])

    def wanted(self, key: str, problem: str = "") -> str:
        """The type of a key in words."""
        action = next((action for action in self._actions if action.dest == key), None)
        kind = str(getattr(action, "_typehint", None) or re.search(r"Expected an? (.*?)\. Got", problem)[1])
        kind = re.sub(r"<class '([\w.]+)'>", r"\1", kind)
        kind = re.sub(r"(typing|cnnzoo\.config\.sections)\.", "", kind)
        kind = re.sub(r"Optional\[(.*)\]", r"\1 | None", kind)
        kind = re.sub(r"Union\[(.*)\]", lambda m: m[1].replace(", ", " | "), kind)
        kind = re.sub(r"list\[Literal\[(.*?)\]\]", lambda m: f"a list of any of {m[1]}".replace("'", ""), kind)
        kind = re.sub(r"Literal\[(.*?)\]", lambda m: m[1].replace("'", "").replace(", ", " | "), kind)
        words = {
            "int": "a whole number",
            "float": "a number",
            "bool": "true or false",
            "str": "text",
            "None": "null",
            "NoneType": "null",
        }
        words |= {
            "list[float]": "a list of numbers",
            "tuple[float, float]": "two numbers [a, b]",
            "list[PhaseConfig]": "a list of phases",
            "list[str]": "a list of texts [a, b]",
            "dict[str, float]": "names with numbers {a: 1, b: 2}",
            "dict[str, Any]": "names with values {a: 1, b: 2}",
        }
        return " or ".join(words.get(part, part) for part in kind.split(" | "))


def refuse_giants(parsed: Namespace) -> None:
    """Raises InputError for what is infinite or no number, and for a whole number that takes more than 64 bits."""
    for key, whole in parsed.items():
        for value in _within(whole):
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{key} is {value}, but must be a number")
            if isinstance(value, int) and not abs(value) < 2**63:
                raise InputError(f"{key} is {value}, but must be a number below 2**63")


def _within(value: object) -> Iterator[object]:
    """What a value is made of: itself, or all that its lists, mappings and phases hold."""
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _within(item)
    else:
        yield value


def no_section(key: str, value: object) -> str:
    such = f", such as {key}.{FOREMOST[key]}" if key in FOREMOST else ""
    given = value if isinstance(value, str) else quoted(value)
    return f"{key} is {given}, but must be a section of keys{such}"
