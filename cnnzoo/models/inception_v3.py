"""Inception v3. Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception Architecture for Computer Vision,
CVPR 2016, arXiv 1512.00567.

The net as its authors published it. Sizes are for a 299x299 image; names are torchvision's. B = batch.

    layer                       output       parameters
    Conv2d_1a_3x3 /2            149x149x32          928
    Conv2d_2a_3x3               147x147x32        9,280
    Conv2d_2b_3x3, padded       147x147x64       18,560
    max 3x3/2, Conv2d_3b_1x1      73x73x80        5,280
    Conv2d_4a_3x3                71x71x192      138,624
    max 3x3/2, Mixed_5b          35x35x256      255,904   Figure 5
    Mixed_5c, Mixed_5d           35x35x288      277,472   285,152
    Mixed_6a /2                  17x17x768    1,153,280   Figure 10
    Mixed_6b, Mixed_6c           17x17x768    1,297,408   1,691,008   Figure 6
    Mixed_6d, Mixed_6e           17x17x768    1,691,008   2,141,952
    Mixed_7a /2                   8x8x1280    1,698,304   Figure 10
    Mixed_7b, Mixed_7c            8x8x2048    5,044,608   6,076,800   Figure 7
    average, dropout 0.5, fc          1000    2,049,000

In training an auxiliary head of 3,326,696 parameters (Figure 8) classifies the maps of Mixed_6e. torchvision's trained
weights want images on [-1, 1]; its `transform_input`, which takes its usual normalisation there, is left to the
weights' preprocessing.
"""

import torch
from torch import Tensor, fx, nn

from cnnzoo.models._base import GlobalPool, Net, adaptive_pool2d
from cnnzoo.models._blocks import ConvNormRelu, chain
from cnnzoo.registry import Claim, Stage, register


def side_by_side(*maps: Tensor) -> Tensor:
    return torch.cat(maps, dim=1)


def padded_avg_pool() -> nn.AvgPool2d:
    """Unlike `_blocks.avg_pool3x3` it counts the zero padding, as torchvision's does."""
    return nn.AvgPool2d(3, stride=1, padding=1)


class InceptionA(nn.Module):
    """Two 3x3 convolutions for a 5x5 (Figure 5), in one of the branches."""

    def __init__(self, channels: int, pool: int):
        super().__init__()
        self.branch1x1 = ConvNormRelu(channels, 64)
        self.branch5x5_1, self.branch5x5_2 = chain(channels, (48, 1), (64, 5))
        self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3 = chain(channels, (64, 1), (96, 3), (96, 3))
        self.pool, self.branch_pool = padded_avg_pool(), ConvNormRelu(channels, pool)

    def forward(self, x: Tensor) -> Tensor:
        return side_by_side(
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(self.pool(x)),
        )


class InceptionB(nn.Module):
    """Halves the size by convolutions and max pooling side by side (Figure 10)."""

    def __init__(self, channels: int):
        super().__init__()
        self.branch3x3 = ConvNormRelu(channels, 384, 3, 2, 0)
        self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3 = chain(channels, (64, 1), (96, 3), (96, 3, 2, 0))
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return side_by_side(
            self.branch3x3(x),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.pool(x),
        )


