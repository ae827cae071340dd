"""From an image file to what a net sees: any file PIL can read, upright and as published for the weights."""

import contextlib
import json
import os
import re
import struct
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image, features
from torchvision import models

import cnnzoo
from cnnzoo.data.decoding import Unreached, decode
from cnnzoo.data.pictures import Pictures, read_ahead
from cnnzoo.data.preprocess import Preprocess, Sheet, enough
from cnnzoo.errors import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = Preprocess(224, 256, MEAN, STD)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def photo(width: int, height: int, channels: int = 3) -> Image.Image:
    """Noise, in which every pixel counts."""
    pixels = np.random.default_rng(width * 10_000 + height).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


# ---- the weights' own preprocessing

PUBLISHED = {
    "resnet50 v1": (models.ResNet50_Weights.IMAGENET1K_V1, Preprocess(224, 256, MEAN, STD)),
    "resnet50 v2": (models.ResNet50_Weights.IMAGENET1K_V2, Preprocess(224, 232, MEAN, STD)),
    "inception v3": (models.Inception_V3_Weights.IMAGENET1K_V1, Preprocess(299, 342, MEAN, STD)),
    "efficientnet b3": (models.EfficientNet_B3_Weights.IMAGENET1K_V1, Preprocess(300, 320, MEAN, STD, "bicubic")),
}
SIZES = {
    "landscape": (640, 480),
    "portrait": (375, 500),
    "square": (300, 300),
    "side is the resize": (256, 256),
    "side is the crop": (224, 224),
    "small": (90, 60),
    "tiny": (5, 7),
    "one pixel": (1, 1),
    "odd": (333, 257),
    "odd after scaling": (501, 337),
    "panorama": (1601, 251),
    "tower": (37, 501),
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(("weights", "ours"), PUBLISHED.values(), ids=PUBLISHED)
def test_equals_torchvisions_published_preprocessing(weights, ours, size):
    image = photo(*size)
    theirs = weights.transforms()
    torch.testing.assert_close(ours(image), theirs(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(("weights", "ours"), PUBLISHED.values(), ids=PUBLISHED)
def test_pixels_are_identical_to_torchvisions(weights, ours, size):
    image = photo(*size)
    unnormalised = weights.transforms(mean=(0, 0, 0), std=(1, 1, 1))
    theirs = (unnormalised(image) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(ours.pixels(image), theirs)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(("weights", "ours"), PUBLISHED.values(), ids=PUBLISHED)
def test_where_it_need_not_be_exact_it_is_the_same_within_a_level_or_two(weights, ours, size):
    exact, sooner = (replace(ours.geometry, exactly=each).fit(photo(*size)).astype(int) for each in (True, False))
    assert np.abs(sooner - exact).max() <= (2 if ours.interpolation == "bicubic" else 1)
    assert np.abs(sooner - exact).mean() < 0.02


# ---- shape, margin, values


@pytest.mark.parametrize("size", [(640, 480), (375, 500)])
@pytest.mark.parametrize(
    ("name", "tag"), [("googlenet_2014", "bvlc_in1k"), ("resnet50", "tv2_in1k"), ("inception_v3", "tv_in1k")]
)
def test_timm_prepares_photos_for_a_net_as_it_does_itself(name, tag, size):
    net = cnnzoo.create(name)
    row = next(row for row in cnnzoo.list_weights(name) if row.tag == tag)
    net.preprocessing = Preprocess.from_dict(row.preprocess)
    theirs, image = timm.data.create_transform(**timm.data.resolve_data_config(model=net)), photo(*size)
    torch.testing.assert_close(theirs(image), net.preprocessing(image), atol=1e-5, rtol=0)


def test_timm_knows_the_size_that_a_net_without_weights_takes():
    assert timm.data.resolve_data_config(model=cnnzoo.create("inception_v3"))["input_size"] == (3, 299, 299)


def test_result_is_channels_height_width_in_float32():
    result = IMAGENET(photo(300, 260))
    assert result.shape == (3, 224, 224)
    assert result.dtype == torch.float32


def test_normalisation_is_value_over_255_minus_mean_over_std():
    result = Preprocess(1, 1, (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))(Image.new("RGB", (4, 4), (255, 0, 102)))
    torch.testing.assert_close(result.flatten(), torch.tensor([1.0, -1.0, 0.2]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("side", "before", "after"), [(28, 2, 2), (27, 2, 3), (31, 0, 1), (32, 0, 0)])
def test_image_smaller_than_the_square_gets_a_black_margin(side, before, after):
    image = Image.new("L", (side, side), 255)
    pixels = Preprocess(32, side, (0.1,), (0.3,)).pixels(image)[:, :, 0]
    expected = np.pad(np.full((side, side), 255, np.uint8), (before, after))
    np.testing.assert_array_equal(pixels, expected)


def test_margin_is_black_before_the_normalisation():
    result = Preprocess(32, 28, (0.1,), (0.4,))(Image.new("L", (28, 28), 255))
    assert result[0, 0, 0].item() == pytest.approx(-0.25)
    assert result[0, 2, 2].item() == pytest.approx(2.25)


def test_square_image_of_the_right_size_keeps_its_pixels():
    image = photo(8, 8)
    np.testing.assert_array_equal(Preprocess(8, 8, MEAN, STD).pixels(image), np.asarray(image))


def test_square_image_needs_no_warning():
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # else torch says it once in a process
    try:
        assert Preprocess(8, 8, MEAN, STD)(photo(8, 8)).shape == (3, 8, 8)
    finally:
        torch.set_warn_always(always)


@pytest.mark.parametrize(("name", "resampling"), [("nearest", 0), ("lanczos", 1), ("bilinear", 2), ("bicubic", 3)])
def test_interpolation_is_pils(name, resampling):
    image = photo(40, 40)
    expected = np.asarray(image.resize((16, 16), resampling))
    np.testing.assert_array_equal(Preprocess(16, 16, MEAN, STD, name).pixels(image), expected)


@pytest.mark.parametrize("preprocess", [IMAGENET, Preprocess(32, 28, (0.1307,), (0.3081,), "bicubic")])
def test_survives_json(preprocess):
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


def test_one_mean_makes_grey_images():
    preprocess = Preprocess(8, 8, (0.5,), (0.5,))
    assert preprocess.channels == 1
    assert preprocess(Image.new("RGB", (9, 9), RED)).shape == (1, 8, 8)


# ---- whatever holds the picture


@pytest.mark.parametrize(
    "form",
    [str, lambda file: file, Image.open, lambda file: np.asarray(Image.open(file)).copy()],
    ids=["str", "Path", "PIL", "array"],
)
def test_file_pil_and_array_give_the_same(form, tmp_path):
    photo(70, 50).save(tmp_path / "photo.png")
    expected = IMAGENET(photo(70, 50))
    torch.testing.assert_close(IMAGENET(form(tmp_path / "photo.png")), expected, rtol=0, atol=0)


def test_tensor_gives_the_same():
    image = photo(70, 50)
    tensor = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    torch.testing.assert_close(IMAGENET(tensor), IMAGENET(image), rtol=0, atol=0)


@pytest.mark.parametrize("preprocess", [IMAGENET, Preprocess(32, 28, (0.1,), (0.3,))], ids=["colour", "grey"])
@pytest.mark.parametrize(
    "form",
    [
        lambda grey: grey,
        lambda grey: grey[:, :, None],
        lambda grey: torch.from_numpy(grey),
        lambda grey: torch.from_numpy(grey)[None],
    ],
    ids=["array (H, W)", "array (H, W, 1)", "tensor (H, W)", "tensor (1, H, W)"],
)
def test_grey_array_and_tensor_give_the_same(form, preprocess):
    image = photo(30, 41, channels=1)
    grey = np.asarray(image).copy()
    torch.testing.assert_close(preprocess(form(grey)), preprocess(image), rtol=0, atol=0)


@pytest.mark.parametrize(
    "picture",
    [np.zeros((4, 4, 3), np.float32), np.zeros((2, 4, 4, 3), np.uint8), torch.zeros(3, 4, 4), np.zeros(4, np.uint8)],
    ids=["float array", "batch", "float tensor", "one dimension"],
)
def test_array_that_is_no_picture_is_refused(picture):
    is_array = isinstance(picture, np.ndarray)
    wanted = f"{'array' if is_array else 'tensor'} of shape (H, W) or {'(H, W, C)' if is_array else '(C, H, W)'}"
    given = rf"not (float32|uint8) of shape {re.escape(str(tuple(picture.shape)))}"
    with pytest.raises(InputError, match=f"^a picture is a uint8 {re.escape(wanted)}, {given}"):
        IMAGENET(picture)


# ---- decoding


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"])
def test_every_mode_becomes_8_bit_rgb_or_grey(mode, channels, tmp_path):
    ending = {"CMYK": "tif", "I": "tif", "F": "tif", "YCbCr": "jpg"}.get(mode, "png")
    file = tmp_path / f"image.{ending}"
    Image.new(mode, (6, 4)).save(file)
    image = decode(file, channels)
    assert image.mode == {1: "L", 3: "RGB"}[channels]
    assert image.size == (6, 4)


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "gif", "webp", "tif", "ppm"])
def test_format_does_not_matter(ending, tmp_path):
    Image.new("RGB", (16, 16), RED).save(tmp_path / f"image.{ending}")
    np.testing.assert_allclose(array(decode(tmp_path / f"image.{ending}"))[8, 8], RED, atol=3)


def test_content_counts_and_not_the_ending(tmp_path):
    Image.new("RGB", (3, 2), RED).save(tmp_path / "image.jpg", format="PNG")
    assert decode(tmp_path / "image.jpg").getpixel((0, 0)) == RED


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_grey_has_three_equal_channels(ending, tmp_path):
    image = photo(9, 7, channels=1)
    image.save(tmp_path / f"grey.{ending}")
    decoded = array(decode(tmp_path / f"grey.{ending}"))
    assert decoded.shape == (7, 9, 3)
    assert (decoded == decoded[:, :, :1]).all()
    if ending == "png":
        np.testing.assert_array_equal(decoded[:, :, 0], array(image))


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_scans_in_floats_are_on_one_of_three_scales(top, tmp_path):
    values = np.linspace(0, top, 6, dtype=np.float32).reshape(2, 3)
    Image.fromarray(values).save(tmp_path / "scan.tif")
    assert array(decode(tmp_path / "scan.tif", 1)).ravel().tolist() == [0, 51, 102, 153, 204, 255]


def test_bilevel_is_black_and_white(tmp_path):
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "image.png")
    assert array(decode(tmp_path / "image.png", 1)).tolist() == [[0, 255]]


def palette_image() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    return image


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_palette_gives_its_colours(ending, tmp_path):
    palette_image().save(tmp_path / f"image.{ending}")
    assert array(decode(tmp_path / f"image.{ending}")).tolist() == [[list(RED), list(BLUE)]]


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_transparent_colour_of_a_palette_is_white(ending, tmp_path):
    palette_image().save(tmp_path / f"image.{ending}", transparency=0)
    assert array(decode(tmp_path / f"image.{ending}")).tolist() == [[list(WHITE), list(BLUE)]]


def test_half_transparent_colours_of_a_palette_mix_with_white(tmp_path):
    palette_image().save(tmp_path / "image.png", transparency=b"\x80\x00")
    np.testing.assert_allclose(array(decode(tmp_path / "image.png")), [[(255, 127, 127), WHITE]], atol=1)


def test_transparent_is_white(tmp_path):
    image = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 128))
    image.putpixel((2, 0), (255, 0, 0, 0))
    image.save(tmp_path / "image.png")
    np.testing.assert_allclose(array(decode(tmp_path / "image.png")), [[RED, (255, 127, 127), WHITE]], atol=1)


