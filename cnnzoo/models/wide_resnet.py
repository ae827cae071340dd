"""Wide ResNet. Zagoruyko, Komodakis: Wide Residual Networks, BMVC 2016, arXiv 1605.07146.

Fewer layers, k times as wide. WRN-d-k for CIFAR has d = 6n + 4 layers; sizes are those of the paper's Table 1 for a
32x32 image. B = batch.

    stage    output     layers
    stem     32x32      convolution 3x3, 16
    stage1   32x32      n blocks of two 3x3 convolutions, 16k channels
    stage2   16x16      n blocks, 32k
    stage3   8x8        n blocks, 64k, then BatchNorm and ReLU
    head     10         average pool, fully connected

`wide_resnet50_2` and `wide_resnet101_2`, for ImageNet, are torchvision's: a ResNet whose 3x3 convolutions are twice as
wide.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from cnnzoo.models._base import GlobalPool, HeNet
from cnnzoo.models._blocks import DropPath, conv1x1, conv3x3, deepening
from cnnzoo.models.resnet import Bottleneck, ResNet, facts, projection
from cnnzoo.models.resnet_cifar import cifar_facts
from cnnzoo.registry import Claim, register


class WideBottleneck(Bottleneck):
    widen = 2


class WideBlock(nn.Module):
    """BatchNorm, ReLU, 3x3, twice, with dropout between them (Figure 1d).

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, in_channels: int, width: int, stride: int, drop_rate: float, drop_path: float):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = conv3x3(in_channels, width, stride)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.dropout = nn.Dropout(drop_rate)
        self.conv2 = conv3x3(width, width)
        self.drop_path = DropPath(drop_path)
        changes = stride != 1 or in_channels != width
        self.shortcut = conv1x1(in_channels, width, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu1(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        x = self.relu2(self.norm2(self.conv1(activated)))
        x = self.conv2(self.dropout(x))
        return self.drop_path(x) + shortcut  # equation 1


def wide_stack(
    in_channels: int, width: int, stride: int, drop_rate: float, drop_paths: Sequence[float]
) -> nn.Sequential:
    """A block for each of `drop_paths`; the first may change the shape."""
    first = WideBlock(in_channels, width, stride, drop_rate, drop_paths[0])
    return nn.Sequential(first, *(WideBlock(width, width, 1, drop_rate, rate) for rate in drop_paths[1:]))


class WideResNet(HeNet):
    """`n` blocks a stage, `k` times as wide as ResNet's; `drop_rate` is that of the dropout in the blocks."""

    def __init__(
        self,
        n: int,
        k: int,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ):
        super().__init__()
        self.in_chans = in_chans
        rates = deepening(drop_path_rate, 3 * n)
        self.conv1 = conv3x3(in_chans, 16)
        self.layer1 = wide_stack(16, 16 * k, 1, drop_rate, rates[:n])
        self.layer2 = wide_stack(16 * k, 32 * k, 2, drop_rate, rates[n : 2 * n])
        self.layer3 = wide_stack(32 * k, 64 * k, 2, drop_rate, rates[2 * n :])
        self.norm = nn.BatchNorm2d(64 * k)
        self.relu = nn.ReLU()
        self.avgpool = GlobalPool(global_pool)
        self.dropout = nn.Identity()  # the blocks have theirs
        self.fc = nn.Linear(64 * k, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.conv1(x)  # (B, 16, 32, 32)
        x = self.layer1(x)  # (B, 16k, 32, 32)
        x = self.layer2(x)  # (B, 32k, 16, 16)
        x = self.layer3(x)  # (B, 64k, 8, 8)
        return self.relu(self.norm(x))  # (B, 64k, 8, 8)


PAPER = "Zagoruyko, Komodakis: Wide Residual Networks, BMVC 2016, arXiv 1605.07146"

_ONE_CROP = "ILSVRC 2012 validation, one crop"

# name: depths, parameters, multiply-adds, claims of Table 8, differences
# fmt: off
VARIANTS = {
    "wide_resnet50_2": ((3, 4, 6, 3), 68_883_240, 11_398_021_120,
                        (Claim(f"top-1 error, {_ONE_CROP}", "21.9 %"), Claim(f"top-5 error, {_ONE_CROP}", "5.79 %")),
                        ()),
    "wide_resnet101_2": ((3, 4, 23, 3), 126_886_696, 22_753_050_624,
                         (), ("the paper's own bottleneck net has 50 layers",)),
}
# fmt: on

for _name, (_depths, _params, _macs, _claims, _differences) in VARIANTS.items():
    register(_name, **facts(WideBottleneck, _params, _macs, PAPER, 2016, claims=_claims, differences=_differences))(
        partial(ResNet, WideBottleneck, projection, _depths)
    )

_C10, _C100 = "error, CIFAR-10", "error, CIFAR-100"

# name: n, k, parameters, multiply-adds, claims of Tables 5 and 6
# fmt: off
CIFAR_VARIANTS = {
    "wrn_16_4": (2, 4, 2_748_890, 392_612_352, ()),
    "wrn_40_4": (6, 4, 8_949_210, 1_298_582_016, (Claim(_C10, "4.53 %"), Claim(_C100, "21.18 %"))),
    "wrn_28_10": (4, 10, 36_479_194, 5_243_328_768,
                  (Claim(_C10, "4.00 %"), Claim(_C100, "19.25 %"),
                   Claim(f"{_C10}, dropout 0.3", "3.89 %"), Claim(f"{_C100}, dropout 0.3", "18.85 %"))),
}
# fmt: on

for _name, (_n, _k, _params, _macs, _claims) in CIFAR_VARIANTS.items():
    _widths = (16 * _k, 32 * _k, 64 * _k)
    register(_name, **cifar_facts(PAPER, 2016, _params, _macs, _widths, last=("norm", "relu"), claims=_claims))(
        partial(WideResNet, _n, _k)
    )
