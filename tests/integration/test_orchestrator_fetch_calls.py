"""Calls of APIs: what they say beside or in place of an image, and which of several counts."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from aiohttp import web
from fetching import fetching
from sluiceway_orchestrator.fetch import Answer, DetectionChoice
from sluiceway_orchestrator.job import ApiCall
from sluiceway_orchestrator.testing import picture
from sluiceway_runtime.errors import (
    InvalidOption,
    UnknownApi,
    UpstreamFailed,
    UpstreamRefused,
)
from web_sources import http


async def test_half_a_character_in_values_is_replaced() -> None:
    """JSON can hold a lone surrogate, which no message of the contract can."""

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(text='{"title": "a\\ud83d", "more": {"\\ud83d": ["\\ud83d\\ude00"]}}')

    async with http(serve) as base:
        api = {"url": f"{base}/", "image": "none", "values": {"title": "/title", "more": "/more"}}
        async with fetching({"facts": api}) as made:
            fetched = await made.fetch([ApiCall("facts", {}, "facts")], image=picture(1))
    assert fetched.values == {"facts": {"title": "a\ufffd", "more": {"\ufffd": ["\U0001f600"]}}}


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": 1e999}', '{"a": ' + "[" * 40 + "]" * 40 + "}"])
async def test_values_that_no_message_can_carry_fail_their_call(text: str) -> None:
    async def serve(_request: web.Request) -> web.Response:
        return web.Response(text=text)

    async with http(serve) as base:
        api = {"url": f"{base}/", "image": "none", "values": {"a": "/a"}, "retries": 0}
        async with fetching({"facts": api}) as made:
            fetched = await made.fetch([ApiCall("facts", {}, "facts")], image=picture(1))
    assert fetched.values == {}
    assert fetched.call_errors["facts"].reason == "UPSTREAM_FAILED"
    assert "cannot be handed on" in fetched.call_errors["facts"].message


async def test_an_answer_for_values_alone_has_the_room_of_one_without_an_image() -> None:
    async def serve(request: web.Request) -> web.Response:
        return web.json_response({"text": "a" * int(request.query["size"])})

    async with http(serve) as base:
        api = {"url": f"{base}/?size={{size}}", "params": ["size"], "image": "none", "values": {"text": "/text"}}
        async with fetching({"text": api}) as made:
            calls = [ApiCall("text", {"size": str(size)}, f"{size}") for size in (2**20 - 100, 2**20)]
            fetched = await made.fetch(calls, image=picture(1))
    assert fetched.values == {f"{2**20 - 100}": {"text": "a" * (2**20 - 100)}}
    assert fetched.call_errors[f"{2**20}"].reason == "IMAGE_TOO_LARGE"


async def test_calls_run_beside_the_image_and_fail_alone() -> None:
    together = asyncio.Barrier(4)

    async def serve(request: web.Request) -> web.Response:
        async with asyncio.timeout(30):
            await together.wait()
        if request.path == "/image":
            return web.Response(body=picture(1))
        if request.path == "/broken":
            return web.Response(status=404)
        return web.json_response({"author": request.path[-1]})

    async with http(serve) as base:
        # One attempt each, and no end to it: a second one must not stand in for a call that never came.
        once = {"retries": 0, "timeout_s": 60}
        apis = {
            "image": {"url": f"{base}/image", **once},
            "facts": {
                "url": f"{base}/facts/{{of}}",
                "params": ["of"],
                "image": "none",
                "values": {"author": "/author"},
                **once,
            },
            "broken": {"url": f"{base}/broken", "image": "none", **once},
        }
        calls = [
            ApiCall("facts", {"of": "A"}, "facts"),
            ApiCall("broken", {}, "broken"),
            ApiCall("unheard-of", {}, "unheard-of"),
            ApiCall("facts", {"of": "B"}, "facts_2"),
        ]
        async with fetching(apis) as made:
            fetched = await made.fetch(calls, api_call=ApiCall("image", {}, "image"))
    assert fetched.image == picture(1)
    assert fetched.values == {"facts": {"author": "A"}, "facts_2": {"author": "B"}}, "two calls of one API"
    reasons = {name: error.reason for name, error in fetched.call_errors.items()}
    assert reasons == {"broken": "UPSTREAM_REFUSED", "unheard-of": "UNKNOWN_API"}


async def test_answers_choose_options_of_detection_and_later_calls_win() -> None:
    answers = {
        "/a": {"options": {"at_least": 0.3, "most": 7, "names": ["car"], "iou": None}},
        "/b": {"options": {"at_least": 0.6, "side": 640}},
    }

    async def serve(request: web.Request) -> web.Response:
        return web.json_response(answers[request.path])

    async with http(serve) as base:
        pointers = {
            "confidence": "/options/at_least", "max_detections": "/options/most", "classes": "/options/names",
            "image_size": "/options/side", "iou": "/options/iou",
        }  # fmt: skip
        apis = {name: {"url": f"{base}/{name}", "image": "none", "detection": pointers} for name in "ab"}
        async with fetching(apis) as made:
            calls = [ApiCall("a", {}, "a"), ApiCall("b", {}, "b")]
            forth = await made.fetch(calls, image=picture(1))
            back = await made.fetch(calls[::-1], image=picture(1))
            none = await made.fetch(image=picture(1))
    assert forth.detection == DetectionChoice(confidence=0.6, classes=("car",), max_detections=7, image_size=640)
    assert back.detection == DetectionChoice(confidence=0.3, classes=("car",), max_detections=7, image_size=640)
    assert none.detection is None


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("confidence", 1.5, "confidence: must be a number"),
        ("iou", "0.5", "iou: must be a number"),
        ("classes", "car", "classes: must be a list"),
        ("max_detections", 0, "max_detections: must be"),
        ("image_size", 100, "image_size: must be"),
    ],
)
async def test_an_option_that_cannot_be_fails_its_call(option: str, value: object, words: str) -> None:
    async def serve(_request: web.Request) -> web.Response:
        return web.json_response({"a": value})

    async with http(serve) as base:
        api = {"url": f"{base}/", "image": "none", "detection": {option: "/a"}}
        async with fetching({"choice": api}) as made:
            fetched = await made.fetch([ApiCall("choice", {}, "choice")], image=picture(1))
    assert fetched.detection is None
    assert fetched.call_errors["choice"].reason == "UPSTREAM_FAILED"
    assert words in fetched.call_errors["choice"].message


async def test_without_content_the_first_call_with_an_image_brings_it() -> None:
    async def serve(request: web.Request) -> web.Response:
        if request.path == "/facts":
            return web.json_response({"author": "A"})
        if request.path in ("/broken", "/refused"):
            return web.Response(status=404 if request.path == "/broken" else 403)
        image = base64.b64encode(picture(int(request.path[1:]), size_bytes=50_000)).decode()
        return web.json_response({"image": image, "number": int(request.path[1:])})

    async with http(serve) as base:
        number = {
            "url": f"{base}/{{n}}", "params": ["n"], "image": "base64", "image_pointer": "/image",
            "values": {"number": "/number"},
        }  # fmt: skip
        apis = {
            "facts": {"url": f"{base}/facts", "image": "none", "values": {"author": "/author"}},
            "broken": {"url": f"{base}/broken", "retries": 0},
            "silent": {"url": f"{base}/broken", "image": "none", "retries": 0},
            "refused": {"url": f"{base}/refused", "retries": 0},
            "number": number,
        }
        facts, broken = ApiCall("facts", {}, "facts"), ApiCall("broken", {}, "broken")
        seven, eight = (ApiCall("number", {"n": n}, f"n{n}") for n in "78")
        async with fetching(apis) as made:
            fetched = await made.fetch([facts, broken, seven, eight], keep=True)
            assert made.budget.used_bytes == 50_000, "the other image is gone"
            fetched.release()
            assert made.budget.used_bytes == 0
            assert fetched.values == {"facts": {"author": "A"}, "n7": {"number": 7}, "n8": {"number": 8}}
            assert list(fetched.call_errors) == ["broken"]
            assert (await made.fetch([eight, seven])).image == picture(8, size_bytes=50_000)
            refused, silent = ApiCall("refused", {}, "refused"), ApiCall("silent", {}, "silent")
            with pytest.raises(UpstreamRefused, match="403"):
                await made.fetch([facts, silent, refused, broken])
            with pytest.raises(InvalidOption, match="must be set"):
                await made.fetch([facts])
            with pytest.raises(InvalidOption, match="must be set"):
                await made.fetch()


async def test_a_call_step_gets_values_and_keeps_nothing() -> None:
    async def serve(request: web.Request) -> web.Response:
        if request.path == "/image":
            return web.Response(body=picture(1))
        if request.path == "/broken":
            return web.Response(status=404)
        return web.json_response({"owner": request.query["plate"]})

    async with http(serve) as base:
        apis = {
            "owner": {"url": f"{base}/?plate={{p}}", "params": ["p"], "image": "none", "values": {"owner": "/owner"}},
            "image": {"url": f"{base}/image"},
            "broken": {"url": f"{base}/broken", "image": "none"},
        }
        async with fetching(apis) as made:
            assert await made.call(ApiCall("owner", {"p": "AB 1"}, "owner")) == Answer(None, {"owner": "AB 1"})
            assert await made.call(ApiCall("image", {}, "image")) == Answer()
            for api, kind in (("broken", UpstreamRefused), ("unheard-of", UnknownApi), ("owner", InvalidOption)):
                with pytest.raises(kind):
                    await made.call(ApiCall(api, {}, api))
            assert made.budget.used_bytes == 0


async def test_an_unknown_api_or_parameter_is_refused() -> None:
    calls = {
        "api_call.params: missing id": {},
        "api_call.params: unknown more": {"id": "1", "more": "2"},
        "api_call.params.id: longer": {"id": "x" * 8193},
        "unknown": {f"{number}" * 5000: "" for number in range(100)},
    }
    apis = {
        "a": {"url": "http://127.0.0.1:9/{id}", "params": ["id"]},
        "n": {"url": "http://127.0.0.1:9/", "image": "none"},
    }
    async with fetching(apis) as made:
        with pytest.raises(UnknownApi):
            await made.fetch(api_call=ApiCall("b", {}, "b"))
        with pytest.raises(InvalidOption, match="n brings no image"):
            await made.fetch(api_call=ApiCall("n", {}, "n"))
        for words, params in calls.items():
            with pytest.raises(InvalidOption) as caught:
                await made.fetch(api_call=ApiCall("a", params, "a"))
            assert words in caught.value.message
            assert len(caught.value.message) < 1000, "what was sent does not come back at length"


async def test_json_that_is_none_fails_the_source() -> None:
    async def serve(request: web.Request) -> web.Response:
        return web.Response(body={"/a": b"{", "/b": json.dumps({"i": 5}).encode(), "/c": b"[" * 100_000}[request.path])

    async with http(serve) as base:
        common = {"image": "base64", "image_pointer": "/i", "retries": 0}
        async with fetching({name: {"url": f"{base}/{name}", **common} for name in "abc"}) as made:
            for name in "abc":
                with pytest.raises(UpstreamFailed):
                    await made.fetch(api_call=ApiCall(name, {}, name))
                assert made.budget.used_bytes == 0
