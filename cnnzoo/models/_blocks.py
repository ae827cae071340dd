"""What three or more papers share."""

from torch import Tensor, nn


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size at stride 1, without the bias that a following BatchNorm would cancel."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


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


def deepening(rate: float, depth: int) -> list[float]:
    """Drop-path rates of `depth` blocks: the l-th of L has `rate` l / L (equation 4 of Huang et al. 2016)."""
    return [rate * block / depth for block in range(1, depth + 1)]
