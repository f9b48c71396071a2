"""Which replica gets the next item."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from sluiceway_orchestrator.stages.balancer import FEW, FULL_LIFETIME_S, Fullness, Occupancy, Report, choose
from sluiceway_orchestrator.stages.retry import RetryBudget
from sluiceway_runtime.priority import Priority


@dataclass(eq=False)
class Fake:
    name: str
    ready: bool = True
    occupancy: Occupancy = field(default_factory=lambda: Occupancy(initial_window=4))


def pick(replicas: list[Fake], now_s: float = 0.0, **options: object) -> str | None:
    chosen = choose(replicas, Priority.NORMAL, now_s, random_source=random.Random(0), **options)  # type: ignore[arg-type]
    return chosen.name if chosen else None


def test_replicas_that_are_not_ready_or_held_or_full_get_nothing() -> None:
    a, b, c = Fake("a", ready=False), Fake("b"), Fake("c")
    b.occupancy.held_until_s = 10
    c.occupancy.in_flight = 100
    assert pick([a, b, c], 5) is None
    assert pick([a, b, c], 11) == "b"


def test_the_less_busy_of_two_is_chosen() -> None:
    a, b = Fake("a"), Fake("b")
    a.occupancy.took(1, 0)
    assert pick([a, b]) == "b"
    b.occupancy.took(3, 1)
    assert pick([a, b]) == "a"


def test_busy_is_measured_by_capacity() -> None:
    small, large = Fake("small"), Fake("large")
    small.occupancy.reported(Report(capacity=2), 0)
    large.occupancy.reported(Report(capacity=8), 0)
    small.occupancy.in_flight, large.occupancy.in_flight = 1, 3
    assert pick([small, large]) == "large"


def test_work_of_other_callers_counts_while_the_report_is_fresh() -> None:
    a, b = Fake("a"), Fake("b")
    a.occupancy.reported(Report(queued=4, running=4, capacity=8), 0)
    b.occupancy.reported(Report(running=1, capacity=8), 0)
    b.occupancy.in_flight = 2
    assert pick([a, b], 0.5) == "b"
    assert pick([a, b], 5) == "a"


def test_equals_take_turns() -> None:
    a, b = Fake("a"), Fake("b")
    chosen = []
    for turn in range(6):
        name = pick([a, b], turn)
        chosen.append(name)
        winner = a if name == "a" else b
        winner.occupancy.took(1, turn)
        winner.occupancy.in_flight -= 1
    assert chosen in (["a", "b"] * 3, ["b", "a"] * 3)


def test_one_that_just_failed_is_avoided_unless_it_is_the_only_one() -> None:
    a, b = Fake("a"), Fake("b")
    b.occupancy.in_flight = 3
    assert pick([a, b], avoid=a) == "b"
    assert pick([a], avoid=a) == "a"


@pytest.mark.parametrize(("priority", "window"), [(Priority.INTERACTIVE, 14), (Priority.NORMAL, 9), (Priority.BULK, 8)])
def test_urgent_work_may_queue_a_little_deeper(priority: Priority, window: int) -> None:
    occupancy = Occupancy(initial_window=4)
    occupancy.reported(Report(capacity=4), 0)
    assert occupancy.window(priority) == window


def test_many_replicas_share_evenly() -> None:
    replicas = [Fake(str(index)) for index in range(8)]
    source = random.Random(5)
    for turn in range(4000):
        chosen = choose(replicas, Priority.NORMAL, turn, random_source=source)
        assert chosen is not None
        chosen.occupancy.took(1, turn)
        # Each item takes as long as eight more to arrive.
        busy = [replica for replica in replicas if replica.occupancy.in_flight]
        if sum(replica.occupancy.in_flight for replica in busy) > 8:
            source.choice(busy).occupancy.in_flight -= 1
    sent = [replica.occupancy.sent for replica in replicas]
    assert max(sent) < 1.25 * min(sent)


class Counted(Fake):
    """Counts how often it is looked at."""

    looks = 0

    @property
    def ready(self) -> bool:  # type: ignore[override]
        type(self).looks += 1
        return True

    @ready.setter
    def ready(self, value: bool) -> None:
        """What a field is set to at first."""


def test_of_many_replicas_few_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counted, "looks", 0)
    replicas = [Counted(str(index)) for index in range(1000)]
    source = random.Random(5)
    for turn in range(1000):
        chosen = choose(replicas, Priority.NORMAL, turn, random_source=source)
        assert chosen is not None
        chosen.occupancy.took(1, turn)
    assert Counted.looks < 3000
    # With the less busy of two, nearly all have one.
    assert max(replica.occupancy.in_flight for replica in replicas) <= 3


def test_of_many_replicas_the_only_one_with_room_is_found() -> None:
    replicas = [Fake(str(index), ready=index == 700) for index in range(1000)]
    assert pick(replicas) == "700"
    assert pick(replicas, avoid=replicas[700]) == "700", "no other can be had"
    replicas[3].ready = True
    assert pick(replicas, avoid=replicas[700]) == "3"
    replicas[3].ready = replicas[700].ready = False
    assert pick(replicas) is None


def test_replicas_are_full_when_all_together_have_what_they_can_work_on() -> None:
    few = [Fake("a"), Fake("b")]
    fullness = Fullness()
    assert fullness.of([], 0.0)
    assert not fullness.of(few, 0.0)
    few[0].occupancy.in_flight = 8
    assert fullness.of(few, 0.0)
    many = [Fake(str(index)) for index in range(FEW + 1)]
    assert not fullness.of(many, 1.0)
    for replica in many:
        replica.occupancy.in_flight = 4
    assert not fullness.of(many, 1.0 + FULL_LIFETIME_S / 2), "as of a moment ago"
    assert fullness.of(many, 1.0 + 2 * FULL_LIFETIME_S)


def test_the_retry_budget_bounds_what_goes_on_for_long() -> None:
    budget = RetryBudget(0.2, reserve=10)
    assert sum(budget.spend() for _ in range(50)) == 10
    for _ in range(100):
        budget.earn()
    assert sum(budget.spend() for _ in range(50)) == 10
    for _ in range(20):
        budget.earn()
    assert sum(budget.spend() for _ in range(50)) in (3, 4)
