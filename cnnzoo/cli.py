"""The command line: commands, printing and exit codes, all here and only here.

Commands are typed functions: what stands before `*` is given by place, what stands after it by `--name`.
Exit codes: 0 done; 2 wrong input, told in one line; 130 and 143 Ctrl-C and SIGTERM, after saving.
"""

import argparse
import dataclasses
import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import get_origin

import docstring_parser

from cnnzoo import __version__
from cnnzoo import config as config_
from cnnzoo.config import Parser
from cnnzoo.errors import InputError, Interrupted, unknown


def list_(pattern: str = "*", *, pretrained: bool = False, json: bool = False) -> None:
    """Name the nets.

    Args:
        pattern: a wildcard pattern, such as 'resnet*'.
        pretrained: only those for which the world has trained weights.
        json: print JSON.
    """
    from cnnzoo import zoo

    names = zoo.list_models(pattern, pretrained=pretrained)
    if not names:
        raise InputError(f"no model matches {pattern!r}; cnnzoo list names all {len(zoo.list_models())}")
    print(dumps(names) if json else "\n".join(names))


def info(name: str, *, json: bool = False) -> None:
    """Tell what is known of a net: paper, size, cost, stages, differences from the paper.

    Args:
        name: the net, see cnnzoo list.
        json: print JSON.
    """
    from cnnzoo import zoo

    entry = zoo.info(name)
    if json:
        print(
            dumps(
                {key: value for key, value in vars(entry).items() if key != "build"},
                indent=2,
                default=dataclasses.asdict,
            )
        )
        return
    print(entry.name)
    print(f"  paper       {entry.paper or 'not said'}")
    print(
        f"  input       {_times(entry.input_size)}, at least {entry.min_size}x{entry.min_size}; "
        f"{entry.num_classes:,} classes"
    )
    if entry.params is not None:
        print(f"  parameters  {entry.params:,}")
        print(f"  mult-adds   {entry.macs:,}")
    for stage in entry.stages:
        ends = dict.fromkeys((stage.modules[0], stage.modules[-1]))
        print(f"  {stage.name:<10}  {_times(stage.shape):<12}  {' … '.join(ends)}")
    print(f"  {'head':<10}  {entry.num_classes:<12}  {entry.head}")
    print(f"  differences from the paper: {'' if entry.differences else 'none known'}")
    for number, difference in enumerate(entry.differences, start=1):
        print(f"    {number}. {difference}")


def summary(name: str, *, input: str | None = None, csv: bool = False, markdown: bool = False) -> None:
    """Print the layer table of a net: output shapes, parameters, multiply-adds, activations.

    Args:
        name: the net, see cnnzoo list.
        input: an image's channels, height and width, such as 3,224,224; the net's own by default.
        csv: print CSV.
        markdown: print Markdown.
    """
    import cnnzoo

    try:
        size = tuple(int(number) for number in input.split(",")) if input else None
    except ValueError:
        size = ()
    if size is not None and (len(size) != 3 or min(size) < 1):
        raise InputError(f"--input is {input}, but must be three whole numbers such as 3,224,224")
    table = cnnzoo.summary(name, size)
    print(table.to_csv() if csv else table.to_markdown() if markdown else table, end="" if csv else "\n")


def train(options: Sequence[str]) -> None:
    """Train a net and leave a run folder. Options are those of the config, see --help."""
    from cnnzoo import run

    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    first.add_argument("--resume")
    arguments, overrides = first.parse_known_args(options)
    resume = arguments.resume
    if "-h" in overrides or "--help" in overrides:
        parser = config_.parser()
        parser.add_argument(
            "--resume",
            metavar="RUN",
            help="a run folder to go on with, or auto: the config's own folder where it holds a run",
        )
        parser.parse_args(overrides)
    base = arguments.config
    if base is None and resume not in (None, "auto"):
        base = run.Run.open(resume).config_file
    config = config_.read(base, overrides)
    with stop_on_signals() as caught:
        try:
            run.train(config, resume=resume, tell=tell, should_stop=lambda: bool(caught))
        except Interrupted:
            folder = config.folder if resume in (None, "auto") else resume
            tell(f"stopped by {caught[0].name} and saved; go on by: cnnzoo train --resume {folder}")
            sys.exit(128 + caught[0])


