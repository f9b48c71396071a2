"""How many calls of one API there may be at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sluiceway_runtime.priority import Priority

from sluiceway_orchestrator.fetch.room import Estimate, Room

__all__ = ["Slots"]


class Slots:
    """Slots for whoever asks first, such that no call waits for a slot that waits for that call.

    A call for an image waits, in its slot, for room for the image. That room may be taken by an image that waits for
    values of the same API: were every slot with calls that wait, each would wait for the other. So all but one of the
    slots may be with such calls. A call for an image that finds no slot of those has its room first, as much as an
    answer is expected to take, and then waits for a slot: of each class only one at a time, so that those in line
    behind it keep no room from others.

    Attributes:
        total: how many there are.
        in_flight: calls that have one.
        waiting: calls that wait for one.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.in_flight = 0
        self.waiting = 0
        self._all = asyncio.Semaphore(total)
        self._waiting = asyncio.Semaphore(total - 1)
        # By class, as room is: one that bulk work waits for may be free for interactive work.
        self._heads_of_lines = {priority: asyncio.Lock() for priority in Priority}

    @asynccontextmanager
    async def slot(self, room: Room, expected: Estimate) -> AsyncIterator[None]:
        """Hold a slot; waits for one."""
        self.waiting += 1
        counted = False
        try:
            async with self._slot(room, expected):
                self.waiting -= 1
                self.in_flight += 1
                counted = True
                yield
        finally:
            if counted:
                self.in_flight -= 1
            else:
                self.waiting -= 1

    @asynccontextmanager
    async def _slot(self, room: Room, expected: Estimate) -> AsyncIterator[None]:
        head_of_line = self._heads_of_lines[room.priority]
        if not room.waits:
            async with self._all:
                yield
        elif not self._waiting.locked() and not head_of_line.locked():
            async with self._waiting, self._all:
                yield
        else:
            async with head_of_line:
                await room.reserve(expected.size_bytes)
                await self._all.acquire()
            try:
                yield
            finally:
                self._all.release()
