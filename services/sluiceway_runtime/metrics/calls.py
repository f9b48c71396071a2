"""gRPC calls as they end."""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry

from sluiceway_runtime.metrics.instruments import Family, Histogram, Histograms

__all__ = ["CALLS", "CallMetrics"]

CALLS = Family(
    "rpc_server_call_duration_seconds",
    "histogram",
    "gRPC calls that ended and how long each took, those that were refused or brought no valid token among them; those "
    "of health and reflection are not. OpenTelemetry's `rpc.server.call.duration`. `rpc_method` is the full name; that "
    "of a call of no method of ours which was refused is `other`.",
    ("rpc_method", "rpc_response_status_code"),
)


class CallMetrics:
    """Counts and times gRPC calls."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Histograms(CALLS)
        registry.register(self._calls)
        # Methods and codes are few, and names have to be cut once.
        self._of = cache(self._find)

    def _find(self, method: str, code: str) -> Histogram:
        return self._calls.of(method.removeprefix("/"), code)

    def observe(self, method: str, code: str, seconds: float) -> None:
        """One call ended."""
        self._of(method, code).observe(seconds)
