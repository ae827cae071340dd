"""report.html: one self-contained page that opens from disk with no network."""

import base64
import html
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from cnnzoo import calibrate, figures
from cnnzoo.checkpoint import Run
from cnnzoo.config import Config, DataConfig
from cnnzoo.data import kinds
from cnnzoo.data.arrays import Images, Unreadable
from cnnzoo.data.reading import Split
from cnnzoo.errors import counted, printable
from cnnzoo.measures import Evaluation, measure, percent, shortened
from cnnzoo.report.insight import Insight
from cnnzoo.telling import as_typed

MISTAKES = 24  # shown at most
NAMED = 40  # classes that the confusion matrix names; of more it has numbers
LARGEST, SMALL = 160, 64  # sides of pictures of them, in pixels

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
body { color: #222; background: #fff }
h1 { margin-bottom: 0 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd }
.figures { display: flex; flex-wrap: wrap; gap: 2rem; margin: 1rem 0 } .figures b { display: block; font-size: 1.6rem }
table { border-collapse: collapse } th, td { padding: .15rem .8rem .15rem 0; text-align: right }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: 1rem }
.mistakes.pairs { grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)) }
.mistakes figure { margin: 0 } .mistakes figure div { display: flex; gap: 2px }
.mistakes img { min-width: 0; width: 100%; image-rendering: pixelated; border: 1px solid #ddd }
figcaption { font-size: .85rem; overflow-wrap: anywhere }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto } img.plot { max-width: 100% }
"""


def render(
    run: Run,
    config: Config,
    classes: Sequence[str],
    judged: Split,
    insight: Insight | None = None,
) -> str:
    """The page of a finished run of this config; `judged` are the validation images, in the order of the run's
    predictions. With `insight`, the mistakes are shown beside what the net saw in them and what it was trained on.
    """
    outputs, targets = run.predictions
    result = measure(outputs, targets, tuple(classes), groups=judged.groups)
    temperature = run.card.get("temperature", 1.0)
    config_text = run.config_file.read_text(encoding="utf-8")
    command = as_typed("cnnzoo", "train", "--config", run.config_file, "--run", f"{run.path}-again")
    told = "".join(f"<div><b>{value}</b>{name}</div>" for name, value in _main_figures(run, result).items())
    sections = [
        ("", f"<p>{html.escape(_about(run, config, result))}</p>"),
        ("", f'<div class="figures">{told}</div>'),
        *_origin(run),
        *([("Shallow classifiers on frozen features", _classifiers(run.probe))] if run.probe else []),
        ("Confusion matrix", _picture(_confusion(result))),
        ("Classes", _class_table(result)),
        ("Confidence", _picture(_reliability(outputs, targets, result))),
        (
            "Most confident mistakes",
            _mistakes(
                calibrate.softmax(outputs, temperature),
                targets,
                classes,
                judged.images,
                lambda place: _in_source(judged.names[place], config.data),
                insight,
            ),
        ),
        ("Run it again", f"<pre>{html.escape(command)}</pre>"),
        ("Config", f"<pre>{html.escape(config_text)}</pre>"),
        ("Environment", f"<pre>{html.escape(json.dumps(run.environment, indent=2))}</pre>"),
    ]
    body = "\n".join(f"<h2>{title}</h2>\n{content}" if title else content for title, content in sections)
    title = html.escape(str(run.path))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n{body}\n</body></html>\n"
    )


def _main_figures(run: Run, result: Evaluation) -> dict[str, str]:
    """What stands at the top of the page, by what it is called."""
    low, high = result.interval
    told = {
        f"validation top-1{', cross-fitted' if run.is_cross_fitted else ''}": f"{result.top1:.2%}",
        "95% interval": f"{low:.1%} – {high:.1%}",
        **({"top-5": f"{result.top5:.2%}"} if result.top5_tells else {}),
        "loss": f"{result.loss:.4f}",
        "images judged": f"{result.count:,}",
    }
    if not (metrics := run.metrics):  # somebody has deleted the file
        return told
    best = max(metrics, key=lambda report: report["val_top1"])
    seconds = sum(report["seconds"] for report in metrics)
    if (last := metrics[-1]["epoch"]) and metrics[0]["epoch"] > 1:  # a snapshot, which has its own epoch alone
        return told | {"epoch": f"{last}"}
    if last:
        return told | {"best epoch": f"{best['epoch']} of {last}", "training": f"{seconds:.0f} s"}
    return told | ({"features and classifiers": f"{seconds:.0f} s"} if run.probe else {})


def _about(run: Run, config: Config, result: Evaluation) -> str:
    """In a sentence: which net, on what, of how many images."""
    model, source = config.model, config.data.source
    judged = f"{counted(result.count, 'image')} held out, {counted(len(result.classes), 'class', 'classes')}"
    if run.committee:
        many = counted(len(config.ensemble.members), "run")
        return f"A committee of {many} ({config.ensemble.method}) on {source}: {judged}."
    begun = "pretrained" if model.pretrained is True else f"weights {model.pretrained}" if model.pretrained else ""
    trained = counted(len(set(run.split["train"])), "image")  # a bootstrap sample holds some several times
    if run.soup:
        many = sum(each["taken"] for each in run.soup["ingredients"])
        begun = f"the weights of {counted(many, 'run')} averaged"
    return f"{model.name}{f' ({begun})' if begun else ''} on {source}: {trained} to train on, {judged}."


def _in_source(name: str, data: DataConfig) -> str:
    """An image's path in the folder that it is from, or its whole name."""
    homes = [kinds.folder_of(source) for source in (data.source, data.val_source) if source]
    inside = (Path(name).relative_to(home) for home in homes if home and Path(name).is_relative_to(home))
    return printable(next(map(str, inside), name))


