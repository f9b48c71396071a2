"""Paragraphs: lines of a column at one distance from each other, divided where it grows, or where one is indented."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median_low

from sluiceway_orchestrator.geometry import Box

__all__ = ["paragraphs_of"]

# Of the usual distance of lines: more divides paragraphs.
_WIDE = 1.3
# Of the height of a line: what a headline differs by from the text below it.
_HIGHER = 1.4
# In heights of a line: how far the first line of a paragraph stands in, at least.
_INDENT = 0.8


def paragraphs_of(lines: Sequence[Box]) -> list[range]:
    """Divide the lines of a column.

    Args:
        lines: boxes from top to bottom, in a frame in which they are level.

    Returns:
        Ranges of positions, one behind the other.
    """
    if len(lines) < 2:
        return [range(len(lines))] if lines else []
    middles = [(y0 + y1) / 2 for _, y0, _, y1 in lines]
    distances = [lower - upper for upper, lower in pairwise(middles)]
    usual = median_low(distances)
    found, begin = [], 0
    wide = _WIDE * usual
    for at in range(1, len(lines)):
        if distances[at - 1] > wide or _differ(lines[at - 1], lines[at]) or _is_indented(lines, at):
            found.append(range(begin, at))
            begin = at
    found.append(range(begin, len(lines)))
    return found


def _differ(upper: Box, lower: Box) -> bool:
    if upper[0] > lower[2] or lower[0] > upper[2]:
        # Words of either stand above none of the other.
        return True
    first, second = upper[3] - upper[1], lower[3] - lower[1]
    return max(first, second) > _HIGHER * max(min(first, second), 1.0)


def _is_indented(lines: Sequence[Box], at: int) -> bool:
    """Whether a line stands in, between two that begin at one edge."""
    if at + 1 >= len(lines) or lines[at][0] <= lines[at - 1][0]:
        return False
    before, line, behind = lines[at - 1 : at + 2]
    least = _INDENT * (line[3] - line[1])
    return line[0] - max(before[0], behind[0]) >= least and abs(before[0] - behind[0]) < least / 2
