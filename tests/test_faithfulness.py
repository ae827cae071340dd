"""Four trials of a map of evidence: deletion and insertion, ROAD, random weights, and pointing."""

import os
from collections import OrderedDict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

import cnnzoo
from cnnzoo.errors import InputError
from cnnzoo.visualize import deletion_insertion, faithfulness, gradients, pointing, road, sanity, untouched
from cnnzoo.visualize.methods import maps_of


class Corner(nn.Module):
    """Says class 1 to the degree that an image's upper left quarter is bright."""

    def forward(self, x):
        bright = x[:, :, :8, :8].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(bright), 8 * bright - 4], dim=1)


def white():
    return torch.ones(3, 16, 16)


def corner():
    seen = np.zeros((16, 16), np.float32)
    seen[:8, :8] = 1
    return seen


# ---- deletion and insertion


def test_a_map_of_the_true_evidence_deletes_early():
    right, wrong = (deletion_insertion(Corner(), white(), 1, ranks) for ranks in (corner(), -corner()))
    assert right.deleted < 0.2
    assert wrong.deleted > 0.8
    assert len(right.deletion) == 13


def test_a_map_of_the_true_evidence_inserts_early():
    class Stripes(nn.Module):
        """Says class 1 to the degree that the quarter has stripes, which a blurred image has not."""

        def forward(self, x):
            return Corner()(x.diff(dim=3, append=x[..., :1]).abs())

    image = white()
    image[:, :, ::2] = 0
    right, wrong = (deletion_insertion(Stripes(), image, 1, ranks) for ranks in (corner(), -corner()))
    assert right.inserted > 0.8
    assert wrong.inserted < 0.2


def test_curves_go_between_the_image_and_the_empty_canvas():
    curves = deletion_insertion(Corner(), white(), 1, np.random.default_rng(0).random((16, 16)), steps=4)
    whole, empty = (Corner()(x[None]).softmax(1)[0, 1].item() for x in (white(), 0 * white()))
    np.testing.assert_allclose(curves.deletion[[0, -1]], [whole, empty], rtol=1e-5)
    assert (np.diff(curves.deletion) < 0).all()
    assert curves.insertion[-1] == pytest.approx(whole)


def test_insertion_begins_with_an_image_blurred_by_a_twentieth_of_its_side():
    image = torch.from_numpy(corner()).expand(3, 16, 16)
    blurred = torch.from_numpy(gaussian_filter(corner(), 16 / 20)).expand(3, 16, 16)
    begun = deletion_insertion(Corner(), image, 1, corner()).insertion[0]
    assert begun == pytest.approx(Corner()(blurred[None]).softmax(1)[0, 1].item(), abs=1e-5)


def test_curves_are_of_the_probabilities_that_predict_gives():
    net = Corner()
    sharp = deletion_insertion(net, white(), 1, corner())
    net.temperature = 3.0
    soft = deletion_insertion(net, white(), 1, corner())
    with torch.no_grad():
        assert soft.deletion[0] == pytest.approx((net(white()[None]) / 3).softmax(1)[0, 1].item())
    assert soft.deletion[0] < sharp.deletion[0]


def test_pixels_of_the_same_value_go_in_random_order():
    flat = deletion_insertion(Corner(), white(), 1, np.zeros((16, 16)), steps=2)
    half = Corner()(white()[None] / 2).softmax(1)[0, 1].item()
    assert flat.deletion[1] == pytest.approx(half, abs=0.15)  # not the upper half, which holds the corner


def test_the_area_is_that_under_the_curve():
    curves = faithfulness.Curves(deletion=np.array([1.0, 0.5, 0.0]), insertion=np.array([0.0, 1.0, 1.0]))
    assert curves.deleted == pytest.approx(0.5)
    assert curves.inserted == pytest.approx(0.75)


# ---- ROAD


