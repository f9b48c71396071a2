"""Dead, stuck, growing and unstartable workers, and what becomes of the items that were with them."""

from __future__ import annotations

import pytest
from sluiceway_runtime.errors import DeadlineExceeded, InvalidImage, ModelFailed, Quarantined, Unavailable
from sluiceway_runtime.pool.policy import events
from sluiceway_runtime.pool.policy.limits import Timing
from sluiceway_runtime.pool.policy.statistics import WorkerState


def test_items_of_a_dead_worker_are_run_again_alone_and_the_killer_is_quarantined(make_desk):
    desk = make_desk(max_batch=4)
    items = [desk.submit() for _ in range(4)]
    killer = items[2]
    desk.tick()
    desk.died()
    while desk.held[0]:
        assert len(desk.held[0][0][1]) == 1
        if killer in desk.held[0][0][1]:
            desk.died()
        else:
            desk.done()
    assert isinstance(desk.error(killer), Quarantined)
    assert [desk.answer(item) for item in items if item != killer] == [str(item) for item in items if item != killer]
    assert any(str(killer) in note and "quarantined" in note for note in desk.notes)
    assert desk.scheduler.counters.quarantined == 1


def test_one_death_of_a_batch_of_one_is_forgiven(make_desk):
    desk = make_desk()
    item = desk.submit()
    desk.tick()
    desk.died()
    desk.done()
    assert desk.answer(item) == str(item)


def test_a_quarantined_item_is_refused_when_it_comes_back_and_others_of_its_size_are_not(make_desk):
    desk = make_desk()
    desk.submit(content="deadly", size=9)
    desk.tick()
    desk.died()
    desk.died()
    again = desk.submit(content="deadly", size=9)
    assert isinstance(desk.error(again), Quarantined)
    assert desk.answer(desk.submit(content="harmless", size=9)) is None


def test_suspects_go_before_what_is_queued(make_desk):
    desk = make_desk()
    suspect, waiting = desk.submit(), desk.submit()
    desk.tick()
    desk.died()
    assert desk.batches()[-1] == (suspect,)
    desk.done()
    assert desk.batches()[-1] == (waiting,)


def test_only_the_batch_being_computed_is_suspect(make_desk):
    desk = make_desk(credits_each=3)
    first, second, third = (desk.submit() for _ in range(3))
    desk.tick()
    desk.done()
    desk.died()
    # The second began when the first ended; the third had not.
    assert desk.batches()[3:] == [(second,)]
    desk.died()
    assert isinstance(desk.error(second), Quarantined)
    desk.done()
    assert (desk.answer(first), desk.answer(third)) == (str(first), str(third))


def test_what_never_reached_a_dead_worker_has_no_part_in_its_end(make_desk):
    desk = make_desk(workers=2)
    item = desk.submit()
    desk.tick()
    holder = next(worker for worker, batches in desk.held.items() if batches)
    desk.died(holder, back=False)
    # The suspect went to the other worker, which was killed with the first one and had not been missed yet.
    other = 1 - holder
    assert desk.held[other]
    desk.died(other, undelivered=1)
    for worker in (0, 1):
        while desk.held[worker]:
            desk.done(worker)
    assert desk.answer(item) == str(item)


def test_a_suspect_is_alone_with_its_worker_whatever_its_credits(make_desk):
    desk = make_desk(credits_each=3)
    suspect = desk.submit()
    for _ in range(5):
        desk.submit()
    desk.tick()
    desk.died()
    assert [batch for _, batch in desk.held[0]] == [(suspect,)]
    desk.done()
    assert len(desk.held[0]) == 3


def test_a_suspect_gets_an_idle_worker_even_if_all_are_always_busy(make_desk):
    desk = make_desk(workers=2, credits_each=2)
    suspect = desk.submit()
    desk.tick()
    for _ in range(10):
        desk.submit()
        desk.tick()
    desk.died(0, back=False)  # the other one is full, and more waits
    assert (suspect,) not in [batch for _, batch in desk.held[1]]
    for _ in range(2):
        desk.done(1)
    assert (suspect,) in [batch for _, batch in desk.held[1]]
    assert len(desk.held[1]) == 1


def test_at_most_half_the_workers_are_risked_for_suspects(make_desk):
    desk = make_desk(workers=4, max_batch=8)
    for _ in range(8):
        desk.submit(group="g")
    desk.tick()
    for worker in range(4):
        desk.died(worker)
    assert sum(len(held) for held in desk.held.values()) == 2
    fresh = desk.submit()
    desk.tick()
    assert desk.batches()[-1] == (fresh,)


def test_a_suspect_whose_deadline_passes_is_not_run_again(make_desk):
    desk = make_desk()
    item = desk.submit(within=1.0)
    desk.tick()
    desk.died(back=False)
    desk.tick(1.0)
    assert isinstance(desk.error(item), DeadlineExceeded)
    desk.feed(events.WorkerReady(0))
    assert len(desk.batches()) == 1


