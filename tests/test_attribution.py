"""What an answer rests on: saliency, guided backpropagation, Grad-CAM and its kin, occlusion, and the run's report."""

import json
import re
import warnings
from copy import deepcopy

import numpy as np
import photos
import pytest
import torch
from PIL import Image
from scipy.special import roots_legendre
from torch import nn
from zoo_cases import FAMILIES, small

import cnnzoo
from cnnzoo import visualize
from cnnzoo.cli import visualize as commands
from cnnzoo.errors import InputError
from cnnzoo.visualize import cams, gradients, untouched
from cnnzoo.visualize.methods import METHODS, maps_of

FLAT = ("mlp", "highway_fc10")  # without maps
SAID = pytest.mark.parametrize("method", METHODS)


@pytest.fixture
def pictures():
    return [photos.picture(kind, 0) for kind in range(3)]


@pytest.fixture
def target():
    return torch.tensor([0, 2])


def ask(method, net, images, **options):
    """The function that has the method, of small images."""
    options["size"] = 16
    if method in ("guided", "occlusion"):
        return getattr(visualize, method)(net, images, **options)
    return getattr(visualize, METHODS[method].family)(net, images, method=method, **options)


# ---- on every family of nets


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_seen_by_every_method(name):
    net, x = small(name)
    less = {"smoothgrad": {"samples": 1}, "integrated": {"steps": 1}, "occlusion": {"window": x.shape[-1] // 2}}
    with untouched(net) as net:
        target = net(x).argmax(1)
        other = (target + 1) % 5
        by_pixels = [name for name, method in METHODS.items() if method.family != "gradcam"]
        maps = {name: getattr(gradients, name)(net, x, target, **less.get(name, {})) for name in by_pixels}
        assert not torch.allclose(maps["gradient"], gradients.gradient(net, x, other), rtol=1e-3)
        assert not torch.allclose(maps["gradient"], maps["guided"], rtol=1e-3)
        if name not in FLAT:
            layer = cams.map_layer(net, x)
            earlier = next(stage.name for stage in net.entry.stages if stage.name != layer)
            assert visualize.stages_of(net).index(earlier) < visualize.stages_of(net).index(layer)
            by_maps = dict.fromkeys(set(METHODS) - set(by_pixels), layer)
            by_maps["scorecam"] = earlier  # which asks the net once for each channel, of which it has few
            maps |= {method: maps_of(net, x, target, method, where) for method, where in by_maps.items()}
            assert not torch.equal(maps["layercam"], maps_of(net, x, other, "layercam", layer))
            assert not torch.equal(maps["layercam"], maps_of(net, x, target, "layercam", earlier))
    for method, found in maps.items():
        assert found.shape == (1, *x.shape[2:]), method
        assert found.isfinite().all(), method
        assert found.std() > 0, method


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.family in ("saliency", "gradcam")])
def test_a_method_is_named_where_it_is_chosen(name):
    for room in (visualize, commands):
        (told,) = re.findall(r"^ *method: (.*)$", getattr(room, METHODS[name].family).__doc__, re.M)
        assert name in re.split(r"[\s,]+", told.replace(".", ""))


@pytest.mark.parametrize("name", FLAT)
def test_a_net_without_maps_has_no_grad_cam(name):
    net, _ = small(name)
    with pytest.raises(InputError, match=r"no stage of this net has maps \(H, W\).*saliency works"):
        visualize.gradcam(net, [np.zeros((28, 28), np.uint8)])
    assert "gradcam" not in visualize.compare(net, np.zeros((28, 28), np.uint8)).methods


def test_guided_needs_an_activation_that_it_is_defined_for():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(InputError, match="neither ReLU nor tanh"):
        gradients.guided(linear, torch.zeros(1, 3, 2, 2), torch.tensor([0]))


# ---- agreement: with captum, and with the papers' formulas


def close(ours, theirs):
    return torch.allclose(ours, theirs.detach(), atol=1e-4 * theirs.abs().max().item())


def theirs(kind, net, x, target, **options):
    import captum.attr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells that it hooks
        return getattr(captum.attr, kind)(net).attribute(x, target=target, **options)


