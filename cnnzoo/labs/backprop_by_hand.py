"""The backward pass of a convolution and of max pooling, written as the formulas say, beside autograd's.

With x the input, w the filters, y = w * x + b the output (a correlation, as all libraries have it) and d the gradient
of the loss by y:

    by b   the sum of d over all places
    by w   the correlation of x with d
    by x   the full convolution of d with w, that is, the correlation with w turned by half

Where the filter takes strides, d has zeros between its values, as many as were leapt over; where the input was padded,
the margin of the gradient falls away. Through max pooling d goes to the place that was the maximum, and nowhere else.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.signal import convolve2d, correlate2d
from torch.nn.functional import conv2d, max_pool2d

from cnnzoo.labs._lab import Seen, sheet, show

CLAIM = "The gradients of convolution and max pooling by the formulas are those of automatic differentiation."
SOURCE = (
    "LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 86(11), 1998; "
    "the formulas as in Goodfellow, Bengio, Courville: Deep Learning, 2016, section 9.5"
)

STRIDES_AND_PADDINGS = ((1, 0), (1, 1), (2, 0), (2, 1), (3, 2))
PARTS = ("output", "by filters", "by bias", "by image")
ROUNDING = 1e-12  # relative to the largest value, in double precision


def convolve(x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """Image `(C, H, W)` and filters `(K, C, k, k)` to maps `(K, h, w)`."""
    x = _padded(x, padding)
    maps = [sum(correlate2d(x[c], w[k, c], "valid") for c in range(len(x))) + b[k] for k in range(len(w))]
    return np.stack(maps)[:, ::stride, ::stride]


def convolve_backward(
    x: np.ndarray, w: np.ndarray, d: np.ndarray, stride: int, padding: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients by filters, bias and image, of `d` `(K, h, w)`."""
    x = _padded(x, padding)
    size = w.shape[-1]
    spread = np.zeros((len(w), x.shape[1] - size + 1, x.shape[2] - size + 1))  # with zeros where strides leapt
    spread[:, ::stride, ::stride] = d
    by_w = np.stack([[correlate2d(x[c], spread[k], "valid") for c in range(len(x))] for k in range(len(w))])
    by_x = np.stack([sum(convolve2d(spread[k], w[k, c], "full") for k in range(len(w))) for c in range(len(x))])
    return by_w, d.sum((1, 2)), by_x[:, padding : by_x.shape[1] - padding, padding : by_x.shape[2] - padding]


def pool(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps `(C, H, W)`, of even sides, to the largest of each 2x2, and which of the four that was."""
    channels, height, width = x.shape
    windows = x.reshape(channels, height // 2, 2, width // 2, 2).swapaxes(2, 3).reshape(channels, height // 2, -1, 4)
    return windows.max(-1), windows.argmax(-1)


def pool_backward(which: np.ndarray, d: np.ndarray) -> np.ndarray:
    """The gradient by what was pooled."""
    channels, height, width = d.shape
    windows = np.zeros((*d.shape, 4))
    np.put_along_axis(windows, which[..., None], d[..., None], -1)
    return windows.reshape(channels, height, width, 2, 2).swapaxes(2, 3).reshape(channels, 2 * height, 2 * width)


def _padded(x: np.ndarray, padding: int) -> np.ndarray:
    return np.pad(x, ((0, 0), (padding, padding), (padding, padding)))


def run(seed: int, quick: bool) -> Seen:
    rng = np.random.default_rng(seed)
    side = 12 if quick else 24
    apart: dict[str, float] = {}
    for stride, padding in STRIDES_AND_PADDINGS:
        x, w, b = rng.normal(size=(3, side, side)), rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4)
        y = convolve(x, w, b, stride, padding)
        d = rng.normal(size=y.shape)
        tensors = [torch.from_numpy(values).requires_grad_() for values in (w, b, x)]
        by_torch = conv2d(tensors[2][None], tensors[0], tensors[1], stride, padding)[0]
        graded = torch.autograd.grad(by_torch, tensors, torch.from_numpy(d))
        ours, theirs = (y, *convolve_backward(x, w, d, stride, padding)), (by_torch, *graded)
        for part, mine, other in zip(PARTS, ours, theirs, strict=True):
            apart[f"{part}, stride {stride}, padding {padding}"] = _apart(mine, other)

    x = rng.normal(size=(4, side, side))
    largest, which = pool(x)
    d = rng.normal(size=largest.shape)
    tensor = torch.from_numpy(x).requires_grad_()
    pooled = max_pool2d(tensor, 2)
    (theirs,) = torch.autograd.grad(pooled, [tensor], torch.from_numpy(d))
    by_hand = pool_backward(which, d)
    apart |= {"output, max pooling": _apart(largest, pooled), "by maps, max pooling": _apart(by_hand, theirs)}

    worst = max(apart, key=apart.get)
    return Seen(
        held=apart[worst] < ROUNDING,
        told=f"{len(apart)} comparisons, {apart[worst]:.0e} apart at most ({worst}), relative to the largest value",
        figures={"apart": apart},
        pictures={
            "maps": x[0],
            "the largest of each 2x2": largest[0],
            "the gradient by those": d[0],
            "by the maps, by hand": by_hand[0],
            "by the maps, by autograd": theirs[0].numpy(),
        },
    )


def _apart(mine: np.ndarray, other: torch.Tensor) -> float:
    other = other.detach().numpy()
    return float(abs(mine - other).max() / abs(other).max())


def draw(seen: Sequence[Seen]):
    figure, axes = sheet(2, 5)
    for axis, (title, picture) in zip(axes[0], seen[0].pictures.items(), strict=True):
        show(axis, picture, title, cmap="RdBu_r", vmin=-3, vmax=3)
    for axis in axes[1]:
        axis.remove()
    panel = figure.add_subplot(axes[1, 0].get_subplotspec().get_gridspec()[1, :])
    apart = seen[0].figures["apart"]
    panel.barh([*apart], [max(value, 1e-18) for value in apart.values()], color="tab:blue")
    panel.axvline(ROUNDING, color="black", linestyle="--")
    panel.set(
        xscale="log", xlim=(1e-18, 1), xlabel="apart, relative to the largest value; dashed: what counts as equal"
    )
    panel.tick_params(labelsize="xx-small")
    panel.invert_yaxis()
    return figure
