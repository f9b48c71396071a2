"""From what a client sent to what a model is called with: uint8 pixels of the spec's height, at their exact width.

Normalising and padding are not here: backends do both beside the model, because the padding has to be zeros *after*
normalising (black pixels before it would be read as ink).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.images.decode import decode_image
from sluiceway_runtime.images.limits import ImageLimits

from sluiceway_recognition.buckets import fitted_size
from sluiceway_recognition.types import CropSpec, CropTask, PixelFormat, ResizeRule

__all__ = ["pixels_of", "to_spec"]

_CONVERSIONS = {
    (PixelFormat.BGR, PixelFormat.RGB): cv2.COLOR_BGR2RGB,
    (PixelFormat.RGB, PixelFormat.BGR): cv2.COLOR_RGB2BGR,
    (PixelFormat.GRAY, PixelFormat.BGR): cv2.COLOR_GRAY2BGR,
    (PixelFormat.GRAY, PixelFormat.RGB): cv2.COLOR_GRAY2RGB,
}


def pixels_of(task: CropTask, data: Any, spec: CropSpec, limits: ImageLimits) -> NDArray[np.uint8]:
    """The array that a recogniser is called with.

    Args:
        task: says what the bytes are.
        data: raw pixels without row padding, or an image file; bytes-like.
        spec: of the recogniser.
        limits: of an image file.

    Returns:
        uint8 [H, W, 3] as `spec` says, C-contiguous. It may be a view of `data`, and read-only.

    Raises:
        InvalidImage: the length of the data is no number of columns of that height, or see `decode_image`.
        ImageTooLarge: see `decode_image`.
    """
    height, pixel_format = task.height, task.format
    if pixel_format is None:
        return to_spec(decode_image(data, limits), PixelFormat.BGR, spec)
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
