"""GoogLeNet as the world has weights for it. Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich:
Going Deeper with Convolutions, CVPR 2015, arXiv 1409.4842.

Sizes are those of the paper's Table 1 for a 224x224 image; names are torchvision's. B = batch.

    layer                output       #1x1   #3x3         #5x5        pool    parameters
                                             reduced to   reduced to          here
    conv1 7x7/2          112x112x64                                                9,536
    max 3x3/2, conv2 1x1   56x56x64                                                4,224
    conv3 3x3             56x56x192                                              110,976
    max 3x3/2, 3a         28x28x256     64    96 -> 128    16 ->  32    32       155,872
    3b                    28x28x480    128   128 -> 192    32 ->  96    64       340,224
    max 3x3/2, 4a         14x14x512    192    96 -> 208    16 ->  48    64       364,512
    4b                    14x14x512    160   112 -> 224    24 ->  64    64       425,232
    4c                    14x14x512    128   128 -> 256    24 ->  64    64       486,192
    4d                    14x14x528    112   144 -> 288    32 ->  64    64       573,312
    4e                    14x14x832    256   160 -> 320    32 -> 128   128       803,840
    max 2x2/2, 5a           7x7x832    256   160 -> 320    32 -> 128   128       978,944
    5b                     7x7x1024    384   192 -> 384    48 -> 128   128     1,347,040
    average, dropout, fc       1000                                            1,025,000

In training two auxiliary heads classify the maps of 4a and of 4d. torchvision's trained weights want images on [-1, 1];
its `transform_input`, which takes its usual normalisation there, is left to the weights' preprocessing.

The net of the paper is in googlenet_2014.py. Differences from it: see `cnnzoo info googlenet`.
"""

from torch import Tensor, nn

from cnnzoo.models._base import AdaptivePool, GlobalPool, HeNet
from cnnzoo.models._blocks import Branches, ConvNormRelu
from cnnzoo.registry import Claim, Stage, register


class Inception(Branches):
    """Four branches side by side (Figure 2b): 1x1 convolutions narrow the maps before the larger ones.

    The arguments are a row of Table 1.
    """

    brick = ConvNormRelu
    large = 3  # the paper: 5

    def __init__(self, channels: int, n1: int, reduce3: int, n3: int, reduce5: int, n5: int, pool: int):
        brick = self.brick
        super().__init__(
            branch1=brick(channels, n1, 1),
            branch2=nn.Sequential(brick(channels, reduce3, 1), brick(reduce3, n3, 3)),
            branch3=nn.Sequential(brick(channels, reduce5, 1), brick(reduce5, n5, self.large)),
            branch4=nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), brick(channels, pool, 1)),
        )


class AuxiliaryHead(nn.Module):
    """Classifies maps from the middle of the net (section 5)."""

    brick = ConvNormRelu
    pool = AdaptivePool

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.avgpool = self.pool(4)
        self.conv = self.brick(channels, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.avgpool(x)).flatten(1)  # (B, 2048)
        x = self.dropout(self.relu(self.fc1(x)))  # (B, 1024)
        return self.fc2(x)


