"""What jobs say of themselves: pipelines by name, options of steps, their time; streams; and what `Describe` shows."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import grpc.aio
import pytest
from fetching import given_by
from google.protobuf import duration_pb2
from prometheus_client import CollectorRegistry
from sluiceway_orchestrator.fetch import Answer, Call
from sluiceway_orchestrator.pipelines import source_run
from sluiceway_orchestrator.pipelines.tree import RegionTree, SourceLayout
from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, FakeServer, picture
from sluiceway_orchestrator.testing.cluster import account
from waiting import until

from sluiceway.common.v1 import model_pb2
from sluiceway.pipeline.v1 import pipeline_pb2

Source, Request, Options = pipeline_pb2.Source, pipeline_pb2.ProcessRequest, pipeline_pb2.ProcessOptions
Say = pipeline_pb2.ProcessStreamRequest
TEXT = {"name": "text", "stage": "detection"}
WORDS = {"name": "words", "stage": "recognition", "of": "text"}
INSIDE = {"name": "inside", "stage": "inner", "of": "text"}


async def for_ever(*_: int) -> None:
    await asyncio.Event().wait()


def job(name: str, number: int, **more: Any) -> pipeline_pb2.ProcessStreamRequest:
    return Say(job=Request(job_id=name, sources=[Source(image=picture(number))], **more))


def cancel(name: str) -> pipeline_pb2.ProcessStreamRequest:
    return Say(cancel=pipeline_pb2.CancelJob(job_id=name))


class Listening(FakeDetection):
    """Notes the options that it is called with."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.options: list[Any] = []

    async def Detect(self, request: Any, context: Any) -> Any:
        self.options.append(request.options)
        return await super().Detect(request, context)


async def test_options_reach_the_steps_that_they_are_for() -> None:
    page, inner = Listening(), Listening()
    tables = {"p": {"steps": [TEXT, INSIDE | {"options": {"iou": 0.5}}, WORDS]}}
    options: dict[str, Any] = {
        "detection": pipeline_pb2.DetectionOptions(confidence=0.25),
        "steps": {"inside": pipeline_pb2.StepOptions(detection=pipeline_pb2.DetectionOptions(confidence=0.75))},
    }
    async with Cluster([page], stages={"inner": [inner]}, pipelines=tables) as cluster:
        heard = await cluster.process(Source(image=picture(1)), pipeline="p", **options)
        assert heard["0"].done is not None
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cluster.process(Source(image=picture(1)), **options)
    assert [(each.confidence, each.HasField("iou")) for each in page.options] == [(0.25, False)]
    assert [(each.confidence, each.iou) for each in inner.options] == [(0.75, 0.5)]
    # Another pipeline has no such step.
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "inside" in (caught.value.details() or "")


class Turned(FakeRecognition):
    """Finds every text to stand on its head."""

    async def Recognize(self, request: Any, context: Any) -> Any:
        async for answer in super().Recognize(request, context):
            for recognition in answer.recognitions:
                recognition.text.rotation_degrees = 180
            yield answer


async def test_the_last_event_has_lines_and_blocks_and_says_if_the_page_is_turned() -> None:
    async with Cluster() as cluster:
        done = (await cluster.process(Source(image=picture(1, regions=4))))["0"].done
    assert [list(line.region_ids) for line in done.lines] == [[3], [2], [1], [0]]
    assert [list(block.lines) for block in done.blocks] == [[0, 1, 2, 3]]
    assert not done.notices
    async with Cluster(readers=[Turned()]) as cluster:
        done = (await cluster.process(Source(image=picture(1, regions=4))))["0"].done
    # The last line of the page is the first of the text.
    assert [list(line.region_ids) for line in done.lines] == [[0], [1], [2], [3]]
    (notice,) = done.notices
    assert (notice.reason, notice.metadata["degrees"]) == ("PAGE_TURNED", "180")


async def test_lines_of_very_many_regions_do_not_hold_up_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    lay_out = RegionTree.layout

    def noted(tree: RegionTree) -> SourceLayout:
        threads.append(threading.current_thread().name)
        return lay_out(tree)

    monkeypatch.setattr(RegionTree, "layout", noted)
    monkeypatch.setattr(source_run, "AT_ONCE", 5)
    async with Cluster() as cluster:
        for regions in (5, 6):
            done = (await cluster.process(Source(image=picture(1, regions=regions))))["0"].done
            assert len(done.lines) == regions
    assert threads[0] == threading.main_thread().name
    assert threads[1] != threading.main_thread().name


async def test_a_pipeline_that_is_none() -> None:
    async with Cluster() as cluster:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cluster.process(Source(image=picture(1)), pipeline="no")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        call = cluster.stub.ProcessStream()
        await call.write(job("a", 1, pipeline="no"))
        await call.write(job("b", 2))
        await call.done_writing()
        events = [response.event async for response in call]
    assert [event.job_refused.error.reason for event in events if event.HasField("job_refused")] == ["UNKNOWN_PIPELINE"]
    assert [event.job_id for event in events if event.HasField("job_done")] == ["b"]


