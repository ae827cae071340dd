"""From an image file to its pixels, whatever the file is like, or to what is wrong with it."""

import io
import os
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image
from torch import Tensor

from cnnzoo.data import jpeg
from cnnzoo.errors import InputError, quoted

TABLES = (".csv", ".tsv")  # which list photos, see listed.py

# Of what PIL says a file is, the usual one first.
ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif"),  # a JPEG with further pictures behind it, as some cameras make
    "PNG": (".png",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}
EXTENSIONS = frozenset().union(*ENDINGS.values())  # which a folder of photos may hold; other files are not images

LARGEST = 500_000_000  # pixels; a decoded image of that size takes 1.5 GB

_HEIF = frozenset(b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split())  # ISO/IEC 23008-12, annex B and 10.2

_UPRIGHT = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT,),
    3: (Image.Transpose.ROTATE_180,),
    4: (Image.Transpose.FLIP_TOP_BOTTOM,),
    5: (Image.Transpose.TRANSPOSE,),
    6: (Image.Transpose.ROTATE_270,),
    7: (Image.Transpose.TRANSVERSE,),
    8: (Image.Transpose.ROTATE_90,),
}  # by the EXIF tag Orientation; PIL's own exif_transpose fails on tags it need not read


class BadImage(InputError):
    """A file gives no image; `fault` names the kind of trouble."""

    def __init__(self, why: str, fault: str = "damaged"):
        super().__init__(why)
        self.fault = fault


class Unreached(BadImage):
    """A file cannot be read now, which is no fault of what is in it."""


class Stored(ABC):
    """An image file that lies within another file; `read` and `decode` take it as they take a path.

    `str` of it is its name, for messages.
    """

    @abstractmethod
    def read_bytes(self) -> bytes:
        """The image file's content. Raises OSError if it cannot be read."""

    @abstractmethod
    def stamp(self) -> str:
        """Changes whenever the content may have changed."""

    @property
    def path(self) -> str | None:
        """Its path within what it lies in; None where it has only a number there."""
        return None


def read(file: str | Path | Stored) -> bytes:
    """An image file's content. Raises Unreached that says why it cannot be read."""
    with _explained(file):
        return file.read_bytes() if isinstance(file, Stored) else Path(file).read_bytes()


