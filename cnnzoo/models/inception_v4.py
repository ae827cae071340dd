"""Inception v4. Szegedy, Ioffe, Vanhoucke, Alemi: Inception-v4, Inception-ResNet and the Impact of Residual Connections
on Learning, AAAI 2017, arXiv 1602.07261.

Sizes are those of the paper's Figures 3 to 9 for a 299x299 image; names are timm's. B = batch.

    features   layer                  output        parameters
    0          3x3/2                  149x149x32           928        Figure 3
    1          3x3                    147x147x32         9,280
    2          3x3, padded            147x147x64        18,560
    3          max and 3x3/2            73x73x160       55,488
    4          3x3 and 7x7 in parts     71x71x192      189,312
    5          3x3/2 and max            35x35x384      332,160
    6 to 9     Inception-A              35x35x384      317,632 each   Figure 4
    10         Reduction-A              17x17x1024   2,306,112        Figure 7
    11 to 17   Inception-B              17x17x1024   2,936,256 each   Figure 5
    18         Reduction-B                8x8x1536   2,747,392        Figure 8
    19 to 21   Inception-C                8x8x1536   4,553,088 each   Figure 6
               average, dropout, fc           1000   1,537,000
"""

import torch
from torch import Tensor, nn

from cnnzoo.models._base import GlobalPool, HeNet
from cnnzoo.models._blocks import Branches, ConvNormRelu, avg_pool3x3, chain, numbered
from cnnzoo.registry import Claim, Stage, register


class Mixed3a(Branches):
    def __init__(self):
        super().__init__(maxpool=nn.MaxPool2d(3, stride=2), conv=ConvNormRelu(64, 96, 3, 2, 0))


class Mixed4a(Branches):
    def __init__(self):
        super().__init__(
            branch0=chain(160, (64, 1), (96, 3, 1, 0)),
            branch1=chain(160, (64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3, 1, 0)),
        )


class Mixed5a(Branches):
    def __init__(self):
        super().__init__(conv=ConvNormRelu(192, 192, 3, 2, 0), maxpool=nn.MaxPool2d(3, stride=2))


def pool_branch(in_channels: int, out_channels: int) -> nn.Sequential:
    """Average pooling, then a 1x1 convolution."""
    return nn.Sequential(avg_pool3x3(), ConvNormRelu(in_channels, out_channels))


class InceptionA(Branches):
    def __init__(self):
        super().__init__(
            branch0=ConvNormRelu(384, 96),
            branch1=chain(384, (64, 1), (96, 3)),
            branch2=chain(384, (64, 1), (96, 3), (96, 3)),
            branch3=pool_branch(384, 96),
        )


class ReductionA(Branches):
    def __init__(self):
        super().__init__(
            branch0=ConvNormRelu(384, 384, 3, 2, 0),
            branch1=chain(384, (192, 1), (224, 3), (256, 3, 2, 0)),
            branch2=nn.MaxPool2d(3, stride=2),
        )


class InceptionB(Branches):
    def __init__(self):
        super().__init__(
            branch0=ConvNormRelu(1024, 384),
            branch1=chain(1024, (192, 1), (224, (1, 7)), (256, (7, 1))),
            branch2=chain(1024, (192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))),
            branch3=pool_branch(1024, 128),
        )


class ReductionB(Branches):
    def __init__(self):
        super().__init__(
            branch0=chain(1024, (192, 1), (192, 3, 2, 0)),
            branch1=chain(1024, (256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, 2, 0)),
            branch2=nn.MaxPool2d(3, stride=2),
        )


class InceptionC(nn.Module):
    """Two of the branches end in 1x3 and 3x1 side by side."""

    def __init__(self):
        super().__init__()
        self.branch0 = ConvNormRelu(1536, 256)
        self.branch1_0 = ConvNormRelu(1536, 384)
        self.branch1_1a = ConvNormRelu(384, 256, (1, 3))
        self.branch1_1b = ConvNormRelu(384, 256, (3, 1))
        self.branch2_0 = ConvNormRelu(1536, 384)
        self.branch2_1 = ConvNormRelu(384, 448, (3, 1))
        self.branch2_2 = ConvNormRelu(448, 512, (1, 3))
        self.branch2_3a = ConvNormRelu(512, 256, (1, 3))
        self.branch2_3b = ConvNormRelu(512, 256, (3, 1))
        self.branch3 = pool_branch(1536, 256)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.branch0(x)]
        y = self.branch1_0(x)
        maps += [self.branch1_1a(y), self.branch1_1b(y)]
        y = self.branch2_2(self.branch2_1(self.branch2_0(x)))
        maps += [self.branch2_3a(y), self.branch2_3b(y)]
        return torch.cat([*maps, self.branch3(x)], dim=1)


class InceptionV4(HeNet):
    """Images `(B, in_chans, H, W)` to logits `(B, num_classes)` (Figure 9).

    `drop_rate` is that of the dropout before the head.
    """

    head_name = "last_linear"
    min_size = 75

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.0, global_pool: str = "avg"):
        super().__init__()
        self.in_chans = in_chans
        self.features = nn.Sequential(
            *chain(in_chans, (32, 3, 2, 0), (32, 3, 1, 0), (64, 3)),
            Mixed3a(),
            Mixed4a(),
            Mixed5a(),
            *(InceptionA() for _ in range(4)),
            ReductionA(),
            *(InceptionB() for _ in range(7)),
            ReductionB(),
            *(InceptionC() for _ in range(3)),
        )
        self.avgpool = GlobalPool(global_pool)
        self.dropout = nn.Dropout(drop_rate)
        self.last_linear = nn.Linear(1536, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        return self.features(x)  # (B, 1536, 8, 8)


_ERROR = "ILSVRC 2012 validation without blacklisted images"

register(
    "inception_v4",
    paper="Szegedy, Ioffe, Vanhoucke, Alemi: Inception-v4, Inception-ResNet and the Impact of Residual Connections on "
    "Learning, AAAI 2017, arXiv 1602.07261",
    year=2016,
    input_size=(3, 299, 299),
    params=42_679_816,
    macs=12_253_974_624,
    stages=(
        Stage("stem", numbered("features", 0, 2), (64, 147, 147)),
        Stage("stage1", numbered("features", 3, 4), (192, 71, 71)),
        Stage("stage2", numbered("features", 5, 9), (384, 35, 35)),
        Stage("stage3", numbered("features", 10, 17), (1024, 17, 17)),
        Stage("stage4", numbered("features", 18, 21), (1536, 8, 8)),
    ),
    first_conv="features.0.conv",
    claims=(
        Claim(f"top-1 error, {_ERROR}, one crop", "20.0 %"),
        Claim(f"top-5 error, {_ERROR}, one crop", "5.0 %"),
        Claim(f"top-1 error, {_ERROR}, 12 crops", "18.7 %"),
        Claim(f"top-5 error, {_ERROR}, 12 crops", "4.2 %"),
        Claim(f"top-1 error, {_ERROR}, 144 crops", "17.7 %"),
        Claim(f"top-5 error, {_ERROR}, 144 crops", "3.8 %"),
    ),
    differences=("no dropout unless drop_rate is set, as in timm; the paper's dropout before the head keeps 80 %",),
)(InceptionV4)
