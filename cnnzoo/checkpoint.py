"""The run folder, in and out. Every file is written whole or not at all.

config.yaml         complete; reruns the run
environment.json    versions, machine, command
metrics.jsonl       a line an epoch
probe.json          the shallow classifiers that were tried for the head, where a probe gave it
soup.json           whose weights were averaged, where the net is a soup
split.json          which images were trained on and which validated on, and by what they are known if moved
last.pt             everything that resuming needs (last.prev.pt: the one before)
model.safetensors   the best weights; the header rebuilds the net, its classes and its preprocessing
familiar.npz        what tells images like the training images from others, see familiar.py
predictions.npz     logits and targets of the validation images, by the best weights; cross-fitted, where a committee
                    learnt from these images
committee.json      what the members of a committee reach alone and together, where the run is one
report.html         for people
snapshots/1 …       of a cyclic schedule: a run folder for the net that each cycle ended in
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from cnnzoo import atomic, figures
from cnnzoo.errors import InputError, did_you_mean, expect
from cnnzoo.familiar import Familiarity
from cnnzoo.files import read_arrays, read_card, read_json, read_safetensors, read_torch, write_arrays, write_model
from cnnzoo.paths import expanded
from cnnzoo.shown import Drawn, Table
from cnnzoo.telling import Tell, as_typed

LOCK = ".lock"  # within a run folder while a process trains in it
PLANS = {"config.yaml", "split.json", "environment.json"}  # all that a run has before it has learnt anything


class Run(Drawn):
    """A run folder, and a path wherever one is taken. Opening one neither makes nor changes anything."""

    def __init__(self, path: "str | Path | Run"):
        expect(path, (str, os.PathLike), "a run is named by its folder")
        self.path = expanded(path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        said = [f"Run({str(self.path)!r})", self._standing()]
        return f"{': '.join(filter(None, said))}; {self._next()}"

    def _standing(self) -> str:
        """Which net reached what, as far as the folder tells."""
        with suppress(InputError, OSError):
            net, metrics = self.card["name"], self.metrics
            if not metrics:
                return net
            best, last = max(metrics, key=lambda report: report["val_top1"]), metrics[-1]["epoch"]
            when = f" in epoch {best['epoch']} of {last}" if last else ""
            return f"{net}, best validation top-1 {best['val_top1']:.2%}{when}"
        return ""

    def _next(self) -> str:
        if self.is_finished:
            return "go on with cnnzoo.predict(run, photos), cnnzoo.evaluate(run)"
        there = self.config_file.exists()
        return f"go on with cnnzoo.train(resume={str(self.path)!r})" if there else "there is no run yet"

    def figure(self):
        """Losses and accuracy, epoch by epoch: a matplotlib Figure. Raises InputError if there was no epoch."""
        metrics = self.metrics
        if not metrics or not metrics[-1]["epoch"]:
            raise InputError(f"{self.path} has no epochs to draw")
        return figures.curves(metrics)

    _png = property(Drawn._draw)  # anew, since a run goes on

    def _table(self) -> Table:
        heads = ("run", "reached", "next")
        return Table(heads, [(str(self.path), self._standing(), self._next())], heads)

    @classmethod
    def new(cls, path: "str | Path | Run") -> "Run":
        """A run to come; the folder is made by its first file.

        Raises InputError if there is something already, but for the plans of a run that ended before it had learnt
        anything: nothing is lost; and where no folder can be made.
        """
        run = cls(path)
        if run.path.exists() and not run.path.is_dir():
            raise InputError(f"{run.path} is a file, so no run folder can be made there; choose another by run=…")
        there = {entry.name for entry in run.path.iterdir()} - {LOCK} if run.path.exists() else set()
        if there and not {"split.json"} <= there <= PLANS:
            stands = " and is finished" if run.is_finished else ""
            goes_on = not run.is_finished and run.config_file.exists()
            if goes_on and run.is_busy:
                raise InputError(f"another process is training in {run.path}; choose another folder by run=…")
            way = f"go on with it by cnnzoo train --resume {as_typed(run.path)}, or " if goes_on else ""
            raise InputError(f"{run.path} exists already{stands}; {way}choose another folder by run=…")
        try:
            atomic.check_writable(run.config_file)
        except InputError as error:
            raise InputError(f"{error}; choose another folder by run=…") from None
        return run

    @classmethod
    def open(cls, path: "str | Path | Run") -> "Run":
        """A folder that holds a run. Raises InputError elsewhere."""
        run = cls(path)
        if not run.path.is_dir():
            beside = (str(file.parent) for file in run.path.parent.glob("*/config.yaml"))
            raise InputError(f"there is no run folder {run.path}{did_you_mean(str(run.path), beside)}")
        if not run.config_file.exists():
            within = [file.parent.name for file in sorted(run.path.glob("*/config.yaml"))]  # such as fold0, fold1
            runs = f"; it holds the runs {', '.join(within[:10])}: name one of these" if within else ""
            raise InputError(f"{run.path} is no run folder: it has no config.yaml{runs}")
        return run

    config_file = property(lambda self: self.path / "config.yaml")
    metrics_file = property(lambda self: self.path / "metrics.jsonl")
    model_file = property(lambda self: self.path / "model.safetensors")
    report_file = property(lambda self: self.path / "report.html")
    predictions_file = property(lambda self: self.path / "predictions.npz")
    familiar_file = property(lambda self: self.path / "familiar.npz")
    state_file = property(lambda self: self.path / "last.pt")
    state_before = property(lambda self: self.path / "last.prev.pt")

    @property
    def is_finished(self) -> bool:
        """Whether the run is complete (its report may be missing): its best weights have given their predictions."""
        return self.predictions_file.exists()

    @property
    def is_busy(self) -> bool:
        """Whether a process is training in it now; one that was killed has left the lock's file alone."""
        if not (self.path / LOCK).exists():
            return False
        try:
            with FileLock(self.path / LOCK, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # a folder that may only be read
            return False

    @property
    def learnt(self) -> Path:
        """Its model.safetensors. Raises InputError if that is not there, or not yet."""
        if not self.model_file.exists():
            gone = "restore it, or run its config.yaml again"
            why = gone if self.is_finished else "the run has not finished an epoch yet"
            raise InputError(f"{self.model_file} is missing: {why}")
        return self.model_file

    @property
    def card(self) -> dict:
        """What the header of model.safetensors says: the net, its classes, its preprocessing, how good it is. Raises
        InputError if it says nothing, as where another program has written the file.
        """
        card = read_card(self.learnt)
        if card is None:
            mend = "restore it, or run its config.yaml again"
            raise InputError(f"{self.model_file} does not say which net it is; {mend}")
        return card

    @property
    def weights(self) -> dict[str, Tensor]:
        """The tensors of model.safetensors, the best that the run came to."""
        return read_safetensors(self.learnt)

    @property
    def metrics(self) -> list[dict]:
        """A dictionary for each finished epoch; NaN stands for a figure that was not finite."""
        if not self.metrics_file.exists():
            return []
        told = read_json(self.metrics_file, lines=True, epoch=int, val_top1=Real, seconds=Real)
        return [{key: math.nan if value is None else value for key, value in report.items()} for report in told]

    @property
    def environment(self) -> dict:
        return read_json(self.path / "environment.json", precision=str)

    @property
    def split(self) -> dict[str, list[str]]:
        """The names of the images in "train" and in "val"."""
        told = self.images
        return {part: told[part] for part in ("train", "val")}

    @property
    def images(self) -> dict[str, dict | list]:
        """The same, and by what they are known where they were moved (`whereabouts.remember`)."""
        file = self.path / "split.json"
        told = read_json(file, train=list, val=list)
        if not (told["train"] and told["val"]):
            raise InputError(f"{file} names no images; restore it, or run its config.yaml again")
        return told

    @property
    def probe(self) -> dict | None:
        """The classifiers that were tried for the head, the one taken first; None where no probe gave it."""
        return self._told("probe.json", scores=list)

    @property
    def soup(self) -> dict | None:
        """Whose weights the net's are the mean of; None where it is no soup."""
        return self._told("soup.json", ingredients=list)

    def snapshot(self, number: int) -> "Run":
        """The net that a cycle of the schedule ended in, counted from 1, as a run of its own."""
        return Run(self.path / "snapshots" / str(number))

    @property
    def committee(self) -> dict | None:
        """What the members reach alone and together; None where the run is no committee."""
        return self._told("committee.json", rows=list)

    @property
    def is_cross_fitted(self) -> bool:
        """Whether it learnt from its validation images, as a committee may, so that its predictions of them are those
        of cross-fitting.
        """
        return bool((self.committee or {}).get("cross_fitted"))

    def _told(self, name: str, **kinds: type) -> dict | None:
        file = self.path / name
        return read_json(file, **kinds) if file.exists() else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other process trains in this folder meanwhile. Raises InputError if one does already."""
        file = self.path / LOCK
        lock = FileLock(file, timeout=0)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            message = f"another process is training in {self.path}; wait for it, or choose another folder by run=…"
            raise InputError(message) from None
        except OSError as error:
            why = error.strerror or error
            raise InputError(f"{self.path} cannot be written ({why})") from None
        try:
            yield
        finally:
            with suppress(OSError):  # before the release: the next process may have locked it by then
                file.unlink()
            lock.release()
            with suppress(OSError):  # unless something was written, there is to be no folder
                self.path.rmdir()

    def write(self, name: str, content: str | bytes) -> None:
        atomic.write(self.path / name, content.encode() if isinstance(content, str) else content)

    def write_metrics(self, history: Iterable[dict]) -> None:
        """All lines at once, so that a resumed run leaves none twice. A figure that is not finite, such as the loss of
        a net that diverged, is null: JSON has no NaN.
        """

        def plain(value: object) -> object:
            return None if isinstance(value, float) and not math.isfinite(value) else value

        told = ({key: plain(value) for key, value in report.items()} for report in history)
        self.write("metrics.jsonl", "".join(json.dumps(report, allow_nan=False) + "\n" for report in told))

    def save_state(self, state: dict) -> None:
        """Write last.pt with a checksum; the one before stays as last.prev.pt."""
        buffer = io.BytesIO()
        torch.save({**state, "sha256": digest(state)}, buffer)
        with atomic.replacing(self.state_file) as part:
            part.write_bytes(buffer.getbuffer())
            atomic.sync(part)
            if self.state_file.exists():
                atomic.rename(self.state_file, self.state_before)

    def load_state(self) -> tuple[dict, str | None]:
        """The newest whole state, and what was wrong with a newer one. Raises InputError if there is none."""
        wrong = []
        for file in (self.state_file, self.state_before):
            try:
                state = read_torch(file)
                if not isinstance(state, dict) or state.pop("sha256", None) != digest(state):
                    raise InputError(f"{file} is damaged: its checksum does not match")
                return state, f"{wrong[0]}; going on from {file.name}" if wrong else None
            except FileNotFoundError:
                pass
            except InputError as error:
                wrong.append(str(error))
        if wrong:
            raise InputError(f"nothing to resume from: {'; '.join(wrong)}")
        raise InputError(f"{self.path} holds no last.pt to resume from")

    def save_model(self, weights: Mapping[str, Tensor], card: dict) -> None:
        """Write model.safetensors: the weights, and the card that rebuilds the net from them."""
        write_model(self.model_file, weights, card)

    def amend_card(self, **facts: object) -> None:
        """Say more on the card."""
        self.save_model(self.weights, {**self.card, **facts})

    def save_predictions(self, logits: np.ndarray, targets: np.ndarray) -> None:
        """`(N, K)` float32 and `(N,)` int64 of the validation images."""
        write_arrays(self.predictions_file, logits=logits.astype(np.float32), targets=targets.astype(np.int64))

    @property
    def predictions(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits `(N, K)` and targets `(N,)` of the validation images. Raises InputError where they are not there, or
        are not the run's.
        """
        resume = f"cnnzoo train --resume {as_typed(self.path)}"
        anew = f"cnnzoo train --config {as_typed(self.config_file)} --run NEW"
        if not self.predictions_file.exists():
            is_made = self.committee or self.soup  # of runs, rather than learnt
            way = f"make it anew by {anew}" if is_made else f"finish it by {resume}"
            raise InputError(f"{self.path} has no predictions yet; {way}")
        images, classes = len(self.split["val"]), len(self.card["classes"])
        with suppress(InputError):
            logits, targets = read_arrays(self.predictions_file, "logits", "targets")
            kinds, shapes = (logits.dtype.kind, targets.dtype.kind), (logits.shape, targets.shape)
            fit = kinds == ("f", "i") and shapes == ((images, classes), (images,))
            if fit and np.isfinite(logits).all() and 0 <= targets.min() <= targets.max() < classes:
                return logits, targets
        goes_on = self.state_file.exists() or self.state_before.exists()  # else it would begin, and write over its net
        way = f"remove it, and {resume} makes it anew" if goes_on else f"make the run anew by {anew}"
        raise InputError(f"{self.predictions_file} is damaged, or another run's; {way}")

    def save_familiarity(self, familiarity: Familiarity) -> None:
        write_arrays(self.familiar_file, **vars(familiarity))
        self.familiarity = familiarity

    @cached_property  # since a server asks for it with each image
    def familiarity(self) -> Familiarity | None:
        """What tells images like those that the net learnt from; None for nets without features."""
        if not self.familiar_file.exists():
            return None
        with suppress(InputError):
            known, distances = read_arrays(self.familiar_file, "known", "distances")
            whole = all(a.dtype.kind == "f" and a.size and np.isfinite(a).all() for a in (known, distances))
            if whole and (known.ndim, distances.ndim) == (2, 1):
                return Familiarity(known, distances)
        raise InputError(
            f"{self.familiar_file} is damaged or cut short; remove it, and predictions come without familiarity"
        )


def run_of(net: object) -> Run | None:
    """The run that a net was loaded from; None of any other, whatever it may call `run`."""
    run = getattr(net, "run", None)
    return run if isinstance(run, Run) else None


class Writer:
    """Keeps a run going on a full disk: what cannot be written is told once, and tried again with what comes next.

    The files that are there stay as they are meanwhile, so that what was saved last can be resumed from.
    """

    def __init__(self, run: Run, tell: Tell):
        self.run, self.tell = run, tell
        for part in run.path.rglob(".*.part"):  # of a process that was killed as it wrote, a snapshot perhaps
            part.unlink(missing_ok=True)
        self._waiting: dict[str, Callable[[], None]] = {}  # the newest of each kind
        self._problem = ""  # why the latest could not be written

    @property
    def unsaved(self) -> str:
        """Why the latest state could not be written; "" where it was."""
        return self._problem if "state" in self._waiting else ""

    def keep_model(self, weights: Mapping[str, Tensor], card: dict, snapshot: Run | None = None) -> None:
        """Weights that may have changed by the time there is room for them: the run's, or those of a snapshot."""
        own = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        self._write(f"model {snapshot and snapshot.path}", partial((snapshot or self.run).save_model, own, card))

    def write_metrics(self, history: Iterable[dict]) -> None:
        self._write("metrics", partial(self.run.write_metrics, list(history)))

    def save_state(self, state: dict) -> None:
        """A state that could not be saved is never tried again once training has gone on, for its tensors have too."""
        self._write("state", partial(self.run.save_state, state))

    def close(self) -> None:
        """Write what is still waiting. Raises OSError if that fails again."""
        for action in self._waiting.values():
            action()

    def _write(self, kind: str, action: Callable[[], None]) -> None:
        self._waiting.pop("state", None)
        self._waiting[kind] = action
        try:
            for name in list(self._waiting):
                self._waiting[name]()
                del self._waiting[name]
        except OSError as error:
            if not self._problem:
                self.tell(f"{error.strerror}: {self.run.path} cannot be written; the run goes on, and tries again")
            self._problem = error.strerror or str(error)
        else:
            self._problem = ""


def digest(value: object) -> str:
    """SHA-256 of a state made of dictionaries, sequences, numbers, texts and tensors."""
    sha = hashlib.sha256()

    def feed(value: object) -> None:
        if isinstance(value, Tensor):
            sha.update(f"tensor {value.dtype} {tuple(value.shape)}".encode())
            sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        elif isinstance(value, Mapping):
            sha.update(f"mapping {len(value)}".encode())
            for key, item in value.items():
                sha.update(repr(key).encode())
                feed(item)
        elif isinstance(value, list | tuple):
            sha.update(f"sequence {len(value)}".encode())
            for item in value:
                feed(item)
        else:
            sha.update(repr(value).encode())

    feed(value)
    return sha.hexdigest()
