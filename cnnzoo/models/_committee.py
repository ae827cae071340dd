"""Several nets that answer as one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from cnnzoo.errors import InputError


@fx.wrap  # as models._base.checked
def checked(x: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """`x`, where it is images of this shape. Raises InputError for others."""
    if x.ndim != 4 or tuple(x.shape[1:]) != shape:
        raise InputError(f"this committee takes images (B, {', '.join(map(str, shape))}), not {tuple(x.shape)}")
    return x


@dataclass(frozen=True)
class Seat:
    """What a member sees of an image, and what its answer means to the committee."""

    top: int  # row of the image in which its view begins
    shape: tuple[int, int, int]  # of its view: height, width, channels
    mean: tuple[float, ...]  # by which its view is normalised
    std: tuple[float, ...]
    temperature: float  # at which its probabilities are calibrated
    outputs: tuple[int, ...]  # which of its outputs belongs to each of the committee's classes


class CommitteeNet(nn.Module):
    """Nets that see an image each in its own way, and a rule (see `_rules`) that makes one answer of theirs.

    An image holds the members' views below each other, each from the left edge on; a view of fewer channels lies in
    the first ones. A committee is a finished thing: it stays in eval mode.

    Args:
        members: M nets, each of which maps images to logits.
        seats: one for each member.
        rule: `(M, B, K)` log-probabilities to `(B, K)`.
        image_shape: of the images: channels, height, width.
    """

    def __init__(
        self, members: Sequence[nn.Module], seats: Sequence[Seat], rule: nn.Module, image_shape: tuple[int, int, int]
    ):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.rule, self.image_shape = rule, tuple(image_shape)
        self.num_classes, self.in_chans = len(seats[0].outputs), image_shape[0]
        self._seats = nn.ModuleList(map(_Seated, seats))
        self.eval()

    def train(self, mode: bool = True) -> "CommitteeNet":
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Images `(B, C, H, W)` float32 between 0 and 1 to log-probabilities `(B, num_classes)`.

        Raises InputError for images of another shape.
        """
        return self.rule(self.answers(checked(x, self.image_shape)))

    def answers(self, x: Tensor) -> Tensor:
        """What each member says of the same images: `(M, B, num_classes)` log-probabilities."""
        said = [seat.said(net(seat.view(x))) for net, seat in zip(self.members, self._seats, strict=True)]
        return torch.stack(said)


class _Seated(nn.Module):
    """A seat's numbers, on the device where the members are."""

    def __init__(self, seat: Seat):
        super().__init__()
        self.top, (self.height, self.width, self.channels) = seat.top, seat.shape
        self.temperature = seat.temperature
        values = {"mean": torch.tensor(seat.mean), "std": torch.tensor(seat.std), "outputs": torch.tensor(seat.outputs)}
        for name, tensor in values.items():
            self.register_buffer(name, tensor, persistent=False)

    def view(self, x: Tensor) -> Tensor:
        """`(B, channels, height, width)`, normalised."""
        view = x[:, : self.channels, self.top : self.top + self.height, : self.width]
        return (view - self.mean[:, None, None]) / self.std[:, None, None]

    def said(self, logits: Tensor) -> Tensor:
        """The member's logits as log-probabilities of the committee's classes."""
        return (logits.float().index_select(1, self.outputs) / self.temperature).log_softmax(1)
