"""Room for what is fetched: what is reserved, who waits, and that nothing is kept; against real HTTP servers."""

from __future__ import annotations

import asyncio
import base64
import gzip
from contextlib import suppress

import pytest
from aiohttp import web
from fetching import Fetching, call, context, fetching
from loop_time import pass_time
from sluiceway_orchestrator.fetch import Call
from sluiceway_orchestrator.fetch.api import Brought
from sluiceway_orchestrator.fetch.room import Estimate, Room
from sluiceway_orchestrator.job import ApiCall, Source
from sluiceway_orchestrator.metrics.apis import ApiMetrics
from sluiceway_orchestrator.testing import picture, picture_number
from sluiceway_runtime.account import Phase
from sluiceway_runtime.errors import DeadlineExceeded, SluicewayError
from waiting import until
from web_sources import http

MIB = 2**20


async def held(made: Fetching, *, used: int, waiting: int) -> None:
    await until(lambda: (made.budget.used_bytes, made.budget.waiting) == (used, waiting))


async def test_fetched_bytes_stay_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight images of 1 MiB, each an account's own, through room for two, which nobody gives back for a while.

    Six of them wait for longer than an attempt may take: that is no fault of the other side and no failed attempt.
    """
    started = 0

    async def serve(_request: web.Request) -> web.Response:
        nonlocal started
        started += 1
        return web.Response(body=picture(started, size_bytes=MIB))

    options = {"max_image_bytes": MIB, "url_timeout_s": 60, "url_retries": 0}
    async with http(serve) as base, fetching(budget_bytes=3 * MIB, **options) as made:
        tasks = [asyncio.create_task(made.fetch(url=f"{base}/{n}", keep=True, within_s=600)) for n in range(8)]
        await held(made, used=2 * MIB, waiting=6)
        await until(lambda: sum(task.done() for task in tasks) >= 2)
        assert started == 8
        pass_time(120, monkeypatch)
        await asyncio.sleep(0.05)
        await held(made, used=2 * MIB, waiting=6)
        for task in asyncio.as_completed(tasks):
            fetched = await task
            assert made.budget.used_bytes <= 2 * MIB
            assert len(fetched.image) == MIB
            fetched.release()


@pytest.mark.parametrize("kind", ["no length", "compressed"])
async def test_an_answer_of_unknown_size_reserves_what_the_host_sent_of_late(kind: str) -> None:
    go_on = asyncio.Event()
    size_bytes = 3 * MIB

    async def serve(request: web.Request) -> web.StreamResponse:
        body = picture(1, size_bytes=size_bytes)
        if kind == "compressed":
            headers = {"Content-Encoding": "gzip"}
            body = gzip.compress(body)
        else:
            headers = {}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await go_on.wait()
        await response.write(body)
        return response

    async with http(serve) as base, fetching() as made:
        for expected in (MIB, 3 * MIB):
            go_on.clear()
            task = asyncio.create_task(made.fetch(url=f"{base}/", keep=True))
            await held(made, used=expected, waiting=0)
            go_on.set()
            fetched = await task
            assert (made.budget.used_bytes, len(fetched.image)) == (size_bytes, size_bytes)
            fetched.release()


async def test_a_known_size_is_reserved_before_the_body_is_read() -> None:
    go_on = asyncio.Event()

    async def serve(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(5 * MIB)})
        await response.prepare(request)
        await go_on.wait()
        await response.write(picture(1, size_bytes=5 * MIB))
        return response

    async with http(serve) as base, fetching() as made:
        task = asyncio.create_task(made.fetch(url=f"{base}/", keep=True))
        await held(made, used=5 * MIB, waiting=0)
        go_on.set()
        (await task).release()


async def test_images_that_wait_for_their_calls_do_not_keep_the_calls_waiting() -> None:
    """Four images of 400 kB through room for two, and facts that come only once the room is used up."""

    async def serve(request: web.Request) -> web.Response:
        if request.path != "/facts":
            return web.Response(body=picture(int(request.path[1:]), size_bytes=400_000))
        await until(lambda: made.budget.used_bytes >= 800_000)
        return web.json_response({"author": "A"})

    async with http(serve) as base:
        api = {"url": f"{base}/facts", "image": "none", "values": {"author": "/author"}}
        async with fetching({"facts": api}, budget_bytes=1_200_000) as made:
            tasks = [made.fetch([call("facts")], url=f"{base}/{n}") for n in range(4)]
            for fetched in await asyncio.gather(*tasks):
                assert fetched.values == {"facts": {"author": "A"}}


async def test_images_that_wait_for_room_leave_a_slot_for_a_call_for_values() -> None:
    """An API's images wait for the room of an image that waits for values of the same API."""

    async def serve(request: web.Request) -> web.Response:
        number = request.query["id"]
        if number == "facts":
            return web.json_response({"author": "A"})
        image = base64.b64encode(picture(int(number), size_bytes=600_000)).decode()
        return web.json_response({"image": image})

    async with http(serve) as base:
        api = {
            "url": f"{base}/archive?id={{id}}",
            "params": ["id"],
            "image": "base64",
            "image_pointer": "/image",
            "values": {"author": "/author"},
            "max_in_flight": 2,
        }
        async with fetching({"archive": api}, budget_bytes=1_200_000) as made, asyncio.timeout(30):
            large = await made.fetch(api_call=call("archive", id="9"), keep=True)
            images = [asyncio.create_task(made.fetch(api_call=call("archive", id=n))) for n in "123"]
            await held(made, used=600_000, waiting=2)
            beside = await made.fetch([call("archive", id="facts")], image=picture(1))
            assert beside.values == {"archive": {"author": "A"}}
            assert not any(task.done() for task in images)
            large.release()
            found = await asyncio.gather(*images)
    assert [picture_number(fetched.image)[0] for fetched in found] == [1, 2, 3]


