"""The contract every net keeps, and the facts of its entry: for the whole registry on the meta device, then for the
smallest nets with real weights, then what single papers ask for.
"""

import math
from collections import Counter
from functools import cache
from types import SimpleNamespace

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from torch import fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.feature_extraction import create_feature_extractor
from zoo_cases import ALL, AUX, SMALL, SPATIAL, count, on_meta

import cnnzoo
from cnnzoo.models import _heads
from cnnzoo.models._lrn import local_response_norm

# Parameters and multiply-adds, from the papers' tables and the published implementations.
PUBLISHED = {
    "mlp": (266_610, 266_200),
    "lenet5": (61_706, 416_520),
    "lenet5_1998": (60_000, 326_520),
    "alexnet": (61_100_840, 714_188_480),
    "alexnet_2012": (60_965_224, 724_406_816),
    "alexnet_2012_single": (62_378_344, 1_135_256_096),
    "nin": (7_595_176, 1_100_188_800),
    "nin_cifar10": (966_986, 222_486_528),
    "vgg11": (132_863_336, 7_609_090_048),
    "vgg11_bn": (132_868_840, 7_609_090_048),
    "vgg13": (133_047_848, 11_308_466_176),
    "vgg13_bn": (133_053_736, 11_308_466_176),
    "vgg16": (138_357_544, 15_470_264_320),
    "vgg16_bn": (138_365_992, 15_470_264_320),
    "vgg19": (143_667_240, 19_632_062_464),
    "vgg19_bn": (143_678_248, 19_632_062_464),
    "squeezenet1_0": (1_248_424, 818_924_576),
    "squeezenet1_1": (1_235_496, 349_151_936),
    "googlenet": (6_624_904, 1_498_376_192),
    "googlenet_2014": (6_998_552, 1_582_671_872),
    "inception_v2": (11_194_984, 2_018_851_840),
    "inception_v3": (23_834_568, 5_713_216_096),
    "inception_v4": (42_679_816, 12_253_974_624),
    "inception_resnet_v1": (22_756_328, 6_206_361_696),
    "inception_resnet_v2": (55_843_464, 13_155_794_016),
    "xception": (22_855_952, 8_357_403_496),
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet50": (25_557_032, 4_089_184_256),
    "resnet50_2015": (25_557_032, 3_857_973_248),
    "resnet101": (44_549_160, 7_801_405_440),
    "resnet101_2015": (44_549_160, 7_570_194_432),
    "resnet152": (60_192_808, 11_513_626_624),
    "resnet152_2015": (60_192_808, 11_282_415_616),
    "plain18": (11_515_688, 1_794_805_760),
    "resnetv2_50": (25_549_352, 4_089_184_256),
    "resnetv2_101": (44_541_480, 7_801_405_440),
    "resnetv2_152": (60_185_128, 11_513_626_624),
    "resnext50_32x4d": (25_028_904, 4_230_479_872),
    "resnext101_32x8d": (88_791_336, 16_414_015_488),
    "resnext101_64x4d": (83_455_272, 15_460_270_080),
    "wide_resnet50_2": (68_883_240, 11_398_021_120),
    "wide_resnet101_2": (126_886_696, 22_753_050_624),
    "densenet121": (7_978_856, 2_834_161_664),
    "densenet161": (28_681_000, 7_727_907_072),
    "densenet169": (14_149_480, 3_359_843_328),
    "densenet201": (20_013_928, 4_291_365_888),
    "densenet264": (33_337_704, 5_751_653_376),
    "resnet20": (269_722, 40_551_040),
    "resnet32": (464_154, 68_862_592),
    "resnet44": (658_586, 97_174_144),
    "resnet56": (853_018, 125_485_696),
    "resnet110": (1_727_962, 252_887_680),
    "plain20": (269_722, 40_551_040),
    "plain56": (853_018, 125_485_696),
    "preresnet110": (1_727_962, 252_887_680),
    "preresnet164": (1_703_258, 244_500_992),
    "wrn_16_4": (2_748_890, 392_612_352),
    "wrn_40_4": (8_949_210, 1_298_582_016),
    "wrn_28_10": (36_479_194, 5_243_328_768),
    "pyramidnet110_a48": (1_772_706, 403_813_504),
    "pyramidnet110_a84": (3_904_446, 772_168_168),
    "pyramidnet110_a270": (28_485_477, 4_717_983_724),
    "fractalnet20": (33_714_314, 845_222_912),
    "fractalnet40": (76_084_554, 2_036_077_568),
    "highway_cifar": (2_256_838, 330_826_728),
    "highway_mnist": (151_690, 31_650_624),
    "densenet40": (1_019_722, 264_812_928),
    "densenet100": (6_979_642, 1_769_516_448),
    "densenet100_bc": (769_162, 287_929_692),
    "densenet190_bc": (25_624_430, 9_301_945_740),
    "densenet250_bc": (15_324_406, 5_418_785_724),
}

