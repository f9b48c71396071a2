"""Boxes that are turned: which of them are one and the same, and how they are told."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sluiceway_detection.types import RotatedBox

__all__ = ["STEEPEST_DEGREES", "hulls", "shapes_of", "suppress_rotated"]

FloatArray = npt.NDArray[np.float32]

# As of lines that a DB model finds: what climbs more is higher than wide.
STEEPEST_DEGREES = 60.0
_BLOCK = 256  # candidates compared at once
_SMALLEST = 1e-9  # keeps boxes without area from dividing by zero


def suppress_rotated(
    boxes: FloatArray, class_ids: npt.NDArray[np.int32], iou: float, at_most: int
) -> npt.NDArray[np.intp]:
    """Leave out what a more confident box of its class covers.

    How much two boxes have in common is that of two normal distributions, one for each box (ProbIoU, Llerena et al.
    2021), as ultralytics reckons it. As there, what is left out itself still leaves out others, so results are equal.

    Args:
        boxes: [N, 5], centre x, centre y, width, height, radians, by falling confidence.
        class_ids: [N]; boxes of different classes leave each other alone.
        iou: what two boxes may have in common.
        at_most: stop after so many.

    Returns:
        Rows that are kept, ascending.
    """
    kept = np.empty(0, np.intp)
    exact = boxes.astype(np.float64)
    for start in range(0, len(boxes), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(boxes)))
        alive = np.ones(len(block), np.bool_)
        for first in range(0, start + len(block), _BLOCK):
            before = np.arange(first, min(first + _BLOCK, start + len(block)))
            covers = (_common(exact[before], exact[block]) > iou) & (class_ids[before, None] == class_ids[block])
            alive &= ~(covers & (before[:, None] < block)).any(axis=0)
        kept = np.concatenate((kept, block[alive]))
        if len(kept) >= at_most:
            break
    return kept[:at_most]


def _common(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[len(a), len(b)]: 1 less the Hellinger distance of the boxes' distributions."""
    ax, ay, axy = (part[:, None] for part in _covariances(a))
    bx, by, bxy = _covariances(b)
    x, y, xy = ax + bx, ay + by, axy + bxy
    across, down = a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1]
    both = np.maximum(x * y - xy * xy, _SMALLEST)
    apart = (x * down**2 + y * across**2 - 2 * xy * across * down) / (4 * both)
    alone = np.maximum(ax * ay - axy * axy, 0) * np.maximum(bx * by - bxy * bxy, 0)
    unlike = np.log(both / (4 * np.sqrt(alone) + _SMALLEST) + _SMALLEST) / 2
    distance = np.clip(apart + unlike, 0, 100)
    return np.asarray(1 - np.sqrt(1 - np.exp(-distance)))


def _covariances(boxes: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
    """Variance along x, along y, and covariance of a point within each box."""
    along, down = boxes[:, 2] ** 2 / 12, boxes[:, 3] ** 2 / 12
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    return along * cos**2 + down * sin**2, along * sin**2 + down * cos**2, (along - down) * cos * sin


def hulls(boxes: FloatArray) -> FloatArray:
    """The upright boxes [N, 4] around turned ones [N, 5]: left, top, right, bottom."""
    cos, sin = np.abs(np.cos(boxes[:, 4])), np.abs(np.sin(boxes[:, 4]))
    half_width = (boxes[:, 2] * cos + boxes[:, 3] * sin) / 2
    half_height = (boxes[:, 2] * sin + boxes[:, 3] * cos) / 2
    x, y = boxes[:, 0], boxes[:, 1]
    return np.stack((x - half_width, y - half_height, x + half_width, y + half_height), axis=1)


def shapes_of(boxes: FloatArray) -> list[RotatedBox]:
    """Turned boxes [N, 5] as they are told: the longer side is the width, unless it climbs by more than 60 degrees."""
    shapes = []
    for x, y, width, height, radians in boxes.astype(np.float64).tolist():
        degrees = np.degrees(radians) + (90 if height > width else 0)
        long, short = max(width, height), min(width, height)
        degrees = (degrees + 90) % 180 - 90
        if abs(degrees) <= STEEPEST_DEGREES:
            shapes.append(RotatedBox((x, y), long, short, float(degrees)))
        else:
            shapes.append(RotatedBox((x, y), short, long, float(degrees - np.copysign(90, degrees))))
    return shapes
