"""Committees of runs: run folders in, one run folder out that answers as its members do together."""

import json
import os
import shutil
from contextlib import contextmanager

import numpy as np
import onnxruntime
import photos
import pytest
import torch
import yaml
from filelock import FileLock
from PIL import Image
from torch import nn

import cnnzoo
from cnnzoo.checkpoint import LOCK, Run
from cnnzoo.data.preprocess import Preprocess, Sheet, together
from cnnzoo.data.preprocess_graph import graph_of
from cnnzoo.ensemble.combine import METHODS, combine
from cnnzoo.ensemble.members import panel
from cnnzoo.errors import InputError
from cnnzoo.evaluate import judge
from cnnzoo.measures import measure
from cnnzoo.models import _rules
from cnnzoo.models._base import Net
from cnnzoo.telling import silent


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return photos.folder(tmp_path_factory.mktemp("data") / "photos")


def train(folder, source, name: str, channels: int, size: int, **data) -> Run:
    return cnnzoo.train(
        {
            "run": str(folder),
            "model": {"name": name, "in_chans": channels},
            "data": {"source": str(source), "val_fraction": 0.5, "size": size, **data},
            "train": {"epochs": 3, "batch_size": 6, "seed": channels + size},
        },
        with_report=False,
    )


@pytest.fixture(scope="module")
def runs(source, tmp_path_factory) -> list[Run]:
    """A colour net, a grey one, and one for smaller images; of 36 pictures they held out the same 18."""
    home = tmp_path_factory.mktemp("runs")
    kinds = {"colour": ("lenet5", 3, 32), "grey": ("lenet5", 1, 32), "small": ("resnet20", 3, 24)}
    return [train(home / name, source, *kind) for name, kind in kinds.items()]


@pytest.fixture(scope="module")
def committee(runs, tmp_path_factory) -> Run:
    return cnnzoo.combine(runs, run=tmp_path_factory.mktemp("committees") / "mean")


def variant(run: Run, folder, tensors: dict | None = None, **card) -> Run:
    """A copy of a run with other weights or another card."""
    shutil.copytree(run.path, folder)
    other = Run(folder)
    other.save_model(tensors or run.weights, {**run.card, **card})
    return other


@pytest.fixture(scope="module")
def mirrored(runs, tmp_path_factory) -> Run:
    """The first run's net with its classes in another order."""
    head = cnnzoo.load(runs[0]).entry.head
    tensors = {
        name: tensor.flip(0) if name.startswith(f"{head}.") else tensor for name, tensor in runs[0].weights.items()
    }
    run = variant(runs[0], tmp_path_factory.mktemp("mirrored") / "run", tensors, classes=photos.KINDS[::-1])
    logits, targets = runs[0].predictions
    run.save_predictions(logits[:, ::-1], 2 - targets)
    return run


