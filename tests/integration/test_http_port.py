"""The public HTTP port in front of a real orchestrator and stages without models."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import aiohttp
import grpc.aio
import pytest
from http_port import IMAGE, port_of, serve
from openapi_spec_validator import validate
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.http import HttpConfig
from sluiceway_orchestrator.events import SourceReady
from sluiceway_orchestrator.job import Job
from sluiceway_orchestrator.outbox import Addressed
from sluiceway_orchestrator.testing import Cluster, FakeDetection, picture
from sluiceway_runtime.account import Phase
from sluiceway_runtime.errors import QueueFull, Unavailable
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.status import from_rpc_error
from waiting import until

from sluiceway.pipeline.v1 import pipeline_pb2

MIB = 2**20
KINDS = {"source_ready", "regions", "values", "done", "failed", "job_done"}


def kind_of(event: dict[str, Any]) -> str:
    (kind,) = KINDS & set(event)
    return kind


async def test_an_image_comes_back_as_lines_of_events() -> None:
    async with serve() as http:
        status, headers, events = await http.post(picture(7, regions=2), **IMAGE)
    assert status == 200
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert [kind_of(event) for event in events] == ["source_ready", "regions", "values", "done", "job_done"]
    assert [item["text"]["text"] for item in events[2]["values"]["values"]] == ["7:0", "7:1"]
    # Every field is there, also when it is zero: whoever reads JSON knows no defaults.
    assert events[1]["regions"]["regions"][0]["id"] == 0
    assert events[-1]["job_done"]["failed"] == 0


async def test_a_json_job_with_several_sources_and_options() -> None:
    sources = [{"source_id": str(n), "image": base64.b64encode(picture(n)).decode()} for n in range(3)]
    body = {"job_id": "mine", "sources": sources, "options": {"detect_only": True}}
    async with serve() as http:
        status, _, events = await http.post(json.dumps(body).encode(), **{"Content-Type": "application/json"})
    assert status == 200
    assert {event["job_id"] for event in events} == {"mine"}
    assert not [event for event in events if "values" in event]
    assert events[-1]["job_done"] == {"succeeded": 3, "failed": 0}


async def test_server_sent_events() -> None:
    async with (
        serve() as http,
        http.session.post(
            f"{http.url}/v1/process", data=picture(1), headers={**IMAGE, "Accept": "text/event-stream"}
        ) as response,
    ):
        assert response.content_type == "text/event-stream"
        frames = (await response.text()).strip().split("\n\n")
    names = [frame.split("\n")[0] for frame in frames]
    assert names == [f"event: {kind}" for kind in ("source_ready", "regions", "values", "done", "job_done")]
    assert all(json.loads(frame.split("\n")[1].removeprefix("data: ")) for frame in frames)


async def test_events_are_streamed_while_the_stage_still_works() -> None:
    """Detection is held until the client has the first event: only a real stream ends at all."""
    acknowledged = asyncio.Event()

    async def hold(_: int) -> None:
        await acknowledged.wait()

    async with (
        serve(detector=FakeDetection(before=hold)) as http,
        asyncio.timeout(30),
        http.session.post(f"{http.url}/v1/process", data=picture(1), headers=IMAGE) as response,
    ):
        assert kind_of(json.loads(await response.content.readline())) == "source_ready"
        acknowledged.set()
        assert kind_of(json.loads((await response.read()).splitlines()[-1])) == "job_done"


async def test_a_client_that_leaves_ends_its_job() -> None:
    held = asyncio.Event()

    async def hold(_: int) -> None:
        held.set()
        await asyncio.Event().wait()

    async with serve(detector=FakeDetection(before=hold)) as http, asyncio.timeout(30):
        async with http.session.post(f"{http.url}/v1/process", data=picture(1), headers=IMAGE) as response:
            await response.content.readline()
            await held.wait()
            assert http.jobs.running == 1
            response.close()
        await until(lambda: not http.jobs.running)
        assert await http.port.drain(30)


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "reason"),
    [
        ("/v1/process?confidence=2", picture(1), IMAGE, 400, "INVALID_OPTION"),
        ("/v1/process?confidence=high", picture(1), IMAGE, 400, "INVALID_OPTION"),
        ("/v1/process?colour=red", picture(1), IMAGE, 400, "INVALID_OPTION"),
        ("/v1/process?timeout_s=-1", picture(1), IMAGE, 400, "INVALID_OPTION"),
        ("/v1/process?timeout_s=nan", picture(1), IMAGE, 400, "INVALID_OPTION"),
        ("/v1/process", b"{", {"Content-Type": "application/json"}, 400, "INVALID_OPTION"),
        ("/v1/process", b'{"sources": []}', {"Content-Type": "application/json"}, 400, "INVALID_OPTION"),
        ("/v1/process", b'{"pictures": []}', {"Content-Type": "application/json"}, 400, "INVALID_OPTION"),
        ("/v1/process", b'{"%s": 1}' % (b"x" * 9000), {"Content-Type": "application/json"}, 400, "INVALID_OPTION"),
        ("/v1/process", b"no gzip", {**IMAGE, "Content-Encoding": "gzip"}, 400, "INVALID_OPTION"),
        ("/v1/process", b"[" * 5000, {"Content-Type": "application/json"}, 400, "INVALID_OPTION"),
        ("/v1/process", bytes(2000), IMAGE, 413, "IMAGE_TOO_LARGE"),
        ("/v1/process", b"x", {"Content-Type": "text/plain"}, 415, None),
        ("/v1/process", picture(1), {**IMAGE, "Accept": "text/html"}, 406, None),
        ("/v1/nothing", b"", IMAGE, 404, None),
        ("/openapi.json", b"", IMAGE, 405, None),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,
)
async def test_what_cannot_be_served_is_a_problem(
    path: str, body: bytes, headers: dict[str, str], status: int, reason: str | None
) -> None:
    async with serve(max_image_bytes=1024) as http:
        answer = await http.post(body, path, **headers)
        assert answer[0] == status, answer
        assert answer[1]["Content-Type"].startswith("application/problem+json")
        assert answer[2]["status"] == status
        assert answer[2].get("reason") == reason
        assert len(answer[2]["detail"]) < 1000, "what was sent does not come back at length"
        assert (await http.post(picture(1), **IMAGE))[0] == 200


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_another_method_is_told_which_one_is_wanted(method: str) -> None:
    """A browser that is pointed at the path, and `curl -T`."""
    async with serve() as http, http.session.request(method, f"{http.url}/v1/process", data=b"") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        assert (await answer.json())["detail"] == f"{method} is not for this path, which takes POST"


@pytest.mark.parametrize("above", ["the limit of images", "the limit of bodies"])
@pytest.mark.parametrize("kind", ["image/jpeg", "application/json"])
async def test_a_body_of_unknown_length_is_read_up_to_the_limit(kind: str, above: str) -> None:
    """Sent in chunks, without a length that would tell at once."""
    limits = {"max_image_bytes": 1024, "max_message_bytes": 2**17}
    body = picture(1, size_bytes=2000 if above == "the limit of images" else 300_000)
    if kind == "application/json":
        body = json.dumps({"sources": [{"image": base64.b64encode(body).decode()}]}).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    async with serve(**limits) as http:
        headers = {"Content-Type": kind}
        async with http.session.post(f"{http.url}/v1/process", data=chunks(), headers=headers) as response:
            text = await response.text()
            assert "Content-Length" not in response.request_info.headers
        if above == "the limit of bodies":
            problem = json.loads(text)
            assert (response.status, problem["status"], problem["reason"]) == (413, 413, "IMAGE_TOO_LARGE")
        else:
            first = json.loads(text.splitlines()[0])
            assert (response.status, first["failed"]["error"]["reason"]) == (200, "IMAGE_TOO_LARGE")
        assert not http.cluster.detection[0].stage.seen
        assert (await http.post(picture(1), **IMAGE))[0] == 200


async def test_a_connection_that_is_idle_holds_no_body() -> None:
    """One that was answered; the client keeps it for the next one."""
    image = picture(1, size_bytes=8 * MIB)
    async with serve() as http:
        assert (await http.post(picture(1), **IMAGE))[0] == 200
        tracemalloc.start()
        try:
            assert (await http.post(image, **IMAGE))[0] == 200
            assert tracemalloc.get_traced_memory()[0] < 4 * MIB
        finally:
            tracemalloc.stop()


async def test_a_packed_body_takes_room_for_the_longest() -> None:
    """What it says of its length is that of the packed one."""
    packed = gzip.compress(picture(1, size_bytes=8 * MIB))
    assert len(packed) < MIB
    headers = {**IMAGE, "Content-Encoding": "gzip"}
    async with serve(memory_bytes=512 * MIB) as http:
        budget = http.cluster.service.budget
        with budget.account() as other:
            other.add(budget.limit_bytes(Phase.DOOR, Priority.NORMAL) - 4 * MIB, Phase.DOOR)
            assert (await http.post(picture(1), **IMAGE))[0] == 200
            assert (await http.post(packed, "/v1/process?timeout_s=0.2", **headers))[0] == 504
        assert (await http.post(packed, **headers))[0] == 200


@pytest.mark.parametrize("kind", ["image/jpeg", "application/json"])
async def test_a_body_that_does_not_come_in_time_is_not_waited_for(kind: str) -> None:
    head = f"POST /v1/process?timeout_s=0.2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 9"
    async with serve() as http, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", http.port.port)
        writer.write(f"{head}\r\n\r\nbegun".encode())
        answer = (await reader.readuntil(b"}")).decode()
        assert answer.startswith("HTTP/1.1 504 ")
        assert '"reason": "DEADLINE_EXCEEDED"' in answer
        # Its place is free again while the connection is still there.
        assert await http.port.drain(30)
        writer.close()


async def test_a_job_that_waits_for_admission_hears_when_its_time_is_up() -> None:
    held = asyncio.Event()

    async def hold(_: int) -> None:
        held.set()
        await asyncio.Event().wait()

    options = {"max_sources_in_flight": 1, "default_deadline_s": 600, "max_deadline_s": 600}
    async with (
        serve(detector=FakeDetection(before=hold), **options) as http,
        asyncio.timeout(30),
        http.session.post(f"{http.url}/v1/process", data=picture(1), headers=IMAGE),
    ):
        await held.wait()
        status, _, events = await http.post(picture(2), "/v1/process?timeout_s=1", **IMAGE)
    assert status == 200
    assert events[0]["failed"]["error"]["reason"] == "DEADLINE_EXCEEDED"
    assert events[-1]["job_done"]["failed"] == 1


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [(ZeroDivisionError("a detail"), 500, "INTERNAL"), (Unavailable("gone", retry_after_s=2), 503, "UNAVAILABLE")],
)
@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream"])
async def test_a_job_that_breaks_is_a_problem_before_its_first_event_and_an_event_after_it(
    error: Exception, status: int, reason: str, accept: str, caplog: pytest.LogCaptureFixture
) -> None:
    events_before = 0

    async def run(_job: Job) -> AsyncGenerator[Addressed]:
        for number in range(events_before):
            yield Addressed("j", str(number), SourceReady(number))
        raise error

    headers = {**IMAGE, "Accept": accept}
    async with Cluster([], []) as cluster, aiohttp.ClientSession() as session:
        port = port_of(cluster, OrchestratorConfig(), HttpConfig(port=0), run)
        await port.start()
        url = f"http://127.0.0.1:{port.port}/v1/process"
        try:
            async with session.post(url, data=picture(1), headers=headers) as response:
                problem = await response.json(content_type="application/problem+json")
                assert (response.status, problem["status"], problem["reason"]) == (status, status, reason)
                told = await response.text()
            events_before = 2
            async with session.post(url, data=picture(1), headers=headers) as response:
                assert (response.status, response.content_type) == (200, accept)
                text = await response.text()
            lines = [
                line.removeprefix("data: ") for line in text.splitlines() if line and not line.startswith("event: ")
            ]
            assert [set(json.loads(line)) & {"source_ready", "problem"} for line in lines] == [
                {"source_ready"},
                {"source_ready"},
                {"problem"},
            ]
            assert ("event: problem" in text) == (accept == "text/event-stream")
            late = json.loads(lines[-1])["problem"]
            assert (late["status"], late["reason"]) == (status, reason)
            assert "a detail" not in told + text
            assert ("a detail" in caplog.text) == (reason == "INTERNAL")
            # Neither is left as a job that runs.
            assert await port.drain(0)
        finally:
            await port.close()


async def test_a_failed_source_is_an_event() -> None:
    async with serve() as http:
        body = json.dumps({"sources": [{"api_call": {"api": "none"}}]}).encode()
        status, _, events = await http.post(body, **{"Content-Type": "application/json"})
    assert status == 200
    assert events[0]["failed"]["error"]["reason"] == "UNKNOWN_API"
    assert events[-1]["job_done"]["failed"] == 1


async def test_too_many_jobs_are_told_when_to_come_back() -> None:
    held = asyncio.Event()

    async def hold(_: int) -> None:
        held.set()
        await asyncio.Event().wait()

    async with serve(detector=FakeDetection(before=hold), max_jobs=1) as http, asyncio.timeout(30):
        async with http.session.post(f"{http.url}/v1/process", data=picture(1), headers=IMAGE):
            await held.wait()
            status, headers, problem = await http.post(picture(2), **IMAGE)
        assert (status, headers["Retry-After"], problem["reason"], problem["retry_after_ms"]) == (
            429,
            "1",
            "QUEUE_FULL",
            250,
        )


async def test_jobs_of_all_ports_count_together() -> None:
    """One slot: whichever way the job came that has it, no other way leads past it."""
    held, request = asyncio.Event(), pipeline_pb2.ProcessRequest(sources=[pipeline_pb2.Source(image=picture(2))])

    async def hold(_: int) -> None:
        held.set()
        await asyncio.Event().wait()

    async def stream() -> AsyncIterator[pipeline_pb2.ProcessStreamRequest]:
        yield pipeline_pb2.ProcessStreamRequest(job=request)

    detector = FakeDetection(before=hold)
    port = {"enabled": True, "port": 0}
    async with Cluster([detector], max_jobs=1, http=port) as cluster, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{cluster.service.http.port}/v1/process"

        async def reasons() -> list[str]:
            """Why each of the three ways refuses a job."""
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await cluster.process(*request.sources)
            events = [response.event async for response in cluster.stub.ProcessStream(stream())]
            async with session.post(url, data=picture(2), headers=IMAGE) as response:
                problem = await response.json()
            named = from_rpc_error(refused.value).reason
            return [named, *(event.job_refused.error.reason for event in events), problem["reason"]]

        async def free() -> None:
            await until(lambda: not cluster.service.status()["jobs"])
            held.clear()

        full = ["QUEUE_FULL"] * 3
        async with asyncio.timeout(30):
            async with session.post(url, data=picture(1), headers=IMAGE):
                await held.wait()
                assert await reasons() == full
            await free()
            for begin in (lambda: cluster.stub.Process(request), lambda: cluster.stub.ProcessStream(stream())):
                call = begin()
                await call.read()
                await held.wait()
                assert await reasons() == full
                call.cancel()
                await free()
        assert detector.seen.total() == 3


async def test_what_could_not_be_done_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(job: Job) -> None:
        raise QueueFull("too much is waiting", retry_after_s=2.5)

    async with serve() as http:
        monkeypatch.setattr(http.cluster.service.executor, "admit", refuse)
        status, headers, problem = await http.post(picture(1), **IMAGE)
    assert (status, headers["Retry-After"], problem["retry_after_ms"]) == (429, "3", 2500)
    assert not http.cluster.detection[0].stage.seen


async def test_draining_refuses_new_jobs() -> None:
    async with serve() as http:
        http.port.refuse()
        status, headers, problem = await http.post(picture(1), **IMAGE)
    assert (status, problem["reason"]) == (503, "UNAVAILABLE")
    assert "Retry-After" in headers


async def test_the_openapi_document_is_valid_and_describes_the_events() -> None:
    async with serve() as http, http.session.get(f"{http.url}/openapi.json") as response:
        document = await response.json()
    validate(document)
    event = document["components"]["schemas"]["sluiceway.pipeline.v1.ProcessResponse"]["properties"]
    assert set(event) >= KINDS
    size = document["components"]["schemas"]["sluiceway.pipeline.v1.SourceReady"]["properties"]["size_bytes"]
    assert size["type"] == "string"