def _origin(run: Run) -> list[tuple[str, str]]:
    """How the net came about: its training, where there were epochs of it, or the members that it is made of."""
    if run.committee:
        return [("Members and committee", _committee(run.committee))]
    if run.soup:
        return [("Members and soup", _soup(run.soup))]
    return [("Curves", _picture(run.figure()))] if any(report["epoch"] for report in run.metrics) else []


def _confusion(result: Evaluation) -> Figure:
    many = len(result.classes)
    names = [figures.plain(shortened(name)) for name in result.classes] if many <= NAMED else []
    side = min(3 + 0.35 * many, 12) + max([0, *(figures.width(name, 10) - 1 for name in names)])  # an inch is in it
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shares = result.confusion / result.confusion.sum(axis=1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if names:
        axes.set_xticks(range(many), names, rotation=90)
        axes.set_yticks(range(many), names)
    if many <= 20:
        for (row, column), count in np.ndenumerate(result.confusion):
            if count:
                axes.text(
                    column,
                    row,
                    str(count),
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if shares[row, column] > 0.5 else "black",
                    in_layout=False,  # which would measure every number, though all lie inside
                )
    return figure


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Plain texts and numbers as a table."""
    lines = [("th", heads), *(("td", row) for row in rows)]
    marked = ("".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in row) for tag, row in lines)
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in marked)}</table>"


def _classifiers(probe: dict) -> str:
    rows = []
    for place, score in enumerate(probe["scores"]):
        cv = "-" if score["cv_top1"] is None else f"{score['cv_top1']:.1%}"
        name = f"{score['classifier']} {score['setting']}" + ("" if place else ", taken")
        rows.append((name, cv, f"{score['val_top1']:.1%}"))
    table = _table(("classifier", "cross-validated", "validation"), rows)
    fewer = [(f"{many:,}", f"{top1:.1%}") for many, top1 in probe.get("curve", ())]
    return table + (f"<p>Learning curve</p>{_table(('training images', 'validation'), fewer)}" if fewer else "")


def _committee(committee: dict) -> str:
    """The table of `ensemble.Contest`."""
    rows = []
    for row in committee["rows"]:
        crossed = "" if row["cross_top1"] is None else f"{row['cross_top1']:.2%}"
        interval = f"{row['low']:.1%} – {row['high']:.1%}"
        rows.append((row["name"], f"{row['top1']:.2%}", crossed, interval, f"{row['loss']:.4f}"))
    table = _table(("", "validation", "cross-fitted", "95% interval", "log-loss, calibrated"), rows)
    return table + "".join(f"<p>{html.escape(note)}</p>" for note in committee["notes"])


def _soup(soup: dict) -> str:
    """The table of `ensemble.soup.Soup`."""
    rows = []
    for each in soup["ingredients"]:
        halfway = "-" if each["barrier"] is None else f"{-each['barrier']:+.2%}"
        rows.append((each["run"], f"{each['top1']:.2%}", halfway, "yes" if each["taken"] else "no"))
    rows.append((f"{soup['method']} soup", f"{soup['top1']:.2%}", "", ""))
    return _table(("member", "validation", "halfway to the best", "in the soup"), rows)


def _class_table(result: Evaluation) -> str:
    columns = [
        ("class", result.classes),
        ("images", result.confusion.sum(axis=1)),
        ("precision", map(percent, result.precision)),
        ("recall", map(percent, result.recall)),
        ("F1", map(percent, result.f1)),
    ]
    if len(result.classes) > NAMED:  # as the confusion matrix's axes are then
        columns.insert(1, ("number", range(len(result.classes))))
    heads, values = zip(*columns, strict=True)
    return _table(heads, zip(*values, strict=True))


def _reliability(outputs: np.ndarray, targets: np.ndarray, result: Evaluation) -> Figure:
    """How often the net is right where it is so sure (Guo et al. 2017, figure 1); larger circles are more images."""
    figure = Figure(figsize=(4.5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color="grey", linewidth=1)
    for label, probabilities, error in (
        ("softmax of the logits", calibrate.softmax(outputs), result.calibration_error),
        ("at a temperature, cross-fitted", calibrate.cross_fitted(outputs, targets), result.calibrated_error),
    ):
        count, confidence, accuracy = calibrate.reliability(probabilities, targets)
        sizes = 300 * count / count.max()
        axes.scatter(100 * confidence, 100 * accuracy, sizes, alpha=0.6, label=f"{label}: error {error:.1%}")
    axes.set(xlabel="confidence, %", ylabel="right, %", xlim=(0, 103), ylim=(-3, 103))
    for handle in figure.legend(loc="outside upper left").legend_handles:
        handle.set_sizes([40])
    axes.grid(alpha=0.3)
    return figure


def _mistakes(
    probabilities: np.ndarray,
    targets: np.ndarray,
    classes: Sequence[str],
    images: Images,
    file: Callable[[int], str],
    insight: Insight | None,
) -> str:
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != targets)
    if not len(wrong):
        return "<p>None: every validation image is right.</p>"
    worst = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:MISTAKES]
    names = [*classes, *map(str, range(len(classes), probabilities.shape[1]))]  # as the run's card has them
    try:
        pixels = images.take(worst)
    except Unreadable as gap:
        pixels = gap.pixels  # what is gone was judged as a black image
    seen, note = insight.evidence(pixels, predicted[worst]) if insight else (None, "")
    near, labels, more = insight.alike(pixels) if insight else (None, None, "")
    shown = []
    for number, place in enumerate(worst):
        said, sure = names[predicted[place]], probabilities[place, predicted[place]]
        caption = f"{file(place)}: {said} ({sure:.0%}), is {names[targets[place]]}"
        pictures = [_image(pixels[number], caption)]
        if seen is not None:
            pictures.append(_image(seen[number], f"what speaks for {said}"))
        rows = f"<div>{''.join(pictures)}</div>"
        if near is not None:
            rows += f"<div>{''.join(map(_image, near[number], [names[label] for label in labels[number]]))}</div>"
        shown.append(f"<figure>{rows}<figcaption>{html.escape(caption)}</figcaption></figure>")
    told = " ".join([f"{len(wrong)} of {len(targets):,} are wrong.", *map(html.escape, filter(None, (note, more)))])
    return f'<p>{told}</p><div class="mistakes{"" if seen is None else " pairs"}">{"".join(shown)}</div>'


def _image(pixels: np.ndarray, about: str) -> str:
    """A photo as a JPEG; a picture so small that its pixels can be told apart keeps every one as it is."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((LARGEST, LARGEST))
    kind, options = ("PNG", {}) if max(image.size) <= SMALL else ("JPEG", {"quality": 90})
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    source = f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    told = html.escape(about)
    return f'<img alt="{told}" title="{told}" src="{source}">'


def _picture(figure: Figure) -> str:
    return f'<img class="plot" alt="" src="data:image/png;base64,{base64.b64encode(figures.png(figure)).decode()}">'
