"""Who is owed an answer, until when, and how it is counted."""

from __future__ import annotations

import math
from collections.abc import Callable

from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.pool.policy.ledger import SWEEP_AT_LEAST, Ledger
from sluiceway_runtime.pool.policy.statistics import Counters

Make = Callable[..., Item]


def test_an_item_is_here_from_its_acceptance_to_its_answer(make_item: Make) -> None:
    ledger = Ledger()
    first, second, other = make_item(), make_item(), make_item()
    ledger.open([first, second], 3.0)
    assert (first.accepted_s, second.accepted_s) == (3.0, 3.0)
    assert (len(ledger), first.id in ledger, other.id in ledger) == (2, True, False)
    assert ledger.all() == (first, second)
    assert ledger.found([second.id, other.id]) == [second]
    assert ledger.wanted([other, second, first]) == (second, first)
    ledger.close([first], "succeeded")
    assert (len(ledger), first.id in ledger, ledger.all()) == (1, False, (second,))
    assert ledger.found([first.id]) == []


def test_outcomes_are_counted_by_item(make_item: Make) -> None:
    ledger = Ledger()
    items = [make_item() for _ in range(5)]
    ledger.open(items[:3], 0.0)
    ledger.open(items[3:], 0.0)
    ledger.close(items[:2], "failed")
    ledger.close(items[2:3], "failed")
    ledger.count("batches")
    ledger.count("refused", 4)
    assert ledger.counters(deaths=6, recycled=7) == Counters(
        accepted=5, failed=3, batches=1, refused=4, deaths=6, recycled=7
    )


def test_a_deadline_is_due_at_its_moment_and_told_once(make_item: Make) -> None:
    ledger = Ledger()
    late, early, gone, same = (make_item(deadline_s=at_s) for at_s in (9.0, 5.0, 5.0, 5.0))
    ledger.open([late], 0.0)
    ledger.open([early, gone], 0.0)
    ledger.open([same], 0.0)
    ledger.close([gone], "cancelled")
    assert ledger.next_deadline_s() == 5.0
    assert ledger.due(4.9) == []
    assert ledger.due(5.0) == [early, same]
    assert ledger.due(5.0) == []
    assert early.id in ledger, "whoever is late is still owed an answer"
    assert ledger.next_deadline_s() == 9.0
    assert ledger.due(20.0) == [late]


def test_the_next_deadline_is_that_of_somebody_who_waits(make_item: Make) -> None:
    ledger = Ledger()
    assert ledger.next_deadline_s() == math.inf
    first, second, third = (make_item(deadline_s=at_s) for at_s in (1.0, 2.0, 2.0))
    ledger.open([first], 0.0)
    ledger.open([second, third], 0.0)
    ledger.close([first, third], "succeeded")
    assert ledger.next_deadline_s() == 2.0
    ledger.close([second], "succeeded")
    assert ledger.next_deadline_s() == math.inf


def test_deadlines_of_the_answered_do_not_pile_up(make_item: Make) -> None:
    ledger = Ledger()
    stays = make_item(deadline_s=1e9)
    ledger.open([stays], 0.0)
    lengths = []
    for number in range(1000):
        gone = make_item(deadline_s=1e6 - number)
        ledger.open([gone], 0.0)
        ledger.close([gone], "succeeded")
        lengths.append(len(ledger._deadlines))
    assert max(lengths) == SWEEP_AT_LEAST
    soon = make_item(deadline_s=3.0)
    ledger.open([soon], 0.0)
    assert ledger.next_deadline_s() == 3.0
    assert ledger.due(2e9) == [soon, stays], "in their order still"


def test_nothing_is_swept_while_most_of_it_is_wanted(make_item: Make) -> None:
    ledger = Ledger()
    items = [make_item(deadline_s=1000.0 - number) for number in range(2 * SWEEP_AT_LEAST)]
    for item in items:
        ledger.open([item], 0.0)
    ledger.close(items[:100], "succeeded")
    ledger.open([make_item()], 0.0)
    assert len(ledger._deadlines) == 2 * SWEEP_AT_LEAST + 1
