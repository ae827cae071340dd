"""What a net finds alike, beside what is alike pixel by pixel, and the map that is drawn of it."""

import copy
import csv
import io
import os
import shutil
from pathlib import Path

import numpy as np
import photos
import pytest
import timm
import torch
from PIL import Image

import cnnzoo
from cnnzoo import visualize
from cnnzoo.errors import InputError
from cnnzoo.report import insight
from cnnzoo.transfer.features import Backbone
from cnnzoo.visualize.neighbours import alike


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return cnnzoo.create("resnet20").eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eighteen pictures of three kinds."""
    return photos.folder(tmp_path_factory.mktemp("photos") / "kinds", each=6)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """LeNet-5 after an epoch of digits."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    config = {"run": str(path), "model": {"name": "lenet5"}, "data": {"source": "digits"}, "train": {"epochs": 1}}
    return cnnzoo.train(config, with_report=False)


def seen(net, names):
    """Pictures as the net sees them `(N, D)`, between 0 and 1, and what its head sees of them."""
    preprocess = cnnzoo.preprocessing(net)
    with torch.no_grad():
        maps = net.forward_features(torch.stack([preprocess(name) for name in names]))
        vectors = net.forward_head(maps, pre_logits=True).numpy()
    return np.stack([preprocess.pixels(name).reshape(-1) for name in names]) / 255, vectors


def test_the_nearest_are_those_that_a_plain_search_finds(net, folder):
    found = visualize.neighbours(net, data=str(folder), many=3)
    names = found.among.names
    assert found.queries.names == names
    assert len(names) == 18
    pixels, vectors = seen(net, names)
    for nearest, rows in ((found.features, vectors), (found.pixels, pixels)):
        distances = np.sqrt(((rows[:, None] - rows) ** 2).sum(2))
        np.fill_diagonal(distances, np.inf)
        order = np.argsort(distances, axis=1)[:, :3]
        np.testing.assert_array_equal(nearest.places, order)
        expected = np.take_along_axis(distances, order, 1)
        np.testing.assert_allclose(nearest.distances, expected, rtol=1e-3 if rows is vectors else 1e-12)


def test_no_image_is_its_own_neighbour_but_a_copy_is(net, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "photos")
    query = tmp_path / "photos" / "red" / "00.png"
    shutil.copy(query, query.with_name("copy.png"))
    (tmp_path / "other way").symlink_to(tmp_path / "photos")
    given = [str(tmp_path / "other way" / "red" / "00.png")]
    found = visualize.neighbours(net, given, str(tmp_path / "photos"), many=2)
    for nearest in (found.features, found.pixels):
        assert found.among.names[nearest.places[0, 0]] == str(query.with_name("copy.png"))
        assert nearest.distances[0, 0] == 0
        assert nearest.distances[0, 1] > 0


def test_the_share_counts_the_neighbours_of_the_querys_class(net, folder):
    found = visualize.neighbours(net, data=str(folder), many=4)
    for space, nearest in (("features", found.features), ("pixels", found.pixels)):
        rows = [row for row in found.rows() if row["space"] == space]
        alike = [Path(row["neighbour"]).parent == Path(row["query"]).parent for row in rows]
        assert len(rows) == 18 * 4
        assert found.share(nearest) == np.mean(alike)
        assert f"{np.mean(alike):.1%}" in str(found)


def test_a_query_in_a_folder_of_a_class_is_of_that_class(net, folder):
    green, unknown = str(folder / "green" / "03.png"), photos.picture(0, 77)
    found = visualize.neighbours(net, [green, unknown], str(folder), many=5)
    assert [found.queries.class_of(place) for place in (0, 1)] == ["green", ""]
    same = [found.among.class_of(place) == "green" for place in found.pixels.places[0]]
    assert found.share(found.pixels) == np.mean(same)
    alone = visualize.neighbours(net, unknown, str(folder))
    assert alone.share(alone.features) is None
    assert "%" not in str(alone)
    rows = found.rows()[: 2 * 5]
    assert [(row["space"], row["rank"]) for row in rows] == [
        *(("features", rank) for rank in range(1, 6)),
        *(("pixels", rank) for rank in range(1, 6)),
    ]
    assert {row["query_class"] for row in rows} == {"green"}
    assert {row["query_class"] for row in found.rows()[2 * 5 :]} == {None}


