"""Inception-ResNet v1 and v2. Szegedy, Ioffe, Vanhoucke, Alemi: Inception-v4, Inception-ResNet and the Impact of
Residual Connections on Learning, AAAI 2017, arXiv 1602.07261.

Inception modules whose output is brought back to the width of their input, scaled down and added to it. Sizes are for a
299x299 image; names are timm's for v2, and v1's are like them. B = batch.

    layer                             v1: output   parameters        v2: output   parameters
    conv2d_1a 3x3/2                   149x149x32                     149x149x32          928
    conv2d_2a 3x3, 2b 3x3             147x147x64                     147x147x64       27,840
    max 3x3/2, conv2d_3b 1x1            73x73x80                       73x73x80        5,280
    conv2d_4a 3x3                      71x71x192                      71x71x192      138,624
    v1 conv2d_4b 3x3/2                 35x35x256      615,552 so far
    v2 max 3x3/2, mixed_5b                                            35x35x320      268,320
    repeat, blocks of 35x35            5 of           77,440         10 of           123,168
    mixed_6a /2                        17x17x896   1,710,080          17x17x1088   2,664,960
    repeat_1, blocks of 17x17         10 of          690,048         20 of         1,126,784
    mixed_7a /2                         8x8x1792   3,346,176           8x8x2080    3,880,960
    repeat_2, block8: blocks of 8x8    5 of        1,600,768         9 + 1 of      2,035,424
    v2 conv2d_7b 1x1                                                   8x8x1536    3,197,952
    average, dropout, fc                    1000   1,793,000               1000    1,537,000
"""

import torch
from torch import Tensor, nn

from cnnzoo.models._base import GlobalPool, HeNet
from cnnzoo.models._blocks import Branches, ConvNormRelu, DropPath, avg_pool3x3, chain, deepening
from cnnzoo.registry import Claim, Stage, register


class Residual(nn.Module):
    """Branches side by side, `width` channels in all, a 1x1 convolution back to `channels`, scaled and added.

    The scale (Figure 20) keeps wide nets from dying early in training.
    """

    def __init__(self, channels: int, width: int, scale: float, drop_path: float, relu: bool, **branches: nn.Module):
        super().__init__()
        self.branches = tuple(branches)
        for name, branch in branches.items():
            self.add_module(name, branch)
        self.conv2d = nn.Conv2d(width, channels, 1)
        self.scale = scale
        self.drop_path = DropPath(drop_path)
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.cat([getattr(self, name)(x) for name in self.branches], dim=1)
        return self.relu(self.drop_path(self.conv2d(maps) * self.scale) + x)

    def extra_repr(self) -> str:
        return f"scale={self.scale}"


def block35(channels: int, widths: tuple[int, int], drop_path: float) -> Residual:
    """On 35x35 maps (Figures 10 and 16): one 3x3 convolution beside two, of `widths`."""
    first, second = widths
    return Residual(
        channels,
        width=64 + second,
        scale=0.17,
        drop_path=drop_path,
        relu=True,
        branch0=ConvNormRelu(channels, 32),
        branch1=chain(channels, (32, 1), (32, 3)),
        branch2=chain(channels, (32, 1), (first, 3), (second, 3)),
    )


def block17(channels: int, widths: tuple[int, int], drop_path: float) -> Residual:
    """On 17x17 maps (Figures 11 and 17): a 7x7 convolution in two parts, of `widths`."""
    across, down = widths
    return Residual(
        channels,
        width=2 * down,
        scale=0.10,
        drop_path=drop_path,
        relu=True,
        branch0=ConvNormRelu(channels, down),
        branch1=chain(channels, (128, 1), (across, (1, 7)), (down, (7, 1))),
    )


def block8(
    channels: int, widths: tuple[int, int], drop_path: float, scale: float = 0.20, relu: bool = True
) -> Residual:
    """On 8x8 maps (Figures 13 and 19): a 3x3 convolution in two parts, of `widths`."""
    across, down = widths
    return Residual(
        channels,
        width=192 + down,
        scale=scale,
        drop_path=drop_path,
        relu=relu,
        branch0=ConvNormRelu(channels, 192),
        branch1=chain(channels, (192, 1), (across, (1, 3)), (down, (3, 1))),
    )


