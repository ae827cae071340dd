"""`cnnzoo weights`: commands for trained weights."""

from collections.abc import Callable, Sequence
from json import dumps
from pathlib import Path

from cnnzoo.cli.parsing import one_of
from cnnzoo.errors import InputError, counted
from cnnzoo.paths import expanded
from cnnzoo.telling import as_typed


def weights_list(pattern: str = "*", *, json: bool = False) -> None:
    """List trained weights: accuracy as published and at which pixels, the file's size, licence, whether it is here.

    Args:
        pattern: a wildcard pattern for nets, or NET.TAG, such as 'resnet50.a*'.
    """
    from cnnzoo.weights import fetch

    rows = _weights_like([pattern])
    if json:
        keys = (
            *("model", "tag", "file", "url", "hub", "sha256", "mib", "licence"),
            *("top1", "top5", "size", "preprocess", "note"),
        )
        print(dumps([{key: getattr(row, key) for key in keys} | {"here": bool(fetch.find(row))} for row in rows]))
        return
    print(rows)


def weights_fetch(names: list[str]) -> None:
    """Fetch trained weights, so that they are here when there is no network.

    Args:
        names: nets (their best weights) or NET.TAG, with wildcards.
    """
    from cnnzoo.weights import fetch

    for row in _chosen_weights(names):
        print(f"{row.model}.{row.tag}  {fetch.fetch(row)}")


def weights_verify(pattern: str = "*") -> None:
    """Check the SHA-256 of the files of weights that are here.

    Args:
        pattern: a wildcard pattern for nets, or NET.TAG.
    """
    from cnnzoo.weights import fetch

    damaged = []
    for row in _weights_like([pattern]):
        if file := fetch.find(row):
            state = fetch.verify(row)
            print(f"{row.model}.{row.tag}  {state}  {file}")
            damaged += [file] if state == "damaged" else []
    if damaged:
        raise InputError(f"damaged, remove and fetch anew: {', '.join(map(str, damaged))}")


def weights_bundle(names: list[str], *, out: str) -> None:
    """Put the files of weights into one file, for a machine without a network.

    Args:
        names: nets (their best weights) or NET.TAG, with wildcards.
        out: the tar file to write.
    """
    from cnnzoo.weights import bundles

    rows = _chosen_weights(names)
    bundles.bundle(rows, expanded(out))
    print(f"{counted(len(rows), 'file')} in {out}; there: cnnzoo weights import {as_typed(Path(out).name)}")


def weights_import(file: str) -> None:
    """Place the files of a bundle in torch hub's folder, where cnnzoo finds them.

    Args:
        file: what cnnzoo weights bundle wrote.
    """
    from cnnzoo.weights import bundles

    for placed in bundles.unbundle(expanded(file)):
        print(placed)


WEIGHTS: dict[str, Callable] = {
    "list": weights_list,
    "fetch": weights_fetch,
    "verify": weights_verify,
    "bundle": weights_bundle,
    "import": weights_import,
}


def weights(options: Sequence[str]) -> None:
    """Trained weights: list, fetch, verify, bundle or import them. See cnnzoo weights --help."""
    one_of(WEIGHTS, "weights", options)


def _weights_like(patterns: Sequence[str]) -> list:
    """Rows that match, in the table's order. Raises InputError for a pattern that none does."""
    from cnnzoo import zoo
    from cnnzoo.weights import table

    found = table.Rows()
    for pattern in patterns:
        rows = table.list_weights(pattern)
        if not rows:
            name = pattern.partition(".")[0]
            if not zoo.list_models(name):
                zoo.info(name)  # complains, and names the near ones
            raise InputError(f"there are no weights {pattern!r}; cnnzoo weights list names all")
        found += [row for row in rows if row not in found]
    return found


def _chosen_weights(names: Sequence[str]) -> list:
    """The best row for a name; of those that match a pattern all whose licence is not excluded.

    Raises InputError where none is left.
    """
    from cnnzoo.weights import table

    found = []
    for name in names:
        plain = "*" not in name and "?" not in name
        model, dot, tag = name.partition(".")
        rows = [table.row(model, tag if dot else None)] if plain else _weights_like([name])
        allowed = [row for row in rows if not table.excluded(row)]
        if not allowed:
            table.refuse_excluded(rows[0])
        found += [row for row in allowed if row not in found]
    return found
