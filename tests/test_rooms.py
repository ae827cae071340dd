"""Who may import whom (the house's table). A room's inside is its own affair."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cnnzoo"

EVERYBODY = {"errors", "device", "machine", "quiet", "atomic", "telling", "bars", "shown", "lazy", "habits", "paths"}
MAY_IMPORT = {
    "errors": set(),
    "device": set(),
    "machine": set(),
    "quiet": set(),
    "atomic": set(),
    "signals": set(),
    "telling": set(),
    "bars": set(),
    "shown": {"figures"},
    "lazy": set(),
    "habits": set(),
    "paths": set(),
    "registry": set(),
    "config": set(),
    "own": {"registry"},
    "models": {"registry"},
    "weights": {"registry", "models"},
    "data": {"config", "files", "resampling"},
    "train": {"config"},
    "files": set(),
    "checkpoint": {"figures", "familiar", "files"},
    "calibrate": set(),
    "familiar": set(),
    "resampling": set(),
    "tables": set(),
    "sorting": set(),
    "building": {"registry", "own", "models"},
    "naming": set(),
    "zoo": {"registry", "building", "config", "models", "weights", "data", "checkpoint", "files"},
    "receptive_field": set(),
    "summary": {"checkpoint", "zoo", "receptive_field"},
    "claims": {"registry", "checkpoint", "zoo", "weights", "summary"},
    "figures": set(),
    "compare": {"figures", "zoo", "weights", "summary", "claims"},
    "predict": {"data", "checkpoint", "zoo", "naming", "inference", "familiar", "tables"} | {"sorting"},
    "evaluate": {
        "config",
        "data",
        "checkpoint",
        "zoo",
        "naming",
        "train.validation",
        "calibrate",
        "inference",
        "tables",
    }
    | {"measures", "whereabouts"},
    "whereabouts": {"config", "data", "checkpoint"},
    "measures": {"calibrate"},
    "export": {"models", "data", "checkpoint", "zoo", "naming", "inference"},
    "report": {"config", "data", "checkpoint", "zoo", "measures", "calibrate", "visualize", "figures"},
    "inference": {"config", "data", "checkpoint", "whereabouts"},
    "loggers": set(),
    "environment": set(),
    "profiling": {"config", "data", "train", "assemble"},
    "browsing": {"config", "data", "train", "assemble", "visualize"},
    "benchmark": {"config", "data", "train", "zoo", "inference", "learn"},
    "transfer": {"registry", "config", "models", "data", "checkpoint", "zoo", "inference", "tables"}
    | {"calibrate", "resampling", "weights"},
    "assemble": {"registry", "building", "naming", "config", "models", "data", "train", "zoo", "inference", "familiar"}
    | {"transfer"},
    "probing": {"config", "data", "train", "familiar", "transfer", "assemble"},
    "opening": {"config", "data", "checkpoint", "environment", "whereabouts"},
    "recording": {"config", "data", "train", "checkpoint", "assemble", "loggers"},
    "run": {"config", "data", "train", "checkpoint", "zoo", "report", "assemble", "calibrate", "familiar"}
    | {"signals", "environment", "probing", "whereabouts", "opening", "recording"},
    "folds": {"config", "data", "checkpoint", "assemble", "whereabouts", "opening", "run"},
    "learn": {"config", "data", "train", "checkpoint", "transfer", "assemble", "probing", "opening", "run"},
    "estimator": {"config", "data", "checkpoint", "zoo", "transfer", "assemble", "run", "learn", "predict"},
    "ensemble": {"config", "models", "data", "train", "checkpoint", "calibrate", "resampling", "tables"}
    | {"environment", "figures", "zoo", "summary", "transfer", "assemble", "evaluate", "predict", "report", "run"}
    | {"files", "folds", "measures", "whereabouts", "opening"},
    "visualize": {"config", "data", "checkpoint", "zoo", "naming", "figures", "tables", "transfer", "receptive_field"}
    | {"models", "inference", "whereabouts"},
    "labs": {"figures"},
    "cli": {"config", "signals", "opening", "run", "folds", "learn", "checkpoint", "weights", "zoo", "predict"}
    | {"claims", "tables", "transfer", "browsing", "profiling", "benchmark", "ensemble", "labs", "visualize"}
    | {"figures", "sorting"},
}


def imports(file: Path) -> set[str]:
    """The modules of cnnzoo that a file imports, as dotted names within it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cnnzoo":
            inside = node.module.split(".")[1:]
            found |= {".".join([*inside, name.name]) for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name.removeprefix("cnnzoo.") for name in node.names if name.name.startswith("cnnzoo.")}
    return found


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


FILES = [file for file in PACKAGE.rglob("*.py") if room_of(file) not in ("__init__", "__main__")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_imports_only_what_it_may(file):
    room = room_of(file)
    allowed = MAY_IMPORT[room] | EVERYBODY | {room}
    strangers = {
        name
        for name in imports(file)
        if name != "__version__" and not any(f"{name}.".startswith(f"{a}.") for a in allowed)
    }
    assert not strangers


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_no_room_may_import_what_it_does_not(room):
    """So that the table is the drawing of the house, and no wider."""
    used = {name for file in FILES if room_of(file) == room for name in imports(file)}
    assert {may for may in MAY_IMPORT[room] if any(f"{name}.".startswith(f"{may}.") for name in used)} == MAY_IMPORT[
        room
    ]


def test_every_room_is_in_the_table():
    assert {room_of(file) for file in FILES} == set(MAY_IMPORT)


def test_a_lab_knows_the_public_interface_only():
    files = [file for file in (PACKAGE / "labs").glob("*.py") if file.stem != "__init__"]
    inside = {name for file in files for name in imports(file) if not name.startswith("labs._lab.")} - {"bars"}
    assert files
    assert not inside


def test_the_contract_sees_a_forbidden_import(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from cnnzoo.train.trainer import Trainer\n    import cnnzoo.data.sources\n")
    assert imports(file) == {"train.trainer.Trainer", "data.sources"}


def in_own_encoding(text: str) -> list[str]:
    """The calls that read or write text in the encoding of the machine, which on Windows cannot say 日本."""
    found = []
    for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
        what = ast.unparse(call.func).rpartition(".")[2]
        mode = "".join(map(ast.unparse, call.args[1:2]))
        is_text = what in ("read_text", "write_text") or (ast.unparse(call.func) == "open" and "b" not in mode)
        is_text |= any(keyword.arg in ("text", "universal_newlines") for keyword in call.keywords)
        if is_text and not any(keyword.arg == "encoding" for keyword in call.keywords):
            found.append(ast.unparse(call))
    return found


def test_text_is_utf8_whatever_the_machine():
    files = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "scripts").glob("*.py")]
    assert {file.name: calls for file in files if (calls := in_own_encoding(file.read_text(encoding="utf-8")))} == {}
    assert in_own_encoding("file.read_text(); open(x, 'rb'); open(x, 'w'); run(y, text=True)") == [
        *("file.read_text()", "open(x, 'w')", "run(y, text=True)")
    ]
