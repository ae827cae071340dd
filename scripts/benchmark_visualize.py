"""How far the maps of cnnzoo.visualize can be trusted on real photos, and what Grad-CAM costs.

    python scripts/benchmark_visualize.py                   # all, about ten minutes on two cores
    python scripts/benchmark_visualize.py pointing sanity   # some of it

    speed       Grad-CAM over 100 images with ResNet-50, beside a pass forward and back to the image
    agreement   with captum, where it has the method: the largest difference over the largest value
    sanity      rank correlation of maps with those of the net whose weights are drawn anew from the head down (Adebayo
                et al., 2018), over 8 photos
    pointing    200 trials of two photos side by side, each of which the net classifies rightly when alone
    faithful    mean area under the curves of deletion and insertion, and score of ROAD, over 8 photos
    inversion   what is kept of 4 photos by the first convolution and every stage
    maximise    50 units, the centres of channels of every stage: what a picture that was made for them makes them say,
                against the best of 1,000 photos, at any place of the channel

Photos are read from $CNNZOO_DATA (imagenet_samples; for maximise also flowers and hymenoptera), weights from
$CNNZOO_WEIGHTS. BENCH_IMAGES, BENCH_TRIALS, BENCH_ROUNDS, BENCH_UNITS, BENCH_PHOTOS and BENCH_NETS (of squeezenet1_1
and googlenet_2014, between commas) narrow what is measured.
"""

import os
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import captum.attr
import numpy as np
import torch
from measure import main, ratios
from torch import Tensor, nn

import cnnzoo
from cnnzoo import visualize
from cnnzoo.benchmark.harness import Bench, data_root
from cnnzoo.visualize import faithfulness
from cnnzoo.visualize.cams import map_layer
from cnnzoo.visualize.deconv import carried_back
from cnnzoo.visualize.hooks import Layer
from cnnzoo.visualize.methods import METHODS, maps_of
from cnnzoo.visualize.strongest import Album, strongest

