"""What files are accepted, judged by their headers before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from sluiceway_runtime.errors import ImageTooLarge, InvalidImage

from sluiceway_detection.image_header import ImageHeader, read_header

__all__ = ["DEFAULT_MAX_BYTES", "DEFAULT_MAX_PIXELS", "ImageLimits", "check_image"]

DEFAULT_MAX_BYTES = 32 * 2**20
DEFAULT_MAX_PIXELS = 100_000_000  # 300 MB decoded; the largest photographs of today's telephones have 200 million


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest file, and the largest width x height, that are accepted."""

    max_bytes: int = DEFAULT_MAX_BYTES
    max_pixels: int = DEFAULT_MAX_PIXELS


def check_image(data: bytes | memoryview, limits: ImageLimits) -> ImageHeader:
    """Judge a file by its header.

    Raises:
        InvalidImage: empty, of no known format, or cut off.
        ImageTooLarge: more bytes or pixels than allowed; `metadata` names the limit.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"the image file has {len(data)} bytes; at most {limits.max_bytes} are accepted",
            metadata={"limit": "max_image_bytes", "max": str(limits.max_bytes)},
        )
    header = read_header(data)
    metadata = {"limit": "max_image_pixels", "max": str(limits.max_pixels)}
    if header.width_px * header.height_px > limits.max_pixels:
        raise ImageTooLarge(
            f"the image has {header.width_px} x {header.height_px} pixels; at most {limits.max_pixels} are accepted",
            metadata=metadata,
        )
    if header.tile_px > limits.max_pixels:
        raise ImageTooLarge(
            f"the TIFF's tiles have {header.tile_px} pixels; at most {limits.max_pixels} are accepted",
            metadata=metadata,
        )
    if not header.complete:
        raise InvalidImage("the image file is cut off")
    return header
