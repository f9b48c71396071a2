"""Pages as boxes: lines of words in columns, with what is true of them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["HEIGHT", "PITCH", "DrawnPage", "neighbours_kept"]

Box = tuple[float, float, float, float]

# Of a line of 10 pt at 300 dpi, and from line to line.
HEIGHT = 42.0
PITCH = 56.0


@dataclass
class DrawnPage:
    """Words in reading order, and the (column, paragraph, line) of each."""

    words: list[Box] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)
    column: int = 0

    def line(self, left: float, top: float, width: float, place: tuple[int, int, int], seed: int = 0) -> None:
        """Add words up to a width."""
        chance = random.Random(f"{left} {top} {seed}")
        x = left
        while x < left + width:
            end = min(left + width, x + chance.uniform(60, 260))
            if left + width - end < 80:
                end = left + width
            self.words.append((x, top + chance.uniform(-2, 4), end, top + HEIGHT - chance.uniform(0, 6)))
            self.places.append(place)
            x = end + chance.uniform(10, 24)

    def text(self, left: float, top: float, width: float, lines: int, *, paragraphs: int = 1, seed: int = 0) -> float:
        """Add a column of running text; returns where it ends."""
        chance = random.Random(f"{left} {top} {lines} {seed}")
        number, per = 0, max(1, lines // paragraphs)
        for at in range(lines):
            if at and at % per == 0 and number < paragraphs - 1:
                number += 1
                top += 0.6 * PITCH
            last = (at + 1) % per == 0 or at == lines - 1
            self.line(
                left, top, width * (chance.uniform(0.4, 0.9) if last else chance.uniform(0.93, 1)), self._at(number, at)
            )
            top += PITCH
        self.column += 1
        return top

    def _at(self, paragraph: int, line: int) -> tuple[int, int, int]:
        return self.column, paragraph, line

    def turned(self, degrees: float) -> list[tuple[float, float, float, float, float]]:
        """Centre, width, height and angle of each word on a page that is turned about its corner."""
        angle = math.radians(degrees)
        found = []
        for x0, y0, x1, y1 in self.words:
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            moved = (x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle))
            found.append((*moved, x1 - x0, y1 - y0, degrees))
        return found

    def lines(self) -> DrawnPage:
        """The same page with a box for each line in place of each word."""
        page = DrawnPage()
        for place in dict.fromkeys(self.places):
            boxes = [box for box, other in zip(self.words, self.places, strict=True) if other == place]
            lefts, tops, rights, bottoms = zip(*boxes, strict=True)
            page.words.append((min(lefts), min(tops), max(rights), max(bottoms)))
            page.places.append(place)
        return page

    def shuffled(self, seed: int = 0) -> list[int]:
        """Positions in some order."""
        order = list(range(len(self.words)))
        random.Random(seed).shuffle(order)
        return order


def neighbours_kept(order: Sequence[int], truth: Iterable[int]) -> float:
    """Part of the neighbours in the true order that are neighbours in another."""
    expected = list(truth)
    pairs = set(pairwise(order))
    kept = [pair in pairs for pair in pairwise(expected)]
    return sum(kept) / len(kept) if kept else 1.0
