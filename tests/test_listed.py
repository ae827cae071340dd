"""Photos listed in a table: which columns are which, where the photos lie, what is held out, what belongs together."""

import csv
import shutil
from pathlib import Path

import photos
import pytest

import cnnzoo
from cnnzoo.cli import main
from cnnzoo.config import AugmentConfig, DataConfig
from cnnzoo.data import sources
from cnnzoo.errors import InputError
from cnnzoo.transfer import copies, doctor

KINDS = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """Here lie ten photos, in a folder of their own: 0.png is an ant, 1.png a bee, 2.png a cat, 3.png an ant …"""
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    for number in range(10):
        photos.picture(number % 3, number).save(f"pictures/{number}.png")
    return tmp_path


def kind(number: int) -> str:
    return KINDS[number % 3]


def write(rows: list, header: str = "file,label", name: str = "labels.csv", delimiter: str = ",") -> str:
    with open(name, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([*([header.split(",")] if header else []), *rows])
    return name


def whole(name: str = "labels.csv", ending: str = ".png") -> str:
    return write([(f"{number}{ending}", kind(number)) for number in range(10)], name=name)


def load(source: str, **config) -> sources.Dataset:
    return sources.load(DataConfig(source, **config), AugmentConfig(), 8)


def said(split: sources.Split, data: sources.Dataset) -> dict[str, str]:
    """What each photo is said to be."""
    labels = (data.classes[label] for label in split.labels)
    return {Path(name).name: label for name, label in zip(split.names, labels, strict=True)}


def assert_all_there(data: sources.Dataset) -> None:
    assert said(data.train, data) | said(data.val, data) == {f"{n}.png": kind(n) for n in range(10)}


# ---- what a table says


@pytest.mark.parametrize("ending", [".png", ""], ids=["names", "numbers alone"])
def test_photos_are_found_in_a_folder_beside_the_table_with_or_without_their_ending(ending):
    data = load(whole(ending=ending))
    assert data.classes == KINDS
    assert (len(data.train), len(data.val)) == (7, 3)
    assert_all_there(data)


def test_a_table_and_its_photos_are_known_as_the_same_wherever_they_lie(home):
    whole()
    shutil.copytree(home, home / "copy")
    places = ["labels.csv", "copy/labels.csv", str(home / "copy" / ".." / "labels.csv")]
    assert len({load(place).digest for place in places}) == 1
    assert load("labels.csv", split_seed=1).digest != load("labels.csv").digest
    renamed = write([(f"{number}.png", kind(number).upper()) for number in range(10)], name="renamed.csv")
    assert load(renamed).digest != load("labels.csv").digest
    rows = [(f"{number}.png", kind(number), "val" if number > 5 else "train") for number in range(10)]
    other = [("0.png", kind(1), "train"), *rows[1:]]
    assert load(write(rows, "file,label,split")).digest != load(write(other, "file,label,split")).digest


def test_endings_may_be_missing_as_cameras_write_them():
    for number in range(10):
        Path(f"pictures/{number}.png").rename(f"pictures/{number}.PNG")
    data = load(whole(ending=""))
    assert said(data.train, data) | said(data.val, data) == {f"{n}.PNG": kind(n) for n in range(10)}


def test_a_photo_that_may_be_one_of_several_is_told_and_not_guessed():
    Path("masks").mkdir()
    Path("masks/3.png").write_bytes(Path("pictures/0.png").read_bytes())
    with pytest.raises(InputError, match=r"labels\.csv, line 5: 3\.png may be masks/3\.png or pictures/3\.png; write"):
        load(whole())
    assert_all_there(load(write([(f"pictures/{number}.png", kind(number)) for number in range(10)])))


def test_a_photo_beside_the_table_comes_before_those_in_folders():
    Path("9.png").write_bytes(Path("pictures/9.png").read_bytes())
    names = {*load(whole()).train.names, *load("labels.csv").val.names}
    assert names == {*(f"pictures/{number}.png" for number in range(9)), "9.png"}


@pytest.mark.parametrize(
    "header", ["file,label", "Image Name,Class", "image_id,species", "filename,category", "name,y,label"]
)
def test_columns_are_known_by_their_names(header):
    rows = [(f"{n}.png", *(["x"] if header.count(",") == 2 else []), kind(n)) for n in range(10)]
    assert_all_there(load(write(rows, header)))


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t"), ("A.CSV", ",")])
def test_columns_are_parted_as_spreadsheets_do(name, delimiter):
    assert_all_there(load(write([(kind(n), f"pictures/{n}.png") for n in range(10)], "label,path", name, delimiter)))


def test_a_table_may_do_without_the_names_of_its_columns():
    assert_all_there(load(write([(f"{n}.png", kind(n)) for n in range(10)], header="")))


def test_excels_mark_empty_lines_and_windows_paths_are_understood():
    lines = ["", "file;label", "", *(f"pictures\\{n}.png; {kind(n)} " for n in range(10)), ""]
    Path("labels.csv").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    assert_all_there(load("labels.csv"))


def test_a_space_before_a_quotation_mark_is_no_part_of_a_cell():
    Path("labels.csv").write_text("".join(["file, label\n", *(f'"{n}.png", "{kind(n)}"\n' for n in range(10))]))
    assert_all_there(load("labels.csv"))


@pytest.mark.parametrize(
    ("odd", "later", "where"),
    [
        ('"4.png,ant', "7.png,ant", "after line 5"),
        ('4.png,"ant', "7.png,ant", "after line 5"),
        ('4.png,ant,"small', "7.png,ant", "after line 5"),  # in a column that nothing is read of
        ('4.png,"ant', '7.png,"ant"', "in the row that ends in line 9"),
    ],
)
def test_a_quotation_mark_without_its_other_half_is_told(odd, later, where):
    lines = ["file,label,note", *(f"{n}.png,{kind(n)}" for n in range(10))]
    lines[5], lines[8] = odd, later
    Path("labels.csv").write_text("\n".join([*lines, ""]))
    with pytest.raises(InputError, match=f"{where} a quotation mark is not closed"):
        load("labels.csv")


def test_classes_that_are_numbers_go_by_their_size():
    data = load(write([(f"{n}.png", 5 * (n % 3)) for n in range(10)]))
    assert data.classes == ("0", "5", "10")
    spelt = [("02", "002", "2")[n % 3] for n in range(10)]
    assert load(write([(f"{n}.png", spelt[n]) for n in range(10)])).classes == ("002", "02", "2")
    degrees = [("10.0", "2.5", "-1")[n % 3] for n in range(10)]
    assert load(write([(f"{n}.png", degrees[n]) for n in range(10)])).classes == ("-1", "2.5", "10.0")


@pytest.mark.parametrize(
    ("header", "train", "val"),
    [
        ("file,label,split", "train", "val"),
        ("file,label,Set", "Training", "TEST"),
        ("file,label,is_valid", "False", "True"),
    ],
)
def test_photos_are_held_out_as_the_table_says(header, train, val):
    data = load(write([(f"{n}.png", kind(n), val if n < 3 else train) for n in range(10)], header))
    assert [sorted(said(part, data)) for part in (data.val, data.train)] == [
        *([f"{n}.png" for n in numbers] for numbers in (range(3), range(3, 10)))
    ]


def test_where_there_are_photos_to_validate_and_to_test_on_the_former_are_held_out():
    splits = ["val", "test", "train", "val", "test", "val", *["train"] * 4]
    data = load(write([(f"{n}.png", kind(n % 2), splits[n]) for n in range(10)], "file,label,split"))
    assert sorted(said(data.val, data)) == ["0.png", "3.png", "5.png"]
    assert len(data.train) == 5


def test_photos_are_held_out_however_each_row_spells_it():
    splits = ["val", "Validation", "valid", "test", "testing", *["train"] * 3, *["Training"] * 2]
    data = load(write([(f"{n}.png", kind(n % 2), splits[n]) for n in range(10)], "file,label,split"))
    assert [sorted(said(part, data)) for part in (data.val, data.train)] == [
        *([f"{n}.png" for n in numbers] for numbers in (range(3), range(5, 10)))
    ]


def test_the_first_line_may_tell_excel_what_stands_between_columns():
    rows = "\n".join(f"{n}.png;{kind(n)}" for n in range(10))
    write([(f"{n}.png", kind(n)) for n in range(10)])
    Path("labels.csv").write_text(f"sep=;\nfile;label\n{rows}\n", encoding="utf-8-sig")
    assert load("labels.csv").classes == KINDS
    Path("labels.csv").write_text(f"sep=;\nfile;label\n{rows}\n0.png;other\n")
    with pytest.raises(InputError, match=r"line 13: 0\.png is listed twice"):  # counted as an editor counts
        load("labels.csv")


def test_rows_that_say_too_little_are_passed_over_and_told():
    rows = [(f"{n}.png", kind(n)) for n in range(10)]
    data = load(write([*rows, ("11.png", ""), ("", "ant"), rows[0]]))
    assert_all_there(data)
    assert data.notes == (
        "2 rows of labels.csv without a photo or a class passed over",
        "1 row of labels.csv with a photo that was listed before passed over",
    )


def test_a_photo_is_one_however_its_path_is_written(home):
    again = [("pictures/../pictures/0.png", "ant"), (home / "pictures" / "0.png", "ant")]
    data = load(write([*((f"pictures/{n}.png", kind(n)) for n in range(10)), *again]))
    assert_all_there(data)
    assert data.notes == ("2 rows of labels.csv with a photo that was listed before passed over",)


def test_a_photo_that_is_not_there_is_told_as_in_any_folder():
    source = write([(f"{n}.png", kind(n % 2)) for n in range(11)])
    with pytest.raises(InputError, match=r"1 file cannot be read \(.*10\.png: there is no such file\)"):
        load(source)
    assert len(load(source, bad_files="skip").train) == 8


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([], "file,label", "labels.csv lists no photo with its class"),
        ([("a.png", "ant")], "file,weight", "has the columns file, weight, and none is called class; call that one so"),
        ([("1", "ant")], "number,label", "has the columns number, label, and none is called file"),
        ([("1.png", "ant"), ("1.png", "bee")], "file,label", "line 3: 1.png is listed twice, as ant and as bee"),
        ([("1.png", "ant", "later")], "file,label,split", "line 2: split is 'later', but must be train, val, valid"),
        ([("1.png", "ant", "val")], "file,label,split", "labels.csv has no photo to train on"),
        (
            [("0.png", "ant", "train"), ("1.png", "bee", "train"), ("2.png", "bees", "val")],
            "file,label,split",
            r"has classes in its val rows that its train rows lack: bees \(did you mean bee\?\)",
        ),
        ([("0.png", "ant"), ("3.png", "ant")], "file,label", "labels.csv holds one class only"),
    ],
)
def test_what_is_wrong_with_a_table_is_told_in_a_line(rows, header, message):
    with pytest.raises(InputError, match=message) as error:
        load(write(rows, header))
    assert "\n" not in str(error.value)


