"""Export: a file that runs without cnnzoo gives what the net gives, or is not written."""

import ast
import importlib
import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

import cnnzoo
from cnnzoo.data.preprocess import Preprocess
from cnnzoo.data.preprocess_graph import PreprocessGraph
from cnnzoo.errors import InputError
from cnnzoo.registry import unregister

CLASSES = ("ant", "bee", "übelst, lästig")


def net_of(name: str, size: int = 64, resize: int = 72, squash: bool = False, **more) -> nn.Module:
    """A net of three classes that tells images apart, in train mode, for images smaller than its own."""
    torch.manual_seed(0)
    net = cnnzoo.create(name, num_classes=len(CLASSES), **more)
    net.classes = CLASSES
    channels = net.in_chans
    net.preprocessing = Preprocess(size, resize, (0.5, 0.4, 0.3)[:channels], (0.2, 0.3, 0.25)[:channels], squash=squash)
    return net


def noise(batch: int, height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, channels), dtype=np.uint8)


def session_of(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def by_onnxruntime(file: Path, images: np.ndarray) -> np.ndarray:
    return session_of(file).run(None, {"images": images})[0]


def by_torch(file: Path, images: np.ndarray) -> np.ndarray:
    return torch.export.load(file).module()(torch.from_numpy(images)).numpy()  # whose answers ask for no gradients


RUNNERS = {"onnx": by_onnxruntime, "torch": by_torch}


def card_of(file: Path, format: str) -> dict:
    """What travels with the graph."""
    if format == "onnx":
        return json.loads(session_of(file).get_modelmeta().custom_metadata_map["cnnzoo"])
    extra = {"cnnzoo.json": ""}
    torch.export.load(file, extra_files=extra)
    return json.loads(extra["cnnzoo.json"])


# ---- what the file gives


@pytest.mark.usefixtures("in_float64")
def test_a_file_computes_in_float32_whatever_is_usual(tmp_path):
    cnnzoo.export(net_of("resnet20", 32, 40), tmp_path / "net.onnx")
    assert by_onnxruntime(tmp_path / "net.onnx", noise(2, 50, 60, 3)).dtype == np.float32


@pytest.mark.parametrize("format", RUNNERS)
def test_a_file_computes_in_float32_where_autocast_is_on(format, tmp_path):
    with torch.autocast("cpu"):
        cnnzoo.export(net_of("resnet20", 32, 40), tmp_path / "net", format=format)
    assert RUNNERS[format](tmp_path / "net", noise(2, 50, 60, 3)).dtype == np.float32


@pytest.mark.parametrize(
    ("name", "squash"),
    [
        ("lenet5", False),  # grey
        ("squeezenet1_1", True),  # pools that round up; Caffe's preprocessing
        ("nin_cifar10", False),  # means that round up
        ("googlenet_2014", True),  # local response normalisation
        ("resnet20", False),  # BatchNorm
    ],
)
def test_onnxruntime_gives_the_nets_probabilities(name, squash, tmp_path, capfd):
    side = 32 if name in ("lenet5", "nin_cifar10", "resnet20") else 64
    net = net_of(name, side, side + 8, squash)
    done = cnnzoo.export(net, tmp_path / "net.onnx")
    assert capfd.readouterr() == ("", "")
    assert net.training
    assert list(done.differences) == [1, 2, 7]
    assert done.bytes == (tmp_path / "net.onnx").stat().st_size
    for batch, height, width in ((1, 1, 1), (1, 90, 160), (2, 30, 200), (7, side, side)):
        images = noise(batch, height, width, net.in_chans)
        expected = cnnzoo.predict(net, list(images)).probabilities
        np.testing.assert_allclose(by_onnxruntime(tmp_path / "net.onnx", images), expected, rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def lenet(tmp_path_factory) -> tuple[nn.Module, dict[str, Path]]:
    """A net, and its files by format."""
    folder = tmp_path_factory.mktemp("lenet")
    net = net_of("lenet5", 32, 40)
    return net, {format: cnnzoo.export(net, folder / f"net.{format}", format=format).file for format in RUNNERS}


def test_torch_gives_the_nets_probabilities(lenet):
    net, files = lenet
    for batch, height, width in ((1, 1, 1), (1, 90, 160), (7, 40, 40)):
        images = noise(batch, height, width, 1)
        expected = cnnzoo.predict(net, list(images)).probabilities
        np.testing.assert_allclose(by_torch(files["torch"], images), expected, rtol=1e-4, atol=1e-6)


class Tiny(nn.Module):
    """A net of a user's own, with an auxiliary head, and what exporters stumble over: normalisation, then a grid."""

    in_chans, num_classes = 1, 3

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3), nn.LocalResponseNorm(5), nn.AdaptiveAvgPool2d(2))
        self.aux = nn.Linear(32, 3)
        self.fc = nn.Linear(32, 3)

    def forward(self, x):
        x = self.features(x).flatten(1)
        return (self.fc(x), self.aux(x)) if self.training else self.fc(x)


