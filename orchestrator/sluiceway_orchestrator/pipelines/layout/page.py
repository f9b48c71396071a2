"""The layout of regions that lie beside each other: their order, their lines, and what these belong to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from sluiceway_orchestrator.geometry import Box
from sluiceway_orchestrator.pipelines.layout.columns import GAP, Piece, Row, columns_of
from sluiceway_orchestrator.pipelines.layout.paragraphs import paragraphs_of
from sluiceway_orchestrator.pipelines.reading_order import Rows, rows_of, with_tall_boxes

__all__ = ["Layout", "lay_out"]

# A page of fewer rows with a wide gap in them has no columns.
_LEAST_ROWS = 2


class Layout(NamedTuple):
    """What a page says, as positions of boxes.

    Attributes:
        order: of all boxes.
        lines: boxes of each line, in reading order. Every box is in one; a figure is one by itself.
        blocks: positions of lines that belong together, in reading order.
    """

    order: list[int]
    lines: list[list[int]]
    blocks: list[list[int]]


class _Line(NamedTuple):
    """A line, where it lies, and the block that it is part of."""

    indices: list[int]
    box: Box
    block: object


def lay_out(boxes: Sequence[Box], right_to_left: Collection[int] = frozenset()) -> Layout:
    """Find lines and blocks.

    Args:
        boxes: in a frame in which text runs from left to right, or from right to left; pixels, finite.
        right_to_left: positions of those whose text runs from right to left.
    """
    rows = rows_of(boxes)
    columns: list[list[Row]] = []
    # Without rows of several boxes there are none with gaps.
    if sum([len(row) > 1 for _, row in rows.rows]) >= _LEAST_ROWS:
        pieces = _pieces(boxes, rows)
        if sum([len(row) > 1 for row in pieces]) >= _LEAST_ROWS:
            leftwards = 2 * len(right_to_left) > len(boxes) - len(rows.tall)
            flat = [piece for row in pieces for piece in row]
            columns = columns_of(flat, rows.typical_px, right_to_left=leftwards)
    if len(columns) > 1:
        placed = _with_figures(boxes, [line for column in columns for line in _in_blocks(column)], rows.tall)
        lines = [line.indices for line in placed]
        blocks = [[at for at, _ in run] for _, run in groupby(enumerate(placed), lambda each: id(each[1].block))]
    else:
        lines = _as_rows(boxes, rows)
        blocks = [list(block) for block in paragraphs_of(_levelled(boxes, lines, rows.slope))]
    if right_to_left:
        lines = [_logical(line, right_to_left) for line in lines]
    return Layout([index for line in lines for index in line], lines, blocks)


def _in_blocks(column: Sequence[Row]) -> list[_Line]:
    boxes = [around([piece.box for piece in row]) for row in column]
    return [
        _Line([index for piece in column[at] for index in piece.indices], boxes[at], block)
        for block in paragraphs_of(boxes)
        for at in block
    ]


def _as_rows(boxes: Sequence[Box], rows: Rows) -> list[list[int]]:
    """A page without columns: its rows, with what is taller beside and between them."""
    tall = set(rows.tall)
    lines = [] if tall else [row for _, row in rows.rows]
    for row in with_tall_boxes(boxes, rows) if tall else ():
        before = lines[-1] if lines else []
        if tall.issuperset(row) and before and tall.issuperset(before) and _are_level(boxes[before[-1]], boxes[row[0]]):
            # Words of a headline.
            before += row
        else:
            lines.append(list(row))
    return lines


def _with_figures(boxes: Sequence[Box], lines: list[_Line], tall: Sequence[int]) -> list[_Line]:
    """A page of columns: lines with those of what is taller, each before the first line below it in its column."""
    before: dict[int, list[_Line]] = {}
    inner = lay_out([boxes[index] for index in tall])
    for figure in inner.lines:
        indices = [tall[at] for at in figure]
        box = around([boxes[index] for index in indices])
        before.setdefault(_place(box, lines), []).append(_Line(indices, box, object()))
    found: list[_Line] = []
    for number, line in enumerate(lines):
        found += before.get(number, ())
        found.append(line)
    return found + before.get(len(lines), [])


def _pieces(boxes: Sequence[Box], rows: Rows) -> list[list[Piece]]:
    """Rows, divided at wide gaps; in a frame in which they are level."""
    least, slope = GAP * rows.typical_px, rows.slope
    pieces: list[list[Piece]] = []
    for number, (_, row) in enumerate(rows.rows):
        if len(row) == 1 and not slope:
            pieces.append([Piece(boxes[row[0]], number, [*row])])
            continue
        parts: list[Piece] = []
        indices: list[int] = []
        left = top = right = bottom = 0.0
        for index in row:
            x0, y0, x1, y1 = boxes[index]
            if slope:
                fall = slope * (x0 + x1) / 2
                y0, y1 = y0 - fall, y1 - fall
            if indices and x0 - right < least:
                indices.append(index)
                top, right, bottom = min(top, y0), max(right, x1), max(bottom, y1)
                continue
            if indices:
                parts.append(Piece((left, top, right, bottom), number, indices))
            indices, left, top, right, bottom = [index], x0, y0, x1, y1
        parts.append(Piece((left, top, right, bottom), number, indices))
        pieces.append(parts)
    return pieces


def _levelled(boxes: Sequence[Box], lines: Sequence[Sequence[int]], slope: float) -> list[Box]:
    """The boxes around lines in a frame in which these are level."""
    if slope:
        return [_level(boxes, line, slope) for line in lines]
    return [around([boxes[index] for index in line]) if len(line) > 1 else boxes[line[0]] for line in lines]


def _level(boxes: Sequence[Box], indices: Sequence[int], slope: float) -> Box:
    x0, _, x1, _ = around([boxes[index] for index in indices])
    falls = [slope * (boxes[index][0] + boxes[index][2]) / 2 for index in indices]
    tops = [boxes[index][1] - fall for index, fall in zip(indices, falls, strict=True)]
    return x0, min(tops), x1, max(boxes[index][3] - fall for index, fall in zip(indices, falls, strict=True))


def _are_level(first: Box, second: Box) -> bool:
    shared = min(first[3], second[3]) - max(first[1], second[1])
    return 2 * shared > min(first[3] - first[1], second[3] - second[1])


def _logical(indices: Sequence[int], right_to_left: Collection[int]) -> list[int]:
    """Boxes of a line in the order of its script; words of the other one between them stay in theirs."""
    if 2 * sum(index in right_to_left for index in indices) <= len(indices):
        return list(indices)
    found: list[int] = []
    run: list[int] = []
    for index in reversed(indices):
        if index in right_to_left:
            found += reversed(run)
            run = []
            found.append(index)
        else:
            run.append(index)
    return [*found, *reversed(run)]


def _place(figure: Box, lines: Sequence[_Line]) -> int:
    """The line that a figure comes before: the first below it in its own column, or behind the last one above it."""
    x0, y0, x1, y1 = figure
    middle = (y0 + y1) / 2
    last = None
    for number, other in enumerate(lines):
        left, top, right, bottom = other.box
        if min(x1, right) - max(x0, left) <= 0:
            continue
        if (top + bottom) / 2 >= middle:
            return number
        last = number
    if last is not None:
        return last + 1
    # Beside everything: before what stands right of it, at its height.
    return next((at for at, line in enumerate(lines) if line.box[0] >= x0 and line.box[3] >= y0), len(lines))


def around(boxes: Iterable[Box]) -> Box:
    """The box around some."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)
