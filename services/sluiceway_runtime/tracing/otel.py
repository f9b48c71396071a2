"""Traces by the SDK of OpenTelemetry. Imported only where its variables ask for traces.

Spans are handed over when they are over, with their times: no object of the SDK is made for a request that is not
sampled, and none while a request runs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link as OtelLink,
)
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from sluiceway.telemetry import make_exporter, make_resource
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.release import release
from sluiceway_runtime.tracing.context import TraceContext, new_span_id
from sluiceway_runtime.tracing.tracer import Attribute, Kind, Link

__all__ = ["OtelTracer"]

_KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSAMPLED = TraceFlags(TraceFlags.DEFAULT)
_SCOPE = InstrumentationScope("sluiceway", release())
_FINE = Status(StatusCode.UNSET)


class OtelTracer:
    """See `Tracer`. Sampler, resource, exporter and batches are as the standard variables say."""

    def __init__(self, environment: Mapping[str, str], server: str, instance: str) -> None:
        self._resource = make_resource(environment, f"sluiceway-{server}", instance)
        self._sampler = TracerProvider(resource=self._resource, shutdown_on_exit=False).sampler
        self._processor = BatchSpanProcessor(make_exporter(environment))

    def begin(self, parent: TraceContext | None, name: str) -> TraceContext:
        """See `Tracer`."""
        trace_id = parent.trace_id if parent is not None else random.getrandbits(128) or 1
        above = set_span_in_context(NonRecordingSpan(_context(parent, remote=True))) if parent is not None else None
        decision = self._sampler.should_sample(above, trace_id, name).decision
        state = parent.state if parent is not None else ""
        return TraceContext(trace_id, new_span_id(), decision is Decision.RECORD_AND_SAMPLE, state)

    def span(
        self,
        name: str,
        at: TraceContext,
        parent_id: int,
        begun_s: float,
        ended_s: float,
        *,
        kind: Kind = "internal",
        attributes: Mapping[str, Attribute] | None = None,
        error: str = "",
        links: Sequence[Link] = (),
    ) -> None:
        """See `Tracer`."""
        # The wall clock as it is now: a clock that is set meanwhile must not tear a trace apart.
        origin_ns = time.time_ns() - int(monotonic() * 1e9)
        parent = at._replace(span_id=parent_id) if parent_id else None
        self._processor.on_end(
            ReadableSpan(
                name,
                context=_context(at),
                parent=_context(parent, remote=kind == "server") if parent is not None else None,
                resource=self._resource,
                attributes=dict(attributes or {}),
                links=tuple(OtelLink(_context(link.to)) for link in links),
                kind=_KINDS[kind],
                instrumentation_scope=_SCOPE,
                status=Status(StatusCode.ERROR, error) if error else _FINE,
                start_time=origin_ns + int(begun_s * 1e9),
                end_time=origin_ns + int(max(begun_s, ended_s) * 1e9),
            )
        )

    def close(self) -> None:
        """See `Tracer`."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]  # the SDK leaves it without


def _context(at: TraceContext, *, remote: bool = False) -> SpanContext:
    flags = _SAMPLED if at.sampled else _UNSAMPLED
    state = TraceState.from_header([at.state]) if at.state else None
    return SpanContext(at.trace_id, at.span_id, remote, flags, state)
