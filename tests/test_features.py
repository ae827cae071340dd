"""Frozen features are computed once in an image's life, and equal what the live net gives."""

import functools
import os
import resource
import sqlite3
from dataclasses import replace

import numpy as np
import photos
import pytest
import torch
from conftest import PRELOADED

import cnnzoo
from cnnzoo.config import AugmentConfig, DataConfig
from cnnzoo.data import sources
from cnnzoo.data.arrays import choose
from cnnzoo.data.augment import Augment
from cnnzoo.errors import InputError
from cnnzoo.inference import forms
from cnnzoo.transfer import features


@pytest.fixture
def net():
    torch.manual_seed(0)
    return cnnzoo.create("resnet20").eval()


def load(folder):
    return sources.load(DataConfig(source=str(folder)), AugmentConfig(), 32)


def extract(net, data, folder, **options):
    tell = options.pop("tell", print)
    return features.Backbone(net, data.preprocess, folder, tell).extract(data.train.images, **options)


def test_cached_logits_equal_live_ones(net, tmp_path):
    data = load(photos.folder(tmp_path / "photos"))
    extract(net, data, tmp_path / "cache")
    cached = extract(net, data, tmp_path / "cache")
    assert cached.computed == 0
    live = torch.stack([data.preprocess(pixels) for pixels in data.train.images.take(np.arange(len(data.train)))])
    with torch.no_grad():
        logits = net.get_classifier()(torch.from_numpy(cached.plain))
        assert (logits - net(live)).abs().max() <= 1e-5


def test_rows_are_fp32s_within_a_callers_autocast(net, tmp_path):
    data = load(photos.folder(tmp_path / "photos"))
    with torch.autocast("cpu"):
        within = extract(net, data, tmp_path / "cache")
    np.testing.assert_array_equal(within.vectors, extract(net, data, tmp_path / "other").vectors)


def test_a_fast_form_is_made_where_so_many_images_are_to_come_that_it_pays(tmp_path, monkeypatch):
    made, export, net = [], forms.exported, cnnzoo.create("lenet5", in_chans=3)
    monkeypatch.setattr(forms, "exported", lambda *given: made.append(given) or export(*given))
    data = load(photos.folder(tmp_path / "photos"))
    images, last = data.train.images, np.arange(len(data.train) - 1, len(data.train))
    augment = Augment(AugmentConfig(flip=True), 32, data.preprocess.mean, data.preprocess.std)
    assert len(images) == 30
    for views, more, fast in ((1, 69, False), (1, 70, True), (3, 0, False), (4, 0, True)):
        backbone = features.Backbone(net, data.preprocess, tmp_path / f"cache{views}{more}")
        backbone.extract(images, views=views, augment=augment, more=more)
        assert bool(made) == fast
        made.clear()
    backbone = features.Backbone(net, data.preprocess, tmp_path / "new")
    backbone.extract(choose(images, last))
    backbone.extract(images, more=70)  # of which, by these, one in thirty is known
    assert not made


def test_nets_of_other_arguments_never_meet_each_others_rows(tmp_path):
    """The same weights and another pooling: other features, of which no weight tells."""
    data, found = load(photos.folder(tmp_path / "photos")), []
    for pool in ("avg", "max"):
        torch.manual_seed(0)
        found.append(extract(cnnzoo.create("resnet20", global_pool=pool).eval(), data, tmp_path / "cache"))
    assert [each.computed for each in found] == [len(data.train)] * 2
    assert np.abs(found[0].vectors - found[1].vectors).max() > 0.1


def test_views_of_another_size_or_augmentation_or_seed_are_other_views(net, tmp_path):
    data = load(photos.folder(tmp_path / "photos"))
    others = ((24, "resized", 0, 1), (32, None, 0, 1), (32, "resized", 1, 1))
    drawn = ((32, "resized", 0, 2), *others, (32, "resized", 0, 0))
    for size, crop, seed, fresh in drawn:
        augment = Augment(AugmentConfig(flip=True, crop=crop), size, data.preprocess.mean, data.preprocess.std)
        found = extract(net, data, tmp_path / "cache", views=2, augment=augment, seed=seed)
        assert found.computed == fresh * len(data.train)