@contextmanager
def opened(file: str | Path | bytes, at_least: int | None = None) -> Iterator[Image.Image]:
    """An image file, or its content, of which the header is read, the pixels not yet: `upright` reads them.

    With `at_least` a JPEG whose shorter side stays that long may be decoded at 1/2, 1/4 or 1/8 of its size (libjpeg's
    scaling), of which both sides must be multiples, so that nothing shifts. With 2.9 times the length that the
    shorter side is resized to next (`reducing_gap` of PIL's resize advises 3), 48 photos enlarged to 12 megapixels took
    a quarter of the time; the 224x224 pixels that a net sees differed by 0.2 of 255 levels on average and by 3 at most,
    logits of SqueezeNet and GoogLeNet by 1 % of their spread, and the first class of one photo of 96 changed, as it did
    with 3 times. Progressive JPEGs, whose coefficients are all held in memory whatever the scale, are decoded in full.

    Raises BadImage that says what is wrong with the file, also for what shows only while its pixels are read.
    """
    with _explained(file), _pil_limit.lifted():
        try:
            image = Image.open(io.BytesIO(file) if isinstance(file, bytes) else file)
        except Image.UnidentifiedImageError:
            image = _open_heif(file)
        with image:
            width, height = image.size
            if width * height > LARGEST:
                raise BadImage(
                    f"its {width}x{height} pixels are more than the {LARGEST:,} that are decoded", "too large"
                )
            if at_least and "progressive" not in image.info:
                scales = (s for s in (8, 4, 2) if width % s == height % s == 0 and min(width, height) >= s * at_least)
                scale = next(scales, 1)
                image.draft(None, (width // scale, height // scale))  # does nothing to other formats than JPEG
            yield image


def _open_heif(file: str | Path | bytes) -> Image.Image:
    """What PIL does not know as an image, where it is one all the same. Raises BadImage, or Unreached that says what
    to install.
    """
    if isinstance(file, bytes):
        start = file[:12]
    else:
        with open(file, "rb") as content:
            start = content.read(12)
    if not start:
        raise BadImage("the file is empty", "empty file")
    kind = start[8:] if start[4:8] == b"ftyp" else b""  # ISO/IEC 14496-12, section 4.3
    if kind in (b"avif", b"avis"):
        raise Unreached("it is AVIF, which PIL reads from 11.3 on: pip install -U pillow", "not read here")
    if kind not in _HEIF:
        is_table = not isinstance(file, bytes) and os.fspath(file).lower().endswith(TABLES)
        raise BadImage("it is a table, not an image: name the photos themselves" if is_table else "it is not an image")
    try:
        import pillow_heif
    except ImportError:
        why = 'it is HEIF, as iPhones take photos, which pip install "cnnzoo[heif]" reads'
        raise Unreached(why, "not read here") from None
    pillow_heif.register_heif_opener()  # so that from here on PIL knows them
    try:
        return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file)
    except Image.UnidentifiedImageError:
        raise BadImage("it is damaged or cut short") from None


@contextmanager
def _explained(file: str | Path | bytes | Stored) -> Iterator[None]:
    """What can go wrong with a file, as BadImage."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise Unreached(_absent(str(file)), "out of reach") from None
    except PermissionError:
        raise Unreached("no permission to read it", "no permission") from None
    # of which PIL's decoders of AVIF, DDS and JPEG 2000 raise the last two
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError, MemoryError) as error:
        if getattr(error, "errno", None):  # the system's, not PIL's: a disk or a network that may be well again
            raise Unreached(f"it cannot be read now ({error.strerror})", "out of reach") from None
        why = " ".join(str(error).split()) or type(error).__name__
        cut = "truncated" in why.lower() or "unexpected end" in why.lower()
        raise (BadImage("it is cut short", "cut short") if cut else BadImage(f"it is damaged ({why})")) from None


def _absent(name: str) -> str:
    """What to say of a file that is not there."""
    if re.match(r"\w{2,}:/", name):
        return "it is an address: download it, and name the file"
    remedies = {"": "; its name is empty", "-": "; standard input is called /dev/stdin"}
    return f"there is no such file{remedies.get(name, '')}"


def upright(image: Image.Image) -> Image.Image:
    """The pixels of an opened file, turned as its EXIF tag says; what was turned has no such tag any more."""
    image.load()
    for turn in _UPRIGHT.get(exif_orientation(image), ()):
        image = image.transpose(turn)
        image.info = {key: value for key, value in image.info.items() if key == "transparency"}
    return image


def exif_orientation(image: Image.Image) -> int:
    """1 to 8, of which 1 is upright; of some formats known only once the pixels are read."""
    return image.getexif().get(0x112, 1)


def decode(file: str | Path | Stored, channels: int = 3, at_least: int | None = None) -> Image.Image:
    """The image in a file, upright, as 8-bit RGB (channels 3) or grey (channels 1), reduced as `opened` says.

    Palettes, CMYK, 16 bits and EXIF rotation are resolved; transparent pixels become white; an animation gives its
    first frame. Raises BadImage that says what is wrong with the file.
    """
    return decode_content(read(file), channels, at_least)


def decode_content(content: bytes, channels: int = 3, at_least: int | None = None) -> Image.Image:
    """`decode` of a file's content."""
    with opened(content, at_least) as image:
        return _of_channels(upright(image), channels)


def jpeg_header(content: bytes) -> jpeg.Header | None:
    """The header of a JPEG that needs no care; None for all else, which is left to PIL."""
    header = jpeg.read_header(content)
    return header if header and header.width * header.height <= LARGEST else None


def orientation(content: bytes) -> int:
    """What a JPEG's EXIF tag of that name says; 1 is upright."""
    if not jpeg.has_metadata(content):
        return 1
    with opened(content) as image:
        return exif_orientation(image)


class _PilLimit:
    """PIL's own limit of 89 million pixels stops ordinary large photos; it is lifted while any thread decodes."""

    def __init__(self):
        self._lock, self._users, self._limit = threading.Lock(), 0, None

    @contextmanager
    def lifted(self):
        with self._lock:
            if self._users == 0:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    Image.MAX_IMAGE_PIXELS = self._limit


_pil_limit = _PilLimit()


def has_alpha(image: Image.Image) -> bool:
    """Whether some of its pixels may be transparent."""
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _of_channels(image: Image.Image, channels: int) -> Image.Image:
    """The same as 8-bit grey (1 channel) or RGB (3), without transparency."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode.startswith(("I", "F")):  # 16 bits a pixel, or a scan in 32
        values = np.array(image, dtype=np.float32)
        most = values.max(initial=0)
        top = 65535 if most > 255 else 1 if image.mode == "F" and most <= 1 else 255
        values = values.clip(0, top, out=values)
        values *= 255 / top
        image = Image.fromarray(values.round(out=values).astype(np.uint8))
    if has_alpha(image):
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def as_image(
    image: Image.Image | str | Path | bytes | IO | np.ndarray | Tensor, channels: int, at_least: int | None = None
) -> Image.Image:
    """Anything that is a picture as a PIL image of so many channels, 1 or 3; a file, or its content, reduced as
    `opened` says. Raises InputError for what is none.
    """
    if channels not in (1, 3):
        raise InputError(
            f"images of {channels} channels are wanted, but a picture has 3, or 1 if grey; give the net tensors instead"
        )
    if isinstance(image, str | Path):
        try:
            return decode(os.path.expanduser(image), channels, at_least)
        except BadImage as error:
            raise InputError(f"{image}: {error}") from None
    if isinstance(image, bytes) or hasattr(image, "read"):
        return decode_content(image if isinstance(image, bytes) else image.read(), channels, at_least)
    opened_elsewhere = isinstance(image, Image.Image)
    if isinstance(image, Tensor | np.ndarray) and (str(image.dtype)[-5:] != "uint8" or image.ndim not in (2, 3)):
        kind, shape = ("tensor", "(C, H, W)") if isinstance(image, Tensor) else ("array", "(H, W, C)")
        given = f"{str(image.dtype).removeprefix('torch.')} of shape {tuple(image.shape)}"
        raise InputError(f"a picture is a uint8 {kind} of shape (H, W) or {shape}, not {given}")
    if isinstance(image, Tensor):
        first = image.ndim == 3 and image.shape[0] in (1, 3, 4)
        image = (image.permute(1, 2, 0) if first else image).cpu().numpy()
    if isinstance(image, np.ndarray):
        if image.shape[2:] not in ((), (1,), (3,), (4,)):
            raise InputError(
                f"an array of shape {image.shape} has {image.shape[2]} channels, but {channels} are wanted "
                f"(1, 3 and 4 are known, as grey, RGB and RGBA)"
            )
        image = Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    if not isinstance(image, Image.Image) or 0 in image.size:
        raise InputError(f"not a picture: {quoted(image)}; give a path, a file's content, a PIL image or a uint8 array")
    try:
        return _of_channels(upright(image) if opened_elsewhere else image, channels)
    except (OSError, ValueError) as error:  # of an image opened elsewhere, whose pixels are only read now, or closed
        raise InputError(f"{getattr(image, 'filename', '') or 'a picture'} cannot be read ({error})") from None
