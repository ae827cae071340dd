"""Fine-tuning in stages: what moves when, what never moves, and that no kill changes the outcome."""

import os
import re
import shutil
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import photos
import pytest
import torch
from PIL import Image
from torch import nn

import cnnzoo
from cnnzoo import assemble, learn
from cnnzoo.checkpoint import Run
from cnnzoo.config import LossConfig
from cnnzoo.errors import InputError, Interrupted
from cnnzoo.files import read_torch
from cnnzoo.train import losses
from cnnzoo.train.ema import EMA
from cnnzoo.transfer.features import Backbone
from cnnzoo.transfer.finetune import recipe

pytestmark = pytest.mark.usefixtures("no_report")

SMALL = ("--augment.mixup=0.2", "--data.val_fraction=0.25")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return photos.folder(tmp_path_factory.mktemp("photos") / "photos", each=16)


@pytest.fixture
def tune(pictures, weights, tmp_path):
    def tune(name="run", **options):
        steps = {} if options.get("mode") == "probe" else {"batch_size": 12}
        options = {"overrides": SMALL} | steps | options
        return learn.finetune(pictures, "resnet20", str(weights), run=tmp_path / name, **options)

    return tune


def state(run: Run) -> dict[str, torch.Tensor]:
    return read_torch(run.state_file)["model"]


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def after(steps: int):
    """Says stop after so many steps; before the first it is asked twice, of the data and of the probe."""
    asked = iter(range(10**6))
    return lambda: next(asked) - 1 >= steps


def test_staged_starts_from_the_probe_moves_the_last_stage_then_all(tune):
    told = []
    run = tune(epochs=(1, 2), tell=told.append)
    assert [line["epoch"] for line in run.metrics] == [0, 1, 2, 3]
    first, second = (line for line in told if line.startswith("phase"))
    assert "rates stage3" in first
    assert "rates stem" in second
    assert all("BatchNorm keeps its statistics" in line for line in (first, second))
    start = tune("probe", mode="probe", views=3, overrides=(*SMALL, "--probe.classifier=logistic"))
    assert run.metrics[0]["val_top1"] == start.metrics[0]["val_top1"]
    assert run.metrics[0]["val_loss"] == pytest.approx(start.metrics[0]["val_loss"])


@pytest.mark.parametrize(("few", "views"), [(36, 3), (35, 1)])
def test_before_fine_tuning_the_probe_sees_few_photos_in_three_views(tune, monkeypatch, few, views):
    monkeypatch.setattr(assemble, "FEW", few)
    told = []
    tune(mode="head", epochs=(1,), tell=told.append)
    assert any(line.startswith(f"features of {views * 36 + 12} images") for line in told), told


def test_fine_tuning_takes_a_probes_features_from_the_cache(tmp_path, weights):
    folder = photos.folder(tmp_path / "photos", each=16)
    for file in folder.rglob("*.png"):  # larger than the net takes
        pixels = np.random.default_rng(len(file.name)).integers(0, 256, (70, 90, 3), np.uint8)
        with Image.open(file) as picture:
            Image.blend(picture.resize((90, 70)), Image.fromarray(pixels), 0.5).save(file)
    options = {"pretrained": str(weights), "overrides": SMALL}
    learn.probe(folder, "resnet20", run=tmp_path / "probe", classifier="logistic", **options)
    told = []
    learn.finetune(folder, "resnet20", run=tmp_path / "run", views=1, epochs=(0, 1), tell=told.append, **options)
    assert any(" 0 computed" in line for line in told), told


@pytest.mark.parametrize(("batch_size", "steps", "at_once"), [(20, 2, 18), (36, 1, 36), (35, 2, 18), (12, 3, 12)])
def test_few_photos_are_dealt_out_in_even_steps(tune, batch_size, steps, at_once):
    """36 photos in batches of 20 would be one step, that leaves 16 of them out."""
    told = []
    run = tune(mode="full", epochs=(2,), batch_size=batch_size, tell=told.append)
    assert f"batches of {at_once}, seed 0" in told[1]
    assert read_torch(run.state_file)["schedule"]["steps"] == 2 * steps
    assert run.metrics[-1]["train_loss"] != run.metrics[1]["train_loss"]


