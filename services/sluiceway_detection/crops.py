"""Cut regions out of an image, at the size that a recogniser asks for and never padded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from sluiceway_runtime.errors import InvalidOption

from sluiceway_detection.types import Detections, ImageBgr, Polygon, RotatedBox, Shape

__all__ = ["MAX_CROPS", "Crop", "CropPlan", "cut_crops"]

# In one answer, however small they are. Each costs microseconds and a kilobyte on the event loop of a front: 10,000
# regions for 32 specs kept it busy for two seconds. All the default 1,000 regions may go to all of 32 specs.
MAX_CROPS = 32_768

Quad = npt.NDArray[np.float32]
"""float32 [4, 2]: top left, top right, bottom right, bottom left of a region as it is to be read, in image pixels."""


class CropPlan(NamedTuple):
    """A recogniser's wish, with class names already resolved.

    Attributes:
        model: recognition model that the crops are for.
        height_px: height of every crop.
        max_width_px: greatest width.
        pixel_format: channel order.
        stretch: to exactly max_width x height; otherwise the aspect ratio is kept up to max_width.
        class_ids: classes wanted; None means every class.
    """

    model: str
    height_px: int
    max_width_px: int
    pixel_format: Literal["bgr", "rgb", "gray"] = "bgr"
    stretch: bool = False
    class_ids: frozenset[int] | None = None

    def width_px(self, region_height: float, region_width: float) -> int:
        """Width of the crop of a region of this size."""
        if self.stretch:
            return self.max_width_px
        return max(1, min(self.max_width_px, round(region_width * self.height_px / region_height)))

    @property
    def channels(self) -> int:
        """Bytes a pixel."""
        return 1 if self.pixel_format == "gray" else 3


@dataclass(frozen=True, slots=True)
class Crop:
    """Pixels of one region for one plan: uint8 [height, width, 3], or [height, width] for grey; contiguous."""

    detection: int
    plan: int
    pixels: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Cut:
    """Where a crop comes from: a window of whole pixels, or a quad that has to be warped."""

    detection: int
    plan: int
    width_px: int
    window: tuple[int, int, int, int] | None
    quad: Quad | None


def cut_crops(
    image_bgr: ImageBgr, detections: Detections, plans: tuple[CropPlan, ...], max_total_bytes: int
) -> list[Crop]:
    """Cut one crop for each detection and plan that wants its class, in the order of the detections.

    Args:
        image_bgr: uint8 [H, W, 3].
        detections: in pixels of that image. A region thinner than a pixel gives no crop.
        plans: what to cut.
        max_total_bytes: limit of all pixels together.

    Raises:
        InvalidOption: the crops would be larger than that together, or more than `MAX_CROPS`; found before any is cut.
    """
    cuts = list(islice(_plan_cuts(image_bgr.shape[:2], detections, plans), MAX_CROPS + 1))
    if len(cuts) > MAX_CROPS:
        raise InvalidOption(
            f"{len(detections)} regions for {len(plans)} crop specs are more than {MAX_CROPS} crops, and no more fit "
            "into an answer; ask for fewer regions (max_detections) or specs",
            metadata={"limit": "max_crops", "max": str(MAX_CROPS)},
        )
    total = sum(cut.width_px * plans[cut.plan].height_px * plans[cut.plan].channels for cut in cuts)
    if total > max_total_bytes:
        raise InvalidOption(
            f"the {len(cuts)} crops would take {total} bytes; at most {max_total_bytes} fit into an answer",
            metadata={"limit": "max_crop_bytes", "max": str(max_total_bytes)},
        )
    return [Crop(cut.detection, cut.plan, _cut(image_bgr, cut, plans[cut.plan])) for cut in cuts]


def _plan_cuts(image_shape: tuple[int, ...], detections: Detections, plans: tuple[CropPlan, ...]) -> Iterator[_Cut]:
    boxes = detections.boxes_xyxy_px
    # A box is cut to the whole pixels that it touches, so that no edge of a letter is lost.
    lower = np.floor(boxes[:, :2]).astype(int).tolist()
    upper = np.minimum(np.ceil(boxes[:, 2:]).astype(int), (image_shape[1], image_shape[0])).tolist()
    thin: list[bool] = np.less(boxes[:, 2:] - boxes[:, :2], 1).any(axis=1).tolist()
    for row, class_id in enumerate(detections.class_ids.tolist()):
        shape = detections.shapes.get(row)
        window: tuple[int, int, int, int] | None = None
        quad = None
        if shape is None:
            if thin[row]:
                continue
            (x0, y0), (x1, y1) = lower[row], upper[row]
            window, width, height = (x0, y0, x1, y1), float(x1 - x0), float(y1 - y0)
        else:
            quad = quad_of(shape)
            width, height = _longer(quad, (0, 1), (3, 2)), _longer(quad, (0, 3), (1, 2))
            if not (math.isfinite(width) and math.isfinite(height)) or min(width, height) < 1:
                continue
        for index, plan in enumerate(plans):
            if plan.class_ids is None or class_id in plan.class_ids:
                yield _Cut(row, index, plan.width_px(height, width), window, quad)


def _cut(image_bgr: ImageBgr, cut: _Cut, plan: CropPlan) -> npt.NDArray[np.uint8]:
    size = (cut.width_px, plan.height_px)
    if cut.window is not None:
        x0, y0, x1, y1 = cut.window
        pixels = cv2.resize(image_bgr[y0:y1, x0:x1], size, interpolation=cv2.INTER_LINEAR)
    else:
        width, height = size
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        # Corners are edges of pixels, while warpPerspective counts from their centres: hence the half.
        matrix = cv2.getPerspectiveTransform(np.asarray(cut.quad, np.float32) - 0.5, corners - 0.5)
        pixels = cv2.warpPerspective(image_bgr, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if plan.pixel_format == "rgb":
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    elif plan.pixel_format == "gray":
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    return np.ascontiguousarray(pixels, np.uint8)


def quad_of(shape: Shape) -> Quad:
    """The four corners to read a turned or free region by.

    A polygon of four corners is taken as it is, beginning with its first; of any other the smallest turned rectangle
    around it, its long side lying down.
    """
    if isinstance(shape, RotatedBox):
        angle = math.radians(shape.angle_degrees)
        along = np.array([math.cos(angle), math.sin(angle)]) * shape.width_px / 2
        down = np.array([-math.sin(angle), math.cos(angle)]) * shape.height_px / 2
        centre = np.array(shape.center_xy_px)
        corners = [centre - along - down, centre + along - down, centre + along + down, centre - along + down]
        return np.array(corners, np.float32)
    points = np.array(shape.points_xy_px, np.float32)
    if len(points) == 4:
        return points
    return _smallest_rectangle(shape)


def _smallest_rectangle(polygon: Polygon) -> Quad:
    center, (width, height), angle = cv2.minAreaRect(np.array(polygon.points_xy_px, np.float32))
    if width < height:
        width, height, angle = height, width, angle + 90
    # Of the two readings that are left, the one whose top is up.
    angle = (angle + 90) % 180 - 90
    return quad_of(RotatedBox((center[0], center[1]), width, height, angle))


def _longer(quad: Quad, side: tuple[int, int], opposite: tuple[int, int]) -> float:
    """Length of the longer of two opposite sides, each named by its corners."""
    return max(float(np.linalg.norm(quad[a] - quad[b])) for a, b in (side, opposite))
