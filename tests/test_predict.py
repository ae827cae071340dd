"""From files, folders and patterns to names: every image has its own row, whatever is wrong with its neighbours."""

import copy
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import photos
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

import cnnzoo
from cnnzoo import tables
from cnnzoo.checkpoint import Run
from cnnzoo.data.pictures import Pictures
from cnnzoo.data.preprocess import Preprocess
from cnnzoo.errors import InputError
from cnnzoo.inference import optimized
from cnnzoo.predict import stream


def make_net(in_chans: int = 3) -> torch.nn.Module:
    """A net with random weights that names three kinds."""
    torch.manual_seed(0)
    net = cnnzoo.create("resnet20", num_classes=3, in_chans=in_chans).eval()
    net.classes = photos.KINDS
    return net


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    return make_net()


@pytest.fixture(scope="module")
def model_file(net, tmp_path_factory):
    """The same net as a run leaves it, with a temperature."""
    run = Run(tmp_path_factory.mktemp("run"))
    card = {"name": "resnet20", "num_classes": 3, "in_chans": 3, "drop_rate": None, "args": {}, "temperature": 2.5}
    card |= {"classes": photos.KINDS, "preprocess": cnnzoo.preprocessing(net).to_dict()}
    run.save_model(net.state_dict(), card)
    return run.model_file


@pytest.fixture
def folder(tmp_path):
    return photos.folder(tmp_path / "photos", each=2)


# ---- a bad file


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_is_no_answer(net, folder, value):
    net = copy.deepcopy(net)
    torch.nn.init.constant_(net.conv1.weight, value)
    found = cnnzoo.predict(net, folder)
    assert len(found) == 6
    assert found.abstain.all()
    assert all("the net's answer is no number" in error for error in found.errors)
    assert found.top(1) == [[]] * 6


def test_a_net_may_be_named_with_its_weights(tmp_path):
    folder, weights = photos.folder(tmp_path / "photos", each=2), photos.weights(tmp_path / "net.pth")
    named = cnnzoo.predict("resnet20", folder, pretrained=weights)
    assert np.array_equal(named.probabilities, cnnzoo.predict(cnnzoo.create("resnet20", weights), folder).probabilities)
    with pytest.raises(InputError, match="resnet20 without trained weights knows nothing"):
        cnnzoo.predict("resnet20", folder)


def test_a_net_of_ones_own_may_call_run_what_it_likes(folder):
    class Runs(torch.nn.Module):
        preprocessing, num_classes = Preprocess(32, 32, (0.5,) * 3, (0.5,) * 3), 3

        def __init__(self):
            super().__init__()
            self.conv, self.classes = torch.nn.Conv2d(3, 3, 32), photos.KINDS

        def run(self, x):
            return self.conv(x).flatten(1)

        forward = run

    assert len(cnnzoo.predict(Runs(), folder)) == 6
    assert cnnzoo.evaluate(Runs(), folder).count == 6


def test_a_broken_image_has_its_row_and_its_neighbours_have_theirs(net, tmp_path):
    """Elsewhere the next image takes the place of a broken one, under the broken one's name."""
    files = []
    for number in range(7):
        files.append(tmp_path / f"{number}.png")
        photos.picture(number % 3, number).save(files[-1])
    files[3].write_bytes(files[3].read_bytes()[:200])
    files[5].write_text("no picture")
    files[6].unlink()
    result = cnnzoo.predict(net, files, batch_size=2)
    assert result.files == tuple(map(str, files))
    assert result.errors == ("", "", "", "it is cut short", "", "it is not an image", "there is no such file")
    assert [bool(best) for best in result.top(3)] == [not error for error in result.errors]
    assert np.isnan(result.probabilities[[3, 5, 6]]).all()
    for place in (0, 1, 2, 4):
        alone = cnnzoo.predict(net, files[place])
        assert result.probabilities[place] == pytest.approx(alone.probabilities[0], abs=1e-6)


def test_what_streams_by_is_what_is_predicted(net, folder):
    parts = list(stream(net, folder, batch_size=4))
    assert [len(part) for part in parts] == [4, 2]
    whole = cnnzoo.predict(net, folder, batch_size=6)
    assert whole.files == (*parts[0].files, *parts[1].files)
    assert whole.probabilities == pytest.approx(np.concatenate([part.probabilities for part in parts]), abs=1e-6)
    assert not len(cnnzoo.predict(net, []))