async def test_each_job_of_a_stream_has_the_time_that_it_says() -> None:
    async def slow(number: int) -> None:
        if number == 1:
            await for_ever()

    detector = FakeDetection(before=slow)
    async with Cluster([detector]) as cluster:
        call = cluster.stub.ProcessStream(timeout=60)
        await call.write(job("short", 1, timeout=duration_pb2.Duration(nanos=300_000_000)))
        await call.write(job("long", 2, timeout=duration_pb2.Duration(seconds=30)))
        await call.write(job("none", 3, timeout=duration_pb2.Duration(seconds=-1)))
        await call.done_writing()
        events = [response.event async for response in call]
    failed = {event.job_id: event.failed.error.reason for event in events if event.HasField("failed")}
    assert failed == {"short": "DEADLINE_EXCEEDED"}
    assert [event.job_id for event in events if event.HasField("done")] == ["long"]
    refused = [(event.job_id, event.job_refused.error.reason) for event in events if event.HasField("job_refused")]
    assert refused == [("none", "INVALID_OPTION")]
    assert detector.cancelled == 1


@pytest.mark.parametrize("most", [64, 2])
async def test_one_job_of_a_stream_is_cancelled(most: int) -> None:
    """Also where as many jobs run as may: what makes room is not kept waiting for room."""
    let_go = asyncio.Event()

    async def hold(_number: int) -> None:
        await let_go.wait()

    detector = FakeDetection(before=hold)
    async with Cluster([detector], max_jobs_per_stream=most) as cluster:
        call = cluster.stub.ProcessStream(timeout=60)
        await call.write(job("a", 1))
        await call.write(job("b", 2))
        await until(lambda: detector.running == 2)
        await call.write(cancel("nobody"))
        await call.write(cancel("a"))
        await until(lambda: detector.cancelled == 1)
        # Its name is free again once the client has heard of its end.
        events = []
        async with asyncio.timeout(30):
            while not events or not events[-1].HasField("job_done"):
                events.append((await call.read()).event)
        assert [event.failed.error.reason for event in events if event.HasField("failed")] == ["CANCELLED"]
        assert {event.job_id for event in events if not event.HasField("source_ready")} == {"a"}
        await call.write(job("a", 3))
        await until(lambda: detector.running == 2)
        let_go.set()
        await call.done_writing()

        async def rest() -> Any:
            while isinstance(response := await call.read(), pipeline_pb2.ProcessStreamResponse):
                yield response.event

        found = await account(rest())
    assert found["b"]["0"].texts == {"2:0": 1, "2:1": 1}
    assert found["a"]["0"].texts == {"3:0": 1, "3:1": 1}


async def test_a_job_of_a_name_that_runs_is_refused_and_the_running_one_goes_on() -> None:
    let_go = asyncio.Event()

    async def hold(_number: int) -> None:
        await let_go.wait()

    detector = FakeDetection(before=hold)
    async with Cluster([detector]) as cluster:
        call = cluster.stub.ProcessStream(timeout=60)
        await call.write(job("a", 1))
        await until(lambda: detector.running == 1)
        await call.write(job("a", 2))
        await call.done_writing()
        events = []
        async with asyncio.timeout(30):
            async for response in call:
                events.append(response.event)
                if response.event.HasField("job_refused"):
                    assert response.event.job_id == "a"
                    assert response.event.job_refused.error.reason == "INVALID_OPTION"
                    let_go.set()
    assert sum(event.HasField("job_refused") for event in events) == 1

    async def others() -> Any:
        for event in events:
            if not event.HasField("job_refused"):
                yield event

    assert (await account(others()))["a"]["0"].texts == {"1:0": 1, "1:1": 1}
    assert not detector.seen[2]


@pytest.mark.parametrize("may", [True, False])
async def test_interactive_is_for_clients_that_may(may: bool) -> None:
    detector = FakeDetection()
    async with Cluster([detector], interactive_clients=["*"] if may else ["screen"]) as cluster:
        heard = await cluster.process(Source(image=picture(1)), priority=model_pb2.PRIORITY_INTERACTIVE)
        assert heard["0"].done is not None
    assert detector.priorities == [model_pb2.PRIORITY_INTERACTIVE if may else model_pb2.PRIORITY_NORMAL]


