"""How far a map of evidence can be trusted: three trials that a pretty picture may fail.

Deletion and insertion ask whether the answer goes with the pixels that a map names. Randomising the weights asks
whether the map depends on what the net has learned. Pointing asks whether it lies on what it is said to show.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import trapezoid
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import Tensor, nn

from cnnzoo.errors import InputError
from cnnzoo.shown import Shown
from cnnzoo.visualize.gradients import AT_ONCE
from cnnzoo.visualize.hooks import untouched
from cnnzoo.visualize.methods import Maps, by_name
from cnnzoo.visualize.subject import probabilities

BLUR = 20  # the image's side over the standard deviation of its blur


@dataclass(frozen=True)
class Curves(Shown):
    """The probability of a class while an image goes and comes, pixel by pixel."""

    deletion: np.ndarray  # (steps + 1,): from the whole image to none of it
    insertion: np.ndarray  # (steps + 1,): from a blurred image to the whole one

    @property
    def deleted(self) -> float:
        """The area under the one curve: the lower, the sooner the class goes with the pixels of the map."""
        return _area(self.deletion)

    @property
    def inserted(self) -> float:
        """The area under the other: the higher, the sooner it comes with them."""
        return _area(self.insertion)

    def __str__(self) -> str:
        return f"deletion {self.deleted:.3f}, insertion {self.inserted:.3f}"


def _area(curve: np.ndarray) -> float:
    return float(trapezoid(curve, dx=1 / (len(curve) - 1)))


def deletion_insertion(net: nn.Module, x: Tensor, target: int, ranks: np.ndarray, steps: int = 12) -> Curves:
    """Take the pixels of an image `(C, H, W)` away, those of the largest value in `ranks` `(H, W)` first, and put them
    back (Petsiuk, Das, Saenko: RISE, 2018, arXiv 1806.07421, section 4.1). Pixels of the same value go in random order.

    What is taken away becomes the mean colour (0); what is not yet put back is blurred, for edges of a bare canvas
    would look like evidence. There are `steps` steps of equally many pixels.
    """
    pixels = ranks.size
    order = np.lexsort((np.random.default_rng(0).permutation(pixels), -ranks.ravel()))
    place = np.empty(pixels, np.int64)
    place[order] = np.arange(pixels)
    place = torch.from_numpy(place.reshape(ranks.shape)).to(x.device)
    side = min(ranks.shape)
    blurred = gaussian_filter(x.cpu().numpy(), (0, side / BLUR, side / BLUR))
    canvases = torch.zeros_like(x), torch.from_numpy(blurred).to(x.device)
    many = [pixels * step // steps for step in range(steps + 1)]
    gone = torch.stack([torch.where(place < n, canvases[0], x) for n in many])
    come = torch.stack([torch.where(place < n, x, canvases[1]) for n in many])
    with torch.no_grad():
        likely = [probabilities(net, net(batch))[:, target] for batch in torch.cat([gone, come]).split(AT_ONCE)]
    return Curves(*torch.cat(likely).cpu().numpy().reshape(2, -1))


@dataclass(frozen=True)
class Sanity(Shown):
    """How like the net's maps are to those of the same net with ever more of its weights drawn anew."""

    layers: tuple[str, ...]  # in the order in which they are drawn anew, from the head down
    correlation: np.ndarray  # (layers, images): Spearman's, once these layers and all before are random

    def __str__(self) -> str:
        width = max(map(len, self.layers))
        means = zip(self.layers, self.correlation.mean(1), strict=True)
        return "\n".join(f"{name:<{width}}  {mean:+.2f}" for name, mean in means)


