"""One document in place of a stream, and the pages that say what the HTTP port is and how it does."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from html.parser import HTMLParser
from typing import Any

import pytest
from aiohttp import web
from http_port import IMAGE, port_of, serve
from jsonschema import Draft202012Validator
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.http import HttpConfig
from sluiceway_orchestrator.events import SourceReady
from sluiceway_orchestrator.http.answers import EVENTS, JSON, NDJSON, answer_type
from sluiceway_orchestrator.http.openapi import document
from sluiceway_orchestrator.job import Job
from sluiceway_orchestrator.outbox import Addressed
from sluiceway_orchestrator.testing import Cluster, FakeDetection, picture
from sluiceway_runtime.errors import InvalidImage, Unavailable
from waiting import until

from sluiceway.client.aio import AsyncClient

ONE = {**IMAGE, "Accept": "application/json"}
MANY = {"Content-Type": "application/json", "Accept": "application/json"}


def is_result(value: Any) -> None:
    """Hold it against the schema of the API's own description."""
    whole = document("1")
    schema = {"components": whole["components"], **whole["components"]["schemas"]["Result"]}
    Draft202012Validator(schema).validate(value)
    known = set(whole["components"]["schemas"]["ResultRegion"]["properties"])
    assert all(set(region) <= known for region in value.get("regions", ()))
    assert set(value) <= set(whole["components"]["schemas"]["Result"]["properties"])


