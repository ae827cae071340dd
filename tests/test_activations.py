"""What layers make of pictures: their maps, the zeros that ReLUs leave, one picture's walk through the whole net."""

import numpy as np
import photos
import pytest
import torch
from torch import nn
from zoo_cases import FAMILIES, side_of

import cnnzoo
from cnnzoo.errors import InputError
from cnnzoo.visualize import activations, drawing, filters, sparsity, walk
from cnnzoo.visualize.gradients import AT_ONCE

PICTURES = [np.asarray(photos.picture(kind, 0)) for kind in range(3)]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return cnnzoo.create("resnet20").eval()


# ---- feature maps


def test_the_maps_are_those_of_the_stages(net):
    result = activations(net, PICTURES)
    maps = cnnzoo.create("resnet20", features_only=True).eval()
    maps.load_state_dict({name: net.state_dict()[name] for name in maps.state_dict()})
    x = torch.stack([cnnzoo.preprocessing(net)(picture) for picture in PICTURES])
    with torch.no_grad():
        expected = dict(zip(maps.names, maps(x), strict=True))
    assert list(result.maps) == list(expected)
    assert all(np.array_equal(result.maps[stage], expected[stage].numpy()) for stage in expected)
    assert result.pictures == ("image 0", "image 1", "image 2")


def test_the_strongest_channels_come_first(net):
    result = activations(net, PICTURES, ["stage2"])
    strength = np.abs(result.maps["stage2"]).mean((2, 3))
    for picture in range(3):
        order = result.strongest("stage2", picture)
        assert sorted(order) == [*range(32)]
        assert (np.diff(strength[picture][order]) <= 0).all()
    few = result.grid("stage2", 0, many=4)
    best = result.maps["stage2"][0, result.strongest("stage2", 0)[0]]
    assert few.shape == (2 * 17 + 1, 2 * 17 + 1, 3)
    brightest = np.unravel_index(best.argmax(), best.shape)
    assert few[1:17, 1:17].sum(2)[brightest] == few.sum(2)[1:17, 1:17].max()


def test_layers_past_the_flattening_are_drawn_as_one_mosaic():
    result = activations("lenet5", PICTURES, ["stage1", "stage4"])
    assert result.maps["stage4"].shape == (3, 84, 1, 1)
    assert result.grid("stage4").shape == (10, 10, 3)
    figure = result.figure()
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:3] == ["image 0", "stage1: 6 of 6, 14x14", "stage4: all 84, 1x1"]
    assert len(titles) == 9


def test_one_layer_may_be_named_alone(net):
    assert list(activations(net, PICTURES, "stage2").maps) == ["stage2"]


def test_many_pictures_go_through_batch_by_batch_and_the_first_are_drawn(net):
    most = []
    net.conv1.register_forward_hook(lambda module, inputs, output: most.append(len(output)))
    many = PICTURES * 10
    result, counted = activations(net, many, "stage2"), sparsity(net, many)
    assert max(most) <= AT_ONCE
    few, alone = activations(net, PICTURES, "stage2"), sparsity(net, PICTURES)
    assert np.allclose(result.maps["stage2"], np.tile(few.maps["stage2"], (10, 1, 1, 1)), atol=1e-5)
    assert counted.layers == alone.layers
    assert np.allclose(counted.zeros, np.tile(alone.zeros, 10), atol=1e-3)
    assert np.allclose(counted.silent, alone.silent)
    assert len(result.figure().axes) == 2 * drawing.DRAWN
    assert str(result).startswith(f"the strongest maps of the first {drawing.DRAWN} of 30 pictures, layers stage2")


def test_a_net_is_left_as_it_was(net):
    net.train().bfloat16()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert activations(net, PICTURES).maps["stage3"].dtype == np.float32
    sparsity(net, PICTURES)
    walk(net, PICTURES[0])
    assert net.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_a_layer_without_maps_is_refused():
    net = nn.Sequential(nn.Flatten(2), nn.Flatten(), nn.Linear(48, 2))
    net.preprocessing, net.num_classes = type(cnnzoo.preprocessing("resnet20"))(4, 4, (0.0,) * 3, (1.0,) * 3), 2
    with pytest.raises(InputError, match=r"layer 0 gives \(1, 3, 16\), which are no maps"):
        activations(net, PICTURES[:1], ["0"])
    with pytest.raises(InputError, match="neither stages nor a convolution; name a layer of it"):
        activations(net, PICTURES[:1])
    with pytest.raises(InputError, match="Sequential has no stages to walk through"):
        walk(net, PICTURES[0])
    with pytest.raises(InputError, match="unknown layer 'stage9'"):
        activations("resnet20", PICTURES, ["stage9"])


@pytest.mark.parametrize("name", FAMILIES)
def test_every_net_shows_its_filters_and_its_maps(name):
    torch.manual_seed(0)
    net = cnnzoo.create(name)
    result = activations(net, PICTURES[:2], size=side_of(net.entry, 40))
    assert list(result.maps) == [stage.name for stage in net.entry.stages]
    for stage in net.entry.stages:
        maps = result.maps[stage.name]
        assert maps.shape[:2] == (2, stage.shape[0])
        assert np.isfinite(maps).all()
        assert maps.std() > 0
        assert not np.array_equal(maps[0], maps[1])
    assert filters(net).picture().std() > 0


