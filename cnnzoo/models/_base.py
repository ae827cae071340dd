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
        self.check_images(x)
        return self.forward_head(self.forward_features(x))

    def check_images(self, x: Tensor) -> None:
        """Raises InputError for images of another number of channels, or too small."""
        name = type(self).__name__
        if x.ndim != 4 or x.shape[1] != self.in_chans:
            raise InputError(f"{name} takes images (B, {self.in_chans}, H, W), not {tuple(x.shape)}")
        height, width = x.shape[-2:]
        if min(height, width) < self.min_size:
            raise InputError(f"{name} needs images of at least {self.min_size}x{self.min_size}, not {height}x{width}")

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
        """Put a new, random head in place, on the old one's device and in its dtype; none at all for 0."""
        old = self.get_classifier()
        if num_classes == 0:
            self.set_submodule(self.head, nn.Identity())
            return
        if num_classes < 0:
            raise InputError(f"num_classes is {num_classes}, but must be at least 0")
        options = {"bias": old.bias is not None, "device": old.weight.device, "dtype": old.weight.dtype}
        self.set_submodule(self.head, nn.Linear(old.in_features, num_classes, **options))


class FeatureMaps(nn.Module):
    """A net cut off before its head: `forward` returns the chosen stages' maps, each `(B, C, H, W)`, input to output.

    `names`, `channels` and `shapes` (for one image of the net's own input size) describe them.
    """

    def __init__(self, net: nn.Module, stages: Sequence[Stage], out_indices: Sequence[int] | None):
        super().__init__()
        spatial = [stage for stage in stages if len(stage.shape) == 3]
        if not spatial:
            raise InputError("this net has no stages with feature maps")
        chosen = []
        for index in range(len(spatial)) if out_indices is None else out_indices:
            if not -len(spatial) <= index < len(spatial):
                raise InputError(
                    f"out_indices has {index}, but there are {len(spatial)} stages: "
                    f"{', '.join(stage.name for stage in spatial)}"
                )
            chosen.append(spatial[index])
        self.net = net
        self.names = [stage.name for stage in chosen]
        self.channels = [stage.shape[0] for stage in chosen]
        self.shapes = [stage.shape for stage in chosen]
        self._ends = [stage.modules[-1] for stage in chosen]

    def forward(self, x: Tensor) -> list[Tensor]:
        if isinstance(self.net, Net):
            self.net.check_images(x)
        maps: dict[str, Tensor] = {}

        def keep(end: str):
            return lambda module, args, output: maps.__setitem__(end, output)

        handles = [self.net.get_submodule(end).register_forward_hook(keep(end)) for end in self._ends]
        try:
            self.net.forward_features(x)
        finally:
            for handle in handles:
                handle.remove()
        return [maps[end] for end in self._ends]


def pool_and_flatten(f: Tensor) -> Tensor:
    """Global average pooling: `(B, C, H, W)` -> `(B, C)`."""
    return torch.flatten(nn.functional.adaptive_avg_pool2d(f, 1), 1)
