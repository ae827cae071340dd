"""Files of weights, whatever wrapped them, and the table of published ones."""

import hashlib
import os
import pickle
import re
import zipfile
from argparse import Namespace
from dataclasses import replace

import numpy as np
import photos
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

import cnnzoo
from cnnzoo import config
from cnnzoo.checkpoint import Run
from cnnzoo.weights import published, table
from cnnzoo.weights.load import load_into

# Published by torchvision: top-1 and top-5 accuracy in percent, resize before the crop of 224.
PUBLISHED = {
    ("alexnet", "tv_in1k"): ("alexnet-owt-7be5be79.pth", 56.522, 79.066, 256),
    ("vgg11", "tv_in1k"): ("vgg11-8a719046.pth", 69.020, 88.628, 256),
    ("vgg11_bn", "tv_in1k"): ("vgg11_bn-6002323d.pth", 70.370, 89.810, 256),
    ("vgg13", "tv_in1k"): ("vgg13-19584684.pth", 69.928, 89.246, 256),
    ("vgg13_bn", "tv_in1k"): ("vgg13_bn-abd245e5.pth", 71.586, 90.374, 256),
    ("vgg16", "tv_in1k"): ("vgg16-397923af.pth", 71.592, 90.382, 256),
    ("vgg16_bn", "tv_in1k"): ("vgg16_bn-6c64b313.pth", 73.360, 91.516, 256),
    ("vgg19", "tv_in1k"): ("vgg19-dcbb9e9d.pth", 72.376, 90.876, 256),
    ("vgg19_bn", "tv_in1k"): ("vgg19_bn-c79401a0.pth", 74.218, 91.842, 256),
    ("resnet18", "tv_in1k"): ("resnet18-f37072fd.pth", 69.758, 89.078, 256),
    ("resnet34", "tv_in1k"): ("resnet34-b627a593.pth", 73.314, 91.420, 256),
    ("resnet50", "tv_in1k"): ("resnet50-0676ba61.pth", 76.130, 92.862, 256),
    ("resnet50", "tv2_in1k"): ("resnet50-11ad3fa6.pth", 80.858, 95.434, 232),
    ("resnet101", "tv_in1k"): ("resnet101-63fe2227.pth", 77.374, 93.546, 256),
    ("resnet101", "tv2_in1k"): ("resnet101-cd907fc2.pth", 81.886, 95.780, 232),
    ("resnet152", "tv_in1k"): ("resnet152-394f9c45.pth", 78.312, 94.046, 256),
    ("resnet152", "tv2_in1k"): ("resnet152-f82ba261.pth", 82.284, 96.002, 232),
}


@pytest.fixture(scope="module")
def resnet20():
    torch.manual_seed(0)
    net = cnnzoo.create("resnet20").eval()
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return net


@pytest.fixture
def file(resnet20, tmp_path):
    torch.save(resnet20.state_dict(), tmp_path / "resnet20.pth")
    return tmp_path / "resnet20.pth"


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def same_weights(net, other):
    state = other.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())


# --- files


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".tar"])
def test_torch_file_loads(resnet20, tmp_path, images, suffix):
    torch.save(resnet20.state_dict(), tmp_path / f"weights{suffix}")
    net = cnnzoo.create("resnet20", pretrained=tmp_path / f"weights{suffix}").eval()
    assert torch.equal(net(images), resnet20(images))


def test_safetensors_file_loads(resnet20, tmp_path, images):
    save_file(resnet20.state_dict(), tmp_path / "weights.safetensors")
    net = cnnzoo.create("resnet20", pretrained=tmp_path / "weights.safetensors").eval()
    assert torch.equal(net(images), resnet20(images))


