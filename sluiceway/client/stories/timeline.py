"""All that is told of a job on one line of time: what replicas tell lies within the calls that they answered. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sluiceway.client.stories.types import Call, Explanation, ServerStory, Span, SpanKind

__all__ = ["Bar", "lanes", "timeline"]


@dataclass(frozen=True, slots=True)
class Bar:
    """A span at its place.

    Attributes:
        server: whose span it is.
        start_ms: since the job was accepted. Within a replica it is an estimate: what the caller measured beyond what
            the replica tells is put in equal parts before and after, as nobody knows where it was.
        depth: 0 of the orchestrator's own, 1 of a replica's.
    """

    server: ServerStory
    span: Span
    start_ms: float
    depth: int = 0

    @property
    def duration_ms(self) -> float:
        """How long it took."""
        return self.span.duration_ms

    @property
    def end_ms(self) -> float:
        """Where it ended."""
        return self.start_ms + self.span.duration_ms


def timeline(explanation: Explanation, server: ServerStory, call: Call) -> Iterator[Bar]:
    """The spans of a call in the order of their starts, each call of a replica followed by what that tells of it."""
    for span in call.spans:
        yield Bar(server, span, span.start_ms)
        if span.kind is not SpanKind.CALL:
            continue
        other = explanation.called(span)
        if other is None:
            continue
        replica, told = other
        begun_ms = span.start_ms + max(0.0, span.duration_ms - told.duration_ms) / 2
        for inner in told.spans:
            yield Bar(replica, inner, begun_ms + inner.start_ms, depth=1)


def lanes(bars: Sequence[Bar]) -> list[list[Bar]]:
    """Bars of one server in as few rows as have none that overlap."""
    rows: list[list[Bar]] = []
    for bar in sorted(bars, key=lambda item: (item.start_ms, -item.duration_ms)):
        row = next((row for row in rows if row[-1].end_ms <= bar.start_ms + 1e-6), None)
        if row is None:
            rows.append([bar])
        else:
            row.append(bar)
    return rows
