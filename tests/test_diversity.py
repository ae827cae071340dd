"""Why a committee is better than its members, or is not."""

import csv
import dataclasses
import json
from itertools import combinations, pairwise

import numpy as np
import pytest
from PIL import Image
from scipy.stats.contingency import odds_ratio
from sklearn.metrics import matthews_corrcoef

import cnnzoo
from cnnzoo import calibrate
from cnnzoo.ensemble import dossier
from cnnzoo.ensemble.diversity import MEASURES, Pairs, study, subcommittees
from cnnzoo.ensemble.members import Panel


def panel(*right: str) -> Panel:
    """Members that are right where their text has a 1, on images of class b, and all as sure of what they say."""
    hits = np.array([[mark == "1" for mark in row] for row in right])
    logits = np.where(hits[:, :, None], [0, 2], [2, 0]).astype(np.float32)
    many, count = hits.shape
    names = tuple(f"runs/{'abcdefghijklmnop'[member]}" for member in range(many))
    images = tuple(f"photos/{image}.jpg" for image in range(count))
    return Panel(names, ("a", "b"), logits, np.ones(count, np.int64), images)


def judged(panel: Panel, costs=None):
    """The committee of a panel that takes the mean of probabilities."""
    return study(panel, "mean", panel.probabilities.mean(axis=0), costs or [1] * len(panel.names))


# ---- two members


def test_the_measures_of_a_table_of_two():
    """Both right on 5 images, the first alone on 2, the second alone on 1, neither on 2."""
    right = panel("1111111000", "1111100100").right
    pairs = Pairs.of(right)
    assert pairs.disagreement[0, 1] == pytest.approx(3 / 10)
    assert pairs.double_fault[0, 1] == pytest.approx(2 / 10)
    assert pairs.q_statistic[0, 1] == pytest.approx((5 * 2 - 2 * 1) / (5 * 2 + 2 * 1))
    assert pairs.correlation[0, 1] == pytest.approx((5 * 2 - 2 * 1) / (7 * 3 * 6 * 4) ** 0.5)


def test_the_measures_are_those_of_other_libraries():
    right = np.random.default_rng(0).random((5, 400)) < np.array([[0.9], [0.6], [0.75], [0.5], [0.8]])
    pairs = Pairs.of(right)
    for a, b in combinations(range(5), 2):
        table = [[(x & y).sum() for y in (right[b], ~right[b])] for x in (right[a], ~right[a])]
        ratio = odds_ratio(table, kind="sample").statistic
        assert pairs.q_statistic[a, b] == pytest.approx((ratio - 1) / (ratio + 1))
        assert pairs.correlation[a, b] == pytest.approx(matthews_corrcoef(~right[a], ~right[b]))
        assert pairs.disagreement[a, b] == pytest.approx((right[a] != right[b]).mean())
        assert pairs.double_fault[a, b] == pytest.approx((~right[a] & ~right[b]).mean())


@pytest.mark.parametrize("measure", MEASURES)
def test_the_order_of_two_members_does_not_matter(measure):
    values = getattr(Pairs.of(np.random.default_rng(1).random((4, 50)) < 0.7), measure)
    assert np.array_equal(values, values.T)


def test_one_who_errs_only_where_the_other_does_is_no_help_and_one_who_errs_elsewhere_is():
    same, opposite = Pairs.of(panel("1110", "1110").right), Pairs.of(panel("1100", "0011").right)
    assert (same.q_statistic[0, 1], same.correlation[0, 1], same.disagreement[0, 1]) == (1, 1, 0)
    assert (opposite.q_statistic[0, 1], opposite.correlation[0, 1], opposite.disagreement[0, 1]) == (-1, -1, 1)


def test_members_that_do_not_heed_each_other_are_uncorrelated():
    pairs = Pairs.of(np.random.default_rng(0).random((2, 200_000)) < 0.8)
    assert pairs.q_statistic[0, 1] == pytest.approx(0, abs=0.03)
    assert pairs.correlation[0, 1] == pytest.approx(0, abs=0.01)


def test_beside_one_who_never_errs_nothing_is_correlated():
    result = judged(panel("1111", "1100", "1010"))
    assert np.isnan(result.pairs.correlation[0, 1:]).all()
    assert np.isnan(result.pairs.q_statistic[0, 1:]).all()
    assert result.to_dict()["pairs"]["q_statistic"][0] == [None, None, None]
    assert result.to_dict()["pairs"]["q_statistic"][1][2] == 0
    assert "nan" not in str(result)


# ---- members and committee


