"""The command line: commands, printing and exit codes, all here and only here.

Commands are typed functions, each with the others of its subject: what stands before `*` is given by place, what stands
after it by `--name`. They import what they need when they run, so that the command line is there at once.
Exit codes: 0 done; 1 checked, with errors found; 2 wrong input, told in one line; 129, 130 and 143 the end of the
terminal, Ctrl-C and SIGTERM, after saving.
"""

import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence

from cnnzoo import __version__
from cnnzoo.cli import committees, nets, training, transfer, trials, use, visualize, weights
from cnnzoo.cli.parsing import keys_of_config, overview, parser_of
from cnnzoo.cli.speech import hush, is_first, rank
from cnnzoo.config import Config
from cnnzoo.errors import InputError, Interrupted, did_you_mean, one_line

COMMANDS: dict[str, Callable] = {
    "list": nets.list_,
    "info": nets.info,
    "summary": nets.summary,
    "compare": nets.compare,
    "browse": training.browse,
    "train": training.train,
    "check": transfer.check,
    "pick": transfer.pick,
    "probe": transfer.probe,
    "finetune": transfer.finetune,
    "soup": committees.soup,
    "evaluate": use.evaluate,
    "predict": use.predict,
    "export": use.export,
    "weights": weights.weights,
    "visualize": visualize.visualize,
    "ensemble": committees.ensemble,
    "vote-odds": committees.vote_odds,
    "lab": trials.lab,
    "report": use.report,
    "profile": trials.profile,
    "benchmark": trials.benchmark,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code, which is 0 where the command returns none."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as a service may have them
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (as long as the process)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a pipe on Windows, say, does not know every letter of a file's name
            stream.reconfigure(errors="backslashreplace")
    code = 0
    try:
        if arguments[1:] and arguments[0] == "help":
            arguments = [*arguments[1:], "--help"]
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            print(f"{overview(COMMANDS, 'cnnzoo')}\n\ncnnzoo --version tells the version.")
        elif arguments[0] == "--version":
            print(f"cnnzoo {__version__}")
        elif arguments[0] not in COMMANDS:
            hint = did_you_mean(arguments[0], COMMANDS, "cnnzoo --help tells which there are")
            raise InputError(f"unknown command {arguments[0]!r}{hint}")
        else:
            nets.register_own()
            code = _run(*arguments)
        sys.stdout.flush()
    except (InputError, OSError, RuntimeError, MemoryError) as error:
        if isinstance(error, BrokenPipeError):  # the reader has seen enough, as head does
            hush(sys.stdout)
            return 0
        if os.environ.get("CNNZOO_TRACEBACK") or not _is_told(error):
            raise
        who = "" if is_first() else f" in process {rank()}"
        print(f"cnnzoo: error{who}: {_one_line(error)}", file=sys.stderr, flush=True)
        return 2
    except (KeyboardInterrupt, Interrupted):  # the latter of a training within the command
        print("cnnzoo: stopped", file=sys.stderr)
        return 130
    return code


def _run(command: str, *given: str) -> int:
    function, options = COMMANDS[command], {}
    if command in ("weights", "visualize"):  # which have commands of their own
        return function(list(given)) or 0
    if "overrides" in inspect.signature(function).parameters:
        given, options["overrides"] = keys_of_config(given, function)
    parser = parser_of(command, function)
    if command == "train" and not {"-h", "--help"}.isdisjoint(given):
        parser.add_class_arguments(Config)  # every key, in the one place that the others refer to
    return function(**vars(parser.parse_args(given)), **options) or 0


def _is_told(error: Exception) -> bool:
    """Whether an error is the user's affair; others are ours, and come with their traceback."""
    from cnnzoo.device import is_out_of_memory

    return isinstance(error, InputError | OSError) or is_out_of_memory(error)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f': {error.filename}' if error.filename else ''}"
    if not isinstance(error, InputError | OSError):
        how = " ".join(str(error).partition(". GPU")[0].split()) or "the system has no more"
        return f"memory does not suffice ({how}); take fewer or smaller images at once, or a smaller net"
    told = one_line(" ".join(str(error).split()))
    return re.sub(r"\b([\w.]+)=(?:…|'(\w+)'(?!\)))", _as_option, told)


def _as_option(match: re.Match) -> str:
    """What messages spell as in Python, as the command line has it."""
    value = f" {match[2]}" if match[2] else ""
    option = match[1] if "." in match[1] else match[1].replace("_", "-")  # keys of the config are spelt as they are
    return f"--{option}{value}"
