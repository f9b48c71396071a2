"""Several batches begun at once, and items that come many at a time."""

from __future__ import annotations

import pytest
from sluiceway_runtime.errors import DeadlineExceeded, Quarantined, QueueFull, Unavailable
from sluiceway_runtime.pool.policy import events
from sluiceway_runtime.pool.spec import WorkerSpec


def in_hand(desk, worker=0):
    return [item_ids for _, item_ids in desk.held[worker]]


def test_all_batches_that_a_dead_worker_had_begun_are_suspects(make_desk):
    desk = make_desk(credits_each=3, overlap=2, max_batch=2)
    items = [desk.submit() for _ in range(6)]
    desk.tick()
    assert in_hand(desk) == [tuple(items[:2]), tuple(items[2:4]), tuple(items[4:])]
    desk.died()
    alone = []
    while len(alone) < 4:
        # One at a time, and nothing beside it.
        (batch,) = in_hand(desk)
        assert len(batch) == 1
        alone += batch
        desk.done()
    assert alone == items[:4]
    # The third batch had not begun: it is run again as it was.
    assert in_hand(desk) == [tuple(items[4:])]
    desk.done()
    assert [desk.answer(item) for item in items] == [str(item) for item in items]


def test_without_overlap_only_the_first_batch_is_suspect(make_desk):
    desk = make_desk(credits_each=3, overlap=1, max_batch=2)
    items = [desk.submit() for _ in range(6)]
    desk.tick()
    desk.died()
    assert in_hand(desk) == [(items[0],)]
    desk.done()
    desk.done()
    assert in_hand(desk)[0] == tuple(items[2:4])


def test_a_killer_in_the_second_begun_batch_is_found_and_its_company_succeeds(make_desk):
    desk = make_desk(credits_each=2, overlap=2, max_batch=2)
    items = [desk.submit() for _ in range(4)]
    killer = items[3]
    desk.tick()
    desk.died()
    while desk.held[0]:
        if in_hand(desk) == [(killer,)]:
            desk.died()
        else:
            desk.done()
    assert isinstance(desk.error(killer), Quarantined)
    assert [desk.answer(item) for item in items[:3]] == [str(item) for item in items[:3]]
    assert desk.scheduler.counters.quarantined == 1


def test_what_nobody_waits_for_in_a_begun_batch_is_remembered_as_a_suspect(make_desk):
    desk = make_desk(credits_each=2, overlap=2, workers=2)
    # Two batches for each worker.
    items = [desk.submit(content=f"c{number}", size=7) for number in range(4)]
    desk.tick()
    desk.cancel(items[2])
    assert (items[2],) in in_hand(desk, 0)
    desk.died(0)
    again = desk.submit(content="c2", size=7)
    desk.tick()
    while desk.answer(again) is None:
        for worker in (0, 1):
            if desk.held[worker]:
                if (again,) in in_hand(desk, worker):
                    assert in_hand(desk, worker) == [(again,)], "a suspect is run alone"
                desk.done(worker)


def test_a_second_begun_batch_has_its_time_from_when_it_could_begin(make_desk):
    desk = make_desk(credits_each=3, overlap=2, batch_timeout_s=10.0)
    for _ in range(3):
        desk.submit()
    desk.tick()
    desk.done(after=6.0)  # the second has run for 6 s, the third begins now
    assert desk.scheduler.next_wakeup(desk.now) == pytest.approx(104.0 + 6.0)
    desk.done(after=3.0)
    # The third began at 106.
    assert desk.scheduler.next_wakeup(desk.now) == pytest.approx(116.0)
    desk.tick(7.1)
    assert ("kill", 0) in desk.orders


def test_overlapping_batches_do_not_make_a_worker_look_slow(make_desk):
    desk = make_desk(credits_each=2, overlap=2)
    for _ in range(6):
        desk.submit()
    desk.tick()
    for _ in range(6):
        desk.done(after=1.0)
    # Each spent two seconds with the worker, of which one beside the batch before it.
    assert desk.scheduler.item_s == pytest.approx(1.0)


