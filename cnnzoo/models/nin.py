"""Network in Network. Lin, Chen, Yan: Network In Network, ICLR 2014, arXiv 1312.4400.

Each convolution is followed by 1x1 convolutions, a small perceptron at every place ("mlpconv", Figure 1b), and no layer
is fully connected: the last 1x1 convolution gives one map for each class, and its mean is the class's score (section
3.2). Sizes are those of the authors' two Caffe nets, for 224x224 and 32x32 images; every convolution ends in ReLU.
B = batch.

    nin                                          output      parameters
    conv 11x11/4, 96; 1x1, 96; 1x1, 96           54x54x96        53,568
    max 3x3/2
    conv 5x5, 256; 1x1, 256; 1x1, 256            27x27x256      746,240
    max 3x3/2
    conv 3x3, 384; 1x1, 384; 1x1, 384            13x13x384    1,180,800
    max 3x3/2, dropout
    conv 3x3, 1024; 1x1, 1024; 1x1, 1000         6x6x1000     5,614,568
    average                                      1000

    nin_cifar10
    conv 5x5, 192; 1x1, 160; 1x1, 96             32x32x96        60,928
    max 3x3/2, dropout
    conv 5x5, 192; 1x1, 192; 1x1, 192            16x16x192      535,104
    average 3x3/2, dropout
    conv 3x3, 192; 1x1, 192; 1x1, 10             8x8x10         370,954
    average                                      10
"""

from itertools import pairwise

from torch import Tensor, nn

from cnnzoo.models._base import GlobalPool, HeNet
from cnnzoo.registry import Claim, Stage, register


class MLPConv(nn.Sequential):
    """A convolution and then 1x1 convolutions, each with ReLU (equation 2). `widths` are their output channels."""

    def __init__(self, in_channels: int, widths: tuple[int, ...], kernel_size: int, stride: int = 1, padding: int = 0):
        layers = [nn.Conv2d(in_channels, widths[0], kernel_size, stride, padding), nn.ReLU()]
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 1), nn.ReLU()]
        super().__init__(*layers)


def max_pool() -> nn.Module:
    return nn.MaxPool2d(3, 2, ceil_mode=True)


class NetworkInNetwork(HeNet):
    """What both nets share: a head that is the last 1x1 convolution, pooled after its ReLU."""

    head_name = "classifier"

    def forward_head(self, f: Tensor, pre_logits: bool = False) -> Tensor:
        if isinstance(self.classifier, nn.Conv2d) and not pre_logits:
            return self.avgpool(self.relu(self.classifier(f)))
        x = self.avgpool(f)
        return x if pre_logits else self.classifier(x)


class NIN(NetworkInNetwork):
    """The authors' net for ImageNet. Images `(B, in_chans, H, W)` to logits `(B, num_classes)`; `drop_rate` is that of
    the dropout before the last block.
    """

    min_size = 39

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.5, global_pool: str = "avg"):
        super().__init__()
        self.in_chans = in_chans
        self.mlpconv1 = MLPConv(in_chans, (96, 96, 96), 11, stride=4)
        self.pool1 = max_pool()
        self.mlpconv2 = MLPConv(96, (256, 256, 256), 5, padding=2)
        self.pool2 = max_pool()
        self.mlpconv3 = MLPConv(256, (384, 384, 384), 3, padding=1)
        self.pool3 = max_pool()
        self.dropout = nn.Dropout(drop_rate)
        self.mlpconv4 = MLPConv(384, (1024, 1024), 3, padding=1)
        self.classifier = nn.Conv2d(1024, num_classes, 1)
        self.relu = nn.ReLU()
        self.avgpool = GlobalPool(global_pool)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.pool1(self.mlpconv1(x))  # (B, 96, 27, 27)
        x = self.pool2(self.mlpconv2(x))  # (B, 256, 13, 13)
        x = self.pool3(self.mlpconv3(x))  # (B, 384, 6, 6)
        return self.mlpconv4(self.dropout(x))  # (B, 1024, 6, 6)


class NINCifar(NetworkInNetwork):
    """The net of section 4.1. Images `(B, in_chans, H, W)` to logits `(B, num_classes)`; `drop_rate` is that of the two
    dropouts after the first two blocks.
    """

    min_size = 4

    def __init__(self, num_classes: int = 10, in_chans: int = 3, drop_rate: float = 0.5, global_pool: str = "avg"):
        super().__init__()
        self.in_chans = in_chans
        self.mlpconv1 = MLPConv(in_chans, (192, 160, 96), 5, padding=2)
        self.pool1 = max_pool()
        self.dropout1 = nn.Dropout(drop_rate)
        self.mlpconv2 = MLPConv(96, (192, 192, 192), 5, padding=2)
        self.pool2 = nn.AvgPool2d(3, 2, ceil_mode=True)
        self.dropout2 = nn.Dropout(drop_rate)
        self.mlpconv3 = MLPConv(192, (192, 192), 3, padding=1)
        self.classifier = nn.Conv2d(192, num_classes, 1)
        self.relu = nn.ReLU()
        self.avgpool = GlobalPool(global_pool)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.pool1(self.mlpconv1(x))  # (B, 96, 16, 16)
        x = self.pool2(self.mlpconv2(self.dropout1(x)))  # (B, 192, 8, 8)
        return self.mlpconv3(self.dropout2(x))  # (B, 192, 8, 8)


_FACTS = {
    "paper": "Lin, Chen, Yan: Network In Network, ICLR 2014, arXiv 1312.4400",
    "year": 2013,
    "first_conv": "mlpconv1.0",
}
_INITIALISATION = "He initialisation; the authors drew from normal distributions of fixed standard deviation"

register(
    "nin",
    **_FACTS,
    params=7_595_176,
    macs=1_100_188_800,
    stages=(
        Stage("stage1", ("mlpconv1", "pool1"), (96, 27, 27)),
        Stage("stage2", ("mlpconv2", "pool2"), (256, 13, 13)),
        Stage("stage3", ("mlpconv3", "pool3"), (384, 6, 6)),
        Stage("stage4", ("dropout", "mlpconv4"), (1024, 6, 6)),
    ),
    differences=(
        "not in the paper, which has no net for ImageNet: the authors' net in the Caffe model zoo",
        _INITIALISATION,
    ),
)(NIN)

register(
    "nin_cifar10",
    **_FACTS,
    input_size=(3, 32, 32),
    num_classes=10,
    params=966_986,
    macs=222_486_528,
    stages=(
        Stage("stage1", ("mlpconv1", "pool1"), (96, 16, 16)),
        Stage("stage2", ("dropout1", "mlpconv2", "pool2"), (192, 8, 8)),
        Stage("stage3", ("dropout2", "mlpconv3"), (192, 8, 8)),
    ),
    claims=(
        Claim("error, CIFAR-10", "10.41 %"),
        Claim("error, CIFAR-10 with augmentation", "8.81 %"),
        Claim("error, CIFAR-100", "35.68 %"),
    ),
    differences=(
        "the second pooling is average pooling, as in the authors' configuration; the paper says max pooling",
        _INITIALISATION,
    ),
)(NINCifar)
