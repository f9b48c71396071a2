"""What is told of items and when, word by word, and what happens in one moment with something else."""

from __future__ import annotations

import pytest
from sluiceway_runtime.errors import DeadlineExceeded, ModelFailed, Quarantined, QueueFull, Unavailable
from sluiceway_runtime.pool.policy import events
from sluiceway_runtime.pool.policy.actions import Fail
from sluiceway_runtime.pool.policy.limits import PoolLimits
from sluiceway_runtime.pool.policy.scheduler import Scheduler
from sluiceway_runtime.pool.policy.statistics import WorkerState


def story_after(desk, item, seconds):
    """The story of an item whose deadline passes after so long."""
    desk.tick(seconds)
    error = desk.error(item)
    assert isinstance(error, DeadlineExceeded)
    return error.metadata["story"]


def test_a_deadline_that_passes_in_the_queue(make_desk):
    desk = make_desk()
    desk.submit()
    desk.tick()
    item = desk.submit(within=2.0)
    desk.tick(2.0)
    error = desk.error(item)
    assert (type(error), error.message) == (DeadlineExceeded, "the deadline passed in the queue")
    assert error.metadata == {"story": "2 s: now"}


def test_a_deadline_that_passes_during_the_computation(make_desk):
    desk = make_desk()
    item = desk.submit(within=2.0)
    desk.tick(0.5)
    desk.tick(1.5)
    error = desk.error(item)
    assert error.message == "the deadline passed during the computation"
    assert error.metadata == {"story": "0.5 s: to worker 0 alone (batch 1); 2 s: now"}


def test_a_deadline_that_passes_between_two_computations(make_desk):
    desk = make_desk()
    desk.submit()
    desk.tick()
    desk.done()
    item = desk.submit(within=2.0)
    desk.tick(0.5)
    desk.died(back=False)
    desk.tick(1.5)
    error = desk.error(item)
    assert error.message == "the deadline passed during the computation"
    assert error.metadata["story"] == ("0.5 s: to worker 0 alone (batch 2); 0.5 s: it was ended by SIGKILL; 2 s: now")


def test_a_batch_that_was_not_begun_when_its_worker_left(make_desk):
    desk = make_desk(credits_each=2)
    desk.submit()
    item = desk.submit(within=9.0)
    desk.tick(1.0)
    desk.done(after=1.0)
    desk.feed(events.WorkerLeaving(0))
    assert story_after(desk, item, 7.0) == ("1 s: to worker 0 alone (batch 2); 2 s: the worker left; 9 s: now")


def test_a_batch_that_was_not_begun_when_its_worker_ended(make_desk):
    desk = make_desk(credits_each=2)
    desk.submit()
    item = desk.submit(within=9.0)
    desk.tick(1.0)
    desk.died(back=False)
    assert story_after(desk, item, 8.0) == ("1 s: to worker 0 alone (batch 2); 1 s: the worker ended; 9 s: now")


def test_a_model_that_raises(make_desk):
    desk = make_desk(max_batch=2)
    first, second = desk.submit(), desk.submit()
    desk.tick(1.0)
    desk.now += 1.0
    desk.raised()
    desk.now += 1.0
    desk.raised()
    error = desk.error(first)
    assert (type(error), error.message) == (ModelFailed, "the model failed on this item")
    story = (
        "1 s: to worker 0 with 1 other (batch 1); 2 s: the model raised; "
        "2 s: to worker 0 alone (batch 2); 3 s: the model raised; 3 s: now"
    )
    assert error.metadata["story"] == story
    assert desk.notes == [f"the model raised on an item: boom; {story}"]
    desk.done()
    assert desk.answer(second) == str(second)


def test_an_item_that_is_quarantined(make_desk):
    desk = make_desk()
    item = desk.submit(content="x")
    desk.tick(1.0)
    desk.died()
    desk.now += 1.0
    desk.died(back=False)
    error = desk.error(item)
    story = (
        "1 s: to worker 0 alone (batch 1); 1 s: it was ended by SIGKILL; "
        "1 s: to worker 0 alone (batch 2); 2 s: it was ended by SIGKILL; 2 s: now"
    )
    assert (type(error), error.metadata) == (Quarantined, {"digest": "x", "story": story})
    assert f"item x is quarantined: {story}" in desk.notes


def test_an_item_that_was_with_a_machine_that_is_ill(make_desk):
    desk = make_desk()
    item = desk.submit()
    desk.tick(1.0)
    desk.died(broken=True)
    desk.died(back=False, broken=True)
    error = desk.error(item)
    story = (
        "1 s: to worker 0 alone (batch 1); 1 s: it was ended by SIGKILL; "
        "1 s: to worker 0 alone (batch 2); 1 s: it was ended by SIGKILL; 1 s: now"
    )
    assert (type(error), error.message) == (Unavailable, "no worker of this machine computes")
    assert error.metadata == {"story": story}
    assert f"this machine is taken to be ill: {story}" in desk.notes


