"""What is taken into a pool and what is refused, to the last item, byte and moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sluiceway_runtime.errors import DeadlineExceeded, Quarantined, QueueFull, Unavailable
from sluiceway_runtime.pool.policy.admission import Admission, Room, quarantined
from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.pool.policy.limits import PoolLimits, Timing
from sluiceway_runtime.pool.policy.machine import Machine
from sluiceway_runtime.pool.policy.quarantine import Quarantine, Verdict
from sluiceway_runtime.pool.policy.rate import ServiceRate
from sluiceway_runtime.pool.policy.statistics import WorkerState
from sluiceway_runtime.pool.policy.workforce import Workforce
from sluiceway_runtime.priority import Priority

Make = Callable[..., Item]
TIMING = Timing(retry_after_min_s=0.5, retry_after_max_s=8.0)
LIMITS = PoolLimits(queue_items=4, queue_bytes=100)


class Door:
    """An admission with all that it asks; open, with two workers that are ready."""

    def __init__(self, limits: PoolLimits = LIMITS) -> None:
        self.workforce = Workforce(2, limits, TIMING)
        for worker in self.workforce.workers:
            worker.state = WorkerState.READY
        self.quarantine = Quarantine(600.0)
        self.machine = Machine(self.quarantine)
        self.rate = ServiceRate()
        self.admission = Admission(
            limits,
            TIMING,
            workforce=self.workforce,
            machine=self.machine,
            quarantine=self.quarantine,
            rate=self.rate,
        )
        self.admission.open()

    def sort(self, *items: Item, waiting: int = 0, waiting_bytes: int = 0, ahead: int = 0, now: float = 0.0) -> Any:
        return self.admission.sort(items, waiting, waiting_bytes, ahead, now)

    def refusal(self, *items: Item, **more: Any) -> Any:
        """Why none of these is taken."""
        found = self.sort(*items, **more)
        assert (list(found.taken), list(found.suspects)) == ([], [])
        ((refused, error),) = found.refused
        assert list(refused) == list(items)
        return error


def room(
    *, share: float = 1.0, items: int = 0, size_bytes: int = 0, begins_s: float = 0.0, item_s: float = 0.0
) -> Room:
    return Room(LIMITS, TIMING, share, items=items, size_bytes=size_bytes, begins_s=begins_s, item_s=item_s)


def full(found: QueueFull | None, message: str, retry_after_s: float) -> bool:
    return found is not None and (found.message, found.retry_after_s) == (message, retry_after_s)


@pytest.mark.parametrize(
    ("held", "count", "size_bytes", "fits"),
    [
        ({}, 4, 1, True),
        ({}, 5, 1, False),
        ({"items": 3}, 1, 1, True),
        ({"items": 3}, 2, 1, False),
        ({}, 4, 25, True),
        ({}, 4, 26, False),
        ({"size_bytes": 60}, 2, 20, True),
        ({"size_bytes": 61}, 2, 20, False),
        ({"share": 0.5}, 2, 25, True),
        ({"share": 0.5}, 3, 1, False),
        ({"share": 0.5}, 1, 51, False),
        # The last one begins when those before it have: at 8 + 2, which is the deadline.
        ({"begins_s": 8.0, "item_s": 1.0}, 3, 1, True),
        ({"begins_s": 8.0, "item_s": 1.0}, 4, 1, False),
        ({"begins_s": 10.5}, 1, 1, False),
    ],
)
def test_whether_there_is_room_for_all(make_item: Make, held: Any, count: int, size_bytes: int, fits: bool) -> None:
    items = [make_item(size_bytes=size_bytes) for _ in range(count)]
    there = room(**held)
    assert there.holds(items) is fits
    assert there.holds(items) is fits, "to ask changes nothing"
    entered = [there.enter(item) for item in items]
    # One by one the same, but for the first into an empty room, which may be as large as it is.
    assert all(error is None for error in entered) is fits or size_bytes > 50


def test_items_enter_until_there_is_no_room(make_item: Make) -> None:
    there = room(items=2, item_s=0.75)
    assert [there.enter(make_item()) for _ in range(2)] == [None, None]
    assert full(there.enter(make_item()), "the queue is full", 4 * 0.75)
    there = room(items=2, size_bytes=60, item_s=0.75)
    assert there.enter(make_item(size_bytes=40)) is None
    assert full(there.enter(make_item()), "the queue holds as many bytes as it may", 3 * 0.75)
    there = room(items=1, begins_s=9.5, item_s=0.5)
    assert [there.enter(make_item()) for _ in range(2)] == [None, None]
    assert full(there.enter(make_item()), "the wait would outlast the deadline", 3 * 0.5)


def test_into_an_empty_room_one_item_of_any_size_enters(make_item: Make) -> None:
    there = room()
    assert there.enter(make_item(size_bytes=1000)) is None
    assert full(there.enter(make_item()), "the queue holds as many bytes as it may", 0.5)
    tiny = Room(PoolLimits(queue_items=1), TIMING, 0.75, items=0, size_bytes=0, begins_s=0.0, item_s=0.0)
    assert tiny.enter(make_item()) is None
    assert full(tiny.enter(make_item()), "the queue is full", 0.5)


def test_when_to_come_back_is_bounded(make_item: Make) -> None:
    assert full(room(items=4, item_s=100.0).enter(make_item()), "the queue is full", 8.0)
    assert full(room(items=4, item_s=0.001).enter(make_item()), "the queue is full", 0.5)


def test_what_finds_room_is_taken_as_it_is(make_item: Make) -> None:
    items = [make_item() for _ in range(4)]
    found = Door().sort(*items)
    assert (list(found.taken), list(found.suspects), list(found.refused)) == (items, [], [])


def test_of_what_finds_no_room_the_first_are_taken(make_item: Make) -> None:
    items = [make_item() for _ in range(6)]
    found = Door().sort(*items, waiting=1)
    assert (list(found.taken), list(found.suspects)) == (items[:3], [])
    ((refused, error),) = found.refused
    assert list(refused) == items[3:]
    assert full(error, "the queue is full", 0.5)


def test_bulk_fills_three_quarters_of_what_others_may_fill(make_item: Make) -> None:
    for priority, waiting, taken in (
        (Priority.BULK, 2, True),
        (Priority.BULK, 3, False),
        (Priority.NORMAL, 3, True),
        (Priority.INTERACTIVE, 3, True),
        (Priority.INTERACTIVE, 4, False),
    ):
        assert bool(Door().sort(make_item(priority=priority), waiting=waiting).taken) is taken
    bulk = [make_item(priority=Priority.BULK) for _ in range(4)]
    assert list(Door().sort(*bulk).taken) == bulk, "one request may fill an empty queue"
    assert Door().sort(make_item(priority=Priority.BULK, size_bytes=10), waiting=1, waiting_bytes=65).taken
    assert Door().refusal(make_item(priority=Priority.BULK, size_bytes=10), waiting=1, waiting_bytes=66)


def test_the_wait_is_that_for_those_ahead_shared_by_the_workers(make_item: Make) -> None:
    door = Door()
    door.rate.observe(4.0, 1)  # two workers: an item begins every 2 s
    assert door.sort(make_item(deadline_s=6.0), waiting=3, ahead=3).taken
    assert isinstance(door.refusal(make_item(deadline_s=5.9), waiting=3, ahead=3), QueueFull)
    assert door.sort(make_item(deadline_s=5.9), waiting=3, ahead=2).taken
    assert isinstance(door.refusal(make_item(deadline_s=10.0), waiting=3, ahead=3, now=5.0), QueueFull)
    first, second = make_item(deadline_s=1.0), make_item(deadline_s=1.0)
    found = door.sort(first, second)
    assert (list(found.taken), list(found.refused[0][0])) == ([first], [second])


def test_a_door_that_is_shut_says_why(make_item: Make) -> None:
    door = Door()
    door.admission._starting = True
    error = door.refusal(make_item(), make_item())
    assert (type(error), error.message) == (Unavailable, "the server is starting")
    door.admission.close()
    error = door.refusal(make_item())
    assert (type(error), error.message) == (Unavailable, "the server is stopping")


def test_until_it_is_opened_it_is_shut(make_item: Make) -> None:
    door = Door()
    shut = Admission(
        LIMITS, TIMING, workforce=door.workforce, machine=door.machine, quarantine=door.quarantine, rate=door.rate
    )
    ((_, error),) = shut.sort([make_item()], 0, 0, 0, 0.0).refused
    assert error.message == "the server is starting"
    shut.open()
    assert shut.sort([make_item()], 0, 0, 0, 0.0).taken


def test_a_deadline_that_has_passed_is_none_to_wait_for(make_item: Make) -> None:
    door = Door()
    error = door.refusal(make_item(deadline_s=3.0), now=3.0)
    assert (type(error), error.message) == (DeadlineExceeded, "the deadline had passed on arrival")
    assert door.sort(make_item(deadline_s=3.1), now=3.0).taken


def test_without_a_worker_nothing_is_taken(make_item: Make) -> None:
    door = Door()
    for worker, at_s in zip(door.workforce.workers, (5.0, 7.0), strict=True):
        worker.state, worker.failures, worker.restart_at_s = WorkerState.BACKOFF, 1, at_s
    error = door.refusal(make_item(), now=2.0)
    assert (type(error), error.message, error.retry_after_s) == (Unavailable, "no worker works", 3.0)
    assert door.refusal(make_item(), now=4.9).retry_after_s == 0.5
    assert door.refusal(make_item(deadline_s=99.0), now=-90.0).retry_after_s == 8.0


def test_on_a_machine_that_is_ill_nothing_is_taken(make_item: Make) -> None:
    door = Door()
    door.machine.ill = True
    for worker in door.workforce.workers:
        worker.state, worker.failures, worker.restart_at_s = WorkerState.BACKOFF, 1, 5.0
    error = door.refusal(make_item(), now=2.0)
    assert (type(error), error.message) == (Unavailable, "no worker of this machine computes")
    assert error.retry_after_s == 3.0
    assert door.admission.machine_fault(4.0).retry_after_s == 1.0


def test_the_guilty_are_refused_and_suspects_run_alone(make_item: Make) -> None:
    door = Door()
    door.quarantine.remember(make_item(content="guilty"), Verdict.GUILTY, 0.0)
    door.quarantine.remember(make_item(content="suspect"), Verdict.SUSPECT, 0.0)
    items = [make_item(content=name) for name in ("a", "guilty", "suspect", "b")]
    found = door.sort(*items)
    assert list(found.taken) == [items[0], items[3]]
    assert list(found.suspects) == [items[2]]
    ((refused, error),) = found.refused
    assert list(refused) == [items[1]]
    assert (type(error), error.metadata) == (Quarantined, {"digest": "guilty"})
    # Where nothing is taken, there is one reason for all of them.
    door.admission.close()
    assert door.refusal(*items).message == "the server is stopping"


def test_the_guilty_take_no_room_of_others(make_item: Make) -> None:
    door = Door()
    door.quarantine.remember(make_item(content="guilty"), Verdict.GUILTY, 0.0)
    items = [make_item(content=name) for name in ("guilty", "a", "b", "c", "d", "e")]
    found = door.sort(*items)
    assert list(found.taken) == items[1:5]
    assert [(list(refused), type(error)) for refused, error in found.refused] == [
        ([items[0]], Quarantined),
        ([items[5]], QueueFull),
    ]


def test_what_is_told_of_an_item_in_quarantine(make_item: Make) -> None:
    error = quarantined(make_item(content="x"), story="long")
    assert error.message == "this item ended a worker before and is not tried again"
    assert error.metadata == {"digest": "x", "story": "long"}
