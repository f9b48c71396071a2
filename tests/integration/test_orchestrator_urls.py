"""URLs go out as they were written: those of sources, of redirects, of configured APIs and of their answers."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from aiohttp import web
from fetching import fetching
from sluiceway_orchestrator.job import ApiCall
from sluiceway_orchestrator.testing import Cluster, picture
from sluiceway_runtime.errors import (
    ConfigurationError,
    ImageTooLarge,
    InvalidImage,
    InvalidOption,
    SluicewayError,
    UpstreamFailed,
    UrlNotAllowed,
)
from web_sources import LOOPBACK, http, one

from sluiceway.pipeline.v1 import pipeline_pb2

DATA = "data:image/png;base64," + base64.b64encode(picture(1)).decode()

# Each is what somebody signs: not one byte may change.
SIGNED = [
    "/signed/a%2Bb.png?X-Amz-Credential=AK%2F20261129%2Feu%2Fs3&X-Amz-Signature=ab%3D%3D",
    "/signed/x%3Ay%2Fz.png?sig=q%2Bw%2Fe%3D",
    "/signed/a.png?sig=Zm9v%2Bbar%2F%3D&se=2026-11-29T23%3A00%3A00Z",
    "/signed/a%7Eb.png",
    "/signed/it%27s%20%28me%29.png",
    "/signed/a%2fb%c3%a9.png",
    "/signed/a(b)!c*'d.png",
    "/signed/a;v=1,2@x:y.png?a=b&&c&d=",
    "/signed/%E6%97%A5.png",
    "/signed//double//slash.png",
    "/signed/./a/../b.png",
    "/signed/%2e%2e/b.png",
    "/signed/plus+and%20space?a=b+c%20d",
    "/signed/100%.png?%zz",
    "/signed/empty?",
    "/signed/two??a",
    '/signed/{braces}|pipe^`<>"',
]
# What cannot stand in a request as it is is encoded once; what is encoded already is not encoded again.
ENCODED = [
    ("/two words.png?a b", "/two%20words.png?a%20b"),
    ("/two%20words and more.png", "/two%20words%20and%20more.png"),
    ("/ünï/日.png?ä=%C3%A4", "/%C3%BCn%C3%AF/%E6%97%A5.png?%C3%A4=%C3%A4"),
    ("/a.png#page=1", "/a.png"),
    ("?q=1", "/?q=1"),
    ("", "/"),
]
WRITTEN = [*((url, url) for url in SIGNED), *ENCODED]
WAYS = ["source", "redirect", "api", "answer"]


class Site:
    """A server with an image behind every path, and the paths that were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.location = ""
        self.answer: Any = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.raw_path)
        if request.path == "/moved/from/here":
            response = web.Response(status=302)
            response.headers["Location"] = self.location
            return response
        if request.path == "/api/v1/search":
            return web.json_response(self.answer)
        return web.Response(body=picture(1))


async def fetch(way: str, base: str, site: Site, written: str, **options: Any) -> bytes:
    """The image behind a URL that a client wrote, or a server, or the operator."""
    search = {"url": f"{base}/api/v1/search", "image": "url", "image_pointer": "/url", "retries": 0}
    fixed = {"url": written or base, "retries": 0}
    apis = {"api": {"fixed": fixed}, "answer": {"search": search}}.get(way, {})
    site.location, site.answer = written, {"url": written}
    async with fetching(apis, url_retries=0, **options) as made:
        if way in ("api", "answer"):
            (name,) = apis
            return bytes((await made.fetch(api_call=ApiCall(name, {}, name))).image)
        return bytes((await made.fetch(url=written if way == "source" else f"{base}/moved/from/here")).image)


@pytest.mark.parametrize(
    ("written", "sent", "way"),
    # Braces in the URL of an API are placeholders.
    [(*pair, way) for pair in WRITTEN for way in WAYS if not ("{" in pair[0] and way == "api")],
)
async def test_a_url_is_sent_as_it_was_written(written: str, sent: str, way: str) -> None:
    site = Site()
    async with http(site.serve) as base:
        assert await fetch(way, base, site, base + written) == picture(1)
    assert site.asked[-1] == sent


@pytest.mark.parametrize("way", ["redirect", "answer"])
@pytest.mark.parametrize(
    ("reference", "sent"),
    [
        ("/img.png", "/img.png"),
        ("/my img.png", "/my%20img.png"),
        ("//{host}/img%2F.png?a=%3D", "/img%2F.png?a=%3D"),
        ("HTTP://{host}/img.png", "/img.png"),
        ("img.png", "{folder}/img.png"),
        ("./a/../img.png?x=../y", "{folder}/img.png?x=../y"),
        ("../../../../up.png", "/up.png"),
        ("?page=2", "{path}?page=2"),
    ],
)
async def test_a_reference_is_understood_from_where_it_was_found(way: str, reference: str, sent: str) -> None:
    site = Site()
    path = "/moved/from/here" if way == "redirect" else "/api/v1/search"
    async with http(site.serve) as base:
        written = reference.format(host=base.partition("//")[2])
        if "{path}" in sent:
            # The very page again, which would answer the same: enough that it was asked for.
            with pytest.raises(SluicewayError):
                await fetch(way, base, site, written)
        else:
            assert await fetch(way, base, site, written) == picture(1)
    assert site.asked[1] == sent.format(path=path, folder=path.rpartition("/")[0])