class GoogLeNet(HeNet):
    """In train mode, with `aux_logits`, it gives `(logits, aux1, aux2)`."""

    aux = ("aux1.fc2", "aux2.fc2")
    min_size = 15

    brick, block, side_head = ConvNormRelu, Inception, AuxiliaryHead
    last_pool = 2  # kernel of the last max pooling; the paper: 3

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.2,
        global_pool: str = "avg",
        aux_logits: bool = True,
    ):
        super().__init__()
        brick, block, side_head = self.brick, self.block, self.side_head
        self.in_chans = in_chans
        self.conv1 = brick(in_chans, 64, 7, stride=2)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = brick(64, 64, 1)
        self.conv3 = brick(64, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception3a = block(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = block(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception4a = block(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = block(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = block(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = block(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = block(528, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(self.last_pool, 2, ceil_mode=True)
        self.inception5a = block(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = block(832, 384, 192, 384, 48, 128, 128)
        self.aux1 = side_head(512, num_classes) if aux_logits else None
        self.aux2 = side_head(528, num_classes) if aux_logits else None
        self.avgpool = GlobalPool(global_pool)
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(1024, num_classes)
        self.init_weights()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        if not self.training or self.aux1 is None:
            return super().forward(x)
        x = self.check_images(x)
        x = self.to_4a(self.stem(x))
        aux1 = self.aux1(x)
        x = self.to_4d(x)
        aux2 = self.aux2(x)
        return self.forward_head(self.to_5b(x)), aux1, aux2

    def forward_features(self, x: Tensor) -> Tensor:
        return self.to_5b(self.to_4d(self.to_4a(self.stem(x))))

    def stem(self, x: Tensor) -> Tensor:
        x = self.conv1(x)  # (B, 64, 112, 112)
        x = self.conv2(self.maxpool1(x))  # (B, 64, 56, 56)
        return self.conv3(x)  # (B, 192, 56, 56)

    def to_4a(self, x: Tensor) -> Tensor:
        x = self.inception3a(self.maxpool2(x))  # (B, 256, 28, 28)
        x = self.inception3b(x)  # (B, 480, 28, 28)
        return self.inception4a(self.maxpool3(x))  # (B, 512, 14, 14)

    def to_4d(self, x: Tensor) -> Tensor:
        x = self.inception4c(self.inception4b(x))  # (B, 512, 14, 14)
        return self.inception4d(x)  # (B, 528, 14, 14)

    def to_5b(self, x: Tensor) -> Tensor:
        x = self.inception4e(x)  # (B, 832, 14, 14)
        x = self.inception5a(self.maxpool4(x))  # (B, 832, 7, 7)
        return self.inception5b(x)  # (B, 1024, 7, 7)


_ERROR = "top-5 error, ILSVRC 2012 validation"
FACTS = {
    "paper": "Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich: Going Deeper with "
    "Convolutions, CVPR 2015, arXiv 1409.4842",
    "year": 2014,
    "first_conv": "conv1.conv",
    "claims": (
        Claim("parameters, the sum of Table 1", "6.8 million"),
        Claim("multiply-adds, the sum of Table 1", "1.50 billion"),
        Claim(f"{_ERROR}, one crop", "10.07 %"),
        Claim(f"{_ERROR}, 10 crops", "9.15 %"),
        Claim(f"{_ERROR}, 144 crops", "7.89 %"),
        Claim(f"{_ERROR}, 144 crops, 7 nets", "6.67 %"),
    ),
}


def stages(*norms: str) -> tuple[Stage, ...]:
    """From input to output; `norms` are the two layers that the paper's own form has between the first ones."""
    inner, last = norms[:1], norms[1:]
    return (
        Stage("stem", ("conv1",), (64, 112, 112)),
        Stage("stage1", ("maxpool1", *inner, "conv2", "conv3", *last), (192, 56, 56)),
        Stage("stage2", ("maxpool2", "inception3a", "inception3b"), (480, 28, 28)),
        Stage("stage3", ("maxpool3", *(f"inception4{letter}" for letter in "abcde")), (832, 14, 14)),
        Stage("stage4", ("maxpool4", "inception5a", "inception5b"), (1024, 7, 7)),
    )


register(
    "googlenet",
    **FACTS,
    params=6_624_904,
    macs=1_498_376_192,
    stages=stages(),
    aux_params=6_379_984,
    differences=(
        "3x3 convolutions where the paper has 5x5 ones",
        "BatchNorm after every convolution instead of its bias, and no local response normalisation",
        "the last max pooling is 2x2, in the paper 3x3",
        "auxiliary heads use adaptive average pooling to 4x4, in the paper 5x5 average pooling with stride 3",
        "dropout of 0.2 before the head, in the paper 0.4",
    ),
)(GoogLeNet)
