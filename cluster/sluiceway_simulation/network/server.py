"""A gRPC server in memory: handlers and interceptors are the real ones, and each call has a task, as with gRPC."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import grpc
import grpc.aio

from sluiceway_simulation.network.call import OK, Call, Status

__all__ = ["MemoryServer"]

_UNIMPLEMENTED = Status(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
_GONE = Status(grpc.StatusCode.UNAVAILABLE, "Socket closed")


class _Details(NamedTuple):
    method: str
    invocation_metadata: tuple[tuple[str, str | bytes], ...]


class MemoryServer:
    """What the runtime uses of `grpc.aio.Server`."""

    def __init__(self, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()) -> None:
        self._handlers: list[Any] = []
        # The handler of a call, through all interceptors.
        self._find: Callable[[Any], Awaitable[Any]] = self._handler
        for interceptor in reversed(interceptors):
            self._find = partial(interceptor.intercept_service, self._find)
        self._calls: dict[Call, asyncio.Task[None]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self.listening = False

    def __repr__(self) -> str:
        return f"<MemoryServer listening={self.listening} calls={len(self._calls)}>"

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """As gRPC has it."""
        self._handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Those of generated code come by the other way as well."""

    async def start(self) -> None:
        """Take calls."""
        self.listening = True

    async def stop(self, grace: float | None) -> None:
        """Take none any more; those that run have so long to end."""
        self.listening = False
        if self._calls and grace:
            try:
                async with asyncio.timeout(grace):
                    await self._idle.wait()
            except TimeoutError:
                pass
        for task in self._calls.values():
            task.cancel()
        await self._idle.wait()

    def break_off(self) -> None:
        """The process is gone: nothing of it is heard any more, and its clients see that the connection is closed."""
        self.listening = False
        for call, task in self._calls.items():
            call.end(_GONE)
            task.cancel()

    def accept(self, call: Call) -> None:
        """A call has come."""
        if not self.listening:
            call.conclude(_GONE)
            return
        if call.context.left:
            return
        self._idle.clear()
        # As in another process: nothing is inherited from whoever calls.
        task = asyncio.get_running_loop().create_task(self._serve(call), context=contextvars.Context())
        call.context.server_task = self._calls[call] = task
        task.add_done_callback(partial(self._ended, call))

    def _ended(self, call: Call, _: asyncio.Task[None]) -> None:
        del self._calls[call]
        if not self._calls:
            self._idle.set()
        call.context.over()

    async def _serve(self, call: Call) -> None:
        context = call.context
        status = Status(grpc.StatusCode.CANCELLED, "cancelled by the server")
        try:
            status = await self._handled(call)
        except grpc.aio.AbortError:
            status = context.aborted or status
        except Exception as error:
            status = Status(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error).__name__}")
        finally:
            call.conclude(status)

    async def _handled(self, call: Call) -> Status:
        context: Any = call.context
        handler = await self._find(_Details(call.method, context.invocation_metadata()))
        if handler is None:
            return _UNIMPLEMENTED
        context.deserialise = handler.request_deserializer or bytes
        context.serialise = handler.response_serializer or bytes
        if handler.request_streaming:
            behaviour = handler.stream_stream if handler.response_streaming else handler.stream_unary
            given = context.requests()
        else:
            behaviour = handler.unary_stream if handler.response_streaming else handler.unary_unary
            given = await context.read()
            if given is grpc.aio.EOF:
                return Status(grpc.StatusCode.INTERNAL, "no request")
        answers = behaviour(given, context)
        del given
        if hasattr(answers, "__aiter__"):
            async for answer in answers:
                await context.write(answer)
        else:
            answer = await answers
            if not handler.response_streaming:
                await context.write(answer)
        return OK

    async def _handler(self, details: Any) -> Any:
        for generic in self._handlers:
            if (handler := generic.service(details)) is not None:
                return handler
        return None
