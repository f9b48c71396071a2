"""A user's own API caller, from a file outside the packages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from fetching import Fetching, context, fetching, given_by
from sluiceway_orchestrator.fetch import Answer, Call, DetectionChoice, Region
from sluiceway_orchestrator.fetch.fetcher import Fetched
from sluiceway_orchestrator.job import ApiCall, Source
from sluiceway_orchestrator.testing import picture
from sluiceway_runtime.account import Phase
from sluiceway_runtime.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    InvalidImage,
    SluicewayError,
    UpstreamFailed,
    UpstreamRefused,
)
from web_sources import http

EXAMPLES = Path(__file__).parents[2] / "examples"
MIB = 2**20


def item(value: str, name: str = "archive", api: str = "archive") -> ApiCall:
    return ApiCall(api, {"item": value}, name)


@pytest.fixture
async def archive(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    async def record(request: web.Request) -> web.Response:
        number = request.match_info["item"]
        if number == "404":
            raise web.HTTPNotFound
        kind = "map" if number == "7" else "page"
        return web.json_response({"scan": f"s{number}", "title": f"Item {number}", "kind": kind})

    async def scan(request: web.Request) -> web.Response:
        return web.Response(body=picture(int(request.match_info["scan"][1:])))

    application = web.Application()
    application.router.add_get("/records/{item}", record)
    application.router.add_get("/scans/{scan}", scan)
    async with TestServer(application) as server:
        monkeypatch.syspath_prepend(str(EXAMPLES))
        yield f"http://127.0.0.1:{server.port}"


async def test_the_example_brings_images_values_options_and_its_own_errors(archive: str) -> None:
    async with fetching({"archive": {"caller": "caller:ArchiveCaller", "config": {"url": archive}}}) as made:
        assert made.fetcher.apis["archive"].params == ("item",)
        fetched = await made.fetch(api_call=item("42"))
        assert (fetched.image, fetched.values) == (picture(42), {"archive": {"title": "Item 42"}})
        assert fetched.detection is None
        beside = await made.fetch([item("7", "map")], image=picture(1))
        assert (beside.image, beside.values) == (picture(1), {"map": {"title": "Item 7"}})
        assert beside.detection == DetectionChoice(image_size=1280)
        with pytest.raises(UpstreamRefused, match="an item is a number"):
            await made.fetch(api_call=item("x"))
        with pytest.raises(UpstreamFailed, match=r"^archive failed$"):
            await made.fetch(api_call=item("404"))


async def test_a_caller_hears_all_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Call] = []

    async def answer(call: Call) -> Answer:
        heard.append(call)
        return Answer(picture(1), {"n": len(heard)})

    region = Region(3, None, "plates", 0, "plate", 0.5, (0, 0, 9, 9), {"number": {"text": "AB 1", "confidence": 0.9}})
    async with fetching({"own": {"caller": given_by(monkeypatch, answer)}}) as made:
        earlier = context(values={"book": {"page": 3}})
        source = Source("source", api_call=item("1", "image", "own"))
        fetched = await made.fetcher.fetch(source, [item("2", "facts", "own")], earlier, made.budget.account())
        fetched.release()
        of_region = await made.call(item("3", "owner", "own"), region=region)
        of_source = await made.call(item("4", "ledger", "own"), regions=(region,))
    assert of_region == Answer(None, {"n": 3})
    assert of_source == Answer(None, {"n": 4})
    calls = {call.name: call for call in heard}
    assert {name: (call.params["item"], call.want_image) for name, call in calls.items()} == {
        "image": ("1", True),
        "facts": ("2", False),
        "owner": ("3", False),
        "ledger": ("4", False),
    }
    facts = calls["facts"]
    assert (facts.api, facts.source_id, facts.job_id, facts.request_id) == ("own", "source", "job", "request")
    assert facts.values == {"book": {"page": 3}}
    assert facts.deadline == earlier.deadline
    assert (facts.region, facts.regions) == (None, ())
    assert calls["owner"].region is region
    assert calls["owner"].region.text == "AB 1"
    assert calls["ledger"].regions == (region,)


async def test_all_the_calls_that_may_be_in_flight_are_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 by default; none is answered before all are there."""
    together = asyncio.Barrier(64)

    async def answer(call: Call) -> Answer:
        await together.wait()
        return Answer(picture(int(call.params["item"]), size_bytes=1000), {"who": call.params["item"]})

    async with fetching({"mine": {"caller": given_by(monkeypatch, answer)}}) as made, asyncio.timeout(30):
        found = await asyncio.gather(*(made.fetch(api_call=item(f"{n}", api="mine")) for n in range(64)))
    assert [fetched.values["archive"]["who"] for fetched in found] == [f"{number}" for number in range(64)]


