"""Weights as pictures: the first layer's in colour, deeper ones by channel, a linear one's as an image."""

import numpy as np
import pytest
import torch
from torch import nn

import cnnzoo
from cnnzoo.errors import InputError
from cnnzoo.visualize import filters


def kernels_of(*colours):
    """Filters of 3x3 that weigh the colours of each place alike."""
    return torch.tensor(colours)[:, :, None, None].expand(-1, -1, 3, 3)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return cnnzoo.create("resnet20")


def with_first_kernels(net, kernels):
    with torch.no_grad():
        net.conv1.weight.zero_()
        net.conv1.weight[: len(kernels)] = kernels
    return net


def test_the_first_layer_is_drawn_in_colour_as_it_is(net):
    result = filters(net)
    assert result.layer == "conv1"
    assert np.array_equal(result.kernels, net.conv1.weight.detach().numpy())
    assert result.order.tolist() == [*range(16)]
    assert str(result) == "16 filters of 3x3 in colour, layer conv1 of resnet20"


def test_grey_is_zero_and_the_largest_weight_of_all_has_the_full_colour(net):
    net = with_first_kernels(net, kernels_of((2.0, 0.0, -2.0), (1.0, 0.0, 0.0)))
    picture = filters(net).picture()
    assert picture[1, 1].tolist() == [255, 128, 0]
    assert picture[1, 5].tolist() == [191, 128, 128]
    each = filters(net, scale="each").picture()
    assert each[1, 1].tolist() == [255, 128, 0]
    assert each[1, 5].tolist() == [255, 128, 128]
    assert each[1, 9].tolist() == [128, 128, 128]  # a filter of zeros


def test_the_largest_come_first(net):
    result = filters(net, sort="norm")
    norms = np.linalg.norm(result.kernels.reshape(16, -1), axis=1)
    assert (np.diff(norms) <= 0).all()
    assert np.array_equal(result.kernels, net.conv1.weight.detach().numpy()[result.order])


def test_grey_filters_come_before_coloured_ones_and_opponent_colours_stand_together(net):
    yellow, blue, red, cyan = (1.0, 1.0, -2.0), (-1.0, -1.0, 2.0), (2.0, -1.0, -1.0), (-2.0, 1.0, 1.0)
    grey, white = (1.0, 1.0, 1.0), (3.0, 3.0, 3.0)
    net = with_first_kernels(net, kernels_of(yellow, red, grey, blue, cyan, white))
    order = filters(net, sort="hue").order[[0, 1, *range(-4, 0)]].tolist()
    assert order[:2] == [5, 2]
    assert {frozenset(order[2:4]), frozenset(order[4:])} == {frozenset({0, 3}), frozenset({1, 4})}


def test_a_deeper_layer_has_a_row_for_each_filter_and_a_column_for_each_channel(net):
    result = filters(net, "layer1.0.conv1")
    assert result.kernels.shape == (16, 16, 3, 3)
    picture = result.picture()
    assert picture.shape == (16 * 4 + 1, 16 * 4 + 1, 3)
    largest = np.unravel_index(np.abs(result.kernels).argmax(), result.kernels.shape)
    down, across = (1 + 4 * largest[0] + largest[2], 1 + 4 * largest[1] + largest[3])
    assert picture[down, across].tolist() in ([0, 0, 0], [255, 255, 255])


def test_of_many_some_are_drawn_and_that_is_said(net):
    result = filters(net, "layer3.1.conv1")
    assert result.kernels.shape == (64, 64, 3, 3)
    assert result.picture().shape == (32 * 4 + 1, 32 * 4 + 1, 3)
    assert "64 filters of 3x3 by their 64 channels (of which 32 by 32 are drawn)" in str(result)


def test_a_stage_means_its_first_convolution(net):
    assert filters(net, "stage3").layer == "layer3.0.conv1"
    assert filters(net, "layer2.1").layer == "layer2.1.conv1"


def test_a_convolution_by_a_table_shows_its_connections():
    assert filters("lenet5_1998", "c3").kernels.shape == (60, 1, 5, 5)


def test_half_weights_are_drawn_too_and_stay_what_they_are(net):
    net.bfloat16()
    assert filters(net).kernels.dtype == np.float32
    assert net.conv1.weight.dtype == torch.bfloat16


def test_units_that_see_the_image_are_drawn_as_images():
    net = cnnzoo.create("mlp", image_size=8, in_chans=3)
    net.preprocessing = cnnzoo.preprocessing("resnet20").__class__(8, 8, (0.0,) * 3, (1.0,) * 3)
    result = filters(net)
    assert result.kernels.shape == (300, 3, 8, 8)
    assert np.array_equal(result.kernels.reshape(300, -1), net.fc1.weight.detach().numpy())
    assert filters("highway_fc10").kernels.shape == (50, 1, 28, 28)


def test_the_classes_of_a_chain_of_linear_layers_are_drawn_by_what_they_weigh_each_pixel():
    torch.manual_seed(0)
    net = cnnzoo.create("mlp")
    net.classes = tuple("abcdefghij")
    result = filters(net, "head")
    for relu in ("relu1", "relu2"):
        setattr(net, relu, nn.Identity())
    slopes = torch.autograd.functional.jacobian(net.eval(), torch.zeros(1, 1, 28, 28))[0, :, 0]
    assert np.allclose(result.kernels, slopes.numpy(), atol=1e-6)
    assert result.classes == net.classes
    assert result.picture().shape[0] > 2 * 140


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        (
            "highway_fc10",
            "head",
            r"fc is a linear layer that sees no image, and highway_fc10 .*has no convolution; take",
        ),
        ("resnet20", "head", r"fc is a linear layer that sees no image; take conv1"),
        ("resnet20", "layer1.0.relu1", r"layer layer1.0.relu1 has no weights .*some that have: conv1, layer1.0.conv1,"),
        ("resnet20", "conv2", r"unknown layer 'conv2'; did you mean conv1"),
    ],
)
def test_a_layer_without_pictures_is_explained(name, layer, message):
    with pytest.raises(InputError, match=message):
        filters(name, layer)


def test_only_colours_have_a_hue(net):
    with pytest.raises(InputError, match=r"layer1\.0\.conv1 see 16 channels, not 3 colours; sort them by norm"):
        filters(net, "layer1.0.conv1", sort="hue")
    with pytest.raises(InputError, match="unknown order 'norms'; did you mean norm"):
        filters(net, sort="norms")
    with pytest.raises(InputError, match="unknown scale 'all'; known: common, each"):
        filters(net, scale="all")


def test_the_picture_is_saved(net, tmp_path):
    filters(net).save(tmp_path / "filters.png")
    assert (tmp_path / "filters.png").read_bytes().startswith(b"\x89PNG")
