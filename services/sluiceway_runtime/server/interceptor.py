"""What surrounds every call: the door, how a failure is told, what is still running."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio

from sluiceway_runtime.errors import Internal, InvalidOption, SluicewayError, Unauthenticated
from sluiceway_runtime.server.calls import REQUEST_ID_KEY, begin_request, current_request_id
from sluiceway_runtime.server.door import Door, Entry, current_account
from sluiceway_runtime.server.metrics import CallMetrics
from sluiceway_runtime.server.status import brief, code_of, trailers

__all__ = ["CallInterceptor"]

log = logging.getLogger(__name__)

# Health and reflection answer in every state of the server and are not counted as work in progress.
_OWN_PREFIXES = ("/sluiceway.", "/inference.")
# What calls of no method of ours are counted as: their names are made up by whoever calls.
_OTHER = "other"

Context = grpc.aio.ServicerContext[Any, Any]


class _Call:
    """One call of ours, from the door to its end."""

    __slots__ = ("_ended", "_interceptor", "_task", "_watch", "code", "entry", "method", "refusal", "started_s")

    def __init__(self, interceptor: CallInterceptor, method: str) -> None:
        self._interceptor = interceptor
        self._ended = False
        self._task = asyncio.current_task()
        self._watch: asyncio.TimerHandle | None = None
        self.method = method
        self.started_s = time.monotonic()
        # Of a call that never comes to its handler, because its client has left.
        self.code = grpc.StatusCode.CANCELLED
        self.entry: Entry | None = None
        self.refusal: SluicewayError | None = None
        if self._task is not None:
            # Whatever becomes of a call, gRPC's task for it ends.
            self._task.add_done_callback(self._close)

    def admitted(self, entry: Entry) -> None:
        """From now on its request is read."""
        self.entry = entry
        current_account.set(entry.account)
        if entry.patience_s is not None:
            self._watch = asyncio.get_running_loop().call_later(entry.patience_s, self._give_up)

    def received(self, size_bytes: int) -> None:
        """Its request, or a message of it, is here."""
        self._stop_watching()
        if self.entry is not None:
            self.entry.received(size_bytes)

    def require_read(self) -> None:
        """Raise what was wrong with its request."""
        if self.refusal is not None:
            raise self.refusal

    def end(self, code: grpc.StatusCode) -> None:
        """Its handler has ended. Its bytes are there until gRPC has sent the answer."""
        self.code = code
        if not self._ended:
            self._ended = True
            self._stop_watching()
            self._interceptor.left(self.method, code, time.monotonic() - self.started_s)

    def _close(self, _: asyncio.Task[Any]) -> None:
        self.end(self.code)
        if self.entry is not None:
            self.entry.close()

    def _give_up(self) -> None:
        # Its client says that it sends a request, and does not.
        self.code = grpc.StatusCode.DEADLINE_EXCEEDED
        if self._task is not None:
            self._task.cancel()

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None


_current_call: contextvars.ContextVar[_Call] = contextvars.ContextVar("call")


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Asks the door about every call, and wraps the handlers of Sluiceway's own services.

    A call that is refused ends before its request is read, so a stranger cannot make the server parse anything; those
    of reflection, health and unknown methods need a token, too.

    Servicers raise `SluicewayError`; the status, `ErrorInfo` and `RetryInfo` are made here. Anything else that they
    raise is a bug: it is logged with the request id and told to the client as INTERNAL with a fixed text.
    """

    def __init__(self, door: Door, metrics: CallMetrics) -> None:
        self._door = door
        self._metrics = metrics
        # By method: what was wrapped, and what came of it. Servers have few methods, and the same handler each time.
        self._wrapped: dict[str, tuple[object, grpc.RpcMethodHandler[Any, Any]]] = {}
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """Calls in progress, those that wait at the door among them."""
        return self._running

    async def wait_idle(self) -> None:
        """Return once no call is in progress."""
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Let a call through to its handler, or answer it with a refusal."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        metadata: Mapping[str, Any] = dict(handler_call_details.invocation_metadata or ())
        if handler is None or not method.startswith(_OWN_PREFIXES):
            try:
                self._door.identify(method, metadata)
            except Unauthenticated as error:
                return _refusal(self._begin(_OTHER), error)
            return handler
        call = self._begin(method)
        _current_call.set(call)
        try:
            call.admitted(await self._door.admit(method, metadata, streams=handler.request_streaming))
        except SluicewayError as error:
            return _refusal(call, error)
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = self._wrapped[method] = (handler, _wrap(handler))
        return known[1]

    def _begin(self, method: str) -> _Call:
        self._running += 1
        self._idle.clear()
        return _Call(self, method)

    def left(self, method: str, code: grpc.StatusCode, seconds: float) -> None:
        """A call is no longer in progress. For calls alone."""
        self._running -= 1
        if not self._running:
            self._idle.set()
        self._metrics.observe(method, code.name, seconds)