def test_gradients_agree_with_captum(net, x, target):
    net.eval()
    assert close(gradients.gradient(net, x, target), theirs("Saliency", net, x, target).amax(1))
    assert close(gradients.input_x_gradient(net, x, target), theirs("InputXGradient", net, x, target).sum(1))
    assert close(gradients.guided(net, x, target), theirs("GuidedBackprop", net, x, target).abs().amax(1))


@pytest.mark.parametrize("layer", ["stage2", "layer1.0.conv1"])
def test_grad_cam_agrees_with_captum(net, x, target, layer):
    from captum.attr import LayerGradCam

    net.eval()
    module = visualize.layer_of(net, layer)[1]
    expected = LayerGradCam(net, module).attribute(x, target=target, relu_attributions=True)[:, 0]
    assert close(cams.gradcam(cams.one_pass(net, x, layer, lambda logits: target)), expected)


def test_integrated_gradients_follow_the_formula(net, x, target):
    net.eval()
    total = torch.zeros_like(x)
    for place, weight in zip(*roots_legendre(32), strict=True):
        step = (x * (place + 1) / 2).requires_grad_()
        logits = net(step).gather(1, target[:, None]).sum()
        total += weight / 2 * torch.autograd.grad(logits, step)[0]
    assert close(gradients.integrated(net, x, target, steps=32), (total * x).sum(1))


def test_integrated_gradients_add_up_to_what_the_image_changes():
    torch.manual_seed(0)
    net, x = cnnzoo.create("lenet5").eval(), torch.randn(2, 1, 32, 32)
    target = torch.tensor([3, 7])
    change = (net(x) - net(torch.zeros_like(x))).gather(1, target[:, None])[:, 0]
    assert torch.allclose(gradients.integrated(net, x, target).sum((1, 2)), change, atol=1e-4)


def test_integrated_gradients_add_up_in_nets_of_many_kinks_too(data_root):
    """Of this photo, as small as it is here, 32 steps miss the sum by 8 %."""
    net = cnnzoo.create("googlenet_2014", "bvlc_in1k").eval()
    file = data_root / "imagenet_samples" / "560_n03379051_football_helmet.jpg"
    if not file.exists():
        pytest.skip("needs imagenet_samples in $CNNZOO_DATA")
    x = visualize.Subject.open(net).look([file]).x
    x = nn.functional.interpolate(x, size=(80, 80), mode="bilinear", antialias=True)
    with untouched(net) as net, torch.no_grad():
        logits, empty = net(x), net(torch.zeros_like(x))
        target = logits.argmax(1)
        change = (logits - empty)[0, target].item()
        assert gradients.integrated(net, x, target, steps=32).sum().item() != pytest.approx(change, rel=gradients.GAP)
        assert gradients.integrated(net, x, target).sum().item() == pytest.approx(change, rel=gradients.GAP)


def test_occlusion_is_the_mean_fall_of_the_logit_under_all_covers(net, x, target):
    net.eval()
    falls, covers = torch.zeros(2, 32, 32), torch.zeros(32, 32)
    with torch.no_grad():
        before = net(x).gather(1, target[:, None])
        for top in range(0, 25, 4):
            for left in range(0, 25, 4):
                covered, square = x.clone(), (slice(top, top + 8), slice(left, left + 8))
                covered[(..., *square)] = 0
                falls[(..., *square)] += (before - net(covered).gather(1, target[:, None]))[:, :, None]
                covers[square] += 1
    assert close(gradients.occlusion(net, x, target, window=8), falls / covers)


def test_grad_cam_plus_plus_follows_equation_19(net, x, target):
    with untouched(net) as net:
        seen = cams.one_pass(net, x, "stage3", lambda logits: target)
    maps, g = seen.maps.double(), seen.gradients.double()
    alpha = g**2 / (2 * g**2 + maps.sum((2, 3), keepdim=True) * g**3)
    weights = (alpha.nan_to_num() * g.relu()).sum((2, 3), keepdim=True)
    assert close(cams.gradcam_plus_plus(seen), (weights * maps).sum(1).relu().float())