def reduction_a(channels: int, k: int, m: int, n: int) -> Branches:
    """From 35x35 maps to 17x17 (Figure 7), with the letters of Table 1, where l is as large as k in both nets."""
    return Branches(
        branch0=ConvNormRelu(channels, n, 3, 2, 0),
        branch1=chain(channels, (k, 1), (k, 3), (m, 3, 2, 0)),
        branch2=nn.MaxPool2d(3, stride=2),
    )


def reduction_b(channels: int, widths: tuple[int, int, int]) -> Branches:
    """From 17x17 maps to 8x8 (Figures 12 and 18)."""
    one, two, three = widths
    return Branches(
        branch0=chain(channels, (256, 1), (384, 3, 2, 0)),
        branch1=chain(channels, (256, 1), (one, 3, 2, 0)),
        branch2=chain(channels, (256, 1), (two, 3), (three, 3, 2, 0)),
        branch3=nn.MaxPool2d(3, stride=2),
    )


class InceptionResNet(HeNet):
    """What both nets have."""

    head_name = "classif"
    min_size = 75

    def __init__(self, in_chans: int):
        super().__init__()
        self.in_chans = in_chans
        self.conv2d_1a, self.conv2d_2a, self.conv2d_2b = chain(in_chans, (32, 3, 2, 0), (32, 3, 1, 0), (64, 3))
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b, self.conv2d_4a = chain(64, (80, 1), (192, 3, 1, 0))

    def stem(self, x: Tensor) -> Tensor:
        x = self.conv2d_2a(self.conv2d_1a(x))  # (B, 32, 147, 147)
        x = self.conv2d_2b(x)  # (B, 64, 147, 147)
        x = self.conv2d_3b(self.maxpool_3a(x))  # (B, 80, 73, 73)
        return self.conv2d_4a(x)  # (B, 192, 71, 71)


