"""Arrivals: when images come, and what is in them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sluiceway_simulation.stages.pictures import Picture

__all__ = ["Kind", "Load", "arrivals"]

# In a bursty load, of every cycle so much time has the burst.
BURST_PART = 0.2
CYCLE_S = 5.0


class Kind(NamedTuple):
    """What some of the images are like.

    Attributes:
        regions: of each.
        width_px: of the image, by which detection may take its time.
        crop_width_px: of each region, likewise for recognition.
    """

    regions: int
    width_px: int
    crop_width_px: int

    def picture(self, number: int) -> Picture:
        """One of them."""
        return Picture(number, self.regions, self.crop_width_px, least_width_px=self.width_px)


@dataclass(frozen=True, slots=True)
class Load:
    """What comes in.

    Attributes:
        rate_per_s: images, on average.
        regions: of an image, on average; at least none, at most twice as many.
        widths_px: of crops, from the narrowest to the widest.
        burst: during a burst this many times the average comes; 1 for arrivals that know nothing of each other.
        kinds: where known, what real images are like, each as often as the others.
    """

    rate_per_s: float
    regions: int = 10
    widths_px: tuple[int, int] = (60, 200)
    burst: float = 1.0
    kinds: tuple[Kind, ...] = ()

    def __post_init__(self) -> None:
        if self.rate_per_s <= 0 or self.regions < 0:
            raise ValueError("rate_per_s must be positive, and regions not negative")
        if not 1 <= self.burst <= 1 / BURST_PART:
            raise ValueError(f"burst must lie in 1 to {1 / BURST_PART:g}")

    def picture(self, number: int, chance: random.Random) -> Picture:
        """An image of this load."""
        if self.kinds:
            return chance.choice(self.kinds).picture(number)
        regions = chance.randint(0, 2 * self.regions)
        return Picture(number, regions, chance.randint(*self.widths_px))

    def rate_at(self, at_s: float) -> float:
        """Images a second at a moment."""
        in_burst = at_s % CYCLE_S < BURST_PART * CYCLE_S
        calm = (1 - BURST_PART * self.burst) / (1 - BURST_PART)
        return self.rate_per_s * (self.burst if in_burst else calm)


def arrivals(load: Load, lasts_s: float, chance: random.Random) -> Iterator[tuple[float, Picture]]:
    """Moments from 0 and what comes then: a Poisson process, thinned where the rate changes.

    The method is that of Lewis and Shedler (1979).
    """
    at_s, number = 0.0, 0
    most_per_s = load.rate_per_s * load.burst
    while True:
        at_s += chance.expovariate(most_per_s)
        if at_s >= lasts_s:
            return
        if chance.random() * most_per_s < load.rate_at(at_s):
            number += 1
            yield at_s, load.picture(number, chance)