def test_a_class_rests_on_the_pixels_that_a_true_map_marks():
    dark = white()
    dark[:, 8:, :] = dark[:, :, 8:] = 0  # what the corner is filled in from
    right, wrong = (road(Corner(), dark, 1, ranks, shares=(0.25, 0.5)) for ranks in (corner(), -corner()))
    assert right.score > 0.4
    assert wrong.score == pytest.approx(-right.score, abs=0.05)
    assert right.shares == (0.25, 0.5)
    assert right.most.shape == right.least.shape == (2,)
    assert str(right) == f"ROAD {right.score:+.3f}"


def test_a_hole_is_filled_in_from_around_it():
    """A slope is in each place the mean of its neighbours, so it is the same afterwards, but for the noise."""

    class Kept(nn.Module):
        def forward(self, x):
            self.seen = x
            return torch.zeros(len(x), 2)

    net, slope = Kept(), torch.arange(16.0).expand(3, 16, 16).clone()
    hole = np.zeros((16, 16), np.float32)
    hole[4:12, 4:12] = 1
    road(net, slope, 0, hole, shares=(0.25,))
    assert (net.seen[0] - slope).abs().amax() < 6 * faithfulness.NOISE
    assert (net.seen[0] - slope)[:, 4:12, 4:12].abs().min() > 0
    assert torch.equal(net.seen[0][:, :4], slope[:, :4])


def test_road_gives_the_same_each_time_and_needs_something_to_fill_in_from():
    one, two = (road(Corner(), white(), 1, corner()) for _ in range(2))
    assert np.array_equal(one.most, two.most)
    for shares in ((0.5, 1.0), (0.0,), ()):
        with pytest.raises(InputError, match="must be above 0 and below 1, each"):
            road(Corner(), white(), 1, corner(), shares)
    nearly = road(Corner(), white(), 1, corner(), np.array([0.9999]))  # of so few pixels that would be all
    assert nearly.least == pytest.approx(road(Corner(), white(), 1, corner(), (255 / 256,)).least)


@pytest.mark.parametrize("trial", [deletion_insertion, road])
def test_a_map_of_another_size_than_its_image_is_told(trial):
    for x, ranks in ((white(), corner()[:8]), (white()[None], corner()), (white(), corner()[None])):
        with pytest.raises(InputError, match=r"an image \(C, H, W\) and its map \(H, W\) are wanted, not"):
            trial(Corner(), x, 1, ranks)
    assert str(trial(Corner(), white(), 1, torch.from_numpy(corner()))) == str(trial(Corner(), white(), 1, corner()))


@pytest.mark.parametrize("trial", [deletion_insertion, road])
def test_a_map_without_numbers_and_a_class_that_is_none_are_told(trial):
    with pytest.raises(InputError, match="the map holds NaN"):
        trial(Corner(), white(), 1, np.where(corner() > 0, np.nan, 0))
    for target in (2, -1):
        with pytest.raises(InputError, match=f"class {target} is out of range: the net knows 2, counted from 0"):
            trial(Corner(), white(), target, corner())
    for target in ("1", 1.0, None):
        with pytest.raises(InputError, match="one class, a whole number, is wanted"):
            trial(Corner(), white(), target, corner())


def test_there_is_at_least_a_step():
    with pytest.raises(InputError, match="steps is 0, but must be a whole number of at least 1"):
        deletion_insertion(Corner(), white(), 1, corner(), steps=0)


# ---- random weights


def samples(data_root, every):
    """SqueezeNet with real weights, and some photos as it sees them, with their classes."""
    if not (os.environ.get("CNNZOO_WEIGHTS") and (data_root / "imagenet_samples").is_dir()):
        pytest.skip("CNNZOO_WEIGHTS or CNNZOO_DATA do not say where real weights and imagenet_samples lie")
    net = cnnzoo.create("squeezenet1_1", "caffe_in1k").eval()
    files = sorted(Path(data_root, "imagenet_samples").glob("*.jpg"))[::every]
    truth = torch.tensor([int(file.name.partition("_")[0]) for file in files])
    return net, torch.stack([net.preprocessing(file) for file in files]), truth


