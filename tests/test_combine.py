"""The ways of making one answer of several, on members whose answers are known."""

import io
import warnings
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.stats import gmean

from cnnzoo.ensemble.combine import METHODS, Combination, combine, log_loss
from cnnzoo.ensemble.contest import Contest, contest
from cnnzoo.ensemble.members import Panel
from cnnzoo.errors import InputError
from cnnzoo.models import _rules

LEARN = ("weighted", "greedy", "stacking")


def panel_of(probabilities, targets, **more) -> Panel:
    """Members who give these probabilities `(M, N, K)`."""
    logits = np.log(np.array(probabilities, dtype=np.float32).clip(1e-9))
    members, images, classes = logits.shape
    return Panel(
        tuple(f"runs/{'abcdefghijklmnopqrst'[i]}" for i in range(members)),
        tuple(f"class {k}" for k in range(classes)),
        logits,
        np.array(targets),
        tuple(f"image {i}" for i in range(images)),
        **more,
    )


def noisy(accuracies, images: int = 600, classes: int = 4, seed: int = 0) -> Panel:
    """Members that are right by chance, each about so often, and independent of each other."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(classes, size=images)
    logits = rng.gumbel(size=(len(accuracies), images, classes))
    for own, accuracy in zip(
        logits, accuracies, strict=True
    ):  # softmax of what is added is the chance to be the largest
        own[np.arange(images), targets] += np.log(accuracy * (classes - 1) / (1 - accuracy))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    return panel_of(probabilities, targets)


def answers(panel: Panel, method: str, **options) -> np.ndarray:
    """Probabilities `(N, K)`."""
    return np.exp(combine(panel, method, **options).log_probabilities)


# ---- without learning


def test_the_majority_decides_however_sure_the_others_are():
    panel = panel_of([[[0.51, 0.49]], [[0.51, 0.49]], [[0.0, 1.0]]], [0])
    assert answers(panel, "vote").argmax() == 0
    assert answers(panel, "vote")[0] == pytest.approx([2 / 3, 1 / 3], abs=1e-3)
    assert answers(panel, "plurality").argmax() == 0  # 1.02 against 1
    assert answers(panel, "mean").argmax() == 1


def test_in_plurality_one_sure_member_outvotes_two_unsure_ones():
    panel = panel_of([[[0.4, 0.3, 0.3]], [[0.4, 0.3, 0.3]], [[0.0, 0.9, 0.1]]], [0])
    assert answers(panel, "plurality")[0] == pytest.approx([0.8 / 1.7, 0.9 / 1.7, 0], abs=1e-3)


def test_of_equal_votes_the_larger_mean_probability_decides_and_ties_are_told():
    probabilities = [
        [[0.6, 0.4, 0.0], [0.6, 0.4, 0.0], [1.0, 0.0, 0.0]],
        [[0.1, 0.9, 0.0], [0.4, 0.6, 0.0], [1.0, 0.0, 0.0]],
    ]
    done = combine(panel_of(probabilities, [1, 1, 0]), "vote")
    assert done.log_probabilities.argmax(axis=1).tolist() == [1, 0, 0]
    assert done.notes == ("2 of 3 votes were tied and went to the class of the larger mean probability, 1 rightly",)
    assert combine(panel_of(probabilities[:1] * 3, [0, 0, 0]), "vote").notes == ("no votes were tied",)


def test_votes_are_tied_by_their_weights():
    panel = panel_of([[[0.9, 0.1]], [[0.2, 0.8]], [[0.3, 0.7]]], [0])
    tied = "1 of 1 votes were tied and went to the class of the larger mean probability, 1 rightly"
    assert combine(panel, "vote", [0.5, 0.25, 0.25]).notes == (tied,)
    assert combine(panel, "vote", [0.4, 0.3, 0.3]).notes == ("no votes were tied",)


def test_means_are_what_they_are_called():
    panel = noisy([0.6, 0.7, 0.8])
    p, weights = panel.probabilities, [0.5, 0.2, 0.3]
    assert answers(panel, "mean") == pytest.approx(p.mean(axis=0), abs=1e-5)
    assert answers(panel, "mean", weights=weights) == pytest.approx(np.average(p, axis=0, weights=weights), abs=1e-5)
    geometric = np.exp(np.average(np.log(p), axis=0, weights=weights))
    geometric /= geometric.sum(axis=1, keepdims=True)
    assert answers(panel, "geometric", weights=weights) == pytest.approx(geometric, abs=1e-5)
    alike = gmean(p, axis=0)
    assert answers(panel, "geometric") == pytest.approx(alike / alike.sum(axis=1, keepdims=True), abs=1e-5)


def test_the_mean_of_logits_lets_louder_members_say_more():
    """The panel's logits are divided by temperatures; these are multiplied back."""
    quiet, loud = [[0.7, 0.3]], [[0.4, 0.6]]
    assert answers(panel_of([quiet, loud], [0]), "logits").argmax() == 0
    panel = panel_of([quiet, loud], [0], temperatures=(1.0, 5.0))
    assert answers(panel, "logits").argmax() == 1
    logits = (np.log(quiet) + 5 * np.log(loud)) / 2
    assert answers(panel, "logits") == pytest.approx(np.exp(logits) / np.exp(logits).sum(), abs=1e-5)