class InceptionC(nn.Module):
    """1x7 and 7x1 convolutions for 7x7 ones (Figure 6), `width` channels between them."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        across, down = (width, (1, 7)), (width, (7, 1))
        self.branch1x1 = ConvNormRelu(channels, 192)
        self.branch7x7_1, self.branch7x7_2, self.branch7x7_3 = chain(channels, (width, 1), across, (192, (7, 1)))
        self.branch7x7dbl_1, self.branch7x7dbl_2, self.branch7x7dbl_3 = chain(channels, (width, 1), down, across)
        self.branch7x7dbl_4, self.branch7x7dbl_5 = chain(width, down, (192, (1, 7)))
        self.pool, self.branch_pool = padded_avg_pool(), ConvNormRelu(channels, 192)

    def forward(self, x: Tensor) -> Tensor:
        one = self.branch1x1(x)
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return side_by_side(one, once, twice, self.branch_pool(self.pool(x)))


class InceptionD(nn.Module):
    """Halves the size again, with a 7x7 in two parts in one branch."""

    def __init__(self, channels: int):
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = chain(channels, (192, 1), (320, 3, 2, 0))
        self.branch7x7x3_1, self.branch7x7x3_2 = chain(channels, (192, 1), (192, (1, 7)))
        self.branch7x7x3_3, self.branch7x7x3_4 = chain(192, (192, (7, 1)), (192, 3, 2, 0))
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return side_by_side(
            self.branch3x3_2(self.branch3x3_1(x)),
            self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))),
            self.pool(x),
        )


class InceptionE(nn.Module):
    """The widest, on the smallest maps (Figure 7): 1x3 and 3x1 side by side."""

    def __init__(self, channels: int):
        super().__init__()
        self.branch1x1 = ConvNormRelu(channels, 320)
        self.branch3x3_1 = ConvNormRelu(channels, 384)
        self.branch3x3_2a, self.branch3x3_2b = ConvNormRelu(384, 384, (1, 3)), ConvNormRelu(384, 384, (3, 1))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = chain(channels, (448, 1), (384, 3))
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = ConvNormRelu(384, 384, (1, 3)), ConvNormRelu(384, 384, (3, 1))
        self.pool, self.branch_pool = padded_avg_pool(), ConvNormRelu(channels, 192)

    def forward(self, x: Tensor) -> Tensor:
        one = self.branch1x1(x)
        once = self.branch3x3_1(x)
        once = side_by_side(self.branch3x3_2a(once), self.branch3x3_2b(once))
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        twice = side_by_side(self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice))
        return side_by_side(one, once, twice, self.branch_pool(self.pool(x)))


@fx.wrap  # torch.fx, which knows no shapes, cannot choose
def pooled(x: Tensor, places: int) -> Tensor:
    if min(x.shape[-2:]) >= 17:
        return nn.functional.avg_pool2d(x, 5, stride=3)
    return adaptive_pool2d(x, places)


class AuxiliaryPool(nn.AdaptiveAvgPool2d):
    """5x5 average pooling with stride 3, which makes a 17x17 map 5x5; adaptive for smaller maps."""

    def forward(self, x: Tensor) -> Tensor:
        return pooled(x, self.output_size)


class AuxiliaryHead(nn.Module):
    """Classifies the last 17x17 maps (Figure 8)."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.pool = AuxiliaryPool(5)
        self.conv0 = ConvNormRelu(channels, 128)
        self.conv1 = ConvNormRelu(128, 768, 5, padding=0)
        self.avgpool = GlobalPool()
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv0(self.pool(x))  # (B, 128, 5, 5)
        x = self.avgpool(self.conv1(x))  # (B, 768)
        return self.fc(x)


