"""DenseNet: its blocks, and a training step that keeps less."""

import pytest
import torch
from torch import nn

import cnnzoo
from cnnzoo.models.densenet import DenseLayer

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
    with torch.device("meta"):
        net = cnnzoo.create(name)
    assert [sum(p.numel() for p in net.features.get_submodule(block).parameters()) for block in BLOCKS] == PARTS[name]


@pytest.mark.parametrize(("name", "channels"), FEATURES)
def test_channels_that_the_head_sees(name, channels):
    with torch.device("meta"):
        assert cnnzoo.create(name).num_features == channels


@torch.no_grad()
def test_layer_sees_the_maps_of_all_layers_before_it():
    block = cnnzoo.create("densenet40").eval().features.denseblock1
    x = torch.randn(2, 16, 4, 4)
    maps = [x]
    for layer in block.values():
        assert layer.norm1.num_features == sum(m.shape[1] for m in maps)
        maps.append(layer(torch.cat(maps, dim=1)))
    assert torch.equal(block(x), torch.cat(maps, dim=1))


# --- memory_efficient


def twins(name, **options):
    """A net, and one on the same weights that keeps less."""
    torch.manual_seed(0)
    plain = cnnzoo.create(name, num_classes=5, **options)
    small = cnnzoo.create(name, num_classes=5, memory_efficient=True, **options)
    small.load_state_dict(plain.state_dict())
    return plain, small


def images(net):
    side = 64 if net.entry.input_size[1] == 224 else 16
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def step(net):
    """Logits, gradients and statistics after one training step."""
    torch.manual_seed(2)
    logits = net(images(net))
    nn.functional.cross_entropy(logits, torch.tensor([0, 3])).backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    return {"logits": logits.detach(), **gradients, **dict(net.named_buffers())}


@pytest.mark.parametrize("name", ["densenet121", "densenet40", "densenet100_bc"])
@pytest.mark.parametrize("drop_rate", [0.0, 0.2])
def test_keeping_less_changes_no_bit_of_gradients_and_statistics(name, drop_rate):
    expected, found = (step(net) for net in twins(name, drop_rate=drop_rate))
    assert list(found) == list(expected)
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []
    assert {value.item() for key, value in found.items() if key.endswith("num_batches_tracked")} == {1}


def kept(net):
    """Bytes that autograd keeps for the backward pass, without the inputs of checkpoints."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net(images(net))
    return sum(size for size, _ in storages.values())


@pytest.mark.parametrize("name", ["densenet121", "densenet40", "densenet100_bc"])
def test_less_is_kept(name):
    plain, small = twins(name)
    assert kept(small) < 0.3 * kept(plain)


def test_backward_may_run_twice():
    plain, small = twins("densenet40")
    for net in (plain, small):
        loss = net(images(net)).sum()
        loss.backward(retain_graph=True)
        loss.backward()
    other = dict(plain.named_parameters())
    assert all(torch.equal(p.grad, other[name].grad) for name, p in small.named_parameters())
    assert small.features.denseblock1.denselayer1.norm1.num_batches_tracked == 1


def passes(layer, x):
    """How often the first BatchNorm runs in a step."""
    count = []
    layer.norm1.register_forward_hook(lambda *_: count.append(1))
    layer(x).sum().backward()
    return len(count)


@pytest.mark.parametrize(
    ("training", "requires_grad", "expected"), [(True, True, 2), (True, False, 1), (False, True, 1)]
)
def test_layer_computes_twice_only_in_train_mode_and_where_a_gradient_goes_on(training, requires_grad, expected):
    layer = DenseLayer(8, 4, bottleneck=True, drop_rate=0.0, memory_efficient=True).train(training)
    assert passes(layer, torch.randn(2, 8, 6, 6, requires_grad=requires_grad)) == expected


def test_frozen_statistics_stay_frozen():
    layer = DenseLayer(8, 4, bottleneck=True, drop_rate=0.0, memory_efficient=True)
    layer.norm1.eval()
    assert passes(layer, torch.randn(2, 8, 6, 6, requires_grad=True)) == 2
    assert (layer.norm1.momentum, layer.norm1.num_batches_tracked.item()) == (0.1, 0)
    assert layer.norm1.running_mean.tolist() == [0.0] * 8


def test_compiled_layer_gives_the_same():
    torch.manual_seed(0)
    layer, other = (DenseLayer(8, 4, bottleneck=True, drop_rate=0.0, memory_efficient=True) for _ in range(2))
    other.load_state_dict(layer.state_dict())
    x = torch.randn(2, 8, 6, 6, requires_grad=True)
    for run in (layer, torch.compile(other, backend="aot_eager")):
        run(x).square().sum().backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(layer.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(p, q) for p, q in zip(layer.buffers(), other.buffers(), strict=True))
