"""The fast form of a net gives what the plain net gives."""

import copy
import itertools
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import fx, nn

import cnnzoo
from cnnzoo.errors import InputError
from cnnzoo.inference import forms, optimized
from cnnzoo.inference.fused import Fused
from cnnzoo.inference.optimized import Optimized
from cnnzoo.inference.outputs import Features, WithFeatures

NETS = ("lenet5", "resnet20", "squeezenet1_1", "googlenet_2014", "densenet40", "highway_mnist", "nin_cifar10")


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_outputs_are_the_plain_nets(name, count):
    torch.manual_seed(0)
    net = cnnzoo.create(name).eval()
    channels, side, _ = net.entry.input_size
    images = torch.randn(count, channels, min(side, 64), min(side, 64))
    with torch.no_grad():
        expected = net(images)
    given = cnnzoo.optimize(net, "fp32")(images)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4 * max(1.0, expected.abs().max().item()))


def test_one_form_takes_any_number_of_images_of_several_sizes():
    net = cnnzoo.create("resnet20").eval()
    fast = cnnzoo.optimize(net, "fp32")
    for count, side in ((0, 32), (8, 32), (3, 32), (2, 48), (1, 32), (0, 32)):
        images = torch.randn(count, 3, side, side)
        with torch.no_grad():
            torch.testing.assert_close(fast(images), net(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_images_of_another_type_are_told_whatever_form_was_chosen(precision, dtype):
    fast, images = cnnzoo.optimize(cnnzoo.create("lenet5"), precision), torch.ones(2, 1, 32, 32)
    wanted = rf"images are {dtype}, but must be torch\.float32, as the net's preprocessing gives them"
    with pytest.raises(InputError, match=wanted):
        fast(images.to(dtype))
    expected = fast(images)
    with pytest.raises(InputError, match=wanted):
        fast(images.to(dtype))
    assert torch.equal(fast(images), expected)


def test_images_shared_out_among_threads_keep_their_answers(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # where tests have a core each, there is one
    net, images = WithFeatures(cnnzoo.create("resnet20")).eval(), torch.randn(11, 3, 32, 32)
    run = forms.session(forms.exported(net, images[:2]))
    with torch.no_grad():
        logits, features = net(images)
    for many in (1, 2, 3, 4, 11):
        torch.testing.assert_close(run(images[:many]), [logits[:many], features[:many]], rtol=1e-4, atol=1e-4)


def test_it_keeps_what_belongs_to_the_net_and_leaves_the_net_alone():
    net = cnnzoo.create("resnet20")
    net.classes, before = tuple("abcdefghij"), {k: v.clone() for k, v in net.state_dict().items()}
    fast = cnnzoo.optimize(net, "fp32")
    fast(torch.randn(2, 3, 32, 32))
    assert (fast.classes, fast.num_classes) == (net.classes, 10)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not fast.train().training


def test_features_are_what_the_head_sees():
    net = cnnzoo.create("resnet20").eval()
    images = torch.randn(3, 3, 32, 32)
    vectors = cnnzoo.optimize(Features(net), "fp32")(images)
    with torch.no_grad():
        torch.testing.assert_close(net.get_classifier()(vectors), net(images), rtol=1e-4, atol=1e-4)


def test_the_precision_is_kept_where_autocast_is_on():
    net, images = cnnzoo.create("resnet20").eval(), torch.randn(3, 3, 32, 32)
    with torch.autocast("cpu"):
        answers = cnnzoo.optimize(net, "fp32")(images)
        cnnzoo.optimize(net, "int8", calibration=images)
    with torch.no_grad():
        torch.testing.assert_close(answers, net(images), rtol=1e-4, atol=1e-4)


class Undecided(nn.Module):
    """No graph has its number of steps, which the images decide."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 2)

    def forward(self, x):
        x = x.flatten(1)
        for _ in range(int(x.abs().sum() * 10) % 7 + 1):
            x = x * 1.1
        return self.fc(x)


def test_a_net_that_its_graph_would_not_equal_runs_as_it_is():
    net = Undecided().eval()
    fast = Optimized(net, "fp32")
    torch.manual_seed(1)
    for _ in range(4):
        images = torch.randn(2, 3, 2, 2)
        fast._begin()
        with torch.no_grad():
            torch.testing.assert_close(fast(images), net(images))


class Strange(Undecided):
    """By what ONNX does not have."""

    def forward(self, x):
        return self.fc(x.flatten(1) * torch.linalg.svdvals(x.flatten(1)).sum())


def test_a_net_that_cannot_be_exported_runs_as_it_is_and_not_in_int8():
    net, images = Strange().eval(), torch.randn(4, 3, 2, 2)
    with torch.no_grad():
        assert torch.equal(cnnzoo.optimize(net, "fp32")(images), net(images))
    with pytest.raises(InputError, match="this net cannot be exported to ONNX, which int8 needs"):
        cnnzoo.optimize(net, "int8", calibration=images)


class Counting(nn.Module):
    """As tutorials write it; a tracer takes the number of images for fixed."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 2)

    def forward(self, x):
        return self.fc(x.reshape(len(x), -1))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("counts", [(4, 7, 1), (1, 4), (2, 7)])
def test_a_net_that_counts_its_images_takes_any_number(precision, counts):
    net = Counting().eval()
    fast = cnnzoo.optimize(net, precision)
    for count in counts:
        images = torch.randn(count, 3, 2, 2)
        with torch.no_grad():
            torch.testing.assert_close(fast(images), net(images), rtol=0.05, atol=0.05)


def test_layers_are_not_fused_where_the_number_of_images_would_be_fixed(quick_bf16):
    net, images = Counting().eval(), torch.randn(8, 3, 2, 2)
    fast = cnnzoo.optimize(net, "bf16")
    for many in (4, 8, 7):
        with torch.no_grad():
            torch.testing.assert_close(fast(images[:many]), net(images[:many]), rtol=0.05, atol=0.05)


class Signed(nn.Module):
    """Answers bright images otherwise than dark ones."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 2)

    def forward(self, x):
        x = x.flatten(1)
        return self.fc(x) if x.mean() > 0 else self.fc(-3 * x)


def test_layers_are_not_fused_where_a_net_decides_by_what_it_sees(quick_bf16):
    """Traced on bright images, it answered dark ones by what it does for bright ones."""
    net, images = Signed().eval(), torch.rand(4, 3, 2, 2)
    fast = cnnzoo.optimize(net, "bf16")
    for seen in (images, -images):
        with torch.no_grad():
            torch.testing.assert_close(fast(seen), net(seen), rtol=0.05, atol=0.05)


def test_no_int8_is_made_of_a_net_that_decides_by_what_it_sees():
    net, images = Signed().eval(), torch.rand(4, 3, 2, 2)
    with pytest.raises(InputError, match="cannot be exported to ONNX, which int8 needs"):
        cnnzoo.optimize(net, "int8", calibration=images)


DECIDING = {
    "an if": (lambda net, x: -x if x.mean() > 0 else x, True),
    "a number": (lambda net, x: x * float(net.fc(x).max()), True),
    "of what was changed in place": (lambda net, x: x if x.clone().add_(1).relu_()[0, 0] > 0 else -x, True),
    "equal": (lambda net, x: x if torch.equal(x, x.abs()) else -x, True),
    "its own numbers": (lambda net, x: x * net.scale.item() if net.scale > 1 else x, False),
    "shapes": (lambda net, x: -x if len(x) > 1 and x.shape[1] > 3 else x, False),
    "where": (lambda net, x: torch.where(x > 0, x, -x), False),
}


@pytest.mark.parametrize("case", DECIDING)
def test_a_graph_is_made_of_a_net_that_does_the_same_for_all_images_and_of_no_other(case):
    does, decides = DECIDING[case]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)
            self.register_buffer("scale", torch.tensor(2.0))

        def forward(self, x):
            return self.fc(does(self, x))

    assert (forms.exported(Net().eval(), torch.rand(2, 4)) is None) == decides


def test_threads_that_export_at_once_leave_the_terminal_and_the_log_alone():
    nets = [cnnzoo.create("lenet5").eval() for _ in range(4)]
    before = [os.fstat(descriptor) for descriptor in (1, 2)]
    logging.disable(logging.INFO)
    try:
        with ThreadPoolExecutor(4) as pool:
            graphs = [pool.submit(forms.exported, net, torch.zeros(2, 1, 32, 32)) for net in nets]
        assert all(graph.result() for graph in graphs)
        assert [os.fstat(descriptor) for descriptor in (1, 2)] == before
        assert logging.root.manager.disable == logging.INFO
    finally:
        logging.disable(logging.NOTSET)


def test_sixteen_bits_stay_near():
    torch.manual_seed(0)
    net = cnnzoo.create("resnet20").eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
    given = cnnzoo.optimize(net, "bf16")(images)
    assert given.dtype == torch.float32
    assert (given - expected).abs().max() <= 5e-2 * max(1.0, expected.abs().max().item())


@pytest.mark.parametrize(("seconds", "in_16_bits"), [(0.0, False), (0.1, True)])
def test_in_bf16_a_cpu_answers_in_fp32_unless_bf16_is_clearly_faster(monkeypatch, seconds, in_16_bits):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(12, 3)

        def forward(self, x):
            time.sleep(seconds if x.dtype == torch.float32 else 0.0)
            return self.fc(x.flatten(1))

    monkeypatch.setattr("cnnzoo.inference.forms.exported", lambda *_: None)  # a graph would not sleep
    if not in_16_bits:
        monkeypatch.setattr("cnnzoo.inference.forms.timed", lambda *_: 1.0)  # both alike
    net, images = Net().eval(), torch.randn(4, 3, 2, 2)
    given = cnnzoo.optimize(net, "bf16")(images)
    with torch.no_grad():
        assert torch.equal(given, net(images)) == (not in_16_bits)


class Two(nn.Module):
    """Two nets that answer as one."""

    def __init__(self, *members):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x):
        return torch.stack([member(x) for member in self.members]).log_softmax(-1).mean(0)


class Sum(nn.Module):
    """Logits of two layers, added up."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(12, 3), nn.Linear(12, 3)

    def forward(self, x):
        return self.one(x.flatten(1)) + self.other(x.flatten(1))


def test_only_the_layers_that_give_logits_stay_in_32_bits():
    """Of GoogLeNet's features four branches give parts: one in float32 would turn all, and layers could not be
    fused.
    """
    small, large = (cnnzoo.create(name, num_classes=10).eval() for name in ("squeezenet1_1", "googlenet"))
    for net, kept in (
        (large, {"fc"}),
        (Features(large), set()),
        (Features(cnnzoo.create("resnet20")), set()),
        (Sum(), {"one", "other"}),
        (WithFeatures(large), {"net.fc"}),
        (Two(small, large), {"members.0.classifier.1", "members.1.fc"}),
    ):
        fast = forms.converted(net.eval(), torch.bfloat16)
        named = fast.named_parameters()
        assert {name.rpartition(".")[0] for name, weight in named if weight.dtype == torch.float32} == kept


def test_maps_that_other_layers_see_are_given_in_16_bits_too():
    """Taken for a net's last, the layers that give them were in float32, and what follows in bf16 refused them."""
    net, images = cnnzoo.create("nin_cifar10", features_only=True).eval(), torch.randn(2, 3, 32, 32)
    given = forms.converted(net, torch.bfloat16)(images.bfloat16())
    assert [maps.dtype for maps in given] == [torch.bfloat16, torch.bfloat16, torch.float32]
    with torch.no_grad():
        for maps, expected in zip(given, net(images), strict=True):
            torch.testing.assert_close(maps.float(), expected, rtol=0.05, atol=0.05)


class Scores(nn.Module):
    """Of images `(B, 1, 1, K)` their own numbers, as logits that a layer with weights gives."""

    def __init__(self, many: int):
        super().__init__()
        self.same, self.fc = nn.Conv2d(1, 1, 1, bias=False), nn.Linear(many, many, bias=False)
        nn.init.ones_(self.same.weight)
        nn.init.eye_(self.fc.weight)

    def forward(self, x):
        return self.fc(self.same(x).flatten(1))


@pytest.fixture
def quick_bf16(monkeypatch):
    """A CPU that computes in bf16 several times as fast, fastest with layers fused."""
    monkeypatch.setattr("cnnzoo.inference.optimized.pick_precision", lambda *_: "bf16")
    monkeypatch.setattr("cnnzoo.inference.forms.exported", lambda *_: None)
    plain, as_it_is = [], forms.plain

    def remembered(net):
        plain.append(run := as_it_is(net))
        return run

    monkeypatch.setattr("cnnzoo.inference.forms.plain", remembered)
    faster = itertools.count(0.2, -0.01)
    monkeypatch.setattr("cnnzoo.inference.forms.timed", lambda run, images: 1.0 if run in plain else next(faster))


def test_bf16_answers_where_it_is_ahead_by_as_much_as_it_must_be(quick_bf16, monkeypatch):
    net, images = Scores(3).eval(), torch.randn(4, 1, 1, 3)
    with torch.no_grad():
        expected = net(images)
    for gain, in_16_bits in ((4, True), (10, False)):  # of a fifth of the time
        monkeypatch.setattr(optimized, "BF16_GAIN", gain)
        given = cnnzoo.optimize(net, "bf16")(images)
        torch.testing.assert_close(given, expected, rtol=0.05, atol=0.05)
        assert torch.equal(given, expected) != in_16_bits


def test_where_layers_cannot_be_fused_16_bits_answer_as_they_are(quick_bf16, monkeypatch):
    def fails(net):
        def run(images):
            raise RuntimeError("no such processor")

        return run

    net, images = Scores(3).eval(), torch.randn(4, 1, 1, 3)
    fused = cnnzoo.optimize(net, "bf16")(images)
    monkeypatch.setattr(optimized, "Fused", fails)
    assert torch.equal(cnnzoo.optimize(net, "bf16")(images), fused)
    with torch.no_grad():
        assert not torch.equal(net(images), fused)


def test_two_classes_too_close_for_bf16_are_told_apart_in_fp32(quick_bf16):
    close = [[3.0, 16.01, 16.0], [3.0, 16.0, 16.01], [3.0, 20.1, 20.0], [-30.0, -20.0, -20.1]]
    images = torch.tensor([*close, [16.0, 3.0, 1.003]])[:, None, None]
    net = Scores(3).eval()
    with torch.no_grad():
        expected = net(images)
    quick, sure = (cnnzoo.optimize(net, precision)(images) for precision in ("bf16", "auto"))
    assert quick[0, 1] == quick[0, 2]  # rounded to 8 bits
    assert torch.equal(sure[:4], expected[:4])
    assert torch.equal(sure[4], quick[4])
    assert sure[4, 2] != expected[4, 2]  # nothing hangs on it


class WithPixels(Scores):
    """Beside the logits, what they are of."""

    def forward(self, x):
        return super().forward(x), x.flatten(1)


def test_all_that_a_net_says_of_two_such_classes_is_fp32s(quick_bf16):
    images = torch.tensor([[3.0, 16.01, 16.0], [16.01, 3.0, 1.0]])[:, None, None]
    _, pixels = cnnzoo.optimize(WithPixels(3).eval(), "auto")(images)
    assert [torch.equal(given, image.flatten()) for given, image in zip(pixels, images, strict=True)] == [True, False]


def test_what_has_no_two_classes_to_tell_apart_is_answered_in_bf16(quick_bf16):
    for net, images in (
        (Scores(1), torch.randn(4, 1, 1, 1)),
        (cnnzoo.create("nin_cifar10", features_only=True), torch.randn(4, 3, 32, 32)),
    ):
        quick, sure = (cnnzoo.optimize(net, precision)(images) for precision in ("bf16", "auto"))
        assert all(map(torch.equal, quick, sure))


def test_the_last_layer_adds_up_in_32_bits(quick_bf16):
    net = Scores(2).eval()
    with torch.no_grad():
        net.fc.weight += 0.001
    image = torch.tensor([[[[16.0, 1.0]]]])
    with torch.no_grad():
        assert torch.equal(cnnzoo.optimize(net, "bf16")(image), net(image))


def test_layers_are_fused_for_any_number_of_images_that_comes_more_than_once():
    net, before = cnnzoo.create("lenet5").eval(), torch.jit.onednn_fusion_enabled()
    fused, images = Fused(copy.deepcopy(net)), torch.randn(9, 1, 32, 32)
    first = [(8, {8}), (1, {8}), (4, {8}), (4, {4, 8}), (3, {4, 8}), (9, {4, 8, 9})]
    with torch.inference_mode():
        expected = net(images)
        for many, planned in (*first, (7, {4, 8, 9}), (1, {1, 4, 8, 9}), (3, {1, 4, 8, 9})):
            torch.testing.assert_close(fused(images[:many]), expected[:many], rtol=1e-4, atol=1e-4)
            assert fused.planned == planned  # a number that has none is filled up once, or to less than twice as many
    assert torch.jit.onednn_fusion_enabled() == before


@pytest.mark.parametrize("answers", [WithFeatures, lambda net: net])
def test_layers_are_fused_of_nets_that_give_several_answers(answers):
    net = answers(cnnzoo.create("resnet20", features_only=answers is not WithFeatures)).eval()
    fused, images = Fused(copy.deepcopy(net)), torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        for many in (4, 3):
            torch.testing.assert_close(fused(images[:many]), [*net(images[:many])], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "int4"}, "unknown precision 'int4'; did you mean int8"),
        ({"precision": "int8"}, "precision int8 needs calibration: a hundred images or more"),
        ({"precision": "int8", "calibration": torch.zeros(1, 32, 32)}, r"calibration is \(1, 32, 32\), but must be"),
        ({"precision": "int8", "calibration": torch.zeros(0, 1, 32, 32)}, r"calibration is \(0, 1, 32, 32\), but must"),
        ({"precision": "int8", "calibration": np.zeros((1, 1, 32, 32))}, "calibration is a tensor of images"),
        ({"precision": "int8", "calibration": torch.zeros(1, 1, 32, 32).double()}, "calibration is torch.float64, but"),
        ({"precision": "int8", "calibration": torch.full((1, 1, 32, 32), torch.nan)}, "not finite"),
        ({"precision": "fp32", "calibration": torch.zeros(1, 1, 32, 32)}, "calibration is for precision int8, not for"),
    ],
)
def test_what_does_not_go_together_is_told(options, words):
    with pytest.raises(InputError, match=words):
        cnnzoo.optimize(cnnzoo.create("lenet5"), **options)


