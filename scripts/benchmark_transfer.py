"""Transfer learning beside what people do by hand: accuracy on real photos, and speed, in one run.

    python scripts/benchmark_transfer.py probe            # accuracies, about half an hour on two cores
    python scripts/benchmark_transfer.py finetune         # hours on two cores
    python scripts/benchmark_transfer.py frozen predict   # speed, about ten minutes
    python scripts/benchmark_transfer.py strangers        # some minutes

    probe      cnnzoo probe against scikit-learn's LogisticRegression on features taken by hand from the same net, by
               torchvision's transforms, on the same split
    finetune   cnnzoo finetune against its own probe, and against the loop of PyTorch's transfer-learning tutorial: a
               new head alone, then all of the net, for as many epochs each
    frozen     cnnzoo probe, cache empty, against the tutorial's loop over a frozen net for 10 and 50 epochs
    strangers  how many photos of other things a probe calls unlike its training images, and is sure of all the same
    predict    cnnzoo.predict over JPEG photos against a DataLoader with torchvision's and with timm's own transforms

Photos are read from $CNNZOO_DATA (hymenoptera, flowers, cifar10_jpeg), weights from $CNNZOO_WEIGHTS. BENCH_NETS,
BENCH_SETS (names between commas, hymenoptera_pooled too), BENCH_SEEDS (how many), BENCH_EPOCHS and BENCH_SIZE narrow
what is measured.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import timm.data
import torch
from measure import main, ratios
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader

import cnnzoo
from cnnzoo import learn
from cnnzoo.benchmark.harness import cached_in, data_root
from cnnzoo.benchmark.peers import transforms
from cnnzoo.familiar import STRANGE
from cnnzoo.telling import silent

DATA = data_root()
NETS = {"squeezenet1_1": "caffe_in1k", "googlenet_2014": "bvlc_in1k"}
SETS = ("hymenoptera", "flowers", "cifar10_jpeg")
SEEDS = range(int(os.environ.get("BENCH_SEEDS", "3")))


def chosen(what: str, known) -> list[str]:
    """Those of `known` that the environment names, else all."""
    return os.environ.get(what, ",".join(known)).split(",")


@contextmanager
def empty_cache() -> Iterator[Path]:
    """A folder for runs, and a cache with nothing in it."""
    with tempfile.TemporaryDirectory() as folder, cached_in(Path(folder) / "cache"):
        yield Path(folder)


# Sets of links to photos: where each part of the original goes, and how many photos of a class.
LINKED = {
    "cifar10_jpeg": (("train", "train", 500), ("test", "val", 100)),
    "hymenoptera_pooled": (("train", "", None), ("val", "", None)),
}


def source_of(name: str, folder: Path) -> Path:
    """The set's folder. Of CIFAR-10 5,000 photos to train and 1,000 to judge on; `hymenoptera_pooled` is hymenoptera
    without its split, so that each seed makes another one, of 80 % and 20 %: its own leaves 153 photos to judge on,
    which tells two methods apart only where they are 5 points apart.
    """
    if name not in LINKED:
        return DATA / name
    linked = folder / name
    for part, goal, many in LINKED[name]:
        for kind in sorted((DATA / name.removesuffix("_pooled") / part).iterdir()):
            (linked / goal / kind.name).mkdir(parents=True, exist_ok=True)
            for file in sorted(kind.iterdir())[:many]:
                link = linked / goal / kind.name / file.name
                if not link.exists():
                    link.symlink_to(file)
    return linked


def by_hand(net: nn.Module, size: int | None = None, training: bool = False) -> Callable:
    """torchvision's transforms for a net's weights."""
    p = cnnzoo.preprocessing(net)
    size = size or p.size
    side = round(p.resize * size / p.size)
    return transforms(size, (side, side) if p.squash else side, training, p.mean, p.std)


class Photos(torch.utils.data.Dataset):
    """Files and labels, as every tutorial has them."""

    def __init__(self, files: list[str], labels: list[int], transform: Callable):
        self.files, self.labels, self.transform = files, labels, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int):
        return self.transform(Image.open(self.files[place]).convert("RGB")), self.labels[place]


def split_of(run, classes: tuple[str, ...]) -> dict[str, tuple[list[str], list[int]]]:
    """The very files that a run trained on and judged, with their labels."""
    return {
        part: (files, [classes.index(Path(file).parent.name) for file in files]) for part, files in run.split.items()
    }


@torch.inference_mode()
def features_by_hand(net: nn.Module, files: list[str], labels: list[int]) -> np.ndarray:
    loader = DataLoader(Photos(files, labels, by_hand(net)), batch_size=32)
    net.eval()
    return torch.cat([net.forward_head(net.forward_features(x), pre_logits=True) for x, _ in loader]).numpy()


# ---- the measurements


def probe() -> list[dict]:
    rows = []
    for name in chosen("BENCH_NETS", NETS):
        net = cnnzoo.create(name, NETS[name])
        for data in chosen("BENCH_SETS", SETS):
            ours, best, theirs = [], [], []
            known: dict[str, np.ndarray] = {}
            with tempfile.TemporaryDirectory() as folder:
                source = source_of(data, Path(folder))
                for seed in SEEDS:
                    overrides = (f"--data.split_seed={seed}",)
                    for classifier, into in (("logistic", ours), ("auto", best)):
                        run = cnnzoo.probe(
                            *(source, name, NETS[name]),
                            classifier=classifier,
                            seed=seed,
                            overrides=overrides,
                            run=f"{folder}/{classifier}{seed}",
                            tell=silent,
                        )
                        into.append(100 * run.metrics[0]["val_top1"])
                    split = split_of(run, cnnzoo.load(run).classes)
                    unseen = [(f, y) for part in split.values() for f, y in zip(*part, strict=True) if f not in known]
                    if unseen:
                        files, labels = map(list, zip(*unseen, strict=True))
                        known |= dict(zip(files, features_by_hand(net, files, labels), strict=True))
                    (train, y), (val, z) = split["train"], split["val"]
                    sklearn = LogisticRegression(max_iter=1000).fit(np.stack([known[file] for file in train]), y)
                    theirs.append(100 * sklearn.score(np.stack([known[file] for file in val]), z))
            rows.append({"what": f"probe, {name}, {data}", "logistic": ours, "auto": best, "scikit-learn": theirs})
            print(
                f"probe, {name}, {data}: logistic {mean(ours)}, best of all {mean(best)}, "
                f"scikit-learn's LogisticRegression by hand {mean(theirs)}",
                flush=True,
            )
    return rows


def mean(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f} % ({', '.join(f'{value:.2f}' for value in values)})"


def plain_loop(
    name: str, split: dict, classes: int, epochs: tuple[int, int], size: int | None, seed: int
) -> list[float]:
    """The tutorial's loop: SGD 0.001, momentum 0.9, a tenth of the rate after 7 epochs. Accuracies, epoch by epoch."""
    torch.manual_seed(seed)
    net = cnnzoo.create(name, NETS[name], num_classes=classes, **({"aux_logits": False} if "googlenet" in name else {}))
    sets = {part: Photos(*split[part], by_hand(net, size, part == "train")) for part in split}
    loaders = {part: DataLoader(sets[part], batch_size=32, shuffle=part == "train") for part in sets}
    head = set(net.get_classifier().parameters())
    reached = []
    for phase, many in enumerate(epochs):
        for parameter in net.parameters():
            parameter.requires_grad_(phase == 1 or parameter in head)
        optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.001, momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.1)
        for _ in range(many):
            net.train()
            for x, y in loaders["train"]:
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()
            schedule.step()
            net.eval()
            with torch.no_grad():
                right = sum((net(x).argmax(1) == y).sum().item() for x, y in loaders["val"])
            reached.append(100 * right / len(sets["val"]))
    return reached


