"""Every shipped config reads, names a net and a source that exist, and opens with what it reproduces."""

from pathlib import Path

import pytest
import yaml

from cnnzoo import config, zoo
from cnnzoo.data.sources import NAMED

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
        "resnet50_imagenet",
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


def test_what_is_dumped_is_read_back():
    phases = [config.PhaseConfig(2, ["head"])]
    made = config.Config(model=config.ModelConfig(name="vgg16"), train=config.TrainConfig(phases=phases))
    assert config.read(yaml.safe_load(config.dump(made))) == made
