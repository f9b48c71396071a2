"""What the orchestrator tells of the sources that went through it: its metrics and its log."""

from __future__ import annotations

import asyncio
import logging

import grpc.aio
import pytest
from http_port import IMAGE, serve
from prometheus_client import generate_latest
from sluiceway_orchestrator.stages import presence
from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, picture
from sluiceway_orchestrator.testing.cluster import account
from sluiceway_runtime.errors import InvalidImage, QueueFull
from waiting import until

from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.pipeline.v1.pipeline_pb2 import Source


def value(cluster: Cluster, name: str, **labels: str) -> float:
    found = cluster.server.registry.get_sample_value(name, labels)
    assert found is not None, (name, labels)
    return found


async def comes_to(cluster: Cluster, name: str, wanted: float, **labels: str) -> None:
    await until(
        lambda: value(cluster, name, **labels) == wanted,
        what=f"{name} of {labels} is {wanted:g}",
        state=lambda: value(cluster, name, **labels),
    )


async def test_where_the_time_of_a_source_went() -> None:
    async def slow(_number: int) -> None:
        await asyncio.sleep(0.06)

    async with Cluster([FakeDetection(before=slow)]) as cluster:
        await cluster.process(Source(image=picture(1)), Source(image=picture(2)))
        ended = {"pipeline": "read", "outcome": "done"}
        assert value(cluster, "sluiceway_source_duration_seconds_count", **ended) == 2
        assert value(cluster, "sluiceway_source_duration_seconds_bucket", **ended, le="0.05") == 0
        assert value(cluster, "sluiceway_regions_total", result="read") == 4
        for step in ("text", "words"):
            for phase in ("backlog", "transfer", "queue", "batch", "compute"):
                labels = {"pipeline": "read", "step": step, "phase": phase}
                assert value(cluster, "sluiceway_step_duration_seconds_count", **labels) == 2, labels
        # These stages say that they took next to nothing, so the time lies between them and the orchestrator.
        labels = {"pipeline": "read", "step": "text", "phase": "transfer"}
        assert value(cluster, "sluiceway_step_duration_seconds_sum", **labels) >= 0.1


async def test_every_end_of_a_source_is_counted() -> None:
    held = asyncio.Event()

    async def hold(number: int) -> None:
        if number == 1:
            raise InvalidImage("truncated")
        await held.wait()

    async with Cluster([FakeDetection(before=hold)]) as cluster:
        await cluster.process(Source(image=picture(1)), detect_only=True)
        labels = {"pipeline": "read"}
        leaving = cluster.stub.Process(pipeline_pb2.ProcessRequest(sources=[Source(image=picture(2))]))
        await comes_to(cluster, "sluiceway_stage_in_flight_items", 1, stage="detection")
        leaving.cancel()
        await comes_to(cluster, "sluiceway_source_duration_seconds_count", 1, **labels, outcome="cancelled")
        assert value(cluster, "sluiceway_source_failures_total", **labels, reason="CANCELLED") == 1
        assert value(cluster, "sluiceway_source_failures_total", **labels, reason="QUARANTINED") == 0, "it is there"
        held.set()


async def test_sources_whose_time_runs_out_are_counted() -> None:
    async def never(_number: int) -> None:
        await asyncio.sleep(3600)

    # The server's own limit: the client waits on, and hears of it.
    async with Cluster([FakeDetection(before=never)], max_deadline_s=0.3) as cluster:
        await cluster.process(Source(image=picture(3)))
        reason = {"pipeline": "read", "reason": "DEADLINE_EXCEEDED"}
        assert value(cluster, "sluiceway_source_failures_total", **reason) == 1


async def test_the_age_of_what_waits_for_a_stage_that_is_away() -> None:
    async with Cluster([], detection="127.0.0.1:9", max_deadline_s=2) as cluster:
        waiting = asyncio.create_task(cluster.process(Source(image=picture(1))))
        await comes_to(cluster, "sluiceway_stage_backlog_items", 1, stage="detection")
        first = value(cluster, "sluiceway_stage_oldest_wait_seconds", stage="detection")
        await asyncio.sleep(0.05)
        assert value(cluster, "sluiceway_stage_oldest_wait_seconds", stage="detection") >= first + 0.05
        await waiting
        assert value(cluster, "sluiceway_stage_oldest_wait_seconds", stage="detection") == 0
        assert value(cluster, "sluiceway_stage_wait_seconds_count", stage="detection") == 1
        assert value(cluster, "sluiceway_stage_ready_replicas", stage="detection") == 0


async def test_calls_that_were_made_again_say_why() -> None:
    refused = 0

    async def full_at_first(_number: int) -> None:
        nonlocal refused
        refused += 1
        if refused == 1:
            raise QueueFull("full", retry_after_s=0.01)

    async with Cluster([FakeDetection(before=full_at_first)]) as cluster:
        await cluster.process(Source(image=picture(1)))
        assert value(cluster, "sluiceway_stage_retries_total", stage="detection", reason="full") == 1
        assert value(cluster, "sluiceway_stage_retries_total", stage="detection", reason="broke") == 0
        assert value(cluster, "sluiceway_stage_retry_budget", stage="detection") < 512