def test_a_users_net_is_exported_without_what_only_training_needs(tmp_path):
    cnnzoo.register("tiny", input_size=(1, 8, 8), num_classes=3, head="fc", aux=("aux",))(Tiny)
    try:
        net = cnnzoo.create("tiny")
        images = noise(3, 20, 20, 1)
        for format, run in RUNNERS.items():
            cnnzoo.export(net, tmp_path / format, format=format)
            np.testing.assert_allclose(
                run(tmp_path / format, images), cnnzoo.predict(net, list(images)).probabilities, rtol=1e-4
            )
        assert not [name for name in torch.export.load(tmp_path / "torch").state_dict if "aux" in name]
        assert net.aux is not None
    finally:
        unregister("tiny")


def test_without_preprocessing_it_takes_what_the_net_takes(tmp_path, capfd):
    net = net_of("lenet5", 32, 32).eval()
    x = torch.randn(3, 1, 32, 32)
    for format, run in RUNNERS.items():
        done = cnnzoo.export(net, tmp_path / format, format=format, preprocess=False)
        assert capfd.readouterr() == ("", "")
        assert (done.input, done.output) == ("images (B, 1, 32, 32) float32, preprocessed", "logits (B, 3) float32")
        np.testing.assert_allclose(run(tmp_path / format, x.numpy()), net(x).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.fixture
def photo(tmp_path) -> Path:
    """A real one where there are any."""
    if "CNNZOO_DATA" in os.environ:
        return sorted(Path(os.environ["CNNZOO_DATA"]).glob("hymenoptera/**/*.jpg"))[0]
    colours = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((480, 320), Image.Resampling.BICUBIC).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_a_photo_comes_out_as_predict_has_it(photo, interpolation, tmp_path):
    net = net_of("lenet5", in_chans=3)
    net.preprocessing = Preprocess(32, 96, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25), interpolation)
    cnnzoo.export(net, tmp_path / "net.onnx")
    expected = cnnzoo.predict(net, [photo]).probabilities
    given = by_onnxruntime(tmp_path / "net.onnx", np.asarray(Image.open(photo).convert("RGB"))[None])
    assert given.argmax() == expected.argmax()
    np.testing.assert_allclose(given, expected, atol=1e-5)


def test_a_calibrated_net_keeps_its_temperature(tmp_path):
    net = net_of("lenet5", 32, 32).eval()
    net.temperature = 2.5
    images = noise(2, 32, 32, 1)
    expected = (net(torch.stack([net.preprocessing(image) for image in images])) / 2.5).softmax(1).detach().numpy()
    cnnzoo.export(net, tmp_path / "net.onnx")
    np.testing.assert_allclose(by_onnxruntime(tmp_path / "net.onnx", images), expected, rtol=1e-4)
    assert card_of(tmp_path / "net.onnx", "onnx")["temperature"] == 2.5


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
def test_differences_are_those_of_logits_whatever_the_temperature(tmp_path, temperature):
    net = net_of("lenet5", 32, 32).eval()
    net.temperature = temperature
    with torch.no_grad():
        net.output.weight *= 20
    differences = cnnzoo.export(net, tmp_path / "net.onnx").differences
    assert max(differences.values()) < 1e-5


def test_a_net_that_is_sure_is_exported_whose_other_probabilities_vanish(tmp_path):
    net = net_of("lenet5", 32, 32).eval()
    with torch.no_grad():
        net.output.weight *= 10_000
    images = noise(2, 32, 32, 1)
    expected = cnnzoo.predict(net, list(images)).probabilities
    assert (expected == 0).any()
    cnnzoo.export(net, tmp_path / "net.onnx")
    np.testing.assert_allclose(by_onnxruntime(tmp_path / "net.onnx", images), expected, atol=1e-5)


