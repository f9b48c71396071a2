"""What spans and segments are called where people read them."""

from __future__ import annotations

from sluiceway.client.stories.types import Span, SpanKind

__all__ = ["company", "describe", "describe_segment"]

_WORDS = {
    SpanKind.UNKNOWN: "something that this release has no word for",
    SpanKind.DOOR: "let in and read",
    SpanKind.TURN: "taken up",
    SpanKind.GATE: "turn among all sources",
    SpanKind.FETCH: "fetched",
    SpanKind.BIND: "version of each stage",
    SpanKind.ROOM: "memory",
    SpanKind.LINE: "line for a replica",
    SpanKind.CALL: "call",
    SpanKind.API: "API",
    SpanKind.HANDLE: "answer handled",
    SpanKind.TELL: "client that reads slowly",
    SpanKind.AGAIN: "begun anew",
    SpanKind.FINISH: "last event",
    SpanKind.QUEUE: "queue",
    SpanKind.BATCH: "worker",
}
_SEGMENTS = {
    "compute": "compute",
    "behind": "behind others at the worker",
    "carry": "between front and worker",
    "transport": "transport",
    "stage": "in the stage",
    "unaccounted": "not accounted for",
}


def describe(span: Span) -> str:
    """A span in a few words, without how long it took."""
    words = _WORDS[span.kind]
    match span.kind:
        case SpanKind.CALL:
            return f"{span.stage} at {span.address}"
        case SpanKind.LINE:
            return f"line for {span.stage}"
        case SpanKind.API:
            return f"API {span.step}"
        case SpanKind.BATCH if span.batch is not None:
            return f"worker {span.batch.worker}"
    return f"{words} ({span.step})" if span.step and span.kind is not SpanKind.TURN else words


def describe_segment(what: str) -> str:
    """What a segment of a critical path was spent on."""
    return _SEGMENTS.get(what) or _WORDS[SpanKind(what)]


def company(span: Span) -> str:
    """With whom items were computed."""
    batch = span.batch
    if batch is None:
        return ""
    others = batch.other_request_count
    if not others:
        with_whom = "" if batch.items == span.items else " with others of this request"
    else:
        names = ", ".join(batch.other_requests[:3])
        more = f" and {others - 3} more" if others > 3 else ""
        with_whom = f" with {others} other request{'s' if others > 1 else ''} ({names}{more})"
    return f"batch {batch.id}: {span.items} of {batch.items}{with_whom}"
