"""AlexNet. Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012.

Sizes are those of the paper's Figure 2 for a 227x227 image (the paper prints 224; 55x55 maps need 227). B = batch.

    layer                                       output       two towers   single tower
    conv1 11x11/4, 96, ReLU, LRN, max 3x3/2     27x27x96         34,944         34,944
    conv2 5x5, 256, ReLU, LRN, max 3x3/2        13x13x256       307,456        614,656
    conv3 3x3, 384, ReLU                        13x13x384       885,120        885,120
    conv4 3x3, 384, ReLU                        13x13x384       663,936      1,327,488
    conv5 3x3, 256, ReLU, max 3x3/2             6x6x256         442,624        884,992
    fc6 4096, ReLU, dropout                     4096         37,752,832     37,752,832
    fc7 4096, ReLU, dropout                     4096         16,781,312     16,781,312
    fc8 1000                                    1000          4,097,000      4,097,000
    total                                                    60,965,224     62,378,344

The two towers that the paper spread over two GPUs are convolutions with two groups: conv2, conv4 and conv5 see only the
maps of their own GPU. `alexnet_2012_single` is the net that most slides draw, with every map connected to every map.
"""

from functools import partial

from torch import Tensor, nn

from cnnzoo.models._base import GlobalPool, Net, fill_normal
from cnnzoo.models._lrn import LocalResponseNorm
from cnnzoo.registry import Claim, Stage, register


class AlexNet2012(Net):
    """Images `(B, in_chans, H, W)` to logits `(B, num_classes)`. `groups` is the number of towers.

    `lrn_alpha` is the alpha of the formula in section 3.3; cuda-convnet and Caffe divide it by n.
    """

    head_name = "fc8"
    min_size = 67

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.5,
        global_pool: str = "avg",
        groups: int = 2,
        lrn_alpha: float = 1e-4,
        lrn_k: float = 2.0,
    ):
        super().__init__()
        self.in_chans = in_chans

        def lrn() -> nn.Module:  # PyTorch divides alpha by n, the formula does not
            return LocalResponseNorm(5, alpha=5 * lrn_alpha, beta=0.75, k=lrn_k)

        self.conv1 = nn.Conv2d(in_chans, 96, 11, stride=4)
        self.relu1, self.norm1, self.pool1 = nn.ReLU(), lrn(), nn.MaxPool2d(3, 2)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=groups)
        self.relu2, self.norm2, self.pool2 = nn.ReLU(), lrn(), nn.MaxPool2d(3, 2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=groups)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=groups)
        self.relu5, self.pool5 = nn.ReLU(), nn.MaxPool2d(3, 2)
        self.avgpool = GlobalPool(global_pool, 6)  # nothing to do at 227; lets larger images through
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.relu6, self.drop6 = nn.ReLU(), nn.Dropout(drop_rate)
        self.fc7 = nn.Linear(4096, 4096)
        self.relu7, self.drop7 = nn.ReLU(), nn.Dropout(drop_rate)
        self.fc8 = nn.Linear(4096, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.pool1(self.norm1(self.relu1(self.conv1(x))))  # (B, 96, 27, 27)
        x = self.pool2(self.norm2(self.relu2(self.conv2(x))))  # (B, 256, 13, 13)
        x = self.relu3(self.conv3(x))  # (B, 384, 13, 13)
        x = self.relu4(self.conv4(x))  # (B, 384, 13, 13)
        return self.pool5(self.relu5(self.conv5(x)))  # (B, 256, 6, 6)

    def forward_head(self, f: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.avgpool(f)  # (B, 9216)
        x = self.drop6(self.relu6(self.fc6(x)))  # (B, 4096)
        x = self.drop7(self.relu7(self.fc7(x)))  # (B, 4096)
        return x if pre_logits else self.fc8(x)

    def init_layer(self, name: str, module: nn.Module) -> None:
        """Section 5: weights N(0, 0.01); biases 1 in conv2, conv4, conv5, fc6 and fc7, 0 elsewhere."""
        fill_normal(module.weight, std=0.01)
        nn.init.constant_(module.bias, 1.0 if name in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0.0)


_TOP1, _TOP5 = "top-1 error, ILSVRC 2012 validation, 10 crops", "top-5 error, ILSVRC 2012 validation, 10 crops"

_FACTS = {
    "paper": "Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, "
    "NIPS 2012",
    "year": 2012,
    "input_size": (3, 227, 227),
    "stages": (
        Stage("stage1", ("conv1", "relu1", "norm1", "pool1"), (96, 27, 27)),
        Stage("stage2", ("conv2", "relu2", "norm2", "pool2"), (256, 13, 13)),
        Stage("stage3", ("conv3", "relu3"), (384, 13, 13)),
        Stage("stage4", ("conv4", "relu4"), (384, 13, 13)),
        Stage("stage5", ("conv5", "relu5", "pool5"), (256, 6, 6)),
        Stage("stage6", ("fc6", "relu6", "drop6"), (4096,)),
        Stage("stage7", ("fc7", "relu7", "drop7"), (4096,)),
    ),
    "first_conv": "conv1",
    "claims": (
        Claim("parameters", "60 million"),
        Claim("neurons", "650,000"),
        Claim(_TOP1, "40.7 %"),
        Claim(_TOP5, "18.2 %"),
        Claim(f"{_TOP1}, 5 nets", "38.1 %"),
        Claim(f"{_TOP5}, 5 nets", "16.4 %"),
        Claim(f"{_TOP1}, 7 nets", "36.7 %"),
        Claim(f"{_TOP5}, 7 nets", "15.4 %"),
        Claim("top-5 error, ILSVRC 2012 test, 7 nets", "15.3 %"),
        Claim("top-1 error, ILSVRC 2010 test", "37.5 %"),
        Claim("top-5 error, ILSVRC 2010 test", "17.0 %"),
    ),
}
_DROPOUT = "dropout doubles the outputs that it keeps in training; the paper halves all outputs at test time"

register("alexnet_2012", **_FACTS, params=60_965_224, macs=724_406_816, differences=(_DROPOUT,))(AlexNet2012)


register(
    "alexnet_2012_single",
    **_FACTS,
    params=62_378_344,
    macs=1_135_256_096,
    differences=(
        _DROPOUT,
        "one tower: conv2, conv4 and conv5 see all maps of the layer before, not only those on their GPU",
    ),
)(partial(AlexNet2012, groups=1))
