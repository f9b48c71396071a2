"""Clients that leave, read slowly, or ask for more than their share."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import psutil
import pytest
from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, picture
from sluiceway_orchestrator.testing.cluster import account
from waiting import until

from sluiceway.common.v1 import model_pb2
from sluiceway.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc

Source = pipeline_pb2.Source
Request = pipeline_pb2.ProcessRequest


async def forever(*_: int) -> None:
    await asyncio.Event().wait()


async def test_cancelling_reaches_detection_and_recognition_within_a_second() -> None:
    """500 jobs: one half is in detection, the other in recognition, when their client gives them up."""

    async def hold_odd(number: int) -> None:
        if number % 2:
            await forever()

    detector, reader = FakeDetection(capacity=512), FakeRecognition(capacity=4096)
    async with Cluster([detector], [reader], max_sources_per_client=512, initial_window=4096) as cluster:
        await cluster.process(Source(image=picture(0)))
        before = len(asyncio.all_tasks())
        detector.before, reader.before = hold_odd, forever
        calls = [cluster.stub.Process(Request(sources=[Source(image=picture(n))]), timeout=60) for n in range(500)]
        readers = [asyncio.create_task(call.read()) for call in calls]
        await until(lambda: detector.running == 250 and reader.running == 500)
        for call in calls:
            call.cancel()
        # In looks of 10 ms and not by the clock: a machine that stands still for a second looks no more often.
        looks = 0

        def is_quiet() -> bool:
            nonlocal looks
            looks += 1
            return detector.running == 0 and reader.running == 0

        await until(is_quiet)
        assert looks <= 101
        assert detector.cancelled == 250
        assert reader.cancelled == 250
        await asyncio.gather(*readers, return_exceptions=True)
        await until(lambda: cluster.service.status()["jobs"] == 0)
        for stage in cluster.service.status()["stages"].values():
            assert stage["backlog_items"] == 0
            assert [replica["in_flight"] for replica in stage["replicas"]] == [0]
        # gRPC keeps a few of its own for calls to come.
        await until(lambda: len(asyncio.all_tasks()) <= before + 10)
        # The server is as good as new.
        detector.before = reader.before = None
        (source,) = (await cluster.process(Source(image=picture(1)))).values()
        assert source.done is not None


async def test_waiting_work_of_a_client_that_left_never_starts() -> None:
    release = asyncio.Event()

    async def hold(_number: int) -> None:
        await release.wait()

    detector = FakeDetection(capacity=1, before=hold)
    async with Cluster([detector]) as cluster:
        jobs = [Request(sources=[Source(image=picture(n)) for n in range(start, start + 50)]) for start in (0, 100)]
        calls = [cluster.stub.Process(job, timeout=60) for job in jobs]
        tasks = [asyncio.create_task(call.read()) for call in calls]
        await until(lambda: cluster.service.stages["detection"].backlog_items > 80)
        calls[1].cancel()
        await until(lambda: cluster.service.stages["detection"].backlog_items < 50)
        seen_then = {number for number in detector.seen if number >= 100}
        release.set()
        while await calls[0].read() is not grpc.aio.EOF:
            pass
        assert {number for number in detector.seen if number >= 100} == seen_then
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("cycles", [1000, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
async def test_cancelled_and_abandoned_calls_leave_memory_and_tasks_flat(cycles: int) -> None:
    async def slow(*_: int) -> None:
        await asyncio.sleep(0.02)

    async with Cluster([FakeDetection(before=slow)], [FakeRecognition(before=slow)]) as cluster:

        async def cycle(number: int, stub: pipeline_pb2_grpc.PipelineServiceStub) -> None:
            call = stub.Process(Request(sources=[Source(image=picture(number, size_bytes=50_000))]), timeout=20)
            for _ in range(number % 4 + 1):
                await call.read()
            if number % 2:
                call.cancel()

        async def run(count: int) -> None:
            for start in range(0, count, 20):
                # The even ones are abandoned: their connection goes while they run.
                async with cluster.connect() as channel:
                    stub = pipeline_pb2_grpc.PipelineServiceStub(channel)
                    await asyncio.gather(*(cycle(start + offset, stub) for offset in range(20)))

        process = psutil.Process()
        await run(cycles // 2)
        gc.collect()
        await until(lambda: cluster.service.status()["jobs"] == 0)
        rss, tasks = process.memory_info().rss, len(asyncio.all_tasks())
        await run(cycles // 2)
        gc.collect()
        await until(lambda: cluster.service.status()["jobs"] == 0)
        await until(lambda: len(asyncio.all_tasks()) <= tasks + 2)
        grown = process.memory_info().rss - rss
    # Client, stages and orchestrator share this process; one leaked image for each call would be 50 kB each.
    assert grown < cycles // 2 * 10_000 + 8 * 2**20


async def test_a_client_that_does_not_read_is_stopped_and_others_are_not() -> None:
    """Thousands of jobs on a stream that nobody reads: work stops at the bounds, and memory stays flat."""
    fed = 0

    async def jobs() -> AsyncIterator[pipeline_pb2.ProcessStreamRequest]:
        nonlocal fed
        only = pipeline_pb2.ProcessOptions(detect_only=True)
        for number in range(5000):
            fed = number
            image = picture(number, regions=200, size_bytes=20_000)
            yield pipeline_pb2.ProcessStreamRequest(job=Request(sources=[Source(image=image)], options=only))

    detector = FakeDetection()
    async with Cluster([detector], max_jobs_per_stream=8, events_ahead=16) as cluster, cluster.connect() as channel:
        call = pipeline_pb2_grpc.PipelineServiceStub(channel).ProcessStream(jobs(), timeout=100)
        await call.read()
        seen, unchanged = -1, 0
        while unchanged < 10:
            unchanged = unchanged + 1 if seen == detector.seen.total() else 0
            seen = detector.seen.total()
            await asyncio.sleep(0.1)
        # gRPC's own windows grow to a few megabytes, at some 9 kB of events a job; ours are on top of that.
        assert seen < 1500
        assert fed < seen + 500
        events = await cluster.process(*(Source(image=picture(n)) for n in range(10_000, 10_020)), timeout_s=60)
        assert all(source.done is not None for source in events.values())
        assert detector.seen.total() <= seen + 20 + 2
        # Once it reads again, its work goes on.
        seen, done = detector.seen.total(), 0
        while detector.seen.total() < seen + 20:
            response = await call.read()
            assert isinstance(response, pipeline_pb2.ProcessStreamResponse)
            done += response.event.HasField("job_done")
        assert done > 0
        call.cancel()


async def test_a_greedy_client_does_not_push_out_a_modest_one() -> None:
    """Nothing is detected until the images of both clients are in line; then their turns depend on no clock."""
    release = asyncio.Event()
    turns: list[int] = []

    async def work(number: int) -> None:
        turns.append(number)
        await release.wait()

    detector = FakeDetection(capacity=1)
    async with Cluster([detector], max_sources_per_client=64) as cluster, cluster.connect() as other:
        # It has said how much it takes: three images at a time.
        await cluster.process(Source(image=picture(9999)))
        detector.before = work
        greedy = asyncio.create_task(cluster.process(*(Source(image=picture(n)) for n in range(300)), timeout_s=100))
        await until(lambda: cluster.service.stages["detection"].backlog_items == 64 - 3)
        modest = pipeline_pb2_grpc.PipelineServiceStub(other)
        job = Request(sources=[Source(image=picture(n)) for n in range(1000, 1005)])
        reading = asyncio.create_task(account(modest.Process(job, timeout=100)))
        await until(lambda: cluster.service.stages["detection"].backlog_items == 64 - 3 + 5)
        release.set()
        assert all(source.done is not None for source in (await reading)[None].values())
        assert all(source.done is not None for source in (await greedy).values())
    # What was with the stage already; then, for each of its images, one of the other client's.
    assert [number >= 1000 for number in turns[:3]] == [False] * 3
    assert sum(number >= 1000 for number in turns[3:13]) == 5
    assert len(turns) == 305


async def test_interactive_work_overtakes_bulk_work() -> None:
    """The next image to begin is the interactive one, although as much bulk work as the stage takes is there before it.

    The stage has two workers that take one image at a time, interactive ones first, as a real stage does; a worker ends
    when it is told to, so that the order in which images begin depends on no clock.
    """
    free, steps = 2, asyncio.Semaphore(0)
    line: list[tuple[int, int, asyncio.Event]] = []
    begun: list[int] = []
    detector = FakeDetection(capacity=2)

    async def two_workers(number: int) -> None:
        nonlocal free
        if free:
            free -= 1
        else:
            rank = 0 if detector.priorities[-1] == model_pb2.PRIORITY_INTERACTIVE else 1
            turn = asyncio.Event()
            line.append((rank, len(detector.priorities), turn))
            await turn.wait()
        begun.append(number)
        await steps.acquire()
        if line:
            line.sort(key=lambda waiting: waiting[:2])
            line.pop(0)[2].set()
        else:
            free += 1

    async with Cluster([detector], max_sources_per_client=128) as cluster, cluster.connect() as channel:
        # It has said how much it takes.
        await cluster.process(Source(image=picture(9999)))
        detector.before = two_workers
        bulk = pipeline_pb2_grpc.PipelineServiceStub(channel)
        options = pipeline_pb2.ProcessOptions(priority=model_pb2.PRIORITY_BULK)
        flood = bulk.Process(
            Request(sources=[Source(image=picture(n)) for n in range(1000, 2000)], options=options), timeout=100
        )
        reading = asyncio.create_task(flood.read())
        for number in range(30):
            before = 2 + 3 * number
            await until(lambda count=before: len(begun) == count and len(line) == 2)
            assert cluster.service.stages["detection"].backlog_items > 50, "bulk work no longer saturates the stage"
            call = asyncio.create_task(
                cluster.process(Source(image=picture(number)), priority=model_pb2.PRIORITY_INTERACTIVE, timeout_s=60)
            )
            # It is with the stage while both workers are busy, and as much bulk work as the stage is given waits there.
            await until(lambda: len(line) == 3)
            steps.release()
            await until(lambda count=before: len(begun) > count)
            assert begun[before:] == [number]
            # The worker that is older ends its bulk image, then the other one the interactive image.
            steps.release()
            steps.release()
            (source,) = (await call).values()
            assert source.done is not None
        flood.cancel()
        await asyncio.wait((reading,))


async def test_jobs_beyond_the_limit_are_refused_with_a_delay() -> None:
    async with Cluster([FakeDetection(before=forever)], max_jobs=2) as cluster:
        calls = [cluster.stub.Process(Request(sources=[Source(image=picture(n))]), timeout=60) for n in range(2)]
        reads = [asyncio.create_task(call.read()) for call in calls]
        await until(lambda: cluster.service.status()["jobs"] == 2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cluster.process(Source(image=picture(9)))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in calls:
            call.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        await until(lambda: cluster.service.status()["jobs"] == 0)
