"""Model soups: several nets' weights averaged into one net."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import cnnzoo
from cnnzoo import config as config_
from cnnzoo.checkpoint import Run
from cnnzoo.data import sources
from cnnzoo.errors import InputError
from cnnzoo.registry import unregister


def digits(folder, name: str = "mlp", epochs: int = 1, lr: float = 0.1, **sections) -> dict:
    args = {"image_size": 8, "hidden": [24, 12]} if name == "mlp" else {}
    return {
        "run": str(folder),
        "model": {"name": name, "args": args, "pretrained": sections.pop("pretrained", False)},
        "data": {"size": 8, "val_fraction": 0.6},
        "optim": {"lr": lr},
        "train": {"epochs": epochs, "batch_size": 64, "compile": False, "seed": sections.pop("seed", 0)},
    } | sections


class Normed(nn.Module):
    """A net with BatchNorm that trains in no time."""

    def __init__(self, num_classes: int = 10, in_chans: int = 1):
        super().__init__()
        self.num_classes = num_classes
        self.conv1, self.bn1 = nn.Conv2d(in_chans, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 16, num_classes)

    def forward(self, x):
        return self.fc(nn.functional.adaptive_max_pool2d(self.bn1(self.conv1(x)).relu(), 4).flatten(1))


@pytest.fixture
def normed():
    cnnzoo.register("normed", input_size=(1, 8, 8), num_classes=10, head="fc")(Normed)
    yield "normed"
    unregister("normed")


def trained(folder, **options) -> Run:
    return cnnzoo.train(digits(folder, **options), with_report=False)


def top1(run: Run) -> float:
    outputs, targets = run.predictions
    return (outputs.argmax(1) == targets).mean()


def state(run: Run) -> dict[str, torch.Tensor]:
    return cnnzoo.load(run).state_dict()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("base") / "mlp", epochs=3)


@pytest.fixture(scope="module")
def siblings(base, tmp_path_factory):
    """Three runs fine-tuned from the same weights."""
    folder = tmp_path_factory.mktemp("siblings")
    return [trained(folder / f"{seed}", pretrained=str(base.path), seed=seed, lr=0.02) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """One that comes from other weights."""
    return trained(tmp_path_factory.mktemp("stranger") / "mlp", epochs=3, seed=9)


def test_a_uniform_soup_is_the_mean_of_all_weights(siblings, tmp_path):
    soup = cnnzoo.soup(siblings, "uniform", run=tmp_path / "soup")
    states = [state(run) for run in siblings]
    for name, tensor in state(soup).items():
        torch.testing.assert_close(tensor, sum(each[name] for each in states) / 3)
    again = cnnzoo.create("mlp", image_size=8, hidden=[24, 12])
    again.load_state_dict(state(soup))


def test_a_soup_is_a_run_like_any_other(siblings, tmp_path):
    soup = cnnzoo.soup(siblings, run=tmp_path / "soup")
    assert Run.open(soup.path).split == siblings[0].split
    assert cnnzoo.evaluate(soup.path).top1 == pytest.approx(top1(soup))
    assert cnnzoo.load(soup).classes == tuple("0123456789")
    assert [line["epoch"] for line in soup.metrics] == [0]
    assert soup.metrics[0]["val_top1"] == pytest.approx(top1(soup))
    assert "Members and soup" in soup.report_file.read_text()


def test_without_its_predictions_it_says_how_to_go_on(siblings, tmp_path):
    soup = cnnzoo.soup(siblings, "uniform", run=tmp_path / "soup")
    way = rf"make .* anew by cnnzoo train --config {soup.config_file} --run NEW"
    for damage in (lambda file: file.write_bytes(b"half"), Path.unlink):
        damage(soup.predictions_file)
        with pytest.raises(InputError, match=way):
            _ = soup.predictions


def test_its_config_makes_it_again(siblings, tmp_path, cli):
    soup = cnnzoo.soup(siblings, "uniform", run=tmp_path / "soup")
    assert cli("train", "--config", soup.config_file, "--run", tmp_path / "again").code == 0
    np.testing.assert_array_equal(Run(tmp_path / "again").predictions[0], soup.predictions[0])
    assert cli("report", soup.path).code == 0


def test_a_greedy_soup_is_never_below_its_best_member(siblings, stranger, tmp_path):
    told = []
    soup = cnnzoo.soup([stranger, *siblings], run=tmp_path / "soup", tell=told.append)
    assert top1(soup) >= max(top1(run) for run in siblings)
    facts = json.loads((soup.path / "soup.json").read_text())
    alone = [each["top1"] for each in facts["ingredients"]]
    assert alone == sorted(alone, reverse=True)
    assert facts["ingredients"][0]["taken"]
    taken = [state(Run(each["run"])) for each in facts["ingredients"] if each["taken"]]
    for name, tensor in state(soup).items():
        torch.testing.assert_close(tensor, sum(each[name] for each in taken) / len(taken))
    assert any(line.startswith(f"greedy soup of {len(taken)}: validation {top1(soup):.2%}") for line in told)


def test_a_member_from_other_weights_is_told_and_left_out(siblings, stranger, tmp_path):
    told = []
    soup = cnnzoo.soup([*siblings, stranger], run=tmp_path / "soup", tell=told.append)
    assert [line for line in told if "do not seem to come from the same weights" in line] == [
        line for line in told if line.startswith(str(stranger.path)) and "halfway between them" in line
    ]
    of_it = next(
        each for each in json.loads((soup.path / "soup.json").read_text())["ingredients"] if "stranger" in each["run"]
    )
    assert of_it["barrier"] > 0.02
    assert not of_it["taken"]


@pytest.mark.parametrize("grows_from", [1, 0.5])
def test_statistics_of_batch_norm_are_those_of_the_averaged_weights(normed, tmp_path, grows_from):
    first = trained(tmp_path / "base", name=normed)
    options = {"name": normed, "pretrained": str(first.path), "lr": 0.01, "augment": {"grows_from": grows_from}}
    runs = [trained(tmp_path / f"{seed}", seed=seed, **options) for seed in (1, 2)]
    told = []
    soup = cnnzoo.soup(runs, "uniform", run=tmp_path / "soup", tell=told.append)
    assert any("BatchNorm's statistics were computed anew" in line for line in told)
    net = cnnzoo.load(soup)
    config = config_.read(runs[0].config_file)
    train = sources.load(config.data, config.augment, 8).train
    images = torch.stack([net.preprocessing(image.squeeze(2)) for image in train.images.take(np.arange(len(train)))])
    with torch.no_grad():
        mean = net.conv1(images).mean((0, 2, 3))
    members = sum(state(run)["bn1.running_mean"] for run in runs) / 2
    off, of_members = ((value - mean).abs().max() for value in (net.bn1.running_mean, members))
    assert off < 0.02  # a few images are in no whole batch
    assert off < of_members


def test_statistics_that_fine_tuning_kept_are_kept(normed, tmp_path):
    first = trained(tmp_path / "base", name=normed)
    options = {"name": normed, "pretrained": str(first.path), "lr": 0.01}
    runs = []
    for seed in (1, 2):
        asked = digits(tmp_path / f"{seed}", seed=seed, **options)
        asked["train"]["batch_norm"] = "keep"
        runs.append(cnnzoo.train(asked, with_report=False))
    told = []
    soup = cnnzoo.soup(runs, "uniform", run=tmp_path / "soup", tell=told.append)
    assert not any("BatchNorm" in line for line in told)
    torch.testing.assert_close(state(soup)["bn1.running_mean"], state(first)["bn1.running_mean"])


def test_the_command_prints_a_table_and_goes_on(siblings, tmp_path, cli):
    code, out, _ = cli("soup", *(run.path for run in siblings), "--run", tmp_path / "soup")
    assert code == 0
    assert out.splitlines()[0].split()[:2] == ["member", "validation"]
    assert f"go on with: cnnzoo predict {tmp_path / 'soup'}" in out


def test_what_cannot_be_averaged_is_told(normed, siblings, tmp_path, fails):
    other = trained(tmp_path / "other", name=normed)
    split = trained(tmp_path / "split", data={"size": 8, "val_fraction": 0.6, "split_seed": 5})
    wide = digits(tmp_path / "wide")
    wide["model"]["args"] = {"image_size": 8, "hidden": [30, 12]}
    wide = cnnzoo.train(wide, with_report=False)
    first = siblings[0]
    for runs, words, said in (
        ([first, other], [], "it has another net and another model.args"),
        ([first, wide], [], "it has another model.args"),
        ([first, split], [], "the same"),
        ([first], [], "two members at least"),
        ([first, first], [], "named twice"),
        (siblings, ["--method", "gredy"], "did you mean greedy?"),
    ):
        assert said in fails("soup", *(run.path for run in runs), *words, "--run", tmp_path / "bad")
        assert not (tmp_path / "bad").exists()


def test_classes_in_another_order_have_no_common_weights(siblings, tmp_path):
    run = siblings[0]
    turned = Run(tmp_path / "turned")
    for name in ("config.yaml", "split.json", "environment.json"):
        turned.write(name, (run.path / name).read_bytes())
    card = run.card
    turned.save_model(state(run), {**card, "classes": card["classes"][::-1]})
    outputs, targets = run.predictions
    turned.save_predictions(outputs, 9 - targets)
    with pytest.raises(InputError, match="its classes in another order"):
        cnnzoo.soup([run, turned], run=tmp_path / "bad")
