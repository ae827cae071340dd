"""Probabilities that mean what they say, and what chance does to accuracies."""

import numpy as np
import pytest

from cnnzoo.calibrate import (
    accuracy_interval,
    calibration_error,
    cross_fitted,
    effective_count,
    fit_temperature,
    mcnemar,
    paired_interval,
    reliability,
    softmax,
    wilson_interval,
)


def said(count: int, classes: int = 5, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are too large by `sharpness`, and targets drawn from the probabilities they should mean."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (count, classes))
    targets = (softmax(logits).cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1)
    return (logits * sharpness).astype(np.float32), targets


# ---- temperature


@pytest.mark.parametrize("sharpness", [0.2, 1, 5, 50])
def test_the_temperature_undoes_how_much_too_sharp_logits_are(sharpness):
    logits, targets = said(5_000, sharpness=sharpness)
    assert fit_temperature(logits, targets) == pytest.approx(sharpness, rel=0.05)


def test_the_temperature_makes_the_likelihood_as_large_as_can_be():
    logits, targets = said(2_000, sharpness=3)
    best = fit_temperature(logits, targets)

    def loss(temperature: float) -> float:
        return -np.log(softmax(logits, temperature)[np.arange(2_000), targets]).mean()

    assert loss(best) < min(loss(0.9 * best), loss(1.1 * best), loss(1))


@pytest.mark.parametrize("count", [1, 10, 153, 5_000])
def test_a_net_that_is_always_right_claims_no_more_than_its_images_show(count):
    targets = np.arange(count) % 2
    logits = np.where(np.arange(2) == targets[:, None], 100.0, 0.0)
    confidence = softmax(logits, fit_temperature(logits, targets)).max(axis=1)
    assert confidence == pytest.approx((count + 1) / (count + 2), abs=1e-3)


def test_a_net_that_is_always_wrong_claims_nothing():
    targets = np.zeros(50, dtype=int)
    logits = np.tile([0.0, 4.0, 0.0], (50, 1))
    assert softmax(logits, fit_temperature(logits, targets)) == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize(
    "logits", [np.zeros((0, 3)), np.zeros((4, 1)), np.full((4, 3), -np.inf), np.full((4, 3), np.nan)]
)
def test_where_there_is_nothing_to_fit_probabilities_stay_as_they_are(logits):
    assert fit_temperature(logits, np.zeros(len(logits), dtype=int)) == 1


def test_no_image_has_a_say_in_its_own_temperature():
    logits, targets = said(200, sharpness=4)
    others = logits.copy()
    others[::2] *= 7
    assert (cross_fitted(logits, targets)[1::2] != cross_fitted(others, targets)[1::2]).any()
    temperature = fit_temperature(logits[1::2], targets[1::2])
    assert cross_fitted(others, targets)[::2] == pytest.approx(softmax(others[::2], temperature))


# ---- calibration error


def test_the_calibration_error_is_the_mean_distance_of_confidence_and_accuracy():
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    targets = np.array([0, 0, 0, 1, 1, 1])
    assert calibration_error(probabilities, targets) == pytest.approx((4 * (0.9 - 0.75) + 2 * (1 - 0.6)) / 6)


def test_probabilities_that_are_what_they_say_have_next_to_no_error():
    logits, targets = said(20_000)
    assert calibration_error(softmax(logits), targets) < 0.02
    assert calibration_error(softmax(3 * logits), targets) > 0.1
    assert calibration_error(cross_fitted(3 * logits, targets), targets) < 0.02


def test_every_image_is_in_one_bin_of_confidence():
    probabilities = np.array([[0.0, 1.0], [0.5, 0.5], [0.2, 0.8], [0.8 - 1e-9, 0.2]])
    count, confidence, accuracy = reliability(probabilities, np.array([1, 1, 1, 1]), bins=5)
    assert count.tolist() == [0, 0, 1, 2, 1]
    assert confidence == pytest.approx([0, 0, 0.5, 0.8, 1])
    assert accuracy.tolist() == [0, 0, 0, 0.5, 1]


# ---- chance


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_as_published(right, count, low, high):
    """R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    assert wilson_interval(right, count) == pytest.approx((low, high), abs=5e-5)


def beside(both: int, only_a: int, only_b: int, neither: int = 0) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, only_a, only_b, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def test_mcnemars_test_is_that_of_a_fair_coin():
    assert mcnemar(*beside(100, 2, 12)) == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert mcnemar(*beside(5, 12, 2, 40)) == mcnemar(*beside(100, 2, 12))


def test_nets_that_never_differ_are_equal_as_far_as_anyone_knows():
    assert mcnemar(*beside(100, 0, 0, 20)) == 1
    low, high = paired_interval(*beside(100, 0, 0, 20))
    assert -0.05 < low < 0 < high == -low


def test_the_interval_of_a_difference_has_the_published_form():
    """Agresti and Min 2005: Wald's interval after adding one half to each of the four counts."""
    a, b, count = 9.5, 3.5, 102
    middle, reach = (a - b) / count, 1.959964 * np.sqrt(a + b - (a - b) ** 2 / count) / count
    assert paired_interval(*beside(80, 9, 3, 8)) == pytest.approx((middle - reach, middle + reach))
    assert (paired_interval(*beside(0, 1, 0))[1], paired_interval(*beside(0, 0, 1))[0]) == (1, -1)  # and no farther


def test_intervals_hold_what_they_promise():
    """About 95 % of those drawn from a known difference hold it."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        kind = rng.choice(4, 150, p=[0.8, 0.1, 0.05, 0.05])
        low, high = paired_interval((kind == 0) | (kind == 1), (kind == 0) | (kind == 2))
        held += low <= 0.05 <= high
    assert held / 400 == pytest.approx(0.95, abs=0.03)


# ---- chance, where images belong together


def test_images_that_stand_alone_are_judged_as_without_groups():
    a, b = beside(80, 9, 3, 8)
    alone = np.arange(100)[::-1]
    assert effective_count(a, alone) == pytest.approx(100)
    assert accuracy_interval(a, alone) == pytest.approx(wilson_interval(89, 100))
    assert accuracy_interval(a) == wilson_interval(89, 100)
    assert paired_interval(a, b, alone) == pytest.approx(paired_interval(a, b))
    assert mcnemar(a, b, alone) == pytest.approx(mcnemar(a, b))


def test_a_photo_that_is_there_ten_times_speaks_once():
    a, b = beside(50, 12, 4, 14)
    ten, groups = ([np.repeat(each, 10) for each in (a, b)], np.repeat(np.arange(80), 10))
    assert effective_count(ten[0], groups) == pytest.approx(80, rel=0.02)
    assert accuracy_interval(ten[0], groups) == pytest.approx(accuracy_interval(a), abs=2e-3)
    assert paired_interval(*ten, groups) == pytest.approx(paired_interval(a, b), abs=2e-3)
    assert mcnemar(*ten, groups) == pytest.approx(mcnemar(a, b))
    assert mcnemar(*ten) < 1e-6


def test_images_of_one_group_say_no_more_than_one():
    right = np.array([True] * 7 + [False] * 3)
    assert effective_count(right, np.zeros(10)) == 1
    assert effective_count(np.ones(10), np.arange(10) // 2) == 5  # all are right, so nobody knows how alike they are


def test_the_permutation_test_counts_every_way_to_exchange_two_nets():
    a, b = np.array([1, 1, 1, 0, 1, 0, 1], bool), np.array([0, 0, 0, 1, 0, 0, 0], bool)
    groups = np.array([0, 0, 0, 1, 1, 1, 2])  # in which the first net leads by 3, 0 and 1 images
    assert mcnemar(a, b, groups) == pytest.approx(2 / 4)  # of the sums 4, 2, -2 and -4
    assert mcnemar(a, b) == pytest.approx(2 * (6 + 1) / 2**6)


def of_patients(rng: np.random.Generator, nets: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Whether nets that are right in 80 % of cases are right on the images of 60 patients, who differ."""
    sizes = rng.integers(1, 12, 60)
    groups = np.repeat(np.arange(60), sizes)
    return [rng.random(sizes.sum()) < np.repeat(rng.beta(1.6, 0.4, 60), sizes) for _ in range(nets)], groups


def test_intervals_hold_what_they_promise_where_images_belong_together():
    rng, held, plain = np.random.default_rng(0), 0, 0
    for _ in range(400):
        (right,), groups = of_patients(rng, 1)
        (low, high), (plain_low, plain_high) = accuracy_interval(right, groups), accuracy_interval(right)
        held += low <= 0.8 <= high
        plain += plain_low <= 0.8 <= plain_high
    assert held / 400 == pytest.approx(0.95, abs=0.03)
    assert plain / 400 < 0.8


def test_nets_that_are_equally_good_are_rarely_told_apart_where_images_belong_together():
    rng, found = np.random.default_rng(0), {"grouped": 0, "plain": 0}
    for _ in range(200):
        (a, b), groups = of_patients(rng, 2)
        found["grouped"] += mcnemar(a, b, groups) < 0.05
        found["plain"] += mcnemar(a, b) < 0.05
    assert found["grouped"] / 200 < 0.08
    assert found["plain"] / 200 > 0.2
