"""Batches that have been with a worker before and whose make-up is fixed: suspects, halves, and the undelivered."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from sluiceway_runtime.pool.policy.items import Item, Retry

__all__ = ["Retries"]


class Retries:
    """They go before everything that is queued: they have waited longest. An item that is here knows its `retry`."""

    def __init__(self) -> None:
        self._waiting: deque[Retry] = deque()
        self._count = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return self._count

    @property
    def suspects(self) -> int:
        """Items that are computed alone."""
        return sum([len(retry.items) for retry in self._waiting if retry.probe])

    def add(self, groups: list[tuple[Item, ...]], *, probe: bool = False) -> None:
        """Put batches in front, the first of them first."""
        for items in reversed(groups):
            if not items:
                continue
            retry = Retry(items, probe)
            self._waiting.appendleft(retry)
            for item in items:
                item.retry = retry
                self._count += 1
                self.size_bytes += item.size_bytes

    def remove(self, item: Item) -> None:
        """Take one item out of the batch that it waits in."""
        retry = item.retry
        assert retry is not None, "it waits here"
        self._left((item,))
        retry.items = tuple(other for other in retry.items if other is not item)
        if not retry.items:
            self._waiting.remove(retry)

    def first(self, *, probe: bool) -> Retry | None:
        """The one of its kind that has to go next."""
        return next((retry for retry in self._waiting if retry.probe is probe), None)

    def pop(self, retry: Retry) -> tuple[Item, ...]:
        """Take a batch out to run it."""
        self._waiting.remove(retry)
        self._left(retry.items)
        return retry.items

    def oldest_s(self) -> float | None:
        """When the item was taken that has been in the pool the longest, None if none is here."""
        return min((item.accepted_s for retry in self._waiting for item in retry.items), default=None)

    def _left(self, items: Iterable[Item]) -> None:
        for item in items:
            item.retry = None
            self._count -= 1
            self.size_bytes -= item.size_bytes
