"""What a pool tells about itself."""

from __future__ import annotations

from sluiceway_runtime.pool.policy.statistics import Counters, PoolStatistics, WorkerState, WorkerStatistics


def test_workers_that_can_take_work_and_counters_by_name() -> None:
    workers = tuple(WorkerStatistics(index, None, state, 0, 0, 0) for index, state in enumerate(WorkerState))
    told = PoolStatistics(0, 0, 0, 0, 0.0, workers * 2, Counters(accepted=3, deaths=2))
    assert told.ready_workers == 2
    assert told.totals() == {
        "accepted": 3,
        "refused": 0,
        "succeeded": 0,
        "failed": 0,
        "expired": 0,
        "cancelled": 0,
        "quarantined": 0,
        "batches": 0,
        "deaths": 2,
        "recycled": 0,
    }
