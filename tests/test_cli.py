"""The command line: what it prints, and one clear line with exit code 2 for wrong input."""

import builtins
import html
import io
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnzoo import config
from cnnzoo.__main__ import run
from cnnzoo.checkpoint import Run
from cnnzoo.cli import COMMANDS, main
from cnnzoo.cli.parsing import overview, parser_of
from cnnzoo.errors import InputError
from cnnzoo.habits import INSTEAD, OPTIONS
from cnnzoo.registry import unregister
from cnnzoo.summary import COLUMNS
from cnnzoo.zoo import create


def photos(folder, classes=("cat", "dog"), each=4, size=(40, 40)):
    """Class folders of plain colours."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            Image.new("RGB", size, (200 * label, 20 * i, 90)).save(folder / name / f"{i}.png")
    return folder


# ---- what it prints


def test_commands_need_no_docstrings_of_which_python_OO_has_none():
    def command(name: str, *, many: int = 1): ...

    assert vars(parser_of("command", command).parse_args(["a", "--many", "2"])) == {"name": "a", "many": 2}
    assert "None" not in overview({"command": command}, "cnnzoo")


def test_list_names_nets_in_natural_order(cli):
    code, out, _ = cli("list", "vgg1*")
    assert code == 0
    assert out.split() == ["vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"]


def test_list_prints_json(cli):
    assert json.loads(cli("list", "lenet*", "--json")[1]) == ["lenet5", "lenet5_1998"]


def test_list_pretrained_leaves_out_nets_without_weights(cli):
    names = cli("list", "--pretrained")[1].split()
    assert "resnet50" in names
    assert "lenet5" not in names


def test_info_tells_the_paper_and_the_differences(cli):
    out = cli("info", "resnet50")[1]
    for part in ("Deep Residual Learning", "25,557,032", "4,089,184,256", "stage4", "1. the stride of a bottleneck"):
        assert part in out
    facts = json.loads(cli("info", "resnet50", "--json")[1])
    assert facts["params"] == 25_557_032
    assert facts["stages"][0]["shape"] == [64, 112, 112]


def test_summary_is_the_layer_table(cli):
    out = cli("summary", "alexnet_2012")[1]
    conv1 = next(line.split() for line in out.splitlines() if line.startswith("conv1"))
    assert conv1[1:5] == ["Conv2d", "11x11/4", "96x55x55", "34,944"]
    assert "60,965,224" in out.splitlines()[-1]
    table = cli("summary", "lenet5", "--csv")[1]
    assert table.splitlines()[0] == ",".join(COLUMNS)
    assert "\r" not in table  # which a terminal on Windows would get twice
    assert cli("summary", "resnet18", "--input", "1,64,64")[0] == 2
    assert "512x2x2" in cli("summary", "resnet18", "--input", "3,64,64")[1]
    assert len({cli("summary", "resnet18", "--input", size) for size in ("3,64,64", "3x64x64", "64")}) == 1


def test_summary_is_the_lecturers_table(cli):
    out = cli("summary", "alexnet_2012", "--compact")[1]
    conv1 = next(line.split() for line in out.splitlines() if line.startswith("conv1"))
    assert conv1[2:5] == ["11x11/4", "55x55x96", "34,944"]
    out = cli("summary", "vgg16", "--compact")[1]
    total, note = out.splitlines()[-2:]
    for figure in ("138,357,544", "15,237,608"):
        assert figure in total
    assert note.startswith("Note: lectures count 24 million activations")


def test_info_tells_the_papers_figures_beside_ours(cli):
    lines = cli("info", "alexnet_2012")[1].splitlines()
    assert next(line.split()[1:] for line in lines if "neurons" in line) == ["650,000", "659,272"]
    assert next(line for line in lines if "10 crops  " in line).endswith("not run")
    out = cli("info", "googlenet")[1]
    assert "6,379,984 parameters more: 2 auxiliary heads, aux1, aux2" in out
    facts = json.loads(cli("info", "alexnet_2012", "--json")[1])
    assert facts["claims"][0] == {"what": "parameters", "figure": "60 million", "ours": "60,965,224"}


def test_compare_tells_the_numbers_and_draws_them(cli, tmp_path):
    code, out, err = cli("compare", "vgg1[16]", "resnet50_2015", "--out", "nets.png")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["model", "vgg16", "vgg11", "2"]
    assert "15,470,264,320" in out
    assert err == "without weights of known accuracy: resnet50_2015\n"
    with Image.open(tmp_path / "nets.png") as picture:
        assert picture.format == "PNG"
    assert cli("compare", "vgg16", "--csv")[1].splitlines()[0].startswith("model,tag,top1,top5,size,macs,params")
    assert json.loads(cli("compare", "vgg16", "--json")[1])["points"][0]["params"] == 138_357_544


def test_help_tells_every_command_and_key(cli, capsys):
    out = cli("--help")[1]
    for name in ("list", "info", "summary", "compare", "train", "evaluate", "predict", "report"):
        assert name in out
    with pytest.raises(SystemExit) as done:
        main(["train", "--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert "--optim.lr" in text
    assert "--resume" in text


def test_help_is_a_command_too_and_tells_of_the_version(cli, capsys):
    assert cli("help") == cli("--help") == cli()
    assert "--version" in cli("help")[1]
    with pytest.raises(SystemExit):
        main(["help", "list"])
    assert "a wildcard pattern" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("lab", "list"), ("benchmark", "list"), ("summary", "lenet5"), ("list", "res*")])
def test_what_lists_something_gives_it_as_json_too(cli, words):
    code, out, _ = cli(*words, "--json")
    assert code == 0
    assert len(json.loads(out)) > 3


@pytest.mark.parametrize("command", ["probe", "finetune", "profile"])
def test_help_tells_that_keys_of_the_config_are_options(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "Every key of a config is an option too" in capsys.readouterr().out


def test_options_that_are_not_ours_are_not_offered(fails):
    assert fails("list", "--zzz") == "unknown key 'zzz'; known: pretrained, json"


def test_one_is_no_plural_and_a_folder_of_any_name_is_quoted(cli, tmp_path):
    folder = photos(tmp_path / "my photos")
    (folder / "cat" / "again.png").write_bytes((folder / "cat" / "0.png").read_bytes())
    (folder / "cat" / "notes.txt").touch()
    phases = '[{"epochs": 1, "trainable": ["head"]}, {"epochs": 1}]'
    options = ["--model.name", "resnet20", "--train.batch_size", 2, "--train.phases", phases]
    out = cli("train", "--data.source", folder, "--run", "r", *options)[1]
    assert "phase 2 of 2, 1 epoch: " in out
    assert f"cnnzoo check '{folder}' tells all" in out
    _, out, err = cli("predict", "r", folder / "cat" / "0.png", folder / "cat", "--out", "all.csv")
    assert "1 other file passed over" in err
    assert cli("predict", "r", folder / "cat" / "0.png", "--out", "one.csv")[1] == "1 row in one.csv\n"


def test_commands_that_are_printed_can_be_typed(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/cnnzoo", "train", "--run", "my run"])
    code, out, _ = cli("train", "--model.name", "mlp", "--train.epochs", 1, "--run", "my run")
    assert code == 0
    assert out.splitlines()[-1].startswith("go on with: cnnzoo predict 'my run' PHOTOS, cnnzoo evaluate 'my run', ")
    assert (
        json.loads((tmp_path / "my run" / "environment.json").read_text())["command"] == "cnnzoo train --run 'my run'"
    )
    told = html.unescape((tmp_path / "my run" / "report.html").read_text())
    assert "cnnzoo train --config 'my run/config.yaml' --run 'my run-again'" in told
    (tmp_path / "my run" / "predictions.npz").unlink()  # as if it were not finished
    assert "go on with it by cnnzoo train --resume 'my run', or" in cli("train", "--run", "my run")[2]


def test_a_reader_that_has_seen_enough_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m cnnzoo list | head -1", shell=True, capture_output=True, text=True, check=True
    )
    assert done.stdout == "alexnet\n"
    assert done.stderr == ""


def test_training_goes_on_when_its_reader_is_gone(tmp_path):
    options = "--model mlp --data digits --train.epochs 2 --run r"
    command = f"{sys.executable} -m cnnzoo train {options} | head -1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("mlp on digits: ")
    assert done.stderr == ""
    assert Run(tmp_path / "r").is_finished


def test_import_is_lazy():
    lines = [
        "import sys, cnnzoo",
        "assert not {'torch', 'numpy'} & set(sys.modules)",
        "assert 'visualize' in dir(cnnzoo) and 'cnnzoo.visualize' not in sys.modules",
        "cnnzoo.list_models(), cnnzoo.list_weights(), cnnzoo.create('squeezenet1_1')",
        "import cnnzoo.run",
        "assert not {'torchvision', 'timm', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)",
        "assert callable(cnnzoo.visualize.gradcam)",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


@pytest.mark.parametrize(
    ("home", "typed", "meant"),
    [
        ("cnnzoo", "finetne", "finetune"),
        ("cnnzoo", "visualise", "visualize"),
        ("cnnzoo.visualize", "gradcan", "gradcam"),
    ],
)
def test_a_misspelt_name_is_told_the_near_one(home, typed, meant):
    with pytest.raises(AttributeError, match=rf"^module '{home}' has no attribute '{typed}'; did you mean {meant}\?$"):
        getattr(import_module(home), typed)


def test_names_of_other_libraries_are_told_what_to_type_here():
    with pytest.raises(
        AttributeError, match=r"no attribute 'create_model'; here it is cnnzoo.create\(name, pretrained"
    ):
        getattr(import_module("cnnzoo"), "create_model")  # noqa: B009
    with pytest.raises(
        InputError, match="unknown argument of mlp 'checkpoint_path'; here it is pretrained=True, a tag"
    ):
        create("mlp", checkpoint_path="x.pth")
    with pytest.raises(InputError, match="unknown argument of mlp 'include_top'; here it is num_classes=0"):
        create("mlp", include_top=False)
    with pytest.raises(AttributeError, match=r"no attribute 'plot_top_losses'; here it is .*cnnzoo.judge\(run\)"):
        getattr(import_module("cnnzoo"), "plot_top_losses")  # noqa: B009
    for advice in INSTEAD.values():
        for name in re.findall(r"cnnzoo\.(\w+)", advice):
            assert hasattr(import_module("cnnzoo"), name)


def test_a_name_like_no_other_is_told_where_all_are():
    with pytest.raises(AttributeError, match=r"has no attribute 'dream'; help\(cnnzoo.visualize\) tells what it has"):
        getattr(import_module("cnnzoo.visualize"), "dream")  # noqa: B009


def test_names_of_functions_stay_functions_when_their_rooms_are_imported():
    import cnnzoo
    import cnnzoo.predict
    import cnnzoo.train.trainer

    assert all(callable(getattr(cnnzoo, name)) for name in ("train", "predict", "evaluate", "summary"))


def test_the_readme_names_only_commands_and_configs_that_exist():
    root = Path(__file__).parent.parent
    readme = (root / "README.md").read_text()
    assert set(re.findall(r"^\$ cnnzoo (\w[\w-]*)", readme, re.MULTILINE)) == set(COMMANDS)
    for name in re.findall(r"configs/\w+\.yaml", readme):
        assert (root / name).exists()


def test_a_pipe_that_does_not_know_every_letter_gets_signs_for_the_others(tmp_path, monkeypatch):
    folder = photos(tmp_path / "photos", ("\u732b", "\U0001f41d"))
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="cp1252") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    main(["check", str(folder)])
    for stream in (out, err):
        stream.flush()
    assert err.buffer.getvalue() == b""
    assert rb"\u732b" in out.buffer.getvalue()


def test_without_a_console_all_goes_on(tmp_path):
    """As under pythonw on Windows, or where a service has closed what it does not read."""
    code = (
        "import sys; sys.stdout = sys.stderr = None\n"
        "from cnnzoo.cli import main\n"
        "import cnnzoo\n"
        "cnnzoo.train({'model': 'mlp', 'data': 'digits', 'train': {'epochs': 1}, 'run': 'r'}, with_report=False)\n"
        "cnnzoo.export('r', 'net.onnx')\n"
        "sys.exit(main(['export', 'r', '--out', 'again.onnx']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "net.onnx").read_bytes()


def test_a_net_and_its_data_may_be_named_without_more_ado(cli, tmp_path):
    code, out, _ = cli("train", "--model", "lenet5", "--data=digits", "--train.epochs", 1, "--run", "r")
    assert code == 0
    assert out.startswith("lenet5 on digits")
    assert config.read({"model": "resnet20", "data": "cifar10"}).data.source == "cifar10"


@pytest.fixture
def own_nets(tmp_path, monkeypatch):
    """The README's net of one's own, in a file that $CNNZOO_NETS names."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    (tmp_path / "my_nets.py").write_text(
        re.search(r"```python\n(import cnnzoo\nfrom torch.*?)```", readme, re.DOTALL)[1]
    )
    monkeypatch.setenv("CNNZOO_NETS", "my_nets.py")
    yield
    unregister("threeconv")