def test_predictions_are_chosen_by_a_mask_or_numbers_and_compared(net, folder):
    (folder / "damaged.png").write_text("no picture")
    result = cnnzoo.predict(net, folder)
    wanted = [place for place, error in enumerate(result.errors) if not error]
    readable = np.array([not error for error in result.errors])
    assert 0 < len(wanted) < len(result)
    for chosen in (result[readable], result[wanted], result[np.array(wanted)]):
        assert [str(row) for row in chosen] == [str(result[place]) for place in wanted]
    assert [str(result[kind(1)]) for kind in (np.int64, np.array, torch.tensor)] == [str(result[1])] * 3
    assert len(result[[]]) == 0
    assert repr(result[[]]) == "no images"  # rather than nothing at all, at a prompt
    assert result == cnnzoo.predict(net, folder)  # in which what could not be read is NaN
    assert result != result[readable]
    assert result != replace(result, min_confidence=0.5)
    with pytest.raises(IndexError):
        result[np.array([True])]


def test_threads_may_share_a_net_in_training_which_stays_as_it_is(net, folder):
    wanted = cnnzoo.predict(net, folder).probabilities
    shared = copy.deepcopy(net).train()
    shared.layer1.eval()  # as where a stage is frozen
    modes, values = ([module.training for module in shared.modules()], copy.deepcopy(shared.state_dict()))
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(cnnzoo.predict, shared, folder, batch_size=size) for size in (1, 2, 3, 6) * 3]
    for one in asked:
        assert one.result().probabilities == pytest.approx(wanted, abs=1e-6)
    assert [module.training for module in shared.modules()] == modes
    assert all(torch.equal(value, values[name]) for name, value in shared.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_net_of_another_precision_is_asked_in_float32_and_stays_as_it_is(net, folder, dtype):
    other = copy.deepcopy(net).to(dtype)
    assert cnnzoo.predict(other, folder).probabilities == pytest.approx(
        cnnzoo.predict(net, folder).probabilities, abs=0.01
    )
    assert cnnzoo.evaluate(other, folder).count == 6
    assert next(other.parameters()).dtype == dtype


# ---- what there is to predict on


def test_folders_are_searched_and_what_is_hidden_or_no_image_is_passed_over(folder):
    (folder / ".trash").mkdir()
    (folder / "__MACOSX").mkdir()
    for stray in (".trash/a.png", ".hidden.png", "red/notes.txt", "photo.xcf", "__MACOSX/b.png"):
        (folder / stray).touch()
    (folder / "again").symlink_to(folder, target_is_directory=True)
    found = Pictures([folder])
    files = [f"{kind}/{number:02}.png" for kind in photos.KINDS for number in range(2)]
    assert [os.path.relpath(file, folder) for file in found] == files
    assert len(found) == 6
    assert found.passed_over == 2
    assert list(found) == list(found)


def test_patterns_find_files_in_order(folder):
    assert len(Pictures(f"{folder}/**/*.png")) == 6
    assert [os.path.relpath(file, folder) for file in Pictures(f"{folder}/*/01.*")] == [
        f"{kind}/01.png" for kind in photos.KINDS
    ]


def test_a_file_may_be_called_like_a_pattern(folder):
    name = folder / "red [1].png"
    shutil.copy(folder / "red" / "00.png", name)
    assert list(Pictures([name])) == [str(name)]


def test_a_files_content_is_a_picture_too(net, folder):
    file = folder / "red" / "00.png"
    content = file.read_bytes()
    wanted = cnnzoo.predict(net, file).probabilities
    with open(file, "rb") as opened:
        given = [content, opened, io.BytesIO(content), bytearray(content), memoryview(content)]
        alone, together = cnnzoo.predict(net, content), cnnzoo.predict(net, [*given, content[:20]])
    np.testing.assert_array_equal(alone.probabilities, wanted)
    np.testing.assert_allclose(together.probabilities[:5], np.repeat(wanted, 5, axis=0), atol=1e-6)
    assert together.errors[:5] == ("",) * 5
    assert together.files[5] == "image 5"
    assert together.errors[5]


def test_pictures_in_memory_are_numbered(net, folder):
    image = Image.open(folder / "red" / "00.png")
    pixels = np.asarray(image)
    result = cnnzoo.predict(net, [folder / "red" / "00.png", image, pixels])
    assert result.files[1:] == ("image 1", "image 2")
    assert result.probabilities[1:] == pytest.approx(result.probabilities[[0, 0]], abs=1e-6)


@pytest.mark.parametrize(
    ("shape", "as_tensor", "many"),
    [
        ((9, 7), False, 1),
        ((9, 7, 3), False, 1),
        ((9, 7, 1), False, 1),
        ((2, 9, 7), False, 2),
        ((2, 9, 7, 3), False, 2),
        ((3, 9, 7), True, 1),
        ((2, 3, 9, 7), True, 2),
        ((9, 7, 3), True, 1),
        ((2, 9, 7, 3), True, 2),
    ],
)
def test_one_array_is_one_picture_or_several_by_its_axes(net, shape, as_tensor, many):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert len(cnnzoo.predict(net, torch.from_numpy(pixels) if as_tensor else pixels)) == many


class Table(list):
    """As pandas' is: going through it gives the names of its columns."""

    columns = ("file", "class")


@pytest.mark.parametrize("table", [{"file": ["a.png"]}, Table(["file", "class"])], ids=["dict", "Table"])
def test_a_table_is_not_taken_for_the_names_of_its_columns(net, table):
    with pytest.raises(InputError, match=rf"images are in a {type(table).__name__}; give the column that holds them"):
        cnnzoo.predict(net, table)


@pytest.mark.parametrize("number", [np.array(3, np.uint8), torch.tensor(3, dtype=torch.uint8)])
def test_an_array_of_one_number_is_told(net, number):
    with pytest.raises(InputError, match=r"images are .*3.*, but must be files, folders"):
        cnnzoo.predict(net, number)


def test_channels_of_a_tensor_may_come_last(net):
    pixels = torch.randint(256, (9, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    first, last = cnnzoo.predict(net, [pixels.movedim(2, 0), pixels]).probabilities
    assert np.array_equal(first, last)


def test_what_stands_for_a_path_is_one(net, folder):
    with os.scandir(folder / "red") as found:
        assert set(cnnzoo.predict(net, found).files) == {str(file) for file in (folder / "red").iterdir()}


def test_a_photo_on_its_side_is_upright_however_it_is_given(net, tmp_path):
    file, side_up = tmp_path / "phone.jpg", Image.Exif()
    side_up[0x112] = 6  # Orientation
    photos.picture(2, 0).resize((60, 40)).save(file, exif=side_up)
    with Image.open(file) as image:
        given = cnnzoo.predict(net, [file, image]).probabilities
        turned = cnnzoo.predict(net, np.rot90(np.asarray(image), -1)).probabilities
    assert given[0] == pytest.approx(given[1], abs=1e-6)
    assert given[0] == pytest.approx(turned[0], abs=1e-6)


@pytest.mark.parametrize("kind", [RuntimeError, NotImplementedError, MemoryError, OSError])
def test_whatever_a_decoder_raises_is_the_files_own_error(net, folder, kind, monkeypatch):
    """PIL's decoders of AVIF, DDS and JPEG 2000 have errors of their own."""
    load = PngImageFile.load

    def broken(image):
        if image.width == 41:
            raise kind("no such frame")
        return load(image)

    photos.picture(0, 0, side=41).save(folder / "broken.png")
    monkeypatch.setattr(PngImageFile, "load", broken)
    assert [error for error in cnnzoo.predict(net, folder).errors if error] == ["it is damaged (no such frame)"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_in_a_folder_is_not_waited_for(folder):
    os.mkfifo(folder / "pipe.jpg")
    (folder / "nowhere.jpg").symlink_to(folder / "gone.jpg")
    found = Pictures(folder)
    assert (len(found), found.passed_over) == (7, 1)  # a link that leads nowhere has its row, and an error in it


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are texts")
def test_any_bytes_may_be_a_files_name(cli, model_file, tmp_path):
    photos.picture(0, 0).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    for ending in tables.FORMATS:
        assert cli("predict", model_file, tmp_path, "--out", f"out{ending}")[0] == 0
    assert json.loads((tmp_path / "out.json").read_text())[0]["error"] is None


# ---- what the table says


def read(file) -> list[dict]:
    """The rows of a table, as Python has them."""
    if file.suffix == ".json":
        return json.loads(file.read_text())
    if file.suffix == ".parquet":
        from pyarrow import parquet

        return parquet.read_table(file).to_pylist()
    rows = list(csv.DictReader(file.read_text().splitlines()))
    for row in rows:
        for name, value in row.items():
            text = name == "file" or name == "error" or name.startswith("top")
            row[name] = None if value == "" else value if text else json.loads(value)
    return rows


@pytest.mark.parametrize("ending", tables.FORMATS)
def test_every_format_holds_the_same_rows(cli, model_file, folder, ending):
    (folder / "red" / "00.png").write_text("no picture")
    result = cnnzoo.predict(model_file, folder, min_confidence=0.5)
    code, out, err = cli("predict", model_file, folder, "--out", f"out{ending}", "--top", 9, "--min-confidence", 0.5)
    assert (code, out) == (0, f"6 rows in out{ending}\n")
    assert "1 of 6 images could not be read" in err
    rows = read(folder.parent / f"out{ending}")
    assert rows == list(result.rows())
    names, shares = (f"top{n}" for n in (1, 2, 3)), (f"prob{n}" for n in (1, 2, 3))
    assert list(rows[0]) == ["file", *names, *shares, "abstain", "familiarity", "error"]
    assert rows[0]["prob1"] == pytest.approx(result.probabilities[0].max(), abs=1e-6)
    assert rows[4] == {
        **dict.fromkeys(rows[0]),
        "file": str(folder / "red" / "00.png"),
        "abstain": True,
        "error": "it is not an image",
    }
    header, first, *_ = csv.reader(result.to_csv().splitlines())
    assert header == list(rows[0])
    assert first[header.index("prob1")] == f"{rows[0]['prob1']:.6f}"  # also 1 and 0.00001, not as 1 and 1e-05
    result.write(folder.parent / f"again{ending}", many=9)
    assert read(folder.parent / f"again{ending}") == rows


@pytest.mark.parametrize("ending", tables.FORMATS)
def test_a_table_may_have_no_rows_and_takes_no_folders_place(tmp_path, ending):
    file = tmp_path / "new" / f"out{ending}"
    tables.write(file, [], {"file": str, "many": int})
    assert read(file) == []
    (tmp_path / f"a{ending}").mkdir()
    with pytest.raises(InputError, match=rf"a{ending} is a folder"):
        tables.write(tmp_path / f"a{ending}", [], {})


def test_a_name_of_several_lines_is_told_in_one(net, folder, tmp_path):
    odd = tmp_path / "a\nb\x1b[31m.png"
    shutil.copy(next(folder.glob("blue/*.png")), odd)
    predictions = cnnzoo.predict(net, odd)
    assert predictions.lines()[0].startswith(f"{tmp_path}/a\\nb\\x1b[31m.png  ")
    assert predictions.files == (str(odd),)


def test_a_class_of_several_lines_is_told_in_one(net, folder):
    predictions = replace(cnnzoo.predict(net, folder), classes=("a\nb\x1b[31m", "c\rd", "e"))
    assert len(str(predictions).splitlines()) == len(predictions)
    assert "a\\nb\\x1b[31m " in str(predictions[0])


def test_probabilities_are_at_the_runs_temperature(net, model_file, folder):
    raw, calibrated = cnnzoo.predict(net, folder).probabilities, cnnzoo.predict(model_file, folder).probabilities
    assert cnnzoo.load(model_file).temperature == 2.5
    expected = raw ** (1 / 2.5)
    assert calibrated == pytest.approx(expected / expected.sum(axis=1, keepdims=True), abs=1e-5)


@pytest.mark.parametrize(
    "swap",
    [
        lambda net: net.reset_classifier(2),
        lambda net: net.set_submodule("fc", torch.nn.Linear(64, 2)),
        lambda net: net.set_submodule("fc", torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(64, 2))),
    ],
)
def test_a_net_with_another_head_has_no_names_any_more(swap, folder):
    net = make_net()
    swap(net)
    for form in (net, cnnzoo.optimize(net)):
        result = cnnzoo.predict(form, folder)
        assert (result.classes, result.probabilities.shape[1]) == (("0", "1"), 2)


def test_every_view_of_a_photo_counts_where_the_fast_form_must_pay(tmp_path, monkeypatch):
    folder, net, made = photos.folder(tmp_path / "photos", each=17), make_net(), []
    monkeypatch.setattr(optimized, "optimize", lambda net, precision: made.append(net) or net)
    for views in (1, 2):
        cnnzoo.predict(net, folder, mirror=views == 2)
        cnnzoo.judge(net, folder, crops=views)
    assert [net.to_come for net in made] == [102, 102]  # 51 alone do not pay


def test_mirroring_takes_the_mean_over_both_images(net, folder):
    photos = [np.asarray(Image.open(file).convert("RGB")) for file in sorted(folder.rglob("*.png"))]
    there, back = (cnnzoo.predict(net, views).probabilities for views in (photos, [p[:, ::-1] for p in photos]))
    both = cnnzoo.predict(net, photos, mirror=True).probabilities
    np.testing.assert_allclose(both, (there + back) / 2, atol=1e-3)
    assert np.abs(there - back).max() > 1e-3


def test_answers_below_the_confidence_asked_for_are_marked(cli, net, model_file, folder):
    sure = cnnzoo.predict(model_file, folder).probabilities.max(axis=1)
    least = float(np.sort(sure)[2] + np.sort(sure)[3]) / 2
    result = cnnzoo.predict(model_file, folder, min_confidence=least)
    assert (result.abstain == (sure < least)).all()
    assert not cnnzoo.predict(model_file, folder).abstain.any()
    code, out, err = cli("predict", model_file, folder, "--min-confidence", least)
    assert code == 0
    assert [" unsure: " in line for line in out.splitlines()] == result.abstain.tolist()
    assert "3 of 6 images are unsure" in err


def test_a_printed_table_names_the_likeliest_classes(cli, model_file, folder):
    code, out, _ = cli("predict", model_file, folder / "red", "--top", 2)
    best = cnnzoo.predict(model_file, folder / "red").top(2)
    assert code == 0
    for line, ((first, p), (second, q)) in zip(out.splitlines(), best, strict=True):
        assert line.endswith(f"  {first} {p:.1%}  {second} {q:.1%}")


def test_a_table_is_whole_or_absent(tmp_path):
    def rows():
        yield {"file": "a"}
        raise RuntimeError("the disk is full")

    for ending in tables.FORMATS:
        file = tmp_path / f"out{ending}"
        tables.write(file, [{"file": "earlier"}], {"file": str})
        with pytest.raises(RuntimeError):
            tables.write(file, rows(), {"file": str})
        assert read(file) == [{"file": "earlier"}]
    assert len(list(tmp_path.iterdir())) == len(tables.FORMATS)


# ---- what does not fit


def test_small_photos_are_told_of_once(cli, model_file, folder):
    photos.picture(0, 0, side=12).save(folder / "small.png")
    assert cnnzoo.predict(model_file, folder).upscaled.tolist() == [True, *[False] * 6]
    code, _, err = cli("predict", model_file, folder)
    assert code == 0
    assert err.splitlines() == ["1 of 7 images has fewer pixels than the net takes: scaled up"]


def test_a_net_without_weights_predicts_as_any_other(folder):
    class Colours(torch.nn.Module):
        preprocessing, classes = cnnzoo.preprocessing("resnet20"), photos.KINDS

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)).flip(1)

    named = ["blue"] * 2 + ["green"] * 2 + ["red"] * 2
    assert cnnzoo.predict(Colours(), folder).named == named
    assert cnnzoo.predict(Colours(), 20 * sorted(folder.rglob("*.png"))).named == 20 * named  # so many have a fast form


def test_a_grey_net_takes_colour_photos_as_grey(folder):
    file = folder / "red" / "00.png"
    grey = make_net(in_chans=1)
    seen = cnnzoo.predict(grey, [file, np.asarray(Image.open(file).convert("L"))]).probabilities
    assert seen[0] == pytest.approx(seen[1], abs=1e-6)


def test_a_net_of_other_channels_than_pictures_have_is_refused(folder):
    with pytest.raises(InputError, match="the net takes images of 4 channels, but pictures have 3, or 1 if grey"):
        cnnzoo.predict(make_net(in_chans=4), folder)


def test_a_net_with_weights_of_its_own_takes_no_others(net, folder):
    with pytest.raises(InputError, match="has weights of its own; pretrained goes with a net's name"):
        cnnzoo.predict(net, folder, pretrained=True)


def test_of_the_likeliest_classes_at_least_one_is_asked_for(net, folder):
    with pytest.raises(InputError, match="top is 0, but must be a whole number of at least 1"):
        cnnzoo.predict(net, folder).top(0)


def closed() -> Image.Image:
    image = Image.new("RGB", (8, 8))
    image.close()
    return image


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((8, 8, 5), np.uint8), r"image 1: .* has 5 channels, but 3 are wanted"),
        (np.zeros((8, 8, 3), np.float32), "image 1: a picture is a uint8 array"),
        (np.zeros(8, np.uint8), "image 1: a picture is a uint8 array"),
        (closed(), r"image 1: a picture cannot be read \(Operation on closed image\)"),
        (io.StringIO("text"), r"an open file of an image holds bytes, as open\(file, 'rb'\) gives them, not 'text'"),
    ],
)
def test_an_array_that_is_no_picture_is_named(net, pixels, words):
    with pytest.raises(InputError, match=words):
        cnnzoo.predict(net, [np.zeros((8, 8, 3), np.uint8), pixels])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["photos", "--out", "out.xlsx"], "out.xlsx must end in one of .csv, .json, .parquet"),
        (["photos", "--out", "photos"], "photos must end in one of"),
        (["photos/*.jpg"], "photos/*.jpg matches no file"),
        (["photos/*"], f"photos/* matches folders only, such as {os.path.join('photos', 'blue')}; "),
        (["labels.csv"], "labels.csv: it is a table, not an image: name the photos themselves"),
        (["https://a.org/b.jpg"], "(https://a.org/b.jpg: it is an address: download it, and name the file)"),
        (["file:///b.jpg"], "(file:///b.jpg: it is an address: download it, and name the file)"),
        (["-"], "(-: there is no such file; standard input is called /dev/stdin)"),
        ([""], "(: there is no such file; its name is empty)"),
        (["empty"], "empty holds no images; known endings: .avif .bmp"),
        (["photos", "--min-confidence", "60"], "min_confidence is 60.0, but must be between 0 and 1"),
        (["photos", "--batch-size", "0"], "batch_size is 0"),
        (["photos/nope.png", "--out", "out.csv"], "no image could be read (photos/nope.png: there is no such file)"),
    ],
)
def test_wrong_input_is_told_in_one_line(fails, model_file, folder, arguments, words):
    (folder.parent / "empty").mkdir()
    (folder.parent / "labels.csv").write_text("file,class\nphotos/a.png,red\n")
    assert words in fails("predict", model_file, *arguments)


