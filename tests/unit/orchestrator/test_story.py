"""What the orchestrator notes of a job, and how long it keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sluiceway_orchestrator.events import StageTimings
from sluiceway_orchestrator.job import Job, Source
from sluiceway_orchestrator.story import MOST_SPANS, JobLog, SourceStory, unrecorded
from sluiceway_runtime.clock import running_on
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import DeadlineExceeded, QueueFull
from sluiceway_runtime.priority import Priority


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    with running_on(clock):
        yield clock


def a_job(request_id: str = "r", accepted_s: float = 100.0, image: bytes = b"") -> Job:
    return Job("job", "read", (Source("0", image),), "c", Priority.NORMAL, Deadline(1e9), request_id, accepted_s)


def a_source(log: JobLog, job: Job | None = None) -> SourceStory:
    return log.begin(job or a_job()).source("0")


def test_a_chain_leaves_no_time_out(clock: Clock) -> None:
    log = JobLog()
    story = a_source(log)
    for kind, until_s in (("turn", 101.0), ("gate", 101.00001), ("fetch", 103.0)):
        clock.now_s = until_s
        story.note(kind)
    clock.now_s = 104.0
    story.end(None)
    ((source,),) = [job.sources for job in log.of("r")]
    # A wait that was none is counted with what came next.
    assert [(span.kind, span.begun_s, span.ended_s) for span in source.spans] == [
        ("turn", 100.0, 101.0),
        ("fetch", 101.0, 103.0),
        ("finish", 103.0, 104.0),
    ]
    assert source.ended_s == 104.0


def test_attempts_follow_each_other(clock: Clock) -> None:
    log = JobLog()
    story = a_source(log)
    clock.now_s = 101.0
    with story.attempt("text", "detection", 100.5, 3) as first:
        clock.now_s = 102.0
        first.sent("a:1")
        clock.now_s = 103.0
        first.broke(QueueFull("full"))
    with story.attempt("text", "detection", 100.5, 3) as second:
        clock.now_s = 104.0
        second.sent("b:1")
        clock.now_s = 105.0
        second.told(1, (1.0, 2.0, 3.0, 0.0), 17)
    clock.now_s = 106.0
    story.end(None)
    ((source,),) = [job.sources for job in log.of("r")]
    one, two = source.attempts
    assert (one.since_s, one.asked_s, one.sent_s, one.ended_s) == (100.5, 101.0, 102.0, 103.0)
    assert one.fault == ("QUEUE_FULL", "full", "")
    assert (two.since_s, two.ended_s, two.fault, two.failed) == (103.0, 105.0, (), 1)
    assert (one.call, two.call) == (0, 17)
    # The last event came after the last answer.
    assert [(span.kind, span.begun_s) for span in source.spans] == [("finish", 105.0)]


def test_what_ends_an_attempt_is_its_reason(clock: Clock) -> None:
    story = a_source(JobLog())
    with pytest.raises(DeadlineExceeded), story.attempt("text", "detection", 100.0, 1) as attempt:
        raise DeadlineExceeded("in the queue")
    assert attempt.fault == ("DEADLINE_EXCEEDED", "in the queue", "")
    with pytest.raises(asyncio.CancelledError), story.attempt("text", "detection", 100.0, 1) as attempt:
        raise asyncio.CancelledError
    assert attempt.fault[0] == "CANCELLED"
    with pytest.raises(KeyError), unrecorded(1) as attempt:
        raise KeyError("text")
    assert attempt.fault == ("KeyError", "")


def test_a_job_that_was_cancelled_has_a_source_without_an_end(clock: Clock) -> None:
    log = JobLog()
    job = log.begin(a_job())
    job.source("0")
    clock.now_s = 101.0
    log.over(job)
    (row,) = log.of("r")
    assert row.ended_s == 101.0
    assert row.sources[0].ended_s == 0.0


def test_a_running_job_is_found(clock: Clock) -> None:
    log = JobLog()
    job = log.begin(a_job())
    (row,) = log.of("r")
    assert row.ended_s == 0.0
    log.over(job)
    assert [row.ended_s for row in log.of("r")] == [100.0]


def test_jobs_are_forgotten_by_number_and_by_size(clock: Clock) -> None:
    log = JobLog(most=2)
    for name in "abc":
        log.over(log.begin(a_job(name)))
    assert [bool(log.of(name)) for name in "abc"] == [False, True, True]
    heavy = log.begin(a_job("heavy"))
    source = heavy.source("0")
    for number in range(100):
        source.span("api", number, number + 1)
    log.over(heavy)
    assert [bool(log.of(name)) for name in ("b", "c", "heavy")] == [False, False, True]


def test_of_one_source_no_more_than_so_much_is_remembered(clock: Clock) -> None:
    log = JobLog()
    story = a_source(log)
    for number in range(MOST_SPANS + 7):
        story.span("api", number, number + 1)
    ((source,),) = [job.sources for job in log.of("r")]
    assert len(source.spans) == MOST_SPANS
    assert source.left_out == 7


def test_what_is_remembered_takes_little_and_holds_no_image(clock: Clock) -> None:
    log = JobLog()
    job = log.begin(a_job(image=b"an image"))
    source = job.source("0")
    clock.now_s = 101.0
    for kind in ("turn", "gate", "fetch", "handle", "bind"):
        source.note(kind)
        clock.now_s += 0.001
    for step in ("text", "words"):
        with source.attempt(step, step, 100.0, 1) as attempt:
            attempt.sent("10.0.0.1:50052")
            attempt.told(0, StageTimings(1.0, 1.0, 1.0, 0.0), 1)
        source.handled(step, 100.5)
    source.end(None)
    log.over(job)
    assert log._ring.size_bytes < 1000
    assert list(log._ring.holding("an image")) == []
    assert [row.job_id for row in log.of("r")] == ["job"]


def test_where_nothing_is_to_be_remembered_no_notes_are_taken(clock: Clock) -> None:
    log = JobLog(most=0)
    job = log.begin(a_job())
    source = job.source("0")
    clock.now_s = 101.0
    source.note("gate")
    with source.attempt("text", "detection", 100.0, 1) as attempt:
        attempt.sent("a:1")
        attempt.told(0, (1.0, 1.0, 1.0, 0.0), 1)
    source.called("api", 100.0, (), None)
    assert source.handled("text", 100.5) == 100.5
    source.end(None)
    assert log.of("r") == []
    log.over(job)
    assert log.of("r") == []
    assert source.row() == job.source("1").row()
