"""What a majority of independent members reaches."""

import json
import re
import time
from itertools import product
from math import comb, prod

import numpy as np
import pytest
from PIL import Image

import cnnzoo
from cnnzoo.ensemble.odds import poisson_binomial


@pytest.mark.parametrize(("n", "reached"), [(3, 0.784), (5, 0.83692), (11, 0.92177520904), (101, 0.9999870574)])
def test_members_of_70_percent_reach_what_the_binomial_formula_says(n, reached):
    assert cnnzoo.vote_odds(0.7, n).accuracy == pytest.approx(reached, abs=5e-11)


def test_the_lectures_terms():
    odds = cnnzoo.vote_odds(0.7, 3)
    assert odds.chances == pytest.approx((0.027, 0.189, 0.441, 0.343), abs=1e-12)


def test_one_member_is_as_good_as_itself():
    assert cnnzoo.vote_odds(0.7, 1).accuracy == pytest.approx(0.7)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_below_one_half_more_members_are_worse(p):
    alone, many = (cnnzoo.vote_odds(p, n).accuracy for n in (1, 51))
    assert many < alone if p == 0.3 else many == pytest.approx(alone)


@pytest.mark.parametrize("p", [0.2, 0.7])
@pytest.mark.parametrize("n", [2, 4, 10])
def test_ties_count_one_half_so_that_an_even_number_is_as_good_as_one_less(p, n):
    odds = cnnzoo.vote_odds(p, n)
    assert odds.tie == pytest.approx(comb(n, n // 2) * (p * (1 - p)) ** (n // 2))
    assert odds.accuracy == pytest.approx(cnnzoo.vote_odds(p, n - 1).accuracy)


# ---- members that differ


def test_different_members_are_counted_as_by_going_through_every_outcome():
    accuracies = (0.9, 0.35, 0.6, 0.75)
    expected = np.zeros(5)
    for right in product((0, 1), repeat=4):
        expected[sum(right)] += prod(p if hit else 1 - p for p, hit in zip(accuracies, right, strict=True))
    odds = cnnzoo.vote_odds(accuracies)
    assert odds.chances == pytest.approx(expected)
    assert odds.accuracy == pytest.approx(expected[3] + expected[4] + expected[2] / 2)


def test_like_members_are_a_special_case_of_different_ones():
    assert poisson_binomial([0.7] * 25) == pytest.approx(cnnzoo.vote_odds(0.7, 25).chances)


def test_no_committee_is_more_than_sure():
    assert all(cnnzoo.vote_odds(0.7, n).accuracy <= 1 for n in range(900, 1100))


def test_the_largest_committee_is_simulated_in_a_moment():
    odds, begun = cnnzoo.vote_odds(0.501, 10_000), time.perf_counter()
    assert odds.simulate() == pytest.approx(odds.accuracy, abs=5 * (0.25 / 100_000) ** 0.5)
    assert time.perf_counter() - begun < 2


@pytest.mark.parametrize("accuracies", [(0.7,) * 5, (0.7,) * 4, (0.9, 0.4, 0.6)])
def test_a_simulation_agrees(accuracies):
    odds = cnnzoo.vote_odds(accuracies)
    assert odds.simulate(200_000, seed=1) == pytest.approx(odds.accuracy, abs=5 * (0.25 / 200_000) ** 0.5)


# ---- what is wrong


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), (0.5, 2.0)])
def test_a_probability_lies_between_0_and_1(p):
    with pytest.raises(cnnzoo.InputError, match=r"p is .*, but a probability lies between 0 and 1"):
        cnnzoo.vote_odds(p)


@pytest.mark.parametrize("n", [0, -3, 2.5, 10_001])
def test_a_committee_has_a_whole_number_of_members(n):
    with pytest.raises(cnnzoo.InputError, match=f"n is {n}, but a committee has a whole number of members"):
        cnnzoo.vote_odds(0.7, n)


@pytest.mark.parametrize("n", [0, 2, 4])
def test_so_many_probabilities_are_so_many_members(n):
    with pytest.raises(cnnzoo.InputError, match=f"p holds 3 probabilities, but n is {n}"):
        cnnzoo.vote_odds((0.6, 0.7, 0.8), n)


# ---- the command


def test_vote_odds_prints_the_terms_and_their_sum(cli):
    code, out, _ = cli("vote-odds", "--p", 0.7, "--n", 3)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[2] == ["3", "0.343", "1", "x", "0.7^3"]
    assert lines[3] == ["2", "0.441", "3", "x", "0.7^2", "x", "0.3"]
    assert lines[4][:2] == ["sum", "0.784"]
    assert lines[5][:4] == ["simulated:", "right", "in", "78.64%"]


def test_vote_odds_tells_of_ties_and_of_members_that_differ(cli):
    out = cli("vote-odds", "--n", 4).out
    assert re.search(r" 2 +0.2646 +6 x 0.7\^2 x 0.3\^2; a tie: half of it counts", out)
    assert "each right with probabilities 0.6 to 0.8" in cli("vote-odds", "--p", "0.6,0.7,0.8").out


def test_vote_odds_spares_the_reader_what_hardly_ever_happens(cli):
    out = cli("vote-odds", "--n", 101).out
    assert "5 more below 1e-10" in out
    assert "0.9999870574" in out


def test_vote_odds_prints_json(cli):
    facts = json.loads(cli("vote-odds", "--n", 5, "--json").out)
    assert facts["accuracy"] == pytest.approx(0.83692)
    assert facts["simulated"] == pytest.approx(0.83692, abs=0.006)
    assert len(facts["chances"]) == 6


def test_vote_odds_wants_numbers(fails):
    assert "--p is 70%, but must be a number, or several between commas" in fails("vote-odds", "--p", "70%")


# ---- the picture


def test_every_curve_of_the_picture_is_exact_and_begins_at_a_member_alone():
    odds = cnnzoo.vote_odds(0.65, 11)
    (axes,) = odds.figure().axes
    *curves, dot = axes.lines
    assert [curve.get_ydata()[0] for curve in curves] == pytest.approx(
        [0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9]
    )
    sizes, reached = curves[6].get_data()
    assert reached[list(sizes).index(11)] == pytest.approx(odds.accuracy)
    assert (*dot.get_xdata(), *dot.get_ydata()) == (11, odds.accuracy)


def test_the_picture_is_written_by_its_suffix(tmp_path):
    cnnzoo.vote_odds(0.7, 3, out=tmp_path / "odds.png")
    with Image.open(tmp_path / "odds.png") as picture:
        assert len(picture.convert("L").getcolors()) > 20
    with pytest.raises(cnnzoo.InputError, match=r"odds\.doc, but its suffix must be one of"):
        cnnzoo.vote_odds(0.7, 3, out=tmp_path / "odds.doc")
