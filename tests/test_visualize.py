"""What all ways of looking inside a net stand on: layers by name, a net that stays as it was, pictures, drawings."""

import importlib
import inspect
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import photos
import pytest
import torch
from PIL import Image
from torch import nn
from torch.overrides import TorchFunctionMode
from zoo_cases import SMALL, on_meta

import cnnzoo
from cnnzoo import visualize
from cnnzoo.checkpoint import Run
from cnnzoo.cli.visualize import VISUALIZE
from cnnzoo.data.preprocess import Preprocess
from cnnzoo.errors import InputError
from cnnzoo.visualize import Subject, drawing, layer_of, stages_of, untouched, watching
from cnnzoo.visualize.hooks import paths_of
from cnnzoo.visualize.rules import RELU


def everything(net):
    """All that looking must leave alone, in a form that can be compared."""
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    return {
        "values": {
            name: (id(t), t.data_ptr(), t.dtype, t.detach().float().sum().item()) for name, t in tensors.items()
        },
        "gradients": {name: (t.requires_grad, id(t.grad)) for name, t in tensors.items()},
        "attributes": {name: {**vars(module)} for name, module in net.named_modules()},
        "hooks": {name: list(module._forward_hooks.values()) for name, module in net.named_modules()},
        "modules": {name: id(module) for name, module in net.named_modules()},
    }


# ---- a net that is afterwards as it was


def abuse(net, x):
    """What methods may do to a net."""
    net.train()
    net(x)  # moves BatchNorm's statistics
    net.conv1.register_forward_hook(lambda *_: None)
    net.layer1[0].register_full_backward_hook(lambda *_: None)
    net.layer1[1].relu1 = nn.Tanh()
    net.fc.requires_grad_(True)
    net.note = "visited"
    net(x).sum().backward()
    net.double()


@pytest.mark.parametrize("fails", [False, True])
def test_whatever_is_done_to_a_net_leaves_no_trace(net, x, fails):
    net.fc.weight.grad = torch.ones_like(net.fc.weight)
    net.conv1.requires_grad_(False)
    net.layer3.eval()
    net.conv1.register_forward_hook(theirs := lambda *_: None)
    before, modes = everything(net), [module.training for module in net.modules()]
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with suppress(KeyboardInterrupt), untouched(net) as inside:
        abuse(inside, x)
        if fails:
            raise KeyboardInterrupt
    assert everything(net) == before
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert list(net.conv1._forward_hooks.values()) == [theirs]
    assert (net.fc.weight.grad == 1).all()


def test_within_the_net_is_in_eval_mode_and_asks_for_no_gradients(net):
    with untouched(net) as inside:
        assert not any(module.training for module in inside.modules())
        assert not any(parameter.requires_grad for parameter in inside.parameters())
        assert inside.fc.weight.data_ptr() == net.fc.weight.data_ptr()
        assert all(module.training for module in net.modules())


def test_a_hook_of_the_user_can_be_removed_afterwards(net):
    handle = net.conv1.register_forward_hook(lambda *_: None)
    with untouched(net):
        pass
    handle.remove()
    assert not net.conv1._forward_hooks


def test_threads_may_look_at_one_net_at_once(net):
    images = [np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8) for seed in range(3)]
    expected = [visualize.gradcam(net, [image]).maps for image in images]
    before = everything(net)
    with ThreadPoolExecutor(len(images)) as pool:
        found = list(pool.map(lambda place: visualize.gradcam(net, [images[place % 3]]).maps, range(12)))
    assert everything(net) == before
    for place, maps in enumerate(found):
        assert np.allclose(maps, expected[place % 3], atol=1e-5)


def test_a_weight_that_is_part_of_a_graph_is_no_obstacle():
    net = nn.Sequential(nn.Linear(4, 4))
    net[0].shadow = net[0].weight * 2  # as reparametrisations leave it
    with untouched(net) as still:
        assert torch.equal(still[0].shadow, net[0].shadow)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_any_type_compute_in_float32_and_stay_what_they_are(net, x, dtype):
    expected = net.to(dtype).float().eval()(x)
    net.to(dtype)
    before = everything(net)
    with untouched(net) as still:
        assert torch.equal(still(x), expected)
    assert everything(net) == before


def test_within_the_net_computes_in_float32_where_autocast_is_on(net, x):
    with torch.autocast("cpu"), untouched(net) as twin:
        assert twin(x).dtype == torch.float32


