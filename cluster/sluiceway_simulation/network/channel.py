"""Channels to addresses of a simulated network, as `grpc.aio.Channel` shows them to its users."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio
from sluiceway_runtime.calling.channel import KEEPALIVE_INTERVAL_MS, KEEPALIVE_TIMEOUT_MS, MAX_RECONNECT_BACKOFF_MS

from sluiceway_simulation.network.call import Call, Metadata, Status
from sluiceway_simulation.network.server import MemoryServer
from sluiceway_simulation.network.wire import Weather

__all__ = ["MemoryChannel"]

_REFUSED = Status(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses")
_SILENT = Status(grpc.StatusCode.UNAVAILABLE, "keepalive watchdog timeout")
# While there are calls, a connection asks its peer so often whether it is there, and waits so long for the answer.
INTERVAL_S = KEEPALIVE_INTERVAL_MS / 1000
TIMEOUT_S = KEEPALIVE_TIMEOUT_MS / 1000
RECONNECT_S = MAX_RECONNECT_BACKOFF_MS / 1000
Servers = Mapping[str, MemoryServer]


class MemoryChannel:
    """Calls to one address, whoever listens there at the moment."""

    def __init__(self, weather: Weather, servers: Servers, address: str, own: Metadata = ()) -> None:
        self._weather = weather
        self._servers = servers
        self._address = address
        self._own = tuple(own)
        self._calls: dict[Call, None] = {}
        self._asking: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<MemoryChannel {self._address} calls={len(self._calls)}>"

    def unary_unary(self, method: str, **serialisers: Any) -> Callable[..., Any]:
        """A method with one request and one answer."""
        make = self._maker(method, one_request=True, **serialisers)

        async def ask(request: Any, **options: Any) -> Any:
            call = make(request, **options)
            try:
                answer = await call.read()
                if answer is not grpc.aio.EOF:
                    await call.read()
                return answer
            finally:
                call.cancel()

        return ask

    def unary_stream(self, method: str, **serialisers: Any) -> Callable[..., Call]:
        """A method with one request and many answers."""
        return self._maker(method, one_request=True, **serialisers)

    def stream_stream(self, method: str, **serialisers: Any) -> Callable[..., Call]:
        """A method with many of both."""
        return self._maker(method, one_request=False, **serialisers)

    async def close(self, grace: float | None = None) -> None:
        """End all calls."""
        del grace
        for call in list(self._calls):
            call.cancel()

    def _maker(
        self,
        method: str,
        *,
        one_request: bool,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        **_: Any,
    ) -> Callable[..., Call]:
        serialise: Callable[[Any], bytes] = request_serializer or bytes

        def make(
            request: Any, *, timeout: float | None = None, metadata: Metadata = (), wait_for_ready: bool = False
        ) -> Call:
            carried = (*self._own, *metadata)
            call = Call(
                self._weather,
                self._address,
                method,
                carried,
                timeout_s=timeout,
                deserialise=response_deserializer,
            )
            self._calls[call] = None
            if self._asking is None:
                self._asking = asyncio.get_running_loop().call_later(INTERVAL_S, self._ask)
            call.when_over(self._forget)
            self._connect(call, wait=wait_for_ready)
            if one_request:
                call.send(serialise(request))
                call.send(None)
            else:
                pump = asyncio.get_running_loop().create_task(_pump(call, request, serialise))
                call.when_over(lambda _: pump.cancel())
            return call

        return make

    def _forget(self, call: Call) -> None:
        self._calls.pop(call, None)

    def _connect(self, call: Call, *, wait: bool) -> None:
        loop = asyncio.get_running_loop()
        if call.status is not None or self._weather.hold(self._address, lambda: self._connect(call, wait=wait)):
            return
        delay_s = self._weather.delay_s(self._address, 256)
        server = self._servers.get(self._address)
        if server is not None and server.listening:
            loop.call_later(delay_s, server.accept, call)
        elif wait:
            loop.call_later(RECONNECT_S, lambda: self._connect(call, wait=True))
        else:
            loop.call_later(delay_s, call.end, _REFUSED)

    def _ask(self) -> None:
        """Whoever has no end in sight would not notice that the way is cut."""
        self._asking = None
        if not self._calls:
            return
        loop = asyncio.get_running_loop()
        if self._weather.is_cut(self._address):
            self._asking = loop.call_later(TIMEOUT_S, self._not_answered)
        else:
            self._asking = loop.call_later(INTERVAL_S, self._ask)

    def _not_answered(self) -> None:
        if self._weather.is_cut(self._address):
            for call in list(self._calls):
                call.end(_SILENT)
                call.context.leave()
        self._ask()


async def _pump(call: Call, requests: AsyncIterable[Any], serialise: Callable[[Any], bytes]) -> None:
    """Send what a client has to say."""
    async for request in requests:
        call.send(serialise(request))
    call.send(None)
