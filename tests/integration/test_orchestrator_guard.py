"""The guard, with real servers that count who comes: hostile URLs are refused and fetch nothing, allowed ones do."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from fetching import Fetching, fetching
from sluiceway_orchestrator.fetch.guard import system_look_up
from sluiceway_orchestrator.job import ApiCall
from sluiceway_orchestrator.stages.resolver import system_lookup
from sluiceway_orchestrator.testing import picture
from sluiceway_runtime.errors import UpstreamFailed, UrlNotAllowed

# The "public" server of these tests listens here; the rest of the loopback network stands for the inside.
PUBLIC = "127.0.0.77"


@dataclass
class Site:
    """Two servers on one port number: a public one, and one on the inside that nobody may reach."""

    port: int
    public: list[str] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    redirect_to: str = ""


def one_port_twice() -> tuple[socket.socket, socket.socket]:
    """Two sockets with one port number at two addresses; somebody else may have the number at the second."""
    for _ in range(50):
        public, inside = socket.socket(), socket.socket()
        try:
            public.bind((PUBLIC, 0))
            inside.bind(("127.0.0.1", public.getsockname()[1]))
        except OSError:
            public.close()
            inside.close()
        else:
            return public, inside
    raise AssertionError("no port is free at both addresses")


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    async def serve(request: web.Request) -> web.StreamResponse:
        here.public.append(request.path)
        if request.path.startswith("/redirect"):
            return web.Response(status=302, headers={"Location": here.redirect_to})
        if request.path == "/loop":
            raise web.HTTPFound("/loop")
        return web.Response(body=picture(1), content_type="image/jpeg")

    async def secret(request: web.Request) -> web.Response:
        here.inside.append(request.path)
        return web.Response(body=picture(2), content_type="image/jpeg")

    outer, inner = web.Application(), web.Application()
    outer.router.add_route("*", "/{rest:.*}", serve)
    inner.router.add_route("*", "/{rest:.*}", secret)
    sockets = one_port_twice()
    here = Site(sockets[0].getsockname()[1])
    runners = [web.AppRunner(outer), web.AppRunner(inner)]
    try:
        for runner, listener in zip(runners, sockets, strict=True):
            await runner.setup()
            await web.SockSite(runner, listener).start()
        yield here
    finally:
        for runner in runners:
            await runner.cleanup()


class Names:
    """A resolver in the hands of an attacker: each look-up of a name takes the next answer, the last one stays."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {name.replace("_", "."): list(found) for name, found in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        found = self.answers.get(host.rstrip("."))
        if found is None:
            raise OSError("no such name")
        return found.pop(0) if len(found) > 1 else found[0]


def fetcher(names: Names | None = None, **options: Any) -> AbstractAsyncContextManager[Fetching]:
    given = {"url_allow_cidrs": [f"{PUBLIC}/32"], "url_retries": 0, "url_timeout_s": 20, **options}
    return fetching(look_up=names or Names(), **given)


async def fetch(made: Fetching, url: str) -> bytes:
    image = bytes((await made.fetch(url=url)).image)
    assert made.budget.used_bytes == 0
    return image


HOSTILE = [
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST.:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[64:ff9b:1::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2001:0:7f00:1::]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fc00::1]:{port}/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.100.100.200/latest/meta-data/",
    "http://168.63.129.16/metadata/",
    "http://192.0.0.192/opc/v2/",
    "http://10.0.0.1:{port}/",
    "http://172.16.0.1:{port}/",
    "http://192.168.1.1:{port}/",
    "http://100.64.0.1:{port}/",
    "http://198.18.0.1:{port}/",
    "http://224.0.0.1:{port}/",
    "http://255.255.255.255:{port}/",
    "http://127.0.0.77@127.0.0.1:{port}/",
    "http://user:password@public.test:{port}/",
    "http://@127.0.0.77:{port}/",
    "http://127.0.0.1:{port}\\@127.0.0.77/",
    "http://127.0.0.77 http://127.0.0.1:{port}/",
    "http://127.0.0.77\u3000:{port}/",
    "http://127.0.0.77:{port}/\r\nHost: inside",
    "http://１２７.0.0.1:{port}/",  # noqa: RUF001 - other digits are the point
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://inside.test:{port}/",
    "http://both.test:{port}/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_GET%20/",
    "ftp://127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "javascript:alert(1)",
    "http://",
    "http://[0]e@/",
    "http:///path",
    "",
    "http://127.0.0.77:99999/",
    "http://" + "a" * 9000 + ".test/",
]


