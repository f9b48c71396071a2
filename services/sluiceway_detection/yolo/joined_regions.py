"""Regions found in the parts of an image, and in a look at the whole, put together.

A region that ends at the seam of a part may be cut there: it is left to the parts beside, which have something in
common with this one, and to the look at the whole, which sees what is larger than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sluiceway_detection.inputs.parts import CONTEXT_PX, Part, Parts
from sluiceway_detection.selection import Selection
from sluiceway_detection.types import Detections
from sluiceway_detection.yolo.postprocess import suppress

__all__ = ["joined_regions"]

Rows = npt.NDArray[np.bool_]

# A region that ends so near to a seam may go on behind it.
_SEAM_PX = 2.0
# Two parts have so much in common: what is longer may be whole in neither of them.
_COMMON_PX = 2.0 * CONTEXT_PX
# A region of the look at the whole of which so much is covered by those of parts is the same thing, seen worse.
_COVERED = 0.5


def joined_regions(
    parts: Parts, found: Sequence[Detections], base: Detections | None, selection: Selection
) -> Detections:
    """The regions of an image.

    Args:
        parts: that were shown.
        found: in each, in pixels of that part.
        base: in a look at the whole, in pixels of the image; None where one part is the whole.
        selection: what is wanted.

    Returns:
        Upright boxes in pixels of the image, by falling confidence.
    """
    content = parts.letterbox.content_shape
    whole = [_moved(part, each, content) for part, each in zip(parts, found, strict=True)]
    every = [_in_image(each, parts) for each in whole]
    if base is not None:
        every.append(_rows(base, ~_seen_in_parts(base, parts) & ~_covered(base, every)))
    boxes = np.concatenate([each.boxes_xyxy_px for each in every])
    class_ids = np.concatenate([each.class_ids for each in every])
    confidences = np.concatenate([each.confidences for each in every])
    order = np.argsort(-confidences, kind="stable")
    boxes, class_ids, confidences = boxes[order], class_ids[order], confidences[order]
    kinds = np.zeros_like(class_ids) if selection.agnostic else class_ids
    kept = suppress(boxes, kinds, selection.iou, selection.max_detections + 1)
    left_out = any(each.left_out for each in found)
    joined = Detections(boxes[kept], class_ids[kept], confidences[kept], left_out=left_out)
    return joined.first(selection.max_detections)


def _moved(part: Part, found: Detections, content_shape: tuple[int, int]) -> Detections:
    """What is whole in a part and lies where parts decide, in pixels of the scaled image."""
    boxes = found.boxes_xyxy_px
    (height, width), (rows, columns) = part.input_shape, content_shape
    near = np.array([part.left > 0, part.top > 0], np.bool_)
    far = np.array([part.left + width < columns, part.top + height < rows], np.bool_)
    cut = ((boxes[:, :2] < _SEAM_PX) & near) | ((boxes[:, 2:] > np.array([width, height]) - _SEAM_PX) & far)
    kept = _rows(found, np.asarray(~cut.any(axis=1)))
    return replace(kept, boxes_xyxy_px=kept.boxes_xyxy_px + np.array([part.left, part.top] * 2, np.float32))


def _in_image(found: Detections, parts: Parts) -> Detections:
    boxes = parts.letterbox.to_image(found.boxes_xyxy_px)
    inside = _centres_inside(boxes, parts)
    return _rows(replace(found, boxes_xyxy_px=boxes), inside)


def _seen_in_parts(base: Detections, parts: Parts) -> Rows:
    """Of the look at the whole: what is short enough to be whole in some part."""
    boxes = base.boxes_xyxy_px
    longest = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) * parts.letterbox.scale
    return np.asarray(_centres_inside(boxes, parts) & (longest <= _COMMON_PX))


def _centres_inside(boxes: npt.NDArray[np.float32], parts: Parts) -> Rows:
    """Whose middle lies where parts decide."""
    own = np.array([part.own for part in parts], np.float32)
    area = np.concatenate((own[:, :2].min(axis=0), own[:, 2:].max(axis=0)))
    gains = np.array(parts.letterbox.gains_xy, np.float32)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2 * gains
    return np.asarray(((middles >= area[:2]) & (middles <= area[2:])).all(axis=1))


def _covered(base: Detections, parts: Sequence[Detections]) -> Rows:
    """Of the look at the whole: what regions of parts, of the same class, cover for the most part."""
    boxes = base.boxes_xyxy_px
    common = np.zeros(len(boxes), np.float64)
    for found in parts:
        size = np.minimum(boxes[:, None, 2:], found.boxes_xyxy_px[None, :, 2:])
        size = size - np.maximum(boxes[:, None, :2], found.boxes_xyxy_px[None, :, :2])
        same = base.class_ids[:, None] == found.class_ids[None]
        common += np.where(same, size.clip(0).prod(axis=2), 0).sum(axis=1)
    return np.asarray(common > _COVERED * (boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def _rows(found: Detections, kept: Rows) -> Detections:
    return replace(
        found,
        boxes_xyxy_px=found.boxes_xyxy_px[kept],
        class_ids=found.class_ids[kept],
        confidences=found.confidences[kept],
    )