def test_ranks_count_as_bordas_do():
    """Ranks 3, 2, 1 and 1, 3, 2 and 1, 3, 2, whatever the probabilities."""
    panel = panel_of([[[0.9, 0.06, 0.04]], [[0.1, 0.5, 0.4]], [[0.3, 0.36, 0.34]]], [0])
    assert answers(panel, "rank")[0] == pytest.approx(np.array([5, 8, 5]) / 18, abs=1e-3)


def test_of_equal_ranks_the_larger_mean_probability_decides():
    panel = panel_of([[[0.5, 0.3, 0.2]], [[0.1, 0.3, 0.6]]], [0])
    assert answers(panel, "rank").argmax() == 2


@pytest.mark.parametrize("method", ["vote", "rank"])
@pytest.mark.parametrize(("classes", "members"), [(1000, 2), (1000, 20), (10, 5)])
def test_ties_are_decided_among_a_thousand_classes_and_nothing_else_is(method, classes, members):
    """As counting does it that rounds nothing."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(1, 150, classes)) + 1.5 * rng.normal(size=(members, 150, classes))
    panel = panel_of(np.exp(logits) / np.exp(logits).sum(2, keepdims=True), np.zeros(150, int))
    p = panel.probabilities
    ranks = p.argsort(2).argsort(2) + 1
    counts = (ranks if method == "rank" else ranks == classes).sum(0)
    foremost = counts == counts.max(1, keepdims=True)
    assert (foremost.sum(1) > 1).any()
    wanted = np.where(foremost, p.astype(np.float64).sum(0), -1)
    said = combine(panel, method).log_probabilities.argmax(1)
    np.testing.assert_allclose(wanted[np.arange(150), said], wanted.max(1), rtol=1e-6)  # float32 adds in some order


def test_a_rank_more_counts_however_large_the_mean_probability_of_others():
    """Of 19 members the first class is the first choice, with the second class next; of one it is the 21st."""
    many = [0.6, 0.01, *np.full(998, 0.39 / 998)]
    one = [0.6 / 2**20, 0.6, *(0.6 / 2 ** np.arange(1, 20)), *np.full(979, 1e-9)]
    answer = answers(panel_of([[many]] * 19 + [[one]], [0]), "rank")
    assert answer[0].argsort()[-2:].tolist() == [0, 1]


def test_independent_members_do_by_vote_what_the_binomial_formula_says():
    panel = noisy([0.7, 0.7, 0.7], images=20_000, classes=2)
    assert combine(panel, "vote").top1 == pytest.approx(0.784, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_whatever_the_method_probabilities_sum_to_1_and_beat_the_mean_member(method):
    panel = noisy([0.6, 0.65, 0.7, 0.75])
    done = combine(panel, method)
    assert done.log_probabilities.dtype == np.float32
    assert np.exp(done.log_probabilities).sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert done.honest_top1 > panel.top1.mean()
    assert (done.cross_fitted is not None) == (method in LEARN)


@pytest.mark.parametrize("method", METHODS)
def test_a_rule_is_rebuilt_from_what_is_said_of_it(method):
    rule = combine(noisy([0.6, 0.7, 0.8]), method).rule
    again = _rules.build(_rules.describe(rule), members=3, classes=4)
    again.load_state_dict(rule.state_dict())
    x = torch.randn(3, 5, 4).log_softmax(2)
    with torch.no_grad():
        assert torch.equal(again(x), rule(x))


def test_a_stack_is_rebuilt_from_a_card_that_describes_its_head():
    rule = combine(noisy([0.6, 0.7, 0.8]), "stacking").rule
    again = _rules.build({"kind": "stack", "head": {"kind": "linear", "num_classes": 4}}, members=3, classes=4)
    again.load_state_dict(rule.state_dict())
    x = torch.randn(3, 5, 4).log_softmax(2)
    with torch.no_grad():
        assert torch.equal(again(x), rule(x))


@pytest.mark.parametrize("method", METHODS)
def test_a_rule_is_part_of_an_onnx_graph(method):
    rule, file = combine(noisy([0.6, 0.7, 0.8]), method).rule, io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter tells its developers a lot
        given = {"input_names": ["x"], "dynamic_axes": {"x": {1: "batch"}}}
        torch.onnx.export(rule, (torch.zeros(3, 2, 4),), file, dynamo=False, opset_version=20, **given)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    x = torch.randn(3, 50, 4).log_softmax(2)
    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], rule(x).numpy(), atol=1e-5)


# ---- what learns from the targets


def test_weights_make_the_log_loss_as_small_as_can_be():
    panel = noisy([0.5, 0.8], seed=1)
    done = combine(panel, "weighted")
    weights = np.array(done.weights)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)

    def loss(first: float) -> float:
        mixed = np.average(panel.probabilities, axis=0, weights=[first, 1 - first])
        return -np.log(mixed[np.arange(len(mixed)), panel.targets]).mean()

    assert loss(weights[0]) <= min(map(loss, np.linspace(0, 1, 101))) + 1e-6


@pytest.mark.parametrize("method", ["weighted", "greedy"])
def test_an_image_that_all_members_hold_for_impossible_leaves_weights_that_are_numbers(method):
    panel = noisy([0.6, 0.8], images=60)
    panel.logits[:, 0] = np.where(np.arange(4) == panel.targets[0], -500, 0)
    assert panel.probabilities[:, 0, panel.targets[0]].max() == 0
    others = combine(panel.choose(np.arange(1, 60)), method)
    assert combine(panel, method).weights == pytest.approx(others.weights, abs=0.05)


def test_a_member_that_knows_nothing_gets_no_weight():
    panel = noisy([0.8, 0.8, 0.25])
    assert combine(panel, "weighted").weights[2] < 0.05
    assert combine(panel, "greedy").weights[2] < 0.2


@pytest.mark.parametrize("method", ["weighted", "greedy"])
def test_what_is_weighted_is_never_below_the_best_member(method):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        panel = noisy(rng.uniform(0.3, 0.9, rng.integers(2, 7)), images=40, seed=seed)
        assert combine(panel, method).top1 >= panel.top1.max()


@pytest.mark.parametrize("seed", range(4))
def test_greedy_selection_is_that_of_caruana(seed):
    rng = np.random.default_rng(seed)
    panel = noisy(rng.uniform(0.4, 0.9, 5), images=200, seed=seed)
    probabilities, targets = panel.probabilities.astype(np.float64), panel.targets

    def score(bag):
        mean = probabilities[bag].mean(0)
        return (mean.argmax(1) == targets).mean(), np.log(mean[np.arange(200), targets]).mean()

    order = sorted(range(5), key=lambda member: score([member]), reverse=True)
    best = max((order[:many] for many in range(1, 6)), key=score)
    bag = best
    for _ in range(20):
        bag = max(([*bag, member] for member in range(5)), key=score)
        best = max(best, bag, key=score)
    done, shares = combine(panel, "greedy"), np.bincount(best, minlength=5) / len(best)
    assert done.weights == pytest.approx(shares)
    assert done.notes[0] == "weights " + ", ".join(f"{share:.3f}" for share in shares)


def test_where_least_log_loss_would_cost_accuracy_the_best_member_answers_alone():
    """The first is right by a hair and, once, very wrong; the second is wrong by a hair."""
    first = [[0.51, 0.49]] * 9 + [[1e-6, 1 - 1e-6]]
    second = [[0.45, 0.55]] * 9 + [[0.45, 0.55]]
    done = combine(panel_of([first, second], [0] * 10), "weighted")
    assert done.weights == [1, 0]
    assert done.top1 == 0.9
    assert done.notes[1].endswith("runs/a alone is on 90.00%, so it answers alone")


def test_greedy_selection_takes_members_as_often_as_they_help():
    done = combine(noisy([0.7, 0.7, 0.7, 0.3]), "greedy")
    counts = np.array(done.weights) * 100
    assert done.top1 > combine(noisy([0.7, 0.7, 0.7, 0.3]), "mean").top1
    assert counts[:3].min() > 0


def swapped(images: int = 400, seed: int = 0) -> Panel:
    """A member that takes the first two classes for each other, and one that guesses."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(3, size=images)
    said = 0.05 + 0.85 * np.eye(3)[np.array([1, 0, 2])[targets]]
    return panel_of([said, rng.dirichlet(np.ones(3), images)], targets)


