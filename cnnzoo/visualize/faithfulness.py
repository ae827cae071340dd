"""How far a map of evidence can be trusted: four trials that a pretty picture may fail.

Deletion and insertion ask whether the answer goes with the pixels that a map names; so does ROAD, which fills in what
it takes away, lest the answer goes with the shape of the hole. Randomising the weights asks whether the map depends on
what the net has learned. Pointing asks whether it lies on what it is said to show.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from numbers import Real

import numpy as np
import torch
from scipy.integrate import trapezoid
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import splu
from scipy.stats import spearmanr
from torch import Tensor, nn

from cnnzoo.device import device_of
from cnnzoo.errors import InputError, at_least, counted, expect
from cnnzoo.shown import Shown
from cnnzoo.visualize.gradients import AT_ONCE
from cnnzoo.visualize.hooks import several, untouched
from cnnzoo.visualize.methods import Maps, by_name
from cnnzoo.visualize.subject import probabilities

BLUR = 20  # the image's side over the standard deviation of its blur
NEIGHBOURS = {(y, x): 1 / 6 if 0 in (y, x) else 1 / 12 for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)}
NOISE = 0.01  # standard deviation of what is added to pixels that are filled in


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
    would look like evidence. There are `steps` steps of equally many pixels. Raises InputError for a map of another
    size or without numbers, and for a class that the net does not know.
    """
    at_least("steps", steps)
    place = torch.from_numpy(_places(x, ranks)).to(x.device)
    pixels, side = place.numel(), min(place.shape)
    blurred = gaussian_filter(x.cpu().numpy(), (0, side / BLUR, side / BLUR))
    canvases = torch.zeros_like(x), torch.from_numpy(blurred).to(x.device)
    many = [pixels * step // steps for step in range(steps + 1)]
    gone = torch.stack([torch.where(place < n, canvases[0], x) for n in many])
    come = torch.stack([torch.where(place < n, x, canvases[1]) for n in many])
    return Curves(*_likely(net, torch.cat([gone, come]), target).reshape(2, -1))


def _places(x: Tensor, ranks: np.ndarray) -> np.ndarray:
    """Which pixel of an image goes first, second … by its map: `(H, W)` int64 from 0, the largest value's first."""
    ranks = np.asarray(ranks)
    if x.ndim != 3 or ranks.shape != x.shape[1:]:
        given = f"{tuple(x.shape)} and a map of {ranks.shape}"
        raise InputError(f"an image (C, H, W) and its map (H, W) are wanted, not an image of shape {given}")
    if np.isnan(ranks).any():
        raise InputError("the map holds NaN, which ranks no pixel")
    order = np.lexsort((np.random.default_rng(0).permutation(ranks.size), -ranks.ravel()))
    place = np.empty(ranks.size, np.int64)
    place[order] = np.arange(ranks.size)
    return place.reshape(ranks.shape)


def _likely(net: nn.Module, images: Tensor, target: int) -> np.ndarray:
    """The class's probability `(B,)` in each of the images `(B, C, H, W)`."""
    target = _classes(net, [target], images[:1])
    with torch.no_grad():
        likely = torch.cat([probabilities(net, net(batch)) for batch in images.split(AT_ONCE)])
    return likely[:, target[0]].cpu().numpy()


@dataclass(frozen=True)
class Road(Shown):
    """The probability of a class once shares of an image's pixels are taken out, and filled in from around them."""

    shares: tuple[float, ...]
    most: np.ndarray  # (shares,): without those that the map marks most
    least: np.ndarray  # (shares,): without those that it marks least

    @property
    def score(self) -> float:
        """How much more the class rests on the ones than on the others, from -1 to 1; 0 is chance."""
        return float((self.least - self.most).mean())

    def __str__(self) -> str:
        return f"ROAD {self.score:+.3f}"


def road(
    net: nn.Module,
    x: Tensor,
    target: int,
    ranks: np.ndarray,
    shares: float | Sequence[float] = (0.2, 0.4, 0.6, 0.8),
    seed: int = 0,
) -> Road:
    """Take out the pixels of an image `(C, H, W)` of the largest values in `ranks` `(H, W)`, and those of the smallest,
    and fill the holes so that each pixel is the weighted mean of its neighbours, with a little noise: what was there
    cannot be told from the hole's shape, as it can from that of a black one (Rong, Leemann, Borisov, Kasneci, Kasneci:
    A Consistent and Efficient Evaluation Strategy for Attribution Methods, 2022, arXiv 2202.00449, section 4).

    Args:
        net: as `untouched` has it.
        x: the image as the net takes it.
        target: the class.
        ranks: the map.
        shares: of the pixels that are taken out, above 0 and below 1.
        seed: of the noise.

    Raises InputError for other shares, for a map of another size or without numbers, and for a class that the net does
    not know.
    """
    at_least("seed", seed, 0)
    shares = several(shares)
    if not shares or not all(isinstance(share, Real) and 0 < share < 1 for share in shares):
        raise InputError(f"shares are {', '.join(map(str, shares)) or 'none'}, but must be above 0 and below 1, each")
    place, rng, image = _places(x, ranks), np.random.default_rng(seed), x.cpu().numpy()
    many = [min(round(place.size * share), place.size - 1) for share in shares]  # one is left to fill in from
    holes = [place < n for n in many] + [place >= place.size - n for n in many]
    filled = np.stack([_filled(image, hole, rng) for hole in holes])
    return Road(tuple(shares), *_likely(net, torch.from_numpy(filled).to(x.device), target).reshape(2, -1))


def _filled(image: np.ndarray, hole: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image `(C, H, W)` whose pixels in `hole` `(H, W)` are the means of their neighbours, and noise."""
    (height, width), many = hole.shape, int(hole.sum())
    number = np.full((height + 2, width + 2), -1)  # of each unknown pixel, with a margin
    number[1:-1, 1:-1][hole] = np.arange(many)
    known = np.pad(np.where(hole, 0, image), ((0, 0), (1, 1), (1, 1)))
    there = np.pad(np.ones(hole.shape), 1)
    weights, sums, links = np.zeros(many), np.zeros((many, len(image))), []
    for (down, right), weight in NEIGHBOURS.items():
        beside = slice(1 + down, 1 + down + height), slice(1 + right, 1 + right + width)
        weights += weight * there[beside][hole]  # at an edge there are fewer
        sums += weight * known[(slice(None), *beside)][:, hole].T
        other = number[beside][hole]
        links.append((np.flatnonzero(other >= 0), other[other >= 0], weight))
    rows, columns = (np.concatenate([link[end] for link in links]) for end in (0, 1))
    shares = np.concatenate([np.full(len(link[0]), link[2]) for link in links])
    system = diags_array(weights) - coo_array((shares, (rows, columns)), (many, many))
    solve = splu(system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0, options={"SymmetricMode": True}).solve
    filled = image.copy()
    filled[:, hole] = solve(sums).T + rng.normal(0, NOISE, (len(image), many))
    return filled


@dataclass(frozen=True)
class Sanity(Shown):
    """How like the net's maps are to those of the same net with ever more of its weights drawn anew."""

    layers: tuple[str, ...]  # in the order in which they are drawn anew, from the head down
    correlation: np.ndarray  # (layers, images): Spearman's, once these layers and all before are random

    def __str__(self) -> str:
        width = max(map(len, self.layers))
        means = zip(self.layers, self.correlation.mean(1), strict=True)
        return "\n".join(f"{name:<{width}}  {mean:+.2f}" for name, mean in means)


def sanity(net: nn.Module, x: Tensor, target: Tensor | Sequence[int], maps: str | Maps, seed: int = 0) -> Sanity:
    """Whether maps depend on what the net has learned: rank correlation with those of the net whose weights are
    randomised from the top, a stage at a time (Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim: Sanity Checks for
    Saliency Maps, 2018, arXiv 1810.03292, section 3). A method whose maps stay alike shows the image, not the net.

    Args:
        net: a net of the registry, which stays as it is.
        x: images `(B, C, H, W)`, as the net takes them.
        target: their classes `(B,)`, whole numbers.
        maps: the method, by its name, as gradient or gradcam (see `visualize.compare`), or any other as a function.
        seed: of the random weights.

    Raises InputError for another net, whose stages are not known, and for other than one class of the net for each
    image.
    """
    at_least("seed", seed, 0)
    if not hasattr(net, "entry"):
        raise InputError(f"a {type(net).__name__} is not of the registry, so its stages are not known")
    with untouched(net) as net:
        target = _classes(net, target, x)
        maps, rows = _as_function(maps, net, x), []
        original = maps(net, x, target).flatten(1).cpu().numpy()
        copy, entry = deepcopy(net), net.entry
        parts = {"head": (entry.head,)} | {stage.name: stage.modules for stage in reversed(entry.stages)}
        for place, paths in enumerate(parts.values(), start=1):
            _draw_anew(copy, paths, seed + place)
            changed = maps(copy, x, target).flatten(1).cpu().numpy()
            rows.append([_correlation(*pair) for pair in zip(original, changed, strict=True)])
    return Sanity(tuple(parts), np.array(rows))


def _classes(net: nn.Module, target: Tensor | Sequence[int], x: Tensor) -> Tensor:
    """The class of each image in `x` `(B, C, H, W)`, as `(B,)` int64 on the images' device, each one of the net's."""
    wrong = InputError(f"one class, a whole number, is wanted for each of {counted(len(x), 'image')}, not {target}")
    try:
        found = torch.as_tensor(target, device=x.device)
    except (TypeError, ValueError, RuntimeError):  # names, say
        raise wrong from None
    if found.shape != x.shape[:1] or found.dtype == torch.bool or found.is_floating_point():
        raise wrong
    with torch.no_grad():
        known = net(x[:1]).shape[1]
    if len(beyond := found[(found < 0) | (found >= known)]):
        raise InputError(f"class {beyond[0]} is out of range: the net knows {known}, counted from 0")
    return found.long()


def _as_function(maps: str | Maps, net: nn.Module, x: Tensor) -> Maps:
    expect(maps, (str, Callable), "maps are a method's name or a function")
    return by_name(maps, net, x) if isinstance(maps, str) else maps


def _draw_anew(net: nn.Module, paths: Sequence[str], seed: int) -> None:
    """Give what lies in the submodules `paths` its first values, as the net's constructor does; in a net that does not
    say how, as PyTorch does.
    """
    device = device_of(net)
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


def pointing(
    net: nn.Module, x: Tensor, target: Tensor | Sequence[int], maps: str | Maps, trials: int, seed: int = 0
) -> Pointing:
    """Put two images of different classes side by side, ask for either one's class, and see on which half its map falls
    (the pointing game of Zhang, Lin, Brandt, Shen, Sclaroff: Top-down Neural Attention by Excitation Backprop, 2016,
    arXiv 1608.00507, with a half for the object's box). What a map holds against the class does not count.

    Args:
        net: a net that takes images twice as wide; it stays as it is.
        x: images `(B, C, H, W)` to draw pairs of, such as the net classifies rightly when alone.
        target: their classes `(B,)`, whole numbers, of which there are at least two.
        maps: the method, as `sanity` takes it.
        trials: how many pairs, each asked for one class.
        seed: of the draws.

    Raises InputError for fewer classes, and for other than one of the net's for each image.
    """
    at_least("trials", trials)
    at_least("seed", seed, 0)
    rng, hits, peaks = np.random.default_rng(seed), 0, 0
    with untouched(net) as net:
        target = _classes(net, target, x)
        if len(target.unique()) < 2:
            raise InputError("pointing needs images of at least two classes")
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
