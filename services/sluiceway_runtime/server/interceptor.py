"""What surrounds every call: the door, how a failure is told, what is still running."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from sluiceway_runtime.cancellation import was_asked_to_end
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.errors import (
    Cancelled,
    DeadlineExceeded,
    Internal,
    InvalidOption,
    SluicewayError,
    Unauthenticated,
    Unavailable,
)
from sluiceway_runtime.metrics.calls import CallMetrics
from sluiceway_runtime.recorder import Recorder, fault_of
from sluiceway_runtime.server.calls import REQUEST_ID_KEY, begin_request, current_request_id
from sluiceway_runtime.server.door import QUESTIONS, Door, current_account
from sluiceway_runtime.server.entry import Entry, by_message
from sluiceway_runtime.server.security import current_client
from sluiceway_runtime.server.status import brief, code_of, forget_frames, trailers
from sluiceway_runtime.tracing import Tracer
from sluiceway_runtime.tracing.calls import TracedCall, begin_call, end_call
from sluiceway_runtime.watch.durations import Durations

__all__ = ["CallInterceptor"]

log = logging.getLogger(__name__)

# Health and reflection answer in every state of the server and are not counted as work in progress.
_OWN_PREFIXES = ("/sluiceway.", "/inference.")
# What calls of no method of ours are counted as: their names are made up by whoever calls.
_OTHER = "other"

Context = grpc.aio.ServicerContext[Any, Any]


class _Call:
    """One call of ours, from the door to its end."""

    __slots__ = (
        "_ended", "_interceptor", "_task", "_timer", "admitted_s", "code", "entry", "fault", "given_id", "method",
        "number", "refusal", "request_id", "started_s", "trace",
    )  # fmt: skip

    def __init__(self, interceptor: CallInterceptor, method: str, number: int) -> None:
        self._interceptor = interceptor
        self._ended = False
        self.number = number
        self.given_id: object = None
        self.request_id = ""
        self.admitted_s = 0.0
        self.fault: tuple[str, ...] = ()
        self.trace: TracedCall | None = None
        self.method = method
        self.started_s = monotonic()
        # Of a call that never comes to its handler, because its client has left.
        self.code = grpc.StatusCode.CANCELLED
        self.entry: Entry | None = None
        self.refusal: SluicewayError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task = asyncio.current_task()
        if self._task is not None:
            # Whatever becomes of a call, gRPC's task for it ends.
            self._task.add_done_callback(self._close)

    def admitted(self, entry: Entry) -> None:
        """From now on its request is read."""
        self.entry = entry
        self.admitted_s = monotonic()
        current_account.set(entry.account)
        if entry.silent_s is not None and self._task is not None:
            self._timer = asyncio.get_running_loop().call_later(entry.silent_s, self._task.cancel)

    def received(self, size_bytes: int) -> None:
        """Its request, or a message of it, is here."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.entry is not None:
            self.entry.received(size_bytes)

    async def read(self, context: Context) -> Any:
        """Read its one request, for as long as its entry allows."""
        try:
            async with asyncio.timeout(self.entry.patience_s if self.entry is not None else None):
                request = await context.read()
        except TimeoutError:
            raise DeadlineExceeded("the request did not come in time") from None
        if request is grpc.aio.EOF:
            raise Cancelled("the call has no request")
        return request

    def require_read(self) -> None:
        """Raise what was wrong with its request."""
        if self.refusal is not None:
            raise self.refusal

    def end(self, code: grpc.StatusCode) -> None:
        """Its handler has ended. Its bytes are there until gRPC has sent the answer."""
        self.code = code
        if not self._ended:
            self._ended = True
            self._interceptor.left(self, code)

    def _close(self, _: asyncio.Task[Any]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._task = None  # its context holds this call, and a circle is rubbish to look for
        self.end(self.code)
        if self.entry is not None:
            self.entry.close()


@dataclass(frozen=True, slots=True)
class _Handlers:
    """One method, wrapped.

    Attributes:
        plain: gRPC reads the request, before anything of ours runs.
        watched: for one request that is read here, so that a client that does not send it can be told. gRPC takes it
            for a stream; on the wire there is no difference.
    """

    plain: grpc.RpcMethodHandler[Any, Any]
    watched: grpc.RpcMethodHandler[Any, Any]


_current_call: contextvars.ContextVar[_Call] = contextvars.ContextVar("call")


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Asks the door about every call, and wraps the handlers of Sluiceway's own services.

    A call that is refused ends before its request is read, so a stranger cannot make the server parse anything; those
    of reflection, health and unknown methods need a token, too.

    Servicers raise `SluicewayError`; the status, `ErrorInfo` and `RetryInfo` are made here. Anything else that they
    raise is a bug: it is logged with the request id and told to the client as INTERNAL with a fixed text.

    Attributes:
        begun: calls so far.
    """

    def __init__(
        self,
        door: Door,
        metrics: CallMetrics,
        recorder: Recorder | None = None,
        tracer: Tracer | None = None,
        *,
        begins_traces: bool = True,
        access_log: bool = False,
    ) -> None:
        self._begins_traces = begins_traces
        self._door = door
        self._metrics = metrics
        self._recorder = recorder or Recorder()
        self._tracer = tracer
        self._access_log = access_log
        # Of answered calls for work, for whoever watches.
        self.durations = Durations()
        # By method: what was wrapped, and what came of it. Servers have few methods, and the same handler each time.
        self._wrapped: dict[str, tuple[object, _Handlers]] = {}
        self.begun = 0
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
                return _refusal(self._begin(_OTHER, metadata), error)
            return handler
        call = self._begin(method, metadata)
        _current_call.set(call)
        try:
            entry = await self._door.admit(method, metadata, streams=handler.request_streaming)
        except SluicewayError as error:
            return _refusal(call, error)
        call.admitted(entry)
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = self._wrapped[method] = (handler, _wrap(handler))
        return known[1].plain if entry.patience_s is None else known[1].watched

    def _begin(self, method: str, metadata: Mapping[str, Any]) -> _Call:
        self.begun += 1
        self._running += 1
        self._idle.clear()
        call = _Call(self, method, self._recorder.calls.begin())
        call.given_id = metadata.get(REQUEST_ID_KEY)
        if self._tracer is not None and not method.endswith(QUESTIONS):
            batches, begins = self._recorder.batches, self._begins_traces
            call.trace = begin_call(self._tracer, batches, call.number, method, metadata, begins=begins)
        return call

    def left(self, call: _Call, code: grpc.StatusCode) -> None:
        """A call is no longer in progress. For calls alone."""
        self._running -= 1
        if not self._running:
            self._idle.set()
        now_s, method = monotonic(), call.method
        seconds = now_s - call.started_s
        self._metrics.observe(method, code.name, seconds)
        if not method.endswith(QUESTIONS):
            if code is grpc.StatusCode.OK:
                self.durations.observe(seconds)
            its = (call.number, method, call.request_id, call.started_s, call.admitted_s, now_s)
            row = (*its, code.name, *call.fault)
            self._recorder.calls.ended(row)
            if call.trace is not None and self._tracer is not None:
                end_call(self._tracer, self._recorder.batches, call.trace, row)
        if self._access_log:
            log.info("%s %s %.1f ms, client %s", method, code.name, seconds * 1000, current_client.get() or "-")


def _refusal(call: _Call, error: SluicewayError) -> grpc.RpcMethodHandler[Any, Any]:
    async def refuse(_: Any, context: Context) -> None:
        call.request_id = begin_request(context, call.given_id)
        call.fault = fault_of(error)
        try:
            await _tell(call.method, context, error)
        finally:
            call.end(code_of(error))

    # Whatever the method's kind: a streaming handler answers without reading a request.
    return grpc.stream_stream_rpc_method_handler(refuse)


def _wrap(handler: grpc.RpcMethodHandler[Any, Any]) -> _Handlers:
    make_plain: Any
    make_watched: Any
    if handler.response_streaming:
        wrap: Any = _streaming
        behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
        make_plain, make_watched = grpc.unary_stream_rpc_method_handler, grpc.stream_stream_rpc_method_handler
    else:
        wrap = _unary
        behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary
        make_plain, make_watched = grpc.unary_unary_rpc_method_handler, grpc.stream_unary_rpc_method_handler
    serialise = handler.response_serializer
    read_by_us = _reading(handler.request_deserializer, raises=True)
    if handler.request_streaming:
        plain = make_watched(
            wrap(by_message(behaviour, lambda: _current_call.get().entry)),
            request_deserializer=read_by_us,
            response_serializer=serialise,
        )
        return _Handlers(plain, plain)
    read_by_grpc = _reading(handler.request_deserializer, raises=False)
    return _Handlers(
        make_plain(wrap(behaviour), request_deserializer=read_by_grpc, response_serializer=serialise),
        make_watched(wrap(behaviour, reads=True), request_deserializer=read_by_us, response_serializer=serialise),
    )


def _reading(deserialise: Any, *, raises: bool) -> Callable[[bytes], Any]:
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
            if raises:
                raise
            # gRPC has words of its own for what is raised here.
            call.refusal = error
            return None

    return read


def _unary(behaviour: Any, *, reads: bool = False) -> Callable[[Any, Context], Awaitable[Any]]:
    async def serve(request: Any, context: Context) -> Any:
        call = _current_call.get()
        call.request_id = begin_request(context, call.given_id)
        code = grpc.StatusCode.OK
        try:
            if reads:
                request = await call.read(context)
            call.require_read()
            return await behaviour(request, context)
        except BaseException as error:
            error = _as_told(call.method, error)
            code, call.fault = _code(context, error), fault_of(error)
            # gRPC keeps what is raised from here on, and with it what this frame holds.
            del request
            await _tell(call.method, context, error)
            raise
        finally:
            call.end(code)

    return serve


def _streaming(behaviour: Any, *, reads: bool = False) -> Callable[[Any, Context], AsyncIterator[Any]]:
    async def serve(request: Any, context: Context) -> AsyncIterator[Any]:
        call = _current_call.get()
        call.request_id = begin_request(context, call.given_id)
        code = grpc.StatusCode.OK
        answers = None
        try:
            if reads:
                request = await call.read(context)
            call.require_read()
            answers = behaviour(request, context)
            async for answer in answers:
                yield answer
        except GeneratorExit:
            code = grpc.StatusCode.CANCELLED
            raise
        except BaseException as error:
            error = _as_told(call.method, error)
            code, call.fault = _code(context, error), fault_of(error)
            # gRPC keeps what is raised from here on, and with it what this frame holds.
            del request
            await _tell(call.method, context, error)
            raise
        finally:
            try:
                # Here and now rather than by the garbage collector, so that a client that left frees its work.
                if answers is not None:
                    await answers.aclose()
            finally:
                call.end(code)

    return serve


def _as_told(method: str, error: BaseException) -> BaseException:
    """What a call failed with; let out, a cancellation would end it as CANCELLED, which its client does not repeat."""
    if not isinstance(error, asyncio.CancelledError) or was_asked_to_end():
        return error
    log.error("%s waited for what was cancelled", method, exc_info=error)
    forget_frames(error)
    return Unavailable("the work was broken off", retry_after_s=1.0)


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
        forget_frames(error)
        error = Internal("internal error", metadata={"request_id": current_request_id.get()})
    else:
        forget_frames(error)
    await context.abort(
        code_of(error), brief(error.message), (*trailers(error), (REQUEST_ID_KEY, current_request_id.get()))
    )
