"""Which units answer to which class, and what a concept shown by examples counts for an answer."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import photos
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import nn
from zoo_cases import FAMILIES, small

import cnnzoo
from cnnzoo import visualize
from cnnzoo.data.preprocess import Preprocess
from cnnzoo.errors import InputError
from cnnzoo.visualize.concepts import judged


@pytest.fixture(scope="module")
def net():
    """A ResNet whose first three units see nothing but red, green and blue; the others are random."""
    torch.manual_seed(0)
    net = cnnzoo.create("resnet20").eval()
    with torch.no_grad():
        net.conv1.weight[:3] = 0
        for colour in range(3):
            net.conv1.weight[colour, colour] = 1 / 9
    return net


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos.folder(tmp_path_factory.mktemp("photos") / "kinds", each=10)


# ---- units


def test_the_area_is_that_of_the_roc_curve():
    rng = np.random.default_rng(0)
    answers, labels = rng.integers(0, 9, (50, 7)).astype(np.float32), rng.integers(0, 3, 50)
    auc, _ = judged(answers, labels, 3)
    expected = [[roc_auc_score(labels == c, answers[:, unit]) for unit in range(7)] for c in range(3)]
    np.testing.assert_allclose(auc, expected)


def test_among_many_units_chance_is_known_for_what_it_is():
    """Of 300 units that know nothing, each class has some with an area of 0.65; one that knows a class stands out."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    answers = rng.normal(size=(60, 300))
    auc, p = judged(answers, labels, 3)
    assert auc.max(1).min() > 0.65
    assert (p > 0.05).all()
    answers[:, 5] += 4 * (labels == 1)
    auc, p = judged(answers, labels, 3)
    assert np.argwhere(p < 0.05).tolist() == [[1, 5]]
    assert auc[1].argmax() == 5


def test_a_unit_that_says_nothing_answers_to_nothing():
    auc, p = judged(np.zeros((20, 2)), np.repeat([0, 1], 10), 2)
    assert (auc == 0.5).all()
    assert (p > 0.4).all()


def test_the_unit_that_sees_a_colour_is_found(net, folder):
    found = visualize.concepts(net, str(folder), "conv1")
    assert found.layer == "conv1"
    assert found.answers.shape == (30, 16)
    unit_of = {"red": 0, "green": 1, "blue": 2}
    for name, best in zip(found.of.classes, found.best, strict=True):
        own = found.auc[found.of.classes.index(name), unit_of[name]]
        assert own == best.auc == 1
        assert best.p < 0.05
        assert {found.of.class_of(image) for image in best.top} == {name}
        assert best.maps.shape == (5, 32, 32)
    table = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert len(table) == 3 * 16
    assert len(found.figure().axes) == 3 * 5


def test_the_last_stage_with_maps_is_taken_by_default_and_said(net, folder):
    found = visualize.concepts(net, str(folder))
    assert found.layer == visualize.layer_of(net)[0]
    assert f"layer {found.layer} of resnet20" in str(found)


def test_units_past_the_flattening_are_judged_too(folder):
    torch.manual_seed(0)
    net = cnnzoo.create("lenet5", in_chans=3).eval()
    found = visualize.concepts(net, str(folder), "head")
    assert found.auc.shape == (3, 10)
    assert len(found.figure().axes) == 3 * 5


def test_the_net_is_left_as_it_was_in_any_precision(net, folder):
    half = cnnzoo.create("resnet20").to(torch.bfloat16).train()
    before = {name: tensor.clone() for name, tensor in half.state_dict().items()}
    found = visualize.concepts(half, str(folder), "conv1")
    assert np.isfinite(found.auc).all()
    assert half.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in half.state_dict().items())
    assert not any(module._forward_hooks for module in half.modules())


def test_too_few_images_of_a_class_and_an_unknown_layer_are_told(net, folder, tmp_path):
    few = photos.folder(tmp_path / "few", each=4)
    with pytest.raises(InputError, match=r"too few images in .*few; there must be 5 of each of two classes"):
        visualize.concepts(net, str(few))
    with pytest.raises(InputError, match="14 images are too few for 3 classes; ask for 15, 5 of each"):
        visualize.concepts(net, str(folder), many=14)
    with pytest.raises(InputError, match="unknown layer 'layer9'; did you mean"):
        visualize.concepts(net, str(folder), "layer9")
    alone = photos.folder(tmp_path / "alone", each=5, kinds=("blue",))
    with pytest.raises(InputError, match="alone holds blue only; put images of something else beside it"):
        visualize.concepts(net, str(alone))