def test_path_may_be_text(resnet20, file):
    assert same_weights(cnnzoo.create("resnet20", str(file)), resnet20)


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module.", "model."),
        *("model.backbone.", "net.", "module.student.net."),
    ],
)
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_ema", "generator"])
def test_wrappers_and_prefixes_are_taken_off(resnet20, tmp_path, wrapper, prefix):
    state = {prefix + name: tensor for name, tensor in resnet20.state_dict().items()}
    torch.save({wrapper: state, "epoch": 90} if wrapper else state, tmp_path / "weights.pth")
    assert same_weights(cnnzoo.create("resnet20", tmp_path / "weights.pth"), resnet20)


def test_of_several_state_dicts_under_strange_names_none_is_guessed(resnet20, tmp_path):
    optimizer = torch.optim.SGD(resnet20.parameters(), lr=0.1).state_dict()
    content = {"student": resnet20.state_dict(), "optimizer": optimizer, "epoch": 3}
    torch.save(content, tmp_path / "one.pth")
    assert same_weights(cnnzoo.create("resnet20", tmp_path / "one.pth"), resnet20)
    torch.save({**content, "teacher": cnnzoo.create("resnet20").state_dict()}, tmp_path / "two.pth")
    with pytest.raises(cnnzoo.InputError, match=r"two\.pth holds no state dict, or several that may be meant"):
        cnnzoo.create("resnet20", tmp_path / "two.pth")


@pytest.mark.parametrize("net_is", ["model.", "net.", "lit.wrapped.net._orig_mod."])
def test_what_lies_beside_the_net_as_lightning_s_loss_does_is_not_used(resnet20, tmp_path, net_is):
    own = {net_is + name: tensor for name, tensor in resnet20.state_dict().items()}
    torch.save({"state_dict": {"criterion.weight": torch.ones(10), **own}}, tmp_path / "weights.pth")
    net = cnnzoo.create("resnet20", tmp_path / "weights.pth")
    assert same_weights(net, resnet20)
    assert net.load_report.unused == ("criterion.weight",)
    assert str(net.load_report).endswith("criterion of the file not used")


def test_a_head_beside_the_net_is_taken_and_of_two_nets_none(resnet20, tmp_path):
    state = resnet20.state_dict()
    apart = {name if name.startswith("fc.") else f"backbone.{name}": tensor for name, tensor in state.items()}
    torch.save(apart, tmp_path / "weights.pth")
    assert same_weights(cnnzoo.create("resnet20", tmp_path / "weights.pth"), resnet20)
    torch.save({f"{net}.{name}": t for net in ("query", "key") for name, t in state.items()}, tmp_path / "two.pth")
    with pytest.raises(cnnzoo.InputError, match=r"two\.pth does not hold weights of resnet20"):
        cnnzoo.create("resnet20", tmp_path / "two.pth")


def test_averaged_weights_are_taken_before_plain_ones(resnet20, tmp_path):
    averaged = {f"module.{name}": tensor for name, tensor in resnet20.state_dict().items()}
    content = {
        "state_dict": cnnzoo.create("resnet20").state_dict(),
        "model_ema": {"n_averaged": torch.tensor(7), **averaged},
    }
    torch.save(content, tmp_path / "weights.pth")
    assert same_weights(cnnzoo.create("resnet20", tmp_path / "weights.pth"), resnet20)


def test_half_precision_is_made_single(resnet20, tmp_path):
    half = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in resnet20.state_dict().items()
    }
    torch.save(half, tmp_path / "half.pth")
    net = cnnzoo.create("resnet20", tmp_path / "half.pth")
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert torch.equal(net.fc.weight, half["fc.weight"].float())


@pytest.mark.parametrize("head", ["last_linear", "classifier", "head.fc"])
def test_a_head_of_another_name_is_found(resnet20, tmp_path, head):
    state = {name.replace("fc.", f"{head}."): tensor for name, tensor in resnet20.state_dict().items()}
    torch.save(state, tmp_path / "weights.pth")
    net = cnnzoo.create("resnet20", tmp_path / "weights.pth")
    assert same_weights(net, resnet20)
    assert net.load_report.renamed == ((f"{head}.weight", "fc.weight"), (f"{head}.bias", "fc.bias"))
    report = cnnzoo.create("resnet20", tmp_path / "weights.pth", in_chans=1).load_report
    assert str(report).startswith(f"{len(report.loaded)} tensors loaded, 2 renamed, conv1.weight adapted")


