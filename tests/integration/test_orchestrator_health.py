"""A stage without the health protocol: it is ready for as long as it describes itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
import pytest
from sluiceway_orchestrator.testing import Cluster, FakeDetection, picture
from waiting import until

from sluiceway.detection.v1 import detection_pb2, detection_pb2_grpc
from sluiceway.pipeline.v1 import pipeline_pb2

Source = pipeline_pb2.Source


class Silent(FakeDetection):
    """Describes itself, unless it is told not to, and counts how often."""

    described = 0
    describes = True

    async def Describe(
        self, request: detection_pb2.DescribeRequest, context: grpc.aio.ServicerContext
    ) -> detection_pb2.DescribeResponse:
        self.described += 1
        if not self.describes:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return await super().Describe(request, context)


@asynccontextmanager
async def without_health(stage: FakeDetection) -> AsyncIterator[str]:
    server = grpc.aio.server()
    detection_pb2_grpc.add_DetectionServiceServicer_to_server(stage, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def test_a_stage_without_health_checks_is_asked_for_its_description_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sluiceway_orchestrator.stages.replica.POLL_S", 0.02)
    stage = Silent()
    async with without_health(stage) as address, Cluster([], detection=address) as cluster:

        def ready() -> bool:
            return any(replica.ready for replica in cluster.service.stages["detection"].replicas)

        (source,) = (await cluster.process(Source(image=picture(1)))).values()
        assert source.texts == {"1:0": 1, "1:1": 1}
        polls = stage.described
        await until(lambda: stage.described > polls + 2)
        assert ready()
        stage.describes = False
        await until(lambda: not ready())
        # Work waits for it, as for a stage that says that it does not serve.
        job = asyncio.create_task(cluster.process(Source(image=picture(2)), timeout_s=60))
        await until(lambda: cluster.service.stages["detection"].backlog_items == 1)
        assert 2 not in stage.seen
        stage.describes = True
        (source,) = (await job).values()
        assert source.done is not None
        assert ready()
