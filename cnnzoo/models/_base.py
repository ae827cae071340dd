"""The contract every net keeps."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cnnzoo.errors import InputError
from cnnzoo.registry import Stage


class Net(nn.Module):
    """A classifier: `forward` is `forward_head(forward_features(x))`.

    A net sets `in_chans`, defines `forward_features` and `forward_head`, and names its head; the rest follows.
    """

    head = "fc"  # the submodule that maps features to classes
    min_size = 1  # the least height and width of an image

    in_chans: int

    def forward(self, x: Tensor) -> Tensor:
        """Images `(B, in_chans, H, W)` to logits `(B, num_classes)`.

        Raises InputError for an image the net cannot take.
        """
        if x.ndim != 4 or x.shape[1] != self.in_chans:
            raise InputError(f"{type(self).__name__} takes images (B, {self.in_chans}, H, W), not {tuple(x.shape)}")
        if min(x.shape[-2:]) < self.min_size:
            height, width = x.shape[-2:]
            raise InputError(
                f"{type(self).__name__} needs images of at least {self.min_size}x{self.min_size}, not {height}x{width}"
            )
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Images `(B, in_chans, H, W)` to the last feature maps `(B, C, h, w)`."""
        raise NotImplementedError

    def forward_head(self, f: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature maps to logits, or with `pre_logits` to the `(B, num_features)` vector that the head sees."""
        raise NotImplementedError

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.get_submodule(self.head)

    @property
    def num_classes(self) -> int:
        return getattr(self.get_classifier(), "out_features", 0)

    @property
    def num_features(self) -> int:
        """Length of the vector the head sees."""
        return self.get_classifier().in_features

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new, randomly initialised head for `num_classes` in place, on the old one's device and in its dtype."""
        old = self.get_classifier()
        new = nn.Linear(
            old.in_features, num_classes, bias=old.bias is not None, device=old.weight.device, dtype=old.weight.dtype
        )
        self.set_submodule(self.head, new)


class FeatureMaps(nn.Module):
    """A net cut off before its head: `forward` returns the chosen stages' maps, each `(B, C, H, W)`, input to output.

    `channels`, `reductions` (how many times smaller than the image) and `names` describe them.
    """

    def __init__(
        self,
        net: nn.Module,
        stages: Sequence[Stage],
        input_size: tuple[int, int, int],
        out_indices: Sequence[int] | None,
    ):
        super().__init__()
        spatial = [stage for stage in stages if len(stage.shape) == 3]
        if out_indices is None:
            out_indices = range(len(spatial))
        for index in out_indices:
            if not -len(spatial) <= index < len(spatial):
                raise InputError(
                    f"out_indices has {index}, but there are {len(spatial)} stages: "
                    f"{', '.join(stage.name for stage in spatial)}"
                )
        chosen = [spatial[index] for index in out_indices]
        self.net = net
        self.names = [stage.name for stage in chosen]
        self.channels = [stage.shape[0] for stage in chosen]
        self.reductions = [round(input_size[1] / stage.shape[1]) for stage in chosen]
        self._maps: dict[str, Tensor] = {}
        for stage in chosen:
            net.get_submodule(stage.modules[-1]).register_forward_hook(self._keeper(stage.name))

    def _keeper(self, name: str):
        def keep(module, args, output):
            self._maps[name] = output

        return keep

    def forward(self, x: Tensor) -> list[Tensor]:
        self._maps.clear()
        self.net.forward_features(x)
        maps = [self._maps[name] for name in self.names]
        self._maps.clear()  # the caller alone decides how long they live
        return maps


def pool_and_flatten(f: Tensor) -> Tensor:
    """Global average pooling: `(B, C, H, W)` -> `(B, C)`."""
    return torch.flatten(nn.functional.adaptive_avg_pool2d(f, 1), 1)
