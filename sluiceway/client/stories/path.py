"""The critical path of a source: what it waited for, from its acceptance to its last event. Pure.

It is walked backwards: from the last event to what ended just before it, from the beginning of that to what ended
before it, and so on. A call of a stage is opened: in its place stand the parts that the replica tells of, and the
transport, which is the duration that the caller measured less the one that the replica did. Time that no span covers is
reported as such.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sluiceway.client.stories.types import Call, Explanation, Span, SpanKind

__all__ = ["TRANSPORT", "UNACCOUNTED", "CriticalPath", "Segment", "critical_path"]

# Names of segments besides those of kinds of spans.
TRANSPORT = "transport"
UNACCOUNTED = "unaccounted"
COMPUTE = "compute"
BEHIND = "behind"
CARRY = "carry"
STAGE = "stage"
# Servers leave out spans that are shorter than half of this, so what ended so shortly before is what came before.
NEXT_MS = 0.1
# Of rounding.
NOTHING_MS = 1e-6


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a critical path.

    Attributes:
        what: a kind of span; or "compute", "behind" (others at the worker) and "carry" (between front and worker) of a
            batch; "transport", between two servers, where nobody can tell which way; "stage", in a stage that does not
            say more; "unaccounted".
        start_ms: since the acceptance. Within a call the transport is put in equal parts before and after what the
            replica tells, as nobody knows where it was.
        server: whose time it is; empty for transport.
        span: that it stands for, if it does for one.
    """

    what: str
    start_ms: float
    duration_ms: float
    server: str = ""
    step: str = ""
    address: str = ""
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """What a source waited for.

    Attributes:
        source: its id in the job.
        total_ms: from its acceptance to its last event.
        segments: in order, without gaps: their durations add up to the total.
    """

    source: str
    total_ms: float
    segments: tuple[Segment, ...]

    @property
    def unaccounted_ms(self) -> float:
        """Time that no server accounts for."""
        return sum(item.duration_ms for item in self.segments if item.what == UNACCOUNTED)

    @property
    def accounted(self) -> float:
        """The part of the time that is accounted for, 0 to 1."""
        return 1.0 if self.total_ms <= 0 else 1.0 - self.unaccounted_ms / self.total_ms

    def sums(self) -> list[tuple[str, str, str, float]]:
        """What took how long: (what, server, step, milliseconds), the longest first."""
        sums: dict[tuple[str, str, str], float] = defaultdict(float)
        for item in self.segments:
            sums[item.what, item.server, item.step] += item.duration_ms
        return sorted(((*key, took_ms) for key, took_ms in sums.items()), key=lambda entry: -entry[3])

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in the output of `sluiceway explain --json`."""
        return {
            "source": self.source,
            "total_ms": round(self.total_ms, 3),
            "unaccounted_ms": round(self.unaccounted_ms, 3),
            "segments": [
                {
                    "what": item.what,
                    "server": item.server,
                    "step": item.step,
                    "start_ms": round(item.start_ms, 3),
                    "duration_ms": round(item.duration_ms, 3),
                }
                for item in self.segments
            ],
        }


def critical_path(
    explanation: Explanation, job: Call, source: str | None = None, server: str = "orchestrator"
) -> CriticalPath:
    """The critical path of a source.

    Args:
        explanation: where the other sides of its calls are found.
        job: of the source.
        source: its id; None takes the one that ended last.
        server: that tells of the job.

    Raises:
        ValueError: the job has no such source.
    """
    own = [item for item in job.sources if source is None or item.source == source]
    if not own:
        raise ValueError(f"the job has no source {source!r}")
    last = max(own, key=lambda item: item.duration_ms)
    spans = [span for span in job.spans if span.source == last.source]
    told = [span for span in spans if span.kind is SpanKind.TELL]
    walked = _walk([span for span in spans if span.kind is not SpanKind.TELL], last.duration_ms)
    segments: list[Segment] = []
    for begun_ms, ended_ms, span in walked:
        if span is not None and span.kind is SpanKind.CALL:
            opened = _open(explanation, span, begun_ms, ended_ms)
        else:
            opened = [_segment(span, begun_ms, ended_ms, server)]
        segments += _without_tells(opened, told, begun_ms, ended_ms)
    return CriticalPath(last.source, last.duration_ms, tuple(segments))


def _walk(spans: Sequence[Span], end_ms: float) -> list[tuple[float, float, Span | None]]:
    """Spans that lead to an end, clipped so that each begins where the one before it ended; None for gaps."""
    path: list[tuple[float, float, Span | None]] = []
    left = sorted(spans, key=lambda span: span.start_ms)
    cursor_ms = end_ms
    while cursor_ms > NOTHING_MS:
        left = [span for span in left if span.start_ms < cursor_ms - NOTHING_MS]
        if not left:
            path.append((0.0, cursor_ms, None))
            break
        span = max(left, key=lambda item: _precedes(item, cursor_ms))
        ended_ms = min(span.end_ms, cursor_ms)
        if cursor_ms - ended_ms > NOTHING_MS:
            path.append((ended_ms, cursor_ms, None))
        begun_ms = max(0.0, span.start_ms)
        path.append((begun_ms, ended_ms, span))
        cursor_ms = begun_ms
    path.reverse()
    return path


def _precedes(span: Span, cursor_ms: float) -> tuple[bool, float, bool, float]:
    """How likely it is that what begins at a moment had waited for a span.

    What has ended just before, rather than what runs beside it. A span that lies in another is the one that says more.
    """
    just_before = cursor_ms - NEXT_MS <= span.end_ms <= cursor_ms + NOTHING_MS
    return just_before, min(span.end_ms, cursor_ms), span.end_ms <= cursor_ms + NOTHING_MS, span.start_ms


def _segment(span: Span | None, begun_ms: float, ended_ms: float, server: str) -> Segment:
    if span is None:
        return Segment(UNACCOUNTED, begun_ms, ended_ms - begun_ms, server)
    return Segment(span.kind.value, begun_ms, ended_ms - begun_ms, server, span.step, span.address, span)


def _open(explanation: Explanation, span: Span, begun_ms: float, ended_ms: float) -> list[Segment]:
    """What a call was spent on, as far as the replica says it."""
    took_ms = ended_ms - begun_ms
    other = explanation.called(span)
    whole = ended_ms >= span.end_ms - NOTHING_MS
    if other is not None and whole and other[1].duration_ms <= took_ms:
        return list(_with_transport(span, begun_ms, took_ms, list(_told_by(other[1])), other[1].duration_ms))
    if span.timings is not None and whole and 0 < span.timings.total_ms <= took_ms:
        return list(_with_transport(span, begun_ms, took_ms, list(_said(span)), span.timings.total_ms))
    return [_part(span, STAGE, begun_ms, took_ms)]


def _part(span: Span, what: str, start_ms: float, took_ms: float, inner: Span | None = None) -> Segment:
    server = "" if what == TRANSPORT else span.stage
    return Segment(what, start_ms, took_ms, server, span.step, span.address, inner or span)


def _with_transport(
    span: Span, begun_ms: float, took_ms: float, parts: Sequence[tuple[str, float, Span | None]], told_ms: float
) -> Iterator[Segment]:
    """Parts that a replica tells of, with the transport around them."""
    way_ms = (took_ms - told_ms) / 2
    at_ms = begun_ms
    for what, part_ms, inner in ((TRANSPORT, way_ms, None), *parts, (TRANSPORT, way_ms, None)):
        if part_ms > NOTHING_MS:
            yield _part(span, what, at_ms, part_ms, inner)
        at_ms += part_ms


def _told_by(call: Call) -> Iterator[tuple[str, float, Span | None]]:
    """The critical path of a call within a stage."""
    for begun_ms, ended_ms, inner in _walk(call.spans, call.duration_ms):
        took_ms = ended_ms - begun_ms
        if inner is None:
            yield UNACCOUNTED, took_ms, None
        elif inner.kind is SpanKind.BATCH and inner.batch is not None and took_ms >= inner.duration_ms - NOTHING_MS:
            behind_ms = min(inner.batch.behind_ms, took_ms)
            compute_ms = min(inner.batch.compute_ms, took_ms - behind_ms)
            yield BEHIND, behind_ms, inner
            yield COMPUTE, compute_ms, inner
            yield CARRY, took_ms - behind_ms - compute_ms, inner
        else:
            yield inner.kind.value, took_ms, inner


def _said(span: Span) -> Iterator[tuple[str, float, Span | None]]:
    """What a replica said of its time in its answer, where its story cannot be had."""
    assert span.timings is not None
    left_ms = span.timings.total_ms
    for what, said_ms in ((SpanKind.QUEUE.value, span.timings.queue_ms), (COMPUTE, span.timings.compute_ms)):
        part_ms = min(said_ms, left_ms)
        left_ms -= part_ms
        yield what, part_ms, None
    yield STAGE, left_ms, None


def _without_tells(segments: list[Segment], told: Sequence[Span], begun_ms: float, ended_ms: float) -> list[Segment]:
    """Take out of a part of the path what it waited for a client that reads slowly, where it has time for that."""
    waited_ms = sum(max(0.0, min(span.end_ms, ended_ms) - max(span.start_ms, begun_ms)) for span in told)
    if waited_ms <= NOTHING_MS:
        return segments
    # Of a call, what its replica did meanwhile is known and is not this.
    can_wait: Callable[[Segment], bool] = lambda item: item.what in (TRANSPORT, SpanKind.HANDLE.value)  # noqa: E731
    room_ms = sum(item.duration_ms for item in segments if can_wait(item))
    taken_ms = min(waited_ms, room_ms)
    if taken_ms <= NOTHING_MS:
        return segments
    kept: list[Segment] = []
    at_ms = begun_ms
    for item in segments:
        part_ms = item.duration_ms * (1 - taken_ms / room_ms) if can_wait(item) else item.duration_ms
        if part_ms > NOTHING_MS:
            kept.append(replace(item, start_ms=at_ms, duration_ms=part_ms))
        at_ms += part_ms
    return [*kept, Segment(SpanKind.TELL.value, at_ms, taken_ms, segments[0].server, segments[0].step)]
