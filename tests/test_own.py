"""A user's own net: what its constructor sets stays, its facts are checked, its builder is not asked for more."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import cnnzoo
from cnnzoo import Stage
from cnnzoo.registry import unregister

FACTS = {"input_size": (1, 8, 8), "num_classes": 10}
BRIEF = {"epochs": 1, "compile": "off", "device": "cpu"}


@contextmanager
def registered(builder, name="guest", **facts):
    cnnzoo.register(name, **{**FACTS, **facts})(builder)
    try:
        yield name
    finally:
        unregister(name)


class Plain(nn.Module):
    def __init__(self, num_classes=10, in_chans=1, width=8):
        super().__init__()
        self.c1 = nn.Conv2d(in_chans, width, 3, padding=1)
        self.c2 = nn.Conv2d(width, width, 3, padding=1)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.fc(self.c2(self.c1(x).relu()).relu().mean((2, 3)))


# --- what the constructor made


class Masked(nn.Conv2d):
    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        mask = torch.ones(self.kernel_size)
        mask[-1] = 0
        self.register_buffer("mask", mask)
        self.gain = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x):
        return self._conv_forward(x, self.weight * self.mask * self.gain, self.bias)


class LayerScale(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels, 1, 1), 1e-6))

    def forward(self, x):
        return x + self.gamma * x


class Particular(cnnzoo.Net):
    """Much of it lies in values that no `reset_parameters` knows."""

    def __init__(self, num_classes=10, in_chans=1, drop_rate=0.0):
        super().__init__()
        self.in_chans = in_chans
        self.fixed = nn.Conv2d(in_chans, 8, 3, padding=1)
        self.masked = Masked(8, 8, 3, padding=1)
        self.normed = weight_norm(nn.Conv2d(8, 8, 3, padding=1))
        self.tied = nn.Conv2d(8, 8, 3, padding=1)
        self.tied.weight = self.masked.weight
        self.bn, self.scale = nn.BatchNorm2d(8), LayerScale(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.avgpool, self.dropout = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Dropout(drop_rate)
        self.fc = nn.Linear(8, num_classes)
        self.init_weights()
        nn.init.constant_(self.fixed.weight, 0.1)
        nn.init.zeros_(self.bn.weight)

    def init_weights(self):
        super().init_weights()
        nn.init.zeros_(self.fc.weight)

    def forward_features(self, x):
        x = self.scale(self.bn(self.tied(self.normed(self.masked(self.fixed(x))))))
        tokens = x.flatten(2).transpose(1, 2)
        return x + self.attention(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape)


def test_what_a_constructor_sets_stays():
    with registered(Particular) as name:
        junk = [torch.full((9,), 1e3) for _ in range(1000)]
        del junk
        torch.manual_seed(0)
        net = cnnzoo.create(name)
        torch.manual_seed(0)
        by_hand = Particular()
    assert all(
        torch.equal(*pair) for pair in zip(net.state_dict().values(), by_hand.state_dict().values(), strict=True)
    )
    assert net.masked.mask[-1].eq(0).all()
    assert net.masked.gain == 0.5
    assert net.fc.weight.eq(0).all()
    assert net.tied.weight is net.masked.weight


def test_weights_that_are_tied_stay_so_when_they_are_read(tmp_path):
    with registered(Particular) as name:
        saved = Particular()
        nn.init.constant_(saved.tied.weight, 0.25)
        torch.save(saved.state_dict(), tmp_path / "net.pth")
        net = cnnzoo.create(name, tmp_path / "net.pth")
    assert net.tied.weight is net.masked.weight
    assert net.tied.weight.eq(0.25).all()


class Lazy(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv, self.fc = nn.LazyConv2d(8, 3), nn.LazyLinear(num_classes)

    def forward(self, x):
        return self.fc(self.conv(x).relu().flatten(1))


def test_layers_that_wait_for_an_image_are_shown_one(tmp_path):
    with registered(Lazy, head="fc") as name:
        net = cnnzoo.create(name)
        assert (net.conv.in_channels, net.fc.in_features, net.training) == (1, 8 * 6 * 6, True)
        torch.save(net.state_dict(), tmp_path / "net.pth")
        assert len(cnnzoo.create(name, tmp_path / "net.pth").load_report.loaded) == 4


def test_layers_whose_image_was_none_for_them_are_named_when_weights_are_read(tmp_path):
    with registered(Lazy, input_size=(1, 2, 2)) as name:  # less than the kernel
        torch.save({"conv.weight": torch.zeros(8, 1, 3, 3)}, tmp_path / "net.pth")
        with pytest.raises(
            cnnzoo.InputError, match=r"guest does not know the size of fc\.weight, fc\.bias before it has seen"
        ):
            cnnzoo.create(name, tmp_path / "net.pth")


# --- facts


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        ({"head": "fcc"}, r"unknown head of guest 'fcc'; did you mean fc\?"),
        ({"first_conv": "cc"}, "unknown first_conv of guest 'cc'; known: c1, c2, fc"),
        ({"stages": (Stage("stem", ("c9",), (8, 8, 8)),)}, "unknown module of stem of guest 'c9'; known: c1, c2, fc"),
        (
            {"stages": (Stage("stem", ("c1",), (99, 8, 8)),)},
            r"stem of guest has the shape \(8, 8, 8\), but is registered with \(99, 8, 8\)",
        ),
    ],
)
def test_a_wrong_fact_is_told_when_the_net_is_built(facts, complaint):
    with registered(Plain, **facts) as name, pytest.raises(cnnzoo.InputError, match=complaint):
        cnnzoo.create(name)


def test_a_wrong_number_of_classes_is_told():
    with (
        registered(lambda: Plain(7)) as name,
        pytest.raises(cnnzoo.InputError, match="guest answers with 7 classes, but its num_classes is 10"),
    ):
        cnnzoo.create(name)


def test_shapes_follow_the_builders_own_options():
    with registered(Plain, stages=(Stage("stem", ("c1",), (8, 8, 8)),)) as name:
        maps = cnnzoo.create(name, features_only=True, width=4)
    assert (maps.channels, maps(torch.zeros(1, 1, 8, 8))[0].shape) == ([4], (1, 4, 8, 8))


def test_a_net_that_takes_other_images_than_its_entry_says_is_not_judged():
    with registered(Lazy, input_size=(1, 2, 2), stages=(Stage("stem", ("conv",), (99, 8, 8)),)) as name:
        assert cnnzoo.create(name).num_classes == 10


# --- builders that take little


def small(num_classes=10):
    return Plain(num_classes)


@pytest.mark.parametrize("builder", [small, Plain, lambda: Plain(), lambda in_chans=1: Plain(in_chans=in_chans)])
def test_a_builder_need_not_take_classes_and_channels(builder, tmp_path):
    with registered(builder, head="fc") as name:
        run = cnnzoo.train(
            {"model": name, "data": "digits", "run": tmp_path / "run", "train": BRIEF}, with_report=False
        )
        net = cnnzoo.load(run)
    assert (net.num_classes, net.in_chans) == (10, 1)


def test_images_are_brought_to_the_only_channels_that_a_net_takes(tmp_path):
    with registered(lambda num_classes=10: Plain(num_classes, 3), input_size=(3, 8, 8)) as name:
        run = cnnzoo.train(
            {"model": name, "data": "digits", "run": tmp_path / "run", "train": BRIEF}, with_report=False
        )
        net = cnnzoo.load(run)
    assert (net.in_chans, net.preprocessing.channels) == (3, 3)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            {"in_chans": 3},
            "guest cannot have in_chans 3: its builder has no argument in_chans, and its input_size says 1",
        ),
        (
            {"num_classes": 4},
            "guest cannot have num_classes 4: .* no argument num_classes, and its num_classes says 10",
        ),
    ],
)
def test_what_a_builder_does_not_take_must_be_what_its_entry_says(options, complaint):
    with registered(lambda: Plain(), head="fc") as name:
        with pytest.raises(cnnzoo.InputError, match=complaint):
            cnnzoo.create(name, **options)
        assert cnnzoo.create(name, num_classes=0).fc(torch.ones(1, 8)).shape == (1, 8)


# --- nets that nobody registered


def test_a_net_from_elsewhere_predicts_once_its_preprocessing_is_told():
    net = Plain(4, 3).eval()
    net.preprocessing = cnnzoo.preprocessing("resnet20")
    picture = np.zeros((40, 40, 3), np.uint8)
    assert cnnzoo.predict(net, [picture]).classes == ("0", "1", "2", "3")
    net.classes = ("oak", "elm", "ash", "yew")
    assert cnnzoo.predict(net, [picture]).classes == net.classes


def test_maps_of_a_net_without_stages_are_those_of_its_last_convolution():
    with registered(Plain) as name:
        assert list(cnnzoo.visualize.activations(name, [np.zeros((8, 8), np.uint8)]).maps) == ["c2"]


def test_pictures_for_a_net_of_other_channels_are_refused_in_words_that_are_true():
    net = cnnzoo.create("resnet20", in_chans=5)
    with pytest.raises(cnnzoo.InputError, match="images of 5 channels are wanted, but a picture has 3, or 1 if grey"):
        cnnzoo.preprocessing(net)(np.zeros((40, 40, 5), np.uint8))


def test_a_committee_of_nets_asks_for_run_folders():
    with pytest.raises(cnnzoo.InputError, match="is made of run folders, not an object of class Plain"):
        cnnzoo.Ensemble([Plain(), Plain()])


# --- feature maps


class Drawing(Plain):
    """In training it sometimes leaves a layer out, which torch.fx would decide once and for ever."""

    def forward(self, x):
        x = self.c1(x)
        if not self.training or torch.rand(()) < 0.5:
            x = self.c2(x)
        return self.fc(x.mean((2, 3)))


class Looking(Plain):
    """What it computes depends on the images' size, which torch.fx does not know."""

    def forward(self, x):
        x = self.c1(x)
        return self.fc(self.c2(x.relu() if x.shape[-1] > 4 else x).mean((2, 3)))