def test_equally_many_images_are_drawn_of_each_class(net, tmp_path):
    """By chance a class would have none, or one, of the fifteen."""
    photos.folder(tmp_path, each=60, kinds=("blue",))
    for place, kind in enumerate(("green", "red"), start=1):
        (tmp_path / kind).mkdir()
        for number in range(6):
            photos.picture(place, number).save(tmp_path / kind / f"{number}.png")
    assert np.bincount(visualize.concepts(net, str(tmp_path), "conv1", many=15).of.labels).tolist() == [5, 5, 5]
    assert np.bincount(visualize.concepts(net, str(tmp_path), "conv1", many=20).of.labels).tolist() == [8, 6, 6]


def test_a_class_of_few_images_is_left_out_and_told(net, tmp_path):
    photos.folder(tmp_path, each=5)
    for file in list((tmp_path / "green").iterdir())[:1]:
        file.unlink()
    said = []
    found = visualize.concepts(net, str(tmp_path), "conv1", tell=said.append)
    assert said == [f"fewer than 5 images of green in {tmp_path}: left out"]
    assert found.of.classes == ("blue", "red")
    assert {found.of.class_of(place) for place in range(len(found.of))} == {"blue", "red"}
    assert len(found.best) == 2


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return photos.folder(tmp_path_factory.mktemp("photos") / "few", each=5, kinds=("blue", "green"))


@pytest.mark.parametrize("name", FAMILIES)
def test_units_of_every_family_are_judged_by_default(name, few):
    net, x = small(name)
    net.eval()
    net.preprocessing = replace(cnnzoo.preprocessing(net), size=x.shape[2], resize=x.shape[2])
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = visualize.concepts(net, str(few))
    assert found.layer == visualize.layer_of(net, None, x).name
    assert np.isfinite(found.answers).all()
    assert found.answers.std(0).max() > 0
    assert found.auc.max() > 0.5
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


# ---- concepts


class Colours(nn.Module):
    """Says red as far as there is more red than green, green as far as there is more green, and other by blue."""

    num_classes = 3

    def __init__(self):
        super().__init__()
        self.colours = nn.Conv2d(3, 3, 1, bias=False)
        self.relu = nn.ReLU()
        self.head = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.colours.weight.copy_(torch.eye(3)[:, :, None, None])
            self.head.weight.copy_(torch.tensor([[1.0, -1.0, 0], [-1.0, 1.0, 0], [0, 0, 1.0]]))
        self.classes = ("red", "green", "other")
        self.preprocessing = Preprocess(8, 8, (0.0,) * 3, (1.0,) * 3)

    def forward(self, x):
        return self.head(self.relu(self.colours(x)).square().mean((2, 3)))


def tint(colour: int | None, number: int) -> Image.Image:
    """Noise of 8x8 in which a colour prevails, or none."""
    pixels = np.random.default_rng((number, 9 if colour is None else colour)).integers(0, 120, (8, 8, 3))
    if colour is not None:
        pixels[:, :, colour] += 120
    return Image.fromarray(pixels.astype(np.uint8))


