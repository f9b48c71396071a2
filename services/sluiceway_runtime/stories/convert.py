"""From rows of a recorder to the messages of `recorder.proto`."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from sluiceway.common.v1 import error_pb2
from sluiceway.recorder.v1 import recorder_pb2 as pb
from sluiceway_runtime.recorder import BatchRow, CallRow, Part, Recorder
from sluiceway_runtime.server.status import code_of_reason

__all__ = ["call_story", "error_of", "server_story", "span_of"]

# Of the other requests of a batch.
MOST_NAMES = 16


def server_story(recorder: Recorder, server: str, request_id: str, now_s: float) -> pb.ServerStory:
    """What a stage's server remembers of a request.

    Args:
        recorder: of the server.
        server: its name.
        request_id: of the request.
        now_s: on the server's clock.
    """
    story = pb.ServerStory(server=server, instance=recorder.instance)
    calls = recorder.calls.of(request_id)
    parts = [
        (batch, part)
        for batch in recorder.batches.of(request_id)
        for part in batch.parts
        if part.request_id == request_id
    ]
    known = {call.number for call in calls}
    for call in calls:
        story.calls.append(call_story(call, [item for item in parts if item[1].call == call.number], now_s))
    for number in dict.fromkeys(part.call for _, part in parts if part.call not in known):
        # It has not ended.
        its = [item for item in parts if item[1].call == number]
        begun_s = min(part.waiting_s for _, part in its)
        running = story.calls.add(running=True, ago_ms=_ms(now_s - begun_s), duration_ms=_ms(now_s - begun_s))
        _add_batches(running, its, begun_s)
    oldest_s = recorder.calls.oldest_s
    story.remembers_ms = _ms(now_s - oldest_s) if oldest_s is not None else 0.0
    return story


def call_story(call: CallRow, parts: Sequence[tuple[BatchRow, Part]], now_s: float) -> pb.Call:
    """What became of a call, whose items were in these batches."""
    message = pb.Call(
        method=call.method if " " in call.method else call.method.rpartition("/")[2],
        number=call.number,
        ago_ms=_ms(now_s - call.started_s),
        duration_ms=_ms(call.ended_s - call.started_s),
    )
    if call.code != grpc.StatusCode.OK.name:
        message.error.CopyFrom(error_of(call.reason, call.message, call.story, code=call.code))
    let_in_s = call.admitted_s or call.ended_s
    message.spans.append(span_of(pb.SPAN_KIND_DOOR, call.started_s, let_in_s, call.started_s))
    if parts:
        first_s = min(part.waiting_s for _, part in parts)
        last_s = max(batch.done_s for batch, _ in parts)
        message.spans.append(span_of(pb.SPAN_KIND_HANDLE, let_in_s, max(let_in_s, first_s), call.started_s))
        _add_batches(message, parts, call.started_s)
        message.spans.append(span_of(pb.SPAN_KIND_HANDLE, min(last_s, call.ended_s), call.ended_s, call.started_s))
    elif call.admitted_s:
        message.spans.append(span_of(pb.SPAN_KIND_HANDLE, let_in_s, call.ended_s, call.started_s))
    return message


def span_of(kind: pb.SpanKind.ValueType, begun_s: float, ended_s: float, origin_s: float) -> pb.Span:
    """A span between two moments of one clock."""
    return pb.Span(kind=kind, start_ms=_ms(begun_s - origin_s), duration_ms=_ms(ended_s - begun_s))


def error_of(reason: str, message: str, story: str = "", *, code: str = "") -> error_pb2.Error:
    """Why something failed."""
    status = grpc.StatusCode[code] if code else code_of_reason(reason)
    metadata = {"story": story} if story else {}
    return error_pb2.Error(code=status.value[0], reason=reason or status.name, message=message, metadata=metadata)


def _add_batches(message: pb.Call, parts: Sequence[tuple[BatchRow, Part]], origin_s: float) -> None:
    for batch, part in parts:
        company = _company(batch, part.request_id)
        for kind, begun_s, ended_s in (
            (pb.SPAN_KIND_QUEUE, part.waiting_s, batch.sent_s),
            (pb.SPAN_KIND_BATCH, batch.sent_s, batch.done_s),
        ):
            span = span_of(kind, begun_s, ended_s, origin_s)
            span.items = part.items
            span.batch.CopyFrom(company)
            message.spans.append(span)


def _company(batch: BatchRow, request_id: str) -> pb.Batch:
    others = dict.fromkeys(part.request_id for part in batch.parts if part.request_id not in (request_id, ""))
    behind_s = (batch.done_s if batch.begun_s is None else batch.begun_s) - batch.sent_s
    return pb.Batch(
        id=batch.id,
        worker=batch.worker,
        items=batch.items,
        behind_ms=_ms(behind_s),
        compute_ms=batch.compute_ms,
        other_requests=list(others)[:MOST_NAMES],
        other_request_count=len(others),
        fault=batch.fault,
    )


def _ms(seconds: float) -> float:
    return seconds * 1000
