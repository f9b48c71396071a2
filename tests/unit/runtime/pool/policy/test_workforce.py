"""The lives of the workers, and what is told of them, word by word."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from sluiceway_runtime.pool.policy.actions import GiveUp, KillWorker, Note, StartWorker, StopWorker
from sluiceway_runtime.pool.policy.items import Batch, Item
from sluiceway_runtime.pool.policy.limits import PoolLimits, Timing
from sluiceway_runtime.pool.policy.statistics import Ending, WorkerState
from sluiceway_runtime.pool.policy.workforce import Workforce

Make = Callable[..., Item]
MIB = 2**20
TIMING = Timing(restart_delay_s=1.0, restart_delay_max_s=8.0, start_attempts=3, stop_grace_s=4.0)


def started(count: int = 1, *, ready: bool = True, overlap: int = 1, **limits: object) -> Workforce:
    bounds = {"batch_timeout_s": 10.0, "start_timeout_s": 20.0} | limits
    workforce = Workforce(count, PoolLimits(**bounds), TIMING, overlap)  # type: ignore[arg-type]
    workforce.start(0.0)
    workforce.watch(0.0)
    for worker in workforce.workers if ready else ():
        assert workforce.worker_ready(worker, 0, 1.0) == []
    return workforce


def batch_of(item: Item, number: int = 1, sent_s: float = 2.0) -> Batch:
    return Batch(number, 0, (item,), False, sent_s)


def test_nothing_happens_before_the_start() -> None:
    workforce = Workforce(2, PoolLimits(), TIMING)
    assert (workforce.watch(0.0), workforce.wakeup_s()) == ([], math.inf)
    assert [worker.index for worker in workforce.workers] == [0, 1]
    workforce.start(5.0)
    assert workforce.wakeup_s() == 5.0
    assert workforce.watch(4.9) == []
    assert workforce.watch(5.0) == [StartWorker(0), StartWorker(1)]
    assert [(worker.state, worker.since_s, worker.starts) for worker in workforce.workers] == [
        (WorkerState.STARTING, 5.0, 1)
    ] * 2
    assert workforce.watch(5.0) == []
    assert workforce.wakeup_s() == 125.0


def test_it_is_complete_when_all_have_been_ready() -> None:
    workforce = started(2, ready=False)
    first, second = workforce.workers
    assert workforce.worker_ready(first, 0, 3.0) == []
    assert (first.state, first.idle_since_s, workforce.complete) == (WorkerState.READY, 3.0, False)
    assert workforce.ready == [first]
    assert workforce.worker_ready(second, 0, 4.0) == []
    assert (workforce.complete, workforce.ready) == (True, [first, second])
    workforce.died(first, "gone", 5.0)
    assert workforce.complete, "for good"


def test_the_overlap_is_that_of_every_worker(make_item: Make) -> None:
    (worker,) = started(overlap=2).workers
    batches = [batch_of(make_item(), number) for number in (1, 2)]
    for batch in batches:
        worker.take(batch)
    assert [batch.begun_s for batch in batches] == [2.0, 2.0]
    assert Workforce(1, PoolLimits(), TIMING).workers[0].overlap == 1


def test_a_fresh_worker_above_its_limit_gives_up_the_start_and_no_later_one() -> None:
    workforce = started(ready=False, worker_memory_mb=100)
    (worker,) = workforce.workers
    assert workforce.worker_ready(worker, 150 * MIB + 1, 1.0) == [
        GiveUp("worker_memory_mb is 100, but a worker needs 150 MB when it has just been warmed up")
    ]
    assert not workforce.complete
    worker.state = WorkerState.STARTING
    assert workforce.worker_ready(worker, 100 * MIB, 2.0) == [], "just as much as it may have"
    worker.state = WorkerState.STARTING
    assert workforce.worker_ready(worker, 150 * MIB, 3.0) == []


def test_one_that_was_told_to_go_meanwhile_is_not_ready() -> None:
    workforce = started(ready=False)
    (worker,) = workforce.workers
    worker.state = WorkerState.KILLED
    assert workforce.worker_ready(worker, 0, 1.0) == []
    assert (worker.state, workforce.complete) == (WorkerState.KILLED, False)


def test_a_setup_that_fails_gives_up_until_all_were_ready_once() -> None:
    workforce = started(ready=False)
    (worker,) = workforce.workers
    assert workforce.setup_failed(worker, "no weights") == [GiveUp("no weights")]
    assert workforce.died(worker, "exit code 1", 1.0)[1] == [Note("worker 0 ended: no weights")]
    workforce.watch(1.0)
    workforce.worker_ready(worker, 0, 2.0)
    assert workforce.setup_failed(worker, "no memory") == []
    assert workforce.died(worker, "exit code 1", 3.0)[1] == [Note("worker 0 ended: no memory")]
    # The reason is that of one end.
    assert workforce.died(worker, "exit code 2", 4.0)[1] == [Note("worker 0 ended: exit code 2")]
    closing = started(ready=False)
    closing.close(1.0)
    assert closing.setup_failed(closing.workers[0], "interrupted") == []


def test_a_start_is_given_up_after_some_attempts() -> None:
    workforce = started(ready=False)
    (worker,) = workforce.workers
    told = []
    for _ in range(4):
        told.append(workforce.died(worker, "SIGSEGV", 1.0)[1])
        worker.state = WorkerState.STARTING
    note = Note("worker 0 ended: SIGSEGV")
    assert told[:3] == [
        [note],
        [note],
        [note, GiveUp("worker 0 did not start in 3 attempts: SIGSEGV")],
    ]
    assert workforce.deaths == 4


def test_a_worker_that_ends_leaves_what_it_held(make_item: Make) -> None:
    workforce = started()
    (worker,) = workforce.workers
    batches = [batch_of(make_item(), number) for number in (1, 2)]
    for batch in batches:
        worker.take(batch)
    worker.witness = True
    assert workforce.witnesses == [worker]
    lost, told = workforce.died(worker, "SIGKILL", 5.0)
    held = Note("it was with worker 0 when that ended", "r")
    assert (lost, told) == (batches, [Note("worker 0 ended: SIGKILL"), held])
    assert (list(worker.in_flight), worker.witness, worker.state) == ([], False, WorkerState.BACKOFF)
    assert (workforce.deaths, workforce.recycled, worker.failures, worker.restart_at_s) == (1, 0, 1, 5.0)
    assert workforce.witnesses == []


def test_a_worker_that_was_told_to_stop_has_not_failed(make_item: Make) -> None:
    workforce = started()
    (worker,) = workforce.workers
    batch = batch_of(make_item())
    worker.take(batch)
    assert workforce.leaving(worker, 3.0) == [batch]
    assert (worker.state, worker.since_s, list(worker.in_flight)) == (WorkerState.STOPPING, 3.0, [])
    assert workforce.died(worker, "exit code 0", 4.0) == ([], [])
    assert (worker.state, worker.restart_at_s, worker.failures) == (WorkerState.BACKOFF, 4.0, 0)
    assert (workforce.deaths, workforce.recycled) == (0, 1)
    assert workforce.watch(4.0) == [StartWorker(0)]
    assert worker.starts == 2


@pytest.mark.parametrize(
    ("state", "after"),
    [
        (WorkerState.READY, WorkerState.STOPPING),
        (WorkerState.RETIRING, WorkerState.STOPPING),
        (WorkerState.STARTING, WorkerState.STARTING),
        (WorkerState.KILLED, WorkerState.KILLED),
    ],
)
def test_who_says_that_it_leaves(state: WorkerState, after: WorkerState) -> None:
    workforce = started()
    (worker,) = workforce.workers
    worker.state = state
    assert workforce.leaving(worker, 9.0) == []
    assert worker.state is after
    assert worker.since_s == (9.0 if after is WorkerState.STOPPING else 0.0)


def test_one_worker_at_a_time_is_recycled() -> None:
    workforce = started(2, worker_memory_mb=100)
    first, second = workforce.workers
    assert workforce.batch_over(first, 100 * MIB, 2.0) == []
    assert workforce.batch_over(first, 100 * MIB + 1, 2.0) == [Note("worker 0 is replaced: it has 100 MB of memory")]
    assert first.state is WorkerState.RETIRING
    assert workforce.batch_over(first, 200 * MIB, 2.0) == [], "it is on its way"
    assert workforce.batch_over(second, 200 * MIB, 2.0) == []
    assert second.state is WorkerState.READY
    first.state = WorkerState.READY
    assert workforce.batch_over(first, 200 * MIB, 3.0) == [], "it was recycled a moment ago"
    assert workforce.batch_over(second, 205 * MIB, 3.0) == [Note("worker 1 is replaced: it has 205 MB of memory")]
    assert started().batch_over(started().workers[0], 2**40, 2.0) == [], "without a limit"


def test_one_that_retires_is_stopped_once_it_holds_nothing(make_item: Make) -> None:
    workforce = started(worker_memory_mb=100)
    (worker,) = workforce.workers
    batch = batch_of(make_item())
    worker.take(batch)
    workforce.batch_over(worker, 200 * MIB, 2.0)
    assert workforce.watch(3.0) == []
    worker.take_off(batch.id, 4.0)
    assert workforce.watch(5.0) == [StopWorker(0)]
    assert (worker.state, worker.since_s) == (WorkerState.STOPPING, 5.0)
    assert workforce.wakeup_s() == 9.0
    assert workforce.watch(8.9) == []
    assert workforce.watch(9.0) == [KillWorker(0)]
    assert (worker.state, worker.kill_reason) == (WorkerState.KILLED, "")
    assert workforce.watch(99.0) == []


def test_what_hangs_is_killed_and_the_reason_is_told(make_item: Make) -> None:
    workforce = started(2, ready=False)
    starting, hanging = workforce.workers
    workforce.worker_ready(hanging, 0, 1.0)
    hanging.take(batch_of(make_item()))
    assert workforce.wakeup_s() == 12.0
    assert workforce.watch(11.9) == []
    assert workforce.watch(12.0) == [KillWorker(1)]
    assert workforce.wakeup_s() == 20.0
    assert workforce.watch(20.0) == [KillWorker(0)]
    told = [workforce.died(worker, "SIGKILL", 21.0)[1] for worker in (starting, hanging)]
    assert told == [
        [Note("worker 0 ended: it was not ready after 20 s")],
        [
            Note("worker 1 ended: it computed one batch for more than 10 s"),
            Note("it was with worker 1 when that ended", "r"),
        ],
    ]


def test_idle_workers_are_passed_over_and_those_behind_them_are_not() -> None:
    workforce = started(3)
    _, second, third = workforce.workers
    workforce.died(second, "SIGKILL", 5.0)
    third.state = WorkerState.RETIRING
    assert workforce.wakeup_s() == 5.0
    assert workforce.watch(5.0) == [StartWorker(1), StopWorker(2)]


def test_when_the_next_start_is_tried() -> None:
    workforce = started(2)
    first, second = workforce.workers
    assert workforce.next_restart_s(3.0) == 3.0
    first.state, first.restart_at_s = WorkerState.BACKOFF, 9.0
    assert workforce.next_restart_s(3.0) == 3.0, "the other one may be ready at any moment"
    second.state, second.restart_at_s = WorkerState.BACKOFF, 7.0
    assert workforce.next_restart_s(3.0) == 7.0


def test_hope_is_a_worker_that_is_ready_or_is_replaced_in_good_order() -> None:
    workforce = started(2)
    first, second = workforce.workers
    first.state, first.failures = WorkerState.BACKOFF, 1
    assert not workforce.hopeless
    second.state, second.failures = WorkerState.STARTING, 1
    assert workforce.hopeless
    second.failures = 0
    assert not workforce.hopeless


def test_closing_stops_every_process_and_starts_none() -> None:
    workforce = started(7)
    for worker, state in zip(workforce.workers, WorkerState, strict=True):
        worker.state = state
    assert workforce.close(6.0) == [StopWorker(0), StopWorker(1), StopWorker(2)]
    assert [(worker.state.value, worker.since_s) for worker in workforce.workers] == [
        ("stopping", 6.0),
        ("stopping", 6.0),
        ("stopping", 6.0),
        ("stopping", 0.0),
        ("killed", 0.0),
        ("stopped", 0.0),
        ("stopped", 0.0),
    ]
    assert not workforce.stopped
    for worker in workforce.workers[:5]:
        assert workforce.died(worker, "exit code 0", 7.0) == ([], [])
    assert workforce.stopped
    assert workforce.deaths == workforce.recycled == 0
    assert workforce.watch(100.0) == []


def test_why_its_processes_ended_is_counted_by_reason(make_item: Make) -> None:
    workforce = started(worker_memory_mb=100)
    (worker,) = workforce.workers

    def came_back(now: float) -> None:
        workforce.watch(now)
        workforce.worker_ready(worker, 0, now)

    workforce.died(worker, "it was ended by SIGKILL", 2.0)
    assert worker.endings == {Ending.DIED: 1}
    came_back(2.0)
    # Told to go by somebody else.
    workforce.leaving(worker, 3.0)
    workforce.died(worker, "", 3.0)
    assert worker.endings == {Ending.DIED: 1, Ending.TOLD: 1}
    came_back(3.0)
    # Too large: told to go by the pool, which is another thing.
    assert workforce.batch_over(worker, 200 * MIB, 4.0)
    workforce.watch(4.0)
    workforce.leaving(worker, 4.0)
    workforce.died(worker, "", 4.0)
    assert worker.endings == {Ending.DIED: 1, Ending.TOLD: 1, Ending.MEMORY: 1}
    came_back(4.0)
    # Hung.
    worker.take(batch_of(make_item(), sent_s=4.0))
    assert workforce.watch(14.0) == [KillWorker(0)]
    workforce.died(worker, "it was ended by SIGKILL", 14.0)
    assert worker.endings == {Ending.DIED: 1, Ending.TOLD: 1, Ending.MEMORY: 1, Ending.HUNG: 1}
    # Not ready in time, twice, and once it said so itself.
    for times in (1, 2):
        now = worker.restart_at_s
        assert workforce.watch(now) == [StartWorker(0)]
        assert workforce.watch(now + 20.0) == [KillWorker(0)]
        workforce.died(worker, "it was ended by SIGKILL", now + 20.0)
        assert worker.endings[Ending.START] == times
    now = worker.restart_at_s
    assert workforce.watch(now) == [StartWorker(0)]
    workforce.setup_failed(worker, "no such file")
    workforce.died(worker, "it ended with 1", now)
    assert worker.endings == {Ending.DIED: 1, Ending.TOLD: 1, Ending.MEMORY: 1, Ending.HUNG: 1, Ending.START: 3}
    assert workforce.watch(worker.restart_at_s) == [StartWorker(0)]
    workforce.died(worker, "it was ended by SIGKILL", worker.restart_at_s)
    assert worker.endings[Ending.DIED] == 2, "and the reason of the one before is forgotten"
