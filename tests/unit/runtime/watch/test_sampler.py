"""What a server reads of itself, and how it travels."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from sluiceway_runtime.account import MemoryBudget, Phase
from sluiceway_runtime.pool import Counters, PoolStatistics, WorkerState, WorkerStatistics
from sluiceway_runtime.watch import Durations, GpuSample, Sampler
from sluiceway_runtime.watch.convert import sample_from_proto, sample_to_proto
from sluiceway_runtime.watch.sampler import throttled

POOL = PoolStatistics(
    4,
    0,
    2,
    8,
    12.5,
    (
        WorkerStatistics(0, 17, WorkerState.READY, 5, 9, 1, busy_s=3.5),
        WorkerStatistics(1, None, WorkerState.BACKOFF, 0, 0, 2, busy_s=0.0),
    ),
    Counters(accepted=30, refused=2, succeeded=20, failed=3, expired=1, cancelled=1, batches=6, deaths=2, recycled=1),
    oldest_wait_s=0.04,
)


def sampler(**facts: object) -> Sampler:
    return Sampler(state=lambda: "ready", budget=MemoryBudget(1000), **facts)  # type: ignore[arg-type]


def test_what_the_process_used_is_read() -> None:
    reads = sampler()
    before = reads.sample()
    end_s = time.thread_time() + 0.05
    while time.thread_time() < end_s:
        sum(range(1000))
    after = reads.sample()
    used_s = after.front.loop_cpu_s - before.front.loop_cpu_s
    assert 0.05 <= used_s <= after.front.process_cpu_s - before.front.process_cpu_s + 0.01
    assert after.at_s - before.at_s >= 0.05
    assert after.uptime_s > before.uptime_s
    assert after.front.memory_bytes > 2**20
    assert after.front.cpus > 0


def test_what_is_held_is_read() -> None:
    budget = MemoryBudget(1000)
    reads = Sampler(state=lambda: "draining", budget=budget)
    with budget.account() as account:
        account.add(300, Phase.WORK)
        sample = reads.sample()
    assert (sample.state, sample.front.held_bytes, sample.front.held_limit_bytes) == ("draining", 300, 1000)


def test_a_sample_travels_whole() -> None:
    durations = Durations()
    durations.observe(0.02)
    sample = sampler(
        pool=lambda: POOL,
        calls=durations,
        gpus=lambda: [GpuSample(0, "H200", 0.5, 1, 2), GpuSample(1, "?", None, 0, 0)],
    ).sample()
    message = sample_to_proto(sample)
    again = sample_from_proto(type(message).FromString(message.SerializeToString()))
    # One figure says how long the item has waited that waits the longest, wherever that is.
    assert again.pool == replace(POOL, queue_ms=40.0)
    assert (again.front, again.gpus, again.state) == (sample.front, sample.gpus, "ready")
    assert sum(again.calls) == 1
    # Zeros at the end do not travel.
    assert len(again.calls) < len(sample.calls)


def test_of_a_server_without_workers_there_is_no_pool() -> None:
    assert sample_from_proto(sample_to_proto(sampler().sample())).pool is None


def test_a_state_that_is_not_known_yet_is_that_of_a_worker_which_takes_no_work() -> None:
    message = sample_to_proto(sampler(pool=lambda: POOL).sample())
    message.pool.workers[0].state = "hibernating"
    found = sample_from_proto(message).pool
    assert found is not None
    assert found.ready_workers == 0


def test_of_several_control_groups_the_one_that_is_stopped_most_counts(tmp_path: Path) -> None:
    """Those around ours have quotas of their own; one without a quota counts no periods."""
    groups = []
    for name, text in (
        ("own", "usage_usec 5\nnr_periods 100\nnr_throttled 20\nthrottled_usec 9\n"),
        ("around", "nr_periods 400\nnr_throttled 30\n"),
        ("outside", "nr_periods 0\nnr_throttled 0\n"),
        ("nothing", ""),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cpu.stat").write_text(text)
        groups.append(tmp_path / name)
    assert throttled(groups) == (400, 30)
    assert throttled(groups[:1]) == (100, 20)
    assert throttled(groups[2:]) == (0, 0)
