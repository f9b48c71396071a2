"""The waiting line: what waits for a stage, or for admission, in the order in which it should go.

Pure: no clock, no asyncio. Every policy is a table of pushes and pops in the tests.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sluiceway_runtime.priority import Priority

__all__ = ["Ageing", "Backlog", "Entry"]

Item = TypeVar("Item")

# Virtual times of clients without waiting items are kept only while they still matter; beyond this many they are swept.
_SWEEP_AT = 256


@dataclass(frozen=True, slots=True)
class Ageing:
    """How many seconds older an item of a lower class must be to go before an interactive one."""

    normal_s: float = 2.0
    bulk_s: float = 10.0

    def head_start_s(self, priority: Priority) -> float:
        """Seconds added to the arrival of an item of this class."""
        return (0.0, self.normal_s, self.bulk_s)[priority]


@dataclass(slots=True, eq=False)
class Entry(Generic[Item]):
    """One waiting item.

    Attributes:
        cost: its share of the service, in images or crops.
        waiting: False once it was popped or discarded.
    """

    item: Item
    client: Hashable
    priority: Priority
    cost: int
    arrived_s: float
    waiting: bool = True


@dataclass(slots=True)
class _Class(Generic[Item]):
    """One priority class: start-time fair queueing between its clients.

    Invariant: a client is in `turns` exactly once if and only if its queue is not empty.
    """

    queues: dict[Hashable, deque[Entry[Item]]] = field(default_factory=dict)
    turns: list[tuple[float, int, Hashable]] = field(default_factory=list)
    finish: dict[Hashable, float] = field(default_factory=dict)
    now: float = 0.0


class Backlog(Generic[Item]):
    """Orders by class with ageing, fairly between clients within a class, and by arrival for one client."""

    def __init__(self, ageing: Ageing | None = None) -> None:
        self._ageing = ageing or Ageing()
        self._classes: tuple[_Class[Item], ...] = tuple(_Class() for _ in Priority)
        self._order = itertools.count()
        self._waiting = 0
        self._cost = 0

    def __len__(self) -> int:
        return self._waiting

    def __repr__(self) -> str:
        return f"<Backlog waiting={self._waiting} cost={self._cost}>"

    @property
    def cost(self) -> int:
        """Sum of the costs of all waiting items."""
        return self._cost

    def push(self, item: Item, *, client: Hashable, priority: Priority, cost: int, now_s: float) -> Entry[Item]:
        """Add an item at the end of its client's queue.

        `now_s` may lie in the past: an item that comes back keeps its age.
        """
        entry = Entry(item, client, priority, cost, now_s)
        group = self._classes[priority]
        queue = group.queues.get(client)
        if queue is None:
            group.queues[client] = deque((entry,))
            start = max(group.now, group.finish.get(client, 0.0))
            heapq.heappush(group.turns, (start, next(self._order), client))
        else:
            queue.append(entry)
        self._waiting += 1
        self._cost += cost
        return entry

    def discard(self, entry: Entry[Item]) -> None:
        """Take an entry out that nobody waits for any more; nothing if it is out already."""
        if entry.waiting:
            # Its place in the queue is skipped when its turn comes.
            entry.waiting = False
            self._waiting -= 1
            self._cost -= entry.cost
            if not self._waiting:
                self._clear()

    def pop(self, fits: Callable[[Entry[Item]], bool] | None = None) -> Entry[Item] | None:
        """Take the next entry.

        Args:
            fits: asked for the head of each class in turn; a head that does not fit leaves its class waiting and the
                next class is asked.

        Returns:
            The entry, or None if nothing waits or nothing fits.
        """
        if not self._waiting:
            return None
        heads = [head for priority in Priority if (head := self._head(self._classes[priority])) is not None]
        heads.sort(key=lambda entry: entry.arrived_s + self._ageing.head_start_s(entry.priority))
        for head in heads:
            if fits is None or fits(head):
                self._take(self._classes[head.priority], head)
                return head
        return None

    def _head(self, group: _Class[Item]) -> Entry[Item] | None:
        while group.turns:
            client = group.turns[0][2]
            queue = group.queues[client]
            while queue and not queue[0].waiting:
                queue.popleft()
            if queue:
                return queue[0]
            heapq.heappop(group.turns)
            del group.queues[client]
        return None

    def _take(self, group: _Class[Item], head: Entry[Item]) -> None:
        start, _, client = heapq.heappop(group.turns)
        queue = group.queues[client]
        queue.popleft()
        head.waiting = False
        self._waiting -= 1
        self._cost -= head.cost
        group.now = start
        finish = start + head.cost
        group.finish[client] = finish
        if queue:
            heapq.heappush(group.turns, (finish, next(self._order), client))
        else:
            del group.queues[client]
        if len(group.finish) > _SWEEP_AT:
            group.finish = {name: at for name, at in group.finish.items() if at > group.now or name in group.queues}

    def _clear(self) -> None:
        # Everything left in the queues is discarded entries: without this they would stay until the next pop.
        for group in self._classes:
            group.queues.clear()
            group.turns.clear()