def evaluate(
    run_or_model: str,
    *,
    data: str | None = None,
    pretrained: bool | str = False,
    root: str | None = None,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Judge a trained net on images it was not trained on: top-1, top-5, loss, and each class's precision and recall.

    Args:
        run_or_model: a run folder, a model.safetensors, or a net's name together with --pretrained.
        data: a data set's name or a folder; by default what the run was validated on.
        pretrained: weights for a net's name: nothing (the best known), a tag, a file or a run folder.
        root: where named data sets lie.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
        json: print JSON.
    """
    import cnnzoo

    result = cnnzoo.evaluate(run_or_model, data, pretrained=pretrained, root=root, device=device)
    print(dumps(result.to_dict()) if json else result)


def predict(
    run_or_model: str,
    images: list[str],
    *,
    pretrained: bool | str = False,
    out: str | None = None,
    top: int = 5,
    batch_size: int = 64,
    device: str = "auto",
) -> None:
    """Name what is in images. A file that cannot be read keeps its row and says why.

    Args:
        run_or_model: a run folder, a model.safetensors, or a net's name together with --pretrained.
        images: files, or folders of them.
        pretrained: weights for a net's name: nothing (the best known), a tag, a file or a run folder.
        out: write a CSV with the columns file, top1 …, prob1 …, error instead of printing a table.
        top: how many classes to name.
        batch_size: images to a forward pass.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …
    """
    import cnnzoo
    from cnnzoo import checkpoint
    from cnnzoo.evaluate import open_net

    for option, value in (("--top", top), ("--batch-size", batch_size)):
        if value < 1:
            raise InputError(f"{option} is {value}, but must be at least 1")
    net, _ = open_net(run_or_model, pretrained)
    result = cnnzoo.predict(net, images, batch_size=batch_size, device=device)
    if out:
        checkpoint.write(Path(out), result.to_csv(top).encode())
        print(f"{len(result):,} rows in {out}")
    else:
        width = max(map(len, result.files))
        for file, best, error in zip(result.files, result.top(top), result.errors, strict=True):
            print(f"{file:<{width}}  {error or '  '.join(f'{name} {probability:.1%}' for name, probability in best)}")
    unread = [f"{file}: {error}" for file, error in zip(result.files, result.errors, strict=True) if error]
    if len(unread) == len(result):
        raise InputError(f"no image could be read ({'; '.join(unread[:3])})")
    if unread:
        print(f"{len(unread)} of {len(result)} images could not be read", file=sys.stderr)


def report(run: str) -> None:
    """Make a run's report.html anew.

    Args:
        run: the run folder.
    """
    from cnnzoo import run as run_

    print(run_.write_report(run_.Run.open(run)))


COMMANDS: dict[str, Callable] = {
    "list": list_,
    "info": info,
    "summary": summary,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "report": report,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(_overview())
        elif arguments[0] == "--version":
            print(f"cnnzoo {__version__}")
        elif arguments[0] not in COMMANDS:
            raise unknown("command", arguments[0], COMMANDS)
        elif arguments[0] == "train":
            train(arguments[1:])
        else:
            function = COMMANDS[arguments[0]]
            function(**vars(_parser(arguments[0], function).parse_args(arguments[1:])))
        sys.stdout.flush()
    except (InputError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader has seen enough, as head does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if os.environ.get("CNNZOO_TRACEBACK"):
            raise
        print(f"cnnzoo: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cnnzoo: stopped", file=sys.stderr)
        return 130
    return 0


def tell(line: str) -> None:
    """A line for a person, at once."""
    print(line, flush=True)


@contextmanager
def stop_on_signals() -> Iterator[list[signal.Signals]]:
    """The list that Ctrl-C and SIGTERM put themselves into, for the loop to see; a second one stops at once."""
    caught: list[signal.Signals] = []

    def catch(number: int, frame: object) -> None:
        caught.append(signal.Signals(number))
        signal.signal(number, before[number])

    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser(name: str, function: Callable) -> Parser:
    """The parser of a command, from its signature and docstring."""
    doc = docstring_parser.parse(function.__doc__)
    help_of = {param.arg_name: param.description for param in doc.params}
    parser = Parser(prog=f"cnnzoo {name}", description=doc.short_description)
    for key, parameter in inspect.signature(function).parameters.items():
        kind, default = parameter.annotation, parameter.default
        about = {"help": help_of[key]}
        if parameter.kind is parameter.KEYWORD_ONLY:
            option = f"--{key.replace('_', '-')}"
            if kind is bool:
                parser.add_argument(option, action="store_true", **about)
            elif kind == bool | str:
                parser.add_argument(
                    option, nargs="?", const=True, default=default, type=kind, metavar="WEIGHTS", **about
                )
            else:
                parser.add_argument(option, type=kind, default=default, **about)
        elif get_origin(kind) is list:
            parser.add_argument(key, type=kind.__args__[0], nargs="+", **about)
        elif default is parameter.empty:
            parser.add_argument(key, type=kind, **about)
        else:
            parser.add_argument(key, type=kind, nargs="?", default=default, **about)
    return parser


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        f"  {name:<{width}}  {docstring_parser.parse(function.__doc__).short_description}"
        for name, function in COMMANDS.items()
    ]
    return "\n".join(["usage: cnnzoo COMMAND …        (cnnzoo COMMAND --help tells more)", "", *lines])


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f': {error.filename}' if error.filename else ''}"
    return " ".join(str(error).split())


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
