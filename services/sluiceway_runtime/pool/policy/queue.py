"""The queue of a pool: priority classes with ageing, fair between requests, grouped into batches.

Fairness is weighted fair queueing with equal weights (Demers, Keshav and Shenker, 1989). What a request queues together
are packets of up to 64 items, the crops of one call. Each gets the turn at which it would be done if requests
alternated item by item: its size after the request's last turn, or after the class's clock if that is later. The
smallest turn goes first. For each item served, the clock goes on by one divided by the number of requests that wait.

So a request gets its share however much others have queued, and a small one does not wait for the large ones before it;
but equal ones are served one after the other. Alternating, they would be done all at once: each twice as late on
average, and then the queue runs dry until their clients have sent more (ADR 0008). Every item is reached: the clock
goes on, and no newcomer is put before it.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.priority import Priority

__all__ = ["FairQueue"]

# Items of a request that are served together.
PACKET_ITEMS = 64
# A heap is swept when this many entries, and more than half of all, are of items that left by another way.
SWEEP_AT_LEAST = 64


@dataclass(slots=True)
class _Share:
    """What a request has in one class."""

    waiting: int = 0
    last_turn: int = 0


@dataclass(slots=True)
class _Group:
    """A heap of (turn, item id). Entries of items that left are skipped when they come up, or swept."""

    heap: list[tuple[int, int]] = field(default_factory=list)
    waiting: int = 0


class _Level:
    """One priority class."""

    def __init__(self, number: int) -> None:
        self.clock = 0.0
        self.waiting: dict[int, Item] = {}
        self._number = number
        self._entered: deque[int] = deque()  # ids in order of entry; those that left are skipped, or swept
        self._groups: dict[Hashable, _Group] = {}
        self._shares: dict[str, _Share] = {}

    def enter(self, items: Sequence[Item], now: float) -> list[int]:
        """Add items of one request; returns their ids."""
        share = self._shares.setdefault(items[0].request_id, _Share())
        # Whole turns, so that of items at about the same turn the one that has waited longest goes first.
        turn = max(int(self.clock), share.last_turn)
        share.waiting += len(items)
        share.last_turn = turn + len(items)
        group: _Group | None = None
        name: Hashable = None
        for position, item in enumerate(items):
            if position % PACKET_ITEMS == 0:
                turn += min(PACKET_ITEMS, len(items) - position)
            if group is None or item.group != name:
                name = item.group
                group = self._groups.setdefault(name, _Group())
            group.waiting += 1
            heapq.heappush(group.heap, (turn, item.id))
            item.level = self._number
            item.entered_s = now
            self.waiting[item.id] = item
        ids = [item.id for item in items]
        self._entered.extend(ids)
        return ids

    @property
    def requests(self) -> int:
        """How many requests have items here."""
        return len(self._shares)

    def has_of(self, request_id: str) -> bool:
        """Whether an item of a request is here."""
        return request_id in self._shares

    def leave(self, item: Item) -> None:
        del self.waiting[item.id]
        item.level = None
        share = self._shares[item.request_id]
        share.waiting -= 1
        # It was not served: what its request queues next does not stand behind it.
        share.last_turn = max(share.last_turn - 1, int(self.clock))
        if not share.waiting:
            del self._shares[item.request_id]
        group = self._groups[item.group]
        group.waiting -= 1
        if not group.waiting:
            del self._groups[item.group]
        elif len(group.heap) > max(SWEEP_AT_LEAST, 2 * group.waiting):
            group.heap = [entry for entry in group.heap if entry[1] in self.waiting]
            heapq.heapify(group.heap)
        self._sweep()

    def _sweep(self) -> None:
        if len(self._entered) > max(SWEEP_AT_LEAST, 2 * len(self.waiting)):
            self._entered = deque(item_id for item_id in self._entered if item_id in self.waiting)

    def first(self) -> Item | None:
        """The item whose turn it is, of any group."""
        heads = [group.heap[0] for name in self._groups if (group := self._swept(name)) is not None]
        if not heads:
            return None
        # Turn, then id: ids grow, so the longer-waiting item wins a tie.
        return self.waiting[min(heads)[1]]

    def take(self, name: Hashable, batch: list[Item], max_items: int, max_cost: float) -> bool:
        """Move the items of one group into a batch, in their turn, until one does not fit; whether one did not."""
        group = self._groups.get(name)
        if group is None:
            return False
        heap, waiting, shares = group.heap, self.waiting, self._shares
        before = len(batch)
        cost = sum([item.cost for item in batch])
        full = False
        while heap:
            item = waiting.get(heap[0][1])
            if item is not None:
                cost += item.cost
                if full := len(batch) >= max_items or cost > max_cost:
                    break
                batch.append(item)
                self.clock += 1 / len(shares)
                item.level = None
                del waiting[item.id]
                share = shares[item.request_id]
                share.waiting -= 1
                if not share.waiting:
                    del shares[item.request_id]
            heapq.heappop(heap)
        group.waiting -= len(batch) - before
        if not group.waiting:
            del self._groups[name]
        self._sweep()
        return full

    def oldest(self) -> Item | None:
        """The item that has been longest in this class."""
        while self._entered:
            item = self.waiting.get(self._entered[0])
            if item is not None:
                return item
            self._entered.popleft()
        return None

    def _swept(self, name: Hashable) -> _Group | None:
        group = self._groups.get(name)
        if group is None:
            return None
        while group.heap[0][1] not in self.waiting:  # ends: a group in the table has an item waiting
            heapq.heappop(group.heap)
        return group


class FairQueue:
    """Items waiting for a worker.

    Args:
        ageing_s: an item that waited this long in its class moves up one.
    """

    def __init__(self, ageing_s: float) -> None:
        self._ageing_s = ageing_s
        self._levels = [_Level(int(priority)) for priority in Priority]
        self._count = 0
        self._by_group: Counter[Hashable] = Counter()
        # When items came into the pool, and the ids of those that came together. What has left is skipped, or swept.
        self._arrived: deque[tuple[float, list[int]]] = deque()
        self.size_bytes = 0
        self.cost = 0

    def __len__(self) -> int:
        return self._count

    @property
    def requests(self) -> int:
        """How many requests have items that wait; one with items in two classes is counted twice."""
        return sum([level.requests for level in self._levels])

    def has_of(self, request_id: str) -> bool:
        """Whether an item of a request waits."""
        return any(level.has_of(request_id) for level in self._levels)

    def push(self, items: Sequence[Item], now: float) -> None:
        """Add items of one request to the class of their priority."""
        ids = self._levels[items[0].priority].enter(items, now)
        self._arrived.append((items[0].accepted_s, ids))
        self._count += len(items)
        if len(self._arrived) > max(SWEEP_AT_LEAST, 2 * self._count):
            self._arrived = deque(entry for entry in self._arrived if self._waits(entry[1]))
        self._by_group.update([item.group for item in items])
        self.size_bytes += sum([item.size_bytes for item in items])
        self.cost += sum([item.cost for item in items])

    def remove(self, item: Item) -> None:
        """Take one item out, wherever it stands; its `level` says whether it is here."""
        assert item.level is not None, "it waits here"
        self._levels[item.level].leave(item)
        self._count -= 1
        self._by_group[item.group] -= 1
        if not self._by_group[item.group]:
            del self._by_group[item.group]
        self.size_bytes -= item.size_bytes
        self.cost -= item.cost

    def age(self, now: float) -> None:
        """Move up what has waited long enough in its class."""
        for number, level in enumerate(self._levels[1:]):
            while level.waiting and (item := level.oldest()) is not None and now - item.entered_s >= self._ageing_s:
                # What came together stays together: one by one, requests would be served in turns again.
                together = [item]
                level.leave(item)
                while (
                    (other := level.oldest()) is not None
                    and other.request_id == item.request_id
                    and now - other.entered_s >= self._ageing_s
                ):
                    level.leave(other)
                    together.append(other)
                self._levels[number].enter(together, now)

    def pop_batch(self, max_items: int, max_cost: int | None, *, workers: int = 1, mixes: bool = False) -> list[Item]:
        """Take the item whose turn it is, and those of its group that fit with it, in their order.

        Args:
            max_items: most items.
            max_cost: most cost in all; an item above it comes alone.
            workers: that share what waits and may come together; one batch takes an equal part.
            mixes: fill what is left with items of the group whose turn is next, and so on.

        Returns:
            At least one item, unless the queue is empty.
        """
        seed = self._first()
        if seed is None:
            return []
        together = self._count if mixes else self._by_group[seed.group]
        max_items = min(max_items, math.ceil(together / workers))
        limit = math.inf if max_cost is None else max_cost
        if seed.cost > limit:
            max_items, limit = 1, seed.cost
        batch: list[Item] = []
        full = self._take(seed.group, batch, max_items, limit)
        while mixes and not full and len(batch) < max_items and (seed := self._first()) is not None:
            full = self._take(seed.group, batch, max_items, limit)
        self._count -= len(batch)
        self.size_bytes -= sum([item.size_bytes for item in batch])
        self.cost -= sum([item.cost for item in batch])
        return batch

    def _take(self, group: Hashable, batch: list[Item], max_items: int, limit: float) -> bool:
        """Move the items of one group of every class into a batch until one does not fit; whether one did not."""
        before, full = len(batch), False
        for level in self._levels:
            if level.waiting and (full := level.take(group, batch, max_items, limit)):
                break
        self._by_group[group] -= len(batch) - before
        if not self._by_group[group]:
            del self._by_group[group]
        return full

    def next_group(self) -> tuple[int, int]:
        """Of the group whose turn it is, how many items wait and about what they cost; nothing of an empty queue.

        The items of a group are much alike, so the cost is reckoned from the first.
        """
        seed = self._first()
        if seed is None:
            return 0, 0
        items = self._by_group[seed.group]
        return items, items * seed.cost

    def oldest_s(self) -> float | None:
        """When the item was taken into the pool that waits here the longest, None if none waits."""
        while self._arrived and not self._waits(self._arrived[0][1]):
            self._arrived.popleft()
        return self._arrived[0][0] if self._arrived else None

    def ahead_of(self, priority: Priority) -> int:
        """How many items wait in this class and those before it."""
        return sum(len(level.waiting) for level in self._levels[: priority + 1])

    def _waits(self, ids: list[int]) -> bool:
        """Whether any of them is still here; drops those that are not from the end."""
        while ids:
            for level in self._levels:  # a loop, as it is asked for each item once
                if ids[-1] in level.waiting:
                    return True
            ids.pop()
        return False

    def _first(self) -> Item | None:
        for level in self._levels:
            if level.waiting and (first := level.first()) is not None:
                return first
        return None
