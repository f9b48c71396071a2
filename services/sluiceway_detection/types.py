"""What a detector answers with. Plain values, so that user code needs nothing but this module."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

__all__ = ["Detections", "ImageBgr", "Polygon", "Region", "RotatedBox", "Shape"]

# Farther out than any image; bounded so that areas do not overflow in float32.
_FARTHEST_PX = 1e7

ImageBgr = npt.NDArray[np.uint8]
"""uint8 [H, W, 3], C-contiguous, blue green red."""


@dataclass(frozen=True, slots=True)
class RotatedBox:
    """A rectangle turned about its centre; pixels of the image, degrees clockwise as seen on the screen."""

    center_xy_px: tuple[float, float]
    width_px: float
    height_px: float
    angle_degrees: float


@dataclass(frozen=True, slots=True)
class Polygon:
    """A closed outline of at least three corners, clockwise as seen on the screen, in pixels of the image."""

    points_xy_px: tuple[tuple[float, float], ...]


Shape = RotatedBox | Polygon


@dataclass(frozen=True, slots=True)
class Region:
    """One region, as a user's detector returns it.

    Attributes:
        box_xyxy_px: left, top, right, bottom in pixels of the image that was given; the outer corner, so that the width
            is right - left. It is clipped to the image. For a turned or free region: the upright box around it.
        class_id: position in the detector's `classes`.
        confidence: within (0, 1].
        shape: the exact outline where the box alone does not say it.
    """

    box_xyxy_px: tuple[float, float, float, float]
    class_id: int
    confidence: float
    shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class Detections:
    """The regions of one image by falling confidence, as arrays of equal length.

    Attributes:
        boxes_xyxy_px: float32 [N, 4], finite, clipped to the image, of positive area.
        class_ids: int32 [N].
        confidences: float32 [N], within (0, 1].
        shapes: outlines by row, only for rows that are not upright boxes.
        keypoints: float32 [N, K, 3], x and y in pixels of the image and a confidence; None from models without them.
        left_out: more were found than were asked for; the least confident are not here.
        scale: at which the image was shown to the model.
        too_small: there are letters that should have been shown larger than they were.
    """

    boxes_xyxy_px: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int32]
    confidences: npt.NDArray[np.float32]
    shapes: Mapping[int, Shape] = field(default_factory=dict)
    left_out: bool = False
    scale: float = 1.0
    too_small: bool = False
    keypoints: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.confidences)

    def first(self, count: int) -> Detections:
        """The `count` most confident."""
        if len(self) <= count:
            return self
        shapes = {row: shape for row, shape in self.shapes.items() if row < count}
        return replace(
            self,
            boxes_xyxy_px=self.boxes_xyxy_px[:count],
            class_ids=self.class_ids[:count],
            confidences=self.confidences[:count],
            keypoints=None if self.keypoints is None else self.keypoints[:count],
            shapes=shapes,
            left_out=True,
        )

    @classmethod
    def from_regions(cls, regions: Sequence[Region], height_px: int, width_px: int) -> Detections:
        """A user's regions as arrays: those with sound numbers, clipped to the image, by falling confidence."""
        boxes = np.array([region.box_xyxy_px for region in regions], np.float32).reshape(-1, 4)
        confidences = np.array([region.confidence for region in regions], np.float32)
        class_ids = np.array([region.class_id for region in regions], np.int32)
        rows = usable_rows(boxes, confidences)
        rows = rows[[_is_sound(regions[row].shape) for row in rows.tolist()]] if len(rows) else rows
        rows = rows[np.argsort(-confidences[rows], kind="stable")]
        boxes = clip_boxes(boxes[rows], height_px, width_px)
        kept = has_area(boxes)
        rows, boxes = rows[kept], boxes[kept]
        shapes = {new: shape for new, old in enumerate(rows.tolist()) if (shape := regions[old].shape) is not None}
        return cls(boxes, class_ids[rows], np.minimum(confidences[rows], 1), shapes)


def usable_rows(boxes_xyxy: npt.NDArray[np.float32], confidences: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Rows with sane coordinates and a positive, finite confidence: a model's NaN stops here."""
    sane = (np.abs(boxes_xyxy) < _FARTHEST_PX).all(axis=1)  # False for NaN
    return np.flatnonzero(sane & np.isfinite(confidences) & (confidences > 0))


def clip_boxes(boxes_xyxy_px: npt.NDArray[np.float32], height_px: int, width_px: int) -> npt.NDArray[np.float32]:
    """Cut boxes off at the edges of the image."""
    limits = np.array([width_px, height_px, width_px, height_px], np.float32)
    return np.clip(boxes_xyxy_px, 0, limits)


def has_area(boxes_xyxy_px: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which boxes have a positive width and height."""
    return np.asarray((boxes_xyxy_px[:, 2] > boxes_xyxy_px[:, 0]) & (boxes_xyxy_px[:, 3] > boxes_xyxy_px[:, 1]))


def _is_sound(shape: Shape | None) -> bool:
    if isinstance(shape, RotatedBox):
        numbers: tuple[float, ...] = (*shape.center_xy_px, shape.width_px, shape.height_px, shape.angle_degrees)
        return all(math.isfinite(number) for number in numbers) and shape.width_px > 0 and shape.height_px > 0
    if isinstance(shape, Polygon):
        numbers = tuple(number for point in shape.points_xy_px for number in point)
        return len(shape.points_xy_px) >= 3 and all(math.isfinite(number) for number in numbers)
    return True
