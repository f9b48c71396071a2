"""How a page is turned: which way its text runs, and its boxes as they would lie if it ran from left to right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import cos, radians, sin
from typing import NamedTuple

from sluiceway_orchestrator.geometry import Box, TurnedBox

__all__ = ["Direction", "boxes_in", "direction_of"]

# A page is turned by a quarter or by half if so much of its text says so, and at least so many regions do.
_AGREEING = 0.6
_LEAST_REGIONS = 3
# An angle below this (degrees) is left as it is: lines may rise and fall by themselves.
_LEVEL = 0.2
# A side of a turned box that is so far off (degrees) the page's lies along it: of a line that is not quite parallel the
# box around it would be far too high.
_PARALLEL = 10.0


class Direction(NamedTuple):
    """Which way text runs.

    Attributes:
        quarter: 0, 90 (down), 180 or 270 (up): what the page is turned by, clockwise.
        angle: what is left of it, degrees clockwise, within -45 to 45.
    """

    quarter: int = 0
    angle: float = 0.0


def direction_of(boxes: Sequence[Box], turned: Mapping[int, TurnedBox], rotations: Mapping[int, int]) -> Direction:
    """Find the direction of most of the text.

    Args:
        boxes: upright boxes around all regions.
        turned: those of them that are not upright, by position.
        rotations: by how much text is turned in its region, by position, of those where something was read.
    """
    if not turned and not any(rotations.values()):
        return Direction()
    weights = dict.fromkeys((0, 90, 180, 270), 0.0)
    counts = dict.fromkeys(weights, 0)
    for position, rotation in rotations.items():
        box = turned.get(position)
        angle = box.angle_degrees if box is not None else 0.0
        x0, y0, x1, y1 = boxes[position]
        weight = max(box.width, box.height) if box is not None else max(x1 - x0, y1 - y0)
        quarter = round((angle + rotation) / 90) % 4 * 90
        weights[quarter] += weight
        counts[quarter] += 1
    quarter = max(weights, key=lambda each: weights[each])
    if counts[quarter] < _LEAST_REGIONS or weights[quarter] < _AGREEING * sum(weights.values()):
        quarter = 0
    leftovers = [((box.angle_degrees + 45) % 90 - 45, max(box.width, box.height)) for box in turned.values()]
    angle = _median(leftovers) if 2 * len(turned) >= len(boxes) else 0.0
    return Direction(quarter, angle if abs(angle) >= _LEVEL else 0.0)


def boxes_in(direction: Direction, boxes: Sequence[Box], turned: Mapping[int, TurnedBox]) -> list[Box]:
    """Boxes in the frame of the text: its x runs along lines, its y from line to line. The origin stays where it is.

    Lengths stay pixels. In a frame that is turned coordinates may be negative.
    """
    if direction == Direction() and not turned:
        return list(boxes)
    whole = direction.quarter + direction.angle
    across, down = cos(radians(whole)), sin(radians(whole))
    moved: list[Box] = []
    for position, (x0, y0, x1, y1) in enumerate(boxes):
        box = turned.get(position)
        if box is None:
            box = TurnedBox((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, 0.0)
        x, y = box.x * across + box.y * down, box.y * across - box.x * down
        half_width, half_height = _halves(box, whole)
        moved.append((x - half_width, y - half_height, x + half_width, y + half_height))
    return moved


def _halves(box: TurnedBox, whole: float) -> tuple[float, float]:
    """Half of the width and of the height that a box has in a frame turned by so many degrees."""
    off = (box.angle_degrees - whole) % 180
    if min(off, 180 - off) <= _PARALLEL:
        return box.width / 2, box.height / 2
    if abs(off - 90) <= _PARALLEL:
        return box.height / 2, box.width / 2
    across, down = abs(cos(radians(off))), abs(sin(radians(off)))
    return (box.width * across + box.height * down) / 2, (box.width * down + box.height * across) / 2


def _median(weighted: Iterable[tuple[float, float]]) -> float:
    """The weighted median of (value, weight)."""
    ordered = sorted(weighted)
    half = sum(weight for _, weight in ordered) / 2
    for value, weight in ordered:
        half -= weight
        if half <= 0:
            return value
    return 0.0