@pytest.mark.parametrize(
    "beside", [Namespace(lr=0.1, model="resnet20", opt=None), np.float64(91.7), np.int64(90)], ids=str
)
def test_options_and_numbers_beside_the_weights_are_read(resnet20, tmp_path, beside):
    """As timm's train.py and torchvision's reference scripts save them."""
    torch.save({"state_dict": resnet20.state_dict(), "epoch": 90, "args": beside}, tmp_path / "weights.pth")
    assert same_weights(cnnzoo.create("resnet20", tmp_path / "weights.pth"), resnet20)
    with pytest.raises(pickle.UnpicklingError):  # as before, where nobody but the zoo reads
        torch.load(tmp_path / "weights.pth", weights_only=True)


@pytest.mark.parametrize("core", [b"core", b"_core"])
def test_numbers_of_numpy_1_and_2_are_read(resnet20, tmp_path, core):
    torch.save({"model": resnet20.state_dict(), "best": np.float64(91.7)}, tmp_path / "own.pth")
    with zipfile.ZipFile(tmp_path / "own.pth") as own, zipfile.ZipFile(tmp_path / "weights.pth", "w") as other:
        for part in own.infolist():
            other.writestr(part, re.sub(rb"numpy\._?core", b"numpy." + core, own.read(part)))
    assert same_weights(cnnzoo.create("resnet20", tmp_path / "weights.pth"), resnet20)


@pytest.mark.parametrize(
    "average", [{}, {"decay": 0.99, "shadow_params": [torch.zeros(1)]}, {"state_dict": {}}, None], ids=str
)
@pytest.mark.parametrize("wrapper", ["ema", "model_ema"])
def test_an_average_that_is_no_state_dict_is_passed_over(resnet20, tmp_path, wrapper, average):
    torch.save({"model": resnet20.state_dict(), wrapper: average}, tmp_path / "weights.pth")
    assert same_weights(cnnzoo.create("resnet20", tmp_path / "weights.pth"), resnet20)


@pytest.mark.parametrize("head", ["fc.1", "classifier.1"])
def test_a_head_behind_dropout_is_found(resnet20, tmp_path, head):
    state = {name.replace("fc.", f"{head}."): tensor for name, tensor in resnet20.state_dict().items()}
    state |= {f"{head}.weight": torch.randn(5, 64), f"{head}.bias": torch.randn(5)}
    torch.save(state, tmp_path / "weights.pth")
    net = cnnzoo.create("resnet20", tmp_path / "weights.pth")
    assert torch.equal(net.fc.weight, state[f"{head}.weight"])
    assert net.load_report.renamed == ((f"{head}.weight", "fc.weight"), (f"{head}.bias", "fc.bias"))


def test_of_a_head_of_several_layers_none_is_taken(resnet20, tmp_path):
    state = {name: t for name, t in resnet20.state_dict().items() if not name.startswith("fc.")}
    state |= {"fc.0.weight": torch.randn(64, 64), "fc.2.weight": torch.randn(10, 64)}
    torch.save(state, tmp_path / "weights.pth")
    assert cnnzoo.create("resnet20", tmp_path / "weights.pth").load_report.initialised == ("fc.weight", "fc.bias")


def test_a_backbone_alone_leaves_a_new_head_and_says_so(resnet20, tmp_path):
    state = {f"backbone.{name}": t for name, t in resnet20.state_dict().items() if not name.startswith("fc.")}
    torch.save(state, tmp_path / "backbone.pth")
    assert (
        str(cnnzoo.create("resnet20", tmp_path / "backbone.pth").load_report) == "114 tensors loaded, fc left at random"
    )