class InPlace(Plain):
    """A step of it has no result that anything uses."""

    def forward(self, x):
        x = self.c1(x)
        x.relu_()
        return self.fc(self.c2(x).mean((2, 3)))


@pytest.mark.parametrize("kind", [Plain, Drawing, Looking, InPlace])
def test_maps_are_those_of_the_net_itself(kind):
    stages = tuple(Stage(name, (name,), (8, 8, 8)) for name in ("c1", "c2"))
    with registered(kind, head="fc", stages=stages) as name:
        torch.manual_seed(0)
        maps = cnnzoo.create(name, features_only=True).eval()
        torch.manual_seed(0)
        net = cnnzoo.create(name).eval()
    assert hasattr(maps, "net") == (kind in (Drawing, Looking))
    x = torch.randn(2, 1, 8, 8)
    expected = []
    net.c2.register_forward_hook(lambda module, given, output: expected.append((given[0], output)))
    net(x)
    first, last = maps(x)
    assert torch.equal(last, expected[0][1])
    assert torch.equal(first if kind is Drawing else first.relu(), expected[0][0])


def test_maps_of_a_net_that_is_shown_channels_first_are_so_too():
    class Viewed(Plain):
        def forward(self, x):
            x = self.c1(x)
            return self.fc(self.c2(x.view(len(x), -1).view(x.shape)).mean((2, 3)))

    with registered(Viewed, stages=(Stage("c2", ("c2",), (8, 8, 8)),)) as name:
        maps = cnnzoo.create(name, features_only=True)
    images = torch.zeros(2, 1, 8, 8).to(memory_format=torch.channels_last)
    assert [f.shape for f in maps(images)] == [(2, 8, 8, 8)]