PHOTOS = data_root() / "imagenet_samples"
IMAGES = int(os.environ.get("BENCH_IMAGES", "100"))
TRIALS = int(os.environ.get("BENCH_TRIALS", "200"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
UNITS = int(os.environ.get("BENCH_UNITS", "50"))
REAL = int(os.environ.get("BENCH_PHOTOS", "1000"))
WEIGHTS = {"squeezenet1_1": "caffe_in1k", "googlenet_2014": "bvlc_in1k"}
NETS = os.environ.get("BENCH_NETS", ",".join(WEIGHTS)).split(",")
SOME = 8  # photos


def nets() -> Iterator[tuple[str, nn.Module]]:
    for name in NETS:
        net = cnnzoo.create(name, WEIGHTS[name])
        with visualize.untouched(net) as still:
            yield name, still


def known(net: nn.Module, files: list[Path]) -> tuple[Tensor, Tensor]:
    """The photos that the net classifies rightly, as it sees them, and their classes, which their names begin with."""
    x = torch.stack([net.preprocessing(file) for file in files])
    truth = torch.tensor([int(file.name.partition("_")[0]) for file in files])
    with torch.no_grad():
        right = torch.cat([net(part).argmax(1) for part in x.split(16)]) == truth
    return x[right], truth[right]


def spread() -> list[Path]:
    """Photos of all kinds, more than are needed, since not all are recognised."""
    return sorted(PHOTOS.glob("*.jpg"))[:: 500 // (4 * SOME)]


def speed() -> list[dict]:
    """Images a second; both at 16 images to a pass."""
    net = cnnzoo.create("resnet50").eval()
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 224, 224, 3), dtype=np.uint8)
    x = torch.stack([cnnzoo.preprocessing(net)(image) for image in pixels])

    def there_and_back() -> None:
        for part in x.split(16):
            part = part.clone().requires_grad_()
            logits = net(part)
            torch.autograd.grad(logits.amax(1).sum(), part)

    net.requires_grad_(False)
    bench, ours, theirs = Bench("speed", x.device), [], []
    for _ in range(ROUNDS):
        ours.append(IMAGES / bench.seconds(partial(visualize.gradcam, net, pixels)))
        theirs.append(IMAGES / bench.seconds(there_and_back))
    return [ratios("Grad-CAM against a pass forward and back", ours, theirs, "images/s")]


def agreement() -> list[dict]:
    rows = []
    for name, net in nets():
        x, target = (each[:2] for each in known(net, spread()))
        layer, module = visualize.layer_of(net, map_layer(net, x))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # captum tells what it sets and hooks
            peers = theirs(net, module, x, target)
        for method, peer in peers.items():
            off = ((maps_of(net, x, target, method, layer) - peer).abs().max() / peer.abs().max()).item()
            rows.append({"what": "agreement", "net": name, "method": method, "off": off})
            print(f"{name:<16} {method:<18} differs from captum's by {off:.1e} of the largest value", flush=True)
    return rows


def theirs(net: nn.Module, module: nn.Module, x: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Captum's maps, of the layer `module` where it asks for one."""
    side = x.shape[-1] // 7
    windows = {"sliding_window_shapes": (3, side, side), "strides": (3, side // 2, side // 2)}
    cam = captum.attr.LayerGradCam(net, module).attribute(x, target, relu_attributions=True)
    return {
        "gradient": captum.attr.Saliency(net).attribute(x, target).amax(1),
        "integrated": captum.attr.IntegratedGradients(net).attribute(x, target=target, n_steps=32).sum(1).detach(),
        "guided": captum.attr.GuidedBackprop(net).attribute(x, target).detach().abs().amax(1),
        "occlusion": captum.attr.Occlusion(net).attribute(x, target=target, **windows)[:, 0],
        "gradcam": nn.functional.interpolate(cam, x.shape[-2:], mode="bilinear")[:, 0].detach(),
    }


def sanity() -> list[dict]:
    rows = []
    for name, net in nets():
        x, target = (each[:SOME] for each in known(net, spread()))
        layer = map_layer(net, x)
        methods = {m: partial(maps_of, method=m, layer=layer) for m in ("gradient", "integrated", "gradcam", "guided")}
        for method, maps in {**methods, "deconvnet": deconvnet}.items():
            told = faithfulness.sanity(net, x, target, maps)
            means = told.correlation.mean(1)
            rows += [
                {"what": "sanity", "net": name, "method": method, "random": stage, "correlation": float(mean)}
                for stage, mean in zip(told.layers, means, strict=True)
            ]
            steps = "  ".join(f"{stage} {mean:+.2f}" for stage, mean in zip(told.layers, means, strict=True))
            print(f"{name:<16} {method:<12} {steps}", flush=True)
    return rows


def deconvnet(net: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """A deconvnet's map of the class's logit, as it is usually compared with gradients."""
    signal, _ = carried_back(net, Layer("the whole net", net), x, target, torch.zeros(len(x), 2, dtype=torch.int64))
    return signal.abs().amax(1)


def pointing() -> list[dict]:
    rows = []
    for name, net in nets():
        x, target = known(net, sorted(PHOTOS.glob("*.jpg"))[::5])
        layer = map_layer(net, x)
        for method in ("gradcam", "gradcam++", "hirescam", "layercam", "gradient"):
            told = faithfulness.pointing(net, x, target, partial(maps_of, method=method, layer=layer), TRIALS)
            rows.append({"what": "pointing", "net": name, "method": method, **vars(told)})
            print(f"{name:<16} {method:<12} {told}", flush=True)
    return rows


def faithful() -> list[dict]:
    rows = []
    for name, net in nets():
        x, target = (each[:SOME] for each in known(net, spread()))
        layer = map_layer(net, x)
        methods = [method for method in METHODS if method != "scorecam"]
        maps = {method: maps_of(net, x, target, method, layer).numpy() for method in methods}
        maps["random order"] = np.random.default_rng(0).random((len(x), *x.shape[2:]))
        for method, seen in maps.items():
            shown = [(net, image, int(kind), ranks) for image, kind, ranks in zip(x, target, seen, strict=True)]
            curves, roads = (
                [trial(*each) for each in shown] for trial in (faithfulness.deletion_insertion, faithfulness.road)
            )
            deleted, inserted = (float(np.mean([getattr(c, end) for c in curves])) for end in ("deleted", "inserted"))
            score = float(np.mean([each.score for each in roads]))
            figures = {"deletion": deleted, "insertion": inserted, "road": score}
            rows.append({"what": "faithful", "net": name, "method": method} | figures)
            told = "  ".join(f"{what} {figure:.3f}" for what, figure in figures.items())
            print(f"{name:<16} {method:<18} {told}", flush=True)
    return rows


def inversion() -> list[dict]:
    rows = []
    for name, net in nets():
        layers = ["first_conv", *visualize.stages_of(net)]
        kept = visualize.invert(net, sorted(PHOTOS.glob("*.jpg"))[::125], layers)
        figures = zip(kept.layers, *(each.mean(1) for each in (kept.psnr, kept.errors, kept.code_errors)), strict=True)
        for layer, psnr, error, code in figures:
            row = {"psnr": float(psnr), "error": float(error), "code error": float(code)}
            rows.append({"what": "inversion", "net": name, "layer": layer} | row)
            print(f"{name:<16} {layer:<12} {psnr:5.1f} dB  image off by {error:.1%}, code by {code:.1%}", flush=True)
    return rows


def maximise() -> list[dict]:
    rows = []
    for name, net in nets():
        subject = visualize.Subject.open(net)
        album = Album(real_photos(REAL), subject)
        stages = visualize.stages_of(net)[:UNITS]
        best, made = [], []
        for part, stage in zip(np.array_split(np.arange(UNITS), len(stages)), stages, strict=True):
            found = strongest(net, visualize.layer_of(net, stage), album, 1).activations[:, 0]
            channels = np.arange(len(part)) * len(found) // len(part)
            best += found[channels].tolist()
            made += visualize.maximise(net, stage, channels, unit=True).activations.tolist()
        more = sum(ours > theirs for ours, theirs in zip(made, best, strict=True))
        row = {"units": UNITS, "photos": len(album.names), "more": more}
        rows.append({"what": "maximise", "net": name, "made": made, "best": best} | row)
        ratio = np.median(np.array(made) / np.array(best))
        print(
            f"{name:<16} {more} of {UNITS} units are excited more by what was made than by the best of "
            f"{len(album.names)} photos; {ratio:.1f} times as much, at the median",
            flush=True,
        )
    return rows


def real_photos(many: int) -> list[Path]:
    """Half of them of ImageNet's classes, the others ants, bees and flowers."""
    imagenet, insects, flowers = (
        sorted((PHOTOS.parent / name).rglob("*.jpg")) for name in (PHOTOS.name, "hymenoptera", "flowers")
    )
    files = imagenet + insects + flowers[::41]
    return files[:: max(len(files) // many, 1)][:many]


if __name__ == "__main__":
    parts = {
        "speed": speed,
        "agreement": agreement,
        "sanity": sanity,
        "pointing": pointing,
        "faithful": faithful,
        "inversion": inversion,
        "maximise": maximise,
    }
    main(__doc__, parts)
