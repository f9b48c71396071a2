"""Traces of whoever uses this library: where their program has OpenTelemetry, calls are spans of it, and servers go on.

Nothing of it is imported here: a program that uses it has done so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = ["Trace", "current_headers", "traced"]

_API = "opentelemetry.trace"
_SCOPE = "sluiceway"


@dataclass(frozen=True, slots=True)
class Trace:
    """What a call carries, so that what becomes of it is in the trace; nothing where there is none."""

    headers: tuple[tuple[str, str], ...] = ()


_NONE = Trace()


@contextmanager
def traced(name: str, request_id: str) -> Iterator[Trace]:
    """Make what happens in this block a span, below the one that is current. It does not become that itself.

    Generators leave this block by other contexts than they entered it, which a current span would not survive.
    """
    api = sys.modules.get(_API)
    if api is None:
        yield _NONE
        return
    attributes = {"sluiceway.request_id": request_id}
    span = api.get_tracer(_SCOPE).start_span(name, kind=api.SpanKind.CLIENT, attributes=attributes)
    try:
        yield Trace(_headers(span.get_span_context()))
    except BaseException as error:
        if not isinstance(error, GeneratorExit):
            span.set_status(api.Status(api.StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        span.end()


def current_headers() -> tuple[tuple[str, str], ...]:
    """What a call below the current span carries."""
    api = sys.modules.get(_API)
    return () if api is None else _headers(api.get_current_span().get_span_context())


def _headers(context: Any) -> tuple[tuple[str, str], ...]:
    if not context.is_valid:
        return ()
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    state = context.trace_state.to_header()
    return (("traceparent", parent), ("tracestate", state)) if state else (("traceparent", parent),)