def test_a_net_of_ones_own_does_what_ours_do(cli, own_nets, tmp_path):
    told = cli("train", "--model", "threeconv", "--data", "digits", "--train.epochs", 1, "--run", "r")[1]
    assert told.startswith("threeconv on digits")
    assert cli("list", "three*")[1] == "threeconv\n"
    for line in (
        ("summary", "r"),
        ("info", "threeconv"),
        ("evaluate", "r"),
        ("export", "r", "--out", "net.onnx"),
        ("visualize", "filters", "r", "--out", "filters.png"),
        ("probe", "digits", "--model", "threeconv", "--pretrained", "r", "--classifier", "centroid", "--run", "p"),
    ):
        assert cli(*line)[0] == 0


def test_where_a_net_of_ones_own_is_not_known_is_said(fails, tmp_path, monkeypatch):
    told = "none like it, and one of your own is known once its file is imported, or named by CNNZOO_NETS"
    assert told in fails("info", "threeconv")
    monkeypatch.setenv("CNNZOO_NETS", "gone.py")
    assert fails("list") == "CNNZOO_NETS names gone.py, and there is no such file"
    (tmp_path / "gone.py").write_text("\nraise KeyError('x')\n")
    assert fails("list") == "gone.py, line 2: KeyError: 'x'"


