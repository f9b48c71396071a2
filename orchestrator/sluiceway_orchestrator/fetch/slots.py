"""How many calls of one API there may be at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sluiceway_orchestrator.fetch.room import Estimate, Room

__all__ = ["Slots"]


class Slots:
    """Slots for whoever asks first, such that no call waits for a slot that waits for that call.

    A call for an image waits, in its slot, for room for the image. That room may be taken by an image that waits for
    values of the same API: were every slot with calls for images, each would wait for the other. So of several slots
    one is kept for calls that do not wait for room. Of one slot nothing can be kept: there room for what an image is
    expected to take comes before the slot, for one call at a time, so that those behind it keep no room from others.
    """

    def __init__(self, total: int) -> None:
        self._all = asyncio.Semaphore(total)
        self._images = asyncio.Semaphore(max(1, total - 1))
        self._one = total == 1

    @asynccontextmanager
    async def slot(self, room: Room, expected: Estimate) -> AsyncIterator[None]:
        """Hold a slot; waits for one."""
        if not room.waits:
            async with self._all:
                yield
        elif self._one:
            async with self._images:
                await room.reserve(expected.size_bytes)
                await self._all.acquire()
            try:
                yield
            finally:
                self._all.release()
        else:
            async with self._images, self._all:
                yield
