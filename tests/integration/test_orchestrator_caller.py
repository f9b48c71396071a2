"""A user's own API caller, from a file outside the packages, inside the running server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from sluiceway_orchestrator.testing import Cluster, SourceEvents, picture

from sluiceway.pipeline.v1 import pipeline_pb2

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
async def archive(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    async def record(request: web.Request) -> web.Response:
        item = request.match_info["item"]
        if item == "404":
            raise web.HTTPNotFound
        return web.json_response({"scan": f"s{item}", "title": f"Item {item}"})

    async def scan(request: web.Request) -> web.Response:
        return web.Response(body=picture(int(request.match_info["scan"][1:])))

    application = web.Application()
    application.router.add_get("/records/{item}", record)
    application.router.add_get("/scans/{scan}", scan)
    async with TestServer(application) as server:
        monkeypatch.setenv("ARCHIVE_URL", f"http://127.0.0.1:{server.port}")
        monkeypatch.syspath_prepend(str(EXAMPLES))
        yield


def item(value: str) -> pipeline_pb2.Source:
    return pipeline_pb2.Source(api_call=pipeline_pb2.ApiCall(api="archive", params={"item": value}))


@pytest.mark.usefixtures("archive")
async def test_the_example_brings_images_metadata_and_its_own_errors() -> None:
    async with Cluster(apis={"archive": {"caller": "caller:ArchiveCaller"}}) as cluster:
        events = await cluster.process(item("42"), item("x"), item("404"), item("7"))
        described = await cluster.stub.Describe(pipeline_pb2.DescribeRequest())
        assert cluster.service.status()["fetch_bytes"] == 0
    assert events["0"].texts == {"42:0": 1, "42:1": 1}
    assert events["0"].ready is not None
    assert dict(events["0"].ready.metadata) == {"archive.title": "Item 42"}
    assert reason(events["1"]) == ("UPSTREAM_REFUSED", "an item is a number")
    assert reason(events["2"]) == ("UPSTREAM_FAILED", "archive failed")
    assert events["3"].done is not None
    assert [(api.name, list(api.params)) for api in described.apis] == [("archive", ["item"])]


def reason(events: SourceEvents) -> tuple[str, str]:
    assert events.error is not None
    return events.error.reason, events.error.message
