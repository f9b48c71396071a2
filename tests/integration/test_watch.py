"""Watching a cluster: what is told, what it costs those that are watched, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from fetching import given_by
from google.protobuf.duration_pb2 import Duration
from sluiceway_orchestrator.fetch import Answer, Call
from sluiceway_orchestrator.testing import Cluster, FakeDetection, picture
from sluiceway_runtime.server.status import from_rpc_error
from waiting import until

from sluiceway import AsyncClient, errors
from sluiceway.figures import ClusterFigures
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.watch.v1 import sample_pb2, sample_pb2_grpc, watch_pb2, watch_pb2_grpc

SOON_S = 0.2
# What is said of a cluster that could do more; beside other tests it may have to wait for a CPU.
CALM = {"idle", "nothing", "starved"}


class Counted(sample_pb2_grpc.SampleServiceServicer):
    """A stage that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def Sample(self, request: Any, context: Any) -> sample_pb2.SampleResponse:
        self.asked += 1
        return sample_pb2.SampleResponse(state="ready", at_s=float(self.asked), uptime_s=float(self.asked))


@asynccontextmanager
async def watching(cluster: Cluster) -> AsyncIterator[AsyncIterator[ClusterFigures]]:
    async with AsyncClient(f"127.0.0.1:{cluster.server.port}") as client, aclosing(client.watch(SOON_S)) as figures:
        yield figures


async def first_of(figures: AsyncIterator[ClusterFigures], holds: Callable[[ClusterFigures], object]) -> ClusterFigures:
    """The first figures of which it holds."""
    async with asyncio.timeout(30):
        async for found in figures:
            if holds(found):
                return found
    raise AssertionError("the figures ended")


def counting(cluster: Cluster) -> Counted:
    """Let the detector of a cluster that has not begun answer samples."""
    counted = Counted()
    sample_pb2_grpc.add_SampleServiceServicer_to_server(counted, cluster.detection[0].server)
    return counted


async def test_it_is_told_what_the_cluster_does() -> None:
    async with Cluster() as cluster, watching(cluster) as figures:
        first = await first_of(figures, lambda found: all(stage.ready for stage in found.stages))
        assert first.limits[0].kind in CALM
        assert [(stage.name, stage.kind) for stage in first.stages] == [
            ("detection", "detection"),
            ("recognition", "recognition"),
        ]
        await cluster.process(*(pipeline_pb2.Source(image=picture(number)) for number in range(5)))
        busy = await first_of(figures, lambda found: found.orchestrator.rate > 0)
        assert busy.limits[0].kind in CALM
        assert busy.orchestrator.p50_ms is not None
        assert 0 < busy.orchestrator.p50_ms <= (busy.orchestrator.p99_ms or 0)
        assert busy.orchestrator.front.loop is not None
        assert busy.orchestrator.front.memory_bytes > 0


async def test_stages_that_know_no_samples_are_shown_all_the_same() -> None:
    """As those of the release before this one."""
    async with Cluster() as cluster, watching(cluster) as figures:
        found = await first_of(figures, lambda found: all(stage.ready for stage in found.stages))
        for stage in found.stages:
            assert (len(stage.replicas), stage.replicas[0].state, stage.busy) == (1, "", None)


async def test_a_stage_that_goes_away_is_said_to_limit() -> None:
    async with Cluster() as cluster, watching(cluster) as figures:
        await first_of(figures, lambda found: all(stage.ready for stage in found.stages))
        await cluster.recognition[0].stop()
        gone = await first_of(figures, lambda found: found.limits[0].kind == "no_replica")
        assert gone.limits[0].subject == "recognition"
        assert gone.limits[0].fault
        assert cluster.recognition[0].address in gone.limits[0].help
        # It takes no work, but is asked for.
        job = asyncio.create_task(cluster.process(pipeline_pb2.Source(image=picture(1)), timeout_s=30))
        await first_of(figures, lambda found: "1 item waits" in found.limits[0].what)
        job.cancel()


async def test_while_nobody_watches_nobody_is_asked() -> None:
    cluster = Cluster()
    counted = counting(cluster)
    async with cluster:
        async with watching(cluster) as figures:
            await first_of(figures, lambda found: found.stages[0].replicas and found.stages[0].replicas[0].state)
        # Until the server has seen that nobody is there.
        await until(lambda: not cluster.server._interceptor.running)
        asked = counted.asked
        assert asked
        for number in range(3):
            await cluster.process(pipeline_pb2.Source(image=picture(number)))
        assert counted.asked == asked


