"""What a net says beside its logits."""

from torch import Tensor, nn


class Features(nn.Module):
    """A net without its head: images `(B, C, H, W)` to the vectors `(B, num_features)` that the head sees."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.forward_head(self.net.forward_features(x), pre_logits=True)


class WithFeatures(nn.Module):
    """A net's logits `(B, K)`, and the vectors `(B, num_features)` that its head sees."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.net.forward_features(x)
        return self.net.forward_head(maps), self.net.forward_head(maps, pre_logits=True)