def test_transparent_grey_is_white(tmp_path):
    image = Image.new("LA", (2, 1), (0, 255))
    image.putpixel((1, 0), (0, 0))
    image.save(tmp_path / "image.png")
    assert array(decode(tmp_path / "image.png", 1)).tolist() == [[0, 255]]


def test_transparent_colour_key_is_white(tmp_path):
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    image.save(tmp_path / "image.png", transparency=RED)
    assert array(decode(tmp_path / "image.png")).tolist() == [[list(WHITE), list(BLUE)]]


def test_array_of_four_channels_is_transparent_too():
    pixels = np.array([[(255, 0, 0, 255), (255, 0, 0, 0)]] * 2, np.uint8)
    result = Preprocess(2, 2, (0.5,) * 3, (0.5,) * 3).pixels(pixels)
    assert result[0].tolist() == [list(RED), list(WHITE)]


@pytest.mark.parametrize(
    ("ink", "colour"),
    [((0, 255, 255, 0), RED), ((255, 0, 255, 0), GREEN), ((0, 0, 0, 0), WHITE), ((0, 0, 0, 255), (0, 0, 0))],
)
def test_cmyk_jpeg_has_its_colours(ink, colour, tmp_path):
    Image.new("CMYK", (16, 16), ink).save(tmp_path / "print.jpg", quality=95)
    np.testing.assert_allclose(array(decode(tmp_path / "print.jpg"))[8, 8], colour, atol=5)


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_scaled_to_8(channels, tmp_path):
    Image.fromarray(np.array([[0, 257, 25_700, 65_535]], np.uint16)).save(tmp_path / "scan.png")
    decoded = array(decode(tmp_path / "scan.png", channels)).reshape(4, channels)
    assert decoded.tolist() == [[value] * channels for value in (0, 1, 100, 255)]


