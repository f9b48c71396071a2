"""The bounds of fetching: room for images, time, and APIs that fail again and again; against real HTTP servers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from time import monotonic

import pytest
from aiohttp import web
from loop_time import pass_time
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.fetch.api import ApiAnswer
from sluiceway_orchestrator.fetch.budget import ByteBudget
from sluiceway_orchestrator.fetch.fetcher import Fetcher
from sluiceway_orchestrator.job import ApiCall
from sluiceway_orchestrator.job import Source as JobSource
from sluiceway_orchestrator.testing import Cluster, FakeDetection, picture
from sluiceway_runtime.deadline import Deadline
from web_sources import LOOPBACK, api_source, http, one

from sluiceway.pipeline.v1 import pipeline_pb2

Source = pipeline_pb2.Source


async def test_an_api_that_keeps_failing_is_left_alone_and_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, healthy, passed_s = 0, False, 0.0
    monkeypatch.setattr("sluiceway_orchestrator.fetch.api.monotonic", lambda: monotonic() + passed_s)

    async def serve(_request: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return web.Response(body=picture(1)) if healthy else web.Response(status=500)

    async with http(serve) as base:
        api = {"url": f"{base}/", "retries": 0, "breaker_failures": 3, "breaker_open_s": 600}
        async with Cluster(apis={"sick": api}) as cluster:
            for _ in range(6):
                events = await one(cluster, api_source("sick"))
                assert events.error is not None
                assert events.error.reason == "UPSTREAM_FAILED"
            assert calls == 3
            assert 0 < events.error.retry_after_ms <= 600_000
            healthy = True
            passed_s = 300.0
            assert (await one(cluster, api_source("sick"))).error is not None
            assert calls == 3, "half of the time is over"
            passed_s = 601.0
            assert (await one(cluster, api_source("sick"))).done is not None
            assert (await one(cluster, api_source("sick"))).done is not None
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
        async with Cluster(apis={"dead": api}) as cluster:
            for _ in range(4):
                await one(cluster, api_source("dead", id="1"))
                unsent = await one(cluster, api_source("dead", **params))
                assert unsent.error is not None
                assert unsent.error.reason in ("INVALID_OPTION", "URL_NOT_ALLOWED")
    assert calls == 3, "three failures in a row stop the calls"


async def test_fetched_bytes_stay_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight images of 1 MiB through a budget of 2 MiB while detection holds every image.

    Six of them wait for longer than an attempt may take: that is no fault of the other side and no failed attempt.
    """
    release = asyncio.Event()
    started = 0

    async def serve(_request: web.Request) -> web.Response:
        nonlocal started
        started += 1
        return web.Response(body=picture(started, size_bytes=2**20))

    async def hold(_number: int) -> None:
        await release.wait()

    options = {
        "url_allow_cidrs": LOOPBACK, "max_image_bytes": 2**20, "fetch_bytes": 2**21, "url_timeout_s": 60,
        "url_retries": 0, "default_deadline_s": 600, "max_deadline_s": 600,
    }  # fmt: skip
    async with http(serve) as base, Cluster([FakeDetection(before=hold)], **options) as cluster:
        job = asyncio.create_task(cluster.process(*(Source(url=f"{base}/{n}") for n in range(8)), timeout_s=600))
        detector = cluster.detection[0].stage
        full = f"<ByteBudget used={2**21} of={2**21} waiting=6>"
        async with asyncio.timeout(30):
            while detector.running < 2 or repr(cluster.service._fetcher.budget) != full:
                await asyncio.sleep(0.01)
        assert (started, detector.running) == (8, 2)
        pass_time(120, monkeypatch)
        await asyncio.sleep(0.05)
        assert repr(cluster.service._fetcher.budget) == full
        release.set()
        events = await job
        assert all(source.done is not None for source in events.values())
        assert cluster.service.status()["fetch_bytes"] == 0


async def test_the_wait_for_a_connection_is_no_time_of_the_other_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """One connection to a host that takes fifty seconds for each of two images, where a minute is allowed."""
    asked: list[int] = []
    answered = [asyncio.Event(), asyncio.Event()]

    async def serve(_request: web.Request) -> web.Response:
        asked.append(len(asked))
        await answered[asked[-1]].wait()
        return web.Response(body=picture(1))

    options = {
        "url_allow_cidrs": LOOPBACK, "fetch_per_host": 1, "url_timeout_s": 60, "url_retries": 0,
        "default_deadline_s": 600, "max_deadline_s": 600,
    }  # fmt: skip
    async with http(serve) as base, Cluster(**options) as cluster, asyncio.timeout(30 + 100):
        job = asyncio.create_task(cluster.process(*(Source(url=f"{base}/{n}") for n in range(2)), timeout_s=600))
        for number in range(2):
            while len(asked) <= number:
                await asyncio.sleep(0.01)
            # The other one is in line by now: all that it does before it takes no time of a network.
            await asyncio.sleep(0.1)
            pass_time(50, monkeypatch)
            await asyncio.sleep(0.05)
            answered[number].set()
        events = await job
    assert [source.error for source in events.values()] == [None] * 2


