"""The layer table: the lectures' figures, receptive fields, and its forms."""

import csv
import math
import re
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import cnnzoo
from cnnzoo.receptive_field import Watch
from cnnzoo.summary import COLUMNS


def rows(name, **options):
    return {row.layer: row for row in cnnzoo.summary(name, **options).rows}


# --- the lectures' tables

# VGG-16 as the slides have it: output HxWxC, activations, parameters, multiply-adds.
VGG16 = [
    ("224x224x3", 150_528, 0, 0),
    ("224x224x64", 3_211_264, 1_728 + 64, 86_704_128),
    ("224x224x64", 3_211_264, 36_864 + 64, 1_849_688_064),
    ("112x112x64", 802_816, 0, 0),
    ("112x112x128", 1_605_632, 73_728 + 128, 924_844_032),
    ("112x112x128", 1_605_632, 147_456 + 128, 1_849_688_064),
    ("56x56x128", 401_408, 0, 0),
    ("56x56x256", 802_816, 294_912 + 256, 924_844_032),
    *[("56x56x256", 802_816, 589_824 + 256, 1_849_688_064)] * 2,
    ("28x28x256", 200_704, 0, 0),
    ("28x28x512", 401_408, 1_179_648 + 512, 924_844_032),
    *[("28x28x512", 401_408, 2_359_296 + 512, 1_849_688_064)] * 2,
    ("14x14x512", 100_352, 0, 0),
    *[("14x14x512", 100_352, 2_359_296 + 512, 462_422_016)] * 3,
    ("7x7x512", 25_088, 0, 0),
    ("4096", 4_096, 102_760_448 + 4_096, 102_760_448),
    ("4096", 4_096, 16_777_216 + 4_096, 16_777_216),
    ("1000", 1_000, 4_096_000 + 1_000, 4_096_000),
]


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_vgg16_is_the_slides_table(name):
    lines = list(csv.DictReader(cnnzoo.summary(name).compact().to_csv().splitlines()))
    batch_norms = [0] * len(VGG16)
    if name == "vgg16_bn":  # two numbers a channel, in the row of their convolution
        batch_norms = [2 * int(out.split("x")[2]) if params and "x" in out else 0 for out, _, params, _ in VGG16]
    expected = [(out, a, p + bn, m) for (out, a, p, m), bn in zip(VGG16, batch_norms, strict=True)]
    got = [(x["output"], int(x["activations"]), int(x["params"]), int(x["macs"])) for x in lines[:-1]]
    assert got == expected
    total = lines[-1]
    assert int(total["activations"]) == 15_237_608
    assert int(total["bytes"]) == 60_950_432
    assert int(total["macs"]) == 15_470_264_320
    assert int(total["params"]) == {"vgg16": 138_357_544, "vgg16_bn": 138_365_992}[name]


def test_the_note_on_the_slides_sum_tells_the_sum():
    table = cnnzoo.summary("vgg16").compact()
    (note,) = table.notes
    assert "24 million" in note
    assert f"{table.total.activations:,} numbers" in note
    assert f"{table.total.bytes / 1e6:.2f} MB ({table.total.bytes / 2**20:.2f} MiB)" in note
    for text in (str(table), table.to_markdown(), table._repr_html_()):
        assert f"Note: {note}." in text


def test_the_slides_table_calls_layers_as_the_paper_does():
    layers = [row.layer for row in cnnzoo.summary("vgg16_bn").compact().rows]
    assert layers[:4] == ["input", "conv1_1", "conv1_2", "pool1"]
    assert layers[-5:] == ["conv5_3", "pool5", "fc6", "fc7", "fc8"]
    assert [row.layer for row in cnnzoo.summary("vgg16_bn").rows][:2] == ["features.0", "features.1"]


def test_alexnets_conv1_is_the_slides():
    conv1 = rows("alexnet_2012")["conv1"]
    assert (conv1.output, conv1.params) == ((96, 55, 55), 34_944)
    assert re.search(
        r"conv1 +Conv2d\+ReLU\+LocalResponseNorm +11x11/4 +55x55x96 +34,944",
        str(cnnzoo.summary("alexnet_2012").compact()),
    )


