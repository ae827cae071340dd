"""GoogLeNet. Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich: Going Deeper with Convolutions,
CVPR 2015, arXiv 1409.4842.

The net of googlenet.py, where the widths stand, with the paper's own layers. Sizes are those of the paper's Table 1 for
a 224x224 image; names are near torchvision's. B = batch.

    layer                         output       parameters
    conv1 7x7/2, ReLU             112x112x64        9,472
    max 3x3/2, LRN                  56x56x64
    conv2 1x1, ReLU                 56x56x64        4,160
    conv3 3x3, ReLU, LRN           56x56x192      110,784
    max 3x3/2, 3a, 3b              28x28x480      163,696     388,736
    max 3x3/2, 4a to 4e            14x14x832      376,176     449,160    510,104    605,376    868,352
    max 3x3/2, 5a, 5b               7x7x1024    1,043,456   1,444,080
    average, dropout 0.4, fc            1000    1,025,000

    auxiliary head, on 4a and on 4d
    average 5x5/3, 1x1, ReLU         4x4x128
    fc, ReLU, dropout 0.7               1024
    fc                                  1000    3,188,840   3,190,888 with all layers of the head

Max pooling rounds sizes up, as in Caffe.
"""

from torch import Tensor, fx, nn

from cnnzoo.models._base import adaptive_pool2d
from cnnzoo.models._lrn import LocalResponseNorm
from cnnzoo.models.googlenet import FACTS, AuxiliaryHead, GoogLeNet, Inception, stages
from cnnzoo.registry import register


class ConvRelu(nn.Module):
    """A convolution with bias that keeps the size at stride 1, and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(x))


class Inception2014(Inception):
    brick = ConvRelu
    large = 5


@fx.wrap  # torch.fx, which knows no shapes, cannot choose
def pooled(x: Tensor, places: int) -> Tensor:
    if x.shape[-2:] == (14, 14):
        return nn.functional.avg_pool2d(x, 5, stride=3)
    return adaptive_pool2d(x, places)


class AuxiliaryPool(nn.AdaptiveAvgPool2d):
    """5x5 average pooling with stride 3, which makes a 14x14 map 4x4; adaptive for maps of other sizes."""

    def forward(self, x: Tensor) -> Tensor:
        return pooled(x, self.output_size)


class AuxiliaryHead2014(AuxiliaryHead):
    brick = ConvRelu
    pool = AuxiliaryPool


def lrn() -> nn.Module:
    return LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)  # of AlexNet's form, as Caffe and PyTorch count alpha


class GoogLeNet2014(GoogLeNet):
    """GoogLeNet with the paper's layers (section 5). In train mode, with `aux_logits`, it gives `(logits, aux1, aux2)`,
    each `(B, num_classes)`, for images `(B, in_chans, H, W)`.
    """

    min_size = 31

    brick, block, side_head = ConvRelu, Inception2014, AuxiliaryHead2014
    last_pool = 3

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.4,
        global_pool: str = "avg",
        aux_logits: bool = True,
    ):
        super().__init__(num_classes, in_chans, drop_rate, global_pool, aux_logits)
        self.norm1, self.norm2 = lrn(), lrn()

    def stem(self, x: Tensor) -> Tensor:
        x = self.conv1(x)  # (B, 64, 112, 112)
        x = self.conv2(self.norm1(self.maxpool1(x)))  # (B, 64, 56, 56)
        return self.norm2(self.conv3(x))  # (B, 192, 56, 56)

    def init_layer(self, name: str, module: nn.Module) -> None:
        """As BVLC trained it: uniform weights with a variance of 1 / fan-in (Caffe's "xavier"), and biases of 0.2 in
        convolutions, 0 elsewhere.
        """
        nn.init.kaiming_uniform_(module.weight, nonlinearity="linear")
        nn.init.constant_(module.bias, 0.2 if isinstance(module, nn.Conv2d) else 0.0)


register(
    "googlenet_2014",
    **FACTS,
    params=6_998_552,
    macs=1_582_671_872,
    stages=stages("norm1", "norm2"),
    aux_params=6_379_728,
    differences=(
        "the paper prints neither the constants of its local response normalisation nor its initialisation: both are "
        "those of BVLC's training in Caffe",
        "any image of at least 31x31: the auxiliary heads use adaptive average pooling to 4x4 unless maps are 14x14",
    ),
)(GoogLeNet2014)
