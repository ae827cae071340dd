"""Which images excite a channel most, and what a deconvnet shows in them."""

import re
from dataclasses import replace

import numpy as np
import photos
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from zoo_cases import FAMILIES, small

import cnnzoo
from cnnzoo import visualize
from cnnzoo.data.preprocess import Preprocess
from cnnzoo.errors import InputError
from cnnzoo.visualize import Subject, drawing, layer_of, untouched
from cnnzoo.visualize.deconv import carried_back
from cnnzoo.visualize.partway import maps_of, output_of, windows
from cnnzoo.visualize.strongest import BATCH, Album, strongest

CHAINS = {"alexnet", "alexnet_2012", "lenet5", "lenet5_1998", "mlp", "nin_cifar10", "plain18", "plain20", "vgg11"}


class Chain(nn.Module):
    """All that the paper's nets consist of."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn, self.relu1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        self.norm, self.pool = nn.LocalResponseNorm(3), nn.MaxPool2d(2)
        self.conv2, self.relu2 = nn.Conv2d(8, 6, 3, stride=2), nn.ReLU()
        self.fc = nn.Linear(6 * 49, 4)

    def forward(self, x):
        x = self.pool(self.norm(self.relu1(self.bn(self.conv1(x)))))
        return self.fc(self.relu2(self.conv2(x)).flatten(1))


@pytest.fixture
def chain():
    torch.manual_seed(0)
    net = Chain().eval()
    nn.init.uniform_(net.bn.weight, 0.5, 2.0)
    nn.init.uniform_(net.bn.running_var, 0.5, 2.0)
    return net


def by_hand(net, x, unit):
    """Zeiler and Fergus's deconvnet of `relu2`, layer by layer."""
    normed = net.norm(net.relu1(net.bn(net.conv1(x))))
    pooled, switches = functional.max_pool2d(normed, 2, return_indices=True)
    maps = net.relu2(net.conv2(pooled))
    signal = torch.zeros_like(maps)
    signal[unit] = maps[unit]
    signal = functional.conv_transpose2d(signal.relu(), net.conv2.weight, stride=2, output_padding=1)
    signal = functional.max_unpool2d(signal, switches, 2)
    scale = net.bn.weight / (net.bn.running_var + net.bn.eps).sqrt()
    return functional.conv_transpose2d(signal.relu() * scale[:, None, None], net.conv1.weight, padding=1)


def gradient(net, layer, x, channels, places):
    """The same by calculus."""
    x = x.clone().requires_grad_()
    maps = maps_of(net, layer, x)
    own = maps[(torch.arange(len(x)), channels, *places.T)]
    return torch.autograd.grad((own * own.detach()).sum(), x)[0]


def test_in_a_chain_of_layers_it_is_the_deconvnet_of_the_paper(chain, x):
    with untouched(chain) as chain, torch.no_grad():
        best = maps_of(chain, layer_of(chain, "relu2"), x).flatten(1).argmax(1)
        channels, places = best // 49, torch.stack([best % 49 // 7, best % 7], dim=1)
        signal, is_chain = carried_back(chain, layer_of(chain, "relu2"), x, channels, places)
        expected = by_hand(chain, x, (torch.arange(2), channels, *places.T))
    assert is_chain
    assert torch.allclose(signal, expected, atol=1e-6)
    assert signal.abs().max() > 0.01


def test_where_windows_of_a_pooling_overlap_what_comes_back_from_them_adds_up():
    net = nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(1, 1, 2, bias=False))
    nn.init.ones_(net[1].weight)
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1.0  # the largest of all four windows
    signal, _ = carried_back(net, layer_of(net, "1"), x, torch.tensor([0]), torch.tensor([[0, 0]]))
    assert signal[0, 0, 2, 2] == 4 * 4  # the activation is 4, and comes back by four ways
    assert signal.count_nonzero() == 1


class Functional(nn.Module):
    """Rectifies in the ways that leave no module for a hook."""

    def __init__(self, chain):
        super().__init__()
        self.chain = chain

    def forward(self, x):
        c = self.chain
        x = functional.relu(c.bn(c.conv1(x)), inplace=True)
        x = functional.max_pool2d(functional.local_response_norm(x, 3), 2)
        return c.fc(c.conv2(x).relu_().flatten(1))