def finetune() -> list[dict]:
    epochs = tuple(map(int, os.environ.get("BENCH_EPOCHS", "2,4").split(",")))
    size = int(os.environ["BENCH_SIZE"]) if "BENCH_SIZE" in os.environ else None
    rows = []
    for name in chosen("BENCH_NETS", NETS):
        for data in chosen("BENCH_SETS", SETS[:2]):
            for seed in SEEDS:
                with tempfile.TemporaryDirectory() as folder:
                    overrides = [f"--data.split_seed={seed}", *([f"--data.size={size}"] if size else [])]
                    run = learn.finetune(
                        *(source_of(data, Path(folder)), name, NETS[name]),
                        epochs=epochs,
                        seed=seed,
                        overrides=overrides,
                        run=f"{folder}/run",
                        tell=silent,
                    )
                    ours = [100 * report["val_top1"] for report in run.metrics]
                    classes = cnnzoo.load(run).classes
                    theirs = plain_loop(name, split_of(run, classes), len(classes), epochs, size, seed)
                row = {"what": f"finetune, {name}, {data}, seed {seed}", "ours": ours, "plain": theirs, "size": size}
                print(json.dumps(row), flush=True)
                rows.append(row)
    return rows


def frozen_loop(net: nn.Module, classes: int, split: dict, epochs: int) -> float:
    """Seconds of the tutorial's "ConvNet as fixed feature extractor"."""
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    net.reset_classifier(classes)
    sets = {part: Photos(*split[part], by_hand(net, training=part == "train")) for part in split}
    loaders = {part: DataLoader(sets[part], batch_size=4, shuffle=True, num_workers=4) for part in sets}
    optimizer = torch.optim.SGD(net.get_classifier().parameters(), lr=0.001, momentum=0.9)
    started = time.perf_counter()
    for _ in range(epochs):
        for part, loader in loaders.items():
            net.train(part == "train")
            for x, y in loader:
                optimizer.zero_grad()
                with torch.set_grad_enabled(part == "train"):
                    outputs = net(x)
                    main = outputs[0] if isinstance(outputs, tuple) else outputs  # the others' heads are not trained
                    loss = nn.functional.cross_entropy(main, y)
                    if part == "train":
                        loss.backward()
                        optimizer.step()
    return time.perf_counter() - started