# ---- zeros


def set_bias(norm, value):
    """What BatchNorm gives is far above or below 0."""
    nn.init.zeros_(norm.weight)
    nn.init.constant_(norm.bias, value)


def test_zeros_are_counted_after_each_relu_in_the_order_in_which_they_run(net):
    set_bias(net.bn1, 1.0)
    set_bias(net.layer1[0].bn1, -1.0)
    with torch.no_grad():
        net.layer2[0].bn1.weight.zero_()
        net.layer2[0].bn1.bias.copy_(torch.tensor([1.0, -1.0] * 16))
    result = sparsity(net, PICTURES)
    assert result.layers[:2] == ("relu", "layer1.0.relu1")
    assert len(result.layers) == 19
    zeros, silent = (dict(zip(result.layers, figures, strict=True)) for figures in (result.zeros, result.silent))
    assert zeros["relu"].tolist() == [0, 0, 0]
    assert zeros["layer1.0.relu1"].tolist() == [1, 1, 1]
    assert silent["layer1.0.relu1"] == 1
    assert zeros["layer2.0.relu1"].tolist() == [0.5, 0.5, 0.5]
    assert silent["layer2.0.relu1"] == 0.5
    assert str(result).startswith("zeros after 19 ReLUs of resnet20, 3 pictures: 0% after relu, ")
    assert result.to_dict()["zeros"][1] == 1
    assert [line.get_label() for line in result.figure().axes[0].lines][1] == "channels that are 0 everywhere"


def test_a_channel_is_silent_only_if_no_picture_moves_it(net):
    alone = [sparsity(net, [picture]).silent for picture in PICTURES]
    together = sparsity(net, PICTURES).silent
    assert (together <= np.min(alone, axis=0) + 1e-6).all()


def test_a_relu_that_is_used_twice_counts_twice():
    class Twice(nn.Module):
        num_classes, preprocessing = 3, type(cnnzoo.preprocessing("resnet20"))(4, 4, (0.0,) * 3, (1.0,) * 3)

        def __init__(self):
            super().__init__()
            self.relu, self.anchor = nn.ReLU(), nn.Linear(1, 1)

        def forward(self, x):
            return self.relu(-1 - self.relu(1 + x)).mean((2, 3))

    result = sparsity(Twice(), PICTURES)
    assert result.layers == ("relu", "relu, call 2")
    assert result.zeros.tolist() == [[0, 0, 0], [1, 1, 1]]


def test_a_relu_that_is_a_function_counts_as_a_module_does():
    class Inner(nn.Module):
        def forward(self, x):
            return torch.relu(x)

    class Mixed(nn.Module):
        num_classes, preprocessing = 3, type(cnnzoo.preprocessing("resnet20"))(4, 4, (0.0,) * 3, (1.0,) * 3)

        def __init__(self):
            super().__init__()
            self.inner, self.six, self.anchor = Inner(), nn.ReLU6(), nn.Linear(1, 1)

        def forward(self, x):
            return self.six(-nn.functional.relu6(1 + self.inner((-1 - x).relu_()))).mean((2, 3))

    result = sparsity(Mixed(), PICTURES)
    assert result.layers == ("relu", "inner.relu", "relu, call 2", "six")
    assert result.zeros[:, 0].tolist() == [1, 1, 0, 1]


def test_a_net_without_relu_is_told():
    with pytest.raises(InputError, match="lenet5 with random weights has no ReLU"):
        sparsity("lenet5", PICTURES)


# ---- the walk


def test_a_walk_ends_in_what_predict_says(net):
    net.classes, net.temperature = tuple("abcdefghij"), 2.5
    result = walk(net, PICTURES[1])
    expected = cnnzoo.predict(net, [PICTURES[1]], precision="fp32")
    assert np.allclose(result.probabilities, expected.probabilities[0], atol=1e-6)
    assert [name for name, _ in result.top] == [name for name, _ in expected.top(5)[0]]
    assert str(result).startswith("image 0 through 4 stages of resnet20, taken for ")


def test_a_walk_draws_the_picture_every_stage_and_the_answer(net):
    titles = [axes.get_title() for axes in walk(net, PICTURES[1]).figure().axes]
    assert titles == ["image 0", "stem  16x32x32", "stage1  16x32x32", "stage2  32x16x16", "stage3  64x8x8", "answer"]


def test_a_walk_is_for_one_picture(net):
    with pytest.raises(InputError, match="a walk is for one picture, not for 3"):
        walk(net, PICTURES)


def test_a_net_without_a_head_has_no_answer_to_walk_to():
    with pytest.raises(InputError, match="resnet20 was made with num_classes=0, so it has no answer"):
        walk(cnnzoo.create("resnet20", num_classes=0), PICTURES[0])


def test_a_net_of_few_classes_has_few_answers():
    net = cnnzoo.create("resnet20", num_classes=2)
    assert len(walk(net, PICTURES[0]).top) == 2
