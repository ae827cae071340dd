"""Where else a run's figures go: a table for spreadsheets, TensorBoard, Weights & Biases.

metrics.jsonl is always written and holds all; what is here is for the tools a person has open already. A logger is told
the whole history each time, so that a resumed run leaves no epoch twice.
"""

import csv
import importlib
import io
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cnnzoo import atomic
from cnnzoo.errors import InputError, unknown
from cnnzoo.telling import Tell, silent

History = Sequence[Mapping[str, Any]]  # for each finished epoch its number under "epoch", and its figures


class Csv:
    """metrics.csv beside metrics.jsonl: a column for each figure, a line for each epoch."""

    needs = None

    def __init__(self, folder: Path, config: Mapping):
        self.file = folder / "metrics.csv"

    def log(self, history: History) -> None:
        columns = dict.fromkeys(key for report in history for key in report)
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, columns)
        table.writeheader()
        table.writerows(history)
        atomic.write(self.file, text.getvalue().encode())

    def close(self) -> None:
        pass


class TensorBoard:
    """Event files under tensorboard/ in the run folder; `tensorboard --logdir runs` compares runs."""

    needs = "torch.utils.tensorboard"

    def __init__(self, folder: Path, config: Mapping):
        self.folder, self.writer = folder / "tensorboard", None

    def log(self, history: History) -> None:
        from torch.utils.tensorboard import SummaryWriter

        new = history[-1:]
        if self.writer is None:  # a run may have begun without it, so it hears all, and forgets what it heard before
            new = history
            self.writer = SummaryWriter(str(self.folder), purge_step=history[0]["epoch"])
        for report in new:
            for name, figure in figures(report).items():
                self.writer.add_scalar(name, figure, report["epoch"])
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class WandB:
    """A run of Weights & Biases, named after the run folder; project and mode are its own environment's
    (WANDB_PROJECT, by default cnnzoo, and WANDB_MODE, such as offline).
    """

    needs = "wandb"

    def __init__(self, folder: Path, config: Mapping):
        self.folder, self.config, self.run = folder, dict(config), None

    def log(self, history: History) -> None:
        new = history[-1:]
        if self.run is None:
            file = self.folder / "wandb" / "id"
            new = new if file.exists() else history
            self.run = self._begin(file)
        for report in new:
            self.run.log(figures(report), step=report["epoch"])

    def _begin(self, file: Path):
        """Go on with the same run after a resume: its id is kept beside what wandb keeps in the folder."""
        import wandb

        known = file.read_text(encoding="utf-8").strip() if file.exists() else None
        run = wandb.init(
            id=known or secrets.token_hex(4),
            resume="allow",
            project=os.environ.get("WANDB_PROJECT", "cnnzoo"),
            name=self.folder.name,
            dir=str(self.folder),
            config=self.config,
            settings=wandb.Settings(silent=True, console="off"),
        )
        atomic.write(file, run.id.encode())
        return run

    def close(self) -> None:
        if self.run is not None:
            self.run.finish()


KNOWN: dict[str, type] = {"csv": Csv, "tensorboard": TensorBoard, "wandb": WandB}


def figures(report: Mapping[str, Any]) -> dict[str, float]:
    """What of a report can be drawn over epochs."""
    return {key: value for key, value in report.items() if key != "epoch" and isinstance(value, int | float)}


class Loggers:
    """Several loggers as one. One that fails is told of and let go: no run ends for want of a picture. One that merely
    cannot write, to a full disk, say, is tried again.
    """

    def __init__(self, loggers: Mapping[str, Any], tell: Tell):
        self.loggers, self.tell = dict(loggers), tell
        self._failing: set[str] = set()

    def log(self, history: History) -> None:
        """Tell all of them of the latest epoch; `history` holds every finished one."""
        for name, logger in list(self.loggers.items()):
            try:
                logger.log(history)
                self._failing.discard(name)
            except OSError as error:
                if name not in self._failing:
                    self.tell(f"the {name} logger could not write ({_one_line(error)}); it tries again")
                self._failing.add(name)
            except Exception as error:  # of any kind: a library and a network stand behind it
                del self.loggers[name]
                with suppress(Exception):
                    logger.close()
                self.tell(f"the {name} logger stopped ({_one_line(error)}); the run goes on without it")

    def close(self) -> None:
        for name, logger in self.loggers.items():
            try:
                logger.close()
            except Exception as error:
                self.tell(f"the {name} logger could not finish ({_one_line(error)})")


def open_(names: Iterable[str], folder: str | Path, config: Mapping, tell: Tell = silent) -> Loggers:
    """The loggers of a run. Nothing is written before the first epoch is logged.

    Args:
        names: any of csv, tensorboard, wandb.
        folder: the run folder.
        config: the run's, as plain data; Weights & Biases keeps it beside the figures.
        tell: is given a line when a logger fails.

    Raises:
        InputError: for an unknown name, and for a library that is not installed.
    """
    for name in (names := tuple(dict.fromkeys(names))):
        if name not in KNOWN:
            raise unknown("logger in train.loggers", name, KNOWN)
        try:
            if KNOWN[name].needs:
                importlib.import_module(KNOWN[name].needs)
        except ImportError:
            raise InputError(
                f'train.loggers has {name}, which is not installed; pip install "cnnzoo[{name}]" brings it'
            ) from None
    return Loggers({name: KNOWN[name](Path(folder), config) for name in names}, tell)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
