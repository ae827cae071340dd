"""PyramidNet. Han, Kim, Kim: Deep Pyramidal Residual Networks, CVPR 2017, arXiv 1610.02915.

A residual net that widens a little at every unit, instead of doubling where it halves the size: over its 54 units the
110-layer net grows from 16 channels by alpha. Sizes are those of the paper's Table 1 for a 32x32 image. B = batch.

    stage    output     units   channels at its end, for alpha  48    84    270
    stem     32x32      convolution 3x3, BatchNorm              16    16     16
    stage1   32x32      18                                      32    44    106
    stage2   16x16      18                                      48    72    196
    stage3   8x8        18, then BatchNorm and ReLU             64   100    286
    head     10         average pool, fully connected
"""

from functools import partial

from torch import Tensor, nn

from cnnzoo.models._base import GlobalPool, HeNet
from cnnzoo.models._blocks import DropPath, conv3x3, deepening
from cnnzoo.models.resnet_cifar import cifar_facts
from cnnzoo.registry import Claim, register

UNITS = 18  # in each of the three stages


class PyramidShortcut(nn.Module):
    """2x2 average pooling where the size halves, and zeros for the new channels (Figure 5a)."""

    def __init__(self, new_channels: int, stride: int):
        super().__init__()
        self.new_channels = new_channels
        # At the edge of an odd size, the mean of what is there.
        self.pool = nn.AvgPool2d(2, stride=2, ceil_mode=True) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(self.pool(x), (0, 0, 0, 0, 0, self.new_channels))


class PyramidBlock(nn.Module):
    """BatchNorm, 3x3, BatchNorm, ReLU, 3x3, BatchNorm (Figure 6d): only one ReLU, and none after the sum."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, drop_path: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.drop_path = DropPath(drop_path)
        self.shortcut = PyramidShortcut(out_channels - in_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        x = self.conv1(self.bn1(x))
        x = self.bn3(self.conv2(self.relu(self.bn2(x))))
        return self.drop_path(x) + shortcut


def width_after(unit: int, alpha: int) -> int:
    """Channels at the end of the `unit`-th unit, counted from 1: 16 plus its share of alpha, rounded half up
    (equation 2, summed before it is rounded).
    """
    units = 3 * UNITS
    return (2 * (16 * units + unit * alpha) + units) // (2 * units)


class PyramidNet(HeNet):
    """A net that widens by `alpha` channels from first to last (equation 2).

    Images `(B, in_chans, H, W)` to logits `(B, num_classes)`; `drop_rate` is that of the dropout before the head,
    `drop_path_rate` the last unit's (see `DropPath`).
    """

    def __init__(
        self,
        alpha: int,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ):
        super().__init__()
        self.in_chans = in_chans
        self.conv1 = conv3x3(in_chans, 16)
        self.bn1 = nn.BatchNorm2d(16)
        drop_paths = deepening(drop_path_rate, 3 * UNITS)
        for stage in range(3):
            blocks = []
            for place in range(UNITS):
                unit = stage * UNITS + place
                stride = 2 if stage > 0 and place == 0 else 1
                widths = width_after(unit, alpha), width_after(unit + 1, alpha)
                blocks.append(PyramidBlock(*widths, stride, drop_paths[unit]))
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        channels = 16 + alpha
        self.bn_final = nn.BatchNorm2d(channels)
        self.relu_final = nn.ReLU()
        self.avgpool = GlobalPool(global_pool)
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(channels, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x))  # (B, 16, 32, 32)
        x = self.layer1(x)  # (B, 16 + alpha / 3, 32, 32)
        x = self.layer2(x)  # (B, 16 + 2 alpha / 3, 16, 16)
        x = self.layer3(x)  # (B, 16 + alpha, 8, 8)
        return self.relu_final(self.bn_final(x))  # (B, 16 + alpha, 8, 8)


# alpha: parameters, multiply-adds, claims of its CIFAR table: parameters, errors on CIFAR-10 and CIFAR-100
VARIANTS = {
    48: (1_772_706, 403_813_504, ("1.7 million", "4.62 %", "23.31 %")),
    84: (3_904_446, 772_168_168, ("3.8 million", "4.27 %", "20.21 %")),
    270: (28_485_477, 4_717_983_724, ("28.3 million", "3.73 %", "18.25 %")),
}
_CLAIMED = ("parameters", "error, CIFAR-10", "error, CIFAR-100")
_ROUNDING = (
    "widths are rounded only where they are used, as in the authors' code; the printed equation rounds the running "
    "width down at every unit, and would end with 16, 70 and 286 channels for alpha 48, 84 and 270 instead of 64, 100 "
    "and 286"
)

for _alpha, (_params, _macs, _claims) in VARIANTS.items():
    _facts = cifar_facts(
        "Han, Kim, Kim: Deep Pyramidal Residual Networks, CVPR 2017, arXiv 1610.02915",
        2016,
        _params,
        _macs,
        widths=tuple(width_after(stage * UNITS, _alpha) for stage in (1, 2, 3)),
        stem=("conv1", "bn1"),
        last=("bn_final", "relu_final"),
        claims=tuple(Claim(what, figure) for what, figure in zip(_CLAIMED, _claims, strict=True)),
        differences=(_ROUNDING,),
    )
    register(f"pyramidnet110_a{_alpha}", **_facts)(partial(PyramidNet, _alpha))