# ---- in a program that runs for long


@pytest.fixture
def choices(monkeypatch):
    """Of every choice of a form, the thread that made it."""
    made, choose = [], Optimized._fastest

    def counted(fast, net, images):
        made.append(threading.get_ident())
        return choose(fast, net, images)

    monkeypatch.setattr(Optimized, "_fastest", counted)
    return made


def test_a_net_in_another_precision_is_told():
    with pytest.raises(InputError, match=r"the net is in bfloat16; give net\.float\(\)"):
        cnnzoo.optimize(cnnzoo.create("lenet5").bfloat16(), "bf16")


def test_what_is_optimised_is_used_as_it_is(choices):
    fast = cnnzoo.optimize(cnnzoo.create("lenet5"), "fp32")
    assert not any(module.training for module in fast.modules())
    assert cnnzoo.optimize(fast) is fast
    photo = np.zeros((28, 28), np.uint8)
    for _ in range(3):
        cnnzoo.predict(fast, photo)
    assert len(choices) == 1
    with pytest.raises(InputError, match="the net was optimised for fp32; give the plain net for precision bf16"):
        cnnzoo.optimize(fast, "bf16")


def test_threads_choose_once(choices):
    net = cnnzoo.create("lenet5").eval()
    fast, images = cnnzoo.optimize(net, "fp32"), torch.randn(4, 1, 32, 32)
    with torch.no_grad():
        expected = net(images)
    with ThreadPoolExecutor(8) as pool:
        for given in pool.map(fast, [images] * 8):
            torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)
    assert len(choices) == 1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda fast: pickle.loads(pickle.dumps(fast))])