def test_before_a_mean_and_a_linear_layer_hires_cam_is_grad_cam(net, x, target):
    """There a map's gradient is the same everywhere (Draelos and Carin, section 3)."""
    with untouched(net) as net:
        last = cams.one_pass(net, x, "stage3", lambda logits: target)
        middle = cams.one_pass(net, x, "stage2", lambda logits: target)
    assert close(cams.hirescam(last), cams.gradcam(last))
    assert not close(cams.hirescam(middle), cams.gradcam(middle))
    assert (cams.layercam(middle) >= cams.hirescam(middle) - 1e-6).all()  # past a ReLU


def test_eigen_cam_is_the_first_principal_component_whatever_the_class(net, x, target):
    with untouched(net) as net:
        seen, other = (cams.one_pass(net, x, "stage2", lambda logits, t=t: t) for t in (target, (target + 1) % 3))
    assert torch.equal(cams.eigencam(seen), cams.eigencam(other))
    for maps, found in zip(seen.maps, cams.eigencam(seen), strict=True):
        values, vectors = np.linalg.eigh((maps.flatten(1) @ maps.flatten(1).T).double().numpy())
        component = np.tensordot(vectors[:, values.argmax()], maps.numpy(), 1)
        expected = component * np.sign(component.sum())
        assert np.allclose(found, expected.clip(0), atol=1e-4 * expected.max())


def test_eigen_cam_of_maps_that_are_no_numbers_is_none_like_grad_cam(net, x, target):
    x = torch.stack([x[0], torch.full_like(x[0], torch.nan)])
    with untouched(net) as net:
        seen = cams.one_pass(net, x, "stage2", lambda logits: target[:2])
    for method in (cams.eigencam, cams.gradcam):
        sound, lost = method(seen)
        assert sound.isfinite().all()
        assert lost.isnan().all()


def test_score_cam_weighs_each_map_by_what_the_net_says_of_what_it_shows(net, x, target):
    image, maps = x[:1], []
    with untouched(net) as net, torch.no_grad(), visualize.watching(net, "stage3") as seen:
        net(image)
        maps = seen["stage3"][0]
        scores = []
        for each in maps:
            mask = nn.functional.interpolate(each[None, None], (32, 32), mode="bilinear")
            mask = (mask - mask.min()) / (mask.max() - mask.min())  # of the large map, as in the paper's Algorithm 1
            scores.append(net(image * mask)[0, target[0]])
    expected = (torch.stack(scores).softmax(0)[:, None, None] * maps).sum(0).relu()
    with untouched(net) as net:
        assert close(cams.scorecam(net, image, target[:1], "stage3")[0], expected)


def test_smoothgrad_is_the_mean_over_noise_that_is_always_the_same(net, x, target):
    net.eval()
    state = torch.random.get_rng_state()
    first = gradients.smoothgrad(net, x, target, samples=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(gradients.smoothgrad(net, x, target, samples=3), first)
    assert not close(first, gradients.gradient(net, x, target))
    assert close(gradients.smoothgrad(net, x, target, samples=3, noise=0), gradients.gradient(net, x, target))


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("method", METHODS)
def test_every_map_is_made_in_float32_whatever_is_usual(method):
    net, x = small("resnet20")
    with untouched(net) as net:
        x = x.float()
        assert maps_of(net, x, net(x).argmax(1), method, "stage3").dtype == torch.float32


# ---- whatever the net is like


@SAID
def test_nothing_leaves_a_trace(net, pictures, method):
    net.conv1.requires_grad_(False)
    net.layer1.eval()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    asks = [parameter.requires_grad for parameter in net.parameters()]
    ask(method, net, pictures[:1])
    with pytest.raises(InputError):
        ask(method, net, pictures[:1], class_="purple")
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert [parameter.requires_grad for parameter in net.parameters()] == asks
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in net.modules())


@SAID
def test_an_images_map_does_not_depend_on_the_batch(net, pictures, method):
    together, alone = ask(method, net, pictures[1:]).maps[1], ask(method, net, pictures[2:]).maps[0]
    assert np.linalg.norm(together - alone) < 0.01 * np.linalg.norm(alone)  # rounding may flip a ReLU


