"""Directories of TIFF and BigTIFF files: the pictures in them, and the orientation that EXIF holds in the same form."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.images.facts import ImageHeader, too_many

__all__ = ["MAX_DIRECTORIES", "exif_orientation", "pages_of", "read_tiff"]

_TAG_SUBFILE, _TAG_OLD_SUBFILE = 254, 255
_TAG_WIDTH, _TAG_HEIGHT, _TAG_COMPRESSION, _TAG_ORIENTATION = 256, 257, 259, 274
_TAG_STRIPS, _TAG_SAMPLES, _TAG_ROWS_PER_STRIP, _TAG_PLANES = 273, 277, 278, 284
_TAG_TILE_WIDTH, _TAG_TILE_HEIGHT, _TAG_TILES = 322, 323, 324
_FORMS = {3: "H", 4: "I", 16: "Q"}  # SHORT, LONG and LONG8
# What libtiff decodes as Pillow brings it. Of others its readers may make black.
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32809, 32946, 34925, 50000, 50001})
_FOREIGN = {
    34661: "JBIG",
    34663: "JBIG",
    34676: "SGILog",
    34677: "SGILog",
    34712: "JPEG 2000",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34887: "LERC",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_THUMBNAIL, _MASK, _OLD_THUMBNAIL = 1, 4, 2
# Ours: a directory of real files has dozens of entries, and a file as many directories as pages, thumbnails and layers.
_MAX_ENTRIES = 4096
MAX_DIRECTORIES = 10_000
# In all directories of a file; an entry takes a microsecond on an event loop.
_MAX_ENTRIES_READ = 65_536


class _Layout(NamedTuple):
    """How numbers and directories are stored.

    Attributes:
        order: `<` or `>`.
        big: BigTIFF.
    """

    order: str
    big: bool

    @classmethod
    def of(cls, view: memoryview) -> _Layout:
        """Of a file; KeyError if it is none, InvalidImage if Pillow does not read its kind."""
        order = {b"II": "<", b"MM": ">"}[bytes(view[:2])]
        version = struct.unpack_from(order + "H", view, 2)[0]
        if (order, version) == (">", 43):
            raise InvalidImage("a BigTIFF whose bytes are in Motorola's order (MM) is not read here")
        return cls(order, {42: False, 43: True}[version])

    @property
    def first(self) -> tuple[str, int]:
        """Form and place of the offset of the first directory."""
        return (self.order + "Q", 8) if self.big else (self.order + "I", 4)


class _Directory(NamedTuple):
    """One picture.

    Attributes:
        tags: whole numbers; 0 where an entry is none. Of a tag that stands twice the first entry counts, as it does
            for libtiff and Pillow.
        counts: how many values each tag has.
        next: offset of the next directory, 0 after the last.
    """

    tags: dict[int, int]
    counts: dict[int, int]
    next: int

    @property
    def is_page(self) -> bool:
        """Whether this is a picture for people, and no thumbnail and no mask of one."""
        return (
            not self.tags.get(_TAG_SUBFILE, 0) & (_THUMBNAIL | _MASK)
            and self.tags.get(_TAG_OLD_SUBFILE, 0) != _OLD_THUMBNAIL
        )


def read_tiff(view: memoryview) -> ImageHeader:
    """The header of the first picture that is no thumbnail; of the first of all if there is no other.

    Raises:
        InvalidImage: it cannot be right, or is stored in a way that is not read.
        struct.error: cut off.
    """
    first: _Directory | None = None
    for frame, directory in enumerate(_directories(view)):
        if directory.is_page:
            return _header(directory, frame)
        first = first or directory
    if first is None:
        raise InvalidImage("the TIFF holds no picture")
    return _header(first, 0)


def pages_of(view: memoryview, most: int) -> list[ImageHeader | InvalidImage]:
    """Every page of a file: its header, or why it cannot be read. Thumbnails and masks are no pages.

    Args:
        view: the whole file.
        most: so many are looked for.

    Returns:
        At least one. Where the chain of directories breaks off, that is the last one's error.
    """
    pages: list[ImageHeader | InvalidImage] = []
    first: ImageHeader | InvalidImage | None = None
    try:
        for frame, directory in enumerate(_directories(view)):
            if not directory.is_page and first is not None:
                continue
            try:
                found: ImageHeader | InvalidImage = _header(directory, frame)
            except InvalidImage as error:
                found = error
            first = first or found
            if directory.is_page:
                pages.append(found)
                if len(pages) == most:
                    break
    except (struct.error, InvalidImage):
        pages.append(InvalidImage("the directory of this page is damaged, and those after it cannot be found"))
    return pages or [first or InvalidImage("the TIFF holds no picture")]


def exif_orientation(blob: memoryview) -> int:
    """Orientation, or 1: damaged EXIF is common, and no reason to refuse a picture."""
    try:
        layout = _Layout.of(blob)
        form, at = layout.first
        (offset,) = struct.unpack_from(form, blob, at)
        return _read(blob, layout, offset).tags.get(_TAG_ORIENTATION, 1)
    except (struct.error, KeyError, InvalidImage):
        return 1


def _directories(view: memoryview) -> Iterator[_Directory]:
    """The directories of a file in their order, each once: they may form a circle."""
    layout = _Layout.of(view)
    form, at = layout.first
    (offset,) = struct.unpack_from(form, view, at)
    seen: set[int] = set()
    entries = 0
    while offset and offset not in seen:
        seen.add(offset)
        directory = _read(view, layout, offset)
        entries += len(directory.tags) + 1
        if len(seen) > MAX_DIRECTORIES or entries > _MAX_ENTRIES_READ:
            raise too_many("pictures", MAX_DIRECTORIES)
        yield directory
        offset = directory.next


def _read(view: memoryview, layout: _Layout, offset: int) -> _Directory:
    order, big = layout
    if offset >= len(view):
        raise struct.error("a directory lies behind the end of the file")  # it may be more than an offset can be
    count_form, entry_form, value_at, step = ("Q", "HHQ", 12, 20) if big else ("H", "HHI", 8, 12)
    (count,) = struct.unpack_from(order + count_form, view, offset)
    if count > _MAX_ENTRIES:  # nothing that decoders read may stand where this does not look
        raise too_many("entries", _MAX_ENTRIES)
    start = offset + struct.calcsize(count_form)
    tags: dict[int, int] = {}
    counts: dict[int, int] = {}
    for index in range(count):
        at = start + step * index
        tag, kind, values = struct.unpack_from(order + entry_form, view, at)
        if tag not in tags:
            form = _FORMS.get(kind) if values == 1 else None
            tags[tag] = struct.unpack_from(order + form, view, at + value_at)[0] if form else 0
            counts[tag] = values
    end = start + step * count
    # Files that end right here are common: EXIF is often written without what would follow.
    form = order + ("Q" if big else "I")
    following = struct.unpack_from(form, view, end)[0] if len(view) >= end + struct.calcsize(form) else 0
    return _Directory(tags, counts, following)


def _header(directory: _Directory, frame: int) -> ImageHeader:
    tags = directory.tags
    width, height = tags.get(_TAG_WIDTH, 0), tags.get(_TAG_HEIGHT, 0)
    compression = tags.get(_TAG_COMPRESSION, 1)
    if compression not in _COMPRESSIONS:
        name = _FOREIGN.get(compression, f"number {compression}")
        raise InvalidImage(f"the TIFF is compressed in a way that is not read here ({name})")
    tile = [tags[tag] for tag in (_TAG_TILE_WIDTH, _TAG_TILE_HEIGHT) if tag in tags]
    if tile and (len(tile) < 2 or 0 in tile):
        raise InvalidImage("the TIFF gives no size of its tiles")
    _require_all_parts(directory, width, height, tile)
    return ImageHeader(
        "tiff",
        width,
        height,
        tags.get(_TAG_ORIENTATION, 1),
        tile_px=math.prod(tile) if tile else 0,
        frame=frame,
    )


def _require_all_parts(directory: _Directory, width: int, height: int, tile: list[int]) -> None:
    """Refuse a picture with fewer strips or tiles than its size takes: what is not there would be black."""
    tags = directory.tags
    if width < 1 or height < 1:
        return  # refused for that
    if tile:
        parts = math.ceil(width / tile[0]) * math.ceil(height / tile[1])
        there = max(directory.counts.get(_TAG_TILES, 0), directory.counts.get(_TAG_STRIPS, 0))
    else:
        rows = tags.get(_TAG_ROWS_PER_STRIP, height)
        parts = math.ceil(height / min(rows, height)) if rows else height
        there = directory.counts.get(_TAG_STRIPS, 0)
    if tags.get(_TAG_PLANES, 1) == 2:  # each colour for itself
        parts *= max(1, tags.get(_TAG_SAMPLES, 1))
    if there < parts:
        raise InvalidImage(f"the TIFF has {there} of {parts} strips or tiles")