def test_copies_answer_for_themselves(copied):
    fast, images = cnnzoo.optimize(cnnzoo.create("lenet5"), "fp32"), torch.randn(2, 1, 32, 32)
    expected = fast(images)
    twin = copied(fast)
    torch.testing.assert_close(twin(images), expected, rtol=1e-4, atol=1e-4)
    nn.init.zeros_(twin.net.get_classifier().weight)
    torch.testing.assert_close(fast(images), expected, rtol=1e-4, atol=1e-4)


def test_it_answers_by_the_weights_as_they_are():
    net, images = cnnzoo.create("lenet5", drop_rate=0.5), torch.randn(2, 1, 32, 32)
    fast = cnnzoo.optimize(net, "fp32")
    fast(images)

    def learn():
        net(images).square().sum().backward()
        torch.optim.SGD(net.parameters(), lr=0.1, fused=True).step()

    for change in (
        learn,
        lambda: net.load_state_dict(cnnzoo.create("lenet5").state_dict()),
        lambda: net.load_state_dict(cnnzoo.create("lenet5").state_dict(), assign=True),
        lambda: setattr(net.get_classifier().weight, "data", torch.randn_like(net.get_classifier().weight)),
        lambda: net.double().float(),
        net.train,  # whose dropout is not seen
    ):
        change()
        given = fast(images)
        with torch.no_grad():
            torch.testing.assert_close(given, copy.deepcopy(net).eval()(images), rtol=1e-4, atol=1e-4)
    assert net.training