def test_shared_parameters_stay_shared():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    with untouched(net) as still:
        assert still[1].weight is still[0].weight
    assert net[1].weight is net[0].weight


def test_gradients_are_taken_in_inference_mode_too(net):
    image = np.zeros((32, 32, 3), np.uint8)
    expected = visualize.gradcam(net, [image]).maps
    with torch.inference_mode():
        assert np.array_equal(visualize.gradcam(net, [image]).maps, expected)
        made = cnnzoo.create("resnet20", num_classes=3)
        made.load_state_dict(net.state_dict())
    assert np.array_equal(visualize.gradcam(made, [image]).maps, expected)


# ---- layers by name


def test_outputs_are_watched_with_their_graph_though_nothing_asks_for_gradients(net, x):
    with untouched(net) as net, watching(net, ["stage1", "layer3.2", "head"]) as seen:
        logits = net(x)
        assert torch.equal(seen["head"], logits)
        assert seen["stage1"].shape == (2, 16, 32, 32)
        assert seen["layer3.2"].shape == (2, 64, 8, 8)
        slopes = torch.autograd.grad(logits[:, 0].sum(), [seen["stage1"], seen["layer3.2"]])
    assert all(slope.isfinite().all() and slope.abs().sum() > 0 for slope in slopes)


def test_a_second_pass_replaces_what_the_first_left(net, x):
    with untouched(net) as net, watching(net, "stage1") as seen, torch.no_grad():
        net(x)
        first = seen["stage1"]
        net(-x)
        assert not torch.equal(first, seen["stage1"])


def test_what_works_in_place_behind_a_layer_leaves_its_output_alone():
    torch.manual_seed(0)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    nets = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=inplace), *head) for inplace in (0, 1)]
    nets[1].load_state_dict(nets[0].state_dict())
    for net in nets:
        net.preprocessing, net.num_classes = cnnzoo.preprocessing("resnet20"), 3
    images = [photos.picture(kind, 0) for kind in range(3)]
    plain, in_place = (visualize.activations(net, images, ["0", "1"]).maps for net in nets)
    assert all(np.array_equal(plain[layer], in_place[layer]) for layer in ("0", "1"))
    assert plain["1"].min() < 0
    plain, in_place = (visualize.gradcam(net, images, layer="0").maps for net in nets)
    assert np.allclose(plain, in_place, atol=1e-6)
    assert plain.any()


def test_no_hook_stays_after_an_error(net):
    with pytest.raises(ValueError, match="mine"), watching(net, ["stage1", "stage2"]):
        raise ValueError("mine")
    assert not any(module._forward_hooks for module in net.modules())


def test_a_layer_that_takes_no_part_is_named():
    net = cnnzoo.create("googlenet", num_classes=5).eval()
    with watching(net, ["aux1.fc2"]) as seen, torch.no_grad():
        net(torch.zeros(1, 3, 32, 32))
        with pytest.raises(InputError, match=r"aux1\.fc2 takes no part"):
            seen["aux1.fc2"]


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("alexnet", "stage5"),
        ("lenet5", "stage2"),
        ("mlp", "stage2"),
        ("resnet20", "stage3"),
        ("fractalnet20", "stage4"),
    ],
)
def test_the_default_is_the_last_stage_with_maps_of_more_than_one_place(name, default):
    assert layer_of(on_meta(name))[0] == default


def test_which_stage_is_the_default_depends_on_the_size_of_the_images():
    """At 224 the last stage of resnet18 gives 7x7 maps, at 32 a single place."""
    net = cnnzoo.create("resnet18", num_classes=3).eval()
    assert layer_of(net).name == layer_of(net, None, torch.zeros(1, 3, 224, 224)).name == "stage4"
    assert layer_of(net, None, torch.zeros(1, 3, 32, 32)).name == "stage3"
    assert layer_of(net, None, torch.zeros(1, 3, 16, 16)).name == "stage2"


def test_all_ways_to_look_take_the_same_layer_where_none_is_named(tmp_path):
    net = cnnzoo.create("resnet18", num_classes=3).eval()
    net.preprocessing = Preprocess(32, 32, (0.5,) * 3, (0.5,) * 3)
    photos.folder(tmp_path / "photos", each=14)
    given, pictures = str(tmp_path / "photos"), [photos.picture(kind, 0) for kind in range(3)]
    found = {
        "gradcam": visualize.gradcam(net, pictures).layer,
        "deconv": visualize.deconv(net, pictures, channels=0, top=1).layer,
        "concepts": visualize.concepts(net, given).layer,
        "maximise": visualize.maximise(net, channels=0, steps=1).layers[0],
        "tcav": visualize.tcav(net, pictures, given, given).layer,
    }
    assert set(found.values()) == {"stage3"}