# Parameters of the auxiliary heads, and of nets with 100 classes.
PUBLISHED_AUX = {
    "googlenet": 13_004_888 - 6_624_904,
    "googlenet_2014": 13_378_280 - 6_998_552,
    "inception_v3": 27_161_264 - 23_834_568,
}
PUBLISHED_100 = {
    "nin_cifar10": 984_356,
    "preresnet164": 1_726_388,
    "wrn_28_10": 36_536_884,
    "wrn_40_4": 8_972_340,
    "pyramidnet110_a48": 1_778_556,
    "pyramidnet110_a84": 3_913_536,
    "pyramidnet110_a270": 28_511_307,
    "highway_cifar": 2_265_928,
    "densenet40": 1_060_132,
    "densenet100": 7_084_852,
    "densenet100_bc": 800_032,
    "densenet190_bc": 25_821_620,
    "densenet250_bc": 15_480_556,
}

# Parameters of single layers, blocks or stages.
PARTS = {
    "lenet5": {"c1": 156, "c3": 2_416, "c5": 48_120, "f6": 10_164, "output": 850},
    "lenet5_1998": {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164, "output": 0},
    "alexnet": {"features.0": 23_296, "features.3": 307_392, "classifier.1": 37_752_832},
    "alexnet_2012": {"conv1": 34_944, "conv2": 307_456, "conv3": 885_120, "conv4": 663_936, "conv5": 442_624},
    "alexnet_2012_single": {"conv1": 34_944, "conv2": 614_656, "conv4": 1_327_488, "conv5": 884_992},
    "vgg16": {"classifier.0": 102_764_544, "classifier.3": 16_781_312, "classifier.6": 4_097_000},
    "resnet18": {"layer1": 147_968, "layer2": 525_568, "layer3": 2_099_712, "layer4": 8_393_728, "fc": 513_000},
    "resnet34": {"layer1": 221_952, "layer2": 1_116_416, "layer3": 6_822_400, "layer4": 13_114_368},
    "resnet50": {"layer1": 215_808, "layer2": 1_219_584, "layer3": 7_098_368, "layer4": 14_964_736},
    "resnet101": {"layer2": 1_219_584, "layer3": 26_090_496, "layer4": 14_964_736, "fc": 2_049_000},
    "resnet152": {"layer2": 2_339_840, "layer3": 40_613_888, "layer4": 14_964_736, "fc": 2_049_000},
    "googlenet": {  # the rows of Table 1, with BatchNorm and 3x3 for 5x5
        "conv1": 9_536,
        "conv2": 4_224,
        "conv3": 110_976,
        "inception3a": 155_872,
        "inception3b": 340_224,
        "inception4a": 364_512,
        "inception4b": 425_232,
        "inception4c": 486_192,
        "inception4d": 573_312,
        "inception4e": 803_840,
        "inception5a": 978_944,
        "inception5b": 1_347_040,
        "fc": 1_025_000,
        "aux1": 3_188_968,
        "aux2": 3_191_016,
    },
    "googlenet_2014": {  # the same with biases
        "conv1": 9_472,
        "conv2": 4_160,
        "conv3": 110_784,
        "inception3a": 163_696,
        "inception3b": 388_736,
        "inception4a": 376_176,
        "inception4b": 449_160,
        "inception4c": 510_104,
        "inception4d": 605_376,
        "inception4e": 868_352,
        "inception5a": 1_043_456,
        "inception5b": 1_444_080,
        "fc": 1_025_000,
        "aux1": 3_188_840,
        "aux2": 3_190_888,
    },
    "inception_v3": {
        "Conv2d_1a_3x3": 928,
        "Conv2d_2a_3x3": 9_280,
        "Conv2d_2b_3x3": 18_560,
        "Conv2d_3b_1x1": 5_280,
        "Conv2d_4a_3x3": 138_624,
        "Mixed_5b": 255_904,
        "Mixed_5c": 277_472,
        "Mixed_5d": 285_152,
        "Mixed_6a": 1_153_280,
        "Mixed_6b": 1_297_408,
        "Mixed_6c": 1_691_008,
        "Mixed_6d": 1_691_008,
        "Mixed_6e": 2_141_952,
        "AuxLogits": 3_326_696,
        "Mixed_7a": 1_698_304,
        "Mixed_7b": 5_044_608,
        "Mixed_7c": 6_076_800,
        "fc": 2_049_000,
    },
    "xception": {
        "conv1": 864,
        "bn1": 64,
        "conv2": 18_432,
        "bn2": 128,
        "block1": 35_264,
        "block2": 136_064,
        "block3": 915_944,
        **{f"block{number}": 1_613_976 for number in range(4, 12)},
        "block12": 2_039_584,
        "conv3": 1_582_080,
        "bn3": 3_072,
        "conv4": 3_159_552,
        "bn4": 4_096,
        "fc": 2_049_000,
    },
    "inception_resnet_v1": {
        "repeat.0": 77_440,
        "repeat": 5 * 77_440,
        "mixed_6a": 1_710_080,
        "repeat_1.0": 690_048,
        "repeat_1": 10 * 690_048,
        "mixed_7a": 3_346_176,
        "repeat_2.0": 1_600_768,
        "repeat_2": 5 * 1_600_768,
    },
    "inception_resnet_v2": {
        "mixed_5b": 268_320,
        "repeat.0": 123_168,
        "repeat": 10 * 123_168,
        "mixed_6a": 2_664_960,
        "repeat_1.0": 1_126_784,
        "repeat_1": 20 * 1_126_784,
        "mixed_7a": 3_880_960,
        "repeat_2.0": 2_035_424,
        "repeat_2": 9 * 2_035_424,
        "block8": 2_035_424,
        "conv2d_7b": 3_197_952,
        "classif": 1_537_000,
    },
    "wide_resnet50_2": {"layer1": 634_368, "layer2": 3_482_624, "layer3": 20_736_000, "layer4": 41_971_712},
}


