"""Files of other libraries and repositories, whose tensors bear other names or lie in another order."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

import cnnzoo
from cnnzoo.weights.layouts import to_timm_vgg


@pytest.fixture(scope="module")
def weights_root():
    """Where the real weights lie."""
    root = os.environ.get("CNNZOO_WEIGHTS")
    if not root:
        pytest.skip("CNNZOO_WEIGHTS does not say where the real weights lie")
    return Path(root)


def saved(net, path):
    torch.save(net if isinstance(net, dict) else net.state_dict(), path)
    return path


def same_outputs(ours, theirs, side):
    """In double precision, since sums run in another order."""
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = (copy.deepcopy(net).double().eval()(images) for net in (ours, theirs))
    return ((ours - theirs).abs().max() / theirs.abs().max()).item() < 1e-9


# --- VGG, timm's and torchvision's


@pytest.fixture(scope="module")
def timm_vgg():
    torch.manual_seed(0)
    return timm.create_model("vgg11_bn")


@pytest.fixture(scope="module")
def ours(timm_vgg, tmp_path_factory):
    """On timm's weights, read from a file."""
    file = saved(timm_vgg, tmp_path_factory.mktemp("saved") / "vgg.pth")
    net = cnnzoo.create("vgg11_bn", file)
    file.unlink()
    return net


def test_timms_vgg_loads(timm_vgg, ours):
    assert same_outputs(ours, timm_vgg, 224)  # whose maps are as many as the matrix has places
    assert set(ours.load_report.reshaped) == {"classifier.0.weight", "classifier.3.weight"}
    assert ("head.fc.bias", "classifier.6.bias") in ours.load_report.renamed


def test_ours_goes_back_to_timm(timm_vgg, ours):
    back = to_timm_vgg(ours.state_dict())
    assert list(back) == list(timm_vgg.state_dict())
    assert all(torch.equal(back[name], tensor) for name, tensor in timm_vgg.state_dict().items())


# --- DenseNet, whose old files have a dot too many


def test_old_densenet_files_load(tmp_path):
    theirs = torchvision.models.densenet121()
    old = {}
    for name, tensor in theirs.state_dict().items():
        for part in ("norm", "conv"):
            for number in "12":
                if "denselayer" in name:
                    name = name.replace(f".{part}{number}.", f".{part}.{number}.")
        old[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    ours = cnnzoo.create("densenet121", saved(old, tmp_path / "old.pth"))
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())


# --- ResNets for CIFAR that pad new channels on both sides


class BothSides(nn.Module):
    """Option A as akamaster/pytorch_resnet_cifar10 has it: a quarter of the new channels before, a quarter after."""

    def forward(self, x):
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, x.shape[1] // 2, x.shape[1] // 2))


@pytest.mark.parametrize("name", ["resnet20", "resnet32"])
def test_resnets_padded_on_both_sides_become_ours(tmp_path, name):
    torch.manual_seed(0)
    theirs = cnnzoo.create(name)
    for layer in (theirs.layer2, theirs.layer3):
        layer[0].downsample = BothSides()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    state = {f"module.{key.replace('fc.', 'linear.')}": tensor for key, tensor in theirs.state_dict().items()}
    ours = cnnzoo.create(name, saved({"state_dict": state}, tmp_path / "theirs.th"))
    assert same_outputs(ours, theirs, 32)
    assert not same_outputs(cnnzoo.create(name, saved(theirs, tmp_path / "plain.pth")), theirs, 32)


# --- real weights, real photos: ../shared/weights/README.md has the figures asked for


def accuracies(net, paths, labels):
    """Top-1 and top-5 in percent."""
    preprocess, fast, hits = cnnzoo.preprocessing(net), cnnzoo.optimize(net), []
    with torch.inference_mode():
        for start in range(0, len(paths), 50):
            batch = torch.stack([preprocess(path) for path in paths[start : start + 50]])
            best = fast(batch).topk(5).indices
            hits.append(best == torch.tensor(labels[start : start + 50])[:, None])
    hits = torch.cat(hits).double()
    return 100 * hits[:, 0].mean().item(), 100 * hits.sum(1).mean().item()


@pytest.fixture(scope="module")
def samples(data_root):
    paths = sorted((data_root / "imagenet_samples").glob("*.jpg"))
    assert len(paths) == 500
    return paths, [int(path.name[:3]) for path in paths]


def test_caffes_weights_reach_their_accuracy_on_photos(weights_root, samples):
    net = cnnzoo.create("squeezenet1_1", weights_root / "squeezenet1_1_caffe.pth")
    assert accuracies(net, *samples) == pytest.approx((63.4, 85.0), abs=0.2001)


def test_the_papers_googlenet_knows_most_photos(weights_root, samples):
    """All 500 take a minute: scripts/verify_weights.py has 78.4 % of them right."""
    net = cnnzoo.create("googlenet_2014", weights_root / "googlenet_bvlc_caffe.pth")
    paths, labels = samples
    assert accuracies(net, paths[::10], labels[::10])[0] > 70


def test_cifar_weights_reach_their_accuracy(weights_root, data_root, tmp_path):
    """80.45 % of every fifth image, 81.03 % of all 10,000, as scripts/verify_weights.py says (of deeper nets too)."""
    file = weights_root / "resnet20-12fca82f.th"
    assert cnnzoo.create("resnet20", file).classes[3] == "cat"
    for image in sorted((data_root / "cifar10_jpeg" / "test").glob("*/*"))[::5]:
        (tmp_path / image.parent.name).mkdir(exist_ok=True)
        (tmp_path / image.parent.name / image.name).symlink_to(image)
    figures = cnnzoo.evaluate("resnet20", str(tmp_path), pretrained=str(file))
    assert figures.count == 2000
    assert 100 * figures.top1 == pytest.approx(80.45, abs=0.2)


@pytest.mark.parametrize(("name", "file"), [("resnet32", "resnet32-d509ac18.th"), ("resnet56", "resnet56-4bfd9763.th")])
def test_deeper_cifar_weights_know_most_images(weights_root, data_root, name, file):
    net = cnnzoo.create(name, weights_root / file)
    paths = [path for label in net.classes for path in sorted((data_root / "cifar10_jpeg/test" / label).iterdir())[:20]]
    assert len(paths) == 200
    assert accuracies(net, paths, [place // 20 for place in range(200)])[0] > 70


@pytest.mark.parametrize("file", ["squeezenet1_1_caffe.pth", "resnet20-12fca82f.th"])
def test_a_known_file_is_known_under_any_name(weights_root, tmp_path, file):
    (tmp_path / "renamed.bin").write_bytes((weights_root / file).read_bytes())
    name = file.partition("-")[0].partition("_caffe")[0]
    (row,) = [row for row in cnnzoo.list_weights(name) if row.file == file]
    net = cnnzoo.create(name, tmp_path / "renamed.bin")
    assert net.preprocessing.to_dict().items() >= row.preprocess.items()
    assert net.classes == row.classes


def test_blue_first_weights_are_turned_to_red_first(weights_root):
    raw = torch.load(weights_root / "squeezenet1_1_caffe.pth", weights_only=True)
    ours = cnnzoo.create("squeezenet1_1", weights_root / "squeezenet1_1_caffe.pth")
    assert torch.equal(ours.features[0].weight, raw["features.0.weight"].flip(1))
    assert np.allclose(np.array(ours.preprocessing.mean) * 255, (123, 117, 104))