async def test_two_calls_of_one_api_keep_both_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(call: Call) -> Answer:
        return Answer(values={"who": call.params["item"]})

    async with fetching({"mine": {"caller": given_by(monkeypatch, answer)}}) as made:
        calls = [item("A", "mine", "mine"), item("B", "mine_2", "mine")]
        fetched = await made.fetch(calls, image=picture(1))
    assert fetched.values == {"mine": {"who": "A"}, "mine_2": {"who": "B"}}


async def test_what_a_caller_may_bring_is_reserved_as_learnt_and_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    during: list[int] = []

    async def answer(call: Call) -> Answer:
        during.append(made.budget.used_bytes)
        return Answer(picture(1, size_bytes=int(call.params["item"])))

    async with fetching({"archive": {"caller": given_by(monkeypatch, answer)}}) as made:
        for size in (5 * MIB, 1000, 1000):
            fetched = await made.fetch(api_call=item(f"{size}"), keep=True)
            assert (made.budget.used_bytes, len(fetched.image)) == (size, size)
            fetched.release()
        await made.fetch([item("1000")], image=picture(1))
        with pytest.raises(ImageTooLarge):
            await made.fetch(api_call=item(f"{33 * MIB}"))
    assert during[:2] == [MIB, 5 * MIB]
    assert 4 * MIB < during[2] < 5 * MIB
    assert during[3] == 0, "no image is wanted"


class OwnError(SluicewayError):
    code = "TEAPOT"
    reason = "TEAPOT"


@pytest.mark.parametrize(
    "given",
    [
        Answer(picture(1), {"price": object()}),
        Answer(picture(1), {"price": float("nan")}),
        Answer(picture(1), {"raw": b"bytes"}),
        Answer(picture(1), {7: "seven"}),  # type: ignore[dict-item]
        Answer(picture(1), None),  # type: ignore[arg-type]
        Answer(picture(1), {"long": "x" * 2**20}),
        Answer(bytearray(picture(1))),  # type: ignore[arg-type]
        Answer("text"),  # type: ignore[arg-type]
        Answer(picture(1), {}, {"iou": 0.5}),  # type: ignore[arg-type]
        picture(1),
        None,
        UpstreamRefused("no", metadata={"status": 404}),  # type: ignore[dict-item]
        UpstreamFailed(404),  # type: ignore[arg-type]
        UpstreamFailed("later", retry_after_s=float("inf")),
        OwnError("no such code"),
        lambda: DetectionChoice(iou=2),
    ],
    ids=lambda given: f"{given!r:.60}" if isinstance(given, Exception) else None,
)
async def test_what_no_message_can_carry_fails_its_call_alone(
    given: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(_call: Call) -> object:
        if isinstance(given, Exception):
            raise given
        return given() if callable(given) else given

    async with fetching({"archive": {"caller": given_by(monkeypatch, answer)}}) as made:
        with pytest.raises(UpstreamFailed, match=r"^archive failed$"):
            await made.fetch(api_call=item("1"))
        assert "api archive" in caplog.text
        fetched = await made.fetch([item("1")], image=picture(3))
        assert fetched.call_errors["archive"].reason == "UPSTREAM_FAILED"
        assert fetched.values == {}
        with pytest.raises(UpstreamFailed):
            await made.fetch([item("1")])
        with pytest.raises(UpstreamFailed):
            await made.call(item("1"))


@pytest.mark.parametrize("image", [None, b"", b"no image"])
async def test_an_answer_without_an_image_is_no_image(image: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_call: Call) -> Answer:
        return Answer(image, {"a": 1})

    async with fetching({"archive": {"caller": given_by(monkeypatch, answer)}}) as made:
        with pytest.raises(InvalidImage):
            await made.fetch(api_call=item("1"))
        with pytest.raises(InvalidImage if image else UpstreamFailed):
            await made.fetch([item("1")])


async def test_what_a_caller_cancels_within_itself_fails_its_call_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_call: Call) -> Answer:
        part = asyncio.create_task(asyncio.Event().wait())
        part.cancel()
        await part
        raise AssertionError("unreachable")

    async with fetching({"archive": {"caller": given_by(monkeypatch, answer)}}) as made:
        with pytest.raises(UpstreamFailed, match=r"^archive failed$"):
            await made.fetch(api_call=item("1"))
        fetched = await made.fetch([item("1")], image=picture(3))
        assert fetched.call_errors["archive"].reason == "UPSTREAM_FAILED"


