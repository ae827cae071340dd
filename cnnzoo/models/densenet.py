"""DenseNet. Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks, CVPR 2017,
arXiv 1608.06993.

Every layer of a block sees the maps of all layers before it and adds k of its own, k the growth rate. Sizes are those
of the paper's Table 1 for a 224x224 image; names are torchvision's. B = batch.

    stage    output     121   161   169   201   264
    stem     112x112    convolution 7x7/2
    stage1   56x56      max 3x3/2, then
                        6     6     6     6     6      layers
    stage2   28x28      convolution 1x1, average 2x2, then
                        12    12    12    12    12     layers
    stage3   14x14      the same, then
                        24    36    32    48    64     layers
    stage4   7x7        the same, then
                        16    24    32    32    48     layers
    head     1000       average pool, fully connected

k is 32, in the 161 it is 48; the stem has 2k filters. A layer is a 1x1 convolution to 4k channels and a 3x3 to k, each
after BatchNorm and ReLU; the 1x1 between two stages halves the channels.

The CIFAR nets of section 3 (names: depth and "bc") have a 3x3 stem and three blocks of equally many layers at 32x32,
16x16 and 8x8. With "bc", layers and transitions are as above; without, a layer is one 3x3 convolution and the 1x1
between two blocks keeps the channels.
"""

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn

from cnnzoo.models._base import GlobalPool, HeNet
from cnnzoo.models._blocks import conv1x1, conv3x3
from cnnzoo.registry import Claim, Stage, register


class DenseLayer(nn.Module):
    """`growth` new maps from all maps so far: BatchNorm, ReLU, 3x3 convolution (section 3, "composite function"), with
    `bottleneck` the same after BatchNorm, ReLU and a 1x1 convolution to four times as many.
    """

    def __init__(self, in_channels: int, growth: int, bottleneck: bool, drop_rate: float):
        super().__init__()
        self.bottleneck = bottleneck
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        if bottleneck:
            self.conv1 = conv1x1(in_channels, 4 * growth)
            self.norm2 = nn.BatchNorm2d(4 * growth)
            self.relu2 = nn.ReLU()
            self.conv2 = conv3x3(4 * growth, growth)
        else:
            self.conv1 = conv3x3(in_channels, growth)
        self.dropout = nn.Dropout(drop_rate)

    def forward(self, *maps: Tensor) -> Tensor:
        x = self.conv1(self.relu1(self.norm1(torch.cat(maps, dim=1))))
        if self.bottleneck:
            x = self.conv2(self.relu2(self.norm2(x)))
        return self.dropout(x)


class DenseBlock(nn.ModuleDict):
    """Layers that each see the maps of all before it (Figure 1, equation 2); `options` are those of `DenseLayer`."""

    def __init__(self, depth: int, in_channels: int, growth: int, *options):
        super().__init__()
        for number in range(1, depth + 1):
            self[f"denselayer{number}"] = DenseLayer(in_channels, growth, *options)
            in_channels += growth

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.values():
            maps.append(layer(*maps))
        return torch.cat(maps, dim=1)


class Transition(nn.Sequential):
    """BatchNorm, ReLU, 1x1 convolution and 2x2 average pooling, between two blocks."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU()
        self.conv = conv1x1(in_channels, out_channels)
        self.pool = nn.AvgPool2d(2)


class DenseNet(HeNet):
    """`width` is that of the stem, `depths` counts the layers of each block; `bc` stands for bottleneck layers and for
    halving the channels between blocks (section 3, "DenseNet-BC").

    `memory_efficient`, as torchvision calls it, sets gradient checkpointing (Pleiss, Chen, Huang, Li, van der Maaten,
    Weinberger: Memory-Efficient Implementation of DenseNets, 2017, arXiv 1707.06990).
    """

    head_name = "classifier"
    min_size = 29

    def __init__(
        self,
        growth: int,
        depths: tuple[int, ...],
        width: int,
        bc: bool = True,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
        memory_efficient: bool = False,
    ):
        super().__init__()
        self.in_chans = in_chans
        layers = self.stem(in_chans, width)
        for number, depth in enumerate(depths, start=1):
            layers[f"denseblock{number}"] = DenseBlock(depth, width, growth, bc, drop_rate)
            width += depth * growth
            if number < len(depths):
                before, width = width, width // 2 if bc else width
                layers[f"transition{number}"] = Transition(before, width)
        layers[f"norm{len(depths) + 1}"] = nn.BatchNorm2d(width)
        layers[f"relu{len(depths) + 1}"] = nn.ReLU()
        self.features = nn.Sequential(OrderedDict(layers))
        self.avgpool = GlobalPool(global_pool)
        self.dropout = nn.Identity()  # the layers have theirs
        self.classifier = nn.Linear(width, num_classes)
        self.init_weights()
        self.set_grad_checkpointing(memory_efficient)

    def stem(self, in_chans: int, width: int) -> dict[str, nn.Module]:
        return {
            "conv0": nn.Conv2d(in_chans, width, 7, stride=2, padding=3, bias=False),
            "norm0": nn.BatchNorm2d(width),
            "relu0": nn.ReLU(),
            "pool0": nn.MaxPool2d(3, stride=2, padding=1),
        }

    def forward_features(self, x: Tensor) -> Tensor:
        return self.features(x)  # (B, 1024, 7, 7) in densenet121


class CifarDenseNet(DenseNet):
    """For 32x32 images: the stem keeps the size."""

    min_size = 4

    def stem(self, in_chans: int, width: int) -> dict[str, nn.Module]:
        return {"conv0": conv3x3(in_chans, width)}


_PAPER = "Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks, CVPR 2017, arXiv 1608.06993"
_DROPOUT = (
    "dropout, if asked for, follows the last convolution of a layer; "
    "the authors' code has it after every convolution but the first"
)


def _stages(
    stem: tuple[str, ...], side: int, pool: tuple[str, ...], growth: int, depths: tuple[int, ...], width: int, bc: bool
) -> tuple[Stage, ...]:
    """The stem, then each block with what comes before it: the stem's pooling, or a transition."""
    stages = [Stage("stem", stem, (width, side, side))]
    for number, depth in enumerate(depths, start=1):
        before = (f"features.transition{number - 1}",) if number > 1 else pool
        after = (f"features.norm{number + 1}", f"features.relu{number + 1}") if number == len(depths) else ()
        width += depth * growth
        side = side // 2 if before else side
        stages.append(Stage(f"stage{number}", (*before, f"features.denseblock{number}", *after), (width, side, side)))
        width = width // 2 if bc else width
    return tuple(stages)


