"""The contract every net keeps, and what most nets take from it: He's initialisation, poolings."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx, nn

from cnnzoo.errors import InputError, at_least, quoted, unknown
from cnnzoo.models._grad_checkpointing import set_grad_checkpointing


@fx.wrap  # to torch.fx, which knows no shapes while it traces, a single step
def checked(x: Tensor, name: str, in_chans: int, min_size: int, image_size: int | None) -> Tensor:
    """Return `x` if the net can take it.

    Raises InputError for anything but images as `cnnzoo.preprocessing` gives them, for a wrong number of channels, and
    for images that are too small, or not `image_size` x `image_size`.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        given = x.dtype if isinstance(x, Tensor) else quoted(x)
        raise InputError(f"{name} takes float32 (B, {in_chans}, H, W), as cnnzoo.preprocessing gives it, not {given}")
    if x.ndim != 4 or x.shape[1] != in_chans:
        raise InputError(f"{name} takes images (B, {in_chans}, H, W), not {tuple(x.shape)}")
    height, width = x.shape[-2:]
    if min(height, width) < min_size:
        raise InputError(f"{name} needs images of at least {min_size}x{min_size}, not {height}x{width}")
    if image_size and not height == width == image_size:
        given = f"{height}x{width}; build it with image_size {height}"
        raise InputError(f"this {name} takes images of {image_size}x{image_size}, not {given}")
    return x


class NoHead(nn.Identity):
    """Placeholder for a removed head."""

    def __init__(self, in_features: int):
        super().__init__()
        self.in_features, self.out_features = in_features, 0


