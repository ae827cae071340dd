"""What the papers' recipes ask of training and judging beyond the usual: colour noise, scale jitter, many crops."""

import numpy as np
import pytest
import torch
from PIL import Image

import cnnzoo
from cnnzoo.config import AugmentConfig, DataConfig
from cnnzoo.data import sources
from cnnzoo.data.augment import Augment
from cnnzoo.data.crops import Crops
from cnnzoo.data.preprocess import Preprocess

# Krizhevsky et al. 2012 on ImageNet, as published with fb.resnet.torch: deviations along the components, and these.
DEVIATIONS = (0.2175, 0.0188, 0.0045)
COMPONENTS = ((-0.5675, -0.5808, -0.5836), (0.7192, -0.0045, -0.6948), (0.4009, -0.8140, 0.4203))


def plain(config, size):
    """On the scale of 0 to 255."""
    return Augment(config, size, (0.0,) * 3, (1 / 255,) * 3)


def rng():
    return np.random.default_rng(0)


# --- colour noise


@pytest.fixture(scope="module")
def shifts():
    """What is added to 20,000 grey images, on the scale of 0 to 1."""
    grey = torch.full((20_000, 2, 2, 3), 128, dtype=torch.uint8)
    moved = plain(AugmentConfig(pca_noise=0.1), 2)(grey, rng()) - 128
    assert (moved == moved[:, :, :1, :1]).all()  # one colour for a whole image
    return (moved[:, :, 0, 0] / 255).double().numpy()


@pytest.mark.parametrize(("component", "deviation"), [*zip(COMPONENTS, DEVIATIONS, strict=True)])
def test_colour_noise_has_a_tenth_of_each_components_deviation(shifts, component, deviation):
    along = shifts @ np.array(component)
    assert along.std() == pytest.approx(0.1 * deviation, rel=0.03)
    assert along.mean() == pytest.approx(0, abs=0.1 * deviation / 30)


def test_colour_noise_of_grey_images_is_refused():
    with pytest.raises(cnnzoo.InputError, match=r"augment\.pca_noise is for colour images, not for images of 1"):
        Augment(AugmentConfig(pca_noise=0.1), 8, (0.5,), (0.5,))


# --- scale jitter


def ramp(side, count=2_000):
    """Images whose red is the column and whose green is the row."""
    places = np.arange(side, dtype=np.uint8)
    image = np.stack([*np.meshgrid(places, places), np.zeros((side, side), np.uint8)], -1)
    return torch.from_numpy(np.broadcast_to(image, (count, side, side, 3)).copy())


@pytest.fixture(scope="module")
def jittered():
    """For crops of 20 from shorter sides of 25 to 50, kept at 50: slope, left and top of each."""
    out = plain(AugmentConfig(crop="jittered", shorter_side=(25, 50)), 20)(ramp(50), rng()).double()
    inner = out[:, :, 2:-2, 2:-2]
    slope = (inner[:, 0, 0, -1] - inner[:, 0, 0, 0]) / (inner.shape[3] - 1)  # pixels of the kept image to one of ours
    return out, slope.numpy()


def test_jittered_crop_scales_the_shorter_side_evenly_between_its_ends(jittered):
    shorter = 50 / jittered[1]
    assert shorter.min() == pytest.approx(25, abs=0.5)
    assert shorter.max() == pytest.approx(50, abs=0.5)
    assert shorter.mean() == pytest.approx(37.5, abs=0.5)


def test_jittered_crop_keeps_proportions_and_lies_within_the_image(jittered):
    out, slope = jittered
    down = ((out[:, 1, -3, 0] - out[:, 1, 2, 0]) / 15).numpy()
    assert down == pytest.approx(slope, rel=1e-3)
    assert out[:, :2].min() >= 0
    assert out[:, :2].max() <= 49


def test_jittered_crop_of_one_scale_is_a_window(jittered):
    out = plain(AugmentConfig(crop="jittered", shorter_side=(50, 50)), 20)(ramp(50, 50), rng())
    assert (out[:, 0, :, 1:] - out[:, 0, :, :-1]).numpy() == pytest.approx(1, abs=1e-3)


