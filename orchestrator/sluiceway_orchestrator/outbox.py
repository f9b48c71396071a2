"""Events on their way to one client: bounded, so that a client that reads slowly slows its own work only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from sluiceway_runtime.account import Account, Phase
from sluiceway_runtime.errors import SluicewayError

from sluiceway_orchestrator.events import (
    Event,
    JobDone,
    JobRefused,
    RegionsFound,
    SourceDone,
    SourceFailed,
    SourceReady,
    ValuesRead,
)

__all__ = ["Addressed", "Outbox"]

# Of the events that wait, whatever their number.
MAX_BYTES = 8 * 2**20
# In steps of so many they are counted in the account; the first step is not.
COUNTED_BYTES = 64 * 2**10
# What an event takes up besides what it carries.
EVENT_BYTES = 512


class Addressed(NamedTuple):
    """An event with the job and source that it belongs to.

    Attributes:
        then: called when the reader has it.
        size_bytes: that it takes up.
    """

    job_id: str
    source_id: str
    event: Event
    then: Callable[[], None] | None = None
    size_bytes: int = EVENT_BYTES


@dataclass(slots=True)
class _Gathering:
    """Values of one page of a source, and of one step, that wait for company."""

    event: ValuesRead
    timer: asyncio.TimerHandle


@dataclass(slots=True)
class _Told:
    """What the client has heard of a job.

    Attributes:
        succeeded, failed: sources by id whose last event it has.
        then: called when it has the job's last event.
        timer: at whose end what it has not heard is dropped.
    """

    succeeded: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    then: list[Callable[[], None]] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None

    def end(self) -> None:
        """It has heard everything."""
        if self.timer is not None:
            self.timer.cancel()
        for then in self.then:
            then()


class Outbox:
    """A bounded line of events with one reader. Its bytes count in an account, which is closed with it.

    Values are coalesced: the first of a source go at once; what follows within `coalesce_s` goes together. Last events
    (of a source, of a job) never wait for room, so that a job can end whether anybody reads or not.

    Attributes:
        taken: events that the reader has taken so far.
    """

    def __init__(self, limit: int, *, coalesce_s: float, coalesce_items: int, account: Account) -> None:
        self._limit = limit
        self._coalesce_s = coalesce_s
        self._coalesce_items = coalesce_items
        self._account = account
        self._events: deque[Addressed] = deque()
        self._bytes = 0
        self._counted = COUNTED_BYTES
        self._closed = False
        self._reader: asyncio.Future[None] | None = None
        self._writers: deque[asyncio.Future[None]] = deque()
        self._gathering: dict[tuple[str, str, str, int], _Gathering] = {}
        self._sent_s: dict[tuple[str, str], float] = {}
        self._told: dict[str, _Told] = {}
        self.taken = 0

    def __len__(self) -> int:
        return len(self._events)

    def __repr__(self) -> str:
        return f"<Outbox events={len(self._events)} bytes={self._bytes} waiting={len(self._writers)}>"

    @property
    def keeps_waiting(self) -> bool:
        """Whether somebody waits for the reader to take an event."""
        return any(not writer.done() for writer in self._writers)

    async def put(self, job_id: str, source_id: str, event: Event) -> None:
        """Add an event; waits for room. Values may be held back a moment to go together."""
        if isinstance(event, ValuesRead):
            await self._put_values(job_id, source_id, event)
            return
        if self._gathering:
            await self._flush(job_id, source_id)
        size = _size(event)
        await self._room(size)
        self._append(Addressed(job_id, source_id, event, size_bytes=size))

    def put_last(self, job_id: str, source_id: str, event: SourceDone | SourceFailed | JobDone) -> None:
        """Add the last event of a source or a job, room or not."""
        for key in [key for key in self._gathering if key[0] == job_id and key[1] == source_id]:
            self._release(key)
        self._sent_s.pop((job_id, source_id), None)
        if isinstance(event, JobDone):
            self._told.setdefault(job_id, _Told())
        self._append(Addressed(job_id, source_id, event))

    def refuse(self, job_id: str, error: SluicewayError, then: Callable[[], None]) -> None:
        """Add the one event of a job that does not run, room or not; `then` is called once the client has it."""
        self._append(Addressed(job_id, "", JobRefused(error), then))

    def when_told(self, job_id: str, then: Callable[[], None]) -> None:
        """Call a function once the client has the last event of a job."""
        self._told.setdefault(job_id, _Told()).then.append(then)

    def is_told(self, job_id: str) -> bool:
        """Whether the client has the last event of a job that has ended."""
        return job_id not in self._told

    def expire_later(self, job_id: str, source_ids: Sequence[str], error: SluicewayError, after_s: float) -> None:
        """See `expire`; after so many seconds, unless the client has heard everything by then."""
        told = self._told.setdefault(job_id, _Told())
        loop = asyncio.get_running_loop()
        told.timer = loop.call_later(max(0.0, after_s), self.expire, job_id, source_ids, error)

    def expire(self, job_id: str, source_ids: Iterable[str], error: SluicewayError) -> None:
        """The time of a job is over, and its client has not read all of it: what waits is dropped, and said to be lost.

        Args:
            job_id: the job; nothing of it runs any more.
            source_ids: all of its sources.
            error: why those fail whose last event the client does not have.
        """
        told = self._told.get(job_id)
        if told is None:
            # The client had the last of it in the same moment.
            return
        for key in [key for key in self._gathering if key[0] == job_id]:
            self._gathering.pop(key).timer.cancel()
        for sent in [sent for sent in self._sent_s if sent[0] == job_id]:
            # A job that was cancelled has put no last event of its sources.
            del self._sent_s[sent]
        dropped = [addressed for addressed in self._events if addressed.job_id == job_id]
        self._events = deque(addressed for addressed in self._events if addressed.job_id != job_id)
        self._give_back(sum(addressed.size_bytes for addressed in dropped))
        lost = [name for name in source_ids if name not in told.succeeded and name not in told.failed]
        for name in lost:
            self._append(Addressed(job_id, name, SourceFailed(error)))
        self._append(Addressed(job_id, "", JobDone(len(told.succeeded), len(told.failed) + len(lost))))
        self._wake_writers()

    def close(self) -> None:
        """No more events come; the reader ends after those that are there."""
        self._closed = True
        self._wake_reader()

    def discard(self) -> None:
        """The reader is gone: drop what is there and end the timers."""
        for gathering in self._gathering.values():
            gathering.timer.cancel()
        for told in self._told.values():
            if told.timer is not None:
                told.timer.cancel()
        self._gathering.clear()
        self._told.clear()
        self._events.clear()
        self._bytes = 0
        self._account.close()
        self.close()

    async def __aiter__(self) -> AsyncIterator[Addressed]:
        """Events in order; for one reader."""
        while True:
            while self._events:
                addressed = self._events.popleft()
                self.taken += 1
                self._give_back(addressed.size_bytes)
                self._note(addressed)
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

    def _note(self, addressed: Addressed) -> None:
        """The client hears of it now."""
        if addressed.then is not None:
            addressed.then()
        if isinstance(addressed.event, (RegionsFound, ValuesRead, SourceReady)):
            return
        match addressed.event:
            case SourceDone():
                self._told.setdefault(addressed.job_id, _Told()).succeeded.add(addressed.source_id)
            case SourceFailed():
                self._told.setdefault(addressed.job_id, _Told()).failed.add(addressed.source_id)
            case JobDone():
                if (told := self._told.pop(addressed.job_id, None)) is not None:
                    told.end()

    async def _flush(self, job_id: str, source_id: str) -> None:
        """Let go of the values of a source that were held back."""
        for key in [key for key in self._gathering if key[0] == job_id and key[1] == source_id]:
            await self._room(0)
            self._release(key)

    async def _put_values(self, job_id: str, source_id: str, event: ValuesRead) -> None:
        now_s = asyncio.get_running_loop().time()
        key = (job_id, source_id, event.step, event.page)
        gathering = self._gathering.get(key)
        last_s = self._sent_s.get(key[:2])
        if gathering is None and (last_s is None or now_s - last_s >= self._coalesce_s):
            await self._room(event.size_bytes)
            self._sent_s[key[:2]] = now_s
            self._append(Addressed(job_id, source_id, event, size_bytes=_size(event)))
            return
        if (gathering.event.count if gathering is not None else 0) + event.count >= self._coalesce_items:
            # Room first: whoever is cancelled while it waits has said nothing.
            await self._room(event.size_bytes)
            if self._gathering.get(key) is not gathering:
                await self._put_values(job_id, source_id, event)
                return
        if gathering is None:
            assert last_s is not None
            timer = asyncio.get_running_loop().call_at(last_s + self._coalesce_s, self._release, key)
            gathering = self._gathering[key] = _Gathering(event, timer)
        elif gathering.event.subject is not event.subject or gathering.event.model not in (event.model, ""):
            # Of another kind: what was held back goes before it.
            await self._room(0)
            self._release(key)
            await self._put_values(job_id, source_id, event)
            return
        else:
            gathering.event.values.MergeFrom(event.values)
            gathering.event = replace(
                gathering.event,
                model=event.model or gathering.event.model,
                count=gathering.event.count + event.count,
                size_bytes=gathering.event.size_bytes + event.size_bytes,
            )
        if gathering.event.count >= self._coalesce_items:
            self._release(key)

    def _release(self, key: tuple[str, str, str, int]) -> None:
        """From a timer this may exceed the limit, by one event for each source at most."""
        gathering = self._gathering.pop(key, None)
        if gathering is None:
            return
        gathering.timer.cancel()
        self._sent_s[key[:2]] = asyncio.get_running_loop().time()
        self._append(Addressed(key[0], key[1], gathering.event, size_bytes=_size(gathering.event)))

    def _append(self, addressed: Addressed) -> None:
        self._events.append(addressed)
        self._bytes += addressed.size_bytes
        if self._bytes > self._counted:
            self._count()
        self._wake_reader()

    def _give_back(self, size: int) -> None:
        self._bytes -= size
        if self._counted - self._bytes > 2 * COUNTED_BYTES:
            self._count()

    def _count(self) -> None:
        """Bring the account up to date; in large steps, as most events are small and read at once."""
        self._counted = max(1, -(-self._bytes // COUNTED_BYTES)) * COUNTED_BYTES
        self._account.settle(self._counted - COUNTED_BYTES, Phase.FETCH)

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
    if isinstance(event, (RegionsFound, ValuesRead)):
        return EVENT_BYTES + event.size_bytes
    if isinstance(event, SourceReady):
        return EVENT_BYTES + len(event.image) + event.values_bytes
    return EVENT_BYTES
