"""Fetching through the whole server: URLs and configured APIs, against real HTTP servers."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest
from aiohttp import web
from sluiceway_orchestrator.testing import Cluster, picture
from web_sources import LOOPBACK, api_source, http, one

from sluiceway.pipeline.v1 import pipeline_pb2

Source = pipeline_pb2.Source


@pytest.mark.parametrize("sources", [8, 64])
async def test_all_sources_of_a_job_are_fetched_at_once(sources: int) -> None:
    """No request is answered before the last one is there."""
    together = asyncio.Barrier(sources)

    async def serve(request: web.Request) -> web.Response:
        async with asyncio.timeout(30):
            await together.wait()
        return web.Response(body=picture(int(request.path[1:])))

    # One attempt each, and no end to it: a second one must not stand in for a neighbour that never came.
    options = {"url_allow_cidrs": LOOPBACK, "max_sources_per_client": 64, "url_retries": 0, "url_timeout_s": 60}
    async with http(serve) as base, Cluster(**options) as cluster:
        events = await cluster.process(*(Source(url=f"{base}/{number}") for number in range(sources)))
    assert len(events) == sources
    assert all(events[str(n)].texts == {f"{n}:0": 1, f"{n}:1": 1} for n in range(sources))


async def test_images_come_back_when_asked_for() -> None:
    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=picture(3, size_bytes=5000))

    async with http(serve) as base, Cluster(url_allow_cidrs=LOOPBACK) as cluster:
        events = await cluster.process(Source(url=f"{base}/x"), Source(image=picture(4)), return_images=True)
    assert events["0"].ready is not None
    assert events["1"].ready is not None
    assert events["0"].ready.image == picture(3, size_bytes=5000)
    assert events["1"].ready.image == b"", "the client has it already"


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (404, b"", "UPSTREAM_REFUSED"),
        (403, b"", "UPSTREAM_REFUSED"),
        (500, b"", "UPSTREAM_FAILED"),
        (200, b"<html>not an image</html>", "INVALID_IMAGE"),
        (200, b"", "INVALID_IMAGE"),
        (200, picture(1, size_bytes=20_001), "IMAGE_TOO_LARGE"),
    ],
)
async def test_what_is_no_image_fails_its_source_only(status: int, body: bytes, reason: str) -> None:
    async def serve(_request: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    options = {"url_allow_cidrs": LOOPBACK, "url_retries": 0, "max_image_bytes": 20_000}
    async with http(serve) as base, Cluster(**options) as cluster:
        events = await cluster.process(Source(url=f"{base}/x"), Source(image=picture(2)))
    assert events["0"].error is not None
    assert events["0"].error.reason == reason
    assert events["1"].done is not None


async def test_the_size_cap_holds_without_a_length_and_against_compression() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        if request.path == "/bomb":
            bomb = gzip.compress(picture(1, size_bytes=50_000_000))
            return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})
        response = web.StreamResponse()
        await response.prepare(request)
        sent.clear()
        try:
            while True:
                await response.write(picture(1, size_bytes=65536))
                sent.append(65536)
        except ConnectionError:
            return response

    sent: list[int] = []
    async with http(endless) as base, Cluster(url_allow_cidrs=LOOPBACK, max_image_bytes=2**20) as cluster:
        for path in ("/endless", "/bomb"):
            events = await one(cluster, Source(url=base + path))
            assert events.error is not None
            assert events.error.reason == "IMAGE_TOO_LARGE"
        assert cluster.service.status()["fetch_bytes"] == 0
    # What lies in socket buffers was sent as well.
    assert sum(sent) < 30 * 2**20


async def test_idempotent_requests_are_retried_and_others_are_not() -> None:
    tries: Counter[str] = Counter()

    async def flaky(request: web.Request) -> web.Response:
        tries[request.method] += 1
        if tries[request.method] < 3:
            return web.Response(status=503, headers={"Retry-After": "0"})
        return web.Response(body=picture(1))

    async with http(flaky) as base:
        apis = {
            "get": {"url": f"{base}/"},
            "post": {"url": f"{base}/", "method": "POST", "body": "{}"},
        }
        async with Cluster(apis=apis) as cluster:
            assert (await one(cluster, api_source("get"))).done is not None
            failed = await one(cluster, api_source("post"))
    assert tries == {"GET": 3, "POST": 1}
    assert failed.error is not None
    assert failed.error.reason == "UPSTREAM_FAILED"


@pytest.mark.parametrize("api", [{"idempotent": False}, {"method": "PUT", "body": "{}"}], ids=["GET", "PUT"])
async def test_what_is_not_idempotent_is_not_sent_again_when_its_connection_ends(api: dict[str, Any]) -> None:
    """The second request comes over the connection of the first, and is read and not answered."""
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        while await reader.read(1):
            head = await reader.readuntil(b"\r\n\r\n")
            if b"Content-Length: 2" in head:
                await reader.readexactly(2)
            requests += 1
            if requests > 1:
                break
            body = picture(1)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    table = {"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", **api}
    async with server, Cluster(apis={"once": table}) as cluster:
        assert (await one(cluster, api_source("once"))).done is not None
        failed = await one(cluster, api_source("once"))
    assert requests == 2
    assert failed.error is not None
    assert failed.error.reason == "UPSTREAM_FAILED"


async def test_a_slow_request_is_hedged_and_the_slower_one_ended() -> None:
    ended: list[str] = []
    calls = 0

    async def first_is_slow(_request: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        if calls == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("first")
                raise
        return web.Response(body=picture(1))

    application = web.Application()
    application.router.add_get("/", first_is_slow)
    runner = web.AppRunner(application, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    # No further attempt, and no end to this one: only the second request can bring the image.
    api = {"url": f"http://127.0.0.1:{port}/", "hedge_after_s": 0.1, "retries": 0, "timeout_s": 60}
    async with Cluster(apis={"slow": api}) as cluster:
        assert (await one(cluster, api_source("slow"))).done is not None
        # Here, where neither the pool of connections nor the server that it asked is closed.
        async with asyncio.timeout(30):
            while not ended:
                await asyncio.sleep(0.01)
    await runner.cleanup()
    assert calls == 2
    assert ended == ["first"]


async def test_an_api_is_filled_in_without_letting_parameters_escape() -> None:
    seen: list[tuple[str, str, str | None, Any]] = []

    async def echo(request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        seen.append((request.method, str(request.rel_url), request.headers.get("Authorization"), body))
        image = base64.b64encode(picture(6)).decode()
        answer = {"data": [{"image": f"data:image/jpeg;base64,{image}"}], "title": "Straße", "size": {"w": 3}}
        return web.json_response(answer)

    async with http(echo) as base:
        apis = {
            "archive": {
                "url": f"{base}/items/{{id}}?q={{query}}",
                "params": ["id", "query"],
                "method": "POST",
                "idempotent": True,
                "headers": {"Authorization": "Bearer {secret.token}"},
                "secrets": {"token": "ARCHIVE_TOKEN"},
                "body": '{"text": "{query}", "nested": {"kept": 1}}',
                "image": "base64",
                "image_pointer": "/data/0/image",
                "metadata": {"title": "/title", "size": "/size", "absent": "/nowhere"},
            }
        }
        async with Cluster(apis=apis, environment={"ARCHIVE_TOKEN": "s3cret"}) as cluster:
            events = await one(cluster, api_source("archive", id="../admin?x=", query='a "b"\n&c=d'))
            refused = await one(cluster, api_source("archive", id="..", query=""))
    assert events.texts == {"6:0": 1, "6:1": 1}
    assert events.ready is not None
    assert dict(events.ready.metadata) == {"archive.title": "Straße", "archive.size": '{"w":3}'}
    ((method, url, authorization, body),) = seen
    assert (method, authorization) == ("POST", "Bearer s3cret")
    path, _, query = url.partition("?")
    assert "/../" not in path
    assert unquote(path) == "/items/../admin?x="
    assert parse_qs(query) == {"q": ['a "b"\n&c=d']}
    assert body == {"text": 'a "b"\n&c=d', "nested": {"kept": 1}}
    assert refused.error is not None
    assert refused.error.reason == "INVALID_OPTION"


async def test_an_answer_can_name_urls_of_which_the_first_good_one_is_taken() -> None:
    async def serve(request: web.Request) -> web.Response:
        if request.path == "/search":
            own = f"http://{request.host}"
            return web.json_response({"hits": ["http://169.254.169.254/", f"{own}/missing", f"{own}/7"]})
        if request.path == "/missing":
            return web.Response(status=404)
        assert "Authorization" not in request.headers
        return web.Response(body=picture(7))

    async with http(serve) as base:
        api = {"url": f"{base}/search", "image": "url", "image_pointer": "/hits", "headers": {"Authorization": "x"}}
        async with Cluster(apis={"search": api}) as cluster:
            events = await one(cluster, api_source("search"))
    assert events.texts == {"7:0": 1, "7:1": 1}


async def test_half_a_character_in_metadata_is_replaced() -> None:
    """JSON can hold a lone surrogate, which no message of the contract can."""

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(text='{"title": "a\\ud83d", "more": {"\\ud83d": ["\\ud83d\\ude00"]}}')

    async with http(serve) as base:
        api = {"url": f"{base}/", "image": "none", "metadata": {"title": "/title", "more": "/more"}}
        async with Cluster(apis={"facts": api}) as cluster:
            source = Source(image=picture(1))
            source.metadata_calls.add(api="facts")
            events = await cluster.process(source, Source(image=picture(2)))
    assert events["0"].ready is not None
    assert dict(events["0"].ready.metadata) == {"facts.title": "a\ufffd", "facts.more": '{"\ufffd":["\U0001f600"]}'}
    assert events["1"].done is not None


async def test_an_answer_for_metadata_alone_has_the_room_of_one_without_an_image() -> None:
    async def serve(request: web.Request) -> web.Response:
        return web.json_response({"text": "a" * int(request.query["size"])})

    async with http(serve) as base:
        api = {"url": f"{base}/?size={{size}}", "params": ["size"], "image": "none", "metadata": {"text": "/text"}}
        async with Cluster(apis={"text": api}) as cluster:
            sources = [Source(image=picture(1)) for _ in range(2)]
            for source, size in zip(sources, (2**20 - 100, 2**20), strict=True):
                source.metadata_calls.add(api="text", params={"size": str(size)})
            events = await cluster.process(*sources)
    fits, exceeds = events["0"].ready, events["1"].ready
    assert fits is not None
    assert exceeds is not None
    assert dict(fits.metadata) == {"text.text": "a" * (2**20 - 100)}
    assert exceeds.metadata_errors["text"].reason == "IMAGE_TOO_LARGE"


async def test_metadata_apis_run_beside_the_image_and_fail_alone() -> None:
    together = asyncio.Barrier(3)

    async def serve(request: web.Request) -> web.Response:
        async with asyncio.timeout(30):
            await together.wait()
        if request.path == "/image":
            return web.Response(body=picture(1))
        if request.path == "/broken":
            return web.Response(status=404)
        return web.json_response({"author": "A"})

    async with http(serve) as base:
        # One attempt each, and no end to it: a second one must not stand in for a call that never came.
        once = {"retries": 0, "timeout_s": 60}
        apis = {
            "image": {"url": f"{base}/image", **once},
            "facts": {"url": f"{base}/facts", "image": "none", "metadata": {"author": "/author"}, **once},
            "broken": {"url": f"{base}/broken", "image": "none", **once},
        }
        async with Cluster(apis=apis) as cluster:
            source = api_source("image")
            source.metadata_calls.add(api="facts")
            source.metadata_calls.add(api="broken")
            source.metadata_calls.add(api="unheard-of")
            events = await one(cluster, source)
    assert events.done is not None
    assert events.ready is not None
    assert dict(events.ready.metadata) == {"facts.author": "A"}
    reasons = {name: error.reason for name, error in events.ready.metadata_errors.items()}
    assert reasons == {"broken": "UPSTREAM_REFUSED", "unheard-of": "UNKNOWN_API"}


async def test_an_unknown_api_or_parameter_is_refused() -> None:
    async with Cluster(apis={"a": {"url": "http://127.0.0.1:9/{id}", "params": ["id"]}}) as cluster:
        events = await cluster.process(
            api_source("b"),
            api_source("a"),
            api_source("a", id="1", more="2"),
            api_source("a", **{f"{number}" * 5000: "" for number in range(100)}),
            Source(image=picture(1)),
        )
    errors = [events[str(index)].error for index in range(4)]
    assert [error.reason for error in errors if error is not None] == ["UNKNOWN_API", *["INVALID_OPTION"] * 3]
    assert [error.message for error in errors[1:3] if error is not None] == [
        "api_call.params: missing id",
        "api_call.params: unknown more",
    ]
    assert errors[3] is not None
    assert len(errors[3].message) < 1000, "what was sent does not come back at length"
    assert events["4"].done is not None


async def test_json_that_is_none_fails_the_source() -> None:
    async def serve(request: web.Request) -> web.Response:
        return web.Response(body={"/a": b"{", "/b": json.dumps({"i": 5}).encode(), "/c": b"[" * 100_000}[request.path])

    async with http(serve) as base:
        common = {"image": "base64", "image_pointer": "/i", "retries": 0}
        apis = {name: {"url": f"{base}/{name}", **common} for name in "abc"}
        async with Cluster(apis=apis) as cluster:
            events = await cluster.process(*(api_source(name) for name in "abc"))
    assert [source.error.reason for source in events.values() if source.error is not None] == ["UPSTREAM_FAILED"] * 3
