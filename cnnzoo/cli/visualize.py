"""`cnnzoo visualize`: a command for each way to look inside a net."""

from collections.abc import Callable, Sequence

from cnnzoo.cli.parsing import one_of
from cnnzoo.cli.speech import aside, csv_of, numbers


def filters(
    model_or_run: str,
    *,
    out: str,
    pretrained: bool | str = False,
    layer: str | None = None,
    sort: str = "none",
    scale: str = "common",
) -> None:
    """Draw what a layer looks for: the first layer's filters in colour, deeper ones by channel, a linear one's weights.

    Args:
        layer: a module's path, or a stage, whose first convolution it is; by default the layer that sees the image,
            of a committee its first member's (another's is members.1).
        sort: norm (the largest first), hue (grey ones first), or none (as the net has them).
        scale: common (of all filters) or each (every filter has its own).
    """
    _draw(out, "filters", model_or_run, layer, pretrained=pretrained, sort=sort, scale=scale)


def activations(
    model_or_run: str,
    images: list[str],
    *,
    out: str,
    pretrained: bool | str = False,
    layer: str | None = None,
    size: int | None = None,
) -> None:
    """Draw what layers make of pictures: their feature maps, the strongest first.

    Args:
        layer: stages or modules' paths between commas; by default every stage.
    """
    _draw(out, "activations", model_or_run, images, _names(layer), pretrained=pretrained, size=size, tell=aside)


def sparsity(
    model_or_run: str, images: list[str], *, out: str, pretrained: bool | str = False, size: int | None = None
) -> None:
    """Draw the share of zeros after each ReLU, from the first to the last."""
    _draw(out, "sparsity", model_or_run, images, pretrained=pretrained, size=size, tell=aside)


def walk(model_or_run: str, image: str, *, out: str, pretrained: bool | str = False, size: int | None = None) -> None:
    """Draw one picture's way through the whole net: the strongest maps of every stage, and the answer.

    Args:
        size: the height and width that the picture is brought to; by default the net's own.
    """
    _draw(out, "walk", model_or_run, image, pretrained=pretrained, size=size)


def saliency(
    model_or_run: str,
    images: list[str],
    *,
    out: str,
    method: str = "gradient",
    class_: str | None = None,
    pretrained: bool | str = False,
    size: int | None = None,
) -> None:
    """Draw which pixels an answer depends on, by the gradient of the class's logit.

    Args:
        method: gradient (the plain one), smoothgrad, integrated or input_x_gradient.
    """
    options = {"method": method, "class_": class_, "pretrained": pretrained, "size": size}
    _draw(out, "saliency", model_or_run, images, **options, tell=aside)


def guided(
    model_or_run: str,
    images: list[str],
    *,
    out: str,
    class_: str | None = None,
    pretrained: bool | str = False,
    size: int | None = None,
) -> None:
    """Draw the fine structure that an answer depends on, by guided backpropagation."""
    _draw(out, "guided", model_or_run, images, class_=class_, pretrained=pretrained, size=size, tell=aside)


def gradcam(
    model_or_run: str,
    images: list[str],
    *,
    out: str,
    method: str = "gradcam",
    layer: str | None = None,
    class_: str | None = None,
    pretrained: bool | str = False,
    size: int | None = None,
) -> None:
    """Draw where in an image a class is seen, by Grad-CAM or one of its kin.

    Args:
        method: gradcam, gradcam++, hirescam, layercam, eigencam (whatever the class), or scorecam (which is slow).
    """
    options = {"method": method, "layer": layer, "class_": class_, "pretrained": pretrained, "size": size}
    _draw(out, "gradcam", model_or_run, images, **options, tell=aside)


def occlusion(
    model_or_run: str,
    images: list[str],
    *,
    out: str,
    class_: str | None = None,
    pretrained: bool | str = False,
    size: int | None = None,
) -> None:
    """Draw how far a class's logit falls where a part of the image is covered."""
    _draw(out, "occlusion", model_or_run, images, class_=class_, pretrained=pretrained, size=size, tell=aside)


def compare(
    model_or_run: str,
    image: str,
    *,
    out: str,
    methods: str | None = None,
    layer: str | None = None,
    class_: str | None = None,
    pretrained: bool | str = False,
    size: int | None = None,
    csv: bool = False,
) -> None:
    """Draw several of these on one image, and say by deletion and insertion how faithful each is.

    Args:
        methods: between commas, such as gradient,guided,gradcam; by default all but scorecam, which is slow.
        layer: of Grad-CAM and its kin, a stage or a module's path; by default the last stage that gives maps.
        class_: the class whose evidence is asked for, by name or number; by default the image's most likely one.
        size: the height and width that the picture is brought to; by default the net's own.
        csv: print a table of the figures.
    """
    options = {"layer": layer, "class_": class_, "pretrained": pretrained, "size": size}
    _draw(out, "compare", model_or_run, image, methods=_names(methods) or (), **options, csv=csv)


def deconv(
    model_or_run: str,
    images: list[str],
    *,
    out: str,
    pretrained: bool | str = False,
    layer: str | None = None,
    channels: str | None = None,
    top: int = 9,
) -> None:
    """Draw what excites a layer's channels: the images that do so most, and what in them does, by a deconvnet.

    Args:
        images: to look through: files, folders, patterns in quotes, or a data set, such as digits.
        channels: their numbers between commas; by default the six that are excited most.
        top: images for each channel.
    """
    looked_through = images[0] if len(images) == 1 else images
    options = {"pretrained": pretrained, "top": top, "tell": aside}
    _draw(out, "deconv", model_or_run, looked_through, layer, _channels(channels), **options)


