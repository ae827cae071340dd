"""Gradient checkpointing: a training step that keeps less, and is otherwise the same."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from zoo_cases import small

import cnnzoo
from cnnzoo.errors import InputError
from cnnzoo.models._grad_checkpointing import set_grad_checkpointing
from cnnzoo.telling import silent

# Of each kind of block.
WITH_BLOCKS = [
    *("densenet40", "fractalnet20", "googlenet", "highway_mnist", "nin_cifar10", "resnet20", "squeezenet1_1"),
    *("vgg11", "xception"),
]
WITHOUT_BLOCKS = ["alexnet_2012", "lenet5", "lenet5_1998", "mlp"]


def step(net, images, forward=None):
    """Outputs, gradients and statistics after one training step, by name; and how many bytes autograd kept for the
    backward pass, without the inputs of blocks that are computed again.
    """
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = (net if forward is None else forward)(images)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept = sum(size for place, (size, _) in storages.items() if place not in weights)
    sum(out.square().mean() for out in outputs).backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    values = {f"output {number}": out.detach() for number, out in enumerate(outputs)}
    return {**values, **gradients, **dict(net.named_buffers())}, kept


def pair(name, **options):
    """A net, the same with gradient checkpointing, and two images."""
    net, images = (cnnzoo.create(name, **options), torch.randn(1, 3, 16, 16)) if options else small(name)
    other = copy.deepcopy(net)
    other.set_grad_checkpointing()
    return net.train(), other.train(), torch.cat([images, images.flip(3)])


def differences(one, other):
    return [key for key in one if not torch.equal(one[key], other[key])]


def assert_same_with_less(net, other, images, share=0.7):
    """A step of both changes all alike, and that of the other keeps no more than a share."""
    (expected, usual), (found, kept) = step(net, images), step(other, images)
    assert list(expected) == list(found)
    assert differences(expected, found) == []
    assert kept < share * usual


@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_a_step_keeps_less_and_changes_no_bit(name):
    assert_same_with_less(*pair(name))


@pytest.mark.parametrize("name", WITHOUT_BLOCKS)
def test_a_net_without_blocks_says_so(name):
    net = cnnzoo.create(name)
    with pytest.raises(InputError, match=f"{type(net).__name__} has no blocks of layers to compute again"):
        net.set_grad_checkpointing()


@pytest.mark.parametrize(
    ("name", "options"),
    [("densenet40", {"drop_rate": 0.2}), ("resnet20", {"drop_path_rate": 0.5}), ("wrn_16_4", {"drop_rate": 0.3})],
)
def test_what_is_dropped_at_random_is_dropped_again(name, options):
    assert_same_with_less(*pair(name, **options))


def test_memory_efficient_is_torchvisions_name_for_it_in_densenet():
    torch.manual_seed(0)
    net, plain = (cnnzoo.create("densenet40", memory_efficient=on).train() for on in (True, False))
    plain.load_state_dict(net.state_dict())
    assert_same_with_less(plain, net, torch.randn(2, 3, 16, 16), share=0.3)


@pytest.mark.parametrize("transported", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_do_it_with_their_own_weights(transported):
    net, other, images = pair("resnet20", num_classes=5)
    moved = transported(other)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    assert_same_with_less(net, moved, images)


def test_it_can_be_taken_back():
    net, other, images = pair("densenet40", num_classes=5)
    other.set_grad_checkpointing(False)
    assert step(other, images)[1] == step(net, images)[1]


def runs_of_norms(net, images):
    """How often a BatchNorm runs in a step, at most."""
    count = dict.fromkeys((m for m in net.modules() if isinstance(m, _BatchNorm)), 0)
    for norm in count:
        norm.register_forward_hook(lambda norm, *_: count.__setitem__(norm, count[norm] + 1))
    net(images).sum().backward()
    return max(count.values())


def test_blocks_are_computed_twice_in_training_alone():
    _, net, images = pair("resnet20", num_classes=5)
    assert runs_of_norms(net, images) == 2
    assert runs_of_norms(net.eval(), images) == 1


def test_frozen_statistics_stay_frozen():
    _, net, images = pair("resnet20", num_classes=5)
    norms = [m.eval() for m in net.modules() if isinstance(m, _BatchNorm)]
    net(images).sum().backward()
    assert {(norm.momentum, norm.num_batches_tracked.item()) for norm in norms} == {(0.1, 0)}
    assert all(norm.running_mean.count_nonzero() == 0 for norm in norms)


def test_backward_may_run_twice():
    net, other, images = pair("resnet20", num_classes=5)
    for each in (net, other):
        loss = each(images).sum()
        loss.backward(retain_graph=True)
        loss.backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(net.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(p, q) for p, q in zip(net.buffers(), other.buffers(), strict=True))


def test_a_compiled_net_gives_the_same():
    net, other, images = pair("resnet20", num_classes=5)
    expected, found = step(net, images)[0], step(other, images, torch.compile(other, backend="aot_eager"))[0]
    assert all(torch.allclose(expected[key], found[key], rtol=1e-4, atol=1e-6) for key in expected)


def test_modules_from_elsewhere_have_blocks_too():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.last = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)

        def forward(self, x, scale):
            return self.last(self.norm(self.first(x)).relu() * scale)

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks, self.head = nn.ModuleList([Block(), Block()]), nn.Linear(4, 2)

        def forward(self, x):
            for block in self.blocks:
                x = block(x, scale=2.0)
            return self.head(x.mean((2, 3)))

    net = Whole().train()
    other = copy.deepcopy(net)
    set_grad_checkpointing(other)
    images = torch.randn(2, 4, 16, 16)
    assert_same_with_less(net, other, images, share=0.5)


def test_a_run_learns_the_same_weights(tmp_path):
    common = {"model.name": "resnet20", "data.source": "digits", "data.size": 8, "train.epochs": 1}
    runs = [
        cnnzoo.train(
            {**common, "run": str(tmp_path / str(on)), "train.grad_checkpointing": on}, with_report=False, tell=silent
        )
        for on in (False, True)
    ]
    expected, found = (cnnzoo.load(run).state_dict() for run in runs)
    assert differences(expected, found) == []