def test_weights_out_of_reach_are_told_before_photos_are_decoded_and_a_wrong_folder_before_both(
    pictures, tmp_path, monkeypatch
):
    monkeypatch.setenv("CNNZOO_OFFLINE", "1")
    monkeypatch.setenv("CNNZOO_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match="nowhere"):
        learn.probe(tmp_path / "nowhere", "resnet18", "tv_in1k", run=tmp_path / "run")
    shutil.copytree(next(pictures.iterdir()), tmp_path / "photos" / "only")
    with pytest.raises(InputError, match="one class only"):
        learn.probe(tmp_path / "photos", "resnet18", "tv_in1k", run=tmp_path / "run")
    monkeypatch.setattr("cnnzoo.data.sources.load", None)
    for options in ({"mode": "probe"}, {"budget": 60}, {"lr": "find"}):
        with pytest.raises(InputError, match="CNNZOO_OFFLINE is set"):
            learn.finetune(pictures, "resnet18", "tv_in1k", run=tmp_path / "run", **options)


def test_frozen_stages_and_every_batchnorm_are_bit_identical(tune, weights):
    run = tune(epochs=(2, 0))
    before, now = torch.load(weights, weights_only=True), state(run)
    moved = {name for name in before if name in now and not torch.equal(before[name], now[name])}
    assert moved
    assert all(name.startswith(("layer3.", "fc.", "linear.")) for name in moved)
    assert not any("running" in name or "num_batches" in name for name in moved)


def test_statistics_move_where_they_are_asked_to_and_their_stage_does(tune, weights):
    run = tune(epochs=(1, 0), overrides=(*SMALL, "--train.batch_norm=update"))
    before, now = torch.load(weights, weights_only=True), state(run)
    moved = {name for name in before if "running" in name and not torch.equal(before[name], now[name])}
    assert moved
    assert all(name.startswith("layer3.") for name in moved)


@pytest.fixture(scope="module")
def whole(pictures, weights, tmp_path_factory):
    """Two phases, of one and two epochs of three steps each, never interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return learn.finetune(pictures, "resnet20", str(weights), epochs=(1, 2), batch_size=12, overrides=SMALL, run=folder)


@pytest.mark.parametrize("steps", [2, 3, 7])  # inside the first phase, at its end, inside the second
def test_stopped_anywhere_it_resumes_to_the_same_weights(whole, tune, tmp_path, steps):
    with pytest.raises(Interrupted):
        tune("parts", epochs=(1, 2), should_stop=after(steps))
    resumed = cnnzoo.train(resume=tmp_path / "parts")
    assert equal(state(whole), state(resumed))
    assert [line["val_loss"] for line in whole.metrics] == [line["val_loss"] for line in resumed.metrics]
    assert equal(dict(cnnzoo.load(whole).state_dict()), dict(cnnzoo.load(resumed).state_dict()))


def test_killed_by_force_it_resumes_to_the_same_weights(whole, pictures, weights, tmp_path, elsewhere):
    """SIGKILL in the second phase, with a save after every step."""
    keys = [*SMALL, "--train.checkpoint_minutes=0"]
    options = ["--model", "resnet20", "--pretrained", weights, "--epochs", "1,2", "--batch-size", 12, *keys]
    process = elsewhere("finetune", pictures, *options, "--run", tmp_path / "killed")
    while not ((tmp_path / "out").exists() and "\nepoch 2" in (tmp_path / "out").read_text()) and process.is_alive():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert equal(state(whole), state(cnnzoo.train(resume=tmp_path / "killed")))


def test_the_head_alone_trains_on_cached_features(tune, weights, monkeypatch):
    told = []
    options = {"mode": "head", "epochs": (3,), "views": 2, "overrides": ("--data.val_fraction=0.25",)}
    run = tune(**options, tell=told.append)
    assert any("from cached features" in line for line in told)
    before, now = torch.load(weights, weights_only=True), state(run)
    assert all(torch.equal(before[name], now[name]) for name in before if not name.startswith(("fc.", "linear.")))
    monkeypatch.setattr("cnnzoo.inference.optimized.Optimized.forward", None)  # the backbone is not called again
    again = tune("again", **options)
    assert equal(state(run), state(again))


def test_a_teacher_sees_the_images_that_the_head_alone_learns_from(tune):
    told, teacher = [], tune("teacher", mode="probe")
    taught = ("--data.val_fraction=0.25", f"--loss.teacher={teacher.path}")
    run = tune(mode="head", epochs=(1,), overrides=taught, tell=told.append)
    assert not any("from cached features" in line for line in told)
    assert run.metrics[-1]["epoch"] == 1


def test_no_precision_is_tried_on_a_net_of_which_only_the_head_learns_from_cached_features(tune, monkeypatch):
    monkeypatch.setattr(assemble.forms, "precision", lambda *_: pytest.fail("tried on the whole net"))
    told = []
    tune(mode="head", epochs=(1,), overrides=("--data.val_fraction=0.25",), tell=told.append)
    assert any("from cached features" in line for line in told)
    assert all(told)


def test_a_head_on_cached_features_in_16_bits_is_judged_in_fp32(tune, monkeypatch):
    monkeypatch.setattr("cnnzoo.device.computes_in_bf16", lambda device: True)
    extract = Backbone.extract

    def coarse(self, images, **options):
        found = extract(self, images, **options)
        return found if self.in_fp32 else replace(found, vectors=np.round(found.vectors))

    monkeypatch.setattr(Backbone, "extract", coarse)
    run = tune(mode="head", epochs=(2,), overrides=("--data.val_fraction=0.5",))
    kept = run.metrics[run.card["epoch"]]
    assert kept["epoch"] > 0
    logits, targets = (torch.from_numpy(part) for part in run.predictions)  # the net's own
    assert kept["val_loss"] == pytest.approx(nn.functional.cross_entropy(logits, targets).item(), rel=1e-3)


@pytest.mark.parametrize("what", ["mixup", "cutmix"])
def test_the_head_alone_learns_from_images_where_these_are_mixed(tune, what):
    told = []
    tune(mode="head", epochs=(1,), views=2, overrides=(f"--augment.{what}=0.4",), tell=told.append)
    assert not any("from cached features" in line for line in told)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_head_phase_after_a_moving_one_is_judged_by_the_moved_nets_features(ema, pictures, weights, tmp_path):
    config = recipe(str(pictures), "resnet20", str(weights), epochs=(1, 1), run=str(tmp_path / "run"))
    config["train"] |= {"phases": [{"epochs": 1}, {"epochs": 1, "trainable": ["head"]}], "ema": ema}
    config["augment"]["mixup"] = 0
    told = []
    run = cnnzoo.train(config, tell=told.append)
    assert any("from cached features" in line for line in told) == (ema is None)
    net = cnnzoo.load(run)
    net.load_state_dict(state(run))
    if ema:
        average = EMA(net, ema)
        average.load_state_dict(read_torch(run.state_file)["ema"])
    images = torch.stack([net.preprocessing(name) for name in run.split["val"]])
    labels = torch.tensor([net.classes.index(name.split("/")[-2]) for name in run.split["val"]])
    with torch.no_grad(), average.shown() if ema else nullcontext():
        loss = torch.nn.functional.cross_entropy(net(images), labels).item()
    assert run.metrics[-1]["val_loss"] == pytest.approx(loss, rel=1e-4)


def test_full_moves_everything_at_rates_that_fall_towards_the_input(pictures, weights):
    config = recipe(str(pictures), "resnet20", str(weights), mode="full")
    (phase,) = config["train"]["phases"]
    rates = [phase["rates"][stage] for stage in ("stem", "stage1", "stage2", "stage3")]
    assert phase["trainable"] == ["*"]
    assert rates == sorted(rates)
    assert rates[-1] < 1


def test_a_phase_without_progress_ends_early_and_resumes_alike(tune):
    options = {"epochs": (6, 2), "lr": 1e-9, "overrides": (*SMALL, "--train.patience=2")}
    run = tune(**options)
    assert len(run.metrics) == 1 + 3 + 2  # of each phase one epoch that sets the mark, and two that do not pass it
    with pytest.raises(Interrupted):
        tune("parts", **options, should_stop=after(10))  # in the second phase
    assert equal(state(run), state(cnnzoo.train(resume=run.path.parent / "parts")))


def test_the_best_epoch_may_be_the_probes(tune):
    run = tune(epochs=(1, 1), lr=30.0)
    assert cnnzoo.evaluate(run.path).top1 == max(line["val_top1"] for line in run.metrics)


def test_a_budget_chooses_the_epochs_and_limits_their_time(tune):
    told = []
    run = tune(budget=12, tell=told.append)
    assert any(line.startswith("within 12 s there is time for epochs") for line in told)
    assert 2 <= len(run.metrics) <= 1 + 60
    assert 0 < 60 * learn.config_.read(run.config_file).train.minutes < 12  # which the trainer keeps


def test_a_budget_may_be_written_as_a_duration(tune):
    told = []
    tune(budget="0.05m", tell=told.append)
    assert any(line.startswith("within 3 s there is time for epochs") for line in told)


def test_a_budget_too_small_for_anything_gives_the_probe(tune):
    run = tune(budget=0.001)
    assert [line["epoch"] for line in run.metrics] == [0]
    again = cnnzoo.train(run.config_file, overrides={"run": run.path.parent / "again"})
    assert run.probe == again.probe | {"scores": run.probe["scores"]}  # but for the seconds
    assert all(map(torch.equal, run.weights.values(), again.weights.values()))


def test_doubts_about_the_data_are_told_within_a_budget_too(tune, pictures):
    told, twin = [], pictures / "red" / "twin.png"
    shutil.copy(next(pictures.glob("blue/*.png")), twin)
    try:
        tune("doubtful", budget=0.001, tell=told.append)
    finally:
        twin.unlink()
    assert any(line.startswith("error of the data, 1 x contradiction") for line in told)


def test_the_range_test_finds_a_rate_and_changes_nothing_else(tune):
    told = []
    run = tune(lr="find", epochs=(1, 0), tell=told.append)
    rate = learn.config_.read(run.config_file).optim.lr
    assert 1e-6 < rate < 0.1  # not where chance had its least loss, among the first and smallest
    assert any("the range test" in line for line in told)
    again = tune("again", lr=rate, epochs=(1, 0))
    assert equal(state(run), state(again))


def test_who_has_switched_gradients_off_can_look_for_a_rate(tune):
    with torch.inference_mode():
        assert tune(lr="find", epochs=(1, 0)).is_finished


@pytest.mark.parametrize("classifier", ["logistic", "knn", "mlp"])
def test_a_probe_computes_in_float32_where_autocast_is_on(pictures, weights, tmp_path, classifier):
    with torch.autocast("cpu"):
        options = {"run": tmp_path / "run", "classifier": classifier, "overrides": SMALL}
        assert learn.probe(pictures, "resnet20", str(weights), **options).is_finished


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("classifier", ["logistic", "knn", "mlp"])
def test_a_probe_computes_in_float32_whatever_is_usual(pictures, weights, tmp_path, classifier):
    options = {"run": tmp_path / "run", "classifier": classifier, "overrides": SMALL}
    assert learn.probe(pictures, "resnet20", str(weights), **options).is_finished


def test_balance_in_the_loss_makes_each_class_weigh_the_same():
    labels = np.repeat([0, 1, 2], [90, 9, 1])
    weights = assemble._class_weights(labels, 3)
    assert (weights * torch.tensor([90.0, 9, 1])).tolist() == pytest.approx([100 / 3] * 3)
    loss = losses.build(LossConfig(), class_weights=weights)
    logits, targets = torch.zeros(100, 3), torch.from_numpy(labels)
    logits[targets == 2, 2] = 5.0  # the one rare image gets right
    assert loss(logits, targets).item() < torch.nn.functional.cross_entropy(logits, targets).item() - 0.3


def test_balanced_draws_are_equally_many():
    from cnnzoo.data.batches import balanced, shuffled

    labels = np.repeat([0, 1, 2], [900, 90, 10])
    drawn = np.bincount(labels[shuffled(1000, 0, 0, balanced(labels))])
    assert drawn.sum() == 1000
    assert (np.abs(drawn - 1000 / 3) < 80).all()
    assert (np.sort(shuffled(1000, 0, 0)) == np.arange(1000)).all()


def test_cached_features_need_a_head_on_pooled_ones():
    with pytest.raises(InputError, match=r"train\.cache_features true needs model\.head linear or probe"):
        learn.config_.read({"model": {"name": "squeezenet1_1"}, "train": {"cache_features": True}})


def test_one_number_is_the_epochs_of_one_phase(tune):
    assert len(tune(mode="full", epochs=2).metrics) == 3
    assert len(tune("numpy", mode="head", epochs=np.int64(1)).metrics) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": 3}, "mode staged has 2 phases, but epochs names 1; say 2,4"),
        ({"epochs": "1,2"}, "epochs is '1,2', but must be a number for each phase, such as (2, 4)"),
        ({"mode": "full", "epochs": 2.5}, "epochs is 2.5, but must be a number for each phase, such as (6,)"),
        ({"mode": "probe", "epochs": 3}, "mode probe has 0 phases, but epochs names 1; leave it out"),
        ({"mode": "probe", "batch_size": 8}, "batch_size is 8, but mode probe has no epochs; leave it out"),
        ({"epochs": (1, 1), "budget": 60}, "epochs and budget both say how long it takes; give one of them"),
        ({"budget": "5 parsecs"}, "budget is 5 parsecs, but must be a duration such as 90s, 10m or 2h"),
        ({"budget": -5}, "budget is -5, but must be a duration"),
        ({"budget": 0}, "budget is 0, but must be a duration"),
        ({"lr": 0}, "optim.lr is 0.0, but must be above 0"),
        ({"lr": "find", "epochs": (0, 0)}, "lr='find' looks for the rate of epochs, but epochs leaves none"),
        ({"lr": "find", "mode": "head", "epochs": 0}, "lr='find' looks for the rate of epochs"),
        ({"overrides": ("--probe.classifier=knn",)}, "probe.classifier knn makes a head that learns no further"),
        ({"overrides": ("--probe.bag=3",)}, "make a head that learns no further"),
    ],
    ids=str,
)
def test_options_that_will_not_do_are_told_before_any_work(tune, monkeypatch, options, said):
    monkeypatch.setattr("cnnzoo.data.sources.load", None)
    with pytest.raises(InputError, match=re.escape(said)):
        tune(**options)


def test_a_head_that_is_to_learn_on_is_none_of_neighbours(tune):
    run = tune(mode="head", epochs=1, overrides=(*SMALL, "--probe.classifier=auto"))
    tried = {score["classifier"] for score in run.probe["scores"]}
    assert "knn" not in tried
    assert "mlp" in tried
    assert len(tune("mlp", mode="head", epochs=1, overrides=(*SMALL, "--probe.classifier=mlp")).metrics) == 2


def test_nets_are_tuned_without_the_classifiers_that_help_them_to_begin():
    models = [recipe("photos", name)["model"] for name in ("googlenet", "resnet50")]
    assert [model["args"] for model in models] == [{"aux_logits": False}, {}]


def test_a_run_is_called_after_the_folder_however_that_is_written(pictures, monkeypatch):
    monkeypatch.chdir(pictures / "red")
    for source in (pictures, f"{pictures}/", "..", "../../photos"):
        assert recipe(source, "resnet20")["run"] == "runs/resnet20_photos_staged"
        data = {"source": str(source)}
        assert str(learn.config_.read({"data": data}).folder) == "runs/lenet5_photos"


def test_bad_input_is_one_line(pictures, weights, tmp_path, fails):
    known = ["--model", "resnet20", "--pretrained", weights]
    for words, said in (
        ([*known, "--mode", "stage"], "unknown mode 'stage'; did you mean staged?"),
        ([*known, "--epochs", "3"], "mode staged has 2 phases"),
        ([*known, "--epochs", "a few"], "--epochs is a few"),
        ([*known, "--budget", "soon"], "budget is soon, but must be a duration such as 90s, 10m or 2h"),
        ([*known, "--lr", "high"], "--lr is high, but must be a number or find"),
        ([*known, "--balance", "all"], "train.balance is all, but must be none or loss or sampler"),
        ([*known, "--lr", "-1"], "optim.lr is -1"),
    ):
        assert said in fails("finetune", pictures, *words, "--run", tmp_path / "bad")
        assert not (tmp_path / "bad").exists()


def test_a_run_folder_is_never_overwritten(tune):
    run = tune(mode="probe")
    before = {file.name: file.read_bytes() for file in run.path.iterdir()}
    with pytest.raises(InputError, match="exists already"):
        tune(lr="find")
    assert before == {file.name: file.read_bytes() for file in run.path.iterdir()}


# ---- which net to begin with


def test_pick_ranks_what_is_here_and_names_the_rest(pictures, monkeypatch, tmp_path):
    monkeypatch.setenv("CNNZOO_OFFLINE", "1")
    monkeypatch.setenv("CNNZOO_WEIGHTS", str(tmp_path))
    with pytest.raises(InputError, match=r"no net could be tried .*resnet18"):
        cnnzoo.pick(pictures, ["resnet18"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"models": "squeezenet1_1.caffe"}, "there are no weights 'squeezenet1_1.caffe'; did you mean squeezenet1_1."),
        ({"seed": -1}, "seed is -1, but must be a whole number of at least 0"),
    ],
)
def test_what_pick_cannot_take_is_told_before_any_work(pictures, options, words):
    with pytest.raises(InputError, match=re.escape(words)):
        cnnzoo.pick(pictures, **options)


def test_pick_takes_names_between_commas_as_a_list(pictures, monkeypatch, tmp_path):
    monkeypatch.setenv("CNNZOO_OFFLINE", "1")
    monkeypatch.setenv("CNNZOO_WEIGHTS", str(tmp_path))
    with pytest.raises(InputError, match=r"no net could be tried .*resnet18.*resnet34"):
        cnnzoo.pick(pictures, "resnet18, resnet34,")


def test_pick_with_real_weights(pictures, cli, monkeypatch):
    if not os.environ.get("CNNZOO_WEIGHTS"):
        pytest.skip("CNNZOO_WEIGHTS does not say where real weights lie")
    monkeypatch.setenv("CNNZOO_OFFLINE", "1")
    groups = ("--groups", "([0-9]).png")
    code, out, err = cli("pick", pictures, "--models", "squeezenet1_1,resnet18", "--budget", "60s", *groups)
    assert code == 0
    assert "groups, none of which is divided" in out
    assert "squeezenet1_1 caffe_in1k" in out
    onward = f"cnnzoo finetune {pictures} --model squeezenet1_1 --pretrained caffe_in1k --data.groups '([0-9]).png'"
    assert onward in out
    assert "resnet18" in err


def test_pick_tells_a_cut_photo_once_and_a_damaged_file_of_weights_costs_no_other_net(tmp_path, monkeypatch):
    if not os.environ.get("CNNZOO_WEIGHTS"):
        pytest.skip("CNNZOO_WEIGHTS does not say where real weights lie")
    for file in Path(os.environ["CNNZOO_WEIGHTS"]).glob("*.*th"):
        (tmp_path / "weights").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "weights")
    damaged = tmp_path / "weights" / "squeezenet1_1_caffe.pth"
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:1_000_000])
    monkeypatch.setenv("CNNZOO_OFFLINE", "1")
    monkeypatch.setenv("CNNZOO_WEIGHTS", str(tmp_path / "weights"))
    source = photos.folder(tmp_path / "photos")
    cut = source / "red" / "01.png"
    cut.write_bytes(cut.read_bytes()[:100])
    told = []
    ranking = cnnzoo.pick(source, ["squeezenet1_1", "resnet20", "resnet32"], budget="5m", tell=told.append)
    assert {candidate.model for candidate in ranking.candidates} == {"resnet20", "resnet32"}
    (name,) = ranking.missing
    assert name.startswith("squeezenet1_1")
    assert len([line for line in told if str(cut) in line]) == 1


def test_pick_does_not_begin_what_does_not_fit(pictures):
    with pytest.raises(InputError, match="no time left"):
        cnnzoo.pick(pictures, ["squeezenet1_1"], budget=1e-9)