def frozen(rounds: int = 5) -> list[dict]:
    """One epoch of the tutorial's loop is measured in each round and counted 10 and 50 times; ours trains once."""
    rows = []
    for name in chosen("BENCH_NETS", [*NETS, "resnet18"]):
        ours, theirs = [], []
        weights = NETS.get(name)
        file = None
        if weights is None:  # no trained weights here; random ones cost the same
            file = Path(tempfile.mkdtemp()) / f"{name}.pth"
            torch.save(cnnzoo.create(name).state_dict(), file)
        for turn in range(rounds):
            with empty_cache() as folder:
                started = time.perf_counter()
                run = cnnzoo.probe(
                    *(DATA / "hymenoptera", name, weights or str(file)),
                    classifier="logistic",
                    run=folder / f"run{turn}",
                    tell=silent,
                )
                ours.append(time.perf_counter() - started)
                split = split_of(run, ("ants", "bees"))
                net = cnnzoo.create(name, weights or str(file))
                if not hasattr(net, "preprocessing"):
                    net.preprocessing = cnnzoo.preprocessing(name)
                theirs.append(frozen_loop(net, 2, split, 1))
        for epochs in (10, 50):
            speeds = [epochs / seconds for seconds in ours], [1 / seconds for seconds in theirs]
            rows.append(ratios(f"frozen, {name}, {epochs} epochs", *speeds, "epochs/s"))
    return rows


def predict(rounds: int = 5) -> list[dict]:
    files = sorted(map(str, (DATA / "hymenoptera").rglob("*.jpg")))
    rows = []
    for name in chosen("BENCH_NETS", NETS):
        net = cnnzoo.create(name, NETS[name]).eval()
        p = cnnzoo.preprocessing(net)
        crop = {"interpolation": p.interpolation, "mean": p.mean, "std": p.std}
        shape = {"crop_pct": p.size / p.resize, "crop_mode": "squash" if p.squash else "center"}
        timms = timm.data.create_transform((3, p.size, p.size), **crop, **shape)
        times: dict[str, list[float]] = {"ours": [], "torchvision": [], "timm": []}
        outputs = {}
        for _ in range(rounds):
            for who, transform in (("ours", None), ("torchvision", by_hand(net)), ("timm", timms)):
                started = time.perf_counter()
                if transform is None:
                    outputs[who] = cnnzoo.predict(net, files).probabilities
                else:
                    loader = DataLoader(Photos(files, [0] * len(files), transform), batch_size=64, num_workers=2)
                    with torch.inference_mode():
                        outputs[who] = torch.cat([net(x).softmax(1) for x, _ in loader]).numpy()
                times[who].append(time.perf_counter() - started)
        for who in ("torchvision", "timm"):
            same = (outputs["ours"].argmax(1) == outputs[who].argmax(1)).mean()
            speeds = ([len(files) / seconds for seconds in times[one]] for one in ("ours", who))
            row = ratios(f"predict, {name}, against {who}", *speeds, "photos/s")
            apart = float(np.abs(outputs["ours"] - outputs[who]).max())
            print(f"   top-1 agrees on {same:.2%}, probabilities differ by {apart:.1e} at most", flush=True)
            rows.append(row | {"top1_agrees": float(same), "largest_difference": apart})
    return rows


def strangers(many: int = 400) -> list[dict]:
    """Shares, in percent, of `many` photos of other things, evenly spread."""
    rows = []
    for name in chosen("BENCH_NETS", NETS):
        for known in chosen("BENCH_SETS", ("hymenoptera", "flowers")):
            with empty_cache() as folder:
                options = {"classifier": "logistic", "run": folder / "run", "tell": silent}
                run = cnnzoo.probe(source_of(known, folder), name, NETS[name], **options)
                for other in sorted({"hymenoptera", "flowers", "imagenet_samples"} - {known}):
                    files = sorted((DATA / other).rglob("*.jpg"))
                    said = cnnzoo.predict(run, files[:: max(len(files) // many, 1)], tell=silent)
                    row = {"name": f"strangers, {name} that learnt {known}", "shown": other, "photos": len(said)}
                    row["called_strange"] = 100 * float(np.mean(said.familiarity < STRANGE))
                    row["sure"] = 100 * float(np.mean(said.probabilities.max(axis=1) > 0.9))
                    print(row, flush=True)
                    rows.append(row)
    return rows


if __name__ == "__main__":
    main(__doc__, {part.__name__: part for part in (probe, finetune, frozen, predict, strangers)})
