"""Pictures made for a net: what excites it most, and what its layers keep of an image."""

import os

import numpy as np
import photos
import pytest
import torch
from PIL import Image
from torch import nn
from zoo_cases import FAMILIES, small

import cnnzoo
from cnnzoo import visualize
from cnnzoo.data.preprocess import Preprocess
from cnnzoo.errors import InputError
from cnnzoo.visualize import drawing, layer_of, untouched
from cnnzoo.visualize.fourier import AT_ONCE, COLOURS, variation
from cnnzoo.visualize.maximise import moved
from cnnzoo.visualize.partway import maps_of


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_pictures_made_for_it(name):
    net, x = small(name)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    first, last = (layer_of(net, which)[0] for which in (net.entry.stages[0].name, None))
    options = {"size": x.shape[2], "steps": 1}
    made = [visualize.maximise(net, layer, [0, 1], **options) for layer in dict.fromkeys((first, last))]
    made.append(visualize.maximise(net, classes=[3], **options))
    pictures = [picture for one in made for picture in one.pixels]
    assert np.isfinite(np.concatenate([one.activations for one in made])).all()
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)  # each layer, channel, class
    assert all(picture.std() > 0 for picture in pictures)
    pixels = np.random.default_rng(0).integers(0, 256, (*x.shape[2:], net.in_chans), dtype=np.uint8)
    kept = visualize.invert(net, [pixels], [last], **options)
    assert np.isfinite(kept.code_errors).all()
    assert kept.made.std() > 0
    assert net.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


@pytest.mark.usefixtures("in_float64")
def test_pictures_are_made_in_float32_whatever_is_usual():
    net, x = small("resnet20")
    pixels = np.zeros((*x.shape[2:], 3), np.uint8)
    assert visualize.maximise(net.float(), classes=[3], size=x.shape[2], steps=1).pixels[0].std() > 0
    assert visualize.invert(net, [pixels], ["stage1"], size=x.shape[2], steps=1).made.std() > 0


# ---- what excites a net


def of_stage(net, layer, pixels):
    """A layer's maps of `(B, H, W, C)` uint8."""
    with untouched(net) as net, torch.no_grad():
        x = torch.stack([net.preprocessing(image) for image in pixels])
        return maps_of(net, layer_of(net, layer), x)


@pytest.fixture
def lenet():
    torch.manual_seed(0)
    net = cnnzoo.create("lenet5").eval()
    net.preprocessing = Preprocess(32, 32, (0.3053,), (0.3760,))
    return net


@pytest.mark.parametrize("unit", [False, True])
def test_a_picture_that_was_made_for_a_channel_excites_it_more_than_any_digit(lenet, unit):
    made = visualize.maximise(lenet, "stage2", unit=unit, steps=40)
    assert [picture.shape for picture in made.pixels] == [(32, 32, 1)] * 6
    assert made.channels.tolist() == [0, 2, 5, 8, 10, 13]
    from sklearn.datasets import load_digits

    digits = np.uint8(load_digits().images[:300] * 15.9)
    digits = [np.asarray(Image.fromarray(digit).resize((32, 32))) for digit in digits]

    def activation(maps):
        maps = maps[:, made.channels]
        return maps[:, :, 2, 2] if unit else maps.mean((2, 3))

    assert np.allclose(activation(of_stage(lenet, "stage2", made.pixels)).diagonal(), made.activations, atol=1e-5)
    assert (made.activations > activation(of_stage(lenet, "stage2", digits)).amax(0).numpy()).all()
    assert (made.activations > made.at_first).all()


def test_without_a_layer_every_stage_has_a_row(lenet, tmp_path):
    made = visualize.maximise(lenet, steps=2)
    assert list(dict.fromkeys(made.layers)) == ["stage1", "stage2", "stage3", "stage4"]
    assert len(made.pixels) == 4 * 6
    assert str(made) == "pictures that excite 24 channels, layer stage1, stage2, stage3, stage4 of lenet5"
    made.save(tmp_path / "page.png")
    assert np.asarray(Image.open(tmp_path / "page.png")).std() > 0


def test_a_picture_is_as_large_as_its_layer_needs():
    net = cnnzoo.create("squeezenet1_1")
    sizes = [visualize.maximise(net, layer, [0], steps=1).pixels[0].shape[0] for layer in visualize.stages_of(net)]
    assert sizes == [32, 2 * 23, 2 * 63, 224]  # of the fields that cnnzoo summary tells: 3, 23, 63 and 207
    assert visualize.maximise(net, "stem", [0], steps=1, size=64).pixels[0].shape == (64, 64, 3)


def test_a_class_is_excited_by_its_name_or_number(net):
    by_name = visualize.maximise(net, classes=["red"], steps=10)
    by_number = visualize.maximise(net, classes=[2], steps=10)
    assert np.array_equal(by_name.pixels, by_number.pixels)
    assert by_name.labels == ("red",)
    with untouched(net) as net, torch.no_grad():
        logits = net(torch.stack([cnnzoo.preprocessing(net)(picture) for picture in by_name.pixels]))
    assert logits[0, 2].item() == pytest.approx(by_name.activations.item(), abs=1e-4)
    assert by_name.activations > by_name.at_first