async def test_several_who_watch_share_samples() -> None:
    cluster = Cluster()
    counted = counting(cluster)
    async with cluster:
        sampler = cluster.service._watching._sampler
        samples = await asyncio.gather(*(sampler.sample(60.0) for _ in range(5)))
        assert counted.asked == 1
        assert all(sample is samples[0] for sample in samples)
        assert await sampler.sample(60.0) is samples[0]
        assert await sampler.sample(0.0) is not samples[0]
        # One of them leaves: the others hear all the same.
        leaves, stays = (asyncio.create_task(sampler.sample(0.0)) for _ in range(2))
        await asyncio.sleep(0)
        leaves.cancel()
        assert (await stays).at_s > samples[0].at_s


async def test_a_server_that_drains_ends_it_and_is_not_held_up() -> None:
    async with Cluster(drain_grace_s=20) as cluster, watching(cluster) as figures:
        await first_of(figures, lambda _: True)
        draining = asyncio.create_task(cluster.server._drain())
        with pytest.raises(errors.Unavailable, match="draining"):
            await first_of(figures, lambda _: False)
        async with asyncio.timeout(10):
            assert await draining


@pytest.mark.parametrize("seconds", [0.0, 0.1, 61.0, -1.0])
async def test_an_interval_that_is_none_is_refused(seconds: float) -> None:
    interval = Duration()
    interval.FromNanoseconds(round(seconds * 1e9))
    async with Cluster() as cluster:
        call = watch_pb2_grpc.WatchServiceStub(cluster.channel).Watch(watch_pb2.WatchRequest(interval=interval))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call.read()
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert from_rpc_error(failed.value).reason == "INVALID_OPTION"


async def test_it_is_told_over_http_too() -> None:
    async with Cluster(http={"port": 0}) as cluster, aiohttp.ClientSession() as session:
        address = f"http://127.0.0.1:{cluster.service.http.port}/v1/watch"
        async with session.get(address, params={"interval_s": "0.2"}) as response:
            assert (response.status, response.content_type) == (200, "application/x-ndjson")
            for _ in range(2):
                line = json.loads(await response.content.readline())
                assert line["limits"][0]["kind"] in {*CALM, "no_replica"}
                assert [stage["name"] for stage in line["stages"]] == ["detection", "recognition"]
        for asked in ("soon", "0", "nan"):
            async with session.get(address, params={"interval_s": asked}) as response:
                assert response.status == 400, asked
                assert (await response.json())["reason"] == "INVALID_OPTION"


async def test_calls_of_an_api_that_wait_for_their_turn_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    free = asyncio.Event()

    async def answer(_: Call) -> Answer:
        await free.wait()
        return Answer(picture(1))

    apis = {"slow": {"caller": given_by(monkeypatch, answer), "max_in_flight": 2}}
    source = pipeline_pb2.Source(api_call=pipeline_pb2.ApiCall(api="slow", params={"item": "1"}))
    async with Cluster(apis=apis) as cluster, watching(cluster) as figures:
        jobs = [asyncio.create_task(cluster.process(source)) for _ in range(5)]
        found = await first_of(figures, lambda found: found.apis[0].waiting == 3)
        assert (found.apis[0].name, found.apis[0].in_flight, found.apis[0].limit) == ("slow", 2, 2)
        assert (found.limits[0].subject, found.limits[0].kind) == ("api slow", "api_in_flight")
        free.set()
        await asyncio.gather(*jobs)
        await first_of(figures, lambda found: not (found.apis[0].waiting or found.apis[0].in_flight))


async def test_a_client_that_does_not_read_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(call: Call) -> Answer:
        return Answer(picture(int(call.params["item"]), size_bytes=900_000))

    apis = {"big": {"caller": given_by(monkeypatch, answer)}}
    request = pipeline_pb2.ProcessRequest(
        sources=[
            pipeline_pb2.Source(
                source_id=str(number), api_call=pipeline_pb2.ApiCall(api="big", params={"item": str(number)})
            )
            for number in range(40)
        ],
        options=pipeline_pb2.ProcessOptions(return_images=True),
    )
    async with Cluster(apis=apis) as cluster, watching(cluster) as figures:
        call = cluster.stub.Process(request, timeout=60)
        try:
            found = await first_of(figures, lambda found: found.orchestrator.unread)
            assert found.orchestrator.unread == 1
            assert "unread" in [limit.kind for limit in found.limits]
        finally:
            call.cancel()
        await first_of(figures, lambda found: not found.orchestrator.unread)


async def test_a_detector_that_answers_slowly_makes_a_backlog() -> None:
    free = asyncio.Event()

    async def hold(_: int) -> None:
        await free.wait()

    detector = FakeDetection(before=hold, capacity=1)
    async with Cluster([detector]) as cluster, watching(cluster) as figures:
        jobs = [
            asyncio.create_task(cluster.process(pipeline_pb2.Source(image=picture(number)))) for number in range(12)
        ]
        found = await first_of(figures, lambda found: found.stages[0].backlog)
        assert found.orchestrator.working == 12
        free.set()
        await asyncio.gather(*jobs)
