"""How good a net is, how sure that is, and whether another one is better or just luckier."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import photos
import pytest
import torch

import cnnzoo
from cnnzoo.checkpoint import Run
from cnnzoo.errors import InputError
from cnnzoo.evaluate import MeanOfCrops
from cnnzoo.measures import measure


def train(folder, source, **data) -> Run:
    return cnnzoo.train(
        {
            "run": str(folder),
            "model": {"name": "lenet5", "in_chans": 3},
            "data": {"source": str(source), "val_fraction": 0.5, **data},
            "train": {"epochs": 5, "batch_size": 6},
        }
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return photos.folder(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def run(source, tmp_path_factory) -> Run:
    """A net for three kinds of pictures, of which it was validated on 18."""
    return train(tmp_path_factory.mktemp("runs") / "first", source)


def variant(run: Run, folder, tensors: dict | None = None, **card) -> Run:
    """A copy of a run with other weights or another card."""
    shutil.copytree(run.path, folder)
    other = Run(folder)
    other.save_model(tensors or run.weights, {**run.card, **card})
    return other


# ---- one net


def test_a_net_is_judged_on_data_that_is_named_and_stays_as_it_is(run, source):
    net = cnnzoo.create("lenet5", run).train()
    assert cnnzoo.evaluate(net, source).top1 == cnnzoo.evaluate(run.model_file, source).top1 > 0.5
    assert net.training
    with pytest.raises(InputError, match="which images"):
        cnnzoo.evaluate(net)
    with pytest.raises(InputError, match=r"class Conv2d is not of the registry: set its \.preprocessing"):
        cnnzoo.evaluate(torch.nn.Conv2d(1, 1, 1), source)


def test_a_net_with_another_head_takes_the_datas_names(run, source):
    net = cnnzoo.load(run)
    net.classes, net.output = tuple("abcd"), torch.nn.Linear(84, 3)
    assert cnnzoo.evaluate(net, data=source).classes == photos.KINDS


def test_a_head_with_more_outputs_than_the_data_has_classes_keeps_their_names(source, tmp_path):
    config = {
        "run": str(tmp_path / "run"),
        "model": {"name": "lenet5", "num_classes": 5},
        "data": {"source": str(source)},
    }
    run = cnnzoo.train({**config, "train": {"epochs": 1}}, with_report=False)
    judged = cnnzoo.judge(run)
    assert judged.classes == (*photos.KINDS, "3", "4")
    assert judged.measure().top1 == pytest.approx(run.metrics[-1]["val_top1"])
    assert {row["truth"] for row in judged.rows()} == set(photos.KINDS)
    assert cnnzoo.predict(run, source).classes == judged.classes


def test_the_net_of_a_run_knows_what_it_held_out(run):
    for known in (cnnzoo.load(run), run.model_file):
        assert cnnzoo.evaluate(known).count == 18


def test_a_net_that_answers_by_no_numbers_is_told_and_right_about_nothing(run, source):
    net = cnnzoo.load(run)
    with torch.no_grad():
        next(net.parameters()).fill_(math.nan)
    with pytest.raises(InputError, match=r"to \d+ images .* answers by no finite numbers: .* try precision fp32"):
        cnnzoo.evaluate(net, source)


def test_crops_of_which_none_is_unsure_have_a_loss_all_the_same():
    far = MeanOfCrops(torch.nn.Identity(), 2)
    images = torch.tensor([[0.0, 300.0], [0.0, 100.0], [1.0, 0.0], [0.0, 2.0]])
    assert far(images)[0].tolist() == pytest.approx([-100 - math.log(2), 0.0])
    wanted = images[2:].softmax(1).mean(0).log()
    torch.testing.assert_close(far(images)[1], wanted)


def test_of_several_crops_the_plain_mean_of_probabilities_counts(run):
    judged, net = cnnzoo.judge(run, crops=2), cnnzoo.load(run)
    images = torch.stack([net.preprocessing(name) for name in judged.images])
    with torch.inference_mode():
        mean = (net(images).softmax(1) + net(images.flip(-1)).softmax(1)) / 2
    assert net.temperature != 1
    assert [row["probability"] for row in judged.rows()] == pytest.approx(mean.amax(1).tolist(), abs=2e-6)


def test_files_that_cannot_be_read_are_named_or_left_out(run, source, cli, fails, tmp_path):
    photos_new = tmp_path / "new"
    for file in source.rglob("*.png"):
        (photos_new / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, photos_new / file.parent.name / f"new_{file.name}")
    (photos_new / "red" / "new_00.png").write_bytes(b"no picture")
    why = fails("evaluate", run.path, "--data", photos_new)
    assert "red/new_00.png: it is not an image); mend or remove it, or go on without it by --bad-files skip" in why
    code, out, err = cli("evaluate", run.path, "--data", photos_new, "--bad-files", "skip")
    assert code == 0
    assert "35 images" in out
    assert "1 file left out because it cannot be read" in err
    for file in photos_new.rglob("*.png"):
        file.write_bytes(b"no picture")
    why = fails("evaluate", run.path, "--data", photos_new, "--bad-files", "skip")
    assert why.startswith(f"{photos_new} has no image that can be read: {photos_new}/blue/new_00.png, ")
    with pytest.raises(InputError, match="bad_files is 'ignore', but must be error or skip"):
        cnnzoo.evaluate(run.path, bad_files="ignore")


def test_a_photo_that_vanishes_before_it_is_judged_is_told(source, tmp_path):
    uncached, told = train(tmp_path / "run", shutil.copytree(source, tmp_path / "photos"), cache="none"), []
    broken, gone = map(Path, uncached.split["val"][:2])
    broken.write_bytes(b"no picture")

    def vanish(line: str) -> None:  # what is left out is told when all files have been read once
        told.append(line)
        gone.unlink(missing_ok=True)

    assert cnnzoo.evaluate(uncached, bad_files="skip", tell=vanish).count == 17
    assert told[1:] == [f"{gone}: there is no such file; it was judged as a black image"]


def logits_of(right: int, count: int, classes: int = 3, size: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Of a net that is right on the first images and sure of itself on all."""
    targets = np.arange(count) % classes
    said = np.where(np.arange(count) < right, targets, (targets + 1) % classes)
    return (size * (np.arange(classes) == said[:, None])).astype(np.float32), targets


