"""How many bytes of images may be here, fetched or being fetched, before detection has them."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["ByteBudget", "Reservation"]


class Reservation:
    """A part of the budget. Given back by `release`, or by leaving the `with` block; twice does no harm."""

    __slots__ = ("_budget", "size_bytes")

    def __init__(self, budget: ByteBudget, size_bytes: int) -> None:
        self._budget = budget
        self.size_bytes = size_bytes

    def shrink(self, size_bytes: int) -> None:
        """Keep this much of it only."""
        if size_bytes < self.size_bytes:
            self._budget.give_back(self.size_bytes - size_bytes)
            self.size_bytes = size_bytes

    def release(self) -> None:
        """Give all of it back."""
        self.shrink(0)


class ByteBudget:
    """Bytes for whoever asks first.

    Each fetch reserves once, its whole size: fetches that grew step by step could hold it all among them, each waiting
    for the others. For the same reason an image, which stays until its metadata is here, and an answer that is wanted
    for metadata alone never wait for bytes of the same budget.
    """

    def __init__(self, total_bytes: int) -> None:
        self._total = total_bytes
        self._free = total_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def __repr__(self) -> str:
        return f"<ByteBudget used={self.used_bytes} of={self._total} waiting={len(self._waiting)}>"

    @property
    def used_bytes(self) -> int:
        """Bytes that are reserved."""
        return self._total - self._free

    async def reserve(self, size_bytes: int) -> Reservation:
        """Wait for this many bytes; more than there ever can be are cut to that."""
        size_bytes = min(size_bytes, self._total)
        if self._waiting or size_bytes > self._free:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((size_bytes, future))
            try:
                await future
            except BaseException:
                if future.done() and not future.cancelled():
                    self.give_back(size_bytes)
                else:
                    self._serve()
                raise
        else:
            self._free -= size_bytes
        return Reservation(self, size_bytes)

    def give_back(self, size_bytes: int) -> None:
        """Called by reservations."""
        self._free += size_bytes
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            size_bytes, future = self._waiting[0]
            if not future.done():
                if size_bytes > self._free:
                    return
                self._free -= size_bytes
                future.set_result(None)
            self._waiting.popleft()
