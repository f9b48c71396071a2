"""What is with a worker that has not begun it yet: when it is sent there, and how it is taken back."""

from __future__ import annotations

import pytest
from sluiceway_runtime.errors import QueueFull, Unavailable
from sluiceway_runtime.pool import Priority
from sluiceway_runtime.pool.policy import actions, events


def of_kind(done, kind):
    return [action for action in done if isinstance(action, kind)]


def test_what_nobody_waits_for_is_taken_back_from_a_worker_that_has_not_begun_it(make_desk):
    desk = make_desk(credits_each=3, max_batch=4)
    items = desk.submit_many(16)
    desk.tick()
    (first, _), (second, _), (third, _) = desk.held[0]
    recalled = of_kind(desk.feed(events.CancelRequested(items)), actions.Recall)
    # The first one is being computed, and runs to its end.
    assert [(recall.worker, recall.batch_id, recall.positions) for recall in recalled] == [
        (0, second, (0, 1, 2, 3)),
        (0, third, (0, 1, 2, 3)),
    ]
    assert first not in {recall.batch_id for recall in recalled}
    assert desk.scheduler.unanswered == 0


def test_of_a_batch_that_others_still_want_only_the_unwanted_is_taken_back(make_desk):
    desk = make_desk(credits_each=2, max_batch=2)
    items = desk.submit_many(4)
    desk.tick()
    (recall,) = of_kind(desk.feed(events.CancelRequested([items[2]])), actions.Recall)
    assert (recall.batch_id, recall.positions) == (desk.held[0][1][0], (0,))
    desk.done()
    desk.done()
    assert [desk.answer(item) for item in (items[0], items[1], items[3])] == [str(items[i]) for i in (0, 1, 3)]


def test_what_is_late_is_taken_back_as_well(make_desk):
    desk = make_desk(credits_each=2, max_batch=2)
    desk.submit_many(2)
    desk.tick()
    desk.submit_many(2, within=5.0)
    desk.tick()
    assert len(desk.held[0]) == 2
    desk.now += 5.0
    (recall,) = of_kind(desk.feed(events.Tick()), actions.Recall)
    assert recall.positions == (0, 1)


def test_what_was_taken_back_is_no_batch_that_was_computed(make_desk):
    desk = make_desk(credits_each=2, max_batch=2)
    items = desk.submit_many(4)
    desk.tick()
    desk.feed(events.CancelRequested(items))
    desk.done(after=1.0)
    rate = desk.scheduler.item_s
    batch_id, _ = desk.held[0].pop(0)
    desk.now += 0.001
    desk.feed(events.BatchDone(0, batch_id, (None, None)))
    (worker,) = desk.scheduler.workers
    assert (worker.items, worker.batches) == (2, 1)
    assert desk.scheduler.item_s == rate


def test_no_small_batch_is_sent_ahead_because_other_groups_have_a_full_one(make_desk):
    desk = make_desk(credits_each=2, max_batch=8)
    desk.submit(group="w0")
    desk.tick()
    for number in range(8):
        desk.submit(group=f"w{number + 1}")
    desk.tick()
    assert len(desk.batches()) == 1
    desk.submit_many(8, group="w1")
    desk.tick()
    assert len(desk.batches()[1]) == 8, "that one is full"


def test_a_batch_that_could_not_be_sent_is_none_that_a_worker_computed(make_desk):
    desk = make_desk()
    desk.died(back=False)
    desk.tick(1.0)
    desk.feed(events.WorkerReady(0))
    desk.submit()
    desk.tick()
    batch_id, _ = desk.held[0].pop()
    desk.feed(events.BatchLost(0, batch_id, Unavailable("short of descriptors")))
    (worker,) = desk.scheduler.workers
    assert (worker.items, worker.batches) == (0, 0)
    # It proves nothing about the worker: what it failed before is not forgotten.
    assert worker.failures == 1


def test_the_queue_is_as_old_as_what_waits_the_longest(make_desk):
    """While workers hang nothing is handed out: the wait of what was handed out last says nothing then."""
    desk = make_desk(workers=2)
    for _ in range(200):
        desk.submit()
    desk.tick()
    for seconds in (1.0, 10.0, 30.0, 59.0):
        desk.now = 100.0 + seconds
        assert desk.scheduler.queue_age_s(desk.now) == pytest.approx(seconds)


def test_the_age_is_that_of_what_is_left(make_desk):
    desk = make_desk(max_batch=2)
    assert desk.scheduler.queue_age_s(desk.now) == 0.0
    items = []
    for _ in range(5):
        items.append(desk.submit())
        desk.now += 1.0
    desk.tick()  # the first two go to the worker
    assert desk.scheduler.queue_age_s(desk.now) == pytest.approx(3.0)
    desk.cancel(items[2])
    assert desk.scheduler.queue_age_s(desk.now) == pytest.approx(2.0)
    desk.tick(3.0)  # ageing moves what waits to another class, and it is not younger for that
    assert desk.scheduler.queue_age_s(desk.now) == pytest.approx(5.0)
    desk.died(back=False)  # what comes back from a worker has waited since it came
    assert desk.scheduler.queue_age_s(desk.now) == pytest.approx(8.0)


def test_bulk_work_cannot_fill_the_queue_for_interactive_work(make_desk):
    desk = make_desk(queue_items=256)
    for request in range(3):
        desk.submit_many(100, request=f"bulk {request}", priority=Priority.BULK)
    desk.tick()
    bulk = [desk.submit(priority=Priority.BULK) for _ in range(2)]
    assert desk.scheduler.queued == 192
    assert isinstance(desk.error(bulk[1]), QueueFull)
    for priority in (Priority.INTERACTIVE, Priority.NORMAL):
        assert desk.answer(desk.submit(priority=priority)) is None


def test_bulk_work_cannot_fill_its_bytes_either(make_desk):
    desk = make_desk(queue_bytes=100)
    items = [desk.submit(size=20, priority=Priority.BULK) for _ in range(5)]
    assert [desk.answer(item) is None for item in items] == [True, True, True, False, False]
    assert desk.answer(desk.submit(size=20, priority=Priority.INTERACTIVE)) is None


def test_one_bulk_request_may_fill_an_empty_queue(make_desk):
    """It is taken whole or not at all: with less room than that it would be refused for ever."""
    desk = make_desk(queue_items=8)
    items = desk.submit_many(8, priority=Priority.BULK)
    assert [desk.answer(item) for item in items] == [None] * 8
    assert isinstance(desk.error(desk.submit(priority=Priority.BULK)), QueueFull)


def test_items_of_many_groups_are_sent_ahead_where_they_mix(make_desk):
    """Crops of words are of as many widths as a page has words: no group of theirs is a good part of a batch."""
    desk = make_desk(credits_each=2, max_batch=8, mixes=True)
    for group in range(24):
        desk.submit(group=group)
    desk.tick()
    assert [len(batch) for batch in desk.batches()] == [8, 8]
