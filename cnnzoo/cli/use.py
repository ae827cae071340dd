"""Commands for a trained net: judge it, let it predict, take it elsewhere."""

import sys
from collections import deque
from collections.abc import Iterator
from json import dumps
from typing import TYPE_CHECKING

from cnnzoo.cli.speech import aside, tell
from cnnzoo.errors import InputError, at_least, counted

if TYPE_CHECKING:
    from cnnzoo.predict import Predictions


def evaluate(
    run_or_model: str,
    *,
    data: str | None = None,
    against: str | None = None,
    pretrained: bool | str = False,
    root: str | None = None,
    crops: int = 1,
    precision: str = "fp32",
    device: str = "auto",
    bad_files: str | None = None,
    out: str | None = None,
    json: bool = False,
) -> None:
    """Judge a trained net on images it was not trained on, or compare two: how good, how sure, and where it errs.

    Args:
        data: a data set's name, a folder or a table; by default what the run was validated on.
        against: another of the kind of run_or_model; tells whether their difference may be chance.
        crops: 1, or the mean over 2 (the image and its mirror image), 10 (AlexNet's) or 144 (GoogLeNet's).
        precision: fp32, bf16, fp16, int8 (on a CPU, calibrated on images the run trained on) or auto (bf16, else fp32).
        bad_files: skip goes on without files that cannot be read, error names them all; by default error, or of a
            run's own images what the run did.
        out: write a table (.csv, .json, .parquet) with a row for each image: file, truth, answer, probability, right.
    """
    import cnnzoo
    from cnnzoo import tables

    if out and against:
        raise InputError("--out writes the answers of one net, so it goes without --against; write those of each")
    if out:
        tables.check(out)
    options = {"pretrained": pretrained, "root": root, "crops": crops, "precision": precision, "device": device}
    options |= {"bad_files": bad_files, "tell": aside}
    if against is None:
        judged = cnnzoo.judge(run_or_model, data, **options)
        result = judged.measure()
    else:
        result = cnnzoo.compare_runs(run_or_model, against, data, **options)
    if out:
        judged.write(out)
    print(dumps(result.to_dict()) if json else result)
    if out:
        (aside if json else tell)(f"{counted(result.count, 'row')} in {out}")


def predict(
    run_or_model: str,
    images: list[str],
    *,
    pretrained: bool | str = False,
    out: str | None = None,
    sort: str | None = None,
    top: int = 5,
    min_confidence: float = 0.0,
    min_familiarity: float = 0.0,
    mirror: bool = False,
    batch_size: int | None = None,
    precision: str = "auto",
    device: str = "auto",
) -> None:
    """Name what is in images. A file that cannot be read keeps its row and says why.

    Args:
        images: files, folders with all in them, or patterns in quotes, such as "photos/**/*.jpg".
        out: write a table (.csv, .json, .parquet) with the columns file, top1 …, prob1 …, abstain, familiarity, error.
        sort: copy the images into this new folder, each into a folder of its most likely class; those abstained from
            are left out, and none is moved or deleted.
        top: how many classes to name.
        min_confidence: abstain from an answer where the most likely class is less likely than this, such as 0.6.
        min_familiarity: abstain from an image unless this share of held-out images, such as 0.05, is at least as far
            from all training images.
        mirror: take the mean over each image and its mirror image, at twice the time.
        batch_size: images to a forward pass; by default 4 to a thread on a CPU, 32 at most, else 128.
        precision: auto (bf16 for many images on a device that computes in it, else fp32), fp32, bf16, fp16 or int8 (on
            a CPU, calibrated on images the run trained on, else on some of those given).
    """
    from cnnzoo import atomic, sorting, tables, zoo
    from cnnzoo.predict import Pictures, Tally, join, stream, write

    at_least("--top", top)
    if out:
        tables.check(out)
    if sort:
        atomic.check_writable(atomic.room(sort, *images))
    pictures = Pictures(images)
    net, _ = zoo.open_net(run_or_model, pretrained)
    options = {"batch_size": batch_size, "min_confidence": min_confidence, "min_familiarity": min_familiarity}
    options |= {"mirror": mirror, "device": device, "precision": precision, "tell": aside}
    tally = Tally()
    parts, answers = tally.watch(stream(net, pictures, **options)), []
    if sort:
        parts = _noted(parts, answers)
    if out:
        write(out, parts, top)
        print(f"{counted(tally.images, 'row')} in {out}")
    elif sort:
        deque(parts, maxlen=0)
    else:
        print("\n".join(join(parts).lines(top)))
    if pictures.passed_over:
        print(
            f"{counted(pictures.passed_over, 'other file')} passed over for want of an image's ending", file=sys.stderr
        )
    if tally.unread == tally.images:
        raise InputError(f"no image could be read ({'; '.join(tally.examples)})")
    for note in tally.notes():
        print(note, file=sys.stderr)
    if sort:
        print(sorting.sort(answers, sort))


def _noted(parts: "Iterator[Predictions]", answers: list[tuple[str, str | None]]) -> "Iterator[Predictions]":
    """The same parts; of each image the file and the class that is named are added to `answers`."""
    for part in parts:
        answers += zip(part.files, part.named, strict=True)
        yield part


def export(
    run_or_model: str, *, out: str, format: str = "onnx", pretrained: bool | str = False, raw: bool = False
) -> None:
    """Write a trained net as one file that runs without cnnzoo: a uint8 image in, probabilities out.

    Args:
        out: the file to write.
        format: onnx, for onnxruntime and its like, or torch, for torch.export.load.
        raw: leave preprocessing and softmax out: preprocessed float32 in, logits out.
    """
    import cnnzoo

    print(cnnzoo.export(run_or_model, out, format=format, preprocess=not raw, pretrained=pretrained))


def report(run: str, *, data: str | None = None) -> None:
    """Make a run's report.html anew.

    Args:
        run: the run folder.
        data: where its images lie now, if they were moved.
    """
    import cnnzoo

    print(cnnzoo.report(run, data=data))
