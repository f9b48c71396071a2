"""Columns: text that is read from top to bottom before what stands right of it, and tables, which are read by rows.

A page is looked at in bands, which no white space from left to right divides further. Neighbouring bands that leave the
same gap free are a zone. The gap divides columns if there is running text on both sides of it: lines that are long, and
fill their column. Else what lies left and right of it belongs together, as in a table.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sluiceway_orchestrator.geometry import Box

__all__ = ["Piece", "Row", "columns_of"]

# In typical heights of a word: the least width of a gap between columns. Gaps between words are a third, in justified
# lines up to one.
GAP = 1.0
# And the least median length of the lines of running text, some 15 characters.
_LINE = 6.0
# Of the longest line: the least median length of the lines of running text. Cells of a table differ more.
_FILLED = 0.6
# In typical heights: how far apart lines left and right of a gap may stand to be level.
_LEVEL = 0.2
# On each side of a gap.
_LEAST_LINES = 2
# Nobody sets text in more columns. What leaves more gaps free is a table, and is not looked at gap by gap.
_MOST_GAPS = 15
# Columns within columns; a page has no more, and something that looks as if it had must end.
_DEEPEST = 4
# Of its height, above and below: what a line may share with the one beside it. Ascenders and descenders do.
_MARGIN = 0.25

Gap = tuple[float, float]
"""From left to right."""


class Piece(NamedTuple):
    """A part of a row without a wide gap in it.

    Attributes:
        box: in a frame in which lines are level.
        row: its number; pieces of one row are level.
        indices: of its boxes, from left to right.
    """

    box: Box
    row: int
    indices: list[int]


Row = list[Piece]
"""Pieces of one column that are level, from left to right."""


class _Zone:
    """Bands one below the other that leave the same gaps free."""

    def __init__(self, band: Sequence[Piece], free: list[Gap], inner: list[Gap]) -> None:
        self.pieces = list(band)
        # What no piece covers so far, and which of that has pieces on both sides.
        self.free = free
        self.gaps = inner

    def take(self, band: Sequence[Piece], free: list[Gap], inner: list[Gap], least: float) -> bool:
        """Take in the next band; False if it does not belong here."""
        if self.gaps:
            gaps = _common(self.gaps, free, least)
            if not gaps:
                return False
        else:
            gaps = _common(self.free, inner, least)
            if inner and not gaps:
                return False
        self.pieces += band
        self.free, self.gaps = _common(self.free, free, least), gaps
        return True


def columns_of(pieces: Sequence[Piece], typical_px: float, *, right_to_left: bool = False) -> list[list[Row]]:
    """Divide a page into columns.

    Args:
        pieces: of all rows.
        typical_px: height of a word.
        right_to_left: whether the column at the right comes first.

    Returns:
        Columns in reading order, each with its rows from top to bottom.
    """
    return _read(pieces, typical_px, right_to_left, 0)


def _read(pieces: Sequence[Piece], typical_px: float, right_to_left: bool, depth: int) -> list[list[Row]]:
    columns: list[list[Row]] = []
    rows: list[Row] = []
    for zone in _zones(pieces, typical_px):
        gaps = zone.gaps if depth < _DEEPEST and len(zone.gaps) <= _MOST_GAPS else []
        gaps = [gap for gap in gaps if _divides(gap, zone.pieces, typical_px)]
        if not gaps:
            rows += _rows(zone.pieces)
            continue
        if rows:
            columns.append(rows)
            rows = []
        parts = _parts(zone.pieces, gaps)
        for part in reversed(parts) if right_to_left else parts:
            columns += _read(part, typical_px, right_to_left, depth + 1)
    if rows:
        columns.append(rows)
    return columns


def _zones(pieces: Sequence[Piece], typical_px: float) -> list[_Zone]:
    left, right = min(piece.box[0] for piece in pieces), max(piece.box[2] for piece in pieces)
    least = GAP * typical_px
    zones: list[_Zone] = []
    for band in _bands(pieces):
        free, inner = _free(band, left, right, least)
        if not (zones and zones[-1].take(band, free, inner, least)):
            zones.append(_Zone(band, free, inner))
    return zones


def _bands(pieces: Sequence[Piece]) -> Iterable[list[Piece]]:
    band: list[Piece] = []
    end = 0.0
    for piece in sorted(pieces, key=_top):
        _, y0, _, y1 = piece.box
        if band and y0 + _MARGIN * (y1 - y0) >= end:
            yield band
            band = []
        bottom = y1 - _MARGIN * (y1 - y0)
        end = max(end, bottom) if band else bottom
        band.append(piece)
    yield band


def _free(band: Sequence[Piece], left: float, right: float, least: float) -> tuple[list[Gap], list[Gap]]:
    """What a band leaves free, and which of that lies between pieces."""
    inner: list[Gap] = []
    begin, end = right, left
    for piece in sorted(band, key=_left):
        x0, _, x1, _ = piece.box
        if begin > x0:
            begin = x0
        elif x0 - end >= least:
            inner.append((end, x0))
        end = max(end, x1)
    free = [*inner]
    if begin - left >= least:
        free.insert(0, (left, begin))
    if right - end >= least:
        free.append((end, right))
    return free, inner


def _common(first: Sequence[Gap], second: Sequence[Gap], least: float) -> list[Gap]:
    """What is free in both; both from left to right."""
    found: list[Gap] = []
    i = j = 0
    while i < len(first) and j < len(second):
        begin, end = max(first[i][0], second[j][0]), min(first[i][1], second[j][1])
        if end - begin >= least:
            found.append((begin, end))
        if first[i][1] < second[j][1]:
            i += 1
        else:
            j += 1
    return found


def _divides(gap: Gap, pieces: Sequence[Piece], typical_px: float) -> bool:
    """Whether what lies left and right of a gap is read one after the other."""
    left, right = _parts(pieces, [gap])
    # Of three columns only the neighbours are looked at: whatever is left of both, and so on.
    fewer = min(len({piece.row for piece in left}), len({piece.row for piece in right}))
    if fewer < _LEAST_LINES:
        return False
    if _is_running(left, typical_px) and _is_running(right, typical_px):
        return True
    # Lines of a table are level; of columns that have nothing to do with each other few are.
    return fewer > _LEAST_LINES and not _are_level(left, right, typical_px)


def _is_running(pieces: Sequence[Piece], typical_px: float) -> bool:
    lengths = sorted([piece.box[2] - piece.box[0] for piece in pieces])
    median = lengths[len(lengths) // 2]
    return median >= _LINE * typical_px and median >= _FILLED * lengths[-1]


def _are_level(left: Sequence[Piece], right: Sequence[Piece], typical_px: float) -> bool:
    fewer, more = sorted((left, right), key=len)
    middles = {piece.row: _middle(piece) for piece in more}
    far = 2 * _LEVEL * typical_px
    level = sum(abs(_middle(piece) - middles.get(piece.row, -far - abs(_middle(piece)))) < far / 2 for piece in fewer)
    return 2 * level >= len(fewer)


def _parts(pieces: Sequence[Piece], gaps: Sequence[Gap]) -> list[list[Piece]]:
    """What lies between the gaps, from left to right."""
    ends = [(begin + end) / 2 for begin, end in gaps]
    parts: list[list[Piece]] = [[] for _ in range(len(gaps) + 1)]
    for piece in pieces:
        middle = (piece.box[0] + piece.box[2]) / 2
        parts[bisect_left(ends, middle)].append(piece)
    return [part for part in parts if part]


def _rows(pieces: Sequence[Piece]) -> list[Row]:
    by_row: dict[int, Row] = {}
    for piece in pieces:
        by_row.setdefault(piece.row, []).append(piece)
    rows = list(by_row.values())
    for row in rows:
        row.sort(key=_left)
    rows.sort(key=lambda row: sum(map(_middle, row)) / len(row))
    return rows


def _left(piece: Piece) -> float:
    return piece.box[0]


def _top(piece: Piece) -> float:
    return piece.box[1]


def _middle(piece: Piece) -> float:
    return (piece.box[1] + piece.box[3]) / 2
