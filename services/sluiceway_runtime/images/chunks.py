"""Headers of formats that are chains of chunks: PNG, WebP and GIF."""

from __future__ import annotations

import struct

from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.images.facts import MAX_CHUNKS, ImageHeader, too_many
from sluiceway_runtime.images.tiff import exif_orientation

__all__ = ["read_gif", "read_png", "read_webp"]

_PNG_CHUNK = struct.Struct(">I4s")
_WEBP_CHUNK = struct.Struct("<4sI")
_WEBP_ALPHA = 0x10  # of the flags of VP8X
_WEBP_LOSSLESS_ALPHA = 1 << 28  # of the bits of VP8L
_GIF_EXTENSION, _GIF_PICTURE = 0x21, 0x2C


def read_png(view: memoryview) -> ImageHeader:
    """See `read_header`."""
    if bytes(view[12:16]) != b"IHDR":
        raise InvalidImage("the PNG does not start with a header")
    width, height = struct.unpack_from(">II", view, 16)
    alpha = bool(view[25] & 4)  # the kind of colour: 4 and 6 have it
    position, orientation, complete = 8, None, False
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(view):
            break
        length, kind = _PNG_CHUNK.unpack_from(view, position)
        end = position + 12 + length
        if kind == b"eXIf" and orientation is None:
            orientation = exif_orientation(view[position + 8 : end - 4])
        if kind == b"tRNS":
            alpha = True
        if kind == b"IEND":
            complete = end <= len(view)
            break
        position = end
    else:
        raise too_many("chunks", MAX_CHUNKS)
    return ImageHeader("png", width, height, orientation or 1, complete, alpha=alpha)


def read_webp(view: memoryview) -> ImageHeader:
    """See `read_header`."""
    (riff_bytes,) = struct.unpack_from("<I", view, 4)
    complete = len(view) >= riff_bytes + 8
    position, orientation, size, alpha = 12, None, None, False
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(view):
            break
        kind, length = _WEBP_CHUNK.unpack_from(view, position)
        body = position + 8
        if size is None and kind == b"VP8X":
            size = tuple(int.from_bytes(view[at : at + 3], "little") + 1 for at in (body + 4, body + 7))
            alpha = bool(view[body] & _WEBP_ALPHA)
            _ = view[body + 9]
        elif size is None and kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", view, body + 6)
            size = (width & 0x3FFF, height & 0x3FFF)
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", view, body + 1)
            size = size or ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
            alpha = alpha or bool(bits & _WEBP_LOSSLESS_ALPHA)
        elif kind == b"ALPH":
            alpha = True
        elif kind == b"EXIF" and orientation is None:
            blob = view[body : body + length]
            orientation = exif_orientation(blob[6:] if bytes(blob[:6]) == b"Exif\0\0" else blob)
        position = body + length + (length & 1)
    else:
        raise too_many("chunks", MAX_CHUNKS)
    if size is None:
        raise InvalidImage("the WebP holds no picture")
    return ImageHeader("webp", size[0], size[1], orientation or 1, complete, alpha=alpha)


def read_gif(view: memoryview) -> ImageHeader:
    """See `read_header`. The size is that of the screen, or of what its first picture reaches if that is more."""
    width, height, flags = struct.unpack_from("<HHB", view, 6)
    position = 13 + _gif_colours(flags)
    inside = False
    for _ in range(MAX_CHUNKS):
        if inside:  # an extension is a chain of blocks, which ends with one of no bytes
            inside = view[position] != 0
            position += view[position] + 1
        elif view[position] == _GIF_EXTENSION:
            inside = True
            position += 2
        elif view[position] == _GIF_PICTURE:
            break
        else:
            raise InvalidImage("the GIF holds no picture")
    else:
        raise too_many("chunks", MAX_CHUNKS)
    left, top, columns, rows = struct.unpack_from("<HHHH", view, position + 1)
    if not columns or not rows:
        raise InvalidImage("the first picture of the GIF has no size")
    return ImageHeader("gif", max(width, left + columns), max(height, top + rows))


def _gif_colours(flags: int) -> int:
    """Bytes of the table of colours."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