@pytest.mark.parametrize(("credits_each", "overlap"), [(1, 2), (2, 0), (2, 3)])
def test_overlap_lies_within_the_credits(credits_each, overlap):
    with pytest.raises(ValueError, match="overlap"):
        WorkerSpec("a:b", {}, (None,), credits_each, overlap)


def test_items_that_come_together_share_a_batch_and_one_answer(make_desk):
    desk = make_desk(max_batch=8)
    items = desk.submit_many(5)
    desk.tick()
    assert desk.batches() == [tuple(items)]
    batch_id, _ = desk.held[0][0]
    (action,) = desk.feed(events.BatchDone(0, batch_id, ("a",) * 5, 1.0))
    assert [item.id for item in action.items] == items


def test_when_there_is_no_more_room_the_rest_is_refused_with_one_error(make_desk):
    desk = make_desk(queue_items=3)
    items = desk.submit_many(5)
    assert [desk.answer(item) for item in items[:3]] == [None] * 3
    assert isinstance(desk.error(items[3]), QueueFull)
    assert desk.error(items[3]) is desk.error(items[4])
    assert desk.scheduler.counters.refused == 2


def test_bytes_are_counted_item_by_item(make_desk):
    desk = make_desk(queue_bytes=100)
    items = desk.submit_many(4, size=40)
    assert [desk.answer(item) is None for item in items] == [True, True, False, False]
    assert desk.scheduler.queued_bytes == 80


def test_the_wait_is_reckoned_item_by_item(make_desk):
    desk = make_desk()
    desk.submit()
    desk.tick()
    desk.done(after=1.0)  # a second an item
    items = desk.submit_many(5, within=2.5)
    assert [desk.answer(item) is None for item in items] == [True, True, True, False, False]


def test_a_known_killer_among_others_is_refused_alone(make_desk):
    desk = make_desk(max_batch=4)
    desk.submit(content="deadly", size=9)
    desk.tick()
    desk.died()
    desk.died()
    desk.submit()
    desk.tick()
    desk.done()
    items = desk.submit_many(3, size=9, contents=["a", "deadly", "b"])
    assert isinstance(desk.error(items[1]), Quarantined)
    assert [desk.answer(items[0]), desk.answer(items[2])] == [None, None]
    desk.tick()
    assert desk.batches()[-1] == (items[0], items[2])


def test_late_items_and_a_stopping_pool_refuse_all(make_desk):
    desk = make_desk()
    assert all(isinstance(desk.error(item), DeadlineExceeded) for item in desk.submit_many(3, within=0.0))
    desk.feed(events.DrainRequested())
    assert all(isinstance(desk.error(item), Unavailable) for item in desk.submit_many(3))
    assert desk.scheduler.unanswered == 0


def test_one_deadline_of_many_items_fails_those_that_have_no_answer(make_desk):
    desk = make_desk(max_batch=2)
    items = desk.submit_many(6, within=5.0)
    desk.tick()
    desk.done(after=1.0)
    assert desk.scheduler.next_wakeup(desk.now) == pytest.approx(105.0)
    desk.tick(4.0)
    assert [desk.answer(item) for item in items[:2]] == [str(item) for item in items[:2]]
    assert all(isinstance(desk.error(item), DeadlineExceeded) for item in items[2:])
    assert desk.scheduler.unanswered == desk.scheduler.queued == 0


def test_many_items_cancelled_at_once_leave_no_trace(make_desk):
    desk = make_desk(max_batch=2)
    items = desk.submit_many(6)
    desk.tick()
    desk.feed(events.CancelRequested(items))
    desk.done()
    assert desk.answers == {}
    assert desk.scheduler.unanswered == desk.scheduler.queued == desk.scheduler.queued_bytes == 0
    assert desk.scheduler.counters.cancelled == 6
