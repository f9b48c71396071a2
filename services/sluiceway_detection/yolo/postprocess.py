"""From a YOLO head's raw output to boxes: confidence, non-maximum suppression, and the way back to the image.

Two heads exist. The classic one (YOLOv8, 11, 12, and YOLO26 with its one-to-many branch) gives [4 + classes, anchors],
boxes as centre and size, and wants suppression. The NMS-free one (YOLOv10, YOLO26 end to end, or an export with NMS
inside) gives [rows, 6]: x0, y0, x1, y1, confidence, class. Models for other tasks have more numbers behind those (see
`heads`). DETR models have boxes and classes for each of their queries. Results equal ultralytics' own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sluiceway_detection.inputs.letterbox import Letterbox
from sluiceway_detection.selection import Output, Selection
from sluiceway_detection.types import Detections, Shape, clip_boxes, has_area, usable_rows
from sluiceway_detection.yolo.heads import PLAIN, Head
from sluiceway_detection.yolo.masks import outlines
from sluiceway_detection.yolo.rotated import hulls, shapes_of, suppress_rotated

__all__ = [
    "rows_of_queries",
    "select_classic",
    "select_end_to_end",
    "select_places",
    "select_queries",
    "suppress",
]

FloatArray = npt.NDArray[np.float32]

# Candidates that enter suppression, the most confident first; ultralytics has the same bound. With a confidence of
# almost 0 every anchor is a candidate, and the cost grows with candidates times regions.
MAX_CANDIDATES = 30_000
_MOST_CLASSES = 2**20  # ours: keeps a mad model's class number within an integer
_BLOCK = 256  # candidates compared at once: the matrices of a block stay inside the cache


class _Found(NamedTuple):
    """What may be regions, by place: boxes [N, 4] as corners in input pixels, of turned ones before they are turned."""

    boxes: FloatArray
    confidences: FloatArray
    class_ids: npt.NDArray[np.int32]
    extra: FloatArray

    def of(self, rows: npt.NDArray[np.intp]) -> _Found:
        return _Found(self.boxes[rows], self.confidences[rows], self.class_ids[rows], self.extra[rows])


class _Frame(NamedTuple):
    """Where regions lie, and what is told of them; `prototypes` are those of masks, [prototypes, h, w]."""

    letterbox: Letterbox
    head: Head
    prototypes: npt.NDArray[np.floating] | None = None


def select_classic(output: Output, letterbox: Letterbox, selection: Selection, head: Head = PLAIN) -> Detections:
    """Read a classic head.

    Args:
        output: [4 + classes + extra, anchors] of one image, boxes as centre x, centre y, width, height in input pixels;
            of a model that segments with its prototypes.
        letterbox: how the image lay in the input.
        selection: what is wanted.
        head: what there is beside boxes and classes.

    Returns:
        Regions in original pixels by falling confidence, without those that have NaN, infinity, or no area.
    """
    output, prototypes = _parted(output)
    scores = output[4 : len(output) - head.extra]
    # NaN never compares greater. Most anchors fall away here, so nothing below is computed for all of them.
    best = scores[0] if len(scores) == 1 else scores.max(axis=0)
    found = np.flatnonzero(best > selection.confidence)
    if len(scores) > 1 and np.isnan(best).any():  # max() hands a NaN of one class on to the whole anchor
        best = np.fmax.reduce(scores, axis=0)
        found = np.flatnonzero(best > selection.confidence)
    candidates = output[:, found].astype(np.float32)
    classes = np.zeros(len(found), np.int32)
    if len(scores) > 1 and len(found):
        classes = np.nan_to_num(candidates[4 : 4 + len(scores)], nan=-1).argmax(axis=0).astype(np.int32)
    frame = _Frame(letterbox, head, prototypes)
    return _suppressed(candidates, best[found].astype(np.float32), classes, selection, frame)


def select_places(places: Output, letterbox: Letterbox, selection: Selection, head: Head = PLAIN) -> Detections:
    """Read a classic head whose classes are reduced to the best of each anchor already.

    Args:
        places: [6 + extra, anchors] of one image: centre x, centre y, width, height in input pixels, confidence, class.
        letterbox: how the image lay in the input.
        selection: what is wanted.
        head: what there is beside boxes and classes.

    Returns:
        As `select_classic`.
    """
    places, prototypes = _parted(places)
    found = np.flatnonzero(places[4] > selection.confidence)
    candidates = places[:, found].astype(np.float32)
    classes = candidates[5].astype(np.int32)
    return _suppressed(candidates, candidates[4], classes, selection, _Frame(letterbox, head, prototypes))


def select_end_to_end(output: Output, letterbox: Letterbox, selection: Selection, head: Head = PLAIN) -> Detections:
    """Read an NMS-free head.

    Args:
        output: [rows, 6 + extra] of one image: x0, y0, x1, y1 in input pixels (of turned boxes centre and size),
            confidence, class.
        letterbox: how the image lay in the input.
        selection: what is wanted; `iou` has no effect.
        head: what there is beside boxes and classes.

    Returns:
        As `select_classic`.
    """
    output, prototypes = _parted(output)
    rows = np.flatnonzero(output[:, 4] > selection.confidence)
    table = output[rows].astype(np.float32)
    boxes = _corners(table[:, :4]) if head.task == "obb" else table[:, :4]
    return _as_they_are(boxes, table, selection, _Frame(letterbox, head, prototypes))


def select_queries(output: Output, letterbox: Letterbox, selection: Selection, head: Head) -> Detections:
    """Read a DETR model, which suppresses nothing.

    Args:
        output: of one image, see `Head.transformer`.
        letterbox: how the image lay in the input.
        selection: what is wanted; `iou` has no effect.
        head: which of its forms it has.

    Returns:
        As `select_classic`.
    """
    table = rows_of_queries(output, head)
    table = table[table[:, 4] > selection.confidence]
    height, width = letterbox.input_shape
    boxes = _corners(table[:, :4] * np.array((width, height, width, height), np.float32))
    return _as_they_are(boxes, table, selection, _Frame(letterbox, head))


def rows_of_queries(output: Output, head: Head) -> FloatArray:
    """What a DETR model says, float32 [queries, 6]: centre and size in parts of the input, confidence, class."""
    if head.transformer == "rows":
        return np.asarray(_parted(output)[0], np.float32)
    if isinstance(output, tuple):
        boxes, scores = output[head.boxes_output], output[1 - head.boxes_output].astype(np.float32)
        if head.transformer == "softmax":
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores = (powers / powers.sum(axis=1, keepdims=True))[:, :-1]
        else:
            scores = np.asarray(1 / (1 + np.exp(-np.clip(scores, -80, 80))), np.float32)
    else:
        boxes, scores = np.asarray(output[:, :4], np.float32), np.asarray(output[:, 4:], np.float32)
    best = np.nan_to_num(scores, nan=-1).argmax(axis=1)
    confidences = np.take_along_axis(scores, best[:, None], axis=1)
    return np.concatenate((boxes, confidences, best[:, None]), axis=1, dtype=np.float32)


def _parted(output: Output) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating] | None]:
    """The places, and the prototypes of masks where there are some."""
    return (output[0], output[1]) if isinstance(output, tuple) else (np.asarray(output), None)


def _corners(boxes: FloatArray) -> FloatArray:
    """Centres and sizes [N, 4] as corners."""
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is dropped later
        centre, half = boxes[:, :2], boxes[:, 2:4] / 2
        return np.concatenate((centre - half, centre + half), axis=1, dtype=np.float32)


def _as_they_are(boxes: FloatArray, table: FloatArray, selection: Selection, frame: _Frame) -> Detections:
    """Regions of rows that need no suppression: confidence, class and what is beside them begin in the fifth column."""
    classes = np.nan_to_num(table[:, 5], nan=-1).clip(-1, _MOST_CLASSES).astype(np.int32)
    found = _Found(boxes, table[:, 4], classes, table[:, 6:])
    wanted = _wanted(found, selection)
    wanted = wanted[np.argsort(-found.confidences[wanted], kind="stable")][: selection.max_detections + 1]
    return _finish(found.of(wanted), frame).first(selection.max_detections)


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
    selection: Selection,
    frame: _Frame,
) -> Detections:
    """The regions among candidates, whose first four rows are centre x, centre y, width and height."""
    extra = candidates[len(candidates) - frame.head.extra :].T
    found = _Found(_corners(candidates[:4].T), confidences, classes, extra)
    rows = _wanted(found, selection)
    rows = rows[np.argsort(-confidences[rows], kind="stable")][:MAX_CANDIDATES]
    found = found.of(rows)
    kinds = np.zeros_like(found.class_ids) if selection.agnostic else found.class_ids
    # One more than is wanted tells whether any is left out.
    most = selection.max_detections + 1
    if frame.head.task == "obb":
        turned = np.concatenate((candidates[:4].T[rows], found.extra), axis=1)
        kept = suppress_rotated(turned, kinds, selection.iou, most)
    else:
        kept = suppress(found.boxes, kinds, selection.iou, most)
    return _finish(found.of(kept), frame).first(selection.max_detections)


def _wanted(found: _Found, selection: Selection) -> npt.NDArray[np.intp]:
    rows = usable_rows(found.boxes, found.confidences)
    if selection.class_ids is not None:
        rows = rows[np.isin(found.class_ids[rows], list(selection.class_ids))]
    rows = rows[np.isfinite(found.extra[rows]).all(axis=1)]
    return rows[found.class_ids[rows] >= 0]


def _finish(found: _Found, frame: _Frame) -> Detections:
    """Take what was found to the image. What has no area there, or no mask, is left out."""
    letterbox, head, prototypes = frame
    shapes: list[Shape | None] = []
    keypoints = None
    if head.task == "obb":
        turned = _turned_in_image(found, letterbox)
        boxes = clip_boxes(hulls(turned), *letterbox.image_shape)
        shapes = list(shapes_of(turned))
    else:
        boxes = letterbox.to_image(found.boxes)
    kept = has_area(boxes)
    if head.task == "segment" and prototypes is not None:
        shapes = list(outlines(found.boxes, found.extra, prototypes, letterbox))
        kept &= np.array([shape is not None for shape in shapes], np.bool_)
    elif head.task == "pose":
        keypoints = _keypoints(found.extra, letterbox, head.keypoints)[kept]
    rows = np.flatnonzero(kept).tolist()
    by_row = {new: shape for new, old in enumerate(rows) if shapes and (shape := shapes[old]) is not None}
    confidences = np.minimum(found.confidences[kept], 1)
    return Detections(boxes[kept], found.class_ids[kept], confidences, by_row, keypoints=keypoints)


def _turned_in_image(found: _Found, letterbox: Letterbox) -> FloatArray:
    """Turned boxes [N, 5], centre, size and radians; in pixels of the image, and not clipped to it."""
    x0, y0, x1, y1 = found.boxes.T
    gain_x, gain_y = letterbox.gains_xy
    centre_x, centre_y = ((x0 + x1) / 2 - letterbox.left_px) / gain_x, ((y0 + y1) / 2 - letterbox.top_px) / gain_y
    # Both gains are the same but for the rounding of a side.
    sizes = ((x1 - x0) / gain_x, (y1 - y0) / gain_y)
    return np.stack((centre_x, centre_y, *sizes, found.extra[:, 0]), axis=1).astype(np.float32)


def _keypoints(extra: FloatArray, letterbox: Letterbox, shape: tuple[int, int]) -> FloatArray:
    """[N, K, 3] in pixels of the image; without a confidence of their own they are certain."""
    points = extra.reshape(len(extra), *shape)
    found = np.ones((len(extra), shape[0], 3), np.float32)
    found[..., :2] = letterbox.points_to_image(points[..., :2])
    if shape[1] == 3:
        found[..., 2] = points[..., 2].clip(0, 1)
    return found
