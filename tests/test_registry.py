"""Names: listing, finding, and registering nets, ours and a user's."""

import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import cnnzoo
from cnnzoo.registry import Claim, Stage, unregister

ROOT = Path(__file__).parent.parent


class Tiny(nn.Module):
    """A user's net: nothing of cnnzoo in it."""

    def __init__(self, num_classes: int = 3, in_chans: int = 2, width: int = 4):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, width, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(width, num_classes)

    def forward_features(self, x):
        return self.pool(self.conv(x))

    def forward(self, x):
        return self.fc(self.forward_features(x).mean((2, 3)))


@pytest.fixture
def tiny():
    cnnzoo.register(
        "tiny",
        input_size=(2, 16, 16),
        num_classes=3,
        stages=(Stage("stage1", ("conv", "pool"), (4, 8, 8)),),
        head="fc",
        first_conv="conv",
    )(Tiny)
    yield "tiny"
    unregister("tiny")


def test_no_pattern_lists_every_net():
    assert {"mlp", "lenet5", "alexnet", "vgg16", "resnet50", "resnet20"} <= set(cnnzoo.list_models())


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("vgg??", ["vgg11", "vgg13", "vgg16", "vgg19"]),
        ("vgg*_bn", ["vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]),
        ("resnet*_2015", ["resnet50_2015", "resnet101_2015", "resnet152_2015"]),
        ("vgg1[16]", ["vgg11", "vgg16"]),
        ("resnet50", ["resnet50"]),
        ("nothing*", []),
    ],
)
def test_wildcards_choose_names(pattern, expected):
    assert cnnzoo.list_models(pattern) == expected


@pytest.mark.parametrize(
    "names", [("vgg11", "vgg16", "vgg19"), ("resnet18", "resnet20", "resnet101", "resnet110"), ("plain18", "plain20")]
)
def test_numbers_in_names_are_in_natural_order(names):
    assert [name for name in cnnzoo.list_models() if name in names] == list(names)


def test_pretrained_lists_only_nets_with_weights():
    names = cnnzoo.list_models(pretrained=True)
    assert {"alexnet", "vgg16_bn", "resnet50"} <= set(names)
    assert not {"mlp", "lenet5_1998", "alexnet_2012", "plain18", "plain20", "resnet50_2015"} & set(names)


@pytest.mark.parametrize(
    ("typed", "meant"), [("resent50", "resnet50"), ("ResNet50", "resnet50"), ("vgg_16", "vgg16"), ("lenet", "lenet5")]
)
@pytest.mark.parametrize("ask", [cnnzoo.create, cnnzoo.info])
def test_near_miss_is_answered_by_the_nearest_name(ask, typed, meant):
    with pytest.raises(cnnzoo.InputError, match=rf"unknown model '{typed}'; did you mean .*\b{meant}\b"):
        ask(typed)


def test_far_miss_says_so():
    with pytest.raises(cnnzoo.InputError, match=r"unknown model 'qqq'; there are \d+, none like it"):
        cnnzoo.create("qqq")


@pytest.mark.parametrize(("hub", "pretrained"), [("", False), ("hf-hub:timm/", False), ("hf-hub:timm/", True)])
def test_a_name_with_the_tag_of_its_weights_is_told_apart(hub, pretrained):
    with pytest.raises(cnnzoo.InputError, match=r"its weights go with pretrained: resnet18, pretrained tv_in1k$"):
        cnnzoo.create(f"{hub}resnet18.tv_in1k", pretrained)


def test_second_registration_names_both_modules():
    with pytest.raises(cnnzoo.InputError, match="'resnet18' is registered twice") as refusal:
        cnnzoo.register("resnet18")(Tiny)
    assert "cnnzoo.models.resnet" in str(refusal.value)
    assert __name__ in str(refusal.value)
    assert cnnzoo.info("resnet18").params == 11_689_512


def test_a_definition_that_is_run_again_takes_its_own_place():
    cell = """
import cnnzoo
from torch import nn

@cnnzoo.register("mine", input_size=(3, 8, 8), num_classes={classes})
class {name}(nn.Module):
    def __init__(self, num_classes=10, in_chans=3):
        super().__init__()
"""
    notebook, module = {"__name__": "__main__"}, {"__name__": "my_nets"}
    try:
        for classes, name, home in ((2, "Mine", notebook), (3, "Better", notebook)):
            exec(cell.format(classes=classes, name=name), home)
            assert cnnzoo.info("mine").num_classes == classes
        unregister("mine")
        for classes in (4, 5):  # as a module's reload does
            exec(cell.format(classes=classes, name="Mine"), module)
            assert cnnzoo.info("mine").num_classes == classes
        with pytest.raises(cnnzoo.InputError, match="'mine' is registered twice, in my_nets and in my_nets"):
            exec(cell.format(classes=6, name="Other"), module)
    finally:
        unregister("mine")


