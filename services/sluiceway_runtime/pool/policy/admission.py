"""What is taken into a pool and what is refused, and when it is worth asking again."""

from __future__ import annotations

from collections.abc import Sequence

from sluiceway_runtime.errors import DeadlineExceeded, QueueFull, SluicewayError, Unavailable
from sluiceway_runtime.pool.policy.events import Item
from sluiceway_runtime.pool.policy.limits import PoolLimits, Timing
from sluiceway_runtime.pool.policy.rate import ServiceRate
from sluiceway_runtime.pool.policy.workforce import Workforce

__all__ = ["Admission", "Room"]


class Admission:
    """The door of a pool: shut while it starts and when it stops."""

    def __init__(self, limits: PoolLimits, timing: Timing, workforce: Workforce, rate: ServiceRate) -> None:
        self._limits = limits
        self._timing = timing
        self._workforce = workforce
        self._rate = rate
        self._starting = True
        self._stopping = False

    def open(self) -> None:
        """Take items from now on."""
        self._starting = False

    def close(self) -> None:
        """Take none any more."""
        self._stopping = True

    def closed(self, item: Item, now: float) -> SluicewayError | None:
        """Why nothing is taken that has this item's deadline, None if something may be."""
        if self._stopping:
            return Unavailable("the server is stopping")
        if self._starting:
            return Unavailable("the server is starting")
        if item.deadline_s <= now:
            return DeadlineExceeded("the deadline had passed on arrival")
        if not self._workforce.ready and self._workforce.hopeless:
            retry_after_s = _bounded(self._workforce.next_restart_s() - now, self._timing)
            return Unavailable("no worker can be started", retry_after_s=retry_after_s)
        return None

    def room(self, items: int, size_bytes: int, ahead: int, now: float) -> Room:
        """The waiting room as it is now.

        Args:
            items: that wait.
            size_bytes: of those.
            ahead: how many of them stand before a new one.
            now: on the scheduler's clock.
        """
        item_s = self._rate.interval_s(len(self._workforce.ready))
        return Room(
            self._limits, self._timing, items=items, size_bytes=size_bytes, begins_s=now + item_s * ahead, item_s=item_s
        )


class Room:
    """How full it is, while the items of one submission come in."""

    __slots__ = ("_begins_s", "_item_s", "_items", "_limits", "_size_bytes", "_timing")

    def __init__(
        self, limits: PoolLimits, timing: Timing, *, items: int, size_bytes: int, begins_s: float, item_s: float
    ) -> None:
        self._limits = limits
        self._timing = timing
        self._items = items
        self._size_bytes = size_bytes
        self._begins_s = begins_s  # when the next one can be begun, as far as is known
        self._item_s = item_s

    def holds(self, items: Sequence[Item]) -> bool:
        """Whether there is room for all of them; counts none of them in."""
        last_begins_s = self._begins_s + (len(items) - 1) * self._item_s
        size_bytes = self._size_bytes + sum([item.size_bytes for item in items])
        return (
            self._items + len(items) <= self._limits.queue_items
            and size_bytes <= self._limits.queue_bytes
            and last_begins_s <= items[-1].deadline_s
        )

    def enter(self, item: Item) -> SluicewayError | None:
        """Count an item in, or say why there is no room for it."""
        size_bytes = self._size_bytes + item.size_bytes
        if self._items >= self._limits.queue_items:
            return self._full("the queue is full")
        if self._items and size_bytes > self._limits.queue_bytes:
            return self._full("the queue holds as many bytes as it may")
        if self._begins_s > item.deadline_s:
            return self._full("the wait would outlast the deadline")
        self._items += 1
        self._size_bytes = size_bytes
        self._begins_s += self._item_s
        return None

    def _full(self, reason: str) -> QueueFull:
        return QueueFull(reason, retry_after_s=_bounded(self._items * self._item_s, self._timing))


def _bounded(retry_after_s: float, timing: Timing) -> float:
    """A time to come back after, within what a refusal may say."""
    return min(max(retry_after_s, timing.retry_after_min_s), timing.retry_after_max_s)
