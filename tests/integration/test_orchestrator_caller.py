"""A user's own API caller, from a file outside the packages, inside the running server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from sluiceway_orchestrator.config import ApiConfig, OrchestratorConfig
from sluiceway_orchestrator.fetch import FetchedImage
from sluiceway_orchestrator.fetch.fetcher import Fetched, Fetcher
from sluiceway_orchestrator.job import ApiCall, Source
from sluiceway_orchestrator.testing import Cluster, SourceEvents, picture
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import (
    ConfigurationError,
    DeadlineExceeded,
    SluicewayError,
    UpstreamFailed,
    UpstreamRefused,
)

from sluiceway.pipeline.v1 import pipeline_pb2

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
async def archive(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    async def record(request: web.Request) -> web.Response:
        item = request.match_info["item"]
        if item == "404":
            raise web.HTTPNotFound
        return web.json_response({"scan": f"s{item}", "title": None if item == "8" else f"Item {item}"})

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
        events = await cluster.process(item("42"), item("x"), item("404"), item("7"), item("8"))
        described = await cluster.stub.Describe(pipeline_pb2.DescribeRequest())
        assert cluster.service.status()["fetch_bytes"] == 0
    assert events["0"].texts == {"42:0": 1, "42:1": 1}
    assert events["0"].ready is not None
    assert dict(events["0"].ready.metadata) == {"archive.title": "Item 42"}
    assert reason(events["1"]) == ("UPSTREAM_REFUSED", "an item is a number")
    assert reason(events["2"]) == ("UPSTREAM_FAILED", "archive failed")
    assert events["3"].done is not None
    assert events["4"].done is not None, "a record without a title is no fault"
    assert [(api.name, list(api.params)) for api in described.apis] == [("archive", ["item"])]


Answer = Callable[[Mapping[str, str]], Awaitable[Any]]


def use(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> dict[str, dict[str, object]]:
    """Tables that make a function the API `archive`."""

    class Own:
        params = ("item",)

        async def setup(self, _session: object) -> None:
            pass

        async def __call__(self, params: Mapping[str, str]) -> FetchedImage:
            return await answer(params)

    module = ModuleType("own_callers")
    module.Own = Own  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_callers", module)
    return {"archive": {"caller": "own_callers:Own", "max_in_flight": 1}}


class OwnError(SluicewayError):
    code = "TEAPOT"
    reason = "TEAPOT"


@pytest.mark.parametrize(
    "given",
    [
        FetchedImage(picture(1), {"price": 3}),  # type: ignore[dict-item]
        FetchedImage(picture(1), {"title": None}),  # type: ignore[dict-item]
        FetchedImage(picture(1), {7: "seven"}),  # type: ignore[dict-item]
        FetchedImage(picture(1), None),  # type: ignore[arg-type]
        FetchedImage(bytearray(picture(1))),  # type: ignore[arg-type]
        FetchedImage("text"),  # type: ignore[arg-type]
        picture(1),
        UpstreamRefused("no", metadata={"status": 404}),  # type: ignore[dict-item]
        UpstreamFailed(404),  # type: ignore[arg-type]
        UpstreamFailed("later", retry_after_s=float("inf")),
        OwnError("no such code"),
    ],
    ids=lambda given: f"{given!r:.60}" if isinstance(given, Exception) else None,
)
async def test_what_no_message_can_carry_fails_its_source_alone(
    given: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(_params: Mapping[str, str]) -> object:
        if isinstance(given, Exception):
            raise given
        return given

    async with Cluster(apis=use(monkeypatch, answer)) as cluster:
        source = pipeline_pb2.Source(image=picture(3))
        source.metadata_calls.add(api="archive", params={"item": "1"})
        events = await cluster.process(item("1"), pipeline_pb2.Source(image=picture(2)), source, return_images=True)
        assert cluster.service.status()["fetch_bytes"] == 0
    assert reason(events["0"]) == ("UPSTREAM_FAILED", "archive failed")
    assert "api archive" in caplog.text
    assert events["1"].done is not None
    assert events["2"].done is not None
    assert events["2"].ready is not None
    assert events["2"].ready.metadata_errors["archive"].reason == "UPSTREAM_FAILED"


async def test_what_a_caller_cancels_within_itself_fails_its_source_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_params: Mapping[str, str]) -> FetchedImage:
        part = asyncio.create_task(asyncio.Event().wait())
        part.cancel()
        await part
        raise AssertionError("unreachable")

    async with Cluster(apis=use(monkeypatch, answer)) as cluster:
        source = pipeline_pb2.Source(image=picture(3))
        source.metadata_calls.add(api="archive", params={"item": "1"})
        events = await cluster.process(item("1"), pipeline_pb2.Source(image=picture(2)), source)
        assert cluster.service.status()["fetch_bytes"] == 0
    assert reason(events["0"]) == ("UPSTREAM_FAILED", "archive failed")
    assert events["1"].done is not None
    assert events["2"].ready is not None
    assert events["2"].ready.metadata_errors["archive"].reason == "UPSTREAM_FAILED"


async def test_half_a_character_is_replaced_in_metadata_and_in_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(params: Mapping[str, str]) -> FetchedImage:
        if params["item"] == "0":
            raise UpstreamRefused("no \ud83d", metadata={"what": "\ud83d"})
        return FetchedImage(picture(1), {"title \ud83d": "a \ud83d\ude00 \ude00"})

    async with Cluster(apis=use(monkeypatch, answer)) as cluster:
        events = await cluster.process(item("0"), item("1"))
    assert reason(events["0"]) == ("UPSTREAM_REFUSED", "no \ufffd")
    assert events["0"].error is not None
    assert dict(events["0"].error.metadata) == {"what": "\ufffd"}
    assert events["1"].ready is not None
    assert dict(events["1"].ready.metadata) == {"archive.title \ufffd": "a \U0001f600 \ufffd"}


async def test_calls_in_line_for_a_slow_caller_keep_no_room_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for two of the largest images; one call runs, and those in line behind it must not take the rest."""
    running, release = asyncio.Event(), asyncio.Event()

    async def answer(_params: Mapping[str, str]) -> FetchedImage:
        running.set()
        await release.wait()
        return FetchedImage(picture(1))

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=picture(2))

    application = web.Application()
    application.router.add_get("/", serve)
    options = {"url_allow_cidrs": ["127.0.0.0/8"], "max_image_bytes": 2**20, "fetch_bytes": 2**21}
    async with TestServer(application) as server, Cluster(apis=use(monkeypatch, answer), **options) as cluster:
        slow = asyncio.create_task(cluster.process(*(item(str(number)) for number in range(3))))
        await running.wait()
        url = pipeline_pb2.Source(url=f"http://127.0.0.1:{server.port}/")
        (source,) = (await cluster.process(url, timeout_s=8)).values()
        assert source.done is not None
        assert not slow.done()
        release.set()
        assert all(source.done is not None for source in (await slow).values())


