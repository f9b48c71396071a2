"""What an image file says about itself, read from its first bytes before anything is decoded.

Every read is bounded by the bytes at hand, every walk by a number of steps, and nothing is allocated by what the file
claims: a header that promises 50,000 x 50,000 pixels costs microseconds, and no file keeps an event loop busy. The
orientation comes from here too, so that it is honoured alike for every format and every version of the decoder.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, replace
from typing import Literal

from sluiceway_runtime.errors import InvalidImage

__all__ = ["MAX_CHUNKS", "MAX_SEGMENTS", "ImageHeader", "read_header"]

Format = Literal["jpeg", "png", "webp", "bmp", "tiff"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame; DHT, JPG and DAC share the range
_JPEG_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM and restart markers carry no length
_TAG_WIDTH, _TAG_HEIGHT, _TAG_ORIENTATION, _TAG_TILE_WIDTH, _TAG_TILE_HEIGHT = 256, 257, 274, 322, 323
_TIFF_SHORT, _TIFF_LONG = 3, 4
_MAX_TIFF_ENTRIES = 4096  # ours: a directory of real files has dozens
_FILL = re.compile(rb"\xff+")
_PNG_CHUNK = struct.Struct(">I4s")
_WEBP_CHUNK = struct.Struct("<4sI")

# Ours, and more than real files have; each is a microsecond. So many segments of 64 KiB are 256 MiB; so many chunks of
# 8 KiB, the smallest that libpng makes by itself, are 512 MiB.
MAX_SEGMENTS = 4096  # of a JPEG, before its scan
MAX_CHUNKS = 65_536  # of a PNG or WebP


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Size as stored (before turning), EXIF orientation 1..8, and whether the file ends where it should.

    Attributes:
        format: container.
        width_px: columns as stored.
        height_px: rows as stored.
        orientation: EXIF tag 274; 1 where there is none or it makes no sense.
        complete: False where the structure shows that the end of the file is missing.
        tile_px: pixels of each tile of a TIFF, which is decoded as a whole however small the picture; 0 without tiles.
    """

    format: Format
    width_px: int
    height_px: int
    orientation: int = 1
    complete: bool = True
    tile_px: int = 0


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
    start = bytes(view[:16])
    try:
        if start[:3] == b"\xff\xd8\xff":
            header = _jpeg(data if isinstance(data, bytes) else bytes(data))
        elif start[:8] == _PNG_SIGNATURE:
            header = _png(view)
        elif start[:4] == b"RIFF" and start[8:12] == b"WEBP":
            header = _webp(view)
        elif start[:2] == b"BM":
            header = _bmp(view)
        elif start[:4] in (b"II*\0", b"MM\0*"):
            header = _tiff(view)
        elif not start:
            raise InvalidImage("the image is empty (0 bytes)")
        else:
            raise InvalidImage("not a JPEG, PNG, WebP, BMP or TIFF file")
    except (struct.error, IndexError) as error:
        raise InvalidImage("the image header is cut off") from error
    if header.width_px < 1 or header.height_px < 1:
        raise InvalidImage("the image header gives no size")
    return header if 1 <= header.orientation <= 8 else replace(header, orientation=1)


def _jpeg(data: bytes) -> ImageHeader:
    position, orientation, size = 2, None, None
    for _ in range(MAX_SEGMENTS):
        position = data.find(b"\xff", position)
        # A marker may have any number of fill bytes before its code, so they are no steps.
        fill = _FILL.match(data, position) if position >= 0 else None
        if fill is None:
            raise InvalidImage("the image header is cut off")
        position = fill.end()
        marker = data[position]
        if marker in _JPEG_STANDALONE or marker == 0:
            position += 1
            continue
        (length,) = struct.unpack_from(">H", data, position + 1)
        body = position + 3
        if marker in _JPEG_SOF:
            height, width = struct.unpack_from(">HH", data, body + 1)
            size = size or (width, height)
        elif marker == 0xE1 and orientation is None and data[body : body + 6] == b"Exif\0\0":
            orientation = _exif_orientation(memoryview(data)[body + 6 : position + 1 + length])
        elif marker == 0xDA:  # start of scan: what follows is entropy coded
            break
        elif marker == 0xD9:
            raise InvalidImage("the JPEG holds no picture")
        position += 1 + max(length, 2)
    else:
        raise _too_many("segments", MAX_SEGMENTS)
    if size is None:
        raise InvalidImage("the JPEG holds no picture")
    # Inside entropy-coded data FF is always followed by 00 or a restart marker, so an end marker there is the real one.
    # Decoders fill what is missing with grey and say nothing to their caller: this is how we know.
    complete = data.rfind(b"\xff\xd9", position) >= 0
    return ImageHeader("jpeg", size[0], size[1], orientation or 1, complete)


