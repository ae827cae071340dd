"""A file from the network, whole or not at all: downloads that resume, are checked, and wait for one another."""

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from cnnzoo import atomic, bars
from cnnzoo.errors import InputError

if TYPE_CHECKING:
    import requests

ATTEMPTS = 4
TIMEOUT = (10, 30)  # seconds to connect, and without a byte
BLOCK = 1 << 16  # bytes; what a broken connection loses at most
LONGEST_WAIT = 60  # seconds, whatever a server asks for


class _Again(Exception):
    """It may go better the next time, after `wait` seconds."""

    def __init__(self, why: str, wait: float):
        super().__init__(why)
        self.wait = wait


def download(url: str, target: Path, sha256: str) -> Path:
    """Fetch `url` into `target`, whole and with the right hash or not at all; `sha256` is the beginning of the hash, or
    "" for the hash that the Hugging Face hub sends with the file.

    A broken download is kept beside it and continued, now or the next time. If several processes ask at once, one
    fetches and the others wait. Raises InputError that says what went wrong.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with bars.take(filelock.FileLock(f"{target}.lock"), target.name):
        if target.exists():  # another process was faster
            return target
        for attempt in range(1, ATTEMPTS + 1):
            resumed = part.exists()
            try:
                told = _stream(url, part)
                _check(url, part, sha256 or told, resumed)
            except _Again as trouble:
                if attempt == ATTEMPTS:
                    kept = f"; {_mib(part)} are kept to go on with" if part.exists() else ""
                    raise InputError(f"{trouble}, {ATTEMPTS} times{kept}") from None
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
    with _told(url, part), requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
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


@contextmanager
def _told(url: str, part: Path) -> Iterator[None]:
    """Errors of requests as what they mean: it may go better the next time, or it will not, and why."""
    from requests import exceptions

    try:
        yield
    except exceptions.SSLError as error:
        raise InputError(f"{url}: no trusted connection ({_short(error)}); REQUESTS_CA_BUNDLE may name yours") from None
    except exceptions.Timeout:
        raise _Again(f"{url} stalled", 1) from None
    except (exceptions.ChunkedEncodingError, exceptions.ContentDecodingError):
        raise _Again(f"{url} broke off after {_mib(part)}", 1) from None
    except exceptions.ConnectionError as error:
        if "timed out" in str(error).lower():
            raise _Again(f"{url} stalled", 1) from None
        raise InputError(f"{url} cannot be reached ({_short(error)})") from None
    except exceptions.RequestException as error:
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