def test_of_a_head_that_was_replaced_no_names_travel(tmp_path):
    net = net_of("lenet5", 32, 32)
    net.output = nn.Linear(84, 2)
    assert cnnzoo.export(net, tmp_path / "net.pt", format="torch").classes == ("0", "1")
    assert tuple(card_of(tmp_path / "net.pt", "torch")["classes"]) == ("0", "1")


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_class_names_and_preprocessing_travel_along(lenet, format):
    net, files = lenet
    card = card_of(files[format], format)
    assert card["name"] == "lenet5"
    assert tuple(card["classes"]) == CLASSES
    assert Preprocess.from_dict(card["preprocess"]) == net.preprocessing
    assert card["input"] == "images (B, H, W, 1) uint8 grey, of any height and width"
    assert card["output"] == "probabilities (B, 3) float32"


def test_an_onnx_file_says_what_goes_in_and_out(lenet):
    session = session_of(lenet[1]["onnx"])
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["batch", "height", "width", 1])
    assert (made.name, made.type, made.shape) == ("probabilities", "tensor(float)", ["batch", 3])
    names = session.get_modelmeta().custom_metadata_map["names"]
    assert ast.literal_eval(names) == dict(enumerate(CLASSES))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize(("size", "resize"), [(48, 64), (63, 64), (64, 64), (71, 48)])  # with a margin, too
def test_preprocessing_in_the_graph_is_the_nets_own_to_the_bit(interpolation, squash, size, resize):
    preprocess = Preprocess(size, resize, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25), interpolation, squash)
    graph = PreprocessGraph(preprocess)
    for height, width in ((1, 1), (3, 50), (64, 64), (64, 91), (125, 250), (333, 500), (301, 302)):
        (image,) = images = noise(1, height, width, 3)
        assert torch.equal(graph(torch.from_numpy(images))[0], preprocess(image)), (height, width)


