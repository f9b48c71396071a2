"""The regions of one source: their ids, where they lie, whose children they are, and what was said of them. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor
from types import MappingProxyType
from typing import Any, NamedTuple

from sluiceway_orchestrator.events import PLAIN_RUN, TextRun
from sluiceway_orchestrator.geometry import Box, TurnedBox
from sluiceway_orchestrator.pipelines.layout.frame import Direction, boxes_in, direction_of
from sluiceway_orchestrator.pipelines.layout.page import Layout, lay_out
from sluiceway_orchestrator.plan import Step

__all__ = ["WHOLE", "Placed", "RegionNode", "RegionTree", "SourceLayout", "whole_page"]

# Regions of two detections of one image are the same if they share at least this part of both (intersection over
# union): another version of a detector moves edges, and finds what the one before it found.
_SAME_IOU = 0.5
# Degrees: text runs from top to bottom.
_DOWN = 90
# In place of a region where something was said of the first page, or of the source; `whole_page` of others.
WHOLE = -1


def whole_page(page: int) -> int:
    """What stands in place of a region where something was said of a page."""
    return WHOLE - page


class Placed(NamedTuple):
    """Where the regions of an answer stand in the tree.

    Attributes:
        ids: in the order of the answer.
        fresh: whether the client has not heard of each yet.
    """

    ids: Sequence[int]
    fresh: Sequence[bool] | None


class SourceLayout(NamedTuple):
    """What a source says, in reading order.

    Attributes:
        order: ids of all regions, the children of a region right behind it.
        lines: ids of the regions with text of each line.
        blocks: positions of the lines of each block.
        quarters: by page, how many degrees it is turned clockwise, a multiple of 90; those that are not are left out.
        pages: of the lines; empty where all are of the first page.
    """

    order: list[int]
    lines: list[list[int]]
    blocks: list[list[int]]
    quarters: Mapping[int, int]
    pages: list[int]


@dataclass(slots=True)
class RegionNode:
    """One region, as far as APIs are told of it."""

    id: int
    parent_id: int | None
    step: str
    class_name: str
    confidence: float
    box_xyxy_px: Box
    page: int = 0
    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, region: Any, step: str, box: Box, page: int) -> RegionNode:
        """The node for a `Region` message."""
        parent = region.parent_id if region.HasField("parent_id") else None
        return cls(region.id, parent, step, region.class_name, region.confidence, box, page)


class RegionTree:
    """Gives ids, and remembers for the whole source.

    A source that is detected anew (its version group is gone) keeps the ids of regions that are found again, and
    everything that was said of them stands: no client hears of a region twice.
    """

    def __init__(self) -> None:
        self._boxes: list[Box] = []
        # Those that are not upright.
        self._turned: dict[int, TurnedBox] = {}
        self._texts: dict[int, TextRun] = {}
        # Whether any of it runs otherwise than from left to right.
        self._unusual = False
        self._parents: list[int | None] = []
        self._steps: list[int] = []
        # Of regions of other pages than the first.
        self._pages: dict[int, int] = {}
        self._again = False
        # By step and page, of the detection before: what has not been found again yet.
        self._missing: dict[tuple[int, int], _Missing] = {}
        # What the client has heard of; an attempt may end between finding a region and telling of it.
        self._told: set[int] = set()
        self._steps_told: set[tuple[int, int]] = set()
        self._answered: set[tuple[int, int]] = set()
        self._promised: set[tuple[int, int]] = set()
        self.nodes: dict[int, RegionNode] = {}

    def __repr__(self) -> str:
        return f"<RegionTree regions={len(self._boxes)} answered={len(self._answered)}{' again' * self._again}>"

    def __len__(self) -> int:
        return len(self._boxes)

    @property
    def again(self) -> bool:
        """Whether this is not the first detection."""
        return self._again

    def begin_again(self) -> None:
        """All that follows is of a new detection of the same source."""
        self._again = True
        known: dict[tuple[int, int], dict[int, Box]] = {}
        for region_id, step in enumerate(self._steps):
            known.setdefault((step, self.page_of(region_id)), {})[region_id] = self._boxes[region_id]
        self._missing = {place: _Missing(boxes) for place, boxes in known.items()}

    def page_of(self, region_id: int) -> int:
        """Number of the page that a region lies in."""
        return self._pages.get(region_id, 0)

    def place(
        self,
        step: Step,
        boxes: Sequence[Box],
        parents: Sequence[int] | None,
        turned: Mapping[int, TurnedBox] = MappingProxyType({}),
        page: int = 0,
    ) -> Placed:
        """Take in the regions of one answer.

        Args:
            step: that found them.
            boxes: upright boxes around them, in pixels of the page.
            parents: ids of the regions that they lie in; None for the page.
            turned: those that are not upright, by position.
            page: number of the page, from 0.
        """
        placed = self._place(step, boxes, parents, page)
        if page:
            self._pages.update(dict.fromkeys(placed.ids, page))
        for position, box in turned.items():
            self._turned[placed.ids[position]] = box
        return placed

    def _place(self, step: Step, boxes: Sequence[Box], parents: Sequence[int] | None, page: int) -> Placed:
        if not self._again:
            first = len(self._boxes)
            self._boxes += boxes
            self._parents += parents if parents is not None else [None] * len(boxes)
            self._steps += [step.index] * len(boxes)
            return Placed(range(first, first + len(boxes)), None)
        ids, fresh = [], []
        missing = self._missing.get((step.index, page))
        for index, box in enumerate(boxes):
            known = missing.take(box) if missing is not None else None
            if known is not None:
                ids.append(known)
                fresh.append(known not in self._told)
                if fresh[-1] and parents is not None:
                    # The client hears of it with this one, and not with that of the attempt before.
                    self._parents[known] = parents[index]
                continue
            ids.append(len(self._boxes))
            fresh.append(True)
            self._boxes.append(box)
            self._parents.append(parents[index] if parents is not None else None)
            self._steps.append(step.index)
        return Placed(ids, fresh)

    def region(self, region_id: int) -> TurnedBox:
        """Where a region lies, as it is cut out: an upright one in whole pixels, as detection does."""
        turned = self._turned.get(region_id)
        if turned is not None:
            return turned
        x0, y0, x1, y1 = self._boxes[region_id]
        x0, y0, x1, y1 = floor(x0), floor(y0), ceil(x1), ceil(y1)
        return TurnedBox((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, 0.0)

    def read(self, texts: Mapping[int, TextRun]) -> None:
        """Text was read in these regions."""
        self._texts.update(texts)
        self._unusual = self._unusual or any(run is not PLAIN_RUN for run in texts.values())

    def told(self, step: Step, ids: Iterable[int], page: int = 0) -> None:
        """The client has heard of these regions of a page, or that a step found none."""
        self._told.update(ids)
        self._steps_told.add((step.index, page))

    def has_told(self, step: Step, page: int = 0) -> bool:
        """Whether the client has heard of anything that a step found in a page."""
        return (step.index, page) in self._steps_told

    def promise(self, step: Step, ids: Iterable[int]) -> None:
        """The client was told that a step will say something of these regions."""
        self._promised.update((step.index, region_id) for region_id in ids)

    def answered(self, step: Step, ids: Iterable[int]) -> None:
        """It has."""
        self._answered.update((step.index, region_id) for region_id in ids)

    def is_answered(self, step: Step, region_id: int) -> bool:
        """Whether the client has heard what a step says of a region. Never during the first detection."""
        return self._again and (step.index, region_id) in self._answered

    def broken_promises(self) -> Mapping[int, list[int]]:
        """By step: regions of which something was promised and nothing said; only where the source was begun again."""
        broken: dict[int, list[int]] = {}
        if self._again:
            for step, region_id in sorted(self._promised - self._answered):
                broken.setdefault(step, []).append(region_id)
        return broken

    def order(self) -> list[int]:
        """Ids of all regions that the client knows in reading order, the children of a region right behind it."""
        return self.layout().order

    def layout(self) -> SourceLayout:
        """Order, lines and blocks of all regions that the client knows, page after page."""
        if not self._pages:
            return self._layout_of(self._told, 0)
        by_page: dict[int, list[int]] = {}
        for region_id in self._told:
            by_page.setdefault(self.page_of(region_id), []).append(region_id)
        whole = SourceLayout([], [], [], {}, [])
        quarters: dict[int, int] = {}
        for page in sorted(by_page):
            its = self._layout_of(by_page[page], page)
            whole.blocks.extend([len(whole.lines) + line for line in block] for block in its.blocks)
            whole.order.extend(its.order)
            whole.lines.extend(its.lines)
            whole.pages.extend([page] * len(its.lines))
            quarters |= its.quarters
        return whole._replace(quarters=quarters)

    def _layout_of(self, members: Iterable[int], page: int) -> SourceLayout:
        """Those of one page."""
        children: dict[int | None, list[int]] = {}
        for region_id in sorted(members):
            children.setdefault(self._parents[region_id], []).append(region_id)
        direction, quarter = self._direction(children)
        quarters = {page: quarter} if quarter else {}
        order: list[int] = []
        lines: list[list[int]] = []
        blocks: list[list[int]] = []
        if len(children) > 1:
            # Lines in the order of their regions, though those of a region's children stand between its neighbours.
            found = {parent: self._laid_out(ids, direction) for parent, ids in children.items()}
            pending = [*reversed(found[None].order)] if None in found else []
            while pending:
                order.append(pending.pop())
                if order[-1] in found:
                    pending += reversed(found[order[-1]].order)
            places = {region_id: place for place, region_id in enumerate(order)}
            parts = [self._with_text(layout) for layout in found.values()]
            for block in sorted((block for part in parts for block in part), key=lambda block: places[block[0][0]]):
                blocks.append(list(range(len(lines), len(lines) + len(block))))
                lines += block
            return SourceLayout(order, lines, blocks, quarters, [])
        layout = self._laid_out(children.get(None, []), direction)
        for block in self._with_text(layout):
            blocks.append(list(range(len(lines), len(lines) + len(block))))
            lines += block
        return SourceLayout(layout.order, lines, blocks, quarters, [])

    def _direction(self, children: Mapping[int | None, Sequence[int]]) -> tuple[Direction, int]:
        """Which way the text of a page runs, and by how much the page is turned, which need not be the same."""
        if not self._pages:
            return self._direction_of(self._boxes, self._turned, self._texts)
        members = [region_id for ids in children.values() for region_id in ids]
        places = {region_id: place for place, region_id in enumerate(members)}
        return self._direction_of(
            [self._boxes[region_id] for region_id in members],
            {places[key]: self._turned[key] for key in members if key in self._turned},
            {places[key]: self._texts[key] for key in members if key in self._texts},
        )

    def _direction_of(
        self, boxes: Sequence[Box], turned: Mapping[int, TurnedBox], texts: Mapping[int, TextRun]
    ) -> tuple[Direction, int]:
        if not turned and not self._unusual:
            return Direction(), 0
        rotations = {region_id: text.rotation_degrees for region_id, text in texts.items()}
        direction = direction_of(boxes, turned, rotations)
        # Columns of Chinese or Japanese run down on a page that is not turned; its lines go to the left all the same.
        upright = direction.quarter == _DOWN and 2 * sum(text.may_run_down for text in texts.values()) > len(texts)
        return direction, 0 if upright else direction.quarter

    def _laid_out(self, ids: Sequence[int], direction: Direction) -> Layout:
        """The layout of neighbours, with ids in place of positions."""
        turned = {at: self._turned[key] for at, key in enumerate(ids) if key in self._turned} if self._turned else {}
        boxes = boxes_in(direction, [self._boxes[region_id] for region_id in ids], turned)
        texts = self._texts
        unusual = enumerate(ids) if self._unusual else ()
        leftwards = {at for at, key in unusual if key in texts and texts[key].leftwards}
        layout = lay_out(boxes, leftwards)
        if len(ids) == len(self._boxes):
            # Each is its own position.
            return layout
        lines = [[ids[at] for at in line] for line in layout.lines]
        return Layout([ids[at] for at in layout.order], lines, layout.blocks)

    def _with_text(self, layout: Layout) -> list[list[list[int]]]:
        """Blocks of lines of those regions in which text was read."""
        texts = self._texts
        if all(map(texts.__contains__, layout.order)):
            return [[layout.lines[at] for at in block] for block in layout.blocks]
        lines = [[key for key in line if key in texts] for line in layout.lines]
        blocks = ([lines[at] for at in block if lines[at]] for block in layout.blocks)
        return [block for block in blocks if block]


class _Missing:
    """Regions of one step that have not been found again, by the heights at which they lie.

    Two boxes that share half of their union have centres less than half of either's height apart, so each box is
    compared with those alone whose centres are so near.
    """

    def __init__(self, boxes: Mapping[int, Box]) -> None:
        self._boxes = dict(boxes)
        self._middles = sorted((_middle(box), region_id) for region_id, box in boxes.items())

    def take(self, box: Box) -> int | None:
        """The region that is the same as this box, which is then not missing any more; None if there is none."""
        near = (box[3] - box[1]) / 2
        start = bisect_left(self._middles, (_middle(box) - near, -1))
        best, shared = None, _SAME_IOU
        for index in range(start, len(self._middles)):
            middle, region_id = self._middles[index]
            if middle > _middle(box) + near:
                break
            known = self._boxes.get(region_id)
            if known is not None and (iou := _iou(known, box)) >= shared:
                best, shared = region_id, iou
        if best is not None:
            del self._boxes[best]
        return best


def _middle(box: Box) -> float:
    return (box[1] + box[3]) / 2


def _iou(first: Box, second: Box) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = (first[2] - first[0]) * (first[3] - first[1]) + (second[2] - second[0]) * (second[3] - second[1])
    return shared / (areas - shared)