def image(channels, height, width):
    return torch.empty(2, channels, height, width, device="meta")


def without_aux(name, **options):
    return on_meta(name, **options, **({"aux_logits": False} if name in AUX else {}))


@cache
def observed(name):
    """Two images through the net: its modules' calls in order, with the shapes they saw and gave."""
    net = on_meta(name)
    calls = []
    for path, module in net.named_modules():
        module.register_forward_hook(
            lambda module, args, output, path=path: calls.append(
                SimpleNamespace(path=path, module=module, input=tuple(args[0].shape), output=tuple(output.shape))
            )
        )
    net(image(*net.entry.input_size))
    leaves = [call for call in calls if not any(call.module.children())]
    return SimpleNamespace(net=net, calls={call.path: call for call in calls}, leaves=leaves)


@cache
def features(name):
    return observed(name).net.forward_features(image(*cnnzoo.info(name).input_size))


@pytest.fixture(autouse=True)
def norms_pass_the_shape_on(monkeypatch):
    """Without values torch takes BatchNorm apart in Python, which was half of the time of these tests."""
    whole = nn.BatchNorm2d.forward
    monkeypatch.setattr(nn.BatchNorm2d, "forward", lambda self, x: torch.empty_like(x) if x.is_meta else whole(self, x))


# --- facts of the registry


@pytest.mark.parametrize("name", ALL)
def test_parameters_are_as_registered(name):
    net, entry = observed(name).net, cnnzoo.info(name)
    aux = sum(count(net.get_submodule(head)) for head in entry.aux)
    assert (count(net) - aux, aux) == (entry.params, entry.aux_params)


@pytest.mark.parametrize("name", ALL)
def test_multiply_adds_are_as_registered(name):
    """Every number of a kernel or matrix is used once at each place of the output."""
    kernels = [
        (call.module.weight, call.output)
        for call in observed(name).leaves
        if getattr(call.module, "weight", None) is not None
    ]
    macs = sum(weight.numel() * math.prod(output[2:]) for weight, output in kernels if weight.ndim > 1)
    assert macs == cnnzoo.info(name).macs


@pytest.mark.parametrize("name", SMALL)
def test_the_summary_counts_the_same(name):
    total = cnnzoo.summary(name).total
    assert (total.params, total.macs) == (cnnzoo.info(name).params, cnnzoo.info(name).macs)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds_are_the_published_ones(name):
    assert (cnnzoo.info(name).params, cnnzoo.info(name).macs) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED_AUX)
def test_parameters_of_auxiliary_heads_are_the_published_ones(name):
    assert cnnzoo.info(name).aux_params == PUBLISHED_AUX[name]