def test_accuracy_has_an_interval():
    result = measure(*logits_of(right=81, count=263), ("a", "b", "c"))
    assert result.top1 == pytest.approx(81 / 263)
    assert result.interval == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert str(result).startswith("top-1 30.80% (95% interval 25.5% to 36.6%)   loss ")


@pytest.mark.parametrize(("classes", "told"), [(5, False), (6, True)])
def test_top5_is_told_where_it_tells_something(classes, told):
    result = measure(*logits_of(right=8, count=12, classes=classes), tuple("abcdef"[:classes]))
    assert ("top-5" in str(result)) == told
    assert result.to_dict()["top5"] == result.top5


def test_of_classes_that_are_equally_likely_the_first_is_the_answer():
    outputs = np.zeros((4, 20), dtype=np.float32)  # as of a net whose last ReLU lets nothing through
    result = measure(outputs, np.array([0, 0, 4, 5]), tuple(map(str, range(20))))
    assert (result.top1, result.top5) == (0.5, 0.75)
    assert result.confusion[:, 0].sum() == 4


def test_one_image_is_one_image():
    assert str(measure(*logits_of(right=1, count=1), ("a", "b", "c"))).splitlines()[0].endswith("   1 image")


@pytest.mark.parametrize("ending", [".csv", ".json"])
def test_answers_are_a_row_for_each_image(run, cli, tmp_path, ending):
    code, out, _ = cli("evaluate", run.path, "--out", tmp_path / f"answers{ending}")
    assert code == 0
    assert out == f"{cnnzoo.evaluate(run.path)}\n18 rows in {tmp_path / f'answers{ending}'}\n"
    text = (tmp_path / f"answers{ending}").read_text()
    if ending == ".csv":
        assert text.replace("\r", "") == cnnzoo.judge(run.path).to_csv().replace("\r", "")
        return
    rows, predictions = json.loads(text), cnnzoo.predict(run, run.split["val"])
    assert [row["file"] for row in rows] == run.split["val"]
    assert [row["truth"] for row in rows] == [name.split("/")[-2] for name in run.split["val"]]
    for row, [(answer, probability)] in zip(rows, predictions.top(1), strict=True):
        assert (row["answer"], row["right"]) == (answer, answer == row["truth"])
        assert row["probability"] == pytest.approx(probability, abs=2e-6)
    assert sum(row["right"] for row in rows) == round(18 * cnnzoo.evaluate(run.path).top1)


