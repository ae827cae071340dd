"""Nets cut off past their stages: the whole net's maps, in either mode, in copies, threads and other people's tools."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
from torch import fx

import cnnzoo


def test_the_description_answers_for_single_stages_as_timms_does():
    ours, theirs = (
        make("resnet18", features_only=True, out_indices=(1, 3)).feature_info
        for make in (cnnzoo.create, timm.create_model)
    )
    for ask in ("channels", "reduction"):
        for idx in (None, 0, 4, (2, 3)):
            assert getattr(ours, ask)(idx) == getattr(theirs, ask)(idx)
    for idx in (None, 2, (0, 1)):
        assert ours.get_dicts(["num_chs", "reduction"], idx) == theirs.get_dicts(["num_chs", "reduction"], idx)
    assert (ours.out_indices, len(ours)) == ([1, 3], 5)


def values_of(net, x, names):
    """What the modules `names` answer in a forward pass of the whole net."""
    seen = {}
    for name in names:
        net.get_submodule(name).register_forward_hook(lambda m, given, out, name=name: seen.__setitem__(name, out))
    net.forward_features(x)
    return [seen[name] for name in names]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("densenet40", {"memory_efficient": True, "drop_rate": 0.1}),
        ("fractalnet20", {}),
        ("highway_mnist", {}),
        ("googlenet", {}),
        ("lenet5_1998", {}),
        ("resnet20", {"drop_path_rate": 0.5}),
        ("vgg11_bn", {}),
    ],
)
def test_maps_are_the_whole_nets_in_either_mode_and_in_copies(name, options):
    torch.manual_seed(0)
    net = cnnzoo.create(name, **options)
    torch.manual_seed(0)
    maps = cnnzoo.create(name, features_only=True, **options)
    ends = [stage.modules[-1] for stage in net.entry.stages if len(stage.shape) == 3]
    channels, side, _ = net.entry.input_size
    side = min(side, max(net.min_size, 16))
    for training, images in (
        (True, torch.randn(2, channels, side, side)),
        (False, torch.randn(1, channels, side, side)),
    ):
        net.train(training)
        maps.train(training)
        copies = [maps, copy.deepcopy(maps), copy.deepcopy(pickle.loads(pickle.dumps(maps)))]
        torch.manual_seed(1)
        expected = values_of(net, images, ends)
        for each in copies:
            torch.manual_seed(1)
            assert all(torch.equal(*pair) for pair in zip(each(images), expected, strict=True))
            assert each.feature_info.channels() == maps.channels
            assert type(each).__name__ == "FeatureMaps"


def test_maps_hold_nothing_that_they_do_not_compute():
    net = cnnzoo.create("googlenet", features_only=True)
    assert not [name for name in net.state_dict() if name.startswith(("fc.", "aux", "net."))]
    sum(f.mean() for f in net(torch.randn(2, 3, 64, 64))).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    stem = cnnzoo.create("resnet50", features_only=True, out_indices=(0,))
    assert sum(parameter.numel() for parameter in stem.parameters()) == 9_536


def test_threads_may_share_a_net_that_gives_maps():
    net = cnnzoo.create("resnet20", features_only=True).eval()
    images = [torch.full((1, 3, 32, 32), float(number)) for number in range(4)] * 5
    with torch.no_grad():
        expected = [net(x) for x in images]
    with ThreadPoolExecutor(4) as pool, torch.no_grad():
        given = list(pool.map(torch.no_grad()(net), images))
    assert all(
        torch.allclose(*pair, atol=1e-5) for one in zip(given, expected, strict=True) for pair in zip(*one, strict=True)
    )


def test_other_tools_take_a_net_that_gives_maps():
    net, x = cnnzoo.create("resnet20", features_only=True).eval(), torch.randn(1, 3, 32, 32)
    for form in (fx.symbolic_trace(net), torch.compile(net, backend="eager", fullgraph=True)):
        assert all(torch.equal(*pair) for pair in zip(form(x), net(x), strict=True))


def test_a_net_that_gives_maps_has_a_fast_form():
    net, x = cnnzoo.create("resnet20", features_only=True).eval(), torch.randn(4, 3, 32, 32)
    for given, expected in zip(cnnzoo.optimize(net, "fp32")(x), net(x), strict=True):
        torch.testing.assert_close(given, expected, atol=1e-3, rtol=1e-3)
    with pytest.raises(cnnzoo.InputError, match="gives several answers to an image, and int8 is for one"):
        cnnzoo.optimize(net, "int8", calibration=x)


def test_single_layers_are_chosen_by_the_papers_name_or_their_path():
    """As style transfer and perceptual losses want them (Gatys et al. 2016, section 2)."""
    maps = cnnzoo.create("vgg11", features_only=True, out_indices=("conv4_2", "features.14", "stage2")).eval()
    net = cnnzoo.create("vgg11").eval()
    assert not net.load_state_dict(maps.state_dict(), strict=False).unexpected_keys
    x = torch.randn(1, 3, 64, 64)
    expected = [net.features[:14](x), net.features[:15](x), net.features[:6](x)]
    assert all(torch.equal(*pair) for pair in zip(maps(x), expected, strict=True))
    assert (maps.names, maps.channels) == (["conv4_2", "features.14", "stage2"], [512, 512, 128])
    assert maps.shapes == [(512, 28, 28), (512, 28, 28), (128, 56, 56)]
    assert (maps.feature_info.out_indices, maps.feature_info.reduction()) == ([5, 6, 1], [8, 8, 4])
    assert max(int(name.split(".")[1]) for name in maps.state_dict()) == 13


def test_a_layer_may_lie_within_another_that_is_chosen():
    maps = cnnzoo.create("resnet18", features_only=True, out_indices=("layer3.0.conv1", "stage3", "layer3.0"))
    assert maps.shapes == [(256, 14, 14)] * 3
    assert not [name for name in maps.state_dict() if name.startswith(("net.", "layer4", "fc"))]


@pytest.mark.parametrize(
    ("name", "layer", "said"),
    [
        ("vgg11", "head", "out_indices has 'head', whose outputs are no maps"),
        ("vgg11", "conv4_3", "out_indices has 'conv4_3', but there are 5 stages: .*; did you mean conv4_2"),
        ("googlenet", "aux1.conv", "layer aux1.conv takes no part in the net's answer; name another"),
    ],
)
def test_a_layer_without_maps_is_refused(name, layer, said):
    with torch.device("meta"), pytest.raises(cnnzoo.InputError, match=said):
        cnnzoo.create(name, features_only=True, out_indices=(layer,))