# The colours (red, green, blue, white) at the stored corners: top left, top right, bottom left, bottom right. Upright
# they are RGBW. The EXIF standard says of 6: row 0 is at the right side, column 0 at the top; and so on.
ORIENTATIONS = {1: "RGBW", 2: "GRWB", 3: "WBGR", 4: "BWRG", 5: "RBGW", 6: "GWRB", 7: "WGBR", 8: "BRWG"}


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize(("orientation", "corners"), ORIENTATIONS.items())
def test_exif_orientation_is_undone(orientation, corners, ending, tmp_path):
    colours = {"R": RED, "G": GREEN, "B": BLUE, "W": WHITE}
    wide, high = (16, 32) if orientation <= 4 else (32, 16)  # half the stored sides
    stored = Image.new("RGB", (2 * wide, 2 * high))
    for corner, place in zip(corners, [(0, 0), (wide, 0), (0, high), (wide, high)], strict=True):
        stored.paste(colours[corner], (*place, place[0] + wide, place[1] + high))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"phone.{ending}", exif=exif)

    upright = decode(tmp_path / f"phone.{ending}")

    assert upright.size == (32, 64)
    seen = [upright.getpixel(place) for place in [(8, 16), (24, 16), (8, 48), (24, 48)]]
    np.testing.assert_allclose(seen, [RED, GREEN, BLUE, WHITE], atol=16)