@pytest.mark.parametrize("name", PUBLISHED_100)
def test_parameters_for_100_classes_are_the_published_ones(name):
    assert count(on_meta(name, num_classes=100)) == PUBLISHED_100[name]


@pytest.mark.parametrize(("name", "part"), [(name, part) for name, parts in PARTS.items() for part in parts])
def test_parameters_of_a_part_are_the_published_ones(name, part):
    assert count(observed(name).net.get_submodule(part)) == PARTS[name][part]


@pytest.mark.parametrize("name", ALL)
def test_stages_have_the_registered_shapes(name):
    calls = observed(name).calls
    shapes = {stage.name: calls[stage.modules[-1]].output for stage in cnnzoo.info(name).stages}
    assert shapes == {stage.name: (2, *stage.shape) for stage in cnnzoo.info(name).stages}


@pytest.mark.parametrize("name", ALL)
def test_stages_and_head_hold_every_parameter_once(name):
    net, entry = observed(name).net, cnnzoo.info(name)
    modules = [module for stage in entry.stages for module in stage.modules] + [*entry.aux, entry.head]
    held = Counter(f"{module}.{own}" for module in modules for own, _ in net.get_submodule(module).named_parameters())
    assert held == Counter(own for own, _ in net.named_parameters())


@pytest.mark.parametrize("name", [name for name in ALL if cnnzoo.info(name).paper_names])
def test_names_of_the_paper_stand_for_layers_in_their_order(name):
    net, names = on_meta(name), cnnzoo.info(name).paper_names
    paths = [path for path, _ in net.named_modules()]
    order = [paths.index(path) for path in names.values()]
    assert order == sorted({*order})
    assert not names.keys() & {*paths}
    assert all(cnnzoo.visualize.layer_of(net, own).module is net.get_submodule(path) for own, path in names.items())


@pytest.mark.parametrize("name", ALL)
def test_stages_run_from_input_to_output_and_then_the_head(name):
    entry = cnnzoo.info(name)
    place = {module: i for i, stage in enumerate(entry.stages) for module in stage.modules}
    place[entry.head] = len(entry.stages)
    ran = [
        next(place[module] for module in place if f"{call.path}.".startswith(f"{module}."))
        for call in observed(name).leaves
        if any(True for _ in call.module.parameters()) or call.path == entry.head
    ]
    assert ran == sorted(ran)
    assert set(ran) == set(place.values())


@pytest.mark.parametrize("name", ALL)
def test_parameters_by_stage_leave_nothing_over(name):
    entry = cnnzoo.info(name)
    names = [own for own, _ in observed(name).net.named_parameters()]
    groups = entry.parameters(names)
    assert set(groups) <= {*(stage.name for stage in entry.stages), "aux", "head"}
    assert Counter(own for group in groups.values() for own in group) == Counter(names)


@pytest.mark.parametrize("name", ALL)
def test_head_gives_the_logits(name):
    seen, entry = observed(name), cnnzoo.info(name)
    assert seen.net.get_classifier() is seen.net.get_submodule(entry.head)
    assert seen.calls[entry.head].output[:2] == (2, entry.num_classes) == seen.calls[""].output
    assert seen.net.num_classes == entry.num_classes


@pytest.mark.parametrize("name", ALL)
def test_first_conv_sees_the_image(name):
    entry = cnnzoo.info(name)
    first = next(call for call in observed(name).leaves if any(True for _ in call.module.parameters()))
    assert first.path == entry.first_conv
    assert first.input[1] in (entry.input_size[0], math.prod(entry.input_size))


@pytest.mark.parametrize("name", ALL)
def test_no_module_is_called_twice(name):
    calls = Counter(call.module for call in observed(name).leaves)
    assert set(calls.values()) == {1}


# --- sizes


@pytest.mark.parametrize("name", ALL)
def test_min_size_works(name):
    entry = cnnzoo.info(name)
    net = observed(name).net
    assert net(image(entry.input_size[0], entry.min_size, entry.min_size)).shape == (2, entry.num_classes)


@pytest.mark.parametrize("name", ALL)
def test_smaller_image_names_the_least_size(name):
    entry = cnnzoo.info(name)
    least = entry.min_size
    for size in ((least - 1, least), (least, least - 1)):
        with pytest.raises(cnnzoo.InputError, match=rf"at least {least}x{least}, not {size[0]}x{size[1]}"):
            observed(name).net(image(entry.input_size[0], *size))


