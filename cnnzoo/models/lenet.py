"""LeNet-5. LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition, Proceedings of the
IEEE 86(11), 1998.

Sizes are those of the paper's Figure 2 and section II.B for a 32x32 image (a 28x28 MNIST digit padded by 2).
B = batch.

    layer                           output     lenet5   lenet5_1998
    C1  convolution 5x5             28x28x6       156           156
    S2  average / subsampling 2x2   14x14x6         0            12
    C3  convolution 5x5             10x10x16    2,416         1,516   (1998: the connection table of Table I)
    S4  average / subsampling 2x2   5x5x16          0            32
    C5  convolution 5x5             1x1x120    48,120        48,120
    F6  fully connected             84         10,164        10,164
    out linear / RBF                10            850   0 (840 fixed)
    total                                      61,706        60,000

`lenet5` is the net that lectures draw; `lenet5_1998` is the paper's, to the last trainable coefficient.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cnnzoo.models._base import GlobalPool, Net
from cnnzoo.registry import Claim, Stage, register

PAPER = (
    "LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 86(11), 1998"
)


class LeNet(Net):
    """What both nets share: F6 and the output layer.

    An image larger than 32x32 gives more than one C5 column; F6 sees their mean.
    """

    head_name = "output"
    min_size = 32

    def forward_head(self, f: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.tanh6(self.f6(self.avgpool(f)))  # (B, 84)
        x = self.dropout(x)
        return x if pre_logits else self.output(x)


class LeNet5(LeNet):
    """Tanh, average pooling, softmax."""

    def __init__(self, num_classes: int = 10, in_chans: int = 1, drop_rate: float = 0.0, global_pool: str = "avg"):
        super().__init__()
        self.in_chans = in_chans
        self.c1 = nn.Conv2d(in_chans, 6, 5)
        self.tanh1 = nn.Tanh()
        self.s2 = nn.AvgPool2d(2)
        self.c3 = nn.Conv2d(6, 16, 5)
        self.tanh3 = nn.Tanh()
        self.s4 = nn.AvgPool2d(2)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.tanh5 = nn.Tanh()
        self.avgpool = GlobalPool(global_pool)
        self.f6 = nn.Linear(120, 84)
        self.tanh6 = nn.Tanh()
        self.dropout = nn.Dropout(drop_rate)
        self.output = nn.Linear(84, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.s2(self.tanh1(self.c1(x)))  # (B, 6, 14, 14)
        x = self.s4(self.tanh3(self.c3(x)))  # (B, 16, 5, 5)
        return self.tanh5(self.c5(x))  # (B, 120, 1, 1)


class ScaledTanh(nn.Module):
    """f(a) = 1.7159 tanh(2a/3), so that f(1) = 1 and f(-1) = -1 (appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """The sum over 2x2 windows times a trainable coefficient plus a trainable bias, one of each per map (layer S2)."""

    kernel_size = stride = 2

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.weight, -2.4 / 4, 2.4 / 4)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        total = self.kernel_size**2 * nn.functional.avg_pool2d(x, self.kernel_size, self.stride)
        return total * self.weight[:, None, None] + self.bias[:, None, None]


# Table I: which of the six S2 maps each of the sixteen C3 maps is connected to.
C3_TABLE = (
    *((i, (i + 1) % 6, (i + 2) % 6) for i in range(6)),
    *((i, (i + 1) % 6, (i + 2) % 6, (i + 3) % 6) for i in range(6)),
    *((i, (i + 1) % 6, (i + 3) % 6, (i + 4) % 6) for i in range(3)),
    tuple(range(6)),
)