async def test_describe_shows_pipelines_stages_and_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_call: Call) -> Answer:
        return Answer(None)

    tables = {
        "p": {
            "steps": [
                {"name": "first", "api": "book"},
                TEXT | {"classes": ["textline"]},
                INSIDE | {"classes": ["wheel"]},
                WORDS | {"model": "no-such", "except_classes": ["image"], "on_error": "fail"},
                {"name": "last", "api": "book", "after": ["words", "inside"], "params": {"item": "{values}"}},
            ]
        }
    }
    async with Cluster(
        [FakeDetection(), FakeDetection(), FakeDetection(version="2")],
        stages={"inner": [FakeDetection()]},
        pipelines=tables,
        apis={"book": {"caller": given_by(monkeypatch, answer)}},
        default_pipeline="p",
    ) as cluster:
        described = pipeline_pb2.DescribeResponse()
        async with asyncio.timeout(30):
            while len(described.problems) < 2 or sum(e.ready for s in described.stages for e in s.endpoints) < 5:
                described = await cluster.stub.Describe(pipeline_pb2.DescribeRequest())
    assert described.default_pipeline == "p"
    pipelines = {pipeline.name: {step.name: step for step in pipeline.steps} for pipeline in described.pipelines}
    assert set(pipelines) == {"p"}
    steps = pipelines["p"]
    assert list(steps) == ["first", "text", "inside", "words", "last"]
    assert [step.kind for step in steps.values()] == ["call", "detect", "detect", "recognize", "call"]
    assert (steps["first"].api, list(steps["first"].params)) == ("book", ["item"])
    assert (steps["text"].stage, steps["text"].of, list(steps["text"].classes)) == ("detection", "", ["textline"])
    assert (steps["inside"].of, list(steps["inside"].classes)) == ("text", ["wheel"])
    assert (steps["words"].model, list(steps["words"].except_classes)) == ("no-such", ["image"])
    assert [step.on_error for step in steps.values()] == ["skip", "fail", "skip", "fail", "skip"]
    assert (list(steps["last"].after), list(steps["last"].params)) == (["words", "inside"], [])
    problems = sorted(described.problems)
    assert [problem.split(":")[0] for problem in problems] == [
        "pipelines.p.steps.inside.classes", "pipelines.p.steps.words.model",
    ]  # fmt: skip
    stages = {stage.name: stage for stage in described.stages}
    assert {name: stage.kind for name, stage in stages.items()} == {
        "detection": "detection", "recognition": "recognition", "inner": "detection",
    }  # fmt: skip
    # The version with the most replicas first; every replica says which it is of.
    assert [(group.ready, group.models[0].model.version) for group in stages["detection"].groups] == [
        (2, "1"),
        (1, "2"),
    ]
    names = [group.name for group in stages["detection"].groups]
    assert sorted(endpoint.group for endpoint in stages["detection"].endpoints) == sorted([names[0], *names])
    assert stages["recognition"].groups[0].models[0].head == "text"
    assert stages["inner"].groups[0].models[0].HasField("crop_spec")


async def test_a_step_whose_model_no_version_has_fails_by_its_name() -> None:
    tables = {"p": {"steps": [TEXT, WORDS | {"model": "no-such"}]}}
    async with Cluster(pipelines=tables) as cluster:
        heard = (await cluster.process(Source(image=picture(1)), pipeline="p"))["0"]
        assert heard.error is not None
        assert (heard.error.reason, "words" in heard.error.message) == ("UNKNOWN_MODEL", True)
        # Who wants regions alone is not kept from them.
        alone = (await cluster.process(Source(image=picture(1)), pipeline="p", detect_only=True))["0"]
        assert alone.done is not None


def backlog(cluster: Cluster) -> dict[str, float]:
    registry = CollectorRegistry()
    cluster.service.collectors(registry)
    names = ("detection", "recognition")
    return {name: registry.get_sample_value("sluiceway_stage_backlog_items", {"stage": name}) or 0 for name in names}


@pytest.mark.parametrize("away", ["detection", "recognition"])
async def test_sources_wait_for_a_stage_that_is_at_zero_and_it_is_seen_that_they_do(away: str) -> None:
    """What waits is what a stage is scaled by, from zero too; both are woken at once where both are away."""
    detector, reader = FakeDetection(), FakeRecognition()
    addresses = {}
    spare = FakeServer(detector if away == "detection" else reader)
    # A port that is free now, and where the stage will be.
    address = await spare.start()
    await spare.stop()
    addresses[away] = address
    stages = {
        "detectors": [] if away == "detection" else [detector],
        "readers": [] if away != "detection" else [reader],
    }
    async with Cluster(**stages, **addresses, resolve_interval_s=0.5) as cluster:
        work = asyncio.create_task(
            cluster.process(*[Source(source_id=str(n), image=picture(n)) for n in range(3)], timeout_s=60)
        )
        await until(lambda: backlog(cluster)[away] == 3)
        # Nothing was computed that nobody could go on with.
        assert not detector.seen
        server = FakeServer(detector if away == "detection" else reader)
        await server.start(address)
        try:
            heard = await work
        finally:
            await server.stop()
        assert all(source.done is not None for source in heard.values())
        assert backlog(cluster) == {"detection": 0, "recognition": 0}


async def test_a_stage_that_does_not_come_is_told_of_before_the_time_is_over() -> None:
    async with Cluster(readers=[]) as cluster:
        heard = (await cluster.process(Source(image=picture(1)), timeout_s=1.5))["0"]
        assert heard.error is not None
        assert (heard.error.reason, "recognition" in heard.error.message) == ("UNAVAILABLE", True)
        assert heard.error.retry_after_ms > 0
        await until(lambda: backlog(cluster) == {"detection": 0, "recognition": 0})