# ---- wrong input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lst"], ["unknown command 'lst'", "list"]),
        (["inference"], ["unknown command 'inference'; cnnzoo --help tells which there are"]),
        (["list", "zzz*"], ["no model matches 'zzz*'; cnnzoo list names all"]),
        (["list", "resnet"], ["no model matches 'resnet'; did you mean 'resnet*'?"]),
        (["list", "incption"], ["no model matches 'incption'; did you mean inception_v"]),
        (["list", "--sjon"], ["unknown key 'sjon'; did you mean json?"]),
        (["list", "--pretraind"], ["unknown key 'pretraind'", "pretrained"]),
        (["info", "resent50"], ["unknown model 'resent50'", "resnet50"]),
        (["info"], ["name"]),
        (["ensemble", "runs/a", "runs/b", "--why"], ["--why needs a value"]),
        (["train", "--train.epochs"], ["--train.epochs needs a value"]),
        (["pick", "digits", "--device", "abacus"], ["the device is abacus, which cannot be used here"]),
        (["pick", "digits", "--seed", str(2**63)], [f"seed is {2**63}, but must be a number below 2**63"]),
        (["finetune", "digits", "--lr", "inf"], ["optim.lr is inf, but must be a number"]),
        (["predict", "x", "y", "--batch-size", "abc"], ["batch_size is abc, but must be a whole number or null"]),
        (["summary", "lenet5", "--input", "3,a"], ["--input is 3,a"]),
        (
            ["summary", "lenet5", "--input", "200000"],
            ["input_size is 1x200000x200000", "100,000 pixels on a side at most"],
        ),
        (["summary", "lenet5", "--input", "32x32"], ["--input is 32x32, but must be three whole numbers", "or one"]),
        (["summary", "lenet5", "--input", "1,16,16"], ["at least 32x32, not 16x16"]),
        (["summary", "lenet5", "--csv", "--json"], ["--csv and --json are different forms", "give one of them"]),
        (["compare", "vgg16", "--csv", "--json"], ["--csv and --json are different forms", "give one of them"]),
        (["compare", "resent50"], ["unknown model 'resent50'", "resnet50"]),
        (["compare", "lenet5*"], ["no weights of known accuracy for lenet5, lenet5_1998"]),
        (["compare", "vgg16", "--out", "nets.foo"], ["nets.foo", "its suffix must be one of", "png", "svg"]),
        (["compare", "vgg16", "--out", "nets"], ["nets", "its suffix must be one of"]),
        (["train", "--model.name", "lenet6"], ["unknown model 'lenet6'", "lenet5"]),
        (["train", "--optim.lrr", "0.1"], ["unknown key 'optim.lrr'", "optim.lr"]),
        (["train", "--epochs", "3"], ["unknown key 'epochs'", "train.epochs"]),
        (["train", "--augment.grows_from", "0.5"], ["at least 32x32, not 16x16", "with which augment.grows_from 0.5"]),
        (["train", "--data.train_size", "28"], ["at least 32x32, not 28x28, which data.train_size says"]),
        (
            ["train", "--augment.repeats", "3", "--train.batch_size", "2", "--model.head", "probe"],
            ["train.batch_size is 2, which augment.repeats 3 cannot share evenly; take 3"],
        ),
        (["train", "--augment.repeats", "3000"], ["augment.repeats 3000 is too many for 1,438 images"]),
        (["predict", "lenet5", "--pretrained", "a.jpg"], ["required: images; what follows --pretrained is taken for"]),
        (["train", "--train.epoch", "3"], ["unknown key 'train.epoch'; did you mean train.epochs"]),
        (["train", "--optim.weight", "3"], ["unknown key 'optim.weight'; did you mean optim.weight_decay"]),
        (["train", "--model.nmae", "lenet5"], ["unknown key 'model.nmae'; did you mean model.name"]),
        (["train", "--train.lr", "3"], ["unknown key 'train.lr'; did you mean optim.lr?"]),
        (["train", "--learning_rate", "3"], ["unknown key 'learning_rate'; here it is optim.lr"]),
        (["train", "--optim.learning_rate", "3"], ["unknown key 'optim.learning_rate'; here it is optim.lr"]),
        (["train", "--class_weight", "balanced"], ["unknown key 'class_weight'; here it is train.balance"]),
        (["train", "--optim", "adam"], ["optim is adam, but must be a section of keys, such as optim.name"]),
        (["train", "--train.phase", "[]"], ["unknown key 'train.phase'; did you mean train.phases"]),
        (["list", "--js"], ["unknown key 'js'; did you mean json?"]),
        (["train", "--modl", "lenet5"], ["unknown key 'modl'; did you mean model?"]),
        (["train", "--flods", "3"], ["unknown key 'flods'; did you mean folds?"]),
        (["finetune", "digits", "--batchsize", "8"], ["unknown key 'batchsize'; did you mean batch-size?"]),
        (["probe", "digits", "--mixup", "0.2"], ["unknown key 'mixup'; did you mean augment.mixup?"]),
        (["train", "--opt", "lamb"], ["unknown key 'opt'; here it is optim.name"]),
        (["train", "--model-ema"], ["unknown key 'model-ema'; here it is train.ema"]),
        (["finetune", "digits", "--aa", "rand-m9"], ["unknown key 'aa'; here it is augment.policy"]),
        (["train", "--epoch", "3"], ["unknown key 'epoch'", "did you mean train.epochs?"]),
        (["train", "--optim.lr", "fast"], ["optim.lr is fast, but must be a number"]),
        (["train", "--train.epochs", "2.5"], ["train.epochs is 2.5, but must be a whole number"]),
        (["train", "--train.epochs", "0"], ["train.epochs is 0, but must be at least 1"]),
        (["train", "--optim.name", "sgdd"], ["optim.name is sgdd, but must be sgd or adam", "; did you mean sgd?"]),
        (["train", "--schedule.name", "cosin"], ["schedule.name is cosin", "; did you mean cosine?"]),
        (["probe", "digits", "--classifier", "svn"], ["probe.classifier is svn", "; did you mean svm?"]),
        (["finetune", "digits", "--mode", "ful"], ["unknown mode 'ful'; did you mean full?"]),
        (["train", "lenet5"], ["unexpected word 'lenet5'", "a net is named by --model"]),
        (["train", "c.yaml"], ["unexpected word 'c.yaml'; a config file is named by --config"]),
        (["probe", "digits", "lenet5"], ["unexpected word 'lenet5'; a net is named by --model"]),
        (["evaluate", "runs/a", "photos"], ["'photos'; a folder of images or a data set is named by --data"]),
        (["evaluate", "runs/a", "runs/b"], ["a run to compare with is named by --against"]),
        (["visualize", "concepts", "runs/a", "photos", "--out", "x.png"], ["a data set is named by --data"]),
        (["info", "lenet5", "resnet18"], ["unexpected word 'resnet18'"]),
        (
            ["visualize", "compare", "lenet5", "a.jpg", "b.jpg", "--out", "x.png"],
            ["'b.jpg'; cnnzoo visualize compare takes"],
        ),
        (["export", "lenet5"], ["required: --out"]),
        (["train", "--optim.nesterov", "true", "--optim.momentum", "0"], ["optim.momentum is 0.0"]),
        (["train", "--schedule.name", "multi_step"], ["schedule.milestones"]),
        (["train", "--config", "nope.yaml"], ["there is no config file nope.yaml"]),
        (["train", "--resume", "nope"], ["there is no run folder nope"]),
        (["train", "--data.source", "mnits"], ["'mnits' is neither a known set nor a folder", "mnist"]),
        (["train", "--data.source", "./photos"], ["there is no folder photos"]),
        (
            ["train", "--data.source", "imagenet", "--data.root", "."],
            ["imagenet is not at imagenet", "train/ and val/"],
        ),
        (["train", "--train.device", "cuda:99"], ["the device is cuda:99, which cannot be used here"]),
        (["train", "--model.name", "alexnet", "--data.size", "40"], ["at least 63x63, not 40x40"]),
        (["train", "--model.name", "mlp", "--data.size", "20"], ["at least 28x28, not 20x20"]),
        (["train", "--model.num_classes", "3"], ["model.num_classes is 3, but digits has 10 classes"]),
        (["train", "--model.in_chans", "4"], ["model.in_chans is 4"]),
        (["train", "--model.args", "{depth: 3}"], ["unknown argument of lenet5 'depth'"]),
        (["train", "--model.pretrained", "best"], ["lenet5 has no weights 'best'"]),
        (["train", '--train.phases=[{"epochs": 1, "trainable": ["stge1"]}]'], ["'stge1'", "stage1"]),
        (["train", '--train.phases=[{"epochs": 1, "trainble": ["head"]}]'], ["'trainble'", "trainable"]),
        (
            ["evaluate", "nope"],
            ["unknown run folder or model 'nope'; there is no such folder or file, nor", "cnnzoo list"],
        ),
        (["evaluate", "resnet1"], ["unknown run folder or model 'resnet1'; did you mean resnet18"]),
        (["evaluate", "resnet18", "--out", "answers.txt"], ["answers.txt must end in one of"]),
        *(
            ([*command, "/dev/null/a.csv"], ["/dev/null/a.csv", "cannot be written (Not a directory)"])
            for command in (
                ["evaluate", "nope", "--out"],
                ["export", "nope", "--out"],
                ["soup", "nope", "nope", "--run"],
                ["profile", "--data.source", "nope", "--out"],
            )
        ),
        (["evaluate", "a", "--against", "b", "--out", "answers.csv"], ["--out", "without --against"]),
        (["evaluate", "resnet18"], ["without trained weights knows nothing"]),
        (["predict", "resnet18", "a.jpg", "--pretrained", "tv3"], ["resnet18 has no weights 'tv3'", "tv_in1k"]),
        (["predict", "nope", "a.jpg"], ["unknown run folder or model 'nope'"]),
        (["predict", "resnet18.pth", "a.jpg"], ["unknown run folder or model 'resnet18.pth'; did you mean resnet18"]),
        (["predict", "lenet5"], ["images"]),
        (["predict", "lenet5", "a.jpg", "--top", "0"], ["--top is 0"]),
        (["report", "nope"], ["there is no run folder nope"]),
        (["weights", "verify", "--foo"], ["unknown key 'foo'; there is none"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and not value[0].startswith("'") else "",
)
def test_wrong_input_is_told_in_one_line_and_leaves_nothing(fails, tmp_path, arguments, words):
    line = fails(*arguments)
    for word in words:
        assert word in line
    assert not list(tmp_path.glob("runs/*/*"))


@pytest.mark.parametrize(("option", "key"), OPTIONS.items())
def test_options_of_other_libraries_are_told_by_their_keys(fails, option, key):
    commands = {"mode": ["finetune", "photos"], "crops": ["evaluate", "runs/a"], "run": ["train"]}
    for one in key.split(" or "):
        command = commands.get(one, ["train"] if "." in one else ["predict", "runs/a", "a.jpg"])
        assert fails(*command, f"--{option}", "1") == f"unknown key {option!r}; here it is {one}"


@pytest.mark.parametrize("arguments", [["predict", "lenet5"], ["predict", "lenet5", "a.jpg"], ["check"]])
def test_a_file_called_like_an_option_is_told_how_to_be_named(fails, tmp_path, arguments):
    (tmp_path / "-tall.jpg").touch()
    called = os.path.join(".", "-tall.jpg")
    assert fails(*arguments, "-tall.jpg") == f"-tall.jpg is taken for an option; as a file it is called {called}"
    assert "is taken for an option" not in fails("predict", "lenet5", "--top", "x", "--", "-tall.jpg")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optim: {lrr: 0.1}", ["c.yaml", "unknown key 'optim.lrr'", "optim.lr"]),
        ("model: 5", ["c.yaml: model is 5, but must be a section of keys, such as model.name"]),
        ("train: 5", ["c.yaml: train is 5, but must be a section of keys"]),
        ("train:\nmodel: {name: lenet5}", ["c.yaml: train is null, but must be a section of keys"]),
        ("optm: {lr: 0.1}", ["c.yaml", "unknown key 'optm", "optim.lr"]),
        ("optim: {lr: high}", ["c.yaml", "optim.lr is high, but must be a number"]),
        ("optim: {lr: -1}", ["c.yaml", "optim.lr is -1.0, but must be above 0"]),
        ("optim: {lr: [", ["c.yaml"]),
        ("train: {phases: [{epochs: 0}]}", ["c.yaml", "train.phases.epochs is 0"]),
        ("just words", ["c.yaml"]),
    ],
)
def test_a_wrong_config_file_is_named_with_its_key(fails, tmp_path, text, words):
    (tmp_path / "c.yaml").write_text(text)
    line = fails("train", "--config", "c.yaml")
    for word in words:
        assert word in line