def test_an_answer_of_a_single_number_is_raised_too():
    result = visualize.maximise(cnnzoo.create("resnet20", num_classes=1), classes=0, steps=20)
    assert result.activations > result.at_first


def test_the_same_seed_gives_the_same_pictures_and_another_gives_others(net):
    first, again, other = (visualize.maximise(net, "stage1", [3], steps=3, seed=seed).pixels for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


class Silent(nn.Module):
    """Its only channel is 0 unless a picture is bright throughout."""

    num_classes = 1
    preprocessing = Preprocess(16, 16, (0.0,), (1.0,))

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 1, 3), nn.ReLU()
        nn.init.constant_(self.conv.weight, 1 / 9)
        nn.init.constant_(self.conv.bias, -0.55)

    def forward(self, x):
        return self.relu(self.conv(x)).mean((2, 3))


def test_a_channel_that_is_silent_at_first_is_brought_to_speak():
    made = visualize.maximise(Silent(), "relu", [0])
    assert made.at_first == 0
    assert made.activations > 0.1


@pytest.fixture
def squeezenet():
    if not os.environ.get("CNNZOO_WEIGHTS"):
        pytest.skip("CNNZOO_WEIGHTS does not say where real weights lie")
    return cnnzoo.create("squeezenet1_1", "caffe_in1k")


def test_of_a_trained_net_it_excites_units_more_than_the_best_of_real_photos(squeezenet, data_root):
    if not (data_root / "imagenet_samples").is_dir():
        pytest.skip("CNNZOO_DATA has no imagenet_samples")
    channels, real = [1, 52, 103], sorted((data_root / "imagenet_samples").glob("*.jpg"))[::10]
    best = visualize.deconv(squeezenet, real, "stage1", channels, top=1).activations[:, 0]
    made = visualize.maximise(squeezenet, "stage1", channels, unit=True)
    assert (made.activations > best).all()


def test_deep_units_that_say_nothing_of_noise_are_brought_to_speak(squeezenet):
    made = visualize.maximise(squeezenet, "stage3", [42, 126, 170], unit=True, size=112, steps=48)
    assert (made.at_first < 20).all()
    assert (made.activations > 500).all()  # the best of 1,000 photos reach 239, 252 and 179


def test_of_a_trained_net_the_first_layer_keeps_a_photo(squeezenet, photo):
    kept = visualize.invert(squeezenet, [photo], ["first_conv", "stage1"], size=64, steps=100)
    assert kept.psnr[0, 0] > 25
    assert kept.errors[1, 0] > kept.errors[0, 0]


def test_a_picture_is_moved_a_little_each_by_its_own_draw():
    random = torch.Generator().manual_seed(0)
    pictures = torch.zeros(64, 1, 64, 64)
    pictures[:, :, 32, 44] = 1.0
    places = moved(pictures, random).flatten(1).argmax(1)
    down, across = places // 64 - 31.5, places % 64 - 31.5
    assert len(places.unique()) > 30
    assert (torch.hypot(down, across) < 12.5 * 1.1 + 4 * 2**0.5 + 1.5).all()
    assert (torch.hypot(down, across) > 12.5 * 0.9 - 4 * 2**0.5 - 1.5).all()
    assert torch.allclose(moved(torch.full((4, 3, 16, 16), 0.3), random), torch.tensor(0.3))


def test_total_variation():
    picture = torch.tensor([[0.0, 3.0, 3.0], [4.0, 3.0, 3.0], [4.0, 3.0, 3.0]])[None, None]
    lengths = [5.0, 0.0, 1.0, 0.0]  # of the steps right and down, in the upper left 2x2 places
    assert variation(picture, 2).item() == pytest.approx(sum(length**2 for length in lengths) / 4)
    assert variation(picture, 1).item() == pytest.approx(sum(lengths) / 4, abs=1e-5)


def test_colours_vary_along_axes_at_right_angles():
    axes = torch.tensor(COLOURS)
    assert axes.norm(dim=0)[0].item() == pytest.approx(1, abs=2e-3)
    products = axes.T @ axes
    assert (products - products.diag().diag()).abs().max() < 2e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "stage9"}, r"unknown layer 'stage9'; did you mean stage"),
        ({"layer": "stage1", "channels": [16]}, "channel 16 is out of range: stage1 has 16, counted from 0"),
        ({"channels": []}, "no channel is named"),
        ({"channels": 1.7}, "channels are whole numbers, one or several, not 1.7"),
        ({"channels": "a"}, "channels are whole numbers, one or several, not 'a'"),
        ({"channels": [[0, 1], [2, 3]]}, "channels are whole numbers, one or several, not"),
        ({"classes": torch.tensor(1)}, "a class is named or numbered"),
        ({"classes": []}, "no class is named"),
        ({"classes": ["redd"]}, r"unknown class 'redd'; did you mean red\?"),
        ({"classes": [3]}, "class 3 is out of range"),
        ({"classes": [0], "unit": True}, "classes are excited at the net's answer"),
        ({"steps": 0}, "steps is 0, but must be a whole number of at least 1"),
        ({"size": 0}, "the size is 0, but resnet20 needs images of at least"),
    ],
    ids=str,
)
def test_wrong_wishes_are_told(net, options, message):
    with pytest.raises(InputError, match=message):
        visualize.maximise(net, **options)


