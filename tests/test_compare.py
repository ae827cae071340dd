"""Nets side by side: the numbers, and the picture."""

import csv
from dataclasses import replace
from importlib import import_module
from itertools import combinations

import pytest
from matplotlib.image import imread

import cnnzoo
from cnnzoo.claims import best
from cnnzoo.compare import draw
from cnnzoo.weights.table import list_weights


@pytest.fixture(scope="module")
def resnets():
    return cnnzoo.compare(["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg*"])


def test_a_point_is_a_net_with_its_best_weights(resnets):
    point = next(point for point in resnets.points if point.model == "resnet50")
    known = [row for row in list_weights("resnet50") if row.top1 is not None]
    row = next(row for row in known if row.tag == point.tag)
    assert row is known[0] is best("resnet50")
    assert (point.top1, point.top5, point.size) == (row.top1, row.top5, row.size)
    assert (point.params, point.year, point.judged_on) == (25_557_032, 2015, "ILSVRC 2012 validation")


def test_multiply_adds_are_for_the_size_that_the_accuracy_holds_for(monkeypatch):
    assert cnnzoo.compare("resnet18").points[0].macs == 1_814_073_344
    row = replace(best("resnet18"), size=448)
    monkeypatch.setattr(import_module("cnnzoo.compare"), "best", lambda name: row)
    point = cnnzoo.compare("resnet18").points[0]
    assert (point.size, point.macs) == (448, 4 * (1_814_073_344 - 512_000) + 512_000)


def test_most_accurate_first_and_imagenet_before_cifar():
    points = cnnzoo.compare(["resnet20", "resnet56", "vgg11", "vgg19"]).points
    assert [point.model for point in points] == ["vgg19", "vgg11", "resnet56", "resnet20"]
    assert [point.judged_on for point in points] == ["ILSVRC 2012 validation"] * 2 + ["CIFAR-10"] * 2


def test_a_name_may_be_a_pattern_and_counts_once():
    assert {point.model for point in cnnzoo.compare(["vgg1[16]", "vgg16"]).points} == {"vgg11", "vgg16"}
    assert [point.model for point in cnnzoo.compare("vgg11").points] == ["vgg11"]


def test_tags_choose_other_weights_than_the_best(tmp_path):
    points = cnnzoo.compare("resnet[15]*.tv_in1k", out=tmp_path / "nets.png").points
    assert {(point.model, point.tag) for point in points} >= {("resnet50", "tv_in1k"), ("resnet152", "tv_in1k")}
    both = cnnzoo.compare(["resnet50", "resnet50.tv*"]).points
    assert [point.tag for point in both] == ["tv2_in1k", "tv_in1k"]
    with pytest.raises(cnnzoo.InputError, match=r"no weights of known accuracy for resnet50\.tv9; see"):
        cnnzoo.compare("resnet50.tv9")


def test_nets_without_weights_are_named():
    assert cnnzoo.compare(["resnet50*", "lenet5"]).without == ("resnet50_2015", "lenet5")


def test_no_names_are_all_nets_with_weights():
    comparison = cnnzoo.compare()
    known = {row.model for row in list_weights() if row.top1 is not None}
    assert {point.model for point in comparison.points} == known
    assert comparison.without == ()


def test_only_nets_without_weights_is_an_error():
    with pytest.raises(cnnzoo.InputError, match="no weights of known accuracy for lenet5, lenet5_1998"):
        cnnzoo.compare("lenet5*")


def test_a_number_is_no_name():
    with pytest.raises(cnnzoo.InputError, match=r"names are a text such as resnet\*, or several, not 5"):
        cnnzoo.compare(5)


def test_a_name_nobody_knows_is_an_error():
    with pytest.raises(cnnzoo.InputError, match="unknown model 'resent50'; did you mean resnet50"):
        cnnzoo.compare(["vgg16", "resent50"])


# --- forms


def test_text_csv_and_dict_have_the_same_numbers(resnets):
    _, *lines = (line.split() for line in str(resnets).splitlines())
    records = list(csv.DictReader(resnets.to_csv().splitlines()))
    dicts = resnets.to_dict()["points"]
    for line, record, point, found in zip(lines, records, dicts, resnets.points, strict=True):
        assert point["macs"] == int(record["macs"]) == int(line[5].replace(",", "")) == found.macs
        assert point["top1"] == float(record["top1"]) == found.top1
        assert line[2] == f"{found.top1:.2f}"
        assert line[0] == record["model"] == point["model"]


# --- the picture


@pytest.mark.parametrize("suffix", ["png", "svg", "PDF"])
def test_the_files_suffix_says_what_it_is(tmp_path, suffix):
    cnnzoo.compare("vgg16", tmp_path / f"nets.{suffix}")
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "PDF": b"%PDF"}[suffix]
    assert (tmp_path / f"nets.{suffix}").read_bytes().startswith(begins)


def test_an_unknown_suffix_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(cnnzoo.InputError, match=r"nets\.foo, but its suffix must be one of .*png"):
        cnnzoo.compare("vgg16", tmp_path / "nets.foo")
    with pytest.raises(cnnzoo.InputError, match="the picture is to be a file, not 3"):
        cnnzoo.compare("vgg16", 3)
    assert not list(tmp_path.iterdir())


def test_dots_stand_at_operations_and_accuracy_with_parameters_as_area(resnets):
    (axes, _) = draw(resnets).axes
    dots = axes.collections[-1]
    assert dots.get_offsets().tolist() == [[point.macs / 1e9, point.top1] for point in resnets.points]
    areas = dots.get_sizes() / [point.params for point in resnets.points]
    assert areas == pytest.approx([areas[0]] * len(areas))
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["10 M", "50 M", "100 M"]
    shown = [handle.get_sizes()[0] for handle in legend.legend_handles]
    assert shown == pytest.approx([areas[0] * params for params in (1e7, 5e7, 1e8)])


def test_a_panel_for_each_kind_of_images():
    figure = draw(cnnzoo.compare(["resnet18", "resnet20"]))
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["top-1 accuracy, %, ILSVRC 2012 validation", "top-1 accuracy, %, CIFAR-10", "year of the paper"]


def test_names_do_not_cover_each_other_or_leave_the_frame():
    figure = draw(cnnzoo.compare())
    for axes in figure.axes[:-1]:
        boxes = [text.get_window_extent() for text in axes.texts]
        assert len(boxes) == len(axes.collections[-1].get_offsets())
        assert [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)] == []
        frame = axes.get_window_extent()
        assert all(frame.contains(*box.min) and frame.contains(*box.max) for box in boxes)


def test_the_picture_is_not_blank(tmp_path):
    cnnzoo.compare(["resnet18", "vgg16"], tmp_path / "nets.png")
    pixels = imread(tmp_path / "nets.png")
    assert pixels.shape[:2] == (1040, 1430)
    assert len({tuple(colour) for colour in pixels.reshape(-1, 4)[::97].tolist()}) > 10
