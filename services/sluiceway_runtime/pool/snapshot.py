"""A pool at one moment, put together of what its scheduler knows."""

from __future__ import annotations

from collections.abc import Mapping

from sluiceway_runtime.pool.policy.scheduler import Scheduler
from sluiceway_runtime.pool.policy.statistics import PoolLoad, PoolStatistics, WorkerStatistics

__all__ = ["snapshot"]


def snapshot(scheduler: Scheduler, load: PoolLoad, pids: Mapping[int, int | None], now_s: float) -> PoolStatistics:
    """Everything that there is to tell of a pool.

    Args:
        scheduler: of the pool.
        load: how busy it is.
        pids: of the workers that have had a process.
        now_s: on the scheduler's clock.
    """
    workers = tuple(
        WorkerStatistics(
            index=worker.index,
            pid=pids.get(worker.index),
            state=worker.state,
            batches=worker.batches,
            items=worker.items,
            restarts=max(worker.starts - 1, 0),
            busy_s=worker.busy_until_s(now_s),
            endings=dict(worker.endings),
        )
        for worker in scheduler.workers
    )
    return PoolStatistics(
        queued=load.queued,
        queued_bytes=scheduler.queued_bytes,
        running=load.running,
        capacity=load.capacity,
        queue_ms=load.queue_ms,
        workers=workers,
        counters=scheduler.counters,
        item_ms=scheduler.item_s * 1000,
        oldest_wait_s=scheduler.oldest_wait_s(now_s),
        able=scheduler.able,
    )
