"""What Python users may hand over, and the one line that they get where it is wrong."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import cnnzoo
from cnnzoo import config, labs, visualize
from cnnzoo.weights import fetch

RIGHT_FORM = 'overrides are {"data.size": 128}, "--data.size 128" or ["--data.size=128"], not '


class Table:
    """As pandas' is, which is neither true nor false, nor equal to anything."""

    def __len__(self) -> int:
        return 3

    def __repr__(self) -> str:
        return "file\na.png"

    def __eq__(self, other: object) -> "Table":
        return self

    def __bool__(self) -> bool:
        raise ValueError("the truth value of a table is ambiguous")


@pytest.fixture(scope="module")
def net():
    return cnnzoo.create("lenet5").eval()


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("photos") / "grey.png"
    Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32)).save(file)
    return file


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The folder of two runs, d0 and d1."""
    home = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        what = {"model": "mlp", "train": {"epochs": 1, "seed": seed, "device": "cpu"}}
        cnnzoo.train({"run": home / f"d{seed}", **what}, with_report=False)
    return home


# ---- configs


@pytest.mark.parametrize(
    "overrides",
    [
        "--data.size 128 --model mlp",
        {"data.size": 128, "model": "mlp"},
        {"data": {"size": np.int64(128)}, "model": {"name": "mlp"}},
        ["--data.size=128", "--model=mlp"],
        ("--data.size", 128, "--model", "mlp"),
    ],
)
def test_overrides_are_a_mapping_a_text_or_words(overrides):
    read = config.read({"data": {"val_fraction": 0.3}}, overrides)
    assert (read.data.size, read.model.name, read.data.val_fraction) == (128, "mlp", 0.3)


def test_overrides_of_a_mapping_may_be_of_any_kind():
    wanted = {"model.args": {"hidden": [10]}, "augment.flip": True, "optim.eps": None, "data.source": "it's here"}
    read = config.read({"optim": {"eps": 1e-3}}, wanted)
    assert (read.model.args, read.augment.flip, read.optim.eps) == ({"hidden": [10]}, True, None)
    assert read.data.source == "it's here"


@pytest.mark.parametrize("wrong", ["data.size 128", ["data.size=128"], ["--data.size 128"], 3, [3], "--data.source 'a"])
@pytest.mark.parametrize("learn", [cnnzoo.probe, cnnzoo.finetune])
def test_wrong_overrides_are_shown_the_right_form(learn, wrong):
    with pytest.raises(cnnzoo.InputError) as told:
        learn("digits", "lenet5", False, overrides=wrong)
    assert str(told.value) == f"{RIGHT_FORM}{wrong!r}"


@pytest.mark.parametrize("section", [{"epochs": None}, {"batch_size": None}, {"seed": None}])
def test_a_null_is_told_where_a_number_must_be(section):
    (key,) = section
    with pytest.raises(cnnzoo.InputError, match=rf"train\.{key} is null, but must be a whole number; leave it out"):
        cnnzoo.train({"train": section})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optim": {"lr": None}}, "optim.lr is null, but must be a number"),
        ({"optim": {"name": None}}, "optim.name is null, but must be sgd or adam"),
        ({"data": {"source": None}}, "data.source is null, but must be text"),
        ({"data": {"source": ""}}, "data.source is '', but must be a name or a folder"),
        (
            {"data": ["a.jpg"]},
            "data.source is ['a.jpg'], but must be text; give images of your own a name",
        ),
        ({"data": {"source": Table()}}, "data.source is an object of class Table, but must be text; give images"),
        ({"model": nn.Sequential(nn.ReLU())}, "model is an object of class Sequential, but must be a section of keys"),
        ({"data": {"val_fraction": 0}}, "must be above 0 and below 1, for some images are held out"),
        ({"train": {"seed": 2**70}}, "but must be at least 0 and below 2**32"),
        ({"train": {"epochs": True}}, "train.epochs is True, but must be a whole number"),
        (3, "a config is a mapping of sections, or a YAML file, not 3"),
    ],
)
def test_a_wrong_value_of_a_config_is_told_before_a_folder_is_made(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cnnzoo.InputError) as told:
        cnnzoo.train(given)
    assert message in str(told.value)
    assert not list(tmp_path.iterdir())


def test_a_key_of_a_file_without_a_value_is_told(tmp_path):
    (tmp_path / "c.yaml").write_text("train:\n  epochs:\n")
    with pytest.raises(cnnzoo.InputError, match=r"c\.yaml: train\.epochs is null"):
        config.read(tmp_path / "c.yaml")


def test_numbers_of_numpy_and_devices_of_torch_are_taken_as_what_they_are():
    given = {"epochs": np.int64(3), "device": torch.device("cpu"), "minutes": np.float32(0.5)}
    read = config.read({"train": given, "data": {"mean": np.array([0.25])}})
    assert (read.train.epochs, read.train.device, read.train.minutes, read.data.mean) == (3, "cpu", 0.5, [0.25])


def test_a_section_of_a_config_is_no_word():
    with pytest.raises(cnnzoo.InputError, match=r"model is a section, cnnzoo\.config\.ModelConfig\(…\), not 'lenet5'"):
        cnnzoo.Config(model="lenet5")


# ---- nets


def of_class(kind: str) -> str:
    return f"not an object of class {kind}"


@pytest.mark.parametrize(
    "ask",
    [
        cnnzoo.info,
        cnnzoo.load,
        cnnzoo.preprocessing,
        cnnzoo.summary,
        visualize.filters,
        lambda net: visualize.filters(net, pretrained=True),
        lambda net: cnnzoo.predict(net, "a.jpg"),
        lambda net: cnnzoo.evaluate(net, "digits"),
        lambda net: cnnzoo.compare_runs(net, net),
    ],
)
@pytest.mark.parametrize("wrong", [None, 3, ""])
def test_what_is_no_net_is_told(ask, wrong):
    with pytest.raises(cnnzoo.InputError, match=f"a net's name, a run folder or its file is wanted, not {wrong!r}"):
        ask(wrong)


@pytest.mark.parametrize("wrong", [None, 3, nn.Sequential(nn.Linear(2, 2), nn.ReLU())])
@pytest.mark.parametrize("ask", [cnnzoo.create, lambda name: cnnzoo.probe("digits", model=name or 3)])
def test_a_net_is_named_by_a_text(ask, wrong):
    with pytest.raises(cnnzoo.InputError, match="a net is named by a text such as resnet18, not "):
        ask(wrong)


def test_a_net_has_a_page_as_its_name_has(net):
    assert str(cnnzoo.info(net)) == str(cnnzoo.info("lenet5"))


def test_weights_may_be_a_row_of_the_table():
    (row,) = cnnzoo.list_weights("resnet20")
    if fetch.find(row) is None:
        pytest.skip("the weights are not here")
    by_row, by_tag = (cnnzoo.create(row.model, each) for each in (row, row.tag))
    assert by_row.load_report == by_tag.load_report
    assert all(map(torch.equal, by_row.parameters(), by_tag.parameters()))
    with pytest.raises(cnnzoo.InputError, match=r"weights of resnet20, but must be True, .* for resnet18"):
        cnnzoo.create("resnet18", row)
    with pytest.raises(cnnzoo.InputError, match="pretrained is 3, but must be True, or a tag"):
        cnnzoo.create("resnet18", 3)


def test_no_weights_are_asked_for_by_no_text():
    with pytest.raises(cnnzoo.InputError, match="pretrained is empty, but must be False, True, or a tag"):
        cnnzoo.create("resnet18", "")


def test_a_net_without_weights_is_not_optimised():
    with pytest.raises(cnnzoo.InputError, match="Identity has no weights, so there is nothing to optimise"):
        cnnzoo.optimize(nn.Identity())


@pytest.mark.parametrize("take", [cnnzoo.train, cnnzoo.browse, cnnzoo.profile])
def test_images_of_ones_own_get_a_name_first(take):
    with pytest.raises(cnnzoo.InputError, match=r"data is a ndarray; .* cnnzoo\.register_data"):
        take({"model": "lenet5"}, data=np.zeros((4, 8, 8), np.uint8))


def test_several_patterns_list_what_any_of_them_matches():
    assert cnnzoo.list_models(["vgg1?", "vgg11", "resnet18"]) == ["resnet18", "vgg11", "vgg13", "vgg16", "vgg19"]


@pytest.mark.parametrize("list_", [cnnzoo.list_models, cnnzoo.list_weights, lambda wrong: cnnzoo.compare([wrong])])
@pytest.mark.parametrize("wrong", [None, 3])
def test_a_pattern_is_a_text(list_, wrong):
    with pytest.raises(cnnzoo.InputError, match=rf"a pattern is a text such as \S+ (or several, )?not {wrong}"):
        list_(wrong)


def test_the_size_of_a_summary_may_be_a_side():
    assert str(cnnzoo.summary("lenet5", 32)) == str(cnnzoo.summary("lenet5", (1, 32, 32)))


@pytest.mark.parametrize("size", [(3, -64, 64), "64", (64, 64), 0, 3.5])
def test_a_size_that_is_none_is_told(size):
    with pytest.raises(
        cnnzoo.InputError, match=r"input_size is .*, but must be three whole numbers \(C, H, W\), or one"
    ):
        cnnzoo.summary("lenet5", size)


@pytest.mark.parametrize(
    ("images", "given"),
    [
        (torch.zeros(1, 1, 32, 32, dtype=torch.uint8), "torch.uint8"),
        (np.zeros((1, 1, 32, 32)), "an object of class ndarray"),
        (None, "None"),
    ],
)
def test_a_net_says_what_it_takes(net, images, given):
    with pytest.raises(cnnzoo.InputError) as told:
        net(images)
    wanted = "LeNet5 takes float32 (B, 1, H, W), as cnnzoo.preprocessing gives it"
    assert str(told.value) == f"{wanted}, not {given}"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_converted_net_takes_what_it_was_converted_to(dtype):
    assert cnnzoo.create("lenet5").to(dtype)(torch.zeros(1, 1, 32, 32, dtype=dtype)).dtype == dtype


# ---- layers and pictures


def test_a_layer_may_be_the_module_itself(net, photo):
    layer = net.get_submodule(net.entry.first_conv)
    by_name, by_module = (visualize.gradcam(net, photo, layer=each) for each in (net.entry.first_conv, layer))
    assert by_module.layer == net.entry.first_conv
    assert np.array_equal(by_module.maps, by_name.maps)
    assert visualize.filters(net, layer).layer == net.entry.first_conv
    assert list(visualize.activations(net, photo, [layer, "stage1"]).maps) == [net.entry.first_conv, "stage1"]
    assert visualize.maximise(net, layer, [0], steps=1).layers == (net.entry.first_conv,)


def test_no_layers_are_every_stage(net, photo):
    assert list(visualize.activations(net, photo, []).maps) == [stage.name for stage in net.entry.stages]


@pytest.mark.parametrize("layer", ["layer4", nn.ReLU(), ["stage1"]])
def test_a_layer_that_is_not_there_is_answered_by_those_that_have_names(net, photo, layer):
    with pytest.raises(cnnzoo.InputError, match=r"unknown layer .*(known: .*stage1|did you mean)"):
        visualize.gradcam(net, photo, layer=layer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (64, 64)}, "size is a whole number, the side of a square, not (64, 64)"),
        ({"class_": ["1", "2"]}, "a class is named or numbered, one for all images, not ['1', '2']"),
        ({"class_": 3.5}, "a class is named or numbered, one for all images, not 3.5"),
    ],
)
def test_a_wrong_wish_for_a_picture_is_told(net, photo, options, message):
    with pytest.raises(cnnzoo.InputError) as told:
        visualize.gradcam(net, photo, **options)
    assert str(told.value) == message


def test_a_files_content_is_preprocessed_as_the_file_is(net, photo):
    preprocess, content = cnnzoo.preprocessing(net), photo.read_bytes()
    for given in (content, io.BytesIO(content)):
        assert torch.equal(preprocess(given), preprocess(photo))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("zz.jpg", "zz.jpg: there is no such file"),
        (None, "not a picture: None; give a path"),
        (b"x", "it is not an image"),
    ],
)
def test_what_cannot_be_preprocessed_is_told(net, given, message):
    with pytest.raises(cnnzoo.InputError, match=message):
        cnnzoo.preprocessing(net)(given)


def test_a_data_set_in_the_place_of_pictures_is_told(net):
    with pytest.raises(cnnzoo.InputError, match="a data set is what to look among: data='digits'"):
        visualize.neighbours(net, "digits")


# ---- weights


@pytest.mark.parametrize(
    "ask",
    [
        lambda what, photo, weights: cnnzoo.predict(what, photo, pretrained=weights),
        lambda what, photo, weights: cnnzoo.evaluate(what, "digits", pretrained=weights),
        lambda what, photo, weights: cnnzoo.export(what, photo.with_name("net.onnx"), pretrained=weights),
        lambda what, photo, weights: visualize.saliency(what, photo, pretrained=weights),
    ],
)
@pytest.mark.parametrize("weights", [True, "tv_in1k"])
def test_weights_that_go_with_a_name_are_not_ignored_where_there_are_others(net, photo, runs, ask, weights):
    for what, called in ((net, "lenet5"), (f"{runs}/d0", f"{runs}/d0")):
        with pytest.raises(cnnzoo.InputError, match=f"{called} has weights of its own; pretrained.* with a net's name"):
            ask(what, photo, weights)


def test_of_two_that_are_compared_the_name_takes_the_weights(runs, photo, tmp_path):
    for digit in "01":
        (tmp_path / digit).mkdir()
        shutil.copy(photo, tmp_path / digit)
    run = f"{runs}/d0"
    result = cnnzoo.compare_runs(run, "mlp", tmp_path, pretrained=run)
    assert (result.difference, result.names) == (0, (run, "mlp"))
    with pytest.raises(cnnzoo.InputError, match="has weights of its own"):
        cnnzoo.compare_runs(run, f"{runs}/d1", pretrained=run)


# ---- the rest


def test_a_pattern_stands_for_the_runs_it_matches(runs):
    assert cnnzoo.Ensemble(f"{runs}/d*").panel.names == (f"{runs}/d0", f"{runs}/d1")
    assert cnnzoo.Ensemble([f"{runs}/d?"]).panel.names == (f"{runs}/d0", f"{runs}/d1")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("d0", "a committee needs two members at least"),
        ("e*", "there is no run folder .*/e*; did you mean "),
    ],
)
def test_a_single_run_or_none_makes_no_committee(runs, given, message):
    with pytest.raises(cnnzoo.InputError, match=message.replace("*", r"\*").replace(r".\*", ".*")):
        cnnzoo.Ensemble(f"{runs}/{given}")


@pytest.mark.parametrize("make", [cnnzoo.Ensemble, cnnzoo.soup, cnnzoo.diversity])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "two or more run folders are wanted, not None"),
        ([cnnzoo.create("lenet5")], f"a committee is made of run folders, {of_class('LeNet5')}"),
    ],
)
def test_what_is_no_run_is_told(make, given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cnnzoo.InputError, match=message):
        make(given)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda net, photo: cnnzoo.predict(net, photo, batch_size="4"),
            "batch_size is '4', but must be a whole number",
        ),
        (
            lambda net, photo: cnnzoo.predict(net, photo, min_confidence=None),
            "min_confidence is None, but must be betw",
        ),
        (lambda net, photo: cnnzoo.predict(net, photo).top(None), "top is None, but must be a whole number"),
        (
            lambda net, photo: cnnzoo.check(None),
            "or a table that lists photos, not None",
        ),
        (lambda net, photo: cnnzoo.pick(None), "a folder or a data set's name is wanted, not None"),
        (lambda net, photo: cnnzoo.probe(None), "data.source is null, but must be text"),
        (lambda net, photo: cnnzoo.export(net, None), "out is the file to write, not None"),
        (
            lambda net, photo: cnnzoo.optimize("runs/d0"),
            "a net is wanted, such as cnnzoo.load gives of a run, not 'runs",
        ),
        (lambda net, photo: cnnzoo.vote_odds(None), "p is None, but must be a probability, or one for each member"),
        (lambda net, photo: cnnzoo.cross_validate({}, None), "folds is None, but must be a whole number of at least 2"),
        (lambda net, photo: cnnzoo.finetune("digits", "lenet5", budget=[1]), "budget is [1], but must be a duration"),
        (lambda net, photo: labs.run(None), "unknown lab None; known: adversarial"),
        (
            lambda net, photo: visualize.maximise(net, seed=None),
            "seed is None, but must be a whole number of at least 0",
        ),
    ],
)
def test_a_wrong_argument_is_told(net, photo, ask, message):
    with pytest.raises(cnnzoo.InputError) as told:
        ask(net, photo)
    assert message in str(told.value)


@pytest.mark.parametrize(
    ("python", "words", "flag"),
    [
        (lambda: cnnzoo.predict("lenet5", "a.png"), ["predict", "lenet5", "a.png"], "pretrained"),
        (
            lambda: visualize.neighbours("lenet5"),
            ["visualize", "neighbours", "lenet5", "--out", "a.png"],
            "data",
        ),
    ],
)
def test_an_option_is_named_as_each_door_spells_it(python, words, flag, cli):
    with pytest.raises(cnnzoo.InputError, match=f" by {flag}=…$"):
        python()
    assert cli(*words).err.endswith(f" by --{flag}\n")


# ---- a home's own sign, which shells resolve only where a word begins with it


@pytest.mark.parametrize(
    "call",
    [
        lambda net, photo: cnnzoo.train(resume="~/d0", tell=str).metrics,
        lambda net, photo: cnnzoo.evaluate("~/d0", tell=str),
        lambda net, photo: cnnzoo.load("~/d0"),
        lambda net, photo: cnnzoo.report("~/d0"),
        lambda net, photo: cnnzoo.predict("~/d0", "~/grey.png", tell=str),
        lambda net, photo: cnnzoo.preprocessing(net)("~/grey.png"),
        lambda net, photo: cnnzoo.combine(["~/d0", "~/d1"], run="~/together"),
        lambda net, photo: cnnzoo.soup(["~/d0", "~/d1"], run="~/soup", tell=str),
        lambda net, photo: cnnzoo.diversity(["~/d0", "~/d1"], out="~/diversity"),
        lambda net, photo: cnnzoo.vote_odds(0.7, out="~/odds.png"),
        lambda net, photo: cnnzoo.judge("~/d0").write("~/judged.csv"),
        lambda net, photo: cnnzoo.export("~/d0", "~/net.pt2", format="torch"),
        lambda net, photo: visualize.filters(net).save("~/filters.png"),
        lambda net, photo: cnnzoo.train("~/c.yaml", overrides="--run ~/trained", tell=str, with_report=False),
    ],
)
def test_a_path_may_begin_with_the_sign_of_a_home(call, net, photo, runs, tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    shutil.copytree(runs, home)
    shutil.copy(photo, home)
    (home / "c.yaml").write_text("model: mlp\ntrain: {epochs: 1, device: cpu}\n")
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    call(net, photo)
    assert not any(here.iterdir())


def test_a_name_may_begin_with_that_sign_itself(net, photo, runs, tmp_path, monkeypatch):
    """As the files do that office programs leave: nobody's home is called so."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(photo, "~$grey.png")
    shutil.copytree(runs / "d0", "~$run")
    assert cnnzoo.predict("~$run", "~$grey.png", tell=str).errors == ("",)
    assert cnnzoo.preprocessing(net)("~$grey.png").shape == (1, 32, 32)
    visualize.filters(net).save("~$filters.png")
    assert (tmp_path / "~$filters.png").exists()
