"""Which items go when, where and with whom."""

from __future__ import annotations

import pytest
from sluiceway_runtime.pool.policy import events
from sluiceway_runtime.pool.policy.limits import Timing
from sluiceway_runtime.pool.policy.queue import PACKET_ITEMS
from sluiceway_runtime.priority import Priority


def test_nothing_is_dispatched_before_the_next_event_so_that_a_burst_shares_a_batch(make_desk):
    desk = make_desk(max_batch=4)
    first, second, third = (desk.submit() for _ in range(3))
    assert desk.dispatched == []
    desk.tick()
    assert desk.batches() == [(first, second, third)]


def test_an_idle_worker_never_waits_for_a_batch_to_fill(make_desk):
    desk = make_desk(max_batch=8)
    only = desk.submit()
    desk.tick()
    assert desk.batches() == [(only,)]


def test_what_came_while_the_worker_was_busy_is_the_next_batch(make_desk):
    desk = make_desk(max_batch=3)
    first = desk.submit()
    desk.tick()
    waiting = [desk.submit() for _ in range(4)]
    desk.tick()
    assert desk.batches() == [(first,)]
    desk.done()
    assert desk.batches() == [(first,), tuple(waiting[:3])]


def test_idle_workers_share_what_waits(make_desk):
    desk = make_desk(workers=3, max_batch=8)
    for _ in range(7):
        desk.submit()
    desk.tick()
    assert [len(batch) for batch in desk.batches()] == [3, 2, 2]
    assert {worker for worker, _ in desk.dispatched} == {0, 1, 2}


def test_where_a_batch_gains_nothing_workers_end_together(make_desk):
    desk = make_desk(workers=2, max_batch=16, side_by_side=1)
    items = desk.submit_many(9)
    desk.tick()
    # The first items take four times as long as the rest.
    length = {item: 4.0 if item in items[:3] else 1.0 for item in items}
    ends = {worker: desk.now + sum(length[item] for item in held[0][1]) for worker, held in desk.held.items() if held}
    while ends:
        worker = min(ends, key=ends.get)
        after = ends.pop(worker) - desk.now
        desk.done(worker, after=after)
        if desk.held[worker]:
            ends[worker] = desk.now + sum(length[item] for item in desk.held[worker][0][1])
    assert [len(batch) for batch in desk.batches()] == [3, 2, 1, 1, 1, 1]
    # Eighteen in all, nine for each at best; in halves of what waits one would have worked for fourteen.
    assert desk.now == 112.0


def test_batches_do_not_shrink_below_what_a_worker_computes_at_once(make_desk):
    desk = make_desk(workers=2, max_batch=16, side_by_side=4)
    desk.submit_many(10)
    desk.tick()
    while any(desk.held.values()):
        desk.done(min(worker for worker, held in desk.held.items() if held))
    assert [len(batch) for batch in desk.batches()] == [4, 4, 2]


def test_batches_of_a_full_queue_are_full_whether_they_gain_or_not(make_desk):
    desk = make_desk(workers=2, max_batch=16, side_by_side=1)
    desk.submit_many(100)
    desk.tick()
    assert [len(batch) for batch in desk.batches()] == [16, 16]


def test_a_single_worker_has_nobody_to_end_together_with(make_desk):
    desk = make_desk(workers=1, max_batch=16, side_by_side=1)
    desk.submit_many(9)
    desk.tick()
    assert [len(batch) for batch in desk.batches()] == [9]


def test_the_worker_whose_caches_are_warm_is_next(make_desk):
    desk = make_desk(workers=3)
    served = []
    for _ in range(4):
        desk.submit()
        desk.tick()
        worker, _ = desk.dispatched[-1]
        served.append(worker)
        desk.done(worker, after=0.01)
    assert len(set(served)) == 1, "one request at a time stays with one worker"
    cold, warm = {0, 1, 2} - set(served), served[-1]
    for _ in range(2):
        desk.submit()
        desk.tick()
    first, second = (worker for worker, _ in desk.dispatched[-2:])
    assert first == warm
    assert second in cold, "and a second one does not wait for it"