@pytest.mark.parametrize("name", [name for name in ALL if cnnzoo.info(name).min_size > 1])
def test_min_size_is_the_least_that_the_arithmetic_allows(name):
    entry, net = cnnzoo.info(name), observed(name).net
    too_small = image(entry.input_size[0], entry.min_size - 1, entry.min_size - 1)
    try:
        maps = net.forward_features(too_small)
        if maps.numel():  # of torch 2.6, convolutions on the meta device give maps of no places
            net.forward_head(maps)
    except (RuntimeError, cnnzoo.InputError):
        return
    assert not maps.numel()


@pytest.mark.parametrize("name", sorted({*SMALL} & {*SPATIAL}))
def test_other_sizes_work(name):
    channels, height, width = cnnzoo.info(name).input_size
    assert observed(name).net(image(channels, height + 5, width + 40)).shape == (2, cnnzoo.info(name).num_classes)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("more", [1, -1])
def test_wrong_channels_are_refused(name, more):
    channels, height, width = cnnzoo.info(name).input_size
    with pytest.raises(cnnzoo.InputError, match=rf"takes images \(B, {channels}, H, W\), not"):
        observed(name).net(image(channels + more, height, width))


def test_image_without_batch_is_refused():
    with pytest.raises(cnnzoo.InputError, match=r"\(3, 32, 32\)"):
        on_meta("resnet20")(torch.empty(3, 32, 32, device="meta"))


# --- arguments of create


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("in_chans", [1, 4])
def test_classes_and_channels_are_free(name, in_chans):
    _, height, width = cnnzoo.info(name).input_size
    net = on_meta(name, num_classes=7, in_chans=in_chans)
    assert net.num_classes == 7
    assert net(image(in_chans, height, width)).shape == (2, 7)


@pytest.mark.parametrize("name", sorted({*SMALL} & {*SPATIAL}))
@pytest.mark.parametrize("kind", ["max", "avgmax"])
def test_the_last_maps_are_pooled_as_asked(name, kind):
    net = without_aux(name, global_pool=kind)
    assert [module.kind for module in net.modules() if type(module).__name__ == "GlobalPool"] == [kind]
    assert net.forward_head(features(name)).shape == (2, cnnzoo.info(name).num_classes)


def test_an_unknown_pooling_is_refused():
    with pytest.raises(cnnzoo.InputError, match="unknown global_pool 'mean'; known: avg, max, avgmax"):
        on_meta("resnet18", global_pool="mean")


@pytest.mark.parametrize("name", SMALL)
def test_every_activation_is_a_module_of_its_own(name):
    """Which hooks and guided backpropagation can find: none is a function inside a forward."""
    net = without_aux(name)
    with Activations() as seen:
        net(image(*net.entry.input_size))
    modules = [m for m in net.modules() if isinstance(m, nn.ReLU | nn.Sigmoid | nn.Tanh) or "Tanh" in type(m).__name__]
    assert seen.count == len(modules)


