"""Images looked up at other places, in one bilinear resampling."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn


def look_up(
    images: Tensor,
    matrices: Tensor,
    size: Sequence[int] | None = None,
    outside: Literal["zeros", "border", "reflection"] = "zeros",
) -> Tensor:
    """`(B, C, H, W)` to `(B, C, *size)`; None is the images' own size. `matrices` `(B, 2, 3)` tell for each place of
    the result where in the image, both on the scale -1 to 1, it is looked up.

    Outside an image is black (zeros), its nearest pixel (border) or its mirror image (reflection). For the latter two
    the places are moved into the image here, since grid_sample on MPS knows zeros alone before torch 2.13.
    """
    height, width = images.shape[2:]
    places = nn.functional.affine_grid(matrices, [*images.shape[:2], *(size or (height, width))], align_corners=False)
    if outside == "reflection":
        places = 1 - ((places + 1) % 4 - 2).abs()
    if outside != "zeros":
        for axis, side in enumerate((width, height)):
            middle_of_last = 1 - 1 / side
            places[..., axis].clamp_(-middle_of_last, middle_of_last)
    return nn.functional.grid_sample(images, places, align_corners=False)
