"""From JPEG files to what a net sees: our input path beside torchvision's and timm's transforms, on one core.

The photos are 500x375, as ImageNet's mostly are, made of those of $CNNZOO_DATA's imagenet_samples in two ways: "smooth"
is a part of one enlarged, "sharp" is four side by side as they are, which takes more bytes and so longer to decode.
"""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from cnnzoo import machine
from cnnzoo.benchmark import photos
from cnnzoo.benchmark.harness import Bench, Row, Side, Unequal
from cnnzoo.benchmark.peers import transforms
from cnnzoo.config import AugmentConfig
from cnnzoo.data import jpeg, parts
from cnnzoo.data.arrays import ArrayImages, FileImages, Images
from cnnzoo.data.draws import Draws
from cnnzoo.data.found import IMAGENET_MEAN, IMAGENET_STD
from cnnzoo.data.parts import Parts
from cnnzoo.data.preprocess import Geometry, normalise

SIZE, CANVAS, COUNT, BATCH = 224, 256, 200, 50
CROP = AugmentConfig(crop="resized", flip=True)
LEVELS = 2  # of 255, by which our pixels may differ from theirs

UINT8 = {"torchvision": 2.2, "timm without colours": 2.5}  # and the least ratio asked for
FLOAT = {"torchvision": 2.2, "timm": 2.5}
EVALUATION = {"torchvision": 2.7, "timm": 2.7}
DECODERS = ("PIL", "OpenCV", "torchvision.io")


def crops(bench: Bench) -> Iterator[Row]:
    """C3: JPEG files to random crops of 224x224, on one core, beside torchvision's and timm's transforms.

    Once as uint8, and once as a net takes them: batches, normalised, timm's with the jittered colours of its default.
    """
    for kind, folder in _folders(bench):
        _check(folder)
        for out, wanted in (("uint8", UINT8), ("normalised", FLOAT)):
            peers = {name: bench.side(_theirs, folder, name, out, True) for name in wanted}
            ours = bench.side(_our_crops, folder, out)
            yield from bench.contest(f"{kind} JPEGs to random crops, {out}", ours, peers, COUNT, wanted=wanted)


def evaluated(bench: Bench) -> Iterator[Row]:
    """C3b: JPEG files to the centre of 224x224 that evaluation sees, uint8, on one core, beside the same."""
    for kind, folder in _folders(bench):
        peers = {name: bench.side(_theirs, folder, name, "uint8", False) for name in EVALUATION}
        ours = bench.side(_our_centres, folder)
        yield from bench.contest(f"{kind} JPEGs to their centres", ours, peers, COUNT, wanted=EVALUATION)


def decoders(bench: Bench) -> Iterator[Row]:
    """C3c: JPEG files to all of their pixels, on one core, beside PIL and two more decoders."""
    for kind, folder in _folders(bench):
        peers = {name: bench.side(_decoder, folder, name) for name in DECODERS if _is_there(name)}
        yield from bench.contest(f"decoding {kind} JPEGs", bench.side(_decoder, folder, "ours"), peers, COUNT)


def cached(bench: Bench) -> Iterator[Row]:
    """C4: photos kept decoded to random crops, on one core, beside torchvision's transforms from the files."""
    for kind, folder in _folders(bench):
        peers = {"torchvision": bench.side(_theirs, folder, "torchvision", "uint8", True)}
        ours = bench.side(_our_crops, folder, "uint8", True)
        yield from bench.contest(f"{kind} photos kept, to random crops", ours, peers, COUNT, wanted={"torchvision": 14})


# ---- ours


def _our_crops(device: torch.device, folder: Path, out: str, kept: bool = False) -> Side:
    _on_one_core()
    images: Images = FileImages(_files(folder), _geometry(CANVAS), workers=1)
    places, numbers, memory = np.arange(len(images)), count(), ExitStack()
    images = ArrayImages(images.take(places)) if kept else images
    memory.enter_context(machine.tuned(device))  # as while a net is trained

    def side() -> None:
        for start in range(0, len(places), BATCH):
            part = places[start : start + BATCH]
            batch = images.take_parts(part, _drawn(len(part), next(numbers)))
            if out == "normalised":
                normalise(torch.from_numpy(batch), IMAGENET_MEAN, IMAGENET_STD)

    side.memory = memory
    return side


def _our_centres(device: torch.device, folder: Path) -> Side:
    _on_one_core()
    images = FileImages(_files(folder), _geometry(SIZE), workers=1)
    return lambda: images.take(np.arange(len(images)))