def test_register_gives_the_builder_back(tiny):
    assert cnnzoo.info(tiny).build is Tiny


def test_unknown_fact_is_refused():
    with pytest.raises(cnnzoo.InputError, match=r"of tiny 'parameters'; did you mean params or paper_names\?"):
        cnnzoo.register("tiny", parameters=1)(Tiny)
    assert cnnzoo.list_models("tiny") == []


class Own(cnnzoo.Net):
    """A user's net that keeps the contract."""

    head_name, aux, min_size = "output", ("side.fc",), 8


@pytest.mark.parametrize("builder", [Own, partial(Own)])
@pytest.mark.parametrize(
    ("by_hand", "expected"), [({}, ("output", ("side",), 8)), ({"head": "fc", "min_size": 16}, ("fc", ("side",), 16))]
)
def test_what_a_class_says_of_itself_need_not_be_registered_but_may_be(builder, by_hand, expected):
    cnnzoo.register("own", **by_hand)(builder)
    try:
        entry = cnnzoo.info("own")
    finally:
        unregister("own")
    assert (entry.head, entry.aux, entry.min_size) == expected


def test_users_net_is_listed(tiny):
    assert cnnzoo.list_models("tin*") == ["tiny"]


def test_users_net_is_built_with_the_common_arguments(tiny):
    net = cnnzoo.create(tiny, num_classes=7, in_chans=1)
    assert net(torch.rand(2, 1, 16, 16)).shape == (2, 7)


def test_users_net_takes_its_own_arguments(tiny):
    assert cnnzoo.create(tiny, width=6).conv.out_channels == 6


def test_users_net_without_an_argument_says_so(tiny):
    with pytest.raises(cnnzoo.InputError, match="unknown argument of tiny 'drop_rate'; known: num_classes, in_chans"):
        cnnzoo.create(tiny, drop_rate=0.5)


def test_users_net_has_a_summary(tiny):
    total = cnnzoo.summary(tiny).total
    assert (total.output, total.params, total.macs) == ((3,), 91, 18_444)


def test_users_net_gives_feature_maps(tiny):
    net = cnnzoo.create(tiny, features_only=True)
    assert [f.shape for f in net(torch.rand(1, 2, 16, 16))] == [(1, 4, 8, 8)]


def test_users_net_loads_weights_of_other_classes_and_channels(tiny, tmp_path):
    torch.save(Tiny().state_dict(), tmp_path / "tiny.pth")
    report = cnnzoo.create(tiny, tmp_path / "tiny.pth", num_classes=5, in_chans=1).load_report
    assert (report.loaded, report.adapted) == (("conv.bias",), ("conv.weight",))
    assert report.initialised == ("fc.weight", "fc.bias")


def test_users_net_is_told_its_classes_and_channels(tiny):
    for options, facts in (({}, (3, 2)), ({"num_classes": 7, "in_chans": 1}, (7, 1))):
        net = cnnzoo.create(tiny, **options)
        assert (net.num_classes, net.in_chans) == facts


def test_users_net_without_a_head_gives_what_the_head_saw(tiny):
    net = cnnzoo.create(tiny, num_classes=0)
    assert net.num_classes == 0
    assert net(torch.rand(5, 2, 16, 16)).shape == (5, 4)


def test_users_net_whose_head_nobody_named_keeps_it():
    cnnzoo.register("bare")(Tiny)
    try:
        with pytest.raises(cnnzoo.InputError, match="bare is registered without its head, so that cannot be taken off"):
            cnnzoo.create("bare", num_classes=0)
    finally:
        unregister("bare")


class Plain(nn.Module):
    """A user's net that has but a forward, and looks at values while it is made."""

    def __init__(self, num_classes: int = 3, in_chans: int = 1):
        super().__init__()
        widths = (torch.linspace(4, 8, 2).numpy()).astype(int)
        self.conv = nn.Conv2d(in_chans, int(widths[0]), 3, padding=1)
        self.fc = nn.Linear(int(widths[0]), num_classes)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))


@pytest.fixture
def plain():
    cnnzoo.register(
        "plain", input_size=(1, 8, 8), stages=(Stage("stage1", ("conv",), (4, 8, 8)),), head="fc", first_conv="conv"
    )(Plain)
    yield "plain"
    unregister("plain")


def test_users_net_that_has_but_a_forward_gives_feature_maps(plain):
    net = cnnzoo.create(plain, features_only=True)
    assert [f.shape for f in net(torch.rand(2, 1, 8, 8))] == [(2, 4, 8, 8)]


