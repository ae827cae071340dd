"""Files of weights, arrays and JSON: written whole or not at all, read without running code, and named if damaged."""

import argparse
import io
import json
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from cnnzoo import atomic
from cnnzoo.device import is_out_of_memory
from cnnzoo.errors import InputError

# Beside tensors, training scripts save their options and numpy's numbers, which hold values and run nothing. What makes
# the latter is called otherwise in numpy 1 than in numpy 2.
_number = np.float64(0).__reduce__()[0]
_HARMLESS = [
    *(argparse.Namespace, np.dtype, *{type(np.dtype(code)) for code in f"?{np.typecodes['AllInteger']}efd"}),
    *((_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
_CHECKSUM = "crc32"  # in the header of a model
_alone = Lock()  # torch's list of what is harmless, and Python's of what is warned of, are shared by all threads


def read_torch(file: Path) -> dict:
    """A file of torch.save, read without running code. Raises InputError if it is damaged or wants to run code."""
    try:
        with _alone, torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a strange pickle's protocol, just before it is refused
            return torch.load(file, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        with open(file, "rb") as content:
            is_pickle = content.read(1) == pickle.PROTO
        if code or is_pickle:
            raise InputError(
                f"{file} would run code when loaded{f' ({code[1]})' if code else ''}, so it was not; "
                f"save its tensors alone, or as .safetensors"
            ) from None
        raise InputError(f"{file} is damaged or no checkpoint") from None
    except Exception as error:  # of any kind, as a damaged pickle may ask for anything
        if is_out_of_memory(error):
            raise
        if "TorchScript" in str(error):
            raise InputError(f"{file} is a net of TorchScript's, which is code; save its state_dict() alone") from None
        first_sentence = str(error).partition("\n")[0].partition(". ")[0]  # torch adds a paragraph of guesses
        why = first_sentence or type(error).__name__
        raise InputError(f"{file} is damaged or cut short ({why})") from None


def write_arrays(file: Path, **arrays: np.ndarray) -> None:
    """An .npz, whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    atomic.write(file, buffer.getvalue())


def read_arrays(file: Path, *names: str) -> tuple[np.ndarray, ...]:
    """Arrays of an .npz. Raises InputError if it is damaged."""
    try:
        with open(file, "rb") as content, np.load(content, allow_pickle=False) as arrays:
            return tuple(arrays[name] for name in names)
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, KeyError, RuntimeError):
        raise InputError(f"{file} is damaged or cut short; remove it, and it is made anew") from None


def read_json(file: Path, lines: bool = False, **kinds: type) -> Any:
    """What a file of a run says, or each of its `lines`: mappings in which each of these keys is of its kind. Raises
    InputError if it is damaged, or not there.
    """
    mend = "restore it, or run its config.yaml again"
    try:
        text = file.read_text(encoding="utf-8")
        told = [json.loads(line) for line in (text.splitlines() if lines else [text])]
        if not all(isinstance(each.get(key), kind) for each in told for key, kind in kinds.items()):
            raise ValueError
        return told if lines else told[0]
    except FileNotFoundError:
        raise InputError(f"{file} is missing; {mend}") from None
    except (ValueError, AttributeError):  # the latter of what is no mapping
        raise InputError(f"{file} is damaged or cut short; {mend}") from None


def write_model(file: Path, weights: Mapping[str, Tensor], card: dict) -> None:
    """A .safetensors with `card`, which rebuilds the net, as JSON in its header, and a checksum there; whole or not at
    all.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    # One entry, since several would come in another order each time, and the file in other bytes.
    told = {"cnnzoo": json.dumps({**card, _CHECKSUM: _checksum(tensors)})}
    atomic.write(file, safetensors_bytes(tensors, told))


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a file, in memory of their own: what safetensors gives is the mapped file itself, which Windows
    lets nobody replace or remove as long as the net lives. Raises InputError if it is damaged, which of a file of
    `write_model` each bit tells.
    """
    with _opened(file) as content:
        tensors = {name: content.get_tensor(name).clone() for name in content.keys()}  # noqa: SIM118 (no mapping)
        expected = _told(content).get(_CHECKSUM)
    if expected is not None and expected != _checksum(tensors):
        raise InputError(f"{file} is damaged or cut short (its checksum does not match); restore it, or make it anew")
    return tensors


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """A CRC-32 of all names and values: a tenth of a second for 300 MB."""
    crc = 0
    for name in sorted(tensors):
        values = tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy()
        crc = zlib.crc32(values, zlib.crc32(name.encode(), crc))
    return crc


def read_card(file: Path) -> dict | None:
    """What `write_model` put into a file's header; None in a file from elsewhere."""
    with _opened(file) as content:
        card = _told(content)
    card.pop(_CHECKSUM, None)
    return card or None


def _told(content: safe_open) -> dict:
    return json.loads((content.metadata() or {}).get("cnnzoo", "{}"))


@contextmanager
def _opened(file: Path):
    try:
        with safe_open(file, framework="pt") as content:
            yield content
    except (SafetensorError, json.JSONDecodeError) as error:
        raise InputError(f"{file} is damaged or cut short ({error}); restore it, or make it anew") from None
