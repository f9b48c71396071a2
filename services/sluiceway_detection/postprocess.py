"""From a YOLO head's raw output to boxes: confidence, non-maximum suppression, and the way back to the image.

Two heads exist. The classic one (YOLOv8, 11, 12, and YOLO26 with its one-to-many branch) gives [4 + classes, anchors],
boxes as centre and size, and wants suppression. The NMS-free one (YOLOv10, YOLO26 end to end, or an export with NMS
inside) gives [rows, 6]: x0, y0, x1, y1, confidence, class. Results equal ultralytics' `non_max_suppression`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sluiceway_detection.letterbox import Letterbox
from sluiceway_detection.types import Detections, has_area, usable_rows

__all__ = [
    "DEFAULT_CONFIDENCE",
    "DEFAULT_IOU",
    "Selection",
    "select_classic",
    "select_end_to_end",
    "select_places",
    "suppress",
]

FloatArray = npt.NDArray[np.float32]

# For models that do not say what they were calibrated for; ultralytics predicts with the same.
DEFAULT_CONFIDENCE = 0.25
DEFAULT_IOU = 0.7
# Candidates that enter suppression, the most confident first; ultralytics has the same bound. With a confidence of
# almost 0 every anchor is a candidate, and the cost grows with candidates times regions.
MAX_CANDIDATES = 30_000
_MOST_CLASSES = 2**20  # ours: keeps a mad model's class number within an integer
_BLOCK = 256  # candidates compared at once: the matrices of a block stay inside the cache


class Selection(NamedTuple):
    """Which regions of an output are wanted.

    Attributes:
        confidence: a region must be above it.
        iou: overlap above which the weaker of two regions of one class goes.
        max_detections: at most so many, the most confident.
        class_ids: only these; None keeps all.
    """

    confidence: float = DEFAULT_CONFIDENCE
    iou: float = DEFAULT_IOU
    max_detections: int = 1000
    class_ids: Collection[int] | None = None


def select_classic(output: npt.NDArray[np.floating], letterbox: Letterbox, selection: Selection) -> Detections:
    """Read a classic head.

    Args:
        output: [4 + classes, anchors] of one image, boxes as centre x, centre y, width, height in input pixels.
        letterbox: how the image lay in the input.
        selection: what is wanted.

    Returns:
        Regions in original pixels by falling confidence, without those that have NaN, infinity, or no area.
    """
    scores = output[4:]
    # NaN never compares greater. Most anchors fall away here, so nothing below is computed for all of them.
    best = scores[0] if len(scores) == 1 else scores.max(axis=0)
    found = np.flatnonzero(best > selection.confidence)
    if len(scores) > 1 and np.isnan(best).any():  # max() hands a NaN of one class on to the whole anchor
        best = np.fmax.reduce(scores, axis=0)
        found = np.flatnonzero(best > selection.confidence)
    candidates = output[:, found].astype(np.float32)
    classes = np.zeros(len(found), np.int32)
    if len(scores) > 1 and len(found):
        classes = np.nan_to_num(candidates[4:], nan=-1).argmax(axis=0).astype(np.int32)
    return _suppressed(candidates, best[found].astype(np.float32), classes, letterbox, selection)


def select_places(places: npt.NDArray[np.floating], letterbox: Letterbox, selection: Selection) -> Detections:
    """Read a classic head whose classes are reduced to the best of each anchor already.

    Args:
        places: [6, anchors] of one image: centre x, centre y, width, height in input pixels, confidence, class.
        letterbox: how the image lay in the input.
        selection: what is wanted.

    Returns:
        As `select_classic`.
    """
    found = np.flatnonzero(places[4] > selection.confidence)
    candidates = places[:, found].astype(np.float32)
    return _suppressed(candidates, candidates[4], candidates[5].astype(np.int32), letterbox, selection)


def select_end_to_end(output: npt.NDArray[np.floating], letterbox: Letterbox, selection: Selection) -> Detections:
    """Read an NMS-free head.

    Args:
        output: [rows, 6] of one image: x0, y0, x1, y1 in input pixels, confidence, class.
        letterbox: how the image lay in the input.
        selection: what is wanted; `iou` has no effect.

    Returns:
        As `select_classic`.
    """
    rows = np.flatnonzero(output[:, 4] > selection.confidence)
    found = output[rows].astype(np.float32)
    boxes, confidences = found[:, :4], found[:, 4]
    classes = np.nan_to_num(found[:, 5], nan=-1).clip(-1, _MOST_CLASSES).astype(np.int32)
    wanted = _wanted(boxes, confidences, classes, selection)
    wanted = wanted[np.argsort(-confidences[wanted], kind="stable")][: selection.max_detections + 1]
    return _finish(boxes[wanted], confidences[wanted], classes[wanted], letterbox).first(selection.max_detections)


def suppress(
    boxes_xyxy: FloatArray, class_ids: npt.NDArray[np.int32], iou: float, at_most: int
) -> npt.NDArray[np.intp]:
    """Greedy non-maximum suppression within each class.

    Args:
        boxes_xyxy: [N, 4], by falling confidence.
        class_ids: [N]; boxes of different classes never suppress each other.
        iou: overlap above which the later box goes.
        at_most: stop after so many kept boxes.

    Returns:
        Rows that are kept, ascending.
    """
    kept = np.empty(0, np.intp)
    for start in range(0, len(boxes_xyxy), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(boxes_xyxy)))
        if len(kept):
            block = block[~_overlaps(boxes_xyxy, class_ids, kept, block, iou=iou).any(axis=0)]
        inside = _overlaps(boxes_xyxy, class_ids, block, block, iou=iou)
        alive = np.ones(len(block), np.bool_)
        for index in range(len(block)):
            if alive[index]:
                alive[index + 1 :] &= ~inside[index, index + 1 :]
        kept = np.concatenate((kept, block[alive]))
        if len(kept) >= at_most:
            break
    return kept[:at_most]


def _overlaps(
    boxes: FloatArray,
    class_ids: npt.NDArray[np.int32],
    left: npt.NDArray[np.intp],
    right: npt.NDArray[np.intp],
    *,
    iou: float,
) -> npt.NDArray[np.bool_]:
    """[left, right]: whether the overlap is above `iou` and the class the same."""
    a, b = boxes[left, None], boxes[None, right]
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    common = np.maximum(width, 0) * np.maximum(height, 0)
    union = _areas(a) + _areas(b) - common
    # Multiplied out, so that two boxes without area do not divide by zero.
    return np.asarray((common > iou * union) & (class_ids[left, None] == class_ids[None, right]))


def _areas(boxes: FloatArray) -> FloatArray:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _suppressed(
    candidates: FloatArray,
    confidences: FloatArray,
    classes: npt.NDArray[np.int32],
    letterbox: Letterbox,
    selection: Selection,
) -> Detections:
    """The regions among candidates, whose first four rows are centre x, centre y, width and height."""
    centre, half = candidates[:2].T, candidates[2:4].T / 2
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is dropped just below
        boxes: FloatArray = np.concatenate((centre - half, centre + half), axis=1, dtype=np.float32)
    rows = _wanted(boxes, confidences, classes, selection)
    rows = rows[np.argsort(-confidences[rows], kind="stable")][:MAX_CANDIDATES]
    boxes, confidences, classes = boxes[rows], confidences[rows], classes[rows]
    # One more than is wanted tells whether any is left out.
    kept = suppress(boxes, classes, selection.iou, selection.max_detections + 1)
    return _finish(boxes[kept], confidences[kept], classes[kept], letterbox).first(selection.max_detections)


def _wanted(
    boxes: FloatArray, confidences: FloatArray, class_ids: npt.NDArray[np.int32], selection: Selection
) -> npt.NDArray[np.intp]:
    rows = usable_rows(boxes, confidences)
    if selection.class_ids is not None:
        rows = rows[np.isin(class_ids[rows], list(selection.class_ids))]
    return rows[class_ids[rows] >= 0]


def _finish(
    boxes: FloatArray, confidences: FloatArray, class_ids: npt.NDArray[np.int32], letterbox: Letterbox
) -> Detections:
    boxes = letterbox.to_image(boxes)
    kept = has_area(boxes)
    return Detections(boxes[kept], class_ids[kept], np.minimum(confidences[kept], 1))
