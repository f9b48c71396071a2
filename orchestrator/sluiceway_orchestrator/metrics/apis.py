"""Calls of APIs, and images that are fetched from URLs."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import TypeVar

from prometheus_client import CollectorRegistry
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.errors import (
    DeadlineExceeded,
    SluicewayError,
    UpstreamFailed,
    UpstreamRefused,
    UrlNotAllowed,
)
from sluiceway_runtime.metrics.instruments import Cell, Counters, Family, Histogram, Histograms

__all__ = ["CALLS", "DURATION", "URLS", "ApiMetrics"]

CALLS = Family(
    "sluiceway_api_calls",
    "counter",
    "Calls of APIs by name, and images fetched from URLs (`api` is `(url)`), as they ended: `ok`, `failed` (not "
    "answered as it should, or left alone as it failed too often), `refused` by the other side, `not_allowed` by the "
    "configuration, `expired`, `cancelled`, or `invalid` (what was asked for, or what came).",
    ("api", "outcome"),
)
DURATION = Family(
    "sluiceway_api_call_duration_seconds",
    "histogram",
    "How long each took, with waiting for a place, retries, and redirects.",
    ("api",),
)
# No API can be called so.
URLS = "(url)"
_OUTCOMES: dict[type[SluicewayError], str] = {
    UpstreamFailed: "failed",
    UpstreamRefused: "refused",
    UrlNotAllowed: "not_allowed",
    DeadlineExceeded: "expired",
}
_ALL = ("ok", *_OUTCOMES.values(), "cancelled", "invalid")

Answer = TypeVar("Answer")


class ApiMetrics:
    """Counts and times calls."""

    def __init__(self, apis: Iterable[str]) -> None:
        self._calls = Counters(CALLS)
        self._durations = Histograms(DURATION)
        self._own: dict[str, tuple[Histogram, dict[str, Cell]]] = {
            name: (self._durations.of(name), {outcome: self._calls.of(name, outcome) for outcome in _ALL})
            for name in (*apis, URLS)
        }

    def register(self, registry: CollectorRegistry) -> None:
        """Have it shown."""
        registry.register(self._calls)
        registry.register(self._durations)

    async def watched(self, api: str, call: Awaitable[Answer]) -> Answer:
        """Await a call, and take note of its end."""
        begun_s = monotonic()
        outcome = "cancelled"
        try:
            answer = await call
            outcome = "ok"
        except SluicewayError as error:
            outcome = _OUTCOMES.get(type(error), "invalid")
            raise
        else:
            return answer
        finally:
            duration, outcomes = self._own[api]
            duration.observe(monotonic() - begun_s)
            outcomes[outcome].value += 1
