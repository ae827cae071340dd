"""ResNet with pre-activation. He, Zhang, Ren, Sun: Identity Mappings in Deep Residual Networks, ECCV 2016, arXiv
1603.05027.

BatchNorm and ReLU stand before each convolution instead of after it, so that nothing stands in the way of the sum: the
identity of Figure 1(b). Sizes of `resnetv2_*` are those of ResNet for a 224x224 image, and names are timm's. B = batch.

    stage    output     50           101          152
    stem     112x112    convolution 7x7/2, 64
    stage1   56x56      max 3x3/2, then
                        3 bottle     3 bottle     3 bottle      of 64
    stage2   28x28      4            4            8             of 128
    stage3   14x14      6            23           36            of 256
    stage4   7x7        3            3            3             of 512, then BatchNorm and ReLU
    head     1000       average pool, fully connected

The CIFAR nets of section 4 are for 32x32 images.

    stage    output     preresnet110    preresnet164
    stem     32x32      convolution 3x3, 16
    stage1   32x32      18 basic        18 bottle     of 16
    stage2   16x16      18              18            of 32
    stage3   8x8        18              18            of 64, then BatchNorm and ReLU
    head     10         average pool, fully connected

A bottleneck's output is four times as wide as its stage's number says.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from cnnzoo.models._base import GlobalPool, HeNet
from cnnzoo.models._blocks import DropPath, conv1x1, conv3x3, deepening
from cnnzoo.models.resnet import stack
from cnnzoo.models.resnet_cifar import ZeroPad, cifar_facts
from cnnzoo.registry import Claim, Stage, register


class PreActBlock(nn.Module):
    """BatchNorm, ReLU, 3x3, twice (Figure 1b). `downsample` is the shortcut where it starts after the first ReLU
    instead of before it: in the first unit of every stage.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.downsample = downsample
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = conv3x3(in_channels, width, stride)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv2 = conv3x3(width, width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu1(self.norm1(x))
        shortcut = x if self.downsample is None else self.downsample(activated)
        x = self.conv1(activated)
        x = self.conv2(self.relu2(self.norm2(x)))
        return self.drop_path(x) + shortcut  # equation 3


class PreActBottleneck(nn.Module):
    """BatchNorm, ReLU and a convolution, three times: 1x1, 3x3, 1x1, with the stride on the 3x3."""

    expansion = 4
    strided = 2  # the convolution that halves the size: the second

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.downsample = downsample
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = conv1x1(in_channels, width, stride if self.strided == 1 else 1)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv2 = conv3x3(width, width, stride if self.strided == 2 else 1)
        self.norm3 = nn.BatchNorm2d(width)
        self.relu3 = nn.ReLU()
        self.conv3 = conv1x1(width, width * self.expansion)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu1(self.norm1(x))
        shortcut = x if self.downsample is None else self.downsample(activated)
        x = self.conv1(activated)
        x = self.conv2(self.relu2(self.norm2(x)))
        x = self.conv3(self.relu3(self.norm3(x)))
        return self.drop_path(x) + shortcut  # equation 3


class PaperPreActBottleneck(PreActBottleneck):
    """The authors' own form, with the stride on the first 1x1."""

    strided = 1


def bare_projection(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """A bare 1x1 convolution where the shape changes, the identity elsewhere."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(OrderedDict(conv=conv1x1(in_channels, out_channels, stride)))


def zero_pad_in_every_stage(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Option A of the first paper. The first stage has no channels to add, but there too the shortcut starts after the
    activation: the first unit activates before the two paths part (the paper's appendix).
    """
    return ZeroPad(out_channels - in_channels, stride)


class Linear1x1(nn.Linear):
    """A fully connected layer stored and computed as the 1x1 convolution that it is in timm: `weight` is
    `(out_features, in_features, 1, 1)`.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device=None, dtype=None):
        super().__init__(in_features, out_features, bias, device, dtype)
        self.weight = nn.Parameter(self.weight.detach()[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x[:, :, None, None], self.weight, self.bias).flatten(1)


class ResNetV2(HeNet):
    """Four stages of pre-activation bottlenecks, `depths` of them in each, then BatchNorm and ReLU (section 4).

    Images `(B, in_chans, H, W)` to logits `(B, num_classes)`; `drop_rate` is that of the dropout before the head,
    `drop_path_rate` the last block's (see `DropPath`).
    """

    head_name = "head.fc"

    def __init__(
        self,
        depths: tuple[int, ...],
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ):
        super().__init__()
        self.in_chans = in_chans
        self.stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(in_chans, 64, 7, stride=2, padding=3, bias=False),
                pool=nn.MaxPool2d(3, stride=2, padding=1),
            )
        )
        self.stages = nn.Sequential()
        channels, drop_paths = 64, iter(deepening(drop_path_rate, sum(depths)))
        for width, depth in zip((64, 128, 256, 512), depths, strict=True):
            stride, rates = (1 if width == 64 else 2), [next(drop_paths) for _ in range(depth)]
            blocks = stack(PreActBottleneck, bare_projection, channels, width, stride, rates)
            self.stages.append(nn.Sequential(OrderedDict(blocks=blocks)))
            channels = width * PreActBottleneck.expansion
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.avgpool = GlobalPool(global_pool)
        self.dropout = nn.Dropout(drop_rate)
        self.head = nn.Sequential(OrderedDict(fc=Linear1x1(channels, num_classes)))
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # (B, 64, 56, 56)
        x = self.stages[0](x)  # (B, 256, 56, 56)
        x = self.stages[1](x)  # (B, 512, 28, 28)
        x = self.stages[2](x)  # (B, 1024, 14, 14)
        x = self.stages[3](x)  # (B, 2048, 7, 7)
        return self.relu(self.norm(x))  # (B, 2048, 7, 7)


class CifarPreResNet(HeNet):
    """Three stages of `n` pre-activation blocks each, then BatchNorm and ReLU (section 4).

    `block` and `shortcut` are as in `ResNet`.

    Images `(B, in_chans, H, W)` to logits `(B, num_classes)`; `drop_rate` is that of the dropout before the head,
    `drop_path_rate` the last block's (see `DropPath`).
    """

    def __init__(
        self,
        block: type[nn.Module],
        shortcut: Callable[[int, int, int], nn.Module | None],
        n: int,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ):
        super().__init__()
        self.in_chans = in_chans
        wide = block.expansion
        rates = deepening(drop_path_rate, 3 * n)
        self.conv1 = conv3x3(in_chans, 16)
        self.layer1 = stack(block, shortcut, 16, 16, 1, rates[:n])
        self.layer2 = stack(block, shortcut, 16 * wide, 32, 2, rates[n : 2 * n])
        self.layer3 = stack(block, shortcut, 32 * wide, 64, 2, rates[2 * n :])
        self.norm = nn.BatchNorm2d(64 * wide)
        self.relu = nn.ReLU()
        self.avgpool = GlobalPool(global_pool)
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(64 * wide, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.conv1(x)  # (B, 16, 32, 32)
        x = self.layer1(x)  # (B, 16 or 64, 32, 32)
        x = self.layer2(x)  # (B, 32 or 128, 16, 16)
        x = self.layer3(x)  # (B, 64 or 256, 8, 8)
        return self.relu(self.norm(x))  # (B, 64 or 256, 8, 8)


PAPER = "He, Zhang, Ren, Sun: Identity Mappings in Deep Residual Networks, ECCV 2016, arXiv 1603.05027"

_TIMM = (
    "the first activation comes after the stem's pooling instead of directly after its convolution",
    "the stride of a bottleneck is on its 3x3 convolution, in the authors' own nets (preresnet164) on its first 1x1",
)
_DEPTH = "the paper's own nets for ImageNet have 152 and 200 layers"
_320 = "ILSVRC 2012 validation, one crop of 320x320"

# name: depths, parameters, multiply-adds, claims of Table 5, differences
# fmt: off
VARIANTS = {
    "resnetv2_50": ((3, 4, 6, 3), 25_549_352, 4_089_184_256, (), (*_TIMM, _DEPTH)),
    "resnetv2_101": ((3, 4, 23, 3), 44_541_480, 7_801_405_440, (), (*_TIMM, _DEPTH)),
    "resnetv2_152": ((3, 8, 36, 3), 60_185_128, 11_513_626_624,
                     (Claim(f"top-1 error, {_320}", "21.1 %"), Claim(f"top-5 error, {_320}", "5.5 %")), _TIMM),
}
# fmt: on

for _name, (_depths, _params, _macs, _claims, _differences) in VARIANTS.items():
    register(
        _name,
        paper=PAPER,
        year=2016,
        params=_params,
        macs=_macs,
        stages=(
            Stage("stem", ("stem.conv",), (64, 112, 112)),
            Stage("stage1", ("stem.pool", "stages.0"), (256, 56, 56)),
            Stage("stage2", ("stages.1",), (512, 28, 28)),
            Stage("stage3", ("stages.2",), (1024, 14, 14)),
            Stage("stage4", ("stages.3", "norm", "relu"), (2048, 7, 7)),
        ),
        first_conv="stem.conv",
        claims=_claims,
        differences=_differences,
    )(partial(ResNetV2, _depths))

# name: block, shortcut, parameters, multiply-adds, claims of Tables 2 and 4, differences; 18 units a stage in both
# fmt: off
CIFAR_VARIANTS = {
    "preresnet110": (PreActBlock, zero_pad_in_every_stage, 1_727_962, 252_887_680,
                     (Claim("error, CIFAR-10", "6.37 %"),), ()),
    "preresnet164": (PaperPreActBottleneck, bare_projection, 1_703_258, 244_500_992,
                     (Claim("parameters", "1.7 million"), Claim("error, CIFAR-10", "5.46 %"),
                      Claim("error, CIFAR-100", "24.33 %")),
                     ("the paper's count leaves out the BatchNorms: 1,679,034 here",)),
}
# fmt: on

for _name, (_block, _shortcut, _params, _macs, _claims, _differences) in CIFAR_VARIANTS.items():
    _facts = cifar_facts(
        PAPER,
        2016,
        _params,
        _macs,
        widths=tuple(width * _block.expansion for width in (16, 32, 64)),
        last=("norm", "relu"),
        claims=_claims,
        differences=_differences,
    )
    register(_name, **_facts)(partial(CifarPreResNet, _block, _shortcut, 18))
