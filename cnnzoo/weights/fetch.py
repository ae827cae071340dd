"""Files of weights: where they lie, fetched once, verified, carried to machines without a network.

A file is sought in $CNNZOO_WEIGHTS, in torch hub's folder and in the Hugging Face hub's cache, where people have them
already; what is fetched goes into torch hub's folder. Where the file lies there is no network call, and with
CNNZOO_OFFLINE=1 there is none at all.
"""

import io
import json
import os
import shutil
import tarfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch

from cnnzoo import atomic
from cnnzoo.errors import InputError
from cnnzoo.weights.download import digest, download
from cnnzoo.weights.table import Weights, rows

HUB_FILE = "model.safetensors"


def find(row: Weights) -> Path | None:
    """The file where it lies already; None where it does not. Never asks the network."""
    for folder in _folders():
        for name in (row.file, _hub_copy(row)):
            if (folder / name).is_file():
                return folder / name
    if row.hub:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "IProgress not found")  # in a notebook without ipywidgets
            from huggingface_hub import try_to_load_from_cache
        path = try_to_load_from_cache(row.hub, HUB_FILE)
        if isinstance(path, str):
            return Path(path)
    return None


def fetch(row: Weights) -> Path:
    """The file, fetched first where it is not there yet.

    Raises InputError that says what went wrong, where the file is sought, and how to place it by hand.
    """
    found = find(row)
    if found:
        return found
    if offline():
        raise _out_of_reach(row, "CNNZOO_OFFLINE is set")
    problems = []
    for url, name, sha256 in _addresses(row):
        try:
            return download(url, hub_folder() / name, sha256)
        except InputError as error:
            problems.append(str(error))
    raise _out_of_reach(row, "; ".join(problems) or "it has no public address")


def _addresses(row: Weights) -> list[tuple[str, str, str]]:
    """Where a row's file can be fetched: the address, the name to keep it by, the beginning of its SHA-256."""
    found = [(row.url, row.file, row.sha256)] if row.url else []
    if row.hub:
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        found.append((f"{endpoint}/{row.hub}/resolve/main/{HUB_FILE}", _hub_copy(row), ""))
    return found


def _hub_copy(row: Weights) -> str:
    return f"{row.model}.{row.tag}.safetensors"


def offline() -> bool:
    return os.environ.get("CNNZOO_OFFLINE", "").lower() not in ("", "0", "false", "no")


def hub_folder() -> Path:
    """Torch hub's folder of checkpoints."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def _folders() -> list[Path]:
    chosen = os.environ.get("CNNZOO_WEIGHTS")
    return [*([Path(chosen)] if chosen else []), hub_folder()]


class OutOfReach(InputError):
    """Weights are not here, and could not be fetched."""


def _out_of_reach(row: Weights, why: str) -> OutOfReach:
    chosen, *_ = folders = _folders()
    sought = " or ".join(map(str, folders))
    if len(folders) > 1 and not chosen.is_dir():
        sought += f" (CNNZOO_WEIGHTS names {chosen}, and there is no such folder)"
    addresses = _addresses(row)
    if addresses:
        how = f"get {addresses[0][0]} elsewhere and put it into {hub_folder()} as {addresses[0][1]}"
    else:
        how = f"put it into {hub_folder()}"
    others = [other.tag for other in rows(row.model) if other.tag != row.tag and find(other)]
    instead = f"; or take other weights of this net, which are here: pretrained {' or '.join(others)}" if others else ""
    return OutOfReach(
        f"{row.model} {row.tag}: {row.file} is not in {sought} and could not be fetched ({why}); {how}, or let "
        f"CNNZOO_WEIGHTS name the folder where it lies, or on a machine that has it run: cnnzoo weights bundle "
        f"{row.model}.{row.tag} --out weights.tar, and here: cnnzoo weights import weights.tar{instead}"
    )


# --- recognise and verify


def recognise(file: Path, candidates: Iterable[Weights]) -> Weights | None:
    """Which row a file is, by its SHA-256. Only a file of a row's size, or of its name, is read for that."""
    mib, found = file.stat().st_size / 2**20, None
    for row in candidates:
        if row.sha256 and (row.sha256[:8] in file.name or (row.mib and abs(row.mib - mib) < 0.002)):
            found = found or digest(file)
            if found.startswith(row.sha256):
                return row
    return None


State = Literal["whole", "damaged", "not here", "here, its hash is not known"]


def verify(row: Weights) -> State:
    """Compare a row's file with its SHA-256. Never asks the network."""
    file = find(row)
    if file is None:
        return "not here"
    wanted = row.sha256 if file.name == row.file else ""
    if not wanted and row.hub and len(name := file.resolve().name) == 64:
        wanted = name  # the Hugging Face hub's cache calls a large file by its SHA-256
    if not wanted:
        return "here, its hash is not known"
    return "whole" if digest(file).startswith(wanted) else "damaged"


# --- bundles

_LIST = "cnnzoo-weights.json"


def bundle(rows: Iterable[Weights], out: Path) -> list[Path]:
    """Put the files of rows, fetched where needed, into one tar file that `unbundle` takes on another machine.

    Returns the files, in the order of the rows. Raises InputError for one that cannot be had.
    """
    rows = list(rows)
    files = [fetch(row) for row in rows]
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
    """Put what a bundle holds where `find` looks, each file after a check of its hash.

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