def test_a_layer_without_a_part_in_the_answer_is_told_in_the_same_words_everywhere():
    net, picture = cnnzoo.create("googlenet", num_classes=3).eval(), photos.picture(0, 0)
    for look in (
        lambda: visualize.activations(net, [picture], "aux1"),
        lambda: visualize.deconv(net, [picture], "aux1"),
        lambda: visualize.maximise(net, "aux1", steps=1),
        lambda: visualize.invert(net, [picture], "aux1", steps=1),
    ):
        with pytest.raises(InputError, match=r"^layer aux1 takes no part in the net's answer; name another$"):
            look()


def test_a_layer_that_gives_no_maps_is_told_in_the_same_words_everywhere():
    net, picture = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.AdaptiveAvgPool1d(1)), photos.picture(0, 0)
    net.preprocessing, net.num_classes = Preprocess(32, 32, (0.5,) * 3, (0.5,) * 3), 4
    for look in (visualize.activations, visualize.deconv):
        with pytest.raises(InputError, match=r"^layer 1 gives \(1, 4, 900\), which are no maps \(B, C, H, W\)$"):
            look(net, [picture], "1")


def test_a_net_from_elsewhere_has_its_last_convolution():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten())
    assert layer_of(net)[0] == "2"
    assert stages_of(net) == []
    with pytest.raises(InputError, match="neither stages nor a convolution"):
        layer_of(nn.Sequential(nn.ReLU()))


def test_a_layer_that_is_not_there_is_refused_with_the_near_names(net):
    with pytest.raises(InputError, match=r"unknown layer 'stage33'; did you mean stage3 or stage2\?"):
        layer_of(net, "stage33")
    with pytest.raises(InputError, match=r"unknown layer 'layer1\.9'; did you mean layer1\."):
        layer_of(net, "layer1.9")
    with pytest.raises(InputError, match="unknown layer ''"):
        layer_of(net, "")


class _Rectifications(TorchFunctionMode):
    """Counts them, whoever asks for one."""

    count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.count += function in RELU
        assert function not in (torch.relu_, torch.Tensor.relu_)
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="module", params=SMALL)
def any_net(request):
    return on_meta(request.param)


def test_the_stages_of_every_net_are_layers(any_net):
    entry = any_net.entry
    assert stages_of(any_net) == [stage.name for stage in entry.stages]
    for stage in entry.stages:
        assert layer_of(any_net, stage.name) == (stage.name, any_net.get_submodule(stage.modules[-1]))
        assert paths_of(any_net, stage.name) == list(stage.modules)
    assert layer_of(any_net, "head")[1] is any_net.get_classifier()
    assert layer_of(any_net, "first_conv")[1] is any_net.get_submodule(entry.first_conv)


def test_every_rectification_of_every_net_is_a_module_and_none_is_in_place(any_net):
    modules = []
    for module in any_net.modules():
        assert not getattr(module, "inplace", False)
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda *_: modules.append(1))
    images = torch.empty(1, *any_net.entry.input_size, device="meta")
    with _Rectifications() as seen:
        any_net(images)
    assert seen.count == len(modules)


# ---- whom one looks inside


def test_a_name_alone_has_random_weights_always_the_same_and_says_so():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one = Subject.open("resnet20")
    assert torch.equal(torch.rand(3), expected)
    assert one.name == "resnet20 with random weights"
    assert one.classes == tuple(map(str, range(10)))
    other = Subject.open("resnet20")
    assert all(map(torch.equal, one.net.parameters(), other.net.parameters()))


def test_a_net_is_taken_as_it_is(net):
    subject = Subject.open(net)
    assert subject.net is net
    assert net.training
    assert subject.name == "resnet20"
    assert subject.classes == photos.KINDS


def test_a_run_is_opened_by_its_folder_its_file_and_itself(net, tmp_path):
    run = Run(tmp_path / "mine")
    card = {"name": "resnet20", "num_classes": 3, "in_chans": 3, "drop_rate": None, "args": {}}
    card |= {"classes": photos.KINDS, "preprocess": cnnzoo.preprocessing(net).to_dict()}
    run.save_model(net.state_dict(), card)
    run.write("config.yaml", "model: {name: resnet20}")
    for given in (run, run.path, str(run.path), run.model_file):
        subject = Subject.open(given)
        assert subject.classes == photos.KINDS
        assert torch.equal(subject.net.fc.weight, net.fc.weight)
    for named in (run, run.path, run.model_file):  # however it is given, pictures are titled by the run
        assert Subject.open(named).name == "mine"


