"""VGG. Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015, arXiv
1409.1556.

Sizes are those of the paper's Table 1 for a 224x224 image; names are torchvision's. B = batch.

    stage   output        A (11)   B (13)   D (16)   E (19)
    1       112x112x64    1        2        2        2           convolutions of 64
    2       56x56x128     1        2        2        2           … of 128
    3       28x28x256     2        2        3        4           … of 256
    4       14x14x512     2        2        3        4           … of 512
    5       7x7x512       2        2        3        4           … of 512
    6, 7    4096          two fully connected layers of 4096, ReLU, dropout
    head    1000          fully connected

Every convolution is 3x3 with ReLU, and every stage of convolutions ends in 2x2 max pooling. Three 3x3 see 7x7 pixels
with 55 % of the weights of a 7x7 (section 2.3). A-LRN and C, of which three convolutions are 1x1, are left out.

Differences from the paper: see `cnnzoo info vgg16`.
"""

from functools import partial

from torch import Tensor, nn

from cnnzoo.models._base import GlobalPool, HeNet, fill_normal
from cnnzoo.models._blocks import numbered
from cnnzoo.registry import Claim, Stage, register

WIDTHS = (64, 128, 256, 512, 512)
# depth: convolutions in each stage, parameters without and with batch normalisation, multiply-adds
VARIANTS = {
    11: ((1, 1, 2, 2, 2), 132_863_336, 132_868_840, 7_609_090_048),
    13: ((2, 2, 2, 2, 2), 133_047_848, 133_053_736, 11_308_466_176),
    16: ((2, 2, 3, 3, 3), 138_357_544, 138_365_992, 15_470_264_320),
    19: ((2, 2, 4, 4, 4), 143_667_240, 143_678_248, 19_632_062_464),
}


class VGG(HeNet):
    """`depths` counts the convolutions of each stage; `batch_norm` puts a BatchNorm between each one and its ReLU."""

    head_name = "classifier.6"
    min_size = 32

    def __init__(
        self,
        depths: tuple[int, ...],
        batch_norm: bool,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.5,
        global_pool: str = "avg",
    ):
        super().__init__()
        self.in_chans = in_chans
        layers: list[nn.Module] = []
        channels = in_chans
        for depth, width in zip(depths, WIDTHS, strict=True):
            for _ in range(depth):
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1),
                    *([nn.BatchNorm2d(width)] if batch_norm else []),
                    nn.ReLU(),
                ]
                channels = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.avgpool = GlobalPool(global_pool, 7)  # nothing to do at 224; lets other sizes through
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(),
            nn.Dropout(drop_rate),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(drop_rate),
            nn.Linear(4096, num_classes),
        )
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        return self.features(x)  # (B, 512, 7, 7)

    def forward_head(self, f: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.avgpool(f)  # (B, 25088)
        if not pre_logits:
            return self.classifier(x)
        for layer in self.classifier[:-1]:
            x = layer(x)
        return x  # (B, 4096)

    def init_layer(self, name: str, module: nn.Module) -> None:
        """He initialisation, which trains every depth from scratch; the paper started from a trained net A."""
        if isinstance(module, nn.Linear):
            fill_normal(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
        else:
            super().init_layer(name, module)


def _stages(depths: tuple[int, ...], batch_norm: bool) -> tuple[Stage, ...]:
    stages, index, size = [], 0, 224
    for number, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True), start=1):
        length = depth * (3 if batch_norm else 2) + 1
        size //= 2
        modules = numbered("features", index, index + length - 1)
        stages.append(Stage(f"stage{number}", modules, (width, size, size)))
        index += length
    stages.append(Stage("stage6", numbered("classifier", 0, 2), (4096,)))
    stages.append(Stage("stage7", numbered("classifier", 3, 5), (4096,)))
    return tuple(stages)


def _paper_names(depths: tuple[int, ...], batch_norm: bool) -> dict[str, str]:
    """conv1_1 … conv5_3, pool1 … pool5, fc6, fc7 and fc8, as the paper's own model files call them."""
    names, index = {}, 0
    for number, depth in enumerate(depths, start=1):
        for place in range(1, depth + 1):
            names[f"conv{number}_{place}"] = f"features.{index}"
            index += 3 if batch_norm else 2
        names[f"pool{number}"] = f"features.{index}"
        index += 1
    return names | {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}


_ERRORS = ("top-1 error, ILSVRC 2012 validation", "top-5 error, ILSVRC 2012 validation")
_ONE_SCALE, _SCALES, _CROPS = "one test scale", "several test scales", "several scales and crops"
# depth: parameters, if given; top-1 and top-5 errors of Tables 3, 4 and 5, by how they were measured
CLAIMS = {
    11: (None, {_ONE_SCALE: ("29.6 %", "10.4 %")}),
    13: (None, {_ONE_SCALE: ("28.7 %", "9.9 %")}),
    16: (
        "138 million",
        {_ONE_SCALE: ("25.6 %", "8.1 %"), _SCALES: ("24.8 %", "7.5 %"), _CROPS: ("24.4 %", "7.2 %")},
    ),
    19: (None, {_ONE_SCALE: ("25.5 %", "8.0 %"), _SCALES: ("24.8 %", "7.5 %"), _CROPS: ("24.4 %", "7.1 %")}),
}


def _claims(depth: int) -> tuple[Claim, ...]:
    params, errors = CLAIMS[depth]
    return (
        *([Claim("parameters", params)] if params else []),
        *(
            Claim(f"{error}, {measured}", figure)
            for measured, figures in errors.items()
            for error, figure in zip(_ERRORS, figures, strict=True)
        ),
    )


_NOTES = {
    16: (
        "lectures count 24 million activations for an image, 93 MB; the column that they sum (the image and the output "
        "of each layer and pooling) has 15,237,608 numbers, 60.95 MB (58.13 MiB)",
    )
}

_SHARED = (
    "He initialisation instead of starting the deeper nets from a trained net A",
    "any image of at least 32x32: adaptive pooling of the last maps to 7x7 (no effect at 224x224)",
)

for _depth, (_depths, _params, _params_bn, _macs) in VARIANTS.items():
    for _batch_norm in (False, True):
        register(
            f"vgg{_depth}_bn" if _batch_norm else f"vgg{_depth}",
            paper="Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, "
            "ICLR 2015, arXiv 1409.1556",
            year=2014,
            params=_params_bn if _batch_norm else _params,
            macs=_macs,
            stages=_stages(_depths, _batch_norm),
            first_conv="features.0",
            paper_names=_paper_names(_depths, _batch_norm),
            claims=_claims(_depth),
            notes=_NOTES.get(_depth, ()),
            differences=(*_SHARED, "BatchNorm after every convolution, which the paper (2014) does not have")
            if _batch_norm
            else _SHARED,
        )(partial(VGG, _depths, _batch_norm))