def test_the_weights_classes_and_channels_are_the_nets_where_nothing_else_is_asked(tmp_path):
    torch.save(cnnzoo.create("resnet20", num_classes=4, in_chans=1).state_dict(), tmp_path / "mine.pth")
    net = cnnzoo.create("resnet20", tmp_path / "mine.pth")
    assert (net.num_classes, net.in_chans) == (4, 1)
    assert (net.load_report.initialised, net.load_report.adapted) == ((), ())


def test_file_from_before_num_batches_tracked_loads(resnet20, tmp_path):
    state = {name: t for name, t in resnet20.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    assert same_weights(cnnzoo.create("resnet20", tmp_path / "old.pth"), resnet20)


def test_torchvision_file_loads(tmp_path):
    theirs = torchvision.models.resnet18()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    assert same_weights(cnnzoo.create("resnet18", tmp_path / "theirs.pth"), theirs)


def test_report_counts_what_was_loaded(file):
    report = cnnzoo.create("resnet20", file).load_report
    assert (len(report.loaded), report.adapted, report.initialised) == (116, (), ())
    assert str(report) == "116 tensors loaded"


def test_blue_comes_first_in_some_files_and_of_what_a_file_lacks_nothing_is_taken():
    net, theirs = cnnzoo.create("resnet20"), cnnzoo.create("resnet20").state_dict()
    first, head = f"{net.entry.first_conv}.weight", f"{net.entry.head}."
    file = {name: (name, value * float("nan") if name.startswith(head) else value) for name, value in theirs.items()}
    report = load_into(net, net.entry, file, "file", bgr=True, lacks=net.entry.head)
    own = net.state_dict()
    assert torch.equal(own[first], theirs[first][:, [2, 1, 0]])
    assert all(torch.equal(own[n], t) for n, t in theirs.items() if n != first and not n.startswith(head))
    assert report.initialised == tuple(name for name in own if name.startswith(head))
    assert all(own[name].isfinite().all() for name in report.initialised)


def test_a_net_knows_its_classes_though_the_file_lacks_its_auxiliary_heads(tmp_path):
    """As Caffe's GoogLeNet does."""
    net = cnnzoo.create("googlenet_2014", num_classes=2)
    state = {name: value for name, value in net.state_dict().items() if not name.startswith("aux")}
    card = {"name": "googlenet_2014", "num_classes": 2, "in_chans": 3, "classes": ["ant", "bee"]}
    run = Run(tmp_path)
    run.save_model(state, card)
    again = cnnzoo.create("googlenet_2014", run.model_file)
    assert again.load_report.initialised
    assert again.classes == ("ant", "bee")
    assert not hasattr(cnnzoo.create("googlenet_2014", run.model_file, num_classes=3), "classes")


def test_features_only_carries_the_weights(resnet20, file, images):
    maps = cnnzoo.create("resnet20", file, features_only=True, out_indices=(-1,)).eval()(images)
    assert torch.equal(maps[0], resnet20.forward_features(images))


# --- another head, other channels


def test_other_classes_leave_a_new_head_and_say_so(resnet20, file, images):
    net = cnnzoo.create("resnet20", file, num_classes=7).eval()
    assert net(images).shape == (2, 7)
    assert torch.equal(net.forward_features(images), resnet20.forward_features(images))
    assert net.load_report.initialised == ("fc.weight", "fc.bias")
    assert str(net.load_report) == "114 tensors loaded, fc left at random"


def test_without_a_head_the_files_head_is_not_used(resnet20, file, images):
    net = cnnzoo.create("resnet20", file, num_classes=0).eval()
    assert torch.equal(net(images), resnet20.forward_head(resnet20.forward_features(images), pre_logits=True))
    assert str(net.load_report) == "114 tensors loaded, fc of the file not used"


def test_colour_weights_see_a_grey_image_alike(resnet20, file, images):
    net = cnnzoo.create("resnet20", file, in_chans=1).eval()
    grey = images[:, :1]
    torch.testing.assert_close(net(grey), resnet20(grey.expand(-1, 3, -1, -1)), atol=1e-4, rtol=0)
    assert net.load_report.adapted == ("conv1.weight",)
    assert str(net.load_report) == "115 tensors loaded, conv1.weight adapted to the number of channels"


@pytest.mark.parametrize("in_chans", [3, 4, 5])
def test_grey_weights_see_a_grey_image_in_many_channels_alike(tmp_path, in_chans):
    grey_net = cnnzoo.create("lenet5").eval()
    torch.save(grey_net.state_dict(), tmp_path / "lenet5.pth")
    net = cnnzoo.create("lenet5", tmp_path / "lenet5.pth", in_chans=in_chans).eval()
    grey = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(net(grey.expand(-1, in_chans, -1, -1)), grey_net(grey), atol=1e-4, rtol=0)


def test_channels_beyond_three_repeat_the_first(resnet20, file):
    kernel = cnnzoo.create("resnet20", file, in_chans=4).conv1.weight
    torch.testing.assert_close(kernel, resnet20.conv1.weight[:, [0, 1, 2, 0]] * 3 / 4)


# --- files that do not fit


def test_weights_of_another_net_show_both_sides(file):
    with pytest.raises(cnnzoo.InputError) as refusal:
        cnnzoo.create("resnet18", file)
    assert f"{file} does not hold weights of resnet18 (- wanted, + in the file)" in str(refusal.value)
    assert "- bn1.bias (64,)" in str(refusal.value)
    assert "+ bn1.bias (16,)" in str(refusal.value)


def test_missing_tensors_are_named_and_counted(file):
    with pytest.raises(cnnzoo.InputError, match=r": - layer1\.3\.bn1\.bias \(16,\), .* and \d+ more$"):
        cnnzoo.create("resnet32", file)


def test_superfluous_tensor_is_refused_by_name(resnet20, tmp_path):
    torch.save({**resnet20.state_dict(), "extra.weight": torch.zeros(2)}, tmp_path / "more.pth")
    with pytest.raises(cnnzoo.InputError, match=r"\+ extra\.weight \(2,\)"):
        cnnzoo.create("resnet20", tmp_path / "more.pth")


@pytest.mark.parametrize("content", [torch.zeros(3), {}, {"epoch": 3}, {"state_dict": {}}, [torch.zeros(3)]])
def test_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "strange.pth")
    with pytest.raises(cnnzoo.InputError, match=r"strange\.pth holds no state dict"):
        cnnzoo.create("resnet20", tmp_path / "strange.pth")


