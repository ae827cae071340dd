"""ResNet. He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, arXiv 1512.03385.

Sizes are those of the paper's Table 1 for a 224x224 image; names are torchvision's. B = batch.

    stage    output     18        34        50           101          152
    stem     112x112    convolution 7x7/2, 64
    stage1   56x56      max 3x3/2, then
                        2 basic   3 basic   3 bottle     3 bottle     3 bottle      of 64
    stage2   28x28      2         4         4            4            8             of 128
    stage3   14x14      2         6         6            23           36            of 256
    stage4   7x7        2         3         3            3            3             of 512
    head     1000       average pool, fully connected

A bottleneck's output is four times as wide as its stage's number says.
The CIFAR nets of section 4.2 are in resnet_cifar.py. `plain18` and `plain34` are the same nets without shortcuts
(Figure 3, middle).
"""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from cnnzoo.errors import InputError
from cnnzoo.models._base import GlobalPool, HeNet
from cnnzoo.models._blocks import DropPath, conv1x1, conv3x3, deepening
from cnnzoo.registry import Claim, Stage, register


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (Figure 5, left). `downsample` is the shortcut where the shape changes."""

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
        self.conv1 = conv3x3(in_channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.drop_path = DropPath(drop_path)
        self.downsample = downsample
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.drop_path(self.bn2(self.conv2(x)))
        return self.relu2(x + shortcut)  # equation 1


class PlainBlock(BasicBlock):
    """The same two convolutions without the shortcut."""

    def __init__(self, in_channels: int, width: int, stride: int = 1, downsample: None = None, drop_path: float = 0.0):
        super().__init__(in_channels, width, stride)
        if drop_path:
            raise InputError("a plain net has no shortcuts, so drop_path_rate must be 0")

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut (Figure 5, right), with the stride on the 3x3: what people call ResNet v1.5."""

    expansion = 4
    strided = 2  # the convolution that halves the size: the second
    widen = 1  # the 3x3 has so many times `width` channels,
    groups = 1  # in so many groups

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        drop_path: float = 0.0,
    ):
        super().__init__()
        inner = width * self.widen
        self.conv1 = conv1x1(in_channels, inner, stride if self.strided == 1 else 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(inner, inner, stride if self.strided == 2 else 1, self.groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU()
        self.conv3 = conv1x1(inner, width * self.expansion)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.drop_path = DropPath(drop_path)
        self.downsample = downsample
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        x = self.drop_path(self.bn3(self.conv3(x)))
        return self.relu3(x + shortcut)  # equation 2


class PaperBottleneck(Bottleneck):
    """The paper's own form, with the stride on the first 1x1."""

    strided = 1


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """Option B (section 3.3): a 1x1 convolution where the shape changes, the identity elsewhere."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


def no_shortcut(in_channels: int, out_channels: int, stride: int) -> None:
    return None


def stack(
    block: type[nn.Module],
    shortcut: Callable[[int, int, int], nn.Module | None],
    in_channels: int,
    width: int,
    stride: int,
    drop_paths: Sequence[float],
) -> nn.Sequential:
    """A block for each of `drop_paths`, all of one width; the first may change the shape."""
    out_channels = width * block.expansion
    first = block(in_channels, width, stride, shortcut(in_channels, out_channels, stride), drop_paths[0])
    others = (block(out_channels, width, drop_path=rate) for rate in drop_paths[1:])
    return nn.Sequential(first, *others)


class ResNet(HeNet):
    """Four stages of residual blocks (Table 1). Images `(B, in_chans, H, W)` to logits `(B, num_classes)`.

    Args:
        block: the class of the blocks, built as `block(in_channels, width, stride, downsample, drop_path)`.
        shortcut: `(in_channels, out_channels, stride)` to the shortcut of each stage's first block; None: the identity.
        depths: blocks in each stage.
        num_classes: of the head.
        in_chans: channels of an image.
        drop_rate: of the dropout before the head.
        drop_path_rate: of the last block; earlier ones have less, see `deepening`.
        global_pool: see `GlobalPool`.
    """

    def __init__(
        self,
        block: type[nn.Module],
        shortcut: Callable,
        depths: tuple[int, ...],
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ):
        super().__init__()
        self.in_chans = in_chans
        self.conv1 = nn.Conv2d(in_chans, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels, drop_paths = 64, iter(deepening(drop_path_rate, sum(depths)))
        for number, (width, depth) in enumerate(zip((64, 128, 256, 512), depths, strict=True), start=1):
            stride, rates = (1 if number == 1 else 2), [next(drop_paths) for _ in range(depth)]
            self.add_module(f"layer{number}", stack(block, shortcut, channels, width, stride, rates))
            channels = width * block.expansion
        self.avgpool = GlobalPool(global_pool)
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(channels, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))  # (B, 64, 112, 112)
        x = self.layer1(self.maxpool(x))  # (B, 64 or 256, 56, 56)
        x = self.layer2(x)  # (B, 128 or 512, 28, 28)
        x = self.layer3(x)  # (B, 256 or 1024, 14, 14)
        return self.layer4(x)  # (B, 512 or 2048, 7, 7)


PAPER = "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, arXiv 1512.03385"


def facts(block: type[nn.Module], params: int, macs: int, paper: str = PAPER, year: int = 2015, **more) -> dict:
    """The registry's facts of a net of these four stages."""
    widths = [block.expansion * width for width in (64, 128, 256, 512)]
    return {
        "paper": paper,
        "year": year,
        "params": params,
        "macs": macs,
        "stages": (
            Stage("stem", ("conv1", "bn1", "relu"), (64, 112, 112)),
            Stage("stage1", ("maxpool", "layer1"), (widths[0], 56, 56)),
            Stage("stage2", ("layer2",), (widths[1], 28, 28)),
            Stage("stage3", ("layer3",), (widths[2], 14, 14)),
            Stage("stage4", ("layer4",), (widths[3], 7, 7)),
        ),
        "first_conv": "conv1",
        "paper_names": {f"conv{number + 1}_x": f"layer{number}" for number in (1, 2, 3, 4)},
        **more,
    }


_V15 = (
    "the stride of a bottleneck is on its 3x3 convolution (v1.5), in the paper on its first 1x1; "
    "resnet50_2015 and its like are the paper's",
)

_10_CROPS = ("top-1 error, ILSVRC 2012 validation, 10 crops", "top-5 error, ILSVRC 2012 validation, 10 crops")
_COST = "multiply-adds"

# name: block, shortcut, depths, parameters, multiply-adds, claims of Tables 1, 2 and 3, differences
# fmt: off
VARIANTS = {
    "resnet18": (BasicBlock, projection, (2, 2, 2, 2), 11_689_512, 1_814_073_344, ("1.8 billion", "27.88 %"), ()),
    "resnet34": (BasicBlock, projection, (3, 4, 6, 3), 21_797_672, 3_663_761_408,
                 ("3.6 billion", "24.52 %", "7.46 %"), ()),
    "resnet50": (Bottleneck, projection, (3, 4, 6, 3), 25_557_032, 4_089_184_256,
                 ("3.8 billion", "22.85 %", "6.71 %"), _V15),
    "resnet101": (Bottleneck, projection, (3, 4, 23, 3), 44_549_160, 7_801_405_440,
                  ("7.6 billion", "21.75 %", "6.05 %"), _V15),
    "resnet152": (Bottleneck, projection, (3, 8, 36, 3), 60_192_808, 11_513_626_624,
                  ("11.3 billion", "21.43 %", "5.71 %"), _V15),
    "resnet50_2015": (PaperBottleneck, projection, (3, 4, 6, 3), 25_557_032, 3_857_973_248,
                      ("3.8 billion", "22.85 %", "6.71 %"), ()),
    "resnet101_2015": (PaperBottleneck, projection, (3, 4, 23, 3), 44_549_160, 7_570_194_432,
                       ("7.6 billion", "21.75 %", "6.05 %"), ()),
    "resnet152_2015": (PaperBottleneck, projection, (3, 8, 36, 3), 60_192_808, 11_282_415_616,
                       ("11.3 billion", "21.43 %", "5.71 %"), ()),
    "plain18": (PlainBlock, no_shortcut, (2, 2, 2, 2), 11_515_688, 1_794_805_760, ("1.8 billion", "27.94 %"), ()),
    "plain34": (PlainBlock, no_shortcut, (3, 4, 6, 3), 21_623_848, 3_644_493_824, ("3.6 billion", "28.54 %"), ()),
}
# fmt: on

for _name, (_block, _shortcut, _depths, _params, _macs, _claims, _differences) in VARIANTS.items():
    _told = tuple(Claim(what, figure) for what, figure in zip((_COST, *_10_CROPS), _claims, strict=False))
    register(_name, **facts(_block, _params, _macs, claims=_told, differences=_differences))(
        partial(ResNet, _block, _shortcut, _depths)
    )
