"""Redirects while fetching: what goes along to where, between two real HTTP servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from fetching import fetching
from sluiceway_orchestrator.job import ApiCall
from sluiceway_orchestrator.testing import picture
from sluiceway_runtime.errors import UrlNotAllowed

SECRET = "s3cret"


@dataclass
class Seen:
    """A request that came."""

    server: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Sites:
    """Two servers of different origins, and what came to either."""

    seen: list[Seen] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)

    @property
    def trail(self) -> list[str]:
        return [f"{seen.method} {seen.server}{seen.path}" for seen in self.seen]


@asynccontextmanager
async def sites(**redirects: tuple[int, str]) -> AsyncIterator[Sites]:
    """They redirect by path, where `{a}` and `{b}` stand for their URLs, and answer with an image otherwise."""
    here = Sites()

    def application(name: str) -> web.Application:
        async def serve(request: web.Request) -> web.Response:
            headers = {key.lower(): value for key, value in request.headers.items()}
            here.seen.append(Seen(name, request.method, request.path, headers, await request.read()))
            redirect = redirects.get(request.path[1:])
            if redirect is None:
                return web.Response(body=picture(1))
            return web.Response(status=redirect[0], headers={"Location": redirect[1].format(**here.urls)})

        made = web.Application()
        made.router.add_route("*", "/{rest:.*}", serve)
        return made

    async with TestServer(application("a")) as first, TestServer(application("b")) as second:
        here.urls = {"a": f"http://127.0.0.1:{first.port}", "b": f"http://127.0.0.1:{second.port}"}
        yield here


async def call(here: Sites, **api: Any) -> bytes:
    """The image of one call of an API at /start of the first server."""
    table = {"url": f"{here.urls['a']}/start", "retries": 0, **api}
    async with fetching({"api": table}, environment={"TOKEN": SECRET}) as made:
        return bytes((await made.fetch(api_call=ApiCall("api", {}, "api"))).image)


async def test_credentials_and_secrets_stay_with_the_server_that_they_are_for() -> None:
    headers = {
        "Authorization": "Basic abc",
        "cookie": "session=1",
        "Proxy-Authorization": "Basic def",
        "X-Api-Key": "{secret.token}",
        "X-Signed": "key={secret.token}; v=1",
        "X-Plain": "plain",
    }
    async with sites(start=(302, "/next"), next=(302, "{b}/there"), there=(302, "{a}/back")) as here:
        assert await call(here, headers=headers, secrets={"token": "TOKEN"}) == picture(1)
    assert here.trail == ["GET a/start", "GET a/next", "GET b/there", "GET a/back"]
    kept = {"authorization", "cookie", "proxy-authorization", "x-api-key", "x-signed"}
    for seen in here.seen[:2]:
        assert kept <= set(seen.headers), "a redirect within the server"
        assert seen.headers["x-api-key"] == SECRET
    # Once they are dropped they stay so: whoever redirected back has chosen where to.
    for seen in here.seen[2:]:
        assert not kept & set(seen.headers)
        assert seen.headers["x-plain"] == "plain"
        assert SECRET not in str(seen.headers)


@pytest.mark.parametrize("status", [307, 308])
async def test_a_body_is_not_sent_on_to_another_server(status: int) -> None:
    async with sites(start=(status, "/next"), next=(status, "{b}/there")) as here:
        with pytest.raises(UrlNotAllowed):
            await call(here, method="POST", idempotent=True, body='{"a": 1}')
    assert here.trail == ["POST a/start", "POST a/next"]
    assert [seen.body for seen in here.seen] == [b'{"a": 1}'] * 2


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_see_other_turns_into_a_request_without_a_body(status: int) -> None:
    async with sites(start=(status, "{b}/there")) as here:
        assert await call(here, method="POST", idempotent=True, body='{"a": 1}') == picture(1)
    assert here.trail == ["POST a/start", "GET b/there"]
    assert [seen.body for seen in here.seen] == [b'{"a": 1}', b""]


@pytest.mark.parametrize(
    "location", ["http://[::1", "http://127.0.0.1:port/", "http://127.0.0.1:99999/", "file:///etc/passwd"]
)
async def test_a_redirect_to_what_is_no_url_of_the_web_fails_the_source(location: str) -> None:
    async with sites(start=(302, location)) as here, fetching() as made:
        with pytest.raises(UrlNotAllowed):
            await made.fetch(url=f"{here.urls['a']}/start")
        assert (await made.fetch(url=f"{here.urls['b']}/")).image == picture(1)
    assert here.trail == ["GET a/start", "GET b/"], "refused, and not tried again"