def test_alexnet_has_the_papers_neurons():
    assert sum(row.activations for row in rows("alexnet_2012").values() if row.macs) == 659_272


@pytest.mark.parametrize(
    ("name", "convolutions"),
    [("vgg16", 13), ("googlenet", 57), ("inception_v3", 94), ("resnet50", 53), ("densenet121", 120)],
)
def test_convolutions_are_counted(name, convolutions):
    assert sum(row.kind == "Conv2d" for row in rows(name).values()) == convolutions


# --- kernels


def test_kernels_are_written_as_in_papers():
    table = rows("alexnet_2012")
    assert [table[layer].kernel for layer in ("conv1", "relu1", "pool1", "conv2", "fc6")] == [
        *("11x11/4", "", "3x3/2", "5x5 pad 2 groups 2", "")
    ]
    assert [rows("lenet5_1998")[layer].kernel for layer in ("c1", "s2", "c3")] == ["5x5", "2x2/2", "5x5"]
    net = nn.Sequential(
        nn.Conv2d(1, 1, (1, 7), padding="same"),
        nn.Conv2d(1, 1, (3, 1), stride=(2, 1), padding=(1, 0), dilation=(2, 1)),
        nn.AvgPool2d(2),
    )
    kernels = [row.kernel for row in cnnzoo.summary(net, (1, 20, 20)).rows]
    assert kernels == ["1x7 pad same", "3x1/2x1 pad 1x0 dilation 2x1", "2x2/2"]


# --- receptive fields

# layers, and what a place of each sees
FIELDS = {
    "lenet5": ("c1 s2 c3 s4 c5", (5, 6, 14, 16, 32)),
    "lenet5_1998": ("c1 s2 c3 s4 c5", (5, 6, 14, 16, 32)),
    "alexnet_2012": ("conv1 pool1 conv2 pool2 conv3 conv4 conv5 pool5", (11, 19, 51, 67, 99, 131, 163, 195)),
    "vgg16": (
        "features.2 features.4 features.7 features.9 features.14 features.16 features.21 features.23 features.28 "
        "features.30",
        (5, 6, 14, 16, 40, 44, 92, 100, 196, 212),
    ),
}
# After each of the four stages.
RESNETS = {
    "resnet18": (43, 99, 211, 435),
    "resnet34": (59, 179, 547, 899),
    "resnet50": (35, 91, 267, 427),
    "resnet50_2015": (35, 99, 291, 483),
    "resnet101": (35, 91, 811, 971),
    "resnet152": (35, 155, 1291, 1451),
}


@pytest.mark.parametrize(("name", "layers", "sizes"), [(name, *what) for name, what in FIELDS.items()])
def test_receptive_fields_are_the_published_ones(name, layers, sizes):
    table = rows(name)
    assert tuple(table[layer].receptive_field for layer in layers.split()) == sizes


@pytest.mark.parametrize("name", RESNETS)
def test_receptive_fields_of_resnets_are_the_published_ones(name):
    last = {layer.split(".")[0]: row for layer, row in rows(name).items()}
    assert tuple(last[f"layer{stage}"].receptive_field for stage in (1, 2, 3, 4)) == RESNETS[name]
    assert [last[f"layer{stage}"].stride for stage in (1, 2, 3, 4)] == [4, 8, 16, 32]


def test_strides_of_alexnet():
    table = rows("alexnet_2012")
    assert [table[layer].stride for layer in ("conv1", "pool1", "conv2", "pool2", "pool5")] == [4, 8, 8, 16, 32]


def fields(net, size=(1, 32, 32)):
    return [row.receptive_field for row in cnnzoo.summary(net, size).rows]


def test_m_convolutions_of_3x3_see_2m_plus_1():
    assert fields(nn.Sequential(*[nn.Conv2d(1, 1, 3, padding=1) for _ in range(4)])) == [3, 5, 7, 9]


