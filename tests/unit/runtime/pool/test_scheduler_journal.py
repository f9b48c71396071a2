"""What the journal is told of each batch that is over, whatever became of it."""

from __future__ import annotations

import pytest
from sluiceway_runtime.errors import Unavailable
from sluiceway_runtime.pool.policy import events


def test_a_batch_that_was_computed_with_the_time_that_it_took(make_desk):
    desk = make_desk(max_batch=2)
    first, second = desk.submit_many(2)
    desk.tick()
    desk.done(after=0.5)
    assert desk.journal == [(1, (first, second), 100.5, 1.0, "")]


def test_a_batch_on_which_the_model_raised(make_desk):
    desk = make_desk()
    item = desk.submit()
    desk.tick()
    desk.now += 2.0
    desk.raised()
    assert desk.journal == [(1, (item,), 102.0, 0.0, "the model raised")]


def test_a_batch_that_never_came_to_its_worker(make_desk):
    desk = make_desk()
    item = desk.submit()
    desk.tick()
    desk.now += 3.0
    (batch_id, _) = desk.held[0].pop()
    desk.feed(events.BatchLost(0, batch_id, Unavailable("no memory is left")))
    assert desk.journal == [(1, (item,), 103.0, 0.0, "it was lost on the way")]
    assert desk.error(item).message == "no memory is left"


def test_a_batch_whose_worker_died_and_again_when_it_was_tried_once_more(make_desk):
    desk = make_desk()
    item = desk.submit()
    desk.tick()
    desk.now += 1.0
    desk.died()
    desk.now += 1.0
    desk.done()
    assert desk.journal == [
        (1, (item,), 101.0, 0.0, "it was ended by SIGKILL"),
        (2, (item,), 102.0, 1.0, ""),
    ]


@pytest.mark.parametrize("told", [events.WorkerLeaving(0), events.WorkerDied(0, "gone", frozenset({2}))])
def test_a_batch_that_its_worker_had_not_begun(make_desk, told):
    desk = make_desk(credits_each=2, max_batch=1)
    _, second = desk.submit(), desk.submit()
    desk.tick()
    desk.now += 1.0
    desk.feed(told)
    words = "the worker left" if isinstance(told, events.WorkerLeaving) else "the worker ended"
    assert (2, (second,), 101.0, 0.0, words) in desk.journal
