"""From a command's signature and docstring to its parser."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from itertools import islice
from typing import get_origin

import docstring_parser

from cnnzoo import config as config_
from cnnzoo.config import Config, Parser
from cnnzoo.errors import unknown

SHARED = {  # what arguments mean in every command whose docstring says nothing else
    "json": "print JSON.",
    "device": "auto (CUDA, else MPS, else CPU), cpu, mps, cuda …",
    "pretrained": "weights for a net's name: nothing (the best known), a tag, a file or a run folder.",
    "run_or_model": "a run folder, a model.safetensors, or a net's name together with --pretrained.",
    "root": "where named data sets lie.",
    "model_or_run": "a run folder, a model.safetensors, or a net's name; without --pretrained its weights are random.",
    "images": "files, folders, or patterns in quotes.",
    "image": "a file.",
    "layer": "a stage or a module's path; by default the last stage that gives maps.",
    "seed": "of all that is random.",
    "out": "the picture to write.",
    "size": "the height and width that pictures are brought to; by default the net's own.",
    "class_": "the class whose evidence is asked for, by name or number; by default each image's most likely one.",
}

ANY_KEY = "Every key of a config is an option too, such as --data.size 128; cnnzoo train --help lists them."


def parser_of(name: str, function: Callable) -> Parser:
    """The parser of a command, from its signature and docstring."""
    doc = docstring_parser.parse(function.__doc__)
    help_of = SHARED | {param.arg_name: param.description for param in doc.params}
    parameters = inspect.signature(function).parameters
    parser = Parser(prog=f"cnnzoo {name}", description=doc.short_description)
    if "overrides" in parameters:
        parser.epilog = ANY_KEY if name != "train" else None
        parser.further = lambda: config_.parser().keys()
    for key, parameter in parameters.items():
        if key == "overrides":  # which keys_of_config has taken out
            continue
        kind, default = parameter.annotation, parameter.default
        about = {"help": help_of.get(key)}  # python -OO has no docstrings
        if parameter.kind is parameter.KEYWORD_ONLY:
            option = f"--{key.rstrip('_').replace('_', '-')}"  # class_ is --class
            about["dest"] = key
            if kind is bool:
                parser.add_argument(option, action="store_true", **about)
            elif kind == bool | str:
                parser.add_argument(
                    option, nargs="?", const=True, default=default, type=kind, metavar="WEIGHTS", **about
                )
            elif default is parameter.empty:
                parser.add_argument(option, type=kind, required=True, **about)
            else:
                parser.add_argument(option, type=kind, default=default, **about)
        elif get_origin(kind) is list:
            nargs = {"nargs": "+"} if default is parameter.empty else {"nargs": "*", "default": list(default)}
            parser.add_argument(key, type=kind.__args__[0], **nargs, **about)
        elif default is parameter.empty:
            parser.add_argument(key, type=kind, **about)
        else:
            parser.add_argument(key, type=kind, nargs="?", default=default, **about)
    return parser


def keys_of_config(arguments: Sequence[str], function: Callable) -> tuple[list[str], list[str]]:
    """A command's own arguments, and those that set a key of the config: --section.key VALUE or --section.key=VALUE,
    or a section alone that the command has no option of its own for, as --model NAME.
    """
    sections = {field.name for field in fields(Config)} - inspect.signature(function).parameters.keys()
    own, keys = [], []
    waiting = iter(arguments)
    for word in waiting:
        name, equals, _ = word.partition("=")
        if not (name.startswith("--") and ("." in name or name[2:] in sections)):
            own.append(word)
        else:
            keys += [word] if equals else [word, *islice(waiting, 1)]
    return own, keys


def one_of(commands: Mapping[str, Callable], group: str, options: Sequence[str]) -> None:
    """Run one of the commands that `cnnzoo GROUP` has of its own."""
    if not options or options[0] in ("-h", "--help"):
        print(overview(commands, f"cnnzoo {group}"))
    elif options[0] not in commands:
        raise unknown(f"command of cnnzoo {group}", options[0], commands)
    else:
        function = commands[options[0]]
        function(**vars(parser_of(f"{group} {options[0]}", function).parse_args(options[1:])))


def overview(commands: Mapping[str, Callable], prefix: str) -> str:
    width = max(map(len, commands))
    lines = [
        f"  {name:<{width}}  {docstring_parser.parse(function.__doc__).short_description or ''}"
        for name, function in commands.items()
    ]
    return "\n".join([f"usage: {prefix} COMMAND …        ({prefix} COMMAND --help tells more)", "", *lines])