async def test_apis_by_name_and_outcome() -> None:
    apis = {"gone": {"url": "http://127.0.0.1:9/", "image": "none", "values": {"a": "/a"}, "retries": 0}}
    async with Cluster(apis=apis, url_sources=False) as cluster:
        await cluster.process(
            Source(image=picture(1), calls=[pipeline_pb2.ApiCall(api="gone")]), Source(url="http://x.test/")
        )
        assert value(cluster, "sluiceway_api_calls_total", api="gone", outcome="ok") == 0
        outcomes = ("failed", "not_allowed")
        assert sum(value(cluster, "sluiceway_api_calls_total", api="gone", outcome=name) for name in outcomes) == 1
        assert value(cluster, "sluiceway_api_calls_total", api="(url)", outcome="not_allowed") == 1
        assert value(cluster, "sluiceway_api_call_duration_seconds_count", api="(url)") == 1


async def test_an_orchestrator_shows_everything_before_it_starts() -> None:
    cluster = Cluster()
    async with cluster:
        pass
    assert b"sluiceway_stage_ready_replicas" in generate_latest(cluster.server.registry)


# The log.


def failures(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if "failed at" in record.getMessage()]


async def test_a_failed_source_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(number: int) -> None:
        raise InvalidImage(f"number {number}\nis truncated")

    caplog.set_level(logging.INFO)
    pipelines = {"strict": {"steps": [{"name": "text", "stage": "detection", "on_error": "fail"}]}}
    async with Cluster([FakeDetection(before=refuse)], pipelines=pipelines) as cluster:
        request = pipeline_pb2.ProcessRequest(
            job_id="j", sources=[Source(source_id="bad", image=picture(2))], pipeline="strict"
        )
        await account(cluster.stub.Process(request, metadata=(("x-request-id", "mine"),)))
    [line] = failures(caplog)
    assert line.getMessage() == ("source 'bad' of job 'j' failed at text: INVALID_IMAGE: number 2 is truncated")
    assert line.levelno == logging.INFO, "it is the sender's own doing"
    assert vars(line)["request_id"] == "mine"


@pytest.mark.parametrize(
    ("source", "where", "level"),
    [
        (Source(url="http://127.0.0.1:9/"), "fetch", logging.INFO),
        (Source(image=picture(1)), "binding", logging.WARNING),
    ],
)
async def test_it_says_where_the_source_was(
    caplog: pytest.LogCaptureFixture, source: Source, where: str, level: int
) -> None:
    caplog.set_level(logging.INFO)
    async with Cluster([], detection="127.0.0.1:9", max_deadline_s=0.5) as cluster:
        await cluster.process(source)
    [line] = failures(caplog)
    assert f"failed at {where}:" in line.getMessage()
    assert line.levelno == level


async def test_it_says_what_ran_when_the_time_ran_out(caplog: pytest.LogCaptureFixture) -> None:
    async def never(_number: int) -> None:
        await asyncio.sleep(3600)

    async with serve(detector=FakeDetection(before=never), max_sources_in_flight=1) as http:
        long = asyncio.create_task(http.post(picture(1), "/v1/process?timeout_s=3", **IMAGE))
        await comes_to(http.cluster, "sluiceway_stage_in_flight_items", 1, stage="detection")
        await http.post(picture(2), "/v1/process?timeout_s=0.3", **IMAGE)
        await long
    told = [line.getMessage().partition("failed at ")[2].partition(":")[0] for line in failures(caplog)]
    assert told == ["admission", "text"]


async def test_a_line_for_each_call_only_where_it_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for asked in (False, True):
        caplog.clear()
        async with Cluster(access_log=asked) as cluster:
            await cluster.process(Source(image=picture(1)))
            with pytest.raises(grpc.aio.AioRpcError):
                await account(cluster.stub.Process(pipeline_pb2.ProcessRequest()))
        told = [text for record in caplog.records if "PipelineService/Process" in (text := record.getMessage())]
        assert len(told) == (2 if asked else 0)
        if asked:
            assert told[0].startswith("/sluiceway.pipeline.v1.PipelineService/Process OK ")
            assert " INVALID_ARGUMENT " in told[1]


async def test_http_requests_are_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serve(access_log=True) as http:
        assert (await http.post(picture(1), **IMAGE))[0] == 200
        assert (await http.post(b"", **IMAGE))[0] == 200
        async with http.session.get(http.url + "/nowhere/42") as response:
            assert response.status == 404
        async with http.session.request("PROPFIND", http.url + "/v1/process") as response:
            assert response.status == 405
        http.port.refuse()
        assert (await http.post(picture(1), **IMAGE))[0] == 503
        families = {
            (
                sample.labels["http_request_method"],
                sample.labels["http_route"],
                sample.labels["http_response_status_code"],
            ): sample.value
            for family in http.port.metrics._requests.collect()
            for sample in family.samples
            if sample.name.endswith("_count")
        }
    assert families == {
        ("POST", "/v1/process", "200"): 2,
        ("GET", "other", "404"): 1,
        ("_OTHER", "other", "405"): 1,
        ("POST", "/v1/process", "503"): 1,
    }
    told = [text for record in caplog.records if (text := record.getMessage()).startswith(("POST ", "GET ", "_OTHER"))]
    assert len(told) == 5
    assert told[0].startswith("POST /v1/process 200 ")


async def test_a_stage_that_is_waited_for_is_told_once_and_once_when_it_comes(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "NOTICE_S", 0.05)
    caplog.set_level(logging.INFO)
    reader = FakeRecognition()
    async with Cluster([], [reader], detection="127.0.0.1:9", resolve_interval_s=0.3) as cluster:
        del cluster
        await asyncio.sleep(1.0)
    told = [text for record in caplog.records if record.name == presence.__name__ and (text := record.getMessage())]
    assert sorted(text.partition(":")[0] for text in told) == ["detection is not there", "recognition is there"]
