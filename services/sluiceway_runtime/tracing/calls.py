"""The span of a call that came in, and below it those of the batches that its items were in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import grpc

from sluiceway_runtime.recorder import BatchLog, BatchRow, CallRow, Watched
from sluiceway_runtime.tracing.context import TRACEPARENT_KEY, TRACESTATE_KEY, TraceContext, current_trace, parsed
from sluiceway_runtime.tracing.tracer import Attribute, Link, Tracer

__all__ = ["TracedCall", "begin_call", "end_call"]


class TracedCall(NamedTuple):
    """A call that runs.

    Attributes:
        at: its span.
        parent_id: the span of its caller; 0 if that named none.
    """

    at: TraceContext
    parent_id: int


def begin_call(
    tracer: Tracer, batches: BatchLog, number: int, method: str, headers: Mapping[str, Any], *, begins: bool = True
) -> TracedCall | None:
    """A call comes in; what it brings about in its task is below its span.

    Args:
        tracer: decides whether it is recorded.
        batches: of this server, watched for those of the call.
        number: of the call.
        method: its full name, or method and path of HTTP.
        headers: that it came with.
        begins: whether a trace begins here where the call belongs to none. If not, there is None.
    """
    parent = parsed(headers.get(TRACEPARENT_KEY), headers.get(TRACESTATE_KEY))
    if parent is None and not begins:
        return None
    at = tracer.begin(parent, method.lstrip("/"))
    current_trace.set(at)
    if at.sampled:
        batches.watch(number, at)
    return TracedCall(at, parent.span_id if parent is not None else 0)


def end_call(tracer: Tracer, batches: BatchLog, traced: TracedCall, row: tuple[Any, ...]) -> None:
    """A call has ended; the row is what the recorder has of it."""
    at = traced.at
    if not at.sampled:
        return
    call = CallRow(*row)
    for watched in batches.unwatch(call.number):
        _tell_batch(tracer, at, watched)
    tracer.span(
        call.method.lstrip("/"),
        at,
        traced.parent_id,
        call.started_s,
        call.ended_s,
        kind="server",
        attributes=_attributes(call),
        error=call.message or call.reason if call.code != grpc.StatusCode.OK.name else "",
    )


def _tell_batch(tracer: Tracer, at: TraceContext, watched: Watched) -> None:
    row, items, waiting_s, others = watched
    batch = BatchRow._make((*row[:8], ()))
    attributes: dict[str, Attribute] = {"sluiceway.batch.id": batch.id, "sluiceway.items": items}
    tracer.span("queue", at.below(), at.span_id, waiting_s, batch.sent_s, attributes=attributes)
    attributes = {
        **attributes,
        "sluiceway.worker": batch.worker,
        "sluiceway.batch.items": batch.items,
        "sluiceway.batch.compute_ms": batch.compute_ms,
    }
    tracer.span(
        "batch",
        at.below(),
        at.span_id,
        batch.sent_s,
        batch.done_s,
        attributes=attributes,
        error=batch.fault,
        links=[Link(other) for other in others],
    )


def _attributes(call: CallRow) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {"sluiceway.request_id": call.request_id}
    if " " in call.method:
        method, _, path = call.method.partition(" ")
        return attributes | {"http.request.method": method, "url.path": path}
    service, _, method = call.method.lstrip("/").rpartition("/")
    attributes |= {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    attributes["rpc.grpc.status_code"] = int(grpc.StatusCode[call.code].value[0])
    if call.reason:
        attributes["error.type"] = call.reason
    return attributes
