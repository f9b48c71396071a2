"""Which worker gets what next, asked of the part that decides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sluiceway_runtime.pool.policy.handout import Handouts
from sluiceway_runtime.pool.policy.items import Batch, Item
from sluiceway_runtime.pool.policy.limits import PoolLimits, Timing
from sluiceway_runtime.pool.policy.machine import Machine
from sluiceway_runtime.pool.policy.quarantine import Quarantine
from sluiceway_runtime.pool.policy.queue import FairQueue
from sluiceway_runtime.pool.policy.retries import Retries
from sluiceway_runtime.pool.policy.statistics import WorkerState
from sluiceway_runtime.pool.policy.workforce import Workforce

Make = Callable[..., Item]


class Bench:
    """The part with all that it takes work from and gives it to; its workers are ready."""

    def __init__(self, make_item: Make, workers: int = 1, credits_each: int = 1, **limits: Any) -> None:
        bounds = PoolLimits(**limits)
        self.make_item = make_item
        self.queue, self.retries = FairQueue(2.0), Retries()
        self.workforce = Workforce(workers, bounds, Timing())
        self.machine = Machine(Quarantine(600.0))
        self.handouts = Handouts(
            self.queue, self.retries, self.workforce, self.machine, limits=bounds, credits_per_worker=credits_each
        )
        self.workers = self.workforce.workers
        for worker in self.workers:
            worker.state = WorkerState.READY

    def queued(self, count: int, **facts: Any) -> list[Item]:
        items = [self.make_item(**facts) for _ in range(count)]
        if items:
            self.queue.push(items, 0.0)
        return items

    def busy(self, index: int, *, batches: int = 1, probe: bool = False, request: str = "r") -> None:
        for _ in range(batches):
            self.workers[index].take(Batch(99, index, (self.make_item(request=request),), probe, 0.0))

    def next(self) -> tuple[int, tuple[Item, ...], bool] | None:
        """The next one, taken by its worker."""
        handout = self.handouts.next()
        if handout is None:
            return None
        handout.worker.take(Batch(1, handout.worker.index, handout.items, handout.probe, 0.0))
        return handout.worker.index, handout.items, handout.probe


@pytest.fixture
def make_bench(make_item: Make) -> Callable[..., Bench]:
    return lambda *arguments, **limits: Bench(make_item, *arguments, **limits)


def test_nothing_waits_or_nobody_is_there(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    assert bench.next() is None
    bench.queued(1)
    bench.workers[0].state = WorkerState.STARTING
    assert bench.next() is None


def test_the_warmest_idle_worker_goes_first(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(4)
    for worker, at_s in zip(bench.workers, (1.0, 5.0, 9.0, 3.0), strict=True):
        worker.idle_since_s = at_s
    bench.workers[2].failures = 2  # on trial: last of all, warm or not
    items = bench.queued(4)
    assert [bench.next() for _ in range(5)] == [
        (1, (items[0],), False),
        (3, (items[1],), False),
        (0, (items[2],), False),
        (2, (items[3],), False),
        None,
    ]


def test_one_with_less_in_hand_goes_before_a_warmer_one(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(2, 3)
    bench.workers[0].idle_since_s = 9.0
    bench.busy(0)
    first, second = bench.queued(2)
    assert bench.next() == (1, (first,), False)
    assert bench.next() == (0, (second,), False), "the warmer one of two with as much"


@pytest.mark.parametrize(
    ("waiting", "max_batch", "sent"),
    [(7, 8, False), (8, 8, True), (9, 8, True)],
)
def test_a_busy_worker_gets_a_batch_ahead_of_a_full_one(
    make_bench: Callable[..., Bench], waiting: int, max_batch: int, sent: bool
) -> None:
    bench = make_bench(1, 2, max_batch=max_batch)
    bench.busy(0)
    items = bench.queued(waiting)
    assert bench.next() == ((0, tuple(items[:max_batch]), False) if sent else None)
    assert bench.next() is None, "it has no credit left"


def test_a_full_one_by_cost_is_one_as_well(make_bench: Callable[..., Bench]) -> None:
    for cost, sent in ((24, False), (25, True)):
        bench = make_bench(1, 2, max_batch=64, max_batch_cost=100)
        bench.busy(0)
        items = bench.queued(4, cost=cost)
        assert bench.next() == ((0, tuple(items), False) if sent else None)


@pytest.mark.parametrize(("first", "sent"), [(1, False), (2, True)])
def test_of_the_next_group_a_quarter_of_a_batch_has_to_wait(
    make_bench: Callable[..., Bench], first: int, sent: bool
) -> None:
    bench = make_bench(1, 2, max_batch=8)
    bench.busy(0)
    items = bench.queued(first, group="a")
    for number in range(8):
        bench.queued(1, group=number)
    assert bench.next() == ((0, tuple(items), False) if sent else None)


@pytest.mark.parametrize(("cost", "sent"), [(24, False), (25, True)])
def test_or_a_quarter_of_its_cost(make_bench: Callable[..., Bench], cost: int, sent: bool) -> None:
    bench = make_bench(1, 2, max_batch=64, max_batch_cost=100)
    bench.busy(0)
    (item,) = bench.queued(1, group="a", cost=cost)
    bench.queued(4, group="b", cost=50)
    assert bench.next() == ((0, (item,), False) if sent else None)


def test_one_on_trial_is_given_one_item_at_a_time(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(1, 3, max_batch=4)
    bench.workers[0].failures = 2
    items = bench.queued(8)
    assert bench.next() == (0, (items[0],), False)
    assert bench.next() is None
    bench.workers[0].failures = 0
    assert bench.next() == (0, tuple(items[1:5]), False)


@pytest.mark.parametrize(
    ("workers", "side_by_side", "waiting", "first"),
    [(2, 1, 9, 3), (2, 1, 8, 2), (2, 4, 9, 4), (3, 1, 13, 3), (1, 1, 9, 9), (2, None, 9, 5), (2, 1, 80, 16)],
)
def test_how_much_of_what_waits_is_one_batch(
    make_bench: Callable[..., Bench], workers: int, side_by_side: int | None, waiting: int, first: int
) -> None:
    bench = make_bench(workers, max_batch=16, side_by_side=side_by_side)
    items = bench.queued(waiting)
    found = bench.next()
    assert found is not None
    assert found[1] == tuple(items[:first])


@pytest.mark.parametrize(
    ("waiting", "computed", "first"),
    [
        # All nine items of the first: each request has a worker of its own.
        (("a", "b"), (), 9),
        (("a",), ("b",), 9),
        # All is of one request: its parts are divided.
        (("a",), (), 3),
        (("a",), ("a",), 3),
        # Three workers and two requests.
        (("a", "b"), ("a", "b"), 3),
    ],
)
def test_a_request_is_not_divided_where_each_worker_has_one(
    make_bench: Callable[..., Bench], waiting: tuple[str, ...], computed: tuple[str, ...], first: int
) -> None:
    bench = make_bench(max(2, len(computed) + 1), max_batch=16, side_by_side=1)
    for index, request in enumerate(computed):
        bench.busy(index, request=request)
    items, *_ = [bench.queued(9, request=request) for request in waiting]
    found = bench.next()
    assert found is not None
    assert found[1] == tuple(items[:first])


def test_what_comes_back_goes_before_what_is_queued(make_bench: Callable[..., Bench], make_item: Make) -> None:
    bench = make_bench(2)
    (queued,) = bench.queued(1)
    again = (make_item(), make_item())
    bench.retries.add([again])
    assert bench.next() == (0, again, False)
    assert bench.next() == (1, (queued,), False)


def test_a_suspect_goes_to_an_idle_witness_where_there_is_one(
    make_bench: Callable[..., Bench], make_item: Make
) -> None:
    bench = make_bench(4)
    bench.workers[2].witness = True
    bench.workers[1].idle_since_s = 9.0
    suspect = make_item()
    bench.retries.add([(suspect,)], probe=True)
    assert bench.next() == (2, (suspect,), True)
    bench = make_bench(4)
    bench.workers[1].idle_since_s = 9.0
    bench.retries.add([(suspect,)], probe=True)
    assert bench.next() == (1, (suspect,), True), "the warmest where there is none"


def test_for_a_suspect_the_witness_that_is_idle_first_is_kept(
    make_bench: Callable[..., Bench], make_item: Make
) -> None:
    bench = make_bench(3, 2, max_batch=1)
    bench.workers[1].witness = True
    bench.busy(1)
    suspect = make_item()
    bench.retries.add([(suspect,)], probe=True)
    items = bench.queued(6)
    found = [bench.next() for _ in range(5)]
    # The others are filled up; it gets nothing more, as it would never be idle.
    assert found == [*((worker, (item,), False) for worker, item in zip((0, 2, 0, 2), items, strict=False)), None]
    bench.workers[1].in_flight.clear()
    assert bench.next() == (1, (suspect,), True)
    assert bench.next() is None, "it is alone with its worker"


@pytest.mark.parametrize(("workers", "risked"), [(1, 1), (2, 1), (3, 1), (4, 2), (6, 3)])
def test_at_most_half_of_the_workers_are_risked(
    make_bench: Callable[..., Bench], make_item: Make, workers: int, risked: int
) -> None:
    bench = make_bench(workers)
    bench.retries.add([(make_item(),) for _ in range(8)], probe=True)
    found = []
    while (handout := bench.next()) is not None:
        found.append(handout)
    assert [probe for _, _, probe in found] == [True] * risked


def test_a_machine_that_is_ill_is_tried_by_one_worker_at_a_time(
    make_bench: Callable[..., Bench], make_item: Make
) -> None:
    bench = make_bench(2)
    bench.workers[1].idle_since_s = 9.0
    bench.queued(3)
    nobody = {"witness": False, "others": False, "broken": True}
    bench.machine.judge(make_item(content="x"), 0.0, **nobody)
    bench.busy(0)
    assert bench.next() is None, "one of them is at it"
    bench.workers[0].in_flight.clear()
    found = bench.next()
    assert found is not None
    worker, (item,), probe = found
    assert (worker, item.payload.digest(), probe) == (1, "x", True)
    assert bench.next() is None
    for worker_there in bench.workers:
        worker_there.in_flight.clear()
        worker_there.state = WorkerState.BACKOFF
    tries = bench.machine._tries
    assert bench.next() is None
    assert bench.machine._tries == tries, "no try is spent where nobody is ready"


def test_the_warmest_witness_is_the_one_that_is_kept(make_bench: Callable[..., Bench], make_item: Make) -> None:
    bench = make_bench(3, 2)
    for worker, at_s in zip(bench.workers, (1.0, 1.0, 9.0), strict=True):
        worker.witness, worker.idle_since_s = True, at_s
    for index in range(3):
        bench.busy(index)
    bench.retries.add([(make_item(),)], probe=True)
    items = bench.queued(4)
    assert [bench.next() for _ in range(3)] == [(0, (items[0],), False), (1, (items[1],), False), None]
