"""Files of weights: where they lie, fetched once, verified, carried to machines without a network.

A file is sought in $CNNZOO_WEIGHTS, in torch hub's folder and in the Hugging Face hub's cache, where people have them
already; what is fetched goes into torch hub's folder. Where the file lies there is no network call, and with
CNNZOO_OFFLINE=1 there is none at all.
"""

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import filelock
import torch

from cnnzoo import atomic, bars
from cnnzoo.errors import InputError
from cnnzoo.weights.table import Weights, rows

if TYPE_CHECKING:
    import requests

HUB_FILE = "model.safetensors"
ATTEMPTS = 4
TIMEOUT = (10, 30)  # seconds to connect, and without a byte
BLOCK = 1 << 16  # bytes; what a broken connection loses at most
LONGEST_WAIT = 60  # seconds, whatever a server asks for


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


# --- download


class _Again(Exception):
    """It may go better the next time, after `wait` seconds."""

    def __init__(self, why: str, wait: float):
        super().__init__(why)
        self.wait = wait


def download(url: str, target: Path, sha256: str, attempts: int = ATTEMPTS) -> Path:
    """Fetch `url` into `target`, whole and with the right hash or not at all; `sha256` is the beginning of the hash, or
    "" for the hash that the Hugging Face hub sends with the file.

    A broken download is kept beside it and continued, now or the next time. If several processes ask at once, one
    fetches and the others wait. Raises InputError that says what went wrong.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with filelock.FileLock(f"{target}.lock"):
        if target.exists():  # another process was faster
            return target
        for attempt in range(1, attempts + 1):
            resumed = part.exists()
            try:
                told = _stream(url, part)
                _check(url, part, sha256 or told, resumed)
            except _Again as trouble:
                if attempt == attempts:
                    kept = f"; {_mib(part)} are kept to go on with" if part.exists() else ""
                    raise InputError(f"{trouble}, {attempts} times{kept}") from None
                time.sleep(trouble.wait)
            else:
                atomic.rename(part, target)
                return target
    raise AssertionError("every attempt returns or raises")


def _stream(url: str, part: Path) -> str:
    """Append what is missing of `url` to `part`; returns the SHA-256 that the server sent, or ""."""
    import requests  # here, since most that import cnnzoo fetch nothing

    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == 416:  # there is no more: whole, or not what the server has
                if answer.headers.get("Content-Range", "").rpartition("/")[2] != str(have):
                    part.unlink()
                    raise _Again(f"{url} is not what was begun", 0)
                return _told_hash(answer)
            _check_status(url, answer)
            have = have if answer.status_code == 206 else 0
            total = have + int(answer.headers.get("Content-Length", 0))
            bar = bars.show(total=total or None, initial=have, desc=part.stem, unit="B", unit_scale=True)
            with bar, open(part, "ab" if have else "wb") as file:
                for block in answer.iter_content(BLOCK):
                    file.write(block)
                    bar.update(len(block))
                file.flush()
                os.fsync(file.fileno())
            if total and part.stat().st_size < total:
                raise _Again(f"{url} broke off after {_mib(part)}", 1)
            return _told_hash(answer)
    except requests.exceptions.SSLError as error:
        raise InputError(f"{url}: no trusted connection ({_short(error)}); REQUESTS_CA_BUNDLE may name yours") from None
    except requests.exceptions.Timeout:
        raise _Again(f"{url} stalled", 1) from None
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError):
        raise _Again(f"{url} broke off after {_mib(part)}", 1) from None
    except requests.exceptions.ConnectionError as error:
        if "timed out" in str(error).lower():
            raise _Again(f"{url} stalled", 1) from None
        raise InputError(f"{url} cannot be reached ({_short(error)})") from None
    except requests.exceptions.RequestException as error:
        raise InputError(f"{url}: {_short(error)}") from None


def _told_hash(answer: "requests.Response") -> str:
    """The Hugging Face hub redirects to where the file is, and sends its SHA-256 along."""
    for step in (*answer.history, answer):
        if match := re.fullmatch(r'"?([0-9a-f]{64})"?', step.headers.get("X-Linked-Etag", "")):
            return match[1]
    return ""


def _check_status(url: str, answer: "requests.Response") -> None:
    code = answer.status_code
    if code == 429 or code >= 500:
        what = "limits our requests (429)" if code == 429 else f"has trouble ({code})"
        raise _Again(f"the server of {url} {what}", _wait(answer))
    if code >= 400:
        what = {401: "wants a login", 403: "refuses", 404: "does not have it", 410: "no longer has it"}.get(
            code, "says no"
        )
        raise InputError(f"the server of {url} {what} ({code})")


def _wait(answer: "requests.Response") -> float:
    asked = answer.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_WAIT) if asked.isdigit() else 2


def _check(url: str, part: Path, sha256: str, resumed: bool) -> None:
    found = digest(part)
    if found.startswith(sha256):
        return
    part.unlink()
    if resumed:  # what was begun may have been of another file
        raise _Again(f"{url} did not go on as it had begun", 0)
    raise InputError(
        f"{url} is not the file it was: its SHA-256 begins {found[: len(sha256)]}, not {sha256}; it was thrown away"
    )


def digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(file, "rb") as content:
        result = hashlib.sha256()
        while block := content.read(1 << 22):
            result.update(block)
    return result.hexdigest()


def _mib(file: Path) -> str:
    return f"{file.stat().st_size / 2**20:.1f} MiB" if file.exists() else "nothing"


def _short(error: Exception) -> str:
    cause = getattr(error.args[0], "reason", error.args[0]) if error.args else error
    return " ".join(str(cause).split())[:160]


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