def test_only_items_of_one_group_share_a_batch_and_the_oldest_goes_first(make_desk):
    desk = make_desk(max_batch=4)
    blocker = desk.submit(group="z")
    desk.tick()
    a1, b1, a2, b2 = (desk.submit(group=group) for group in "abab")
    desk.done()
    desk.done()
    assert desk.batches() == [(blocker,), (a1, a2), (b1, b2)]


def test_groups_need_not_be_comparable(make_desk):
    desk = make_desk(max_batch=4)
    for group in (None, 1, "a", (1, "a")):
        desk.submit(group=group)
    for _ in range(4):
        desk.tick()
        desk.done()
    assert len(desk.batches()) == 4


def test_cost_bounds_a_batch_and_an_item_above_the_bound_goes_alone(make_desk):
    desk = make_desk(max_batch=8, max_batch_cost=10)
    small, middle, huge, last = (desk.submit(cost=cost) for cost in (4, 6, 50, 1))
    for _ in range(3):
        desk.tick()
        desk.done()
    assert desk.batches() == [(small, middle), (huge,), (last,)]


def test_requests_alternate_however_many_items_each_has(make_desk):
    desk = make_desk()
    desk.submit(request="blocker")
    desk.tick()
    many = [desk.submit(request="many") for _ in range(4)]
    few = [desk.submit(request="few") for _ in range(2)]
    for _ in range(7):
        desk.done()
    assert [batch[0] for batch in desk.batches()[1:]] == [many[0], few[0], many[1], few[1], many[2], many[3]]


def test_equal_requests_are_served_one_after_the_other(make_desk):
    """Taking turns by item, all would be done at the end, at once, and the queue would be empty then."""
    desk = make_desk(max_batch=8)
    first, second, third = (desk.submit_many(16, request=request) for request in "abc")
    for _ in range(6):
        desk.tick()
        desk.done()
    assert [item for batch in desk.batches() for item in batch] == [*first, *second, *third]


def test_requests_that_have_waited_long_are_still_served_one_after_the_other(make_desk):
    desk = make_desk(max_batch=8, timing=Timing(ageing_s=2.0))
    first, second = (desk.submit_many(16, request=request) for request in "ab")
    desk.now += 3.0
    for _ in range(4):
        desk.tick()
        desk.done()
    assert [item for batch in desk.batches() for item in batch] == [*first, *second]


