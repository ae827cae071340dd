"""The second way that lectures teach: fine-tuning, as a recipe of phases that is handed to run, not a second trainer.

A linear probe on frozen features gives the head its start, so that the first steps do not spoil what is below it
(Kumar, Raghunathan, Jones, Ma, Liang: Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution,
2022, arXiv 2202.10054); then the last stage moves, then all of the net, at rates that fall towards the input (Howard,
Ruder: Universal Language Model Fine-tuning for Text Classification, 2018, sections 3.2 and 3.3).
"""

import inspect
from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path

from cnnzoo import registry
from cnnzoo.checkpoint import Run
from cnnzoo.config import short_name, tagged
from cnnzoo.errors import InputError, counted, unknown

MODES = ("probe", "head", "staged", "full")
EPOCHS = {"probe": (), "head": (20,), "staged": (2, 4), "full": (6,)}  # of each phase, where nobody says
MOST_EPOCHS = 30  # of a phase, however much time there is
LR = 3e-4  # of AdamW, which does not mind how large a net's features are
DECAY = 0.85  # of the rate, from each stage to the one before it


def recipe(
    source: str | Path,
    model: str,
    pretrained: bool | str | Path | Run = True,
    *,
    mode: str = "staged",
    epochs: int | Sequence[int] | None = None,
    lr: float | None = None,
    batch_size: int = 32,
    seed: int = 0,
    balance: str = "none",
    views: int | None = None,
    classifier: str | None = None,
    run: str | Path | Run | None = None,
) -> dict:
    """The config of a probe or a fine-tuning run, as a mapping like its YAML.

    Args:
        source: a folder of class folders, a table (.csv, .tsv) that lists photos, or a data set's name.
        model: a net of the registry.
        pretrained: its weights: True (the best known), a tag, a file or a run folder.
        mode: probe (a shallow classifier on frozen features), head (a linear head trained on them), staged (a probe's
            head, then the last stage with it, then all) or full (a probe's head, then all at once).
        epochs: of each phase: one number for head and full, two for staged; a phase of 0 is left out.
        lr: the rate of the head; stages before it take smaller ones.
        batch_size: images to a step.
        seed: of everything random.
        balance: none, loss or sampler, see TrainConfig.
        views: of each training image that the probe sees; None is one in mode probe, else auto, see ProbeConfig.
        classifier: of the probe; None is the best of all for mode probe, else logistic.
        run: the run folder; None makes runs/<model>_<source>_<mode>.

    Raises:
        InputError: for a mode, a net, or a number of epochs that does not fit.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    model, pretrained = tagged(model, pretrained)
    entry = registry.lookup(model)
    epochs = _of_phases(mode, EPOCHS[mode] if epochs is None else epochs)
    aux = {"aux_logits": False} if "aux_logits" in inspect.signature(entry.build).parameters else {}
    augments = mode in ("staged", "full")
    seen = views if views is not None else 1 if mode == "probe" else "auto"
    return {
        "run": run or f"runs/{model}_{short_name(source)}_{mode}",
        "model": {"name": model, "pretrained": getattr(pretrained, "tag", pretrained), "head": "probe", "args": aux},
        "data": {"source": source},
        "augment": {"flip": augments or seen != 1, "crop": "resized" if augments or seen != 1 else None}
        | {"scale": [0.5, 1.0], "mixup": 0.05 if augments else 0.0},
        "loss": {"label_smoothing": 0.05 if augments else 0.0},
        "optim": {"name": "adamw", "lr": LR if lr is None else lr, "weight_decay": 0.01},
        "schedule": {"name": "one_cycle", "rise": 0.2},
        "probe": {"classifier": classifier or ("auto" if mode == "probe" else "logistic"), "views": seen},
        "train": {
            "epochs": sum(epochs),
            "batch_size": batch_size,
            "seed": seed,
            "phases": _phases(mode, epochs, [stage.name for stage in entry.stages]) or None,
            "batch_norm": "keep",
            "balance": balance,
            # One cycle gains most at its end, so only what brings nothing for most of a phase is cut short.
            "patience": max(3, 2 * max(epochs) // 3) if augments else None,
            "cache_features": "auto",
        },
    }


def _of_phases(mode: str, epochs: int | Sequence[int]) -> tuple[int, ...]:
    """The epochs of each phase. Raises InputError unless they are numbers, as many as the mode has phases."""
    given = epochs if isinstance(epochs, Iterable) else (epochs,)
    if isinstance(given, str) or not all(isinstance(n, Integral) for n in given):
        raise InputError(f"epochs is {epochs!r}, but must be a number for each phase, such as {EPOCHS[mode] or ()}")
    epochs = tuple(map(int, given))
    if len(epochs) != len(EPOCHS[mode]):
        wanted = f"say {','.join(map(str, EPOCHS[mode]))}" if EPOCHS[mode] else "leave it out"
        phases = counted(len(EPOCHS[mode]), "phase")
        raise InputError(f"mode {mode} has {phases}, but epochs names {len(epochs)}; {wanted}")
    return epochs


def _phases(mode: str, epochs: Sequence[int], stages: Sequence[str]) -> list[dict]:
    """What is trainable when, of a net of these stages, and at which rates, the head's being 1."""
    rates = {stage: round(DECAY**distance, 6) for distance, stage in enumerate(reversed(stages), 1)}
    moving = {"probe": [], "head": [["head"]], "staged": [[*stages[-1:], "head"], ["*"]], "full": [["*"]]}[mode]
    return [
        {"epochs": n, "trainable": names, "rates": rates if names != ["head"] else {}}
        for n, names in zip(epochs, moving, strict=True)
        if n
    ]
