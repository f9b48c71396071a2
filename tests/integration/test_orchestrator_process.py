"""The orchestrator's server against stages without models: what a client sees of a job."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from sluiceway_orchestrator.stages.detection import DetectionClient, Found
from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, picture
from sluiceway_orchestrator.testing.cluster import account
from sluiceway_orchestrator.wire import Buffers
from sluiceway_runtime.errors import InvalidImage, ModelFailed, QueueFull

from sluiceway.common.v1 import model_pb2
from sluiceway.pipeline.v1 import pipeline_pb2

Source = pipeline_pb2.Source


async def test_one_image_gives_every_event_once_and_in_order() -> None:
    async with Cluster() as cluster:
        (source,) = (await cluster.process(Source(image=picture(7, regions=3)))).values()
    assert source.order == ["source_ready", "regions", "values", "done"]
    assert source.ready is not None
    assert source.ready.size_bytes == len(picture(7))
    assert source.detections is not None
    assert source.detections.step == "text"
    assert (source.detections.page.width, source.detections.page.height) == (640, 480)
    assert list(source.detections.recognizing) == [0, 1, 2]
    assert source.texts == {"7:0": 1, "7:1": 1, "7:2": 1}
    assert source.done is not None
    assert list(source.done.reading_order) == [2, 1, 0]
    reports = {report.step: report for report in source.done.steps}
    assert list(reports) == ["text", "words"]
    assert [(model.name, model.weights_sha256[:1]) for report in reports.values() for model in report.models] == [
        ("fake-detector", "d"),
        ("fake-reader", "e"),
    ]
    assert reports["text"].timings.compute_ms == 1
    assert source.done.total_ms >= reports["words"].timings.total_ms > 0
    assert [report.failed for report in reports.values()] == [0, 0]


async def test_no_region_is_a_normal_result() -> None:
    async with Cluster() as cluster:
        (source,) = (await cluster.process(Source(image=picture(1, regions=0)))).values()
        assert source.order == ["source_ready", "regions", "done"]
        assert cluster.recognition[0].stage.seen == {}


async def test_detect_only_cuts_and_reads_nothing() -> None:
    async with Cluster() as cluster:
        (source,) = (await cluster.process(Source(image=picture(1)), detect_only=True)).values()
        assert source.order == ["source_ready", "regions", "done"]
        assert source.detections is not None
        assert len(source.detections.regions) == 2
        assert not source.detections.recognizing


async def test_values_are_streamed_while_the_stage_still_reads() -> None:
    """The recogniser holds crop 2 until the client has crop 1: only a real stream ends at all."""
    acknowledged = asyncio.Event()

    async def hold(_number: int, region: int) -> None:
        if region == 1:
            await acknowledged.wait()

    async with Cluster(readers=[FakeRecognition(before=hold)]) as cluster:
        call = cluster.stub.Process(pipeline_pb2.ProcessRequest(sources=[Source(image=picture(5))]), timeout=30)
        texts = []
        async for event in call:
            for item in event.values.values:
                texts.append(item.text.text)
                acknowledged.set()
    assert texts == ["5:0", "5:1"]


async def test_a_source_does_not_wait_for_its_neighbours() -> None:
    """The second image is held in detection until the first is completely done."""
    first_done = asyncio.Event()

    async def hold(number: int) -> None:
        if number == 2:
            await first_done.wait()

    async with Cluster([FakeDetection(before=hold)]) as cluster:
        sources = [Source(image=picture(1)), Source(image=picture(2))]
        order = []
        async for event in cluster.stub.Process(pipeline_pb2.ProcessRequest(sources=sources), timeout=30):
            if event.HasField("done"):
                order.append(event.source_id)
                first_done.set()
    assert order == ["0", "1"]


async def test_a_failed_source_leaves_its_neighbours_alone() -> None:
    async def refuse(number: int) -> None:
        if number == 2:
            raise InvalidImage("truncated")

    async with Cluster([FakeDetection(before=refuse)]) as cluster:
        sources = await cluster.process(
            Source(source_id="good", image=picture(1)),
            Source(source_id="bad", image=picture(2)),
            Source(source_id="empty", image=b""),
            Source(source_id="nothing"),
            Source(source_id="also good", image=picture(3)),
        )
        samples = [sample for family in cluster.server.registry.collect() for sample in family.samples]
    ended = {
        sample.labels["outcome"]: sample.value
        for sample in samples
        if sample.name == "sluiceway_source_duration_seconds_count"
    }
    assert ended == {"done": 2, "failed": 3, "cancelled": 0}
    failures = {
        sample.labels["reason"]: sample.value for sample in samples if sample.name == "sluiceway_source_failures_total"
    }
    assert {reason: number for reason, number in failures.items() if number} == {
        "INVALID_IMAGE": 2,
        "INVALID_OPTION": 1,
    }
    assert sources["good"].done is not None
    assert sources["also good"].texts == {"3:0": 1, "3:1": 1}
    errors = {name: source.error.reason for name, source in sources.items() if source.error is not None}
    assert errors == {"bad": "INVALID_IMAGE", "empty": "INVALID_IMAGE", "nothing": "INVALID_OPTION"}
    assert sources["bad"].error is not None
    assert sources["bad"].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert sources["bad"].error.message == "truncated"


async def test_recognition_that_fails_is_an_error_for_each_region() -> None:
    async def fail(number: int, region: int) -> None:
        if region == 1:
            raise ModelFailed("it raised")

    async with Cluster(readers=[FakeRecognition(before=fail)]) as cluster:
        (source,) = (await cluster.process(Source(image=picture(4, regions=3)))).values()
    assert source.texts == {"4:0": 1}
    assert {region: error.reason for region, error in source.region_errors.items()} == {
        1: "MODEL_FAILED",
        2: "MODEL_FAILED",
    }
    assert source.done is not None
    assert [(report.step, report.failed) for report in source.done.steps] == [("text", 0), ("words", 2)]


async def test_a_bug_in_one_source_is_an_internal_error_of_that_source(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It leaves its neighbours and every count of the server as they were, and its text goes to the log alone."""
    detect = DetectionClient.detect

    async def buggy(self: DetectionClient, request: Buffers, *others: Any) -> Found:
        found = await detect(self, request, *others)
        if picture(2) in request.join():
            raise ZeroDivisionError("a detail of the program")
        return found

    monkeypatch.setattr(DetectionClient, "detect", buggy)
    async with Cluster() as cluster:
        sources = await cluster.process(*(Source(image=picture(number)) for number in range(1, 4)))
        assert (await cluster.process(Source(image=picture(4))))["0"].done is not None
        assert cluster.service.status()["jobs"] == 0
        assert not any(cluster.service.executor._admissions["read"]._counts)
        assert cluster.service.executor.metrics.failed("INTERNAL") == 1
        forging = pipeline_pb2.ProcessRequest(job_id="x\nERROR all is lost", sources=[Source(image=picture(2))])
        await account(cluster.stub.Process(forging))
    assert not [record for record in caplog.records if "\n" in record.getMessage()], "names are no lines of the log"
    error = sources["1"].error
    assert error is not None
    assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL.value[0], "INTERNAL")
    assert b"detail" not in error.SerializeToString()
    assert "a detail of the program" in caplog.text
    assert sources["0"].texts == {"1:0": 1, "1:1": 1}
    assert sources["2"].texts == {"3:0": 1, "3:1": 1}


