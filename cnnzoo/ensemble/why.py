"""Why a committee of runs is better than its members, or is not: from run folders to `Diversity` and its pictures."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from cnnzoo import whereabouts, zoo
from cnnzoo.checkpoint import Run
from cnnzoo.data import sources
from cnnzoo.data.decoded import real_paths
from cnnzoo.ensemble import dossier, members
from cnnzoo.ensemble.combine import Combination, combine
from cnnzoo.ensemble.diversity import Diversity, study
from cnnzoo.errors import InputError
from cnnzoo.summary import summary
from cnnzoo.telling import Tell


def diversity(
    runs: Sequence[str | Path | Run],
    method: str = "mean",
    *,
    weights: Sequence[float] | None = None,
    data: str | None = None,
    root: str | None = None,
    seed: int = 0,
    device: str = "auto",
    out: str | Path | None = None,
    tell: Tell = print,
) -> Diversity:
    """Compare the committee of some runs with its members.

    Args:
        runs: two or more run folders.
        method: by which they are combined, see `cnnzoo.combine`; one that learns is judged cross-fitted.
        weights: of the members, as `cnnzoo.combine` takes them.
        data: a source that none was trained on, or a folder; None takes the images that all of them held out.
        root: where named sets lie, if elsewhere than the runs say.
        seed: of the parts for cross-fitting.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …, for predictions that must be made.
        out: a new folder for tables and pictures; None writes nothing.
        tell: is given a line where predictions are made, and where there are no images for the pictures of `out`.

    Raises:
        InputError: as `cnnzoo.combine` does, and where `out` holds something already.
    """
    if out is not None:
        dossier.check(out)
    panel = members.panel(runs, data, root=root, device=device, tell=tell)
    for note in panel.notes:
        tell(note)
    return explain(combine(panel, method, weights, seed), data, root, out, tell)


def explain(
    combined: Combination,
    data: str | None = None,
    root: str | None = None,
    out: str | Path | None = None,
    tell: Tell = print,
) -> Diversity:
    """Compare a committee with its members on their panel; `data`, `root`, `out` and `tell` as in `diversity`."""
    panel = combined.panel
    result = study(panel, combined.method, combined.honest, [cost(name) for name in panel.names])
    if out is not None:
        dossier.write(result, out, partial(_look, panel.names[0], data, root), tell)
    return result


def cost(run: str | Path) -> int:
    """Multiply-adds of a run's net for one image of the size that it takes."""
    return summary(run).total.macs


def _look(run: str, data: str | None, root: str | None, names: Sequence[str]) -> np.ndarray:
    """Images as a run's net sees them before they are normalised: of `data`, or of what the run held out."""
    opened, (net, own) = Run(run), zoo.open_net(run)
    chosen, split = whereabouts.find(opened, own, data, str(run))
    chosen = chosen if root is None else replace(chosen, root=root)
    part, _, _ = sources.held_out(chosen, zoo.preprocessing(net), split=False, names=split and split["val"])
    place, files = {file: i for i, file in enumerate(real_paths(part.names))}, real_paths(names)
    if data is None:  # they are called as when the run was trained
        now = dict(zip(real_paths(opened.split["val"]), real_paths(split["val"]), strict=True))
        files = [now.get(file, file) for file in files]
    if strangers := [name for name, file in zip(names, files, strict=True) if file not in place]:
        raise InputError(f"{chosen.source} no longer holds {strangers[0]}, on which {run} was judged")
    return part.images.take(np.array([place[file] for file in files]))