_STEM = ("features.conv0", "features.norm0", "features.relu0")
_10_CROPS = ("top-1 error, ILSVRC 2012 validation, 10 crops", "top-5 error, ILSVRC 2012 validation, 10 crops")

# name: growth, depths, width of the stem, parameters, multiply-adds, claims of Table 3
VARIANTS = {
    "densenet121": (32, (6, 12, 24, 16), 64, 7_978_856, 2_834_161_664, ("23.61 %", "6.66 %")),
    "densenet161": (48, (6, 12, 36, 24), 96, 28_681_000, 7_727_907_072, ()),
    "densenet169": (32, (6, 12, 32, 32), 64, 14_149_480, 3_359_843_328, ("22.08 %", "5.92 %")),
    "densenet201": (32, (6, 12, 48, 32), 64, 20_013_928, 4_291_365_888, ("21.46 %", "5.54 %")),
    "densenet264": (32, (6, 12, 64, 48), 64, 33_337_704, 5_751_653_376, ("20.80 %", "5.29 %")),
}

for _name, (_growth, _depths, _width, _params, _macs, _errors) in VARIANTS.items():
    register(
        _name,
        paper=_PAPER,
        year=2016,
        params=_params,
        macs=_macs,
        stages=_stages(_STEM, 112, ("features.pool0",), _growth, _depths, _width, True),
        first_conv="features.conv0",
        claims=tuple(Claim(what, figure) for what, figure in zip(_10_CROPS, _errors, strict=False)),
        differences=(_DROPOUT,),
    )(partial(DenseNet, _growth, _depths, _width))

_SETS = ("CIFAR-10", "CIFAR-10 with augmentation", "CIFAR-100", "CIFAR-100 with augmentation")

# name: growth, layers in each block, width of the stem, bc, parameters, multiply-adds, errors of Table 2 in % on _SETS
CIFAR_VARIANTS = {
    "densenet40": (12, 12, 16, False, 1_019_722, 264_812_928, ("7.00", "5.24", "27.55", "24.42")),
    "densenet100": (12, 32, 16, False, 6_979_642, 1_769_516_448, ("5.77", "4.10", "23.79", "20.20")),
    "densenet100_bc": (12, 16, 24, True, 769_162, 287_929_692, ("5.92", "4.51", "24.15", "22.27")),
    "densenet190_bc": (40, 31, 80, True, 25_624_430, 9_301_945_740, (None, "3.46", None, "17.18")),
    "densenet250_bc": (24, 41, 48, True, 15_324_406, 5_418_785_724, ("5.19", "3.62", "19.64", "17.60")),
}

for _name, (_growth, _depth, _width, _bc, _params, _macs, _errors) in CIFAR_VARIANTS.items():
    register(
        _name,
        paper=_PAPER,
        year=2016,
        input_size=(3, 32, 32),
        num_classes=10,
        params=_params,
        macs=_macs,
        stages=_stages(("features.conv0",), 32, (), _growth, (_depth,) * 3, _width, _bc),
        first_conv="features.conv0",
        claims=tuple(
            Claim(f"error, {data}", f"{figure} %") for data, figure in zip(_SETS, _errors, strict=True) if figure
        ),
        differences=(_DROPOUT,),
    )(partial(CifarDenseNet, _growth, (_depth,) * 3, _width, _bc, num_classes=10))