def test_maps_of_what_a_net_has_learned_go_with_its_weights(data_root):
    """In small what scripts/benchmark_visualize.py measures."""
    net, x, _ = samples(data_root, every=125)
    methods = {
        "gradient": gradients.gradient,
        "integrated": partial(gradients.integrated, steps=1),
        "gradcam": partial(maps_of, method="gradcam", layer="stage3"),
        "guided": gradients.guided,
    }
    with untouched(net) as net:
        target = net(x).argmax(1)
        told = {name: sanity(net, x, target, method).correlation.mean(1) for name, method in methods.items()}
    for name in ("gradient", "integrated", "gradcam"):
        assert abs(told[name][-1]) < 0.3, name
    assert (told["guided"] > told["gradient"]).all()  # it rather shows the image


def test_a_method_may_be_named(data_root):
    net, x, truth = samples(data_root, every=125)
    net.train()
    with untouched(net) as still:
        given = sanity(still, x, truth, partial(maps_of, method="gradcam", layer="stage3"))
        pointed = pointing(still, x, truth, gradients.gradient, trials=4)
    np.testing.assert_array_equal(sanity(net, x, truth, "gradcam").correlation, given.correlation)
    assert pointing(net, x, truth, "gradient", trials=4) == pointed
    assert net.training
    for judge in (sanity, partial(pointing, trials=1)):
        with pytest.raises(InputError, match="unknown method 'gradcan'; did you mean gradcam"):
            judge(net, x, truth, "gradcan")


def test_classes_may_be_a_list(random_net):
    net, x, target = random_net
    listed = (target % 2).tolist()
    found = sanity(net, x, listed, "gradient").correlation
    np.testing.assert_array_equal(found, sanity(net, x, target % 2, "gradient").correlation)
    for judge in (sanity, partial(pointing, trials=1)):
        for wrong in (1, listed[:-1], [0.5] * len(x), ["1"] * len(x), None):
            with pytest.raises(InputError, match=f"wanted for each of {len(x)} images"):
                judge(net, x, wrong, "gradient")
        for wrong in (10, -1):
            for method in ("gradient", "gradcam", "occlusion"):
                with pytest.raises(InputError, match=f"class {wrong} is out of range: the net knows 10"):
                    judge(net, x, [0, wrong], method)


def test_wrong_numbers_and_methods_of_the_trials_are_told(random_net):
    net, x, _ = random_net
    for judge in (partial(sanity, net, x, [0, 1]), partial(pointing, net, x, [0, 1], trials=1)):
        with pytest.raises(InputError, match="seed is -1, but must be a whole number of at least 0"):
            judge(maps="gradient", seed=-1)
        with pytest.raises(InputError, match="maps are a method's name or a function, not None"):
            judge(maps=None)
    with pytest.raises(InputError, match="trials is 0, but must be a whole number of at least 1"):
        pointing(net, x, [0, 1], "gradient", trials=0)
    with pytest.raises(InputError, match=r"seed is 0\.5, but must be a whole number of at least 0"):
        road(Corner(), white(), 1, corner(), seed=0.5)
    for shares in ("0.5", None, ["some"]):
        with pytest.raises(InputError, match="must be above 0 and below 1, each"):
            road(Corner(), white(), 1, corner(), shares)


@pytest.fixture
def random_net():
    """A net, images for it, and its answers."""
    torch.manual_seed(0)
    net, x = cnnzoo.create("resnet20").eval(), torch.randn(2, 3, 16, 16)
    return net, x, net(x).argmax(1)


def test_weights_go_from_the_head_down(random_net):
    seen = []

    def look(net, x, target):
        seen.append({name: tensor.clone() for name, tensor in net.state_dict().items()})
        return gradients.gradient(net, x, target)

    net, x, target = random_net
    with untouched(net) as net:
        told = sanity(net, x, target, look)
    assert told.layers == ("head", "stage3", "stage2", "stage1", "stem")
    assert told.correlation.shape == (5, 2)
    assert [line.split()[0] for line in str(told).splitlines()] == list(told.layers)
    for place, changed in enumerate(("fc", "layer3.2.conv2", "layer2.0.conv1", "layer1.1.conv1", "conv1"), start=1):
        name = f"{changed}.weight"
        assert torch.equal(seen[place - 1][name], seen[0][name])
        assert not torch.equal(seen[place][name], seen[0][name])


