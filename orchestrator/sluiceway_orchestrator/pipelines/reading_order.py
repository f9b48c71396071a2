"""Reading order of the regions of an image: lines from top to bottom, from left to right within a line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from sluiceway_orchestrator.geometry import Box

__all__ = ["reading_order"]


# Two neighbours are on one line if they share at least this part of the height of the lower of the two: words of very
# different height still do, lines that touch with ascenders and descenders do not.
_SHARED_HEIGHT = 0.5


@dataclass(slots=True, eq=False)
class _Line:
    """Boxes of one line, from left to right.

    Attributes:
        end: the last box, which a further word is compared with, so that a line may rise or fall slowly (a page that
            was scanned askew).
    """

    indices: list[int]
    end: Box


class _Ends:
    """The ends of all lines, by height on the page, so that a box meets only the few that lie beside it."""

    def __init__(self, step_px: float) -> None:
        self._step_px = step_px
        self._rows: defaultdict[int, list[_Line]] = defaultdict(list)

    def beside(self, box: Box) -> Iterable[_Line]:
        """Lines that may share height with the box; some come twice."""
        for row in self._span(box):
            yield from self._rows.get(row, ())

    def add(self, line: _Line) -> None:
        for row in self._span(line.end):
            self._rows[row].append(line)

    def remove(self, line: _Line) -> None:
        for row in self._span(line.end):
            self._rows[row].remove(line)

    def _span(self, box: Box) -> range:
        return range(int(box[1] // self._step_px), int(box[3] // self._step_px) + 1)


def reading_order(boxes_xyxy_px: Sequence[Box]) -> list[int]:
    """Order boxes as a person reads them in a script that runs from left to right.

    Boxes are taken from left to right; each joins the line whose last word lies most level with it, or begins one.
    Lines are then ordered from top to bottom, along the slope that the lines themselves have.

    Args:
        boxes_xyxy_px: upright boxes, image pixels, finite.

    Returns:
        Indices of the boxes, in reading order.
    """
    if not boxes_xyxy_px:
        return []
    ends = _Ends(max(1.0, median(box[3] - box[1] for box in boxes_xyxy_px)))
    lines: list[_Line] = []
    slopes: list[float] = []
    for index in sorted(range(len(boxes_xyxy_px)), key=lambda i: boxes_xyxy_px[i][:2]):
        box = boxes_xyxy_px[index]
        line, shared = None, _SHARED_HEIGHT
        for candidate in ends.beside(box):
            level = _level(candidate.end, box)
            # Of two lines that are equally level the one that ends nearer goes on here.
            if level > shared or (level == shared and (line is None or candidate.end[2] > line.end[2])):
                line, shared = candidate, level
        if line is None:
            line = _Line([index], box)
            lines.append(line)
        else:
            across = _middle_x(box) - _middle_x(line.end)
            if across > 0:
                slopes.append((_middle_y(box) - _middle_y(line.end)) / across)
            ends.remove(line)
            line.indices.append(index)
            line.end = box
        ends.add(line)
    slope = median(slopes) if slopes else 0.0

    def top(line: _Line) -> float:
        """Where the line would cross the left edge of the image."""
        boxes = [boxes_xyxy_px[index] for index in line.indices]
        return sum(_middle_y(box) - slope * _middle_x(box) for box in boxes) / len(boxes)

    return [index for line in sorted(lines, key=top) for index in line.indices]


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
