"""What three or more papers share."""

import torch
from torch import Tensor, nn


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size at stride 1, without the bias that a following BatchNorm would cancel."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


def avg_pool3x3() -> nn.AvgPool2d:
    """Average pooling over 3x3 that keeps the size, and leaves the padding out of its averages."""
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


class ConvNormRelu(nn.Module):
    """A convolution without bias, BatchNorm, ReLU: the brick of the Inceptions.

    It keeps the size at stride 1, unless `padding` says otherwise.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | None = None,
    ):
        super().__init__()
        kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if padding is None:
            padding = kernel[0] // 2, kernel[1] // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


def chain(in_channels: int, *layers: tuple) -> nn.Sequential:
    """`ConvNormRelu`s one after another, each a row of its arguments after the first: `(out_channels, kernel, …)`."""
    bricks = []
    for out_channels, *more in layers:
        bricks.append(ConvNormRelu(in_channels, out_channels, *more))
        in_channels = out_channels
    return nn.Sequential(*bricks)


class Branches(nn.Module):
    """Modules side by side: all see `(B, C, H, W)`, and their maps follow one another along the channels."""

    def __init__(self, **branches: nn.Module):
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class DropPath(nn.Module):
    """Stochastic depth: in training each image loses its whole residual branch `(B, C, H, W)` with probability `rate`,
    and the branches that stay are scaled by 1 / (1 - rate), so that nothing changes in eval mode.

    Huang, Sun, Liu, Sedra, Weinberger: Deep Networks with Stochastic Depth, ECCV 2016, arXiv 1603.09382. (They draw
    once for a whole batch, and scale in eval mode instead: equal in expectation.)
    """

    def __init__(self, rate: float = 0.0):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        stays = x.new_empty(len(x), 1, 1, 1).bernoulli_(1 - self.rate)
        return x * (stays / (1 - self.rate))

    def extra_repr(self) -> str:
        return f"{self.rate:.3f}"


def numbered(prefix: str, first: int, last: int) -> tuple[str, ...]:
    """The names of a Sequential's layers `first` to `last`: "features.0", "features.1", …"""
    return tuple(f"{prefix}.{number}" for number in range(first, last + 1))


def deepening(rate: float, depth: int) -> list[float]:
    """Drop-path rates of `depth` blocks: the l-th of L has `rate` l / L (equation 4 of Huang et al. 2016)."""
    return [rate * block / depth for block in range(1, depth + 1)]
