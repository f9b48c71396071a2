"""The orchestrator with stages of another release: one that says less than today's, and one that says more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, picture

from sluiceway.detection.v1 import detection_pb2
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.recognition.v1 import recognition_pb2

Source = pipeline_pb2.Source

# Field 999, length-delimited: what a later release may add to any message.
ADDED = b"\xba\x3e\x06future"


class OlderDetection(FakeDetection):
    """Answers with what an answer cannot be without: no load, no timings, no model, and knows no priorities."""

    async def Detect(self, request: Any, context: Any) -> detection_pb2.DetectResponse:
        answer = await super().Detect(request, context)
        for name in ("load", "timings", "model"):
            answer.ClearField(name)  # type: ignore[arg-type]
        return answer


class OlderRecognition(FakeRecognition):
    async def Recognize(self, request: Any, context: Any) -> AsyncIterator[recognition_pb2.RecognizeResponse]:
        async for answer in super().Recognize(request, context):
            for name in ("load", "timings", "model"):
                answer.ClearField(name)  # type: ignore[arg-type]
            yield answer


class NewerDetection(FakeDetection):
    """Adds fields at every level, and a region of a shape that nobody knows yet."""

    async def Detect(self, request: Any, context: Any) -> detection_pb2.DetectResponse:
        answer = await super().Detect(request, context)
        answer.detections[0].MergeFromString(ADDED)
        answer.detections[0].geometry.MergeFromString(ADDED)
        answer.detections.add(id=3, class_name="textline", confidence=0.1).geometry.MergeFromString(ADDED)
        answer.load.MergeFromString(ADDED)
        for crop in answer.crops:
            crop.MergeFromString(ADDED)
        return detection_pb2.DetectResponse.FromString(answer.SerializeToString() + ADDED)

    async def Describe(self, request: Any, context: Any) -> detection_pb2.DescribeResponse:
        return detection_pb2.DescribeResponse.FromString(
            (await super().Describe(request, context)).SerializeToString() + ADDED
        )


class NewerRecognition(FakeRecognition):
    """Adds fields, and offers a model with a head and a resize rule that nobody knows yet."""

    async def Recognize(self, request: Any, context: Any) -> AsyncIterator[recognition_pb2.RecognizeResponse]:
        async for answer in super().Recognize(request, context):
            for item in answer.recognitions:
                item.text.MergeFromString(ADDED)
            yield recognition_pb2.RecognizeResponse.FromString(answer.SerializeToString() + ADDED)

    async def Describe(self, request: Any, context: Any) -> recognition_pb2.DescribeResponse:
        description = await super().Describe(request, context)
        added = description.models.add()
        added.model.name, added.crop_spec.name = "from-the-future", "from-the-future"
        added.head, added.crop_spec.resize_rule = 99, 99  # type: ignore[assignment]
        added.crop_spec.height, added.crop_spec.max_width = 48, 320
        added.crop_spec.classes.append("nothing that is found")
        return description


async def test_stages_that_say_less() -> None:
    async with Cluster([OlderDetection()], [OlderRecognition()]) as cluster:
        for number in range(20):
            (source,) = (await cluster.process(Source(image=picture(number, regions=3)), priority=1)).values()
            assert source.error is None
            assert source.texts == {f"{number}:{region}": 1 for region in range(3)}
            assert source.done is not None
            assert list(source.done.reading_order) == [2, 1, 0]


async def test_stages_that_say_more() -> None:
    async with Cluster([NewerDetection()], [NewerRecognition()]) as cluster:
        (source,) = (await cluster.process(Source(image=picture(5, regions=3)))).values()
    assert source.error is None
    assert source.texts == {f"5:{region}": 1 for region in range(3)}
    assert source.detections is not None
    assert [found.id for found in source.detections.regions] == [0, 1, 2, 3]
    # What this release does not know reaches a client that may.
    assert ADDED in source.detections.regions[0].SerializeToString()
    assert source.done is not None
    assert set(source.done.reading_order) == {0, 1, 2, 3}


async def test_a_request_with_what_this_release_does_not_know() -> None:
    async with Cluster() as cluster:
        request = pipeline_pb2.ProcessRequest(job_id="new", sources=[Source(image=picture(1))])
        request.options.MergeFromString(ADDED)
        request = pipeline_pb2.ProcessRequest.FromString(request.SerializeToString() + ADDED)
        kinds = [event.WhichOneof("event") async for event in cluster.stub.Process(request, timeout=20)]
    assert kinds == ["source_ready", "regions", "values", "done", "job_done"]