def test_what_was_cancelled_is_no_turn_of_its_request(make_desk):
    desk = make_desk(max_batch=8, queue_items=2000)
    desk.submit_many(8, request="blocker")
    desk.tick()
    desk.submit_many(1, request="a")
    cancelled = desk.submit_many(1000, request="a")
    desk.scheduler.on_event(events.CancelRequested(cancelled), desk.now)
    desk.submit_many(640, request="b")
    wanted = desk.submit_many(64, request="a")
    for _ in range(200 // 8):
        desk.done()
    assert set(wanted) <= {item for batch in desk.batches() for item in batch}


def test_a_small_request_does_not_wait_for_the_large_ones_before_it(make_desk):
    desk = make_desk(max_batch=8)
    for request in "abc":
        desk.submit_many(64, request=request)
    desk.tick()
    small = desk.submit_many(3, request="small")
    desk.done()
    assert set(small) <= set(desk.batches()[1])


def test_a_large_request_is_passed_by_one_that_came_later_at_a_packet(make_desk):
    desk = make_desk(max_batch=8, queue_items=1000)
    large = desk.submit_many(5 * PACKET_ITEMS, request="large")
    later = desk.submit_many(2 * PACKET_ITEMS, request="later")
    for _ in range(7 * PACKET_ITEMS // 8):
        desk.tick()
        desk.done()
    served = [item for batch in desk.batches() for item in batch]
    assert served[: 4 * PACKET_ITEMS] == [
        *large[:PACKET_ITEMS],
        *later[:PACKET_ITEMS],
        *large[PACKET_ITEMS : 2 * PACKET_ITEMS],
        *later[PACKET_ITEMS:],
    ]
    assert sorted(served) == [*large, *later]


def test_ever_new_small_requests_do_not_starve_a_large_one(make_desk):
    desk = make_desk(max_batch=8)
    large = set(desk.submit_many(PACKET_ITEMS, request="large"))
    desk.tick()
    for number in range(40 * PACKET_ITEMS):
        desk.submit_many(8, request=f"small {number}")
        desk.done()
        large -= set(desk.batches()[-2])
        if not large:
            break
    assert not large


def test_a_newcomer_is_served_in_the_next_round(make_desk):
    desk = make_desk()
    for _ in range(50):
        desk.submit(request="many")
    desk.tick()
    for _ in range(20):
        desk.done()
    late = desk.submit(request="late")
    desk.done()
    desk.done()
    assert (late,) in desk.batches()[-2:]


def test_ever_new_requests_do_not_starve_one_that_has_much_queued(make_desk):
    desk = make_desk()
    many = [desk.submit(request="many", priority=Priority.INTERACTIVE) for _ in range(10)]
    desk.tick()
    # Newcomers arrive as fast as items are finished, so each round is one longer than the last: 1 + 2 + ... + 10.
    for number in range(60):
        desk.submit(request=f"new {number}", priority=Priority.INTERACTIVE)
        desk.done()
    assert {(item,) for item in many} <= set(desk.batches())


def test_a_group_of_a_busy_request_is_not_starved_by_its_own_fillers(make_desk):
    desk = make_desk(max_batch=2)
    rare = desk.submit(request="stream", group="rare")
    for round_number in range(6):
        for request in ("stream", "other", f"new{round_number}"):
            desk.submit(request=request, group="common")
        desk.tick()
        desk.done()
    assert any(rare in batch for batch in desk.batches()[:2])


def test_priority_classes_go_in_order(make_desk):
    desk = make_desk()
    desk.submit()
    desk.tick()
    order = [desk.submit(priority=priority) for priority in (Priority.BULK, Priority.NORMAL, Priority.INTERACTIVE)]
    for _ in range(3):
        desk.done()
    assert [batch[0] for batch in desk.batches()[1:]] == order[::-1]


def test_room_in_a_batch_is_filled_from_the_classes_below(make_desk):
    desk = make_desk(max_batch=3)
    bulk = desk.submit(priority=Priority.BULK)
    urgent = desk.submit(priority=Priority.INTERACTIVE)
    desk.tick()
    assert desk.batches() == [(urgent, bulk)]


def test_ageing_lifts_a_bulk_item_past_a_steady_interactive_load(make_desk):
    desk = make_desk(timing=Timing(ageing_s=1.0))
    desk.submit(priority=Priority.INTERACTIVE)
    desk.tick()
    bulk = desk.submit(priority=Priority.BULK)
    served_after = None
    for step in range(40):
        desk.submit(priority=Priority.INTERACTIVE, request=f"i{step}")
        desk.submit(priority=Priority.INTERACTIVE, request=f"j{step}")
        desk.done(after=0.1)
        if (bulk,) in desk.batches():
            served_after = desk.now - 100.0
            break
    assert served_after is not None
    assert served_after > 2.0  # two classes up, one ageing time each: not before


@pytest.mark.parametrize(("queued", "sent_ahead"), [(1, False), (3, False), (4, True), (9, True)])
def test_a_busy_worker_gets_a_batch_ahead_only_while_a_full_one_waits(make_desk, queued, sent_ahead):
    desk = make_desk(credits_each=2, max_batch=4)
    desk.submit()
    desk.tick()
    for _ in range(queued):
        desk.submit()
    desk.tick()
    assert len(desk.batches()) == (2 if sent_ahead else 1)
    if sent_ahead:
        assert len(desk.batches()[1]) == 4


def test_credits_bound_what_a_worker_holds(make_desk):
    desk = make_desk(workers=2, credits_each=3)
    for _ in range(20):
        desk.submit()
    desk.tick()
    assert [len(desk.held[worker]) for worker in (0, 1)] == [3, 3]


def test_an_idle_worker_is_preferred_to_one_with_a_spare_credit(make_desk):
    desk = make_desk(workers=2, credits_each=2)
    desk.submit()
    desk.tick()
    desk.submit()
    desk.tick()
    assert [worker for worker, _ in desk.dispatched] == [0, 1]