async def test_an_answer_is_read_from_where_redirects_led_to() -> None:
    site = Site()
    site.location, site.answer = "/api/v1/search", {"url": "img.png"}
    async with http(site.serve) as base:
        api = {"url": f"{base}/moved/from/here", "image": "url", "image_pointer": "/url"}
        async with fetching({"search": api}) as made:
            await made.fetch(api_call=ApiCall("search", {}, "search"))
    assert site.asked == ["/moved/from/here", "/api/v1/search", "/api/v1/img.png"]


async def test_bytes_of_a_redirect_that_are_no_utf_8_are_sent_as_they_came() -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")[0])
        found = b"302 Found\r\nLocation: /b\xefld.png\r\nContent-Length: 0\r\n\r\n"
        image = b"200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(picture(1)), picture(1))
        writer.write(b"HTTP/1.1 " + (found if len(asked) == 1 else image))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, fetching() as made:
        port = server.sockets[0].getsockname()[1]
        assert (await made.fetch(url=f"http://127.0.0.1:{port}/old")).image == picture(1)
    assert asked[1] == b"GET /b%EFld.png HTTP/1.1"


NO_URLS = [
    ("ftp://{host}/a.png", "only http and https"),
    ("http://{host}\\a.png", "backslash"),
    ("http://{host}/a\tb.png", "control characters"),
    ("http://na me.test/a.png", "white space"),
    ("http:/a.png", "names no host"),
]
TOO_LONG = ("http://{host}/" + "a" * 9000, "longer than 8192")


@pytest.mark.parametrize(
    ("written", "words", "way"),
    # A header of that length is not read at all.
    [
        *((*pair, way) for pair in NO_URLS for way in ("source", "redirect", "answer")),
        *((*TOO_LONG, way) for way in ("source", "answer")),
    ],
)
async def test_what_is_no_url_is_refused_in_words(written: str, words: str, way: str) -> None:
    site = Site()
    async with http(site.serve) as base:
        text = written.format(host=base.partition("//")[2])
        with pytest.raises(UrlNotAllowed, match=words):
            await fetch(way, base, site, text)
        assert len(site.asked) == (0 if way == "source" else 1)


@pytest.mark.parametrize("written", ["img.png", "/img.png", "//127.0.0.1/img.png", ""])
async def test_a_source_that_is_no_whole_url_is_refused(written: str) -> None:
    async with fetching() as made:
        with pytest.raises(UrlNotAllowed, match="http and https"):
            await made.fetch(url=written)


@pytest.mark.parametrize(
    "value",
    ["a/b c", "a%2Fb", "q=1&r=2", "日", "~!*'()", "a+b"],
    ids=["slash", "percent", "query", "kanji", "marks", "plus"],
)
async def test_parameters_of_an_api_are_encoded_once_and_sent_so(value: str) -> None:
    site = Site()
    async with http(site.serve) as base:
        api = {"url": f"{base}/signed%2Fprefix/{{id}}?sig=a%3D&q={{id}}", "params": ["id"]}
        async with fetching({"archive": api}) as made:
            await made.fetch(api_call=ApiCall("archive", {"id": value}, "archive"))
    encoded = "".join(
        chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in "-._~") else f"%{byte:02X}"
        for byte in value.encode()
    )
    assert site.asked == [f"/signed%2Fprefix/{encoded}?sig=a%3D&q={encoded}"]


async def test_dots_are_refused_as_a_step_of_the_path_alone() -> None:
    site = Site()
    bodies: list[str] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.text())
        return await site.serve(request)

    async with http(serve) as base:
        form = {
            "headers": {"Content-Type": "application/x-www-form-urlencoded"},
            "body": "folder={q}",
            "method": "POST",
        }
        apis = {
            "query": {"url": f"{base}/list?folder={{q}}", "params": ["q"]},
            "form": {"url": f"{base}/form", "params": ["q"], **form},
            "path": {"url": f"{base}/list/{{q}}", "params": ["q"]},
        }
        async with fetching(apis) as made:
            await made.fetch(api_call=ApiCall("query", {"q": ".."}, "query"))
            await made.fetch(api_call=ApiCall("form", {"q": ".."}, "form"))
            with pytest.raises(InvalidOption, match="path step"):
                await made.fetch(api_call=ApiCall("path", {"q": ".."}, "path"))
    assert site.asked == ["/list?folder=..", "/form"]
    assert bodies[1] == "folder=.."


