"""Batches: shuffled, augmented with a draw for every image, and a function of (seed, epoch, step) alone."""

import threading
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from cnnzoo.config import AugmentConfig
from cnnzoo.data import batches as batches_
from cnnzoo.data.arrays import ArrayImages
from cnnzoo.data.augment import Augment
from cnnzoo.data.batches import EvalBatches, TrainBatches
from cnnzoo.data.parts import Parts
from cnnzoo.data.preprocess import normalise

ALL = AugmentConfig(
    flip=True, crop="padded", rotation=20, shift=0.1, shear=10, zoom=0.2, brightness=0.3, channel_shift=0.1, cutout=3
)
EVERY = {
    "nothing": AugmentConfig(),
    "flip": AugmentConfig(flip=True),
    "vertical flip": AugmentConfig(flip_vertical=True),
    "quarter turns": AugmentConfig(quarter_turns=True),
    "padded crop": AugmentConfig(crop="padded", padding=2),
    "resized crop": AugmentConfig(crop="resized"),
    "jittered crop": AugmentConfig(crop="jittered", shorter_side=(20, 40)),
    "rotation": AugmentConfig(rotation=30),
    "shift": AugmentConfig(shift=0.2),
    "shear": AugmentConfig(shear=20),
    "zoom": AugmentConfig(zoom=0.3),
    "brightness": AugmentConfig(brightness=0.4),
    "contrast": AugmentConfig(contrast=0.4),
    "saturation": AugmentConfig(saturation=0.4),
    "channel shift": AugmentConfig(channel_shift=0.2),
    "colour noise": AugmentConfig(pca_noise=0.1),
    "cutout": AugmentConfig(cutout=4),
    "all": ALL,
}
RANDOM = {name: config for name, config in EVERY.items() if name != "nothing"}


def noise(count: int = 60, side: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, channels), np.uint8)


class Streamed:
    """Images that lie in no array, as files do."""

    def __init__(self, pixels: np.ndarray):
        self.pixels, self.shape = pixels, pixels.shape
        self.taken: list[int] = []

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: np.ndarray) -> np.ndarray:
        self.taken += indices.tolist()
        return self.pixels[indices].copy()

    def take_parts(self, indices: np.ndarray, parts: Parts) -> np.ndarray:
        batch = np.empty((len(indices), parts.size, parts.size, self.shape[3]), np.uint8)
        for place, image in enumerate(self.take(indices)):
            parts.cut(place, image, batch[place])
        return batch


def plain(config: AugmentConfig, size: int = 8, channels: int = 3) -> Augment:
    """Whose normalisation leaves values on the scale of 0 to 255."""
    return Augment(config, size, (0.0,) * channels, (1 / 255,) * channels)


def loader(config=AugmentConfig(), pixels=None, batch_size=10, seed=0, store=ArrayImages) -> TrainBatches:  # noqa: B008
    """Each image's label is its place."""
    pixels = noise() if pixels is None else pixels
    augment = plain(config, pixels.shape[1], pixels.shape[3])
    return TrainBatches(store(pixels), np.arange(len(pixels)), batch_size, augment, seed)


def epoch(batches: TrainBatches, number: int = 0, start: int = 0) -> tuple[Tensor, Tensor]:
    """All images of an epoch, and their labels."""
    images, labels = zip(*batches.epoch(number, start), strict=True)
    return torch.cat(images), torch.cat(labels)