def test_a_net_of_nobody_must_tell_how_it_sees():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match=r"not of the registry: set its \.preprocessing"):
        Subject.open(net)
    net.preprocessing, net.num_classes = cnnzoo.preprocessing("resnet20"), 4
    assert Subject.open(net).classes == ("0", "1", "2", "3")


def test_a_net_that_cannot_be_looked_into_says_why(net):
    with pytest.raises(InputError, match=r"resnet20 is a net's fast form.*take the net itself"):
        Subject.open(cnnzoo.optimize(net.eval()))
    with pytest.raises(InputError, match=r"FeatureMaps gives maps alone.*take the net itself"):
        Subject.open(cnnzoo.create("resnet20", features_only=True))
    with pytest.raises(InputError, match="is on the meta device, where nets have no weights"):
        Subject.open(on_meta("resnet20"))
    with pytest.raises(InputError, match="resnet20 has no classes to ask for, as it was made with num_classes=0"):
        visualize.gradcam(cnnzoo.create("resnet20", num_classes=0), [np.zeros((32, 32, 3), np.uint8)])
    net.preprocessing = lambda image: image
    with pytest.raises(InputError, match=r"\.preprocessing of resnet20 must be a Preprocess, but is function"):
        Subject.open(net)


def test_a_wrong_name_is_refused_with_the_near_ones():
    with pytest.raises(InputError, match="did you mean resnet"):
        Subject.open("resnet21")


def test_pictures_come_as_the_net_sees_them(net, tmp_path):
    folder = photos.folder(tmp_path / "photos", each=2)
    subject = Subject.open(net)
    looked = subject.look(folder)
    assert len(looked) == 2 * len(photos.KINDS)
    files = sorted(folder.rglob("*.*"))
    assert looked.names == tuple(map(str, files))
    assert looked.pixels.shape == (len(files), 32, 32, 3)
    assert looked.pixels.dtype == np.uint8
    expected = torch.stack([cnnzoo.preprocessing(net)(file) for file in files])
    assert torch.equal(looked.x, expected)


def test_the_size_can_be_another(net):
    looked = Subject.open(net).look([np.zeros((70, 90, 3), np.uint8)], size=48)
    assert looked.names == ("image 0",)
    assert looked.x.shape == (1, 3, 48, 48)


def test_a_size_too_small_for_the_net_is_refused():
    with pytest.raises(
        InputError, match="the size is 20, but alexnet with random weights needs images of at least 63x63"
    ):
        Subject(on_meta("alexnet"), "alexnet with random weights", (), cnnzoo.preprocessing("alexnet")).look("x", 20)


