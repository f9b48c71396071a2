"""From the masks of a model that segments to outlines.

A mask is a sum of prototypes, a quarter as wide and high as the input, weighted by what the model says of a region.
Where the sum is above 0 is the region, within its box. The outline runs along the edges of pixels of the input, and
is then taken to the image.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from sluiceway_detection.inputs.letterbox import Letterbox
from sluiceway_detection.types import Polygon

__all__ = ["outlines"]

FloatArray = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]

# Cells of the prototypes around a box: what is outside takes part in what is between cells.
_MARGIN = 2
# Of the area of a mask: smaller parts are left out, and so are all but the largest so many.
_LEAST_PART, _MOST_PARTS = 0.001, 64
# Parts of a pixel along each side, in which outlines are found.
_PARTED = 4
# Pixels of the input by which an outline may be smoother than the mask.
_SMOOTH_PX = 0.5


def outlines(
    boxes_xyxy: FloatArray, coefficients: FloatArray, prototypes: npt.NDArray[np.floating], letterbox: Letterbox
) -> list[Polygon | None]:
    """The outline of each region, in pixels of the image; None for one of which nothing is above 0 within its box.

    Of several parts, and of parts with holes, one outline is made: seams without width lead from one to the other.

    Args:
        boxes_xyxy: [N, 4], pixels of the input.
        coefficients: [N, prototypes].
        prototypes: [prototypes, h, w] of one image.
        letterbox: how the image lay in the input.
    """
    height, width = prototypes.shape[1:]
    down, across = letterbox.input_shape[0] / height, letterbox.input_shape[1] / width
    found: list[Polygon | None] = []
    for (x0, y0, x1, y1), weights in zip(boxes_xyxy.tolist(), coefficients, strict=True):
        left, right = max(int(x0 / across) - _MARGIN, 0), min(int(x1 / across) + _MARGIN + 1, width)
        top, bottom = max(int(y0 / down) - _MARGIN, 0), min(int(y1 / down) + _MARGIN + 1, height)
        if left >= right or top >= bottom:
            found.append(None)
            continue
        sums = np.tensordot(weights, prototypes[:, top:bottom, left:right].astype(np.float32), 1)
        size = (round((right - left) * across), round((bottom - top) * down))
        mask = np.asarray(cv2.resize(sums, size, interpolation=cv2.INTER_LINEAR) > 0, np.uint8)
        # Pixels of the input whose left upper corner lies in the box, as ultralytics crops them.
        begin_x, begin_y = left * across, top * down
        mask[: max(int(np.ceil(y0 - begin_y)), 0)] = 0
        mask[max(int(np.ceil(y1 - begin_y)), 0) :] = 0
        mask[:, : max(int(np.ceil(x0 - begin_x)), 0)] = 0
        mask[:, max(int(np.ceil(x1 - begin_x)), 0) :] = 0
        points = _outline(mask)
        found.append(None if points is None else _in_image(points + np.array((begin_x, begin_y)), letterbox))
    return found


def _outline(mask: npt.NDArray[np.uint8]) -> Points | None:
    """Along the edges of pixels, float64 [N, 2]: x, y."""
    # Corners of parts of pixels: those that touch the mask. So the contour runs along its edges, not through its
    # pixels, a gap of one pixel stays one, and little is added where it turns inwards.
    parted = mask.repeat(_PARTED, axis=0).repeat(_PARTED, axis=1)
    height, width = parted.shape
    corners = np.zeros((height + 1, width + 1), np.uint8)
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        corners[y : y + height, x : x + width] |= parted
    contours, _ = cv2.findContours(corners, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    least = _LEAST_PART * np.count_nonzero(parted)
    sized = sorted(((cv2.contourArea(contour), at) for at, contour in enumerate(contours)), reverse=True)
    parts = []
    for area, at in sized[:_MOST_PARTS]:
        smooth = cv2.approxPolyDP(contours[at], _PARTED * _SMOOTH_PX, closed=True).reshape(-1, 2)
        if area >= least and len(smooth) >= 3:
            parts.append(smooth / _PARTED)
    if not parts:
        return None
    whole = parts[0]
    for part in parts[1:]:
        whole = _joined(whole, part)
    # OpenCV goes round anticlockwise as seen on the screen; holes go the other way.
    return np.asarray(whole[::-1], np.float64)


def _joined(whole: Points, part: Points) -> Points:
    """One outline of two, by a seam between their nearest corners."""
    distances = ((whole[:, None] - part[None]) ** 2).sum(axis=2)
    here, there = np.unravel_index(distances.argmin(), distances.shape)
    around = np.concatenate((part[there:], part[: there + 1]))
    return np.concatenate((whole[: here + 1], around, whole[here:]))


def _in_image(points: Points, letterbox: Letterbox) -> Polygon:
    taken = letterbox.points_to_image(points)
    return Polygon(tuple((x, y) for x, y in taken.tolist()))
