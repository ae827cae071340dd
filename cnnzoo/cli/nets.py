"""Commands that tell what nets there are, and what is known of them."""

import dataclasses
import importlib.util
import os
import re
import sys
import traceback
from json import dumps

from cnnzoo.cli.speech import csv_of, one_form
from cnnzoo.errors import InputError, counted, near
from cnnzoo.paths import expanded


def list_(pattern: str = "*", *, pretrained: bool = False, json: bool = False) -> None:
    """Name the nets.

    Args:
        pattern: a wildcard pattern, such as "resnet*".
        pretrained: only those for which the world has trained weights.
    """
    from cnnzoo import zoo

    names = zoo.list_models(pattern, pretrained=pretrained)
    if not names:
        begun, every = f"{pattern}*", zoo.list_models(pretrained=pretrained)
        meant = repr(begun) if zoo.list_models(begun, pretrained=pretrained) else " or ".join(near(pattern, every))
        hint = f"did you mean {meant}? " if meant else ""
        raise InputError(f"no model matches {pattern!r}; {hint}cnnzoo list names all {len(zoo.list_models())}")
    print(dumps(names) if json else "\n".join(names))


def info(name: str, *, json: bool = False) -> None:
    """Tell what is known of a net: paper, size, cost, stages, the paper's figures beside ours, differences from it.

    Args:
        name: the net, see cnnzoo list; or a run folder, for its net.
    """
    import cnnzoo
    from cnnzoo import claims

    entry = cnnzoo.info(name)
    if json:
        facts = {key: value for key, value in vars(entry).items() if key != "build"}
        print(dumps(facts | {"claims": claims.beside(name)}, indent=2, default=dataclasses.asdict))
    else:
        print(entry)


def summary(
    name: str,
    *,
    input: str | None = None,
    compact: bool = False,
    csv: bool = False,
    markdown: bool = False,
    json: bool = False,
) -> None:
    """Print the layer table of a net: output shapes, parameters, multiply-adds, activations, receptive fields.

    Args:
        name: the net, see cnnzoo list; or a run folder, for its net.
        input: an image's channels, height and width, such as 3,224,224 or 3x224x224, or the side of a square; the
            net's own by default.
        compact: print it as papers do, with the image, and one row for a layer with its BatchNorm and activation.
        csv: print CSV.
        markdown: print Markdown.
    """
    import cnnzoo

    one_form(csv=csv, markdown=markdown, json=json)
    size = re.split(r"\s*[,x]\s*", input) if input else []
    if len(size) not in (0, 1, 3) or not all(number.isdecimal() and int(number) for number in size):
        raise InputError(f"--input is {input}, but must be three whole numbers such as 3,224,224, or one: the side")
    table = cnnzoo.summary(name, *([tuple(map(int, size))] if len(size) == 3 else map(int, size)))
    if compact:
        table = table.compact()
    if json:
        print(dumps(table.to_dict()))
    else:
        print(csv_of(table) if csv else table.to_markdown() if markdown else table)


def compare(names: list[str] = (), *, out: str | None = None, csv: bool = False, json: bool = False) -> None:
    """Compare nets by their weights: accuracy against multiply-adds, with parameters as area.

    Args:
        names: nets (their best weights) or NET.TAG, with wildcards; every net that has weights by default.
        out: draw the picture into this file.
        csv: print CSV.
    """
    import cnnzoo

    one_form(csv=csv, json=json)
    result = cnnzoo.compare(names, out)
    if json:
        print(dumps(result.to_dict()))
    elif csv:
        print(csv_of(result))
    else:
        print(result)
        if out:
            print(f"{counted(len(result.points), 'net')} in {out}")
    if result.without:
        print(f"without weights of known accuracy: {', '.join(result.without)}", file=sys.stderr)


def register_own() -> None:
    """Run the Python files that $CNNZOO_NETS names, so that the nets which they register are known.

    Raises InputError for one that is not there, or fails.
    """
    for file in filter(None, os.environ.get("CNNZOO_NETS", "").split(os.pathsep)):
        path = expanded(file).resolve()
        if not path.is_file():
            raise InputError(f"CNNZOO_NETS names {file}, and there is no such file")
        if str(path) in sys.modules:  # of an earlier command in this process
            continue
        spec = importlib.util.spec_from_file_location(str(path), path)
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # of any kind: it is the user's own code
            lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == str(path)]
            where = f", line {lines[-1]}" if lines else ""
            raise InputError(f"{file}{where}: {type(error).__name__}: {error}") from error
        sys.modules[str(path)] = module