async def test_the_only_slot_is_not_kept_by_a_call_that_waits_for_one_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An image takes the room that the next call of an API with one slot needs, and waits for metadata of that API."""
    release = asyncio.Event()

    async def answer(params: Mapping[str, str]) -> FetchedImage:
        if params["item"] == "first":
            await release.wait()
        return FetchedImage(picture(1, size_bytes=600_000), params)

    one = use(monkeypatch, answer)["archive"]
    apis = {"archive": ApiConfig.model_validate(one), "large": ApiConfig.model_validate({**one, "max_in_flight": 4})}
    fetcher = Fetcher(OrchestratorConfig(max_image_bytes=2**20, fetch_bytes=2**20), apis, {})
    await fetcher.start()

    async def fetch(source: Source) -> Mapping[str, str]:
        fetched = await fetcher.fetch(source, Deadline.after(600))
        fetched.release()
        return fetched.metadata

    def call(api: str, name: str) -> ApiCall:
        return ApiCall(api, {"item": name})

    sources = (
        Source("holds the slot", image=picture(1), metadata_calls=(call("archive", "first"),)),
        Source("is next in line", api_call=call("archive", "second")),
        Source("is behind it", api_call=call("large", "third"), metadata_calls=(call("archive", "fourth"),)),
    )
    tasks = []
    try:
        for source in sources:
            tasks.append(asyncio.create_task(fetch(source)))
            for _ in range(20):
                await asyncio.sleep(0)
        release.set()
        found = await asyncio.wait_for(asyncio.gather(*tasks), 30)
    finally:
        await fetcher.close()
    assert found[0] == {"archive.item": "first"}
    assert found[1] == {"archive.item": "second"}
    assert found[2] == {"archive.item": "fourth", "large.item": "third"}
    assert fetcher.budget.used_bytes == 0


async def test_the_wait_for_a_slot_is_no_failure_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    running, release = asyncio.Event(), asyncio.Event()

    async def answer(_params: Mapping[str, str]) -> FetchedImage:
        running.set()
        await release.wait()
        return FetchedImage(picture(1))

    table = use(monkeypatch, answer)["archive"]
    api = ApiConfig.model_validate({**table, "breaker_failures": 1, "breaker_open_s": 60, "timeout_s": 30})
    fetcher = Fetcher(OrchestratorConfig(), {"archive": api}, {})
    await fetcher.start()
    try:
        call = Source("s", api_call=ApiCall("archive", {"item": "1"}))
        first = asyncio.create_task(fetcher.fetch(call, Deadline.after(30)))
        await running.wait()
        with pytest.raises(DeadlineExceeded):
            await fetcher.fetch(call, Deadline.after(0.1))
        third = asyncio.create_task(fetcher.fetch(call, Deadline.after(30)))
        await asyncio.sleep(0)
        release.set()
        for task in (first, third):
            (await task).release()
    finally:
        await fetcher.close()
    assert fetcher.budget.used_bytes == 0


def reason(events: SourceEvents) -> tuple[str, str]:
    assert events.error is not None
    return events.error.reason, events.error.message


async def test_a_caller_that_cannot_be_set_up_keeps_the_server_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own:
        params = ()

        async def setup(self, _session: object) -> None:
            raise KeyError("ARCHIVE_URL")

        async def __call__(self, _params: Mapping[str, str]) -> FetchedImage:
            raise AssertionError("it is never called")

    module = ModuleType("own_callers")
    module.Own = Own  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_callers", module)
    api = ApiConfig.model_validate({"caller": "own_callers:Own"})
    fetcher = Fetcher(OrchestratorConfig(), {"archive": api}, {})
    with pytest.raises(ConfigurationError, match=r"api\.archive\.caller: setup failed: KeyError\('ARCHIVE_URL'\)"):
        await fetcher.start()
    await fetcher.close()


async def test_a_caller_that_takes_too_long_is_ended_and_counts_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    async def answer(params: Mapping[str, str]) -> FetchedImage:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(params["item"])
        raise AssertionError("unreachable")

    table = {**use(monkeypatch, answer)["archive"], "timeout_s": 0.1, "breaker_failures": 2, "breaker_open_s": 600}
    async with Cluster(apis={"archive": table}) as cluster:
        for number in range(2):
            events = await cluster.process(item(str(number)), pipeline_pb2.Source(image=picture(2)))
            assert reason(events["0"]) == ("UPSTREAM_FAILED", "archive did not answer in time")
            assert events["1"].done is not None
        assert cluster.service.status()["fetch_bytes"] == 0
        (left_alone,) = (await cluster.process(item("2"))).values()
    assert reason(left_alone) == ("UPSTREAM_FAILED", "archive failed too often of late")
    assert ended == ["0", "1"]


async def test_a_call_of_a_caller_that_is_cancelled_leaves_its_slot_its_room_and_no_blame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running: asyncio.Queue[str] = asyncio.Queue()
    release, ended = asyncio.Event(), []

    async def answer(params: Mapping[str, str]) -> FetchedImage:
        running.put_nowait(params["item"])
        try:
            await release.wait()
        except asyncio.CancelledError:
            ended.append(params["item"])
            raise
        return FetchedImage(picture(1))

    table = {**use(monkeypatch, answer)["archive"], "breaker_failures": 1, "breaker_open_s": 600, "timeout_s": 60}
    fetcher = Fetcher(OrchestratorConfig(), {"archive": ApiConfig.model_validate(table)}, {})
    await fetcher.start()

    def fetch(number: str) -> asyncio.Task[Fetched]:
        source = Source("s", api_call=ApiCall("archive", {"item": number}))
        return asyncio.create_task(fetcher.fetch(source, Deadline.after(60)))

    try:
        first, second = fetch("1"), fetch("2")
        assert await asyncio.wait_for(running.get(), 30) == "1"
        assert fetcher.budget.used_bytes > 0
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert ended == ["1"]
        # The one slot goes to the next in line, and the breaker, which one failure opens, lets more calls through.
        assert await asyncio.wait_for(running.get(), 30) == "2"
        third = fetch("3")
        release.set()
        for task in (second, third):
            fetched = await asyncio.wait_for(task, 30)
            assert fetched.image == picture(1)
            fetched.release()
    finally:
        await fetcher.close()
    assert fetcher.budget.used_bytes == 0
