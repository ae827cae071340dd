"""The lecture experiments: what each claims holds in its quick form (docs/labs.md: in its whole form, three seeds)."""

import json
import re
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cnnzoo
from cnnzoo import labs
from cnnzoo.labs import _lab, backprop_by_hand, dense_reuse, gates, kirsch, receptive_field, shift

UNTRUE = """
from cnnzoo.labs._lab import Seen, sheet

CLAIM = "Half of all seeds are above one."
SOURCE = "nobody"


def run(seed, quick):
    return Seen(seed > 1, f"seed {seed}", {"seed": seed})


def draw(seen):
    return sheet(1, 1)[0]
"""


# They train: one seed.
LONG = {
    "degradation",
    "mlp-vs-cnn",
    "dense-reuse",
    "dropout",
    "learning-rate",
    "augmentation",
    "gates",
    "adversarial",
    "transferability",
}


@pytest.fixture
def untrue(tmp_path, monkeypatch):
    """A lab whose claim does not hold: one more file in a folder of labs."""
    (tmp_path / "not_so.py").write_text(UNTRUE)
    monkeypatch.setattr(labs, "__path__", [*labs.__path__, str(tmp_path)])
    yield "not-so"
    sys.modules.pop("cnnzoo.labs.not_so", None)


@pytest.mark.parametrize("name", labs.names())
def test_what_a_lab_claims_holds(name, tmp_path):
    state, seeds = torch.get_rng_state(), 1 if name in LONG else 3
    told = []
    outcome = labs.run(name, seeds=seeds, quick=True, tell=told.append)
    assert outcome.held, "\n".join(told)
    assert len(told) == len(outcome.seen) == seeds
    assert torch.equal(torch.get_rng_state(), state)

    figures, picture = outcome.save(tmp_path / "out")
    content = json.loads(figures.read_text())
    assert (content["lab"], content["held"], content["quick"]) == (name, True, True)
    assert [run["seed"] for run in content["runs"]] == [*range(seeds)]
    assert content["runs"][0].keys() > {"seed", "held"}
    with Image.open(picture) as image:
        assert np.asarray(image.convert("L")).std() > 10
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [f"{name}.json", f"{name}.png"]


@pytest.mark.parametrize("name", labs.names())
def test_a_lab_says_in_one_sentence_what_is_claimed_and_by_whom(name):
    lab = labs.find(name)
    assert lab.claim.endswith(".")
    assert ". " not in lab.claim
    assert lab.source


def test_the_page_tells_of_every_lab_and_shows_its_pictures():
    docs = Path(__file__).parent.parent / "docs"
    text = (docs / "labs.md").read_text()
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)) == sorted(labs.names())
    shown = set(re.findall(r"\]\(labs/(\S+)\)", text + (docs / "gallery.md").read_text()))
    assert shown == {file.name for file in (docs / "labs").iterdir()}


def test_a_seed_gives_the_same_figures_again():
    once, again = (labs.run("gradients", seeds=1, quick=True).seen[0].figures for _ in range(2))
    assert once == again


# ---- the command


def test_the_command_leaves_figures_and_a_picture(cli, tmp_path):
    code, out, _ = cli("lab", "backprop-by-hand", "--quick", "--seeds", 1)
    assert code == 0
    assert "seed 0: held" in out
    assert "the claim held: 1 of 1 seeds" in out
    assert sorted(file.name for file in (tmp_path / "labs").iterdir()) == [
        "backprop-by-hand.json",
        "backprop-by-hand.png",
    ]


def test_the_list_tells_what_each_lab_claims(cli):
    code, out, _ = cli("lab", "list")
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == labs.names()
    assert labs.find("kirsch").claim in lines[labs.names().index("kirsch")]


def test_a_claim_that_does_not_hold_is_told_by_words_and_exit_code(cli, tmp_path, untrue):
    code, out, _ = cli("lab", untrue, "--out", tmp_path / "out")
    assert code == 1
    assert "the claim did not hold: 1 of 3 seeds" in out
    assert json.loads((tmp_path / "out" / "not-so.json").read_text())["held"] is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["kirsh"], ["unknown lab 'kirsh'", "kirsch"]),
        (["shift", "--seeds", "0"], ["seeds is 0, but must be a whole number of at least 1"]),
        (["shift", "--out", "taken"], ["taken/shift.json cannot be written (Not a directory)"]),
    ],
)
def test_wrong_input_is_told_in_one_line(fails, tmp_path, arguments, words):
    (tmp_path / "taken").write_text("mine")
    line = fails("lab", *arguments)
    for word in words:
        assert word in line
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]


def test_ctrl_c_ends_a_lab_in_the_middle_of_its_training(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda *_: signal.raise_signal(signal.SIGINT))
    code, _, err = cli("lab", "dropout", "--quick")
    assert (code, err.splitlines()[-1]) == (130, "cnnzoo: stopped")
    assert not list(tmp_path.iterdir())


# ---- what the labs measure by


def test_kirschs_filters_are_one_turned_eight_times():
    filters = kirsch.compass()[:, 0]
    assert filters[0].tolist() == [[5, 5, 5], [-3, 0, -3], [-3, -3, -3]]
    assert filters[1].tolist() == [[-3, 5, 5], [-3, 0, 5], [-3, -3, -3]]
    for i in range(8):
        torch.testing.assert_close(filters[(i + 2) % 8], filters[i].rot90(-1))  # a quarter turn clockwise
    assert filters.sum((1, 2)).tolist() == [0] * 8