def test_rectangular_windows_are_followed_along_each_axis():
    net = nn.Sequential(nn.Conv2d(1, 1, (1, 7)), nn.Conv2d(1, 1, (7, 1)), nn.Conv2d(1, 1, (3, 1), stride=(2, 1)))
    assert fields(net) == [7, 7, 9]


@pytest.mark.parametrize(
    ("layer", "field", "stride"),
    [
        (nn.Conv2d(1, 1, 3, dilation=2), 1 + 2 * 4, 2),
        (nn.Conv2d(1, 1, 1, stride=2), 1, 4),
        (nn.MaxPool2d(3, 2), 1 + 2 * 2, 4),
        (nn.MaxPool2d(2), 1 + 1 * 2, 4),
        (nn.MaxPool2d(2, dilation=3), 1 + 3 * 2, 4),
        (nn.AvgPool2d(3, 1, padding=1), 1 + 2 * 2, 2),
        (nn.AdaptiveAvgPool2d(16), 1, 2),  # nothing to do
        (nn.AdaptiveAvgPool2d(4), 1 + 3 * 2, 8),
        (nn.AdaptiveMaxPool2d(4), 1 + 3 * 2, 8),
        (nn.AdaptiveAvgPool2d(1), None, None),
        (nn.AdaptiveMaxPool2d(1), None, None),
        (nn.Flatten(), None, None),
        (nn.BatchNorm2d(1), 1, 2),
        (nn.LocalResponseNorm(5), 1, 2),
        (nn.ZeroPad2d(2), 1, 2),
        (nn.Dropout(), 1, 2),
        (nn.Upsample(scale_factor=2), None, None),  # not known
    ],
    ids=str,
)
def test_field_and_stride_behind_a_layer(layer, field, stride):
    net = nn.Sequential(nn.Conv2d(1, 1, 1, stride=2), layer)
    behind = cnnzoo.summary(net, (1, 32, 32)).rows[-1]
    assert (behind.receptive_field, behind.stride) == (field, stride)