async def test_half_a_character_is_replaced_in_values_and_in_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(call: Call) -> Answer:
        if call.params["item"] == "0":
            raise UpstreamRefused("no \ud83d", metadata={"what": "\ud83d"})
        return Answer(picture(1), {"title \ud83d": "a \ud83d\ude00 \ude00"})

    async with fetching({"archive": {"caller": given_by(monkeypatch, answer)}}) as made:
        with pytest.raises(UpstreamRefused) as caught:
            await made.fetch(api_call=item("0"))
        fetched = await made.fetch(api_call=item("1"))
    assert (caught.value.message, caught.value.metadata) == ("no \ufffd", {"what": "\ufffd"})
    assert fetched.values == {"archive": {"title \ufffd": "a \U0001f600 \ufffd"}}


async def test_calls_in_line_for_a_slow_caller_keep_no_room_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for three answers; one call runs, and of those in line behind it only the first has its room."""
    running, release = asyncio.Event(), asyncio.Event()

    async def answer(_call: Call) -> Answer:
        running.set()
        await release.wait()
        return Answer(picture(1))

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=picture(2))

    table = {"caller": given_by(monkeypatch, answer), "max_in_flight": 1}
    async with http(serve) as base, fetching({"archive": table}, budget_bytes=5 * MIB) as made:
        slow = [asyncio.create_task(made.fetch(api_call=item(f"{number}"))) for number in range(9)]
        await running.wait()
        assert (await made.fetch(url=f"{base}/", within_s=8)).image == picture(2)
        assert not any(task.done() for task in slow)
        release.set()
        for task in slow:
            assert (await task).image == picture(1)


async def test_the_only_slot_is_not_kept_by_a_call_that_waits_for_one_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An image takes the room that the next call of an API with one slot needs, and waits for values of that API."""
    release = asyncio.Event()

    async def answer(call: Call) -> Answer:
        if call.params["item"] == "first":
            await release.wait()
        return Answer(picture(1, size_bytes=600_000), call.params)

    table = {"caller": given_by(monkeypatch, answer), "max_in_flight": 1}
    apis = {"archive": table, "large": {**table, "max_in_flight": 4}}
    async with fetching(apis, budget_bytes=1_300_000, max_image_bytes=MIB) as made, asyncio.timeout(30):
        tasks = []
        for source, calls in (
            ({"image": picture(1)}, [item("first")]),
            ({"api_call": item("second")}, []),
            ({"api_call": item("third", "large", "large")}, [item("fourth")]),
        ):
            tasks.append(asyncio.create_task(made.fetch(calls, **source)))
            for _ in range(20):
                await asyncio.sleep(0)
        release.set()
        found = [fetched.values for fetched in await asyncio.gather(*tasks)]
    assert found[0] == {"archive": {"item": "first"}}
    assert found[1] == {"archive": {"item": "second"}}
    assert found[2] == {"archive": {"item": "fourth"}, "large": {"item": "third"}}


