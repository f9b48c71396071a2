"""The waiting line as tables of pushes and pops."""

from __future__ import annotations

import pytest
from sluiceway_orchestrator.backlog import Ageing, Backlog
from sluiceway_runtime.priority import Priority

I, N, B = Priority.INTERACTIVE, Priority.NORMAL, Priority.BULK  # noqa: E741 - the three classes, in a table

# Name to pushes (item, client, class, cost, arrival) and the order in which they come out.
TABLE: dict[str, tuple[list[tuple[str, str, Priority, int, float]], str]] = {
    "by arrival for one client": ([("a", "x", N, 1, 0), ("b", "x", N, 1, 1), ("c", "x", N, 1, 2)], "abc"),
    "in turns between clients": (
        [("a", "x", N, 1, 0), ("b", "x", N, 1, 0), ("c", "x", N, 1, 0), ("d", "y", N, 1, 0), ("e", "y", N, 1, 0)],
        "adbec",
    ),
    "large items count for more": (
        [("a", "x", N, 4, 0), ("b", "x", N, 4, 0), ("c", "y", N, 1, 0), ("d", "y", N, 1, 0), ("e", "y", N, 1, 0)],
        "acdeb",
    ),
    "interactive first": ([("a", "x", B, 1, 0), ("b", "x", N, 1, 0), ("c", "x", I, 1, 0)], "cba"),
    "bulk that waited long enough goes first": ([("a", "x", B, 1, 0), ("b", "x", I, 1, 10.5)], "ab"),
    "bulk that waited less does not": ([("a", "x", B, 1, 0), ("b", "x", I, 1, 9.5)], "ba"),
    "normal ages faster than bulk": ([("a", "x", B, 1, 0), ("b", "x", N, 1, 0), ("c", "x", I, 1, 2.5)], "bca"),
}


@pytest.mark.parametrize("name", TABLE)
def test_order(name: str) -> None:
    pushes, expected = TABLE[name]
    backlog: Backlog[str] = Backlog(Ageing(normal_s=2, bulk_s=10))
    for item, client, priority, cost, arrived in pushes:
        backlog.push(item, client=client, priority=priority, cost=cost, now_s=arrived)
    assert backlog.cost == sum(push[3] for push in pushes)
    order = "".join(entry.item for _ in pushes if (entry := backlog.pop()) is not None)
    assert order == expected
    assert backlog.pop() is None
    assert (len(backlog), backlog.cost) == (0, 0)


def test_a_client_that_returns_gets_no_credit_for_having_been_away() -> None:
    backlog: Backlog[str] = Backlog()
    for number in range(10):
        backlog.push(f"x{number}", client="x", priority=N, cost=1, now_s=0)
    for _ in range(8):
        backlog.pop()
    for number in range(3):
        backlog.push(f"y{number}", client="y", priority=N, cost=1, now_s=0)
    order = [entry.item for _ in range(5) if (entry := backlog.pop()) is not None]
    assert order in (["x8", "y0", "x9", "y1", "y2"], ["y0", "x8", "y1", "x9", "y2"])


def test_a_client_that_asks_one_at_a_time_is_not_ahead_of_itself() -> None:
    """Its share is remembered between its items, so that short queues are no trick."""
    backlog: Backlog[str] = Backlog()
    for number in range(20):
        backlog.push(f"x{number}", client="x", priority=N, cost=1, now_s=0)
    served = []
    backlog.push("y", client="y", priority=N, cost=5, now_s=0)
    for _ in range(12):
        entry = backlog.pop()
        assert entry is not None
        served.append(entry.item[0])
        if entry.item == "y":
            backlog.push("y", client="y", priority=N, cost=5, now_s=0)
    assert served.count("y") == pytest.approx(2, abs=1)


def test_discarded_entries_are_skipped_and_leave_nothing() -> None:
    backlog: Backlog[str] = Backlog()
    entries = [backlog.push(item, client=item, priority=N, cost=3, now_s=0) for item in "abc"]
    backlog.discard(entries[0])
    backlog.discard(entries[0])
    assert (len(backlog), backlog.cost) == (2, 6)
    entry = backlog.pop()
    assert entry is not None
    assert entry.item == "b"
    backlog.discard(entry)
    backlog.discard(entries[2])
    assert len(backlog) == 0
    assert backlog.pop() is None
    again = backlog.push("c", client="c", priority=N, cost=1, now_s=0)
    assert backlog.pop() is again


def test_a_head_that_does_not_fit_lets_other_classes_pass() -> None:
    backlog: Backlog[str] = Backlog()
    backlog.push("bulk", client="x", priority=B, cost=1, now_s=0)
    backlog.push("interactive", client="x", priority=I, cost=1, now_s=100)
    entry = backlog.pop(lambda candidate: candidate.priority is I)
    assert entry is not None
    assert entry.item == "interactive"
    assert backlog.pop(lambda _: False) is None
    assert len(backlog) == 1