async def test_a_full_stage_is_back_pressure_and_no_error() -> None:
    detector = FakeDetection()

    async def full_at_first(number: int) -> None:
        if detector.seen[number] <= 2:
            raise QueueFull("full", retry_after_s=0.01)

    detector.before = full_at_first
    async with Cluster([detector]) as cluster:
        sources = await cluster.process(*(Source(image=picture(number)) for number in range(8)))
        assert all(source.done is not None for source in sources.values())
    assert detector.seen == dict.fromkeys(range(8), 3)


async def test_a_stage_that_stays_full_is_told_after_three_tries() -> None:
    """Each sends the bytes of the image again, so the client is the one to wait, and hears for how long."""

    async def full(_number: int) -> None:
        raise QueueFull("full", retry_after_s=0.01)

    detector = FakeDetection(before=full)
    async with Cluster([detector]) as cluster:
        (source,) = (await cluster.process(Source(image=picture(1)))).values()
        tokens = repr(cluster.service.stages["detection"].retries)
    assert source.error is not None
    assert (source.error.code, source.error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], "QUEUE_FULL")
    assert source.error.retry_after_ms > 0
    assert detector.seen == {1: 3}
    assert tokens == "<RetryBudget tokens=510.0>", "each further try costs one"


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (pipeline_pb2.ProcessRequest(), "sources"),
        (pipeline_pb2.ProcessRequest(sources=[Source(image=b"x")] * 5), "limit"),
        (
            pipeline_pb2.ProcessRequest(sources=[Source(source_id="a", image=b"x"), Source(source_id="a", image=b"x")]),
            "unique",
        ),
        (
            pipeline_pb2.ProcessRequest(sources=[Source(image=b"x", calls=[pipeline_pb2.ApiCall(api="a")] * 65)]),
            "calls",
        ),
        (pipeline_pb2.ProcessRequest(sources=[Source(image=b"x")], pipeline="none"), "pipeline"),
        (pipeline_pb2.ProcessRequest(job_id="x" * 129, sources=[Source(image=b"x")]), "job_id"),
        (
            pipeline_pb2.ProcessRequest(
                sources=[Source(image=b"x")],
                options=pipeline_pb2.ProcessOptions(detection=pipeline_pb2.DetectionOptions(confidence=1.5)),
            ),
            "confidence",
        ),
        (
            pipeline_pb2.ProcessRequest(
                sources=[Source(image=b"x")],
                options=pipeline_pb2.ProcessOptions(priority=9),  # type: ignore[arg-type]
            ),
            "priority",
        ),
    ],
)
async def test_a_job_that_cannot_run_is_refused_and_the_next_one_served(
    request_: pipeline_pb2.ProcessRequest, word: str
) -> None:
    async with Cluster(max_sources=4) as cluster:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in cluster.stub.Process(request_, timeout=30):
                pass
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert word in (caught.value.details() or "")
        (source,) = (await cluster.process(Source(image=picture(1)))).values()
        assert source.done is not None


