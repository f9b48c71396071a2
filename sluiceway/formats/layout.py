"""The text of a result as pages, blocks, lines and words, from what the server says of lines and blocks if it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sluiceway.client.regions import Box, Region
from sluiceway.client.results import Page, Result

__all__ = ["Block", "Line", "PageLayout", "layout_of"]

# Words of one line share so much of the height of the smaller one.
SHARED_HEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Line:
    """Regions with text that stand in a line, in reading order; at least one."""

    words: tuple[Region, ...]

    @property
    def text(self) -> str:
        """Its words, with a space between each two."""
        return " ".join(word.text or "" for word in self.words)

    @property
    def box(self) -> Box:
        """Around all of them."""
        return _around([word.box for word in self.words])


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that belong together, in reading order; at least one."""

    lines: tuple[Line, ...]

    @property
    def box(self) -> Box:
        """Around all of them."""
        return _around([line.box for line in self.lines])


@dataclass(frozen=True, slots=True)
class PageLayout:
    """One page; a page without text has no blocks."""

    page: Page
    blocks: tuple[Block, ...]


def layout_of(result: Result) -> list[PageLayout]:
    """Arrange the text of a result.

    Args:
        result: lines and blocks that it names are taken as they are. Regions that are in none follow in reading order:
            those that stand side by side are a line, and all of them are one block.
    """
    return [PageLayout(page, tuple(_blocks(result, page.index))) for page in result.pages]


def _blocks(result: Result, page: int) -> Iterator[Block]:
    known = {region.id: region for region in result.regions if region.page == page and region.text}
    used: set[int] = set()
    lines: dict[int, Line] = {}
    for place, line in enumerate(result.lines):
        words = tuple(known[key] for key in line.region_ids if key in known and key not in used)
        used |= {word.id for word in words}
        if words:
            lines[place] = Line(words)
    for block in result.blocks:
        found = tuple(lines.pop(place) for place in block.lines if place in lines)
        if found:
            yield Block(found)
    rest = [*lines.values(), *_lines([region for key, region in known.items() if key not in used])]
    if rest:
        yield Block(tuple(rest))


def _lines(regions: Sequence[Region]) -> Iterator[Line]:
    """Part regions in reading order where the next one does not stand to the right of the one before."""
    words: list[Region] = []
    for region in regions:
        if words and not _is_next_to(words[-1].box, region.box):
            yield Line(tuple(words))
            words = []
        words.append(region)
    if words:
        yield Line(tuple(words))


def _is_next_to(left: Box, right: Box) -> bool:
    shared = min(left.y1, right.y1) - max(left.y0, right.y0)
    return shared >= SHARED_HEIGHT * min(left.height, right.height) and right.x0 >= (left.x0 + left.x1) / 2


def _around(boxes: Sequence[Box]) -> Box:
    return Box(
        min(box.x0 for box in boxes),
        min(box.y0 for box in boxes),
        max(box.x1 for box in boxes),
        max(box.y1 for box in boxes),
    )