def test_the_command_draws_a_page(tmp_path, cli, fails):
    out = tmp_path / "page.png"
    line = ["visualize", "maximise", "lenet5", "--layer", "stage1", "--channels", "0,4", "--steps", "2"]
    code, said, _ = cli(*line, "--out", out)
    assert code == 0
    assert said == f"pictures that excite 2 channels, layer stage1 of lenet5 with random weights: {out}\n"
    assert out.exists()
    assert "go without layer, channels and unit" in fails(*line, "--classes", "3", "--out", out)


# ---- what a code keeps


@pytest.fixture
def photo():
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("china.jpg"))


def test_the_first_layer_keeps_an_image_and_later_ones_less_and_less(photo):
    torch.manual_seed(0)
    net = cnnzoo.create("vgg11", num_classes=5)
    kept = visualize.invert(net, [photo], ["first_conv", "stage1", "stage2", "stage3"], size=32, steps=60)
    assert kept.psnr[0, 0] > 25
    assert (np.diff(kept.errors[:, 0]) > 0).all()
    off = (kept.made[0, 0] / 255 - kept.pixels[0] / 255) ** 2
    assert kept.psnr[0, 0] == pytest.approx(-10 * np.log10(off.mean()), abs=1e-3)


def test_a_strip_is_drawn_for_each_image(net, tmp_path, photo):
    kept = visualize.invert(net, [photo, photos.picture(0, 0)], steps=2)
    assert kept.layers == tuple(visualize.stages_of(net))
    assert kept.made.shape == (len(kept.layers), 2, 32, 32, 3)
    kept.save(tmp_path / "strip.png")
    assert np.asarray(Image.open(tmp_path / "strip.png")).std() > 0


def test_an_image_does_not_depend_on_the_others(net):
    pictures = [photos.picture(kind, 0) for kind in range(2)]
    both = visualize.invert(net, pictures, ["stage2"], steps=4)
    alone = visualize.invert(net, pictures[:1], ["stage2"], steps=4)
    assert np.abs(both.made[0, 0].astype(int) - alone.made[0, 0]).max() <= 1


def test_many_images_are_made_batch_by_batch_and_the_first_are_drawn(net):
    most = []
    net.conv1.register_forward_hook(lambda module, inputs, output: most.append(len(output)))
    images = [np.asarray(photos.picture(place % 3, place)) for place in range(drawing.DRAWN + 1)]
    kept = visualize.invert(net, images, "stage1", steps=1, size=16)
    assert max(most) <= AT_ONCE
    assert kept.made.shape[:2] == kept.psnr.shape == (1, len(images))
    assert len(kept.figure().axes) == 2 * drawing.DRAWN
    assert f"the first {drawing.DRAWN} of 25 pictures" in str(kept)


def test_a_narrow_page_has_its_whole_title(net, photo):
    small = {"size": 32, "steps": 1}
    results = (visualize.maximise(net, classes=[1], **small), visualize.invert(net, photo, "stage1", **small))
    for result in (*results, visualize.deconv(net, photo, "stage1", channels=1)):
        figure = result.figure()
        figure.draw_without_rendering()
        (title,) = figure.texts
        box = title.get_window_extent()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1


def test_one_channel_or_class_may_be_named_alone(net):
    assert visualize.maximise(net, "stage1", 3, steps=1).channels.tolist() == [3]
    assert visualize.maximise(net, classes=2, steps=1).channels.tolist() == [2]


def test_a_layer_that_says_nothing_is_told():
    with pytest.raises(InputError, match="relu says nothing of an image"):
        visualize.invert(Silent(), [np.zeros((16, 16), np.uint8)], ["relu"])


def test_the_command_draws_a_strip(tmp_path, cli, fails, photo):
    photo.save(tmp_path / "china.png")
    out = tmp_path / "strip.png"
    line = ["visualize", "invert", "lenet5", tmp_path / "china.png", "--steps", "2"]
    code, said, _ = cli(*line, "--layer", "stage1,stage2", "--out", out)
    assert code == 0
    assert said.startswith(f"what layers keep of {tmp_path / 'china.png'}: stage1 ")
    assert said.endswith(f" dB, of lenet5 with random weights: {out}\n")
    assert "unknown layer 'stagee1'; did you mean stage1" in fails(*line, "--layer", "stagee1", "--out", out)