@pytest.mark.parametrize("url", HOSTILE)
async def test_hostile_urls_are_refused_and_nothing_is_fetched(url: str) -> None:
    names = Names(
        localhost=[["127.0.0.1"]],
        inside_test=[["127.0.0.1"]],
        both_test=[[PUBLIC, "127.0.0.1"]],
        metadata_google_internal=[["169.254.169.254"]],
        public_test=[[PUBLIC]],
    )
    async with site() as here, fetcher(names) as made:
        with pytest.raises(UrlNotAllowed):
            await fetch(made, url.format(port=here.port) if "{port}" in url else url)
        assert here.inside == []
        assert here.public == []


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://0x7f000001:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://inside.test:{port}/",
        "//127.0.0.1:{port}/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{port}/",
        "http://user@127.0.0.77:{port}/",
        "http://[0]e@/",
    ],
)
async def test_a_redirect_is_checked_like_the_first_url(target: str) -> None:
    names = Names(inside_test=[["127.0.0.1"]])
    async with site() as here, fetcher(names) as made:
        here.redirect_to = target.format(port=here.port)
        with pytest.raises(UrlNotAllowed):
            await fetch(made, f"http://{PUBLIC}:{here.port}/redirect")
        assert here.public == ["/redirect"]
        assert here.inside == []


async def test_a_name_that_changes_its_mind_gains_nothing() -> None:
    """DNS rebinding: good at the first look-up, the inside ever after; the connection goes where the check looked."""
    names = Names(rebind_test=[[PUBLIC], ["127.0.0.1"]])
    async with site() as here, fetcher(names) as made:
        assert await fetch(made, f"http://rebind.test:{here.port}/") == picture(1)
        asked = len(names.asked)
        assert asked == 1
        assert here.public == ["/"]
    # Another client, whose first look-up is the second answer.
    async with site() as here, fetcher(names) as made:
        with pytest.raises(UrlNotAllowed):
            await fetch(made, f"http://rebind.test:{here.port}/")
        assert (here.public, here.inside) == ([], [])


async def test_a_connection_to_the_inside_is_not_inherited_from_a_trusted_api() -> None:
    """An API of the operator may live inside; a URL source must not ride on its pooled connection."""
    names = Names(inside_test=[["127.0.0.1"]])
    async with site() as here:
        apis = {"inside": {"url": f"http://inside.test:{here.port}/photo"}}
        async with fetching(apis, look_up=names, url_retries=0, url_allow_cidrs=[]) as made:
            assert (await made.fetch(api_call=ApiCall("inside", {}, "inside"))).image == picture(2)
            with pytest.raises(UrlNotAllowed):
                await fetch(made, f"http://inside.test:{here.port}/photo")
        assert here.inside == ["/photo"]


ALLOWED = [
    "http://127.0.0.77:{port}/",
    "http://127.0.0.77:{port}/a/b.jpg?x=1&y=%20#fragment",
    "HTTP://127.0.0.77:{port}/upper",
    "http://public.test:{port}/",
    "http://PUBLIC.test.:{port}/dot",
    "http://a.public.test:{port}/sub",
    "http://[::ffff:127.0.0.77]:{port}/mapped",
    "http://bücher.test:{port}/idn",
    "http://public.test:{port}/redirect",
    "http://public.test:{port}/%2e%2e/up",
]


@pytest.mark.parametrize("url", ALLOWED)
async def test_allowed_urls_are_fetched(url: str) -> None:
    names = Names(public_test=[[PUBLIC]], a_public_test=[[PUBLIC]])
    names.answers["xn--bcher-kva.test"] = [[PUBLIC]]
    names.answers["PUBLIC.test"] = [[PUBLIC]]
    async with site() as here, fetcher(names) as made:
        here.redirect_to = f"http://{PUBLIC}:{here.port}/target"
        assert await fetch(made, url.format(port=here.port)) == picture(1)
        assert here.public
        assert here.inside == []


async def test_hosts_outside_the_list_are_refused_without_a_look_up() -> None:
    names = Names(public_test=[["93.184.216.34"]], other_test=[["93.184.216.34"]])
    async with fetcher(names, url_allow_hosts=["public.test", "*.good.test"], url_allow_cidrs=[]) as made:
        for url in (
            "http://other.test/",
            "http://evilpublic.test/",
            "http://public.test.evil.test/",
            "http://1.1.1.1/",
        ):
            with pytest.raises(UrlNotAllowed):
                await fetch(made, url)
        assert names.asked == []


async def test_url_sources_can_be_switched_off() -> None:
    async with site() as here, fetcher(url_sources=False) as made:
        with pytest.raises(UrlNotAllowed):
            await fetch(made, f"http://{PUBLIC}:{here.port}/")
        assert here.public == []


async def test_redirects_do_not_go_on_for_ever() -> None:
    async with site() as here, fetcher() as made:
        with pytest.raises(UpstreamFailed, match="redirects"):
            await fetch(made, f"http://{PUBLIC}:{here.port}/loop")
        assert len(here.public) == 6


async def test_names_that_no_server_answers_for_do_not_hold_up_the_names_of_stages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release, real = threading.Event(), socket.getaddrinfo

    def silent(host: str, *arguments: Any, **options: Any) -> Any:
        if host.endswith(".test"):
            release.wait(60)
            raise OSError("no answer")
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    waiting = [asyncio.create_task(system_look_up(f"{number}.test", 80)) for number in range(40)]
    try:
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            assert await system_lookup("127.0.0.1", 80) == ("127.0.0.1",)
    finally:
        release.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(answer, OSError) for answer in found)
