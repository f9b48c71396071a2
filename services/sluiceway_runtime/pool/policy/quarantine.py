"""What is remembered of items that were with a worker when it died."""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum

from sluiceway_runtime.pool.policy.events import Item

__all__ = ["Quarantine", "Verdict"]


class Verdict(Enum):
    """What is known of an item's content."""

    INNOCENT = "innocent"
    SUSPECT = "suspect"  # was in a batch whose worker died; nobody waited for it any more, so it was not tried alone
    GUILTY = "guilty"  # killed a worker while alone with it


class Quarantine:
    """Bounded memory of suspicious contents, the oldest forgotten first.

    Hashing costs milliseconds for megabytes, so an item is hashed only if something of exactly its size is remembered.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._capacity = capacity
        self._verdicts: OrderedDict[tuple[int, str], Verdict] = OrderedDict()
        self._sizes: dict[int, int] = {}  # how many entries have this size

    def __len__(self) -> int:
        return len(self._verdicts)

    def verdict(self, item: Item) -> Verdict:
        """What is known of this item."""
        if item.size_bytes not in self._sizes:
            return Verdict.INNOCENT
        return self._verdicts.get((item.size_bytes, item.digest()), Verdict.INNOCENT)

    def remember(self, item: Item, verdict: Verdict) -> None:
        """Keep a verdict; `INNOCENT` forgets."""
        if verdict is Verdict.INNOCENT:
            if item.size_bytes in self._sizes:
                self._forget((item.size_bytes, item.digest()))
            return
        key = (item.size_bytes, item.digest())
        self._forget(key)
        self._verdicts[key] = verdict
        self._sizes[item.size_bytes] = self._sizes.get(item.size_bytes, 0) + 1
        if len(self._verdicts) > self._capacity:
            self._forget(next(iter(self._verdicts)))

    def _forget(self, key: tuple[int, str]) -> None:
        if self._verdicts.pop(key, None) is None:
            return
        size_bytes = key[0]
        self._sizes[size_bytes] -= 1
        if not self._sizes[size_bytes]:
            del self._sizes[size_bytes]
