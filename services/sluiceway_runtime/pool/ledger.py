"""Who is owed an answer: the accepted items, their deadlines, and the count of every outcome."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sluiceway_runtime.pool.events import Item
from sluiceway_runtime.pool.statistics import Counters

__all__ = ["Account", "Ledger"]

# Deadlines of answered items stay in the heap until there are this many, and more than half are stale.
SWEEP_AT_LEAST = 256


@dataclass(slots=True, eq=False)
class Account:
    """An accepted item and its times. `dispatched_s` is of the last try, None while it has not been with a worker."""

    item: Item
    accepted_s: float
    dispatched_s: float | None = None


class Ledger:
    """Accepted items without an answer.

    Invariant: an item enters once and leaves once, by `close`; whatever concerns it later finds nothing here. An item
    in a batch but not here is a ghost: computed, but for nobody.
    """

    def __init__(self) -> None:
        self._accounts: dict[int, Account] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._accounts)

    def __contains__(self, item_id: int) -> bool:
        return item_id in self._accounts

    def open(self, item: Item, now: float) -> None:
        """Owe an answer to this item."""
        self._accounts[item.id] = Account(item, now)
        self.count("accepted")
        heapq.heappush(self._deadlines, (item.deadline_s, item.id))
        if len(self._deadlines) > max(SWEEP_AT_LEAST, 2 * len(self._accounts)):
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._accounts]
            heapq.heapify(self._deadlines)

    def close(self, item_id: int, outcome: str) -> Account:
        """The item has its answer, or nobody wants one.

        Args:
            item_id: an item that is here.
            outcome: the counter to raise.
        """
        self.count(outcome)
        return self._accounts.pop(item_id)

    def dispatched(self, items: Iterable[Item], now: float) -> float:
        """Note that these items go to a worker, and return how long the first of them had waited, in seconds."""
        waits_s = []
        for item in items:
            account = self._accounts[item.id]
            account.dispatched_s = now
            waits_s.append(now - account.accepted_s)
        return waits_s[0]

    def wanted(self, items: Iterable[Item]) -> tuple[Item, ...]:
        """Those of them that are still here."""
        return tuple(item for item in items if item.id in self._accounts)

    def due(self, now: float) -> list[Account]:
        """Items whose deadline is reached. They are still here, but are returned only once."""
        due = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, item_id = heapq.heappop(self._deadlines)
            if item_id in self._accounts:
                due.append(self._accounts[item_id])
        return due

    def next_deadline_s(self) -> float:
        """The earliest deadline of an item that is here, infinity if there is none."""
        while self._deadlines and self._deadlines[0][1] not in self._accounts:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else math.inf

    def all(self) -> tuple[Item, ...]:
        """Everything that is here."""
        return tuple(account.item for account in self._accounts.values())

    def count(self, outcome: str) -> None:
        """Raise a counter."""
        self._counts[outcome] += 1

    def counters(self, deaths: int, recycled: int) -> Counters:
        """Totals so far, with those of the workers."""
        return Counters(**self._counts, deaths=deaths, recycled=recycled)
