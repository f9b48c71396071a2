"""A machine that is ill is not taken for pictures that kill, and what is said of a picture does not hold for ever."""

from __future__ import annotations

import pytest
from sluiceway_runtime.errors import Quarantined, SluicewayError, Unavailable
from sluiceway_runtime.pool.policy import events
from sluiceway_runtime.pool.policy.limits import Timing
from sluiceway_runtime.pool.policy.statistics import WorkerState

DAY_S = 86_400.0


def ends(desk, worker=0, *, broken=False, back=True):
    """The worker ends, having said first that its device is gone if it is `broken`."""
    desk.died(worker, back=back, broken=broken)


def alone(desk, item):
    """Which worker has this item, and nothing else."""
    found = [worker for worker, held in desk.held.items() if [ids for _, ids in held] == [(item,)]]
    return found[0] if found else None


def kill_alone(desk, **content):
    """One item ends two workers, one after the other; the second time it is alone."""
    item = desk.submit(**content)
    desk.tick()
    for _ in range(2):
        worker = alone(desk, item)
        assert worker is not None
        ends(desk, worker)
    return item


def test_a_verdict_expires(make_desk):
    desk = make_desk(timing=Timing(verdict_s=600.0))
    assert isinstance(desk.error(kill_alone(desk, content="canary", size=9)), Quarantined)
    desk.tick(599.0)
    assert isinstance(desk.error(desk.submit(content="canary", size=9)), Quarantined)
    desk.tick(30 * DAY_S)
    again = desk.submit(content="canary", size=9)
    desk.tick()
    desk.done()
    assert desk.answer(again) == str(again)


def test_different_culprits_without_a_success_between_them_mean_the_machine(make_desk):
    """The killer of processes that have too much memory, say, met one innocent picture after the other."""
    desk = make_desk()
    first = kill_alone(desk, content="a", size=9, request="one")
    second = kill_alone(desk, content="b", size=9, request="two")
    assert isinstance(desk.error(first), Quarantined)
    assert isinstance(desk.error(second), Unavailable), "the orchestrator tries elsewhere"
    told = [
        (note.partition(":")[0].partition(" is ")[2], name)
        for note, name in zip(desk.notes, desk.named, strict=True)
        if " is " in note
    ]
    assert told == [("quarantined", "one"), ("taken to be ill", "two")]
    # Not ready, and nothing is taken, until a worker has computed again.
    assert not desk.scheduler.able
    assert isinstance(desk.error(desk.submit()), Unavailable)
    desk.done()  # what is tried meanwhile is nobody's any more
    assert desk.scheduler.able
    # Nothing is remembered, of the first one either.
    for content in ("a", "b"):
        item = desk.submit(content=content, size=9)
        desk.tick()
        desk.done()
        assert desk.answer(item) == str(item)


def test_a_culprit_on_a_worker_that_has_computed_since_its_last_end_is_guilty(make_desk):
    desk = make_desk(max_batch=4)
    items = [desk.submit(content=f"c{number}") for number in range(4)]
    killers = items[1], items[3]
    desk.tick()
    ends(desk)
    while desk.held[0]:
        ((_, (item,)),) = desk.held[0]
        if item in killers:
            ends(desk)
        else:
            desk.done()
    assert [isinstance(desk.error(item), Quarantined) for item in killers] == [True, True]
    assert [desk.answer(item) for item in (items[0], items[2])] == [str(items[0]), str(items[2])]


