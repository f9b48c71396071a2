"""From the bytes of an image file to pixels: the one place where any stage decodes.

Two libraries read. OpenCV is the fast one, and reads what nearly all pictures are: JPEG, and PNG, WebP and BMP that are
not transparent. Pillow reads the rest, because it says what it cannot read: of a TIFF whose strips are damaged OpenCV
makes a black picture.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.images.facts import ImageHeader
from sluiceway_runtime.images.jpeg import check_scans, has_all_scans
from sluiceway_runtime.images.limits import ImageLimits, check_image
from sluiceway_runtime.images.notices import IMAGE_END_MISSING
from sluiceway_runtime.images.pillow import COMES_UPRIGHT, read_with_pillow

__all__ = ["DecodedImage", "decode_checked", "decode_image", "read_image"]

# Orientation is ours (`header`), because which formats OpenCV turns depends on its version.
_READ_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_FAST = frozenset({"jpeg", "png", "webp", "bmp"})
# The chunk that makes a PNG an animation. OpenCV 5.0 composes frames by what they say of their own size before it has
# checked that, and a file of one kilobyte ends the process; so it is shown no animation.
_ANIMATION = b"acTL"
# Two ways in which a JPEG without an end could go on. Bit by bit they differ, so a pixel that is missing differs too;
# and they repeat nothing, so that the one is not the other, some bits later.
_FIRST_ENDING = bytes(1 + byte % 126 for number in range(8) for byte in hashlib.sha256(bytes((number,))).digest())
_ENDINGS = tuple(bytes(byte ^ flipped for byte in _FIRST_ENDING) + b"\xff\xd9" for flipped in (0, 0xFF))


class DecodedImage(NamedTuple):
    """A picture.

    Attributes:
        pixels: uint8 [H, W, 3] BGR, contiguous, EXIF orientation applied, owned by whoever asked.
        notices: reasons, as `sluiceway_runtime.images.notices` explains them.
    """

    pixels: NDArray[np.uint8]
    notices: tuple[str, ...] = ()


def decode_image(data: bytes | memoryview, limits: ImageLimits) -> NDArray[np.uint8]:
    """The pixels of `read_image` alone."""
    return read_image(data, limits).pixels


def read_image(data: bytes | memoryview, limits: ImageLimits) -> DecodedImage:
    """Decode one image: any depth to 8 bits, grey and CMYK to BGR, the first of several frames.

    What is transparent is laid on a ground that contrasts with the rest, see `on_ground`.

    Args:
        data: a file of a format in `signatures.ACCEPTED`.
        limits: what is accepted.

    Raises:
        InvalidImage: unreadable, cut off, or stored in a way that is not read.
        ImageTooLarge: over a limit.
    """
    return decode_checked(data, check_image(data, limits))


def decode_checked(data: bytes | memoryview, header: ImageHeader) -> DecodedImage:
    """`read_image` of a file whose header was judged; of a TIFF, the picture that the header is of."""
    if header.format == "jpeg":
        check_scans(bytes(data))
    if header.unended:
        return DecodedImage(_turn(_without_end(data, header), header.orientation), (IMAGE_END_MISSING,))
    size = (header.height_px, header.width_px)
    pixels = None
    if header.format in _FAST and not header.alpha and not (header.format == "png" and _ANIMATION in bytes(data)):
        pixels = _opencv(data)
    if pixels is None or pixels.shape[:2] != size:
        pixels = read_with_pillow(data, header)
        if header.format in COMES_UPRIGHT:
            return DecodedImage(pixels)
        if pixels.shape[:2] != size:
            raise InvalidImage("the image is not of the size that its header says")
    return DecodedImage(_turn(pixels, header.orientation))


def _opencv(data: bytes | memoryview) -> NDArray[np.uint8] | None:
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), _READ_FLAGS)
    except cv2.error:  # also for OpenCV's own size limits (OPENCV_IO_MAX_IMAGE_*)
        return None
    return None if decoded is None else np.asarray(decoded, np.uint8)


def _without_end(data: bytes | memoryview, header: ImageHeader) -> NDArray[np.uint8]:
    """The pixels of a JPEG without an end marker, if all of them are there.

    Raises:
        InvalidImage: some are not. A decoder fills them up from what follows, so they depend on that.
    """
    # A last FF alone is half of the marker, or of two bytes of data; whatever followed it would be taken for a marker.
    file = bytes(data).rstrip(b"\xff")
    first, second = (read_with_pillow(file + ending, header) for ending in _ENDINGS)
    if not np.array_equal(first, second) or not has_all_scans(file):
        raise InvalidImage("the image file is cut off")
    return first


def _turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Apply EXIF orientation 1..8 (TIFF 6.0, tag 274)."""
    if orientation >= 5:
        pixels = np.asarray(cv2.transpose(pixels), np.uint8)
    # After the transpose of 5..8: 5 is done, 6 mirrors left-right, 7 both, 8 top-bottom.
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    if flip is not None:
        pixels = np.asarray(cv2.flip(pixels, flip), np.uint8)
    return pixels
