"""Highway networks. Srivastava, Greff, Schmidhuber: Highway Networks, 2015, arXiv 1505.00387, and Training Very Deep
Networks, NIPS 2015, arXiv 1507.06228.

A gate T in each layer decides how much of the layer's own H(x) goes on and how much of x itself, so that a hundred
layers train. Sizes are those of the authors' Caffe nets, for 28x28 and 32x32 images, and of section 3.1 for the fully
connected ones; every plain layer ends in ReLU. B = batch.

    highway_mnist                          output      parameters
    dropout, conv 5x5, 32                  24x24x32           832
    2 highway 3x3, max 3x3/2               12x12x32        36,992
    dropout, 3 highway 3x3, max 3x3/2      6x6x32          55,488
    dropout, 3 highway 3x3, max 2x2        3x3x32          55,488
    dropout, fully connected               10               2,890

    highway_cifar
    dropout, conv 3x3, 32                  32x32x32           896
    4 highway 3x3, max 2x2                 16x16x32        73,984
    dropout, conv 3x3, 80                  16x16x80        23,120
    5 highway 3x3, max 2x2                 8x8x80         576,800
    dropout, conv 3x3, 128                 8x8x128         92,288
    5 highway 3x3                          8x8x128      1,475,840
    conv 1x1, 100                          8x8x100         12,900
    average, dropout, fully connected      10               1,010

    highway_fc10, 20, 50, 100 (layers before the last)
    fully connected, 50                    50              39,250
    9, 19, 49, 99 highway of 50            50          5,100 each
    fully connected                        10                 510
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from cnnzoo.errors import at_least
from cnnzoo.models._base import GlobalPool, Net
from cnnzoo.registry import Claim, Stage, register


class Highway(nn.Module):
    """y = H(x) T(x) + x (1 - T(x)) (equation 3). `layer` makes H's layer, which ReLU follows, and the gate T's, which
    the sigmoid follows; their output has the shape of their input.
    """

    def __init__(self, layer: Callable[[], nn.Module]):
        super().__init__()
        self.plain = layer()
        self.relu = nn.ReLU()
        self.gate = layer()
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.plain(x))
        t = self.sigmoid(self.gate(x))
        return h * t + x * (1 - t)


def convolutions(count: int, channels: int) -> nn.Sequential:
    """Highway layers of 3x3 convolutions."""
    return nn.Sequential(*(Highway(partial(nn.Conv2d, channels, channels, 3, padding=1)) for _ in range(count)))


class HighwayNet(Net):
    """What the nets share: gates that start nearly closed, and a look at how far they open."""

    gate_bias: float

    @torch.no_grad()
    def gates(self, x: Tensor) -> dict[str, Tensor]:
        """The gates T for the images `x`, between 0 and 1, by the highway layer's name, in the order in which they run:
        `(B, units)`, or `(B, C, H, W)` of a convolutional net.

        In train mode dropout takes part, so call `eval()` first.
        """
        found: dict[str, Tensor] = {}

        def keep(name: str):
            return lambda module, args, output: found.__setitem__(name, output)

        with ExitStack() as hooks:
            for name, layer in self.named_modules():
                if isinstance(layer, Highway):
                    hooks.enter_context(layer.sigmoid.register_forward_hook(keep(name)))
            self(x)
        return found

    def openness(self, x: Tensor) -> dict[str, float]:
        """How far the gates open for the images `x`: the mean of each layer's `gates`."""
        return {name: gate.mean().item() for name, gate in self.gates(x).items()}

    def init_layer(self, name: str, module: nn.Module) -> None:
        """Glorot and Bengio (2010); a negative bias in the gates, so that at first x passes through."""
        nn.init.xavier_uniform_(module.weight)
        nn.init.constant_(module.bias, self.gate_bias if name.endswith(".gate") else 0.0)