def test_no_square_is_found_where_there_is_none():
    image, (row, column) = kirsch.shapes(np.random.default_rng(0))
    assert kirsch.find_square(image)[2].nonzero().tolist() == [[row, column]]
    image[row - 9 : row + 10, column - 9 : column + 10] = 0
    assert not kirsch.find_square(image)[2].any()


@pytest.mark.parametrize(("stride", "padding"), backprop_by_hand.STRIDES_AND_PADDINGS)
def test_the_gradients_by_hand_are_those_of_small_steps(stride, padding):
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(2, 7, 8)), rng.normal(size=(3, 2, 3, 3)), rng.normal(size=3)
    d = rng.normal(size=backprop_by_hand.convolve(x, w, b, stride, padding).shape)
    graded = backprop_by_hand.convolve_backward(x, w, d, stride, padding)
    for values, gradient in zip((w, b, x), graded, strict=True):
        assert gradient.shape == values.shape
        place = tuple(rng.integers(values.shape))
        step = np.zeros_like(values)
        step[place] = 1e-4
        losses = []
        for sign in (1, -1):
            values += sign * step
            losses.append((d * backprop_by_hand.convolve(x, w, b, stride, padding)).sum())
            values -= sign * step
        assert (losses[0] - losses[1]) / 2e-4 == pytest.approx(gradient[place], rel=1e-6, abs=1e-8)


def test_the_effective_receptive_field_of_a_gaussian():
    y, x = np.mgrid[-60:61, -60:61]
    deviation = 10
    seen = np.exp(-(x**2 + y**2) / (2 * deviation**2))
    radius = deviation * np.sqrt(2 * np.log(1 / receptive_field.FAINT))
    assert receptive_field.effective(seen) == pytest.approx(np.sqrt(np.pi) * radius, rel=0.01)


def test_the_theoretical_receptive_field_is_the_summarys():
    assert receptive_field.theoretical(receptive_field.plain(20), (1, 41, 41)) == 41
    with torch.device("meta"):
        assert receptive_field.theoretical(cnnzoo.create("vgg16"), (3, 224, 224)) == 212


@pytest.mark.parametrize(("name", "side"), receptive_field.NETS.items())
def test_an_image_holds_all_that_the_unit_in_its_middle_could_see(name, side):
    torch.manual_seed(0)
    net = cnnzoo.create(name).eval()
    seen = np.argwhere(receptive_field.sensitivity(net.forward_features, torch.randn(1, 3, side, side)))
    assert (np.ptp(seen, axis=0) + 1).tolist() == [receptive_field.theoretical(net, (3, side, side))] * 2


def test_change_is_none_for_equal_maps_and_one_for_maps_lost():
    maps = torch.randn(4, 8, 8)
    assert shift.changed(maps, maps) == 0
    assert shift.changed(maps, maps.mean((1, 2), keepdim=True).expand_as(maps)) == pytest.approx(1)


def test_what_the_class_explains_lies_between_nothing_and_all():
    labels = np.arange(1000) % 10
    rng = np.random.default_rng(0)
    of_class, of_chance = rng.random((10, 3, 5))[labels], rng.random((1000, 3, 5))
    assert gates.explained(of_class, labels) == pytest.approx(1)
    assert gates.explained(of_chance, labels) < 0.03


def test_what_a_highway_net_reads_is_told_of_the_weights_whose_gates_are_looked_at(monkeypatch):
    @contextmanager
    def with_a_bad_end(config):
        config["train"]["epochs"] = 1
        with _lab.trained(config) as done:
            done.write_metrics([*done.metrics, {**done.metrics[0], "epoch": 2, "val_top1": 0.0}])
            yield done

    monkeypatch.setattr(gates, "trained", with_a_bad_end)
    assert gates.run(0, quick=True).figures["top1"] > 0


def test_spread_is_the_share_of_sources_in_use():
    even = np.triu(np.ones((8, 8)))
    even[even == 0] = np.nan
    assert dense_reuse.spread(even) == pytest.approx(1)
    one = np.where(np.isnan(even), np.nan, 1e-12)
    one[0] = 1
    assert dense_reuse.spread(one) == pytest.approx(np.mean([1 / many for many in range(5, 9)]))


@pytest.mark.parametrize(
    ("what", "lost_of_5", "lost_of_6"),
    [("older", "xx...", "xxx..."), ("newer", "...xx", "...xxx"), ("earlier", "xxxx.", "xxxxx.")],
)
def test_a_layer_is_cut_off_a_half_of_the_maps_before_it_and_never_off_its_blocks_input(what, lost_of_5, lost_of_6):
    net = cnnzoo.create("densenet40", in_chans=1)
    dense_reuse.cut(net, what)
    for layers in dense_reuse.blocks(net):
        for number, lost in ((0, ""), (1, "."), (5, lost_of_5), (6, lost_of_6)):
            seen = ["." if weights.any() else "x" for weights in dense_reuse.sources(layers, number)]
            assert "".join(seen) == f".{lost}"
        assert layers[-1].weight.requires_grad
