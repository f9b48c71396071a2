"""Honest retries: how often a request is sent, and what its client hears when that was for nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
import pytest
from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, picture
from sluiceway_runtime.errors import InvalidImage, QueueFull, Unavailable
from waiting import until

from sluiceway.pipeline.v1 import pipeline_pb2

Source = pipeline_pb2.Source


def raising(make: Callable[[], Exception]) -> Callable[..., Awaitable[None]]:
    async def before(*_: int) -> None:
        raise make()

    return before


async def both_are_there(cluster: Cluster, stage: str, count: int = 2) -> None:
    await until(lambda: sum(replica.ready for replica in cluster.service.stages[stage].replicas) >= count)


@pytest.mark.parametrize("hint_s", [None, 0.1])
@pytest.mark.parametrize("replicas", [1, 2, 4])
async def test_an_image_that_every_replica_refuses_is_sent_three_times_and_the_client_hears_why(
    hint_s: float | None, replicas: int
) -> None:
    full = raising(lambda: QueueFull("the queue is full", metadata={"limit": "7"}, retry_after_s=hint_s))
    detectors = [FakeDetection(before=full) for _ in range(replicas)]
    async with Cluster(detectors) as cluster:
        await both_are_there(cluster, "detection", replicas)
        images = [Source(source_id=str(n), image=picture(n, size_bytes=200_000)) for n in range(4)]
        heard = await cluster.process(*images, timeout_s=20)
    sent = [sum(detector.seen[number] for detector in detectors) for number in range(4)]
    assert max(sent) <= 3
    for source in heard.values():
        assert source.error is not None
        assert source.error.reason == "QUEUE_FULL"
        assert source.error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert source.error.metadata["limit"] == "7"
        assert source.error.retry_after_ms > 0


async def test_refusals_count_against_the_budget_of_retries() -> None:
    """A stage that stays full hears each image once, when the reserve is used up, and not three times."""
    detector = FakeDetection(before=raising(lambda: QueueFull("full", retry_after_s=0.001)))
    async with Cluster([detector], retry_ratio=0) as cluster:
        await both_are_there(cluster, "detection", 1)
        while cluster.service.stages["detection"].retries.spend():
            pass
        images = [Source(source_id=str(n), image=picture(n)) for n in range(10)]
        heard = await cluster.process(*images)
    assert {source.error.reason for source in heard.values() if source.error} == {"QUEUE_FULL"}
    assert sum(detector.seen.values()) == 10


class Breaking(FakeDetection):
    """Breaks off on some pictures, as a front that dies does: without details of ours."""

    async def Detect(self, request: Any, context: Any) -> Any:
        answer = await super().Detect(request, context)
        if request.image[4:8] == (666).to_bytes(4, "big"):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return answer


async def test_a_request_that_broke_two_fronts_is_not_tried_on_a_third() -> None:
    detectors = [Breaking() for _ in range(4)]
    async with Cluster(detectors) as cluster:
        await both_are_there(cluster, "detection", 4)
        heard = await cluster.process(
            Source(source_id="bad", image=picture(666)), *[Source(source_id=str(n), image=picture(n)) for n in range(8)]
        )
    assert sum(detector.seen[666] for detector in detectors) == 2
    assert sum(detector.seen[666] > 0 for detector in detectors) == 2, "another one each time"
    bad = heard.pop("bad")
    assert bad.error is not None
    assert (bad.error.reason, bad.error.retry_after_ms > 0) == ("UNAVAILABLE", True)
    assert all(source.done is not None for source in heard.values())


async def test_crops_that_broke_two_readers_are_not_tried_on_a_third() -> None:
    class Dying(FakeRecognition):
        async def Recognize(self, request: Any, context: Any) -> Any:
            async for answer in super().Recognize(request, context):
                yield answer
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    readers = [Dying(group=1) for _ in range(4)]
    async with Cluster(readers=readers) as cluster:
        await both_are_there(cluster, "recognition", 4)
        source = (await cluster.process(Source(image=picture(1, regions=5))))["0"]
    # Each of the two gave one answer before it broke; what was answered is not sent again.
    assert source.texts.total() == 2
    assert {error.reason for error in source.region_errors.values()} == {"UNAVAILABLE"}
    assert len(source.region_errors) == 3
    assert max(sum(reader.seen["fake-reader", 1, region] for reader in readers) for region in range(5)) <= 2


async def test_a_replica_that_drains_is_passed_over_and_what_is_wrong_with_an_image_is_not_tried_again() -> None:
    draining = FakeDetection(before=raising(lambda: Unavailable("draining")))
    async with Cluster([draining, FakeDetection()]) as cluster:
        await both_are_there(cluster, "detection")
        heard = await cluster.process(*[Source(source_id=str(n), image=picture(n)) for n in range(10)])
        assert all(source.done is not None for source in heard.values())
    bad = FakeDetection(before=raising(lambda: InvalidImage("no image")))
    async with Cluster([bad]) as cluster:
        heard = await cluster.process(Source(image=picture(1)))
    assert heard["0"].error is not None
    assert heard["0"].error.reason == "INVALID_IMAGE"
    assert bad.seen == {1: 1}