def test_what_mixes_whole_batches_has_no_part_in_a_view(net, tmp_path):
    data = load(photos.folder(tmp_path / "photos"))
    plain = AugmentConfig(flip=True, crop="resized")
    for config, fresh in ((plain, 2 * len(data.train)), (replace(plain, mixup=0.2, cutmix=1.0, repeats=2), 0)):
        augment = Augment(config, 32, data.preprocess.mean, data.preprocess.std)
        assert extract(net, data, tmp_path / "cache", views=2, augment=augment).computed == fresh


def test_one_changed_photo_is_one_row(net, tmp_path):
    folder = photos.folder(tmp_path / "photos")
    data = load(folder)
    first = extract(net, data, tmp_path / "cache")
    assert first.computed == len(data.train)
    changed = data.train.names[3]
    photos.picture(0, 99).save(changed)
    data = load(folder)
    second = extract(net, data, tmp_path / "cache")
    assert second.computed == 1
    same = (first.vectors == second.vectors).all(axis=(1, 2))
    assert [data.train.names[i] for i in np.flatnonzero(~same)] == [changed]


def test_bf16_is_tried_for_many_images(net, tmp_path, monkeypatch):
    monkeypatch.setattr("cnnzoo.device.computes_in_bf16", lambda device: True)
    made, convert = [], forms.converted
    monkeypatch.setattr("cnnzoo.inference.forms.converted", lambda *given: made.append(given) or convert(*given))
    data = load(photos.folder(tmp_path / "photos", each=50))  # 120 to train on
    for more, tried in ((0, 0), (179, 0), (180, 1)):
        found = extract(net, data, tmp_path / f"{more}", more=more)
        assert found.computed == len(data.train)
        assert len(made) == tried


def test_other_weights_or_preprocessing_never_meet_old_rows(net, tmp_path):
    data = load(photos.folder(tmp_path / "photos"))
    extract(net, data, tmp_path)
    with torch.no_grad():
        net.get_submodule("fc" if hasattr(net, "fc") else net.entry.head).weight.add_(1)
    assert extract(net, data, tmp_path).computed == 0  # the head is no part of it
    with torch.no_grad():
        next(net.parameters()).add_(0.01)
    assert extract(net, data, tmp_path).computed == len(data.train)
    wanted = replace(data.preprocess, mean=(0.1, 0.2, 0.3))
    assert features.Backbone(net, wanted, tmp_path).extract(data.train.images).computed == len(data.train)


@pytest.mark.parametrize(
    "config", [AugmentConfig(flip=True, rotation=20), AugmentConfig(crop="padded")], ids=["", "padded"]
)
def test_views_are_drawn_once_each_image_by_itself(config, net, tmp_path):
    data = load(photos.folder(tmp_path / "photos"))
    augment = Augment(config, 32, data.preprocess.mean, data.preprocess.std)
    first = extract(net, data, tmp_path, views=3, augment=augment)
    assert first.vectors.shape == (len(data.train), 3, 64)
    assert first.computed == 3 * len(data.train)
    assert extract(net, data, tmp_path, views=3, augment=augment).computed == 0
    assert extract(net, data, tmp_path, views=4, augment=augment).computed == len(data.train)
    plain, one, two = first.vectors.transpose(1, 0, 2)
    np.testing.assert_array_equal(plain, extract(net, data, tmp_path).plain)
    assert not np.allclose(plain, one)
    assert not np.allclose(one, two)


def test_a_net_that_gives_no_features_is_told(tmp_path):
    wanted = load(photos.folder(tmp_path / "photos")).preprocess
    with pytest.raises(InputError, match="Linear has no forward_features and forward_head, so it gives no features"):
        features.Backbone(torch.nn.Linear(2, 2), wanted, tmp_path)