async def test_images_that_wait_for_their_metadata_do_not_keep_the_metadata_waiting() -> None:
    """Four images of 400 kB through a budget for two, and facts that come only once the budget is used up."""

    async def serve(request: web.Request) -> web.Response:
        if request.path != "/facts":
            return web.Response(body=picture(int(request.path[1:]), size_bytes=400_000))
        while cluster.service.status()["fetch_bytes"] < 800_000:
            await asyncio.sleep(0.01)
        return web.json_response({"author": "A"})

    async with http(serve) as base:
        api = {"url": f"{base}/facts", "image": "none", "metadata": {"author": "/author"}}
        options = {"url_allow_cidrs": LOOPBACK, "max_image_bytes": 2**19, "fetch_bytes": 2**20}
        async with Cluster(apis={"facts": api}, **options) as cluster:
            call = pipeline_pb2.ApiCall(api="facts")
            sources = [Source(url=f"{base}/{n}", metadata_calls=[call]) for n in range(4)]
            events = await cluster.process(*sources, timeout_s=8)
            assert cluster.service.status()["fetch_bytes"] == 0
    for source in events.values():
        assert source.done is not None
        assert source.ready is not None
        assert dict(source.ready.metadata) == {"facts.author": "A"}


async def test_images_that_wait_for_room_leave_a_call_for_metadata() -> None:
    """An API's images wait for the room of an image that waits for metadata of the same API."""

    async def serve(request: web.Request) -> web.Response:
        nonlocal called
        if request.path == "/large":
            await entered.wait()
            return web.Response(body=picture(9, size_bytes=600_000))
        if request.query["id"] == "facts":
            await full.wait()
            return web.json_response({"author": "A"})
        called += 1
        entered.set()
        while cluster.service.status()["fetch_bytes"] < 600_000:
            await asyncio.sleep(0.01)
        full.set()
        image = base64.b64encode(picture(called, size_bytes=600_000)).decode()
        return web.json_response({"image": image})

    called, entered, full = 0, asyncio.Event(), asyncio.Event()
    async with http(serve) as base:
        api = {
            "url": f"{base}/archive?id={{id}}",
            "params": ["id"],
            "image": "base64",
            "image_pointer": "/image",
            "metadata": {"author": "/author"},
            "max_in_flight": 2,
        }
        options = {"url_allow_cidrs": LOOPBACK, "max_image_bytes": 2**20, "fetch_bytes": 2**20}
        async with Cluster(apis={"archive": api}, **options) as cluster:
            images = asyncio.create_task(
                cluster.process(api_source("archive", id="1"), api_source("archive", id="2"), timeout_s=8)
            )
            await entered.wait()
            source = Source(url=f"{base}/large")
            source.metadata_calls.add(api="archive", params={"id": "facts"})
            found = (await cluster.process(source, timeout_s=8)).values()
            found = [*found, *(await images).values()]
    assert [source.error for source in found] == [None] * 3


async def test_fetching_ends_with_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def never(_request: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        return web.Response()

    # Neither an attempt nor the call ends when the deadline does.
    options = {"url_allow_cidrs": LOOPBACK, "url_timeout_s": 600, "max_deadline_s": 60}
    async with http(never) as base, Cluster(**options) as cluster:
        sources = [Source(url=f"{base}/x"), Source(image=picture(1))]
        job = asyncio.create_task(cluster.process(*sources, timeout_s=600))
        async with asyncio.timeout(30):
            await asked.wait()
            while cluster.service.flow.statistics.sources_done < 1:
                await asyncio.sleep(0.01)
        pass_time(50, monkeypatch)
        await asyncio.sleep(0.05)
        assert not job.done()
        pass_time(11, monkeypatch)
        events = await asyncio.wait_for(job, 30)
    assert events["0"].error is not None
    assert events["0"].error.reason == "DEADLINE_EXCEEDED"
    assert events["1"].done is not None


class Steps:
    """An API that answers in a few turns of the loop."""

    params = ()

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def call(
        self, params: Mapping[str, str], deadline: Deadline, budget: ByteBudget, *, want_image: bool
    ) -> ApiAnswer:
        del params, deadline
        reservation = await budget.reserve(100)
        try:
            await asyncio.sleep(0)
        except BaseException:
            reservation.release()
            raise
        return ApiAnswer(picture(1) if want_image else b"", {}, reservation)


async def test_a_client_that_leaves_at_any_moment_leaves_no_room_taken() -> None:
    fetcher = Fetcher(OrchestratorConfig(), {}, {})
    fetcher.apis["steps"] = Steps()
    call = ApiCall("steps", {})
    source = JobSource("s", api_call=call, metadata_calls=(call,))
    turns = 0
    while True:
        task = asyncio.create_task(fetcher.fetch(source, Deadline.after(600)))
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (fetcher.budget.used_bytes, fetcher._metadata_budget.used_bytes) == (0, 0), f"after {turns} turns"
        turns += 1
    task.result().release()
    assert turns > 3
    assert (fetcher.budget.used_bytes, fetcher._metadata_budget.used_bytes) == (0, 0)
