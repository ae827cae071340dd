"""Files of weights: where they lie, fetched once, recognised and verified.

A file is sought in $CNNZOO_WEIGHTS, in torch hub's folder and in the Hugging Face hub's cache, where people have them
already; what is fetched goes into torch hub's folder. Where the file lies there is no network call, and with
CNNZOO_OFFLINE=1 there is none at all.
"""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch

from cnnzoo.errors import InputError
from cnnzoo.paths import expanded
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
    return [*([expanded(chosen)] if chosen else []), hub_folder()]


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


# ---- recognise and verify


def recognise(file: Path, candidates: Iterable[Weights]) -> Weights | None:
    """The row whose file this is, by its SHA-256; a copy of the Hugging Face hub's, whose hash is not known, by its
    name.

    The file is read only if a row's size is the file's own, or is not known.
    """
    mib, found = file.stat().st_size / 2**20, None
    for row in candidates:
        if _is_hub_copy(file, row):
            return row
        if row.sha256 and (row.sha256[:8] in file.name or row.mib is None or abs(row.mib - mib) < 0.002):
            found = found or digest(file)
            if found.startswith(row.sha256):
                return row
    return None


def _is_hub_copy(file: Path, row: Weights) -> bool:
    """Whether a file is called as we keep the hub's copy, or as the hub has it, in a folder named after the row."""
    name = f"{row.model}.{row.tag}"  # folders: the hub's own name, or in its cache "models--timm--NAME"
    in_folder = file.name == HUB_FILE and any(part.rpartition("--")[2] == name for part in file.absolute().parts)
    return bool(row.hub) and (file.name == _hub_copy(row) or in_folder)


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