def test_jittered_crop_smaller_than_the_net_is_refused():
    with pytest.raises(cnnzoo.InputError, match=r"augment\.shorter_side begins at 16, but must be at least 20"):
        Augment(AugmentConfig(crop="jittered", shorter_side=(16, 50)), 20, (0.5,) * 3, (0.5,) * 3)


def test_photos_are_kept_at_the_largest_scale_for_training_and_judged_as_ever(tmp_path):
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (90, 60), "red").save(tmp_path / name / f"{number}.png")
    augment = AugmentConfig(crop="jittered", shorter_side=(25, 50))
    data = sources.load(DataConfig(str(tmp_path), size=20, resize=30), augment, 20)
    assert data.train.images.shape == (4, 50, 50, 3)
    assert data.val.images.shape == (4, 20, 20, 3)


# --- many crops


def picture(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def test_ten_crops_are_corners_centre_and_mirror_images():
    preprocess = Preprocess(20, 30, (0.5,) * 3, (0.5,) * 3)
    square = Preprocess(30, 30, (0.5,) * 3, (0.5,) * 3).pixels(picture(64, 40))
    crops = Crops(preprocess, 10).fit(picture(64, 40))
    assert crops.shape == (10, 20, 20, 3)
    places = [(0, 0), (0, 10), (10, 0), (10, 10), (5, 5)]
    for crop, (top, left) in zip(crops, places, strict=False):
        assert (crop == square[top : top + 20, left : left + 20]).all()
    assert (crops[5:] == crops[:5, :, ::-1]).all()
    assert (crops[4] == preprocess.pixels(picture(64, 40))).all()


def test_144_crops_are_of_four_scales_three_squares_and_six_places():
    crops = Crops(Preprocess(224, 256, (0.5,) * 3, (0.5,) * 3), 144).fit(picture(500, 350))
    assert crops.shape == (144, 224, 224, 3)
    assert (crops[72:] == crops[:72, :, ::-1]).all()
    assert len({crop.tobytes() for crop in crops}) == 144
    at_256 = picture(500, 350).resize((366, 256), Image.Resampling.BILINEAR)
    assert (crops[0] == np.asarray(at_256)[:224, :224]).all()
    assert (crops[12] == np.asarray(at_256)[:224, 366 - 256 : 366 - 32]).all()


def test_judging_by_many_crops_averages_their_probabilities(tmp_path):
    torch.manual_seed(0)
    torch.save(cnnzoo.create("resnet20", num_classes=2).state_dict(), tmp_path / "two.pth")
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            picture(50 + number, 40).save(tmp_path / "photos" / name / f"{number}.png")
    net = cnnzoo.create("resnet20", tmp_path / "two.pth").eval()
    found = cnnzoo.evaluate("resnet20", str(tmp_path / "photos"), pretrained=str(tmp_path / "two.pth"), crops=144)
    preprocess = cnnzoo.preprocessing(net)
    losses = []
    for place, file in enumerate(sorted((tmp_path / "photos").rglob("*.png"))):
        views = torch.stack([preprocess(view) for view in Crops(preprocess, 144).read(file)])
        with torch.no_grad():
            losses.append(-net(views).softmax(1).mean(0)[place // 3].log().item())
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-4)


def test_imagenets_folders_are_known_by_their_wordnet_ids(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    file.parent.mkdir(parents=True)
    torch.save(cnnzoo.create("squeezenet1_1").state_dict(), file)
    for name in ("n01443537", "n15075141"):  # goldfish, toilet tissue
        (tmp_path / "photos" / name).mkdir(parents=True)
        picture(50, 40).save(tmp_path / "photos" / name / "0.png")
    found = cnnzoo.evaluate("squeezenet1_1", str(tmp_path / "photos"), pretrained="tv_in1k")
    assert found.classes[1] == "goldfish"
    assert found.confusion.sum(axis=1).nonzero()[0].tolist() == [1, 999]


def test_another_number_of_crops_is_refused():
    with pytest.raises(cnnzoo.InputError, match="crops is 5, but must be one of 1, 2, 10, 144"):
        cnnzoo.evaluate("resnet20", "digits", crops=5)