def test_what_is_left_when_a_pool_closes(make_desk):
    desk = make_desk()
    item = desk.submit()
    desk.feed(events.CloseRequested())
    error = desk.error(item)
    assert (type(error), error.message) == (Unavailable, "the server is stopping")


@pytest.mark.parametrize("happens", ["ready", "setup", "died"])
def test_what_is_late_is_told_whatever_else_happens_in_that_moment(make_desk, happens):
    desk = make_desk()
    item = desk.submit(within=2.0)
    desk.tick()
    desk.died(back=False)
    desk.now += 2.0
    done = desk.feed(
        {
            "ready": events.WorkerReady(0),
            "setup": events.SetupFailed(0, "no weights"),
            "died": events.WorkerDied(0, "it was ended by SIGKILL"),
        }[happens]
    )
    assert [action.items[0].id for action in done if isinstance(action, Fail)] == [item]


def test_what_waits_again_counts_among_those_ahead(make_desk):
    desk = make_desk(max_batch=4)
    desk.submit()
    desk.tick()
    desk.done(after=1.0)  # one second for an item
    desk.submit_many(4)
    desk.tick()
    desk.died()
    assert desk.scheduler.queued == 3
    assert isinstance(desk.error(desk.submit(within=2.9)), QueueFull)
    assert desk.answer(desk.submit(within=3.1)) is None


def test_killers_that_witnesses_convict_are_none_of_a_row(make_desk):
    desk = make_desk(workers=3)
    for _ in range(3):
        desk.submit()
    desk.tick()
    for worker in range(3):
        desk.done(worker)
    told = []
    for content in ("x", "y"):
        item = desk.submit(content=content)
        desk.tick()
        for _ in range(2):
            (worker,) = (worker for worker, held in desk.held.items() if held)
            desk.died(worker, back=False)
        told.append(type(desk.error(item)))
        for worker in range(3):
            if desk.state(worker) is WorkerState.STARTING:
                desk.feed(events.WorkerReady(worker))
    # The second met one witness and nobody else: with nothing held against the machine, it is believed to be a killer.
    assert told == [Quarantined, Quarantined]


def test_a_suspect_that_ends_a_newcomer_beside_a_witness_is_tried_again(make_desk):
    desk = make_desk(workers=2, credits_each=3)
    item = desk.submit()
    desk.tick()
    (first,) = (worker for worker, held in desk.held.items() if held)
    desk.died(first)
    other = desk.submit()
    desk.tick()
    (alone,) = (worker for worker, held in desk.held.items() if [ids for _, ids in held] == [(item,)])
    desk.done(1 - alone)  # there is a witness now, and it is not the one that has the suspect
    assert desk.answer(other) == str(other)
    more = [desk.submit() for _ in range(4)]
    desk.tick()
    desk.died(alone)
    assert desk.answer(item) is None
    while desk.held[1 - alone] and desk.held[1 - alone][0][1] != (item,):
        desk.done(1 - alone)
    assert [ids for _, ids in desk.held[1 - alone]] == [(item,)], "alone with the witness"
    desk.done(1 - alone)
    assert desk.answer(item) == str(item)
    assert len(more) == 4


def test_a_suspect_that_never_reached_its_worker_is_still_one(make_desk):
    desk = make_desk(credits_each=3)
    item = desk.submit()
    desk.tick()
    desk.died()
    for _ in range(3):
        desk.submit()
    desk.tick()
    desk.died(undelivered=1)
    assert [ids for _, ids in desk.held[0]] == [(item,)]
    assert desk.scheduler.workers[0].probing


def test_results_that_are_too_few_are_none(make_desk):
    desk = make_desk(max_batch=2)
    desk.submit_many(2)
    desk.tick()
    ((batch_id, _),) = desk.held[0]
    with pytest.raises(ValueError, match="zip"):
        desk.feed(events.BatchDone(0, batch_id, ("one",), 1.0, 0))


def test_without_a_word_one_batch_at_a_time_has_begun(make_desk):
    desk = make_desk(credits_each=2)
    desk.scheduler = Scheduler(1, 2, PoolLimits())
    desk.feed(events.StartRequested())
    desk.feed(events.WorkerReady(0))
    items = [desk.submit(), desk.submit()]
    desk.tick()
    begun = [batch.begun_s for batch in desk.scheduler.workers[0].in_flight]
    assert begun == [desk.now, None]
    assert len(items) == 2