async def test_the_wait_for_a_slot_is_no_failure_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    running, release = asyncio.Event(), asyncio.Event()

    async def answer(_call: Call) -> Answer:
        running.set()
        await release.wait()
        return Answer(picture(1))

    table = {"caller": given_by(monkeypatch, answer), "max_in_flight": 1, "breaker_failures": 1, "timeout_s": 30}
    async with fetching({"archive": table}) as made:
        first = asyncio.create_task(made.fetch(api_call=item("1")))
        await running.wait()
        with pytest.raises(DeadlineExceeded):
            await made.fetch(api_call=item("1"), within_s=0.1)
        third = asyncio.create_task(made.fetch(api_call=item("1")))
        await asyncio.sleep(0)
        release.set()
        for task in (first, third):
            assert (await task).image == picture(1)


async def test_a_caller_that_takes_too_long_is_ended_and_counts_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    async def answer(call: Call) -> Answer:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(call.params["item"])
        raise AssertionError("unreachable")

    limits = {"timeout_s": 0.1, "breaker_failures": 2, "breaker_open_s": 600}
    async with fetching({"archive": {"caller": given_by(monkeypatch, answer), **limits}}) as made:
        for number in range(2):
            with pytest.raises(UpstreamFailed, match=r"^archive did not answer in time$"):
                await made.fetch(api_call=item(f"{number}"))
        with pytest.raises(UpstreamFailed, match=r"^archive failed too often of late$"):
            await made.fetch(api_call=item("2"))
    assert ended == ["0", "1"]


async def test_a_call_is_cancelled_when_the_time_of_its_source_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    async def answer(call: Call) -> Answer:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(call.name)
        raise AssertionError("unreachable")

    async with fetching({"archive": {"caller": given_by(monkeypatch, answer)}}) as made:
        with pytest.raises(DeadlineExceeded):
            await made.fetch([item("1", "beside")], api_call=item("1", "image"), within_s=0.1)
        fetched = await made.fetch([item("1", "alone")], image=picture(1), within_s=0.1)
        with pytest.raises(DeadlineExceeded):
            await made.fetch([item("1", "bare")], within_s=0.1)
    assert fetched.call_errors["alone"].reason == "DEADLINE_EXCEEDED"
    assert sorted(ended) == ["alone", "bare", "beside", "image"]


async def test_a_call_of_a_caller_that_is_cancelled_leaves_its_slot_its_room_and_no_blame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running: asyncio.Queue[str] = asyncio.Queue()
    release, ended = asyncio.Event(), []

    async def answer(call: Call) -> Answer:
        running.put_nowait(call.params["item"])
        try:
            await release.wait()
        except asyncio.CancelledError:
            ended.append(call.params["item"])
            raise
        return Answer(picture(1))

    limits = {"max_in_flight": 1, "breaker_failures": 1, "breaker_open_s": 600, "timeout_s": 60}
    async with fetching({"archive": {"caller": given_by(monkeypatch, answer), **limits}}) as made:

        def fetch(number: str) -> asyncio.Task[Fetched]:
            return asyncio.create_task(made.fetch(api_call=item(number)))

        first, second = fetch("1"), fetch("2")
        assert await asyncio.wait_for(running.get(), 30) == "1"
        assert made.budget.used_bytes > 0
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert ended == ["1"]
        # The one slot goes to the next in line, and the breaker, which one failure opens, lets more calls through.
        assert await asyncio.wait_for(running.get(), 30) == "2"
        third = fetch("3")
        release.set()
        for task in (second, third):
            assert (await asyncio.wait_for(task, 30)).image == picture(1)


async def test_calls_for_values_find_no_room_necessary(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_call: Call) -> Answer:
        return Answer(None, {"a": 1})

    async with fetching({"archive": {"caller": given_by(monkeypatch, answer)}}, budget_bytes=1000) as made:
        await full(made)
        assert (await made.call(item("1"))).values == {"a": 1}
        assert (await made.fetch([item("1")], image=picture(1), within_s=8)).values == {"archive": {"a": 1}}
        made.budget.give_back(900, Phase.FETCH, "another")


async def full(made: Fetching) -> None:
    made.budget.take(900, Phase.FETCH, "another")
