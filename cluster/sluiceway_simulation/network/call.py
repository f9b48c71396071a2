"""One call: its client's half, its server's half, and messages on their way between them in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

import grpc
import grpc.aio

from sluiceway_simulation.network.wire import Weather

__all__ = ["Call", "Context", "Status"]

# Of answers that the client has not read; the server waits above it, as HTTP/2 has it wait.
WINDOW_BYTES = 64 * 2**10
# Between two messages of a call, at least.
MOMENT_S = 1e-8
Metadata = Sequence[tuple[str, str | bytes]]


class Status(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    details: str = ""
    trailers: Metadata = ()


OK = Status(grpc.StatusCode.OK)


class Call:
    """The client's half, as `grpc.aio` shows one that answers with a stream; others stand on it."""

    # A thousand servers have tens of thousands of calls open.
    __slots__ = (
        "_came", "_deserialise", "_here", "_listener", "_loop", "_on_end", "_reader", "_there", "_timer", "_weather",
        "address", "cancelled_here", "context", "deadline_s", "metadata", "method", "status",
    )  # fmt: skip

    def __init__(
        self,
        weather: Weather,
        address: str,
        method: str,
        metadata: Metadata,
        *,
        timeout_s: float | None,
        deserialise: Callable[[bytes], Any] | None,
    ) -> None:
        self.address = address
        self.method = method
        self.metadata = metadata
        self.status: Status | None = None
        self.cancelled_here = False
        self._weather = weather
        self._deserialise = deserialise
        self._loop = asyncio.get_running_loop()
        self.deadline_s = None if timeout_s is None else self._loop.time() + timeout_s
        self.context = Context(self)
        self._timer = None if timeout_s is None else self._loop.call_later(max(0.0, timeout_s), self._overdue)
        self._came: deque[bytes] = deque()
        self._listener: Callable[[bytes], object] | None = None
        self._reader: asyncio.Future[None] | None = None
        self._there = _Way(weather, address, self._loop)
        self._here = _Way(weather, address, self._loop)
        self._on_end: list[Callable[[Call], object]] = []

    def __repr__(self) -> str:
        return f"<Call {self.method} at {self.address} {self.status or 'running'}>"

    def when_over(self, then: Callable[[Call], object]) -> None:
        """Call once its client has its status."""
        self._on_end.append(then)

    # What clients use.

    async def read(self) -> Any:
        """The next answer, or `grpc.aio.EOF`. Raises AioRpcError, or CancelledError where it was cancelled here."""
        while not self._came and self.status is None:
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if self._came:
            message = self._came.popleft()
            self.context.taken(len(message))
            return message if self._deserialise is None else self._deserialise(message)
        self.raise_status()
        return grpc.aio.EOF

    async def listen(self, heard: Callable[[bytes], object]) -> Status:
        """Have each answer read the moment it comes, and not deserialised; returns how the call ended.

        Cheaper than `read` for a client that nobody waits for. To be used at once, and in place of it.
        """
        self._listener = heard
        over = self._loop.create_future()
        self.when_over(lambda _: None if over.done() else over.set_result(None))
        try:
            await over
        finally:
            self.cancel()
        assert self.status is not None
        return self.status

    def raise_status(self) -> None:
        """Raise what a client of gRPC sees of a call that went wrong."""
        if self.cancelled_here:
            raise asyncio.CancelledError
        assert self.status is not None
        if self.status.code is not grpc.StatusCode.OK:
            trailing = grpc.aio.Metadata(*self.status.trailers)
            raise grpc.aio.AioRpcError(self.status.code, grpc.aio.Metadata(), trailing, self.status.details)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    def cancel(self) -> bool:
        """End it from this side."""
        if self.status is not None:
            return False
        self.cancelled_here = True
        self.end(Status(grpc.StatusCode.CANCELLED, "cancelled here"))
        self._there.send(0, self.context.leave)
        return True

    # What happens to it.

    def end(self, status: Status) -> None:
        """The client has its status; twice does no harm."""
        if self.status is not None:
            return
        self.status = status
        if self._timer is not None:
            self._timer.cancel()
        if self._weather.note is not None:
            self._weather.note(f"{self.method} at {self.address}: {status.code.name}")
        for then in self._on_end:
            then(self)
        self._wake()

    def send(self, message: bytes | None) -> None:
        """A request, or the end of the requests, goes to the server."""
        self._there.send(0 if message is None else len(message), self.context.came, message)

    def answer(self, message: bytes) -> None:
        """An answer goes to the client."""
        self._here.send(len(message), self._heard, message)

    def conclude(self, status: Status) -> None:
        """The server has ended it."""
        self._here.send(0, self.end, status)

    def _heard(self, message: bytes) -> None:
        if self.status is None:
            if self._weather.note is not None:
                self._weather.note(f"{self.method} at {self.address}: {len(message)} bytes")
            if self._listener is not None:
                self.context.taken(len(message))
                self._listener(message)
                return
            self._came.append(message)
            self._wake()

    def _overdue(self) -> None:
        # Either side looks at the deadline by itself.
        self.end(Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
        self.context.leave()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class _Way:
    """One of the two ways of a call: no message passes the one before it, and an end comes with the last message.

    That is: what has no bytes of its own travels with what was sent in the same moment.
    """

    __slots__ = ("_address", "_last", "_loop", "_sent_s", "_there_s", "_weather")

    def __init__(self, weather: Weather, address: str, loop: asyncio.AbstractEventLoop) -> None:
        self._weather = weather
        self._address = address
        self._loop = loop
        self._sent_s = self._there_s = 0.0
        # What arrives together, of the message that was sent last.
        self._last: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def send(self, size_bytes: int, then: Callable[..., None], *arguments: Any) -> None:
        """Have something done at the other end."""
        weather, address = self._weather, self._address
        if weather.is_cut(address):
            weather.hold(address, lambda: self.send(size_bytes, then, *arguments))
            return
        now_s = self._loop.time()
        if not size_bytes and self._sent_s == now_s and self._there_s > now_s:
            self._last.append((then, arguments))
            return
        # Later by a moment: timers of one moment fire in any order.
        at_s = max(self._there_s + MOMENT_S, now_s + weather.delay_s(address, size_bytes))
        self._last = [(then, arguments)]
        self._sent_s, self._there_s = now_s, at_s
        self._loop.call_at(at_s, _arrive, self._last)


def _arrive(together: list[tuple[Callable[..., None], tuple[Any, ...]]]) -> None:
    for then, arguments in together:
        then(*arguments)
    # The way keeps this list. What has arrived holds the call, which holds the way: a circle is rubbish to look for.
    together.clear()


class Context:
    """The server's half: what servicers use of `grpc.aio.ServicerContext`.

    Attributes:
        server_task: what serves it, once it has come there.
        left: whether the client is gone, or its time is over.
        deserialise, serialise: of its method.
    """

    __slots__ = (
        "_aborted", "_call", "_callbacks", "_deadline_s", "_metadata", "_reader", "_requests", "_unread_bytes",
        "_writer", "deserialise", "left", "serialise", "server_task",
    )  # fmt: skip

    def __init__(self, call: Call) -> None:
        # Until the server is done with it: a circle is rubbish to look for.
        self._call: Call | None = call
        self._metadata = tuple(call.metadata)
        self._deadline_s = call.deadline_s
        self.server_task: asyncio.Task[None] | None = None
        self._requests: deque[bytes | None] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._unread_bytes = 0
        self._writer: asyncio.Future[None] | None = None
        self._callbacks: list[Callable[[Any], None]] = []
        self._aborted: Status | None = None
        self.left = False
        self.deserialise: Callable[[bytes], Any] = bytes
        self.serialise: Callable[[Any], bytes] = bytes

    # What servicers use.

    async def read(self) -> Any:
        """The next request, or `grpc.aio.EOF`."""
        raw = await self.raw()
        return grpc.aio.EOF if raw is None else self.deserialise(raw)

    async def write(self, message: Any) -> None:
        """Answer; waits while the client has much to read."""
        data = self.serialise(message)
        self._unread_bytes += len(data)
        assert self._call is not None, "the call has ended"
        self._call.answer(data)
        while self._unread_bytes > WINDOW_BYTES:
            self._writer = asyncio.get_running_loop().create_future()
            try:
                await self._writer
            finally:
                self._writer = None

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Nobody reads that of a call that succeeds."""

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> None:
        """End the call with an error, by raising."""
        self._aborted = Status(code, details, tuple(trailing_metadata))
        raise grpc.aio.AbortError("the call is aborted")

    def code(self) -> grpc.StatusCode | None:
        """As it was aborted."""
        return None if self._aborted is None else self._aborted.code

    def invocation_metadata(self) -> Metadata:
        """What the client sent."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """Until the client's deadline."""
        deadline_s = self._deadline_s
        return None if deadline_s is None else max(0.0, deadline_s - asyncio.get_running_loop().time())

    def peer(self) -> str:
        """Who calls."""
        return next((str(value) for key, value in self._metadata if key == "peer"), "unknown")

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call once the call is over."""
        self._callbacks.append(callback)

    # What happens to it.

    @property
    def aborted(self) -> Status | None:
        """How it was aborted, None if it was not."""
        return self._aborted

    async def raw(self) -> bytes | None:
        """The next request as it came; None after the last."""
        while not self._requests:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if self._requests[0] is None:
            return None
        return self._requests.popleft()

    async def requests(self) -> AsyncIterator[Any]:
        """All of them."""
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    def came(self, message: bytes | None) -> None:
        """A request is here, or the last was."""
        self._requests.append(message)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def taken(self, size_bytes: int) -> None:
        """The client has read so much."""
        self._unread_bytes -= size_bytes
        if self._unread_bytes <= WINDOW_BYTES and self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def leave(self) -> None:
        """The client is gone, or its time is over."""
        if not self.left:
            self.left = True
            if self.server_task is not None:
                self.server_task.cancel()

    def over(self) -> None:
        """The server is done with it."""
        self._call = None
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)