# ---- from the command line


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> cnnzoo.Run:
    """lenet5 after an epoch on digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    return cnnzoo.train({"run": str(folder), "model": {"name": "lenet5"}, "train": {"epochs": 1, "batch_size": 128}})


def test_a_run_is_exported(run, tmp_path, cli):
    code, told, _ = cli("export", run.path, "--out", tmp_path / "new" / "digits.onnx")
    assert code == 0
    for part in ("digits.onnx", "10 classes", "uint8 grey", "probabilities (B, 10)", "batches of 1 ("):
        assert part in told
    images = noise(3, 8, 8, 1)
    given = by_onnxruntime(tmp_path / "new" / "digits.onnx", images)
    np.testing.assert_allclose(given, cnnzoo.predict(run, list(images)).probabilities, atol=1e-5)


def test_raw_leaves_preprocessing_out(run, tmp_path, cli):
    assert cli("export", run.model_file, "--out", tmp_path / "raw.onnx", "--raw").code == 0
    assert by_onnxruntime(tmp_path / "raw.onnx", np.zeros((2, 1, 32, 32), np.float32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["RUN"], ["out"]),
        (["RUN", "--out", "a.onnx", "--format", "onxx"], ["unknown format 'onxx'", "onnx"]),
        (["RUN", "--out", "."], ["is a folder"]),
        (["nope", "--out", "file/a.onnx"], ["file/a.onnx cannot be written (Not a directory)"]),
        (["nope", "--out", "a.onnx"], ["unknown run folder or model 'nope'"]),
        (["resnet18", "--out", "a.onnx"], ["resnet18 without trained weights"]),
    ],
    ids=" ".join,
)
def test_wrong_input_is_told_in_one_line_and_leaves_nothing(run, arguments, words, tmp_path, fails):
    Path("file").write_text("not a folder")
    told = fails("export", *(run.path if word == "RUN" else word for word in arguments))
    assert all(word in told for word in words)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


# ---- what is refused


class Untrue(nn.Module):
    """Nets that look right, and whose graphs are not."""

    in_chans = 1
    num_classes = 3

    def __init__(self, fault: str):
        super().__init__()
        self.fc = nn.Linear(64, 3)
        self.fault = fault

    def forward(self, x):
        x = x.reshape(len(x), 64) if self.fault == "count" else x.flatten(1)
        x = self.fc(nn.functional.dropout(x) if self.fault == "dropout" else x)  # in eval mode as well
        if self.fault == "values" and x.max() > 1e6:
            return -x
        return -x if self.fault == "batch" and len(x) > 2 else x


@pytest.fixture(params=["dropout", "batch"])
def untrue(request):
    cnnzoo.register("untrue", input_size=(1, 8, 8), num_classes=3, head="fc")(lambda: Untrue(request.param))
    yield request.param
    unregister("untrue")


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_a_graph_that_disagrees_is_refused_and_the_old_file_stays(untrue, format, tmp_path):
    (tmp_path / "net").write_text("the old one")
    why = {("batch", "onnx"): "at a batch of 7", ("batch", "torch"): "cannot be exported"}
    with pytest.raises(InputError, match=why.get((untrue, format), "at a batch of 1")) as refused:
        cnnzoo.export(cnnzoo.create("untrue"), tmp_path / "net", format=format)
    assert "net was not written" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["the old one"]


@pytest.mark.parametrize(("format", "why"), [("onnx", "depends on the values"), ("torch", "cannot be exported")])
def test_a_graph_that_would_do_for_all_images_what_the_net_does_for_some_is_refused(format, why, tmp_path):
    cnnzoo.register("untrue", input_size=(1, 8, 8), num_classes=3, head="fc")(lambda: Untrue("values"))
    try:
        with pytest.raises(InputError, match=why):
            cnnzoo.export(cnnzoo.create("untrue"), tmp_path / "net", format=format)
    finally:
        unregister("untrue")
    assert [*tmp_path.iterdir()] == []


def test_a_net_that_gives_no_numbers_is_told_apart_from_a_bad_export(tmp_path):
    net = net_of("lenet5", 32, 32)
    with torch.no_grad():
        next(net.parameters()).fill_(math.nan)
    with pytest.raises(InputError, match="the net's logits are no finite numbers; its weights are damaged, or"):
        cnnzoo.export(net, tmp_path / "net.onnx")


def test_a_graph_that_takes_one_number_of_images_only_is_refused(tmp_path, capfd):
    cnnzoo.register("untrue", input_size=(1, 8, 8), num_classes=3, head="fc")(lambda: Untrue("count"))
    try:
        with pytest.raises(InputError, match=r"the graph fails at a batch of 1 \(\[ONNXRuntimeError\] .*reshape"):
            cnnzoo.export(cnnzoo.create("untrue"), tmp_path / "net.onnx")
    finally:
        unregister("untrue")
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_exported_is_told(tmp_path):
    for strange in (
        nn.Linear(3, 3),
        cnnzoo.create("lenet5", num_classes=0),
        cnnzoo.create("lenet5", features_only=True),
    ):
        with pytest.raises(InputError, match=f"this {type(strange).__name__} cannot be exported"):
            cnnzoo.export(strange, tmp_path / "net.onnx")
    with pytest.raises(InputError, match="out is the file to write, not 3"):
        cnnzoo.export("lenet5", 3)
    net = net_of("lenet5", 32, 32)
    net.preprocessing = Preprocess(32, 32, (0.5,), (0.2,), "nearest")
    with pytest.raises(InputError, match="interpolation nearest cannot be part of a graph"):
        cnnzoo.export(net, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_weights_too_large_for_one_onnx_file_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("cnnzoo.export"), "ONE_FILE", 1000)
    with pytest.raises(InputError, match="more than an ONNX file can hold; export it by format='torch'"):
        cnnzoo.export(net_of("lenet5", 32, 32), tmp_path / "net.onnx")


def test_a_missing_package_is_named_with_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)  # which makes importing it fail
    with pytest.raises(InputError, match=r'the package onnx, .*pip install "cnnzoo\[export\]"'):
        cnnzoo.export(net_of("lenet5", 32, 32), tmp_path / "net.onnx")
    with pytest.raises(InputError, match="unknown run folder or model 'nope'"):  # which the other format needs not
        cnnzoo.export("nope", tmp_path / "net.pt2", format="torch")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("format", "name"), [("torch", "net.onnx"), ("onnx", "net.pt2"), ("onnx", "net.pt")])
def test_a_file_does_not_end_as_one_of_the_other_format(format, name, tmp_path):
    with pytest.raises(InputError, match=rf"{name} ends as a file of format \w+, but the format is {format}"):
        cnnzoo.export("lenet5", tmp_path / name, format=format)
    assert not any(tmp_path.iterdir())