def test_stacking_learns_what_members_mean():
    done = combine(swapped(), "stacking")
    assert combine(swapped(), "mean").top1 < 0.6
    assert done.honest_top1 > 0.99


@pytest.mark.parametrize("groups", [None, np.arange(60)])
def test_a_class_of_two_images_has_one_to_fit_on_wherever_it_is_judged(groups):
    panel = panel_of(np.random.default_rng(0).dirichlet(np.ones(3), (2, 60)), [2, 2, *[0, 1] * 29])
    for seed in range(4):
        cross_fitted = combine(replace(panel, groups=groups), "stacking", seed=seed).cross_fitted
        assert cross_fitted[:, 2].min() > np.log(1e-6)


@pytest.mark.parametrize("method", LEARN)
def test_where_there_is_nothing_to_learn_nothing_leaks(method):
    """Labels shuffled: accuracy on images that a fit has not seen is chance."""
    panel = noisy([0.5] * 10, images=300)
    shuffled = Panel(
        panel.names, panel.classes, panel.logits, np.random.default_rng(1).permutation(panel.targets), panel.images
    )
    done = combine(shuffled, method)
    assert done.honest_top1 == pytest.approx(0.25, abs=0.06)  # 2.4 standard errors
    if method == "stacking":  # which could learn them by heart
        assert done.top1 > done.honest_top1 + 0.05


