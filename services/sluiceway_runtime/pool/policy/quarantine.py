"""What is remembered of items that were with a worker when it died, and for how long."""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import NamedTuple

from sluiceway_runtime.pool.policy.items import Item

__all__ = ["Quarantine", "Verdict"]

Key = tuple[int, str]


class Verdict(Enum):
    """What is known of an item's content."""

    INNOCENT = "innocent"
    SUSPECT = "suspect"  # was in a batch whose worker died; nobody waited for it any more, so it was not tried alone
    GUILTY = "guilty"  # killed a worker while alone with it


class _Entry(NamedTuple):
    verdict: Verdict
    until_s: float


class Quarantine:
    """Bounded memory of suspicious contents, the oldest forgotten first, and each after its time.

    Hashing costs milliseconds for megabytes, so an item is hashed only if something of exactly its size is remembered.

    Args:
        verdict_s: how long a verdict holds. A worker may have died of something else, and one more death does no harm.
        capacity: most verdicts.
    """

    def __init__(self, verdict_s: float, capacity: int = 1024) -> None:
        self._verdict_s = verdict_s
        self._capacity = capacity
        # The oldest first, which is also the first to expire.
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._sizes: dict[int, int] = {}  # how many entries have this size

    def __len__(self) -> int:
        return len(self._entries)

    def verdict(self, item: Item, now: float) -> Verdict:
        """What is known of this item."""
        while self._entries and (oldest := next(iter(self._entries.items())))[1].until_s <= now:
            self.forget(oldest[0])
        if item.size_bytes not in self._sizes:
            return Verdict.INNOCENT
        entry = self._entries.get(_key(item))
        return Verdict.INNOCENT if entry is None else entry.verdict

    def remember(self, item: Item, verdict: Verdict, now: float) -> Key:
        """Keep a verdict, and return the name under which it can be forgotten."""
        key = _key(item)
        self.forget(key)
        self._entries[key] = _Entry(verdict, now + self._verdict_s)
        self._sizes[item.size_bytes] = self._sizes.get(item.size_bytes, 0) + 1
        if len(self._entries) > self._capacity:
            self.forget(next(iter(self._entries)))
        return key

    def acquit(self, item: Item) -> None:
        """Forget what was held against an item."""
        if item.size_bytes in self._sizes:
            self.forget(_key(item))

    def forget(self, key: Key) -> None:
        """Take a verdict back, if there is one."""
        if self._entries.pop(key, None) is None:
            return
        size_bytes = key[0]
        self._sizes[size_bytes] -= 1
        if not self._sizes[size_bytes]:
            del self._sizes[size_bytes]


def _key(item: Item) -> Key:
    return item.size_bytes, item.payload.digest()
