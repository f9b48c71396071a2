"""Lines of the text that a page holds, put together from the pieces in which files have it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["PageText", "TextLine", "joined"]

# Pieces that overlap by half of the lower one's height, and are no farther apart than a letter is high, are one line.
_SAME_LINE = 0.5
_SAME_WORDS = 1.0
# A gap of so much of the height is a space, where the pieces have none themselves.
_SPACE = 0.15


class TextLine(NamedTuple):
    """A line; left, top, right and bottom in pixels of the page as it would be rendered."""

    box_xyxy_px: tuple[float, float, float, float]
    text: str


class PageText(NamedTuple):
    """What a page says: height and width in pixels, and its lines; at least one."""

    size_px: tuple[int, int]
    lines: tuple[TextLine, ...]


def joined(pieces: Iterable[TextLine]) -> list[TextLine]:
    """Join pieces that follow each other on one line, in the order in which they come."""
    lines: list[TextLine] = []
    for piece in pieces:
        if not piece.text.strip():
            continue
        if lines and (gap := _gap(lines[-1], piece)) is not None:
            last = lines[-1]
            bare = last.text[-1:].isspace() or piece.text[:1].isspace()
            space = " " if gap > _SPACE and not bare else ""
            box = (
                min(last.box_xyxy_px[0], piece.box_xyxy_px[0]),
                min(last.box_xyxy_px[1], piece.box_xyxy_px[1]),
                max(last.box_xyxy_px[2], piece.box_xyxy_px[2]),
                max(last.box_xyxy_px[3], piece.box_xyxy_px[3]),
            )
            lines[-1] = TextLine(box, last.text + space + piece.text)
        else:
            lines.append(piece)
    return [TextLine(line.box_xyxy_px, " ".join(line.text.split())) for line in lines]


def _gap(before: TextLine, after: TextLine) -> float | None:
    """How far apart they are, in heights; None if they are not of one line."""
    _, top, right, bottom = before.box_xyxy_px
    left, next_top, _, next_bottom = after.box_xyxy_px
    height = min(bottom - top, next_bottom - next_top)
    overlap = min(bottom, next_bottom) - max(top, next_top)
    if height <= 0 or overlap < _SAME_LINE * height:
        return None
    gap = (left - right) / max(bottom - top, next_bottom - next_top)
    return gap if -_SAME_LINE < gap <= _SAME_WORDS else None
