"""FractalNet. Larsson, Maire, Shakhnarovich: FractalNet: Ultra-Deep Neural Networks without Residuals, ICLR 2017,
arXiv 1605.07648.

Depth without residuals: f_1 is one convolution, and f_(C+1) is f_C twice in a row, joined with one convolution beside
them by their mean (section 3). Drawn as C columns (Figure 1), a block with C = 3 is

    column   0      1      2
    step 1                 conv
    step 2          conv   conv   joined
    step 3                 conv
    step 4   conv   conv   conv   max 2x2 each, joined

where a convolution sees what its column was last joined to, at first the block's input. Sizes are those of the authors'
generator for a 32x32 image. B = batch.

    block    output       dropout
    block1   16x16x64     0
    block2   8x8x128      0.1
    block3   4x4x256      0.2
    block4   2x2x512      0.3
    block5   1x1x512      0.4
    head     10           fully connected

A convolution is 3x3, then dropout, BatchNorm without factors of its own, ReLU. `fractalnet20` has 3 columns,
`fractalnet40` 4: the longest way through a block has 4 and 8 convolutions.
"""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from cnnzoo.models._base import GlobalPool, Net
from cnnzoo.registry import Claim, Stage, register

WIDTHS = (64, 128, 256, 512, 512)


class Unit(nn.Sequential):
    """A convolution of the fractal."""

    def __init__(self, in_channels: int, out_channels: int, drop_rate: float):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.dropout = nn.Dropout(drop_rate)
        self.bn = nn.BatchNorm2d(out_channels, affine=False)
        self.relu = nn.ReLU()


class Join(nn.Module):
    """The mean of the paths that arrive, shallowest column first.

    In training, drop-path thins them out (section 3.1): each is dropped with probability `drop_path_rate`, but never
    all of them, and the mean is over the rest. If one `column` was drawn for the whole net, it alone goes on.
    """

    def __init__(self, drop_path_rate: float):
        super().__init__()
        self.drop_path_rate = drop_path_rate

    def forward(self, *paths: Tensor, column: Tensor | None = None) -> Tensor:
        """`column`: -1 the deepest, -2 the next, …; 0 no global column; None no drop-path at all."""
        if column is None or not self.training:
            return torch.stack(paths).mean(dim=0)
        draws = column.new_empty(len(paths), dtype=torch.float32).uniform_()  # torch.fx (2.6) cannot follow rand
        spared = draws >= draws.max().clamp(max=self.drop_path_rate)  # if all are below the rate, the largest
        chosen = torch.stack([column == place for place in range(-len(paths), 0)])
        stay = torch.where(chosen.any(), chosen, spared)  # nobody sees a join that the column does not reach
        weights = stay / stay.sum()
        return sum(weights[i] * path for i, path in enumerate(paths))  # torch.fx cannot loop over a tensor

    def extra_repr(self) -> str:
        return f"{self.drop_path_rate:.3f}"


class DrawColumn(nn.Module):
    """For a batch in training, half the time one of -1 (the deepest column), -2, …, otherwise 0, as in eval mode; drawn
    on the device of the images `x`, so that none waits.
    """

    def __init__(self, columns: int):
        super().__init__()
        self.columns = columns

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x.new_zeros((), dtype=torch.int64)
        column, once_in_two = (x.new_empty((), dtype=torch.int64) for _ in range(2))  # as torch.fx (2.6) can follow
        return column.random_(-self.columns, 0) * once_in_two.random_(2)