def test_weights_that_another_thread_sees_change_first_count_for_all(monkeypatch):
    """One that had looked up the form before, and compared weights after, answered by the old ones."""
    net, images = cnnzoo.create("lenet5").eval(), torch.randn(2, 1, 32, 32)
    fast, here, enter = cnnzoo.optimize(net, "fp32"), threading.get_ident(), optimized.autocast
    fast(images)

    def overtaken(*given):
        if threading.get_ident() == here:
            with ThreadPoolExecutor(1) as other:
                other.submit(fast, images).result()
        return enter(*given)

    monkeypatch.setattr(optimized, "autocast", overtaken)
    net.load_state_dict(cnnzoo.create("lenet5").state_dict())
    given = fast(images)
    with torch.no_grad():
        torch.testing.assert_close(given, net(images), rtol=1e-4, atol=1e-4)


def test_sizes_without_end_take_no_memory_without_end(choices, monkeypatch):
    monkeypatch.setattr("cnnzoo.inference.optimized.SIZES", 2)
    net = cnnzoo.create("resnet20").eval()
    fast = cnnzoo.optimize(net, "fp32")
    for side in (32, 36, 40, 44, 32):
        images = torch.randn(1, 3, side, side)
        with torch.no_grad():
            torch.testing.assert_close(fast(images), net(images), rtol=1e-4, atol=1e-4)
    assert len(choices) == 2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are Unix's")