def test_answers_do_not_disturb_json(run, cli, tmp_path):
    _, out, err = cli("evaluate", run.path, "--json", "--out", tmp_path / "answers.csv")
    assert json.loads(out)["images"] == 18
    assert err == f"18 rows in {tmp_path / 'answers.csv'}\n"


def test_a_class_that_no_image_is_of_has_no_recall():
    outputs, targets = np.eye(3, dtype=np.float32)[[0, 1, 1, 0]], np.array([0, 1, 1, 1])
    result = measure(outputs, targets, ("ant", "bee", "wasp"))
    assert [line.split()[3] for line in str(result).splitlines()[-3:]] == ["100.0%", "66.7%", "-"]
    assert result.to_dict()["recall"] == [1.0, pytest.approx(2 / 3), None]
    assert result.to_dict()["f1"] == [pytest.approx(2 / 3), pytest.approx(4 / 5), None]
    assert result.balanced_accuracy == pytest.approx(5 / 6)
    json.dumps(result.to_dict(), allow_nan=False)


def test_each_class_has_precision_recall_and_what_it_was_taken_for():
    outputs, targets = logits_of(right=4, count=6)
    result = measure(outputs, targets, ("ant", "bee", "carpenter bee"))
    assert result.confusion.tolist() == [[2, 0, 0], [0, 1, 1], [1, 0, 1]]
    assert result.precision == pytest.approx([2 / 3, 1, 1 / 2])
    assert result.recall == pytest.approx([1, 1 / 2, 1 / 2])
    assert result.f1 == pytest.approx([4 / 5, 2 / 3, 1 / 2])
    table = [line.split() for line in str(result).splitlines()[2:]]
    assert table[0] == ["class", "images", "precision", "recall", "F1", "taken", "for", "ant", "bee", "carpenter…"]
    assert table[2] == ["bee", "2", "100.0%", "50.0%", "66.7%", "0", "1", "1"]


def test_a_class_that_is_never_named_has_no_precision():
    result = measure(np.eye(3, dtype=np.float32)[[0, 1, 1]], np.array([0, 1, 2]), ("ant", "bee", "wasp"))
    np.testing.assert_array_equal(result.precision, [1, 1 / 2, np.nan])
    assert str(result).splitlines()[-1].split()[:5] == ["wasp", "1", "-", "0.0%", "0.0%"]
    assert result.to_dict()["precision"] == [1, 1 / 2, None]


def test_a_class_of_several_lines_has_one_row():
    result = measure(*logits_of(right=4, count=6), ("ant\nred", "bee", "wasp\x1b[31m"))
    assert [line.split()[0] for line in str(result).splitlines()[2:]] == ["class", "ant\\nred", "bee", "wasp\\x1b[31m"]


def test_where_some_classes_are_rare_the_mean_over_classes_is_told_too():
    often, rarely = np.array([9.0, 0.0], np.float32), np.array([0.0, 9.0], np.float32)
    uneven = measure(np.stack([often] * 10), np.array([0] * 9 + [1]), ("often", "rarely"))
    assert "top-1 90.00%" in str(uneven)
    assert "balanced 50.00%" in str(uneven)
    assert uneven.to_dict()["balanced_accuracy"] == 0.5
    assert "balanced" not in str(measure(np.stack([often, rarely]), np.array([0, 1]), ("often", "rarely")))


@pytest.mark.parametrize(("classes", "shown"), [(12, True), (13, False)])
def test_the_confusion_matrix_is_printed_where_it_can_be_read(classes, shown):
    result = measure(*logits_of(right=20, count=26, classes=classes), tuple(map(str, range(classes))))
    assert ("taken for" in str(result)) == shown
    assert len(result.to_dict()["confusion"]) == classes


def test_of_many_classes_those_that_play_no_part_have_no_row():
    outputs, targets = np.eye(1000)[[7, 7, 9]], np.array([7, 8, 8])
    result = measure(outputs, targets, tuple(f"kind {number}" for number in range(1000)))
    *_, seven, eight, nine, others = str(result).splitlines()
    assert [line.split()[1] for line in (seven, eight, nine)] == ["7", "8", "9"]
    assert others == "997 further classes, without an image and never named"
    assert len(result.to_dict()["recall"]) == 1000


