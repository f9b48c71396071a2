"""Prometheus metrics of a server: calls as they end, everything else read from the service when it is scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from sluiceway_runtime.pool import PoolStatistics

__all__ = ["CallMetrics", "OnceStarted", "PoolCollector"]

# From a cache hit to a long fetch: 1 ms to 60 s.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class CallMetrics:
    """Counts and times gRPC calls."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter("sluiceway_calls", "gRPC calls that ended.", ("method", "code"), registry=registry)
        self._seconds = Histogram(
            "sluiceway_call_seconds",
            "Time from the arrival of a call to its end.",
            ("method",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.ready = Gauge("sluiceway_ready", "1 while the server takes work.", registry=registry)
        # Methods and codes are few, and looking them up takes longer than counting.
        self._series = cache(self._series_of)

    def _series_of(self, method: str, code: str) -> tuple[Counter, Histogram]:
        name = method.rsplit("/", 1)[-1]
        return self._calls.labels(name, code), self._seconds.labels(name)

    def observe(self, method: str, code: str, seconds: float) -> None:
        """One call ended."""
        calls, times = self._series(method, code)
        calls.inc()
        times.observe(seconds)


class OnceStarted(Collector):
    """Shows nothing of a service before it has started, when there is not all of it yet.

    Attributes:
        registry: for the service's own collectors.
        started: whether they are asked.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.started = False

    def collect(self) -> Iterable[Metric]:
        """Ask the service's collectors, if it has started."""
        return self.registry.collect() if self.started else ()


class PoolCollector(Collector):
    """Shows a worker pool: how long work waits, how much of it, what became of it, and what each worker did."""

    def __init__(self, stage: str, statistics: Callable[[], PoolStatistics]) -> None:
        self._stage = stage
        self._statistics = statistics

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """Read the pool once and show it."""
        pool = self._statistics()
        stage = [self._stage]

        def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
            family = GaugeMetricFamily(f"sluiceway_pool_{name}", text, labels=("stage",))
            family.add_metric(stage, value)
            return family

        yield gauge("queued_items", "Items waiting for a worker.", pool.queued)
        yield gauge("running_items", "Items with a worker.", pool.running)
        yield gauge("capacity_items", "Items that the workers can hold at once.", pool.capacity)
        yield gauge("queued_bytes", "Payloads of the items that wait.", pool.queued_bytes)
        yield gauge("queue_seconds", "How long the item waits that waits the longest; 0 if none.", pool.queue_ms / 1000)
        yield gauge("item_seconds", "What one item takes one worker, its share of a batch.", pool.item_ms / 1000)
        events = CounterMetricFamily(
            "sluiceway_pool_events", "What became of items and workers.", labels=("stage", "event")
        )
        for event, total in pool.totals().items():
            events.add_metric([self._stage, event], total)
        yield events
        labels = ("stage", "worker")
        items = CounterMetricFamily("sluiceway_worker_items", "Items that a worker computed.", labels=labels)
        batches = CounterMetricFamily("sluiceway_worker_batches", "Batches that a worker computed.", labels=labels)
        restarts = CounterMetricFamily("sluiceway_worker_restarts", "Times that a worker was replaced.", labels=labels)
        for worker in pool.workers:
            values = [self._stage, str(worker.index)]
            items.add_metric(values, worker.items)
            batches.add_metric(values, worker.batches)
            restarts.add_metric(values, worker.restarts)
        yield from (items, batches, restarts)