class Bomb:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
def test_file_that_would_run_code_is_refused_and_does_not(tmp_path, save):
    save({"state_dict": Bomb(tmp_path / "code_ran")}, tmp_path / "bomb.pth")
    with pytest.raises(cnnzoo.InputError, match=r"bomb\.pth would run code when loaded \(posix\.mkdir\)"):
        cnnzoo.create("resnet20", tmp_path / "bomb.pth")
    assert not (tmp_path / "code_ran").exists()


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_file_of_torchscript_is_not_taken_for_a_damaged_one(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "scripted.pt"))
    with pytest.raises(cnnzoo.InputError, match=r"scripted\.pt is a net of TorchScript's, .* save its state_dict"):
        cnnzoo.create("resnet20", tmp_path / "scripted.pt")


def test_a_runs_own_arguments_come_with_its_weights(tmp_path):
    net = cnnzoo.create("lenet5")
    Run(tmp_path).save_model(net.state_dict(), {"name": "lenet5", "args": {"global_pool": "max"}})
    file = Run(tmp_path).model_file
    assert cnnzoo.create("lenet5", file).avgpool.kind == "max"
    assert cnnzoo.create("lenet5", file, global_pool="avg").avgpool.kind == "avg"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 0.01, 0.5, 0.99])
def test_cut_file_is_refused(resnet20, tmp_path, suffix, kept):
    path = tmp_path / f"cut{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(resnet20.state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(cnnzoo.InputError, match=f"{path} is damaged or cut short"):
        cnnzoo.create("resnet20", path)


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(cnnzoo.InputError, match="is no run folder"):
        cnnzoo.create("resnet20", tmp_path)


