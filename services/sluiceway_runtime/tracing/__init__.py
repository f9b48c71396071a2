"""Traces of requests (OpenTelemetry), made of what the flight recorder noted, once a call or job has ended.

Nothing is measured for traces alone, and nothing of OpenTelemetry is imported unless its variables ask for it.
"""

from sluiceway_runtime.tracing.context import TraceContext, current_trace
from sluiceway_runtime.tracing.opening import open_tracer
from sluiceway_runtime.tracing.tracer import Link, Tracer

__all__ = ["Link", "TraceContext", "Tracer", "current_trace", "open_tracer"]