async def test_images_of_one_source_do_not_wait_for_each_other() -> None:
    """Six sources without content, each with two calls that bring images, through room for two images."""

    async def serve(request: web.Request) -> web.Response:
        return web.Response(body=picture(int(request.path[1:]), size_bytes=500_000))

    async with http(serve) as base:
        photo = {"url": f"{base}/{{n}}", "params": ["n"]}
        apis = {"photo": photo, "single": {**photo, "max_in_flight": 1}}
        async with fetching(apis, budget_bytes=1_500_000) as made, asyncio.timeout(30):
            calls = [call("photo", n="1"), call("single", n="2"), call("photo", "photo_2", n="3")]
            kept = [made.fetch(calls[turn % 3 :] + calls[: turn % 3]) for turn in range(6)]
            given = [made.fetch(api_call=call(api, n="4")) for api in ("photo", "single") for _ in range(3)]
            found = await asyncio.gather(*kept, *given)
    assert [picture_number(fetched.image)[0] for fetched in found] == [*([1, 2, 3] * 2), *([4] * 6)]


SOURCES = {
    "url": ({"url": "{base}/"}, ()),
    "image of an API": ({"api_call": call("photo")}, ()),
    "image of an API with one slot": ({"api_call": call("single")}, ()),
    "images of calls": ({}, (call("photo"), call("single"))),
}


@pytest.mark.parametrize("kind", SOURCES)
async def test_the_wait_for_room_ends_with_the_deadline(kind: str) -> None:
    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=picture(1, size_bytes=5000))

    source, calls = SOURCES[kind]
    async with http(serve) as base:
        photo = {"url": f"{base}/"}
        apis = {"photo": photo, "single": {**photo, "max_in_flight": 1}}
        async with fetching(apis, budget_bytes=10_000) as made:
            full = made.budget.account()
            await full.reserve(9000, Phase.FETCH)
            given = {name: value.format(base=base) if name == "url" else value for name, value in source.items()}  # type: ignore[attr-defined]
            with pytest.raises(DeadlineExceeded):
                await made.fetch(calls, within_s=0.2, **given)
            assert (made.budget.used_bytes, made.budget.waiting) == (9000, 0)
            full.close()
            assert (await made.fetch(calls, **given)).image == picture(1, size_bytes=5000)


