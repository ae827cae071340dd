"""What modern recipes do to a batch: policies, mixing, erasing, repeats, growing sizes."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from cnnzoo.config import AugmentConfig
from cnnzoo.data.arrays import ArrayImages
from cnnzoo.data.augment import Augment, Mix
from cnnzoo.data.batches import TrainBatches
from cnnzoo.data.draws import Draws, Share
from cnnzoo.data.policies import RANGES, change


def noise(count: int = 8, side: int = 16, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, channels), np.uint8)


def smooth(count: int = 4, side: int = 32) -> torch.Tensor:
    """Pictures on the scale 0 to 1 in which neighbours are alike, as in photos."""
    rough = torch.from_numpy(noise(count, 8)).permute(0, 3, 1, 2) / 255
    return torch.nn.functional.interpolate(rough, (side, side), mode="bicubic").clamp(0, 1)


def batches(config: AugmentConfig, batch_size: int = 8, pixels: np.ndarray | None = None, **options) -> TrainBatches:
    pixels = noise(24) if pixels is None else pixels
    augment = Augment(config, pixels.shape[1], (0.5,) * 3, (0.5,) * 3, options.pop("epochs", 1))
    return TrainBatches(ArrayImages(pixels), np.arange(len(pixels)) % 4, batch_size, augment, seed=0, **options)


def draws(many: int = 8, seed: int = 0) -> Draws:
    return Draws(np.random.default_rng(seed), many)


# ---- policies


@pytest.mark.parametrize("factor", [-0.9, -0.3, 0.0, 0.5])
@pytest.mark.parametrize("name", ["brightness", "color", "contrast", "sharpness"])
def test_colours_change_as_torchvisions_do(name, factor):
    images = smooth()
    adjust = {"color": "saturation"}.get(name, name)
    expected = getattr(functional, f"adjust_{adjust}")(images, 1 + factor)
    torch.testing.assert_close(change(name, images, torch.full((4,), factor)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bits", [1, 3, 4])
def test_posterize_is_torchvisions(bits):
    pixels = torch.from_numpy(noise()).permute(0, 3, 1, 2)
    changed = change("posterize", pixels / 255, torch.full((8,), float(bits)))
    assert torch.equal((255 * changed).round().to(torch.uint8), functional.posterize(pixels, 8 - bits))


def test_solarize_is_torchvisions():
    images = smooth()
    expected = functional.solarize(images, 0.75)
    torch.testing.assert_close(change("solarize", images, torch.full((4,), 0.25)), expected)


@pytest.mark.parametrize("degrees", [-30.0, 20.0])
def test_rotation_is_torchvisions(degrees):
    images = smooth()
    expected = functional.affine(
        *(images, degrees, [0, 0], 1.0, [0.0, 0.0]), interpolation=functional.InterpolationMode.BILINEAR
    )
    torch.testing.assert_close(change("rotate", images, torch.full((4,), -degrees)), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("name", "moved"), [("translate_x", (0, 8)), ("translate_y", (8, 0))])
def test_translation_moves_by_a_share_of_the_side(name, moved):
    images = smooth()
    shifted = change(name, images, torch.full((4,), -0.25))
    rows, columns = moved
    torch.testing.assert_close(shifted[:, :, rows:, columns:], images[:, :, : 32 - rows, : 32 - columns])
    assert not shifted[:, :, :rows, :].any()
    assert not shifted[:, :, :, :columns].any()


@pytest.mark.parametrize("name", ["shear_x", "shear_y"])
def test_a_shear_leaves_the_middle_and_turns_back(name):
    images = smooth(side=33)
    there = change(name, images, torch.full((4,), 0.3))
    assert not torch.allclose(there, images, atol=0.05)
    torch.testing.assert_close(there[:, :, 16, 16], images[:, :, 16, 16])
    back = change(name, there, torch.full((4,), -0.3))
    assert (back - images)[:, :, 10:23, 10:23].abs().mean() < 0.02


@pytest.mark.parametrize("name", [name for name in RANGES if name != "identity"])
def test_each_image_is_changed_by_its_own_amount(name):
    images, amounts = smooth(), torch.tensor([0.0, 0.1, 0.2, 0.3]) * (10 if name in ("rotate", "posterize") else 1)
    together = change(name, images, amounts)
    alone = torch.cat([change(name, images[i : i + 1], amounts[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment"])
def test_a_policy_changes_every_image_in_its_own_way_and_stays_in_range(policy):
    config = AugmentConfig(policy=policy, policy_strength=20)
    pixels = np.repeat((255 * smooth(1).permute(0, 2, 3, 1)).byte().numpy(), 40, axis=0)
    images, _ = next(batches(config, 40, pixels).epoch(0))
    assert images.min() >= -1 - 1e-5
    assert images.max() <= 1 + 1e-5
    assert len({image.numpy().tobytes() for image in images}) > 20


def test_a_policy_takes_grey_images():
    config = AugmentConfig(policy="randaugment")
    augment = Augment(config, 16, (0.5,), (0.5,))
    assert augment(torch.from_numpy(noise(30, channels=1)), draws(30)).shape == (30, 1, 16, 16)


# ---- mixing


def test_mixup_mixes_neighbours_and_their_labels_by_one_share():
    images, labels = torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 3, 4, 4), torch.arange(8)
    mixed, targets = Mix(8, mixup=0.5)(images, labels, draws())
    torch.testing.assert_close(targets.sum(1), torch.ones(8))
    torch.testing.assert_close(mixed[:, 0, 0, 0], targets @ torch.arange(8.0))
    assert targets.nonzero().tolist() == sorted([[i, i] for i in range(8)] + [[i, i ^ 1] for i in range(8)])


def test_cutmix_pastes_a_window_and_labels_count_by_its_area():
    images, labels = torch.arange(8.0).reshape(8, 1, 1, 1).repeat(1, 3, 20, 20), torch.arange(8)
    for seed in range(20):
        mixed, targets = Mix(8, cutmix=1.0)(images, labels, draws(seed=seed))
        own = (mixed == images).float().mean((1, 2, 3))
        torch.testing.assert_close(targets[range(8), range(8)], own)
        torch.testing.assert_close(targets.sum(1), torch.ones(8))
        assert ((mixed == images) | (mixed == images[torch.arange(8) ^ 1])).all()


def test_cutmix_leaves_the_share_drawn_but_for_what_the_edge_cuts_off_its_window():
    image, labels = torch.zeros(2, 1, 20, 20), torch.arange(2)
    own = [Mix(2, cutmix=1.0)(image, labels, draws(2, seed))[1][0, 0] for seed in range(1_000)]
    # A window of side s keeps s - s**2 / 4 of it along each side on average; s**2 is even between 0 and 1.
    assert np.mean(own) == pytest.approx(1 - (1 / 2 - 1 / 5 + 1 / 48), abs=0.03)


def test_with_both_some_batches_are_mixed_and_some_cut():
    images, labels = torch.arange(4.0).reshape(4, 1, 1, 1).repeat(1, 3, 16, 16), torch.arange(4)
    cut = 0
    for seed in range(40):
        mixed, _ = Mix(4, mixup=1.0, cutmix=1.0)(images, labels, draws(4, seed))
        cut += bool(((mixed == images) | (mixed == images[torch.arange(4) ^ 1])).all())
    assert 8 < cut < 32


def test_an_odd_image_out_keeps_itself():
    images, labels = torch.rand(5, 3, 8, 8), torch.arange(5)
    mixed, targets = Mix(5, mixup=1.0)(images, labels, draws(5))
    torch.testing.assert_close(mixed[4], images[4])
    assert targets[4].tolist() == [0, 0, 0, 0, 1]


def test_labels_are_shares_of_all_classes_of_a_head_that_has_more_than_the_images():
    _, targets = next(batches(AugmentConfig(mixup=0.5), classes=7).epoch(0))
    assert targets.shape == (8, 7)


# ---- erasing, repeats, sizes


def test_erasing_sets_a_window_of_so_many_images_to_the_mean():
    augment = Augment(AugmentConfig(erasing=0.5), 32, (0.5,) * 3, (0.5,) * 3)
    batch = augment(torch.full((400, 32, 32, 3), 255, dtype=torch.uint8), draws(400))
    gone = (batch == 0).all(1)
    areas = gone.float().mean((1, 2))
    assert 0.4 < (areas > 0).float().mean() < 0.6
    assert areas[areas > 0].min() > 0.01
    assert areas.max() < 0.36
    for image in gone[areas > 0]:  # a rectangle is the product of its rows and columns
        assert torch.equal(image, image.any(1)[:, None] & image.any(0)[None])


def test_erasing_favours_no_edge():
    augment = Augment(AugmentConfig(erasing=1.0), 4, (0.5,) * 3, (0.5,) * 3)
    gone = (augment(torch.full((10_000, 4, 4, 3), 255, dtype=torch.uint8), draws(10_000)) == 0).all(1)
    often = gone.float().mean(0)
    torch.testing.assert_close(often, often.flip(0, 1), atol=0.05, rtol=0)
    torch.testing.assert_close(often, often.T, atol=0.05, rtol=0)


def test_repeated_images_fill_a_batch_each_augmented_anew():
    pixels = np.repeat(np.arange(24, dtype=np.uint8), 16 * 16 * 3).reshape(24, 16, 16, 3)
    loader = batches(AugmentConfig(repeats=4, brightness=0.5), 8, pixels)
    seen = []
    for images, labels in loader.epoch(0):
        assert images.shape[0] == 8
        assert len(labels.unique()) <= 2
        seen.append(labels)
    assert len(seen) == len(loader) == 3
    assert len({image.numpy().tobytes() for image in next(loader.epoch(0))[0]}) > 4


def test_sizes_grow_evenly_and_end_whole():
    config = AugmentConfig(grows_from=0.5, grown_at=0.8)
    loader = batches(config, pixels=noise(8, 32), epochs=10)
    sizes = [next(loader.epoch(epoch))[0].shape[-1] for epoch in range(10)]
    assert sizes == [16, 16, 20, 24, 24, 24, 28, 32, 32, 32]  # fours, as near as can be


@pytest.mark.parametrize(("size", "unit"), [(2, 4), (5, 4), (31, 4), (127, 4), (128, 32), (159, 32)])
def test_sizes_grow_by_what_nets_can_halve_from_one_such_step_to_the_size_asked_for(size, unit):
    augment = Augment(AugmentConfig(grows_from=0.01, grown_at=1), size, (0.5,), (0.5,), epochs=1000)
    sizes = [augment.at(epoch).size for epoch in range(1001)]
    assert list(dict.fromkeys(sizes)) == [*range(unit, size, unit), size]


@pytest.mark.parametrize("size", [5, 17, 97, 227, 299, 331])
def test_images_are_of_the_size_asked_for_in_every_epoch_unless_they_are_to_grow(size):
    augment = Augment(AugmentConfig(crop="resized", flip=True), size, (0.5,), (0.5,), epochs=10)
    assert [augment.at(epoch).size for epoch in range(10)] == [size] * 10


def test_parts_of_photos_are_cut_at_the_size_of_the_epoch():
    config = AugmentConfig(crop="resized", grows_from=0.5)
    loader = batches(config, pixels=noise(8, 32), epochs=4)
    assert next(loader.epoch(0))[0].shape == (8, 3, 16, 16)
    assert next(loader.epoch(3))[0].shape == (8, 3, 32, 32)


# ---- shares


EVERYTHING = AugmentConfig(
    flip=True,
    crop="padded",
    rotation=10,
    brightness=0.2,
    channel_shift=0.1,
    pca_noise=0.1,
    cutout=4,
    mixup=0.5,
    cutmix=0.5,
    policy="randaugment",
    erasing=0.5,
)


@pytest.mark.parametrize("config", [EVERYTHING, AugmentConfig(flip=True, crop="resized")], ids=["all", "resized"])
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_together_see_what_one_would(config, processes):
    whole = next(batches(config).epoch(1, 2))
    parts = [next(batches(config, share=Share(i, processes)).epoch(1, 2)) for i in range(processes)]
    for one, other in zip(whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(other), one, atol=1e-5, rtol=0)
