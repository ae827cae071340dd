"""GoogLeNet as torchvision has it."""

import pytest
import torch
from torch import nn
from zoo_cases import on_meta


@pytest.fixture
def net():
    return on_meta("googlenet").train()


def images(side=224):
    return torch.empty(2, 3, side, side, device="meta")


def test_57_convolutions_classify(net):
    net.aux1 = net.aux2 = None
    assert sum(isinstance(module, nn.Conv2d) for module in net.modules()) == 57


@pytest.mark.parametrize("name", ["googlenet", "googlenet_2014"])
def test_auxiliary_heads_see_4a_and_4d_and_answer_in_that_order(name):
    net = on_meta(name).train()
    seen = {}
    for module in ("aux1", "aux2"):
        net.get_submodule(module).register_forward_hook(
            lambda _, args, output, module=module: seen.update({module: (args[0], output)})
        )
    for module in ("inception4a", "inception4d"):
        net.get_submodule(module).register_forward_hook(lambda _, args, output, m=module: seen.update({m: output}))
    logits, aux1, aux2 = net(images())
    assert [t.shape for t in (logits, aux1, aux2)] == [(2, 1000)] * 3
    assert seen["aux1"][0] is seen["inception4a"]
    assert seen["aux2"][0] is seen["inception4d"]
    assert seen["aux1"][1] is aux1
    assert seen["aux2"][1] is aux2


@pytest.mark.parametrize("name", ["googlenet", "googlenet_2014"])
def test_one_output_in_eval_mode_and_without_auxiliary_heads(name):
    net, bare = on_meta(name), on_meta(name, aux_logits=False)
    assert net(images()).shape == (2, 1000)
    assert bare.train()(images()).shape == (2, 1000)
    assert [key for key in bare.state_dict() if key.startswith("aux")] == []


@pytest.mark.parametrize("name", ["googlenet", "googlenet_2014"])
@pytest.mark.parametrize("side", [33, 64, 200, 320])
def test_auxiliary_heads_train_on_any_size(name, side):
    assert [output.shape for output in on_meta(name).train()(images(side))] == [(2, 1000)] * 3


def test_auxiliary_heads_change_their_classes_with_the_head(net):
    net.reset_classifier(7)
    assert [output.shape for output in net(images())] == [(2, 7)] * 3
    net.reset_classifier(0)
    assert net(images()).shape == (2, 1024)


def test_rates_of_dropout(net):
    assert (net.dropout.p, net.aux1.dropout.p, net.aux2.dropout.p) == (0.2, 0.7, 0.7)