@SAID
def test_frozen_and_bf16_nets_work(net, pictures, method):
    half = deepcopy(net).requires_grad_(False).bfloat16()
    expected = ask(method, deepcopy(half).float(), pictures[:1]).maps
    np.testing.assert_array_equal(ask(method, half, pictures[:1]).maps, expected)


def test_it_works_where_no_gradients_are_taken(net, pictures):
    with torch.no_grad():
        maps = visualize.gradcam(net, pictures).maps, visualize.saliency(net, pictures).maps
    np.testing.assert_array_equal(maps[0], visualize.gradcam(net, pictures).maps)
    np.testing.assert_array_equal(maps[1], visualize.saliency(net, pictures).maps)


def test_a_whole_batch_takes_one_pass(net, pictures):
    passes = []
    net.conv1.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    visualize.gradcam(net, pictures * 4)
    assert passes == [12]
    visualize.gradcam(net, pictures * 4, size=128)
    assert passes == [12, 1, 12]  # one image shows which layer has maps in another size than the net is known for


# ---- results


def width(file):
    with Image.open(file) as image:
        return image.width


def test_each_image_is_asked_for_its_own_class_by_default(net, pictures):
    seen = visualize.gradcam(net, pictures)
    predicted = cnnzoo.predict(net, pictures)
    assert list(seen.targets) == list(predicted.probabilities.argmax(1))
    assert seen.classes == tuple(photos.KINDS[target] for target in seen.targets)
    np.testing.assert_allclose(seen.probabilities, predicted.probabilities.max(1), atol=1e-4)
    assert seen.maps.shape == (3, 32, 32)


def test_a_class_is_asked_for_by_name_or_number(net, pictures):
    by_name, by_number = (visualize.saliency(net, pictures, class_=which) for which in ("green", 1))
    assert by_name.classes == ("green",) * 3
    np.testing.assert_array_equal(by_name.maps, by_number.maps)
    assert str(by_name) == "gradient of resnet20 for class green, 3 images"


def test_of_a_head_that_was_replaced_the_class_is_a_number(net, pictures):
    net.fc = torch.nn.Linear(64, 2)
    assert set(visualize.gradcam(net, pictures).classes) <= {"0", "1"}
    with pytest.raises(InputError, match="unknown class"):
        visualize.gradcam(net, pictures, class_=photos.KINDS[0])


def test_the_layer_is_the_last_with_maps_of_this_image(net, pictures):
    assert visualize.gradcam(net, pictures).layer == "stage3"
    big = cnnzoo.create("resnet18", num_classes=3)  # whose last stage has 1x1 maps of 32x32 pixels
    seen = visualize.gradcam(big, pictures[:1], size=32)
    assert seen.layer == "stage3"
    assert str(seen).startswith("Grad-CAM of resnet18 at stage3 for class ")


def test_methods_are_compared_beside_chance(net, pictures, tmp_path):
    told = visualize.compare(net, pictures[0], class_="red", layer="stage2", size=16)
    assert told.methods == tuple(method for method in METHODS if method != "scorecam")
    assert told.layer == "stage2"
    assert told.maps.shape == (len(told.methods), 16, 16)
    rows = told.rows()
    assert rows[-1]["method"] == "random order"
    assert all(0 <= row["deletion"] <= 1 and 0 <= row["insertion"] <= 1 for row in rows)
    assert len(told.to_csv().splitlines()) == len(rows) + 1
    assert told.table().splitlines()[0].split() == ["deletion", "insertion"]
    assert json.loads(json.dumps(told.to_dict()))["class"] == "red"
    told.save(tmp_path / "compared.png")
    assert width(tmp_path / "compared.png") > 500


def test_by_default_only_methods_that_the_net_takes_are_compared(pictures):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    net.preprocessing, net.num_classes = cnnzoo.preprocessing("resnet20"), 3
    assert "guided" not in visualize.compare(net, pictures[0]).methods
    with pytest.raises(InputError, match="neither ReLU nor tanh"):
        visualize.compare(net, pictures[0], methods=["guided", "gradcam"])
    assert visualize.compare(net, pictures[0], methods="gradcam").methods == ("gradcam",)


