"""One worker as the scheduler sees it: its batches, its times, its restarts."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from sluiceway_runtime.pool.policy.items import Batch, Item
from sluiceway_runtime.pool.policy.limits import Timing
from sluiceway_runtime.pool.policy.statistics import WorkerState
from sluiceway_runtime.pool.policy.workers import Worker

Make = Callable[..., Item]


@pytest.fixture
def make_batch(make_item: Make) -> Callable[..., Batch]:
    ids = iter(range(1, 100))
    return lambda sent_s=0.0, *, probe=False: Batch(next(ids), 0, (make_item(),), probe, sent_s)


def test_as_many_batches_as_may_overlap_have_begun(make_batch: Callable[..., Batch]) -> None:
    worker = Worker(0, overlap=2)
    batches = [make_batch(at_s) for at_s in (1.0, 2.0, 3.0, 4.0)]
    for batch in batches:
        worker.take(batch)
    assert [batch.begun_s for batch in batches] == [1.0, 2.0, None, None]
    assert worker.take_off(batches[0].id, 5.0) is batches[0]
    assert [batch.begun_s for batch in batches] == [1.0, 2.0, 5.0, None]
    assert batches[0].took_s == 4.0
    assert worker.take_off(batches[1].id, 7.0) is batches[1]
    # It had the worker for itself only from the end of the one before it on.
    assert batches[1].took_s == 2.0
    assert list(worker.in_flight) == batches[2:]


def test_a_batch_that_was_not_begun_takes_no_time(make_batch: Callable[..., Batch]) -> None:
    worker = Worker(0)
    first, second = make_batch(1.0), make_batch(1.5)
    worker.take(first)
    worker.take(second)
    assert worker.take_off(second.id, 9.0) is second
    assert (second.took_s, worker.done_s, worker.idle_since_s) == (None, 0.0, 0.0)
    assert worker.take_off(first.id, 10.0) is first
    assert (first.took_s, worker.done_s, worker.idle_since_s) == (9.0, 10.0, 10.0)
    assert worker.take_off(first.id, 11.0) is None
    assert (worker.done_s, worker.idle_since_s) == (10.0, 10.0)


def test_it_is_busy_while_it_has_something_to_compute(make_batch: Callable[..., Batch]) -> None:
    worker = Worker(0)
    first, second, third = make_batch(1.0), make_batch(1.5), make_batch(10.0)
    assert worker.busy_until_s(1.0) == 0.0
    worker.take(first)
    worker.take(second)
    assert worker.busy_until_s(3.0) == 2.0
    worker.take_off(first.id, 4.0)
    assert (worker.busy_s, worker.busy_until_s(5.0)) == (3.0, 4.0)
    worker.take_off(second.id, 6.0)
    assert (worker.busy_s, worker.busy_until_s(9.0)) == (5.0, 5.0), "nothing is left to compute"
    worker.take(third)
    assert worker.busy_until_s(12.0) == 7.0
    assert worker.lose(13.0) == [third]
    assert (worker.busy_s, worker.busy_until_s(20.0)) == (8.0, 8.0)


def test_it_is_probing_while_the_first_that_it_holds_is_a_suspect(make_batch: Callable[..., Batch]) -> None:
    worker = Worker(0)
    assert worker.probing is False
    worker.take(make_batch())
    worker.take(make_batch(probe=True))
    assert worker.probing is False
    worker.in_flight.popleft()
    assert worker.probing is True


def test_work_is_counted_and_ends_a_row_of_failures() -> None:
    worker = Worker(0)
    worker.failures = 3
    worker.did(4)
    worker.did(5)
    assert (worker.batches, worker.items, worker.failures) == (2, 9, 0)


@pytest.mark.parametrize(("failures", "on_trial"), [(0, False), (1, False), (2, True), (3, True)])
def test_after_two_failures_in_a_row_it_is_on_trial(failures: int, on_trial: bool) -> None:
    worker = Worker(0)
    worker.failures = failures
    assert worker.on_trial is on_trial


def test_which_states_have_a_process_and_which_are_a_replacement_in_good_order() -> None:
    seen = {}
    for state in WorkerState:
        for failures in (0, 1):
            worker = Worker(0)
            worker.state, worker.failures = state, failures
            seen[state.value, failures] = (worker.alive, worker.being_recycled)
    assert seen == {
        ("starting", 0): (True, True),
        ("starting", 1): (True, False),
        ("ready", 0): (True, False),
        ("ready", 1): (True, False),
        ("retiring", 0): (True, True),
        ("retiring", 1): (True, True),
        ("stopping", 0): (True, True),
        ("stopping", 1): (True, True),
        ("killed", 0): (True, False),
        ("killed", 1): (True, False),
        ("backoff", 0): (False, True),
        ("backoff", 1): (False, False),
        ("stopped", 0): (False, False),
        ("stopped", 1): (False, False),
    }


def test_restarts_wait_twice_as_long_each_time_up_to_a_bound() -> None:
    worker, timing = Worker(0), Timing(restart_delay_s=1.0, restart_delay_max_s=5.0)
    worker.state = WorkerState.READY
    waits = []
    for _ in range(6):
        worker.schedule_restart(timing, 100.0)
        waits.append(worker.restart_at_s - 100.0)
    assert waits == [0.0, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert (worker.failures, worker.state) == (6, WorkerState.BACKOFF)
    worker.failures = 5000
    worker.schedule_restart(timing, 0.0)
    assert worker.restart_at_s == 5.0
    worker.failures = 31
    worker.schedule_restart(Timing(restart_delay_s=1.0, restart_delay_max_s=1e12), 0.0)
    assert worker.restart_at_s == 2.0**30
    worker.schedule_restart(Timing(restart_delay_s=1.0, restart_delay_max_s=1e12), 0.0)
    assert worker.restart_at_s == 2.0**30


def test_one_that_is_soon_too_large_again_is_recycled_less_often() -> None:
    worker, timing = Worker(0), Timing(recycle_delay_s=10.0, recycle_delay_max_s=50.0)
    assert worker.may_be_recycled(0.0)
    worker.recycle(timing, 100.0)
    assert worker.state is WorkerState.RETIRING
    assert (worker.recycled_s, worker.recycle_delay_s) == (100.0, 10.0)
    assert not worker.may_be_recycled(109.9)
    assert worker.may_be_recycled(110.0)
    delays = []
    now = 100.0
    for after_s in (39.9, 79.9, 159.9, 199.9, 200.0):
        now += after_s
        worker.recycle(timing, now)
        delays.append(worker.recycle_delay_s)
    # Soon is within four times the delay. Once it was long enough, it begins anew.
    assert delays == [20.0, 40.0, 50.0, 50.0, 10.0]
    now += 40.0
    worker.recycle(timing, now)
    assert worker.recycle_delay_s == 10.0


def test_when_it_needs_attention(make_batch: Callable[..., Batch]) -> None:
    worker = Worker(0)
    worker.since_s, worker.restart_at_s = 100.0, 7.0
    batch = make_batch(50.0)

    def wakeup_s(state: WorkerState) -> float:
        worker.state = state
        return worker.wakeup_s(batch_timeout_s=1.0, start_timeout_s=2.0, stop_grace_s=3.0)

    without = {state.value: wakeup_s(state) for state in WorkerState}
    worker.take(batch)
    holding = {state.value: wakeup_s(state) for state in WorkerState}
    assert without == {
        "starting": 102.0,
        "ready": math.inf,
        "retiring": math.inf,
        "stopping": 103.0,
        "killed": math.inf,
        "backoff": 7.0,
        "stopped": math.inf,
    }
    assert holding == without | {"ready": 51.0, "retiring": 51.0}
    batch.begun_s = None
    assert wakeup_s(WorkerState.READY) == math.inf
