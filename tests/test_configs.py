"""Every shipped config reads, names a net and a source that exist, and opens with what it reproduces."""

import dataclasses
from pathlib import Path

import pytest
import yaml

import cnnzoo
from cnnzoo import config, zoo
from cnnzoo.data.named import NAMED
from cnnzoo.errors import InputError

FILES = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


def test_there_are_configs():
    assert {file.stem for file in FILES} >= {
        "lenet5_digits",
        "lenet5_mnist",
        "lenet5_fashion_mnist",
        "lenet5_1998_mnist",
        "resnet20_cifar10",
        "resnet20_cifar10_fast",
        "vgg16_imagenet",
        "alexnet_2012_imagenet",
        "resnet50_2015_imagenet",
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_reads_and_can_be_built(file):
    run = config.read(file)
    assert run.model.name in zoo.list_models()
    assert run.data.source in NAMED or run.data.source.startswith("photos/")
    assert run.run == f"runs/{file.stem}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_its_header_says_what_it_reproduces(file):
    header = [line[2:] for line in file.read_text().splitlines() if line.startswith("# ")]
    keys = [line.split()[0] for line in header if not line.startswith(" ")]
    assert keys == ["Reproduces", "Command", "Hardware", "Wall", "Expected"]
    assert f"--config configs/{file.name}" in "\n".join(header)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("--train.seed=-1", "train.seed is -1, but must be at least 0"),
        ("--data.split_seed=-1", "data.split_seed is -1"),
        ("--optim.betas=[1.5, 0.9]", "optim.betas is [1.5, 0.9], but must be at least 0 and below 1"),
        ("--optim.eps=-1", "optim.eps is -1"),
        ("--optim.alpha=1.5", "optim.alpha is 1.5"),
        ("--data.std=[0.0]", "data.std is [0.0], but must be above 0, each"),
        ("--model.in_chans=0", "model.in_chans is 0, but must be null or at least 1"),
        ("--model.args={num_classes: 3}", "without num_classes, which model.num_classes says"),
        ("--model.args={features_only: true}", "without features_only, with which a net gives no answer"),
        ("--loss.aux_weight=-1", "loss.aux_weight is -1.0"),
        ("--schedule.power=-1", "schedule.power is -1.0"),
        ("--schedule.patience=-3", "schedule.patience is -3"),
        ("--schedule.name=cosine --schedule.final=5", "schedule.final is 5.0, but must be at most optim.lr"),
        ("--schedule.name=plateau --schedule.gamma=1.5", "schedule.gamma is 1.5, but must be above 0, and below 1"),
        ("--schedule.name=multi_step --schedule.milestones=[-5]", "schedule.milestones is [-5.0]"),
        ("--train.phases=[{epochs: 1, trainable: []}]", "train.phases.trainable is [], but must be a list of at least"),
        ("--train.phases=[{epochs: 1, rates: {'*': -1}}]", "train.phases.rates is {'*': -1.0}"),
        ("--train.phases=[{epochs: 1, rates: {'*': .inf}}]", "train.phases is inf, but must be a number"),
        ("--train.phases=[{trainable: [head]}]", "in train.phases: the following arguments are required: epochs"),
        ("--train.phases=[{epochs: 1, trainable: head}]", "in train.phases: trainable is head, but must be a list of"),
        ("--augment.crop=resized --augment.ratio=[1, .inf]", "augment.ratio is inf, but must be a number"),
        ("--data.mean=[.nan]", "data.mean is nan, but must be a number"),
    ],
)
def test_values_out_of_range_are_told_before_anything_begins(keys, words):
    with pytest.raises(InputError) as refusal:
        config.read({}, [f"--{key}" for key in keys[2:].split(" --")])
    assert words in str(refusal.value)


@pytest.mark.parametrize("keys", [("--augment.mixup=0.2",), ("--loss.label_smoothing=0.1",)])
def test_the_papers_loss_takes_no_shared_labels(keys, tmp_path):
    with pytest.raises(InputError, match="not with map, which knows no shared labels"):
        cnnzoo.train(config.read({"model": {"name": "lenet5_1998"}, "run": str(tmp_path / "run")}, keys))
    assert not (tmp_path / "run").exists()


