"""What files are accepted, judged by their headers before anything is decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sluiceway_runtime.errors import ImageTooLarge, InvalidImage
from sluiceway_runtime.images.facts import Format
from sluiceway_runtime.images.header import ImageHeader, read_header

__all__ = ["DEFAULT_MAX_BYTES", "DEFAULT_MAX_PIXELS", "ImageLimits", "check_header", "check_image", "check_size"]

DEFAULT_MAX_BYTES = 32 * 2**20
DEFAULT_MAX_PIXELS = 100_000_000  # 300 MB decoded; the largest photographs of today's telephones have 200 million
# A decoder of these holds so many times the memory for a pixel that others do (OpenJPEG: four bytes a channel, twice).
HEAVY: Mapping[Format, int] = {"jpeg2000": 4}


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is accepted.

    Attributes:
        max_bytes: of a file.
        max_pixels: width x height.
        keys: how the stage's configuration calls the two; errors name them.
    """

    max_bytes: int = DEFAULT_MAX_BYTES
    max_pixels: int = DEFAULT_MAX_PIXELS
    keys: tuple[str, str] = ("max_image_bytes", "max_image_pixels")


def check_size(data: bytes | memoryview, limits: ImageLimits) -> None:
    """Judge a file by its length alone.

    Raises:
        ImageTooLarge: more bytes than allowed; `metadata` names the limit.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"the image file has {len(data)} bytes; at most {limits.max_bytes} are accepted",
            metadata={"limit": limits.keys[0], "max": str(limits.max_bytes)},
        )


def check_image(data: bytes | memoryview, limits: ImageLimits) -> ImageHeader:
    """Judge a file by its header.

    Raises:
        InvalidImage: empty, of no known format, or cut off.
        ImageTooLarge: more bytes or pixels than allowed; `metadata` names the limit.
    """
    check_size(data, limits)
    header = read_header(data)
    check_header(header, limits)
    return header


def check_header(header: ImageHeader, limits: ImageLimits) -> None:
    """Judge a picture by its header alone.

    Raises:
        InvalidImage: cut off.
        ImageTooLarge: more pixels than allowed; `metadata` names the limit.
    """
    metadata = {"limit": limits.keys[1], "max": str(limits.max_pixels)}
    most = limits.max_pixels // HEAVY.get(header.format, 1)
    if header.width_px * header.height_px > most:
        kind = " of this kind" if header.format in HEAVY else ""
        raise ImageTooLarge(
            f"the image has {header.width_px} x {header.height_px} pixels; at most {most}{kind} are accepted",
            metadata={**metadata, "max": str(most)},
        )
    if header.tile_px > limits.max_pixels:
        raise ImageTooLarge(
            f"the TIFF's tiles have {header.tile_px} pixels; at most {limits.max_pixels} are accepted",
            metadata=metadata,
        )
    if not header.complete:
        raise InvalidImage("the image file is cut off")
