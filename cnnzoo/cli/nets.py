"""Commands that tell what nets there are, and what is known of them."""

import dataclasses
import sys
from collections.abc import Sequence
from json import dumps

from cnnzoo.errors import InputError


def list_(pattern: str = "*", *, pretrained: bool = False, json: bool = False) -> None:
    """Name the nets.

    Args:
        pattern: a wildcard pattern, such as 'resnet*'.
        pretrained: only those for which the world has trained weights.
    """
    from cnnzoo import zoo

    names = zoo.list_models(pattern, pretrained=pretrained)
    if not names:
        raise InputError(f"no model matches {pattern!r}; cnnzoo list names all {len(zoo.list_models())}")
    print(dumps(names) if json else "\n".join(names))


def info(name: str, *, json: bool = False) -> None:
    """Tell what is known of a net: paper, size, cost, stages, the paper's figures beside ours, differences from it.

    Args:
        name: the net, see cnnzoo list.
    """
    from cnnzoo import claims, zoo

    entry = zoo.info(name)
    figures = claims.beside(name)
    if json:
        facts = {key: value for key, value in vars(entry).items() if key != "build"} | {"claims": figures}
        print(dumps(facts, indent=2, default=dataclasses.asdict))
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
    if entry.aux:
        heads = f"{len(entry.aux)} auxiliary head{'s' if len(entry.aux) > 1 else ''}, {', '.join(entry.aux)}"
        print(f"  in training {entry.aux_params:,} parameters more: {heads}")
    for stage in entry.stages:
        ends = dict.fromkeys((stage.modules[0], stage.modules[-1]))
        print(f"  {stage.name:<10}  {_times(stage.shape):<12}  {' … '.join(ends)}")
    print(f"  {'head':<10}  {entry.num_classes:<12}  {entry.head}")
    if figures:
        table = [("the paper's figures", "paper", "here"), *((f.what, f.figure, f.ours) for f in figures)]
        what_width, figure_width = (max(map(len, column)) for column in list(zip(*table, strict=True))[:2])
        for what, figure, ours in table:
            print(f"  {what:<{what_width}}  {figure:<{figure_width}}  {ours}")
    print(f"  differences from the paper: {'' if entry.differences else 'none known'}")
    for number, difference in enumerate(entry.differences, start=1):
        print(f"    {number}. {difference}")
    for note in entry.notes:
        print(f"  note: {note}")


def summary(
    name: str, *, input: str | None = None, compact: bool = False, csv: bool = False, markdown: bool = False
) -> None:
    """Print the layer table of a net: output shapes, parameters, multiply-adds, activations, receptive fields.

    Args:
        name: the net, see cnnzoo list.
        input: an image's channels, height and width, such as 3,224,224; the net's own by default.
        compact: print it as papers do, with the image, and one row for a layer with its BatchNorm and activation.
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
    if compact:
        table = table.compact()
    print(table.to_csv() if csv else table.to_markdown() if markdown else table, end="" if csv else "\n")


def compare(names: list[str] = (), *, out: str | None = None, csv: bool = False, json: bool = False) -> None:
    """Compare nets by their best weights: accuracy against multiply-adds, with parameters as area.

    Args:
        names: nets, or wildcard patterns; every net that has weights by default.
        out: draw the picture into this file.
        csv: print CSV.
    """
    import cnnzoo

    result = cnnzoo.compare(names, out)
    if json:
        print(dumps(result.to_dict()))
    elif csv:
        print(result.to_csv(), end="")
    else:
        print(result)
        if out:
            print(f"{len(result.points)} net{'s' * (len(result.points) > 1)} in {out}")
    if result.without:
        print(f"without weights of known accuracy: {', '.join(result.without)}", file=sys.stderr)


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
