"""BN-Inception."""

import pytest
import torch
from torch import nn
from zoo_cases import count, on_meta

import cnnzoo

# Parameters of each row of the appendix's table: pool branches of 4c and 4d 96 wide, and 128.
LAYERS = {
    "inception3a": (219_072, 219_072),
    "inception3b": (260_160, 260_160),
    "inception3c": (385_088, 385_088),
    "inception4a": (609_984, 609_984),
    "inception4b": (665_344, 665_344),
    "inception4c": (895_936, 914_432),
    "inception4d": (1_108_032, 1_142_912),
    "inception4e": (1_439_744, 1_449_984),
    "inception5a": (2_182_272, 2_208_896),
    "inception5b": (2_279_616, 2_279_616),
}
AVERAGED = ("3a", "3b", "4a", "4b", "4c", "4d", "5a")


@pytest.mark.parametrize("layer", LAYERS)
def test_parameters_of_a_layer(layer):
    nets = (on_meta("inception_v2"), on_meta("inception_v2", pool_proj=128))
    assert tuple(count(net.get_submodule(layer)) for net in nets) == LAYERS[layer]


def test_wider_pool_branches_are_the_net_of_caffe():
    net = on_meta("inception_v2", pool_proj=128)
    total = cnnzoo.summary(net, (3, 224, 224)).total
    assert (total.params, total.macs) == (11_285_224, 2_032_600_064)
    outputs = {}
    for layer in ("inception4c", "inception4d", "inception4e"):
        net.get_submodule(layer).register_forward_hook(lambda _, a, y, layer=layer: outputs.update({layer: y.shape[1]}))
    net(torch.empty(1, 3, 224, 224, device="meta"))
    assert outputs == {"inception4c": 608, "inception4d": 608, "inception4e": 1056}


def test_only_the_last_pool_branch_that_keeps_the_size_takes_the_maximum():
    net = on_meta("inception_v2")
    pools = {block: net.get_submodule(f"inception{block}.branch4.0") for block in (*AVERAGED, "5b")}
    kinds = {block: type(pool) for block, pool in pools.items()}
    assert kinds == {**dict.fromkeys(AVERAGED, nn.AvgPool2d), "5b": nn.MaxPool2d}


@pytest.mark.parametrize("block", AVERAGED)
def test_average_pooling_leaves_the_padding_out(block):
    ones = torch.ones(1, 2, 5, 5)
    assert torch.equal(on_meta("inception_v2").get_submodule(f"inception{block}.branch4.0")(ones), ones)


@pytest.mark.parametrize("layer", ["inception3c", "inception4e"])
@pytest.mark.parametrize("side", [1, 2, 7, 14])
def test_reductions_halve_any_size_and_round_up(layer, side):
    block = on_meta("inception_v2").get_submodule(layer)
    channels = block.get_submodule("branch2.0.conv").in_channels
    assert block(torch.empty(1, channels, side, side, device="meta")).shape[-1] == (side + 1) // 2
