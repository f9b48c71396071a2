"""Something that a request waits for is cancelled below it: its client has cancelled nothing, and does not hear so."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest
from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, picture

from sluiceway.pipeline.v1 import pipeline_pb2

Source = pipeline_pb2.Source


class Held:
    """Keeps a stage from answering until it is let go; `begun` once it has so many pictures."""

    def __init__(self, images: int) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self._images = images
        self._seen: set[int] = set()

    async def __call__(self, number: int, *_: int) -> None:
        self._seen.add(number)
        if len(self._seen) == self._images:
            self.begun.set()
        await self.go_on.wait()


@pytest.mark.parametrize("kind", ["detection", "recognition"])
@pytest.mark.parametrize("images", [1, 2])
async def test_the_connection_to_a_stage_is_closed_below_a_call(kind: str, images: int) -> None:
    held = Held(images)
    stages = {"detection": FakeDetection(), "recognition": FakeRecognition()}
    stages[kind].before = held
    async with asyncio.timeout(60), Cluster([stages["detection"]], [stages["recognition"]]) as cluster:
        sources = [Source(image=picture(number)) for number in range(images)]
        asked = asyncio.create_task(cluster.process(*sources, timeout_s=50))
        await held.begun.wait()
        (replica,) = cluster.service.stages[kind].replicas
        await replica.channel.close()
        held.go_on.set()
        events = await asked
        for image in range(images):
            error = events[str(image)].error
            assert error is not None
            assert (error.reason, error.code) == ("UNAVAILABLE", grpc.StatusCode.UNAVAILABLE.value[0])