def test_a_picture_that_cannot_be_read_is_named(net, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.jpg: it is not an image"):
        Subject.open(net).look(tmp_path / "broken.jpg")
    with pytest.raises(InputError, match="no picture to look at"):
        Subject.open(net).look([])


@pytest.mark.parametrize("what", ["activations", "sparsity", "invert", "saliency", "guided", "gradcam", "occlusion"])
def test_of_many_pictures_those_that_cannot_be_read_are_left_out_and_told(net, tmp_path, what):
    good = [*photos.folder(tmp_path / "photos", each=1, kinds=photos.KINDS[:2]).glob("*/*.png")]
    bad = [tmp_path / "bro\nken.jpg", tmp_path / "empty.jpg", tmp_path / "lost.jpg"]
    bad[0].write_bytes(b"no image")
    bad[1].touch()
    look, told = partial(getattr(visualize, what), net, **({"steps": 1} if what == "invert" else {})), []
    seen = look([bad[0], good[0], *bad[1:], good[1]], tell=told.append)
    if what == "sparsity":
        assert seen.zeros.shape[1] == 2
    else:
        names = seen.pictures if what in ("activations", "invert") else seen.names
        assert names == tuple(map(str, good))
        assert len(seen.pixels) == 2
    (line,) = told
    assert re.match(
        r"3 images left out that cannot be read; .*bro\\nken\.jpg: it is not an image; .*empty\.jpg: ", line
    )
    assert "lost.jpg: " in line
    with pytest.raises(InputError, match=r"none of 2 images can be read; .*empty\.jpg: .*lost\.jpg: "):
        look(bad[1:], tell=told.append)


def test_a_class_is_given_by_name_or_number_or_is_the_predicted_one(net):
    subject, logits = Subject.open(net), torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert subject.class_index(None, logits).tolist() == [1, 0]
    assert subject.class_index(photos.KINDS[2], logits).tolist() == [2, 2]
    assert subject.class_index(2, logits).tolist() == subject.class_index("2", logits).tolist() == [2, 2]


def test_a_class_that_a_net_does_not_know_is_refused(net):
    subject = Subject.open(net)
    with pytest.raises(InputError, match="class 3 is out of range: resnet20 knows 3, counted from 0"):
        subject.class_number(3)
    with pytest.raises(InputError, match="class -1 is out of range"):
        subject.class_number(-1)
    with pytest.raises(InputError, match=f"did you mean {photos.KINDS[0]}"):
        subject.class_number(photos.KINDS[0] + "x")


def test_names_that_are_numbers_are_names():
    net = cnnzoo.create("resnet20", num_classes=2)
    net.classes = ("7", "1")
    subject = Subject.open(net)
    assert subject.class_number("1") == 1
    assert subject.class_number("7") == 0
    assert subject.class_number("0") == 0


# ---- drawing


def test_grey_is_zero_whatever_the_numbers_are():
    assert np.allclose(drawing.scaled(np.array([[-1.0, 0.0], [0.0, 3.0]])), [[1 / 3, 0.5], [0.5, 1]])
    assert drawing.scaled(np.zeros((2, 2))).tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_a_grid_holds_every_image_in_its_place():
    images = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 6), np.uint8)
    sheet = drawing.grid(images, columns=3, padding=2)
    assert sheet.shape == (2 * (4 + 2) + 2, 3 * (6 + 2) + 2, 3)
    for place in range(5):
        top, left = 2 + place // 3 * 6, 2 + place % 3 * 8
        assert (sheet[top : top + 4, left : left + 6] == place).all()
    assert (sheet[:2] == 255).all()  # the line above
    assert (sheet[8:12, 18:24] == 255).all()  # nothing stands there


def test_labels_stand_above_their_images():
    images = np.zeros((2, 30, 40, 3))
    plain, labelled = drawing.grid(images), drawing.grid(images, labels=["cat", "dog"])
    above = labelled.shape[0] - plain.shape[0]
    strips = labelled[1 : 1 + above, 1:41], labelled[1 : 1 + above, 42:82]
    assert all((strip < 128).any() for strip in strips)
    assert (strips[0] != strips[1]).any()


def test_a_map_is_laid_over_an_image():
    pixels = np.full((8, 8, 3), 100, np.uint8)
    over = drawing.heat(pixels, np.array([[0.0, 0.0], [0.0, 1.0]]))
    assert over.shape == (8, 8, 3)
    assert over[7, 7].sum() > over[0, 0].sum()
    signed = drawing.heat(pixels, np.array([[-1.0, -1.0], [1.0, 1.0]])).astype(int)
    assert signed[0, 0, 2] > signed[0, 0, 0]  # blue
    assert signed[7, 7, 0] > signed[7, 7, 2]  # red
    assert (drawing.heat(pixels, np.zeros((2, 2))) == drawing.heat(pixels, np.zeros((4, 4)))).all()


def test_a_page_has_rows_of_different_lengths():
    image = np.zeros((4, 4, 3), np.uint8)
    figure = drawing.page([[image] * 3, [image]], [["a", "b", "c"], ["d"]])
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles == ["a", "b", "c", "d"]


def test_a_title_is_no_wider_than_its_image():
    image = np.zeros((4, 4, 3), np.uint8)
    title = "American Staffordshire terrier, Staffordshire terrier, American pit bull terrier: 66.5%\nshort"
    figure = drawing.page([[image, image]], [[title, "W" * 99]], side=2)
    long, short = figure.axes[0].get_title().split("\n")
    assert re.fullmatch(r"American Staff\w*….*terrier: 66\.5%", long)
    assert short == "short"
    figure.draw_without_rendering()
    for axes in figure.axes:
        box = axes.title.get_window_extent()
        assert axes.bbox.x0 - 5 < box.x0 < box.x1 < axes.bbox.x1 + 5


# ---- the command line and the gallery


