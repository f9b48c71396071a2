"""What surrounds every call: is the server ready, how is a failure told, what is still running."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from sluiceway_runtime.errors import Internal, SluicewayError, Unavailable
from sluiceway_runtime.server.calls import REQUEST_ID_KEY, begin_request, current_request_id
from sluiceway_runtime.server.lifecycle import Lifecycle, State
from sluiceway_runtime.server.metrics import CallMetrics
from sluiceway_runtime.server.security import Access, current_client
from sluiceway_runtime.server.status import brief, code_of, trailers

__all__ = ["CallInterceptor"]

log = logging.getLogger(__name__)

# Health and reflection answer in every state of the server and are not counted as work in progress.
_OWN_PREFIXES = ("/sluiceway.", "/inference.")
# Questions about the server itself, which it answers while it starts and drains, too.
_QUESTIONS = ("/Describe", "/ServerLive", "/ServerReady", "/ModelReady", "/ServerMetadata", "/ModelMetadata")

Context = grpc.aio.ServicerContext[Any, Any]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of Sluiceway's own services.

    Servicers raise `SluicewayError`; the status, `ErrorInfo` and `RetryInfo` are made here. Anything else that they
    raise is a bug: it is logged with the request id and told to the client as INTERNAL with a fixed text.
    """

    def __init__(self, lifecycle: Lifecycle, metrics: CallMetrics, access: Access) -> None:
        self._lifecycle = lifecycle
        self._access = access
        self._metrics = metrics
        # By method: what was wrapped, and what came of it. Servers have few methods, and the same handler each time.
        self._wrapped: dict[str, tuple[object, grpc.RpcMethodHandler[Any, Any]]] = {}
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """Calls in progress."""
        return self._running

    async def wait_idle(self) -> None:
        """Return once no call is in progress."""
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of one call."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(_OWN_PREFIXES):
            return handler
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = self._wrapped[method] = (handler, self._wrap(method, handler))
        return known[1]

    def _wrap(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        serialisers = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(self._streaming(method, behaviour), **serialisers)
        return grpc.unary_unary_rpc_method_handler(self._unary(method, handler.unary_unary), **serialisers)

    def _unary(self, method: str, behaviour: Any) -> Callable[[Any, Context], Awaitable[Any]]:
        async def call(request: Any, context: Context) -> Any:
            started = self._enter(context)
            code, leave = grpc.StatusCode.OK, None
            try:
                leave = self._admit(method)
                return await behaviour(request, context)
            except BaseException as error:
                code = self._code(context, error)
                await self._tell(method, context, error)
                raise
            finally:
                self._leave(method, code, started, leave)

        return call

    def _streaming(self, method: str, behaviour: Any) -> Callable[[Any, Context], AsyncIterator[Any]]:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            started = self._enter(context)
            code, leave = grpc.StatusCode.OK, None
            answers = behaviour(request, context)
            try:
                leave = self._admit(method)
                async for answer in answers:
                    yield answer
            except GeneratorExit:
                code = grpc.StatusCode.CANCELLED
                raise
            except BaseException as error:
                code = self._code(context, error)
                await self._tell(method, context, error)
                raise
            finally:
                try:
                    # Here and now rather than by the garbage collector, so that a client that left frees its work.
                    await answers.aclose()
                finally:
                    self._leave(method, code, started, leave)

        return call

    def _admit(self, method: str) -> Callable[[], None]:
        """Take a place for the call; returns what gives it back. Raises Unavailable or QueueFull."""
        state = self._lifecycle.state
        if state is not State.READY and not method.endswith(_QUESTIONS):
            raise Unavailable(f"the server is {state.value}", retry_after_s=1.0)
        return self._access.enter(current_client.get())

    def _enter(self, context: Context) -> float:
        begin_request(context)
        self._running += 1
        self._idle.clear()
        return time.monotonic()

    def _leave(self, method: str, code: grpc.StatusCode, started: float, leave: Callable[[], None] | None) -> None:
        if leave is not None:
            leave()
        self._running -= 1
        if not self._running:
            self._idle.set()
        self._metrics.observe(method, code.name, time.monotonic() - started)

    @staticmethod
    def _code(context: Context, error: BaseException) -> grpc.StatusCode:
        if isinstance(error, SluicewayError):
            return code_of(error)
        if isinstance(error, grpc.aio.AbortError):  # of gRPC's own services, such as health for a name it does not know
            return context.code() or grpc.StatusCode.UNKNOWN
        if isinstance(error, asyncio.CancelledError):
            return grpc.StatusCode.CANCELLED
        return grpc.StatusCode.INTERNAL

    @staticmethod
    async def _tell(method: str, context: Context, error: BaseException) -> None:
        """End the call with the error's status (by raising gRPC's abort); returns for what is no failure of ours."""
        if isinstance(error, grpc.aio.AbortError) or not isinstance(error, Exception):
            return
        if not isinstance(error, SluicewayError):
            log.error("%s failed", method, exc_info=error)
            error = Internal("internal error", metadata={"request_id": current_request_id.get()})
        await context.abort(
            code_of(error), brief(error.message), (*trailers(error), (REQUEST_ID_KEY, current_request_id.get()))
        )