def _geometry(size: int) -> Geometry:
    return Geometry(3, CANVAS, size, "bilinear")


def _drawn(many: int, seed: int) -> Parts:
    return Parts(CROP, SIZE, Draws(np.random.default_rng(seed), many))


# ---- theirs


def _theirs(device: torch.device, folder: Path, name: str, out: str, training: bool) -> Side:
    _on_one_core()
    files, chain = _files(folder), _chain(name, out, training)

    def side() -> None:
        for start in range(0, len(files), BATCH):
            batch = [chain(Image.open(file).convert("RGB")) for file in files[start : start + BATCH]]
            if out == "normalised":
                torch.stack(batch)  # as a DataLoader does

    return side


def _chain(name: str, out: str, training: bool) -> Callable[[Image.Image], object]:
    if name == "torchvision":
        return transforms(SIZE, CANVAS, training, as_uint8=out == "uint8")

    from timm.data import create_transform

    options = {"interpolation": "bilinear", "use_prefetcher": out == "uint8"}  # which stops at uint8
    options |= {"is_training": True} if training else {"crop_pct": SIZE / CANVAS}
    return create_transform(SIZE, **options, **({"color_jitter": None} if "without" in name else {}))


def _decoder(device: torch.device, folder: Path, name: str) -> Side:
    _on_one_core()
    contents, decode = [file.read_bytes() for file in _files(folder)], _decode(name)

    def side() -> None:
        for content in contents:
            decode(content)

    return side


def _decode(name: str) -> Callable[[bytes], np.ndarray]:
    """From a file's content to `(H, W, 3)` uint8."""
    if name == "ours":
        return jpeg.decode
    if name == "PIL":
        return lambda content: np.asarray(Image.open(io.BytesIO(content)))
    if name == "OpenCV":
        import cv2

        return lambda content: cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)

    from torchvision.io import decode_jpeg

    warnings.simplefilter("ignore")  # deprecated since torchvision 0.29
    return lambda content: decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8)).permute(1, 2, 0).numpy()


def _is_there(name: str) -> bool:
    try:
        with warnings.catch_warnings():
            _decode(name)
    except ImportError:
        return False
    return True


def _on_one_core() -> None:
    torch.set_num_threads(1)
    if parts.cv2:
        parts.cv2.setNumThreads(1)


# ---- the photos


def _check(folder: Path) -> None:
    """Raises Unequal unless our crops are torchvision's of the same parts."""
    from torchvision.transforms import functional

    files = _files(folder)[:20]
    drawn = _drawn(len(files), 0)
    ours = FileImages(files, _geometry(CANVAS), workers=1).take_parts(np.arange(len(files)), drawn)
    for place, file in enumerate(files):
        with Image.open(file) as image:
            left, top, width, height = drawn.box(place, *image.size)
            theirs = functional.resized_crop(image, top, left, height, width, [SIZE, SIZE])
        theirs = np.asarray(functional.hflip(theirs) if drawn.mirrored[place] else theirs)
        if (worst := np.abs(ours[place].astype(int) - theirs).max()) > LEVELS:
            raise Unequal(f"{file.name}: a crop differs by {worst} levels, where {LEVELS} are allowed")


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.jpg"))


@contextmanager
def _made() -> Iterator[dict[str, Path]]:
    real = photos.real_ones()
    with TemporaryDirectory() as place:
        folders = {kind: Path(place) / kind for kind in ("smooth", "sharp")}
        if real:
            photos.make_photos(folders["smooth"], real, range(COUNT))
            _make_sharp(folders["sharp"], real)
        yield folders if real else {}


def _folders(bench: Bench) -> Iterator[tuple[str, Path]]:
    """Kinds of photos and where they lie, for as long as they are asked for; none without real ones."""
    with _made() as folders:
        if not folders:
            bench.note(photos.NONE)
        yield from folders.items()


def _make_sharp(folder: Path, real: Sequence[Path]) -> None:
    folder.mkdir()
    for number in range(COUNT):
        whole = Image.new("RGB", (500, 375))
        for place, corner in enumerate([(0, 0), (250, 0), (0, 188), (250, 188)]):
            with Image.open(real[(4 * number + place) % len(real)]) as photo:
                whole.paste(photo.convert("RGB").crop((0, 0, 250, 188)), corner)
        whole.save(folder / f"{number}.jpg", quality=92)
