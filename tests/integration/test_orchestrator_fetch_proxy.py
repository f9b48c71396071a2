"""What is fetched goes through a proxy where one is configured, and past that of the environment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fetching import fetching
from pydantic import ValidationError
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.job import ApiCall
from sluiceway_orchestrator.testing import picture
from sluiceway_runtime.errors import UpstreamFailed, UrlNotAllowed

IMAGE = picture(1)


@asynccontextmanager
async def proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy that answers everything itself, with an image; tunnels it refuses. Gives what it was asked for."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.decode().partition(" HTTP/")[0])
        if head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(IMAGE) + IMAGE)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def nobody(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host} was looked up here")


async def test_urls_of_sources_go_through_the_proxy_which_looks_their_names_up() -> None:
    async with proxy() as (address, asked), fetching(proxy=address, look_up=nobody, url_retries=0) as made:
        fetched = await made.fetch(url="http://images.example/a%2Fb.png?x=1")
        assert bytes(fetched.image) == IMAGE
        with pytest.raises(UpstreamFailed):
            await made.fetch(url="https://images.example/a.png")
        with pytest.raises(UrlNotAllowed):
            await made.fetch(url="http://10.0.0.1/a.png")
    assert asked == ["GET http://images.example/a%2Fb.png?x=1", "CONNECT images.example:443"]


async def test_an_api_has_a_proxy_of_its_own() -> None:
    async with proxy() as (address, asked):
        apis = {"camera": {"url": "http://camera.example/now", "proxy": address}}
        async with fetching(apis, look_up=nobody) as made:
            fetched = await made.fetch(api_call=ApiCall("camera", {}, "camera"))
            assert bytes(fetched.image) == IMAGE
    assert asked == ["GET http://camera.example/now"]


async def test_the_proxy_of_the_environment_is_not_for_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy() as (address, asked):
        monkeypatch.setenv("http_proxy", address)
        async with fetching(url_retries=0) as made:
            with pytest.raises(UpstreamFailed):
                await made.fetch(url="http://127.0.0.1:9/a.png")
    assert asked == []


@pytest.mark.parametrize("text", ["proxy:3128", "socks5://proxy:1080", "http://user:secret@proxy:3128"])
def test_what_is_no_proxy_is_told(text: str) -> None:
    with pytest.raises(ValidationError, match="proxy"):
        OrchestratorConfig(proxy=text)
