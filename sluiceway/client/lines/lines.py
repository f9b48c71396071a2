"""Keeps a connection to each server of an address, and hands them to calls."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from sluiceway.client.addresses import Place
from sluiceway.client.lines.spread import Spread
from sluiceway.errors import Cancelled

__all__ = ["Lines"]

# Initial metadata of the answer to a health check; see docs/clients.md.
SERVER_ID_KEY = "sluiceway-server-id"
_CHECK = "/grpc.health.v1.Health/Check"
# A `HealthCheckResponse` whose status is SERVING. Two bytes need no generated code, nor its package.
_SERVING = b"\x08\x01"
# For a server to say who it is, from connecting to it on.
ASK_TIMEOUT_S = 5.0
# A name is looked up anew after this long.
RESOLVE_EVERY_S = 10.0
# What an answer that does not come, or that comes from no server, has in common: it may come another time.
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)

Headers = tuple[tuple[str, str], ...]


@dataclass(eq=False, slots=True)
class _Line:
    """One connection.

    Attributes:
        channel: that it is.
        calls: that run on it.
        asked: whether its server was asked who it is.
        leaves: whether it takes no further calls; it is closed after the last.
    """

    channel: grpc.aio.Channel
    calls: int = 0
    asked: bool = False
    leaves: bool = False

    @property
    def up(self) -> bool:
        """Whether it is connected. Its channel never connects again by itself, but for a call."""
        return self.channel.get_state() is grpc.ChannelConnectivity.READY


class Lines:
    """The connections of one client.

    A first one leads to wherever the address does. Once it carries calls its server is asked who it is. From then on,
    as long as calls come, others are looked for: a connection that leads to a server without one is kept, any other
    one is closed. A connection that is lost is forgotten, and the last one is made anew as the first one was.

    Args:
        open_channel: makes a channel to a place, or to wherever the address leads.
        places: what the address stands for; None where gRPC itself spreads calls.
        metadata: sent with every question.

    Resource handling: belongs to the event loop that it was made in; `close` cancels what is in flight.
    """

    def __init__(
        self,
        open_channel: Callable[[Place | None], grpc.aio.Channel],
        places: Callable[[], Awaitable[list[Place]]] | None,
        metadata: Headers,
    ) -> None:
        self._open_channel = open_channel
        self._look_up = places
        self._metadata = metadata
        self._spread: Spread[_Line] = Spread(random.Random())
        # One whose server is not known yet, and one whose server does not say who it is.
        self._first: _Line | None = None
        self._nameless: _Line | None = None
        self._open: set[_Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._places: list[Place] = []
        self._resolved_s = -RESOLVE_EVERY_S
        self._closed = False

    def __repr__(self) -> str:
        return f"<Lines {len(self._open)} open, {self._spread!r}>"

    @property
    def servers(self) -> tuple[str, ...]:
        """Ids of the servers that calls are spread over, as far as they are known."""
        return self._spread.servers

    @contextmanager
    def line(self) -> Iterator[grpc.aio.Channel]:
        """The channel for one call, to be left when it has ended.

        Raises:
            Cancelled: they were closed.
        """
        line = self._take()
        line.calls += 1
        try:
            yield line.channel
        finally:
            line.calls -= 1
            self._release(line)

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(line.channel.close() for line in self._open))

    def _take(self) -> _Line:
        if self._closed:
            raise Cancelled("the client is closed")
        while (line := self._spread.take()) is not None:
            if line.up:
                if self._spread.look_due(time.monotonic()):
                    self._start(self._look())
                return line
            self._spread.lost(line)
            self._retire(line)
        if self._first is None:
            self._first = self._make(None)
        return self._first

    def _release(self, line: _Line) -> None:
        if line.leaves:
            self._retire(line)
        elif line is self._first and self._look_up is not None and not line.asked and not self._closed and line.up:
            line.asked = True
            self._start(self._ask_first(line))

    def _make(self, place: Place | None) -> _Line:
        line = _Line(self._open_channel(place))
        self._open.add(line)
        return line

    def _retire(self, line: _Line) -> None:
        """Close a connection once no call is on it. One that the server ended goes on for those that it has."""
        line.leaves = True
        if not line.calls and not self._closed:
            self._start(self._shut(line))

    async def _shut(self, line: _Line) -> None:
        await line.channel.close()
        self._open.discard(line)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask_first(self, line: _Line) -> None:
        try:
            server = await self._who(line)
        except grpc.aio.AioRpcError as error:
            line.asked = error.code() not in _AWAY
            return
        if server is None:
            line.asked = False
        elif line is self._first:
            self._first = None
            self._nameless = None if server else line
            self._spread.met(server, line, None)

    async def _look(self) -> None:
        found = False
        try:
            places = self._spread.to_try(await self._resolved())
            found = any(await asyncio.gather(*(self._try(place) for place in places)))
        finally:
            self._spread.looked(time.monotonic(), found=found)

    async def _resolved(self) -> list[Place]:
        now_s = time.monotonic()
        if self._look_up is not None and now_s - self._resolved_s >= RESOLVE_EVERY_S:
            self._resolved_s = now_s
            try:
                self._places = await self._look_up()
            except OSError:
                # The name is not known at the moment: there is what was known.
                return self._places
        return self._places

    async def _try(self, place: Place) -> bool:
        """Connect once more; whether that leads to a server that serves and has no connection yet."""
        line = self._make(place)
        kept = False
        try:
            server = await self._who(line)
            # What does not say who it is, is told by its address.
            kept = server is not None and self._spread.met(server or place.address, line, place)
        except grpc.aio.AioRpcError:
            # Nobody there, or nobody who answers: the calls have others.
            return False
        finally:
            if not kept:
                self._retire(line)
        if kept and self._nameless is not None:
            # It may lead to the same one.
            self._spread.lost(self._nameless)
            self._retire(self._nameless)
            self._nameless = None
        return kept

    async def _who(self, line: _Line) -> str | None:
        """The id of the server at the other end; empty if it has none, None if it does not serve now."""
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = line.channel.unary_unary(_CHECK)
        call = check(b"", timeout=ASK_TIMEOUT_S, metadata=self._metadata)
        try:
            if await call != _SERVING:
                return None
            return str(dict(await call.initial_metadata()).get(SERVER_ID_KEY, ""))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return ""
            raise
        finally:
            call.cancel()