def test_a_run_is_asked_among_the_images_it_was_trained_on(run):
    found = visualize.neighbours(run)
    assert set(found.among.names) == set(run.split["train"])
    assert set(found.queries.names) <= set(run.split["val"])
    assert len(found.queries) == 100
    assert found.share(found.features) > 0.5
    assert "the training images of" in str(found)


def test_a_folder_with_images_held_out_is_asked_among_the_others(net, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "photos" / "train")
    photos.folder(tmp_path / "photos" / "val", each=1)
    found = visualize.neighbours(net, data=str(tmp_path / "photos"), many=1)
    assert (len(found.queries), len(found.among)) == (3, 18)
    assert (found.pixels.distances == 0).all()  # the same pictures, in other files


def test_a_net_in_half_precision_is_asked_and_left_as_it_was(net, folder):
    half = cnnzoo.create("resnet20", num_classes=3).to(torch.bfloat16).train()
    half.conv1.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in half.state_dict().items()}
    found = visualize.neighbours(half, data=str(folder), many=2)
    assert np.isfinite(found.features.distances).all()
    assert half.training
    assert [name for name, parameter in half.named_parameters() if not parameter.requires_grad] == ["conv1.weight"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in half.state_dict().items())
    assert all(tensor.dtype == before[name].dtype for name, tensor in half.state_dict().items())


def test_a_page_shows_each_query_with_its_neighbours(net, folder):
    found = visualize.neighbours(net, [str(folder / "blue"), str(folder / "red")], str(folder), many=2)
    axes = found.figure().axes
    assert len(axes) == 6 * (1 + 2 + 2)  # of twelve queries six, from the first to the last
    assert "blue" in axes[0].get_title()
    assert "red" in axes[25].get_title()
    table = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert len(table) == 12 * 2 * 2
    assert table[0]["query"] == str(folder / "blue" / "00.png")


@pytest.mark.parametrize(
    ("images", "many", "message"),
    [
        (["notes.txt"], 1, "notes.txt: it is not an image"),
        (["none.png"], 1, "none.png"),
        (None, 18, "18 neighbours are asked for, but .* has only 17 images to be one"),
        (None, 0, "0 neighbours are asked for"),
    ],
)
def test_a_wrong_question_is_told(net, folder, tmp_path, monkeypatch, images, many, message):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("no image")
    with pytest.raises(InputError, match=message):
        visualize.neighbours(net, images, str(folder), many=many)


def test_an_empty_folder_is_told(net, tmp_path):
    with pytest.raises(InputError, match="holds no sub-folder for each class"):
        visualize.neighbours(net, data=str(tmp_path))


def test_a_net_from_elsewhere_is_told_that_it_must_be_registered(folder):
    net = timm.create_model("resnet10t", num_classes=3)
    net.preprocessing = cnnzoo.preprocessing("resnet20")
    for ask in (visualize.neighbours, visualize.map):
        with pytest.raises(InputError, match="features of a ResNet need a net of the registry; see"):
            ask(net, data=str(folder))


def test_a_net_that_is_no_run_needs_data(net):
    with pytest.raises(InputError, match="resnet20 is no run that has its own; name a folder or a set by data=…"):
        visualize.neighbours(net)


def test_the_command_draws_a_page_and_prints_a_line_or_a_table(folder, tmp_path, cli):
    image, out = folder / "red" / "01.png", tmp_path / "page.png"
    line = ["visualize", "neighbours", "resnet20", image, "--data", folder, "--out", out]
    code, said, _ = cli(*line)
    assert code == 0
    assert said.startswith("1 query and the 6 nearest of 18 images")
    assert "resnet20 with random weights" in said
    assert said.endswith(f": {out}\n")
    assert out.read_bytes().startswith(b"\x89PNG")
    code, table, _ = cli(*line, "--csv")
    assert code == 0
    header, *rows = table.splitlines()
    assert header == "query,query_class,space,rank,neighbour,class,distance"
    assert len(rows) == 2 * 6


