"""Headers of files that are made of boxes (ISO/IEC 14496-12), AVIF and HEIC; and of JPEG 2000, with boxes or not."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.images.facts import MAX_CHUNKS, Format, ImageHeader, too_many

__all__ = ["read_jpeg2000", "read_still"]

# Ours; a picture has dozens of properties, and one of a grid some more.
_MAX_BOXES = 4096
# Orientation 6 in place of any that lays a picture on its side: which it is says the decoder.
_ON_ITS_SIDE = 6
# A box that reaches to the end of the file, and one whose length stands in eight bytes behind its name.
_TO_THE_END, _LONG = 0, 1
# Version of the descriptions of items.
_LAST_OF_SHORT_NUMBERS = 2

_START, _SIZ, _COD, _COC, _SOT, _SOD, _END = 0xFF4F, 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_MAX_COMPONENTS = 4
# OpenJPEG takes 9 kB for each tile before it decodes any, and some hundred bytes for each precinct.
_MAX_TILES = 4096
_LEAST_PRECINCT_BITS = 4


class _Box(NamedTuple):
    kind: bytes
    body: memoryview


def _boxes(view: memoryview) -> Iterator[_Box]:
    position = 0
    for _ in range(_MAX_BOXES):
        if position + 8 > len(view):
            return
        size, kind = struct.unpack_from(">I4s", view, position)
        body = position + 8
        if size == _LONG:
            (size,) = struct.unpack_from(">Q", view, body)
            body += 8
        end = len(view) if size == _TO_THE_END else position + size
        if end < body:
            raise InvalidImage("a box of the image file has no sound size")
        yield _Box(kind, view[body:end])
        position = end
    raise too_many("boxes", _MAX_BOXES)


def _inner(view: memoryview, kind: bytes) -> memoryview:
    found = next((box.body for box in _boxes(view) if box.kind == kind), None)
    if found is None:
        raise InvalidImage(f"the image file has no box {kind.decode()}")
    return found


def read_still(view: memoryview, kind: Format) -> ImageHeader:
    """The header of the primary picture of an AVIF or HEIC file.

    Raises:
        InvalidImage, struct.error, IndexError: there is none, or it is cut off.
    """
    meta = _inner(view, b"meta")[4:]
    if kind == "heif":
        _check_items(meta)
    primary = _inner(meta, b"pitm")
    (item,) = struct.unpack_from(">I" if primary[0] else ">H", primary, 4)
    properties = _inner(meta, b"iprp")
    every = [*_boxes(_inner(properties, b"ipco"))]
    width = height = 0
    turned = False
    for index in _associated(_inner(properties, b"ipma"), item):
        if not 0 < index <= len(every):
            continue
        name, body = every[index - 1]
        if name == b"ispe":
            width, height = struct.unpack_from(">II", body, 4)
        elif name == b"irot":
            turned = bool(body[0] & 1)
    return ImageHeader(kind, width, height, _ON_ITS_SIDE if turned else 1)


def _check_items(meta: memoryview) -> None:
    """Refuse items whose kind is no text: pi_heif 1.4 ends the process on them (its pull request 478)."""
    items = _inner(meta, b"iinf")
    for box in _boxes(items[8:] if items[0] else items[6:]):
        # The kind stands behind the number of the item, which has four bytes from version 3 on; behind it the name, and
        # what the bytes of a `mime` item are.
        at = 10 if box.body[0] > _LAST_OF_SHORT_NUMBERS else 8
        kind, rest = bytes(box.body[at : at + 4]), bytes(box.body[at + 4 :])
        content = rest.split(b"\0")[1:2] if kind == b"mime" else []
        if box.kind == b"infe" and not all(word.isascii() for word in (kind, *content)):
            raise InvalidImage("the kind of an item of the image file is no text")


def _associated(view: memoryview, item: int) -> list[int]:
    """Numbers from 1 of the properties of an item."""
    (head, count) = struct.unpack_from(">II", view, 0)
    id_form, wide = ">I" if head >> 24 else ">H", bool(head & 1)
    position = 8
    for _ in range(min(count, _MAX_BOXES)):
        (its,) = struct.unpack_from(id_form, view, position)
        position += struct.calcsize(id_form)
        entries = view[position]
        position += 1
        if its == item:
            form, mask = (f">{entries}H", 0x7FFF) if wide else (f">{entries}B", 0x7F)
            return [entry & mask for entry in struct.unpack_from(form, view, position)]
        position += entries * (2 if wide else 1)
    return []


def read_jpeg2000(view: memoryview) -> ImageHeader:
    """The header of a JPEG 2000 file or code stream, by its code stream alone: that is what is decoded.

    Raises:
        InvalidImage, struct.error: there is none, it is cut off, or takes more memory than its pixels account for.
    """
    stream = view if view[0] == _START >> 8 else _inner(view, b"jp2c")
    (start, siz) = struct.unpack_from(">HH", stream, 0)
    if (start, siz) != (_START, _SIZ):
        raise InvalidImage("the JPEG 2000 file holds no picture")
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, components = struct.unpack_from(
        ">8IH", stream, 8
    )
    width, height = right - left, bottom - top
    if width < 1 or height < 1 or not tile_width or not tile_height:
        return ImageHeader("jpeg2000", 0, 0)
    if components > _MAX_COMPONENTS:
        raise InvalidImage(f"the JPEG 2000 file has {components} channels; at most {_MAX_COMPONENTS} are read")
    tiles = math.ceil((right - tile_left) / tile_width) * math.ceil((bottom - tile_top) / tile_height)
    if tiles > _MAX_TILES:
        raise InvalidImage(f"the JPEG 2000 file has {tiles} tiles; at most {_MAX_TILES} are read")
    complete = _walk_code_stream(stream)
    return ImageHeader("jpeg2000", width, height, complete=complete)


def _walk_code_stream(stream: memoryview) -> bool:
    """Look at each marker before the data of each tile; says whether the end is there."""
    position, part_end = 2, 0
    for _ in range(MAX_CHUNKS):
        if position + 2 > len(stream):
            return False
        (marker,) = struct.unpack_from(">H", stream, position)
        if marker == _END:
            return True
        if marker == _SOD:
            # A part of no length reaches to the end of the file.
            if part_end == 0:
                return bytes(stream[-2:]) == b"\xff\xd9"
            position = max(part_end, position + 2)
            continue
        (length,) = struct.unpack_from(">H", stream, position + 2)
        if marker == _SOT:
            (part_bytes,) = struct.unpack_from(">I", stream, position + 6)
            part_end = position + part_bytes if part_bytes else 0
        elif marker in (_COD, _COC):
            # The style; then, of all channels, four bytes about them. Of one channel, its number stands before it.
            style_at = position + (4 if marker == _COD else 5)
            levels_at = style_at + (5 if marker == _COD else 1)
            if stream[style_at] & 1:
                sizes = stream[levels_at + 5 : levels_at + 6 + stream[levels_at]]
                # The smallest level may be as small as it likes: it has next to no pixels.
                if any(min(size & 15, size >> 4) < _LEAST_PRECINCT_BITS for size in sizes[1:]):
                    raise InvalidImage("the JPEG 2000 file is cut into too small precincts")
        position += 2 + max(length, 2)
    raise too_many("markers", MAX_CHUNKS)
