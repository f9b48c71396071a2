"""Admission: how many sources are worked on at once, in all and for one client."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager

from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import DeadlineExceeded
from sluiceway_runtime.metrics.waits import Waits
from sluiceway_runtime.priority import Priority

from sluiceway_orchestrator.backlog import Ageing, Backlog, Entry

__all__ = ["Gate"]


class Gate:
    """A bounded number of slots, given out by class and fairly between clients: `total` of them.

    A client that has used up its own share waits without taking a place in the common line, so it holds up nobody.

    Attributes:
        waits: those for a slot.
    """

    def __init__(self, total: int, per_client: int, ageing: Ageing | None = None) -> None:
        self.waits = Waits()
        self.total = total
        self._free = total
        self._per_client = per_client
        self._held: Counter[Hashable] = Counter()
        self._parked: dict[Hashable, Backlog[asyncio.Future[None]]] = {}
        self._ageing = ageing
        self._line: Backlog[asyncio.Future[None]] = Backlog(ageing)

    def __repr__(self) -> str:
        return f"<Gate free={self._free} waiting={self.waiting} clients={len(self._held)}>"

    @property
    def working(self) -> int:
        """Sources that have a slot."""
        return self.total - self._free

    @property
    def waiting_own_share(self) -> int:
        """Of those that wait for a slot, the ones whose client has its whole share of them."""
        return sum(len(parked) for parked in self._parked.values())

    @property
    def waiting(self) -> int:
        """Sources that wait for a slot."""
        return len(self._line) + self.waiting_own_share

    async def enter(self, client: Hashable, priority: Priority, deadline: Deadline) -> None:
        """Take a slot; waits for one, and cancelling the wait gives up the place in the line. `leave` gives it back.

        Raises:
            DeadlineExceeded: the wait was too long.
        """
        if self._free and self._held[client] < self._per_client:
            self._held[client] += 1
            self._free -= 1
            self.waits.none()
            return
        waiting = self.waits.begin(monotonic())
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                await self._enter(client, priority)
        except TimeoutError:
            raise DeadlineExceeded("the time ran out in the line for admission") from None
        finally:
            self.waits.end(waiting, monotonic())

    def leave(self, client: Hashable) -> None:
        """Give a slot back."""
        self._give_slot(client)
        self._give_share(client)

    @asynccontextmanager
    async def slot(self, client: Hashable, priority: Priority, deadline: Deadline) -> AsyncIterator[None]:
        """Hold a slot inside the block; see `enter`."""
        await self.enter(client, priority, deadline)
        try:
            yield
        finally:
            self.leave(client)

    async def _enter(self, client: Hashable, priority: Priority) -> None:
        if self._held[client] >= self._per_client:
            parked = self._parked.get(client)
            if parked is None:
                parked = self._parked[client] = Backlog(self._ageing)
            # Whoever leaves hands over the client's share together with its place.
            await self._wait(parked, client, priority, self._give_share)
        else:
            self._held[client] += 1
        if self._free:
            self._free -= 1
            return
        try:
            await self._wait(self._line, client, priority, self._give_slot)
        except BaseException:
            self._give_share(client)
            raise

    async def _wait(
        self,
        line: Backlog[asyncio.Future[None]],
        client: Hashable,
        priority: Priority,
        give_back: Callable[[Hashable], None],
    ) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry: Entry[asyncio.Future[None]] = line.push(
            future, client=client, priority=priority, cost=1, now_s=monotonic()
        )
        try:
            await future
        except BaseException:
            if entry.waiting:
                line.discard(entry)
            else:
                # It was this waiter's turn already: the turn goes on to the next.
                give_back(client)
            raise

    def _give_slot(self, _client: Hashable) -> None:
        entry = self._line.pop()
        if entry is None:
            self._free += 1
        elif not entry.item.done():
            entry.item.set_result(None)

    def _give_share(self, client: Hashable) -> None:
        parked = self._parked.get(client)
        entry = parked.pop() if parked is not None else None
        if entry is not None:
            if not entry.item.done():
                entry.item.set_result(None)
            return
        self._parked.pop(client, None)
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]