def test_a_run_folder_may_begin_at_home():
    assert config.read({"run": "~/runs/x"}).folder == Path.home() / "runs" / "x"


@pytest.mark.parametrize("folder", ["1e5", "-2.5E+3", "12", "yes"])
def test_a_folder_called_as_a_number_is_still_one_when_its_config_is_read(folder, tmp_path):
    (tmp_path / "config.yaml").write_text(config.dump(config.Config(run=folder)))
    assert config.read(tmp_path / "config.yaml").run == folder


def test_what_is_dumped_is_read_back():
    phases = [config.PhaseConfig(2, ["head"])]
    made = config.Config(model=config.ModelConfig(name="vgg16"), train=config.TrainConfig(phases=phases))
    assert config.read(yaml.safe_load(config.dump(made))) == made
    assert config.read(made) is made


def test_what_is_dumped_is_in_the_order_of_the_sections_and_as_it_was_typed():
    text = config.dump(config.Config(data=config.DataConfig(source="blüten")))
    assert [*yaml.safe_load(text)] == [field.name for field in dataclasses.fields(config.Config)]
    assert "source: blüten\n" in text


@pytest.mark.parametrize("overrides", [{"model": {"args": {"depth": 3}}}, {"model.args": {"depth": 3}}])
def test_an_overridden_mapping_takes_the_place_of_the_one_before(overrides):
    before = {"model": {"name": "resnet20", "args": {"width": 8}}}
    assert config.read(before, overrides).model.args == {"depth": 3}


@pytest.mark.parametrize("words", [["--model={name: lenet5}"], ["--model", "{name: lenet5}"]])
def test_a_section_may_be_given_as_a_whole(words):
    assert config.read(overrides=words).model.name == "lenet5"


def test_a_list_may_be_added_to():
    assert config.read({"schedule": {"milestones": [0.5]}}, "--schedule.milestones+=0.75").schedule.milestones == [
        0.5,
        0.75,
    ]


def test_an_override_without_its_value_is_told():
    with pytest.raises(InputError, match=r"data\.size"):
        config.read(overrides=["--data.size"])


def test_a_config_file_that_is_no_text_is_told(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"c\.yaml is no text"):
        config.read(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "train: {epochs: 1}\nmodel: lenet5\ntrain: {seed: 3}",
        "optim: {lr: 1, lr: 0.3}",
        "train: {phases: [{lr: 1, lr: 0.3}]}",
    ],
)
def test_a_key_that_stands_twice_is_told_as_one_of_them_would_be_lost(text, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=r"c\.yaml: (train|lr) stands 2 times, in lines (1, 3|1, 1); make one of them"):
        config.read(tmp_path / "c.yaml")


def test_a_net_and_a_source_may_be_named_alone_in_a_file_too(tmp_path):
    (tmp_path / "c.yaml").write_text("model: resnet20\ndata: mnist\noptim: {lr: 1e-2}\n")
    read = config.read(tmp_path / "c.yaml", ["--train.epochs", "3"])
    assert (read.model.name, read.data.source, read.optim.lr, read.train.epochs) == ("resnet20", "mnist", 0.01, 3)


ON = dict.fromkeys(("flip", "flip_vertical", "quarter_turns"), True)
ON |= {"crop": "padded", "policy": "randaugment", "cutout": 4, "repeats": 2, "grows_from": 0.5}
ON |= dict.fromkeys(("rotation", "shift", "shear", "zoom", "brightness", "contrast", "saturation"), 0.1)
ON |= dict.fromkeys(("channel_shift", "pca_noise", "mixup", "cutmix", "erasing"), 0.1)


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(config.AugmentConfig)])
def test_images_change_from_epoch_to_epoch_where_a_change_is_switched_on_not_where_it_is_only_set(key):
    """Where none does, features can be computed once (train.cache_features auto)."""
    assert not config.AugmentConfig().changes
    idle = {"scale": (0.5, 1), "ratio": (1, 1), "shorter_side": (300, 400), "padding": 8}
    idle |= {"policy_changes": 3, "policy_strength": 5.0, "grown_at": 0.5}
    assert config.AugmentConfig(**{key: (ON | idle)[key]}).changes == (key in ON)
