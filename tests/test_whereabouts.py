"""Runs whose images were moved or copied since: they go on, and are judged, where these lie now."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import photos
import pytest
from test_shards import shard

import cnnzoo
from cnnzoo.checkpoint import Run
from cnnzoo.ensemble.committees import train_committee
from cnnzoo.errors import InputError, Interrupted
from cnnzoo.files import read_torch
from cnnzoo.telling import silent


def folder(place: Path) -> dict:
    return {"source": str(photos.folder(place / "photos"))}


def divided(place: Path) -> dict:
    for part, each in (("train", 8), ("val", 4)):
        photos.folder(place / "photos" / part, each)
    return {"source": str(place / "photos")}


def two_folders(place: Path) -> dict:
    return {"source": str(photos.folder(place / "a")), "val_source": str(photos.folder(place / "b", 4))}


def table(place: Path) -> dict:
    photos.folder(place / "photos")
    rows = [f"photos/{kind}/{number:02}.png,{kind}" for kind in photos.KINDS for number in range(12)]
    (place / "labels.csv").write_text("\n".join(["file,label", *rows]))
    return {"source": str(place / "labels.csv")}


def table_beside(place: Path) -> dict:
    data = table(place)
    file = place / "tables" / "labels.csv"
    file.parent.mkdir()
    file.write_text(Path(data["source"]).read_text().replace("photos/", "../photos/"))
    return {"source": str(file)}


def shards(place: Path) -> dict:
    for number in range(3):
        shard(place / f"part-{number}.tar", [0, 1, 2] * 4)
    return {"source": str(place / "part-{0..2}.tar")}


def saved(place: Path) -> dict:
    hf = pytest.importorskip("datasets")
    pixels = [photos.picture(kind, number) for kind in range(3) for number in range(12)]
    features = hf.Features(photo=hf.Image(), kind=hf.ClassLabel(names=photos.KINDS))
    columns = {"photo": pixels, "kind": [kind for kind in range(3) for _ in range(12)]}
    hf.Dataset.from_dict(columns, features=features).save_to_disk(place / "set")
    return {"source": f"hf:{place / 'set'}"}


KINDS = [folder, divided, two_folders, table, table_beside, shards, saved]


def config(run: Path, data: dict, **sections) -> dict:
    """Some random parts of images, in an order by the seed: both must be as they would have been."""
    own = {"size": 16, "val_fraction": 0.5, **data}
    train = {"epochs": 2, "batch_size": 4, "device": "cpu", "precision": "fp32"}  # else the moment decides
    augment = {"flip": True, "crop": "resized"}
    model = {"name": "resnet20"}
    return {"run": str(run), "data": own, "train": train, "augment": augment, "model": model, **sections}


def stopped(run: Path, data: dict) -> Run:
    steps = iter(range(100))
    with pytest.raises(Interrupted):
        cnnzoo.train(config(run, data), tell=silent, should_stop=lambda: next(steps) >= 6)
    return Run(run)


def moved(before: Path, after: Path, data: dict) -> dict:
    before.rename(after)
    return {key: value.replace(str(before), str(after)) for key, value in data.items()}


def finished(given: dict | None = None, **options) -> Run:
    return cnnzoo.train(given, with_report=False, **options)


def holds(run: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_where_its_images_were_moved_to_the_same_weights(kind, tmp_path):
    (tmp_path / "before").mkdir()
    data = kind(tmp_path / "before")
    whole = finished(config(tmp_path / "whole", data), tell=silent)
    run = stopped(tmp_path / "run", data)
    now = moved(tmp_path / "before", tmp_path / "after", data)
    told = []
    finished(config(run.path, now), resume="auto", tell=told.append)
    assert told[0] == f"{now['source']} holds the images of {run.path}: it goes on with them"
    weights, wanted = (read_torch(each.state_file)["model"] for each in (run, whole))
    assert all((weights[name] == tensor).all() for name, tensor in wanted.items())
    assert all(map(np.array_equal, run.predictions, whole.predictions))
    assert run.split == {part: [name.replace("before", "after") for name in whole.split[part]] for part in whole.split}
    text = whole.config_file.read_text().replace("before", "after").replace(str(whole.path), str(run.path))
    assert run.config_file.read_text() == text


def test_a_run_that_goes_on_elsewhere_may_be_stopped_there_and_go_on_by_itself(tmp_path):
    data = folder(tmp_path / "before")
    run = stopped(tmp_path / "run", data)
    now = moved(tmp_path / "before", tmp_path / "after", data)
    why = f"{data['source']}, with whose images {run.path} was begun, is not here; say where these lie now by"
    with pytest.raises(InputError, match=re.escape(f"{why} data.source=…")):
        finished(resume=run, tell=silent)
    with pytest.raises(InputError, match=r"there is no folder .*/photoz; did you mean .*/photos\?"):
        finished(resume=run, overrides={"data.source": str(tmp_path / "after" / "photoz")}, tell=silent)
    with pytest.raises(Interrupted):
        cnnzoo.train(resume=run, overrides={"data.source": now["source"]}, tell=silent, should_stop=lambda: True)
    shutil.copytree(tmp_path / "after", tmp_path / "before")
    with pytest.raises(Interrupted):  # and, once more by itself, from where it was begun
        cnnzoo.train(resume=run, overrides={"data.source": data["source"]}, tell=silent, should_stop=lambda: True)
    assert finished(resume=run, tell=silent).is_finished


@pytest.mark.parametrize("kind", ["seeds", "bag"])
def test_a_committee_goes_on_where_its_images_were_moved_to(kind, tmp_path):
    data = folder(tmp_path / "before")
    many = {"kind": kind, "many": 2, "with_report": False, "tell": silent}
    whole = train_committee(config(tmp_path / "whole", data), **many)
    steps = iter(range(100))
    with pytest.raises(Interrupted):  # in the second member
        train_committee(config(tmp_path / "run", data), should_stop=lambda: next(steps) > 13, **many)
    assert [Run(tmp_path / "run" / f"{kind.rstrip('s')}{i}").is_finished for i in (0, 1)] == [True, False]
    now = moved(tmp_path / "before", tmp_path / "after", data)
    made = train_committee(config(tmp_path / "run", now), resume=True, **many)
    assert (made.top1, made.notes) == (whole.top1, whole.notes)
    assert all(map(np.array_equal, made.run.predictions, whole.run.predictions))
    assert all(name.startswith(now["source"]) for name in made.members[0].split["train"])


@pytest.mark.parametrize("way", ["named", "written into its config"])
def test_other_images_of_the_same_names_are_not_gone_on_with(way, tmp_path):
    data = folder(tmp_path / "before")
    run = stopped(tmp_path / "run", data)
    for number, file in enumerate(sorted(photos.folder(tmp_path / "others" / "photos").rglob("*.png"))):
        photos.picture(number % 3, 1000 + number).save(file)
    others = {"source": str(tmp_path / "others" / "photos")}
    if way == "named":
        given, why = config(run.path, others), f"data.source is {data['source']} there and {others['source']} here"
    else:
        text = run.config_file.read_text()
        run.config_file.write_text(text.replace(data["source"], others["source"]))
        given, why = None, "no longer holds 36 of the 36 images that the run was begun with"
    before = holds(run.path)
    with pytest.raises(InputError, match=why):
        finished(given, resume=run, tell=silent)
    assert holds(run.path) == before


def test_another_table_in_the_same_folder_is_another_source(tmp_path):
    data = table(tmp_path)
    run = stopped(tmp_path / "run", data)
    other = shutil.copy(data["source"], tmp_path / "other.csv")
    with pytest.raises(InputError, match=r"data\.source is .*labels\.csv there and .*other\.csv here"):
        finished(config(run.path, {"source": str(other)}), resume=run, tell=silent)
    run = finished(resume=run, tell=silent)
    assert cnnzoo.evaluate(run, other, tell=silent).count == 36


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_judged_on_what_it_held_out_in_a_copy(kind, tmp_path):
    (tmp_path / "before").mkdir()
    data = kind(tmp_path / "before")
    run = finished(config(tmp_path / "run", data), tell=silent)
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    judged_on = data.get("val_source", data["source"])
    copy, told = judged_on.replace("before", "after"), []
    result = cnnzoo.evaluate(run, copy, tell=told.append)
    assert told == [f"{copy} holds the images of {run.path}'s {judged_on}: it is judged on those that it held out"]
    assert (result.count, result.top1) == (len(run.split["val"]), cnnzoo.evaluate(run, tell=silent).top1)


@pytest.mark.parametrize(("changed", "count"), [(1, 18), (2, 36)])
def test_a_copy_of_which_the_most_are_still_the_same_is_the_run_s(changed, count, tmp_path):
    data = folder(tmp_path / "before")
    run = finished(config(tmp_path / "run", data), tell=silent)
    copy = shutil.copytree(data["source"], tmp_path / "copy")
    for kind in photos.KINDS[:changed]:
        for number, file in enumerate(sorted((copy / kind).iterdir())):
            photos.picture(0, 1000 + number).save(file)
    assert cnnzoo.evaluate(run, copy, tell=silent).count == count


def test_a_finished_run_is_told_by_its_config_where_its_images_lie_now(tmp_path):
    data = folder(tmp_path / "before")
    run = finished(config(tmp_path / "run", data), tell=silent)
    before = cnnzoo.evaluate(run, tell=silent)
    now = moved(tmp_path / "before", tmp_path / "after", data)
    run.config_file.write_text(run.config_file.read_text().replace(data["source"], now["source"]))
    assert cnnzoo.evaluate(run, tell=silent).loss == before.loss


def test_a_finished_run_that_is_resumed_elsewhere_keeps_all_but_where_its_images_lie(tmp_path):
    data = folder(tmp_path / "before")
    run = finished(config(tmp_path / "run", data), tell=silent)
    now, before, told = moved(tmp_path / "before", tmp_path / "after", data), holds(run.path), []
    finished(config(run.path, now), resume=run, tell=told.append)
    assert told[0] == f"{now['source']} holds the images of {run.path}, which are looked for there from now on"
    after = holds(run.path)
    assert {name for name, content in after.items() if content != before[name]} == {"config.yaml", "split.json"}
    assert cnnzoo.evaluate(run, tell=silent).count == len(run.split["val"])


def test_where_its_images_to_judge_by_were_moved_with_the_others_these_are_judged(tmp_path):
    data = two_folders(tmp_path / "before")
    run = finished(config(tmp_path / "run", data), tell=silent)
    before = cnnzoo.evaluate(run, tell=silent)
    now = moved(tmp_path / "before", tmp_path / "after", data)
    told = []
    result = cnnzoo.evaluate(run, now["val_source"], tell=told.append)
    assert (result.count, result.loss) == (before.count, before.loss)
    assert [line.split(":")[-1] for line in told] == [" it is judged on those that it held out"]


def test_a_soup_is_made_of_runs_whose_images_were_moved_with_them_and_have_got_others_beside(tmp_path, monkeypatch):
    (tmp_path / "before").mkdir()
    monkeypatch.chdir(tmp_path / "before")
    photos.folder(Path("photos"))
    runs = [finished(config(Path(f"run{i}"), {"source": "photos"}), tell=silent).path for i in (0, 1)]
    photos.picture(0, 500).save(Path("photos", photos.KINDS[0], "0.png"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "before").rename(tmp_path / "after")
    made = cnnzoo.soup([Path("after") / run for run in runs], run="soup", tell=silent)
    assert [len(names) for names in made.split.values()] == [18, 18]
    assert cnnzoo.evaluate(made, tell=silent).count == 18
    again = (tmp_path / "after" / "photos").rename(tmp_path / "again")
    assert cnnzoo.evaluate(made, again, tell=silent).count == 18


@pytest.mark.parametrize("lacks", ["homes", "marks"])
def test_a_run_that_does_not_tell_by_what_its_images_are_known_goes_on_where_they_were_alone(lacks, tmp_path):
    data = folder(tmp_path / "before")
    run = stopped(tmp_path / "run", data)
    run.write("split.json", json.dumps({key: told for key, told in run.images.items() if key != lacks}))
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    with pytest.raises(InputError, match=r"data\.source is .* there and .* here"):
        finished(config(run.path, {"source": str(tmp_path / "after" / "photos")}), resume=run, tell=silent)
    assert finished(resume=run, tell=silent).is_finished


def test_a_run_is_judged_on_a_copy_where_what_it_was_begun_with_may_not_be_looked_into(tmp_path, monkeypatch):
    data = folder(tmp_path / "before")
    run, told, stat = finished(config(tmp_path / "run", data), tell=silent), [], os.stat
    copy = shutil.copytree(data["source"], tmp_path / "copy")

    def of_another(path, *given, **options):
        if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(data["source"]):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return stat(path, *given, **options)

    monkeypatch.setattr(os, "stat", of_another)
    assert cnnzoo.evaluate(run, copy, tell=told.append).count == 18
    assert told == [f"{copy} holds the images of {run.path}'s {data['source']}: it is judged on those that it held out"]
    with pytest.raises(InputError, match=rf"{re.escape(data['source'])}, on which .* was trained, is not here"):
        cnnzoo.evaluate(run)


def test_what_was_made_of_a_finished_run_follows_it_to_where_its_images_lie_now(tmp_path):
    data = folder(tmp_path / "before")
    snapshots = {"schedule": {"name": "cyclic", "cycles": 2}}
    run = finished(config(tmp_path / "run", data, **snapshots), tell=silent)
    many = {"kind": "seeds", "many": 2, "with_report": False, "tell": silent}
    train_committee(config(tmp_path / "seeds", data), **many)
    now = moved(tmp_path / "before", tmp_path / "after", data)
    finished(resume=run, overrides={"data.source": now["source"]}, tell=(told := []).append)
    assert told[1] == f"{run.path} is finished, and otherwise stays as it is"
    committee = train_committee(config(tmp_path / "seeds", now), resume=True, **many).run
    for each in (run.snapshot(1), run.snapshot(2), committee):
        assert cnnzoo.evaluate(each, tell=silent).count == 18
        assert each.split["val"][0].startswith(now["source"])


@pytest.mark.parametrize("is_finished", [False, True])
def test_of_two_folders_that_were_moved_both_are_to_be_named(is_finished, tmp_path):
    data = two_folders(tmp_path / "before")
    run = finished(config(tmp_path / "run", data), tell=silent) if is_finished else stopped(tmp_path / "run", data)
    now = moved(tmp_path / "before", tmp_path / "after", data)
    before = holds(run.path)
    why = f"{data['val_source']}, with whose images {run.path} was begun, is not here; say where these lie now by"
    with pytest.raises(InputError, match=re.escape(f"{why} data.val_source=…")):
        finished(resume=run, overrides={"data.source": now["source"]}, tell=silent)
    assert holds(run.path) == before
    run = finished(resume=run, overrides={f"data.{key}": place for key, place in now.items()}, tell=silent)
    assert cnnzoo.evaluate(run, tell=silent).count == 12


def test_where_a_relative_name_means_other_photos_these_are_not_taken_for_the_run_s(tmp_path, monkeypatch):
    for place in ("here", "there"):
        photos.folder(tmp_path / place / "photos")
    for number, file in enumerate(sorted((tmp_path / "there").rglob("*.png"))):
        photos.picture(number % 3, 1000 + number).save(file)
    monkeypatch.chdir(tmp_path / "here")
    run = finished(config(tmp_path / "run", {"source": "photos"}), tell=silent)
    other = stopped(tmp_path / "other", {"source": "photos"})
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(InputError, match=r"photos, on which .*run was trained, is not here"):
        cnnzoo.evaluate(run, tell=silent)
    assert cnnzoo.evaluate(run, "photos", tell=silent).count == 36
    with pytest.raises(InputError, match=r"photos holds other images here than .*other was begun with"):
        finished(resume=other, tell=silent)
    monkeypatch.chdir(tmp_path / "here")
    for file in Path("photos").rglob("*.png"):  # changed in place, they are the run's
        photos.picture(0, 0, side=50).save(file)
    assert cnnzoo.evaluate(run, tell=silent).count == 18
    assert finished(resume=other, tell=silent).is_finished


def test_runs_that_name_the_same_images_by_two_places_are_told_so(tmp_path):
    data = folder(tmp_path / "before")
    first, second = (finished(config(tmp_path / name, data), tell=silent) for name in ("first", "second"))
    now = moved(tmp_path / "before", tmp_path / "after", data)
    way = f"or say once for all where its own lie now by cnnzoo train --resume {first.path} --data.source"
    with pytest.raises(InputError, match=re.escape(way)):
        cnnzoo.soup([first, second], run=tmp_path / "soup", tell=silent)
    finished(resume=first, overrides={"data.source": now["source"]}, tell=silent)
    way = f"{second.path} names the images of {first.path} at another place; let it know these by cnnzoo train"
    for make in (cnnzoo.soup, cnnzoo.combine):
        with pytest.raises(InputError, match=re.escape(f"{way} --resume {second.path} --data.source {now['source']}")):
            make([first, second], run=tmp_path / "made", tell=silent)
    finished(resume=second, overrides={"data.source": now["source"]}, tell=silent)
    assert cnnzoo.soup([first, second], run=tmp_path / "soup", tell=silent).is_finished


def test_a_report_of_two_folders_that_were_moved_asks_for_both(tmp_path):
    data = two_folders(tmp_path / "before")
    run = finished(config(tmp_path / "run", data), tell=silent)
    now = moved(tmp_path / "before", tmp_path / "after", data)
    why = f"{data['source']}, of which the report shows images, too, is not here; name it by cnnzoo train --resume"
    with pytest.raises(InputError, match=re.escape(f"{why} {run.path} --data.val_source {now['val_source']}")):
        cnnzoo.report(run, now["val_source"])
    finished(resume=run, overrides={f"data.{key}": place for key, place in now.items()}, tell=silent)
    assert cnnzoo.report(run).is_file()


@pytest.mark.parametrize("kind", [folder, table_beside])
def test_a_boosted_run_goes_on_where_its_images_were_moved_and_is_reported_there(kind, tmp_path):
    (tmp_path / "before").mkdir()
    data, steps = kind(tmp_path / "before"), iter(range(100))
    with pytest.raises(Interrupted):  # in the second member
        train_committee(config(tmp_path / "run", data), "boost", 2, tell=silent, should_stop=lambda: next(steps) > 13)
    now = moved(tmp_path / "before", tmp_path / "after", data)
    run = finished(resume=tmp_path / "run" / "boost1", overrides={"data.source": now["source"]}, tell=silent)
    assert cnnzoo.report(run).is_file()


def test_a_run_that_was_killed_before_it_had_written_its_split_begins_where_its_images_were_moved(tmp_path):
    data = folder(tmp_path / "before")
    run = stopped(tmp_path / "run", data)
    for file in run.path.iterdir():
        if file.name != "config.yaml":
            file.unlink()
    now = moved(tmp_path / "before", tmp_path / "after", data)
    assert finished(resume=run, overrides={"data.source": now["source"]}, tell=silent).is_finished
    assert run.split["val"][0].startswith(now["source"])


def test_what_is_out_of_bag_is_so_too_where_a_member_that_may_only_be_read_was_not_told_of_the_move(
    tmp_path, monkeypatch
):
    data = folder(tmp_path / "before")
    many = {"kind": "bag", "many": 2, "with_report": False, "tell": silent}
    made = train_committee(config(tmp_path / "run", data), **many)
    now = moved(tmp_path / "before", tmp_path / "after", data)

    def write(self, name, content, whole=Run.write):
        if self.path.name == "bag0":
            raise PermissionError(13, "Permission denied")
        whole(self, name, content)

    monkeypatch.setattr(Run, "write", write)
    assert train_committee(config(tmp_path / "run", now), resume=True, **many).notes == made.notes
