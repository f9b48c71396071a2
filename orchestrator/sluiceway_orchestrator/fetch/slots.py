"""How many calls of one API there may be at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

__all__ = ["Slots"]


class Slots:
    """Slots for whoever asks first, of which one is kept for calls for metadata alone, if there are two.

    A call for an image waits, in its slot, for room for the image. That room may be taken by an image that waits for
    metadata of the same API: were every slot with calls for images, each would wait for the other. For an API with one
    slot the fetcher brings metadata before the image.
    """

    def __init__(self, total: int) -> None:
        self._all = asyncio.Semaphore(total)
        self._images = asyncio.Semaphore(max(1, total - 1))

    @asynccontextmanager
    async def slot(self, *, want_image: bool) -> AsyncIterator[None]:
        """Hold a slot; waits for one."""
        async with self._images if want_image else nullcontext(), self._all:
            yield
