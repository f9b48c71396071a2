"""Whoever takes note of what a pool does, as it does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sluiceway_runtime.pool.policy.items import Item

__all__ = ["PoolObserver"]


class PoolObserver(Protocol):
    """Is told on the pool's own loop, amid its work: it takes note and does nothing else."""

    def dispatched(self, items: Sequence[Item], now_s: float) -> None:
        """A batch goes to a worker.

        Args:
            items: of the batch.
            now_s: on the clock that the items' own moments are of.
        """

    def expired(self, items: Sequence[Item], now_s: float) -> None:
        """The time of accepted items ran out. Those without a batch and a trail have been with no worker."""

    def computed(self, seconds: float) -> None:
        """A worker has done a batch, and took so long."""