def jpeg_with_exif(file, *entries: tuple[int, int, int, bytes]) -> None:
    """A JPEG of 20x10 with an EXIF block written by hand: (tag, type, count, four bytes of value)."""
    Image.new("RGB", (20, 10)).save(file)
    plain = file.read_bytes()
    table = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", 0)
    file.write_bytes(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:])


@pytest.mark.parametrize(
    "entry",
    [(0x0128, 2, 2, b"2\0\0\0"), (0x011A, 2, 3, b"72\0\0"), (0x011A, 7, 4, b"abcd"), (0x0128, 11, 1, b"\0\0\x20\x40")],
    ids=["resolution unit as text", "resolution as text", "resolution as bytes", "resolution unit as fraction"],
)
def test_odd_exif_beside_the_orientation_does_not_matter(entry, tmp_path):
    jpeg_with_exif(tmp_path / "odd.jpg", (0x0112, 3, 1, b"\6\0\0\0"), entry)
    assert decode(tmp_path / "odd.jpg").size == (10, 20)


@pytest.mark.parametrize("value", [0, 9, 255])
def test_orientation_that_does_not_exist_is_upright(value, tmp_path):
    jpeg_with_exif(tmp_path / "odd.jpg", (0x0112, 3, 1, bytes([value, 0, 0, 0])))
    assert decode(tmp_path / "odd.jpg").size == (20, 10)


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_animation_gives_its_first_frame(ending, tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    frames[0].save(tmp_path / f"film.{ending}", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(array(decode(tmp_path / f"film.{ending}"))[4, 4], RED, atol=3)


def test_one_pixel_is_an_image(tmp_path):
    Image.new("RGB", (1, 1), RED).save(tmp_path / "dot.png")
    pixels = IMAGENET.pixels(tmp_path / "dot.png")
    assert pixels.shape == (224, 224, 3)
    assert (pixels == RED).all()


# ---- large images


def test_photo_of_108_million_pixels_is_read_without_a_warning(tmp_path):
    Image.new("RGB", (12_000, 9_000), (200, 100, 50)).save(tmp_path / "huge.jpg", quality=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pixels = IMAGENET.pixels(tmp_path / "huge.jpg")
    assert caught == []
    assert pixels.shape == (224, 224, 3)
    assert (pixels == pixels[0, 0]).all()


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "gif", "webp", "tif", "ppm"])
def test_pils_own_limit_does_not_stop_a_large_image(ending, tmp_path, monkeypatch):
    Image.new("RGB", (20, 20), RED).save(tmp_path / f"large.{ending}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # as if 400 pixels were four times what PIL takes
    assert decode(tmp_path / f"large.{ending}").size == (20, 20)


def test_pils_own_limit_is_as_before(tmp_path):
    before = Image.MAX_IMAGE_PIXELS
    Image.new("RGB", (2, 2)).save(tmp_path / "image.png")
    (tmp_path / "text.png").write_text("no image")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(decode, [tmp_path / "image.png"] * 40))
    with pytest.raises(InputError):
        decode(tmp_path / "text.png")
    assert before is not None
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("size", [(1, 3_000), (3_000, 1)], ids=["high", "wide"])
def test_long_strip_does_not_fill_the_memory(size, monkeypatch):
    scaled, resize = [], Image.Image.resize

    def noted(image, size, *args, **kwargs):
        scaled.append(size[0] * size[1])
        return resize(image, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", noted)
    pixels = IMAGENET.pixels(Image.new("RGB", size, RED))  # 256 times as wide, it would be 786 MB
    assert (pixels == RED).all()
    assert max(scaled) < 100_000_000


def test_image_too_large_to_decode_is_refused_with_its_size(tmp_path):
    (tmp_path / "map.ppm").write_bytes(b"P6 30000 20000 255\n")
    with pytest.raises(InputError, match="its 30000x20000 pixels are more than the 500,000,000 that are decoded"):
        decode(tmp_path / "map.ppm")


# ---- large JPEGs, decoded at a fraction of their size


def smooth(width: int, height: int) -> Image.Image:
    return photo(width // 16, height // 16).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("size", "at_least", "decoded"),
    [
        ((640, 480), None, (640, 480)),
        ((640, 480), 241, (640, 480)),
        ((640, 480), 240, (320, 240)),
        ((640, 480), 100, (160, 120)),
        ((640, 480), 60, (80, 60)),
        ((640, 480), 1, (80, 60)),
        ((648, 484), 100, (162, 121)),  # not by eight, which would cut a pixel in two
        ((640, 481), 100, (640, 481)),
    ],
)
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}], ids=["4:2:0", "4:4:4"])
def test_the_shorter_side_stays_as_long_as_asked_for(size, at_least, decoded, options, tmp_path):
    smooth(*size).save(tmp_path / "photo.jpg", quality=95, **options)
    assert decode(tmp_path / "photo.jpg", at_least=at_least).size == decoded