def test_without_pyarrow_parquet_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r'Parquet needs pyarrow, which pip install "cnnzoo\[parquet\]" brings'):
        tables.check(tmp_path / "out.parquet")


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(folder):
    (folder / "red").chmod(0)
    try:
        with pytest.raises(InputError, match="red cannot be read: Permission denied"):
            Pictures(folder)
    finally:
        (folder / "red").chmod(0o700)


# ---- memory

MANY_LARGE_PHOTOS = """
import os, resource, sys
os.cpu_count = lambda: 64
import cnnzoo
net = cnnzoo.create("resnet20")
cnnzoo.predict(net, sys.argv[1] + "/small.png")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = cnnzoo.predict(net, sys.argv[1])
assert len(result) == 25 and not any(result.errors)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is counted in other units")
def test_24_photos_of_12_megapixels_on_64_cores_take_little_memory(tmp_path):
    """Decoded they are 36 MB each, 860 MB in all."""
    Image.new("RGB", (4000, 3000), "green").save(tmp_path / "00.bmp")
    photos.picture(0, 0).save(tmp_path / "small.png")
    for number in range(1, 24):
        os.link(tmp_path / "00.bmp", tmp_path / f"{number:02}.bmp")
    line = [sys.executable, "-c", MANY_LARGE_PHOTOS, str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 500
