"""Jobs of a stream: their names and places are free once the client has heard of their end, whatever it was."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.events import Event, JobDone, SourceDone, SourceFailed
from sluiceway_orchestrator.job import Job, Source
from sluiceway_orchestrator.jobs import Jobs
from sluiceway_orchestrator.outbox import Outbox
from sluiceway_orchestrator.pipelines.executor import Executor
from sluiceway_orchestrator.servicer import _Stream
from sluiceway_runtime.account import MemoryBudget
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import InvalidOption
from sluiceway_runtime.priority import Priority


def job_of(name: str) -> Job:
    sources = (Source("a", b"x"), Source("b", b"x"))
    return Job(name, "read", sources, "client", Priority.NORMAL, Deadline.after(600), "request", 0.0)


class AtOnce:
    """An executor whose sources are done at once."""

    async def run(self, job: Job, outbox: Outbox) -> None:
        for source in job.sources:
            outbox.put_last(job.job_id, source.source_id, SourceDone((), 0, 0, ()))
        outbox.put_last(job.job_id, "", JobDone(len(job.sources), 0))


def jobs_of(budget: MemoryBudget) -> Jobs:
    return Jobs(OrchestratorConfig(), cast("Executor", AtOnce()), budget)


async def read_until_over(outbox: Outbox) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(30):
        async for addressed in outbox:
            events.append(addressed.event)
            if isinstance(addressed.event, JobDone):
                break
    return events


async def test_a_job_that_is_cancelled_before_it_begins_is_told_to_have_failed() -> None:
    budget = MemoryBudget(2**20)
    jobs = jobs_of(budget)
    outbox, job = jobs.outbox("client"), job_of("j")
    stream = _Stream(1, outbox)
    await stream.slots.acquire()
    task = jobs.begin(job, outbox, asyncio.create_task)
    stream.add(job, task, budget.account())
    stream.cancel("j")
    await asyncio.wait((task,))
    stream.cancel("j")
    assert stream.slots.locked(), "until the client has heard of it"
    events = await read_until_over(outbox)
    assert [event.error.reason for event in events if isinstance(event, SourceFailed)] == ["CANCELLED"] * 2
    assert events[-1] == JobDone(0, 2)
    assert not stream.slots.locked()
    assert (jobs.running, budget.used_bytes) == (0, 0)


async def test_a_name_is_free_once_the_end_of_its_job_was_heard() -> None:
    """Two jobs of one name would be one to whoever reads, and to the clock that ends what is not read."""
    budget = MemoryBudget(2**20)
    jobs = jobs_of(budget)
    outbox, job = jobs.outbox("client"), job_of("j")
    stream = _Stream(2, outbox)
    task = jobs.begin(job, outbox, asyncio.create_task)
    stream.add(job, task, budget.account())
    await asyncio.wait((task,))
    with pytest.raises(InvalidOption, match="job_id"):
        stream.require_free("j")
    # Too late: it has ended, and what it said is to be read.
    stream.cancel("j")
    events = await read_until_over(outbox)
    assert [type(event) for event in events] == [SourceDone, SourceDone, JobDone]
    stream.require_free("j")
    assert (len(outbox), jobs.running) == (0, 0)
