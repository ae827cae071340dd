"""Xception. Chollet: Xception: Deep Learning with Depthwise Separable Convolutions, CVPR 2017, arXiv 1610.02357.

Convolutions see each map by itself (3x3), then mix the maps (1x1). Sizes are those of the paper's Figure 5 for a
299x299 image; names are timm's for its `legacy_xception`. B = batch, S = separable convolution.

    layer                                   output        parameters
    conv1 3x3/2, ReLU                       149x149x32           928
    conv2 3x3, ReLU                         147x147x64        18,560
    block1  S 128, ReLU, S 128, max /2       74x74x128        35,264
    block2  twice ReLU, S 256; max /2        37x37x256       136,064
    block3  twice ReLU, S 728; max /2        19x19x728       915,944
    block4 to block11, each thrice
            ReLU, S 728                      19x19x728     1,613,976 each
    block12 ReLU, S 728, ReLU, S 1024,
            max /2                          10x10x1024     2,039,584
    conv3 S, ReLU                           10x10x1536     1,585,152
    conv4 S, ReLU                           10x10x2048     3,163,648
    average, dropout, fc                          1000     2,049,000

BatchNorm follows every convolution. Each block adds its input, through a 1x1 convolution where the shape changes.
"""

from torch import Tensor, nn

from cnnzoo.models._base import GlobalPool, HeNet
from cnnzoo.models._blocks import DropPath, conv1x1, deepening
from cnnzoo.registry import Claim, Stage, register


class SeparableConv(nn.Module):
    """A 3x3 convolution of each map by itself, then a 1x1 of all, with nothing between (Figure 4, turned round)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = conv1x1(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.conv1(x))


class Block(nn.Module):
    """A separable convolution to each of `widths`, with a ReLU before it, and a shortcut.

    With a stride of 2 the block ends in max pooling, and the shortcut is a 1x1 convolution.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], stride: int, drop_path: float, first_relu: bool = True):
        super().__init__()
        self.skip = conv1x1(channels, widths[-1], stride) if stride > 1 else None
        self.skipbn = nn.BatchNorm2d(widths[-1]) if stride > 1 else None
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.ReLU(), SeparableConv(channels, width), nn.BatchNorm2d(width)]
            channels = width
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, padding=1))
        self.rep = nn.Sequential(*layers[0 if first_relu else 1 :])
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop_path(self.rep(x))
        return y + (x if self.skip is None else self.skipbn(self.skip(x)))


class Xception(HeNet):
    """Images `(B, in_chans, H, W)` to logits `(B, num_classes)` (Figure 5).

    `drop_rate` is that of the dropout before the head, `drop_path_rate` the last block's (see `DropPath`).
    """

    min_size = 7

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ):
        super().__init__()
        rates = deepening(drop_path_rate, 12)
        self.in_chans = in_chans
        self.conv1 = nn.Conv2d(in_chans, 32, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(32, 64, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.act2 = nn.ReLU()
        self.block1 = Block(64, (128, 128), 2, rates[0], first_relu=False)
        self.block2 = Block(128, (256, 256), 2, rates[1])
        self.block3 = Block(256, (728, 728), 2, rates[2])
        for number in range(4, 12):
            self.add_module(f"block{number}", Block(728, (728, 728, 728), 1, rates[number - 1]))
        self.block12 = Block(728, (728, 1024), 2, rates[11])
        self.conv3 = SeparableConv(1024, 1536)
        self.bn3 = nn.BatchNorm2d(1536)
        self.act3 = nn.ReLU()
        self.conv4 = SeparableConv(1536, 2048)
        self.bn4 = nn.BatchNorm2d(2048)
        self.act4 = nn.ReLU()
        self.avgpool = GlobalPool(global_pool)
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(2048, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))  # (B, 32, 149, 149)
        x = self.act2(self.bn2(self.conv2(x)))  # (B, 64, 147, 147)
        x = self.block1(x)  # (B, 128, 74, 74)
        x = self.block2(x)  # (B, 256, 37, 37)
        x = self.block3(x)  # (B, 728, 19, 19)
        x = self.block7(self.block6(self.block5(self.block4(x))))  # (B, 728, 19, 19)
        x = self.block11(self.block10(self.block9(self.block8(x))))  # (B, 728, 19, 19)
        x = self.block12(x)  # (B, 1024, 10, 10)
        x = self.act3(self.bn3(self.conv3(x)))  # (B, 1536, 10, 10)
        return self.act4(self.bn4(self.conv4(x)))  # (B, 2048, 10, 10)


register(
    "xception",
    paper="Chollet: Xception: Deep Learning with Depthwise Separable Convolutions, CVPR 2017, arXiv 1610.02357",
    year=2016,
    input_size=(3, 299, 299),
    params=22_855_952,
    macs=8_357_403_496,
    stages=(
        Stage("stem", ("conv1", "bn1", "act1", "conv2", "bn2", "act2"), (64, 147, 147)),
        Stage("stage1", ("block1",), (128, 74, 74)),
        Stage("stage2", ("block2",), (256, 37, 37)),
        Stage("stage3", tuple(f"block{number}" for number in range(3, 12)), (728, 19, 19)),
        Stage("stage4", ("block12", "conv3", "bn3", "act3", "conv4", "bn4", "act4"), (2048, 10, 10)),
    ),
    first_conv="conv1",
    claims=(
        Claim("parameters", "22,855,952"),
        Claim("top-1 accuracy, ILSVRC 2012 validation, one crop", "79.0 %"),
        Claim("top-5 accuracy, ILSVRC 2012 validation, one crop", "94.5 %"),
    ),
    differences=(
        "no dropout unless drop_rate is set, as in timm; the paper has 0.5 before the head",
        "BatchNorm adds 1e-5 to the variance, as in timm; the author's code (Keras) adds 1e-3",
        "block2's max pooling is padded on all sides; the author's only right and bottom",
    ),
)(Xception)
