"""Events on their way to one client: bounded, so that a client that reads slowly slows its own work only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from sluiceway_orchestrator.events import Event, ImageReady, Recognized

__all__ = ["Addressed", "Outbox"]

# Events with pictures inside are counted by their bytes as well.
MAX_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Addressed:
    """An event with the job and source that it belongs to."""

    job_id: str
    source_id: str
    event: Event


@dataclass(slots=True)
class _Gathering:
    """Recognitions of one source and model that wait for company."""

    opaque: list[object]
    ids: tuple[int, ...]
    failed: int
    timer: asyncio.TimerHandle


class Outbox:
    """A bounded line of events with one reader.

    Recognitions are coalesced: the first of a source goes at once; what follows within `coalesce_s` goes together.
    """

    def __init__(self, limit: int, *, coalesce_s: float, coalesce_items: int) -> None:
        self._limit = limit
        self._coalesce_s = coalesce_s
        self._coalesce_items = coalesce_items
        self._events: deque[Addressed] = deque()
        self._bytes = 0
        self._closed = False
        self._reader: asyncio.Future[None] | None = None
        self._writers: deque[asyncio.Future[None]] = deque()
        self._gathering: dict[tuple[str, str, str], _Gathering] = {}
        self._sent_s: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        return len(self._events)

    def __repr__(self) -> str:
        return f"<Outbox events={len(self._events)} bytes={self._bytes} waiting={len(self._writers)}>"

    async def put(self, job_id: str, source_id: str, event: Event) -> None:
        """Add an event; waits for room. Recognitions may be held back a moment to go together."""
        if isinstance(event, Recognized):
            await self._put_recognized(job_id, source_id, event)
            return
        if self._gathering:
            await self.flush(job_id, source_id)
        await self._room(_size(event))
        self._append(Addressed(job_id, source_id, event))

    async def flush(self, job_id: str, source_id: str) -> None:
        """Let go of the recognitions of a source that were held back."""
        for key in [key for key in self._gathering if key[0] == job_id and key[1] == source_id]:
            await self._room(0)
            self._release(key)

    def forget(self, job_id: str, source_id: str) -> None:
        """The source is finished: nothing more comes of it."""
        self._sent_s.pop((job_id, source_id), None)

    def close(self) -> None:
        """No more events come; the reader ends after those that are there."""
        self._closed = True
        self._wake_reader()

    def discard(self) -> None:
        """The reader is gone: drop what is there and end the timers."""
        for gathering in self._gathering.values():
            gathering.timer.cancel()
        self._gathering.clear()
        self._events.clear()
        self._bytes = 0
        self.close()

    async def __aiter__(self) -> AsyncIterator[Addressed]:
        """Events in order; for one reader."""
        while True:
            while self._events:
                addressed = self._events.popleft()
                self._bytes -= _size(addressed.event)
                self._wake_writers()
                yield addressed
            if self._closed:
                return
            # A writer that was woken may have had nothing to add after all; with an empty line none may stay asleep.
            for future in self._writers:
                if not future.done():
                    future.set_result(None)
            self._writers.clear()
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader

    async def _put_recognized(self, job_id: str, source_id: str, event: Recognized) -> None:
        now_s = asyncio.get_running_loop().time()
        key = (job_id, source_id, event.model)
        gathering = self._gathering.get(key)
        last_s = self._sent_s.get(key[:2])
        if gathering is None and (last_s is None or now_s - last_s >= self._coalesce_s):
            await self._room(0)
            self._sent_s[key[:2]] = now_s
            self._append(Addressed(job_id, source_id, event))
            return
        if gathering is None:
            assert last_s is not None
            timer = asyncio.get_running_loop().call_at(last_s + self._coalesce_s, self._release, key)
            self._gathering[key] = _Gathering(list(event.opaque), event.ids, event.failed, timer)
            gathering = self._gathering[key]
        else:
            gathering.opaque += event.opaque
            gathering.ids += event.ids
            gathering.failed += event.failed
        if len(gathering.ids) >= self._coalesce_items:
            await self._room(0)
            self._release(key)

    def _release(self, key: tuple[str, str, str]) -> None:
        """From a timer this may exceed the limit, by one event for each source at most."""
        gathering = self._gathering.pop(key, None)
        if gathering is None:
            return
        gathering.timer.cancel()
        self._sent_s[key[:2]] = asyncio.get_running_loop().time()
        self._append(Addressed(key[0], key[1], Recognized(key[2], gathering.opaque, gathering.ids, gathering.failed)))

    def _append(self, addressed: Addressed) -> None:
        self._events.append(addressed)
        self._bytes += _size(addressed.event)
        self._wake_reader()

    async def _room(self, size: int) -> None:
        while self._events and (len(self._events) >= self._limit or self._bytes + size > MAX_BYTES):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._writers.append(future)
            try:
                await future
            except BaseException:
                if future.done() and not future.cancelled():
                    # It was this writer's turn: it goes on to the next.
                    self._wake_writers()
                raise

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_writers(self) -> None:
        while self._writers:
            future = self._writers.popleft()
            if not future.done():
                future.set_result(None)
                return


def _size(event: Event) -> int:
    return len(event.image) if isinstance(event, ImageReady) else 0