@pytest.mark.parametrize("ending", [".png", ".webp", ".tif", ".bmp"])
def test_other_formats_are_decoded_in_full(ending, tmp_path):
    smooth(640, 480).save(tmp_path / f"photo{ending}")
    assert decode(tmp_path / f"photo{ending}", at_least=100).size == (640, 480)


def test_a_progressive_jpeg_is_decoded_in_full(tmp_path):
    smooth(640, 480).save(tmp_path / "photo.jpg", progressive=True)
    assert decode(tmp_path / "photo.jpg", at_least=100).size == (640, 480)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_reduced_photo_shows_the_net_the_same(mode, orientation, tmp_path):
    exif = Image.Exif()
    exif[274] = orientation
    smooth(1280, 960).convert(mode).save(tmp_path / "photo.jpg", quality=95, exif=exif)
    preprocess = Preprocess(70, 80, (0.5,) * 3, (0.5,) * 3)
    whole, reduced = decode(tmp_path / "photo.jpg"), decode(tmp_path / "photo.jpg", at_least=240)
    assert 4 * reduced.width == whole.width
    difference = abs(preprocess.pixels(whole).astype(int) - preprocess.pixels(reduced))
    assert difference.mean() < 1
    assert difference.max() <= 4


def test_a_large_photo_is_read_alike_wherever_it_is_read(tmp_path):
    """What a probe learns from is what prediction sees, of photos that are decoded reduced, too."""
    file = tmp_path / "phone.jpg"
    smooth(4032, 3024).save(file, quality=90)
    (picture,) = next(read_ahead(Pictures(file), IMAGENET, 1))
    for pixels in (IMAGENET.geometry.read(file), IMAGENET.pixels(file), IMAGENET.pixels(file.read_bytes())):
        np.testing.assert_array_equal(pixels, picture.pixels)
    np.testing.assert_array_equal(Sheet((IMAGENET,)).read(file), picture.pixels)


