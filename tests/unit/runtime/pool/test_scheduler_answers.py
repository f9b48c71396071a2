"""What an item is answered, and when: refusals, deadlines, cancellation, errors."""

from __future__ import annotations

import pytest
from sluiceway_runtime.errors import (
    DeadlineExceeded,
    InvalidImage,
    ModelFailed,
    QueueFull,
    Unavailable,
)
from sluiceway_runtime.pool.policy import actions, events
from sluiceway_runtime.pool.policy.limits import Timing
from sluiceway_runtime.priority import Priority


def test_a_result_reaches_its_own_item_with_its_times(make_desk):
    desk = make_desk(max_batch=2)
    first = desk.submit()
    desk.now += 0.2
    second = desk.submit()
    desk.now += 0.3
    desk.tick()
    batch_id, _ = desk.held[0][0]
    done = desk.feed(events.BatchDone(0, batch_id, ("a", "b"), 7.0))
    (told,) = done
    assert isinstance(told, actions.Succeed)
    assert [item.id for item in told.items] == [first, second]
    assert (told.results, told.queue_ms) == (["a", "b"], pytest.approx([500, 300]))
    assert (told.compute_ms, told.worker) == (7.0, 0)


def test_an_error_in_the_list_fails_that_item_alone(make_desk):
    desk = make_desk(max_batch=3)
    good, bad, fine = (desk.submit() for _ in range(3))
    desk.tick()
    desk.done(errors={bad: InvalidImage("broken")})
    assert isinstance(desk.error(bad), InvalidImage)
    assert (desk.answer(good), desk.answer(fine)) == (str(good), str(fine))
    assert len(desk.batches()) == 1


def test_before_start_and_while_starting_items_are_refused(make_desk):
    desk = make_desk(start=False)
    assert isinstance(desk.error(desk.submit()), Unavailable)
    desk.feed(events.StartRequested())
    assert isinstance(desk.error(desk.submit()), Unavailable)
    desk.feed(events.WorkerReady(0))
    assert desk.answer(desk.submit()) is None


def test_the_queue_is_bounded_by_items(make_desk):
    desk = make_desk(queue_items=2)
    desk.submit()
    desk.tick()  # with the worker: does not count
    kept = [desk.submit(), desk.submit()]
    refused = desk.error(desk.submit())
    assert isinstance(refused, QueueFull)
    assert refused.retry_after_s > 0
    assert all(desk.answer(item) is None for item in kept)
    assert desk.scheduler.queued == 2


def test_the_queue_is_bounded_by_bytes_but_takes_one_large_item_when_empty(make_desk):
    desk = make_desk(queue_bytes=100)
    large = desk.submit(size=500)
    assert desk.answer(large) is None
    assert isinstance(desk.error(desk.submit(size=1)), QueueFull)
    desk.tick()
    assert desk.answer(desk.submit(size=60)) is None
    assert isinstance(desk.error(desk.submit(size=41)), QueueFull)
    assert desk.answer(desk.submit(size=40)) is None
    assert desk.scheduler.queued_bytes == 100


def test_retry_after_follows_the_rate_of_service(make_desk):
    desk = make_desk(queue_items=10, timing=Timing(retry_after_max_s=100.0))
    desk.submit()
    desk.tick()
    desk.done(after=0.5)  # half a second an item
    for _ in range(11):
        desk.submit()
        desk.tick()
    refused = desk.error(desk.submit())
    assert isinstance(refused, QueueFull)
    assert refused.retry_after_s == pytest.approx(5.0)


def test_a_wait_that_would_outlast_the_deadline_is_refused_at_once(make_desk):
    desk = make_desk()
    desk.submit()
    desk.tick()
    desk.done(after=1.0)
    for _ in range(5):
        desk.submit()
        desk.tick()
    # Four wait, a second each.
    assert isinstance(desk.error(desk.submit(within=3.0)), QueueFull)
    assert desk.answer(desk.submit(within=4.5)) is None
    # Those of lower classes do not stand before an urgent one.
    assert desk.answer(desk.submit(within=0.5, priority=Priority.INTERACTIVE)) is None


def test_nothing_is_refused_for_its_wait_before_anything_is_known_of_the_rate(make_desk):
    desk = make_desk()
    for _ in range(50):
        assert desk.answer(desk.submit(within=0.01)) is None


def test_an_item_that_arrives_late_is_refused(make_desk):
    desk = make_desk()
    assert isinstance(desk.error(desk.submit(within=0.0)), DeadlineExceeded)


def test_a_queued_item_is_answered_at_its_deadline_and_never_dispatched(make_desk):
    desk = make_desk()
    desk.submit()
    desk.tick()
    late = desk.submit(within=1.0)
    assert desk.scheduler.next_wakeup(desk.now) == pytest.approx(desk.now + 1.0)
    desk.tick(0.99)
    assert desk.answer(late) is None
    desk.tick(0.01)
    assert isinstance(desk.error(late), DeadlineExceeded)
    desk.done()
    assert len(desk.batches()) == 1


def test_the_deadline_of_an_answered_item_passes_unnoticed(make_desk):
    desk = make_desk()
    item = desk.submit(within=1.0)
    desk.tick()
    desk.done()
    desk.tick(2.0)
    assert desk.answer(item) == str(item)


def test_an_item_that_expires_at_the_moment_of_dispatch_is_not_computed(make_desk):
    desk = make_desk()
    late = desk.submit(within=1.0)
    desk.tick(1.0)
    assert isinstance(desk.error(late), DeadlineExceeded)
    assert desk.dispatched == []


