"""In which form a net trains fastest: decided by measuring, on a copy."""

import time

import pytest
import torch
from torch import nn

from cnnzoo import zoo
from cnnzoo.device import pick_precision
from cnnzoo.errors import InputError
from cnnzoo.train import forms

CPU = torch.device("cpu")


class Net(nn.Module):
    """Slow on purpose, unless it is told otherwise."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)
        self.seconds = 0.02

    def forward(self, x):
        time.sleep(self.seconds)
        return self.head(self.norm(self.conv(x)).mean((2, 3)))


def faster(net: Net):
    def run(x):
        net.seconds = 0.0
        try:
            return net(x)
        finally:
            net.seconds = 0.02

    return run


def slower(net: Net):
    def run(x):
        time.sleep(0.02)
        return net(x)

    return run


def failing(net: Net):
    def run(x):
        raise RuntimeError("no compiler here")

    return run


IMAGES = torch.zeros(4, 3, 8, 8)


def test_a_form_that_saves_more_than_it_costs_is_taken():
    form = forms.choose(Net(), IMAGES, "fp32", 1_000_000, {"slow": slower, "fast": faster})
    assert form.why.startswith("fast: ")
    assert "times as fast a step here" in form.why
    assert form.forward(IMAGES).shape == (4, 2)


def test_no_form_is_tried_for_a_short_run():
    def never(net):
        raise AssertionError

    form = forms.choose(net := Net(), IMAGES, "fp32", 10, {"never": never})
    assert form.forward is net
    assert form.why.startswith("not compiled: the run takes about ")


def test_a_form_that_fails_or_is_no_faster_is_passed_over():
    form = forms.choose(net := Net(), IMAGES, "fp32", 1_000_000, {"failing": failing, "slower": slower})
    assert form.forward is net
    assert form.why == "not compiled: that does not pay here (failing: RuntimeError)"


class Hungry(Net):
    """Takes 8 images at once, and not one more."""

    def forward(self, x):
        if len(x) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(x)


def test_a_batch_too_large_to_be_tried_is_left_for_the_trainer_to_split():
    net = Hungry()
    form = forms.choose(net, torch.zeros(9, 3, 8, 8), "fp32", 100_000, {"faster": faster})
    assert form.forward is net
    assert form.why == "not compiled: there is no memory to try it on a whole batch"


def test_trying_leaves_no_trace_on_the_net():
    net = Net().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    forms.choose(net, IMAGES + 1, "fp32", 1_000_000, {"fast": faster})
    assert not net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_nets_of_one_process_are_each_compiled_for_images_of_their_own_size(monkeypatch):
    unknown, compile = [], torch.compile

    def backend(graph, given):
        unknown.append([x for x in given if isinstance(x, torch.SymInt)])
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda net, mode, **options: compile(net, backend=backend, **options))
    torch.compiler.reset()
    for name, size in (("resnet20", 32), ("resnet32", 16), ("resnet32", 24)):
        forms.compiled(zoo.create(name))(torch.zeros(2, 3, size, size))
    assert unknown == [[], [], []]
    torch.compiler.reset()
    grown = forms.compiled(zoo.create("resnet20"), grows=True)
    for size in range(16, 56, 4):  # more than torch would compile one by one
        grown(torch.zeros(2, 3, size, size))
    assert 2 <= len(unknown) - 3 <= 3


def test_on_a_cpu_a_run_is_not_compiled_unless_it_is_asked_for():
    assert forms.choose(net := Net(), IMAGES, "fp32", 10**9).forward is net


@pytest.mark.parametrize(("factor", "chosen"), [(3.0, "bf16"), (1.0, "fp32")])
def test_a_cpu_that_could_takes_bf16_where_it_is_clearly_faster(monkeypatch, factor, chosen):
    monkeypatch.setattr("cnnzoo.device.computes_in_bf16", lambda device: True)
    net = Net()

    class Timed(Net):
        def forward(self, x):
            self.seconds = 0.04 / (factor if torch.is_autocast_enabled("cpu") else 1.0)
            return super().forward(x)

    net.__class__ = Timed
    kind, why = forms.precision("auto", net, IMAGES, 1_000_000)
    assert kind == chosen
    assert "times as fast a step here" in why


def test_a_run_of_seconds_takes_fp32_untried(monkeypatch):
    monkeypatch.setattr("cnnzoo.device.computes_in_bf16", lambda device: True)

    class Net32(Net):
        def forward(self, x):
            assert not torch.is_autocast_enabled("cpu")
            return super().forward(x)

    kind, why = forms.precision("auto", Net32(), IMAGES, 100)
    assert kind == "fp32"
    assert why.startswith("the run takes about ")


def test_a_precision_that_is_set_is_kept():
    assert forms.precision("bf16", Net(), IMAGES, 100) == ("bf16", "as set")


def test_fp16_is_not_for_cpus():
    with pytest.raises(InputError, match="the precision is fp16, which CPUs cannot train in; take fp32, or bf16"):
        pick_precision("fp16", CPU)


@pytest.mark.parametrize(("native", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_where_the_device_computes_in_it(monkeypatch, native, chosen):
    monkeypatch.setattr("cnnzoo.device.computes_in_bf16", lambda device: native)
    assert pick_precision("auto", CPU) == chosen