def shown(path, colours, each):
    for name, colour in colours.items():
        (path / name).mkdir(parents=True)
        for number in range(each):
            tint(colour, number).save(path / name / f"{number:02}.png")
    return str(path)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Folders: of concepts (two of which are a colour, and one any picture), of pictures at random, and of a class."""
    path = tmp_path_factory.mktemp("tcav")
    concepts = shown(path / "concepts", {"reddish": 0, "greenish": 1}, 12)
    for number in range(12):
        (path / "concepts" / "plain").mkdir(exist_ok=True)
        tint(None, 500 + number).save(path / "concepts" / "plain" / f"{number}.png")
    random = shown(path / "random", {"any": None}, 100)
    return concepts, random, [tint(0, 900 + number) for number in range(20)]


def test_a_concept_counts_for_the_class_it_is_a_part_of(examples):
    concepts, random, images = examples
    found = visualize.tcav(Colours(), images, concepts, random, "relu")
    assert found.class_name == "red"  # which most are taken for
    by_name = {each.name: each for each in found.concepts}
    assert list(by_name) == ["greenish", "plain", "reddish"]
    assert (by_name["reddish"].scores == 1).all()
    assert (by_name["greenish"].scores == 0).all()
    assert by_name["reddish"].accuracy == by_name["greenish"].accuracy == 1
    assert by_name["plain"].accuracy < 0.7
    assert by_name["plain"].p > 0.05
    assert len(found.random) == 10
    other = visualize.tcav(Colours(), images, concepts, random, "relu", "green")
    assert (next(each for each in other.concepts if each.name == "greenish").scores == 1).all()


def test_random_pictures_in_the_place_of_a_concept_pass_for_one_no_oftener_than_chance_has_it(examples, tmp_path):
    _, random, images = examples
    for number in range(200):
        (tmp_path / f"{number // 10}").mkdir(exist_ok=True)
        tint(None, 9000 + number).save(tmp_path / f"{number // 10}" / f"{number}.png")
    found = visualize.tcav(Colours(), images, tmp_path, random, "relu")
    # p is multiplied by their number, so it is below 1 for those below 5 %: one of 20, and seldom more than 3.
    assert sum(each.p < 1 for each in found.concepts) <= 3


def test_a_layer_that_says_nothing_knows_no_concepts(examples):
    net = Colours()
    nn.init.constant_(net.colours.weight, -1)
    with pytest.raises(InputError, match="layer relu of Colours says the same of all pictures, so it knows no"):
        visualize.tcav(net, examples[2], *examples[:2], "relu")


class Brighter(Colours):
    """The same, but all its answers rise with the light."""

    def forward(self, x):
        maps = self.relu(self.colours(x))
        return self.head(maps.square().mean((2, 3))) + 10 * maps.mean((1, 2, 3))[:, None]


def test_what_raises_every_class_alike_counts_for_none(examples):
    concepts, random, images = examples
    found, brighter = (visualize.tcav(net, images, concepts, random, "relu") for net in (Colours(), Brighter()))
    for plain, bright in zip(found.concepts, brighter.concepts, strict=True):
        assert np.array_equal(plain.scores, bright.scores)


def test_a_bar_and_a_row_for_each_concept(examples):
    found = visualize.tcav(Colours(), examples[2], *examples[:2], "relu")
    assert len(found.figure().axes[0].patches) == 4
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [row["concept"] for row in rows] == ["greenish", "plain", "reddish", "random"]


def test_the_same_seed_gives_the_same_figures(examples):
    first, second = (visualize.tcav(Colours(), examples[2], *examples[:2], "relu", seed=3) for _ in range(2))
    assert first.to_csv() == second.to_csv()


def test_a_net_of_the_zoo_is_tested_in_its_last_stage(net, examples):
    concepts, random, images = examples
    half = cnnzoo.create("resnet20").to(torch.bfloat16).train()
    before = {name: tensor.clone() for name, tensor in half.state_dict().items()}
    found = visualize.tcav(half, images, concepts, random)
    assert found.layer == visualize.stages_of(half)[-1]
    assert half.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in half.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in half.parameters())


def test_examples_that_cannot_be_read_are_left_out_and_told(tmp_path):
    concepts, random, images = (
        shown(tmp_path / name, {"red": 0}, each) for name, each in zip("cri", (10, 40, 3), strict=True)
    )
    folders, told = [Path(concepts, "red"), Path(random), Path(images)], []
    for folder in folders:
        (folder / "broken.png").write_bytes(b"no image")
    found = visualize.tcav(Colours(), images, concepts, random, "relu", tell=told.append)
    assert found.images == 3
    assert [each.name for each in found.concepts] == ["red"]
    lines = [f"1 image left out that cannot be read; {folder / 'broken.png'}: it is not an image" for folder in folders]
    assert told == lines
    (folders[0] / "00.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="concept red has 9 pictures, but 10 at least are needed"):
        visualize.tcav(Colours(), images, concepts, random, "relu", tell=told.append)


def test_what_is_wrong_with_the_examples_is_told(examples, tmp_path):
    concepts, random, images = examples
    few = shown(tmp_path / "few", {"dotted": None}, 9)
    with pytest.raises(InputError, match="concept dotted has 9 pictures, but 10 at least are needed"):
        visualize.tcav(Colours(), images, few, random, "relu")
    with pytest.raises(InputError, match="few has 9 pictures, but 40 at least are needed at random"):
        visualize.tcav(Colours(), images, concepts, few, "relu")
    with pytest.raises(InputError, match="holds no folders"):
        visualize.tcav(Colours(), images, f"{few}/dotted", random, "relu")
    with pytest.raises(InputError, match="there is no folder"):
        visualize.tcav(Colours(), images, f"{few}/none", random, "relu")
    with pytest.raises(InputError, match="unknown class 'reed'; did you mean red"):
        visualize.tcav(Colours(), images, concepts, random, "relu", "reed")
    with pytest.raises(InputError, match="seed is -1, but must be a whole number of at least 0"):
        visualize.tcav(Colours(), images, concepts, random, "relu", seed=-1)
    with pytest.raises(InputError, match="class 3 is out of range"):
        visualize.tcav(Colours(), images, concepts, random, "relu", 3)


def test_the_commands_draw_and_say_what(folder, examples, tmp_path, cli):
    out = tmp_path / "picture.png"
    code, said, _ = cli("visualize", "concepts", "resnet20", "--data", folder, "--layer", "conv1", "--out", out)
    assert code == 0
    assert said.startswith("layer conv1 of resnet20 with random weights: ")
    assert out.read_bytes().startswith(b"\x89PNG")
    concepts, random, _ = examples
    words = ["resnet20", random, "--concepts", concepts, "--random", random, "--out", out]
    code, said, _ = cli("visualize", "tcav", *words)
    assert code == 0
    assert said.startswith("TCAV of ")
