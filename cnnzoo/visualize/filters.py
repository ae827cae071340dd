"""What the filters of a layer look like: the weights themselves, as pictures."""

from dataclasses import dataclass
from functools import reduce

import numpy as np
from torch import Tensor, nn

from cnnzoo.errors import InputError, unknown
from cnnzoo.visualize import drawing
from cnnzoo.visualize.hooks import paths_of
from cnnzoo.visualize.subject import Model, Pretrained, Subject

SORTS = ("none", "norm", "hue")
SCALES = ("common", "each")
COLOURS = (1, 3)  # channels that a picture can have
LABELLED = 140  # pixels that a filter is wide, for the name of a class to stand above it
SHOWN = 32  # filters, and channels of each, of a layer that sees more than colours


@dataclass(frozen=True)
class Filters(drawing.Result):
    """The N filters of a layer, in the order in which they are drawn."""

    kernels: np.ndarray  # (N, C, H, W) float32: C channels of what the layer sees
    order: np.ndarray  # (N,) int64: which of the layer's filters each is
    layer: str
    name: str  # the net's
    scale: str  # common: grey is 0 and the largest weight of all is black, white or a full colour; each: of each filter
    classes: tuple[str, ...] = ()  # which class each filter speaks for, where it does

    def __str__(self) -> str:
        many, channels, height, width = self.kernels.shape
        seen = {1: "", 3: " in colour"}.get(channels, f" by their {channels} channels")
        if channels not in COLOURS and max(many, channels) > SHOWN:
            seen += f" (of which {min(many, SHOWN)} by {min(channels, SHOWN)} are drawn)"
        return f"{many} filters of {height}x{width}{seen}, layer {self.layer} of {self.name}"

    def figure(self):
        return drawing.picture(self.picture(), f"{self.name}, {self.layer}")

    def picture(self) -> np.ndarray:
        """uint8 `(h, w, 3)`: a filter beside the other, or where they see other channels than colours, a row for each
        filter and a column for each channel, the first `SHOWN` of both.
        """
        kernels = self.kernels
        if self.scale == "each":
            kernels = kernels / np.abs(kernels).max((1, 2, 3), keepdims=True).clip(np.finfo(np.float32).tiny)
        images = drawing.scaled(kernels)
        if images.shape[1] not in COLOURS:
            images = images[:SHOWN, :SHOWN]
            padding = int(images.shape[-1] > 1)  # kernels of one weight are a matrix
            return drawing.grid(images.reshape(-1, *images.shape[2:]), columns=images.shape[1], padding=padding)
        images = images.transpose(0, 2, 3, 1)
        if not self.classes:
            return drawing.grid(images)
        large = np.stack([drawing.enlarged(drawing.colour(image), LABELLED) for image in images])
        return drawing.grid(large, labels=self.classes)


def filters(
    model_or_run: Model,
    layer: str | None = None,
    *,
    pretrained: Pretrained = False,
    sort: str = "none",
    scale: str = "common",
    device: str = "auto",
) -> Filters:
    """The weights of a layer as pictures.

    Args:
        model_or_run: a net, a run, or a net's name; see `Subject.open`.
        layer: a module's path or a stage, whose first layer with weights is meant; None is the layer that sees the
            image, of a committee its first member's. Of a convolution the kernels are drawn. A linear layer is drawn
            where it sees the image, each unit's weights in the image's shape. In a net that is a chain of linear layers
            a deeper one is too: the product of the matrices up to it, which is what a unit weighs each pixel by if
            every ReLU lets pass.
        pretrained: weights for a net's name.
        sort: none (as the net has them), norm (the largest Euclidean norm first), or hue: first what is more grey than
            coloured, by norm, then by the axis of opponent colours (blue to yellow is the same as yellow to blue).
        scale: common (of all filters) or each (every filter has its own).
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …

    Raises:
        InputError: for a layer that is not there or has no weights to draw; for a hue of filters without colours.
    """
    for kind, word, known in (("order", sort, SORTS), ("scale", scale, SCALES)):
        if word not in known:
            raise unknown(kind, word, known)
    subject = Subject.open(model_or_run, pretrained, device)
    path = _weighted(subject.net, layer)
    kernels = _kernels(subject, path).detach().float().cpu().numpy()
    if sort == "hue" and kernels.shape[1] != 3:
        raise InputError(f"the filters of {path} see {kernels.shape[1]} channels, not 3 colours; sort them by norm")
    order = _order(kernels, sort)
    head = getattr(getattr(subject.net, "entry", None), "head", "")
    classes = tuple(subject.classes[place] for place in order) if path == head else ()
    return Filters(kernels[order], order, path, subject.name, scale, classes)


