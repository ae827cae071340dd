"""AlexNet as the world has weights for it. Krizhevsky: One weird trick for parallelizing convolutional neural networks,
2014, arXiv 1404.5997. Names and sizes are torchvision's; input 224x224, B = batch.

    layer                                   output       parameters
    conv 11x11/4, 64, ReLU, max 3x3/2       27x27x64         23,296
    conv 5x5, 192, ReLU, max 3x3/2          13x13x192       307,392
    conv 3x3, 384, ReLU                     13x13x384       663,936
    conv 3x3, 256, ReLU                     13x13x256       884,992
    conv 3x3, 256, ReLU, max 3x3/2          6x6x256         590,080
    dropout, fc 4096, ReLU                  4096         37,752,832
    dropout, fc 4096, ReLU                  4096         16,781,312
    fc 1000                                 1000          4,097,000

The net of the 2012 paper is in alexnet_2012.py.
"""

from torch import Tensor, nn

from cnnzoo.models._base import GlobalPool, Net
from cnnzoo.models._blocks import numbered
from cnnzoo.registry import Claim, Stage, register


class AlexNet(Net):
    """The single tower. Images `(B, in_chans, H, W)` to logits `(B, num_classes)`; `drop_rate` is the dropout before
    both hidden fully connected layers, `global_pool` how the last maps are brought to 6x6 (see `GlobalPool`).
    """

    head_name = "classifier.6"
    min_size = 63

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.5, global_pool: str = "avg"):
        super().__init__()
        self.in_chans = in_chans
        self.features = nn.Sequential(
            nn.Conv2d(in_chans, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = GlobalPool(global_pool, 6)
        self.classifier = nn.Sequential(
            nn.Dropout(drop_rate),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Dropout(drop_rate),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, num_classes),
        )
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        return self.features(x)  # (B, 256, 6, 6)

    def forward_head(self, f: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.avgpool(f)  # (B, 9216)
        if not pre_logits:
            return self.classifier(x)
        for layer in self.classifier[:-1]:
            x = layer(x)
        return x  # (B, 4096)


register(
    "alexnet",
    paper="Krizhevsky: One weird trick for parallelizing convolutional neural networks, 2014, arXiv 1404.5997",
    year=2014,
    params=61_100_840,
    macs=714_188_480,
    stages=(
        Stage("stage1", numbered("features", 0, 2), (64, 27, 27)),
        Stage("stage2", numbered("features", 3, 5), (192, 13, 13)),
        Stage("stage3", numbered("features", 6, 7), (384, 13, 13)),
        Stage("stage4", numbered("features", 8, 9), (256, 13, 13)),
        Stage("stage5", numbered("features", 10, 12), (256, 6, 6)),
        Stage("stage6", numbered("classifier", 0, 2), (4096,)),
        Stage("stage7", numbered("classifier", 3, 5), (4096,)),
    ),
    first_conv="features.0",
    paper_names={
        "conv1": "features.0",
        "pool1": "features.2",
        "conv2": "features.3",
        "pool2": "features.5",
        "conv3": "features.6",
        "conv4": "features.8",
        "conv5": "features.10",
        "pool5": "features.12",
        "fc6": "classifier.1",
        "fc7": "classifier.4",
        "fc8": "classifier.6",
    },
    claims=(Claim("top-1 error, ILSVRC 2012 validation", "42.33 %"),),
    differences=(
        "64, 192, 384, 256, 256 filters instead of the 96, 256, 384, 384, 256 of 2012 (see alexnet_2012)",
        "one tower without groups, and no local response normalisation",
        "dropout before the two hidden fully connected layers instead of after them",
        "padding of 2 before conv1, so that 224x224 images give 55x55 maps",
    ),
)(AlexNet)
