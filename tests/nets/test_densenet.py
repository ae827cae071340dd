"""DenseNet: its blocks."""

import pytest
import torch
from zoo_cases import count, on_meta

import cnnzoo

BLOCKS = [*(f"denseblock{i}" for i in (1, 2, 3, 4)), *(f"transition{i}" for i in (1, 2, 3)), "norm5"]
# Parameters of these, from the published implementation.
PARTS = {
    "densenet121": [335_040, 919_680, 2_837_760, 2_158_080, 33_280, 132_096, 526_336, 2_048],
    "densenet161": [751_392, 2_061_504, 11_548_224, 9_486_720, 74_496, 296_448, 2_234_496, 4_416],
}
# Channels that the head sees.
FEATURES = [
    *(("densenet121", 1024), ("densenet161", 2208), ("densenet169", 1664), ("densenet201", 1920)),
    *(("densenet264", 2688), ("densenet40", 448), ("densenet100", 1168), ("densenet100_bc", 342)),
    *(("densenet190_bc", 2190), ("densenet250_bc", 1734)),
]


@pytest.mark.parametrize("name", PARTS)
def test_parameters_of_the_parts(name):
    features = on_meta(name).features
    assert [count(features.get_submodule(block)) for block in BLOCKS] == PARTS[name]


@pytest.mark.parametrize(("name", "channels"), FEATURES)
def test_channels_that_the_head_sees(name, channels):
    assert on_meta(name).num_features == channels


@torch.no_grad()
def test_layer_sees_the_maps_of_all_layers_before_it():
    block = cnnzoo.create("densenet40").eval().features.denseblock1
    x = torch.randn(2, 16, 4, 4)
    maps = [x]
    for layer in block.values():
        assert layer.norm1.num_features == sum(m.shape[1] for m in maps)
        maps.append(layer(torch.cat(maps, dim=1)))
    assert torch.equal(block(x), torch.cat(maps, dim=1))