def test_a_net_that_rectifies_by_functions_gets_the_same_rule(chain, x):
    fc, unit = layer_of(chain, "fc"), (x, torch.tensor([1, 2]), torch.zeros(2, 2, dtype=torch.int64))
    by_modules, _ = carried_back(chain, fc, *unit)
    by_functions, _ = carried_back(Functional(chain), fc, *unit)
    assert torch.equal(by_modules, by_functions)
    assert not torch.allclose(by_modules, gradient(chain, fc, *unit), rtol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_one_which_is_no_gradient_and_tells_channels_apart(name):
    net, x = small(name)
    with untouched(net) as net:
        layer = layer_of(net, None, x)
        maps = maps_of(net, layer, x)
        values, places = maps[0].flatten(1).max(1)
        first, second = values.argsort(descending=True)[:2]
        place = torch.stack([places // maps.shape[3], places % maps.shape[3]], dim=1)
        units = [(x, channel[None], place[channel][None]) for channel in (first, second)]
        (signal, is_chain), (other, _) = (carried_back(net, layer, *unit) for unit in units)
        assert not torch.allclose(signal, gradient(net, layer, *units[0]), rtol=1e-3)
    assert is_chain is (name in CHAINS)
    assert signal.isfinite().all()
    assert signal.std() > 0
    assert not torch.allclose(signal, other, rtol=1e-3)


# ---- the images that excite a channel most


class Spot(nn.Module):
    """Its only channel is the mean brightness of 4x4 squares, 2 apart."""

    num_classes = 1

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 1, 4, stride=2, bias=False), nn.ReLU()
        nn.init.constant_(self.conv.weight, 1 / 16)
        self.preprocessing = Preprocess(16, 16, (0.0,), (1.0,))

    def forward(self, x):
        return self.relu(self.conv(x)).amax((2, 3))


def spots(*brightness):
    """An image for each, dark but for a square whose top left corner is at row 4 and column 6."""
    images = []
    for value in brightness:
        image = np.zeros((16, 16), np.uint8)
        image[4:8, 6:10] = value
        images.append(image)
    return images


def test_the_images_that_excite_a_channel_most_come_first_with_the_part_that_does():
    found = visualize.deconv(Spot(), spots(51, 255, 0, 102), "relu", [0], top=3)
    assert found.pictures == (("image 1", "image 3", "image 0"),)
    assert found.activations == pytest.approx(np.array([[1.0, 0.4, 0.2]]), abs=1e-6)
    assert found.windows.tolist() == [[[4, 6, 8, 10]] * 3]
    assert found.pixels.shape == (1, 3, 16, 16, 1)
    assert (found.patches(found.pixels)[0, 0] == 255).all()
    assert np.allclose(found.patches(found.reconstructions)[0, :, :, :, 0], found.activations[0, :, None, None] / 16)
    assert found.reconstructions[0, 0].sum() == pytest.approx(1.0)  # and nothing elsewhere


def test_it_says_what_it_shows_and_draws_it(tmp_path):
    found = visualize.deconv(Spot(), spots(51, 255), "relu")
    assert str(found) == "what excites channel 0 of layer relu of Spot, by a deconvnet; 2 images"
    found.save(tmp_path / "spots.png")
    assert np.asarray(Image.open(tmp_path / "spots.png")).std() > 0
    titles = [axes.get_title() for axes in found.figure().axes]
    most, least = (drawing.brief(value) for value in found.activations[0])
    assert titles[:2] == ["channel 0", f"activations {most} to {least}"]
    assert most != least
    assert "by a deconvnet's rules, through branches;" in str(replace(found, is_chain=False))


def test_images_batch_by_batch_are_found_as_all_at_once():
    torch.manual_seed(0)
    subject = Subject.open(cnnzoo.create("lenet5"))
    pictures = [photos.picture(place % 3, place) for place in range(2 * BATCH + 5)]
    album = Album(pictures, subject)
    with untouched(subject.net) as net, torch.no_grad():
        found = strongest(net, layer_of(net, "c3"), album, 4)
        maps = net.c3(net.s2(net.tanh1(net.c1(subject.normalised(album.take(range(len(pictures))))))))
    best = maps.amax((2, 3)).sort(dim=0, descending=True)
    assert np.allclose(found.activations, best.values[:4].T, atol=1e-6)
    assert np.array_equal(found.images, best.indices[:4].T)
    rows, columns = np.moveaxis(found.places, 2, 0)
    assert np.allclose(maps.numpy()[found.images, np.arange(16)[:, None], rows, columns], found.activations)


def test_a_data_set_is_looked_through_by_its_name():
    found = visualize.deconv("lenet5", "digits", "stage1", top=2)
    assert found.images == 1797
    assert found.channels.shape == (6,)
    assert all(re.fullmatch(r"digits/\d+", name) for names in found.pictures for name in names)
    assert "lenet5 with random weights" in str(found)
    assert (np.diff(found.activations[:, 0]) <= 0).all()


def test_frozen_nets_of_half_precision_work_and_are_left_alone():
    torch.manual_seed(0)
    net = cnnzoo.create("resnet20").to(torch.bfloat16).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = visualize.deconv(net, [photos.picture(0, 0)], "stage1")
    assert found.reconstructions.dtype == np.float32
    assert found.reconstructions.std() > 0
    assert net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


# ---- what a place sees


@pytest.mark.parametrize(
    ("place", "window"), [((0, 0), (0, 0, 7, 7)), ((5, 4), (7, 5, 14, 12)), ((15, 15), (25, 25, 32, 32))]
)
def test_windows_reach_as_far_as_a_place_sees_and_not_over_the_edge(place, window):
    net = nn.Sequential(nn.Conv2d(1, 1, 3, stride=2, padding=1), nn.Conv2d(1, 1, 3, padding=1))
    assert windows(net, layer_of(net, "1"), torch.zeros(1, 1, 32, 32), np.array(place)).tolist() == list(window)


def test_behind_what_mixes_all_places_a_window_is_the_whole_image():
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(1, 2, 1))
    assert windows(net, layer_of(net, "1"), torch.zeros(1, 1, 9, 12), np.array([0, 0])).tolist() == [0, 0, 9, 12]


def test_what_lies_behind_a_layer_is_not_computed():
    class Fails(nn.Module):
        def forward(self, x):
            raise AssertionError

    net = nn.Sequential(nn.Conv2d(1, 2, 1), Fails())
    assert output_of(net, layer_of(net, "0"), torch.zeros(1, 1, 4, 4)).shape == (1, 2, 4, 4)
    assert not net[0]._forward_hooks
    with pytest.raises(AssertionError):
        output_of(net, layer_of(net, "1"), torch.zeros(1, 1, 4, 4))
    assert not net[1]._forward_hooks


# ---- wrong input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "rleu"}, r"unknown layer 'rleu'; did you mean relu\?"),
        ({"channels": [1]}, "channel 1 is out of range: relu has 1, counted from 0"),
        ({"channels": []}, "no channel is named"),
        ({"top": 0}, "top is 0, but must be a whole number of at least 1"),
    ],
    ids=str,
)
def test_wrong_wishes_are_told(options, message):
    with pytest.raises(InputError, match=message):
        visualize.deconv(Spot(), spots(51), **{"layer": "relu"} | options)


