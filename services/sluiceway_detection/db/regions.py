"""From a map of probabilities to turned boxes around lines of text.

The model draws the core of each line: the line, shrunk on all sides. A region is the smallest turned rectangle around
the pixels of one core, grown back. It is kept if the map is sure enough, in the mean of the rectangle.

Source: Liao et al., "Real-time Scene Text Detection with Differentiable Binarization", AAAI 2020, section 3; the order
of the tests and their numbers are those of PP-OCR.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from sluiceway_detection.inputs.letterbox import Letterbox
from sluiceway_detection.selection import Selection
from sluiceway_detection.types import Detections, RotatedBox, Shape, clip_boxes, has_area

__all__ = ["TEXT_CLASS", "Map", "MapReading", "select_map"]

FloatArray = npt.NDArray[np.float64]
Map = npt.NDArray[np.floating] | npt.NDArray[np.uint8]
"""How likely each pixel is text: from 0 to 1, or in bytes from 0 to 255."""

# The only one that there is.
TEXT_CLASS = 0
# Cores that are looked at, the longest outlines first; PP-OCR has the same bound.
MAX_CANDIDATES = 3000
# A core that is thinner is noise; pixels of the map.
_LEAST_SIDE_PX = 3.0
# A line from this ratio of its sides on: what recognisers take for one that stands, if it is high and not wide.
_ELONGATED = 1.5
_STEEPEST_DEGREES = 60.0
# A box whose ends lie less than this part of its height above or below each other is not turned: its crop is then cut
# out in place of being warped.
_LEVEL = 0.1
# A pixel whose centre lies on an edge is inside, whatever the last digits of OpenCV's float32 say.
_EDGE_PX = 0.01
# Coordinates lie within the image, whatever becomes of their last digits on the way.
_INSET_PX = 0.01
# Of a map whose numbers are bytes.
_FULL_BYTE = 255.0
# No number is divided by 0.
_TINY = 1e-9


class MapReading(NamedTuple):
    """How a map is read.

    Attributes:
        threshold: a pixel above it belongs to a core.
        unclip: how far a core is grown: by its area times this, divided by its outline, on each side.
    """

    threshold: float = 0.3
    unclip: float = 1.5


class _Boxes(NamedTuple):
    """Turned rectangles, all arrays [N]: pixels, and radians clockwise from -pi/3 to pi/3."""

    x: FloatArray
    y: FloatArray
    width: FloatArray
    height: FloatArray
    angle: FloatArray

    def rows(self, kept: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> _Boxes:
        return _Boxes(*(values[kept] for values in self))


def select_map(
    output: Map,
    letterbox: Letterbox,
    selection: Selection,
    reading: MapReading,
) -> Detections:
    """Read the map of one image.

    Args:
        output: [1, H, W], the input's height and width: from 0 to 1, where what is no number counts as no text; or
            uint8 from 0 to 255.
        letterbox: how the image lay in the input.
        selection: what is wanted. `confidence` is the least mean of the map within a region; `iou` has no effect.
        reading: thresholds of the model.

    Returns:
        Regions in original pixels by falling confidence; those that lie straight have no shape.
    """
    # Whatever was found in the padding is nowhere in the image.
    map_ = letterbox.inside(output[0])
    full, threshold = 1.0, reading.threshold
    if map_.dtype == np.uint8:
        # A whole number: with a fraction all of the map would be compared in float64.
        full, threshold = _FULL_BYTE, int(reading.threshold * _FULL_BYTE)
    else:
        map_ = np.asarray(map_, np.float32)
    wanted = selection.class_ids is None or TEXT_CLASS in selection.class_ids
    boxes = _cores(map_, threshold) if wanted else None
    if boxes is None:
        return _detections(_Boxes(*np.empty((5, 0))), np.empty(0), letterbox, selection.max_detections)
    confidences = _means(map_, boxes) / full
    kept = confidences > selection.confidence
    return _detections(_grown(boxes.rows(kept), reading.unclip), confidences[kept], letterbox, selection.max_detections)


def _cores(map_: npt.NDArray[Any], threshold: float) -> _Boxes | None:
    """The smallest rectangles around the cores, through the centres of their outermost pixels."""
    # CCOMP finds what lies inside a hole of another core, which EXTERNAL leaves out; holes themselves have a parent.
    outlines, tree = cv2.findContours((map_ > threshold).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not len(outlines):
        return None
    outer = np.flatnonzero(tree[0, :, 3] < 0)
    if len(outer) > MAX_CANDIDATES:
        lengths = np.array([cv2.arcLength(outlines[row], True) for row in outer.tolist()])
        outer = outer[np.argsort(-lengths, kind="stable")[:MAX_CANDIDATES]]
    found = np.array(
        [(*c, *s, a) for c, s, a in (cv2.minAreaRect(outlines[row]) for row in outer.tolist())], np.float64
    )
    x, y, width, height, degrees = found.T
    # Which side is the width is OpenCV's choice. Here it is the one that lies flatter, or the longer one of a line
    # that climbs by up to 60 degrees: what stands more upright is read downwards.
    quarters = np.round(degrees / 90)
    swapped = quarters % 2 == 1
    width, height = np.where(swapped, height, width), np.where(swapped, width, height)
    angle = degrees - 90 * quarters
    other = angle - np.copysign(90, angle)
    climbs = (height >= _ELONGATED * width) & (np.abs(other) <= _STEEPEST_DEGREES)
    width, height = np.where(climbs, height, width), np.where(climbs, width, height)
    boxes = _Boxes(x, y, width, height, np.radians(np.where(climbs, other, angle)))
    # Cores of four rows, those of the lowest print, have just the least height: their last digits must not decide.
    return boxes.rows(np.minimum(width, height) >= _LEAST_SIDE_PX - _EDGE_PX)


def _means(map_: npt.NDArray[Any], boxes: _Boxes) -> FloatArray:
    """Mean of the map over the pixels whose centres lie in each box; 0 where there is none.

    A row of pixels in a box is a span, and the sum of a span is a difference of sums from the left edge on; so all rows
    of all boxes are summed at once.
    """
    height, width = map_.shape
    sums = cv2.integral(map_)
    cos, sin = np.cos(boxes.angle), np.sin(boxes.angle)
    half_width, half_height = boxes.width / 2 + _EDGE_PX, boxes.height / 2 + _EDGE_PX
    reach = np.abs(sin) * half_width + cos * half_height  # up and down from the centre
    first = np.maximum(np.ceil(boxes.y - reach), 0).astype(np.intp)
    last = np.minimum(np.floor(boxes.y + reach), height - 1).astype(np.intp)
    counts = np.maximum(last - first + 1, 0)
    box = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    y = np.arange(len(box)) - starts[box] + first[box]
    down = y - boxes.y[box]
    # A turned box is where two stripes cross: between its ends, and between its upper and lower edge.
    sin = np.where(np.abs(sin) < _TINY, _TINY, sin)
    ends = (-down * sin[box] + np.stack((-half_width, half_width))[:, box]) / cos[box]
    edges = (down * cos[box] + np.stack((-half_height, half_height))[:, box]) / sin[box]
    left = boxes.x[box] + np.maximum(ends[0], edges.min(axis=0))
    right = boxes.x[box] + np.minimum(ends[1], edges.max(axis=0))
    begin = np.clip(np.ceil(left), 0, width).astype(np.intp)
    end = np.clip(np.floor(right) + 1, begin, width).astype(np.intp)
    spans = sums[y + 1, end] - sums[y, end] - sums[y + 1, begin] + sums[y, begin]
    total = np.bincount(box, spans, len(counts))
    pixels = np.bincount(box, end - begin, len(counts))
    return total / np.maximum(pixels, 1)


def _grown(boxes: _Boxes, unclip: float) -> _Boxes:
    """Grow each box on all sides. A rectangle that is offset by a distance has that rectangle as its smallest one."""
    distance = boxes.width * boxes.height * unclip / np.maximum(2 * (boxes.width + boxes.height), _TINY)
    return boxes._replace(width=boxes.width + 2 * distance, height=boxes.height + 2 * distance)


def _inside(boxes: _Boxes, image_shape: tuple[int, int]) -> _Boxes:
    """Pull in the sides that lie beyond the image, each by itself. One that lies there as a whole has no size then.

    Each corner is the farthest one in one direction: to the right of a box that is turned clockwise, for example, its
    upper right one. So first the ends are pulled in, as if all of the height stayed, and then the upper and lower side.
    """
    x, y, width, height, angle = boxes
    cos, sin = np.cos(angle), np.abs(np.sin(angle))
    beyond = sin * height / 2
    right = np.minimum(width / 2, (image_shape[1] - _INSET_PX - x - beyond) / cos)
    left = np.minimum(width / 2, (x - _INSET_PX - beyond) / cos)
    clockwise = angle >= 0
    bottom = np.minimum(height / 2, (image_shape[0] - _INSET_PX - y - sin * np.where(clockwise, right, left)) / cos)
    top = np.minimum(height / 2, (y - _INSET_PX - sin * np.where(clockwise, left, right)) / cos)
    along, down = (right - left) / 2, (bottom - top) / 2
    return _Boxes(
        x + along * np.cos(angle) - down * np.sin(angle),
        y + along * np.sin(angle) + down * np.cos(angle),
        np.maximum(right + left, 0),
        np.maximum(bottom + top, 0),
        angle,
    )


def _detections(boxes: _Boxes, confidences: FloatArray, letterbox: Letterbox, at_most: int) -> Detections:
    """Bring boxes from the map to the image."""
    order = np.argsort(-confidences, kind="stable")
    boxes, confidences = boxes.rows(order), confidences[order]
    gain_x = letterbox.image_shape[1] / letterbox.content_shape[1]
    gain_y = letterbox.image_shape[0] / letterbox.content_shape[0]
    cos, sin = np.cos(boxes.angle), np.sin(boxes.angle)
    # The origin of the map is the centre of a pixel, that of the image the corner of one.
    x, y = (boxes.x + 0.5) * gain_x, (boxes.y + 0.5) * gain_y
    # Rounding scales both sides a little differently.
    width = boxes.width * np.hypot(cos * gain_x, sin * gain_y)
    height = boxes.height * np.hypot(sin * gain_x, cos * gain_y)
    angle = np.arctan2(sin * gain_y, cos * gain_x)
    longer, shorter = np.maximum(boxes.width, boxes.height), np.minimum(boxes.width, boxes.height)
    level = np.abs(sin) * longer < _LEVEL * shorter
    x, y, width, height, angle = _inside(_Boxes(x, y, width, height, np.where(level, 0, angle)), letterbox.image_shape)
    half_width = (np.cos(angle) * width + np.abs(np.sin(angle)) * height) / 2
    half_height = (np.abs(np.sin(angle)) * width + np.cos(angle) * height) / 2
    upright = np.stack((x - half_width, y - half_height, x + half_width, y + half_height), axis=1).astype(np.float32)
    upright = clip_boxes(upright, *letterbox.image_shape)
    kept = np.flatnonzero(has_area(upright) & (np.minimum(width, height) > 0))
    shapes: dict[int, Shape] = {
        row: RotatedBox((centre_x, centre_y), its_width, its_height, degrees)
        for row, (centre_x, centre_y, its_width, its_height, degrees, straight) in enumerate(
            zip(*(values[kept].tolist() for values in (x, y, width, height, np.degrees(angle), level)), strict=True)
        )
        if not straight
    }
    found = Detections(
        upright[kept],
        np.full(len(kept), TEXT_CLASS, np.int32),
        np.minimum(confidences[kept], 1).astype(np.float32),
        shapes,
    )
    return found.first(at_most)