def _refusal(call: _Call, error: SluicewayError) -> grpc.RpcMethodHandler[Any, Any]:
    async def refuse(_: Any, context: Context) -> None:
        begin_request(context)
        try:
            await _tell(call.method, context, error)
        finally:
            call.end(code_of(error))

    # Whatever the method's kind: a streaming handler answers without reading a request.
    return grpc.stream_stream_rpc_method_handler(refuse)


def _wrap(handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
    make: Any
    behaviour: Any
    if handler.request_streaming:
        if handler.response_streaming:
            make, behaviour = grpc.stream_stream_rpc_method_handler, _streaming(handler.stream_stream)
        else:
            make, behaviour = grpc.stream_unary_rpc_method_handler, _unary(handler.stream_unary)
    elif handler.response_streaming:
        make, behaviour = grpc.unary_stream_rpc_method_handler, _streaming(handler.unary_stream)
    else:
        make, behaviour = grpc.unary_unary_rpc_method_handler, _unary(handler.unary_unary)
    read = _reading(handler.request_deserializer, streams=handler.request_streaming)
    wrapped: grpc.RpcMethodHandler[Any, Any] = make(
        behaviour, request_deserializer=read, response_serializer=handler.response_serializer
    )
    return wrapped


def _reading(deserialise: Any, *, streams: bool) -> Callable[[bytes], Any]:
    def read(raw: bytes) -> Any:
        call = _current_call.get()
        try:
            call.received(len(raw))
            if deserialise is None:
                return raw
            try:
                return deserialise(raw)
            except SluicewayError:
                raise
            except Exception as error:
                raise InvalidOption("the request is no message of this method") from error
        except SluicewayError as error:
            if streams:
                # The handler is there, and reads.
                raise
            # gRPC has words of its own for what is raised here.
            call.refusal = error
            return None

    return read


def _unary(behaviour: Any) -> Callable[[Any, Context], Awaitable[Any]]:
    async def serve(request: Any, context: Context) -> Any:
        call = _current_call.get()
        begin_request(context)
        code = grpc.StatusCode.OK
        try:
            call.require_read()
            return await behaviour(request, context)
        except BaseException as error:
            code = _code(context, error)
            await _tell(call.method, context, error)
            raise
        finally:
            call.end(code)

    return serve


def _streaming(behaviour: Any) -> Callable[[Any, Context], AsyncIterator[Any]]:
    async def serve(request: Any, context: Context) -> AsyncIterator[Any]:
        call = _current_call.get()
        begin_request(context)
        code = grpc.StatusCode.OK
        answers = behaviour(request, context)
        try:
            call.require_read()
            async for answer in answers:
                yield answer
        except GeneratorExit:
            code = grpc.StatusCode.CANCELLED
            raise
        except BaseException as error:
            code = _code(context, error)
            await _tell(call.method, context, error)
            raise
        finally:
            try:
                # Here and now rather than by the garbage collector, so that a client that left frees its work.
                await answers.aclose()
            finally:
                call.end(code)

    return serve


def _code(context: Context, error: BaseException) -> grpc.StatusCode:
    if isinstance(error, SluicewayError):
        return code_of(error)
    if isinstance(error, grpc.aio.AbortError):  # of gRPC's own services, such as health for a name it does not know
        return context.code() or grpc.StatusCode.UNKNOWN
    if isinstance(error, asyncio.CancelledError):
        return grpc.StatusCode.CANCELLED
    return grpc.StatusCode.INTERNAL


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
