"""Batches that have been with a worker before: which goes first, and what the books say."""

from __future__ import annotations

from collections.abc import Callable

from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.pool.policy.retries import Retries

Make = Callable[..., Item]


def test_what_comes_later_goes_first_and_keeps_its_order(make_item: Make) -> None:
    retries = Retries()
    items = [make_item(size_bytes=size) for size in (1, 10, 100, 1000)]
    retries.add([(items[0], items[1])])
    retries.add([(items[2],), (), (items[3],)])
    assert (len(retries), retries.size_bytes) == (4, 1111)
    order = []
    while (retry := retries.first(probe=False)) is not None:
        order.append(retries.pop(retry))
    assert order == [(items[2],), (items[3],), (items[0], items[1])]
    assert (len(retries), retries.size_bytes) == (0, 0)
    assert [item.retry for item in items] == [None] * 4


def test_suspects_and_others_are_told_apart(make_item: Make) -> None:
    retries = Retries()
    plain, suspect, another = make_item(), make_item(), make_item()
    retries.add([(plain,)])
    retries.add([(suspect,), (another,)], probe=True)
    first, other = retries.first(probe=True), retries.first(probe=False)
    assert first is not None
    assert other is not None
    assert (first.items, first.probe) == ((suspect,), True)
    assert (other.items, other.probe) == ((plain,), False)
    assert suspect.retry is first
    assert (len(retries), retries.suspects) == (3, 2)


def test_one_that_leaves_takes_the_others_of_its_batch_not_with_it(make_item: Make) -> None:
    retries = Retries()
    first, second, third = (make_item(size_bytes=size) for size in (1, 10, 100))
    retries.add([(first, second), (third,)])
    retries.remove(first)
    assert (len(retries), retries.size_bytes, first.retry) == (2, 110, None)
    retry = second.retry
    assert retry is not None
    assert retry.items == (second,)
    retries.remove(second)
    assert (len(retries), retries.size_bytes) == (1, 100)
    left = retries.first(probe=False)
    assert left is not None
    assert left.items == (third,)


def test_the_oldest_is_the_one_that_was_taken_first(make_item: Make) -> None:
    retries = Retries()
    assert retries.oldest_s() is None
    items = [make_item() for _ in range(3)]
    for item, at_s in zip(items, (5.0, 3.0, 4.0), strict=True):
        item.accepted_s = at_s
    retries.add([(items[0], items[1]), (items[2],)])
    assert retries.oldest_s() == 3.0
    retries.remove(items[1])
    assert retries.oldest_s() == 4.0