class Net(nn.Module):
    """A classifier: `forward` is `forward_head(forward_features(x))`.

    A net sets `in_chans`, defines `forward_features`, names its head, and may call `init_weights` last in its
    constructor. The zoo's own nets do: their layers are built without values if a file supplies them, see zoo.create.
    With `avgpool`, `dropout` and the head under its name, `forward_head` is there too. A net with auxiliary heads names
    their last layers and has its own `forward`, which in train mode returns `(logits, *aux)`, each `(B, num_classes)`.
    A head that is a 1x1 convolution is pooled after it; the net then has its own `forward_head`, which pools before any
    other head that takes its place.
    """

    head_name = "fc"  # the submodule that maps features to classes
    aux: tuple[str, ...] = ()  # the last layer of each auxiliary head, as "aux1.fc2"
    min_size = 1  # the least height and width of an image
    image_size: int | None = None  # the only one; None: any

    in_chans: int

    def forward(self, x: Tensor) -> Tensor:
        """Images `(B, in_chans, H, W)` to logits `(B, num_classes)`.

        Raises InputError for an image the net cannot take.
        """
        return self.forward_head(self.forward_features(self.check_images(x)))

    def check_images(self, x: Tensor) -> Tensor:
        """Return `x` if the net can take it. Raises InputError otherwise, see `checked`."""
        return checked(x, type(self).__name__, self.in_chans, self.min_size, self.image_size)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images `(B, in_chans, H, W)` to the last feature maps `(B, C, h, w)`."""
        raise NotImplementedError

    def forward_head(self, f: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature maps to logits, or with `pre_logits` to the `(B, num_features)` vector that the head sees."""
        x = self.dropout(self.avgpool(f))
        return x if pre_logits else self.get_classifier()(x)

    def init_weights(self) -> None:
        """Give every parameter and buffer its first value, layer by layer; on the meta device there are no values."""
        for name, module in self.named_modules():
            own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            if own and not own[0].is_meta:
                self.init_layer(name, module)

    def init_layer(self, name: str, module: nn.Module) -> None:
        """Initialise one layer: as PyTorch does, unless the paper says otherwise. What has no `reset_parameters` keeps
        the values that its constructor gave it.
        """
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()

    def get_classifier(self) -> nn.Module:
        """The head, most often an nn.Linear or a 1x1 nn.Conv2d; a NoHead where there are no classes."""
        return reduce(getattr, self.head_name.split("."), self)  # torch.export (2.6) knows no get_submodule

    @property
    def num_classes(self) -> int:
        """The number of outputs of the head's last layer; 0 if no layer has one."""
        return (_told(self.get_classifier(), "out_features", "out_channels") or [0])[-1]

    @property
    def num_features(self) -> int:
        """Length of the vector the head sees, as its first layer says. Raises InputError if none says it."""
        return _seen_by(self.get_classifier())

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """What timm's tools, such as `timm.data.resolve_data_config(model=net)`, ask a net for: how images are prepared
        for its weights; of a net without trained weights, their size alone.
        """
        known = getattr(self, "preprocessing", None)
        if known is None:
            return {"input_size": self.entry.input_size} if hasattr(self, "entry") else {}
        return {
            "input_size": (known.channels, known.size, known.size),
            "mean": known.mean,
            "std": known.std,
            "interpolation": known.interpolation,
            "crop_pct": known.size / known.resize,
            "crop_mode": "squash" if known.squash else "center",
        }

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """What timm's tools, such as `timm.optim.param_groups_layer_decay(net)`, ask a net for: a function from a
        parameter's name to the number of its stage, from the input on, the head being the last. Groups are never finer.
        """
        stages = self.entry.parameters([name for name, _ in self.named_parameters()])
        return {name: number for number, names in enumerate(stages.values()) for name in names}.__getitem__

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new, random head in place, on the old one's device and in its dtype; none at all for 0.

        Auxiliary heads follow; with 0 classes they go. So do the classes' names, and the temperature at which the old
        head was calibrated. `global_pool` (avg, max, avgmax) is how maps are pooled from now on; None: as before.

        Raises InputError for numbers and poolings that cannot be.
        """
        at_least("num_classes", num_classes, 0)
        if global_pool is not None:
            pools = [module for module in self.modules() if isinstance(module, GlobalPool)]
            if not pools:
                raise InputError(f"{type(self).__name__} has no global pooling to choose")
            for pool in pools:
                pool.choose(global_pool)
            self.arch = {**getattr(self, "arch", {}), "global_pool": global_pool}  # which tells its features apart
        if num_classes == 0:
            self.set_submodule(self.head_name, NoHead(self.num_features))
        else:
            self._replace(self.head_name, num_classes)
        for known in ("classes", "temperature"):
            vars(self).pop(known, None)
        for name in self.aux:
            module = name.partition(".")[0]
            if getattr(self, module) is not None:
                if num_classes == 0:
                    setattr(self, module, None)
                else:
                    self._replace(name, num_classes)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """In training, compute what lies within the net's blocks again for the backward pass, rather than keep it: in
        most nets a step takes half to three quarters of the memory, a third more time, and is the same bit by bit.

        Raises InputError for a net without blocks.
        """
        set_grad_checkpointing(self, enable)

    def _replace(self, name: str, num_classes: int) -> None:
        new = self.new_head(self.get_submodule(name), num_classes)
        self.set_submodule(name, new)
        self.init_layer(name, new)

    def new_head(self, old: nn.Module, num_classes: int) -> nn.Module:
        """One that sees what `old` sees: a layer of the same kind, or fully connected where that is no single layer."""
        first = next(old.parameters(), next(self.parameters()))
        options = {"bias": getattr(old, "bias", True) is not None, "device": first.device, "dtype": first.dtype}
        if isinstance(old, nn.Conv2d):
            return nn.Conv2d(old.in_channels, num_classes, old.kernel_size, **options)
        kind = type(old) if isinstance(old, nn.Linear) else nn.Linear
        return kind(_seen_by(old), num_classes, **options)


def _told(head: nn.Module, *names: str) -> list[int]:
    """What the layers of a head say of themselves under these names, in order."""
    return [getattr(layer, name) for layer in head.modules() for name in names if hasattr(layer, name)]


def _seen_by(head: nn.Module) -> int:
    if told := _told(head, "in_features", "in_channels"):
        return told[0]
    raise InputError(f"the head is a {type(head).__name__}, which does not say how many features it sees")


_CHUNK = 1 << 18  # values that one thread draws at a time


def fill_normal(weight: Tensor, std: float) -> None:
    """Draw `weight` from N(0, std^2), on a CPU with all its cores, since drawing is most of what building a large net
    takes. The values depend on torch's seed alone.
    """
    values = weight.detach().view(-1)
    if values.device.type != "cpu" or len(values) <= _CHUNK:
        values.normal_(std=std)
        return
    chunks = values.split(_CHUNK)
    seeds = torch.randint(2**62, (len(chunks),), device="cpu").tolist()

    def draw(chunk: Tensor, seed: int) -> None:
        with torch.inference_mode(values.is_inference()):  # which threads do not take from one another
            chunk.normal_(std=std, generator=torch.Generator().manual_seed(seed))

    with ThreadPoolExecutor() as pool:
        list(pool.map(draw, chunks, seeds))


class HeNet(Net):
    """A net whose convolutions start normal with the variance of their fan-out (He, Zhang, Ren, Sun: Delving Deep into
    Rectifiers, 2015, arXiv 1502.01852), their biases at 0.
    """

    def init_layer(self, name: str, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[:, 0].numel()
            fill_normal(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        else:
            super().init_layer(name, module)


@fx.wrap  # torch.fx, which knows no shapes, cannot choose
def adaptive_pool2d(x: Tensor, places: int, kind: str = "avg") -> Tensor:
    """`(B, C, H, W)` to `(B, C, places, places)`: the means ("avg") or maxima ("max") of torch's adaptive windows.

    Where these are not all of one size, MPS refuses means, and gives wrong maxima; there they are taken one by one.
    """
    if x.device.type == "mps" and any(side % places for side in x.shape[2:]):
        return pool_by_windows(x, places, kind)
    pool = {"avg": nn.functional.adaptive_avg_pool2d, "max": nn.functional.adaptive_max_pool2d}[kind]
    return pool(x, places)


def pool_by_windows(x: Tensor, places: int, kind: str) -> Tensor:
    """The same by slices alone, along the height and then along the width."""
    for axis in (2, 3):
        side, windows = x.shape[axis], []
        for place in range(places):
            first, end = place * side // places, -(-(place + 1) * side // places)
            window = x.narrow(axis, first, end - first)
            windows.append(window.mean(axis) if kind == "avg" else window.amax(axis))
        x = torch.stack(windows, axis)
    return x


class AdaptivePool(nn.AdaptiveAvgPool2d):
    """torch's, to a square, which MPS can take too."""

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_pool2d(x, self.output_size)


class GlobalPool(nn.Module):
    """`(B, C, H, W)` to `(B, C)`: each map's mean ("avg"), its maximum ("max"), or the mean of both ("avgmax").

    With `grid`, each map is reduced to `grid` x `grid` places in this way, and the output is `(B, C * grid * grid)`.
    """

    KINDS = ("avg", "max", "avgmax")

    def __init__(self, kind: str = "avg", grid: int = 1):
        super().__init__()
        self.grid = grid
        self.choose(kind)

    def choose(self, kind: str) -> None:
        """Raises InputError for an unknown kind."""
        if kind not in self.KINDS:
            raise unknown("global_pool", kind, self.KINDS)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "avgmax":
            x = (adaptive_pool2d(x, self.grid) + adaptive_pool2d(x, self.grid, "max")) / 2
        else:
            x = adaptive_pool2d(x, self.grid, self.kind)
        return x.flatten(1)

    def extra_repr(self) -> str:
        return f"{self.kind}, grid={self.grid}"
