"""A story as Chrome's trace events, which Perfetto and `chrome://tracing` open."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sluiceway.client.stories.timeline import Bar, lanes, timeline
from sluiceway.client.stories.types import Call, Explanation, ServerStory, Span, SpanKind
from sluiceway.client.stories.words import company, describe

__all__ = ["to_trace_events"]

# Of a job after the one before it, where a request has several: their clocks are not compared.
PAUSE_MS = 10.0


def to_trace_events(explanation: Explanation) -> str:
    """Write a story as JSON of trace events: a process for each server, and rows for what overlaps in it."""
    events: list[dict[str, Any]] = []
    processes: dict[str, int] = {}
    begun_ms = 0.0
    for server, job in explanation.jobs or _calls(explanation):
        events += _job(explanation, server, job, processes, begun_ms)
        begun_ms += job.duration_ms + PAUSE_MS
    facts = {"request_id": explanation.request_id}
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": facts}, ensure_ascii=False)


def _calls(explanation: Explanation) -> tuple[tuple[ServerStory, Call], ...]:
    return tuple((server, call) for server in explanation.servers for call in server.calls)


def _job(
    explanation: Explanation, server: ServerStory, job: Call, processes: dict[str, int], begun_ms: float
) -> Iterator[dict[str, Any]]:
    by_server: dict[str, list[Bar]] = {}
    for bar in timeline(explanation, server, job):
        name = f"{bar.server.server} {bar.server.address or bar.server.instance}".strip()
        by_server.setdefault(name, []).append(bar)
    for name, bars in by_server.items():
        known = name in processes
        process = processes.setdefault(name, len(processes) + 1)
        if not known:
            yield {"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": name}}
        for row, its in enumerate(lanes(bars), 1):
            for bar in its:
                yield _event(bar, process, row, begun_ms)
                yield from _arrow(explanation, bar, process, row, begun_ms)


def _event(bar: Bar, process: int, row: int, begun_ms: float) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": describe(bar.span),
        "cat": bar.span.kind.value,
        "ts": round((begun_ms + bar.start_ms) * 1000, 3),
        "dur": round(bar.duration_ms * 1000, 3),
        "pid": process,
        "tid": row,
        "args": _facts(bar.span),
    }


def _arrow(explanation: Explanation, bar: Bar, process: int, row: int, begun_ms: float) -> Iterator[dict[str, Any]]:
    """Where a call left its caller; Perfetto draws it to where the other side begins."""
    span = bar.span
    if span.kind is SpanKind.CALL and explanation.called(span) is not None:
        at = {"pid": process, "tid": row, "ts": round((begun_ms + bar.start_ms) * 1000, 3)}
        yield {"ph": "s", "name": "call", "cat": "call", "id": f"{span.address} {span.call}"} | at


def _facts(span: Span) -> dict[str, Any]:
    facts: dict[str, Any] = {"items": span.items} if span.items else {}
    named = (("source", span.source), ("step", span.step), ("address", span.address))
    facts |= {name: value for name, value in named if value}
    if span.batch is not None:
        facts["batch"] = company(span)
        facts["compute_ms"] = round(span.batch.compute_ms, 3)
        if span.batch.fault:
            facts["fault"] = span.batch.fault
    if span.error is not None:
        facts["error"] = f"{span.error.reason}: {span.error.message}"
    return facts