def test_a_running_item_is_answered_at_its_deadline_and_its_result_dropped(make_desk):
    desk = make_desk(max_batch=2)
    late, patient = desk.submit(within=1.0), desk.submit()
    desk.tick()
    desk.tick(1.0)
    assert isinstance(desk.error(late), DeadlineExceeded)
    desk.done()
    assert desk.answer(patient) == str(patient)
    assert len(desk.answers[late]) == 1
    assert desk.scheduler.counters.expired == 1


def test_a_cancelled_item_leaves_the_queue_and_is_never_answered(make_desk):
    desk = make_desk()
    desk.submit()
    desk.tick()
    dropped, kept = desk.submit(size=7), desk.submit(size=5)
    desk.cancel(dropped)
    assert (desk.scheduler.queued, desk.scheduler.queued_bytes) == (1, 5)
    desk.done()
    assert desk.batches()[1:] == [(kept,)]
    assert desk.answer(dropped) is None


def test_cancelling_what_runs_or_is_over_changes_nothing_for_the_others(make_desk):
    desk = make_desk(max_batch=2)
    dropped, kept = desk.submit(), desk.submit()
    desk.tick()
    desk.cancel(dropped)
    desk.done()
    desk.cancel(dropped)
    desk.cancel(kept)
    assert (desk.answer(dropped), desk.answer(kept)) == (None, str(kept))
    counters = desk.scheduler.counters
    assert (counters.cancelled, counters.succeeded) == (1, 1)


@pytest.mark.parametrize("size", [2, 3, 5, 8])
@pytest.mark.parametrize("guilty_at", [0, 1, -1])
def test_a_batch_that_raised_is_halved_until_the_guilty_item_is_alone(make_desk, size, guilty_at):
    desk = make_desk(max_batch=size)
    items = [desk.submit() for _ in range(size)]
    guilty = items[guilty_at]
    desk.tick()
    for _ in range(4 * size):
        if not desk.held[0]:
            break
        if guilty in desk.held[0][0][1]:
            desk.raised()
        else:
            desk.done()
    assert isinstance(desk.error(guilty), ModelFailed)
    assert "boom" not in desk.error(guilty).message  # what a model says may hold what it read
    assert all(desk.answer(item) == str(item) for item in items if item != guilty)
    assert len(desk.batches()) <= 2 * size.bit_length() + 1


def test_a_batch_whose_other_items_are_gone_is_still_split(make_desk):
    desk = make_desk(max_batch=2)
    dropped, kept = desk.submit(), desk.submit()
    desk.tick()
    desk.cancel(dropped)
    desk.raised()
    assert desk.batches()[-1] == (kept,)
    desk.done()
    assert desk.answer(kept) == str(kept)


def test_a_batch_that_was_lost_on_the_way_fails_as_unavailable_even_behind_another(make_desk):
    desk = make_desk(credits_each=2)
    first, second = desk.submit(), desk.submit()
    desk.tick()
    batch_id, _ = desk.held[0].pop(1)
    desk.feed(events.BatchLost(0, batch_id, Unavailable("no descriptors")))
    assert isinstance(desk.error(second), Unavailable)
    desk.done()
    assert desk.answer(first) == str(first)


def test_messages_about_unknown_batches_are_passed_over(make_desk):
    desk = make_desk()
    assert desk.feed(events.BatchDone(0, 999, ())) == []
    assert desk.feed(events.BatchRaised(0, 999, "x")) == []


def test_draining_refuses_new_items_and_finishes_the_accepted(make_desk):
    desk = make_desk()
    running, waiting = desk.submit(), desk.submit()
    desk.tick()
    desk.feed(events.DrainRequested())
    assert isinstance(desk.error(desk.submit()), Unavailable)
    desk.done()
    desk.done()
    assert (desk.answer(running), desk.answer(waiting)) == (str(running), str(waiting))
    assert desk.scheduler.unanswered == 0


def test_closing_answers_everything_and_stops_the_workers(make_desk):
    desk = make_desk(workers=2, timing=Timing(stop_grace_s=3.0))
    items = [desk.submit() for _ in range(5)]
    desk.tick()
    desk.feed(events.CloseRequested())
    assert all(isinstance(desk.error(item), Unavailable) for item in items)
    assert desk.orders[-2:] == [("stop", 0), ("stop", 1)]
    desk.died(0)
    desk.tick(3.0)
    assert desk.orders[-1] == ("kill", 1)
    assert not desk.scheduler.stopped
    desk.died(1)
    assert desk.scheduler.stopped
    assert desk.scheduler.next_wakeup(desk.now) is None
    assert isinstance(desk.error(desk.submit()), Unavailable)


def test_counters_add_up(make_desk):
    desk = make_desk(queue_items=3)
    desk.submit()
    desk.tick()
    cancelled, _, expired = desk.submit(), desk.submit(), desk.submit(within=1.0)
    desk.submit()  # refused
    desk.cancel(cancelled)
    desk.tick(1.0)
    assert desk.answer(expired) is not None
    desk.done()
    desk.raised()
    counters = desk.scheduler.counters
    assert (counters.accepted, counters.refused) == (4, 1)
    assert (counters.succeeded, counters.failed, counters.expired, counters.cancelled) == (1, 1, 1, 1)


def test_a_note_says_why_a_model_failed(make_desk):
    desk = make_desk()
    desk.submit()
    desk.tick()
    desk.raised()
    assert any("boom" in note for note in desk.notes)
    assert not any(isinstance(action, actions.KillWorker) for action in desk.feed(events.Tick()))