class InceptionResNetV1(InceptionResNet):
    """Images `(B, in_chans, H, W)` to logits `(B, num_classes)` (Figure 15). `drop_rate` is that of the dropout before
    the head, `drop_path_rate` the last block's (see `DropPath`).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.2,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ):
        super().__init__(in_chans)
        rates = deepening(drop_path_rate, 5 + 10 + 5)
        self.conv2d_4b = ConvNormRelu(192, 256, 3, 2, 0)
        self.repeat = nn.Sequential(*(block35(256, (32, 32), rate) for rate in rates[:5]))
        self.mixed_6a = reduction_a(256, k=192, m=256, n=384)
        self.repeat_1 = nn.Sequential(*(block17(896, (128, 128), rate) for rate in rates[5:15]))
        self.mixed_7a = reduction_b(896, (256, 256, 256))
        self.repeat_2 = nn.Sequential(*(block8(1792, (192, 192), rate) for rate in rates[15:]))
        self.avgpool = GlobalPool(global_pool)
        self.dropout = nn.Dropout(drop_rate)
        self.classif = nn.Linear(1792, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # (B, 192, 71, 71)
        x = self.repeat(self.conv2d_4b(x))  # (B, 256, 35, 35)
        x = self.repeat_1(self.mixed_6a(x))  # (B, 896, 17, 17)
        return self.repeat_2(self.mixed_7a(x))  # (B, 1792, 8, 8)


class InceptionResNetV2(InceptionResNet):
    """The wider net (Figure 15, with the widths that its authors published); arguments as in `InceptionResNetV1`."""

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ):
        super().__init__(in_chans)
        rates = deepening(drop_path_rate, 10 + 20 + 10)
        self.maxpool_5a = nn.MaxPool2d(3, stride=2)
        self.mixed_5b = Branches(
            branch0=ConvNormRelu(192, 96),
            branch1=chain(192, (48, 1), (64, 5)),
            branch2=chain(192, (64, 1), (96, 3), (96, 3)),
            branch3=nn.Sequential(avg_pool3x3(), ConvNormRelu(192, 64)),
        )
        self.repeat = nn.Sequential(*(block35(320, (48, 64), rate) for rate in rates[:10]))
        self.mixed_6a = reduction_a(320, k=256, m=384, n=384)
        self.repeat_1 = nn.Sequential(*(block17(1088, (160, 192), rate) for rate in rates[10:30]))
        self.mixed_7a = reduction_b(1088, (288, 288, 320))
        self.repeat_2 = nn.Sequential(*(block8(2080, (224, 256), rate) for rate in rates[30:39]))
        self.block8 = block8(2080, (224, 256), rates[39], scale=1.0, relu=False)
        self.conv2d_7b = ConvNormRelu(2080, 1536)
        self.avgpool = GlobalPool(global_pool)
        self.dropout = nn.Dropout(drop_rate)
        self.classif = nn.Linear(1536, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # (B, 192, 71, 71)
        x = self.repeat(self.mixed_5b(self.maxpool_5a(x)))  # (B, 320, 35, 35)
        x = self.repeat_1(self.mixed_6a(x))  # (B, 1088, 17, 17)
        x = self.block8(self.repeat_2(self.mixed_7a(x)))  # (B, 2080, 8, 8)
        return self.conv2d_7b(x)  # (B, 1536, 8, 8)


_STEM = (
    Stage("stem", ("conv2d_1a", "conv2d_2a", "conv2d_2b"), (64, 147, 147)),
    Stage("stage1", ("maxpool_3a", "conv2d_3b", "conv2d_4a"), (192, 71, 71)),
)
_FACTS = {
    "paper": "Szegedy, Ioffe, Vanhoucke, Alemi: Inception-v4, Inception-ResNet and the Impact of Residual Connections "
    "on Learning, AAAI 2017, arXiv 1602.07261",
    "year": 2016,
    "input_size": (3, 299, 299),
    "first_conv": "conv2d_1a.conv",
}


def _claims(*errors: str) -> tuple[Claim, ...]:
    images = "ILSVRC 2012 validation without blacklisted images"
    kinds = [f"top-{k} error, {images}, {crops}" for crops in ("one crop", "12 crops", "144 crops") for k in (1, 5)]
    return tuple(Claim(kind, f"{error} %") for kind, error in zip(kinds, errors, strict=True))


register(
    "inception_resnet_v1",
    **_FACTS,
    params=22_756_328,
    macs=6_206_361_696,
    stages=(
        *_STEM,
        Stage("stage2", ("conv2d_4b", "repeat"), (256, 35, 35)),
        Stage("stage3", ("mixed_6a", "repeat_1"), (896, 17, 17)),
        Stage("stage4", ("mixed_7a", "repeat_2"), (1792, 8, 8)),
    ),
    claims=_claims("21.3", "5.5", "19.8", "4.6", "18.8", "4.3"),
)(InceptionResNetV1)

register(
    "inception_resnet_v2",
    **_FACTS,
    params=55_843_464,
    macs=13_155_794_016,
    stages=(
        *_STEM,
        Stage("stage2", ("maxpool_5a", "mixed_5b", "repeat"), (320, 35, 35)),
        Stage("stage3", ("mixed_6a", "repeat_1"), (1088, 17, 17)),
        Stage("stage4", ("mixed_7a", "repeat_2", "block8", "conv2d_7b"), (1536, 8, 8)),
    ),
    claims=_claims("19.9", "4.9", "18.7", "4.1", "17.8", "3.7"),
    differences=(
        "the stem is close to Inception v3's, as in the net that the authors published; the paper's is Inception v4's",
        "10, 20 and 10 blocks, in the paper 5, 10 and 5",
        "maps of 320, 1088 and 2080 channels, in the paper 384, 1154 and 2048",
        "the last block has a scale of 1 and no ReLU, and a 1x1 convolution to 1536 channels follows it",
        "no dropout unless drop_rate is set, as in timm; the paper's dropout before the head keeps 80 %",
    ),
)(InceptionResNetV2)