def test_calibration_error_before_and_after_the_temperature():
    """A net that is right three times in four and always 99.9 % sure."""
    rng = np.random.default_rng(0)
    outputs, targets = logits_of(right=750, count=1000, size=8)
    order = rng.permutation(1000)
    fitted_here = measure(outputs[order], targets[order], ("a", "b", "c"))
    assert fitted_here.calibration_error == pytest.approx(0.25, abs=0.01)
    assert fitted_here.calibrated_error < 0.05
    assert "(fitted on one half of these images and judged on the other)" in str(fitted_here)
    elsewhere = measure(outputs, targets, ("a", "b", "c"), temperature=4.5)
    assert elsewhere.calibrated_error < 0.05
    assert "at the run's temperature of 4.5" in str(elsewhere)
    never = measure(outputs, targets, ("a", "b", "c"), temperature=1.0)
    assert never.calibrated_error == never.calibration_error
    assert "temperature" not in str(never)


def test_a_finished_run_knows_its_temperature(run):
    from cnnzoo.calibrate import fit_temperature

    assert cnnzoo.load(run).temperature == pytest.approx(fit_temperature(*run.predictions))


def test_a_run_is_judged_on_what_it_held_out_however_its_folder_is_spelt(run, source, monkeypatch):
    monkeypatch.chdir(source.parent)
    for name in (None, str(source), f"{source}/", "photos", "./photos"):
        result = cnnzoo.evaluate(run.path, name)
        assert (result.count, result.temperature) == (18, None)


def test_a_named_set_may_be_a_path(tmp_path):
    run = cnnzoo.train({"run": tmp_path / "r", "train": {"epochs": 1, "device": "cpu"}}, with_report=False, tell=str)
    assert cnnzoo.evaluate(run, Path("digits"), tell=str).count == cnnzoo.evaluate(run, tell=str).count
    for wrong, told in ((3, "data is a source's name or a folder, not 3"), ("d", "d. is neither")):
        with pytest.raises(InputError, match=told):
            cnnzoo.evaluate(run, wrong)
    with pytest.raises(InputError, match="batch_size is 0, but must be a whole number of at least 1"):
        cnnzoo.evaluate(run, batch_size=0)


def test_a_run_is_judged_on_what_it_held_out_though_its_folder_has_changed(source, tmp_path):
    folder = shutil.copytree(source, tmp_path / "photos")
    run = train(tmp_path / "run", folder)
    before = cnnzoo.judge(run)
    shutil.copy(folder / "red" / "00.png", folder / "red" / "new.png")  # from here on the folder would be split anew
    shutil.copy(folder / "blue" / "01.png", folder / "blue" / "new.png")
    shutil.copytree(folder / "blue", folder / "azure")  # a class that the net does not know
    again = cnnzoo.judge(run)
    assert sorted(again.images) == sorted(before.images) == sorted(run.split["val"])
    assert again.measure().top1 == before.measure().top1
    Path(run.split["val"][0]).unlink()
    told = []
    assert cnnzoo.evaluate(run, tell=told.append).count == 17
    assert told == [f"1 of the 18 images that were held out are no longer in {folder}"]
    moved = folder.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=rf"{folder}, on which .*run was trained, is not here; name images by data=…"):
        cnnzoo.evaluate(run)
    told.clear()
    assert cnnzoo.evaluate(run, moved, tell=told.append).count == 17
    assert told[0] == f"{moved} holds the images of {run.path}'s {folder}: it is judged on those that it held out"
    cnnzoo.evaluate(run, moved, precision="int8", tell=told.append)
    learnt = len(run.split["train"])
    assert told[-1].startswith(f"int8, calibrated on {learnt} training images of {moved}: ")
    shutil.rmtree(moved / "blue")
    assert cnnzoo.evaluate(run, moved, tell=str).count == 12
    for kind in ("green", "azure"):
        shutil.rmtree(moved / kind)  # most of its images are gone, so that it is taken for another folder
    told.clear()
    assert cnnzoo.evaluate(run, moved, tell=told.append).count == 13
    assert told == [f"6 of these 13 images seem to be among those that {run.path} was trained on"]


