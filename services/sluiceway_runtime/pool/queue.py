"""The queue of a pool: priority classes with ageing, fair between requests, grouped into batches.

Fairness is start-time fair queueing with equal weights. An item entering a class gets a turn: one after the last turn
of its request, or one after the class's clock if that is later; the smallest turn goes first and sets the clock. So
requests alternate item by item however many each has queued, a newcomer is served in the next round, and every item is
reached: only finitely many turns lie before its own, and no newcomer is put before the clock.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from sluiceway_runtime.pool.events import Item
from sluiceway_runtime.pool.priority import Priority

__all__ = ["FairQueue"]

# A heap is swept when this many entries, and more than half of all, are of items that left by another way.
SWEEP_AT_LEAST = 64


@dataclass(slots=True, eq=False)
class _Place:
    """Where an item stands."""

    item: Item
    level: int
    turn: int
    entered_s: float


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

    def __init__(self) -> None:
        self.clock = 0
        self.waiting: OrderedDict[int, _Place] = OrderedDict()  # by item id, in order of entry: the oldest first
        self._groups: dict[Hashable, _Group] = {}
        self._shares: dict[str, _Share] = {}

    def enter(self, item: Item, level: int, now: float) -> None:
        share = self._shares.setdefault(item.request_id, _Share())
        share.waiting += 1
        share.last_turn = max(self.clock, share.last_turn) + 1
        group = self._groups.setdefault(item.group, _Group())
        group.waiting += 1
        heapq.heappush(group.heap, (share.last_turn, item.id))
        self.waiting[item.id] = _Place(item, level, share.last_turn, now)

    def leave(self, item_id: int) -> _Place:
        place = self.waiting.pop(item_id)
        item = place.item
        share = self._shares[item.request_id]
        share.waiting -= 1
        if not share.waiting:
            del self._shares[item.request_id]
        group = self._groups[item.group]
        group.waiting -= 1
        if not group.waiting:
            del self._groups[item.group]
        elif len(group.heap) > max(SWEEP_AT_LEAST, 2 * group.waiting):
            group.heap = [entry for entry in group.heap if entry[1] in self.waiting]
            heapq.heapify(group.heap)
        return place

    def first(self) -> _Place | None:
        """The item whose turn it is, of any group."""
        heads = [(group.heap[0], name) for name in self._groups if (group := self._swept(name)) is not None]
        # Turn, then id: ids grow, so the longer-waiting item wins a tie. Groups need not be comparable.
        best = min(heads, key=lambda head: head[0], default=None)
        return None if best is None else self.waiting[best[0][1]]

    def first_of(self, name: Hashable) -> _Place | None:
        """The item of one group whose turn it is."""
        group = self._swept(name)
        return None if group is None else self.waiting[group.heap[0][1]]

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
        self._levels = [_Level() for _ in Priority]
        self._level_of: dict[int, int] = {}
        self._by_group: Counter[Hashable] = Counter()
        self.size_bytes = 0
        self.cost = 0

    def __len__(self) -> int:
        return len(self._level_of)

    def __contains__(self, item_id: int) -> bool:
        return item_id in self._level_of

    def push(self, item: Item, now: float) -> None:
        """Add an item to the class of its priority."""
        self._enter(item, int(item.priority), now)
        self._by_group[item.group] += 1
        self.size_bytes += item.size_bytes
        self.cost += item.cost

    def remove(self, item_id: int) -> Item:
        """Take one item out, wherever it stands.

        Raises:
            KeyError: it is not here.
        """
        item = self._levels[self._level_of.pop(item_id)].leave(item_id).item
        self._by_group[item.group] -= 1
        if not self._by_group[item.group]:
            del self._by_group[item.group]
        self.size_bytes -= item.size_bytes
        self.cost -= item.cost
        return item

    def age(self, now: float) -> None:
        """Move up what has waited long enough in its class."""
        for level in range(1, len(self._levels)):
            waiting = self._levels[level].waiting
            while waiting:
                place = next(iter(waiting.values()))
                if now - place.entered_s < self._ageing_s:
                    break
                self._levels[level].leave(place.item.id)
                self._enter(place.item, level - 1, now)

    def pop_batch(self, max_items: int, max_cost: int | None) -> list[Item]:
        """Take the item whose turn it is, and those of its group that fit with it, in their order.

        Args:
            max_items: most items.
            max_cost: most cost in all; an item above it comes alone.

        Returns:
            At least one item, unless the queue is empty.
        """
        seed = next((place for level in self._levels if (place := level.first()) is not None), None)
        if seed is None:
            return []
        self._levels[seed.level].clock = max(self._levels[seed.level].clock, seed.turn)
        batch = [self.remove(seed.item.id)]
        cost = seed.item.cost
        for item in self._rest_of(seed.item.group):
            cost += item.cost
            if len(batch) >= max_items or (max_cost is not None and cost > max_cost):
                break
            batch.append(self.remove(item.id))
        return batch

    def next_group_size(self) -> int:
        """How many items could share a batch with the one whose turn it is, itself included, were there no limit."""
        seed = next((place for level in self._levels if (place := level.first()) is not None), None)
        return 0 if seed is None else self._by_group[seed.item.group]

    def ahead_of(self, priority: Priority) -> int:
        """How many items wait in this class and those before it."""
        return sum(len(level.waiting) for level in self._levels[: priority + 1])

    def _enter(self, item: Item, level: int, now: float) -> None:
        self._levels[level].enter(item, level, now)
        self._level_of[item.id] = level

    def _rest_of(self, group: Hashable) -> Iterator[Item]:
        # The consumer removes what it is given before it asks for the next.
        for level in self._levels:
            while (place := level.first_of(group)) is not None:
                yield place.item
