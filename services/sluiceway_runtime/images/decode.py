"""From the bytes of an image file to pixels."""

from __future__ import annotations

import io
import warnings

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.images.limits import ImageLimits, check_image

__all__ = ["MAX_SCANS", "decode_image"]

# Orientation is ours (`header`), because which formats OpenCV turns depends on its version. Except for TIFF: there
# both libraries turn while they read, and the flag stops OpenCV only halfway.
_READ_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_READ_FLAGS_TIFF = cv2.IMREAD_COLOR
# The chunk that makes a PNG an animation. OpenCV 5.0 composes frames by what they say of their own size before it has
# checked that, and a file of one kilobyte ends the process; so it is shown no animation.
_ANIMATION = b"acTL"
# Scans of a JPEG. A progressive one has about ten. Each is a pass over all pixels, and an empty one takes ten bytes: of
# 100 megapixels, 400 of them took five seconds, and a file of a megabyte kept a worker busy until it was replaced.
MAX_SCANS = 200
_SCAN = b"\xff\xda\0"


def decode_image(data: bytes | memoryview, limits: ImageLimits) -> NDArray[np.uint8]:
    """Decode one image: any depth to 8 bits, grey and CMYK to BGR, alpha dropped, the first of several frames.

    Args:
        data: a JPEG, PNG, WebP, BMP or TIFF file.
        limits: what is accepted.

    Returns:
        uint8 [H, W, 3] BGR, contiguous, EXIF orientation applied, owned by the caller.

    Raises:
        InvalidImage: unreadable or cut off.
        ImageTooLarge: over a limit.
    """
    header = check_image(data, limits)
    if header.format == "jpeg" and bytes(data).count(_SCAN) > MAX_SCANS:
        raise InvalidImage(f"the JPEG has more than {MAX_SCANS} scans")
    turned = header.format == "tiff"
    size = (header.height_px, header.width_px)
    if turned and header.orientation >= 5:
        size = size[::-1]
    pixels = None
    if not (header.format == "png" and _ANIMATION in bytes(data)):
        pixels = _opencv(data, _READ_FLAGS_TIFF if turned else _READ_FLAGS)
    if pixels is None or pixels.shape[:2] != size:
        # Pillow reads some kinds that OpenCV does not.
        pixels = _pillow(data, header.format, size)
        if pixels is None or pixels.shape[:2] != size:
            raise InvalidImage("the image is not of the size that its header says")
    return pixels if turned else _turn(pixels, header.orientation)


def _opencv(data: bytes | memoryview, flags: int) -> NDArray[np.uint8] | None:
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # also for OpenCV's own size limits (OPENCV_IO_MAX_IMAGE_*)
        return None
    return None if decoded is None else np.asarray(decoded, np.uint8)


def _pillow(data: bytes | memoryview, kind: str, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Decode with Pillow; None, and nothing is decoded, where it finds another height and width in the header."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata and of size, which was checked against our own limit
            with Image.open(io.BytesIO(data), formats=[kind]) as image:
                if sorted(image.size) != sorted(size):  # in either order: releases differ in when they turn a TIFF
                    return None
                if image.mode.startswith("I;16"):  # Pillow would cut values off at 255 where OpenCV scales them
                    return np.ascontiguousarray(np.repeat((np.asarray(image) >> 8).astype(np.uint8)[:, :, None], 3, 2))
                rgb = np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's readers raise whatever their parsing runs into
        raise InvalidImage(f"the {kind.upper()} file is damaged or of an unsupported kind") from error
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Apply EXIF orientation 1..8 (TIFF 6.0, tag 274)."""
    if orientation >= 5:
        pixels = np.asarray(cv2.transpose(pixels), np.uint8)
    # After the transpose of 5..8: 5 is done, 6 mirrors left-right, 7 both, 8 top-bottom.
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    if flip is not None:
        pixels = np.asarray(cv2.flip(pixels, flip), np.uint8)
    return pixels
