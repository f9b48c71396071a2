"""Spans of a job that has ended, for a trace."""

from __future__ import annotations

from sluiceway_runtime.tracing import Link, TraceContext, Tracer
from sluiceway_runtime.tracing.tracer import Attribute

from sluiceway_orchestrator.story import AttemptRow, Fault, JobRow, SourceRow, TracedJob

__all__ = ["trace_job"]

# Spans of this server itself that are shorter say nothing to who looks at traces, and cost as much as others.
LEAST_S = 1e-3


def trace_job(tracer: Tracer, trace: TracedJob, job: JobRow) -> None:
    """Tell a tracer of a job: the job, its sources if it has several, their steps, and each call of a stage or API."""
    for source in job.sources:
        if len(job.sources) == 1:
            _trace_source(tracer, trace.at, job, source)
            continue
        at = trace.at.below()
        _trace_source(tracer, at, job, source)
        tracer.span(
            "source",
            at,
            trace.at.span_id,
            job.accepted_s,
            source.ended_s or job.ended_s,
            attributes={"sluiceway.source_id": source.source_id},
            error=_why(source.fault),
        )
    only = job.sources[0].fault if len(job.sources) == 1 else ()
    tracer.span(
        "job",
        trace.at,
        trace.parent_id,
        job.accepted_s,
        job.ended_s,
        attributes={
            "sluiceway.request_id": job.request_id,
            "sluiceway.job_id": job.job_id,
            "sluiceway.pipeline": job.pipeline,
            "sluiceway.sources": len(job.sources),
        },
        error=_why(only),
        links=[Link(trace.link)] if trace.link is not None else (),
    )


def _trace_source(tracer: Tracer, at: TraceContext, job: JobRow, source: SourceRow) -> None:
    for span in source.spans:
        if span.kind != "api" and span.ended_s - span.begun_s < LEAST_S:
            continue
        attributes: dict[str, Attribute] = {"sluiceway.step": span.step} if span.step else {}
        its = at._replace(span_id=span.span_id) if span.span_id else at.below()
        name, kind = (f"api {span.step}", "client") if span.kind == "api" else (span.kind, "internal")
        tracer.span(
            name,
            its,
            at.span_id,
            span.begun_s,
            span.ended_s,
            kind="client" if kind == "client" else "internal",
            attributes=attributes,
            error=_why(span.fault),
        )
    for attempt in source.attempts:
        _trace_attempt(tracer, at, attempt, source.ended_s or job.ended_s)


def _trace_attempt(tracer: Tracer, at: TraceContext, attempt: AttemptRow, last_s: float) -> None:
    ended_s = attempt.ended_s or last_s
    attributes: dict[str, Attribute] = {
        "sluiceway.step": attempt.step,
        "sluiceway.stage": attempt.stage,
        "sluiceway.items": attempt.items,
    }
    in_line_s = attempt.sent_s or ended_s
    if not attempt.sent_s or in_line_s - attempt.since_s >= LEAST_S:
        error = _why(attempt.fault) if not attempt.sent_s else ""
        name = f"line {attempt.stage}"
        tracer.span(name, at.below(), at.span_id, attempt.since_s, in_line_s, attributes=attributes, error=error)
    if attempt.sent_s:
        if attempt.failed:
            attributes["sluiceway.failed_items"] = attempt.failed
        attributes["server.address"] = attempt.address
        tracer.span(
            f"call {attempt.stage}",
            at._replace(span_id=attempt.span_id),
            at.span_id,
            attempt.sent_s,
            ended_s,
            kind="client",
            attributes=attributes,
            error=_why(attempt.fault),
        )


def _why(fault: Fault) -> str:
    return ": ".join(part for part in fault[:2] if part)