@pytest.mark.parametrize("method", LEARN)
def test_what_is_learnt_from_noise_helps_only_on_the_images_it_was_learnt_from(method):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(8, 60, 3)).astype(np.float32)
    names, images = (tuple(f"{what} {i}" for i in range(n)) for what, n in (("run", 8), ("image", 60)))
    done = combine(Panel(names, ("a", "b", "c"), logits, rng.integers(3, size=60), images), method)
    assert done.honest_top1 < done.top1 - 0.1


def test_cross_fitting_is_the_same_again_and_another_with_another_seed():
    panel = noisy([0.5, 0.6, 0.7])
    first, again, other = (combine(panel, "stacking", seed=seed).cross_fitted for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_two_classes_are_stacked_too():
    assert combine(noisy([0.7, 0.7, 0.7], classes=2), "stacking").honest_top1 > 0.72


# ---- all of them


def test_methods_are_told_side_by_side():
    panel = noisy([0.6, 0.7, 0.8], images=200)
    result = contest(panel)
    assert [row["name"] for row in result.rows] == [*panel.names, *METHODS]
    rows = {row["name"]: row for row in result.rows}
    assert rows["runs/a"]["top1"] == panel.top1[0]
    assert rows["mean"]["cross_top1"] is None
    assert rows["weighted"]["cross_top1"] == combine(panel, "weighted").honest_top1
    assert rows["mean"]["low"] < rows["mean"]["top1"] < rows["mean"]["high"]
    assert rows["vote"]["loss"] == log_loss(combine(panel, "vote").log_probabilities, panel.targets)
    best = max(one.honest_top1 for one in result.combinations)
    assert result.best.honest_top1 == best
    lines = str(result).splitlines()
    assert lines[0].split() == ["top-1", "cross-fitted", "95%", "interval", "log-loss"]
    assert lines[1].split()[:2] == ["runs/a", f"{panel.top1[0]:.2%}"]
    assert lines[len(result.rows) + 1] == "200 images, none of which a member was trained on"
    assert set(result.to_dict()["weights"]) == set(METHODS)


def test_the_best_method_is_the_best_on_images_it_has_not_seen():
    """One method knows the images it was fitted on by heart and is wrong on all others; the other is right on half."""
    panel = panel_of([[[0.9, 0.1]] * 4] * 2, [0, 0, 1, 1])
    right = np.log([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]])
    by_heart = Combination("by heart", torch.nn.Identity(), panel, right, cross_fitted=right[:, ::-1], weights=None)
    half = Combination("half", torch.nn.Identity(), panel, panel.log_probabilities[0], cross_fitted=None, weights=None)
    assert by_heart.top1 > half.top1
    for given in ((by_heart, half), (half, by_heart)):
        assert Contest(panel, given).best.method == "half"