def test_the_tables_number_members_from_1_and_tell_the_cheapest_of_what_is_reached():
    lines = str(judged(panel("1111111000", "1111100100", "0111011011"), [1000, 300, 2000])).splitlines()
    assert lines[1:5] == [
        "1 runs/a          70.00%  39.7% to 89.2%            1,000",
        "2 runs/b          60.00%  31.3% to 83.2%              300",
        "3 runs/c          70.00%  39.7% to 89.2%            2,000",
        "committee, mean   70.00%  39.7% to 89.2%            3,300",
    ]
    assert lines[7:11] == [
        "disagreement: share of images on which just one of the two is right",
        "         2      3",
        "  1  0.300  0.400",
        "  2         0.700",
    ]
    assert lines[-4:-2] == [" 60.00%            300  2", " 70.00%          1,000  1"]


def test_accuracies_stand_with_what_they_are_worth():
    result = judged(panel("1110", "1100", "1101"))
    assert result.top1 == (0.75, 0.5, 0.75)
    assert result.intervals[1] == calibrate.wilson_interval(2, 4)
    assert (result.best, result.count) == (0, 4)
    assert result.committee_top1 == 0.5
    assert result.committee_interval == calibrate.wilson_interval(2, 4)


def test_members_that_err_apart_reach_more_than_independent_ones_and_those_that_err_together_less():
    apart = judged(panel("1111111000", "1111000111", "1000111111"))
    together = judged(panel(*["1111111000"] * 3))
    assert (apart.majority, together.majority) == (1.0, 0.7)
    assert apart.independent == together.independent == pytest.approx(0.784)


def test_an_even_split_counts_one_half():
    assert judged(panel("1100", "1010")).majority == pytest.approx((1 + 0.5 + 0.5 + 0) / 4)


def test_the_committee_rescues_what_its_best_member_gets_wrong_and_loses_what_it_gets_right():
    result = judged(panel("11110000", "11001100", "01001110"))
    assert [verdict.image for verdict in result.rescued] == ["photos/4.jpg", "photos/5.jpg"]
    assert [verdict.image for verdict in result.lost] == ["photos/2.jpg", "photos/3.jpg"]
    first = result.rescued[0]
    assert (first.truth, first.committee, first.members) == ("b", "b", ("a", "b", "b"))
    assert result.p == 1
    assert "rescues 2 images that the best member, runs/a, gets wrong, and loses 2" in str(result)
    single = judged(panel("11110", "11001", "01101"))
    assert "rescues 1 image that the best member, runs/a, gets wrong, and loses 1" in str(single)


# ---- sub-committees


def random_panel(many: int, count: int = 60) -> Panel:
    rng = np.random.default_rng(many)
    targets = rng.integers(3, size=count)
    logits = rng.normal(size=(many, count, 3)) + 1.2 * (np.arange(3) == targets[:, None])
    names, images = (tuple(f"{what}{i}" for i in range(n)) for what, n in (("run", many), ("image", count)))
    return Panel(names, ("a", "b", "c"), logits.astype(np.float32), targets, images)


def test_up_to_ten_members_every_sub_committee_is_judged():
    panel, costs = random_panel(5), [7, 1, 5, 3, 2]
    found = {one.members: one for one in subcommittees(panel.probabilities, panel.targets, costs)}
    assert sorted(found) == sorted(chosen for many in range(1, 6) for chosen in combinations(range(5), many))
    for members, one in found.items():
        said = panel.probabilities[list(members)].mean(axis=0).argmax(axis=1)
        assert one.top1 == pytest.approx((said == panel.targets).mean())
        assert one.cost == sum(costs[member] for member in members)


def test_the_cheapest_come_first_and_of_equally_cheap_ones_the_more_accurate():
    worse_first = panel("1100", "1110", "1111")
    found = subcommittees(worse_first.probabilities, worse_first.targets, [5, 5, 1])
    alone = [(one.members, one.top1) for one in found if len(one.members) == 1]
    assert alone == [((2,), 1), ((1,), 0.75), ((0,), 0.5)]
    assert [one.cost for one in found] == sorted(one.cost for one in found)


def test_of_more_members_the_best_begins_and_each_next_one_adds_most():
    panel = random_panel(11)
    found = sorted(subcommittees(panel.probabilities, panel.targets, [1] * 11), key=lambda one: one.cost)
    assert [len(one.members) for one in found] == list(range(1, 12))
    assert found[0].top1 == panel.right.mean(axis=1).max()
    for before, after in pairwise(found):
        assert after.members[:-1] == before.members
        others = set(range(11)) - set(before.members)
        reached = [panel.probabilities[[*before.members, m]].mean(axis=0).argmax(axis=1) for m in others]
        assert after.top1 == max((said == panel.targets).mean() for said in reached)


