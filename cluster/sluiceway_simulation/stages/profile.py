"""How long a worker takes: measured elsewhere, looked up here."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Curve", "Profile"]


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of a measured curve, straight between them and on from the last two.

    Attributes:
        points: (x, y) with x ascending, at least one.
    """

    points: tuple[tuple[float, float], ...]

    def at(self, x: float) -> float:
        """The value there; before the first point it is that of the first."""
        points = self.points
        if len(points) == 1 or x <= points[0][0]:
            return points[0][1]
        index = min(bisect_left(points, (x,)), len(points) - 1)
        (x0, y0), (x1, y1) = points[index - 1], points[index]
        return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


@dataclass(frozen=True, slots=True)
class Profile:
    """Service times of one worker on one kind of device.

    Attributes:
        batch_ms: time of a batch by the number of its items, at the width for which `width_factor` is 1.
        width_factor: by the width of an item in pixels; that of a batch is the mean of its items.
        spread: standard deviation of the logarithm of each time.
        start_s: from the start of the process until it is warm.
        memory_bytes: resident.
    """

    batch_ms: Curve
    width_factor: Curve = Curve(((1.0, 1.0),))
    spread: float = 0.1
    start_s: float = 1.0
    memory_bytes: int = 300 * 2**20

    def batch_s(self, widths_px: Sequence[int], chance: random.Random) -> float:
        """Seconds for one batch with items of these widths."""
        widths = self.width_factor
        factor = sum(map(widths.at, widths_px)) / len(widths_px) if len(widths.points) > 1 else widths.points[0][1]
        # With a mean of 1, so that a profile's mean is what was measured.
        luck = math.exp(chance.gauss(-(self.spread**2) / 2, self.spread)) if self.spread else 1.0
        return self.batch_ms.at(len(widths_px)) * factor * luck / 1000
