"""Stories of requests, told by an orchestrator's real server between stages without models."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest
from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, picture
from sluiceway_runtime.errors import ModelFailed, QueueFull
from waiting import until

from sluiceway.client import AsyncClient, Explanation, critical_path
from sluiceway.client.stories import Call, SpanKind
from sluiceway.errors import SluicewayError
from sluiceway.pipeline.v1 import pipeline_pb2


async def told(cluster: Cluster, request_id: str, **options: Any) -> Explanation:
    async with AsyncClient(f"127.0.0.1:{cluster.server.port}", **options) as client:
        return await client.explain(request_id)


def only_job(explanation: Explanation) -> Call:
    ((_, job),) = explanation.jobs
    return job


async def test_a_request_is_told_by_its_id() -> None:
    async with Cluster() as cluster, AsyncClient(f"127.0.0.1:{cluster.server.port}") as client:
        result = await client.process(picture(1, regions=3))
        explanation = await client.explain(result.request_id)
        job = only_job(explanation)
        assert (job.method, job.pipeline, job.running) == ("Process", "read", False)
        calls = [span for span in job.spans if span.kind is SpanKind.CALL]
        assert [(span.step, span.stage, span.items) for span in calls] == [
            ("text", "detection", 1),
            ("words", "recognition", 3),
        ]
        assert [span.address for span in calls] == [cluster.detection[0].address, cluster.recognition[0].address]
        path = critical_path(explanation, job)
        assert path.unaccounted_ms <= max(2.0, 0.02 * path.total_ms), path.segments
        assert path.total_ms == pytest.approx(job.duration_ms, abs=2)


async def test_stages_of_a_release_without_recorders_are_said_to_be_so() -> None:
    """The stages without models have no `RecorderService`, as those of earlier releases."""

    async def as_long_as_it_says(_: int) -> None:
        await asyncio.sleep(0.005)

    async with (
        Cluster([FakeDetection(before=as_long_as_it_says)]) as cluster,
        AsyncClient(f"127.0.0.1:{cluster.server.port}") as client,
    ):
        result = await client.process(picture(1))
        explanation = await client.explain(result.request_id)
        assert [(server.server, server.error.code if server.error else "") for server in explanation.servers] == [
            ("orchestrator", ""),
            ("detection", "UNIMPLEMENTED"),
            ("recognition", "UNIMPLEMENTED"),
        ]
        # What they said in their answers is there.
        assert "compute" in {item.what for item in critical_path(explanation, only_job(explanation)).segments}


async def test_an_orchestrator_of_a_release_without_a_recorder_is_said_to_be_so() -> None:
    async with Cluster() as cluster, AsyncClient(cluster.detection[0].address) as client:
        with pytest.raises(SluicewayError, match="remembers no requests") as caught:
            await client.explain("r")
        assert caught.value.code == "UNIMPLEMENTED"


async def test_an_unknown_request_is_a_normal_answer() -> None:
    async with Cluster() as cluster:
        explanation = await told(cluster, "nobody")
        assert not explanation.found
        assert [server.server for server in explanation.servers] == ["orchestrator"]


@pytest.mark.parametrize(("most", "left"), [(2, [False, True, True]), (0, [False, False, False])])
async def test_as_many_requests_are_remembered_as_the_configuration_says(most: int, left: list[bool]) -> None:
    async with (
        Cluster(remember_requests=most) as cluster,
        AsyncClient(f"127.0.0.1:{cluster.server.port}") as client,
    ):
        for number in range(3):
            await client.process(picture(number), request_id=f"r{number}")
        assert [(await client.explain(f"r{number}")).found for number in range(3)] == left


async def test_what_was_tried_again_is_told_with_its_reason() -> None:
    refused = asyncio.Event()

    async def refuse_once(_: int) -> None:
        if not refused.is_set():
            refused.set()
            raise QueueFull("no room", retry_after_s=0.01)

    async with Cluster([FakeDetection(before=refuse_once)]) as cluster:
        async with AsyncClient(f"127.0.0.1:{cluster.server.port}") as client:
            result = await client.process(picture(1))
            job = only_job(await client.explain(result.request_id))
        first, second = [span for span in job.spans if span.kind is SpanKind.CALL and span.stage == "detection"]
        assert first.error is not None
        assert (first.error.reason, first.error.message) == ("QUEUE_FULL", "no room")
        assert second.error is None


async def test_a_failed_source_says_why() -> None:
    async def fail(_: int) -> None:
        raise ModelFailed("the model failed on this item", metadata={"story": "0 s: to worker 0 alone"})

    async with Cluster([FakeDetection(before=fail)]) as cluster:
        async with AsyncClient(f"127.0.0.1:{cluster.server.port}") as client:
            with pytest.raises(SluicewayError) as caught:
                await client.process(picture(1))
            job = only_job(await client.explain(caught.value.request_id))
        error = job.sources[0].error
        assert error is not None
        assert (error.reason, error.metadata["story"]) == ("MODEL_FAILED", "0 s: to worker 0 alone")


async def test_a_request_that_was_refused_is_told_though_it_became_no_job() -> None:
    async with Cluster() as cluster:
        async with AsyncClient(f"127.0.0.1:{cluster.server.port}") as client:
            with pytest.raises(SluicewayError):
                await client.process(picture(1), pipeline="none", request_id="refused")
            explanation = await client.explain("refused")
        assert explanation.jobs == ()
        ((call,),) = [server.calls for server in explanation.servers]
        assert call.error is not None
        assert call.error.reason == "UNKNOWN_PIPELINE"


async def test_a_request_that_runs_is_told_as_far_as_it_is() -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_: int, __: int) -> None:
        reached.set()
        await go_on.wait()

    async with (
        Cluster(readers=[FakeRecognition(before=wait)]) as cluster,
        AsyncClient(f"127.0.0.1:{cluster.server.port}") as client,
    ):
        running = asyncio.create_task(client.process(picture(1), request_id="running"))
        await reached.wait()
        job = only_job(await client.explain("running"))
        assert job.running
        open_call = max(job.spans, key=lambda span: span.start_ms)
        assert (open_call.kind, open_call.stage) == (SpanKind.CALL, "recognition")
        go_on.set()
        await running
        assert not only_job(await client.explain("running")).running


async def test_a_cancelled_request_is_told_as_such() -> None:
    reached = asyncio.Event()

    async def hang(_: int) -> None:
        reached.set()
        await asyncio.Event().wait()

    async with Cluster([FakeDetection(before=hang)]) as cluster:
        async with AsyncClient(f"127.0.0.1:{cluster.server.port}") as client:
            running = asyncio.create_task(client.process(picture(1), request_id="cancelled"))
            await reached.wait()
            running.cancel()

            async def ended() -> Call | None:
                job = only_job(await client.explain("cancelled"))
                return None if job.running else job

            job = await until(ended)
        assert job is not None
        error = job.sources[0].error
        assert error is not None
        assert error.code == "CANCELLED"


async def test_jobs_of_a_stream_have_stories_of_their_own() -> None:
    async with Cluster() as cluster, AsyncClient(f"127.0.0.1:{cluster.server.port}") as client:
        results = [result async for result in client.process_many([picture(1), picture(2)], request_id="many")]
        assert [result.request_id for result in results] == ["many.0", "many.1"]
        for result in results:
            job = only_job(await client.explain(result.request_id))
            assert (job.method, job.job_id) == ("job", result.request_id)


async def test_two_orchestrators_are_both_asked() -> None:
    async with Cluster() as first, Cluster() as second:
        async with AsyncClient(f"127.0.0.1:{second.server.port}") as client:
            await client.process(picture(1), request_id="second")
        async with AsyncClient(f"127.0.0.1:{first.server.port},127.0.0.1:{second.server.port}") as client:
            explanation = await client.explain("second")
        ((server, _),) = explanation.jobs
        assert server.instance == second.server.recorder.instance
        assert {item.instance for item in explanation.servers if item.server == "orchestrator"} == {
            first.server.recorder.instance,
            second.server.recorder.instance,
        }


async def test_an_orchestrator_that_is_not_there_is_named() -> None:
    async with Cluster() as cluster:
        async with AsyncClient(f"127.0.0.1:9,127.0.0.1:{cluster.server.port}") as client:
            result = await client.process(picture(1))
            explanation = await client.explain(result.request_id)
        assert explanation.found
        gone = [server for server in explanation.servers if server.address == "127.0.0.1:9"]
        assert [server.error.code for server in gone if server.error] == ["UNAVAILABLE"]


async def test_a_name_for_both_kinds_of_addresses_is_asked_where_it_listens() -> None:
    async with Cluster() as cluster, AsyncClient(f"localhost:{cluster.server.port}") as client:
        result = await client.process(picture(1))
        explanation = await client.explain(result.request_id)
        assert explanation.found
        assert [server.server for server in explanation.servers if server.server == "orchestrator"] == ["orchestrator"]


async def test_questions_leave_no_story() -> None:
    async with Cluster() as cluster, AsyncClient(f"127.0.0.1:{cluster.server.port}") as client:
        await client.describe()
        await client.explain("r")
        assert len(cluster.server.recorder.calls) == 0


async def command(*arguments: str) -> tuple[int, str, str]:
    """Run `sluiceway explain`, beside the servers of this loop."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sluiceway.cli", "explain", *arguments, stdout=PIPE, stderr=PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_the_command_tells_prints_and_exports(tmp_path: Path) -> None:
    async with Cluster() as cluster:
        address = f"127.0.0.1:{cluster.server.port}"
        async with AsyncClient(address) as client:
            result = await client.process(picture(1))
        code, text, _ = await command(result.request_id, "--address", address)
        assert code == 0
        assert text.startswith(result.request_id)
        assert "What it waited for" in text
        code, text, _ = await command(result.request_id, "--address", address, "--json")
        plain = json.loads(text)
        assert plain["request_id"] == result.request_id
        (path,) = plain["critical_paths"]
        assert sum(item["duration_ms"] for item in path["segments"]) == pytest.approx(path["total_ms"], abs=0.1)
        for name, key in (("story.json", "traceEvents"), ("story.speedscope.json", "profiles")):
            code, text, _ = await command(result.request_id, "--address", address, "--export", str(tmp_path / name))
            assert (code, text) == (0, "")
            assert json.loads((tmp_path / name).read_text())[key]
        code, text, errors = await command("nobody", "--address", address)
        assert (code, text) == (1, "")
        assert "the server remembers no request nobody" in errors
    code, _, errors = await command("nobody", "--address", address)
    assert code == 1
    assert "cannot reach" in errors


async def test_a_client_that_gave_no_id_finds_it_behind_the_answer() -> None:
    async with Cluster() as cluster:
        call = cluster.stub.Process(pipeline_pb2.ProcessRequest(sources=[pipeline_pb2.Source(image=picture(1))]))
        async for _ in call:
            pass
        name = dict(await call.trailing_metadata())["x-request-id"]
        assert only_job(await told(cluster, name)).method == "Process"
