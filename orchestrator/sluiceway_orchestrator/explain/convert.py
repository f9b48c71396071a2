"""From what is remembered of jobs to the messages of `recorder.proto`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sluiceway_runtime.recorder import CallRow
from sluiceway_runtime.stories import error_of, span_of

from sluiceway.common.v1 import error_pb2, model_pb2
from sluiceway.recorder.v1 import recorder_pb2 as pb
from sluiceway_orchestrator.story import SHORT_S, AttemptRow, Fault, JobRow, SourceRow, SpanRow

__all__ = ["job_story"]

_KINDS = {
    "turn": pb.SPAN_KIND_TURN,
    "gate": pb.SPAN_KIND_GATE,
    "fetch": pb.SPAN_KIND_FETCH,
    "bind": pb.SPAN_KIND_BIND,
    "room": pb.SPAN_KIND_ROOM,
    "api": pb.SPAN_KIND_API,
    "handle": pb.SPAN_KIND_HANDLE,
    "tell": pb.SPAN_KIND_TELL,
    "again": pb.SPAN_KIND_AGAIN,
    "finish": pb.SPAN_KIND_FINISH,
}


def job_story(job: JobRow, calls: Mapping[int, CallRow], now_s: float) -> pb.Call:
    """What became of a job.

    Args:
        job: what is remembered of it.
        calls: of its request, by their numbers. Of a job of a stream there is none.
        now_s: on this process's clock.
    """
    call = calls.get(job.call)
    message = pb.Call(
        method=method_of(call) if call is not None else "job",
        number=job.call,
        ago_ms=(now_s - job.accepted_s) * 1000,
        duration_ms=((job.ended_s or now_s) - job.accepted_s) * 1000,
        before_ms=max(0.0, job.accepted_s - call.started_s) * 1000 if call is not None else 0.0,
        running=not job.ended_s,
        pipeline=job.pipeline,
        job_id=job.job_id,
        spans_left_out=sum(source.left_out for source in job.sources),
    )
    if call is not None and call.code != "OK":
        message.error.CopyFrom(error_of(call.reason, call.message, call.story, code=call.code))
    for source in job.sources:
        # One that has no end, in a job that has, was cancelled with it.
        ended_s = source.ended_s or job.ended_s or now_s
        told = message.sources.add(source_id=source.source_id, duration_ms=(ended_s - job.accepted_s) * 1000)
        fault = source.fault or (("CANCELLED", "the job was cancelled") if job.ended_s and not source.ended_s else ())
        if fault:
            told.error.CopyFrom(_error(fault))
        message.spans.extend(_spans(job, source, now_s))
    return message


def method_of(call: CallRow) -> str:
    """Name of the method that was called."""
    return call.method if " " in call.method else call.method.rpartition("/")[2]


def _spans(job: JobRow, source: SourceRow, now_s: float) -> Iterator[pb.Span]:
    found = [_span(job, source, span) for span in source.spans]
    for attempt in source.attempts:
        found += _attempt(job, source, attempt, now_s)
    found.sort(key=lambda span: span.start_ms)
    yield from found


def _span(job: JobRow, source: SourceRow, span: SpanRow) -> pb.Span:
    message = span_of(_KINDS[span.kind], span.begun_s, span.ended_s, job.accepted_s)
    message.source_id, message.step = source.source_id, span.step
    if span.fault:
        message.error.CopyFrom(_error(span.fault))
    return message


def _attempt(job: JobRow, source: SourceRow, attempt: AttemptRow, now_s: float) -> Iterator[pb.Span]:
    ended_s = attempt.ended_s or now_s
    parts = [(pb.SPAN_KIND_LINE, attempt.asked_s, attempt.sent_s or ended_s)]
    if attempt.asked_s - attempt.since_s >= SHORT_S:
        parts.insert(0, (pb.SPAN_KIND_TURN, attempt.since_s, attempt.asked_s))
    if attempt.sent_s:
        parts.append((pb.SPAN_KIND_CALL, attempt.sent_s, ended_s))
    for kind, begun_s, until_s in parts:
        message = span_of(kind, begun_s, until_s, job.accepted_s)
        message.source_id, message.step, message.stage = source.source_id, attempt.step, attempt.stage
        message.items = attempt.items
        if kind == parts[-1][0]:
            if attempt.fault:
                message.error.CopyFrom(_error(attempt.fault))
            if attempt.sent_s:
                message.address, message.call = attempt.address, attempt.call
                message.failed_items = attempt.failed
                if attempt.timings:
                    message.timings.CopyFrom(_timings(attempt.timings))
        yield message


def _timings(timings: tuple[float, ...]) -> model_pb2.StageTimings:
    queue_ms, compute_ms, total_ms, decode_ms = timings[:4]
    return model_pb2.StageTimings(queue_ms=queue_ms, compute_ms=compute_ms, total_ms=total_ms, decode_ms=decode_ms)


def _error(fault: Fault) -> error_pb2.Error:
    return error_of(*fault)