def test_only_methods_without_a_layer_are_compared_without_one(net, pictures):
    assert visualize.compare(net, pictures[0], methods=["gradient", "guided"]).layer == ""


@pytest.mark.parametrize(
    "line",
    [
        "saliency NET PHOTO --method integrated --class red",
        "guided NET PHOTO",
        "gradcam NET PHOTO --layer stage2 --method layercam",
        "occlusion NET PHOTO --size 16",
        "compare NET PHOTO --methods gradient,gradcam --size 16",
    ],
)
def test_the_command_line_draws_and_says_what(net, pictures, tmp_path, cli, line):
    pictures[2].save(tmp_path / "photo.png")
    words = line.replace("NET", "resnet20").replace("PHOTO", str(tmp_path / "photo.png")).replace("red", "2").split()
    code, said, _ = cli("visualize", *words, "--out", tmp_path / "drawn.png")
    assert code == 0
    assert "resnet20 with random weights" in said
    assert said.endswith(f": {tmp_path / 'drawn.png'}\n")
    assert width(tmp_path / "drawn.png") > 300


# ---- wrong input


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (visualize.gradcam, {"layer": "stage9"}, "unknown layer 'stage9'; did you mean stage"),
        (visualize.gradcam, {"layer": "fc"}, r"layer fc has no maps \(H, W\), but gives \(3,\)"),
        (visualize.gradcam, {"method": "gradcm"}, "unknown method 'gradcm'; did you mean gradcam"),
        (visualize.saliency, {"method": "gradcam"}, "unknown method 'gradcam'"),
        (visualize.saliency, {"class_": "gren"}, "unknown class 'gren'; did you mean green"),
        (visualize.occlusion, {"class_": 3}, "class 3 is out of range"),
        (visualize.guided, {"class_": "-1"}, "class -1 is out of range"),
        (visualize.compare, {"methods": ["grdient"]}, "unknown method 'grdient'; did you mean"),
    ],
)
def test_what_is_not_there_is_told(net, pictures, function, options, message):
    image = pictures[0] if function is visualize.compare else pictures[:1]
    with pytest.raises(InputError, match=message):
        function(net, image, **options)


def test_an_image_smaller_than_the_net_takes_is_told(pictures):
    with pytest.raises(InputError, match="at least 63x63"):
        visualize.saliency(cnnzoo.create("alexnet", num_classes=2), pictures, size=32)


def test_only_one_image_is_compared(net, tmp_path):
    photos.folder(tmp_path / "photos", each=1)
    with pytest.raises(InputError, match=r"one image, but .* holds 3"):
        visualize.compare(net, tmp_path / "photos")


# ---- in the report of a run


@pytest.fixture
def report(tmp_path):
    """Of a run of a net that has learned nothing, so that there are mistakes."""

    def made(model: str, **options) -> str:
        data = {"source": str(photos.folder(tmp_path / "photos")), "val_fraction": 0.5}
        config = {"run": str(tmp_path / "run"), "model": {"name": model, **options}, "data": data}
        return cnnzoo.train({**config, "train": {"epochs": 1}, "optim": {"lr": 1e-9}}).report_file.read_text()

    return made


def test_the_report_shows_what_spoke_for_each_mistake(report):
    page = report("resnet20")
    mistakes = len(re.findall("<figure>", page))
    assert mistakes >= 6
    assert len(re.findall('alt="what speaks for ', page)) == mistakes
    assert "Grad-CAM at stage3" in page


def test_a_net_without_maps_reports_its_mistakes_all_the_same(report):
    page = report("mlp")
    assert len(re.findall("<figure>", page)) >= 6
    assert "what speaks for" not in page
    assert "What the net saw is not shown: no stage of this net has maps" in page


def test_a_report_calls_outputs_beyond_the_classes_what_predictions_call_them(report, tmp_path):
    page = report("lenet5", num_classes=40, in_chans=3)
    told = re.findall(r"<figcaption>\S+: ([^(]+) \(\d+%\), is \w+</figcaption>", page)
    answers = cnnzoo.predict(tmp_path / "run", cnnzoo.Run(tmp_path / "run").split["val"]).named
    assert {*told} - {*photos.KINDS} == {*answers} - {*photos.KINDS} != set()