class FractalBlock(nn.Module):
    """`columns` columns, of which number c has 2^c units and then pools (Figure 1). Columns that come to the end of a
    unit at the same step are joined, and go on from there.
    """

    def __init__(self, columns: int, in_channels: int, out_channels: int, drop_rate: float, drop_path_rate: float):
        super().__init__()
        self.columns = nn.ModuleList()
        for depth in (2**c for c in range(columns)):
            widths = [in_channels, *[out_channels] * depth]
            units = nn.Sequential(*(Unit(before, after, drop_rate) for before, after in pairwise(widths)))
            units[-1].add_module("pool", nn.MaxPool2d(2))
            self.columns.append(units)
        self.joins = nn.ModuleList(Join(drop_path_rate) for _ in range(depth // 2))

    def forward(self, x: Tensor, column: Tensor | None = None) -> Tensor:
        depth = len(self.columns[-1])
        inputs = [x] * len(self.columns)  # of each column's next unit
        joins = iter(self.joins)
        for step in range(1, depth + 1):
            ends = [c for c, units in enumerate(self.columns) if step * len(units) % depth == 0]
            paths = [self.columns[c][step * len(self.columns[c]) // depth - 1](inputs[c]) for c in ends]
            x = paths[0] if len(paths) == 1 else next(joins)(*paths, column=column)
            for c in ends:
                inputs[c] = x
        return x


class FractalNet(Net):
    """`drop_rate` is the last block's; the first has none, and it grows evenly.

    With `drop_path_rate`, half of the batches in training drop paths at each join for itself ("local"), and half pass
    through one column of the whole net ("global"). With 0 every join is the mean of all, as in eval mode.
    """

    min_size = 32

    def __init__(
        self,
        columns: int,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.4,
        drop_path_rate: float = 0.15,
        global_pool: str = "avg",
    ):
        super().__init__()
        self.in_chans = in_chans
        self.draw_column = DrawColumn(columns) if drop_path_rate else None
        channels = in_chans
        for number, width in enumerate(WIDTHS):
            rate = drop_rate * number / (len(WIDTHS) - 1)
            self.add_module(f"block{number + 1}", FractalBlock(columns, channels, width, rate, drop_path_rate))
            channels = width
        self.avgpool = GlobalPool(global_pool)
        self.dropout = nn.Identity()  # the blocks have theirs
        self.fc = nn.Linear(channels, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        column = self.draw_column(x) if self.draw_column else None
        x = self.block1(x, column)  # (B, 64, 16, 16)
        x = self.block2(x, column)  # (B, 128, 8, 8)
        x = self.block3(x, column)  # (B, 256, 4, 4)
        x = self.block4(x, column)  # (B, 512, 2, 2)
        return self.block5(x, column)  # (B, 512, 1, 1)

    def forward_column(self, x: Tensor, number: int = -1) -> Tensor:
        """Logits of one column alone, without joins: 0 is the shallowest, -1 the deepest.

        Trained with drop-path, each is a classifier of its own, so that an early answer can be had cheaply ("anytime").
        """
        x = self.check_images(x)
        for block in (self.block1, self.block2, self.block3, self.block4, self.block5):
            x = block.columns[number](x)
        return self.forward_head(x)

    def init_layer(self, name: str, module: nn.Module) -> None:
        """Glorot and Bengio (2010)."""
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        else:
            super().init_layer(name, module)


_CLAIMS = (
    Claim("parameters", "38.6 million"),
    Claim("error, CIFAR-10", "7.33 %"),
    Claim("error, CIFAR-10 with augmentation", "4.60 %"),
    Claim("error, CIFAR-100", "28.20 %"),
    Claim("error, CIFAR-100 with augmentation", "23.73 %"),
)

# name: columns, parameters, multiply-adds, claims of Table 1, difference
# fmt: off
VARIANTS = {
    "fractalnet20": (
        3, 33_714_314, 845_222_912, _CLAIMS,
        "the paper states 38.6 million parameters; its authors' generator, which this follows, gives 33.7",
    ),
    "fractalnet40": (
        4, 76_084_554, 2_036_077_568, (),
        "the widths of the paper's net of 40 layers are not published; these are those of the 20 layers",
    ),
}
# fmt: on

for _name, (_columns, _params, _macs, _claims, _difference) in VARIANTS.items():
    register(
        _name,
        paper="Larsson, Maire, Shakhnarovich: FractalNet: Ultra-Deep Neural Networks without Residuals, ICLR 2017, "
        "arXiv 1605.07648",
        year=2016,
        input_size=(3, 32, 32),
        num_classes=10,
        params=_params,
        macs=_macs,
        stages=(
            Stage("stage1", ("block1",), (64, 16, 16)),
            Stage("stage2", ("block2",), (128, 8, 8)),
            Stage("stage3", ("block3",), (256, 4, 4)),
            Stage("stage4", ("block4",), (512, 2, 2)),
            Stage("stage5", ("block5",), (512, 1, 1)),
        ),
        first_conv=f"block1.columns.{_columns - 1}.0.conv",
        claims=_claims,
        differences=(_difference,),
    )(partial(FractalNet, _columns))
