"""The one register of a pool: the accepted items that have no answer yet, their deadlines, the count of outcomes."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.pool.policy.statistics import Counters

__all__ = ["Ledger"]

# Deadlines of answered items stay in the heap until there are this many, and more than half are stale.
SWEEP_AT_LEAST = 256


class Ledger:
    """Accepted items without an answer.

    Invariant: an item enters once and leaves once, by `close`; whatever concerns it later finds nothing here. An item
    in a batch but not here is a ghost: computed, but for nobody.
    """

    def __init__(self) -> None:
        self._accounts: dict[int, Item] = {}
        # A heap of deadlines, each with the items that it was accepted for together. Those that were answered are
        # taken off when they stand last, or swept.
        self._deadlines: list[tuple[float, int, list[int]]] = []
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._accounts)

    def __contains__(self, item_id: int) -> bool:
        return item_id in self._accounts

    def open(self, items: Sequence[Item], now: float) -> None:
        """Owe an answer to these items, which have one deadline."""
        accounts = self._accounts
        for item in items:
            item.accepted_s = now
            accounts[item.id] = item
        self.count("accepted", len(items))
        heapq.heappush(self._deadlines, (items[0].deadline_s, items[0].id, [item.id for item in items]))
        if len(self._deadlines) > max(SWEEP_AT_LEAST, 2 * len(accounts)):
            self._deadlines = [entry for entry in self._deadlines if self._live(entry[2])]
            heapq.heapify(self._deadlines)

    def close(self, items: Sequence[Item], outcome: str) -> None:
        """These items have their answer, or nobody wants one.

        Args:
            items: that are here.
            outcome: the counter to raise.
        """
        for item in items:
            del self._accounts[item.id]
        self.count(outcome, len(items))

    def wanted(self, items: Iterable[Item]) -> tuple[Item, ...]:
        """Those of them that are still here."""
        return tuple(item for item in items if item.id in self._accounts)

    def due(self, now: float) -> list[Item]:
        """Items whose deadline is reached. They are still here, but are returned only once."""
        due: list[Item] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            ids = heapq.heappop(self._deadlines)[2]
            due += [self._accounts[item_id] for item_id in ids if item_id in self._accounts]
        return due

    def next_deadline_s(self) -> float:
        """The earliest deadline of an item that is here, infinity if there is none."""
        while self._deadlines and not self._live(self._deadlines[0][2]):
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else math.inf

    def found(self, item_ids: Iterable[int]) -> list[Item]:
        """Those of these ids that are still here."""
        return [self._accounts[item_id] for item_id in item_ids if item_id in self._accounts]

    def all(self) -> tuple[Item, ...]:
        """Everything that is here."""
        return tuple(self._accounts.values())

    def count(self, outcome: str, times: int = 1) -> None:
        """Raise a counter."""
        self._counts[outcome] += times

    def counters(self, deaths: int, recycled: int) -> Counters:
        """Totals so far, with those of the workers."""
        return Counters(**self._counts, deaths=deaths, recycled=recycled)

    def _live(self, ids: list[int]) -> bool:
        """Whether any of them is still here; drops those that are not from the end."""
        while ids and ids[-1] not in self._accounts:
            ids.pop()
        return bool(ids)