def test_maps_of_the_image_alone_are_found_out(random_net):
    net, x, target = random_net
    with untouched(net) as net:
        told = sanity(net, x, target, lambda net, x, target: x[:, 0])
    np.testing.assert_allclose(told.correlation, 1)


def test_a_net_from_elsewhere_is_judged_once_it_is_registered(random_net):
    def plain():
        layers = {"conv": nn.Conv2d(3, 4, 3), "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
        return nn.Sequential(OrderedDict(layers, fc=nn.Linear(4, 2)))

    _, x, target = random_net
    with pytest.raises(InputError, match="a Sequential is not of the registry, so its stages are not known"):
        sanity(plain(), x, target % 2, "gradient")
    stages = (cnnzoo.Stage("stage1", ("conv",), (4, 14, 14)),)
    cnnzoo.register("guest", input_size=(3, 16, 16), num_classes=2, head="fc", first_conv="conv", stages=stages)(plain)
    told = sanity(cnnzoo.create("guest"), x, target % 2, "gradient")
    cnnzoo.unregister("guest")
    assert told.layers == ("head", "stage1")
    assert (told.correlation < 0.99).all()


def test_the_net_keeps_its_weights(random_net):
    net, x, target = random_net
    before, state = {name: tensor.clone() for name, tensor in net.state_dict().items()}, torch.random.get_rng_state()
    with untouched(net) as still:
        sanity(still, x, target, gradients.gradient)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


# ---- pointing


def patches():
    """One image of each of two classes: bright in the middle, dark in the middle."""
    x = torch.zeros(2, 1, 8, 8)
    x[0, :, 3:5, 3:5], x[1, :, 3:5, 3:5] = 1, -1
    return x, torch.tensor([0, 1])


def test_who_finds_the_class_points_at_its_half():
    def knows(net, x, target):
        return x[:, 0] * (1 - 2 * target)[:, None, None]

    told = pointing(nn.Flatten(), *patches(), knows, trials=20)
    assert told.share == 1
    assert str(told) == "20 of 20 maps fall on the right half (100.0%), 20 peak there"


def test_who_finds_no_class_points_at_either_half():
    def guesses(net, x, target):
        return x[:, 0].abs() + torch.arange(16) / 100  # always on the right

    assert 0.2 < pointing(nn.Flatten(), *patches(), guesses, trials=60).share < 0.8
    nothing = pointing(nn.Flatten(), *patches(), lambda net, x, target: 0 * x[:, 0], trials=5)
    assert (nothing.hits, nothing.peaks) == (0, 0)


def test_a_peak_may_lie_on_the_other_half():
    def loud(net, x, target):
        own = x[:, 0] * (1 - 2 * target)[:, None, None]
        own[:, 0, 0], own[:, 0, -1] = 2 * (own[:, :, 8:].max() > 0), 2 * (own[:, :, :8].max() > 0)
        return own

    told = pointing(nn.Flatten(), *patches(), loud, trials=10)
    assert (told.hits, told.peaks) == (10, 0)


def test_pointing_needs_two_classes():
    x, _ = patches()
    with pytest.raises(InputError, match="at least two classes"):
        pointing(nn.Flatten(), x, torch.zeros(2, dtype=torch.int64), gradients.gradient, trials=1)


def test_grad_cam_points_at_the_class_in_real_photos(data_root):
    """A few of the trials of scripts/benchmark_visualize.py."""
    net, x, truth = samples(data_root, every=25)
    with untouched(net) as net:
        right = net(x).argmax(1) == truth
        assert right.sum() >= 8
        told = pointing(net, x[right], truth[right], partial(maps_of, method="gradcam", layer="stage3"), trials=12)
    assert told.share >= 0.9