@pytest.mark.parametrize("damage", ["cut short", "overwritten", "a row changed"])
def test_a_damaged_cache_is_told_and_built_anew(net, tmp_path, damage):
    data = load(photos.folder(tmp_path / "photos"))
    good = extract(net, data, tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*.sqlite")
    if damage == "a row changed":
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE vectors SET vector = zeroblob(256) WHERE rowid = 1")
        connection.close()
    else:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] if damage == "cut short" else b"x" * 4096)
    told = []
    again = extract(net, data, tmp_path / "cache", tell=told.append)
    assert again.computed == len(data.train)
    np.testing.assert_allclose(again.vectors, good.vectors, rtol=1e-4, atol=1e-5)  # by another form of the net, perhaps
    assert len(told) == 1
    assert "was damaged" in told[0]
    assert str(file) in told[0]
    assert extract(net, data, tmp_path / "cache").computed == 0


def test_a_damaged_cache_that_may_not_be_removed_is_told_and_nothing_else_changes(net, tmp_path, monkeypatch):
    data = load(photos.folder(tmp_path / "photos"))
    extract(net, data, tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*.sqlite")
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE vectors SET vector = zeroblob(256) WHERE rowid = 1")
    connection.close()

    def unlink(path, missing_ok=False):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.unlink", unlink)
    told = []
    assert extract(net, data, tmp_path / "cache", tell=told.append).computed == len(data.train)
    assert ["was damaged" in told[0], "cannot be kept" in told[1]] == [True, True]


def test_a_cache_that_cannot_be_written_is_told_and_nothing_else_changes(net, tmp_path):
    data = load(photos.folder(tmp_path / "photos"))
    (tmp_path / "file").write_text("no folder")
    told = []
    found = extract(net, data, tmp_path / "file", tell=told.append)
    assert found.computed == len(data.train)
    assert len(told) == 1
    assert "cannot be kept" in told[0]


def test_a_cache_that_cannot_be_read_for_a_moment_is_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, timeout=0))
    rows, told = {b"key": np.arange(3, dtype=np.float32)}, []
    with features.Store(tmp_path / "rows.sqlite", 3, told.append) as store:
        store.put(rows)
        other = sqlite3.connect(store.file)
        other.execute("BEGIN EXCLUSIVE")
        assert store.get([b"key"]) == {}
        other.close()
    assert told == [
        f"features cannot be kept in {store.file} (database is locked), so the next run computes them again"
    ]
    with features.Store(store.file, 3, told.append) as store:
        np.testing.assert_array_equal(store.get([b"key"])[b"key"], rows[b"key"])


def _extract_on_a_full_disk(folder, cache, decoded, results):
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # nothing larger can be written
    os.environ["CNNZOO_CACHE"] = str(decoded)
    torch.manual_seed(0)
    told, data = [], load(folder)
    found = extract(cnnzoo.create("resnet20").eval(), data, cache, tell=told.append)
    results.put(([*data.notes, *told], found.computed, float(found.vectors.sum())))


def test_a_disk_that_fills_costs_only_the_cache(net, tmp_path):
    folder, results = photos.folder(tmp_path / "photos", each=40), PRELOADED.Queue()
    arguments = (folder, tmp_path / "cache", tmp_path / "decoded", results)
    PRELOADED.Process(target=_extract_on_a_full_disk, args=arguments).start()
    told, computed, total = results.get(timeout=120)
    assert any("decoded photos cannot be kept (File too large" in line for line in told)
    assert any("features cannot be kept" in line for line in told)
    whole = extract(net, load(folder), tmp_path / "other")
    assert computed == whole.computed == 96
    assert total == pytest.approx(float(whole.vectors.sum()), rel=1e-5)
    assert not list(tmp_path.rglob("*.part"))


def _extract_there(folder, cache, results):
    torch.manual_seed(0)
    results.put(extract(cnnzoo.create("resnet20").eval(), load(folder), cache).computed)


def test_two_processes_at_once_leave_one_whole_cache(net, tmp_path):
    folder = photos.folder(tmp_path / "photos")
    load(folder)
    results = PRELOADED.Queue()
    both = [PRELOADED.Process(target=_extract_there, args=(folder, tmp_path / "cache", results)) for _ in range(2)]
    for process in both:
        process.start()
    computed = sorted(results.get(timeout=120) for _ in both)
    for process in both:
        process.join()
    data = load(folder)
    assert computed == [0, len(data.train)]
    assert extract(net, data, tmp_path / "cache").computed == 0
