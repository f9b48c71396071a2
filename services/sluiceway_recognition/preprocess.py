"""From what a client sent to what a model is called with: uint8 pixels of the spec's height, at their exact width.

Normalising and padding are not here: backends do both beside the model, because the padding has to be zeros *after*
normalising (black pixels before it would be read as ink).
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile
from sluiceway_runtime.errors import ImageTooLarge, InvalidImage

from sluiceway_recognition.buckets import fitted_size
from sluiceway_recognition.types import CropSpec, CropTask, PixelFormat, ResizeRule

__all__ = ["CropLimits", "decode_file", "pixels_of", "to_spec"]

# The contract's list; Pillow would try several dozen formats, some with a history of faults.
_FILE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# EXIF orientation 2..8 (TIFF 6.0, tag 274). Not `ImageOps.exif_transpose`, which writes all the other tags anew and
# fails where one of them is odd.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Scans of a JPEG. A progressive one has about ten; each is a pass over all pixels, and an empty one takes ten bytes.
_MAX_SCANS = 200
_SCAN = b"\xff\xda\0"
_CONVERSIONS = {
    (PixelFormat.BGR, PixelFormat.RGB): cv2.COLOR_BGR2RGB,
    (PixelFormat.RGB, PixelFormat.BGR): cv2.COLOR_RGB2BGR,
    (PixelFormat.GRAY, PixelFormat.BGR): cv2.COLOR_GRAY2BGR,
    (PixelFormat.GRAY, PixelFormat.RGB): cv2.COLOR_GRAY2RGB,
}


@dataclass(frozen=True, slots=True)
class CropLimits:
    """Bounds of one crop as it comes in.

    Attributes:
        max_px: most pixels.
        max_file_bytes: largest image file.
    """

    max_px: int
    max_file_bytes: int


def decode_file(data: bytes | bytearray | memoryview, limits: CropLimits) -> NDArray[np.uint8]:
    """Decode one image file.

    Args:
        data: the file.
        limits: checked against its length and its header, before any pixel is decoded.

    Returns:
        uint8 [H, W, 3], RGB, upright by its EXIF orientation; what was transparent is white.

    Raises:
        InvalidImage: no image, damaged, or of a format that is not read.
        ImageTooLarge: above the limits.
    """
    if len(data) > limits.max_file_bytes:
        raise ImageTooLarge(
            "the crop's file is too large", metadata={"max_bytes": str(limits.max_file_bytes), "bytes": str(len(data))}
        )
    try:
        with warnings.catch_warnings():
            # Our own limit follows; Pillow's would only print.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FILE_FORMATS)
        tile_px = _tile_px(image)
    except Image.DecompressionBombError as error:
        raise ImageTooLarge("the crop has too many pixels", metadata={"max_px": str(limits.max_px)}) from error
    except Exception as error:  # Pillow's readers raise whatever their parsing runs into
        raise InvalidImage("the crop is no JPEG, PNG, WebP, BMP or TIFF file") from error
    with image:
        if image.width * image.height > limits.max_px:
            raise ImageTooLarge(
                f"the crop has {image.width} x {image.height} pixels", metadata={"max_px": str(limits.max_px)}
            )
        if tile_px > limits.max_px:
            raise ImageTooLarge(
                f"the crop's TIFF has tiles of {tile_px} pixels", metadata={"max_px": str(limits.max_px)}
            )
        if isinstance(image, JpegImageFile) and bytes(data).count(_SCAN) > _MAX_SCANS:
            raise InvalidImage(f"the crop's JPEG has more than {_MAX_SCANS} scans")
        try:
            return _upright_rgb(image)
        except Exception as error:  # likewise
            raise InvalidImage("the crop's file is damaged") from error


def _tile_px(image: Image.Image) -> int:
    """Pixels of each tile of a TIFF, which is decoded as a whole however small the picture; 0 without tiles."""
    if not isinstance(image, TiffImageFile) or TILEWIDTH not in image.tag_v2:
        return 0
    return int(image.tag_v2[TILEWIDTH]) * int(image.tag_v2[TILELENGTH])


def _upright_rgb(image: Image.Image) -> NDArray[np.uint8]:
    image.load()
    turn = _TURNS.get(_orientation(image))
    upright = image if turn is None else image.transpose(turn)
    if upright.mode.startswith("I;16"):  # Pillow would cut values off at 255 where all of them count
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        paper = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(paper, upright)
    return np.asarray(upright.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    """Orientation, or 1: damaged EXIF is common, and no reason to refuse a picture."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's readers raise whatever their parsing runs into
        return 1


def pixels_of(task: CropTask, data: Any, spec: CropSpec, limits: CropLimits) -> NDArray[np.uint8]:
    """The array that a recogniser is called with.

    Args:
        task: says what the bytes are.
        data: raw pixels without row padding, or an image file; bytes-like.
        spec: of the recogniser.
        limits: of one crop.

    Returns:
        uint8 [H, W, 3] as `spec` says, C-contiguous. It may be a view of `data`, and read-only.

    Raises:
        InvalidImage: the length of the data is no number of columns of that height, or see `decode_file`.
        ImageTooLarge: see `decode_file`.
    """
    height, pixel_format = task.height, task.format
    if pixel_format is None:
        return to_spec(decode_file(data, limits), PixelFormat.RGB, spec)
    size, channels = len(data), pixel_format.channels
    width, rest = divmod(size, height * channels) if height > 0 else (0, size)
    if width < 1 or rest:
        raise InvalidImage(f"{size} bytes are not {height} rows of {channels} bytes a pixel")
    if (
        height == spec.height
        and pixel_format is spec.format
        and (width == spec.max_width or (width < spec.max_width and spec.resize_rule is ResizeRule.FIT_HEIGHT))
    ):
        # What a detection server sends: nothing is to be done.
        return np.ndarray((height, width, 3), np.uint8, data)
    pixels = np.frombuffer(data, dtype=np.uint8)
    return to_spec(pixels.reshape((height, width, 3) if channels == 3 else (height, width)), pixel_format, spec)


def to_spec(pixels: NDArray[np.uint8], pixel_format: PixelFormat, spec: CropSpec) -> NDArray[np.uint8]:
    """Resize and reorder channels where that is needed.

    Args:
        pixels: uint8 [H, W, 3], or [H, W] if gray; at least 1 x 1.
        pixel_format: of `pixels`.
        spec: of the recogniser.

    Returns:
        uint8 [spec.height, W, 3] in `spec.format`; the array itself if it fits already.
    """
    height, width = pixels.shape[:2]
    target = fitted_size(height, width, spec)
    if target != (height, width):
        # Averaging where rows or columns are dropped, so that thin strokes survive; else linear, as PP-OCR was trained.
        shrinks = target[0] * 2 <= height or target[1] * 2 <= width
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        pixels = np.asarray(cv2.resize(pixels, (target[1], target[0]), interpolation=method), dtype=np.uint8)
    conversion = _CONVERSIONS.get((pixel_format, spec.format))
    if conversion is not None:
        pixels = np.asarray(cv2.cvtColor(pixels, conversion), dtype=np.uint8)
    return pixels
