"""What is known of an image file from its header."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sluiceway_runtime.errors import InvalidImage

__all__ = ["MAX_CHUNKS", "Format", "ImageHeader", "too_many"]

Format = Literal["jpeg", "png", "webp", "bmp", "tiff", "gif", "avif", "jpeg2000", "heif"]

# Ours, and more than real files have; each is a microsecond. So many chunks of 8 KiB, the smallest that libpng makes by
# itself, are 512 MiB.
MAX_CHUNKS = 65_536  # of a PNG, WebP or GIF


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
        alpha: whether pixels may be transparent; said of PNG, WebP and BMP alone.
        unended: a JPEG without its end marker. Whether pixels are missing is known when it is decoded.
        frame: of a TIFF, position of the first picture that is not a thumbnail or mask.
    """

    format: Format
    width_px: int
    height_px: int
    orientation: int = 1
    complete: bool = True
    tile_px: int = 0
    alpha: bool = False
    unended: bool = False
    frame: int = 0


def too_many(parts: str, most: int) -> InvalidImage:
    """The error for a file of more parts than are looked at."""
    return InvalidImage(f"the image file has more than {most} {parts}")