async def test_hosts_that_are_not_ascii_are_those_that_the_operator_names() -> None:
    asked: list[str] = []
    site = Site()

    async def look_up(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async with http(site.serve) as base:
        port = base.rpartition(":")[2]
        apis = {"own": {"url": f"http://Bücher.test:{port}/own"}}
        options: dict[str, Any] = {"look_up": look_up, "url_allow_cidrs": ["127.0.0.1/32"]}
        async with fetching(apis, url_allow_hosts=["*.bücher.test"], **options) as made:
            await made.fetch(api_call=ApiCall("own", {}, "own"))
            await made.fetch(url=f"http://a.bücher.test:{port}/a")
    assert asked == ["xn--bcher-kva.test", "a.xn--bcher-kva.test"]
    assert site.asked == ["/own", "/a"]
    listed = {"look_up": look_up, "url_allow_cidrs": [], "url_allow_hosts": ["bücher.test"]}
    async with fetching(**listed) as made:
        with pytest.raises(UrlNotAllowed, match="not public"):
            await made.fetch(url="http://bücher.test/")
        with pytest.raises(UrlNotAllowed, match="does not allow this host"):
            await made.fetch(url="http://other.test/")


async def test_the_url_of_an_api_that_cannot_be_read_is_told_by_its_key() -> None:
    with pytest.raises(ConfigurationError, match=r"api\.odd\.url"):
        async with fetching({"odd": {"url": "http://[::1/"}}):
            pass


@pytest.mark.parametrize(
    "written",
    [
        DATA,
        DATA.replace("data:image/png", "DATA:"),
        DATA.replace("+", "-").replace("/", "_").replace("image_png", "image/png").rstrip("="),
        DATA.replace("+", "%2B").replace("=", "%3D"),
        "data:," + "".join(f"%{byte:02x}" for byte in picture(1)),
        DATA + "#fragment",
    ],
    ids=["plain", "upper case", "other alphabet", "percent", "no base64", "fragment"],
)  # fmt: skip
@pytest.mark.parametrize("way", ["source", "answer"])
async def test_a_data_url_holds_the_image(way: str, written: str) -> None:
    site = Site()
    async with http(site.serve) as base:
        assert await fetch(way, base, site, written, url_sources=False) == picture(1)
    assert len(site.asked) == (1 if way == "answer" else 0)


@pytest.mark.parametrize(
    ("way", "kind"), [("source", InvalidImage), ("answer", UpstreamFailed), ("redirect", UrlNotAllowed)]
)
@pytest.mark.parametrize("written", ["data:image/png;base64,%%%NEVER%%%", "data:NEVER"])
async def test_an_error_says_nothing_of_the_data(way: str, kind: type[SluicewayError], written: str) -> None:
    site = Site()
    async with http(site.serve) as base:
        with pytest.raises(kind) as caught:
            await fetch(way, base, site, written)
    said = json.dumps([caught.value.message, dict(caught.value.metadata)])
    assert "NEVER" not in said
    assert caught.value.message


@pytest.mark.parametrize("way", ["source", "answer"])
async def test_a_data_url_is_held_to_the_largest_image(way: str) -> None:
    site = Site()
    large = "data:;base64," + base64.b64encode(picture(1, size_bytes=3 * 2**20)).decode()
    async with http(site.serve) as base:
        assert len(await fetch(way, base, site, large, max_image_bytes=3 * 2**20)) == 3 * 2**20
        with pytest.raises(ImageTooLarge):
            await fetch(way, base, site, large, max_image_bytes=3 * 2**20 - 1)


async def test_an_answer_may_name_an_image_and_hold_another_for_want_of_it() -> None:
    """The one that is here stays counted while the other is tried, and nothing of either is left."""
    site = Site()
    async with http(site.serve) as base:
        api = {"url": f"{base}/api/v1/search", "image": "url", "image_pointer": "/urls", "retries": 0}
        async with fetching({"search": api}, budget_bytes=3 * 2**20) as made:
            for urls, image in (
                ([f"{base}/img.png", DATA], picture(1)),
                (["http://169.254.169.254/", DATA], picture(1)),
                (["data:;base64,?", f"{base}/img.png"], picture(1)),
            ):
                site.answer = {"urls": urls}
                assert (await made.fetch(api_call=ApiCall("search", {}, "search"))).image == image
                assert made.budget.used_bytes == 0


async def test_a_client_hears_no_more_of_a_data_url_than_that_it_cannot_be_read() -> None:
    async with Cluster(url_allow_cidrs=LOOPBACK) as cluster:
        good = await one(cluster, pipeline_pb2.Source(url=DATA))
        assert good.texts
        bad = await one(cluster, pipeline_pb2.Source(url="data:image/png;base64,%%%NEVER"))
    assert bad.error is not None
    assert "NEVER" not in str(bad.error)
    assert "data: URL" in str(bad.error)
