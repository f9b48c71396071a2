"""Lines that are too long to be read at once are divided between words.

A recogniser takes crops of some width at most; a longer line would be squeezed until its letters run into each other.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from sluiceway_detection.types import Detections, ImageBgr, RotatedBox, Shape, clip_boxes

__all__ = ["LONGEST_RATIO", "divide_long_lines"]

# Width over height that is divided: half as much again as a recogniser of lines takes (1920 columns of 48 rows). A line
# that is squeezed by less is read as well as its parts are, and none of its words can be cut in two.
LONGEST_RATIO = 60.0
_RATIO_OF_PARTS = 48.0
# Rows to which a line is brought to look for gaps, and columns of a gap between words there.
_ROWS, _GAP = 16, 4
# How far from its even place a cut may be, as a share of a part.
_REACH = 0.25


def divide_long_lines(image_bgr: ImageBgr, found: Detections) -> Detections:
    """Divide the lines that are longer than `LONGEST_RATIO` times their height.

    Args:
        image_bgr: uint8 [H, W, 3].
        found: its lines.

    Returns:
        The same, with the parts of a line in its place, in the order in which they are read.
    """
    boxes = found.boxes_xyxy_px
    ratios = (boxes[:, 2] - boxes[:, 0]) / np.maximum(boxes[:, 3] - boxes[:, 1], 1)
    for row, shape in found.shapes.items():
        if isinstance(shape, RotatedBox):
            ratios[row] = shape.width_px / max(shape.height_px, 1)
    long = np.flatnonzero(ratios > LONGEST_RATIO)
    if not len(long):
        return found
    counts = np.ones(len(found), np.intp)
    counts[long] = np.ceil(ratios[long] / _RATIO_OF_PARTS).astype(np.intp)
    source = np.repeat(np.arange(len(found)), counts)
    first = np.cumsum(counts) - counts
    parts = boxes[source]
    shapes: dict[int, Shape] = {int(first[row]): shape for row, shape in found.shapes.items() if counts[row] == 1}
    for row in long.tolist():
        line = _turned(boxes[row], found.shapes.get(row))
        for part, box in enumerate(_divided(image_bgr, line, int(counts[row]))):
            place = int(first[row]) + part
            parts[place] = clip_boxes(_around(box), *image_bgr.shape[:2])
            if row in found.shapes:
                shapes[place] = box
    return replace(
        found,
        boxes_xyxy_px=parts,
        class_ids=found.class_ids[source],
        confidences=found.confidences[source],
        shapes=shapes,
    )


def _divided(image_bgr: ImageBgr, line: RotatedBox, count: int) -> list[RotatedBox]:
    contrast = _contrast(image_bgr, line)
    even = len(contrast) / count
    cuts = [0.0]
    for number in range(1, count):
        begin, end = round((number - _REACH) * even), round((number + _REACH) * even)
        columns = np.arange(begin, max(end, begin + 1))
        # Of gaps that are equally clear, the one nearest to the even place.
        unclear = contrast[columns] + np.abs(columns - number * even) / even
        cuts.append((int(columns[np.argmin(unclear)]) + 0.5) / len(contrast))
    cuts.append(1.0)
    angle = math.radians(line.angle_degrees)
    along = (math.cos(angle) * line.width_px, math.sin(angle) * line.width_px)
    boxes = []
    for begun, ended in itertools.pairwise(cuts):
        off = (begun + ended) / 2 - 0.5
        centre = (line.center_xy_px[0] + off * along[0], line.center_xy_px[1] + off * along[1])
        boxes.append(RotatedBox(centre, (ended - begun) * line.width_px, line.height_px, line.angle_degrees))
    return boxes


def _contrast(image_bgr: ImageBgr, line: RotatedBox) -> npt.NDArray[np.float64]:
    """How much light and dark there is around each column of a line that is brought to a few rows, from 0 to 255."""
    scale = line.height_px / _ROWS
    columns = max(round(line.width_px / scale), 1)
    angle = math.radians(line.angle_degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) * scale
    # Pixels are counted from their centres here, boxes from the corners of pixels.
    offset = np.array(line.center_xy_px) - 0.5 - turn @ ((columns - 1) / 2, (_ROWS - 1) / 2)
    size, flags = (columns, _ROWS), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    straight = cv2.warpAffine(image_bgr, np.c_[turn, offset], size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    grey = cv2.cvtColor(straight, cv2.COLOR_BGR2GRAY)
    contrast = (grey.max(axis=0) - grey.min(axis=0))[None]
    return np.asarray(cv2.dilate(contrast, np.ones((1, _GAP), np.uint8))[0], np.float64)


def _turned(box: npt.NDArray[np.float32], shape: Shape | None) -> RotatedBox:
    if isinstance(shape, RotatedBox):
        return shape
    x0, y0, x1, y1 = (float(edge) for edge in box)
    return RotatedBox(((x0 + x1) / 2, (y0 + y1) / 2), x1 - x0, y1 - y0, 0.0)


def _around(box: RotatedBox) -> npt.NDArray[np.float32]:
    angle = math.radians(box.angle_degrees)
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    half_width = (box.width_px * cos + box.height_px * sin) / 2
    half_height = (box.width_px * sin + box.height_px * cos) / 2
    x, y = box.center_xy_px
    return np.array([x - half_width, y - half_height, x + half_width, y + half_height], np.float32)