def test_copies_of_what_was_trained_on_are_told_in_folders_in_folders_too(source, tmp_path):
    for file in source.rglob("*.png"):  # of each class a 2020/00.png …
        place = tmp_path / "photos" / "train" / file.parent.name / "2020" / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    learnt, told = tmp_path / "photos" / "train", []
    copy = shutil.copytree(learnt, tmp_path / "copy")
    shutil.copytree(learnt, tmp_path / "photos" / "val")
    run = train(tmp_path / "run", tmp_path / "photos")
    (copy / "red" / "2020" / "03.png").write_bytes((copy / "red" / "2020" / "02.png").read_bytes())
    assert cnnzoo.evaluate(run, copy, tell=told.append).count == 36
    assert told == [f"35 of these 36 images seem to be among those that {run.path} was trained on"]


def test_the_report_of_a_run_whose_folder_was_moved_shows_it_where_it_lies_now(source, tmp_path, cli):
    folder = shutil.copytree(source, tmp_path / "photos")
    run = train(tmp_path / "run", folder)
    before = cnnzoo.report(run).read_text()
    moved = folder.rename(tmp_path / "moved")
    assert cli("report", run.path).err == (
        f"cnnzoo: error: {folder}, on which {run.path} was trained, is not here; name images by --data, or say once "
        f"for all where its own lie now by cnnzoo train --resume {run.path} --data.source …\n"
    )
    assert cli("report", run.path, "--data", moved).code == 0
    assert run.report_file.read_text() == before.replace(f"on {folder}: ", f"on {moved}: ")
    (tmp_path / "other").mkdir()
    for wrong in ("other", "nope"):
        told = f"{tmp_path / wrong} does not hold the images that {run.path} was judged on"
        with pytest.raises(InputError, match=re.escape(told)):
            cnnzoo.report(run, tmp_path / wrong)
    with pytest.raises(InputError, match="data is a source's name or a folder, not 3"):
        cnnzoo.report(run, 3)
    before = run.report_file.read_text().split("Most confident mistakes")[0]
    (moved / Path(run.split["train"][0]).relative_to(folder)).write_bytes(b"no image any more")
    assert cnnzoo.report(run, moved).read_text().startswith(before)
    gone = moved / Path(run.split["val"][0]).relative_to(folder)
    gone.write_bytes(b"no image any more")
    told = f"{moved} lacks 1 of the 18 images that {run.path} was judged on: {gone}; restore it"
    with pytest.raises(InputError, match=re.escape(told)):
        cnnzoo.report(run, moved)


def test_the_report_of_a_run_does_without_the_file_that_it_began_from(source, tmp_path):
    weights = photos.weights(tmp_path / "net.pth")
    model, data = {"name": "resnet20", "pretrained": str(weights)}, {"source": str(source), "size": 24}
    run = cnnzoo.train({"run": str(tmp_path / "run"), "model": model, "data": data, "train": {"epochs": 1}}, tell=str)
    before = run.report_file.read_text()
    weights.unlink()
    assert cnnzoo.report(run).read_text() == before


def test_other_images_of_the_same_names_are_not_taken_for_the_runs_own(source, tmp_path):
    folder = shutil.copytree(source, tmp_path / "photos")
    run = train(tmp_path / "run", folder)
    others = photos.folder(tmp_path / "others")
    for number, file in enumerate(sorted(others.rglob("*.png"))):
        photos.picture(number % 3, 1000 + number).save(file)
    shutil.rmtree(folder)
    told = []
    assert cnnzoo.evaluate(run, others, tell=told.append).count == 36
    assert not any("it is judged on those" in line for line in told)


