"""ResNet for CIFAR. He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, arXiv 1512.03385,
section 4.2.

6n + 2 layers for 32x32 images; sizes are those of the table in section 4.2. B = batch.

    stage    output      layers
    stem     32x32x16    convolution 3x3
    stage1   32x32x16    n blocks of two 3x3 convolutions
    stage2   16x16x32    n blocks
    stage3   8x8x64      n blocks
    head     10          average pool, fully connected

Shortcuts are of option A: where the shape changes, every second pixel, and zeros for the new channels. No parameters,
so that a plain net (`plain20`, `plain56`) has exactly as many.
"""

from functools import partial

from torch import Tensor, nn

from cnnzoo.models._base import GlobalPool, HeNet
from cnnzoo.models._blocks import conv3x3, deepening
from cnnzoo.models.resnet import PAPER, BasicBlock, PlainBlock, no_shortcut, stack
from cnnzoo.registry import Claim, Stage, register


class ZeroPad(nn.Module):
    """Option A (section 3.3): subsample by `stride`, append channels of zeros."""

    def __init__(self, new_channels: int, stride: int):
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


def zero_pad(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """Option A where the shape changes, the identity elsewhere."""
    if stride == 1 and in_channels == out_channels:
        return None
    return ZeroPad(out_channels - in_channels, stride)


class CifarResNet(HeNet):
    """Three stages of `n` blocks each (section 4.2), with option A unless `block` is `PlainBlock`.

    Images `(B, in_chans, H, W)` to logits `(B, num_classes)`; `drop_rate` is that of the dropout before the head,
    `drop_path_rate` the last block's (see `DropPath`).
    """

    def __init__(
        self,
        block: type[nn.Module],
        n: int,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ):
        super().__init__()
        self.in_chans = in_chans
        shortcut = no_shortcut if block is PlainBlock else zero_pad
        rates = deepening(drop_path_rate, 3 * n)
        self.conv1 = conv3x3(in_chans, 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = stack(block, shortcut, 16, 16, 1, rates[:n])
        self.layer2 = stack(block, shortcut, 16, 32, 2, rates[n : 2 * n])
        self.layer3 = stack(block, shortcut, 32, 64, 2, rates[2 * n :])
        self.avgpool = GlobalPool(global_pool)
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(64, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))  # (B, 16, 32, 32)
        x = self.layer1(x)  # (B, 16, 32, 32)
        x = self.layer2(x)  # (B, 32, 16, 16)
        return self.layer3(x)  # (B, 64, 8, 8)


def cifar_facts(
    paper: str,
    year: int,
    params: int,
    macs: int,
    widths: tuple[int, int, int] = (16, 32, 64),
    stem: tuple[str, ...] = ("conv1",),
    last: tuple[str, ...] = (),
    **more,
) -> dict:
    """The registry's facts of a net of three stages for 32x32 images. `widths` are the stages' channels; `stem` and
    `last` are the layers before the first stage and after the third.
    """
    return {
        "paper": paper,
        "year": year,
        "input_size": (3, 32, 32),
        "num_classes": 10,
        "params": params,
        "macs": macs,
        "stages": (
            Stage("stem", stem, (16, 32, 32)),
            Stage("stage1", ("layer1",), (widths[0], 32, 32)),
            Stage("stage2", ("layer2",), (widths[1], 16, 16)),
            Stage("stage3", ("layer3", *last), (widths[2], 8, 8)),
        ),
        "first_conv": "conv1",
        **more,
    }


_ERROR = "error, CIFAR-10"

# name: block, n, parameters, multiply-adds, claims of Table 6
# fmt: off
VARIANTS = {
    "resnet20": (BasicBlock, 3, 269_722, 40_551_040, (Claim(_ERROR, "8.75 %"),)),
    "resnet32": (BasicBlock, 5, 464_154, 68_862_592, (Claim(_ERROR, "7.51 %"),)),
    "resnet44": (BasicBlock, 7, 658_586, 97_174_144, (Claim(_ERROR, "7.17 %"),)),
    "resnet56": (BasicBlock, 9, 853_018, 125_485_696, (Claim(_ERROR, "6.97 %"),)),
    "resnet110": (BasicBlock, 18, 1_727_962, 252_887_680,
                  (Claim(f"{_ERROR}, best of 5 runs", "6.43 %"), Claim(f"{_ERROR}, mean of 5 runs", "6.61 %"))),
    "plain20": (PlainBlock, 3, 269_722, 40_551_040, ()),
    "plain56": (PlainBlock, 9, 853_018, 125_485_696, ()),
}
# fmt: on

for _name, (_block, _n, _params, _macs, _claims) in VARIANTS.items():
    register(_name, **cifar_facts(PAPER, 2015, _params, _macs, stem=("conv1", "bn1", "relu"), claims=_claims))(
        partial(CifarResNet, _block, _n)
    )