# --- the table


def test_unknown_tag_lists_the_tags():
    with pytest.raises(cnnzoo.InputError, match=r"no weights 'timm'.*its tags are a1h_in1k, tv2_in1k, .*tv_in1k"):
        cnnzoo.create("resnet101", "timm")


def test_torchvisions_name_of_weights_is_answered_by_their_tag():
    with pytest.raises(cnnzoo.InputError, match=r"resnet50 has no weights 'IMAGENET1K_V2'.*; here it is tv2_in1k"):
        cnnzoo.create("resnet50", pretrained="IMAGENET1K_V2")
    with pytest.raises(cnnzoo.InputError, match=r"its tags are .*tv_in1k"):
        cnnzoo.create("resnet18", pretrained="IMAGENET1K_V2")


@pytest.mark.parametrize("word", ["DEFAULT", "imagenet"])  # torchvision's, Keras's
def test_another_librarys_word_for_its_best_weights_is_answered_by_true(word):
    with pytest.raises(cnnzoo.InputError, match=f"no weights '{word}'.*; True takes the best known; its tags are"):
        cnnzoo.create("vgg11", pretrained=word)
    with pytest.raises(cnnzoo.InputError, match=f"no weights '{word}'.*run folder; the weights table has none for it"):
        cnnzoo.create("lenet5", pretrained=word)


def test_net_without_published_weights_says_so():
    with pytest.raises(cnnzoo.InputError, match="the weights table has none for plain20"):
        cnnzoo.create("plain20", pretrained=True)


@pytest.mark.parametrize(("model", "tag"), PUBLISHED)
def test_rows_are_as_published(model, tag):
    (row,) = [row for row in cnnzoo.list_weights(model) if row.tag == tag]
    assert (row.file, row.top1, row.top5, row.preprocess["resize"]) == PUBLISHED[model, tag]
    assert (row.model, row.size, row.preprocess["size"], len(row.classes)) == (model, 224, 224, 1000)
    assert row.preprocess["mean"] == (0.485, 0.456, 0.406)
    assert row.preprocess["std"] == (0.229, 0.224, 0.225)


def test_rows_of_a_net_are_the_most_accurate_first_and_the_free_ones_before_the_others():
    rows = cnnzoo.list_weights("resnet50")
    assert rows[0].tag == "tv2_in1k"
    assert [row.free for row in rows] == sorted((row.free for row in rows), reverse=True)
    for free in (True, False):
        figures = [row.top1 for row in rows if row.free is free and row.top1]
        assert figures == sorted(figures, reverse=True)


# From timm's configs and its table of results: licence, size, resize before the crop, interpolation, top-1 and top-5.
FROM_TIMM = {
    ("inception_v4", "tf_in1k"): ("apache-2.0", 299, 341, "bicubic", 80.144, 94.982),
    ("inception_resnet_v2", "tf_in1k"): ("apache-2.0", 299, 333, "bicubic", 80.434, 95.312),
    ("xception", "tf_in1k"): ("apache-2.0", 299, 333, "bicubic", 79.058, 94.396),
    ("resnetv2_50", "a1h_in1k"): ("apache-2.0", 224, 235, "bicubic", 80.410, 95.082),
    ("resnet18", "fb_swsl_ig1b_ft_in1k"): ("cc-by-nc-4.0", 224, 256, "bilinear", 73.286, 91.754),
    ("densenet121", "ra_in1k"): ("apache-2.0", 224, 256, "bicubic", 75.574, 92.648),
}


@pytest.mark.parametrize(("model", "tag"), FROM_TIMM)
def test_rows_of_timm_are_as_published(model, tag):
    (row,) = cnnzoo.list_weights(f"{model}.{tag}")
    told = (row.licence, row.size, row.preprocess["resize"], row.preprocess["interpolation"], row.top1, row.top5)
    assert told == FROM_TIMM[model, tag]
    assert row.hub == (None if model == "xception" else f"timm/{model}.{tag}")