async def test_classes_go_to_their_models_and_each_pair_comes_once() -> None:
    reader = FakeRecognition(models=("words", "logos"))
    detector = FakeDetection(classes=("textline", "image", "logo"), class_of=lambda region: region % 3)
    steps = [
        {"name": "text", "stage": "detection"},
        {"name": "read", "stage": "recognition", "of": "text", "except_classes": ["image"]},
        {"name": "marks", "stage": "recognition", "of": "text", "model": "logos", "classes": ["logo"]},
    ]
    async with Cluster([detector], [reader], pipelines={"read": {"steps": steps}}) as cluster:
        (source,) = (await cluster.process(Source(image=picture(9, regions=6)))).values()
        described = await cluster.stub.Describe(pipeline_pb2.DescribeRequest())
    assert source.detections is not None
    assert sorted(source.detections.recognizing) == [0, 2, 3, 5]
    assert source.texts == {"9:0": 1, "9:3": 1, "9:2": 2, "9:5": 2}
    assert set(reader.seen) == {("words", 9, n) for n in (0, 2, 3, 5)} | {("logos", 9, n) for n in (2, 5)}
    assert {key for key, value in source.values.items() if value.HasField("text")} == {
        *(("read", region) for region in (0, 2, 3, 5)),
        *(("marks", region) for region in (2, 5)),
    }
    (pipeline,) = described.pipelines
    assert [(step.name, step.model, list(step.classes), list(step.except_classes)) for step in pipeline.steps] == [
        ("text", "", [], []),
        ("read", "", [], ["image"]),
        ("marks", "logos", ["logo"], []),
    ]


async def test_describe_tells_stages_limits_and_no_secrets() -> None:
    apis = {
        "files": {
            "url": "http://127.0.0.1:9/{id}",
            "params": ["id"],
            "headers": {"Authorization": "Bearer {secret.token}"},
            "secrets": {"token": "TOKEN"},
        }
    }
    async with Cluster(apis=apis, environment={"TOKEN": "geheim"}, max_sources=3) as cluster:
        await cluster.process(Source(image=picture(1)))
        described = await cluster.stub.Describe(pipeline_pb2.DescribeRequest())
    assert [(stage.name, [endpoint.ready for endpoint in stage.endpoints]) for stage in described.stages] == [
        ("detection", [True]),
        ("recognition", [True]),
    ]
    assert described.stages[0].endpoints[0].load.capacity == 64
    ((detector,), (reader,)) = [
        [model for group in stage.groups for model in group.models] for stage in described.stages
    ]
    assert (list(detector.classes), detector.head) == (["textline", "image"], "regions")
    assert (reader.model.name, reader.head) == ("fake-reader", "text")
    assert described.default_pipeline == "read"
    assert not described.problems
    assert [(api.name, list(api.params)) for api in described.apis] == [("files", ["id"])]
    assert described.max_sources == 3
    assert b"geheim" not in described.SerializeToString()


async def test_large_answers_are_split_between_calls_of_recognition() -> None:
    async with Cluster(max_crops_per_call=16) as cluster:
        (source,) = (await cluster.process(Source(image=picture(3, regions=100)))).values()
    assert source.texts == {f"3:{region}": 1 for region in range(100)}
    assert source.done is not None
    assert list(source.done.reading_order) == list(reversed(range(100)))


async def test_priority_and_options_reach_the_stages() -> None:
    async with Cluster() as cluster:
        stage = cluster.detection[0].stage
        await cluster.process(Source(image=picture(1)), priority=model_pb2.PRIORITY_BULK)
        await cluster.process(Source(image=picture(2)))
    assert isinstance(stage, FakeDetection)
    assert stage.priorities == [model_pb2.PRIORITY_BULK, model_pb2.PRIORITY_NORMAL]


async def test_first_result_of_a_large_job_comes_as_fast_as_that_of_a_small_one() -> None:
    """Detection answers one of 32 images and holds the others until the client has its text: none is needed for that.

    No more of them are with the stage than the few that it asks for, so it has no more to do before the first either.
    """
    read, numbers = asyncio.Event(), range(100, 132)

    async def only_one(_number: int) -> None:
        if detector.seen.total() > 1:
            await read.wait()

    detector = FakeDetection(capacity=2)
    async with Cluster([detector]) as cluster:
        # It has said how much it takes.
        await cluster.process(Source(image=picture(1)))
        detector.seen.clear()
        detector.before = only_one
        request = pipeline_pb2.ProcessRequest(sources=[Source(image=picture(n)) for n in numbers])
        texts = []
        async for event in cluster.stub.Process(request, timeout=30):
            for item in event.values.values:
                if not texts:
                    # A window of twice its capacity and one, and one more for the one that is answered.
                    assert detector.seen.total() <= 6
                    first = next(iter(detector.seen))
                    read.set()
                texts.append(item.text.text)
    assert texts[0] == f"{first}:0"
    assert sorted(texts) == sorted(f"{number}:{region}" for number in numbers for region in range(2))
