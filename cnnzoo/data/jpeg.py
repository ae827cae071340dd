"""Ordinary JPEGs decoded by libjpeg-turbo alone, which is all that PIL does with them, but in two thirds of the time.

simplejpeg brings the library along, here with the exact transform and smooth upsampling that PIL takes, so that the
pixels are PIL's bit for bit. Whatever is not ordinary gives None: it is PIL's to decode, or to say what is wrong.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cnnzoo.machine import Scratch

try:
    import simplejpeg
except ImportError:  # there are machines without a wheel of it
    simplejpeg = None

# Markers: of baseline JPEGs' header, of the first scan of pixels, of restarts within it, of a segment with EXIF or XMP
_BASELINE, _SCAN, _RESTARTS, _APP1 = (0xC0, 0xC1), 0xDA, 0xDD, 0xE1
_SIZELESS = {0x01, *range(0xD0, 0xD9)}  # markers that no segment follows

_REST = "extraneous bytes before marker 0xd9"  # what libjpeg says of rows below the height that it was told


class Header(NamedTuple):
    width: int
    height: int
    channels: int  # 1: grey, 3: colour


def read_header(content: bytes) -> Header | None:
    """Of a JPEG, grey or in colour; None for all else, and without simplejpeg."""
    if simplejpeg is None or not content.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    channels = {"Gray": 1, "YCbCr": 3, "RGB": 3}.get(colours)
    return Header(width, height, channels) if channels else None


def has_metadata(content: bytes) -> bool:
    """Whether a JPEG may say by EXIF or XMP which side is up."""
    return any(marker == _APP1 for marker, _ in _segments(content))


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """The marker of each segment up to the first scan, and where what follows the marker begins."""
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == _SCAN:
            return
        if marker == 0xFF:  # a filling byte
            place += 1
        elif marker in _SIZELESS:
            place += 2
        else:
            yield marker, place + 2
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")


def decode(
    content: bytes, channels: int = 3, reduced: int = 1, *, rows: int | None = None, into: Scratch | None = None
) -> np.ndarray | None:
    """`(H, W, channels)` uint8 of a JPEG as it lies, at 1/`reduced` of its size, rounded up (1, 2, 4, 8): libjpeg's own
    scaling, for which less has to be computed.

    With `rows` only the photo's first rows are wanted: those are there, and H may be less than that of the whole.
    With `into` the pixels lie there, until the thread uses it again.

    None where `read_header` gives None, for the grey form of a colour JPEG, and for a damaged one.
    """
    header = read_header(content)
    if header is None or channels < header.channels:
        return None
    height, expected = header.height, None
    if rows is not None:  # libjpeg decodes as many as the header says, and does not look at the rest
        enough = -(-(rows + 2 * reduced) // 16) * 16  # whole blocks, with two rows that colours are interpolated from
        if enough < height and (place := _height(content)) is not None:
            content = b"".join((content[:place], enough.to_bytes(2, "big"), content[place + 2 :]))
            height, expected = enough, _REST
    height, width = (-(-side // reduced) for side in (height, header.width))
    shape = (height, width, channels)
    pixels = into.array(shape) if into else np.empty(shape, np.uint8)
    colours = "GRAY" if channels == 1 else "RGB"
    try:
        simplejpeg.decode_jpeg(content, colours, min_width=width, min_height=height, min_factor=reduced, buffer=pixels)
    except ValueError as problem:
        if expected is None or expected not in str(problem):  # that comes when all rows are decoded
            return None
    return pixels


def _height(content: bytes) -> int | None:
    """Where the height is written, if the scan of pixels may be left off anywhere."""
    found = None
    for marker, place in _segments(content):
        if marker == _RESTARTS:
            return None
        if marker in _BASELINE:
            found = place + 3  # behind the segment's length and the bits of a sample
    return found
