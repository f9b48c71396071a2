"""An image shown in parts to a DB model, whose maps become one map of all of it.

Maps are joined before they are read, so a line that crosses from one part into the next is one core there, and is
neither cut nor found twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from sluiceway_detection.db.regions import Map
from sluiceway_detection.inputs.parts import Parts

__all__ = ["joined_map"]

# Of a map whose numbers are bytes.
_FULL = 255


def joined_map(parts: Parts, outputs: Sequence[Map], base: Map | None = None) -> npt.NDArray[np.uint8]:
    """The map of a scaled image.

    Args:
        parts: that were shown.
        outputs: [1, h, w] of each, in order: from 0 to 1, where what is no number counts as no text; or uint8 from 0
            to 255.
        base: likewise a map [h, w] of all of the image at another scale, which holds where no part decides.

    Returns:
        uint8 [1, H, W] from 0 to 255: a map of many inputs is large, and nothing is decided by less than a part in 255.
    """
    height, width = parts.letterbox.content_shape
    map_ = np.zeros((height, width), np.uint8)
    if base is not None:
        cv2.resize(_bytes(base), (width, height), dst=map_, interpolation=cv2.INTER_LINEAR)
    for part, output in zip(parts, outputs, strict=True):
        left, top, right, bottom = part.own
        map_[top:bottom, left:right] = _bytes(
            output[0, top - part.top : bottom - part.top, left - part.left : right - part.left]
        )
    return map_[None]


def _bytes(part: Map) -> npt.NDArray[np.uint8]:
    if part.dtype == np.uint8:
        return np.asarray(part, np.uint8)
    # A conversion of OpenCV's saturates, and makes 0 of what is no number.
    return np.asarray(cv2.convertScaleAbs(np.asarray(part, np.float32), alpha=_FULL), np.uint8)