def _png(view: memoryview) -> ImageHeader:
    if bytes(view[12:16]) != b"IHDR":
        raise InvalidImage("the PNG does not start with a header")
    width, height = struct.unpack_from(">II", view, 16)
    position, orientation, complete = 8, None, False
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(view):
            break
        length, kind = _PNG_CHUNK.unpack_from(view, position)
        end = position + 12 + length
        if kind == b"eXIf" and orientation is None:
            orientation = _exif_orientation(view[position + 8 : end - 4])
        if kind == b"IEND":
            complete = end <= len(view)
            break
        position = end
    else:
        raise _too_many("chunks", MAX_CHUNKS)
    return ImageHeader("png", width, height, orientation or 1, complete)


def _webp(view: memoryview) -> ImageHeader:
    (riff_bytes,) = struct.unpack_from("<I", view, 4)
    complete = len(view) >= riff_bytes + 8
    position, orientation, size = 12, None, None
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(view):
            break
        kind, length = _WEBP_CHUNK.unpack_from(view, position)
        body = position + 8
        if size is None and kind == b"VP8X":
            size = tuple(int.from_bytes(view[at : at + 3], "little") + 1 for at in (body + 4, body + 7))
            _ = view[body + 9]
        elif size is None and kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", view, body + 6)
            size = (width & 0x3FFF, height & 0x3FFF)
        elif size is None and kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", view, body + 1)
            size = ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        elif kind == b"EXIF" and orientation is None:
            blob = view[body : body + length]
            orientation = _exif_orientation(blob[6:] if bytes(blob[:6]) == b"Exif\0\0" else blob)
        position = body + length + (length & 1)
    else:
        raise _too_many("chunks", MAX_CHUNKS)
    if size is None:
        raise InvalidImage("the WebP holds no picture")
    return ImageHeader("webp", size[0], size[1], orientation or 1, complete)


def _bmp(view: memoryview) -> ImageHeader:
    (pixels_at, header_bytes) = struct.unpack_from("<II", view, 10)
    if header_bytes == 12:  # OS/2
        width, height = struct.unpack_from("<HH", view, 18)
        (bits,) = struct.unpack_from("<H", view, 24)
        compression = 0
    else:
        width, height = struct.unpack_from("<ii", view, 18)
        bits, compression = struct.unpack_from("<HI", view, 28)
    height = abs(height)  # negative: stored from the top
    row_bytes = (width * bits + 31) // 32 * 4
    complete = compression in (1, 2, 4, 5) or len(view) >= pixels_at + row_bytes * height
    return ImageHeader("bmp", max(width, 0), height, 1, complete)


def _tiff(view: memoryview) -> ImageHeader:
    tags = _tiff_tags(view)
    tile = [tags[tag] for tag in (_TAG_TILE_WIDTH, _TAG_TILE_HEIGHT) if tag in tags]
    if tile and (len(tile) < 2 or 0 in tile):
        raise InvalidImage("the TIFF gives no size of its tiles")
    return ImageHeader(
        "tiff",
        tags.get(_TAG_WIDTH, 0),
        tags.get(_TAG_HEIGHT, 0),
        tags.get(_TAG_ORIENTATION, 1),
        tile_px=math.prod(tile) if tile else 0,
    )


def _tiff_tags(view: memoryview) -> dict[int, int]:
    """The whole numbers of the first directory; EXIF is a TIFF without pixels, so both come through here.

    Of a tag that stands twice the first entry counts, as it does for libtiff and Pillow. 0 where it is no whole number.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}[bytes(view[:4])]
    (directory,) = struct.unpack_from(f"{order}I", view, 4)
    (count,) = struct.unpack_from(f"{order}H", view, directory)
    if count > _MAX_TIFF_ENTRIES:  # nothing that decoders read may stand where this does not look
        raise _too_many("entries", _MAX_TIFF_ENTRIES)
    tags: dict[int, int] = {}
    for index in range(count):
        at = directory + 2 + 12 * index
        tag, kind, values = struct.unpack_from(f"{order}HHI", view, at)
        if tag not in tags:
            form = {_TIFF_SHORT: "H", _TIFF_LONG: "I"}.get(kind) if values == 1 else None
            tags[tag] = struct.unpack_from(order + form, view, at + 8)[0] if form else 0
    return tags


def _exif_orientation(blob: memoryview) -> int:
    """Orientation, or 1: damaged EXIF is common, and no reason to refuse a picture."""
    try:
        return _tiff_tags(blob).get(_TAG_ORIENTATION, 1)
    except (struct.error, KeyError, InvalidImage):
        return 1


def _too_many(parts: str, most: int) -> InvalidImage:
    return InvalidImage(f"the image file has more than {most} {parts}")
