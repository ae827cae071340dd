"""Ordinary JPEGs decoded by libjpeg-turbo alone, which is all that PIL does with them, but in two thirds of the time.

simplejpeg brings the library along, here with the exact transform and smooth upsampling that PIL takes, so that the
pixels are PIL's bit for bit. Whatever is not ordinary gives None: it is PIL's to decode, or to say what is wrong.
"""

from typing import NamedTuple

import numpy as np

try:
    import simplejpeg
except ImportError:  # there are machines without a wheel of it
    simplejpeg = None

_APP1, _SCAN = 0xE1, 0xDA  # markers: of a segment with EXIF or XMP, and of the first scan of pixels
_SIZELESS = {0x01, *range(0xD0, 0xD9)}  # markers that no segment follows


class Header(NamedTuple):
    width: int
    height: int
    channels: int  # 1: grey, 3: colour


def read_header(content: bytes) -> Header | None:
    """None for all but grey and colour JPEGs, and without simplejpeg."""
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
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker in (_APP1, _SCAN):
            return marker == _APP1
        if marker == 0xFF:  # a filling byte
            place += 1
        elif marker in _SIZELESS:
            place += 2
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return False


def decode(content: bytes, channels: int = 3, reduced: int = 1) -> np.ndarray | None:
    """`(H, W, channels)` uint8 of a JPEG as it lies, at 1/`reduced` of its size, rounded up (1, 2, 4, 8): libjpeg's own
    scaling, for which less has to be computed.

    None where `read_header` gives None, for the grey form of a colour JPEG, and for a damaged one.
    """
    header = read_header(content)
    if header is None or channels < header.channels:
        return None
    width, height = (-(-side // reduced) for side in header[:2])
    try:
        return simplejpeg.decode_jpeg(
            content,
            "GRAY" if channels == 1 else "RGB",
            min_width=width,
            min_height=height,
            min_factor=reduced,
        )
    except ValueError:
        return None
