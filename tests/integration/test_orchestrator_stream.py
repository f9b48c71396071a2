"""A stream of jobs against stages without models: each job is served, and has its own time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

import grpc
import grpc.aio
import pytest
from sluiceway_orchestrator.testing import Cluster, FakeDetection, picture
from sluiceway_orchestrator.testing.cluster import account
from sluiceway_runtime import deadline
from waiting import until

from sluiceway.pipeline.v1 import pipeline_pb2

Source = pipeline_pb2.Source


async def test_stream_runs_many_jobs_and_a_bad_one_stops_nothing() -> None:
    async def jobs() -> pipeline_pb2.ProcessStreamRequest:
        for number in range(40):
            job = pipeline_pb2.ProcessRequest(job_id=f"job{number}", sources=[Source(image=picture(number))])
            if number == 7:
                del job.sources[:]
            yield pipeline_pb2.ProcessStreamRequest(job=job)

    async with Cluster(max_jobs_per_stream=4) as cluster:
        errors, events = {}, []
        async for response in cluster.stub.ProcessStream(jobs(), timeout=60):
            if response.event.HasField("job_refused"):
                errors[response.event.job_id] = response.event.job_refused.error.reason
            else:
                events.append(response.event)
    assert errors == {"job7": "INVALID_OPTION"}

    async def replay() -> pipeline_pb2.ProcessResponse:
        for event in events:
            yield event

    ledger = await account(replay())
    assert len(ledger) == 39
    for number in set(range(40)) - {7}:
        assert ledger[f"job{number}"]["0"].texts == {f"{number}:0": 1, f"{number}:1": 1}


async def test_a_stream_outlives_the_deadline_of_its_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each job has its time from when it is read: bulk work of hours is no late request.

    Between two jobs more time passes on the clock of deadlines than a job has, and none for the machine.
    """
    passed_s, over = 0.0, asyncio.Event()
    monkeypatch.setattr(deadline, "monotonic", lambda: monotonic() + passed_s)

    async def jobs() -> AsyncIterator[pipeline_pb2.ProcessStreamRequest]:
        nonlocal passed_s
        for number in range(3):
            over.clear()
            job = pipeline_pb2.ProcessRequest(job_id=f"job {number}", sources=[Source(image=picture(number))])
            yield pipeline_pb2.ProcessStreamRequest(job=job)
            await over.wait()
            passed_s += 3600

    async def replay() -> AsyncIterator[pipeline_pb2.ProcessResponse]:
        async for response in cluster.stub.ProcessStream(jobs()):
            yield response.event
            if response.event.HasField("job_done"):
                over.set()

    async with Cluster(default_deadline_s=60, max_deadline_s=60) as cluster, asyncio.timeout(60):
        found = await account(replay())
    assert [source.done is not None for job in range(3) for source in found[f"job {job}"].values()] == [True] * 3


async def test_a_stream_that_is_late_ends_with_its_jobs() -> None:
    """A deadline of the client's own is that of the call, and of every job in it."""

    async def hold(_number: int) -> None:
        await asyncio.Event().wait()

    async def jobs() -> AsyncIterator[pipeline_pb2.ProcessStreamRequest]:
        yield pipeline_pb2.ProcessStreamRequest(job=pipeline_pb2.ProcessRequest(sources=[Source(image=picture(1))]))

    detector = FakeDetection()
    async with Cluster([detector]) as cluster:
        await cluster.process(Source(image=picture(0)))
        detector.before = hold
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in cluster.stub.ProcessStream(jobs(), timeout=1):
                pass
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: not detector.running and not cluster.service.status()["jobs"])
