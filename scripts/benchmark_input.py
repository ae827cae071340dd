"""The input path for photos beside others', on one core: in one run, in turn, the same files.

    python scripts/benchmark_input.py                 # all of it, about three minutes
    python scripts/benchmark_input.py crop cache      # some of it

    check      our crops against torchvision's of the same parts, before anything is timed
    decode     a JPEG to pixels, by every decoder that is installed, against PIL
    crop       a JPEG file to a 224x224 training crop, uint8, against torchvision's and timm's transforms
    cache      the same of the decoded photos that are kept
    threads    two threads against one, by the clock on the wall: only worth something on a quiet machine

The photos are 500x375, quality 92, made of the real photos of $CNNZOO_DATA (hymenoptera and imagenet_samples, which
are smaller), in two ways: "smooth" is one photo enlarged, "sharp" is four side by side, as they are. Processor time of
one thread; medians of rounds in turn, with minimum and maximum.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torchvision import transforms
from torchvision.transforms import functional

from cnnzoo import machine
from cnnzoo.config import AugmentConfig
from cnnzoo.data import jpeg, parts
from cnnzoo.data.arrays import ArrayImages, FileImages, Geometry
from cnnzoo.data.draws import Draws
from cnnzoo.data.parts import Parts

SIZE, CANVAS, COUNT, ROUNDS = 224, 256, 64, 25
SETS = ("hymenoptera", "imagenet_samples")
CROP = AugmentConfig(crop="resized", flip=True)
GEOMETRY = Geometry(3, CANVAS, CANVAS, "bilinear")


# ---- photos


def smooth(photos: list[Path]) -> Image.Image:
    return _opened(photos[0]).resize((500, 375), Image.Resampling.BICUBIC)


def sharp(photos: list[Path]) -> Image.Image:
    whole = Image.new("RGB", (500, 375))
    for photo, corner in zip(photos, [(0, 0), (250, 0), (0, 188), (250, 188)], strict=True):
        whole.paste(_opened(photo).crop((0, 0, 250, 188)), corner)
    return whole


def _opened(photo: Path) -> Image.Image:
    return Image.open(photo).convert("RGB")


def make(kind: Callable[[list[Path]], Image.Image], folder: Path) -> list[Path]:
    """JPEG files of 500x375."""
    root = Path(os.environ["CNNZOO_DATA"])
    real = [photo for name in SETS for photo in sorted((root / name).resolve().rglob("*.jpg"))]
    files = [folder / f"{number}.jpg" for number in range(COUNT)]
    for number, file in enumerate(files):
        kind([real[(28 * number + 7 * corner) % len(real)] for corner in range(4)]).save(file, quality=92)
    size = sum(file.stat().st_size for file in files) / COUNT / 1000
    print(f"== {COUNT} {kind.__name__} photos of 500x375, {size:.0f} kB on average")
    return files


# ---- timing


def compare(what: str, ours: Callable[[], object], peers: dict[str, Callable[[], object]], images: int = COUNT) -> None:
    """Prints how many times as many images a second ours makes."""
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}
    for turn in range(ROUNDS + 1):
        for name, action in {"ours": ours, **peers}.items():
            start = time.process_time()
            action()
            if turn:  # the first one warms up
                seconds[name].append(time.process_time() - start)
    for name in peers:
        pairs = [peer / own for peer, own in zip(seconds[name], seconds["ours"], strict=True)]
        own, peer = (images / statistics.median(seconds[who]) for who in ("ours", name))
        print(
            f"{what + ', against ' + name:<58} ours {own:>8,.0f}  peer {peer:>8,.0f} images/s  "
            f"ratio {statistics.median(pairs):5.2f} ({min(pairs):.2f} to {max(pairs):.2f})",
            flush=True,
        )


# ---- what is compared


def drawn(step: int = 0) -> Parts:
    return Parts(CROP, SIZE, Draws(np.random.default_rng(step), COUNT))


def check(files: list[Path]) -> None:
    """Same parts, same pixels: of files and of the cache."""
    everything, draw = np.arange(COUNT), drawn()
    kept = canvases(files)
    for what, images, originals in (
        ("JPEG", FileImages(files, GEOMETRY, 1), map(Image.open, files)),
        ("cache", ArrayImages(kept), map(Image.fromarray, kept)),
    ):
        differences = []
        for place, (ours, image) in enumerate(zip(images.take_parts(everything, draw), originals, strict=True)):
            left, top, width, height = draw.box(place, *image.size)
            theirs = functional.resized_crop(image, top, left, height, width, [SIZE, SIZE])
            theirs = functional.hflip(theirs) if draw.mirrored[place] else theirs
            differences.append(np.abs(ours.astype(int) - np.asarray(theirs)))
        differences = np.stack(differences)
        print(f"{what}: {differences.mean():.3f} levels from torchvision's on average, {differences.max()} at most")
        if differences.max() > 2:
            raise SystemExit("that is another picture; nothing is timed")


def canvases(files: list[Path]) -> np.ndarray:
    return FileImages(files, GEOMETRY).take(np.arange(len(files)))


def decode(files: list[Path]) -> None:
    contents = [file.read_bytes() for file in files]
    peers = {"PIL": lambda content: np.asarray(Image.open(io.BytesIO(content)))}
    for name, module, make in (
        ("OpenCV", "cv2", lambda m: lambda c: m.imdecode(np.frombuffer(c, np.uint8), m.IMREAD_COLOR)[:, :, ::-1]),
        ("imagecodecs", "imagecodecs", lambda m: m.jpeg8_decode),
        ("torchcodec", "torchcodec.decoders", lambda m: lambda c: m.decode_jpeg(c).permute(1, 2, 0).numpy()),
        ("torchvision.io", "torchvision.io", lambda m: lambda c: _torchvision_io(m, c)),
    ):
        try:
            decoder = make(import_module(module))
            decoder(contents[0])
        except Exception as error:  # not installed, or not for this torch
            print(f"{name}: not measured ({' '.join(str(error).split())[:60]})")
        else:
            peers[name] = decoder
    for name, decoder in peers.items():
        same = all(np.array_equal(jpeg.decode(content), decoder(content)) for content in contents)
        print(f"{name}: {'the same pixels' if same else 'OTHER PIXELS'}")
    each = {name: lambda decoder=decoder: [decoder(content) for content in contents] for name, decoder in peers.items()}
    compare("decode", lambda: [jpeg.decode(content) for content in contents], each)


def _torchvision_io(module, content: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated since 0.29, hence a row only
        return module.decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8)).permute(1, 2, 0).numpy()


def peers_of(files: list[Path]) -> dict[str, Callable[[], object]]:
    chains = {
        "torchvision": transforms.Compose(
            [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
        ),
        "timm as it comes": create_transform(SIZE, is_training=True),
        "timm without colours, uint8": create_transform(
            SIZE, is_training=True, color_jitter=None, interpolation="bilinear", use_prefetcher=True
        ),
    }
    return {
        name: lambda chain=chain: [chain(Image.open(file).convert("RGB")) for file in files]
        for name, chain in chains.items()
    }


def crop(files: list[Path]) -> None:
    images, everything = FileImages(files, GEOMETRY, 1), np.arange(COUNT)
    compare("JPEG to crop", lambda: images.take_parts(everything, drawn()), peers_of(files))


def cache(files: list[Path]) -> None:
    images, everything = ArrayImages(canvases(files)), np.arange(COUNT)
    peer = {"torchvision from JPEG": peers_of(files)["torchvision"]}
    compare("cache to crop", lambda: images.take_parts(everything, drawn()), peer)


def threads(files: list[Path]) -> None:
    one, two = (FileImages(files, GEOMETRY, workers) for workers in (1, 2))
    everything, ratios = np.arange(COUNT), []
    for _ in range(ROUNDS):
        seconds = []
        for images in (one, two):
            start = time.perf_counter()
            images.take_parts(everything, drawn())
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    print(
        f"two threads against one: {statistics.median(ratios):.2f} times the images "
        f"({min(ratios):.2f} to {max(ratios):.2f}); load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


PARTS = {"check": check, "decode": decode, "crop": crop, "cache": cache, "threads": threads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="what to measure; all by default")
    chosen = parser.parse_args().parts
    torch.set_num_threads(1)
    print(f"simplejpeg {'yes' if jpeg.simplejpeg else 'no'}, OpenCV {parts.cv2.__version__ if parts.cv2 else 'no'}")
    with machine.tuned(torch.device("cpu")):  # as while a net is trained; the peers have the use of it, too
        for kind in (smooth, sharp):
            with tempfile.TemporaryDirectory() as folder:
                files = make(kind, Path(folder))
                for name in chosen or PARTS:
                    print(f"-- {name}")
                    PARTS[name](files)


if __name__ == "__main__":
    main()
