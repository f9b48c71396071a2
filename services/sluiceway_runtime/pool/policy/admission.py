"""What is taken into a pool and what is refused, and when it is worth asking again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sluiceway_runtime.errors import DeadlineExceeded, Quarantined, QueueFull, SluicewayError, Unavailable
from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.pool.policy.limits import PoolLimits, Timing
from sluiceway_runtime.pool.policy.machine import Machine
from sluiceway_runtime.pool.policy.quarantine import Quarantine, Verdict
from sluiceway_runtime.pool.policy.rate import ServiceRate
from sluiceway_runtime.pool.policy.workforce import Workforce
from sluiceway_runtime.priority import Priority

__all__ = ["Admission", "Room", "Sorted", "quarantined"]

# Of the queue, how much each class may fill: bulk work leaves room for what is more urgent.
CLASS_SHARES = (1.0, 1.0, 0.75)


class Sorted(NamedTuple):
    """What becomes of items that arrived together.

    Attributes:
        taken: those that wait with others.
        suspects: those that are taken to be run alone.
        refused: the rest, with why.
    """

    taken: Sequence[Item]
    suspects: Sequence[Item] = ()
    refused: Sequence[tuple[Sequence[Item], SluicewayError]] = ()


class Admission:
    """The door of a pool: shut while it starts and when it stops."""

    def __init__(
        self,
        limits: PoolLimits,
        timing: Timing,
        *,
        workforce: Workforce,
        machine: Machine,
        quarantine: Quarantine,
        rate: ServiceRate,
    ) -> None:
        self._limits = limits
        self._timing = timing
        self._workforce = workforce
        self._machine = machine
        self._quarantine = quarantine
        self._rate = rate
        self._starting = True
        self._stopping = False

    def open(self) -> None:
        """Take items from now on."""
        self._starting = False

    def close(self) -> None:
        """Take none any more."""
        self._stopping = True

    def sort(self, items: Sequence[Item], waiting: int, waiting_bytes: int, ahead: int, now: float) -> Sorted:
        """Decide about items of one request, deadline and priority.

        Args:
            items: in order.
            waiting: items that wait already.
            waiting_bytes: of those.
            ahead: how many of them stand before a new one.
            now: on the scheduler's clock.
        """
        refusal = self._closed(items[0], now)
        room = self._room(items[0].priority, waiting, waiting_bytes, ahead, now)
        if refusal is None and not self._quarantine and room.holds(items):
            return Sorted(items)
        taken: list[Item] = []
        suspects: list[Item] = []
        refused: list[tuple[Sequence[Item], SluicewayError]] = []
        for position, item in enumerate(items):
            verdict = self._quarantine.verdict(item, now)
            if refusal is None and verdict is Verdict.GUILTY:
                refused.append(((item,), quarantined(item)))
                continue
            refusal = refusal or room.enter(item)
            if refusal is not None:
                refused.append((items[position:], refusal))
                break
            (suspects if verdict is Verdict.SUSPECT else taken).append(item)
        return Sorted(taken, suspects, refused)

    def _closed(self, item: Item, now: float) -> SluicewayError | None:
        """Why nothing is taken that has this item's deadline, None if something may be."""
        if self._stopping:
            return Unavailable("the server is stopping")
        if self._starting:
            return Unavailable("the server is starting")
        if item.deadline_s <= now:
            return DeadlineExceeded("the deadline had passed on arrival")
        if self._machine.ill:
            return self.machine_fault(now)
        if self._workforce.hopeless:
            return Unavailable("no worker works", retry_after_s=self._after_restart_s(now))
        return None

    def machine_fault(self, now: float) -> Unavailable:
        """What is told while this machine is taken to be ill."""
        return Unavailable("no worker of this machine computes", retry_after_s=self._after_restart_s(now))

    def _after_restart_s(self, now: float) -> float:
        return _bounded(self._workforce.next_restart_s(now) - now, self._timing)

    def _room(self, priority: Priority, items: int, size_bytes: int, ahead: int, now: float) -> Room:
        """The waiting room as it is now."""
        item_s = self._rate.interval_s(len(self._workforce.ready))
        return Room(
            self._limits,
            self._timing,
            # One request is taken whole or not at all, so one may always fill an empty queue.
            CLASS_SHARES[priority] if items else 1.0,
            items=items,
            size_bytes=size_bytes,
            begins_s=now + item_s * ahead,
            item_s=item_s,
        )


class Room:
    """How full it is, while the items of one submission come in."""

    __slots__ = ("_begins_s", "_item_s", "_items", "_most_bytes", "_most_items", "_size_bytes", "_timing")

    def __init__(
        self,
        limits: PoolLimits,
        timing: Timing,
        share: float,
        *,
        items: int,
        size_bytes: int,
        begins_s: float,
        item_s: float,
    ) -> None:
        self._most_items = limits.queue_items * share
        self._most_bytes = limits.queue_bytes * share
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
            self._items + len(items) <= self._most_items
            and size_bytes <= self._most_bytes
            and last_begins_s <= items[-1].deadline_s
        )

    def enter(self, item: Item) -> SluicewayError | None:
        """Count an item in, or say why there is no room for it."""
        size_bytes = self._size_bytes + item.size_bytes
        if self._items and self._items + 1 > self._most_items:
            return self._full("the queue is full")
        if self._items and size_bytes > self._most_bytes:
            return self._full("the queue holds as many bytes as it may")
        if self._begins_s > item.deadline_s:
            return self._full("the wait would outlast the deadline")
        self._items += 1
        self._size_bytes = size_bytes
        self._begins_s += self._item_s
        return None

    def _full(self, reason: str) -> QueueFull:
        return QueueFull(reason, retry_after_s=_bounded(self._items * self._item_s, self._timing))


def quarantined(item: Item, **facts: str) -> Quarantined:
    """What is told of an item that ended a worker while alone with it."""
    return Quarantined(
        "this item ended a worker before and is not tried again", metadata={"digest": item.payload.digest(), **facts}
    )


def _bounded(retry_after_s: float, timing: Timing) -> float:
    """A time to come back after, within what a refusal may say."""
    return min(max(retry_after_s, timing.retry_after_min_s), timing.retry_after_max_s)
