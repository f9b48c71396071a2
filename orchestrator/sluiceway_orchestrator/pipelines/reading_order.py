"""Reading order of the regions of an image: lines from top to bottom, from left to right within a line."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from operator import itemgetter
from statistics import median
from typing import NamedTuple

from sluiceway_orchestrator.geometry import Box

__all__ = ["Rows", "reading_order", "rows_of", "with_tall_boxes"]


# Two neighbours are on one line if they share at least this part of the height of the lower of the two: words of very
# different height still do, lines that touch with ascenders and descenders do not.
_SHARED_HEIGHT = 0.5
# A box this many times as tall as the typical one is no word of a line, but a figure (or an initial) beside some.
_TALL = 3.0
# Two neighbours say how much a line rises or falls if neither is more than so many times as tall as the other: the
# middle of a small figure says nothing about the slope of the line that goes on from it.
_LIKE_HEIGHT = 2.0


@dataclass(slots=True, eq=False)
class _Line:
    """Boxes of one line, from left to right.

    Attributes:
        end: the last box, which a further word is compared with, so that a line may rise or fall slowly (a page that
            was scanned askew).
        rows: of the page, in units of the typical height, that the last box lies in.
    """

    indices: list[int]
    end: Box
    rows: range


class Rows(NamedTuple):
    """Boxes in rows over the whole width of a page.

    Attributes:
        rows: from top to bottom, each with the height at which it would cross the left edge, and its boxes from left to
            right.
        slope: of the rows, pixels down for each pixel to the right.
        typical_px: height of a box.
        tall: boxes that are much taller, and in none of the rows.
    """

    rows: list[tuple[float, list[int]]]
    slope: float
    typical_px: float
    tall: list[int]


def reading_order(boxes_xyxy_px: Sequence[Box]) -> list[int]:
    """Order boxes as a person reads them in a script that runs from left to right.

    Boxes are taken from left to right; each joins the line whose last word lies most level with it, or begins one.
    Lines are then ordered from top to bottom, along the slope that the lines themselves have. Boxes that are much
    taller than the typical one take no part in this: a figure comes before the lines right of it, after those left of
    it, and the lines stay as they are without it.

    Args:
        boxes_xyxy_px: upright boxes, image pixels, finite.

    Returns:
        Indices of the boxes, in reading order.
    """
    return [index for row in with_tall_boxes(boxes_xyxy_px, rows_of(boxes_xyxy_px)) for index in row]


def rows_of(boxes_xyxy_px: Sequence[Box]) -> Rows:
    """Find the rows; see `reading_order`."""
    if not boxes_xyxy_px:
        return Rows([], 0.0, 1.0, [])
    heights_px = sorted([box[3] - box[1] for box in boxes_xyxy_px])
    typical_px = max(1.0, (heights_px[(len(heights_px) - 1) // 2] + heights_px[len(heights_px) // 2]) / 2)
    if heights_px[-1] <= _TALL * typical_px:
        lines, slope = _lines(boxes_xyxy_px, range(len(boxes_xyxy_px)), typical_px)
        return Rows(lines, slope, typical_px, [])
    tall = [i for i, box in enumerate(boxes_xyxy_px) if box[3] - box[1] > _TALL * typical_px]
    left_out = set(tall)
    words = [index for index in range(len(boxes_xyxy_px)) if index not in left_out]
    lines, slope = _lines(boxes_xyxy_px, words, typical_px)
    # At least half of all boxes are words, so this ends soon.
    ordered = [tall[index] for index in reading_order([boxes_xyxy_px[index] for index in tall])]
    return Rows(lines, slope, typical_px, ordered)


def with_tall_boxes(boxes_xyxy_px: Sequence[Box], found: Rows) -> list[list[int]]:
    """The rows with the tall boxes: within the one row that such a box lies beside, else between them by itself."""
    if not found.tall:
        return [row for _, row in found.rows]
    return _joined(boxes_xyxy_px, found.rows, found.slope, found.tall)


def _lines(
    boxes_xyxy_px: Sequence[Box], indices: Sequence[int], typical_px: float
) -> tuple[list[tuple[float, list[int]]], float]:
    """Lines from top to bottom, each with the height at which it would cross the left edge, and their slope."""
    if (alone := _below_each_other(boxes_xyxy_px, indices)) is not None:
        return alone, 0.0
    # The ends of all lines, by height on the page, so that a box meets only the few that lie beside it.
    beside: defaultdict[int, list[_Line]] = defaultdict(list)
    lines: list[_Line] = []
    slopes: list[float] = []
    for index in sorted(indices, key=lambda i: boxes_xyxy_px[i][:2]):
        box = boxes_xyxy_px[index]
        rows = range(int(box[1] // typical_px), int(box[3] // typical_px) + 1)
        line, shared = None, _SHARED_HEIGHT
        for row in rows:
            for candidate in beside[row]:
                level = _level(candidate.end, box)
                # Of two lines that are equally level the one that ends nearer goes on here.
                if level > shared or (level == shared and (line is None or candidate.end[2] > line.end[2])):
                    line, shared = candidate, level
        if line is None:
            line = _Line([index], box, rows)
            lines.append(line)
        else:
            across = _middle_x(box) - _middle_x(line.end)
            if across > 0 and _are_alike(box, line.end):
                slopes.append((_middle_y(box) - _middle_y(line.end)) / across)
            for row in line.rows:
                beside[row].remove(line)
            line.indices.append(index)
            line.end, line.rows = box, rows
        for row in rows:
            beside[row].append(line)
    slope = median(slopes) if slopes else 0.0

    found = [(_top(boxes_xyxy_px, line.indices, slope), line.indices) for line in lines]
    return sorted(found, key=itemgetter(0)), slope


def _below_each_other(boxes_xyxy_px: Sequence[Box], indices: Sequence[int]) -> list[tuple[float, list[int]]] | None:
    """The lines of a page on which no box lies beside another, as where whole lines are detected; None for others."""
    least, bottom = inf, -inf
    shares = -inf
    lines: list[tuple[float, list[int]]] = []
    for y0, y1, index in sorted([(boxes_xyxy_px[index][1], boxes_xyxy_px[index][3], index) for index in indices]):
        shares = max(shares, bottom - y0)
        bottom, least = max(bottom, y1), min(least, y1 - y0)
        lines.append(((y0 + y1) / 2, [index]))
    return lines if least > 0 and shares <= _SHARED_HEIGHT * least else None


def _top(boxes_xyxy_px: Sequence[Box], indices: Sequence[int], slope: float) -> float:
    """Where a line would cross the left edge of the image."""
    total = 0.0
    for index in indices:
        x0, y0, x1, y1 = boxes_xyxy_px[index]
        total += (y0 + y1 - slope * (x0 + x1)) / 2
    return total / len(indices)


def _joined(
    boxes_xyxy_px: Sequence[Box], lines: Sequence[tuple[float, list[int]]], slope: float, tall: Sequence[int]
) -> list[list[int]]:
    """Lines with the tall boxes between them; within a line those that are beside no other."""
    tops = [top for top, _ in lines]
    before: defaultdict[int, list[int]] = defaultdict(list)
    within: defaultdict[int, list[int]] = defaultdict(list)
    for index in tall:
        box = boxes_xyxy_px[index]
        fall = slope * _middle_x(box)
        first, end = bisect_left(tops, box[1] - fall), bisect_right(tops, box[3] - fall)
        if end - first == 1:
            within[first].append(index)
        elif end == first or boxes_xyxy_px[lines[first][1][0]][0] >= _middle_x(box):
            before[first].append(index)
        else:
            before[end].append(index)
    order: list[list[int]] = []
    for place, (_, line) in enumerate(lines):
        order += [[index] for index in before[place]]
        beside = within.get(place)
        order.append(line if beside is None else sorted((*line, *beside), key=lambda i: boxes_xyxy_px[i][0]))
    return order + [[index] for index in before[len(lines)]]


def _are_alike(first: Box, second: Box) -> bool:
    low, high = sorted((first[3] - first[1], second[3] - second[1]))
    return high <= _LIKE_HEIGHT * low


def _level(left: Box, right: Box) -> float:
    """Part of the lower box's height that the two share, 0..1."""
    shared = min(left[3], right[3]) - max(left[1], right[1])
    lower = min(left[3] - left[1], right[3] - right[1])
    if lower <= 0:
        return 1.0 if shared >= 0 else 0.0
    return shared / lower


def _middle_x(box: Box) -> float:
    return (box[0] + box[2]) / 2


def _middle_y(box: Box) -> float:
    return (box[1] + box[3]) / 2