class Steps:
    """An API that answers in a few turns of the loop."""

    name = "steps"
    params = ()
    brings_image = brings_values = True

    def __init__(self) -> None:
        self.expected = Estimate(1000)

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def call(self, call: Call, room: Room) -> Brought:
        holding = await room.take(100)
        await asyncio.sleep(0)
        holding.settle(50)
        await asyncio.sleep(0)
        return Brought(picture(1) if call.want_image else b"")


@pytest.mark.parametrize("kind", ["image of the request", "image of an API", "images of calls"])
async def test_a_client_that_leaves_at_any_moment_leaves_no_room_taken(kind: str) -> None:
    steps = [call("steps", f"{number}") for number in range(3)]
    source = {
        "image of the request": Source("s", image=picture(1)),
        "image of an API": Source("s", api_call=call("steps")),
        "images of calls": Source("s"),
    }[kind]
    async with fetching() as made:
        made.fetcher.apis["steps"] = Steps()
        made.fetcher.metrics = ApiMetrics(("steps",))
        account = made.budget.account()
        turns = 0
        while True:
            task = asyncio.create_task(made.fetcher.fetch(source, steps, context(600), account))
            for _ in range(turns):
                await asyncio.sleep(0)
            if task.done():
                break
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert account.held_bytes == 0, f"after {turns} turns"
            turns += 1
        fetched = task.result()
        assert account.held_bytes == (0 if kind == "image of the request" else 50)
        fetched.release()
        assert account.held_bytes == 0
    assert turns > 3


@pytest.mark.parametrize("how", ["500", "404", "no image", "no JSON", "too large", "cut off", "never", "no such place"])
@pytest.mark.parametrize("api", ["body", "base64", "url", "none", "given url"])
async def test_whatever_fails_leaves_the_account_at_zero(how: str, api: str) -> None:
    """For the image, for a call beside an image, for a call that may bring it, and for a step."""

    async def serve(request: web.Request) -> web.StreamResponse:
        if how in ("500", "404"):
            return web.Response(status=int(how), body=b"x" * 1000)
        if how == "no image":
            text = base64.b64encode(b"no image").decode()
            return web.json_response({"image": f"http://{request.host}/" if api == "url" else text, "a": 1})
        if how == "no JSON":
            return web.Response(body=b"{" * 1000)
        if how == "no such place":
            return web.json_response({"b": 1})
        response = web.StreamResponse(headers={"Content-Length": "5000000"} if how == "cut off" else {})
        await response.prepare(request)
        await response.write(b" " * 2000)
        if how == "too large":
            await response.write(b" " * 3 * MIB)
        elif how == "never":
            await asyncio.Event().wait()
        elif request.transport is not None:
            request.transport.close()
        return response

    pointer = {} if api in ("body", "none", "given url") else {"image_pointer": "/image"}
    async with http(serve) as base:
        image = "body" if api == "given url" else api
        table = {"url": f"{base}/", "image": image, "retries": 1, "hedge_after_s": 0.05, **pointer}
        if table["image"] not in ("body", "none"):
            table["values"] = {"a": "/a"}
        options = {"max_image_bytes": MIB, "url_retries": 1, "url_hedge_after_s": 0.05}
        async with fetching({"api": table}, **options) as made:
            account = made.budget.account()
            within_s = 0.5 if how == "never" else 30
            sources: list[tuple[Source, list[ApiCall]]] = [
                (Source("s", api_call=call("api")), []),
                (Source("s", image=picture(1)), [call("api")]),
                (Source("s"), [call("api"), call("api", "api_2")]),
            ]
            if api == "given url":
                sources = [(Source("s", url=f"{base}/"), [call("api")])]
            for source, calls in sources:
                try:
                    fetched = await made.fetcher.fetch(source, calls, context(within_s), account)
                except SluicewayError:
                    pass
                else:
                    assert source.image is not None
                    fetched.release()
                assert account.held_bytes == 0
            with suppress(SluicewayError):
                await made.fetcher.call(call("api"), context(within_s), account)
            assert account.held_bytes == 0
