"""The data doctor: every planted fault is found once, none is invented, and what is copied is sound."""

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import struct
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import photos
import pytest
from PIL import Image, ImageEnhance, ImageOps

from cnnzoo.errors import InputError
from cnnzoo.transfer import copies, doctor, duplicates
from cnnzoo.transfer.findings import KINDS


def scene(number: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A smooth picture in many colours; any two differ as two photos do."""
    colours = np.random.default_rng(number).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def paint(folder: Path, classes: dict[str, int], start: int = 0) -> Path:
    """So many scenes in each class folder, all of them different."""
    for name, many in classes.items():
        (folder / name).mkdir(parents=True)
        for i in range(many):
            scene(start).save(folder / name / f"{i:02}.jpg")
            start += 1
    return folder


def found(folder: Path, **options) -> list[tuple[str, str, str]]:
    """Kind, file and other file of each finding."""
    return [(f.kind, f.file, f.other) for f in doctor.check(folder, **options).findings]


def kinds(folder: Path, **options) -> Counter:
    return Counter(kind for kind, _, _ in found(folder, **options))


def content(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def deep_colours() -> bytes:
    """A PNG with 16 bits for each of three colours, which PIL cannot write."""
    rows = b"".join(
        b"\0" + row.tobytes() for row in np.random.default_rng(0).integers(0, 2**16, (40, 120)).astype(">u2")
    )
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 40, 40, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = 6
    return exif


# ---- a folder with one of each fault

FAULTS = {
    "empty file": [("train/ant/zero.jpg", "")],
    "cut short": [("train/ant/half.jpg", ""), ("val/bee/half.png", "")],
    "damaged": [("train/ant/text.jpg", ""), ("train/bee/noise.png", "")],
    "too large": [("train/ant/wall.ppm", "")],
    "contradiction": [("train/bee/ant.jpg", "train/ant/00.jpg")],
    "leak": [("val/ant/leak.jpg", "train/ant/01.jpg"), ("val/bee/near_leak.jpg", "train/bee/01.jpg")],
    "empty class": [("train/void", "")],
    "unknown class": [("val/wasp", "")],
    "same name": [("train/bee", "train/Bee")],
    "not judged": [("val/Bee", ""), ("val/few", "")],
    "duplicate": [("train/bee/twice.jpg", "train/bee/02.jpg")],
    "mirrored": [("train/bee/mirrored.jpg", "train/ant/02.jpg")],
    "near duplicate": [("train/bee/near.jpg", "train/bee/03.jpg")],
    "few photos": [("train/few", "")],
    "imbalance": [("train/few", "")],
    "wrong ending": [("train/ant/png.jpg", ""), ("train/ant/jpeg.PNG", "")],
    "animated": [("train/ant/moving.webp", "")],
    "tiny": [("train/ant/tiny.jpg", "")],
    "blank": [("train/ant/dark.jpg", ""), ("train/ant/huge.jpg", "")],
    "huge": [("train/ant/huge.jpg", "")],
    "EXIF-rotated": [("train/ant/turned.jpg", "")],
    "CMYK": [("train/ant/cmyk.jpg", "")],
    "16 bit": [("train/ant/deep.png", ""), ("train/ant/deep_colours.png", "")],
    "alpha": [("train/ant/alpha.png", "")],
    "palette": [("train/ant/palette.png", "")],
    "hidden": [("train/ant/.DS_Store", ""), ("train/.ipynb_checkpoints", "")],
    "stray": [("notes.txt", ""), ("train/loose.jpg", ""), ("train/ant/labels.csv", ""), ("spare", "")],
}
# which need a folder of their own, below
ALSO = {"no permission", "out of reach", "not read here", "one class", "one photo", "doubtful label", "divided group"}


@pytest.fixture(scope="module")
def master(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("master")
    paint(folder / "train", {"ant": 22, "bee": 12, "Bee": 10, "few": 2, "void": 0})
    paint(folder / "val", {"ant": 3, "bee": 3, "wasp": 1}, start=100)
    paint(folder / "train" / ".ipynb_checkpoints", {"ant": 1}, start=110)
    paint(folder / "spare", {"ant": 1}, start=111)
    train, val = folder / "train", folder / "val"
    ant, bee = train / "ant", train / "bee"
    whole = encoded(scene(120, (1024, 768)), "JPEG")  # large enough to be decoded at an eighth of its size
    files = {
        ant / "zero.jpg": b"",
        ant / "half.jpg": whole[: len(whole) * 9 // 10],
        val / "bee" / "half.png": encoded(scene(121), "PNG")[:5000],
        ant / "text.jpg": b"no image",
        bee / "noise.png": encoded(scene(122), "PNG")[:40] + bytes(200),
        ant / "wall.ppm": b"P6 30000 30000 255\n",
        bee / "ant.jpg": (ant / "00.jpg").read_bytes(),
        val / "ant" / "leak.jpg": (ant / "01.jpg").read_bytes(),
        val / "bee" / "near_leak.jpg": encoded(Image.open(bee / "01.jpg"), "JPEG", quality=40),
        bee / "twice.jpg": (bee / "02.jpg").read_bytes(),
        bee / "mirrored.jpg": encoded(ImageOps.mirror(Image.open(ant / "02.jpg")), "JPEG"),
        bee / "near.jpg": encoded(Image.open(bee / "03.jpg"), "JPEG", quality=50),
        ant / "png.jpg": encoded(scene(123), "PNG"),
        ant / "jpeg.PNG": encoded(scene(124), "JPEG"),
        ant / "moving.webp": encoded(scene(125), "WEBP", save_all=True, append_images=[scene(126)]),
        ant / "tiny.jpg": encoded(scene(127, (30, 40)), "JPEG"),
        ant / "huge.jpg": encoded(Image.new("L", (8_000, 6_256)), "JPEG"),
        ant / "dark.jpg": encoded(Image.effect_noise((640, 480), 20).point(lambda level: max(level - 110, 0)), "JPEG"),
        ant / "turned.jpg": encoded(scene(128), "JPEG", exif=turned()),
        ant / "cmyk.jpg": encoded(scene(129).convert("CMYK"), "JPEG"),
        ant / "deep.png": encoded(Image.fromarray(np.asarray(scene(130).convert("L")).astype(np.uint16) * 257), "PNG"),
        ant / "deep_colours.png": deep_colours(),
        ant / "alpha.png": encoded(scene(131).convert("RGBA"), "PNG"),
        ant / "palette.png": encoded(scene(132).quantize(200), "PNG"),
        ant / ".DS_Store": b"1",
        folder / "notes.txt": b"found in the garden",
        train / "loose.jpg": encoded(scene(133), "JPEG"),
        ant / "labels.csv": b"1",
    }
    for file, inside in files.items():
        file.write_bytes(inside)
    return folder


@pytest.fixture
def planted(master, tmp_path) -> Path:
    return Path(shutil.copytree(master, tmp_path / "planted"))


def test_every_planted_fault_is_found_once_and_nothing_else(planted):
    assert set(FAULTS) | ALSO == set(KINDS)
    expected = [(kind, file, other) for kind, places in FAULTS.items() for file, other in places]
    assert sorted(found(planted)) == sorted(expected)


def test_a_photo_that_wants_another_library_is_not_damaged_and_is_copied(tmp_path, monkeypatch):
    paint(tmp_path / "photos", {"ant": 10, "bee": 10})
    (tmp_path / "photos" / "ant" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Image.init()  # or formats that PIL gets to know meanwhile were lost again afterwards
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    checkup = doctor.check(tmp_path / "photos")
    (finding,) = checkup.findings
    assert (finding.kind, finding.severity, finding.file) == ("not read here", "error", "ant/IMG_1.HEIC")
    assert 'pip install "cnnzoo[heif]"' in finding.detail
    fixed = copies.fix(checkup, tmp_path / "good")
    assert (tmp_path / "good" / "ant" / "IMG_1.HEIC").exists()
    assert (fixed.left_out, fixed.remaining) == (0, (finding,))


def test_a_disk_that_fails_is_no_fault_of_the_photo(tmp_path, monkeypatch):
    paint(tmp_path, {"ant": 10, "bee": 10})
    whole = Image.open

    def failing(file, *options):
        if str(file).endswith("bee/02.jpg"):
            raise OSError(errno.EIO, "Input/output error")
        return whole(file, *options)

    monkeypatch.setattr(Image, "open", failing)
    assert found(tmp_path) == [("out of reach", "bee/02.jpg", ""), ("few photos", "bee", "")]


def test_the_gravest_comes_first(planted):
    severities = [finding.severity for finding in doctor.check(planted).findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


def test_the_summary_has_each_kind_with_its_first_files(planted):
    text = str(doctor.check(planted))
    assert f"{planted}/val: 10 photos (ant 4, bee 5, wasp 1)" in text
    for kind, places in FAULTS.items():
        assert f": {kind}, {len(places)} (" in text
    assert "val/bee/near_leak.jpg = train/bee/01.jpg (likeness 0.9" in text
    assert "… and 1 more; --out FILE lists them all" in text  # of four strays
    assert text.splitlines()[-1] == "12 errors, 14 warnings, 12 notes"


@pytest.mark.skipif(os.name == "nt", reason="names of files have no ends of lines on Windows")
def test_a_class_of_several_lines_is_told_in_one(tmp_path):
    checkup = doctor.check(paint(tmp_path / "photos", {"a\nb": 10, "c": 10}))
    assert str(checkup).splitlines()[0].endswith(": 20 photos (a\\nb 10, c 10)")


def test_findings_as_rows(planted, tmp_path):
    checkup = doctor.check(planted)
    rows = list(csv.DictReader(io.StringIO(checkup.to_csv())))
    assert rows == [finding.to_dict() for finding in checkup.findings]
    assert rows == checkup.to_dict()["findings"]
    assert list(rows[0]) == ["severity", "kind", "file", "detail", "other"]


def test_workers_below_none_are_refused(tmp_path):
    with pytest.raises(InputError, match="workers is -1, but must be a whole number of at least 0"):
        doctor.check(paint(tmp_path, {"ant": 3, "bee": 3}), workers=-1)


def test_copies_do_not_differ_by_case_alone(tmp_path):
    paint(tmp_path / "photos", {"ant": 10, "bee": 10})
    scene(300).save(tmp_path / "photos" / "ant" / "x.JPG", "JPEG")
    scene(301).save(tmp_path / "photos" / "ant" / "x.png", "JPEG")
    doctor.check(tmp_path / "photos").fix(tmp_path / "good")
    assert {"x.JPG", "x_2.jpg"} <= {file.name for file in (tmp_path / "good" / "ant").iterdir()}


def test_one_thread_finds_what_many_find(planted):
    assert doctor.check(planted, workers=1) == doctor.check(planted, workers=8)


def test_the_folder_stays_as_it_is(planted, tmp_path):
    before = content(planted)
    copies.fix(doctor.check(planted), tmp_path / "good")
    assert content(planted) == before


# ---- nothing is invented


def test_a_clean_folder_has_no_findings(tmp_path):
    paint(tmp_path / "train", {"ant": 10, "bee": 60})
    paint(tmp_path / "val", {"ant": 3, "bee": 4}, start=100)
    checkup = doctor.check(tmp_path)
    assert checkup.findings == ()
    assert checkup.sound
    assert str(checkup).endswith("0 errors, 0 warnings, 0 notes")


def test_noise_plain_colours_and_slopes_of_light_are_not_duplicates(tmp_path):
    folder = photos.folder(tmp_path)  # noise
    ramp = np.linspace(0, 1, 100)[:, None, None] * np.ones((100, 100, 3))
    for i in range(12):
        Image.new("RGB", (100, 100), (20 * i, 0, 0)).save(folder / "red" / f"plain{i}.png")
        Image.fromarray((ramp * (100 + 12 * i)).astype(np.uint8)).save(folder / "blue" / f"slope{i}.png")
    assert found(folder) == [("blank", f"red/plain{i}.png", "") for i in sorted(range(12), key=str)]


def test_our_own_cache_and_manifest_are_no_strays(tmp_path):
    paint(tmp_path, {"ant": 10, "bee": 10})
    (tmp_path / ".cnnzoo").mkdir()
    (tmp_path / ".cnnzoo" / "0.u8").touch()
    (tmp_path / "left_out.csv").touch()
    assert found(tmp_path) == []


def test_the_bees_and_ants_are_clean(data_root):
    assert found(data_root / "hymenoptera") == []


def test_the_flowers_contradict_each_other_in_four_photos(data_root, tmp_path):
    for name in ("rose", "tulip"):
        (tmp_path / name).symlink_to(data_root / "flowers" / name)
    checkup = doctor.check(tmp_path)
    assert Counter(f.kind for f in checkup.findings) == {"contradiction": 4, "near duplicate": 8}
    for finding in checkup.findings[:4]:
        assert Path(finding.file).name == Path(finding.other).name
        assert (tmp_path / finding.file).read_bytes() == (tmp_path / finding.other).read_bytes()


# ---- duplicates

ALTERED = {
    "half the size": lambda image: encoded(image.resize((image.width // 2, image.height // 2)), "JPEG"),
    "quality 40": lambda image: encoded(image, "JPEG", quality=40),
    "brighter": lambda image: encoded(ImageEnhance.Brightness(image).enhance(1.15), "JPEG"),
    "darker": lambda image: encoded(ImageEnhance.Brightness(image).enhance(0.8), "JPEG"),
    "as PNG": lambda image: encoded(image, "PNG"),
    "lying, with the tag that says so": lambda image: encoded(
        image.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=turned()
    ),
}


@pytest.mark.parametrize("alter", ALTERED)
def test_an_altered_copy_is_a_near_duplicate(alter, tmp_path):
    paint(tmp_path, {"ant": 10, "bee": 10})
    (tmp_path / "bee" / f"copy{'.png' if alter == 'as PNG' else '.jpg'}").write_bytes(ALTERED[alter](scene(13)))
    found_ = [finding for finding in found(tmp_path) if finding[0] != "EXIF-rotated"]
    assert [(kind, other) for kind, _, other in found_] == [("near duplicate", "bee/03.jpg")]


TURNS = [Image.Transpose(number) for number in range(7)]  # all that PIL has: mirror images, quarter turns, both


@pytest.mark.parametrize("turn", TURNS, ids=lambda turn: turn.name)
def test_mirrored_and_turned_copies_are_found(turn, tmp_path):
    """As where augmented copies were saved."""
    paint(tmp_path / "train", {"ant": 10, "bee": 10})
    paint(tmp_path / "val", {"ant": 10, "bee": 10}, start=100)
    copies_ = {"train/bee/copy": 13, "val/ant/copy": 4, "train/bee/of_ant": 5}
    for name, number in copies_.items():
        copy = scene(number).transpose(turn)
        copy.resize((copy.width * 3 // 4, copy.height * 3 // 4)).save(tmp_path / f"{name}.jpg", quality=60)
    assert found(tmp_path) == [
        ("leak", "val/ant/copy.jpg", "train/ant/04.jpg"),
        ("mirrored", "train/bee/of_ant.jpg", "train/ant/05.jpg"),
        ("near duplicate", "train/bee/copy.jpg", "train/bee/03.jpg"),
    ]
    assert "(mirrored or turned, likeness 0.9" in str(doctor.check(tmp_path))
    good = doctor.check(tmp_path).fix(tmp_path.parent / f"{tmp_path.name}_good")
    assert (good.copied, good.left_out) == (42, 1)


def test_two_photos_of_one_scene_are_not_duplicates(tmp_path):
    paint(tmp_path, {"ant": 10, "bee": 10})
    for i, share in enumerate((0.5, 0.6, 0.7)):  # of what all of them show
        Image.blend(scene(200 + i), scene(300), share).save(tmp_path / "bee" / f"meadow{i}.jpg")
    assert found(tmp_path) == []


def test_copies_are_each_told_once_with_the_first_of_them(tmp_path):
    paint(tmp_path, {"ant": 12, "bee": 10})
    for i in range(1, 4):
        (tmp_path / "ant" / f"00_{i}.jpg").write_bytes((tmp_path / "ant" / "00.jpg").read_bytes())
    assert found(tmp_path) == [("duplicate", f"ant/00_{i}.jpg", "ant/00.jpg") for i in range(1, 4)]


def test_short_vectors_overlook_no_pair():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200, 450)).astype(np.float32) * np.geomspace(1, 0.01, 450, dtype=np.float32)
    vectors[100:] = vectors[:100] + 0.2 * vectors[100:]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[7] = 0  # a plain photo
    short, products = duplicates._shortened(vectors), vectors @ vectors.T
    assert short.shape == (200, 32)
    assert (short @ short.T >= products - duplicates.ROUNDING).all()
    assert ((short @ short.T >= 0.9) & (products < 0.9)).mean() < 0.05


def test_near_at_one_leaves_only_pictures_that_are_the_same(tmp_path):
    paint(tmp_path, {"ant": 12, "bee": 10})
    (tmp_path / "ant" / "same.jpg").write_bytes((tmp_path / "ant" / "00.jpg").read_bytes())
    scene(1).save(tmp_path / "ant" / "again.jpg", quality=40)
    for number in range(2, 7):
        with Image.open(tmp_path / "ant" / f"{number:02}.jpg") as image:
            image.save(tmp_path / "ant" / f"{number:02}.png")
    assert kinds(tmp_path) == {"duplicate": 1, "near duplicate": 6}
    assert kinds(tmp_path, near=1) == {"duplicate": 1, "near duplicate": 5}


def test_a_photo_in_val_and_test_is_a_leak_too(tmp_path):
    for start, part in enumerate(("train", "val", "test")):
        paint(tmp_path / part, {"ant": 10, "bee": 10}, start=100 * start)
    (tmp_path / "test" / "ant" / "x.jpg").write_bytes((tmp_path / "val" / "ant" / "00.jpg").read_bytes())
    assert found(tmp_path) == [("leak", "test/ant/x.jpg", "val/ant/00.jpg")]


def test_photos_beyond_a_block_are_compared_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK", 4)
    paint(tmp_path, {"ant": 11, "bee": 11})
    scene(2).save(tmp_path / "ant" / "99.jpg", quality=40)
    (tmp_path / "bee" / "99.jpg").write_bytes((tmp_path / "ant" / "00.jpg").read_bytes())
    assert found(tmp_path) == [
        ("contradiction", "bee/99.jpg", "ant/00.jpg"),
        ("near duplicate", "ant/99.jpg", "ant/02.jpg"),
    ]


# ---- classes


def test_one_class(tmp_path):
    assert found(paint(tmp_path, {"ant": 10})) == [("one class", "ant", "")]


def test_one_photo_in_a_class_cannot_be_split(tmp_path):
    assert found(paint(tmp_path, {"ant": 10, "bee": 1})) == [("one photo", "bee", "")]


def test_one_photo_in_a_class_is_few_where_val_is_given(tmp_path):
    paint(tmp_path / "train", {"ant": 10, "bee": 1})
    paint(tmp_path / "val", {"ant": 1, "bee": 1}, start=100)
    assert found(tmp_path) == [("few photos", "train/bee", "")]


def test_photos_that_cannot_be_read_do_not_count(tmp_path):
    paint(tmp_path, {"ant": 10, "bee": 10, "cat": 0})
    (tmp_path / "cat" / "a.jpg").write_bytes(b"no image")
    assert kinds(tmp_path) == {"damaged": 1, "empty class": 1}


def test_a_class_that_train_lacks_offers_the_one_that_was_meant(tmp_path):
    paint(tmp_path / "train", {"ant": 10, "bee": 10})
    paint(tmp_path / "val", {"ant": 1, "Bee": 1}, start=100)
    (finding,) = doctor.check(tmp_path).findings
    assert str(finding) == "val/Bee (did you mean bee?)"


def test_imbalance_tells_both_classes(tmp_path):
    paint(tmp_path, {"ant": 10, "bee": 101})
    (finding,) = doctor.check(tmp_path).findings
    assert str(finding) == "ant (10 photos, while bee has 101)"


# ---- odd folders


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read a file whatever its permissions"
)
def test_what_may_not_be_read_is_told(tmp_path):
    paint(tmp_path, {"ant": 11, "bee": 10, "cat": 10})
    (tmp_path / "ant" / "00.jpg").chmod(0)
    (tmp_path / "cat").chmod(0)
    try:
        assert found(tmp_path) == [
            ("no permission", "ant/00.jpg", ""),
            ("no permission", "cat", ""),
            ("empty class", "cat", ""),
        ]
    finally:
        (tmp_path / "cat").chmod(0o755)


def test_what_is_hidden_among_the_photos_is_not_said_to_lie_outside(tmp_path):
    paint(tmp_path, {"ant": 10, "bee": 10})
    (tmp_path / "ant" / ".hidden.jpg").touch()
    os.mkfifo(tmp_path / "ant" / "pipe.jpg")
    assert [str(finding) for finding in doctor.check(tmp_path).findings] == [
        "ant/.hidden.jpg",
        "ant/pipe.jpg (no file)",
    ]


def test_a_lone_photo_is_an_error_unless_others_are_judged(tmp_path):
    paint(tmp_path / "train", {"ant": 10, "bee": 1})
    assert ("one photo", "train/bee", "") in found(tmp_path)
    paint(tmp_path / "val", {"ant": 1, "bee": 1}, start=50)
    assert "one photo" not in kinds(tmp_path)


def test_a_link_that_leads_nowhere_is_told(tmp_path):
    paint(tmp_path, {"ant": 10, "bee": 10})
    (tmp_path / "ant" / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    (finding,) = doctor.check(tmp_path).findings
    assert str(finding) == "ant/gone.jpg (a link that leads nowhere)"


def test_a_name_of_any_bytes_can_be_told_and_copied(tmp_path):
    folder = paint(tmp_path / "photos", {"ant": 10, "bee": 10})
    name = os.fsencode(folder / "ant") + b"/\xff.jpg"
    try:
        with open(name, "wb") as file:
            file.write(encoded(scene(99), "PNG"))
    except OSError as error:
        assert error.errno == errno.EILSEQ  # noqa: PT017
        pytest.skip("this file system takes letters only")
    checkup = doctor.check(folder)
    assert checkup.to_csv().splitlines()[1] == "warning,wrong ending,ant/\ufffd.jpg,it is PNG,"
    copies.fix(checkup, tmp_path / "good")
    assert b"\xff.png" in os.listdir(os.fsencode(tmp_path / "good" / "ant"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "there is no folder"),
        (lambda folder: folder.touch(), "is not a folder"),
        (lambda folder: folder.mkdir(), "holds no sub-folder for each class"),
        (lambda folder: paint(folder, {"train": 2}), "holds 2 images, but no sub-folder for each class"),
        (lambda folder: paint(folder / "val", {"ant": 2}), r"holds val/ but no train/ with class folders"),
    ],
    ids=["none", "a file", "empty", "loose photos", "val without train"],
)
def test_what_is_no_folder_of_classes_is_wrong_input(make, words, tmp_path):
    folder = tmp_path / "photos"
    make(folder)
    folder = folder / "train" if (folder / "train").exists() else folder
    for look in (doctor.check, doctor.quick):
        with pytest.raises(InputError, match=words):
            look(folder)


@pytest.mark.parametrize("near", [0, -1, 1.1, float("nan")])
def test_near_is_a_correlation(near, tmp_path):
    with pytest.raises(InputError, match=r"near is .*, but must be above 0 and at most 1"):
        doctor.check(tmp_path, near=near)


# ---- the quick look before any training


def test_quick_finds_copies_and_classes_by_their_bytes_alone(tmp_path):
    for name in ("train/ant", "train/Ant", "train/bee", "val/ant", "val/cat"):
        (tmp_path / name).mkdir(parents=True)
        for i in range(11):
            (tmp_path / name / f"{i}.jpg").write_text(f"{name} {i}")  # no image: a decoder would say so
    (tmp_path / "val" / "ant" / "leak.jpg").write_text("train/ant 0")
    (tmp_path / "train" / "bee" / "ant.jpg").write_text("train/ant 1")
    (tmp_path / "train" / "bee" / "zero.jpg").touch()
    (tmp_path / "train" / "ant" / "zero.jpg").touch()
    assert [(f.kind, f.file, f.other) for f in doctor.quick(tmp_path)] == [
        ("contradiction", "train/bee/ant.jpg", "train/ant/1.jpg"),
        ("leak", "val/ant/leak.jpg", "train/ant/0.jpg"),
        ("unknown class", "val/cat", ""),
        ("same name", "train/ant", "train/Ant"),
        ("not judged", "val/Ant", ""),
        ("not judged", "val/bee", ""),
    ]


def test_quick_reads_on_where_the_ends_of_files_agree(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i in range(10):
            (tmp_path / name / f"{i}.bmp").write_bytes(f"{name} {i:04}".encode() + bytes(10_000))
    assert doctor.quick(tmp_path) == ()
    (tmp_path / "bee" / "x.bmp").write_bytes((tmp_path / "bee" / "3.bmp").read_bytes())
    assert [str(finding) for finding in doctor.quick(tmp_path)] == ["bee/x.bmp = bee/3.bmp"]


def test_quick_says_the_same_of_a_good_folder_as_check(tmp_path):
    paint(tmp_path, {"ant": 110, "bee": 5})
    assert doctor.quick(tmp_path) == doctor.check(tmp_path).findings


# ---- with a net


def test_labels_that_the_features_contradict_are_doubtful(weights, tmp_path):
    folder = photos.folder(tmp_path / "photos", each=15)
    (folder / "red" / "99.png").write_bytes((folder / "blue" / "03.png").read_bytes())
    (folder / "blue" / "03.png").unlink()
    (folder / "green" / "98.png").write_bytes((folder / "red" / "07.png").read_bytes())
    (folder / "red" / "07.png").unlink()
    doubts = doctor.check(folder, model="resnet20", pretrained=str(weights)).findings
    assert {(f.kind, f.file, f.detail.split(",")[0]) for f in doubts} == {
        ("doubtful label", "red/99.png", "rather blue"),
        ("doubtful label", "green/98.png", "rather red"),
    }


def test_a_burst_with_a_wrong_label_is_doubted_once_its_photos_cannot_vouch_for_each_other(weights, tmp_path):
    folder = photos.folder(tmp_path / "photos", each=30)
    for number, file in enumerate(sorted((folder / "blue").iterdir())[:14]):
        file.rename(folder / "red" / f"burst_{number}.png")
    options = {"model": "resnet20", "pretrained": str(weights)}
    alone, together = (doctor.check(folder, groups=groups, **options).findings for groups in (None, "burst"))
    told = [{finding.file for finding in found if finding.kind == "doubtful label"} for found in (alone, together)]
    assert len(told[0]) < len(told[1])
    assert told[1] == {f"red/burst_{number}.png" for number in range(14)}
    for file in (folder / "green").iterdir():  # of a class in one group alone no doubt can be settled
        file.rename(file.with_name(f"burst_{file.name}"))
    doubtful = [f.file for f in doctor.check(folder, groups="burst|green", **options).findings if "doubt" in f.kind]
    assert doubtful
    assert not any(file.startswith("green") for file in doubtful)


def test_photos_in_bursts_are_judged_by_fewer_others_than_are_asked_elsewhere(weights, tmp_path):
    folder = photos.folder(tmp_path, each=10, kinds=("blue", "red"))
    for kind, first in (("blue", 6), ("red", 8)):  # so that of the two folds one judges by 8 photos
        for number, file in enumerate(sorted((folder / kind).iterdir())):
            file.rename(file.with_name(f"{kind}_burst{int(number >= first)}_{number}.png"))
    assert found(folder, model="resnet20", pretrained=str(weights), groups=r"\w+_burst\d") == []


def test_right_labels_are_not_doubted(weights, tmp_path):
    assert found(photos.folder(tmp_path), model="resnet20", pretrained=str(weights)) == []


def test_classes_of_few_photos_are_not_judged(weights, tmp_path):
    folder = photos.folder(tmp_path, each=4)
    assert kinds(folder, model="resnet20", pretrained=str(weights)) == {"few photos": 3}


def test_photos_are_tiny_for_the_net_that_is_named(weights, tmp_path):
    folder = photos.folder(tmp_path)
    photos.picture(0, 99, side=31).save(folder / "blue" / "99.png")
    (finding,) = doctor.check(folder, model="resnet20", pretrained=str(weights)).findings
    assert str(finding) == "blue/99.png (31x31, while resnet20 takes 32x32)"


def test_an_unknown_net_is_told_before_any_work(tmp_path):
    paint(tmp_path, {"ant": 2, "bee": 2})
    with pytest.raises(InputError, match="resnet18"):
        doctor.check(tmp_path, model="resent18")


# ---- the good ones, copied


def test_a_copy_is_sound(planted, tmp_path):
    for file in (planted / "train" / "Bee").iterdir():  # what no copying mends
        file.unlink()
    (planted / "train" / "Bee").rmdir()
    fixed = copies.fix(doctor.check(planted), tmp_path / "good")
    again = doctor.check(fixed.folder)
    assert again.sound
    assert fixed.remaining == ()
    assert len(again.photos) == fixed.copied
    left = {"mirrored", "near duplicate", "not judged", "few photos", "imbalance", "animated", "tiny", "blank", "huge"}
    assert {f.kind for f in again.findings} == left | {"EXIF-rotated", "CMYK", "16 bit", "alpha", "palette"}


def test_a_copy_is_the_good_files_byte_for_byte(planted, tmp_path):
    copies.fix(doctor.check(planted), tmp_path / "good")
    before, after = content(planted), content(tmp_path / "good")
    renamed = {"train/ant/png.png": "train/ant/png.jpg", "train/ant/jpeg.jpg": "train/ant/jpeg.PNG"}
    manifest = list(csv.DictReader(io.StringIO((tmp_path / "good" / "left_out.csv").read_text())))
    del after["left_out.csv"]
    assert all(before[renamed.get(file, file)] == digest for file, digest in after.items())
    told = {row["file"] for row in manifest if not row["copied_as"]}
    missing = {file for file in before if file not in {renamed.get(file, file) for file in after}}
    assert all(any(file == name or file.startswith(f"{name}/") for name in told) for file in missing)
    assert {row["copied_as"]: row["file"] for row in manifest if row["copied_as"]} == renamed
    assert "train/ant/01.jpg" in after  # of a leak, the copy in train/
    assert "train/bee/02.jpg" in after  # of a duplicate, the first
    assert not {"train/ant/00.jpg", "train/bee/ant.jpg"} & set(after)  # of a contradiction, neither
    assert not any(file.startswith("val/wasp") for file in after)


def test_a_right_ending_takes_nobodys_place(tmp_path):
    folder = paint(tmp_path / "photos", {"ant": 10, "bee": 10})
    for number, name in enumerate(("x.png", "x_2.png", "x.jpg")):
        scene(90 + number).save(folder / "ant" / name, "PNG")
    copies.fix(doctor.check(folder), tmp_path / "good")
    before, after = content(folder), content(tmp_path / "good")
    assert after["ant/x_3.png"] == before["ant/x.jpg"]
    assert after["ant/x.png"] == before["ant/x.png"]
    assert after["ant/x_2.png"] == before["ant/x_2.png"]


def test_what_has_no_usual_ending_keeps_its_name(tmp_path):
    folder = paint(tmp_path / "photos", {"ant": 10, "bee": 10})
    scene(90).save(folder / "ant" / "icon.png", "ICO", sizes=[(96, 96)])
    checkup = doctor.check(folder)
    assert [str(finding) for finding in checkup.findings if finding.kind == "wrong ending"] == [
        "ant/icon.png (it is ICO)"
    ]
    assert copies.fix(checkup, tmp_path / "good").renamed == 0
    assert content(tmp_path / "good") == content(folder)


def test_a_class_of_which_nothing_is_left_is_left_out_of_val_too(tmp_path):
    folder = tmp_path / "photos"
    paint(folder / "train", {"ant": 10, "bee": 10, "cat": 0})
    paint(folder / "val", {"ant": 2, "bee": 2, "cat": 2}, start=100)
    (folder / "train" / "cat" / "a.jpg").write_bytes(b"no image")
    fixed = copies.fix(doctor.check(folder), tmp_path / "good")
    assert doctor.check(fixed.folder).sound
    assert not (fixed.folder / "val" / "cat").exists()
    assert "val/cat/00.jpg,,error,unknown class" in (fixed.folder / "left_out.csv").read_text()


def test_near_copies_of_a_contradiction_go_with_it(tmp_path):
    folder = paint(tmp_path / "photos", {"ant": 10, "bee": 10})
    (folder / "bee" / "ant.jpg").write_bytes((folder / "ant" / "00.jpg").read_bytes())
    scene(0).save(folder / "ant" / "again.jpg", quality=40)
    fixed = copies.fix(doctor.check(folder), tmp_path / "good")
    assert fixed.left_out == 3
    assert doctor.check(fixed.folder).sound


def test_what_copying_cannot_mend_remains(tmp_path):
    folder = paint(tmp_path / "photos", {"Ant": 10, "ant": 10})
    fixed = copies.fix(doctor.check(folder), tmp_path / "good")
    assert [(f.kind, f.file, f.other) for f in fixed.remaining] == [("same name", "ant", "Ant")]
    assert "to be mended by hand: same name: ant = Ant" in str(fixed)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="its file systems hold no two such names")
@pytest.mark.parametrize("twin", ["Käfer", "käfer ", " KÄFER"])
def test_class_names_that_look_alike_are_told(tmp_path, twin):
    folder = paint(tmp_path / "photos", {"käfer": 10, twin: 10})
    assert [{f.file, f.other} for f in doctor.check(folder).findings] == [{"käfer", twin}]


def test_a_copy_of_a_clean_folder_needs_no_manifest(tmp_path):
    folder = paint(tmp_path / "photos", {"ant": 10, "bee": 10})
    (tmp_path / "good").mkdir()  # which may exist, if it is empty
    fixed = copies.fix(doctor.check(folder), tmp_path / "good")
    assert content(fixed.folder) == content(folder)
    assert str(fixed) == f"20 photos copied to {tmp_path / 'good'}"


@pytest.mark.parametrize(
    ("dest", "words"),
    [
        ("photos", "lies within"),
        ("photos/good", "lies within"),
        ("taken", "exists already"),
        ("file", "exists already"),
    ],
)
def test_copies_need_a_new_folder_elsewhere(dest, words, tmp_path):
    folder = paint(tmp_path / "photos", {"ant": 2, "bee": 2})
    paint(tmp_path / "taken", {"ant": 1})
    (tmp_path / "file").touch()
    before = content(tmp_path)
    with pytest.raises(InputError, match=words):
        copies.fix(doctor.check(folder), tmp_path / dest)
    assert content(tmp_path) == before


def test_nothing_good_is_nothing_to_copy(tmp_path):
    folder = paint(tmp_path / "photos", {"ant": 1, "bee": 0})
    (folder / "bee" / "a.jpg").write_bytes((folder / "ant" / "00.jpg").read_bytes())
    with pytest.raises(InputError, match=r"no photo of .* is good"):
        copies.fix(doctor.check(folder), tmp_path / "good")
    assert not (tmp_path / "good").exists()


def test_a_disk_that_fills_leaves_nothing_half_copied_and_says_so(tmp_path):
    resource = pytest.importorskip("resource")
    folder = paint(tmp_path / "photos", {"ant": 10, "bee": 10})
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)).save(folder / "bee" / "big.png")
    checkup = doctor.check(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(InputError, match="good could not be filled and was not made: File too large"):
            copies.fix(checkup, tmp_path / "good")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [entry.name for entry in tmp_path.iterdir()] == ["photos"]


# ---- the command line


def test_warnings_and_notes_leave_the_exit_code_0(cli, tmp_path):
    folder = paint(tmp_path / "my photos", {"ant": 10, "bee": 5})
    (folder / "notes.txt").touch()
    code, out, err = cli("check", folder)
    assert (code, err) == (0, "")
    told = "0 errors, 1 warning, 1 note\ngo on with: cnnzoo probe {0}, cnnzoo finetune {0}\n"
    assert out.endswith(told.format(f"'{folder}'"))


def test_errors_make_the_exit_code_1_and_mended_ones_0(cli, tmp_path):
    folder = paint(tmp_path / "photos", {"ant": 10, "bee": 10})
    (folder / "ant" / "text.jpg").write_text("no image")
    code, out, _ = cli("check", folder)
    assert code == 1
    assert out.endswith(f"\ngo on with: cnnzoo check {folder} --fix GOOD\n")
    code, out, _ = cli("check", folder, "--fix", "good")
    assert code == 0
    told = "20 photos copied to good\n1 left out, see good/left_out.csv\ngo on with: cnnzoo probe good\n"
    assert out.endswith(told)
    assert cli("check", "good")[0] == 0


def test_errors_that_copying_cannot_mend_make_the_exit_code_1(cli, tmp_path):
    folder = paint(tmp_path / "photos", {"ant": 10})
    assert "go on with" not in cli("check", folder)[1]
    (tmp_path / "none good").mkdir()
    (tmp_path / "none good" / "ant.jpg").write_text("no image")
    assert "go on with" not in cli("check", tmp_path / "none good")[1]
    code, out, _ = cli("check", folder, "--fix", "good")
    assert code == 1
    assert out.endswith("to be mended by hand: one class: ant\n")


def test_every_finding_is_in_the_table_and_the_json(cli, tmp_path):
    folder = paint(tmp_path / "photos", {"ant": 5, "bee": 5})
    code, out, _ = cli("check", folder, "--json", "--out", "found.csv", "--fix", "good")
    told = json.loads(out)
    assert code == 0
    assert told["photos"] == 10
    assert told["findings"] == list(csv.DictReader(io.StringIO((tmp_path / "found.csv").read_text())))
    assert [row["kind"] for row in told["findings"]] == ["few photos", "few photos"]
    assert told["fixed"] == {"folder": "good", "copied": 10, "renamed": 0, "left_out": 0, "remaining": []}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "there is no folder nope"),
        (["photos", "--fix", "photos/good"], "lies within"),
        (["photos", "--out", "found.txt"], "found.txt must end in one of"),
        (["photos", "--near", "2"], "near is 2.0"),
        (["photos", "--near", "close"], "near is close, but must be a number"),
        (["photos", "--modle", "resnet18"], "'modle'"),
        (["photos", "--model", "nope"], "unknown run folder or model 'nope'"),
        (["photos", "--pretrained", "tv_in1k"], "pretrained is tv_in1k, but there is no net to look with"),
        (["photos", "--device", "cuda"], "device is cuda, but there is no net to look with; name one by --model"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_told_in_one_line(arguments, words, cli, tmp_path):
    paint(tmp_path / "photos", {"ant": 2, "bee": 2})
    code, out, err = cli("check", *arguments)
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert words in err
