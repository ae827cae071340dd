"""ResNeXt. Xie, Girshick, Dollar, Tu, He: Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017,
arXiv 1611.05431.

A ResNet whose 3x3 convolutions have C groups (Figure 3c), C the cardinality, each d wide in the first stage. Sizes are
those of the paper's Table 1 for a 224x224 image; names are torchvision's. B = batch.

    stage    output     blocks (50 / 101)   C * d channels in the 3x3 of 32x4d   32x8d   64x4d
    stem     112x112    convolution 7x7/2, 64
    stage1   56x56      3 / 3               128                                  256     256
    stage2   28x28      4 / 4               256                                  512     512
    stage3   14x14      6 / 23              512                                  1024    1024
    stage4   7x7        3 / 3               1024                                 2048    2048
    head     1000       average pool, fully connected
"""

from functools import partial

from cnnzoo.models.resnet import Bottleneck, ResNet, facts, projection
from cnnzoo.registry import Claim, register

PAPER = (
    "Xie, Girshick, Dollar, Tu, He: Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017, "
    "arXiv 1611.05431"
)


class Bottleneck32x4d(Bottleneck):
    widen, groups = 2, 32


class Bottleneck32x8d(Bottleneck):
    widen, groups = 4, 32


class Bottleneck64x4d(Bottleneck):
    widen, groups = 4, 64


_ERROR = "top-1 error, ILSVRC 2012 validation, one crop"

# name: block, depths, parameters, multiply-adds, claims of Tables 3 and 4
VARIANTS = {
    "resnext50_32x4d": (Bottleneck32x4d, (3, 4, 6, 3), 25_028_904, 4_230_479_872, (Claim(_ERROR, "22.2 %"),)),
    "resnext101_32x8d": (Bottleneck32x8d, (3, 4, 23, 3), 88_791_336, 16_414_015_488, ()),
    "resnext101_64x4d": (Bottleneck64x4d, (3, 4, 23, 3), 83_455_272, 15_460_270_080, (Claim(_ERROR, "20.4 %"),)),
}

for _name, (_block, _depths, _params, _macs, _claims) in VARIANTS.items():
    register(_name, **facts(_block, _params, _macs, PAPER, 2016, claims=_claims))(
        partial(ResNet, _block, projection, _depths)
    )