def test_a_cancelled_suspect_takes_no_room(make_desk):
    desk = make_desk(max_batch=2)
    dropped, kept = desk.submit(size=30), desk.submit(size=12)
    desk.tick()
    desk.died(back=False)
    assert (desk.scheduler.queued, desk.scheduler.queued_bytes) == (2, 42)
    desk.cancel(dropped)
    assert (desk.scheduler.queued, desk.scheduler.queued_bytes) == (1, 12)
    desk.feed(events.WorkerReady(0))
    desk.done()
    assert desk.answer(kept) == str(kept)
    assert (desk.scheduler.queued, desk.scheduler.queued_bytes) == (0, 0)


def test_a_ghost_that_was_with_a_dead_worker_comes_back_only_alone(make_desk):
    desk = make_desk(max_batch=4)
    desk.submit(within=1.0, content="ghost")
    desk.submit()
    desk.tick()
    desk.tick(1.0)  # the first is answered: too late
    desk.died()
    desk.done()  # the second, alone
    blocker = desk.submit()
    desk.tick()
    again, mate = desk.submit(content="ghost"), desk.submit()
    desk.done()
    assert desk.batches()[-2:] == [(blocker,), (again,)]
    desk.done()
    assert desk.batches()[-1] == (mate,)
    desk.done()
    # It has shown itself harmless, so the next time it may share.
    desk.submit()
    desk.tick()
    once_more, friend = desk.submit(content="ghost"), desk.submit()
    desk.done()
    assert desk.batches()[-1] == (once_more, friend)


@pytest.mark.parametrize("outcome", ["error", "raise"])
def test_a_suspect_that_fails_without_killing_is_acquitted(make_desk, outcome):
    desk = make_desk()
    item = desk.submit(content="x")
    desk.tick()
    desk.died()
    if outcome == "error":
        desk.done(errors={item: InvalidImage("no")})
        assert isinstance(desk.error(item), InvalidImage)
    else:
        desk.raised()
        assert isinstance(desk.error(item), ModelFailed)
    assert desk.answer(desk.submit(content="x")) is None


def test_a_hung_worker_is_killed_and_its_items_are_suspects(make_desk):
    desk = make_desk(batch_timeout_s=5.0, max_batch=2)
    hanging, mate = desk.submit(), desk.submit()
    desk.tick()
    assert desk.scheduler.next_wakeup(desk.now) == pytest.approx(desk.now + 5.0)
    desk.tick(4.9)
    assert ("kill", 0) not in desk.orders
    desk.tick(0.2)
    assert desk.orders[-1] == ("kill", 0)
    assert desk.state() is WorkerState.KILLED
    desk.died()
    assert any("more than 5 s" in note for note in desk.notes)
    desk.tick(5.0)
    desk.died()
    assert isinstance(desk.error(hanging), Quarantined)
    desk.done()
    assert desk.answer(mate) == str(mate)


def test_the_time_of_a_batch_counts_from_its_turn_not_from_its_sending(make_desk):
    desk = make_desk(batch_timeout_s=5.0, credits_each=2)
    desk.submit()
    second = desk.submit()
    desk.tick()
    desk.done(after=4.0)
    desk.tick(4.9)
    assert desk.state() is WorkerState.READY
    desk.tick(0.2)
    assert desk.state() is WorkerState.KILLED
    desk.died()
    desk.done()
    assert desk.answer(second) == str(second)


def test_the_result_of_a_worker_that_was_killed_too_late_still_counts(make_desk):
    desk = make_desk(batch_timeout_s=5.0)
    item = desk.submit()
    desk.tick()
    desk.tick(5.0)
    desk.done()
    desk.died()
    assert desk.answer(item) == str(item)
    assert len(desk.batches()) == 1


def test_restarts_wait_longer_and_longer_until_a_batch_is_done(make_desk):
    timing = Timing(restart_delay_s=1.0, restart_delay_max_s=3.0)
    desk = make_desk(timing=timing)
    waits = []
    for _ in range(5):
        desk.died(back=False)
        begun = desk.now
        while desk.state() is WorkerState.BACKOFF:
            wakeup = desk.scheduler.next_wakeup(desk.now)
            desk.tick(wakeup - desk.now)
        waits.append(desk.now - begun)
        desk.feed(events.WorkerReady(0))
    assert waits == [0.0, 1.0, 2.0, 3.0, 3.0]
    desk.submit()
    desk.tick()
    desk.done()
    desk.died(back=False)
    assert desk.state() is WorkerState.STARTING


