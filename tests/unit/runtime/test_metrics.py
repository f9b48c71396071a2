"""Series that a scraper can follow."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from sluiceway_runtime.pool import Counters, PoolStatistics, WorkerState, WorkerStatistics
from sluiceway_runtime.server.metrics import PoolCollector


def test_the_counts_of_a_worker_go_on_in_one_series_when_it_is_replaced() -> None:
    """A series of its own for each process would begin at what others had computed, and rates would miss its start."""
    worker = WorkerStatistics(0, 100, WorkerState.READY, batches=2, items=9, restarts=0)
    registry = CollectorRegistry()
    registry.register(PoolCollector("detection", lambda: PoolStatistics(0, 0, 0, 1, 0.0, (worker,), Counters())))

    def series() -> set[tuple[str, ...]]:
        return {(sample.name, *sample.labels.items()) for family in registry.collect() for sample in family.samples}

    before = series()
    worker = WorkerStatistics(0, 200, WorkerState.READY, batches=3, items=12, restarts=1)
    assert series() == before
    assert registry.get_sample_value("sluiceway_worker_items_total", {"stage": "detection", "worker": "0"}) == 12