def _weighted(net: nn.Module, layer: str | None) -> str:
    """The path of the first layer with weights to draw within the one that is named."""
    paths = _all_weighted(net)
    if layer is not None:
        homes = paths_of(net, layer)
        inside = [path for home in homes for path in paths if f"{path}.".startswith(f"{home}.")]
    else:
        inside = list(filter(None, [getattr(getattr(net, "entry", None), "first_conv", "")])) or paths
    if not inside:
        some = f"some that have: {', '.join(paths[:4])}" if paths else "nor has any other of this net"
        raise InputError(f"layer {layer} has no weights that could be drawn; {some}")
    return inside[0]


def _all_weighted(net: nn.Module) -> list[str]:
    """Linear layers and convolutions, also such as keep a kernel for each of their connections."""

    def is_weighted(module: nn.Module) -> bool:
        weight = getattr(module, "weight", None)
        return isinstance(module, nn.Linear) or (isinstance(weight, Tensor) and weight.ndim in (3, 4))

    return [path for path, module in net.named_modules() if is_weighted(module)]


def _kernels(subject: Subject, path: str) -> Tensor:
    """`(N, C, H, W)`."""
    module = subject.net.get_submodule(path)
    if isinstance(module, nn.Linear):
        return _as_images(subject, path)
    return module.weight if module.weight.ndim == 4 else module.weight[:, None]


def _as_images(subject: Subject, path: str) -> Tensor:
    """What each unit of a linear layer weighs the image's pixels by, `(N, C, H, W)`."""
    height, width, channels = subject.preprocess.shape
    first, *others = _chain_to(subject.net, path) or [None]
    if first is None or first.in_features != height * width * channels:
        paths = [each for each in _all_weighted(subject.net) if each != path]
        convolutions = [each for each in paths if not isinstance(subject.net.get_submodule(each), nn.Linear)]
        none = "" if convolutions else f", and {subject.name} has no convolution"
        raise InputError(f"{path} is a linear layer that sees no image{none}; take {[*convolutions, *paths][0]}")
    weights = reduce(lambda before, layer: layer.weight.float() @ before, others, first.weight.float())
    return weights.view(-1, channels, height, width)


def _chain_to(net: nn.Module, path: str) -> list[nn.Linear]:
    """The linear layers from the image up to one of them, where nothing else lies between; none where it does."""
    paths = _all_weighted(net)
    paths = paths[: paths.index(path) + 1]
    modules = [net.get_submodule(each) for each in paths]
    plain = all(isinstance(module, nn.Linear) and "." not in each for each, module in zip(paths, modules, strict=True))
    return modules if len(modules) == 1 or plain else []


def _order(kernels: np.ndarray, sort: str) -> np.ndarray:
    norms = np.sqrt(np.square(kernels).sum((1, 2, 3)))
    if sort == "none":
        return np.arange(len(kernels))
    if sort == "norm":
        return np.argsort(-norms, kind="stable")
    # Colour as a number of the plane in which red, green and blue lie at the corners of a triangle. Squared, opponent
    # colours are the same, so that the two sides of a coloured edge add up.
    corners = np.exp(2j * np.pi * np.arange(3) / 3) * np.sqrt(2 / 3)
    chroma = np.tensordot(kernels, corners, (1, 0))
    coloured = np.square(np.abs(chroma)).sum((1, 2)) > 0.5 * np.square(norms)
    axis = np.angle(np.square(chroma).sum((1, 2)))
    return np.lexsort((np.where(coloured, axis, -norms), coloured))