def maximise(
    model_or_run: str,
    *,
    out: str,
    pretrained: bool | str = False,
    layer: str | None = None,
    channels: str | None = None,
    classes: str | None = None,
    unit: bool = False,
    steps: int = 128,
    size: int | None = None,
    seed: int = 0,
) -> None:
    """Draw pictures that excite channels, units or classes most, made from noise.

    Args:
        layer: a stage or a module's path; by default every stage, or with --channels the last that gives maps.
        channels: their numbers between commas; by default six, evenly spread.
        classes: names or numbers between commas, instead of channels.
        unit: excite the place at the centre of a channel's map, instead of the whole map.
        steps: of the ascent.
        size: the height and width of the pictures; by default the net's own.
    """
    options = {"pretrained": pretrained, "classes": _names(classes), "unit": unit}
    options |= {"steps": steps, "size": size, "seed": seed}
    _draw(out, "maximise", model_or_run, layer, _channels(channels), **options)


def invert(
    model_or_run: str,
    images: list[str],
    *,
    out: str,
    pretrained: bool | str = False,
    layer: str | None = None,
    steps: int = 200,
    size: int | None = None,
    seed: int = 0,
) -> None:
    """Draw what each layer keeps of pictures: the pictures again, made from nothing but what the layer says of them.

    Args:
        layer: stages or modules' paths between commas; by default every stage.
        steps: of the descent, for each layer.
    """
    options = {"pretrained": pretrained, "steps": steps, "size": size, "seed": seed}
    _draw(out, "invert", model_or_run, images, _names(layer), **options, tell=aside)


def neighbours(
    model_or_run: str,
    images: list[str] = (),
    *,
    out: str,
    data: str | None = None,
    pretrained: bool | str = False,
    many: int = 6,
    csv: bool = False,
) -> None:
    """Draw the images that a net finds most alike to some, beside those that are so pixel by pixel.

    Args:
        images: files, folders, or patterns in quotes; by default a hundred that are held out.
        data: what to look among, a folder of class folders or a data set; by default what the run was trained on.
        many: neighbours of each image.
        csv: print a table of all neighbours.
    """
    _draw(out, "neighbours", model_or_run, images or None, data, pretrained=pretrained, many=many, tell=aside, csv=csv)


def map_(
    model_or_run: str,
    *,
    out: str,
    data: str | None = None,
    pretrained: bool | str = False,
    many: int = 1000,
    seed: int = 0,
    csv: bool = False,
) -> None:
    """Draw a map of a data set on which images lie close by that a net finds alike (t-SNE).

    Args:
        data: a folder of class folders or a data set; by default what the run was validated on.
        many: images at most, drawn at random.
        csv: print a table of all images and their places.
    """
    _draw(out, "map", model_or_run, data, pretrained=pretrained, many=many, seed=seed, tell=aside, csv=csv)


def concepts(
    model_or_run: str,
    *,
    out: str,
    data: str | None = None,
    pretrained: bool | str = False,
    layer: str | None = None,
    many: int | None = None,
    seed: int = 0,
    csv: bool = False,
) -> None:
    """Find the units of a layer that answer to a class, or to a property that folders of images stand for.

    Args:
        data: a folder of folders of images, or a data set; by default what the run was validated on.
        many: images at most, drawn at random, equally many of each class; by default 500, or five of each class.
        csv: print a table of all classes and units.
    """
    _draw(out, "concepts", model_or_run, data, layer, pretrained=pretrained, many=many, seed=seed, tell=aside, csv=csv)


def tcav(
    model_or_run: str,
    images: list[str],
    *,
    out: str,
    concepts: str,
    random: str,
    pretrained: bool | str = False,
    layer: str | None = None,
    class_: str | None = None,
    seed: int = 0,
    csv: bool = False,
) -> None:
    """Test how much concepts that you show by examples count for a class.

    Args:
        images: of the class: files, folders, or patterns in quotes.
        concepts: a folder with a folder of pictures for each concept, ten or more.
        random: a folder of pictures of anything, forty or more.
        class_: the class, by name or number; by default the one that most of the images are taken for.
        seed: of the random sets.
        csv: print a table of the concepts.
    """
    options = {"pretrained": pretrained, "seed": seed, "tell": aside}
    _draw(out, "tcav", model_or_run, images, concepts, random, layer, class_, **options, csv=csv)


VISUALIZE: dict[str, Callable] = {
    function.__name__.rstrip("_"): function
    for function in (
        *(filters, activations, sparsity, walk, deconv, maximise, invert),
        *(saliency, guided, gradcam, occlusion, compare),
        *(neighbours, map_, concepts, tcav),
    )
}


def visualize(options: Sequence[str]) -> None:
    """Look inside a net: what its layers have learned, what an answer rests on. See cnnzoo visualize --help."""
    one_of(VISUALIZE, "visualize", options)


def _draw(out: str, what: str, *given: object, csv: bool = False, **options: object) -> None:
    """Make what the function of that name in `cnnzoo.visualize` makes, draw it into the file, and say so; a file that
    cannot be is told first. With `csv` its table is printed instead.
    """
    from cnnzoo import figures, visualize
    from cnnzoo.device import pick_device
    from cnnzoo.machine import tuned

    figures.check(out)
    with tuned(pick_device("auto")):
        result = getattr(visualize, what)(*given, **options)
    result.save(out)
    print(csv_of(result) if csv else f"{result}: {out}")


def _names(text: str | None) -> list[str] | None:
    """What an option gives between commas; None where it gives nothing."""
    return [name.strip() for name in (text or "").split(",") if name.strip()] or None


def _channels(text: str | None) -> list[int] | None:
    return None if text is None else numbers("--channels", text, int)
