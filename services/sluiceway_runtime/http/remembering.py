"""What a server remembers of requests that came by HTTP: the same as of calls by gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.errors import SluicewayError
from sluiceway_runtime.recorder import Recorder, fault_of
from sluiceway_runtime.server.calls import current_request_id
from sluiceway_runtime.tracing import Tracer
from sluiceway_runtime.tracing.calls import begin_call, end_call

__all__ = ["remembered"]


@contextmanager
def remembered(request: web.Request, recorder: Recorder, tracer: Tracer | None = None) -> Iterator[None]:
    """Remember when a request came and ended, and why it failed; what is done in this block belongs to it.

    Args:
        request: that is answered.
        recorder: of the server.
        tracer: of its traces, if they are wanted.
    """
    number, started_s = recorder.calls.begin(), monotonic()
    method, trace = f"{request.method} {request.path}", None
    if tracer is not None:
        trace = begin_call(tracer, recorder.batches, number, method, request.headers)
    fault: tuple[str, ...] = ()
    code = "OK"
    try:
        yield
    except web.HTTPException as error:
        code, fault = "INVALID_ARGUMENT", ("", error.reason, "")
        raise
    except BaseException as error:
        fault = fault_of(error)
        code = error.code if isinstance(error, SluicewayError) else fault[0]
        raise
    finally:
        row = (number, method, current_request_id.get(), started_s, started_s, monotonic(), code, *fault)
        recorder.calls.ended(row)
        if trace is not None and tracer is not None:
            end_call(tracer, recorder.batches, trace, row)