def test_the_front_holds_what_nothing_as_cheap_is_as_good_as():
    panel, costs = random_panel(6), [3, 1, 4, 1, 5, 9]
    result = judged(panel, costs)
    assert {(one.cost, one.top1) for one in result.front} == {
        (one.cost, one.top1)
        for one in result.subcommittees
        if not any(
            (o.cost <= one.cost and o.top1 > one.top1) or (o.cost < one.cost and o.top1 >= one.top1)
            for o in result.subcommittees
        )
    }
    assert max(one.top1 for one in result.subcommittees) == result.front[-1].top1


# ---- tables and pictures


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A committee's dossier, and what it is of."""
    result = judged(panel("1111000001", "1100110001", "0100111001"), [30, 10, 20])
    folder = tmp_path_factory.mktemp("why") / "new"
    dossier.write(result, folder, lambda names: np.full((len(names), 8, 8, 3), 90, np.uint8))
    return folder, result


def rows(file) -> list[dict]:
    return list(csv.DictReader(file.read_text().splitlines()))


def test_the_tables_hold_what_is_told(written):
    folder, result = written
    members = rows(folder / "members.csv")
    assert [row["member"] for row in members] == ["runs/a", "runs/b", "runs/c", "committee, mean"]
    assert [row["multiply_adds"] for row in members] == ["30", "10", "20", "60"]
    pairs = rows(folder / "pairs.csv")
    assert [(row["first"], row["second"]) for row in pairs] == list(combinations(result.names, 2))
    assert float(pairs[2]["q_statistic"]) == pytest.approx(result.pairs.q_statistic[1, 2], abs=1e-6)
    cheapest = rows(folder / "subcommittees.csv")[0]
    assert (cheapest["members"], cheapest["unmatched"]) == ("runs/b", "true")
    changed = rows(folder / "images.csv")
    assert [row["change"] for row in changed] == ["rescued"] * len(result.rescued) + ["lost"] * len(result.lost)
    assert changed[0]["2 runs/b"] == "b"
    facts = json.loads((folder / "diversity.json").read_text())
    assert facts == json.loads(json.dumps(result.to_dict()))
    assert facts["independent"] == pytest.approx(result.independent)


def test_members_whose_folders_are_called_as_columns_are_lose_none(tmp_path):
    """The second is where --bag puts a committee."""
    members = dataclasses.replace(panel("1111000001", "1100110001", "0100111001"), names=("truth", "committee", "c"))
    result = judged(members)
    dossier.write(result, tmp_path, lambda names: np.zeros((len(names), 8, 8, 3), np.uint8))
    first, verdict = rows(tmp_path / "images.csv")[0], (*result.rescued, *result.lost)[0]
    assert list(first) == ["image", "change", "truth", "committee", "1 truth", "2 committee", "3 c"]
    assert list(first.values())[2:] == [verdict.truth, verdict.committee, *verdict.members]


@pytest.mark.parametrize("name", ["pairs", "cost", "rescued", "lost"])
def test_the_pictures_show_something(written, name):
    with Image.open(written[0] / f"{name}.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_the_picture_of_pairs_has_a_matrix_for_each_measure(written):
    figure = dossier.draw_pairs(written[1])
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["disagreement", "double fault", "q statistic", "correlation"]
    shown = panels[0].images[0].get_array()
    assert shown[0, 1] == pytest.approx(written[1].pairs.disagreement[0, 1])


def test_the_picture_of_cost_has_a_dot_for_each_sub_committee(written):
    axes = dossier.draw_cost(written[1]).axes[0]
    assert len(axes.collections[0].get_offsets()) == 7
    (front,) = axes.lines
    assert len(front.get_xdata()) == len(written[1].front)


def test_images_stand_with_name_truth_and_what_everybody_said(written):
    _, result = written
    figure = dossier.draw_images(result.rescued, np.zeros((len(result.rescued), 4, 4, 1), np.uint8), result.names)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["4.jpg", "is b", "committee: b", "a: a", "b: b", "c: b"]
    assert [text.get_color() for text in figure.axes[0].texts][3:] == ["firebrick", "black", "black"]


def test_nothing_is_overwritten(written, tmp_path):
    with pytest.raises(cnnzoo.InputError, match="is not empty, and nothing in it is to be overwritten"):
        dossier.check(written[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(cnnzoo.InputError, match="is a file"):
        dossier.check(tmp_path / "file")
    dossier.check(tmp_path / "new")