class Branched(nn.Module):
    """Everything that nets do between their layers, with nothing that may hide a pixel from the gradient."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(2, 2, 3, padding=2, dilation=2)
        self.pool = nn.AvgPool2d(3, 2, padding=1)
        self.long = nn.Conv2d(5, 2, (1, 5), padding=(0, 2))
        self.high = nn.Conv2d(2, 2, (3, 1), padding=(1, 0))

    def forward(self, x):
        x = self.stem(x)
        x = torch.cat([self.wide(x), x[:, :1], x.mean(1, keepdim=True), x[:, 1:] * 2], dim=1)
        x = self.pool(x) + nn.functional.pad(x[:, :4, ::2, ::2], (0, 0, 0, 0, 0, 1))
        return self.high(self.long(x).relu())


def test_field_is_what_the_gradient_reaches():
    torch.manual_seed(0)
    net = Branched()
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.1, 1.0)
    image = torch.rand(1, 1, 64, 64, requires_grad=True)
    net(image)[0, 0, 8, 8].backward()
    reached = image.grad[0, 0] != 0
    heights, widths = (int(reached.any(axis).sum()) for axis in (1, 0))
    with torch.no_grad(), Watch(meta := torch.empty(1, 1, 64, 64, device="meta")) as watch:
        field = watch.field(net.to("meta")(meta))
    assert field.size == (heights, widths)
    assert field.stride == (4, 4)
    first = (int(reached.any(axis).nonzero()[0]) for axis in (1, 0))
    assert field.start == tuple(top - 8 * 4 for top in first)


@pytest.mark.parametrize(
    ("layer", "start"),
    [
        (nn.Conv2d(1, 1, 3, padding=(2, 1)), (-5, -3)),
        (nn.MaxPool2d(3, 2, padding=1), (-3, -3)),
        (nn.AvgPool2d(3, 2, padding=1), (-3, -3)),
        (nn.ZeroPad2d((1, 0, 2, 0)), (-5, -3)),  # left, right, top, bottom
        (nn.ReflectionPad2d((3, 0, 0, 0)), (-1, -7)),
        (nn.ReLU(), (-1, -1)),
    ],
    ids=str,
)
def test_start_behind_a_layer(layer, start):
    net = nn.Sequential(nn.Conv2d(1, 1, 3, stride=2, padding=1), layer).to("meta")
    with torch.no_grad(), Watch(image := torch.empty(1, 1, 32, 32, device="meta")) as watch:
        assert watch.field(net(image)).start == start


def test_what_is_cut_off_at_the_top_and_left_moves_the_start():
    image = torch.empty(1, 1, 32, 32, device="meta")
    with Watch(image) as watch:
        assert watch.field(image[:, :, 3:, -30::2]).start == (3, 2)
        assert watch.field(nn.functional.pad(image, (4, 1))).start == (0, -4)


def test_functions_have_windows_as_layers_do_and_what_is_enlarged_sees_the_whole_image():
    image = torch.empty(1, 1, 32, 32, device="meta")
    with Watch(image) as watch:
        assert watch.field(nn.functional.avg_pool2d(image, 2)).stride == (2, 2)
        enlarged = nn.functional.conv_transpose2d(image, torch.empty(1, 1, 3, 3, device="meta"), stride=2)
        assert watch.field(enlarged).size == (math.inf, math.inf)


def test_a_map_of_one_place_keeps_its_field_when_flattened():
    table = rows("lenet5")
    assert [(table[layer].receptive_field, table[layer].stride) for layer in ("c5", "f6")] == [(32, 4), (32, None)]


def test_what_comes_behind_the_mean_of_maps_sees_the_whole_image():
    table = rows("resnet18")
    assert [table[layer].receptive_field for layer in ("layer4.1.relu2", "avgpool", "fc")] == [435, None, None]


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.gate = nn.AdaptiveAvgPool2d(1), nn.Sigmoid()
        self.bias = nn.Embedding(1, 1)
        self.conv = nn.Conv2d(1, 1, 3)

    def forward(self, x):
        return self.conv(x * self.gate(self.mean(x)) + self.bias(torch.zeros(1, dtype=torch.long, device=x.device)))


def test_a_gate_that_sees_the_whole_image_passes_that_on():
    table = {row.layer: row.receptive_field for row in cnnzoo.summary(Gated(), (1, 8, 8)).rows}
    assert table == {"mean": None, "gate": None, "bias": 0, "conv": None}


# --- the compact form


@pytest.mark.parametrize("name", ["lenet5_1998", "alexnet", "resnet18", "resnetv2_50", "densenet121", "inception_v3"])
def test_compact_form_loses_nothing_but_outputs_counted_twice(name):
    table = cnnzoo.summary(name)
    total, compact = table.total, table.compact().total
    assert (compact.params, compact.macs, compact.output) == (total.params, total.macs, total.output)
    layers = [table.paper_names.get(row.layer, row.layer) for row in table.compact().rows if row.macs]
    assert layers == [row.layer for row in table.rows if row.macs]


def test_compact_form_has_the_image_first_and_a_row_for_each_layer():
    compact = cnnzoo.summary("lenet5").compact()
    first, *others = compact.rows
    assert (first.layer, first.output, first.receptive_field, first.stride) == ("input", (1, 32, 32), 1, 1)
    assert [(row.layer, row.kind) for row in others] == [
        *[("c1", "Conv2d+Tanh"), ("s2", "AvgPool2d"), ("c3", "Conv2d+Tanh"), ("s4", "AvgPool2d")],
        *[("c5", "Conv2d+Tanh"), ("f6", "Linear+Tanh"), ("output", "Linear")],
    ]
    assert str(compact).startswith("lenet5, input 32x32x1\n")
    assert compact.compact() is compact


def test_pooling_that_keeps_the_size_stays_a_row():
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(3, 1, padding=1), nn.ReLU())
    kinds = [row.kind for row in cnnzoo.summary(net, (1, 8, 8)).compact().rows]
    assert kinds == ["", "Conv2d", "MaxPool2d+ReLU"]


# --- nets of other kinds


class Scaled(nn.Module):
    """A parameter of its own beside its layers."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc((self.conv(x) * self.scale).mean((2, 3)))


