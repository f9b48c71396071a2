"""The line of those who wait for room in a budget of memory."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

from sluiceway_runtime.priority import Priority

__all__ = ["Line", "Waiter"]


@dataclass(slots=True)
class Waiter:
    """Who waits for room, and for how much."""

    at_s: float
    size_bytes: int
    priority: Priority
    client: Hashable
    future: asyncio.Future[None]


class Line:
    """Who waits for bytes of one phase in one class: by client, each in the order of their arrivals.

    Invariant: no client is here without a waiter.
    """

    def __init__(self) -> None:
        self._by_client: dict[Hashable, OrderedDict[int, Waiter]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_client)

    def __iter__(self) -> Iterator[Waiter]:
        for waiters in self._by_client.values():
            yield from waiters.values()

    def push(self, waiter: Waiter) -> None:
        """Let one wait."""
        self._by_client.setdefault(waiter.client, OrderedDict())[id(waiter)] = waiter

    def remove(self, waiter: Waiter) -> bool:
        """Take a waiter out; False if it is out already."""
        waiters = self._by_client.get(waiter.client)
        if waiters is None or waiters.pop(id(waiter), None) is None:
            return False
        if not waiters:
            del self._by_client[waiter.client]
        return True

    def head(self, held: Mapping[Hashable, int]) -> Waiter | None:
        """Whose turn it is: of the clients the one that holds the least, and its waiter that is here the longest."""
        heads = [
            head
            for waiters in self._by_client.values()
            # One that is cancelled takes itself out when its task runs.
            if (head := next((w for w in waiters.values() if not w.future.done()), None)) is not None
        ]
        return min(heads, key=lambda head: (held.get(head.client, 0), head.at_s), default=None)