@pytest.fixture
def photo(tmp_path):
    """Where commands run lies a photo."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "photo.png")


def test_the_ways_to_look_are_told(cli, fails):
    code, out, _ = cli("visualize")
    assert code == 0
    for name in ("filters", "activations", "sparsity", "walk"):
        assert re.search(rf"^  {name} +\w", out, re.MULTILINE)
    why = fails("visualize", "filter", "resnet20")
    assert why == "unknown command of cnnzoo visualize 'filter'; did you mean filters?"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["filters", "resnet20"], "16 filters of 3x3 in colour, layer conv1 of resnet20 with random weights: x.png"),
        (
            ["activations", "resnet20", "photo.png", "--layer", "stage1, layer3.0"],
            "the strongest maps of 1 picture, layers stage1 (16x32x32), layer3.0 (64x8x8) of resnet20 with random "
            "weights: x.png",
        ),
    ],
)
@pytest.mark.usefixtures("photo")
def test_one_line_tells_what_was_drawn_and_where(cli, tmp_path, arguments, line):
    assert cli("visualize", *arguments, "--out", "x.png") == (0, f"{line}\n", "")
    with Image.open(tmp_path / "x.png") as image:
        assert len(image.convert("L").getcolors(256)) > 10


@pytest.mark.parametrize("what", ["activations", "sparsity", "saliency", "guided", "gradcam", "occlusion", "deconv"])
@pytest.mark.usefixtures("photo")
def test_a_command_leaves_out_pictures_that_cannot_be_read_as_predict_does(cli, fails, tmp_path, what):
    code, out, err = cli("visualize", what, "resnet20", "none.png", "photo.png", "--out", "x.png")
    assert (code, err) == (0, "1 image left out that cannot be read; none.png: there is no such file\n")
    assert out.endswith("x.png\n")
    assert (tmp_path / "x.png").exists()
    assert fails("visualize", what, "resnet20", "none.png", "--out", "y.png") == "none.png: there is no such file"
    assert not (tmp_path / "y.png").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["filters", "resnet20", "--out", "x.txt"], "the picture is to be x.txt, but its suffix must be one of"),
        (["filters", "resnet20", "--out", "x.pgf"], "the picture is to be x.pgf, but its suffix must be one of"),
        (["filters", "nonet", "--out", "photo.png/x.png"], "photo.png/x.png cannot be written (Not a directory)"),
        (["filters", "resnet20", "--layer", "layer9", "--out", "x.png"], "unknown layer 'layer9'; did you mean layer"),
        (["walk", "resnet20", "none.png", "--out", "x.png"], "none.png: there is no such file"),
        (["walk", "resnet20", "photo.png", "--size", "0", "--out", "x.png"], "the size is 0, but resnet20 with random"),
    ],
)
@pytest.mark.usefixtures("photo")
def test_wrong_input_is_told_in_one_line(fails, tmp_path, arguments, line):
    assert fails("visualize", *arguments).startswith(line)
    assert not list(tmp_path.glob("x.*"))


def test_a_folder_in_the_file_s_place_is_told_before_the_work_and_nothing_is_left(fails, tmp_path):
    (tmp_path / "taken.png").mkdir()
    before = sorted(tmp_path.iterdir())
    why = fails("visualize", "filters", "nonet", "--out", "taken.png")
    assert why == "the picture is to be taken.png, but that is a folder; name a file"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("what", VISUALIZE)
def test_every_way_takes_a_device(what):
    assert inspect.signature(getattr(visualize, what)).parameters["device"].default == "auto"


def test_the_gallery_shows_what_its_commands_draw():
    docs = Path(__file__).parent.parent / "docs"
    text = (docs / "gallery.md").read_text()
    drawn = re.findall(r"^\$ cnnzoo visualize ([\w-]+) .*--out docs/(\S+)", text, re.MULTILINE)
    assert {what for what, _ in drawn} <= set(VISUALIZE)
    assert {file for _, file in drawn} <= set(re.findall(r"\]\((gallery/\S+)\)", text))
    sizes = {f"gallery/{file.name}": file.stat().st_size for file in (docs / "gallery").iterdir()}
    assert set(re.findall(r"\]\((gallery/\S+)\)", text)) == set(sizes)
    assert max(sizes.values()) < 150_000
    assert sum(sizes.values()) < 1_500_000


@pytest.mark.parametrize("what", VISUALIZE)
def test_every_way_is_a_function_also_after_the_module_of_that_name_was_imported(what):
    with suppress(ModuleNotFoundError):
        importlib.import_module(f"cnnzoo.visualize.{what}")
    assert callable(getattr(visualize, what))
    assert not isinstance(getattr(visualize, what), ModuleType)
