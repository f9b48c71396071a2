"""The record of an item: where it has been, told in seconds since it was taken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sluiceway_runtime.pool.policy.items import Batch, Item

Make = Callable[..., Item]


@pytest.mark.parametrize(
    ("count", "shown"),
    [(1, "worker 2 alone (batch 7)"), (2, "worker 2 with 1 other (batch 7)"), (3, "worker 2 with 2 others (batch 7)")],
)
def test_a_batch_says_where_it_is_and_how_large(make_item: Make, count: int, shown: str) -> None:
    assert str(Batch(7, 2, tuple(make_item() for _ in range(count)), False, 0.0)) == shown


def test_the_story_of_an_item(make_item: Make) -> None:
    item, mate = make_item(), make_item()
    item.accepted_s = 10.0
    assert item.story(10.5) == "0.5 s: now"
    batch = Batch(1, 0, (item, mate), False, 10.25)
    item.batch = batch
    assert item.story(11.0) == "0.25 s: to worker 0 with 1 other (batch 1); 1 s: now"
    batch.over()
    item.came_back(batch, "it was lost", 12.0)
    assert item.batch is mate.batch is None
    again = item.batch = Batch(2, 1, (item,), True, 12.5)
    item.came_back(again, "it hung", 13.0)
    again.over()
    assert item.story(14.0) == (
        "0.25 s: to worker 0 with 1 other (batch 1); 2 s: it was lost; "
        "2.5 s: to worker 1 alone (batch 2); 3 s: it hung; 4 s: now"
    )
    assert mate.story(14.0) == "14 s: now"
