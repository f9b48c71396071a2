"""Who waits, and since when: for the age of the oldest, and how long each has waited. Pure: time comes in."""

from __future__ import annotations

from collections.abc import Sequence

from sluiceway_runtime.metrics.instruments import SECONDS, Histogram

__all__ = ["WAITS", "Waits"]

# A wait of a millisecond is none, and one of minutes is seen while a stage is at zero.
WAITS = (0.001, *SECONDS, 30.0, 60.0)


class Waits:
    """One line of those who wait.

    Attributes:
        spent: how long those waited who wait no more, in seconds.
    """

    __slots__ = ("_next", "_since_s", "spent")

    def __init__(self, bounds: Sequence[float] = WAITS) -> None:
        self.spent = Histogram(bounds)
        # In the order of their coming, so that the first is the oldest.
        self._since_s: dict[int, float] = {}
        self._next = 0

    def begin(self, now_s: float) -> int:
        """One begins to wait; returns by what it is known at its end."""
        self._next += 1
        self._since_s[self._next] = now_s
        return self._next

    def end(self, key: int, now_s: float) -> float:
        """It waits no more, whatever came of it; returns for how long it did."""
        waited_s = now_s - self._since_s.pop(key)
        self.spent.observe(waited_s)
        return waited_s

    def none(self) -> None:
        """One came and had not to wait."""
        self.spent.observe(0.0)

    def oldest_s(self, now_s: float) -> float:
        """How long the one has waited that waits the longest; 0 while none does."""
        for since_s in self._since_s.values():
            return now_s - since_s
        return 0.0
