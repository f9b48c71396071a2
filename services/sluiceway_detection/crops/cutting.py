"""Cut regions out of an image, at the size that the next stage asks for and never padded."""

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

from sluiceway_detection.crops.alignment import aligned_quad
from sluiceway_detection.types import Detections, ImageBgr, Polygon, RotatedBox, Shape

__all__ = ["MAX_CROPS", "Crop", "CropPlan", "PixelFormat", "ResizeRule", "Transform", "channels_of", "cut_crops"]

# In one answer, however small they are. Each costs microseconds and a kilobyte on the event loop of a front: 10,000
# regions for 32 specs kept it busy for two seconds. All the default 1,000 regions may go to all of 32 specs.
MAX_CROPS = 32_768

# Shrunk to this and less, pixels are averaged: a mixture of the nearest four would leave out most of them.
_AVERAGED_SCALE = 0.5
# A side of what is warped before it is shrunk; OpenCV takes up to twice that.
_MAX_WARPED_PX = 16_384
# Of a quad that is a line or a point, the homography takes all of a crop to no area at all.
_LEAST_DETERMINANT = 1e-9

PixelFormat = Literal["bgr", "rgb", "gray"]
ResizeRule = Literal["fit_height", "stretch", "fit_longest", "cover"]

Quad = npt.NDArray[np.float32]
"""float32 [4, 2]: top left, top right, bottom right, bottom left of a region as it is to be read, in image pixels."""

Transform = tuple[float, ...]
"""Nine numbers, row by row: the homography from a crop's pixels to those of the image that it was cut from. The origin
of both is the top left corner of the top left pixel."""


class CropPlan(NamedTuple):
    """What the next stage wants, with class names already resolved.

    Attributes:
        name: of the spec.
        height_px: height of every crop; without meaning for `fit_longest`.
        max_width_px: greatest width; of `fit_longest` the greatest longer side.
        pixel_format: channel order.
        rule: `fit_height` keeps the aspect ratio up to max_width, `stretch` cuts to exactly max_width x height, `cover`
            likewise but leaves out what is over on both sides, and `fit_longest` leaves a region as large as it is, or
            shrinks it, and says where the crop lies in the image.
        class_ids: classes wanted; None means every class.
        turn_ratio: regions at least this many times as high as wide are turned anticlockwise by 90 degrees before they
            are resized; 0 turns none.
        align: where the keypoints of a region are to lie, x and y in parts of the crop; empty: they do not matter.
    """

    name: str
    height_px: int
    max_width_px: int
    pixel_format: PixelFormat = "bgr"
    rule: ResizeRule = "fit_height"
    class_ids: frozenset[int] | None = None
    turn_ratio: float = 0.0
    align: tuple[tuple[float, float], ...] = ()

    def turns(self, region_height: float, region_width: float) -> bool:
        """Whether a region of this size is turned."""
        # What looks for regions in the crop takes it as it lies.
        return 0 < self.turn_ratio <= region_height / region_width and self.rule != "fit_longest"

    def size_px(self, region_height: float, region_width: float) -> tuple[int, int]:
        """Height and width of the crop of a region of this size, as it is after turning."""
        if self.rule in ("stretch", "cover"):
            return self.height_px, self.max_width_px
        if self.rule == "fit_longest":
            scale = min(1.0, self.max_width_px / max(region_height, region_width))
            return max(1, round(region_height * scale)), max(1, round(region_width * scale))
        return self.height_px, max(1, min(self.max_width_px, round(region_width * self.height_px / region_height)))

    @property
    def channels(self) -> int:
        """Bytes a pixel."""
        return channels_of(self.pixel_format)


def channels_of(pixel_format: PixelFormat) -> int:
    """Bytes a pixel."""
    return 1 if pixel_format == "gray" else 3


@dataclass(frozen=True, slots=True)
class Crop:
    """Pixels of one region for one plan: uint8 [height, width, 3], or [height, width] for grey; contiguous.

    `to_image` is there where the plan's rule is `fit_longest`. `turned`: the region's right edge is the crop's top.
    """

    detection: int
    plan: int
    pixels: npt.NDArray[np.uint8]
    to_image: Transform | None = None
    turned: bool = False


@dataclass(frozen=True, slots=True)
class _Cut:
    """Where a crop comes from: a window of whole pixels, turned or not, or a quad that has to be warped.

    The quad of a turned crop begins with the corner that becomes the top left one.
    """

    detection: int
    plan: int
    height_px: int
    width_px: int
    window: tuple[int, int, int, int] | None
    quad: Quad | None
    to_image: Transform | None
    turned: bool


