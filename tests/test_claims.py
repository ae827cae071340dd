"""What papers state, beside what is so here."""

from dataclasses import replace

import pytest

import cnnzoo
from cnnzoo import claims
from cnnzoo.weights.table import list_weights


def beside(name):
    return {claim.what: (claim.figure, claim.ours) for claim in claims.beside(name)}


@pytest.fixture
def weights(monkeypatch):
    """Puts rows in the place of a net's own, each with these figures."""

    def put(name, *figures):
        like = list_weights(name)[0]
        rows = [replace(like, tag=tag, top1=top1, top5=top5) for tag, top1, top5 in figures]
        monkeypatch.setattr(claims, "list_weights", lambda pattern: rows if pattern == name else [])

    return put


def test_parameters_multiply_adds_and_neurons_are_counted():
    assert beside("resnet50_2015")["multiply-adds"] == ("3.8 billion", "3,857,973,248")
    alexnet = beside("alexnet_2012")
    assert alexnet["parameters"] == ("60 million", "60,965,224")
    assert alexnet["neurons"] == ("650,000", "659,272")


def test_an_error_stands_beside_that_of_the_best_weights(weights):
    weights("resnet50", ("unknown", None, None), ("best", 80.858, None), ("other", 76.13, 92.862))
    resnet = beside("resnet50")
    assert resnet["top-1 error, ILSVRC 2012 validation, 10 crops"] == ("22.85 %", "19.14 %, best, one crop")
    assert resnet["top-5 error, ILSVRC 2012 validation, 10 crops"] == ("6.71 %", "7.14 %, other, one crop")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnet50", "19.14 %, tv2_in1k, one crop, by a later training recipe (tv_in1k: 23.87 %)"),
        ("resnext101_64x4d", "16.75 %, tv_in1k, one crop, by a later training recipe"),
        ("alexnet", "43.48 %, tv_in1k, one crop"),
    ],
)
def test_weights_that_owe_their_figure_to_a_later_training_recipe_say_so(name, told):
    assert told in [ours for what, (_, ours) in beside(name).items() if what.startswith("top-1 error")]


def test_a_net_without_weights_is_not_run(weights):
    weights("resnet50", ("unknown", None, None))
    for name in ("resnet50", "alexnet_2012"):
        assert {ours for what, (_, ours) in beside(name).items() if "error" in what} == {"not run"}


def test_an_error_on_other_images_or_of_several_nets_is_not_run(weights, monkeypatch):
    weights("resnet20", ("c10", 91.73, None))
    own = (
        *("error, CIFAR-10", "error, CIFAR-10 with augmentation", "error, CIFAR-100", "error, MNIST"),
        "error, CIFAR-10, 5 nets",
    )
    entry = replace(cnnzoo.info("resnet20"), claims=tuple(cnnzoo.registry.Claim(what, "8 %") for what in own))
    monkeypatch.setattr(claims.zoo, "info", lambda name: entry)
    assert [ours for _, ours in beside("resnet20").values()] == [
        *["8.27 %, c10"] * 2,
        *["not run"] * 3,
    ]


def test_a_figure_that_a_config_gave_is_told():
    (_, ours) = beside("lenet5_1998")["error, MNIST"]
    assert ours == "1.01 %, mean of 3 seeds, configs/lenet5_1998_mnist.yaml"


def test_all_that_is_known_of_a_net_is_a_page(cli):
    code, out, _ = cli("info", "alexnet_2012")
    assert code == 0
    page = str(cnnzoo.info("alexnet_2012"))
    assert out == f"{page}\n"
    assert page.startswith("alexnet_2012\n  paper       Krizhevsky")
    assert "  parameters  60,965,224\n" in page
    assert "650,000" in page


@pytest.mark.parametrize("name", cnnzoo.list_models())
def test_every_claim_has_words_and_a_figure(name):
    told = [claim.what for claim in cnnzoo.info(name).claims]
    assert len(set(told)) == len(told)
    assert all(claim.what and any(map(str.isdigit, claim.figure)) for claim in cnnzoo.info(name).claims)