def test_users_net_trains_and_is_all_that_ours_are(plain, tmp_path):
    config = {"model": {"name": plain}, "data": {"source": "digits"}, "run": tmp_path / "run"}
    run = cnnzoo.train({**config, "train": {"epochs": 1, "compile": "off", "device": "cpu"}})
    net = cnnzoo.load(run)
    assert (net.num_classes, net.in_chans, net.classes) == (10, 1, tuple("0123456789"))
    assert cnnzoo.evaluate(run).count == 359
    picture = torch.zeros(8, 8, dtype=torch.uint8).numpy()
    assert cnnzoo.predict(run, [picture]).probabilities.shape == (1, 10)
    assert cnnzoo.export(run, tmp_path / "net.pt", format="torch").classes == net.classes


@pytest.mark.parametrize(
    "facts",
    [{"params": 91}, {"macs": 18_444}, {"claims": (Claim("parameters", "91"), Claim("multiply-adds", "18 thousand"))}],
)
def test_a_net_registered_with_some_facts_has_a_page(facts):
    cnnzoo.register("some", **facts)(Tiny)
    try:
        page = f"{cnnzoo.info('some')}\n"
    finally:
        unregister("some")
    assert ("  parameters  91\n" in page) == ("params" in facts)
    assert ("  mult-adds   18,444\n" in page) == ("macs" in facts)
    assert page.count("not run") == len(facts.get("claims", ()))


def test_net_without_facts_is_built():
    cnnzoo.register("bare")(Tiny)
    try:
        assert cnnzoo.create("bare")(torch.rand(2, 2, 8, 8)).shape == (2, 3)
    finally:
        unregister("bare")


def test_unregistered_name_is_unknown(tiny):
    unregister(tiny)
    with pytest.raises(cnnzoo.InputError, match="unknown model 'tiny'"):
        cnnzoo.create(tiny)
    cnnzoo.register("tiny")(Tiny)


@pytest.mark.parametrize("name", cnnzoo.list_models())
def test_every_net_states_its_facts(name):
    entry = cnnzoo.info(name)
    assert entry.name == name
    assert all([entry.paper, entry.year, entry.params, entry.macs, entry.stages, entry.head, entry.first_conv])


@pytest.mark.parametrize("name", [name for name in cnnzoo.list_models() if re.search(r"_\d{4}(_|$)", name)])
def test_year_in_a_name_is_the_papers(name):
    assert f"_{cnnzoo.info(name).year}" in name


NEW_NET = """
from torch import nn

from cnnzoo.models._base import GlobalPool, HeNet
from cnnzoo.registry import Stage, register


@register(
    "tinynet", paper="Nobody: Nothing", year=2026, input_size=(1, 32, 32), num_classes=10, params=162, macs=73_808,
    stages=(Stage("stage1", ("conv", "relu"), (8, 32, 32)),), head="fc", first_conv="conv",
)
class TinyNet(HeNet):
    def __init__(self, num_classes=10, in_chans=1, drop_rate=0.0, global_pool="avg"):
        super().__init__()
        self.in_chans = in_chans
        self.conv = nn.Conv2d(in_chans, 8, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        self.avgpool = GlobalPool(global_pool)
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(8, num_classes)
        self.init_weights()

    def forward_features(self, x):
        return self.relu(self.conv(x))
"""


COMMANDS = """
from cnnzoo.cli import main

for line in (
    "list tiny*",
    "info tinynet",
    "summary tinynet",
    "train --model.name tinynet --data.source digits --train.epochs 1 --run runs/tiny",
    "evaluate runs/tiny",
):
    print(">", line)
    assert main(line.split()) == 0
"""


def test_a_new_net_is_one_new_file_and_nothing_else(tmp_path):
    """In a copy of the package with one file more, every command knows the net, and so does the trainer."""
    shutil.copytree(ROOT / "cnnzoo", tmp_path / "cnnzoo", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "cnnzoo" / "models" / "tinynet.py").write_text(NEW_NET)
    done = subprocess.run([sys.executable, "-c", COMMANDS], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = dict(zip(*[iter(re.split(r"^> (.*)\n", done.stdout, flags=re.MULTILINE)[1:])] * 2, strict=True))
    assert told["list tiny*"] == "tinynet\n"
    assert "Nobody: Nothing" in told["info tinynet"]
    assert told["summary tinynet"].splitlines()[-1].split()[2:4] == ["162", "73,808"]
    assert told["evaluate runs/tiny"].startswith("top-1 ")
    assert (tmp_path / "runs" / "tiny" / "report.html").exists()