class TableConv2d(nn.Module):
    """A convolution in which each output map sees only the input maps that `table` names.

    `weight` is `(connections, k, k)`: what is not connected is no parameter.
    """

    def __init__(self, table: tuple[tuple[int, ...], ...], in_channels: int, kernel_size: int):
        super().__init__()
        self.table = table
        self.in_channels = in_channels
        self.kernel_size = kernel_size
        self.weight = nn.Parameter(torch.empty(sum(map(len, table)), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(len(table)))
        # The row of `weight` for each (output, input) pair; the row after the last is the zero of no connection.
        self.register_buffer("rows", torch.empty(len(table) * in_channels, dtype=torch.int64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        pairs = [(out, source) for out, sources in enumerate(self.table) for source in sorted(sources)]
        rows = torch.full((len(self.table), self.in_channels), len(pairs), device="cpu")
        for row, (out, source) in enumerate(pairs):
            rows[out, source] = row
        self.rows.copy_(rows.flatten())
        with torch.no_grad():
            for row, (out, _) in enumerate(pairs):
                bound = 2.4 / (self.weight[row].numel() * len(self.table[out]))
                self.weight[row].uniform_(-bound, bound)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        window = self.kernel_size, self.kernel_size
        with_zero = torch.cat([self.weight, self.weight.new_zeros(1, *window)])
        dense = with_zero.index_select(0, self.rows).view(len(self.table), self.in_channels, *window)
        return nn.functional.conv2d(x, dense, self.bias)

    def multiply_adds(self, output: Sequence[int]) -> int:
        """Of the connections, for maps of this shape; the zeros between them do not count."""
        return self.weight.numel() * output[1] * output[2]


# Ten 7x12 drawings of the digits, the fixed centres of the RBF units (the paper's own exist only as its Figure 3).
GLYPHS = (
    "..###.. .#...#. #.....# #.....# #.....# #.....# #.....# #.....# #.....# #.....# .#...#. ..###..",
    "...#... ..##... .#.#... #..#... ...#... ...#... ...#... ...#... ...#... ...#... ...#... #######",
    ".#####. #.....# ......# ......# .....#. ....#.. ...#... ..#.... .#..... #...... #...... #######",
    ".#####. #.....# ......# ......# ......# ..####. ......# ......# ......# ......# #.....# .#####.",
    ".....#. ....##. ...#.#. ..#..#. .#...#. #....#. #....#. ####### .....#. .....#. .....#. .....#.",
    "####### #...... #...... #...... #.####. ##....# ......# ......# ......# ......# #.....# .#####.",
    "..####. .#....# #...... #...... #.####. ##....# #.....# #.....# #.....# #.....# .#...#. ..###..",
    "####### ......# ......# .....#. .....#. ....#.. ....#.. ...#... ...#... ..#.... ..#.... ..#....",
    "..###.. .#...#. #.....# #.....# .#...#. ..###.. .#...#. #.....# #.....# #.....# .#...#. ..###..",
    "..###.. .#...#. #.....# #.....# #.....# #....## .####.# ......# ......# ......# #....#. .####..",
)


def _codes(num_classes: int) -> Tensor:
    """`(num_classes, 84)` of +1 and -1: the drawings for ten classes, fixed random codes for any other number."""
    if num_classes == len(GLYPHS):
        codes = [[1.0 if dot == "#" else -1.0 for dot in glyph.replace(" ", "")] for glyph in GLYPHS]
    else:
        codes = np.random.default_rng(1998).choice([-1.0, 1.0], size=(num_classes, 84)).tolist()
    return torch.tensor(codes, device="cpu")  # whatever the default: there is nothing to copy on the meta device


class RBF(nn.Module):
    """Euclidean radial basis functions with fixed centres: logits -y with y_i = sum_j (x_j - w_ij)^2 (equation 7)."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.in_features, self.out_features = 84, num_classes
        self.register_buffer("weight", torch.empty(num_classes, 84))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.weight.copy_(_codes(self.out_features))

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, None, :] - self.weight).square().sum(dim=2)

    def multiply_adds(self, output: Sequence[int]) -> int:
        """Each difference is squared and added."""
        return self.weight.numel()


class LeNet5Paper(LeNet):
    """The paper's net. Its logits are the negated RBF outputs, so that the largest wins, as everywhere."""

    def __init__(self, num_classes: int = 10, in_chans: int = 1, drop_rate: float = 0.0, global_pool: str = "avg"):
        super().__init__()
        self.in_chans = in_chans
        self.c1 = nn.Conv2d(in_chans, 6, 5)
        self.tanh1 = ScaledTanh()
        self.s2 = Subsampling(6)
        self.tanh2 = ScaledTanh()
        self.c3 = TableConv2d(C3_TABLE, 6, 5)
        self.tanh3 = ScaledTanh()
        self.s4 = Subsampling(16)
        self.tanh4 = ScaledTanh()
        self.c5 = nn.Conv2d(16, 120, 5)
        self.tanh5 = ScaledTanh()
        self.avgpool = GlobalPool(global_pool)
        self.f6 = nn.Linear(120, 84)
        self.tanh6 = ScaledTanh()
        self.dropout = nn.Dropout(drop_rate)
        self.output = RBF(num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.tanh1(self.c1(x))  # (B, 6, 28, 28)
        x = self.tanh2(self.s2(x))  # (B, 6, 14, 14)
        x = self.tanh3(self.c3(x))  # (B, 16, 10, 10)
        x = self.tanh4(self.s4(x))  # (B, 16, 5, 5)
        return self.tanh5(self.c5(x))  # (B, 120, 1, 1)

    def new_head(self, old: nn.Module, num_classes: int) -> nn.Module:
        return RBF(num_classes).to(self.f6.weight)

    def init_layer(self, name: str, module: nn.Module) -> None:
        """Uniform within 2.4 / fan-in (appendix A), each unit of S2, C3 and S4 counting its own inputs."""
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 2.4 / module.weight[0].numel()
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)
        else:
            super().init_layer(name, module)


def _stages(*activations: str) -> tuple[Stage, ...]:
    a1, a2, a3, a4 = activations
    return (
        Stage("stage1", ("c1", "tanh1", "s2", *a1.split()), (6, 14, 14)),
        Stage("stage2", ("c3", "tanh3", "s4", *a2.split()), (16, 5, 5)),
        Stage("stage3", ("c5", a3), (120, 1, 1)),
        Stage("stage4", ("f6", a4), (84,)),
    )


_FACTS = {
    "paper": PAPER,
    "year": 1998,
    "input_size": (1, 32, 32),
    "num_classes": 10,
    "first_conv": "c1",
}


def _claims(ours: str) -> tuple[Claim, ...]:
    return (
        Claim("parameters", "60,000"),
        Claim("error, MNIST", "0.95 %", ours),
        Claim("error, MNIST with distortions", "0.8 %"),
    )


register(
    "lenet5",
    **_FACTS,
    claims=_claims("0.78 %, mean of 3 seeds, configs/lenet5_mnist.yaml"),
    params=61_706,
    macs=416_520,
    stages=_stages("", "", "tanh5", "tanh6"),
    differences=(
        "C3 sees all six S2 maps instead of the sparse connections of Table I",
        "S2 and S4 are average pooling, without trainable coefficient, bias or squashing",
        "tanh instead of 1.7159 tanh(2a/3)",
        "a linear layer, softmax and cross-entropy instead of RBF units and the paper's equation 9",
    ),
)(LeNet5)

register(
    "lenet5_1998",
    **_FACTS,
    claims=_claims("1.01 %, mean of 3 seeds, configs/lenet5_1998_mnist.yaml"),
    params=60_000,
    macs=326_520,
    stages=_stages("tanh2", "tanh4", "tanh5", "tanh6"),
    loss="map",
    differences=(
        "the ten 7x12 bitmaps are our own drawings, since the paper's exist only as a figure; "
        "other numbers of classes get fixed random codes",
        "the constant j of equation 9 is not published; 0.1 here",
        "trained by stochastic gradient descent in batches, not by the stochastic diagonal Levenberg-Marquardt method",
    ),
)(LeNet5Paper)