def test_a_worker_that_says_that_its_device_is_gone_condemns_nobody(make_desk):
    desk = make_desk(workers=2, max_batch=4)
    answers = []
    for number in range(4):
        item = desk.submit(content=f"c{number}", size=9)
        desk.tick()
        while (worker := alone(desk, item)) is not None:
            ends(desk, worker, broken=True)
        answers.append(desk.error(item))
        for worker in (0, 1):
            while desk.held[worker]:
                ends(desk, worker, broken=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 4
    assert desk.scheduler.counters.quarantined == 0


def test_beside_a_worker_whose_device_fails_every_picture_is_computed_by_the_other(make_desk):
    desk = make_desk(workers=2, max_batch=4)
    warm = desk.submit()
    desk.tick()
    well = next(worker for worker in (0, 1) if desk.held[worker])
    desk.done(well)
    ill = 1 - well
    items = [desk.submit(content=f"c{number}", size=9) for number in range(40)]
    desk.tick()
    for _ in range(400):
        if desk.held[ill]:
            ends(desk, ill, broken=True, back=False)
        if desk.held[well]:
            desk.done(well, after=0.05)
        if desk.state(ill) is WorkerState.STARTING:
            desk.feed(events.WorkerReady(ill))
        desk.tick(0.01)
    assert [desk.answer(item) for item in (warm, *items)] == [str(item) for item in (warm, *items)]
    assert desk.scheduler.counters.quarantined == 0
    assert desk.scheduler.able


def test_a_machine_that_is_ill_hands_back_what_waits_and_comes_back_by_itself(make_desk):
    desk = make_desk(max_batch=2, timing=Timing(restart_delay_s=1.0, restart_delay_max_s=8.0))
    items = [desk.submit(content=f"c{number}", size=9) for number in range(8)]
    desk.tick()
    for _ in range(2):
        ends(desk, broken=True)
    told = [desk.answer(item) for item in items]
    assert sum(isinstance(answer, Unavailable) for answer in told) >= 7, "they are tried elsewhere"
    assert not any(isinstance(answer, Quarantined) for answer in told)
    assert not desk.scheduler.able
    for _ in range(3):
        if desk.held[0]:
            ends(desk, broken=True)
    while not desk.held[0] and not desk.scheduler.able:
        desk.tick(1.0)
        if desk.state() is WorkerState.STARTING:
            desk.feed(events.WorkerReady(0))
    if desk.held[0]:
        desk.done()
    assert desk.scheduler.able
    item = desk.submit()
    desk.tick()
    desk.done()
    assert desk.answer(item) == str(item)
    assert all(isinstance(answer, SluicewayError | str) for answer in (desk.answer(item) for item in items))


def test_killers_cannot_keep_a_machine_out_for_ever(make_desk):
    """What is tried on a machine that may be ill is tried a few times only: it may be a killer itself."""
    desk = make_desk()
    kill_alone(desk, content="a", size=9)
    kill_alone(desk, content="b", size=9)
    tries = 0
    while not desk.scheduler.able:
        assert desk.held[0], "a worker that is ready is tried"
        ends(desk)
        tries += 1
        assert tries <= 5
    item = desk.submit(content="c", size=9)
    desk.tick()
    desk.done()
    assert desk.answer(item) == str(item)


def test_without_one_working_worker_everything_is_refused_at_once(make_desk):
    """Every start hangs in its setup: who waited for it would only be told later."""
    desk = make_desk(start_timeout_s=120.0)
    ends(desk, back=False)
    for _ in range(6):
        desk.tick(30.0)
        refused = desk.error(desk.submit(within=5.0))
        assert isinstance(refused, Unavailable)
        assert refused.retry_after_s
        if desk.state() is WorkerState.STARTING:
            ends(desk, back=False)


def test_while_the_only_worker_is_replaced_for_its_size_work_may_wait(make_desk):
    desk = make_desk(worker_memory_mb=100)
    first, second = desk.submit(), desk.submit()
    desk.tick()
    desk.done(memory_mb=150)
    ends(desk, back=False)
    later = desk.submit()
    desk.tick(1.0)
    desk.feed(events.WorkerReady(0))
    desk.done()
    desk.done()
    assert [desk.answer(item) for item in (first, second, later)] == [str(item) for item in (first, second, later)]


def test_recycling_a_worker_that_is_too_large_from_its_first_batch_on_has_a_back_off(make_desk):
    desk = make_desk(worker_memory_mb=100)
    items = [desk.submit() for _ in range(100)]
    desk.tick()
    while desk.scheduler.unanswered:
        desk.done(after=0.1, memory_mb=150)
        if desk.state() is not WorkerState.READY:
            ends(desk)
    assert [desk.answer(item) for item in items] == [str(item) for item in items]
    assert desk.scheduler.counters.recycled <= 2


def test_a_worker_that_grows_slowly_is_recycled_each_time(make_desk):
    desk = make_desk(worker_memory_mb=100)
    for _ in range(6):
        for memory_mb in (80, 90, 150):
            desk.submit()
            desk.tick()
            desk.done(after=400.0, memory_mb=memory_mb)
        assert desk.state() is WorkerState.STOPPING
        ends(desk)
    assert desk.scheduler.counters.recycled == 6


@pytest.mark.parametrize("fault", ["raise", "die", "late"])
def test_an_error_tells_the_story_of_its_item(make_desk, fault):
    desk = make_desk(max_batch=2)
    item = desk.submit(within=60.0)
    desk.submit(within=60.0)
    desk.tick(0.25)
    ends(desk)
    if fault == "raise":
        desk.raised()
    elif fault == "die":
        ends(desk)
    else:
        desk.tick(100.0)
    story = desk.error(item).metadata["story"]
    # When it came, with whom it was where, what became of that, and where it was last.
    assert story.index("worker 0 with 1 other") < story.index("SIGKILL") < story.index("worker 0 alone")
    assert "0.25 s" in story