class HighwayMNIST(HighwayNet):
    """`drop_rate` is that before the head; it grows by fifths, from two fifths before the first layer."""

    min_size = 12
    gate_bias = -1.0

    def __init__(self, num_classes: int = 10, in_chans: int = 1, drop_rate: float = 0.5, global_pool: str = "avg"):
        super().__init__()
        self.in_chans = in_chans
        self.drop1 = nn.Dropout(drop_rate * 0.4)
        self.conv1, self.relu1 = nn.Conv2d(in_chans, 32, 5), nn.ReLU()
        self.highway1 = convolutions(2, 32)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.drop2 = nn.Dropout(drop_rate * 0.6)
        self.highway2 = convolutions(3, 32)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.drop3 = nn.Dropout(drop_rate * 0.8)
        self.highway3 = convolutions(3, 32)
        self.pool3 = nn.MaxPool2d(2, 2)
        self.avgpool = GlobalPool(global_pool, 3)  # nothing to do at 28; lets other sizes through
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(32 * 3 * 3, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.relu1(self.conv1(self.drop1(x)))  # (B, 32, 24, 24)
        x = self.pool1(self.highway1(x))  # (B, 32, 12, 12)
        x = self.pool2(self.highway2(self.drop2(x)))  # (B, 32, 6, 6)
        return self.pool3(self.highway3(self.drop3(x)))  # (B, 32, 3, 3)


class HighwayCIFAR(HighwayNet):
    """The authors' 19-layer net. Images `(B, in_chans, H, W)` to logits `(B, num_classes)`; `drop_rate` is that of all
    four dropouts.
    """

    min_size = 4
    gate_bias = -2.0

    def __init__(self, num_classes: int = 10, in_chans: int = 3, drop_rate: float = 0.2, global_pool: str = "avg"):
        super().__init__()
        self.in_chans = in_chans
        self.drop1 = nn.Dropout(drop_rate)
        self.conv1, self.relu1 = nn.Conv2d(in_chans, 32, 3, padding=1), nn.ReLU()
        self.highway1 = convolutions(4, 32)
        self.pool1 = nn.MaxPool2d(2, 2)
        self.drop2 = nn.Dropout(drop_rate)
        self.conv2, self.relu2 = nn.Conv2d(32, 80, 3, padding=1), nn.ReLU()
        self.highway2 = convolutions(5, 80)
        self.pool2 = nn.MaxPool2d(2, 2)
        self.drop3 = nn.Dropout(drop_rate)
        self.conv3, self.relu3 = nn.Conv2d(80, 128, 3, padding=1), nn.ReLU()
        self.highway3 = convolutions(5, 128)
        self.conv4, self.relu4 = nn.Conv2d(128, 100, 1), nn.ReLU()
        self.avgpool = GlobalPool(global_pool)
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(100, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.relu1(self.conv1(self.drop1(x)))  # (B, 32, 32, 32)
        x = self.pool1(self.highway1(x))  # (B, 32, 16, 16)
        x = self.relu2(self.conv2(self.drop2(x)))  # (B, 80, 16, 16)
        x = self.pool2(self.highway2(x))  # (B, 80, 8, 8)
        x = self.relu3(self.conv3(self.drop3(x)))  # (B, 128, 8, 8)
        return self.relu4(self.conv4(self.highway3(x)))  # (B, 100, 8, 8)


class HighwayFC(HighwayNet):
    """`depth` layers and the head, on the flattened image, which must be `image_size` x `image_size`."""

    gate_bias = -2.0

    def __init__(
        self,
        depth: int,
        num_classes: int = 10,
        in_chans: int = 1,
        drop_rate: float = 0.0,
        image_size: int = 28,
    ):
        super().__init__()
        at_least("image_size", image_size)
        self.in_chans = in_chans
        self.image_size = self.min_size = image_size
        self.fc1 = nn.Linear(in_chans * image_size**2, 50)
        self.relu1 = nn.ReLU()
        self.highway = nn.Sequential(*(Highway(partial(nn.Linear, 50, 50)) for _ in range(depth - 1)))
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(50, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.highway(self.relu1(self.fc1(x.flatten(1))))  # (B, 50)
        return x[:, :, None, None]  # (B, 50, 1, 1)

    def forward_head(self, f: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.dropout(f.flatten(1))
        return x if pre_logits else self.fc(x)


_FACTS = {"year": 2015, "num_classes": 10}
_EARLY = "Srivastava, Greff, Schmidhuber: Highway Networks, 2015, arXiv 1505.00387"
_LATE = "Srivastava, Greff, Schmidhuber: Training Very Deep Networks, NIPS 2015, arXiv 1507.06228"
_HEAD = "the last layer has Glorot initialisation, like all others; in the authors' file it is N(0, 0.1)"

register(
    "highway_mnist",
    **_FACTS,
    paper=_LATE,
    input_size=(1, 28, 28),
    params=151_690,
    macs=31_650_624,
    stages=(
        Stage("stem", ("drop1", "conv1", "relu1"), (32, 24, 24)),
        Stage("stage1", ("highway1", "pool1"), (32, 12, 12)),
        Stage("stage2", ("drop2", "highway2", "pool2"), (32, 6, 6)),
        Stage("stage3", ("drop3", "highway3", "pool3"), (32, 3, 3)),
    ),
    first_conv="conv1",
    claims=(Claim("parameters", "151 thousand"), Claim("accuracy, MNIST", "99.55 %")),
    differences=(_HEAD, "images of other sizes than 28x28: adaptive pooling of the last maps to 3x3"),
)(HighwayMNIST)

register(
    "highway_cifar",
    **_FACTS,
    paper=_LATE,
    input_size=(3, 32, 32),
    params=2_256_838,
    macs=330_826_728,
    stages=(
        Stage("stem", ("drop1", "conv1", "relu1"), (32, 32, 32)),
        Stage("stage1", ("highway1", "pool1"), (32, 16, 16)),
        Stage("stage2", ("drop2", "conv2", "relu2", "highway2", "pool2"), (80, 8, 8)),
        Stage("stage3", ("drop3", "conv3", "relu3", "highway3", "conv4", "relu4"), (100, 8, 8)),
    ),
    first_conv="conv1",
    claims=(
        Claim("parameters", "2.3 million"),
        Claim("accuracy, CIFAR-10 with augmentation", "92.40 %"),
        Claim("accuracy, CIFAR-100 with augmentation", "67.76 %"),
    ),
    differences=("Glorot initialisation throughout; in the authors' file the first layer's weights are Gaussian",),
)(HighwayCIFAR)

# depth: parameters, multiply-adds
FC_VARIANTS = {10: (85_660, 84_700), 20: (136_660, 134_700), 50: (289_660, 284_700), 100: (544_660, 534_700)}

for _depth, (_params, _macs) in FC_VARIANTS.items():
    register(
        f"highway_fc{_depth}",
        **_FACTS,
        paper=_EARLY,
        input_size=(1, 28, 28),
        params=_params,
        macs=_macs,
        min_size=28,
        stages=(Stage("stem", ("fc1", "relu1"), (50,)), Stage("stage1", ("highway",), (50,))),
        first_conv="fc1",
        differences=("ReLU and a gate bias of -2 at every depth; the paper found both by random search",),
    )(partial(HighwayFC, _depth))
