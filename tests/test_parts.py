"""Random parts of photos: drawn as torchvision draws them, cut and resized to its pixels; JPEGs decoded to PIL's."""

import io
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision import transforms
from torchvision.transforms import functional

from cnnzoo.config import AugmentConfig
from cnnzoo.data import jpeg, parts
from cnnzoo.data.arrays import ArrayImages, FileImages
from cnnzoo.data.augment import Augment
from cnnzoo.data.batches import EvalBatches, TrainBatches
from cnnzoo.data.decoding import decode_content
from cnnzoo.data.draws import Draws, Share
from cnnzoo.data.parts import Parts
from cnnzoo.data.preprocess import Geometry
from cnnzoo.errors import InputError
from cnnzoo.machine import Scratch

RESIZED = AugmentConfig(crop="resized", flip=True)
REAL = Path(os.environ.get("CNNZOO_DATA", "nowhere"))


def scene(width: int = 240, height: int = 180, seed: int = 0) -> Image.Image:
    """Smooth shapes with edges and some noise, as photos have them."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((width, height), Image.BICUBIC)
    pixels = np.asarray(coarse).astype(int) + rng.normal(0, 6, (height, width, 1)).astype(int)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def as_jpeg(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 92, **options})
    return buffer.getvalue()


def by_pil(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(ImageOps.exif_transpose(image))


def draw(config: AugmentConfig = RESIZED, size: int = 32, many: int = 8, seed: int = 0, share: Share | None = None):
    return Parts(config, size, Draws(np.random.default_rng(seed), many, share))


# ---- decoding

needs_turbo = pytest.mark.skipif(jpeg.simplejpeg is None, reason="simplejpeg is not installed")


@needs_turbo
@pytest.mark.skipif(not REAL.is_dir(), reason="CNNZOO_DATA does not say where real photos lie")
def test_every_real_photo_has_pils_pixels():
    files = [file for name in ("hymenoptera", "imagenet_samples") for file in (REAL / name).resolve().rglob("*.jpg")]
    assert len(files) > 800
    for file in files[::4]:
        content = file.read_bytes()
        with Image.open(file) as image:  # as it lies, whatever its EXIF tag says
            np.testing.assert_array_equal(jpeg.decode(content), np.asarray(image), err_msg=str(file))


@needs_turbo
@pytest.mark.parametrize(
    ("subsampling", "progressive", "size"),
    list(product(["4:4:4", "4:2:2", "4:2:0"], [False, True], [(64, 48), (61, 47)])),
)
def test_every_kind_of_jpeg_has_pils_pixels(subsampling, progressive, size):
    content = as_jpeg(scene(*size), subsampling=subsampling, progressive=progressive)
    np.testing.assert_array_equal(jpeg.decode(content), by_pil(content))


@needs_turbo
def test_grey_jpeg_has_pils_pixels_in_1_and_3_channels():
    content = as_jpeg(scene().convert("L"))
    np.testing.assert_array_equal(jpeg.decode(content, 1)[:, :, 0], by_pil(content))
    np.testing.assert_array_equal(jpeg.decode(content, 3), by_pil(content)[:, :, None].repeat(3, 2))


@needs_turbo
@pytest.mark.parametrize(
    "content",
    [
        as_jpeg(scene().convert("CMYK")),
        as_jpeg(scene())[:-500],
        as_jpeg(scene())[:60],
        b"",
        b"\xff\xd8\xff and no more",
        b"GIF89a",
    ],
    ids=["CMYK", "cut short", "header cut short", "empty", "no JPEG", "GIF"],
)
def test_what_is_not_ordinary_is_left_to_pil(content):
    assert jpeg.decode(content) is None


@needs_turbo
def test_grey_of_a_colour_jpeg_is_left_to_pil():
    content = as_jpeg(scene())
    assert jpeg.decode(content, 1) is None
    np.testing.assert_array_equal(np.asarray(decode_content(content, 1)), np.asarray(scene_of(content).convert("L")))


def scene_of(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize("side_up", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3])
def test_rotated_photos_are_upright(side_up, channels):
    exif = Image.Exif()
    exif[0x112] = side_up
    content = as_jpeg(scene().convert("L" if channels == 1 else "RGB"), exif=exif)
    np.testing.assert_array_equal(np.asarray(decode_content(content, channels)), by_pil(content))


def test_exif_behind_other_segments_counts():
    exif = Image.Exif()
    exif[0x112] = 6
    content = as_jpeg(scene(), exif=exif)
    colours = b"\xff\xff\xe2\x00\x0eno ICC\xff\xda1234"  # with a filling byte, and what looks like a scan
    content = content[:2] + colours + content[2:]
    np.testing.assert_array_equal(np.asarray(decode_content(content)), by_pil(content))
    assert decode_content(content).size == (180, 240)


@needs_turbo
@pytest.mark.parametrize("reduced", [2, 4, 8])
def test_reduced_jpeg_is_the_photo_at_a_fraction_of_its_size(reduced):
    image = scene(403, 301)
    small = jpeg.decode(as_jpeg(image), 3, reduced)
    assert small.shape == (-(-301 // reduced), -(-403 // reduced), 3)
    smaller = np.asarray(image.reduce(reduced)).astype(int)
    assert np.abs(small - smaller)[1:-1, 1:-1].mean() < 4


@needs_turbo
@pytest.mark.parametrize(
    ("options", "reduced"),
    [
        *product([{"subsampling": name} for name in ("4:4:4", "4:2:2", "4:2:0")], [1, 2, 4, 8]),
        ({"progressive": True}, 1),
        ({"restart_marker_blocks": 3}, 1),
    ],
    ids=str,
)
def test_the_upper_rows_are_those_of_the_whole(options, reduced):
    content, again = as_jpeg(scene(203, 157), **options), Scratch()
    whole = jpeg.decode(content, 3, reduced)
    for rows in range(1, 158, 3):
        upper, count = jpeg.decode(content, 3, reduced, rows=rows, into=again), -(-rows // reduced)
        assert len(upper) >= count
        np.testing.assert_array_equal(upper[:count], whole[:count])


@needs_turbo
def test_rows_that_nobody_wants_are_not_decoded():
    content = as_jpeg(scene(200, 160))
    assert len(jpeg.decode(content, rows=40)) < 60
    assert len(jpeg.decode(as_jpeg(scene(200, 160).convert("L")), 1, rows=40)) < 60


@needs_turbo
def test_what_is_wrong_with_a_photo_shows_in_its_upper_rows_too():
    content = as_jpeg(scene(200, 160))
    assert jpeg.decode(content[: len(content) // 2], rows=150) is None  # cut short within them
    assert jpeg.decode(content[:-100], rows=20) is None  # or below
    middle = len(content) // 2
    assert jpeg.decode(content[:middle] + b"\xff\xd3" + content[middle:], rows=150) is None


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_without_simplejpeg_parts_are_the_same(mode, monkeypatch):
    content, drawn = as_jpeg(scene().convert(mode)), draw(size=64)
    fast = [cut(drawn, place, content) for place in range(8)]
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    for place in range(8):
        np.testing.assert_array_equal(cut(drawn, place, content), fast[place])


# ---- drawing


def boxes(config: AugmentConfig, width: int, height: int, many: int = 4_000) -> np.ndarray:
    """`(many, 4)`: left, top, width, height."""
    drawn = draw(config, many=many)
    return np.array([drawn.box(image, width, height) for image in range(many)])


@pytest.mark.parametrize(("width", "height"), [(500, 375), (256, 256), (100, 300)])
def test_parts_are_drawn_as_torchvision_draws_them(width, height):
    torch.manual_seed(0)
    image = Image.new("L", (width, height))
    theirs = [transforms.RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(4_000)]
    top, left, part_height, part_width = np.array(theirs).T
    ours = boxes(AugmentConfig(crop="resized"), width, height).T
    for mine, other in zip(ours, (left, top, part_width, part_height), strict=True):
        shares = np.linspace(5, 95, 10)
        np.testing.assert_allclose(np.percentile(mine, shares), np.percentile(other, shares), atol=0.05 * width)


def test_parts_lie_within_the_image():
    for width, height in ((500, 375), (7, 5), (1, 1), (1, 40), (300, 3)):
        left, top, part_width, part_height = boxes(AugmentConfig(crop="resized"), width, height, 500).T
        assert min(left.min(), top.min()) >= 0
        assert min(part_width.min(), part_height.min()) >= 1
        assert (left + part_width).max() <= width
        assert (top + part_height).max() <= height


def test_a_strip_gives_as_much_as_the_ratios_allow():
    whole = AugmentConfig(crop="resized", scale=(1.0, 1.0))
    assert {tuple(box[2:]) for box in boxes(whole, 900, 90, 20)} == {(120, 90)}
    assert {tuple(box[2:]) for box in boxes(whole, 90, 900, 20)} == {(90, 120)}


def test_jittered_parts_are_windows_of_the_scaled_photo():
    config = AugmentConfig(crop="jittered", shorter_side=(256, 512))
    drawn = Parts(config, 224, Draws(np.random.default_rng(0), 2_000))
    left, top, width, height = np.array([drawn.box(image, 1000, 500) for image in range(2_000)]).T
    assert (width == height).all()
    assert (width.min(), width.max()) == pytest.approx((500 * 224 / 512, 500 * 224 / 256), abs=2)
    assert (left + width).max() > 950  # of the whole photo, not of its central square
    assert (top + height).max() <= 500


def test_parts_depend_on_the_place_in_the_batch_alone():
    whole = draw(many=8)
    halves = [draw(many=4, share=Share(place, 2)) for place in (0, 1)]
    for image in range(8):
        half = halves[image // 4]
        assert half.box(image % 4, 300, 200) == whole.box(image, 300, 200)
        assert half.mirrored[image % 4] == whole.mirrored[image]


# ---- cutting


def theirs(image: Image.Image, drawn: Parts, place: int) -> np.ndarray:
    left, top, width, height = drawn.box(place, *image.size)
    square = functional.resized_crop(image, top, left, height, width, [drawn.size, drawn.size])
    return np.asarray(functional.hflip(square) if drawn.mirrored[place] else square)


def cut(drawn: Parts, place: int, source: np.ndarray | bytes) -> np.ndarray:
    out = np.empty((drawn.size, drawn.size, 3), np.uint8)
    (drawn.cut_file if isinstance(source, bytes) else drawn.cut)(place, source, out)
    return out


@pytest.mark.parametrize("opencv", [True, False])
@pytest.mark.parametrize("size", [24, 64, 200])
def test_parts_have_torchvisions_pixels(size, opencv, monkeypatch):
    if not opencv:
        monkeypatch.setattr(parts, "cv2", None)
    image, drawn = scene(), draw(size=size)
    for place in range(8):
        difference = np.abs(cut(drawn, place, np.asarray(image)).astype(int) - theirs(image, drawn, place))
        assert difference.max() <= 2
        assert difference.mean() < 0.3
    assert len(set(drawn.mirrored)) == 2


@pytest.mark.parametrize("opencv", [True, False])
def test_grey_parts(opencv, monkeypatch):
    if not opencv:
        monkeypatch.setattr(parts, "cv2", None)
    image = scene().convert("L")
    for size, place in product((24, 200), range(4)):
        drawn, out = draw(size=size), np.empty((size, size, 1), np.uint8)
        drawn.cut(place, np.asarray(image)[:, :, None], out)
        assert np.abs(out[:, :, 0].astype(int) - theirs(image, drawn, place)).max() <= 2


@pytest.mark.parametrize("side_up", [1, 6])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_parts_of_files_are_those_of_their_pixels(mode, side_up):
    exif = Image.Exif()
    exif[0x112] = side_up
    content = as_jpeg(scene().convert(mode), exif=exif)
    pixels, drawn = np.asarray(decode_content(content)), draw(size=64)
    for place in range(8):
        np.testing.assert_array_equal(cut(drawn, place, content), cut(drawn, place, pixels))


@needs_turbo
def test_parts_of_large_photos_look_the_same_though_less_is_decoded(monkeypatch):
    content, drawn, scales = as_jpeg(scene(1600, 1200)), draw(size=48), []
    whole, decode_jpeg = np.asarray(scene_of(content)), jpeg.decode

    def noted(content, channels, reduced, **options):
        scales.append(reduced)
        return decode_jpeg(content, channels, reduced, **options)

    monkeypatch.setattr(jpeg, "decode", noted)
    for place in range(8):
        seen, box = cut(drawn, place, content).astype(int), drawn.box(place, 1600, 1200)
        assert min(box.width, box.height) / scales[place] >= 2 * 48
        # the part has moved by half a pixel at most
        left, top, width, height = (scales[place] * round(number / scales[place]) for number in box)
        expected = np.empty((48, 48, 3), np.uint8)
        parts.resize(whole[top : top + height, left : left + width], expected, bool(drawn.mirrored[place]))
        assert np.abs(seen - expected).mean() < 1
    assert max(scales) == 8


# ---- batches of files


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """20 photos of a colour each, of various sizes, whose number is their label."""
    for number in range(20):
        photo = Image.new("RGB", (60 + number, 90 - 2 * number), (12 * number, 255 - 12 * number, 100))
        photo.save(tmp_path / f"{number:02}.jpg", quality=95)
    return sorted(tmp_path.iterdir())


def batches(images, config: AugmentConfig = RESIZED, seed: int = 0) -> TrainBatches:
    augment = Augment(config, 16, (0.0,) * 3, (1 / 255,) * 3)
    return TrainBatches(images, np.arange(len(images)), 5, augment, seed)


def streamed(files: list[Path], workers: int = 2, squash: bool = False) -> FileImages:
    return FileImages(files, Geometry(3, 20, 20, "bilinear", squash), workers)


def test_threads_do_not_change_the_parts(files):
    epochs = [list(batches(streamed(files, workers)).epoch(3)) for workers in (1, 4)]
    for (images, labels), (same_images, same_labels) in zip(*epochs, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


def test_labels_stay_with_their_photos(files):
    for images, labels in batches(streamed(files)).epoch(0):
        np.testing.assert_allclose(images[:, 0, 8, 8], 12.0 * labels, atol=4)


def test_parts_come_from_the_whole_photo(tmp_path):
    photo = np.zeros((40, 200, 3), np.uint8)
    photo[:, :60] = photo[:, 140:] = 255  # the central square is black
    Image.fromarray(photo).save(tmp_path / "wide.png")
    seen = [images.mean().item() for images, _ in batches(streamed([tmp_path / "wide.png"] * 20)).epoch(0)]
    assert max(seen) > 60


def test_squashed_weights_see_parts_of_squashed_photos(tmp_path):
    photo = np.zeros((40, 200, 3), np.uint8)
    photo[:, :100] = 255
    Image.fromarray(photo).save(tmp_path / "wide.png")
    everything = AugmentConfig(crop="resized", scale=(1.0, 1.0), ratio=(1.0, 1.0))
    images, _ = next(batches(streamed([tmp_path / "wide.png"] * 20, squash=True), everything).epoch(0))
    assert (images[:, :, :, 0] > 250).all()
    assert (images[:, :, :, -1] < 5).all()


def test_rotation_comes_after_the_part(files):
    turned = AugmentConfig(crop="resized", rotation=30)
    images, _ = next(batches(streamed(files), turned).epoch(0))
    assert images.shape == (5, 3, 16, 16)
    assert (images[:, :, 0, 0] == 0).all(dim=1).any()  # a black corner


# ---- files that go bad in the middle of a run


@pytest.mark.parametrize("crop", ["resized", "padded"])
def test_another_of_the_batch_stands_in_for_a_photo_that_vanished(crop, files):
    images = batches(streamed(files), AugmentConfig(crop=crop, padding=1))
    files[7].unlink()
    labels = []
    for batch, targets in images.epoch(0):
        np.testing.assert_allclose(batch[:, 0, 8, 8], 12.0 * targets, atol=4)
        labels += targets.tolist()
    assert len(labels) == 20
    assert set(labels) == set(range(20)) - {7}
    assert list(images.problems) == [f"{files[7]}: there is no such file; others of its batch stand in for it"]


def test_each_photo_that_went_bad_is_told_once(files):
    images = batches(streamed(files))
    files[7].unlink()
    list(images.epoch(0))
    files[3].write_bytes(files[3].read_bytes()[:300])
    list(images.epoch(1))
    assert len(images.problems) == 2
    assert list(images.problems)[1].startswith(f"{files[3]}: it is cut short")


def test_a_disk_that_is_gone_ends_the_run(files):
    images = batches(streamed(files))
    for file in files:
        file.unlink()
    with pytest.raises(InputError, match=r"none of a batch's 5 images can be read any more: .*no such file"):
        next(images.epoch(0))


def test_a_photo_that_vanished_is_judged_as_black(files):
    images = EvalBatches(streamed(files), np.arange(20), 8, (0.0,) * 3, (1 / 255,) * 3)
    files[9].unlink()
    seen = torch.cat([batch for batch, _ in images])
    assert seen.shape[0] == 20
    assert (seen[9] == 0).all()
    assert (seen[8] > 0).any()
    assert list(images.problems) == [f"{files[9]}: there is no such file; it was judged as a black image"]
    assert len(list(images)) == 3
    assert len(images.problems) == 1


def test_elsewhere_a_photo_that_vanished_is_an_error(files):
    images = streamed(files)
    files[9].unlink()
    with pytest.raises(InputError, match=r"09\.jpg: there is no such file"):
        images.take(np.array([8, 9]))


def test_parts_of_kept_squares(files):
    kept = ArrayImages(streamed(files).take(np.arange(20)))
    for images, labels in batches(kept).epoch(0):
        assert images.shape == (5, 3, 16, 16)
        np.testing.assert_allclose(images[:, 0, 8, 8], 12.0 * labels, atol=4)