def nhwc(images: Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy()


def as_uint8(batches: TrainBatches, number: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """An epoch's batches, for images whose values no change has made others: `(B, H, W, C)` uint8, and their labels."""
    for images, labels in batches.epoch(number):
        pixels = nhwc(images)
        np.testing.assert_allclose(pixels, pixels.round(), atol=1e-4)
        yield pixels.round().astype(np.uint8), labels.numpy()


both_stores = pytest.mark.parametrize("store", [ArrayImages, Streamed])
every_augment = pytest.mark.parametrize("config", EVERY.values(), ids=EVERY)
every_random_augment = pytest.mark.parametrize("config", RANDOM.values(), ids=RANDOM)


# ---- an epoch


@both_stores
@every_augment
def test_same_seed_epoch_and_step_give_the_same_batch(config, store):
    first, second = (epoch(loader(config, store=store), 3) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


@both_stores
@every_augment
def test_what_ran_before_does_not_matter(config, store):
    batches = loader(config, store=store)
    epoch(batches, 0)
    next(batches.epoch(7))
    used, fresh = epoch(batches, 3), epoch(loader(config, store=store), 3)
    assert torch.equal(used[0], fresh[0])
    assert torch.equal(used[1], fresh[1])


@both_stores
@pytest.mark.parametrize("start", [0, 1, 4, 5, 6])
@every_augment
def test_epoch_begun_at_a_step_is_the_tail_of_the_whole(config, start, store):
    batches = loader(config, store=store)
    tail = list(batches.epoch(2, start))
    whole = list(batches.epoch(2))[start:]
    assert len(tail) == len(whole) == 6 - start
    for (images, labels), (expected_images, expected_labels) in zip(tail, whole, strict=True):
        assert torch.equal(images, expected_images)
        assert torch.equal(labels, expected_labels)


@both_stores
def test_epochs_differ_in_order(store):
    batches = loader(store=store)
    assert epoch(batches, 0)[1].tolist() != epoch(batches, 1)[1].tolist()


@pytest.mark.parametrize("change", [{"number": 1}, {"seed": 1}], ids=["epoch", "seed"])
@every_random_augment
def test_another_epoch_or_seed_draws_anew(config, change):
    pixels = np.repeat(noise(1), 40, axis=0)  # the same image 40 times, so order does not matter
    here, _ = epoch(loader(config, pixels))
    there, _ = epoch(loader(config, pixels, seed=change.get("seed", 0)), change.get("number", 0))
    assert not torch.equal(here, there)


@every_random_augment
def test_steps_draw_anew(config):
    first, second = (images for images, _ in loader(config, np.repeat(noise(1), 40, axis=0), 20).epoch(0))
    assert not torch.equal(first, second)


@every_augment
def test_images_from_files_give_the_same_as_from_memory(config):
    in_memory, streamed = epoch(loader(config)), epoch(loader(config, store=Streamed))
    assert torch.equal(in_memory[0], streamed[0])
    assert torch.equal(in_memory[1], streamed[1])


@every_augment
def test_set_too_large_to_be_padded_whole_gives_the_same(config, monkeypatch):
    whole = epoch(loader(config))
    monkeypatch.setattr(batches_, "WINDOWS_IN_MEMORY", 0)
    parts = epoch(loader(config))
    assert torch.equal(whole[0], parts[0])
    assert torch.equal(whole[1], parts[1])


@both_stores
def test_each_image_is_seen_at_most_once_an_epoch(store):
    batches = loader(pixels=noise(103), store=store)
    for number in range(5):
        labels = epoch(batches, number)[1].tolist()
        assert len(labels) == len(set(labels)) == 100


def test_the_remainder_is_another_every_epoch():
    batches = loader(pixels=noise(103))
    left_out = [frozenset(range(103)) - set(epoch(batches, number)[1].tolist()) for number in range(5)]
    assert len(set(left_out)) == 5


@pytest.mark.parametrize(("images", "batch_size", "steps"), [(60, 10, 6), (60, 7, 8), (60, 60, 1), (60, 1, 60)])
def test_batches_have_one_size(images, batch_size, steps):
    batches = loader(pixels=noise(images), batch_size=batch_size)
    assert len(batches) == steps
    sizes = [len(labels) for _, labels in batches.epoch(0)]
    assert sizes == [batch_size] * steps


def test_batch_is_no_larger_than_the_set():
    batches = loader(pixels=noise(5), batch_size=128)
    assert len(batches) == 1
    assert sorted(epoch(batches)[1].tolist()) == [0, 1, 2, 3, 4]


@both_stores
def test_labels_stay_with_their_images(store):
    pixels = noise()
    images, labels = epoch(loader(pixels=pixels, store=store))
    np.testing.assert_allclose(nhwc(images), pixels[labels], atol=1e-4)


@both_stores
def test_batch_is_float32_and_int64(store):
    images, labels = next(loader(ALL, store=store).epoch(0))
    assert (images.shape, images.dtype) == ((10, 3, 8, 8), torch.float32)
    assert (labels.shape, labels.dtype) == ((10,), torch.int64)


@every_augment
def test_batch_is_channels_last(config):
    images, _ = next(loader(config).epoch(0))
    assert images.is_contiguous(memory_format=torch.channels_last)


@both_stores
def test_the_set_itself_is_left_alone(store):
    pixels = noise()
    before = pixels.copy()
    epoch(loader(ALL, pixels, store=store))
    np.testing.assert_array_equal(pixels, before)


def test_writing_into_a_batch_leaves_later_epochs_alone():
    batches = loader()
    expected = epoch(batches)[0]
    for images, _ in batches.epoch(0):
        images.zero_()
    assert torch.equal(epoch(batches)[0], expected)


@every_augment
def test_global_generators_do_not_matter(config):
    expected = epoch(loader(config))[0]
    np.random.seed(99)  # noqa: NPY002
    torch.manual_seed(99)
    assert torch.equal(epoch(loader(config))[0], expected)


@every_augment
def test_global_generators_are_left_alone(config):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    epoch(loader(config))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state()[1].tolist() == numpy_state  # noqa: NPY002


# ---- flip and padded crop: pixels are moved and never changed


@both_stores
@pytest.mark.parametrize("channels", [1, 3])
def test_flip_mirrors_about_half_of_the_images_and_only_mirrors(channels, store):
    pixels = noise(1_000, 4, channels)
    flipped = 0
    for images, labels in as_uint8(loader(AugmentConfig(flip=True), pixels, store=store)):
        for image, original in zip(images, pixels[labels], strict=True):
            mirrored = np.array_equal(image, original[:, ::-1])
            assert mirrored or np.array_equal(image, original)
            flipped += mirrored
    assert 440 < flipped < 560


def test_flip_is_another_in_another_epoch():
    pixels = np.arange(2, dtype=np.uint8).reshape(1, 1, 2, 1).repeat(200, axis=0)
    batches = loader(AugmentConfig(flip=True), pixels, batch_size=200)
    first, second = (next(as_uint8(batches, number))[0][:, 0, 0, 0] for number in (0, 1))
    assert 60 < (first != second).sum() < 140


@both_stores
@pytest.mark.parametrize(
    ("config", "forms"),
    [
        (AugmentConfig(flip_vertical=True), [lambda image: image, np.flipud]),
        (AugmentConfig(quarter_turns=True), [lambda image, many=many: np.rot90(image, many) for many in range(4)]),
        (
            AugmentConfig(flip=True, quarter_turns=True),
            [
                lambda image, many=many, flip=flip: np.rot90(image[:, ::flip], many)
                for many in range(4)
                for flip in (1, -1)
            ],
        ),
    ],
    ids=["vertical flip", "quarter turns", "all symmetries"],
)
def test_turns_show_each_form_equally_often_and_no_other(config, forms, store):
    pixels, seen = noise(1_000, 5), Counter()
    for images, labels in as_uint8(loader(config, pixels, store=store)):
        for image, original in zip(images, pixels[labels], strict=True):
            seen.update(number for number, form in enumerate(forms) if np.array_equal(image, form(original)))
    assert seen.total() == 1_000
    assert all(0.7 * 1_000 / len(forms) < seen[number] < 1.3 * 1_000 / len(forms) for number in range(len(forms)))


def test_crops_of_photos_are_turned_too():
    config = AugmentConfig(crop="resized", scale=(1, 1), ratio=(1, 1), quarter_turns=True)
    original = noise(1, 8)[0]
    turned = {np.rint(image).astype(int).tobytes() for image in drawn(config, original[None].repeat(50, axis=0))}
    assert turned == {np.rot90(original, many).astype(int).tobytes() for many in range(4)}


@both_stores
@pytest.mark.parametrize("padding", [1, 2, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_padded_crop_is_a_window_of_the_image_in_a_black_margin(channels, padding, store):
    pixels = noise(400, 6, channels)
    padded = np.pad(pixels, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    places = Counter()
    for images, labels in as_uint8(loader(AugmentConfig(crop="padded", padding=padding), pixels, store=store)):
        for image, label in zip(images, labels, strict=True):
            found = [
                (top, left)
                for top in range(2 * padding + 1)
                for left in range(2 * padding + 1)
                if np.array_equal(image, padded[label, top : top + 6, left : left + 6])
            ]
            assert len(found) == 1
            places[found[0]] += 1
    tops, lefts = ({place[axis] for place in places} for axis in (0, 1))
    assert tops == lefts == set(range(2 * padding + 1))


def test_every_place_of_a_padded_crop_is_as_likely():
    pixels = np.zeros((5_000, 3, 3, 1), np.uint8)
    pixels[:, 1, 1] = 1  # where this lands tells the place
    images, _ = next(as_uint8(loader(AugmentConfig(crop="padded", padding=1), pixels, batch_size=5_000)))
    share = images.mean(axis=0)[:, :, 0]
    assert share.sum() == pytest.approx(1)
    assert share == pytest.approx(np.full((3, 3), 1 / 9), abs=0.02)


def test_flip_and_padded_crop_go_together():
    pixels = noise(400, 4, 1)
    kinds = Counter()
    config = AugmentConfig(flip=True, crop="padded", padding=1)
    for images, labels in as_uint8(loader(config, pixels)):
        for image, original in zip(images, pixels[labels], strict=True):
            for flip, source in ((False, original), (True, original[:, ::-1])):
                padded = np.pad(source, ((1, 1), (1, 1), (0, 0)))
                for top in range(3):
                    for left in range(3):
                        kinds[flip, top, left] += np.array_equal(image, padded[top : top + 4, left : left + 4])
    assert kinds.total() == 400
    assert len(kinds) == 18
    assert min(kinds.values()) > 5


@both_stores
def test_padding_without_a_padded_crop_does_nothing(store):
    pixels = noise()
    images, labels = next(as_uint8(loader(AugmentConfig(padding=4), pixels, store=store)))
    np.testing.assert_array_equal(images, pixels[labels])


# ---- one augmentation at a time


class Ends:
    """A generator that always draws one end of the range."""

    def __init__(self, high: bool):
        self.high = high

    def uniform(self, low: float, high: float, size) -> np.ndarray:
        return np.full(size, high if self.high else low, dtype=float)


def highest(config: AugmentConfig, pixels: np.ndarray, size: int | None = None) -> np.ndarray:
    return drawn(config, pixels, Ends(high=True), size)


def lowest(config: AugmentConfig, pixels: np.ndarray, size: int | None = None) -> np.ndarray:
    return drawn(config, pixels, Ends(high=False), size)


def drawn(config: AugmentConfig, pixels: np.ndarray, rng=None, size: int | None = None) -> np.ndarray:
    """`(B, H, W, C)` on the scale of 0 to 255."""
    augment = plain(config, size or pixels.shape[1], pixels.shape[3])
    return nhwc(augment(torch.from_numpy(pixels.copy()), rng or np.random.default_rng(0)))


def flat(value: int, count: int = 500, side: int = 8, channels: int = 3) -> np.ndarray:
    return np.full((count, side, side, channels), value, np.uint8)


def blobs(x: float, y: float, count: int = 400, side: int = 33) -> np.ndarray:
    """A round spot at (x, y), counted from the centre."""
    places = np.arange(side) - side // 2
    spot = 255 * np.exp(-((places[None, :] - x) ** 2 + (places[:, None] - y) ** 2) / 4)
    return spot.round().astype(np.uint8)[None, :, :, None].repeat(count, axis=0)


def centres(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x and y of each image's centre of mass, counted from the centre."""
    places = np.arange(images.shape[1]) - images.shape[1] // 2
    mass = images[:, :, :, 0] / images[:, :, :, 0].sum((1, 2), keepdims=True)
    return (mass * places[None, None, :]).sum((1, 2)), (mass * places[None, :, None]).sum((1, 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_without_augmentation_it_is_the_normalisation(channels):
    mean, std = (0.1, 0.2, 0.3)[:channels], (0.4, 0.5, 0.6)[:channels]
    pixels = torch.from_numpy(noise(channels=channels))
    result = Augment(AugmentConfig(), 8, mean, std)(pixels, np.random.default_rng(0))
    assert torch.equal(result, normalise(pixels, mean, std))


@every_random_augment
def test_every_image_has_its_own_draw(config):
    pixels = np.repeat(noise(1, 16), 12, axis=0)
    images, _ = next(loader(config, pixels, batch_size=12).epoch(0))
    different = {image.numpy().tobytes() for image in images}
    at_least = {"flip": 2, "vertical flip": 2, "quarter turns": 4, "padded crop": 6, "cutout": 9}  # of 25, some 300
    assert len(different) >= next((many for name, many in at_least.items() if config == EVERY[name]), 12)


@pytest.mark.parametrize("turn", [90, 180, 270])
@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("channels", [1, 3])
def test_rotation_by_quarters_is_rot90(channels, side, turn):
    pixels = noise(5, side, channels)
    clockwise = highest(AugmentConfig(rotation=turn), pixels)
    back = lowest(AugmentConfig(rotation=turn), pixels)
    np.testing.assert_allclose(clockwise, np.rot90(pixels, turn // 90, axes=(1, 2)), atol=0.01)
    np.testing.assert_allclose(back, np.rot90(pixels, -turn // 90, axes=(1, 2)), atol=0.01)


def test_rotation_stays_within_its_degrees():
    x, y = centres(drawn(AugmentConfig(rotation=30), blobs(10, 0)))
    degrees = np.degrees(np.arctan2(y, x))
    assert -30.5 < degrees.min() < -28
    assert 28 < degrees.max() < 30.5
    assert np.hypot(x, y) == pytest.approx(np.full(400, 10), abs=0.2)


@pytest.mark.parametrize("pixels_moved", [1, 2, 4, 8])
def test_shift_moves_by_a_share_of_the_side(pixels_moved):
    pixels = noise(3, 8)
    expected = np.zeros_like(pixels)
    expected[:, : 8 - pixels_moved, : 8 - pixels_moved] = pixels[:, pixels_moved:, pixels_moved:]
    np.testing.assert_allclose(highest(AugmentConfig(shift=pixels_moved / 8), pixels), expected, atol=0.01)
    expected = np.zeros_like(pixels)
    expected[:, pixels_moved:, pixels_moved:] = pixels[:, : 8 - pixels_moved, : 8 - pixels_moved]
    np.testing.assert_allclose(lowest(AugmentConfig(shift=pixels_moved / 8), pixels), expected, atol=0.01)


def test_shift_moves_in_both_directions_by_draws_of_their_own():
    x, y = centres(drawn(AugmentConfig(shift=0.25), blobs(0, 0)))
    for moved in (x, y):
        assert -8.3 < moved.min() < -7.5
        assert 7.5 < moved.max() < 8.3
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.2


def test_shear_moves_rows_by_their_distance_from_the_middle():
    sheared = highest(AugmentConfig(shear=45), noise(3, 9))
    for row in range(9):
        expected = np.zeros((3, 9, 3))
        for column in range(9):
            if 0 <= column + row - 4 < 9:
                expected[:, column] = noise(3, 9)[:, row, column + row - 4]
        np.testing.assert_allclose(sheared[:, row], expected, atol=0.01)


def test_shear_leans_both_ways_within_its_degrees():
    x, y = centres(drawn(AugmentConfig(shear=30), blobs(0, 8)))
    degrees = np.degrees(np.arctan2(x, y))
    assert -31 < degrees.min() < -28
    assert 28 < degrees.max() < 31


@pytest.mark.parametrize(("zoom", "draw", "factor"), [(0.5, highest, 1.5), (0.25, highest, 1.25), (0.2, lowest, 0.8)])
def test_zoom_scales_around_the_centre(zoom, draw, factor):
    for x, y in [(0, 0), (6, 0), (0, -6), (4, 4)]:
        moved_x, moved_y = centres(draw(AugmentConfig(zoom=zoom), blobs(x, y, count=1)))
        assert moved_x == pytest.approx(x * factor, abs=0.1)
        assert moved_y == pytest.approx(y * factor, abs=0.1)


def test_zooming_out_leaves_a_black_margin():
    shrunk = lowest(AugmentConfig(zoom=0.5), flat(200, count=1))[0, :, :, 0]
    expected = np.zeros((8, 8))
    expected[2:6, 2:6] = 200
    np.testing.assert_allclose(shrunk, expected, atol=0.01)


def test_zoom_stays_within_its_factors():
    x, _ = centres(drawn(AugmentConfig(zoom=0.3), blobs(8, 0)))
    assert 0.69 < x.min() / 8 < 0.73
    assert 1.27 < x.max() / 8 < 1.31


# ---- resized crop

WHOLE = AugmentConfig(crop="resized", scale=(1.0, 1.0), ratio=(1.0, 1.0))


@pytest.mark.parametrize(("canvas", "size"), [(16, 8), (15, 8), (8, 8), (64, 56)])
def test_resized_crop_of_everything_is_the_plain_resize(canvas, size):
    pixels = noise(4, canvas)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    resized = torch.nn.functional.interpolate(images, (size, size), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(drawn(WHOLE, pixels, size=size), nhwc(resized), atol=0.02)


def test_resized_crop_gives_the_nets_size():
    images = drawn(AugmentConfig(crop="resized"), noise(4, 20), size=12)
    assert images.shape == (4, 12, 12, 3)


@pytest.mark.parametrize(("draw", "top", "left"), [(lowest, 0, 0), (highest, 8, 8)])
def test_resized_crop_of_a_quarter_is_a_corner_blown_up(draw, top, left):
    config = AugmentConfig(crop="resized", scale=(0.25, 0.25), ratio=(1.0, 1.0))
    pixels = noise(4, 16)
    corner = pixels[:, top : top + 8, left : left + 8]
    np.testing.assert_allclose(draw(config, pixels, size=8), corner, atol=0.02)


def parts(config: AugmentConfig, count: int = 1_000) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Left, right, top and bottom of the parts drawn, as shares, seen in an image that ramps along x and along y."""
    ramp = np.arange(0, 256, 4, dtype=np.uint8)
    pixels = np.stack(np.meshgrid(ramp, ramp), -1)[None].repeat(count, axis=0)
    # Two pixels to an edge: they lie at a quarter and three quarters of the part.
    images = drawn(config, pixels, size=2) / 256 + 0.5 / 64
    x, y = images[:, 0, :, 0], images[:, :, 0, 1]
    return tuple(side for low, high in (x.T, y.T) for side in (low - (high - low) / 2, high + (high - low) / 2))


def test_resized_crop_lies_within_the_image():
    left, right, top, bottom = parts(AugmentConfig(crop="resized", scale=(0.08, 1.0)))
    assert min(left.min(), top.min()) >= -0.01
    assert max(right.max(), bottom.max()) <= 1.01


@pytest.mark.parametrize("scale", [(0.08, 0.3), (0.5, 0.5), (0.3, 0.6), (0.8, 0.8)])
def test_resized_crop_takes_its_share_of_the_area(scale):
    left, right, top, bottom = parts(AugmentConfig(crop="resized", scale=scale))
    area = (right - left) * (bottom - top)
    assert area.min() == pytest.approx(scale[0], abs=0.01)
    assert area.max() == pytest.approx(scale[1], abs=0.01)
    assert area.mean() == pytest.approx(sum(scale) / 2, abs=0.01)


def test_resized_crop_is_as_often_wide_as_high():
    left, right, top, bottom = parts(AugmentConfig(crop="resized", scale=(0.1, 0.4), ratio=(0.75, 4 / 3)))
    ratio = (right - left) / (bottom - top)
    assert ratio.min() == pytest.approx(0.75, abs=0.02)
    assert ratio.max() == pytest.approx(4 / 3, abs=0.02)
    assert 0.45 < (ratio > 1).mean() < 0.55


def test_resized_crop_may_lie_anywhere():
    left, _, top, _ = parts(AugmentConfig(crop="resized", scale=(0.25, 0.25), ratio=(1.0, 1.0)))
    for edge in (left, top):
        assert edge.min() == pytest.approx(0, abs=0.01)
        assert edge.max() == pytest.approx(0.5, abs=0.01)
        assert edge.mean() == pytest.approx(0.25, abs=0.01)
    assert abs(np.corrcoef(left, top)[0, 1]) < 0.1


def test_resized_crop_is_the_whole_image_where_no_part_of_it_fits():
    left, right, top, bottom = parts(AugmentConfig(crop="resized", scale=(1.0, 1.0), ratio=(0.3, 2.0)), count=20)
    np.testing.assert_allclose((left, top), 0, atol=0.01)
    np.testing.assert_allclose((right, bottom), 1, atol=0.01)


def test_jittered_crop_is_a_window_of_an_image_of_any_shorter_side():
    left, right, top, bottom = parts(AugmentConfig(crop="jittered", shorter_side=(4, 8)))  # of which the net sees 2
    np.testing.assert_allclose(right - left, bottom - top, atol=0.01)
    sides = 2 / (right - left)
    assert (sides.min(), sides.max()) == pytest.approx((4, 8), abs=0.1)
    for low, high in ((left, right), (top, bottom)):
        assert (low.min(), high.max()) == pytest.approx((0, 1), abs=0.02)


# ---- composition


@pytest.mark.parametrize(
    ("config", "resamplings"),
    [
        (AugmentConfig(), 0),
        (AugmentConfig(flip=True, crop="padded"), 0),
        (AugmentConfig(brightness=0.2, channel_shift=0.2, cutout=2), 0),
        (AugmentConfig(rotation=10), 1),
        (AugmentConfig(flip=True, crop="resized"), 0),  # cut out by other means, see test_parts
        (AugmentConfig(flip=True, crop="padded", rotation=10, shift=0.1, shear=5, zoom=0.1), 1),
        (AugmentConfig(flip=True, crop="resized", rotation=10, shift=0.1, shear=5, zoom=0.1), 1),
    ],
    ids=["nothing", "moves", "colours", "rotation", "resized", "all with padded", "all with resized"],
)
def test_everything_that_interpolates_is_one_resampling(config, resamplings, monkeypatch):
    calls, grid_sample = [], torch.nn.functional.grid_sample

    def counted(*args, **kwargs):
        calls.append(1)
        return grid_sample(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "grid_sample", counted)
    next(loader(config).epoch(0))
    assert len(calls) == resamplings


def test_rotation_and_zoom_compose():
    x, y = centres(highest(AugmentConfig(rotation=90, zoom=0.5), blobs(6, 0, count=1)))
    assert (x[0], y[0]) == pytest.approx((0, -9), abs=0.1)


def test_rotation_and_shift_compose():
    x, y = centres(highest(AugmentConfig(rotation=90, shift=4 / 33), blobs(6, 0, count=1)))
    assert (round(x[0]), round(y[0])) in {(-4, -2), (-4, -10)}  # shifted first, or rotated first


def test_resized_crop_and_rotation_compose():
    config = AugmentConfig(crop="resized", scale=(0.25, 0.25), ratio=(1.0, 1.0), rotation=90)
    pixels = noise(4, 16)
    corner = pixels[:, 8:, 8:]
    np.testing.assert_allclose(highest(config, pixels, size=8), np.rot90(corner, axes=(1, 2)), atol=0.02)


def test_resized_crop_and_shift_compose():
    config = AugmentConfig(crop="resized", scale=(0.25, 0.25), ratio=(1.0, 1.0), shift=0.25)
    pixels = noise(4, 16)
    window = np.pad(pixels, ((0, 0), (0, 2), (0, 2), (0, 0)))[:, 10:, 10:]  # a quarter of the part's 8 further on
    np.testing.assert_allclose(highest(config, pixels, size=8), window, atol=0.02)


# ---- colours


def test_brightness_multiplies_by_a_factor_of_the_image():
    images = drawn(AugmentConfig(brightness=0.5), flat(100))
    assert (np.abs(images - images[:, :1, :1, :1]) < 1e-3).all()
    factors = images[:, 0, 0, 0] / 100
    assert 0.5 <= factors.min() < 0.52
    assert 1.48 < factors.max() <= 1.5 + 1e-6
    assert factors.mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("draw", "value"), [(lowest, 80), (highest, 120)])
def test_brightness_keeps_black_black_and_ratios(draw, value):
    pixels = np.array([0, 100, 200], np.uint8).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(
        draw(AugmentConfig(brightness=0.2), pixels).flatten(), [0, value, min(2 * value, 255)], atol=1e-3
    )


def test_brightness_is_clamped():
    images = drawn(AugmentConfig(brightness=1.5), flat(200))
    assert images.min() == 0
    assert images.max() == pytest.approx(255)


@pytest.mark.parametrize(
    ("key", "theirs"), [("contrast", functional.adjust_contrast), ("saturation", functional.adjust_saturation)]
)
@pytest.mark.parametrize(("draw", "factor"), [(lowest, 0.6), (highest, 1.4)])
def test_contrast_and_saturation_are_torchvisions(key, theirs, draw, factor):
    pixels = noise(4, 16)
    expected = 255 * theirs(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, factor).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(draw(AugmentConfig(**{key: 0.4}), pixels), expected, atol=0.01)


def test_each_image_has_its_own_contrast_and_saturation():
    spread = drawn(AugmentConfig(contrast=0.5), noise(1, 16).repeat(200, axis=0)).std(axis=(1, 2, 3))
    assert spread.max() > 1.8 * spread.min()
    grey = flat(90, count=1)
    np.testing.assert_allclose(drawn(AugmentConfig(contrast=0.5, saturation=0.5), grey), grey, atol=1e-3)
    noisy = noise(2, 8, channels=1)  # of grey images there is no saturation to change
    np.testing.assert_allclose(drawn(AugmentConfig(saturation=0.5), noisy), noisy, atol=1e-3)


def test_channel_shift_adds_to_each_channel_by_itself():
    images = drawn(AugmentConfig(channel_shift=0.2), flat(128))
    assert (np.abs(images - images[:, :1, :1]) < 1e-3).all()
    shifts = images[:, 0, 0] - 128
    assert -51.001 <= shifts.min() < -50
    assert 50 < shifts.max() <= 51.001
    correlations = np.corrcoef(shifts.T)[np.triu_indices(3, 1)]
    assert (np.abs(correlations) < 0.2).all()


def test_channel_shift_is_clamped():
    assert drawn(AugmentConfig(channel_shift=0.5), flat(250)).max() == pytest.approx(255)
    assert drawn(AugmentConfig(channel_shift=0.5), flat(5)).min() == 0


def test_colour_noise_varies_along_imagenets_principal_components():
    colours = drawn(AugmentConfig(pca_noise=0.1), flat(128, count=2000))
    assert (np.abs(colours - colours[:, :1, :1]) < 1e-3).all()
    variances, directions = np.linalg.eigh(np.cov(colours[:, 0, 0].T))
    np.testing.assert_allclose(np.sqrt(variances), 25.5 * np.array([0.0045, 0.0188, 0.2175]), rtol=0.1)
    np.testing.assert_allclose(np.abs(directions[:, 1:]).T, [[0.719, 0.005, 0.695], [0.567, 0.581, 0.584]], atol=0.02)
    np.testing.assert_allclose(colours.mean((0, 1, 2)), 128, atol=0.5)


def test_colours_come_after_the_resampling():
    """So that the margin of a rotated image takes part in the shift as the rest does."""
    images = highest(AugmentConfig(zoom=0.0, shift=0.5, channel_shift=0.1), flat(100, count=1))
    np.testing.assert_allclose(images[0, -1, -1], [25.5] * 3, atol=1e-3)


# ---- cutout


def cut(side: int, size: int = 16, count: int = 400) -> np.ndarray:
    """Which places `(B, size, size)` of white images are at the mean."""
    augment = Augment(AugmentConfig(cutout=side), size, (0.5, 0.25, 0.5), (0.5, 0.5, 0.25))
    batch = augment(torch.from_numpy(flat(255, count, size)), np.random.default_rng(0))
    mean = (batch == 0).numpy()
    assert (mean == mean[:, :1]).all()  # the same place in all channels
    return mean[:, 0]


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8])
def test_cutout_is_a_square_that_may_hang_over_the_edge(side):
    for mask in cut(side):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        for places in (rows, columns):
            assert len(places) == places[-1] - places[0] + 1  # in one piece
            at_the_edge = places[0] == 0 or places[-1] == 15
            assert side / 2 - 0.5 <= len(places) <= side if at_the_edge else len(places) == side
        assert mask.sum() == len(rows) * len(columns)


@pytest.mark.parametrize("side", [2, 4, 8])
def test_cutout_in_the_middle_has_its_full_area(side):
    areas = cut(side).sum((1, 2))
    assert areas.max() == side * side
    assert areas.min() >= side * side / 4
    inside = ((16 - side) / 16) ** 2  # share of centres whose square does not hang over
    assert (areas == side * side).mean() >= inside - 0.08


def test_cutout_reaches_every_place_about_as_often():
    share = cut(4, count=4_000).mean(axis=0)
    assert share[2:-2, 2:-2] == pytest.approx(np.full((12, 12), 1 / 16), abs=0.02)
    assert share.min() > 0


def test_cutout_of_twice_the_side_leaves_nothing():
    assert cut(32).all()


def test_cutout_leaves_the_rest_alone():
    pixels = torch.from_numpy(noise(50))
    augment = Augment(AugmentConfig(cutout=4), 8, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    batch = augment(pixels, np.random.default_rng(0))
    expected = normalise(pixels, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    rest = batch != 0
    assert torch.equal(batch[rest], expected[rest])
    assert rest.float().mean() > 0.75


# ---- normalisation


@pytest.mark.parametrize("shape", [(4, 6, 5, 3), (4, 6, 5, 1), (1, 1, 1, 3), (2, 32, 32, 3)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalise_is_value_over_255_minus_mean_over_std(dtype, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406])[: shape[3]], np.array([0.229, 0.224, 0.225])[: shape[3]]
    result = normalise(torch.from_numpy(pixels).to(dtype), tuple(mean), tuple(std))
    assert result.dtype == torch.float32
    assert result.shape == (shape[0], shape[3], *shape[1:3])
    np.testing.assert_allclose(nhwc(result), (pixels / 255 - mean) / std, atol=2e-6)


def test_normalise_is_channels_last_and_a_copy():
    pixels = torch.from_numpy(noise()).float()
    before = pixels.clone()
    result = normalise(pixels, (0.5,) * 3, (0.5,) * 3)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels, before)


def test_normalise_takes_a_batch_that_lies_channels_first():
    pixels = torch.from_numpy(noise())
    lies_otherwise = pixels.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    result = normalise(lies_otherwise, (0.5,) * 3, (0.5,) * 3)
    assert torch.equal(result, normalise(pixels, (0.5,) * 3, (0.5,) * 3))
    assert result.is_contiguous(memory_format=torch.channels_last)


# ---- evaluation


@both_stores
@pytest.mark.parametrize(
    ("images", "batch_size", "sizes"), [(25, 10, [10, 10, 5]), (20, 10, [10, 10]), (3, 10, [3]), (4, 1, [1, 1, 1, 1])]
)
def test_evaluation_sees_each_image_once_in_order(images, batch_size, sizes, store):
    pixels = noise(images)
    batches = EvalBatches(store(pixels), np.arange(images), batch_size, (0.0,) * 3, (1 / 255,) * 3)
    assert len(batches) == len(sizes)
    for _ in range(2):  # as often as asked for
        seen = list(batches)
        assert [len(labels) for _, labels in seen] == sizes
        assert torch.cat([labels for _, labels in seen]).tolist() == list(range(images))
        np.testing.assert_allclose(nhwc(torch.cat([batch for batch, _ in seen])), pixels, atol=1e-4)


def test_evaluation_is_normalised_float32_in_channels_last():
    pixels, mean, std = noise(7), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    images, labels = next(iter(EvalBatches(ArrayImages(pixels), np.arange(7), 7, mean, std)))
    assert torch.equal(images, normalise(torch.from_numpy(pixels), mean, std))
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.dtype == torch.int64


# ---- reading ahead


class Breaks(Streamed):
    """Cannot be read from the third batch on."""

    def take(self, indices: np.ndarray) -> np.ndarray:
        if len(self.taken) >= 20:
            raise OSError("the disk is gone")
        return super().take(indices)


@pytest.fixture
def no_thread_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.usefixtures("no_thread_left")
def test_error_while_reading_ahead_is_raised_at_its_batch():
    batches = loader(store=Breaks).epoch(0)
    assert len(next(batches)[1]) == 10
    assert len(next(batches)[1]) == 10
    with pytest.raises(OSError, match=r"^the disk is gone$"):
        next(batches)


@pytest.mark.usefixtures("no_thread_left")
@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_stopping_early_ends_the_thread(steps):
    batches = loader(store=Streamed).epoch(0)
    for _ in range(steps):
        next(batches)
    batches.close()


@pytest.mark.usefixtures("no_thread_left")
def test_breaking_out_of_the_loop_ends_the_thread():
    for _images, _labels in loader(store=Streamed).epoch(0):
        break


@pytest.mark.usefixtures("no_thread_left")
def test_error_in_the_loop_ends_the_thread():
    def training():
        for images, _labels in loader(store=Streamed).epoch(0):
            raise ArithmeticError(f"loss of {len(images)} images is not finite")

    with pytest.raises(ArithmeticError):
        training()


@pytest.mark.usefixtures("no_thread_left")
def test_whole_epoch_ends_the_thread():
    assert len(list(loader(store=Streamed).epoch(0))) == 6


def test_only_a_few_batches_are_read_ahead():
    images = Streamed(noise(400))
    batches = TrainBatches(images, np.arange(400), 10, plain(AugmentConfig()), seed=0).epoch(0)
    next(batches)
    time.sleep(0.2)  # in which a greedy thread would read them all
    batches.close()
    assert 10 <= len(images.taken) <= 50


def test_images_in_memory_need_no_thread():
    batches = loader().epoch(0)
    before = threading.active_count()
    next(batches)
    assert threading.active_count() == before