def test_a_layer_that_takes_no_part_is_told():
    net = Spot()
    net.spare = nn.ReLU()
    with pytest.raises(InputError, match="layer spare takes no part in the net's answer"):
        visualize.deconv(net, spots(51), "spare")


def test_files_that_cannot_be_read_are_left_out_and_told(tmp_path):
    Image.fromarray(spots(255)[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no image")
    told = []
    found = visualize.deconv(Spot(), tmp_path, "relu", tell=told.append)
    assert [[name.rpartition("/")[2] for name in names] for names in found.pictures] == [["good.png"]]
    assert found.images == 1
    assert told == [f"1 image left out that cannot be read; {tmp_path / 'bad.png'}: it is not an image"]
    with pytest.raises(InputError, match=r"bad\.png: it is not an image"):
        visualize.deconv(Spot(), tmp_path / "bad.png", "relu")


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(InputError, match="holds no images"):
        visualize.deconv(Spot(), tmp_path)


def test_the_command_draws_and_says_what(tmp_path, cli, fails):
    out = tmp_path / "deconv.png"
    line = ["visualize", "deconv", "lenet5", "digits", "--layer", "stage2", "--channels", "3,1", "--top", "4"]
    code, said, _ = cli(*line, "--out", out)
    assert code == 0
    assert said == (
        "what excites channels 3, 1 of layer stage2 of lenet5 with random weights, by a deconvnet; "
        f"1,797 images: {out}\n"
    )
    assert out.exists()
    why = fails(*line, "--channels", "three", "--out", out)
    assert "--channels is three, but must be whole numbers between commas, such as 2,4" in why
