"""Fetching URLs and calling configured APIs, against real HTTP servers."""

from __future__ import annotations

import asyncio
import base64
import gzip
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest
from aiohttp import web
from fetching import fetching
from sluiceway_orchestrator.job import ApiCall
from sluiceway_orchestrator.testing import picture
from sluiceway_runtime.errors import (
    ImageTooLarge,
    InvalidImage,
    InvalidOption,
    SluicewayError,
    UpstreamFailed,
)
from waiting import until
from web_sources import http


@pytest.mark.parametrize("kind", ["url", "api"])
@pytest.mark.parametrize("sources", [8, 64])
async def test_all_sources_of_a_job_are_fetched_at_once(sources: int, kind: str) -> None:
    """No request is answered before the last one is there."""
    together = asyncio.Barrier(sources)

    async def serve(request: web.Request) -> web.Response:
        async with asyncio.timeout(30):
            await together.wait()
        return web.Response(body=picture(int(request.path[1:])))

    # One attempt each, and no end to it: a second one must not stand in for a neighbour that never came.
    async with http(serve) as base:
        api = {"url": f"{base}/{{n}}", "params": ["n"], "retries": 0, "timeout_s": 60}
        async with fetching({"photo": api}, url_retries=0, url_timeout_s=60) as made:
            given: list[dict[str, Any]] = [
                {"url": f"{base}/{n}"} if kind == "url" else {"api_call": ApiCall("photo", {"n": f"{n}"}, "photo")}
                for n in range(sources)
            ]
            found = await asyncio.gather(*(made.fetch(**source) for source in given))
    assert [fetched.image for fetched in found] == [picture(number) for number in range(sources)]
    assert all(fetched.fetch_ms > 0 for fetched in found)


async def test_the_image_of_a_request_is_checked_and_not_copied() -> None:
    async with fetching(max_image_bytes=2000) as made:
        image = memoryview(picture(1))
        fetched = await made.fetch(image=image, keep=True)
        assert fetched.image is image
        assert fetched.fetch_ms == 0
        assert made.budget.used_bytes == 0, "it is counted with the request that brought it"
        fetched.release()
        assert fetched.image == b""
        with pytest.raises(InvalidImage):
            await made.fetch(image=b"")
        with pytest.raises(ImageTooLarge):
            await made.fetch(image=picture(1, size_bytes=2001))


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
async def test_what_is_no_image_fails_its_source_and_leaves_nothing(status: int, body: bytes, reason: str) -> None:
    async def serve(_request: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    async with http(serve) as base, fetching(url_retries=0, max_image_bytes=20_000) as made:
        with pytest.raises(SluicewayError) as caught:
            await made.fetch(url=f"{base}/x")
        assert made.budget.used_bytes == 0
    assert caught.value.reason == reason


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
    async with http(endless) as base, fetching(max_image_bytes=2**20) as made:
        for path in ("/endless", "/bomb"):
            with pytest.raises(ImageTooLarge):
                await made.fetch(url=base + path)
            assert made.budget.used_bytes == 0
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
        async with fetching(apis) as made:
            assert (await made.fetch(api_call=ApiCall("get", {}, "get"))).image == picture(1)
            with pytest.raises(UpstreamFailed):
                await made.fetch(api_call=ApiCall("post", {}, "post"))
    assert tries == {"GET": 3, "POST": 1}


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
    async with server, fetching({"once": table}) as made:
        assert (await made.fetch(api_call=ApiCall("once", {}, "once"))).image == picture(1)
        with pytest.raises(UpstreamFailed):
            await made.fetch(api_call=ApiCall("once", {}, "once"))
    assert requests == 2


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
    async with fetching({"slow": api}) as made:
        assert (await made.fetch(api_call=ApiCall("slow", {}, "slow"))).image == picture(1)
        # Here, where neither the pool of connections nor the server that it asked is closed.
        await until(lambda: ended)
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
                "values": {"title": "/title", "size": "/size", "absent": "/nowhere"},
            }
        }
        async with fetching(apis, environment={"ARCHIVE_TOKEN": "s3cret"}) as made:
            params = {"id": "../admin?x=", "query": 'a "b"\n&c=d'}
            fetched = await made.fetch(api_call=ApiCall("archive", params, "archive"))
            with pytest.raises(InvalidOption):
                await made.fetch(api_call=ApiCall("archive", {"id": "..", "query": ""}, "archive"))
    assert fetched.image == picture(6)
    assert fetched.values == {"archive": {"title": "Straße", "size": {"w": 3}}}
    ((method, url, authorization, body),) = seen
    assert (method, authorization) == ("POST", "Bearer s3cret")
    path, _, query = url.partition("?")
    assert "/../" not in path
    assert unquote(path) == "/items/../admin?x="
    assert parse_qs(query) == {"q": ['a "b"\n&c=d']}
    assert body == {"text": 'a "b"\n&c=d', "nested": {"kept": 1}}


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
        async with fetching({"search": api}) as made:
            fetched = await made.fetch(api_call=ApiCall("search", {}, "search"))
    assert fetched.image == picture(7)