def test_a_run_is_judged_on_what_it_held_out_from_wherever_it_is_called(tmp_path, monkeypatch):
    photos.folder(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    train("runs/mine", "photos")
    monkeypatch.chdir("/")
    judged = cnnzoo.judge(tmp_path / "runs" / "mine")
    assert {Path(name).relative_to(tmp_path).as_posix() for name in judged.images} == {
        *Run(tmp_path / "runs/mine").split["val"]
    }


def test_where_training_took_other_images_to_judge_by_these_are_its_own(source, tmp_path):
    fresh = photos.folder(tmp_path / "fresh", each=4)
    run = train(tmp_path / "run", source, val_source=str(fresh))
    own, named, trained_on = (cnnzoo.evaluate(run, data) for data in (None, fresh, source))
    assert (own.count, named.count, named.temperature) == (12, 12, None)
    assert (trained_on.count, trained_on.temperature) == (36, cnnzoo.load(run).temperature)


def test_other_images_are_judged_at_the_runs_own_temperature(run, tmp_path):
    result = cnnzoo.evaluate(run.path, str(photos.folder(tmp_path / "others", each=4)))
    assert (result.count, result.temperature) == (12, cnnzoo.load(run).temperature)


def test_the_report_shows_how_sure_the_figures_are(run):
    page, result = run.report_file.read_text(), cnnzoo.evaluate(run.path)
    assert f"{result.interval[0]:.1%} – {result.interval[1]:.1%}" in page
    assert "<h2>Confidence</h2>" in page


# ---- two nets


@pytest.fixture(scope="module")
def blind(run, tmp_path_factory) -> Run:
    """The same net, but for a head that says the same of every picture."""
    tensors = run.weights
    head = cnnzoo.load(run).entry.head
    tensors |= {name: tensor * 0 for name, tensor in tensors.items() if name.startswith(f"{head}.")}
    return variant(run, tmp_path_factory.mktemp("blind") / "run", tensors)


def test_a_folder_of_named_sets_goes_with_a_named_set(run, source, tmp_path):
    with pytest.raises(InputError, match=r"root is where named data sets lie, but .* is none; leave it out"):
        cnnzoo.evaluate(run.path, root=tmp_path)


def test_a_net_is_no_better_than_itself(run):
    result = cnnzoo.compare_runs(run.path, run.path)
    assert (result.difference, result.p, result.only_first, result.only_second) == (0, 1, 0, 0)
    assert str(result).splitlines()[-1] == "the difference of 0.0 points over 18 images can well be chance (p = 1)"


def test_a_better_net_is_told_from_a_luckier_one(run, blind, cli):
    result = cnnzoo.compare_runs(run.path, blind.path)
    first, second = result.evaluations
    assert result.difference == pytest.approx(first.top1 - second.top1)
    assert result.difference > 0.3
    assert result.interval[0] < result.difference < result.interval[1]
    assert result.p < 0.05
    code, out, _ = cli("evaluate", run.path, "--against", blind.path)
    assert (code, out) == (0, f"{result}\n")
    assert "over 18 images is unlikely to be chance (p = 0.0" in out
    told = json.loads(cli("evaluate", run.path, "--against", blind.path, "--json")[1])
    assert (told["p"], [one["top1"] for one in told["runs"]]) == (result.p, [first.top1, second.top1])
    worse = cnnzoo.compare_runs(blind.path, run.path)
    assert worse.difference == -result.difference
    assert str(worse).splitlines()[-1] == str(result).splitlines()[-1]


def test_classes_are_aligned_by_name(run, tmp_path):
    """The same net with its classes in another order gives the same answers."""
    tensors, head = run.weights, cnnzoo.load(run).entry.head
    tensors |= {name: tensor.flip(0) for name, tensor in tensors.items() if name.startswith(f"{head}.")}
    mirrored = variant(run, tmp_path / "mirrored", tensors, classes=photos.KINDS[::-1])
    result = cnnzoo.compare_runs(run.path, mirrored.path)
    assert (result.only_first, result.only_second) == (0, 0)


def test_only_the_same_images_and_classes_compare(run, source, tmp_path):
    other = train(tmp_path / "other", source, split_seed=1)
    with pytest.raises(InputError, match=r"is judged on 18 images and .* on 18, of which \d+ are the same"):
        cnnzoo.compare_runs(run.path, other.path)
    fresh = photos.folder(tmp_path / "fresh", each=4)
    assert cnnzoo.compare_runs(run.path, other.path, str(fresh)).evaluations[0].count == 12
    strange = variant(run, tmp_path / "strange", num_classes=3, classes=("blue", "green", "reddish"))
    shutil.rmtree(fresh / "red")
    with pytest.raises(InputError, match="do not know the same classes, so they do not compare: red, reddish"):
        cnnzoo.compare_runs(run.path, strange.path, str(fresh))
