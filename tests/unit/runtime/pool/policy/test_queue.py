"""The queue by itself: turns, classes, ages and books."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.pool.policy.queue import PACKET_ITEMS, FairQueue
from sluiceway_runtime.priority import Priority

Make = Callable[..., Item]


@pytest.fixture
def queue() -> FairQueue:
    return FairQueue(ageing_s=2.0)


def drained(queue: FairQueue, most: int = 1) -> list[Item]:
    order: list[Item] = []
    while batch := queue.pop_batch(most, None):
        order += batch
    return order


def books(queue: FairQueue) -> tuple[int, int, int]:
    return len(queue), queue.size_bytes, queue.cost


def test_the_books(queue: FairQueue, make_item: Make) -> None:
    items = [make_item(size_bytes=size, cost=2 * size) for size in (1, 10, 100)]
    queue.push(items, 0.0)
    assert books(queue) == (3, 111, 222)
    queue.remove(items[1])
    assert items[1].level is None
    assert books(queue) == (2, 101, 202)
    assert queue.pop_batch(1, None) == [items[0]]
    assert books(queue) == (1, 100, 200)
    assert queue.pop_batch(5, None) == [items[2]]
    assert books(queue) == (0, 0, 0)
    assert queue.pop_batch(5, None) == []


def test_an_item_that_is_as_costly_as_a_batch_may_be_goes_with_what_costs_nothing(
    queue: FairQueue, make_item: Make
) -> None:
    items = [make_item(cost=cost) for cost in (8, 0, 1)]
    queue.push(items, 0.0)
    assert queue.pop_batch(5, 8) == items[:2]


def test_an_item_knows_where_it_waits(queue: FairQueue, make_item: Make) -> None:
    item = make_item(priority=Priority.BULK)
    queue.push([item], 3.0)
    assert (item.level, item.entered_s) == (Priority.BULK, 3.0)
    queue.age(4.9)
    assert (item.level, item.entered_s) == (Priority.BULK, 3.0)
    queue.age(5.0)
    assert (item.level, item.entered_s) == (Priority.NORMAL, 5.0)
    queue.age(7.0)
    assert (item.level, item.entered_s) == (Priority.INTERACTIVE, 7.0)
    queue.age(99.0)
    assert item.level == Priority.INTERACTIVE
    queue.pop_batch(1, None)
    assert item.level is None


def test_what_came_together_moves_up_together_and_nobody_with_it(queue: FairQueue, make_item: Make) -> None:
    early = [make_item(request="a", priority=Priority.BULK) for _ in range(2)]
    queue.push(early, 0.0)
    others = [make_item(request="b", priority=Priority.BULK) for _ in range(2)]
    queue.push(others, 0.0)
    late = [make_item(request="a", priority=Priority.BULK) for _ in range(2)]
    queue.push(late, 1.0)
    queue.age(2.0)
    assert [item.level for item in (*early, *others, *late)] == [Priority.NORMAL] * 4 + [Priority.BULK] * 2
    assert drained(queue) == [*early, *others, *late]


def test_of_one_request_only_those_that_waited_long_enough_move_up(queue: FairQueue, make_item: Make) -> None:
    first, second = make_item(priority=Priority.NORMAL), make_item(priority=Priority.NORMAL)
    queue.push([first], 0.0)
    queue.push([second], 0.5)
    queue.age(2.0)
    assert (first.level, second.level) == (Priority.INTERACTIVE, Priority.NORMAL)
    queue.age(2.5)
    assert second.level == Priority.INTERACTIVE


def test_the_oldest_is_told_by_when_it_was_taken(queue: FairQueue, make_item: Make) -> None:
    assert queue.oldest_s() is None
    items = [make_item() for _ in range(3)]
    for item, at_s in zip(items, (1.0, 1.0, 4.0), strict=True):
        item.accepted_s = at_s
    queue.push(items[:2], 1.0)
    queue.push(items[2:], 4.0)
    assert queue.oldest_s() == 1.0
    queue.remove(items[1])
    assert queue.oldest_s() == 1.0, "one of those that came together is still here"
    queue.remove(items[0])
    assert queue.oldest_s() == 4.0
    queue.age(6.0)
    assert queue.oldest_s() == 4.0, "wherever it stands"
    queue.pop_batch(1, None)
    assert queue.oldest_s() is None


def test_how_many_stand_before_a_newcomer(queue: FairQueue, make_item: Make) -> None:
    for priority, count in ((Priority.INTERACTIVE, 1), (Priority.NORMAL, 10), (Priority.BULK, 100)):
        queue.push([make_item(priority=priority) for _ in range(count)], 0.0)
    assert [queue.ahead_of(priority) for priority in Priority] == [1, 11, 111]


def test_the_next_group_and_about_what_it_costs(queue: FairQueue, make_item: Make) -> None:
    assert queue.next_group() == (0, 0)
    queue.push([make_item(group="a", cost=3), make_item(group="b", cost=100), make_item(group="a", cost=5)], 0.0)
    assert queue.next_group() == (2, 6)
    queue.push([make_item(group="b", cost=7, priority=Priority.INTERACTIVE)], 0.0)
    assert queue.next_group() == (2, 14)


def test_a_batch_is_bounded_by_items_by_cost_and_by_an_equal_part(queue: FairQueue, make_item: Make) -> None:
    items = [make_item(cost=10) for _ in range(12)]
    queue.push(items, 0.0)
    assert queue.pop_batch(8, None, workers=4) == items[:3]
    assert queue.pop_batch(8, 20) == items[3:5]
    assert queue.pop_batch(8, 29) == items[5:7]
    assert queue.pop_batch(2, 1000) == items[7:9]
    assert queue.pop_batch(8, 9) == items[9:10], "one above the bound comes alone"
    assert queue.pop_batch(8, None, workers=3) == items[10:11]
    assert queue.pop_batch(8, None, workers=1) == items[11:]


def test_a_batch_is_of_one_group_from_all_classes_and_ends_where_one_does_not_fit(
    queue: FairQueue, make_item: Make
) -> None:
    first = make_item(group="a", cost=4, priority=Priority.INTERACTIVE)
    other = make_item(group="b", cost=1, priority=Priority.INTERACTIVE)
    large = make_item(group="a", cost=7, priority=Priority.NORMAL)
    small = make_item(group="a", cost=1, priority=Priority.BULK)
    for item in (first, other, large, small):
        queue.push([item], 0.0)
    assert queue.pop_batch(8, 10) == [first], "the small one does not overtake the large one"
    assert queue.pop_batch(8, 10) == [other]
    assert queue.pop_batch(8, 10) == [large, small]


def test_requests_are_served_by_the_share_that_each_had(queue: FairQueue, make_item: Make) -> None:
    """A packet goes as a whole; the second one of a request stands behind what others have queued meanwhile."""
    large = [make_item(request="large") for _ in range(PACKET_ITEMS + 10)]
    queue.push(large, 0.0)
    small = [make_item(request="small") for _ in range(5)]
    queue.push(small, 0.0)
    assert drained(queue) == [*small, *large]
    queue.push(large := [make_item(request="large") for _ in range(2 * PACKET_ITEMS)], 0.0)
    queue.push(other := [make_item(request="other") for _ in range(PACKET_ITEMS + 1)], 0.0)
    assert drained(queue) == [
        *large[:PACKET_ITEMS],
        *other[:PACKET_ITEMS],
        *other[PACKET_ITEMS:],
        *large[PACKET_ITEMS:],
    ]


def test_what_a_request_had_counts_until_it_has_nothing_left(queue: FairQueue, make_item: Make) -> None:
    first = [make_item(request="a") for _ in range(10)]
    queue.push(first, 0.0)
    more = [make_item(request="a") for _ in range(2)]
    queue.push(more, 0.0)
    other = [make_item(request="b") for _ in range(11)]
    queue.push(other, 0.0)
    # Turns: 10, then 10 + 2 after them; 11 for the other one.
    assert drained(queue) == [*first, *other, *more]
    again = [make_item(request="a") for _ in range(2)]
    queue.push(again, 0.0)
    newcomer = [make_item(request="c") for _ in range(1)]
    queue.push(newcomer, 0.0)
    assert drained(queue) == [*newcomer, *again]


def test_what_left_unserved_was_no_turn(queue: FairQueue, make_item: Make) -> None:
    gone = [make_item(request="a") for _ in range(10)]
    stays = make_item(request="a")
    queue.push([stays], 0.0)
    queue.push(gone, 0.0)
    for item in gone:
        queue.remove(item)
    more = [make_item(request="a") for _ in range(3)]
    queue.push(more, 0.0)
    other = [make_item(request="b") for _ in range(5)]
    queue.push(other, 0.0)
    # The second ones of `a` have the turn 1 + 3, and not 1 + 10 + 3.
    assert drained(queue) == [stays, *more, *other]


def test_the_clock_goes_on_by_the_share_of_those_who_wait(queue: FairQueue, make_item: Make) -> None:
    for name in ("a", "b"):
        queue.push([make_item(request=name) for _ in range(20)], 0.0)
    assert queue._levels[Priority.NORMAL].clock == 0.0
    queue.pop_batch(4, None)
    assert queue._levels[Priority.NORMAL].clock == 2.0
    queue.pop_batch(20, None)
    # Sixteen while both wait, and four more while one does.
    assert queue._levels[Priority.NORMAL].clock == 2 + 8 + 4
    # A newcomer begins at the clock.
    newcomer, late = make_item(request="c"), make_item(request="d")
    queue.push([newcomer], 0.0)
    assert queue._levels[Priority.NORMAL]._shares["c"].last_turn == 15
    queue.remove(newcomer)
    queue.push([late], 0.0)
    assert queue._levels[Priority.NORMAL]._shares["d"].last_turn == 15


def test_a_request_that_left_has_no_share_any_more(queue: FairQueue, make_item: Make) -> None:
    items = [make_item(request="gone") for _ in range(3)]
    queue.push(items, 0.0)
    queue.remove(items[0])
    share = queue._levels[Priority.NORMAL]._shares["gone"]
    assert (share.waiting, share.last_turn) == (2, 2)
    for item in items[1:]:
        queue.remove(item)
    assert queue._levels[Priority.NORMAL]._shares == {}


def test_of_what_is_left_workers_share_equal_parts(queue: FairQueue, make_item: Make) -> None:
    items = [make_item() for _ in range(8)]
    queue.push(items, 0.0)
    for item in items[:4]:
        queue.remove(item)
    assert queue.next_group() == (4, 4)
    assert queue.pop_batch(8, None, workers=2) == items[4:6]
    for item in items[6:]:
        queue.remove(item)
    assert queue._by_group == {}


def test_what_waits_is_not_swept_with_what_has_left(queue: FairQueue, make_item: Make) -> None:
    stays = make_item(group="a")
    stays.accepted_s = 1.0
    queue.push([stays], 1.0)
    for _ in range(500):
        gone = make_item(group="a")
        gone.accepted_s = 2.0
        queue.push([gone], 2.0)
        queue.remove(gone)
    assert queue.oldest_s() == 1.0
    queue.age(3.5)
    assert stays.level == Priority.INTERACTIVE
    assert queue.pop_batch(1, None) == [stays]


def test_one_above_the_cost_of_a_batch_is_alone_whatever_the_next_costs(queue: FairQueue, make_item: Make) -> None:
    large, free = make_item(cost=20), make_item(cost=0)
    queue.push([large, free], 0.0)
    assert queue.pop_batch(8, 10) == [large]
    queue.push([exact := make_item(cost=10), also := make_item(cost=0)], 0.0)
    assert queue.pop_batch(8, 10) == [free, exact, also]


def test_items_of_one_request_may_be_of_several_groups(queue: FairQueue, make_item: Make) -> None:
    items = [make_item(group=name) for name in ("a", "b", "b", "a", None, "")]
    queue.push(items, 0.0)
    assert [queue.pop_batch(8, None) for _ in range(4)] == [
        [items[0], items[3]],
        [items[1], items[2]],
        [items[4]],
        [items[5]],
    ]


def test_a_batch_that_may_mix_is_filled_with_the_groups_that_are_next(queue: FairQueue, make_item: Make) -> None:
    wide, narrow, other = ([make_item(group=group, cost=10) for _ in range(3)] for group in ("320", "64", "x"))
    queue.push([item for three in zip(wide, narrow, other, strict=True) for item in three], 0.0)
    assert queue.pop_batch(8, 50, mixes=True) == [*wide, *narrow[:2]], "of one group as far as there are any"
    assert books(queue)[0] == 4
    assert queue.next_group() == (1, 10)
    assert queue.pop_batch(8, None, workers=2, mixes=True) == [narrow[2], other[0]], "an equal part of all that waits"
    assert queue.pop_batch(8, 9, mixes=True) == [other[1]], "one above the bound comes alone"
    assert queue.pop_batch(8, None, mixes=True) == [other[2]]
    assert queue.pop_batch(8, None, mixes=True) == []
    assert (len(queue), queue.cost, queue.next_group()) == (0, 0, (0, 0))


def test_who_is_next_fills_a_batch_whatever_its_class(queue: FairQueue, make_item: Make) -> None:
    bulk, normal = make_item(group="a", priority=Priority.BULK), make_item(group="b", priority=Priority.NORMAL)
    first, second = (make_item(group="a", priority=Priority.INTERACTIVE) for _ in range(2))
    for items in ([bulk], [normal], [first, second]):
        queue.push(items, 0.0)
    assert queue.pop_batch(3, None, mixes=True) == [first, second, bulk], "those of the first one's group come first"
    assert queue.pop_batch(3, None, mixes=True) == [normal]