@pytest.mark.parametrize(("size", "left"), [((4032, 3024), 756), ((4000, 3000), 750), ((1920, 1080), 1080)])
def test_photos_of_phones_are_decoded_no_larger_than_is_needed(size, left, tmp_path):
    smooth(*size).save(tmp_path / "phone.jpg")
    assert min(decode(tmp_path / "phone.jpg", at_least=enough(IMAGENET.resize)).size) == left


# ---- photos as phones take them now


def heif(image: Image.Image, file: Path, **options) -> Path:
    pillow_heif = pytest.importorskip("pillow_heif", reason='needs pip install "cnnzoo[heif]"')
    pillow_heif.from_pillow(image).save(file, quality=95, **options)
    return file


def test_heif_is_read_like_any_photo(tmp_path):
    image = smooth(320, 240)
    read = decode(heif(image, tmp_path / "IMG_0001.HEIC"))
    assert read.mode == "RGB"
    assert abs(array(read) - array(image)).mean() < 4


def test_a_phone_held_upright_gives_an_upright_heif(tmp_path):
    image, exif = smooth(320, 240), Image.Exif()
    exif[274] = 6
    read = decode(heif(image, tmp_path / "IMG_0001.HEIC", exif=exif.tobytes()))
    assert abs(array(read) - array(image.transpose(Image.Transpose.ROTATE_270))).mean() < 4


