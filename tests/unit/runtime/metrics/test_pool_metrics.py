"""What a pool shows, by the real pool whose workers are threads, and by numbers alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import DeadlineExceeded
from sluiceway_runtime.metrics.pool import PoolCollector, show_pool
from sluiceway_runtime.pool import (
    Counters,
    Payload,
    Placement,
    PoolLimits,
    PoolStatistics,
    WorkerSpec,
    WorkerState,
    WorkerStatistics,
)
from sluiceway_runtime.pool.policy import actions, events
from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.pool.policy.scheduler import Scheduler
from sluiceway_runtime.pool.policy.statistics import Ending
from sluiceway_runtime.pool.testing import InProcessPool
from sluiceway_runtime.priority import Priority


def statistics(worker: WorkerStatistics) -> PoolStatistics:
    return PoolStatistics(0, 0, 0, 1, 0.0, (worker,), Counters())


def test_the_counts_of_a_worker_go_on_in_one_series_when_it_is_replaced() -> None:
    """A series of its own for each process would begin at what others had computed, and rates would miss its start."""
    worker = WorkerStatistics(0, None, WorkerState.READY, batches=2, items=9, restarts=0)
    registry = CollectorRegistry()
    registry.register(PoolCollector("detection", lambda: statistics(worker)))

    def series() -> set[tuple[str, ...]]:
        return {(sample.name, *sample.labels.items()) for family in registry.collect() for sample in family.samples}

    before = series()
    worker = WorkerStatistics(0, None, WorkerState.STARTING, 3, 12, 1, 7.5, {Ending.HUNG: 1})
    assert series() == before
    labels = {"stage": "detection", "worker": "0"}
    assert registry.get_sample_value("sluiceway_worker_items_total", labels) == 12
    assert registry.get_sample_value("sluiceway_worker_busy_seconds_total", labels) == 7.5
    assert registry.get_sample_value("sluiceway_worker_restarts_total", labels | {"reason": "hung"}) == 1
    assert registry.get_sample_value("sluiceway_worker_restarts_total", labels | {"reason": "died"}) == 0
    assert registry.get_sample_value("sluiceway_worker_state", labels | {"state": "starting"}) == 1
    assert registry.get_sample_value("sluiceway_worker_state", labels | {"state": "ready"}) == 0


def test_the_memory_of_a_worker_is_read_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "77").mkdir()
    (tmp_path / "77" / "statm").write_text("500 300 100 1 0 1 0\n")
    registry = CollectorRegistry()
    worker = WorkerStatistics(0, 77, WorkerState.READY, 0, 0, 0)
    registry.register(PoolCollector("words", lambda: statistics(worker), proc=tmp_path))
    labels = {"stage": "words", "worker": "0"}
    shown = registry.get_sample_value("sluiceway_worker_memory_bytes", labels)
    assert shown
    assert shown % 300 == 0
    worker = WorkerStatistics(0, 78, WorkerState.BACKOFF, 0, 0, 1)
    assert registry.get_sample_value("sluiceway_worker_memory_bytes", labels) is None


def item(number: int, deadline_s: float = 1000.0) -> Item:
    return Item(number, "r", deadline_s, Priority.NORMAL, None, 1, 1, Payload(number))


def ready_scheduler(credits_each: int, batch_timeout_s: float = 60.0) -> Scheduler:
    scheduler = Scheduler(
        1, credits_each, PoolLimits(max_batch=1, batch_timeout_s=batch_timeout_s), overlap=credits_each
    )
    scheduler.on_event(events.StartRequested(), 0.0)
    scheduler.on_event(events.WorkerReady(0, 0), 0.0)
    return scheduler


def test_the_oldest_wait_counts_what_lies_at_a_worker_that_hangs() -> None:
    """Nothing is in the queue: each batch was handed out, and the first of them hangs."""
    scheduler = ready_scheduler(credits_each=2)
    scheduler.on_event(events.ItemsArrived([item(1)]), 1.0)
    scheduler.on_event(events.Tick(), 1.0)
    assert scheduler.oldest_wait_s(5.0) == 0, "it is computed"
    scheduler.on_event(events.ItemsArrived([item(2)]), 2.0)
    scheduler.on_event(events.Tick(), 2.0)
    assert scheduler.queued == 0
    assert scheduler.queue_age_s(9.0) == 0
    assert scheduler.oldest_wait_s(9.0) == 7.0


def test_busy_time_goes_on_while_a_worker_hangs_and_is_not_lost_with_it() -> None:
    scheduler = ready_scheduler(credits_each=1, batch_timeout_s=10)
    [worker] = scheduler.workers
    scheduler.on_event(events.ItemsArrived([item(1)]), 1.0)
    scheduler.on_event(events.Tick(), 1.0)
    scheduler.on_event(events.BatchDone(0, 1, [Payload(None)], 2.0, 0), 3.0)
    assert worker.busy_until_s(4.0) == 2.0
    scheduler.on_event(events.ItemsArrived([item(2)]), 5.0)
    scheduler.on_event(events.Tick(), 5.0)
    assert worker.busy_until_s(9.0) == 6.0
    told = scheduler.on_event(events.Tick(), 15.0)
    assert actions.KillWorker(0) in told
    scheduler.on_event(events.WorkerDied(0, "SIGKILL"), 16.0)
    assert worker.busy_until_s(16.0) == 13.0
    assert worker.busy_until_s(20.0) == 13.0
    assert dict(worker.endings) == {Ending.HUNG: 1}


class Doubler:
    """Waits until it may, then doubles."""

    def setup(self, placement: Placement) -> Mapping[str, Any]:
        del placement
        return {"graphs": {"compiled": 3, "plain": 1}}

    def run(self, batch: Any) -> list[Payload]:
        return [Payload(payload.meta * 2) for payload in batch]


def build(_config: Mapping[str, Any]) -> Doubler:
    return Doubler()


async def test_a_pool_shows_itself_from_before_its_start() -> None:
    spec = WorkerSpec(f"{__name__}:build", {}, (Placement(0, "cpu", None, 1),))
    pool = InProcessPool(spec, PoolLimits(max_batch=4), name="words")
    registry = CollectorRegistry()
    show_pool("words", pool, registry)
    generate_latest(registry)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"sluiceway_{name}", {"stage": "words", **labels})

    assert value("worker_state", worker="0", state="backoff") == 1
    assert value("pool_able") == 0
    await pool.start()
    try:
        assert value("pool_able") == 1
        assert value("worker_state", worker="0", state="ready") == 1
        deadline = Deadline.after(30)
        await asyncio.gather(*(pool.submit(Payload(n), request_id="r", deadline=deadline) for n in range(3)))
        assert value("pool_wait_seconds_count") == 3
        assert value("pool_batch_items_sum") == 3
        assert value("pool_compute_seconds_count") == value("worker_batches_total", worker="0")
        assert value("pool_events_total", event="succeeded") == 3
        assert value("gpu_graphs", worker="0", kind="compiled") == 3
    finally:
        await pool.close()


async def test_what_runs_out_of_time_in_the_queue_has_waited_too() -> None:
    """A histogram of those alone that came to a worker would look best while nothing does."""
    waited: list[float] = []
    scheduler = ready_scheduler(credits_each=1)
    scheduler.on_event(events.ItemsArrived([item(1)]), 1.0)
    scheduler.on_event(events.Tick(), 1.0)
    scheduler.on_event(events.ItemsArrived([item(2, deadline_s=4.0)]), 2.0)
    for action in scheduler.on_event(events.Tick(), 5.0):
        if isinstance(action, actions.Fail):
            assert isinstance(action.error, DeadlineExceeded)
            waited += [5.0 - it.accepted_s for it in action.items if it.batch is None and it.trail is None]
    assert waited == [3.0]


@pytest.mark.parametrize("ending", list(Ending))
def test_each_ending_has_its_series(ending: Ending) -> None:
    registry = CollectorRegistry()
    worker = WorkerStatistics(0, None, WorkerState.READY, 0, 0, 0, 0.0, {ending: 2})
    registry.register(PoolCollector("words", lambda: statistics(worker)))
    labels = {"stage": "words", "worker": "0", "reason": ending.value}
    assert registry.get_sample_value("sluiceway_worker_restarts_total", labels) == 2
