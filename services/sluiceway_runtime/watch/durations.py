"""How many calls took how long: counts in buckets that grow by a twelfth, from which quantiles are read."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["Durations", "quantile_s", "since"]

# As the contract's `DurationCounts` has it.
FIRST_S = 1e-4
BUCKETS_PER_OCTAVE = 8
# Up to 27 minutes, longer than any deadline.
BUCKETS = 24 * BUCKETS_PER_OCTAVE


class Durations:
    """Counts durations. Costs a fraction of a microsecond each, and a kilobyte in all."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS

    def observe(self, seconds: float) -> None:
        """One more took so long."""
        if seconds < FIRST_S:
            self._counts[0] += 1
        else:
            bucket = 1 + int(math.log2(seconds / FIRST_S) * BUCKETS_PER_OCTAVE)
            self._counts[min(bucket, BUCKETS - 1)] += 1

    def counts(self) -> tuple[int, ...]:
        """By bucket."""
        return tuple(self._counts)


def since(before: Sequence[int], after: Sequence[int]) -> tuple[int, ...]:
    """Counts of what came between two readings; what a server counted before it was started again is left out."""
    padded = (*before, *([0] * (len(after) - len(before))))
    return tuple(max(0, new - old) for old, new in zip(padded, after, strict=False))


def quantile_s(counts: Sequence[int], share: float) -> float | None:
    """Seconds that `share` (0..1) of what was counted did not exceed, to a twelfth; None where nothing was counted."""
    total = sum(counts)
    if not total:
        return None
    rank = share * total
    below = 0
    for bucket, count in enumerate(counts):
        if count and below + count >= rank:
            # As if those of one bucket were spread evenly over it.
            inside = max(0.0, rank - below) / count
            lower, upper = _lower_s(bucket), _lower_s(bucket + 1)
            return lower + (upper - lower) * inside
        below += count
    return _lower_s(len(counts))


def _lower_s(bucket: int) -> float:
    return FIRST_S * 2.0 ** ((bucket - 1) / BUCKETS_PER_OCTAVE) if bucket else 0.0
