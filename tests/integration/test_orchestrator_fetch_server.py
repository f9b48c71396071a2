"""Fetching through the whole server: what a client hears of images, of values and of calls that fail."""

from __future__ import annotations

from aiohttp import web
from google.protobuf.json_format import MessageToDict
from sluiceway_orchestrator.testing import Cluster, picture
from web_sources import LOOPBACK, api_source, http, one

from sluiceway.pipeline.v1 import pipeline_pb2

Source = pipeline_pb2.Source


async def test_images_come_back_when_asked_for() -> None:
    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=picture(3, size_bytes=5000))

    async with http(serve) as base, Cluster(url_allow_cidrs=LOOPBACK) as cluster:
        events = await cluster.process(Source(url=f"{base}/x"), Source(image=picture(4)), return_images=True)
    assert events["0"].ready is not None
    assert events["1"].ready is not None
    assert events["0"].ready.image == picture(3, size_bytes=5000)
    assert events["0"].texts == {"3:0": 1, "3:1": 1}
    assert events["1"].ready.image == b"", "the client has it already"


async def test_what_cannot_be_fetched_fails_its_source_only() -> None:
    async def serve(request: web.Request) -> web.Response:
        return web.Response(body=b"<html>") if request.path == "/page" else web.Response(status=404)

    async with http(serve) as base, Cluster(url_allow_cidrs=LOOPBACK, apis={"a": {"url": f"{base}/"}}) as cluster:
        events = await cluster.process(
            Source(url=f"{base}/page"),
            Source(url=f"{base}/missing"),
            api_source("a"),
            api_source("b"),
            api_source("a", more="2"),
            Source(),
            Source(image=picture(2)),
        )
    errors = [events[str(index)].error for index in range(6)]
    assert [error.reason for error in errors if error is not None] == [
        "INVALID_IMAGE",
        "UPSTREAM_REFUSED",
        "UPSTREAM_REFUSED",
        "UNKNOWN_API",
        "INVALID_OPTION",
        "INVALID_OPTION",
    ]
    assert events["6"].done is not None


async def test_calls_answer_by_their_names_and_fail_alone() -> None:
    async def serve(request: web.Request) -> web.Response:
        if request.path == "/broken":
            return web.Response(status=404)
        return web.json_response({"page": {"of": request.query["of"], "number": 7}})

    async with http(serve) as base:
        facts = {"url": f"{base}/?of={{of}}", "params": ["of"], "image": "none", "values": {"page": "/page"}}
        apis = {"facts": facts, "broken": {"url": f"{base}/broken", "image": "none"}}
        async with Cluster(apis=apis) as cluster:
            source = Source(image=picture(1))
            source.calls.add(api="facts", params={"of": "A"})
            source.calls.add(api="facts", params={"of": "B"})
            source.calls.add(api="facts", params={"of": "C"}, name="third")
            source.calls.add(api="broken")
            events = await one(cluster, source)
    assert events.done is not None
    assert events.ready is not None
    assert {name: MessageToDict(values) for name, values in events.ready.values.items()} == {
        "facts": {"page": {"of": "A", "number": 7}},
        "facts_2": {"page": {"of": "B", "number": 7}},
        "third": {"page": {"of": "C", "number": 7}},
    }
    assert {name: error.reason for name, error in events.ready.call_errors.items()} == {"broken": "UPSTREAM_REFUSED"}