def test_with_no_worker_to_be_had_items_are_refused_and_later_taken_again(make_desk):
    desk = make_desk(timing=Timing(restart_delay_s=1.0))
    waiting = desk.submit()
    desk.tick()
    desk.died(back=False)
    refused = desk.error(desk.submit())  # a start is under way, and nobody knows how it ends
    assert isinstance(refused, Unavailable)
    assert refused.retry_after_s == pytest.approx(0.02)
    assert desk.answer(waiting) is None  # what was taken before is kept
    desk.died(back=False)
    assert desk.error(desk.submit()).retry_after_s == pytest.approx(1.0)
    desk.tick(1.0)
    desk.feed(events.WorkerReady(0))
    taken = desk.submit()
    desk.done()
    desk.done()
    assert [desk.answer(item) for item in (waiting, taken)] == [str(waiting), str(taken)]


def test_a_setup_that_raises_gives_up_the_start_at_once_with_its_message(make_desk):
    desk = make_desk(workers=2, start=False)
    desk.feed(events.StartRequested())
    assert desk.orders == [("start", 0), ("start", 1)]
    desk.feed(events.SetupFailed(1, "no such weights"))
    assert desk.gave_up == ["no such weights"]


def test_a_worker_that_dies_at_start_is_tried_a_few_times(make_desk):
    desk = make_desk(start=False, timing=Timing(start_attempts=3, restart_delay_s=0.5))
    desk.feed(events.StartRequested())
    for _ in range(2):
        desk.died(back=False)
        desk.tick(10.0)
    assert desk.gave_up == []
    desk.died(back=False)
    assert len(desk.gave_up) == 1
    assert "SIGKILL" in desk.gave_up[0]
    assert desk.orders == [("start", 0)] * 3


def test_a_worker_that_is_not_ready_in_time_is_killed(make_desk):
    desk = make_desk(start=False, start_timeout_s=2.0, timing=Timing(start_attempts=1))
    desk.feed(events.StartRequested())
    desk.tick(2.0)
    assert desk.orders[-1] == ("kill", 0)
    desk.feed(events.WorkerReady(0))  # a moment too late
    assert not desk.scheduler.complete
    desk.died()
    assert "not ready after 2 s" in desk.gave_up[0]


def test_a_memory_limit_below_what_a_fresh_worker_needs_fails_the_start(make_desk):
    desk = make_desk(start=False, worker_memory_mb=100)
    desk.feed(events.StartRequested())
    desk.feed(events.WorkerReady(0, 150 * 2**20))
    assert "150 MB" in desk.gave_up[0]
    assert not desk.scheduler.complete


def test_a_worker_above_its_memory_limit_finishes_what_it_holds_and_is_replaced(make_desk):
    desk = make_desk(credits_each=2, worker_memory_mb=100)
    items = [desk.submit() for _ in range(4)]
    desk.tick()
    desk.done(memory_mb=150)
    assert desk.state() is WorkerState.RETIRING
    assert len(desk.held[0]) == 1  # nothing new is sent
    desk.done(memory_mb=150)
    assert desk.orders[-1] == ("stop", 0)
    desk.feed(events.WorkerLeaving(0))
    desk.died()
    desk.done()
    desk.done()
    assert [desk.answer(item) for item in items] == [str(item) for item in items]
    counters = desk.scheduler.counters
    assert (counters.recycled, counters.deaths) == (1, 0)


def test_workers_are_recycled_one_at_a_time(make_desk):
    desk = make_desk(workers=2, worker_memory_mb=100)
    for _ in range(6):
        desk.submit()
    desk.tick()
    desk.done(0, memory_mb=150)
    assert desk.orders[-1] == ("stop", 0)
    desk.done(1, memory_mb=150)
    assert desk.state(1) is WorkerState.READY
    desk.died(0)
    desk.done(1, memory_mb=150)
    assert desk.orders[-1] == ("stop", 1)


def test_a_worker_told_by_others_to_leave_loses_nothing_and_nobody_is_suspected(make_desk):
    desk = make_desk(credits_each=2, max_batch=2)
    items = [desk.submit() for _ in range(6)]
    desk.tick()
    desk.done()
    left = desk.held[0][:]
    desk.feed(events.WorkerLeaving(0))
    desk.held[0].clear()
    assert desk.state() is WorkerState.STOPPING
    desk.died()
    assert desk.batches()[-len(left) :][0] == left[0][1]  # the same batch again, not item by item
    while desk.held[0]:
        desk.done()
    assert [desk.answer(item) for item in items] == [str(item) for item in items]


def test_a_leaving_worker_that_does_not_end_is_killed(make_desk):
    desk = make_desk(timing=Timing(stop_grace_s=2.0))
    desk.feed(events.WorkerLeaving(0))
    desk.tick(2.0)
    assert desk.orders[-1] == ("kill", 0)
    desk.died(back=False)
    assert desk.state() is WorkerState.STARTING
