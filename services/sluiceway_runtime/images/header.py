"""What an image file says about itself, read from its first bytes before anything is decoded.

Every read is bounded by the bytes at hand, every walk by a number of steps, and nothing is allocated by what the file
claims: a header that promises 50,000 x 50,000 pixels costs microseconds, and no file keeps an event loop busy. The
orientation comes from here too, so that it is honoured alike for every format and every version of the decoder.
"""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial

from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.images.boxes import read_jpeg2000, read_still
from sluiceway_runtime.images.chunks import read_gif, read_png, read_webp
from sluiceway_runtime.images.facts import MAX_CHUNKS, Format, ImageHeader
from sluiceway_runtime.images.jpeg import MAX_SEGMENTS, read_jpeg
from sluiceway_runtime.images.signatures import LONGEST, format_of, unknown_file
from sluiceway_runtime.images.tiff import read_tiff

__all__ = ["MAX_CHUNKS", "MAX_SEGMENTS", "ImageHeader", "read_header"]

_BMP_CORE, _BMP_V3 = 12, 56  # sizes of headers: that of OS/2, and the first with a mask of transparency
_BMP_MASKS = (3, 6)  # kinds of compression that are masks of channels


def read_header(data: bytes | memoryview) -> ImageHeader:
    """Find the format and read the header.

    Args:
        data: the whole file.

    Returns:
        The header; width and height are at least 1.

    Raises:
        InvalidImage: no known format, a header that is cut off or makes no sense, or more parts than real files have.
    """
    view = memoryview(data)
    start = bytes(view[:LONGEST])
    kind = format_of(start)
    if kind is None:
        raise unknown_file(start)
    try:
        # Markers are searched for, and a view cannot do that.
        header = read_jpeg(bytes(data)) if kind == "jpeg" else _READERS[kind](view)
    except (struct.error, IndexError) as error:
        raise InvalidImage("the image header is cut off") from error
    if header.width_px < 1 or header.height_px < 1:
        raise InvalidImage("the image header gives no size")
    return header if 1 <= header.orientation <= 8 else replace(header, orientation=1)


def _bmp(view: memoryview) -> ImageHeader:
    (pixels_at, header_bytes) = struct.unpack_from("<II", view, 10)
    alpha = False
    if header_bytes == _BMP_CORE:
        width, height = struct.unpack_from("<HH", view, 18)
        (bits,) = struct.unpack_from("<H", view, 24)
        compression = 0
    else:
        width, height = struct.unpack_from("<ii", view, 18)
        bits, compression = struct.unpack_from("<HI", view, 28)
        if header_bytes >= _BMP_V3 and bits == 32 and compression in _BMP_MASKS:
            alpha = bool(struct.unpack_from("<I", view, 66)[0])
    height = abs(height)  # negative: stored from the top
    row_bytes = (width * bits + 31) // 32 * 4
    complete = compression in (1, 2, 4, 5) or len(view) >= pixels_at + row_bytes * height
    return ImageHeader("bmp", max(width, 0), height, 1, complete, alpha=alpha)


def _heif(view: memoryview) -> ImageHeader:
    if not _reads_heif():
        raise InvalidImage("this is a HEIC picture; servers read those where `sluiceway[heic]` is installed")
    return read_still(view, "heif")


@cache
def _reads_heif() -> bool:
    return importlib.util.find_spec("pi_heif") is not None


_READERS: Mapping[Format, Callable[[memoryview], ImageHeader]] = {
    "png": read_png,
    "webp": read_webp,
    "bmp": _bmp,
    "tiff": read_tiff,
    "gif": read_gif,
    "avif": partial(read_still, kind="avif"),
    "jpeg2000": read_jpeg2000,
    "heif": _heif,
}
