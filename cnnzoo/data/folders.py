"""Folders of photos: a folder for each class, perhaps in train/ and val/."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cnnzoo import bars
from cnnzoo.data.decoding import EXTENSIONS
from cnnzoo.data.found import HELD_OUT, TRAIN, Found, Part, photos
from cnnzoo.data.pictures import files_in, is_hidden, refuse
from cnnzoo.errors import InputError, composed, counted, did_you_mean, printable
from cnnzoo.telling import as_typed


def find(folder: Path) -> Found:
    """A folder of class folders, or one with train/ and val/ of them."""
    train, *beside = parts(folder).values()
    classes, part, notes = _classes(train, folder)
    if train != folder and (unknown := [entry for entry in _within(folder) if _is_unknown_part(entry)]):
        notes += (f"{', '.join(map(str, unknown))} passed over: a part is called {', '.join((TRAIN[0], *HELD_OUT))}",)
    if not beside:
        return photos(classes, part, None, folder, notes)
    held_out = beside[0]
    val_classes, val_part, val_notes = _classes(held_out, folder)
    val_part = val_part.among(val_classes, classes, f"{held_out} has classes that {train} lacks", copying(folder))
    return photos(classes, part, val_part, folder, notes + val_notes)


def parts(folder: Path) -> dict[str, Path]:
    """Where the class folders lie: in train/ and the held-out folders beside it, in that order, or in "" itself."""
    inside = {entry.name.casefold(): entry for entry in _within(folder)}
    train = next((inside[name] for name in TRAIN if name in inside), None)
    if train is None or not _within(train):  # then it is a class of that name
        return {"": folder}
    return {home.name: home for home in (train, *(inside[name] for name in HELD_OUT if name in inside))}


def _is_unknown_part(folder: Path) -> bool:
    """Whether a folder beside train/ holds images all the same, though no part is called so."""
    named = is_hidden(folder.name) or folder.name.casefold() in (*TRAIN, *HELD_OUT)
    return not named and any(map(_is_image, files_in(str(folder))))


def _within(folder: Path) -> list[Path]:
    """The folders in a folder. Raises InputError for one that may not be looked into."""
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir())
    except OSError as error:
        refuse(error)


def class_folders(folder: Path) -> list[Path]:
    """The class folders in a part, in order. Raises InputError if there are none."""
    classes = [entry for entry in _within(folder) if not is_hidden(entry.name)]
    classes.sort(key=class_name)  # as paths, Windows would sort them without regard to case
    if not classes:
        loose = len(_loose(folder))
        what = (
            f"{counted(loose, 'image')}, but no sub-folder for each class" if loose else "no sub-folder for each class"
        )
        raise InputError(f"{folder} holds {what}; put each class's images into a folder of the class's name")
    if {entry.name.casefold() for entry in classes} <= {*HELD_OUT, *TRAIN}:
        names = " and ".join(entry.name for entry in classes)
        raise InputError(f"{folder} holds {names}/ but no train/ with class folders in it")
    twice = [name for name, many in Counter(map(class_name, classes)).items() if many > 1]
    if twice:
        raise InputError(
            f"{folder} has two folders named {twice[0]}, spelt with different Unicode characters; merge them"
        )
    return classes


def class_name(folder: Path) -> str:
    """The class of a class folder, the same wherever it was copied from."""
    return composed(printable(folder.name))


def class_files(folder: Path, onerror: Callable[[OSError], None] | None = None) -> tuple[list[Path], list[Path]]:
    """The images of a class folder and its other files, each in order; what is hidden counts for nothing. `onerror` as
    in `files_in`.
    """
    images, others = [], []
    for file in sorted(files_in(str(folder), onerror), key=_alike):
        (images if _is_image(file) and os.path.isfile(file) else others).append(Path(file))
    return images, others


def _is_image(file: str) -> bool:
    """By its name."""
    return os.path.splitext(file)[1].lower() in EXTENSIONS


def _alike(file: str) -> list[str]:
    """What to sort files by, so that their order, and what a seed holds out of it, are the same on every machine."""
    return composed(file).split(os.sep)


def _loose(folder: Path) -> list[Path]:
    inside = (entry for entry in folder.iterdir() if entry.suffix.lower() in EXTENSIONS and not is_hidden(entry.name))
    return [entry for entry in inside if entry.is_file()]


def _classes(folder: Path, whole: Path) -> tuple[tuple[str, ...], Part, tuple[str, ...]]:
    """Class names in order, files with labels, and what was passed over; the folder may be a part of the `whole`."""
    classes, loose = class_folders(folder), len(_loose(folder))
    files, labels, strays, empty = [], [], 0, []
    for label, class_folder in enumerate(bars.show(classes, desc="listing photos", unit="class", delay=1)):
        images, others = class_files(class_folder, refuse)
        strays += len(others)
        if not images:
            empty.append(class_folder)
        files += images
        labels += [label] * len(images)
    if not files:
        raise InputError(f"{folder} holds no images; known endings: {' '.join(sorted(EXTENSIONS))}")
    if empty:
        raise InputError(
            f"there is no image in {', '.join(map(str, empty))}; fill or remove {'it' if len(empty) == 1 else 'them'}, "
            f"or go on without {'it' if len(empty) == 1 else 'them'} in a copy: {copying(whole)}"
        )
    why = "not an image by its name, or a broken link"
    notes = (f"{counted(strays, 'file')} in {folder} passed over: {why}",) if strays else ()
    if loose:
        notes += (f"{counted(loose, 'file')} in {folder} passed over for lying outside the class folders",)
    part = Part(files, np.array(labels, dtype=np.int64), tuple(file.as_posix() for file in files))
    return tuple(map(class_name, classes)), part, notes


def copying(folder: Path) -> str:
    """The command that copies what is good in a folder."""
    return as_typed("cnnzoo", "check", folder, "--fix", "GOOD")


def no_folder(path: Path) -> str:
    """What to say where a folder should be and is none."""
    try:
        os.stat(path)
        is_spreadsheet = path.suffix.lower() in (".xls", ".xlsx", ".ods")
        return f"{path} is {'a spreadsheet; save it as CSV in UTF-8' if is_spreadsheet else 'not a folder'}"
    except PermissionError:
        return f"{path} may not be looked at: Permission denied"
    except OSError:
        return f"there is no folder {path}{did_you_mean(str(path), beside(path))}"


def beside(path: Path) -> list[str]:
    return [str(entry) for entry in path.parent.glob("*") if os.path.isdir(entry)]
