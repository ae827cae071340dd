"""From run folders to why their committee is better, or is not."""

import json
import shutil
from pathlib import Path

import numpy as np
import photos
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import cnnzoo
from cnnzoo import calibrate
from cnnzoo.ensemble import members, why
from cnnzoo.ensemble.combine import combine


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three nets that know digits a little."""
    folder = tmp_path_factory.mktemp("runs")

    def trained(number: int, name: str):
        config = {
            "run": str(folder / f"{name}_{number}"),
            "model": {"name": name},
            "train": {"epochs": 1, "seed": number},
        }
        return cnnzoo.train(config, with_report=False)

    return [trained(number, name) for number, name in enumerate(("lenet5", "mlp", "lenet5"))]


def test_members_and_committee_are_judged_on_the_images_that_all_held_out(runs):
    found = cnnzoo.diversity(runs)
    assert found.names == tuple(str(run.path) for run in runs)
    assert found.count == len(runs[0].split["val"])
    said = []
    for run, top1 in zip(runs, found.top1, strict=True):
        logits, targets = run.predictions
        assert top1 == (logits.argmax(axis=1) == targets).mean()
        said.append(calibrate.softmax(logits, cnnzoo.load(run).temperature))
    assert found.committee_top1 == pytest.approx((np.mean(said, axis=0).argmax(axis=1) == targets).mean())
    assert len(found.subcommittees) == 7


def test_the_cost_is_what_the_net_multiplies_for_an_image(runs):
    assert cnnzoo.diversity(runs).costs == (
        cnnzoo.info("lenet5").macs,
        cnnzoo.info("mlp").macs,
        cnnzoo.info("lenet5").macs,
    )


def test_a_method_that_learns_is_judged_by_what_it_learnt_elsewhere(runs):
    combined = combine(members.panel(runs), "stacking")
    assert combined.honest_top1 < combined.top1
    found = cnnzoo.diversity(runs, "stacking")
    assert found.method == "stacking"
    assert found.committee_top1 == combined.honest_top1


def test_the_images_are_those_of_the_source(runs):
    names = runs[0].split["val"][5:9]
    digits = load_digits().images / 16 * 255
    for pixels, name in zip(why._look(runs[0].path, None, None, names), names, strict=True):
        inner = Image.fromarray(pixels[:, :, 0]).resize((8, 8), Image.Resampling.BOX)
        assert np.corrcoef(np.asarray(inner).ravel(), digits[int(name.split("/")[1])].ravel())[0, 1] > 0.95


def test_the_images_are_found_by_name_though_others_have_come_and_where_they_were_moved(tmp_path):
    folder = photos.folder(tmp_path / "before")
    data = {"source": str(folder), "size": 16, "val_fraction": 0.5}
    config = {"run": str(tmp_path / "run"), "model": {"name": "resnet20"}, "data": data, "train": {"epochs": 1}}
    run = cnnzoo.train(config, with_report=False)
    names = run.split["val"]
    held_out = why._look(run.path, None, None, names)
    for kind in photos.KINDS:  # from here on the folder would be split anew
        shutil.copy(folder / kind / "00.png", folder / kind / "new.png")
    assert np.array_equal(why._look(run.path, None, None, names), held_out)
    moved = str(folder.rename(tmp_path / "after"))
    shown = why._look(run.path, moved, None, [name.replace(str(folder), moved) for name in names])
    assert np.array_equal(shown, held_out)
    run.config_file.write_text(run.config_file.read_text().replace(str(folder), "after"))  # beside the run
    assert np.array_equal(why._look(run.path, None, None, names), held_out)


def test_the_folder_holds_tables_and_pictures(runs, tmp_path):
    found = cnnzoo.diversity(runs, out=tmp_path / "why")
    pictures = {"pairs.png", "cost.png"} | {f"{what}.png" for what in ("rescued", "lost") if getattr(found, what)}
    tables = {f"{what}.csv" for what in ("members", "pairs", "subcommittees", "images")}
    assert {file.name for file in (tmp_path / "why").iterdir()} == {"diversity.json"} | tables | pictures
    assert json.loads((tmp_path / "why" / "diversity.json").read_text())["majority"] == found.majority


def test_members_may_be_compared_on_other_images(runs, tmp_path):
    digits = load_digits()
    for place in range(40):
        (tmp_path / "new" / str(digits.target[place])).mkdir(parents=True, exist_ok=True)
        pixels = Image.fromarray((digits.images[place] / 16 * 255).round().astype(np.uint8))
        pixels.save(tmp_path / "new" / str(digits.target[place]) / f"{place}.png")
    found = cnnzoo.diversity(runs, data=str(tmp_path / "new"), out=tmp_path / "why")
    assert found.count == 40
    for verdict in (*found.rescued, *found.lost):
        assert verdict.image.startswith(str(tmp_path / "new" / verdict.truth))
    assert (tmp_path / "why" / "diversity.json").exists()


def test_without_the_images_there_are_the_tables_and_their_pictures(runs, tmp_path):
    copies = [Path(shutil.copytree(run.path, tmp_path / run.path.name)) for run in runs]
    for copy in copies:
        config = (copy / "config.yaml").read_text()
        (copy / "config.yaml").write_text(config.replace("source: digits", "source: photos"))
    told = []
    found = cnnzoo.diversity(copies, out=tmp_path / "why", tell=told.append)
    assert found.rescued or found.lost
    assert f"photos, on which {copies[0]} was trained, is not here" in told[-1]
    names = {file.name for file in (tmp_path / "why").iterdir()}
    assert names >= {"diversity.json", "images.csv", "pairs.png", "cost.png"}
    assert not names & {"rescued.png", "lost.png"}


def test_a_folder_with_something_in_it_is_left_alone(runs, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(cnnzoo.InputError, match="is not empty"):
        cnnzoo.diversity(runs, out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_one_member_is_no_committee(runs):
    with pytest.raises(cnnzoo.InputError, match="a committee needs two members at least"):
        cnnzoo.diversity(runs[:1])


def test_the_command_fits_a_method_once(runs, tmp_path, cli, monkeypatch):
    fits, fit = [], LogisticRegression.fit
    monkeypatch.setattr(LogisticRegression, "fit", lambda *given: fits.append(1) or fit(*given))
    combine(members.panel(runs), "stacking")
    once = len(fits)
    words = [*(run.path for run in runs), "--method", "stacking", "--run", tmp_path / "run"]
    assert cli("ensemble", *words, "--why", tmp_path / "why").code == 0
    assert len(fits) == 2 * once
    found = json.loads((tmp_path / "why" / "diversity.json").read_text())
    assert found["committee_top1"] == cnnzoo.diversity(runs, "stacking").committee_top1


def test_cnnzoo_ensemble_tells_why(runs, tmp_path, cli, fails):
    committee, why = ["ensemble", *(run.path for run in runs)], ["--why", tmp_path / "why"]
    code, out, _ = cli(*committee, "--run", tmp_path / "all", *why)
    assert code == 0
    for part in ("committee, mean", "independent ones would be on", "double fault", "the committee rescues"):
        assert part in out
    assert (tmp_path / "why" / "pairs.png").exists()
    assert "is not empty, and nothing in it is to be overwritten" in fails(*committee, *why)
