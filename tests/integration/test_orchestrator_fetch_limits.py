"""The bounds of fetching: time, connections, and APIs that fail again and again; against real HTTP servers."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest
from aiohttp import web
from fetching import call, fetching
from loop_time import pass_time
from sluiceway_orchestrator.testing import picture
from sluiceway_runtime.errors import DeadlineExceeded, InvalidOption, UpstreamFailed, UrlNotAllowed
from waiting import until
from web_sources import http

MIB = 2**20


async def test_an_api_that_keeps_failing_is_left_alone_and_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, healthy, passed_s = 0, False, 0.0
    monkeypatch.setattr("sluiceway_orchestrator.fetch.limits.monotonic", lambda: monotonic() + passed_s)

    async def serve(_request: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return web.Response(body=picture(1)) if healthy else web.Response(status=500)

    async with http(serve) as base:
        api = {"url": f"{base}/", "retries": 0, "breaker_failures": 3, "breaker_open_s": 600}
        async with fetching({"sick": api}) as made:
            for _ in range(6):
                with pytest.raises(UpstreamFailed) as caught:
                    await made.fetch(api_call=call("sick"))
            assert calls == 3
            assert caught.value.retry_after_s is not None
            assert 0 < caught.value.retry_after_s <= 600
            healthy = True
            passed_s = 300.0
            with pytest.raises(UpstreamFailed):
                await made.fetch(api_call=call("sick"))
            assert calls == 3, "half of the time is over"
            passed_s = 601.0
            for _ in range(2):
                assert (await made.fetch(api_call=call("sick"))).image == picture(1)
    assert calls == 5


@pytest.mark.parametrize(
    "params", [{"id": ".."}, {"id": "\u20ac" * 1000}], ids=["a path step", "a URL that is too long"]
)
async def test_a_call_that_is_never_sent_says_nothing_about_its_api(params: dict[str, str]) -> None:
    calls = 0

    async def dead(_request: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return web.Response(status=500)

    async with http(dead) as base:
        api = {"url": f"{base}/{{id}}", "params": ["id"], "retries": 0, "breaker_failures": 3, "breaker_open_s": 60}
        async with fetching({"dead": api}) as made:
            for _ in range(4):
                with pytest.raises(UpstreamFailed):
                    await made.fetch(api_call=call("dead", id="1"))
                with pytest.raises((InvalidOption, UrlNotAllowed)):
                    await made.fetch(api_call=call("dead", **params))
    assert calls == 3, "three failures in a row stop the calls"


async def test_the_wait_for_a_connection_is_no_time_of_the_other_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """One connection to a host that takes fifty seconds for each of two images, where a minute is allowed."""
    asked: list[int] = []
    answered = [asyncio.Event(), asyncio.Event()]

    async def serve(_request: web.Request) -> web.Response:
        asked.append(len(asked))
        await answered[asked[-1]].wait()
        return web.Response(body=picture(1))

    options = {"fetch_per_host": 1, "url_timeout_s": 60, "url_retries": 0}
    async with http(serve) as base, fetching(**options) as made, asyncio.timeout(30 + 100):
        tasks = [asyncio.create_task(made.fetch(url=f"{base}/{n}", within_s=600)) for n in range(2)]
        for number in range(2):
            await until(lambda number=number: len(asked) > number)
            # The other one is in line by now: all that it does before it takes no time of a network.
            await asyncio.sleep(0.1)
            pass_time(50, monkeypatch)
            await asyncio.sleep(0.05)
            answered[number].set()
        for task in tasks:
            assert (await task).image == picture(1)


async def test_fetching_ends_with_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def never(_request: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        return web.Response()

    # No attempt ends when the deadline does.
    async with http(never) as base, fetching(url_timeout_s=600) as made:
        task = asyncio.create_task(made.fetch(url=f"{base}/x", within_s=60))
        async with asyncio.timeout(30):
            await asked.wait()
        pass_time(50, monkeypatch)
        await asyncio.sleep(0.05)
        assert not task.done()
        pass_time(11, monkeypatch)
        with pytest.raises(DeadlineExceeded):
            await asyncio.wait_for(task, 30)