class Activations(TorchDispatchMode):
    """Counts the activations that run, from whatever module or function they come."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += operation.overloadpacket._qualified_op_name in ("aten::relu", "aten::sigmoid", "aten::tanh")
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", AUX)
def test_auxiliary_heads_speak_in_training_only(name):
    net, entry = on_meta(name, num_classes=7), cnnzoo.info(name)
    images = image(*entry.input_size)
    assert net(images).shape == (2, 7)
    assert [output.shape for output in net.train()(images)] == [(2, 7)] * (1 + len(entry.aux))
    net.reset_classifier(4)
    assert [output.shape for output in net(images)] == [(2, 4)] * (1 + len(entry.aux))
    net.reset_classifier(0)
    assert net(images).shape == (2, observed(name).net.num_features)


@pytest.mark.parametrize("name", AUX)
def test_auxiliary_heads_can_be_left_out(name):
    net = on_meta(name, aux_logits=False).train()
    assert count(net) == cnnzoo.info(name).params
    assert net(image(*cnnzoo.info(name).input_size)).shape == (2, cnnzoo.info(name).num_classes)


@pytest.mark.parametrize("name", SMALL)
def test_reset_classifier_changes_the_classes(name):
    net = on_meta(name)
    net.reset_classifier(5)
    assert net.num_classes == 5
    assert net.forward_head(features(name)).shape == (2, 5)


@pytest.mark.parametrize("name", SMALL)
def test_pre_logits_is_what_the_head_sees(name):
    net = observed(name).net
    assert features(name).ndim == 4
    assert net.forward_head(features(name), pre_logits=True).shape == (2, net.num_features)
    assert observed(name).calls[net.entry.head].input[:2] == (2, net.num_features)


@pytest.mark.parametrize("name", SMALL)
def test_a_net_without_a_head_knows_its_features_and_takes_another_head(name):
    net = on_meta(name, num_classes=0)
    assert net.num_features == observed(name).net.num_features
    net.reset_classifier(6)
    assert (net.num_classes, net.num_features) == (6, observed(name).net.num_features)
    assert net(image(*cnnzoo.info(name).input_size)).shape == (2, 6)


def test_a_head_of_several_layers_tells_its_sizes_and_is_replaced():
    net = on_meta("resnet20")
    net.fc = nn.Sequential(nn.Dropout(0.2), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2)).to("meta")
    assert (net.num_classes, net.num_features) == (2, 64)
    net.reset_classifier(3)
    assert (type(net.fc), net.num_classes, net.num_features) == (nn.Linear, 3, 64)


HEADS = (
    {"kind": "linear", "num_classes": 4},
    {"kind": "mlp", "num_classes": 4, "hidden": 8},
    {"kind": "neighbours", "num_classes": 4, "rows": 9, "k": 3},
)
COMMITTEE = {"kind": "committee", "num_classes": 4, "heads": HEADS, "rule": {"kind": "mean", "weights": [1, 1, 1]}}


@pytest.mark.parametrize("spec", [*HEADS, COMMITTEE], ids=lambda spec: spec["kind"])
@pytest.mark.parametrize("name", ["resnet20", "squeezenet1_1"])
def test_a_head_that_a_probe_gave_is_replaced(name, spec):
    net = on_meta(name)
    with torch.device("meta"):
        net.set_submodule(net.entry.head, _heads.build(spec, net.num_features))
    assert (net.num_classes, net.num_features) == (4, observed(name).net.num_features)
    net.reset_classifier(3)
    assert isinstance(net.get_classifier(), nn.Linear)
    assert net(image(*net.entry.input_size)).shape == (2, 3)


def test_a_head_that_does_not_say_what_it_sees_is_told():
    net = on_meta("resnet20")
    net.fc = nn.Identity()
    assert net.num_classes == 0
    for ask in (lambda: net.num_features, lambda: net.reset_classifier(3)):
        with pytest.raises(cnnzoo.InputError, match="the head is a Identity, which does not say how many features it"):
            ask()


@pytest.mark.parametrize("number", [5, 0])
def test_a_new_head_has_no_names_and_no_temperature(number):
    net = on_meta("resnet20")
    net.classes, net.temperature = tuple("abcdefghij"), 1.7
    net.reset_classifier(number)
    assert not hasattr(net, "classes")
    assert not hasattr(net, "temperature")


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "squeezenet1_1"])
def test_the_whole_classifier_is_called(name):
    net, called = on_meta(name), []
    net.classifier.register_forward_hook(lambda *_: called.append(1))
    net(image(*net.entry.input_size))
    assert called == [1]


@pytest.mark.parametrize("name", ["mlp", "lenet5_1998", "alexnet", "vgg11", "resnet18", "resnet20"])
@pytest.mark.parametrize(("key", "value", "least"), [("num_classes", -1, 0), ("in_chans", 0, 1), ("in_chans", 2.5, 1)])
def test_impossible_numbers_are_refused(name, key, value, least):
    with pytest.raises(cnnzoo.InputError, match=rf"{key} is {value}, but must be a whole number of at least {least}"):
        cnnzoo.create(name, **{key: value})


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("mlp", "hidden", 5, "mlp cannot be built with hidden 5: 'int' object is not iterable"),
        ("mlp", "hidden", (0, 5), "each of hidden is 0, but must be a whole number of at least 1"),
        ("mlp", "image_size", -3, "image_size is -3, but must be a whole number of at least 1"),
        ("highway_fc10", "image_size", 8.5, r"image_size is 8\.5, but must be a whole number"),
        ("inception_v2", "pool_proj", 0, "pool_proj is 0, but must be a whole number of at least 1"),
        ("alexnet_2012", "groups", 3, "alexnet_2012 cannot be built with groups 3: out_channels must be divisible"),
    ],
)
def test_impossible_arguments_of_a_single_net_are_refused(name, key, value, message):
    with pytest.raises(cnnzoo.InputError, match=message):
        cnnzoo.create(name, **{key: value})


@pytest.mark.parametrize("name", SMALL)
def test_no_classes_take_the_head_off(name):
    net = on_meta(name, num_classes=0)
    assert net(image(*cnnzoo.info(name).input_size)).shape == (2, observed(name).net.num_features)
    assert net.num_classes == 0


@pytest.mark.parametrize(
    ("name", "typed", "meant"),
    [
        ("resnet18", "num_clases", "num_classes"),
        ("vgg16", "in_chan", "in_chans"),
        ("alexnet_2012", "group", "groups"),
        ("mlp", "img_size", "image_size"),
    ],
)
def test_unknown_argument_is_answered_by_the_nearest(name, typed, meant):
    with pytest.raises(cnnzoo.InputError, match=rf"unknown argument of {name} '{typed}'; did you mean {meant}\?"):
        cnnzoo.create(name, **{typed: 2})


@pytest.mark.parametrize(("typed", "meant"), [("pretained", "pretrained"), ("feature_only", "features_only")])
def test_misspelt_argument_of_create_itself_is_offered_too(typed, meant):
    with pytest.raises(cnnzoo.InputError, match=rf"unknown argument of resnet50 '{typed}'; did you mean {meant}\?"):
        cnnzoo.create("resnet50", **{typed: True})


# --- feature maps


@pytest.mark.parametrize("name", sorted({*SMALL} & {*SPATIAL}))
def test_features_only_gives_the_stages_maps(name):
    entry = cnnzoo.info(name)
    stages = [stage for stage in entry.stages if len(stage.shape) == 3]
    net = on_meta(name, features_only=True)
    assert net.names == [stage.name for stage in stages]
    assert net.channels == [stage.shape[0] for stage in stages]
    maps = net(image(*entry.input_size))
    assert [f.shape for f in maps] == [(2, *stage.shape) for stage in stages]


@pytest.mark.parametrize(
    ("name", "channels", "sides"),
    [
        ("vgg16", [64, 128, 256, 512, 512], [112, 56, 28, 14, 7]),
        ("resnet18", [64, 64, 128, 256, 512], [112, 56, 28, 14, 7]),
        ("resnet50", [64, 256, 512, 1024, 2048], [112, 56, 28, 14, 7]),
        ("resnet20", [16, 16, 32, 64], [32, 32, 16, 8]),
    ],
)
def test_feature_maps_know_their_channels_and_shapes(name, channels, sides):
    net = on_meta(name, features_only=True)
    assert (net.channels, [shape[1] for shape in net.shapes]) == (channels, sides)


@pytest.mark.parametrize(
    ("out_indices", "names"),
    [
        ((-1,), ["stage4"]),
        ((0, 2), ["stem", "stage2"]),
        ((1, -1), ["stage1", "stage4"]),
        ((-5, 4), ["stem", "stage4"]),
        (("stage3", 0), ["stage3", "stem"]),
    ],
)
def test_out_indices_choose_maps(out_indices, names):
    net = on_meta("resnet18", features_only=True, out_indices=out_indices)
    assert net.names == names
    assert [f.shape[1] for f in net(image(3, 64, 64))] == net.channels


@pytest.mark.parametrize("index", [5, -6])
def test_out_index_out_of_range_names_the_stages(index):
    with pytest.raises(
        cnnzoo.InputError, match=f"out_indices has {index}, but there are 5 stages: stem, stage1, .*, stage4"
    ):
        on_meta("resnet18", features_only=True, out_indices=(index,))


@pytest.mark.parametrize("index", [0.5, "stage5"])
def test_out_indices_are_whole_numbers_or_names(index):
    with pytest.raises(cnnzoo.InputError, match=f"out_indices has {index!r}, but there are 5 stages"):
        on_meta("resnet18", features_only=True, out_indices=(index,))


@pytest.mark.parametrize("index", [3, "stage3"])
def test_out_indices_are_several(index):
    with pytest.raises(cnnzoo.InputError, match=rf"must be a sequence such as \({index!r},\)"):
        on_meta("resnet18", features_only=True, out_indices=index)


def test_a_net_without_maps_says_what_to_do():
    with pytest.raises(cnnzoo.InputError, match="mlp has no stages with feature maps; create it without features_only"):
        on_meta("mlp", features_only=True)


def test_maps_are_described_as_timm_describes_them():
    info = on_meta("resnet18", features_only=True).feature_info
    theirs = timm.create_model("resnet18", features_only=True).feature_info
    assert (info.channels(), info.reduction()) == (theirs.channels(), theirs.reduction())
    assert info.module_name() == ["stem", "stage1", "stage2", "stage3", "stage4"]


@pytest.mark.parametrize("name", ["lenet5", "googlenet", "resnet18", "densenet121"])
def test_timms_optimisers_lower_their_rates_stage_by_stage(name):
    net = on_meta(name)
    groups = create_optimizer_v2(net, "sgd", lr=1.0, layer_decay=0.5).param_groups
    rates = {id(weight): group["lr_scale"] for group in groups for weight in group["params"]}
    parameters = dict(net.named_parameters())
    stages = net.entry.parameters(parameters)
    assert len(rates) == len(parameters)
    for distance, names in enumerate(reversed(stages.values())):
        assert {rates[id(parameters[name])] for name in names} == {0.5**distance}


@pytest.mark.parametrize(
    ("name", "theirs"), [("inception_v3",) * 2, ("inception_v4",) * 2, ("xception", "legacy_xception")]
)
def test_borders_that_are_cut_off_do_not_count_as_reduction(name, theirs):
    with torch.device("meta"):
        info = timm.create_model(theirs, features_only=True).feature_info
    assert on_meta(name, features_only=True).feature_info.reduction() == info.reduction()
    assert on_meta("alexnet", features_only=True).feature_info.reduction() == [8, 16, 16, 16, 32]


def test_a_new_head_may_come_with_another_pooling():
    net = on_meta("resnet18")
    net.reset_classifier(3, "max")
    assert (net.num_classes, net.avgpool.kind, net.arch) == (3, "max", {"global_pool": "max"})
    with pytest.raises(cnnzoo.InputError, match="unknown global_pool 'mean'; known: avg, max, avgmax"):
        net.reset_classifier(3, "mean")
    with pytest.raises(cnnzoo.InputError, match=r"num_classes is 2\.5, but must be a whole number"):
        net.reset_classifier(2.5)
    with pytest.raises(cnnzoo.InputError, match="MLP has no global pooling to choose"):
        on_meta("mlp").reset_classifier(3, "max")


def test_out_indices_need_features_only():
    with pytest.raises(cnnzoo.InputError, match="features_only=True"):
        on_meta("resnet18", out_indices=(1,))


# --- other people's tools


@pytest.mark.parametrize(
    ("name", "training"), [*((name, False) for name in SMALL), *((name, True) for name in (*AUX, "fractalnet20"))]
)
def test_torch_fx_follows_every_net(name, training):
    """In train mode those too that then give more, or drop paths."""
    net = on_meta(name).train(training)
    traced, images = fx.symbolic_trace(net), image(*net.entry.input_size)
    given, expected = (out if isinstance(out, tuple) else (out,) for out in (traced(images), net(images)))
    assert [each.shape for each in given] == [each.shape for each in expected]
    with pytest.raises(cnnzoo.InputError, match=r"takes images \(B, "):
        traced(image(net.in_chans + 1, *net.entry.input_size[1:]))


@pytest.mark.filterwarnings("ignore:.*NOTE. The nodes obtained by tracing the model")
def test_torchvisions_feature_extractor_takes_our_nets():
    extractor = create_feature_extractor(on_meta("resnet18"), ["layer2", "layer4"])
    maps = extractor(image(3, 64, 64))
    assert {name: f.shape for name, f in maps.items()} == {"layer2": (2, 128, 8, 8), "layer4": (2, 512, 2, 2)}


def test_a_net_may_be_made_where_nothing_is_trained():
    with torch.inference_mode():
        net = cnnzoo.create("vgg11")  # of which threads draw the weights
    assert net.get_classifier().weight.detach().std() > 0


def test_response_normalisation_is_torchs():
    """In fp16 too, where squares of numbers above 256 are infinite, as activations of nets from Caffe are."""
    x, wanted = ((torch.arange(480.0).sin() * 1000).view(2, 60, 2, 2).double().requires_grad_() for _ in range(2))
    answer = local_response_norm(x, 5, 1e-4, 0.75, 1.0)
    expected = nn.functional.local_response_norm(wanted, 5, 1e-4, 0.75, 1.0)
    for each in (answer, expected):
        (each**2).sum().backward()
    torch.testing.assert_close(answer, expected)
    torch.testing.assert_close(x.grad, wanted.grad)
    in_16_bits = local_response_norm(x.detach().half(), 5, 1e-4, 0.75, 1.0)
    torch.testing.assert_close(in_16_bits.double(), expected.detach(), rtol=5e-3, atol=0.05)