def test_a_number_may_be_written_1e_4(cli, tmp_path):
    (tmp_path / "c.yaml").write_text("optim: {lr: 1e-4}")
    assert config.read(tmp_path / "c.yaml").optim.lr == config.read(overrides=["--optim.lr=1e-4"]).optim.lr == 0.0001


def test_a_run_folder_that_exists_is_not_touched(fails, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert "mine exists already" in fails("train", "--run", "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_files_that_cannot_be_read_are_named_all_at_once_before_training(cli, tmp_path, policy):
    folder = photos(tmp_path / "photos")
    (folder / "cat" / "text.jpg").write_text("no image")
    (folder / "dog" / "empty.png").touch()
    whole = (folder / "dog" / "0.png").read_bytes()
    (folder / "dog" / "half.png").write_bytes(whole[: len(whole) // 2])
    options = ["--model.name", "resnet20", "--train.epochs", 1, "--train.batch_size", 2, "--data.bad_files", policy]
    code, out, err = cli("train", "--data.source", folder, "--run", "r", *options)
    told = err if policy == "error" else out
    assert code == (2 if policy == "error" else 0)
    assert "3 files" in told
    assert (f"or in a copy: cnnzoo check {folder} --fix GOOD" in told) == (policy == "error")
    for part in ("text.jpg: it is not an image", "empty.png: the file is empty", "half.png: it is cut short"):
        assert part in told
    assert (tmp_path / "r").exists() == (policy == "skip")


def test_odd_images_are_handled(cli, tmp_path):
    folder = photos(tmp_path / "photos")
    Image.new("CMYK", (50, 30)).save(folder / "cat" / "cmyk.jpg")
    Image.new("P", (30, 50)).save(folder / "cat" / "palette.png")
    Image.fromarray(np.full((20, 20), 40_000, np.uint16)).save(folder / "cat" / "deep.png")
    Image.new("RGBA", (20, 20), (1, 2, 3, 0)).save(folder / "dog" / "alpha.png")
    Image.new("L", (20, 20)).save(folder / "dog" / "grey.jpg")
    Image.new("RGB", (1, 1)).save(folder / "dog" / "dot.png")
    Image.new("RGB", (12_000, 9_000)).save(folder / "dog" / "huge.jpg", quality=10)
    rotated = Image.Exif()
    rotated[274] = 6
    Image.new("RGB", (40, 20)).save(folder / "dog" / "rotated.jpg", exif=rotated)
    options = ["--model.name", "resnet20", "--train.epochs", 1, "--train.batch_size", 4]
    code, _, err = cli("train", "--data.source", folder, "--run", "r", *options)
    assert (code, err) == (0, "")
    code, out, _ = cli("predict", "r", folder / "cat", folder / "dog")
    assert code == 0
    assert len(out.splitlines()) == 16


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: (photos(folder), (folder / "empty").mkdir()), "in a copy: cnnzoo check"),
        (lambda folder: folder.mkdir(), "no sub-folder for each class"),
        (lambda folder: photos(folder, ("cat",)), "one class only"),
        (lambda folder: photos(folder, each=1), "one image only"),
        (lambda folder: (folder / "cat").mkdir(parents=True), "holds no images"),
    ],
    ids=["empty class", "no classes", "one class", "one image a class", "no images"],
)
def test_a_folder_unfit_to_learn_from(fails, tmp_path, make, words):
    make(tmp_path / "photos")
    assert words in fails("train", "--model.name", "resnet20", "--data.source", tmp_path / "photos")


def test_a_checkpoint_cut_in_half_of_another_net_or_with_code(fails, tmp_path):
    import pickle

    import cnnzoo

    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'sprung'}",)

    torch.save(cnnzoo.create("resnet20").state_dict(), tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap()))
    assert "half.pth is damaged" in fails("train", "--model.name", "resnet20", "--model.pretrained", "half.pth")
    line = fails("train", "--model.name", "resnet32", "--model.pretrained", "w.pth")
    assert "does not hold weights of resnet32" in line
    assert "- layer1.3.bn1.bias (16,)" in line
    assert "trap.pth would run code" in fails("train", "--model.name", "resnet20", "--model.pretrained", "trap.pth")
    assert not (tmp_path / "sprung").exists()


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_last_good_state(cli, tmp_path):
    code, _, err = cli("train", "--model.name", "mlp", "--optim.lr", "1e20", "--train.epochs", 2, "--run", "r")
    assert code == 2
    assert "at epoch 1, step" in err
    assert "try a lower optim.lr" in err


def test_ctrl_c_while_the_command_line_is_being_imported_ends_in_a_line(monkeypatch, capsys):
    whole = builtins.__import__

    def interrupted(name, *others):
        if name == "cnnzoo.cli":
            raise KeyboardInterrupt
        return whole(name, *others)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    assert run(["list"]) == 130
    assert capsys.readouterr() == ("", "cnnzoo: stopped\n")