def test_the_table_says_what_torchvision_and_timm_say():
    """Of all that it has and they know; newer versions of theirs may know more."""
    known = cnnzoo.list_weights()
    accuracies = published.known_accuracies(known)
    theirs = {(row.model, row.tag): row for name in cnnzoo.list_models() for row in published.rows(name, accuracies)}
    both = [row for row in known if (row.model, row.tag) in theirs]
    assert len(both) > 80
    assert [row for row in both if theirs[row.model, row.tag] != row] == []


def test_the_table_is_written_as_it_is_read():
    assert published.as_csv(cnnzoo.list_weights()) == (table.HERE / "table.csv").read_text(encoding="utf-8")


def test_weights_carried_over_from_tensorflow_want_images_between_minus_1_and_1():
    for name in ("googlenet", "inception_v3"):
        (row,) = cnnzoo.list_weights(f"{name}.tv_in1k")
        assert (row.preprocess["mean"], row.preprocess["std"]) == ((0.5,) * 3, (0.5,) * 3)


def test_weights_for_non_commercial_use_are_taken_by_their_tag_only(monkeypatch):
    assert table.row("resnet18").tag == "a1_in1k"
    assert table.row("resnet18", "fb_swsl_ig1b_ft_in1k").top1 > table.row("resnet18").top1


def test_an_excluded_licence_is_refused_and_never_the_best(hub, monkeypatch):
    monkeypatch.setenv("CNNZOO_EXCLUDE_LICENCES", "cc-by-nc*, apache-2.0")
    with pytest.raises(cnnzoo.InputError, match=r"fb_swsl_ig1b_ft_in1k is under cc-by-nc-4\.0, which .* excludes"):
        cnnzoo.create("resnet18", "fb_swsl_ig1b_ft_in1k")
    assert table.row("resnet18").tag == "tv_in1k"
    monkeypatch.setenv("CNNZOO_EXCLUDE_LICENCES", "*")
    with pytest.raises(cnnzoo.InputError, match=r"only weights whose licence is excluded .*tv_in1k: bsd-3-clause"):
        cnnzoo.create("resnet18", True)


def test_a_known_file_of_an_excluded_licence_is_refused(hub, monkeypatch):
    monkeypatch.setenv("CNNZOO_EXCLUDE_LICENCES", "bsd-2*")
    (row,) = cnnzoo.list_weights("resnet44")
    content = b"any"
    row = replace(row, sha256=hashlib.sha256(content).hexdigest(), mib=len(content) / 2**20)
    monkeypatch.setattr(table, "rows", lambda model: (row,))
    (hub / "renamed.th").write_bytes(content)
    with pytest.raises(cnnzoo.InputError, match="resnet44 akamaster_cifar10 is under bsd-2-clause"):
        cnnzoo.create("resnet44", hub / "renamed.th")


def test_list_weights_takes_wildcards():
    assert {row.model for row in cnnzoo.list_weights("vgg*_bn")} == {"vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"}
    assert cnnzoo.list_weights("plain*") == []


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch hub's cache, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("CNNZOO_OFFLINE", "1")
    monkeypatch.delenv("CNNZOO_WEIGHTS", raising=False)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("pretrained", "file"), [(True, "resnet18_a1_0-d63eafa0.pth"), ("tv_in1k", "resnet18-f37072fd.pth")]
)
def test_published_weights_bring_classes_and_preprocessing(hub, pretrained, file):
    theirs = torchvision.models.resnet18()
    torch.save(theirs.state_dict(), hub / file)
    net = cnnzoo.create("resnet18", pretrained)
    assert same_weights(net, theirs)
    assert net.classes[:2] == ("tench", "goldfish")
    assert (net.preprocessing.resize, net.preprocessing.size) == (256 if file.startswith("resnet18-") else 235, 224)