def test_a_method_that_cannot_be_fitted_is_missing_and_says_why():
    panel = panel_of(np.full((2, 3, 2), 0.5), [0, 0, 1])
    with pytest.raises(InputError, match="two at least, and there are too few of class 1"):
        combine(panel, "stacking")
    result = contest(panel)
    assert list(result.missing) == ["stacking"]
    assert [one.method for one in result.combinations] == [method for method in METHODS if method != "stacking"]
    assert "stacking is missing: " in str(result)


# ---- wrong input


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ([0.5, 0.5], "the weights 0.5, 0.5 are 2, but there are 3 members"),
        ([0.7, 0.5, -0.2], "the weights 0.7, 0.5, -0.2 must be numbers, none of them negative"),
        ([0.7, 0.5, float("nan")], "none of them negative"),
        ([0.3, 0.3, 0.3], "sum to 0.9, but must sum to 1"),
    ],
)
def test_weights_that_are_none_are_refused(weights, why):
    with pytest.raises(InputError, match=why):
        combine(noisy([0.6] * 3), "mean", weights)


def test_methods_that_find_weights_take_none():
    for method in LEARN:
        with pytest.raises(InputError, match=f"method {method} takes no weights; vote, plurality, mean"):
            combine(noisy([0.6] * 3), method, [0.2, 0.3, 0.5])
    with pytest.raises(InputError, match="weights go with one method"):
        contest(noisy([0.6] * 3), METHODS, [0.2, 0.3, 0.5])


def test_a_misspelt_method_is_told_the_nearest():
    with pytest.raises(InputError, match="unknown method 'wieghted'; did you mean weighted"):
        combine(noisy([0.6, 0.7]), "wieghted")


def test_a_method_that_learns_needs_two_images():
    with pytest.raises(InputError, match="there is one image only; a method that learns needs two"):
        combine(noisy([0.6, 0.7], images=1), "greedy")
    assert combine(panel_of(np.full((2, 2, 2), 0.5), [0, 1]), "greedy").cross_fitted.shape == (2, 2)


def test_weights_are_told_as_shares():
    done: Combination = combine(noisy([0.6, 0.7]), "vote", [0.25, 0.75])
    assert done.weights == [0.25, 0.75]
    assert combine(noisy([0.6, 0.7]), "stacking").weights is None


def test_weights_are_those_given_however_loud_members_are():
    panel = panel_of([[[0.7, 0.3]], [[0.4, 0.6]]], [0], temperatures=(1.0, 50.0))
    assert combine(panel, "logits", [0.75, 0.25]).weights == [0.75, 0.25]
    assert contest(panel, ["logits"]).to_dict()["weights"]["logits"] == [0.5, 0.5]


# ---- images that belong together


def test_what_is_learnt_of_one_image_of_a_group_is_not_judged_on_another():
    """Bursts of five equal images, of which members know nothing: 30 numbers are enough to know 40 bursts again."""
    rng = np.random.default_rng(0)
    bursts = np.repeat(np.arange(40), 5)
    logits, targets = rng.normal(size=(6, 40, 5))[:, bursts], rng.integers(5, size=40)[bursts]
    panel = panel_of(np.exp(logits) / np.exp(logits).sum(2, keepdims=True), targets)
    right = [
        float((combine(each, "stacking").cross_fitted.argmax(1) == targets).mean())
        for each in (panel, replace(panel, groups=bursts))
    ]
    assert right[0] > 0.6
    assert right[1] < 0.4


@pytest.mark.parametrize("method", LEARN)
def test_groups_that_hold_a_class_alone_are_judged_all_the_same(method):
    panel = noisy([0.6, 0.6], images=60, classes=3)
    done = combine(replace(panel, groups=np.where(panel.targets == 2, -1, np.arange(60) // 2)), method)
    assert np.isfinite(done.cross_fitted).all()
    with pytest.raises(InputError, match="all images are in one group; a method that learns needs two"):
        combine(replace(panel, groups=np.zeros(60, int)), method)


def test_of_two_classes_one_in_a_single_group_leaves_stacking_nothing_to_be_fitted_on():
    panel = noisy([0.6, 0.7], images=60, classes=2)
    panel = replace(panel, groups=np.where(panel.targets == 1, -1, np.arange(60) // 2))
    with pytest.raises(InputError, match=r"two classes at least, and where .* only images of class 0 are left"):
        combine(panel, "stacking")
    assert list(contest(panel).missing) == ["stacking"]