class _Source(NamedTuple):
    """What a crop is cut out of: a window of whole pixels, or a quad."""

    window: tuple[int, int, int, int] | None
    quad: Quad | None = None

    @classmethod
    def of(cls, quad: Quad) -> _Source | None:
        """None of one that is thinner than a pixel."""
        made = cls(None, quad)
        sides = (made.width, made.height)
        return made if all(math.isfinite(side) for side in sides) and min(sides) >= 1 else None

    @property
    def width(self) -> float:
        return _longer(self.quad, (0, 1), (3, 2)) if self.quad is not None else float(self._edges[2] - self._edges[0])

    @property
    def height(self) -> float:
        return _longer(self.quad, (0, 3), (1, 2)) if self.quad is not None else float(self._edges[3] - self._edges[1])

    @property
    def _edges(self) -> tuple[int, int, int, int]:
        assert self.window is not None
        return self.window

    def covered(self, height_px: int, width_px: int) -> _Source:
        """The middle of it, with the aspect ratio of a crop of this size."""
        if self.quad is None:
            (x0, y0, x1, y1), aspect = self._edges, width_px / height_px
            width = max(1, min(x1 - x0, round((y1 - y0) * aspect)))
            height = max(1, min(y1 - y0, round((x1 - x0) / aspect)))
            left, top = x0 + (x1 - x0 - width) // 2, y0 + (y1 - y0 - height) // 2
            return _Source((left, top, left + width, top + height))
        part = (
            min(1.0, self.height * width_px / height_px / self.width),
            min(1.0, self.width * height_px / width_px / self.height),
        )
        across, down = ((1 - part[0]) / 2, (1 + part[0]) / 2), ((1 - part[1]) / 2, (1 + part[1]) / 2)
        corners = np.array([(across[i], down[j]) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))], np.float32)
        matrix = cv2.getPerspectiveTransform(_corners(1, 1), np.asarray(self.quad, np.float32))
        return _Source(None, cv2.perspectiveTransform(corners[None], matrix)[0])


def _aligned(detections: Detections, row: int, plan: CropPlan) -> Quad | None:
    keypoints = detections.keypoints
    return None if keypoints is None else aligned_quad(keypoints[row], plan.align, (plan.height_px, plan.max_width_px))


