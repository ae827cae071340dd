"""Committees on real images: what each member reaches, and what each way of combining them makes of it.

    python scripts/benchmark_ensembles.py                  # all, about a quarter of an hour on two cores
    python scripts/benchmark_ensembles.py mnist flowers    # some of it

    mnist, fashion_mnist   five LeNet-5, each with a seed of its own and trained for 10 epochs on a bootstrap sample of
                           8,000 images
    flowers                six probes: logistic regression, nearest neighbours and a small net on the features of
                           squeezenet1_1 and googlenet_2014, each of 960 photos

Members train on four fifths of a part of the images, what learns how to combine them learns on the last fifth, and all
are judged on test images that nothing has learnt from: the 10,000 of MNIST and Fashion-MNIST, 300 other photos of
flowers. Each of three seeds divides, trains and combines anew. Printed are tables for docs/ensembles.md.

Images are read from $CNNZOO_DATA, weights from $CNNZOO_WEIGHTS. BENCH_SEEDS (how many), BENCH_EPOCHS, BENCH_TRAIN and
BENCH_TEST (images of each class) narrow what is measured.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measure import main
from PIL import Image
from torch import nn
from torchvision import datasets

import cnnzoo
from cnnzoo.benchmark.harness import cached_in, data_root
from cnnzoo.telling import silent

DATA = data_root()
SEEDS = range(int(os.environ.get("BENCH_SEEDS", "3")))
EPOCHS = int(os.environ.get("BENCH_EPOCHS", "10"))
NETS = {"squeezenet1_1": "caffe_in1k", "googlenet_2014": "bvlc_in1k"}


def many(what: str, default: int) -> int:
    """Images of each class."""
    return int(os.environ.get(f"BENCH_{what}", default))


def lenets(kind: str, mean: float, std: float, folder: Path) -> Iterator[dict[str, cnnzoo.Run]]:
    """Members by name, seed after seed: LeNet-5 on a part of MNIST's or Fashion-MNIST's training images."""
    for part, train, each in (("train", True, many("TRAIN", 1000)), ("test", False, many("TEST", 10_000))):
        data = getattr(datasets, kind)(DATA, train=train)
        for label in range(10):
            (folder / part / str(label)).mkdir(parents=True)
            for place in np.flatnonzero(data.targets.numpy() == label)[:each]:
                Image.fromarray(data.data[place].numpy()).save(folder / part / str(label) / f"{place}.png")
    for seed in SEEDS:
        yield {
            f"lenet5, sample {member}": cnnzoo.train(
                {
                    "run": f"{folder}/{seed}/{member}",
                    "model": {"name": "lenet5", "in_chans": 1},
                    "data": {
                        "source": f"{folder}/train",
                        "resize": 28,  # in LeNet's 32
                        "mean": [mean],
                        "std": [std],
                        "split_seed": seed,
                        "bag": member,
                    },
                    "optim": {"lr": 0.05, "nesterov": True, "weight_decay": 5e-4},
                    "train": {"epochs": EPOCHS, "batch_size": 64, "seed": 100 * seed + member},
                },
                with_report=False,
                tell=silent,
            )
            for member in range(1, 6)
        }


def probes(folder: Path) -> Iterator[dict[str, cnnzoo.Run]]:
    """The same: shallow classifiers on the features of two nets."""
    train, test = many("TRAIN", 240), many("TEST", 60)
    for kind in sorted(entry for entry in (DATA / "flowers").iterdir() if entry.is_dir()):
        photos = np.random.default_rng(0).permutation(sorted(kind.iterdir()))[: train + test]
        for part, files in (("train", photos[:train]), ("test", photos[train:])):
            (folder / part / kind.name).mkdir(parents=True)
            for file in files:
                (folder / part / kind.name / file.name).symlink_to(file)
    for seed in SEEDS:
        yield {
            f"{classifier} on {net}": cnnzoo.probe(
                *(f"{folder}/train", net, weights),
                classifier=classifier,
                seed=seed,
                overrides=(f"--data.split_seed={seed}",),
                run=f"{folder}/{seed}/{net}_{classifier}",
                tell=silent,
            )
            for net, weights in NETS.items()
            for classifier in ("logistic", "knn", "mlp")
        }


# ---- what they reach

Figures = dict[str, tuple[float, float]]  # by member or method: per cent right, on validation and on test images


def judge(runs: dict[str, cnnzoo.Run], test: Path) -> Figures:
    ensemble, members = cnnzoo.Ensemble(list(runs.values()), "all", tell=silent), list(runs)
    own, new = ensemble.panel, cnnzoo.Ensemble(list(runs.values()), data=str(test), tell=silent).panel
    chosen, best = int(own.top1.argmax()), int(new.top1.argmax())
    figures = {name: (own.top1[place], new.top1[place]) for place, name in enumerate(members)}
    figures["the member that is best on validation"] = figures[members[chosen]]
    figures["the member that is best on test"] = figures[members[best]]
    for one in ensemble.contest.combinations:
        figures[f"**{one.method}**"] = one.top1, accuracy(one.rule, new)
    return {name: (100 * float(before), 100 * float(after)) for name, (before, after) in figures.items()}


@torch.inference_mode()
def accuracy(rule: nn.Module, panel) -> float:
    """Of a rule on what the members say of other images than it was fitted on."""
    said = rule(torch.from_numpy(panel.log_probabilities)).argmax(1).numpy()
    return float(np.mean(said == panel.targets))


def why(runs: dict[str, cnnzoo.Run], test: Path) -> str:
    """The mean of probabilities beside independent members, in a line."""
    found = cnnzoo.diversity(list(runs.values()), "mean", data=str(test))
    above = np.triu_indices(len(runs), 1)
    return (
        f"most members are right on {found.majority:.2%}, independent ones would be on {found.independent:.2%}; mean Q "
        f"{np.nanmean(found.pairs.q_statistic[above]):.2f}, correlation of errors "
        f"{np.nanmean(found.pairs.correlation[above]):.2f}; the mean rescues {len(found.rescued)} images of the best "
        f"member and loses {len(found.lost)} (p = {found.p:.1g})"
    )


def measure(name: str, make: Callable[[Path], Iterator[dict[str, cnnzoo.Run]]]) -> list[dict]:
    """Make and judge the committees of a set; tell how long it took."""
    started, judged = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder, cached_in(Path(folder) / "cache"):
        for runs in make(Path(folder)):
            judged.append(judge(runs, Path(folder) / "test"))
            print(f"{name}, seed {len(judged) - 1}: {why(runs, Path(folder) / 'test')}", flush=True)
    minutes = (time.perf_counter() - started) / 60
    print(f"\n| {name}, {minutes:.0f} minutes | validation | test | test, seed by seed |\n|---|---:|---:|---|")
    rows = []
    for what in judged[0]:
        before, after = zip(*(figures[what] for figures in judged), strict=True)
        each = ", ".join(f"{figure:.2f}" for figure in after)
        print(f"| {what} | {np.mean(before):.2f} | {np.mean(after):.2f} | {each} |", flush=True)
        rows.append({"what": f"{name}, {what}", "validation": before, "test": after})
    print()
    return rows


SETS: dict[str, Callable[[Path], Iterator[dict[str, cnnzoo.Run]]]] = {
    "mnist": partial(lenets, "MNIST", 0.1307, 0.3081),
    "fashion_mnist": partial(lenets, "FashionMNIST", 0.2860, 0.3530),
    "flowers": probes,
}

if __name__ == "__main__":
    main(__doc__, {name: partial(measure, name, make) for name, make in SETS.items()})
