"""What Apple's GPUs need otherwise, as far as a machine without one can tell."""

import os

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.torch_version import TorchVersion
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import cnnzoo
from cnnzoo import assemble
from cnnzoo.config import AugmentConfig, Config
from cnnzoo.data import augment, preprocess
from cnnzoo.data.augment import Augment, Mix
from cnnzoo.data.draws import Draws
from cnnzoo.data.lookup import look_up
from cnnzoo.data.to_device import SideStream
from cnnzoo.device import layout_on, pick_precision
from cnnzoo.errors import InputError
from cnnzoo.inference import forms
from cnnzoo.models._base import adaptive_pool2d, pool_by_windows

MPS, META = torch.device("mps"), torch.device("meta")


@pytest.mark.parametrize("kind", ["avg", "max"])
@pytest.mark.parametrize(("height", "width", "places"), [(14, 14, 4), (5, 9, 6), (2, 3, 7), (8, 12, 4)])
def test_pooling_by_windows_is_adaptive_pooling(kind, height, width, places):
    x = torch.randn(2, 3, height, width)
    assert torch.allclose(pool_by_windows(x, places, kind), adaptive_pool2d(x, places, kind), atol=1e-6)


@pytest.mark.parametrize("outside", ["zeros", "border", "reflection"])
def test_looking_up_by_zeros_alone_gives_every_kind_of_outside(outside):
    images, matrices = torch.rand(4, 3, 9, 14), torch.eye(2, 3) + torch.randn(4, 2, 3)
    places = functional.affine_grid(matrices, [4, 3, 7, 8], align_corners=False)
    wanted = functional.grid_sample(images, places, padding_mode=outside, align_corners=False)
    assert torch.allclose(look_up(images, matrices, (7, 8), outside), wanted, atol=1e-4)


def test_one_thread_alone_gives_a_device_work():
    stream = SideStream(META)
    sent = stream.send(np.zeros(3, np.uint8))
    assert [tensor.device.type for tensor in sent[0]] == ["cpu"]
    assert [tensor.device for tensor in stream.receive(sent)] == [META]


class WithoutDoubles(TorchDispatchMode):
    """Refuses on the meta device what MPS refuses on its own."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = function(*args, **(kwargs or {}))
        for value in tree_leaves(given):
            if isinstance(value, torch.Tensor) and value.device == META and value.dtype == torch.float64:
                raise TypeError(f"{function} gives float64")
        return given


MOVES = {"rotation": 10.0, "shift": 0.1, "shear": 5.0, "zoom": 0.1}
COLOURS = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "channel_shift": 0.1, "pca_noise": 0.1}
REST = {"flip_vertical": True, "quarter_turns": True, "cutout": 4, "erasing": 0.5}


@pytest.mark.parametrize(
    "keys",
    [
        {"crop": "resized"},
        {"crop": "jittered", "shorter_side": (16, 32)},
        MOVES | COLOURS | REST,
        {"policy": "randaugment"},
        {"policy": "trivialaugment"},
    ],
    ids=str,
)
def test_augmentation_needs_no_doubles(keys):
    pixels = torch.zeros(64, 24, 24, 3, dtype=torch.uint8, device=META)
    with WithoutDoubles():
        images = Augment(AugmentConfig(**keys), 16, (0.5,) * 3, (0.2,) * 3)(pixels, np.random.default_rng(0))
    assert images.shape == (64, 3, 16, 16)


def test_images_and_weights_lie_as_the_device_wants_them(monkeypatch):
    assert layout_on(MPS) == torch.contiguous_format
    assert layout_on(torch.device("cpu")) == torch.channels_last
    net, pixels = cnnzoo.create("resnet20").eval(), torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    assert assemble.lies_channels_last(Config(), net)
    for module in (assemble, augment, preprocess, forms):
        monkeypatch.setattr(module, "layout_on", lambda device: layout_on(MPS))
    assert not assemble.lies_channels_last(Config(), net)
    images = preprocess.normalise(pixels, (0.5,) * 3, (0.2,) * 3)
    mixed, _ = Mix(3, mixup=0.2)(images, torch.tensor([0, 1]), Draws(np.random.default_rng(0), 2))
    assert images.is_contiguous()
    assert mixed.is_contiguous()
    seen = []
    hook = register_module_forward_pre_hook(
        lambda module, given: seen.append((given[0], module.weight)) if isinstance(module, nn.Conv2d) else None
    )
    try:
        forms.floats_of(forms.converted(net, torch.bfloat16), torch.bfloat16, layout_on(MPS))(
            images.contiguous(memory_format=torch.channels_last)
        )
        forms.plain(net)(images.contiguous(memory_format=torch.channels_last))
    finally:
        hook.remove()
    assert len(seen) >= 38
    assert all(tensor.is_contiguous() for pair in seen for tensor in pair)


def test_what_a_system_is_too_old_for_is_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: (major, minor) <= (13, 3))
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.8.0"))
    with pytest.raises(InputError, match="bf16, for which MPS needs macOS 14; take fp16 or fp32"):
        pick_precision("bf16", MPS)
    assert pick_precision("fp16", MPS) == "fp16"
    assert pick_precision("auto", MPS) == "fp32"
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.7.1"))
    with pytest.raises(InputError, match=r"fp16, for which MPS needs torch 2\.8, and this is 2\.7\.1"):
        pick_precision("fp16", MPS)


def test_what_it_cannot_compute_the_processor_does():
    assert os.environ["PYTORCH_ENABLE_MPS_FALLBACK"]
