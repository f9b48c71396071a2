"""Requests of the public HTTP port."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from sluiceway_runtime.metrics.instruments import Family, Histograms

__all__ = ["REQUESTS", "HttpMetrics"]

REQUESTS = Family(
    "http_server_request_duration_seconds",
    "histogram",
    "Requests of the public HTTP port that ended, and how long each took until its answer was sent; refused ones are "
    "among them, and 499 is a client that went away. OpenTelemetry's `http.server.request.duration`. What is no route "
    "of ours is `other`.",
    ("http_request_method", "http_route", "http_response_status_code"),
)


class HttpMetrics:
    """Counts and times requests."""

    def __init__(self) -> None:
        self._requests = Histograms(REQUESTS)

    def register(self, registry: CollectorRegistry) -> None:
        """Have it shown."""
        registry.register(self._requests)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request ended."""
        self._requests.of(method, route, str(status)).observe(seconds)
