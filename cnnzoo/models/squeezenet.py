"""SqueezeNet. Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer: SqueezeNet: AlexNet-level accuracy with 50x fewer
parameters and <0.5MB model size, 2016, arXiv 1602.07360.

Sizes are those of the paper's Table 1 for a 224x224 image; names are torchvision's. B = batch. A fire module of s
squeezes to s channels by 1x1, then expands to 4s by 1x1 and to 4s by 3x3, side by side.

    squeezenet1_0                 output       parameters
    conv1 7x7/2, 96               109x109x96       14,208
    max 3x3/2, fire2 of 16        54x54x128        11,920
    fire3 of 16                   54x54x128        12,432
    fire4 of 32                   54x54x256        45,344
    max 3x3/2, fire5 of 32        27x27x256        49,440
    fire6 of 48                   27x27x384       104,880
    fire7 of 48                   27x27x384       111,024
    fire8 of 64                   27x27x512       188,992
    max 3x3/2, fire9 of 64        13x13x512       197,184
    dropout, conv10 1x1, 1000     13x13x1000      513,000
    average                       1000

`squeezenet1_1` begins with 64 filters of 3x3 and pools earlier (before fire2, fire4 and fire6), which more than halves
the multiply-adds.
"""

from functools import partial

import torch
from torch import Tensor, nn

from cnnzoo.models._base import GlobalPool, Net
from cnnzoo.models._blocks import numbered
from cnnzoo.registry import Claim, Stage, register


class Fire(nn.Module):
    """Squeeze, then expand in two branches (Figure 1): 8 times `width` channels."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, width, 1)
        self.squeeze_activation = nn.ReLU()
        self.expand1x1 = nn.Conv2d(width, 4 * width, 1)
        self.expand1x1_activation = nn.ReLU()
        self.expand3x3 = nn.Conv2d(width, 4 * width, 3, padding=1)
        self.expand3x3_activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        narrow = self.expand1x1_activation(self.expand1x1(x))
        wide = self.expand3x3_activation(self.expand3x3(x))
        return torch.cat([narrow, wide], dim=1)


class SqueezeNet(Net):
    """`stem` is (filters, kernel size) of conv1, `fires` the widths of the fire modules, pooling before each row."""

    head_name = "classifier.1"

    def __init__(
        self,
        stem: tuple[int, int],
        fires: tuple[tuple[int, ...], ...],
        min_size: int,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.5,
        global_pool: str = "avg",
    ):
        super().__init__()
        self.in_chans = in_chans
        self.min_size = min_size
        channels, kernel_size = stem
        layers: list[nn.Module] = [nn.Conv2d(in_chans, channels, kernel_size, stride=2), nn.ReLU()]
        for widths in fires:
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            for width in widths:
                layers.append(Fire(channels, width))
                channels = 8 * width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(drop_rate),
            nn.Conv2d(channels, num_classes, 1),
            nn.ReLU(),
            GlobalPool(global_pool),
        )
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        return self.features(x)  # (B, 512, 13, 13)

    def forward_head(self, f: Tensor, pre_logits: bool = False) -> Tensor:
        dropout, head, _, pool = self.classifier
        if isinstance(head, nn.Conv2d) and not pre_logits:
            return self.classifier(f)
        x = pool(dropout(f))
        return x if pre_logits else head(x)

    def init_layer(self, name: str, module: nn.Module) -> None:
        if name == self.head_name:
            nn.init.normal_(module.weight, std=0.01)
        else:
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)


def _stages(stem: tuple[int, int], fires: tuple[tuple[int, ...], ...], sides: tuple[int, ...]) -> tuple[Stage, ...]:
    stages = [Stage("stem", ("features.0", "features.1"), (stem[0], sides[0], sides[0]))]
    index = 2
    for number, (widths, side) in enumerate(zip(fires, sides[1:], strict=True), start=1):
        last = index + len(widths)  # the pooling, and the fire modules after it
        stages.append(Stage(f"stage{number}", numbered("features", index, last), (8 * widths[-1], side, side)))
        index = last + 1
    return tuple(stages)


def _paper_names(fires: tuple[tuple[int, ...], ...]) -> dict[str, str]:
    """conv1, fire2 … fire9 and conv10; a pooling bears the number of the layer before it (Table 1)."""
    names, number, index = {"conv1": "features.0"}, 1, 2
    for widths in fires:
        names[f"maxpool{number}"] = f"features.{index}"
        for _ in widths:
            number, index = number + 1, index + 1
            names[f"fire{number}"] = f"features.{index}"
        index += 1
    return names | {"conv10": "classifier.1"}


_ACCURACIES = (
    Claim("top-1 accuracy, ILSVRC 2012 validation, one crop", "57.5 %"),
    Claim("top-5 accuracy, ILSVRC 2012 validation, one crop", "80.3 %"),
)

# name: stem, fires, sides of the stages' maps, least image, parameters, multiply-adds, claims of Table 2, differences
# fmt: off
VARIANTS = {
    "squeezenet1_0": (
        (96, 7), ((16, 16, 32), (32, 48, 48, 64), (64,)), (109, 54, 27, 13), 21, 1_248_424, 818_924_576,
        _ACCURACIES,
        ("no padding before conv1, so that a 224x224 image gives 109x109 maps, 111x111 in the paper's table",),
    ),
    "squeezenet1_1": (
        (64, 3), ((16, 16), (32, 32), (48, 48, 64, 64)), (111, 55, 27, 13), 17, 1_235_496, 349_151_936,
        (),
        ("not in the paper: the authors' later version, with fewer and smaller filters in conv1 and earlier pooling",),
    ),
}
# fmt: on

for _name, (_stem, _fires, _sides, _min_size, _params, _macs, _claims, _differences) in VARIANTS.items():
    register(
        _name,
        paper="Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer: SqueezeNet: AlexNet-level accuracy with 50x fewer "
        "parameters and <0.5MB model size, 2016, arXiv 1602.07360",
        year=2016,
        params=_params,
        macs=_macs,
        min_size=_min_size,
        stages=_stages(_stem, _fires, _sides),
        first_conv="features.0",
        paper_names=_paper_names(_fires),
        claims=_claims,
        differences=_differences,
    )(partial(SqueezeNet, _stem, _fires, _min_size))
