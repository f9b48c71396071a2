"""From what a client sent to what a model is called with: uint8 pixels of the spec's height, at their exact width.

Normalising and padding are not here: backends do both beside the model, because the padding has to be zeros *after*
normalising (black pixels before it would be read as ink).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.images.decode import decode_image
from sluiceway_runtime.images.limits import ImageLimits

from sluiceway_recognition.inputs.buckets import fitted_size, turns
from sluiceway_recognition.types import CropSpec, CropTask, PixelFormat, ResizeRule

__all__ = ["Fitted", "pixels_of", "to_spec"]

_CONVERSIONS = {
    (PixelFormat.BGR, PixelFormat.RGB): cv2.COLOR_BGR2RGB,
    (PixelFormat.RGB, PixelFormat.BGR): cv2.COLOR_RGB2BGR,
    (PixelFormat.GRAY, PixelFormat.BGR): cv2.COLOR_GRAY2BGR,
    (PixelFormat.GRAY, PixelFormat.RGB): cv2.COLOR_GRAY2RGB,
}


class Fitted(NamedTuple):
    """A crop as a recogniser is called with it.

    Attributes:
        pixels: uint8 [H, W, 3] as the spec says, C-contiguous. It may be a view of what came, and read-only.
        turned: whether it was turned here, anticlockwise by 90 degrees.
    """

    pixels: NDArray[np.uint8]
    turned: bool = False


def pixels_of(task: CropTask, data: Any, spec: CropSpec, limits: ImageLimits) -> Fitted:
    """The array that a recogniser is called with.

    Args:
        task: says what the bytes are.
        data: raw pixels without row padding, or an image file; bytes-like.
        spec: of the recogniser.
        limits: of an image file.

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
        return Fitted(np.ndarray((height, width, 3), np.uint8, data))
    pixels = np.frombuffer(data, dtype=np.uint8)
    pixels = pixels.reshape((height, width, 3) if channels == 3 else (height, width))
    return to_spec(pixels, pixel_format, spec, may_turn=not task.rotation_degrees)


def to_spec(pixels: NDArray[np.uint8], pixel_format: PixelFormat, spec: CropSpec, *, may_turn: bool = True) -> Fitted:
    """Turn, resize and reorder channels where that is needed.

    Args:
        pixels: uint8 [H, W, 3], or [H, W] if gray; at least 1 x 1.
        pixel_format: of `pixels`.
        spec: of the recogniser.
        may_turn: whether it is as it was cut; what was turned already is not turned again.
    """
    height, width = pixels.shape[:2]
    turned = may_turn and turns(height, width, spec)
    if turned:
        pixels = np.asarray(cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE), dtype=np.uint8)
        height, width = width, height
    target = fitted_size(height, width, spec)
    if spec.resize_rule is ResizeRule.COVER:
        pixels = _middle(pixels, target[1] / target[0])
        height, width = pixels.shape[:2]
    if target != (height, width):
        # Averaging where rows or columns are dropped, so that thin strokes survive; else linear, as PP-OCR was trained.
        shrinks = target[0] * 2 <= height or target[1] * 2 <= width
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        pixels = np.asarray(cv2.resize(pixels, (target[1], target[0]), interpolation=method), dtype=np.uint8)
    conversion = _CONVERSIONS.get((pixel_format, spec.format))
    if conversion is not None:
        pixels = np.asarray(cv2.cvtColor(pixels, conversion), dtype=np.uint8)
    return Fitted(pixels, turned)


def _middle(pixels: NDArray[np.uint8], aspect: float) -> NDArray[np.uint8]:
    """The largest part in the middle whose width is so many times its height, to a pixel; a view."""
    height, width = pixels.shape[:2]
    kept_width, kept_height = max(1, min(width, round(height * aspect))), max(1, min(height, round(width / aspect)))
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    return pixels[top : top + kept_height, left : left + kept_width]
