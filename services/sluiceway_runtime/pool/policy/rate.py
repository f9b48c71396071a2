"""How fast a pool works, learnt from the batches that it finished."""

from __future__ import annotations

__all__ = ["ServiceRate"]

# Weight of the latest batch: about the last ten count.
WEIGHT = 0.2


class ServiceRate:
    """Smoothed time that one worker takes for one item, its share of a batch."""

    def __init__(self) -> None:
        self.item_s = 0.0

    def observe(self, batch_s: float, items: int) -> None:
        """Learn from one batch."""
        item_s = max(batch_s, 0.0) / items
        self.item_s = item_s if self.item_s == 0.0 else (1 - WEIGHT) * self.item_s + WEIGHT * item_s

    def interval_s(self, workers: int) -> float:
        """Time between the beginnings of two items where `workers` share them; 0 while nothing is known."""
        return self.item_s / max(workers, 1)