def test_avif_is_read_like_any_photo(tmp_path):
    if not features.check("avif"):
        pytest.skip("this PIL has no AVIF")
    image = smooth(320, 240)
    image.save(tmp_path / "photo.avif", quality=95)
    assert abs(array(decode(tmp_path / "photo.avif")) - array(image)).mean() < 4


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_heif_cut_short_is_damaged(share, tmp_path):
    file = heif(photo(320, 240), tmp_path / "IMG_0001.HEIC")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(InputError, match=r"^it is (damaged|cut short)"):
        decode(file)


@pytest.mark.parametrize(
    ("brand", "advice"),
    [("heic", r'HEIF, as iPhones take photos, which pip install "cnnzoo\[heif\]" reads'), ("avif", "AVIF, which PIL")],
)
def test_what_reads_a_format_is_named_where_it_is_missing(brand, advice, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Image.init()  # or formats that PIL gets to know meanwhile were lost again afterwards
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name not in ("HEIF", "AVIF")])
    (tmp_path / "photo").write_bytes(b"\0\0\0\x1cftyp" + brand.encode() + b"\0\0\0\0")
    with pytest.raises(Unreached, match=f"^it is {advice}"):  # which no cache remembers against the photo
        decode(tmp_path / "photo")


# ---- files that cannot be read


def test_text_is_not_an_image(tmp_path):
    (tmp_path / "notes.jpg").write_text("buy milk")
    with pytest.raises(InputError, match=r"^it is not an image$"):
        decode(tmp_path / "notes.jpg")


def test_empty_file_is_empty(tmp_path):
    (tmp_path / "nothing.jpg").touch()
    with pytest.raises(InputError, match=r"^the file is empty$"):
        decode(tmp_path / "nothing.jpg")


def test_missing_file_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"^there is no such file$"):
        decode(tmp_path / "gone.jpg")


def test_folder_is_no_image(tmp_path):
    with pytest.raises(InputError):
        decode(tmp_path)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read a file whatever its permissions"
)
def test_unreadable_file_lacks_permission(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    (tmp_path / "secret.png").chmod(0)
    with pytest.raises(InputError, match=r"^no permission to read it$"):
        decode(tmp_path / "secret.png")


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "tif", "ppm"])
def test_truncated_file_is_cut_short(ending, share, tmp_path):
    photo(200, 100).save(tmp_path / f"photo.{ending}")
    whole = (tmp_path / f"photo.{ending}").read_bytes()
    (tmp_path / f"photo.{ending}").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"^it is cut short$"):
        decode(tmp_path / f"photo.{ending}")


@pytest.mark.parametrize("length", [100, 300, 500])
def test_jpeg_truncated_in_its_header_is_cut_short(length, tmp_path):
    photo(200, 100).save(tmp_path / "photo.jpg")
    (tmp_path / "photo.jpg").write_bytes((tmp_path / "photo.jpg").read_bytes()[:length])
    with pytest.raises(InputError, match=r"^it is cut short$"):
        decode(tmp_path / "photo.jpg")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "webp", "bmp", "ppm"])
def test_damage_of_any_kind_gives_an_image_or_an_input_error(ending, tmp_path):
    photo(24, 16).save(tmp_path / f"whole.{ending}")
    whole = np.frombuffer((tmp_path / f"whole.{ending}").read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = whole[: rng.integers(1, len(whole) + 1)].copy()
        damaged[rng.integers(0, len(damaged), 2)] = rng.integers(0, 256, 2, np.uint8)
        (tmp_path / "damaged").write_bytes(damaged)
        with contextlib.suppress(InputError):
            assert decode(tmp_path / "damaged").mode == "RGB"


def test_threads_decode_side_by_side(tmp_path):
    files = []
    for i in range(32):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
        files.append(tmp_path / f"{i}.png")
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(decode, files))
    assert [image.getpixel((0, 0))[0] for image in images] == list(range(32))