@contextmanager
def counted():
    """How often nets look at images."""
    seen = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, given, made: seen.append(len(made)) if isinstance(module, Net) else None
    )
    try:
        yield seen
    finally:
        handle.remove()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list:
    """Files of other sizes than any net's, and one that is grey."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number, shape in enumerate([(50, 70, 3), (90, 60, 3), (40, 40), (20, 31, 3)]):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


# ---- one net of several


@pytest.mark.parametrize("method", ["mean", "vote", "rank", "stacking"])
def test_a_committee_says_what_its_members_say_together(runs, pictures, method, tmp_path):
    made = cnnzoo.combine(runs, method, run=tmp_path / "run")
    said = np.log(np.stack([cnnzoo.predict(run, pictures).probabilities for run in runs]))
    net = cnnzoo.load(made)
    with torch.no_grad():
        expected = combine(panel(runs), method).rule(torch.from_numpy(said))
        given = net(torch.stack([net.preprocessing(file) for file in pictures]))
    np.testing.assert_allclose(given.numpy(), expected.numpy(), atol=1e-5)
    calibrated = (expected / net.temperature).softmax(1).numpy()
    np.testing.assert_allclose(cnnzoo.predict(made, pictures).probabilities, calibrated, atol=1e-5)


def test_it_is_judged_on_what_its_members_held_out(runs, committee):
    outputs, targets = committee.predictions
    done = combine(panel(runs), "mean")
    assert (outputs == done.log_probabilities).all()
    result = cnnzoo.evaluate(committee.path)
    assert (result.count, result.top1) == (18, done.top1)
    assert set(committee.split["val"]) == set(runs[0].split["val"])
    np.testing.assert_allclose(judge(committee.path).outputs, outputs, atol=1e-5)
    assert (targets == done.panel.targets).all()


def test_what_is_known_of_a_committee_is_no_more_than_that(committee):
    size = "x".join(map(str, cnnzoo.load(committee).image_shape))
    facts = (f"input       {size}, no other; 3 classes", "note: 3 members: lenet5, lenet5, resnet20")
    assert str(cnnzoo.info(committee)).splitlines() == ["committee", *(f"  {fact}" for fact in facts)]


@pytest.fixture(scope="module")
def stacked(runs, tmp_path_factory) -> Run:
    """A committee that learnt from the 18 pictures which its members held out."""
    return cnnzoo.combine(runs, "stacking", run=tmp_path_factory.mktemp("stacked") / "run")


def test_what_it_learnt_from_it_is_judged_on_as_cross_fitted(runs, source, stacked, tmp_path):
    done, told = combine(panel(runs), "stacking"), []
    honest = measure(done.cross_fitted, done.panel.targets, done.panel.classes)
    assert honest.loss > measure(done.log_probabilities, done.panel.targets, done.panel.classes).loss
    np.testing.assert_array_equal(stacked.predictions[0], done.cross_fitted)
    line = stacked.metrics[0]
    assert (line["val_top1"], line["val_loss"]) == (honest.top1, pytest.approx(honest.loss, rel=1e-5))
    for figure in (f"{honest.top1:.2%}</b>validation top-1, cross-fitted", f"{honest.loss:.4f}</b>loss"):
        assert f"<div><b>{figure}</div>" in stacked.report_file.read_text()
    for data in (None, str(source)):
        result = cnnzoo.evaluate(stacked, data, tell=told.append)
        assert (result.top1, result.loss, result.temperature) == (honest.top1, honest.loss, None)
    assert told == [f"{stacked.path} was fitted to these images, so it is judged there as cross-fitted"] * 2
    assert cnnzoo.compare_runs(stacked, runs[0]).evaluations[0].loss == honest.loss


def test_of_other_images_it_is_asked(stacked, tmp_path):
    """Also beside links to those that it learnt from, under other names."""
    others = photos.folder(tmp_path / "others", each=4)
    for file in others.rglob("*.png"):
        file.rename(file.with_name(f"other_{file.name}"))
    live, told = judge(stacked, str(others), tell=(told := []).append), told
    assert not told
    for name in stacked.split["val"][:5]:
        kind = name.split("/")[-2]
        (others / kind / f"linked_{name.split('/')[-1]}").symlink_to(name)
    mixed = judge(stacked, str(others), tell=told.append)
    assert told == [f"{stacked.path} was fitted to 5 of these 17 images, so it is judged there as cross-fitted"]
    said = dict(zip(mixed.images, mixed.outputs, strict=True))
    np.testing.assert_allclose([said[name] for name in live.images], live.outputs, atol=1e-5)
    own = dict(zip(stacked.split["val"], stacked.predictions[0], strict=True))
    for name in set(mixed.images) - set(live.images):
        np.testing.assert_array_equal(said[name], own[os.path.realpath(name)])


def test_copies_of_what_it_was_fitted_to_are_known(stacked, source, tmp_path):
    copies = shutil.copytree(source, tmp_path / "copies")
    judged, told = judge(stacked, str(copies), tell=(told := []).append), told
    assert told[1:] == [f"{stacked.path} was fitted to these images, so it is judged there as cross-fitted"]
    np.testing.assert_array_equal(judged.outputs, judge(stacked, tell=silent).outputs)
    few = shutil.copytree(source, tmp_path / "few", ignore=shutil.ignore_patterns("*[1-9].png"))
    many = len(judge(stacked, str(few), tell=(told := []).append).images)
    assert told == [f"{many} of these {many} images seem to be among those that {stacked.path} was trained on"]


def test_among_members_it_answers_as_cross_fitted_too(runs, stacked, tmp_path):
    both = cnnzoo.Ensemble([stacked, runs[0]])
    note = f"18 of 18 images are what {stacked.path} was fitted to, so it answers there as cross-fitted"
    assert str(both).splitlines()[-2:] == ["18 images", note]
    assert both.contest.to_dict()["notes"] == [note]
    made = both.save(tmp_path / "run")
    assert cnnzoo.evaluate(made).top1 == made.metrics[0]["val_top1"] == both.combination.top1
    np.testing.assert_array_equal(judge(made).outputs, made.predictions[0])


def test_without_its_predictions_it_says_how_to_go_on(stacked, tmp_path):
    bare = variant(stacked, tmp_path / "bare")
    bare.predictions_file.unlink()
    with pytest.raises(InputError, match=r"bare has no predictions yet; make it anew by cnnzoo train --config"):
        cnnzoo.evaluate(bare)


def test_it_is_a_run_folder_like_any_other(runs, committee):
    assert committee.metrics[0]["val_top1"] == combine(panel(runs), "mean").top1
    assert committee.environment["torch"] == torch.__version__
    net = cnnzoo.load(committee)
    assert net.classes == photos.KINDS
    assert net.temperature == committee.card["temperature"] != 1
    assert not net.train().training
    assert cnnzoo.summary(net).total.params == sum(p.numel() for p in net.parameters())
    assert [row["name"] for row in committee.committee["rows"]] == [*(str(run.path) for run in runs), "mean"]


def test_it_needs_its_members_no_more(runs, pictures, tmp_path):
    copies = [Run(shutil.copytree(run.path, tmp_path / run.path.name)) for run in runs]
    made = cnnzoo.combine(copies, run=tmp_path / "run")
    before = cnnzoo.predict(made, pictures).probabilities
    for copy in copies:
        shutil.rmtree(copy.path)
    assert (cnnzoo.predict(made, pictures).probabilities == before).all()


def test_its_config_makes_it_again(committee, tmp_path, cli):
    config = yaml.safe_load(committee.config_file.read_text())
    assert list(config) == ["run", "ensemble", "data"]
    code, out, _ = cli("train", "--config", committee.config_file, "--run", tmp_path / "again")
    assert code == 0
    assert "go on with: cnnzoo predict" in out
    first, again = (run.weights for run in (committee, Run(tmp_path / "again")))
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())
    with pytest.raises(InputError, match=r"the config of a committee, which cnnzoo\.combine makes"):
        cnnzoo.train({**config, "run": str(tmp_path / "other")})


def test_its_report_has_a_table_of_members(committee, cli):
    page = committee.report_file.read_text()
    for part in ("<h2>Members and committee</h2>", "colour</td>", "mean</td>", "<h2>Confusion matrix</h2>"):
        assert part in page
    assert "Curves" not in page
    committee.report_file.unlink()
    code, out, _ = cli("report", committee.path)
    assert code == 0
    assert committee.report_file.read_text() == page
    assert out.strip() == str(committee.report_file)


def test_it_is_exported_as_one_graph(committee, pictures, tmp_path):
    """Grey and colour, 32 and 24 pixels: all from the same photo."""
    cnnzoo.export(committee, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    for file in pictures:
        given = session.run(None, {"images": np.array(Image.open(file).convert("RGB"))[None]})[0]
        np.testing.assert_allclose(given, cnnzoo.predict(committee, [file]).probabilities, atol=1e-4)


def test_its_fast_form_agrees(committee):
    net = cnnzoo.load(committee)
    images = torch.rand(3, *net.image_shape)
    with torch.no_grad():
        np.testing.assert_allclose(cnnzoo.optimize(net, "fp32")(images).numpy(), net(images).numpy(), atol=1e-3)


def test_images_of_another_shape_are_refused(committee):
    net = cnnzoo.load(committee)
    wanted = ", ".join(map(str, net.image_shape))
    with pytest.raises(InputError, match=rf"takes images \(B, {wanted}\), not \(2, 3, 32, 32\)"):
        net(torch.zeros(2, 3, 32, 32))


def test_members_of_one_size_share_their_view(runs, mirrored, tmp_path):
    net = cnnzoo.load(cnnzoo.combine([runs[0], mirrored], run=tmp_path / "run"))
    assert isinstance(net.preprocessing, Preprocess)
    assert net.image_shape == (3, 32, 32)
    assert cnnzoo.evaluate(tmp_path / "run", crops=2).count == 18


def test_a_committee_may_be_a_member(runs, committee, pictures, tmp_path):
    made = cnnzoo.combine([committee, runs[2]], run=tmp_path / "run")
    said = np.stack([cnnzoo.predict(run, pictures).probabilities for run in (committee, runs[2])])
    net = cnnzoo.load(made)
    net.temperature = 1.0
    np.testing.assert_allclose(cnnzoo.predict(net, pictures).probabilities, said.mean(axis=0), atol=1e-5)


def test_members_without_weight_are_left_out(runs, tmp_path):
    told = []
    made = cnnzoo.combine(runs, weights=[0.5, 0, 0.5], run=tmp_path / "run", tell=told.append)
    assert told[-1].startswith("mean of 2 members in ")
    cnnzoo.combine(runs, weights=[1, 0, 0], run=tmp_path / "one", tell=told.append)
    assert told[-1].startswith("mean of 1 member in ")
    assert [card["name"] for card in made.card["members"]] == ["lenet5", "resnet20"]
    np.testing.assert_allclose(judge(made.path).outputs, made.predictions[0], atol=1e-5)


def test_classes_are_aligned_by_name(runs, mirrored):
    said = panel([runs[0], mirrored])
    np.testing.assert_array_equal(said.logits[0], said.logits[1])
    np.testing.assert_array_equal(said.targets, runs[0].predictions[1])


def test_it_may_be_tried_before_it_is_saved(runs, committee, pictures):
    tried = cnnzoo.Ensemble(runs)
    np.testing.assert_allclose(
        tried.predict(pictures).probabilities, cnnzoo.predict(committee, pictures).probabilities, atol=1e-6
    )
    assert tried.evaluate().top1 == tried.combination.top1
    assert str(tried).splitlines()[0].split()[0] == "top-1"


# ---- predictions that are there, and others


def test_every_method_over_cached_runs_costs_no_forward_pass(runs):
    with counted() as seen:
        assert len(cnnzoo.Ensemble(runs, "all").contest.combinations) == len(METHODS)
    assert not seen


def test_missing_predictions_are_made_once(runs, tmp_path):
    bare = variant(runs[0], tmp_path / "bare")
    bare.predictions_file.unlink()
    told = []
    with counted() as seen:
        made = panel([bare, runs[1]], tell=told.append)
    assert sum(seen) == 18
    assert told == [f"{bare.path} has no predictions yet, so they are made"]
    np.testing.assert_allclose(made.logits, panel(runs[:2]).logits, atol=1e-4)
    with counted() as seen:
        np.testing.assert_array_equal(panel([bare, runs[1]]).logits, made.logits)
    assert not seen


def test_other_images_are_judged_once_for_each_run(runs, tmp_path):
    copies = [variant(run, tmp_path / run.path.name) for run in runs[:2]]
    others = photos.folder(tmp_path / "others", each=4)
    with counted() as seen:
        first = cnnzoo.combine(copies, "stacking", data=str(others), run=tmp_path / "stacked")
    assert sum(seen) == 24
    with counted() as seen:
        cnnzoo.combine(copies, "weighted", data=str(others), run=tmp_path / "weighted")
    assert not seen
    assert cnnzoo.evaluate(first.path).count == 12  # the same images
    photos.picture(0, 99).save(others / "red" / "00.png")
    with counted() as seen:
        panel(copies, str(others))
    assert sum(seen) == 24


def test_no_label_of_the_test_images_reaches_a_fit(runs, tmp_path):
    """What is fitted on the validation images is the same whatever the labels of others are."""
    others = photos.folder(tmp_path / "others", each=4)
    first = cnnzoo.combine(runs, "stacking", run=tmp_path / "first")
    before = cnnzoo.evaluate(first.path, str(others)).top1
    for old, new in (("red", "aside"), ("blue", "red"), ("aside", "blue")):
        (others / old).rename(others / new)
    assert cnnzoo.evaluate(first.path, str(others)).top1 != before
    second = cnnzoo.combine(runs, "stacking", run=tmp_path / "second")
    tensors = second.weights
    assert all(torch.equal(tensors[name], tensor) for name, tensor in first.weights.items())


def linked(source, folder) -> str:
    """The folder, with links to all pictures of the source under other names."""
    for file in source.glob("*/*"):
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / file.parent.name / f"linked_{file.name}").symlink_to(file)
    return str(folder)


def test_images_that_a_member_was_trained_on_are_told(runs, source, tmp_path):
    """Behind links, too."""
    assert str(cnnzoo.Ensemble(runs)).splitlines()[-1] == "18 images, none of which a member was trained on"
    told, notes = [], [f"18 of 36 images are among those that {run.path} learnt from" for run in runs]
    data = linked(source, tmp_path / "all")
    assert str(cnnzoo.Ensemble(runs, data=data)).splitlines()[-4:] == ["36 images", *notes]
    cnnzoo.diversity(runs, data=data, tell=told.append)
    assert told == notes


def test_a_committee_has_learnt_from_what_any_member_has(runs, source, tmp_path):
    other = train(tmp_path / "other", source, "lenet5", 3, 32, split_seed=1)
    fresh = photos.folder(tmp_path / "fresh", each=4)
    made = cnnzoo.combine([runs[0], other], data=str(fresh), run=tmp_path / "run")
    assert set(made.split["train"]) == {*runs[0].split["train"], *other.split["train"]} > set(runs[0].split["train"])
    assert made.split["val"] == list(panel([runs[0], other], str(fresh)).images)
    both = str(cnnzoo.Ensemble([made, runs[1]], data=linked(source, tmp_path / "all")))
    assert f"{len(made.split['train'])} of 36 images are among those that {made.path} learnt from" in both


@pytest.mark.parametrize("left", [0, 300])
def test_a_damaged_file_is_named_or_made_anew(runs, tmp_path, left):
    broken = variant(runs[0], tmp_path / "broken")
    os.truncate(broken.predictions_file, left)
    with pytest.raises(InputError, match=r"broken/predictions\.npz is damaged, or another run's; remove it"):
        panel([broken, runs[1]])
    for file in broken.path.glob("predictions*.npz"):
        file.unlink()
    made = panel([broken, runs[1]])
    (cache,) = broken.path.glob("predictions-*.npz")
    os.truncate(cache, left)
    with counted() as seen:
        np.testing.assert_array_equal(panel([broken, runs[1]]).logits, made.logits)
    assert sum(seen) == 18
    for name in ("split.json", "metrics.jsonl", "committee.json"):
        (broken.path / name).write_text('{"train": ["a')
        with pytest.raises(InputError, match=rf"broken/{name} is damaged or cut short; restore it"):
            getattr(broken, name.partition(".")[0])


# ---- one image, several views


VIEWS = (
    Preprocess(32, 36, (0.5,) * 3, (0.2,) * 3),
    Preprocess(24, 24, (0.4,) * 3, (0.1,) * 3, "bicubic", squash=True),
    Preprocess(24, 24, (0.3,), (0.3,)),
)


def test_a_sheet_holds_what_each_net_would_see(pictures):
    sheet, tops = together([*VIEWS, VIEWS[0]])
    assert (sheet.shape, tops) == ((80, 32, 3), [0, 32, 56, 0])
    for file in pictures:
        pixels = sheet.pixels(file)
        np.testing.assert_array_equal(pixels, sheet.read(file))
        for view, top in zip(VIEWS, tops, strict=False):
            seen = pixels[top : top + view.size, : view.size, : view.channels]
            np.testing.assert_array_equal(seen, view.pixels(file))
    assert (pixels[32:, 24:] == 0).all()


def test_a_sheet_mirrors_each_view(pictures):
    sheet, _ = together(VIEWS)
    image = Image.open(pictures[0]).resize((48, 48))  # whose middle is the same from both sides
    mirrored = sheet(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert torch.equal(sheet.mirrored(sheet(image)[None])[0], mirrored)


def test_a_sheet_in_a_graph_is_the_same_to_the_bit(pictures):
    sheet, _ = together([VIEWS[0], Sheet(VIEWS[1:])])  # a committee among the members
    graph = graph_of(sheet)
    image = np.array(Image.open(pictures[0]))
    assert torch.equal(graph(torch.from_numpy(image)[None])[0], sheet(image))


# ---- the command


def test_the_command_tells_the_table_and_leaves_a_run(runs, cli, tmp_path):
    paths = [run.path for run in runs]
    code, out, _ = cli("ensemble", *paths, "--method", "weighted")
    assert code == 0
    assert f"{combine(panel(runs), 'weighted').top1:.2%}" in out
    assert "go on with: cnnzoo predict runs/committee_photos_weighted PHOTOS" in out
    assert Run.open(tmp_path / "runs" / "committee_photos_weighted").committee["best"] == "weighted"
    code, out, _ = cli("ensemble", *paths, "--weights", "0.5,0.3,0.2", "--run", "own", "--json")
    assert json.loads(out)["weights"]["mean"] == pytest.approx([0.5, 0.3, 0.2])
    assert yaml.safe_load((tmp_path / "own" / "config.yaml").read_text())["ensemble"]["weights"] == [0.5, 0.3, 0.2]


def test_all_methods_are_a_table_and_with_a_folder_the_best_is_kept(runs, cli, tmp_path):
    code, out, _ = cli("ensemble", *(run.path for run in runs), "--method", "all")
    assert code == 0
    assert all(f"\n{method} " in out for method in METHODS)
    assert not list(tmp_path.iterdir())
    assert cli("ensemble", *(run.path for run in runs), "--method", "all", "--run", "best")[0] == 0
    best = cnnzoo.Ensemble(runs, "all").combination.method
    assert yaml.safe_load((tmp_path / "best" / "config.yaml").read_text())["ensemble"]["method"] == best


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["0"], "a committee needs two members at least"),
        (["0", "0"], "is named twice"),
        (["0", "nowhere"], "there is no run folder nowhere"),
        (["0", "1", "--method", "vot"], "unknown method 'vot'; did you mean vote?"),
        (["0", "1", "--weights", "0.5,0.6"], "sum to 1.1, but must sum to 1"),
        (["0", "1", "--weights", "1.5,-0.5"], "none of them negative"),
        (["0", "1", "--weights", "a,b"], "--weights is a,b, but must be a number"),
        (["0", "1", "--method", "stacking", "--weights", "0.5,0.5"], "method stacking takes no weights"),
        (["0", "1", "--run", "0"], "exists already"),
        (["0", "1", "--data", "nowhere"], "'nowhere' is neither a known set nor a folder"),
    ],
)
def test_wrong_input_is_told_in_one_line_and_leaves_nothing(runs, fails, tmp_path, arguments, why):
    assert why in fails("ensemble", *(runs[int(word)].path if word in ("0", "1") else word for word in arguments))
    assert not list(tmp_path.iterdir())


def test_a_finished_committee_says_so_and_is_not_made_again(committee, cli, fails):
    before = {file.name: file.read_bytes() for file in committee.path.iterdir()}
    for words in (["--resume", committee.path], ["--config", committee.config_file, "--resume", "auto"]):
        code, out, _ = cli("train", *words)
        assert code == 0
        assert out.startswith(f"{committee.path} is finished, and stays as it is\n")
    why = fails("train", "--config", committee.config_file)
    assert why.endswith("exists already and is finished; choose another folder by --run")
    assert before == {file.name: file.read_bytes() for file in committee.path.iterdir()}


def test_runs_that_held_out_other_images_are_refused(runs, source, tmp_path):
    other = train(tmp_path / "other", source, "lenet5", 3, 32, split_seed=1)
    why = r"was judged on 18 images and .* on 18, of which \d+ are the same, .*split_seed.*data=…"
    with pytest.raises(InputError, match=why):
        cnnzoo.combine([runs[0], other], run=tmp_path / "run")
    others = photos.folder(tmp_path / "fresh", each=4)
    assert len(panel([runs[0], other], str(others)).targets) == 12


def test_runs_that_know_other_classes_are_refused(runs, tmp_path):
    strange = variant(runs[0], tmp_path / "strange", classes=("blue", "green", "reddish"))
    with pytest.raises(InputError, match="do not know the same classes: only one knows red, reddish"):
        panel([runs[0], strange])


def test_a_run_in_training_is_refused(runs, tmp_path):
    busy = variant(runs[0], tmp_path / "busy")
    with FileLock(busy.path / LOCK), pytest.raises(InputError, match="busy is still in training; wait"):
        panel([runs[0], busy])
    (busy.path / LOCK).touch()  # as a process leaves it that was killed
    assert len(panel([runs[0], busy])) == 2


def test_a_run_without_weights_is_refused(runs, tmp_path):
    young = variant(runs[0], tmp_path / "young")
    young.model_file.unlink()
    young.predictions_file.unlink()
    with pytest.raises(InputError, match="the run has not finished an epoch yet"):
        panel([runs[0], young])


def test_members_of_different_sizes_are_judged_on_one_crop(committee):
    with pytest.raises(InputError, match="in different sizes is judged on 1 crop, not on 10"):
        cnnzoo.evaluate(committee.path, crops=10)


def test_a_committee_has_no_features_by_which_the_doctor_could_doubt_labels(committee, tmp_path):
    photos.folder(tmp_path / "photos")
    with pytest.raises(InputError, match="CommitteeNet has no forward_features and forward_head, so"):
        cnnzoo.check(tmp_path / "photos", model=committee.path)


def test_an_unknown_rule_in_a_file_is_refused(committee, tmp_path):
    strange = variant(committee, tmp_path / "strange", rule={"kind": "oracle"})
    with pytest.raises(InputError, match="unknown rule of a committee 'oracle'; known: mean, vote, stack"):
        cnnzoo.load(strange)
    assert set(_rules.describe(cnnzoo.load(committee).rule)) == {"kind", "weights", "of"}


# ---- looking into a committee


@pytest.mark.parametrize("command", ["gradcam", "deconv", "activations", "invert"])
def test_a_committee_has_no_layer_of_its_own(committee, source, tmp_path, fails, command):
    picture = sorted(source.rglob("*.png"))[0]
    said = fails("visualize", command, committee.path, picture, "--out", tmp_path / "x.png")
    assert said.startswith(
        "a committee has no layer of its own; look at the run of one of its members, or name a layer"
    )
    named = cnnzoo.visualize.activations(committee, picture, said.split()[-1])  # which the message proposes
    assert named.maps[said.split()[-1]].shape[2] > 1
    assert not (tmp_path / "x.png").exists()


def test_a_committee_of_committees_proposes_a_layer_of_a_net(committee, runs, source, tmp_path):
    both = cnnzoo.combine([committee, runs[0]], run=tmp_path / "both")
    with pytest.raises(InputError, match=r"such as members\.0\.members\.0\.s4$"):
        cnnzoo.visualize.gradcam(both, sorted(source.rglob("*.png"))[0])


@pytest.mark.parametrize("command", ["neighbours", "map"])
def test_a_committee_has_no_features_to_compare_images_by(command, runs, tmp_path, fails):
    committee = cnnzoo.combine([runs[0], variant(runs[0], tmp_path / "again")], run=tmp_path / "both")
    said = fails("visualize", command, committee.path, "--out", tmp_path / "x.png")
    assert said.startswith(f"{committee.path} is a committee, which has no features of its own to compare images by")