@pytest.mark.parametrize(
    "place",
    [
        "inception_v4.tf_in1k.safetensors",
        "models--timm--inception_v4.tf_in1k/snapshots/0123456789/model.safetensors",
        "inception_v4.tf_in1k/model.safetensors",
    ],
)
def test_a_file_of_the_hub_brings_its_own_preprocessing_and_classes(tmp_path, place):
    """Its hash is in no table; as any other net's it would see images normalised in another way, and say nothing."""
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    save_file(cnnzoo.create("inception_v4").state_dict(), tmp_path / place)
    net = cnnzoo.create("inception_v4", tmp_path / place)
    seen = net.preprocessing
    assert (seen.resize, seen.size, seen.mean, seen.interpolation) == (341, 299, (0.5,) * 3, "bicubic")
    assert net.classes[:2] == ("tench", "goldfish")


def test_a_file_whose_size_is_not_in_the_table_is_known_under_another_name(hub, monkeypatch):
    torch.save(torchvision.models.resnet18().state_dict(), hub / "renamed.pth")
    row = table.row("resnet18", "a1_in1k")
    assert row.mib is None
    row = replace(row, sha256=hashlib.sha256((hub / "renamed.pth").read_bytes()).hexdigest())
    monkeypatch.setattr(table, "rows", lambda model: (row,))
    seen = cnnzoo.create("resnet18", hub / "renamed.pth").preprocessing
    assert (seen.resize, seen.interpolation) == (235, "bicubic")


def test_net_and_tag_in_one_name_are_the_net_with_these_weights(hub, tmp_path):
    theirs, name = torchvision.models.resnet18(), "resnet18.tv_in1k"
    torch.save(theirs.state_dict(), hub / "resnet18-f37072fd.pth")
    assert same_weights(cnnzoo.create(name, pretrained=True), theirs)
    assert same_weights(cnnzoo.create(name, "tv_in1k"), theirs)
    assert cnnzoo.preprocessing(name) == cnnzoo.create("resnet18", "tv_in1k").preprocessing
    photo = Image.new("RGB", (32, 32), "red")
    said = [cnnzoo.predict(net, photo, pretrained=tag) for net, tag in ((name, True), ("resnet18", "tv_in1k"))]
    assert np.array_equal(*(each.probabilities for each in said))
    read = config.read({"model": {"name": name, "pretrained": True}}).model
    assert (read.name, read.pretrained) == ("resnet18", "tv_in1k")
    source = photos.folder(tmp_path / "photos")
    run = cnnzoo.probe(source, name, classifier="centroid", overrides={"data.size": 32}, run=tmp_path / "run")
    assert (config.read(run.config_file).model.pretrained, run.card["name"]) == ("tv_in1k", "resnet18")
    for call in (cnnzoo.create, lambda name: cnnzoo.predict(name, photo)):
        with pytest.raises(cnnzoo.InputError, match=r"its weights go with pretrained: resnet18, pretrained tv_in1k$"):
            call(name)
    with pytest.raises(cnnzoo.InputError, match="resnet18 has no weights 'nope'"):
        cnnzoo.preprocessing("resnet18.nope")


def test_new_classes_are_not_called_by_the_old_names(hub):
    torch.save(torchvision.models.resnet18().state_dict(), hub / "resnet18-f37072fd.pth")
    assert not hasattr(cnnzoo.create("resnet18", "tv_in1k", num_classes=7), "classes")


@pytest.mark.parametrize(
    ("pretrained", "file"), [(True, "resnet50-11ad3fa6.pth"), ("tv_in1k", "resnet50-0676ba61.pth")]
)
def test_weights_out_of_reach_say_where_to_put_which_file(hub, pretrained, file):
    with pytest.raises(cnnzoo.InputError) as refusal:
        cnnzoo.create("resnet50", pretrained)
    assert f"https://download.pytorch.org/models/{file}" in str(refusal.value)
    assert f"{file} is not in {hub}" in str(refusal.value)