@pytest.mark.parametrize(
    ("accepted", "kind"),
    [
        ("*/*", NDJSON),
        ("application/json", JSON),
        ("Application/JSON; charset=utf-8", JSON),
        ("application/json, text/plain, */*", JSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", NDJSON),
        ("application/x-ndjson", NDJSON),
        ("application/json;q=0.5, application/x-ndjson", NDJSON),
        ("application/json;q=0, */*;q=0.1", NDJSON),
        ("text/event-stream", EVENTS),
        ("text/*", EVENTS),
        ("application/*", NDJSON),
        ("application/json;q=high", JSON),
    ],
)
def test_the_answer_is_of_the_type_that_the_client_likes_best(accepted: str, kind: str) -> None:
    assert answer_type(accepted) == kind


@pytest.mark.parametrize("accepted", ["text/html", "image/png", "application/json;q=0", ""])
def test_a_client_that_takes_none_of_the_types_is_told(accepted: str) -> None:
    with pytest.raises(web.HTTPNotAcceptable):
        answer_type(accepted)


async def test_one_source_is_one_object_in_the_shape_of_json() -> None:
    async with serve() as http:
        status, headers, answer = await http.post(picture(7, regions=2), **ONE)
        assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
        assert headers["Cache-Control"] == "no-store"
        # What the command line prints is what the library makes of a result.
        async with AsyncClient(f"127.0.0.1:{http.cluster.server.port}") as client:
            printed = (await client.process(picture(7, regions=2))).to_dict()
        for result in (answer, printed):
            is_result(result)
            del result["timings_ms"]
        # Over HTTP it is a header.
        assert printed.pop("request_id")
        assert answer == {**printed, "source": "0"}
        await http.until_free()


async def test_several_sources_are_a_list_in_their_order() -> None:
    sources = [
        {"source_id": "b", "url": "data:image/png;base64,AAAA"},
        {"url": "data:image/png;base64,SECRET=="},
        {"url": "http://169.254.169.254/a%20b"},
        {"source_id": "a", "url": "http://169.254.169.254/"},
    ]
    async with serve() as http:
        status, _, answer = await http.post(json.dumps({"sources": sources}).encode(), **MANY)
    assert status == 200
    assert [result["source"] for result in answer] == ["b", "1", "http://169.254.169.254/a%20b", "a"]
    assert {result["status"] for result in answer} == {"failed"}
    for result in answer:
        is_result(result)
    assert "SECRET" not in json.dumps(answer)


async def test_the_only_source_that_failed_gives_its_status() -> None:
    async def refuse(_: int) -> None:
        raise InvalidImage("no image")

    async with serve(detector=FakeDetection(before=refuse)) as http:
        status, headers, answer = await http.post(picture(1), **ONE)
        is_result(answer)
        assert (status, headers["Content-Type"]) == (400, "application/json; charset=utf-8")
        assert answer["error"] == {"code": "INVALID_ARGUMENT", "reason": "INVALID_IMAGE", "message": "no image"}
        assert (await http.post(b'{"sources": [{"url": "http://127.0.0.1/"}]}', **MANY))[0] == 403


async def test_a_job_that_breaks_at_any_time_is_a_problem_with_its_status() -> None:
    async def run(job: Job) -> AsyncGenerator[Addressed]:
        yield Addressed(job.job_id, "0", SourceReady(1, 0.0))
        raise Unavailable("gone", retry_after_s=2)

    config = OrchestratorConfig()
    async with Cluster() as cluster:
        port = port_of(cluster, config, HttpConfig(port=0), run)
        await port.start()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
            writer.write(b"POST /v1/process HTTP/1.1\r\nHost: localhost\r\nContent-Length: 64\r\nConnection: close\r\n")
            writer.write(b"Content-Type: image/png\r\nAccept: application/json\r\n\r\n" + picture(1))
            answer = await reader.read()
            writer.close()
        finally:
            await port.close()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"application/problem+json" in answer
    assert b"Retry-After: 2" in answer


async def test_images_are_not_part_of_a_document() -> None:
    body = {"sources": [{"image": "AAAA"}], "options": {"return_images": True}}
    async with serve() as http:
        _, _, answer = await http.post(json.dumps(body).encode(), **MANY)
    assert "image" not in answer


async def test_results_that_are_kept_until_the_end_are_counted() -> None:
    async def last(number: int) -> None:
        if number == 2:
            held.set()
            await release.wait()

    held, release = asyncio.Event(), asyncio.Event()
    async with serve(detector=FakeDetection(before=last)) as http, asyncio.timeout(30):
        body = b"".join(
            b'--XX\r\nContent-Disposition: form-data; name="file"; filename="%d.png"\r\n\r\n%b\r\n'
            % (number, picture(number, regions=regions))
            for number, regions in ((1, 500), (2, 1))
        )
        headers = {"Content-Type": "multipart/form-data; boundary=XX", "Accept": "application/json"}
        task = asyncio.create_task(http.post(body + b"--XX--\r\n", **headers))
        await held.wait()
        budget = http.cluster.service.budget
        # 500 regions with their texts, of more than 40 bytes each; the request itself is smaller.
        await until(lambda: budget.used_bytes >= 20_000)
        release.set()
        status, _, answer = await task
        assert (status, len(answer[0]["regions"])) == (200, 500)
        await http.until_free()


async def test_a_client_that_leaves_before_the_document_ends_its_job() -> None:
    held = asyncio.Event()

    async def hold(_: int) -> None:
        held.set()
        await asyncio.Event().wait()

    async with serve(detector=FakeDetection(before=hold)) as http, asyncio.timeout(30):
        task = asyncio.create_task(http.post(picture(1), **ONE))
        await held.wait()
        task.cancel()
        await until(lambda: not http.jobs.running)
        assert await http.port.drain(30)


class Page(HTMLParser):
    """What a page names, and the ids that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("href", "src", "action"):
                self.links.append(value or "")
            if name == "id" and value:
                assert value not in self.ids
                self.ids.add(value)


async def test_the_page_shows_the_whole_api_and_needs_nothing_from_elsewhere() -> None:
    async with serve() as http:
        async with http.session.get(f"{http.url}/docs") as response:
            text = await response.text()
            assert (response.status, response.content_type) == (200, "text/html")
            policy = response.headers["Content-Security-Policy"]
        async with http.session.get(f"{http.url}/openapi.json") as response:
            described = await response.json()
    page = Page(text)
    for path, methods in described["paths"].items():
        assert path in text
        for method, operation in methods.items():
            assert operation["operationId"] in page.ids
            assert method.upper() in text
            for parameter in operation.get("parameters", ()):
                assert f"<code>{parameter['name']}</code>" in text
            for kind in operation.get("requestBody", {"content": {}})["content"]:
                assert kind in text
    assert set(described["components"]["schemas"]) <= page.ids
    inside = {link.removeprefix("#") for link in page.links if link.startswith("#")}
    assert inside <= page.ids
    assert {link for link in page.links if not link.startswith("#")} == {"/openapi.json"}
    assert not page.tags & {"link", "img", "iframe", "object", "embed"}
    assert not re.search(r"@import|url\(", text)
    # Were anything missing from it, a browser would run no line of the page's own.
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "connect-src 'self'" in policy


@pytest.mark.parametrize("host", ["localhost", "10.1.2.3", "elb.example.org"])
async def test_health_is_told_to_whoever_asks_by_any_name(host: str) -> None:
    async with serve() as http:
        url, headers = f"{http.url}/healthz", {"Host": host}
        async with http.session.get(url, headers=headers) as response:
            assert (response.status, await response.text()) == (200, "ok\n")
        async with http.session.head(url, headers=headers) as response:
            assert response.status == 200
        http.port.refuse()
        async with http.session.get(url, headers=headers) as response:
            assert (response.status, await response.text()) == (503, "draining\n")
