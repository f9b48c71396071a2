"""Messages over a limit of gRPC's: the same at every try, so the client hears at once what is too large."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, FakeServer, picture

from sluiceway.pipeline.v1 import pipeline_pb2

Source = pipeline_pb2.Source

# Where the limit is: of the stage or of the orchestrator. What exceeds it: the image, or the crops in the answer.
SMALL_STAGE, SMALL_ORCHESTRATOR = 2**20, {"max_message_bytes": 2**20, "max_image_bytes": 2**16}


@asynccontextmanager
async def serving(stage: FakeDetection | FakeRecognition, max_message_bytes: int) -> AsyncIterator[str]:
    """Where the stage is."""
    server = FakeServer(stage, max_message_bytes=max_message_bytes)
    try:
        yield await server.start()
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("stage_limit", "options", "large", "calls"),
    [
        (SMALL_STAGE, {}, picture(1, size_bytes=2**21), 0),
        (SMALL_STAGE, {}, picture(1, regions=30, crop_bytes=60_000), 1),
        (2**26, SMALL_ORCHESTRATOR, picture(1, regions=30, crop_bytes=60_000), 1),
    ],
    ids=["image over the stage's limit", "answer over the stage's limit", "answer over the orchestrator's limit"],
)
async def test_what_fits_in_no_message_of_detection_is_told_after_one_call(
    stage_limit: int, options: dict[str, int], large: bytes, calls: int
) -> None:
    stage = FakeDetection()
    async with serving(stage, stage_limit) as address, Cluster([], detection=address, **options) as cluster:
        events = await cluster.process(Source(image=large), Source(image=picture(2)), timeout_s=60)
        (replica,) = cluster.service.stages["detection"].replicas
        # No fault of the replica: it is not left alone for it.
        assert replica.occupancy.held_until_s == float("-inf")
    assert events["0"].error is not None
    assert events["0"].error.reason == "IMAGE_TOO_LARGE"
    assert "detection" in events["0"].error.message
    assert events["1"].done is not None
    assert stage.seen == {2: 1} | ({1: calls} if calls else {})


async def test_crops_that_fit_in_no_message_of_recognition_are_told_after_one_call() -> None:
    stage = FakeRecognition()
    async with serving(stage, SMALL_STAGE) as address, Cluster(readers=[], recognition=address) as cluster:
        events = await cluster.process(Source(image=picture(1, regions=30, crop_bytes=60_000)), timeout_s=60)
        (replica,) = cluster.service.stages["recognition"].replicas
        assert replica.occupancy.sent == 1
    assert events["0"].done is not None
    assert {error.reason for error in events["0"].region_errors.values()} == {"IMAGE_TOO_LARGE"}
    assert sorted(events["0"].region_errors) == list(range(30))