class Attentive(nn.Module):
    """A small vision transformer."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.places = nn.Parameter(torch.zeros(1, 64, 16))
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.hidden = nn.Linear(16, 32)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places  # (B, 64, 16)
        x = x + self.attention(x, x, x)[0]
        return self.fc(self.hidden(x).mean(1))


class Spared(nn.Module):
    """One with a layer that takes no part, whose answer is a dictionary."""

    def __init__(self):
        super().__init__()
        self.conv, self.spare, self.named = nn.Conv2d(3, 2, 3), nn.Linear(5, 5), Named()

    def forward(self, x):
        return self.named(self.conv(x))


class Named(nn.Module):
    def forward(self, x):
        return {"out": 2 * x}


def test_what_takes_no_part_is_not_counted_and_an_answer_may_be_a_dictionary():
    table = cnnzoo.summary(Spared(), (3, 8, 8))
    assert [(row.layer, row.params, row.output) for row in table.rows] == [
        ("conv", 56, (2, 6, 6)),
        ("named", 0, (2, 6, 6)),
    ]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(24, 5, batch_first=True)
        self.fc = nn.Linear(5, 2)

    def forward(self, x):
        rows, _ = self.lstm(x.permute(0, 2, 1, 3).flatten(2))
        return self.fc(rows[:, -1])


class Tied(nn.Module):
    """Two layers of the same weights, and a tensor that is neither parameter nor buffer."""

    def __init__(self):
        super().__init__()
        self.mean = torch.ones(3, 1, 1)
        self.conv1, self.conv2 = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.conv2.weight = self.conv1.weight

    def forward(self, x):
        return self.conv2(self.conv1(x - self.mean))


@pytest.mark.parametrize(
    ("kind", "size", "macs"),
    [
        (Tied, (3, 8, 8), {"conv1": 36 * 81, "conv2": 16 * 81}),
        (Scaled, (3, 8, 8), {"conv": 7_776, "fc": 80, "": 0}),
        (
            Attentive,
            (3, 32, 32),
            # Three projections of 64 places and one of the answers; each place with each, twice.
            {"patches": 49_152, "attention": 4 * 64 * 16**2 + 2 * 64**2 * 16, "hidden": 64 * 16 * 32, "fc": 320, "": 0},
        ),
        (Recurrent, (3, 8, 8), {"lstm": 8 * 4 * 5 * (24 + 5), "fc": 10}),
        (lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=2)), (4, 8, 8), {"0": 36 * 8 * 2 * 9}),
        (lambda: nn.Sequential(nn.ConvTranspose2d(3, 8, 2, 2)), (3, 8, 8), {"0": 64 * 3 * 8 * 4}),
    ],
)
def test_every_parameter_and_multiply_add_of_any_net_is_counted(kind, size, macs):
    net = kind()
    table = cnnzoo.summary(net, size)
    assert {row.layer: row.macs for row in table.rows} == macs
    assert table.total.params == sum(p.numel() for p in net.parameters())


# --- forms


@pytest.fixture(scope="module")
def table():
    return cnnzoo.summary("lenet5")


def test_bytes_are_those_of_float32(table):
    assert all(row.bytes == 4 * row.activations for row in (*table.rows, table.total))


def test_total_sums_the_columns(table):
    for column in ("params", "macs", "activations", "bytes"):
        assert getattr(table.total, column) == sum(getattr(row, column) for row in table.rows)
    assert (table.total.layer, table.total.output) == ("total", (10,))


def test_text_has_a_line_for_each_row(table):
    title, head, _, *lines, _, total = str(table).splitlines()
    assert title == "lenet5, input 1x32x32"
    assert head.split() == list(COLUMNS)
    assert lines[0].split() == ["c1", "Conv2d", "5x5", "6x28x28", "156", "117,600", "4,704", "18,816", "5", "1"]
    assert [line.split()[0] for line in lines] == [row.layer for row in table.rows]
    assert total.split()[:4] == ["total", "10", "61,706", "416,520"]


def test_csv_has_plain_numbers(table):
    lines = list(csv.DictReader(table.to_csv().splitlines()))
    assert tuple(lines[0]) == COLUMNS
    assert tuple(lines[0].values()) == ("c1", "Conv2d", "5x5", "6x28x28", "156", "117600", "4704", "18816", "5", "1")
    assert [line["layer"] for line in lines] == [*(row.layer for row in table.rows), "total"]
    mlp = list(csv.DictReader(cnnzoo.summary("mlp").to_csv().splitlines()))
    assert (mlp[0]["receptive_field"], mlp[0]["stride"]) == ("whole image", "")


def test_markdown_is_a_table(table):
    head, rule, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.to_markdown().splitlines())
    assert tuple(head) == COLUMNS
    assert rule == ["---"] * 4 + ["---:"] * 6
    assert [line[0] for line in lines] == [*(row.layer for row in table.rows), "total"]
    assert table._repr_markdown_() == f"**lenet5, input 1x32x32**\n\n{table.to_markdown()}"


def test_a_notebook_shows_a_table(table):
    class Reader(HTMLParser):
        def __init__(self):
            super().__init__()
            self.cells, self.caption, self.inside = [], "", ""

        def handle_starttag(self, tag, attributes):
            self.inside = tag
            if tag == "tr":
                self.cells.append([])
            elif tag in ("td", "th"):
                self.cells[-1].append("")

        def handle_endtag(self, tag):
            self.inside = ""

        def handle_data(self, data):
            if self.inside in ("td", "th"):
                self.cells[-1][-1] += data
            elif self.inside == "caption":
                self.caption += data

    reader = Reader()
    reader.feed(table._repr_html_())
    assert reader.caption == "lenet5, input 1x32x32"
    assert reader.cells[0] == list(COLUMNS)
    assert reader.cells[1] == ["c1", "Conv2d", "5x5", "6x28x28", "156", "117,600", "4,704", "18,816", "5", "1"]
    assert len(reader.cells) == len(table.rows) + 2


def test_names_are_escaped():
    net = nn.Sequential()
    net.add_module("<b>", nn.ReLU())
    assert '<td style="text-align: left">&lt;b&gt;</td>' in cnnzoo.summary(net, (1, 4, 4))._repr_html_()


def test_a_net_without_an_entry_needs_a_size():
    with pytest.raises(cnnzoo.InputError, match="say for which input_size"):
        cnnzoo.summary(nn.ReLU())


@pytest.mark.parametrize(
    ("options", "size"), [({"features_only": True}, (3, 224, 224)), ({"in_chans": 1}, (1, 224, 224))]
)
def test_a_net_knows_its_own_size(options, size):
    assert cnnzoo.summary(cnnzoo.create("squeezenet1_1", **options)).input_size == size


class Choosing(nn.Module):
    def forward(self, x):
        return x if x.mean() > 0 else -x


def test_a_net_that_cannot_be_followed_is_told():
    with pytest.raises(cnnzoo.InputError, match=r"Choosing cannot be followed without values, for an image of 1x4x4: "):
        cnnzoo.summary(Choosing(), (1, 4, 4))
    with pytest.raises(cnnzoo.InputError, match="LazyConv2d has layers without sizes; give it an image first"):
        cnnzoo.summary(nn.LazyConv2d(2, 3), (1, 4, 4))


def test_the_net_is_left_alone():
    net = cnnzoo.create("lenet5")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    cnnzoo.summary(net)
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_run_gives_the_table_of_its_net_at_its_size(tmp_path, cli):
    made = {"model": {"name": "resnet20"}, "data": {"source": "digits", "size": 16}, "train": {"epochs": 1}}
    run = cnnzoo.train({**made, "run": str(tmp_path / "r")}, with_report=False)
    table = cnnzoo.summary(run)
    net = cnnzoo.load(run)
    assert table.input_size == (1, 16, 16)
    assert table.total.params == sum(p.numel() for p in net.parameters())
    assert cli("summary", run.path).out == f"{table}\n"
    assert cli("info", run.path).out == cli("info", "resnet20").out
    (tmp_path / "resnet18").mkdir()  # a folder that is no run hides no net
    assert cli("summary", "resnet18").code == 0
