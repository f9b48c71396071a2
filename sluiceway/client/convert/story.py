"""Stories of requests, as servers tell them."""

from __future__ import annotations

from sluiceway.client.convert.failure import from_error
from sluiceway.client.results import StageTimings
from sluiceway.client.stories.types import Batch, Call, ServerStory, SourceStory, Span, SpanKind
from sluiceway.recorder.v1 import recorder_pb2 as pb

__all__ = ["from_explain"]

_KINDS = {
    number: SpanKind(name.removeprefix("SPAN_KIND_").lower())
    for name, number in pb.SpanKind.items()
    if number != pb.SPAN_KIND_UNSPECIFIED
}


def from_explain(message: pb.ExplainResponse) -> tuple[ServerStory, ...]:
    """Read what a server and those that it asked remember of a request."""
    return tuple(
        ServerStory(
            server=server.server,
            instance=server.instance,
            address=server.address,
            calls=tuple(_call(call) for call in server.calls),
            error=from_error(server.error) if server.HasField("error") else None,
            remembers_ms=server.remembers_ms,
        )
        for server in message.servers
    )


def _call(message: pb.Call) -> Call:
    return Call(
        method=message.method,
        duration_ms=message.duration_ms,
        number=message.number,
        ago_ms=message.ago_ms,
        before_ms=message.before_ms,
        running=message.running,
        error=from_error(message.error) if message.HasField("error") else None,
        spans=tuple(sorted((_span(span) for span in message.spans), key=lambda span: span.start_ms)),
        sources=tuple(
            SourceStory(
                source.source_id, source.duration_ms, from_error(source.error) if source.HasField("error") else None
            )
            for source in message.sources
        ),
        pipeline=message.pipeline,
        job_id=message.job_id,
        spans_left_out=message.spans_left_out,
    )


def _span(message: pb.Span) -> Span:
    said = message.timings
    return Span(
        kind=_KINDS.get(message.kind, SpanKind.UNKNOWN),
        start_ms=message.start_ms,
        duration_ms=message.duration_ms,
        source=message.source_id,
        step=message.step,
        stage=message.stage,
        address=message.address,
        call=message.call,
        items=message.items,
        failed_items=message.failed_items,
        error=from_error(message.error) if message.HasField("error") else None,
        batch=_batch(message.batch) if message.HasField("batch") else None,
        timings=StageTimings(said.queue_ms, said.compute_ms, said.total_ms, said.decode_ms)
        if message.HasField("timings")
        else None,
    )


def _batch(message: pb.Batch) -> Batch:
    return Batch(
        id=message.id,
        worker=message.worker,
        items=message.items,
        behind_ms=message.behind_ms,
        compute_ms=message.compute_ms,
        other_requests=tuple(message.other_requests),
        other_request_count=message.other_request_count,
        fault=message.fault,
    )
