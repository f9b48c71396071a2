"""Batches that have been with a worker before and whose make-up is fixed: suspects, halves, and the undelivered."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from sluiceway_runtime.pool.policy.events import Item

__all__ = ["Retries", "Retry"]


@dataclass(slots=True, eq=False)
class Retry:
    """Items to be run together again; with `probe` a single suspect, to be run alone."""

    items: tuple[Item, ...]
    probe: bool


class Retries:
    """They go before everything that is queued: they have waited longest."""

    def __init__(self) -> None:
        self._waiting: deque[Retry] = deque()
        self._retry_of: dict[int, Retry] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._retry_of)

    def __contains__(self, item_id: int) -> bool:
        return item_id in self._retry_of

    def add(self, groups: list[tuple[Item, ...]], *, probe: bool = False) -> None:
        """Put batches in front, the first of them first."""
        for items in reversed(groups):
            if not items:
                continue
            retry = Retry(items, probe)
            self._waiting.appendleft(retry)
            for item in items:
                self._retry_of[item.id] = retry
                self.size_bytes += item.size_bytes

    def remove(self, item_id: int) -> None:
        """Take one item out of the batch that it waits in."""
        retry = self._retry_of.pop(item_id)
        self.size_bytes -= next(item.size_bytes for item in retry.items if item.id == item_id)
        retry.items = tuple(item for item in retry.items if item.id != item_id)
        if not retry.items:
            self._waiting.remove(retry)

    def first(self, *, probe: bool) -> Retry | None:
        """The one of its kind that has to go next."""
        return next((retry for retry in self._waiting if retry.probe is probe), None)

    def pop(self, retry: Retry) -> tuple[Item, ...]:
        """Take a batch out to run it."""
        self._waiting.remove(retry)
        for item in retry.items:
            del self._retry_of[item.id]
            self.size_bytes -= item.size_bytes
        return retry.items