def test_a_table_that_is_none_is_told():
    whole()
    with pytest.raises(InputError, match=r"there is no table lable\.csv; did you mean labels\.csv\?"):
        load("lable.csv")
    with pytest.raises(
        InputError, match=r"'labels\.cvs' is neither a known set nor a folder; did you mean labels\.csv\?"
    ):
        load("labels.cvs")
    Path("latin.csv").write_bytes("file,label\n1.png,Bär\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.csv is not UTF-8"):
        load("latin.csv")
    Path("bytes.csv").write_bytes(b"file,label\n1\0.png,ant\n")
    with pytest.raises(InputError, match=r"bytes\.csv holds bytes that no text has"):
        load("bytes.csv")
    Path("empty.csv").touch()
    with pytest.raises(InputError, match=r"empty\.csv is empty"):
        load("empty.csv")


# ---- what belongs together


def patients() -> str:
    """Five patients of two photos each, one of each class."""
    return write([(f"{n}.png", KINDS[n % 2], f"p{n // 2}") for n in range(10)], "file,label,patient")


def test_a_column_tells_which_photos_belong_together():
    data = load(patients(), groups="patient", val_fraction=0.4)
    own = [{int(Path(name).stem) // 2 for name in part.names} for part in (data.train, data.val)]
    assert not own[0] & own[1]
    assert data.notes[-1] == "10 images in 5 groups, none of which is divided"


def test_photos_without_a_value_in_that_column_stand_alone():
    write([(f"{n}.png", KINDS[n % 2], "p1" if n < 4 else "") for n in range(10)], "file,label,patient")
    data = load("labels.csv", groups="patient")
    assert data.notes[-1].endswith("6 others stand alone")
    assert len({*data.train.groups, *data.val.groups}) == 7


def test_a_regular_expression_finds_them_in_paths():
    Path("labels.csv").write_text("file,label\n" + "".join(f"{n}.png,{KINDS[n % 2]}\n" for n in range(10)))
    with pytest.raises(InputError, match="has all its 5 images in one group"):
        load("labels.csv", groups="(pictures)/")


def test_a_column_that_is_misspelt_is_told():
    with pytest.raises(
        InputError, match=r"labels\.csv has no column 'patiant' \(data\.groups\); did you mean patient\?"
    ):
        load(patients(), groups="patiant")


def test_a_column_that_says_nothing_is_told():
    write([(f"{n}.png", kind(n), " ") for n in range(10)], "file,label,patient")
    with pytest.raises(InputError, match=r"labels\.csv says nothing in its column 'patient' \(data\.groups\)"):
        load("labels.csv", groups="patient")


def test_groups_reach_over_two_tables():
    write([(f"{n}.png", KINDS[n % 2], f"p{n // 4}") for n in range(7)], "file,label,patient", "train.csv")
    write([(f"{n}.png", KINDS[n % 2], f"p{n // 4}") for n in range(7, 10)], "file,label,patient", "val.csv")
    data = load("train.csv", val_source="val.csv", groups="patient")
    assert "1 of which is both trained and judged on" in data.notes[-1]
    write([("7.png", "ant"), ("8.png", "bee")], name="val.csv")
    with pytest.raises(InputError, match=r"data\.groups is a column of one of train\.csv and val\.csv, not of both"):
        load("train.csv", val_source="val.csv", groups="patient")


# ---- the doctor


def test_the_doctor_looks_at_a_tables_photos():
    Path("pictures/10.png").write_bytes(Path("pictures/0.png").read_bytes())
    Path("pictures/11.png").write_bytes(b"")
    rows = [(f"{n}.png", kind(n), "train") for n in range(10)]
    source = write([*rows, ("10.png", "ant", "val"), ("11.png", "bee", "val")], "file,label,split")
    found = {(f.kind, f.file): f.other for f in doctor.check(source).findings if f.severity == "error"}
    assert found == {("leak", "val/ant/10.png"): "train/ant/0.png", ("empty file", "val/bee/11.png"): ""} | {
        ("empty class", "val/bee"): ""
    }


def test_good_photos_of_a_table_are_copied_into_class_folders():
    Path("more").mkdir()
    photos.picture(1, 20).save("more/0.png")
    write([*((f"pictures/{n}.png", kind(n)) for n in range(10)), ("more/0.png", "bee")])
    copies.fix(doctor.check("labels.csv"), "good")
    there = sorted(file.relative_to("good").as_posix() for file in Path("good").rglob("*.png"))
    assert there == sorted([*(f"{kind(n)}/{n}.png" for n in range(1, 10)), "ant/pictures/0.png", "bee/more/0.png"])


def test_copies_of_a_tables_photos_overwrite_none_and_mix_no_classes():
    Path("tables/pictures").mkdir(parents=True)
    photos.picture(1, 20).save("tables/pictures/0.png")
    kinds = ["a/b", "a_b", ".."]
    rows = [*((f"../pictures/{n}.png", kinds[n % 3]) for n in range(10)), ("pictures/0.png", "a/b")]
    fixed = copies.fix(doctor.check(write(rows, name="tables/labels.csv")), "good")
    there = [file.relative_to("good").as_posix() for file in Path("good").rglob("*.png")]
    assert fixed.copied == len(there) == 11
    assert {name.split("/")[0] for name in there} == {"_..", "a_b", "a_b_2"}


def test_the_doctor_tells_which_groups_a_table_divides(capsys):
    write(
        [(f"{n}.png", KINDS[n % 2], f"p{n // 3}", "val" if n > 6 else "train") for n in range(10)],
        "file,label,id2,split",
    )
    checkup = doctor.check("labels.csv", groups="id2")
    assert {f.file for f in checkup.findings if f.kind == "divided group"} == {"val/bee/7.png", "val/ant/8.png"}
    with pytest.raises(InputError, match="copies would lack the column of labels"):
        checkup.fix("good")
    assert main(["check", "labels.csv", "--groups", "id2"]) == 1
    assert "--fix" not in capsys.readouterr().out


# ---- a run


def test_a_run_of_a_table_that_was_moved_with_its_photos_is_judged_on_what_it_held_out(tmp_path):
    options = {"classifier": "centroid", "overrides": {"data.size": 32}, "tell": lambda line: None}
    run = cnnzoo.probe(whole(), "resnet20", photos.weights(tmp_path / "w.pth"), **options)
    (tmp_path / "moved").mkdir()
    for each in ("pictures", "labels.csv"):
        Path(each).rename(tmp_path / "moved" / each)
    with pytest.raises(InputError, match=r"labels\.csv, on which .* was trained, is not here; name images by data=…"):
        cnnzoo.judge(run)
    found = cnnzoo.judge(run, "moved/labels.csv", tell=lambda line: None).images
    assert [Path(name).name for name in found] == [Path(name).name for name in run.split["val"]]


def test_a_run_learns_from_a_table_and_is_judged_by_it(tmp_path):
    options = {"classifier": "centroid", "overrides": {"data.size": 32}, "tell": lambda line: None}
    run = cnnzoo.probe(whole(), "resnet20", photos.weights(tmp_path / "w.pth"), **options)
    assert run.path == Path("runs/resnet20_labels_probe")
    judged = cnnzoo.judge(run)
    assert [judged.classes[target] for target in judged.targets] == [kind(int(Path(f).stem)) for f in judged.images]
    assert len(cnnzoo.judge(run, whole("again.csv")).targets) == 10


def test_for_photos_that_a_table_has_lost_others_of_any_class_stand_in():
    for number in range(10, 40):
        photos.picture(number % 3, number).save(f"pictures/{number}.png")
    rows = [(f"{n}.png", kind(n)) for n in range(40)]
    names = [f"pictures/{file}" for file, _ in rows]
    split = {"train": names[:34], "val": names[34:]}
    write(rows[3:])
    data = sources.load(DataConfig("labels.csv"), AugmentConfig(), 8, split=split)
    assert set(data.train.labels[:3]) == {0, 1, 2}
    assert list(data.train.labels[3:]) == [n % 3 for n in range(3, 34)]
    assert data.notes[-1].endswith("pictures/0.png and 2 more; it goes on with others in their place")


def test_runs_are_compared_alike_in_either_order_where_one_alone_knows_groups(tmp_path):
    rows = [(f"{n}.png", KINDS[n % 2], f"p{n // 4}", "train" if n < 4 else "val") for n in range(10)]
    table, weights = write(rows, "file,label,patient,split"), photos.weights(tmp_path / "w.pth")
    runs = []
    for options in ({}, {"data.groups": "patient"}):
        overrides = {"data.size": 32, **options}
        runs.append(
            cnnzoo.probe(
                table,
                "resnet20",
                weights,
                classifier="centroid",
                run=f"run{len(runs)}",
                overrides=overrides,
                tell=lambda line: None,
            )
        )
    one, other = (cnnzoo.compare_runs(*pair, tell=lambda line: None) for pair in (runs, runs[::-1]))
    assert one.interval == pytest.approx([-end for end in other.interval[::-1]])
    assert one.interval[1] > 0.4  # as of two patients, where of six photos it would be 0.25


def test_weights_out_of_reach_are_told_before_a_tables_photos_are_decoded_and_a_wrong_table_before_both(
    tmp_path, monkeypatch
):
    for name, value in {"CNNZOO_OFFLINE": "1", "CNNZOO_WEIGHTS": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("cnnzoo.data.sources.load", None)
    with pytest.raises(InputError, match="one class only"):
        cnnzoo.probe(write([("0.png", "ant"), ("3.png", "ant")], name="one.csv"), "resnet18", "tv_in1k")
    with pytest.raises(InputError, match="CNNZOO_OFFLINE is set"):
        cnnzoo.probe(whole(), "resnet18", "tv_in1k")