def cut_crops(
    image_bgr: ImageBgr, detections: Detections, plans: tuple[CropPlan, ...], max_total_bytes: int
) -> list[Crop]:
    """Cut one crop for each detection and plan that wants its class, in the order of the detections.

    Args:
        image_bgr: uint8 [H, W, 3].
        detections: in pixels of that image. A region thinner than a pixel gives no crop, and none for `fit_longest` if
            its four corners are no convex outline, as no homography leads there.
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
    total = sum(cut.width_px * cut.height_px * plans[cut.plan].channels for cut in cuts)
    if total > max_total_bytes:
        raise InvalidOption(
            f"the {len(cuts)} crops would take {total} bytes; at most {max_total_bytes} fit into an answer",
            metadata={"limit": "max_crop_bytes", "max": str(max_total_bytes)},
        )
    return [
        Crop(cut.detection, cut.plan, _cut(image_bgr, cut, plans[cut.plan]), cut.to_image, cut.turned) for cut in cuts
    ]


def _plan_cuts(image_shape: tuple[int, ...], detections: Detections, plans: tuple[CropPlan, ...]) -> Iterator[_Cut]:
    boxes = detections.boxes_xyxy_px
    # A box is cut to the whole pixels that it touches, so that no edge of a letter is lost.
    lower = np.floor(boxes[:, :2]).astype(int).tolist()
    upper = np.minimum(np.ceil(boxes[:, 2:]).astype(int), (image_shape[1], image_shape[0])).tolist()
    thin: list[bool] = np.less(boxes[:, 2:] - boxes[:, :2], 1).any(axis=1).tolist()
    for row, class_id in enumerate(detections.class_ids.tolist()):
        shape = detections.shapes.get(row)
        (x0, y0), (x1, y1) = lower[row], upper[row]
        # As it lies in the image; None of a region too thin to be cut.
        plain = (None if thin[row] else _Source((x0, y0, x1, y1))) if shape is None else _Source.of(quad_of(shape))
        for index, plan in enumerate(plans):
            if plan.class_ids is not None and class_id not in plan.class_ids:
                continue
            aligned = _aligned(detections, row, plan) if plan.align else None
            source = plain if aligned is None else _Source.of(aligned) or plain
            if source is None:
                continue
            if plan.rule == "cover" and source is plain:
                source = source.covered(plan.height_px, plan.max_width_px)
            window, quad, width, height = source.window, source.quad, source.width, source.height
            to_image = None
            # Keypoints say which side is up.
            turned = source is plain and plan.turns(height, width)
            size = plan.size_px(width, height) if turned else plan.size_px(height, width)
            if plan.rule == "fit_longest":
                to_image = _from_window(size, window) if window is not None else _from_quad(size, quad)
                if to_image is None:
                    continue
            corners = np.roll(quad, -1, axis=0) if turned and quad is not None else quad
            yield _Cut(row, index, *size, window, corners, to_image, turned)


def _cut(image_bgr: ImageBgr, cut: _Cut, plan: CropPlan) -> npt.NDArray[np.uint8]:
    size = (cut.width_px, cut.height_px)
    if cut.window is not None:
        x0, y0, x1, y1 = cut.window
        pixels = image_bgr[y0:y1, x0:x1]
        if cut.turned:
            pixels = np.asarray(cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE), np.uint8)
        pixels = _resize(pixels, size, plan.rule)
    else:
        assert cut.quad is not None
        pixels = _resize(_warp(image_bgr, cut.quad, _warped_size(image_bgr, cut, plan)), size, plan.rule)
    if plan.pixel_format == "rgb":
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    elif plan.pixel_format == "gray":
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    return np.ascontiguousarray(pixels, np.uint8)


def _resize(pixels: npt.NDArray[np.uint8], size: tuple[int, int], rule: ResizeRule) -> npt.NDArray[np.uint8]:
    """Bring pixels to a width and height."""
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    averaged = rule == "fit_longest" and max(size) <= max(height, width) * _AVERAGED_SCALE
    method = cv2.INTER_AREA if averaged else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size, interpolation=method), np.uint8)


def _warp(image_bgr: ImageBgr, quad: Quad, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Straighten a quad to a width and height."""
    # Corners are edges of pixels, while warpPerspective counts from their centres: hence the half.
    matrix = cv2.getPerspectiveTransform(np.asarray(quad, np.float32) - 0.5, _corners(*size) - 0.5)
    pixels = cv2.warpPerspective(image_bgr, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(pixels, np.uint8)


def _warped_size(image_bgr: ImageBgr, cut: _Cut, plan: CropPlan) -> tuple[int, int]:
    """Width and height in which a quad is straightened: that of its crop, or its own where it is to be averaged."""
    assert cut.quad is not None
    width, height = _longer(cut.quad, (0, 1), (3, 2)), _longer(cut.quad, (0, 3), (1, 2))
    longest, crop_longest = max(width, height), max(cut.width_px, cut.height_px)
    # What lies within the image is no larger than that; a detector of the user's own may say anything.
    within = longest <= _MAX_WARPED_PX and width * height <= image_bgr.shape[0] * image_bgr.shape[1]
    if plan.rule == "fit_longest" and within and crop_longest <= longest * _AVERAGED_SCALE:
        return round(width), round(height)
    return cut.width_px, cut.height_px


def _from_window(size: tuple[int, int], window: tuple[int, int, int, int]) -> Transform:
    """From a crop of this height and width to the window that it shows."""
    x0, y0, x1, y1 = window
    return ((x1 - x0) / size[1], 0.0, float(x0), 0.0, (y1 - y0) / size[0], float(y0), 0.0, 0.0, 1.0)


def _from_quad(size: tuple[int, int], quad: Quad | None) -> Transform | None:
    """From a crop of this height and width to the quad that it shows; None if the quad is not convex."""
    corners = _corners(size[1], size[0])
    matrix = cv2.getPerspectiveTransform(corners, np.asarray(quad, np.float32))
    # Within the crop a homography has no point at infinity if it has none between the corners.
    depths = np.c_[corners, np.ones(4)] @ matrix[2]
    if not np.isfinite(matrix).all() or not (depths > 0).all() or abs(np.linalg.det(matrix)) < _LEAST_DETERMINANT:
        return None
    return tuple(matrix.ravel().tolist())


def _corners(width: int, height: int) -> Quad:
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)


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
