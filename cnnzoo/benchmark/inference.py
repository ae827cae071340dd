"""Answers a second: `cnnzoo.optimize` beside the nets of torchvision and timm."""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from cnnzoo import zoo
from cnnzoo.benchmark import peers
from cnnzoo.benchmark.harness import Bench, Row, data_root
from cnnzoo.device import computes_in_bf16
from cnnzoo.errors import InputError
from cnnzoo.inference import quantize
from cnnzoo.inference.optimized import optimize

BATCHES = {"alexnet": 8, "vgg16": 2, "googlenet": 8}  # images at once on a CPU, 4 for the other nets
FOLDS = 5  # of the photos, each of which calibrates once
TRAINED = {"squeezenet1_1": "caffe_in1k", "googlenet_2014": "bvlc_in1k"}  # whose weights need no fetching


def own_precision(bench: Bench) -> Iterator[Row]:
    """C1: seven nets through optimize, asked for bf16 where the CPU has it, beside eager fp32 and eager bf16."""
    if not computes_in_bf16(torch.device("cpu")):
        bench.note("this CPU does not compute in bf16, so optimize stays with fp32, which C1b measures")
        return
    wanted = {"eager fp32": 2.2}
    yield from _seven(bench, "bf16", wanted, BATCHES, agree=2e-2)


def fp32(bench: Bench) -> Iterator[Row]:
    """C1b: seven nets in fp32, beside eager fp32 as torchvision and timm have it, and with channels-last."""
    yield from _seven(bench, "fp32", {}, BATCHES, agree=1e-3)


def on_gpu(bench: Bench) -> Iterator[Row]:
    """G2: seven nets in bf16, 256 images at once, beside eager fp32, eager bf16 and torch.compile."""
    wanted = {"eager bf16, channels-last": 2.2, "torch.compile": 1.1}
    batches = dict.fromkeys(peers.SEVEN, 256)
    yield from _seven(bench, "bf16", wanted, batches, agree=2e-2, compiled=True)


def one_image(bench: Bench) -> Iterator[Row]:
    """G2b: one image at a time on a GPU, where CUDA graphs spare launching kernel by kernel."""
    wanted = {"eager bf16, channels-last": 6.0}
    yield from _seven(bench, "bf16", wanted, dict.fromkeys(peers.SEVEN, 1), agree=2e-2, calls=50)


def _seven(
    bench: Bench,
    precision: str,
    wanted: dict[str, float],
    batches: dict[str, int],
    agree: float,
    compiled: bool = False,
    calls: int = 1,
) -> Iterator[Row]:
    for name in peers.SEVEN:
        many, size = batches.get(name, 4), peers.size_of(name)
        net, peer, library = peers.pair(name, bench.device)
        peer.eval()
        images = torch.randn(many, 3, size, size, generator=torch.Generator().manual_seed(1)).to(bench.device)
        fast = optimize(net, precision, compile=compiled)
        others = {"eager fp32": peer}
        if precision == "fp32":
            others["eager fp32, channels-last"] = _channels_last(peer)
        else:
            others["eager bf16, channels-last"] = _channels_last(peer, torch.bfloat16)
        if compiled:
            others["torch.compile"] = torch.compile(_channels_last(peer, torch.bfloat16))
        sides = {how: _answers(run, images, calls) for how, run in others.items()}
        yield from bench.contest(
            f"{name}, {precision}, {many} x {size}x{size}",
            _answers(fast, images, calls),
            {f"{library}, {how}": side for how, side in sides.items()},
            work=many * calls,
            wanted={f"{library}, {how}": least for how, least in wanted.items()},
            agree=agree,
        )


def _answers(run: Callable[[Tensor], Tensor], images: Tensor, calls: int = 1) -> Callable[[], Tensor]:
    @torch.inference_mode()
    def side() -> Tensor:
        for _ in range(calls):
            outputs = run(images)
        return outputs

    return side


def _channels_last(net: nn.Module, dtype: torch.dtype | None = None) -> Callable[[Tensor], Tensor]:
    """A copy as one runs it with every flag for speed: timm's validate.py with --channels-last --amp."""
    net = copy.deepcopy(net).to(memory_format=torch.channels_last)

    def run(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, dtype, enabled=dtype is not None):
            return net(images.contiguous(memory_format=torch.channels_last))

    return run


def int8(bench: Bench) -> Iterator[Row]:
    """C1d: resnet50 and others in int8 beside eager fp32; with real weights also how many right answers that costs."""
    note = "" if quantize.multiplies_bytes() else "without VNNI"
    for name in ("resnet50", "resnet18", "inception_v3"):
        size = peers.size_of(name)
        net, peer, library = peers.pair(name, bench.device)
        peer.eval()
        images = torch.randn(16, 3, size, size, generator=torch.Generator().manual_seed(1))
        try:
            fast = optimize(net, "int8", calibration=images)
        except InputError as error:
            bench.note(f"{name}: {error}")
            continue
        sides = _answers(fast, images[:4]), {f"{library}, eager fp32": _answers(peer, images[:4])}
        what = f"{name}, int8, 4 x {size}x{size}"
        yield from bench.contest(what, *sides, work=4, wanted={"torchvision, eager fp32": 4.0}, note=note)
    yield from _points_lost(bench)


def _points_lost(bench: Bench) -> Iterator[Row]:
    """On 500 photos of ImageNet's classes: calibrated on a fifth of them, judged on the others, five times."""
    folder = data_root() / "imagenet_samples"
    files = sorted(folder.glob("*.jpg"))
    if not files:
        bench.note("points lost: not run, since $CNNZOO_DATA has no imagenet_samples")
        return
    labels = torch.tensor([int(file.name[:3]) for file in files])  # names begin with the class's number
    fold = torch.arange(len(files)) % FOLDS
    for name, tag in TRAINED.items():
        try:
            net = zoo.create(name, tag).eval()
        except (InputError, OSError) as error:
            bench.note(f"points lost: {error}")
            continue
        photos = torch.stack([zoo.preprocessing(net)(file) for file in files])
        plain = _right(optimize(net, "fp32"), photos, labels)
        points = []
        for number in range(FOLDS):
            fast = optimize(net, "int8", calibration=photos[fold == number])
            judged = fold != number
            points.append((_right(fast, photos[judged], labels[judged]), plain[judged]))
        int8, fp32 = (100 * torch.cat(part).double().mean().item() for part in zip(*points, strict=True))
        lost = sorted(100 * (b.double().mean() - a.double().mean()).item() for a, b in points)
        note = (
            f"top-1 {int8:.2f} % in int8, {fp32:.2f} % in fp32, {lost[0]:.2f} to {lost[-1]:.2f} points lost over "
            f"{FOLDS} calibrations"
        )
        images = photos[:4]
        side, peer = _answers(fast, images), {"ours, eager fp32": _answers(net, images)}
        size = "x".join(map(str, images.shape[2:]))
        yield from bench.contest(f"{name}, int8, 4 x {size}", side, peer, work=4, note=note)


def _right(run: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """Whether each image gets its class: `(N,)` bool."""
    return torch.cat([run(part).argmax(1) for part in images.split(16)]) == labels