def sanity(net: nn.Module, x: Tensor, target: Tensor, maps: str | Maps, seed: int = 0) -> Sanity:
    """Whether maps depend on what the net has learned: rank correlation with those of the net whose weights are
    randomised from the top, a stage at a time (Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim: Sanity Checks for
    Saliency Maps, 2018, arXiv 1810.03292, section 3). A method whose maps stay alike shows the image, not the net.

    Args:
        net: a net of the registry, which stays as it is.
        x: images `(B, C, H, W)`, as the net takes them.
        target: classes `(B,)` int64.
        maps: the method, by its name, as gradient or gradcam (see `visualize.compare`), or any other as a function.
        seed: of the random weights.

    Raises InputError for another net, whose stages are not known.
    """
    if not hasattr(net, "entry"):
        raise InputError(f"a {type(net).__name__} is not of the registry, so its stages are not known")
    with untouched(net) as net:
        maps, rows = _as_function(maps, net, x), []
        original = maps(net, x, target).flatten(1).cpu().numpy()
        copy, entry = deepcopy(net), net.entry
        parts = {"head": (entry.head,)} | {stage.name: stage.modules for stage in reversed(entry.stages)}
        for place, paths in enumerate(parts.values(), start=1):
            _draw_anew(copy, paths, seed + place)
            changed = maps(copy, x, target).flatten(1).cpu().numpy()
            rows.append([_correlation(*pair) for pair in zip(original, changed, strict=True)])
    return Sanity(tuple(parts), np.array(rows))


def _as_function(maps: str | Maps, net: nn.Module, x: Tensor) -> Maps:
    return by_name(maps, net, x) if isinstance(maps, str) else maps


def _draw_anew(net: nn.Module, paths: Sequence[str], seed: int) -> None:
    """Give what lies in the submodules `paths` its first values, as the net's constructor does; in a net that does not
    say how, as PyTorch does.
    """
    device = next(net.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for name, module in net.named_modules():
            if any(f"{name}.".startswith(f"{path}.") for path in paths) and [*module.parameters(recurse=False)]:
                if hasattr(net, "init_layer"):
                    net.init_layer(name, module)
                elif hasattr(module, "reset_parameters"):
                    module.reset_parameters()


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's; what is the same everywhere has no order that could be like another's."""
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(spearmanr(a, b).statistic)


@dataclass(frozen=True)
class Pointing(Shown):
    """In how many trials a class's map points at the half of an image that shows the class."""

    hits: int  # more of the map lies there than on the other half
    peaks: int  # the map's strongest place lies there
    trials: int

    @property
    def share(self) -> float:
        return self.hits / self.trials

    def __str__(self) -> str:
        return f"{self.hits} of {self.trials} maps fall on the right half ({self.share:.1%}), {self.peaks} peak there"


def pointing(net: nn.Module, x: Tensor, target: Tensor, maps: str | Maps, trials: int, seed: int = 0) -> Pointing:
    """Put two images of different classes side by side, ask for either one's class, and see on which half its map falls
    (the pointing game of Zhang, Lin, Brandt, Shen, Sclaroff: Top-down Neural Attention by Excitation Backprop, 2016,
    arXiv 1608.00507, with a half for the object's box). What a map holds against the class does not count.

    Args:
        net: a net that takes images twice as wide; it stays as it is.
        x: images `(B, C, H, W)` to draw pairs of, such as the net classifies rightly when alone.
        target: their classes `(B,)` int64, of which there are at least two.
        maps: the method, as `sanity` takes it.
        trials: how many pairs, each asked for one class.
        seed: of the draws.
    """
    if len(target.unique()) < 2:
        raise InputError("pointing needs images of at least two classes")
    rng, hits, peaks = np.random.default_rng(seed), 0, 0
    with untouched(net) as net:
        maps = _as_function(maps, net, x)
        for _ in range(trials):
            here, there = _pair(rng, target.tolist())
            on_right = bool(rng.integers(2))
            both = torch.cat([x[there], x[here]] if on_right else [x[here], x[there]], dim=2)
            halves = maps(net, both[None], target[here : here + 1])[0].relu().tensor_split(2, dim=1)
            own, other = halves[::-1] if on_right else halves
            hits += bool(own.sum() > other.sum())
            peaks += bool(own.max() > other.max())
    return Pointing(hits, peaks, trials)


def _pair(rng: np.random.Generator, classes: Sequence[int]) -> tuple[int, int]:
    """The places of an image, and of one of another class."""
    here = int(rng.integers(len(classes)))
    others = [place for place, kind in enumerate(classes) if kind != classes[here]]
    return here, others[rng.integers(len(others))]