class InceptionV3(Net):
    """In train mode, with `aux_logits`, it gives `(logits, aux)`."""

    aux = ("AuxLogits.fc",)
    min_size = 75

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.5,
        global_pool: str = "avg",
        aux_logits: bool = True,
    ):
        super().__init__()
        self.in_chans = in_chans
        self.Conv2d_1a_3x3 = ConvNormRelu(in_chans, 32, 3, stride=2, padding=0)
        self.Conv2d_2a_3x3 = ConvNormRelu(32, 32, 3, padding=0)
        self.Conv2d_2b_3x3 = ConvNormRelu(32, 64, 3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = ConvNormRelu(64, 80)
        self.Conv2d_4a_3x3 = ConvNormRelu(80, 192, 3, padding=0)
        self.maxpool2 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b = InceptionA(192, pool=32)
        self.Mixed_5c = InceptionA(256, pool=64)
        self.Mixed_5d = InceptionA(288, pool=64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, width=128)
        self.Mixed_6c = InceptionC(768, width=160)
        self.Mixed_6d = InceptionC(768, width=160)
        self.Mixed_6e = InceptionC(768, width=192)
        self.AuxLogits = AuxiliaryHead(768, num_classes) if aux_logits else None
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.avgpool = GlobalPool(global_pool)
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(2048, num_classes)
        self.init_weights()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if not self.training or self.AuxLogits is None:
            return super().forward(x)
        x = self.check_images(x)
        x = self.to_6e(x)
        aux = self.AuxLogits(x)
        return self.forward_head(self.to_7c(x)), aux

    def forward_features(self, x: Tensor) -> Tensor:
        return self.to_7c(self.to_6e(x))

    def to_6e(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))  # (B, 32, 147, 147)
        x = self.Conv2d_2b_3x3(x)  # (B, 64, 147, 147)
        x = self.Conv2d_3b_1x1(self.maxpool1(x))  # (B, 80, 73, 73)
        x = self.Conv2d_4a_3x3(x)  # (B, 192, 71, 71)
        x = self.Mixed_5b(self.maxpool2(x))  # (B, 256, 35, 35)
        x = self.Mixed_5d(self.Mixed_5c(x))  # (B, 288, 35, 35)
        x = self.Mixed_6a(x)  # (B, 768, 17, 17)
        return self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))  # (B, 768, 17, 17)

    def to_7c(self, x: Tensor) -> Tensor:
        x = self.Mixed_7a(x)  # (B, 1280, 8, 8)
        return self.Mixed_7c(self.Mixed_7b(x))  # (B, 2048, 8, 8)

    def init_layer(self, name: str, module: nn.Module) -> None:
        """Weights normal with a deviation of 0.1, in the auxiliary head's last two layers of 0.01 and 0.001, as
        torchvision has it.
        """
        super().init_layer(name, module)
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std={"AuxLogits.conv1.conv": 0.01, "AuxLogits.fc": 0.001}.get(name, 0.1))


register(
    "inception_v3",
    paper="Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception Architecture for Computer Vision, "
    "CVPR 2016, arXiv 1512.00567",
    year=2015,
    input_size=(3, 299, 299),
    params=23_834_568,
    macs=5_713_216_096,
    stages=(
        Stage("stem", ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"), (64, 147, 147)),
        Stage("stage1", ("maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3"), (192, 71, 71)),
        Stage("stage2", ("maxpool2", "Mixed_5b", "Mixed_5c", "Mixed_5d"), (288, 35, 35)),
        Stage("stage3", tuple(f"Mixed_6{letter}" for letter in "abcde"), (768, 17, 17)),
        Stage("stage4", ("Mixed_7a", "Mixed_7b", "Mixed_7c"), (2048, 8, 8)),
    ),
    first_conv="Conv2d_1a_3x3.conv",
    aux_params=3_326_696,
    claims=(
        Claim("top-1 error, ILSVRC 2012 validation, one crop", "21.2 %"),
        Claim("top-5 error, ILSVRC 2012 validation, one crop", "5.6 %"),
        Claim("top-1 error, ILSVRC 2012 validation, 144 crops, 4 nets", "17.2 %"),
        Claim("top-5 error, ILSVRC 2012 validation, 144 crops, 4 nets", "3.58 %"),
    ),
    differences=(
        "the stem is the one its authors published, of convolutions to 32, 32, 64, 80 and 192; in the paper's Table 1 "
        "they go to 32, 32, 64, 80, 192 and 288, the fifth with a stride of 2 instead of the second max pooling",
        "on 35x35 maps one branch keeps a 5x5 convolution, in the paper's Figure 5 a 3x3",
        "average pooling in the pool branches counts the zero padding, as torchvision's does; the authors' does not",
        "any image of at least 75x75: the auxiliary head uses adaptive average pooling to 5x5 on maps below 17x17",
    ),
)(InceptionV3)