def test_real_photos_are_found_by_what_they_show(data_root, tmp_path):
    """Ants and bees, of which the nearest by pixels are no better than chance."""
    if not os.environ.get("CNNZOO_WEIGHTS"):
        pytest.skip("CNNZOO_WEIGHTS does not say where real weights lie")
    for kind in ("ants", "bees"):
        for part, many in (("train", 30), ("val", 10)):
            (tmp_path / "photos" / part / kind).mkdir(parents=True)
            for file in sorted((data_root / "hymenoptera" / part / kind).glob("*.jpg"))[:many]:
                (tmp_path / "photos" / part / kind / file.name).symlink_to(file)
    weights = Path(os.environ["CNNZOO_WEIGHTS"]) / "squeezenet1_1_caffe.pth"
    found = visualize.neighbours("squeezenet1_1", data=str(tmp_path / "photos"), pretrained=str(weights))
    assert found.share(found.features) > found.share(found.pixels) + 0.1


# ---- below the mistakes of a report


def test_a_report_shows_the_training_images_nearest_to_each_mistake(run):
    report = cnnzoo.report(run).read_text()
    assert "Below each, the 4 training images most alike to the net." in report
    outputs, targets = run.predictions
    mistakes = min(int((outputs.argmax(1) != targets).sum()), 24)
    assert mistakes > 0
    assert report.count("<figure>") == mistakes
    assert all(figure.count("<div>") == 2 for figure in report.split("<figure>")[1:])


def test_the_nearest_of_a_report_are_those_of_the_command(run):
    found = visualize.neighbours(run, many=4)
    net = cnnzoo.load(run)
    images = found.queries.images.take(np.arange(10))
    places = alike(net, images, found.among.images, 4, found.among.cache)  # from the cache of the line before
    np.testing.assert_array_equal(places, found.features.places[:10])


def test_a_reports_nearest_are_by_the_features_that_a_probe_has_kept_in_its_precision(run, tmp_path, monkeypatch):
    found = visualize.neighbours(run, many=4)
    images, among = found.queries.images.take(np.arange(10)), found.among.images
    net = cnnzoo.load(run)
    Backbone(net, cnnzoo.preprocessing(net), tmp_path, precision="bf16").extract(among)
    monkeypatch.setitem(alike.__globals__, "_features", None)  # which looks at all images anew
    places = alike(net, images, among, 4, tmp_path, "bf16")
    assert np.mean(places == found.features.places[:10]) > 0.5  # 16 bits may tell two that are alike otherwise


def test_features_that_are_not_kept_are_the_same(run, tmp_path):
    found = visualize.neighbours(run, many=4)
    images = found.queries.images.take(np.arange(10))
    places = alike(cnnzoo.load(run), images, found.among.images, 4, tmp_path)
    np.testing.assert_array_equal(places, found.features.places[:10])
    assert not list(tmp_path.iterdir())


def test_a_report_says_where_there_are_too_many_images_to_look_through(run, monkeypatch):
    monkeypatch.setattr(insight, "LOOKED_THROUGH", 100)
    told = f"The nearest training images are not shown: {len(run.split['train']):,} are too many to look through."
    assert told in cnnzoo.report(run).read_text()


# ---- the map


def test_a_map_keeps_images_of_a_class_together(run):
    found = visualize.map(run, many=120)
    assert found.places.shape == (120, 2)
    assert set(found.of.names) <= set(run.split["val"])
    assert found.trustworthiness > 0.9
    by_features, drawn = found.same
    assert drawn > by_features - 0.1 > 0.5
    again = visualize.map(run, many=120)
    np.testing.assert_array_equal(found.places, again.places)
    assert len(found.to_csv().splitlines()) == 121


def test_the_map_draws_every_image_in_its_class_colour(net, folder, tmp_path):
    found = visualize.map(net, str(folder))
    found.save(tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.width == 1500
    names = [text.get_text() for text in found.figure().legends[0].get_texts()]
    assert names == ["blue", "green", "red"]


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "to resnet20 all of .* is the same: there is no map"), (float("nan"), "features of resnet20 are no finite")],
)
def test_a_net_to_which_all_images_are_the_same_has_no_map(net, folder, value, words):
    net = copy.deepcopy(net)
    with torch.no_grad():
        net.conv1.weight.fill_(value)
    with pytest.raises(InputError, match=words):
        visualize.map(net, str(folder))


def test_a_map_of_too_few_images_is_told(net, tmp_path):
    few = photos.folder(tmp_path / "few", each=3)
    with pytest.raises(InputError, match="a map takes at least 12 images, but there are 9 in"):
        visualize.map(net, str(few))
