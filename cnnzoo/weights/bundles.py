"""Weights carried to machines without a network: one tar file of many, each with its hash."""

import io
import json
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

from cnnzoo import atomic
from cnnzoo.errors import InputError
from cnnzoo.weights.download import digest
from cnnzoo.weights.fetch import fetch, hub_folder, verify
from cnnzoo.weights.table import Weights

_LIST = "cnnzoo-weights.json"


def bundle(rows: Iterable[Weights], out: Path) -> list[Path]:
    """Put the files of rows, fetched where needed, into one tar file that `unbundle` takes on another machine.

    Returns the files, in the order of the rows. Raises InputError for one that cannot be had or is damaged, and before
    any is fetched where `out` cannot be written.
    """
    if out.is_dir():
        raise InputError(f"{out} is a folder; name the file to write")
    atomic.check_writable(out)  # complains now rather than after the downloads
    rows = list(rows)
    files = [fetch(row) for row in rows]
    for row, file in zip(rows, files, strict=True):
        if verify(row) == "damaged":  # its own hash, which goes along, would not tell
            raise InputError(f"{file} is damaged; remove it, and it is fetched anew")
    names = [row.file for row in rows]
    content = json.dumps({name: digest(file) for name, file in zip(names, files, strict=True)}, indent=2).encode()
    about = tarfile.TarInfo(_LIST)
    about.size = len(content)
    with atomic.replacing(out) as part, tarfile.open(part, "w") as tar:
        tar.addfile(about, io.BytesIO(content))
        for name, file in zip(names, files, strict=True):
            tar.add(file.resolve(), name)
    return files


def unbundle(file: Path) -> list[Path]:
    """Put what a bundle holds where `fetch.find` looks, each file after a check of its hash.

    Raises InputError for what is no bundle, or a damaged one; nothing damaged is put anywhere.
    """
    folder, placed = hub_folder(), []
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(file) as tar:
            member = tar.next()
            if member is None or member.name != _LIST:
                raise InputError(f"{file} is no bundle of weights; `cnnzoo weights bundle` makes one")
            hashes = json.load(tar.extractfile(member))
            while member := tar.next():
                if not member.isfile() or member.name not in hashes or Path(member.name).name != member.name:
                    raise InputError(f"{file} holds {member.name}, which is not on its list")
                with atomic.replacing(folder / member.name) as part:
                    with tar.extractfile(member) as content, open(part, "wb") as out:
                        shutil.copyfileobj(content, out, 1 << 22)
                    if digest(part) != hashes[member.name]:
                        raise InputError(f"{member.name} in {file} is damaged; make the bundle again")
                placed.append(folder / member.name)
    except (tarfile.TarError, EOFError, json.JSONDecodeError):
        raise InputError(f"{file} is no bundle of weights, or cut short") from None
    if len(placed) < len(hashes):
        raise InputError(f"{file} is cut short: it lacks {', '.join(sorted(set(hashes) - {f.name for f in placed}))}")
    return placed
