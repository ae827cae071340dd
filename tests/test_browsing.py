"""`cnnzoo browse`: what a config trains on, as the net gets to see it."""

import numpy as np
import photos
import pytest
from PIL import Image

import cnnzoo
from cnnzoo.errors import InputError
from cnnzoo.telling import silent


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return photos.folder(tmp_path_factory.mktemp("photos"))


def browse(source, **options):
    """A batch of small photos, without any augmentation but what is given (as section__key)."""
    keys = {key.replace("__", "."): value for key, value in options.items() if "__" in key}
    others = {key: value for key, value in options.items() if "__" not in key}
    config = {"model.name": "resnet20", "data.source": str(source), "data.size": 32, "augment.flip": False, **keys}
    return cnnzoo.browse(config, tell=silent, **others)


def test_without_augmentation_the_images_are_the_photos_with_their_classes(source):
    batch = browse(source, data__size=40, data__resize=40)
    classes = {np.asarray(Image.open(file)).tobytes(): file.parent.name for file in source.rglob("*.png")}
    assert batch.images.shape == (24, 40, 40, 3)
    assert [classes.get(image.tobytes()) for image in batch.images] == batch.names()


def test_mixed_images_tell_their_shares(source):
    plain, mixed = browse(source), browse(source, augment__cutmix=1.0, train__batch_size=8)
    assert mixed.images.shape == (8, 32, 32, 3)
    assert mixed.targets.sum(1) == pytest.approx(np.ones(8))
    assert any(" + " in name and name.count("%") == 2 for name in mixed.names())
    assert not any("%" in name for name in plain.names())


def test_an_epoch_has_its_own_images_and_its_own_size(source):
    first, last = (browse(source, epoch=epoch, augment__grows_from=0.5, train__epochs=4) for epoch in (1, 4))
    assert first.images.shape[1] < last.images.shape[1] == 32
    again = browse(source, epoch=4, augment__grows_from=0.5, train__epochs=4)
    assert np.array_equal(again.images, last.images)
    assert not np.array_equal(browse(source).images, browse(source, epoch=2).images)


def test_the_command_draws_a_picture_and_leaves_no_run(source, tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    code, out, _ = cli("browse", "--data.source", source, "--model", "resnet20", "--many", "5", "--out", "seen.png")
    assert code == 0
    assert f"5 images of {source} as epoch 1 begins with them, 32x32: seen.png" in out
    assert [file.name for file in tmp_path.iterdir()] == ["seen.png"]
    with Image.open("seen.png") as seen:
        assert min(seen.size) > 100


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"epoch": 11}, "epoch is 11, but the config has 10 epochs"),
        ({"epoch": 0}, "epoch is 0, but must be a whole number of at least 1"),
        ({"many": 0}, "many is 0, but must be a whole number of at least 1"),
    ],
)
def test_what_there_is_not_is_told(source, options, told):
    with pytest.raises(InputError, match=told):
        browse(source, **options)