def test_a_forked_process_has_threads_of_its_own():
    """As servers that load a net once and then fork."""
    code = """
import os, torch, cnnzoo
torch.set_num_threads(1)  # or torch's own threads would be missed
torch.manual_seed(0)
fast, images = cnnzoo.optimize(cnnzoo.create("lenet5"), "fp32"), torch.randn(4, 1, 32, 32)
expected = fast(images)
if not (child := os.fork()):
    os._exit(not torch.allclose(fast(images), expected, atol=1e-4))
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


# ---- int8


@pytest.fixture(scope="module")
def eight_bits():
    pytest.importorskip("onnx")
    torch.manual_seed(0)
    net, images = (
        cnnzoo.create("resnet20").eval(),
        torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(1)),
    )
    return net, cnnzoo.optimize(net, "int8", calibration=images)


def test_int8_stays_near_on_images_it_was_not_calibrated_on(eight_bits):
    net, fast = eight_bits
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = net(images)
    given = fast(images)
    assert given.dtype == torch.float32
    assert (given - expected).square().mean().sqrt() < 0.1 * expected.std()
    assert not torch.allclose(given, expected, atol=1e-4)  # 8 bits have gone through it


def test_int8_tells_how_often_it_agrees(eight_bits):
    _, fast = eight_bits
    assert 0.8 <= fast.agreement <= 1


def test_int8_is_for_the_size_it_was_calibrated_on(eight_bits):
    _, fast = eight_bits
    with pytest.raises(InputError, match="calibrated on images of 3x32x32, but is given 3x48x48"):
        fast(torch.randn(1, 3, 48, 48))


def test_int8_goes_with_its_copies_and_not_with_other_weights(eight_bits):
    _, fast = eight_bits
    images = torch.randn(2, 3, 32, 32)
    expected = fast(images)
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert torch.equal(twin(images), expected)
        nn.init.zeros_(twin.net.get_classifier().weight)
        with pytest.raises(InputError, match="weights have changed since int8 was calibrated"):
            twin(images)
    assert torch.equal(fast(images), expected)


def test_int8_that_would_answer_differently_is_refused():
    pytest.importorskip("onnx")
    net = nn.Sequential(Far(), nn.Conv2d(3, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match="in int8 this net answers too differently"):
        cnnzoo.optimize(net, "int8", calibration=torch.randn(16, 3, 8, 8))


class Far(nn.Module):
    """Next to a thousand, what differs between images is less than a step of 8 bits."""

    def forward(self, x):
        return x + 1000


# ---- folded BatchNorm


@pytest.mark.parametrize(("name", "left"), [("resnet20", 0), ("googlenet", 0), ("densenet40", 39)])
def test_folding_keeps_the_answers_and_takes_batch_norm_out(name, left):
    torch.manual_seed(0)
    net = cnnzoo.create(name).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # which as new would be the identity
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
            nn.init.uniform_(module.weight, 0.8, 1.2)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    fast = forms.folded(net)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in fast.modules()) == left
    images = torch.randn(2, *net.entry.input_size[:1], 64, 64)
    with torch.no_grad():
        expected = net(images)
        torch.testing.assert_close(fast(images), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


class Unfoldable(nn.Module):
    """Convolutions whose outputs something else sees, or that give several, and a BatchNorm of each batch's own."""

    def __init__(self):
        super().__init__()
        self.seen, self.shared, self.alone = (nn.Conv2d(2, 2, 1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(2, track_running_stats=place < 2) for place in range(3))

    def forward(self, x):
        seen, shared = self.seen(x), self.shared(x)
        return self.norms[0](seen) * seen + self.norms[1](shared) * self.shared(x + 1) + self.norms[2](self.alone(x))


def test_convolutions_that_others_rely_on_are_not_folded():
    net, images = Unfoldable(), torch.randn(3, 2, 4, 4)
    with torch.no_grad():
        net(images + 1)  # what the norms know of
        expected = net.eval()(images)
        torch.testing.assert_close(forms.folded(net)(images), expected)


@pytest.mark.parametrize("name", ["alexnet", "mlp", "lenet5"])
def test_features_are_followed_too(name):
    net = cnnzoo.create(name).eval()
    images = torch.randn(1, *net.entry.input_size)
    fast = forms.folded(Features(net))
    assert isinstance(fast, fx.GraphModule)
    with torch.no_grad():
        torch.testing.assert_close(fast(images), Features(net)(images))


def test_a_net_that_cannot_be_followed_is_not_folded():
    net = Undecided().eval()
    torch.manual_seed(1)
    images = torch.randn(2, 3, 2, 2)
    with torch.no_grad():
        torch.testing.assert_close(forms.folded(net)(images), net(images))
