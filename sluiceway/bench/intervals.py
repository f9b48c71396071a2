"""How sure a rate is. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["BATCHES", "Estimate", "rate_per_s"]

# Batch means: neighbouring requests resemble each other (they share a queue), whole batches hardly do.
BATCHES = 20
# Of Student's t with 19 degrees of freedom, for 95 %, two-sided.
T_95 = 2.093


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain data."""
        return {"value": self.value, "low": self.low, "high": self.high}


def rate_per_s(times_s: Sequence[float], begin_s: float, end_s: float) -> Estimate:
    """How often something happened, a second.

    Args:
        times_s: when it did; only what is in [begin_s, end_s) counts.
        begin_s: of the time that is looked at.
        end_s: likewise; later than `begin_s`.

    Returns:
        The rate, with the 95 % interval of the means of 20 batches of equal length.
    """
    length_s = (end_s - begin_s) / BATCHES
    counts = [0] * BATCHES
    for time_s in times_s:
        if begin_s <= time_s < end_s:
            counts[min(BATCHES - 1, int((time_s - begin_s) / length_s))] += 1
    rates = [count / length_s for count in counts]
    mean = statistics.fmean(rates)
    margin = T_95 * statistics.stdev(rates) / math.sqrt(BATCHES)
    return Estimate(mean, max(0.0, mean - margin), mean + margin)
